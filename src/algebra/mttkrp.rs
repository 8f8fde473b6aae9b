//! MTTKRP, the matricized tensor times Khatri-Rao product: where CP spends its time.
//!
//! `M_n = X_(n) (A_0 kr .. A_{n-1} kr A_{n+1} .. kr A_{N-1})`. Written out it would need an unfolding (a copy of X) and a
//! Khatri-Rao product as long as X_(n). Instead X, seen as a matrix of its first modes by its last modes, meets the Khatri-Rao
//! product of one side only; what is left is `R / (size of that side)` as large as X, and the remaining modes are contracted
//! component by component (Phan, Tichavsky, Cichocki 2013). For all modes together that is a *dimension tree* of two passes over X.

use super::{khatri_rao, mode_product::check_count};
use crate::{
    device::{
        columns::{self, Columns},
        gemm::{Gemm, Matrix, gemm},
        layout::{Modes, checked_len},
        storage::Storage,
    },
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Dimension, Ix1, Ix2};

impl<T: Scalar, D: Dimension> Tensor<T, D> {
    /// MTTKRP for one mode: X_(n) times the Khatri-Rao product of all factors but the n-th, `I_n x R`. The n-th factor is not
    /// looked at but for its number of columns.
    ///
    /// Cost: 2 R |X| flops and one pass over X, plus a smaller pass for a mode in the middle.
    ///
    /// ```
    /// use tenfold::{Tensor, algebra::khatri_rao};
    ///
    /// let x = Tensor::from_fn([2, 3, 4], |i| (i[0] + 2 * i[1] + i[2]) as f64)?;
    /// let factors = [Tensor::ones([2, 5])?, Tensor::ones([3, 5])?, Tensor::ones([4, 5])?];
    /// let m = x.mttkrp(1, &factors)?;
    /// let by_definition = x.unfold(1)?.matmul(&khatri_rao(&[&factors[0], &factors[2]])?)?;
    /// assert_eq!(m, by_definition);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the mode does not exist or a factor does not fit;
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) where factors live elsewhere.
    pub fn mttkrp(&self, mode: usize, factors: &[Tensor<T, Ix2>]) -> Result<Tensor<T, Ix2>> {
        self.check_mode("mttkrp", mode)?;
        check_factors("mttkrp", self, factors)?;
        let x = self.to_contiguous()?;
        let before: usize = self.shape()[..mode].iter().product();
        let after: usize = self.shape()[mode + 1..].iter().product();
        // Contract the longer side first, by matrix product: what is left is smaller.
        let split = if mode == 0 || (mode + 1 < self.order() && after >= before) { mode + 1 } else { mode };
        let half = if split == mode + 1 { Half::First(split) } else { Half::Last(split) };
        half.contract(&x, factors)?.mode(mode, factors)
    }

    /// MTTKRP for every mode, in two passes over X.
    ///
    /// # Errors
    /// As [`mttkrp`](Tensor::mttkrp).
    pub fn mttkrp_all(&self, factors: &[Tensor<T, Ix2>]) -> Result<Vec<Tensor<T, Ix2>>> {
        check_factors("mttkrp_all", self, factors)?;
        let x = self.to_contiguous()?;
        let mut all = Vec::with_capacity(self.order());
        for half in Half::both(self.shape()) {
            let part = half.contract(&x, factors)?;
            for mode in half.modes(self.order()) {
                all.push(part.mode(mode, factors)?);
            }
        }
        Ok(all)
    }

    /// MTTKRP with the components weighted: each column of the result times its weight.
    ///
    /// # Errors
    /// As [`mttkrp`](Tensor::mttkrp), and where there is not one weight for each column.
    pub fn mttkrp_weighted(
        &self,
        mode: usize,
        factors: &[Tensor<T, Ix2>],
        weights: &Tensor<T, Ix1>,
    ) -> Result<Tensor<T, Ix2>> {
        let m = self.mttkrp(mode, factors)?;
        if weights.shape()[0] != m.shape()[1] {
            let message = format!("{} weights for {} columns", weights.shape()[0], m.shape()[1]);
            return Err(Error::shape("mttkrp_weighted", message));
        }
        m.mul(&weights.insert_mode(0)?.into_order()?)
    }
}

/// An error unless there is one factor for each mode, as long as the mode, all with one number of columns, all here.
pub(crate) fn check_factors<T: Scalar, D: Dimension>(
    operation: &'static str,
    x: &Tensor<T, D>,
    factors: &[Tensor<T, Ix2>],
) -> Result<()> {
    check_count(operation, factors.len(), x.shape())?;
    let rank = factors.first().map_or(0, |f| f.shape()[1]);
    for (mode, factor) in factors.iter().enumerate() {
        x.device().check_same(factor.device(), operation)?;
        if factor.shape() != [x.shape()[mode], rank] {
            let message = format!(
                "factor {mode} is {} x {}, but mode {mode} of shape {:?} needs {} x {rank}",
                factor.shape()[0],
                factor.shape()[1],
                x.shape(),
                x.shape()[mode]
            );
            return Err(Error::shape(operation, message));
        }
    }
    Ok(())
}

/// A branch of the dimension tree: the modes before the split, or those from it on, with the others contracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    First(usize),
    Last(usize),
}

impl Half {
    /// The two branches for a tensor of `shape`, split where the halves are most alike in size; one for a single mode, none for none.
    pub(crate) fn both(shape: &[usize]) -> Vec<Half> {
        if shape.len() < 2 {
            return shape.iter().map(|_| Half::First(1)).collect();
        }
        let size = |modes: &[usize]| modes.iter().map(|&n| n.max(1) as f64).product::<f64>();
        let cost = |split: &usize| size(&shape[..*split]) + size(&shape[*split..]);
        let split = (1..shape.len()).min_by(|a, b| cost(a).total_cmp(&cost(b))).unwrap_or(1);
        vec![Half::First(split), Half::Last(split)]
    }

    /// The modes that this branch keeps.
    pub(crate) fn modes(self, order: usize) -> std::ops::Range<usize> {
        match self {
            Half::First(split) => 0..split,
            Half::Last(split) => split..order,
        }
    }

    /// Contracts the other branch's modes: one matrix product over X, which is contiguous.
    pub(crate) fn contract<T: Scalar, D: Dimension>(
        self,
        x: &Tensor<T, D>,
        factors: &[Tensor<T, Ix2>],
    ) -> Result<Partial<T>> {
        let shape = x.shape();
        let kept = self.modes(shape.len());
        let gone: Vec<&Tensor<T, Ix2>> =
            factors.iter().enumerate().filter(|(mode, _)| !kept.contains(mode)).map(|(_, f)| f).collect();
        let rank = factors[0].shape()[1];
        let rows: usize = shape[kept.clone()].iter().product();
        let inner: usize = if gone.is_empty() { 1 } else { gone.iter().map(|f| f.shape()[0]).product() };
        let khatri_rao = match gone.as_slice() {
            [] => Tensor::ones([1, rank])?.to_device(x.device())?,
            _ => khatri_rao(&gone)?,
        };
        let mut block = Storage::uninit(x.device(), checked_len("mttkrp", &[rows, rank])?)?;
        let offset = x.layout.offset();
        let a = match self {
            Half::First(_) => Matrix { offset, rows: inner as isize, cols: 1 },
            Half::Last(_) => Matrix { offset, rows: 1, cols: rows as isize },
        };
        let problem = Gemm {
            m: rows,
            n: rank,
            k: inner,
            a,
            b: Matrix::of(&khatri_rao.layout),
            c: Matrix { offset: 0, rows: rank as isize, cols: 1 },
            batch: Modes::new(),
            sum: Modes::new(),
            alpha: T::one(),
            beta: T::zero(),
        };
        gemm(x.device(), &problem, &x.storage, &khatri_rao.storage, &mut block)?;
        Ok(Partial { block, first: kept.start, shape: shape[kept].to_vec(), rank })
    }
}

/// A tensor after one branch is contracted: `[kept modes, R]`, row-major.
pub(crate) struct Partial<T: Scalar> {
    block: Storage<T>,
    /// The first of the kept modes.
    first: usize,
    shape: Vec<usize>,
    rank: usize,
}

impl<T: Scalar> Partial<T> {
    /// Contracts all kept modes but one, component by component.
    pub(crate) fn mode(&self, mode: usize, factors: &[Tensor<T, Ix2>]) -> Result<Tensor<T, Ix2>> {
        let at = mode - self.first;
        let n = self.shape[at];
        let device = self.block.device().clone();
        let (before, after): (usize, usize) =
            (self.shape[..at].iter().product(), self.shape[at + 1..].iter().product());
        let side = |modes: std::ops::Range<usize>| {
            let factors: Vec<&Tensor<T, Ix2>> = factors[modes].iter().collect();
            khatri_rao(&factors)
        };
        let mut block = self.block.clone();
        if at + 1 < self.shape.len() {
            let right = side(mode + 1..self.first + self.shape.len())?;
            let sizes = Columns { before: before * n, n: after, after: 1, rank: self.rank };
            block = columns::contract(&device, sizes, (&block, 0), (&right.storage, Matrix::of(&right.layout)))?;
        }
        if at > 0 {
            let left = side(self.first..mode)?;
            let sizes = Columns { before: 1, n: before, after: n, rank: self.rank };
            block = columns::contract(&device, sizes, (&block, 0), (&left.storage, Matrix::of(&left.layout)))?;
        }
        Ok(Tensor::row_major(block, &[n, self.rank]))
    }
}
