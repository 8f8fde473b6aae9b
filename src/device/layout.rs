//! Where the entries of a tensor lie in its block: shape, strides, offset.

use crate::error::{Error, ErrorKind, Result};
use smallvec::SmallVec;
use std::ops::Range;

/// Sizes or strides of a handful of modes, without a heap allocation up to order 6.
pub(crate) type Modes<I> = SmallVec<[I; 6]>;

/// Shape, strides (in elements, possibly zero or negative) and the position of the first entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    shape: Modes<usize>,
    strides: Modes<isize>,
    offset: usize,
}

/// The number of entries of `shape`, or an error where the product does not fit the address space.
pub(crate) fn checked_len(operation: &'static str, shape: &[usize]) -> Result<usize> {
    // Zero-sized modes do not excuse an overflow of the others: strides are computed from all of them.
    let nonzero = shape.iter().filter(|&&n| n != 0).try_fold(1usize, |len, &n| len.checked_mul(n));
    match nonzero {
        Some(len) if len <= isize::MAX as usize / 8 => Ok(if shape.contains(&0) { 0 } else { len }),
        _ => Err(Error::new(
            ErrorKind::Memory,
            operation,
            format!("a tensor of shape {shape:?} has more entries than the address space holds"),
        )),
    }
}

/// Row-major strides of `shape`.
pub(crate) fn row_major(shape: &[usize]) -> Modes<isize> {
    let mut strides: Modes<isize> = SmallVec::from_elem(0, shape.len());
    let mut step = 1isize;
    for (stride, &n) in strides.iter_mut().zip(shape).rev() {
        *stride = step;
        step *= n.max(1) as isize;
    }
    strides
}

impl Layout {
    /// The row-major layout of `shape`; the caller has checked the length.
    pub(crate) fn contiguous(shape: &[usize]) -> Self {
        Self { shape: shape.into(), strides: row_major(shape), offset: 0 }
    }

    pub(crate) fn new(shape: &[usize], strides: &[isize], offset: usize) -> Self {
        debug_assert_eq!(shape.len(), strides.len());
        Self { shape: shape.into(), strides: strides.into(), offset }
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(crate) fn strides(&self) -> &[isize] {
        &self.strides
    }

    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) fn order(&self) -> usize {
        self.shape.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the entries lie without gaps in row-major order (modes of size 1 may have any stride).
    pub(crate) fn is_contiguous(&self) -> bool {
        let mut step = 1isize;
        for (&n, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if n == 0 {
                return true;
            }
            if n != 1 {
                if stride != step {
                    return false;
                }
                step *= n as isize;
            }
        }
        true
    }

    /// The range of the block that a contiguous layout covers, `None` for another one.
    pub(crate) fn contiguous_range(&self) -> Option<Range<usize>> {
        self.is_contiguous().then(|| self.offset..self.offset + self.len())
    }

    /// The modes in another order; `axes` is a permutation.
    pub(crate) fn permuted(&self, axes: &[usize]) -> Self {
        Self {
            shape: axes.iter().map(|&a| self.shape[a]).collect(),
            strides: axes.iter().map(|&a| self.strides[a]).collect(),
            offset: self.offset,
        }
    }

    /// One mode cut to `range`, which lies within it. Where no entry is left the offset stays, inside the block.
    pub(crate) fn narrowed(&self, mode: usize, range: Range<usize>) -> Self {
        let mut layout = self.clone();
        if !range.is_empty() && self.len() > 0 {
            layout.offset = self.offset.wrapping_add_signed(range.start as isize * self.strides[mode]);
        }
        layout.shape[mode] = range.len();
        layout
    }

    /// One mode removed, at position `index` of it.
    pub(crate) fn indexed(&self, mode: usize, index: usize) -> Self {
        let mut layout = self.clone();
        if self.len() > 0 {
            layout.offset = self.offset.wrapping_add_signed(index as isize * self.strides[mode]);
        }
        layout.shape.remove(mode);
        layout.strides.remove(mode);
        layout
    }

    /// A mode of size 1 put in at `mode`.
    pub(crate) fn inserted(&self, mode: usize) -> Self {
        let mut layout = self.clone();
        layout.shape.insert(mode, 1);
        layout.strides.insert(mode, 0);
        layout
    }

    /// The same entries repeated along modes of size 1 to `shape` (NumPy's rule, orders equal); `None` where it does not fit.
    pub(crate) fn broadcast(&self, shape: &[usize]) -> Option<Self> {
        if shape.len() < self.order() {
            return None;
        }
        let missing = shape.len() - self.order();
        let mut strides: Modes<isize> = SmallVec::from_elem(0, shape.len());
        for (i, (&n, &stride)) in self.shape.iter().zip(&self.strides).enumerate() {
            match shape[missing + i] {
                m if m == n => strides[missing + i] = stride,
                _ if n == 1 => strides[missing + i] = 0,
                _ => return None,
            }
        }
        Some(Self { shape: shape.into(), strides, offset: self.offset })
    }

    /// The same entries under another shape of equal length without moving them, where the strides allow it.
    pub(crate) fn reshaped(&self, shape: &[usize]) -> Option<Self> {
        if self.is_contiguous() || self.len() == 0 {
            return Some(Self { shape: shape.into(), strides: row_major(shape), offset: self.offset });
        }
        // Walk both shapes from the front, pairing the shortest groups of modes with equal products.
        let old: Modes<(usize, isize)> =
            self.shape.iter().copied().zip(self.strides.iter().copied()).filter(|&(n, _)| n != 1).collect();
        let mut strides: Modes<isize> = SmallVec::from_elem(0, shape.len());
        let (mut i, mut j) = (0, 0);
        while i < old.len() {
            while j < shape.len() && shape[j] == 1 {
                j += 1;
            }
            let (first_old, first_new) = (i, j);
            let (mut had, mut want) = (old[i].0, *shape.get(j)?);
            i += 1;
            j += 1;
            while had != want {
                if had < want {
                    // The old modes of one group must themselves be mergeable.
                    if old[i - 1].1 != old[i].1 * old[i].0 as isize {
                        return None;
                    }
                    had *= old[i].0;
                    i += 1;
                } else {
                    want *= *shape.get(j)?;
                    j += 1;
                }
            }
            if old[first_old..i].windows(2).any(|w| w[0].1 != w[1].1 * w[1].0 as isize) {
                return None;
            }
            let mut step = old[i - 1].1;
            for mode in (first_new..j).rev() {
                strides[mode] = step;
                step *= shape[mode] as isize;
            }
        }
        Some(Self { shape: shape.into(), strides, offset: self.offset })
    }
}

/// One loop of a nest that walks several operands together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loop<const N: usize> {
    pub(crate) size: usize,
    pub(crate) strides: [isize; N],
}

/// Fewest loops that visit the entries of layouts of one shape together, in row-major order: modes of size 1 go, neighbours that
/// every operand steps through with one stride merge. Never empty: a single entry is one loop of size 1.
pub(crate) fn loops<const N: usize>(layouts: [&Layout; N]) -> Modes<Loop<N>> {
    let mut nest: Modes<Loop<N>> = SmallVec::new();
    for mode in 0..layouts[0].order() {
        let size = layouts[0].shape[mode];
        if size == 1 {
            continue;
        }
        let strides = layouts.map(|layout| layout.strides[mode]);
        match nest.last_mut() {
            Some(outer) if (0..N).all(|i| outer.strides[i] == strides[i] * size as isize) => {
                outer.size *= size;
                outer.strides = strides;
            }
            _ => nest.push(Loop { size, strides }),
        }
    }
    if nest.is_empty() {
        nest.push(Loop { size: 1, strides: [1; N] });
    }
    nest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshape_of_a_permuted_layout_is_refused_or_right() {
        let x = Layout::contiguous(&[2, 3, 4]);
        let y = x.permuted(&[1, 0, 2]);
        assert!(y.reshaped(&[6, 4]).is_none());
        let split = y.reshaped(&[3, 1, 2, 2, 2]).unwrap();
        assert_eq!(split.strides()[0], 4);
        assert_eq!(&split.strides()[2..], &[12, 2, 1]);
        assert_eq!(x.reshaped(&[6, 4]).unwrap().strides(), &[4, 1]);
    }

    #[test]
    fn loops_merge_what_all_operands_agree_on() {
        let x = Layout::contiguous(&[2, 3, 4]);
        assert_eq!(loops([&x, &x]).len(), 1);
        let row = Layout::contiguous(&[4]).broadcast(&[2, 3, 4]).unwrap();
        let nest = loops([&x, &row]);
        assert_eq!(nest.as_slice(), &[Loop { size: 6, strides: [4, 0] }, Loop { size: 4, strides: [1, 1] }]);
    }

    #[test]
    fn lengths_that_overflow_are_refused() {
        assert!(checked_len("test", &[usize::MAX, 2]).is_err());
        assert!(checked_len("test", &[usize::MAX, 2, 0]).is_err());
        assert_eq!(checked_len("test", &[3, 0]).unwrap(), 0);
    }
}
