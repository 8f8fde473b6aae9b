//! Matrix products, lookups, losses, mode products.

use super::{Case, Pass, Run};
use ndarray::IxDyn;
use rand::SeedableRng;
use tenfold::{
    Device, Result, Tensor,
    autodiff::{CrossEntropy, Var},
};

pub const CASES: &[Case] = &[
    Case { name: "matmul-1024", setup: matmul },
    Case { name: "linear-512x768-3072", setup: linear },
    Case { name: "embedding-512-30522x768", setup: embedding },
    Case { name: "cross-entropy-512x1000", setup: cross_entropy },
    Case { name: "cross-entropy-64x30522", setup: cross_entropy_wide },
    Case { name: "tucker-768x768x3x3", setup: tucker },
    Case { name: "bias-mul-4096x768", setup: broadcast },
];

/// Standard normal numbers on the device.
pub fn normal(device: &Device, shape: &[usize]) -> Result<Tensor<f32, IxDyn>> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(shape.iter().sum::<usize>() as u64);
    Tensor::normal(shape.to_vec(), &mut rng)?.to_device(device)
}

/// Runs `forward` on constants or on parameters with these values; back from a gradient of ones.
pub fn case(
    leaves: Vec<Tensor<f32, IxDyn>>,
    forward: impl Fn(&[Var<f32>]) -> Result<Var<f32>> + 'static,
) -> Result<Run> {
    let constants: Vec<Var<f32>> = leaves.iter().cloned().map(Var::constant).collect();
    let parameters: Vec<Var<f32>> = leaves.into_iter().map(Var::parameter).collect();
    let y = forward(&constants)?;
    let ones = Tensor::ones(y.shape().to_vec())?.to_device(y.device())?;
    Ok(Box::new(move |pass| match pass {
        Pass::Forward => forward(&constants).map(drop),
        Pass::Both => forward(&parameters)?.backward_from(ones.clone()).map(drop),
    }))
}

fn matmul(device: &Device) -> Result<Run> {
    case(vec![normal(device, &[1024, 1024])?, normal(device, &[1024, 1024])?], |v| v[0].matmul(&v[1]))
}

fn linear(device: &Device) -> Result<Run> {
    let leaves = vec![normal(device, &[512, 768])?, normal(device, &[3072, 768])?, normal(device, &[3072])?];
    case(leaves, |v| v[0].linear(&v[1], Some(&v[2])))
}

fn embedding(device: &Device) -> Result<Run> {
    let ids = Tensor::<i64, IxDyn>::from_fn(vec![512], |i| (i[0] * 7919 % 30522) as i64)?.to_device(device)?;
    case(vec![normal(device, &[30522, 768])?], move |v| v[0].embedding(&ids, None))
}

fn rows_of_logits(device: &Device, rows: usize, classes: usize) -> Result<Run> {
    let labels = Tensor::<i64, IxDyn>::from_fn(vec![rows], |i| (i[0] * 7919 % classes) as i64)?.to_device(device)?;
    case(vec![normal(device, &[rows, classes])?], move |v| v[0].cross_entropy(&labels, CrossEntropy::default()))
}

fn cross_entropy(device: &Device) -> Result<Run> {
    rows_of_logits(device, 512, 1000)
}

fn cross_entropy_wide(device: &Device) -> Result<Run> {
    rows_of_logits(device, 64, 30522)
}

/// The update of a 3 x 3 convolution: core 40 x 40 x 3 x 3.
fn tucker(device: &Device) -> Result<Run> {
    let shapes: [&[usize]; 5] = [&[40, 40, 3, 3], &[768, 40], &[768, 40], &[3, 3], &[3, 3]];
    let leaves = shapes.into_iter().map(|shape| normal(device, shape)).collect::<Result<_>>()?;
    case(leaves, |v| v[0].tucker(&v[1..].iter().collect::<Vec<_>>()))
}

fn broadcast(device: &Device) -> Result<Run> {
    let leaves = vec![normal(device, &[4096, 768])?, normal(device, &[768])?, normal(device, &[768])?];
    case(leaves, |v| v[0].mul(&v[1])?.add(&v[2]))
}
