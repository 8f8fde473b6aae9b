//! Which texts, and how they are tokenised.

use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use tenfold::{
    Error, ErrorKind, Result,
    text::{Examples, Part, Task, Texts, Tokenizer, TooLong},
    train::Dataset,
};

/// A task and its files.
#[derive(Args)]
#[command(next_help_heading = "Texts")]
pub struct DataArguments {
    /// cola, sst2, mrpc, stsb, qqp, mnli, qnli or rte.
    #[arg(long)]
    pub task: String,
    /// The folder of the task's TSV files, or the one that has it (glue_data with glue_data/MRPC).
    #[arg(long)]
    pub data: PathBuf,
    /// The most tokens of an example, special ones included [default: the paper's for the task, at most what the model has positions for].
    #[arg(long)]
    pub max_length: Option<usize>,
    /// Refuse examples with more tokens, naming the line, instead of cutting them.
    #[arg(long)]
    pub refuse_long: bool,
    /// Train on the first so many examples alone.
    #[arg(long)]
    pub first: Option<usize>,
    /// After training, predict the labels of this file (the task's test.tsv) and write the file that GLUE's server takes. May be given
    /// twice for MNLI: test_matched.tsv, test_mismatched.tsv.
    #[arg(long)]
    pub predict: Vec<PathBuf>,
}

/// A part of a task with its tokens.
pub struct Read {
    pub part: Part,
    pub examples: Examples,
    pub texts: Texts,
}

/// Everything that is read before anything is trained.
pub struct Data {
    pub task: Task,
    pub train: Texts,
    pub dev: Vec<Read>,
    pub test: Vec<Read>,
    pub max_length: usize,
    /// Broken lines of the training file that were left out.
    skipped: usize,
}

impl DataArguments {
    pub fn task(&self) -> Result<Task> {
        Task::named(&self.task)
    }

    /// Reads and tokenises everything; `most` is what the model has positions for.
    pub fn open(&self, tokenizer: &Tokenizer, default: usize, most: Option<usize>) -> Result<Data> {
        let task = self.task()?;
        let most = most.unwrap_or(usize::MAX);
        let max_length = self.max_length.unwrap_or(default.min(most));
        if max_length > most {
            let message = format!("--max-length {max_length}: the model has positions for {most} tokens");
            return Err(Error::new(ErrorKind::Value, "glue", message));
        }
        let too_long = if self.refuse_long { TooLong::Refuse } else { TooLong::Truncate };
        let tokenised = |part: Part, examples: Examples| -> Result<Read> {
            Ok(Read { part, texts: Texts::new(&examples, tokenizer, max_length, too_long)?, examples })
        };
        let train = tokenised(Part::Train, task.read(&self.data, Part::Train)?)?;
        let dev = task.dev().iter().map(|&part| tokenised(part, task.read(&self.data, part)?));
        let test = self.predict.iter().map(|path| {
            let mismatched = path.file_name().is_some_and(|name| name.to_string_lossy().contains("mismatched"));
            let part = if mismatched { Part::TestMismatched } else { Part::Test };
            tokenised(part, task.read_file(path, part)?)
        });
        Ok(Data {
            task,
            dev: dev.collect::<Result<_>>()?,
            test: test.collect::<Result<_>>()?,
            skipped: train.examples.skipped.len(),
            train: match self.first {
                Some(count) => train.texts.take(count),
                None => train.texts,
            },
            max_length,
        })
    }
}

impl Data {
    /// What decides about the tokens that a run sees, beside its seed.
    pub fn settings(&self, arguments: &DataArguments, model: &str) -> Value {
        json!({
            "task": self.task.name(),
            "data": arguments.data.display().to_string(),
            "model": model,
            "examples": self.train.len(),
            "max_length": self.max_length,
        })
    }
}

impl std::fmt::Display for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dev: Vec<String> = self.dev.iter().map(|dev| dev.texts.len().to_string()).collect();
        write!(
            f,
            "{}: {} examples to train on, {} to choose by; at most {} tokens, which cuts {} of the first",
            self.task,
            self.train.len(),
            dev.join(" and "),
            self.max_length,
            self.train.truncated(),
        )?;
        if self.skipped > 0 {
            write!(f, "; {} broken lines of the training file are left out", self.skipped)?;
        }
        Ok(())
    }
}
