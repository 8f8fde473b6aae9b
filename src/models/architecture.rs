//! [`Architecture`]: which model, known only at run time.

use super::{
    CifarResNet, CifarResNetConfig, ConvNext, ConvNextConfig, EfficientNetLite, EfficientNetLiteConfig, ImageClassifier,
};
use crate::{
    error::{Error, ErrorKind, Result},
    nn::Checkpoint,
    scalar::Scalar,
};
use rand::Rng;
use std::path::Path;

/// What a model's weights expect of an image: values from 0 to 1, the mean taken off, divided by the deviation, for red, green and blue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageInput {
    /// The side of the images that the weights were trained on; other sizes work too.
    pub side: usize,
    /// Taken off.
    pub mean: [f64; 3],
    /// Divided by.
    pub deviation: [f64; 3],
}

/// ImageNet's mean and deviation.
const IMAGENET: ([f64; 3], [f64; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// One of the models here, with its sizes.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::models::Architecture;
///
/// let architecture = Architecture::named("resnet20")?.with_labels(7);
/// let model = architecture.build::<f32>(&mut ChaCha8Rng::seed_from_u64(1))?;
/// assert_eq!(model.labels(), 7);
///
/// let error = Architecture::named("resnet50").unwrap_err();
/// assert!(error.message().contains("there is no \"resnet50\""));
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Architecture {
    /// [`ConvNext`].
    ConvNext(ConvNextConfig),
    /// [`CifarResNet`].
    CifarResNet(CifarResNetConfig),
    /// [`EfficientNetLite`].
    EfficientNetLite(EfficientNetLiteConfig),
}

impl Architecture {
    /// By the names of [`ConvNextConfig::named`], [`CifarResNetConfig::named`] and [`EfficientNetLiteConfig::named`].
    ///
    /// # Errors
    /// [`ErrorKind::Value`] for another name, saying which there are.
    pub fn named(name: &str) -> Result<Self> {
        let plain = name.rsplit('/').next().unwrap_or(name);
        if plain.starts_with("convnext") {
            ConvNextConfig::named(name).map(Self::ConvNext)
        } else if plain.starts_with("resnet") {
            CifarResNetConfig::named(name).map(Self::CifarResNet)
        } else if plain.contains("efficientnet") {
            EfficientNetLiteConfig::named(name).map(Self::EfficientNetLite)
        } else {
            let message = format!(
                "there is no {name:?}; there are {}, resnet20, resnet32, .., efficientnet-lite0 to efficientnet-lite4",
                ConvNextConfig::names().join(", ")
            );
            Err(Error::new(ErrorKind::Value, "Architecture", message))
        }
    }

    /// By the names and shapes of a checkpoint's tensors.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where they are those of no model here, with what speaks against each.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        let no = [
            match ConvNextConfig::from_checkpoint(checkpoint) {
                Ok(config) => return Ok(Self::ConvNext(config)),
                Err(error) => error,
            },
            match CifarResNetConfig::from_checkpoint(checkpoint) {
                Ok(config) => return Ok(Self::CifarResNet(config)),
                Err(error) => error,
            },
            match EfficientNetLiteConfig::from_checkpoint(checkpoint) {
                Ok(config) => return Ok(Self::EfficientNetLite(config)),
                Err(error) => error,
            },
        ];
        let reasons: Vec<String> = no.iter().map(ToString::to_string).collect();
        Err(Error::new(ErrorKind::Value, "Architecture", format!("no model here: {}", reasons.join("; "))))
    }

    /// That of the model at a path, a `.safetensors` file or a folder with one, whose tensors these are: as
    /// [`from_checkpoint`](Architecture::from_checkpoint), but that Hugging Face's `config.json` counts where the folder has one.
    ///
    /// # Errors
    /// As [`from_checkpoint`](Architecture::from_checkpoint), and those of [`ConvNextConfig::from_json`].
    pub fn at(path: impl AsRef<Path>, checkpoint: &Checkpoint) -> Result<Self> {
        match Self::from_checkpoint(checkpoint)? {
            Self::ConvNext(_) => ConvNextConfig::at(path.as_ref(), checkpoint).map(Self::ConvNext),
            other => Ok(other),
        }
    }

    /// The same with what a name leaves open and a checkpoint says: the number of classes and, of a ConvNeXt, the side of its patches. A
    /// checkpoint of another architecture changes nothing; [`load`](Architecture::load) says what differs.
    pub fn sized_for(self, checkpoint: &Checkpoint) -> Self {
        match (self, Self::from_checkpoint(checkpoint)) {
            (Self::ConvNext(named), Ok(Self::ConvNext(found))) => {
                Self::ConvNext(ConvNextConfig { num_labels: found.num_labels, patch_size: found.patch_size, ..named })
            }
            (Self::CifarResNet(named), Ok(Self::CifarResNet(found))) => {
                Self::CifarResNet(CifarResNetConfig { num_labels: found.num_labels, ..named })
            }
            (Self::EfficientNetLite(named), Ok(Self::EfficientNetLite(found))) => {
                Self::EfficientNetLite(EfficientNetLiteConfig { num_labels: found.num_labels, ..named })
            }
            (named, _) => named,
        }
    }

    /// The same for another number of classes.
    pub fn with_labels(mut self, labels: usize) -> Self {
        match &mut self {
            Self::ConvNext(config) => {
                config.num_labels = labels;
                config.label_names.clear();
            }
            Self::CifarResNet(config) => config.num_labels = labels,
            Self::EfficientNetLite(config) => config.num_labels = labels,
        }
        self
    }

    /// What the published weights expect of an image.
    ///
    /// ```
    /// use tenfold::models::Architecture;
    ///
    /// let input = Architecture::named("efficientnet-lite0")?.input();
    /// assert_eq!((input.side, input.mean, input.deviation), (224, [0.5; 3], [0.5; 3]));
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    pub fn input(&self) -> ImageInput {
        let (side, (mean, deviation)) = match self {
            Self::ConvNext(_) => (224, IMAGENET),
            Self::CifarResNet(_) => (32, IMAGENET),
            // TensorFlow's weights; timm's own have ImageNet's.
            Self::EfficientNetLite(config) if config.same_padding => (config.side(), ([0.5; 3], [0.5; 3])),
            Self::EfficientNetLite(config) => (config.side(), IMAGENET),
        };
        ImageInput { side, mean, deviation }
    }

    /// A new model of it, with the start that its authors chose.
    ///
    /// # Errors
    /// Those of the models' `new`.
    pub fn build<T: Scalar>(&self, rng: &mut dyn Rng) -> Result<Box<dyn ImageClassifier<T>>> {
        Ok(match self.clone() {
            Self::ConvNext(config) => Box::new(ConvNext::new(config, rng)?),
            Self::CifarResNet(config) => Box::new(CifarResNet::new(config, rng)?),
            Self::EfficientNetLite(config) => Box::new(EfficientNetLite::new(config, rng)?),
        })
    }

    /// A model of it with weights of zero, to be loaded.
    ///
    /// # Errors
    /// Those of the models' `zeros`.
    pub fn zeros<T: Scalar>(&self) -> Result<Box<dyn ImageClassifier<T>>> {
        Ok(match self.clone() {
            Self::ConvNext(config) => Box::new(ConvNext::zeros(config)?),
            Self::CifarResNet(config) => Box::new(CifarResNet::zeros(config)?),
            Self::EfficientNetLite(config) => Box::new(EfficientNetLite::zeros(config)?),
        })
    }

    /// A model of it with the weights of a checkpoint.
    ///
    /// # Errors
    /// As [`ImageClassifier::load`].
    pub fn load<T: Scalar>(&self, checkpoint: &Checkpoint) -> Result<Box<dyn ImageClassifier<T>>> {
        let mut model = self.zeros()?;
        model.load(checkpoint)?;
        Ok(model)
    }
}
