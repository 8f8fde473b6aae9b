//! The same entries seen otherwise: permuted, reshaped, sliced, broadcast; and several tensors joined.

use super::{Tensor, checked_shape};
use crate::{
    device::{
        elementwise,
        layout::{Layout, checked_len},
        place::{self, Stride},
        storage::Storage,
    },
    error::{Error, Result},
    scalar::Element,
};
use ndarray::{Dimension, IntoDimension, Ix2, SliceArg, SliceInfoElem};
use std::ops::Range;

impl<T: Element, D: Dimension> Tensor<T, D> {
    /// The modes in another order: mode `i` of the result is mode `order[i]`. A view.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) unless `order` names each mode once.
    pub fn permute(&self, order: &[usize]) -> Result<Self> {
        let mut seen = vec![false; self.order()];
        let fits = order.len() == self.order()
            && order.iter().all(|&m| m < seen.len() && !std::mem::replace(&mut seen[m], true));
        if !fits {
            let message = format!("{order:?} does not name each mode of shape {:?} once", self.shape());
            return Err(Error::shape("permute", message));
        }
        Ok(Self::new(self.storage.clone(), self.layout.permuted(order)))
    }

    /// One mode moved to the front, the others in order: what [`unfold`](Tensor::unfold) flattens. A view.
    pub(crate) fn mode_to_front(&self, mode: usize) -> Self {
        let order: Vec<usize> = std::iter::once(mode).chain((0..self.order()).filter(|&m| m != mode)).collect();
        Self::new(self.storage.clone(), self.layout.permuted(&order))
    }

    /// The entries in row-major order under another shape. A view where the strides allow it, else one copy.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the number of entries differs.
    pub fn reshape<D2: Dimension>(&self, shape: impl IntoDimension<Dim = D2>) -> Result<Tensor<T, D2>> {
        let shape = shape.into_dimension();
        let len = checked_shape("reshape", &shape)?;
        if len != self.len() {
            let message = format!(
                "shape {:?} holds {} entries and cannot become {:?}, which holds {len}",
                self.shape(),
                self.len(),
                shape.slice()
            );
            return Err(Error::shape("reshape", message));
        }
        self.reshaped(shape.slice())
    }

    /// [`reshape`](Tensor::reshape) to a shape of the same length.
    pub(crate) fn reshaped<D2: Dimension>(&self, shape: &[usize]) -> Result<Tensor<T, D2>> {
        match self.layout.reshaped(shape) {
            Some(layout) => Ok(Tensor::new(self.storage.clone(), layout)),
            None => Ok(Tensor::row_major(elementwise::copy(&self.storage, &self.layout)?, shape)),
        }
    }

    /// Part of the tensor, as ndarray's [`s!`](ndarray::s) writes it. A view.
    ///
    /// ```
    /// use ndarray::{array, s};
    /// use tenfold::Tensor;
    ///
    /// let x = Tensor::from(array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    /// let row = x.slice(s![1, ..;-1])?;
    /// assert_eq!(row.to_vec()?, [6.0, 5.0, 4.0]);
    /// assert!(x.slice(s![2, ..]).is_err());
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where an index or a range lies outside, or the count of modes differs.
    pub fn slice<I: SliceArg<D>>(&self, part: I) -> Result<Tensor<T, I::OutDim>> {
        let parts: &[SliceInfoElem] = part.as_ref();
        let modes = parts.iter().filter(|p| !matches!(p, SliceInfoElem::NewAxis)).count();
        if modes != self.order() {
            let message =
                format!("{modes} index expressions for the {} modes of shape {:?}", self.order(), self.shape());
            return Err(Error::shape("slice", message));
        }
        let mut layout = self.layout.clone();
        // `mode` counts the modes of the result, `here` those of this tensor.
        let (mut mode, mut modes) = (0, 0..);
        for p in parts {
            let here = match p {
                SliceInfoElem::NewAxis => self.order(),
                _ => modes.next().unwrap_or_default(),
            };
            match *p {
                SliceInfoElem::NewAxis => {
                    layout = layout.inserted(mode);
                    mode += 1;
                }
                SliceInfoElem::Index(i) => {
                    let n = layout.shape()[mode];
                    let at = if i < 0 { n.checked_add_signed(i) } else { Some(i as usize) };
                    match at.filter(|&at| at < n) {
                        Some(at) => layout = layout.indexed(mode, at),
                        None => return Err(outside("slice", "index", i, here, self.shape())),
                    }
                }
                SliceInfoElem::Slice { start, end, step } => {
                    let n = layout.shape()[mode];
                    let from_end = |i: isize| if i < 0 { n.checked_add_signed(i) } else { Some(i as usize) };
                    let first = from_end(start).filter(|&i| i <= n);
                    let Some(first) = first else { return Err(outside("slice", "start", start, here, self.shape())) };
                    let end = end.unwrap_or(n as isize);
                    let Some(last) = from_end(end).filter(|&i| i <= n) else {
                        return Err(outside("slice", "end", end, here, self.shape()));
                    };
                    if step == 0 {
                        return Err(Error::shape("slice", "a step of 0 goes nowhere"));
                    }
                    layout = stepped(&layout.narrowed(mode, first..last.max(first)), mode, step);
                    mode += 1;
                }
            }
        }
        Ok(Tensor::new(self.storage.clone(), layout))
    }

    /// One index of a mode, which disappears. A view.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where mode or index does not exist.
    pub fn index_mode(&self, mode: usize, index: usize) -> Result<Tensor<T, D::Smaller>> {
        self.check_mode("index_mode", mode)?;
        if index >= self.shape()[mode] {
            return Err(outside("index_mode", "index", index as isize, mode, self.shape()));
        }
        Ok(Tensor::new(self.storage.clone(), self.layout.indexed(mode, index)))
    }

    /// A range of one mode. A view.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the range leaves the mode.
    pub fn narrow(&self, mode: usize, range: Range<usize>) -> Result<Self> {
        self.check_mode("narrow", mode)?;
        if range.end > self.shape()[mode] || range.start > range.end {
            let message = format!("range {range:?} does not lie in mode {mode} of shape {:?}", self.shape());
            return Err(Error::shape("narrow", message));
        }
        Ok(Self::new(self.storage.clone(), self.layout.narrowed(mode, range)))
    }

    /// A mode of size 1 put in before `mode` (or at the end). A view.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where `mode` is above the order.
    pub fn insert_mode(&self, mode: usize) -> Result<Tensor<T, D::Larger>> {
        if mode > self.order() {
            return Err(Error::mode("insert_mode", mode, self.shape()));
        }
        Ok(Tensor::new(self.storage.clone(), self.layout.inserted(mode)))
    }

    /// The entries repeated along modes of size 1, by NumPy's rule: shapes are aligned at the last mode. A view.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where a mode is neither 1 nor what is asked for.
    pub fn broadcast_to<D2: Dimension>(&self, shape: impl IntoDimension<Dim = D2>) -> Result<Tensor<T, D2>> {
        let shape = shape.into_dimension();
        checked_shape("broadcast_to", &shape)?;
        match self.layout.broadcast(shape.slice()) {
            Some(layout) => Ok(Tensor::new(self.storage.clone(), layout)),
            None => {
                let message = format!("shape {:?} does not broadcast to {:?}", self.shape(), shape.slice());
                Err(Error::shape("broadcast_to", message))
            }
        }
    }

    /// Several tensors joined along a mode, in order.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where there is none, or other modes differ;
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) where they live on different devices.
    pub fn concat(parts: &[&Self], mode: usize) -> Result<Self> {
        let Some(first) = parts.first() else {
            return Err(Error::shape("concat", "nothing to join; give at least one tensor"));
        };
        first.check_mode("concat", mode)?;
        let mut shape = first.shape().to_vec();
        shape[mode] = 0;
        for part in parts {
            first.device().check_same(part.device(), "concat")?;
            let fits =
                part.order() == shape.len() && (0..shape.len()).all(|m| m == mode || part.shape()[m] == shape[m]);
            if !fits {
                let message = format!("shapes {:?} and {:?} differ beside mode {mode}", first.shape(), part.shape());
                return Err(Error::shape("concat", message));
            }
            shape[mode] += part.shape()[mode];
        }
        let widths: Vec<usize> = parts.iter().map(|part| part.shape()[mode..].iter().product()).collect();
        let packed: Vec<Self> = parts.iter().map(|part| part.to_contiguous()).collect::<Result<_>>()?;
        let blocks: Vec<(&Storage<T>, usize, usize)> =
            packed.iter().zip(widths).map(|(part, width)| (&part.storage, part.layout.offset(), width)).collect();
        let len = checked_len("concat", &shape)?;
        Ok(Self::row_major(place::join(first.device(), &blocks, len)?, &shape))
    }

    /// A tensor of `shape`, of zeros but for this one's entries: entry `i` of mode m goes to `first + i step` of `at[m]`.
    ///
    /// There is one `at` for each mode, and the places lie within `shape`.
    pub(crate) fn placed(&self, shape: &[usize], at: &[Stride]) -> Result<Self> {
        let len = checked_len("pad", shape)?;
        let packed = self.to_contiguous()?;
        let block = place::place(&packed.storage, packed.layout.offset(), self.shape(), shape, at, len)?;
        Ok(Self::row_major(block, shape))
    }

    /// The entry at `[i, j, ..]` of a slice lies at `first + i step` of each mode: these places, and the shape of the slice with
    /// the modes that were indexed away still there, of size 1. None for the modes that it puts in.
    pub(crate) fn places(&self, parts: &[SliceInfoElem]) -> (Vec<Stride>, Vec<usize>) {
        let old = parts.iter().filter(|p| !matches!(p, SliceInfoElem::NewAxis));
        let from_end = |i: isize, n: usize| if i < 0 { i + n as isize } else { i };
        old.zip(self.shape())
            .map(|(p, &n)| match *p {
                SliceInfoElem::Slice { start, end, step } => {
                    let first = from_end(start, n);
                    let last = end.map_or(n as isize, |end| from_end(end, n)).max(first);
                    let count = ((last - first) as usize).div_ceil(step.unsigned_abs().max(1));
                    (Stride { first: if step < 0 { last - 1 } else { first }, step }, count)
                }
                SliceInfoElem::Index(i) => (Stride { first: from_end(i, n), step: 1 }, 1),
                SliceInfoElem::NewAxis => (Stride { first: 0, step: 1 }, 1),
            })
            .unzip()
    }
}

impl<T: Element> Tensor<T, Ix2> {
    /// The transposed matrix. A view.
    pub fn t(&self) -> Self {
        Self::new(self.storage.clone(), self.layout.permuted(&[1, 0]))
    }
}

/// A mode walked with a step; a negative one starts from its far end.
fn stepped(layout: &Layout, mode: usize, step: isize) -> Layout {
    let n = layout.shape()[mode];
    let count = n.div_ceil(step.unsigned_abs());
    let mut shape = layout.shape().to_vec();
    let mut strides = layout.strides().to_vec();
    let mut offset = layout.offset();
    if step < 0 && layout.len() > 0 {
        offset = offset.wrapping_add_signed((n as isize - 1) * strides[mode]);
    }
    shape[mode] = count;
    // A step past the end may be anything; no second entry lies there.
    strides[mode] = if count > 1 { strides[mode] * step } else { 0 };
    Layout::new(&shape, &strides, offset)
}

fn outside(operation: &'static str, what: &str, index: isize, mode: usize, shape: &[usize]) -> Error {
    Error::shape(operation, format!("{what} {index} lies outside mode {mode} of shape {shape:?}"))
}
