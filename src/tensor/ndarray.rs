//! From and to ndarray.

use super::Tensor;
use crate::{
    device::{Device, elementwise, layout::Layout, storage::Storage},
    error::{Error, ErrorKind, Result},
    scalar::Element,
};
use ndarray::{Array, ArrayBase, ArrayView, Axis, Data, Dimension, ShapeBuilder};

impl<T: Element, D: Dimension> From<Array<T, D>> for Tensor<T, D> {
    /// Moves an owned array in. Nothing is copied, whatever its memory layout (row-major, column-major, permuted, reversed,
    /// sliced in place): the strides come along. An array of order 0 becomes a tensor of order 0, which only holds its number.
    fn from(array: Array<T, D>) -> Self {
        let shape = array.shape().to_vec();
        let strides = array.strides().to_vec();
        let (data, offset) = array.into_raw_vec_and_offset();
        let layout = Layout::new(&shape, &strides, offset.unwrap_or(0));
        Self::new(Storage::from_vec(Device::cpu(), data), layout)
    }
}

impl<T: Element, D: Dimension> From<ArrayView<'_, T, D>> for Tensor<T, D> {
    /// Copies a view of any memory layout, once, into row-major order.
    fn from(view: ArrayView<'_, T, D>) -> Self {
        Self::from_array(&view)
    }
}

impl<T: Element, D: Dimension> Tensor<T, D> {
    /// Copies an array, a view or anything else of ndarray's, once, into row-major order.
    pub fn from_array<S: Data<Elem = T>>(array: &ArrayBase<S, D>) -> Self {
        let data = match array.as_slice() {
            Some(slice) => slice.to_vec(),
            None => array.iter().copied().collect(),
        };
        Self::row_major(Storage::from_vec(Device::cpu(), data), array.shape())
    }

    /// Borrows a host tensor as an ndarray view, with the strides it has.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::Tensor;
    ///
    /// let x = Tensor::from(array![[1, 2, 3], [4, 5, 6]].mapv(f64::from));
    /// assert_eq!(x.permute(&[1, 0])?.view()?, array![[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Device`] where the tensor is on a GPU.
    pub fn view(&self) -> Result<ArrayView<'_, T, D>> {
        let data = self.storage.host("view")?;
        let (shape, strides) = (self.shape(), self.strides());
        let dimension = |values: &[usize]| {
            let mut d = D::zeros(values.len());
            d.slice_mut().copy_from_slice(values);
            d
        };
        if self.is_empty() {
            return ArrayView::from_shape(dimension(shape), &[]).map_err(|e| unviewable(&e));
        }
        // ndarray builds views with non-negative strides; reversed modes start from their far end and are turned around after.
        let back: isize = shape.iter().zip(strides).map(|(&n, &s)| (n as isize - 1) * s.min(0)).sum();
        let start = self.layout.offset().wrapping_add_signed(back);
        let steps: Vec<usize> = strides.iter().map(|s| s.unsigned_abs()).collect();
        let mut view = ArrayView::from_shape(dimension(shape).strides(dimension(&steps)), &data[start..])
            .map_err(|e| unviewable(&e))?;
        for (axis, &stride) in strides.iter().enumerate() {
            if stride < 0 {
                view.invert_axis(Axis(axis));
            }
        }
        Ok(view)
    }

    /// Moves the tensor out as a row-major array: without copying where it is contiguous and the only owner of its block, with
    /// one copy otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] where a GPU's memory cannot be read.
    pub fn into_ndarray(self) -> Result<Array<T, D>> {
        let here = self.to_host()?;
        drop(self);
        let shape = here.shape().to_vec();
        let Self { storage, layout, .. } = here;
        let data = match (layout.contiguous_range(), layout.offset()) {
            (Some(range), 0) => match storage.into_vec() {
                Ok(mut data) => {
                    data.truncate(range.len());
                    data
                }
                Err(shared) => shared.host("into_ndarray")?[range].to_vec(),
            },
            _ => {
                let copied = elementwise::copy(&storage, &layout)?;
                copied.into_vec().unwrap_or_default()
            }
        };
        let mut dimension = D::zeros(shape.len());
        dimension.slice_mut().copy_from_slice(&shape);
        Array::from_shape_vec(dimension, data).map_err(|e| unviewable(&e))
    }

    /// Copies the tensor into a row-major array.
    ///
    /// # Errors
    /// As [`into_ndarray`](Tensor::into_ndarray).
    pub fn to_ndarray(&self) -> Result<Array<T, D>> {
        self.clone().into_ndarray()
    }
}

fn unviewable(error: &ndarray::ShapeError) -> Error {
    Error::new(ErrorKind::Shape, "view", format!("ndarray does not take this layout: {error}"))
}

impl<T: Element, D: Dimension> TryFrom<Tensor<T, D>> for Array<T, D> {
    type Error = Error;

    fn try_from(tensor: Tensor<T, D>) -> Result<Self> {
        tensor.into_ndarray()
    }
}
