//! Batch norm over channels, which are the last mode.
//!
//! With $\hat x = (x - \mu_c)\,r_c$ and $r_c = 1 / \sqrt{\sigma_c^2 + \varepsilon}$ for each channel c, $y = \hat x\,w + b$. Back,
//! with given statistics,
//!
//! $$dx = w\,r\,dy, \qquad dw = \sum dy\,\hat x, \qquad db = \sum dy;$$
//!
//! with those of the batch itself, they depend on x too: $dx = w\,r\,(dy - \overline{dy} - \hat x\,\overline{dy\,\hat x})$. The
//! statistics cost one read of x, the result another; back, dw and db cost one read of x and dy, and dx another.
//!
//! S. Ioffe, C. Szegedy, *Batch Normalization*, ICML 2015.

use super::{
    super::{Saved, Var},
    layer_norm::{check_eps, check_vector},
};
use crate::{
    device::channels::{self, Channels},
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Ix1, IxDyn};

/// What batch norm with the statistics of the batch returns.
#[derive(Debug, Clone)]
pub struct BatchNorm<T: Scalar> {
    /// The normalised result.
    pub result: Var<T>,
    /// `(1 - momentum) running_mean + momentum mean`
    pub running_mean: Tensor<T, Ix1>,
    /// The same for the variance, of which the batch's unbiased estimate (divided by count - 1) counts.
    pub running_variance: Tensor<T, Ix1>,
}

const NAME: &str = "batch_norm";

/// Statistics as they enter the formulas: vectors where x is.
struct Statistics<T: Scalar> {
    mean: Tensor<T, IxDyn>,
    /// 1 / sqrt(variance + eps)
    scale: Tensor<T, IxDyn>,
    /// Whether they come from x.
    of_batch: bool,
}

fn sizes<T: Scalar>(x: &Var<T>) -> Result<Channels> {
    match x.shape() {
        [] => Err(Error::shape(NAME, "a single number has no channels")),
        [rows @ .., channels] => {
            Ok(Channels { name: NAME, groups: 1, rows: rows.iter().product(), channels: *channels })
        }
    }
}

fn reciprocal_deviation<T: Scalar>(variance: &Tensor<T, IxDyn>, eps: f64) -> Result<Tensor<T, IxDyn>> {
    variance.shift(T::of(eps))?.sqrt()?.recip()
}

fn normalise<T: Scalar>(
    x: &Var<T>,
    at: Channels,
    statistics: Statistics<T>,
    weight: Option<&Var<T>>,
    bias: Option<&Var<T>>,
) -> Result<Var<T>> {
    let n = at.channels;
    let here = x.value().to_contiguous()?;
    let Statistics { mean, scale, of_batch } = statistics;
    let (mean, scale) = (mean.to_contiguous()?, scale.to_contiguous()?);
    let factor = weight.map_or_else(|| Ok(scale.clone()), |w| w.value().mul(&scale))?;
    let term = bias.map(|bias| bias.value().to_contiguous()).transpose()?;
    let vectors = (Some(mean.flat()), factor.flat(), term.as_ref().map(Tensor::flat));
    let y = channels::affine(at, here.flat(), vectors)?;
    let mut operands = vec![x];
    operands.extend(weight);
    operands.extend(bias);
    let (has_weight, has_bias) = (weight.is_some(), bias.is_some());
    let y: Tensor<T, IxDyn> = Tensor::row_major(y, x.shape());
    // Given statistics and frozen vectors leave a factor a channel, and x is not needed.
    let sums_wanted = of_batch || operands[1..].iter().any(|v| v.needs_gradient());
    let saved = (sums_wanted && Var::records(&operands)).then(|| Saved::operand(x, &here)).transpose()?;
    let shape = x.shape().to_vec();
    Ok(Var::record(NAME, y, &operands, move |dy, flow| {
        let dy = dy.to_contiguous()?;
        let bias_at = 1 + usize::from(has_weight);
        let here = saved.map(Saved::into_tensor);
        let mut terms = None;
        if let Some(here) = &here {
            let sums = channels::sums(at, (here.flat(), dy.flat()), Some(mean.flat()))?;
            let [db, products] = sums.map(|sums| Tensor::<T, IxDyn>::row_major(sums, &[n]));
            let dw = products.mul(&scale)?;
            if of_batch && at.rows > 0 {
                let less = factor.scale(-T::of(at.rows as f64).recip())?;
                terms = Some((less.mul(&scale)?.mul(&dw)?, less.mul(&db)?));
            }
            if has_weight {
                flow.give(1, dw)?;
            }
            if has_bias {
                flow.give(bias_at, db)?;
            }
        }
        if flow.needs(0) {
            let dx = match (&here, &terms) {
                (Some(here), Some((slopes, terms))) => {
                    let vectors = (factor.flat(), slopes.flat(), Some(terms.flat()));
                    channels::combine(at, (here.flat(), dy.flat()), Some(mean.flat()), vectors)?
                }
                _ => channels::affine(at, dy.flat(), (None, factor.flat(), None))?,
            };
            flow.give(0, Tensor::row_major(dx, &shape))?;
        }
        Ok(())
    }))
}

impl<T: Scalar> Var<T> {
    /// Batch norm with given statistics, as for evaluation: x `[.., C]`, everything else `[C]`.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let x = Var::constant(Tensor::from(array![[1.0, 6.0], [3.0, 2.0]]));
    /// let mean = Tensor::from(array![1.0, 2.0]);
    /// let variance = Tensor::from(array![1.0, 4.0]);
    /// assert_eq!(x.batch_norm(&mean, &variance, None, None, 0.0)?.value().to_vec()?, [0.0, 2.0, 2.0, 0.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where the sizes do not fit, [`ErrorKind::Value`] for an `eps` that is negative or not finite,
    /// [`ErrorKind::Device`] where operands live in different places.
    pub fn batch_norm(
        &self,
        mean: &Tensor<T, Ix1>,
        variance: &Tensor<T, Ix1>,
        weight: Option<&Self>,
        bias: Option<&Self>,
        eps: f64,
    ) -> Result<Self> {
        let at = sizes(self)?;
        check_vector(NAME, "mean", self, at.channels, Some(&Var::constant(mean.clone())))?;
        check_vector(NAME, "variance", self, at.channels, Some(&Var::constant(variance.clone())))?;
        check_vector(NAME, "weight", self, at.channels, weight)?;
        check_vector(NAME, "bias", self, at.channels, bias)?;
        check_eps(NAME, eps)?;
        let scale = reciprocal_deviation(&variance.clone().into_dyn(), eps)?;
        normalise(self, at, Statistics { mean: mean.clone().into_dyn(), scale, of_batch: false }, weight, bias)
    }

    /// Batch norm with the statistics of x itself, and running averages moved towards them by `momentum` (0.1 in PyTorch).
    ///
    /// Statistics are gathered block by block around each block's own mean, so a mean far from 0 costs no digits.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where there are fewer than two rows; as [`batch_norm`](Var::batch_norm) otherwise.
    pub fn batch_norm_training(
        &self,
        running_mean: &Tensor<T, Ix1>,
        running_variance: &Tensor<T, Ix1>,
        momentum: f64,
        weight: Option<&Self>,
        bias: Option<&Self>,
        eps: f64,
    ) -> Result<BatchNorm<T>> {
        let at = sizes(self)?;
        check_vector(NAME, "running mean", self, at.channels, Some(&Var::constant(running_mean.clone())))?;
        check_vector(NAME, "running variance", self, at.channels, Some(&Var::constant(running_variance.clone())))?;
        check_vector(NAME, "weight", self, at.channels, weight)?;
        check_vector(NAME, "bias", self, at.channels, bias)?;
        check_eps(NAME, eps)?;
        if at.rows < 2 {
            let message =
                format!("the statistics of a batch need two rows or more; shape {:?} has {}", self.shape(), at.rows);
            return Err(Error::new(ErrorKind::Value, NAME, message));
        }
        let moments = channels::moments(at, self.value().to_contiguous()?.flat())?;
        let [mean, variance] = moments.map(|numbers| Tensor::<T, Ix1>::row_major(numbers, &[at.channels]));
        let moved = |old: &Tensor<T, Ix1>, new: &Tensor<T, Ix1>, factor: f64| {
            old.scale(T::of(1.0 - momentum))?.add(&new.scale(T::of(momentum * factor))?)
        };
        let running_mean = moved(running_mean, &mean, 1.0)?;
        let running_variance = moved(running_variance, &variance, at.rows as f64 / (at.rows - 1) as f64)?;
        let (mean, variance) = (mean.into_dyn(), variance.into_dyn());
        let scale = reciprocal_deviation(&variance, eps)?;
        let result = normalise(self, at, Statistics { mean, scale, of_batch: true }, weight, bias)?;
        Ok(BatchNorm { result, running_mean, running_variance })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::{
        check_gradients,
        testing::{close, normal, reversed},
    };

    fn one(shape: usize, seed: u64) -> Tensor<f64, Ix1> {
        normal(&[shape], seed).abs().unwrap().shift(0.5).unwrap().into_order().unwrap()
    }

    #[test]
    fn the_formulas_and_their_gradients() {
        for shape in [&[4, 3][..], &[2, 5, 1], &[2, 2, 2, 35], &[150, 2], &[3, 0]] {
            let c = shape[shape.len() - 1];
            let rows: usize = shape[..shape.len() - 1].iter().product();
            let (mean, variance) = (one(c, 4), one(c, 5));
            let (w, b) = (normal(&[c], 2), normal(&[c], 3));
            let x = normal(shape, 1);
            for x in [x.clone(), reversed(&x)] {
                let flat = x.to_vec().unwrap();
                let [v, wv, bv] = [&x, &w, &b].map(|t| Var::constant(t.clone()));
                let (ws, bs) = (w.to_vec().unwrap(), b.to_vec().unwrap());
                let formula = |m: &[f64], s: &[f64]| -> Vec<f64> {
                    (0..flat.len())
                        .map(|i| (flat[i] - m[i % c]) / (s[i % c] + 0.1).sqrt() * ws[i % c] + bs[i % c])
                        .collect()
                };
                let y = v.batch_norm(&mean, &variance, Some(&wv), Some(&bv), 0.1).unwrap();
                close(
                    &y.value().to_vec().unwrap(),
                    &formula(&mean.to_vec().unwrap(), &variance.to_vec().unwrap()),
                    1e-13,
                );
                let column = |j: usize| flat.iter().skip(j).step_by(c);
                let m: Vec<f64> = (0..c).map(|j| column(j).sum::<f64>() / rows as f64).collect();
                let s: Vec<f64> =
                    (0..c).map(|j| column(j).map(|x| (x - m[j]).powi(2)).sum::<f64>() / rows as f64).collect();
                let trained = v.batch_norm_training(&mean, &variance, 0.1, Some(&wv), Some(&bv), 0.1).unwrap();
                close(&trained.result.value().to_vec().unwrap(), &formula(&m, &s), 1e-12);
                let unbiased = rows as f64 / (rows as f64 - 1.0);
                for j in 0..c {
                    let expected = 0.9 * mean.to_vec().unwrap()[j] + 0.1 * m[j];
                    assert!((trained.running_mean.to_vec().unwrap()[j] - expected).abs() < 1e-13);
                    let expected = 0.9 * variance.to_vec().unwrap()[j] + 0.1 * s[j] * unbiased;
                    assert!((trained.running_variance.to_vec().unwrap()[j] - expected).abs() < 1e-13);
                }
                let all = [x, w.clone(), b.clone()];
                let frozen = |v: &[Var<f64>], w: Option<&Var<f64>>, b: Option<&Var<f64>>| {
                    v[0].batch_norm(&mean, &variance, w, b, 0.1)
                };
                let training = |v: &[Var<f64>], w: Option<&Var<f64>>, b: Option<&Var<f64>>| {
                    Ok(v[0].batch_norm_training(&mean, &variance, 0.1, w, b, 0.1)?.result)
                };
                check_gradients(&all, 1e-6, |v| frozen(v, Some(&v[1]), Some(&v[2]))).unwrap();
                check_gradients(&all[..1], 1e-6, |v| frozen(v, None, None)).unwrap();
                check_gradients(&all, 1e-6, |v| training(v, Some(&v[1]), Some(&v[2]))).unwrap();
                let without_weight = [all[0].clone(), all[2].clone()];
                check_gradients(&without_weight, 1e-6, |v| training(v, None, Some(&v[1]))).unwrap();
                check_gradients(&all[..1], 1e-6, |v| training(v, None, None)).unwrap();
            }
        }
    }

    #[test]
    fn a_far_mean_costs_no_digits() {
        let x: Vec<f32> = (0..3000).map(|i| 1e4 + (i % 5) as f32).collect();
        let x = Var::constant(Tensor::from(ndarray::Array2::from_shape_vec((3000, 1), x).unwrap()));
        let zero = Tensor::<f32, Ix1>::zeros(1).unwrap();
        let trained = x.batch_norm_training(&zero, &zero, 1.0, None, None, 0.0).unwrap();
        let variance = trained.running_variance.to_vec().unwrap()[0];
        assert!((variance - 2.0 * 3000.0 / 2999.0).abs() < 1e-4, "{variance}");
    }

    #[test]
    fn errors_name_the_shapes() {
        let v = |shape: &[usize]| Var::constant(normal(shape, 1));
        let (two, three) = (one(2, 1), one(3, 1));
        let error = v(&[2, 3]).batch_norm(&two, &three, None, None, 1e-5).unwrap_err();
        assert_eq!(error.to_string(), "batch_norm: a mean of shape [2] for an input of shape [2, 3]; needs [3]");
        assert!(v(&[2, 3]).batch_norm(&three, &three, Some(&v(&[2])), None, 1e-5).is_err());
        let error = v(&[1, 3]).batch_norm_training(&three, &three, 0.1, None, None, 1e-5).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Value);
        assert!(v(&[]).batch_norm(&three, &three, None, None, 1e-5).is_err());
    }
}
