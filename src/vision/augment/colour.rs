//! What works on colours: brightness, contrast, saturation, sharpness, posterize, a stretch of contrast.
//!
//! Each is PIL's `ImageEnhance` or `ImageOps`: an image $d$ without the property, and $d + f (x - d)$ with a factor f that is 1 for no
//! change.

use image::{Rgb, RgbImage};

/// Towards black, or away from it.
pub(super) fn brightness(image: RgbImage, factor: f64) -> RgbImage {
    blended(image, factor, |_, _, _| [0.0; 3])
}

/// Towards the mean of the image's grey, or away from it.
pub(super) fn contrast(image: RgbImage, factor: f64) -> RgbImage {
    let sum: f64 = image.pixels().map(|pixel| grey(pixel).round()).sum();
    let mean = (sum / f64::from(image.width()) / f64::from(image.height())).round();
    blended(image, factor, |_, _, _| [mean; 3])
}

/// Towards grey, or away from it.
pub(super) fn saturation(image: RgbImage, factor: f64) -> RgbImage {
    blended(image, factor, |image, x, y| [grey(image.get_pixel(x, y)).round(); 3])
}

/// Towards the weighted mean of the 3 x 3 pixels around, 5 of 13 parts the pixel itself, or away from it. The border stays.
pub(super) fn sharpness(image: RgbImage, factor: f64) -> RgbImage {
    blended(image, factor, |image, x, y| {
        let Rgb(own) = image.get_pixel(x, y).0.map(f64::from).into();
        if x == 0 || y == 0 || x + 1 == image.width() || y + 1 == image.height() {
            return own;
        }
        let mut sum = own.map(|value| 4.0 * value);
        for (x, y) in (y - 1..=y + 1).flat_map(|y| (x - 1..=x + 1).map(move |x| (x, y))) {
            sum.iter_mut().zip(image.get_pixel(x, y).0).for_each(|(sum, value)| *sum += f64::from(value));
        }
        sum.map(|sum| (sum / 13.0).round())
    })
}

/// Only the `bits` highest bits of each value.
pub(super) fn posterize(mut image: RgbImage, bits: u32) -> RgbImage {
    let mask = !(0xff_u8.checked_shr(bits).unwrap_or(0));
    image.iter_mut().for_each(|value| *value &= mask);
    image
}

/// Each channel stretched to all values from 0 to 255; a channel of one value stays.
pub(super) fn autocontrast(mut image: RgbImage) -> RgbImage {
    for channel in 0..3 {
        let values = || image.pixels().map(|pixel| pixel.0[channel]);
        let (low, high) = (values().min().unwrap_or(0), values().max().unwrap_or(255));
        if low < high {
            let factor = 255.0 / f64::from(high - low);
            image.pixels_mut().for_each(|pixel| {
                pixel.0[channel] = (f64::from(pixel.0[channel] - low) * factor).round() as u8;
            });
        }
    }
    image
}

/// d + f (x - d) for each pixel, d a function of the image and the place.
fn blended(image: RgbImage, factor: f64, without: impl Fn(&RgbImage, u32, u32) -> [f64; 3]) -> RgbImage {
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let (Rgb(pixel), degenerate) = (image.get_pixel(x, y), without(&image, x, y));
        Rgb(std::array::from_fn(|c| {
            (degenerate[c] + factor * (f64::from(pixel[c]) - degenerate[c])).round().clamp(0.0, 255.0) as u8
        }))
    })
}

/// The luma of ITU-R 601, as PIL has it.
fn grey(Rgb([red, green, blue]): &Rgb<u8>) -> f64 {
    0.299 * f64::from(*red) + 0.587 * f64::from(*green) + 0.114 * f64::from(*blue)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(first: [u8; 3], second: [u8; 3]) -> RgbImage {
        RgbImage::from_raw(2, 1, [first, second].concat()).unwrap()
    }

    #[test]
    fn by_hand() {
        let x = || two([100, 50, 0], [200, 200, 200]);
        assert_eq!(brightness(x(), 1.5), two([150, 75, 0], [255; 3]));
        // Grey of the first is 59.25, rounded 59; the mean of 59 and 200, rounded, is 130.
        assert_eq!(contrast(x(), 0.5), two([115, 90, 65], [165; 3]));
        assert_eq!(saturation(x(), 0.0), two([59; 3], [200; 3]));
        assert_eq!(posterize(x(), 2), two([64, 0, 0], [192; 3]));
        assert_eq!(posterize(x(), 8), x());
        assert_eq!(autocontrast(two([50, 7, 0], [100, 7, 255])), two([0, 7, 0], [255, 7, 255]));
        let one = |image: RgbImage| image == x();
        assert!(
            [brightness(x(), 1.0), contrast(x(), 1.0), saturation(x(), 1.0), sharpness(x(), 1.0)].into_iter().all(one)
        );
    }

    #[test]
    fn sharpness_moves_away_from_the_mean_around() {
        let mut x = RgbImage::from_pixel(3, 3, Rgb([100; 3]));
        x.put_pixel(1, 1, Rgb([230; 3]));
        // The mean around is (8 * 100 + 5 * 230) / 13 = 150.
        assert_eq!(sharpness(x.clone(), 0.0).get_pixel(1, 1), &Rgb([150; 3]));
        assert_eq!(sharpness(x.clone(), 0.0).get_pixel(0, 0), &Rgb([100; 3]));
        assert_eq!(sharpness(x, 1.25).get_pixel(1, 1), &Rgb([250; 3]));
    }
}
