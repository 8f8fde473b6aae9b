//! [`PackedImages`]: all pixels in one safetensors file.

use super::{ImageSource, source::check_index};
use crate::{
    error::{ErrorKind, Result},
    tensor::{Origin, Tensor, TensorFile},
};
use image::RgbImage;
use ndarray::{Ix1, Ix4};
use std::path::{Path, PathBuf};

const NAME: &str = "PackedImages";

/// Images of one size in a safetensors file: `images_u8_nhwc` `[n, rows, columns, channels]` with 1 (grey), 2 (grey and alpha), 3 or 4 (alpha)
/// channels, `labels_u8` `[n]`, and, where classes have names, `classes` in the metadata, separated by commas.
///
/// The pixels are held as they are, in memory.
///
/// ```
/// use tenfold::{Tensor, TensorFile, vision::{ImageSource, PackedImages}};
///
/// let pixels = Tensor::from_vec([2, 1, 2, 1], vec![0u8, 50, 100, 150])?; // grey
/// let file = TensorFile::new().with("images_u8_nhwc", &pixels)?.with("labels_u8", &Tensor::from_vec([2], vec![1u8, 0])?)?;
/// let images = PackedImages::from_bytes(file.to_bytes()?)?;
/// assert_eq!((images.len(), images.label(0), images.classes()), (2, 1, &["0".to_string(), "1".into()][..]));
/// assert_eq!(images.image(1)?.as_raw(), &[100, 100, 100, 150, 150, 150]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PackedImages {
    pixels: Tensor<u8, Ix4>,
    labels: Vec<u8>,
    classes: Vec<String>,
    path: Option<PathBuf>,
}

impl PackedImages {
    /// Reads a file.
    ///
    /// # Errors
    /// Those of [`TensorFile::open`]; with the file's name, [`ErrorKind::Value`] where a tensor is missing or a label is none of the named
    /// classes (with its row), and [`ErrorKind::Shape`] where shapes do not fit or images have no pixels.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut images = Self::of(&Origin::file(NAME, path), &TensorFile::open(path)?)?;
        images.path = Some(path.to_path_buf());
        Ok(images)
    }

    /// Reads the bytes of such a file: images that are a part of the program.
    ///
    /// # Errors
    /// As [`open`](PackedImages::open), without the file's name.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        Self::of(&Origin::stream(NAME), &TensorFile::from_bytes(bytes)?)
    }

    fn of(origin: &Origin<'_>, file: &TensorFile) -> Result<Self> {
        for name in ["images_u8_nhwc", "labels_u8"] {
            if !file.contains(name) {
                let there: Vec<&str> = file.names().collect();
                let message = format!("there is no tensor {name:?} of packed images; there are {}", there.join(", "));
                return Err(origin.error(ErrorKind::Value, message));
            }
        }
        let (pixels, labels) = (file.shape("images_u8_nhwc")?, file.shape("labels_u8")?);
        let fits = matches!(pixels, [n, rows, columns, 1..=4] if labels == [*n] && *rows > 0 && *columns > 0);
        if !fits {
            let message = format!(
                "images_u8_nhwc of shape {pixels:?} and labels_u8 of shape {labels:?}; needs [n, rows, columns, 1 to 4] with at least one pixel, and [n]"
            );
            return Err(origin.error(ErrorKind::Shape, message));
        }
        let pixels = file.get::<u8, Ix4>("images_u8_nhwc")?;
        let labels = file.get::<u8, Ix1>("labels_u8")?.to_vec()?;
        let highest = labels.iter().copied().max().unwrap_or_default() as usize;
        let classes: Vec<String> = match file.metadata().get("classes") {
            Some(names) => names.split(',').map(|name| name.trim().to_string()).collect(),
            None => (0..=highest).map(|class| class.to_string()).collect(),
        };
        if let Some(row) = labels.iter().position(|&label| label as usize >= classes.len()) {
            let (label, count) = (labels[row], classes.len());
            let message =
                format!("label {label} of image {row} is none of the {count} classes ({})", classes.join(", "));
            return Err(origin.error(ErrorKind::Value, message));
        }
        Ok(Self { pixels, labels, classes, path: None })
    }
}

impl ImageSource for PackedImages {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> u32 {
        u32::from(self.labels[index])
    }

    fn image(&self, index: usize) -> Result<RgbImage> {
        let &[_, rows, columns, channels] = self.pixels.shape() else { unreachable!("it has four modes") };
        check_index(NAME, index, self.len())?;
        let size = rows * columns * channels;
        let all = self.pixels.as_slice().unwrap_or_default();
        let pixels = &all[index * size..(index + 1) * size];
        let rgb = match channels {
            1 | 2 => pixels.chunks(channels).flat_map(|pixel| [pixel[0]; 3]).collect(),
            3 => pixels.to_vec(),
            _ => pixels.chunks(channels).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        };
        let image = RgbImage::from_raw(columns as u32, rows as u32, rgb);
        image.ok_or_else(|| Origin::stream(NAME).error(ErrorKind::Shape, "an image without its pixels"))
    }

    fn side(&self) -> Option<usize> {
        let &[_, rows, columns, _] = self.pixels.shape() else { return None };
        (rows == columns).then_some(rows)
    }

    fn name(&self) -> String {
        self.path.as_ref().map_or("packed images".to_string(), |path| path.display().to_string())
    }
}
