//! One sweep of CP-ALS: every factor in turn, on the dimension tree.

use super::{
    normal::{Left, rows, solve, well_conditioned},
    tucker::unit_columns,
};
use crate::{
    algebra::{MttkrpHalf as Half, inner_unread},
    error::Result,
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Dimension, Ix1, Ix2};

/// What is decomposed, divided by its unit.
pub(super) struct Problem<'a, T: Scalar, D: Dimension> {
    /// With zeros where entries are missing.
    pub(super) x: &'a Tensor<T, D>,
    /// Where entries are missing: 1 for each that is known.
    pub(super) mask: Option<&'a Tensor<T, D>>,
    pub(super) norm: f64,
    pub(super) unit: f64,
    pub(super) non_negative: Vec<bool>,
    /// The modes whose factors stay as they are.
    pub(super) fixed: Vec<bool>,
}

impl<T: Scalar, D: Dimension> Problem<'_, T, D> {
    /// The first mode whose factor is found.
    pub(super) fn first(&self) -> usize {
        self.fixed.iter().position(|fixed| !fixed).unwrap_or(0)
    }
}

/// Where a run stands between two sweeps. Clones share their blocks.
#[derive(Clone)]
pub(super) struct State<T: Scalar> {
    pub(super) factors: Vec<Tensor<T, Ix2>>,
    left: Left<T>,
    /// `1 x R`.
    pub(super) weights: Tensor<T, Ix2>,
}

/// What a sweep says of itself.
pub(super) struct Found {
    /// <X, X'>.
    pub(super) inner: f64,
    /// <X', X'>, over the known entries.
    pub(super) own: f64,
    /// The norm of the weights.
    pub(super) weights: f64,
    /// Whether a V was so close to singular that its Cholesky factor should not have been used: the sweep is to be done again, carefully.
    pub(super) near_singular: bool,
}

impl<T: Scalar> State<T> {
    pub(super) fn new<D: Dimension>(problem: &Problem<'_, T, D>, factors: Vec<Tensor<T, Ix2>>) -> Result<Self> {
        let weights = Tensor::ones([1, factors[0].shape()[1]])?.to_device(problem.x.device())?;
        Ok(Self { left: Left::new(&factors, problem.mask.is_some())?, weights, factors })
    }

    /// One sweep over all modes. Unless it is careful, the host asks for numbers at the end only, all at once.
    pub(super) fn sweep<D: Dimension>(
        &mut self,
        problem: &Problem<'_, T, D>,
        halves: &[Half],
        careful: bool,
    ) -> Result<Found> {
        let order = problem.x.order();
        let (mut inner, mut own) = (None, None);
        let mut pivots = Vec::new();
        for half in halves {
            let part = half.contract(problem.x, &self.factors)?;
            let seen = self.left.contract(*half, problem.mask)?;
            for mode in half.modes(order) {
                // The last one is looked at for what it says of the error.
                if problem.fixed[mode] && mode + 1 < order {
                    continue;
                }
                let m = part.mode(mode, &self.factors)?;
                let v = self.left.of(mode, seen.as_ref())?;
                let non_negative = problem.non_negative[mode];
                let unscaled = if problem.fixed[mode] {
                    self.factors[mode].mul(&self.weights)?
                } else if seen.is_some() || non_negative {
                    rows(&m, (&v, seen.is_some()), &self.factors[mode].mul(&self.weights)?, non_negative)?
                } else {
                    solve(&m, &v, (!careful).then_some(&mut pivots))?
                };
                if !problem.fixed[mode] {
                    let (mut factor, norms) = unit_columns(&unscaled)?;
                    if non_negative {
                        factor = revived(&factor, &norms)?;
                    }
                    self.weights = norms;
                    self.left.update(mode, &factor)?;
                    self.factors[mode] = factor;
                }
                if mode + 1 == order {
                    // <X, X'> = sum of M_n * A_n, with the weights in.
                    inner = Some(inner_unread(&m, &unscaled)?);
                    own = Some(self.left.own(&self.weights, (&unscaled, &v))?);
                }
            }
        }
        let w = self.weights.cast::<f64>()?;
        let weights = w.matmul(&w.t())?.reshaped::<Ix1>(&[1])?;
        let numbers = inner.iter().chain(&own).chain([&weights]).chain(&pivots).collect::<Vec<_>>();
        let numbers = Tensor::concat(&numbers, 0)?.to_vec()?;
        let (sums, pivots) = numbers.split_at(3);
        Ok(Found {
            inner: sums[0],
            own: sums[1],
            weights: sums[2].sqrt(),
            near_singular: pivots.chunks(2).any(|p| !well_conditioned::<T>(p)),
        })
    }
}

/// Columns of norm 1 in the place of zero ones, all entries alike: a component that has died weighs nothing, but the next factor can bring it
/// back.
fn revived<T: Scalar>(factor: &Tensor<T, Ix2>, norms: &Tensor<T, Ix2>) -> Result<Tensor<T, Ix2>> {
    let entry = T::of(1.0 / (factor.shape()[0] as f64).sqrt());
    // 0 / 0 is not a number.
    let alive = norms.div(norms)?.known()?;
    factor.add(&alive.scale(-entry)?.shift(entry)?)
}
