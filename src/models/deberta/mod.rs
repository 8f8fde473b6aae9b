//! DeBERTa-v2 and -v3: a BERT whose attention sees contents and relative positions apart.
//!
//! `config.rs` has the sizes, `attention.rs` the attention.

mod attention;
mod config;

pub use config::{DebertaConfig, PositionTerms};

use super::{
    TextClassifier, Tokens,
    classifier::new_classifier,
    folder, labels,
    start::draw,
    transformer::{Block, Sizes, check_length, classify, load},
};
use crate::{
    autodiff::{self, Var},
    error::Result,
    module,
    nn::{Activation, Checkpoint, Conv, Dropout, Embedding, Init, Layer, LayerNorm, Linear, Loaded, Mode, Save},
    scalar::Scalar,
    tensor::Tensor,
};
use attention::{Relative, SelfAttention};
use rand::Rng;
use std::path::Path;

const NAME: &str = "Deberta";

/// How weights start: the authors' choice.
const START: Init = Init::Normal { mean: 0.0, std: 0.02 };

/// DeBERTa-v2 or -v3 with a classifier, or without.
///
/// ```text
/// embeddings   drop(norm(word [+ position] [+ type]))
/// block        x = norm(x + drop(linear(attention(x)))); x = norm(x + drop(linear(gelu(linear(x)))))
///              the first one with a convolution of the embeddings beside it, in version 2
/// head         gelu(linear(drop(first token))); drop; linear
/// ```
///
/// All blocks share one table of relative positions. Of its rows only those are normed, dropped and projected that sequences of this length
/// look up, which changes no result and saves most of that work: 64 tokens see 127 of 512 positions. Padding is zero after the embeddings.
///
/// P. He et al., *DeBERTa: decoding-enhanced BERT with disentangled attention*, ICLR 2021; *DeBERTaV3*, ICLR 2023.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{
///     Tensor, autodiff::CrossEntropy,
///     models::{Deberta, DebertaConfig, TextClassifier, Tokens},
///     nn::{Mode, Module},
///     peft::{Attach, Flora, Targets},
/// };
///
/// let named = DebertaConfig::named("deberta-v3-base")?;
/// let config = DebertaConfig { vocab_size: 50, hidden_size: 8, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 16, ..named };
/// let mut model = Deberta::<f32>::new(config, &mut ChaCha8Rng::seed_from_u64(1))?;
///
/// // The six linear layers of every block; the head trains as a whole.
/// let flora = Flora::new().rank(2);
/// let linears = Targets::of(model.linears().iter().copied());
/// Attach::new(&flora).to(linears).keep(Targets::of(model.head().iter().copied())).apply(&mut model)?;
///
/// let tokens = Tokens::padded(&[(&[1, 17, 2], &[0; 3]), (&[1, 5, 9, 2], &[0; 4])], model.padding())?;
/// let logits = model.forward(&tokens, Mode::training(7, 0))?;
/// let gradients = logits.cross_entropy(&Tensor::from(ndarray::array![0u32, 1]), CrossEntropy::default())?.backward()?;
/// model.gradient_report(&gradients).check()?;
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Deberta<T: Scalar> {
    config: DebertaConfig,
    embeddings: Embeddings<T>,
    encoder: Encoder<T>,
    pooler_dropout: Dropout,
    pooler: Option<Linear<T>>,
    cls_dropout: Dropout,
    classifier: Option<Linear<T>>,
}

#[derive(Debug, Clone)]
struct Embeddings<T: Scalar> {
    word: Embedding<T>,
    position: Option<Embedding<T>>,
    kind: Option<Embedding<T>>,
    projection: Option<Linear<T>>,
    norm: LayerNorm<T>,
    dropout: Dropout,
}

#[derive(Debug, Clone)]
struct Encoder<T: Scalar> {
    layer: Vec<Block<T, SelfAttention<T>>>,
    relative: Option<Embedding<T>>,
    norm: Option<LayerNorm<T>>,
    convolution: Option<Convolution<T>>,
}

/// What runs beside the first block.
#[derive(Debug, Clone)]
struct Convolution<T: Scalar> {
    conv: Conv<T>,
    norm: LayerNorm<T>,
    dropout: Dropout,
    activation: Activation,
}

module!(Deberta { embeddings => "deberta.embeddings", encoder => "deberta.encoder", pooler => "pooler.dense", classifier });
module!(Embeddings {
    word => "word_embeddings", position => "position_embeddings", kind => "token_type_embeddings", projection => "embed_proj",
    norm => "LayerNorm",
});
module!(Encoder { layer, relative => "rel_embeddings", norm => "LayerNorm", convolution => "conv" });
module!(Convolution { conv, norm => "LayerNorm" });

impl<T: Scalar> Deberta<T> {
    /// Weights from a normal distribution of deviation 0.02, biases zero, as the authors start.
    ///
    /// # Errors
    /// As [`zeros`](Deberta::zeros).
    pub fn new<R: Rng + ?Sized>(config: DebertaConfig, rng: &mut R) -> Result<Self> {
        let mut model = Self::zeros(config)?;
        draw(&mut model, |_| START, rng)?;
        Ok(model)
    }

    /// All weights zero, to be loaded.
    ///
    /// # Errors
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) for a configuration that makes no model: sizes of 0, heads that do not divide the
    /// width, a probability above 1, more buckets than distances.
    pub fn zeros(config: DebertaConfig) -> Result<Self> {
        config.check()?;
        let (width, labels) = (config.hidden_size, config.num_labels);
        Ok(Self {
            embeddings: Embeddings::zeros(&config)?,
            encoder: Encoder::zeros(&config)?,
            pooler_dropout: Dropout::new(config.pooler_dropout, 0)?,
            pooler: if labels > 0 { Some(Linear::zeros(width, width)?) } else { None },
            cls_dropout: Dropout::new(config.cls_dropout(), 1)?,
            classifier: if labels > 0 { Some(Linear::zeros(width, labels)?) } else { None },
            config,
        })
    }

    /// The model that lies in a folder as Hugging Face lays it out, whose `config.json` says what it is. A file without a classifier makes
    /// a model without one.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`], [`DebertaConfig::from_json`] and [`Load::apply`](crate::nn::Load::apply).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let config = DebertaConfig::from_json(path.as_ref().join("config.json"))?;
        Self::of_checkpoint(config, &Checkpoint::open(path)?)
    }

    /// A model with the parts and the values that a checkpoint has.
    pub(super) fn of_checkpoint(config: DebertaConfig, checkpoint: &Checkpoint) -> Result<Self> {
        let has_classifier = checkpoint.names().any(|name| name == "classifier.weight");
        let num_labels = if has_classifier { config.num_labels } else { 0 };
        let mut model = Self::zeros(DebertaConfig {
            num_labels,
            label_names: labels::of(num_labels, config.label_names),
            ..config
        })?;
        model.load(checkpoint)?;
        Ok(model)
    }

    /// The sizes.
    pub fn config(&self) -> &DebertaConfig {
        &self.config
    }

    /// The last states; of the first token alone, `[B, 1, width]`, where no other is wanted.
    fn encode(&self, tokens: &Tokens<T>, first: bool, mode: Mode) -> Result<Var<T>> {
        check_length(NAME, tokens, self.most_tokens())?;
        let encoder = &self.encoder;
        let embedded = self.embeddings.forward(tokens, mode.fork(0))?;
        let relative = encoder.relative(&self.config, tokens.len())?;
        let mut x = embedded.clone();
        for (i, block) in encoder.layer.iter().enumerate() {
            let mode = mode.fork(1 + i as u64);
            let convolution = encoder.convolution.as_ref().filter(|_| i == 0);
            let one = first && i + 1 == encoder.layer.len() && convolution.is_none();
            x = if one {
                let queries = x.narrow(1, 0..1)?;
                let relative = relative.as_ref().map(Relative::first_query).transpose()?;
                let attend = |attention: &SelfAttention<T>| {
                    attention.forward(&queries, &x, tokens, relative.as_ref(), mode.fork(2))
                };
                block.forward(&queries, mode, attend)?
            } else {
                let attend =
                    |attention: &SelfAttention<T>| attention.forward(&x, &x, tokens, relative.as_ref(), mode.fork(2));
                block.forward(&x, mode, attend)?
            };
            if let Some(convolution) = convolution {
                x = convolution.forward(&embedded, &x, tokens, mode.fork(3))?;
            }
        }
        Ok(x)
    }
}

impl<T: Scalar> TextClassifier<T> for Deberta<T> {
    fn states(&self, tokens: &Tokens<T>, mode: Mode) -> Result<Var<T>> {
        self.encode(tokens, false, mode)
    }

    fn first_state(&self, tokens: &Tokens<T>, mode: Mode) -> Result<Var<T>> {
        self.encode(tokens, true, mode)?.index_mode(1, 0)
    }

    fn forward(&self, tokens: &Tokens<T>, mode: Mode) -> Result<Var<T>> {
        let mut x = self.first_state(tokens, mode)?;
        if let Some(pooler) = &self.pooler {
            x = pooler.forward(&self.pooler_dropout.forward(&x, mode)?, mode)?;
            x = self.config.pooler_hidden_act.apply(&x)?;
        }
        classify(NAME, self.classifier.as_ref(), &self.cls_dropout.forward(&x, mode)?, mode)
    }

    fn head(&self) -> &'static [&'static str] {
        &["pooler", "classifier"]
    }

    fn labels(&self) -> usize {
        self.config.num_labels
    }

    fn vocabulary(&self) -> usize {
        self.config.vocab_size
    }

    fn most_tokens(&self) -> Option<usize> {
        self.config.position_biased_input.then_some(self.config.max_position_embeddings)
    }

    fn padding(&self) -> u32 {
        self.config.pad_token_id
    }

    fn load(&mut self, checkpoint: &Checkpoint) -> Result<Loaded> {
        let pretraining = ["lm_predictions.*", "mask_predictions.*", "cls.*", "*.position_ids"];
        // Files of models without absolute positions have a table of them all the same.
        let unused = if self.config.position_biased_input { None } else { Some("*.position_embeddings.weight") };
        let other: Vec<&str> = pretraining.into_iter().chain(unused).collect();
        let beside = &["pooler", "classifier", "lm_predictions", "mask_predictions", "cls"];
        load(checkpoint, "deberta", beside, &other).apply(self, checkpoint)
    }

    fn save(&self, path: &Path) -> Result<()> {
        folder::write(path, &Save::new(), self, &self.config.to_json())
    }

    fn set_classifier_dropout(&mut self, probability: f64) -> Result<()> {
        self.cls_dropout = Dropout::new(probability, 1)?;
        self.config.cls_dropout = Some(probability);
        Ok(())
    }

    fn reset_classifier(&mut self, labels: usize, rng: &mut dyn Rng) -> Result<()> {
        let width = self.config.hidden_size;
        if self.pooler.is_none() && labels > 0 {
            self.pooler = new_classifier(width, width, START, rng)?;
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
    fn zeros(config: &DebertaConfig) -> Result<Self> {
        let (width, own) = (config.hidden_size, config.embedding_size());
        let table = |rows: usize| if rows > 0 { Embedding::zeros(rows, own).map(Some) } else { Ok(None) };
        Ok(Self {
            word: Embedding::zeros(config.vocab_size, own)?.padding(config.pad_token_id as usize)?,
            position: table(if config.position_biased_input { config.max_position_embeddings } else { 0 })?,
            kind: table(config.type_vocab_size)?,
            projection: if own == width { None } else { Some(Linear::zeros(own, width)?.without_bias()) },
            norm: LayerNorm::new(width, config.layer_norm_eps)?,
            dropout: Dropout::new(config.hidden_dropout_prob, 0)?,
        })
    }

    /// `[B, N, width]`
    fn forward(&self, tokens: &Tokens<T>, mode: Mode) -> Result<Var<T>> {
        let mut x = self.word.forward(tokens.ids(), mode)?;
        if let Some(position) = &self.position {
            let positions = Tensor::from_fn([tokens.len()], |i| i[0] as u32)?.to_device(tokens.ids().device())?;
            x = x.add(&position.forward(&positions, mode)?)?;
        }
        if let Some(kind) = &self.kind {
            x = x.add(&kind.forward(tokens.types(), mode)?)?;
        }
        if let Some(projection) = &self.projection {
            x = projection.forward(&x, mode)?;
        }
        self.dropout.forward(&without_padding(self.norm.forward(&x)?, tokens)?, mode)
    }
}

impl<T: Scalar> Encoder<T> {
    fn zeros(config: &DebertaConfig) -> Result<Self> {
        let (width, eps) = (config.hidden_size, config.layer_norm_eps);
        let sizes = Sizes {
            width,
            intermediate: config.intermediate_size,
            activation: config.hidden_act,
            eps,
            dropout: config.hidden_dropout_prob,
        };
        let blocks = 0..config.num_hidden_layers;
        Ok(Self {
            layer: blocks.map(|_| Block::zeros(SelfAttention::zeros(config)?, sizes)).collect::<Result<_>>()?,
            relative: match config.relative_attention {
                true => Some(Embedding::zeros(2 * config.span(), width)?),
                false => None,
            },
            norm: if config.norm_rel_ebd { Some(LayerNorm::new(width, eps)?) } else { None },
            convolution: match config.conv_kernel_size {
                0 => None,
                size => Some(Convolution::zeros(config, size)?),
            },
        })
    }

    /// The relative positions that so many tokens see.
    fn relative(&self, config: &DebertaConfig, tokens: usize) -> Result<Option<Relative<T>>> {
        let Some(table) = &self.relative else { return Ok(None) };
        let positions = config.positions(tokens)?;
        let mut table = table.effective_weight()?.narrow(0, positions.range())?;
        if let Some(norm) = &self.norm {
            table = norm.forward(&table)?;
        }
        let positions = positions.narrowed()?.to_device(table.device())?;
        Ok(Some(Relative { table, positions }))
    }
}

impl<T: Scalar> Convolution<T> {
    fn zeros(config: &DebertaConfig, size: usize) -> Result<Self> {
        let width = config.hidden_size;
        let options = autodiff::Conv::new().padding(size / 2).groups(config.conv_groups);
        Ok(Self {
            conv: Conv::zeros([width, width], &[size], options)?,
            norm: LayerNorm::new(width, config.layer_norm_eps)?,
            dropout: Dropout::new(config.hidden_dropout_prob, 0)?,
            activation: config.conv_act,
        })
    }

    /// The states x, with what neighbouring embeddings say.
    fn forward(&self, embedded: &Var<T>, x: &Var<T>, tokens: &Tokens<T>, mode: Mode) -> Result<Var<T>> {
        let h = without_padding(self.conv.forward(embedded, mode)?, tokens)?;
        let h = self.activation.apply(&self.dropout.forward(&h, mode)?)?;
        without_padding(self.norm.forward(&x.add(&h)?)?, tokens)
    }
}

/// Zeros where there is padding.
fn without_padding<T: Scalar>(x: Var<T>, tokens: &Tokens<T>) -> Result<Var<T>> {
    match tokens.keep() {
        Some(keep) => x.mul(&Var::constant(keep.clone())),
        None => Ok(x),
    }
}
