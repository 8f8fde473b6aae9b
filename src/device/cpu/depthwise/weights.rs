//! The gradient by the weight: each tap's products of source and gradient, summed in registers along the rows of tiles.

use super::{
    super::{Cpu, HostBlock, arch, conv::blocks_of, part, simd::Vectors},
    COLUMNS, Place, block_rows,
    tile::{Tile, window},
};
use crate::{
    device::conv::{Axis, Geometry},
    scalar::Scalar,
};
use pulp::Simd;
use std::ops::Range;

/// The gradient by the weight: each tap's products of source and gradient, summed in registers along rows.
pub(crate) fn weight_gradient<T: Scalar>(cpu: &Cpu, g: &Geometry, axes: &[Axis; 3], x: &[T], dy: &[T], out: &mut [T]) {
    out.fill(T::zero());
    let (taps, n) = (g.taps(), g.c_in);
    if out.is_empty() || dy.is_empty() {
        return;
    }
    let row = g.output[2] * n;
    let height = block_rows(cpu, g.batch * g.output[0], g.output[1], 2 * row * size_of::<T>());
    let blocks = blocks_of([g.batch * g.output[0], g.output[1]], height);
    let parts = cpu.thread_count().min(blocks.len());
    let image = g.input.iter().product::<usize>() * n;
    let sums = cpu.map_parts(parts, &|i| {
        // In whole registers: `[register of channels][tap][lane]`.
        let mut sums = HostBlock::<T>::pooled(taps * n.next_multiple_of(64));
        sums.as_mut_slice().fill(T::zero());
        for (plane, rows) in &blocks[part(blocks.len(), parts, i)] {
            let at = plane / g.output[0];
            let place = Place { axes: axes.each_ref(), channels: n, plane: plane % g.output[0] };
            let dy = &dy[(plane * g.output[1] + rows.start) * row..(plane * g.output[1] + rows.end) * row];
            let image = &x[at * image..(at + 1) * image];
            let kernel = g.kernel;
            arch().dispatch(Accumulate { image, place, kernel, rows: rows.clone(), dy, sums: sums.as_mut_slice() });
        }
        sums
    });
    for sums in &sums {
        arch().dispatch(Unpack { sums: sums.as_slice(), taps, out: &mut *out });
    }
}

struct Accumulate<'a, T> {
    image: &'a [T],
    place: Place<'a>,
    kernel: [usize; 3],
    rows: Range<usize>,
    dy: &'a [T],
    sums: &'a mut [T],
}

impl<T: Scalar> pulp::WithSimd for Accumulate<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        match self.place.neighbours() {
            3 => self.all::<S, 3>(simd),
            5 => self.all::<S, 5>(simd),
            7 => self.all::<S, 7>(simd),
            _ => self.all::<S, 0>(simd),
        }
    }
}

impl<T: Scalar> Accumulate<'_, T> {
    #[inline(always)]
    fn all<S: Simd, const K: usize>(&mut self, simd: S) {
        let place = self.place;
        let [deep, high, wide] = place.axes;
        let (n, lanes) = (place.channels, T::lanes::<S>());
        let x = place.tile(simd, self.image, &self.rows);
        let width = wide.count.next_multiple_of(COLUMNS);
        let mut dy = Tile::new(vec![0], [self.rows.len(), width], n.div_ceil(lanes), lanes);
        for (i, line) in self.dy.chunks_exact(wide.count * n).enumerate() {
            dy.write(simd, [0, i], line, 0, n);
        }
        let taps: usize = self.kernel.iter().product();
        let all = T::vectors_mut::<S>(self.sums);
        for i in 0..n.div_ceil(lanes) {
            let (x_of, dy_of) = (x.of::<S>(i), dy.of::<S>(i));
            let sums = &mut all[i * taps..(i + 1) * taps];
            for q in 0..self.rows.len() {
                let ys = &dy_of[q * width..(q + 1) * width];
                for (p, &d) in x.planes.iter().enumerate() {
                    for h in &high.taps {
                        let down = q * high.stride + (h.offset - high.reach().0) as usize;
                        let line = &x_of[(p * x.height + down) * x.width..][..x.width];
                        let at = (deep.taps[d].k * self.kernel[1] + h.k) * self.kernel[2];
                        row_products::<S, T, K>(simd, wide, line, ys, &mut sums[at..at + self.kernel[2]]);
                    }
                }
            }
        }
    }
}

/// Adds the products of a row of the source with one of the gradient to the sums of a kernel row.
#[inline(always)]
fn row_products<S: Simd, T: Scalar, const K: usize>(
    simd: S,
    wide: &Axis,
    line: &[T::Vector<S>],
    ys: &[T::Vector<S>],
    sums: &mut [T::Vector<S>],
) {
    if K == 0 {
        for tap in &wide.taps {
            let x = &line[(tap.offset - wide.reach().0) as usize..];
            // Sums of their own, so that additions overlap. The tile and the gradient have zeros up to whole blocks of columns.
            let mut own = [T::zeros(simd); COLUMNS];
            for (i, ys) in ys.as_chunks::<COLUMNS>().0.iter().enumerate() {
                let x = &x[i * COLUMNS * wide.stride..][..(COLUMNS - 1) * wide.stride + 1];
                for j in 0..COLUMNS {
                    own[j] = <T as Vectors>::mul_add(simd, x[j * wide.stride], ys[j], own[j]);
                }
            }
            let mut sum = sums[tap.k];
            for own in own {
                sum = <T as Vectors>::mul_add(simd, own, T::splat(simd, T::one()), sum);
            }
            sums[tap.k] = sum;
        }
        return;
    }
    let mut own: [T::Vector<S>; K] = [T::zeros(simd); K];
    for t in 0..K {
        own[t] = sums[wide.taps[t].k];
    }
    for (i, ys) in ys.as_chunks::<COLUMNS>().0.iter().enumerate() {
        let xs = window::<S, T, K>(simd, &line[i * COLUMNS..]);
        for j in 0..COLUMNS {
            for t in 0..K {
                own[t] = <T as Vectors>::mul_add(simd, xs[j + t], ys[j], own[t]);
            }
        }
    }
    for t in 0..K {
        sums[wide.taps[t].k] = own[t];
    }
}

/// Adds sums `[register of channels][tap][lane]` to a weight `[channel][tap]`.
struct Unpack<'a, T> {
    sums: &'a [T],
    taps: usize,
    out: &'a mut [T],
}

impl<T: Scalar> pulp::WithSimd for Unpack<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let lanes = T::lanes::<S>();
        for (c, out) in self.out.chunks_exact_mut(self.taps).enumerate() {
            let from = &self.sums[(c / lanes) * self.taps * lanes + c % lanes..];
            out.iter_mut().zip(from.iter().step_by(lanes)).for_each(|(out, &sum)| *out += sum);
        }
    }
}
