//! Kernels that are compiled with this crate, for both scalar types.
//!
//! Generic code is compiled where it is used: every test and example has the kernels compiled again. Below optimisation level 2 the
//! compiler takes what a crate that it depends on has compiled, and this list makes sure that the kernels are there. It takes a third
//! off the time that the tests take to compile.
#![allow(unsafe_code)]

use super::{
    activation, attention, channels, columns, conv, conv::weights, depthwise, dropout, elementwise, gather, gemm, gram,
    linalg, losses, max_pool, normalise, optimizer, place, positions, reduce, resample, softmax, update_norms,
};

struct Kernels(#[allow(dead_code)] &'static [*const ()]);

// SAFETY: nothing reads the addresses.
unsafe impl Sync for Kernels {}

macro_rules! kernels {
    ($($module:ident::$name:ident $(< $also:ty >)?),* $(,)?) => {
        #[used]
        static SINGLE: Kernels = Kernels(&[$($module::$name::<f32 $(, $also)?> as *const ()),*]);
        #[used]
        static DOUBLE: Kernels = Kernels(&[$($module::$name::<f64 $(, $also)?> as *const ()),*]);
    };
}

kernels![
    activation::backward,
    activation::forward,
    attention::backward,
    attention::forward,
    channels::affine,
    channels::combine,
    channels::moments,
    channels::squares,
    channels::sums,
    columns::contract,
    conv::forward,
    conv::input_gradient,
    depthwise::correlate,
    depthwise::weight_gradient,
    dropout::apply,
    elementwise::add_into,
    elementwise::binary,
    elementwise::unary,
    gather::add_rows<u32>,
    gather::argmax,
    gather::take_rows<u32>,
    gemm::gemm,
    gram::gram,
    linalg::cholesky,
    linalg::cholesky_solve,
    linalg::eigh,
    linalg::qr,
    linalg::svd,
    losses::binary_cross_entropy,
    losses::cross_entropy<u32>,
    max_pool::backward,
    max_pool::forward,
    normalise::backward,
    normalise::forward,
    optimizer::step,
    place::place,
    positions::gather,
    positions::scatter_columns,
    positions::scatter_rows,
    reduce::dot,
    reduce::dot_rows,
    reduce::squares,
    reduce::sum_rows,
    reduce::total,
    resample::resample,
    softmax::backward,
    softmax::backward_columns,
    softmax::forward,
    softmax::forward_columns,
    update_norms::update_norms,
    weights::weight_gradient,
];
