//! [`ImageClassifier`]: what all models here have in common.

use super::labels;
use crate::{
    autodiff::Var,
    error::{Error, ErrorKind, Result},
    nn::{Checkpoint, Init, Linear, Loaded, Mode, Module},
    scalar::Scalar,
};
use rand::Rng;
use std::path::Path;

/// A network from images to features, and from features to classes.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{Result, models::{CifarResNet, CifarResNetConfig, ImageClassifier}, nn::Module};
///
/// // A pretrained network for another task: a new head, and only the head trains.
/// fn probe(model: &mut dyn ImageClassifier<f32>, labels: usize) -> Result<()> {
///     model.reset_classifier(labels, &mut ChaCha8Rng::seed_from_u64(1))?;
///     let head = model.head();
///     model.train_only(&|name| name.starts_with(head));
///     Ok(())
/// }
///
/// let mut model = CifarResNet::new(CifarResNetConfig::named("resnet20")?, &mut ChaCha8Rng::seed_from_u64(2))?;
/// probe(&mut model, 7)?;
/// assert_eq!((model.labels(), model.count().trainable), (7, 64 * 7 + 7));
/// # Ok::<(), tenfold::Error>(())
/// ```
pub trait ImageClassifier<T: Scalar>: Module<T> {
    /// The features that the classifier sees: images `[batch, rows, columns, channels]`, normalised as the model's page says, to
    /// `[batch, width]`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where the images have other channels or are too small, and the errors of adapters.
    fn embed(&self, images: &Var<T>, mode: Mode) -> Result<Var<T>>;

    /// Images `[batch, rows, columns, channels]` to logits `[batch, labels]`.
    ///
    /// # Errors
    /// As [`embed`](ImageClassifier::embed), and [`ErrorKind::Value`] for a model without a classifier.
    fn forward(&self, images: &Var<T>, mode: Mode) -> Result<Var<T>>;

    /// The classifier's name: the first part of the names of its parameters.
    fn head(&self) -> &'static str;

    /// The number of classes; 0 for a model without a classifier.
    fn labels(&self) -> usize;

    /// Puts a checkpoint into this model, strictly, by whatever names the checkpoint has.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where it is of another architecture, and those of [`Load::apply`](crate::nn::Load::apply): names and shapes
    /// that differ are listed.
    fn load(&mut self, checkpoint: &Checkpoint) -> Result<Loaded>;

    /// Writes `model.safetensors` to a folder, which is made where there is none, and `config.json` where the architecture has one: for
    /// [`Architecture::at`](super::Architecture::at), and for the library that the names of the tensors are from.
    /// [`merge`](crate::peft::merge) adapters first.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], and those of [`Save::write`](crate::nn::Save::write).
    fn write(&self, folder: &Path) -> Result<()>;

    /// A new classifier for another task, for `labels` classes, in place of the old one; none for 0. Everything else stays.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`].
    fn reset_classifier(&mut self, labels: usize, rng: &mut dyn Rng) -> Result<()>;

    /// What the classes are called, in their order; nothing where nobody has named them, and for architectures whose files have no place for
    /// names.
    fn label_names(&self) -> &[String] {
        &[]
    }

    /// Names the classes, in their order, for the `config.json` that [`write`](ImageClassifier::write) writes and for those who read it:
    /// pipelines of transformers say `daisy` then, and not `LABEL_0`. A new classifier has no names. Architectures whose files have no place
    /// for names forget them.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] unless there are as many as [`labels`](ImageClassifier::labels), each with a name of its own.
    fn name_labels(&mut self, names: &[String]) -> Result<()> {
        labels::check(self.labels(), names)
    }
}

/// The logits, or an error that says that there is no classifier.
pub(super) fn classify<T: Scalar>(
    operation: &'static str,
    classifier: Option<&Linear<T>>,
    features: &Var<T>,
    mode: Mode,
) -> Result<Var<T>> {
    match classifier {
        Some(classifier) => classifier.forward(features, mode),
        None => {
            let message =
                "the model has no classifier; take its features with embed, or make one with reset_classifier";
            Err(Error::new(ErrorKind::Value, operation, message))
        }
    }
}

/// A classifier with this start and a bias of zeros; none for no labels.
pub(super) fn new_classifier<T: Scalar>(
    width: usize,
    labels: usize,
    start: Init,
    rng: &mut dyn Rng,
) -> Result<Option<Linear<T>>> {
    if labels == 0 {
        return Ok(None);
    }
    let weight = start.tensor(&[labels, width], rng)?.into_order()?;
    Ok(Some(Linear::from_tensors(weight, Some(crate::Tensor::zeros([labels])?))?))
}
