//! Layer norm and RMS norm on the host: a row is read from memory once in each direction, and from the first cache after that.

use super::{Cpu, HostBlock, rows, vectorized};
use crate::{device::normalise::Rows, scalar::Scalar};

/// A vector of the caller's, or one of equal numbers.
enum Vector<'a, T: Scalar> {
    Given(&'a [T]),
    Equal(HostBlock<T>),
}

impl<'a, T: Scalar> Vector<'a, T> {
    fn new(given: Option<&'a [T]>, n: usize, otherwise: T) -> Self {
        given.map_or_else(
            || {
                let mut block = HostBlock::pooled(n);
                block.as_mut_slice().fill(otherwise);
                Self::Equal(block)
            },
            Self::Given,
        )
    }

    fn as_slice(&self) -> &[T] {
        match self {
            Self::Given(slice) => slice,
            Self::Equal(block) => block.as_slice(),
        }
    }
}

pub(crate) fn forward<T: Scalar>(
    cpu: &Cpu,
    Rows { n, centre, .. }: Rows,
    x: &[T],
    (weight, bias): (Option<&[T]>, Option<&[T]>),
    eps: T,
    (y, statistics): (&mut [T], &mut [T]),
) {
    let (weight, bias) = (Vector::new(weight, n, T::one()), Vector::new(bias, n, T::zero()));
    let (weight, bias) = (weight.as_slice(), bias.as_slice());
    let share = T::of(n as f64).recip();
    rows::map_rows(cpu, x.len() / n, [(y, n), (statistics, 2)], &|range, [y, statistics]| {
        vectorized(
            #[inline(always)]
            || {
                let x = x[range.start * n..range.end * n].chunks_exact(n);
                for ((x, y), statistics) in x.zip(y.chunks_exact_mut(n)).zip(statistics.as_chunks_mut::<2>().0) {
                    let mean = if centre { rows::sum(x, |x| x) * share } else { T::zero() };
                    let variance = rows::sum(x, |x| (x - mean) * (x - mean)) * share;
                    let scale = (variance + eps).sqrt().recip();
                    *statistics = [mean, scale];
                    write(x, weight, bias, mean, scale, y);
                }
            },
        )
    });
}

/// `y = (x - mean) scale w + b`. A function of its own so that the compiler knows the slices to be apart.
#[inline(always)]
fn write<T: Scalar>(x: &[T], weight: &[T], bias: &[T], mean: T, scale: T, y: &mut [T]) {
    for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
        *y = ((x - mean) * scale).mul_add(w, b);
    }
}

pub(crate) fn backward<T: Scalar>(
    cpu: &Cpu,
    Rows { n, centre, .. }: Rows,
    [x, statistics, dy]: [&[T]; 3],
    weight: Option<&[T]>,
    (dx, dw, db): (&mut [T], &mut [T], &mut [T]),
) {
    let weight = Vector::new(weight, n, T::one());
    let weight = weight.as_slice();
    let share = T::of(n as f64).recip();
    // Each part of the rows has sums of its own, added up in order below.
    let sums = rows::map_rows(cpu, x.len() / n, [(dx, n)], &|range, [dx]| {
        let mut own = HostBlock::pooled(2 * n);
        let own_slice = own.as_mut_slice();
        own_slice.fill(T::zero());
        let (dw, db) = own_slice.split_at_mut(n);
        vectorized(
            #[inline(always)]
            || {
                let statistics = &statistics.as_chunks::<2>().0[range.clone()];
                let operands =
                    x[range.start * n..range.end * n].chunks_exact(n).zip(dy[range.start * n..].chunks_exact(n));
                for (((x, dy), &[mean, scale]), dx) in operands.zip(statistics).zip(dx.chunks_exact_mut(n)) {
                    // With g = w dy and x^ = (x - mean) scale: dx = scale (g - mean(g) - x^ mean(g x^)).
                    let (sum, dot) = rows::sums3(x, dy, weight, |x, dy, w| {
                        let g = dy * w;
                        (g, g * ((x - mean) * scale))
                    });
                    let shift = if centre { sum * share } else { T::zero() };
                    gradients(x, dy, weight, [mean, scale, shift, dot * share], dx, dw, db);
                }
            },
        );
        own
    });
    dw.fill(T::zero());
    db.fill(T::zero());
    for own in sums {
        let (own_dw, own_db) = own.as_slice().split_at(n);
        for (sum, &own) in dw.iter_mut().zip(own_dw) {
            *sum += own;
        }
        for (sum, &own) in db.iter_mut().zip(own_db) {
            *sum += own;
        }
    }
}

/// Slices as plain arguments, which the compiler then knows to be apart.
#[inline(always)]
fn gradients<T: Scalar>(
    x: &[T],
    dy: &[T],
    weight: &[T],
    [mean, scale, shift, slope]: [T; 4],
    dx: &mut [T],
    dw: &mut [T],
    db: &mut [T],
) {
    let sums = dw.iter_mut().zip(db.iter_mut());
    let operands = x.iter().zip(dy).zip(weight);
    for ((dx, (dw, db)), ((&x, &dy), &w)) in dx.iter_mut().zip(sums).zip(operands) {
        let normal = (x - mean) * scale;
        *dx = scale * ((dy * w - shift) - normal * slope);
        *dw = dy.mul_add(normal, *dw);
        *db += dy;
    }
}
