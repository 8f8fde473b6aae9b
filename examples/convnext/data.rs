//! Which images, and what is done to them.

use clap::Args;
use serde_json::{Value, json};
use std::{path::PathBuf, sync::Arc};
use tenfold::{
    Result,
    models::ImageInput,
    train::Dataset,
    vision::{self, Augment, ImageSource, Images, Split, Subset, check_same_classes, split},
};

/// Images to train on, to choose by, and to test on.
#[derive(Args)]
#[command(next_help_heading = "Images")]
pub struct DataArguments {
    /// Images to train on: a folder with one sub-folder a class, or a packed .safetensors file.
    #[arg(long)]
    pub train: PathBuf,
    /// Images that decide which epoch was the best. Without them a part of --train is kept for it: the last images of each of some blocks of
    /// every class, since neighbouring files often show neighbouring places.
    #[arg(long)]
    pub valid: Option<PathBuf>,
    /// Images that nothing is decided by, for the final accuracy.
    #[arg(long)]
    pub test: Option<PathBuf>,
    /// Without --valid: the share of --train that is kept for validation.
    #[arg(long, default_value_t = 0.2)]
    pub valid_part: f64,
    /// Without --test: keep this share of --train for the test as well.
    #[arg(long, conflicts_with = "test")]
    pub test_part: Option<f64>,
    /// Into how many blocks the images of a class are cut, of each of which a part is kept.
    #[arg(long, default_value_t = 4)]
    pub blocks: usize,
    /// The side that images are brought to, in pixels [default: that of the published weights; of packed images, their own].
    #[arg(long)]
    pub pixels: Option<usize>,
    /// Mirror every other training image, left to right.
    #[arg(long)]
    pub flip: bool,
    /// Move training images by up to so many pixels.
    #[arg(long, default_value_t = 0)]
    pub crop: u32,
    /// Train on parts of the images, of at least this share of their area.
    #[arg(long)]
    pub resized_crop: Option<f64>,
    /// RandAugment: so many operations for each training image.
    #[arg(long, default_value_t = 0)]
    pub rand_augment: usize,
    /// How strong they are, 0 to 1.
    #[arg(long, default_value_t = 0.3)]
    pub magnitude: f64,
    /// Mix training images in pairs, with shares from the beta distribution of this parameter.
    #[arg(long)]
    pub mixup: Option<f64>,
}

/// Images as a network takes them.
pub struct Data {
    pub train: Images,
    pub valid: Images,
    pub test: Option<Images>,
    pub classes: Vec<String>,
    pub pixels: usize,
}

impl DataArguments {
    /// Opens everything.
    pub fn open(&self, input: ImageInput) -> Result<Data> {
        let augment = self.augment();
        augment.check()?;
        let all = vision::open(&self.train)?;
        let other = |path: &Option<PathBuf>| -> Result<Option<Arc<dyn ImageSource>>> {
            let Some(path) = path else { return Ok(None) };
            let source = vision::open(path)?;
            check_same_classes(&*all, &*source)?;
            Ok(Some(source))
        };
        let (valid, test) = (other(&self.valid)?, other(&self.test)?);
        let pixels = self.pixels.or(all.side()).unwrap_or(input.side);
        let classes = all.classes().to_vec();
        let kept = [self.valid_part].into_iter().filter(|_| valid.is_none()).chain(self.test_part);
        let how = Split { blocks: self.blocks, shares: kept.collect() };
        let mut parts = split(all, &how)?.into_iter().map(|part: Subset| Arc::new(part) as Arc<dyn ImageSource>);
        let images = |source: Option<Arc<dyn ImageSource>>| -> Result<Option<Images>> {
            source.map(|source| Images::new(source, input, pixels)).transpose()
        };
        let train = images(parts.next())?;
        let valid = images(valid.or_else(|| parts.next()))?;
        let test = images(test.or_else(|| parts.next()))?;
        let (Some(train), Some(valid)) = (train, valid) else { unreachable!("there is a part for each") };
        Ok(Data { train: train.augment(augment), valid, test, classes, pixels })
    }

    fn augment(&self) -> Augment {
        let mut augment = Augment::new().padded_crop(self.crop);
        if self.flip {
            augment = augment.flip();
        }
        if let Some(least) = self.resized_crop {
            augment = augment.resized_crop(least);
        }
        if self.rand_augment > 0 {
            augment = augment.rand_augment(self.rand_augment, self.magnitude);
        }
        match self.mixup {
            Some(alpha) => augment.mixup(alpha),
            None => augment,
        }
    }
}

impl Data {
    /// What decides about the pixels that a run sees, beside its seed.
    pub fn settings(&self, arguments: &DataArguments) -> Value {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        json!({
            "train": arguments.train.display().to_string(),
            "valid": path(&arguments.valid),
            "images": [self.train.len(), self.valid.len()],
            "pixels": self.pixels,
            "augment": arguments.augment(),
        })
    }
}

impl std::fmt::Display for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let test = self.test.as_ref().map_or(String::new(), |test| format!(", {} to test", test.len()));
        write!(
            f,
            "{} images of {} classes to train on, {} to choose by{test}; {} x {} pixels",
            self.train.len(),
            self.classes.len(),
            self.valid.len(),
            self.pixels,
            self.pixels
        )
    }
}
