//! Copies, casts and entrywise arithmetic on a GPU.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    compile::Source,
    context::Cuda,
    launch::{self, Arg, Nest, int},
};
use crate::{
    device::{
        elementwise::{Binary, Unary},
        layout::{Layout, Loop, loops},
        storage::Storage,
    },
    error::Result,
    scalar::{DType, Element, Scalar},
};

/// Panics, before anything is queued, if a layout would leave its block.
pub(crate) fn check(operation: &str, len: usize, layout: &Layout) {
    if layout.len() == 0 {
        return;
    }
    let (mut low, mut high) = (layout.offset() as isize, layout.offset() as isize);
    for (&n, &stride) in layout.shape().iter().zip(layout.strides()) {
        let reach = (n as isize - 1) * stride;
        if reach < 0 { low += reach } else { high += reach }
    }
    assert!(low >= 0 && (high as usize) < len, "{operation}: entries {low}..={high} in a block of {len}");
}

/// The address of a layout's first entry.
pub(crate) fn start<T: Element>(block: &CudaBlock<T>, layout: &Layout) -> Arg {
    Arg::Pointer(block.at(layout.offset()))
}

/// A number of the kernel's type.
pub(crate) fn number<T: Scalar>(x: T) -> Arg {
    match T::DTYPE {
        DType::F32 => Arg::Float(x.f64() as f32),
        _ => Arg::Double(x.f64()),
    }
}

/// The entries in row-major order in a new block.
pub(crate) fn pack<T: Element>(gpu: &Cuda, source: &CudaBlock<T>, layout: &Layout) -> Result<CudaBlock<T>> {
    let mut out = gpu.allocate(layout.len())?;
    copy_into(gpu, source, layout, &mut out)?;
    Ok(out)
}

/// The entries in row-major order over those of a block.
pub(crate) fn copy_into<T: Element>(
    gpu: &Cuda,
    source: &CudaBlock<T>,
    layout: &Layout,
    out: &mut CudaBlock<T>,
) -> Result<()> {
    check("copy", source.len(), layout);
    assert_eq!(out.len(), layout.len(), "copy: the result's length");
    if layout.len() == 0 {
        return Ok(());
    }
    let nest = loops([layout]);
    let (outer, inner) = launch::split(&nest);
    let len: usize = inner.iter().map(|l| l.size).product();
    let steps: usize = outer.iter().map(|l| l.size).product();
    for step in 0..steps {
        let (mut from, mut rest) = (layout.offset() as isize, step);
        for l in outer.iter().rev() {
            from += (rest % l.size) as isize * l.strides[0];
            rest /= l.size;
        }
        let (from, to) = (source.at(from as usize), out.at(step * len));
        // SAFETY: the layout lies in the source, the result holds all of its entries and is the caller's alone.
        unsafe { copy_loops(gpu, size_of::<T>(), from, to, inner)? };
    }
    Ok(())
}

/// Copies the entries of at most eight loops.
///
/// # Safety
/// From `from` on, the loops stay inside a block; at `to` there is room for their entries, which the caller owns alone.
unsafe fn copy_loops(gpu: &Cuda, bytes: usize, from: u64, to: u64, inner: &[Loop<1>]) -> Result<()> {
    let len: usize = inner.iter().map(|l| l.size).product();
    let (source, out) = (Arg::Pointer(from), Arg::Pointer(to));
    if let Some(t) = launch::transpose(inner)
        && let Some(rest) = Nest::new(&t.rest)
    {
        let batch: usize = t.rest.iter().map(|l| l.size).product();
        let geometry = launch::tiles(t.rows, t.cols, batch);
        let steps = (Arg::Int(t.source_step as i64), Arg::Int(t.out_step as i64));
        let args = [source, out, int(t.rows), int(t.cols), steps.0, steps.1, int(batch), Arg::Nest(rest)];
        let name = format!("transpose_{bytes}");
        // SAFETY: the same entries in tiles; the rest is the caller's word.
        return unsafe { gpu.launch("copy", (Source::Elementwise, &name), geometry, &args) };
    }
    let Some(nest) = Nest::new(inner) else { unreachable!("split leaves what fits") };
    let name = format!("copy_{bytes}");
    // SAFETY: the caller's word.
    unsafe {
        let args = [source, out, int(len), Arg::Nest(nest)];
        gpu.launch("copy", (Source::Elementwise, &name), launch::entries(len), &args)
    }
}

pub(crate) fn copy<T: Element>(gpu: &Cuda, source: &Storage<T>, layout: &Layout, out: &mut Storage<T>) -> Result<()> {
    copy_into(gpu, source.cuda("copy")?, layout, out.cuda_mut("copy")?)
}

pub(crate) fn cast<A: Element, B: Element>(
    gpu: &Cuda,
    source: &Storage<A>,
    layout: &Layout,
    out: &mut Storage<B>,
) -> Result<()> {
    cast_into(gpu, source.cuda("cast")?, layout, out.cuda_mut("cast")?)
}

fn cast_into<A: Element, B: Element>(
    gpu: &Cuda,
    source: &CudaBlock<A>,
    layout: &Layout,
    out: &mut CudaBlock<B>,
) -> Result<()> {
    check("cast", source.len(), layout);
    assert_eq!(out.len(), layout.len(), "cast: the result's length");
    let len = layout.len();
    if len == 0 {
        return Ok(());
    }
    let Some(nest) = Nest::new(&loops([layout])) else {
        let packed = pack(gpu, source, layout)?;
        return cast_into(gpu, &packed, &Layout::contiguous(&[len]), out);
    };
    let args = [start(source, layout), Arg::Pointer(out.at(0)), int(len), Arg::Nest(nest)];
    // A number cast to its own type is copied, bit by bit.
    let (source, name) = match A::DTYPE == B::DTYPE {
        true => (Source::Elementwise, format!("copy_{}", size_of::<A>())),
        false => (Source::Cast, format!("cast_{}_{}", A::DTYPE, B::DTYPE)),
    };
    // SAFETY: the layout lies in the source; the result holds as many entries and is the caller's alone.
    unsafe { gpu.launch("cast", (source, &name), launch::entries(len), &args) }
}

pub(crate) fn unary<T: Scalar>(
    gpu: &Cuda,
    f: Unary<T>,
    source: &Storage<T>,
    layout: &Layout,
    out: &mut Storage<T>,
) -> Result<()> {
    unary_into(gpu, f, source.cuda("map")?, layout, out.cuda_mut("map")?)
}

fn unary_into<T: Scalar>(
    gpu: &Cuda,
    f: Unary<T>,
    source: &CudaBlock<T>,
    layout: &Layout,
    out: &mut CudaBlock<T>,
) -> Result<()> {
    check("map", source.len(), layout);
    assert_eq!(out.len(), layout.len(), "map: the result's length");
    let len = layout.len();
    if len == 0 {
        return Ok(());
    }
    let Some(nest) = Nest::new(&loops([layout])) else {
        let packed = pack(gpu, source, layout)?;
        return unary_into(gpu, f, &packed, &Layout::contiguous(&[len]), out);
    };
    let (operation, operand) = match f {
        Unary::Scale(factor) => (0, factor),
        Unary::Shift(term) => (1, term),
        Unary::Abs => (2, T::zero()),
        Unary::Sqrt => (3, T::zero()),
        Unary::Recip => (4, T::zero()),
        Unary::Known => (5, T::zero()),
        Unary::OrZero => (6, T::zero()),
    };
    let name = format!("unary_{}", T::DTYPE);
    let out = Arg::Pointer(out.at(0));
    let args = [start(source, layout), out, int(len), Arg::Nest(nest), Arg::Int(operation), number(operand)];
    // SAFETY: the layout lies in the source; the result holds as many entries and is the caller's alone.
    unsafe { gpu.launch("map", (Source::Elementwise, &name), launch::entries(len), &args) }
}

pub(crate) fn binary<T: Scalar>(
    gpu: &Cuda,
    f: Binary,
    (a, a_at): (&Storage<T>, &Layout),
    (b, b_at): (&Storage<T>, &Layout),
    out: &mut Storage<T>,
) -> Result<()> {
    let (a, b, out) = (a.cuda("elementwise")?, b.cuda("elementwise")?, out.cuda_mut("elementwise")?);
    binary_into(gpu, f, (a, a_at), (b, b_at), out)
}

fn binary_into<T: Scalar>(
    gpu: &Cuda,
    f: Binary,
    (a, a_at): (&CudaBlock<T>, &Layout),
    (b, b_at): (&CudaBlock<T>, &Layout),
    out: &mut CudaBlock<T>,
) -> Result<()> {
    check("elementwise", a.len(), a_at);
    check("elementwise", b.len(), b_at);
    assert_eq!(a_at.shape(), b_at.shape(), "elementwise: the operands' shapes");
    assert_eq!(out.len(), a_at.len(), "elementwise: the result's length");
    let len = out.len();
    if len == 0 {
        return Ok(());
    }
    let Some(nest) = Nest::new(&loops([a_at, b_at])) else {
        let (a, b) = (pack(gpu, a, a_at)?, pack(gpu, b, b_at)?);
        let plain = Layout::contiguous(&[len]);
        return binary_into(gpu, f, (&a, &plain), (&b, &plain), out);
    };
    let operation = match f {
        Binary::Add => 0,
        Binary::Sub => 1,
        Binary::Mul => 2,
        Binary::Div => 3,
        Binary::Max => 4,
        Binary::Twice => 5,
        Binary::Half => 6,
        Binary::Signed => 7,
    };
    let name = format!("binary_{}", T::DTYPE);
    let out = Arg::Pointer(out.at(0));
    let args = [start(a, a_at), start(b, b_at), out, int(len), Arg::Nest(nest), Arg::Int(operation)];
    // SAFETY: the layouts lie in their blocks; the result holds as many entries and is the caller's alone.
    unsafe { gpu.launch("elementwise", (Source::Elementwise, &name), launch::entries(len), &args) }
}

/// `out = source + beta out` over the entries of `at` in `out`; the source is row-major, or zeros where there is none.
pub(crate) fn blend<T: Scalar>(
    gpu: &Cuda,
    source: Option<&CudaBlock<T>>,
    out: &mut CudaBlock<T>,
    at: &Layout,
    beta: T,
) -> Result<()> {
    let len = at.len();
    check("gemm", out.len(), at);
    if len == 0 {
        return Ok(());
    }
    let nest = loops([&Layout::contiguous(at.shape()), at]);
    let (outer, inner) = launch::split(&nest);
    let Some(nest) = Nest::new(inner) else { unreachable!("split leaves what fits") };
    let (steps, len) = (outer.iter().map(|l| l.size).product(), inner.iter().map(|l| l.size).product());
    let name = format!("blend_{}", T::DTYPE);
    for step in 0..steps {
        let ([mut from, mut to], mut rest) = ([0, at.offset() as isize], step);
        for l in outer.iter().rev() {
            from += (rest % l.size) as isize * l.strides[0];
            to += (rest % l.size) as isize * l.strides[1];
            rest /= l.size;
        }
        let source = Arg::Pointer(source.map_or(0, |source| source.at(from as usize)));
        let args = [source, Arg::Pointer(out.at(to as usize)), int(len), Arg::Nest(nest), number(beta)];
        // SAFETY: the layout lies in `out`, which is the caller's alone; the source holds its entries in row-major order.
        unsafe { gpu.launch("gemm", (Source::Elementwise, &name), launch::entries(len), &args)? };
    }
    Ok(())
}
