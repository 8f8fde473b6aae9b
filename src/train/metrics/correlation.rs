//! [`Correlation`]: how closely predicted numbers follow the true ones.

use crate::{
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::Dimension;

/// Pairs of numbers, predicted and true, and the correlation between them.
///
/// The pairs are kept as doubles, since ranks depend on all of them: 16 bytes each.
///
/// ```
/// use ndarray::array;
/// use tenfold::{Tensor, train::metrics::Correlation};
///
/// let mut correlation = Correlation::new();
/// correlation.update(&Tensor::from(array![0.1, 0.9]), &Tensor::from(array![1.0, 3.0]))?;
/// correlation.update(&Tensor::from(array![4.0]), &Tensor::from(array![4.0]))?;
/// assert!((correlation.pearson() - 0.869).abs() < 1e-3);
/// assert_eq!(correlation.spearman(), 1.0); // in the same order
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Correlation {
    predicted: Vec<f64>,
    targets: Vec<f64>,
}

impl Correlation {
    /// No pairs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds pairs: two tensors of the same shape.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where shapes differ.
    pub fn update<T: Scalar, U: Scalar, D: Dimension, E: Dimension>(
        &mut self,
        predicted: &Tensor<T, D>,
        targets: &Tensor<U, E>,
    ) -> Result<()> {
        if predicted.shape() != targets.shape() {
            let (p, t) = (predicted.shape(), targets.shape());
            let message = format!("predictions of shape {p:?} for targets of shape {t:?}; needs equal shapes");
            return Err(Error::shape("Correlation", message));
        }
        let (predicted, targets) = (predicted.to_vec()?, targets.to_vec()?);
        self.predicted.extend(predicted.into_iter().map(Scalar::f64));
        self.targets.extend(targets.into_iter().map(Scalar::f64));
        Ok(())
    }

    /// The number of pairs.
    pub fn total(&self) -> usize {
        self.predicted.len()
    }

    /// Pearson's correlation coefficient, between -1 and 1:
    ///
    /// $$ \frac{\sum_i (x_i - \bar x)(y_i - \bar y)}{\sqrt{\sum_i (x_i - \bar x)^2} \sqrt{\sum_i (y_i - \bar y)^2}} $$
    ///
    /// NaN where all predictions or all targets are the same, for fewer than two pairs, and where a number is NaN, as scipy has it.
    pub fn pearson(&self) -> f64 {
        pearson(&self.predicted, &self.targets)
    }

    /// Spearman's correlation coefficient: Pearson's of the ranks, where equal numbers share the mean of their ranks. NaN where
    /// Pearson's is.
    pub fn spearman(&self) -> f64 {
        if self.predicted.iter().chain(&self.targets).any(|x| x.is_nan()) {
            return f64::NAN;
        }
        pearson(&ranks(&self.predicted), &ranks(&self.targets))
    }
}

fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let (Some(x), Some(y)) = (centred(x), centred(y)) else { return f64::NAN };
    let inner = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    (inner(&x, &y) / (inner(&x, &x) * inner(&y, &y)).sqrt()).clamp(-1.0, 1.0)
}

/// The distances from the mean, in a unit that keeps their squares in range; none where all numbers are the same.
fn centred(x: &[f64]) -> Option<Vec<f64>> {
    let first = *x.first()?;
    // Measured from one of them first: far from zero, that loses nothing.
    let from_first: Vec<f64> = x.iter().map(|x| x - first).collect();
    let unit = from_first.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    if unit == 0.0 {
        return None;
    }
    let scaled: Vec<f64> = from_first.iter().map(|x| x / unit).collect();
    let mean = scaled.iter().sum::<f64>() / x.len() as f64;
    Some(scaled.into_iter().map(|x| x - mean).collect())
}

/// The rank of each number from 1, equal ones with the mean of theirs.
fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
    let mut ranks = vec![0.0; x.len()];
    let mut start = 0;
    for tied in order.chunk_by(|&a, &b| x[a] == x[b]) {
        let mean = start as f64 + (tied.len() as f64 + 1.0) / 2.0;
        tied.iter().for_each(|&i| ranks[i] = mean);
        start += tied.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr1;

    fn of(x: &[f64], y: &[f64]) -> (f64, f64) {
        let mut correlation = Correlation::new();
        correlation.update(&Tensor::from(arr1(x)), &Tensor::from(arr1(y))).unwrap();
        (correlation.pearson(), correlation.spearman())
    }

    #[test]
    fn ties_share_ranks() {
        assert_eq!(ranks(&[3.0, -1.0, 3.0, 3.0, 0.0, -0.0]), [5.0, 1.0, 5.0, 5.0, 2.5, 2.5]);
        assert!(ranks(&[]).is_empty());
    }

    #[test]
    fn where_there_is_no_value() {
        for (x, y) in [(&[1.0, 1.0][..], &[1.0, 2.0][..]), (&[1.0, 2.0], &[0.3, 0.3]), (&[1.0], &[1.0]), (&[], &[])] {
            let (pearson, spearman) = of(x, y);
            assert!(pearson.is_nan() && spearman.is_nan(), "{x:?} {y:?}");
        }
        let (pearson, spearman) = of(&[1.0, f64::NAN, 3.0], &[1.0, 2.0, 3.0]);
        assert!(pearson.is_nan() && spearman.is_nan());
    }

    #[test]
    fn the_range_of_doubles() {
        for scale in [1e-200, 1e200, 4e307] {
            let x = [scale, 2.0 * scale, 4.0 * scale];
            let (pearson, spearman) = of(&x, &x);
            assert!((pearson - 1.0).abs() < 1e-15 && spearman == 1.0, "{scale:e}: {pearson} {spearman}");
        }
        let error = Correlation::new().update(&Tensor::from(arr1(&[1.0])), &Tensor::from(arr1(&[1.0f32, 2.0])));
        assert!(error.unwrap_err().message().ends_with("needs equal shapes"));
    }
}
