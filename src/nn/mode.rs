//! [`Mode`]: training or evaluation, and what training draws at random.

/// Whether a forward pass trains, and then which one it is.
///
/// Everything random in a pass is a function of the seed and the step: the same pass again draws the same. A pass that is
/// computed again, as [`checkpoint`](crate::autodiff::checkpoint) does, and a run that is resumed at some step see what they
/// would have seen. Nothing is kept in between, so the step has to be counted by whoever trains.
///
/// ```
/// use tenfold::{Tensor, autodiff::Var, nn::{Dropout, Mode}};
///
/// let dropout = Dropout::new(0.5, 0)?;
/// let x = Var::<f64>::constant(Tensor::ones([8, 64])?);
/// let mode = Mode::training(7, 0);
/// assert_eq!(dropout.forward(&x, mode)?.value(), dropout.forward(&x, mode)?.value());
/// assert_ne!(dropout.forward(&x, mode)?.value(), dropout.forward(&x, Mode::training(7, 1))?.value());
/// assert_eq!(dropout.forward(&x, Mode::Evaluation)?.value(), x.value());
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Nothing is random, running statistics stand still.
    Evaluation,
    /// Dropout drops, running statistics move.
    Training {
        /// Of the run; or, after [`fork`](Mode::fork), of a part of the model.
        seed: u64,
        /// Which pass this is, counted up by the caller: one for each batch, and for each part of a batch that goes through by itself.
        step: u64,
    },
}

impl Mode {
    /// Pass number `step` of the run of `seed`.
    pub fn training(seed: u64, step: u64) -> Self {
        Self::Training { seed, step }
    }

    /// Whether this pass trains.
    pub fn is_training(self) -> bool {
        matches!(self, Self::Training { .. })
    }

    /// The same pass with random numbers of its own, for part number `part` of a model: blocks that are built alike fork
    /// with their index, so that they do not drop the same entries.
    ///
    /// ```
    /// use tenfold::nn::Mode;
    ///
    /// let mode = Mode::training(7, 3);
    /// assert_ne!(mode.fork(0), mode.fork(1));
    /// assert_eq!(mode.fork(1), mode.fork(1));
    /// assert_eq!(Mode::Evaluation.fork(1), Mode::Evaluation);
    /// ```
    pub fn fork(self, part: u64) -> Self {
        match self {
            Self::Evaluation => Self::Evaluation,
            Self::Training { seed, step } => Self::Training { seed: mix(seed ^ mix(part)), step },
        }
    }
}

/// A one-to-one map that changes about half of the bits for every bit that changes (the finaliser of SplitMix64: G. L. Steele et al.,
/// *Fast splittable pseudorandom number generators*, OOPSLA 2014).
pub(crate) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn nested_forks_stay_apart() {
        let mode = Mode::training(1, 0);
        let mut seen = BTreeSet::new();
        for a in 0..40 {
            for b in 0..40 {
                let Mode::Training { seed, step: 0 } = mode.fork(a).fork(b) else { panic!("a fork left the pass") };
                assert!(seen.insert(seed), "fork {a}, {b}");
            }
        }
    }
}
