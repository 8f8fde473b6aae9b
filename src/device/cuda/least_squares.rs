//! Rows by least squares on a GPU, a warp to a row.
#![allow(unsafe_code)]

use super::{
    compile::Source,
    context::Cuda,
    launch::{self, Arg, int},
};
use crate::{
    device::{
        least_squares::{LEAST, Normal, ROUNDS, Rule, triangle},
        storage::{Flat, Storage},
    },
    error::Result,
};

pub(crate) fn solve(
    gpu: &Cuda,
    normal: Normal,
    rule: Rule,
    [m, h, start]: [Flat<'_, f64>; 3],
    out: &mut Storage<f64>,
) -> Result<()> {
    const NAME: &str = "least squares";
    let out = out.cuda_mut(NAME)?;
    let Normal { rows, rank, own } = normal;
    let len = rows * rank;
    assert!(m.len == len && start.len == len && out.len() == len, "{NAME}: the lengths of rows");
    assert!(h.len == normal.entries(), "{NAME}: the length of the matrices");
    if len == 0 {
        return Ok(());
    }
    let rest = gpu.allocate::<f64>(len)?;
    let at = Arg::Pointer;
    let (m, h, start) = (at(m.cuda(NAME)?), at(h.cuda(NAME)?), at(start.cuda(NAME)?));
    let (out, rest_at) = (at(out.at(0)), at(rest.at(0)));
    let (rows_at, rank_at, own_at) = (int(rows), int(rank), Arg::Int(own.into()));
    let geometry = launch::warps(rows);
    match rule {
        Rule::NonNegative => {
            let args = [m, h, start, rest_at, out, rows_at, rank_at, own_at, int(ROUNDS), Arg::Double(LEAST)];
            // SAFETY: rows of M, of the start, of the result and of what is left hold as many entries, and the matrices theirs (asserted
            // above); the result is the caller's alone, what is left ours.
            unsafe { gpu.launch(NAME, (Source::LeastSquares, "non_negative_rows"), geometry, &args) }
        }
        Rule::Free { cut } => {
            let triangles = gpu.allocate::<f64>(rows * triangle(rank))?;
            let l = at(triangles.at(0));
            let args = [m, h, start, l, rest_at, out, rows_at, rank_at, own_at, Arg::Double(cut)];
            // SAFETY: as above, and the triangles are ours.
            unsafe { gpu.launch(NAME, (Source::LeastSquares, "free_rows"), geometry, &args) }
        }
    }
}
