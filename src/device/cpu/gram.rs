//! Gram matrices on the host.
//!
//! Fibres are gathered chunk by chunk, in the working precision, into a block that stays in the second-level cache. Where fibres lie
//! side by side in memory (all modes but the last) the block is `[row][fibre]`, and its product with itself is a set of inner products
//! taken in tiles of registers, on and below the diagonal only. Where they lie along memory (the last mode) it is `[fibre][row]`, and the
//! product is left to the matrix kernels. Small Gram matrices are split over the chunks, with a sum for each thread; large ones over
//! rows of the result.
//!
//! Cost: n^2 m flops for `n` fibre entries and `m` fibres (half of a full product), one pass over the tensor.
#![allow(unsafe_code)]

use super::{Cpu, elementwise::Walk, gemm::product, part, simd::Vectors};
use crate::{
    device::{
        gemm::Matrix,
        gram::Precision,
        layout::{Layout, Loop, Modes, loops},
    },
    scalar::Scalar,
};
use pulp::Simd;
use std::ops::Range;

/// Rows are computed in groups of this many: a multiple of every register tile's sides.
const GROUP: usize = 12;

/// Fibres of a chunk are a multiple of this: whole registers of every kind.
const LANES: usize = 16;

/// Bytes of the gathered chunk of one thread.
const GATHERED: usize = 1 << 19;

/// Entries that are converted at a time.
const BLOCK: usize = 512;

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

fn run<T: Scalar, W: Scalar + Vectors>(
    cpu: &Cpu,
    x: &[T],
    layout: &Layout,
    mode: usize,
    scale: f64,
    out: &mut [f64],
) -> f64 {
    let n = layout.shape()[mode];
    out.fill(0.0);
    let fibres = Fibres::new(x, layout, mode, scale);
    if n == 0 || fibres.count == 0 {
        return 0.0;
    }
    let most = (GATHERED / size_of::<W>() / n.next_multiple_of(GROUP)).clamp(LANES, 4096);
    let chunk = most.min(fibres.count).next_multiple_of(LANES);
    let chunks = fibres.count.div_ceil(chunk);
    let range = |i: usize| i * chunk..((i + 1) * chunk).min(fibres.count);
    let threads = cpu.thread_count();
    let squares = if n <= PRIVATE || threads == 1 {
        // Two parts a thread: enough to even out a busy machine.
        let parts = (2 * threads).min(chunks);
        let sums: Vec<(Vec<f64>, f64)> = cpu.map_parts(parts, &|i| {
            let (mut sum, mut squares) = (vec![0.0; n * n], Sum::default());
            let mut gathered = Chunk::<W>::new(&fibres, chunk);
            for c in part(chunks, parts, i) {
                gathered.gather(&fibres, range(c), &mut squares);
                gathered.multiply(0..n, &mut sum);
            }
            (sum, squares.total())
        });
        for (sum, _) in &sums {
            out.iter_mut().zip(sum).for_each(|(out, x)| *out += x);
        }
        sums.iter().map(|(_, squares)| squares).sum()
    } else {
        // Rows of the triangle in parts of equal area; every part gathers for itself, which is little beside the products.
        let groups = n.div_ceil(GROUP);
        let parts = threads * 2;
        let edge = |i: usize| (((groups as f64) * (i as f64 / parts as f64).sqrt()).round() as usize * GROUP).min(n);
        let sums: Vec<(Vec<f64>, f64)> = cpu.map_parts(parts, &|i| {
            let rows = edge(i)..edge(i + 1);
            let mut sum = vec![0.0; rows.len() * n];
            let mut gathered = Chunk::<W>::new(&fibres, chunk);
            let mut squares = Sum::default();
            for c in 0..chunks {
                gathered.gather(&fibres, range(c), &mut squares);
                gathered.multiply(rows.clone(), &mut sum);
            }
            (sum, squares.total())
        });
        let rows = sums.iter().flat_map(|(sum, _)| sum.chunks_exact(n));
        out.chunks_exact_mut(n).zip(rows).for_each(|(out, sum)| out.copy_from_slice(sum));
        sums[0].1
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
    /// The loops over fibres; the last one is the run that is packed at once.
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

/// A chunk of fibres in the working precision.
struct Chunk<W: Scalar> {
    /// `[row][width]`, rows padded with zeros to whole groups and fibres to whole registers; or `[fibre][row]`.
    block: Vec<W>,
    by_fibre: bool,
    n: usize,
    width: usize,
    /// The product at work, where the matrix kernels do it.
    panel: Vec<W>,
}

impl<W: Scalar + Vectors> Chunk<W> {
    fn new<T: Scalar>(fibres: &Fibres<'_, T>, chunk: usize) -> Self {
        let n = fibres.n;
        let by_fibre = fibres.stride == 1 && fibres.nest[fibres.nest.len() - 1].strides[0] != 1;
        let panel = if by_fibre { vec![W::default(); n.div_ceil(2).next_multiple_of(GROUP) * n] } else { Vec::new() };
        let block = vec![W::default(); n.next_multiple_of(GROUP) * chunk];
        Self { block, by_fibre, n, width: chunk, panel }
    }

    /// Fills the block with the fibres of a range and adds up their squares.
    fn gather<T: Scalar>(&mut self, fibres: &Fibres<'_, T>, range: Range<usize>, squares: &mut Sum) {
        let Some((inner, outer)) = fibres.nest.split_last() else { return };
        let (n, step, scale) = (fibres.n, inner.strides[0], fibres.scale);
        let count = range.len();
        if !self.by_fibre && count.next_multiple_of(LANES) != self.width {
            // The last chunk: shorter rows, and zeros where whole registers need them.
            self.width = count.next_multiple_of(LANES);
            self.block.truncate(n.next_multiple_of(GROUP) * self.width);
            self.block.fill(W::default());
        }
        if self.by_fibre {
            self.width = count;
        }
        let width = self.width;
        let mut done = 0;
        while done < count {
            let from = range.start + done;
            let run = (inner.size - from % inner.size).min(count - done);
            let [start] = Walk::new(outer, [fibres.offset], from / inner.size).at();
            let start = start.wrapping_add_signed((from % inner.size) as isize * step);
            let lines = if self.by_fibre { run } else { n };
            for line in 0..lines {
                let (at, to, length) = match self.by_fibre {
                    true => (start.wrapping_add_signed(line as isize * step), (done + line) * n, n),
                    false => (start.wrapping_add_signed(line as isize * fibres.stride), line * width + done, run),
                };
                let to = &mut self.block[to..to + length];
                if self.by_fibre || step == 1 {
                    squares.add(super::arch().dispatch(Convert { from: &fibres.x[at..at + length], to, scale }));
                    continue;
                }
                let mut line = 0.0;
                for (i, to) in to.iter_mut().enumerate() {
                    let x = fibres.x[at.wrapping_add_signed(i as isize * step)].f64() * scale;
                    line += x * x;
                    *to = W::of(x);
                }
                squares.add(line);
            }
            done += run;
        }
    }

    /// Adds the products of some rows of the chunk with all rows up to the diagonal to those rows of the Gram matrix.
    fn multiply(&mut self, rows: Range<usize>, sum: &mut [f64]) {
        if self.by_fibre {
            return self.multiply_by_fibre(rows, sum);
        }
        let dots = Dots { block: &self.block, width: self.width, n: self.n, rows, sum };
        super::arch().dispatch(dots);
    }

    /// The product by the matrix kernels, in two panels of rows: above the diagonal of a panel nothing is computed.
    fn multiply_by_fibre(&mut self, rows: Range<usize>, sum: &mut [f64]) {
        let n = self.n;
        let half = rows.len().div_ceil(2).next_multiple_of(GROUP);
        let mut first = rows.start;
        while first < rows.end {
            let end = (first + half).min(rows.end);
            let to = Matrix { offset: 0, rows: end as isize, cols: 1 };
            let at = Matrix { offset: 0, rows: 1, cols: n as isize };
            // SAFETY: the block holds width x n entries; rows first..end and 0..end are entries of its fibres. The panel holds more
            // than (end - first) x end entries and is this thread's.
            unsafe {
                let (block, panel) = (self.block.as_ptr(), self.panel.as_mut_ptr());
                let rows = (block.add(first), at);
                product(end - first, end, self.width, W::one(), rows, (block, at.t()), W::zero(), (panel, to));
            }
            for row in 0..end - first {
                let at = (first - rows.start + row) * n;
                let panel = &self.panel[row * end..(row + 1) * end];
                sum[at..at + end].iter_mut().zip(panel).for_each(|(sum, x)| *sum += x.f64());
            }
            first = end;
        }
    }
}

/// A sum of many short runs that rounds as if there were one: an error is the norm less the core's, and a drift of a few ulps in either is
/// large beside a small difference. Each addition's rounding error is kept and added at the end (A. Neumaier, ZAMM 54, 1974).
#[derive(Default)]
struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    fn add(&mut self, x: f64) {
        let sum = self.sum + x;
        self.lost += if self.sum.abs() >= x.abs() { (self.sum - sum) + x } else { (x - sum) + self.sum };
        self.sum = sum;
    }

    /// The sum; where it is not finite, its error says nothing.
    fn total(self) -> f64 {
        if self.sum.is_finite() { self.sum + self.lost } else { self.sum }
    }
}

/// Converts a run, scaled, and returns its sum of squares.
struct Convert<'a, T, W> {
    from: &'a [T],
    to: &'a mut [W],
    scale: f64,
}

impl<T: Scalar, W: Scalar> pulp::NullaryFnOnce for Convert<'_, T, W> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let Self { from, to, scale } = self;
        let mut sums = [0.0; LANES];
        // One loop at a time vectorises, the two in one do not; a block stays in the first-level cache between them.
        for (from, to) in from.chunks(BLOCK).zip(to.chunks_mut(BLOCK)) {
            from.iter().zip(to).for_each(|(x, y)| *y = W::of(x.f64() * scale));
            let (lanes, rest) = from.as_chunks::<LANES>();
            for x in lanes {
                for i in 0..LANES {
                    let x = x[i].f64() * scale;
                    sums[i] += x * x;
                }
            }
            for (sum, x) in sums.iter_mut().zip(rest) {
                let x = x.f64() * scale;
                *sum += x * x;
            }
        }
        sums.iter().sum()
    }
}

/// Inner products of the rows of a block.
struct Dots<'a, W> {
    block: &'a [W],
    width: usize,
    n: usize,
    rows: Range<usize>,
    sum: &'a mut [f64],
}

impl<W: Scalar + Vectors> pulp::WithSimd for Dots<'_, W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // A tile's products and operands have to fit the registers: 24 + 10 of 32, or 9 + 6 of 16.
        if S::REGISTER_COUNT >= 32 { self.tiles::<S, 4, 6>(simd) } else { self.tiles::<S, 3, 3>(simd) }
    }
}

impl<W: Scalar + Vectors> Dots<'_, W> {
    #[inline(always)]
    fn tiles<S: Simd, const R: usize, const C: usize>(self, simd: S) {
        let Self { block, width, n, rows, sum } = self;
        let row = |i: usize| W::vectors::<S>(&block[i * width..(i + 1) * width]);
        for i in (rows.start..rows.end).step_by(R) {
            for j in (0..i + R).step_by(C) {
                let a: [&[W::Vector<S>]; R] = std::array::from_fn(|r| row(i + r));
                let b: [&[W::Vector<S>]; C] = std::array::from_fn(|c| row(j + c));
                let products = tile::<S, W, R, C>(simd, a, b);
                for (r, products) in products.iter().enumerate().take(rows.end - i.min(rows.end)) {
                    for (c, &product) in products.iter().enumerate().take(n - j.min(n)) {
                        sum[(i + r - rows.start) * n + j + c] += W::lane_sum(simd, product).f64();
                    }
                }
            }
        }
    }
}

/// `sum_k a[r][k] b[c][k]`, lane by lane, for R x C pairs of rows.
#[inline(always)]
fn tile<S: Simd, W: Vectors, const R: usize, const C: usize>(
    simd: S,
    a: [&[W::Vector<S>]; R],
    b: [&[W::Vector<S>]; C],
) -> [[W::Vector<S>; C]; R] {
    let mut sums = [[W::zeros(simd); C]; R];
    let steps = a[0].len();
    let (a, b) = (a.map(|a| &a[..steps]), b.map(|b| &b[..steps]));
    for k in 0..steps {
        let b: [W::Vector<S>; C] = std::array::from_fn(
            #[inline(always)]
            |c| b[c][k],
        );
        for r in 0..R {
            let a = a[r][k];
            for c in 0..C {
                sums[r][c] = W::mul_add(simd, a, b[c], sums[r][c]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_squares_does_not_drift_over_many_short_runs() {
        let x = vec![0.1; 200_000];
        let exact = 200_000.0 * (0.1 * 0.1);
        let layout = Layout::contiguous(&[40_000, 5]);
        for threads in [1, 2] {
            let cpu = Cpu::with_threads(threads);
            let squares = gram(&cpu, &x, &layout, 1, Precision::Double, 1.0, &mut [0.0; 25]);
            assert!((squares / exact - 1.0).abs() < 4.0 * f64::EPSILON, "{threads} threads: {squares}, exact {exact}");
        }
    }
}
