//! [`Full`]: every parameter of the chosen parts trains.

use super::method::Method;
use crate::scalar::Scalar;
use serde::{Deserialize, Serialize};

/// Full fine-tuning: every parameter of the [`Targets`](super::Targets) trains.
///
/// ```
/// use tenfold::{nn::{Linear, Module}, peft::{self, Full, Targets}};
///
/// let mut layers = vec![Linear::<f32>::zeros(4, 4)?, Linear::zeros(4, 2)?];
/// peft::attach(&mut layers, &Full, &Targets::of(["1"]))?;
/// assert_eq!(layers.count().trainable, 4 * 2 + 2);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Full;

impl<T: Scalar> Method<T> for Full {
    fn name(&self) -> &'static str {
        "full"
    }

    fn attaches(&self) -> bool {
        false
    }

    fn selects(&self, _parameter: &str) -> bool {
        true
    }
}
