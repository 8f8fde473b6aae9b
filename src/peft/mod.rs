//! Parameter-efficient fine-tuning: FLoRA for weights of any order, beside LoRA, AdaLoRA, DoRA, bottlenecks, BitFit, a linear probe and
//! full fine-tuning.
//!
//! [The chapter on adaptation](crate::guide::adaptation) is a tutorial: why a convolution should not be reshaped to a
//! matrix, starts and scales, choosing ranks, shipping.
//!
//! A large model is adapted to a task by training few numbers: its weights stay frozen, and each gets a small update
//! that trains. What an update looks like is the [`Method`]; where it goes is said by [`Targets`]; [`attach`] does it,
//! after it has worked out a [`Plan`] that says what every layer's update costs and what it can reach.
//!
//! ```
//! use rand::SeedableRng;
//! use rand_chacha::ChaCha8Rng;
//! use tenfold::{
//!     Result, Scalar, Tensor,
//!     autodiff::{self, Var},
//!     module,
//!     nn::{Conv, Linear, Mode, Module},
//!     peft::{self, Attach, Flora, Targets},
//! };
//!
//! struct Model<T: Scalar> {
//!     stem: Conv<T>,
//!     dense: Linear<T>,
//!     head: Linear<T>,
//! }
//! module!(Model { stem, dense, head });
//!
//! impl<T: Scalar> Model<T> {
//!     fn forward(&self, x: &Var<T>, mode: Mode) -> Result<Var<T>> {
//!         let h = self.stem.forward(x, mode)?.gelu()?.global_avg_pool()?.reshape([x.shape()[0], 16])?;
//!         self.head.forward(&self.dense.forward(&h, mode)?.gelu()?, mode)
//!     }
//! }
//!
//! let rng = &mut ChaCha8Rng::seed_from_u64(1);
//! let mut model = Model::<f32> {
//!     stem: Conv::new([3, 16], &[3, 3], autodiff::Conv::new().padding(1), rng)?,
//!     dense: Linear::new(16, 16, rng)?,
//!     head: Linear::new(16, 2, rng)?,
//! };
//! let x = Var::constant(Tensor::normal([2, 8, 8, 3], rng)?);
//! let before = model.forward(&x, Mode::Evaluation)?;
//!
//! // The head is new: it trains as it is.
//! let flora = Flora::new().rank(4).kernel_rank(2).scale(4.0);
//! let plan = Attach::new(&flora).to(Targets::all().except("head")).keep(Targets::of(["head"])).apply(&mut model)?;
//! println!("{plan}"); // a row a layer: shape, ranks, parameters, directions that are reached, columns that are not needed
//! assert_eq!(plan.parameters(), model.count().trainable);
//!
//! // It starts where it was, exactly.
//! assert_eq!(model.forward(&x, Mode::Evaluation)?.value(), before.value());
//!
//! // .. training ..
//!
//! // To ship it: the updates folded into the weights.
//! let merged = peft::merge(&mut model)?;
//! assert_eq!(model.parameters().len(), 6);
//! merged.unmerge(&mut model)?; // and back, exactly
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! What to know about it:
//!
//! - **Any layer.** [`Linear`](crate::nn::Linear), [`Embedding`](crate::nn::Embedding), [`Conv`](crate::nn::Conv) of
//!   one to three spatial modes and [`ConvTranspose`](crate::nn::ConvTranspose), with every stride, dilation, padding
//!   mode and number of groups, can be adapted and merged by every method that attaches updates.
//! - **Nothing is matched silently.** A pattern that matches nothing is an error that says what there is.
//! - **The cheaper way.** An update is used in factored form, or folded into the weight for one operation, whichever
//!   costs less for the call at hand; see [`Path`]. The numbers are the same.
//! - **Parameters are not expressiveness.** [`dof`] counts in how many directions a weight can really move; plans show
//!   it beside parameters.
//! - **Everything random has a seed**, and each layer a stream of its own, from its name: what a layer starts as does
//!   not depend on its neighbours.
//! - **Files.** Adapters, and the head that was trained with them, are [saved](save) as stock PEFT has them, and
//!   [loaded](load) strictly.
//! - **A method at run time** is a [`Recipe`]: its name and its settings.
//! - **Several adapters.** They have names, are enabled and disabled ([`switch`]), and add up exactly ([`combine`]).
//! - **Updates are tensors of low rank**, and the crate's decompositions work on them: [`compress`] lowers ranks and says what is lost,
//!   [`Distil`] makes adapters of a model that was fine-tuned whole, [`updates`] shows singular values and how strongly directions are amplified.
//!
//! | method | update of a weight | parameters of a linear layer `m x n` | file |
//! |---|---|---|---|
//! | [`Flora`] | $s\thinspace G \times_1 A_1 \cdots \times_N A_N$ | $r^2 + r (m + n)$ | `flora/` |
//! | [`Lora`] | $s\thinspace B A$, of the weight as a matrix | $r (m + n)$ | `lora/` |
//! | [`Dora`] | LoRA for directions, a length for each output | $r (m + n) + m$ | `dora.rs` |
//! | [`AdaLora`] | $s\thinspace P \operatorname{diag}(\lambda) Q$, whose ranks come out of a budget while it trains | $r (m + n + 1)$ | `adalora/` |
//! | [`Bottleneck`] | none: a small network between two sub-layers, HAdapter or PAdapter | $m (2 n + 1) + n$ a place, m wide, of states n wide | `bottleneck/` |
//! | [`BitFit`] | biases train | $m$ | `bitfit.rs` |
//! | [`Probe`] | only what is kept, the head, trains | 0 | `probe.rs` |
//! | [`Full`] | everything trains | $m n + m$ | `full.rs` |
//!
//! | file | what |
//! |---|---|
//! | `method.rs`, `site.rs` | [`Method`], and the [`Site`] that it sees; start here to add one |
//! | `targets.rs`, `attach.rs`, `plan.rs`, `named.rs` | which layers, attaching, the table; adapters by their name |
//! | `recipe.rs` | [`Recipe`]: a method by its name, for command lines and configuration files |
//! | `path.rs`, `scaling.rs` | factored or merged; the scale |
//! | `dof.rs` | degrees of freedom |
//! | `merge.rs`, `combine.rs` | into the weights and out again; weighted sums |
//! | `tucker/` | [`compress`], [`Distil`], [`updates`]: adapters and decompositions |
//! | `files/` | [`save`] and [`load`]: PEFT's folder; [`lycoris`], [`adapterhub`] and [`authors`], other programs' files |

mod adalora;
mod attach;
mod bitfit;
mod bottleneck;
mod combine;
pub mod dof;
mod dora;
mod files;
mod flora;
mod full;
mod lora;
mod merge;
mod method;
mod named;
mod path;
mod plan;
mod probe;
mod recipe;
mod scaling;
mod site;
mod targets;
mod tucker;

pub use adalora::{AdaLora, AdaLoraAdapter, Phase, RankAllocator, orthogonality, ranks_left};
pub use attach::{Attach, WeightGradients, attach, weight_gradients};
pub use bitfit::BitFit;
pub use bottleneck::{Bottleneck, BottleneckAdapter, Parts as BottleneckParts, Placement as BottleneckPlacement};
pub use combine::combine;
pub use dora::{Dora, DoraAdapter};
pub use files::{LoadAdapter, LoadedAdapter, SaveAdapter, adapterhub, authors, load, lycoris, save};
pub use flora::{Flora, FloraAdapter, FloraInit, Ranks};
pub use full::Full;
pub use lora::{Lora, LoraAdapter, LoraForm};
pub use merge::{Merged, merge};
pub use method::{Method, Outline, Start};
pub use named::{detach, disable, enable, switch};
pub use path::Path;
pub use plan::{Plan, PlanRow};
pub use probe::Probe;
pub use recipe::Recipe;
pub use scaling::Scaling;
pub use site::Site;
pub use targets::{Pattern, Targets};
pub use tucker::{Distil, Distilled, Truncated, TruncatedRow, Truncation, Update, Updates, compress, updates};
