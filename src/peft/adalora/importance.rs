//! [`Smoothed`]: how much the entries of a parameter matter.

use super::AdaLora;
use crate::{error::Result, module, nn::Buffer, scalar::Scalar, tensor::Tensor};
use ndarray::IxDyn;

/// The importance of every entry of a parameter, and how uncertain it is; both smoothed over steps.
///
/// With $I = |w\thinspace \partial L / \partial w|$ (Eq. 8 of the paper) and in this order
///
/// $$ \bar I \leftarrow \beta_1 \bar I + (1 - \beta_1) I, \qquad \bar U \leftarrow \beta_2 \bar U + (1 - \beta_2) |I - \bar I|, $$
///
/// the score of an entry is $\bar I\thinspace \bar U$.
#[derive(Debug, Clone)]
pub(super) struct Smoothed<T: Scalar> {
    mean: Buffer<T>,
    uncertainty: Buffer<T>,
}
module!(Smoothed { mean, uncertainty });

/// Both at a step that has not taken place yet.
#[derive(Debug, Clone)]
pub(super) struct Next<T: Scalar> {
    mean: Tensor<T, IxDyn>,
    uncertainty: Tensor<T, IxDyn>,
}

impl<T: Scalar> Smoothed<T> {
    /// Of a parameter about which nothing is known.
    pub(super) fn like(parameter: &Tensor<T, IxDyn>) -> Result<Self> {
        let zeros = Tensor::zeros(parameter.shape())?.to_device(parameter.device())?;
        Ok(Self { mean: Buffer::new(zeros.clone()), uncertainty: Buffer::new(zeros) })
    }

    pub(super) fn held(&self) -> Next<T> {
        Next { mean: self.mean.value(), uncertainty: self.uncertainty.value() }
    }

    /// With one step more, in which the parameter had this value and this gradient.
    pub(super) fn next(
        &self,
        value: &Tensor<T, IxDyn>,
        gradient: &Tensor<T, IxDyn>,
        settings: &AdaLora,
    ) -> Result<Next<T>> {
        let follow = |held: &Buffer<T>, new: &Tensor<T, IxDyn>, beta: f64| {
            held.value().scale(T::of(beta))?.add(&new.scale(T::of(1.0 - beta))?)
        };
        let importance = value.mul(gradient)?.abs()?;
        let mean = follow(&self.mean, &importance, settings.beta1)?;
        let uncertainty = follow(&self.uncertainty, &importance.sub(&mean)?.abs()?, settings.beta2)?;
        Ok(Next { mean, uncertainty })
    }

    pub(super) fn set(&self, next: Next<T>) -> Result<()> {
        self.mean.set(next.mean)?;
        self.uncertainty.set(next.uncertainty)
    }
}

impl<T: Scalar> Next<T> {
    /// The mean score over all that belongs to the same triplet, whose number runs along `mode`: `[r]`.
    pub(super) fn scores(&self, mode: usize) -> Result<Tensor<T, IxDyn>> {
        let scores = self.mean.mul(&self.uncertainty)?;
        let rank = scores.shape()[mode];
        let others: Vec<usize> = (0..scores.order()).filter(|&other| other != mode).collect();
        let entries = scores.len() / rank.max(1);
        scores.sum_modes(&others)?.scale(T::of(1.0 / entries.max(1) as f64))?.reshape([rank].as_slice())
    }
}
