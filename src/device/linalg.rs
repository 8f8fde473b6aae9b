//! Factorisations of a matrix: symmetric eigenvalues, SVD, QR, Cholesky.
//!
//! Operands are two-way layouts over a block; results come with the layout they were computed in (factorisations like columns),
//! so nothing is transposed for show.

use super::{Device, Kind, cpu, layout::Layout, storage::Storage};
use crate::{error::Result, scalar::Scalar};

/// A result with its layout.
pub(crate) type Placed<T> = (Storage<T>, Layout);

/// Eigenvalues of a symmetric matrix in falling order and the eigenvectors as columns. Only the lower triangle is read.
pub(crate) fn eigh<T: Scalar>(device: &Device, a: &Storage<T>, at: &Layout) -> Result<(Placed<T>, Placed<T>)> {
    match &device.0 {
        Kind::Cpu(cpu) => cpu::linalg::eigh(cpu, device, a.host("eigh")?, at),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::linalg::eigh(gpu, device, a, at),
    }
}

/// The thin SVD `A = U diag(s) V^T`: U m x k, s of length k in falling order, V n x k, `k = min(m, n)`.
pub(crate) fn svd<T: Scalar>(device: &Device, a: &Storage<T>, at: &Layout) -> Result<[Placed<T>; 3]> {
    match &device.0 {
        Kind::Cpu(cpu) => cpu::linalg::svd(cpu, device, a.host("svd")?, at),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::linalg::svd(gpu, device, a, at),
    }
}

/// The thin QR `A = Q R`: Q m x k with orthonormal columns, R k x n upper triangular, `k = min(m, n)`.
pub(crate) fn qr<T: Scalar>(device: &Device, a: &Storage<T>, at: &Layout) -> Result<[Placed<T>; 2]> {
    match &device.0 {
        Kind::Cpu(cpu) => cpu::linalg::qr(cpu, device, a.host("qr")?, at),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::linalg::qr(gpu, device, a, at),
    }
}

/// The Q of the thin QR alone, for a solver's next basis: nothing is looked at and nobody waits, so that an entry that is not finite
/// is in the result.
pub(crate) fn orthonormal<T: Scalar>(device: &Device, a: &Storage<T>, at: &Layout) -> Result<Placed<T>> {
    match &device.0 {
        Kind::Cpu(cpu) => cpu::linalg::qr(cpu, device, a.host("qr")?, at).map(|[q, _]| q),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::linalg::orthonormal(gpu, device, a, at),
    }
}

/// The lower Cholesky factor of a symmetric positive definite matrix; an error of kind `Convergence` where it is not. Only the
/// lower triangle is read; the upper one of the result is zero.
pub(crate) fn cholesky<T: Scalar>(device: &Device, a: &Storage<T>, at: &Layout) -> Result<Placed<T>> {
    match &device.0 {
        Kind::Cpu(cpu) => cpu::linalg::cholesky(cpu, device, a.host("cholesky")?, at),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::linalg::cholesky(gpu, device, a, at),
    }
}

/// The same, and the smallest and the largest pivot, 0 and 1 where the matrix is not positive definite: then the factor is not to be
/// used. On a GPU nobody waits for them.
pub(crate) fn cholesky_unread<T: Scalar>(
    device: &Device,
    a: &Storage<T>,
    at: &Layout,
) -> Result<(Placed<T>, Placed<f64>)> {
    match &device.0 {
        Kind::Cpu(cpu) => Ok(cpu::linalg::cholesky_unread(cpu, device, a.host("cholesky")?, at)),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::linalg::cholesky_unread(gpu, device, a, at),
    }
}

/// Solves `L L^T X = B` for a lower Cholesky factor L (n x n) and B (n x k).
pub(crate) fn cholesky_solve<T: Scalar>(
    device: &Device,
    l: (&Storage<T>, &Layout),
    b: (&Storage<T>, &Layout),
) -> Result<Placed<T>> {
    match &device.0 {
        Kind::Cpu(cpu) => {
            cpu::linalg::cholesky_solve(cpu, device, (l.0.host("solve")?, l.1), (b.0.host("solve")?, b.1))
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::linalg::cholesky_solve(gpu, device, l, b),
    }
}
