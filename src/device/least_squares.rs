//! The rows of a factor by least squares, from their normal equations, all rows at once: what alternating solvers do for a mode whose
//! entries must not be negative, or whose rows have seen different entries.
//!
//! Row a of the factor minimises `a H a^T / 2 - a m^T` for its row m of M and a symmetric positive semidefinite H.

use super::{
    Device, Kind, cpu,
    storage::{Flat, Storage},
};
use crate::error::Result;

const NAME: &str = "least squares";

/// Sizes, and how many matrices there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Normal {
    pub(crate) rows: usize,
    pub(crate) rank: usize,
    /// A matrix for each row, `[rows, R (R + 1) / 2]`: lower triangles, row by row. Otherwise one for all rows, `[R, R]`.
    pub(crate) own: bool,
}

impl Normal {
    /// How many numbers the matrices hold.
    pub(crate) fn entries(self) -> usize {
        if self.own { self.rows * triangle(self.rank) } else { self.rank * self.rank }
    }
}

/// How many entries the lower triangle of a square matrix has.
pub(crate) fn triangle(side: usize) -> usize {
    side * (side + 1) / 2
}

/// What a row may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rule {
    /// Anything. A component of which those before it leave no more than this share unexplained stays as it starts.
    Free { cut: f64 },
    /// Not negative: coordinate descent, from the start, until a round gains next to nothing.
    NonNegative,
}

/// Rounds of coordinate descent at most.
pub(crate) const ROUNDS: usize = 50;

/// A round is the last one if it lowers the sum of squares by less than this share of what the first one did.
pub(crate) const LEAST: f64 = 1e-6;

/// `[rows, R]`, from `start` of the same shape.
///
/// Free rows: R^3 / 3 flops each. Non-negative ones: 2 R^2 for each round. What H says nothing of stays as it starts.
pub(crate) fn solve(
    device: &Device,
    normal: Normal,
    rule: Rule,
    [m, h, start]: [Flat<'_, f64>; 3],
) -> Result<Storage<f64>> {
    let len = normal.rows * normal.rank;
    debug_assert_eq!([m.len, h.len, start.len], [len, normal.entries(), len]);
    let mut out = Storage::uninit(device, len)?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let operands = [m.host(NAME)?, h.host(NAME)?, start.host(NAME)?];
            cpu::least_squares::solve(cpu, normal, rule, operands, out.host_mut(NAME)?);
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::least_squares::solve(gpu, normal, rule, [m, h, start], &mut out)?,
    }
    Ok(out)
}
