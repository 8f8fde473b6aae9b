//! Random zeros that depend on a seed and a position alone.

use super::{
    Device, Kind, cpu,
    storage::{Flat, Storage},
};
use crate::{error::Result, scalar::Scalar};

/// Which entries become zero, and what the others are multiplied with.
///
/// The generator is Philox4x32-10 (Salmon et al. 2011), keyed with the seed, on the counter (position, step): an entry's fate
/// depends on nothing else. Both directions of an operation compute it anew.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Drop {
    pub(crate) probability: f64,
    pub(crate) seed: u64,
    pub(crate) step: u64,
}

impl Drop {
    /// Words below this mean zero: at most 2^32, for a probability of 1.
    pub(crate) fn threshold(&self) -> u64 {
        (self.probability * 4_294_967_296.0).round() as u64
    }

    /// What a kept entry is multiplied with: the expectation stays as it is.
    pub(crate) fn factor<T: Scalar>(&self) -> T {
        if self.probability < 1.0 { T::of(1.0 / (1.0 - self.probability)) } else { T::zero() }
    }

    /// The factors of positions `0..len`.
    pub(crate) fn factors<T: Scalar>(&self, device: &Device, len: usize) -> Result<Storage<T>> {
        let mut out = Storage::uninit(device, len)?;
        match &device.0 {
            Kind::Cpu(_) => cpu::dropout::factors(self, 0, out.host_mut("dropout")?),
            #[cfg(feature = "cuda")]
            Kind::Cuda(gpu) => super::cuda::dropout::apply(gpu, self, None, &mut out)?,
        }
        Ok(out)
    }
}

/// Every entry times its factor.
pub(crate) fn apply<T: Scalar>(drop: &Drop, x: Flat<'_, T>) -> Result<Storage<T>> {
    let device = x.storage.device();
    let mut out = Storage::uninit(device, x.len)?;
    match &device.0 {
        Kind::Cpu(cpu) => cpu::dropout::apply(cpu, drop, x.host("dropout")?, out.host_mut("dropout")?),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::dropout::apply(gpu, drop, Some(x), &mut out)?,
    }
    Ok(out)
}
