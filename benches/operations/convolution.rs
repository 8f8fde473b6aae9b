//! Convolutions and pools of channels-last images.

use super::{Case, Pass, Run};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tenfold::{
    Device, Result, Tensor,
    autodiff::{Conv, ConvTranspose, Interpolation, Pool, Var, without_gradients},
};

pub const CASES: &[Case] = &[
    Case { name: "conv-3x3-64", setup: |device| conv(device, [4, 56, 56, 64], [64, 64, 3, 3], Conv::new().padding(1)) },
    Case {
        name: "conv-3x3-stride-2",
        setup: |device| conv(device, [4, 56, 56, 64], [128, 64, 3, 3], Conv::new().padding(1).stride(2)),
    },
    Case {
        name: "conv-3x3-256",
        setup: |device| conv(device, [4, 14, 14, 256], [256, 256, 3, 3], Conv::new().padding(1)),
    },
    Case {
        name: "conv-3x3-groups",
        setup: |device| conv(device, [4, 28, 28, 128], [128, 4, 3, 3], Conv::new().padding(1).groups(32)),
    },
    Case {
        name: "conv-7x7-image",
        setup: |device| first(device, [4, 224, 224, 3], [64, 3, 7, 7], Conv::new().padding(3).stride(2)),
    },
    Case { name: "conv-1x1", setup: |device| conv(device, [4, 56, 56, 96], [384, 96, 1, 1], Conv::new()) },
    Case {
        name: "conv-patchify-4x4",
        setup: |device| first(device, [4, 224, 224, 3], [96, 3, 4, 4], Conv::new().stride(4)),
    },
    Case {
        name: "conv-patchify-2x2",
        setup: |device| conv(device, [4, 56, 56, 96], [192, 96, 2, 2], Conv::new().stride(2)),
    },
    Case {
        name: "depthwise-7x7",
        setup: |device| conv(device, [4, 56, 56, 96], [96, 1, 7, 7], Conv::new().padding(3).groups(96)),
    },
    // The same beside PyTorch in its own order.
    Case {
        name: "depthwise-7x7-nchw",
        setup: |device| conv(device, [4, 56, 56, 96], [96, 1, 7, 7], Conv::new().padding(3).groups(96)),
    },
    Case {
        name: "depthwise-7x7-384",
        setup: |device| conv(device, [4, 14, 14, 384], [384, 1, 7, 7], Conv::new().padding(3).groups(384)),
    },
    Case {
        name: "depthwise-3x3",
        setup: |device| conv(device, [4, 56, 56, 96], [96, 1, 3, 3], Conv::new().padding(1).groups(96)),
    },
    Case {
        name: "depthwise-3x3-stride-2",
        setup: |device| conv(device, [4, 56, 56, 96], [96, 1, 3, 3], Conv::new().padding(1).stride(2).groups(96)),
    },
    Case { name: "conv-1d", setup: |device| conv(device, [4, 3000, 128], [128, 128, 3], Conv::new().padding(1)) },
    Case {
        name: "conv-3d",
        setup: |device| conv(device, [2, 16, 28, 28, 32], [64, 32, 3, 3, 3], Conv::new().padding(1)),
    },
    Case {
        name: "conv-transpose-2x2",
        setup: |device| {
            let x = normal(device, &[4, 28, 28, 192])?;
            let w = normal(device, &[192, 96, 2, 2])?;
            let b = normal(device, &[96])?;
            let options = ConvTranspose::new().stride(2);
            timed(vec![x, w, b], move |v| v[0].conv_transpose(&v[1], Some(&v[2]), &options))
        },
    },
    Case {
        name: "max-pool-3x3",
        setup: |device| {
            let options = Pool::new(3).stride(2).padding(1);
            timed(vec![normal(device, &[4, 112, 112, 64])?], move |v| v[0].max_pool(&options))
        },
    },
    Case {
        name: "avg-pool-2x2",
        setup: |device| timed(vec![normal(device, &[4, 112, 112, 64])?], move |v| v[0].avg_pool(&Pool::new(2))),
    },
    Case {
        name: "bilinear-2x",
        setup: |device| {
            let how = Interpolation::Linear { align_corners: false };
            timed(vec![normal(device, &[4, 56, 56, 64])?], move |v| v[0].resize(&[112, 112], how))
        },
    },
];

fn normal(device: &Device, shape: &[usize]) -> Result<Var<f32>> {
    let x = Tensor::<f32, _>::normal(shape.to_vec(), &mut ChaCha8Rng::seed_from_u64(shape.len() as u64))?;
    Ok(Var::parameter(x.to_device(device)?))
}

fn conv<const N: usize>(device: &Device, image: [usize; N], weight: [usize; N], options: Conv) -> Result<Run> {
    let operands = vec![normal(device, &image)?, normal(device, &weight)?, normal(device, &weight[..1])?];
    timed(operands, move |v| v[0].conv(&v[1], Some(&v[2]), &options))
}

/// A first layer: nobody wants the image's gradient.
fn first<const N: usize>(device: &Device, image: [usize; N], weight: [usize; N], options: Conv) -> Result<Run> {
    let x = normal(device, &image)?.detach();
    timed(vec![x, normal(device, &weight)?, normal(device, &weight[..1])?], move |v| {
        v[0].conv(&v[1], Some(&v[2]), &options)
    })
}

/// Runs an operation of some variables.
fn timed(operands: Vec<Var<f32>>, f: impl Fn(&[Var<f32>]) -> Result<Var<f32>> + 'static) -> Result<Run> {
    let y = without_gradients(|| f(&operands))?;
    let seed = Tensor::ones(y.shape().to_vec())?.to_device(y.device())?.into_dyn();
    Ok(Box::new(move |pass| match pass {
        Pass::Forward => without_gradients(|| f(&operands)).map(drop),
        Pass::Both => f(&operands)?.backward_from(seed.clone()).map(drop),
    }))
}
