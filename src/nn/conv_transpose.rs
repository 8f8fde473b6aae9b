//! [`ConvTranspose`].

use super::{
    adapter::Adapters,
    call::{Call, Operation},
    conv::{default_start, weight_shape},
    layer::{check_bias, layer},
    mode::Mode,
    parameter::Parameter,
};
#[cfg(doc)]
use crate::ErrorKind;
use crate::{
    autodiff::{ConvTranspose as Options, Var},
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Ix1, IxDyn};
use rand::Rng;

/// A transposed convolution of one, two or three spatial modes, with parameters `weight` `[c_in, c_out / groups, *kernel]` and `bias`
/// `[c_out]`, as `torch.nn.ConvTranspose2d` and its kin. Images are channels-last: `[batch, *spatial, c]`.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{Tensor, autodiff::{self, Var}, nn::{ConvTranspose, Mode}};
///
/// let rng = &mut ChaCha8Rng::seed_from_u64(1);
/// let up = ConvTranspose::<f32>::new([8, 4], &[2, 2], autodiff::ConvTranspose::new().stride(2), rng)?;
/// let x = Var::constant(Tensor::ones([1, 7, 7, 8])?);
/// assert_eq!(up.forward(&x, Mode::Evaluation)?.shape(), [1, 14, 14, 4]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConvTranspose<T: Scalar> {
    weight: Parameter<T>,
    bias: Option<Parameter<T>>,
    options: Options,
    adapters: Adapters<T>,
}

layer!(ConvTranspose, this => Operation::ConvTranspose(&this.options));

impl<T: Scalar> ConvTranspose<T> {
    /// From `channels[0]` to `channels[1]` channels; weight and bias uniform between $\pm 1 / \sqrt{\text{fan in}}$, PyTorch's default
    /// (the fan in is that of the weight's second mode, as there).
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where the groups do not divide the channels, [`ErrorKind::Shape`] where the kernel has no or more than three
    /// modes.
    pub fn new<R: Rng + ?Sized>(channels: [usize; 2], kernel: &[usize], options: Options, rng: &mut R) -> Result<Self> {
        let shape = weight_shape("ConvTranspose", channels, 1, kernel, options.groups)?;
        let (weight, bias) = default_start(&shape, channels[1], rng)?;
        Self::from_tensors(weight, Some(bias), options)
    }

    /// All zeros, to be loaded.
    ///
    /// # Errors
    /// As [`new`](ConvTranspose::new).
    pub fn zeros(channels: [usize; 2], kernel: &[usize], options: Options) -> Result<Self> {
        let shape = weight_shape("ConvTranspose", channels, 1, kernel, options.groups)?;
        Self::from_tensors(Tensor::zeros(shape)?.into_dyn(), Some(Tensor::zeros([channels[1]])?), options)
    }

    /// Of a weight `[c_in, c_out / groups, *kernel]` and a bias `[c_out]`; both train.
    ///
    /// # Errors
    /// As [`new`](ConvTranspose::new), and [`ErrorKind::Shape`] where the bias has another length.
    pub fn from_tensors(weight: Tensor<T, IxDyn>, bias: Option<Tensor<T, Ix1>>, options: Options) -> Result<Self> {
        let &[inputs, outputs, ref kernel @ ..] = weight.shape() else {
            let message = format!("a weight of shape {:?}; needs [c_in, c_out / groups, *kernel]", weight.shape());
            return Err(Error::shape("ConvTranspose", message));
        };
        let outputs = outputs * options.groups;
        weight_shape("ConvTranspose", [inputs, outputs], 1, kernel, options.groups)?;
        check_bias("ConvTranspose", outputs, weight.shape(), bias.as_ref().map(Tensor::shape))?;
        Ok(Self { weight: weight.into(), bias: bias.map(Parameter::new), options, adapters: Adapters::default() })
    }

    /// The same without a bias.
    pub fn without_bias(self) -> Self {
        Self { bias: None, ..self }
    }

    /// Stride, padding, dilation and groups.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// x `[batch, *spatial, c_in]` to `[batch, *output, c_out]`, with the enabled adapters.
    ///
    /// # Errors
    /// Those of [`Var::conv_transpose`] and of adapters.
    pub fn forward(&self, x: &Var<T>, mode: Mode) -> Result<Var<T>> {
        let call = Call::ConvTranspose { x: x.clone(), options: &self.options };
        self.adapters.forward(&call, self.weight.var(), self.bias.as_ref().map(Parameter::var), mode)
    }
}
