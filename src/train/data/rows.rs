//! [`Rows`]: two tensors whose rows belong together.

use super::Dataset;
use crate::{
    device::Device,
    error::{Error, Result},
    scalar::Element,
    tensor::Tensor,
};
use ndarray::{Dimension, IxDyn};

/// A data set in memory: inputs `[n, ..]` and targets `[n, ..]`, of any element types. A batch is the pair of their rows.
///
/// Clones of tensors are cheap, so nothing is copied but the rows of a batch; a tensor that is strided is made contiguous once.
///
/// ```
/// use ndarray::array;
/// use tenfold::{Tensor, train::{Dataset, Rows}};
///
/// let data = Rows::new(&Tensor::from(array![[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]), &Tensor::from(array![0u32, 1, 2]))?;
/// let (x, y) = data.batch(&[2, 0])?;
/// assert_eq!(x.to_vec()?, [4.0, 5.0, 0.0, 1.0]);
/// assert_eq!(y.to_vec()?, [2, 0]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Rows<X: Element, Y: Element> {
    inputs: Tensor<X, IxDyn>,
    targets: Tensor<Y, IxDyn>,
    len: usize,
}

impl<X: Element, Y: Element> Rows<X, Y> {
    /// Pairs the rows of two tensors, which are brought to the host.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where one has no modes, or their numbers of rows differ.
    pub fn new<D: Dimension, E: Dimension>(inputs: &Tensor<X, D>, targets: &Tensor<Y, E>) -> Result<Self> {
        let (Some(&len), Some(&other)) = (inputs.shape().first(), targets.shape().first()) else {
            return Err(Error::shape("Rows::new", "a tensor of order 0 has no rows"));
        };
        if len != other {
            let (x, y) = (inputs.shape(), targets.shape());
            let message = format!("inputs of shape {x:?} and targets of shape {y:?} have different numbers of rows");
            return Err(Error::shape("Rows::new", message));
        }
        let inputs = inputs.to_device(&Device::cpu())?.to_contiguous()?.into_dyn();
        let targets = targets.to_device(&Device::cpu())?.to_contiguous()?.into_dyn();
        Ok(Self { inputs, targets, len })
    }
}

impl<X: Element, Y: Element> Dataset for Rows<X, Y> {
    type Batch = (Tensor<X, IxDyn>, Tensor<Y, IxDyn>);

    fn len(&self) -> usize {
        self.len
    }

    fn batch(&self, indices: &[usize]) -> Result<Self::Batch> {
        Ok((picked(&self.inputs, indices)?, picked(&self.targets, indices)?))
    }
}

/// The rows of a contiguous host tensor that have these numbers.
fn picked<T: Element>(rows: &Tensor<T, IxDyn>, indices: &[usize]) -> Result<Tensor<T, IxDyn>> {
    let (all, width) = (rows.as_slice().unwrap_or_default(), rows.shape()[1..].iter().product::<usize>());
    let mut data = Vec::with_capacity(indices.len() * width);
    for &i in indices {
        if i >= rows.shape()[0] {
            let message = format!("row {i} of {}", rows.shape()[0]);
            return Err(Error::shape("Rows", message));
        }
        data.extend_from_slice(&all[i * width..(i + 1) * width]);
    }
    let mut shape = rows.shape().to_vec();
    shape[0] = indices.len();
    Tensor::from_vec(shape, data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn strided_rows_and_wrong_ones() {
        let x = Tensor::from(array![[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]);
        let data = Rows::new(&x.t(), &Tensor::from(array![7i64, 8, 9])).unwrap();
        assert_eq!(data.len(), 3);
        let (rows, targets) = data.batch(&[1, 1]).unwrap();
        assert_eq!((rows.shape(), rows.to_vec().unwrap()), (&[2, 2][..], vec![1.0, 4.0, 1.0, 4.0]));
        assert_eq!(targets.to_vec().unwrap(), [8, 8]);
        assert_eq!(data.batch(&[]).unwrap().0.shape(), [0, 2]);
        assert_eq!(data.batch(&[3]).unwrap_err().to_string(), "Rows: row 3 of 3");
        assert_eq!(
            Rows::new(&x, &Tensor::from(array![1u32])).unwrap_err().to_string(),
            "Rows::new: inputs of shape [2, 3] and targets of shape [1] have different numbers of rows"
        );
    }
}
