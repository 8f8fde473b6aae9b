//! Training: from a model, a data set and a loss to weights, in a run that can be killed at any moment.
//!
//! A [`Trainer`] says how a run goes: the optimiser's rule, a schedule, batches, a seed. [`Trainer::fit`] takes the model, a [`Dataset`],
//! and a function that computes the loss of a batch, and calls it batch by batch:
//!
//! ```
//! use rand::SeedableRng;
//! use rand_chacha::ChaCha8Rng;
//! use tenfold::{
//!     Tensor,
//!     autodiff::CrossEntropy,
//!     nn::Linear,
//!     train::{AdamW, Rows, Schedule, Trainer},
//! };
//!
//! // Is a point inside of the circle, or outside?
//! let rng = &mut ChaCha8Rng::seed_from_u64(1);
//! let points = Tensor::<f32, _>::normal([400, 2], rng)?;
//! let inside = Tensor::from_fn([400], |i| {
//!     let at = |mode| points.get(&[i[0], mode]).unwrap_or(0.0);
//!     u32::from(at(0).powi(2) + at(1).powi(2) < 1.4)
//! })?;
//! let data = Rows::new(&points, &inside)?;
//!
//! let mut model = vec![Linear::<f32>::new(2, 16, rng)?, Linear::new(16, 2, rng)?];
//! let trainer = Trainer::new(AdamW::new(0.02)).schedule(Schedule::cosine()).epochs(20).batch_size(20).seed(7).clip(1.0);
//! let report = trainer.fit(&mut model, &data, |model, (x, y), mode| {
//!     let hidden = model[0].forward(&x.into(), mode)?.gelu()?;
//!     model[1].forward(&hidden, mode)?.cross_entropy(&y, CrossEntropy::default())
//! })?;
//! assert!(report.loss < 0.3, "{report}");
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! [`Trainer::fit_with`] has an evaluation besides, which gives named numbers ([`metrics`] has the usual ones) that decide about
//! the best weights and an early end, and a watcher, which sees every [`Event`]. With the feature `terminal`,
//! `Terminal` is one: a progress bar, curves, Ctrl-C. [`Trainer::fit_along`] has a [`Companion`] besides, which sees the gradients of each
//! step and may change the model after it.
//!
//! # A run that goes on
//!
//! With a [`folder`](Trainer::folder), a run keeps there
//!
//! | file | what |
//! |---|---|
//! | `last.safetensors` | the checkpoint: everything that the rest of the run depends on |
//! | `best.safetensors` | the weights of the best evaluation, with the model's names, for [`Load`](crate::nn::Load) |
//! | `log.jsonl` | a line of JSON for each step and each evaluation; [`read_log`] reads it |
//! | `curves.svg` | with `Terminal`: loss, rate and scores |
//!
//! and [`resume`](Trainer::resume) goes on where the checkpoint was written:
//!
//! ```
//! use ndarray::Ix1;
//! use std::ops::ControlFlow;
//! use tenfold::{
//!     Result, Tensor,
//!     nn::{Linear, Module},
//!     train::{Event, Every, Report, Rows, Scores, Sgd, Trainer},
//! };
//!
//! # let folder = std::env::temp_dir().join(format!("tenfold-train-{}", std::process::id()));
//! let data = Rows::new(&Tensor::<f64, _>::ones([12, 2])?, &Tensor::<f64, _>::ones([12, 1])?)?;
//! let trainer = Trainer::new(Sgd::new(0.1).momentum(0.9)).epochs(5).batch_size(4).save(Every::Steps(2));
//!
//! // Breaks off after `most` steps, as Ctrl-C does; killed at that moment, it would go on from step 6.
//! let run = |trainer: &Trainer, most: u64| -> Result<(Report, Tensor<f64>)> {
//!     let mut model = Linear::<f64>::zeros(2, 1)?;
//!     let report = trainer.fit_with(
//!         &mut model,
//!         &data,
//!         |model, (x, y), mode| model.forward(&x.into(), mode)?.mse_loss(&y.into()),
//!         |_| Ok(Scores::new()),
//!         |event| match event {
//!             Event::Step(step) if step.step == most => ControlFlow::Break(()),
//!             _ => ControlFlow::Continue(()),
//!         },
//!     )?;
//!     Ok((report, model.parameters()[0].1.value().clone()))
//! };
//!
//! let (whole, weight) = run(&trainer, 100)?;
//! let kept = trainer.folder(&folder).resume(true);
//! assert_eq!(run(&kept, 7)?.0.to_string().split(" steps").next(), Some("interrupted after 7"));
//! let (report, resumed) = run(&kept, 100)?; // the same command again
//! assert_eq!((report.steps, report.loss, resumed), (whole.steps, whole.loss, weight)); // bit for bit
//! # std::fs::remove_dir_all(&folder).unwrap();
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! # By hand
//!
//! What a trainer does can be written out, where a run is of another kind: an [`Optimizer`] holds a rule and what the rule remembers of
//! each parameter, [`Groups`] give parameters rates and decays of their own by name, and a [`Schedule`] is a function from the step
//! to a factor on all rates.
//!
//! ```
//! use rand::SeedableRng;
//! use rand_chacha::ChaCha8Rng;
//! use tenfold::{
//!     Tensor, autodiff::Var,
//!     nn::{Linear, Mode},
//!     train::{AdamW, Groups, Optimizer, Schedule},
//! };
//!
//! let rng = &mut ChaCha8Rng::seed_from_u64(1);
//! let mut model = Linear::<f32>::new(4, 1, rng)?;
//! let (x, y) = (Tensor::normal([64, 4], rng)?, Tensor::ones([64, 1])?);
//! let (x, y) = (Var::constant(x), Var::constant(y));
//!
//! let mut optimizer = Optimizer::new(AdamW::new(0.05), &Groups::new().no_decay_on_vectors(), &model)?;
//! let (schedule, total) = (Schedule::cosine().warmup_ratio(0.1), 200);
//! schedule.check(total)?;
//! let mut losses = Vec::new();
//! for step in 0..total {
//!     let loss = model.forward(&x, Mode::training(1, step))?.mse_loss(&y)?;
//!     losses.push(loss.item()?);
//!     optimizer.step(&mut model, loss.backward()?, schedule.factor(step, total), Some(1.0))?;
//! }
//! assert!(losses[199] < 0.01 * losses[0]);
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! # What is promised
//!
//! - **The numbers are PyTorch's**: the rules of `torch.optim` in its order of operations, `torch.nn.utils.clip_grad_norm_`, the
//!   schedules of `torch.optim.lr_scheduler` and of Hugging Face's transformers.
//! - **A step is one pass over memory**: parameters, gradients and moments are visited once, all parameters as one range that
//!   the threads share. Clipping, and the mean over several passes, are a factor in that pass; beside it the gradients
//!   are read once for their norm.
//! - **Nothing happens by half.** A gradient that is missing or not finite is an error that names the parameter, and then no
//!   parameter has moved.
//! - **A step does not depend on the number of threads**, not in its last bit.
//! - **Killed at any moment and resumed, a run is bit for bit the run that was never killed**: weights, buffers, the optimiser, evaluations,
//!   and the lines of the log but for times, on the same machine with the same number of threads. The order of examples
//!   ([`Batches`]), augmentation and dropout ([`Mode`](crate::nn::Mode)) are functions of seed and position, so there is
//!   no generator whose state could be lost; the step says where everything is. The data set, the loss and the evaluation must not
//!   keep a state of their own, or be random otherwise.
//! - **A checkpoint is whole.** It is written beside the old one, synchronised and renamed. A full disk, or a kill while saving, leaves the
//!   old one, and the error names it.
//! - **What does not fit is refused**, before the model is touched: a checkpoint of another model, frozen weights that are not those
//!   that the run began with, another configuration, another version. The message says what differs.
//! - **A loss or a gradient that is not finite ends the run** before it reaches the weights, with an error that names the step and the
//!   last good checkpoint.
//! - **Data do not make steps wait** as long as the data set makes batches as fast as they are used: they are made ahead by threads of their
//!   own. How long steps did wait is in the log and in the [`Report`].
//!
//! | file | what |
//! |---|---|
//! | `trainer.rs`, `plan.rs`, `best.rs`, `run.rs` | [`Trainer`], which says how a run goes; which batches are in a step; which weights are best; the loop |
//! | `companion.rs` | [`Companion`]: what happens around a step besides |
//! | `data/` | [`Dataset`], the order of examples, threads that make batches |
//! | `record.rs`, `report.rs` | what a run says on the way, and at the end |
//! | `metrics/` | accuracy, F1, Matthews, Pearson, Spearman, IoU |
//! | `folder.rs`, `checkpoint/`, `log.rs` | what a run keeps |
//! | `terminal/` | `Terminal`, behind the feature `terminal` |
//! | `optimizer/`, `groups.rs`, `schedule/` | [`Optimizer`]: rules and steps; [`Groups`]: rates by name; [`Schedule`] |

mod best;
mod checkpoint;
mod companion;
mod data;
mod folder;
mod groups;
mod log;
pub mod metrics;
mod optimizer;
mod plan;
mod record;
mod report;
mod run;
mod schedule;
#[cfg(feature = "terminal")]
mod terminal;
mod trainer;

pub use best::Best;
pub use companion::{Companion, Progress};
pub use data::{Batches, Dataset, Epoch, Rows, each_batch};
pub use groups::{Groups, Setting, Settings};
pub use log::read_log;
pub use optimizer::{Adam, AdamW, Optimizer, Rule, Sgd, Step};
pub use record::{Evaluation, Event, Outline, Record, Scores, TrainingStep};
pub use report::{Report, Stop};
pub use schedule::Schedule;
#[cfg(feature = "terminal")]
pub use terminal::Terminal;
pub use trainer::{Every, Trainer};
