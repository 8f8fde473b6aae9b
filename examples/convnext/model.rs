//! Which network.

use clap::Args;
use tenfold::{
    Error, ErrorKind, Result,
    hub::{self, IMAGE_MODEL},
    models::{Architecture, ImageClassifier},
    nn::Checkpoint,
};

/// A network with weights.
#[derive(Args)]
#[command(next_help_heading = "The network")]
pub struct ModelArguments {
    /// The weights: a .safetensors file, a folder with model.safetensors (and config.json), or a name on Hugging Face's hub such as
    /// facebook/convnextv2-tiny-22k-224 (downloaded in a build with the feature hub).
    #[arg(long)]
    pub model: String,
    /// What the weights are of: convnextv2-atto, resnet20, efficientnet-lite0, .. Without it, their names and shapes say it.
    #[arg(long)]
    pub arch: Option<String>,
    /// ConvNeXt and EfficientNet: the probability with which the last residual branch is dropped for a training image, less for those
    /// before [default: the architecture's].
    #[arg(long)]
    pub drop_path: Option<f64>,
}

/// A network and which it is.
pub type Named = (Box<dyn ImageClassifier<f32>>, Architecture);

impl ModelArguments {
    /// Reads the weights.
    pub fn read(&self) -> Result<Named> {
        let path = hub::locate(&self.model, &IMAGE_MODEL)?;
        let checkpoint = Checkpoint::open(&path)?;
        let architecture = match &self.arch {
            Some(name) => Architecture::named(name)?.sized_for(&checkpoint),
            None => Architecture::at(&path, &checkpoint)?,
        };
        let architecture = dropping(architecture, self.drop_path)?;
        Ok((architecture.load(&checkpoint)?, architecture))
    }
}

/// The architecture with another probability of dropped branches, where one was asked for.
pub fn dropping(mut architecture: Architecture, rate: Option<f64>) -> Result<Architecture> {
    match (&mut architecture, rate) {
        (_, None) => {}
        (Architecture::ConvNext(config), Some(rate)) => config.drop_path_rate = rate,
        (Architecture::EfficientNetLite(config), Some(rate)) => config.drop_path_rate = rate,
        (Architecture::CifarResNet(_), Some(_)) => {
            let message = "a ResNet for small images drops no branches; leave --drop-path out";
            return Err(Error::new(ErrorKind::Value, "convnext", message));
        }
    }
    Ok(architecture)
}
