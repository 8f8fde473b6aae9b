//! [`BottleneckAdapter`]: one bottleneck.

use super::{Placement, width_at};
use crate::{
    autodiff::Var,
    error::{Error, ErrorKind, Result},
    module,
    nn::{Activation, Call, Contribution, Mode, Parameter, WeightAdapter},
    peft::site::Site,
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Ix1, Ix2};

/// What a bottleneck is made of: D `[size, n]` and d `[size]`, U `[n, size]` and u `[n]`.
#[derive(Debug, Clone)]
pub struct Parts<T: Scalar> {
    /// D
    pub down: Tensor<T, Ix2>,
    /// d
    pub down_bias: Option<Tensor<T, Ix1>>,
    /// U
    pub up: Tensor<T, Ix2>,
    /// u
    pub up_bias: Option<Tensor<T, Ix1>>,
}

/// A bottleneck: parameters `down.weight` `[size, n]` and `up.weight` `[n, size]`, with `down.bias` and `up.bias` where it has biases. See
/// [`Bottleneck`](super::Bottleneck).
///
/// It is no update of the norm's weight: [`delta`](WeightAdapter::delta) and [`effective`](WeightAdapter::effective) are errors, and only one may
/// be enabled at a place.
#[derive(Debug, Clone)]
pub struct BottleneckAdapter<T: Scalar> {
    down: Parameter<T>,
    down_bias: Option<Parameter<T>>,
    up: Parameter<T>,
    up_bias: Option<Parameter<T>>,
    activation: Activation,
    placement: Placement,
}

module!(BottleneckAdapter { down => "down.weight", down_bias => "down.bias", up => "up.weight", up_bias => "up.bias" });

impl<T: Scalar> BottleneckAdapter<T> {
    /// With these matrices and biases, which train.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{
    ///     Tensor,
    ///     autodiff::Var,
    ///     nn::{Activation, Layer, Mode, Operation, ResidualNorm, Sublayer},
    ///     peft::{BottleneckAdapter, BottleneckParts, BottleneckPlacement, Site},
    /// };
    ///
    /// let mut norm = ResidualNorm::<f64>::new(2, 0.0, Sublayer::Attention)?;
    /// let site = Site::of_layer("norm", &norm)?;
    /// let parts = BottleneckParts {
    ///     down: array![[1.0, -1.0]].into(),
    ///     down_bias: None,
    ///     up: array![[0.5], [0.0]].into(),
    ///     up_bias: None,
    /// };
    /// let adapter = BottleneckAdapter::new(&site, parts, Activation::Relu, BottleneckPlacement::Result)?;
    /// let h = Var::constant(Tensor::from(array![[3.0, 1.0], [1.0, 3.0]]));
    /// assert_eq!(adapter.of(&h)?.value().to_vec()?, [1.0, 0.0, 0.0, 0.0]);
    /// norm.attach("default", adapter)?;
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the site is no [`ResidualNorm`](crate::nn::ResidualNorm); [`ErrorKind::Shape`] where shapes do not
    /// belong together.
    pub fn new(site: &Site<'_>, parts: Parts<T>, activation: Activation, placement: Placement) -> Result<Self> {
        let width = width_at("BottleneckAdapter::new", site)?;
        let Parts { down, down_bias, up, up_bias } = parts;
        let size = down.shape()[0];
        let bias_fits = |bias: &Option<Tensor<T, Ix1>>, n| bias.as_ref().is_none_or(|bias| bias.shape() == [n]);
        let fits = size > 0 && down.shape() == [size, width] && up.shape() == [width, size];
        if !fits || !bias_fits(&down_bias, size) || !bias_fits(&up_bias, width) {
            let message = format!(
                "matrices of shapes {:?} and {:?}, biases of {:?} and {:?} for layer {:?}; needs [size, {width}] and [{width}, size], [size] \
                 and [{width}]",
                down.shape(),
                up.shape(),
                down_bias.as_ref().map(Tensor::shape),
                up_bias.as_ref().map(Tensor::shape),
                site.name()
            );
            return Err(Error::shape("BottleneckAdapter::new", message));
        }
        Ok(Self {
            down: down.into(),
            down_bias: down_bias.map(Parameter::new),
            up: up.into(),
            up_bias: up_bias.map(Parameter::new),
            activation,
            placement,
        })
    }

    /// How many numbers wide it is.
    pub fn size(&self) -> usize {
        self.down.shape()[0]
    }

    /// What stands between the matrices.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// Where it stands.
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// What it is made of: tensors that share its memory.
    pub fn parts(&self) -> Result<Parts<T>> {
        let bias = |bias: &Option<Parameter<T>>| bias.as_ref().map(|b| b.value().clone().into_order()).transpose();
        Ok(Parts {
            down: self.down.value().clone().into_order()?,
            down_bias: bias(&self.down_bias)?,
            up: self.up.value().clone().into_order()?,
            up_bias: bias(&self.up_bias)?,
        })
    }

    /// $U\thinspace \sigma(D\thinspace h + d) + u$ of every row of h `[.., n]`, of its shape.
    ///
    /// # Errors
    /// Those of [`Var::linear`].
    pub fn of(&self, h: &Var<T>) -> Result<Var<T>> {
        let bias = |bias: &'_ Option<Parameter<T>>| bias.as_ref().map(|bias| bias.var().clone());
        let inner = self.activation.apply(&h.linear(self.down.var(), bias(&self.down_bias).as_ref())?)?;
        inner.linear(self.up.var(), bias(&self.up_bias).as_ref())
    }
}

/// The error where an update of a weight is asked for.
fn no_update() -> Error {
    let message = "a bottleneck is a function of the states and no change of a weight: it cannot be merged or added up, and only one may be \
                   enabled at a place. Disable or detach it, or keep it beside the model";
    Error::new(ErrorKind::Unsupported, "bottleneck", message)
}

impl<T: Scalar> WeightAdapter<T> for BottleneckAdapter<T> {
    fn weight_shape(&self) -> Vec<usize> {
        vec![self.down.shape()[1]]
    }

    fn delta(&self) -> Result<Var<T>> {
        Err(no_update())
    }

    fn effective(&self, _weight: &Var<T>) -> Result<Var<T>> {
        Err(no_update())
    }

    fn apply(&self, _call: &Call<'_, T>, _mode: Mode) -> Result<Option<Contribution<T>>> {
        Err(no_update())
    }

    fn result(&self, call: &Call<'_, T>, weight: &Var<T>, bias: Option<&Var<T>>, _: Mode) -> Result<Option<Var<T>>> {
        let &Call::Residual { ref x, ref h, eps, after } = call else { return Err(no_update()) };
        let seen = match self.placement {
            Placement::Result => self.of(h)?,
            Placement::Normalised => self.of(&call.run(weight, bias)?)?,
        };
        let call = Call::Residual { x: x.clone(), h: h.add(&seen)?, eps, after };
        call.run(weight, bias).map(Some)
    }
}
