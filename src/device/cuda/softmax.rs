//! Softmax on a GPU: a row is read once and written once; one that is longer than what a block holds is read twice, by several blocks where there
//! are few rows.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    compile::Source,
    context::Cuda,
    elementwise::{check, pack},
    launch::{self, Arg, Nest, int},
};
use crate::{
    device::{
        layout::{Layout, Loop, loops},
        softmax::Kind,
        storage::{Flat, Storage},
    },
    error::Result,
    scalar::Scalar,
};

fn log(kind: Kind) -> Arg {
    Arg::Int((kind == Kind::LogSoftmax).into())
}

/// A mask row by row: where it begins, the loops over rows, how far its entries are apart along a row.
fn mask_rows<T: Scalar>(mask: u64, layout: &Layout) -> Option<[Arg; 3]> {
    let last = layout.order() - 1;
    let head = Layout::new(&layout.shape()[..last], &layout.strides()[..last], 0);
    let nest = Nest::new(&loops([&head]))?;
    let start = mask + (layout.offset() * size_of::<T>()) as u64;
    Some([Arg::Pointer(start), Arg::Nest(nest), Arg::Int(layout.strides()[last] as i64)])
}

/// How the blocks of long rows hear of each other.
struct Parts<T: Scalar> {
    /// Blocks to a row.
    pieces: usize,
    /// What each of them finds in its stretch, where there are several.
    found: Option<CudaBlock<T>>,
}

impl<T: Scalar> Parts<T> {
    /// Of `rows` rows of `n` entries, with so many numbers for a block.
    fn of(gpu: &Cuda, rows: usize, n: usize, numbers: usize) -> Result<Self> {
        let pieces = launch::stretches(size_of::<T>(), rows, n);
        let found = (pieces > 1).then(|| gpu.allocate(numbers * rows * pieces)).transpose()?;
        Ok(Self { pieces, found })
    }

    fn args(&self) -> [Arg; 2] {
        [Arg::Pointer(self.found.as_ref().map_or(0, |found| found.at(0))), int(self.pieces)]
    }
}

/// Of rows of `n` entries; the mask's layout is broadcast to x's shape.
pub(crate) fn forward<T: Scalar>(
    gpu: &Cuda,
    kind: Kind,
    x: Flat<'_, T>,
    n: usize,
    mask: Option<(&Storage<T>, &Layout)>,
    out: &mut Storage<T>,
) -> Result<()> {
    let name = kind.name();
    let out = out.cuda_mut(name)?;
    assert_eq!(out.len(), x.len, "{name}: the result's length");
    if x.len == 0 {
        return Ok(());
    }
    let rows = x.len / n;
    let none = Nest::new(&[Loop { size: 1, strides: [0] }]);
    let (mut packed, mut terms) = (None, none.map(|nest| [Arg::Pointer(0), Arg::Nest(nest), Arg::Int(0)]));
    if let Some((mask, layout)) = mask {
        let block = mask.cuda(name)?;
        check(name, block.len(), layout);
        assert_eq!(layout.len(), x.len, "{name}: the mask's shape");
        terms = mask_rows::<T>(block.at(0), layout);
        if terms.is_none() {
            // More loops than a kernel takes.
            let copy = packed.insert(pack(gpu, block, layout)?);
            terms = mask_rows::<T>(copy.at(0), &Layout::contiguous(&[rows, n]));
        }
    }
    let Some([mask, head, along]) = terms else { unreachable!("one loop over rows fits") };
    let kernel = launch::row_kernel(size_of::<T>(), rows, n);
    let (from, to) = (Arg::Pointer(x.cuda(name)?), Arg::Pointer(out.at(0)));
    let (sizes, terms) = ([int(rows), int(n)], [mask, head, along]);
    let run = |function: &str, geometry, args: &[&[Arg]]| {
        let function = format!("softmax_{function}_{}", T::DTYPE);
        // SAFETY: operand and result hold as many entries, the mask has one for each of them, `parts` two numbers for each block of a row; the
        // result is the caller's alone.
        unsafe { gpu.launch(name, (Source::Softmax, &function), geometry, &args.concat()) }
    };
    if !kernel.is_long() {
        return run(kernel.suffix, kernel.geometry, &[&[from, to], &sizes, &[log(kind)], &terms]);
    }
    let parts = Parts::<T>::of(gpu, rows, n, 2)?;
    let geometry = launch::crews(rows * parts.pieces);
    if parts.found.is_some() {
        run("parts", geometry, &[&[from], &sizes, &terms, &parts.args()])?;
    }
    run(kernel.suffix, geometry, &[&[from, to], &sizes, &[log(kind)], &terms, &parts.args()])
}

pub(crate) fn backward<T: Scalar>(
    gpu: &Cuda,
    kind: Kind,
    (y, dy): (Flat<'_, T>, Flat<'_, T>),
    n: usize,
    dx: &mut Storage<T>,
) -> Result<()> {
    let name = kind.name();
    let dx = dx.cuda_mut(name)?;
    assert!(dx.len() == y.len && dy.len == y.len, "{name}: the operands' lengths");
    if y.len == 0 {
        return Ok(());
    }
    let rows = y.len / n;
    let kernel = launch::row_kernel(size_of::<T>(), rows, n);
    let [y, dy, dx] = [y.cuda(name)?, dy.cuda(name)?, dx.at(0)].map(Arg::Pointer);
    let sizes = [int(rows), int(n), log(kind)];
    let run = |function: &str, geometry, args: &[&[Arg]]| {
        let function = format!("softmax_back_{function}_{}", T::DTYPE);
        // SAFETY: operands and result hold as many entries, `parts` a number for each block of a row; the result is the caller's alone.
        unsafe { gpu.launch(name, (Source::Softmax, &function), geometry, &args.concat()) }
    };
    if !kernel.is_long() {
        return run(kernel.suffix, kernel.geometry, &[&[y, dy, dx], &sizes]);
    }
    let parts = Parts::<T>::of(gpu, rows, n, 1)?;
    let geometry = launch::crews(rows * parts.pieces);
    if parts.found.is_some() {
        run("parts", geometry, &[&[y, dy], &sizes, &parts.args()])?;
    }
    run(kernel.suffix, geometry, &[&[y, dy, dx], &sizes, &parts.args()])
}

/// Along the middle of `[before, n, after]`.
pub(crate) fn forward_columns<T: Scalar>(
    gpu: &Cuda,
    kind: Kind,
    x: Flat<'_, T>,
    [n, after]: [usize; 2],
    out: &mut Storage<T>,
) -> Result<()> {
    let name = kind.name();
    let out = out.cuda_mut(name)?;
    assert_eq!(out.len(), x.len, "{name}: the result's length");
    if x.len == 0 {
        return Ok(());
    }
    let columns = x.len / n;
    let args = [Arg::Pointer(x.cuda(name)?), Arg::Pointer(out.at(0)), int(columns), int(n), int(after), log(kind)];
    let function = format!("softmax_columns_{}", T::DTYPE);
    // SAFETY: operand and result hold as many entries; the result is the caller's alone.
    unsafe { gpu.launch(name, (Source::Softmax, &function), launch::heavy(columns), &args) }
}

/// [`backward`] along the middle of `[before, n, after]`.
pub(crate) fn backward_columns<T: Scalar>(
    gpu: &Cuda,
    kind: Kind,
    (y, dy): (Flat<'_, T>, Flat<'_, T>),
    [n, after]: [usize; 2],
    dx: &mut Storage<T>,
) -> Result<()> {
    let name = kind.name();
    let dx = dx.cuda_mut(name)?;
    assert!(dx.len() == y.len && dy.len == y.len, "{name}: the operands' lengths");
    if y.len == 0 {
        return Ok(());
    }
    let columns = y.len / n;
    let [y, dy, dx] = [y.cuda(name)?, dy.cuda(name)?, dx.at(0)].map(Arg::Pointer);
    let args = [y, dy, dx, int(columns), int(n), int(after), log(kind)];
    let function = format!("softmax_columns_back_{}", T::DTYPE);
    // SAFETY: operands and result hold as many entries; the result is the caller's alone.
    unsafe { gpu.launch(name, (Source::Softmax, &function), launch::heavy(columns), &args) }
}
