//! [`Call`]: what a weighted layer does with its weight, as adapters see it.

use super::mode::Mode;
use crate::{
    autodiff::{Conv, ConvTranspose, Var},
    error::Result,
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Dimension, IxDyn};
use serde::{Deserialize, Serialize};

/// Row numbers of a table, of any shape.
#[derive(Debug, Clone)]
pub enum Ids {
    /// As `u32`.
    U32(Tensor<u32, IxDyn>),
    /// As `i64`.
    I64(Tensor<i64, IxDyn>),
}

impl Ids {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::U32(ids) => ids.len(),
            Self::I64(ids) => ids.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of `table` that these ids name, as [`Var::embedding`] gives them.
    ///
    /// # Errors
    /// Those of [`Var::embedding`].
    pub fn rows_of<T: Scalar>(&self, table: &Var<T>, padding: Option<usize>) -> Result<Var<T>> {
        match self {
            Self::U32(ids) => table.embedding(ids, padding),
            Self::I64(ids) => table.embedding(ids, padding),
        }
    }
}

impl<D: Dimension> From<&Tensor<u32, D>> for Ids {
    fn from(ids: &Tensor<u32, D>) -> Self {
        Self::U32(ids.to_dyn())
    }
}

impl<D: Dimension> From<&Tensor<i64, D>> for Ids {
    fn from(ids: &Tensor<i64, D>) -> Self {
        Self::I64(ids.to_dyn())
    }
}

/// What kind of layer a weight belongs to, with its options.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operation<'a> {
    /// [`Var::linear`]; the weight is `[out, in]`.
    Linear,
    /// [`Var::embedding`]; the weight is `[rows, width]`.
    Embedding {
        /// The row that is never trained.
        padding: Option<usize>,
    },
    /// [`Var::conv`]; the weight is `[c_out, c_in / groups, *kernel]`.
    Conv(&'a Conv),
    /// [`Var::conv_transpose`]; the weight is `[c_in, c_out / groups, *kernel]`.
    ConvTranspose(&'a ConvTranspose),
    /// A sum with the result of a sub-layer, and [`Var::layer_norm`]; the weight is `[n]`, the norm's.
    Residual(Sublayer),
}

impl Operation<'_> {
    /// Whether the weight maps inputs to outputs; that of a norm does not.
    pub fn maps(&self) -> bool {
        !matches!(self, Self::Residual(_))
    }
}

/// The two parts of a transformer's block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sublayer {
    /// What looks at other positions.
    Attention,
    /// What looks at each position by itself.
    FeedForward,
}

/// An operation and its input: all of a layer's forward pass but the weight.
#[derive(Debug, Clone)]
pub enum Call<'a, T: Scalar> {
    /// [`Operation::Linear`] of x.
    Linear {
        /// `[.., in]`
        x: Var<T>,
    },
    /// [`Operation::Embedding`] of ids.
    Embedding {
        /// `[..]`
        ids: Ids,
        /// The row that is never trained.
        padding: Option<usize>,
    },
    /// [`Operation::Conv`] of x.
    Conv {
        /// `[batch, *spatial, c_in]`
        x: Var<T>,
        /// Strides, padding, and so on.
        options: &'a Conv,
    },
    /// [`Operation::ConvTranspose`] of x.
    ConvTranspose {
        /// `[batch, *spatial, c_in]`
        x: Var<T>,
        /// Strides, padding, and so on.
        options: &'a ConvTranspose,
    },
    /// [`Operation::Residual`] of x and h.
    Residual {
        /// The states, `[.., n]`
        x: Var<T>,
        /// What a sub-layer makes of them, `[.., n]`
        h: Var<T>,
        /// What is added to the variance.
        eps: f64,
        /// Which sub-layer.
        after: Sublayer,
    },
}

impl<'a, T: Scalar> Call<'a, T> {
    /// The operation without its input.
    pub fn operation(&self) -> Operation<'a> {
        match *self {
            Self::Linear { .. } => Operation::Linear,
            Self::Embedding { padding, .. } => Operation::Embedding { padding },
            Self::Conv { options, .. } => Operation::Conv(options),
            Self::ConvTranspose { options, .. } => Operation::ConvTranspose(options),
            Self::Residual { after, .. } => Operation::Residual(after),
        }
    }

    /// The input that gradients may flow into, a sub-layer's result where states come with it; none for ids.
    pub fn input(&self) -> Option<&Var<T>> {
        match self {
            Self::Linear { x } | Self::Conv { x, .. } | Self::ConvTranspose { x, .. } | Self::Residual { h: x, .. } => {
                Some(x)
            }
            Self::Embedding { .. } => None,
        }
    }

    /// The result with this weight. It is linear in the weight, so the result with a sum of weights is the sum of the results.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn run(&self, weight: &Var<T>, bias: Option<&Var<T>>) -> Result<Var<T>> {
        match self {
            Self::Linear { x } => x.linear(weight, bias),
            Self::Embedding { ids, padding } => {
                let rows = ids.rows_of(weight, *padding)?;
                bias.map_or(Ok(rows.clone()), |bias| rows.add(bias))
            }
            Self::Conv { x, options } => x.conv(weight, bias, options),
            Self::ConvTranspose { x, options } => x.conv_transpose(weight, bias, options),
            Self::Residual { x, h, eps, .. } => x.add(h)?.layer_norm(Some(weight), bias, *eps),
        }
    }

    /// The same call with dropout on its input while `mode` trains; ids are not dropped.
    ///
    /// `stream` tells the random numbers of one place from those of another, as for [`Dropout`](super::Dropout).
    ///
    /// # Errors
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) where the probability is not between 0 and 1.
    pub fn dropout(&self, probability: f64, stream: u64, mode: Mode) -> Result<Self> {
        let mut call = self.clone();
        if let Self::Linear { x } | Self::Conv { x, .. } | Self::ConvTranspose { x, .. } | Self::Residual { h: x, .. } =
            &mut call
        {
            *x = super::dropout::apply(x, probability, stream, mode)?;
        }
        Ok(call)
    }
}
