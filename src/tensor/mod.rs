//! `Tensor<T, D>`: a typed N-way array on a device.
//!
//! `T` is the element type ([`Element`]: `f32`, `f64`, `bf16`, `f16`, `u8`, `u32`, `i64`), `D` the order as ndarray
//! writes it: [`Ix1`](type@::ndarray::Ix1) to [`Ix6`](type@::ndarray::Ix6), or [`IxDyn`](type@IxDyn) where the order is
//! known only at run time. A tensor is a shape and strides over a shared block of memory:
//!
//! - [`Clone`] is O(1); a write to a shared block copies it first.
//! - [`permute`](Tensor::permute), [`slice`](Tensor::slice), [`broadcast_to`](Tensor::broadcast_to) and, where the strides allow
//!   it, [`reshape`](Tensor::reshape) are views. Operations read strided operands in place.
//! - Results are row-major (the last mode runs fastest).
//!
//! ndarray goes in and comes out: [`From<Array>`](Tensor#impl-From<ArrayBase<OwnedRepr<T>,+D>>-for-Tensor<T,+D>) moves an owned array of
//! any memory layout, [`view`](Tensor::view) borrows a host tensor as an `ArrayView`, and
//! [`into_ndarray`](Tensor::into_ndarray) moves it out again.
//!
//! | file | what |
//! |---|---|
//! | `construct.rs` | zeros, ones, random numbers, from and to vectors |
//! | `ndarray.rs` | from and to ndarray |
//! | `view.rs` | permute, reshape, slice, broadcast, concatenate |
//! | `arithmetic.rs` | entrywise operations and operators |
//! | `total.rs` | sums, norms, finiteness |
//! | `npy.rs`, `safetensors.rs`, `serde.rs` | files |
//! | `stored.rs`, `files.rs`, `data.rs` | what files share: exact conversion, whole writes, bytes in pieces |
//! | `display.rs`, `approx.rs` | printing and comparing |

mod approx;
mod arithmetic;
mod construct;
mod data;
mod display;
mod files;
mod ndarray;
mod npy;
mod safetensors;
mod serde;
mod stored;
mod total;
mod view;

#[cfg(any(feature = "terminal", feature = "text"))]
pub(crate) use self::files::write_atomically;
pub(crate) use self::files::{Origin, Staged, first_few, listed, place_described, remove_abandoned};
pub use self::safetensors::TensorFile;
pub(crate) use view::{Part, resolved};

use crate::{
    device::{
        Device, elementwise,
        layout::{Layout, checked_len},
        storage::{Flat, FlatMut, Storage},
    },
    error::{Error, ErrorKind, Result},
    scalar::{DType, Element},
};
use ::ndarray::{Dimension, IxDyn};
use std::marker::PhantomData;

/// A typed N-way array on a device.
///
/// ```
/// use ndarray::{Ix3, array};
/// use tenfold::Tensor;
///
/// let x: Tensor<f64, Ix3> = Tensor::from(array![[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]]);
/// assert_eq!(x.shape(), &[1, 3, 2]);
/// assert_eq!(x.unfold(1)?.shape(), &[3, 2]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor<T: Element, D: Dimension = IxDyn> {
    pub(crate) storage: Storage<T>,
    pub(crate) layout: Layout,
    order: PhantomData<D>,
}

impl<T: Element, D: Dimension> Tensor<T, D> {
    /// Wraps a block; the layout lies within it and has `D`'s order.
    pub(crate) fn new(storage: Storage<T>, layout: Layout) -> Self {
        debug_assert!(D::NDIM.is_none_or(|n| n == layout.order()), "order {:?} for {layout:?}", D::NDIM);
        Self { storage, layout, order: PhantomData }
    }

    /// Wraps a row-major block.
    pub(crate) fn row_major(storage: Storage<T>, shape: &[usize]) -> Self {
        Self::new(storage, Layout::contiguous(shape))
    }

    /// The size of each mode.
    pub fn shape(&self) -> &[usize] {
        self.layout.shape()
    }

    /// How far neighbours along each mode are apart in memory, in elements.
    pub fn strides(&self) -> &[isize] {
        self.layout.strides()
    }

    /// The number of modes.
    pub fn order(&self) -> usize {
        self.layout.order()
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.layout.len()
    }

    /// Whether there are no entries (some mode has size 0).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the entries live.
    pub fn device(&self) -> &Device {
        self.storage.device()
    }

    /// The element type at run time.
    pub fn dtype(&self) -> DType {
        T::DTYPE
    }

    /// Whether the entries lie in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        self.layout.is_contiguous()
    }

    /// The same tensor on `device`. O(1) where it is there already (only the thread count and the precision change), a transfer otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`] where the device cannot hold it.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        if self.device().same_place(device) {
            return Ok(Self::new(self.storage.to_device(device)?, self.layout.clone()));
        }
        // Indices that the host still has need not travel.
        #[cfg(feature = "cuda")]
        if device.is_cpu() && self.storage.remembered().is_some() {
            return Ok(Self::new(self.storage.to_device(device)?, self.layout.clone()));
        }
        // What travels is the tensor, not the block that it may be a small view of.
        let here = Self::row_major(elementwise::copy(&self.storage, &self.layout)?, self.shape());
        Ok(Self::new(here.storage.to_device(device)?, here.layout))
    }

    /// The same tensor, whose products are computed in full precision. O(1).
    pub(crate) fn exact(&self) -> Result<Self> {
        self.to_device(&self.device().exact())
    }

    /// The same entries in row-major order without gaps: this tensor where it already is so, a copy otherwise.
    pub fn to_contiguous(&self) -> Result<Self> {
        if self.layout.is_contiguous() {
            return Ok(self.clone());
        }
        Ok(Self::row_major(elementwise::copy(&self.storage, &self.layout)?, self.shape()))
    }

    /// The same tensor with its order known (or unknown) at compile time.
    ///
    /// ```
    /// use ndarray::{Ix2, IxDyn};
    /// use tenfold::Tensor;
    ///
    /// let x = Tensor::<f32, IxDyn>::zeros(vec![2, 3])?;
    /// let y: Tensor<f32, Ix2> = x.into_order()?;
    /// assert!(y.into_order::<ndarray::Ix3>().is_err());
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where `D2` is another order than the tensor has.
    pub fn into_order<D2: Dimension>(self) -> Result<Tensor<T, D2>> {
        match D2::NDIM {
            Some(n) if n != self.order() => Err(Error::shape(
                "into_order",
                format!("a tensor of shape {:?} has order {}, not {n}", self.shape(), self.order()),
            )),
            _ => Ok(Tensor::new(self.storage, self.layout)),
        }
    }

    /// The same tensor with its order known only at run time.
    pub fn into_dyn(self) -> Tensor<T, IxDyn> {
        Tensor::new(self.storage, self.layout)
    }

    /// A cheap clone with its order known only at run time.
    pub fn to_dyn(&self) -> Tensor<T, IxDyn> {
        self.clone().into_dyn()
    }

    /// The same values in another element type, converted as Rust's `as` does: floats round to nearest, integers saturate.
    pub fn cast<U: Element>(&self) -> Result<Tensor<U, D>> {
        Ok(Tensor::row_major(elementwise::cast(&self.storage, &self.layout)?, self.shape()))
    }

    /// One entry, brought to the host.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where the index has another order or lies outside.
    pub fn get(&self, index: &[usize]) -> Result<T> {
        if index.len() != self.order() || index.iter().zip(self.shape()).any(|(i, n)| i >= n) {
            let message = format!("index {index:?} does not lie in shape {:?}", self.shape());
            return Err(Error::shape("get", message));
        }
        let mut at = self.layout.clone();
        for (mode, &i) in index.iter().enumerate() {
            at = at.narrowed(mode, i..i + 1);
        }
        let one = Tensor::<T, D>::new(self.storage.clone(), at).to_host()?;
        Ok(one.storage.host("get")?[one.layout.offset()])
    }

    /// An error naming the mode unless the tensor has it.
    pub(crate) fn check_mode(&self, operation: &'static str, mode: usize) -> Result<()> {
        if mode < self.order() { Ok(()) } else { Err(Error::mode(operation, mode, self.shape())) }
    }

    /// The entries of a contiguous tensor as part of its block.
    pub(crate) fn flat(&self) -> Flat<'_, T> {
        debug_assert!(self.is_contiguous());
        Flat { storage: &self.storage, start: self.layout.offset(), len: self.len() }
    }

    /// On the host: itself, or a copy from the GPU of just its entries.
    pub(crate) fn to_host(&self) -> Result<Self> {
        if self.device().is_cpu() { Ok(self.clone()) } else { self.to_device(&Device::cpu()) }
    }

    /// The entries in row-major order as a slice of the host's memory, where they lie so.
    pub fn as_slice(&self) -> Option<&[T]> {
        let range = self.layout.contiguous_range()?;
        self.storage.host("as_slice").ok()?.get(range)
    }

    /// The entries in row-major order.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        let here = self.to_host()?.to_contiguous()?;
        match here.as_slice() {
            Some(slice) => Ok(slice.to_vec()),
            None => unreachable!("a contiguous host tensor is a slice"),
        }
    }

    /// The entries for writing, in row-major order; the tensor becomes contiguous and the only owner of its block.
    pub fn as_mut_slice(&mut self) -> Result<&mut [T]> {
        self.flat_mut()?.host("as_mut_slice")
    }

    /// The entries as part of a block for writing; the tensor becomes contiguous and the only owner of its block.
    pub(crate) fn flat_mut(&mut self) -> Result<FlatMut<'_, T>> {
        if !self.layout.is_contiguous() || !self.storage.is_unique() {
            *self = Self::row_major(elementwise::copy(&self.storage, &self.layout)?, self.layout.shape());
        }
        Ok(FlatMut { start: self.layout.offset(), len: self.layout.len(), storage: &mut self.storage })
    }
}

/// The index, mode by mode, of the entry at row-major `position`.
pub(crate) fn index_at(shape: &[usize], mut position: usize) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, &n) in index.iter_mut().zip(shape).rev() {
        *i = position % n;
        position /= n;
    }
    index
}

/// The length of anything ndarray takes as a shape, checked. Order 0 is a single number.
pub(crate) fn checked_shape<D: Dimension>(operation: &'static str, shape: &D) -> Result<usize> {
    checked_len(operation, shape.slice())
}

/// An error of kind `Value`.
pub(crate) fn value_error(operation: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Value, operation, message)
}
