//! Losses that are computed together with their gradient: cross-entropy of rows of logits, binary cross-entropy of logits.

use super::{Kind, cpu, gather::Block, storage::Storage};
use crate::{
    error::Result,
    scalar::{Index, Scalar},
};

/// What the cross-entropy of `rows` rows of `classes` logits is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Targets {
    pub(crate) rows: usize,
    pub(crate) classes: usize,
    /// How much of each target is spread over all classes.
    pub(crate) smoothing: f64,
    /// Rows with this label do not count.
    pub(crate) ignore: Option<i64>,
    /// How many rows count.
    pub(crate) counted: usize,
}

impl Targets {
    /// Whether a row with this label counts.
    pub(crate) fn counts<I: Index>(&self, label: I) -> bool {
        self.ignore.is_none() || label.to_i64() != self.ignore
    }
}

/// The mean loss, and its gradient where `wanted`.
pub(crate) fn cross_entropy<T: Scalar, I: Index>(
    logits: Block<T>,
    labels: Block<I>,
    targets: Targets,
    wanted: bool,
) -> Result<(f64, Option<Storage<T>>)> {
    let device = logits.0.device();
    match &device.0 {
        Kind::Cpu(cpu) => {
            let name = "cross_entropy";
            let (logits, labels) = (&logits.0.host(name)?[logits.1..], &labels.0.host(name)?[labels.1..]);
            let mut gradient =
                if wanted { Some(Storage::uninit(device, targets.rows * targets.classes)?) } else { None };
            let out = gradient.as_mut().map(|gradient| gradient.host_mut(name)).transpose()?;
            Ok((cpu::losses::cross_entropy(cpu, logits, labels, targets, out), gradient))
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(_) => Err(super::cpu_only("cross_entropy")),
    }
}

/// The mean over `len` entries, and its gradient by the logits where `wanted`.
pub(crate) fn binary_cross_entropy<T: Scalar>(
    logits: Block<T>,
    targets: Block<T>,
    len: usize,
    wanted: bool,
) -> Result<(f64, Option<Storage<T>>)> {
    let device = logits.0.device();
    match &device.0 {
        Kind::Cpu(cpu) => {
            let name = "bce_with_logits";
            let (logits, targets) =
                (&logits.0.host(name)?[logits.1..][..len], &targets.0.host(name)?[targets.1..][..len]);
            let mut gradient = if wanted { Some(Storage::uninit(device, len)?) } else { None };
            let out = gradient.as_mut().map(|gradient| gradient.host_mut(name)).transpose()?;
            Ok((cpu::losses::binary_cross_entropy(cpu, logits, targets, out), gradient))
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(_) => Err(super::cpu_only("bce_with_logits")),
    }
}
