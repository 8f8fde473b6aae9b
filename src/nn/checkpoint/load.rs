//! [`Load`]: a checkpoint into a model.

use super::{Checkpoint, differences::Differences, each_tensor, renames::Renames};
use crate::{
    error::{ErrorKind, Result},
    nn::{Module, Visitor, VisitorMut, pattern::Pattern},
    scalar::Scalar,
    tensor::{Origin, Tensor},
};
use ndarray::IxDyn;
use std::{collections::BTreeMap, path::Path};

/// Puts a checkpoint into a model, strictly: names, shapes and types have to be the same, but for what is said otherwise.
///
/// Everything is compared before anything is read; a model that does not fit its file stays as it was. Patterns are names in which
/// each `*` stands for any text.
///
/// ```
/// use tenfold::nn::{Linear, Load, Renames, Save};
///
/// let path = std::env::temp_dir().join("tenfold-load.safetensors");
/// Save::new().write(&Linear::<f32>::zeros(3, 2)?, &path)?;
///
/// let mut wide = Linear::<f64>::zeros(3, 4)?;
/// let error = Load::new().read(&mut wide, &path).unwrap_err();
/// assert!(error.message().ends_with(
///     "2 tensors do not fit: \"bias\" has shape [2] in the file and [4] in the model; \
///      \"weight\" has shape [2, 3] in the file and [4, 3] in the model"
/// ));
///
/// let mut layers = vec![Linear::<f64>::zeros(3, 2)?, Linear::zeros(2, 2)?];
/// let into_first = Load::new().renames(Renames::new().add_prefix("0."));
/// let error = into_first.read(&mut layers, &path).unwrap_err();
/// assert!(error.message().ends_with("2 of the model's tensors are missing: \"1.bias\", \"1.weight\""));
/// let loaded = into_first.allow_missing("1.*").read(&mut layers, &path)?;
/// assert_eq!(loaded.missing, ["1.bias", "1.weight"]);
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Load {
    renames: Renames,
    ignore: Vec<Pattern>,
    missing: Vec<Pattern>,
    squeeze: Vec<Pattern>,
    round: bool,
    base_only: bool,
}

/// What [`Load`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// How many tensors were read.
    pub count: usize,
    /// Names in the file that were ignored, as was said.
    pub ignored: Vec<String>,
    /// Names in the model that the file lacks, as was said: they keep their values.
    pub missing: Vec<String>,
}

impl Load {
    /// Everything has to be the same.
    pub fn new() -> Self {
        Self::default()
    }

    /// How names in the file become names in the model.
    pub fn renames(self, renames: Renames) -> Self {
        Self { renames, ..self }
    }

    /// Ignores tensors whose name in the file matches: heads of another task, `*.num_batches_tracked`.
    pub fn ignore(mut self, pattern: &str) -> Self {
        self.ignore.push(Pattern::new(pattern));
        self
    }

    /// Lets tensors of the model that match keep their values where the file lacks them: a new head.
    pub fn allow_missing(mut self, pattern: &str) -> Self {
        self.missing.push(Pattern::new(pattern));
        self
    }

    /// Lets tensors of the model that match take values of another shape where the shapes differ only in modes of size 1.
    pub fn squeeze(mut self, pattern: &str) -> Self {
        self.squeeze.push(Pattern::new(pattern));
        self
    }

    /// Rounds `f64` in a file to an `f32` model. (Narrower floats widen exactly, and need not be asked for.)
    pub fn round(self) -> Self {
        Self { round: true, ..self }
    }

    /// Leaves adapters out: the file has the model without them.
    pub fn without_adapters(self) -> Self {
        Self { base_only: true, ..self }
    }

    /// Opens a checkpoint and puts it into a model.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; [`ErrorKind::Value`] listing names that are missing and that are unexpected, or two names that become one;
    /// [`ErrorKind::Shape`] listing shapes that differ; [`ErrorKind::Unsupported`] listing types that would be rounded or are no floats;
    /// [`ErrorKind::Io`] where reading fails on the way, which leaves some parameters read and others not.
    pub fn read<T: Scalar, M: Module<T> + ?Sized>(&self, module: &mut M, path: impl AsRef<Path>) -> Result<Loaded> {
        self.apply(module, &Checkpoint::open(path)?)
    }

    /// Puts a checkpoint that is open into a model.
    ///
    /// # Errors
    /// As [`read`](Load::read).
    pub fn apply<T: Scalar, M: Module<T> + ?Sized>(&self, module: &mut M, checkpoint: &Checkpoint) -> Result<Loaded> {
        let origin = Origin::file("Load", &checkpoint.path);
        let targets = self.targets(&origin, module)?;
        let (sources, ignored) = self.sources(&origin, checkpoint)?;
        let missing = self.compare_names(&origin, &targets, &sources)?;
        let plan: BTreeMap<&str, &str> = sources.iter().map(|(name, source)| (name.as_str(), *source)).collect();
        self.compare_tensors::<T>(&origin, &targets, &plan, checkpoint)?;
        let value = |name: &str| -> Option<Result<Tensor<T, IxDyn>>> {
            let source = plan.get(name)?;
            Some(
                checkpoint
                    .rounded::<T>(source)
                    .and_then(|value| value.reshape(targets[name].as_slice()))
                    .map(Tensor::into_dyn),
            )
        };
        let mut done = Ok(());
        let mut put = |name: &str, set: &mut dyn FnMut(Tensor<T, IxDyn>) -> Result<()>| {
            if done.is_ok() {
                done = value(name).map_or(Ok(()), |value| set(value?));
            }
        };
        let mut parameters = |name: &str, parameter: &mut super::super::Parameter<T>| {
            put(name, &mut |value| parameter.set(value));
        };
        let visitor = VisitorMut::parameters(&mut parameters);
        module.visit_mut(&mut if self.base_only { visitor.without_adapters() } else { visitor });
        let mut buffers = |name: &str, buffer: &super::super::Buffer<T>| put(name, &mut |value| buffer.set(value));
        module.visit(&mut super::walk(Visitor::buffers(&mut buffers), !self.base_only));
        done?;
        Ok(Loaded { count: plan.len(), ignored, missing })
    }

    /// The names of the model's tensors and their shapes.
    fn targets<T: Scalar, M: Module<T> + ?Sized>(
        &self,
        origin: &Origin<'_>,
        module: &M,
    ) -> Result<BTreeMap<String, Vec<usize>>> {
        let mut targets = BTreeMap::new();
        each_tensor(module, !self.base_only, &mut |name, tensor| match targets
            .insert(name.to_string(), tensor.shape().to_vec())
        {
            None => Ok(()),
            Some(_) => Err(origin.error(ErrorKind::Value, format!("the model has two tensors of the name {name:?}"))),
        })?;
        Ok(targets)
    }

    /// The names of the file's tensors after and before renaming, and those that are ignored.
    fn sources<'c>(
        &self,
        origin: &Origin<'_>,
        checkpoint: &'c Checkpoint,
    ) -> Result<(BTreeMap<String, &'c str>, Vec<String>)> {
        let (mut sources, mut ignored) = (BTreeMap::new(), Vec::new());
        for name in checkpoint.names() {
            if self.ignore.iter().any(|pattern| pattern.matches(name)) {
                ignored.push(name.to_string());
                continue;
            }
            let renamed = self.renames.apply(name);
            if let Some(other) = sources.insert(renamed.clone(), name) {
                let message = format!("{other:?} and {name:?} in the file both become {renamed:?}");
                return Err(origin.error(ErrorKind::Value, message));
            }
        }
        Ok((sources, ignored))
    }

    /// An error that lists what is missing and what is unexpected; or what is missing as was said.
    fn compare_names(
        &self,
        origin: &Origin<'_>,
        targets: &BTreeMap<String, Vec<usize>>,
        sources: &BTreeMap<String, &str>,
    ) -> Result<Vec<String>> {
        let absent = targets.keys().filter(|name| !sources.contains_key(*name)).map(String::as_str);
        let (allowed, missing): (Vec<&str>, Vec<&str>) =
            absent.partition(|name| self.missing.iter().any(|pattern| pattern.matches(name)));
        let mut differences = Differences::default();
        missing.into_iter().for_each(|name| differences.missing(name));
        sources.keys().filter(|name| !targets.contains_key(*name)).for_each(|name| differences.unexpected(name));
        differences.check(origin)?;
        Ok(allowed.into_iter().map(str::to_string).collect())
    }

    /// An error that lists all shapes that differ, or all types that cannot be read into the model's.
    fn compare_tensors<T: Scalar>(
        &self,
        origin: &Origin<'_>,
        targets: &BTreeMap<String, Vec<usize>>,
        plan: &BTreeMap<&str, &str>,
        checkpoint: &Checkpoint,
    ) -> Result<()> {
        let mut differences = Differences::default();
        for (&name, &source) in plan {
            let (held, wanted) = (checkpoint.shape(source)?, targets[name].as_slice());
            let alike = |a: &[usize], b: &[usize]| {
                a.iter().filter(|&&n| n != 1).eq(b.iter().filter(|&&n| n != 1)) && !a.is_empty()
            };
            if !(self.squeeze.iter().any(|pattern| pattern.matches(name)) && alike(held, wanted)) {
                differences.shape(name, held, wanted);
            }
            differences.dtype::<T>(name, checkpoint.dtype(source)?, self.round);
        }
        differences.check(origin)
    }
}
