//! [`Folder`]: where a run keeps its log and its checkpoints.

use super::{
    checkpoint::{self, Identity, State, load_weights, save_weights},
    log::Log,
    optimizer::Optimizer,
    record::Record,
};
use crate::{
    error::{ErrorKind, Result},
    nn::Module,
    scalar::Scalar,
    tensor::{Origin, remove_abandoned},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The checkpoint of the last step that was saved.
const LAST: &str = "last.safetensors";

/// The weights of the best evaluation.
const BEST: &str = "best.safetensors";

/// A line of JSON for each step and each evaluation.
const LOG: &str = "log.jsonl";

/// The folder of a run, which this process alone writes to.
pub(super) struct Folder {
    path: PathBuf,
    log: Log,
    identity: Identity,
    /// The step of the checkpoint that is there.
    saved: Option<u64>,
}

impl Folder {
    /// Makes the folder where there is none, and takes it: one in which there is a run already only to go on with that.
    pub(super) fn open(path: &Path, identity: Identity, resume: bool) -> Result<Self> {
        let origin = Origin::file("Trainer", path);
        fs::create_dir_all(path).map_err(|e| origin.io(e))?;
        let log = Log::open(path.join(LOG))?;
        let folder = Self { path: path.to_path_buf(), log, identity, saved: None };
        if !resume && folder.last().exists() {
            let message =
                format!("there is a run in this folder; resume it, name another folder, or remove its {LAST}");
            return Err(origin.error(ErrorKind::Io, message));
        }
        // Of processes that were killed while they saved.
        for file in [folder.last(), folder.best()] {
            remove_abandoned(&file).map_err(|e| origin.io(e))?;
        }
        Ok(folder)
    }

    /// The path of the last checkpoint.
    pub(super) fn last(&self) -> PathBuf {
        self.path.join(LAST)
    }

    fn best(&self) -> PathBuf {
        self.path.join(BEST)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the last checkpoint of a run of `steps`, where there is one, and cuts the log to what it was then.
    pub(super) fn resume<T: Scalar, M: Module<T> + ?Sized>(
        &mut self,
        model: &mut M,
        optimizer: &mut Optimizer<T>,
        steps: u64,
    ) -> Result<State> {
        let state = match self.last().exists() {
            true => checkpoint::load(&self.last(), model, optimizer, &self.identity, steps)?,
            false => State::default(),
        };
        self.log.truncate(state.log)?;
        self.saved = (state.step > 0).then_some(state.step);
        Ok(state)
    }

    /// Adds a line to the log.
    pub(super) fn add(&mut self, record: &Record) -> Result<()> {
        self.log.add(record)
    }

    /// Writes a checkpoint in the place of the last one.
    pub(super) fn save<T: Scalar, M: Module<T> + ?Sized>(
        &mut self,
        model: &M,
        optimizer: &Optimizer<T>,
        state: &mut State,
    ) -> Result<()> {
        state.log = self.log.synced()?;
        checkpoint::save(&self.last(), model, optimizer, &self.identity, state)?;
        self.saved = Some(state.step);
        Ok(())
    }

    /// Writes the weights of the best evaluation.
    pub(super) fn save_best<T: Scalar, M: Module<T> + ?Sized>(&self, model: &M, step: u64) -> Result<()> {
        save_weights(&self.best(), model, step)
    }

    /// Reads them back.
    pub(super) fn load_best<T: Scalar, M: Module<T> + ?Sized>(&self, model: &mut M, step: u64) -> Result<()> {
        load_weights(&self.best(), model, step)
    }

    /// What an error says of the last good checkpoint.
    pub(super) fn good(&self) -> String {
        match self.saved {
            Some(step) => format!("the last good checkpoint is {}, of step {step}", self.last().display()),
            None => "no checkpoint had been written".to_string(),
        }
    }
}
