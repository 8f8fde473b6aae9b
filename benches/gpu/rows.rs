//! What moves memory and little else: activations, softmax, norms, losses, steps of optimisers.

use super::{
    timing::{Bench, numbers},
    work::Work,
};
use ndarray::Ix1;
use tenfold::{
    Precision, Result, Tensor,
    autodiff::{CrossEntropy, Var, without_gradients},
    nn::Parameter,
    train::{AdamW, Groups, Optimizer},
};

type Operation = fn(&[Var<f32>]) -> Result<Var<f32>>;

/// An operation, and how often its first operand is moved in each direction at least.
struct Case {
    name: &'static str,
    /// Shapes that it is timed on.
    shapes: &'static [&'static [usize]],
    /// Vectors of the last mode's size, beside the first operand.
    vectors: usize,
    run: Operation,
    forward: f64,
    backward: f64,
}

/// Batch 32 of 128 tokens: DeBERTaV3-base, and its inner size.
const TOKENS: &[&[usize]] = &[&[32, 128, 768], &[32, 128, 3072], &[128, 512, 768]];

/// Stages of ConvNeXt-V2-L at 224 x 224, batch 16; and where its GRN is.
const IMAGES: &[&[usize]] = &[&[16, 56, 56, 192], &[16, 28, 28, 384], &[16, 14, 14, 768], &[16, 7, 7, 1536]];
const INNER: &[&[usize]] = &[&[16, 56, 56, 768], &[16, 28, 28, 1536], &[16, 14, 14, 3072], &[16, 7, 7, 6144]];

const CASES: &[Case] = &[
    Case { name: "gelu", shapes: TOKENS, vectors: 0, run: |v| v[0].gelu(), forward: 2.0, backward: 3.0 },
    Case { name: "gelu", shapes: INNER, vectors: 0, run: |v| v[0].gelu(), forward: 2.0, backward: 3.0 },
    Case { name: "layer_norm", shapes: TOKENS, vectors: 2, run: layer_norm, forward: 2.0, backward: 3.0 },
    Case { name: "layer_norm", shapes: IMAGES, vectors: 2, run: layer_norm, forward: 2.0, backward: 3.0 },
    Case {
        name: "grn",
        shapes: INNER,
        vectors: 2,
        run: |v| v[0].grn(&v[1], &v[2], 1e-6),
        // Once for the sums, once for the result.
        forward: 3.0,
        backward: 5.0,
    },
    Case {
        name: "softmax",
        shapes: &[&[32, 12, 128, 128], &[8, 12, 512, 512], &[4096, 1000], &[64, 50_000]],
        vectors: 0,
        run: |v| v[0].softmax(v[0].order() - 1),
        forward: 2.0,
        backward: 3.0,
    },
    Case { name: "dropout", shapes: TOKENS, vectors: 0, run: |v| v[0].dropout(0.1, 1, 2), forward: 2.0, backward: 2.0 },
];

fn layer_norm(v: &[Var<f32>]) -> Result<Var<f32>> {
    v[0].layer_norm(Some(&v[1]), Some(&v[2]), 1e-6)
}

/// As many launches as make a round long enough, without filling the memory with results.
fn repeats(bytes: f64) -> usize {
    (8e9 / bytes).clamp(5.0, 200.0) as usize
}

fn rows(bench: &Bench, case: &Case) -> Result<()> {
    for shape in case.shapes {
        let name = format!("{} {shape:?}", case.name);
        if !bench.wants(&name) {
            continue;
        }
        let size = 4.0 * shape.iter().product::<usize>() as f64;
        let n = shape[shape.len() - 1];
        let mut operands = vec![Var::parameter(numbers(bench, shape, 1)?)];
        for seed in 0..case.vectors as u64 {
            operands.push(Var::parameter(numbers(bench, &[n], 2 + seed)?));
        }
        let dy = numbers(bench, shape, 9)?;
        let count = repeats(case.forward * size);
        let seconds = bench.time(count, || Ok(()), |()| without_gradients(|| (case.run)(&operands)).map(drop))?;
        Work::of_bytes(case.forward * size).report(&format!("{name} forward"), Precision::F32, seconds);
        let seconds =
            bench.time(count, || (case.run)(&operands), |y: Var<f32>| y.backward_from(dy.clone()).map(drop))?;
        Work::of_bytes(case.backward * size).report(&format!("{name} backward"), Precision::F32, seconds);
    }
    Ok(())
}

/// The loss with its gradient: logits are read once, the gradient is written once.
fn cross_entropy(bench: &Bench) -> Result<()> {
    for [rows, classes] in [[4096, 1000], [4096, 32_000], [1024, 128_000]] {
        let name = format!("cross_entropy [{rows}, {classes}] and gradient");
        if !bench.wants(&name) {
            continue;
        }
        let z = Var::parameter(numbers(bench, &[rows, classes], 1)?);
        let labels = Tensor::<u32, Ix1>::from_fn([rows], |i| (i[0] * 7 % classes) as u32)?.to_device(&bench.device)?;
        let bytes = 8.0 * (rows * classes) as f64;
        let loss = |()| z.cross_entropy(&labels, CrossEntropy::default()).map(drop);
        let seconds = bench.time(repeats(bytes), || Ok(()), loss)?;
        Work::of_bytes(bytes).report(&name, Precision::F32, seconds);
    }
    Ok(())
}

/// A step over 200 million parameters: the gradients are read for their norm, then parameter and moments are read and written.
fn adamw(bench: &Bench) -> Result<()> {
    const TENSORS: usize = 200;
    const SIZE: usize = 1_000_000;
    let name = "adamw of 200 M parameters, with the norm";
    if !bench.wants(name) {
        return Ok(());
    }
    let parameter = |seed| Ok(Parameter::new(numbers(bench, &[SIZE], seed)?.into_order::<Ix1>()?));
    let model = (0..TENSORS as u64).map(parameter).collect::<Result<Vec<_>>>()?;
    let optimizer = Optimizer::new(AdamW::new(1e-3), &Groups::new(), &model)?;
    let state = std::cell::RefCell::new((model, optimizer));
    let factor = Var::constant(numbers(bench, &[SIZE], 7)?);
    let gradients = || {
        let mut sum: Option<Var<f32>> = None;
        for parameter in &state.borrow().0 {
            let term = parameter.var().mul(&factor)?.sum()?;
            sum = Some(match sum {
                Some(sum) => sum.add(&term)?,
                None => term,
            });
        }
        sum.map_or_else(|| unreachable!("there are parameters"), |sum| sum.backward())
    };
    let seconds = bench.time(1, gradients, |gradients| {
        let (model, optimizer) = &mut *state.borrow_mut();
        optimizer.step(model, gradients, 1.0, Some(1.0)).map(drop)
    })?;
    Work::of_bytes(8.0 * 4.0 * (TENSORS * SIZE) as f64).report(name, Precision::F32, seconds);
    Ok(())
}

pub fn run(bench: &Bench) -> Result<()> {
    CASES.iter().try_for_each(|case| rows(bench, case))?;
    cross_entropy(bench)?;
    adamw(bench)
}
