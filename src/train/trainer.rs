//! [`Trainer`]: how a run goes, in one builder.

use super::{
    best::Best,
    companion::Companion,
    data::{Batches, Dataset},
    groups::Groups,
    optimizer::Rule,
    plan::Plan,
    record::{Event, Scores},
    report::Report,
    run::Run,
    schedule::Schedule,
};
use crate::{
    autodiff::Var,
    error::{Error, ErrorKind, Result},
    nn::{Mode, Module},
    scalar::Scalar,
};
use serde::Serialize;
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

/// How often something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Every {
    /// After each so many epochs.
    Epochs(u64),
    /// After each so many steps.
    Steps(u64),
}

impl Every {
    fn steps(self, per_epoch: u64) -> u64 {
        match self {
            Self::Epochs(n) => n.saturating_mul(per_epoch),
            Self::Steps(n) => n,
        }
    }

    /// Whether it is time after `step` steps.
    pub(super) fn due(self, step: u64, per_epoch: u64) -> bool {
        step.is_multiple_of(self.steps(per_epoch))
    }
}

/// A run of training: rule, schedule, batches, evaluations, checkpoints. [The module's page](super) tells the whole story.
///
/// Its methods change one thing each and may come in any order; [`fit`](Trainer::fit) runs it. The same trainer may run several
/// times. By default: one epoch, batches of 32, seed 0, a constant rate, no clipping, no folder.
///
/// **Cost** beside the passes of the model and the optimiser's step: some ten microseconds a step without a folder, a line of
/// the log with one. **Memory**: one set of gradients more with [`accumulate`](Trainer::accumulate); batches that are loaded ahead, two for each
/// worker and one under way.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{
///     Tensor,
///     nn::Linear,
///     train::{AdamW, Rows, Schedule, Stop, Trainer},
/// };
///
/// let rng = &mut ChaCha8Rng::seed_from_u64(1);
/// let x = Tensor::<f32, _>::normal([200, 3], rng)?;
/// let y = x.mode_product(1, &Tensor::from_vec([1, 3], vec![1.0, -2.0, 0.5])?)?;
/// let mut model = Linear::<f32>::new(3, 1, rng)?;
///
/// let trainer = Trainer::new(AdamW::new(0.03)).schedule(Schedule::linear()).epochs(20).batch_size(16).seed(7).clip(1.0);
/// let report = trainer.fit(&mut model, &Rows::new(&x, &y)?, |model, (x, y), mode| {
///     model.forward(&x.into(), mode)?.mse_loss(&y.into())
/// })?;
/// assert_eq!((report.steps, report.stopped), (20 * 13, Stop::Finished));
/// assert!(report.loss < 0.01, "{report}");
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
pub struct Trainer {
    pub(super) rule: Rule,
    /// Compared where the optimiser is loaded.
    #[serde(skip)]
    pub(super) groups: Groups,
    pub(super) schedule: Schedule,
    length: Every,
    batch_size: usize,
    drop_last: bool,
    buckets: Option<usize>,
    accumulate: u64,
    pub(super) clip: Option<f64>,
    pub(super) seed: u64,
    pub(super) allow_missing: bool,
    pub(super) evaluate: Every,
    pub(super) best: Option<Best>,
    pub(super) patience: Option<u64>,
    // What follows does not change where a run gets to.
    #[serde(skip)]
    pub(super) restore_best: bool,
    #[serde(skip)]
    pub(super) workers: usize,
    #[serde(skip)]
    pub(super) folder: Option<PathBuf>,
    #[serde(skip)]
    pub(super) save: Every,
    #[serde(skip)]
    pub(super) resume: bool,
}

impl Trainer {
    /// A run that follows a rule: [`Sgd`](super::Sgd), [`Adam`](super::Adam), [`AdamW`](super::AdamW).
    pub fn new(rule: impl Into<Rule>) -> Self {
        Self {
            rule: rule.into(),
            groups: Groups::new(),
            schedule: Schedule::constant(),
            length: Every::Epochs(1),
            batch_size: 32,
            drop_last: false,
            buckets: None,
            accumulate: 1,
            clip: None,
            seed: 0,
            allow_missing: false,
            evaluate: Every::Epochs(1),
            best: None,
            patience: None,
            restore_best: false,
            workers: 1,
            folder: None,
            save: Every::Epochs(1),
            resume: false,
        }
    }

    /// Rates and decays of their own for parameters, by name.
    pub fn groups(self, groups: Groups) -> Self {
        Self { groups, ..self }
    }

    /// How the rate goes up and down.
    pub fn schedule(self, schedule: Schedule) -> Self {
        Self { schedule, ..self }
    }

    /// Goes through the data so often.
    pub fn epochs(self, epochs: u64) -> Self {
        Self { length: Every::Epochs(epochs), ..self }
    }

    /// Takes so many steps, however many epochs that makes.
    pub fn steps(self, steps: u64) -> Self {
        Self { length: Every::Steps(steps), ..self }
    }

    /// The number of examples in a batch, which goes through the model at once.
    pub fn batch_size(self, examples: usize) -> Self {
        Self { batch_size: examples, ..self }
    }

    /// Leaves out, in each epoch others, the examples that would make a short batch.
    pub fn drop_last(self) -> Self {
        Self { drop_last: true, ..self }
    }

    /// Puts examples of about the same [`length`](Dataset::length) together, sorted within windows of so many batches: see
    /// [`Batches::buckets`].
    pub fn buckets(self, window: usize) -> Self {
        Self { buckets: Some(window), ..self }
    }

    /// Takes a step for each so many batches, along the mean of their gradients: the effect of a larger batch in the memory of a small
    /// one. The last step of an epoch takes the batches that are left.
    pub fn accumulate(self, batches: u64) -> Self {
        Self { accumulate: batches, ..self }
    }

    /// Makes gradients shorter whose norm, all parameters together, is above this.
    pub fn clip(self, norm: f64) -> Self {
        Self { clip: Some(norm), ..self }
    }

    /// Fixes everything random: the order of examples, their augmentation, dropout.
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Lets parameters train that receive no gradient in some step; it passes them by.
    pub fn allow_missing(self) -> Self {
        Self { allow_missing: true, ..self }
    }

    /// How often an evaluation is made, where [`fit_with`](Trainer::fit_with) is given one; after each epoch by default. The end of the
    /// run is evaluated in any case.
    pub fn evaluate(self, every: Every) -> Self {
        Self { evaluate: every, ..self }
    }

    /// Which evaluation is the best; its weights are kept, in the folder where there is one. With a
    /// [`Companion`](super::Companion) only those count that it says are [settled](super::Companion::settled).
    pub fn best(self, best: Best) -> Self {
        Self { best: Some(best), ..self }
    }

    /// Stops after so many evaluations in a row of which none was the best.
    pub fn patience(self, evaluations: u64) -> Self {
        Self { patience: Some(evaluations), ..self }
    }

    /// Gives the model the weights of the best evaluation at the end of the run.
    pub fn restore_best(self) -> Self {
        Self { restore_best: true, ..self }
    }

    /// The number of threads that make batches; one by default. More help where making a batch takes longer than a step.
    pub fn workers(self, threads: usize) -> Self {
        Self { workers: threads, ..self }
    }

    /// Keeps the run in a folder: the log `log.jsonl`, the checkpoint `last.safetensors`, and with
    /// [`best`](Trainer::best) the weights `best.safetensors`. It is made where there is none.
    pub fn folder(self, path: impl AsRef<Path>) -> Self {
        Self { folder: Some(path.as_ref().to_path_buf()), ..self }
    }

    /// How often a checkpoint is written, where there is a folder; after each epoch by default. One is written at the end in any case.
    pub fn save(self, every: Every) -> Self {
        Self { save: every, ..self }
    }

    /// Whether to go on with the run that is in the folder; where there is none, one begins. Without it, a run in the folder is
    /// an error.
    pub fn resume(self, resume: bool) -> Self {
        Self { resume, ..self }
    }

    /// Trains a model on a data set.
    ///
    /// `loss` computes the loss of a batch with the model: a mean over the batch, of one entry. The [`Mode`] is to be
    /// handed to the model's layers.
    ///
    /// # Errors
    /// Before anything happens, [`ErrorKind::Value`] for a configuration that makes no sense (the message says which number) and a data set that
    /// is empty or smaller than a batch; with a folder, [`ErrorKind::Io`] where it cannot be written, another run is writing there, or a
    /// run in it is not to be resumed, and for a checkpoint that does not fit [`ErrorKind::Format`] (damaged, truncated), `Unsupported`
    /// (another version), `Value` or [`Shape`](ErrorKind::Shape) (another model or configuration, with what differs).
    ///
    /// On the way, each with the step and the last good checkpoint: [`ErrorKind::Value`] where a loss or a gradient is not finite; the
    /// errors of the data set, with the example, of `loss`, and of writing. The weights are then those of the last whole step.
    pub fn fit<T, M, D>(
        &self,
        model: &mut M,
        data: &D,
        mut loss: impl FnMut(&M, D::Batch, Mode) -> Result<Var<T>>,
    ) -> Result<Report>
    where
        T: Scalar,
        M: Module<T>,
        D: Dataset,
    {
        Run::new(self, model, data, false, &mut ())?.go(data, &mut loss, None, &mut |_| ControlFlow::Continue(()))
    }

    /// As [`fit`](Trainer::fit), with an evaluation and a watcher.
    ///
    /// `evaluate` computes [`Scores`] of the model, with nothing recorded for gradients; [`each_batch`](super::each_batch) and
    /// [`metrics`](super::metrics) serve it. `watch` sees every [`Event`]; where it breaks off, the step at work is finished, a
    /// checkpoint is written if there is a folder, and the run ends as [`Interrupted`](super::Stop::Interrupted).
    ///
    /// ```
    /// use ndarray::array;
    /// use std::ops::ControlFlow;
    /// use tenfold::{
    ///     Tensor,
    ///     autodiff::CrossEntropy,
    ///     nn::{Linear, Mode},
    ///     train::{Best, Event, Rows, Scores, Sgd, Trainer, each_batch, metrics::Confusion},
    /// };
    ///
    /// let x = Tensor::from(array![[1.0, 0.2], [0.1, 1.0], [0.9, 0.0], [-0.2, 0.8]]);
    /// let data = Rows::new(&x, &Tensor::from(array![0u32, 1, 0, 1]))?;
    /// let mut model = Linear::<f64>::zeros(2, 2)?;
    /// let trainer = Trainer::new(Sgd::new(0.5)).epochs(50).batch_size(2).best(Best::highest("accuracy")).patience(3).restore_best();
    ///
    /// let report = trainer.fit_with(
    ///     &mut model,
    ///     &data,
    ///     |model, (x, y), mode| model.forward(&x.into(), mode)?.cross_entropy(&y, CrossEntropy::default()),
    ///     |model| {
    ///         let mut confusion = Confusion::new(2)?;
    ///         each_batch(&data, 4, |(x, y)| {
    ///             confusion.update_logits(model.forward(&x.into(), Mode::Evaluation)?.value(), &y)
    ///         })?;
    ///         Ok(Scores::from([("accuracy", confusion.accuracy())]))
    ///     },
    ///     |event| {
    ///         if let Event::Evaluated(evaluation) = event {
    ///             println!("after step {}: {}", evaluation.step, evaluation.scores);
    ///         }
    ///         ControlFlow::Continue(())
    ///     },
    /// )?;
    /// assert_eq!(report.steps, 8); // right at once, and not better in three epochs more
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`fit`](Trainer::fit), those of `evaluate`, and [`ErrorKind::Value`] where it does not give the number that is to be the best.
    pub fn fit_with<T, M, D>(
        &self,
        model: &mut M,
        data: &D,
        loss: impl FnMut(&M, D::Batch, Mode) -> Result<Var<T>>,
        evaluate: impl FnMut(&M) -> Result<Scores>,
        watch: impl FnMut(&Event<'_>) -> ControlFlow<()>,
    ) -> Result<Report>
    where
        T: Scalar,
        M: Module<T>,
        D: Dataset,
    {
        self.fit_along(model, data, loss, evaluate, watch, &mut ())
    }

    /// As [`fit_with`](Trainer::fit_with), with a [`Companion`] that sees the gradients of every step and may change the model after it.
    ///
    /// Its [`identity`](Companion::identity) belongs to the run's configuration: a run is not resumed with a companion of other settings.
    ///
    /// # Errors
    /// As [`fit_with`](Trainer::fit_with), and those of the companion.
    pub fn fit_along<T, M, D>(
        &self,
        model: &mut M,
        data: &D,
        mut loss: impl FnMut(&M, D::Batch, Mode) -> Result<Var<T>>,
        mut evaluate: impl FnMut(&M) -> Result<Scores>,
        mut watch: impl FnMut(&Event<'_>) -> ControlFlow<()>,
        companion: &mut dyn Companion<T, M>,
    ) -> Result<Report>
    where
        T: Scalar,
        M: Module<T>,
        D: Dataset,
    {
        Run::new(self, model, data, true, companion)?.go(data, &mut loss, Some(&mut evaluate), &mut watch)
    }

    /// Which batches are in which step, of `examples` examples.
    pub(super) fn plan(&self, examples: usize, evaluates: bool) -> Result<Plan> {
        let error = |message: &str| Err(Error::new(ErrorKind::Value, "Trainer", message));
        let mut batches = Batches::new(self.batch_size).shuffle(self.seed);
        if self.drop_last {
            batches = batches.drop_last();
        }
        if let Some(window) = self.buckets {
            batches = batches.buckets(window);
        }
        let batches_per_epoch = batches.count(examples)? as u64;
        if self.accumulate == 0 {
            return error("gradients accumulated over 0 batches; needs 1 or more");
        }
        if [self.evaluate, self.save].into_iter().any(|every| every.steps(1) == 0) {
            return error("an evaluation or a checkpoint after each 0 steps; needs 1 or more");
        }
        let chosen = self.best.is_some() && evaluates;
        if !chosen && (self.best.is_some() || self.restore_best || self.patience.is_some()) {
            return error(
                "best weights and patience need an evaluation (fit_with) and a score that says which is the best",
            );
        }
        if let Some(norm) = self.clip.filter(|norm| norm.is_nan() || *norm <= 0.0) {
            return error(&format!("gradients clipped to a norm of {norm}; it has to be above 0"));
        }
        if self.resume && self.folder.is_none() {
            return error("a run is to be resumed, and no folder says where it is");
        }
        let steps_per_epoch = batches_per_epoch.div_ceil(self.accumulate);
        let steps = self.length.steps(steps_per_epoch);
        if steps == 0 {
            return error("a run of 0 steps; needs 1 or more");
        }
        self.schedule.check(steps)?;
        Ok(Plan { batches, batches_per_epoch, steps_per_epoch, steps, accumulate: self.accumulate, examples })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Sgd;

    #[test]
    fn what_makes_no_sense() {
        let plain = || Trainer::new(Sgd::new(0.1)).batch_size(4);
        let message = |trainer: Trainer| trainer.plan(10, false).unwrap_err().message().to_string();
        assert_eq!(
            message(plain().batch_size(11)),
            "a batch of 11 examples from a data set of 10; the batch size may be 1 to 10"
        );
        assert_eq!(
            message(plain().batch_size(0)),
            "a batch of 0 examples from a data set of 10; the batch size may be 1 to 10"
        );
        assert_eq!(message(plain().epochs(0)), "a run of 0 steps; needs 1 or more");
        assert!(message(plain().accumulate(0)).contains("over 0 batches"));
        assert!(message(plain().save(Every::Epochs(0))).contains("after each 0 steps"));
        assert!(message(plain().patience(2)).contains("need an evaluation"));
        assert!(message(plain().best(Best::highest("a"))).contains("need an evaluation"));
        assert!(message(plain().resume(true)).contains("no folder"));
        assert!(plain().plan(0, false).unwrap_err().message().contains("is empty"));
    }
}
