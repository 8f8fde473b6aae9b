//! cuSOLVER's factorisations for both scalar types. Matrices are column-major without gaps; addresses are of blocks on the GPU.
//!
//! Each function finds the workspace and runs; those that may fail on the numbers wait for the outcome that the routine leaves on the
//! device. The others could only refuse an argument, which the call itself tells.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    context::{Cuda, solver},
};
use crate::{
    error::{Error, ErrorKind, Result},
    scalar::{DType, Scalar},
};
use cudarc::cusolver::sys::{
    self, cublasFillMode_t::CUBLAS_FILL_MODE_LOWER, cusolverEigMode_t::CUSOLVER_EIG_MODE_VECTOR,
};
use std::ffi::{c_int, c_schar};

/// A side of a matrix as cuSOLVER counts it.
pub(crate) fn side(operation: &'static str, n: usize) -> Result<c_int> {
    c_int::try_from(n).map_err(|_| {
        let message = format!("cuSOLVER takes sides up to {}, not {n}; move the matrix to the cpu", c_int::MAX);
        Error::new(ErrorKind::Unsupported, operation, message)
    })
}

/// Calls the routine for singles or for doubles; the addresses become pointers of the routine's own type.
macro_rules! routine {
    ($type:ty, $operation:expr, $single:ident | $double:ident, $($arg:expr),*) => {
        solver($operation, match <$type>::DTYPE {
            DType::F32 => sys::$single($($arg),*),
            _ => sys::$double($($arg),*),
        })
    };
}

/// What a routine left: 0 for success; positive where it failed on the numbers.
fn outcome(operation: &'static str, info: &CudaBlock<u32>) -> Result<i32> {
    let info = info.first()? as i32;
    match info {
        0.. => Ok(info),
        _ => Err(Error::new(ErrorKind::Device, operation, format!("cuSOLVER refuses its argument {}", -info))),
    }
}

/// Eigenvalues in rising order into `values`, eigenvectors as columns over `a`; only the lower triangle is read.
pub(crate) fn syevd<T: Scalar>(gpu: &Cuda, n: usize, a: &mut CudaBlock<T>, values: &mut CudaBlock<T>) -> Result<i32> {
    const NAME: &str = "eigh";
    assert!(a.len() >= n * n && values.len() >= n);
    let n = side(NAME, n)?;
    let info = gpu.allocate::<u32>(1)?;
    let (a, w) = (a.at(0), values.at(0));
    let (job, lower) = (CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER);
    // The workspace must live until the routine is queued; the stream's order protects it afterwards.
    gpu.solver(NAME, |handle| {
        let mut size: c_int = 0;
        // SAFETY: the blocks hold n x n and n numbers of this type; the call writes one integer.
        unsafe {
            routine!(
                T,
                NAME,
                cusolverDnSsyevd_bufferSize | cusolverDnDsyevd_bufferSize,
                handle,
                job,
                lower,
                n,
                a as *const _,
                n,
                w as *const _,
                &mut size
            )?
        };
        let work = gpu.allocate::<T>(size.max(1) as usize)?;
        // SAFETY: as above, with the workspace that was asked for and a place for the outcome.
        unsafe {
            routine!(
                T,
                NAME,
                cusolverDnSsyevd | cusolverDnDsyevd,
                handle,
                job,
                lower,
                n,
                a as *mut _,
                n,
                w as *mut _,
                work.at(0) as *mut _,
                size,
                info.at(0) as *mut _
            )
        }
    })?;
    outcome(NAME, &info)
}

/// The thin SVD of an m x n matrix with m >= n: U (m x n), the values in falling order, V^T (n x n). `a` is destroyed.
pub(crate) fn gesvd<T: Scalar>(
    gpu: &Cuda,
    (m, n): (usize, usize),
    a: &mut CudaBlock<T>,
    u: &mut CudaBlock<T>,
    values: &mut CudaBlock<T>,
    vt: &mut CudaBlock<T>,
) -> Result<i32> {
    const NAME: &str = "svd";
    assert!(m >= n && a.len() >= m * n && u.len() >= m * n && values.len() >= n && vt.len() >= n * n);
    let (m, n) = (side(NAME, m)?, side(NAME, n)?);
    let info = gpu.allocate::<u32>(1)?;
    let rest = gpu.allocate::<T>(n as usize)?;
    let (a, u, s, vt) = (a.at(0), u.at(0), values.at(0), vt.at(0));
    let thin = b'S' as c_schar;
    gpu.solver(NAME, |handle| {
        let mut size: c_int = 0;
        // SAFETY: the call writes one integer.
        unsafe {
            routine!(T, NAME, cusolverDnSgesvd_bufferSize | cusolverDnDgesvd_bufferSize, handle, m, n, &mut size)?
        };
        let work = gpu.allocate::<T>(size.max(1) as usize)?;
        // SAFETY: the blocks hold what the routine writes for thin factors of an m x n matrix (asserted above), and the workspace is
        // of the size asked for.
        unsafe {
            routine!(
                T,
                NAME,
                cusolverDnSgesvd | cusolverDnDgesvd,
                handle,
                thin,
                thin,
                m,
                n,
                a as *mut _,
                m,
                s as *mut _,
                u as *mut _,
                m,
                vt as *mut _,
                n,
                work.at(0) as *mut _,
                size,
                rest.at(0) as *mut _,
                info.at(0) as *mut _
            )
        }
    })?;
    outcome(NAME, &info)
}

/// QR of an m x n matrix: R in the upper triangle of `a`, the reflectors below it and in `tau`.
pub(crate) fn geqrf<T: Scalar>(
    gpu: &Cuda,
    (m, n): (usize, usize),
    a: &mut CudaBlock<T>,
    tau: &mut CudaBlock<T>,
) -> Result<()> {
    const NAME: &str = "qr";
    assert!(a.len() >= m * n && tau.len() >= m.min(n));
    let (m, n) = (side(NAME, m)?, side(NAME, n)?);
    let info = gpu.allocate::<u32>(1)?;
    let (a, tau) = (a.at(0), tau.at(0));
    gpu.solver(NAME, |handle| {
        let mut size: c_int = 0;
        // SAFETY: the block holds m x n numbers of this type; the call writes one integer.
        unsafe {
            routine!(
                T,
                NAME,
                cusolverDnSgeqrf_bufferSize | cusolverDnDgeqrf_bufferSize,
                handle,
                m,
                n,
                a as *mut _,
                m,
                &mut size
            )?
        };
        let work = gpu.allocate::<T>(size.max(1) as usize)?;
        // SAFETY: as above, with min(m, n) numbers for tau.
        unsafe {
            routine!(
                T,
                NAME,
                cusolverDnSgeqrf | cusolverDnDgeqrf,
                handle,
                m,
                n,
                a as *mut _,
                m,
                tau as *mut _,
                work.at(0) as *mut _,
                size,
                info.at(0) as *mut _
            )
        }
    })
}

/// The first k columns of Q over the reflectors that [`geqrf`] left in the first k columns of `a`; k <= m.
pub(crate) fn orgqr<T: Scalar>(
    gpu: &Cuda,
    (m, k): (usize, usize),
    a: &mut CudaBlock<T>,
    tau: &CudaBlock<T>,
) -> Result<()> {
    const NAME: &str = "qr";
    assert!(k <= m && a.len() >= m * k && tau.len() >= k);
    let (m, k) = (side(NAME, m)?, side(NAME, k)?);
    let info = gpu.allocate::<u32>(1)?;
    let (a, tau) = (a.at(0), tau.at(0));
    gpu.solver(NAME, |handle| {
        let mut size: c_int = 0;
        // SAFETY: the block holds m x k numbers of this type, tau k; the call writes one integer.
        unsafe {
            routine!(
                T,
                NAME,
                cusolverDnSorgqr_bufferSize | cusolverDnDorgqr_bufferSize,
                handle,
                m,
                k,
                k,
                a as *const _,
                m,
                tau as *const _,
                &mut size
            )?
        };
        let work = gpu.allocate::<T>(size.max(1) as usize)?;
        // SAFETY: as above.
        unsafe {
            routine!(
                T,
                NAME,
                cusolverDnSorgqr | cusolverDnDorgqr,
                handle,
                m,
                k,
                k,
                a as *mut _,
                m,
                tau as *const _,
                work.at(0) as *mut _,
                size,
                info.at(0) as *mut _
            )
        }
    })
}

/// The lower Cholesky factor over the lower triangle of `a`; positive where a leading minor is not positive definite.
pub(crate) fn potrf<T: Scalar>(gpu: &Cuda, n: usize, a: &mut CudaBlock<T>) -> Result<i32> {
    const NAME: &str = "cholesky";
    assert!(a.len() >= n * n);
    let n = side(NAME, n)?;
    let info = gpu.allocate::<u32>(1)?;
    let a = a.at(0);
    let lower = CUBLAS_FILL_MODE_LOWER;
    gpu.solver(NAME, |handle| {
        let mut size: c_int = 0;
        // SAFETY: the block holds n x n numbers of this type; the call writes one integer.
        unsafe {
            routine!(
                T,
                NAME,
                cusolverDnSpotrf_bufferSize | cusolverDnDpotrf_bufferSize,
                handle,
                lower,
                n,
                a as *mut _,
                n,
                &mut size
            )?
        };
        let work = gpu.allocate::<T>(size.max(1) as usize)?;
        // SAFETY: as above.
        unsafe {
            routine!(
                T,
                NAME,
                cusolverDnSpotrf | cusolverDnDpotrf,
                handle,
                lower,
                n,
                a as *mut _,
                n,
                work.at(0) as *mut _,
                size,
                info.at(0) as *mut _
            )
        }
    })?;
    outcome(NAME, &info)
}

/// Solves `L L^T X = B` over `b`, n x k.
pub(crate) fn potrs<T: Scalar>(
    gpu: &Cuda,
    (n, k): (usize, usize),
    l: &CudaBlock<T>,
    b: &mut CudaBlock<T>,
) -> Result<()> {
    const NAME: &str = "solve";
    assert!(l.len() >= n * n && b.len() >= n * k);
    let (n, k) = (side(NAME, n)?, side(NAME, k)?);
    let info = gpu.allocate::<u32>(1)?;
    let (l, b) = (l.at(0), b.at(0));
    let lower = CUBLAS_FILL_MODE_LOWER;
    gpu.solver(NAME, |handle| {
        // SAFETY: the blocks hold n x n and n x k numbers of this type, and there is a place for the outcome.
        unsafe {
            routine!(
                T,
                NAME,
                cusolverDnSpotrs | cusolverDnDpotrs,
                handle,
                lower,
                n,
                k,
                l as *const _,
                n,
                b as *mut _,
                n,
                info.at(0) as *mut _
            )
        }
    })
}
