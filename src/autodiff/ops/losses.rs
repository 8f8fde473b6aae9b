//! Losses of entries with entries: the mean squared error, and the binary cross-entropy of logits.
//!
//! Over $n$ entries,
//!
//! $$L = \frac1n \sum_i (x_i - t_i)^2, \qquad dx_i = \frac2n (x_i - t_i)\\, dL, \qquad dt = -dx,$$
//!
//! and for logits $x$ and targets $t$ between 0 and 1, with $p = 1 / (1 + e^{-x})$,
//!
//! $$L = -\frac1n \sum_i \left( t_i \log p_i + (1 - t_i) \log (1 - p_i) \right)
//! = \frac1n \sum_i \left( \max(x_i, 0) - x_i t_i + \log (1 + e^{-\lvert x_i \rvert}) \right),$$
//!
//! whose last form overflows nowhere; $dx_i = (p_i - t_i)\\, dL / n$ and $dt_i = -x_i\\, dL / n$.

use super::super::Var;
use crate::{
    device::{
        losses,
        reduce::{self, Total},
    },
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;

/// Every entry times a single number that lives where they do.
fn times<T: Scalar>(x: &Tensor<T, IxDyn>, number: Tensor<T, IxDyn>) -> Result<Tensor<T, IxDyn>> {
    x.mul(&number.broadcast_to(x.shape())?)
}

impl<T: Scalar> Var<T> {
    fn check_loss(&self, operation: &'static str, target: &Self) -> Result<()> {
        self.device().check_same(target.device(), operation)?;
        if self.shape() != target.shape() {
            let message = format!("shape {:?} for targets of shape {:?}", self.shape(), target.shape());
            return Err(Error::shape(operation, message));
        }
        if self.is_empty() {
            return Err(Error::shape(operation, format!("shape {:?} has no entries to take a mean of", self.shape())));
        }
        Ok(())
    }

    /// The mean of the squared differences from a target of the same shape; a single number.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the shapes differ or there are no entries,
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) where the target is elsewhere.
    pub fn mse_loss(&self, target: &Self) -> Result<Self> {
        self.check_loss("mse_loss", target)?;
        let difference = self.value().sub(target.value())?;
        let mean = 1.0 / self.len() as f64;
        let squares = reduce::scaled_total(Total::Squares, mean, &difference.storage, &difference.layout)?;
        let value: Tensor<T, IxDyn> = Tensor::row_major(squares, &[]);
        Ok(Self::record("mse_loss", value, &[self, target], move |dy, flow| {
            if flow.needs(1) {
                flow.give(1, times(&difference, dy.scale(T::of(-2.0 * mean))?)?)?;
            }
            if flow.needs(0) {
                flow.give(0, times(&difference, dy.scale(T::of(2.0 * mean))?)?)?;
            }
            Ok(())
        }))
    }

    /// The mean binary cross-entropy of these logits with targets between 0 and 1, of the same shape; a single number.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let logits = Var::parameter(Tensor::from(array![0.0, 1000.0]));
    /// let loss = logits.bce_with_logits(&Tensor::from(array![1.0, 1.0]).into())?;
    /// assert!((loss.item()? - 2f64.ln() / 2.0).abs() < 1e-15);
    /// assert_eq!(loss.backward()?.of(&logits)?.to_vec()?, [-0.25, 0.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`mse_loss`](Var::mse_loss).
    pub fn bce_with_logits(&self, target: &Self) -> Result<Self> {
        self.check_loss("bce_with_logits", target)?;
        let (x, t) = (self.value().to_contiguous()?, target.value().to_contiguous()?);
        let n = self.len();
        let blocks = ((&x.storage, x.layout.offset()), (&t.storage, t.layout.offset()));
        let wanted = self.needs_gradient() && Self::records(&[self]);
        let (loss, gradient) = losses::binary_cross_entropy(blocks.0, blocks.1, n, wanted)?;
        let value: Tensor<T, IxDyn> = Tensor::row_major(loss, &[]);
        let shape = self.shape().to_vec();
        let logits = target.needs_gradient().then_some(x);
        Ok(Self::record("bce_with_logits", value, &[self, target], move |dy, flow| {
            if let (true, Some(logits)) = (flow.needs(1), logits) {
                flow.give(1, times(&logits, dy.scale(T::of(-1.0 / n as f64))?)?)?;
            }
            if let (true, Some(gradient)) = (flow.needs(0), gradient) {
                flow.give(0, Tensor::row_major(losses::scaled(gradient, n, dy.flat())?, &shape))?;
            }
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::{
        check_gradients,
        testing::{normal, reversed},
    };

    #[test]
    fn formulas_and_gradients() {
        for shape in [&[3, 4, 5][..], &[1], &[], &[2, 33]] {
            let x = normal(shape, 1);
            let t = normal(shape, 2).map(|x| 1.0 / (1.0 + x.exp())).unwrap();
            for (x, t) in [(x.clone(), t.clone()), (reversed(&x), t.clone()), (x.clone(), reversed(&t))] {
                let both: Vec<(f64, f64)> = x.to_vec().unwrap().into_iter().zip(t.to_vec().unwrap()).collect();
                let n = both.len() as f64;
                let (vx, vt) = (Var::constant(x.clone()), Var::constant(t.clone()));
                let squares = both.iter().map(|(x, t)| (x - t) * (x - t)).sum::<f64>() / n;
                assert!((vx.mse_loss(&vt).unwrap().item().unwrap() - squares).abs() < 1e-14);
                let entropy = |&(x, t): &(f64, f64)| {
                    let p = 1.0 / (1.0 + (-x).exp());
                    -(t * p.ln() + (1.0 - t) * (1.0 - p).ln())
                };
                let expected = both.iter().map(entropy).sum::<f64>() / n;
                assert!((vx.bce_with_logits(&vt).unwrap().item().unwrap() - expected).abs() < 1e-14);
                check_gradients(&[x.clone(), t.clone()], 1e-6, |v| v[0].mse_loss(&v[1])?.scale(3.0)).unwrap();
                check_gradients(&[x.clone(), t.clone()], 1e-6, |v| v[0].bce_with_logits(&v[1])?.scale(3.0)).unwrap();
                check_gradients(std::slice::from_ref(&x), 1e-6, |v| v[0].bce_with_logits(&vt)).unwrap();
                check_gradients(std::slice::from_ref(&t), 1e-6, |v| vx.bce_with_logits(&v[0])).unwrap();
            }
        }
    }

    #[test]
    fn far_logits_keep_their_digits() {
        for (x, t, expected) in
            [(-80.0, 0.0, (-80f64).exp()), (800.0, 0.0, 800.0), (-800.0, 1.0, 800.0), (20.0, 1.0, 2.061153620314381e-9)]
        {
            let x = Var::constant(Tensor::from(ndarray::array![x]));
            let loss = x.bce_with_logits(&Var::constant(Tensor::from(ndarray::array![t]))).unwrap().item().unwrap();
            assert!((loss / expected - 1.0).abs() < 1e-12, "{loss} {expected}");
        }
    }

    #[test]
    fn errors() {
        let (x, t) = (Var::constant(normal(&[2], 1)), Var::constant(normal(&[3], 1)));
        assert_eq!(x.mse_loss(&t).unwrap_err().to_string(), "mse_loss: shape [2] for targets of shape [3]");
        assert!(x.bce_with_logits(&t).is_err());
        let none = Var::constant(normal(&[0], 1));
        assert!(none.mse_loss(&none).is_err() && none.bce_with_logits(&none).is_err());
    }
}
