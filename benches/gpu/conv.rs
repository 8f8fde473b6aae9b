//! Convolutions of channels-last images, and attention.

use super::{
    timing::{Bench, numbers},
    work::{Operation, Work},
};
use tenfold::{
    Precision, Result,
    autodiff::{Attention, Conv, Var},
};

const ALL: [Precision; 3] = [Precision::F32, Precision::Tf32, Precision::Bf16];

fn len(shape: &[usize]) -> f64 {
    shape.iter().product::<usize>() as f64
}

/// An operand in a precision, with or without a gradient.
fn operand(bench: &Bench, shape: &[usize], precision: Precision, trained: bool) -> Result<Var<f32>> {
    let x = numbers(bench, shape, shape.len() as u64)?.to_device(&bench.on(precision)?)?;
    Ok(if trained { Var::parameter(x) } else { Var::constant(x) })
}

/// 7 x 7 with a padding of 3: the forward pass and each gradient by itself.
fn depthwise(bench: &Bench, h: usize, c: usize) -> Result<()> {
    let (image, kernel) = ([16, h, h, c], [c, 1, 7, 7]);
    let options = Conv::new().padding(3).groups(c);
    let work = Work { flops: 2.0 * 49.0 * len(&image), bytes: 4.0 * (2.0 * len(&image) + len(&kernel)) };
    for what in ["forward", "input", "weight"] {
        let name = format!("depthwise-7x7-16x{h}x{h}x{c}-{what}");
        if !bench.wants(&name) {
            continue;
        }
        let of = |name: &str, shape: &[usize]| operand(bench, shape, Precision::F32, name == what);
        let operands = [of("input", &image)?, of("weight", &kernel)?];
        let f = |v: &[Var<f32>]| v[0].conv(&v[1], None, &options);
        match what {
            "forward" => bench.forward(&name, Precision::F32, work, &operands, &f)?,
            _ => bench.backward(&name, Precision::F32, work, &operands, &f)?,
        }
    }
    Ok(())
}

/// Forward and both gradients in every precision; `products` and `moves` are how often the work of the forward pass is done on the way back.
fn in_all_precisions(
    bench: &Bench,
    name: &str,
    shapes: &[&[usize]],
    work: Work,
    [products, moves]: [f64; 2],
    f: Operation<'_>,
) -> Result<()> {
    for precision in ALL {
        let (forward, backward) = (format!("{name}-forward-{precision}"), format!("{name}-backward-{precision}"));
        if !bench.wants(&forward) && !bench.wants(&backward) {
            continue;
        }
        let operands: Vec<Var<f32>> =
            shapes.iter().map(|shape| operand(bench, shape, precision, true)).collect::<Result<_>>()?;
        bench.forward(&forward, precision, work, &operands, f)?;
        let back = Work { flops: products * work.flops, bytes: moves * work.bytes };
        bench.backward(&backward, precision, back, &operands, f)?;
    }
    Ok(())
}

fn dense(bench: &Bench, name: &str, image: [usize; 4], kernel: [usize; 4], options: &Conv) -> Result<()> {
    let output = options.output_shape(&image, &kernel)?;
    let flops = 2.0 * len(&output) * len(&kernel[1..]);
    let work = Work { flops, bytes: 4.0 * (len(&image) + len(&output) + len(&kernel)) };
    in_all_precisions(bench, name, &[&image, &kernel], work, [2.0, 2.0], &|v| v[0].conv(&v[1], None, options))
}

fn attention(bench: &Bench, [b, h, n, d]: [usize; 4]) -> Result<()> {
    let shape = [b, h, n, d];
    let work = Work { flops: 4.0 * len(&shape) * n as f64, bytes: 4.0 * 4.0 * len(&shape) };
    // Back: five products for two, eight operands for four.
    in_all_precisions(bench, &format!("attention-{b}x{h}x{n}x{d}"), &[&shape[..]; 3], work, [2.5, 2.0], &|v| {
        v[0].attention(&v[1], &v[2], &Attention::new())
    })
}

pub fn run(bench: &Bench) -> Result<()> {
    depthwise(bench, 56, 192)?;
    depthwise(bench, 14, 768)?;
    let padded = Conv::new().padding(1);
    dense(bench, "conv-3x3-16x56x56x64", [16, 56, 56, 64], [64, 64, 3, 3], &padded)?;
    dense(bench, "conv-3x3-16x14x14x256", [16, 14, 14, 256], [256, 256, 3, 3], &padded)?;
    let patches = Conv::new().stride(2);
    dense(bench, "conv-2x2-stride-2-16x56x56x192", [16, 56, 56, 192], [384, 192, 2, 2], &patches)?;
    attention(bench, [32, 12, 128, 64])
}
