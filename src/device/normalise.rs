//! Normalisation of each row: layer norm and RMS norm.

use super::{
    Kind, cpu,
    storage::{Flat, Storage},
};
use crate::{error::Result, scalar::Scalar};

/// What both directions know: the operation's name, the length of a row, whether rows are centred (layer norm) or not (RMS norm).
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) name: &'static str,
    pub(crate) n: usize,
    pub(crate) centre: bool,
}

/// `y = (x - mean) / sqrt(variance + eps) * weight + bias` for rows of `n`, and for each row its mean and the reciprocal
/// deviation, side by side. Without centring, the mean is 0 and the variance the mean square.
pub(crate) fn forward<T: Scalar>(
    rows: Rows,
    x: Flat<'_, T>,
    weight: Option<Flat<'_, T>>,
    bias: Option<Flat<'_, T>>,
    eps: T,
) -> Result<(Storage<T>, Storage<T>)> {
    let Rows { name, n, .. } = rows;
    let device = x.storage.device();
    let mut y = Storage::uninit(device, x.len)?;
    let mut statistics = Storage::uninit(device, 2 * (x.len / n))?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let weight = weight.map(|w| w.host(name)).transpose()?;
            let bias = bias.map(|b| b.host(name)).transpose()?;
            let out = (y.host_mut(name)?, statistics.host_mut(name)?);
            cpu::normalise::forward(cpu, rows, x.host(name)?, (weight, bias), eps, out);
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => {
            super::cuda::normalise::forward(gpu, rows, x, (weight, bias), eps, (&mut y, &mut statistics))?;
        }
    }
    Ok((y, statistics))
}

/// The gradients of x, weight and bias from x, its statistics, the weight and the gradient of y.
pub(crate) fn backward<T: Scalar>(
    rows: Rows,
    x: Flat<'_, T>,
    statistics: &Storage<T>,
    weight: Option<Flat<'_, T>>,
    dy: Flat<'_, T>,
) -> Result<[Storage<T>; 3]> {
    let Rows { name, n, .. } = rows;
    let device = x.storage.device();
    let mut dx = Storage::uninit(device, x.len)?;
    let (mut dw, mut db) = (Storage::uninit(device, n)?, Storage::uninit(device, n)?);
    match &device.0 {
        Kind::Cpu(cpu) => {
            let weight = weight.map(|w| w.host(name)).transpose()?;
            let operands = [x.host(name)?, statistics.host(name)?, dy.host(name)?];
            let out = (dx.host_mut(name)?, dw.host_mut(name)?, db.host_mut(name)?);
            cpu::normalise::backward(cpu, rows, operands, weight, out);
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => {
            let out = (&mut dx, &mut dw, &mut db);
            super::cuda::normalise::backward(gpu, rows, (x, statistics, dy), weight, out)?;
        }
    }
    Ok([dx, dw, db])
}
