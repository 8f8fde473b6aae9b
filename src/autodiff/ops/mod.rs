//! The differentiable operations: methods of [`Var`](super::Var), one file each, formula and gradient at its top.
//!
//! | operation | file | the way back |
//! |---|---|---|
//! | [`add`](super::Var::add), [`mul`](super::Var::mul), .., [`square`](super::Var::square), .. | [`arithmetic`] | entry by entry; summed over modes that were repeated |
//! | [`matmul`](super::Var::matmul) | [`matmul`] | two products with the other operand transposed |
//! | [`linear`](super::Var::linear) | [`linear`] | two products, and column sums for the bias |
//! | [`sum`](super::Var::sum), [`mean`](super::Var::mean), [`max_mode`](super::Var::max_mode), .. | [`reductions`] | the gradient repeated, or put where the maximum was |
//! | [`reshape`](super::Var::reshape), [`permute`](super::Var::permute), [`slice`](super::Var::slice), [`concat`](super::Var::concat), .. | [`shape`] | the entries moved back |

pub mod arithmetic;
pub mod linear;
pub mod matmul;
pub mod reductions;
pub mod shape;
