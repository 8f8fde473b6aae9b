//! [`StochasticDepth`].

use super::{
    dropout::check_probability,
    mode::Mode,
    module::{Module, Visitor, VisitorMut},
};
use crate::{autodiff::Var, error::Result, scalar::Scalar};

/// Stochastic depth while the mode trains, nothing otherwise: whole samples of a residual branch are dropped. timm calls it
/// `DropPath`. See [`Var::stochastic_depth`].
///
/// Which samples are dropped is a function of the mode's seed and step, of `stream`, and of the sample's number.
/// [`fork`](Mode::fork) the mode for every block.
///
/// G. Huang et al., *Deep networks with stochastic depth*, ECCV 2016.
///
/// ```
/// use tenfold::{Tensor, autodiff::Var, nn::{Mode, StochasticDepth}};
///
/// let x = Var::<f64>::constant(Tensor::ones([4, 2, 2, 3])?);
/// let branch = StochasticDepth::new(0.5, 0)?;
/// let y = branch.forward(&x, Mode::training(7, 0))?;
/// for sample in 0..4 {
///     let y = y.index_mode(0, sample)?.value().to_vec()?;
///     assert!(y == [0.0; 12] || y == [2.0; 12]);
/// }
/// assert_eq!(branch.forward(&x, Mode::Evaluation)?.value(), x.value());
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StochasticDepth {
    probability: f64,
    stream: u64,
}

impl StochasticDepth {
    /// Drops each sample with `probability`.
    ///
    /// # Errors
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) where the probability is not between 0 and 1.
    pub fn new(probability: f64, stream: u64) -> Result<Self> {
        check_probability("StochasticDepth::new", probability)?;
        Ok(Self { probability, stream })
    }

    /// The probabilities of a network's blocks, one after another: they grow evenly from 0 to `last`, as the paper has it.
    ///
    /// ```
    /// use tenfold::nn::StochasticDepth;
    ///
    /// assert_eq!(StochasticDepth::rising(5, 0.4), [0.0, 0.1, 0.2, 0.30000000000000004, 0.4]);
    /// ```
    pub fn rising(blocks: usize, last: f64) -> Vec<f64> {
        (0..blocks).map(|block| last * block as f64 / blocks.saturating_sub(1).max(1) as f64).collect()
    }

    /// The probability with which a sample is dropped.
    pub fn probability(&self) -> f64 {
        self.probability
    }

    /// x with samples (entries of mode 0) dropped, of x's shape.
    ///
    /// # Errors
    /// Those of [`Var::stochastic_depth`].
    pub fn forward<T: Scalar>(&self, x: &Var<T>, mode: Mode) -> Result<Var<T>> {
        match mode.fork(self.stream) {
            Mode::Evaluation => Ok(x.clone()),
            Mode::Training { seed, step } => x.stochastic_depth(self.probability, seed, step),
        }
    }
}

/// No parameters: it may stand in a list of parts.
impl<T: Scalar> Module<T> for StochasticDepth {
    fn visit<'a>(&'a self, _: &mut Visitor<'_, 'a, T>) {}

    fn visit_mut<'a>(&'a mut self, _: &mut VisitorMut<'_, 'a, T>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    #[test]
    fn the_share_is_the_probability_and_blocks_differ() {
        let x = Var::<f32>::constant(Tensor::ones([1000, 1]).unwrap());
        let kept = |stream, mode: Mode| -> Vec<bool> {
            let y = StochasticDepth::new(0.3, stream).unwrap().forward(&x, mode).unwrap();
            y.value().to_vec().unwrap().into_iter().map(|y| y != 0.0).collect()
        };
        let mode = Mode::training(3, 5);
        let masks = [kept(0, mode), kept(1, mode), kept(0, mode.fork(1)), kept(0, Mode::training(3, 6))];
        for (i, a) in masks.iter().enumerate() {
            let share = a.iter().filter(|&&kept| kept).count();
            assert!((650..750).contains(&share), "{share} of 1000 kept");
            for b in &masks[..i] {
                // 0.7^2 + 0.3^2 = 0.58
                let same = a.iter().zip(b).filter(|(a, b)| a == b).count();
                assert!((520..640).contains(&same), "{same} of 1000 agree");
            }
        }
        assert_eq!(kept(0, mode), masks[0]);
    }

    #[test]
    fn the_ends() {
        assert_eq!(StochasticDepth::rising(1, 0.5), [0.0]);
        assert!(StochasticDepth::rising(0, 0.5).is_empty());
        let error = StochasticDepth::new(1.5, 0).unwrap_err();
        assert_eq!(error.to_string(), "StochasticDepth::new: a probability of 1.5; needs 0 to 1");
    }
}
