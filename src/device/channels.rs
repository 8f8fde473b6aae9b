//! Sums and scales by channel of `[groups, rows, channels]`: what batch norm (one group) and GRN (a group for each sample) consist of.

use super::{
    Kind, cpu,
    storage::{Flat, Storage},
};
use crate::{error::Result, scalar::Scalar};

/// The sizes, and the operation's name.
#[derive(Clone, Copy)]
pub(crate) struct Channels {
    pub(crate) name: &'static str,
    pub(crate) groups: usize,
    pub(crate) rows: usize,
    pub(crate) channels: usize,
}

/// The mean and the mean square deviation of each channel, over all groups and rows.
pub(crate) fn moments<T: Scalar>(at: Channels, x: Flat<'_, T>) -> Result<(Vec<T>, Vec<T>)> {
    match &x.storage.device().0 {
        Kind::Cpu(cpu) => Ok(cpu::channels::moments(cpu, at, x.host(at.name)?)),
        #[cfg(feature = "cuda")]
        Kind::Cuda(_) => Err(super::cpu_only(at.name)),
    }
}

/// The sum of squares for each group and channel.
pub(crate) fn squares<T: Scalar>(at: Channels, x: Flat<'_, T>) -> Result<Vec<T>> {
    match &x.storage.device().0 {
        Kind::Cpu(cpu) => Ok(cpu::channels::squares(cpu, at, x.host(at.name)?)),
        #[cfg(feature = "cuda")]
        Kind::Cuda(_) => Err(super::cpu_only(at.name)),
    }
}

/// The sums of dy and of `dy (x - shift)` for each group and channel; the shift has an entry a channel.
pub(crate) fn sums<T: Scalar>(at: Channels, x: Flat<'_, T>, shift: &[T], dy: Flat<'_, T>) -> Result<(Vec<T>, Vec<T>)> {
    match &x.storage.device().0 {
        Kind::Cpu(cpu) => Ok(cpu::channels::sums(cpu, at, x.host(at.name)?, shift, dy.host(at.name)?)),
        #[cfg(feature = "cuda")]
        Kind::Cuda(_) => Err(super::cpu_only(at.name)),
    }
}

/// `(x - shift) scale + bias`, with a scale for each group and channel.
pub(crate) fn affine<T: Scalar>(
    at: Channels,
    x: Flat<'_, T>,
    shift: &[T],
    scale: &[T],
    bias: &[T],
) -> Result<Storage<T>> {
    let device = x.storage.device();
    let mut y = Storage::uninit(device, x.len)?;
    match &device.0 {
        Kind::Cpu(cpu) => cpu::channels::affine(cpu, at, x.host(at.name)?, (shift, scale, bias), y.host_mut(at.name)?),
        #[cfg(feature = "cuda")]
        Kind::Cuda(_) => return Err(super::cpu_only(at.name)),
    }
    Ok(y)
}

/// `dy a + (x - shift) b + c`, with `a` and `b` for each group and channel.
pub(crate) fn combine<T: Scalar>(
    at: Channels,
    (x, dy): (Flat<'_, T>, Flat<'_, T>),
    shift: &[T],
    (a, b, c): (&[T], &[T], &[T]),
) -> Result<Storage<T>> {
    let device = x.storage.device();
    let mut dx = Storage::uninit(device, x.len)?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let operands = (x.host(at.name)?, dy.host(at.name)?);
            cpu::channels::combine(cpu, at, operands, shift, (a, b, c), dx.host_mut(at.name)?);
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(_) => return Err(super::cpu_only(at.name)),
    }
    Ok(dx)
}
