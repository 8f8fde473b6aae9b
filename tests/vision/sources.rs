//! Sources for the other tests.

use image::{DynamicImage, RgbImage};
use std::{path::Path, sync::Arc};
use tenfold::{
    Tensor, TensorFile,
    models::ImageInput,
    vision::{ImageSource, PackedImages},
};

/// Values as they are, but for the division by 255.
pub const PLAIN: ImageInput = ImageInput { side: 8, mean: [0.0; 3], deviation: [1.0; 3] };

/// `n` images of `side` x `side`, of two classes in turn, no two alike.
pub fn packed(n: usize, side: usize) -> TensorFile {
    let pixels = Tensor::from_fn([n, side, side, 3], |i| {
        let bright = if i[0] % 2 == 0 { 30 } else { 150 };
        (bright + (7 * i[0] + 5 * i[1] + 3 * i[2] * i[2] + 11 * i[3]) % 90) as u8
    });
    let labels = Tensor::from_fn([n], |i| (i[0] % 2) as u8);
    let file = TensorFile::new().with("images_u8_nhwc", &pixels.unwrap()).unwrap();
    file.with("labels_u8", &labels.unwrap()).unwrap().with_metadata("classes", "dark,bright")
}

pub fn source(n: usize, side: usize) -> Arc<dyn ImageSource> {
    Arc::new(PackedImages::from_bytes(packed(n, side).to_bytes().unwrap()).unwrap())
}

/// Pixel (x, y) is (x, y, x + y) times some.
pub fn gradient(columns: u32, rows: u32) -> RgbImage {
    RgbImage::from_fn(columns, rows, |x, y| image::Rgb([20 * x as u8, 30 * y as u8, 10 * (x + y) as u8]))
}

/// Writes a file in the format of its ending.
pub fn write(path: impl AsRef<Path>, image: impl Into<DynamicImage>) {
    std::fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    image.into().save(path).unwrap();
}
