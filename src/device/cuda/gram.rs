//! Gram matrices on a GPU: batches of products over pieces of the fibres, added up in doubles.
//!
//! Where a tensor lies so that cuBLAS can read pieces of its unfolding in place, in the precision asked for, it does; otherwise pieces are gathered,
//! scaled and converted in a scratch block first. Either way a batch of `n x n` products of at most some thousand fibres each is
//! formed at a time, and a kernel adds these up: enough for a GPU to do at once though `n` be small, and no long sum of singles.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    compile::Source,
    context::Cuda,
    elementwise::{check, pack, start},
    gemm::product,
    launch::{self, Arg, Nest, int},
};
use crate::{
    device::{
        self,
        gemm::{Batch, Gemm, Matrix},
        gram::Precision,
        layout::{Layout, Modes, loops},
        storage::Storage,
    },
    error::Result,
    scalar::Scalar,
};
use std::{any::Any, ops::Range};

/// Fibres in one product: few enough for sums of singles to keep six digits.
const WIDTH: usize = 2048;

/// Entries of the products that are formed at a time.
const PRODUCTS: usize = 1 << 24;

/// Entries that are gathered at a time.
const SCRATCH: usize = 1 << 24;

/// Writes the Gram matrix into `out` (n x n).
pub(crate) fn gram<T: Scalar>(
    gpu: &Cuda,
    x: &Storage<T>,
    layout: &Layout,
    mode: usize,
    precision: Precision,
    scale: f64,
    out: &mut Storage<f64>,
) -> Result<()> {
    // Solvers decide by these: in full precision, whatever products are computed in.
    let gpu = &gpu.clone().with_precision(device::precision::Precision::F32);
    let (x, out) = (x.cuda("gram")?, out.cuda_mut("gram")?);
    check("gram", x.len(), layout);
    let n = layout.shape()[mode];
    assert_eq!(out.len(), n * n, "gram: the result's length");
    out.clear()?;
    if layout.len() == 0 {
        return Ok(());
    }
    match precision {
        Precision::Single => sum_of_products::<T, f32>(gpu, x, layout, mode, scale, out),
        Precision::Double => sum_of_products::<T, f64>(gpu, x, layout, mode, scale, out),
    }
}

/// Pieces of the unfolding that are read in place: `before` groups of `pieces` matrices of `n x width`, and one of `n x tail` behind each
/// group where `tail` is not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct InPlace {
    before: (usize, isize),
    rows: isize,
    cols: isize,
    width: usize,
    pieces: usize,
    tail: usize,
}

/// Several neighbouring modes as one `(size, stride)`, where one stride steps through them all.
fn merged(layout: &Layout, modes: Range<usize>) -> Option<(usize, isize)> {
    let (mut size, mut stride) = (1usize, None);
    for mode in modes.rev() {
        let (n, step) = (layout.shape()[mode], layout.strides()[mode]);
        if n == 1 {
            continue;
        }
        match stride {
            None => stride = Some(step),
            Some(inner) if step == inner * size as isize => {}
            Some(_) => return None,
        }
        size *= n;
    }
    Some((size, stride.unwrap_or(0)))
}

/// How to read the unfolding in place; `None` where it has to be gathered.
fn in_place(layout: &Layout, mode: usize) -> Option<InPlace> {
    let (mut before, mut after) = (merged(layout, 0..mode)?, merged(layout, mode + 1..layout.order())?);
    let (n, rows) = (layout.shape()[mode], layout.strides()[mode]);
    if after.0 == 1 {
        // The last mode: its fibres are counted by the modes before it.
        (before, after) = ((1, 0), before);
    }
    let ((length, cols), long) = (after, n as isize);
    let reads = |unit: isize, other: isize, least: isize| unit == 1 && other >= least;
    let width = length.min(WIDTH);
    let readable = reads(rows, cols, long) || reads(cols, rows, width as isize) || (n == 1 && cols > 0);
    // Short runs make for products too small to be worth one each.
    let worth = before.0 == 1 || length >= 64;
    (readable && worth).then(|| InPlace { before, rows, cols, width, pieces: length / width, tail: length % width })
}

/// Groups and pieces that are worked on at a time, so that `most` products at most are formed.
fn runs(groups: usize, pieces: usize, most: usize) -> Vec<(Range<usize>, Range<usize>)> {
    let most = most.max(1);
    let blocks = |n: usize, step: usize| (0..n).step_by(step).map(move |i| i..(i + step).min(n));
    if pieces <= most {
        return blocks(groups, most / pieces.max(1)).map(|g| (g, 0..pieces)).collect();
    }
    (0..groups).flat_map(|g| blocks(pieces, most).map(move |p| (g..g + 1, p))).collect()
}

fn sum_of_products<T: Scalar, W: Scalar>(
    gpu: &Cuda,
    x: &CudaBlock<T>,
    layout: &Layout,
    mode: usize,
    scale: f64,
    out: &mut CudaBlock<f64>,
) -> Result<()> {
    let n = layout.shape()[mode];
    let most = (PRODUCTS / (n * n)).max(1);
    let same = (x as &dyn Any).downcast_ref::<CudaBlock<W>>();
    if let (Some(x), Some(plan), true) = (same, in_place(layout, mode), scale == 1.0) {
        for (width, pieces, skip) in [(plan.width, plan.pieces, 0), (plan.tail, 1, plan.pieces * plan.width)] {
            if width == 0 {
                continue;
            }
            for (groups, range) in runs(plan.before.0, pieces, most) {
                let from = groups.start as isize * plan.before.1 + (skip + range.start * width) as isize * plan.cols;
                let a = Matrix { offset: layout.offset().wrapping_add_signed(from), rows: plan.rows, cols: plan.cols };
                let batch = [(groups.len(), plan.before.1), (range.len(), width as isize * plan.cols)];
                add_products(gpu, x, (n, width), a, batch, out)?;
            }
        }
        return Ok(());
    }
    gathered::<T, W>(gpu, x, layout, mode, scale, most, out)
}

/// Into how many bands of rows a Gram matrix is cut, so that the blocks above the diagonal need not be computed: as many as leave blocks that
/// are a tile of cuBLAS's large kernels.
fn bands(n: usize) -> usize {
    [8, 4, 2].into_iter().find(|&bands| n.is_multiple_of(bands) && n / bands >= 128).unwrap_or(1)
}

/// Adds `A A^T` for a batch of matrices A of `n x width` to the result. What lies above the diagonal's blocks is left as it was: the kernel
/// that adds up reads one triangle.
fn add_products<W: Scalar>(
    gpu: &Cuda,
    x: &CudaBlock<W>,
    (n, width): (usize, usize),
    a: Matrix,
    [outer, inner]: [(usize, isize); 2],
    out: &mut CudaBlock<f64>,
) -> Result<()> {
    let count = outer.0 * inner.0;
    let mut products = gpu.allocate::<W>(count * n * n)?;
    let bands = bands(n);
    let side = n / bands;
    let rows = |bands: usize| (bands * side) as isize * a.rows;
    // The blocks `below` bands under the diagonal, of which there are fewer the lower they lie.
    for below in 0..bands {
        let step = |(size, stride): (usize, isize), c: usize| Batch { size, a: stride, b: stride, c: c as isize };
        let along = step((bands - below, rows(1)), side * (n + 1));
        let p = Gemm {
            m: side,
            n: side,
            k: width,
            a: Matrix { offset: a.offset.wrapping_add_signed(rows(below)), ..a },
            b: a.t(),
            c: Matrix { offset: below * side * n, rows: n as isize, cols: 1 },
            batch: [step(outer, inner.0 * n * n), step(inner, n * n), along].into_iter().collect(),
            sum: Modes::new(),
            alpha: W::one(),
            beta: W::zero(),
        };
        product(gpu, &p, x, x, &mut products)?;
    }
    let args = [Arg::Pointer(products.at(0)), Arg::Pointer(out.at(0)), int(n), int(count), Arg::Int(1)];
    let name = format!("gather_sum_{}", W::DTYPE);
    // SAFETY: `products` holds `count` matrices of n x n, the result one, which is the caller's alone.
    unsafe { gpu.launch("gram", (Source::Contract, &name), launch::heavy(n * n), &args) }
}

fn gathered<T: Scalar, W: Scalar>(
    gpu: &Cuda,
    x: &CudaBlock<T>,
    layout: &Layout,
    mode: usize,
    scale: f64,
    most: usize,
    out: &mut CudaBlock<f64>,
) -> Result<()> {
    let n = layout.shape()[mode];
    let others = layout.indexed(mode, 0);
    let nest = loops([&others]);
    let Some(fibres) = Nest::new(&nest) else {
        let packed = pack(gpu, x, layout)?;
        return gathered::<T, W>(gpu, &packed, &Layout::contiguous(layout.shape()), mode, scale, most, out);
    };
    let (count, stride) = (others.len(), layout.strides()[mode]);
    let by_fibre = stride == 1 && nest.last().is_some_and(|l| l.strides[0] != 1);
    let width = count.min(WIDTH);
    let pieces = count.div_ceil(width).min((SCRATCH / (n * width)).max(1)).min(most);
    let block = gpu.allocate::<W>(n * width * pieces)?;
    let source = start(x, layout);
    for first in (0..count.div_ceil(width)).step_by(pieces) {
        // The last run may have fewer pieces; what its last piece lacks is filled with zeros.
        let pieces = pieces.min(count.div_ceil(width) - first);
        let all = width * pieces;
        let args = [
            source,
            Arg::Pointer(block.at(0)),
            int(n),
            int(first * width),
            int(all),
            int(count),
            Arg::Int(stride as i64),
            Arg::Int(by_fibre as i64),
            Arg::Nest(fibres),
            Arg::Double(scale),
        ];
        let name = format!("gather_{}_{}", T::DTYPE, W::DTYPE);
        // SAFETY: fibres below `count` lie in the tensor's block; the scratch block holds n x all entries and is ours.
        unsafe { gpu.launch("gram", (Source::Contract, &name), launch::heavy(n * all), &args)? };
        let (a, step) = match by_fibre {
            true => (Matrix { offset: 0, rows: 1, cols: n as isize }, width * n),
            false => (Matrix { offset: 0, rows: all as isize, cols: 1 }, width),
        };
        add_products(gpu, &block, (n, width), a, [(1, 0), (pieces, step as isize)], out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each entry of a tensor is read by the pieces of a plan.
    fn reads(layout: &Layout, mode: usize, plan: InPlace) -> Vec<usize> {
        let mut seen = vec![0; layout.len()];
        for (width, pieces, skip) in [(plan.width, plan.pieces, 0), (plan.tail, 1, plan.pieces * plan.width)] {
            for g in 0..plan.before.0 as isize {
                for fibre in skip..skip + width * pieces {
                    for row in 0..layout.shape()[mode] as isize {
                        let at = g * plan.before.1 + fibre as isize * plan.cols + row * plan.rows;
                        seen[at as usize] += 1;
                    }
                }
            }
        }
        seen
    }

    #[test]
    fn pieces_cover_the_unfolding_once() {
        for (shape, mode, place) in [
            (vec![3, 5000, 1], 0, true),
            (vec![3, 4, 100], 1, true),
            (vec![3, 4, 7], 1, false),
            (vec![50, 60, 5], 2, true),
            (vec![6, 1, 1], 0, false),
            (vec![2, 1, 70], 1, true),
        ] {
            let layout = Layout::contiguous(&shape);
            let plan = in_place(&layout, mode);
            assert_eq!(plan.is_some(), place, "{shape:?} {mode}");
            if let Some(plan) = plan {
                assert!(reads(&layout, mode, plan).iter().all(|&n| n == 1), "{shape:?} {mode}: {plan:?}");
            }
        }
        let permuted = Layout::contiguous(&[4, 5, 6]).permuted(&[1, 0, 2]);
        assert!(in_place(&permuted, 2).is_none(), "modes that do not merge are gathered");
    }

    #[test]
    fn runs_cover_every_piece_once_within_the_limit() {
        for (groups, pieces, most) in [(1, 1, 1), (7, 3, 6), (7, 3, 2), (2, 10, 4), (5, 1, 100)] {
            let mut seen = vec![0; groups * pieces];
            for (g, p) in runs(groups, pieces, most) {
                assert!(g.len() * p.len() <= most);
                g.for_each(|g| p.clone().for_each(|p| seen[g * pieces + p] += 1));
            }
            assert!(seen.iter().all(|&n| n == 1));
        }
    }
}
