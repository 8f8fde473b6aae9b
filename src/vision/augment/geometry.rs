//! Where pixels come from: parts, moves, rotation, shear.

use super::draw::Draw;
use image::{Rgb, RgbImage, imageops};

/// How often a part is drawn before the largest in the middle is taken.
const TRIES: usize = 10;

/// A part of at least `least` of the area, of sides between 3 : 4 and 4 : 3: `torchvision.transforms.RandomResizedCrop`.
pub(super) fn random_part(image: &RgbImage, least: f64, draw: &mut Draw) -> RgbImage {
    let (columns, rows) = image.dimensions();
    let ratios = (0.75f64, 4.0f64 / 3.0);
    for _ in 0..TRIES {
        let area = f64::from(columns) * f64::from(rows) * draw.between(least, 1.0);
        let ratio = draw.between(ratios.0.ln(), ratios.1.ln()).exp();
        let (width, height) = ((area * ratio).sqrt().round() as u32, (area / ratio).sqrt().round() as u32);
        if (1..=columns).contains(&width) && (1..=rows).contains(&height) {
            let (left, top) = (draw.whole(columns - width + 1), draw.whole(rows - height + 1));
            return imageops::crop_imm(image, left, top, width, height).to_image();
        }
    }
    let width = columns.min((f64::from(rows) * ratios.1).round().max(1.0) as u32);
    let height = rows.min((f64::from(columns) / ratios.0).round().max(1.0) as u32);
    imageops::crop_imm(image, (columns - width) / 2, (rows - height) / 2, width, height).to_image()
}

/// The image moved by whole pixels; black comes in.
pub(super) fn moved(image: &RgbImage, right: i64, down: i64) -> RgbImage {
    let mut result = RgbImage::new(image.width(), image.height());
    imageops::replace(&mut result, image, right, down);
    result
}

/// An affine map about the middle of the image: where the pixels of the result come from, as a matrix `[[a, b], [c, d]]` and a shift, in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Affine {
    pub(super) matrix: [[f64; 2]; 2],
    pub(super) shift: [f64; 2],
}

impl Affine {
    /// Against the clock for positive angles, as in PIL.
    pub(super) fn rotation(degrees: f64) -> Self {
        let (sin, cos) = degrees.to_radians().sin_cos();
        Self { matrix: [[cos, -sin], [sin, cos]], shift: [0.0; 2] }
    }

    /// Columns move by `x` for each row, rows by `y` for each column.
    pub(super) fn shear(x: f64, y: f64) -> Self {
        Self { matrix: [[1.0, x], [y, 1.0]], shift: [0.0; 2] }
    }

    pub(super) fn translation(right: f64, down: f64) -> Self {
        Self { matrix: [[1.0, 0.0], [0.0, 1.0]], shift: [-right, -down] }
    }

    /// Each pixel of the result is the weighted mean of the four around the place that it comes from; black outside.
    pub(super) fn apply(&self, image: &RgbImage) -> RgbImage {
        let (columns, rows) = image.dimensions();
        let middle = [f64::from(columns - 1) / 2.0, f64::from(rows - 1) / 2.0];
        let [[a, b], [c, d]] = self.matrix;
        RgbImage::from_fn(columns, rows, |x, y| {
            let (x, y) = (f64::from(x) - middle[0], f64::from(y) - middle[1]);
            let from = [a * x + b * y + self.shift[0] + middle[0], c * x + d * y + self.shift[1] + middle[1]];
            interpolated(image, from)
        })
    }
}

/// The colour at a place between pixels.
fn interpolated(image: &RgbImage, [x, y]: [f64; 2]) -> Rgb<u8> {
    let (left, top) = (x.floor(), y.floor());
    let (right_share, low_share) = (x - left, y - top);
    let mut sum = [0.0; 3];
    for (dy, row_share) in [(0.0, 1.0 - low_share), (1.0, low_share)] {
        for (dx, column_share) in [(0.0, 1.0 - right_share), (1.0, right_share)] {
            let (x, y, share) = (left + dx, top + dy, row_share * column_share);
            let inside = x >= 0.0 && y >= 0.0 && x < f64::from(image.width()) && y < f64::from(image.height());
            if inside && share > 0.0 {
                let Rgb(pixel) = image.get_pixel(x as u32, y as u32);
                sum.iter_mut().zip(pixel).for_each(|(sum, &value)| *sum += share * f64::from(value));
            }
        }
    }
    Rgb(sum.map(|value| value.round() as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pixel (x, y) is (10 x, 10 y, 100).
    fn image(columns: u32, rows: u32) -> RgbImage {
        RgbImage::from_fn(columns, rows, |x, y| Rgb([10 * x as u8, 10 * y as u8, 100]))
    }

    #[test]
    fn whole_moves_and_turns_are_exact() {
        let x = image(4, 4);
        let right = moved(&x, 1, -2);
        assert_eq!(
            (right.get_pixel(1, 0), right.get_pixel(0, 0), right.get_pixel(3, 2)),
            (&Rgb([0, 20, 100]), &Rgb([0; 3]), &Rgb([0; 3]))
        );
        assert_eq!(Affine::translation(1.0, -2.0).apply(&x), right);
        assert_eq!(Affine::rotation(0.0).apply(&x), x);
        assert_eq!(Affine::rotation(-90.0).apply(&x), imageops::rotate90(&x));
        assert_eq!(Affine::rotation(90.0).apply(&x), imageops::rotate270(&x));
    }

    #[test]
    fn shears_move_rows_by_their_distance_from_the_middle() {
        let x = image(5, 3);
        let sheared = Affine::shear(1.0, 0.0).apply(&x);
        for y in 0..3 {
            assert_eq!(sheared.get_pixel(2, y), &Rgb([10 * (1 + y as u8), 10 * y as u8, 100]));
        }
        let half = Affine::translation(0.5, 0.0).apply(&x);
        assert_eq!((half.get_pixel(2, 0), half.get_pixel(0, 0)), (&Rgb([15, 0, 100]), &Rgb([0, 0, 50])));
    }

    #[test]
    fn parts_are_of_the_area_and_sides_that_were_asked_for() {
        let x = image(20, 16);
        let mut sizes = std::collections::BTreeSet::new();
        for place in 0..200 {
            let part = random_part(&x, 0.3, &mut Draw::new(5, Some(place)));
            let (width, height) = part.dimensions();
            let (area, ratio) = (f64::from(width * height) / 320.0, f64::from(width) / f64::from(height));
            // Sides are whole pixels.
            assert!(area > 0.25 && (0.65..1.5).contains(&ratio), "{width} x {height}");
            // A part of the original: neighbours differ by 10.
            assert_eq!(part.get_pixel(1, 1).0[0] - part.get_pixel(0, 1).0[0], 10);
            sizes.insert(part.dimensions());
        }
        assert!(sizes.len() > 30, "{sizes:?}");
        // No part of a strip has such sides: the middle.
        assert_eq!(random_part(&image(20, 1), 1.0, &mut Draw::new(5, None)).dimensions(), (1, 1));
    }
}
