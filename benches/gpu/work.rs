//! Arithmetic and memory traffic that an operation cannot do without, and the share of what an H100 could do.

use super::timing::{Bench, PEAK};
use tenfold::{Device, Precision, Result, autodiff::Var, autodiff::without_gradients};

/// An operation on variables.
pub type Operation<'a> = &'a dyn Fn(&[Var<f32>]) -> Result<Var<f32>>;

/// Flops, and bytes read and written at least.
#[derive(Clone, Copy)]
pub struct Work {
    pub flops: f64,
    pub bytes: f64,
}

/// What an H100 SXM computes at most in a second, without sparsity.
fn flops_at_most(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 67e12,
        Precision::Tf32 => 495e12,
        Precision::Bf16 => 989e12,
    }
}

impl Work {
    /// Seconds that it takes at least.
    fn floor(self, precision: Precision) -> f64 {
        (self.flops / flops_at_most(precision)).max(self.bytes / PEAK)
    }

    /// Of what only moves memory.
    pub fn of_bytes(bytes: f64) -> Self {
        Self { flops: 0.0, bytes }
    }

    /// Calls that make a round of some milliseconds.
    pub fn repeats(self, precision: Precision) -> usize {
        (5e-3 / self.floor(precision)).clamp(3.0, 100.0) as usize
    }

    /// A line of the table.
    pub fn report(self, name: &str, precision: Precision, seconds: f64) {
        println!(
            "{name:<50} {:>9.1} us {:>7.1} TFLOP/s {:>6.0} GB/s {:>6.0} %",
            seconds * 1e6,
            self.flops / seconds / 1e12,
            self.bytes / seconds / 1e9,
            100.0 * self.floor(precision) / seconds
        );
    }
}

impl Bench {
    /// The device, with products in a precision.
    pub fn on(&self, precision: Precision) -> Result<Device> {
        self.device.clone().precision(precision)
    }

    /// Times an operation as it is.
    pub fn once(&self, name: &str, precision: Precision, work: Work, run: impl Fn() -> Result<()>) -> Result<()> {
        let seconds = self.time(work.repeats(precision), || Ok(()), |()| run())?;
        work.report(name, precision, seconds);
        Ok(())
    }

    /// Times the forward pass of an operation of variables.
    pub fn forward(
        &self,
        name: &str,
        precision: Precision,
        work: Work,
        operands: &[Var<f32>],
        f: Operation<'_>,
    ) -> Result<()> {
        self.once(name, precision, work, || without_gradients(|| f(operands)).map(drop))
    }

    /// Times the gradients of those operands that are parameters.
    pub fn backward(
        &self,
        name: &str,
        precision: Precision,
        work: Work,
        operands: &[Var<f32>],
        f: Operation<'_>,
    ) -> Result<()> {
        let slopes = without_gradients(|| f(operands))?.value().scale(0.1)?;
        let back = |y: Var<f32>| y.backward_from(slopes.clone()).map(drop);
        let seconds = self.time(work.repeats(precision).min(20), || f(operands), back)?;
        work.report(name, precision, seconds);
        Ok(())
    }
}
