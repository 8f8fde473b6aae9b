//! The Gaussian error linear unit and its approximation by a hyperbolic tangent.
//!
//! With the normal distribution $\Phi(x) = \frac12 (1 + \operatorname{erf}(x / \sqrt2))$ and its density $\varphi$:
//!
//! $$y = x\,\Phi(x), \qquad dx = dy\,(\Phi(x) + x\,\varphi(x)).$$
//!
//! The approximation is $y = x\,\sigma(2u)$ with $u = \sqrt{2/\pi}\,(x + 0.044715\,x^3)$, which is
//! $\frac{x}{2}(1 + \tanh u)$, and $dx = dy\,(s + x\,s(1 - s)\,2u')$ with $s = \sigma(2u)$.
//!
//! Both read x once and write y once; back, they read x and dy and write dx. Only x is kept, which is there anyway.
//!
//! D. Hendrycks, K. Gimpel, *Gaussian Error Linear Units*, arXiv:1606.08415.

use super::super::{Saved, Var};
use crate::{
    device::activation::{self, Activation},
    error::Result,
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;

/// The activation of every entry; what [`Activation::saves_result`] names is kept for the way back.
pub(super) fn activate<T: Scalar>(x: &Var<T>, f: Activation) -> Result<Var<T>> {
    let here = x.value().to_contiguous()?;
    let y: Tensor<T, IxDyn> = Tensor::row_major(activation::forward(f, here.flat())?, x.shape());
    let saved = match Var::records(&[x]) {
        true if f.saves_result() => Some(Saved::result(&y)?),
        true => Some(Saved::operand(x, &here)?),
        false => None,
    };
    Ok(Var::record(f.name(), y, &[x], move |dy, flow| {
        let Some(saved) = saved.map(Saved::into_tensor) else { return Ok(()) };
        let dx = activation::backward(f, saved.flat(), dy.to_contiguous()?.flat())?;
        flow.give(0, Tensor::row_major(dx, saved.shape()))
    }))
}

impl<T: Scalar> Var<T> {
    /// $x\,\Phi(x)$, by the error function: what PyTorch's `gelu` does.
    ///
    /// The absolute error of $\Phi$ is 1.7e-7 in f32 (three units in the last place) and 1e-16 in f64.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let x = Var::constant(Tensor::from(array![-1.0_f64, 0.0, 2.0]));
    /// let y = x.gelu()?.value().to_vec()?;
    /// assert!((y[0] + 0.15865525393145707).abs() < 1e-15);
    /// assert_eq!(y[1], 0.0);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn gelu(&self) -> Result<Self> {
        activate(self, Activation::Gelu)
    }

    /// The approximation of [`gelu`](Var::gelu) by a hyperbolic tangent: `gelu(approximate="tanh")` in PyTorch, `gelu_new` in
    /// transformers.
    ///
    /// # Errors
    /// As [`gelu`](Var::gelu).
    pub fn gelu_tanh(&self) -> Result<Self> {
        activate(self, Activation::GeluTanh)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::autodiff::{
        check_gradients,
        testing::{close, normal, reversed},
    };
    use crate::device::cpu::math::Elementary;

    /// Compares with a formula, and the gradient with differences, over shapes that are awkward.
    pub(in super::super) fn check(
        operation: impl Fn(&Var<f64>) -> Result<Var<f64>> + Copy,
        formula: impl Fn(f64) -> f64,
        prepare: impl Fn(f64) -> f64 + Sync + Copy,
    ) {
        for shape in [&[1][..], &[3, 5], &[0, 4], &[2, 1, 3], &[], &[67]] {
            let x = normal(shape, 1).map(prepare).unwrap();
            for x in [x.clone(), reversed(&x)] {
                let y = operation(&Var::constant(x.clone())).unwrap();
                assert_eq!(y.shape(), shape);
                let expected: Vec<f64> = x.to_vec().unwrap().into_iter().map(&formula).collect();
                close(&y.value().to_vec().unwrap(), &expected, 1e-14);
                check_gradients(&[x], 1e-6, |v| operation(&v[0])).unwrap();
            }
        }
        assert!(operation(&Var::constant(Tensor::from(ndarray::array![f64::NAN]))).unwrap().item().unwrap().is_nan());
    }

    #[test]
    fn the_formulas_and_their_gradients() {
        check(Var::gelu, |x| 0.5 * x * (1.0 + (x / 2f64.sqrt()).error_function()), |x| x);
        let u = |x: f64| (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        check(Var::gelu_tanh, |x| 0.5 * x * (1.0 + u(x).tanh()), |x| x);
    }

    #[test]
    fn far_out_it_is_the_identity_or_nothing() {
        let x = Var::parameter(Tensor::from(ndarray::array![-1e30f32, -40.0, 40.0, 1e30]));
        for y in [x.gelu().unwrap(), x.gelu_tanh().unwrap()] {
            assert_eq!(y.value().to_vec().unwrap(), [0.0, 0.0, 40.0, 1e30]);
            assert_eq!(y.sum().unwrap().backward().unwrap().of(&x).unwrap().to_vec().unwrap(), [0.0, 0.0, 1.0, 1.0]);
        }
    }
}
