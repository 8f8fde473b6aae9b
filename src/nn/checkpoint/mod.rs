//! Checkpoints: a model's parameters and buffers in `.safetensors` files, read and written strictly.
//!
//! - [`Checkpoint`] is what lies on the disk: one file, or several with an index, as Hugging Face lays out large models.
//! - [`Load`] puts a checkpoint into a model. Before anything is read, all names, shapes and types are compared, and what does not
//!   fit is an error that lists it; what may be left over or missing, be rounded or be reshaped, has to be said.
//! - [`Save`] writes a model.
//! - [`Renames`] translates names.
//!
//! Reading takes the memory of the model and of its largest tensor: one tensor at a time is read, in pieces.

mod differences;
mod index;
mod load;
mod renames;
mod save;

pub(crate) use differences::Differences;
pub use load::{Load, Loaded};
pub use renames::Renames;
pub use save::Save;

use super::module::{Module, Visitor};
use crate::{
    error::{ErrorKind, Result},
    scalar::{DType, Element, Scalar},
    tensor::{Origin, Tensor, TensorFile, listed},
};
use ndarray::{Dimension, IxDyn};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The file of a model that has only one, by Hugging Face's custom.
const SINGLE: &str = "model.safetensors";

/// The index of a model that has several files.
const INDEX: &str = "model.safetensors.index.json";

/// Named tensors on the disk: one `.safetensors` file, or several (*shards*) and an index that says where each tensor is.
///
/// ```
/// use tenfold::nn::{Checkpoint, Linear, Save};
///
/// let folder = std::env::temp_dir().join("tenfold-checkpoint");
/// std::fs::create_dir_all(&folder).unwrap();
/// let model = vec![Linear::<f32>::zeros(100, 10)?, Linear::zeros(10, 100)?];
/// Save::new().shards_of(6000).write(&model, &folder)?;
///
/// let checkpoint = Checkpoint::open(&folder)?;
/// assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["0.bias", "0.weight", "1.bias", "1.weight"]);
/// assert_eq!(checkpoint.shape("0.weight")?, [10, 100]);
/// assert!(folder.join("model-00002-of-00002.safetensors").is_file());
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Checkpoint {
    path: PathBuf,
    shards: Vec<TensorFile>,
    /// Which shard has a tensor.
    place: BTreeMap<String, usize>,
}

impl Checkpoint {
    /// Opens a checkpoint and reads the headers of its files: `path` is a `.safetensors` file, an index that ends in `.json`, or a folder
    /// with `model.safetensors` or `model.safetensors.index.json` in it (the first where it has both).
    ///
    /// # Errors
    /// As [`TensorFile::open`]; [`ErrorKind::Io`] naming a shard that is missing; [`ErrorKind::Format`] where an index is malformed,
    /// names a tensor twice or a tensor that its shard does not have, does not name one that a shard has, or where a shard's name is
    /// anything but the plain name of a file in the same folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let origin = Origin::file("Checkpoint::open", path);
        if path.is_dir() {
            return match [SINGLE, INDEX].map(|name| path.join(name)).into_iter().find(|file| file.is_file()) {
                Some(file) => Self::open(file),
                None => Err(origin.error(ErrorKind::Io, format!("the folder has neither {SINGLE} nor {INDEX}"))),
            };
        }
        if path.extension().is_some_and(|extension| extension == "json") {
            return index::open(path);
        }
        let file = TensorFile::open_lazily(path)?;
        let place = file.names().map(|name| (name.to_string(), 0)).collect();
        Ok(Self { path: path.to_path_buf(), shards: vec![file], place })
    }

    /// Where it lies: the file that was opened, or the index.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, in alphabetical order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.place.keys().map(String::as_str)
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.place.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.place.is_empty()
    }

    /// The sizes of a tensor's modes.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where there is no tensor of this name.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        self.shard("Checkpoint::shape", name)?.shape(name)
    }

    /// The element type that holds a tensor as it is, as [`TensorFile::dtype`] says.
    ///
    /// # Errors
    /// As [`TensorFile::dtype`].
    pub fn dtype(&self, name: &str) -> Result<DType> {
        self.shard("Checkpoint::dtype", name)?.dtype(name)
    }

    /// Reads a tensor, exactly, as [`TensorFile::get`] does.
    ///
    /// # Errors
    /// As [`TensorFile::get`].
    pub fn get<T: Element, D: Dimension>(&self, name: &str) -> Result<Tensor<T, D>> {
        self.shard("Checkpoint::get", name)?.get(name)
    }

    /// A tensor of floats in a model's type, rounded to nearest where the file's is wider.
    pub(crate) fn rounded<T: Scalar>(&self, name: &str) -> Result<Tensor<T>> {
        if self.dtype(name)? == DType::F64 && T::DTYPE == DType::F32 {
            return self.get::<f64, IxDyn>(name)?.cast();
        }
        self.get(name)
    }

    fn shard(&self, operation: &'static str, name: &str) -> Result<&TensorFile> {
        match self.place.get(name) {
            Some(&shard) => Ok(&self.shards[shard]),
            // One file has a better message.
            None if self.shards.len() == 1 => Ok(&self.shards[0]),
            None => {
                let message = format!("there is no tensor {name:?}; there are {}", listed(self.names()));
                Err(Origin::file(operation, &self.path).error(ErrorKind::Value, message))
            }
        }
    }
}

/// A walk over a module that meets adapters or not.
fn walk<'s, 'a, T: Scalar>(visitor: Visitor<'s, 'a, T>, adapters: bool) -> Visitor<'s, 'a, T> {
    if adapters { visitor } else { visitor.without_adapters() }
}

/// Hands every tensor of a module, parameters first, to `take`, until one is refused.
fn each_tensor<T: Scalar, M: Module<T> + ?Sized>(
    module: &M,
    adapters: bool,
    take: &mut dyn FnMut(&str, &Tensor<T>) -> Result<()>,
) -> Result<()> {
    let mut done = Ok(());
    let mut next = |name: &str, tensor: &Tensor<T>| {
        if done.is_ok() {
            done = take(name, tensor);
        }
    };
    module.visit(&mut walk(Visitor::parameters(&mut |name, parameter| next(name, parameter.value())), adapters));
    module.visit(&mut walk(Visitor::buffers(&mut |name, buffer| next(name, &buffer.value())), adapters));
    done
}
