//! [`BertConfig`]: which BERT, from its name or from `config.json`.

use crate::{
    error::{ErrorKind, Result},
    models::{folder, labels, transformer},
    nn::Activation,
    tensor::Origin,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

const NAME: &str = "BertConfig";

/// Sizes and options of a [`Bert`](super::Bert), under the names of Hugging Face's `config.json`. The default is BERT-base.
///
/// ```
/// use tenfold::models::BertConfig;
///
/// // MiniLM-L6.
/// let config = BertConfig {
///     hidden_size: 384,
///     num_hidden_layers: 6,
///     num_attention_heads: 12,
///     intermediate_size: 1536,
///     ..BertConfig::default()
/// };
/// assert!(config.to_json().contains("\"model_type\": \"bert\""));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BertConfig {
    /// The number of words.
    pub vocab_size: usize,
    /// The numbers that a state has.
    pub hidden_size: usize,
    /// The number of blocks.
    pub num_hidden_layers: usize,
    /// The number of heads, which divides `hidden_size`.
    pub num_attention_heads: usize,
    /// The numbers between the two linear layers of a block.
    pub intermediate_size: usize,
    /// What is between them.
    pub hidden_act: Activation,
    /// The probability with which entries of states are dropped in training.
    pub hidden_dropout_prob: f64,
    /// The same for the probabilities of an attention.
    pub attention_probs_dropout_prob: f64,
    /// The most tokens of a sequence.
    pub max_position_embeddings: usize,
    /// The number of types that tokens have.
    pub type_vocab_size: usize,
    /// What a norm adds to the variance.
    pub layer_norm_eps: f64,
    /// The token that pads.
    pub pad_token_id: u32,
    /// The probability with which entries of the pooled state are dropped; none for `hidden_dropout_prob`.
    pub classifier_dropout: Option<f64>,
    /// The number of classes; 0 for no classifier.
    #[serde(skip)]
    pub num_labels: usize,
    /// What the classes are called, in their order; nothing for `LABEL_0` and so on.
    #[serde(skip)]
    pub label_names: Vec<String>,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            pad_token_id: 0,
            classifier_dropout: None,
            num_labels: 2,
            label_names: Vec::new(),
        }
    }
}

impl BertConfig {
    /// As Hugging Face's `config.json` says. What it leaves out has transformers' defaults; labels are counted, and named, in `id2label`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the file cannot be read; [`ErrorKind::Format`] where it is no such file, naming what is wrong in it;
    /// [`ErrorKind::Unsupported`] for another model or other positions; [`ErrorKind::Value`] for sizes that make no model.
    pub fn from_json(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let origin = Origin::file(NAME, path);
        let file: File = folder::read(&origin, path)?;
        if file.model_type != "bert" {
            let message = format!("model_type is {:?}; needs \"bert\"", file.model_type);
            return Err(origin.error(ErrorKind::Unsupported, message));
        }
        if let Some(kind) = file.position_embedding_type.filter(|kind| kind != "absolute") {
            let message = format!("position_embedding_type is {kind:?}; only \"absolute\" is here");
            return Err(origin.error(ErrorKind::Unsupported, message));
        }
        let (num_labels, label_names) = labels::read(file.num_labels, file.id2label.as_ref());
        let config = Self { num_labels, label_names, ..file.config };
        config.check().map_err(|e| origin.error(e.kind(), e.message()))?;
        Ok(config)
    }

    /// The contents of a `config.json` that Hugging Face's transformers reads.
    pub fn to_json(&self) -> String {
        let class = if self.num_labels == 0 { "BertModel" } else { "BertForSequenceClassification" };
        transformer::to_json(self, "bert", class, self.num_labels, &self.label_names)
    }

    /// An error unless a model can have these sizes.
    pub(super) fn check(&self) -> Result<()> {
        transformer::check(
            NAME,
            &[
                ("vocab_size", self.vocab_size),
                ("hidden_size", self.hidden_size),
                ("num_hidden_layers", self.num_hidden_layers),
                ("num_attention_heads", self.num_attention_heads),
                ("intermediate_size", self.intermediate_size),
                ("max_position_embeddings", self.max_position_embeddings),
                ("type_vocab_size", self.type_vocab_size),
            ],
            [self.hidden_size, self.num_attention_heads],
            &[
                ("hidden_dropout_prob", self.hidden_dropout_prob),
                ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
                ("classifier_dropout", self.classifier_dropout()),
            ],
        )
    }

    pub(super) fn classifier_dropout(&self) -> f64 {
        self.classifier_dropout.unwrap_or(self.hidden_dropout_prob)
    }
}

/// `config.json`, as far as it matters.
#[derive(Deserialize)]
struct File {
    model_type: String,
    #[serde(flatten)]
    config: BertConfig,
    position_embedding_type: Option<String>,
    num_labels: Option<usize>,
    id2label: Option<BTreeMap<String, Value>>,
}
