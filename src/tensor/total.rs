//! Sums, norms, extremes, finiteness.

use super::{Tensor, index_at, value_error};
use crate::{
    device::reduce::{self, Total},
    error::{Error, Result},
    scalar::Scalar,
};
use ndarray::{Dimension, IxDyn};

impl<T: Scalar, D: Dimension> Tensor<T, D> {
    fn total(&self, total: Total) -> Result<f64> {
        reduce::total(total, &self.storage, &self.layout)
    }

    /// The sum of all entries, added up in double precision; 0 for an empty tensor.
    pub fn sum(&self) -> Result<f64> {
        self.total(Total::Sum)
    }

    /// The mean of all entries; NaN for an empty tensor.
    pub fn mean(&self) -> Result<f64> {
        Ok(self.sum()? / self.len() as f64)
    }

    /// The Frobenius norm, the square root of the sum of squares, without overflow or underflow on the way.
    ///
    /// ```
    /// let x = tenfold::Tensor::from(ndarray::array![3e200, 4e200]);
    /// assert!((x.norm()? / 5e200 - 1.0).abs() < 1e-15);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    pub fn norm(&self) -> Result<f64> {
        let squares = self.total(Total::Squares)?;
        if reduce::in_range(squares) {
            return Ok(squares.sqrt());
        }
        let largest = self.max_abs()?;
        if largest == 0.0 || !largest.is_finite() {
            return Ok(largest);
        }
        // In doubles, so that a tiny single scales without leaving its range.
        let scaled = self.cast::<f64>()?.scale(1.0 / largest.max(f64::MIN_POSITIVE))?;
        Ok(scaled.total(Total::Squares)?.sqrt() * largest.max(f64::MIN_POSITIVE))
    }

    /// The sum of absolute values.
    pub fn norm_l1(&self) -> Result<f64> {
        self.total(Total::Abs)
    }

    /// The largest absolute value; 0 for an empty tensor, NaN where an entry is NaN.
    pub fn max_abs(&self) -> Result<f64> {
        self.total(Total::MaxAbs)
    }

    /// The smallest entry; NaN where an entry is NaN.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) for an empty tensor.
    pub fn min(&self) -> Result<f64> {
        self.not_empty("min")?;
        self.total(Total::Min)
    }

    /// The largest entry; NaN where an entry is NaN.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) for an empty tensor.
    pub fn max(&self) -> Result<f64> {
        self.not_empty("max")?;
        self.total(Total::Max)
    }

    /// Sums over some modes; the others stay, in order. Summing over all of them leaves one entry.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where a mode does not exist.
    pub fn sum_modes(&self, modes: &[usize]) -> Result<Tensor<T, IxDyn>> {
        for &mode in modes {
            self.check_mode("sum_modes", mode)?;
        }
        let kept: Vec<bool> = (0..self.order()).map(|m| !modes.contains(&m)).collect();
        let mut shape: Vec<usize> = (0..self.order()).filter(|&m| kept[m]).map(|m| self.shape()[m]).collect();
        let out = reduce::sum_modes(self.device(), &self.storage, &self.layout, &kept)?;
        if shape.is_empty() {
            shape.push(1);
        }
        Ok(Tensor::row_major(out, &shape))
    }

    /// An error, naming the first such entry and its index, where an entry is NaN or infinite.
    ///
    /// ```
    /// use tenfold::Tensor;
    ///
    /// let x = Tensor::from(ndarray::array![[1.0, 2.0], [f64::NAN, 4.0]]);
    /// let error = x.check_finite("fit").unwrap_err();
    /// assert_eq!(error.to_string(), "fit: entry [1, 0] is NaN; every entry has to be finite");
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Value`](crate::ErrorKind::Value).
    pub fn check_finite(&self, operation: &'static str) -> Result<()> {
        match reduce::first_non_finite(&self.storage, &self.layout)? {
            None => Ok(()),
            Some(position) => {
                let index = index_at(self.shape(), position);
                let value = self.get(&index)?;
                Err(value_error(operation, format!("entry {index:?} is {value}; every entry has to be finite")))
            }
        }
    }

    fn not_empty(&self, operation: &'static str) -> Result<()> {
        if self.is_empty() {
            return Err(Error::shape(operation, format!("a tensor of shape {:?} has no entries", self.shape())));
        }
        Ok(())
    }
}
