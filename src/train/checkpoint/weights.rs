//! The weights that train and the buffers of a model, in a file and in memory.

use crate::{
    error::{ErrorKind, Result},
    nn::{Load, Module, Renames},
    scalar::Scalar,
    tensor::{Origin, Tensor, TensorFile, listed},
};
use std::{collections::BTreeSet, path::Path};

/// Names and values of the parameters that train, and of all buffers.
fn moving<T: Scalar, M: Module<T> + ?Sized>(model: &M) -> Vec<(String, Tensor<T>)> {
    let training = model.parameters().into_iter().filter(|(_, parameter)| parameter.trains());
    let mut all: Vec<_> = training.map(|(name, parameter)| (name, parameter.value().clone())).collect();
    all.extend(model.buffers().into_iter().map(|(name, buffer)| (name, buffer.value())));
    all
}

/// Adds them to a file.
pub(super) fn insert<T: Scalar, M: Module<T> + ?Sized>(file: &mut TensorFile, prefix: &str, model: &M) -> Result<()> {
    moving(model).iter().try_for_each(|(name, tensor)| file.insert(&format!("{prefix}{name}"), tensor))
}

/// An error that lists what the model trains and the file has not, and the other way round.
pub(super) fn check<T: Scalar, M: Module<T> + ?Sized>(
    origin: &Origin<'_>,
    file: &TensorFile,
    prefix: &str,
    model: &M,
) -> Result<()> {
    let ours: BTreeSet<String> = moving(model).into_iter().map(|(name, _)| name).collect();
    let theirs: BTreeSet<String> =
        file.names().filter_map(|name| Some(name.strip_prefix(prefix)?.to_string())).collect();
    let parts: Vec<String> = [
        ("that train in the model are missing", ours.difference(&theirs).collect::<Vec<_>>()),
        ("do not train in the model", theirs.difference(&ours).collect()),
    ]
    .into_iter()
    .filter(|(_, names)| !names.is_empty())
    .map(|(what, names)| format!("{} tensors {what}: {}", names.len(), listed(names.into_iter().map(String::as_str))))
    .collect();
    if parts.is_empty() {
        return Ok(());
    }
    Err(origin.error(ErrorKind::Value, format!("the checkpoint is of another model: {}", parts.join("; "))))
}

/// Puts them into the model; frozen weights keep their values.
///
/// # Errors
/// Those of [`Load`]: all shapes that differ are listed, and nothing is changed then.
pub(super) fn load<T: Scalar, M: Module<T> + ?Sized>(
    origin: &Origin<'_>,
    prefix: &str,
    ignore: Option<&str>,
    model: &mut M,
) -> Result<()> {
    let mut load = Load::new().renames(Renames::new().strip_prefix(prefix));
    if let Some(pattern) = ignore {
        load = load.ignore(pattern);
    }
    for (name, parameter) in model.parameters() {
        if !parameter.trains() {
            load = load.allow_missing(&name);
        }
    }
    let path = origin.path.unwrap_or(Path::new(""));
    load.read(model, path).map_err(|e| {
        let message = format!("the checkpoint is of another model: {}", e.message());
        crate::Error::new(e.kind(), origin.operation, message).with_source(e)
    })?;
    Ok(())
}

/// Writes the weights of a model that are the best so far, with the names that they have in the model: a file that
/// [`Load`] reads into one.
pub(in crate::train) fn save_weights<T: Scalar, M: Module<T> + ?Sized>(
    path: &Path,
    model: &M,
    step: u64,
) -> Result<()> {
    let mut file = TensorFile::new().with_metadata("format", "pt").with_metadata("step", step.to_string());
    insert(&mut file, "", model)?;
    file.save(path)
}

/// Puts such weights back.
///
/// # Errors
/// As [`load`], and [`ErrorKind::Format`] where they are those of another step.
pub(in crate::train) fn load_weights<T: Scalar, M: Module<T> + ?Sized>(
    path: &Path,
    model: &mut M,
    step: u64,
) -> Result<()> {
    let origin = Origin::file("Trainer", path);
    let file = TensorFile::open_lazily(path)?;
    if file.metadata().get("step").is_none_or(|held| *held != step.to_string()) {
        let held = file.metadata().get("step").map_or("no step", String::as_str);
        return Err(origin.format(format!("weights of step {step} are due, which was the best; the file says {held}")));
    }
    check(&origin, &file, "", model)?;
    load(&origin, "", None, model)
}

/// The weights of a model at some step, in memory. Blocks are shared until the next step writes to its own.
pub(in crate::train) struct Weights<T: Scalar>(Vec<(String, Tensor<T>)>);

impl<T: Scalar> Weights<T> {
    /// Those that the model has now.
    pub(in crate::train) fn of<M: Module<T> + ?Sized>(model: &M) -> Self {
        Self(moving(model))
    }

    /// Gives them back to the same model.
    pub(in crate::train) fn restore<M: Module<T> + ?Sized>(self, model: &mut M) -> Result<()> {
        let mut kept: std::collections::BTreeMap<String, Tensor<T>> = self.0.into_iter().collect();
        for (name, parameter) in model.parameters_mut() {
            kept.remove(&name).map_or(Ok(()), |value| parameter.set(value))?;
        }
        model.buffers().into_iter().try_for_each(|(name, buffer)| match kept.remove(&name) {
            Some(value) => buffer.set(value),
            None => Ok(()),
        })
    }
}
