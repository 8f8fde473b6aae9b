//! Entries picked along a mode, each place with its own index.
//!
//! $Y_{b j a} = X_{b\\, n_{b j a}\\, a}$ around the mode, for indices $n$ of the shape of $Y$. Back, every entry gets the sum of what arrived
//! at the places it was taken to:
//!
//! $$dX_{b i a} = \sum_{j :\\, n_{b j a} = i} dY_{b j a},$$
//!
//! added up in the order of $j$ by one thread for each $b$: the same bit for bit whatever the number of threads.

use super::{super::Var, embedding::check_indices};
use crate::{
    device::gather::{self, Around},
    error::{Error, Result},
    scalar::{Index, Scalar},
    tensor::Tensor,
};
use ndarray::{Dimension, IxDyn};

impl<T: Scalar> Var<T> {
    /// The entries that `index` names along a mode: `y[i, .., j, .., k] = x[i, .., index[i, .., j, .., k], .., k]`, PyTorch's `gather`.
    ///
    /// `index` has the shape of the result: that of this tensor but for the mode's size.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let x = Var::constant(Tensor::from(array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]));
    /// let y = x.gather(1, &Tensor::from(array![[2u32, 0], [1, 1]]))?;
    /// assert_eq!(y.value().to_vec()?, [3.0, 1.0, 5.0, 5.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the mode does not exist or the index has another shape beside it;
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) where an index lies outside the mode;
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) where the index is elsewhere.
    pub fn gather<I: Index, D: Dimension>(&self, mode: usize, index: &Tensor<I, D>) -> Result<Self> {
        self.value().check_mode("gather", mode)?;
        self.device().check_same(index.device(), "gather")?;
        let n = self.shape()[mode];
        let mut wanted = self.shape().to_vec();
        wanted[mode] = index.shape().get(mode).copied().unwrap_or(0);
        if index.shape() != wanted {
            let message = format!(
                "indices of shape {:?} for mode {mode} of shape {:?}; all other modes must be equal",
                index.shape(),
                self.shape()
            );
            return Err(Error::shape("gather", message));
        }
        check_indices("gather", index, n, &format!("mode {mode}, which has size {n}"))?;
        let (x, index) = (self.value().to_contiguous()?, index.to_contiguous()?.into_dyn());
        let (device, around, count) = (self.device().clone(), Around::new(self.shape(), mode), wanted[mode]);
        let picks = (&index.storage, index.layout.offset());
        let y = gather::take_along(&device, (&x.storage, x.layout.offset()), around, picks, count)?;
        let y: Tensor<T, IxDyn> = Tensor::row_major(y, &wanted);
        let shape = self.shape().to_vec();
        Ok(Self::record("gather", y, &[self], move |dy, flow| {
            let dy = dy.to_contiguous()?;
            let picks = (&index.storage, index.layout.offset());
            let dx = gather::add_along(&device, (&dy.storage, dy.layout.offset()), around, picks, count)?;
            flow.give(0, Tensor::row_major(dx, &shape))
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

    #[test]
    fn entries_are_taken_and_gradients_added_up() {
        for shape in [&[3, 4, 5][..], &[1], &[6, 2]] {
            for mode in 0..shape.len() {
                for count in [0, 1, 7] {
                    let mut wanted = shape.to_vec();
                    wanted[mode] = count;
                    let pick = |i: &[usize]| (i.iter().sum::<usize>() * 7 % 11 % shape[mode]) as i64;
                    let index = Tensor::<i64, IxDyn>::from_fn(wanted.clone(), pick).unwrap();
                    let x = normal(shape, 1);
                    for x in [x.clone(), reversed(&x)] {
                        let y = Var::constant(x.clone()).gather(mode, &index).unwrap();
                        for i in 0..y.len() {
                            let at = crate::tensor::index_at(&wanted, i);
                            let mut from = at.clone();
                            from[mode] = pick(&at) as usize;
                            assert_eq!(y.value().get(&at).unwrap(), x.get(&from).unwrap());
                        }
                        check_gradients(&[x], 1e-6, |v| v[0].gather(mode, &index)?.square()).unwrap();
                    }
                }
            }
        }
    }

    #[test]
    fn errors_name_the_index_and_the_mode() {
        let x = Var::constant(normal(&[2, 3], 1));
        let error = x.gather(1, &Tensor::from(ndarray::array![[0u32], [3]])).unwrap_err();
        assert_eq!(error.to_string(), "gather: index 3 at [1, 0] is outside mode 1, which has size 3");
        let error = x.gather(1, &Tensor::from(ndarray::array![[0u32]])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "gather: indices of shape [1, 1] for mode 1 of shape [2, 3]; all other modes must be equal"
        );
        assert!(x.gather(2, &Tensor::from(ndarray::array![[0u32]])).is_err());
        assert!(x.gather(1, &Tensor::from(ndarray::array![0u32])).is_err());
    }
}
