//! The columnwise contraction on the host, one pass over Y, and columns of length one.

use super::{Cpu, elementwise::rows, vectorized};
use crate::{
    device::{columns::Columns, gemm::Matrix, layout::Layout},
    scalar::Scalar,
};

pub(crate) fn contract<T: Scalar>(cpu: &Cpu, s: Columns, y: &[T], (b, b_at): (&[T], Matrix), out: &mut [T]) {
    let Columns { before, n, after, rank } = s;
    debug_assert_eq!(out.len(), before * after * rank);
    if out.is_empty() {
        return;
    }
    // The factor's rows, side by side: it is small and met once for every row of the result.
    let factor: Vec<T> = (0..n * rank)
        .map(|i| {
            let (j, r) = ((i / rank) as isize, (i % rank) as isize);
            b[b_at.offset.wrapping_add_signed(j * b_at.rows + r * b_at.cols)]
        })
        .collect();
    rows(cpu, out, rank, &|range, out| {
        vectorized(
            #[inline(always)]
            || {
                for (row, out) in range.clone().zip(out.chunks_exact_mut(rank)) {
                    let (i, k) = (row / after, row % after);
                    out.fill(T::default());
                    let start = (i * n * after + k) * rank;
                    for (j, factor) in factor.chunks_exact(rank).enumerate() {
                        let at = start + j * after * rank;
                        let y = &y[at..at + rank];
                        for ((z, &y), &b) in out.iter_mut().zip(y).zip(factor) {
                            *z += y * b;
                        }
                    }
                }
            },
        )
    });
}

pub(crate) fn unit<T: Scalar>(x: &[T], layout: &Layout, out: &mut [T], norms: &mut [T]) {
    let (rows, cols) = (layout.shape()[0], layout.shape()[1]);
    let place = Matrix::of(layout);
    let at =
        |r: usize, c: usize| x[place.offset.wrapping_add_signed(r as isize * place.rows + c as isize * place.cols)];
    // Row after row, as the result lies: column after column, a tall matrix would be read from memory once for each of them.
    let mut largest = vec![0.0; cols];
    // NaN in a column is its norm.
    let larger = |a: f64, b: f64| if b > a || b.is_nan() { b } else { a };
    for r in 0..rows {
        largest.iter_mut().enumerate().for_each(|(c, most)| *most = larger(*most, at(r, c).f64().abs()));
    }
    let mut squares = vec![0.0; cols];
    for r in 0..rows {
        let shares = largest.iter().enumerate().map(|(c, most)| at(r, c).f64() / most);
        squares.iter_mut().zip(shares).for_each(|(sum, share)| *sum += share * share);
    }
    for ((norm, largest), squares) in norms.iter_mut().zip(largest).zip(squares) {
        let plain = largest > 0.0 && largest.is_finite();
        *norm = T::of(if plain { largest * squares.sqrt() } else { largest });
    }
    for r in 0..rows {
        for (c, &norm) in norms.iter().enumerate() {
            out[r * cols + c] = at(r, c) / if norm > T::zero() { norm } else { T::one() };
        }
    }
}
