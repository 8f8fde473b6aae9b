//! Mode products: a matrix or a vector applied to every fibre of a mode.
//!
//! Around mode n a tensor is `[before, I, after]`, and `Y[b] = M X[b]` for each of the `before` slabs: a strided-batched matrix
//! product that reads the tensor where it lies. Cost: 2 J |X| flops and one pass over X and Y.

use crate::{
    device::{
        gemm::{Batch, Gemm, Matrix, gemm},
        layout::{Layout, Loop, Modes, checked_len, loops},
        storage::Storage,
    },
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Dimension, Ix1, Ix2};

/// Runs shorter than this are not worth being the columns of a matrix product.
const SHORT: usize = 8;

/// How [`Tensor::multi_mode_product`] treats its matrices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MultiMode {
    /// A mode to leave as it is; its matrix is not looked at.
    pub skip: Option<usize>,
    /// Multiply by the transposed matrices, as a projection on factors does.
    pub transpose: bool,
}

impl<T: Scalar, D: Dimension> Tensor<T, D> {
    /// The mode product Y = X x_n M: every mode-n fibre of X, of length I, times M (`J x I`). Mode n becomes J long.
    ///
    /// In unfoldings, Y_(n) = M X_(n) (Kolda and Bader 2009, section 2.5). To multiply by M^T pass the view `m.t()`.
    /// Cost: 2 J |X| flops; nothing is copied unless X is strided so that fibres cannot be walked evenly.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::Tensor;
    ///
    /// let x = Tensor::from_vec([2, 3, 2], (0..12).map(f64::from).collect())?;
    /// let sum_and_first = Tensor::from(array![[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]);
    /// let y = x.mode_product(1, &sum_and_first)?;
    /// assert_eq!(y.shape(), &[2, 2, 2]);
    /// assert_eq!(y.to_vec()?, [6.0, 9.0, 0.0, 1.0, 24.0, 27.0, 6.0, 7.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the mode does not exist or M has another number of columns;
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) where M is elsewhere.
    pub fn mode_product(&self, mode: usize, matrix: &Tensor<T, Ix2>) -> Result<Self> {
        self.check_mode("mode_product", mode)?;
        self.device().check_same(matrix.device(), "mode_product")?;
        if matrix.shape()[1] != self.shape()[mode] {
            let message = format!(
                "a {} x {} matrix cannot multiply mode {mode} of shape {:?}; it needs {} columns",
                matrix.shape()[0],
                matrix.shape()[1],
                self.shape(),
                self.shape()[mode]
            );
            return Err(Error::shape("mode_product", message));
        }
        let mut shape = self.shape().to_vec();
        shape[mode] = matrix.shape()[0];
        let mut out = Storage::uninit(self.device(), checked_len("mode_product", &shape)?)?;
        let to = Layout::contiguous(&shape);
        let mut nest = around(&self.layout, &to, mode);
        if too_scattered(&nest) {
            let packed = self.to_contiguous()?;
            nest = around(&packed.layout, &to, mode);
            multiply(&packed, mode, matrix, &nest, &mut out, &to)?;
        } else {
            multiply(self, mode, matrix, &nest, &mut out, &to)?;
        }
        Ok(Self::new(out, to))
    }

    /// The mode product with a vector: every mode-n fibre's inner product with `v`; mode n disappears.
    ///
    /// # Errors
    /// As [`mode_product`](Tensor::mode_product).
    pub fn mode_product_vector(&self, mode: usize, vector: &Tensor<T, Ix1>) -> Result<Tensor<T, D::Smaller>> {
        self.check_mode("mode_product_vector", mode)?;
        let row = vector.insert_mode(0)?.into_order::<Ix2>()?;
        self.mode_product(mode, &row)
            .map_err(|e| Error::new(e.kind(), "mode_product_vector", e.message()))?
            .index_mode(mode, 0)
    }

    /// Several mode products at once, in the order that costs least: those that shrink most go first.
    ///
    /// Products over different modes commute; a mode given twice is multiplied in the order given.
    ///
    /// # Errors
    /// As [`mode_product`](Tensor::mode_product).
    pub fn mode_products(&self, products: &[(usize, &Tensor<T, Ix2>)]) -> Result<Self> {
        let sizes: Vec<(usize, [usize; 2])> =
            products.iter().map(|&(mode, m)| (mode, [m.shape()[0], m.shape()[1]])).collect();
        by_cost(&sizes).into_iter().try_fold(self.clone(), |x, i| x.mode_product(products[i].0, products[i].1))
    }

    /// X x_0 M_0 x_1 M_1 .. with one matrix for each mode, with a mode left out or all matrices transposed.
    ///
    /// ```
    /// use tenfold::{Tensor, algebra::MultiMode};
    ///
    /// let core = Tensor::<f64, _>::ones([2, 2, 2])?;
    /// let factors = [Tensor::ones([3, 2])?, Tensor::ones([4, 2])?, Tensor::ones([5, 2])?];
    /// let x = core.multi_mode_product(&factors, MultiMode::default())?;
    /// assert_eq!(x.shape(), &[3, 4, 5]);
    /// let back = x.multi_mode_product(&factors, MultiMode { skip: Some(1), transpose: true })?;
    /// assert_eq!(back.shape(), &[2, 4, 2]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`mode_product`](Tensor::mode_product), and where the number of matrices is not the order or the mode to leave out does not
    /// exist.
    pub fn multi_mode_product(&self, matrices: &[Tensor<T, Ix2>], how: MultiMode) -> Result<Self> {
        check_count("multi_mode_product", matrices.len(), self.shape())?;
        how.skip.map_or(Ok(()), |mode| self.check_mode("multi_mode_product", mode))?;
        let views: Vec<Tensor<T, Ix2>> =
            matrices.iter().map(|m| if how.transpose { m.t() } else { m.clone() }).collect();
        let products: Vec<(usize, &Tensor<T, Ix2>)> =
            views.iter().enumerate().filter(|&(mode, _)| Some(mode) != how.skip).collect();
        self.mode_products(&products)
    }
}

/// The order in which several mode products (the mode and the size of its matrix, `J x I`) cost least.
pub(crate) fn by_cost(products: &[(usize, [usize; 2])]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..products.len()).collect();
    let repeated = products.iter().enumerate().any(|(i, p)| products[..i].iter().any(|q| q.0 == p.0));
    if !repeated {
        // Swapping two neighbours (I1 -> J1, I2 -> J2) changes the flops in the ratio of (1/I - 1/J): sort by it.
        let key = |i: usize| 1.0 / products[i].1[1].max(1) as f64 - 1.0 / products[i].1[0].max(1) as f64;
        // Of equals, first the mode with the longest runs of memory around it: mode 0, then the others from the last on.
        let place = |i: usize| if products[i].0 == 0 { usize::MAX } else { products[i].0 };
        order.sort_by(|&a, &b| key(a).total_cmp(&key(b)).then(place(b).cmp(&place(a))));
    }
    order
}

/// An error unless there is one factor for each mode.
pub(super) fn check_count(operation: &'static str, factors: usize, shape: &[usize]) -> Result<()> {
    if factors == shape.len() {
        return Ok(());
    }
    let message = format!("{factors} matrices for shape {shape:?}, which needs {}, one for each mode", shape.len());
    Err(Error::shape(operation, message))
}

/// The loops over all modes but one, over a tensor and the result together.
fn around(from: &Layout, to: &Layout, mode: usize) -> Modes<Loop<2>> {
    loops([&from.indexed(mode, 0), &to.indexed(mode, 0)])
}

/// Whether the walk has so many small loops that one copy in front is cheaper.
fn too_scattered(nest: &[Loop<2>]) -> bool {
    nest.len() > 2 && nest[columns_of(nest)].size < SHORT
}

/// Which loop becomes the columns of the products: the last, where the result is written in order, unless it is short.
fn columns_of(nest: &[Loop<2>]) -> usize {
    let last = nest.len() - 1;
    if nest[last].size >= SHORT {
        return last;
    }
    (0..nest.len()).max_by_key(|&i| nest[i].size).unwrap_or(last)
}

fn multiply<T: Scalar, D: Dimension>(
    x: &Tensor<T, D>,
    mode: usize,
    matrix: &Tensor<T, Ix2>,
    nest: &[Loop<2>],
    out: &mut Storage<T>,
    to: &Layout,
) -> Result<()> {
    let cols = columns_of(nest);
    let batch = nest.iter().enumerate().filter(|&(i, _)| i != cols);
    let problem = Gemm {
        m: matrix.shape()[0],
        n: nest[cols].size,
        k: matrix.shape()[1],
        a: Matrix::of(&matrix.layout),
        b: Matrix { offset: x.layout.offset(), rows: x.strides()[mode], cols: nest[cols].strides[0] },
        c: Matrix { offset: 0, rows: to.strides()[mode], cols: nest[cols].strides[1] },
        batch: batch.map(|(_, l)| Batch { size: l.size, a: 0, b: l.strides[0], c: l.strides[1] }).collect(),
        sum: Modes::new(),
        alpha: T::one(),
        beta: T::zero(),
    };
    gemm(x.device(), &problem, &matrix.storage, &x.storage, out)
}
