//! Layer norm and RMS norm along the last mode.
//!
//! With $\hat x = (x - \mu)\,r$, $r = 1 / \sqrt{\sigma^2 + \varepsilon}$ for the mean $\mu$ and the variance $\sigma^2$ of a row:
//!
//! $$y = \hat x\,w + b, \qquad g = w\,dy, \qquad
//! dx = r\,(g - \overline{g} - \hat x\,\overline{g \hat x}), \qquad dw = \sum dy\,\hat x, \qquad db = \sum dy,$$
//!
//! where bars are means over the row and sums run over rows. RMS norm has $\mu = 0$, $\sigma^2 = \overline{x^2}$, no $b$, and no
//! $\overline g$. x is read once in each direction; x and two numbers a row are kept. The sums over rows are split by the sizes
//! and the thread count alone, so they repeat.
//!
//! J. L. Ba, J. R. Kiros, G. E. Hinton, *Layer Normalization*, arXiv:1607.06450; B. Zhang, R. Sennrich, *Root Mean Square Layer
//! Normalization*, NeurIPS 2019.

use super::super::{Saved, Var};
use crate::{
    device::normalise::{self, Rows},
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;

/// An error unless the operand is a vector of `n` entries on x's device.
pub(super) fn check_vector<T: Scalar>(
    name: &'static str,
    what: &str,
    x: &Var<T>,
    n: usize,
    vector: Option<&Var<T>>,
) -> Result<()> {
    let Some(vector) = vector else { return Ok(()) };
    x.device().check_same(vector.device(), name)?;
    if vector.shape() != [n] {
        let message =
            format!("a {what} of shape {:?} for an input of shape {:?}; needs [{n}]", vector.shape(), x.shape());
        return Err(Error::shape(name, message));
    }
    Ok(())
}

/// An error for an eps with which a square root would be none.
pub(super) fn check_eps(name: &'static str, eps: f64) -> Result<()> {
    if eps >= 0.0 && eps.is_finite() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Value, name, format!("an eps of {eps}; it has to be finite and not below 0")))
}

fn apply<T: Scalar>(
    name: &'static str,
    centre: bool,
    x: &Var<T>,
    weight: Option<&Var<T>>,
    bias: Option<&Var<T>>,
    eps: f64,
) -> Result<Var<T>> {
    let Some(&n) = x.shape().last() else {
        return Err(Error::shape(name, "a single number has no last mode to normalise along"));
    };
    check_vector(name, "weight", x, n, weight)?;
    check_vector(name, "bias", x, n, bias)?;
    check_eps(name, eps)?;
    if n == 0 {
        return Err(Error::shape(name, format!("rows of shape {:?} are empty and have no mean", x.shape())));
    }
    let rows = Rows { name, n, centre };
    let here = x.value().to_contiguous()?;
    let w = weight.map(|w| w.value().to_contiguous()).transpose()?;
    let b = bias.map(|b| b.value().to_contiguous()).transpose()?;
    let (y, statistics) =
        normalise::forward(rows, here.flat(), w.as_ref().map(Tensor::flat), b.as_ref().map(Tensor::flat), T::of(eps))?;
    let mut operands = vec![x];
    operands.extend(weight);
    operands.extend(bias);
    let (has_weight, has_bias) = (weight.is_some(), bias.is_some());
    let y: Tensor<T, IxDyn> = Tensor::row_major(y, x.shape());
    let saved = Var::records(&operands).then(|| Saved::operand(x, &here)).transpose()?;
    Ok(Var::record(name, y, &operands, move |dy, flow| {
        let Some(here) = saved.map(Saved::into_tensor) else { return Ok(()) };
        let dy = dy.to_contiguous()?;
        let weight = w.as_ref().map(Tensor::flat);
        let [dx, dw, db] = normalise::backward(rows, here.flat(), &statistics, weight, dy.flat())?;
        flow.give(0, Tensor::row_major(dx, here.shape()))?;
        if has_weight {
            flow.give(1, Tensor::row_major(dw, &[n]))?;
        }
        if has_bias {
            flow.give(1 + usize::from(has_weight), Tensor::row_major(db, &[n]))?;
        }
        Ok(())
    }))
}

impl<T: Scalar> Var<T> {
    /// Layer norm: every row along the last mode gets mean 0 and variance 1, then weight and bias (`[n]` each, both optional).
    ///
    /// `eps` is added to the variance; 1e-5 and 1e-6 are common. PyTorch's `layer_norm`.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let x = Var::constant(Tensor::from(array![[1.0, 3.0], [10.0, 10.0]]));
    /// assert_eq!(x.layer_norm(None, None, 0.25)?.value().to_vec()?, [-0.8944271909999159, 0.8944271909999159, 0.0, 0.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where sizes do not fit or rows are empty, [`ErrorKind::Value`] for an `eps` that is negative or not finite,
    /// [`ErrorKind::Device`] where operands live in different places.
    pub fn layer_norm(&self, weight: Option<&Self>, bias: Option<&Self>, eps: f64) -> Result<Self> {
        apply("layer_norm", true, self, weight, bias, eps)
    }

    /// RMS norm: every row along the last mode is divided by the root of its mean square plus `eps`, then multiplied by the weight.
    ///
    /// # Errors
    /// As [`layer_norm`](Var::layer_norm).
    pub fn rms_norm(&self, weight: Option<&Self>, eps: f64) -> Result<Self> {
        apply("rms_norm", false, self, weight, None, eps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::{
        check_gradients,
        testing::{close, normal, reversed},
    };

    #[test]
    fn the_formulas_and_their_gradients() {
        for shape in [&[5][..], &[3, 4], &[2, 1, 33], &[2, 3, 1], &[0, 3], &[3, 70]] {
            let n = shape[shape.len() - 1];
            let (w, b) = (normal(&[n], 2), normal(&[n], 3));
            let (ws, bs) = (w.to_vec().unwrap(), b.to_vec().unwrap());
            let x = normal(shape, 1);
            for x in [x.clone(), reversed(&x)] {
                let [v, weight, bias] = [&x, &w, &b].map(|t| Var::constant(t.clone()));
                let rows = x.to_vec().unwrap();
                let moments = |row: &[f64]| {
                    let mean = row.iter().sum::<f64>() / n as f64;
                    (mean, row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64)
                };
                let expected: Vec<f64> = rows
                    .chunks(n)
                    .flat_map(|row| {
                        let (mean, variance) = moments(row);
                        (0..n).map(|j| (row[j] - mean) / (variance + 0.1).sqrt() * ws[j] + bs[j]).collect::<Vec<_>>()
                    })
                    .collect();
                let y = v.layer_norm(Some(&weight), Some(&bias), 0.1).unwrap();
                close(&y.value().to_vec().unwrap(), &expected, 1e-13);
                let expected: Vec<f64> = rows
                    .chunks(n)
                    .flat_map(|row| {
                        let square = row.iter().map(|x| x * x).sum::<f64>() / n as f64;
                        (0..n).map(|j| row[j] / (square + 0.1).sqrt() * ws[j]).collect::<Vec<_>>()
                    })
                    .collect();
                let y = v.rms_norm(Some(&weight), 0.1).unwrap();
                close(&y.value().to_vec().unwrap(), &expected, 1e-13);
                let all = [x.clone(), w.clone(), b.clone()];
                check_gradients(&all, 1e-6, |v| v[0].layer_norm(Some(&v[1]), Some(&v[2]), 0.1)).unwrap();
                check_gradients(&all[..2], 1e-6, |v| v[0].layer_norm(Some(&v[1]), None, 0.1)).unwrap();
                check_gradients(&[x.clone(), b.clone()], 1e-6, |v| v[0].layer_norm(None, Some(&v[1]), 0.1)).unwrap();
                check_gradients(&all[..1], 1e-6, |v| v[0].layer_norm(None, None, 0.1)).unwrap();
                check_gradients(&all[..2], 1e-6, |v| v[0].rms_norm(Some(&v[1]), 0.1)).unwrap();
                check_gradients(&all[..1], 1e-6, |v| v[0].rms_norm(None, 0.1)).unwrap();
            }
        }
    }

    #[test]
    fn a_large_mean_does_not_cancel() {
        let x: Vec<f32> = (0..96).map(|i| 1e4 + (i % 7) as f32).collect();
        let y = Var::constant(Tensor::from(ndarray::Array::from(x))).layer_norm(None, None, 1e-6).unwrap();
        let centred: Vec<f64> = (0..96).map(|i| (i % 7) as f64).collect();
        let mean = centred.iter().sum::<f64>() / 96.0;
        let deviation = (centred.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 96.0).sqrt();
        for (y, x) in y.value().to_vec().unwrap().into_iter().zip(centred) {
            assert!((y as f64 - (x - mean) / deviation).abs() < 1e-3);
        }
    }

    #[test]
    fn the_same_bits_every_time() {
        let device = crate::Device::cpu().threads(2);
        let run = || {
            let x = Var::parameter(normal(&[3000, 48], 1).to_device(&device).unwrap());
            let w = Var::parameter(normal(&[48], 2).to_device(&device).unwrap());
            let y = x.layer_norm(Some(&w), None, 1e-6).unwrap();
            let gradients = y.square().unwrap().sum().unwrap().backward().unwrap();
            gradients.of(&w).unwrap().to_vec().unwrap()
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn errors_name_the_shapes() {
        let v = |shape: &[usize]| Var::constant(normal(shape, 1));
        let error = v(&[2, 3]).layer_norm(Some(&v(&[2])), None, 1e-5).unwrap_err();
        assert_eq!(error.to_string(), "layer_norm: a weight of shape [2] for an input of shape [2, 3]; needs [3]");
        let error = v(&[2, 3]).layer_norm(None, Some(&v(&[1, 3])), 1e-5).unwrap_err();
        assert_eq!(error.to_string(), "layer_norm: a bias of shape [1, 3] for an input of shape [2, 3]; needs [3]");
        assert!(v(&[]).rms_norm(None, 1e-5).is_err());
        assert!(v(&[2, 0]).rms_norm(None, 1e-5).is_err());
    }
}
