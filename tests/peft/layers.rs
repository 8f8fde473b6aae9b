//! A layer of any kind, so that one test runs on all of them.

use ndarray::IxDyn;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tenfold::{
    Result, Tensor,
    autodiff::{Conv as ConvOptions, ConvTranspose as ConvTransposeOptions, Var},
    nn::{Conv, ConvTranspose, Embedding, Layer, Linear, Mode, Module, Visitor, VisitorMut},
};

pub type Dyn = Tensor<f64, IxDyn>;

pub fn normal(shape: &[usize], seed: u64) -> Dyn {
    Tensor::normal(shape.to_vec(), &mut ChaCha8Rng::seed_from_u64(seed)).unwrap().into_dyn()
}

#[track_caller]
pub fn close(what: &str, a: &Dyn, b: &Dyn, tolerance: f64) {
    assert_eq!(a.shape(), b.shape(), "{what}");
    let scale = b.max_abs().unwrap().max(1.0);
    let away = a.sub(b).unwrap().max_abs().unwrap();
    assert!(away <= tolerance * scale, "{what}: {away} apart at scale {scale}");
}

#[derive(Clone)]
pub enum Any {
    Linear(Linear<f64>),
    Embedding(Embedding<f64>),
    Conv(Conv<f64>),
    ConvTranspose(ConvTranspose<f64>),
}

/// What a layer sees: numbers, or ids.
#[derive(Clone)]
pub enum Input {
    Numbers(Var<f64>),
    Ids(Tensor<i64, IxDyn>),
}

impl Any {
    pub fn layer(&self) -> &dyn Layer<f64> {
        match self {
            Self::Linear(layer) => layer,
            Self::Embedding(layer) => layer,
            Self::Conv(layer) => layer,
            Self::ConvTranspose(layer) => layer,
        }
    }

    pub fn layer_mut(&mut self) -> &mut dyn Layer<f64> {
        match self {
            Self::Linear(layer) => layer,
            Self::Embedding(layer) => layer,
            Self::Conv(layer) => layer,
            Self::ConvTranspose(layer) => layer,
        }
    }

    pub fn forward(&self, input: &Input, mode: Mode) -> Result<Var<f64>> {
        match (self, input) {
            (Self::Linear(layer), Input::Numbers(x)) => layer.forward(x, mode),
            (Self::Conv(layer), Input::Numbers(x)) => layer.forward(x, mode),
            (Self::ConvTranspose(layer), Input::Numbers(x)) => layer.forward(x, mode),
            (Self::Embedding(layer), Input::Ids(ids)) => layer.forward(ids, mode),
            _ => panic!("a table sees ids, everything else numbers"),
        }
    }
}

impl Module<f64> for Any {
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, f64>) {
        match self {
            Self::Linear(layer) => visitor.part("layer", layer),
            Self::Embedding(layer) => visitor.part("layer", layer),
            Self::Conv(layer) => visitor.part("layer", layer),
            Self::ConvTranspose(layer) => visitor.part("layer", layer),
        }
    }

    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, f64>) {
        match self {
            Self::Linear(layer) => visitor.part("layer", layer),
            Self::Embedding(layer) => visitor.part("layer", layer),
            Self::Conv(layer) => visitor.part("layer", layer),
            Self::ConvTranspose(layer) => visitor.part("layer", layer),
        }
    }
}

/// One layer of each kind with an input for it, and with its name.
pub fn all() -> Vec<(&'static str, Any, Input)> {
    let rng = &mut ChaCha8Rng::seed_from_u64(3);
    let numbers = |shape: &[usize]| Input::Numbers(Var::constant(normal(shape, 4)));
    let mut layers = Vec::new();
    layers.push(("linear", Any::Linear(Linear::new(7, 5, rng).unwrap()), numbers(&[2, 3, 7])));
    let ids = Tensor::from_vec([2, 3], vec![3, 0, 8, 8, 1, 5]).unwrap().into_dyn();
    layers.push(("embedding", Any::Embedding(Embedding::new(9, 5, rng).unwrap()), Input::Ids(ids.clone())));
    let padded = Embedding::new(9, 5, rng).unwrap().padding(8).unwrap();
    layers.push(("padded embedding", Any::Embedding(padded), Input::Ids(ids)));
    for (name, channels, kernel, options, input) in [
        ("line", [3, 4], &[3][..], ConvOptions::new().stride(2).padding(1), &[2, 9, 3][..]),
        ("plane", [3, 4], &[3, 3], ConvOptions::new().padding(1).dilation(2), &[2, 6, 7, 3]),
        ("volume", [2, 3], &[2, 2, 2], ConvOptions::new(), &[1, 4, 3, 3, 2]),
        ("groups", [4, 6], &[3, 3], ConvOptions::new().padding(1).groups(2), &[2, 5, 4, 4]),
        ("depthwise", [6, 6], &[3, 3], ConvOptions::new().padding(1).groups(6), &[1, 5, 4, 6]),
    ] {
        layers.push((name, Any::Conv(Conv::new(channels, kernel, options, rng).unwrap()), numbers(input)));
    }
    for (name, channels, kernel, options, input) in [
        ("up", [3, 4], &[3, 3][..], ConvTransposeOptions::new().stride(2), &[1, 3, 3, 3][..]),
        ("up groups", [4, 6], &[3], ConvTransposeOptions::new().stride(2).groups(2), &[1, 3, 4]),
    ] {
        let layer = ConvTranspose::new(channels, kernel, options, rng).unwrap();
        layers.push((name, Any::ConvTranspose(layer), numbers(input)));
    }
    layers
}

/// Puts normal numbers into every parameter of the adapters, so that no update is zero. Where `padding` is a row of a
/// table, whose update stays zero, it has to be zero in the factor of the rows.
pub fn fill(layer: &mut dyn Layer<f64>, padding: Option<usize>, seed: u64) {
    let names: Vec<String> = layer.adapters().names().map(str::to_string).collect();
    for adapter in &names {
        let adapter = layer.adapters_mut().get_mut(adapter).unwrap();
        for (i, (name, parameter)) in adapter.parameters_mut().into_iter().enumerate() {
            let shape = parameter.shape().to_vec();
            let mut value = normal(&shape, seed + i as u64);
            match (padding, name.as_str()) {
                (Some(row), "factors.0") => {
                    value.as_mut_slice().unwrap()[row * shape[1]..(row + 1) * shape[1]].fill(0.0);
                }
                (Some(row), "lora_A") => {
                    (0..shape[0]).for_each(|r| value.as_mut_slice().unwrap()[r * shape[1] + row] = 0.0);
                }
                _ => {}
            }
            parameter.set(value).unwrap();
        }
    }
}

/// The row of a table that does not train.
pub fn padding_of(layer: &dyn Layer<f64>) -> Option<usize> {
    match layer.operation() {
        tenfold::nn::Operation::Embedding { padding } => padding,
        _ => None,
    }
}
