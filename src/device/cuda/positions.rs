//! Lookups by relative position on a GPU.
#![allow(unsafe_code)]

use super::{
    compile::Source,
    context::Cuda,
    elementwise::number,
    launch::{self, Arg, int},
};
use crate::{
    device::{
        positions::{Sizes, Table},
        storage::{Flat, Storage},
    },
    error::Result,
    scalar::Scalar,
};

const NAME: &str = "disentangled_bias";

/// Scores `[groups, rows, width]`, their index `[rows, columns]` and the width; zeros where there are none.
fn scores<T: Scalar>(scores: Option<(Flat<'_, T>, Table<'_>)>, [groups, rows, columns]: Sizes) -> Result<[Arg; 3]> {
    let Some((scores, table)) = scores else { return Ok([Arg::Pointer(0), Arg::Pointer(0), Arg::Int(0)]) };
    assert!(scores.len == groups * rows * table.width && table.index.len == rows * columns, "{NAME}: lengths");
    Ok([Arg::Pointer(scores.cuda(NAME)?), Arg::Pointer(table.index.cuda(NAME)?), int(table.width)])
}

pub(crate) fn gather<T: Scalar>(
    gpu: &Cuda,
    [groups, n, m]: Sizes,
    c2p: Option<(Flat<'_, T>, Table<'_>)>,
    p2c: Option<(Flat<'_, T>, Table<'_>)>,
    scale: T,
    out: &mut Storage<T>,
) -> Result<()> {
    let out = out.cuda_mut(NAME)?;
    assert_eq!(out.len(), groups * n * m, "{NAME}: the result's length");
    if out.len() == 0 {
        return Ok(());
    }
    let (c2p, p2c) = (scores(c2p, [groups, n, m])?, scores(p2c, [groups, m, n])?);
    let sizes = [Arg::Pointer(out.at(0)), int(groups), int(n), int(m), number(scale)];
    let name = format!("look_up_{}", T::DTYPE);
    // SAFETY: the scores have a row for each row of their index, whose numbers are below the width (checked); the result is the
    // caller's alone.
    unsafe {
        let args = [c2p.as_slice(), &p2c, &sizes].concat();
        gpu.launch(NAME, (Source::Positions, &name), launch::tiles(n, m, groups), &args)
    }
}

/// The gradient of c2p, or (`transposed`) of p2c.
pub(crate) fn scatter<T: Scalar>(
    gpu: &Cuda,
    [groups, n, m]: Sizes,
    dy: Flat<'_, T>,
    table: Table<'_>,
    scale: T,
    transposed: bool,
    out: &mut Storage<T>,
) -> Result<()> {
    let out = out.cuda_mut(NAME)?;
    let (rows, count) = if transposed { (m, n) } else { (n, m) };
    let width = table.width;
    assert!(dy.len == groups * n * m && table.index.len == n * m, "{NAME}: the operands' lengths");
    assert_eq!(out.len(), groups * rows * width, "{NAME}: the result's length");
    if out.len() == 0 {
        return Ok(());
    }
    // Which entries have which number is the same for all groups: found once.
    let first = gpu.allocate::<u32>(rows * (width + 1))?;
    let order = gpu.allocate::<u32>(rows * count)?;
    let (first, order_at) = (Arg::Pointer(first.at(0)), Arg::Pointer(order.at(0)));
    let index = Arg::Pointer(table.index.cuda(NAME)?);
    let (row_step, step) = if transposed { (1, m) } else { (m, 1) };
    let sizes = [groups, rows, count, width, row_step, step].map(int);
    let operands = [Arg::Pointer(dy.cuda(NAME)?), first, order_at, Arg::Pointer(out.at(0))];
    let name = format!("add_up_{}", T::DTYPE);
    // SAFETY: the index holds `rows` rows of `count` numbers below `width` (checked), `first` one more than `width` a row, `order` as many
    // as the index; dy and the result hold what the sizes say; `first`, `order` and the result are nobody else's.
    unsafe {
        let geometry = launch::heavy(rows * (width + 1 + count));
        let inverted = [index, first, order_at, int(rows), int(count), int(width)];
        gpu.launch(NAME, (Source::Positions, "invert_index"), geometry, &inverted)?;
        let args = [operands.as_slice(), &sizes, &[number(scale)]].concat();
        gpu.launch(NAME, (Source::Positions, &name), launch::entries(out.len()), &args)
    }
}
