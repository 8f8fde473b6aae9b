//! Maxima over windows on the host, all channels of a window together.
//!
//! The backward pass finds the largest entries again rather than keep where they were: one more pass over the image, and nothing saved. A block
//! of image rows takes what falls into it from every window that reaches it, so threads share no entry.

use super::{
    Cpu,
    conv::{block_rows, blocks, for_each_block},
    vectorized,
};
use crate::{
    device::conv::{Axis, Geometry},
    scalar::Scalar,
};

/// The positions, in rows of channels, of the entries in a window of an image.
fn window<'a>(axes: &'a [Axis; 3], at: [usize; 3]) -> impl Iterator<Item = usize> + 'a {
    let within = move |m: usize| {
        let axis = &axes[m];
        let place = move |offset: isize| (at[m] * axis.stride) as isize + offset;
        axis.taps.iter().map(move |tap| place(tap.offset)).filter(|i| (0..axis.source as isize).contains(i))
    };
    let (rows, cols) = (axes[1].source, axes[2].source);
    within(0).flat_map(move |d| {
        within(1).flat_map(move |h| within(2).map(move |w| (d as usize * rows + h as usize) * cols + w as usize))
    })
}

/// What PyTorch counts as larger: a number above the best so far, and NaN.
#[inline(always)]
fn beats<T: Scalar>(x: T, best: T) -> bool {
    x > best || x.is_nan()
}

pub(crate) fn forward<T: Scalar>(cpu: &Cpu, g: &Geometry, x: &[T], out: &mut [T]) {
    let axes = [0, 1, 2].map(|mode| g.forward(mode));
    let (n, [deep, high, wide]) = (g.c_in, g.output);
    let image = g.input.iter().product::<usize>() * n;
    let height = block_rows(cpu, g.batch * deep, high, 4 * wide * n * size_of::<T>());
    for_each_block(cpu, blocks(out, [deep, high, wide * n], height), &|block| {
        let x = &x[block.image * image..(block.image + 1) * image];
        vectorized(
            #[inline(always)]
            || {
                for (i, out) in block.out.chunks_exact_mut(n).enumerate() {
                    let mut entries = window(&axes, [block.plane, block.row + i / wide, i % wide]);
                    let first = entries.next().unwrap_or_default();
                    out.copy_from_slice(&x[first * n..(first + 1) * n]);
                    for at in entries.by_ref() {
                        let x = &x[at * n..(at + 1) * n];
                        out.iter_mut().zip(x).for_each(|(y, &x)| *y = if beats(x, *y) { x } else { *y });
                    }
                }
            },
        );
    });
}

pub(crate) fn backward<T: Scalar>(cpu: &Cpu, g: &Geometry, x: &[T], dy: &[T], out: &mut [T]) {
    let axes = [0, 1, 2].map(|mode| g.forward(mode));
    let (n, [deep, high, wide]) = (g.c_in, g.output);
    let row = g.input[2] * n;
    let image = g.input.iter().product::<usize>() * n;
    let height = block_rows(cpu, g.batch * g.input[0], g.input[1], 4 * row * size_of::<T>());
    // The windows along a mode that reach one of some entries.
    let reaching = |m: usize, from: usize, to: usize| {
        let first = (from + g.before[m] + 1).saturating_sub(g.kernel[m]).div_ceil(g.stride[m]);
        let end = (to + g.before[m]).div_ceil(g.stride[m]).min(g.output[m]);
        first..end.max(first)
    };
    for_each_block(cpu, blocks(out, [g.input[0], g.input[1], row], height), &|block| {
        let x = &x[block.image * image..(block.image + 1) * image];
        // The block's entries among the image's, in rows of channels.
        let start = (block.plane * g.input[1] + block.row) * g.input[2];
        let rows = block.out.len() / row;
        let mut best = vec![T::zero(); n];
        let mut place = vec![0usize; n];
        block.out.fill(T::zero());
        for d in reaching(0, block.plane, block.plane + 1) {
            for h in reaching(1, block.row, block.row + rows) {
                for w in 0..wide {
                    let mut entries = window(&axes, [d, h, w]);
                    let first = entries.next().unwrap_or_default();
                    vectorized(
                        #[inline(always)]
                        || {
                            best.copy_from_slice(&x[first * n..(first + 1) * n]);
                            place.fill(first);
                            for at in entries.by_ref() {
                                let x = &x[at * n..(at + 1) * n];
                                for ((best, place), &x) in best.iter_mut().zip(&mut place).zip(x) {
                                    let larger = beats(x, *best);
                                    *best = if larger { x } else { *best };
                                    *place = if larger { at } else { *place };
                                }
                            }
                        },
                    );
                    let at = (((block.image * deep + d) * high + h) * wide + w) * n;
                    for (c, (&place, &dy)) in place.iter().zip(&dy[at..at + n]).enumerate() {
                        if let Some(out) = place.checked_sub(start).and_then(|i| block.out.get_mut(i * n + c)) {
                            *out += dy;
                        }
                    }
                }
            }
        }
    });
}
