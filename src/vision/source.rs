//! [`ImageSource`]: images with labels, one by one.

use super::{ImageFolder, PackedImages};
use crate::error::{Error, ErrorKind, Result};
use image::RgbImage;
use std::{path::Path, sync::Arc};

/// Images with labels, wherever they lie. It is shared with the threads that decode.
pub trait ImageSource: Send + Sync {
    /// The number of images.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the classes, in the order of labels.
    fn classes(&self) -> &[String];

    /// The label of an image: below the number of classes.
    fn label(&self, index: usize) -> u32;

    /// An image, decoded; it has at least one pixel.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where a file cannot be read, [`ErrorKind::Format`] where it is no image or has no pixels; both with the
    /// file's name. [`ErrorKind::Shape`] where there are fewer images.
    fn image(&self, index: usize) -> Result<RgbImage>;

    /// The side of the images, where all are squares of one size and that is known without decoding them.
    fn side(&self) -> Option<usize> {
        None
    }

    /// What errors call it: its path.
    fn name(&self) -> String;
}

/// An error for an image that is not among `count`.
pub(super) fn check_index(operation: &'static str, index: usize, count: usize) -> Result<()> {
    match index < count {
        true => Ok(()),
        false => Err(Error::shape(operation, format!("image {index} of {count}"))),
    }
}

/// The images at a path: a folder with one sub-folder a class, or a packed `.safetensors` file.
///
/// # Errors
/// Those of [`ImageFolder::open`] and [`PackedImages::open`]; [`ErrorKind::Io`] where there is nothing.
pub fn open(path: impl AsRef<Path>) -> Result<Arc<dyn ImageSource>> {
    let path = path.as_ref();
    if path.is_dir() {
        return Ok(Arc::new(ImageFolder::open(path)?));
    }
    if !path.exists() {
        let message = format!(
            "{}: there is no such file or folder; needs a folder with one sub-folder a class, or a packed .safetensors file",
            path.display()
        );
        return Err(Error::new(ErrorKind::Io, "vision::open", message));
    }
    Ok(Arc::new(PackedImages::open(path)?))
}

/// An error unless two sources have the same classes in the same order, so that their labels mean the same.
///
/// # Errors
/// [`ErrorKind::Value`], with both lists.
pub fn check_same_classes(one: &dyn ImageSource, other: &dyn ImageSource) -> Result<()> {
    if one.classes() == other.classes() {
        return Ok(());
    }
    let listed = |source: &dyn ImageSource| format!("{} ({})", source.name(), source.classes().join(", "));
    let message = format!(
        "the classes of {} are not those of {}; needs the same names in the same order (a folder may be empty)",
        listed(other),
        listed(one)
    );
    Err(Error::new(ErrorKind::Value, "vision", message))
}
