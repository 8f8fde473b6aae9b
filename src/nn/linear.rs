//! [`Linear`].

use super::{
    adapter::Adapters,
    call::{Call, Operation},
    init::Init,
    layer::{check_bias, layer},
    mode::Mode,
    parameter::Parameter,
};
use crate::{
    autodiff::Var,
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Ix1, Ix2};
use rand::Rng;

/// A linear layer, $x W^T + b$, with parameters `weight` `[out, in]` and `bias` `[out]`, as `torch.nn.Linear`.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{Tensor, autodiff::Var, nn::{Linear, Mode}};
///
/// let layer = Linear::<f32>::new(16, 4, &mut ChaCha8Rng::seed_from_u64(1))?;
/// let x = Var::constant(Tensor::ones([2, 7, 16])?);
/// assert_eq!(layer.forward(&x, Mode::Evaluation)?.shape(), [2, 7, 4]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Linear<T: Scalar> {
    weight: Parameter<T>,
    bias: Option<Parameter<T>>,
    adapters: Adapters<T>,
}

layer!(Linear, _this => Operation::Linear);

impl<T: Scalar> Linear<T> {
    /// Weight and bias uniform between $\pm 1 / \sqrt{\text{in}}$, PyTorch's default.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory) where the weight does not fit.
    pub fn new<R: Rng + ?Sized>(inputs: usize, outputs: usize, rng: &mut R) -> Result<Self> {
        let init = Init::around_zero((inputs.max(1) as f64).sqrt().recip());
        let weight = init.tensor(&[outputs, inputs], rng)?.into_order::<Ix2>()?;
        Self::from_tensors(weight, Some(init.tensor(&[outputs], rng)?.into_order()?))
    }

    /// All zeros, to be loaded.
    ///
    /// # Errors
    /// As [`new`](Linear::new).
    pub fn zeros(inputs: usize, outputs: usize) -> Result<Self> {
        Self::from_tensors(Tensor::zeros([outputs, inputs])?, Some(Tensor::zeros([outputs])?))
    }

    /// Of a weight `[out, in]` and a bias `[out]`; both train.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the bias has another length.
    pub fn from_tensors(weight: Tensor<T, Ix2>, bias: Option<Tensor<T, Ix1>>) -> Result<Self> {
        check_bias("Linear", weight.shape()[0], weight.shape(), bias.as_ref().map(Tensor::shape))?;
        Ok(Self { weight: weight.into(), bias: bias.map(Parameter::new), adapters: Adapters::default() })
    }

    /// The same without a bias.
    pub fn without_bias(self) -> Self {
        Self { bias: None, ..self }
    }

    /// The length of an input row.
    pub fn inputs(&self) -> usize {
        self.weight.shape()[1]
    }

    /// The length of an output row.
    pub fn outputs(&self) -> usize {
        self.weight.shape()[0]
    }

    /// x `[.., in]` to `[.., out]`, with the enabled adapters.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where x's rows have another length,
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) where it lives elsewhere, and the errors of adapters.
    pub fn forward(&self, x: &Var<T>, mode: Mode) -> Result<Var<T>> {
        if x.shape().last() != Some(&self.inputs()) {
            let message = format!("an input of shape {:?}; needs [.., {}]", x.shape(), self.inputs());
            return Err(Error::shape("Linear", message));
        }
        let bias = self.bias.as_ref().map(Parameter::var);
        self.adapters.forward(&Call::Linear { x: x.clone() }, self.weight.var(), bias, mode)
    }
}
