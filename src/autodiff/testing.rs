//! What the operations' tests share.

use crate::tensor::Tensor;
use ndarray::IxDyn;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Standard normal numbers, the same for the same seed.
pub(crate) fn normal(shape: &[usize], seed: u64) -> Tensor<f64, IxDyn> {
    Tensor::normal(shape.to_vec(), &mut ChaCha8Rng::seed_from_u64(seed)).unwrap().into_dyn()
}

/// The same entries with the modes the other way round in memory.
pub(crate) fn reversed(x: &Tensor<f64, IxDyn>) -> Tensor<f64, IxDyn> {
    let order: Vec<usize> = (0..x.order()).rev().collect();
    x.permute(&order).unwrap().to_contiguous().unwrap().permute(&order).unwrap()
}

pub(crate) fn close(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() <= tolerance * y.abs().max(1.0), "entry {i}: {x} against {y}");
    }
}
