//! What adapters cost: forward and backward of adapted layers beside the same layers without, in one run, in f32.
//!
//! ```sh
//! cargo bench --bench adapters -- --threads 2 --reps 21
//! ```
//!
//! With `--large` it also writes a model of 200 million parameters and its adapter to the temporary folder, and times reading them back: 0.8 GB on the disk,
//! 1.6 GB of memory.
//!
//! Every line is a median in milliseconds and its ratio to the line that it is compared with. Runs take turns, so that whatever else the machine does falls on
//! all of them.

use clap::Parser;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::time::Instant;
use tenfold::{
    Device, Result, Tensor,
    autodiff::{Conv as Options, Var},
    nn::{Conv, Linear, Load, Mode, Module, Save},
    peft::{self, Attach, Dora, Flora, Lora, Method, Path},
};

/// Times adapted layers.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 21)]
    reps: usize,
    /// Times files of a large model too.
    #[arg(long)]
    large: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A name, the index of the run that it is compared with, and a step.
struct Run {
    name: &'static str,
    beside: usize,
    step: Box<dyn Fn() -> Result<()>>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let device = Device::cpu().threads(arguments.threads);
    report("linear 768 x 3072, 512 tokens, r = 8", &linear(&device)?, arguments.reps)?;
    report("depthwise 7 x 7, 4 x 56 x 56 x 96, ranks (8, 8, 2, 2)", &depthwise(&device)?, arguments.reps)?;
    report("convolution 3 x 3, 4 x 56 x 56 x 64, ranks (8, 8, 2, 2)", &plane(&device)?, arguments.reps)?;
    if arguments.large { large(&device) } else { Ok(()) }
}

fn report(title: &str, runs: &[Run], reps: usize) -> Result<()> {
    println!("{title}");
    let mut times = vec![Vec::with_capacity(reps); runs.len()];
    // The first rounds touch fresh memory and start threads.
    for round in 0..reps + 3 {
        for (run, times) in runs.iter().zip(&mut times) {
            let start = Instant::now();
            (run.step)()?;
            if round >= 3 {
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    let medians: Vec<f64> = times
        .into_iter()
        .map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        })
        .collect();
    for (run, median) in runs.iter().zip(&medians) {
        println!(
            "  {:<28} {median:9.3} ms   {:5.3} x {}",
            run.name,
            median / medians[run.beside],
            runs[run.beside].name
        );
    }
    Ok(())
}

/// Forward and backward of a layer, with the gradient of its input; adapted by a method, or as it is.
fn run<L: Module<f32> + Clone + 'static>(
    name: &'static str,
    beside: usize,
    layer: &L,
    method: Option<&dyn Method<f32>>,
    x: &Var<f32>,
    forward: fn(&L, &Var<f32>, Mode) -> Result<Var<f32>>,
) -> Result<Run> {
    let (mut layer, x) = (layer.clone(), x.clone());
    if let Some(method) = method {
        Attach::new(method).apply(&mut layer)?;
    }
    layer.to_device(x.device())?;
    let mode = Mode::training(1, 0);
    let y = forward(&layer, &x, mode)?;
    let dy = Tensor::ones(y.shape().to_vec())?.to_device(y.device())?.into_dyn();
    let step = Box::new(move || forward(&layer, &x, mode)?.backward_from(dy.clone()).map(drop));
    Ok(Run { name, beside, step })
}

fn input(device: &Device, shape: &[usize]) -> Result<Var<f32>> {
    let x = Tensor::<f32, _>::normal(shape.to_vec(), &mut ChaCha8Rng::seed_from_u64(1))?;
    Ok(Var::parameter(x.to_device(device)?))
}

fn linear(device: &Device) -> Result<Vec<Run>> {
    let x = input(device, &[512, 768])?;
    let trained = Linear::<f32>::new(768, 3072, &mut ChaCha8Rng::seed_from_u64(2))?;
    let mut frozen = trained.clone();
    frozen.freeze_all();
    let (flora, lora) = (Flora::new().rank(8), Lora::new(8));
    let (merged, dora) = (flora.clone().path(Path::Merged), Dora::new(8));
    let of = |name, beside, method: Option<&dyn Method<f32>>| run(name, beside, &frozen, method, &x, Linear::forward);
    Ok(vec![
        of("frozen", 0, None)?,
        run("trained", 0, &trained, None, &x, Linear::forward)?,
        of("LoRA", 0, Some(&lora))?,
        of("FLoRA", 0, Some(&flora))?,
        of("FLoRA, merged", 0, Some(&merged))?,
        of("DoRA", 2, Some(&dora))?,
    ])
}

fn depthwise(device: &Device) -> Result<Vec<Run>> {
    let options = Options::new().padding(3).groups(96);
    let trained = Conv::<f32>::new([96, 96], &[7, 7], options, &mut ChaCha8Rng::seed_from_u64(2))?;
    let x = input(device, &[4, 56, 56, 96])?;
    let flora = Flora::new().rank(8);
    Ok(vec![
        run("trained", 0, &trained, None, &x, Conv::forward)?,
        run("FLoRA", 0, &trained, Some(&flora), &x, Conv::forward)?,
    ])
}

fn plane(device: &Device) -> Result<Vec<Run>> {
    let trained = Conv::<f32>::new([64, 64], &[3, 3], Options::new().padding(1), &mut ChaCha8Rng::seed_from_u64(2))?;
    let x = input(device, &[4, 56, 56, 64])?;
    let flora = Flora::new().rank(8);
    let (factored, merged) = (flora.clone().path(Path::Factored), flora.clone().path(Path::Merged));
    let of = |name, method: &dyn Method<f32>| run(name, 0, &trained, Some(method), &x, Conv::forward);
    Ok(vec![
        run("trained", 0, &trained, None, &x, Conv::forward)?,
        of("FLoRA, factored", &factored)?,
        of("FLoRA, merged", &merged)?,
        of("FLoRA", &flora)?,
    ])
}

/// 48 linear layers of 2048 x 2048 with FLoRA on each: reading the model, and what its adapter adds to that.
fn large(device: &Device) -> Result<()> {
    const LAYERS: usize = 48;
    let zeros = || (0..LAYERS).map(|_| Linear::<f32>::zeros(2048, 2048)).collect::<Result<Vec<_>>>();
    let io = |e: std::io::Error| tenfold::Error::new(tenfold::ErrorKind::Io, "large", e.to_string());
    let folder = tempfile::tempdir().map_err(io)?;
    let (model_path, adapter_path) = (folder.path().join("model.safetensors"), folder.path().join("adapter"));
    println!(
        "{LAYERS} linear layers of 2048 x 2048, FLoRA with r = 8 on each; files just written, so that they are in memory"
    );
    let mut written = zeros()?;
    let timed = |what: &str, act: &mut dyn FnMut() -> Result<()>| {
        let start = Instant::now();
        act()?;
        println!("  {what:<34} {:9.1} ms", start.elapsed().as_secs_f64() * 1e3);
        Ok::<_, tenfold::Error>(())
    };
    timed("write the model", &mut || Save::new().write(&written, &model_path))?;
    timed("attach new adapters", &mut || Attach::new(&Flora::new().rank(8)).apply(&mut written).map(drop))?;
    timed("write the adapters", &mut || peft::save(&written, &adapter_path))?;
    drop(written);
    let mut model = zeros()?;
    model.to_device(device)?;
    timed("read the model", &mut || Load::new().read(&mut model, &model_path).map(drop))?;
    timed("read and attach the adapters", &mut || peft::load(&mut model, &adapter_path).map(drop))?;
    println!("  {}", model.count());
    Ok(())
}
