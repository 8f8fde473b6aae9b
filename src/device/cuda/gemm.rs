//! Matrix products by cuBLAS. Operands that it cannot read as they lie are copied first; products that it cannot write as they are to
//! lie are written elsewhere and put into place.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    call::{Call, Operand, Unfit},
    context::{self, Cuda},
    elementwise::{blend, pack},
};
use crate::{
    device::{
        gemm::{Batch, Gemm, Matrix, count, moved},
        layout::{Layout, Modes},
        storage::Storage,
    },
    error::Result,
    scalar::{DType, Scalar},
};
use cudarc::cublas::sys::{
    cublasComputeType_t, cublasGemmAlgo_t, cublasGemmStridedBatchedEx_64, cublasOperation_t, cudaDataType_t,
};

/// Panics, before anything is queued, if a matrix of the batch would leave its block.
fn check(
    what: &str,
    len: usize,
    matrix: Matrix,
    rows: usize,
    cols: usize,
    batch: impl Iterator<Item = (usize, isize)>,
) {
    let (mut low, mut high) = (matrix.offset as isize, matrix.offset as isize);
    for (size, stride) in batch.chain([(rows, matrix.rows), (cols, matrix.cols)]) {
        let reach = (size as isize - 1) * stride;
        if reach < 0 { low += reach } else { high += reach }
    }
    assert!(low >= 0 && (high as usize) < len, "gemm: operand {what} reaches {low}..={high} in a block of {len}");
}

pub(crate) fn gemm<T: Scalar>(
    gpu: &Cuda,
    p: &Gemm<T>,
    a: &Storage<T>,
    b: &Storage<T>,
    c: &mut Storage<T>,
) -> Result<()> {
    product(gpu, p, a.cuda("gemm")?, b.cuda("gemm")?, c.cuda_mut("gemm")?)
}

pub(crate) fn product<T: Scalar>(
    gpu: &Cuda,
    p: &Gemm<T>,
    a: &CudaBlock<T>,
    b: &CudaBlock<T>,
    c: &mut CudaBlock<T>,
) -> Result<()> {
    if count(&p.batch) == 0 || p.m == 0 || p.n == 0 {
        return Ok(());
    }
    let loops = || p.batch.iter().chain(&p.sum);
    check("C", c.len(), p.c, p.m, p.n, p.batch.iter().map(|l| (l.size, l.c)));
    if p.k == 0 || count(&p.sum) == 0 {
        return blend(gpu, None, c, &result_layout(p), p.beta);
    }
    check("A", a.len(), p.a, p.m, p.k, loops().map(|l| (l.size, l.a)));
    check("B", b.len(), p.b, p.k, p.n, loops().map(|l| (l.size, l.b)));
    match Call::new(p) {
        // SAFETY: the three operands were checked to lie in their blocks, and C is the caller's alone.
        Ok(call) => unsafe { run(gpu, &call, p.alpha, p.beta, a, b, c) },
        Err(Unfit::A) => {
            let (packed, p) = repacked(gpu, p, a, Side::A)?;
            product(gpu, &p, &packed, b, c)
        }
        Err(Unfit::B) => {
            let (packed, p) = repacked(gpu, p, b, Side::B)?;
            product(gpu, &p, a, &packed, c)
        }
        Err(Unfit::C) => {
            let mut dense = p.clone();
            dense.beta = T::zero();
            dense.c = Matrix { offset: 0, rows: p.n as isize, cols: 1 };
            let mut step = (p.m * p.n) as isize;
            for l in dense.batch.iter_mut().rev() {
                l.c = step;
                step *= l.size as isize;
            }
            let mut own = gpu.allocate(step as usize)?;
            product(gpu, &dense, a, b, &mut own)?;
            blend(gpu, Some(&own), c, &result_layout(p), p.beta)
        }
    }
}

/// Where the results of a product lie: its loops, rows and columns.
fn result_layout<T>(p: &Gemm<T>) -> Layout {
    let shape: Modes<usize> = p.batch.iter().map(|l| l.size).chain([p.m, p.n]).collect();
    let strides: Modes<isize> = p.batch.iter().map(|l| l.c).chain([p.c.rows, p.c.cols]).collect();
    Layout::new(&shape, &strides, p.c.offset)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    A,
    B,
}

/// One operand copied to row-major matrices, and the product that reads it there. Loops that do not move it are not copied out.
fn repacked<T: Scalar>(gpu: &Cuda, p: &Gemm<T>, block: &CudaBlock<T>, side: Side) -> Result<(CudaBlock<T>, Gemm<T>)> {
    let mut p = p.clone();
    let (matrix, rows, cols) = match side {
        Side::A => (p.a, p.m, p.k),
        Side::B => (p.b, p.k, p.n),
    };
    let (mut shape, mut strides): (Modes<usize>, Modes<isize>) = (Modes::new(), Modes::new());
    let mut step = (rows * cols) as isize;
    // The loops of the sum lie inside those of the batch.
    let (batch, sum) = (&mut p.batch, &mut p.sum);
    let moving: Vec<&mut Batch> = batch.iter_mut().chain(sum.iter_mut()).collect();
    for l in moving.into_iter().rev() {
        let stride = match side {
            Side::A => &mut l.a,
            Side::B => &mut l.b,
        };
        if *stride != 0 {
            shape.insert(0, l.size);
            strides.insert(0, *stride);
            *stride = step;
            step *= l.size as isize;
        }
    }
    shape.extend([rows, cols]);
    strides.extend([matrix.rows, matrix.cols]);
    let packed = pack(gpu, block, &Layout::new(&shape, &strides, matrix.offset))?;
    let place = Matrix { offset: 0, rows: cols as isize, cols: 1 };
    match side {
        Side::A => p.a = place,
        Side::B => p.b = place,
    }
    Ok((packed, p))
}

/// Queues the calls.
///
/// # Safety
/// The operands lie in their blocks, and C is the caller's alone.
unsafe fn run<T: Scalar>(
    gpu: &Cuda,
    call: &Call,
    alpha: T,
    beta: T,
    a: &CudaBlock<T>,
    b: &CudaBlock<T>,
    c: &mut CudaBlock<T>,
) -> Result<()> {
    let (kind, compute) = match T::DTYPE {
        DType::F64 => (cudaDataType_t::CUDA_R_64F, cublasComputeType_t::CUBLAS_COMPUTE_64F),
        _ => (cudaDataType_t::CUDA_R_32F, cublasComputeType_t::CUBLAS_COMPUTE_32F),
    };
    let transposed = |operand: &Operand| match operand.transposed {
        false => cublasOperation_t::CUBLAS_OP_N,
        true => cublasOperation_t::CUBLAS_OP_T,
    };
    let handle = gpu.blas("gemm")?;
    for outer in 0..count(&call.outer) {
        for step in 0..count(&call.sum) {
            let (outer, sum) = (moved(&call.outer, outer), moved(&call.sum, step));
            let beta = if step == 0 { beta } else { T::one() };
            let at = |offset: usize, i: usize| (offset as isize + outer[i] + sum[i]) as usize;
            let (first, second) = match call.swapped {
                false => (a.at(at(call.first.offset, 0)), b.at(at(call.second.offset, 1))),
                true => (b.at(at(call.first.offset, 1)), a.at(at(call.second.offset, 0))),
            };
            let to = c.at(at(call.c.offset, 2));
            // SAFETY: the handle is this thread's meanwhile; alpha and beta are of the compute type and read before the call returns;
            // the operands lie in their blocks by the caller's word, and the sizes are those that the tests of `call.rs` check.
            context::blas("gemm", unsafe {
                cublasGemmStridedBatchedEx_64(
                    *handle,
                    transposed(&call.first),
                    transposed(&call.second),
                    call.m,
                    call.n,
                    call.k,
                    std::ptr::from_ref(&alpha).cast(),
                    first as *const _,
                    kind,
                    call.first.ld,
                    call.first.stride,
                    second as *const _,
                    kind,
                    call.second.ld,
                    call.second.stride,
                    std::ptr::from_ref(&beta).cast(),
                    to as *mut _,
                    kind,
                    call.c.ld,
                    call.c.stride,
                    call.batch,
                    compute,
                    cublasGemmAlgo_t::CUBLAS_GEMM_DFALT,
                )
            })?;
        }
    }
    Ok(())
}
