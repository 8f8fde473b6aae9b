//! One training step of ConvNeXt-V2, forward, backward and AdamW, in f32: full, with FLoRA, with LoRA.
//!
//! ```sh
//! cargo bench --bench models -- --size atto --method flora
//! ```
//!
//! One line for each method: the numbers that train, medians in seconds of the whole step and of its three parts, and the most memory
//! that the process ever held. That grows from method to method: name one to measure it. `benches/peers/models.py` runs this beside PyTorch.

use clap::Parser;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::time::Instant;
use tenfold::{
    Device, Result, Tensor,
    autodiff::{CrossEntropy, Var},
    models::{ConvNext, ConvNextConfig, ImageClassifier},
    nn::{Mode, Module},
    peft::{Attach, Flora, Full, Lora, Method, Targets},
    train::{AdamW, Groups, Optimizer},
};

/// Times training steps of ConvNeXt-V2.
#[derive(Parser)]
struct Arguments {
    /// atto, femto, pico, nano, tiny, base, large or huge.
    #[arg(long, default_value = "atto")]
    size: String,
    /// full, flora (ranks 8 and 2 on every layer) or lora (rank 8 on the linear layers of blocks); several with commas.
    #[arg(long, default_value = "full,flora,lora", value_delimiter = ',')]
    method: Vec<String>,
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// The side of an image.
    #[arg(long, default_value_t = 224)]
    image: usize,
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

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    for method in &arguments.method {
        step(&arguments, method)?;
    }
    Ok(())
}

fn step(arguments: &Arguments, name: &str) -> Result<()> {
    let rng = &mut ChaCha8Rng::seed_from_u64(0);
    let device = Device::cpu().threads(arguments.threads);
    let config = ConvNextConfig::named(&format!("convnextv2-{}", arguments.size))?;
    let mut model = ConvNext::<f32>::new(config, rng)?;
    let (flora, lora) = (Flora::new().rank(8).kernel_rank(2).scale(4.0), Lora::new(8));
    let (method, targets): (&dyn Method<f32>, Targets) = match name {
        "flora" => (&flora, Targets::all().except(model.head())),
        "lora" => (&lora, Targets::of(["pwconv1", "pwconv2"])),
        "full" => (&Full, Targets::all()),
        other => {
            eprintln!("there is no method {other:?}; there are full, flora, lora");
            std::process::exit(2);
        }
    };
    Attach::new(method).to(targets).keep(Targets::of([model.head()])).apply(&mut model)?;
    model.to_device(&device)?;
    let side = arguments.image;
    let images = Var::constant(Tensor::normal([arguments.batch, side, side, 3], rng)?.to_device(&device)?);
    let labels = Tensor::from_fn([arguments.batch], |i| (i[0] * 7919 % 1000) as u32)?.to_device(&device)?;
    let mut optimizer = Optimizer::new(AdamW::new(1e-3), &Groups::new(), &model)?;

    // Two rounds to touch fresh memory and start threads.
    let mut parts: [Vec<f64>; 4] = Default::default();
    for round in 0..arguments.reps as u64 + 2 {
        let start = Instant::now();
        let logits = model.forward(&images, Mode::training(0, round))?;
        let loss = logits.cross_entropy(&labels, CrossEntropy::default())?;
        let forward = start.elapsed();
        let gradients = loss.backward()?;
        drop((loss, logits));
        let backward = start.elapsed();
        optimizer.step(&mut model, gradients, 1.0, None)?;
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
                "size": arguments.size, "method": name, "batch": arguments.batch, "image": side, "trainable": trainable,
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
