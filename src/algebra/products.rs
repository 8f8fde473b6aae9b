//! Products of matrices that multilinear formulas are written with: Kronecker, Khatri-Rao, Hadamard.
//!
//! Each is an entrywise product of operands repeated along new modes (strides of 0), written once.

use crate::{
    device::{
        elementwise::{Binary, binary},
        layout::{Layout, checked_len},
    },
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Dimension, Ix2};

/// The Kronecker product of several matrices: `(A kron B)[i K + k, j L + l] = A[i, j] B[k, l]` for B `K x L`.
///
/// ```
/// use ndarray::array;
/// use tenfold::{Tensor, algebra::kronecker};
///
/// let a = Tensor::from(array![[1.0, 2.0]]);
/// let b = Tensor::from(array![[1.0], [10.0]]);
/// assert_eq!(kronecker(&[&a, &b])?, Tensor::from(array![[1.0, 2.0], [10.0, 20.0]]));
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where there is no matrix,
/// [`ErrorKind::Device`](crate::ErrorKind::Device) where they live in different places.
pub fn kronecker<T: Scalar>(matrices: &[&Tensor<T, Ix2>]) -> Result<Tensor<T, Ix2>> {
    fold("kronecker", matrices, |a, b| {
        let [[i, j], [k, l]] = [size(a), size(b)];
        // a[i, 1, j, 1] * b[1, k, 1, l], row-major, is the product already.
        spread_product("kronecker", a, b, &[i, k, j, l], [&[0, 2], &[1, 3]], || [i * k, j * l])
    })
}

/// The Khatri-Rao product of several matrices with R columns each: column r is the Kronecker product of the columns r.
///
/// `(A kr B)[i K + k, r] = A[i, r] B[k, r]`: the last matrix's rows run fastest, as in unfoldings here.
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where there is no matrix or the numbers of columns differ,
/// [`ErrorKind::Device`](crate::ErrorKind::Device) where they live in different places.
pub fn khatri_rao<T: Scalar>(matrices: &[&Tensor<T, Ix2>]) -> Result<Tensor<T, Ix2>> {
    fold("khatri_rao", matrices, |a, b| {
        let [[i, r], [k, columns]] = [size(a), size(b)];
        if r != columns {
            let message = format!("matrices with {r} and {columns} columns; all need the same number");
            return Err(Error::shape("khatri_rao", message));
        }
        spread_product("khatri_rao", a, b, &[i, k, r], [&[0, 2], &[1, 2]], || [i * k, r])
    })
}

/// The Hadamard product of several tensors of one shape: entry by entry.
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where there is no tensor or the shapes differ,
/// [`ErrorKind::Device`](crate::ErrorKind::Device) where they live in different places.
pub fn hadamard<T: Scalar, D: Dimension>(tensors: &[&Tensor<T, D>]) -> Result<Tensor<T, D>> {
    fold("hadamard", tensors, |a, b| {
        if a.shape() != b.shape() {
            let message = format!("shapes {:?} and {:?} differ", a.shape(), b.shape());
            return Err(Error::shape("hadamard", message));
        }
        a.mul(b)
    })
}

fn fold<T: Scalar, D: Dimension>(
    operation: &'static str,
    operands: &[&Tensor<T, D>],
    product: impl Fn(&Tensor<T, D>, &Tensor<T, D>) -> Result<Tensor<T, D>>,
) -> Result<Tensor<T, D>> {
    let Some((first, rest)) = operands.split_first() else {
        return Err(Error::shape(operation, "nothing to multiply; give at least one operand"));
    };
    let mut result = (*first).clone();
    for operand in rest {
        result.device().check_same(operand.device(), operation)?;
        result = product(&result, operand)?;
    }
    Ok(result)
}

fn size<T: Scalar>(m: &Tensor<T, Ix2>) -> [usize; 2] {
    [m.shape()[0], m.shape()[1]]
}

/// The entrywise product of two matrices spread over `shape`: the modes of each operand lie at `places`, the others repeat it. The size
/// of the result is asked for once `shape` is known not to overflow.
fn spread_product<T: Scalar>(
    operation: &'static str,
    a: &Tensor<T, Ix2>,
    b: &Tensor<T, Ix2>,
    shape: &[usize],
    places: [&[usize; 2]; 2],
    result: impl Fn() -> [usize; 2],
) -> Result<Tensor<T, Ix2>> {
    checked_len(operation, shape)?;
    let spread = |m: &Tensor<T, Ix2>, places: &[usize; 2]| {
        let mut strides = vec![0; shape.len()];
        places.iter().zip(m.strides()).for_each(|(&place, &stride)| strides[place] = stride);
        Layout::new(shape, &strides, m.layout.offset())
    };
    let (a_at, b_at) = (spread(a, places[0]), spread(b, places[1]));
    Ok(Tensor::row_major(binary(Binary::Mul, (&a.storage, &a_at), (&b.storage, &b_at))?, &result()))
}
