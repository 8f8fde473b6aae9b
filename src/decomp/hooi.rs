//! HOOI: higher-order orthogonal iteration.

use super::{
    Fit, Progress, StHosvd, Tucker,
    fit::{Sweeps, unwatched},
    halves::{halves, project},
    leading::refine,
    missing::Observed,
    scale::{check_norm, divided, unit},
    target::{check_not_empty, check_ranks},
};
use crate::{
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Dimension, Ix2};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::ops::ControlFlow;

/// Steps of subspace iteration for each mode and sweep. Warm starts are close already; the sweeps do the rest.
const STEPS: usize = 2;

/// Where HOOI starts from.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum HooiStart<T: Scalar> {
    /// The factors of ST-HOSVD: nearly there.
    #[default]
    StHosvd,
    /// Random orthonormal factors.
    Random {
        /// Fixes them.
        seed: u64,
    },
    /// Given factors with orthonormal columns, `I_n x J_n`.
    Given(Vec<Tensor<T, Ix2>>),
}

/// Higher-order orthogonal iteration: the Tucker approximation of given ranks with the smallest error, by alternating
/// over the modes.
///
/// $$ \min_{U_n^T U_n = I} \lVert X - G \times_0 U_0 \cdots \times_{N-1} U_{N-1} \rVert, \qquad
/// G = X \times_0 U_0^T \cdots \times_{N-1} U_{N-1}^T. $$
///
/// With all factors but one fixed the best choice for that one is known, the leading left singular vectors of X
/// projected on the others:
///
/// ```text
/// repeat:  for n = 0 .. N-1:  Y = X x_m U_m^T for all m but n;  U_n = leading left singular vectors of Y_(n)
///          stop when the relative error changes by less than 1e-8, or after 50 sweeps
/// G = X x_0 U_0^T x_1 U_1^T ..
/// ```
///
/// The error falls monotonically, to a point where no single factor can be improved; nothing guarantees
/// that this is the best approximation of all. After a sweep it is $\sqrt{1 - \lVert G \rVert^2
/// / \lVert X \rVert^2}$, and needs no pass over X. Two things make a sweep cheap:
///
/// - *A dimension tree.* The modes are split in two halves; X is projected on all factors of one half once, and what is
///   left (J/I of X for each projected mode) serves all modes of the other half: two passes over X a sweep instead of
///   N.
/// - *Warm-started subspace iteration* instead of an SVD: $U_n$ is refined by two steps $U = \mathrm{orth}(Y_{(n)}
///   Y_{(n)}^T U)$, each of which never loses energy, because the U of the last sweep is nearly right.
///
/// **Cost** of a sweep: two passes over X, $2 J |X|$ flops each, J the rank of the mode projected first (|X| counts
/// entries), and smaller terms. The default start costs what [`StHosvd`] does. **Memory**: X and its projection on half
/// of the factors.
///
/// **Reference**: De Lathauwer, De Moor, Vandewalle, *On the best rank-1 and rank-(R1, .., RN) approximation of
/// higher-order tensors*, SIAM Journal on Matrix Analysis and Applications 21 (2000); Kroonenberg and De Leeuw,
/// Psychometrika 45 (1980); Kolda and Bader, SIAM Review 51 (2009), section 4.2.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{Tensor, decomp::{Hooi, StHosvd}};
///
/// let x = Tensor::<f64, _>::normal([12, 10, 8], &mut ChaCha8Rng::seed_from_u64(0))?;
/// let start = StHosvd::ranks([3, 3, 3]).fit(&x)?;
/// let fit = Hooi::ranks([3, 3, 3]).sweeps(20).fit(&x)?;
/// assert!(fit.relative_error <= start.relative_error);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Hooi<T: Scalar = f64> {
    ranks: Vec<usize>,
    sweeps: Sweeps,
    start: HooiStart<T>,
    skip_nan: bool,
}

impl<T: Scalar> Hooi<T> {
    /// One rank for each mode. By default at most 50 sweeps, until one changes the relative error by less than 1e-8.
    pub fn ranks(ranks: impl Into<Vec<usize>>) -> Self {
        let sweeps = Sweeps { most: 50, change: Some(1e-8) };
        Self { ranks: ranks.into(), sweeps, start: HooiStart::StHosvd, skip_nan: false }
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
    pub fn start(mut self, start: HooiStart<T>) -> Self {
        self.start = start;
        self
    }

    /// Entries that are NaN are missing: the fit is to the known entries, and so is the relative error.
    ///
    /// What is missing is filled, with the mean of what is known to find a start, from there on with what the
    /// decomposition says there, anew after every sweep (expectation-maximisation). The error over the known entries
    /// never rises. Convergence gets slower the more is missing: then allow more [`sweeps`](Hooi::sweeps), and leave
    /// [`until_change`](Hooi::until_change) small. A sweep costs one reconstruction more, about $2 J |X|$ flops, and
    /// some passes over tensors of the size of X; three of these are held besides. Where nothing is missing the result
    /// is bit for bit the ordinary one.
    ///
    /// Reference: Walczak and Massart, *Dealing with missing data: part I*, Chemometrics and Intelligent Laboratory
    /// Systems 58 (2001); Andersson and Bro, *Improving the speed of multi-way algorithms: part I, Tucker3*, the same
    /// journal 42 (1998).
    ///
    /// ```
    /// use tenfold::{Tensor, decomp::Hooi};
    ///
    /// let known = |i: &[usize]| (i[0] + 2 * i[1] + 3 * i[2]) % 7 != 0;
    /// let entry = |i: &[usize]| (1.0 + i[0] as f64) * (2.0 + i[1] as f64) * (9.0 - i[2] as f64);
    /// let x = Tensor::from_fn([8, 7, 6], |i| if known(i) { entry(i) } else { f64::NAN })?;
    /// let fit = Hooi::ranks([1, 1, 1]).skip_nan().sweeps(200).fit(&x)?;
    /// assert!(fit.relative_error < 1e-6);
    /// assert!((fit.get(&[0, 0, 0])? / 18.0 - 1.0).abs() < 1e-5);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    pub fn skip_nan(mut self) -> Self {
        self.skip_nan = true;
        self
    }

    /// Decomposes `x`.
    ///
    /// # Errors
    /// As [`StHosvd::fit`], and [`ErrorKind::Shape`](crate::ErrorKind::Shape) where a given start does not fit. With
    /// [`skip_nan`](Hooi::skip_nan), [`ErrorKind::Value`](crate::ErrorKind::Value) where all entries are missing at an
    /// index of a mode.
    pub fn fit<D: Dimension>(&self, x: &Tensor<T, D>) -> Result<Fit<Tucker<T, D>>> {
        self.fit_with(x, unwatched)
    }

    /// The same, calling `watch` after every sweep; where it breaks off, the result is that of the last sweep.
    ///
    /// # Errors
    /// As [`fit`](Hooi::fit).
    pub fn fit_with<D: Dimension>(
        &self,
        x: &Tensor<T, D>,
        watch: impl FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Fit<Tucker<T, D>>> {
        check_not_empty("Hooi::fit", x.shape())?;
        check_ranks("Hooi::fit", &self.ranks, x.shape())?;
        let x = &x.exact()?;
        if self.skip_nan
            && let Some(observed) = Observed::new("Hooi::fit", x)?
        {
            return self.fit_known(observed, watch);
        }
        let (mut factors, norm) = self.first_factors(x)?;
        check_norm("Hooi::fit", x, norm)?;
        let unit = unit::<T>(norm);
        let (x, norm) = (&divided(x, unit)?, norm / unit);
        let mut core = None;
        let (history, stopped) = self.sweeps.run(watch, || {
            let now = self.sweep(x, &mut factors)?;
            // The one number of a sweep that the host waits for. Factors were not looked at.
            let kept = now.norm()?;
            if !kept.is_finite() {
                now.check_finite("Hooi::fit")?;
            }
            let share = if norm > 0.0 { kept / norm } else { 1.0 };
            core = Some(now);
            Ok(((1.0 - share) * (1.0 + share)).max(0.0).sqrt())
        })?;
        let tucker = match core {
            Some(core) => Tucker::new(core, factors)?,
            None => Tucker::project(x, factors)?,
        };
        let relative_error = tucker.error_of_projection(x, norm)?;
        let tucker = tucker.scale_core(unit)?;
        Ok(Fit { decomposition: tucker, relative_error, history, stopped })
    }

    /// One sweep over all modes. Gives the core.
    fn sweep<D: Dimension>(&self, x: &Tensor<T, D>, factors: &mut [Tensor<T, Ix2>]) -> Result<Tensor<T, D>> {
        let (left, right) = halves(x.shape(), &self.ranks);
        let mut last = None;
        for (half, others) in [(&left, &right), (&right, &left)] {
            let rest = project(x, factors, others.clone())?;
            for mode in half.clone() {
                let beside = half.clone().filter(|&m| m != mode);
                let y = project(&rest, factors, beside)?;
                for _ in 0..STEPS {
                    factors[mode] = refine(&y, mode, &factors[mode])?;
                }
                last = Some((mode, y));
            }
        }
        let (mode, y) = last.ok_or_else(|| Error::shape("Hooi::fit", "a tensor without modes"))?;
        y.mode_product(mode, &factors[mode].t())
    }

    /// Decomposes a tensor of which entries are missing: a sweep on what the last one filled in, again and again.
    fn fit_known<D: Dimension>(
        &self,
        observed: Observed<T, D>,
        watch: impl FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Fit<Tucker<T, D>>> {
        let norm = observed.x.norm()?;
        check_norm("Hooi::fit", &observed.x, norm)?;
        let unit = unit::<T>(norm);
        let (observed, norm) = (observed.divided(unit)?, norm / unit);
        let x = observed.filled_with_mean()?;
        let (mut factors, _) = self.first_factors(&x)?;
        // The approximation fills X for the next sweep, and what it leaves of the known entries is the error.
        let fill = |core: Tensor<T, D>, factors: &[Tensor<T, Ix2>]| -> Result<_> {
            let tucker = Tucker::new(core, factors.to_vec())?;
            let (filled, error) = observed.filled(&tucker.multiplied()?)?;
            Ok((tucker, filled, if norm > 0.0 { error / norm } else { 0.0 }))
        };
        let core = Tucker::project(&x, factors.clone())?.into_parts().0;
        let (mut tucker, mut x, mut error) = fill(core, &factors)?;
        let (history, stopped) = self.sweeps.run(watch, || {
            (tucker, x, error) = fill(self.sweep(&x, &mut factors)?, &factors)?;
            Ok(error)
        })?;
        Ok(Fit { decomposition: tucker.scale_core(unit)?, relative_error: error, history, stopped })
    }

    /// The factors to start from, and the norm of X.
    fn first_factors<D: Dimension>(&self, x: &Tensor<T, D>) -> Result<(Vec<Tensor<T, Ix2>>, f64)> {
        match &self.start {
            HooiStart::StHosvd => {
                // The norm falls out of the first Gram matrix: X is not read once more for it.
                StHosvd::ranks(self.ranks.clone()).parts(x)
            }
            HooiStart::Random { seed } => {
                let mut rng = ChaCha8Rng::seed_from_u64(*seed);
                let sizes = x.shape().iter().zip(&self.ranks);
                let factors = sizes
                    .map(|(&n, &rank)| Tensor::<T, Ix2>::normal([n, rank], &mut rng)?.qr()?.q.to_device(x.device()))
                    .collect::<Result<_>>()?;
                Ok((factors, x.norm()?))
            }
            HooiStart::Given(factors) => {
                for (mode, (&n, &rank)) in x.shape().iter().zip(&self.ranks).enumerate() {
                    let given = factors.get(mode).map_or(&[][..], |f| f.shape());
                    if given != [n, rank] || factors.len() != x.order() {
                        let message = format!(
                            "{} factors given, the one of mode {mode} is {given:?}; it has to be {n} x {rank}",
                            factors.len()
                        );
                        return Err(Error::shape("Hooi::start", message));
                    }
                    factors[mode].check_finite("Hooi::start")?;
                }
                let orthonormal = factors.iter().map(|f| Ok(f.qr()?.q)).collect::<Result<_>>()?;
                Ok((orthonormal, x.norm()?))
            }
        }
    }
}
