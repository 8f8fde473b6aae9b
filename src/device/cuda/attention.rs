//! Attention on a GPU: batched matrix products, and kernels for the rows of scores between them.
//!
//! Scores of as many heads as fit [`SCORES`] entries are there at a time (of very long sequences, only some rows of one head), so memory does not
//! grow with the square of the length. Backward computes the probabilities again from the saved logarithms of the rows' sums.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    compile::Source,
    context::Cuda,
    elementwise::{blend, check},
    gemm::product,
    launch::{self, Arg, Nest, int},
    reduce::sum_rows_into,
};
use crate::{
    device::{
        attention::{Operand, Placed, Problem},
        gemm::{Batch, Gemm, Matrix},
        layout::{Layout, Loop},
        storage::Storage,
    },
    error::Result,
    scalar::{DType, Scalar},
};
use std::ops::Range;

/// Entries of the scores that exist at a time (twice as many on the way back), unless one row has more.
const SCORES: usize = 1 << 25;

/// An operand on the GPU, found to lie in its block.
type At<'a, T> = (&'a CudaBlock<T>, &'a Layout);

fn at<'a, T: Scalar>((block, layout): Operand<'a, T>) -> Result<At<'a, T>> {
    block.cuda("attention")?;
    factor((block, layout))
}

/// The same of one that only products read.
fn factor<'a, T: Scalar>((block, layout): Operand<'a, T>) -> Result<At<'a, T>> {
    let block = block.factor("attention")?;
    check("attention", block.len(), layout);
    Ok((block, layout))
}

/// A block of scores: batch entries, heads, and rows of each.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    batch: Range<usize>,
    heads: Range<usize>,
    rows: Range<usize>,
}

impl Part {
    fn pairs(&self) -> usize {
        self.batch.len() * self.heads.len()
    }

    fn count(&self) -> usize {
        self.pairs() * self.rows.len()
    }
}

/// All scores in parts of at most `most` entries: whole batch entries, else heads of one, else rows of one head.
fn parts([batch, heads, n, m]: [usize; 4], most: usize) -> Vec<Part> {
    let cut = |all: usize, each: usize| {
        let step = most.checked_div(each).unwrap_or(all).max(1);
        (0..all).step_by(step).map(|first| first..(first + step).min(all)).collect::<Vec<_>>()
    };
    let mut parts = Vec::new();
    for batch in cut(batch, heads * n * m) {
        // Only a batch entry by itself may be cut further, and of that only one head by itself: else all of them are one part.
        let each = if batch.len() > 1 { 0 } else { n * m };
        for heads in cut(heads, each) {
            let each = if batch.len() * heads.len() > 1 { 0 } else { m };
            let rows = cut(n, each);
            parts.extend(rows.into_iter().map(|rows| Part { batch: batch.clone(), heads: heads.clone(), rows }));
        }
    }
    parts
}

/// What the row kernels need of a problem.
struct Rows<'a, T: Scalar> {
    terms: [Option<At<'a, T>>; 2],
    nest: Nest,
    drop: [Arg; 4],
}

impl<'a, T: Scalar> Rows<'a, T> {
    fn new(p: &'a Problem<'_, T>, sizes: [usize; 4]) -> Result<Self> {
        assert!(p.terms.len() <= 2, "attention: {} terms for the two that the kernels take", p.terms.len());
        let term = |i: usize| p.terms.get(i).map(|&term| at(term)).transpose();
        let terms = [term(0)?, term(1)?];
        let (seed, step, least, factor) = match &p.drop {
            // The threshold of probability 1 does not fit a word; the factor is 0 then.
            Some(drop) => (drop.seed, drop.step, drop.threshold().min(u32::MAX as u64), drop.factor::<T>()),
            None => (0, 0, 0, T::one()),
        };
        let factor = match T::DTYPE {
            DType::F32 => Arg::Float(factor.f64() as f32),
            _ => Arg::Double(factor.f64()),
        };
        let drop = [Arg::Int(seed as i64), Arg::Int(step as i64), Arg::Int(least as i64), factor];
        Ok(Self { nest: nest(sizes, terms.map(|term| term.map(|(_, layout)| layout))), terms, drop })
    }

    fn pointers(&self) -> [Arg; 2] {
        self.terms.map(|term| Arg::Pointer(term.map_or(0, |(block, layout)| block.at(layout.offset()))))
    }

    fn range(part: &Part) -> [Arg; 6] {
        let (heads, rows) = (&part.heads, &part.rows);
        [part.batch.start, heads.start, heads.len(), rows.start, rows.len(), part.count()].map(int)
    }
}

/// Four modes, merged or not, with the strides of two operands.
fn nest(sizes: [usize; 4], layouts: [Option<&Layout>; 2]) -> Nest {
    let stride = |layout: Option<&Layout>, mode: usize| layout.map_or(0, |layout| layout.strides()[mode]);
    let loops =
        [0, 1, 2, 3].map(|mode| Loop { size: sizes[mode], strides: layouts.map(|layout| stride(layout, mode)) });
    match Nest::new(&loops) {
        Some(nest) => nest,
        None => unreachable!("four loops fit"),
    }
}

/// The rows of a part of a tensor `[B, H, rows, width]`: the first head's matrix, and the steps to other batch entries and heads.
fn matrices(layout: &Layout, part: &Part, rows: &Range<usize>) -> (Matrix, [isize; 2]) {
    let s = layout.strides();
    let first = part.batch.start as isize * s[0] + part.heads.start as isize * s[1] + rows.start as isize * s[2];
    (Matrix { offset: layout.offset().wrapping_add_signed(first), rows: s[2], cols: s[3] }, [s[0], s[1]])
}

/// The scores of a part, row-major.
fn scores_at(part: &Part, m: usize) -> (Matrix, [isize; 2]) {
    let head = (part.rows.len() * m) as isize;
    (Matrix { offset: 0, rows: m as isize, cols: 1 }, [head * part.heads.len() as isize, head])
}

type Matrices = (Matrix, [isize; 2]);

/// `C = alpha A B + beta C` for each pair of a part.
fn batched<T: Scalar>(part: &Part, [m, n, k]: [usize; 3], [a, b, c]: [Matrices; 3], (alpha, beta): (T, T)) -> Gemm<T> {
    let step = |i: usize, size: usize| Batch { size, a: a.1[i], b: b.1[i], c: c.1[i] };
    let batch = [step(0, part.batch.len()), step(1, part.heads.len())].into_iter().collect();
    Gemm { m, n, k, a: a.0, b: b.0, c: c.0, batch, sum: Default::default(), alpha, beta }
}

fn transposed((matrix, steps): Matrices) -> Matrices {
    (matrix.t(), steps)
}

/// `factor left right^T` of a part, row by row of the left, into scores.
fn multiply_rows<T: Scalar>(
    gpu: &Cuda,
    part: &Part,
    factor: T,
    left: At<T>,
    right: At<T>,
    scores: &mut CudaBlock<T>,
) -> Result<()> {
    let (m, d) = (right.1.shape()[2], left.1.shape()[3]);
    let operands =
        [matrices(left.1, part, &part.rows), transposed(matrices(right.1, part, &(0..m))), scores_at(part, m)];
    product(gpu, &batched(part, [part.rows.len(), m, d], operands, (factor, T::zero())), left.0, right.0, scores)
}

/// `to = factor scores right` for the rows of a part.
fn weigh<T: Scalar>(
    gpu: &Cuda,
    part: &Part,
    factor: T,
    scores: &CudaBlock<T>,
    right: At<T>,
    (to, to_at): (&mut CudaBlock<T>, &Layout),
) -> Result<()> {
    let [.., m, e] = right.1.shape()[..] else { unreachable!("four modes") };
    let operands = [scores_at(part, m), matrices(right.1, part, &(0..m)), matrices(to_at, part, &part.rows)];
    let p = batched(part, [part.rows.len(), e, m], operands, (factor, T::zero()));
    product(gpu, &p, scores, right.0, to)
}

/// `to += factor scores^T right`, over the rows of a part: what was there counts unless these are the first.
fn weigh_back<T: Scalar>(
    gpu: &Cuda,
    part: &Part,
    factor: T,
    scores: &CudaBlock<T>,
    right: At<T>,
    (to, to_at): (&mut CudaBlock<T>, &Layout),
) -> Result<()> {
    let (m, e) = (to_at.shape()[2], right.1.shape()[3]);
    let beta = if part.rows.start == 0 { T::zero() } else { T::one() };
    let operands =
        [transposed(scores_at(part, m)), matrices(right.1, part, &part.rows), matrices(to_at, part, &(0..m))];
    product(gpu, &batched(part, [m, e, part.rows.len()], operands, (factor, beta)), scores, right.0, to)
}

fn sizes<T: Scalar>(p: &Problem<'_, T>) -> [usize; 4] {
    let q = p.q.1.shape();
    [q[0], q[1], q[2], p.k.1.shape()[2]]
}

/// An infinite logarithm of an empty sum, for every row.
fn nothing_attended<T: Scalar>(gpu: &Cuda, out: &mut Storage<T>, lse: &mut Storage<T>) -> Result<()> {
    out.cuda_mut("attention")?.clear()?;
    let len = lse.cuda("attention")?.len();
    let infinite = Storage::from_cuda(out.device(), gpu.upload(&[T::infinity()])?);
    super::elementwise::copy(gpu, &infinite, &Layout::new(&[len], &[0], 0), lse)
}

pub(crate) fn forward<T: Scalar>(
    gpu: &Cuda,
    p: &Problem<'_, T>,
    (out, out_at): (&mut Storage<T>, &Layout),
    lse: &mut Storage<T>,
) -> Result<()> {
    let sizes = sizes(p);
    let [batch, heads, n, m] = sizes;
    if batch * heads * n == 0 {
        return Ok(());
    }
    if m == 0 {
        return nothing_attended(gpu, out, lse);
    }
    let (q, k, v, rows) = (factor(p.q)?, factor(p.k)?, factor(p.v)?, Rows::new(p, sizes)?);
    let (out, lse) = (out.cuda_mut("attention")?, lse.cuda_mut("attention")?);
    check("attention", out.len(), out_at);
    assert_eq!(lse.len(), batch * heads * n, "attention: the logarithms' length");
    let name = format!("soften_{}", T::DTYPE);
    for part in parts(sizes, SCORES) {
        let mut scores = gpu.allocate::<T>(part.count() * m)?;
        multiply_rows(gpu, &part, p.scale, q, k, &mut scores)?;
        let mut args = vec![Arg::Pointer(scores.at(0)), Arg::Pointer(lse.at(0))];
        args.extend(rows.pointers());
        args.extend(rows.drop);
        args.extend(Rows::<T>::range(&part));
        args.push(Arg::Nest(rows.nest));
        // SAFETY: the scores hold the part's rows, `lse` a place for every row of all; the terms were checked to lie in their blocks.
        unsafe { gpu.launch("attention", (Source::Attention, &name), launch::warps(part.count()), &args)? };
        weigh(gpu, &part, T::one(), &scores, v, (out, out_at))?;
    }
    Ok(())
}

/// What the forward pass left, and the gradient of its result.
pub(crate) struct Saved<'a, T: Scalar> {
    pub(crate) out: Operand<'a, T>,
    pub(crate) lse: &'a Storage<T>,
    pub(crate) dy: Operand<'a, T>,
}

/// Fills the gradients of q, k and v that are there, and that of a bias of the given shape.
pub(crate) fn backward<T: Scalar>(
    gpu: &Cuda,
    p: &Problem<'_, T>,
    saved: &Saved<'_, T>,
    found: &mut [Option<Placed<T>>; 3],
    mut bias: Option<(&mut Storage<T>, &[usize])>,
) -> Result<()> {
    let sizes = sizes(p);
    let [batch, heads, n, m] = sizes;
    if batch * heads * n * m == 0 {
        let blocks = found.iter_mut().flatten().map(|(block, _)| block);
        return blocks
            .chain(bias.into_iter().map(|(block, _)| block))
            .try_for_each(|block| block.cuda_mut("attention")?.clear());
    }
    let (q, k, v, rows) = (factor(p.q)?, factor(p.k)?, factor(p.v)?, Rows::new(p, sizes)?);
    let (out, dy, lse) = (at(saved.out)?, at(saved.dy)?, saved.lse.cuda("attention")?);
    assert_eq!(lse.len(), batch * heads * n, "attention: the logarithms' length");
    let name = format!("soften_back_{}", T::DTYPE);
    let results = nest([batch, heads, n, out.1.shape()[3]], [Some(out.1), Some(dy.1)]);
    let [dq, dk, dv] = found;
    for part in parts(sizes, SCORES) {
        let (mut scores, mut slopes) = (gpu.allocate::<T>(part.count() * m)?, gpu.allocate::<T>(part.count() * m)?);
        multiply_rows(gpu, &part, p.scale, q, k, &mut scores)?;
        multiply_rows(gpu, &part, T::one(), dy, v, &mut slopes)?;
        let mut args = [scores.at(0), slopes.at(0), lse.at(0)].map(Arg::Pointer).to_vec();
        args.extend([out, dy].map(|(block, layout)| Arg::Pointer(block.at(layout.offset()))));
        args.extend(rows.pointers());
        args.extend(rows.drop);
        args.extend(Rows::<T>::range(&part));
        args.extend([Arg::Nest(rows.nest), Arg::Nest(results)]);
        // SAFETY: scores and slopes hold the part's rows; the other operands were checked to lie in their blocks.
        unsafe { gpu.launch("attention", (Source::Attention, &name), launch::warps(part.count()), &args)? };
        if let Some((to, layout)) = dv {
            weigh_back(gpu, &part, T::one(), &scores, dy, (to.cuda_mut("attention")?, layout))?;
        }
        if let Some((to, layout)) = dk {
            weigh_back(gpu, &part, p.scale, &slopes, q, (to.cuda_mut("attention")?, layout))?;
        }
        if let Some((to, layout)) = dq {
            weigh(gpu, &part, p.scale, &slopes, k, (to.cuda_mut("attention")?, layout))?;
        }
        if let Some((to, shape)) = &mut bias {
            add_to_bias(gpu, &part, &slopes, m, to.cuda_mut("attention")?, shape)?;
        }
    }
    Ok(())
}

/// Adds the slopes of a part to the entries of the bias that they belong to.
fn add_to_bias<T: Scalar>(
    gpu: &Cuda,
    part: &Part,
    slopes: &CudaBlock<T>,
    m: usize,
    to: &mut CudaBlock<T>,
    shape: &[usize],
) -> Result<()> {
    let ranges = [&part.batch, &part.heads, &part.rows, &(0..m)];
    let kept: Vec<usize> = (0..4).filter(|&mode| shape[mode] > 1).collect();
    let summed = (0..4).filter(|&mode| shape[mode] <= 1);
    let order: Vec<usize> = kept.iter().copied().chain(summed.clone()).collect();
    let all = Layout::contiguous(&ranges.map(|range| range.len()));
    // The entries of the bias that this part has a share in, and whether it is the first that does.
    let mut target = Layout::contiguous(shape);
    kept.iter().for_each(|&mode| target = target.narrowed(mode, ranges[mode].clone()));
    let first = summed.into_iter().all(|mode| ranges[mode].start == 0);
    let beta = if first { T::zero() } else { T::one() };
    let mut sums = gpu.allocate::<T>(target.len())?;
    sum_rows_into(gpu, slopes, &all.permuted(&order), kept.len(), &mut sums)?;
    blend(gpu, Some(&sums), to, &target, beta)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_all_scores_once_and_in_order() {
        for (sizes, most) in [
            ([3, 4, 5, 6], 1 << 20),
            ([3, 4, 5, 6], 240),
            ([3, 4, 5, 6], 70),
            ([3, 4, 5, 6], 13),
            ([1, 1, 1, 1], 1),
            ([2, 2, 3, 100], 1),
        ] {
            let [batch, heads, n, m] = sizes;
            let mut seen = Vec::new();
            for part in parts(sizes, most) {
                assert!(part.count() * m <= most.max(m), "{part:?}");
                for b in part.batch.clone() {
                    for h in part.heads.clone() {
                        seen.extend(part.rows.clone().map(|row| (b * heads + h) * n + row));
                    }
                }
            }
            assert_eq!(seen, (0..batch * heads * n).collect::<Vec<_>>());
        }
    }
}
