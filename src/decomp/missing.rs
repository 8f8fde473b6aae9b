//! Entries that are missing: NaN in the data, which says that nobody knows, as zeros and a mask of what is known.

use super::scale::divided;
use crate::{
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::Dimension;

/// A tensor of which entries are missing.
pub(super) struct Observed<T: Scalar, D: Dimension> {
    /// With zeros where entries are missing.
    pub(super) x: Tensor<T, D>,
    /// 1 where an entry is known, 0 where it is missing.
    pub(super) mask: Tensor<T, D>,
}

impl<T: Scalar, D: Dimension> Observed<T, D> {
    /// `None` where nothing is missing.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where everything is missing that an index of a mode has: nothing says where it belongs.
    pub(super) fn new(operation: &'static str, x: &Tensor<T, D>) -> Result<Option<Self>> {
        let mask = x.known()?;
        let known = mask.sum()?;
        if known == x.len() as f64 {
            return Ok(None);
        }
        for mode in 0..x.order() {
            let others: Vec<usize> = (0..x.order()).filter(|&m| m != mode).collect();
            let counts = mask.sum_modes(&others)?.to_vec()?;
            let empty: Vec<usize> = (0..counts.len()).filter(|&i| counts[i] == T::zero()).collect();
            if let Some(first) = empty.first() {
                let message = format!(
                    "every entry is missing at index {first} of mode {mode}{}: nothing is known of it, leave it out",
                    match empty.len() {
                        1 => String::new(),
                        n => format!(" and at {} more", n - 1),
                    }
                );
                return Err(Error::new(ErrorKind::Value, operation, message));
            }
        }
        Ok(Some(Self { x: x.nan_to_zero()?, mask }))
    }

    /// Divided by a power of two.
    pub(super) fn divided(self, unit: f64) -> Result<Self> {
        Ok(Self { x: divided(&self.x, unit)?, mask: self.mask })
    }

    /// The mean of what is known in the place of what is missing.
    pub(super) fn filled_with_mean(&self) -> Result<Tensor<T, D>> {
        let mean = T::of(self.x.sum()? / self.mask.sum()?);
        self.mask.scale(-mean)?.shift(mean)?.add(&self.x)
    }

    /// An approximation's entries in the place of what is missing, and the norm of what it leaves of the known ones.
    pub(super) fn filled(&self, approximation: &Tensor<T, D>) -> Result<(Tensor<T, D>, f64)> {
        let left = self.x.sub(&approximation.mul(&self.mask)?)?;
        // Where an entry is missing nothing is left; where it is known, the sum is the entry to rounding.
        Ok((approximation.add(&left)?, left.norm()?))
    }
}
