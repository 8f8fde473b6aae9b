//! Entries picked by index, and the way back: gradients added up where the entries came from.
//!
//! Sums are taken in the order of the picks, each by one thread: the result does not depend on the number of threads.

use super::{Device, Kind, cpu, storage::Storage};
use crate::device::layout::Layout;
use crate::{
    error::Result,
    scalar::{Index, Scalar},
};

/// The row-major position of the first index that is not below `limit` or that is negative.
pub(crate) fn first_outside<I: Index>(ids: &Storage<I>, layout: &Layout, limit: usize) -> Result<Option<usize>> {
    let outside = |id: I| id.to_usize().is_none_or(|id| id >= limit);
    match &ids.device().0 {
        Kind::Cpu(cpu) => Ok(cpu::reduce::first(cpu, ids.host("gather")?, layout, outside)),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => match ids.remembered() {
            Some(ids) => Ok(cpu::reduce::first(&cpu::Cpu::with_threads(1), ids, layout, outside)),
            None => super::cuda::gather::first_outside(gpu, ids.cuda("gather")?, layout, limit),
        },
    }
}

/// A tensor around one mode: `[before, n, after]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around {
    pub(crate) before: usize,
    pub(crate) n: usize,
    pub(crate) after: usize,
}

impl Around {
    pub(crate) fn new(shape: &[usize], mode: usize) -> Self {
        Self { before: shape[..mode].iter().product(), n: shape[mode], after: shape[mode + 1..].iter().product() }
    }
}

/// A row-major block and where it begins.
pub(crate) type Block<'a, T> = (&'a Storage<T>, usize);

/// A row of `table` for each number.
pub(crate) fn take_rows<T: Scalar, I: Index>(
    device: &Device,
    table: Block<T>,
    width: usize,
    ids: Block<I>,
    count: usize,
) -> Result<Storage<T>> {
    let mut out = Storage::uninit(device, count * width)?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let (table, ids) = (&table.0.host("embedding")?[table.1..], &ids.0.host("embedding")?[ids.1..]);
            cpu::gather::take_rows(cpu, table, width, ids, out.host_mut("embedding")?);
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::gather::take_rows(gpu, table, width, ids, &mut out)?,
    }
    Ok(out)
}

/// A table of `rows` rows, each the sum of those rows of `source` that have its number; zero at `padding`.
pub(crate) fn add_rows<T: Scalar, I: Index>(
    device: &Device,
    source: Block<T>,
    width: usize,
    (ids, count): (Block<I>, usize),
    rows: usize,
    padding: Option<usize>,
) -> Result<Storage<T>> {
    let mut out = Storage::uninit(device, rows * width)?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let source = &source.0.host("embedding")?[source.1..];
            let ids = &ids.0.host("embedding")?[ids.1..][..count];
            cpu::gather::add_rows(cpu, source, width, ids, rows, padding, out.host_mut("embedding")?);
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::gather::add_rows(gpu, source, width, (ids, count), padding, &mut out)?,
    }
    Ok(out)
}

/// `out[b, j, a] = x[b, index[b, j, a], a]`, `count` numbers j.
pub(crate) fn take_along<T: Scalar, I: Index>(
    device: &Device,
    x: Block<T>,
    around: Around,
    index: Block<I>,
    count: usize,
) -> Result<Storage<T>> {
    let mut out = Storage::uninit(device, around.before * count * around.after)?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let (x, index) = (&x.0.host("gather")?[x.1..], &index.0.host("gather")?[index.1..]);
            cpu::gather::take_along(cpu, x, around, index, count, out.host_mut("gather")?);
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::gather::take_along(gpu, x, around, index, count, &mut out)?,
    }
    Ok(out)
}

/// Zeros, with `out[b, index[b, j, a], a] += x[b, j, a]`.
pub(crate) fn add_along<T: Scalar, I: Index>(
    device: &Device,
    x: Block<T>,
    around: Around,
    index: Block<I>,
    count: usize,
) -> Result<Storage<T>> {
    let mut out = Storage::uninit(device, around.before * around.n * around.after)?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let (x, index) = (&x.0.host("gather")?[x.1..], &index.0.host("gather")?[index.1..]);
            cpu::gather::add_along(cpu, x, around, index, count, out.host_mut("gather")?);
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::gather::add_along(gpu, x, around, index, count, &mut out)?,
    }
    Ok(out)
}

/// Where along the mode the largest entry stands: the first of equals, the first NaN where there is one.
pub(crate) fn argmax<T: Scalar>(device: &Device, x: Block<T>, around: Around) -> Result<Storage<u32>> {
    let mut out = Storage::uninit(device, around.before * around.after)?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            cpu::gather::argmax(cpu, &x.0.host("max")?[x.1..], around, out.host_mut("max")?);
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::gather::argmax(gpu, x, around, &mut out)?,
    }
    Ok(out)
}
