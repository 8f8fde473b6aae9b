//! [`RandAugment`]: some operations in a row.

use super::{
    colour::{autocontrast, brightness, contrast, posterize, saturation, sharpness},
    draw::Draw,
    geometry::Affine,
};
use image::RgbImage;
use serde::Serialize;

/// How many operations, and how strong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct RandAugment {
    pub(super) operations: usize,
    /// Of the strongest, 0 to 1.
    pub(super) magnitude: f64,
}

/// The number of operations to choose from.
const OPERATIONS: u32 = 12;

impl RandAugment {
    pub(super) fn apply(self, image: RgbImage, draw: &mut Draw) -> RgbImage {
        (0..self.operations).fold(image, |image, _| {
            let (operation, sign) = (draw.whole(OPERATIONS), if draw.chance(0.5) { 1.0 } else { -1.0 });
            self.operation(image, operation, sign)
        })
    }

    /// Operation number `operation` in the direction of `sign`. The strongest of each are torchvision's.
    fn operation(self, image: RgbImage, operation: u32, sign: f64) -> RgbImage {
        let strong = |strongest: f64| sign * self.magnitude * strongest;
        let factor = 1.0 + strong(0.9);
        let (width, height) = (f64::from(image.width()), f64::from(image.height()));
        match operation {
            0 => Affine::rotation(strong(30.0)).apply(&image),
            1 => Affine::shear(strong(0.3), 0.0).apply(&image),
            2 => Affine::shear(0.0, strong(0.3)).apply(&image),
            3 => Affine::translation(strong(150.0 / 331.0) * width, 0.0).apply(&image),
            4 => Affine::translation(0.0, strong(150.0 / 331.0) * height).apply(&image),
            5 => brightness(image, factor),
            6 => contrast(image, factor),
            7 => saturation(image, factor),
            8 => sharpness(image, factor),
            9 => posterize(image, 8 - (4.0 * self.magnitude).round() as u32),
            10 => autocontrast(image),
            _ => image,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn every_operation_changes_the_image_but_the_last_and_none_at_magnitude_0() {
        let image = RgbImage::from_fn(9, 9, |x, y| Rgb([20 + 20 * x as u8, 30 + 20 * (y * x % 8) as u8, 77]));
        for operation in 0..OPERATIONS {
            for sign in [1.0, -1.0] {
                let at = |magnitude| RandAugment { operations: 1, magnitude }.operation(image.clone(), operation, sign);
                assert_eq!(at(0.5) != image, operation != 11, "{operation}");
                // A stretch of contrast has no strength.
                assert_eq!(at(0.0) == image, operation != 10, "{operation}");
            }
        }
    }
}
