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
        let mut layout = self.layout.clone();
        let mut mode = 0;
        for part in resolved(part.as_ref(), self.shape())? {
            let kept = !matches!(part, Part::Index(_));
            layout = match part {
                Part::New => layout.inserted(mode),
                Part::Index(at) => layout.indexed(mode, at),
                Part::Range(range, step) => stepped(&layout.narrowed(mode, range), mode, step),
            };
            mode += usize::from(kept);
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
            shape[mode] = shape[mode].saturating_add(part.shape()[mode]);
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
    pub(crate) fn places(&self, parts: &[SliceInfoElem]) -> Result<(Vec<Stride>, Vec<usize>)> {
        let places = resolved(parts, self.shape())?.into_iter().filter_map(|part| match part {
            Part::New => None,
            Part::Index(i) => Some((Stride { first: i as isize, step: 1 }, 1)),
            Part::Range(range, step) => {
                let count = range.len().div_ceil(step.unsigned_abs());
                let first = if step < 0 { range.end as isize - 1 } else { range.start as isize };
                Some((Stride { first, step }, count))
            }
        });
        Ok(places.unzip())
    }
}

impl<T: Element> Tensor<T, Ix2> {
    /// The transposed matrix. A view.
    pub fn t(&self) -> Self {
        Self::new(self.storage.clone(), self.layout.permuted(&[1, 0]))
    }

    /// Rows of a range with a step between them. A view.
    pub(crate) fn stepped_rows(&self, range: Range<usize>, step: isize) -> Result<Self> {
        let rows = self.narrow(0, range)?;
        Ok(Self::new(rows.storage.clone(), stepped(&rows.layout, 0, step)))
    }
}

/// What one expression of a slice takes, counted from the start of its mode.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    New,
    Index(usize),
    Range(Range<usize>, isize),
}

/// The expressions of a slice of a tensor of `shape`, or an error naming the mode where one lies outside.
pub(crate) fn resolved(parts: &[SliceInfoElem], shape: &[usize]) -> Result<Vec<Part>> {
    let modes = parts.iter().filter(|p| !matches!(p, SliceInfoElem::NewAxis)).count();
    if modes != shape.len() {
        let message = format!("{modes} index expressions for the {} modes of shape {shape:?}", shape.len());
        return Err(Error::shape("slice", message));
    }
    let mut mode = 0;
    let mut resolve = |part: &SliceInfoElem| {
        let at = |what: &str, i: isize, last: usize| {
            let from_start = if i < 0 { shape[mode].checked_add_signed(i) } else { Some(i as usize) };
            from_start.filter(|&i| i <= last).ok_or_else(|| outside("slice", what, i, mode, shape))
        };
        let part = match *part {
            SliceInfoElem::NewAxis => return Ok(Part::New),
            SliceInfoElem::Index(i) if shape[mode] == 0 => return Err(outside("slice", "index", i, mode, shape)),
            SliceInfoElem::Index(i) => Part::Index(at("index", i, shape[mode] - 1)?),
            SliceInfoElem::Slice { step: 0, .. } => return Err(Error::shape("slice", "a step of 0 goes nowhere")),
            SliceInfoElem::Slice { start, end, step } => {
                let start = at("start", start, shape[mode])?;
                let end = end.map_or(Ok(shape[mode]), |end| at("end", end, shape[mode]))?;
                Part::Range(start..end.max(start), step)
            }
        };
        mode += 1;
        Ok(part)
    };
    parts.iter().map(&mut resolve).collect()
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
