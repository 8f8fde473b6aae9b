//! The shared block that a tensor's entries lie in.

use super::{Device, Kind, cpu::HostBlock};
use crate::{
    error::{Error, ErrorKind, Result},
    scalar::Element,
};
use std::sync::Arc;

#[cfg(feature = "cuda")]
use crate::scalar::DType;

/// A block of elements on a device. Clones share it; a write to a shared block copies it first.
#[derive(Clone)]
pub(crate) struct Storage<T: Element> {
    device: Device,
    block: Block<T>,
}

#[derive(Clone)]
pub(crate) enum Block<T: Element> {
    Host(Arc<HostBlock<T>>),
    #[cfg(feature = "cuda")]
    Cuda(Arc<super::cuda::CudaBlock<T>>),
}

/// Part of a block: `len` entries from `start` on.
#[derive(Clone, Copy)]
pub(crate) struct Flat<'a, T: Element> {
    pub(crate) storage: &'a Storage<T>,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl<'a, T: Element> Flat<'a, T> {
    /// The first `len` entries: a result of a kernel, whose block has no others.
    pub(crate) fn of(storage: &'a Storage<T>, len: usize) -> Self {
        Self { storage, start: 0, len }
    }

    /// The entries, where they are on the host.
    pub(crate) fn host(self, operation: &'static str) -> Result<&'a [T]> {
        Ok(&self.storage.host(operation)?[self.start..self.start + self.len])
    }

    /// The address of the first entry, where they are on a GPU.
    #[cfg(feature = "cuda")]
    pub(crate) fn cuda(self, operation: &'static str) -> Result<u64> {
        let block = self.storage.cuda(operation)?;
        assert!(self.start + self.len <= block.len(), "{operation}: a part beyond its block");
        Ok(block.at(self.start))
    }
}

/// Part of a block for writing: `len` entries from `start` on.
pub(crate) struct FlatMut<'a, T: Element> {
    pub(crate) storage: &'a mut Storage<T>,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl<'a, T: Element> FlatMut<'a, T> {
    /// The entries, where they are on the host; copies the block first if it is shared.
    pub(crate) fn host(self, operation: &'static str) -> Result<&'a mut [T]> {
        Ok(&mut self.storage.host_mut(operation)?[self.start..self.start + self.len])
    }

    /// The address of the first entry, where they are on a GPU; copies the block first if it is shared.
    #[cfg(feature = "cuda")]
    pub(crate) fn cuda(self, operation: &'static str) -> Result<u64> {
        let block = self.storage.cuda_mut(operation)?;
        assert!(self.start + self.len <= block.len(), "{operation}: a part beyond its block");
        Ok(block.at(self.start))
    }
}

impl<T: Element> Storage<T> {
    /// Wraps a vector on the host without copying it.
    pub(crate) fn from_vec(device: Device, data: Vec<T>) -> Self {
        debug_assert!(device.is_cpu());
        Self { device, block: Block::Host(Arc::new(HostBlock::adopted(data))) }
    }

    /// A block of `len` elements with arbitrary values, to be overwritten by a kernel.
    pub(crate) fn uninit(device: &Device, len: usize) -> Result<Self> {
        let block = match &device.0 {
            Kind::Cpu(_) => {
                check_room::<T>("allocate", len)?;
                Block::Host(Arc::new(HostBlock::pooled(len)))
            }
            #[cfg(feature = "cuda")]
            Kind::Cuda(gpu) => Block::Cuda(Arc::new(gpu.allocate(len)?)),
        };
        Ok(Self { device: device.clone(), block })
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Moves to `device`: O(1) where the block is already there, one transfer otherwise.
    pub(crate) fn to_device(&self, device: &Device) -> Result<Self> {
        if self.device.same_place(device) {
            return Ok(Self { device: device.clone(), block: self.block.clone() });
        }
        #[cfg(feature = "cuda")]
        {
            match (&self.block, &device.0) {
                (Block::Host(host), Kind::Cuda(gpu)) => {
                    let mut block = gpu.upload(host.as_slice())?;
                    if matches!(T::DTYPE, DType::U32 | DType::I64) {
                        block.remember(Some(host.clone()));
                    }
                    return Ok(Self { device: device.clone(), block: Block::Cuda(Arc::new(block)) });
                }
                (Block::Cuda(block), Kind::Cpu(_)) => {
                    if let Some(host) = block.remembered() {
                        return Ok(Self { device: device.clone(), block: Block::Host(host.clone()) });
                    }
                    block.restore()?;
                    let mut host = HostBlock::pooled(block.len());
                    block.download(host.as_mut_slice())?;
                    return Ok(Self { device: device.clone(), block: Block::Host(Arc::new(host)) });
                }
                (Block::Cuda(block), Kind::Cuda(gpu)) => {
                    block.restore()?;
                    let mut host = HostBlock::pooled(block.len());
                    block.download(host.as_mut_slice())?;
                    let block = Block::Cuda(Arc::new(gpu.upload(host.as_slice())?));
                    return Ok(Self { device: device.clone(), block });
                }
                (Block::Host(_), Kind::Cpu(_)) => {}
            }
        }
        Ok(Self { device: device.clone(), block: self.block.clone() })
    }

    /// The elements of a host block.
    pub(crate) fn host(&self, operation: &'static str) -> Result<&[T]> {
        #[cfg(not(feature = "cuda"))]
        let _ = operation;
        match &self.block {
            Block::Host(block) => Ok(block.as_slice()),
            #[cfg(feature = "cuda")]
            Block::Cuda(_) => Err(self.not_on_host(operation)),
        }
    }

    /// The elements of a host block for writing; copies the block first if it is shared.
    pub(crate) fn host_mut(&mut self, operation: &'static str) -> Result<&mut [T]> {
        #[cfg(feature = "cuda")]
        if matches!(self.block, Block::Cuda(_)) {
            return Err(self.not_on_host(operation));
        }
        let _ = operation;
        match &mut self.block {
            Block::Host(block) => {
                if Arc::get_mut(block).is_none() {
                    let mut copy = HostBlock::pooled(block.as_slice().len());
                    copy.as_mut_slice().copy_from_slice(block.as_slice());
                    *block = Arc::new(copy);
                }
                match Arc::get_mut(block) {
                    Some(block) => Ok(block.as_mut_slice()),
                    None => unreachable!("a block made a line above has one owner"),
                }
            }
            #[cfg(feature = "cuda")]
            Block::Cuda(_) => unreachable!("returned above"),
        }
    }

    /// The host vector itself, where this storage is its only owner.
    pub(crate) fn into_vec(self) -> std::result::Result<Vec<T>, Self> {
        match self.block {
            Block::Host(block) => match Arc::try_unwrap(block) {
                Ok(block) => Ok(block.into_vec()),
                Err(block) => Err(Self { device: self.device, block: Block::Host(block) }),
            },
            #[cfg(feature = "cuda")]
            block @ Block::Cuda(_) => Err(Self { device: self.device, block }),
        }
    }

    /// Wraps a block on a GPU.
    #[cfg(feature = "cuda")]
    pub(crate) fn from_cuda(device: &Device, block: super::cuda::CudaBlock<T>) -> Self {
        Self { device: device.clone(), block: Block::Cuda(Arc::new(block)) }
    }

    /// The block on a GPU.
    #[cfg(feature = "cuda")]
    pub(crate) fn cuda(&self, operation: &'static str) -> Result<&super::cuda::CudaBlock<T>> {
        let block = self.factor(operation)?;
        block.restore()?;
        Ok(block)
    }

    /// The block on a GPU for a product, which reads one that is kept in bf16 as it is.
    #[cfg(feature = "cuda")]
    pub(crate) fn factor(&self, operation: &'static str) -> Result<&super::cuda::CudaBlock<T>> {
        match &self.block {
            Block::Cuda(block) => Ok(block),
            Block::Host(_) => Err(not_on_gpu(operation)),
        }
    }

    /// What keeps the block, of which a tensor has `entries`, for later: itself; on a GPU whose products are in bf16, its elements in bf16,
    /// unless the tensor is a small part of it.
    pub(crate) fn kept(&self, entries: usize) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let (Block::Cuda(block), Kind::Cuda(gpu)) = (&self.block, &self.device.0)
            && entries >= block.len()
            && let Some(block) = super::cuda::rounded::kept(gpu, block)?
        {
            return Ok(Self { device: self.device.clone(), block: Block::Cuda(Arc::new(block)) });
        }
        let _ = entries;
        Ok(self.clone())
    }

    /// Whether the two are one block.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (&self.block, &other.block) {
            (Block::Host(a), Block::Host(b)) => Arc::ptr_eq(a, b),
            #[cfg(feature = "cuda")]
            (Block::Cuda(a), Block::Cuda(b)) => Arc::ptr_eq(a, b),
            #[cfg(feature = "cuda")]
            _ => false,
        }
    }

    /// The block on a GPU for writing; copies the block first if it is shared.
    #[cfg(feature = "cuda")]
    pub(crate) fn cuda_mut(&mut self, operation: &'static str) -> Result<&mut super::cuda::CudaBlock<T>> {
        let Block::Cuda(block) = &mut self.block else { return Err(not_on_gpu(operation)) };
        block.restore()?;
        if Arc::get_mut(block).is_none() {
            *block = Arc::new(block.duplicate()?);
        }
        match Arc::get_mut(block) {
            Some(block) => {
                block.remember(None);
                block.forget_shadow();
                Ok(block)
            }
            None => unreachable!("a block made a line above has one owner"),
        }
    }

    /// The elements of a block on a GPU, where the host knows them: indices that were uploaded and not changed.
    #[cfg(feature = "cuda")]
    pub(crate) fn remembered(&self) -> Option<&[T]> {
        match &self.block {
            Block::Cuda(block) => block.remembered().map(|host| host.as_slice()),
            Block::Host(_) => None,
        }
    }

    #[cfg(feature = "cuda")]
    fn not_on_host(&self, operation: &'static str) -> Error {
        Error::new(
            ErrorKind::Device,
            operation,
            format!("the tensor is on {}; move it with to_device(&Device::cpu()) first", self.device),
        )
    }

    /// Whether the block has no other owner, so that it may be written in place.
    pub(crate) fn is_unique(&self) -> bool {
        match &self.block {
            Block::Host(block) => Arc::strong_count(block) == 1,
            #[cfg(feature = "cuda")]
            Block::Cuda(block) => Arc::strong_count(block) == 1,
        }
    }
}

#[cfg(feature = "cuda")]
fn not_on_gpu(operation: &'static str) -> Error {
    Error::new(
        ErrorKind::Device,
        operation,
        "one operand is on the cpu, the other on a GPU; move one of them with to_device",
    )
}

/// Blocks of this many bytes and more are asked for on trial first: an allocation that fails would end the process.
const LARGE: usize = 1 << 30;

/// An error where the host cannot give a block of `len` elements.
pub(crate) fn check_room<T>(operation: &'static str, len: usize) -> Result<()> {
    let bytes = len.saturating_mul(size_of::<T>());
    let mut trial = Vec::<T>::new();
    // Looked at, or the compiler may leave the trial out.
    if bytes < LARGE || (trial.try_reserve_exact(len).is_ok() && std::hint::black_box(&trial).capacity() >= len) {
        return Ok(());
    }
    let message = format!("the host has no {:.1} GB for a result of {len} entries", bytes as f64 / 1e9);
    Err(Error::new(ErrorKind::Memory, operation, message))
}
