//! Adapters on the disk: a folder as Hugging Face's PEFT has it, and the files of other programs.
//!
//! [`save`] and [`load`] use PEFT's folder, `adapter_config.json` beside `adapter_model.safetensors`, with tensors named
//! `base_model.model.LAYER.PART`. LoRA, rsLoRA, DoRA and AdaLoRA are what stock PEFT writes and reads; FLoRA has parts of its own
//! in the same folder (`flora_G`, `flora_A.0`, ..) and a `peft_type` of its own, which stock PEFT refuses instead of
//! misreading it; so have bottlenecks (`adapter_down`, `adapter_up`), which stock PEFT does not know. Heads and biases that were trained are saved with the adapters.
//!
//! Loading is strict: what is missing, what is unexpected and which shapes differ is an error that lists all of it, and
//! the model stays as it was.
//!
//! | program | LoRA | FLoRA | here |
//! |---|---|---|---|
//! | PEFT | as it is | written as LoRA, where that is exact ([`SaveAdapter::for_peft`]) | [`save`], [`load`] |
//! | LyCORIS, kohya's scripts | as it is | convolutions as they are, linear layers as LoRA | [`lycoris`] |
//! | AdapterHub's `adapters` | | | bottlenecks: [`adapterhub`] |
//! | the authors' FLoRA | | as it is, without the scale | [`authors`] |
//! | everything else | merged weights ([`merge`](super::merge), [`nn::Save`](crate::nn::Save)) | the same | |
//!
//! Where a format cannot say it exactly, writing is an error that names the reason.
//!
//! | file | what |
//! |---|---|
//! | `load.rs`, `save.rs` | [`LoadAdapter`], [`SaveAdapter`] |
//! | `config.rs`, `describe.rs` | `adapter_config.json`; what it says of a model |
//! | `format.rs` | the names of parts, method by method |
//! | `adalora.rs` | AdaLoRA: what was pruned, and its configuration |
//! | `layout.rs` | reading any of these files: what belongs where, and what does not |
//! | `lycoris.rs`, `adapterhub.rs`, `authors.rs`, `plain.rs` | other programs, and what they compute alike |

mod adalora;
pub mod adapterhub;
pub mod authors;
mod config;
mod describe;
mod format;
mod layout;
mod load;
pub mod lycoris;
mod plain;
mod save;

pub use layout::LoadedAdapter;
pub use load::LoadAdapter;
pub use save::SaveAdapter;

use crate::{error::Result, nn::Module, scalar::Scalar};
use std::path::Path;

/// The tensors of a folder, by PEFT's custom.
const TENSORS: &str = "adapter_model.safetensors";

/// Writes a model's adapters and what was trained beside them into a folder. [`SaveAdapter`] has more settings.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{nn::{Linear, Module}, peft::{self, Attach, Flora, Targets}};
///
/// let folder = std::env::temp_dir().join("tenfold-adapters");
/// let model = || Ok::<_, tenfold::Error>(vec![Linear::<f32>::zeros(8, 8)?, Linear::zeros(8, 2)?]);
/// let mut trained = model()?;
/// let flora = Flora::new().rank(2);
/// Attach::new(&flora).to(Targets::of(["0"])).keep(Targets::of(["1"])).apply(&mut trained)?;
/// // .. training ..
/// peft::save(&trained, &folder)?;
///
/// // The base model again, and what was trained.
/// let mut again = model()?;
/// let loaded = peft::load(&mut again, &folder)?;
/// assert_eq!((&loaded.layers[..], &loaded.own[..]), (&["0".to_string()][..], &["1.bias".to_string(), "1.weight".into()][..]));
/// assert_eq!(again.count(), trained.count());
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # Errors
/// As [`SaveAdapter::write`].
pub fn save<T: Scalar, M: Module<T> + ?Sized>(model: &M, folder: impl AsRef<Path>) -> Result<()> {
    SaveAdapter::new().write(model, folder)
}

/// Reads a folder of adapters into a base model, under the name `default`. [`LoadAdapter`] has more settings.
///
/// # Errors
/// As [`LoadAdapter::read`].
pub fn load<T: Scalar, M: Module<T> + ?Sized>(model: &mut M, folder: impl AsRef<Path>) -> Result<LoadedAdapter> {
    LoadAdapter::new().read(model, folder)
}
