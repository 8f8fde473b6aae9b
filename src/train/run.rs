//! [`Run`]: the loop.
//!
//! ```text
//! for each step:
//!     for each of its batches:   loss of the batch; its gradients, added up
//!     the companion looks at the gradients
//!     the optimiser's step, at the schedule's rate        <- nothing is changed before
//!     the companion's change
//!     a line of the log; the watcher
//!     where it is time: an evaluation; the best weights; a checkpoint
//! ```

use super::{
    checkpoint::{Identity, State, Weights},
    companion::{Companion, Progress},
    data::{Dataset, Loader, Passes},
    folder::Folder,
    optimizer::Optimizer,
    plan::Plan,
    record::{Evaluation, Event, Outline, Record, Scores, TrainingStep},
    report::{Report, Stop},
    trainer::Trainer,
};
use crate::{
    autodiff::{Gradients, Var, without_gradients},
    error::{Error, ErrorKind, Result},
    nn::{Mode, Module},
    scalar::Scalar,
};
use std::{ops::ControlFlow, time::Instant};

/// The loss of a batch.
type Loss<'f, T, M, B> = &'f mut dyn FnMut(&M, B, Mode) -> Result<Var<T>>;

/// The scores of a model.
type Evaluate<'f, M> = Option<&'f mut dyn FnMut(&M) -> Result<Scores>>;

/// Who watches.
type Watch<'f> = &'f mut dyn FnMut(&Event<'_>) -> ControlFlow<()>;

/// A run at work.
pub(super) struct Run<'r, T: Scalar, M> {
    trainer: &'r Trainer,
    plan: Plan,
    model: &'r mut M,
    companion: &'r mut dyn Companion<T, M>,
    optimizer: Optimizer<T>,
    folder: Option<Folder>,
    state: State,
    /// The weights of the best evaluation, where there is no folder to keep them.
    best: Option<Weights<T>>,
    /// Whether the watcher has asked for the end.
    interrupted: bool,
}

impl<'r, T: Scalar, M: Module<T>> Run<'r, T, M> {
    /// Checks everything, and goes to where the run was left.
    pub(super) fn new<D: Dataset>(
        trainer: &'r Trainer,
        model: &'r mut M,
        data: &D,
        evaluates: bool,
        companion: &'r mut dyn Companion<T, M>,
    ) -> Result<Self> {
        let plan = trainer.plan(data.len(), evaluates)?;
        companion.check(model, plan.steps)?;
        let mut optimizer = Optimizer::new(trainer.rule, &trainer.groups, model)?;
        if trainer.allow_missing {
            optimizer = optimizer.allow_missing();
        }
        let (mut folder, mut state) = (None, State::default());
        if let Some(path) = &trainer.folder {
            let identity = Identity::of(model, configuration::<T>(trainer, &plan, &companion.identity())?)?;
            let folder = folder.insert(Folder::open(path, identity, trainer.resume)?);
            state = folder.resume(model, &mut optimizer, plan.steps)?;
        }
        Ok(Self { trainer, plan, model, companion, optimizer, folder, state, best: None, interrupted: false })
    }

    /// Takes the steps that are left.
    pub(super) fn go<D: Dataset>(
        mut self,
        data: &D,
        loss: Loss<'_, T, M, D::Batch>,
        mut evaluate: Evaluate<'_, M>,
        watch: Watch<'_>,
    ) -> Result<Report> {
        let outline = Outline {
            steps: self.plan.steps,
            steps_per_epoch: self.plan.steps_per_epoch,
            examples: self.plan.examples,
            resumed: self.state.step,
            parameters: self.model.count(),
            folder: self.folder.as_ref().map(|folder| folder.path().to_path_buf()),
        };
        self.tell(watch, &Event::Started(&outline));
        if self.state.stopped.is_none() {
            let range = self.plan.batches_of(self.state.step).start..self.plan.batches_of(self.plan.steps - 1).end;
            let (batches, per_epoch) = (self.plan.batches.clone(), self.plan.batches_per_epoch);
            let passes = Passes { batches, per_epoch, range, seed: Some(self.trainer.seed) };
            std::thread::scope(|scope| {
                let mut loader = Loader::start(scope, data, &passes, self.trainer.workers)?;
                while self.state.stopped.is_none() && !self.interrupted {
                    self.round(&mut loader, &mut *loss, &mut evaluate, &mut *watch)?;
                }
                Ok(())
            })?;
        }
        let report = self.report()?;
        let _ = watch(&Event::Ended(&report));
        Ok(report)
    }

    /// A step, and what is due after it.
    fn round<B: Send>(
        &mut self,
        loader: &mut Loader<B>,
        loss: Loss<'_, T, M, B>,
        evaluate: &mut Evaluate<'_, M>,
        watch: Watch<'_>,
    ) -> Result<()> {
        let start = (Instant::now(), self.state.seconds);
        let taken = self.step(loader, loss, start).map_err(|e| self.during_step(e))?;
        self.log(Record::Step(taken.clone())).map_err(|e| self.after_step("log", e))?;
        self.tell(watch, &Event::Step(&taken));

        let (step, per_epoch) = (self.state.step, self.plan.steps_per_epoch);
        let last = step == self.plan.steps;
        if last {
            self.state.stopped = Some(Stop::Finished);
        }
        if let Some(evaluate) = evaluate
            && (last || self.trainer.evaluate.due(step, per_epoch))
        {
            let evaluation = self.evaluate(*evaluate, start).map_err(|e| self.after_step("evaluation", e))?;
            self.tell(watch, &Event::Evaluated(&evaluation));
        }
        let over = self.state.stopped.is_some() || self.interrupted;
        if over || self.trainer.save.due(step, per_epoch) {
            self.save(start, watch).map_err(|e| self.after_step("checkpoint", e))?;
        }
        self.state.seconds = seconds(start);
        Ok(())
    }

    /// The batches of a step, and the step. Until the optimiser changes the model nothing does, and it changes all of it or nothing.
    fn step<B: Send>(
        &mut self,
        loader: &mut Loader<B>,
        loss: Loss<'_, T, M, B>,
        start: (Instant, f64),
    ) -> Result<TrainingStep> {
        let step = self.state.step;
        let batches = self.plan.batches_of(step);
        let count = (batches.end - batches.start) as f64;
        let (mut losses, mut examples, mut gradients) = (Vec::new(), 0, None::<Gradients<T>>);
        for pass in batches {
            let loaded = loader.next()?;
            examples += loaded.examples as u64;
            let value = loss(self.model, loaded.batch, Mode::training(self.trainer.seed, pass))?;
            if value.len() != 1 {
                // The error that says so.
                value.item()?;
            }
            let more = value.backward()?;
            losses.push(value.into_value());
            match &mut gradients {
                Some(gradients) => gradients.accumulate(more)?,
                None => gradients = Some(more),
            }
        }
        let Some(gradients) = gradients else { unreachable!("a step has at least one batch") };
        let factor = self.trainer.schedule.factor(step, self.plan.steps);
        let gradients = gradients.scaled(1.0 / count);
        let at = Progress { step: step + 1, steps: self.plan.steps };
        self.companion.before_step(self.model, &gradients, at)?;
        // The loss is read with the norm: where the model is on a GPU, that is the one time in a step that the host waits.
        let (moved, sum) = self.optimizer.step_with(self.model, gradients, factor, self.trainer.clip, &losses)?;
        let sum = finite(sum)?;
        self.companion.after_step(self.model, at)?;

        let waited = loader.take_waited().as_secs_f64();
        let took = start.0.elapsed().as_secs_f64();
        self.state.step += 1;
        self.state.loss = Some(sum / count);
        self.state.examples += examples;
        self.state.waited += waited;
        let taken = TrainingStep {
            step: self.state.step,
            epoch: self.plan.epoch(step) + 1,
            loss: sum / count,
            rate: self.trainer.rule.rate() * factor,
            gradient_norm: moved.gradient_norm,
            examples,
            seconds: start.1 + took,
            waited,
            examples_per_second: examples as f64 / took.max(f64::MIN_POSITIVE),
        };
        Ok(taken)
    }

    /// An evaluation, and what it says about the best weights and the end of the run.
    fn evaluate(
        &mut self,
        evaluate: &mut dyn FnMut(&M) -> Result<Scores>,
        start: (Instant, f64),
    ) -> Result<Evaluation> {
        let scores = without_gradients(|| evaluate(self.model))?;
        let step = self.state.step;
        let settled = self.companion.settled(Progress { step, steps: self.plan.steps });
        let best = match &self.trainer.best {
            Some(best) if settled => best.improves(&scores, self.state.best.as_ref().map(|best| &best.scores))?,
            _ => false,
        };
        let epoch = self.plan.epoch(step - 1) + 1;
        let evaluation = Evaluation { step, epoch, scores, best, seconds: seconds(start) };
        self.log(Record::Evaluation(evaluation.clone()))?;
        self.state.unimproved += u64::from(settled);
        if best {
            match &self.folder {
                Some(folder) => folder.save_best(self.model, step)?,
                None if self.trainer.restore_best => self.best = Some(Weights::of(self.model)),
                None => {}
            }
            self.state.best = Some(evaluation.clone());
            self.state.unimproved = 0;
        }
        if self.state.stopped.is_none() && self.trainer.patience.is_some_and(|most| self.state.unimproved >= most) {
            self.state.stopped = Some(Stop::Early);
        }
        self.state.evaluation = Some(evaluation.clone());
        Ok(evaluation)
    }

    fn save(&mut self, start: (Instant, f64), watch: Watch<'_>) -> Result<()> {
        let Some(folder) = &mut self.folder else { return Ok(()) };
        self.state.seconds = seconds(start);
        folder.save(self.model, &self.optimizer, &mut self.state)?;
        let path = folder.last();
        self.tell(watch, &Event::Saved { step: self.state.step, path: &path });
        Ok(())
    }

    fn log(&mut self, record: Record) -> Result<()> {
        self.folder.as_mut().map_or(Ok(()), |folder| folder.add(&record))
    }

    fn tell(&mut self, watch: Watch<'_>, event: &Event<'_>) {
        self.interrupted |= watch(event).is_break();
    }

    /// What the run came to; gives the model the best weights where that was asked for.
    fn report(mut self) -> Result<Report> {
        let stopped = self.state.stopped.unwrap_or(Stop::Interrupted);
        let mut restored = false;
        if let Some(best) =
            self.state.best.as_ref().filter(|_| self.trainer.restore_best && stopped != Stop::Interrupted)
        {
            match (&self.folder, self.best.take()) {
                (Some(folder), _) => folder.load_best(self.model, best.step)?,
                (None, Some(weights)) => weights.restore(self.model)?,
                (None, None) => {}
            }
            restored = true;
        }
        Ok(Report {
            steps: self.state.step,
            stopped,
            loss: self.state.loss.unwrap_or(f64::NAN),
            evaluation: self.state.evaluation,
            best: self.state.best,
            restored,
            examples: self.state.examples,
            seconds: self.state.seconds,
            waited: self.state.waited,
            checkpoint: self.folder.filter(|_| self.state.step > 0).map(|folder| folder.last()),
        })
    }

    /// An error in a step, with where it happened.
    fn during_step(&self, error: Error) -> Error {
        let step = self.state.step;
        let (batches, epoch) = (self.plan.batches_of(step), self.plan.epoch(step));
        let first = batches.start % self.plan.batches_per_epoch + 1;
        let last = first + (batches.end - batches.start) - 1;
        let which = if first == last { format!("batch {first}") } else { format!("batches {first} to {last}") };
        self.at(&format!("step {} (epoch {}, {which})", step + 1, epoch + 1), error)
    }

    /// An error in what is due after a step.
    fn after_step(&self, what: &str, error: Error) -> Error {
        self.at(&format!("{what} after step {}", self.state.step), error)
    }

    fn at(&self, place: &str, error: Error) -> Error {
        let good = self.folder.as_ref().map_or(String::new(), |folder| format!("; {}", folder.good()));
        Error::new(error.kind(), "Trainer", format!("{place}: {error}{good}")).with_source(error)
    }
}

/// Seconds of the run, with those before `start`.
fn seconds((start, before): (Instant, f64)) -> f64 {
    before + start.elapsed().as_secs_f64()
}

fn finite(loss: f64) -> Result<f64> {
    match loss.is_finite() {
        true => Ok(loss),
        false => Err(Error::new(ErrorKind::Value, "loss", format!("the loss is {loss}"))),
    }
}

/// What has to be the same where a run goes on.
fn configuration<T: Scalar>(trainer: &Trainer, plan: &Plan, companion: &str) -> Result<serde_json::Value> {
    let mut value = serde_json::to_value(trainer)
        .map_err(|e| Error::new(ErrorKind::Format, "Trainer", format!("a configuration without JSON: {e}")))?;
    value["examples"] = plan.examples.into();
    value["elements"] = T::DTYPE.to_string().into();
    if !companion.is_empty() {
        value["companion"] = serde_json::from_str(companion).unwrap_or_else(|_| companion.into());
    }
    Ok(value)
}
