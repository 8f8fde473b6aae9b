//! Gram matrices on the host.
//!
//! The fibres of the mode are gathered chunk by chunk into a scratch block that stays in the second-level cache, converted to the
//! working precision on the way; each chunk is one symmetric product there. Small Gram matrices are split over the chunks, with
//! a private sum for each thread; large ones over rows of the result.
//!
//! Cost: n^2 m multiplications for `n` fibre entries and `m` fibres (half of a full product), one pass over the tensor.
#![allow(unsafe_code)]

use super::{Cpu, elementwise::Walk, gemm::product, part, vectorized};
use crate::{
    device::{
        gemm::Matrix,
        gram::Precision,
        layout::{Layout, Loop, Modes, loops},
    },
    scalar::Scalar,
};
use rayon::prelude::*;
use std::ops::Range;

/// Bytes of the scratch block of one thread.
const SCRATCH: usize = 1 << 19;

/// Rows of the result that are computed at a time; above the diagonal of such a panel nothing is.
const PANEL: usize = 64;

/// Up to this many rows of the result each thread has a sum of its own.
const PRIVATE: usize = 512;

/// Writes the Gram matrix into `out` (n x n) and returns the sum of squares.
pub(crate) fn gram<T: Scalar>(
    cpu: &Cpu,
    x: &[T],
    layout: &Layout,
    mode: usize,
    precision: Precision,
    scale: f64,
    out: &mut [f64],
) -> f64 {
    match precision {
        Precision::Single => run::<T, f32>(cpu, x, layout, mode, scale, out),
        Precision::Double => run::<T, f64>(cpu, x, layout, mode, scale, out),
    }
}

fn run<T: Scalar, W: Scalar>(cpu: &Cpu, x: &[T], layout: &Layout, mode: usize, scale: f64, out: &mut [f64]) -> f64 {
    let n = layout.shape()[mode];
    out.fill(0.0);
    let fibres = Fibres::new(x, layout, mode, scale);
    if n == 0 || fibres.count == 0 {
        return 0.0;
    }
    let chunk = (SCRATCH / size_of::<W>() / n).clamp(32, 1024).min(fibres.count);
    let chunks = fibres.count.div_ceil(chunk);
    let range = |i: usize| i * chunk..((i + 1) * chunk).min(fibres.count);
    let threads = cpu.thread_count();
    let squares = if n <= PRIVATE || threads == 1 {
        let parts = threads.min(chunks);
        let sums: Vec<(Vec<f64>, f64)> = cpu.map_parts(parts, |i| {
            let (mut sum, mut squares) = (vec![0.0; n * n], 0.0);
            let mut scratch = Scratch::<W>::new(n, chunk);
            for c in part(chunks, parts, i) {
                squares += scratch.gather(&fibres, range(c));
                scratch.add_rows(0..n, &mut sum);
            }
            (sum, squares)
        });
        for (sum, _) in &sums {
            out.iter_mut().zip(sum).for_each(|(out, x)| *out += x);
        }
        sums.iter().map(|(_, squares)| squares).sum()
    } else {
        // Rows of the triangle in parts of equal area.
        let parts = threads * 2;
        let edge = |i: usize| ((n as f64) * (i as f64 / parts as f64).sqrt()).round() as usize;
        let mut pieces = Vec::new();
        let mut rest = &mut *out;
        for i in 0..parts {
            let (piece, tail) = rest.split_at_mut((edge(i + 1) - edge(i)) * n);
            pieces.push((edge(i)..edge(i + 1), piece));
            rest = tail;
        }
        let squares: Vec<f64> = cpu.install(|| {
            pieces
                .into_par_iter()
                .map(|(rows, piece)| {
                    let mut scratch = Scratch::<W>::new(n, chunk);
                    let mut squares = 0.0;
                    for c in 0..chunks {
                        squares += scratch.gather(&fibres, range(c));
                        scratch.add_rows(rows.clone(), piece);
                    }
                    squares
                })
                .collect()
        });
        squares[0]
    };
    for row in 0..n {
        for col in row + 1..n {
            out[row * n + col] = out[col * n + row];
        }
    }
    squares
}

/// The fibres of a mode, numbered in row-major order of the other modes.
struct Fibres<'a, T> {
    x: &'a [T],
    n: usize,
    /// How far the entries of a fibre are apart.
    stride: isize,
    offset: usize,
    /// The loops over fibres; the last one is the run that is gathered at once.
    nest: Modes<Loop<1>>,
    count: usize,
    scale: f64,
}

impl<'a, T: Scalar> Fibres<'a, T> {
    fn new(x: &'a [T], layout: &Layout, mode: usize, scale: f64) -> Self {
        let others = layout.indexed(mode, 0);
        Self {
            x,
            n: layout.shape()[mode],
            stride: layout.strides()[mode],
            offset: layout.offset(),
            nest: loops([&others]),
            count: others.len(),
            scale,
        }
    }
}

/// A chunk of fibres in the working precision and the product of the panel at work.
struct Scratch<W: Scalar> {
    /// `n x chunk` where runs of fibres lie side by side, else `chunk x n`.
    block: Vec<W>,
    panel: Vec<W>,
    at: Matrix,
    n: usize,
    fibres: usize,
}

impl<W: Scalar> Scratch<W> {
    fn new(n: usize, chunk: usize) -> Self {
        let panel = vec![W::default(); PANEL.min(n) * n];
        Self { block: vec![W::default(); n * chunk], panel, at: Matrix { offset: 0, rows: 0, cols: 0 }, n, fibres: 0 }
    }

    /// Fills the block with the fibres of a range and returns their sum of squares.
    fn gather<T: Scalar>(&mut self, fibres: &Fibres<'_, T>, range: Range<usize>) -> f64 {
        let n = fibres.n;
        let Some((inner, outer)) = fibres.nest.split_last() else { return 0.0 };
        let step = inner.strides[0];
        self.fibres = range.len();
        let width = self.fibres;
        let by_fibre = fibres.stride == 1 && step != 1;
        self.at = match by_fibre {
            true => Matrix { offset: 0, rows: 1, cols: n as isize },
            false => Matrix { offset: 0, rows: width as isize, cols: 1 },
        };
        let scale = W::of(fibres.scale);
        let mut squares = 0.0;
        let mut done = 0;
        while done < width {
            let from = range.start + done;
            let run = (inner.size - from % inner.size).min(width - done);
            let [start] = Walk::new(outer, [fibres.offset], from / inner.size).at();
            let start = start.wrapping_add_signed((from % inner.size) as isize * step);
            if by_fibre {
                for i in 0..run {
                    let at = start.wrapping_add_signed(i as isize * step);
                    let to = &mut self.block[(done + i) * n..(done + i + 1) * n];
                    squares += convert(&fibres.x[at..at + n], to, scale);
                }
            } else {
                for row in 0..n {
                    let at = start.wrapping_add_signed(row as isize * fibres.stride);
                    let to = &mut self.block[row * width + done..row * width + done + run];
                    if step == 1 {
                        squares += convert(&fibres.x[at..at + run], to, scale);
                    } else {
                        for (i, to) in to.iter_mut().enumerate() {
                            let x = fibres.x[at.wrapping_add_signed(i as isize * step)].f64() * fibres.scale;
                            squares += x * x;
                            *to = W::of(x);
                        }
                    }
                }
            }
            done += run;
        }
        squares
    }

    /// Adds the products of some rows of the block with all rows up to the diagonal to those rows of the Gram matrix.
    fn add_rows(&mut self, rows: Range<usize>, sum: &mut [f64]) {
        let n = self.n;
        let mut first = rows.start;
        while first < rows.end {
            let end = (first + PANEL).min(rows.end);
            let (m, cols) = (end - first, end);
            let to = Matrix { offset: 0, rows: cols as isize, cols: 1 };
            // SAFETY: the block holds n x fibres entries laid out as `at` says, rows first..end and 0..cols lie within them;
            // the panel holds PANEL x n entries and is this thread's.
            unsafe {
                let block = self.block.as_ptr();
                let rows = (block.offset(first as isize * self.at.rows), self.at);
                let panel = self.panel.as_mut_ptr();
                product(m, cols, self.fibres, W::one(), rows, (block, self.at.t()), W::zero(), (panel, to));
            }
            for row in 0..m {
                let at = (first - rows.start + row) * n;
                let sum = &mut sum[at..at + cols];
                let panel = &self.panel[row * cols..(row + 1) * cols];
                vectorized(|| sum.iter_mut().zip(panel).for_each(|(sum, x)| *sum += x.f64()));
            }
            first = end;
        }
    }
}

/// Converts a run, scaled, and returns its sum of squares.
fn convert<A: Scalar, B: Scalar>(from: &[A], to: &mut [B], scale: B) -> f64 {
    const LANES: usize = 16;
    let mut sums = [0.0; LANES];
    vectorized(|| {
        let (from_blocks, from_rest) = from.as_chunks::<LANES>();
        let (to_blocks, to_rest) = to.as_chunks_mut::<LANES>();
        for (from, to) in from_blocks.iter().zip(to_blocks) {
            for i in 0..LANES {
                let x = from[i].f64();
                let y = B::of(x) * scale;
                to[i] = y;
                let x = x * scale.f64();
                sums[i] += x * x;
            }
        }
        for ((from, to), sum) in from_rest.iter().zip(to_rest).zip(&mut sums) {
            let x = from.f64();
            *to = B::of(x) * scale;
            let x = x * scale.f64();
            *sum += x * x;
        }
    });
    sums.iter().sum()
}
