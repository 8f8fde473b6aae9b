//! [`ImageFolder`]: image files, one sub-folder a class.

use super::{ImageSource, source::check_index};
use crate::{
    error::{Error, ErrorKind, Result},
    tensor::Origin,
};
use image::{ImageError, ImageReader, RgbImage};
use std::path::{Path, PathBuf};

const NAME: &str = "ImageFolder";

/// What the files of images end with.
const ENDINGS: [&str; 8] = ["bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp"];

/// The most memory that decoding one image may take: some 100 million pixels.
const MOST: u64 = 512 << 20;

/// A folder with one sub-folder a class, and image files in those: `train/cat/1.jpg`.
///
/// Classes are the sub-folders in the order of their names, as in `torchvision.datasets.ImageFolder`; an empty one is a class without
/// images. BMP, GIF, JPEG, PNG, TIFF and WebP are read, by what a file holds rather than by its ending; files with
/// other endings, and those whose names begin with a dot, are passed by.
#[derive(Debug, Clone)]
pub struct ImageFolder {
    path: PathBuf,
    classes: Vec<String>,
    files: Vec<(PathBuf, u32)>,
}

impl ImageFolder {
    /// Lists a folder. No image is opened yet.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where it cannot be read; [`ErrorKind::Value`] where there are no sub-folders, or no images in them.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut classes = Vec::new();
        let mut files = Vec::new();
        for folder in entries(path)?.into_iter().filter(|entry| entry.is_dir()) {
            let label = classes.len() as u32;
            classes.push(name_of(&folder));
            files.extend(entries(&folder)?.into_iter().filter(|file| is_image(file)).map(|file| (file, label)));
        }
        if files.is_empty() {
            let message = format!(
                "there are {} sub-folders and no images in them; needs one sub-folder a class with files ending in {}",
                classes.len(),
                ENDINGS.join(", ")
            );
            return Err(Origin::file(NAME, path).error(ErrorKind::Value, message));
        }
        Ok(Self { path: path.to_path_buf(), classes, files })
    }

    /// The file of an image.
    pub fn file(&self, index: usize) -> &Path {
        &self.files[index].0
    }
}

/// What is in a folder and visible, sorted by name.
fn entries(path: &Path) -> Result<Vec<PathBuf>> {
    let origin = Origin::file(NAME, path);
    let mut all = std::fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>())
        .map_err(|e| origin.io(e))?;
    all.retain(|entry| !name_of(entry).starts_with('.'));
    all.sort();
    Ok(all)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_image(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    path.is_file() && ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

/// Reads an image file as RGB.
fn decode(path: &Path) -> Result<RgbImage> {
    let origin = Origin::file(NAME, path);
    let mut reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(|e| origin.io(e))?;
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MOST);
    reader.limits(limits);
    let image = reader.decode().map_err(|error| undecodable(&origin, error))?.into_rgb8();
    if image.width() == 0 || image.height() == 0 {
        return Err(origin.format(format!("an image of {} x {} pixels", image.width(), image.height())));
    }
    Ok(image)
}

fn undecodable(origin: &Origin<'_>, error: ImageError) -> Error {
    let kind = match &error {
        ImageError::IoError(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => ErrorKind::Io,
        ImageError::Limits(_) => ErrorKind::Memory,
        _ => ErrorKind::Format,
    };
    origin.error(kind, format!("no image that can be read: {error}")).with_source(error)
}

impl ImageSource for ImageFolder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> u32 {
        self.files[index].1
    }

    fn image(&self, index: usize) -> Result<RgbImage> {
        check_index(NAME, index, self.len())?;
        decode(&self.files[index].0)
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}
