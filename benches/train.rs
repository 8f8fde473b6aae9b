//! Times an optimiser's step against a copy of as many bytes, and prints two lines of JSON for each rule: the fastest of all runs, which a
//! machine that has other work to do disturbs least, and their median.
//! `benches/peers/optimizer.py` times PyTorch's fused step on the same parameters.
//!
//! ```sh
//! cargo bench --bench train -- --rule adamw --threads 2 --reps 15
//! ```
//!
//! The traffic of a step is what has to be read and written at least: parameter, gradient and moments read, all but the gradient
//! written, and the gradient read once more for its norm. A copy, and a multiplication in place, read half as many bytes and write the
//! other half, with as many threads, in turn with the steps. The copy is the usual measure of a memory; the multiplication writes only
//! what it has just read, as a step does, and is the harder one to reach.

use clap::Parser;
use ndarray::IxDyn;
use rayon::{ThreadPoolBuilder, prelude::*};
use std::{hint::black_box, time::Instant};
use tenfold::{
    Device, Result, Tensor,
    autodiff::Gradients,
    nn::{Module, Parameter},
    train::{Adam, AdamW, Groups, Optimizer, Rule, Sgd},
};

/// Times an optimiser's step in f32 and prints milliseconds.
#[derive(Parser)]
struct Arguments {
    /// The name of a rule; all of them where it is not given.
    #[arg(long)]
    rule: Option<String>,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 15)]
    reps: usize,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A rule, and how many numbers it moves for each parameter: read or written.
struct Case {
    name: &'static str,
    rule: Rule,
    moved: usize,
}

fn cases() -> [Case; 4] {
    [
        Case { name: "adamw", rule: AdamW::new(1e-4).into(), moved: 8 },
        Case { name: "adam-amsgrad", rule: Adam::new(1e-4).amsgrad().into(), moved: 10 },
        Case { name: "sgd-momentum", rule: Sgd::new(1e-4).momentum(0.9).into(), moved: 6 },
        Case { name: "sgd", rule: Sgd::new(1e-4).into(), moved: 4 },
    ]
}

/// The parameters of 14 blocks of a transformer of width 384: 24.8 million in 224 tensors.
fn model(device: &Device) -> Result<Vec<Parameter<f32>>> {
    let n = 384;
    let square = vec![n, n];
    let vector = vec![n];
    let mut block = vec![vec![4 * n, n], vec![4 * n], vec![n, 4 * n], vector.clone()];
    block.extend((0..4).flat_map(|_| [square.clone(), vector.clone()]));
    block.extend((0..4).map(|_| vector.clone()));
    let shapes = (0..14).flat_map(|_| block.clone());
    shapes.map(|shape| Ok(Parameter::new(filled(shape, 0.5)?.to_device(device)?))).collect()
}

fn filled(shape: Vec<usize>, x: f32) -> Result<Tensor<f32, IxDyn>> {
    Tensor::full(shape, x)
}

/// A gradient of its own memory for each parameter.
fn values(model: &[Parameter<f32>]) -> Result<Vec<Tensor<f32, IxDyn>>> {
    model.iter().map(|p| filled(p.shape().to_vec(), 1e-3)?.to_device(p.var().device())).collect()
}

/// The gradients that are these values, not copied.
fn gradients(model: &[Parameter<f32>], values: &[Tensor<f32, IxDyn>]) -> Result<Gradients<f32>> {
    let mut all = model[0].var().backward_from(values[0].clone())?;
    for (parameter, value) in model.iter().zip(values).skip(1) {
        all.accumulate(parameter.var().backward_from(value.clone())?)?;
    }
    Ok(all)
}

fn milliseconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn fastest(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() -> Result<()> {
    let Arguments { rule: only, threads, reps, .. } = Arguments::parse();
    let device = Device::cpu().threads(threads);
    let Ok(pool) = ThreadPoolBuilder::new().num_threads(threads).build() else { return Ok(()) };
    for Case { name, rule, moved } in cases().into_iter().filter(|c| only.as_deref().is_none_or(|name| name == c.name))
    {
        let mut model = model(&device)?;
        let values = values(&model)?;
        let count = model.count().total;
        let mut optimizer = Optimizer::new(rule, &Groups::new(), &model)?;
        let half = count * moved / 2;
        let (from, mut to) = (vec![1.0f32; half], vec![0.0f32; half]);
        // As many parts for each thread as the step has, so that a thread that is held up costs both alike.
        let part = half.div_ceil(4 * threads);
        let mut times = [(); 3].map(|_| Vec::new());
        // The first two warm up.
        for rep in 0..reps.max(1) + 2 {
            let gradients = gradients(&model, &values)?;
            let step = milliseconds(|| optimizer.step(&mut model, gradients, 1.0, Some(1.0)).map(drop))?;
            let copy = milliseconds(|| {
                pool.install(|| {
                    let pairs = to.par_chunks_mut(part).zip(from.par_chunks(part));
                    pairs.for_each(|(to, from)| to.copy_from_slice(black_box(from)));
                });
                Ok(())
            })?;
            let in_place = milliseconds(|| {
                let factor = black_box(0.5f32);
                pool.install(|| to.par_chunks_mut(part).for_each(|to| to.iter_mut().for_each(|x| *x *= factor)));
                Ok(())
            })?;
            if rep >= 2 {
                times.iter_mut().zip([step, copy, in_place]).for_each(|(times, time)| times.push(time));
            }
        }
        black_box(&to);
        let bytes = (count * moved * size_of::<f32>()) as f64;
        for (which, of) in [("fastest", fastest as fn(&[f64]) -> f64), ("median", median)] {
            let [step, copy, in_place] = times.each_ref().map(|times| of(times));
            let speed = bytes / step / 1e6;
            println!(
                r#"{{"rule": "{name}", "parameters": {count}, "tensors": {}, "of_all": "{which}", "step_ms": {step:.2}, "step_gb_s": {speed:.1}, "share_of_copy": {:.2}, "share_of_in_place": {:.2}}}"#,
                model.len(),
                copy / step,
                in_place / step
            );
        }
    }
    Ok(())
}
