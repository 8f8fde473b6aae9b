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

    /// The same for another number of classes.
    pub fn with_labels(mut self, labels: usize) -> Self {
        match &mut self {
            Self::ConvNext(config) => config.num_labels = labels,
            Self::CifarResNet(config) => config.num_labels = labels,
            Self::EfficientNetLite(config) => config.num_labels = labels,
        }
        self
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
