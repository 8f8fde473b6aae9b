//! Printing: shape, type, device, and a few numbers.

use super::{Tensor, index_at};
use crate::scalar::Element;
use ndarray::Dimension;
use std::fmt;

/// How many entries are shown at each end of a long tensor.
const SHOWN: usize = 3;

impl<T: Element, D: Dimension> Tensor<T, D> {
    fn numbers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.len();
        let head = if len <= 2 * SHOWN { len } else { SHOWN };
        let tail = if len <= 2 * SHOWN { len } else { len - SHOWN };
        f.write_str("[")?;
        for position in (0..head).chain(tail..len) {
            match position {
                0 => {}
                _ if position == tail && tail > head => f.write_str(", .., ")?,
                _ => f.write_str(", ")?,
            }
            match self.get(&index_at(self.shape(), position)) {
                Ok(value) => match f.precision() {
                    Some(digits) => write!(f, "{value:.digits$}")?,
                    None => write!(f, "{value}")?,
                },
                Err(_) => f.write_str("?")?,
            }
        }
        f.write_str("]")
    }
}

impl<T: Element, D: Dimension> fmt::Display for Tensor<T, D> {
    /// `Tensor<f64> 4 x 5 x 6 [0.1, 0.2, 0.3, .., 0.8, 0.9, 1.0]`; a precision (`{:.3}`) applies to the numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape: Vec<String> = self.shape().iter().map(usize::to_string).collect();
        write!(f, "Tensor<{}> {} ", T::DTYPE, shape.join(" x "))?;
        self.numbers(f)
    }
}

impl<T: Element, D: Dimension> fmt::Debug for Tensor<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor<{}> {:?} on {} ", T::DTYPE, self.shape(), self.device())?;
        if !self.is_contiguous() {
            write!(f, "strides {:?} ", self.strides())?;
        }
        self.numbers(f)
    }
}
