//! What a solver gives back, and what it reports on its way.

use crate::{
    error::{Error, ErrorKind, Result},
    scalar::{DType, Scalar},
};
use std::{
    fmt,
    ops::{ControlFlow, Deref},
};

/// A decomposition with the record of how it was found. Dereferences to the decomposition.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Fit<M> {
    /// What was found.
    pub decomposition: M,
    /// ||X - X'|| / ||X|| for the tensor X given and the decomposition's X', over the known entries where some are missing; 0 for X = 0 (which is
    /// met exactly).
    pub relative_error: f64,
    /// The relative error after every sweep; empty for solvers without sweeps.
    ///
    /// Sweeps measure it from inner products, which resolves about 1e-8 in `f64` and 1e-4 in `f32`; the final
    /// [`relative_error`](Fit::relative_error) is measured on the residual itself where that would not be exact enough.
    pub history: Vec<f64>,
    /// Why the solver stopped.
    pub stopped: Stop,
}

impl<M> Fit<M> {
    /// The number of sweeps that were run.
    pub fn sweeps(&self) -> usize {
        self.history.len()
    }

    /// 1 - relative error: the figure that the literature on CP calls the fit.
    pub fn fit(&self) -> f64 {
        1.0 - self.relative_error
    }

    /// The decomposition alone.
    pub fn into_inner(self) -> M {
        self.decomposition
    }
}

impl<M> Deref for Fit<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.decomposition
    }
}

impl<M: fmt::Display> fmt::Display for Fit<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; relative error {:.3e}", self.decomposition, self.relative_error)?;
        match self.stopped {
            Stop::Direct => Ok(()),
            stopped => write!(f, " after {} sweeps ({stopped})", self.sweeps()),
        }
    }
}

/// Why a solver stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stop {
    /// It has no sweeps: the result is computed directly.
    Direct,
    /// A sweep changed the relative error by less than was asked for.
    Converged,
    /// All sweeps that were asked for have run.
    Sweeps,
    /// The progress callback said so; the result is that of the last complete sweep.
    Interrupted,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Stop::Direct => "direct",
            Stop::Converged => "converged",
            Stop::Sweeps => "all sweeps run",
            Stop::Interrupted => "interrupted",
        })
    }
}

/// What a progress callback sees: after every mode of a direct solver, after every sweep of an iterative one.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// How many steps are done.
    pub done: usize,
    /// How many there are at most.
    pub total: usize,
    /// The relative error now, where it is known.
    pub relative_error: Option<f64>,
}

/// The callback that lets everything pass.
pub(crate) fn unwatched(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Relative errors above this come out right as a difference of squares of norms; smaller ones are measured on the residual.
pub(crate) fn resolved<T: Scalar>() -> f64 {
    if T::DTYPE == DType::F64 { 1e-4 } else { 5e-2 }
}

/// Runs a solver from several starts, each of so many sweeps at most, and keeps the fit with the smallest error; the callback sees one
/// long run, and may break it off.
pub(crate) fn best_of<M>(
    starts: usize,
    most: usize,
    mut watch: impl FnMut(&Progress) -> ControlFlow<()>,
    mut run: impl FnMut(usize, &mut dyn FnMut(&Progress) -> ControlFlow<()>) -> Result<Fit<M>>,
) -> Result<Fit<M>> {
    let mut best: Option<Fit<M>> = None;
    for attempt in 0..starts {
        let before = attempt.saturating_mul(most);
        let fit = run(attempt, &mut |p| {
            watch(&Progress { done: before.saturating_add(p.done), total: starts.saturating_mul(most), ..*p })
        })?;
        if fit.relative_error.is_nan() {
            let message = "the relative error is NaN: numbers left the range of their type; start from smaller ones";
            return Err(Error::new(ErrorKind::Convergence, "fit", message));
        }
        let interrupted = fit.stopped == Stop::Interrupted;
        if best.as_ref().is_none_or(|b| fit.relative_error < b.relative_error) {
            best = Some(fit);
        }
        if interrupted {
            // Whichever start was best: not all of them have had their turn.
            best = best.map(|b| Fit { stopped: Stop::Interrupted, ..b });
            break;
        }
    }
    best.ok_or_else(|| Error::new(ErrorKind::Convergence, "fit", "no start was run"))
}

/// The stopping rule of the iterative solvers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sweeps {
    pub(crate) most: usize,
    /// Stop when a sweep changes the relative error by less; `None`: run all of them.
    pub(crate) change: Option<f64>,
}

impl Sweeps {
    /// Runs sweeps, each of which gives the relative error after it, until there are enough of them, or one changes too little, or the
    /// callback breaks off. Gives all errors, and why it stopped.
    pub(crate) fn run(
        &self,
        mut watch: impl FnMut(&Progress) -> ControlFlow<()>,
        mut sweep: impl FnMut() -> Result<f64>,
    ) -> Result<(Vec<f64>, Stop)> {
        if self.change.is_some_and(f64::is_nan) {
            return Err(Error::new(
                ErrorKind::Value,
                "until_change",
                "NaN is no change to stop at; a number from 0 up is",
            ));
        }
        let mut history = Vec::new();
        for done in 1..=self.most {
            let error = sweep()?;
            history.push(error);
            if watch(&Progress { done, total: self.most, relative_error: Some(error) }).is_break() {
                return Ok((history, Stop::Interrupted));
            }
            if self.converged(&history) {
                return Ok((history, Stop::Converged));
            }
        }
        Ok((history, Stop::Sweeps))
    }

    /// Whether the history says to stop before the sweeps are used up.
    fn converged(&self, history: &[f64]) -> bool {
        match (self.change, history) {
            (Some(change), [.., before, now]) => (before - now).abs() < change,
            _ => false,
        }
    }
}
