//! [`Conv`].

use super::{
    adapter::Adapters,
    call::{Call, Operation},
    init::{Init, fans},
    layer::{check_bias, layer},
    mode::Mode,
    parameter::Parameter,
};
use crate::{
    autodiff::{Conv as Options, Var},
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Ix1, IxDyn};
use rand::Rng;

/// A convolution of one, two or three spatial modes, with parameters `weight` `[c_out, c_in / groups, *kernel]` and `bias` `[c_out]`,
/// as `torch.nn.Conv1d`, `Conv2d` and `Conv3d`. Images are channels-last: `[batch, *spatial, c]`.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{Tensor, autodiff::{self, Var}, nn::{Conv, Mode}};
///
/// let rng = &mut ChaCha8Rng::seed_from_u64(1);
/// let depthwise = Conv::<f32>::new([96, 96], &[7, 7], autodiff::Conv::new().padding(3).groups(96), rng)?;
/// let x = Var::constant(Tensor::ones([1, 14, 14, 96])?);
/// assert_eq!(depthwise.forward(&x, Mode::Evaluation)?.shape(), [1, 14, 14, 96]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Conv<T: Scalar> {
    weight: Parameter<T>,
    bias: Option<Parameter<T>>,
    options: Options,
    adapters: Adapters<T>,
}

layer!(Conv, this => Operation::Conv(&this.options));

/// The shape of the weight, which `grouped` of the two channel counts is divided for; or an error where that is not possible.
pub(super) fn weight_shape(
    operation: &'static str,
    channels: [usize; 2],
    grouped: usize,
    kernel: &[usize],
    groups: usize,
) -> Result<Vec<usize>> {
    if groups == 0 || channels.iter().any(|c| c % groups != 0) {
        let message =
            format!("{groups} groups do not divide {} input and {} output channels", channels[0], channels[1]);
        return Err(Error::new(ErrorKind::Value, operation, message));
    }
    if !(1..=3).contains(&kernel.len()) {
        let message = format!("a kernel of shape {kernel:?}; it has one, two or three spatial modes");
        return Err(Error::shape(operation, message));
    }
    Ok([&[channels[1 - grouped], channels[grouped] / groups], kernel].concat())
}

/// Weight and bias as PyTorch starts them: uniform between plus and minus one over the root of the fan in.
pub(super) fn default_start<T: Scalar, R: Rng + ?Sized>(
    shape: &[usize],
    outputs: usize,
    rng: &mut R,
) -> Result<(Tensor<T, IxDyn>, Tensor<T, Ix1>)> {
    let init = Init::around_zero((fans(shape)?.0.max(1) as f64).sqrt().recip());
    Ok((init.tensor(shape, rng)?, init.tensor(&[outputs], rng)?.into_order()?))
}

impl<T: Scalar> Conv<T> {
    /// From `channels[0]` to `channels[1]` channels; weight and bias uniform between $\pm 1 / \sqrt{\text{fan in}}$, PyTorch's default.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where the groups do not divide the channels, [`ErrorKind::Shape`] where the kernel has no or more than three
    /// modes.
    pub fn new<R: Rng + ?Sized>(channels: [usize; 2], kernel: &[usize], options: Options, rng: &mut R) -> Result<Self> {
        let shape = weight_shape("Conv", channels, 0, kernel, options.groups)?;
        let (weight, bias) = default_start(&shape, channels[1], rng)?;
        Self::from_tensors(weight, Some(bias), options)
    }

    /// All zeros, to be loaded.
    ///
    /// # Errors
    /// As [`new`](Conv::new).
    pub fn zeros(channels: [usize; 2], kernel: &[usize], options: Options) -> Result<Self> {
        let shape = weight_shape("Conv", channels, 0, kernel, options.groups)?;
        Self::from_tensors(Tensor::zeros(shape)?.into_dyn(), Some(Tensor::zeros([channels[1]])?), options)
    }

    /// Of a weight `[c_out, c_in / groups, *kernel]` and a bias `[c_out]`; both train.
    ///
    /// # Errors
    /// As [`new`](Conv::new), and [`ErrorKind::Shape`] where the bias has another length.
    pub fn from_tensors(weight: Tensor<T, IxDyn>, bias: Option<Tensor<T, Ix1>>, options: Options) -> Result<Self> {
        let &[outputs, inputs, ref kernel @ ..] = weight.shape() else {
            let message = format!("a weight of shape {:?}; needs [c_out, c_in / groups, *kernel]", weight.shape());
            return Err(Error::shape("Conv", message));
        };
        weight_shape("Conv", [inputs * options.groups, outputs], 0, kernel, options.groups)?;
        check_bias("Conv", outputs, weight.shape(), bias.as_ref().map(Tensor::shape))?;
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
    /// Those of [`Var::conv`] and of adapters.
    pub fn forward(&self, x: &Var<T>, mode: Mode) -> Result<Var<T>> {
        let call = Call::Conv { x: x.clone(), options: &self.options };
        self.adapters.forward(&call, self.weight.var(), self.bias.as_ref().map(Parameter::var), mode)
    }
}
