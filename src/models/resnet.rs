//! [`CifarResNet`]: residual networks for images of 32 x 32.

use super::{
    ImageClassifier, MOST,
    classifier::{classify, new_classifier},
    folder,
    start::draw,
};
use crate::{
    autodiff::{self, Var},
    error::{Error, ErrorKind, Result},
    module,
    nn::{BatchNorm, Checkpoint, Conv, Fan, Init, Linear, Load, Loaded, Mode, Nonlinearity, Save},
    scalar::Scalar,
    tensor::Origin,
};
use rand::Rng;
use std::path::Path;

const NAME: &str = "CifarResNet";

/// What a batch norm adds to the variance: PyTorch's default.
const EPS: f64 = 1e-5;

/// The depths of the paper. Others of the same form, as 50, would be taken for the networks for larger images.
const LAYERS: [usize; 6] = [20, 32, 44, 56, 110, 1202];

/// Sizes of a [`CifarResNet`].
///
/// ```
/// use tenfold::models::CifarResNetConfig;
///
/// assert_eq!(CifarResNetConfig::named("resnet20")?, CifarResNetConfig { width: 16, blocks: 3, num_labels: 10 });
/// let error = CifarResNetConfig::named("resnet18").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "CifarResNet: there is no \"resnet18\" for images of 32 x 32; there are resnet20, resnet32, resnet44, resnet56, resnet110, \
///      resnet1202"
/// );
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CifarResNetConfig {
    /// The channels of the first stage; the others have twice and four times as many.
    pub width: usize,
    /// The blocks of each of the three stages.
    pub blocks: usize,
    /// The number of classes; 0 for no classifier.
    pub num_labels: usize,
}

impl CifarResNetConfig {
    /// A size of the paper: `resnet20`, `resnet32`, `resnet44`, `resnet56`, `resnet110` or `resnet1202`, 6 n + 2 layers for n blocks; 16
    /// channels, 10 classes.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] for another name, listing those that there are.
    pub fn named(name: &str) -> Result<Self> {
        let layers = LAYERS.into_iter().find(|layers| name.strip_prefix("resnet") == Some(layers.to_string().as_str()));
        let Some(layers) = layers else {
            let names = LAYERS.map(|layers| format!("resnet{layers}")).join(", ");
            let message = format!("there is no {name:?} for images of 32 x 32; there are {names}");
            return Err(Error::new(ErrorKind::Value, NAME, message));
        };
        Ok(Self { width: 16, blocks: layers / 6, num_labels: 10 })
    }

    /// As the names and shapes of a checkpoint's tensors say.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where these are not the tensors of such a network.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        let has = |name: String| checkpoint.names().any(|other| other == name);
        let blocks = (0..).take_while(|i| has(format!("layer1.{i}.conv1.weight"))).count();
        if blocks == 0 || !has("conv1.weight".into()) || has("layer4.0.conv1.weight".into()) {
            let message =
                "these are not the tensors of a ResNet for 32 x 32 images, conv1, bn1, layer1 to layer3, linear";
            return Err(Origin::file(NAME, checkpoint.path()).error(ErrorKind::Value, message));
        }
        let first = |name: &str| Ok(checkpoint.shape(name)?.first().copied().unwrap_or_default());
        let num_labels = if has("linear.weight".into()) { first("linear.weight")? } else { 0 };
        Ok(Self { width: first("conv1.weight")?, blocks, num_labels })
    }

    fn check(&self) -> Result<()> {
        if self.width < 2 || self.width % 2 == 1 || self.blocks == 0 || self.width.max(self.blocks) > MOST {
            let message = format!(
                "width {} and {} blocks; needs an even width and at least one block, at most {MOST} of either",
                self.width, self.blocks
            );
            return Err(Error::new(ErrorKind::Value, NAME, message));
        }
        Ok(())
    }
}

/// A residual network for small images, ResNet-20 and its deeper kin.
///
/// ```text
/// relu(bn(conv 3 x 3))
/// three stages of w, 2 w and 4 w channels, the second and third on half the rows and columns of the one before
///   block     relu(shortcut(x) + bn(conv 3 x 3 of relu(bn(conv 3 x 3 of x))))
/// mean over positions; linear
/// ```
///
/// Where a stage begins, the shortcut takes every other row and column and fills the new channels with zeros, half of them before and
/// half behind: the paper's option A, which has no parameters.
///
/// Names are those of `akamaster/pytorch_resnet_cifar10`: `conv1`, `bn1`, `layer1.0.conv1`, .., `linear`. Its weights expect images
/// with mean (0.485, 0.456, 0.406) taken off and divided by (0.229, 0.224, 0.225).
///
/// K. He et al., *Deep residual learning for image recognition*, CVPR 2016, section 4.2.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{Tensor, autodiff::Var, models::{CifarResNet, CifarResNetConfig, ImageClassifier}, nn::{Mode, Module}};
///
/// let rng = &mut ChaCha8Rng::seed_from_u64(1);
/// let model = CifarResNet::<f32>::new(CifarResNetConfig::named("resnet20")?, rng)?;
/// assert_eq!(model.count().total, 269_722); // the paper's 0.27 million
/// let images = Var::constant(Tensor::normal([2, 32, 32, 3], rng)?);
/// assert_eq!(model.forward(&images, Mode::Evaluation)?.shape(), [2, 10]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct CifarResNet<T: Scalar> {
    config: CifarResNetConfig,
    conv1: Conv<T>,
    bn1: BatchNorm<T>,
    layer1: Vec<Block<T>>,
    layer2: Vec<Block<T>>,
    layer3: Vec<Block<T>>,
    linear: Option<Linear<T>>,
}

#[derive(Debug, Clone)]
struct Block<T: Scalar> {
    conv1: Conv<T>,
    bn1: BatchNorm<T>,
    conv2: Conv<T>,
    bn2: BatchNorm<T>,
}

module!(CifarResNet { conv1, bn1, layer1, layer2, layer3, linear });
module!(Block { conv1, bn1, conv2, bn2 });

impl<T: Scalar> CifarResNet<T> {
    /// Weights from a normal distribution that keeps the variance through a ReLU (Kaiming), the classifier's bias zero.
    ///
    /// # Errors
    /// As [`zeros`](CifarResNet::zeros).
    pub fn new<R: Rng + ?Sized>(config: CifarResNetConfig, rng: &mut R) -> Result<Self> {
        let mut model = Self::zeros(config)?;
        draw(&mut model, |_| start(), rng)?;
        Ok(model)
    }

    /// All weights zero, to be loaded.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] for an odd width or no blocks.
    pub fn zeros(config: CifarResNetConfig) -> Result<Self> {
        config.check()?;
        let w = config.width;
        let stage =
            |from: usize, to: usize| (0..config.blocks).map(move |i| Block::zeros(if i == 0 { from } else { to }, to));
        Ok(Self {
            config,
            conv1: conv(3, w, 1)?,
            bn1: BatchNorm::new(w, EPS)?,
            layer1: stage(w, w).collect::<Result<_>>()?,
            layer2: stage(w, 2 * w).collect::<Result<_>>()?,
            layer3: stage(2 * w, 4 * w).collect::<Result<_>>()?,
            linear: if config.num_labels > 0 { Some(Linear::zeros(4 * w, config.num_labels)?) } else { None },
        })
    }

    /// The model that lies at `path`, a `.safetensors` file or a folder with one; names and shapes say which it is.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`], [`CifarResNetConfig::from_checkpoint`] and [`Load::apply`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let mut model = Self::zeros(CifarResNetConfig::from_checkpoint(&checkpoint)?)?;
        model.load(&checkpoint)?;
        Ok(model)
    }

    /// Writes the model to a `.safetensors` file.
    ///
    /// # Errors
    /// Those of [`Save::write`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        Save::new().write(self, path)
    }

    /// The sizes.
    pub fn config(&self) -> &CifarResNetConfig {
        &self.config
    }
}

/// Kaiming, by the fan in.
fn start() -> Init {
    Init::KaimingNormal { fan: Fan::In, gain: Nonlinearity::Relu.gain() }
}

/// A 3 x 3 convolution that keeps the size, or halves it.
fn conv<T: Scalar>(from: usize, to: usize, stride: usize) -> Result<Conv<T>> {
    Ok(Conv::zeros([from, to], &[3, 3], autodiff::Conv::new().stride(stride).padding(1))?.without_bias())
}

impl<T: Scalar> Block<T> {
    fn zeros(from: usize, to: usize) -> Result<Self> {
        Ok(Self {
            conv1: conv(from, to, if from == to { 1 } else { 2 })?,
            bn1: BatchNorm::new(to, EPS)?,
            conv2: conv(to, to, 1)?,
            bn2: BatchNorm::new(to, EPS)?,
        })
    }

    fn forward(&self, x: &Var<T>, mode: Mode) -> Result<Var<T>> {
        let h = self.bn1.forward(&self.conv1.forward(x, mode)?, mode)?.relu()?;
        let h = self.bn2.forward(&self.conv2.forward(&h, mode)?, mode)?;
        shortcut(x, h.shape())?.add(&h)?.relu()
    }
}

/// x itself, or every other row and column of it between channels of zeros.
fn shortcut<T: Scalar>(x: &Var<T>, shape: &[usize]) -> Result<Var<T>> {
    if x.shape() == shape {
        return Ok(x.clone());
    }
    let new = shape[3] - x.shape()[3];
    x.slice(ndarray::s![.., ..;2, ..;2, ..])?.pad(&[(0, 0), (0, 0), (0, 0), (new / 2, new - new / 2)])
}

impl<T: Scalar> ImageClassifier<T> for CifarResNet<T> {
    fn embed(&self, images: &Var<T>, mode: Mode) -> Result<Var<T>> {
        let x = self.bn1.forward(&self.conv1.forward(images, mode)?, mode)?.relu()?;
        let mut blocks = self.layer1.iter().chain(&self.layer2).chain(&self.layer3).enumerate();
        blocks.try_fold(x, |x, (i, block)| block.forward(&x, mode.fork(i as u64)))?.global_avg_pool()
    }

    fn forward(&self, images: &Var<T>, mode: Mode) -> Result<Var<T>> {
        classify(NAME, self.linear.as_ref(), &self.embed(images, mode)?, mode)
    }

    fn head(&self) -> &'static str {
        "linear"
    }

    fn labels(&self) -> usize {
        self.config.num_labels
    }

    fn load(&mut self, checkpoint: &Checkpoint) -> Result<Loaded> {
        Load::new().ignore("*.num_batches_tracked").apply(self, checkpoint)
    }

    fn write(&self, folder: &Path) -> Result<()> {
        self.save(folder::tensors(folder)?)
    }

    fn reset_classifier(&mut self, labels: usize, rng: &mut dyn Rng) -> Result<()> {
        self.linear = new_classifier(4 * self.config.width, labels, start(), rng)?;
        self.config.num_labels = labels;
        Ok(())
    }
}
