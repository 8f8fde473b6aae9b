//! Examples from the files of tasks.

use super::{
    Example, Examples, Label, Part, Task,
    tsv::{Column, lines, text},
};
use crate::{
    error::{Error, ErrorKind, Result},
    tensor::Origin,
};
use std::path::{Path, PathBuf};

const NAME: &str = "Task::read";

/// Which columns hold what.
struct Columns {
    /// The number of columns where no first line names them.
    unnamed: Option<usize>,
    first: Column,
    second: Option<Column>,
    label: Option<Column>,
    index: Option<Column>,
}

/// The places of the columns of a file.
struct Places {
    count: usize,
    first: usize,
    second: Option<usize>,
    label: Option<usize>,
    index: Option<usize>,
}

impl Task {
    /// The examples of a part, from the task's folder or from one that has it (`MRPC/`).
    ///
    /// Quotation marks mean nothing, as in the official files. Of QQP's official training file, which has lines cut in two, those are left
    /// out and [listed](Examples::skipped); in all other files such a line is an error.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where there is no such file; [`ErrorKind::Format`] for a file that is empty, is no UTF-8, or lacks columns, and
    /// [`ErrorKind::Value`] for a label that the task does not have: with file and line.
    pub fn read(self, folder: impl AsRef<Path>, part: Part) -> Result<Examples> {
        self.read_file(self.locate(folder.as_ref(), part)?, part)
    }

    /// The examples of a file, which has the columns of a part.
    ///
    /// # Errors
    /// As [`read`](Task::read).
    pub fn read_file(self, path: impl Into<PathBuf>, part: Part) -> Result<Examples> {
        let path = path.into();
        let origin = Origin::file(NAME, &path);
        let text = text(&origin, &path)?;
        let columns = self.columns(part);
        let mut rows = lines(&text);
        let header: Vec<&str> = match columns.unnamed {
            Some(count) => vec![""; count],
            None => rows.next().map(|(_, line)| line.split('\t').collect()).unwrap_or_default(),
        };
        let place = |column: Option<Column>| column.map(|column| column.place(&origin, &header)).transpose();
        let places = Places {
            count: header.len(),
            first: columns.first.place(&origin, &header)?,
            second: place(columns.second)?,
            label: place(columns.label)?,
            index: place(columns.index)?,
        };
        let (mut examples, mut skipped) = (Vec::new(), Vec::new());
        for (number, line) in rows {
            match self.example(&places, number, line) {
                Ok(example) => examples.push(example),
                Err((ErrorKind::Format, _)) if self == Self::Qqp && part.labelled() => skipped.push(number),
                Err((kind, message)) => return Err(origin.error(kind, format!("line {number}: {message}"))),
            }
        }
        if examples.is_empty() {
            return Err(origin.format("there are no examples in it"));
        }
        // The official file has a few; another file that has many is another file.
        if let Some(number) = skipped.first().filter(|_| skipped.len() > 10 + examples.len() / 1000) {
            let message =
                format!("line {number} and {} more are not {} columns with texts", skipped.len() - 1, places.count);
            return Err(origin.format(message));
        }
        Ok(Examples { examples, skipped, path })
    }

    fn locate(self, folder: &Path, part: Part) -> Result<PathBuf> {
        let file = self.file(part);
        let own = folder.join(file);
        let inside = folder.join(self.title()).join(file);
        match [&inside, &own].into_iter().find(|path| path.is_file()) {
            Some(path) => Ok(path.clone()),
            None => {
                let message = format!("there is neither {} nor {}", own.display(), inside.display());
                Err(Error::new(ErrorKind::Io, NAME, message))
            }
        }
    }

    /// The official layouts.
    fn columns(self, part: Part) -> Columns {
        use Column::{At, Named};
        const LABEL: Column = Named(&["label"]);
        let pair = |first, second, label| (Named(first), Some(Named(second)), label);
        if self == Self::Cola && part.labelled() {
            return Columns { unnamed: Some(4), first: At(3), second: None, label: Some(At(1)), index: None };
        }
        let (first, second, label) = match self {
            Self::Cola | Self::Sst2 => (Named(&["sentence", "text"]), None, LABEL),
            Self::Mrpc => pair(&["#1 String"], &["#2 String"], Named(&["Quality"])),
            Self::Stsb => pair(&["sentence1"], &["sentence2"], Named(&["score"])),
            Self::Qqp => pair(&["question1"], &["question2"], Named(&["is_duplicate"])),
            Self::Mnli => pair(&["sentence1"], &["sentence2"], Named(&["gold_label"])),
            Self::Qnli => pair(&["question"], &["sentence"], LABEL),
            Self::Rte => pair(&["sentence1"], &["sentence2"], LABEL),
        };
        let labelled = part.labelled();
        let index = if labelled { None } else { Some(Named(&["index", "id"])) };
        Columns { unnamed: None, first, second, label: labelled.then_some(label), index }
    }

    /// The example of a line, or what is wrong with it.
    fn example(self, places: &Places, line: usize, content: &str) -> std::result::Result<Example, (ErrorKind, String)> {
        let fields: Vec<&str> = content.split('\t').collect();
        if fields.len() != places.count {
            return Err((ErrorKind::Format, format!("{} columns; needs {}", fields.len(), places.count)));
        }
        let text = |place: usize| match fields[place].trim() {
            "" => Err((ErrorKind::Format, format!("column {} has no text", place + 1))),
            text => Ok(text.to_string()),
        };
        Ok(Example {
            first: text(places.first)?,
            second: places.second.map(text).transpose()?,
            label: places.label.map(|place| self.label(fields[place].trim())).transpose()?,
            index: places.index.map(|place| fields[place].trim().to_string()),
            line,
        })
    }

    /// The label that a word says.
    fn label(self, word: &str) -> std::result::Result<Label, (ErrorKind, String)> {
        if word.is_empty() {
            return Err((ErrorKind::Format, "there is no label".into()));
        }
        if self == Self::Stsb {
            let score = word.parse().ok().filter(|score| (0.0..=5.0).contains(score));
            return score
                .map(Label::Score)
                .ok_or_else(|| (ErrorKind::Value, format!("the label {word:?} is no number from 0 to 5")));
        }
        match self.classes().iter().position(|class| *class == word) {
            Some(class) => Ok(Label::Class(class as u32)),
            None => {
                let classes = self.classes().join("\", \"");
                Err((ErrorKind::Value, format!("the label {word:?} is none of \"{classes}\"")))
            }
        }
    }
}
