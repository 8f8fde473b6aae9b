//! The columnwise contraction on a GPU, one pass over Y, and columns of length one.
#![allow(unsafe_code)]

use super::{
    compile::Source,
    context::Cuda,
    elementwise::check,
    launch::{self, Arg, int},
};
use crate::{
    device::{columns::Columns, gemm::Matrix, layout::Layout, storage::Storage},
    error::Result,
    scalar::Scalar,
};

pub(crate) fn contract<T: Scalar>(
    gpu: &Cuda,
    s: Columns,
    (y, y_at): (&Storage<T>, usize),
    (b, b_at): (&Storage<T>, Matrix),
    out: &mut Storage<T>,
) -> Result<()> {
    let (y, b, out) = (y.cuda("mttkrp")?, b.cuda("mttkrp")?, out.cuda_mut("mttkrp")?);
    let Columns { before, n, after, rank } = s;
    let len = before * after * rank;
    assert_eq!(out.len(), len, "mttkrp: the result's length");
    if len == 0 {
        return Ok(());
    }
    if n == 0 {
        return out.clear();
    }
    check("mttkrp", y.len(), &Layout::new(&[len * n], &[1], y_at));
    check("mttkrp", b.len(), &Layout::new(&[n, rank], &[b_at.rows, b_at.cols], b_at.offset));
    let args = [
        Arg::Pointer(y.at(y_at)),
        Arg::Pointer(b.at(b_at.offset)),
        Arg::Pointer(out.at(0)),
        int(before),
        int(n),
        int(after),
        int(rank),
        Arg::Int(b_at.rows as i64),
        Arg::Int(b_at.cols as i64),
    ];
    let name = format!("columns_{}", T::DTYPE);
    // SAFETY: both operands were checked to lie in their blocks; the result holds as many entries and is the caller's alone.
    unsafe { gpu.launch("mttkrp", (Source::Contract, &name), launch::heavy(len), &args) }
}

pub(crate) fn unit<T: Scalar>(
    gpu: &Cuda,
    x: &Storage<T>,
    layout: &Layout,
    out: &mut Storage<T>,
    norms: &mut Storage<T>,
) -> Result<()> {
    const NAME: &str = "unit columns";
    let (x, out, norms) = (x.cuda(NAME)?, out.cuda_mut(NAME)?, norms.cuda_mut(NAME)?);
    check(NAME, x.len(), layout);
    let (rows, cols, at) = (layout.shape()[0], layout.shape()[1], Matrix::of(layout));
    assert!(out.len() == rows * cols && norms.len() == cols, "{NAME}: the results' lengths");
    if cols == 0 {
        return Ok(());
    }
    if rows == 0 {
        return norms.clear();
    }
    let args = [
        Arg::Pointer(x.at(at.offset)),
        Arg::Pointer(out.at(0)),
        Arg::Pointer(norms.at(0)),
        int(rows),
        int(cols),
        Arg::Int(at.rows as i64),
        Arg::Int(at.cols as i64),
    ];
    let name = format!("unit_columns_{}", T::DTYPE);
    // SAFETY: the matrix was checked to lie in its block; the results hold as many entries and columns and are the caller's alone.
    unsafe { gpu.launch(NAME, (Source::Linalg, &name), launch::items(cols), &args) }
}
