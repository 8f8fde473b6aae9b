//! Attention.

use super::{Case, Pass, Run, backward_of_ones, normal};
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
    let operand = |seed| Ok::<_, tenfold::Error>(Var::parameter(normal(device, &[8, 12, 512, 64], seed)?));
    let (q, k, v) = (operand(1)?, operand(2)?, operand(3)?);
    let mut options = Attention::new();
    if biased {
        options = options.bias(&Var::parameter(normal(device, &[1, 12, 512, 512], 4)?));
    }
    Ok(Box::new(move |pass: Pass| backward_of_ones(pass, q.attention(&k, &v, &options)?)))
}

/// Projections `[B, N, H d]` in and out.
fn views(device: &Device) -> Result<Run> {
    let operand = |seed| Ok::<_, tenfold::Error>(Var::parameter(normal(device, &[8, 197, 768], seed)?));
    let (q, k, v) = (operand(1)?, operand(2)?, operand(3)?);
    let split = |x: &Var<f32>| x.reshape([8, 197, 12, 64])?.permute(&[0, 2, 1, 3]);
    Ok(Box::new(move |pass: Pass| {
        let y = split(&q)?.attention(&split(&k)?, &split(&v)?, &Attention::new())?;
        backward_of_ones(pass, y.permute(&[0, 2, 1, 3])?.reshape([8, 197, 768])?)
    }))
}

/// The bias alone, from the products with the keys and queries of positions.
fn disentangled(device: &Device) -> Result<Run> {
    let operand = |seed| Ok::<_, tenfold::Error>(Var::parameter(normal(device, &[2, 12, 512, 512], seed)?));
    let (c2p, p2c) = (operand(1)?, operand(2)?);
    let positions = RelativePositions::new(512, 512, 256, 256, 512)?;
    Ok(Box::new(move |pass: Pass| {
        backward_of_ones(pass, Var::disentangled_bias(Some(&c2p), Some(&p2c), &positions, 0.1)?)
    }))
}
