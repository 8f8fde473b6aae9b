//! Losses on the host: one row at a time, forward and backward while it lies in the cache.

use super::{Cpu, part, vectorized};
use crate::{
    device::losses::Targets,
    scalar::{Index, Scalar},
};
use std::ops::Range;

/// Entries that are worth a second thread.
const GRAIN: usize = 1 << 14;

/// Independent partial results: enough for the additions to overlap, and for vectors of any width.
const LANES: usize = 32;

/// The sum of the losses of a range of rows, with their part of the gradient where there is one.
type Work<'a, T> = dyn Fn(Range<usize>, Option<&mut [T]>) -> f64 + Sync + 'a;

/// `work` on every range of rows; the results added up in order.
fn rows<T: Scalar>(cpu: &Cpu, count: usize, width: usize, gradient: Option<&mut [T]>, work: &Work<T>) -> f64 {
    let parts = cpu.parts(count * width, GRAIN).min(count);
    if parts <= 1 {
        return work(0..count, gradient);
    }
    let mut rest = gradient;
    let pieces: Vec<_> = (0..parts)
        .map(|i| {
            let range = part(count, parts, i);
            let mine = rest.take().map(|gradient| {
                let (mine, after) = gradient.split_at_mut(range.len() * width);
                rest = Some(after);
                mine
            });
            (range, mine)
        })
        .collect();
    cpu.map_pieces(pieces, &|(range, mine)| work(range, mine)).into_iter().sum()
}

/// Folds pairs of entries in lanes: `f(i, lane)` over all `i`, lane by lane; then the lanes.
#[inline(always)]
fn lanes<T: Scalar>(x: &[T], empty: T, f: impl Fn(T, T) -> T, join: impl Fn(T, T) -> T) -> T {
    let mut all = [empty; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for l in 0..LANES {
            all[l] = f(all[l], block[l]);
        }
    }
    for (lane, &x) in all.iter_mut().zip(rest) {
        *lane = f(*lane, x);
    }
    all.into_iter().fold(empty, join)
}

/// `y = e^(x - largest)` where there is a y, and the sum.
#[inline(always)]
fn exponentials<T: Scalar>(x: &[T], largest: T, y: Option<&mut [T]>) -> T {
    let Some(y) = y else {
        return lanes(x, T::zero(), |sum, x| sum + (x - largest).exponential_nonpositive(), |a, b| a + b);
    };
    let mut sums = [T::zero(); LANES];
    let ((x_blocks, x_rest), (y_blocks, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks_mut::<LANES>());
    for (x, y) in x_blocks.iter().zip(y_blocks) {
        for l in 0..LANES {
            y[l] = (x[l] - largest).exponential_nonpositive();
            sums[l] += y[l];
        }
    }
    for ((x, y), sum) in x_rest.iter().zip(y_rest).zip(&mut sums) {
        *y = (*x - largest).exponential_nonpositive();
        *sum += *y;
    }
    sums.into_iter().fold(T::zero(), |a, b| a + b)
}

pub(crate) fn cross_entropy<T: Scalar, I: Index>(
    cpu: &Cpu,
    logits: &[T],
    labels: &[I],
    targets: Targets,
    gradient: Option<&mut [T]>,
) -> f64 {
    let Targets { rows: count, classes, smoothing, counted, .. } = targets;
    let one = 1.0 / counted as f64;
    let (on, off) = (1.0 - smoothing, smoothing / classes as f64);
    let sum = rows(cpu, count, classes, gradient, &|range, mut gradient| {
        vectorized(
            #[inline(always)]
            || {
                let mut sum = 0.0;
                let start = range.start;
                for row in range.clone() {
                    let z = &logits[row * classes..][..classes];
                    let at = (row - start) * classes;
                    let mut dz = gradient.as_mut().map(|gradient| &mut gradient[at..at + classes]);
                    let label = labels[row];
                    if !targets.counts(label) {
                        dz.into_iter().for_each(|dz| dz.fill(T::zero()));
                        continue;
                    }
                    let label = label.to_usize().unwrap_or(usize::MAX);
                    // Less the largest logit no exponential overflows, and one of them is 1. (A NaN is never the largest here;
                    // it comes through in the sum.)
                    let larger = |a: T, b: T| if b > a { b } else { a };
                    let largest = lanes(z, T::neg_infinity(), larger, larger);
                    let total = exponentials(z, largest, dz.as_deref_mut());
                    sum += total.f64().ln() + on * (largest - z[label]).f64();
                    if smoothing > 0.0 {
                        sum += off * lanes(z, T::zero(), |sum, z| sum + (largest - z), |a, b| a + b).f64();
                    }
                    if let Some(dz) = dz {
                        let (factor, term) = (T::of(one / total.f64()), T::of(off * one));
                        dz.iter_mut().for_each(|dz| *dz = *dz * factor - term);
                        dz[label] -= T::of(on * one);
                    }
                }
                sum
            },
        )
    });
    sum * one
}

pub(crate) fn binary_cross_entropy<T: Scalar>(cpu: &Cpu, x: &[T], t: &[T], gradient: Option<&mut [T]>) -> f64 {
    let one = 1.0 / x.len() as f64;
    let factor = T::of(one);
    let sum = rows(cpu, x.len(), 1, gradient, &|range, mut gradient| {
        let (x, t) = (&x[range.clone()], &t[range]);
        // max(x, 0) - x t + ln(1 + e^-|x|): no exponential overflows.
        let loss = |x: T, t: T| {
            let e = (-x.abs()).exponential_nonpositive();
            let u = T::one() + e;
            // What rounding 1 + e lost comes back to first order.
            let log = u.logarithm() - ((u - T::one()) - e) / u;
            (if x > T::zero() { x } else { T::zero() }) - x * t + log
        };
        vectorized(
            #[inline(always)]
            || {
                if let Some(gradient) = gradient.as_deref_mut() {
                    for ((dx, &x), &t) in gradient.iter_mut().zip(x).zip(t) {
                        *dx = (x.logistic() - t) * factor;
                    }
                }
                let mut sums = [0.0; LANES];
                let ((x_blocks, x_rest), (t_blocks, t_rest)) = (x.as_chunks::<LANES>(), t.as_chunks::<LANES>());
                for (x, t) in x_blocks.iter().zip(t_blocks) {
                    for l in 0..LANES {
                        sums[l] += loss(x[l], t[l]).f64();
                    }
                }
                for ((sum, &x), &t) in sums.iter_mut().zip(x_rest).zip(t_rest) {
                    *sum += loss(x, t).f64();
                }
                sums.into_iter().sum::<f64>()
            },
        )
    });
    sum * one
}
