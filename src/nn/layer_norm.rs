//! [`LayerNorm`].

use super::parameter::Parameter;
use crate::{autodiff::Var, error::Result, module, scalar::Scalar, tensor::Tensor};

/// Layer norm over the last mode, with parameters `weight` and `bias` `[n]`, as `torch.nn.LayerNorm`. See [`Var::layer_norm`].
///
/// ```
/// use tenfold::{Tensor, autodiff::Var, nn::LayerNorm};
///
/// let norm = LayerNorm::<f64>::new(2, 0.25)?;
/// let x = Var::constant(Tensor::from(ndarray::array![[1.0, 3.0]]));
/// assert_eq!(norm.forward(&x)?.value().to_vec()?, [-0.8944271909999159, 0.8944271909999159]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LayerNorm<T: Scalar> {
    weight: Parameter<T>,
    bias: Option<Parameter<T>>,
    eps: f64,
}

module!(LayerNorm { weight, bias });

impl<T: Scalar> LayerNorm<T> {
    /// For rows of length `n`: weight one, bias zero; `eps` is added to the variance.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory).
    pub fn new(n: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: Tensor::ones([n])?.into(), bias: Some(Tensor::zeros([n])?.into()), eps })
    }

    /// The same without a bias.
    pub fn without_bias(self) -> Self {
        Self { bias: None, ..self }
    }

    /// x `[.., n]`, normalised row by row.
    ///
    /// # Errors
    /// Those of [`Var::layer_norm`].
    pub fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        x.layer_norm(Some(self.weight.var()), self.bias.as_ref().map(Parameter::var), self.eps)
    }
}
