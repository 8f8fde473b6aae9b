//! Activations, softmax, normalisation, dropout.

use super::{
    Case, Run,
    dense::{case, normal},
};
use tenfold::{Device, Result, autodiff::Var};

pub const CASES: &[Case] = &[
    Case { name: "gelu-12544x384", setup: |device| unary(device, &[12544, 384], Var::gelu) },
    Case { name: "gelu-tanh-12544x384", setup: |device| unary(device, &[12544, 384], Var::gelu_tanh) },
    Case { name: "silu-12544x384", setup: |device| unary(device, &[12544, 384], Var::silu) },
    Case { name: "tanh-12544x384", setup: |device| unary(device, &[12544, 384], Var::tanh) },
    Case { name: "relu-12544x384", setup: |device| unary(device, &[12544, 384], Var::relu) },
    Case { name: "exp-12544x384", setup: |device| unary(device, &[12544, 384], Var::exp) },
    Case { name: "log-softmax-4096x1000", setup: |device| unary(device, &[4096, 1000], |x| x.log_softmax(1)) },
    Case { name: "softmax-96x512x512", setup: |device| unary(device, &[96, 512, 512], |x| x.softmax(2)) },
    Case { name: "softmax-mode-1-64x512x96", setup: |device| unary(device, &[64, 512, 96], |x| x.softmax(1)) },
    Case { name: "layer-norm-12544x96", setup: |device| layer_norm(device, [12544, 96]) },
    Case { name: "layer-norm-4096x768", setup: |device| layer_norm(device, [4096, 768]) },
    Case { name: "rms-norm-4096x768", setup: rms_norm },
    Case { name: "batch-norm-12544x96", setup: batch_norm },
    Case { name: "grn-4x56x56x384", setup: grn },
    Case { name: "affine-4096x768", setup: affine },
    Case { name: "dropout-12544x384", setup: |device| unary(device, &[12544, 384], |x| x.dropout(0.1, 7, 3)) },
];

fn unary(device: &Device, shape: &[usize], operation: fn(&Var<f32>) -> Result<Var<f32>>) -> Result<Run> {
    case(vec![normal(device, shape)?], move |v| operation(&v[0]))
}

fn layer_norm(device: &Device, shape: [usize; 2]) -> Result<Run> {
    let leaves = vec![normal(device, &shape)?, normal(device, &shape[1..])?, normal(device, &shape[1..])?];
    case(leaves, |v| v[0].layer_norm(Some(&v[1]), Some(&v[2]), 1e-6))
}

fn rms_norm(device: &Device) -> Result<Run> {
    case(vec![normal(device, &[4096, 768])?, normal(device, &[768])?], |v| v[0].rms_norm(Some(&v[1]), 1e-6))
}

fn batch_norm(device: &Device) -> Result<Run> {
    let mean = normal(device, &[96])?.into_order()?;
    let variance = normal(device, &[96])?.abs()?.into_order()?;
    case(vec![normal(device, &[12544, 96])?, normal(device, &[96])?, normal(device, &[96])?], move |v| {
        Ok(v[0].batch_norm_training(&mean, &variance, 0.1, Some(&v[1]), Some(&v[2]), 1e-5)?.result)
    })
}

fn affine(device: &Device) -> Result<Run> {
    let leaves = vec![normal(device, &[4096, 768])?, normal(device, &[768])?, normal(device, &[768])?];
    case(leaves, |v| v[0].affine(&v[1], Some(&v[2])))
}

fn grn(device: &Device) -> Result<Run> {
    let leaves = vec![normal(device, &[4, 56, 56, 384])?, normal(device, &[384])?, normal(device, &[384])?];
    case(leaves, |v| v[0].grn(&v[1], &v[2], 1e-6))
}
