//! Unfoldings: a tensor as a matrix or a vector, and back.

use crate::{
    error::{Error, Result},
    scalar::Element,
    tensor::{Tensor, checked_shape},
};
use ndarray::{Dimension, IntoDimension, Ix1, Ix2, IxDyn};

impl<T: Element, D: Dimension> Tensor<T, D> {
    /// The mode-n unfolding X_(n): `I_n x (product of the others)`, the mode-n fibres as columns, in row-major order of the
    /// other modes (see [the module](crate::algebra#the-order-of-an-unfolding)).
    ///
    /// A view for the first and the last mode of a contiguous tensor, otherwise one copy.
    ///
    /// ```
    /// use tenfold::Tensor;
    ///
    /// let x = Tensor::from_fn([3, 4, 2], |i| (i[0] * 8 + i[1] * 2 + i[2]) as f64)?;
    /// let unfolded = x.unfold(1)?;
    /// assert_eq!(unfolded.shape(), &[4, 6]);
    /// assert_eq!(unfolded.narrow(0, 0..1)?.to_vec()?, [0.0, 1.0, 8.0, 9.0, 16.0, 17.0]);
    /// assert_eq!(unfolded.fold(1, [3, 4, 2])?, x);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the mode does not exist.
    pub fn unfold(&self, mode: usize) -> Result<Tensor<T, Ix2>> {
        self.check_mode("unfold", mode)?;
        let rows = self.shape()[mode];
        let cols = self.shape().iter().enumerate().filter(|&(m, _)| m != mode).map(|(_, n)| n).product();
        self.mode_to_front(mode).reshaped(&[rows, cols])
    }

    /// All entries in row-major order as a tensor of order 1: vec(X).
    ///
    /// # Errors
    /// Only where the device has no memory for a copy of a strided tensor.
    pub fn vectorize(&self) -> Result<Tensor<T, Ix1>> {
        self.reshaped(&[self.len()])
    }

    /// The general unfolding: some modes as rows, the others as columns, each list in the order given, its last mode fastest.
    ///
    /// ```
    /// use tenfold::Tensor;
    ///
    /// let x = Tensor::<f64, _>::zeros([2, 3, 4, 5])?;
    /// assert_eq!(x.matricize(&[0, 2], &[1, 3])?.shape(), &[8, 15]);
    /// // Kolda and Bader's X_(1): the first of the other modes fastest.
    /// assert_eq!(x.matricize(&[1], &[3, 2, 0])?.shape(), &[3, 40]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) unless the two lists together name each mode once.
    pub fn matricize(&self, rows: &[usize], cols: &[usize]) -> Result<Tensor<T, Ix2>> {
        let order: Vec<usize> = rows.iter().chain(cols).copied().collect();
        let permuted = self.permute(&order).map_err(|e| Error::shape("matricize", e.message()))?;
        let size = |modes: &[usize]| modes.iter().map(|&m| self.shape()[m]).product();
        permuted.reshaped(&[size(rows), size(cols)])
    }

    /// An unfolding that leaves some modes at both ends alone: modes `first..last` are unfolded along `mode`, which lies among
    /// them; the result has the modes before `first`, then two, then those from `last` on.
    ///
    /// ```
    /// use tenfold::Tensor;
    ///
    /// let batch = Tensor::<f64, _>::zeros([10, 3, 4, 5])?;
    /// assert_eq!(batch.partial_unfold(2, 1..4)?.shape(), &[10, 4, 15]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the range leaves the modes or does not hold `mode`.
    pub fn partial_unfold(&self, mode: usize, modes: std::ops::Range<usize>) -> Result<Tensor<T, IxDyn>> {
        self.check_mode("partial_unfold", mode)?;
        if modes.end > self.order() || !modes.contains(&mode) {
            let message = format!("modes {modes:?} of shape {:?} do not hold mode {mode}", self.shape());
            return Err(Error::shape("partial_unfold", message));
        }
        let order: Vec<usize> = (0..modes.start)
            .chain([mode])
            .chain(modes.clone().filter(|&m| m != mode))
            .chain(modes.end..self.order())
            .collect();
        let permuted = self.permute(&order)?;
        let rest = modes.clone().filter(|&m| m != mode).map(|m| self.shape()[m]).product();
        let mut shape = self.shape()[..modes.start].to_vec();
        shape.extend([self.shape()[mode], rest]);
        shape.extend(&self.shape()[modes.end..]);
        permuted.reshaped(&shape)
    }
}

impl<T: Element> Tensor<T, Ix2> {
    /// The tensor of `shape` whose mode-n unfolding this matrix is: the inverse of [`unfold`](Tensor::unfold). A view where the
    /// matrix is contiguous.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the sizes do not fit.
    pub fn fold<D: Dimension>(&self, mode: usize, shape: impl IntoDimension<Dim = D>) -> Result<Tensor<T, D>> {
        let shape = shape.into_dimension();
        let len = checked_shape("fold", &shape)?;
        let shape = shape.slice();
        if mode >= shape.len() {
            return Err(Error::mode("fold", mode, shape));
        }
        if self.shape()[0] != shape[mode] || self.len() != len {
            let message = format!("a {:?} matrix is not the mode-{mode} unfolding of shape {shape:?}", self.shape());
            return Err(Error::shape("fold", message));
        }
        let others = (0..shape.len()).filter(|&m| m != mode);
        let front: Vec<usize> = std::iter::once(mode).chain(others).collect();
        let sizes: Vec<usize> = front.iter().map(|&m| shape[m]).collect();
        let mut back = vec![0; shape.len()];
        front.iter().enumerate().for_each(|(i, &m)| back[m] = i);
        self.reshaped::<IxDyn>(&sizes)?.permute(&back)?.into_order()
    }
}
