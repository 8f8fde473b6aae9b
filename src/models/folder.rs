//! A model's folder as Hugging Face lays it out: `config.json` and `model.safetensors`.

use crate::{
    error::{Error, Result},
    nn::{Module, Save},
    scalar::Scalar,
    tensor::Origin,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

const NAME: &str = "save";

const TENSORS: &str = "model.safetensors";
const CONFIG: &str = "config.json";

/// The largest configuration has some hundred kilobytes: the names of 21 843 classes, twice.
const MOST: u64 = 16 << 20;

/// The folder's `config.json`, where the path is a folder and the file is transformers': timm's has no `model_type`.
pub(super) fn config(path: &Path) -> Result<Option<PathBuf>> {
    let file = path.join(CONFIG);
    if !path.is_dir() || !file.is_file() {
        return Ok(None);
    }
    let content: Value = read(&Origin::file(CONFIG, &file), &file)?;
    Ok(content.get("model_type").is_some().then_some(file))
}

/// Reads of a configuration what is asked for; the origin is that of errors.
pub(super) fn read<C: DeserializeOwned>(origin: &Origin<'_>, path: &Path) -> Result<C> {
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(MOST + 1).read_to_end(&mut text)).map_err(|e| origin.io(e))?;
    if text.len() as u64 > MOST {
        return Err(origin.format(format!("a configuration of more than {MOST} bytes is not read")));
    }
    serde_json::from_slice(&text).map_err(|e| origin.format(format!("not such a configuration: {e}")).with_source(e))
}

/// Where the tensors of a model lie in its folder, which is made where there is none.
pub(super) fn tensors(path: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(path).map_err(|e| Error::io(NAME, path, e))?;
    Ok(path.join(TENSORS))
}

/// Writes both files; the folder is made where there is none. One that is interrupted leaves no `config.json` rather than an old one.
pub(super) fn write<T: Scalar>(
    path: &Path,
    save: &Save,
    model: &(impl Module<T> + ?Sized),
    config: &str,
) -> Result<()> {
    save.to_file(model)?.save_described(NAME, path, TENSORS, (CONFIG, config))
}
