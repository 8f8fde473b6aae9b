//! The normal equations of CP's factors: what stands on their left side, and their solution.

use crate::{
    algebra::{MttkrpHalf as Half, MttkrpPartial as Partial, hadamard, inner_unread},
    device::least_squares::{self, Normal, Rule},
    error::Result,
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Dimension, Ix1, Ix2};

/// From what the left sides are made, mode by mode.
#[derive(Clone)]
pub(super) enum Left<T: Scalar> {
    /// All entries are known: A^T A of each factor, in doubles. The entrywise product of all others serves every row.
    Grams(Vec<Tensor<f64, Ix2>>),
    /// Entries are missing, and rows have seen different ones. Products of the columns of each factor by twos, `I_n x R (R + 1) / 2`: their
    /// MTTKRP with the mask has the matrix of row i in its row i.
    Pairs {
        pairs: Vec<Tensor<T, Ix2>>,
        /// `A left * A right` are the products of the columns of A.
        picks: Box<[Tensor<T, Ix2>; 2]>,
    },
}

impl<T: Scalar> Left<T> {
    pub(super) fn new(factors: &[Tensor<T, Ix2>], missing: bool) -> Result<Self> {
        if !missing {
            return Ok(Left::Grams(factors.iter().map(|f| f.gram(1)).collect::<Result<_>>()?));
        }
        let (rank, device) = (factors[0].shape()[1], factors[0].device());
        let pick = |right: bool| -> Result<Tensor<T, Ix2>> {
            let columns = (0..rank).flat_map(|r| (0..=r).map(move |s| if right { s } else { r }));
            let columns: Vec<usize> = columns.collect();
            let entry = |i: &[usize]| if columns[i[1]] == i[0] { T::one() } else { T::zero() };
            Tensor::from_fn([rank, columns.len()], entry)?.to_device(device)
        };
        let picks = Box::new([pick(false)?, pick(true)?]);
        let pairs = factors.iter().map(|f| pairs_of(f, &picks)).collect::<Result<_>>()?;
        Ok(Left::Pairs { pairs, picks })
    }

    /// A factor has changed.
    pub(super) fn update(&mut self, mode: usize, factor: &Tensor<T, Ix2>) -> Result<()> {
        match self {
            Left::Grams(grams) => grams[mode] = factor.gram(1)?,
            Left::Pairs { pairs, picks } => pairs[mode] = pairs_of(factor, picks)?,
        }
        Ok(())
    }

    /// What the mask is after one half of the modes is contracted.
    pub(super) fn contract<D: Dimension>(&self, half: Half, mask: Option<&Tensor<T, D>>) -> Result<Option<Partial<T>>> {
        match (self, mask) {
            (Left::Pairs { pairs, .. }, Some(mask)) => half.contract(mask, pairs).map(Some),
            _ => Ok(None),
        }
    }

    /// The left side for one mode, in doubles: `[R, R]` for all rows, or `[I_n, R (R + 1) / 2]`.
    pub(super) fn of(&self, mode: usize, seen: Option<&Partial<T>>) -> Result<Tensor<f64, Ix2>> {
        match (self, seen) {
            (Left::Grams(grams), _) => product_but(grams, Some(mode)),
            (Left::Pairs { pairs, .. }, Some(seen)) => seen.mode(mode, pairs)?.cast(),
            (Left::Pairs { .. }, None) => unreachable!("a mask is contracted wherever entries are missing"),
        }
    }

    /// <X', X'> over the known entries, for weights and factors of columns of norm 1, and the last factor with the weights in and its left
    /// side. Nobody waits.
    pub(super) fn own(
        &self,
        weights: &Tensor<T, Ix2>,
        (unscaled, left): (&Tensor<T, Ix2>, &Tensor<f64, Ix2>),
    ) -> Result<Tensor<f64, Ix1>> {
        match self {
            Left::Grams(grams) => {
                let w = weights.cast::<f64>()?;
                w.matmul(&product_but(grams, None)?)?.matmul(&w.t())?.reshaped(&[1])
            }
            Left::Pairs { picks, .. } => {
                // Off the diagonal every pair stands for two.
                let times = picks[0].mul(&picks[1])?.sum_modes(&[0])?.scale(-T::one())?.shift(T::of(2.0))?;
                let pairs = pairs_of(unscaled, picks)?.mul(&times.insert_mode(0)?.into_order()?)?;
                inner_unread(&pairs.cast::<f64>()?, left)
            }
        }
    }
}

/// The products of the columns of a factor by twos.
fn pairs_of<T: Scalar>(factor: &Tensor<T, Ix2>, picks: &[Tensor<T, Ix2>; 2]) -> Result<Tensor<T, Ix2>> {
    factor.matmul(&picks[0])?.mul(&factor.matmul(&picks[1])?)
}

/// The entrywise product of all Gram matrices, or of all but one.
fn product_but(grams: &[Tensor<f64, Ix2>], but: Option<usize>) -> Result<Tensor<f64, Ix2>> {
    let kept: Vec<&Tensor<f64, Ix2>> =
        grams.iter().enumerate().filter(|&(mode, _)| Some(mode) != but).map(|(_, g)| g).collect();
    if kept.is_empty() {
        let rank = grams[0].shape()[0];
        return Tensor::ones([rank, rank])?.to_device(grams[0].device());
    }
    hadamard(&kept)
}

/// Every row of a factor on its own, from where it is: the least squares for M and a left side, of numbers that may be negative or not. What
/// the data say nothing of stays.
pub(super) fn rows<T: Scalar>(
    m: &Tensor<T, Ix2>,
    (left, own): (&Tensor<f64, Ix2>, bool),
    start: &Tensor<T, Ix2>,
    non_negative: bool,
) -> Result<Tensor<T, Ix2>> {
    let (rows, rank) = (m.shape()[0], m.shape()[1]);
    let rule = if non_negative { Rule::NonNegative } else { Rule::Free { cut: cut::<T>() } };
    let [m, left, start] = [m.cast::<f64>()?.to_contiguous()?, left.to_contiguous()?, start.cast()?.to_contiguous()?];
    let operands = [m.flat(), left.flat(), start.flat()];
    let found = least_squares::solve(m.device(), Normal { rows, rank, own }, rule, operands)?;
    Tensor::<f64, Ix2>::row_major(found, &[rows, rank]).cast()
}

/// Left sides as small as this share of their largest direction, or of a component's own square, are noise: M is rounded to T, and such a
/// direction turns that into an error of eps / sqrt(cut) in the tensor.
pub(super) fn cut<T: Scalar>() -> f64 {
    64.0 * T::epsilon().f64()
}

/// Whether the smallest and the largest pivot of V say that it is far from singular.
pub(super) fn well_conditioned<T: Scalar>(pivots: &[f64]) -> bool {
    pivots[0] > cut::<T>().sqrt() * pivots[1]
}

/// M V^-1 for a symmetric positive semidefinite V: by its Cholesky factor, and where V is close to singular by its eigenvalues without the
/// vanishing ones. With a place for the pivots the factor is used whatever they say: whoever reads them later judges.
pub(super) fn solve<T: Scalar>(
    m: &Tensor<T, Ix2>,
    v: &Tensor<f64, Ix2>,
    later: Option<&mut Vec<Tensor<f64, Ix1>>>,
) -> Result<Tensor<T, Ix2>> {
    let rhs = m.cast::<f64>()?.t();
    let (l, pivots) = v.cholesky_unread()?;
    let usable = match later {
        Some(all) => {
            all.push(pivots);
            true
        }
        None => well_conditioned::<T>(&pivots.to_vec()?),
    };
    if usable {
        return l.cholesky_solve(&rhs)?.t().cast();
    }
    let (values, vectors) = v.eigh()?;
    let values = values.to_vec()?;
    let least = values.first().copied().unwrap_or(0.0).max(0.0) * cut::<T>();
    let inverse: Vec<f64> = values.iter().map(|&x| if x > least { 1.0 / x } else { 0.0 }).collect();
    let inverse = Tensor::from_vec([1, inverse.len()], inverse)?.to_device(v.device())?;
    let scaled = vectors.mul(&inverse)?;
    scaled.matmul(&vectors.t().matmul(&rhs)?)?.t().cast()
}
