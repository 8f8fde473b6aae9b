//! [`Grn`].

use super::parameter::Parameter;
use crate::{autodiff::Var, error::Result, module, scalar::Scalar, tensor::Tensor};

/// Global response normalisation of `[batch, *spatial, c]`, with parameters `weight` and `bias` `[c]`. See [`Var::grn`].
///
/// timm's files have these shapes; those of Hugging Face have `[1, 1, 1, c]`, which
/// [`Load::squeeze`](super::checkpoint::Load::squeeze) accepts.
///
/// ```
/// use tenfold::{Tensor, autodiff::Var, nn::Grn};
///
/// let grn = Grn::<f32>::new(3, 1e-6)?; // zeros: it starts as the identity
/// let x = Var::constant(Tensor::ones([1, 2, 2, 3])?);
/// assert_eq!(grn.forward(&x)?.value(), x.value());
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Grn<T: Scalar> {
    weight: Parameter<T>,
    bias: Parameter<T>,
    eps: f64,
}

module!(Grn { weight, bias });

impl<T: Scalar> Grn<T> {
    /// For `channels` channels: weight and bias zero.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory).
    pub fn new(channels: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: Tensor::zeros([channels])?.into(), bias: Tensor::zeros([channels])?.into(), eps })
    }

    /// x `[batch, *spatial, c]`, of the same shape.
    ///
    /// # Errors
    /// Those of [`Var::grn`].
    pub fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        x.grn(self.weight.var(), self.bias.var(), self.eps)
    }
}
