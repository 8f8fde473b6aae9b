//! Maxima over windows on a GPU. The backward pass finds the largest entries again: nothing is saved, nothing scattered.
#![allow(unsafe_code)]

use super::{
    compile::Source,
    context::Cuda,
    conv::{at, images, pointer},
    launch::{self, Arg, int},
};
use crate::{
    device::{
        conv::{Geometry, Operand},
        storage::Storage,
    },
    error::Result,
    scalar::Scalar,
};

pub(crate) fn forward<T: Scalar>(gpu: &Cuda, g: &Geometry, x: Operand<T>, out: &mut Storage<T>) -> Result<()> {
    let (x, out) = (at(x, g.input_len())?, out.cuda_mut("max_pool")?);
    assert_eq!(out.len(), g.output_len(), "max_pool: the result's length");
    if out.len() == 0 {
        return Ok(());
    }
    let sizes = Arg::Images(images("max_pool", g)?);
    let args = [pointer(Some(x)), Arg::Pointer(out.at(0)), int(out.len()), int(g.c_in), sizes];
    let name = format!("max_pool_{}", T::DTYPE);
    // SAFETY: the image lies in its block; the result has an entry for each window and channel, and is the caller's alone.
    unsafe { gpu.launch("max_pool", (Source::Conv, &name), launch::heavy(out.len()), &args) }
}

pub(crate) fn backward<T: Scalar>(
    gpu: &Cuda,
    g: &Geometry,
    x: Operand<T>,
    dy: Operand<T>,
    out: &mut Storage<T>,
) -> Result<()> {
    let (x, dy, out) = (at(x, g.input_len())?, at(dy, g.output_len())?, out.cuda_mut("max_pool")?);
    assert_eq!(out.len(), g.input_len(), "max_pool: the result's length");
    if out.len() == 0 {
        return Ok(());
    }
    let (from, slopes, to) = (pointer(Some(x)), pointer(Some(dy)), Arg::Pointer(out.at(0)));
    let args = [from, slopes, to, int(out.len()), int(g.c_in), Arg::Images(images("max_pool", g)?)];
    let name = format!("max_pool_back_{}", T::DTYPE);
    // SAFETY: image and gradient lie in their blocks; the result has an entry for each of the image's, and is the caller's alone.
    unsafe { gpu.launch("max_pool", (Source::Conv, &name), launch::heavy(out.len()), &args) }
}
