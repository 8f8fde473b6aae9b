//! [`Differences`]: in what a file and a model do not fit, collected first and told all at once.

use crate::{
    error::{ErrorKind, Result},
    scalar::{DType, Scalar},
    tensor::{Origin, first_few, listed},
};

/// What is missing, unexpected or different between a file and a model.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    missing: Vec<String>,
    unexpected: Vec<String>,
    shapes: Vec<String>,
    types: Vec<String>,
}

impl Differences {
    /// The model has it, the file does not.
    pub(crate) fn missing(&mut self, name: impl Into<String>) {
        self.missing.push(name.into());
    }

    /// The file has it, the model does not.
    pub(crate) fn unexpected(&mut self, name: impl Into<String>) {
        self.unexpected.push(name.into());
    }

    /// A shape in the file beside the one that the model needs.
    pub(crate) fn shape(&mut self, name: &str, held: &[usize], wanted: &[usize]) {
        if held != wanted {
            self.shapes.push(format!("{name:?} has shape {held:?} in the file and {wanted:?} in the model"));
        }
    }

    /// A type in the file that is to be read as `T`; only `round` lets `f64` become `f32`.
    pub(crate) fn dtype<T: Scalar>(&mut self, name: &str, held: DType, round: bool) {
        let wanted = T::DTYPE;
        match held {
            DType::U8 | DType::U32 | DType::I64 => {
                self.types.push(format!("{name:?} holds integers, {held}, in the file and {wanted} in the model"));
            }
            DType::F64 if wanted == DType::F32 && !round => {
                self.types
                    .push(format!("{name:?} is {held} in the file and {wanted} in the model; Load::round rounds"));
            }
            _ => {}
        }
    }

    /// An error that lists what there is: names before shapes before types.
    pub(crate) fn check(mut self, origin: &Origin<'_>) -> Result<()> {
        let names = [
            ("model's tensors are missing", &mut self.missing),
            ("file's tensors are unexpected", &mut self.unexpected),
        ];
        let parts: Vec<String> = names
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| {
                names.sort_unstable();
                format!("{} of the {what}: {}", names.len(), listed(names.iter().map(String::as_str)))
            })
            .collect();
        if !parts.is_empty() {
            return Err(origin.error(ErrorKind::Value, parts.join("; ")));
        }
        for (kind, offences) in [(ErrorKind::Shape, self.shapes), (ErrorKind::Unsupported, self.types)] {
            if !offences.is_empty() {
                let count = offences.len();
                let what = if count == 1 { "tensor does" } else { "tensors do" };
                return Err(origin.error(kind, format!("{count} {what} not fit: {}", first_few(&offences))));
            }
        }
        Ok(())
    }
}
