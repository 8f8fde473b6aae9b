//! Numbers about a module: how many parameters train, and which of them received a gradient.

use super::parameter::Parameter;
use crate::{
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
    tensor::listed,
};
use std::fmt;

/// How many numbers a module has. Made by [`Module::count`](super::Module::count).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Numbers that train.
    pub trainable: usize,
    /// All of them.
    pub total: usize,
}

impl<'a, T: Scalar> FromIterator<&'a Parameter<T>> for Count {
    fn from_iter<I: IntoIterator<Item = &'a Parameter<T>>>(parameters: I) -> Self {
        parameters.into_iter().fold(Self::default(), |count, p| Self {
            trainable: count.trainable + if p.trains() { p.len() } else { 0 },
            total: count.total + p.len(),
        })
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = 100.0 * self.trainable as f64 / self.total.max(1) as f64;
        write!(f, "{} of {} parameters train ({share:.2} %)", self.trainable, self.total)
    }
}

/// Where gradients arrived. Made by [`Module::gradient_report`](super::Module::gradient_report).
///
/// ```
/// use tenfold::{Tensor, autodiff::Var, nn::{Linear, Mode, Module}};
///
/// let layers = vec![Linear::<f64>::zeros(2, 2)?, Linear::zeros(2, 2)?];
/// let x = Var::constant(Tensor::ones([1, 2])?);
/// let gradients = layers[0].forward(&x, Mode::Evaluation)?.sum()?.backward()?;
/// let report = layers.gradient_report(&gradients);
/// assert_eq!(report.without, ["1.weight", "1.bias"]);
/// assert!(report.check().is_err());
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GradientReport {
    /// Names of parameters that train and received a gradient.
    pub with: Vec<String>,
    /// Names of parameters that train and received none: the result does not depend on them.
    pub without: Vec<String>,
}

impl GradientReport {
    /// An error that names the parameters that received no gradient, where there are some.
    ///
    /// # Errors
    /// [`ErrorKind::Value`].
    pub fn check(&self) -> Result<()> {
        if self.without.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Value, "gradient_report", self.to_string()))
    }
}

impl fmt::Display for GradientReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.with.len() + self.without.len();
        write!(f, "{} of {all} parameters that train received a gradient", self.with.len())?;
        if !self.without.is_empty() {
            write!(f, "; none arrived at {}", listed(self.without.iter().map(String::as_str)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    #[test]
    fn what_they_print() {
        let parameters =
            [Parameter::new(Tensor::<f32, _>::ones([3]).unwrap()), Parameter::frozen(Tensor::ones([5]).unwrap())];
        let count: Count = parameters.iter().collect();
        assert_eq!(count.to_string(), "3 of 8 parameters train (37.50 %)");
        let report = GradientReport { with: vec!["a".into()], without: (0..14).map(|i| format!("b{i}")).collect() };
        let text = report.to_string();
        assert!(text.starts_with("1 of 15 parameters that train received a gradient; none arrived at \"b0\", \"b1\""));
        assert!(text.ends_with("and 2 more"), "{text}");
    }
}
