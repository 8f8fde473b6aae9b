//! [`Dropout`].

use super::{
    mode::Mode,
    module::{Module, Visitor, VisitorMut},
};
use crate::{
    autodiff::Var,
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
};

/// Dropout while the mode trains, nothing otherwise. See [`Var::dropout`].
///
/// Which entries are dropped is a function of the mode's seed and step, of `stream`, and of the position. Give every dropout
/// of a block a stream of its own, and [`fork`](Mode::fork) the mode for every block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    probability: f64,
    stream: u64,
}

impl Dropout {
    /// Drops each entry with `probability`.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where the probability is not between 0 and 1.
    pub fn new(probability: f64, stream: u64) -> Result<Self> {
        check_probability("Dropout::new", probability)?;
        Ok(Self { probability, stream })
    }

    /// The probability with which an entry is dropped.
    pub fn probability(&self) -> f64 {
        self.probability
    }

    /// x with entries dropped, of x's shape.
    ///
    /// # Errors
    /// Those of [`Var::dropout`].
    pub fn forward<T: Scalar>(&self, x: &Var<T>, mode: Mode) -> Result<Var<T>> {
        apply(x, self.probability, self.stream, mode)
    }
}

pub(super) fn check_probability(operation: &'static str, probability: f64) -> Result<()> {
    if !(0.0..=1.0).contains(&probability) {
        let message = format!("a probability of {probability}; needs 0 to 1");
        return Err(Error::new(ErrorKind::Value, operation, message));
    }
    Ok(())
}

pub(super) fn apply<T: Scalar>(x: &Var<T>, probability: f64, stream: u64, mode: Mode) -> Result<Var<T>> {
    match mode.fork(stream) {
        Mode::Evaluation => Ok(x.clone()),
        Mode::Training { seed, step } => x.dropout(probability, seed, step),
    }
}

/// No parameters: it may stand in a list of parts.
impl<T: Scalar> Module<T> for Dropout {
    fn visit<'a>(&'a self, _: &mut Visitor<'_, 'a, T>) {}

    fn visit_mut<'a>(&'a mut self, _: &mut VisitorMut<'_, 'a, T>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    #[test]
    fn streams_and_blocks_drop_differently() {
        let x = Var::<f32>::constant(Tensor::ones([1000]).unwrap());
        let mode = Mode::training(3, 5);
        let kept = |stream: u64, mode: Mode| -> Vec<bool> {
            let y = Dropout::new(0.5, stream).unwrap().forward(&x, mode).unwrap();
            y.value().to_vec().unwrap().into_iter().map(|y| y != 0.0).collect()
        };
        let all = [kept(0, mode), kept(1, mode), kept(0, mode.fork(0)), kept(0, mode.fork(1)), kept(1, mode.fork(1))];
        for (i, a) in all.iter().enumerate() {
            for b in &all[..i] {
                let same = a.iter().zip(b).filter(|(a, b)| a == b).count();
                assert!((400..600).contains(&same), "{same} of 1000 agree");
            }
        }
        assert!(Dropout::new(1.5, 0).is_err() && Dropout::new(f64::NAN, 0).is_err());
    }
}
