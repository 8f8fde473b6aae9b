//! Softmax and its logarithm along one mode.

use super::{
    Device, Kind as Place, cpu,
    layout::Layout,
    storage::{Flat, Storage},
};
use crate::{error::Result, scalar::Scalar};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Softmax,
    LogSoftmax,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Softmax => "softmax",
            Kind::LogSoftmax => "log_softmax",
        }
    }
}

/// Along the middle of `[before, n, after]`. A mask, broadcast to x's shape, is added first; it is for the
/// last mode only (`after` = 1).
pub(crate) fn forward<T: Scalar>(
    kind: Kind,
    device: &Device,
    x: Flat<'_, T>,
    [n, after]: [usize; 2],
    mask: Option<(&Storage<T>, &Layout)>,
) -> Result<Storage<T>> {
    let name = kind.name();
    let mut out = Storage::uninit(device, x.len)?;
    match &device.0 {
        Place::Cpu(cpu) => {
            let x = x.host(name)?;
            if after == 1 {
                let mask = mask.map(|(mask, layout)| Ok((mask.host(name)?, layout))).transpose()?;
                cpu::softmax::forward(cpu, kind, x, n, mask, out.host_mut(name)?);
            } else {
                cpu::softmax::forward_columns(cpu, kind, x, (n, after), out.host_mut(name)?);
            }
        }
        #[cfg(feature = "cuda")]
        Place::Cuda(gpu) if after == 1 => super::cuda::softmax::forward(gpu, kind, x, n, mask, &mut out)?,
        #[cfg(feature = "cuda")]
        Place::Cuda(gpu) => super::cuda::softmax::forward_columns(gpu, kind, x, [n, after], &mut out)?,
    }
    Ok(out)
}

/// The gradient of x from the result `y` and its gradient, both `[before, n, after]`.
pub(crate) fn backward<T: Scalar>(
    kind: Kind,
    device: &Device,
    y: Flat<'_, T>,
    dy: Flat<'_, T>,
    [n, after]: [usize; 2],
) -> Result<Storage<T>> {
    let name = kind.name();
    let mut dx = Storage::uninit(device, y.len)?;
    match &device.0 {
        Place::Cpu(cpu) => {
            let (y, dy) = (y.host(name)?, dy.host(name)?);
            if after == 1 {
                cpu::softmax::backward(cpu, kind, y, dy, n, dx.host_mut(name)?);
            } else {
                cpu::softmax::backward_columns(cpu, kind, y, dy, (n, after), dx.host_mut(name)?);
            }
        }
        #[cfg(feature = "cuda")]
        Place::Cuda(gpu) if after == 1 => super::cuda::softmax::backward(gpu, kind, (y, dy), n, &mut dx)?,
        #[cfg(feature = "cuda")]
        Place::Cuda(gpu) => super::cuda::softmax::backward_columns(gpu, kind, (y, dy), [n, after], &mut dx)?,
    }
    Ok(dx)
}
