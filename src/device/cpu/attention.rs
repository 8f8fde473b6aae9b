//! Attention on the host. A thread takes a head and a block of its rows; the scores of that block stay in the second cache
//! from the product that makes them to the product that uses them up.
//!
//! Backward computes the probabilities again from the saved logarithms of the rows' sums, as in T. Dao et al.,
//! *FlashAttention*, NeurIPS 2022, with whole rows instead of tiles.
#![allow(unsafe_code)]

use super::{
    Cpu, HostBlock, dropout,
    gemm::{Shared, product},
    part, rows, softmax, vectorized,
};
use crate::{
    device::{dropout::Drop, gemm::Matrix, layout::Layout},
    scalar::Scalar,
};
use std::ops::Range;

/// Scores that a thread holds at a time: they should stay in its second cache.
const SCORES: usize = 1 << 16;

type Operand<'a, T> = (&'a [T], &'a Layout);

pub(crate) struct Problem<'a, T> {
    pub(crate) q: Operand<'a, T>,
    pub(crate) k: Operand<'a, T>,
    pub(crate) v: Operand<'a, T>,
    pub(crate) terms: Vec<Operand<'a, T>>,
    pub(crate) scale: T,
    pub(crate) drop: Option<Drop>,
}

pub(crate) struct Saved<'a, T> {
    pub(crate) out: Operand<'a, T>,
    pub(crate) lse: &'a [T],
    pub(crate) dy: Operand<'a, T>,
}

/// Where gradients go: each block is gapless under its layout.
pub(crate) struct Gradients<'a, T> {
    pub(crate) q: Option<(&'a mut [T], Layout)>,
    pub(crate) k: Option<(&'a mut [T], Layout)>,
    pub(crate) v: Option<(&'a mut [T], Layout)>,
    pub(crate) bias: Option<(&'a mut [T], Layout)>,
}

/// A block that threads write to, each in its own places.
#[derive(Clone)]
struct Target<T> {
    block: Shared<T>,
    layout: Layout,
}

impl<T> Target<T> {
    fn new((block, layout): (&mut [T], Layout)) -> Self {
        check(block.len(), &layout);
        Self { block: Shared(block.as_mut_ptr()), layout }
    }
}

/// Panics, before anything is touched, if a layout leaves its block.
fn check(len: usize, layout: &Layout) {
    if layout.len() == 0 {
        return;
    }
    let (mut low, mut high) = (layout.offset() as isize, layout.offset() as isize);
    for (&size, &stride) in layout.shape().iter().zip(layout.strides()) {
        let reach = (size as isize - 1) * stride;
        if reach < 0 { low += reach } else { high += reach }
    }
    assert!(low >= 0 && (high as usize) < len, "attention: an operand reaches {low}..={high} in a block of {len}");
}

/// The position of row `row` of head `(b, h)`.
fn position(layout: &Layout, (b, h): (usize, usize), row: usize) -> usize {
    let s = layout.strides();
    layout.offset().wrapping_add_signed(b as isize * s[0] + h as isize * s[1] + row as isize * s[2])
}

/// The rows of a head as a matrix.
fn matrix(layout: &Layout) -> Matrix {
    Matrix { offset: 0, rows: layout.strides()[2], cols: layout.strides()[3] }
}

impl<T: Scalar> Problem<'_, T> {
    /// B, H, N, M
    fn sizes(&self) -> [usize; 4] {
        let q = self.q.1.shape();
        [q[0], q[1], q[2], self.k.1.shape()[2]]
    }

    fn check(&self) {
        for (block, layout) in [self.q, self.k, self.v].into_iter().chain(self.terms.iter().copied()) {
            check(block.len(), layout);
        }
    }

    fn rows_at_once(&self) -> usize {
        let [_, _, n, m] = self.sizes();
        (SCORES / m.max(1)).clamp(8, 128).min(n)
    }

    /// `scale q k^T` of some rows of a head, plus the terms.
    fn scores(&self, head: (usize, usize), rows: Range<usize>, out: &mut [T]) {
        let m = self.k.1.shape()[2];
        assert_eq!(out.len(), rows.len() * m);
        let q = &self.q.0[position(self.q.1, head, rows.start)..];
        let k = &self.k.0[position(self.k.1, head, 0)..];
        let to = Matrix { offset: 0, rows: m as isize, cols: 1 };
        // SAFETY: `check` found all operands in their blocks; `out` is rows x m, and this thread's.
        unsafe {
            let (q, k) = ((q.as_ptr(), matrix(self.q.1)), (k.as_ptr(), matrix(self.k.1).t()));
            product(rows.len(), m, self.q.1.shape()[3], self.scale, q, k, T::zero(), (out.as_mut_ptr(), to));
        }
        for (block, layout) in &self.terms {
            vectorized(
                #[inline(always)]
                || {
                    for (row, out) in rows.clone().zip(out.chunks_exact_mut(m)) {
                        add_row(block, position(layout, head, row), layout.strides()[3], out);
                    }
                },
            );
        }
    }

    /// The position of a row's first score, counted over all heads: what dropout goes by.
    fn count(&self, (b, h): (usize, usize), row: usize) -> u64 {
        let [_, heads, n, m] = self.sizes();
        (((b * heads + h) * n + row) * m) as u64
    }
}

#[inline(always)]
fn add_row<T: Scalar>(block: &[T], at: usize, stride: isize, out: &mut [T]) {
    match stride {
        1 => {
            for (out, &term) in out.iter_mut().zip(&block[at..]) {
                *out += term;
            }
        }
        0 => {
            let term = block[at];
            for out in out.iter_mut() {
                *out += term;
            }
        }
        _ => {
            for (j, out) in out.iter_mut().enumerate() {
                *out += block[at.wrapping_add_signed(j as isize * stride)];
            }
        }
    }
}

pub(crate) fn forward<T: Scalar>(cpu: &Cpu, p: &Problem<'_, T>, (out, layout): (&mut [T], &Layout), lse: &mut [T]) {
    let [batch, heads, n, m] = p.sizes();
    let e = p.v.1.shape()[3];
    if batch * heads * n == 0 {
        return;
    }
    if m == 0 {
        out.fill(T::zero());
        lse.fill(T::infinity());
        return;
    }
    p.check();
    assert_eq!(lse.len(), batch * heads * n);
    let out = Target::new((out, layout.clone()));
    let lse = Shared(lse.as_mut_ptr());
    let height = p.rows_at_once();
    let blocks = n.div_ceil(height);
    let units = batch * heads * blocks;
    let parts = if cpu.thread_count() == 1 { 1 } else { units.min(cpu.thread_count() * 8) };
    cpu.map_parts(parts, &|i| {
        let mut scratch = HostBlock::pooled(height * m);
        let mut factors = HostBlock::<T>::pooled(if p.drop.is_some() { m } else { 0 });
        for unit in part(units, parts, i) {
            let (pair, block) = (unit / blocks, unit % blocks);
            let head = (pair / heads, pair % heads);
            let range = block * height..((block + 1) * height).min(n);
            let scores = &mut scratch.as_mut_slice()[..range.len() * m];
            p.scores(head, range.clone(), scores);
            // SAFETY: rows of `lse` belong to one unit each, and lie in it (its length was checked).
            let lse = unsafe { std::slice::from_raw_parts_mut(lse.get().add(pair * n + range.start), range.len()) };
            let factors = factors.as_mut_slice();
            vectorized(
                #[inline(always)]
                || {
                    for ((row, scores), lse) in range.clone().zip(scores.chunks_exact_mut(m)).zip(lse.iter_mut()) {
                        *lse = softmax::soften(scores);
                        if let Some(drop) = &p.drop {
                            dropout::factors_inline(drop, p.count(head, row), factors);
                            for (score, &factor) in scores.iter_mut().zip(&*factors) {
                                *score *= factor;
                            }
                        }
                    }
                },
            );
            let from = Matrix { offset: 0, rows: m as isize, cols: 1 };
            // SAFETY: v and `out` were checked to lie in their blocks; rows of `out` belong to one unit each.
            unsafe {
                let v = p.v.0.as_ptr().add(position(p.v.1, head, 0));
                let to = out.block.get().add(position(&out.layout, head, range.start));
                let (scores, v) = ((scores.as_ptr(), from), (v, matrix(p.v.1)));
                product(range.len(), e, m, T::one(), scores, v, T::zero(), (to, matrix(&out.layout)));
            }
        }
    });
}

pub(crate) fn backward<T: Scalar>(cpu: &Cpu, p: &Problem<'_, T>, saved: &Saved<'_, T>, to: Gradients<'_, T>) {
    let [batch, heads, n, m] = p.sizes();
    let pairs = batch * heads;
    let Gradients { q, k, v, bias } = to;
    if pairs * n * m == 0 {
        for (block, _) in [q, k, v, bias].into_iter().flatten() {
            block.fill(T::zero());
        }
        return;
    }
    p.check();
    check(saved.out.0.len(), saved.out.1);
    check(saved.dy.0.len(), saved.dy.1);
    assert_eq!(saved.lse.len(), pairs * n);
    let way = Way { p, saved, q: q.map(Target::new), k: k.map(Target::new), v: v.map(Target::new) };
    let head = |pair: usize| (pair / heads, pair % heads);
    let Some((bias, layout)) = bias else {
        cpu.map_parts(pairs, &|pair| way.head(head(pair), None));
        return;
    };
    // Heads that share a slice of the bias add to it one after the other.
    let slice = layout.shape()[2] * layout.shape()[3];
    let (own_batch, own_head) = (layout.shape()[0] > 1, layout.shape()[1] > 1);
    let group_of =
        |(b, h): (usize, usize)| (if own_batch { b } else { 0 }) * layout.shape()[1] + if own_head { h } else { 0 };
    let groups = bias.len() / slice;
    if groups >= cpu.thread_count().min(pairs) {
        let mut members = vec![Vec::new(); groups];
        (0..pairs).for_each(|pair| members[group_of(head(pair))].push(head(pair)));
        let block = Shared(bias.as_mut_ptr());
        cpu.map_parts(groups, &|group| {
            // SAFETY: every group writes its own slice; there are `groups` of them in the block.
            let mine = unsafe { std::slice::from_raw_parts_mut(block.get().add(group * slice), slice) };
            mine.fill(T::zero());
            members[group].iter().for_each(|&head| way.head(head, Some((mine, &layout))));
        });
        return;
    }
    // Few slices and many threads: each thread has slices of its own, added up in order.
    let parts = cpu.thread_count().min(pairs);
    let sums = cpu.map_parts(parts, &|i| {
        let mut own = HostBlock::pooled(bias.len());
        own.as_mut_slice().fill(T::zero());
        for pair in part(pairs, parts, i) {
            let group = group_of(head(pair));
            way.head(head(pair), Some((&mut own.as_mut_slice()[group * slice..(group + 1) * slice], &layout)));
        }
        own
    });
    bias.fill(T::zero());
    for own in sums {
        for (sum, &own) in bias.iter_mut().zip(own.as_slice()) {
            *sum += own;
        }
    }
}

/// The way back, for every head the same.
struct Way<'a, T> {
    p: &'a Problem<'a, T>,
    saved: &'a Saved<'a, T>,
    q: Option<Target<T>>,
    k: Option<Target<T>>,
    v: Option<Target<T>>,
}

impl<T: Scalar> Way<'_, T> {
    /// One head, a block of rows after the other: dv and dk are sums over the blocks.
    fn head(&self, head: (usize, usize), mut bias: Option<(&mut [T], &Layout)>) {
        let p = self.p;
        let [_, _, n, m] = p.sizes();
        let height = p.rows_at_once();
        let (mut scratch, mut slopes) = (HostBlock::pooled(height * m), HostBlock::pooled(height * m));
        let mut factors = HostBlock::<T>::pooled(if p.drop.is_some() { m } else { 0 });
        for start in (0..n).step_by(height) {
            let range = start..(start + height).min(n);
            let probabilities = &mut scratch.as_mut_slice()[..range.len() * m];
            let slopes = &mut slopes.as_mut_slice()[..range.len() * m];
            p.scores(head, range.clone(), probabilities);
            self.slopes(head, range.clone(), slopes);
            self.rows(head, range.clone(), probabilities, slopes, factors.as_mut_slice());
            if let Some((bias, layout)) = &mut bias {
                for (row, slopes) in range.clone().zip(slopes.chunks_exact(m)) {
                    let row = if layout.shape()[2] == 1 { 0 } else { row };
                    add_slopes(slopes, &mut bias[row * layout.shape()[3]..][..layout.shape()[3]]);
                }
            }
            let first = start == 0;
            self.add(&self.v, head, probabilities, (self.saved.dy, range.clone()), T::one(), first);
            self.add(&self.k, head, slopes, (p.q, range.clone()), p.scale, first);
            self.add_rows(head, range, slopes);
        }
    }

    /// `dy v^T`
    fn slopes(&self, head: (usize, usize), rows: Range<usize>, out: &mut [T]) {
        let (p, (dy, dy_at)) = (self.p, self.saved.dy);
        let m = p.k.1.shape()[2];
        let to = Matrix { offset: 0, rows: m as isize, cols: 1 };
        assert_eq!(out.len(), rows.len() * m);
        // SAFETY: dy and v were checked to lie in their blocks; `out` is rows x m, and this thread's.
        unsafe {
            let dy = dy.as_ptr().add(position(dy_at, head, rows.start));
            let v = p.v.0.as_ptr().add(position(p.v.1, head, 0));
            let (dy, v) = ((dy, matrix(dy_at)), (v, matrix(p.v.1).t()));
            product(rows.len(), m, dy_at.shape()[3], T::one(), dy, v, T::zero(), (out.as_mut_ptr(), to));
        }
    }

    /// Scores become the probabilities that multiplied v, and `dy v^T` the gradient of the scores.
    fn rows(&self, head: (usize, usize), rows: Range<usize>, scores: &mut [T], slopes: &mut [T], factors: &mut [T]) {
        let (p, saved) = (self.p, self.saved);
        let [_, heads, n, m] = p.sizes();
        vectorized(
            #[inline(always)]
            || {
                for (row, (scores, slopes)) in
                    rows.clone().zip(scores.chunks_exact_mut(m).zip(slopes.chunks_exact_mut(m)))
                {
                    let lse = saved.lse[(head.0 * heads + head.1) * n + row];
                    let mean = dot_rows(saved.out, saved.dy, head, row);
                    match &p.drop {
                        None => plain_row(scores, slopes, lse, mean),
                        Some(drop) => {
                            dropout::factors_inline(drop, p.count(head, row), factors);
                            dropped_row(scores, slopes, factors, lse, mean);
                        }
                    }
                }
            },
        )
    }

    /// `to += factor left^T right` for the `right` rows of a block.
    #[allow(clippy::too_many_arguments)]
    fn add(
        &self,
        to: &Option<Target<T>>,
        head: (usize, usize),
        left: &[T],
        ((right, right_at), rows): (Operand<'_, T>, Range<usize>),
        factor: T,
        first: bool,
    ) {
        let Some(to) = to else { return };
        let m = self.p.k.1.shape()[2];
        let from = Matrix { offset: 0, rows: 1, cols: m as isize };
        assert_eq!(left.len(), rows.len() * m);
        let beta = if first { T::zero() } else { T::one() };
        // SAFETY: all operands were checked to lie in their blocks; a head of the target belongs to one thread.
        unsafe {
            let right = right.as_ptr().add(position(right_at, head, rows.start));
            let out = to.block.get().add(position(&to.layout, head, 0));
            let (left, right) = ((left.as_ptr(), from), (right, matrix(right_at)));
            product(m, right_at.shape()[3], rows.len(), factor, left, right, beta, (out, matrix(&to.layout)));
        }
    }

    /// `dq = scale slopes k`
    fn add_rows(&self, head: (usize, usize), rows: Range<usize>, slopes: &[T]) {
        let Some(to) = &self.q else { return };
        let (p, m) = (self.p, self.p.k.1.shape()[2]);
        let from = Matrix { offset: 0, rows: m as isize, cols: 1 };
        assert_eq!(slopes.len(), rows.len() * m);
        // SAFETY: as above; rows of the target belong to one thread.
        unsafe {
            let k = p.k.0.as_ptr().add(position(p.k.1, head, 0));
            let out = to.block.get().add(position(&to.layout, head, rows.start));
            let (slopes, k) = ((slopes.as_ptr(), from), (k, matrix(p.k.1)));
            product(rows.len(), p.k.1.shape()[3], m, p.scale, slopes, k, T::zero(), (out, matrix(&to.layout)));
        }
    }
}

/// The inner product of a row of two operands.
#[inline(always)]
fn dot_rows<T: Scalar>((a, a_at): Operand<'_, T>, (b, b_at): Operand<'_, T>, head: (usize, usize), row: usize) -> T {
    let n = a_at.shape()[3];
    let (i, j) = (position(a_at, head, row), position(b_at, head, row));
    match (a_at.strides()[3], b_at.strides()[3]) {
        (1, 1) => rows::sum2(&a[i..i + n], &b[j..j + n], |a, b| a * b),
        (s, t) => (0..n as isize).map(|k| a[i.wrapping_add_signed(k * s)] * b[j.wrapping_add_signed(k * t)]).sum(),
    }
}

#[inline(always)]
fn plain_row<T: Scalar>(scores: &mut [T], slopes: &mut [T], lse: T, mean: T) {
    for (score, slope) in scores.iter_mut().zip(slopes) {
        let p = (*score - lse).exponential_nonpositive();
        *score = p;
        *slope = p * (*slope - mean);
    }
}

#[inline(always)]
fn dropped_row<T: Scalar>(scores: &mut [T], slopes: &mut [T], factors: &[T], lse: T, mean: T) {
    for ((score, slope), &factor) in scores.iter_mut().zip(slopes).zip(factors) {
        let p = (*score - lse).exponential_nonpositive();
        *score = p * factor;
        *slope = p * (*slope * factor - mean);
    }
}

/// Adds a row of slopes to the bias entries that it belongs to: as many, or one.
fn add_slopes<T: Scalar>(slopes: &[T], bias: &mut [T]) {
    vectorized(
        #[inline(always)]
        || match bias {
            [sum] if slopes.len() > 1 => *sum += rows::sum(slopes, |slope| slope),
            _ => {
                for (bias, &slope) in bias.iter_mut().zip(slopes) {
                    *bias += slope;
                }
            }
        },
    );
}
