//! What moving windows share: values for each spatial mode, paddings, and checks of sizes.
//!
//! Images are channels-last: `[batch, *spatial, channels]` with one, two or three spatial modes.

use crate::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// A value for each spatial mode; one value stands for all of them.
///
/// Made from a number (`2.into()`), or an array, a slice or a vector with a number for each mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PerAxis(Vec<usize>);

impl PerAxis {
    /// The values for `modes` spatial modes; `name` is the option's, for the message.
    pub(crate) fn values(&self, operation: &'static str, name: &str, modes: usize) -> Result<Vec<usize>> {
        match self.0.len() {
            1 => Ok(vec![self.0[0]; modes]),
            n if n == modes => Ok(self.0.clone()),
            n => {
                let message =
                    format!("{name} has {n} values {:?} for {modes} spatial modes; give one, or {modes}", self.0);
                Err(Error::shape(operation, message))
            }
        }
    }
}

impl From<usize> for PerAxis {
    fn from(value: usize) -> Self {
        Self(vec![value])
    }
}

impl<const N: usize> From<[usize; N]> for PerAxis {
    fn from(values: [usize; N]) -> Self {
        Self(values.to_vec())
    }
}

impl From<&[usize]> for PerAxis {
    fn from(values: &[usize]) -> Self {
        Self(values.to_vec())
    }
}

impl From<Vec<usize>> for PerAxis {
    fn from(values: Vec<usize>) -> Self {
        Self(values)
    }
}

/// How many entries a window sees beyond the image.
///
/// Made from a number or an array of them (as many before as after), or an array of pairs (before, after).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Padding {
    /// Before and after each spatial mode; one pair stands for all modes.
    Explicit(Vec<(usize, usize)>),
    /// So many that the result has `ceil(size / stride)` entries, one more after than before where the number is odd (TensorFlow's
    /// `"SAME"`; for stride 1 PyTorch's `padding="same"`).
    Same,
}

impl Padding {
    /// The padding of each mode.
    pub(super) fn pairs(
        &self,
        operation: &'static str,
        input: &[usize],
        kernel: &[usize],
        stride: &[usize],
        dilation: &[usize],
    ) -> Result<Vec<(usize, usize)>> {
        let modes = input.len();
        match self {
            Self::Explicit(pairs) if pairs.len() == 1 => Ok(vec![pairs[0]; modes]),
            Self::Explicit(pairs) if pairs.len() == modes => Ok(pairs.clone()),
            Self::Explicit(pairs) => {
                let message = format!(
                    "padding has {} values {pairs:?} for {modes} spatial modes; give one, or {modes}",
                    pairs.len()
                );
                Err(Error::shape(operation, message))
            }
            Self::Same => Ok((0..modes)
                .map(|m| {
                    let reach =
                        (input[m].div_ceil(stride[m]).max(1) - 1) * stride[m] + dilation[m] * (kernel[m] - 1) + 1;
                    let total = reach.saturating_sub(input[m]);
                    (total / 2, total - total / 2)
                })
                .collect()),
        }
    }
}

impl From<usize> for Padding {
    fn from(value: usize) -> Self {
        Self::Explicit(vec![(value, value)])
    }
}

impl<const N: usize> From<[usize; N]> for Padding {
    fn from(values: [usize; N]) -> Self {
        Self::Explicit(values.iter().map(|&n| (n, n)).collect())
    }
}

impl<const N: usize> From<[(usize, usize); N]> for Padding {
    fn from(pairs: [(usize, usize); N]) -> Self {
        Self::Explicit(pairs.to_vec())
    }
}

impl From<Vec<(usize, usize)>> for Padding {
    fn from(pairs: Vec<(usize, usize)>) -> Self {
        Self::Explicit(pairs)
    }
}

/// What a window sees beyond the image, as `padding_mode` of `torch.nn.Conv2d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaddingMode {
    /// Zeros.
    #[default]
    Zeros,
    /// The image mirrored at its border entry, which is not repeated: `c b | a b c | b a`. Needs more entries than it adds on a side.
    Reflect,
    /// The border entry repeated: `a a | a b c | c c`.
    Replicate,
    /// The image from its other end: `b c | a b c | a b`. Adds at most the image's size on a side.
    Circular,
}

/// The values of one, two or three spatial modes as those of three. A single mode is the middle one, along which the work is shared
/// among the threads.
pub(crate) fn three(values: &[usize], fill: usize) -> [usize; 3] {
    match *values {
        [a] => [fill, a, fill],
        [a, b] => [fill, a, b],
        [a, b, c] => [a, b, c],
        _ => [fill; 3],
    }
}

/// `[batch, *spatial, channels]` with so many of the three spatial modes.
pub(crate) fn image_shape(modes: usize, batch: usize, spatial: [usize; 3], channels: usize) -> Vec<usize> {
    let spatial = match modes {
        1 => &spatial[1..2],
        2 => &spatial[1..],
        _ => &spatial[..],
    };
    [&[batch], spatial, &[channels]].concat()
}

/// The number of spatial modes of an image.
pub(crate) fn spatial_modes(operation: &'static str, input: &[usize]) -> Result<usize> {
    match input.len().checked_sub(2) {
        Some(modes @ 1..=3) if input[modes + 1] > 0 => Ok(modes),
        Some(1..=3) => Err(Error::shape(operation, format!("an image of shape {input:?} has no channels"))),
        _ => {
            let message = format!(
                "an image is [batch, *spatial, channels] with one to three spatial modes, and shape {input:?} has {} modes",
                input.len()
            );
            Err(Error::shape(operation, message))
        }
    }
}

pub(super) fn check_weight(operation: &'static str, input: &[usize], weight: &[usize], right: &str) -> Result<()> {
    if weight.len() != input.len() {
        let message = format!(
            "a weight of shape {weight:?} has {} modes, and for an image of shape {input:?} it is {right} with {}",
            weight.len(),
            input.len()
        );
        return Err(Error::shape(operation, message));
    }
    if weight.contains(&0) {
        return Err(Error::shape(operation, format!("a weight of shape {weight:?} has no entries")));
    }
    Ok(())
}

pub(super) fn check_groups(operation: &'static str, groups: usize, c_in: usize, c_out: usize) -> Result<()> {
    if groups == 0 || !c_in.is_multiple_of(groups) || !c_out.is_multiple_of(groups) {
        let message = format!("{groups} groups do not divide {c_in} input channels and {c_out} output channels");
        return Err(Error::new(ErrorKind::Value, operation, message));
    }
    Ok(())
}

pub(super) fn positive(operation: &'static str, name: &str, values: Vec<usize>) -> Result<Vec<usize>> {
    if values.contains(&0) {
        let message = format!("{name} {values:?} has a 0; the smallest is 1");
        return Err(Error::new(ErrorKind::Value, operation, message));
    }
    Ok(values)
}

pub(super) fn windows(
    operation: &'static str,
    mode: usize,
    size: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    (before, after): (usize, usize),
) -> Result<usize> {
    let (reach, padded) = (dilation * (kernel - 1) + 1, size + before + after);
    if reach > padded || size == 0 {
        let message = format!(
            "a kernel of size {kernel} with dilation {dilation} spans {reach} entries of spatial mode {mode}, which has {size} and \
             {padded} with its padding; pad by {} more or take a smaller kernel",
            reach.saturating_sub(padded)
        );
        return Err(Error::shape(operation, message));
    }
    Ok((padded - reach) / stride + 1)
}

/// An error where a padding asks for more than the image has.
pub(crate) fn check_padding_mode(
    operation: &'static str,
    how: PaddingMode,
    mode: usize,
    size: usize,
    (before, after): (usize, usize),
) -> Result<()> {
    let most = match how {
        PaddingMode::Zeros => return Ok(()),
        PaddingMode::Replicate if size > 0 => return Ok(()),
        PaddingMode::Replicate => 0,
        PaddingMode::Reflect => size.max(1) - 1,
        PaddingMode::Circular => size,
    };
    if before.max(after) > most {
        let message = format!(
            "{how:?} padding adds at most {most} entries to a side of spatial mode {mode}, which has {size}; ({before}, {after}) were \
             asked for"
        );
        return Err(Error::new(ErrorKind::Value, operation, message));
    }
    Ok(())
}
