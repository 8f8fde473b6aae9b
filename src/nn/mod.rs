//! Neural networks: parameters, the layers that own them, how they start, and the files they come from.
//!
//! A model is a struct of layers, and a function that calls them; nothing is registered anywhere. [`module!`](crate::module) lists the
//! struct's parts, and from that list follow names, counts, freezing and files.
//!
//! ```
//! use rand::SeedableRng;
//! use rand_chacha::ChaCha8Rng;
//! use tenfold::{
//!     Result, Scalar, Tensor, autodiff::Var, module,
//!     nn::{Dropout, LayerNorm, Linear, Load, Mode, Module, Save},
//! };
//!
//! struct Mlp<T: Scalar> {
//!     norm: LayerNorm<T>,
//!     up: Linear<T>,
//!     down: Linear<T>,
//!     dropout: Dropout,
//! }
//! module!(Mlp { norm, up => "intermediate.dense", down => "output.dense" });
//!
//! impl<T: Scalar> Mlp<T> {
//!     fn forward(&self, x: &Var<T>, mode: Mode) -> Result<Var<T>> {
//!         let h = self.up.forward(&self.norm.forward(x)?, mode)?.gelu()?;
//!         x.add(&self.dropout.forward(&self.down.forward(&h, mode)?, mode)?)
//!     }
//! }
//!
//! let rng = &mut ChaCha8Rng::seed_from_u64(1);
//! let mut model = Mlp::<f32> {
//!     norm: LayerNorm::new(8, 1e-5)?,
//!     up: Linear::new(8, 32, rng)?,
//!     down: Linear::new(32, 8, rng)?,
//!     dropout: Dropout::new(0.1, 0)?,
//! };
//! model.train_only(&|name| name.starts_with("output."));
//! assert_eq!(model.count().to_string(), "264 of 568 parameters train (46.48 %)");
//!
//! let x = Var::constant(Tensor::ones([4, 8])?);
//! let loss = model.forward(&x, Mode::training(7, 0))?.square()?.mean()?;
//! model.gradient_report(&loss.backward()?).check()?; // every parameter that trains received a gradient
//!
//! let path = std::env::temp_dir().join("tenfold-nn.safetensors");
//! Save::new().write(&model, &path)?;
//! Load::new().read(&mut model, &path)?; // an error unless names, shapes and types are all as they should be
//! # std::fs::remove_file(&path).unwrap();
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! What to know about it:
//!
//! - **A name is a path.** A [`Parameter`] has no name; it is met under the names of the parts that lead to it, which are those of
//!   Hugging Face's files (`encoder.layer.0.attention.self.query.weight`).
//! - **Frozen means constant.** A frozen parameter's [`Var`](crate::autodiff::Var) records nothing, so it costs no gradient.
//! - **Training is said, not set.** [`Mode`] goes into each pass and carries the seed and the step that dropout is a function of.
//! - **Layers have slots for adapters.** [`Linear`], [`Embedding`], [`Conv`] and [`ConvTranspose`] hold any number of named
//!   [`WeightAdapter`]s, each on the path it asks for: a contribution to the result, or another weight. So does [`ResidualNorm`], the place
//!   where bottlenecks stand between a transformer's sub-layers.
//! - **Files are checked before anything is read from them**: every name, shape and type. See [`checkpoint`].
//!
//! | file | what |
//! |---|---|
//! | `module.rs`, `report.rs` | [`Module`] and its visitors; counts, gradients that are missing |
//! | `parameter.rs` | [`Parameter`], [`Buffer`] |
//! | `layer.rs`, `adapter.rs`, `call.rs` | layers that own a weight, the slot, what an adapter sees |
//! | `linear.rs`, `embedding.rs`, `conv.rs`, `conv_transpose.rs`, `residual_norm.rs` | such layers |
//! | `layer_norm.rs`, `rms_norm.rs`, `batch_norm.rs`, `grn.rs`, `dropout.rs`, `stochastic_depth.rs` | other layers |
//! | `activation.rs` | functions of single numbers, by their names |
//! | `mode.rs` | training or evaluation |
//! | `init.rs` | what parameters start as |
//! | `pattern.rs` | names with `*` in them |
//! | `checkpoint/` | files |

mod activation;
mod adapter;
mod batch_norm;
mod call;
pub mod checkpoint;
mod conv;
mod conv_transpose;
mod dropout;
mod embedding;
mod grn;
mod init;
mod layer;
mod layer_norm;
mod linear;
mod mode;
mod module;
mod parameter;
pub(crate) mod pattern;
mod report;
mod residual_norm;
mod rms_norm;
mod stochastic_depth;

pub use activation::Activation;
pub use adapter::{Adapters, CloneAdapter, Contribution, WeightAdapter};
pub use batch_norm::BatchNorm;
pub use call::{Call, Ids, Operation, Sublayer};
pub use checkpoint::{Checkpoint, Load, Loaded, Renames, Save};
pub use conv::Conv;
pub use conv_transpose::ConvTranspose;
pub use dropout::Dropout;
pub use embedding::Embedding;
pub use grn::Grn;
pub use init::{Fan, Init, Nonlinearity, fans};
pub use layer::Layer;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use mode::Mode;
pub(crate) use mode::mix;
pub use module::{Module, Visitor, VisitorMut};
pub use parameter::{Buffer, Parameter};
pub use report::{Count, GradientReport};
pub use residual_norm::ResidualNorm;
pub use rms_norm::RmsNorm;
pub use stochastic_depth::StochasticDepth;
