//! The crate's one error type.

use std::fmt;

/// What kind of thing went wrong, for code that wants to react to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Shapes, orders, or mode numbers do not fit each other.
    Shape,
    /// A rank is zero, above what the mode holds, or the count of ranks is wrong.
    Rank,
    /// A value is not acceptable: NaN, infinity, a tolerance outside its range.
    Value,
    /// Two operands live on different devices, or a device does not exist here.
    Device,
    /// A device or the host has no memory left for what was asked.
    Memory,
    /// A file or a byte stream is not what its format says.
    Format,
    /// The operating system refused to read or write.
    Io,
    /// An iteration or a factorisation did not converge, or a matrix is singular.
    Convergence,
    /// The caller asked, through a progress callback, for the work to stop.
    Interrupted,
    /// The combination asked for has no exact form here; the message names the alternative.
    Unsupported,
}

/// An error of this crate: which operation, what is wrong, and what would be right.
///
/// ```
/// use ndarray::array;
/// use tenfold::{ErrorKind, Tensor};
///
/// let x = Tensor::from(array![[1.0, 2.0], [3.0, 4.0]]);
/// let error = x.unfold(2).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Shape);
/// assert_eq!(error.to_string(), "unfold: mode 2 does not exist in shape [2, 2]; modes count from 0 to 1");
/// ```
#[derive(thiserror::Error)]
#[error("{operation}: {message}")]
pub struct Error {
    kind: ErrorKind,
    operation: &'static str,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync + 'static>>,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes an error of `kind` in `operation`; `message` says what is wrong and what would be right.
    pub fn new(kind: ErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        Self { kind, operation, message: message.into(), source: None }
    }

    /// Attaches the error that caused this one.
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// An error of the operating system about `path`.
    pub(crate) fn io(operation: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        Self::new(ErrorKind::Io, operation, format!("{}: {source}", path.display())).with_source(source)
    }

    /// The kind, to match on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The operation that failed, by its name in this crate.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The message without the operation in front.
    pub fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn shape(operation: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Shape, operation, message)
    }

    pub(crate) fn format(operation: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Format, operation, message)
    }

    /// The error for a mode that a tensor does not have.
    pub(crate) fn mode(operation: &'static str, mode: usize, shape: &[usize]) -> Self {
        let right = match shape.len() {
            0 => "it has no modes".to_string(),
            1 => "its only mode is 0".to_string(),
            n => format!("modes count from 0 to {}", n - 1),
        };
        Self::shape(operation, format!("mode {mode} does not exist in shape {shape:?}; {right}"))
    }
}

impl fmt::Debug for Error {
    // `unwrap()` prints Debug: let it be the sentence, with the kind in front.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} error in {}: {}", self.kind, self.operation, self.message)
    }
}
