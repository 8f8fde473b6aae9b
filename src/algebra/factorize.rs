//! Matrices: products, Gram matrices, and the factorisations that the solvers stand on.

use super::contract;
#[cfg(doc)]
use crate::ErrorKind;
use crate::{
    device::{
        gram::{self, Gram, Precision},
        layout::Layout,
        linalg,
        reduce::{self, Total},
    },
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Dimension, Ix1, Ix2};

/// The thin singular value decomposition A = U diag(s) V^T.
#[derive(Debug, Clone)]
pub struct Svd<T: Scalar> {
    /// Left singular vectors, `m x k`, `k = min(m, n)`.
    pub u: Tensor<T, Ix2>,
    /// Singular values in falling order.
    pub s: Tensor<T, Ix1>,
    /// Right singular vectors, `n x k` (not transposed).
    pub v: Tensor<T, Ix2>,
}

/// The thin QR decomposition A = Q R.
#[derive(Debug, Clone)]
pub struct Qr<T: Scalar> {
    /// Orthonormal columns, `m x k`, `k = min(m, n)`.
    pub q: Tensor<T, Ix2>,
    /// Upper triangular, `k x n`.
    pub r: Tensor<T, Ix2>,
}

impl<T: Scalar> Tensor<T, Ix2> {
    /// The matrix product A B, `m x k` times `k x n`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where the inner sizes differ, [`ErrorKind::Device`] where B is elsewhere.
    pub fn matmul(&self, other: &Self) -> Result<Self> {
        if self.shape()[1] != other.shape()[0] {
            let message = format!("{:?} times {:?}: the inner sizes differ", self.shape(), other.shape());
            return Err(Error::shape("matmul", message));
        }
        contract(self, &[1], other, &[0])?.into_order()
    }

    /// Eigenvalues, in falling order, and eigenvectors, as columns, of a symmetric matrix; only its lower triangle is read.
    /// About 9 n^3 flops.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] unless square, [`ErrorKind::Value`] where an entry is not finite, [`ErrorKind::Convergence`].
    pub fn eigh(&self) -> Result<(Tensor<T, Ix1>, Tensor<T, Ix2>)> {
        self.check_square("eigh")?;
        self.check_finite("eigh")?;
        let (values, vectors) = linalg::eigh(self.device(), &self.storage, &self.layout)?;
        Ok((Tensor::new(values.0, values.1), Tensor::new(vectors.0, vectors.1)))
    }

    /// The thin singular value decomposition.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where an entry is not finite, [`ErrorKind::Convergence`].
    pub fn svd(&self) -> Result<Svd<T>> {
        self.check_finite("svd")?;
        let [u, s, v] = linalg::svd(self.device(), &self.storage, &self.layout)?;
        Ok(Svd { u: Tensor::new(u.0, u.1), s: Tensor::new(s.0, s.1), v: Tensor::new(v.0, v.1) })
    }

    /// The thin QR decomposition by Householder reflections.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where an entry is not finite.
    pub fn qr(&self) -> Result<Qr<T>> {
        self.check_finite("qr")?;
        let [q, r] = linalg::qr(self.device(), &self.storage, &self.layout)?;
        Ok(Qr { q: Tensor::new(q.0, q.1), r: Tensor::new(r.0, r.1) })
    }

    /// The Q of the thin QR, for a solver that looks at its numbers later: entries that are not finite are not looked for, and nobody waits.
    pub(crate) fn orthonormal(&self) -> Result<Self> {
        let (q, layout) = linalg::orthonormal(self.device(), &self.storage, &self.layout)?;
        Ok(Self::new(q, layout))
    }

    /// The lower Cholesky factor L of a symmetric positive definite matrix A = L L^T; only the lower triangle is read.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] unless square, [`ErrorKind::Convergence`] unless positive definite to working precision.
    pub fn cholesky(&self) -> Result<Self> {
        self.check_square("cholesky")?;
        let (l, layout) = linalg::cholesky(self.device(), &self.storage, &self.layout)?;
        Ok(Self::new(l, layout))
    }

    /// The same for a square matrix, with its smallest and largest pivot, which nobody has waited for: 0 and 1 where it is not positive
    /// definite, and then the factor is not to be used.
    pub(crate) fn cholesky_unread(&self) -> Result<(Self, Tensor<f64, Ix1>)> {
        let (l, pivots) = linalg::cholesky_unread(self.device(), &self.storage, &self.layout)?;
        Ok((Self::new(l.0, l.1), Tensor::new(pivots.0, pivots.1)))
    }

    /// Solves L L^T X = B for a lower Cholesky factor, this matrix.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where B has another number of rows, [`ErrorKind::Device`] where it is elsewhere.
    pub fn cholesky_solve(&self, b: &Self) -> Result<Self> {
        self.check_square("cholesky_solve")?;
        self.device().check_same(b.device(), "cholesky_solve")?;
        if b.shape()[0] != self.shape()[0] {
            let message = format!("{:?} does not solve for {:?}: the rows differ", self.shape(), b.shape());
            return Err(Error::shape("cholesky_solve", message));
        }
        let (x, layout) =
            linalg::cholesky_solve(self.device(), (&self.storage, &self.layout), (&b.storage, &b.layout))?;
        Ok(Self::new(x, layout))
    }

    fn check_square(&self, operation: &'static str) -> Result<()> {
        if self.shape()[0] == self.shape()[1] {
            return Ok(());
        }
        Err(Error::shape(operation, format!("a {:?} matrix is not square", self.shape())))
    }
}

impl<T: Scalar, D: Dimension> Tensor<T, D> {
    /// The Gram matrix X_(n) X_(n)^T of an unfolding, `I_n x I_n`, in double precision, without forming the unfolding.
    ///
    /// I_n |X| flops and one pass over X.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where the mode does not exist.
    pub fn gram(&self, mode: usize) -> Result<Tensor<f64, Ix2>> {
        self.check_mode("gram", mode)?;
        let n = self.shape()[mode];
        let Gram { matrix, .. } = gram::gram(self.device(), &self.storage, &self.layout, mode, Precision::Double, 1.0)?;
        Ok(Tensor::row_major(matrix, &[n, n]))
    }
}

/// The Gram matrix of the mode-n unfolding of `scale` X in a chosen precision, and the sum of squares of `scale` X.
pub(crate) fn gram<T: Scalar, D: Dimension>(
    x: &Tensor<T, D>,
    mode: usize,
    precision: Precision,
    scale: f64,
) -> Result<(Tensor<f64, Ix2>, f64)> {
    let Gram { matrix, squares } = gram::gram(x.device(), &x.storage, &x.layout, mode, precision, scale)?;
    let n = x.shape()[mode];
    let squares = match squares {
        Some(squares) => squares,
        None => reduce::total(Total::Sum, &matrix, &Layout::new(&[n], &[n as isize + 1], 0))?,
    };
    Ok((Tensor::row_major(matrix, &[n, n]), squares))
}
