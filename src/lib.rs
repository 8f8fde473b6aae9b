//! x
#![deny(unsafe_code)]
pub mod algebra;
pub mod autodiff;
pub mod decomp;
pub mod device;
mod error;
mod scalar;
pub mod tensor;
pub use device::Device;
pub use error::{Error, ErrorKind, Result};
pub use scalar::{DType, Element, Index, Scalar};
pub use tensor::{Tensor, TensorFile};
