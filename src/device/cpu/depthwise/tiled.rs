//! Kernel rows of neighbouring taps, from a tile.

use super::{
    COLUMNS, Correlate, WINDOW,
    tile::{Tile, window},
};
use crate::{device::cpu::simd::Vectors, scalar::Scalar};
use pulp::Simd;

impl<T: Scalar> Correlate<'_, T> {
    /// All rows and channels; `K` taps in a kernel row, `R` rows of the result (1 or 2) together. With two, kernel rows are neighbours too.
    #[inline(always)]
    pub(super) fn tiled<S: Simd, const K: usize, const R: usize>(&mut self, simd: S) {
        let (n, wide, lanes) = (self.place.channels, self.place.axes[2], T::lanes::<S>());
        let rows = self.place.rows(&self.rows);
        if rows.is_empty() || wide.count == 0 {
            return;
        }
        let tile = self.place.tile(simd, self.image, &rows);
        for (i, c) in (0..n).step_by(lanes).enumerate() {
            let channels = c..(c + lanes).min(n);
            let mut q = 0;
            while q < rows.len() {
                let count = if q + R <= rows.len() { R } else { 1 };
                for first in (0..wide.count).step_by(COLUMNS) {
                    if count == R {
                        let sums = self.block::<S, K, R>(simd, &tile, i, q, first);
                        self.put(simd, rows.start + q, first, channels.clone(), &sums[0]);
                        if R > 1 {
                            self.put(simd, rows.start + q + R - 1, first, channels.clone(), &sums[R - 1]);
                        }
                    } else {
                        let sums = self.block::<S, K, 1>(simd, &tile, i, q, first);
                        self.put(simd, rows.start + q, first, channels.clone(), &sums[0]);
                    }
                }
                q += count;
            }
        }
    }

    /// `COLUMNS` columns from `first` on of `R` rows from `q` on, of the `i`-th register of channels.
    #[inline(always)]
    fn block<S: Simd, const K: usize, const R: usize>(
        &self,
        simd: S,
        tile: &Tile<T>,
        i: usize,
        q: usize,
        first: usize,
    ) -> [[T::Vector<S>; COLUMNS]; R] {
        let high = self.place.axes[1];
        let (w, bias) = self.packed.of::<S>(i);
        let (x, count) = (tile.of::<S>(i), high.taps.len());
        let mut sums = [[bias; COLUMNS]; R];
        for (plane, &d) in tile.planes.iter().enumerate() {
            let w = &w[d * count * K..(d + 1) * count * K];
            // Rows of the tile that the rows of the result see: with one row, one for each kernel row; with two, one more.
            for u in 0..count + R - 1 {
                let down = if R == 1 { (high.taps[u].offset - high.reach().0) as usize } else { u };
                let line = &x[(plane * tile.height + q * high.stride + down) * tile.width + first..];
                let xs = window::<S, T, K>(simd, line);
                // Rows by their numbers, not in a loop, so that their sums stay in registers.
                if u < count {
                    add::<S, T, K>(simd, &xs, &w[u * K..(u + 1) * K], &mut sums[0]);
                }
                if R > 1 && u > 0 {
                    add::<S, T, K>(simd, &xs, &w[(u - 1) * K..u * K], &mut sums[R - 1]);
                }
            }
        }
        sums
    }
}

/// Adds a kernel row.
#[inline(always)]
fn add<S: Simd, T: Scalar, const K: usize>(
    simd: S,
    xs: &[T::Vector<S>; WINDOW],
    w: &[T::Vector<S>],
    sums: &mut [T::Vector<S>; COLUMNS],
) {
    let w = &w[..K];
    for t in 0..K {
        for j in 0..COLUMNS {
            sums[j] = <T as Vectors>::mul_add(simd, xs[j + t], w[t], sums[j]);
        }
    }
}
