//! Gram matrices of unfoldings: `X_(n) X_(n)^T`, without forming the unfolding.

#[cfg(feature = "cuda")]
use super::reduce::Total;
use super::{
    Device, Kind, cpu,
    layout::{Layout, checked_len},
    storage::Storage,
};
use crate::{error::Result, scalar::Scalar};

/// In what the products of a Gram matrix are computed. Sums over long stretches are doubles in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precision {
    /// Products and short sums in `f32`: half the arithmetic, good for relative errors above about 1e-3.
    Single,
    /// Everything in `f64`.
    Double,
}

/// A Gram matrix.
pub(crate) struct Gram {
    /// `n x n`, row-major, both triangles.
    pub(crate) matrix: Storage<f64>,
    /// The sum of squares of the tensor in doubles; none where the matrix's trace is as exact and nobody has looked yet.
    pub(crate) squares: Option<f64>,
}

/// `X_(mode) X_(mode)^T` of the entries times `scale`; `scale` keeps squares of huge and tiny numbers representable.
pub(crate) fn gram<T: Scalar>(
    device: &Device,
    x: &Storage<T>,
    layout: &Layout,
    mode: usize,
    precision: Precision,
    scale: f64,
) -> Result<Gram> {
    let n = layout.shape()[mode];
    let mut matrix = Storage::uninit(device, checked_len("gram", &[n, n])?)?;
    let squares = match &device.0 {
        Kind::Cpu(cpu) => {
            let (x, out) = (x.host("gram")?, matrix.host_mut("gram")?);
            Some(cpu::gram::gram(cpu, x, layout, mode, precision, scale, out))
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => {
            super::cuda::gram::gram(gpu, x, layout, mode, precision, scale, &mut matrix)?;
            match precision {
                Precision::Single => {
                    Some(super::cuda::reduce::scaled_total(gpu, Total::Squares, x.cuda("gram")?, layout, scale)?)
                }
                Precision::Double => None,
            }
        }
    };
    Ok(Gram { matrix, squares })
}
