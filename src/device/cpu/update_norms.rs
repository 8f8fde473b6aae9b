//! The lengths of the rows of `W + B A` on the host.
//!
//! Some rows of W at a time go by, with the entries of B that belong to them; tiles of the sum are made in registers, squared, and
//! forgotten. A stays in the cache.
// Indices count rows and registers of tiles, which are arrays.
#![allow(clippy::needless_range_loop)]

use super::{Cpu, simd::Vectors};
use crate::scalar::Scalar;
use pulp::{Simd, WithSimd};

/// Multiplications that are worth a second thread.
const GRAIN: usize = 1 << 16;

/// Rows of W that share what is read of A, and registers along each: as many sums as registers can wait for.
const ROWS: usize = 4;
const WIDE: usize = 2;

/// Writes `|w_o + b_o A|` for each row of W.
pub(crate) fn update_norms<T: Scalar>(cpu: &Cpu, [cols, rank]: [usize; 2], [w, b, a]: [&[T]; 3], out: &mut [T]) {
    let rows = out.len();
    let parts = cpu.parts(rows * cols * (rank + 1), GRAIN).max(1);
    let per_part = rows.div_ceil(parts).next_multiple_of(ROWS).max(ROWS);
    cpu.map_pieces(out.chunks_mut(per_part).enumerate().collect(), &|(piece, out)| {
        for (i, out) in out.chunks_mut(ROWS).enumerate() {
            let first = piece * per_part + i * ROWS;
            let rows = first..first + out.len();
            let (w, b) = (&w[rows.start * cols..rows.end * cols], &b[rows.start * rank..rows.end * rank]);
            match out {
                [_, _, _, _] => super::arch().dispatch(Tile::<T, ROWS> { cols, rank, w, b, a, out }),
                _ => {
                    for (i, out) in out.chunks_mut(1).enumerate() {
                        let (w, b) = (&w[i * cols..(i + 1) * cols], &b[i * rank..(i + 1) * rank]);
                        super::arch().dispatch(Tile::<T, 1> { cols, rank, w, b, a, out });
                    }
                }
            }
        }
    });
}

/// R rows.
struct Tile<'a, T, const R: usize> {
    cols: usize,
    rank: usize,
    w: &'a [T],
    b: &'a [T],
    a: &'a [T],
    out: &'a mut [T],
}

impl<T: Scalar, const R: usize> WithSimd for Tile<'_, T, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { cols, rank, w, b, a, out } = self;
        let lanes = T::lanes::<S>();
        let mut squares = [[T::zeros(simd); WIDE]; R];
        let mut done = 0;
        while done + WIDE * lanes <= cols {
            let at = |row: &[T]| -> [T::Vector<S>; WIDE] {
                let row = T::vectors::<S>(&row[done..done + WIDE * lanes]);
                std::array::from_fn(
                    #[inline(always)]
                    |v| row[v],
                )
            };
            let mut sums: [[T::Vector<S>; WIDE]; R] = std::array::from_fn(
                #[inline(always)]
                |r| at(&w[r * cols..][..cols]),
            );
            for k in 0..rank {
                let a = at(&a[k * cols..][..cols]);
                for r in 0..R {
                    let b = T::splat(simd, b[r * rank + k]);
                    for v in 0..WIDE {
                        sums[r][v] = <T as Vectors>::mul_add(simd, b, a[v], sums[r][v]);
                    }
                }
            }
            for r in 0..R {
                for v in 0..WIDE {
                    squares[r][v] = <T as Vectors>::mul_add(simd, sums[r][v], sums[r][v], squares[r][v]);
                }
            }
            done += WIDE * lanes;
        }
        for r in 0..R {
            let mut total = squares[r].iter().fold(T::zero(), |sum, &v| sum + T::lane_sum(simd, v));
            for col in done..cols {
                let sum = (0..rank).fold(w[r * cols + col], |sum, k| sum + b[r * rank + k] * a[k * cols + col]);
                total += sum * sum;
            }
            out[r] = num_traits::Float::sqrt(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_those_of_the_sum() {
        for [rows, cols, rank] in
            [[1, 1, 1], [4, 32, 2], [7, 45, 3], [9, 5, 8], [130, 300, 8], [5, 64, 0], [3, 0, 2], [0, 4, 1]]
        {
            let numbers =
                |n: usize, step: usize| -> Vec<f64> { (0..n).map(|i| (i * step % 23) as f64 - 11.0).collect() };
            let (w, b, a) = (numbers(rows * cols, 7), numbers(rows * rank, 5), numbers(rank * cols, 11));
            let entry =
                |o: usize, i: usize| (0..rank).fold(w[o * cols + i], |sum, k| sum + b[o * rank + k] * a[k * cols + i]);
            let expected: Vec<f64> =
                (0..rows).map(|o| (0..cols).map(|i| entry(o, i).powi(2)).sum::<f64>().sqrt()).collect();
            for threads in [1, 3] {
                let mut found = vec![f64::NAN; rows];
                update_norms(&Cpu::with_threads(threads), [cols, rank], [&w, &b, &a], &mut found);
                // Sums of whole numbers are exact.
                assert_eq!(found, expected, "{rows} x {cols}, rank {rank}");
            }
            let narrow = |x: &[f64]| -> Vec<f32> { x.iter().map(|&x| x as f32).collect() };
            let mut found = vec![f32::NAN; rows];
            let (w, b, a) = (narrow(&w), narrow(&b), narrow(&a));
            update_norms(&Cpu::with_threads(2), [cols, rank], [&w, &b, &a], &mut found);
            assert!(found.iter().zip(&expected).all(|(&a, &b)| (f64::from(a) - b).abs() <= 1e-6 * b));
        }
    }
}
