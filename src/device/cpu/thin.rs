//! Matrix products with one thin side, by one thread: what projecting a tensor on a factor of low rank comes down to.
//!
//! A general matrix kernel copies both operands into packed blocks first. Where one operand has few rows the arithmetic is too little to
//! pay for copying the other: here the large operand is read where it lies, once, in order.
//!
//! - [`Way::Columns`]: few rows in A, and B's rows lie along memory. Registers run along the columns of B; tiles of C wait in
//!   the second-level cache while a few rows of B at a time go by.
//! - [`Way::Inner`]: few columns in B, and A's rows lie along memory. Registers run along the columns of B, which is packed (it is
//!   small); entries of A are broadcast.
//!
//! The transposed problem is `C^T = B^T A^T`, so either operand may be the thin one.
#![allow(unsafe_code)]
// Indices count rows and registers of tiles, which are arrays.
#![allow(clippy::needless_range_loop)]

use super::simd::{Vectors, prefetch};
use crate::{device::gemm::Matrix, scalar::Scalar};
use pulp::Simd;

/// More rows, or columns, than this are not thin: the arithmetic then pays for packing.
const THIN_ROWS: usize = 40;
const THIN_COLUMNS: usize = 64;

/// Rows of B that go by at a time.
const DEPTH: usize = 64;

/// Columns of B, from the ones at work, that are asked for.
const AHEAD: usize = 32;

/// Columns of B, in bytes, that they go by along.
const STRIP: usize = 4096;

/// Rows of B that are packed at a time: with them a tile's operands stay in the first-level cache.
const PACKED: usize = 256;

/// The most registers along the columns of one tile, and the most lanes of a register.
const WIDE: usize = 4;
const LANES: usize = 16;

/// `C = A B + beta C` with A m x k, B k x n; beta is zero or one.
#[derive(Clone, Copy)]
pub(crate) struct Product<T> {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) a: (*const T, Matrix),
    pub(crate) b: (*const T, Matrix),
    pub(crate) c: (*mut T, Matrix),
    pub(crate) add: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Columns,
    Inner,
}

impl<T: Scalar> Product<T> {
    fn transposed(self) -> Self {
        let Self { m, n, k, a, b, c, add } = self;
        Self { m: n, n: m, k, a: (b.0, b.1.t()), b: (a.0, a.1.t()), c: (c.0, c.1.t()), add }
    }

    fn way(&self) -> Option<Way> {
        if self.m <= THIN_ROWS && self.n >= 8 && self.k >= 8 && self.b.1.cols == 1 {
            return Some(Way::Columns);
        }
        (self.n <= THIN_COLUMNS && self.m >= 64 && self.k >= 32 && self.a.1.cols == 1).then_some(Way::Inner)
    }
}

/// Computes the product if it is thin in a way that is done here, and says whether it did.
///
/// # Safety
/// The matrices lie in their blocks, and C is this thread's alone.
pub(crate) unsafe fn product<T: Scalar>(p: Product<T>) -> bool {
    struct Run<T>(Product<T>, Way);
    impl<T: Scalar> pulp::WithSimd for Run<T> {
        type Output = bool;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> bool {
            // With fewer registers the tiles would not fit.
            if S::REGISTER_COUNT < 32 {
                return false;
            }
            // SAFETY: the caller's word.
            unsafe {
                match self.1 {
                    Way::Columns => columns(simd, self.0),
                    Way::Inner => inner(simd, self.0),
                }
            }
            true
        }
    }
    let run = |p: Product<T>| p.way().map(|way| Run(p, way));
    run(p).or_else(|| run(p.transposed())).is_some_and(|run| super::arch().dispatch(run))
}

/// How far ahead of a tile the large operand is asked for.
#[derive(Clone, Copy)]
enum Ahead {
    A(isize),
    B(isize),
}

/// `sum_k a[r, k] b[k, v]` added to `sums`, for R rows and V registers.
///
/// # Safety
/// The rows of A and B are there.
#[inline(always)]
unsafe fn tile<S: Simd, T: Scalar, const R: usize, const V: usize>(
    simd: S,
    k: usize,
    (a, a_at): (*const T, Matrix),
    (b, b_step): (*const T, isize),
    ahead: Ahead,
    mut sums: [[T::Vector<S>; V]; R],
) -> [[T::Vector<S>; V]; R] {
    let lanes = T::lanes::<S>();
    let line = 64 / size_of::<T>() as isize;
    for k in 0..k as isize {
        // SAFETY: the caller's word; registers need no alignment.
        unsafe {
            let b = b.offset(k * b_step);
            match ahead {
                Ahead::A(far) if k % line == 0 => {
                    let a = a.offset(k * a_at.cols).wrapping_offset(far);
                    (0..R as isize).for_each(|r| prefetch(a.wrapping_offset(r * a_at.rows)));
                }
                Ahead::B(far) => (0..V).for_each(|v| prefetch(b.wrapping_add(v * lanes).wrapping_offset(far))),
                _ => {}
            }
            let b: [T::Vector<S>; V] = std::array::from_fn(
                #[inline(always)]
                |v| b.add(v * lanes).cast::<T::Vector<S>>().read_unaligned(),
            );
            for r in 0..R {
                let a = T::splat(simd, *a.offset(r as isize * a_at.rows + k * a_at.cols));
                for v in 0..V {
                    sums[r][v] = <T as Vectors>::mul_add(simd, a, b[v], sums[r][v]);
                }
            }
        }
    }
    sums
}

/// Adds a tile's products to C, whose rows lie along memory; `first`: C is only written.
///
/// # Safety
/// As [`tile`], and C's tile is there and this thread's alone.
#[inline(always)]
unsafe fn into_c<S: Simd, T: Scalar, const R: usize, const V: usize>(
    simd: S,
    k: usize,
    a: (*const T, Matrix),
    b: (*const T, isize),
    (c, c_step): (*mut T, isize),
    first: bool,
) {
    let lanes = T::lanes::<S>();
    let mut sums = [[T::zeros(simd); V]; R];
    // SAFETY: the caller's word.
    unsafe {
        if !first {
            for r in 0..R {
                for v in 0..V {
                    sums[r][v] = c.offset(r as isize * c_step).add(v * lanes).cast::<T::Vector<S>>().read_unaligned();
                }
            }
        }
        let sums = tile(simd, k, a, b, Ahead::B(AHEAD as isize), sums);
        for r in 0..R {
            for v in 0..V {
                c.offset(r as isize * c_step).add(v * lanes).cast::<T::Vector<S>>().write_unaligned(sums[r][v]);
            }
        }
    }
}

/// Rows of C in groups of at most 12, nearly equal.
#[inline(always)]
fn groups(m: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = m.div_ceil(12);
    (0..count).map(move |i| {
        let rows = super::part(m, count, i);
        (rows.start, rows.len())
    })
}

/// All rows of a strip of V registers.
///
/// # Safety
/// As [`into_c`].
#[inline(always)]
unsafe fn strip<S: Simd, T: Scalar, const V: usize>(
    simd: S,
    m: usize,
    k: usize,
    (a, a_at): (*const T, Matrix),
    b: (*const T, isize),
    (c, c_step): (*mut T, isize),
    first: bool,
) {
    for (row, rows) in groups(m) {
        // SAFETY: the caller's word.
        unsafe {
            let (a, c) = (a.offset(row as isize * a_at.rows), c.offset(row as isize * c_step));
            macro_rules! rows {
                ($($r:literal)*) => {
                    match rows {
                        $($r => into_c::<S, T, $r, V>(simd, k, (a, a_at), b, (c, c_step), first),)*
                        _ => unreachable!("groups have at most 12 rows"),
                    }
                };
            }
            rows!(1 2 3 4 5 6 7 8 9 10 11 12)
        }
    }
}

/// # Safety
/// As [`product`], and B's rows lie along memory.
#[inline(always)]
unsafe fn columns<S: Simd, T: Scalar>(simd: S, p: Product<T>) {
    let Product { m, n, k, a: (a, a_at), b: (b, b_at), c: (c, c_at), add } = p;
    let lanes = T::lanes::<S>();
    let width = STRIP / size_of::<T>();
    // Where C's rows do not lie along memory a strip of it is computed aside.
    let mut aside = (c_at.cols != 1).then(|| T::pool().take(m * width));
    for col in (0..n).step_by(width) {
        let cols = width.min(n - col);
        // SAFETY: positions inside the operands, by the caller's word.
        unsafe {
            let target = c.offset(col as isize * c_at.cols);
            let (to, to_step) = match &mut aside {
                Some(aside) => (aside.as_mut_ptr(), width as isize),
                None => (target, c_at.rows),
            };
            for step in (0..k).step_by(DEPTH) {
                let depth = DEPTH.min(k - step);
                let first = step == 0 && (aside.is_some() || !add);
                let a = (a.offset(step as isize * a_at.cols), a_at);
                let b = b.offset(step as isize * b_at.rows + col as isize);
                let mut done = 0;
                while done + 2 * lanes <= cols {
                    strip::<S, T, 2>(simd, m, depth, a, (b.add(done), b_at.rows), (to.add(done), to_step), first);
                    done += 2 * lanes;
                }
                if done + lanes <= cols {
                    strip::<S, T, 1>(simd, m, depth, a, (b.add(done), b_at.rows), (to.add(done), to_step), first);
                    done += lanes;
                }
                let rest = cols - done;
                if rest > 0 {
                    // Too few columns for a register: they go through a padded copy.
                    let mut tail = [[T::zero(); LANES]; DEPTH];
                    let mut sums = [[T::zero(); LANES]; THIN_ROWS];
                    for (row, tail) in tail.iter_mut().enumerate().take(depth) {
                        let b = b.add(done).offset(row as isize * b_at.rows);
                        (0..rest).for_each(|i| tail[i] = *b.add(i));
                    }
                    let b = (tail[0].as_ptr(), LANES as isize);
                    strip::<S, T, 1>(simd, m, depth, a, b, (sums[0].as_mut_ptr(), LANES as isize), true);
                    for (row, sums) in sums.iter().enumerate().take(m) {
                        let to = to.add(done).offset(row as isize * to_step);
                        for (i, &sum) in sums.iter().enumerate().take(rest) {
                            *to.add(i) = if first { sum } else { *to.add(i) + sum };
                        }
                    }
                }
            }
            if let Some(aside) = &aside {
                for i in 0..cols {
                    for row in 0..m {
                        let to = target.offset(i as isize * c_at.cols + row as isize * c_at.rows);
                        let sum = aside[row * width + i];
                        *to = if add { *to + sum } else { sum };
                    }
                }
            }
        }
    }
    if let Some(aside) = aside {
        // SAFETY: the pool's own buffer, as it came.
        unsafe { T::pool().give(aside) };
    }
}

/// # Safety
/// As [`product`], and A's rows lie along memory.
#[inline(always)]
unsafe fn inner<S: Simd, T: Scalar>(simd: S, mut p: Product<T>) {
    let Product { n, b: (_, b_at), .. } = p;
    let lanes = T::lanes::<S>();
    let registers = n.div_ceil(lanes);
    let width = registers * lanes;
    let count = registers.div_ceil(WIDE);
    let mut packed = T::pool().take(PACKED.min(p.k) * width);
    let mut left = p.k;
    while left > 0 {
        p.k = left.min(PACKED);
        left -= p.k;
        for (step, row) in packed.chunks_exact_mut(width).enumerate().take(p.k) {
            for (i, to) in row.iter_mut().enumerate() {
                let at = step as isize * b_at.rows + i as isize * b_at.cols;
                // SAFETY: a position inside B, by the caller's word.
                *to = if i < n { unsafe { *p.b.0.offset(at) } } else { T::zero() };
            }
        }
        let b = (packed.as_ptr(), width as isize);
        for i in 0..count {
            let mine = super::part(registers, count, i);
            let cols = mine.start * lanes..(mine.end * lanes).min(n);
            // SAFETY: the caller's word; the tiles' registers lie in the packed rows.
            unsafe {
                match mine.len() {
                    1 => rows::<S, T, 12, 1>(simd, p, b, cols),
                    2 => rows::<S, T, 8, 2>(simd, p, b, cols),
                    3 => rows::<S, T, 8, 3>(simd, p, b, cols),
                    _ => rows::<S, T, 6, 4>(simd, p, b, cols),
                }
            }
        }
        p.a.0 = p.a.0.wrapping_offset(p.k as isize * p.a.1.cols);
        p.b.0 = p.b.0.wrapping_offset(p.k as isize * b_at.rows);
        p.add = true;
    }
    // SAFETY: the pool's own buffer, as it came.
    unsafe { T::pool().give(packed) };
}

/// All rows of some columns, R at a time.
///
/// # Safety
/// As [`product`]; at least R rows, and V registers at `cols` in every packed row of B.
#[inline(always)]
unsafe fn rows<S: Simd, T: Scalar, const R: usize, const V: usize>(
    simd: S,
    p: Product<T>,
    b: (*const T, isize),
    cols: std::ops::Range<usize>,
) {
    let Product { m, k, a: (a, a_at), c: (c, c_at), add, .. } = p;
    let mut done = 0;
    while done < m {
        // The last tile goes back over rows that are done, and leaves them.
        let row = done.min(m - R);
        let zeros = [[T::zeros(simd); V]; R];
        // SAFETY: positions inside the operands, by the caller's word.
        unsafe {
            let a = (a.offset(row as isize * a_at.rows), a_at);
            let sums = tile(simd, k, a, (b.0.add(cols.start), b.1), Ahead::A(R as isize * a.1.rows), zeros);
            for (r, sums) in sums.iter().enumerate().skip(done - row) {
                let c = c.offset((row + r) as isize * c_at.rows + cols.start as isize * c_at.cols);
                let sums = std::slice::from_raw_parts(sums.as_ptr().cast::<T>(), cols.len());
                if c_at.cols == 1 && !add {
                    c.copy_from_nonoverlapping(sums.as_ptr(), sums.len());
                    continue;
                }
                for (i, &sum) in sums.iter().enumerate() {
                    let to = c.offset(i as isize * c_at.cols);
                    *to = if add { *to + sum } else { sum };
                }
            }
        }
        done = row + R;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries of a row-major or column-major matrix that are small whole numbers: sums of products of them are exact.
    fn filled<T: Scalar>(rows: usize, cols: usize, by_rows: bool, seed: usize) -> (Vec<T>, Matrix) {
        let data = (0..rows * cols).map(|i| T::of(((i * 7 + i / 5 + seed) % 11) as f64 - 5.0)).collect();
        let at = if by_rows {
            Matrix { offset: 0, rows: cols as isize, cols: 1 }
        } else {
            Matrix { offset: 0, rows: 1, cols: rows as isize }
        };
        (data, at)
    }

    fn entry<T: Scalar>((data, at): &(Vec<T>, Matrix), row: usize, col: usize) -> f64 {
        data[row * at.rows as usize + col * at.cols as usize].f64()
    }

    fn compare<T: Scalar>(sizes: [usize; 3], by_rows: [bool; 3], add: bool) -> bool {
        let [m, n, k] = sizes;
        let a = filled::<T>(m, k, by_rows[0], 1);
        let b = filled::<T>(k, n, by_rows[1], 2);
        let before = filled::<T>(m, n, by_rows[2], 3);
        let mut c = before.clone();
        let p = Product { m, n, k, a: (a.0.as_ptr(), a.1), b: (b.0.as_ptr(), b.1), c: (c.0.as_mut_ptr(), c.1), add };
        // SAFETY: the matrices are the vectors made above.
        let done = unsafe { product(p) };
        for row in 0..m {
            for col in 0..n {
                let sum: f64 = (0..k).map(|i| entry(&a, row, i) * entry(&b, i, col)).sum();
                let old = entry(&before, row, col);
                let expected = match (done, add) {
                    (false, _) => old,
                    (true, true) => old + sum,
                    (true, false) => sum,
                };
                assert_eq!(entry(&c, row, col), expected, "{sizes:?} {by_rows:?} {add} at {row}, {col}");
            }
        }
        done
    }

    #[test]
    fn thin_products_are_the_definition() {
        let mut done = 0;
        for sizes in [
            [1, 8, 8],
            [3, 41, 9],
            [8, 64, 64],
            [13, 530, 70],
            [20, 1100, 33],
            [40, 100, 65],
            [64, 8, 40],
            [65, 1, 300],
            [77, 20, 513],
            [70, 64, 32],
            [100, 33, 257],
            [300, 300, 5],
        ] {
            for bits in 0..16 {
                let by_rows = [bits & 1 == 0, bits & 2 == 0, bits & 4 == 0];
                let add = bits & 8 == 0;
                done += usize::from(compare::<f64>(sizes, by_rows, add));
                done += usize::from(compare::<f32>(sizes, by_rows, add));
            }
        }
        // A processor with fewer registers leaves all of them to the general kernel.
        let done_here = pulp::Arch::new().dispatch(Registers) >= 32;
        assert_eq!(done > 100, done_here, "{done} products were thin");
    }

    struct Registers;
    impl pulp::WithSimd for Registers {
        type Output = usize;

        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::REGISTER_COUNT
        }
    }
}
