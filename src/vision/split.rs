//! [`split`]: parts of a source, by blocks.

use super::{ImageSource, source::check_index};
use crate::error::{Error, ErrorKind, Result};
use image::RgbImage;
use std::sync::Arc;

const NAME: &str = "vision::split";

/// How a source is split: the images of each class, in their order, are cut into `blocks` runs, and the last images of each run are
/// kept for the parts.
///
/// Neighbours in a folder often show neighbouring places, or the same scene a second later. A split at random puts such twins on both
/// sides, and the accuracy that it measures is that of remembering. Whole blocks have only their borders in common. One block keeps
/// the ends of classes; more blocks make the parts more alike, where the order within a class is one of kinds.
///
/// ```
/// use std::sync::Arc;
/// use tenfold::{Tensor, TensorFile, vision::{ImageSource, PackedImages, Split, split}};
///
/// let file = TensorFile::new()
///     .with("images_u8_nhwc", &Tensor::from_fn([10, 1, 1, 3], |i| i[0] as u8)?)?
///     .with("labels_u8", &Tensor::<u8, _>::zeros([10])?)?;
/// let source = Arc::new(PackedImages::from_bytes(file.to_bytes()?)?);
/// let numbers = |part: &dyn ImageSource| -> tenfold::Result<Vec<u8>> {
///     (0..part.len()).map(|i| Ok(part.image(i)?.as_raw()[0])).collect()
/// };
/// let parts = split(source, &Split { blocks: 2, shares: vec![0.2, 0.2] })?;
/// assert_eq!(numbers(&parts[0])?, [0, 1, 2, 5, 6, 7]); // to train
/// assert_eq!(numbers(&parts[1])?, [3, 8]);
/// assert_eq!(numbers(&parts[2])?, [4, 9]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// Into how many runs the images of a class are cut; 4 by default.
    pub blocks: usize,
    /// The share of each part that is kept, between 0 and 1.
    pub shares: Vec<f64>,
}

impl Default for Split {
    fn default() -> Self {
        Self { blocks: 4, shares: Vec::new() }
    }
}

impl Split {
    /// Keeps these shares.
    pub fn keep(self, shares: impl Into<Vec<f64>>) -> Self {
        Self { shares: shares.into(), ..self }
    }
}

/// Some images of a source. Made by [`split`].
#[derive(Clone)]
pub struct Subset {
    source: Arc<dyn ImageSource>,
    indices: Vec<usize>,
}

/// The parts of a source: what is left to train on, then one part for each share. Every image is in exactly one.
///
/// # Errors
/// [`ErrorKind::Value`] for no blocks, shares that are not between 0 and 1 or leave nothing, and where a class has too few images to be
/// in every part, with its name.
pub fn split(source: Arc<dyn ImageSource>, how: &Split) -> Result<Vec<Subset>> {
    let wrong = |message: String| Err(Error::new(ErrorKind::Value, NAME, message));
    let Split { blocks, shares } = how;
    if *blocks == 0 || shares.iter().any(|share| !(*share > 0.0 && *share < 1.0)) || shares.iter().sum::<f64>() >= 1.0 {
        return wrong(format!(
            "shares {shares:?} of {blocks} blocks; needs shares above 0 whose sum is below 1, and at least one block"
        ));
    }
    let mut parts = vec![Vec::new(); 1 + shares.len()];
    for (label, class) in source.classes().iter().enumerate() {
        let rows: Vec<usize> = (0..source.len()).filter(|&i| source.label(i) as usize == label).collect();
        let blocks = (*blocks).min(rows.len());
        let before: Vec<usize> = parts.iter().map(Vec::len).collect();
        for block in 0..blocks {
            share_out(&rows[block * rows.len() / blocks..(block + 1) * rows.len() / blocks], shares, &mut parts);
        }
        if !rows.is_empty() && parts.iter().zip(before).any(|(part, before)| part.len() == before) {
            return wrong(format!(
                "{}: class {class} has {} images, too few for {} parts in {blocks} blocks",
                source.name(),
                rows.len(),
                parts.len()
            ));
        }
    }
    for part in &mut parts {
        part.sort_unstable();
    }
    Ok(parts.into_iter().map(|indices| Subset { source: source.clone(), indices }).collect())
}

/// The images of a run to the parts, the first part first.
fn share_out(run: &[usize], shares: &[f64], parts: &mut [Vec<usize>]) {
    let mut end = run.len();
    for (part, share) in parts[1..].iter_mut().zip(shares).rev() {
        let start = end - ((share * run.len() as f64).round() as usize).min(end);
        part.extend(&run[start..end]);
        end = start;
    }
    parts[0].extend(&run[..end]);
}

impl ImageSource for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn classes(&self) -> &[String] {
        self.source.classes()
    }

    fn label(&self, index: usize) -> u32 {
        self.source.label(self.indices[index])
    }

    fn image(&self, index: usize) -> Result<RgbImage> {
        check_index("Subset", index, self.len())?;
        self.source.image(self.indices[index])
    }

    fn side(&self) -> Option<usize> {
        self.source.side()
    }

    fn name(&self) -> String {
        self.source.name()
    }
}

impl std::fmt::Debug for Subset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of the {} images of {}", self.indices.len(), self.source.len(), self.source.name())
    }
}
