//! The logistic function, its product with x (SiLU), and the hyperbolic tangent.
//!
//! With $\sigma(x) = 1 / (1 + e^{-x})$:
//!
//! | | $y$ | $dx / dy$ | kept |
//! |---|---|---|---|
//! | `sigmoid` | $\sigma(x)$ | $y (1 - y)$ | y |
//! | `silu` | $x\,\sigma(x)$ | $\sigma(x) (1 + x (1 - \sigma(x)))$ | x |
//! | `tanh` | $\tanh x$ | $1 - y^2$ | y |

use super::{super::Var, gelu::activate};
use crate::{device::activation::Activation, error::Result, scalar::Scalar};

impl<T: Scalar> Var<T> {
    /// $1 / (1 + e^{-x})$.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let x = Var::constant(Tensor::from(array![0.0, -1000.0, 1000.0]));
    /// assert_eq!(x.sigmoid()?.value().to_vec()?, [0.5, 0.0, 1.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn sigmoid(&self) -> Result<Self> {
        activate(self, Activation::Sigmoid)
    }

    /// $x / (1 + e^{-x})$, also called swish.
    ///
    /// # Errors
    /// As [`sigmoid`](Var::sigmoid).
    pub fn silu(&self) -> Result<Self> {
        activate(self, Activation::Silu)
    }

    /// $\tanh x$.
    ///
    /// # Errors
    /// As [`sigmoid`](Var::sigmoid).
    pub fn tanh(&self) -> Result<Self> {
        activate(self, Activation::Tanh)
    }
}

#[cfg(test)]
mod tests {
    use super::super::gelu::tests::check;
    use crate::autodiff::Var;

    #[test]
    fn the_formulas_and_their_gradients() {
        check(Var::sigmoid, |x| 1.0 / (1.0 + (-x).exp()), |x| 3.0 * x);
        check(Var::silu, |x| x / (1.0 + (-x).exp()), |x| 3.0 * x);
        check(Var::tanh, f64::tanh, |x| x);
    }
}
