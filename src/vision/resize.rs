//! Images of another size.

use image::{
    RgbImage,
    imageops::{self, FilterType},
};

/// An image of `columns` x `rows` pixels. The filter is a triangle, as wide as an image is reduced: bilinear where images grow, and
/// means of all pixels where they shrink, as PIL's `BILINEAR`.
pub(super) fn resized(image: &RgbImage, columns: u32, rows: u32) -> RgbImage {
    imageops::resize(image, columns, rows, FilterType::Triangle)
}

/// The shorter side brought to `side`, and of the longer one the middle.
pub(super) fn fitted(image: RgbImage, side: u32) -> RgbImage {
    let (columns, rows) = image.dimensions();
    if (columns, rows) == (side, side) {
        return image;
    }
    let shorter = columns.min(rows);
    let (left, top) = ((columns - shorter) / 2, (rows - shorter) / 2);
    // Cropping first: what is cut off need not be resized.
    resized(&imageops::crop_imm(&image, left, top, shorter, shorter).to_image(), side, side)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn the_middle_at_another_size() {
        let wide = RgbImage::from_fn(6, 2, |x, _| Rgb([40 * x as u8; 3]));
        assert_eq!(fitted(wide.clone(), 2).as_raw()[..6], [80, 80, 80, 120, 120, 120]);
        // Two to four: a quarter of the way from the outer edges.
        let grown: Vec<u8> = fitted(wide.clone(), 4).pixels().take(4).map(|pixel| pixel.0[0]).collect();
        assert_eq!(grown, [80, 90, 110, 120]);
        assert_eq!(fitted(wide, 1).as_raw(), &[100; 3]);
        let tall = RgbImage::from_fn(1, 5, |_, y| Rgb([50 * y as u8; 3]));
        assert_eq!(fitted(tall, 1).as_raw(), &[100; 3]);
    }

    #[test]
    fn reducing_takes_all_pixels_into_account() {
        let stripes = RgbImage::from_fn(32, 32, |x, _| Rgb([if x % 2 == 0 { 0 } else { 200 }; 3]));
        assert!(fitted(stripes, 8).pixels().all(|pixel| pixel.0[0].abs_diff(100) <= 13));
    }
}
