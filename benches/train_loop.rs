//! What the trainer's loop costs beside the steps: the same steps by a bare loop and by `Trainer::fit`, with and without a folder.
//!
//! A loop of a few lines has batches, passes, and the optimiser's step; the trainer adds threads that load, the log, events and
//! checks. That is a few microseconds a step, which steps of some milliseconds hide in their own noise; so it is measured on a
//! tiny model, whose steps take some microseconds, and on one whose steps take about 20 milliseconds.
//!
//! ```sh
//! cargo bench --bench train_loop -- --threads 2 --rounds 7
//! ```

use clap::Parser;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::time::Instant;
use tenfold::{
    Device, Result, Tensor,
    autodiff::Var,
    nn::{Linear, Mode, Module},
    train::{AdamW, Dataset, Every, Groups, Optimizer, Rows, Schedule, Trainer},
};

/// Times steps in f32 and prints medians in microseconds.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// How often each way is timed; they take turns.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Layers of a width, a batch size, and how many steps are timed together.
struct Case {
    name: &'static str,
    layers: usize,
    width: usize,
    batch: usize,
    steps: u64,
}

const CASES: [Case; 2] = [
    Case { name: "tiny", layers: 2, width: 8, batch: 4, steps: 2000 },
    Case { name: "20 ms", layers: 4, width: 1024, batch: 128, steps: 20 },
];

type Model = Vec<Linear<f32>>;

fn loss(model: &Model, (x, y): (Tensor<f32>, Tensor<f32>), device: &Device, mode: Mode) -> Result<Var<f32>> {
    let x = Var::from(x.to_device(device)?);
    model.iter().try_fold(x, |x, layer| layer.forward(&x, mode)?.relu())?.mse_loss(&y.to_device(device)?.into())
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let device = Device::cpu().threads(arguments.threads);
    for case in CASES {
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        let mut model: Model =
            (0..case.layers).map(|_| Linear::new(case.width, case.width, rng)).collect::<Result<_>>()?;
        model.to_device(&device)?;
        let rows = || Tensor::<f32, _>::normal([8 * case.batch, case.width], &mut ChaCha8Rng::seed_from_u64(2));
        let data = Rows::new(&rows()?, &rows()?)?;
        let folder =
            tempfile::tempdir().map_err(|e| tenfold::Error::new(tenfold::ErrorKind::Io, "bench", e.to_string()))?;
        let trainer = Trainer::new(AdamW::new(1e-4)).steps(case.steps).batch_size(case.batch).clip(1.0);
        let (mut bare, mut plain, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=arguments.rounds {
            // The checkpoint at the end is not part of a step.
            let folder = folder.path().join(format!("{round}"));
            let with_folder = trainer.clone().folder(folder).save(Every::Steps(2 * case.steps));
            let times = [
                by_hand(&mut model, &data, &case, &device)?,
                by_trainer(&trainer, &mut model, &data, &device)?,
                by_trainer(&with_folder, &mut model, &data, &device)?,
            ];
            // The first round warms up.
            if round > 0 {
                [&mut bare, &mut plain, &mut kept].into_iter().zip(times).for_each(|(all, time)| all.push(time));
            }
        }
        let [bare, plain, kept] = [bare, plain, kept].map(median);
        println!(
            r#"{{"case": "{}", "bare_us": {bare:.1}, "trainer_us": {plain:.1}, "with_folder_us": {kept:.1}, "overhead_us": {:.1}, "overhead_with_folder_us": {:.1}}}"#,
            case.name,
            plain - bare,
            kept - bare
        );
    }
    Ok(())
}

/// Microseconds a step of a bare loop, whose batches are there already.
fn by_hand(model: &mut Model, data: &Rows<f32, f32>, case: &Case, device: &Device) -> Result<f64> {
    let mut optimizer = Optimizer::new(AdamW::new(1e-4), &Groups::new(), model)?;
    let schedule = Schedule::constant();
    let batches: Vec<_> = (0..8)
        .map(|i| data.batch(&(i * case.batch..(i + 1) * case.batch).collect::<Vec<_>>()))
        .collect::<Result<_>>()?;
    let start = Instant::now();
    for step in 0..case.steps {
        let value = loss(model, batches[step as usize % 8].clone(), device, Mode::training(0, step))?;
        let gradients = value.backward()?;
        optimizer.step(model, gradients, schedule.factor(step, case.steps), Some(1.0))?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / case.steps as f64)
}

/// Microseconds a step of the trainer, from the first step on: without the start of threads and the last checkpoint.
fn by_trainer(trainer: &Trainer, model: &mut Model, data: &Rows<f32, f32>, device: &Device) -> Result<f64> {
    let (mut first, mut last) = (None, (0, Instant::now()));
    trainer.fit_with(
        model,
        data,
        |model, batch, mode| loss(model, batch, device, mode),
        |_| Ok(tenfold::train::Scores::new()),
        |event| {
            if let tenfold::train::Event::Step(step) = event {
                last = (step.step, Instant::now());
                first.get_or_insert(last);
            }
            std::ops::ControlFlow::Continue(())
        },
    )?;
    let (one, from) = first.unwrap_or(last);
    Ok((last.1 - from).as_secs_f64() * 1e6 / (last.0 - one).max(1) as f64)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
