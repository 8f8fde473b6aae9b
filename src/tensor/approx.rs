//! Comparing tensors: exactly, and with the tolerances of the [`approx`] crate.

use super::Tensor;
use crate::scalar::{Element, Scalar};
use approx::{AbsDiffEq, RelativeEq};
use ndarray::Dimension;

impl<T: Element, D: Dimension> PartialEq for Tensor<T, D> {
    /// Whether shapes and all entries are equal. Tensors on a GPU are brought to the host for it; where that fails they
    /// are not equal.
    fn eq(&self, other: &Self) -> bool {
        self.compare(other, |a, b| a == b)
    }
}

impl<T: Element, D: Dimension> Tensor<T, D> {
    fn compare(&self, other: &Self, same: impl Fn(&T, &T) -> bool) -> bool {
        if self.shape() != other.shape() {
            return false;
        }
        let (Ok(a), Ok(b)) = (self.to_host(), other.to_host()) else { return false };
        let (Ok(a), Ok(b)) = (a.view(), b.view()) else { return false };
        a.iter().zip(b.iter()).all(|(a, b)| same(a, b))
    }
}

impl<T: Scalar + AbsDiffEq<Epsilon = T>, D: Dimension> AbsDiffEq for Tensor<T, D> {
    type Epsilon = T;

    fn default_epsilon() -> T {
        T::default_epsilon()
    }

    fn abs_diff_eq(&self, other: &Self, epsilon: T) -> bool {
        self.compare(other, |a, b| a.abs_diff_eq(b, epsilon))
    }
}

impl<T: Scalar + RelativeEq<Epsilon = T>, D: Dimension> RelativeEq for Tensor<T, D> {
    fn default_max_relative() -> T {
        T::default_max_relative()
    }

    /// Entry by entry, as [`approx`] does it for numbers.
    fn relative_eq(&self, other: &Self, epsilon: T, max_relative: T) -> bool {
        self.compare(other, |a, b| a.relative_eq(b, epsilon, max_relative))
    }
}
