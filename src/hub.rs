//! Models by the names that they have on Hugging Face's hub.
//!
//! [`locate`] makes a path of what a user calls a model: a file, a folder, or a name such as `facebook/convnextv2-tiny-22k-224`.
//! With the feature `hub` the files of such a name are downloaded, once, into the cache that Hugging Face's own tools use
//! (`HF_HOME`, else `~/.cache/huggingface`), and from then on no network is needed. Without the feature, or without a network, the error says
//! which files to put where.
//!
//! ```
//! use tenfold::hub;
//!
//! // What is there is taken as it is.
//! let folder = std::env::temp_dir();
//! assert_eq!(hub::locate(&folder.to_string_lossy(), &hub::IMAGE_MODEL)?, folder);
//!
//! let error = hub::locate("models/mine.safetensors", &hub::IMAGE_MODEL).unwrap_err();
//! assert_eq!(error.to_string(), "hub: models/mine.safetensors: there is no such file or folder");
//! # Ok::<(), tenfold::Error>(())
//! ```

use crate::error::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

const NAME: &str = "hub";

/// The weights of a model, in one file or, where the hub has them so, in several with an index.
const WEIGHTS: &str = "model.safetensors";

/// Which files of a model are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files<'a> {
    /// Without these a model is of no use. `model.safetensors` stands for weights in several files too.
    pub required: &'a [&'a str],
    /// These are taken where there are any.
    pub optional: &'a [&'a str],
}

/// The files of an image model: `model.safetensors` and, where there is one, `config.json`.
pub const IMAGE_MODEL: Files<'static> = Files { required: &[WEIGHTS], optional: &["config.json"] };

/// The files of a text model: weights, `config.json`, and whichever files its tokenizer has.
pub const TEXT_MODEL: Files<'static> = Files {
    required: &[WEIGHTS, "config.json"],
    optional: &["tokenizer.json", "spm.model", "vocab.txt", "tokenizer_config.json"],
};

/// Where the files of a model are: `model` itself, where it is a file or a folder; else the folder of the cache that the
/// hub's files lie in, downloaded where they do not yet.
///
/// # Errors
/// [`ErrorKind::Io`] where `model` is neither there nor a name `owner/model`, and where the hub cannot be reached;
/// [`ErrorKind::Unsupported`] for a name of the hub in a build without the feature `hub`; [`ErrorKind::Value`] where the hub's model
/// lacks a file, with those that it has. Each says what would help.
pub fn locate(model: &str, files: &Files<'_>) -> Result<PathBuf> {
    let path = Path::new(model);
    if path.exists() {
        return Ok(path.to_path_buf());
    }
    if !is_name(model) {
        return Err(Error::new(ErrorKind::Io, NAME, format!("{model}: there is no such file or folder")));
    }
    download(model, files)
}

/// Whether this could be a model of the hub: an owner and a name, which is no name of a file.
fn is_name(model: &str) -> bool {
    let allowed = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '-'])
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let file = [".safetensors", ".json", ".bin", ".pth"].iter().any(|end| model.ends_with(end));
    !file && model.split_once('/').is_some_and(|(owner, name)| allowed(owner) && allowed(name))
}

/// What to do without a download.
fn by_hand(model: &str, files: &Files<'_>) -> String {
    let all: Vec<&str> = files.required.iter().chain(files.optional).copied().collect();
    format!(
        "from a machine with a network, put {} of https://huggingface.co/{model}/tree/main into a folder, and give its path instead",
        all.join(", ")
    )
}

#[cfg(not(feature = "hub"))]
fn download(model: &str, files: &Files<'_>) -> Result<PathBuf> {
    let message = format!(
        "{model}: there is no such file or folder, and this build does not download: build with --features hub; or, {}",
        by_hand(model, files)
    );
    Err(Error::new(ErrorKind::Unsupported, NAME, message))
}

#[cfg(feature = "hub")]
use online::download;

#[cfg(feature = "hub")]
mod online {
    use super::*;
    use hf_hub::{
        Cache,
        api::sync::{ApiBuilder, ApiError},
    };

    /// The index of weights in several files.
    const INDEX: &str = "model.safetensors.index.json";

    /// As [`locate`], for a name. The environment says where the hub is, and where downloads are kept.
    pub(super) fn download(model: &str, files: &Files<'_>) -> Result<PathBuf> {
        // hf-hub panics without either.
        if std::env::var_os("HF_HOME").is_none() && std::env::home_dir().is_none() {
            let message = "there is no home directory to keep downloads in; set HF_HOME to a folder";
            return Err(Error::new(ErrorKind::Io, NAME, message));
        }
        let endpoint = std::env::var("HF_ENDPOINT").unwrap_or_else(|_| "https://huggingface.co".into());
        let cache = Cache::from_env();
        let cached = cache.model(model.to_string());
        // Of weights in several files the index comes last.
        let held = |file: &&str| cached.get(file).or_else(|| cached.get(INDEX).filter(|_| *file == WEIGHTS));
        let all: Option<Vec<PathBuf>> = files.required.iter().map(held).collect();
        if let Some(first) = all.and_then(|all| all.into_iter().next()) {
            return folder(Some(first));
        }
        let offline = |error: ApiError| {
            let message = format!("{model} from {endpoint}: {error}; {}", by_hand(model, files));
            Error::new(ErrorKind::Io, NAME, message).with_source(error)
        };
        let api = ApiBuilder::from_cache(cache).with_endpoint(endpoint.clone()).build().map_err(offline)?;
        let repo = api.model(model.to_string());
        let there: Vec<String> =
            repo.info().map_err(offline)?.siblings.into_iter().map(|file| file.rfilename).collect();
        let mut got = None;
        for file in wanted(model, files, &there)? {
            got = Some(repo.get(&file).map_err(offline)?);
        }
        folder(got)
    }

    /// The folder of a file.
    fn folder(file: Option<PathBuf>) -> Result<PathBuf> {
        let folder = file.as_deref().and_then(Path::parent);
        folder.map(Path::to_path_buf).ok_or_else(|| Error::new(ErrorKind::Value, NAME, "no file was asked for"))
    }

    /// Which of the files that are there to get, required ones last: where those are, all are.
    fn wanted(model: &str, files: &Files<'_>, there: &[String]) -> Result<Vec<String>> {
        let has = |name: &str| there.iter().any(|file| file == name);
        let mut get: Vec<String> =
            files.optional.iter().filter(|file| has(file)).map(|file| file.to_string()).collect();
        for &file in files.required {
            if has(file) {
                get.push(file.to_string());
            } else if file == WEIGHTS && has(INDEX) {
                let shard = |name: &&String| name.starts_with("model-") && name.ends_with(".safetensors");
                get.extend(there.iter().filter(shard).cloned());
                get.push(INDEX.to_string());
            } else {
                let message = format!("{model} has no {file}; it has {}", there.join(", "));
                return Err(Error::new(ErrorKind::Value, NAME, message));
            }
        }
        Ok(get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths() {
        for name in ["facebook/convnextv2-tiny-22k-224", "timm/convnextv2_atto.fcmae", "a/b"] {
            assert!(is_name(name), "{name}");
        }
        for path in ["model", "./a/b", "../a/b", "/a/b", "a/b/c", "a/b.safetensors", "a/", "a b/c", "a/-b"] {
            assert!(!is_name(path), "{path}");
        }
    }

    #[cfg(not(feature = "hub"))]
    #[test]
    fn without_the_feature_the_error_says_which_file_to_put_where() {
        let error = locate("facebook/convnextv2-tiny-22k-224", &IMAGE_MODEL).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        for part in [
            "--features hub",
            "model.safetensors, config.json of https://huggingface.co/facebook/convnextv2-tiny-22k-224/tree/main",
        ] {
            assert!(error.message().contains(part), "{error}");
        }
    }
}
