//! [`Augment`]: changes at random, so that a network does not learn what should not matter.
//!
//! `draw.rs` has the random numbers, `geometry.rs` crops and the affine maps, `colour.rs` what works pixel by pixel, `rand_augment.rs` the
//! choice among these.

mod colour;
mod draw;
mod geometry;
mod rand_augment;

pub(super) use draw::Draw;

use super::resize::{fitted, resized};
use crate::error::{Error, ErrorKind, Result};
use image::RgbImage;
use rand_augment::RandAugment;
use serde::Serialize;

/// The most pixels that an image moves by: as many as the largest has.
const MOST: u32 = 1 << 16;

/// What is done to a training image at random, in this order:
///
/// ```text
/// to the model's size     a random part of it (resized_crop), or the middle; then moved by some pixels (padded_crop)
/// mirrored                with probability 1/2 (flip)
/// some operations         rotate, shear, move; brightness, contrast, colour, sharpness, .. (rand_augment)
/// normalised
/// mixed with another      with one weight for the whole batch (mixup)
/// ```
///
/// Nothing is done that was not asked for. Everything follows from the batch's seed and the image's place in the batch.
///
/// ```
/// use tenfold::vision::Augment;
///
/// // What small photographs usually get; aerial ones have no upright, so they may be turned further.
/// let augment = Augment::new().flip().padded_crop(4).rand_augment(2, 0.3).mixup(0.2);
/// augment.check()?;
/// assert!(Augment::new().rand_augment(2, 1.5).check().unwrap_err().message().contains("magnitude 1.5"));
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Augment {
    flip: bool,
    padded_crop: u32,
    resized_crop: Option<f64>,
    rand_augment: Option<RandAugment>,
    mixup: Option<f64>,
}

impl Augment {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Mirrors every other image, left to right.
    pub fn flip(self) -> Self {
        Self { flip: true, ..self }
    }

    /// Moves images by up to so many pixels in each direction; what comes in from outside is black. The crop of CIFAR: 4 of 32.
    pub fn padded_crop(self, pixels: u32) -> Self {
        Self { padded_crop: pixels, ..self }
    }

    /// Takes a part of the image, of at least this share of its area and of sides between 3 : 4 and 4 : 3, and brings it to the
    /// model's size. ImageNet's crop has 0.08 for training from the start; 0.5 is milder.
    pub fn resized_crop(self, least: f64) -> Self {
        Self { resized_crop: Some(least), ..self }
    }

    /// So many operations in a row, each drawn from rotate, shear x and y, move x and y, brightness, contrast, colour, sharpness, posterize,
    /// stretch of contrast, and none; in a random direction, as strong as this share, 0 to 1, of the strongest that torchvision has.
    /// The usual one, 2 operations of magnitude 9 of 30, is (2, 0.3).
    ///
    /// E. D. Cubuk et al., *RandAugment: Practical automated data augmentation with a reduced search space*, NeurIPS 2020. Solarize
    /// and equalize, which leave few photographs recognisable at small sizes, are left out.
    pub fn rand_augment(self, operations: usize, magnitude: f64) -> Self {
        Self { rand_augment: Some(RandAugment { operations, magnitude }), ..self }
    }

    /// Mixes every image with its neighbour in the batch, $\lambda x_i + (1 - \lambda) x_{i+1}$, and their losses alike, with
    /// $\lambda$ from the beta distribution of (`alpha`, `alpha`), one for a batch.
    ///
    /// H. Zhang et al., *mixup: Beyond empirical risk minimization*, ICLR 2018.
    pub fn mixup(self, alpha: f64) -> Self {
        Self { mixup: Some(alpha), ..self }
    }

    /// Whether the settings make sense. With those that do not no batch is made either.
    ///
    /// # Errors
    /// [`ErrorKind::Value`], with the setting that does not.
    pub fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::new(ErrorKind::Value, "Augment", message));
        if let Some(least) = self.resized_crop.filter(|least| !(*least > 0.0 && *least <= 1.0)) {
            return wrong(format!("resized_crop to {least} of the area; needs above 0, at most 1"));
        }
        if self.padded_crop > MOST {
            return wrong(format!("padded_crop by {} pixels; needs at most {MOST}", self.padded_crop));
        }
        if let Some(RandAugment { magnitude, .. }) = self.rand_augment
            && !(0.0..=1.0).contains(&magnitude)
        {
            return wrong(format!("rand_augment of magnitude {magnitude}; needs 0 to 1"));
        }
        if let Some(alpha) = self.mixup.filter(|alpha| !(*alpha > 0.0 && alpha.is_finite())) {
            return wrong(format!("mixup of alpha {alpha}; needs above 0"));
        }
        Ok(())
    }

    /// An image of `side` x `side` pixels made of one of any size.
    pub(super) fn apply(&self, image: RgbImage, side: u32, draw: &mut Draw) -> RgbImage {
        let mut image = match self.resized_crop {
            Some(least) => resized(&geometry::random_part(&image, least, draw), side, side),
            None => fitted(image, side),
        };
        if self.padded_crop > 0 {
            let by = |draw: &mut Draw| i64::from(draw.whole(2 * self.padded_crop + 1)) - i64::from(self.padded_crop);
            let (right, down) = (by(draw), by(draw));
            image = geometry::moved(&image, right, down);
        }
        if self.flip && draw.chance(0.5) {
            image::imageops::flip_horizontal_in_place(&mut image);
        }
        match self.rand_augment {
            Some(operations) => operations.apply(image, draw),
            None => image,
        }
    }

    /// How much of each image is left in a batch, where they are mixed.
    pub(super) fn mixing(&self, draw: &mut Draw) -> Option<f32> {
        self.mixup.map(|alpha| draw.beta(alpha) as f32)
    }
}
