//! Rows of a table, picked by number.
//!
//! $Y_{i} = E_{n_i}$ for a table $E$ of `rows x width` and numbers $n$ of any shape. Back, each row of the table gets the sum of what arrived
//! at the places that it was taken to:
//!
//! $$dE_r = \sum_{i :\\, n_i = r} dY_i.$$
//!
//! The numbers are sorted (a counting sort), then every row of $dE$ is written once, by one thread, its terms added up in the order of
//! the places: the gradient is the same bit for bit whatever the number of threads, and rows that nobody took cost only their zeros.

use super::super::Var;
use crate::{
    device::gather,
    error::{Error, ErrorKind, Result},
    scalar::{Index, Scalar},
    tensor::{Tensor, index_at},
};
use ndarray::{Dimension, Ix2, IxDyn};

/// An error naming the first index that is not below `limit`.
pub(super) fn check_indices<I: Index, D: Dimension>(
    operation: &'static str,
    ids: &Tensor<I, D>,
    limit: usize,
    what: &str,
) -> Result<()> {
    let Some(position) = gather::first_outside(&ids.storage, &ids.layout, limit)? else { return Ok(()) };
    let at = index_at(ids.shape(), position);
    let message = format!("index {} at {at:?} is outside {what}", ids.get(&at)?);
    Err(Error::new(ErrorKind::Value, operation, message))
}

impl<T: Scalar> Var<T> {
    /// The rows of this table, `rows x width`, that `ids` names: `[.., width]` for ids of shape `[..]`.
    ///
    /// The row `padding` receives no gradient (its entries stay what they are, zero by convention). Cost: one pass over the
    /// result; back one over it and one over the table.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let table = Var::parameter(Tensor::from(array![[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]]));
    /// let ids = Tensor::from(array![[2u32, 1], [2, 0]]);
    /// let y = table.embedding(&ids, Some(0))?;
    /// assert_eq!(y.shape(), &[2, 2, 2]);
    /// assert_eq!(y.value().to_vec()?[..4], [3.0, 4.0, 1.0, 2.0]);
    /// assert_eq!(y.sum()?.backward()?.of(&table)?.to_vec()?, [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] unless the table is a matrix; [`ErrorKind::Value`] where an id or `padding` is not one of its rows;
    /// [`ErrorKind::Device`] where the ids are elsewhere.
    pub fn embedding<I: Index, D: Dimension>(&self, ids: &Tensor<I, D>, padding: Option<usize>) -> Result<Self> {
        self.device().check_same(ids.device(), "embedding")?;
        if self.order() != 2 {
            let message = format!("a table of shape {:?}; needs [rows, width]", self.shape());
            return Err(Error::shape("embedding", message));
        }
        let table: Tensor<T, Ix2> = self.value().to_contiguous()?.into_order()?;
        let [rows, width] = [table.shape()[0], table.shape()[1]];
        if let Some(padding) = padding.filter(|&padding| padding >= rows) {
            let message = format!("padding row {padding} is outside the table, which has {rows} rows");
            return Err(Error::new(ErrorKind::Value, "embedding", message));
        }
        check_indices("embedding", ids, rows, &format!("the table, which has {rows} rows"))?;
        let ids = ids.to_contiguous()?.into_dyn();
        let shape = [ids.shape(), &[width]].concat();
        let device = self.device().clone();
        let block = (&table.storage, table.layout.offset());
        let y = gather::take_rows(&device, block, width, (&ids.storage, ids.layout.offset()), ids.len())?;
        let y: Tensor<T, IxDyn> = Tensor::row_major(y, &shape);
        Ok(Self::record("embedding", y, &[self], move |dy, flow| {
            let dy = dy.to_contiguous()?;
            let ids = ((&ids.storage, ids.layout.offset()), ids.len());
            let block = (&dy.storage, dy.layout.offset());
            let table = gather::add_rows(&device, block, width, ids, rows, padding)?;
            flow.give(0, Tensor::row_major(table, &[rows, width]))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Device,
        autodiff::{
            check_gradients,
            testing::{normal, reversed},
        },
    };
    use ndarray::array;

    #[test]
    fn rows_are_taken_and_gradients_added_up() {
        let ids = Tensor::from(array![[3i64, 1, 3, 0], [1, 1, 4, 3]]);
        for width in [1, 3, 40] {
            let table = normal(&[6, width], 1);
            for table in [table.clone(), reversed(&table)] {
                for ids in [ids.clone(), ids.permute(&[1, 0]).unwrap(), ids.narrow(1, 1..3).unwrap()] {
                    let y = Var::constant(table.clone()).embedding(&ids, None).unwrap();
                    for (i, id) in ids.to_vec().unwrap().into_iter().enumerate() {
                        let row = table.index_mode(0, id as usize).unwrap().to_vec().unwrap();
                        assert_eq!(y.value().to_vec().unwrap()[i * width..][..width], row);
                    }
                    check_gradients(std::slice::from_ref(&table), 1e-6, |v| v[0].embedding(&ids, None)?.square())
                        .unwrap();
                }
            }
        }
        let none = Tensor::<u32, _>::zeros([0, 2]).unwrap();
        check_gradients(&[normal(&[3, 2], 1)], 1e-6, |v| v[0].embedding(&none, None)).unwrap();
    }

    #[test]
    fn padding_receives_nothing() {
        let table = Var::parameter(normal(&[3, 2], 1));
        let y = table.embedding(&Tensor::from(array![1u32, 2, 1]), Some(1)).unwrap();
        let gradients = y.sum().unwrap().backward().unwrap();
        assert_eq!(gradients.of(&table).unwrap().to_vec().unwrap(), [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn the_gradient_does_not_depend_on_the_threads() {
        let (rows, width, count) = (500, 48, 4000);
        let ids = Tensor::from_fn([count], |i| (i[0] * i[0] * 31 % 701 % rows) as u32).unwrap();
        let dy = normal(&[count, width], 2).cast::<f32>().unwrap();
        let gradient = |threads: usize| {
            let device = Device::cpu().threads(threads);
            let table = Tensor::<f32, _>::zeros([rows, width]).unwrap().to_device(&device).unwrap();
            let table = Var::parameter(table);
            let y = table.embedding(&ids, None).unwrap();
            y.backward_from(dy.clone()).unwrap().take(&table).unwrap().to_vec().unwrap()
        };
        let one = gradient(1);
        assert!([2, 3, 5].into_iter().all(|threads| gradient(threads) == one));
    }

    #[test]
    fn errors_name_index_and_rows() {
        let table = Var::constant(normal(&[3, 2], 1));
        let error = table.embedding(&Tensor::from(array![[1u32, 0], [0, 3]]), None).unwrap_err();
        assert_eq!(error.to_string(), "embedding: index 3 at [1, 1] is outside the table, which has 3 rows");
        let error = table.embedding(&Tensor::from(array![0i64, -1]), None).unwrap_err();
        assert_eq!(error.to_string(), "embedding: index -1 at [1] is outside the table, which has 3 rows");
        let error = table.embedding(&Tensor::from(array![0i64]), Some(3)).unwrap_err();
        assert_eq!(error.to_string(), "embedding: padding row 3 is outside the table, which has 3 rows");
        let error = Var::constant(normal(&[3], 1)).embedding(&Tensor::from(array![0i64]), None).unwrap_err();
        assert_eq!(error.to_string(), "embedding: a table of shape [3]; needs [rows, width]");
    }
}
