//! Activations on a GPU: one pass in packs of 16 bytes.
#![allow(unsafe_code)]

use super::{
    compile::Source,
    context::Cuda,
    launch::{self, Arg, int},
};
use crate::{
    device::{
        activation::Activation,
        storage::{Flat, Storage},
    },
    error::Result,
    scalar::Scalar,
};

/// The kernels' number of a function.
fn code(f: Activation) -> usize {
    match f {
        Activation::Gelu => 0,
        Activation::GeluTanh => 1,
        Activation::Relu => 2,
        Activation::Relu6 => 3,
        Activation::Silu => 4,
        Activation::Tanh => 5,
        Activation::Sigmoid => 6,
        Activation::Exp => 7,
        Activation::Log => 8,
    }
}

pub(crate) fn forward<T: Scalar>(gpu: &Cuda, f: Activation, x: Flat<'_, T>, y: &mut Storage<T>) -> Result<()> {
    let y = y.cuda_mut(f.name())?;
    assert_eq!(y.len(), x.len, "{}: the result's length", f.name());
    if x.len == 0 {
        return Ok(());
    }
    let args = [Arg::Pointer(x.cuda(f.name())?), Arg::Pointer(y.at(0)), int(x.len)];
    let name = format!("activate_{}_{}", code(f), T::DTYPE);
    // SAFETY: operand and result hold as many entries; the result is the caller's alone.
    unsafe { gpu.launch(f.name(), (Source::Activation, &name), launch::entries(x.len), &args) }
}

pub(crate) fn backward<T: Scalar>(
    gpu: &Cuda,
    f: Activation,
    saved: Flat<'_, T>,
    dy: Flat<'_, T>,
    dx: &mut Storage<T>,
) -> Result<()> {
    let dx = dx.cuda_mut(f.name())?;
    assert!(dx.len() == saved.len && dy.len == saved.len, "{}: the operands' lengths", f.name());
    if saved.len == 0 {
        return Ok(());
    }
    let operands = [saved.cuda(f.name())?, dy.cuda(f.name())?, dx.at(0)].map(Arg::Pointer);
    let args = [operands.as_slice(), &[int(saved.len)]].concat();
    let name = format!("activate_back_{}_{}", code(f), T::DTYPE);
    // SAFETY: operands and result hold as many entries; the result is the caller's alone.
    unsafe { gpu.launch(f.name(), (Source::Activation, &name), launch::entries(saved.len), &args) }
}
