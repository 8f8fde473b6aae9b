//! Operands of products rounded to bf16, and the rounded copies that blocks keep.
//!
//! A block read by [`KEEP_FROM`] products since it was last written is taken for a frozen weight and keeps its copy. Activations are read by fewer
//! before they are dropped, and trained weights are written in every step: neither takes more memory than the product at hand needs.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    compile::Source,
    context::{Cuda, lock},
    launch::{self, Arg, int},
};
use crate::{error::Result, scalar::Element};
use half::bf16;
use std::sync::{Arc, Mutex};

/// Products that read a block before it keeps its rounded copy.
const KEEP_FROM: u32 = 16;

/// The rounded copy of a block, and how many products have asked for it.
#[derive(Default)]
pub(crate) struct Shadow(Mutex<(u32, Option<Arc<CudaBlock<bf16>>>)>);

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
    if let Some(block) = &shadow.1 {
        return Ok(Rounded { block: block.clone(), first: 0 });
    }
    shadow.0 += 1;
    if shadow.0 < KEEP_FROM {
        // On a boundary of 16 bytes.
        let first = low / 8 * 8;
        return Ok(Rounded { block: Arc::new(round(gpu, block, first, high + 1 - first)?), first });
    }
    let whole = Arc::new(round(gpu, block, 0, block.len())?);
    shadow.1 = Some(whole.clone());
    Ok(Rounded { block: whole, first: 0 })
}

fn round<T: Element>(gpu: &Cuda, block: &CudaBlock<T>, first: usize, len: usize) -> Result<CudaBlock<bf16>> {
    debug_assert!(size_of::<T>() == 4 && first + len <= block.len());
    let out = gpu.allocate::<bf16>(len)?;
    let args = [Arg::Pointer(block.at(first)), Arg::Pointer(out.at(0)), int(len)];
    // SAFETY: the block holds `len` singles from `first` on, the new one as many halves.
    unsafe { gpu.launch("gemm", (Source::Cast, "round_bf16"), launch::heavy(len.div_ceil(8)), &args)? };
    Ok(out)
}
