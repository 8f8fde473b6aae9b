//! Training: optimisers, groups of parameters, schedules of the rate.
//!
//! An [`Optimizer`] holds a rule ([`Sgd`], [`Adam`], [`AdamW`]) and what the rule remembers of each parameter that trains; a step takes
//! the gradients of a pass and moves the parameters. [`Groups`] give parameters rates and decays of their own, by name. A
//! [`Schedule`] is a function from the step to a factor on all rates.
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
//! What to know about it:
//!
//! - **The numbers are PyTorch's**: the rules of `torch.optim` in its order of operations, `torch.nn.utils.clip_grad_norm_`, the
//!   schedules of `torch.optim.lr_scheduler` and of Hugging Face's transformers.
//! - **A step is one pass over memory**: parameters, gradients and moments are visited once, all parameters as one range that
//!   the threads share. Clipping, and the mean over several passes, are a factor in that pass; beside it the gradients
//!   are read once for their norm.
//! - **Nothing happens by half.** A gradient that is missing or not finite is an error that names the parameter, and then no
//!   parameter has moved.
//! - **A step does not depend on the number of threads**, not in its last bit.
//!
//! | file | what |
//! |---|---|
//! | `optimizer/` | [`Optimizer`]: rules, steps, what is saved of them |
//! | `groups.rs` | [`Groups`]: rates and decays by name; the table of who got which |
//! | `schedule/` | [`Schedule`]: the factor of each step; as text on a command line |

mod groups;
mod optimizer;
mod schedule;

pub use groups::{Groups, Setting, Settings};
pub use optimizer::{Adam, AdamW, Optimizer, Rule, Sgd, Step};
pub use schedule::Schedule;
