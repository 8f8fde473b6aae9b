//! [`Embedding`].

use super::{
    adapter::Adapters,
    call::{Call, Ids, Operation},
    init::Init,
    layer::layer,
    mode::Mode,
    parameter::Parameter,
};
use crate::{
    autodiff::Var,
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::Ix2;
use rand::Rng;

/// A table whose rows are picked by number, with the parameter `weight` `[rows, width]`, as `torch.nn.Embedding`.
///
/// ```
/// use ndarray::array;
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{Tensor, nn::{Embedding, Mode}};
///
/// let words = Embedding::<f32>::new(100, 8, &mut ChaCha8Rng::seed_from_u64(1))?.padding(0)?;
/// let y = words.forward(&Tensor::from(array![[5u32, 7, 0]]), Mode::Evaluation)?;
/// assert_eq!(y.shape(), [1, 3, 8]);
/// assert_eq!(y.value().to_vec()?[16..], [0.0; 8]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Embedding<T: Scalar> {
    weight: Parameter<T>,
    /// None, ever: a table has no bias.
    bias: Option<Parameter<T>>,
    padding: Option<usize>,
    adapters: Adapters<T>,
}

layer!(Embedding, this => Operation::Embedding { padding: this.padding });

impl<T: Scalar> Embedding<T> {
    /// Standard normal rows, PyTorch's default.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`] where the table does not fit.
    pub fn new<R: Rng + ?Sized>(rows: usize, width: usize, rng: &mut R) -> Result<Self> {
        let init = Init::Normal { mean: 0.0, std: 1.0 };
        Ok(Self::from_tensor(init.tensor(&[rows, width], rng)?.into_order()?))
    }

    /// All zeros, to be loaded.
    ///
    /// # Errors
    /// As [`new`](Embedding::new).
    pub fn zeros(rows: usize, width: usize) -> Result<Self> {
        Ok(Self::from_tensor(Tensor::zeros([rows, width])?))
    }

    /// Of a table `[rows, width]`, which trains.
    pub fn from_tensor(weight: Tensor<T, Ix2>) -> Self {
        Self { weight: weight.into(), bias: None, padding: None, adapters: Adapters::default() }
    }

    /// Makes a row the padding: it is set to zero now and receives no gradient. A file that is loaded may have something else there,
    /// which then stays.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where there is no such row.
    pub fn padding(mut self, row: usize) -> Result<Self> {
        let [rows, width] = [self.rows(), self.width()];
        if row >= rows {
            let message = format!("row {row} is outside the table, which has {rows} rows");
            return Err(Error::new(ErrorKind::Value, "Embedding::padding", message));
        }
        self.weight.value_mut().as_mut_slice()?[row * width..(row + 1) * width].fill(T::zero());
        self.padding = Some(row);
        Ok(self)
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.weight.shape()[0]
    }

    /// The length of a row.
    pub fn width(&self) -> usize {
        self.weight.shape()[1]
    }

    /// The rows that ids `[..]` name, `[.., width]`, with the enabled adapters. Ids are a tensor of `u32` or `i64`.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where an id is not a row, [`ErrorKind::Device`] where the ids live elsewhere, and the errors of adapters.
    pub fn forward(&self, ids: impl Into<Ids>, mode: Mode) -> Result<Var<T>> {
        let call = Call::Embedding { ids: ids.into(), padding: self.padding };
        self.adapters.forward(&call, self.weight.var(), None, mode)
    }
}
