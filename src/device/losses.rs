//! Losses that are computed together with their gradient: cross-entropy of rows of logits, binary cross-entropy of logits.

use super::{
    Kind, cpu,
    elementwise::{self, Unary},
    gather::Block,
    layout::Layout,
    storage::{Flat, Storage},
};
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

/// A loss, a single number where its operands are, and its gradient.
pub(crate) type Loss<T> = (Storage<T>, Option<Storage<T>>);

/// The mean loss, and its gradient where `wanted`.
pub(crate) fn cross_entropy<T: Scalar, I: Index>(
    logits: Block<T>,
    labels: Block<I>,
    targets: Targets,
    wanted: bool,
) -> Result<Loss<T>> {
    let device = logits.0.device();
    let mut gradient = wanted.then(|| Storage::uninit(device, targets.rows * targets.classes)).transpose()?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let name = "cross_entropy";
            let (logits, labels) = (&logits.0.host(name)?[logits.1..], &labels.0.host(name)?[labels.1..]);
            let out = gradient.as_mut().map(|gradient| gradient.host_mut(name)).transpose()?;
            let loss = cpu::losses::cross_entropy(cpu, logits, labels, targets, out);
            Ok((Storage::from_vec(device.clone(), vec![T::of(loss)]), gradient))
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => {
            let mut loss = Storage::uninit(device, 1)?;
            super::cuda::losses::cross_entropy(gpu, logits, labels, targets, gradient.as_mut(), &mut loss)?;
            Ok((loss, gradient))
        }
    }
}

/// The mean over `len` entries, and its gradient by the logits where `wanted`.
pub(crate) fn binary_cross_entropy<T: Scalar>(
    logits: Block<T>,
    targets: Block<T>,
    len: usize,
    wanted: bool,
) -> Result<Loss<T>> {
    let device = logits.0.device();
    let mut gradient = wanted.then(|| Storage::uninit(device, len)).transpose()?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let name = "bce_with_logits";
            let (logits, targets) =
                (&logits.0.host(name)?[logits.1..][..len], &targets.0.host(name)?[targets.1..][..len]);
            let out = gradient.as_mut().map(|gradient| gradient.host_mut(name)).transpose()?;
            let loss = cpu::losses::binary_cross_entropy(cpu, logits, targets, out);
            Ok((Storage::from_vec(device.clone(), vec![T::of(loss)]), gradient))
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => {
            let mut loss = Storage::uninit(device, 1)?;
            super::cuda::losses::binary_cross_entropy(gpu, logits, targets, len, gradient.as_mut(), &mut loss)?;
            Ok((loss, gradient))
        }
    }
}

/// The `len` entries of a gradient times the loss's own, a single number; as they are where that is 1.
#[cfg_attr(not(feature = "cuda"), allow(unused_mut))]
pub(crate) fn scaled<T: Scalar>(mut gradient: Storage<T>, len: usize, by: Flat<'_, T>) -> Result<Storage<T>> {
    let device = gradient.device().clone();
    match &device.0 {
        Kind::Cpu(_) => match by.host("loss")?[0] {
            one if one == T::one() => Ok(gradient),
            factor => elementwise::unary(Unary::Scale(factor), &gradient, &Layout::contiguous(&[len])),
        },
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => {
            super::cuda::losses::scale_by(gpu, &mut gradient, by)?;
            Ok(gradient)
        }
    }
}
