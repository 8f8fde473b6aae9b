//! Sums on the host: in doubles, over lanes that do not depend on the processor, in an order fixed by the thread count.

use super::{Cpu, elementwise::Walk, part, vectorized};
use crate::{
    device::{
        layout::{Layout, Loop, loops},
        reduce::Total,
    },
    scalar::{Element, Scalar},
};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Entries that are worth a second thread.
const GRAIN: usize = 1 << 15;

/// Independent partial sums: enough for the additions to overlap, and for vectors of any width.
const LANES: usize = 32;

/// Adds up `f(x)` over runs of a nest of loops: `fold` takes a run's start and length.
fn over_runs<const N: usize>(
    cpu: &Cpu,
    nest: &[Loop<N>],
    offsets: [usize; N],
    fold: impl Fn([usize; N], usize) -> f64 + Sync,
    join: impl Fn(f64, f64) -> f64 + Sync,
    empty: f64,
) -> f64 {
    let Some((inner, outer)) = nest.split_last() else { return empty };
    let rows: usize = outer.iter().map(|l| l.size).product();
    if rows == 0 || inner.size == 0 {
        return empty;
    }
    let parts = cpu.parts(rows * inner.size, GRAIN);
    let sums = cpu.map_parts(parts, |i| {
        if rows == 1 {
            let range = part(inner.size, parts, i);
            let mut at = offsets;
            at.iter_mut().zip(inner.strides).for_each(|(at, s)| *at = at.wrapping_add_signed(range.start as isize * s));
            return fold(at, range.len());
        }
        let range = part(rows, parts, i);
        let mut walk = Walk::new(outer, offsets, range.start);
        range.fold(empty, |sum, _| {
            let sum = join(sum, fold(walk.at(), inner.size));
            walk.advance();
            sum
        })
    });
    sums.into_iter().fold(empty, join)
}

/// Folds a contiguous run in lanes.
#[inline(always)]
fn lanes<T: Scalar>(run: &[T], empty: f64, f: impl Fn(f64, f64) -> f64, join: impl Fn(f64, f64) -> f64) -> f64 {
    let mut sums = [empty; LANES];
    let (blocks, rest) = run.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            sums[i] = f(sums[i], block[i].f64());
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum = f(*sum, x.f64());
    }
    sums.into_iter().fold(empty, join)
}

fn fold<T: Scalar>(
    cpu: &Cpu,
    x: &[T],
    layout: &Layout,
    empty: f64,
    f: impl Fn(f64, f64) -> f64 + Sync + Copy,
    join: impl Fn(f64, f64) -> f64 + Sync + Copy,
) -> f64 {
    let nest = loops([layout]);
    let stride = nest[nest.len() - 1].strides[0];
    let run = |[at]: [usize; 1], n: usize| match stride {
        1 => vectorized(
            #[inline(always)]
            || lanes(&x[at..at + n], empty, f, join),
        ),
        _ => (0..n as isize).fold(empty, |sum, i| f(sum, x[at.wrapping_add_signed(i * stride)].f64())),
    };
    over_runs(cpu, &nest, [layout.offset()], run, join, empty)
}

pub(crate) fn total<T: Scalar>(cpu: &Cpu, total: Total, x: &[T], layout: &Layout) -> f64 {
    let add = |a: f64, b: f64| a + b;
    // `f64::max` ignores NaN; these keep it.
    let max = |a: f64, b: f64| if a.is_nan() || a > b { a } else { b };
    let min = |a: f64, b: f64| if a.is_nan() || a < b { a } else { b };
    match total {
        Total::Sum => fold(cpu, x, layout, 0.0, add, add),
        Total::Squares => fold(cpu, x, layout, 0.0, |sum, x| sum + x * x, add),
        Total::Abs => fold(cpu, x, layout, 0.0, |sum, x| sum + x.abs(), add),
        Total::MaxAbs => fold(cpu, x, layout, 0.0, move |sum, x| max(sum, x.abs()), max),
        Total::Min => fold(cpu, x, layout, f64::INFINITY, min, min),
        Total::Max => fold(cpu, x, layout, f64::NEG_INFINITY, max, max),
    }
}

pub(crate) fn dot<T: Scalar>(cpu: &Cpu, (x, x_at): (&[T], &Layout), (y, y_at): (&[T], &Layout)) -> f64 {
    let nest = loops([x_at, y_at]);
    let strides = nest[nest.len() - 1].strides;
    let run = |[i, j]: [usize; 2], n: usize| match strides {
        [1, 1] => vectorized(
            #[inline(always)]
            || {
                let mut sums = [0.0; LANES];
                let (x_blocks, x_rest) = x[i..i + n].as_chunks::<LANES>();
                let (y_blocks, y_rest) = y[j..j + n].as_chunks::<LANES>();
                for (x, y) in x_blocks.iter().zip(y_blocks) {
                    for l in 0..LANES {
                        sums[l] += x[l].f64() * y[l].f64();
                    }
                }
                for ((sum, x), y) in sums.iter_mut().zip(x_rest).zip(y_rest) {
                    *sum += x.f64() * y.f64();
                }
                sums.into_iter().sum()
            },
        ),
        [s, t] => {
            (0..n as isize).map(|k| x[i.wrapping_add_signed(k * s)].f64() * y[j.wrapping_add_signed(k * t)].f64()).sum()
        }
    };
    over_runs(cpu, &nest, [x_at.offset(), y_at.offset()], run, |a, b| a + b, 0.0)
}

/// The row-major position of the first entry that `is` picks.
pub(crate) fn first<T: Element>(cpu: &Cpu, x: &[T], layout: &Layout, is: impl Fn(T) -> bool + Sync) -> Option<usize> {
    let nest = loops([layout]);
    let (inner, outer) = nest.split_last()?;
    let (n, stride) = (inner.size, inner.strides[0]);
    let rows: usize = outer.iter().map(|l| l.size).product();
    if layout.len() == 0 {
        return None;
    }
    let found = AtomicUsize::new(usize::MAX);
    // Runs are cut so that one long run is shared among the threads too.
    let cut = n.div_ceil(1 << 14);
    let pieces = rows * cut;
    let parts = cpu.parts(pieces * n.min(1 << 14), GRAIN).min(pieces).max(1);
    cpu.map_parts(parts, |i| {
        for piece in part(pieces, parts, i) {
            let (row, range) = (piece / cut, part(n, cut, piece % cut));
            if row * n + range.start > found.load(Ordering::Relaxed) {
                return;
            }
            let [at] = Walk::new(outer, [layout.offset()], row).at();
            let at = at.wrapping_add_signed(range.start as isize * stride);
            let hit = match stride {
                1 => vectorized(
                    #[inline(always)]
                    || x[at..at + range.len()].iter().fold(false, |any, &x| any | is(x)),
                )
                .then(|| x[at..at + range.len()].iter().position(|&x| is(x)))
                .flatten(),
                _ => (0..range.len()).find(|&k| is(x[at.wrapping_add_signed(k as isize * stride)])),
            };
            if let Some(k) = hit {
                found.fetch_min(row * n + range.start + k, Ordering::Relaxed);
                return;
            }
        }
    });
    let found = found.into_inner();
    (found != usize::MAX).then_some(found)
}

/// Sums over all modes from `kept` on, one sum for each index of the modes before.
pub(crate) fn sum_rows<T: Scalar>(cpu: &Cpu, x: &[T], layout: &Layout, kept: usize, out: &mut [T]) {
    if out.is_empty() {
        return;
    }
    let order = layout.order();
    let head = Layout::new(&layout.shape()[..kept], &layout.strides()[..kept], layout.offset());
    let tail = Layout::new(&layout.shape()[kept..order], &layout.strides()[kept..order], 0);
    let outer = loops([&head]);
    let one = Cpu::with_threads(1);
    let grain = GRAIN.div_ceil(tail.len().max(1));
    let parts = cpu.parts(out.len(), grain).max(1);
    let total_parts = out.len();
    let sums = cpu.map_parts(parts, |i| {
        let range = part(total_parts, parts, i);
        let mut walk = Walk::new(&outer, [head.offset()], range.start);
        range
            .map(|_| {
                let [at] = walk.at();
                walk.advance();
                T::of(total(&one, Total::Sum, x, &Layout::new(tail.shape(), tail.strides(), at)))
            })
            .collect::<Vec<T>>()
    });
    out.iter_mut().zip(sums.into_iter().flatten()).for_each(|(out, sum)| *out = sum);
}
