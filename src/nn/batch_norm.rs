//! [`BatchNorm`].

use super::{
    mode::Mode,
    parameter::{Buffer, Parameter},
};
use crate::{
    autodiff::{Var, is_recomputing},
    error::Result,
    module,
    scalar::Scalar,
    tensor::Tensor,
};

/// Batch norm over channels, the last mode, with parameters `weight` and `bias` and buffers `running_mean` and `running_var`, all `[c]`,
/// as `torch.nn.BatchNorm2d`.
///
/// In training the statistics are the batch's, and the running ones move towards them, once a pass: not when
/// [`checkpoint`](crate::autodiff::checkpoint) computes a block again. In evaluation they are the running ones. PyTorch's files
/// have `num_batches_tracked` besides, which this layer does not need:
/// [`Load::ignore`](super::checkpoint::Load::ignore) it.
///
/// ```
/// use ndarray::array;
/// use tenfold::{Tensor, autodiff::Var, nn::{BatchNorm, Mode, Module}};
///
/// let norm = BatchNorm::<f64>::new(1, 0.0)?;
/// let x = Var::constant(Tensor::from(array![[1.0], [3.0]]));
/// assert_eq!(norm.forward(&x, Mode::training(7, 0))?.value().to_vec()?, [-1.0, 1.0]);
///
/// let buffers: Vec<(String, f64)> =
///     norm.buffers().into_iter().map(|(name, buffer)| Ok((name, buffer.value().sum()?))).collect::<tenfold::Result<_>>()?;
/// assert_eq!(buffers, [("running_mean".into(), 0.2), ("running_var".into(), 1.1)]); // 0.9 * 1 + 0.1 * 2
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct BatchNorm<T: Scalar> {
    weight: Parameter<T>,
    bias: Parameter<T>,
    running_mean: Buffer<T>,
    running_var: Buffer<T>,
    eps: f64,
    momentum: f64,
}

module!(BatchNorm { weight, bias, running_mean, running_var });

impl<T: Scalar> BatchNorm<T> {
    /// For `channels` channels: weight one, bias zero, running mean 0 and variance 1, momentum 0.1; `eps` is added to the variance.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory).
    pub fn new(channels: usize, eps: f64) -> Result<Self> {
        Ok(Self {
            weight: Tensor::ones([channels])?.into(),
            bias: Tensor::zeros([channels])?.into(),
            running_mean: Buffer::new(Tensor::<T, _>::zeros([channels])?),
            running_var: Buffer::new(Tensor::<T, _>::ones([channels])?),
            eps,
            momentum: 0.1,
        })
    }

    /// How far the running statistics move towards those of a batch, between 0 and 1.
    pub fn momentum(self, momentum: f64) -> Self {
        Self { momentum, ..self }
    }

    /// x `[.., c]`, each channel normalised.
    ///
    /// # Errors
    /// Those of [`Var::batch_norm`] and [`Var::batch_norm_training`].
    pub fn forward(&self, x: &Var<T>, mode: Mode) -> Result<Var<T>> {
        let (mean, variance) = (self.running_mean.value().into_order()?, self.running_var.value().into_order()?);
        let (weight, bias) = (Some(self.weight.var()), Some(self.bias.var()));
        if !mode.is_training() {
            return x.batch_norm(&mean, &variance, weight, bias, self.eps);
        }
        let normalised = x.batch_norm_training(&mean, &variance, self.momentum, weight, bias, self.eps)?;
        if !is_recomputing() {
            self.running_mean.set(normalised.running_mean)?;
            self.running_var.set(normalised.running_variance)?;
        }
        Ok(normalised.result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::{checkpoint, testing::normal};

    #[test]
    fn a_block_that_is_computed_again_moves_statistics_once() {
        let (plain, saved) = (BatchNorm::new(3, 1e-5).unwrap(), BatchNorm::new(3, 1e-5).unwrap());
        let (x, mode) = (Var::parameter(normal(&[5, 3], 1)), Mode::training(1, 0));
        let y = plain.forward(&x, mode).unwrap().square().unwrap().sum().unwrap();
        let a = y.backward().unwrap();
        let block = saved.clone();
        let y = checkpoint(&[&x], move |x| block.forward(&x[0], mode)?.square()).unwrap().sum().unwrap();
        let b = y.backward().unwrap();
        assert_eq!(a.of(&x).unwrap(), b.of(&x).unwrap());
        assert_eq!(b.of(saved.weight.var()).unwrap(), a.of(plain.weight.var()).unwrap());
        assert_eq!(saved.running_mean.value(), plain.running_mean.value());
        assert_eq!(saved.running_var.value(), plain.running_var.value());
        assert!(!is_recomputing());
    }
}
