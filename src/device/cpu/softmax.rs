//! Softmax on the host: a row stays in the first cache while it is read three times.

use super::{Cpu, elementwise::Walk, rows, vectorized};
use crate::{
    device::{
        layout::{Layout, Modes, loops},
        softmax::Kind,
    },
    scalar::Scalar,
};

/// Columns that are worked on together where the softmax runs along another than the last mode.
const WIDE: usize = 64;

/// `out[r, :] = softmax(x[r, :] + mask[r, :])` for contiguous rows of `n` entries, or its logarithm; the mask's layout
/// is broadcast to x's shape, and is for the softmax alone.
pub(crate) fn forward<T: Scalar>(
    cpu: &Cpu,
    kind: Kind,
    x: &[T],
    n: usize,
    mask: Option<(&[T], &Layout)>,
    out: &mut [T],
) {
    if x.is_empty() {
        return;
    }
    let mask = mask.map(|(block, layout)| MaskRows::new(block, layout));
    rows::map_rows(cpu, x.len() / n, [(out, n)], &|range, [out]| {
        vectorized(
            #[inline(always)]
            || {
                let mut walk = mask.as_ref().map(|mask| mask.walk(range.start));
                for (x, y) in x[range.start * n..].chunks_exact(n).zip(out.chunks_exact_mut(n)) {
                    if let (Some(mask), Some(walk)) = (&mask, &mut walk) {
                        add_mask(x, mask.block, walk.at()[0], mask.stride, y);
                        walk.advance();
                        soften(y);
                    } else if kind == Kind::Softmax {
                        soften_from(x, y);
                    } else {
                        log_soften(x, y);
                    }
                }
            },
        )
    });
}

/// A mask seen row by row.
struct MaskRows<'a, T> {
    block: &'a [T],
    offset: usize,
    outer: Modes<crate::device::layout::Loop<1>>,
    stride: isize,
}

impl<'a, T> MaskRows<'a, T> {
    fn new(block: &'a [T], layout: &Layout) -> Self {
        let last = layout.order() - 1;
        let head = Layout::new(&layout.shape()[..last], &layout.strides()[..last], 0);
        Self { block, offset: layout.offset(), outer: loops([&head]), stride: layout.strides()[last] }
    }

    fn walk(&self, row: usize) -> Walk<'_, 1> {
        Walk::new(&self.outer, [self.offset], row)
    }
}

/// `y = x + mask[at, at + stride, ..]`
#[inline(always)]
fn add_mask<T: Scalar>(x: &[T], mask: &[T], at: usize, stride: isize, y: &mut [T]) {
    match stride {
        1 => {
            let terms = x.iter().zip(&mask[at..]);
            for (y, (&x, &m)) in y.iter_mut().zip(terms) {
                *y = x + m;
            }
        }
        0 => {
            let m = mask[at];
            for (y, &x) in y.iter_mut().zip(x) {
                *y = x + m;
            }
        }
        _ => y
            .iter_mut()
            .zip(x)
            .enumerate()
            .for_each(|(i, (y, &x))| *y = x + mask[at.wrapping_add_signed(i as isize * stride)]),
    }
}

/// The softmax of a row, in place. Returns ln(sum e^y), +inf where all entries are -inf, which gives zeros.
#[inline(always)]
pub(crate) fn soften<T: Scalar>(y: &mut [T]) -> T {
    let most = rows::maximum(y);
    if most == T::neg_infinity() {
        y.fill(T::zero());
        return T::infinity();
    }
    for y in y.iter_mut() {
        *y = (*y - most).exponential_nonpositive();
    }
    most + share(y).logarithm()
}

/// The softmax of a row into another, without a copy first.
#[inline(always)]
fn soften_from<T: Scalar>(x: &[T], y: &mut [T]) {
    let most = rows::maximum(x);
    if most == T::neg_infinity() {
        return y.fill(T::zero());
    }
    for (y, &x) in y.iter_mut().zip(x) {
        *y = (x - most).exponential_nonpositive();
    }
    share(y);
}

/// Divides a row by its sum, which is returned.
#[inline(always)]
fn share<T: Scalar>(y: &mut [T]) -> T {
    let sum = rows::sum(y, |y| y);
    let factor = sum.recip();
    for y in y.iter_mut() {
        *y *= factor;
    }
    sum
}

#[inline(always)]
fn log_soften<T: Scalar>(x: &[T], y: &mut [T]) {
    let most = rows::maximum(x);
    if most == T::neg_infinity() {
        return y.fill(most);
    }
    let sum = rows::sum(
        x,
        #[inline(always)]
        |x| (x - most).exponential_nonpositive(),
    );
    let shift = sum.logarithm();
    for (y, &x) in y.iter_mut().zip(x) {
        *y = (x - most) - shift;
    }
}

/// `dx = y (dy - sum(y dy))`, or `dx = dy - e^y sum(dy)` for the logarithm, row by row.
pub(crate) fn backward<T: Scalar>(cpu: &Cpu, kind: Kind, y: &[T], dy: &[T], n: usize, dx: &mut [T]) {
    if y.is_empty() {
        return;
    }
    rows::map_rows(cpu, y.len() / n, [(dx, n)], &|range, [dx]| {
        vectorized(
            #[inline(always)]
            || {
                let operands = y[range.start * n..].chunks_exact(n).zip(dy[range.start * n..].chunks_exact(n));
                for ((y, dy), dx) in operands.zip(dx.chunks_exact_mut(n)) {
                    match kind {
                        Kind::Softmax => {
                            let dot = rows::sum2(y, dy, |y, dy| y * dy);
                            combine(y, dy, dx, |y, dy| y * (dy - dot));
                        }
                        Kind::LogSoftmax => {
                            let sum = rows::sum(dy, |dy| dy);
                            combine(
                                y,
                                dy,
                                dx,
                                #[inline(always)]
                                |y, dy| dy - y.exponential_nonpositive() * sum,
                            );
                        }
                    }
                }
            },
        )
    });
}

#[inline(always)]
fn combine<T: Scalar>(y: &[T], dy: &[T], dx: &mut [T], f: impl Fn(T, T) -> T) {
    for (dx, (&y, &dy)) in dx.iter_mut().zip(y.iter().zip(dy)) {
        *dx = f(y, dy);
    }
}

/// The softmax along the middle of `[before, n, after]`, `WIDE` columns at a time.
pub(crate) fn forward_columns<T: Scalar>(cpu: &Cpu, kind: Kind, x: &[T], (n, after): (usize, usize), out: &mut [T]) {
    if x.is_empty() {
        return;
    }
    let slab = n * after;
    rows::map_rows(cpu, x.len() / slab, [(out, slab)], &|range, [out]| {
        vectorized(
            #[inline(always)]
            || {
                for (x, y) in x[range.start * slab..].chunks_exact(slab).zip(out.chunks_exact_mut(slab)) {
                    for start in (0..after).step_by(WIDE) {
                        soften_columns(kind, x, y, after, start, WIDE.min(after - start));
                    }
                }
            },
        )
    });
}

#[inline(always)]
fn soften_columns<T: Scalar>(kind: Kind, x: &[T], y: &mut [T], after: usize, start: usize, width: usize) {
    let mut most = [T::neg_infinity(); WIDE];
    let mut sums = [T::zero(); WIDE];
    for x in x.chunks_exact(after) {
        for (most, &x) in most.iter_mut().zip(&x[start..start + width]) {
            *most = if x > *most || x.is_nan() { x } else { *most };
        }
    }
    // A column of -inf: subtracting 0 leaves it as it is.
    let shift = most.map(|most| if most == T::neg_infinity() { T::zero() } else { most });
    for (x, y) in x.chunks_exact(after).zip(y.chunks_exact_mut(after)) {
        let terms = x[start..start + width].iter().zip(&mut y[start..start + width]);
        for ((sum, &shift), (&x, y)) in sums.iter_mut().zip(&shift).zip(terms) {
            let e = (x - shift).exponential_nonpositive();
            *sum += e;
            *y = match kind {
                Kind::Softmax => e,
                Kind::LogSoftmax => x - shift,
            };
        }
    }
    // Zero where the column had nothing but -inf: the softmax is 0 and its logarithm -inf then.
    let last = match kind {
        Kind::Softmax => sums.map(|sum| if sum == T::zero() { T::zero() } else { sum.recip() }),
        Kind::LogSoftmax => sums.map(|sum| if sum == T::zero() { T::zero() } else { sum.logarithm() }),
    };
    for y in y.chunks_exact_mut(after) {
        for (y, &last) in y[start..start + width].iter_mut().zip(&last) {
            match kind {
                Kind::Softmax => *y *= last,
                Kind::LogSoftmax => *y -= last,
            }
        }
    }
}

/// [`backward`] along the middle of `[before, n, after]`.
pub(crate) fn backward_columns<T: Scalar>(
    cpu: &Cpu,
    kind: Kind,
    y: &[T],
    dy: &[T],
    (n, after): (usize, usize),
    dx: &mut [T],
) {
    if y.is_empty() {
        return;
    }
    let slab = n * after;
    rows::map_rows(cpu, y.len() / slab, [(dx, slab)], &|range, [dx]| {
        vectorized(
            #[inline(always)]
            || {
                let here = range.start * slab;
                let operands = y[here..].chunks_exact(slab).zip(dy[here..].chunks_exact(slab));
                for ((y, dy), dx) in operands.zip(dx.chunks_exact_mut(slab)) {
                    for start in (0..after).step_by(WIDE) {
                        let columns = start..(start + WIDE).min(after);
                        let mut sums = [T::zero(); WIDE];
                        for (y, dy) in y.chunks_exact(after).zip(dy.chunks_exact(after)) {
                            let terms = y[columns.clone()].iter().zip(&dy[columns.clone()]);
                            for (sum, (&y, &dy)) in sums.iter_mut().zip(terms) {
                                *sum += match kind {
                                    Kind::Softmax => y * dy,
                                    Kind::LogSoftmax => dy,
                                };
                            }
                        }
                        let lines = y.chunks_exact(after).zip(dy.chunks_exact(after));
                        for ((y, dy), dx) in lines.zip(dx.chunks_exact_mut(after)) {
                            let terms = y[columns.clone()].iter().zip(&dy[columns.clone()]);
                            let terms = terms.zip(&mut dx[columns.clone()]);
                            for (&sum, ((&y, &dy), dx)) in sums.iter().zip(terms) {
                                *dx = match kind {
                                    Kind::Softmax => y * (dy - sum),
                                    Kind::LogSoftmax => dy - y.exponential_nonpositive() * sum,
                                };
                            }
                        }
                    }
                }
            },
        )
    });
}
