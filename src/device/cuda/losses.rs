//! Losses on a GPU, with their gradients in the same pass. The loss stays there.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    compile::Source,
    context::Cuda,
    elementwise::{check, number},
    launch::{self, Arg, int},
    reduce::{Scaled, finish_scaled, total_of},
};
use crate::{
    device::{
        gather::Block,
        layout::Layout,
        losses::Targets,
        reduce::Total,
        storage::{Flat, Storage},
    },
    error::Result,
    scalar::{Index, Scalar},
};

/// The gradient's address; 0 where none is wanted.
fn address<T: Scalar>(name: &'static str, gradient: Option<&mut Storage<T>>, len: usize) -> Result<u64> {
    let Some(gradient) = gradient else { return Ok(0) };
    let block = gradient.cuda_mut(name)?;
    assert_eq!(block.len(), len, "{name}: the gradient's length");
    Ok(block.at(0))
}

/// The mean loss, a single number, and the gradient where there is room for it. Labels have been checked.
pub(crate) fn cross_entropy<T: Scalar, I: Index>(
    gpu: &Cuda,
    (logits, start): Block<T>,
    (labels, first): Block<I>,
    targets: Targets,
    gradient: Option<&mut Storage<T>>,
    loss: &mut Storage<T>,
) -> Result<()> {
    const NAME: &str = "cross_entropy";
    let Targets { rows, classes, smoothing, ignore, counted } = targets;
    let (logits, labels) = (logits.cuda(NAME)?, labels.cuda(NAME)?);
    check(NAME, logits.len(), &Layout::new(&[rows * classes], &[1], start));
    check(NAME, labels.len(), &Layout::new(&[rows], &[1], first));
    let gradient = address(NAME, gradient, rows * classes)?;
    let one = 1.0 / counted as f64;
    let losses: CudaBlock<f64> = gpu.allocate(rows)?;
    let kernel = launch::row_kernel(size_of::<T>(), rows, classes);
    let args = [
        Arg::Pointer(logits.at(start)),
        Arg::Pointer(labels.at(first)),
        int(size_of::<I>()),
        Arg::Pointer(losses.at(0)),
        Arg::Pointer(gradient),
        int(rows),
        int(classes),
        Arg::Int(ignore.is_some().into()),
        Arg::Int(ignore.unwrap_or_default()),
        Arg::Double(smoothing),
        Arg::Double(one),
    ];
    let name = format!("cross_entropy_{}_{}", kernel.suffix, T::DTYPE);
    // SAFETY: logits and gradient hold `rows` rows of `classes`, labels and losses an entry a row; every label that counts is below
    // `classes`; losses and gradient are nobody else's.
    unsafe { gpu.launch(NAME, (Source::Losses, &name), kernel.geometry, &args)? };
    let sum = Scaled { total: Total::Sum, factor: one };
    total_of(gpu, sum, &losses, &Layout::contiguous(&[rows]), loss.cuda_mut(NAME)?)
}

/// The mean over `len` entries, a single number, and the gradient by the logits where there is room for it.
pub(crate) fn binary_cross_entropy<T: Scalar>(
    gpu: &Cuda,
    (logits, start): Block<T>,
    (targets, first): Block<T>,
    len: usize,
    gradient: Option<&mut Storage<T>>,
    loss: &mut Storage<T>,
) -> Result<()> {
    const NAME: &str = "bce_with_logits";
    let (logits, targets) = (logits.cuda(NAME)?, targets.cuda(NAME)?);
    check(NAME, logits.len(), &Layout::new(&[len], &[1], start));
    check(NAME, targets.len(), &Layout::new(&[len], &[1], first));
    let gradient = address(NAME, gradient, len)?;
    let one = 1.0 / len as f64;
    let geometry = launch::total(len);
    let partial = gpu.allocate::<f64>(geometry.blocks as usize)?;
    let pointers = [logits.at(start), targets.at(first), partial.at(0), gradient].map(Arg::Pointer);
    let args = [pointers.as_slice(), &[int(len), number(T::of(one))]].concat();
    let name = format!("binary_cross_entropy_{}", T::DTYPE);
    // SAFETY: logits, targets and gradient hold `len` entries; each block writes its own one of `partial`.
    unsafe { gpu.launch(NAME, (Source::Losses, &name), geometry, &args)? };
    finish_scaled(gpu, NAME, &partial, Scaled { total: Total::Sum, factor: one }, loss.cuda_mut(NAME)?)
}

/// Every entry times a single number, in place.
pub(crate) fn scale_by<T: Scalar>(gpu: &Cuda, x: &mut Storage<T>, by: Flat<'_, T>) -> Result<()> {
    const NAME: &str = "loss";
    let x = x.cuda_mut(NAME)?;
    assert_eq!(by.len, 1, "a single number");
    if x.len() == 0 {
        return Ok(());
    }
    let args = [Arg::Pointer(x.at(0)), Arg::Pointer(by.cuda(NAME)?), int(x.len())];
    let name = format!("scale_by_{}", T::DTYPE);
    // SAFETY: x holds as many entries and is the caller's alone; `by` holds one.
    unsafe { gpu.launch(NAME, (Source::Losses, &name), launch::entries(x.len()), &args) }
}
