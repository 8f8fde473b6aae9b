//! Depthwise convolutions on the host, a register of channels at a time.
//!
//! Where the taps of a kernel row meet neighbouring source entries for neighbouring results ([`tiled`], the usual case), a block of result rows first copies
//! the source rows it needs into a tile `[register of channels][plane][row][column][lane]` with zeros around the image. That reads the source once and in order,
//! and leaves rows of one register of channels that fit the first-level cache. Some columns of two rows of the result are then computed together: the source
//! entries that a kernel row meets are loaded once for all its taps and both rows.
//!
//! With strides and dilations ([`direct`]) there is little to share between taps, and the source is read where it lies.
//!
//! Cost: 2 taps flops an entry of the result; source and result pass through memory once, but for the rows that blocks share.
#![allow(clippy::needless_range_loop)] // Loops over registers by number are unrolled, and their arrays stay in registers.

mod direct;
mod tile;
mod tiled;
mod weights;

pub(crate) use weights::weight_gradient;

use super::{
    Cpu, HostBlock, arch,
    conv::{Axes, Block, blocks, for_each_block},
};
use crate::{
    device::conv::{Axis, Geometry},
    scalar::Scalar,
};
use pulp::Simd;
use std::ops::Range;

/// Columns of the result that are computed together: a divisor of the usual sizes of images (224 / 2^n).
const COLUMNS: usize = 7;

/// Source entries that `COLUMNS` results of up to seven neighbouring taps meet.
const WINDOW: usize = COLUMNS + 6;

/// Bytes of a block's result: with its tile, within a second-level cache.
const BLOCK: usize = 640 << 10;

/// Rows of a block: it fits, and there is work for every thread.
fn block_rows(cpu: &Cpu, images: usize, rows: usize, row: usize) -> usize {
    let fit = (BLOCK / row.max(1)).max(1);
    let share = match cpu.thread_count() {
        1 => rows,
        threads => (images * rows).div_ceil(4 * threads).max(8),
    };
    let most = fit.min(share).clamp(1, rows.max(1));
    rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
}

/// The axes of a pass, and where along the outermost of them.
#[derive(Clone, Copy)]
struct Place<'a> {
    axes: [&'a Axis; 3],
    channels: usize,
    plane: usize,
}

impl Place<'_> {
    /// The number of taps in a kernel row where they meet neighbouring source entries for neighbouring results, else 0.
    fn neighbours(&self) -> usize {
        let wide = self.axes[2];
        if wide.stride == 1 && wide.step == 1 && side_by_side(wide) { wide.taps.len() } else { 0 }
    }

    /// The pass's rows among some rows of the result.
    fn rows(&self, rows: &Range<usize>) -> Range<usize> {
        let high = self.axes[1];
        let upto = |row: usize| (row.max(high.first) - high.first).div_ceil(high.step).min(high.count);
        upto(rows.start)..upto(rows.end)
    }
}

fn side_by_side(axis: &Axis) -> bool {
    axis.taps.windows(2).all(|taps| taps[1].offset == taps[0].offset + 1)
}

/// The weight as `[register of channels][tap of the pass][lane]`, and the bias as `[register of channels][lane]`.
struct Packed<T: Scalar> {
    block: HostBlock<T>,
    /// The first entry of a cache line.
    start: usize,
    bias: usize,
    taps: usize,
}

impl<T: Scalar> Packed<T> {
    fn new(g: &Geometry, axes: [&Axis; 3], w: &[T], bias: Option<&[T]>) -> Self {
        let lanes = lanes_of::<T>();
        let all: Vec<usize> = axes[0]
            .taps
            .iter()
            .flat_map(|d| axes[1].taps.iter().flat_map(move |h| axes[2].taps.iter().map(move |w| [d.k, h.k, w.k])))
            .map(|[d, h, w]| (d * g.kernel[1] + h) * g.kernel[2] + w)
            .collect();
        let (taps, n) = (all.len(), g.c_in.next_multiple_of(lanes));
        let line = 64 / size_of::<T>();
        let mut block = HostBlock::<T>::pooled((taps + 1) * n + line);
        let start = block.as_slice().as_ptr().align_offset(64).min(line);
        let to = block.as_mut_slice();
        to.fill(T::zero());
        for (c, w) in w.chunks_exact(g.taps()).enumerate() {
            let at = start + c / lanes * lanes * taps + c % lanes;
            to[at..].iter_mut().step_by(lanes).zip(&all).for_each(|(to, &tap)| *to = w[tap]);
        }
        let at = start + taps * n;
        if let Some(bias) = bias {
            to[at..at + bias.len()].copy_from_slice(bias);
        }
        Self { block, start, bias: at, taps }
    }

    /// The taps and the bias of the `i`-th register of channels.
    #[inline(always)]
    fn of<S: Simd>(&self, i: usize) -> (&[T::Vector<S>], T::Vector<S>) {
        let (all, lanes) = (self.block.as_slice(), T::lanes::<S>());
        let taps: &[T::Vector<S>] = T::vectors::<S>(&all[self.start + i * self.taps * lanes..]);
        (&taps[..self.taps], T::vectors::<S>(&all[self.bias + i * lanes..])[0])
    }
}

/// How many numbers a register holds here.
fn lanes_of<T: Scalar>() -> usize {
    struct Ask<T>(std::marker::PhantomData<T>);
    impl<T: Scalar> pulp::WithSimd for Ask<T> {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            T::lanes::<S>()
        }
    }
    arch().dispatch(Ask(std::marker::PhantomData::<T>))
}

/// One pass over a block of rows.
struct Correlate<'a, T: Scalar> {
    image: &'a [T],
    place: Place<'a>,
    packed: &'a Packed<T>,
    rows: Range<usize>,
    out: &'a mut [T],
}

impl<T: Scalar> pulp::WithSimd for Correlate<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let high = self.place.axes[1];
        // Two rows' sums, their source entries and a tap: 28 of 32 registers.
        let two = S::REGISTER_COUNT >= 32 && high.stride == 1 && side_by_side(high);
        match (self.place.neighbours(), two) {
            (3, true) => self.tiled::<S, 3, 2>(simd),
            (5, true) => self.tiled::<S, 5, 2>(simd),
            (7, true) => self.tiled::<S, 7, 2>(simd),
            (3, false) => self.tiled::<S, 3, 1>(simd),
            (5, false) => self.tiled::<S, 5, 1>(simd),
            (7, false) => self.tiled::<S, 7, 1>(simd),
            _ => self.direct::<S>(simd),
        }
    }
}

impl<T: Scalar> Correlate<'_, T> {
    /// Writes some channels of the columns from `first` on of row `q`.
    #[inline(always)]
    fn put<S: Simd>(
        &mut self,
        simd: S,
        q: usize,
        first: usize,
        channels: Range<usize>,
        sums: &[T::Vector<S>; COLUMNS],
    ) {
        let [_, high, wide] = self.place.axes;
        let n = self.place.channels;
        let row = (high.first + q * high.step - self.rows.start) * wide.result;
        for j in 0..COLUMNS {
            if first + j < wide.count {
                let at = (row + wide.first + (first + j) * wide.step) * n;
                let to = &mut self.out[at + channels.start..at + channels.end];
                match T::vectors_mut::<S>(to) {
                    [whole] => *whole = sums[j],
                    _ => T::store_part(simd, to, sums[j]),
                }
            }
        }
    }
}

/// Each result position's sum over the taps, channel by channel, plus the bias: forward passes and gradients by the input.
pub(crate) fn correlate<T: Scalar>(
    cpu: &Cpu,
    g: &Geometry,
    axes: &Axes,
    source: &[T],
    w: &[T],
    bias: Option<&[T]>,
    out: &mut [T],
) {
    if out.is_empty() {
        return;
    }
    let result = axes.each_ref().map(|axes| axes[0].result);
    let n = g.c_in;
    let row = result[2] * n;
    let height = block_rows(cpu, g.batch * result[0], result[1], row * size_of::<T>());
    let mut passes = Vec::new();
    for deep in &axes[0] {
        for high in &axes[1] {
            let pass = |wide| ([deep, high, wide], Packed::new(g, [deep, high, wide], w, bias));
            passes.extend(axes[2].iter().map(pass));
        }
    }
    let work = |block: Block<T>| {
        let rows = block.row..block.row + block.out.len() / row;
        for (axes, packed) in passes.iter().filter(|(axes, _)| block.plane % axes[0].step == axes[0].first) {
            let image = axes.iter().map(|axis| axis.source).product::<usize>() * n;
            let image = &source[block.image * image..(block.image + 1) * image];
            let place = Place { axes: *axes, channels: n, plane: block.plane / axes[0].step };
            arch().dispatch(Correlate { image, place, packed, rows: rows.clone(), out: &mut *block.out });
        }
    };
    let blocks = blocks(out, [result[0], result[1], row], height);
    for_each_block(cpu, blocks, &work);
}
