//! [`TextArchitecture`]: which text model, known only at run time.

use super::{Bert, BertConfig, Deberta, DebertaConfig, TextClassifier, folder};
use crate::{
    error::{ErrorKind, Result},
    nn::Checkpoint,
    scalar::Scalar,
    tensor::Origin,
};
use rand::Rng;
use serde::Deserialize;
use std::path::Path;

/// One of the text models here, with its sizes.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::models::{BertConfig, TextArchitecture};
///
/// let config = BertConfig { vocab_size: 50, hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2, ..BertConfig::default() };
/// let model = TextArchitecture::Bert(config).build::<f32>(&mut ChaCha8Rng::seed_from_u64(1))?;
/// let folder = std::env::temp_dir().join(format!("tenfold-text-{}", std::process::id()));
/// model.save(&folder)?;
///
/// // A folder says which it is.
/// let again = TextArchitecture::open::<f32>(&folder)?;
/// assert_eq!(again.labels(), 2);
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum TextArchitecture {
    /// [`Bert`].
    Bert(BertConfig),
    /// [`Deberta`].
    Deberta(DebertaConfig),
}

/// The first word of a `config.json`.
#[derive(Deserialize)]
struct File {
    model_type: String,
}

impl TextArchitecture {
    /// As Hugging Face's `config.json` says.
    ///
    /// # Errors
    /// Those of [`BertConfig::from_json`] and [`DebertaConfig::from_json`], and [`ErrorKind::Unsupported`] for another model.
    pub fn from_json(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let origin = Origin::file("TextArchitecture", path);
        let file: File = folder::read(&origin, path)?;
        match file.model_type.as_str() {
            "bert" => BertConfig::from_json(path).map(Self::Bert),
            "deberta-v2" => DebertaConfig::from_json(path).map(Self::Deberta),
            other => {
                let message = format!("model_type is {other:?}; there are \"bert\" and \"deberta-v2\"");
                Err(origin.error(ErrorKind::Unsupported, message))
            }
        }
    }

    /// A new model of it, with the start that its authors chose.
    ///
    /// # Errors
    /// Those of the models' `new`.
    pub fn build<T: Scalar>(&self, rng: &mut dyn Rng) -> Result<Box<dyn TextClassifier<T>>> {
        Ok(match self.clone() {
            Self::Bert(config) => Box::new(Bert::new(config, rng)?),
            Self::Deberta(config) => Box::new(Deberta::new(config, rng)?),
        })
    }

    /// The model that lies in a folder as Hugging Face lays it out; without a classifier where the file has none.
    ///
    /// # Errors
    /// As [`from_json`](TextArchitecture::from_json), and those of [`Checkpoint::open`] and [`TextClassifier::load`].
    pub fn open<T: Scalar>(path: impl AsRef<Path>) -> Result<Box<dyn TextClassifier<T>>> {
        let path = path.as_ref();
        let architecture = Self::from_json(path.join("config.json"))?;
        let checkpoint = Checkpoint::open(path)?;
        Ok(match architecture {
            Self::Bert(config) => Box::new(Bert::of_checkpoint(config, &checkpoint)?),
            Self::Deberta(config) => Box::new(Deberta::of_checkpoint(config, &checkpoint)?),
        })
    }
}
