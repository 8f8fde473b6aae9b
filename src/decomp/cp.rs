//! The CP format: a weighted sum of outer products.

use super::{
    scale::{product, times_power},
    tucker::{
        a_number, check_index, column_signs, picked_rows, relative_residual, unit_columns, write_sizes, write_summary,
    },
};
use crate::{
    algebra::{MttkrpHalf, hadamard, khatri_rao},
    device::layout::checked_len,
    error::{Error, Result},
    scalar::Scalar,
    tensor::{Tensor, resolved},
};
use ndarray::{Dimension, Ix1, Ix2, IxDyn, SliceArg};
use std::{fmt, marker::PhantomData};

/// A tensor in CP form: weights w of length R, factors A_n `I_n x R`.
///
/// $$ X = \sum_{r=1}^{R} w_r \thinspace a_r^{(0)} \circ a_r^{(1)} \circ \cdots \circ a_r^{(N-1)}, $$
///
/// where $a_r^{(n)}$ is column r of $A_n$; entry by entry, `X[i, j, ..] = sum_r w_r A_0[i, r] A_1[j, r] ..`.
///
/// (Canonical polyadic, CANDECOMP, PARAFAC: Carroll and Chang 1970, Harshman 1970; Kolda and Bader 2009, section 3.)
/// Holds R (1 + sum I) numbers for prod I entries.
///
/// ```
/// use ndarray::array;
/// use tenfold::{Tensor, decomp::Cp};
///
/// let cp: Cp<f64, ndarray::Ix2> = Cp::new(
///     Tensor::from(array![2.0, 1.0]),
///     vec![Tensor::from(array![[1.0, 0.0], [0.0, 1.0]]), Tensor::from(array![[1.0, 3.0], [1.0, 4.0]])],
/// )?;
/// assert_eq!(cp.reconstruct()?, Tensor::from(array![[2.0, 2.0], [3.0, 4.0]]));
/// assert_eq!(cp.get(&[1, 0])?, 3.0);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Cp<T: Scalar, D: Dimension = IxDyn> {
    weights: Tensor<T, Ix1>,
    factors: Vec<Tensor<T, Ix2>>,
    shape: Vec<usize>,
    order: PhantomData<D>,
}

impl<T: Scalar, D: Dimension> Cp<T, D> {
    /// Weights and one factor for each mode.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where a factor has not as many columns as there are weights, or the number of factors is not
    /// the order of `D`; [`ErrorKind::Device`](crate::ErrorKind::Device) where they live in different places.
    pub fn new(weights: Tensor<T, Ix1>, factors: Vec<Tensor<T, Ix2>>) -> Result<Self> {
        if factors.is_empty() || D::NDIM.is_some_and(|n| n != factors.len()) {
            let wanted = D::NDIM.filter(|&n| n > 0).map_or("at least 1".to_string(), |n| n.to_string());
            return Err(Error::shape("Cp::new", format!("{} factors; needs {wanted}", factors.len())));
        }
        let rank = weights.shape()[0];
        for (mode, factor) in factors.iter().enumerate() {
            weights.device().check_same(factor.device(), "Cp::new")?;
            if factor.shape()[1] != rank {
                let message = format!("factor {mode} has {} columns for {rank} weights", factor.shape()[1]);
                return Err(Error::shape("Cp::new", message));
            }
        }
        let shape = factors.iter().map(|f| f.shape()[0]).collect();
        Ok(Self { weights, factors, shape, order: PhantomData })
    }

    /// The weights of the components.
    pub fn weights(&self) -> &Tensor<T, Ix1> {
        &self.weights
    }

    /// The factors, one for each mode, `I_n x R`.
    pub fn factors(&self) -> &[Tensor<T, Ix2>] {
        &self.factors
    }

    /// Weights and factors, moved out.
    pub fn into_parts(self) -> (Tensor<T, Ix1>, Vec<Tensor<T, Ix2>>) {
        (self.weights, self.factors)
    }

    /// The shape of the tensor that this stands for.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of components.
    pub fn rank(&self) -> usize {
        self.weights.shape()[0]
    }

    /// How many numbers the format holds.
    pub fn parameters(&self) -> usize {
        self.rank() + self.factors.iter().map(Tensor::len).sum::<usize>()
    }

    /// Entries of the whole tensor for each number held.
    pub fn compression_ratio(&self) -> f64 {
        self.shape.iter().map(|&n| n as f64).product::<f64>() / self.parameters() as f64
    }

    /// The whole tensor, as one matrix product of two halves of its modes: (A_0 diag(w) kr A_1 kr ..) (.. kr A_{N-1})^T. 2 R prod I flops;
    /// beside the result, R numbers for each entry of the halves.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory) where the shape overflows or the device is full.
    pub fn reconstruct(&self) -> Result<Tensor<T, D>> {
        checked_len("Cp::reconstruct", &self.shape)?;
        let even = self.evened()?;
        even.rows_of(&even.second_half()?, 0..self.shape[0])
    }

    /// How many modes the first half has.
    fn split(&self) -> usize {
        MttkrpHalf::both(&self.shape)[0].modes(self.shape.len()).end
    }

    /// The Khatri-Rao product of the factors of the second half.
    fn second_half(&self) -> Result<Tensor<T, Ix2>> {
        match &self.factors[self.split()..] {
            [] => Tensor::ones([1, self.rank()])?.to_device(self.weights.device()),
            rest => khatri_rao(&rest.iter().collect::<Vec<_>>()),
        }
    }

    /// Some indices of the first mode of the whole tensor.
    fn rows_of(&self, second: &Tensor<T, Ix2>, rows: std::ops::Range<usize>) -> Result<Tensor<T, D>> {
        let weights = self.weights.insert_mode(0)?.into_order::<Ix2>()?;
        let first = self.factors[0].narrow(0, rows.clone())?.mul(&weights)?;
        let first: Vec<_> = std::iter::once(&first).chain(&self.factors[1..self.split()]).collect();
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        khatri_rao(&first)?.matmul(&second.t())?.reshaped(&shape)
    }

    /// Part of the tensor, still in CP form: rows of the factors are picked, the whole is never formed.
    ///
    /// Indexed modes disappear into the weights; indexing *all* modes leaves no factor: use [`get`](Cp::get) there.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where an index lies outside or no mode is left.
    pub fn slice<I: SliceArg<D>>(&self, part: I) -> Result<Cp<T, I::OutDim>> {
        let new = Tensor::ones([1, self.rank()])?.to_device(self.weights.device())?;
        let (factors, stays) = picked_rows(&self.factors, resolved(part.as_ref(), &self.shape)?, &new)?;
        if !stays.contains(&true) {
            return Err(Error::shape("Cp::slice", "every mode is indexed, which leaves a number; use get"));
        }
        let mut picked: Cp<T> = Cp::new(self.weights.clone(), factors)?;
        if stays.contains(&false) {
            picked = picked.evened()?;
        }
        let (mut weights, rows) = picked.into_parts();
        let mut factors = Vec::new();
        for (rows, stays) in rows.into_iter().zip(stays) {
            match stays {
                true => factors.push(rows),
                false => weights = weights.mul(&rows.index_mode(0, 0)?)?,
            }
        }
        Cp::new(weights, factors)
    }

    /// One entry, from one row of each factor.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the index lies outside.
    pub fn get(&self, index: &[usize]) -> Result<T> {
        check_index("Cp::get", index, &self.shape)?;
        let rows = index.iter().zip(&self.factors).map(|(&i, factor)| factor.index_mode(0, i)?.to_vec());
        let parts: Vec<Vec<T>> = std::iter::once(self.weights.to_vec()).chain(rows).collect::<Result<_>>()?;
        let component = |r: usize| product(parts.iter().map(|part| part[r].f64()));
        Ok(T::of((0..self.rank()).map(component).sum()))
    }

    /// The Frobenius norm, without forming the tensor.
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn norm(&self) -> Result<f64> {
        let (level, power) = self.levelled()?;
        let squares = level.inner_in_range(&level)?;
        if squares.is_nan() {
            return self.normalize()?.weights.max_abs();
        }
        // Below zero is what rounding leaves of terms that cancel.
        Ok(times_power(squares.max(0.0).sqrt(), power))
    }

    /// The same with every weight times a number.
    pub(super) fn scale_weights(self, factor: f64) -> Result<Self> {
        if factor == 1.0 {
            return Ok(self);
        }
        Ok(Self { weights: self.weights.scale(T::of(factor))?, ..self })
    }

    /// The inner product with another tensor in CP form: w^T (A_0^T B_0 * A_1^T B_1 * ..) v.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the shapes differ, [`ErrorKind::Device`](crate::ErrorKind::Device) where they live in different places.
    pub fn inner(&self, other: &Self) -> Result<f64> {
        if self.shape != other.shape {
            let message = format!("shapes {:?} and {:?} differ", self.shape, other.shape);
            return Err(Error::shape("Cp::inner", message));
        }
        let ((a, power), (b, other_power)) = (self.levelled()?, other.levelled()?);
        Ok(times_power(a.inner_in_range(&b)?, power + other_power))
    }

    /// The inner product of tensors that `levelled` gave.
    fn inner_in_range(&self, other: &Self) -> Result<f64> {
        let pairs = self.factors.iter().zip(&other.factors);
        let products: Vec<Tensor<T, Ix2>> = pairs.map(|(a, b)| a.t().matmul(b)).collect::<Result<_>>()?;
        let all = hadamard(&products.iter().collect::<Vec<_>>())?;
        let column = other.weights.insert_mode(1)?.into_order::<Ix2>()?;
        let row = self.weights.insert_mode(0)?.into_order::<Ix2>()?;
        row.matmul(&all.matmul(&column)?)?.sum()
    }

    /// ||X - X'|| / ||X||, measured on the residual, slab by slab along the first mode: of X' no more is in memory than an index of that
    /// mode needs, or some MiB. 0 where both are zero, infinite where only X is.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the shapes differ, [`ErrorKind::Device`](crate::ErrorKind::Device) where they live in
    /// different places; [`ErrorKind::Value`](crate::ErrorKind::Value) where an entry of X is not finite (the first is named), or the
    /// decomposition's are not.
    pub fn relative_error(&self, x: &Tensor<T, D>) -> Result<f64> {
        if x.shape() != self.shape {
            let message = format!("a decomposition of shape {:?} for a tensor of shape {:?}", self.shape, x.shape());
            return Err(Error::shape("Cp::relative_error", message));
        }
        a_number(x, self.evened()?.error_over(x, None)?)
    }

    /// The same over the entries that a mask has ones for; X has zeros elsewhere.
    pub(super) fn error_over(&self, x: &Tensor<T, D>, mask: Option<&Tensor<T, D>>) -> Result<f64> {
        let second = self.second_half()?;
        relative_residual(x, |rows| {
            let slab = self.rows_of(&second, rows.clone())?;
            match mask {
                Some(mask) => slab.mul(&mask.narrow(0, rows)?),
                None => Ok(slab),
            }
        })
    }

    /// The same tensor with every factor column of norm 1 and the norms in the weights. Zero columns stay as they are;
    /// their component weighs 0.
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn normalize(&self) -> Result<Self> {
        let (factors, norms): (Vec<_>, Vec<_>) =
            self.factors.iter().map(unit_columns).collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let norms: Vec<Vec<T>> = norms.iter().map(Tensor::to_vec).collect::<Result<_>>()?;
        let weight = |(r, w): (usize, T)| {
            T::of(product(std::iter::once(w).chain(norms.iter().map(|norms| norms[r])).map(T::f64)))
        };
        let weights = self.weights.to_vec()?.into_iter().enumerate().map(weight).collect();
        Self::new(Tensor::from_vec([self.rank()], weights)?.to_device(self.weights.device())?, factors)
    }

    /// The same tensor with its components in falling order of absolute weight (meaningful after [`normalize`](Cp::normalize)).
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn sort(&self) -> Result<Self> {
        let weights = self.weights.to_vec()?;
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by(|&a, &b| weights[b].abs().f64().total_cmp(&weights[a].abs().f64()));
        let picked = |m: &Tensor<T, Ix2>| {
            let columns: Vec<Tensor<T, Ix2>> = order.iter().map(|&r| m.narrow(1, r..r + 1)).collect::<Result<_>>()?;
            if columns.is_empty() { Ok(m.clone()) } else { Tensor::concat(&columns.iter().collect::<Vec<_>>(), 1) }
        };
        let row = picked(&self.weights.insert_mode(0)?.into_order()?)?;
        let factors = self.factors.iter().map(picked).collect::<Result<_>>()?;
        Self::new(row.index_mode(0, 0)?, factors)
    }

    /// The same tensor with signs fixed: in every column of all factors but the last the entry of largest absolute value is
    /// positive, and so are the weights; the last factor takes what is left.
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn fix_signs(&self) -> Result<Self> {
        self.fix_signs_among(&(0..self.factors.len()).collect::<Vec<_>>())
    }

    /// The same where only the factors of some modes may change their signs; nothing changes where these are none.
    pub(super) fn fix_signs_among(&self, modes: &[usize]) -> Result<Self> {
        let mut factors = self.factors.clone();
        let Some((&last, rest)) = modes.split_last() else { return Ok(self.clone()) };
        for &mode in rest {
            let signs = column_signs(&factors[mode])?;
            factors[mode] = factors[mode].mul(&signs)?;
            factors[last] = factors[last].mul(&signs)?;
        }
        let signs = column_signs(&self.weights.insert_mode(0)?.into_order()?)?;
        factors[last] = factors[last].mul(&signs)?;
        Self::new(self.weights.mul(&signs.index_mode(0, 0)?)?, factors)
    }

    /// Normalised, sorted, signs fixed: the form in which two CP decompositions are compared.
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn canonicalize(&self) -> Result<Self> {
        self.normalize()?.sort()?.fix_signs()
    }

    /// The same decomposition on another device.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory) where it does not fit there.
    pub fn to_device(&self, device: &crate::Device) -> Result<Self> {
        let factors = self.factors.iter().map(|f| f.to_device(device)).collect::<Result<_>>()?;
        Self::new(self.weights.to_device(device)?, factors)
    }
}

impl<T: Scalar, D: Dimension> fmt::Display for Cp<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_summary(f, "CP", T::DTYPE, &self.shape)?;
        write!(f, " of rank {}", self.rank())?;
        write_sizes(f, self.parameters(), self.compression_ratio(), &self.shape)
    }
}
