//! `bench`: one training step, timed.

use crate::{
    compute::{ComputeArguments, peak_memory},
    method::MethodArguments,
    step::seconds_of_steps,
};
use clap::Args;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::process::ExitCode;
use tenfold::{
    Result, Tensor,
    autodiff::{CrossEntropy, Var},
    models::Architecture,
    nn::Module,
    peft::{Attach, Targets},
};

/// Time one training step (forward, backward, AdamW) on images of random numbers.
///
///   convnext bench --arch convnextv2-tiny --method flora --rank 8 --kernel-rank 2 --batch 4
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// The network: convnextv2-tiny, convnext-tiny, resnet20, efficientnet-lite0, ..
    #[arg(long)]
    arch: String,
    #[command(flatten)]
    method: MethodArguments,
    /// Images in a batch.
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// The side of an image [default: that of the published weights].
    #[arg(long)]
    pixels: Option<usize>,
    /// How many steps are timed; the median counts.
    #[arg(long, default_value_t = 5)]
    steps: u64,
    #[command(flatten)]
    compute: ComputeArguments,
    /// Let the last line of standard output be one JSON object.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(&self) -> Result<ExitCode> {
        let device = self.compute.device()?;
        let architecture = Architecture::named(&self.arch)?.with_labels(1000);
        let method = self.method.build::<f32>()?;
        let mut model = architecture.build(&mut ChaCha8Rng::seed_from_u64(0))?;
        let head = Targets::of([model.head()]);
        Attach::new(&*method).to(Targets::all().except(model.head())).keep(head).apply(&mut model)?;
        model.to_device(&device)?;
        let side = self.pixels.unwrap_or(architecture.input().side);
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        let images = Var::constant(Tensor::normal([self.batch, side, side, 3], rng)?.to_device(&device)?);
        let labels = Tensor::from_fn([self.batch], |i| (i[0] * 7919 % 1000) as u32)?.to_device(&device)?;
        let adalora = self.method.recipe().adalora();
        let seconds = seconds_of_steps(&mut model, adalora.as_ref(), self.steps, |model, mode| {
            model.forward(&images, mode)?.cross_entropy(&labels, CrossEntropy::default())
        })?;
        let (median, trainable, memory) = (seconds[seconds.len() / 2], model.count().trainable, peak_memory());
        println!(
            "{} with {}, batch {} of {side} x {side}: {median:.4} s a step ({:.1} images a second), {trainable} numbers train, {} MiB at most",
            self.arch,
            method.name(),
            self.batch,
            self.batch as f64 / median,
            memory.map_or("?".into(), |bytes| (bytes >> 20).to_string()),
        );
        if self.json {
            println!(
                "{}",
                json!({
                    "arch": self.arch, "method": method.name(), "batch": self.batch, "pixels": side, "trainable": trainable,
                    "seconds": median, "fastest": seconds[0], "examples_per_second": self.batch as f64 / median,
                    "peak_memory_bytes": memory, "device": device.to_string(), "precision": self.compute.precision,
                })
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}
