//! CP tensors whose parts are much larger or smaller than they are together: products of some of their columns leave the range of
//! numbers, the product of all does not. Columns and weights are multiplied with powers of two first, which is exact.

use super::{cp::Cp, scale::times_power, tucker::unit_columns};
use crate::{
    error::Result,
    scalar::{DType, Scalar, exponent},
    tensor::Tensor,
};
use ndarray::{Dimension, Ix2};

/// How large the parts of each component are, as exponents of powers of two.
struct Powers {
    /// Of each factor's columns.
    factors: Vec<Vec<i32>>,
    weights: Vec<i32>,
    /// The components that are zero.
    zero: Vec<bool>,
}

impl Powers {
    /// Exponents that come to no more than this leave nothing out of range.
    fn most<T: Scalar>() -> i32 {
        if T::DTYPE == DType::F64 { 900 } else { 100 }
    }

    fn of<T: Scalar, D: Dimension>(cp: &Cp<T, D>) -> Result<Self> {
        let exponents = |sizes: &[T]| sizes.iter().map(|size| exponent::<T>(size.f64().abs())).collect::<Vec<i32>>();
        let weights = cp.weights().to_vec()?;
        let mut zero: Vec<bool> = weights.iter().map(|w| w.is_zero()).collect();
        let mut factors = Vec::with_capacity(cp.factors().len());
        for factor in cp.factors() {
            let norms = unit_columns(factor)?.1.to_vec()?;
            zero.iter_mut().zip(&norms).for_each(|(zero, norm)| *zero |= norm.is_zero());
            factors.push(exponents(&norms));
        }
        Ok(Self { factors, weights: exponents(&weights), zero })
    }

    /// What the parts of a component come to at most, up or down.
    fn extent(&self) -> i32 {
        let largest = |exponents: &Vec<i32>| exponents.iter().map(|e| e.abs()).max().unwrap_or(0);
        self.factors.iter().map(largest).sum::<i32>() + largest(&self.weights)
    }

    /// The sizes of the components; zero has none.
    fn sums(&self) -> Vec<Option<i32>> {
        let of = |r: usize| self.weights[r] + self.factors.iter().map(|factor| factor[r]).sum::<i32>();
        self.zero.iter().enumerate().map(|(r, &zero)| (!zero).then(|| of(r))).collect()
    }
}

impl<T: Scalar, D: Dimension> Cp<T, D> {
    /// The tensor divided by a power of two, and its exponent: in doubles, since the terms of inner products may cancel, and with columns
    /// whose products stay in their range.
    pub(super) fn levelled(&self) -> Result<(Cp<f64, D>, i32)> {
        let factors = self.factors().iter().map(Tensor::cast).collect::<Result<_>>()?;
        let doubles = Cp::<f64, D>::new(self.weights().cast()?, factors)?;
        let powers = Powers::of(&doubles)?;
        // Inner products have squares of them.
        if 2 * powers.extent() <= Powers::most::<f64>() {
            return Ok((doubles, 0));
        }
        let sums = powers.sums();
        let largest = sums.iter().flatten().max().copied().unwrap_or(0);
        let weight = |(sum, own): (&Option<i32>, &i32)| sum.map_or(0, |sum| sum - largest) - own;
        let weights: Vec<i32> = sums.iter().zip(&powers.weights).map(weight).collect();
        Ok((doubles.times_powers(&weights, &powers.factors, |_, own| -own)?, largest))
    }

    /// The same tensor, the size of each component spread evenly over its weight and columns, where products of some of them might leave
    /// the range.
    pub(super) fn evened(&self) -> Result<Self> {
        let powers = Powers::of(self)?;
        if powers.extent() <= Powers::most::<T>() {
            return Ok(self.clone());
        }
        let parts = self.factors().len() as i32 + 1;
        let sums: Vec<i32> = powers.sums().into_iter().map(Option::unwrap_or_default).collect();
        // The weight takes what does not divide.
        let weight = |(sum, own): (&i32, &i32)| sum.div_euclid(parts) + sum.rem_euclid(parts) - own;
        let weights: Vec<i32> = sums.iter().zip(&powers.weights).map(weight).collect();
        self.times_powers(&weights, &powers.factors, |r, own| sums[r].div_euclid(parts) - own)
    }

    /// Weights times powers of two of these exponents, and columns times those of the exponents that `change` makes of their own.
    fn times_powers(&self, weights: &[i32], factors: &[Vec<i32>], change: impl Fn(usize, i32) -> i32) -> Result<Self> {
        let device = self.weights().device();
        let scaled = self.weights().to_vec()?.into_iter().zip(weights);
        let scaled: Vec<T> = scaled.map(|(w, &exponent)| T::of(times_power(w.f64(), exponent))).collect();
        let columns = self.factors().iter().zip(factors).map(|(factor, own)| {
            let exponents = || own.iter().enumerate().map(|(r, &own)| change(r, own));
            let row = |part: fn(i32) -> i32| -> Result<Tensor<T, Ix2>> {
                let powers: Vec<T> = exponents().map(|exponent| T::of(times_power(1.0, part(exponent)))).collect();
                Tensor::from_vec([1, powers.len()], powers)?.to_device(device)
            };
            // In two steps: from one end of the range to the other is no number.
            factor.mul(&row(|exponent| exponent / 2)?)?.mul(&row(|exponent| exponent - exponent / 2)?)
        });
        let columns = columns.collect::<Result<_>>()?;
        Self::new(Tensor::from_vec([scaled.len()], scaled)?.to_device(device)?, columns)
    }
}
