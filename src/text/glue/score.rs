//! Scores of results, and the files in which they are submitted.

use super::{Examples, Label, Part, Task};
use crate::{
    error::{Error, ErrorKind, Result},
    tensor::{Tensor, write_atomically},
    text::Texts,
    train::{
        Scores,
        metrics::{Confusion, Correlation},
    },
};
use ndarray::{Ix1, Ix2};
use std::{io::Write, path::Path};

const NAME: &str = "Task::scores";

impl Task {
    /// The task's scores for logits `[examples, labels]` of texts with labels, and their mean under the name `score`, which decides which
    /// model is the best.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where texts have no labels, [`ErrorKind::Shape`] where the numbers of examples or labels differ.
    pub fn scores(self, logits: &Tensor<f32, Ix2>, texts: &Texts) -> Result<Scores> {
        let Some(labels) = texts.labels().collect::<Option<Vec<Label>>>() else {
            return Err(Error::new(ErrorKind::Value, NAME, "the texts have no labels"));
        };
        self.check(logits, labels.len())?;
        let scores = match self {
            Self::Stsb => {
                let mut correlation = Correlation::new();
                let targets = labels.iter().map(|label| label.number()).collect();
                correlation.update(
                    &logits.index_mode(1, 0)?,
                    &Tensor::<f32, Ix1>::from_vec([labels.len()], targets)?.into_dyn(),
                )?;
                vec![("pearson", correlation.pearson()), ("spearman", correlation.spearman())]
            }
            _ => {
                let mut confusion = Confusion::new(self.labels())?;
                let targets = labels.iter().map(|label| label.number() as u32).collect();
                confusion.update_logits(logits, &Tensor::<u32, Ix1>::from_vec([labels.len()], targets)?)?;
                match self {
                    Self::Cola => vec![("matthews", confusion.matthews())],
                    Self::Mrpc | Self::Qqp => vec![("accuracy", confusion.accuracy()), ("f1", confusion.f1(1))],
                    _ => vec![("accuracy", confusion.accuracy())],
                }
            }
        };
        let mean = scores.iter().map(|(_, score)| score).sum::<f64>() / scores.len() as f64;
        Ok(scores.into_iter().chain([("score", mean)]).fold(Scores::new(), |all, (name, score)| all.with(name, score)))
    }

    /// Writes what GLUE's server takes, `index` and `prediction`, under its name for the part (`MRPC.tsv`, `MNLI-mm.tsv`) into a folder; gives
    /// the file's path.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where the numbers of examples or labels differ, [`ErrorKind::Value`] where a logit is not finite, which says
    /// nothing of a label, [`ErrorKind::Io`].
    pub fn submit(
        self,
        logits: &Tensor<f32, Ix2>,
        examples: &Examples,
        part: Part,
        folder: impl AsRef<Path>,
    ) -> Result<std::path::PathBuf> {
        const NAME: &str = "Task::submit";
        self.check(logits, examples.examples.len())?;
        logits.check_finite(NAME)?;
        let name = match (self, part) {
            (Self::Mnli, Part::TestMismatched | Part::DevMismatched) => "MNLI-mm.tsv".to_string(),
            (Self::Mnli, _) => "MNLI-m.tsv".to_string(),
            _ => format!("{}.tsv", self.title()),
        };
        let path = folder.as_ref().join(name);
        let values = logits.to_vec()?;
        let rows = values.chunks_exact(self.labels()).zip(&examples.examples).enumerate();
        let lines: String = rows
            .map(|(i, (row, example))| {
                let index = example.index.clone().unwrap_or_else(|| i.to_string());
                format!("{index}\t{}\n", self.prediction(row))
            })
            .collect();
        write_atomically(NAME, &path, |writer| {
            write!(writer, "index\tprediction\n{lines}").map_err(|e| Error::io(NAME, &path, e))
        })?;
        Ok(path)
    }

    /// What one row of logits says, in the words of the task's files.
    fn prediction(self, row: &[f32]) -> String {
        if self == Self::Stsb {
            return format!("{:.3}", row[0].clamp(0.0, 5.0));
        }
        // Of equals the first, as argmax has it.
        let best = (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        self.classes()[best].to_string()
    }

    fn check(self, logits: &Tensor<f32, Ix2>, examples: usize) -> Result<()> {
        if logits.shape() != [examples, self.labels()] {
            let message = format!("logits of shape {:?}; needs [{examples}, {}]", logits.shape(), self.labels());
            return Err(Error::shape(NAME, message));
        }
        Ok(())
    }
}

impl Label {
    fn number(self) -> f32 {
        match self {
            Self::Class(class) => class as f32,
            Self::Score(score) => score,
        }
    }
}
