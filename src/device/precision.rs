//! In what matrix products of `f32` are computed.

use super::{Device, Kind};
use crate::error::{Error, ErrorKind, Result};
use std::{fmt, str::FromStr};

/// In what a GPU computes matrix products of `f32`: a property of the [`Device`] handle, as the number of threads is.
///
/// Products, convolutions as products, mode products and attention go by it; sums, norms, solvers and everything else are computed in `f32` and
/// `f64`, and so are products of `f64`. Operands and results are `f32` in all three; what is lost is in the operands:
///
/// | | bits of the operands' fractions | largest error of a product of two numbers, relative | sums |
/// |---|---|---|---|
/// | `F32` | 23 | 2^-24 | `f32` |
/// | `Tf32` | 10 | 2^-10 | `f32` |
/// | `Bf16` | 7 | 2^-7 | `f32` |
///
/// `Bf16` rounds operands to the nearest bf16 on the way into a product (products with a side below 32 are computed in TF32 instead,
/// where that is both quicker and closer, unless the larger operand is there in bf16 alone). A block that is read by many products without
/// being written, as a frozen weight is, keeps its rounded copy: half its size in memory more, until it is written or dropped.
///
/// With `Bf16`, what operations keep for the way back is kept in bf16 too, which takes half of the memory: activations of 65536 entries and more,
/// each once however many operations keep it. A product would round them anyway; for the derivative of a GELU, a norm or a quotient
/// it is an error of at most 2^-9 of each number that is kept, in gradients alone: the forward pass does not see it. Parameters, data, statistics of norms,
/// logarithms of sums, biases of attention, losses and what is compared with one another stay in `f32`.
///
/// ```
/// use tenfold::{Device, Precision};
///
/// assert_eq!("tf32".parse::<Precision>()?, Precision::Tf32);
/// assert!(Device::cpu().precision(Precision::Bf16).is_err());
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Singles throughout.
    #[default]
    F32,
    /// Operands rounded to TF32 by the tensor cores.
    Tf32,
    /// Operands rounded to bf16.
    Bf16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = Error;

    /// Reads `f32`, `tf32` or `bf16`.
    fn from_str(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Precision::F32),
            "tf32" => Ok(Precision::Tf32),
            "bf16" => Ok(Precision::Bf16),
            _ => Err(Error::new(
                ErrorKind::Value,
                "Precision::from_str",
                format!("\"{name}\" names no precision; write f32, tf32 or bf16"),
            )),
        }
    }
}

impl Device {
    /// The same device, with products of `f32` in this precision. Tensors made with this handle, and moved to it, carry it along; where
    /// the operands of a product differ in it, the first one's counts.
    ///
    /// ```no_run
    /// use tenfold::{Device, Precision};
    ///
    /// let gpu = Device::cuda(0)?.precision(Precision::Tf32)?;
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] on the host for anything but [`Precision::F32`].
    pub fn precision(self, precision: Precision) -> Result<Self> {
        match self.0 {
            Kind::Cpu(_) if precision != Precision::F32 => Err(Error::new(
                ErrorKind::Unsupported,
                "Device::precision",
                format!("the cpu computes in f32, not {precision}; leave the precision at f32, or take a GPU"),
            )),
            Kind::Cpu(_) => Ok(self),
            #[cfg(feature = "cuda")]
            Kind::Cuda(gpu) => Ok(Self(Kind::Cuda(gpu.with_precision(precision)))),
        }
    }

    /// The same device with products in full precision: what solvers compute with.
    pub(crate) fn exact(&self) -> Self {
        match &self.0 {
            Kind::Cpu(_) => self.clone(),
            #[cfg(feature = "cuda")]
            Kind::Cuda(gpu) => Self(Kind::Cuda(gpu.clone().with_precision(Precision::F32))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_the_host_takes_f32_alone() {
        for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
            assert_eq!(precision.to_string().parse::<Precision>().unwrap(), precision);
        }
        assert_eq!(
            "fp16".parse::<Precision>().unwrap_err().to_string(),
            "Precision::from_str: \"fp16\" names no precision; write f32, tf32 or bf16"
        );
        assert!(Device::cpu().precision(Precision::F32).is_ok());
        let error = Device::cpu().precision(Precision::Tf32).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("f32, not tf32"), "{error}");
    }
}
