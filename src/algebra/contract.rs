//! Contractions of two tensors: over chosen modes, over all of them, over none.

use crate::{
    device::{
        gemm::{Batch, Gemm, Matrix, gemm},
        layout::{Layout, Loop, Modes, checked_len, loops},
        reduce,
        storage::Storage,
    },
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Dimension, Ix1, IxDyn};

/// The inner product <X, Y>: the sum of the entrywise products, added up in double precision.
///
/// ```
/// use tenfold::{Tensor, algebra::inner};
///
/// let x = Tensor::from(ndarray::array![[1.0, 2.0], [3.0, 4.0]]);
/// assert_eq!(inner(&x, &x)?, 30.0);
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the shapes differ,
/// [`ErrorKind::Device`](crate::ErrorKind::Device) where the tensors live in different places.
pub fn inner<T: Scalar, D: Dimension>(x: &Tensor<T, D>, y: &Tensor<T, D>) -> Result<f64> {
    x.device().check_same(y.device(), "inner")?;
    if x.shape() != y.shape() {
        let message = format!("shapes {:?} and {:?} differ", x.shape(), y.shape());
        return Err(Error::shape("inner", message));
    }
    reduce::dot((&x.storage, &x.layout), (&y.storage, &y.layout))
}

/// The same for two tensors that fit, as a number that nobody has waited for.
pub(crate) fn inner_unread<T: Scalar, D: Dimension>(x: &Tensor<T, D>, y: &Tensor<T, D>) -> Result<Tensor<f64, Ix1>> {
    let sum = reduce::dot_unread((&x.storage, &x.layout), (&y.storage, &y.layout))?;
    Ok(Tensor::row_major(sum, &[1]))
}

/// The outer product: every entry of X times every entry of Y, the modes of X first.
///
/// # Errors
/// [`ErrorKind::Device`](crate::ErrorKind::Device) where the tensors live in different places,
/// [`ErrorKind::Memory`](crate::ErrorKind::Memory) where the result is larger than the address space.
pub fn outer<T: Scalar, D1: Dimension, D2: Dimension>(
    x: &Tensor<T, D1>,
    y: &Tensor<T, D2>,
) -> Result<Tensor<T, IxDyn>> {
    contract(x, &[], y, &[]).map_err(|e| Error::new(e.kind(), "outer", e.message()))
}

/// The contraction of two tensors over pairs of modes: `x_modes[i]` of X is summed against `y_modes[i]` of Y. The result has
/// the free modes of X, then those of Y, each in order (NumPy's `tensordot`).
///
/// One strided-batched matrix product; operands whose modes cannot be walked evenly are copied first.
///
/// ```
/// use tenfold::{Tensor, algebra::contract};
///
/// let x = Tensor::<f64, _>::ones([2, 3, 4])?;
/// let y = Tensor::<f64, _>::ones([4, 5, 3])?;
/// let z = contract(&x, &[1, 2], &y, &[2, 0])?;
/// assert_eq!(z.shape(), &[2, 5]);
/// assert_eq!(z.get(&[0, 0])?, 12.0);
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where modes do not exist, repeat, or have different sizes;
/// [`ErrorKind::Device`](crate::ErrorKind::Device) where the tensors live in different places.
pub fn contract<T: Scalar, D1: Dimension, D2: Dimension>(
    x: &Tensor<T, D1>,
    x_modes: &[usize],
    y: &Tensor<T, D2>,
    y_modes: &[usize],
) -> Result<Tensor<T, IxDyn>> {
    x.device().check_same(y.device(), "contract")?;
    check(x.shape(), x_modes)?;
    check(y.shape(), y_modes)?;
    if x_modes.len() != y_modes.len() {
        let message = format!("{} modes of one operand for {} of the other", x_modes.len(), y_modes.len());
        return Err(Error::shape("contract", message));
    }
    for (&m, &n) in x_modes.iter().zip(y_modes) {
        if x.shape()[m] != y.shape()[n] {
            let message =
                format!("mode {m} of shape {:?} and mode {n} of shape {:?} have different sizes", x.shape(), y.shape());
            return Err(Error::shape("contract", message));
        }
    }
    let free = |order: usize, modes: &[usize]| (0..order).filter(|m| !modes.contains(m)).collect::<Vec<usize>>();
    let (x_free, y_free) = (free(x.order(), x_modes), free(y.order(), y_modes));
    let pick = |shape: &[usize], modes: &[usize]| modes.iter().map(|&m| shape[m]).collect::<Vec<usize>>();
    let mut shape = pick(x.shape(), &x_free);
    let rows = shape.len();
    shape.extend(pick(y.shape(), &y_free));
    let mut out = Storage::uninit(x.device(), checked_len("contract", &shape)?)?;
    let to = Layout::contiguous(&shape);

    let x_order: Vec<usize> = x_free.iter().chain(x_modes).copied().collect();
    let y_order: Vec<usize> = y_modes.iter().chain(&y_free).copied().collect();
    let (mut x, mut y) = (x.permute(&x_order)?.into_dyn(), y.permute(&y_order)?.into_dyn());
    let mut plan = Plan::new(&x.layout, &y.layout, &to, rows, x_modes.len());
    if plan.too_scattered() {
        (x, y) = (x.to_contiguous()?, y.to_contiguous()?);
        plan = Plan::new(&x.layout, &y.layout, &to, rows, x_modes.len());
    }
    gemm(x.device(), &plan.gemm(x.layout.offset(), y.layout.offset()), &x.storage, &y.storage, &mut out)?;
    Ok(Tensor::new(out, to))
}

fn check(shape: &[usize], modes: &[usize]) -> Result<()> {
    for (i, &mode) in modes.iter().enumerate() {
        if mode >= shape.len() {
            return Err(Error::mode("contract", mode, shape));
        }
        if modes[..i].contains(&mode) {
            return Err(Error::shape("contract", format!("mode {mode} stands twice in {modes:?}")));
        }
    }
    Ok(())
}

/// The loops of a contraction: free modes of X, free modes of Y, and the paired ones.
struct Plan {
    rows: Modes<Loop<2>>,
    cols: Modes<Loop<2>>,
    inner: Modes<Loop<2>>,
}

impl Plan {
    /// X is `[free, paired]`, Y is `[paired, free]`, the result `[free of X, free of Y]`.
    fn new(x: &Layout, y: &Layout, to: &Layout, rows: usize, paired: usize) -> Self {
        let part =
            |l: &Layout, modes: std::ops::Range<usize>| Layout::new(&l.shape()[modes.clone()], &l.strides()[modes], 0);
        let order = to.order();
        Self {
            rows: loops([&part(x, 0..rows), &part(to, 0..rows)]),
            cols: loops([&part(y, paired..y.order()), &part(to, rows..order)]),
            inner: loops([&part(x, rows..rows + paired), &part(y, 0..paired)]),
        }
    }

    /// The largest loop of a nest is what the matrix product runs over; the others are loops around it.
    fn split(nest: &[Loop<2>]) -> (Loop<2>, impl Iterator<Item = Loop<2>> + '_) {
        let at = (0..nest.len()).max_by_key(|&i| nest[i].size).unwrap_or(0);
        (nest[at], nest.iter().enumerate().filter(move |&(i, _)| i != at).map(|(_, l)| *l))
    }

    fn too_scattered(&self) -> bool {
        let around: usize = [&self.rows, &self.cols, &self.inner].iter().map(|n| n.len() - 1).sum();
        let product: usize = [&self.rows, &self.cols, &self.inner].iter().map(|n| Self::split(n).0.size).product();
        around > 0 && product < 1 << 14
    }

    fn gemm<T: Scalar>(&self, x_offset: usize, y_offset: usize) -> Gemm<T> {
        let ((row, rows), (col, cols), (inner, sums)) =
            (Self::split(&self.rows), Self::split(&self.cols), Self::split(&self.inner));
        Gemm {
            m: row.size,
            n: col.size,
            k: inner.size,
            a: Matrix { offset: x_offset, rows: row.strides[0], cols: inner.strides[0] },
            b: Matrix { offset: y_offset, rows: inner.strides[1], cols: col.strides[0] },
            c: Matrix { offset: 0, rows: row.strides[1], cols: col.strides[1] },
            batch: rows
                .map(|l| Batch { size: l.size, a: l.strides[0], b: 0, c: l.strides[1] })
                .chain(cols.map(|l| Batch { size: l.size, a: 0, b: l.strides[0], c: l.strides[1] }))
                .collect(),
            sum: sums.map(|l| Batch { size: l.size, a: l.strides[0], b: l.strides[1], c: 0 }).collect(),
            alpha: T::one(),
            beta: T::zero(),
        }
    }
}
