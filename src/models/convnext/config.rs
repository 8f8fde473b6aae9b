//! [`ConvNextConfig`]: which ConvNeXt, from its name, from `config.json`, or from the tensors of a checkpoint.

use super::names::ConvNextNames;
use crate::{
    error::{Error, ErrorKind, Result},
    models::{MOST, folder, labels},
    nn::Checkpoint,
    tensor::Origin,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

const NAME: &str = "ConvNextConfig";

/// The two generations, which differ in one layer of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConvNextVersion {
    /// Liu et al. 2022: a scale for each channel at the end of a block.
    V1,
    /// Woo et al. 2023: global response normalisation inside of a block.
    V2,
}

impl ConvNextVersion {
    /// Hugging Face's word for it, `model_type` in `config.json`: the first part of the names of a model's parameters.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::V1 => "convnext",
            Self::V2 => "convnextv2",
        }
    }
}

/// Sizes and options of a [`ConvNext`](super::ConvNext), under the names of Hugging Face's `config.json`.
///
/// ```
/// use tenfold::models::{ConvNextConfig, ConvNextVersion};
///
/// let config = ConvNextConfig::named("convnextv2-atto")?;
/// assert_eq!((config.version, &config.hidden_sizes[..]), (ConvNextVersion::V2, &[40, 80, 160, 320][..]));
///
/// // For images of 32 x 32, with ten classes.
/// let small = ConvNextConfig { patch_size: 2, num_labels: 10, drop_path_rate: 0.1, ..config };
/// # assert_eq!(small.depths, [2, 2, 6, 2]);
///
/// let error = ConvNextConfig::named("convnextv2-giant").unwrap_err();
/// assert!(error.message().starts_with("there is no \"convnextv2-giant\"; there are \"convnextv2-atto\", "));
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ConvNextConfig {
    /// The generation.
    pub version: ConvNextVersion,
    /// The channels of an image.
    pub num_channels: usize,
    /// The side of the square patches that the image is cut into first.
    pub patch_size: usize,
    /// The channels of each stage.
    pub hidden_sizes: Vec<usize>,
    /// The number of blocks in each stage.
    pub depths: Vec<usize>,
    /// The number of classes; 0 for no classifier.
    pub num_labels: usize,
    /// What the classes are called, in their order; nothing for `LABEL_0` and so on.
    pub label_names: Vec<String>,
    /// What the norm before the classifier adds to the variance: 1e-12 in Hugging Face's files, 1e-6 elsewhere. All other norms add 1e-6.
    pub layer_norm_eps: f64,
    /// What a channel's scale at the end of a block starts as ([`V1`](ConvNextVersion::V1) alone); none for 0.
    pub layer_scale_init_value: f64,
    /// The probability with which the last block drops a sample in training; that of the others rises to it from 0.
    pub drop_path_rate: f64,
}

/// Every size that was published: version, name, channels of the first stage (they double from stage to stage), blocks of each stage.
const SIZES: [(ConvNextVersion, &str, usize, [usize; 4]); 13] = {
    use ConvNextVersion::{V1, V2};
    [
        (V2, "atto", 40, [2, 2, 6, 2]),
        (V2, "femto", 48, [2, 2, 6, 2]),
        (V2, "pico", 64, [2, 2, 6, 2]),
        (V2, "nano", 80, [2, 2, 8, 2]),
        (V2, "tiny", 96, [3, 3, 9, 3]),
        (V2, "base", 128, [3, 3, 27, 3]),
        (V2, "large", 192, [3, 3, 27, 3]),
        (V2, "huge", 352, [3, 3, 27, 3]),
        (V1, "tiny", 96, [3, 3, 9, 3]),
        (V1, "small", 96, [3, 3, 27, 3]),
        (V1, "base", 128, [3, 3, 27, 3]),
        (V1, "large", 192, [3, 3, 27, 3]),
        (V1, "xlarge", 256, [3, 3, 27, 3]),
    ]
};

impl ConvNextConfig {
    /// The names that [`named`](ConvNextConfig::named) knows.
    pub fn names() -> Vec<String> {
        SIZES.iter().map(|(version, size, ..)| format!("{}-{size}", version.model_type())).collect()
    }

    /// A published size: `convnextv2-atto`, `-femto`, `-pico`, `-nano`, `-tiny`, `-base`, `-large`, `-huge`, and `convnext-tiny`, `-small`,
    /// `-base`, `-large`, `-xlarge`; for images of three channels, with 1000 classes and patches of 4 x 4.
    ///
    /// Names of the hubs lead to the same: `facebook/convnextv2-tiny-22k-224`, `convnextv2_tiny.fcmae`.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] for another name, listing those that there are.
    pub fn named(name: &str) -> Result<Self> {
        let plain = name.rsplit('/').next().unwrap_or(name).replace('_', "-");
        let begins =
            |with: &str| plain.strip_prefix(with).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.']));
        let known = SIZES.iter().find(|(version, size, ..)| begins(&format!("{}-{size}", version.model_type())));
        let Some(&(version, _, first, depths)) = known else {
            let names: Vec<String> = Self::names().iter().map(|name| format!("{name:?}")).collect();
            let message = format!("there is no {name:?}; there are {}", names.join(", "));
            return Err(Error::new(ErrorKind::Value, NAME, message));
        };
        Ok(Self {
            version,
            num_channels: 3,
            patch_size: 4,
            hidden_sizes: (0..4).map(|stage| first << stage).collect(),
            depths: depths.to_vec(),
            num_labels: 1000,
            label_names: Vec::new(),
            layer_norm_eps: 1e-12,
            layer_scale_init_value: 1e-6,
            drop_path_rate: 0.0,
        })
    }

    /// As Hugging Face's `config.json` says. What it leaves out has transformers' defaults; labels are counted, and named, in `id2label`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the file cannot be read; [`ErrorKind::Format`] where it is no such file, naming what is wrong in it;
    /// [`ErrorKind::Unsupported`] for another model or activation; [`ErrorKind::Value`] for sizes that make no model.
    pub fn from_json(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let origin = Origin::file(NAME, path);
        let file: File = folder::read(&origin, path)?;
        let version = match file.model_type.as_str() {
            "convnext" => ConvNextVersion::V1,
            "convnextv2" => ConvNextVersion::V2,
            other => {
                let message = format!("model_type is {other:?}; needs \"convnext\" or \"convnextv2\"");
                return Err(origin.error(ErrorKind::Unsupported, message));
            }
        };
        if file.hidden_act != "gelu" {
            let message = format!("hidden_act is {:?}; only \"gelu\" is here", file.hidden_act);
            return Err(origin.error(ErrorKind::Unsupported, message));
        }
        let patch_size = match file.patch_size {
            Side::One(side) => side,
            Side::Both([rows, columns]) if rows == columns => rows,
            Side::Both(sides) => {
                let message = format!("patch_size is {sides:?}; only square patches are here");
                return Err(origin.error(ErrorKind::Unsupported, message));
            }
        };
        let (num_labels, label_names) = labels::read(Some(file.num_labels), file.id2label.as_ref());
        let config = Self {
            version,
            num_channels: file.num_channels,
            patch_size,
            hidden_sizes: file.hidden_sizes,
            depths: file.depths,
            num_labels,
            label_names,
            layer_norm_eps: file.layer_norm_eps,
            layer_scale_init_value: file.layer_scale_init_value,
            drop_path_rate: file.drop_path_rate,
        };
        config.check().map_err(|e| origin.error(e.kind(), e.message()))?;
        Ok(config)
    }

    /// As the names and shapes of a checkpoint's tensors say, by the names of Hugging Face, timm or torchvision.
    ///
    /// What shapes cannot say is as it is published: the eps of the last norm is that of the library whose names they are, samples are
    /// not dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where these are not the tensors of a ConvNeXt, naming the first that is not there.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        let origin = Origin::file(NAME, checkpoint.path());
        let names = ConvNextNames::of(checkpoint)?;
        let version = match checkpoint.names().any(|name| name.contains("grn.")) {
            true => ConvNextVersion::V2,
            false => ConvNextVersion::V1,
        };
        // More stages than any file has: names of stages that are not there match nothing.
        let renames = names.renames_from(version, checkpoint.len())?;
        let shapes: BTreeMap<String, &[usize]> =
            checkpoint.names().map(|name| Ok((renames.apply(name), checkpoint.shape(name)?))).collect::<Result<_>>()?;
        let prefix = version.model_type();
        let present: BTreeSet<&str> = shapes.keys().map(String::as_str).collect();
        let count = |name: &dyn Fn(usize) -> String| (0..).take_while(|&i| present.contains(name(i).as_str())).count();
        let block =
            |stage: usize, block: usize, rest: &str| format!("{prefix}.encoder.stages.{stage}.layers.{block}.{rest}");
        let stages = count(&|stage| block(stage, 0, "dwconv.weight"));
        let shape = |name: String| match shapes.get(&name) {
            Some(shape) => Ok(*shape),
            None => Err(origin.error(ErrorKind::Value, format!("no tensor is {name:?}: this is not a ConvNeXt"))),
        };
        let first = |shape: &[usize]| shape.first().copied().unwrap_or_default();
        let &[_, num_channels, patch_size, _] = shape(format!("{prefix}.embeddings.patch_embeddings.weight"))? else {
            return Err(origin.error(ErrorKind::Shape, "the weight of the first convolution is not of order 4"));
        };
        let has_scale = shapes.contains_key(&block(0, 0, "layer_scale_parameter"));
        let config = Self {
            version,
            num_channels,
            patch_size,
            hidden_sizes: (0..stages)
                .map(|stage| Ok(first(shape(block(stage, 0, "dwconv.weight"))?)))
                .collect::<Result<_>>()?,
            depths: (0..stages).map(|stage| count(&|i| block(stage, i, "dwconv.weight"))).collect(),
            num_labels: shapes.get("classifier.weight").map_or(0, |shape| first(shape)),
            label_names: Vec::new(),
            layer_norm_eps: if names == ConvNextNames::HuggingFace { 1e-12 } else { 1e-6 },
            layer_scale_init_value: match version == ConvNextVersion::V2 || has_scale {
                true => 1e-6,
                false => 0.0,
            },
            drop_path_rate: 0.0,
        };
        config.check().map_err(|e| origin.error(e.kind(), e.message()))?;
        Ok(config)
    }

    /// That of the model at a path, whose tensors are these: as `config.json` says, where the path is a folder that has one of
    /// transformers; else as the tensors say.
    pub(in crate::models) fn at(path: &Path, checkpoint: &Checkpoint) -> Result<Self> {
        let of_shapes = Self::from_checkpoint(checkpoint)?;
        Ok(match folder::config(path)? {
            Some(file) => {
                let config = Self::from_json(file)?;
                // The file of a plain encoder has no classifier, whatever its configuration says of labels.
                let num_labels = config.num_labels.min(of_shapes.num_labels);
                Self { num_labels, label_names: labels::of(num_labels, config.label_names), ..config }
            }
            None => of_shapes,
        })
    }

    /// The contents of a `config.json` that Hugging Face's transformers reads.
    pub fn to_json(&self) -> String {
        let model_type = self.version.model_type();
        let class = match (self.version, self.num_labels) {
            (ConvNextVersion::V1, 0) => "ConvNextModel",
            (ConvNextVersion::V1, _) => "ConvNextForImageClassification",
            (ConvNextVersion::V2, 0) => "ConvNextV2Model",
            (ConvNextVersion::V2, _) => "ConvNextV2ForImageClassification",
        };
        let mut file = json!({
            "architectures": [class],
            "model_type": model_type,
            "num_channels": self.num_channels,
            "patch_size": self.patch_size,
            "num_stages": self.depths.len(),
            "hidden_sizes": self.hidden_sizes,
            "depths": self.depths,
            "hidden_act": "gelu",
            "layer_norm_eps": self.layer_norm_eps,
            "drop_path_rate": self.drop_path_rate,
        });
        for (name, labels) in labels::write(self.num_labels, &self.label_names) {
            file[name] = labels;
        }
        if self.version == ConvNextVersion::V1 {
            file["layer_scale_init_value"] = self.layer_scale_init_value.into();
        }
        format!("{file:#}\n")
    }

    /// An error unless a model can have these sizes.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::new(ErrorKind::Value, NAME, message));
        let (sizes, depths) = (&self.hidden_sizes, &self.depths);
        if sizes.is_empty() || sizes.len() != depths.len() {
            return wrong(format!(
                "hidden_sizes are {sizes:?} and depths {depths:?}; needs one of each for every stage"
            ));
        }
        let mut all = sizes.iter().chain(depths).chain([&self.num_channels, &self.patch_size]);
        if !all.all(|n| (1..=MOST).contains(n)) || sizes.len() > MOST {
            return wrong(format!(
                "hidden_sizes {sizes:?}, depths {depths:?}, num_channels {} and patch_size {} are all 1 to {MOST}",
                self.num_channels, self.patch_size
            ));
        }
        if !(0.0..=1.0).contains(&self.drop_path_rate) {
            return wrong(format!("drop_path_rate is {}; needs 0 to 1", self.drop_path_rate));
        }
        Ok(())
    }

    /// Whether blocks end with a scale for each channel.
    pub(super) fn has_layer_scale(&self) -> bool {
        self.version == ConvNextVersion::V1 && self.layer_scale_init_value > 0.0
    }
}

/// `config.json`, as far as it matters.
#[derive(Deserialize)]
struct File {
    model_type: String,
    #[serde(default = "three")]
    num_channels: usize,
    #[serde(default)]
    patch_size: Side,
    #[serde(default = "tiny_sizes")]
    hidden_sizes: Vec<usize>,
    #[serde(default = "tiny_depths")]
    depths: Vec<usize>,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "eps")]
    layer_norm_eps: f64,
    #[serde(default = "scale")]
    layer_scale_init_value: f64,
    #[serde(default)]
    drop_path_rate: f64,
    #[serde(default = "two")]
    num_labels: usize,
    id2label: Option<BTreeMap<String, Value>>,
}

/// One number for both sides, or two.
#[derive(Deserialize)]
#[serde(untagged)]
enum Side {
    One(usize),
    Both([usize; 2]),
}

impl Default for Side {
    fn default() -> Self {
        Self::One(4)
    }
}

fn three() -> usize {
    3
}

fn two() -> usize {
    2
}

fn tiny_sizes() -> Vec<usize> {
    vec![96, 192, 384, 768]
}

fn tiny_depths() -> Vec<usize> {
    vec![3, 3, 9, 3]
}

fn gelu() -> String {
    "gelu".into()
}

fn eps() -> f64 {
    1e-12
}

fn scale() -> f64 {
    1e-6
}
