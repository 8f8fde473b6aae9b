//! [`ResidualNorm`].

use super::{
    adapter::Adapters,
    call::{Call, Operation, Sublayer},
    layer::layer,
    mode::Mode,
    parameter::Parameter,
};
use crate::{
    autodiff::Var,
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};

/// $\mathrm{norm}(x + h)$: where the result h of a sub-layer joins the states x of a transformer whose norms come after the sum, as BERT's do.
///
/// Parameters are those of a [`LayerNorm`](super::LayerNorm), `weight` and `bias` `[n]`, under the same names. It is a layer because
/// bottlenecks ([`peft::Bottleneck`](crate::peft::Bottleneck)) stand here: between a sub-layer and the sum, or behind a first norm.
///
/// ```
/// use tenfold::{Tensor, autodiff::Var, nn::{Mode, ResidualNorm, Sublayer}};
///
/// let norm = ResidualNorm::<f64>::new(2, 0.25, Sublayer::FeedForward)?;
/// let x = Var::constant(Tensor::from(ndarray::array![[1.0, 1.0]]));
/// let h = Var::constant(Tensor::from(ndarray::array![[0.0, 2.0]]));
/// assert_eq!(norm.forward(&x, &h, Mode::Evaluation)?.value().to_vec()?, [-0.8944271909999159, 0.8944271909999159]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ResidualNorm<T: Scalar> {
    weight: Parameter<T>,
    bias: Option<Parameter<T>>,
    adapters: Adapters<T>,
    eps: f64,
    after: Sublayer,
}

layer!(ResidualNorm, this => Operation::Residual(this.after));

impl<T: Scalar> ResidualNorm<T> {
    /// For rows of length `n`, after a sub-layer of this kind: weight one, bias zero; `eps` is added to the variance.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory).
    pub fn new(n: usize, eps: f64, after: Sublayer) -> Result<Self> {
        let (weight, bias) = (Tensor::ones([n])?.into(), Some(Tensor::zeros([n])?.into()));
        Ok(Self { weight, bias, adapters: Adapters::default(), eps, after })
    }

    /// The same without a bias.
    pub fn without_bias(self) -> Self {
        Self { bias: None, ..self }
    }

    /// States x and a sub-layer's result h, both `[.., n]`, added up and normalised row by row.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where they do not have one shape, with rows of n; the errors of adapters.
    pub fn forward(&self, x: &Var<T>, h: &Var<T>, mode: Mode) -> Result<Var<T>> {
        if x.shape() != h.shape() || x.shape().last() != self.weight.shape().first() {
            let message = format!(
                "states of shape {:?} and a result of shape {:?}; needs the same, [.., {}]",
                x.shape(),
                h.shape(),
                self.weight.len()
            );
            return Err(Error::shape("ResidualNorm", message));
        }
        let call = Call::Residual { x: x.clone(), h: h.clone(), eps: self.eps, after: self.after };
        self.adapters.forward(&call, self.weight.var(), self.bias.as_ref().map(Parameter::var), mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{autodiff::testing::normal, nn::LayerNorm};

    #[test]
    fn it_is_a_norm_of_a_sum() {
        let (place, norm) =
            (ResidualNorm::new(5, 1e-5, Sublayer::Attention).unwrap(), LayerNorm::new(5, 1e-5).unwrap());
        let (x, h) = (Var::constant(normal(&[2, 3, 5], 1)), Var::constant(normal(&[2, 3, 5], 2)));
        let ours = place.forward(&x, &h, Mode::Evaluation).unwrap();
        assert_eq!(ours.value(), norm.forward(&x.add(&h).unwrap()).unwrap().value());
        let error = |x: &[usize], h: &[usize]| {
            let [x, h] = [x, h].map(|shape| Var::constant(normal(shape, 1)));
            place.forward(&x, &h, Mode::Evaluation).unwrap_err().message().to_string()
        };
        let message = "states of shape [2, 5] and a result of shape [1, 5]; needs the same, [.., 5]";
        assert_eq!(error(&[2, 5], &[1, 5]), message);
        assert!(error(&[2, 4], &[2, 4]).ends_with("needs the same, [.., 5]"));
        assert!(error(&[], &[]).ends_with("needs the same, [.., 5]"));
    }
}
