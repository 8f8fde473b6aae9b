//! Which network.

use clap::Args;
use tenfold::{
    Result,
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
        Ok((architecture.load(&checkpoint)?, architecture))
    }
}
