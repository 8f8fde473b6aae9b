//! One result entry from one or two operand entries at the same place: arithmetic with broadcasting, copies, casts.

use super::{
    Kind, cpu,
    layout::{Layout, checked_len},
    storage::Storage,
};
use crate::{
    error::Result,
    scalar::{Element, Scalar},
};

/// An operation on two entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    /// `max(a, b)`; a NaN on either side is the result.
    Max,
    /// `2 a b`: the gradient of a square.
    Twice,
    /// `a / (2 b)`: the gradient of a square root.
    Half,
    /// `a` with the sign of `b`, 0 where `b` is 0: the gradient of an absolute value.
    Signed,
}

/// An operation on one entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Unary<T> {
    /// `x * factor`
    Scale(T),
    /// `x + term`
    Shift(T),
    Abs,
    Sqrt,
    /// `1 / x`
    Recip,
    /// 1, and 0 for NaN
    Known,
    /// `x`, and 0 for NaN
    OrZero,
}

/// The entries of `source` in row-major order, in a block of their own.
pub(crate) fn copy<T: Element>(source: &Storage<T>, layout: &Layout) -> Result<Storage<T>> {
    let device = source.device();
    let mut out = Storage::uninit(device, layout.len())?;
    match &device.0 {
        Kind::Cpu(cpu) => cpu::elementwise::map(cpu, source.host("copy")?, layout, out.host_mut("copy")?, |x| x),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::elementwise::copy(gpu, source, layout, &mut out)?,
    }
    Ok(out)
}

/// The entries of `source` converted to another type (rounded or truncated as Rust's `as` does), in row-major order.
pub(crate) fn cast<A: Element, B: Element>(source: &Storage<A>, layout: &Layout) -> Result<Storage<B>> {
    let device = source.device();
    let mut out = Storage::uninit(device, layout.len())?;
    match &device.0 {
        Kind::Cpu(cpu) => cpu::elementwise::cast(cpu, source.host("cast")?, layout, out.host_mut("cast")?),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::elementwise::cast(gpu, source, layout, &mut out)?,
    }
    Ok(out)
}

/// `f` of every entry, in row-major order.
pub(crate) fn unary<T: Scalar>(f: Unary<T>, source: &Storage<T>, layout: &Layout) -> Result<Storage<T>> {
    let device = source.device();
    let mut out = Storage::uninit(device, layout.len())?;
    match &device.0 {
        Kind::Cpu(cpu) => cpu::elementwise::unary(cpu, f, source.host("map")?, layout, out.host_mut("map")?),
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::elementwise::unary(gpu, f, source, layout, &mut out)?,
    }
    Ok(out)
}

/// `f` of the entries of two operands; the layouts have one shape (broadcast ones have strides of 0).
pub(crate) fn binary<T: Scalar>(
    f: Binary,
    (a, a_at): (&Storage<T>, &Layout),
    (b, b_at): (&Storage<T>, &Layout),
) -> Result<Storage<T>> {
    let device = a.device();
    // The result may be far larger than its operands: an outer product.
    let mut out = Storage::uninit(device, checked_len("elementwise", a_at.shape())?)?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let (a, b) = (a.host("elementwise")?, b.host("elementwise")?);
            cpu::elementwise::binary(cpu, f, (a, a_at), (b, b_at), out.host_mut("elementwise")?);
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::elementwise::binary(gpu, f, (a, a_at), (b, b_at), &mut out)?,
    }
    Ok(out)
}
