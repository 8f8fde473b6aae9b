//! EfficientNet-Lite: inverted residual blocks without what small processors are slow at.
//!
//! `config.rs` has the sizes and where they come from, `names.rs` what other libraries call the parameters.

mod config;
mod names;

pub use config::{EfficientNetLiteConfig, EfficientNetStage};
pub use names::EfficientNetNames;

use super::{
    ImageClassifier,
    classifier::{classify, new_classifier},
    folder,
    start::draw,
};
use crate::{
    autodiff::{self, Padding, Var},
    error::Result,
    nn::{
        BatchNorm, Checkpoint, Conv, Dropout, Init, Layer, Linear, Loaded, Mode, Module, Operation, StochasticDepth,
        Visitor, VisitorMut,
    },
    scalar::Scalar,
};
use rand::Rng;
use std::path::Path;

const NAME: &str = "EfficientNetLite";

/// The stream of the dropout in front of the classifier; blocks fork the mode with their numbers.
const HEAD_STREAM: u64 = u64::MAX;

/// An EfficientNet-Lite that classifies images.
///
/// ```text
/// stem        relu6(bn(conv 3 x 3, stride 2))
/// stages of blocks
///   block     x + drop(bn(project(relu6(bn(depthwise k x k of relu6(bn(expand x)))))))
///             without "x +" where rows, columns or channels change; without expand in the first stage
/// head        relu6(bn(conv 1 x 1)); mean over positions; dropout; linear
/// ```
///
/// The 1 x 1 convolutions expand and project stay convolutions, as files have them; they are computed as matrix products.
///
/// TensorFlow's weights expect images with values from -1 to 1: $x / 127.5 - 1$.
///
/// M. Tan and Q. V. Le, *EfficientNet: Rethinking model scaling for convolutional neural networks*, ICML 2019; the Lite
/// variants, without squeeze-and-excitation and with ReLU6, are Google's of 2020.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{
///     Tensor, autodiff::Var,
///     models::{EfficientNetLite, EfficientNetLiteConfig, ImageClassifier},
///     nn::{Mode, Module},
/// };
///
/// let mut config = EfficientNetLiteConfig::named("efficientnet-lite0")?;
/// config.stages.truncate(3);
/// config.num_labels = 5;
/// let rng = &mut ChaCha8Rng::seed_from_u64(1);
/// let model = EfficientNetLite::<f32>::new(config, rng)?;
/// let images = Var::constant(Tensor::normal([1, 32, 40, 3], rng)?);
/// assert_eq!(model.embed(&images, Mode::Evaluation)?.shape(), [1, 1280]);
/// assert_eq!(model.forward(&images, Mode::Evaluation)?.shape(), [1, 5]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct EfficientNetLite<T: Scalar> {
    config: EfficientNetLiteConfig,
    stem: Unit<T>,
    blocks: Vec<Vec<Block<T>>>,
    head: Unit<T>,
    dropout: Dropout,
    classifier: Option<Linear<T>>,
}

/// A convolution and its norm.
#[derive(Debug, Clone)]
struct Unit<T: Scalar> {
    conv: Conv<T>,
    norm: BatchNorm<T>,
}

/// Expand, unless it is of the first stage; depthwise; project.
#[derive(Debug, Clone)]
struct Block<T: Scalar> {
    units: Vec<Unit<T>>,
    /// Whether the input is added.
    residual: bool,
    drop_path: StochasticDepth,
}

/// The names come from timm, which has those of a convolution and its norm side by side.
impl<T: Scalar> Module<T> for EfficientNetLite<T> {
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T>) {
        visitor.part("conv_stem", &self.stem.conv);
        visitor.part("bn1", &self.stem.norm);
        visitor.part("blocks", &self.blocks);
        visitor.part("conv_head", &self.head.conv);
        visitor.part("bn2", &self.head.norm);
        visitor.part("classifier", &self.classifier);
    }

    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, T>) {
        visitor.part("conv_stem", &mut self.stem.conv);
        visitor.part("bn1", &mut self.stem.norm);
        visitor.part("blocks", &mut self.blocks);
        visitor.part("conv_head", &mut self.head.conv);
        visitor.part("bn2", &mut self.head.norm);
        visitor.part("classifier", &mut self.classifier);
    }
}

impl<T: Scalar> Block<T> {
    /// The names of the units' parts.
    fn names(&self) -> &'static [[&'static str; 2]] {
        match self.units.len() {
            2 => &[["conv_dw", "bn1"], ["conv_pw", "bn2"]],
            _ => &[["conv_pw", "bn1"], ["conv_dw", "bn2"], ["conv_pwl", "bn3"]],
        }
    }
}

impl<T: Scalar> Module<T> for Block<T> {
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T>) {
        for ([conv, norm], unit) in self.names().iter().zip(&self.units) {
            visitor.part(conv, &unit.conv);
            visitor.part(norm, &unit.norm);
        }
    }

    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, T>) {
        for ([conv, norm], unit) in self.names().iter().zip(&mut self.units) {
            visitor.part(conv, &mut unit.conv);
            visitor.part(norm, &mut unit.norm);
        }
    }
}

impl<T: Scalar> EfficientNetLite<T> {
    /// Weights of convolutions from a normal distribution with variance 2 / fan out, those of the classifier uniform between
    /// $\pm 1 / \sqrt{\text{labels}}$, biases zero: TensorFlow's start.
    ///
    /// # Errors
    /// As [`zeros`](EfficientNetLite::zeros).
    pub fn new<R: Rng + ?Sized>(config: EfficientNetLiteConfig, rng: &mut R) -> Result<Self> {
        let mut model = Self::zeros(config)?;
        let start = |layer: &dyn Layer<T>| match (layer.operation(), layer.weight().shape()) {
            (Operation::Conv(options), [outputs, _, kernel @ ..]) => {
                let fan_out = outputs * kernel.iter().product::<usize>() / options.groups;
                Init::Normal { mean: 0.0, std: (2.0 / fan_out.max(1) as f64).sqrt() }
            }
            (_, shape) => classifier_start(shape[0]),
        };
        draw(&mut model, start, rng)?;
        Ok(model)
    }

    /// All weights zero, to be loaded.
    ///
    /// # Errors
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) for a configuration that makes no model: an even kernel, sizes of 0, a probability
    /// above 1.
    pub fn zeros(config: EfficientNetLiteConfig) -> Result<Self> {
        config.check()?;
        let stem = Unit::zeros(&config, [3, config.stem], 3, 2, 1)?;
        let (mut from, mut number) = (config.stem, 0);
        let total: usize = config.stages.iter().map(|stage| stage.blocks).sum();
        let mut blocks = Vec::with_capacity(config.stages.len());
        for stage in &config.stages {
            let mut row = Vec::with_capacity(stage.blocks);
            for i in 0..stage.blocks {
                let drop_path = config.drop_path_rate * number as f64 / total as f64;
                let stride = if i == 0 { stage.stride } else { 1 };
                row.push(Block::zeros(&config, &EfficientNetStage { stride, ..*stage }, from, drop_path)?);
                (from, number) = (stage.channels, number + 1);
            }
            blocks.push(row);
        }
        let head = Unit::zeros(&config, [from, config.features], 1, 1, 1)?;
        let dropout = Dropout::new(config.drop_rate, 0)?;
        let labels = config.num_labels;
        let classifier = if labels > 0 { Some(Linear::zeros(config.features, labels)?) } else { None };
        Ok(Self { config, stem, blocks, head, dropout, classifier })
    }

    /// The model that lies at `path`, a `.safetensors` file or a folder with one; names and shapes say which size it is. It takes
    /// TensorFlow's padding and eps. For timm's own weights make the model by [name](EfficientNetLiteConfig::named) and
    /// [`load`](ImageClassifier::load) them.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`], [`EfficientNetLiteConfig::from_checkpoint`] and [`Load::apply`](crate::nn::Load::apply).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let mut model = Self::zeros(EfficientNetLiteConfig::from_checkpoint(&checkpoint)?)?;
        model.load(&checkpoint)?;
        Ok(model)
    }

    /// Writes the model to a `.safetensors` file, with timm's names. [`EfficientNetNames::save`] has others.
    ///
    /// # Errors
    /// Those of [`Save::write`](crate::nn::Save::write).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        EfficientNetNames::Timm.save(&self.config)?.write(self, path)
    }

    /// The sizes.
    pub fn config(&self) -> &EfficientNetLiteConfig {
        &self.config
    }
}

/// How a classifier of so many labels starts.
fn classifier_start(labels: usize) -> Init {
    Init::around_zero((labels.max(1) as f64).sqrt().recip())
}

impl<T: Scalar> Unit<T> {
    fn zeros(
        config: &EfficientNetLiteConfig,
        channels: [usize; 2],
        kernel: usize,
        stride: usize,
        groups: usize,
    ) -> Result<Self> {
        let padding = if config.same_padding { Padding::Same } else { (kernel / 2).into() };
        let options = autodiff::Conv::new().stride(stride).padding(padding).groups(groups);
        let conv = Conv::zeros(channels, &[kernel, kernel], options)?.without_bias();
        Ok(Self { conv, norm: BatchNorm::new(channels[1], config.batch_norm_eps)? })
    }

    fn forward(&self, x: &Var<T>, mode: Mode) -> Result<Var<T>> {
        self.norm.forward(&self.conv.forward(x, mode)?, mode)
    }
}

impl<T: Scalar> Block<T> {
    fn zeros(config: &EfficientNetLiteConfig, stage: &EfficientNetStage, from: usize, drop_path: f64) -> Result<Self> {
        let inside = from * stage.expansion;
        let mut units = Vec::with_capacity(3);
        if stage.expansion > 1 {
            units.push(Unit::zeros(config, [from, inside], 1, 1, 1)?);
        }
        units.push(Unit::zeros(config, [inside, inside], stage.kernel, stage.stride, inside)?);
        units.push(Unit::zeros(config, [inside, stage.channels], 1, 1, 1)?);
        let residual = stage.stride == 1 && from == stage.channels;
        Ok(Self { units, residual, drop_path: StochasticDepth::new(drop_path, 0)? })
    }

    fn forward(&self, x: &Var<T>, mode: Mode) -> Result<Var<T>> {
        let mut h = x.clone();
        for (i, unit) in self.units.iter().enumerate() {
            h = unit.forward(&h, mode)?;
            if i + 1 < self.units.len() {
                h = h.relu6()?;
            }
        }
        if self.residual { x.add(&self.drop_path.forward(&h, mode)?) } else { Ok(h) }
    }
}

impl<T: Scalar> ImageClassifier<T> for EfficientNetLite<T> {
    fn embed(&self, images: &Var<T>, mode: Mode) -> Result<Var<T>> {
        let stem = self.stem.forward(images, mode)?.relu6()?;
        let mut blocks = self.blocks.iter().flatten().enumerate();
        let x = blocks.try_fold(stem, |x, (i, block)| block.forward(&x, mode.fork(i as u64)))?;
        self.head.forward(&x, mode)?.relu6()?.global_avg_pool()
    }

    fn forward(&self, images: &Var<T>, mode: Mode) -> Result<Var<T>> {
        let features = self.dropout.forward(&self.embed(images, mode)?, mode.fork(HEAD_STREAM))?;
        classify(NAME, self.classifier.as_ref(), &features, mode)
    }

    fn head(&self) -> &'static str {
        "classifier"
    }

    fn labels(&self) -> usize {
        self.config.num_labels
    }

    fn load(&mut self, checkpoint: &Checkpoint) -> Result<Loaded> {
        EfficientNetNames::of(checkpoint)?.load(&self.config)?.apply(self, checkpoint)
    }

    fn write(&self, folder: &Path) -> Result<()> {
        self.save(folder::tensors(folder)?)
    }

    fn reset_classifier(&mut self, labels: usize, rng: &mut dyn Rng) -> Result<()> {
        self.classifier = new_classifier(self.config.features, labels, classifier_start(labels), rng)?;
        self.config.num_labels = labels;
        Ok(())
    }
}
