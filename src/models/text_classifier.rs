//! [`TextClassifier`]: what the text models here have in common.

use super::Tokens;
use crate::{
    autodiff::Var,
    error::Result,
    nn::{Checkpoint, Loaded, Mode, Module},
    scalar::Scalar,
};
use rand::Rng;
use std::path::Path;

/// A network from tokens to a state for each of them, and from the first token's state to classes, or to one number.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{Result, models::{Bert, BertConfig, TextClassifier}, nn::Module};
///
/// // A pretrained network for another task: a new head, and only the head trains.
/// fn probe(model: &mut dyn TextClassifier<f32>, labels: usize) -> Result<()> {
///     model.reset_classifier(labels, &mut ChaCha8Rng::seed_from_u64(1))?;
///     let head = model.head();
///     model.train_only(&|name| head.iter().any(|part| name.starts_with(part)));
///     Ok(())
/// }
///
/// let config = BertConfig { vocab_size: 100, hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2, ..BertConfig::default() };
/// let mut model = Bert::new(config, &mut ChaCha8Rng::seed_from_u64(2))?;
/// probe(&mut model, 3)?;
/// assert_eq!((model.labels(), model.count().trainable), (3, 8 * 8 + 8 + 8 * 3 + 3));
/// # Ok::<(), tenfold::Error>(())
/// ```
pub trait TextClassifier<T: Scalar>: Module<T> {
    /// The last state of every token, `[B, N, width]`.
    ///
    /// # Errors
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) for tokens that the vocabulary lacks and for more than the model has positions for,
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) for sequences without tokens, and the errors of adapters.
    fn states(&self, tokens: &Tokens<T>, mode: Mode) -> Result<Var<T>>;

    /// The last state of the first token of each sequence, `[B, width]`: row 0 of [`states`](TextClassifier::states), without
    /// computing what nobody asks the last block for. (In training other entries are dropped.)
    ///
    /// # Errors
    /// As [`states`](TextClassifier::states).
    fn first_state(&self, tokens: &Tokens<T>, mode: Mode) -> Result<Var<T>>;

    /// Logits `[B, labels]`; with one label, a regression's result.
    ///
    /// # Errors
    /// As [`states`](TextClassifier::states), and [`ErrorKind::Value`](crate::ErrorKind::Value) for a model without a classifier.
    fn forward(&self, tokens: &Tokens<T>, mode: Mode) -> Result<Var<T>>;

    /// The parts that belong to a task, by the first parts of their names: the pooler and the classifier.
    fn head(&self) -> &'static [&'static str];

    /// The linear layers of all blocks, projections of attentions and both halves of feed-forward parts, as patterns for
    /// [`Targets`](crate::peft::Targets): what papers adapt.
    fn linears(&self) -> &'static [&'static str] {
        &["attention.self", "intermediate.dense", "output.dense"]
    }

    /// The number of classes; 0 for a model without a classifier.
    fn labels(&self) -> usize;

    /// The number of rows of the table of words.
    fn vocabulary(&self) -> usize;

    /// The most tokens that a sequence may have; none where nothing limits it.
    fn most_tokens(&self) -> Option<usize>;

    /// The number of the token that pads.
    fn padding(&self) -> u32;

    /// Puts a checkpoint into this model, strictly. Names of an encoder alone are known too, and so are the heads of pretraining, which
    /// are left out.
    ///
    /// # Errors
    /// Those of [`Load::apply`](crate::nn::Load::apply): names and shapes that differ are listed.
    fn load(&mut self, checkpoint: &Checkpoint) -> Result<Loaded>;

    /// Writes `model.safetensors` and `config.json` to a folder, which is made where there is none, for Hugging Face's transformers and
    /// for `open`. [`merge`](crate::peft::merge) adapters first: transformers does not know them.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io), and those of [`Save::write`](crate::nn::Save::write).
    fn save(&self, path: &Path) -> Result<()>;

    /// With which probability entries of the pooled state are dropped in training, from now on.
    ///
    /// # Errors
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) where the probability is not between 0 and 1.
    fn set_classifier_dropout(&mut self, probability: f64) -> Result<()>;

    /// A new classifier for another task, for `labels` classes, in place of the old one, and a new pooler where there was none; no
    /// classifier for 0. Everything else stays.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory).
    fn reset_classifier(&mut self, labels: usize, rng: &mut dyn Rng) -> Result<()>;

    /// What the classes are called, in their order; nothing where nobody has named them.
    fn label_names(&self) -> &[String];

    /// Names the classes, in their order, for the `config.json` that [`save`](TextClassifier::save) writes and for those who read it: pipelines of
    /// transformers say `entailment` then, and not `LABEL_0`. A new classifier has no names.
    ///
    /// # Errors
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) unless there are as many as [`labels`](TextClassifier::labels), each with a name of its own.
    fn name_labels(&mut self, names: &[String]) -> Result<()>;
}
