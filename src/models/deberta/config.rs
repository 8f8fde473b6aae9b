//! [`DebertaConfig`]: which DeBERTa, from its name or from `config.json`.

use crate::{
    autodiff::RelativePositions,
    error::{Error, ErrorKind, Result},
    models::{folder, labels, transformer},
    nn::Activation,
    tensor::Origin,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

const NAME: &str = "DebertaConfig";

/// Which products of contents and relative positions attention scores have: `pos_att_type` in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PositionTerms {
    /// Contents of queries with positions of keys.
    pub c2p: bool,
    /// Contents of keys with positions of queries.
    pub p2c: bool,
}

/// Sizes and options of a [`Deberta`](super::Deberta), under the names of Hugging Face's `config.json`.
///
/// ```
/// use tenfold::models::DebertaConfig;
///
/// let config = DebertaConfig::named("microsoft/deberta-v3-base")?;
/// assert_eq!((config.hidden_size, config.num_hidden_layers), (768, 12));
/// let regression = DebertaConfig { num_labels: 1, ..config };
/// # assert!(regression.share_att_key);
///
/// let error = DebertaConfig::named("deberta-v3-giant").unwrap_err();
/// assert!(error.message().starts_with("there is no \"deberta-v3-giant\"; there are \"deberta-v3-xsmall\", "));
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DebertaConfig {
    /// The number of words.
    pub vocab_size: usize,
    /// The numbers that a state has.
    pub hidden_size: usize,
    /// The numbers that a row of the table of words has; none for `hidden_size`, else a linear layer goes from one to the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_size: Option<usize>,
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
    /// The number of positions, where there is a table of them; and of relative ones, where nothing else is said.
    pub max_position_embeddings: usize,
    /// Whether words get a vector for where they are.
    pub position_biased_input: bool,
    /// The number of types that tokens have; 0 for no table of them.
    pub type_vocab_size: usize,
    /// What a norm adds to the variance.
    pub layer_norm_eps: f64,
    /// The token that pads.
    pub pad_token_id: u32,
    /// Whether attention scores see relative positions.
    pub relative_attention: bool,
    /// The largest distance; none for `max_position_embeddings`.
    #[serde(with = "or_minus_one")]
    pub max_relative_positions: Option<usize>,
    /// The number of buckets that distances up to there fall in, by their logarithm; none for one for each distance.
    #[serde(with = "or_minus_one")]
    pub position_buckets: Option<usize>,
    /// Whether the table of relative positions goes through a norm.
    #[serde(with = "layer_norm_or_none")]
    pub norm_rel_ebd: bool,
    /// Whether positions go through the projections of contents instead of projections of their own.
    pub share_att_key: bool,
    /// Which terms attention scores have.
    #[serde(with = "terms")]
    pub pos_att_type: PositionTerms,
    /// The side of a convolution beside the first block, an odd number; 0 for none.
    pub conv_kernel_size: usize,
    /// Its groups.
    pub conv_groups: usize,
    /// What follows it.
    pub conv_act: Activation,
    /// The probability with which entries of the first token's state are dropped.
    pub pooler_dropout: f64,
    /// What follows the pooler's linear layer.
    pub pooler_hidden_act: Activation,
    /// The probability with which entries of the pooled state are dropped; none for `hidden_dropout_prob`.
    pub cls_dropout: Option<f64>,
    /// The number of classes; 0 for no classifier.
    #[serde(skip)]
    pub num_labels: usize,
    /// What the classes are called, in their order; nothing for `LABEL_0` and so on.
    #[serde(skip)]
    pub label_names: Vec<String>,
}

/// The defaults of transformers.
impl Default for DebertaConfig {
    fn default() -> Self {
        Self {
            vocab_size: 128_100,
            hidden_size: 1536,
            embedding_size: None,
            num_hidden_layers: 24,
            num_attention_heads: 24,
            intermediate_size: 6144,
            hidden_act: Activation::Gelu,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            position_biased_input: true,
            type_vocab_size: 0,
            layer_norm_eps: 1e-7,
            pad_token_id: 0,
            relative_attention: false,
            max_relative_positions: None,
            position_buckets: None,
            norm_rel_ebd: false,
            share_att_key: false,
            pos_att_type: PositionTerms::default(),
            conv_kernel_size: 0,
            conv_groups: 1,
            conv_act: Activation::Tanh,
            pooler_dropout: 0.0,
            pooler_hidden_act: Activation::Gelu,
            cls_dropout: None,
            num_labels: 2,
            label_names: Vec::new(),
        }
    }
}

/// Every size that was published: name, width, blocks, heads, words, and the side of the convolution.
const SIZES: [(&str, usize, usize, usize, usize, usize); 7] = [
    ("deberta-v3-xsmall", 384, 12, 6, 128_100, 0),
    ("deberta-v3-small", 768, 6, 12, 128_100, 0),
    ("deberta-v3-base", 768, 12, 12, 128_100, 0),
    ("deberta-v3-large", 1024, 24, 16, 128_100, 0),
    ("mdeberta-v3-base", 768, 12, 12, 251_000, 0),
    ("deberta-v2-xlarge", 1536, 24, 24, 128_100, 3),
    ("deberta-v2-xxlarge", 1536, 48, 24, 128_100, 3),
];

impl DebertaConfig {
    /// A published size, with two classes: `deberta-v3-xsmall`, `-small`, `-base`, `-large`, `mdeberta-v3-base`, `deberta-v2-xlarge` and
    /// `-xxlarge`, with the owner's name before it or without.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] for another name, listing those that there are.
    pub fn named(name: &str) -> Result<Self> {
        let plain = name.rsplit('/').next().unwrap_or(name);
        let Some(&(_, width, blocks, heads, words, conv)) = SIZES.iter().find(|(known, ..)| *known == plain) else {
            let names: Vec<String> = SIZES.iter().map(|(name, ..)| format!("{name:?}")).collect();
            let message = format!("there is no {name:?}; there are {}", names.join(", "));
            return Err(Error::new(ErrorKind::Value, NAME, message));
        };
        Ok(Self {
            vocab_size: words,
            hidden_size: width,
            num_hidden_layers: blocks,
            num_attention_heads: heads,
            intermediate_size: 4 * width,
            position_biased_input: false,
            relative_attention: true,
            position_buckets: Some(256),
            norm_rel_ebd: true,
            share_att_key: true,
            pos_att_type: PositionTerms { c2p: true, p2c: true },
            conv_kernel_size: conv,
            conv_act: Activation::Gelu,
            ..Self::default()
        })
    }

    /// As Hugging Face's `config.json` says. What it leaves out has transformers' defaults; labels are counted, and named, in `id2label`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the file cannot be read; [`ErrorKind::Format`] where it is no such file, naming what is wrong in it;
    /// [`ErrorKind::Unsupported`] for another model, or sizes of heads or poolers that no published model has; [`ErrorKind::Value`] for
    /// sizes that make no model.
    pub fn from_json(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let origin = Origin::file(NAME, path);
        let file: File = folder::read(&origin, path)?;
        if file.model_type != "deberta-v2" {
            let message = format!("model_type is {:?}; needs \"deberta-v2\", which version 3 has too", file.model_type);
            return Err(origin.error(ErrorKind::Unsupported, message));
        }
        let (num_labels, label_names) = labels::read(file.num_labels, file.id2label.as_ref());
        let config = Self { num_labels, label_names, ..file.config };
        config.check().map_err(|e| origin.error(e.kind(), e.message()))?;
        let width = config.hidden_size;
        for (name, size, needed) in [
            ("pooler_hidden_size", file.pooler_hidden_size, width),
            ("attention_head_size", file.attention_head_size, width / config.num_attention_heads),
        ] {
            if let Some(size) = size.filter(|&size| size != needed) {
                let message = format!("{name} is {size}; only {needed}, which follows from the other sizes, is here");
                return Err(origin.error(ErrorKind::Unsupported, message));
            }
        }
        Ok(config)
    }

    /// The contents of a `config.json` that Hugging Face's transformers reads.
    pub fn to_json(&self) -> String {
        let class = if self.num_labels == 0 { "DebertaV2Model" } else { "DebertaV2ForSequenceClassification" };
        transformer::to_json(self, "deberta-v2", class, self.num_labels, &self.label_names)
    }

    /// An error unless a model can have these sizes.
    pub(super) fn check(&self) -> Result<()> {
        transformer::check(
            NAME,
            &[
                ("vocab_size", self.vocab_size),
                ("hidden_size", self.hidden_size),
                ("embedding_size", self.embedding_size()),
                ("num_hidden_layers", self.num_hidden_layers),
                ("num_attention_heads", self.num_attention_heads),
                ("intermediate_size", self.intermediate_size),
                ("max_position_embeddings", self.max_position_embeddings),
                ("max_relative_positions", self.max_relative_positions()),
                ("conv_groups", self.conv_groups),
            ],
            [self.hidden_size, self.num_attention_heads],
            &[
                ("hidden_dropout_prob", self.hidden_dropout_prob),
                ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
                ("pooler_dropout", self.pooler_dropout),
                ("cls_dropout", self.cls_dropout()),
            ],
        )?;
        if self.conv_kernel_size != 0 && self.conv_kernel_size.is_multiple_of(2) {
            let message = format!("conv_kernel_size is {}; needs an odd number, or 0", self.conv_kernel_size);
            return Err(Error::new(ErrorKind::Value, NAME, message));
        }
        if self.relative_attention {
            self.positions(1)?;
        }
        Ok(())
    }

    pub(super) fn embedding_size(&self) -> usize {
        self.embedding_size.unwrap_or(self.hidden_size)
    }

    pub(super) fn cls_dropout(&self) -> f64 {
        self.cls_dropout.unwrap_or(self.hidden_dropout_prob)
    }

    fn max_relative_positions(&self) -> usize {
        self.max_relative_positions.unwrap_or(self.max_position_embeddings)
    }

    /// Half of the rows of the table of relative positions.
    pub(super) fn span(&self) -> usize {
        self.position_buckets.unwrap_or(self.max_relative_positions())
    }

    /// Where so many tokens look relative positions up.
    pub(super) fn positions(&self, tokens: usize) -> Result<RelativePositions> {
        let buckets = self.position_buckets.unwrap_or(0);
        RelativePositions::new(tokens, tokens, self.span(), buckets, self.max_relative_positions())
    }
}

/// `config.json`, as far as it matters.
#[derive(Deserialize)]
struct File {
    model_type: String,
    #[serde(flatten)]
    config: DebertaConfig,
    pooler_hidden_size: Option<usize>,
    attention_head_size: Option<usize>,
    num_labels: Option<usize>,
    id2label: Option<BTreeMap<String, Value>>,
}

/// A number, or -1 (any below 1) for none.
mod or_minus_one {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Option<usize>, to: S) -> Result<S::Ok, S::Error> {
        value.map_or(-1, |value| value as i64).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
        let value: Option<i64> = Deserialize::deserialize(from)?;
        Ok(value.and_then(|value| usize::try_from(value).ok()).filter(|&value| value > 0))
    }
}

/// `layer_norm`, perhaps among other words between bars, or `none`.
mod layer_norm_or_none {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &bool, to: S) -> Result<S::Ok, S::Error> {
        if *value { "layer_norm" } else { "none" }.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
        let words: String = Deserialize::deserialize(from)?;
        Ok(words.to_lowercase().split('|').any(|word| word.trim() == "layer_norm"))
    }
}

/// A list of terms, or one text with bars between them.
mod terms {
    use super::PositionTerms;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Terms {
        Bars(String),
        List(Vec<String>),
    }

    pub(super) fn serialize<S: Serializer>(terms: &PositionTerms, to: S) -> Result<S::Ok, S::Error> {
        let all = [("p2c", terms.p2c), ("c2p", terms.c2p)];
        all.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect::<Vec<&str>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PositionTerms, D::Error> {
        let words: Vec<String> = match Deserialize::deserialize(from)? {
            None => Vec::new(),
            Some(Terms::Bars(text)) => text.split('|').map(str::to_string).collect(),
            Some(Terms::List(list)) => list,
        };
        let mut terms = PositionTerms::default();
        for word in words {
            match word.trim().to_lowercase().as_str() {
                "c2p" => terms.c2p = true,
                "p2c" => terms.p2c = true,
                "" | "none" => {}
                other => {
                    return Err(D::Error::custom(format!("pos_att_type has {other:?}; there are \"c2p\" and \"p2c\"")));
                }
            }
        }
        Ok(terms)
    }
}
