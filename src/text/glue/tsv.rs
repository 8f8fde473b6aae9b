//! Tables whose columns are parted by tabs. Quotation marks are characters like any other.

use crate::{
    error::{ErrorKind, Result},
    tensor::Origin,
};
use std::{fs::File, io::Read, path::Path};

/// The largest file that is read: MNLI's training file has some 80 megabytes.
const MOST: u64 = 1 << 30;

/// The text of a file, whose lines are all there is to it.
pub(super) fn text(origin: &Origin<'_>, path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes)).map_err(|e| origin.io(e))?;
    if bytes.len() as u64 > MOST {
        return Err(origin.format(format!("a file of more than {MOST} bytes is not read")));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let before = &e.as_bytes()[..at];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        let column = at - before.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1) + 1;
        origin.format(format!("line {line}: byte {column} is no UTF-8"))
    })?;
    if text.trim().is_empty() {
        return Err(origin.format("the file is empty"));
    }
    Ok(text)
}

/// The lines of a text with their numbers from 1, without what ends them; empty ones at its end do not count.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end_matches(['\n', '\r']);
    text.split('\n').enumerate().map(|(i, line)| (i + 1, line.strip_suffix('\r').unwrap_or(line)))
}

/// Where a column is found: by one of its names in the first line, or by its place where there is no such line.
#[derive(Clone, Copy)]
pub(super) enum Column {
    Named(&'static [&'static str]),
    At(usize),
}

impl Column {
    /// Its place among the columns.
    pub(super) fn place(self, origin: &Origin<'_>, header: &[&str]) -> Result<usize> {
        match self {
            Self::At(place) => Ok(place),
            Self::Named(names) => header.iter().position(|column| names.contains(&column.trim())).ok_or_else(|| {
                let all = header.join("\", \"");
                let message = format!("line 1: there is no column \"{}\"; there are \"{all}\"", names[0]);
                origin.error(ErrorKind::Format, message)
            }),
        }
    }
}
