//! Activations: one number in, one number out, and their derivatives.

use super::{Kind, cpu, elementwise, layout::Layout, storage::Storage};
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

/// The function of every entry, in row-major order.
pub(crate) fn forward<T: Scalar>(f: Activation, x: &Storage<T>, layout: &Layout) -> Result<Storage<T>> {
    let name = f.name();
    match &x.device().0 {
        Kind::Cpu(cpu) => {
            let mut out = Storage::uninit(x.device(), layout.len())?;
            match layout.contiguous_range() {
                Some(range) => cpu::activation::forward(cpu, f, &x.host(name)?[range], out.host_mut(name)?),
                // The copy knows how to walk strides, the functions are compiled once.
                None => {
                    let here = elementwise::copy(x, layout)?;
                    cpu::activation::forward(cpu, f, here.host(name)?, out.host_mut(name)?);
                }
            }
            Ok(out)
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(_) => Err(super::cpu_only(name)),
    }
}

/// `dy f'` in row-major order, from the argument or the result (see [`Activation::saves_result`]).
pub(crate) fn backward<T: Scalar>(
    f: Activation,
    (saved, saved_at): (&Storage<T>, &Layout),
    (dy, dy_at): (&Storage<T>, &Layout),
) -> Result<Storage<T>> {
    let name = f.name();
    match &saved.device().0 {
        Kind::Cpu(cpu) => {
            let mut dx = Storage::uninit(saved.device(), saved_at.len())?;
            let (saved, dy) = ((saved.host(name)?, saved_at), (dy.host(name)?, dy_at));
            cpu::activation::backward(cpu, f, saved, dy, dx.host_mut(name)?);
            Ok(dx)
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(_) => Err(super::cpu_only(name)),
    }
}
