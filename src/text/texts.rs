//! [`Texts`]: tokenised examples, and [`TextBatch`], what the loss function gets.

use super::{Encoded, Examples, Label, Tokenizer};
use crate::{
    autodiff::{CrossEntropy, Var, without_gradients},
    device::Device,
    error::{Error, ErrorKind, Result},
    models::{TextClassifier, Tokens},
    nn::Mode,
    tensor::{Origin, Tensor},
    train::Dataset,
};
use ndarray::{Ix1, Ix2};
use rayon::prelude::*;

const NAME: &str = "Texts";

/// What is done to a text with too many tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLong {
    /// The end of the longer text of a pair goes. [`Texts::truncated`] counts how often.
    Truncate,
    /// An error, with file and line.
    Refuse,
}

/// Texts as tokens, with their labels. [The module's page](super) has an example.
///
/// Memory: 8 bytes a token.
#[derive(Debug, Clone)]
pub struct Texts {
    rows: Vec<Row>,
    padding: u32,
    truncated: usize,
}

#[derive(Debug, Clone)]
struct Row {
    tokens: Encoded,
    label: Option<Label>,
}

/// Labels of a batch.
#[derive(Debug, Clone)]
pub enum Labels {
    /// The numbers of classes, `[batch]`.
    Classes(Tensor<u32, Ix1>),
    /// Numbers, `[batch]`.
    Scores(Tensor<f32, Ix1>),
}

/// Texts, padded to the longest of them, with labels.
#[derive(Debug, Clone)]
pub struct TextBatch {
    /// What a model reads.
    pub tokens: Tokens<f32>,
    /// None where the texts have none.
    pub labels: Option<Labels>,
}

impl Texts {
    /// Tokenises examples, with at most `most` tokens each, on all cores.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`], and [`ErrorKind::Value`] for a text that is too long and is not to be cut: with file and line.
    pub fn new(examples: &Examples, tokenizer: &Tokenizer, most: usize, too_long: TooLong) -> Result<Self> {
        let origin = Origin::file(NAME, &examples.path);
        let rows: Vec<Row> = examples
            .examples
            .par_iter()
            .map(|example| {
                let tokens = tokenizer
                    .encode(&example.first, example.second.as_deref(), most)
                    .map_err(|e| origin.error(e.kind(), format!("line {}: {}", example.line, e.message())))?;
                if tokens.truncated && too_long == TooLong::Refuse {
                    let message = format!("line {}: more than {most} tokens", example.line);
                    return Err(origin.error(ErrorKind::Value, message));
                }
                Ok(Row { tokens, label: example.label })
            })
            .collect::<Result<_>>()?;
        let truncated = rows.iter().filter(|row| row.tokens.truncated).count();
        Ok(Self { rows, padding: tokenizer.padding(), truncated })
    }

    /// How many texts were cut.
    pub fn truncated(&self) -> usize {
        self.truncated
    }

    /// The labels, in order.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = Option<Label>> {
        self.rows.iter().map(|row| row.label)
    }

    /// The first so many of them.
    pub fn take(mut self, count: usize) -> Self {
        self.rows.truncate(count);
        self
    }

    /// The logits of a model for all texts, `[texts, labels]`, on the host, in the order of the texts. They go through in batches of `size`
    /// of like length, on the device that the model's parameters are on.
    ///
    /// # Errors
    /// Those of the model.
    pub fn logits(&self, model: &(impl TextClassifier<f32> + ?Sized), size: usize) -> Result<Tensor<f32, Ix2>> {
        let device =
            model.parameters().first().map_or_else(Device::cpu, |(_, parameter)| parameter.var().device().clone());
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|&i| self.length(i));
        let labels = model.labels();
        let mut all = vec![0.0; self.len() * labels];
        for indices in order.chunks(size.max(1)) {
            let tokens = self.batch(indices)?.tokens.to_device(&device)?;
            let logits = without_gradients(|| model.forward(&tokens, Mode::Evaluation))?.value().to_vec()?;
            for (row, &i) in logits.chunks_exact(labels).zip(indices) {
                all[i * labels..(i + 1) * labels].copy_from_slice(row);
            }
        }
        Tensor::from_vec([self.len(), labels], all)
    }
}

impl Dataset for Texts {
    type Batch = TextBatch;

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn batch(&self, indices: &[usize]) -> Result<TextBatch> {
        let rows = indices
            .iter()
            .map(|&i| self.rows.get(i).ok_or_else(|| Error::shape(NAME, format!("text {i} of {}", self.rows.len()))));
        let rows: Vec<&Row> = rows.collect::<Result<_>>()?;
        let sequences: Vec<(&[u32], &[u32])> =
            rows.iter().map(|row| (&row.tokens.ids[..], &row.tokens.types[..])).collect();
        let labels: Option<Vec<Label>> = rows.iter().map(|row| row.label).collect();
        Ok(TextBatch {
            tokens: Tokens::padded(&sequences, self.padding)?,
            labels: labels.map(|labels| Labels::new(&labels)).transpose()?,
        })
    }

    fn length(&self, index: usize) -> usize {
        self.rows[index].tokens.ids.len()
    }
}

impl Labels {
    fn new(labels: &[Label]) -> Result<Self> {
        let classes = labels.iter().map(|label| match label {
            Label::Class(class) => Some(*class),
            Label::Score(_) => None,
        });
        if let Some(classes) = classes.collect() {
            return Ok(Self::Classes(Tensor::from_vec([labels.len()], classes)?));
        }
        let scores = labels.iter().map(|label| match label {
            Label::Score(score) => Some(*score),
            Label::Class(_) => None,
        });
        match scores.collect() {
            Some(scores) => Ok(Self::Scores(Tensor::from_vec([labels.len()], scores)?)),
            None => Err(Error::new(ErrorKind::Value, NAME, "classes and numbers among the labels of one batch")),
        }
    }

    fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(match self {
            Self::Classes(labels) => Self::Classes(labels.to_device(device)?),
            Self::Scores(labels) => Self::Scores(labels.to_device(device)?),
        })
    }
}

impl TextBatch {
    /// The same on a device.
    ///
    /// # Errors
    /// Those of [`Tensor::to_device`].
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let labels = self.labels.as_ref().map(|labels| labels.to_device(device)).transpose()?;
        Ok(Self { tokens: self.tokens.to_device(device)?, labels })
    }

    /// The mean cross-entropy of logits `[batch, classes]`, with so much of each target spread evenly over all classes; or, where labels are
    /// numbers, the mean square of the error of `[batch, 1]`, for which there is no such thing.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] for texts without labels and for smoothing of numbers, and the errors of [`Var::cross_entropy`] and
    /// [`Var::mse_loss`].
    pub fn loss(&self, logits: &Var<f32>, smoothing: f64) -> Result<Var<f32>> {
        let wrong = |message: &str| Err(Error::new(ErrorKind::Value, "TextBatch", message));
        match &self.labels {
            Some(Labels::Classes(labels)) => {
                logits.cross_entropy(labels, CrossEntropy { smoothing, ..CrossEntropy::default() })
            }
            Some(Labels::Scores(_)) if smoothing != 0.0 => wrong("labels that are numbers cannot be smoothed"),
            Some(Labels::Scores(labels)) => logits.reshape([logits.len()])?.mse_loss(&Var::constant(labels.clone())),
            None => wrong("the texts have no labels"),
        }
    }
}
