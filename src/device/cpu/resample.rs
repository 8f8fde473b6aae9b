//! Linear resampling on the host: result rows of channels as sums of scaled source rows.

use super::{
    Cpu,
    conv::{Block, block_rows, blocks, for_each_block},
    vectorized,
};
use crate::{device::resample::Mix, scalar::Scalar};

pub(crate) fn resample<T: Scalar>(cpu: &Cpu, channels: usize, mixes: &[Mix<T>; 3], x: &[T], out: &mut [T]) {
    if out.is_empty() {
        return;
    }
    let [deep, high, wide] = mixes;
    let row = wide.result() * channels;
    let images = out.len() / (row * high.result());
    let height = block_rows(cpu, images, high.result(), row * size_of::<T>() * 4);
    let image = deep.source * high.source * wide.source * channels;
    let work = |block: Block<T>| {
        let x = &x[block.image * image..(block.image + 1) * image];
        vectorized(
            #[inline(always)]
            || {
                for (i, out) in block.out.chunks_exact_mut(row).enumerate() {
                    out.fill(T::zero());
                    for &(d, by_deep) in deep.terms(block.plane) {
                        for &(h, by_high) in high.terms(block.row + i) {
                            let line = &x[(d * high.source + h) * wide.source * channels..][..wide.source * channels];
                            add_line(wide, by_deep * by_high, line, channels, out);
                        }
                    }
                }
            },
        );
    };
    let blocks = blocks(out, [deep.result(), high.result(), row], height);
    for_each_block(cpu, blocks, &work);
}

/// `out[i, c] += factor sum_j wide[i, j] line[j, c]`
#[inline(always)]
fn add_line<T: Scalar>(wide: &Mix<T>, factor: T, line: &[T], channels: usize, out: &mut [T]) {
    let at = |j: usize| &line[j * channels..][..channels];
    for (i, out) in out.chunks_exact_mut(channels).enumerate() {
        match *wide.terms(i) {
            // Pairs are what resizing and small pools have: one pass over the result for both.
            [(j, a), (k, b)] => {
                let (a, b) = (factor * a, factor * b);
                let both = at(j).iter().zip(at(k));
                out.iter_mut().zip(both).for_each(|(y, (&s, &t))| *y += a * s + b * t);
            }
            ref terms => {
                for &(j, a) in terms {
                    let a = factor * a;
                    out.iter_mut().zip(at(j)).for_each(|(y, &s)| *y += a * s);
                }
            }
        }
    }
}
