//! Rounds of launches, their median, and what that is in bytes a second.

use ndarray::{Ix1, IxDyn};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::time::Instant;
use tenfold::{Device, Result, Tensor};

/// Bytes a second of an H100 SXM's memory.
pub const PEAK: f64 = 3.35e12;

/// Rounds of which the median counts.
const ROUNDS: usize = 7;

/// A GPU, and which cases are wanted.
pub struct Bench {
    pub device: Device,
    pattern: String,
    /// Runs what is timed a single time.
    brief: bool,
    /// Downloading it waits for everything queued before.
    flag: Tensor<f32, ndarray::Ix1>,
}

impl Bench {
    pub fn new(device: Device, pattern: String, brief: bool) -> Self {
        let flag = Tensor::zeros([1]).and_then(|flag| flag.to_device(&device)).expect("a GPU with room for a number");
        println!("{:<50} {:>12} {:>15} {:>11} {:>8}", "operation", "time", "computed", "moved", "of best");
        Self { device, pattern, brief, flag }
    }

    pub fn wants(&self, name: &str) -> bool {
        name.contains(&self.pattern)
    }

    /// Whether a case with this in its name may be wanted.
    pub fn wants_some(&self, part: &str) -> bool {
        part.contains(&self.pattern) || self.pattern.contains(part)
    }

    /// Waits for the GPU.
    pub fn wait(&self) -> Result<()> {
        self.flag.to_vec().map(drop)
    }

    /// Seconds for each of what `prepare` makes, of which `run` is timed: a median.
    pub fn time<P>(
        &self,
        repeats: usize,
        prepare: impl Fn() -> Result<P>,
        run: impl Fn(P) -> Result<()>,
    ) -> Result<f64> {
        // The first round compiles and allocates.
        let (repeats, untimed, rounds) = if self.brief { (1, 0, 1) } else { (repeats, 1, ROUNDS) };
        let mut times = Vec::with_capacity(rounds);
        for round in 0..untimed + rounds {
            let prepared = (0..repeats).map(|_| prepare()).collect::<Result<Vec<_>>>()?;
            self.wait()?;
            let start = Instant::now();
            prepared.into_iter().try_for_each(&run)?;
            self.wait()?;
            if round >= untimed {
                times.push(start.elapsed().as_secs_f64() / repeats as f64);
            }
        }
        times.sort_by(f64::total_cmp);
        Ok(times[rounds / 2])
    }
}

/// Random numbers on the GPU: few different ones, since the host is slow at making many.
pub fn numbers(bench: &Bench, shape: &[usize], seed: u64) -> Result<Tensor<f32>> {
    const FEW: usize = 1 << 16;
    let few = Tensor::<f32, Ix1>::normal([FEW], &mut ChaCha8Rng::seed_from_u64(seed))?.to_device(&bench.device)?;
    let len: usize = shape.iter().product();
    let many = few.insert_mode(0)?.broadcast_to([len.div_ceil(FEW), FEW])?.to_contiguous()?;
    many.reshape([len.div_ceil(FEW) * FEW])?.narrow(0, 0..len)?.reshape(IxDyn(shape))
}
