//! Matrix products by cuBLAS, and those with a short side by kernels of our own (`thin.rs`). Operands that cuBLAS cannot read as they lie are
//! copied first; products that it cannot write as they are to lie are written elsewhere and put into place.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    call::{Call, Operand, Unfit, fold},
    compile::Source,
    context::{self, Cuda},
    elementwise::{blend, pack},
    launch::{self, Arg, Nest, int},
    rounded::{Rounded, rounded},
    thin,
};
use crate::{
    device::{
        gemm::{Batch, Gemm, Matrix, count, moved},
        layout::{Layout, Loop, Modes},
        precision::Precision,
        storage::Storage,
    },
    error::Result,
    scalar::{DType, Scalar},
};
use cudarc::cublas::sys::{
    cublasComputeType_t, cublasGemmAlgo_t, cublasGemmBatchedEx_64, cublasGemmStridedBatchedEx_64, cublasOperation_t,
    cudaDataType_t,
};

/// The first and last entry that the matrices of a batch reach. Panics, before anything is queued, if they would leave their block.
fn check(
    what: &str,
    len: usize,
    matrix: Matrix,
    rows: usize,
    cols: usize,
    batch: impl Iterator<Item = (usize, isize)>,
) -> (usize, usize) {
    let (mut low, mut high) = (matrix.offset as isize, matrix.offset as isize);
    for (size, stride) in batch.chain([(rows, matrix.rows), (cols, matrix.cols)]) {
        let reach = (size as isize - 1) * stride;
        if reach < 0 { low += reach } else { high += reach }
    }
    assert!(low >= 0 && (high as usize) < len, "gemm: operand {what} reaches {low}..={high} in a block of {len}");
    (low as usize, high as usize)
}

pub(crate) fn gemm<T: Scalar>(
    gpu: &Cuda,
    p: &Gemm<T>,
    a: &Storage<T>,
    b: &Storage<T>,
    c: &mut Storage<T>,
) -> Result<()> {
    product(gpu, p, a.factor("gemm")?, b.factor("gemm")?, c.cuda_mut("gemm")?)
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
    let a_range = check("A", a.len(), p.a, p.m, p.k, loops().map(|l| (l.size, l.a)));
    let b_range = check("B", b.len(), p.b, p.k, p.n, loops().map(|l| (l.size, l.b)));
    let folded = fold(p);
    if let Some(plan) = thin::plan(gpu, p, &folded) {
        a.restore()?;
        b.restore()?;
        // SAFETY: the three operands were checked to lie in their blocks, and C is the caller's alone.
        return unsafe { thin::run(gpu, &plan, p, [a, b], c) };
    }
    match Call::new(p, folded) {
        Ok(call) => {
            // The larger operand, which decides.
            let kept = if p.m >= p.n { a.is_rounded() } else { b.is_rounded() };
            let (precision, to) = (precision::<T>(gpu, &call, kept), Side::plain(c));
            if precision == Precision::Bf16 {
                let (a, b) = (rounded(gpu, a, a_range.0, a_range.1)?, rounded(gpu, b, b_range.0, b_range.1)?);
                // SAFETY: the copies hold what the operands reach, and stay until the calls are queued; C is the caller's alone.
                return unsafe { run(gpu, &call, precision, p.alpha, p.beta, [Side::half(&a), Side::half(&b), to]) };
            }
            a.restore()?;
            b.restore()?;
            // SAFETY: the three operands were checked to lie in their blocks, and C is the caller's alone.
            unsafe { run(gpu, &call, precision, p.alpha, p.beta, [Side::plain(a), Side::plain(b), to]) }
        }
        Err(Unfit::A) => {
            a.restore()?;
            let (packed, p) = repacked(gpu, p, a, Operands::A)?;
            product(gpu, &p, &packed, b, c)
        }
        Err(Unfit::B) => {
            b.restore()?;
            let (packed, p) = repacked(gpu, p, b, Operands::B)?;
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
enum Operands {
    A,
    B,
}

/// One operand copied to row-major matrices, and the product that reads it there. Loops that do not move it are not copied out.
fn repacked<T: Scalar>(
    gpu: &Cuda,
    p: &Gemm<T>,
    block: &CudaBlock<T>,
    side: Operands,
) -> Result<(CudaBlock<T>, Gemm<T>)> {
    let mut p = p.clone();
    let (matrix, rows, cols) = match side {
        Operands::A => (p.a, p.m, p.k),
        Operands::B => (p.b, p.k, p.n),
    };
    let (mut shape, mut strides): (Modes<usize>, Modes<isize>) = (Modes::new(), Modes::new());
    let mut step = (rows * cols) as isize;
    // The loops of the sum lie inside those of the batch.
    let (batch, sum) = (&mut p.batch, &mut p.sum);
    let moving: Vec<&mut Batch> = batch.iter_mut().chain(sum.iter_mut()).collect();
    for l in moving.into_iter().rev() {
        let stride = match side {
            Operands::A => &mut l.a,
            Operands::B => &mut l.b,
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
        Operands::A => p.a = place,
        Operands::B => p.b = place,
    }
    Ok((packed, p))
}

/// Sides of this length and more are worth rounding operands for.
const WORTH_ROUNDING: i64 = 32;

/// In what a product is computed; `kept` says that its larger operand is there in bf16 alone.
fn precision<T: Scalar>(gpu: &Cuda, call: &Call, kept: bool) -> Precision {
    // Tensor cores read whole 16 bytes.
    let even = call.first.ld % 8 == 0 && call.second.ld % 8 == 0;
    match gpu.precision() {
        _ if T::DTYPE != DType::F32 => Precision::F32,
        Precision::Bf16 if call.m.min(call.n).min(call.k) < WORTH_ROUNDING && !(kept && even) => Precision::Tf32,
        precision => precision,
    }
}

/// An operand of a call: the address of its block's first element, and what the elements are.
#[derive(Clone, Copy)]
struct Side {
    origin: u64,
    bytes: usize,
    kind: cudaDataType_t,
}

impl Side {
    fn plain<T: Scalar>(block: &CudaBlock<T>) -> Self {
        let kind = match T::DTYPE {
            DType::F64 => cudaDataType_t::CUDA_R_64F,
            _ => cudaDataType_t::CUDA_R_32F,
        };
        Self { origin: block.at(0), bytes: size_of::<T>(), kind }
    }

    fn half(rounded: &Rounded) -> Self {
        Self { origin: rounded.origin(), bytes: size_of::<half::bf16>(), kind: cudaDataType_t::CUDA_R_16BF }
    }

    fn at(&self, position: isize) -> u64 {
        self.origin.wrapping_add_signed((position * self.bytes as isize) as i64)
    }
}

fn transposed(operand: &Operand) -> cublasOperation_t {
    match operand.transposed {
        false => cublasOperation_t::CUBLAS_OP_N,
        true => cublasOperation_t::CUBLAS_OP_T,
    }
}

/// Queues the calls.
///
/// # Safety
/// The operands A, B and C lie in their blocks, and C is the caller's alone.
unsafe fn run<T: Scalar>(
    gpu: &Cuda,
    call: &Call,
    precision: Precision,
    alpha: T,
    beta: T,
    [a, b, c]: [Side; 3],
) -> Result<()> {
    let compute = match (T::DTYPE, precision) {
        (DType::F64, _) => cublasComputeType_t::CUBLAS_COMPUTE_64F,
        (_, Precision::Tf32) => cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
        _ => cublasComputeType_t::CUBLAS_COMPUTE_32F,
    };
    if let Some(steps) = list(call, precision, [a, b, c]) {
        // SAFETY: the caller's word.
        return unsafe { run_list(gpu, call, &steps, compute, alpha, beta, [a, b, c]) };
    }
    let handle = gpu.blas("gemm")?;
    for outer in 0..count(&call.outer) {
        for step in 0..count(&call.sum) {
            let (outer, sum) = (moved(&call.outer, outer), moved(&call.sum, step));
            let beta = if step == 0 { beta } else { T::one() };
            let at = |side: Side, offset: usize, i: usize| side.at(offset as isize + outer[i] + sum[i]);
            let (first, second) = match call.swapped {
                false => ((a, at(a, call.first.offset, 0)), (b, at(b, call.second.offset, 1))),
                true => ((b, at(b, call.first.offset, 1)), (a, at(a, call.second.offset, 0))),
            };
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
                    first.1 as *const _,
                    first.0.kind,
                    call.first.ld,
                    call.first.stride,
                    second.1 as *const _,
                    second.0.kind,
                    call.second.ld,
                    call.second.stride,
                    std::ptr::from_ref(&beta).cast(),
                    at(c, call.c.offset, 2) as *mut _,
                    c.kind,
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

/// Calls that are smaller than this many multiplications and additions leave most of a GPU idle.
const SMALL: i64 = 1 << 32;

/// Matrices in one call by their addresses.
const MOST_LISTED: usize = 1 << 16;

/// The loops of small calls, the batch of each included, where all of them can be one call by a list of addresses; strides are those of A, B and C.
/// Tensor cores read whole 16 bytes, which cuBLAS does not check for a list.
fn list(call: &Call, precision: Precision, [a, b, c]: [Side; 3]) -> Option<Modes<Batch>> {
    let (first, second) = if call.swapped { (b, a) } else { (a, b) };
    let (x, y) = (call.first.stride as isize, call.second.stride as isize);
    let (x, y) = if call.swapped { (y, x) } else { (x, y) };
    let mut steps = call.outer.clone();
    steps.push(Batch { size: call.batch as usize, a: x, b: y, c: call.c.stride as isize });
    let whole = |bytes: i64| bytes % 16 == 0;
    let even = |side: Side, operand: &Operand, stride: fn(&Batch) -> isize| {
        whole(side.at(operand.offset as isize) as i64)
            && whole(operand.ld * side.bytes as i64)
            && steps.iter().all(|l| whole(stride(l) as i64 * side.bytes as i64))
    };
    let strides: [fn(&Batch) -> isize; 2] = [|l| l.a, |l| l.b];
    let [of_first, of_second] = if call.swapped { [strides[1], strides[0]] } else { strides };
    let aligned =
        even(first, &call.first, of_first) && even(second, &call.second, of_second) && even(c, &call.c, |l| l.c);
    let small = call.m.saturating_mul(call.n).saturating_mul(call.k).saturating_mul(call.batch) < SMALL;
    let several = count(&call.outer) > 1 && call.sum.is_empty() && count(&steps) <= MOST_LISTED && steps.len() <= 8;
    (several && small && (precision == Precision::F32 || aligned)).then_some(steps)
}

/// Queues the one call of a list.
///
/// # Safety
/// As for [`run`].
unsafe fn run_list<T: Scalar>(
    gpu: &Cuda,
    call: &Call,
    steps: &[Batch],
    compute: cublasComputeType_t,
    alpha: T,
    beta: T,
    [a, b, c]: [Side; 3],
) -> Result<()> {
    let len = count(steps);
    let bytes = |side: Side, stride: isize| stride * side.bytes as isize;
    let ab: Modes<Loop<2>> =
        steps.iter().map(|l| Loop { size: l.size, strides: [bytes(a, l.a), bytes(b, l.b)] }).collect();
    let cc: Modes<Loop<1>> = steps.iter().map(|l| Loop { size: l.size, strides: [bytes(c, l.c)] }).collect();
    let (Some(ab), Some(cc)) = (Nest::new(&ab), Nest::new(&cc)) else { unreachable!("`list` counted the loops") };
    let (a_offset, b_offset) = match call.swapped {
        false => (call.first.offset, call.second.offset),
        true => (call.second.offset, call.first.offset),
    };
    let list = gpu.allocate::<i64>(3 * len)?;
    let starts = [(a, a_offset), (b, b_offset), (c, call.c.offset)];
    let [a_start, b_start, c_start] = starts.map(|(side, offset)| Arg::Pointer(side.at(offset as isize)));
    let args = [a_start, b_start, c_start, Arg::Pointer(list.at(0)), int(len), Arg::Nest(ab), Arg::Nest(cc)];
    // SAFETY: the list has a place for each address.
    unsafe { gpu.launch("gemm", (Source::Contract, "addresses"), launch::heavy(len), &args)? };
    let handle = gpu.blas("gemm")?;
    let ((first, first_at), (second, second_at)) = match call.swapped {
        false => ((a, list.at(0)), (b, list.at(len))),
        true => ((b, list.at(len)), (a, list.at(0))),
    };
    // SAFETY: as in `run`; the lists are on the device and stay until the call is queued, after which nothing else may take their place
    // before it has run.
    context::blas("gemm", unsafe {
        cublasGemmBatchedEx_64(
            *handle,
            transposed(&call.first),
            transposed(&call.second),
            call.m,
            call.n,
            call.k,
            std::ptr::from_ref(&alpha).cast(),
            first_at as *const _,
            first.kind,
            call.first.ld,
            second_at as *const _,
            second.kind,
            call.second.ld,
            std::ptr::from_ref(&beta).cast(),
            list.at(2 * len) as *const _,
            c.kind,
            call.c.ld,
            len as i64,
            compute,
            cublasGemmAlgo_t::CUBLAS_GEMM_DFALT,
        )
    })
}
