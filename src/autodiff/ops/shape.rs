//! The same entries in another arrangement: reshaped, permuted, cut, joined, padded, repeated.
//!
//! Each entry of the result is one entry of an operand, or zero, so the gradient of each goes back to where it came from: a permutation is
//! undone by its inverse, what was cut out is put back into zeros, what was joined is cut, what was repeated is summed. Permutations, cuts,
//! repetitions and most reshapes are views, forward and back; joining, padding and the way back of a cut write each entry once.

use super::{super::Var, arithmetic::unbroadcast};
use crate::{
    device::place::Stride,
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Dimension, IntoDimension, SliceInfoElem};
use std::ops::Range;

/// Every entry of each mode where it is.
fn unmoved(order: usize) -> Vec<Stride> {
    vec![Stride { first: 0, step: 1 }; order]
}

impl<T: Scalar> Var<T> {
    /// The entries in row-major order under another shape. A view where the strides allow it, else one copy.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the number of entries differs.
    pub fn reshape<D: Dimension>(&self, shape: impl IntoDimension<Dim = D>) -> Result<Self> {
        let y = self.value().reshape(shape)?;
        let old = self.shape().to_vec();
        Ok(Self::record("reshape", y, &[self], move |dy, flow| flow.give(0, dy.reshape(old)?)))
    }

    /// The modes in another order: mode `i` of the result is mode `order[i]`. A view.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) unless `order` names each mode once.
    pub fn permute(&self, order: &[usize]) -> Result<Self> {
        let y = self.value().permute(order)?;
        let mut inverse = vec![0; order.len()];
        order.iter().enumerate().for_each(|(i, &m)| inverse[m] = i);
        Ok(Self::record("permute", y, &[self], move |dy, flow| flow.give(0, dy.permute(&inverse)?)))
    }

    /// A range of one mode. A view.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the range leaves the mode.
    pub fn narrow(&self, mode: usize, range: Range<usize>) -> Result<Self> {
        let y = self.value().narrow(mode, range.clone())?;
        let mut at = unmoved(self.order());
        at[mode].first = range.start as isize;
        let shape = self.shape().to_vec();
        Ok(Self::record("narrow", y, &[self], move |dy, flow| flow.give(0, dy.placed(&shape, &at)?)))
    }

    /// One index of a mode, which disappears. A view.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where mode or index does not exist.
    pub fn index_mode(&self, mode: usize, index: usize) -> Result<Self> {
        let y = self.value().index_mode(mode, index)?;
        let mut at = unmoved(self.order());
        at[mode].first = index as isize;
        let shape = self.shape().to_vec();
        Ok(Self::record("index_mode", y, &[self], move |dy, flow| {
            flow.give(0, dy.insert_mode(mode)?.placed(&shape, &at)?)
        }))
    }

    /// Part of the tensor, as ndarray's [`s!`](ndarray::s) writes it. A view.
    ///
    /// ```
    /// use ndarray::{array, s};
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let x = Var::parameter(Tensor::from(array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]));
    /// let y = x.slice(s![1, ..;2])?;
    /// assert_eq!(y.value().to_vec()?, [4.0, 6.0]);
    /// assert_eq!(y.sum()?.backward()?.of(&x)?.to_vec()?, [0.0, 0.0, 0.0, 1.0, 0.0, 1.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where an index or a range lies outside, or the count of modes differs.
    pub fn slice(&self, part: impl AsRef<[SliceInfoElem]>) -> Result<Self> {
        let parts = part.as_ref();
        let y = self.value().slice(parts)?;
        let (at, small) = self.value().places(parts)?;
        let shape = self.shape().to_vec();
        Ok(Self::record("slice", y, &[self], move |dy, flow| flow.give(0, dy.reshape(small)?.placed(&shape, &at)?)))
    }

    /// A mode of size 1 put in before `mode` (or at the end). A view.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where `mode` is above the order.
    pub fn insert_mode(&self, mode: usize) -> Result<Self> {
        let y = self.value().insert_mode(mode)?;
        Ok(Self::record("insert_mode", y, &[self], move |dy, flow| flow.give(0, dy.index_mode(mode, 0)?)))
    }

    /// The entries repeated along modes of size 1; shapes are aligned at the last mode. A view.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where a mode is neither 1 nor what is asked for.
    pub fn broadcast_to<D: Dimension>(&self, shape: impl IntoDimension<Dim = D>) -> Result<Self> {
        let y = self.value().broadcast_to(shape)?;
        let small = self.shape().to_vec();
        Ok(Self::record("broadcast_to", y, &[self], move |dy, flow| flow.give(0, unbroadcast(dy, &small)?)))
    }

    /// Zeros put around the entries: `widths[m]` is how many before and after along mode m.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let x = Var::constant(Tensor::from(array![[1.0, 2.0]]));
    /// let y = x.pad(&[(0, 1), (1, 0)])?;
    /// assert_eq!(y.shape(), &[2, 3]);
    /// assert_eq!(y.value().to_vec()?, [0.0, 1.0, 2.0, 0.0, 0.0, 0.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) unless there is one pair for each mode,
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory) where the result is larger than the address space.
    pub fn pad(&self, widths: &[(usize, usize)]) -> Result<Self> {
        if widths.len() != self.order() {
            let message =
                format!("{} pairs of widths for shape {:?}, which needs {}", widths.len(), self.shape(), self.order());
            return Err(Error::shape("pad", message));
        }
        let sizes = self.shape().iter().zip(widths);
        let shape: Vec<usize> =
            sizes.map(|(&n, &(before, after))| n.saturating_add(before).saturating_add(after)).collect();
        let at: Vec<Stride> = widths.iter().map(|w| Stride { first: w.0 as isize, step: 1 }).collect();
        let y = self.value().placed(&shape, &at)?;
        let inside: Vec<Range<usize>> = self.shape().iter().zip(widths).map(|(&n, w)| w.0..w.0 + n).collect();
        Ok(Self::record("pad", y, &[self], move |dy, flow| {
            let cut = inside.into_iter().enumerate().try_fold(dy, |dy, (mode, range)| dy.narrow(mode, range))?;
            flow.give(0, cut)
        }))
    }

    /// Several variables joined along a mode, in order.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where there is none, or other modes differ;
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) where they live on different devices.
    pub fn concat(parts: &[&Self], mode: usize) -> Result<Self> {
        let values: Vec<_> = parts.iter().map(|v| v.value()).collect();
        let y = Tensor::concat(&values, mode)?;
        let sizes: Vec<usize> = parts.iter().map(|v| v.shape()[mode]).collect();
        Ok(Self::record("concat", y, parts, move |dy, flow| {
            let mut start = 0;
            for (i, size) in sizes.into_iter().enumerate() {
                if flow.needs(i) {
                    flow.give(i, dy.narrow(mode, start..start + size)?)?;
                }
                start += size;
            }
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::{
        check_gradients,
        testing::{normal, reversed},
    };
    use ndarray::s;

    fn both(shape: &[usize]) -> [Tensor<f64, ndarray::IxDyn>; 2] {
        let x = normal(shape, 3);
        [x.clone(), reversed(&x)]
    }

    #[test]
    fn arrangements_go_back() {
        for x in both(&[3, 4, 5]) {
            let x = std::slice::from_ref(&x);
            check_gradients(x, 1e-6, |v| v[0].reshape([6, 10])?.square()).unwrap();
            check_gradients(x, 1e-6, |v| v[0].permute(&[2, 0, 1])?.square()).unwrap();
            check_gradients(x, 1e-6, |v| v[0].insert_mode(1)?.broadcast_to([2, 3, 7, 4, 5])?.square()).unwrap();
            check_gradients(x, 1e-6, |v| v[0].pad(&[(0, 1), (2, 0), (1, 3)])?.square()).unwrap();
            check_gradients(x, 1e-6, |v| v[0].pad(&[(2, 1), (0, 0), (0, 0)])).unwrap();
            check_gradients(x, 1e-6, |v| v[0].pad(&[(0, 0); 3])).unwrap();
            for mode in 0..3 {
                check_gradients(x, 1e-6, |v| v[0].narrow(mode, 1..3)?.square()).unwrap();
                check_gradients(x, 1e-6, |v| v[0].narrow(mode, 2..2)).unwrap();
                check_gradients(x, 1e-6, |v| v[0].index_mode(mode, 2)).unwrap();
                check_gradients(x, 1e-6, |v| Var::concat(&[&v[0], &v[0].square()?, &v[0].narrow(mode, 0..2)?], mode))
                    .unwrap();
            }
        }
        let single = normal(&[], 1);
        check_gradients(std::slice::from_ref(&single), 1e-6, |v| v[0].broadcast_to([2, 3])).unwrap();
        check_gradients(&[single], 1e-6, |v| v[0].reshape([1, 1])?.pad(&[(1, 1), (0, 2)])).unwrap();
    }

    #[test]
    fn slices_go_back() {
        for x in both(&[3, 4, 5]) {
            let x = std::slice::from_ref(&x);
            check_gradients(x, 1e-6, |v| v[0].slice(s![1, .., 2..4])).unwrap();
            check_gradients(x, 1e-6, |v| v[0].slice(s![.., ..;2, ..;-1])).unwrap();
            check_gradients(x, 1e-6, |v| v[0].slice(s![..;-2, -1, -3..])).unwrap();
            check_gradients(x, 1e-6, |v| v[0].slice(s![.., ndarray::NewAxis, 1..;2, ..])).unwrap();
            check_gradients(x, 1e-6, |v| v[0].slice(s![0..0, .., 1..4;-3])).unwrap();
        }
    }

    #[test]
    fn a_large_slice_on_two_threads() {
        let device = crate::Device::cpu().threads(2);
        let x = Var::parameter(Tensor::<f32, _>::ones([300, 400]).unwrap().to_device(&device).unwrap());
        for part in [s![.., 7..300], s![5..200, ..], s![..;3, ..]] {
            let y = x.slice(part).unwrap();
            let dx = y.sum().unwrap().backward().unwrap();
            assert_eq!(dx.of(&x).unwrap().sum().unwrap(), y.len() as f64);
            let parts: &[SliceInfoElem] = part.as_ref();
            assert_eq!(dx.of(&x).unwrap().slice(parts).unwrap().min().unwrap(), 1.0);
        }
    }

    #[test]
    fn errors() {
        let x = Var::constant(normal(&[2, 3], 1));
        assert_eq!(x.pad(&[(1, 1)]).unwrap_err().to_string(), "pad: 1 pairs of widths for shape [2, 3], which needs 2");
        assert!(x.pad(&[(usize::MAX, 1), (0, 0)]).is_err());
        assert!(x.reshape([7]).is_err() && x.permute(&[0, 0]).is_err() && x.narrow(1, 2..4).is_err());
        assert!(x.index_mode(0, 2).is_err() && x.slice(s![.., 3]).is_err() && x.insert_mode(3).is_err());
        assert!(x.broadcast_to([4, 3]).is_err() && Var::<f64>::concat(&[], 0).is_err());
        assert!(Var::concat(&[&x, &x], 2).is_err());
    }
}
