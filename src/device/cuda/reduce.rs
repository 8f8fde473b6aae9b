//! Sums over entries on a GPU, in two stages and without atomic additions: a length fixes the order of every sum.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    compile::Source,
    context::Cuda,
    elementwise::{check, pack, start},
    launch::{self, Arg, Nest, int},
};
use crate::{
    device::{
        layout::{Layout, loops},
        reduce::Total,
        storage::Storage,
    },
    error::Result,
    scalar::Scalar,
};

/// The kernel's number of an operation, and its value for no entries.
fn code(total: Total) -> (i64, f64) {
    match total {
        Total::Sum => (0, 0.0),
        Total::Squares => (1, 0.0),
        Total::Abs => (2, 0.0),
        Total::MaxAbs => (3, 0.0),
        Total::Min => (4, f64::INFINITY),
        Total::Max => (5, f64::NEG_INFINITY),
    }
}

pub(crate) fn total<T: Scalar>(gpu: &Cuda, total: Total, x: &Storage<T>, layout: &Layout) -> Result<f64> {
    scaled_total(gpu, total, x.cuda("total")?, layout, 1.0)
}

/// A total of the entries times `scale`, brought to the host.
pub(crate) fn scaled_total<T: Scalar>(
    gpu: &Cuda,
    total: Total,
    x: &CudaBlock<T>,
    layout: &Layout,
    scale: f64,
) -> Result<f64> {
    let (operation, empty) = code(total);
    if layout.len() == 0 {
        return Ok(empty);
    }
    finished(gpu, "total", &partial_totals(gpu, total, x, layout, scale)?, operation)
}

/// What each block makes of its entries times `scale`; there are entries.
fn partial_totals<T: Scalar>(
    gpu: &Cuda,
    total: Total,
    x: &CudaBlock<T>,
    layout: &Layout,
    scale: f64,
) -> Result<CudaBlock<f64>> {
    check("total", x.len(), layout);
    let len = layout.len();
    let Some(nest) = Nest::new(&loops([layout])) else {
        let packed = pack(gpu, x, layout)?;
        return partial_totals(gpu, total, &packed, &Layout::contiguous(&[len]), scale);
    };
    let geometry = launch::total(len);
    let partial = gpu.allocate::<f64>(geometry.blocks as usize)?;
    let (to, operation) = (Arg::Pointer(partial.at(0)), Arg::Int(code(total).0));
    let args = [start(x, layout), to, int(len), Arg::Nest(nest), operation, Arg::Double(scale)];
    let name = format!("total_{}", T::DTYPE);
    // SAFETY: the layout lies in the block; each block of threads writes its own one of `partial`.
    unsafe { gpu.launch("total", (Source::Reduce, &name), geometry, &args)? };
    Ok(partial)
}

/// A total and what it is multiplied with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scaled {
    pub(crate) total: Total,
    pub(crate) factor: f64,
}

/// A total of the entries as a single number that stays on the GPU: nobody waits for it.
pub(crate) fn total_of<T: Scalar, S: Scalar>(
    gpu: &Cuda,
    sum: Scaled,
    x: &CudaBlock<T>,
    layout: &Layout,
    out: &mut CudaBlock<S>,
) -> Result<()> {
    let partial = match layout.len() {
        0 => gpu.allocate(0)?,
        _ => partial_totals(gpu, sum.total, x, layout, 1.0)?,
    };
    finish_scaled(gpu, "total", &partial, sum, out)
}

/// What the blocks left, joined by one of them, as a single number on the GPU.
pub(crate) fn finish_scaled<S: Scalar>(
    gpu: &Cuda,
    operation: &'static str,
    partial: &CudaBlock<f64>,
    Scaled { total, factor }: Scaled,
    out: &mut CudaBlock<S>,
) -> Result<()> {
    assert_eq!(out.len(), 1, "{operation}: a single number");
    let (from, to) = (Arg::Pointer(partial.at(0)), Arg::Pointer(out.at(0)));
    let args = [from, to, int(partial.len()), Arg::Int(code(total).0), Arg::Double(factor)];
    let name = format!("total_scaled_{}", S::DTYPE);
    // SAFETY: the kernel reads as many entries as `partial` has and writes one.
    unsafe { gpu.launch(operation, (Source::Reduce, &name), launch::finish(), &args) }
}

/// Adds up rows of `columns` partial sums; the results hold as many together, one after the other.
pub(crate) fn fold<T: Scalar>(
    gpu: &Cuda,
    operation: &'static str,
    partial: &CudaBlock<T>,
    columns: usize,
    (first, second): (&mut CudaBlock<T>, &mut CudaBlock<T>),
) -> Result<()> {
    assert_eq!(first.len() + second.len(), columns, "{operation}: the results' lengths");
    if columns == 0 {
        return Ok(());
    }
    let pointers = [partial.at(0), first.at(0), second.at(0)].map(Arg::Pointer);
    let sizes = [partial.len() / columns, columns, first.len()].map(int);
    let name = format!("fold_{}", T::DTYPE);
    // SAFETY: `partial` holds whole rows of `columns`, of which the results have one entry each.
    unsafe {
        let args = [pointers.as_slice(), &sizes].concat();
        gpu.launch(operation, (Source::Reduce, &name), launch::columns(columns), &args)
    }
}

/// What the blocks left, joined by one of them and brought to the host.
pub(crate) fn finished(gpu: &Cuda, operation: &'static str, partial: &CudaBlock<f64>, code: i64) -> Result<f64> {
    let out = gpu.allocate::<f64>(1)?;
    let args = [Arg::Pointer(partial.at(0)), Arg::Pointer(out.at(0)), int(partial.len()), Arg::Int(code)];
    // SAFETY: the kernel reads as many entries as `partial` has and writes one.
    unsafe { gpu.launch(operation, (Source::Reduce, "total_finish"), launch::finish(), &args)? };
    out.first()
}

pub(crate) fn dot<T: Scalar>(
    gpu: &Cuda,
    (x, x_at): (&Storage<T>, &Layout),
    (y, y_at): (&Storage<T>, &Layout),
) -> Result<f64> {
    dot_unread(gpu, (x.cuda("inner")?, x_at), (y.cuda("inner")?, y_at))?.first()
}

/// The inner product as a single number that stays on the GPU.
pub(crate) fn dot_unread<T: Scalar>(
    gpu: &Cuda,
    (x, x_at): (&CudaBlock<T>, &Layout),
    (y, y_at): (&CudaBlock<T>, &Layout),
) -> Result<CudaBlock<f64>> {
    check("inner", x.len(), x_at);
    check("inner", y.len(), y_at);
    assert_eq!(x_at.shape(), y_at.shape(), "inner: the operands' shapes");
    let len = x_at.len();
    let mut out = gpu.allocate::<f64>(1)?;
    if len == 0 {
        out.clear()?;
        return Ok(out);
    }
    let Some(nest) = Nest::new(&loops([x_at, y_at])) else {
        let (x, y) = (pack(gpu, x, x_at)?, pack(gpu, y, y_at)?);
        let plain = Layout::contiguous(&[len]);
        return dot_unread(gpu, (&x, &plain), (&y, &plain));
    };
    let geometry = launch::total(len);
    let partial = gpu.allocate::<f64>(geometry.blocks as usize)?;
    let args = [start(x, x_at), start(y, y_at), Arg::Pointer(partial.at(0)), int(len), Arg::Nest(nest)];
    let name = format!("dot_{}", T::DTYPE);
    // SAFETY: the layouts lie in their blocks; each block of threads writes its own one of `partial`.
    unsafe { gpu.launch("inner", (Source::Reduce, &name), geometry, &args)? };
    finish_scaled(gpu, "inner", &partial, Scaled { total: Total::Sum, factor: 1.0 }, &mut out)?;
    Ok(out)
}

pub(crate) fn first_non_finite<T: Scalar>(gpu: &Cuda, x: &Storage<T>, layout: &Layout) -> Result<Option<usize>> {
    first_non_finite_in(gpu, x.cuda("finite")?, layout)
}

pub(crate) fn first_non_finite_in<T: Scalar>(gpu: &Cuda, x: &CudaBlock<T>, layout: &Layout) -> Result<Option<usize>> {
    check("finite", x.len(), layout);
    let len = layout.len();
    if len == 0 {
        return Ok(None);
    }
    let Some(nest) = Nest::new(&loops([layout])) else {
        let packed = pack(gpu, x, layout)?;
        return first_non_finite_in(gpu, &packed, &Layout::contiguous(&[len]));
    };
    let geometry = launch::total(len);
    let blocks = geometry.blocks as usize;
    // Positions are unsigned to the kernels: all ones, read here as -1, for none.
    let (partial, out) = (gpu.allocate::<i64>(blocks)?, gpu.allocate::<i64>(1)?);
    let args = [start(x, layout), Arg::Pointer(partial.at(0)), int(len), Arg::Nest(nest)];
    let name = format!("nonfinite_{}", T::DTYPE);
    let finish = [Arg::Pointer(partial.at(0)), Arg::Pointer(out.at(0)), int(blocks)];
    // SAFETY: the layout lies in the block; each block of threads writes its own one of `partial`, of which the second kernel
    // reads all and writes one.
    unsafe {
        gpu.launch("finite", (Source::Reduce, &name), geometry, &args)?;
        gpu.launch("finite", (Source::Reduce, "nonfinite_finish"), launch::finish(), &finish)?;
    }
    Ok(usize::try_from(out.first()?).ok())
}

/// Sums over all modes from `kept` on, one sum for each index of the modes before.
pub(crate) fn sum_rows<T: Scalar>(
    gpu: &Cuda,
    x: &Storage<T>,
    layout: &Layout,
    kept: usize,
    out: &mut Storage<T>,
) -> Result<()> {
    sum_rows_into(gpu, x.cuda("sum")?, layout, kept, out.cuda_mut("sum")?)
}

/// The same between blocks.
pub(crate) fn sum_rows_into<T: Scalar>(
    gpu: &Cuda,
    x: &CudaBlock<T>,
    layout: &Layout,
    kept: usize,
    out: &mut CudaBlock<T>,
) -> Result<()> {
    check("sum", x.len(), layout);
    let (shape, strides) = (layout.shape(), layout.strides());
    let head = Layout::new(&shape[..kept], &strides[..kept], 0);
    let tail = Layout::new(&shape[kept..], &strides[kept..], 0);
    let (rows, inner) = (head.len(), tail.len());
    assert_eq!(out.len(), rows, "sum: the result's length");
    if rows == 0 {
        return Ok(());
    }
    if inner == 0 {
        return out.clear();
    }
    let (outer_loops, inner_loops) = (loops([&head]), loops([&tail]));
    let (Some(outer), Some(along)) = (Nest::new(&outer_loops), Nest::new(&inner_loops)) else {
        let packed = pack(gpu, x, layout)?;
        return sum_rows_into(gpu, &packed, &Layout::contiguous(&[rows, inner]), 1, out);
    };
    let last = |nest: &[crate::device::layout::Loop<1>]| nest.last().map_or(1, |l| l.strides[0]);
    let plan = launch::rows(rows, inner, last(&outer_loops), last(&inner_loops));
    let partial = gpu.allocate::<f64>(rows * plan.splits)?;
    let (stem, geometry) = match plan.by_block {
        true => ("rows_block", launch::items(rows * plan.splits)),
        false => ("rows_thread", launch::heavy(rows * plan.splits)),
    };
    let (name, finish) = (format!("{stem}_{}", T::DTYPE), format!("rows_finish_{}", T::DTYPE));
    let (sums, splits) = (Arg::Pointer(partial.at(0)), int(plan.splits));
    let args = [start(x, layout), sums, int(rows), int(inner), splits, Arg::Nest(outer), Arg::Nest(along)];
    let finish_args = [sums, Arg::Pointer(out.at(0)), int(rows), splits];
    // SAFETY: the layout lies in the block; `partial` has a place for each split of each row, `out` one for each row.
    unsafe {
        gpu.launch("sum", (Source::Reduce, &name), geometry, &args)?;
        gpu.launch("sum", (Source::Reduce, &finish), launch::heavy(rows), &finish_args)
    }
}
