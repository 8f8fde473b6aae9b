//! Layer norm and RMS norm on a GPU: a row is read once in each direction.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    compile::Source,
    context::Cuda,
    elementwise::number,
    launch::{self, Arg, int},
    reduce::fold,
};
use crate::{
    device::{
        normalise::Rows,
        storage::{Flat, Storage},
    },
    error::Result,
    scalar::Scalar,
};

/// Pieces of the rows in the sums of long rows' columns.
const PIECES: usize = 64;

/// The address of a vector, 0 where there is none.
fn vector<T: Scalar>(name: &'static str, vector: Option<Flat<'_, T>>, n: usize) -> Result<Arg> {
    let Some(vector) = vector else { return Ok(Arg::Pointer(0)) };
    assert_eq!(vector.len, n, "{name}: a vector's length");
    Ok(Arg::Pointer(vector.cuda(name)?))
}

pub(crate) fn forward<T: Scalar>(
    gpu: &Cuda,
    Rows { name, n, centre }: Rows,
    x: Flat<'_, T>,
    (weight, bias): (Option<Flat<'_, T>>, Option<Flat<'_, T>>),
    eps: T,
    (y, statistics): (&mut Storage<T>, &mut Storage<T>),
) -> Result<()> {
    let rows = x.len / n;
    let (y, statistics) = (y.cuda_mut(name)?, statistics.cuda_mut(name)?);
    assert!(y.len() == x.len && statistics.len() == 2 * rows, "{name}: the results' lengths");
    if rows == 0 {
        return Ok(());
    }
    let kernel = launch::row_kernel(size_of::<T>(), rows, n);
    let args = [
        Arg::Pointer(x.cuda(name)?),
        vector(name, weight, n)?,
        vector(name, bias, n)?,
        Arg::Pointer(y.at(0)),
        Arg::Pointer(statistics.at(0)),
        int(rows),
        int(n),
        Arg::Int(centre.into()),
        number(eps),
    ];
    let function = format!("normalise_{}_{}", kernel.suffix, T::DTYPE);
    // SAFETY: x and y hold `rows` rows of n, the vectors n entries, the statistics two a row; results are the caller's alone.
    unsafe { gpu.launch(name, (Source::Normalise, &function), kernel.geometry, &args) }
}

pub(crate) fn backward<T: Scalar>(
    gpu: &Cuda,
    Rows { name, n, centre }: Rows,
    (x, statistics, dy): (Flat<'_, T>, &Storage<T>, Flat<'_, T>),
    weight: Option<Flat<'_, T>>,
    (dx, dw, db): (&mut Storage<T>, &mut Storage<T>, &mut Storage<T>),
) -> Result<()> {
    let rows = x.len / n;
    let (dx, dw, db) = (dx.cuda_mut(name)?, dw.cuda_mut(name)?, db.cuda_mut(name)?);
    let statistics = statistics.cuda(name)?;
    assert!(dy.len == x.len && dx.len() == x.len && statistics.len() == 2 * rows, "{name}: the operands' lengths");
    assert!(dw.len() == n && db.len() == n, "{name}: the vectors' lengths");
    if rows == 0 {
        dw.clear()?;
        return db.clear();
    }
    let (x, dy, dx) = (Arg::Pointer(x.cuda(name)?), Arg::Pointer(dy.cuda(name)?), Arg::Pointer(dx.at(0)));
    let (statistics, weight) = (Arg::Pointer(statistics.at(0)), vector(name, weight, n)?);
    let sizes = [int(rows), int(n), Arg::Int(centre.into())];
    let kernel = launch::summing_row_kernel(size_of::<T>(), rows, n);
    let function = format!("normalise_back_{}_{}", kernel.suffix, T::DTYPE);
    let partial: CudaBlock<T>;
    if kernel.suffix == "long" {
        let pieces = rows.min(PIECES);
        partial = gpu.allocate(pieces * 2 * n)?;
        let args = [[x, statistics, weight, dy, dx].as_slice(), &sizes].concat();
        let sums = [x, statistics, dy, Arg::Pointer(partial.at(0)), int(rows), int(n), int(pieces)];
        let columns = format!("normalise_columns_{}", T::DTYPE);
        let geometry = launch::row_kernel(size_of::<T>(), rows, n).geometry;
        // SAFETY: x, dy and dx hold `rows` rows of n, the weight n entries, the statistics two a row, `partial` two rows of n a
        // piece; dx and `partial` are this function's alone.
        unsafe {
            gpu.launch(name, (Source::Normalise, &function), geometry, &args)?;
            gpu.launch(name, (Source::Normalise, &columns), launch::heavy(pieces * n), &sums)?;
        }
    } else {
        partial = gpu.allocate(kernel.geometry.blocks as usize * 2 * n)?;
        let args = [[x, statistics, weight, dy, dx, Arg::Pointer(partial.at(0))].as_slice(), &sizes].concat();
        // SAFETY: as above, with two rows of `partial` for each block.
        unsafe { gpu.launch(name, (Source::Normalise, &function), kernel.geometry, &args)? };
    }
    fold(gpu, name, &partial, 2 * n, (dw, db))
}
