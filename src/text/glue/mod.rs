//! GLUE's tasks: which columns of their files hold what, how results are scored, and what a submission looks like.
//!
//! `tsv.rs` reads tables, `read.rs` makes examples of them, `score.rs` scores results and writes submissions.
//!
//! A. Wang et al., *GLUE: a multi-task benchmark and analysis platform for natural language understanding*, ICLR 2019.

mod read;
mod score;
mod tsv;

use crate::error::{Error, ErrorKind, Result};
use std::{fmt, path::PathBuf};

/// One of GLUE's tasks.
///
/// | task | name | texts | labels | scores |
/// |---|---|---|---|---|
/// | CoLA | `cola` | a sentence | acceptable or not | Matthews' correlation |
/// | SST-2 | `sst2` | a sentence | positive or not | accuracy |
/// | MRPC | `mrpc` | two sentences | paraphrases or not | accuracy, F1 |
/// | STS-B | `stsb` | two sentences | similarity, 0 to 5 | Pearson's and Spearman's correlation |
/// | QQP | `qqp` | two questions | duplicates or not | accuracy, F1 |
/// | MNLI | `mnli` | premise and hypothesis | entailment, neutral, contradiction | accuracy, matched and mismatched |
/// | QNLI | `qnli` | question and sentence | entailment or not | accuracy |
/// | RTE | `rte` | premise and hypothesis | entailment or not | accuracy |
///
/// ```
/// use tenfold::text::Task;
///
/// assert_eq!(Task::named("SST-2")?, Task::Sst2);
/// assert_eq!(Task::Mnli.classes(), ["entailment", "neutral", "contradiction"]);
/// assert_eq!((Task::Stsb.labels(), Task::Mrpc.labels()), (1, 2));
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// Corpus of Linguistic Acceptability.
    Cola,
    /// Stanford Sentiment Treebank.
    Sst2,
    /// Microsoft Research Paraphrase Corpus.
    Mrpc,
    /// Semantic Textual Similarity Benchmark.
    Stsb,
    /// Quora Question Pairs.
    Qqp,
    /// Multi-Genre Natural Language Inference.
    Mnli,
    /// Question-answering Natural Language Inference.
    Qnli,
    /// Recognizing Textual Entailment.
    Rte,
}

/// A part of a task's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// To train on: `train.tsv`.
    Train,
    /// To choose by: `dev.tsv`, of MNLI `dev_matched.tsv`.
    Dev,
    /// Of MNLI: `dev_mismatched.tsv`.
    DevMismatched,
    /// Without labels, to be submitted: `test.tsv`, of MNLI `test_matched.tsv`.
    Test,
    /// Of MNLI: `test_mismatched.tsv`.
    TestMismatched,
}

/// What an example is labelled with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Label {
    /// The number of a class.
    Class(u32),
    /// A number.
    Score(f32),
}

/// A text, or a pair of texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The first text.
    pub first: String,
    /// The second text of a pair.
    pub second: Option<String>,
    /// None in the parts that are to be submitted.
    pub label: Option<Label>,
    /// What the file calls it, in the parts that are to be submitted.
    pub index: Option<String>,
    /// The line of the file that it stands in, from 1.
    pub line: usize,
}

/// The examples of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Examples {
    /// The file.
    pub path: PathBuf,
    /// In its order.
    pub examples: Vec<Example>,
    /// Lines of QQP's official file that are broken, and left out.
    pub skipped: Vec<usize>,
}

/// The tasks with their names: of command lines, of folders.
const TASKS: [(Task, &str, &str); 8] = [
    (Task::Cola, "cola", "CoLA"),
    (Task::Sst2, "sst2", "SST-2"),
    (Task::Mrpc, "mrpc", "MRPC"),
    (Task::Stsb, "stsb", "STS-B"),
    (Task::Qqp, "qqp", "QQP"),
    (Task::Mnli, "mnli", "MNLI"),
    (Task::Qnli, "qnli", "QNLI"),
    (Task::Rte, "rte", "RTE"),
];

impl Task {
    /// All of them.
    pub fn all() -> [Self; 8] {
        TASKS.map(|(task, ..)| task)
    }

    /// By its name, in small letters or large ones, with hyphens or without.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] for another name, listing those that there are.
    pub fn named(name: &str) -> Result<Self> {
        let plain = name.to_lowercase().replace(['-', '_'], "");
        TASKS.iter().find(|(_, known, _)| *known == plain).map(|(task, ..)| *task).ok_or_else(|| {
            let names = TASKS.map(|(_, known, _)| known).join(", ");
            Error::new(ErrorKind::Value, "Task", format!("there is no {name:?}; there are {names}"))
        })
    }

    /// Its name at command lines: `mrpc`.
    pub fn name(self) -> &'static str {
        TASKS[self as usize].1
    }

    /// Its name in GLUE, and that of its folder: `MRPC`.
    pub fn title(self) -> &'static str {
        TASKS[self as usize].2
    }

    /// What its classes are called in files, in the order of their numbers; none where labels are numbers.
    pub fn classes(self) -> &'static [&'static str] {
        match self {
            Self::Cola | Self::Sst2 | Self::Mrpc | Self::Qqp => &["0", "1"],
            Self::Qnli | Self::Rte => &["entailment", "not_entailment"],
            Self::Mnli => &["entailment", "neutral", "contradiction"],
            Self::Stsb => &[],
        }
    }

    /// What its classes mean, in the order of their numbers, for [`name_labels`](crate::models::TextClassifier::name_labels). A regression's one
    /// output has a name too.
    ///
    /// ```
    /// assert_eq!(tenfold::text::Task::Mrpc.label_names(), ["not_equivalent", "equivalent"]);
    /// ```
    pub fn label_names(self) -> Vec<String> {
        let names: &[&str] = match self {
            Self::Cola => &["unacceptable", "acceptable"],
            Self::Sst2 => &["negative", "positive"],
            Self::Mrpc => &["not_equivalent", "equivalent"],
            Self::Qqp => &["not_duplicate", "duplicate"],
            Self::Stsb => &["similarity"],
            Self::Qnli | Self::Rte | Self::Mnli => self.classes(),
        };
        names.iter().map(|name| name.to_string()).collect()
    }

    /// The outputs that a model needs: the number of classes, or 1 where labels are numbers.
    pub fn labels(self) -> usize {
        self.classes().len().max(1)
    }

    /// The parts that a model is evaluated on: two of MNLI, one of each other task.
    pub fn dev(self) -> &'static [Part] {
        if self == Self::Mnli { &[Part::Dev, Part::DevMismatched] } else { &[Part::Dev] }
    }

    /// The parts that are submitted.
    pub fn test(self) -> &'static [Part] {
        if self == Self::Mnli { &[Part::Test, Part::TestMismatched] } else { &[Part::Test] }
    }

    /// The file of a part.
    pub(super) fn file(self, part: Part) -> &'static str {
        match (self, part) {
            (_, Part::Train) => "train.tsv",
            (Self::Mnli, Part::Dev) => "dev_matched.tsv",
            (_, Part::Dev) => "dev.tsv",
            (Self::Mnli, Part::Test) => "test_matched.tsv",
            (_, Part::Test) => "test.tsv",
            (_, Part::DevMismatched) => "dev_mismatched.tsv",
            (_, Part::TestMismatched) => "test_mismatched.tsv",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

impl Part {
    /// Whether its examples have labels.
    pub fn labelled(self) -> bool {
        !matches!(self, Self::Test | Self::TestMismatched)
    }
}
