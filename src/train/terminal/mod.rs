//! [`Terminal`]: watching a run from a terminal. Behind the feature `terminal`.
//!
//! | file | what |
//! |---|---|
//! | `curves.rs` | loss, rate and scores as an SVG |
//! | `interrupt.rs` | Ctrl-C |

mod curves;
mod interrupt;

use super::{
    log::read_log,
    record::{Event, Outline, Record, TrainingStep, short},
    report::{Report, Stop},
};
use crate::error::Result;
use curves::Curves;
use indicatif::{ProgressBar, ProgressStyle};
use interrupt::Interrupt;
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long curves are not drawn again, unless the run ends.
const PAUSE: Duration = Duration::from_secs(5);

/// A watcher for a run at a terminal.
///
/// - **A progress bar** on standard error with the loss (a moving mean), the rate, examples a second and the time left; a line for each
///   evaluation. Without a terminal there is no bar, only the lines.
/// - **Curves** of loss, rate and scores: `curves.svg` in the run's folder, drawn again after evaluations and checkpoints. A run that is
///   resumed draws what its log has from before.
/// - **Ctrl-C**, and the signals that end a process: the first finishes the step and writes a checkpoint where there is a folder, and the
///   end of the run says how to go on. A second one ends the process at once; the checkpoint before stays whole.
///
/// ```no_run
/// use tenfold::{
///     Tensor,
///     nn::Linear,
///     train::{Rows, Scores, Sgd, Terminal, Trainer},
/// };
///
/// let data = Rows::new(&Tensor::<f32, _>::ones([64, 3])?, &Tensor::<f32, _>::ones([64, 1])?)?;
/// let mut terminal = Terminal::new()?;
/// Trainer::new(Sgd::new(0.01)).epochs(10).folder("runs/first").resume(true).fit_with(
///     &mut Linear::<f32>::zeros(3, 1)?,
///     &data,
///     |model, (x, y), mode| model.forward(&x.into(), mode)?.mse_loss(&y.into()),
///     |_| Ok(Scores::new()),
///     |event| terminal.watch(event),
/// )?;
/// # Ok::<(), tenfold::Error>(())
/// ```
pub struct Terminal {
    bar: ProgressBar,
    interrupt: Interrupt,
    curves: Curves,
    svg: Option<PathBuf>,
    drawn: Option<Instant>,
    /// A moving mean of the loss, and the weight of what it is made of.
    loss: (f64, f64),
}

impl Terminal {
    /// Listens to Ctrl-C from now until it is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the program has another handler of Ctrl-C.
    pub fn new() -> Result<Self> {
        Ok(Self {
            bar: ProgressBar::hidden(),
            interrupt: Interrupt::listen()?,
            curves: Curves::default(),
            svg: None,
            drawn: None,
            loss: (0.0, 0.0),
        })
    }

    /// Draws curves to this file, rather than to the run's folder.
    pub fn curves(self, path: impl AsRef<Path>) -> Self {
        Self { svg: Some(path.as_ref().to_path_buf()), ..self }
    }

    /// Shows an event, and breaks off once Ctrl-C was pressed: for [`Trainer::fit_with`](super::Trainer::fit_with).
    pub fn watch(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        match event {
            Event::Started(outline) => self.start(outline),
            Event::Step(step) => self.step(step),
            Event::Evaluated(evaluation) => {
                self.curves.add(&Record::Evaluation((*evaluation).clone()));
                let best = if evaluation.best { " (the best so far)" } else { "" };
                let (epoch, step) = (evaluation.epoch, evaluation.step);
                self.say(&format!("epoch {epoch}, step {step}: {}{best}", evaluation.scores));
                self.draw(false);
            }
            Event::Saved { .. } => self.draw(false),
            Event::Ended(report) => self.end(report),
        }
        if self.interrupt.pressed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn start(&mut self, outline: &Outline) {
        self.bar = ProgressBar::new(outline.steps);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {eta} left") {
            self.bar.set_style(style);
        }
        self.bar.set_position(outline.resumed);
        self.bar.reset_eta();
        (self.loss, self.drawn) = ((0.0, 0.0), None);
        self.curves = Curves::default();
        let epochs = outline.steps as f64 / outline.steps_per_epoch as f64;
        let (steps, examples) = (outline.steps, outline.examples);
        self.say(&format!("{steps} steps, {} epochs of {examples} examples; {}", short(epochs), outline.parameters));
        if outline.resumed > 0 {
            self.say(&format!("going on after step {}", outline.resumed));
        }
        if let Some(folder) = &outline.folder {
            self.svg.get_or_insert_with(|| folder.join("curves.svg"));
            // Without the log the curves begin here.
            read_log(folder.join("log.jsonl")).unwrap_or_default().iter().for_each(|record| self.curves.add(record));
        }
    }

    fn step(&mut self, step: &TrainingStep) {
        self.curves.add(&Record::Step(step.clone()));
        let keep = 0.95;
        self.loss = (keep * self.loss.0 + (1.0 - keep) * step.loss, keep * self.loss.1 + (1.0 - keep));
        self.bar.set_position(step.step);
        if !self.bar.is_hidden() {
            let (loss, rate) = (short(self.loss.0 / self.loss.1), short(step.rate));
            self.bar.set_message(format!("loss {loss}  rate {rate}  {}/s", short(step.examples_per_second)));
        }
    }

    fn end(&mut self, report: &Report) {
        self.bar.finish_and_clear();
        self.draw(true);
        self.say(&report.to_string());
        if report.stopped == Stop::Interrupted {
            self.say(&match &report.checkpoint {
                Some(path) => format!(
                    "{} holds everything up to step {}: run the same again, with resume, to go on from there",
                    path.display(),
                    report.steps
                ),
                None => "nothing was saved, because the run has no folder".to_string(),
            });
        }
    }

    /// A line above the bar, or on standard error where there is none.
    fn say(&self, line: &str) {
        if self.bar.is_hidden() || self.bar.is_finished() { eprintln!("{line}") } else { self.bar.println(line) }
    }

    /// Draws the curves, where there is something to draw and somewhere to draw it to. What goes wrong is told and does not end
    /// the run.
    fn draw(&mut self, now: bool) {
        let Some(path) = &self.svg else { return };
        if !now && self.drawn.is_some_and(|drawn| drawn.elapsed() < PAUSE) {
            return;
        }
        if let Err(error) = self.curves.draw(path) {
            self.say(&format!("no curves: {error}"));
        }
        self.drawn = Some(Instant::now());
    }
}
