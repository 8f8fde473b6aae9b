//! What kernels that work row by row share: rows split among threads, sums and maxima of a row in vector lanes.

use super::{Cpu, part};
use crate::scalar::Scalar;
use std::ops::Range;

/// Entries that are worth a second thread.
const GRAIN: usize = 1 << 15;

/// Independent partial results: enough for the additions to overlap, and for vectors of any width.
const LANES: usize = 32;

/// What is done with a range of rows and its part of every block.
pub(crate) type Work<'a, T, R, const N: usize> = dyn Fn(Range<usize>, [&mut [T]; N]) -> R + Sync + 'a;

/// Splits blocks of `rows` rows each (given with the size of a row) into the same ranges of rows, and runs `work` on each range
/// with its part of every block. Results come in the order of the ranges, which depend on the sizes and the thread count alone.
pub(crate) fn map_rows<T: Scalar, R: Send, const N: usize>(
    cpu: &Cpu,
    rows: usize,
    blocks: [(&mut [T], usize); N],
    work: &Work<T, R, N>,
) -> Vec<R> {
    let widest = blocks.iter().map(|(_, width)| *width).max().unwrap_or(1).max(1);
    let parts = cpu.parts(rows * widest, GRAIN).min(rows);
    let mut rest = blocks;
    let pieces: Vec<(Range<usize>, [&mut [T]; N])> = (0..parts)
        .map(|i| {
            let range = part(rows, parts, i);
            let mine = rest.each_mut().map(|(block, width)| {
                let (mine, after) = std::mem::take(block).split_at_mut(range.len() * *width);
                *block = after;
                mine
            });
            (range, mine)
        })
        .collect();
    cpu.map_pieces(pieces, &|(range, mine)| work(range, mine))
}

/// Joins the lanes pairwise.
#[inline(always)]
fn tree<T: Copy>(mut lanes: [T; LANES], join: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] = join(lanes[l], lanes[l + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// `f(x[0]) + f(x[1]) + ..`, in lanes.
#[inline(always)]
pub(crate) fn sum<T: Scalar, S: Scalar>(x: &[T], f: impl Fn(T) -> S) -> S {
    let mut sums = [S::zero(); LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for l in 0..LANES {
            sums[l] += f(block[l]);
        }
    }
    // Apart, so that the lanes above stay in registers.
    let mut last = [S::zero(); LANES];
    for (sum, &x) in last.iter_mut().zip(rest) {
        *sum = f(x);
    }
    for l in 0..LANES {
        sums[l] += last[l];
    }
    tree(sums, |a, b| a + b)
}

/// `f(x[0], y[0]) + f(x[1], y[1]) + ..`, in lanes.
#[inline(always)]
pub(crate) fn sum2<T: Scalar>(x: &[T], y: &[T], f: impl Fn(T, T) -> T) -> T {
    let mut sums = [T::zero(); LANES];
    let (x_blocks, x_rest) = x.as_chunks::<LANES>();
    let (y_blocks, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in x_blocks.iter().zip(y_blocks) {
        for l in 0..LANES {
            sums[l] += f(x[l], y[l]);
        }
    }
    let mut last = [T::zero(); LANES];
    for ((sum, &x), &y) in last.iter_mut().zip(x_rest).zip(y_rest) {
        *sum = f(x, y);
    }
    for l in 0..LANES {
        sums[l] += last[l];
    }
    tree(sums, |a, b| a + b)
}

/// Two sums at once: of `f(x, y, z).0` and of `f(x, y, z).1`.
#[inline(always)]
pub(crate) fn sums3<T: Scalar>(x: &[T], y: &[T], z: &[T], f: impl Fn(T, T, T) -> (T, T)) -> (T, T) {
    let (mut first, mut second) = ([T::zero(); LANES], [T::zero(); LANES]);
    let (x_blocks, x_rest) = x.as_chunks::<LANES>();
    let (y_blocks, y_rest) = y.as_chunks::<LANES>();
    let (z_blocks, z_rest) = z.as_chunks::<LANES>();
    for ((x, y), z) in x_blocks.iter().zip(y_blocks).zip(z_blocks) {
        for l in 0..LANES {
            let (a, b) = f(x[l], y[l], z[l]);
            first[l] += a;
            second[l] += b;
        }
    }
    let (mut a_last, mut b_last) = ([T::zero(); LANES], [T::zero(); LANES]);
    for (((a_last, b_last), (&x, &y)), &z) in
        a_last.iter_mut().zip(&mut b_last).zip(x_rest.iter().zip(y_rest)).zip(z_rest)
    {
        (*a_last, *b_last) = f(x, y, z);
    }
    for l in 0..LANES {
        first[l] += a_last[l];
        second[l] += b_last[l];
    }
    (tree(first, |a, b| a + b), tree(second, |a, b| a + b))
}

/// The largest entry, -inf for none; NaN where an entry is.
#[inline(always)]
pub(crate) fn maximum<T: Scalar>(x: &[T]) -> T {
    let larger = |a: T, b: T| if b > a || b.is_nan() { b } else { a };
    let mut most = [T::neg_infinity(); LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for l in 0..LANES {
            most[l] = larger(most[l], block[l]);
        }
    }
    let mut last = [T::neg_infinity(); LANES];
    for (most, &x) in last.iter_mut().zip(rest) {
        *most = x;
    }
    for l in 0..LANES {
        most[l] = larger(most[l], last[l]);
    }
    tree(most, larger)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_and_rests_are_summed_once() {
        for n in [0, 1, 31, 32, 33, 95, 96, 97] {
            let x: Vec<f64> = (0..n).map(|i| (i * 7 % 13) as f64).collect();
            let y: Vec<f64> = (0..n).map(|i| (i % 5) as f64 - 2.0).collect();
            assert_eq!(sum(&x, |x| x), x.iter().sum::<f64>());
            let dot: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
            assert_eq!(sum2(&x, &y, |x, y| x * y), dot);
            assert_eq!(sums3(&x, &y, &x, |x, y, z| (x * y, z)), (dot, x.iter().sum()));
            assert_eq!(maximum(&y), y.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        }
        for at in [0, 40, 69] {
            let mut x = vec![1.0f32; 70];
            x[at] = f32::NAN;
            assert!(maximum(&x).is_nan());
        }
    }

    #[test]
    fn every_row_is_given_once() {
        for threads in [1, 3] {
            let cpu = Cpu::with_threads(threads);
            let (mut a, mut b) = (vec![0.0f32; 3000 * 50], vec![0.0f32; 3000]);
            let counts = map_rows(&cpu, 3000, [(&mut a, 50), (&mut b, 1)], &|range, [a, b]| {
                a.iter_mut().for_each(|a| *a += 1.0);
                range.clone().zip(b).for_each(|(i, b)| *b += i as f32);
                range.len()
            });
            assert_eq!(counts.iter().sum::<usize>(), 3000);
            assert!(a.iter().all(|&a| a == 1.0));
            assert!(b.iter().enumerate().all(|(i, &b)| b == i as f32));
        }
    }
}
