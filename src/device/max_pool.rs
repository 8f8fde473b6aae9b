//! Maxima over windows of channels-last images.

use super::{
    Kind,
    conv::{Geometry, Operand},
    cpu,
    storage::Storage,
};
use crate::{device::Device, error::Result, scalar::Scalar};

/// The largest entry of each window, channel by channel; NaN where there is one. Every window has an entry.
pub(crate) fn forward<T: Scalar>(device: &Device, g: &Geometry, x: Operand<T>) -> Result<Storage<T>> {
    let mut out = Storage::uninit(device, g.output_len())?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let x = &x.0.host("max_pool")?[x.1..x.1 + g.input_len()];
            cpu::max_pool::forward(cpu, g, x, out.host_mut("max_pool")?);
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::max_pool::forward(gpu, g, x, &mut out)?,
    }
    Ok(out)
}

/// The gradient by the input: each window's goes to the first of its largest entries.
pub(crate) fn backward<T: Scalar>(device: &Device, g: &Geometry, x: Operand<T>, dy: Operand<T>) -> Result<Storage<T>> {
    let mut out = Storage::uninit(device, g.input_len())?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let x = &x.0.host("max_pool")?[x.1..x.1 + g.input_len()];
            let dy = &dy.0.host("max_pool")?[dy.1..dy.1 + g.output_len()];
            cpu::max_pool::backward(cpu, g, x, dy, out.host_mut("max_pool")?);
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::max_pool::backward(gpu, g, x, dy, &mut out)?,
    }
    Ok(out)
}
