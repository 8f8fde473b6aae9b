//! Rectified linear units: $y = \max(x, 0)$, and $y = \min(\max(x, 0), 6)$.
//!
//! Back, $dx = dy$ where x is strictly inside the linear part, 0 elsewhere; at the kinks 0, as in PyTorch.

use super::{super::Var, gelu::activate};
use crate::{device::activation::Activation, error::Result, scalar::Scalar};

impl<T: Scalar> Var<T> {
    /// $\max(x, 0)$; NaN stays.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let x = Var::constant(Tensor::from(array![-1.0, 0.0, 7.0]));
    /// assert_eq!(x.relu()?.value().to_vec()?, [0.0, 0.0, 7.0]);
    /// assert_eq!(x.relu6()?.value().to_vec()?, [0.0, 0.0, 6.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn relu(&self) -> Result<Self> {
        activate(self, Activation::Relu)
    }

    /// $\min(\max(x, 0), 6)$; NaN stays.
    ///
    /// # Errors
    /// As [`relu`](Var::relu).
    pub fn relu6(&self) -> Result<Self> {
        activate(self, Activation::Relu6)
    }
}

#[cfg(test)]
mod tests {
    use super::super::gelu::tests::check;
    use crate::{Tensor, autodiff::Var};

    #[test]
    fn the_formulas_and_their_gradients() {
        // Away from the kinks.
        let prepare = |x: f64| if x.abs() < 0.1 { 0.5 } else { x };
        check(Var::relu, |x| x.max(0.0), prepare);
        check(Var::relu6, |x| x.clamp(0.0, 6.0), move |x| 4.0 * prepare(x) + 0.1);
    }

    #[test]
    fn kinks_have_no_slope() {
        let x = Var::parameter(Tensor::from(ndarray::array![0.0, 6.0]));
        let slopes = |y: Var<f64>| y.sum().unwrap().backward().unwrap().of(&x).unwrap().to_vec().unwrap();
        assert_eq!(slopes(x.relu().unwrap()), [0.0, 1.0]);
        assert_eq!(slopes(x.relu6().unwrap()), [0.0, 0.0]);
    }
}
