//! A strided-batched matrix product as calls of cuBLAS, which knows column-major matrices only.
//!
//! Nothing here touches a GPU. What a call means is written down once more in the tests, as a plain loop, and compared with the definition
//! of the product for layouts of all kinds.

use crate::device::{
    gemm::{Batch, Gemm, Matrix},
    layout::Modes,
};

/// An operand of a call: where it begins, whether it is read transposed, and its strides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operand {
    pub(crate) offset: usize,
    pub(crate) transposed: bool,
    /// The leading dimension.
    pub(crate) ld: i64,
    /// From one matrix of the batch to the next.
    pub(crate) stride: i64,
}

/// One call of `cublasGemmStridedBatchedEx`, repeated over loops on the host.
///
/// With `swapped`, the first operand of the call is B and the second A: a row-major C is the transpose of a column-major one, and
/// `C^T = B^T A^T`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) m: i64,
    pub(crate) n: i64,
    pub(crate) k: i64,
    pub(crate) swapped: bool,
    pub(crate) first: Operand,
    pub(crate) second: Operand,
    pub(crate) c: Operand,
    pub(crate) batch: i64,
    /// Loops over calls with other results.
    pub(crate) outer: Modes<Batch>,
    /// Loops over calls that add to the same results.
    pub(crate) sum: Modes<Batch>,
}

/// An operand that cuBLAS cannot read as it lies, because neither its rows nor its columns have unit stride.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    A,
    B,
    C,
}

/// How a `rows x cols` matrix is read column by column: `(transposed, leading dimension)`. Strides along sides of length 1 do not
/// matter. `None` where it cannot be.
fn column_major(matrix: Matrix, rows: usize, cols: usize) -> Option<(bool, i64)> {
    let ld = |unit: isize, length: usize, other: isize, count: usize| {
        let least = length.max(1) as i64;
        let unit_fits = unit == 1 || length <= 1;
        match count {
            0 | 1 => unit_fits.then_some(least),
            _ => (unit_fits && other as i64 >= least).then_some(other as i64),
        }
    };
    ld(matrix.rows, rows, matrix.cols, cols)
        .map(|ld| (false, ld))
        .or_else(|| ld(matrix.cols, cols, matrix.rows, rows).map(|ld| (true, ld)))
}

/// The sizes of a product with loops folded into its sides where the strides allow it: fewer and larger products.
pub(crate) struct Folded {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) batch: Modes<Batch>,
    pub(crate) sum: Modes<Batch>,
}

pub(crate) fn fold<T>(p: &Gemm<T>) -> Folded {
    let mut f = Folded { m: p.m, n: p.n, k: p.k, batch: Modes::new(), sum: Modes::new() };
    let loops = |loops: &[Batch]| loops.iter().copied().filter(|l| l.size != 1).collect::<Modes<Batch>>();
    // Innermost first: those are the ones that continue a side.
    for l in loops(&p.batch).into_iter().rev() {
        let longer_m = l.b == 0 && l.a == f.m as isize * p.a.rows && l.c == f.m as isize * p.c.rows;
        let longer_n = l.a == 0 && l.b == f.n as isize * p.b.cols && l.c == f.n as isize * p.c.cols;
        if f.batch.is_empty() && longer_m && f.m > 1 {
            f.m *= l.size;
        } else if f.batch.is_empty() && longer_n && f.n > 1 {
            f.n *= l.size;
        } else {
            merge(&mut f.batch, l);
        }
    }
    for l in loops(&p.sum).into_iter().rev() {
        let longer_k = l.a == f.k as isize * p.a.cols && l.b == f.k as isize * p.b.rows;
        if f.sum.is_empty() && longer_k && f.k > 1 {
            f.k *= l.size;
        } else {
            merge(&mut f.sum, l);
        }
    }
    f
}

/// Puts a loop in front of others, as one with the first of them where one stride steps through both.
fn merge(loops: &mut Modes<Batch>, l: Batch) {
    match loops.first_mut() {
        Some(inner)
            if [(l.a, inner.a), (l.b, inner.b), (l.c, inner.c)].iter().all(|&(o, i)| o == i * inner.size as isize) =>
        {
            inner.size *= l.size;
        }
        _ => loops.insert(0, l),
    }
}

impl Call {
    /// The calls for a product whose sides, batch and sum are not empty, from what [`fold`] makes of it.
    pub(crate) fn new<T>(p: &Gemm<T>, folded: Folded) -> Result<Self, Unfit> {
        let Folded { m, n, k, batch: mut outer, sum } = folded;
        let (c_transposed, c_ld) = column_major(p.c, m, n).ok_or(Unfit::C)?;
        let (a_transposed, a_ld) = column_major(p.a, m, k).ok_or(Unfit::A)?;
        let (b_transposed, b_ld) = column_major(p.b, k, n).ok_or(Unfit::B)?;
        // The largest loop with strides that cuBLAS takes becomes the batch of the call.
        let inside = (0..outer.len())
            .filter(|&i| outer[i].a >= 0 && outer[i].b >= 0 && outer[i].c >= 0)
            .max_by_key(|&i| outer[i].size);
        let inside = inside.map(|i| outer.remove(i)).unwrap_or(Batch { size: 1, a: 0, b: 0, c: 0 });
        let a = Operand { offset: p.a.offset, transposed: a_transposed, ld: a_ld, stride: inside.a as i64 };
        let b = Operand { offset: p.b.offset, transposed: b_transposed, ld: b_ld, stride: inside.b as i64 };
        let c = Operand { offset: p.c.offset, transposed: false, ld: c_ld, stride: inside.c as i64 };
        let flipped = |operand: Operand| Operand { transposed: !operand.transposed, ..operand };
        let (m, n, k, batch) = (m as i64, n as i64, k as i64, inside.size as i64);
        Ok(match c_transposed {
            false => Self { m, n, k, swapped: false, first: a, second: b, c, batch, outer, sum },
            true => Self { m: n, n: m, k, swapped: true, first: flipped(b), second: flipped(a), c, batch, outer, sum },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::gemm::{count, moved};
    use proptest::prelude::*;

    fn call_of<T>(p: &Gemm<T>) -> Result<Call, Unfit> {
        Call::new(p, fold(p))
    }

    /// What the documentation of `cublasGemmStridedBatchedEx` says, and the loops around it.
    fn interpret(call: &Call, a: &[f64], b: &[f64], c: &mut [f64], alpha: f64, beta: f64) {
        for o in 0..count(&call.outer) {
            for s in 0..count(&call.sum) {
                let (outer, sum) = (moved(&call.outer, o), moved(&call.sum, s));
                let beta = if s == 0 { beta } else { 1.0 };
                let start = |offset: usize, i: usize| (offset as isize + outer[i] + sum[i]) as i64;
                let ((first, x), (second, y)) = match call.swapped {
                    false => ((start(call.first.offset, 0), a), (start(call.second.offset, 1), b)),
                    true => ((start(call.first.offset, 1), b), (start(call.second.offset, 0), a)),
                };
                let to = start(call.c.offset, 2);
                let least = |operand: &Operand, rows, cols| if operand.transposed { cols } else { rows };
                assert!(call.first.ld >= least(&call.first, call.m, call.k).max(1), "lda of {call:?}");
                assert!(call.second.ld >= least(&call.second, call.k, call.n).max(1), "ldb of {call:?}");
                assert!(call.c.ld >= call.m.max(1), "ldc of {call:?}");
                let entry = |operand: &Operand, row: i64, col: i64| match operand.transposed {
                    false => row + col * operand.ld,
                    true => col + row * operand.ld,
                };
                for i in 0..call.batch {
                    for row in 0..call.m {
                        for col in 0..call.n {
                            let mut product = 0.0;
                            for j in 0..call.k {
                                let x = x[(first + i * call.first.stride + entry(&call.first, row, j)) as usize];
                                let y = y[(second + i * call.second.stride + entry(&call.second, j, col)) as usize];
                                product += x * y;
                            }
                            let c = &mut c[(to + i * call.c.stride + row + col * call.c.ld) as usize];
                            *c = alpha * product + if beta == 0.0 { 0.0 } else { beta * *c };
                        }
                    }
                }
            }
        }
    }

    /// The definition in `device/gemm.rs`.
    fn define(p: &Gemm<f64>, a: &[f64], b: &[f64], c: &mut [f64]) {
        let at = |m: Matrix, moved: isize, row: usize, col: usize| {
            (m.offset as isize + moved + row as isize * m.rows + col as isize * m.cols) as usize
        };
        for i in 0..count(&p.batch) {
            let outer = moved(&p.batch, i);
            for row in 0..p.m {
                for col in 0..p.n {
                    let mut sum = 0.0;
                    for j in 0..count(&p.sum) {
                        let inner = moved(&p.sum, j);
                        for l in 0..p.k {
                            let x = a[at(p.a, outer[0] + inner[0], row, l)];
                            sum += x * b[at(p.b, outer[1] + inner[1], l, col)];
                        }
                    }
                    let c = &mut c[at(p.c, outer[2], row, col)];
                    *c = p.alpha * sum + if p.beta == 0.0 { 0.0 } else { p.beta * *c };
                }
            }
        }
    }

    /// A matrix and its loops laid out in a block: the dimensions in the order of `places` (a permutation), with a gap after some;
    /// loops marked shared do not move.
    fn place(sizes: &[usize], places: &[usize], gap: usize, shared: &[bool]) -> (Vec<isize>, usize) {
        let mut strides = vec![0isize; sizes.len()];
        let mut step = 1;
        for &i in places {
            if shared[i] {
                continue;
            }
            strides[i] = step;
            step = step * sizes[i] as isize + gap as isize;
        }
        (strides, step as usize + sizes.len())
    }

    fn order() -> impl Strategy<Value = Vec<usize>> {
        Just(vec![0usize, 1, 2, 3, 4]).prop_shuffle()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn calls_mean_the_product(
            (m, n, k) in (1usize..4, 1usize..4, 1usize..4),
            (batch, outer, sum) in (1usize..4, 1usize..3, 1usize..4),
            (a_order, b_order, c_order) in (order(), order(), order()),
            gaps in (0usize..3, 0usize..3, 0usize..3),
            (a_shared, b_shared) in (any::<bool>(), any::<bool>()),
            beta in prop_oneof![Just(0.0), Just(1.0), Just(-0.5)],
        ) {
            // Dimensions: rows, cols, batch loop, outer loop, sum loop.
            let (a, a_len) = place(&[m, k, batch, outer, sum], &a_order, gaps.0, &[false, false, a_shared, false, false]);
            let (b, b_len) = place(&[k, n, batch, outer, sum], &b_order, gaps.1, &[false, false, b_shared, false, false]);
            let (c, c_len) = place(&[m, n, batch, outer, 1], &c_order, gaps.2, &[false, false, false, false, true]);
            let matrix = |s: &[isize], offset| Matrix { offset, rows: s[0], cols: s[1] };
            let p = Gemm {
                m, n, k,
                a: matrix(&a, 1), b: matrix(&b, 2), c: matrix(&c, 3),
                batch: [
                    Batch { size: batch, a: a[2], b: b[2], c: c[2] },
                    Batch { size: outer, a: a[3], b: b[3], c: c[3] },
                ].into_iter().collect(),
                sum: [Batch { size: sum, a: a[4], b: b[4], c: 0 }].into_iter().collect(),
                alpha: 1.5, beta,
            };
            let numbers = |len: usize, seed: usize| -> Vec<f64> {
                (0..len).map(|i| ((i * 7919 + seed * 104_729) % 23) as f64 - 11.0).collect()
            };
            let (x, y, z) = (numbers(a_len + 4, 1), numbers(b_len + 4, 2), numbers(c_len + 4, 3));
            if let Ok(call) = call_of(&p) {
                let (mut got, mut wanted) = (z.clone(), z);
                interpret(&call, &x, &y, &mut got, p.alpha, p.beta);
                define(&p, &x, &y, &mut wanted);
                prop_assert_eq!(got, wanted, "{:?}", call);
            }
        }
    }

    fn plain(m: usize, n: usize, k: usize) -> Gemm<f32> {
        let matrix = |rows| Matrix { offset: 0, rows, cols: 1 };
        let (a, b, c) = (matrix(k as isize), matrix(n as isize), matrix(n as isize));
        Gemm { m, n, k, a, b, c, batch: Modes::new(), sum: Modes::new(), alpha: 1.0, beta: 0.0 }
    }

    #[test]
    fn a_row_major_product_is_one_call_with_the_operands_swapped() {
        let call = call_of(&plain(5, 3, 4)).unwrap();
        assert!(call.swapped);
        assert_eq!((call.m, call.n, call.k, call.batch), (3, 5, 4, 1));
        assert_eq!((call.first.ld, call.second.ld, call.c.ld), (3, 4, 3));
        assert!(!call.first.transposed && !call.second.transposed);
    }

    #[test]
    fn a_batch_that_continues_the_rows_becomes_one_product() {
        let mut p = plain(5, 3, 4);
        p.batch.push(Batch { size: 7, a: 20, b: 0, c: 15 });
        let call = call_of(&p).unwrap();
        assert_eq!((call.m, call.n, call.batch, call.outer.len()), (3, 35, 1, 0));
    }

    #[test]
    fn operands_without_a_unit_stride_are_named() {
        let mut p = plain(5, 3, 4);
        p.a = Matrix { offset: 0, rows: 8, cols: 2 };
        assert_eq!(call_of(&p), Err(Unfit::A));
        p = plain(5, 3, 4);
        p.b = Matrix { offset: 20, rows: -3, cols: 1 };
        assert_eq!(call_of(&p), Err(Unfit::B));
        p = plain(5, 3, 4);
        p.c = Matrix { offset: 0, rows: 6, cols: 2 };
        assert_eq!(call_of(&p), Err(Unfit::C));
    }
}
