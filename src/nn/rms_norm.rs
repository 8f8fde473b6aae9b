//! [`RmsNorm`].

use super::parameter::Parameter;
use crate::{autodiff::Var, error::Result, module, scalar::Scalar, tensor::Tensor};

/// RMS norm over the last mode, with the parameter `weight` `[n]`, as `torch.nn.RMSNorm`. See [`Var::rms_norm`].
///
/// ```
/// use tenfold::{Tensor, autodiff::Var, nn::RmsNorm};
///
/// let norm = RmsNorm::<f64>::new(2, 0.0)?;
/// let x = Var::constant(Tensor::from(ndarray::array![[-4.0, 4.0]]));
/// assert_eq!(norm.forward(&x)?.value().to_vec()?, [-1.0, 1.0]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RmsNorm<T: Scalar> {
    weight: Parameter<T>,
    eps: f64,
}

module!(RmsNorm { weight });

impl<T: Scalar> RmsNorm<T> {
    /// For rows of length `n`: weight one; `eps` is added to the mean square.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory).
    pub fn new(n: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: Tensor::ones([n])?.into(), eps })
    }

    /// x `[.., n]`, normalised row by row.
    ///
    /// # Errors
    /// Those of [`Var::rms_norm`].
    pub fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        x.rms_norm(Some(self.weight.var()), self.eps)
    }
}
