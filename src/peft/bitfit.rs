//! [`BitFit`]: biases train, nothing else.
//!
//! E. Ben Zaken et al., *BitFit: Simple parameter-efficient fine-tuning for transformer-based masked language-models*,
//! ACL 2022.

use super::method::Method;
use crate::scalar::Scalar;
use serde::{Deserialize, Serialize};

/// BitFit: the biases of the [`Targets`](super::Targets) train, that is every parameter whose name is `bias` or ends
/// with `.bias`, those of normalisations too.
///
/// ```
/// use tenfold::{nn::{Linear, Module}, peft::{self, BitFit, Targets}};
///
/// let mut layers = vec![Linear::<f32>::zeros(4, 4)?, Linear::zeros(4, 2)?];
/// let plan = peft::attach(&mut layers, &BitFit, &Targets::all())?;
/// assert_eq!((layers.count().trainable, plan.parameters()), (4 + 2, 6));
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BitFit;

impl<T: Scalar> Method<T> for BitFit {
    fn name(&self) -> &'static str {
        "bitfit"
    }

    fn attaches(&self) -> bool {
        false
    }

    fn selects(&self, parameter: &str) -> bool {
        parameter.rsplit('.').next() == Some("bias")
    }
}
