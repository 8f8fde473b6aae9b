//! Matrix products on the host: the `gemm` crate's kernels, split among threads here.
//!
//! The crate's kernels reach what MKL does; what it does not know is the shape of tensor work: batches of small products
//! (split over the batch), long thin ones (split over the long side, or over the inner dimension with private sums).
#![allow(unsafe_code)]

use super::{Cpu, part, thin};
use crate::{
    device::gemm::{Gemm, Matrix, count, moved},
    scalar::Scalar,
};
use std::ops::Range;

/// Products of fewer multiplications than this are not worth a second thread.
const GRAIN: usize = 1 << 17;

/// A pointer that may cross threads; each use says why its places are disjoint.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(pub(crate) *mut T);
// SAFETY: the pointer is only used to reach places that no other thread reaches; see the uses.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn get(self) -> *mut T {
        self.0
    }
}

/// Panics, before touching anything, if a matrix of the batch would leave its block.
fn check(
    what: &str,
    len: usize,
    matrix: Matrix,
    rows: usize,
    cols: usize,
    batch: impl Iterator<Item = (usize, isize)>,
) {
    let (mut low, mut high) = (matrix.offset as isize, matrix.offset as isize);
    for (size, stride) in batch.chain([(rows, matrix.rows), (cols, matrix.cols)]) {
        let reach = (size as isize - 1) * stride;
        if reach < 0 { low += reach } else { high += reach }
    }
    assert!(low >= 0 && (high as usize) < len, "gemm: operand {what} reaches {low}..={high} in a block of {len}");
}

pub(crate) fn gemm<T: Scalar>(cpu: &Cpu, p: &Gemm<T>, a: &[T], b: &[T], c: &mut [T]) {
    let (batches, sums) = (count(&p.batch), count(&p.sum));
    if batches == 0 || p.m == 0 || p.n == 0 {
        return;
    }
    let loops = || p.batch.iter().chain(&p.sum);
    check("C", c.len(), p.c, p.m, p.n, p.batch.iter().map(|l| (l.size, l.c)));
    if p.k > 0 && sums > 0 {
        check("A", a.len(), p.a, p.m, p.k, loops().map(|l| (l.size, l.a)));
        check("B", b.len(), p.b, p.k, p.n, loops().map(|l| (l.size, l.b)));
    }
    let raw = Raw { p, a: Shared(a.as_ptr().cast_mut()), b: Shared(b.as_ptr().cast_mut()), c: Shared(c.as_mut_ptr()) };
    let threads = cpu.thread_count();
    let work = batches * sums.max(1) * p.m * p.n * p.k.max(1);
    let inner = sums * p.k;
    if threads == 1 || work < 2 * GRAIN {
        // SAFETY: all operands were checked to lie in their blocks; one thread runs.
        (0..batches).for_each(|i| unsafe { raw.product(i, 0..p.m, 0..p.n) });
    } else if batches >= 2 * threads {
        let parts = (threads * 4).min(batches).min(work.div_ceil(GRAIN));
        cpu.map_parts(parts, &|i| {
            // SAFETY: as above; the matrices of the batch in C do not overlap.
            part(batches, parts, i).for_each(|i| unsafe { raw.product(i, 0..p.m, 0..p.n) })
        });
    } else if p.m * p.n <= 1 << 16 && inner >= 16 * p.m.max(p.n) {
        (0..batches).for_each(|i| raw.split_inner(cpu, i));
    } else {
        // Two parts a thread along the longer side: enough to even out, few enough not to pack the other side too often.
        // Columns unless the result is clearly tall: measured at 1024 x 1024, 10 % faster than rows.
        let split_rows = p.m >= 2 * p.n;
        let long = if split_rows { p.m } else { p.n };
        let parts = (2 * threads).min(long.div_ceil(8)).max(1);
        cpu.map_parts(parts, &|i| {
            let mine = part(long, parts, i);
            let (rows, cols) = if split_rows { (mine, 0..p.n) } else { (0..p.m, mine) };
            // SAFETY: as above; parts write different rows, or different columns, of C.
            (0..batches).for_each(|i| unsafe { raw.product(i, rows.clone(), cols.clone()) })
        });
    }
}

#[derive(Clone, Copy)]
struct Raw<'a, T> {
    p: &'a Gemm<T>,
    a: Shared<T>,
    b: Shared<T>,
    c: Shared<T>,
}

impl<T: Scalar> Raw<'_, T> {
    /// The `i`-th product of the batch, restricted to some rows and columns of C.
    ///
    /// # Safety
    /// The operands lie in their blocks, and nobody else reads or writes these places of C meanwhile.
    unsafe fn product(&self, i: usize, rows: Range<usize>, cols: Range<usize>) {
        let p = self.p;
        let [a, b, c] = moved(&p.batch, i);
        // SAFETY: positions inside the blocks, by the caller's word.
        unsafe {
            let c = at(self.c.get(), p.c, c, rows.start, cols.start);
            self.sum(
                rows.len(),
                cols.len(),
                at(self.a.get(), p.a, a, rows.start, 0),
                at(self.b.get(), p.b, b, 0, cols.start),
                0..count(&p.sum),
                0..p.k,
                p.beta,
                (c, p.c),
            );
        }
    }

    /// `C = alpha sum A B + beta C` over some of the sum's steps and some of the inner dimension.
    ///
    /// # Safety
    /// As [`Raw::product`].
    #[allow(clippy::too_many_arguments)]
    unsafe fn sum(
        &self,
        m: usize,
        n: usize,
        a: *const T,
        b: *const T,
        steps: Range<usize>,
        inner: Range<usize>,
        beta: T,
        c: (*mut T, Matrix),
    ) {
        let p = self.p;
        let first = steps.start;
        if steps.is_empty() {
            // SAFETY: passed on; with an empty inner dimension no entry of A or B is read.
            unsafe { product(m, n, 0, p.alpha, (a, p.a), (b, p.b), beta, c) };
        }
        for j in steps {
            let [a_step, b_step, _] = moved(&p.sum, j);
            let beta = if j == first { beta } else { T::one() };
            // SAFETY: passed on.
            unsafe {
                let a = a.offset(a_step + inner.start as isize * p.a.cols);
                let b = b.offset(b_step + inner.start as isize * p.b.rows);
                product(m, n, inner.len(), p.alpha, (a, p.a), (b, p.b), beta, c);
            }
        }
    }

    /// The `i`-th product of the batch, with what is summed over split among the threads: each has a C of its own, and these are
    /// added up in order.
    fn split_inner(&self, cpu: &Cpu, i: usize) {
        let p = self.p;
        let (m, n, sums) = (p.m, p.n, count(&p.sum));
        let [a, b, c] = moved(&p.batch, i);
        let by_step = sums >= cpu.thread_count();
        let long = if by_step { sums } else { p.k };
        let parts = cpu.thread_count().min(long);
        let own: Vec<Vec<T>> = cpu.map_parts(parts, &|i| {
            let mut own = T::pool().take(m * n);
            let mine = part(long, parts, i);
            let (steps, inner) = if by_step { (mine, 0..p.k) } else { (0..sums, mine) };
            let to = Matrix { offset: 0, rows: n as isize, cols: 1 };
            // SAFETY: the operands were checked to lie in their blocks; `own` is this part's, row-major m x n.
            unsafe {
                let (a, b) = (at(self.a.get(), p.a, a, 0, 0), at(self.b.get(), p.b, b, 0, 0));
                self.sum(m, n, a, b, steps, inner, T::zero(), (own.as_mut_ptr(), to));
            }
            own
        });
        for row in 0..m {
            for col in 0..n {
                let sum = own.iter().fold(T::zero(), |sum, own| sum + own[row * n + col]);
                // SAFETY: inside C, which this thread alone writes now.
                unsafe {
                    let c = at(self.c.get(), p.c, c, row, col);
                    *c = if p.beta == T::zero() { sum } else { sum + p.beta * *c };
                }
            }
        }
        for own in own {
            // SAFETY: from this pool, length unchanged.
            unsafe { T::pool().give(own) };
        }
    }
}

/// The address of entry (`row`, `col`) of a matrix that has moved by `moved`.
///
/// # Safety
/// The entry lies in the block.
unsafe fn at<T>(block: *mut T, matrix: Matrix, moved: isize, row: usize, col: usize) -> *mut T {
    let position = matrix.offset as isize + moved + row as isize * matrix.rows + col as isize * matrix.cols;
    // SAFETY: the caller's word.
    unsafe { block.offset(position) }
}

/// `C = alpha A B + beta C` by one thread.
///
/// # Safety
/// The matrices lie in their blocks, and C is this thread's alone.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn product<T: Scalar>(
    m: usize,
    n: usize,
    k: usize,
    alpha: T,
    (a, a_at): (*const T, Matrix),
    (b, b_at): (*const T, Matrix),
    beta: T,
    (c, c_at): (*mut T, Matrix),
) {
    let add = beta == T::one();
    if alpha == T::one() && (add || beta == T::zero()) {
        let thin = thin::Product { m, n, k, a: (a, a_at), b: (b, b_at), c: (c, c_at), add };
        // SAFETY: passed on.
        if unsafe { thin::product(thin) } {
            return;
        }
    }
    // SAFETY: passed on. The crate computes dst = alpha' dst + beta' lhs rhs.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c,
            c_at.cols,
            c_at.rows,
            beta != T::zero(),
            a,
            a_at.cols,
            a_at.rows,
            b,
            b_at.cols,
            b_at.rows,
            beta,
            alpha,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
