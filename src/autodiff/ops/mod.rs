//! The differentiable operations: methods of [`Var`](super::Var), one file each, formula and gradient at its top.
//!
//! | operation | file | the way back |
//! |---|---|---|
//! | [`add`](super::Var::add), [`mul`](super::Var::mul), .., [`square`](super::Var::square), .. | [`arithmetic`] | entry by entry; summed over modes that were repeated |
//! | [`affine`](super::Var::affine) | [`affine`] | a factor a channel; sums for scale and bias |
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
//! | [`gelu`](super::Var::gelu), [`gelu_tanh`](super::Var::gelu_tanh) | [`gelu`] | times the derivative, from x |
//! | [`relu`](super::Var::relu), [`relu6`](super::Var::relu6) | [`relu`] | where x is in the linear part |
//! | [`sigmoid`](super::Var::sigmoid), [`silu`](super::Var::silu), [`tanh`](super::Var::tanh) | [`sigmoid`] | times the derivative, from the result |
//! | [`exp`](super::Var::exp), [`log`](super::Var::log) | [`exponential`] | times the result; over x |
//! | [`softmax`](super::Var::softmax), [`log_softmax`](super::Var::log_softmax), [`masked_softmax`](super::Var::masked_softmax) | [`softmax`] | less its mean under the result |
//! | [`layer_norm`](super::Var::layer_norm), [`rms_norm`](super::Var::rms_norm) | [`layer_norm`] | less what moves mean and variance of the row; column sums |
//! | [`batch_norm`](super::Var::batch_norm), [`batch_norm_training`](super::Var::batch_norm_training) | [`batch_norm`] | a factor a channel; less what moves the statistics |
//! | [`grn`](super::Var::grn) | [`grn`] | a factor a sample and channel; what moves the norms |
//! | [`dropout`](super::Var::dropout), [`stochastic_depth`](super::Var::stochastic_depth) | [`dropout`] | the same factors, computed again |
//! | [`attention`](super::Var::attention) | [`attention`] | probabilities computed again block by block, five products |
//! | [`disentangled_bias`](super::Var::disentangled_bias) | [`disentangled`] | entries added up where they were looked up |
//!
//! [`options`] holds the options of convolutions and pools, [`window`] what they share.

pub mod affine;
pub mod arithmetic;
pub mod attention;
pub mod batch_norm;
pub mod conv;
pub mod conv_transpose;
pub mod cp;
pub mod cross_entropy;
pub mod disentangled;
pub mod dropout;
pub mod embedding;
pub mod exponential;
pub mod gather;
pub mod gelu;
pub mod grn;
pub mod layer_norm;
pub mod linear;
pub mod losses;
pub mod matmul;
pub mod mode_product;
pub mod options;
pub mod pool;
pub mod reductions;
pub mod relu;
pub mod resize;
pub mod shape;
pub mod sigmoid;
pub mod softmax;
pub mod window;
