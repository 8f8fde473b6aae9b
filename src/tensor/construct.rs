//! Making tensors: filled, from vectors, at random.

use super::{Tensor, checked_shape};
use crate::{
    device::{
        Device,
        storage::{Storage, check_room},
    },
    error::{Error, Result},
    scalar::{Element, Scalar},
};
use ndarray::{Dimension, IntoDimension, Ix2};
use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};

impl<T: Element, D: Dimension> Tensor<T, D> {
    /// A tensor with every entry `value`.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory) where the shape's product overflows, or the host cannot give so much.
    pub fn full(shape: impl IntoDimension<Dim = D>, value: T) -> Result<Self> {
        let shape = shape.into_dimension();
        let len = checked_shape("full", &shape)?;
        check_room::<T>("full", len)?;
        Ok(Self::row_major(Storage::from_vec(Device::cpu(), vec![value; len]), shape.slice()))
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// As [`full`](Tensor::full).
    pub fn zeros(shape: impl IntoDimension<Dim = D>) -> Result<Self> {
        Self::full(shape, T::default())
    }

    /// A tensor of a vector's entries in row-major order; the vector is moved in.
    ///
    /// ```
    /// use tenfold::Tensor;
    ///
    /// let x = Tensor::from_vec([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    /// assert_eq!(x.get(&[1, 0])?, 4.0);
    /// assert!(Tensor::from_vec([2, 2], vec![1.0]).is_err());
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the shape needs another number of entries.
    pub fn from_vec(shape: impl IntoDimension<Dim = D>, data: Vec<T>) -> Result<Self> {
        let shape = shape.into_dimension();
        let len = checked_shape("from_vec", &shape)?;
        if len != data.len() {
            let message = format!("shape {:?} needs {len} entries, the vector has {}", shape.slice(), data.len());
            return Err(Error::shape("from_vec", message));
        }
        Ok(Self::row_major(Storage::from_vec(Device::cpu(), data), shape.slice()))
    }

    /// A tensor whose entry at each index is `f(index)`, filled in row-major order.
    ///
    /// # Errors
    /// As [`full`](Tensor::full).
    pub fn from_fn(shape: impl IntoDimension<Dim = D>, mut f: impl FnMut(&[usize]) -> T) -> Result<Self> {
        let shape = shape.into_dimension();
        let len = checked_shape("from_fn", &shape)?;
        check_room::<T>("from_fn", len)?;
        let mut index = vec![0; shape.ndim()];
        let data = (0..len)
            .map(|_| {
                let value = f(&index);
                for (i, &n) in index.iter_mut().zip(shape.slice()).rev() {
                    *i += 1;
                    if *i < n {
                        break;
                    }
                    *i = 0;
                }
                value
            })
            .collect();
        Self::from_vec(shape, data)
    }

    /// Independent draws from a distribution, in row-major order.
    ///
    /// # Errors
    /// As [`full`](Tensor::full).
    pub fn random<R: Rng + ?Sized>(
        shape: impl IntoDimension<Dim = D>,
        distribution: &impl Distribution<T>,
        rng: &mut R,
    ) -> Result<Self> {
        Self::from_fn(shape, |_| distribution.sample(rng))
    }
}

impl<T: Scalar, D: Dimension> Tensor<T, D> {
    /// Independent standard normal entries.
    ///
    /// ```
    /// use rand::SeedableRng;
    /// use rand_chacha::ChaCha8Rng;
    /// use tenfold::Tensor;
    ///
    /// let x = Tensor::<f64, _>::normal([50, 40], &mut ChaCha8Rng::seed_from_u64(1))?;
    /// let again = Tensor::<f64, _>::normal([50, 40], &mut ChaCha8Rng::seed_from_u64(1))?;
    /// assert_eq!(x, again);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`full`](Tensor::full).
    pub fn normal<R: Rng + ?Sized>(shape: impl IntoDimension<Dim = D>, rng: &mut R) -> Result<Self> {
        Self::from_fn(shape, |_| T::of(StandardNormal.sample(rng)))
    }

    /// Independent entries uniform on [0, 1).
    ///
    /// # Errors
    /// As [`full`](Tensor::full).
    pub fn uniform<R: Rng + ?Sized>(shape: impl IntoDimension<Dim = D>, rng: &mut R) -> Result<Self> {
        Self::from_fn(shape, |_| {
            // A double just below 1 may round to 1 as a single; draw again.
            loop {
                let x = T::of(rng.random::<f64>());
                if x < T::one() {
                    return x;
                }
            }
        })
    }

    /// A tensor of ones.
    ///
    /// # Errors
    /// As [`full`](Tensor::full).
    pub fn ones(shape: impl IntoDimension<Dim = D>) -> Result<Self> {
        Self::full(shape, T::one())
    }
}

impl<T: Scalar> Tensor<T, Ix2> {
    /// The identity matrix.
    ///
    /// # Errors
    /// As [`full`](Tensor::full).
    pub fn eye(n: usize) -> Result<Self> {
        Self::from_fn([n, n], |i| if i[0] == i[1] { T::one() } else { T::zero() })
    }
}
