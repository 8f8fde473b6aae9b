//! Strided-batched matrix products: the kernel behind mode products, contractions and MTTKRP.

use super::{
    Device, Kind, cpu,
    layout::{Layout, Modes},
    storage::Storage,
};
use crate::{error::Result, scalar::Scalar};

/// A matrix in a block: the position of its first entry and its row and column strides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Matrix {
    pub(crate) offset: usize,
    pub(crate) rows: isize,
    pub(crate) cols: isize,
}

impl Matrix {
    /// A tensor of order 2.
    pub(crate) fn of(layout: &Layout) -> Self {
        Self { offset: layout.offset(), rows: layout.strides()[0], cols: layout.strides()[1] }
    }

    pub(crate) fn t(self) -> Self {
        Self { offset: self.offset, rows: self.cols, cols: self.rows }
    }
}

/// One loop around the product and how far each operand moves in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) size: usize,
    pub(crate) a: isize,
    pub(crate) b: isize,
    /// Zero in the loops of a sum.
    pub(crate) c: isize,
}

/// `C[i] = alpha sum_j A[i,j] B[i,j] + beta C[i]` for every `i` of the batch, with A m x k, B k x n and C m x n.
///
/// The matrices of the batch in C do not overlap. A and B may overlap, and all strides may have any sign.
#[derive(Debug, Clone)]
pub(crate) struct Gemm<T> {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) a: Matrix,
    pub(crate) b: Matrix,
    pub(crate) c: Matrix,
    /// The loops over `i`.
    pub(crate) batch: Modes<Batch>,
    /// The loops over `j`: what is summed beside the inner dimension, where one stride cannot step through both.
    pub(crate) sum: Modes<Batch>,
    pub(crate) alpha: T,
    /// Zero means that C is only written, whatever it held.
    pub(crate) beta: T,
}

/// The number of steps of all loops together.
pub(crate) fn count(loops: &[Batch]) -> usize {
    loops.iter().map(|l| l.size).product()
}

/// How far the operands A, B and C have moved at the `i`-th step of the loops, the last loop fastest.
pub(crate) fn moved(loops: &[Batch], mut i: usize) -> [isize; 3] {
    let mut at = [0; 3];
    for l in loops.iter().rev() {
        let step = (i % l.size) as isize;
        i /= l.size;
        at = [at[0] + step * l.a, at[1] + step * l.b, at[2] + step * l.c];
    }
    at
}

/// Runs the product on `device`, where all three blocks are.
pub(crate) fn gemm<T: Scalar>(
    device: &Device,
    problem: &Gemm<T>,
    a: &Storage<T>,
    b: &Storage<T>,
    c: &mut Storage<T>,
) -> Result<()> {
    match &device.0 {
        Kind::Cpu(cpu) => cpu::gemm::gemm(cpu, problem, a.host("gemm")?, b.host("gemm")?, c.host_mut("gemm")?),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::gemm::gemm(gpu, problem, a, b, c)?,
    }
    Ok(())
}
