//! Decompositions in either format drawn at random, with the tensors that they stand for by the formula.

use crate::support::{Operands, by_formula, sum_over};
use ndarray::ArrayD;
use proptest::prelude::*;
use tenfold::{
    Scalar,
    decomp::{Cp, Tucker},
};

/// One drawn problem; ranks and entries follow from the seed.
#[derive(Debug, Clone)]
pub struct Case {
    pub seed: u64,
    pub shape: Vec<usize>,
    pub threads: usize,
}

pub fn check(cases: u32, test: impl Fn(&Case)) {
    let shape = (1usize..=6).prop_flat_map(|order| {
        let most = [5usize, 5, 5, 4, 3, 2][order - 1];
        prop::collection::vec(1..=most, order)
    });
    let case = (any::<u64>(), shape, 1usize..=3).prop_map(|(seed, shape, threads)| Case { seed, shape, threads });
    proptest!(ProptestConfig { cases, failure_persistence: None, ..Default::default() }, |(case in case)| test(&case));
}

/// `X[i] = sum_j G[j] A_0[i_0, j_0] A_1[i_1, j_1] ..`
pub fn tucker_formula(core: &ArrayD<f64>, factors: &[ArrayD<f64>]) -> ArrayD<f64> {
    let shape: Vec<usize> = factors.iter().map(|f| f.shape()[0]).collect();
    by_formula(&shape, |i| {
        sum_over(core.shape(), |j| core[j] * factors.iter().enumerate().map(|(m, f)| f[[i[m], j[m]]]).product::<f64>())
    })
}

/// `X[i] = sum_r w[r] A_0[i_0, r] A_1[i_1, r] ..`
pub fn cp_formula(weights: &ArrayD<f64>, factors: &[ArrayD<f64>]) -> ArrayD<f64> {
    let shape: Vec<usize> = factors.iter().map(|f| f.shape()[0]).collect();
    by_formula(&shape, |i| {
        sum_over(weights.shape(), |r| {
            weights[r[0]] * factors.iter().enumerate().map(|(m, f)| f[[i[m], r[0]]]).product::<f64>()
        })
    })
}

/// A decomposition, the tensor it stands for, and what rounding may do to an entry of it.
pub struct Drawn<M> {
    pub format: M,
    pub dense: ArrayD<f64>,
    pub bound: f64,
}

/// Ranks up to 5, above some of the sizes.
pub fn draw_tucker<T: Scalar>(operands: &mut Operands, shape: &[usize]) -> Drawn<Tucker<T>> {
    let most = [5, 5, 5, 4, 3, 3][shape.len() - 1];
    let ranks: Vec<usize> = shape.iter().map(|_| operands.size(most)).collect();
    let (core, core_entries) = operands.tensor::<T>(&ranks);
    let (factors, entries): (Vec<_>, Vec<_>) =
        shape.iter().zip(&ranks).map(|(&n, &r)| operands.matrix::<T>(n, r)).unzip();
    let dense = tucker_formula(&core_entries, &entries);
    let abs: Vec<_> = entries.iter().map(|f| f.mapv(f64::abs)).collect();
    let terms: usize = ranks.iter().sum();
    let bound = rounding::<T>(terms + 2 * shape.len(), &tucker_formula(&core_entries.mapv(f64::abs), &abs));
    Drawn { format: Tucker::new(core, factors).unwrap(), dense, bound }
}

pub fn draw_cp<T: Scalar>(operands: &mut Operands, shape: &[usize]) -> Drawn<Cp<T>> {
    let rank = operands.size(6);
    let (weights, weight_entries) = operands.vector::<T>(rank);
    let (factors, entries) = operands.factors::<T>(shape, rank);
    let dense = cp_formula(&weight_entries, &entries);
    let abs: Vec<_> = entries.iter().map(|f| f.mapv(f64::abs)).collect();
    let bound = rounding::<T>(rank + 2 * shape.len(), &cp_formula(&weight_entries.mapv(f64::abs), &abs));
    Drawn { format: Cp::new(weights, factors).unwrap(), dense, bound }
}

/// Sums of so many terms, of which the absolute values add up to `magnitude`.
pub fn rounding<T: Scalar>(terms: usize, magnitude: &ArrayD<f64>) -> f64 {
    2.0 * terms as f64 * T::epsilon().f64() * magnitude.iter().fold(0.0f64, |a, &b| a.max(b))
}

pub fn norm(x: &ArrayD<f64>) -> f64 {
    x.iter().map(|v| v * v).sum::<f64>().sqrt()
}
