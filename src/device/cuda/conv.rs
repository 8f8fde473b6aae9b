//! Convolutions on a GPU as matrix products.
//!
//! What each output sees is written down as a row of columns `[output][tap][channel]` (im2col), which cuBLAS multiplies; the gradient by the input
//! comes back as such columns, from which every entry gathers its own. Columns are made in pieces of at most [`PIECE`] entries. Where they are the
//! image itself (pointwise, or patches that lie in one piece) there are none.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    compile::Source,
    context::Cuda,
    depthwise,
    elementwise::{copy_into, pack},
    gemm::product,
    launch::{self, Arg, Images, int},
};
use crate::{
    device::{
        conv::{Geometry, Operand},
        gemm::{Batch, Gemm, Matrix},
        layout::{Layout, Modes},
        storage::Storage,
    },
    error::{Error, Result},
    scalar::Scalar,
};
use std::ops::Range;

/// Entries of the columns that exist at a time, unless one image's row of outputs has more.
const PIECE: usize = 1 << 25;

/// A block and the position in it from which on an operand lies without gaps.
pub(super) type At<'a, T> = (&'a CudaBlock<T>, usize);

/// Where an operand lies. Panics, before anything is queued, if it would leave its block.
pub(super) fn at<'a, T: Scalar>(operand: Operand<'a, T>, len: usize) -> Result<At<'a, T>> {
    let block = operand.0.cuda("conv")?;
    assert!(operand.1 + len <= block.len(), "conv: {len} entries from {} in a block of {}", operand.1, block.len());
    Ok((block, operand.1))
}

fn bias_at<'a, T: Scalar>(bias: Option<Operand<'a, T>>, len: usize) -> Result<Option<At<'a, T>>> {
    bias.map(|bias| at(bias, len)).transpose()
}

/// The address of an operand; 0 where there is none.
pub(super) fn pointer<T: Scalar>(operand: Option<At<T>>) -> Arg {
    Arg::Pointer(operand.map_or(0, |(block, at)| block.at(at)))
}

/// The sizes for a kernel.
pub(super) fn images(operation: &'static str, g: &Geometry) -> Result<Images> {
    let too_long = || Error::shape(operation, "a spatial mode reaches over 2^30 entries, more than kernels count to");
    Images::new(g).ok_or_else(too_long)
}

/// The sizes of the products: outputs, the entries that one of a group sees, and the output channels of a group.
struct Sizes {
    outputs: usize,
    seen: usize,
    width: usize,
    c_out: usize,
}

impl Sizes {
    fn new(g: &Geometry) -> Self {
        let (width, c_out) = (g.c_in / g.groups, g.c_out / g.groups);
        Self { outputs: g.batch * g.output.iter().product::<usize>(), seen: g.taps() * width, width, c_out }
    }
}

/// Columns in memory: from where on, and how far outputs and groups are apart. Taps and channels lie side by side.
#[derive(Clone, Copy)]
struct Columns {
    offset: usize,
    output: isize,
    group: isize,
}

impl Columns {
    /// The image itself, where it is what the outputs see: one tap, or one group and windows side by side in the last mode.
    fn in_place(g: &Geometry, offset: usize) -> Option<Self> {
        let whole = g.before == [0; 3] && g.kernel[..2] == [1, 1] && g.stride[..2] == [1, 1];
        let same = g.input[..2] == g.output[..2] && g.input[2] == g.output[2] * g.kernel[2];
        let patches = g.stride[2] == g.kernel[2] && (g.dilation[2] == 1 || g.kernel[2] == 1);
        let fits = whole && same && patches && (g.kernel[2] == 1 || g.groups == 1);
        let width = g.c_in / g.groups;
        fits.then_some(Self { offset, output: (g.c_in * g.kernel[2]) as isize, group: width as isize })
    }

    /// As the kernel writes those of `count` outputs.
    fn written(s: &Sizes, count: usize) -> Self {
        Self { offset: 0, output: s.seen as isize, group: (count * s.seen) as isize }
    }

    fn matrix(self) -> Matrix {
        Matrix { offset: self.offset, rows: self.output, cols: 1 }
    }
}

/// Ranges of outputs whose columns fit a piece: whole images, or parts of one.
fn pieces(g: &Geometry, s: &Sizes) -> Vec<Range<usize>> {
    let each = s.outputs.checked_div(g.batch).unwrap_or(0).max(1);
    let most = (PIECE / (s.seen * g.groups).max(1)).max(1);
    if most >= each {
        let step = most / each * each;
        return (0..s.outputs).step_by(step).map(|first| first..(first + step).min(s.outputs)).collect();
    }
    let part = |image: usize| {
        let end = (image + 1) * each;
        (image * each..end).step_by(most).map(move |first| first..(first + most).min(end))
    };
    (0..g.batch).flat_map(part).collect()
}

/// Channels that the kernels move at a time: 16 bytes of them where all operands allow it.
fn packed<T: Scalar>(g: &Geometry, addresses: &[u64]) -> usize {
    let many = 16 / size_of::<T>();
    let fits = (g.c_in / g.groups).is_multiple_of(many) && addresses.iter().all(|address| address % 16 == 0);
    if fits { many } else { 1 }
}

fn kernel_name<T: Scalar>(stem: &str, pack: usize) -> String {
    format!("{}{stem}_{}", if pack > 1 { "wide_" } else { "" }, T::DTYPE)
}

/// The columns of some outputs.
fn columns<T: Scalar>(gpu: &Cuda, g: &Geometry, x: At<T>, range: &Range<usize>) -> Result<CudaBlock<T>> {
    let s = Sizes::new(g);
    let out = gpu.allocate::<T>(g.groups * range.len() * s.seen)?;
    if out.len() == 0 {
        return Ok(out);
    }
    let pack = packed::<T>(g, &[x.0.at(x.1)]);
    check_count(out.len() / pack)?;
    let (first, count, width) = (int(range.start), int(range.len()), int(s.width / pack));
    let sizes = Arg::Images(images("conv", g)?);
    let args = [pointer(Some(x)), Arg::Pointer(out.at(0)), first, count, int(g.groups), width, sizes];
    let name = kernel_name::<T>("columns_of", pack);
    // SAFETY: the image lies in its block, as `at` checked; the columns are new, and as many as the kernel writes.
    unsafe { gpu.launch("conv", (Source::Conv, &name), launch::entries(out.len() / pack), &args)? };
    Ok(out)
}

fn check_count(packs: usize) -> Result<()> {
    if packs < 1 << 31 {
        return Ok(());
    }
    Err(Error::shape(
        "conv",
        format!("one output sees {packs} packs of channels, more than the 2^31 that kernels count to"),
    ))
}

/// The weight as products take it: `[c_out][tap][channel]`, and from where on.
fn by_tap<T: Scalar>(gpu: &Cuda, g: &Geometry, w: At<T>) -> Result<Option<CudaBlock<T>>> {
    let (taps, width) = (g.taps(), g.c_in / g.groups);
    if taps == 1 || width == 1 {
        return Ok(None);
    }
    let layout = Layout::new(&[g.c_out, taps, width], &[(taps * width) as isize, 1, taps as isize], w.1);
    pack(gpu, w.0, &layout).map(Some)
}

/// Every row of `out` is the bias.
fn spread<T: Scalar>(gpu: &Cuda, bias: At<T>, rows: usize, width: usize, out: &mut CudaBlock<T>) -> Result<()> {
    copy_into(gpu, bias.0, &Layout::new(&[rows, width], &[0, 1], bias.1), out)
}

/// `C = A B + beta C` for each group; a stride of A, B and C from one group to the next.
fn grouped<T: Scalar>(
    [m, n, k]: [usize; 3],
    operands: [Matrix; 3],
    groups: usize,
    steps: [isize; 3],
    beta: T,
) -> Gemm<T> {
    let [a, b, c] = operands;
    let batch: Modes<Batch> = std::iter::once(Batch { size: groups, a: steps[0], b: steps[1], c: steps[2] }).collect();
    Gemm { m, n, k, a, b, c, batch, sum: Modes::new(), alpha: T::one(), beta }
}

/// Row-major from an offset on.
fn rows(offset: usize, width: usize) -> Matrix {
    Matrix { offset, rows: width as isize, cols: 1 }
}

pub(crate) fn forward<T: Scalar>(
    gpu: &Cuda,
    g: &Geometry,
    x: Operand<T>,
    w: Operand<T>,
    bias: Option<Operand<T>>,
    out: &mut Storage<T>,
) -> Result<()> {
    let (x, w, bias) = (at(x, g.input_len())?, at(w, g.weight_len())?, bias_at(bias, g.c_out)?);
    let out = out.cuda_mut("conv")?;
    assert_eq!(out.len(), g.output_len(), "conv: the result's length");
    if out.len() == 0 {
        return Ok(());
    }
    if g.is_depthwise() {
        return depthwise::forward(gpu, g, x, w, bias, out);
    }
    let s = Sizes::new(g);
    let beta = if bias.is_some() { T::one() } else { T::zero() };
    if let Some(bias) = bias {
        spread(gpu, bias, s.outputs, g.c_out, out)?;
    }
    let own = by_tap(gpu, g, w)?;
    let (w, w_first) = own.as_ref().map_or(w, |own| (own, 0));
    let w_at = Matrix { offset: w_first, rows: 1, cols: s.seen as isize };
    let mut multiply = |seen: &CudaBlock<T>, columns: Columns, range: &Range<usize>| {
        let steps = [columns.group, (s.c_out * s.seen) as isize, s.c_out as isize];
        let operands = [columns.matrix(), w_at, rows(range.start * g.c_out, g.c_out)];
        let p = grouped([range.len(), s.c_out, s.seen], operands, g.groups, steps, beta);
        product(gpu, &p, seen, w, out)
    };
    if let Some(columns) = Columns::in_place(g, x.1) {
        return multiply(x.0, columns, &(0..s.outputs));
    }
    for range in pieces(g, &s) {
        multiply(&columns(gpu, g, x, &range)?, Columns::written(&s, range.len()), &range)?;
    }
    Ok(())
}

pub(crate) fn input_gradient<T: Scalar>(
    gpu: &Cuda,
    g: &Geometry,
    dy: Operand<T>,
    w: Operand<T>,
    bias: Option<Operand<T>>,
    out: &mut Storage<T>,
) -> Result<()> {
    let (dy, w, bias) = (at(dy, g.output_len())?, at(w, g.weight_len())?, bias_at(bias, g.c_in)?);
    let out = out.cuda_mut("conv")?;
    assert_eq!(out.len(), g.input_len(), "conv: the result's length");
    if out.len() == 0 {
        return Ok(());
    }
    if g.is_depthwise() {
        return depthwise::input_gradient(gpu, g, dy, w, bias, out);
    }
    let s = Sizes::new(g);
    let own = by_tap(gpu, g, w)?;
    let (w, w_first) = own.as_ref().map_or(w, |own| (own, 0));
    let multiply = |to: &mut CudaBlock<T>, columns: Columns, range: &Range<usize>, beta: T| {
        let steps = [s.c_out as isize, (s.c_out * s.seen) as isize, columns.group];
        let operands = [rows(dy.1 + range.start * g.c_out, g.c_out), rows(w_first, s.seen), columns.matrix()];
        let p = grouped([range.len(), s.seen, s.c_out], operands, g.groups, steps, beta);
        product(gpu, &p, dy.0, w, to)
    };
    if let Some(columns) = Columns::in_place(g, 0) {
        let Some(bias) = bias else { return multiply(out, columns, &(0..s.outputs), T::zero()) };
        spread(gpu, bias, g.input_len() / g.c_in, g.c_in, out)?;
        return multiply(out, columns, &(0..s.outputs), T::one());
    }
    let each = s.outputs / g.batch;
    for range in pieces(g, &s) {
        let mut slopes = gpu.allocate::<T>(g.groups * range.len() * s.seen)?;
        multiply(&mut slopes, Columns::written(&s, range.len()), &range, T::zero())?;
        let within = range.start / each..range.end.div_ceil(each);
        gather_columns(gpu, g, &slopes, bias, &range, within, range.start % each > 0, out)?;
    }
    Ok(())
}

/// Adds up what the columns of some outputs give to the entries of `within`, the images that the outputs are of.
#[allow(clippy::too_many_arguments)]
fn gather_columns<T: Scalar>(
    gpu: &Cuda,
    g: &Geometry,
    slopes: &CudaBlock<T>,
    bias: Option<At<T>>,
    range: &Range<usize>,
    within: Range<usize>,
    accumulate: bool,
    out: &mut CudaBlock<T>,
) -> Result<()> {
    let bias_address = bias.map_or(0, |(block, at)| block.at(at));
    let pack = packed::<T>(g, &[bias_address]);
    let entries = within.len() * g.input.iter().product::<usize>() * g.c_in / pack;
    let args = [
        Arg::Pointer(slopes.at(0)),
        Arg::Pointer(bias_address),
        Arg::Pointer(out.at(0)),
        int(range.start),
        int(range.len()),
        int(within.start),
        int(within.len()),
        int(g.groups),
        int(g.c_in / g.groups / pack),
        int(accumulate as usize),
        Arg::Images(images("conv", g)?),
    ];
    let name = kernel_name::<T>("gather_columns", pack);
    // SAFETY: the columns are those of the range; entries of the named images are written, which lie in `out`, the caller's alone.
    unsafe { gpu.launch("conv", (Source::Conv, &name), launch::heavy(entries), &args) }
}

pub(crate) fn weight_gradient<T: Scalar>(
    gpu: &Cuda,
    g: &Geometry,
    x: Operand<T>,
    dy: Operand<T>,
    out: &mut Storage<T>,
) -> Result<()> {
    let (x, dy) = (at(x, g.input_len())?, at(dy, g.output_len())?);
    let out = out.cuda_mut("conv")?;
    assert_eq!(out.len(), g.weight_len(), "conv: the result's length");
    let s = Sizes::new(g);
    if out.len() == 0 {
        return Ok(());
    }
    if s.outputs == 0 {
        return out.clear();
    }
    if g.is_depthwise() {
        return depthwise::weight_gradient(gpu, g, x, dy, out);
    }
    if g.taps() == 1 || s.width == 1 {
        return sum_products(gpu, g, &s, x, dy, out);
    }
    let mut by_tap = gpu.allocate::<T>(out.len())?;
    sum_products(gpu, g, &s, x, dy, &mut by_tap)?;
    let strides = [s.seen as isize, 1, s.width as isize];
    copy_into(gpu, &by_tap, &Layout::new(&[g.c_out, s.width, g.taps()], &strides, 0), out)
}

/// `out[c_out][tap][channel] = dy^T columns`
fn sum_products<T: Scalar>(
    gpu: &Cuda,
    g: &Geometry,
    s: &Sizes,
    x: At<T>,
    dy: At<T>,
    out: &mut CudaBlock<T>,
) -> Result<()> {
    let mut multiply = |seen: &CudaBlock<T>, columns: Columns, range: &Range<usize>, beta: T| {
        let steps = [s.c_out as isize, columns.group, (s.c_out * s.seen) as isize];
        let slopes = rows(dy.1 + range.start * g.c_out, g.c_out).t();
        let operands = [slopes, columns.matrix(), rows(0, s.seen)];
        let p = grouped([s.c_out, s.seen, range.len()], operands, g.groups, steps, beta);
        product(gpu, &p, dy.0, seen, out)
    };
    if let Some(columns) = Columns::in_place(g, x.1) {
        return multiply(x.0, columns, &(0..s.outputs), T::zero());
    }
    for range in pieces(g, s) {
        let beta = if range.start == 0 { T::zero() } else { T::one() };
        multiply(&columns(gpu, g, x, &range)?, Columns::written(s, range.len()), &range, beta)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(input: [usize; 3], kernel: [usize; 3], stride: [usize; 3], before: [usize; 3]) -> Geometry {
        let output = [0, 1, 2].map(|m| (input[m] + 2 * before[m] - kernel[m]) / stride[m] + 1);
        let dilation = [1; 3];
        Geometry { batch: 5, input, output, kernel, stride, dilation, before, c_in: 6, c_out: 4, groups: 1 }
    }

    #[test]
    fn the_image_serves_as_columns_where_it_is_them() {
        let in_place = |g: &Geometry| Columns::in_place(g, 7).map(|c| (c.offset, c.output, c.group));
        let pointwise = geometry([1, 8, 8], [1; 3], [1; 3], [0; 3]);
        assert_eq!(in_place(&pointwise), Some((7, 6, 6)));
        assert_eq!(in_place(&Geometry { groups: 2, ..pointwise.clone() }), Some((7, 6, 3)));
        assert_eq!(in_place(&geometry([1, 1, 8], [1, 1, 4], [1, 1, 4], [0; 3])), Some((7, 24, 6)));
        for g in [
            Geometry { groups: 2, ..geometry([1, 1, 8], [1, 1, 4], [1, 1, 4], [0; 3]) },
            geometry([1, 1, 9], [1, 1, 4], [1, 1, 4], [0; 3]),
            geometry([1, 8, 8], [1, 2, 2], [1, 2, 2], [0; 3]),
            geometry([1, 8, 8], [1; 3], [1, 2, 2], [0; 3]),
            geometry([1, 8, 8], [1, 3, 3], [1; 3], [0, 1, 1]),
        ] {
            assert_eq!(in_place(&g), None);
        }
    }

    #[test]
    fn pieces_are_all_outputs_in_order_and_end_with_images() {
        for (input, batch) in [([1, 8, 8], 5), ([1, 700, 700], 3), ([30, 200, 200], 2), ([1, 1, 1], 0)] {
            let g = Geometry { batch, ..geometry(input, [1, 3, 3], [1; 3], [0, 1, 1]) };
            let s = Sizes::new(&g);
            let each = s.outputs.checked_div(batch).unwrap_or(1);
            let mut end = 0;
            for range in pieces(&g, &s) {
                assert_eq!(range.start, end);
                end = range.end;
                assert!(range.len() * s.seen <= PIECE);
                // Either whole images or within one.
                let (first, last) = (range.start / each, (range.end - 1) / each);
                assert!(first == last || (range.start % each == 0 && range.end % each == 0));
            }
            assert_eq!(end, s.outputs);
        }
    }
}
