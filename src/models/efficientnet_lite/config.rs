//! [`EfficientNetLiteConfig`]: which EfficientNet-Lite, from its name or from the tensors of a checkpoint.

use super::names::EfficientNetNames;
use crate::{
    error::{Error, ErrorKind, Result},
    models::MOST,
    nn::Checkpoint,
    tensor::Origin,
};

const NAME: &str = "EfficientNetLiteConfig";

/// Blocks of one kind. The first of them may halve the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EfficientNetStage {
    /// How many blocks.
    pub blocks: usize,
    /// The side of the depthwise windows.
    pub kernel: usize,
    /// The stride of the first block: 1, or 2.
    pub stride: usize,
    /// How many times as many channels a block has inside; 1 for a block without the layer that makes them.
    pub expansion: usize,
    /// The channels of the result.
    pub channels: usize,
}

/// Sizes and options of an [`EfficientNetLite`](super::EfficientNetLite).
///
/// ```
/// use tenfold::models::EfficientNetLiteConfig;
///
/// let config = EfficientNetLiteConfig::named("tf_efficientnet_lite2")?;
/// let channels: Vec<usize> = config.stages.iter().map(|stage| stage.channels).collect();
/// assert_eq!(channels, [16, 24, 48, 88, 120, 208, 352]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct EfficientNetLiteConfig {
    /// The channels of the first convolution.
    pub stem: usize,
    /// The blocks.
    pub stages: Vec<EfficientNetStage>,
    /// The channels of the last convolution: the width of the features.
    pub features: usize,
    /// The number of classes; 0 for no classifier.
    pub num_labels: usize,
    /// Whether convolutions are padded as in TensorFlow, more behind than in front where it does not come out even, instead of evenly.
    pub same_padding: bool,
    /// What a batch norm adds to the variance: 1e-3 in TensorFlow's weights.
    pub batch_norm_eps: f64,
    /// The probability with which a feature is dropped in front of the classifier in training.
    pub drop_rate: f64,
    /// The last of the probabilities with which blocks drop a sample in training: block i of n has i/n of it.
    pub drop_path_rate: f64,
}

/// How much wider and deeper each size is than the smallest, as (channels, blocks), and its dropout.
const SIZES: [(f64, f64, f64); 5] =
    [(1.0, 1.0, 0.2), (1.0, 1.1, 0.2), (1.1, 1.2, 0.3), (1.2, 1.4, 0.3), (1.4, 1.8, 0.3)];

/// The side of the images that Google trained each size on.
const SIDES: [usize; 5] = [224, 240, 260, 280, 300];

/// The stages of the smallest: blocks, kernel, stride, expansion, channels.
const STAGES: [[usize; 5]; 7] = [
    [1, 3, 1, 1, 16],
    [2, 3, 2, 6, 24],
    [2, 5, 2, 6, 40],
    [3, 3, 2, 6, 80],
    [3, 5, 1, 6, 112],
    [4, 5, 2, 6, 192],
    [1, 3, 1, 6, 320],
];

impl EfficientNetLiteConfig {
    /// Size 0 to 4 with the options of TensorFlow's weights and 1000 classes.
    fn size(size: usize) -> Self {
        let (wider, deeper, drop_rate) = SIZES[size];
        let stages = STAGES.iter().enumerate().map(|(i, &[blocks, kernel, stride, expansion, channels])| {
            // The first and the last stage are as deep in every size.
            let deeper = if i == 0 || i == STAGES.len() - 1 { 1.0 } else { deeper };
            let blocks = (blocks as f64 * deeper).ceil() as usize;
            EfficientNetStage { blocks, kernel, stride, expansion, channels: to_eights(channels as f64 * wider) }
        });
        Self {
            stem: 32,
            stages: stages.collect(),
            features: 1280,
            num_labels: 1000,
            same_padding: true,
            batch_norm_eps: 1e-3,
            drop_rate,
            drop_path_rate: 0.2,
        }
    }

    /// A published size, for 1000 classes:
    ///
    /// - `tf_efficientnet_lite0` to `tf_efficientnet_lite4`, or with Google's names `efficientnet-lite0` to `-lite4`: TensorFlow's weights;
    /// - `efficientnet_lite0` to `efficientnet_lite4`: timm's own weights, evenly padded, with another eps.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] for another name.
    pub fn named(name: &str) -> Result<Self> {
        let plain = name.rsplit('/').next().unwrap_or(name);
        let plain = plain.split_once('.').map_or(plain, |(plain, _)| plain);
        let size = |prefix: &str| -> Option<usize> {
            plain.strip_prefix(prefix)?.parse().ok().filter(|&size| size < SIZES.len())
        };
        if let Some(size) = size("tf_efficientnet_lite").or_else(|| size("efficientnet-lite")) {
            return Ok(Self::size(size));
        }
        if let Some(size) = size("efficientnet_lite") {
            return Ok(Self { same_padding: false, batch_norm_eps: 1e-5, ..Self::size(size) });
        }
        let message = format!(
            "there is no {name:?}; there are efficientnet-lite0 to -lite4, the same as tf_efficientnet_lite0 to _lite4, and timm's own \
             efficientnet_lite0 to _lite4"
        );
        Err(Error::new(ErrorKind::Value, NAME, message))
    }

    /// As the names and shapes of a checkpoint's tensors say. They are the same for TensorFlow's weights and for timm's own; this takes
    /// the former.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where these are not the tensors of a published size.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        let names = EfficientNetNames::of(checkpoint)?;
        let first = |name: &str| checkpoint.shape(name).ok().and_then(|shape| shape.first().copied());
        let channels = names.block_channels(checkpoint);
        let size = (0..SIZES.len()).map(Self::size).find(|config| config.block_channels().eq(channels.iter().copied()));
        let Some(config) = size else {
            let message = format!("blocks of {channels:?} channels are none of EfficientNet-Lite0 to 4");
            return Err(Origin::file(NAME, checkpoint.path()).error(ErrorKind::Value, message));
        };
        Ok(Self { num_labels: first(names.classifier()).unwrap_or(0), ..config })
    }

    /// The side of the images that the published weights of this size were trained on; of no published size, that of the smallest.
    pub(in crate::models) fn side(&self) -> usize {
        let size = (0..SIZES.len()).find(|&size| Self::size(size).block_channels().eq(self.block_channels()));
        SIDES[size.unwrap_or(0)]
    }

    /// The channels that each block results in.
    pub(super) fn block_channels(&self) -> impl Iterator<Item = usize> {
        self.stages.iter().flat_map(|stage| std::iter::repeat_n(stage.channels, stage.blocks))
    }

    /// An error unless a model can have these sizes.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::new(ErrorKind::Value, NAME, message));
        let good = |s: &EfficientNetStage| {
            let all = [s.blocks, s.kernel, s.stride, s.expansion, s.channels];
            s.kernel % 2 == 1 && all.iter().all(|n| (1..=MOST).contains(n))
        };
        if let Some(stage) = self.stages.iter().find(|stage| !good(stage)) {
            return wrong(format!("{stage:?}: every size is 1 to {MOST}, and the kernel's is odd"));
        }
        if self.stages.is_empty() || self.stem == 0 || self.features == 0 || self.stem.max(self.features) > MOST {
            return wrong(format!(
                "{} stages, a stem of {} channels and {} features; needs one of each at least, and {MOST} at most",
                self.stages.len(),
                self.stem,
                self.features
            ));
        }
        if !(0.0..=1.0).contains(&self.drop_path_rate) {
            return wrong(format!("drop_path_rate is {}; needs 0 to 1", self.drop_path_rate));
        }
        Ok(())
    }
}

/// The nearest multiple of 8, but not less than nine tenths.
fn to_eights(channels: f64) -> usize {
    let near = ((channels + 4.0) as usize / 8 * 8).max(8);
    if (near as f64) < 0.9 * channels { near + 8 } else { near }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size, a digit in the name.
    fn name_size(name: &str) -> usize {
        let (_, rest) = name.split_once("lite").unwrap();
        rest[..1].parse().unwrap()
    }

    #[test]
    fn sizes_are_the_published_ones() {
        // Blocks and channels of timm's models.
        for (name, blocks, last) in [
            ("efficientnet-lite0", [1, 2, 2, 3, 3, 4, 1], 320),
            ("efficientnet-lite1", [1, 3, 3, 4, 4, 5, 1], 320),
            ("tf_efficientnet_lite2.in1k", [1, 3, 3, 4, 4, 5, 1], 352),
            ("timm/tf_efficientnet_lite3", [1, 3, 3, 5, 5, 6, 1], 384),
            ("efficientnet_lite4", [1, 4, 4, 6, 6, 8, 1], 448),
        ] {
            let config = EfficientNetLiteConfig::named(name).unwrap();
            let depths: Vec<usize> = config.stages.iter().map(|stage| stage.blocks).collect();
            assert_eq!((&depths[..], config.stages[6].channels), (&blocks[..], last), "{name}");
            assert_eq!(config.same_padding, !name.starts_with("efficientnet_"));
            assert_eq!(config.side(), SIDES[name_size(name)]);
        }
        for name in ["efficientnet-lite5", "efficientnet_b0", "lite0", "efficientnet-lite"] {
            assert_eq!(EfficientNetLiteConfig::named(name).unwrap_err().kind(), ErrorKind::Value, "{name}");
        }
    }
}
