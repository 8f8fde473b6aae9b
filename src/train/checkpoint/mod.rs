//! The state of a run in one file.
//!
//! A checkpoint is a `.safetensors` file with everything that the rest of a run depends on:
//!
//! | | |
//! |---|---|
//! | `model.NAME` | weights that train, and buffers; frozen weights belong to the model that the run started with |
//! | `optimizer.NAME` | what the optimiser remembers |
//! | metadata `state` | the step, which is also the place in the data and in everything random; evaluations; the length of the log |
//! | metadata `configuration` | the trainer's, which has to be the same when the run goes on |
//! | metadata `frozen`, `fingerprint` | names and shapes of frozen weights, and a checksum of their values |
//! | metadata `format`, `version` | that it is such a file |
//!
//! It is written whole or not at all ([`TensorFile::save`]), so whatever happens on the way, the one before stays. Everything is
//! compared before anything is loaded: a model that does not fit its checkpoint stays as it was.

mod identity;
mod weights;

pub(super) use identity::Identity;
pub(super) use weights::{Weights, load_weights, save_weights};

use super::{optimizer::Optimizer, record::Evaluation, report::Stop};
use crate::{
    error::{ErrorKind, Result},
    nn::Module,
    scalar::Scalar,
    tensor::{Origin, TensorFile},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::path::Path;

/// What the metadata's `format` says.
const FORMAT: &str = "tenfold.train";

/// Of the layout above, and of what a seed gives.
const VERSION: &str = "1";

/// Before the names of the model's tensors.
const MODEL: &str = "model.";

/// Before the names of the optimiser's.
const OPTIMIZER: &str = "optimizer.";

/// Where a run is. That the place in the data, the epoch, and all that is random follow from the step and the seed alone
/// is what makes resuming exact.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// Steps taken.
    pub(super) step: u64,
    /// Of the last step; none before the first.
    pub(super) loss: Option<f64>,
    pub(super) evaluation: Option<Evaluation>,
    pub(super) best: Option<Evaluation>,
    /// Evaluations since the best one.
    pub(super) unimproved: u64,
    pub(super) examples: u64,
    pub(super) seconds: f64,
    pub(super) waited: f64,
    /// The length of the log in bytes.
    pub(super) log: u64,
    /// Why the run is over; none while it can go on.
    pub(super) stopped: Option<Stop>,
}

/// Writes a checkpoint.
///
/// # Errors
/// Those of [`TensorFile::save`]; the file that was there stays then.
pub(super) fn save<T: Scalar, M: Module<T> + ?Sized>(
    path: &Path,
    model: &M,
    optimizer: &Optimizer<T>,
    identity: &Identity,
    state: &State,
) -> Result<()> {
    let mut file = TensorFile::new().with_metadata("format", FORMAT).with_metadata("version", VERSION);
    weights::insert(&mut file, MODEL, model)?;
    optimizer.save_into(&mut file, OPTIMIZER)?;
    identity.write(&mut file)?;
    file.set_metadata("state", json(path, state)?);
    file.save(path)
}

/// Reads a checkpoint of a run of `steps` into a model and an optimiser, and says where the run is.
///
/// # Errors
/// [`ErrorKind::Format`] where the file is truncated or no checkpoint, [`ErrorKind::Unsupported`] for another version,
/// [`ErrorKind::Value`] and [`ErrorKind::Shape`] for another model or another configuration, with what differs.
pub(super) fn load<T: Scalar, M: Module<T> + ?Sized>(
    path: &Path,
    model: &mut M,
    optimizer: &mut Optimizer<T>,
    identity: &Identity,
    steps: u64,
) -> Result<State> {
    let origin = Origin::file("Trainer", path);
    let file = TensorFile::open_lazily(path)?;
    match (word(&origin, &file, "format")?, word(&origin, &file, "version")?) {
        (FORMAT, VERSION) => {}
        (FORMAT, version) => {
            let message = format!("a checkpoint of version {version}; this crate reads version {VERSION}");
            return Err(origin.error(ErrorKind::Unsupported, message));
        }
        _ => return Err(no_checkpoint(&origin)),
    }
    identity.compare(&origin, &file)?;
    let state: State = parsed(&origin, word(&origin, &file, "state")?)?;
    if state.step > steps || (state.step == steps && state.stopped.is_none()) {
        let at = state.step;
        let message =
            format!("the metadata of the checkpoint are damaged: step {at} of a run of {steps} that is not over");
        return Err(origin.format(message));
    }
    weights::check(&origin, &file, MODEL, model)?;
    optimizer.load_from(&file, OPTIMIZER).map_err(|e| origin.error(e.kind(), e.message()).with_source(e))?;
    weights::load(&origin, MODEL, Some("optimizer.*"), model)?;
    Ok(state)
}

fn no_checkpoint(origin: &Origin<'_>) -> crate::Error {
    origin.format("is no checkpoint of a run; the metadata say nothing of one")
}

/// A word of the metadata.
fn word<'f>(origin: &Origin<'_>, file: &'f TensorFile, key: &str) -> Result<&'f str> {
    file.metadata().get(key).map(String::as_str).ok_or_else(|| no_checkpoint(origin))
}

fn json(path: &Path, value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Origin::file("Trainer", path).format(e.to_string()).with_source(e))
}

fn parsed<V: DeserializeOwned>(origin: &Origin<'_>, text: &str) -> Result<V> {
    serde_json::from_str(text)
        .map_err(|e| origin.format(format!("the metadata of the checkpoint are damaged: {e}")).with_source(e))
}
