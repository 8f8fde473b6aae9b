//! Reverse-mode differentiation: [`Var`], the operations on it, and [`Gradients`].
//!
//! A [`Var`] is a tensor that may remember how it was computed. Every operation here computes its value at once and, where an
//! operand needs a gradient, records one *node*: its inputs and a hand-written backward pass. [`Var::backward`] walks the
//! nodes from a result back to its parameters, newest first, and adds up what flows into each.
//!
//! ```
//! use ndarray::array;
//! use tenfold::{Tensor, autodiff::Var};
//!
//! let w = Var::parameter(Tensor::from(array![[1.0, 2.0], [3.0, 4.0]]));
//! let x = Var::constant(Tensor::from(array![[1.0, -1.0]]));
//! let loss = x.linear(&w, None)?.square()?.sum()?;
//! assert_eq!(loss.item()?, 2.0); // (1 - 2)^2 + (3 - 4)^2
//!
//! let gradients = loss.backward()?;
//! let dw = gradients.of(&w)?; // d loss / d w, in w's shape
//! assert_eq!(dw.to_vec()?, [-2.0, 2.0, -2.0, 2.0]);
//! assert!(gradients.get(&x).is_none()); // a constant has none, and none was computed
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! What to know about it:
//!
//! - **What needs no gradient costs nothing.** An operation whose operands are all constants records nothing; a frozen weight
//!   costs no weight gradient; the walk stops at the earliest parameter.
//! - **Saved values are freed on the way.** A node is consumed when the walk passes it, so memory falls as the walk goes back.
//!   A second `backward` through the same nodes is an error that names the operation. [`checkpoint`] saves more: it keeps only a
//!   block's inputs and computes the block again when its gradient is wanted.
//! - **No gradient is silently missing.** [`Gradients::of`] is an error where a parameter received none.
//! - **Operations have the size of a layer**: linear, convolution, attention, normalisation; each in one file with its formula, its
//!   backward pass and its tests. To add one of your own, see [`Var::record`], and [`check_gradients`] to test it.
//! - **The same run gives the same bits**: nodes are walked in the order they were made, never in the order threads finish.
//!
//! The method is reverse accumulation: Griewank and Walther, *Evaluating Derivatives*, 2nd ed., SIAM 2008, chapter 3.

mod backward;
mod check;
mod checkpoint;
pub(crate) mod gradients;
pub mod ops;
mod saved;
#[cfg(test)]
pub(crate) mod testing;
mod var;

pub use backward::Flow;
pub use check::check_gradients;
pub use checkpoint::checkpoint;
pub use gradients::{Gradients, Scaled};
pub use ops::{
    attention::Attention,
    batch_norm::BatchNorm,
    cross_entropy::CrossEntropy,
    disentangled::RelativePositions,
    options::{Conv, ConvTranspose, Pool},
    resize::Interpolation,
    window::{Padding, PaddingMode, PerAxis},
};
pub(crate) use saved::Saved;
pub use var::{Var, is_recomputing, without_gradients};
