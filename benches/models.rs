//! One training step of ConvNeXt-V2 or of DeBERTa-v3, forward, backward and AdamW, in f32: full, with FLoRA, with LoRA, with DoRA.
//!
//! ```sh
//! cargo bench --bench models -- --size atto --method flora
//! cargo bench --bench models -- --model deberta-v3 --size base --batch 8 --tokens 64 --method flora
//! ```
//!
//! One line for each method: the numbers that train, medians in seconds of the whole step and of its three parts, and the most memory
//! that the process ever held. That grows from method to method: name one to measure it. `benches/peers/models.py` runs this beside PyTorch.

use clap::{Parser, ValueEnum};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::time::Instant;
use tenfold::{
    Device, Result, Tensor,
    autodiff::{CrossEntropy, Var},
    models::{ConvNext, ConvNextConfig, Deberta, DebertaConfig, ImageClassifier, TextClassifier, Tokens},
    nn::{Mode, Module},
    peft::{Attach, Dora, Flora, Full, Lora, Method, Targets},
    train::{AdamW, Groups, Optimizer},
};

/// Times training steps of ConvNeXt-V2 and DeBERTa-v3.
#[derive(Parser)]
struct Arguments {
    #[arg(long, value_enum, default_value = "convnextv2")]
    model: Network,
    /// ConvNeXt-V2: atto, femto, pico, nano, tiny, base, large or huge; DeBERTa-v3: xsmall, small, base or large.
    #[arg(long, default_value = "atto")]
    size: String,
    /// full; flora (rank 8, for kernels 2, on every layer of ConvNeXt, on the linear layers of DeBERTa's blocks); lora, dora (rank 8 on the
    /// linear layers of blocks); several with commas.
    #[arg(long, default_value = "full,flora,lora", value_delimiter = ',')]
    method: Vec<String>,
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// ConvNeXt-V2: the side of an image.
    #[arg(long, default_value_t = 224)]
    image: usize,
    /// DeBERTa-v3: the tokens of a sequence.
    #[arg(long, default_value_t = 64)]
    tokens: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 5)]
    reps: usize,
    /// A line of JSON for each method.
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Network {
    #[value(name = "convnextv2")]
    ConvNextV2,
    #[value(name = "deberta-v3")]
    DebertaV3,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    for method in &arguments.method {
        match arguments.model {
            Network::ConvNextV2 => convnext(&arguments, method)?,
            Network::DebertaV3 => deberta(&arguments, method)?,
        }
    }
    Ok(())
}

/// The method of a name.
fn method(name: &str) -> Box<dyn Method<f32>> {
    match name {
        "flora" => Box::new(Flora::new().rank(8).kernel_rank(2).scale(4.0)),
        "lora" => Box::new(Lora::new(8)),
        "dora" => Box::new(Dora::new(8)),
        "full" => Box::new(Full),
        other => {
            eprintln!("there is no method {other:?}; there are full, flora, lora, dora");
            std::process::exit(2);
        }
    }
}

fn convnext(arguments: &Arguments, name: &str) -> Result<()> {
    let rng = &mut ChaCha8Rng::seed_from_u64(0);
    let device = Device::cpu().threads(arguments.threads);
    let config = ConvNextConfig::named(&format!("convnextv2-{}", arguments.size))?;
    let mut model = ConvNext::<f32>::new(config, rng)?;
    let targets = match name {
        "lora" | "dora" => Targets::of(["pwconv1", "pwconv2"]),
        "flora" => Targets::all().except(model.head()),
        _ => Targets::all(),
    };
    Attach::new(&*method(name)).to(targets).keep(Targets::of([model.head()])).apply(&mut model)?;
    model.to_device(&device)?;
    let side = arguments.image;
    let images = Var::constant(Tensor::normal([arguments.batch, side, side, 3], rng)?.to_device(&device)?);
    let labels = Tensor::from_fn([arguments.batch], |i| (i[0] * 7919 % 1000) as u32)?.to_device(&device)?;
    step(arguments, name, &mut model, |model, mode| {
        model.forward(&images, mode)?.cross_entropy(&labels, CrossEntropy::default())
    })
}

fn deberta(arguments: &Arguments, name: &str) -> Result<()> {
    let device = Device::cpu().threads(arguments.threads);
    let config = DebertaConfig::named(&format!("deberta-v3-{}", arguments.size))?;
    let words = config.vocab_size;
    let mut model = Deberta::<f32>::new(config, &mut ChaCha8Rng::seed_from_u64(0))?;
    let targets = match name {
        "full" => Targets::all(),
        _ => Targets::of(model.linears().iter().copied()),
    };
    let head = Targets::of(model.head().iter().copied());
    Attach::new(&*method(name)).to(targets).keep(head).apply(&mut model)?;
    model.to_device(&device)?;
    let shape = [arguments.batch, arguments.tokens];
    let ids = Tensor::from_fn(shape, |i| ((i[0] * arguments.tokens + i[1] + 1) * 7919 % words) as u32)?;
    let tokens = Tokens::new(ids, Tensor::zeros(shape)?, &Tensor::full(shape, 1)?)?.to_device(&device)?;
    let labels = Tensor::from_fn([arguments.batch], |i| (i[0] % 2) as u32)?.to_device(&device)?;
    step(arguments, name, &mut model, |model, mode| {
        model.forward(&tokens, mode)?.cross_entropy(&labels, CrossEntropy::default())
    })
}

/// Times steps of a model with this loss.
fn step<M: Module<f32>>(
    arguments: &Arguments,
    name: &str,
    model: &mut M,
    loss: impl Fn(&M, Mode) -> Result<Var<f32>>,
) -> Result<()> {
    let mut optimizer = Optimizer::new(AdamW::new(1e-3), &Groups::new(), model)?;
    // Two rounds to touch fresh memory and start threads.
    let mut parts: [Vec<f64>; 4] = Default::default();
    for round in 0..arguments.reps as u64 + 2 {
        let start = Instant::now();
        let loss = loss(model, Mode::training(0, round))?;
        let forward = start.elapsed();
        let gradients = loss.backward()?;
        drop(loss);
        let backward = start.elapsed();
        optimizer.step(model, gradients, 1.0, None)?;
        let whole = start.elapsed();
        if round >= 2 {
            let times = [whole, forward, backward - forward, whole - backward];
            times.iter().zip(&mut parts).for_each(|(time, part)| part.push(time.as_secs_f64()));
        }
    }
    let [whole, forward, backward, update] = parts.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    let (trainable, memory) = (model.count().trainable, peak_memory());
    if arguments.json {
        println!(
            "{}",
            serde_json::json!({
                "size": arguments.size, "method": name, "batch": arguments.batch, "trainable": trainable,
                "seconds": whole, "forward": forward, "backward": backward, "update": update, "peak_memory_bytes": memory,
            })
        );
    } else {
        let megabytes = memory.map_or("?".into(), |bytes| (bytes >> 20).to_string());
        println!(
            "{:<6} {name:<6} {trainable:>10} train  {whole:.4} s = forward {forward:.4} + backward {backward:.4} + update {update:.4}  \
             {megabytes} MiB at most",
            arguments.size
        );
    }
    Ok(())
}

/// The most memory that the process ever held, in bytes, where the system says so (Linux).
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}
