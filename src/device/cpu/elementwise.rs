//! Elementwise loops on the host: contiguous runs vectorised, permuted copies in tiles, everything split among the threads.

use super::{Cpu, vectorized};
use crate::{
    device::{
        elementwise::{Binary, Unary},
        layout::{Layout, Loop, Modes, loops},
    },
    scalar::{DType, Element, Scalar},
};
use std::ops::Range;

/// Entries that are worth a second thread.
const GRAIN: usize = 1 << 15;

/// The side of the square tiles in which a permuted copy moves, so that both sides use whole cache lines.
const TILE: usize = 32;

/// Steps through the outer loops of a nest, keeping the position of each operand.
pub(crate) struct Walk<'a, const N: usize> {
    outer: &'a [Loop<N>],
    index: Modes<usize>,
    at: [isize; N],
}

impl<'a, const N: usize> Walk<'a, N> {
    /// Starts at step `start` of the loops `outer`, the last fastest, with operands that begin at `offsets`.
    pub(crate) fn new(outer: &'a [Loop<N>], offsets: [usize; N], start: usize) -> Self {
        let mut index: Modes<usize> = outer.iter().map(|_| 0).collect();
        let mut at = offsets.map(|offset| offset as isize);
        let mut rest = start;
        for (i, l) in outer.iter().enumerate().rev() {
            index[i] = rest % l.size;
            rest /= l.size;
            for (at, stride) in at.iter_mut().zip(l.strides) {
                *at += index[i] as isize * stride;
            }
        }
        Self { outer, index, at }
    }

    /// The positions of the operands now.
    pub(crate) fn at(&self) -> [usize; N] {
        self.at.map(|at| at as usize)
    }

    pub(crate) fn advance(&mut self) {
        for (i, l) in self.outer.iter().enumerate().rev() {
            self.index[i] += 1;
            if self.index[i] < l.size {
                self.at.iter_mut().zip(l.strides).for_each(|(at, stride)| *at += stride);
                return;
            }
            self.index[i] = 0;
            self.at.iter_mut().zip(l.strides).for_each(|(at, stride)| *at -= (l.size as isize - 1) * stride);
        }
    }
}

/// Splits a row-major result into parts of whole rows of `row` entries and hands each to a thread with the rows it covers.
pub(crate) fn rows<T: Send>(cpu: &Cpu, out: &mut [T], row: usize, work: &(dyn Fn(Range<usize>, &mut [T]) + Sync)) {
    if out.is_empty() {
        return;
    }
    let count = out.len() / row;
    let threads = cpu.thread_count();
    if threads == 1 || out.len() < 2 * GRAIN {
        return work(0..count, out);
    }
    let per_part = count.div_ceil(threads * 4).max(GRAIN.div_ceil(row));
    let pieces = out.chunks_mut(per_part * row).enumerate().collect();
    cpu.map_pieces(pieces, &|(i, part)| work(i * per_part..i * per_part + part.len() / row, part));
}

/// Fills a row-major result run by run: `run` gets the positions of the operands and the entries of the result there.
fn drive<const N: usize, T: Send>(
    cpu: &Cpu,
    nest: &[Loop<N>],
    offsets: [usize; N],
    out: &mut [T],
    run: impl Fn([usize; N], &mut [T]) + Sync,
) {
    let Some((inner, outer)) = nest.split_last() else { return };
    if outer.is_empty() {
        // One run: it may be cut anywhere.
        return rows(cpu, out, 1, &|range, out| {
            let mut at = offsets;
            at.iter_mut().zip(inner.strides).for_each(|(at, s)| *at = at.wrapping_add_signed(range.start as isize * s));
            vectorized(
                #[inline(always)]
                || run(at, out),
            )
        });
    }
    rows(cpu, out, inner.size, &|range, out| {
        vectorized(
            #[inline(always)]
            || {
                let mut walk = Walk::new(outer, offsets, range.start);
                for row in out.chunks_exact_mut(inner.size) {
                    run(walk.at(), row);
                    walk.advance();
                }
            },
        )
    });
}

/// `out[i] = f(source[i])` in row-major order of the layout.
pub(crate) fn map<A: Element, B: Element>(
    cpu: &Cpu,
    source: &[A],
    layout: &Layout,
    out: &mut [B],
    f: impl Fn(A) -> B + Sync + Copy,
) {
    let nest = loops([layout]);
    let stride = nest[nest.len() - 1].strides[0];
    if stride != 1
        && nest.len() > 1
        && let Some(unit) = nest.iter().position(|l| l.strides[0] == 1)
    {
        return transpose(cpu, source, layout.offset(), &nest, unit, out, f);
    }
    drive(
        cpu,
        &nest,
        [layout.offset()],
        out,
        #[inline(always)]
        |[at], run| match stride {
            1 => run.iter_mut().zip(&source[at..]).for_each(|(y, &x)| *y = f(x)),
            0 => run.fill(f(source[at])),
            _ => run
                .iter_mut()
                .enumerate()
                .for_each(|(i, y)| *y = f(source[at.wrapping_add_signed(i as isize * stride)])),
        },
    );
}

/// A copy in which the source runs along another loop (`unit`) than the result: tile by tile over these two.
fn transpose<A: Element, B: Element>(
    cpu: &Cpu,
    source: &[A],
    offset: usize,
    nest: &[Loop<1>],
    unit: usize,
    out: &mut [B],
    f: impl Fn(A) -> B + Sync + Copy,
) {
    // The result as [outer loops before unit][unit][between][inner]: one block of `unit x between x inner` at a time.
    let (before, rest) = nest.split_at(unit);
    let between = &rest[1..rest.len() - 1];
    let (long, inner) = (rest[0], rest[rest.len() - 1]);
    let middle: usize = between.iter().map(|l| l.size).product();
    let row = middle * inner.size;
    let outer: Modes<Loop<1>> = before.iter().copied().chain([long]).collect();
    rows(cpu, out, row, &|range, out| {
        // `range` counts steps of (before, unit); group those of one `before`.
        let mut step = range.start;
        while step < range.end {
            let here = step % long.size;
            let run = (long.size - here).min(range.end - step);
            let [base] = Walk::new(&outer, [offset], step).at();
            let block = &mut out[(step - range.start) * row..(step - range.start + run) * row];
            let mut walk = Walk::new(between, [base], 0);
            for m in 0..middle {
                let [at] = walk.at();
                for i0 in (0..run).step_by(TILE) {
                    for j0 in (0..inner.size).step_by(TILE) {
                        for i in i0..(i0 + TILE).min(run) {
                            let start = i * row + m * inner.size;
                            let end = (j0 + TILE).min(inner.size);
                            for (j, y) in block[start + j0..start + end].iter_mut().enumerate() {
                                let j = (j0 + j) as isize;
                                *y = f(source[at.wrapping_add_signed(i as isize + j * inner.strides[0])]);
                            }
                        }
                    }
                }
                walk.advance();
            }
            step += run;
        }
    });
}

/// Conversion between element types, as Rust's `as` does.
pub(crate) fn cast<A: Element, B: Element>(cpu: &Cpu, source: &[A], layout: &Layout, out: &mut [B]) {
    match (A::DTYPE, B::DTYPE) {
        // The one type whose values a double does not hold.
        (DType::I64, DType::I64) => map(cpu, source, layout, out, |x| num_traits::cast(x).unwrap_or_default()),
        (DType::I64, DType::F64) => map(cpu, source, layout, out, |x| num_traits::cast(x).unwrap_or_default()),
        (DType::I64, _) => map(cpu, source, layout, out, |x: A| B::from_double(to_odd_double(x.to_i64().unwrap_or(0)))),
        _ => map(cpu, source, layout, out, |x: A| B::from_double(x.to_f64().unwrap_or(f64::NAN))),
    }
}

/// A double next to `x`, its last bit set where `x` lies between two doubles: what rounds again to fewer bits then rounds once.
fn to_odd_double(x: i64) -> f64 {
    let near = x as f64;
    let beyond = (near as i128).abs() - (x as i128).abs();
    match beyond {
        0 => near,
        _ if near.to_bits() & 1 == 1 => near,
        1.. => f64::from_bits(near.to_bits() - 1),
        _ => f64::from_bits(near.to_bits() + 1),
    }
}

pub(crate) fn unary<T: Scalar>(cpu: &Cpu, f: Unary<T>, source: &[T], layout: &Layout, out: &mut [T]) {
    match f {
        Unary::Scale(factor) => map(cpu, source, layout, out, move |x| x * factor),
        Unary::Shift(term) => map(cpu, source, layout, out, move |x| x + term),
        Unary::Abs => map(cpu, source, layout, out, |x| x.abs()),
        Unary::Sqrt => map(cpu, source, layout, out, |x| x.sqrt()),
        Unary::Recip => map(cpu, source, layout, out, |x| x.recip()),
        Unary::Known => map(cpu, source, layout, out, |x: T| if x.is_nan() { T::zero() } else { T::one() }),
        Unary::OrZero => map(cpu, source, layout, out, |x: T| if x.is_nan() { T::zero() } else { x }),
    }
}

pub(crate) fn binary<T: Scalar>(cpu: &Cpu, f: Binary, a: (&[T], &Layout), b: (&[T], &Layout), out: &mut [T]) {
    match f {
        Binary::Add => zip(cpu, a, b, out, |x, y| x + y),
        Binary::Sub => zip(cpu, a, b, out, |x, y| x - y),
        Binary::Mul => zip(cpu, a, b, out, |x, y| x * y),
        Binary::Div => zip(cpu, a, b, out, |x, y| x / y),
        Binary::Max => zip(cpu, a, b, out, |x, y| if x.is_nan() || x > y { x } else { y }),
        Binary::Twice => zip(cpu, a, b, out, |x, y| (x + x) * y),
        Binary::Half => zip(cpu, a, b, out, |x, y| x / (y + y)),
        Binary::Signed => zip(cpu, a, b, out, |x, y| {
            if y > T::zero() {
                x
            } else if y < T::zero() {
                -x
            } else {
                T::zero()
            }
        }),
    }
}

fn zip<T: Scalar>(
    cpu: &Cpu,
    (a, a_at): (&[T], &Layout),
    (b, b_at): (&[T], &Layout),
    out: &mut [T],
    f: impl Fn(T, T) -> T + Sync + Copy,
) {
    let nest = loops([a_at, b_at]);
    let strides = nest[nest.len() - 1].strides;
    drive(
        cpu,
        &nest,
        [a_at.offset(), b_at.offset()],
        out,
        #[inline(always)]
        |[i, j], run| match strides {
            [1, 1] => {
                let operands = a[i..].iter().zip(&b[j..]);
                run.iter_mut().zip(operands).for_each(|(z, (&x, &y))| *z = f(x, y));
            }
            [1, 0] => {
                let y = b[j];
                run.iter_mut().zip(&a[i..]).for_each(|(z, &x)| *z = f(x, y));
            }
            [0, 1] => {
                let x = a[i];
                run.iter_mut().zip(&b[j..]).for_each(|(z, &y)| *z = f(x, y));
            }
            [s, t] => run.iter_mut().enumerate().for_each(|(k, z)| {
                let k = k as isize;
                *z = f(a[i.wrapping_add_signed(k * s)], b[j.wrapping_add_signed(k * t)]);
            }),
        },
    );
}

/// `out[i] += x[i]` in row-major order of the layout.
pub(crate) fn add_into<T: Scalar>(cpu: &Cpu, (x, layout): (&[T], &Layout), out: &mut [T]) {
    let nest = loops([layout]);
    let stride = nest[nest.len() - 1].strides[0];
    drive(
        cpu,
        &nest,
        [layout.offset()],
        out,
        #[inline(always)]
        |[at], run| match stride {
            1 => run.iter_mut().zip(&x[at..]).for_each(|(y, &x)| *y += x),
            _ => run.iter_mut().enumerate().for_each(|(i, y)| *y += x[at.wrapping_add_signed(i as isize * stride)]),
        },
    );
}
