//! The model that both sides have: `model.py` is the same one.

use ndarray::IxDyn;
use std::path::PathBuf;
use tenfold::{
    Result, Scalar, Tensor, TensorFile, autodiff,
    autodiff::Var,
    module,
    nn::{Conv, Embedding, LayerNorm, Linear, Load, Mode, Module, Renames},
};

pub struct Block<T: Scalar> {
    norm: LayerNorm<T>,
    up: Linear<T>,
    down: Linear<T>,
}
module!(Block { norm, up, down });

/// Ids `[B, L]` and images `[B, H, W, 3]` to `[B, 3]`.
pub struct Model<T: Scalar> {
    words: Embedding<T>,
    conv1: Conv<T>,
    conv2: Conv<T>,
    blocks: Vec<Block<T>>,
    head: Linear<T>,
}
module!(Model { words, conv1, conv2, blocks, head });

pub fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch/interop")
}

pub fn expected() -> TensorFile {
    TensorFile::open(fixtures().join("expected.safetensors")).unwrap()
}

impl Model<f64> {
    /// The base model of the fixtures.
    pub fn base() -> Self {
        let block = || Block {
            norm: LayerNorm::new(6, 1e-5).unwrap(),
            up: Linear::zeros(6, 8).unwrap(),
            down: Linear::zeros(8, 6).unwrap(),
        };
        let (first, plain) = (autodiff::Conv::new().stride(2).padding(1), autodiff::Conv::new());
        let mut model = Self {
            words: Embedding::zeros(9, 6).unwrap(),
            conv1: Conv::zeros([3, 6], &[3, 3], first).unwrap(),
            conv2: Conv::zeros([6, 6], &[3, 2], plain).unwrap(),
            blocks: vec![block(), block()],
            head: Linear::zeros(6, 3).unwrap(),
        };
        let path = fixtures().join("expected.safetensors");
        let open = TensorFile::open(&path).unwrap();
        let load = Load::new().renames(Renames::new().strip_prefix("model."));
        let rest = open.names().filter(|name| !name.starts_with("model."));
        rest.fold(load, |load, name| load.ignore(name)).read(&mut model, &path).unwrap();
        model
    }

    fn forward(&self, ids: &Tensor<i64>, image: &Var<f64>) -> Result<Var<f64>> {
        let mode = Mode::Evaluation;
        let seen = self.conv2.forward(&self.conv1.forward(image, mode)?.gelu()?, mode)?.gelu()?;
        let seen = seen.mean_modes(&[1, 2], false)?;
        let mut h = self.words.forward(ids, mode)?.mean_modes(&[1], false)?.add(&seen)?;
        for block in &self.blocks {
            let inner = block.up.forward(&block.norm.forward(&h)?, mode)?.gelu()?;
            h = h.add(&block.down.forward(&inner, mode)?)?;
        }
        self.head.forward(&h, mode)
    }

    /// What it computes for the fixtures' input.
    pub fn run(&self) -> Tensor<f64> {
        self.output().unwrap().into_value()
    }

    /// A number to train for.
    pub fn loss(&self) -> Result<Var<f64>> {
        self.output()?.square()?.mean()
    }

    fn output(&self) -> Result<Var<f64>> {
        let file = expected();
        let image = Var::constant(file.get::<f64, IxDyn>("image")?);
        self.forward(&file.get("ids")?, &image)
    }

    /// Other numbers in everything that trains.
    pub fn train(&mut self) {
        for (i, (_, parameter)) in self.parameters_mut().into_iter().enumerate() {
            if parameter.trains() {
                let value = Tensor::from_fn(parameter.shape().to_vec(), |index| {
                    let position = index.iter().fold(i, |sum, n| 7 * sum + n);
                    0.4 * ((position * position) as f64).sin()
                });
                parameter.set(value.unwrap()).unwrap();
            }
        }
    }
}
