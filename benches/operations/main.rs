//! Times the differentiable operations, forward and forward with backward, and prints one line of JSON for each:
//! `benches/peers/operations.py` puts them beside PyTorch's.
//!
//! ```sh
//! cargo bench --bench operations -- --case softmax --threads 2 --reps 15
//! ```

mod attention;
mod convolution;
mod dense;
mod normalise;

use clap::Parser;
use std::time::Instant;
use tenfold::{Device, Result};

/// An operation with its shapes. `setup` makes the operands on the device; what it returns runs the operation once, and its
/// backward pass too where the argument says so.
pub struct Case {
    pub name: &'static str,
    pub setup: fn(&Device) -> Result<Run>,
}

pub type Run = Box<dyn Fn(Pass) -> Result<()>>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    Forward,
    Both,
}

/// Times operations in f32 and prints medians in milliseconds.
#[derive(Parser)]
struct Arguments {
    /// The name of a case; all of them where it is not given.
    #[arg(long)]
    case: Option<String>,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 15)]
    reps: usize,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let device = Device::cpu().threads(arguments.threads);
    let cases = [dense::CASES, normalise::CASES, attention::CASES, convolution::CASES].into_iter().flatten();
    for case in cases.filter(|case| arguments.case.as_deref().is_none_or(|name| name == case.name)) {
        let run = (case.setup)(&device)?;
        let forward = median(arguments.reps, || run(Pass::Forward))?;
        let both = median(arguments.reps, || run(Pass::Both))?;
        println!(r#"{{"case": "{}", "forward_ms": {forward:.4}, "both_ms": {both:.4}}}"#, case.name);
    }
    Ok(())
}

/// The median time of `reps` runs in milliseconds, after a fifth of a second to warm up: threads that have just started, and
/// memory that has just been touched, are slower for some tens of milliseconds.
fn median(reps: usize, run: impl Fn() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    run()?;
    run()?;
    while start.elapsed().as_secs_f64() < 0.2 {
        run()?;
    }
    let mut times = Vec::with_capacity(reps);
    for _ in 0..reps.max(1) {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
