//! [`ConvNextNames`]: what the libraries call a ConvNeXt's parameters.

use super::config::{ConvNextConfig, ConvNextVersion};
use crate::{
    error::{Error, ErrorKind, Result},
    nn::{Checkpoint, Load, Renames, Save},
    tensor::{Origin, listed},
};

/// Whose names and shapes a file has. A [`ConvNext`](super::ConvNext) itself has Hugging Face's names.
///
/// | Hugging Face | timm | torchvision |
/// |---|---|---|
/// | `convnextv2.embeddings.patch_embeddings` | `stem.0` | `features.0.0` |
/// | `convnextv2.embeddings.layernorm` | `stem.1` | `features.0.1` |
/// | `convnextv2.encoder.stages.1.downsampling_layer.0` | `stages.1.downsample.0` | `features.2.0` |
/// | `convnextv2.encoder.stages.1.layers.5.dwconv` | `stages.1.blocks.5.conv_dw` | `features.3.5.block.0` |
/// | .. `layernorm` | `norm` | `block.2` |
/// | .. `pwconv1`, `grn`, `pwconv2` | `mlp.fc1`, `mlp.grn`, `mlp.fc2` | `block.3`, none, `block.5` |
/// | .. `layer_scale_parameter` (V1) | `gamma` | `layer_scale`, `[c, 1, 1]` |
/// | `convnextv2.layernorm` | `head.norm` | `classifier.0` |
/// | `classifier` | `head.fc` | `classifier.2` |
///
/// Hugging Face's `grn` has shape `[1, 1, 1, c]`, where all others have `[c]`.
///
/// ```
/// use tenfold::models::{ConvNextNames, ConvNextVersion};
///
/// let timm = ConvNextNames::Timm { conv_mlp: false };
/// let renames = timm.renames_from(ConvNextVersion::V2, 4)?;
/// let name = "convnextv2.encoder.stages.2.layers.10.pwconv1.weight";
/// assert_eq!(renames.apply("stages.2.blocks.10.mlp.fc1.weight"), name);
/// assert_eq!(timm.renames_to(ConvNextVersion::V2, 4)?.apply(name), "stages.2.blocks.10.mlp.fc1.weight");
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConvNextNames {
    /// transformers. Files of a model without a classifier may lack the first part, `convnextv2.`.
    HuggingFace,
    /// timm.
    Timm {
        /// Whether linear layers are stored as 1 x 1 convolutions, `[out, in, 1, 1]`: timm does so from atto to nano.
        conv_mlp: bool,
    },
    /// torchvision, which has the first version only.
    Torchvision,
}

impl ConvNextNames {
    /// Those that a checkpoint has.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where it has none of them.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let has = |name: &str| checkpoint.names().any(|other| other == name);
        if checkpoint.names().any(|name| name.ends_with("embeddings.patch_embeddings.weight")) {
            return Ok(Self::HuggingFace);
        }
        if has("stem.0.weight") && has("stages.0.blocks.0.mlp.fc1.weight") {
            let conv_mlp = checkpoint.shape("stages.0.blocks.0.mlp.fc1.weight")?.len() == 4;
            return Ok(Self::Timm { conv_mlp });
        }
        if has("features.0.0.weight") && has("features.1.0.block.0.weight") {
            return Ok(Self::Torchvision);
        }
        let message = format!(
            "these are not a ConvNeXt's tensors by the names of Hugging Face, timm or torchvision; there are {}",
            listed(checkpoint.names())
        );
        Err(Origin::file("ConvNextNames", checkpoint.path()).error(ErrorKind::Value, message))
    }

    /// From these names to a model's.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for the second version by torchvision's names, which it has none of.
    pub fn renames_from(self, version: ConvNextVersion, stages: usize) -> Result<Renames> {
        let pairs = self.pairs(version, stages)?;
        pairs.iter().try_fold(Renames::new(), |renames, (ours, theirs)| renames.pattern(theirs, ours))
    }

    /// From a model's names to these.
    ///
    /// # Errors
    /// As [`renames_from`](ConvNextNames::renames_from).
    pub fn renames_to(self, version: ConvNextVersion, stages: usize) -> Result<Renames> {
        if self == Self::HuggingFace {
            return Ok(Renames::new());
        }
        // Backwards, so that each rule meets what it made.
        let pairs = self.pairs(version, stages)?;
        pairs.iter().rev().try_fold(Renames::new(), |renames, (ours, theirs)| renames.pattern(ours, theirs))
    }

    /// A [`Load`] for files of these names and shapes into a model of this configuration.
    ///
    /// # Errors
    /// As [`renames_from`](ConvNextNames::renames_from).
    pub fn load(self, config: &ConvNextConfig) -> Result<Load> {
        let load = Load::new().renames(self.renames_from(config.version, config.depths.len())?);
        Ok(load
            .squeeze("*.grn.*")
            .squeeze("*.pwconv1.weight")
            .squeeze("*.pwconv2.weight")
            .squeeze("*.layer_scale_parameter"))
    }

    /// A [`Save`] of a model of this configuration under these names, with these shapes.
    ///
    /// # Errors
    /// As [`renames_from`](ConvNextNames::renames_from).
    pub fn save(self, config: &ConvNextConfig) -> Result<Save> {
        let save = Save::new().renames(self.renames_to(config.version, config.depths.len())?);
        Ok(match self {
            Self::HuggingFace => save.unsqueeze("*.grn.weight", [3, 0]).unsqueeze("*.grn.bias", [3, 0]),
            Self::Timm { conv_mlp: true } => {
                save.unsqueeze("*.pwconv1.weight", [0, 2]).unsqueeze("*.pwconv2.weight", [0, 2])
            }
            Self::Timm { conv_mlp: false } => save,
            Self::Torchvision => save.unsqueeze("*.layer_scale_parameter", [0, 2]),
        })
    }

    /// Patterns of names, ours and theirs.
    fn pairs(self, version: ConvNextVersion, stages: usize) -> Result<Vec<(String, String)>> {
        let prefix = version.model_type();
        let mut pairs = Vec::new();
        let mut pair = |ours: &str, theirs: String| pairs.push((format!("{prefix}.{ours}"), theirs));
        match self {
            Self::HuggingFace => {
                for part in ["embeddings.*", "encoder.*", "layernorm.*"] {
                    pair(part, part.to_string());
                }
                return Ok(pairs);
            }
            Self::Timm { .. } => {
                pair("embeddings.patch_embeddings.*", "stem.0.*".into());
                pair("embeddings.layernorm.*", "stem.1.*".into());
                pair("encoder.stages.*.downsampling_layer.*", "stages.*.downsample.*".into());
                for (ours, theirs) in [
                    ("dwconv.*", "conv_dw.*"),
                    ("layernorm.*", "norm.*"),
                    ("pwconv1.*", "mlp.fc1.*"),
                    ("grn.*", "mlp.grn.*"),
                    ("pwconv2.*", "mlp.fc2.*"),
                    ("layer_scale_parameter", "gamma"),
                ] {
                    pair(&format!("encoder.stages.*.layers.*.{ours}"), format!("stages.*.blocks.*.{theirs}"));
                }
                pair("layernorm.*", "head.norm.*".into());
                pairs.push(("classifier.*".into(), "head.fc.*".into()));
            }
            Self::Torchvision if version == ConvNextVersion::V1 => {
                pair("embeddings.patch_embeddings.*", "features.0.0.*".into());
                pair("embeddings.layernorm.*", "features.0.1.*".into());
                for stage in 0..stages {
                    if stage > 0 {
                        let ours = format!("encoder.stages.{stage}.downsampling_layer.*");
                        pair(&ours, format!("features.{}.*", 2 * stage));
                    }
                    for (ours, theirs) in [
                        ("dwconv.*", "block.0.*"),
                        ("layernorm.*", "block.2.*"),
                        ("pwconv1.*", "block.3.*"),
                        ("pwconv2.*", "block.5.*"),
                        ("layer_scale_parameter", "layer_scale"),
                    ] {
                        let ours = format!("encoder.stages.{stage}.layers.*.{ours}");
                        pair(&ours, format!("features.{}.*.{theirs}", 2 * stage + 1));
                    }
                }
                pair("layernorm.*", "classifier.0.*".into());
                pairs.push(("classifier.*".into(), "classifier.2.*".into()));
            }
            Self::Torchvision => {
                let message = "torchvision has no ConvNeXt-V2; take the names of Hugging Face or timm";
                return Err(Error::new(ErrorKind::Unsupported, "ConvNextNames", message));
            }
        }
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{models::ConvNext, nn::Module};
    use std::collections::BTreeSet;

    #[test]
    fn there_and_back_is_the_same_name() {
        for (version, names) in [
            (ConvNextVersion::V1, ConvNextNames::Timm { conv_mlp: false }),
            (ConvNextVersion::V2, ConvNextNames::Timm { conv_mlp: true }),
            (ConvNextVersion::V1, ConvNextNames::Torchvision),
            (ConvNextVersion::V1, ConvNextNames::HuggingFace),
        ] {
            let config = ConvNextConfig {
                version,
                hidden_sizes: vec![1; 3],
                depths: vec![1, 12, 2],
                num_labels: 2,
                ..ConvNextConfig::named("convnext-tiny").unwrap()
            };
            let model = ConvNext::<f32>::zeros(config).unwrap();
            let (from, to) = (names.renames_from(version, 3).unwrap(), names.renames_to(version, 3).unwrap());
            let mut seen = BTreeSet::new();
            for (name, _) in model.parameters() {
                // Adapters keep what is behind the layer's name.
                for name in [name.clone(), name.replace(".weight", ".task.flora_G")] {
                    let theirs = to.apply(&name);
                    assert_eq!(from.apply(&theirs), name, "by way of {theirs}");
                    if names != ConvNextNames::HuggingFace {
                        assert!(!theirs.contains("conv1") && !theirs.contains("layernorm"), "{theirs}");
                    }
                    seen.insert(theirs);
                }
            }
            let names: BTreeSet<String> = model.parameters().into_iter().map(|(name, _)| name).collect();
            assert!(seen.len() > names.len());
        }
        let error = ConvNextNames::Torchvision.renames_to(ConvNextVersion::V2, 4).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
