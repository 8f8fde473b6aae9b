//! A block put into a larger one, and several joined: concatenation, padding, and the gradients of slices.

use super::{Device, Kind, cpu, storage::Storage};
use crate::{error::Result, scalar::Element};

/// Where the entries of a mode go: entry `i` to `first + i step`. The step is not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stride {
    pub(crate) first: isize,
    pub(crate) step: isize,
}

/// Zeros in `shape`, with the row-major block of `small` that starts at `offset` put at the places `at`.
pub(crate) fn place<T: Element>(
    source: &Storage<T>,
    offset: usize,
    small: &[usize],
    shape: &[usize],
    at: &[Stride],
    len: usize,
) -> Result<Storage<T>> {
    let device = source.device();
    match &device.0 {
        Kind::Cpu(cpu) => {
            let mut out = Storage::uninit(device, len)?;
            cpu::place::place(cpu, &source.host("place")?[offset..], small, shape, at, out.host_mut("place")?);
            Ok(out)
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => {
            let mut out = Storage::uninit(device, len)?;
            super::cuda::place::place(gpu, (source, offset), small, shape, at, &mut out)?;
            Ok(out)
        }
    }
}

/// Rows laid side by side: row `i` of the result is row `i` of each part, one after another. A part is a block, where its first row
/// begins, and the length of its rows.
pub(crate) fn join<T: Element>(
    device: &Device,
    parts: &[(&Storage<T>, usize, usize)],
    len: usize,
) -> Result<Storage<T>> {
    match &device.0 {
        Kind::Cpu(cpu) => {
            let mut out = Storage::uninit(device, len)?;
            let slices = parts
                .iter()
                .map(|&(block, offset, width)| Ok((&block.host("concat")?[offset..], width)))
                .collect::<Result<Vec<_>>>()?;
            cpu::place::join(cpu, &slices, out.host_mut("concat")?);
            Ok(out)
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => {
            let mut out = Storage::uninit(device, len)?;
            super::cuda::place::join(gpu, parts, &mut out)?;
            Ok(out)
        }
    }
}
