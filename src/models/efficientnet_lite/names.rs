//! [`EfficientNetNames`]: what the libraries call an EfficientNet-Lite's parameters.

use super::config::EfficientNetLiteConfig;
use crate::{
    error::{ErrorKind, Result},
    nn::{Checkpoint, Load, Renames, Save},
    tensor::{Origin, listed},
};

/// Whose names a file has. An [`EfficientNetLite`](super::EfficientNetLite) itself has timm's.
///
/// | timm | efficientnet_pytorch |
/// |---|---|
/// | `conv_stem`, `bn1` | `_conv_stem`, `_bn0` |
/// | `blocks.0.0.conv_dw`, `.bn1`, `.conv_pw`, `.bn2` | `_blocks.0._depthwise_conv`, `._bn1`, `._project_conv`, `._bn2` |
/// | `blocks.1.1.conv_pw`, `.bn1` | `_blocks.2._expand_conv`, `._bn0` |
/// | `blocks.1.1.conv_dw`, `.bn2`, `.conv_pwl`, `.bn3` | `_blocks.2._depthwise_conv`, `._bn1`, `._project_conv`, `._bn2` |
/// | `conv_head`, `bn2` | `_conv_head`, `_bn1` |
/// | `classifier` | `_fc` |
///
/// timm counts blocks in each stage, the other in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EfficientNetNames {
    /// timm.
    Timm,
    /// `efficientnet_pytorch` and what descends from it.
    EfficientNetPytorch,
}

impl EfficientNetNames {
    /// Those that a checkpoint has.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where it has none of them.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let has = |name: &str| checkpoint.names().any(|other| other == name);
        if has("conv_stem.weight") {
            return Ok(Self::Timm);
        }
        if has("_conv_stem.weight") {
            return Ok(Self::EfficientNetPytorch);
        }
        let message = format!(
            "these are not an EfficientNet's tensors by the names of timm or efficientnet_pytorch; there are {}",
            listed(checkpoint.names())
        );
        Err(Origin::file("EfficientNetNames", checkpoint.path()).error(ErrorKind::Value, message))
    }

    /// A [`Load`] for files of these names into a model of this configuration.
    ///
    /// # Errors
    /// None for names that are here.
    pub fn load(self, config: &EfficientNetLiteConfig) -> Result<Load> {
        let pairs = self.pairs(config);
        let renames = pairs.iter().try_fold(Renames::new(), |renames, (ours, theirs)| renames.pattern(theirs, ours));
        Ok(Load::new().renames(renames?).ignore("*.num_batches_tracked"))
    }

    /// A [`Save`] of a model of this configuration under these names.
    ///
    /// # Errors
    /// None for names that are here.
    pub fn save(self, config: &EfficientNetLiteConfig) -> Result<Save> {
        let pairs = self.pairs(config);
        let renames = pairs.iter().try_fold(Renames::new(), |renames, (ours, theirs)| renames.pattern(ours, theirs));
        Ok(Save::new().renames(renames?))
    }

    /// The weight of the classifier.
    pub(super) fn classifier(self) -> &'static str {
        match self {
            Self::Timm => "classifier.weight",
            Self::EfficientNetPytorch => "_fc.weight",
        }
    }

    /// The channels that each block results in, block by block.
    pub(super) fn block_channels(self, checkpoint: &Checkpoint) -> Vec<usize> {
        let outputs = |name: String| {
            let there = checkpoint.names().any(|other| other == name);
            there.then(|| checkpoint.shape(&name).ok()?.first().copied()).flatten()
        };
        match self {
            Self::EfficientNetPytorch => {
                (0..).map_while(|i| outputs(format!("_blocks.{i}._project_conv.weight"))).collect()
            }
            Self::Timm => {
                let block = |stage: usize, i: usize| {
                    let name = format!("blocks.{stage}.{i}");
                    outputs(format!("{name}.conv_pwl.weight")).or_else(|| outputs(format!("{name}.conv_pw.weight")))
                };
                let stage = |stage: usize| (0..).map_while(|i| block(stage, i)).collect::<Vec<usize>>();
                (0..).map(stage).take_while(|blocks| !blocks.is_empty()).flatten().collect()
            }
        }
    }

    /// Patterns of names, ours and theirs.
    fn pairs(self, config: &EfficientNetLiteConfig) -> Vec<(String, String)> {
        if self == Self::Timm {
            return Vec::new();
        }
        let mut pairs = Vec::new();
        let mut pair = |ours: &str, theirs: &str| pairs.push((format!("{ours}.*"), format!("{theirs}.*")));
        for (ours, theirs) in [
            ("conv_stem", "_conv_stem"),
            ("bn1", "_bn0"),
            ("conv_head", "_conv_head"),
            ("bn2", "_bn1"),
            ("classifier", "_fc"),
        ] {
            pair(ours, theirs);
        }
        let places = config.stages.iter().enumerate().flat_map(|(s, stage)| (0..stage.blocks).map(move |b| (s, b)));
        for (number, (stage, block)) in places.enumerate() {
            let parts: &[(&str, &str)] = match config.stages[stage].expansion {
                1 => &[("conv_dw", "_depthwise_conv"), ("bn1", "_bn1"), ("conv_pw", "_project_conv"), ("bn2", "_bn2")],
                _ => &[
                    ("conv_pw", "_expand_conv"),
                    ("bn1", "_bn0"),
                    ("conv_dw", "_depthwise_conv"),
                    ("bn2", "_bn1"),
                    ("conv_pwl", "_project_conv"),
                    ("bn3", "_bn2"),
                ],
            };
            for (ours, theirs) in parts {
                pair(&format!("blocks.{stage}.{block}.{ours}"), &format!("_blocks.{number}.{theirs}"));
            }
        }
        pairs
    }
}
