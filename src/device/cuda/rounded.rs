//! Blocks of singles in bf16: the rounded operands of products, and what operations keep for their way back.
//!
//! A block read by [`KEEP_FROM`] products since it was last written is taken for a frozen weight and keeps its copy. Other operands are rounded for
//! the product at hand, unless somebody has a copy already: a block knows the one that [`kept`] made of it, for as long as that lives.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    compile::Source,
    context::{Cuda, lock},
    launch::{self, Arg, int},
};
use crate::{
    device::precision::Precision,
    error::Result,
    scalar::{DType, Element},
};
use half::bf16;
use std::sync::{Arc, Mutex, Weak};

/// Products that read a block before it keeps its rounded copy.
const KEEP_FROM: u32 = 16;

/// Blocks of fewer elements stay in singles: statistics, vectors, small weights.
const LEAST_KEPT: usize = 1 << 16;

/// The rounded copy of a block, and how many products have asked for it where there was none.
#[derive(Default)]
pub(crate) struct Shadow(Mutex<(u32, Option<Copy>)>);

enum Copy {
    /// The block's own: a frozen weight's, or the only form in which its elements are there.
    Own(Arc<CudaBlock<bf16>>),
    /// One that operations keep.
    Theirs(Weak<CudaBlock<bf16>>),
}

impl Shadow {
    /// The elements are in this copy.
    fn of(copy: Arc<CudaBlock<bf16>>) -> Self {
        Self(Mutex::new((0, Some(Copy::Own(copy)))))
    }
}

fn alive(copy: &Option<Copy>) -> Option<Arc<CudaBlock<bf16>>> {
    match copy {
        None => None,
        Some(Copy::Own(block)) => Some(block.clone()),
        Some(Copy::Theirs(block)) => block.upgrade(),
    }
}

/// A stretch of a block in bf16.
pub(crate) struct Rounded {
    block: Arc<CudaBlock<bf16>>,
    /// The position in the original at which the copy begins.
    first: usize,
}

impl Rounded {
    /// Where the original's first element would be.
    pub(crate) fn origin(&self) -> u64 {
        self.block.at(0).wrapping_sub((self.first * size_of::<bf16>()) as u64)
    }
}

/// Elements `low..=high` of a block of singles in bf16.
pub(crate) fn rounded<T: Element>(gpu: &Cuda, block: &CudaBlock<T>, low: usize, high: usize) -> Result<Rounded> {
    let mut shadow = lock(&block.shadow().0);
    if let Some(block) = alive(&shadow.1) {
        return Ok(Rounded { block, first: 0 });
    }
    shadow.0 += 1;
    if shadow.0 < KEEP_FROM {
        // On a boundary of 16 bytes.
        let first = low / 8 * 8;
        return Ok(Rounded { block: Arc::new(round(gpu, block, first, high + 1 - first)?), first });
    }
    let whole = Arc::new(round(gpu, block, 0, block.len())?);
    shadow.1 = Some(Copy::Own(whole.clone()));
    Ok(Rounded { block: whole, first: 0 })
}

/// A block of the same elements in bf16 alone, where the handle's products are in bf16 and the block is worth it. All that is kept of a
/// block shares one copy.
pub(crate) fn kept<T: Element>(gpu: &Cuda, block: &CudaBlock<T>) -> Result<Option<CudaBlock<T>>> {
    if T::DTYPE != DType::F32 || gpu.precision() != Precision::Bf16 || block.len() < LEAST_KEPT {
        return Ok(None);
    }
    let mut shadow = lock(&block.shadow().0);
    let copy = match alive(&shadow.1) {
        Some(copy) => copy,
        None => {
            let copy = Arc::new(round(gpu, block, 0, block.len())?);
            shadow.1 = Some(Copy::Theirs(Arc::downgrade(&copy)));
            copy
        }
    };
    Ok(Some(gpu.unplaced(block.len(), Shadow::of(copy))))
}

fn round<T: Element>(gpu: &Cuda, block: &CudaBlock<T>, first: usize, len: usize) -> Result<CudaBlock<bf16>> {
    debug_assert!(size_of::<T>() == 4 && first + len <= block.len());
    let out = gpu.allocate::<bf16>(len)?;
    let args = [Arg::Pointer(block.at(first)), Arg::Pointer(out.at(0)), int(len)];
    // SAFETY: the block holds `len` singles from `first` on, the new one as many halves.
    unsafe { gpu.launch("gemm", (Source::Cast, "round_bf16"), launch::heavy(len.div_ceil(4)), &args)? };
    Ok(out)
}

/// Writes the elements of a block that are in bf16 alone to `address` as singles.
///
/// # Safety
/// At `address` there is room for them, which nobody else uses.
pub(crate) unsafe fn widen<T: Element>(gpu: &Cuda, block: &CudaBlock<T>, address: u64) -> Result<()> {
    debug_assert_eq!(T::DTYPE, DType::F32);
    let Some(copy) = alive(&lock(&block.shadow().0).1) else {
        unreachable!("a block that is nowhere in singles has its copy")
    };
    let args = [Arg::Pointer(copy.at(0)), Arg::Pointer(address), int(copy.len())];
    let geometry = launch::heavy(copy.len().div_ceil(4));
    // SAFETY: the copy holds as many halves as there is room for singles, by the caller's word.
    unsafe { gpu.launch("restore", (Source::Cast, "widen_bf16"), geometry, &args) }
}
