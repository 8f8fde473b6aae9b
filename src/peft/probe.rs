//! [`Probe`]: the head trains on frozen features.

use super::method::Method;
use crate::scalar::Scalar;
use serde::{Deserialize, Serialize};

/// A linear probe: nothing of the model trains but what [`Attach::keep`](super::Attach::keep) names, the head.
///
/// ```
/// use tenfold::{nn::{Linear, Module}, peft::{Attach, Probe, Targets}};
///
/// let mut layers = vec![Linear::<f32>::zeros(4, 4)?, Linear::zeros(4, 2)?];
/// Attach::new(&Probe).keep(Targets::of(["1"])).apply(&mut layers)?;
/// assert_eq!(layers.count().trainable, 4 * 2 + 2);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Probe;

impl<T: Scalar> Method<T> for Probe {
    fn name(&self) -> &'static str {
        "probe"
    }

    fn attaches(&self) -> bool {
        false
    }
}
