//! HOSVD: the higher-order singular value decomposition, every factor from the whole tensor.

use super::{
    Fit, Method, Progress, Stop, Target, Tucker,
    fit::unwatched,
    leading::{Leading, Want, leading},
    scale::check_norm,
    st_hosvd::{interrupted, within},
};
use crate::{error::Result, scalar::Scalar, tensor::Tensor};
use ndarray::{Dimension, Ix2};
use std::ops::ControlFlow;

/// The truncated higher-order singular value decomposition: every factor from the whole tensor.
///
/// $$ G = X \times_0 U_0^T \times_1 U_1^T \cdots \times_{N-1} U_{N-1}^T, \qquad
/// X \approx G \times_0 U_0 \times_1 U_1 \cdots \times_{N-1} U_{N-1}, $$
///
/// where $U_n$ holds the $J_n$ leading left singular vectors of the unfolding $X_{(n)}$.
///
/// ```text
/// for n = 0 .. N-1:  U_n = the J_n leading left singular vectors of X_(n)
/// G = X x_0 U_0^T x_1 U_1^T ..
/// ```
///
/// The mode-n singular values $\sigma_i^{(n)}$ of X are comparable between modes, which those of ST-HOSVD's later modes
/// are not. They bound the error, which is at most $\sqrt{N}$ times that of the best approximation with these ranks:
///
/// $$ \lVert X - \hat X \rVert^2 \le \sum_{n} \sum_{i \ge J_n} \big(\sigma_i^{(n)}\big)^2. $$
///
/// For a tolerance each mode's inner sum gets the N-th part of $\mathrm{tolerance}^2 \lVert X \rVert^2$, and the
/// smallest rank that keeps within it is taken.
///
/// The error is checked at the end as ST-HOSVD's is: what misses the tolerance by rounding is done again by SVD.
///
/// **Cost**: $\sum_n I_n |X|$ flops for Gram matrices (|X| counts entries), $9 I_n^3$ for the eigenvectors of each, N
/// passes over X and one to project: about N times [`StHosvd`](super::StHosvd), which is mostly no less exact.
/// **Memory**: X, an $I_n \times I_n$ Gram matrix in doubles, and the first projection. [`Method`] says how vectors are
/// found, and what the SVD costs where it is needed.
///
/// **Reference**: De Lathauwer, De Moor, Vandewalle, *A multilinear singular value decomposition*, SIAM Journal on
/// Matrix Analysis and Applications 21 (2000); Kolda and Bader, *Tensor decompositions and applications*, SIAM Review
/// 51 (2009), section 4.2.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{Tensor, decomp::Hosvd};
///
/// let x = Tensor::<f64, _>::normal([6, 5, 4], &mut ChaCha8Rng::seed_from_u64(0))?;
/// // At full ranks nothing is lost, and the core is all-orthogonal.
/// let fit = Hosvd::ranks([6, 5, 4]).fit(&x)?;
/// assert!(fit.relative_error < 1e-14);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Hosvd {
    target: Target,
    method: Method,
}

impl Hosvd {
    /// One rank for each mode.
    pub fn ranks(ranks: impl Into<Vec<usize>>) -> Self {
        Self::target(Target::Ranks(ranks.into()))
    }

    /// A relative error that the result is guaranteed to meet: each mode's tail gets an equal share of its square.
    pub fn tolerance(tolerance: f64) -> Self {
        Self::target(Target::Tolerance(tolerance))
    }

    /// Either of the two, chosen at run time.
    pub fn target(target: Target) -> Self {
        Self { target, method: Method::Auto }
    }

    /// How singular vectors are found; see [`Method`].
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Decomposes `x`.
    ///
    /// # Errors
    /// As [`StHosvd::fit`](super::StHosvd::fit).
    pub fn fit<T: Scalar, D: Dimension>(&self, x: &Tensor<T, D>) -> Result<Fit<Tucker<T, D>>> {
        self.fit_with(x, unwatched)
    }

    /// The same, calling `watch` after every mode.
    ///
    /// # Errors
    /// As [`fit`](Hosvd::fit), and [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted) where `watch` breaks off.
    pub fn fit_with<T: Scalar, D: Dimension>(
        &self,
        x: &Tensor<T, D>,
        mut watch: impl FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Fit<Tucker<T, D>>> {
        self.target.check::<T>("Hosvd::fit", x.shape())?;
        let x = &x.exact()?;
        within("Hosvd::fit", &self.target, self.method, |method, hair| self.attempt(x, method, hair, &mut watch))
    }

    fn attempt<T: Scalar, D: Dimension>(
        &self,
        x: &Tensor<T, D>,
        method: Method,
        hair: f64,
        watch: &mut impl FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Fit<Tucker<T, D>>> {
        let mut scale = 1.0;
        let mut norm = 0.0;
        let mut factors: Vec<Tensor<T, Ix2>> = Vec::with_capacity(x.order());
        for mode in 0..x.order() {
            let want = match &self.target {
                Target::Ranks(ranks) => Want::Rank(ranks[mode]),
                Target::Tolerance(tolerance) => Want::Share(tolerance.powi(2) / x.order() as f64),
            };
            let mut found = leading(x, mode, want, method, scale)?;
            if mode == 0 && needs_scaling(x, &found)? {
                scale = 1.0 / x.max_abs()?.max(f64::MIN_POSITIVE);
                found = leading(x, mode, want, method, scale)?;
            }
            let rank = match &self.target {
                Target::Ranks(ranks) => ranks[mode],
                Target::Tolerance(tolerance) => {
                    found.rank_within(tolerance.powi(2) * found.total / x.order() as f64 * (1.0 - hair))
                }
            };
            norm = found.total.sqrt() / scale;
            factors.push(found.factor(rank)?);
            if watch(&Progress { done: mode + 1, total: x.order(), relative_error: None }).is_break() {
                return Err(interrupted("Hosvd::fit"));
            }
        }
        check_norm("Hosvd::fit", x, norm)?;
        let tucker = Tucker::project(x, factors)?;
        let relative_error = tucker.error_of_projection(x, norm)?;
        Ok(Fit { decomposition: tucker, relative_error, history: Vec::new(), stopped: Stop::Direct })
    }
}

/// Whether the squares of a tensor are out of range although it is finite and not zero; an error where it is not finite.
pub(super) fn needs_scaling<T: Scalar, D: Dimension>(x: &Tensor<T, D>, found: &Leading<T, D>) -> Result<bool> {
    if found.total.is_finite() && found.total >= 1e-280 {
        return Ok(false);
    }
    x.check_finite("fit")?;
    Ok(x.max_abs()? > 0.0)
}
