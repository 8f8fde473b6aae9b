//! `bench`: one training step, timed.

use crate::{
    compute::{ComputeArguments, peak_memory},
    method::{MethodArguments, updates_weights},
    step::seconds_of_steps,
};
use clap::Args;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::process::ExitCode;
use tenfold::{
    Result, Tensor,
    autodiff::CrossEntropy,
    models::{Deberta, DebertaConfig, TextClassifier, Tokens},
    nn::Module,
    peft::{Attach, Targets},
};

/// Time one training step (forward, backward, AdamW) of DeBERTa-v3 on random tokens, with the dropout of its configuration.
///
///   glue bench --size base --batch 8 --tokens 64 --method flora --rank 8
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// DeBERTa-v3: xsmall, small, base or large.
    #[arg(long, default_value = "base")]
    size: String,
    #[command(flatten)]
    method: MethodArguments,
    /// Sequences in a batch.
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Tokens in a sequence.
    #[arg(long, default_value_t = 64)]
    tokens: usize,
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
        let config = DebertaConfig::named(&format!("deberta-v3-{}", self.size))?;
        let words = config.vocab_size;
        let method = self.method.build::<f32>()?;
        let mut model = Deberta::new(config, &mut ChaCha8Rng::seed_from_u64(0))?;
        let targets =
            if updates_weights(&*method) { Targets::of(model.linears().iter().copied()) } else { Targets::all() };
        let head = Targets::of(model.head().iter().copied());
        Attach::new(&*method).to(targets).keep(head).apply(&mut model)?;
        model.to_device(&device)?;
        let shape = [self.batch, self.tokens];
        let ids = Tensor::from_fn(shape, |i| ((i[0] * self.tokens + i[1]) * 7919 % words) as u32)?;
        let tokens = Tokens::new(ids, Tensor::zeros(shape)?, &Tensor::full(shape, 1)?)?.to_device(&device)?;
        let labels = Tensor::from_fn([self.batch], |i| (i[0] % 2) as u32)?.to_device(&device)?;
        let adalora = self.method.recipe().adalora();
        let seconds = seconds_of_steps(&mut model, adalora.as_ref(), self.steps, |model, mode| {
            model.forward(&tokens, mode)?.cross_entropy(&labels, CrossEntropy::default())
        })?;
        let (median, trainable, memory) = (seconds[seconds.len() / 2], model.count().trainable, peak_memory());
        println!(
            "deberta-v3-{} with {}, batch {} of {} tokens: {median:.4} s a step ({:.1} sequences a second), {trainable} numbers train, {} \
             MiB at most",
            self.size,
            method.name(),
            self.batch,
            self.tokens,
            self.batch as f64 / median,
            memory.map_or("?".into(), |bytes| (bytes >> 20).to_string()),
        );
        if self.json {
            println!(
                "{}",
                json!({
                    "size": self.size, "method": method.name(), "batch": self.batch, "tokens": self.tokens, "trainable": trainable,
                    "seconds": median, "fastest": seconds[0], "examples_per_second": self.batch as f64 / median,
                    "peak_memory_bytes": memory, "device": device.to_string(), "precision": self.compute.precision,
                })
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}
