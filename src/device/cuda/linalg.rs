//! Factorisations on a GPU, by cuSOLVER, which works on column-major matrices without gaps.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    compile::Source,
    context::Cuda,
    elementwise::{check, pack, start},
    launch::{self, Arg, int},
    reduce::first_non_finite_in,
    solver,
};
use crate::{
    device::{Device, layout::Layout, linalg::Placed, storage::Storage},
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
};

/// A copy with neighbouring columns' entries one after another.
fn column_major<T: Scalar>(gpu: &Cuda, a: &CudaBlock<T>, at: &Layout) -> Result<CudaBlock<T>> {
    debug_assert_eq!(at.order(), 2);
    check("matrix", a.len(), at);
    pack(gpu, a, &at.permuted(&[1, 0]))
}

/// Zeros above the diagonal (`lower`) or below it.
fn keep_triangle<T: Scalar>(gpu: &Cuda, a: &mut CudaBlock<T>, rows: usize, cols: usize, lower: bool) -> Result<()> {
    assert_eq!(a.len(), rows * cols, "triangle: the matrix's length");
    if a.len() == 0 {
        return Ok(());
    }
    let args = [Arg::Pointer(a.at(0)), int(rows), int(cols), Arg::Int(lower as i64)];
    let name = format!("triangle_{}", T::DTYPE);
    // SAFETY: the block holds rows x cols entries and is the caller's alone.
    unsafe { gpu.launch("triangle", (Source::Linalg, &name), launch::heavy(rows * cols), &args) }
}

fn columns<T: Scalar>(device: &Device, block: CudaBlock<T>, rows: usize, cols: usize) -> Placed<T> {
    (Storage::from_cuda(device, block), Layout::new(&[rows, cols], &[1, rows.max(1) as isize], 0))
}

fn vector<T: Scalar>(device: &Device, block: CudaBlock<T>) -> Placed<T> {
    let layout = Layout::contiguous(&[block.len()]);
    (Storage::from_cuda(device, block), layout)
}

fn no_convergence(operation: &'static str, at: &Layout) -> Error {
    let message = format!("no convergence for a {:?} matrix; are all its entries finite?", at.shape());
    Error::new(ErrorKind::Convergence, operation, message)
}

/// An error where an entry is NaN or infinite: the routines do not look for it, and some never end.
fn check_finite<T: Scalar>(gpu: &Cuda, operation: &'static str, a: &CudaBlock<T>, at: &Layout) -> Result<()> {
    match first_non_finite_in(gpu, a, &Layout::contiguous(&[a.len()]))? {
        None => Ok(()),
        Some(_) => Err(no_convergence(operation, at)),
    }
}

pub(crate) fn eigh<T: Scalar>(
    gpu: &Cuda,
    device: &Device,
    a: &Storage<T>,
    at: &Layout,
) -> Result<(Placed<T>, Placed<T>)> {
    let n = at.shape()[0];
    if n <= JACOBI_SIDE {
        return jacobi(gpu, device, a.cuda("eigh")?, at);
    }
    let mut vectors = column_major(gpu, a.cuda("eigh")?, at)?;
    let mut values = gpu.allocate::<T>(n)?;
    // What stands above the diagonal is not looked at.
    keep_triangle(gpu, &mut vectors, n, n, true)?;
    check_finite(gpu, "eigh", &vectors, at)?;
    if solver::syevd(gpu, n, &mut vectors, &mut values)? != 0 {
        return Err(no_convergence("eigh", at));
    }
    // cuSOLVER sorts upwards: read both backwards.
    let values = pack(gpu, &values, &Layout::new(&[n], &[-1], n - 1))?;
    let vectors = pack(gpu, &vectors, &Layout::new(&[n, n], &[-(n as isize), 1], (n - 1) * n))?;
    Ok((vector(device, values), columns(device, vectors, n, n)))
}

/// Symmetric matrices whose eigenvalues one block finds in less time than cuSOLVER takes to begin: they fit in its shared memory.
const JACOBI_SIDE: usize = 48;

fn jacobi<T: Scalar>(gpu: &Cuda, device: &Device, a: &CudaBlock<T>, at: &Layout) -> Result<(Placed<T>, Placed<T>)> {
    check("eigh", a.len(), at);
    let n = at.shape()[0];
    let (values, vectors) = (gpu.allocate::<T>(n)?, gpu.allocate::<T>(n * n)?);
    if n > 0 {
        let state = gpu.allocate::<u32>(1)?;
        let pointers = [values.at(0), vectors.at(0), state.at(0)].map(Arg::Pointer);
        let steps = [at.strides()[0], at.strides()[1]].map(|step| Arg::Int(step as i64));
        let args = [&[start(a, at)], pointers.as_slice(), &[int(n)], &steps].concat();
        let name = format!("jacobi_{}", T::DTYPE);
        // SAFETY: the layout lies in its block; n values, n x n vectors and a state are ours.
        unsafe { gpu.launch("eigh", (Source::Linalg, &name), launch::alone(), &args)? };
        if state.first()? != 0 {
            return Err(no_convergence("eigh", at));
        }
    }
    Ok((vector(device, values), columns(device, vectors, n, n)))
}

pub(crate) fn svd<T: Scalar>(gpu: &Cuda, device: &Device, a: &Storage<T>, at: &Layout) -> Result<[Placed<T>; 3]> {
    let (m, n) = (at.shape()[0], at.shape()[1]);
    let k = m.min(n);
    // cuSOLVER wants at least as many rows as columns: a wide matrix is factored transposed.
    let wide = m < n;
    let tall_at = if wide { at.permuted(&[1, 0]) } else { at.clone() };
    let mut tall = column_major(gpu, a.cuda("svd")?, &tall_at)?;
    let rows = m.max(n);
    let (mut u, mut values, mut vt) = (gpu.allocate(rows * k)?, gpu.allocate(k)?, gpu.allocate(k * k)?);
    if k > 0 {
        check_finite(gpu, "svd", &tall, at)?;
        if solver::gesvd(gpu, (rows, k), &mut tall, &mut u, &mut values, &mut vt)? != 0 {
            return Err(no_convergence("svd", at));
        }
    }
    let long = columns(device, u, rows, k);
    // V^T by columns is V by rows.
    let square = (Storage::from_cuda(device, vt), Layout::contiguous(&[k, k]));
    let (u, v) = if wide { (square, long) } else { (long, square) };
    // With no values the factors still have as many rows as the matrix has rows and columns.
    let sized = |(storage, layout): Placed<T>, rows: usize| match k {
        0 => (storage, Layout::contiguous(&[rows, 0])),
        _ => (storage, layout),
    };
    Ok([sized(u, m), vector(device, values), sized(v, n)])
}

/// Matrices of at most so many entries are brought to triangular form by one block, which keeps them in its cache; larger ones by cuSOLVER.
const ONE_BLOCK: usize = 1 << 18;

/// Sides of a matrix whose Cholesky factor one block finds before cuSOLVER would.
const ONE_BLOCK_SIDE: usize = 256;

/// The reflectors of a QR factorisation with R above them, column-major, and Q. Nobody waits: that a number is not finite shows in
/// the result.
fn householder<T: Scalar>(gpu: &Cuda, a: &CudaBlock<T>, at: &Layout) -> Result<(CudaBlock<T>, CudaBlock<T>)> {
    let (m, n) = (at.shape()[0], at.shape()[1]);
    let k = m.min(n);
    let mut factored = column_major(gpu, a, at)?;
    if k == 0 {
        return Ok((factored, gpu.allocate(0)?));
    }
    let mut tau = gpu.allocate(k)?;
    if m * n > ONE_BLOCK {
        solver::geqrf(gpu, (m, n), &mut factored, &mut tau)?;
        let mut q = pack(gpu, &factored, &Layout::contiguous(&[m * k]))?;
        solver::orgqr(gpu, (m, k), &mut q, &tau)?;
        return Ok((factored, q));
    }
    let q = gpu.allocate(m * k)?;
    let args = [Arg::Pointer(factored.at(0)), Arg::Pointer(tau.at(0)), Arg::Pointer(q.at(0)), int(m), int(n)];
    let name = format!("householder_{}", T::DTYPE);
    // SAFETY: the blocks hold m x n, k and m x k entries, and are ours.
    unsafe { gpu.launch("qr", (Source::Linalg, &name), launch::alone(), &args)? };
    Ok((factored, q))
}

pub(crate) fn qr<T: Scalar>(gpu: &Cuda, device: &Device, a: &Storage<T>, at: &Layout) -> Result<[Placed<T>; 2]> {
    let (m, n) = (at.shape()[0], at.shape()[1]);
    let k = m.min(n);
    let (factored, q) = householder(gpu, a.cuda("qr")?, at)?;
    if k == 0 {
        return Ok([columns(device, q, m, 0), columns(device, factored, 0, n)]);
    }
    // R column by column: the first k rows of every column.
    let mut r = pack(gpu, &factored, &Layout::new(&[n, k], &[m as isize, 1], 0))?;
    keep_triangle(gpu, &mut r, k, n, false)?;
    Ok([columns(device, q, m, k), columns(device, r, k, n)])
}

pub(crate) fn orthonormal<T: Scalar>(gpu: &Cuda, device: &Device, a: &Storage<T>, at: &Layout) -> Result<Placed<T>> {
    let (_, q) = householder(gpu, a.cuda("qr")?, at)?;
    Ok(columns(device, q, at.shape()[0], at.shape()[0].min(at.shape()[1])))
}

pub(crate) fn cholesky<T: Scalar>(gpu: &Cuda, device: &Device, a: &Storage<T>, at: &Layout) -> Result<Placed<T>> {
    let n = at.shape()[0];
    let definite = if n <= ONE_BLOCK_SIDE {
        let (l, pivots) = cholesky_unread(gpu, device, a, at)?;
        (n == 0 || pivots.0.cuda("cholesky")?.first()? > 0.0).then_some(l)
    } else {
        let mut l = column_major(gpu, a.cuda("cholesky")?, at)?;
        keep_triangle(gpu, &mut l, n, n, true)?;
        let definite = solver::potrf(gpu, n, &mut l)? == 0;
        // The routine may use the other triangle as scratch.
        keep_triangle(gpu, &mut l, n, n, true)?;
        definite.then(|| columns(device, l, n, n))
    };
    let Some(l) = definite else {
        let mut lower = column_major(gpu, a.cuda("cholesky")?, at)?;
        keep_triangle(gpu, &mut lower, n, n, true)?;
        check_finite(gpu, "cholesky", &lower, at)?;
        let message = format!("the {n} x {n} matrix is not positive definite to working precision");
        return Err(Error::new(ErrorKind::Convergence, "cholesky", message));
    };
    Ok(l)
}

pub(crate) fn cholesky_unread<T: Scalar>(
    gpu: &Cuda,
    device: &Device,
    a: &Storage<T>,
    at: &Layout,
) -> Result<(Placed<T>, Placed<f64>)> {
    let n = at.shape()[0];
    let l = column_major(gpu, a.cuda("cholesky")?, at)?;
    let pivots = gpu.allocate::<f64>(2)?;
    let args = [Arg::Pointer(l.at(0)), Arg::Pointer(pivots.at(0)), int(n)];
    let name = format!("cholesky_{}", T::DTYPE);
    // SAFETY: the blocks hold n x n and two numbers, and are ours.
    unsafe { gpu.launch("cholesky", (Source::Linalg, &name), launch::alone(), &args)? };
    Ok((columns(device, l, n, n), vector(device, pivots)))
}

pub(crate) fn cholesky_solve<T: Scalar>(
    gpu: &Cuda,
    device: &Device,
    (l, l_at): (&Storage<T>, &Layout),
    (b, b_at): (&Storage<T>, &Layout),
) -> Result<Placed<T>> {
    let (n, k) = (b_at.shape()[0], b_at.shape()[1]);
    assert_eq!(l_at.shape(), [n, n], "solve: the factor's shape");
    let l = column_major(gpu, l.cuda("solve")?, l_at)?;
    let mut x = column_major(gpu, b.cuda("solve")?, b_at)?;
    if n > 0 && k > 0 {
        solver::potrs(gpu, (n, k), &l, &mut x)?;
    }
    Ok(columns(device, x, n, k))
}
