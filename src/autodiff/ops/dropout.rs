//! Dropout and stochastic depth: random zeros that are a function of a seed, a step and a position.
//!
//! Dropout keeps each entry with probability $1 - p$ and multiplies it with $1 / (1 - p)$, so that expectations stay; stochastic
//! depth does so with whole samples (entries of mode 0). Back, the same factors multiply dy. They are computed anew instead of
//! kept, by the counter-based generator Philox4x32-10 keyed with the seed, on the counter (position, step): the same for any
//! number of threads, and a run that is resumed at some step sees what it would have seen.
//!
//! N. Srivastava et al., *Dropout*, JMLR 15, 2014; G. Huang et al., *Deep Networks with Stochastic Depth*, ECCV 2016; J. K. Salmon et
//! al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011.

use super::super::Var;
use crate::{
    device::{
        dropout::{self, Drop},
        storage::Storage,
    },
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;

/// The factors' description, or an error where `probability` is none.
pub(super) fn checked(operation: &'static str, probability: f64, seed: u64, step: u64) -> Result<Drop> {
    if !(0.0..=1.0).contains(&probability) {
        let message = format!("a probability of {probability}; needs 0 to 1");
        return Err(Error::new(ErrorKind::Value, operation, message));
    }
    Ok(Drop { probability, seed, step })
}

impl<T: Scalar> Var<T> {
    /// Each entry becomes 0 with `probability`, and is divided by `1 - probability` otherwise.
    ///
    /// Which ones is a function of `seed`, `step` and the entry's row-major position. Give every layer a seed of its own and
    /// count steps, so that masks differ. A probability of 0 returns the variable itself. Leave it out for evaluation.
    ///
    /// ```
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let x = Var::constant(Tensor::<f32, _>::ones([1000])?);
    /// let y = x.dropout(0.25, 7, 0)?;
    /// assert_eq!(y.value(), x.dropout(0.25, 7, 0)?.value());
    /// let kept = y.value().to_vec()?.into_iter().filter(|&y| y != 0.0).count();
    /// assert!((700..800).contains(&kept));
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where the probability is not between 0 and 1.
    pub fn dropout(&self, probability: f64, seed: u64, step: u64) -> Result<Self> {
        let drop = checked("dropout", probability, seed, step)?;
        if probability == 0.0 {
            return Ok(self.clone());
        }
        let y = dropout::apply(&drop, self.value().to_contiguous()?.flat())?;
        let y: Tensor<T, IxDyn> = Tensor::row_major(y, self.shape());
        Ok(Self::record("dropout", y, &[self], move |dy, flow| {
            let dx = dropout::apply(&drop, dy.to_contiguous()?.flat())?;
            flow.give(0, Tensor::row_major(dx, dy.shape()))
        }))
    }

    /// Whole samples (entries of mode 0) become 0 with `probability`, and are divided by `1 - probability` otherwise.
    ///
    /// Which ones is a function of `seed`, `step` and the sample's number. A probability of 0 returns the variable itself.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where the probability is not between 0 and 1, [`ErrorKind::Shape`] for a single number.
    pub fn stochastic_depth(&self, probability: f64, seed: u64, step: u64) -> Result<Self> {
        let drop = checked("stochastic_depth", probability, seed, step)?;
        let Some(&samples) = self.shape().first() else {
            return Err(Error::shape("stochastic_depth", "a single number has no samples"));
        };
        if probability == 0.0 {
            return Ok(self.clone());
        }
        let factors: Storage<T> = drop.factors(self.device(), samples)?;
        let mut shape = vec![1; self.order()];
        shape[0] = samples;
        let factors = Tensor::row_major(factors, &shape);
        let y = self.value().mul(&factors)?;
        Ok(Self::record("stochastic_depth", y, &[self], move |dy, flow| flow.give(0, dy.mul(&factors)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Device,
        autodiff::{
            check_gradients,
            testing::{normal, reversed},
        },
    };

    fn kept(x: &Var<f64>) -> Vec<bool> {
        x.value().to_vec().unwrap().iter().map(|&y| y != 0.0).collect()
    }

    #[test]
    fn gradients_go_where_values_went() {
        for shape in [&[1][..], &[5, 13], &[2, 1, 200], &[0, 3]] {
            let x = normal(shape, 1);
            for x in [x.clone(), reversed(&x)] {
                check_gradients(std::slice::from_ref(&x), 1e-6, |v| v[0].dropout(0.4, 3, 1)).unwrap();
                check_gradients(&[x], 1e-6, |v| v[0].stochastic_depth(0.4, 3, 1)).unwrap();
            }
        }
    }

    #[test]
    fn the_mask_depends_on_seed_step_and_position_alone() {
        let run = |threads: usize, seed, step| {
            let x = Tensor::<f64, _>::ones([501, 300]).unwrap().to_device(&Device::cpu().threads(threads)).unwrap();
            kept(&Var::constant(x).dropout(0.3, seed, step).unwrap())
        };
        let mask = run(1, 5, 8);
        assert_eq!(mask, run(2, 5, 8));
        assert_eq!(mask, run(7, 5, 8));
        assert_ne!(mask, run(2, 6, 8));
        assert_ne!(mask, run(2, 5, 9));
        // A longer tensor begins with the same mask.
        let short = Var::constant(Tensor::<f64, _>::ones([777]).unwrap()).dropout(0.3, 5, 8).unwrap();
        assert_eq!(kept(&short), mask[..777]);
        // As a permuted one with the same entries.
        let x = normal(&[20, 30], 1);
        let plain = Var::constant(x.clone()).dropout(0.3, 5, 8).unwrap();
        let moved = Var::constant(reversed(&x)).dropout(0.3, 5, 8).unwrap();
        assert_eq!(plain.value(), moved.value());
    }

    #[test]
    fn the_share_is_the_probability() {
        let n = 400_000;
        let x = Var::constant(Tensor::<f64, _>::ones([n]).unwrap());
        for p in [0.01, 0.1, 0.5, 0.9] {
            let y = x.dropout(p, 11, 2).unwrap();
            let mask = kept(&y);
            let share = mask.iter().filter(|&&kept| !kept).count() as f64 / n as f64;
            let deviation = (p * (1.0 - p) / n as f64).sqrt();
            assert!((share - p).abs() < 4.0 * deviation, "{p}: {share}");
            // Neighbours are independent.
            let both = mask.windows(2).filter(|w| !w[0] && !w[1]).count() as f64 / n as f64;
            assert!((both - p * p).abs() < 5.0 * (p * p / n as f64).sqrt(), "{p}: {both}");
            let largest = y.value().max_abs().unwrap();
            assert!((largest - 1.0 / (1.0 - p)).abs() < 1e-15 * largest);
        }
    }

    #[test]
    fn the_ends() {
        let x = Var::parameter(Tensor::from(ndarray::array![[1.0, f64::INFINITY], [2.0, 3.0]]));
        assert_eq!(x.dropout(0.0, 1, 1).unwrap().value(), x.value());
        assert_eq!(x.stochastic_depth(0.0, 1, 1).unwrap().value(), x.value());
        assert_eq!(x.dropout(1.0, 1, 1).unwrap().value().to_vec().unwrap(), [0.0; 4]);
        for p in [-0.1, 1.1, f64::NAN] {
            assert_eq!(x.dropout(p, 1, 1).unwrap_err().kind(), ErrorKind::Value);
            assert_eq!(x.stochastic_depth(p, 1, 1).unwrap_err().kind(), ErrorKind::Value);
        }
        assert!(Var::constant(normal(&[], 1)).stochastic_depth(0.5, 1, 1).is_err());
    }

    #[test]
    fn samples_go_as_a_whole() {
        let x = Var::constant(Tensor::<f64, _>::ones([64, 3, 5]).unwrap());
        let y = x.stochastic_depth(0.5, 1, 1).unwrap().value().to_vec().unwrap();
        let samples: Vec<f64> = y
            .chunks(15)
            .map(|s| {
                assert!(s.iter().all(|&y| y == s[0]));
                s[0]
            })
            .collect();
        assert!(samples.contains(&0.0) && samples.contains(&2.0));
    }
}
