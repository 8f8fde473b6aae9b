//! The bytes of a tensor of a [`TensorFile`](super::TensorFile), wherever they are: read, in an open file, or not yet encoded.

use super::{Tensor, files::Origin, stored::encode};
use crate::{error::Result, scalar::Element};
use ndarray::IxDyn;
use std::{
    fs::File,
    io::{ErrorKind as Io, Read, Seek, SeekFrom},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

/// What is read or encoded at a time: whole numbers of every type, small beside any model.
const PIECE: usize = 1 << 20;

/// The bytes of one tensor. Clones are cheap.
#[derive(Clone)]
pub(super) enum Data {
    /// A part of a block that holds a whole file, shared by all its tensors.
    Block(Arc<Vec<u8>>, Range<usize>),
    /// A part of a file that is open, shared by all its tensors.
    File(Arc<Mutex<File>>, Range<u64>),
    /// A tensor that was put in.
    Tensor(Arc<dyn Encode>),
}

/// A tensor of any element type.
pub(super) trait Encode: Send + Sync {
    /// How many bytes it will be.
    fn len(&self) -> u64;

    /// Hands its bytes on, row-major, least significant first.
    fn pieces(&self, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>;
}

impl<T: Element> Encode for Tensor<T, IxDyn> {
    fn len(&self) -> u64 {
        (Tensor::len(self) * T::DTYPE.size()) as u64
    }

    fn pieces(&self, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let here = self.to_host()?.to_contiguous()?;
        let mut bytes = Vec::new();
        here.as_slice().unwrap_or_default().chunks(PIECE / T::DTYPE.size()).try_for_each(|numbers| {
            bytes.clear();
            encode(numbers, &mut bytes);
            take(&bytes)
        })
    }
}

impl Data {
    /// How many bytes there are.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Block(_, range) => range.len() as u64,
            Self::File(_, range) => range.end - range.start,
            Self::Tensor(tensor) => tensor.len(),
        }
    }

    /// Hands all bytes on, in pieces of whole numbers.
    pub(super) fn pieces(&self, origin: &Origin<'_>, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        match self {
            Self::Block(block, range) => take(&block[range.clone()]),
            Self::Tensor(tensor) => tensor.pieces(take),
            Self::File(file, range) => {
                // A place in the file is sought anew each time, so a reader that failed has left nothing behind.
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(range.start)).map_err(|e| origin.io(e))?;
                let (mut bytes, mut left) = (Vec::new(), range.end - range.start);
                while left > 0 {
                    bytes.resize(left.min(PIECE as u64) as usize, 0);
                    file.read_exact(&mut bytes).map_err(|e| match e.kind() {
                        Io::UnexpectedEof => origin.format("the file was cut short after it was opened"),
                        _ => origin.io(e),
                    })?;
                    take(&bytes)?;
                    left -= bytes.len() as u64;
                }
                Ok(())
            }
        }
    }

    /// All bytes at once.
    pub(super) fn to_vec(&self, origin: &Origin<'_>) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        origin.reserve(&mut all, self.len() as usize)?;
        self.pieces(origin, &mut |bytes| {
            all.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(all)
    }
}
