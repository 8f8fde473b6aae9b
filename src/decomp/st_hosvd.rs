//! ST-HOSVD: the sequentially truncated higher-order SVD.

use super::{
    Fit, Method, Progress, Stop, Target, Tucker,
    fit::unwatched,
    hosvd::needs_scaling,
    leading::{Leading, Want, leading},
    scale::check_norm,
};
use crate::{
    error::{Error, ErrorKind, Result},
    scalar::{DType, Scalar},
    tensor::Tensor,
};
use ndarray::{Dimension, Ix2};
use std::ops::ControlFlow;

/// The sequentially truncated HOSVD: Tucker to given ranks or to a guaranteed error, mostly in two passes over X.
///
/// $$ X \approx G \times_0 U_0 \times_1 U_1 \cdots \times_{N-1} U_{N-1}, \qquad U_n^T U_n = I. $$
///
/// Mode after mode: find the leading left singular vectors of the unfolding *of what is left*, keep as many as wanted,
/// and go on with what is left after projecting on them. Each truncation makes all later ones cheaper.
///
/// ```text
/// Y = X
/// for n in order:  U_n = leading left singular vectors of Y_(n);  Y = Y x_n U_n^T
/// for a tolerance: the same once more on the core Y, with what the tolerance still allows
/// G = Y
/// ```
///
/// The squared errors of the steps add up exactly,
///
/// $$ \lVert X - \hat X \rVert^2 = \sum_n \lVert Y_n - Y_n \times_n U_n U_n^T \rVert^2, $$
///
/// so that a **tolerance is a guarantee**: $\lVert X - \hat X \rVert \le \mathrm{tolerance} \thinspace \lVert X
/// \rVert$. With k modes to go, a mode may lose the k-th part of what may still be lost; what it does not use the next
/// ones may, and the rest trims the core. The error is checked at the end. Where rounding alone has broken the
/// tolerance, everything is done again by SVD, and if that does not do either the result is an error, not a
/// decomposition.
///
/// For given ranks the error is at most $\sqrt{N}$ times that of the best approximation with these ranks, mostly within
/// a percent of it; [`Hooi`](super::Hooi) improves on it.
///
/// **Order of modes.** For ranks, the order with the fewest flops, where it saves a fifth or more against 0, 1, ..; for
/// a tolerance, small modes first. [`order`](StHosvd::order) sets it. The result depends on it a little.
///
/// **Cost**: a mode takes $(I_n + 2 J_n) |Y|$ flops for the Gram matrix and the projection (|Y| counts the entries of
/// what is left) and $9 I_n^3$ for eigenvectors. X itself is read twice, for the first mode. **Memory**: X, the first
/// projection, which is $J_n / I_n$ of it, and the second. [`Method`] says how vectors are found, and what the SVD
/// costs where it is needed.
///
/// **Reference**: Vannieuwenhoven, Vandebril, Meerbergen, *A new truncation strategy for the higher-order singular
/// value decomposition*, SIAM Journal on Scientific Computing 34 (2012).
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{Tensor, decomp::StHosvd};
///
/// let x = Tensor::<f64, _>::normal([20, 30, 10], &mut ChaCha8Rng::seed_from_u64(0))?;
/// let fit = StHosvd::tolerance(0.5).fit(&x)?;
/// assert!(fit.relative_error <= 0.5);
/// let by_ranks = StHosvd::ranks([10, 15, 5]).fit(&x)?;
/// assert_eq!(by_ranks.core().shape(), &[10, 15, 5]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct StHosvd {
    target: Target,
    order: Option<Vec<usize>>,
    method: Method,
}

impl StHosvd {
    /// One rank for each mode.
    pub fn ranks(ranks: impl Into<Vec<usize>>) -> Self {
        Self::target(Target::Ranks(ranks.into()))
    }

    /// A relative error that the result is guaranteed to meet, between 0 and 1.
    pub fn tolerance(tolerance: f64) -> Self {
        Self::target(Target::Tolerance(tolerance))
    }

    /// Either of the two, chosen at run time.
    pub fn target(target: Target) -> Self {
        Self { target, order: None, method: Method::Auto }
    }

    /// The modes in the order in which they are truncated. By default the order that costs least: for ranks, the mode that shrinks most
    /// for its price first; for a tolerance, small modes first.
    pub fn order(mut self, modes: impl Into<Vec<usize>>) -> Self {
        self.order = Some(modes.into());
        self
    }

    /// How singular vectors are found; see [`Method`].
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Decomposes `x`.
    ///
    /// # Errors
    /// [`ErrorKind::Rank`] for ranks that do not fit the shape, [`ErrorKind::Value`] for a tolerance outside its range and for entries
    /// that are not finite (the first is named) or have a norm beyond `T`, [`ErrorKind::Shape`] for an empty tensor or an order that is
    /// no permutation, [`ErrorKind::Convergence`] where rounding in `T` does not let the tolerance be met.
    pub fn fit<T: Scalar, D: Dimension>(&self, x: &Tensor<T, D>) -> Result<Fit<Tucker<T, D>>> {
        self.fit_with(x, unwatched)
    }

    /// The same, calling `watch` after every mode.
    ///
    /// # Errors
    /// As [`fit`](StHosvd::fit), and [`ErrorKind::Interrupted`] where `watch` breaks off.
    pub fn fit_with<T: Scalar, D: Dimension>(
        &self,
        x: &Tensor<T, D>,
        mut watch: impl FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Fit<Tucker<T, D>>> {
        self.target.check::<T>("StHosvd::fit", x.shape())?;
        let order = self.mode_order(x.shape())?;
        let x = &x.exact()?;
        within("StHosvd::fit", &self.target, self.method, |method, hair| {
            let mut state = State::new(x.order(), hair);
            for (step, &mode) in order.iter().enumerate() {
                state.truncate(x, mode, order.len() - step, &self.target, method)?;
                let progress = Progress { done: step + 1, total: order.len(), relative_error: None };
                if watch(&progress).is_break() {
                    return Err(interrupted("StHosvd::fit"));
                }
            }
            if let Target::Tolerance(_) = self.target {
                state.trim_core(x)?;
            }
            state.finish(x)
        })
    }

    /// The factors alone, and the norm of X, for a solver that starts from them.
    pub(super) fn parts<T: Scalar, D: Dimension>(&self, x: &Tensor<T, D>) -> Result<(Vec<Tensor<T, Ix2>>, f64)> {
        self.target.check::<T>("fit", x.shape())?;
        let order = self.mode_order(x.shape())?;
        let mut state = State::new(x.order(), HAIR);
        for (step, &mode) in order.iter().enumerate() {
            state.truncate(x, mode, order.len() - step, &self.target, self.method)?;
        }
        Ok((state.factors.into_iter().flatten().collect(), state.total.sqrt() / state.scale))
    }

    fn mode_order(&self, shape: &[usize]) -> Result<Vec<usize>> {
        let Some(order) = &self.order else {
            return Ok(match &self.target {
                Target::Ranks(ranks) => cheapest_order(shape, ranks),
                Target::Tolerance(_) => {
                    let mut order: Vec<usize> = (0..shape.len()).collect();
                    order.sort_by_key(|&m| shape[m]);
                    order
                }
            });
        };
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if sorted.iter().copied().eq(0..shape.len()) {
            return Ok(order.clone());
        }
        let message = format!("{order:?} does not name each mode of shape {shape:?} once");
        Err(Error::shape("StHosvd::order", message))
    }
}

/// What share of a tolerance's budget is kept back for rounding.
const HAIR: f64 = 1e-6;

/// Runs a solver by a method; where rounding broke the tolerance, once more by SVD and with more kept back.
pub(super) fn within<M>(
    operation: &'static str,
    target: &Target,
    method: Method,
    mut attempt: impl FnMut(Method, f64) -> Result<Fit<M>>,
) -> Result<Fit<M>> {
    let fit = attempt(method, HAIR)?;
    let Target::Tolerance(tolerance) = *target else { return Ok(fit) };
    if fit.relative_error <= tolerance {
        return Ok(fit);
    }
    let fit = attempt(Method::Svd, 1e-3)?;
    if fit.relative_error <= tolerance {
        return Ok(fit);
    }
    let message = format!("reached {:.3e} instead of {tolerance:e}; use f64", fit.relative_error);
    Err(Error::new(ErrorKind::Convergence, operation, message))
}

pub(super) fn interrupted(operation: &'static str) -> Error {
    Error::new(ErrorKind::Interrupted, operation, "stopped by the progress callback before there was a result")
}

/// The order that costs least, counting Gram matrices (n^2 m flops) and projections (2 n m r) of what is left: all orders
/// for up to six modes, small modes first beyond.
fn cheapest_order(shape: &[usize], ranks: &[usize]) -> Vec<usize> {
    let n = shape.len();
    let mut order: Vec<usize> = (0..n).collect();
    if n > 6 {
        order.sort_by_key(|&m| shape[m]);
        return order;
    }
    let cost = |order: &[usize]| {
        let mut size: f64 = shape.iter().map(|&n| n as f64).product();
        order.iter().fold(0.0, |sum, &m| {
            let step = size * (shape[m] as f64 + 2.0 * ranks[m] as f64);
            size *= ranks[m] as f64 / shape[m] as f64;
            sum + step
        })
    };
    let natural = cost(&order);
    let mut best = (natural, order.clone());
    permutations(&mut order, 0, &mut |order| {
        let cost = cost(order);
        // Only a clear gain leaves the natural order, which is what readers and other libraries expect.
        if cost < best.0.min(natural * 0.8) {
            best = (cost, order.to_vec());
        }
    });
    best.1
}

fn permutations(items: &mut [usize], fixed: usize, visit: &mut impl FnMut(&[usize])) {
    if fixed == items.len() {
        return visit(items);
    }
    for i in fixed..items.len() {
        items.swap(fixed, i);
        permutations(items, fixed + 1, visit);
        items.swap(fixed, i);
    }
}

/// A tensor on its way to its core.
struct State<T: Scalar, D: Dimension> {
    /// What is left; `None` before the first mode, when it is X itself.
    rest: Option<Tensor<T, D>>,
    factors: Vec<Option<Tensor<T, Ix2>>>,
    /// Everything is computed for `scale` X, so that squares of extreme numbers stay representable.
    scale: f64,
    /// The squared norm of `scale` X, known after the first mode.
    total: f64,
    /// What the truncations lost of it.
    lost: f64,
    /// What they may lose; infinite for ranks.
    budget: f64,
    /// What share of the budget is kept back for the rounding of what follows.
    hair: f64,
}

impl<T: Scalar, D: Dimension> State<T, D> {
    fn new(order: usize, hair: f64) -> Self {
        let factors = (0..order).map(|_| None).collect();
        Self { rest: None, factors, scale: 1.0, total: 0.0, lost: 0.0, budget: f64::INFINITY, hair }
    }

    /// Truncates one mode; `left` modes, this one included, share what may still be lost.
    fn truncate(&mut self, x: &Tensor<T, D>, mode: usize, left: usize, target: &Target, method: Method) -> Result<()> {
        let first = self.rest.is_none();
        let y = self.rest.as_ref().unwrap_or(x);
        let want = match target {
            Target::Ranks(ranks) => Want::Rank(ranks[mode]),
            Target::Tolerance(tolerance) if first => Want::Share(tolerance.powi(2) / left as f64),
            Target::Tolerance(_) => Want::Share(if self.total > 0.0 {
                (self.budget - self.lost).max(0.0) / left as f64 / self.total
            } else {
                1.0
            }),
        };
        let mut found = leading(y, mode, want, method, self.scale)?;
        if first {
            if needs_scaling(x, &found)? {
                self.scale = 1.0 / x.max_abs()?.max(f64::MIN_POSITIVE);
                found = leading(y, mode, want, method, self.scale)?;
            }
            self.total = found.total;
            check_norm("StHosvd::fit", x, self.total.sqrt() / self.scale)?;
            if let Target::Tolerance(tolerance) = target {
                self.budget = tolerance.powi(2) * self.total * (1.0 - self.hair);
            }
        }
        match target {
            Target::Ranks(ranks) => self.apply(x, mode, ranks[mode], &found),
            Target::Tolerance(_) => {
                let allowed = (self.budget - self.lost).max(0.0) / left as f64;
                self.apply_within(x, mode, allowed, &found)
            }
        }
    }

    /// Keeps as few vectors as lose no more than `allowed`.
    ///
    /// What the spectrum says is only as exact as the Gram matrix: what was really lost is the difference of norms, where that is
    /// resolved at all, and one more vector is taken until it fits.
    fn apply_within(&mut self, x: &Tensor<T, D>, mode: usize, allowed: f64, found: &Leading<T, D>) -> Result<()> {
        let before = (self.rest.clone(), self.lost);
        let n = found.energies.len();
        let mut rank = found.rank_within(allowed);
        loop {
            self.apply(x, mode, rank, found)?;
            let resolved = allowed > 1e-10 * self.total && T::DTYPE == DType::F64;
            if !resolved || rank == n {
                return Ok(());
            }
            let kept = self.rest.as_ref().map_or(Ok(0.0), Tensor::norm)? * self.scale;
            let lost = (self.total - kept * kept).max(0.0);
            if lost - before.1 <= allowed {
                self.lost = lost;
                return Ok(());
            }
            rank += 1;
            (self.rest, self.lost) = before.clone();
        }
    }

    /// Projects on the first `rank` vectors.
    fn apply(&mut self, x: &Tensor<T, D>, mode: usize, rank: usize, found: &Leading<T, D>) -> Result<()> {
        let (factor, projected) = found.project(self.rest.as_ref().unwrap_or(x), mode, rank)?;
        self.lost += found.tail(rank);
        self.rest = Some(projected);
        self.factors[mode] = Some(factor);
        Ok(())
    }

    /// Spends what is left of the budget on the core: its own HOSVD, mode by mode, as long as a mode can give up something.
    fn trim_core(&mut self, x: &Tensor<T, D>) -> Result<()> {
        for mode in 0..x.order() {
            let left = (self.budget - self.lost).max(0.0);
            let Some(core) = &self.rest else { return Ok(()) };
            if core.shape()[mode] == 1 || left <= 1e-18 * self.total {
                continue;
            }
            let found = leading(core, mode, Want::Share(left / self.total), Method::Auto, self.scale)?;
            if found.rank_within(left) == core.shape()[mode] {
                continue;
            }
            let factor = self.factors[mode].clone();
            self.apply_within(x, mode, left, &found)?;
            // What was applied is a rotation of the core; the factor takes it in.
            if let (Some(factor), Some(rotation)) = (factor, &self.factors[mode]) {
                self.factors[mode] = Some(factor.matmul(rotation)?);
            }
        }
        Ok(())
    }

    fn finish(self, x: &Tensor<T, D>) -> Result<Fit<Tucker<T, D>>> {
        let core = self.rest.unwrap_or_else(|| x.clone());
        let factors = self.factors.into_iter().flatten().collect();
        let tucker = Tucker::new(core, factors)?;
        let norm = self.total.sqrt() / self.scale;
        let relative_error = tucker.error_of_projection(x, norm)?;
        Ok(Fit { decomposition: tucker, relative_error, history: Vec::new(), stopped: Stop::Direct })
    }
}
