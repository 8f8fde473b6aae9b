//! Decompositions whose parts are much larger or smaller than they are together: products of some of their parts leave the range of
//! numbers, the product of all does not. The parts are multiplied with powers of two first, which is exact.

use super::{Cp, Tucker, scale::times_power, tucker::unit_columns};
use crate::{
    error::Result,
    scalar::{DType, Scalar, exponent},
    tensor::Tensor,
};
use ndarray::{Dimension, Ix2};
use std::iter::once;

/// How large each column of a part is, as the exponent of a power of two; a column that is zero has none.
type Sizes = Vec<Option<i32>>;

fn sizes<T: Scalar>(numbers: impl IntoIterator<Item = T>) -> Sizes {
    numbers.into_iter().map(|x| (!x.is_zero()).then(|| exponent::<T>(x.f64().abs()))).collect()
}

fn column_sizes<T: Scalar>(factors: &[Tensor<T, Ix2>]) -> Result<Vec<Sizes>> {
    factors.iter().map(|factor| Ok(sizes(unit_columns(factor)?.1.to_vec()?))).collect()
}

/// What parts come to at most, up or down.
fn extent<'a>(parts: impl IntoIterator<Item = &'a Sizes>) -> i32 {
    parts.into_iter().map(|sizes| sizes.iter().flatten().map(|size| size.abs()).max().unwrap_or(0)).sum()
}

/// An extent up to which nothing leaves the range.
fn most<T: Scalar>() -> i32 {
    if T::DTYPE == DType::F64 { 900 } else { 100 }
}

/// The same for inner products, which have squares of doubles.
const MOST_SQUARED: i32 = 450;

/// The columns of a matrix times powers of two of these exponents.
fn times_columns<T: Scalar>(matrix: &Tensor<T, Ix2>, exponents: &[i32]) -> Result<Tensor<T, Ix2>> {
    let row = |part: fn(i32) -> i32| -> Result<Tensor<T, Ix2>> {
        let powers: Vec<T> = exponents.iter().map(|&exponent| T::of(times_power(1.0, part(exponent)))).collect();
        Tensor::from_vec([1, powers.len()], powers)?.to_device(matrix.device())
    };
    // In two steps: from one end of the range to the other is no number.
    matrix.mul(&row(|exponent| exponent / 2)?)?.mul(&row(|exponent| exponent - exponent / 2)?)
}

impl<T: Scalar, D: Dimension> Cp<T, D> {
    /// The tensor divided by a power of two, and its exponent: in doubles, since the terms of inner products may cancel, and with columns
    /// whose products stay in their range.
    pub(super) fn levelled(&self) -> Result<(Cp<f64, D>, i32)> {
        let factors = self.factors().iter().map(Tensor::cast).collect::<Result<_>>()?;
        let doubles = Cp::<f64, D>::new(self.weights().cast()?, factors)?;
        let parts = doubles.sizes()?;
        if extent(&parts) <= MOST_SQUARED {
            return Ok((doubles, 0));
        }
        let components = components(&parts);
        let largest = components.iter().flatten().max().copied().unwrap_or(0);
        let wanted: Vec<_> = components.iter().map(|size| (size.map_or(0, |size| size - largest), 0)).collect();
        Ok((doubles.resized(&parts, &wanted)?, largest))
    }

    /// The same tensor, the size of each component spread evenly over its weight and columns, where products of some of them might leave
    /// the range.
    pub(super) fn evened(&self) -> Result<Self> {
        let parts = self.sizes()?;
        if extent(&parts) <= most::<T>() {
            return Ok(self.clone());
        }
        let count = parts.len() as i32;
        // The weight takes what does not divide.
        let even = |size: i32| (size.div_euclid(count) + size.rem_euclid(count), size.div_euclid(count));
        let wanted: Vec<_> = components(&parts).into_iter().map(|size| even(size.unwrap_or_default())).collect();
        self.resized(&parts, &wanted)
    }

    /// Of the weights, and of each factor's columns.
    fn sizes(&self) -> Result<Vec<Sizes>> {
        let mut parts = vec![sizes(self.weights().to_vec()?)];
        parts.extend(column_sizes(self.factors())?);
        Ok(parts)
    }

    /// The same with weights and columns of other sizes, which are wanted for each component.
    fn resized(&self, parts: &[Sizes], wanted: &[(i32, i32)]) -> Result<Self> {
        let change = |sizes: &Sizes, of: fn(&(i32, i32)) -> i32| -> Vec<i32> {
            wanted.iter().zip(sizes).map(|(wanted, size)| of(wanted) - size.unwrap_or(0)).collect()
        };
        let weights = self.weights().insert_mode(0)?.into_order()?;
        let weights = times_columns(&weights, &change(&parts[0], |wanted| wanted.0))?.index_mode(0, 0)?;
        let columns = self.factors().iter().zip(&parts[1..]);
        let columns = columns.map(|(factor, sizes)| times_columns(factor, &change(sizes, |wanted| wanted.1)));
        Self::new(weights, columns.collect::<Result<_>>()?)
    }
}

/// The sizes of components; what has a part that is zero has none.
fn components(parts: &[Sizes]) -> Sizes {
    (0..parts[0].len()).map(|r| parts.iter().map(|part| part[r]).sum()).collect()
}

impl<T: Scalar, D: Dimension> Tucker<T, D> {
    /// The tensor divided by a power of two, and its exponent: in doubles, since the terms of inner products may cancel, and with parts
    /// whose products stay in their range. Of the core only the largest entry is looked at, unless this is to be careful.
    pub(super) fn levelled(&self, careful: bool) -> Result<(Tucker<f64, D>, i32)> {
        let factors = self.factors().iter().map(Tensor::cast).collect::<Result<_>>()?;
        let doubles = Tucker::<f64, D>::new(self.core().cast()?, factors)?;
        doubles.unit_sized(if careful { -1 } else { MOST_SQUARED }, true)
    }

    /// The same tensor, its size in the core, where products of some of its parts might leave the range.
    pub(super) fn evened(&self) -> Result<Self> {
        Ok(self.unit_sized(most::<T>(), false)?.0)
    }

    /// The tensor with columns of about norm 1, where its extent is above `most`; divided by the power of two below the core's largest
    /// entry then, if asked for. Gives that power's exponent.
    fn unit_sized(&self, most: i32, divide: bool) -> Result<(Self, i32)> {
        let columns = column_sizes(self.factors())?;
        let core = sizes([T::of(self.core().max_abs()?)]);
        if extent(columns.iter().chain(once(&core))) <= most {
            return Ok((self.clone(), 0));
        }
        // What the columns do to each entry of the core.
        let changes = columns.iter().fold(vec![Some(0)], |changes: Sizes, sizes| {
            changes.iter().flat_map(|change| sizes.iter().map(move |size| Some((*change)? + (*size)?))).collect()
        });
        let entries = self.core().to_vec()?;
        let both = sizes(entries.iter().copied())
            .into_iter()
            .zip(&changes)
            .filter_map(|(own, change)| Some(own? + (*change)?));
        let power = if divide { both.max().unwrap_or(0) } else { 0 };
        // What meets a column that is zero becomes zero, unless it is no number.
        let changed = |(&entry, change): (&T, &Option<i32>)| {
            change.map_or(entry * T::zero(), |change| T::of(times_power(entry.f64(), change - power)))
        };
        let entries = entries.iter().zip(&changes).map(changed).collect();
        let core = Tensor::from_vec(self.core().shape(), entries)?.into_order()?.to_device(self.core().device())?;
        let factors = self.factors().iter().zip(columns).map(|(factor, sizes)| {
            times_columns(factor, &sizes.iter().map(|size| -size.unwrap_or(0)).collect::<Vec<i32>>())
        });
        Ok((Self::new(core, factors.collect::<Result<_>>()?)?, power))
    }
}
