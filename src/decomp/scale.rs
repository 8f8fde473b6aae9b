//! Numbers whose squares, or sums of squares, leave the range of their type: solvers divide by a power of two first, which is exact.

use crate::{
    error::{Error, ErrorKind, Result},
    scalar::{DType, Scalar, exponent},
    tensor::Tensor,
};
use ndarray::Dimension;

/// The power of two to divide a tensor of this norm by, so that squares stay in the range of T; 1 where they do anyway.
pub(super) fn unit<T: Scalar>(norm: f64) -> f64 {
    let most = if T::DTYPE == DType::F64 { 1e140 } else { 1e15 };
    if norm == 0.0 || !norm.is_finite() || (1.0 / most..=most).contains(&norm) {
        return 1.0;
    }
    2f64.powi(exponent::<T>(norm))
}

/// X divided by such a unit; X itself for 1.
pub(super) fn divided<T: Scalar, D: Dimension>(x: &Tensor<T, D>, unit: f64) -> Result<Tensor<T, D>> {
    if unit == 1.0 { Ok(x.clone()) } else { x.scale(T::of(1.0 / unit)) }
}

/// An error where a tensor is not finite, or its norm is more than T holds.
pub(super) fn check_norm<T: Scalar, D: Dimension>(operation: &'static str, x: &Tensor<T, D>, norm: f64) -> Result<()> {
    if norm <= T::max_value().f64() {
        return Ok(());
    }
    x.check_finite(operation)?;
    let message = format!("the norm of the tensor is beyond what {} holds; scale it down first", T::DTYPE);
    Err(Error::new(ErrorKind::Value, operation, message))
}

/// A number times a power of two, which need not be a double itself.
pub(super) fn times_power(mut x: f64, mut exponent: i32) -> f64 {
    while exponent != 0 {
        let step = exponent.clamp(-1000, 1000);
        x *= 2f64.powi(step);
        exponent -= step;
    }
    x
}

/// A product that is in range where its own size is, whatever the products of some of its numbers are.
pub(super) fn product(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let (mut share, mut power) = (1.0, 0);
    for x in numbers {
        let own = exponent::<f64>(x.abs());
        share *= times_power(x, -own);
        power += own;
    }
    times_power(share, power)
}
