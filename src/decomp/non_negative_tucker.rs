//! Tucker with core and factors that are not negative.

use super::{
    Fit, Progress, StHosvd, Tucker,
    fit::{Sweeps, best_of, resolved, unwatched},
    missing::Observed,
    non_negative_sweep::State,
    scale::{check_norm, divided, unit},
    target::{check_not_empty, check_ranks},
};
use crate::{
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Dimension, Ix2};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::ops::ControlFlow;

const NAME: &str = "NonNegativeTucker::fit";

/// Where a non-negative Tucker decomposition starts from.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
// There is one a solver: a box would only be in the way.
#[allow(clippy::large_enum_variant)]
pub enum NonNegativeStart<T: Scalar> {
    /// Factors and core uniform on [0, 1), from the seed, scaled to the norm of X.
    #[default]
    Random,
    /// The absolute values of ST-HOSVD's factors and core.
    Hosvd,
    /// A given decomposition without negative entries; one of fixed order goes through [`into_dyn`](Tucker::into_dyn).
    Given(Tucker<T>),
}

/// Non-negative Tucker: a core seen through one matrix per mode, all of them without negative entries.
///
/// $$ \min_{G \ge 0, \thinspace A_n \ge 0} \lVert X - G \times_0 A_0 \times_1 A_1 \cdots \times_{N-1} A_{N-1} \rVert $$
///
/// Parts only add up, so that factors read as parts (spectra, topics, faces' features), and the core says which of
/// them go together. With all but one of core and factors fixed this is non-negative least squares:
///
/// ```text
/// repeat:  for n = 0 .. N-1:
///              Y = X x_m A_m^T for all m but n                      (a dimension tree, as in Hooi)
///              M = Y_(n) G_(n)^T,  H = (G x_m A_m^T A_m for all m but n)_(n) G_(n)^T
///              A_n = argmin over A >= 0 of tr(A H A^T) / 2 - tr(A M^T)   by coordinate descent, row by row
///              columns of A_n to norm 1, the norms into G
///              G: 20 steps of an accelerated projected gradient with step 1 / prod_n (largest row sum of A_n^T A_n)
///          stop when the relative error changes by less than 1e-8, or after 100 sweeps
/// ```
///
/// No step raises the error: coordinate descent never does, and of the steps for the core (FISTA, which may) the last
/// one counts only where it is below the first, which is a plain projected gradient step. After a sweep the error
/// follows from $\lVert X \rVert^2 - 2 \langle G, X \times_n A_n^T \rangle + \langle G, G \times_n A_n^T A_n \rangle$,
/// without a pass over X; a final error that this difference doesn't resolve is measured on the residual.
///
/// - It finds a local minimum that depends on the start: [`starts`](NonNegativeTucker::starts) runs several and keeps the best. It may need hundreds of sweeps where columns are close to
///   collinear: look at [`history`](Fit#structfield.history).
/// - X may have negative entries. They are fitted in the sense of least squares like all others, which at best gives 0.
/// - A column that becomes all zero leaves its part of the core as it is until it is worth something again, and so does
///   a zero slice of the core with its column. What is zero in the end stays in the result as a zero column with a zero slice of the core.
/// - Where X has so many negative entries that all columns of a mode become zero at once, nothing tells the other modes what they could be worth:
///   the fit ends there, at 0 and with a relative error of 1. Another seed may do better, and so may [`Hosvd`](NonNegativeStart::Hosvd).
///
/// **Cost** of a sweep: two passes over X, $2 J |X|$ flops each, J the rank of the mode projected first (|X| counts
/// entries), and $40 N \sum_n J_n \prod_n J_n$ for the core. **Memory**: X and its projection on half of the factors.
///
/// **Reference**: Kim and Choi, *Nonnegative Tucker decomposition*, CVPR (2007); Phan and Cichocki, *Extended HALS
/// algorithm for nonnegative Tucker decomposition and its applications for multiway analysis and classification*,
/// Neurocomputing 74 (2011); for the steps of the core Beck and Teboulle, *A fast iterative shrinkage-thresholding
/// algorithm for linear inverse problems*, SIAM Journal on Imaging Sciences 2 (2009).
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{Tensor, decomp::{NonNegativeTucker, Tucker}};
///
/// let rng = &mut ChaCha8Rng::seed_from_u64(3);
/// let core = Tensor::<f64, _>::uniform([2, 2, 2], rng)?;
/// let factors = vec![Tensor::uniform([8, 2], rng)?, Tensor::uniform([9, 2], rng)?, Tensor::uniform([10, 2], rng)?];
/// let x = Tucker::new(core, factors)?.reconstruct()?;
///
/// let fit = NonNegativeTucker::ranks([2, 2, 2]).seed(1).sweeps(300).fit(&x)?;
/// assert!(fit.relative_error < 1e-2);
/// assert!(fit.core().min()? >= 0.0 && fit.factors()[0].min()? >= 0.0);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct NonNegativeTucker<T: Scalar = f64> {
    ranks: Vec<usize>,
    sweeps: Sweeps,
    start: NonNegativeStart<T>,
    seed: u64,
    starts: usize,
    skip_nan: bool,
}

impl<T: Scalar> NonNegativeTucker<T> {
    /// One rank for each mode. By default from random numbers, at most 100 sweeps, until one changes the relative error
    /// by less than 1e-8.
    pub fn ranks(ranks: impl Into<Vec<usize>>) -> Self {
        let sweeps = Sweeps { most: 100, change: Some(1e-8) };
        Self { ranks: ranks.into(), sweeps, start: NonNegativeStart::Random, seed: 0, starts: 1, skip_nan: false }
    }

    /// At most this many sweeps.
    pub fn sweeps(mut self, most: usize) -> Self {
        self.sweeps.most = most;
        self
    }

    /// Exactly this many sweeps, converged or not.
    pub fn exactly(mut self, sweeps: usize) -> Self {
        self.sweeps = Sweeps { most: sweeps, change: None };
        self
    }

    /// Stop when a sweep changes the relative error by less than this; NaN is an error of the fit.
    pub fn until_change(mut self, change: f64) -> Self {
        self.sweeps.change = Some(change);
        self
    }

    /// Where to start from.
    pub fn start(mut self, start: NonNegativeStart<T>) -> Self {
        self.start = start;
        self
    }

    /// Fixes every random number (0 by default).
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Runs from this many starts, the first as [`start`](NonNegativeTucker::start) says and the others random with the following
    /// seeds, and keeps the one with the smallest error.
    pub fn starts(mut self, n: usize) -> Self {
        self.starts = n.max(1);
        self
    }

    /// Entries that are NaN are missing: the fit is to the known entries, and so is the relative error.
    ///
    /// What is missing is filled, with the mean of what is known (or with a given start), and after every sweep with
    /// what the decomposition says there (expectation-maximisation). The error over the known entries never rises from
    /// sweep to sweep. Convergence gets slower the more is missing: then allow more
    /// [`sweeps`](NonNegativeTucker::sweeps), and leave [`until_change`](NonNegativeTucker::until_change) small.
    /// A sweep costs one reconstruction more, about $2 J |X|$ flops, and some passes over tensors of the size of X; three
    /// of these are held besides. Where nothing is missing the result is bit for bit the ordinary one.
    ///
    /// Reference: Walczak and Massart, *Dealing with missing data: part I*, Chemometrics and Intelligent Laboratory
    /// Systems 58 (2001); Andersson and Bro, *Improving the speed of multi-way algorithms: part I, Tucker3*, the same
    /// journal 42 (1998).
    pub fn skip_nan(mut self) -> Self {
        self.skip_nan = true;
        self
    }

    /// Decomposes `x`. The factors' columns have norm 1, or are zero.
    ///
    /// # Errors
    /// [`ErrorKind::Rank`] for ranks that do not fit the shape, [`ErrorKind::Value`] for entries that are not finite
    /// (the first is named) or have a norm beyond `T`, and for a given start with such or with negative entries,
    /// [`ErrorKind::Shape`] for an empty tensor or a given start that does not fit, [`ErrorKind::Convergence`] for one too
    /// large to compute with. With
    /// [`skip_nan`](NonNegativeTucker::skip_nan), [`ErrorKind::Value`] where all entries are missing at an index of a
    /// mode.
    pub fn fit<D: Dimension>(&self, x: &Tensor<T, D>) -> Result<Fit<Tucker<T, D>>> {
        self.fit_with(x, unwatched)
    }

    /// The same, calling `watch` after every sweep; where it breaks off, the result is that of the last sweep.
    ///
    /// # Errors
    /// As [`fit`](NonNegativeTucker::fit).
    pub fn fit_with<D: Dimension>(
        &self,
        x: &Tensor<T, D>,
        watch: impl FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Fit<Tucker<T, D>>> {
        check_not_empty(NAME, x.shape())?;
        check_ranks(NAME, &self.ranks, x.shape())?;
        let x = x.exact()?;
        let observed = if self.skip_nan { Observed::new(NAME, &x)? } else { None };
        let known = observed.as_ref().map_or(&x, |o| &o.x);
        let norm = known.norm()?;
        check_norm(NAME, known, norm)?;
        let unit = unit::<T>(norm);
        let norm = norm / unit;
        let observed = observed.map(|o| o.divided(unit)).transpose()?;
        let x = observed.as_ref().map_or_else(|| divided(&x, unit), |o| Ok(o.x.clone()))?;
        best_of(self.starts, self.sweeps.most, watch, |attempt, watch| {
            self.run(attempt, x.clone(), observed.as_ref(), (norm, unit), watch)
        })
    }

    /// From one start, for X divided by its unit.
    fn run<D: Dimension>(
        &self,
        attempt: usize,
        mut x: Tensor<T, D>,
        observed: Option<&Observed<T, D>>,
        (norm, unit): (f64, f64),
        watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Fit<Tucker<T, D>>> {
        let random = NonNegativeStart::Random;
        let start = if attempt == 0 { &self.start } else { &random };
        let seed = self.seed.wrapping_add(attempt as u64);
        let mut state = match observed {
            None => self.first(&x, (start, seed), norm, unit)?,
            Some(observed) => {
                x = observed.filled_with_mean()?;
                let state = self.first(&x, (start, seed), x.norm()?, unit)?;
                if let NonNegativeStart::Given(_) = start {
                    x = observed.filled(&state.tucker()?.reconstruct()?)?.0;
                }
                state
            }
        };
        let relative = |error: f64| if norm > 0.0 { error / norm } else { 0.0 };
        let (history, stopped) = self.sweeps.run(watch, || {
            let beyond = state.sweep(&x)?;
            // The one number of a sweep that the host waits for.
            let Some(observed) = observed else {
                return Ok(relative((norm * norm + beyond.to_vec()?[0]).max(0.0).sqrt()));
            };
            let (filled, error) = observed.filled(&state.tucker()?.multiplied()?)?;
            x = filled;
            Ok(relative(error))
        })?;
        let tucker = state.tucker()?;
        let relative_error = match (observed, history.last()) {
            (None, Some(&error)) if error > resolved::<T>() => error,
            (None, _) => tucker.error(&x)?,
            (Some(_), Some(&error)) => error,
            (Some(observed), None) => relative(observed.filled(&tucker.reconstruct()?)?.1),
        };
        Ok(Fit { decomposition: tucker.scale_core(unit)?, relative_error, history, stopped })
    }

    /// What to start from, for X divided by `unit`, which is of that norm.
    fn first<D: Dimension>(
        &self,
        x: &Tensor<T, D>,
        (start, seed): (&NonNegativeStart<T>, u64),
        norm: f64,
        unit: f64,
    ) -> Result<State<T, D>> {
        let (core, factors) = match start {
            NonNegativeStart::Random => {
                let rng = &mut ChaCha8Rng::seed_from_u64(seed);
                let sizes = x.shape().iter().zip(&self.ranks);
                let factors = sizes
                    .map(|(&n, &rank)| Tensor::<T, Ix2>::uniform([n, rank], rng)?.to_device(x.device()))
                    .collect::<Result<_>>()?;
                let core = Tensor::uniform(self.ranks.clone(), rng)?.into_order::<D>()?.to_device(x.device())?;
                let start = Tucker::new(core, factors)?;
                let length = start.norm()?;
                let (core, factors) = start.into_parts();
                (core.cast::<f64>()?.scale(if length > 0.0 { norm / length } else { 1.0 })?, factors)
            }
            NonNegativeStart::Hosvd => {
                let (core, factors) = StHosvd::ranks(self.ranks.clone()).fit(x)?.into_inner().into_parts();
                let factors = factors.iter().map(Tensor::abs).collect::<Result<_>>()?;
                (core.abs()?.cast()?, factors)
            }
            NonNegativeStart::Given(start) => {
                self.check_start(x, start)?;
                let core = start.core().exact()?.cast::<f64>()?.scale(1.0 / unit)?.into_order()?;
                (core, start.factors().iter().map(Tensor::exact).collect::<Result<_>>()?)
            }
        };
        State::new(core, factors)
    }

    fn check_start<D: Dimension>(&self, x: &Tensor<T, D>, start: &Tucker<T>) -> Result<()> {
        const NAME: &str = "NonNegativeTucker::start";
        if start.shape() != x.shape() || start.ranks() != self.ranks {
            let message = format!(
                "a start of shape {:?} and ranks {:?} for a tensor of shape {:?} and ranks {:?}",
                start.shape(),
                start.ranks(),
                x.shape(),
                self.ranks
            );
            return Err(Error::shape(NAME, message));
        }
        x.device().check_same(start.core().device(), NAME)?;
        start.core().check_finite(NAME)?;
        start.factors().iter().try_for_each(|f| f.check_finite(NAME))?;
        let least = start.factors().iter().try_fold(start.core().min()?, |least, f| Ok(f.min()?.min(least)))?;
        if least < 0.0 {
            let message = format!("a start with a negative entry, {least}; none may be");
            return Err(Error::new(ErrorKind::Value, NAME, message));
        }
        Ok(())
    }
}
