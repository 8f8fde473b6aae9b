//! [`Site`]: a weight that may be adapted, as far as it is known before anything is built.

use crate::{
    error::{Error, ErrorKind, Result},
    nn::{Layer, Operation},
    scalar::Scalar,
};

/// The most parameters of an adapter: more than any memory holds, and so few that their sum over the layers of a model does not overflow.
const MOST: usize = isize::MAX as usize >> 10;

/// A weight that a method may change: the layer's name, what it does with the weight, and the weight's shape.
///
/// Plans, ranks and counts follow from sites alone, so they can be had for a model whose weights were never read.
///
/// ```
/// use tenfold::{autodiff::Conv, nn::Operation, peft::Site};
///
/// let depthwise = Conv::new().padding(3).groups(96);
/// let site = Site::new("stages.0.dwconv", Operation::Conv(&depthwise), &[96, 1, 7, 7])?;
/// assert_eq!(site.modes(), [1, 96, 7, 7]); // [in / groups, out, *kernel]
///
/// let site = Site::new("head", Operation::Linear, &[10, 768])?;
/// assert_eq!(site.modes(), [768, 10]); // [in, out]
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Site<'a> {
    name: String,
    operation: Operation<'a>,
    shape: Vec<usize>,
}

impl<'a> Site<'a> {
    /// The weight of shape `shape` of the layer `name`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where the operation has no weights of this order, or the weight
    /// has no entries.
    pub fn new(name: impl Into<String>, operation: Operation<'a>, shape: &[usize]) -> Result<Self> {
        let name = name.into();
        let (orders, right) = match operation {
            Operation::Linear => (2..=2, "[out, in]"),
            Operation::Embedding { .. } => (2..=2, "[rows, width]"),
            Operation::Conv(_) => (3..=5, "[c_out, c_in / groups, *kernel]"),
            Operation::ConvTranspose(_) => (3..=5, "[c_in, c_out / groups, *kernel]"),
            Operation::Residual(_) => (1..=1, "[n]"),
        };
        if !orders.contains(&shape.len()) || shape.contains(&0) {
            let message = format!("layer {name:?} has a weight of shape {shape:?}; needs {right}, none of them 0");
            return Err(Error::shape("Site::new", message));
        }
        Ok(Self { name, operation, shape: shape.to_vec() })
    }

    /// That of a layer.
    ///
    /// # Errors
    /// As [`new`](Site::new).
    pub fn of_layer<T: Scalar>(name: impl Into<String>, layer: &'a dyn Layer<T>) -> Result<Self> {
        Self::new(name, layer.operation(), layer.weight().shape())
    }

    /// The layer's name, its dotted path in the model.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the layer does with the weight.
    pub fn operation(&self) -> Operation<'a> {
        self.operation
    }

    /// The weight's shape, as files have it.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of entries of the weight.
    pub fn entries(&self) -> usize {
        self.shape.iter().product()
    }

    /// The number of groups of a convolution, 1 for everything else.
    pub fn groups(&self) -> usize {
        match self.operation {
            Operation::Linear | Operation::Embedding { .. } | Operation::Residual(_) => 1,
            Operation::Conv(options) => options.groups,
            Operation::ConvTranspose(options) => options.groups,
        }
    }

    /// Where each mode stands in the weight's shape, in the order input, output, kernel: `[1, 0]` for a linear layer,
    /// `[1, 0, 2, 3]` for a convolution; an embedding `[rows, width]` and a transposed convolution
    /// `[c_in, c_out / groups, *kernel]` have that order already.
    pub fn axes(&self) -> Vec<usize> {
        let mut axes: Vec<usize> = (0..self.shape.len()).collect();
        if matches!(self.operation, Operation::Linear | Operation::Conv(_)) {
            axes.swap(0, 1);
        }
        axes
    }

    /// An error at a norm, whose weight is no map from inputs to outputs.
    pub(super) fn check_maps(&self, method: &'static str) -> Result<()> {
        if self.operation.maps() {
            return Ok(());
        }
        let message = format!(
            "layer {:?} adds and normalises, and its weight {:?} has no inputs and outputs; a bottleneck goes there, an update of weights to \
             linear layers, embeddings and convolutions",
            self.name, self.shape
        );
        Err(Error::new(ErrorKind::Unsupported, method, message))
    }

    /// An error for a scale that makes no number of an update: NaN, or beyond what the element type holds.
    pub(super) fn check_scale<T: Scalar>(&self, operation: &'static str, scale: f64) -> Result<()> {
        if T::of(scale).is_finite() {
            return Ok(());
        }
        let message = format!("a scale of {scale} for layer {:?}; it has to be finite, as {}", self.name, T::DTYPE);
        Err(Error::new(ErrorKind::Value, operation, message))
    }

    /// The number of an adapter's parameters, or an error where no memory would hold them.
    pub(super) fn countable(&self, method: &'static str, parameters: Option<usize>) -> Result<usize> {
        parameters.filter(|&count| count <= MOST).ok_or_else(|| {
            let message = format!("layer {:?}: an adapter of more than {MOST} numbers; take a smaller rank", self.name);
            Error::new(ErrorKind::Rank, method, message)
        })
    }

    /// The size of each mode, in the order input, output, kernel.
    pub fn modes(&self) -> Vec<usize> {
        self.axes().into_iter().map(|axis| self.shape[axis]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        autodiff::{Conv, ConvTranspose},
        nn::Sublayer,
    };

    #[test]
    fn modes_of_every_operation() {
        let (conv, up) = (Conv::new().groups(2), ConvTranspose::new());
        for (operation, shape, modes) in [
            (Operation::Linear, &[5, 3][..], &[3, 5][..]),
            (Operation::Embedding { padding: None }, &[9, 4], &[9, 4]),
            (Operation::Conv(&conv), &[6, 2, 3], &[2, 6, 3]),
            (Operation::Conv(&conv), &[6, 2, 3, 4, 5], &[2, 6, 3, 4, 5]),
            (Operation::ConvTranspose(&up), &[6, 2, 3, 4], &[6, 2, 3, 4]),
            (Operation::Residual(Sublayer::Attention), &[6], &[6]),
        ] {
            assert_eq!(Site::new("x", operation, shape).unwrap().modes(), modes);
        }
        let error = Site::new("x.y", Operation::Conv(&conv), &[6, 2]).unwrap_err();
        assert_eq!(
            error.message(),
            "layer \"x.y\" has a weight of shape [6, 2]; needs [c_out, c_in / groups, *kernel], none of them 0"
        );
        assert!(Site::new("x", Operation::Linear, &[0, 3]).is_err());
    }
}
