//! ConvNeXt, both versions: a convolutional network with the proportions of a vision transformer.
//!
//! `config.rs` has the sizes and where they come from, `names.rs` what other libraries call the parameters.

mod config;
mod names;

pub use config::{ConvNextConfig, ConvNextVersion};
pub use names::ConvNextNames;

use super::{
    ImageClassifier,
    classifier::{classify, new_classifier},
    folder, labels,
    start::draw,
};
use crate::{
    autodiff::{self, Var},
    error::Result,
    module,
    nn::{
        Checkpoint, Conv, Grn, Init, LayerNorm, Linear, Loaded, Mode, Module, Parameter, StochasticDepth, Visitor,
        VisitorMut,
    },
    scalar::Scalar,
    tensor::Tensor,
};
use rand::Rng;
use std::path::Path;

/// What every norm adds to the variance, but for the last.
const EPS: f64 = 1e-6;

/// How weights start: the authors' choice, which timm and torchvision share.
const START: Init = Init::TruncatedNormal { mean: 0.0, std: 0.02, low: -2.0, high: 2.0 };

/// A ConvNeXt or ConvNeXt-V2 that classifies images.
///
/// An image is cut into patches; four stages of residual blocks follow, each on half the rows and columns of the one before and
/// with twice its channels; then the mean over positions, a norm, and a linear classifier.
///
/// ```text
/// patches     conv p x p, stride p; norm
/// stage       norm; conv 2 x 2, stride 2 (not in the first)
///   block     x + drop(scale(linear(grn(gelu(linear(norm(depthwise 7 x 7 of x)))))))
/// head        mean over positions; norm; linear
/// ```
///
/// Version 1 has the scale, one number a channel, and no grn; version 2 has grn and no scale. The linear layers go to four times the
/// channels and back. Images are `[batch, rows, columns, channels]` throughout, so that a linear layer is a matrix product of all
/// positions at once and a norm runs along memory.
///
/// Z. Liu et al., *A ConvNet for the 2020s*, CVPR 2022; S. Woo et al., *ConvNeXt V2: Co-designing and scaling ConvNets with masked
/// autoencoders*, CVPR 2023.
///
/// It has Hugging Face's names; [`ConvNextNames`] has those of timm and torchvision.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{
///     Tensor, autodiff::{CrossEntropy, Var},
///     models::{ConvNext, ConvNextConfig, ImageClassifier},
///     nn::{Mode, Module},
///     peft::{Attach, Flora, Targets},
/// };
///
/// let config = ConvNextConfig {
///     hidden_sizes: vec![8, 16],
///     depths: vec![1, 1],
///     num_labels: 3,
///     ..ConvNextConfig::named("convnextv2-atto")?
/// };
/// let rng = &mut ChaCha8Rng::seed_from_u64(1);
/// let mut model = ConvNext::<f32>::new(config, rng)?;
/// let flora = Flora::new().rank(2);
/// Attach::new(&flora).to(Targets::all().except(model.head())).keep(Targets::of([model.head()])).apply(&mut model)?;
///
/// let images = Var::constant(Tensor::normal([2, 32, 48, 3], rng)?);
/// let logits = model.forward(&images, Mode::training(7, 0))?;
/// assert_eq!(logits.shape(), [2, 3]);
/// let gradients = logits.cross_entropy(&Tensor::from(ndarray::array![0u32, 2]), CrossEntropy::default())?.backward()?;
/// model.gradient_report(&gradients).check()?;
///
/// let shapes: Vec<Vec<usize>> = model.features(&images, Mode::Evaluation)?.iter().map(|x| x.shape().to_vec()).collect();
/// assert_eq!(shapes, [[2, 8, 12, 8], [2, 4, 6, 16]]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConvNext<T: Scalar> {
    config: ConvNextConfig,
    backbone: Backbone<T>,
    classifier: Option<Linear<T>>,
}

/// All but the classifier.
#[derive(Debug, Clone)]
struct Backbone<T: Scalar> {
    embeddings: Embeddings<T>,
    stages: Vec<Stage<T>>,
    layernorm: LayerNorm<T>,
}

/// The patches of an image.
#[derive(Debug, Clone)]
struct Embeddings<T: Scalar> {
    patch_embeddings: Conv<T>,
    layernorm: LayerNorm<T>,
}

#[derive(Debug, Clone)]
struct Stage<T: Scalar> {
    downsampling: Option<Downsampling<T>>,
    layers: Vec<Block<T>>,
}

/// Half the rows and columns.
#[derive(Debug, Clone)]
struct Downsampling<T: Scalar> {
    norm: LayerNorm<T>,
    conv: Conv<T>,
}

#[derive(Debug, Clone)]
struct Block<T: Scalar> {
    dwconv: Conv<T>,
    layernorm: LayerNorm<T>,
    pwconv1: Linear<T>,
    grn: Option<Grn<T>>,
    pwconv2: Linear<T>,
    layer_scale: Option<Parameter<T>>,
    drop_path: StochasticDepth,
}

module!(Backbone { embeddings, stages => "encoder.stages", layernorm });
module!(Embeddings { patch_embeddings, layernorm });
module!(Stage { downsampling => "downsampling_layer", layers });
module!(Downsampling { norm => "0", conv => "1" });
module!(Block { dwconv, layernorm, pwconv1, grn, pwconv2, layer_scale => "layer_scale_parameter" });

/// The first part of a name is the version's, so this is written by hand.
impl<T: Scalar> Module<T> for ConvNext<T> {
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T>) {
        visitor.part(self.config.version.model_type(), &self.backbone);
        visitor.part("classifier", &self.classifier);
    }

    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, T>) {
        visitor.part(self.config.version.model_type(), &mut self.backbone);
        visitor.part("classifier", &mut self.classifier);
    }
}

impl<T: Scalar> ConvNext<T> {
    /// Weights from a normal distribution of deviation 0.02, biases zero, as the authors start.
    ///
    /// # Errors
    /// As [`zeros`](ConvNext::zeros).
    pub fn new<R: Rng + ?Sized>(config: ConvNextConfig, rng: &mut R) -> Result<Self> {
        let mut model = Self::zeros(config)?;
        draw(&mut model, |_| START, rng)?;
        Ok(model)
    }

    /// All weights zero, to be loaded.
    ///
    /// # Errors
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) for a configuration that makes no model: stages without blocks, sizes of 0, a
    /// probability above 1.
    pub fn zeros(config: ConvNextConfig) -> Result<Self> {
        config.check()?;
        let sizes = &config.hidden_sizes;
        let mut drop_path = StochasticDepth::rising(config.depths.iter().sum(), config.drop_path_rate).into_iter();
        let stages = (0..sizes.len())
            .map(|stage| {
                let blocks = drop_path.by_ref().take(config.depths[stage]);
                Ok(Stage {
                    downsampling: match stage {
                        0 => None,
                        _ => Some(Downsampling::zeros(sizes[stage - 1], sizes[stage])?),
                    },
                    layers: blocks.map(|drop| Block::zeros(&config, sizes[stage], drop)).collect::<Result<_>>()?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let last = sizes[sizes.len() - 1];
        let patch = config.patch_size;
        let backbone = Backbone {
            embeddings: Embeddings {
                patch_embeddings: Conv::zeros(
                    [config.num_channels, sizes[0]],
                    &[patch, patch],
                    autodiff::Conv::new().stride(patch),
                )?,
                layernorm: LayerNorm::new(sizes[0], EPS)?,
            },
            stages,
            layernorm: LayerNorm::new(last, config.layer_norm_eps)?,
        };
        let classifier = if config.num_labels > 0 { Some(Linear::zeros(last, config.num_labels)?) } else { None };
        Ok(Self { config, backbone, classifier })
    }

    /// The model that lies at `path`: a folder as Hugging Face lays it out, whose `config.json` says what the model is; or a
    /// `.safetensors` file, whose names and shapes say it, by the names of Hugging Face, timm or torchvision.
    ///
    /// A folder's `config.json` counts where it has a `model_type`. A file without a classifier makes a model without one.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`], [`ConvNextConfig::from_json`], [`ConvNextConfig::from_checkpoint`] and
    /// [`Load::read`](crate::nn::Load::read).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let checkpoint = Checkpoint::open(path.as_ref())?;
        let config = ConvNextConfig::at(path.as_ref(), &checkpoint)?;
        let mut model = Self::zeros(config)?;
        model.load(&checkpoint)?;
        Ok(model)
    }

    /// Writes `model.safetensors` and `config.json` to a folder, which is made where there is none, for Hugging Face's transformers
    /// and for [`open`](ConvNext::open). [`merge`](crate::peft::merge) adapters first: transformers does not know them.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io), and those of [`Save::write`](crate::nn::Save::write).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        folder::write(path.as_ref(), &ConvNextNames::HuggingFace.save(&self.config)?, self, &self.config.to_json())
    }

    /// The sizes.
    pub fn config(&self) -> &ConvNextConfig {
        &self.config
    }

    /// The result of every stage, as dense heads take it: images `[batch, rows, columns, channels]` to `[batch, rows / s, columns / s, c]`
    /// with s the patch size times 1, 2, 4 and 8, rounded down, and c the stage's channels. No norm is applied.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the images have other channels or are smaller than what a stage needs.
    pub fn features(&self, images: &Var<T>, mode: Mode) -> Result<Vec<Var<T>>> {
        let mut features = Vec::with_capacity(self.backbone.stages.len());
        self.last(images, mode, |x| features.push(x.clone()))?;
        Ok(features)
    }

    /// The result of the last stage, and that of every stage shown to `seen`.
    fn last(&self, images: &Var<T>, mode: Mode, mut seen: impl FnMut(&Var<T>)) -> Result<Var<T>> {
        let embeddings = &self.backbone.embeddings;
        let mut x = embeddings.layernorm.forward(&embeddings.patch_embeddings.forward(images, mode)?)?;
        let mut number = 0;
        for stage in &self.backbone.stages {
            if let Some(Downsampling { norm, conv }) = &stage.downsampling {
                x = conv.forward(&norm.forward(&x)?, mode)?;
            }
            for block in &stage.layers {
                x = block.forward(&x, mode.fork(number))?;
                number += 1;
            }
            seen(&x);
        }
        Ok(x)
    }
}

impl<T: Scalar> ImageClassifier<T> for ConvNext<T> {
    fn embed(&self, images: &Var<T>, mode: Mode) -> Result<Var<T>> {
        self.backbone.layernorm.forward(&self.last(images, mode, |_| ())?.global_avg_pool()?)
    }

    fn forward(&self, images: &Var<T>, mode: Mode) -> Result<Var<T>> {
        classify("ConvNext", self.classifier.as_ref(), &self.embed(images, mode)?, mode)
    }

    fn head(&self) -> &'static str {
        "classifier"
    }

    fn labels(&self) -> usize {
        self.config.num_labels
    }

    fn load(&mut self, checkpoint: &Checkpoint) -> Result<Loaded> {
        ConvNextNames::of(checkpoint)?.load(&self.config)?.apply(self, checkpoint)
    }

    fn write(&self, folder: &Path) -> Result<()> {
        self.save(folder)
    }

    fn reset_classifier(&mut self, labels: usize, rng: &mut dyn Rng) -> Result<()> {
        let width = self.config.hidden_sizes.last().copied().unwrap_or_default();
        self.classifier = new_classifier(width, labels, START, rng)?;
        self.config.num_labels = labels;
        self.config.label_names.clear();
        Ok(())
    }

    fn label_names(&self) -> &[String] {
        &self.config.label_names
    }

    fn name_labels(&mut self, names: &[String]) -> Result<()> {
        labels::rename(&mut self.config.label_names, self.config.num_labels, names)
    }
}

impl<T: Scalar> Downsampling<T> {
    fn zeros(from: usize, to: usize) -> Result<Self> {
        let conv = Conv::zeros([from, to], &[2, 2], autodiff::Conv::new().stride(2))?;
        Ok(Self { norm: LayerNorm::new(from, EPS)?, conv })
    }
}

impl<T: Scalar> Block<T> {
    fn zeros(config: &ConvNextConfig, width: usize, drop_path: f64) -> Result<Self> {
        let start = T::of(config.layer_scale_init_value);
        Ok(Self {
            dwconv: Conv::zeros([width, width], &[7, 7], autodiff::Conv::new().padding(3).groups(width))?,
            layernorm: LayerNorm::new(width, EPS)?,
            pwconv1: Linear::zeros(width, 4 * width)?,
            grn: match config.version {
                ConvNextVersion::V1 => None,
                ConvNextVersion::V2 => Some(Grn::new(4 * width, EPS)?),
            },
            pwconv2: Linear::zeros(4 * width, width)?,
            layer_scale: match config.has_layer_scale() {
                true => Some(Tensor::full([width], start)?.into()),
                false => None,
            },
            drop_path: StochasticDepth::new(drop_path, 0)?,
        })
    }

    /// x `[batch, rows, columns, width]`, of the same shape.
    fn forward(&self, x: &Var<T>, mode: Mode) -> Result<Var<T>> {
        let h = self.layernorm.forward(&self.dwconv.forward(x, mode)?)?;
        let mut h = self.pwconv1.forward(&h, mode)?.gelu()?;
        if let Some(grn) = &self.grn {
            h = grn.forward(&h)?;
        }
        h = self.pwconv2.forward(&h, mode)?;
        if let Some(scale) = &self.layer_scale {
            h = h.affine(scale.var(), None)?;
        }
        x.add(&self.drop_path.forward(&h, mode)?)
    }
}
