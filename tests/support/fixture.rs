//! The files of other libraries' values (`tests/fixtures`).

use super::assert_within;
use ndarray::{ArrayD, Ix1, Ix2, IxDyn};
use safetensors::{Dtype, SafeTensors};
use std::{collections::BTreeMap, path::Path};
use tenfold::{Device, Tensor};

/// The arrays of `tests/fixtures/NAME.safetensors`, doubles all.
pub fn arrays(name: &str) -> BTreeMap<String, ArrayD<f64>> {
    let path = format!("{}/tests/fixtures/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(Path::new(&path)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let array = |view: &safetensors::tensor::TensorView<'_>| {
        assert_eq!(view.dtype(), Dtype::F64);
        let numbers = view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
        ArrayD::from_shape_vec(view.shape(), numbers).unwrap()
    };
    file.tensors().iter().map(|(name, view)| (name.clone(), array(view))).collect()
}

pub const TENSORS: [&str; 5] = ["o2", "o3", "o3b", "o4", "o5"];

/// The arrays of one fixture file by name; those that no test took are an error in the end.
pub struct Fixture {
    arrays: BTreeMap<String, ArrayD<f64>>,
}

impl Fixture {
    pub fn read(topic: &str) -> Self {
        Self { arrays: arrays(&format!("tensorly/{topic}")) }
    }

    pub fn take(&mut self, name: &str) -> ArrayD<f64> {
        self.arrays.remove(name).unwrap_or_else(|| panic!("no {name} in the fixture"))
    }

    pub fn tensor(&mut self, name: &str) -> Tensor<f64, IxDyn> {
        Tensor::from(self.take(name)).to_device(&Device::cpu().threads(2)).unwrap()
    }

    pub fn matrix(&mut self, name: &str) -> Tensor<f64, Ix2> {
        self.tensor(name).into_order().unwrap()
    }

    pub fn vector(&mut self, name: &str) -> Tensor<f64, Ix1> {
        self.tensor(name).into_order().unwrap()
    }

    pub fn matrices(&mut self, name: &str, count: usize) -> Vec<Tensor<f64, Ix2>> {
        (0..count).map(|i| self.matrix(&format!("{name}.{i}"))).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.arrays.contains_key(name)
    }

    /// Ours is TensorLy's to 1e-12 of its largest entry.
    #[track_caller]
    pub fn check<D: ndarray::Dimension>(&mut self, name: &str, ours: &Tensor<f64, D>) {
        let theirs = self.take(name);
        let largest = theirs.iter().fold(0.0f64, |a, b| a.max(b.abs()));
        assert_within(ours, &theirs, 1e-12 * largest);
    }

    #[track_caller]
    pub fn check_number(&mut self, name: &str, ours: f64) {
        let theirs = self.take(name)[[0]];
        assert!((ours - theirs).abs() <= 1e-12 * theirs.abs(), "{name}: {ours}, TensorLy has {theirs}");
    }

    #[track_caller]
    pub fn all_taken(&self) {
        assert!(self.arrays.is_empty(), "not compared: {:?}", self.arrays.keys());
    }
}
