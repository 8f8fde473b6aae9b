//! Columns: the contraction of one mode column by column, which is the second half of MTTKRP, and columns of length one.
//!
//! After a tensor has met the Khatri-Rao product of some factors it is an array `Y[i, j, k, r]` whose last mode counts the
//! components. Contracting mode `j` with the factor B of that mode keeps the components apart:
//! `Z[i, k, r] = sum_j Y[i, j, k, r] B[j, r]`. As matrix products that would be one thin product a component with strides of
//! R; as a stream over Y it is one pass at the speed of memory.

use super::{Device, Kind, cpu, gemm::Matrix, layout::Layout, storage::Storage};
use crate::{error::Result, scalar::Scalar};

/// Sizes of the contraction; Y is row-major `[before, n, after, rank]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) before: usize,
    pub(crate) n: usize,
    pub(crate) after: usize,
    pub(crate) rank: usize,
}

/// `Z[i, k, r] = sum_j Y[i, j, k, r] B[j, r]`, row-major.
pub(crate) fn contract<T: Scalar>(
    device: &Device,
    sizes: Columns,
    y: (&Storage<T>, usize),
    b: (&Storage<T>, Matrix),
) -> Result<Storage<T>> {
    let mut out = Storage::uninit(device, sizes.before * sizes.after * sizes.rank)?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let len = sizes.before * sizes.n * sizes.after * sizes.rank;
            let y = &y.0.host("mttkrp")?[y.1..y.1 + len];
            cpu::columns::contract(cpu, sizes, y, (b.0.host("mttkrp")?, b.1), out.host_mut("mttkrp")?);
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::columns::contract(gpu, sizes, y, b, &mut out)?,
    }
    Ok(out)
}

/// The columns of a matrix divided by their norms, row-major, and the norms. Zero columns stay as they are; nothing leaves the range of
/// numbers unless a norm does.
pub(crate) fn unit<T: Scalar>(x: &Storage<T>, layout: &Layout) -> Result<(Storage<T>, Storage<T>)> {
    let device = x.device();
    let (mut out, mut norms) = (Storage::uninit(device, layout.len())?, Storage::uninit(device, layout.shape()[1])?);
    match &device.0 {
        Kind::Cpu(_) => {
            cpu::columns::unit(
                x.host("unit columns")?,
                layout,
                out.host_mut("unit columns")?,
                norms.host_mut("unit columns")?,
            );
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::columns::unit(gpu, x, layout, &mut out, &mut norms)?,
    }
    Ok((out, norms))
}
