//! [`Method`]: a way to fine-tune, as a configuration that makes an adapter for each layer it is used on.
//!
//! A new method is one file: a configuration that implements [`Method`], and an adapter that implements
//! [`WeightAdapter`]. `lora.rs` is a complete one. Everything else (which layers, freezing, plans, merging) is written
//! once, against these two traits.

use super::site::Site;
use crate::{
    error::{Error, ErrorKind, Result},
    nn::{Operation, WeightAdapter},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A way to fine-tune a model: [`Flora`](super::Flora), [`Lora`](super::Lora), [`Dora`](super::Dora), [`AdaLora`](super::AdaLora) attach updates to
/// layers, a [`Bottleneck`](super::Bottleneck) stands between them, [`Full`](super::Full), [`BitFit`](super::BitFit) and [`Probe`](super::Probe) let parameters of the model
/// itself train.
///
/// ```
/// use tenfold::{nn::Operation, peft::{Flora, Lora, Method, Site}};
///
/// let site = Site::new("encoder.dense", Operation::Linear, &[3072, 768])?;
/// let methods: [&dyn Method<f32>; 2] = [&Flora::new().rank(8), &Lora::new(8)];
/// for method in methods {
///     let outline = method.outline(&site)?;
///     println!("{}: {} parameters", method.name(), outline.parameters);
///     assert_eq!(outline.degrees_of_freedom, 8 * (3072 + 768 - 8)); // the same for both
/// }
/// # Ok::<(), tenfold::Error>(())
/// ```
pub trait Method<T: Scalar>: fmt::Debug + Send + Sync {
    /// Its name in plans and files.
    fn name(&self) -> &'static str;

    /// Whether it attaches adapters to layers; otherwise it lets parameters of the model train.
    fn attaches(&self) -> bool {
        true
    }

    /// Whether it attaches to layers of this kind: to all that map inputs to outputs, unless it says otherwise.
    fn fits(&self, operation: Operation<'_>) -> bool {
        operation.maps()
    }

    /// Whether a parameter of the model itself trains, by its name.
    fn selects(&self, _parameter: &str) -> bool {
        false
    }

    /// What it would attach at a site.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where it does not apply to such a layer, or attaches nothing at all;
    /// [`ErrorKind::Rank`], [`ErrorKind::Value`] for settings that make no sense there.
    fn outline(&self, _site: &Site<'_>) -> Result<Outline> {
        Err(attaches_nothing(self.name()))
    }

    /// The adapter for a site.
    ///
    /// # Errors
    /// As [`outline`](Method::outline), and where it starts from something that is not there.
    fn adapter(&self, _site: &Site<'_>, _start: &Start<'_, T>) -> Result<Box<dyn WeightAdapter<T>>> {
        Err(attaches_nothing(self.name()))
    }

    /// The method with what depends on all sites together settled, such as a budget for the whole model; `None` where
    /// nothing does.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where it cannot be settled.
    fn settled(&self, _sites: &[Site<'_>]) -> Result<Option<Box<dyn Method<T>>>> {
        Ok(None)
    }
}

/// The error of a method that attaches nothing.
fn attaches_nothing(method: &'static str) -> Error {
    let message = "it lets parameters of the model train and attaches nothing";
    Error::new(ErrorKind::Unsupported, method, message)
}

/// An adapter before it is built.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outline {
    /// One for each mode in the order input, output, kernel; or the only one.
    pub ranks: Vec<usize>,
    /// How many numbers train.
    pub parameters: usize,
    /// The dimension of what the update reaches; see [`dof`](super::dof).
    pub degrees_of_freedom: usize,
    /// Columns of factors that reach nothing, because ranks are above what their modes hold.
    pub wasted_columns: usize,
}

/// What an adapter may start from.
#[derive(Debug, Clone)]
pub struct Start<'a, T: Scalar> {
    /// The layer's weight.
    pub weight: &'a Tensor<T, IxDyn>,
    /// The first gradient of the loss by that weight, where the caller has it.
    pub gradient: Option<&'a Tensor<T, IxDyn>>,
    /// Fixes everything random, together with the layer's name.
    pub seed: u64,
}

impl<T: Scalar> Start<'_, T> {
    /// A generator for the site's layer: the same whatever other layers are adapted, and in which order.
    pub fn generator(&self, site: &Site<'_>) -> ChaCha8Rng {
        let mut generator = ChaCha8Rng::seed_from_u64(self.seed);
        generator.set_stream(stream_of(site.name()));
        generator
    }
}

/// A number for a name, the same on every platform: FNV-1a (G. Fowler, L. C. Noll, K.-P. Vo).
pub(super) fn stream_of(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ byte as u64).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(stream_of(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(stream_of("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(stream_of("foobar"), 0x8594_4171_f739_67e8);
    }
}
