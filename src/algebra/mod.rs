//! Multilinear algebra: unfoldings, mode products, and the matrix products of factors.
//!
//! A tensor of order N has N *modes*; fixing all indices but that of mode n leaves a *mode-n fibre*. Modes count from 0.
//!
//! | operation | formula | here |
//! |---|---|---|
//! | unfolding | X_(n): the mode-n fibres as columns | [`unfold`](Tensor::unfold), [`fold`](Tensor::fold), [`matricize`](Tensor::matricize) |
//! | mode product | Y = X x_n M: every mode-n fibre times M | [`mode_product`](Tensor::mode_product), [`mode_products`](Tensor::mode_products) |
//! | contraction | sums over paired modes of two tensors | [`contract`], [`inner`], [`outer`] |
//! | Kronecker, Khatri-Rao, Hadamard | products of matrices | [`kronecker`], [`khatri_rao`], [`hadamard`] |
//! | MTTKRP | X_(n) times the Khatri-Rao product of the other factors | [`mttkrp`](Tensor::mttkrp), [`mttkrp_all`](Tensor::mttkrp_all) |
//! | factorisations | of matrices | [`eigh`](Tensor::eigh), [`svd`](Tensor::svd), [`qr`](Tensor::qr), [`cholesky`](Tensor::cholesky) |
//!
//! # The order of an unfolding
//!
//! Tensors here are row-major, and so are unfoldings: mode n comes to the front and the other modes follow *in order, the last
//! one fastest*, as in NumPy and TensorLy. Kolda and Bader (SIAM Review 51, 2009) and the Tensor Toolbox let the *first* of the
//! other modes run fastest. The columns are the same fibres in another order, so ranks, singular values, factors, cores and
//! reconstructions are the same; only formulas that spell out the columns differ:
//!
//! | | here, TensorLy | Kolda and Bader, Tensor Toolbox |
//! |---|---|---|
//! | columns of X_(n) | the other modes, last fastest | the other modes, first fastest |
//! | Tucker | X_(n) = A_n G_(n) (A_0 kron .. A_{n-1} kron A_{n+1} .. kron A_{N-1})^T | X_(n) = A_n G_(n) (A_{N-1} kron .. A_{n+1} kron A_{n-1} .. kron A_0)^T |
//! | CP | X_(n) = A_n (A_0 kr .. A_{N-1})^T without A_n | X_(n) = A_n (A_{N-1} kr .. A_0)^T without A_n |
//!
//! To get their unfolding, reverse the modes first: `x.permute(&[n, N-1, .., 0])`, or [`matricize`](Tensor::matricize) with
//! the column modes listed backwards.
//!
//! # No unfolding is copied
//!
//! A row-major tensor is `[before, n, after]` around any mode, which is a batch of matrices. Mode products, Gram matrices and
//! MTTKRP are strided-batched matrix products on it; [`unfold`](Tensor::unfold) itself is a view for the
//! first and the last mode and a copy for those between.

mod contract;
mod factorize;
mod mode_product;
mod mttkrp;
mod products;
mod unfold;

pub(crate) use contract::inner_unread;
pub use contract::{contract, inner, outer};
pub(crate) use factorize::gram;
pub use factorize::{Qr, Svd};
pub use mode_product::MultiMode;
pub(crate) use mode_product::by_cost;
pub(crate) use mttkrp::{Half as MttkrpHalf, Partial as MttkrpPartial, check_factors};
pub use products::{hadamard, khatri_rao, kronecker};

#[cfg(doc)]
use crate::Tensor;
