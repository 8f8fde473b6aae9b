//! Sums on the host: in doubles, over lanes that do not depend on the processor, in an order fixed by the thread count.

use super::{Cpu, elementwise::Walk, part, rows, vectorized};
use crate::{
    device::{
        layout::{Layout, Loop, Modes, loops},
        reduce::Total,
    },
    scalar::{Element, Scalar},
};
use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Entries that are worth a second thread.
const GRAIN: usize = 1 << 15;

/// Independent partial sums: enough for the additions to overlap, and for vectors of any width.
const LANES: usize = 32;

/// Adds up `f(x)` over runs of a nest of loops: `fold` takes a run's start and length.
fn over_runs<const N: usize>(
    cpu: &Cpu,
    nest: &[Loop<N>],
    offsets: [usize; N],
    fold: &(dyn Fn([usize; N], usize) -> f64 + Sync),
    join: &(dyn Fn(f64, f64) -> f64 + Sync),
    empty: f64,
) -> f64 {
    let Some((inner, outer)) = nest.split_last() else { return empty };
    let rows: usize = outer.iter().map(|l| l.size).product();
    if rows == 0 || inner.size == 0 {
        return empty;
    }
    let parts = cpu.parts(rows * inner.size, GRAIN);
    let sums = cpu.map_parts(parts, &|i| {
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
    over_runs(cpu, &nest, [layout.offset()], &run, &join, empty)
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

/// The sum of squares of several slices, shared among the threads as one range. It is cut into pieces whose sizes do not depend on the
/// threads, and their sums are added in order.
pub(crate) fn squares<T: Scalar>(cpu: &Cpu, slices: &[&[T]]) -> f64 {
    let pieces: Vec<&[T]> = slices.iter().flat_map(|slice| slice.chunks(GRAIN)).collect();
    let parts = cpu.parts(slices.iter().map(|slice| slice.len()).sum(), GRAIN).min(pieces.len());
    let sums = cpu.map_parts(parts, &|i| {
        let mine = pieces[part(pieces.len(), parts, i)].iter();
        let squares = |piece: &&[T]| {
            vectorized(
                #[inline(always)]
                || rows::sum(piece, |x: T| x.f64() * x.f64()),
            )
        };
        mine.map(squares).collect::<Vec<f64>>()
    });
    sums.into_iter().flatten().sum()
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
    over_runs(cpu, &nest, [x_at.offset(), y_at.offset()], &run, &|a, b| a + b, 0.0)
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
    cpu.map_parts(parts, &|i| {
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
    let one = Cpu::with_threads(1);
    rows_of(
        cpu,
        [layout],
        kept,
        out,
        |tail, [at]| total(&one, Total::Sum, x, &Layout::new(tail[0].shape(), tail[0].strides(), at)),
        #[inline(always)]
        |sums, [at]| sums.iter_mut().zip(&x[at..]).for_each(|(sum, x)| *sum += x.f64()),
    );
}

/// Sums of the entrywise products of two operands over all modes from `kept` on; the layouts have one shape.
pub(crate) fn dot_rows<T: Scalar>(
    cpu: &Cpu,
    (x, x_at): (&[T], &Layout),
    (y, y_at): (&[T], &Layout),
    kept: usize,
    out: &mut [T],
) {
    let one = Cpu::with_threads(1);
    rows_of(
        cpu,
        [x_at, y_at],
        kept,
        out,
        |tail, [i, j]| {
            let place = |l: &Layout, at| Layout::new(l.shape(), l.strides(), at);
            dot(&one, (x, &place(&tail[0], i)), (y, &place(&tail[1], j)))
        },
        #[inline(always)]
        |sums, [i, j]| {
            let pairs = x[i..].iter().zip(&y[j..]);
            sums.iter_mut().zip(pairs).for_each(|(sum, (x, y))| *sum += x.f64() * y.f64());
        },
    );
}

/// Columns whose sums are carried side by side: their accumulators fit the first-level cache.
const TILE: usize = 1024;

/// One sum for each index of the first `kept` modes. `row` sums the tail that begins at some place; `columns` adds what lies at some
/// place to neighbouring sums, where neighbours lie next to each other in memory.
fn rows_of<T: Scalar, const N: usize>(
    cpu: &Cpu,
    layouts: [&Layout; N],
    kept: usize,
    out: &mut [T],
    row: impl Fn(&[Layout; N], [usize; N]) -> f64 + Sync,
    columns: impl Fn(&mut [f64], [usize; N]) + Sync,
) {
    if out.is_empty() {
        return;
    }
    let heads = layouts.map(|l| Layout::new(&l.shape()[..kept], &l.strides()[..kept], l.offset()));
    let tails = layouts.map(|l| Layout::new(&l.shape()[kept..], &l.strides()[kept..], 0));
    let offsets = layouts.map(Layout::offset);
    let len = tails[0].len();
    let (head, tail): (Modes<Loop<N>>, Modes<Loop<N>>) =
        (loops(std::array::from_fn(|i| &heads[i])), loops(std::array::from_fn(|i| &tails[i])));
    let (across, outer) = head.split_at(head.len() - 1);
    let (width, outer) = (outer[0].size, across);
    let side_by_side = head[head.len() - 1].strides == [1; N] && width >= 8 && tail[tail.len() - 1].strides != [1; N];
    if !side_by_side || len == 0 {
        let parts = cpu.parts(out.len(), GRAIN.div_ceil(len.max(1))).max(1);
        let per_part = out.len().div_ceil(parts);
        cpu.map_pieces(out.chunks_mut(per_part.max(1)).enumerate().collect(), &|(i, out)| {
            let mut walk = Walk::new(&head, offsets, i * per_part);
            for out in out {
                *out = T::of(row(&tails, walk.at()));
                walk.advance();
            }
        });
        return;
    }
    // Every row of the tail is walked once, a tile of columns at a time. Where there are few tiles, threads share the rows of
    // each, and their sums are added up in order.
    let tiles = width.div_ceil(TILE);
    let count = out.len() / width * tiles;
    let parts = cpu.parts(len * width.min(TILE) * count, GRAIN).div_ceil(count).min(len).max(1);
    let tile = |t: usize| t % tiles * TILE..(t % tiles * TILE + TILE).min(width);
    // The sums of tile `t` over some rows of the tail.
    let add_up = |t: usize, rows: Range<usize>, sums: &mut [f64]| {
        let start = Walk::new(outer, offsets, t / tiles).at().map(|at| at + tile(t).start);
        vectorized(
            #[inline(always)]
            || {
                let mut walk = Walk::new(&tail, start, rows.start);
                for _ in rows.clone() {
                    columns(sums, walk.at());
                    walk.advance();
                }
            },
        );
    };
    if parts == 1 {
        let fill = |(t, out): (usize, &mut [T])| {
            let mut sums = [0.0; TILE];
            let sums = &mut sums[..out.len()];
            add_up(t, 0..len, sums);
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = T::of(*sum));
        };
        let chunks = out.chunks_exact_mut(width).flat_map(|row| row.chunks_mut(TILE)).enumerate();
        cpu.map_pieces(chunks.collect(), &fill);
        return;
    }
    let partial = cpu.map_parts(count * parts, &|task| {
        let t = task / parts;
        let mut sums = vec![0.0; tile(t).len()];
        add_up(t, part(len, parts, task % parts), &mut sums);
        sums
    });
    let chunks = out.chunks_exact_mut(width).flat_map(|row| row.chunks_mut(TILE));
    for (out, partial) in chunks.zip(partial.chunks(parts)) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = T::of(partial.iter().fold(0.0, |sum, part| sum + part[i]));
        }
    }
}
