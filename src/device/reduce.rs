//! Sums over entries: totals, inner products, and sums over chosen modes.

use super::{
    Device, Kind, cpu,
    layout::Layout,
    storage::{Flat, Storage},
};
use crate::{error::Result, scalar::Scalar};

/// What is summed up (or compared) over all entries. Results are doubles whatever the element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Total {
    Sum,
    /// Sum of squares, plain: it may overflow where an entry is beyond 1e154 (the caller scales).
    Squares,
    /// Sum of absolute values.
    Abs,
    /// Largest absolute value; NaN where an entry is.
    MaxAbs,
    /// Smallest entry; NaN where an entry is.
    Min,
    /// Largest entry; NaN where an entry is.
    Max,
}

/// Sums of squares up to here may have lost some to underflow.
pub(crate) const LEAST_SQUARES: f64 = 1e-280;

/// Whether a plain sum of squares is as exact as a double: none of them has left the range of doubles.
pub(crate) fn in_range(squares: f64) -> bool {
    squares.is_finite() && squares > LEAST_SQUARES
}

/// A total over all entries; 0 for an empty tensor (infinities for Min and Max).
pub(crate) fn total<T: Scalar>(total: Total, x: &Storage<T>, layout: &Layout) -> Result<f64> {
    match &x.device().0 {
        Kind::Cpu(cpu) => Ok(cpu::reduce::total(cpu, total, x.host("total")?, layout)),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::reduce::total(gpu, total, x, layout),
    }
}

/// A total over all entries times `factor`, as a single number where the entries are: on a GPU nobody waits for it.
pub(crate) fn scaled_total<T: Scalar>(
    total: Total,
    factor: f64,
    x: &Storage<T>,
    layout: &Layout,
) -> Result<Storage<T>> {
    match &x.device().0 {
        Kind::Cpu(cpu) => {
            let number = T::of(cpu::reduce::total(cpu, total, x.host("total")?, layout) * factor);
            Ok(Storage::from_vec(x.device().clone(), vec![number]))
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => {
            let mut out = Storage::uninit(x.device(), 1)?;
            let sum = super::cuda::reduce::Scaled { total, factor };
            super::cuda::reduce::total_of(gpu, sum, x.cuda("total")?, layout, out.cuda_mut("total")?)?;
            Ok(out)
        }
    }
}

/// The sum of squares over all entries of several blocks on one device, plain as [`Total::Squares`]: one pass over all of them, and the
/// same sum for any number of threads.
pub(crate) fn squares<T: Scalar>(blocks: &[Flat<'_, T>]) -> Result<f64> {
    let Some(first) = blocks.first() else { return Ok(0.0) };
    match &first.storage.device().0 {
        Kind::Cpu(cpu) => {
            let slices = blocks.iter().map(|block| block.host("norm")).collect::<Result<Vec<_>>>()?;
            Ok(cpu::reduce::squares(cpu, &slices))
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::optimizer::squares(gpu, blocks),
    }
}

/// The inner product of two tensors of one shape, summed in doubles.
pub(crate) fn dot<T: Scalar>((x, x_at): (&Storage<T>, &Layout), (y, y_at): (&Storage<T>, &Layout)) -> Result<f64> {
    match &x.device().0 {
        Kind::Cpu(cpu) => Ok(cpu::reduce::dot(cpu, (x.host("inner")?, x_at), (y.host("inner")?, y_at))),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::reduce::dot(gpu, (x, x_at), (y, y_at)),
    }
}

/// The same as a single number where the tensors are: on a GPU nobody waits for it.
pub(crate) fn dot_unread<T: Scalar>(
    (x, x_at): (&Storage<T>, &Layout),
    (y, y_at): (&Storage<T>, &Layout),
) -> Result<Storage<f64>> {
    match &x.device().0 {
        Kind::Cpu(_) => Ok(Storage::from_vec(x.device().clone(), vec![dot((x, x_at), (y, y_at))?])),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => {
            let sum = super::cuda::reduce::dot_unread(gpu, (x.cuda("inner")?, x_at), (y.cuda("inner")?, y_at))?;
            Ok(Storage::from_cuda(x.device(), sum))
        }
    }
}

/// The position, in row-major order, of the first entry that is NaN or infinite.
pub(crate) fn first_non_finite<T: Scalar>(x: &Storage<T>, layout: &Layout) -> Result<Option<usize>> {
    match &x.device().0 {
        Kind::Cpu(cpu) => Ok(cpu::reduce::first(cpu, x.host("finite")?, layout, |x| !x.is_finite())),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::reduce::first_non_finite(gpu, x, layout),
    }
}

/// Sums over the modes in which `kept` is false, into a row-major block of the kept modes in order.
pub(crate) fn sum_modes<T: Scalar>(
    device: &Device,
    x: &Storage<T>,
    layout: &Layout,
    kept: &[bool],
) -> Result<Storage<T>> {
    let axes = |keep: bool| (0..layout.order()).filter(move |&m| kept[m] == keep);
    let order: Vec<usize> = axes(true).chain(axes(false)).collect();
    let rows: usize = axes(true).map(|m| layout.shape()[m]).product();
    let layout = layout.permuted(&order);
    let mut out = Storage::uninit(device, rows)?;
    match &device.0 {
        Kind::Cpu(cpu) => cpu::reduce::sum_rows(cpu, x.host("sum")?, &layout, axes(true).count(), out.host_mut("sum")?),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::reduce::sum_rows(gpu, x, &layout, axes(true).count(), &mut out)?,
    }
    Ok(out)
}

/// [`sum_modes`] of the entrywise product of two operands, without forming it; the layouts have one shape.
pub(crate) fn dot_modes<T: Scalar>(
    (x, x_at): (&Storage<T>, &Layout),
    (y, y_at): (&Storage<T>, &Layout),
    kept: &[bool],
) -> Result<Storage<T>> {
    let device = x.device();
    match &device.0 {
        Kind::Cpu(cpu) => {
            let axes = |keep: bool| (0..x_at.order()).filter(move |&m| kept[m] == keep);
            let order: Vec<usize> = axes(true).chain(axes(false)).collect();
            let mut out = Storage::uninit(device, axes(true).map(|m| x_at.shape()[m]).product())?;
            let (x, y) = ((x.host("sum")?, &x_at.permuted(&order)), (y.host("sum")?, &y_at.permuted(&order)));
            cpu::reduce::dot_rows(cpu, x, y, axes(true).count(), out.host_mut("sum")?);
            Ok(out)
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(_) => {
            let product = super::elementwise::binary(super::elementwise::Binary::Mul, (x, x_at), (y, y_at))?;
            sum_modes(device, &product, &Layout::contiguous(x_at.shape()), kept)
        }
    }
}
