//! Any strides and dilations, from the source where it lies.
#![allow(clippy::needless_range_loop)] // Loops over registers by number are unrolled, and their arrays stay in registers.

use super::{COLUMNS, Correlate};
use crate::{device::cpu::simd::Vectors, scalar::Scalar};
use pulp::Simd;
use std::ops::Range;

/// A row of the source that a row of the result sees: where it begins in the image, and the first tap of the kernel row that meets it.
type Line = (usize, usize);

impl<T: Scalar> Correlate<'_, T> {
    #[inline(always)]
    pub(super) fn direct<S: Simd>(&mut self, simd: S) {
        let (wide, n, lanes) = (self.place.axes[2], self.place.channels, T::lanes::<S>());
        let (low, top) = wide.reach();
        let mut lines = Vec::new();
        for q in self.place.rows(&self.rows) {
            self.lines(q, &mut lines);
            for first in (0..wide.count).step_by(COLUMNS) {
                let at = (first * wide.stride) as isize + low;
                let last = ((first + COLUMNS - 1) * wide.stride) as isize + top;
                let inside = at >= 0 && last < wide.source as isize;
                for (i, c) in (0..n).step_by(lanes).enumerate() {
                    let channels = c..(c + lanes).min(n);
                    let sums = match (inside, channels.len() == lanes) {
                        (true, true) => self.sums::<S, true, true>(simd, &lines, at, i, channels.clone()),
                        (false, true) => self.sums::<S, false, true>(simd, &lines, at, i, channels.clone()),
                        (_, false) => self.sums::<S, false, false>(simd, &lines, at, i, channels.clone()),
                    };
                    self.put(simd, q, first, channels, &sums);
                }
            }
        }
    }

    /// The source rows that row `q` of the pass sees.
    fn lines(&self, q: usize, lines: &mut Vec<Line>) {
        let [deep, high, wide] = self.place.axes;
        lines.clear();
        for (i, d) in deep.taps.iter().enumerate() {
            let plane = (self.place.plane * deep.stride) as isize + d.offset;
            for (j, h) in high.taps.iter().enumerate() {
                let row = (q * high.stride) as isize + h.offset;
                if (0..deep.source as isize).contains(&plane) && (0..high.source as isize).contains(&row) {
                    let at = (plane as usize * high.source + row as usize) * wide.source * self.place.channels;
                    lines.push((at, (i * high.taps.len() + j) * wide.taps.len()));
                }
            }
        }
    }

    /// The sums of `COLUMNS` columns, the first of which sees source column `at` first, of one register of channels. `INSIDE` says that all of
    /// them lie in the image, `WHOLE` that the register is full.
    #[inline(always)]
    fn sums<S: Simd, const INSIDE: bool, const WHOLE: bool>(
        &self,
        simd: S,
        lines: &[Line],
        at: isize,
        i: usize,
        channels: Range<usize>,
    ) -> [T::Vector<S>; COLUMNS] {
        let (wide, n, lanes) = (self.place.axes[2], self.place.channels, T::lanes::<S>());
        let (w, bias) = self.packed.of::<S>(i);
        let mut sums = [bias; COLUMNS];
        for &(line, tap) in lines {
            let line = &self.image[line..line + wide.source * n];
            for (t, &w) in wide.taps.iter().zip(&w[tap..tap + wide.taps.len()]) {
                let at = at + t.offset - wide.reach().0;
                for j in 0..COLUMNS {
                    let col = at + (j * wide.stride) as isize;
                    if !INSIDE && !(0..wide.source as isize).contains(&col) {
                        continue;
                    }
                    let from = &line[col as usize * n + channels.start..][..channels.len()];
                    let x = if WHOLE { T::vectors::<S>(&from[..lanes])[0] } else { T::load_part(simd, from) };
                    sums[j] = <T as Vectors>::mul_add(simd, x, w, sums[j]);
                }
            }
        }
        sums
    }
}
