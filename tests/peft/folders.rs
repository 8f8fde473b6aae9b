//! A small model with layers of several kinds, and a folder for its adapters.

use super::layers::normal;
use ndarray::IxDyn;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::path::PathBuf;
use tenfold::{
    Scalar, Tensor, autodiff, module,
    nn::{BatchNorm, Conv, LayerNorm, Linear, Module},
};

pub const TENSORS: &str = "adapter_model.safetensors";
pub const CONFIG: &str = "adapter_config.json";

pub struct Model<T: Scalar> {
    pub stem: Conv<T>,
    bn: BatchNorm<T>,
    norm: LayerNorm<T>,
    up: Linear<T>,
    inner: Vec<Linear<T>>,
    pub head: Linear<T>,
}
module!(Model { stem, bn, norm, up, inner => "up.inner", head });

impl<T: Scalar> Model<T> {
    pub fn new(seed: u64) -> Self {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        Self {
            stem: Conv::new([3, 4], &[3, 3], autodiff::Conv::new().padding(1), rng).unwrap(),
            bn: BatchNorm::new(4, 1e-5).unwrap(),
            norm: LayerNorm::new(4, 1e-5).unwrap(),
            up: Linear::new(4, 6, rng).unwrap(),
            inner: vec![Linear::new(6, 6, rng).unwrap(), Linear::new(6, 6, rng).unwrap()],
            head: Linear::new(6, 2, rng).unwrap(),
        }
    }
}

/// Other numbers in everything that trains, as if it had been trained.
pub fn train<T: Scalar>(model: &mut Model<T>) {
    for (i, (_, parameter)) in model.parameters_mut().into_iter().enumerate() {
        if parameter.trains() {
            let value = normal(parameter.shape(), 50 + i as u64).cast().unwrap();
            parameter.set(value).unwrap();
        }
    }
    let buffers = model.buffers();
    let (_, mean) = buffers.iter().find(|(name, _)| name == "bn.running_mean").unwrap();
    mean.set(normal(mean.value().shape(), 7).cast::<T>().unwrap()).unwrap();
}

/// Every tensor of a model with its name and whether it trains.
pub fn state<T: Scalar>(model: &Model<T>) -> Vec<(String, bool, Vec<f64>)> {
    let numbers = |tensor: &Tensor<T, IxDyn>| tensor.to_vec().unwrap().into_iter().map(T::f64).collect();
    let parameters = model.parameters().into_iter().map(|(name, p)| (name, p.trains(), numbers(p.value())));
    parameters.chain(model.buffers().into_iter().map(|(name, b)| (name, false, numbers(&b.value())))).collect()
}

pub fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made").join("here");
    (folder, path)
}
