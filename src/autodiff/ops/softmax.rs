//! Softmax and its logarithm along one mode.
//!
//! $$y_j = \frac{e^{x_j}}{\sum_k e^{x_k}}, \qquad dx = y\,(dy - \langle y, dy\rangle);
//! \qquad z_j = x_j - \ln \sum_k e^{x_k}, \qquad dx = dz - e^{z} \sum_k dz_k.$$
//!
//! The largest entry is subtracted first. A row is read from memory once and written once; the result is what is kept. A row of
//! nothing but $-\infty$ (all masked) has a softmax of zeros and a gradient of zeros, where PyTorch has NaN.

use super::{
    super::{Saved, Var},
    arithmetic::unbroadcast,
};
use crate::{
    device::softmax::{self, Kind},
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;

/// The sizes of the mode and of what lies behind it.
fn sizes(shape: &[usize], mode: usize) -> [usize; 2] {
    [shape[mode], shape[mode + 1..].iter().product()]
}

fn apply<T: Scalar>(x: &Var<T>, kind: Kind, mode: usize, mask: Option<&Var<T>>) -> Result<Var<T>> {
    x.value().check_mode(kind.name(), mode)?;
    let sizes = sizes(x.shape(), mode);
    let here = x.value().to_contiguous()?;
    let mask_at = mask.map(|mask| (&mask.value().storage, mask.value().layout.broadcast(x.shape())));
    let mask_at = match &mask_at {
        Some((block, Some(layout))) => Some((*block, layout)),
        _ => None,
    };
    let y: Tensor<T, IxDyn> =
        Tensor::row_major(softmax::forward(kind, x.device(), here.flat(), sizes, mask_at)?, x.shape());
    let operands = [x, mask.unwrap_or(x)];
    let operands = &operands[..if mask.is_some() { 2 } else { 1 }];
    let saved = match kind {
        _ if !Var::records(operands) => None,
        Kind::Softmax => Some(Saved::result(&y)?.into_tensor()),
        // Its exponentials are needed, of which an error of a logarithm is a factor.
        Kind::LogSoftmax => Some(y.clone()),
    };
    let mask_shape = mask.map(|mask| mask.shape().to_vec());
    Ok(Var::record(kind.name(), y, operands, move |dy, flow| {
        let Some(y) = saved else { return Ok(()) };
        let dy = dy.to_contiguous()?;
        let dx = Tensor::row_major(softmax::backward(kind, y.device(), y.flat(), dy.flat(), sizes)?, y.shape());
        if let (true, Some(shape)) = (flow.needs(1), mask_shape) {
            flow.give(1, unbroadcast(dx.clone(), &shape)?)?;
        }
        flow.give(0, dx)
    }))
}

impl<T: Scalar> Var<T> {
    /// The softmax along a mode: positive numbers that sum to 1.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let x = Var::constant(Tensor::from(array![[0.0, 0.0], [1000.0, f64::NEG_INFINITY]]));
    /// assert_eq!(x.softmax(1)?.value().to_vec()?, [0.5, 0.5, 1.0, 0.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the mode does not exist.
    pub fn softmax(&self, mode: usize) -> Result<Self> {
        apply(self, Kind::Softmax, mode, None)
    }

    /// The logarithm of the softmax along a mode, without the rounding of going through it.
    ///
    /// # Errors
    /// As [`softmax`](Var::softmax).
    pub fn log_softmax(&self, mode: usize) -> Result<Self> {
        apply(self, Kind::LogSoftmax, mode, None)
    }

    /// The softmax of `x + mask` along the last mode, without a pass for the sum. The mask broadcasts to x's shape and may itself
    /// have a gradient.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let x = Var::constant(Tensor::from(array![[1.0, 1.0, 5.0], [2.0, 0.0, 7.0]]));
    /// let mask = Var::constant(Tensor::from(array![0.0, 0.0, f64::NEG_INFINITY]));
    /// assert_eq!(&x.masked_softmax(&mask)?.value().to_vec()?[..3], [0.5, 0.5, 0.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the mask does not broadcast or x has no mode; as
    /// [`softmax`](Var::softmax) otherwise.
    pub fn masked_softmax(&self, mask: &Self) -> Result<Self> {
        self.device().check_same(mask.device(), "masked_softmax")?;
        if self.order() == 0 || mask.value().layout.broadcast(self.shape()).is_none() {
            let message = format!("a mask of shape {:?} for scores of shape {:?}", mask.shape(), self.shape());
            return Err(Error::shape("masked_softmax", message));
        }
        apply(self, Kind::Softmax, self.order() - 1, Some(mask))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::{
        check_gradients,
        testing::{close, normal, reversed},
    };

    /// By the definition, with every mode.
    fn naive(x: &Tensor<f64, IxDyn>, mode: usize) -> Vec<f64> {
        let [n, after] = sizes(x.shape(), mode);
        let x = x.to_vec().unwrap();
        let at = |i: usize, j: usize| i / (n * after) * n * after + j * after + i % after;
        (0..x.len()).map(|i| x[i].exp() / (0..n).map(|j| x[at(i, j)].exp()).sum::<f64>()).collect()
    }

    #[test]
    fn the_formulas_and_their_gradients() {
        for shape in [&[5][..], &[3, 4], &[2, 1, 3], &[2, 70], &[1, 3, 70], &[0, 3], &[2, 33, 2]] {
            let x = normal(shape, 1);
            for mode in 0..shape.len() {
                for x in [x.clone(), reversed(&x)] {
                    let v = Var::constant(x.clone());
                    let expected = naive(&x, mode);
                    close(&v.softmax(mode).unwrap().value().to_vec().unwrap(), &expected, 1e-14);
                    let logs: Vec<f64> = expected.iter().map(|y| y.ln()).collect();
                    close(&v.log_softmax(mode).unwrap().value().to_vec().unwrap(), &logs, 1e-14);
                    check_gradients(std::slice::from_ref(&x), 1e-6, |v| v[0].softmax(mode)).unwrap();
                    check_gradients(&[x], 1e-6, |v| v[0].log_softmax(mode)).unwrap();
                }
            }
        }
    }

    #[test]
    fn masks_are_added_and_have_gradients() {
        let x = normal(&[2, 3, 4, 35], 1);
        for shape in [&[35][..], &[4, 1], &[2, 1, 1, 35], &[3, 4, 35], &[1, 3, 1, 35], &[]] {
            let mask = normal(shape, 2);
            for mask in [mask.clone(), reversed(&mask)] {
                let v = |t: &Tensor<f64, IxDyn>| Var::constant(t.clone());
                let expected = v(&x).add(&v(&mask)).unwrap().softmax(3).unwrap();
                let got = v(&x).masked_softmax(&v(&mask)).unwrap();
                close(&got.value().to_vec().unwrap(), &expected.value().to_vec().unwrap(), 1e-15);
            }
        }
        for shape in [&[5][..], &[3, 1], &[2, 1, 5]] {
            check_gradients(&[normal(&[2, 3, 5], 1), normal(shape, 2)], 1e-6, |v| v[0].masked_softmax(&v[1])).unwrap();
        }
    }

    #[test]
    fn what_is_masked_altogether_is_zero() {
        let x = Var::parameter(Tensor::full([2, 3, 2], f64::NEG_INFINITY).unwrap());
        for mode in 0..3 {
            let y = x.softmax(mode).unwrap();
            assert_eq!(y.value().to_vec().unwrap(), [0.0; 12]);
            let gradients = y.sum().unwrap().backward().unwrap();
            assert_eq!(gradients.of(&x).unwrap().to_vec().unwrap(), [0.0; 12]);
            let z = x.log_softmax(mode).unwrap();
            assert!(z.value().to_vec().unwrap().iter().all(|&z| z == f64::NEG_INFINITY));
        }
    }

    #[test]
    fn large_numbers_and_nan() {
        let x = Var::constant(Tensor::from(ndarray::array![[1e30f32, -1e30, 0.0], [f32::NAN, 0.0, 1.0]]));
        let y = x.softmax(1).unwrap().value().to_vec().unwrap();
        assert_eq!(y[..3], [1.0, 0.0, 0.0]);
        assert!(y[3..].iter().all(|y| y.is_nan()));
    }

    #[test]
    fn errors() {
        let x = Var::constant(normal(&[2, 3], 1));
        assert!(x.softmax(2).unwrap_err().to_string().starts_with("softmax: mode 2 does not exist"));
        assert!(x.log_softmax(2).is_err());
        let error = x.masked_softmax(&Var::constant(normal(&[2], 1))).unwrap_err();
        assert_eq!(error.to_string(), "masked_softmax: a mask of shape [2] for scores of shape [2, 3]");
    }
}
