//! BERT: a transformer that reads a text from both sides. `config.rs` has the sizes.

mod config;

pub use config::BertConfig;

use super::{
    TextClassifier, Tokens,
    classifier::new_classifier,
    folder, labels,
    start::draw,
    transformer::{Block, Sizes, check_length, classify, drop_probabilities, join_heads, load, split_heads},
};
use crate::{
    autodiff::{Attention, Var},
    error::Result,
    module,
    nn::{Checkpoint, Dropout, Embedding, Init, LayerNorm, Linear, Loaded, Mode, Save},
    scalar::Scalar,
    tensor::Tensor,
};
use rand::Rng;
use std::path::Path;

const NAME: &str = "Bert";

/// How weights start: the authors' choice.
const START: Init = Init::Normal { mean: 0.0, std: 0.02 };

/// BERT with a classifier, or without: MiniLM among others.
///
/// ```text
/// embeddings   drop(norm(word + position + type))
/// block        x = norm(x + drop(linear(attention(x)))); x = norm(x + drop(linear(gelu(linear(x)))))
/// head         tanh(linear(first token)); drop; linear
/// ```
///
/// J. Devlin et al., *BERT: pre-training of deep bidirectional transformers for language understanding*, NAACL 2019.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{models::{Bert, BertConfig, TextClassifier, Tokens}, nn::Mode};
///
/// let config = BertConfig { vocab_size: 50, hidden_size: 8, num_hidden_layers: 2, num_attention_heads: 2, ..BertConfig::default() };
/// let model = Bert::<f32>::new(config, &mut ChaCha8Rng::seed_from_u64(1))?;
/// let tokens = Tokens::padded(&[(&[2, 17, 3], &[0; 3]), (&[2, 5, 9, 3], &[0; 4])], model.padding())?;
/// assert_eq!(model.forward(&tokens, Mode::Evaluation)?.shape(), [2, 2]);
/// assert_eq!(model.states(&tokens, Mode::Evaluation)?.shape(), [2, 4, 8]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Bert<T: Scalar> {
    config: BertConfig,
    encoder: Encoder<T>,
    dropout: Dropout,
    classifier: Option<Linear<T>>,
}

/// All but the classifier.
#[derive(Debug, Clone)]
struct Encoder<T: Scalar> {
    embeddings: Embeddings<T>,
    layer: Vec<Block<T, SelfAttention<T>>>,
    pooler: Option<Linear<T>>,
}

#[derive(Debug, Clone)]
struct Embeddings<T: Scalar> {
    word: Embedding<T>,
    position: Embedding<T>,
    kind: Embedding<T>,
    norm: LayerNorm<T>,
    dropout: Dropout,
}

#[derive(Debug, Clone)]
struct SelfAttention<T: Scalar> {
    query: Linear<T>,
    key: Linear<T>,
    value: Linear<T>,
    heads: usize,
    dropout: f64,
}

module!(Bert { encoder => "bert", classifier });
module!(Encoder { embeddings, layer => "encoder.layer", pooler => "pooler.dense" });
module!(Embeddings { word => "word_embeddings", position => "position_embeddings", kind => "token_type_embeddings", norm => "LayerNorm" });
module!(SelfAttention { query, key, value });

impl<T: Scalar> Bert<T> {
    /// Weights from a normal distribution of deviation 0.02, biases zero, as the authors start.
    ///
    /// # Errors
    /// As [`zeros`](Bert::zeros).
    pub fn new<R: Rng + ?Sized>(config: BertConfig, rng: &mut R) -> Result<Self> {
        let mut model = Self::zeros(config)?;
        draw(&mut model, |_| START, rng)?;
        Ok(model)
    }

    /// All weights zero, to be loaded.
    ///
    /// # Errors
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) for a configuration that makes no model: sizes of 0, heads that do not divide the
    /// width, a probability above 1.
    pub fn zeros(config: BertConfig) -> Result<Self> {
        config.check()?;
        let (width, eps, dropout) = (config.hidden_size, config.layer_norm_eps, config.hidden_dropout_prob);
        let sizes =
            Sizes { width, intermediate: config.intermediate_size, activation: config.hidden_act, eps, dropout };
        let attention = || -> Result<SelfAttention<T>> {
            Ok(SelfAttention {
                query: Linear::zeros(width, width)?,
                key: Linear::zeros(width, width)?,
                value: Linear::zeros(width, width)?,
                heads: config.num_attention_heads,
                dropout: config.attention_probs_dropout_prob,
            })
        };
        let encoder = Encoder {
            embeddings: Embeddings {
                word: Embedding::zeros(config.vocab_size, width)?.padding(config.pad_token_id as usize)?,
                position: Embedding::zeros(config.max_position_embeddings, width)?,
                kind: Embedding::zeros(config.type_vocab_size, width)?,
                norm: LayerNorm::new(width, eps)?,
                dropout: Dropout::new(dropout, 0)?,
            },
            layer: (0..config.num_hidden_layers).map(|_| Block::zeros(attention()?, sizes)).collect::<Result<_>>()?,
            pooler: Some(Linear::zeros(width, width)?),
        };
        let classifier = if config.num_labels > 0 { Some(Linear::zeros(width, config.num_labels)?) } else { None };
        Ok(Self { encoder, dropout: Dropout::new(config.classifier_dropout(), 0)?, classifier, config })
    }

    /// The model that lies in a folder as Hugging Face lays it out, whose `config.json` says what it is. A file without a classifier, or
    /// without a pooler, makes a model without one.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`], [`BertConfig::from_json`] and [`Load::apply`](crate::nn::Load::apply).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let config = BertConfig::from_json(path.as_ref().join("config.json"))?;
        Self::of_checkpoint(config, &Checkpoint::open(path)?)
    }

    /// A model with the parts and the values that a checkpoint has.
    pub(super) fn of_checkpoint(config: BertConfig, checkpoint: &Checkpoint) -> Result<Self> {
        let has = |part: &str| checkpoint.names().any(|name| name.ends_with(part));
        let num_labels = if has("classifier.weight") { config.num_labels } else { 0 };
        let mut model =
            Self::zeros(BertConfig { num_labels, label_names: labels::of(num_labels, config.label_names), ..config })?;
        if !has("pooler.dense.weight") {
            model.encoder.pooler = None;
        }
        model.load(checkpoint)?;
        Ok(model)
    }

    /// The sizes.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// The last states; of the first token alone, `[B, 1, width]`, where no other is wanted.
    fn encode(&self, tokens: &Tokens<T>, first: bool, mode: Mode) -> Result<Var<T>> {
        check_length(NAME, tokens, Some(self.config.max_position_embeddings))?;
        let mut x = self.encoder.embeddings.forward(tokens, mode.fork(0))?;
        for (i, block) in self.encoder.layer.iter().enumerate() {
            let mode = mode.fork(1 + i as u64);
            let last = i + 1 == self.encoder.layer.len();
            let queries = if first && last { x.narrow(1, 0..1)? } else { x.clone() };
            x = block.forward(&queries, mode, |attention| attention.forward(&queries, &x, tokens, mode.fork(2)))?;
        }
        Ok(x)
    }
}

impl<T: Scalar> TextClassifier<T> for Bert<T> {
    fn states(&self, tokens: &Tokens<T>, mode: Mode) -> Result<Var<T>> {
        self.encode(tokens, false, mode)
    }

    fn first_state(&self, tokens: &Tokens<T>, mode: Mode) -> Result<Var<T>> {
        self.encode(tokens, true, mode)?.index_mode(1, 0)
    }

    fn forward(&self, tokens: &Tokens<T>, mode: Mode) -> Result<Var<T>> {
        let mut x = self.first_state(tokens, mode)?;
        if let Some(pooler) = &self.encoder.pooler {
            x = pooler.forward(&x, mode)?.tanh()?;
        }
        classify(NAME, self.classifier.as_ref(), &self.dropout.forward(&x, mode)?, mode)
    }

    fn head(&self) -> &'static [&'static str] {
        &["bert.pooler", "classifier"]
    }

    fn labels(&self) -> usize {
        self.config.num_labels
    }

    fn vocabulary(&self) -> usize {
        self.config.vocab_size
    }

    fn most_tokens(&self) -> Option<usize> {
        Some(self.config.max_position_embeddings)
    }

    fn padding(&self) -> u32 {
        self.config.pad_token_id
    }

    fn load(&mut self, checkpoint: &Checkpoint) -> Result<Loaded> {
        load(checkpoint, "bert", &["classifier", "cls"], &["cls.*", "*.position_ids"]).apply(self, checkpoint)
    }

    fn save(&self, path: &Path) -> Result<()> {
        folder::write(path, &Save::new(), self, &self.config.to_json())
    }

    fn set_classifier_dropout(&mut self, probability: f64) -> Result<()> {
        self.dropout = Dropout::new(probability, 0)?;
        self.config.classifier_dropout = Some(probability);
        Ok(())
    }

    fn reset_classifier(&mut self, labels: usize, rng: &mut dyn Rng) -> Result<()> {
        let width = self.config.hidden_size;
        if self.encoder.pooler.is_none() {
            self.encoder.pooler = new_classifier(width, width, START, rng)?;
        }
        self.classifier = new_classifier(width, labels, START, rng)?;
        self.config.num_labels = labels;
        self.config.label_names.clear();
        Ok(())
    }

    fn label_names(&self) -> &[String] {
        &self.config.label_names
    }

    fn name_labels(&mut self, names: &[String]) -> Result<()> {
        labels::rename(&mut self.config.label_names, self.config.num_labels, names)
    }
}

impl<T: Scalar> Embeddings<T> {
    /// `[B, N, width]`
    fn forward(&self, tokens: &Tokens<T>, mode: Mode) -> Result<Var<T>> {
        let positions = Tensor::from_fn([tokens.len()], |i| i[0] as u32)?.to_device(tokens.ids().device())?;
        let x = self.word.forward(tokens.ids(), mode)?;
        let x = x.add(&self.position.forward(&positions, mode)?)?;
        let x = x.add(&self.kind.forward(tokens.types(), mode)?)?;
        self.dropout.forward(&self.norm.forward(&x)?, mode)
    }
}

impl<T: Scalar> SelfAttention<T> {
    /// What the states `queries` `[B, N, width]` find in x `[B, M, width]`: `[B, N, width]`.
    fn forward(&self, queries: &Var<T>, x: &Var<T>, tokens: &Tokens<T>, mode: Mode) -> Result<Var<T>> {
        let q = split_heads(&self.query.forward(queries, mode)?, self.heads)?;
        let k = split_heads(&self.key.forward(x, mode)?, self.heads)?;
        let v = split_heads(&self.value.forward(x, mode)?, self.heads)?;
        let mut options = drop_probabilities(Attention::new(), self.dropout, mode);
        if let Some(mask) = tokens.attention_mask() {
            options = options.mask(mask);
        }
        join_heads(&q.attention(&k, &v, &options)?)
    }
}
