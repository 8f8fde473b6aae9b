//! The differentiable operations: methods of [`Var`](super::Var), one file each, formula and gradient at its top.
//!
//! | operation | file | the way back |
//! |---|---|---|
//! | [`add`](super::Var::add), [`mul`](super::Var::mul), .., [`square`](super::Var::square), .. | [`arithmetic`] | entry by entry; summed over modes that were repeated |
//! | [`matmul`](super::Var::matmul) | [`matmul`] | two products with the other operand transposed |
//! | [`linear`](super::Var::linear) | [`linear`] | two products, and column sums for the bias |
//! | [`embedding`](super::Var::embedding) | [`embedding`] | rows added up where they were taken from |
//! | [`gather`](super::Var::gather) | [`gather`] | entries added up where they were taken from |
//! | [`mode_product`](super::Var::mode_product), [`mode_products`](super::Var::mode_products), [`tucker`](super::Var::tucker) | [`mode_product`] | the transposed matrix, and a contraction over all other modes |
//! | [`cp`](super::Var::cp) | [`cp`] | MTTKRP for every factor |
//! | [`cross_entropy`](super::Var::cross_entropy) | [`cross_entropy`] | probabilities less targets, computed on the way forward |
//! | [`mse_loss`](super::Var::mse_loss), [`bce_with_logits`](super::Var::bce_with_logits) | [`losses`] | difference; probability less target |
//! | [`sum`](super::Var::sum), [`mean`](super::Var::mean), [`max_mode`](super::Var::max_mode), .. | [`reductions`] | the gradient repeated, or put where the maximum was |
//! | [`reshape`](super::Var::reshape), [`permute`](super::Var::permute), [`slice`](super::Var::slice), [`concat`](super::Var::concat), .. | [`shape`] | the entries moved back |
//! | [`conv`](super::Var::conv) | [`conv`] | by the image: convolutions of the gradient; by the weight: products of image and gradient; by the bias: sums |
//! | [`conv_transpose`](super::Var::conv_transpose) | [`conv_transpose`] | by the image: a convolution; by the weight: a convolution's with the roles exchanged |
//! | [`max_pool`](super::Var::max_pool), [`avg_pool`](super::Var::avg_pool), [`global_avg_pool`](super::Var::global_avg_pool) | [`pool`] | to the first largest entry of each window; spread over each window |
//! | [`resize`](super::Var::resize), [`pad_spatial`](super::Var::pad_spatial), [`channels_last`](super::Var::channels_last) | [`resize`] | the transposed interpolation; the modes moved back |
//!
//! [`options`] holds the options of convolutions and pools, [`window`] what they share.

pub mod arithmetic;
pub mod conv;
pub mod conv_transpose;
pub mod cp;
pub mod cross_entropy;
pub mod embedding;
pub mod gather;
pub mod linear;
pub mod losses;
pub mod matmul;
pub mod mode_product;
pub mod options;
pub mod pool;
pub mod reductions;
pub mod resize;
pub mod shape;
pub mod window;
