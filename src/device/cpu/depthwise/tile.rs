//! Source entries register by register of channels, with zeros around the image.
#![allow(clippy::manual_memcpy)] // Loops over registers by number are unrolled, and their arrays stay in registers.

use super::{super::HostBlock, COLUMNS, Place, WINDOW};
use crate::scalar::Scalar;
use pulp::Simd;
use std::ops::Range;

/// `[register of channels][plane][row][column][lane]`
pub(super) struct Tile<T: Scalar> {
    block: HostBlock<T>,
    /// The first entry of a cache line.
    start: usize,
    registers: usize,
    /// Which tap of the outermost axis each plane meets.
    pub(super) planes: Vec<usize>,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl<T: Scalar> Tile<T> {
    /// A tile whose rows are all to be written.
    pub(super) fn new(planes: Vec<usize>, [height, width]: [usize; 2], registers: usize, lanes: usize) -> Self {
        let line = 64 / size_of::<T>();
        let block = HostBlock::<T>::pooled(planes.len() * height * width * registers * lanes + line);
        let start = block.as_slice().as_ptr().align_offset(64).min(line);
        Self { block, start, registers, planes, height, width }
    }

    /// The `i`-th register of channels, `[plane][row][column]`.
    #[inline(always)]
    pub(super) fn of<S: Simd>(&self, i: usize) -> &[T::Vector<S>] {
        let len = self.planes.len() * self.height * self.width;
        let all: &[T::Vector<S>] = T::vectors::<S>(&self.block.as_slice()[self.start..]);
        &all[i * len..(i + 1) * len]
    }

    /// Writes a row: the first column of the tile is column `left` of `line`, which has `n` channels; zeros where there is none.
    #[inline(always)]
    pub(super) fn write<S: Simd>(&mut self, simd: S, [plane, row]: [usize; 2], line: &[T], left: isize, n: usize) {
        let (lanes, width) = (T::lanes::<S>(), self.width);
        let step = self.planes.len() * self.height * width;
        let size = (line.len() / n) as isize;
        // The tile's columns that lie in the image.
        let seen = (-left).clamp(0, width as isize) as usize..(size - left).clamp(0, width as isize) as usize;
        let to: &mut [T::Vector<S>] = T::vectors_mut::<S>(&mut self.block.as_mut_slice()[self.start..]);
        for i in 0..self.registers {
            let to = &mut to[i * step + (plane * self.height + row) * width..][..width];
            to[..seen.start].fill(T::zeros(simd));
            to[seen.end.max(seen.start)..].fill(T::zeros(simd));
            if seen.is_empty() {
                continue;
            }
            let first = (seen.start as isize + left) as usize * n + i * lanes;
            let columns = to[seen.clone()].iter_mut().zip(line[first..].chunks(n));
            if (i + 1) * lanes <= n {
                columns.for_each(|(to, from)| *to = T::vectors::<S>(&from[..lanes])[0]);
            } else {
                let count = n - i * lanes;
                columns.for_each(|(to, from)| *to = T::load_part(simd, &from[..count]));
            }
        }
    }
}

impl Place<'_> {
    /// The source entries of some rows of the result, with columns for whole blocks of [`COLUMNS`].
    #[inline(always)]
    pub(super) fn tile<S: Simd, T: Scalar>(&self, simd: S, image: &[T], rows: &Range<usize>) -> Tile<T> {
        let [deep, high, wide] = self.axes;
        let (n, lanes) = (self.channels, T::lanes::<S>());
        let (low, top) = high.reach();
        let first = (rows.start * high.stride) as isize + low;
        let height = (rows.len().max(1) - 1) * high.stride + (top - low) as usize + 1;
        let (left, right) = wide.reach();
        let columns = wide.count.next_multiple_of(COLUMNS).max(1);
        let width = (columns - 1) * wide.stride + (right - left) as usize + 1;
        let plane = |tap: usize| (self.plane * deep.stride) as isize + deep.taps[tap].offset;
        let met = (0..deep.taps.len()).filter(|&tap| (0..deep.source as isize).contains(&plane(tap)));
        let mut tile = Tile::new(met.collect(), [height, width], n.div_ceil(lanes), lanes);
        for i in 0..tile.planes.len() {
            let plane = plane(tile.planes[i]) as usize;
            for r in 0..height {
                let from = first + r as isize;
                let line: &[T] = match (0..high.source as isize).contains(&from) {
                    true => &image[(plane * high.source + from as usize) * wide.source * n..][..wide.source * n],
                    false => &[],
                };
                tile.write(simd, [i, r], line, left, n);
            }
        }
        tile
    }
}

/// What `COLUMNS` results of `K` neighbouring taps see of a row of a tile; the last places are unused for short kernels.
#[inline(always)]
pub(super) fn window<S: Simd, T: Scalar, const K: usize>(simd: S, line: &[T::Vector<S>]) -> [T::Vector<S>; WINDOW] {
    let line = &line[..COLUMNS + K - 1];
    let mut xs = [T::zeros(simd); WINDOW];
    for i in 0..COLUMNS + K - 1 {
        xs[i] = line[i];
    }
    xs
}
