//! One training step of ConvNeXt-V2 or DeBERTa-v3, forward, backward and AdamW: full, with FLoRA, with LoRA, with DoRA.
//!
//! ```sh
//! cargo bench --bench models -- --model convnextv2-atto --method flora
//! cargo bench --bench models -- --model deberta-v3-base --batch 8 --length 64
//! cargo bench --bench models -- --model convnextv2-large --batch 16 --device cuda:0 --precision tf32
//! ```
//!
//! One line for each method: the numbers that train, medians in seconds of the whole step and of its three parts, the most memory that the
//! process ever held, and the most that tensors held on a GPU. Both grow from method to method: name one to measure it. On a GPU, where the
//! parts only queue work, the times of the parts say how long the host took, that of the whole step how long both did.
//! `benches/peers/models.py` and, on a GPU, `gpu_steps.py` run this beside PyTorch.

use clap::Parser;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Instant;
use tenfold::{
    Device, Precision, Result, Tensor,
    autodiff::{CrossEntropy, Var},
    models::{ConvNext, ConvNextConfig, Deberta, DebertaConfig, ImageClassifier, TextClassifier, Tokens},
    nn::{Mode, Module},
    peft::{Attach, Dora, Flora, Full, Lora, Method, Targets},
    train::{AdamW, Groups, Optimizer},
};

/// Times training steps.
#[derive(Parser)]
struct Arguments {
    /// convnextv2-atto to convnextv2-huge, or deberta-v3-xsmall to deberta-v3-large.
    #[arg(long, default_value = "convnextv2-atto")]
    model: String,
    /// full, flora (images: ranks 8 and 2 on every layer; texts: rank 8), lora or dora (rank 8 on the linear layers of blocks); several with commas.
    #[arg(long, default_value = "full,flora,lora", value_delimiter = ',')]
    method: Vec<String>,
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// The side of an image.
    #[arg(long, default_value_t = 224)]
    image: usize,
    /// The tokens of a text.
    #[arg(long, default_value_t = 64)]
    length: usize,
    /// cpu or cuda:0.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Of products on a GPU: f32, tf32 or bf16.
    #[arg(long, default_value = "f32")]
    precision: String,
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
    let device: Device = arguments.device.parse::<Device>()?.threads(arguments.threads);
    let device = device.precision(arguments.precision.parse::<Precision>()?)?;
    for method in &arguments.method {
        match arguments.model.starts_with("convnext") {
            true => images(&arguments, method, &device)?,
            false => texts(&arguments, method, &device)?,
        }
    }
    Ok(())
}

/// The method of this name, with FLoRA as it is given.
fn method(name: &str, flora: Flora) -> Box<dyn Method<f32>> {
    match name {
        "flora" => Box::new(flora),
        "lora" => Box::new(Lora::new(8)),
        "dora" => Box::new(Dora::new(8)),
        "full" => Box::new(Full),
        other => {
            eprintln!("there is no method {other:?}; there are full, flora, lora, dora");
            std::process::exit(2);
        }
    }
}

fn images(arguments: &Arguments, name: &str, device: &Device) -> Result<()> {
    let rng = &mut ChaCha8Rng::seed_from_u64(0);
    let mut model = ConvNext::<f32>::new(ConvNextConfig::named(&arguments.model)?, rng)?;
    let targets = match name {
        "flora" => Targets::all().except(model.head()),
        "full" => Targets::all(),
        _ => Targets::of(["pwconv1", "pwconv2"]),
    };
    let method = method(name, Flora::new().rank(8).kernel_rank(2).scale(4.0));
    Attach::new(&*method).to(targets).keep(Targets::of([model.head()])).apply(&mut model)?;
    model.to_device(device)?;
    let side = arguments.image;
    let images = Var::constant(Tensor::normal([arguments.batch, side, side, 3], rng)?.to_device(device)?);
    let labels = Tensor::from_fn([arguments.batch], |i| (i[0] * 7919 % 1000) as u32)?.to_device(device)?;
    measure(arguments, name, device, &mut model, |model, mode| {
        model.forward(&images, mode)?.cross_entropy(&labels, CrossEntropy::default())
    })
}

fn texts(arguments: &Arguments, name: &str, device: &Device) -> Result<()> {
    let rng = &mut ChaCha8Rng::seed_from_u64(0);
    let mut model = Deberta::<f32>::new(DebertaConfig::named(&arguments.model)?, rng)?;
    let targets = match name {
        "full" => Targets::all(),
        _ => Targets::of(model.linears().iter().copied()),
    };
    let method = method(name, Flora::new().rank(8).scale(4.0));
    let head = Targets::of(model.head().iter().copied());
    Attach::new(&*method).to(targets).keep(head).apply(&mut model)?;
    model.to_device(device)?;
    let ids: Vec<Vec<u32>> =
        (0..arguments.batch).map(|_| (0..arguments.length).map(|_| rng.random_range(3..100_000)).collect()).collect();
    let types = vec![0; arguments.length];
    let sequences: Vec<(&[u32], &[u32])> = ids.iter().map(|ids| (ids.as_slice(), types.as_slice())).collect();
    let tokens = Tokens::padded(&sequences, model.padding())?.to_device(device)?;
    let labels = Tensor::from_fn([arguments.batch], |i| (i[0] % 2) as u32)?.to_device(device)?;
    measure(arguments, name, device, &mut model, |model, mode| {
        model.forward(&tokens, mode)?.cross_entropy(&labels, CrossEntropy::default())
    })
}

fn measure<M: Module<f32>>(
    arguments: &Arguments,
    name: &str,
    device: &Device,
    model: &mut M,
    loss: impl Fn(&M, Mode) -> Result<Var<f32>>,
) -> Result<()> {
    let mut optimizer = Optimizer::new(AdamW::new(1e-3), &Groups::new(), model)?;
    // Rounds to touch fresh memory and start threads; on a GPU, to compile kernels.
    let warm = if device.is_cpu() { 2 } else { 5 };
    let mut parts: [Vec<f64>; 4] = Default::default();
    for round in 0..(arguments.reps + warm) as u64 {
        let start = Instant::now();
        let value = loss(model, Mode::training(0, round))?;
        let forward = start.elapsed();
        let gradients = value.backward()?;
        let backward = start.elapsed();
        optimizer.step(model, gradients, 1.0, None)?;
        let updated = start.elapsed();
        // The device is done when the last block that it wrote can be read.
        if let (false, Some((_, parameter))) = (device.is_cpu(), model.parameters().iter().rfind(|p| p.1.trains())) {
            parameter.value().get(&vec![0; parameter.shape().len()])?;
        }
        let whole = start.elapsed();
        if round >= warm as u64 {
            let times = [whole, forward, backward - forward, updated - backward];
            times.iter().zip(&mut parts).for_each(|(time, part)| part.push(time.as_secs_f64()));
        }
    }
    let [whole, forward, backward, update] = parts.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    let (trainable, memory, on_device) = (model.count().trainable, peak_memory(), device.memory().map(|m| m.most));
    if arguments.json {
        println!(
            "{}",
            serde_json::json!({
                "model": arguments.model, "method": name, "batch": arguments.batch, "trainable": trainable, "seconds": whole,
                "forward": forward, "backward": backward, "update": update, "peak_memory_bytes": memory,
                "device_memory_bytes": on_device,
            })
        );
    } else {
        let megabytes = |bytes: Option<usize>| bytes.map_or("?".into(), |bytes| (bytes >> 20).to_string());
        let device =
            on_device.map(|bytes| format!(", {} MiB on the device", megabytes(Some(bytes)))).unwrap_or_default();
        println!(
            "{:<16} {name:<6} {trainable:>10} train  {whole:.4} s = forward {forward:.4} + backward {backward:.4} + update {update:.4}  \
             {} MiB at most{device}",
            arguments.model,
            megabytes(memory)
        );
    }
    Ok(())
}

/// The most memory that the process ever held, in bytes, where the system says so (Linux).
fn peak_memory() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok()? << 10)
}
