//! Blocks of elements on a GPU, and their way there and back.
#![allow(unsafe_code)]

use super::{
    context::{Cuda, driver},
    rounded::{self, Shadow},
};
use crate::{device::cpu::HostBlock, error::Result, scalar::Element};
use cudarc::driver::sys;
use std::{
    marker::PhantomData,
    sync::{Arc, OnceLock},
};

/// `len` elements in a GPU's memory; dropped, the memory waits for reuse.
pub(crate) struct CudaBlock<T: Element> {
    gpu: Cuda,
    /// None while the elements are in the shadow alone, in bf16.
    place: OnceLock<Place>,
    len: usize,
    /// The same elements on the host, where they are known there: indices are checked without waiting for the GPU.
    host: Option<Arc<HostBlock<T>>>,
    shadow: Shadow,
    element: PhantomData<T>,
}

/// Memory that a block owns; both 0 where there are no elements.
#[derive(Clone, Copy)]
struct Place {
    address: u64,
    class: usize,
}

impl<T: Element> Drop for CudaBlock<T> {
    fn drop(&mut self) {
        if let Some(place) = self.place.get().filter(|place| place.class > 0) {
            self.gpu.give(place.address, place.class);
        }
    }
}

impl Cuda {
    /// A block with arbitrary values.
    pub(crate) fn allocate<T: Element>(&self, len: usize) -> Result<CudaBlock<T>> {
        let (address, class) = match len {
            0 => (0, 0),
            _ => self.take(len.saturating_mul(size_of::<T>()))?,
        };
        let block = self.unplaced(len, Shadow::default());
        let _ = block.place.set(Place { address, class });
        Ok(block)
    }

    /// A block whose elements are in this shadow alone.
    pub(crate) fn unplaced<T: Element>(&self, len: usize, shadow: Shadow) -> CudaBlock<T> {
        CudaBlock { gpu: self.clone(), place: OnceLock::new(), len, host: None, shadow, element: PhantomData }
    }

    /// A block with these values; they are copied before this returns, and arrive in the order of the stream.
    pub(crate) fn upload<T: Element>(&self, values: &[T]) -> Result<CudaBlock<T>> {
        let block = self.allocate(values.len())?;
        self.enter("upload")?;
        // SAFETY: elements are plain numbers without padding, so their bytes may be read.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        // SAFETY: the block is new, holds as many bytes, and nobody else has it.
        unsafe { self.staging().upload(self, bytes, block.at(0))? };
        Ok(block)
    }
}

impl<T: Element> CudaBlock<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Keeps what was uploaded, or forgets it since the block is about to change.
    pub(crate) fn remember(&mut self, host: Option<Arc<HostBlock<T>>>) {
        self.host = host;
    }

    /// The elements on the host, where they are known there.
    pub(crate) fn remembered(&self) -> Option<&Arc<HostBlock<T>>> {
        self.host.as_ref()
    }

    /// What is kept of the block in bf16.
    pub(crate) fn shadow(&self) -> &Shadow {
        &self.shadow
    }

    /// The block is about to be written: a rounded copy would be of other values.
    pub(crate) fn forget_shadow(&mut self) {
        self.shadow = Shadow::default();
    }

    /// Whether the elements are there in bf16 alone.
    pub(crate) fn is_rounded(&self) -> bool {
        self.place.get().is_none()
    }

    /// Makes singles of elements that are there in bf16 alone.
    pub(crate) fn restore(&self) -> Result<()> {
        if !self.is_rounded() {
            return Ok(());
        }
        let (address, class) = self.gpu.take(self.len * size_of::<T>())?;
        // SAFETY: new memory of this size.
        let written = unsafe { rounded::widen(&self.gpu, self, address) };
        if written.is_err() || self.place.set(Place { address, class }).is_err() {
            // No kernel, or another thread was faster.
            self.gpu.give(address, class);
        }
        written
    }

    /// The address of the element at `position`. The elements are in place, as they are in every block but one that is yet to be
    /// [restored](CudaBlock::restore).
    pub(crate) fn at(&self, position: usize) -> u64 {
        debug_assert!(position <= self.len, "position {position} in a block of {}", self.len);
        match self.place.get() {
            Some(place) => place.address + (position * size_of::<T>()) as u64,
            None => unreachable!("the address of a block that is there in bf16 alone"),
        }
    }

    /// Copies the elements to the host, waiting for what was queued before.
    pub(crate) fn download(&self, to: &mut [T]) -> Result<()> {
        debug_assert_eq!(to.len(), self.len);
        self.gpu.enter("download")?;
        // SAFETY: elements are plain numbers of which every bit pattern is one.
        let bytes = unsafe { std::slice::from_raw_parts_mut(to.as_mut_ptr().cast::<u8>(), size_of_val(to)) };
        // SAFETY: the block holds as many bytes.
        unsafe { self.gpu.staging().download(&self.gpu, self.at(0), bytes) }
    }

    /// The first element, brought to the host.
    pub(crate) fn first(&self) -> Result<T> {
        let mut one = [T::default()];
        self.gpu.enter("download")?;
        debug_assert!(self.len > 0);
        // SAFETY: as in `download`.
        let bytes = unsafe { std::slice::from_raw_parts_mut(one.as_mut_ptr().cast::<u8>(), size_of::<T>()) };
        // SAFETY: the block holds at least one element.
        unsafe { self.gpu.staging().download(&self.gpu, self.at(0), bytes)? };
        Ok(one[0])
    }

    /// Another block with the same elements.
    pub(crate) fn duplicate(&self) -> Result<Self> {
        let copy = self.gpu.allocate(self.len)?;
        let bytes = self.len * size_of::<T>();
        if bytes > 0 {
            self.gpu.enter("copy")?;
            // SAFETY: both blocks hold as many bytes, the new one is nobody else's.
            let result = unsafe { sys::cuMemcpyDtoDAsync_v2(copy.at(0), self.at(0), bytes, self.gpu.stream()) };
            driver("copy", result)?;
        }
        Ok(copy)
    }

    /// Fills the block with zero bytes.
    pub(crate) fn clear(&mut self) -> Result<()> {
        let bytes = self.len * size_of::<T>();
        if bytes == 0 {
            return Ok(());
        }
        self.gpu.enter("fill")?;
        // SAFETY: the block holds as many bytes and is the caller's alone.
        driver("fill", unsafe { sys::cuMemsetD8Async(self.at(0), 0, bytes, self.gpu.stream()) })
    }
}

/// Bytes of one of the two buffers through which transfers go.
const STAGE: usize = 8 << 20;

/// Bytes of one of the buffers for small uploads, and how many there are.
const SMALL: usize = 256 << 10;
const RING: usize = 16;

/// Two buffers of page-locked memory: while the GPU reads or writes one, the host fills or empties the other. Small uploads (indices,
/// labels, an optimiser's table) take turns in buffers of their own, so that none waits for what was queued before the last one.
#[derive(Default)]
pub(crate) struct Staging {
    stages: Option<[Stage; 2]>,
    ring: Vec<Stage>,
    turn: usize,
}

struct Stage {
    memory: *mut u8,
    /// When the last transfer through this buffer is done.
    done: sys::CUevent,
}

// SAFETY: page-locked memory and events may be used from any thread; the mutex around `Staging` lets one at a time.
unsafe impl Send for Staging {}

impl Stage {
    fn new(bytes: usize) -> Result<Self> {
        let mut memory = std::ptr::null_mut();
        // SAFETY: the call writes one address.
        driver("transfer", unsafe { sys::cuMemAllocHost_v2(&mut memory, bytes) })?;
        let mut done = std::ptr::null_mut();
        let without_timing = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: the call writes one handle.
        driver("transfer", unsafe { sys::cuEventCreate(&mut done, without_timing) })?;
        Ok(Self { memory: memory.cast(), done })
    }

    /// Waits until the buffer may be touched: at once where it was never used.
    fn wait(&self) -> Result<()> {
        // SAFETY: the event lives as long as the process; one that was never recorded counts as done.
        driver("transfer", unsafe { sys::cuEventSynchronize(self.done) })
    }

    /// Queues a copy to the GPU through the buffer, as soon as it is free.
    ///
    /// # Safety
    /// The buffer holds as many bytes; at `to` there is room for them, which nobody else uses; the GPU's context is current.
    unsafe fn send(&self, gpu: &Cuda, bytes: &[u8], to: u64) -> Result<()> {
        self.wait()?;
        // SAFETY: the buffer holds the bytes, and the GPU is done with it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.memory, bytes.len()) };
        // SAFETY: room by the caller's word; the buffer is not touched before `wait`.
        driver("upload", unsafe { sys::cuMemcpyHtoDAsync_v2(to, self.memory.cast(), bytes.len(), gpu.stream()) })?;
        self.record(gpu)
    }

    fn record(&self, gpu: &Cuda) -> Result<()> {
        // SAFETY: event and stream live as long as the process.
        driver("transfer", unsafe { sys::cuEventRecord(self.done, gpu.stream()) })
    }
}

impl Staging {
    fn stages(&mut self) -> Result<&[Stage; 2]> {
        match &mut self.stages {
            Some(stages) => Ok(stages),
            none => Ok(none.insert([Stage::new(STAGE)?, Stage::new(STAGE)?])),
        }
    }

    /// The next of the small buffers.
    fn small(&mut self) -> Result<&Stage> {
        let turn = self.turn;
        if turn == self.ring.len() {
            self.ring.push(Stage::new(SMALL)?);
        }
        self.turn = (turn + 1) % RING;
        Ok(&self.ring[turn])
    }

    /// Queues a copy of `bytes` to the GPU.
    ///
    /// # Safety
    /// At `to` there is room for them, which nobody else uses; the GPU's context is current.
    unsafe fn upload(&mut self, gpu: &Cuda, bytes: &[u8], to: u64) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if bytes.len() <= SMALL {
            // SAFETY: the caller's word; the buffer holds SMALL bytes.
            return unsafe { self.small()?.send(gpu, bytes, to) };
        }
        let stages = self.stages()?;
        for (i, chunk) in bytes.chunks(STAGE).enumerate() {
            // SAFETY: the caller's word; the buffer holds STAGE bytes.
            unsafe { stages[i % 2].send(gpu, chunk, to + (i * STAGE) as u64)? };
        }
        Ok(())
    }

    /// Copies from the GPU, and waits for it.
    ///
    /// # Safety
    /// At `from` there are as many bytes; the GPU's context is current.
    unsafe fn download(&mut self, gpu: &Cuda, from: u64, bytes: &mut [u8]) -> Result<()> {
        #[cfg(test)]
        super::waits::count();
        let stages = self.stages()?;
        let total = bytes.len();
        let queue = |i: usize| -> Result<()> {
            let stage = &stages[i % 2];
            stage.wait()?;
            let len = (total - i * STAGE).min(STAGE);
            let at = from + (i * STAGE) as u64;
            // SAFETY: the buffer holds STAGE bytes and is not in use; the bytes are there by the caller's word.
            driver("download", unsafe { sys::cuMemcpyDtoHAsync_v2(stage.memory.cast(), at, len, gpu.stream()) })?;
            stage.record(gpu)
        };
        let count = total.div_ceil(STAGE);
        if count > 0 {
            queue(0)?;
        }
        for (i, chunk) in bytes.chunks_mut(STAGE).enumerate() {
            // The next chunk travels while this one is copied out.
            if i + 1 < count {
                queue(i + 1)?;
            }
            let stage = &stages[i % 2];
            stage.wait()?;
            // SAFETY: the buffer holds this chunk, and the GPU is done with it until the next call of `queue` for it.
            unsafe { std::ptr::copy_nonoverlapping(stage.memory, chunk.as_mut_ptr(), chunk.len()) };
        }
        Ok(())
    }
}
