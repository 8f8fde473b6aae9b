//! [`Save`]: a model into a checkpoint.

use super::{INDEX, SINGLE, each_tensor, renames::Renames};
use crate::{
    error::{Error, ErrorKind, Result},
    nn::{Module, pattern::Pattern},
    scalar::Scalar,
    tensor::{Origin, Staged, Tensor, TensorFile, place_described},
};
use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
};

/// Writes a model's parameters and buffers: one `.safetensors` file, or several and an index.
///
/// Every file appears whole or not at all. Of several, all are written before the first takes its place; an old index goes before, and the
/// new one comes last, so that an index never names tensors of another model. The metadata say `"format": "pt"`, without which Hugging Face's
/// transformers refuses a file.
///
/// ```
/// use tenfold::{TensorFile, nn::{Linear, Renames, Save}};
///
/// let path = std::env::temp_dir().join("tenfold-save.safetensors");
/// Save::new()
///     .renames(Renames::new().add_prefix("classifier."))
///     .metadata("step", "12")
///     .write(&Linear::<f32>::zeros(3, 2)?, &path)?;
/// TensorFile::open(&path)?.expect_names(["classifier.bias", "classifier.weight"])?;
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Save {
    renames: Renames,
    unsqueeze: Vec<(Pattern, [usize; 2])>,
    metadata: BTreeMap<String, String>,
    shard: Option<u64>,
    base_only: bool,
}

impl Default for Save {
    fn default() -> Self {
        let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
        Self { renames: Renames::new(), unsqueeze: Vec::new(), metadata, shard: None, base_only: false }
    }
}

impl Save {
    /// One file, with the names of the model.
    pub fn new() -> Self {
        Self::default()
    }

    /// How names in the model become names in the file.
    pub fn renames(self, renames: Renames) -> Self {
        Self { renames, ..self }
    }

    /// Gives tensors of the model whose name in it matches modes of size 1 in the file, so many in front and so many behind: what
    /// [`Load::squeeze`](super::Load::squeeze) takes away.
    ///
    /// ```
    /// use tenfold::{TensorFile, nn::{Grn, Save}};
    ///
    /// let path = std::env::temp_dir().join("tenfold-unsqueeze.safetensors");
    /// Save::new().unsqueeze("weight", [3, 0]).write(&Grn::<f32>::new(8, 1e-6)?, &path)?;
    /// let file = TensorFile::open(&path)?;
    /// assert_eq!((file.shape("weight")?, file.shape("bias")?), (&[1, 1, 1, 8][..], &[8][..]));
    /// # std::fs::remove_file(&path).unwrap();
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    pub fn unsqueeze(mut self, pattern: &str, modes: [usize; 2]) -> Self {
        self.unsqueeze.push((Pattern::new(pattern), modes));
        self
    }

    /// A word of metadata.
    pub fn metadata(mut self, key: &str, value: &str) -> Self {
        self.metadata.insert(key.to_string(), value.to_string());
        self
    }

    /// Several files of at most so many bytes of numbers, or of one tensor that is larger: the path is then a folder, which gets
    /// `model-00001-of-00003.safetensors` and so on with `model.safetensors.index.json`, or only `model.safetensors` where one is enough.
    pub fn shards_of(self, bytes: u64) -> Self {
        Self { shard: Some(bytes), ..self }
    }

    /// Leaves adapters out.
    pub fn without_adapters(self) -> Self {
        Self { base_only: true, ..self }
    }

    /// Writes a model.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where two tensors have the same name, and those of [`TensorFile::save`].
    pub fn write<T: Scalar, M: Module<T> + ?Sized>(&self, module: &M, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let tensors = self.tensors(module)?;
        let Some(most) = self.shard else { return self.file(&tensors)?.save(path) };
        let mut names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let message = format!("two tensors have the name {:?}", twice[0]);
            return Err(Origin::file("Save", path).error(ErrorKind::Value, message));
        }
        let shards = cut(&tensors, most);
        if let [all] = shards.as_slice() {
            return self.file(all)?.save(path.join(SINGLE));
        }
        let count = shards.len();
        let files: Vec<String> = (1..=count).map(|i| format!("model-{i:05}-of-{count:05}.safetensors")).collect();
        let places: Vec<PathBuf> = files.iter().map(|file| path.join(file)).collect();
        let staged = shards.iter().zip(&places).map(|(shard, place)| self.file(shard)?.stage(place));
        let staged = staged.collect::<Result<_>>()?;
        let named = shards.iter().zip(&files).flat_map(|(shard, file)| shard.iter().map(move |(name, _)| (name, file)));
        let weight_map: BTreeMap<_, _> = named.collect();
        let total: u64 = tensors.iter().map(|(_, tensor)| bytes(tensor)).sum();
        let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        let path = path.join(INDEX);
        let index = Staged::write("Save", &path, |writer| {
            writeln!(writer, "{index:#}").map_err(|e| Error::io("Save", &path, e))
        })?;
        place_described(staged, index)
    }

    /// The one file that [`write`](Save::write) writes where it makes no shards.
    pub(crate) fn to_file<T: Scalar, M: Module<T> + ?Sized>(&self, module: &M) -> Result<TensorFile> {
        self.file(&self.tensors(module)?)
    }

    /// What is written, under the names of the file.
    fn tensors<T: Scalar, M: Module<T> + ?Sized>(&self, module: &M) -> Result<Vec<(String, Tensor<T>)>> {
        let mut tensors = Vec::new();
        each_tensor(module, !self.base_only, &mut |name, tensor| {
            tensors.push((self.renames.apply(name), self.shaped(name, tensor)?));
            Ok(())
        })?;
        Ok(tensors)
    }

    /// A tensor with the modes that its name asks for.
    fn shaped<T: Scalar>(&self, name: &str, tensor: &Tensor<T>) -> Result<Tensor<T>> {
        let Some((_, [front, behind])) = self.unsqueeze.iter().find(|(pattern, _)| pattern.matches(name)) else {
            return Ok(tensor.clone());
        };
        Ok(tensor.reshape([&vec![1; *front], tensor.shape(), &vec![1; *behind]].concat())?.into_dyn())
    }

    fn file<T: Scalar>(&self, tensors: &[(String, Tensor<T>)]) -> Result<TensorFile> {
        let mut file = TensorFile::new();
        self.metadata.iter().for_each(|(key, value)| file.set_metadata(key, value));
        tensors.iter().try_for_each(|(name, tensor)| file.insert(name, tensor))?;
        Ok(file)
    }
}

fn bytes<T: Scalar>(tensor: &Tensor<T>) -> u64 {
    tensor.len() as u64 * T::DTYPE.size() as u64
}

/// Consecutive parts that each have at most so many bytes, or one tensor. There is always one part.
fn cut<T: Scalar>(tensors: &[(String, Tensor<T>)], most: u64) -> Vec<&[(String, Tensor<T>)]> {
    let (mut parts, mut start, mut size) = (Vec::new(), 0, 0);
    for (i, (_, tensor)) in tensors.iter().enumerate() {
        if i > start && size + bytes(tensor) > most {
            parts.push(&tensors[start..i]);
            (start, size) = (i, 0);
        }
        size += bytes(tensor);
    }
    parts.push(&tensors[start..]);
    parts
}
