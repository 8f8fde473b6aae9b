//! Where an example computes, and what that took.

use clap::Args;
use tenfold::{Device, Precision, Result};

/// The device.
#[derive(Args)]
#[command(next_help_heading = "Where it runs")]
pub struct ComputeArguments {
    /// cpu, or a GPU: cuda:0, cuda:1, ..
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Of products on a GPU: f32, tf32 (inputs rounded to 10 bits) or bf16 (to 7). Weights, sums and steps stay f32.
    #[arg(long, default_value = "f32")]
    pub precision: String,
    /// Threads on the CPU; 0 for one per core.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
}

impl ComputeArguments {
    pub fn device(&self) -> Result<Device> {
        self.device.parse::<Device>()?.threads(self.threads).precision(self.precision.parse::<Precision>()?)
    }
}

/// The most memory that the process ever held, in bytes, where the system says so (Linux).
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}
