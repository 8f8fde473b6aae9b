//! The exponential, $dx = y\,dy$, and the natural logarithm, $dx = dy / x$.

use super::{super::Var, gelu::activate};
use crate::{device::activation::Activation, error::Result, scalar::Scalar};

impl<T: Scalar> Var<T> {
    /// $e^x$, to one unit in the last place.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let x = Var::parameter(Tensor::from(array![0.0, 1.0]));
    /// let y = x.exp()?;
    /// assert_eq!(y.value().to_vec()?, [1.0, std::f64::consts::E]);
    /// assert_eq!(y.log()?.value().to_vec()?, [0.0, 1.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn exp(&self) -> Result<Self> {
        activate(self, Activation::Exp)
    }

    /// $\ln x$, to one unit in the last place: -inf at 0, NaN below.
    ///
    /// # Errors
    /// As [`exp`](Var::exp).
    pub fn log(&self) -> Result<Self> {
        activate(self, Activation::Log)
    }
}

#[cfg(test)]
mod tests {
    use super::super::gelu::tests::check;
    use crate::autodiff::Var;

    #[test]
    fn the_formulas_and_their_gradients() {
        check(Var::exp, f64::exp, |x| x);
        check(Var::log, f64::ln, |x| x.abs() + 0.5);
    }
}
