//! Factorisations on the host, by faer. Matrices here are mostly small (a mode by a mode), where one thread is quickest.
#![allow(unsafe_code)]

use super::Cpu;
use crate::{
    device::{Device, layout::Layout, linalg::Placed, storage::Storage},
    error::{Error, ErrorKind, Result},
    scalar::{Scalar, exponent},
};
use faer::{
    Conj, Mat, MatRef, Par,
    diag::Diag,
    dyn_stack::{MemBuffer, MemStack, StackReq},
    linalg::{cholesky::llt, evd, householder, qr::no_pivoting, svd as faer_svd},
};

/// Matrices of fewer entries than this are factored by one thread.
const GRAIN: usize = 512 * 512;

fn parallelism(cpu: &Cpu, entries: usize) -> Par {
    match cpu.thread_count() {
        n if n > 1 && entries > GRAIN => Par::rayon(n),
        _ => Par::Seq,
    }
}

/// Runs a factorisation on its scratch memory, inside the device's pool if it uses threads.
fn with_stack<R: Send>(cpu: &Cpu, par: Par, scratch: StackReq, work: impl FnOnce(&mut MemStack) -> R + Send) -> R {
    let run = || work(MemStack::new(&mut MemBuffer::new(scratch)));
    match par {
        Par::Seq => run(),
        _ => cpu.install(run),
    }
}

fn matrix<'a, T: Scalar>(a: &'a [T], at: &Layout) -> MatRef<'a, T> {
    debug_assert_eq!(at.order(), 2);
    let (shape, strides) = (at.shape(), at.strides());
    let reach = |i: usize| (shape[i] as isize - 1) * strides[i];
    if at.len() > 0 {
        let ends = [0, reach(0), reach(1), reach(0) + reach(1)].map(|r| at.offset() as isize + r);
        assert!(ends.iter().all(|&end| end >= 0 && (end as usize) < a.len()), "matrix outside its block");
    }
    // SAFETY: all four corners lie in the slice, so every entry does; the lifetime is the slice's.
    unsafe { MatRef::from_raw_parts(a.as_ptr().wrapping_add(at.offset()), shape[0], shape[1], strides[0], strides[1]) }
}

/// The matrix divided by a power of two, and that power, where squares of its entries would leave the range of `T`: faer squares
/// them as they are, LAPACK scales like this. Dividing by it is exact, and so is multiplying again unless the result is subnormal.
fn scaled<T: Scalar>(a: MatRef<'_, T>) -> Option<(Mat<T>, T)> {
    let (m, n) = a.shape();
    let entries = (0..n).flat_map(|j| (0..m).map(move |i| num_traits::Float::abs(a[(i, j)])));
    let largest = entries.fold(T::zero(), |a, b| if b > a { b } else { a });
    let smallest = num_traits::Float::sqrt(T::min_positive_value()) / T::epsilon();
    let normal = largest == T::zero() || (smallest..=T::one() / smallest).contains(&largest);
    if normal || !num_traits::Float::is_finite(largest) {
        return None;
    }
    let unit = T::of(2f64.powi(exponent::<T>(largest.f64())));
    Some((Mat::from_fn(m, n, |i, j| a[(i, j)] / unit), unit))
}

/// A faer matrix as a block: column-major with the columns `faer` left between them, copied once (they are small).
fn placed<T: Scalar>(device: &Device, m: MatRef<'_, T>) -> Placed<T> {
    let (rows, cols) = m.shape();
    let data: Vec<T> = (0..cols).flat_map(|j| (0..rows).map(move |i| m[(i, j)])).collect();
    let layout = Layout::new(&[rows, cols], &[1, rows.max(1) as isize], 0);
    (Storage::from_vec(device.clone(), data), layout)
}

fn vector<T: Scalar>(device: &Device, values: Vec<T>) -> Placed<T> {
    let layout = Layout::contiguous(&[values.len()]);
    (Storage::from_vec(device.clone(), values), layout)
}

fn no_convergence(operation: &'static str, at: &Layout) -> Error {
    let message = format!("no convergence for a {:?} matrix; are all its entries finite?", at.shape());
    Error::new(ErrorKind::Convergence, operation, message)
}

pub(crate) fn eigh<T: Scalar>(cpu: &Cpu, device: &Device, a: &[T], at: &Layout) -> Result<(Placed<T>, Placed<T>)> {
    let a = matrix(a, at);
    let n = a.nrows();
    if n == 0 {
        return Ok((vector(device, Vec::new()), placed(device, a)));
    }
    let scaled = scaled(a);
    let (a, unit) = scaled.as_ref().map_or((a, T::one()), |(a, unit)| (a.as_ref(), *unit));
    let par = parallelism(cpu, n * n);
    let mut values = Diag::<T>::zeros(n);
    let mut vectors = Mat::<T>::zeros(n, n);
    let scratch = evd::self_adjoint_evd_scratch::<T>(n, evd::ComputeEigenvectors::Yes, par, Default::default());
    let (s, u) = (values.as_mut(), vectors.as_mut());
    with_stack(cpu, par, scratch, |stack| evd::self_adjoint_evd(a, s, Some(u), par, stack, Default::default()))
        .map_err(|_| no_convergence("eigh", at))?;
    // faer sorts upwards: read both backwards.
    let values = (0..n).rev().map(|i| values.column_vector()[i] * unit).collect();
    Ok((vector(device, values), placed(device, vectors.as_ref().reverse_cols())))
}

pub(crate) fn svd<T: Scalar>(cpu: &Cpu, device: &Device, a: &[T], at: &Layout) -> Result<[Placed<T>; 3]> {
    let a = matrix(a, at);
    let (m, n) = a.shape();
    let k = m.min(n);
    let scaled = scaled(a);
    let (a, unit) = scaled.as_ref().map_or((a, T::one()), |(a, unit)| (a.as_ref(), *unit));
    let par = parallelism(cpu, m * n);
    let mut values = Diag::<T>::zeros(k);
    let (mut u, mut v) = (Mat::<T>::zeros(m, k), Mat::<T>::zeros(n, k));
    let thin = faer_svd::ComputeSvdVectors::Thin;
    let scratch = faer_svd::svd_scratch::<T>(m, n, thin, thin, par, Default::default());
    let (s, to_u, to_v) = (values.as_mut(), u.as_mut(), v.as_mut());
    with_stack(cpu, par, scratch, |stack| faer_svd::svd(a, s, Some(to_u), Some(to_v), par, stack, Default::default()))
        .map_err(|_| no_convergence("svd", at))?;
    let values = (0..k).map(|i| values.column_vector()[i] * unit).collect();
    Ok([placed(device, u.as_ref()), vector(device, values), placed(device, v.as_ref())])
}

pub(crate) fn qr<T: Scalar>(cpu: &Cpu, device: &Device, a: &[T], at: &Layout) -> Result<[Placed<T>; 2]> {
    let a = matrix(a, at);
    let (m, n) = a.shape();
    let k = m.min(n);
    if k == 0 {
        return Ok([placed(device, Mat::<T>::zeros(m, 0).as_ref()), placed(device, Mat::<T>::zeros(0, n).as_ref())]);
    }
    let (mut factored, unit) = scaled(a).unwrap_or_else(|| (a.to_owned(), T::one()));
    let par = parallelism(cpu, m * n);
    let block = no_pivoting::factor::recommended_block_size::<T>(m, n).min(k);
    let mut reflectors = Mat::<T>::zeros(block, k);
    let mut q = Mat::<T>::identity(m, k);
    let scratch = StackReq::any_of(&[
        no_pivoting::factor::qr_in_place_scratch::<T>(m, n, block, par, Default::default()),
        householder::apply_block_householder_sequence_on_the_left_in_place_scratch::<T>(m, block, k),
    ]);
    with_stack(cpu, par, scratch, |stack| {
        no_pivoting::factor::qr_in_place(factored.as_mut(), reflectors.as_mut(), par, stack, Default::default());
        householder::apply_block_householder_sequence_on_the_left_in_place_with_conj(
            factored.as_ref().subcols(0, k),
            reflectors.as_ref(),
            Conj::No,
            q.as_mut(),
            par,
            stack,
        );
    });
    let r = Mat::<T>::from_fn(k, n, |i, j| if i <= j { factored[(i, j)] * unit } else { T::default() });
    Ok([placed(device, q.as_ref()), placed(device, r.as_ref())])
}

pub(crate) fn cholesky<T: Scalar>(cpu: &Cpu, device: &Device, a: &[T], at: &Layout) -> Result<Placed<T>> {
    let mut l = matrix(a, at).to_owned();
    let n = l.nrows();
    let par = parallelism(cpu, n * n);
    let scratch = llt::factor::cholesky_in_place_scratch::<T>(n, par, Default::default());
    with_stack(cpu, par, scratch, |stack| {
        llt::factor::cholesky_in_place(l.as_mut(), Default::default(), par, stack, Default::default())
    })
    .map_err(|_| {
        let message = format!("the {n} x {n} matrix is not positive definite to working precision");
        Error::new(ErrorKind::Convergence, "cholesky", message)
    })?;
    if (0..n).any(|i| !num_traits::Float::is_finite(l[(i, i)])) {
        return Err(no_convergence("cholesky", at));
    }
    for j in 1..n {
        (0..j).for_each(|i| l[(i, j)] = T::default());
    }
    Ok(placed(device, l.as_ref()))
}

pub(crate) fn cholesky_unread<T: Scalar>(cpu: &Cpu, device: &Device, a: &[T], at: &Layout) -> (Placed<T>, Placed<f64>) {
    let found = cholesky(cpu, device, a, at);
    let pivots = |l: &Placed<T>| -> Option<Vec<f64>> {
        let (block, n) = (l.0.host("cholesky").ok()?, at.shape()[0]);
        let pivots = (0..n).map(|i| block[i * n + i].f64());
        Some(vec![pivots.clone().fold(f64::INFINITY, f64::min), pivots.fold(0.0, f64::max)])
    };
    match found.ok().and_then(|l| pivots(&l).map(|p| (l, p))) {
        Some((l, pivots)) => (l, vector(device, pivots)),
        None => (placed(device, matrix(a, at)), vector(device, vec![0.0, 1.0])),
    }
}

pub(crate) fn cholesky_solve<T: Scalar>(
    cpu: &Cpu,
    device: &Device,
    (l, l_at): (&[T], &Layout),
    (b, b_at): (&[T], &Layout),
) -> Result<Placed<T>> {
    let l = matrix(l, l_at);
    let mut x = matrix(b, b_at).to_owned();
    let par = parallelism(cpu, x.nrows() * x.ncols());
    let scratch = llt::solve::solve_in_place_scratch::<T>(l.nrows(), x.ncols(), par);
    with_stack(cpu, par, scratch, |stack| llt::solve::solve_in_place_with_conj(l, Conj::No, x.as_mut(), par, stack));
    Ok(placed(device, x.as_ref()))
}
