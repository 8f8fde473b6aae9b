//! Sums and scales by channel of `[groups, rows, channels]`: what batch norm (one group) and GRN (a group for each sample) consist of.
//!
//! Vectors stay where x is, so that a GPU is not waited for.

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

impl Channels {
    /// By how much a row is cut off a block, which has none where there are no channels.
    pub(crate) fn width(&self) -> usize {
        self.channels.max(1)
    }

    /// A vector on the host; zeros where none is given.
    fn vector<T: Scalar>(&self, given: Option<Flat<'_, T>>) -> Result<Vec<T>> {
        given.map_or_else(|| Ok(vec![T::zero(); self.channels]), |v| Ok(v.host(self.name)?.to_vec()))
    }
}

/// The mean and the mean square deviation of each channel, over all groups and rows.
pub(crate) fn moments<T: Scalar>(at: Channels, x: Flat<'_, T>) -> Result<[Storage<T>; 2]> {
    let device = x.storage.device();
    match &device.0 {
        Kind::Cpu(cpu) => {
            let (mean, square) = cpu::channels::moments(cpu, at, x.host(at.name)?);
            Ok([mean, square].map(|numbers| Storage::from_vec(device.clone(), numbers)))
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => {
            let mut out = [Storage::uninit(device, at.channels)?, Storage::uninit(device, at.channels)?];
            let [mean, square] = &mut out;
            super::cuda::channels::moments(gpu, at, x, (mean, square))?;
            Ok(out)
        }
    }
}

/// The sum of squares for each group and channel.
pub(crate) fn squares<T: Scalar>(at: Channels, x: Flat<'_, T>) -> Result<Storage<T>> {
    let device = x.storage.device();
    match &device.0 {
        Kind::Cpu(cpu) => Ok(Storage::from_vec(device.clone(), cpu::channels::squares(cpu, at, x.host(at.name)?))),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => {
            let mut out = Storage::uninit(device, at.groups * at.channels)?;
            super::cuda::channels::squares(gpu, at, x, &mut out)?;
            Ok(out)
        }
    }
}

/// The sums of dy and of `dy (x - shift)` for each group and channel; the shift, 0 where there is none, has an entry a channel.
pub(crate) fn sums<T: Scalar>(
    at: Channels,
    (x, dy): (Flat<'_, T>, Flat<'_, T>),
    shift: Option<Flat<'_, T>>,
) -> Result<[Storage<T>; 2]> {
    let device = x.storage.device();
    match &device.0 {
        Kind::Cpu(cpu) => {
            let (x, dy) = (x.host(at.name)?, dy.host(at.name)?);
            let (plain, weighted) = cpu::channels::sums(cpu, at, x, &at.vector(shift)?, dy);
            Ok([plain, weighted].map(|numbers| Storage::from_vec(device.clone(), numbers)))
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => {
            let count = at.groups * at.channels;
            let mut out = [Storage::uninit(device, count)?, Storage::uninit(device, count)?];
            let [plain, weighted] = &mut out;
            super::cuda::channels::sums(gpu, at, (x, dy), shift, (plain, weighted))?;
            Ok(out)
        }
    }
}

/// `(x - shift) scale + bias`, with a scale for each group and channel; shift and bias are 0 where there is none.
pub(crate) fn affine<T: Scalar>(
    at: Channels,
    x: Flat<'_, T>,
    (shift, scale, bias): (Option<Flat<'_, T>>, Flat<'_, T>, Option<Flat<'_, T>>),
) -> Result<Storage<T>> {
    let device = x.storage.device();
    let mut y = Storage::uninit(device, x.len)?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let (shift, bias) = (at.vector(shift)?, at.vector(bias)?);
            let vectors = (shift.as_slice(), scale.host(at.name)?, bias.as_slice());
            cpu::channels::affine(cpu, at, x.host(at.name)?, vectors, y.host_mut(at.name)?);
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::channels::affine(gpu, at, x, (shift, scale, bias), &mut y)?,
    }
    Ok(y)
}

/// `dy a + (x - shift) b + c`, with `a` and `b` for each group and channel; shift and c are 0 where there is none.
pub(crate) fn combine<T: Scalar>(
    at: Channels,
    (x, dy): (Flat<'_, T>, Flat<'_, T>),
    shift: Option<Flat<'_, T>>,
    (a, b, c): (Flat<'_, T>, Flat<'_, T>, Option<Flat<'_, T>>),
) -> Result<Storage<T>> {
    let device = x.storage.device();
    let mut dx = Storage::uninit(device, x.len)?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let operands = (x.host(at.name)?, dy.host(at.name)?);
            let (shift, c) = (at.vector(shift)?, at.vector(c)?);
            let vectors = (a.host(at.name)?, b.host(at.name)?, c.as_slice());
            cpu::channels::combine(cpu, at, operands, &shift, vectors, dx.host_mut(at.name)?);
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::channels::combine(gpu, at, (x, dy), shift, (a, b, c), &mut dx)?,
    }
    Ok(dx)
}

/// What GRN makes of the sums of squares of each group and channel.
pub(crate) struct Response<T: Scalar> {
    /// `G = sqrt(squares)`, for each group and channel.
    pub(crate) norms: Storage<T>,
    /// `e = mean of G over the channels + eps`, for each group.
    pub(crate) means: Storage<T>,
    /// `1 + gamma G / e`
    pub(crate) scale: Storage<T>,
}

pub(crate) fn respond<T: Scalar>(
    at: Channels,
    squares: &Storage<T>,
    gamma: Flat<'_, T>,
    eps: T,
) -> Result<Response<T>> {
    let device = squares.device();
    match &device.0 {
        Kind::Cpu(_) => {
            let [norms, means, scale] = cpu::channels::respond(at, squares.host(at.name)?, gamma.host(at.name)?, eps)
                .map(|numbers| Storage::from_vec(device.clone(), numbers));
            Ok(Response { norms, means, scale })
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => {
            let count = at.groups * at.channels;
            let (mut norms, mut means) = (Storage::uninit(device, count)?, Storage::uninit(device, at.groups)?);
            let mut scale = Storage::uninit(device, count)?;
            super::cuda::channels::respond(gpu, at, (squares, gamma), eps, [&mut norms, &mut means, &mut scale])?;
            Ok(Response { norms, means, scale })
        }
    }
}

/// GRN's way back, from the sums of dy and of dy x: `dG / G` (0 where G is), by which x enters its own gradient, and the gradients of
/// gamma and beta.
pub(crate) fn respond_back<T: Scalar>(
    at: Channels,
    [plain, products]: &[Storage<T>; 2],
    response: &Response<T>,
    gamma: Flat<'_, T>,
) -> Result<[Storage<T>; 3]> {
    let device = plain.device();
    let Response { norms, means, .. } = response;
    match &device.0 {
        Kind::Cpu(_) => {
            let sums = (plain.host(at.name)?, products.host(at.name)?);
            let response = (norms.host(at.name)?, means.host(at.name)?, gamma.host(at.name)?);
            let found = cpu::channels::respond_back(at, sums, response);
            Ok(found.map(|numbers| Storage::from_vec(device.clone(), numbers)))
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => {
            let mut out = [
                Storage::uninit(device, at.groups * at.channels)?,
                Storage::uninit(device, at.channels)?,
                Storage::uninit(device, at.channels)?,
            ];
            let response = (norms, means, gamma);
            super::cuda::channels::respond_back(gpu, at, (plain, products), response, out.each_mut())?;
            Ok(out)
        }
    }
}
