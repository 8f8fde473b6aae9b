//! CP by alternating least squares.

use super::{
    Cp, Fit, Progress,
    cp_sweep::{Problem, State},
    fit::{Sweeps, best_of, resolved, unwatched},
    leading::{Method, Want, leading},
    missing::Observed,
    scale::{check_norm, divided, unit},
    target::check_not_empty,
    tucker::unit_columns,
};
use crate::{
    algebra::{MttkrpHalf as Half, check_factors},
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Dimension, Ix2};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::ops::ControlFlow;

/// Where CP-ALS starts from.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum CpStart<T: Scalar> {
    /// Factors uniform on [0, 1), from the seed.
    #[default]
    Random,
    /// Leading left singular vectors of the unfoldings; columns beyond a mode's size are random.
    Hosvd,
    /// Given factors, `I_n x R`.
    Given(Vec<Tensor<T, Ix2>>),
}

/// CP by alternating least squares: a tensor as a sum of R outer products.
///
/// $$ \min \thinspace \Big\lVert X - \sum_{r=1}^{R} w_r \thinspace a_r^{(0)} \circ a_r^{(1)} \circ \cdots \circ a_r^{(N-1)} \Big\rVert $$
///
/// With all factors but $A_n$ fixed this is linear least squares, whose solution needs the MTTKRP of X and an R x R
/// matrix:
///
/// $$ A_n = X_{(n)} \big(A_0 \odot \cdots \odot A_{N-1}\big) V^{-1}, \qquad V = A_0^T A_0 \ast \cdots \ast A_{N-1}^T A_{N-1}, $$
///
/// both products without mode n ($\odot$ is the Khatri-Rao, $\ast$ the entrywise product).
///
/// ```text
/// repeat:  for n = 0 .. N-1:  M = MTTKRP(X, n);  A_n = M V^-1;  w = norms of the columns of A_n;  A_n = A_n / w
///          stop when the relative error changes by less than 1e-8, or after 100 sweeps
/// sort the components by weight, fix their signs
/// ```
///
/// Each update is exact, so the error never rises. After a sweep it follows from $\lVert X - \hat X \rVert^2 = \lVert X
/// \rVert^2 - 2 \langle X, \hat X \rangle + \lVert \hat X \rVert^2$, whose terms are by-products, without a pass over
/// X; where components nearly cancel, so that this difference is noise, it is measured on the residual.
///
/// - MTTKRP runs on a *dimension tree*: the modes are split in two halves, and X is contracted with each half once a
///   sweep, for tensors of any order.
/// - V is solved by Cholesky in doubles, and where that fails or is close to it (collinear components) by the
///   eigenvalues of V with the vanishing ones left out.
///
/// **Cost** of a sweep: $4 R |X|$ flops (|X| counts entries) and two passes over X, then smaller terms. **Memory**: X
/// (a strided one is copied), and R times the larger half's entries.
///
/// **Not negative.** With [`non_negative`](CpAls::non_negative) a factor is the least-squares one among those without negative entries. Its rows
/// are separate problems, each solved by coordinate descent from where the row is: entry after entry goes where the error is least or to zero, in
/// rounds, until one gains less than a millionth of what the first did. That is HALS with several rounds a sweep, and a zero is exactly zero. A
/// column that becomes zero starts again from equal entries of weight zero, so that a component can come back; one that is not needed ends with
/// weight 0. Where all factors are so, components cannot cancel, and there is always a best approximation (Lim and Comon, Journal of
/// Chemometrics 23, 2009). Cost: $2 R^2 I_n$ flops more for each round.
///
/// **Missing entries.** With [`skip_nan`](CpAls::skip_nan) the sum of squares runs over the known entries, mask W, and each row i of a factor has normal
/// equations of its own:
///
/// $$ a_i H_i = m_i, \qquad H_i = \sum_{j, k, ..} W_{ijk..} \thinspace z_{jk..}^T z_{jk..}, \qquad z_{jk..} = b_j \ast c_k \ast \cdots $$
///
/// The entries of all $H_i$ are one MTTKRP of W, with the products of the factors' columns by twos: no entry is guessed and no imputation
/// iterated, so a sweep gains as much as one on whole data. $H_i$ is solved by Cholesky in doubles; a component that the known entries of a row say
/// nothing of keeps its value there. Cost: $2 R (R + 1) |X|$ flops more, and two passes over W. Memory: W, as large as X, and $R (R + 1) / 2$ times
/// the larger half's entries.
///
/// ALS finds a local minimum that depends on the start; [`starts`](CpAls::starts) runs several and keeps the best. It
/// may crawl for many sweeps where components are nearly collinear: look at
/// [`history`](super::Fit#structfield.history). Some tensors have no best approximation of a given rank (two components
/// grow and cancel); huge weights of opposite sign are the sign of it.
///
/// **Reference**: Carroll and Chang, Psychometrika 35 (1970); Harshman, UCLA Working Papers in Phonetics 16 (1970);
/// Kolda and Bader, SIAM Review 51 (2009), section 3.4; for the dimension tree Phan, Tichavsky, Cichocki, *Fast
/// alternating LS algorithms for high order CANDECOMP/PARAFAC tensor factorizations*, IEEE Transactions on Signal
/// Processing 61 (2013); for non-negative factors Cichocki and Phan, IEICE Transactions on Fundamentals E92-A (2009), and Gillis and Glineur,
/// *Accelerated multiplicative updates and hierarchical ALS algorithms for nonnegative matrix factorization*, Neural Computation 24 (2012); for missing
/// entries Tomasi and Bro, *PARAFAC and missing values*, Chemometrics and Intelligent Laboratory Systems 75 (2005).
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{Tensor, decomp::{Cp, CpAls}};
///
/// let rng = &mut ChaCha8Rng::seed_from_u64(3);
/// let factors = vec![Tensor::<f64, _>::uniform([6, 2], rng)?, Tensor::uniform([7, 2], rng)?, Tensor::uniform([8, 2], rng)?];
/// let x = Cp::<_, ndarray::Ix3>::new(Tensor::ones([2])?, factors)?.reconstruct()?;
/// let fit = CpAls::rank(2).seed(1).sweeps(500).fit(&x)?;
/// assert!(fit.relative_error < 1e-3);
///
/// // One entry is not known: the other 335 say what it is.
/// let holes = x.map(|v| if v == x.get(&[2, 3, 4]).unwrap_or(0.0) { f64::NAN } else { v })?;
/// let fit = CpAls::rank(2).non_negative().skip_nan().seed(1).sweeps(500).fit(&holes)?;
/// assert!((fit.get(&[2, 3, 4])? - x.get(&[2, 3, 4])?).abs() < 1e-2);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct CpAls<T: Scalar = f64> {
    rank: usize,
    sweeps: Sweeps,
    start: CpStart<T>,
    seed: u64,
    starts: usize,
    non_negative: NonNegative,
    skip_nan: bool,
    fixed: Vec<usize>,
}

impl<T: Scalar> CpAls<T> {
    /// The number of components. By default one random start, at most 100 sweeps, until one changes the relative error by less than 1e-8.
    pub fn rank(rank: usize) -> Self {
        Self {
            rank,
            sweeps: Sweeps { most: 100, change: Some(1e-8) },
            start: CpStart::Random,
            seed: 0,
            starts: 1,
            non_negative: NonNegative::None,
            skip_nan: false,
            fixed: Vec::new(),
        }
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
    pub fn start(mut self, start: CpStart<T>) -> Self {
        self.start = start;
        self
    }

    /// Fixes every random number (0 by default).
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Runs from this many starts, the first as [`start`](CpAls::start) says and the others random with the following seeds, and keeps
    /// the one with the smallest error.
    pub fn starts(mut self, n: usize) -> Self {
        self.starts = n.max(1);
        self
    }

    /// No factor may have a negative entry, nor then a weight: amounts, spectra, counts.
    pub fn non_negative(mut self) -> Self {
        self.non_negative = NonNegative::All;
        self
    }

    /// The factors of these modes may not have negative entries, the others may.
    pub fn non_negative_modes(mut self, modes: impl Into<Vec<usize>>) -> Self {
        self.non_negative = NonNegative::Modes(modes.into());
        self
    }

    /// Entries that are NaN are missing: the error is over the others, and the decomposition says what the missing ones would be. Without this
    /// they are an error.
    pub fn skip_nan(mut self) -> Self {
        self.skip_nan = true;
        self
    }

    /// The factors of these modes stay as [`start`](CpAls::start) gives them; the others are found. So a sample is described by parts that are
    /// known: fit what new data have in common with a decomposition of old ones. Components keep their order and these factors their
    /// scale: their norms are not in the weights. With one mode left to find, one sweep is the solution.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, decomp::{CpAls, CpStart}};
    ///
    /// let (spectra, times) = (Tensor::from(array![[1.0, 0.0], [2.0, 1.0], [0.0, 3.0]]), Tensor::from(array![[1.0, 1.0], [0.5, 2.0]]));
    /// let amounts = Tensor::from(array![[2.0, 1.0], [0.0, 4.0]]);
    /// let x = Tensor::from_fn([2, 3, 2], |i| {
    ///     let at = |f: &Tensor<f64, ndarray::Ix2>, n: usize, r: usize| f.get(&[n, r]).unwrap();
    ///     (0..2).map(|r| at(&amounts, i[0], r) * at(&spectra, i[1], r) * at(&times, i[2], r)).sum()
    /// })?;
    /// let start = CpStart::Given(vec![Tensor::ones([2, 2])?, spectra, times]);
    /// let fit = CpAls::rank(2).start(start).fixed_modes([1, 2]).sweeps(1).fit(&x)?;
    /// let found = fit.factors()[0].mul(&fit.weights().insert_mode(0)?.into_order()?)?;
    /// assert!(found.sub(&amounts)?.max_abs()? < 1e-12);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    pub fn fixed_modes(mut self, modes: impl Into<Vec<usize>>) -> Self {
        self.fixed = modes.into();
        self
    }

    /// Decomposes `x`. The factors' columns have norm 1, the norms are the weights, components come in falling order of weight.
    ///
    /// # Errors
    /// [`ErrorKind::Rank`] for rank 0 or one that no tensor of this shape needs; [`ErrorKind::Value`] for entries that are not
    /// finite (the first is named), for an index of a mode at which every entry is missing, and for a start that is negative where it must not
    /// be, or too large to compute with; also for fixed modes without a given start, with a column of zeros, or where no mode is left to find;
    /// [`ErrorKind::Shape`] for an empty tensor, a given start that does not fit, or a mode that does not exist.
    pub fn fit<D: Dimension>(&self, x: &Tensor<T, D>) -> Result<Fit<Cp<T, D>>> {
        self.fit_with(x, unwatched)
    }

    /// The same, calling `watch` after every sweep; where it breaks off, the result is that of the last sweep.
    ///
    /// # Errors
    /// As [`fit`](CpAls::fit).
    pub fn fit_with<D: Dimension>(
        &self,
        x: &Tensor<T, D>,
        watch: impl FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Fit<Cp<T, D>>> {
        let fixed = self.check(x)?;
        let non_negative = self.non_negative.modes(x.shape())?;
        let x = x.exact()?.to_contiguous()?;
        let observed = if self.skip_nan { Observed::new("CpAls::fit", &x)? } else { None };
        let (x, mask) = observed.map_or((x, None), |o| (o.x, Some(o.mask)));
        let norm = x.norm()?;
        check_norm("CpAls::fit", &x, norm)?;
        let unit = unit::<T>(norm);
        let x = &divided(&x, unit)?;
        let problem = Problem { x, mask: mask.as_ref(), norm: norm / unit, unit, non_negative, fixed };
        best_of(self.starts, self.sweeps.most, watch, |attempt, watch| {
            self.run(&problem, self.first_factors(&problem, attempt)?, watch)
        })
    }

    /// Which factors stay, mode by mode.
    fn check<D: Dimension>(&self, x: &Tensor<T, D>) -> Result<Vec<bool>> {
        check_not_empty("CpAls::fit", x.shape())?;
        let most = x.len() / x.shape().iter().max().copied().unwrap_or(1);
        if self.rank == 0 || self.rank > most {
            let message = format!("rank {}: a tensor of shape {:?} takes ranks from 1 to {most}", self.rank, x.shape());
            return Err(Error::new(ErrorKind::Rank, "CpAls::fit", message));
        }
        let fixed = chosen("CpAls::fixed_modes", &self.fixed, x.shape())?;
        let wrong = |message: &str| Err(Error::new(ErrorKind::Value, "CpAls::fixed_modes", message));
        if !self.fixed.is_empty() && !matches!(self.start, CpStart::Given(_)) {
            return wrong("factors are to stay as they are, and none are given; give them with CpStart::Given");
        }
        if !fixed.contains(&false) {
            return wrong("the factors of all modes are to stay as they are: none is left to find");
        }
        Ok(fixed)
    }

    fn first_factors<D: Dimension>(&self, problem: &Problem<'_, T, D>, attempt: usize) -> Result<Vec<Tensor<T, Ix2>>> {
        let x = problem.x;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed.wrapping_add(attempt as u64));
        let mut random = |n: usize, columns: usize| Tensor::<T, Ix2>::uniform([n, columns], &mut rng);
        let factors = match &self.start {
            CpStart::Given(factors) if attempt == 0 => {
                check_factors("CpAls::start", x, factors)?;
                if factors[0].shape()[1] != self.rank {
                    let message =
                        format!("factors with {} columns given for rank {}", factors[0].shape()[1], self.rank);
                    return Err(Error::shape("CpAls::start", message));
                }
                for (mode, factor) in factors.iter().enumerate() {
                    factor.check_finite("CpAls::start")?;
                    if problem.non_negative[mode] && factor.min()? < 0.0 {
                        let message = format!("the given factor of mode {mode} has negative entries, and must not");
                        return Err(Error::new(ErrorKind::Value, "CpAls::start", message));
                    }
                }
                // The first one is found from the others, by products of them all and of their squares.
                let first = problem.first();
                let others = factors.iter().enumerate().filter(|(mode, _)| *mode != first);
                let size = others.map(|(_, f)| Ok(f.norm()?.max(1.0))).product::<Result<f64>>()?;
                if size * size > T::max_value().f64() {
                    let message = format!(
                        "the norms of the given factors but that of mode {first} multiply to {size:e}, whose square {} does not hold; scale them \
                         down",
                        T::DTYPE
                    );
                    return Err(Error::new(ErrorKind::Value, "CpAls::start", message));
                }
                factors.clone()
            }
            CpStart::Hosvd if attempt == 0 => (0..x.order())
                .map(|mode| {
                    let n = x.shape()[mode];
                    let kept = self.rank.min(n);
                    let vectors = leading(x, mode, Want::Rank(kept), Method::Auto, 1.0)?.factor(kept)?;
                    let vectors = vectors.to_device(x.device())?;
                    let vectors = if problem.non_negative[mode] { vectors.abs()? } else { vectors };
                    if kept == self.rank {
                        return Ok(vectors);
                    }
                    let rest = random(n, self.rank - kept)?.to_device(x.device())?;
                    Tensor::concat(&[&vectors, &rest], 1)
                })
                .collect::<Result<_>>()?,
            _ => {
                let random = |&n: &usize| random(n, self.rank)?.to_device(x.device());
                x.shape().iter().map(random).collect::<Result<_>>()?
            }
        };
        self.with_fixed(problem, factors)
    }

    /// The factors that stay, with columns of norm 1 in the place of what is there, and their norms in the first one that is found.
    fn with_fixed<D: Dimension>(
        &self,
        problem: &Problem<'_, T, D>,
        mut factors: Vec<Tensor<T, Ix2>>,
    ) -> Result<Vec<Tensor<T, Ix2>>> {
        for (mode, given) in self.given(problem) {
            let (columns, norms) = unit_columns(given)?;
            if let Some(column) = norms.to_vec()?.iter().position(|norm| norm.is_zero()) {
                let message = format!("column {column} of the factor of mode {mode} is zero, and is to stay so");
                return Err(Error::new(ErrorKind::Value, "CpAls::fixed_modes", message));
            }
            factors[mode] = columns;
            let first = problem.first();
            factors[first] = factors[first].mul(&norms)?;
        }
        Ok(factors)
    }

    /// The factors that stay, with their modes.
    fn given<'a, D: Dimension>(
        &'a self,
        problem: &'a Problem<'_, T, D>,
    ) -> impl Iterator<Item = (usize, &'a Tensor<T, Ix2>)> {
        let given = if let CpStart::Given(factors) = &self.start { &factors[..] } else { &[] };
        given.iter().enumerate().filter(|(mode, _)| problem.fixed[*mode])
    }

    fn run<D: Dimension>(
        &self,
        problem: &Problem<'_, T, D>,
        factors: Vec<Tensor<T, Ix2>>,
        watch: impl FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Fit<Cp<T, D>>> {
        let &Problem { x, mask, norm, unit, .. } = problem;
        let halves = Half::both(x.shape());
        let mut state = State::new(problem, factors)?;
        // The host waits for nothing anyway.
        let mut careful = x.device().is_cpu();
        let mut measured = false;
        let (history, stopped) = self.sweeps.run(watch, || {
            let before = state.clone();
            let mut found = state.sweep(problem, &halves, careful)?;
            if found.near_singular {
                careful = true;
                state = before;
                found = state.sweep(problem, &halves, careful)?;
            }
            // Components that nearly cancel are far larger than X, and so is the rounding of their inner products.
            measured = found.weights > 10.0 * norm;
            if measured {
                return Cp::new(state.weights.index_mode(0, 0)?, state.factors.clone())?.error_over(x, mask);
            }
            let squares = (norm * norm - 2.0 * found.inner + found.own).max(0.0);
            Ok(if norm > 0.0 { squares.sqrt() / norm } else { 0.0 })
        })?;
        let State { factors, weights, .. } = state;
        let cp = Cp::new(weights.index_mode(0, 0)?, factors)?;
        // A start is a decomposition of X as it was given.
        let cp = if history.is_empty() { cp.normalize()?.scale_weights(1.0 / unit)? } else { cp };
        let free = |&mode: &usize| !problem.non_negative[mode] && !problem.fixed[mode];
        let cp = if self.fixed.is_empty() { cp.sort()? } else { cp };
        let cp = cp.fix_signs_among(&(0..x.order()).filter(free).collect::<Vec<_>>())?;
        let relative_error = match history.last() {
            Some(&error) if error > resolved::<T>() && !measured => error,
            _ => cp.error_over(x, mask)?,
        };
        let mut cp = cp.scale_weights(unit)?;
        for (mode, given) in self.given(problem) {
            let (_, norms) = unit_columns(given)?;
            let mut factors = cp.factors().to_vec();
            factors[mode] = given.clone();
            cp = Cp::new(cp.weights().div(&norms.index_mode(0, 0)?)?, factors)?;
        }
        Ok(Fit { decomposition: cp, relative_error, history, stopped })
    }
}

/// Which factors must not be negative.
#[derive(Debug, Clone, PartialEq, Default)]
enum NonNegative {
    #[default]
    None,
    All,
    Modes(Vec<usize>),
}

impl NonNegative {
    /// Mode by mode.
    fn modes(&self, shape: &[usize]) -> Result<Vec<bool>> {
        match self {
            NonNegative::None => Ok(vec![false; shape.len()]),
            NonNegative::All => Ok(vec![true; shape.len()]),
            NonNegative::Modes(modes) => chosen("CpAls::non_negative_modes", modes, shape),
        }
    }
}

/// Mode by mode, whether it is among those named.
fn chosen(operation: &'static str, modes: &[usize], shape: &[usize]) -> Result<Vec<bool>> {
    if let Some(mode) = modes.iter().find(|&&mode| mode >= shape.len()) {
        let message = format!("mode {mode} does not exist in a tensor of shape {shape:?}");
        return Err(Error::shape(operation, message));
    }
    Ok((0..shape.len()).map(|mode| modes.contains(&mode)).collect())
}
