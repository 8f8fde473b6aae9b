//! Attention.

use super::{
    Case, Run,
    dense::{case, normal},
};
use tenfold::{
    Device, Result,
    autodiff::{Attention, RelativePositions, Var},
};

pub const CASES: &[Case] = &[
    Case { name: "attention-8x12x512x64", setup: |device| attention(device, false) },
    Case { name: "attention-bias-8x12x512x64", setup: |device| attention(device, true) },
    Case { name: "attention-views-8x197x768", setup: views },
    Case { name: "disentangled-2x12x512", setup: disentangled },
];

fn attention(device: &Device, biased: bool) -> Result<Run> {
    let mut leaves = vec![normal(device, &[8, 12, 512, 64])?; 3];
    if biased {
        leaves.push(normal(device, &[1, 12, 512, 512])?);
    }
    case(leaves, |v| {
        let options = v[3..].iter().fold(Attention::new(), |options, bias| options.bias(bias));
        v[0].attention(&v[1], &v[2], &options)
    })
}

/// Projections `[B, N, H d]` in and out.
fn views(device: &Device) -> Result<Run> {
    let split = |x: &Var<f32>| x.reshape([8, 197, 12, 64])?.permute(&[0, 2, 1, 3]);
    case(vec![normal(device, &[8, 197, 768])?; 3], move |v| {
        let y = split(&v[0])?.attention(&split(&v[1])?, &split(&v[2])?, &Attention::new())?;
        y.permute(&[0, 2, 1, 3])?.reshape([8, 197, 768])
    })
}

/// The bias alone, from the products with the keys and queries of positions.
fn disentangled(device: &Device) -> Result<Run> {
    let positions = RelativePositions::new(512, 512, 256, 256, 512)?;
    case(vec![normal(device, &[2, 12, 512, 512])?; 2], move |v| {
        Var::disentangled_bias(Some(&v[0]), Some(&v[1]), &positions, 0.1)
    })
}
