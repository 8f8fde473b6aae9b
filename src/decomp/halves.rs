//! The dimension tree of the iterative Tucker solvers: the modes in two halves, so that a sweep passes over X twice.

use crate::{error::Result, scalar::Scalar, tensor::Tensor};
use ndarray::{Dimension, Ix2};
use std::ops::Range;

/// Projects some modes on their factors.
pub(super) fn project<T: Scalar, D: Dimension>(
    x: &Tensor<T, D>,
    factors: &[Tensor<T, Ix2>],
    modes: impl Iterator<Item = usize>,
) -> Result<Tensor<T, D>> {
    let views: Vec<(usize, Tensor<T, Ix2>)> = modes.map(|m| (m, factors[m].t())).collect();
    x.mode_products(&views.iter().map(|(m, f)| (*m, f)).collect::<Vec<_>>())
}

/// The two halves of the modes between which the dimension tree alternates: the split for which what is left of X after
/// projecting one half is smallest in all.
pub(super) fn halves(shape: &[usize], ranks: &[usize]) -> (Range<usize>, Range<usize>) {
    let size = |full: Range<usize>| -> f64 {
        (0..shape.len()).map(|m| if full.contains(&m) { shape[m] } else { ranks[m] } as f64).product()
    };
    let n = shape.len();
    let cost = |split: &usize| size(0..*split) + size(*split..n);
    // Where it makes no difference the last modes are projected first: their fibres lie along memory.
    let split = (1..n).rev().min_by(|a, b| cost(a).total_cmp(&cost(b))).unwrap_or(n);
    (0..split, split..n)
}
