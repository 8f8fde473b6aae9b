//! Activations: one number in, one number out, and their derivatives.

use super::{
    Kind, cpu,
    storage::{Flat, Storage},
};
use crate::{error::Result, scalar::Scalar};

/// A function of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// x (1 + erf(x / sqrt 2)) / 2
    Gelu,
    /// x / (1 + e^(-2 u)) with u = sqrt(2 / pi) (x + 0.044715 x^3)
    GeluTanh,
    /// max(x, 0)
    Relu,
    /// min(max(x, 0), 6)
    Relu6,
    /// x / (1 + e^-x)
    Silu,
    Tanh,
    /// 1 / (1 + e^-x)
    Sigmoid,
    Exp,
    Log,
}

impl Activation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu_tanh",
            Activation::Relu => "relu",
            Activation::Relu6 => "relu6",
            Activation::Silu => "silu",
            Activation::Tanh => "tanh",
            Activation::Sigmoid => "sigmoid",
            Activation::Exp => "exp",
            Activation::Log => "log",
        }
    }

    /// Whether the derivative is computed from the result; from the argument otherwise.
    pub(crate) fn saves_result(self) -> bool {
        matches!(self, Activation::Tanh | Activation::Sigmoid | Activation::Exp)
    }
}

/// The function of every entry.
pub(crate) fn forward<T: Scalar>(f: Activation, x: Flat<'_, T>) -> Result<Storage<T>> {
    let (name, device) = (f.name(), x.storage.device());
    let mut y = Storage::uninit(device, x.len)?;
    match &device.0 {
        Kind::Cpu(cpu) => cpu::activation::forward(cpu, f, x.host(name)?, y.host_mut(name)?),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::activation::forward(gpu, f, x, &mut y)?,
    }
    Ok(y)
}

/// `dy f'`, from the argument or the result (see [`Activation::saves_result`]).
pub(crate) fn backward<T: Scalar>(f: Activation, saved: Flat<'_, T>, dy: Flat<'_, T>) -> Result<Storage<T>> {
    let (name, device) = (f.name(), saved.storage.device());
    let mut dx = Storage::uninit(device, saved.len)?;
    match &device.0 {
        Kind::Cpu(cpu) => cpu::activation::backward(cpu, f, saved.host(name)?, dy.host(name)?, dx.host_mut(name)?),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::activation::backward(gpu, f, saved, dy, &mut dx)?,
    }
    Ok(dx)
}
