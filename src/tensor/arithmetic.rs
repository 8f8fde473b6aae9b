//! Entrywise operations: methods that say what went wrong, operators for numbers, `map` for any function.

use super::Tensor;
use crate::{
    device::{
        Kind, cpu,
        elementwise::{self, Binary, Unary},
        layout::Layout,
        storage::Storage,
    },
    error::{Error, Result},
    scalar::{Element, Scalar},
};
use ndarray::Dimension;
use std::ops::{Add, Div, Mul, Neg, Sub};

impl<T: Element, D: Dimension> Tensor<T, D> {
    /// `f` of every entry, on the host, in parallel.
    ///
    /// # Errors
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) where the tensor is on a GPU, which cannot run a closure.
    pub fn map<U: Element>(&self, f: impl Fn(T) -> U + Sync + Copy) -> Result<Tensor<U, D>> {
        let source = self.storage.host("map")?;
        let mut out = Storage::uninit(self.device(), self.len())?;
        match &self.device().0 {
            Kind::Cpu(cpu) => cpu::elementwise::map(cpu, source, &self.layout, out.host_mut("map")?, f),
            #[cfg(feature = "cuda")]
            Kind::Cuda(_) => unreachable!("the block is on the host"),
        }
        Ok(Tensor::row_major(out, self.shape()))
    }
}

impl<T: Scalar, D: Dimension> Tensor<T, D> {
    pub(crate) fn binary(&self, operation: &'static str, f: Binary, other: &Self) -> Result<Self> {
        self.device().check_same(other.device(), operation)?;
        let Some((a, b)) = broadcast_pair(self, other) else {
            let message = format!(
                "shapes {:?} and {:?} do not fit; orders must be equal, and modes too, or 1 on one side",
                self.shape(),
                other.shape()
            );
            return Err(Error::shape(operation, message));
        };
        let out = elementwise::binary(f, (&self.storage, &a), (&other.storage, &b))?;
        Ok(Self::row_major(out, a.shape()))
    }

    fn unary(&self, f: Unary<T>) -> Result<Self> {
        Ok(Self::row_major(elementwise::unary(f, &self.storage, &self.layout)?, self.shape()))
    }

    /// Entrywise sum; modes of size 1 are repeated.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the shapes do not fit,
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) where the tensors live in different places.
    pub fn add(&self, other: &Self) -> Result<Self> {
        self.binary("add", Binary::Add, other)
    }

    /// Entrywise difference; modes of size 1 are repeated.
    ///
    /// # Errors
    /// As [`add`](Tensor::add).
    pub fn sub(&self, other: &Self) -> Result<Self> {
        self.binary("sub", Binary::Sub, other)
    }

    /// Entrywise product; modes of size 1 are repeated. For equal shapes this is the Hadamard product
    /// ([`hadamard`](crate::algebra::hadamard) takes several).
    ///
    /// # Errors
    /// As [`add`](Tensor::add).
    pub fn mul(&self, other: &Self) -> Result<Self> {
        self.binary("mul", Binary::Mul, other)
    }

    /// Entrywise quotient; modes of size 1 are repeated. Division by zero gives infinities and NaN, as for plain numbers.
    ///
    /// # Errors
    /// As [`add`](Tensor::add).
    pub fn div(&self, other: &Self) -> Result<Self> {
        self.binary("div", Binary::Div, other)
    }

    /// Entrywise maximum; modes of size 1 are repeated. NaN on either side is the result.
    ///
    /// # Errors
    /// As [`add`](Tensor::add).
    pub fn maximum(&self, other: &Self) -> Result<Self> {
        self.binary("maximum", Binary::Max, other)
    }

    /// Adds `other` to this tensor: in place on the host, where this is the only owner of its block and lies in it without gaps.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the shapes differ,
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) where the tensors live in different places.
    pub fn add_assign(&mut self, other: &Self) -> Result<()> {
        self.device().check_same(other.device(), "add_assign")?;
        if self.shape() != other.shape() {
            let message = format!("shapes {:?} and {:?} are not equal", self.shape(), other.shape());
            return Err(Error::shape("add_assign", message));
        }
        let in_place = self.storage.is_unique() && self.layout.is_contiguous();
        match &self.device().0.clone() {
            Kind::Cpu(cpu) if in_place => {
                let term = (other.storage.host("add_assign")?, &other.layout);
                cpu::elementwise::add_into(cpu, term, self.as_mut_slice()?);
            }
            _ => *self = self.add(other)?,
        }
        Ok(())
    }

    /// Every entry times a number.
    pub fn scale(&self, factor: T) -> Result<Self> {
        self.unary(Unary::Scale(factor))
    }

    /// Every entry plus a number.
    pub fn shift(&self, term: T) -> Result<Self> {
        self.unary(Unary::Shift(term))
    }

    /// Absolute values.
    pub fn abs(&self) -> Result<Self> {
        self.unary(Unary::Abs)
    }

    /// Square roots.
    pub fn sqrt(&self) -> Result<Self> {
        self.unary(Unary::Sqrt)
    }

    /// Reciprocals.
    pub fn recip(&self) -> Result<Self> {
        self.unary(Unary::Recip)
    }

    /// 1 where there is a number, 0 where there is NaN.
    pub(crate) fn known(&self) -> Result<Self> {
        self.unary(Unary::Known)
    }

    /// 0 in the place of NaN.
    pub(crate) fn nan_to_zero(&self) -> Result<Self> {
        self.unary(Unary::OrZero)
    }
}

/// Both operands seen under their common shape; `None` where there is none.
fn broadcast_pair<T: Element, D: Dimension>(a: &Tensor<T, D>, b: &Tensor<T, D>) -> Option<(Layout, Layout)> {
    if a.order() != b.order() {
        return None;
    }
    let shape: Vec<usize> = a.shape().iter().zip(b.shape()).map(|(&n, &m)| if n == 1 { m } else { n }).collect();
    Some((a.layout.broadcast(&shape)?, b.layout.broadcast(&shape)?))
}

macro_rules! operators {
    ($($trait:ident $method:ident $text:literal),*) => {$(
        #[doc = concat!("Entrywise ", $text, "; the result is a `Result`, since shapes may not fit: `(&a + &b)?`.")]
        impl<T: Scalar, D: Dimension> $trait<&Tensor<T, D>> for &Tensor<T, D> {
            type Output = Result<Tensor<T, D>>;

            fn $method(self, other: &Tensor<T, D>) -> Self::Output {
                Tensor::$method(self, other)
            }
        }
    )*};
}

operators!(Add add "sum", Sub sub "difference", Mul mul "product", Div div "quotient");

/// Every entry times a number: `(&x * 2.0)?`.
impl<T: Scalar, D: Dimension> Mul<T> for &Tensor<T, D> {
    type Output = Result<Tensor<T, D>>;

    fn mul(self, factor: T) -> Self::Output {
        self.scale(factor)
    }
}

/// Every entry with its sign changed: `(-&x)?`.
impl<T: Scalar, D: Dimension> Neg for &Tensor<T, D> {
    type Output = Result<Tensor<T, D>>;

    fn neg(self) -> Self::Output {
        self.scale(-T::one())
    }
}
