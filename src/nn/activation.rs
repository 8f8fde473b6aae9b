//! [`Activation`]: which function of single numbers stands between linear layers.

use crate::{autodiff::Var, error::Result, scalar::Scalar};
use serde::{Deserialize, Serialize};

/// A function of single numbers between linear layers, under Hugging Face's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// $x \Phi(x)$, by the error function: `gelu`.
    Gelu,
    /// The same by a hyperbolic tangent: `gelu_new`, `gelu_pytorch_tanh`.
    #[serde(alias = "gelu_pytorch_tanh")]
    GeluNew,
    /// $\max(x, 0)$: `relu`.
    Relu,
    /// $x\,\sigma(x)$: `silu`, `swish`.
    #[serde(alias = "swish")]
    Silu,
    /// $\tanh x$: `tanh`.
    Tanh,
}

impl Activation {
    /// Of every entry of x.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn apply<T: Scalar>(self, x: &Var<T>) -> Result<Var<T>> {
        match self {
            Self::Gelu => x.gelu(),
            Self::GeluNew => x.gelu_tanh(),
            Self::Relu => x.relu(),
            Self::Silu => x.silu(),
            Self::Tanh => x.tanh(),
        }
    }
}
