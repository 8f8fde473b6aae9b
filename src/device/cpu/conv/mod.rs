//! Convolutions on the host without an im2col.
//!
//! A result is computed in blocks of image rows. The source rows that a block needs are used where they lie or, where the
//! window leaves the image, copied once into a scratch tile with zeros around them; in either, the entries that one tap of the kernel
//! meets for a result position lie in a run of channels, and neighbouring taps make one longer run. So a matrix product needs no
//! gathered operand: [`correlate`] multiplies runs, read where they are, with a repacked weight, and [`weights`] sums products of runs
//! with the output's gradient.
//!
//! 3 x 3 kernels of stride 1 between many channels take fewer multiplications ([`winograd`]).
//!
//! Cost: 2 B O K C_out / groups flops for K = taps C_in; one pass over source and result for each block, and one over the weight
//! to repack it.

mod correlate;
mod tile;
pub(crate) mod weights;
mod winograd;

use super::{Cpu, part};
use crate::{
    device::conv::{Axis, Geometry},
    scalar::Scalar,
};
use correlate::{Filter, Shape, correlate};

/// Bytes of source and result that a block may hold: a part of the second-level cache.
const BLOCK: usize = 384 << 10;

/// The axes of each spatial mode; passes are their products.
pub(in crate::device) type Axes = [Vec<Axis>; 3];

pub(crate) fn forward<T: Scalar>(
    cpu: &Cpu,
    g: &Geometry,
    axes: &Axes,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    out: &mut [T],
) {
    let (ci, co, taps) = (g.c_in / g.groups, g.c_out / g.groups, g.taps());
    let filter = Filter {
        data: w,
        taps: tap_strides(g),
        row: taps,
        cols: (0..co).map(|n| n * ci * taps).collect(),
        group: co * ci * taps,
        bias,
        bias_period: co,
    };
    let shape = Shape { batch: g.batch, groups: g.groups, source: ci, result: co };
    match merged(g, axes) {
        Some((shape, axes)) => correlate(cpu, shape, &axes, x, &filter, out),
        None => correlate(cpu, shape, axes, x, &filter, out),
    }
}

pub(crate) fn input_gradient<T: Scalar>(
    cpu: &Cpu,
    g: &Geometry,
    axes: &Axes,
    dy: &[T],
    w: &[T],
    bias: Option<&[T]>,
    out: &mut [T],
) {
    let (ci, co, taps) = (g.c_in / g.groups, g.c_out / g.groups, g.taps());
    let mut filter = Filter {
        data: w,
        taps: tap_strides(g),
        row: ci * taps,
        cols: (0..ci).map(|n| n * taps).collect(),
        group: co * ci * taps,
        bias,
        bias_period: ci,
    };
    let mut shape = Shape { batch: g.batch, groups: g.groups, source: co, result: ci };
    let patches = g.groups == 1
        && g.kernel[2] == g.stride[2]
        && g.dilation[2] == 1
        && g.before[2] == 0
        && g.kernel[2] * g.output[2] == g.input[2];
    if let Some((shape, axes)) = merged(g, axes) {
        // The merged shape was made for the other direction.
        let shape = Shape { source: shape.result, result: shape.source, ..shape };
        correlate(cpu, shape, &axes, dy, &filter, out);
    } else if patches && g.kernel[2] > 1 {
        // The windows of a row lie side by side: a window's entries are the channels of one result position.
        filter.cols = (0..g.kernel[2]).flat_map(|k| (0..ci).map(move |n| n * taps + k)).collect();
        shape.result = ci * g.kernel[2];
        let n = g.output[2];
        let whole = Axis {
            source: n,
            result: n,
            first: 0,
            step: 1,
            count: n,
            stride: 1,
            taps: vec![crate::device::conv::Tap { offset: 0, k: 0 }],
        };
        let axes = [axes[0].clone(), axes[1].clone(), vec![whole]];
        correlate(cpu, shape, &axes, dy, &filter, out);
    } else {
        correlate(cpu, shape, axes, dy, &filter, out);
    }
}

fn tap_strides(g: &Geometry) -> [usize; 3] {
    [g.kernel[1] * g.kernel[2], g.kernel[2], 1]
}

/// A pointwise convolution sees no neighbours: all its positions are one long column.
fn merged(g: &Geometry, axes: &Axes) -> Option<(Shape, Axes)> {
    g.is_pointwise().then(|| {
        let n = g.batch * g.input.iter().product::<usize>();
        let axis =
            |n| Axis { source: n, result: n, count: n, first: 0, step: 1, stride: 1, taps: axes[0][0].taps.clone() };
        let shape = Shape { batch: 1, groups: 1, source: g.c_in, result: g.c_out };
        (shape, [vec![axis(1)], vec![axis(n)], vec![axis(1)]])
    })
}

/// Rows of a result with `rows` rows of `row` bytes (with what they read) that make a block: within the cache, and enough blocks
/// for every thread.
pub(in crate::device::cpu) fn block_rows(cpu: &Cpu, images: usize, rows: usize, row: usize) -> usize {
    let fit = (BLOCK / row.max(1)).max(1);
    let share = match cpu.thread_count() {
        1 => rows,
        threads => (images * rows).div_ceil(4 * threads),
    };
    let most = fit.min(share).clamp(1, rows.max(1));
    // Equal blocks: the last is as large as the others.
    rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
}

/// A block of result rows: image, index of the first spatial mode, first row, and the entries.
pub(in crate::device::cpu) struct Block<'a, T> {
    pub(in crate::device::cpu) image: usize,
    pub(in crate::device::cpu) plane: usize,
    pub(in crate::device::cpu) row: usize,
    pub(in crate::device::cpu) out: &'a mut [T],
}

/// The blocks of a row-major `[images, planes, rows, row]`, `height` rows each.
pub(in crate::device::cpu) fn blocks<T>(
    out: &mut [T],
    [planes, rows, row]: [usize; 3],
    height: usize,
) -> Vec<Block<'_, T>> {
    if out.is_empty() {
        return Vec::new();
    }
    let of_plane = |(i, out): (usize, _)| {
        let out: &mut [T] = out;
        let block = move |(j, out)| Block { image: i / planes, plane: i % planes, row: j * height, out };
        out.chunks_mut(height * row).enumerate().map(block)
    };
    out.chunks_mut(rows * row).enumerate().flat_map(of_plane).collect()
}

/// Does some work for each block, shared among the threads.
pub(in crate::device::cpu) fn for_each_block<T: Scalar>(
    cpu: &Cpu,
    blocks: Vec<Block<'_, T>>,
    work: &(dyn Fn(Block<'_, T>) + Sync),
) {
    cpu.map_pieces(blocks, work);
}

/// Planes and row ranges of `[planes, rows]`, `height` rows each.
pub(in crate::device::cpu) fn blocks_of(
    [planes, rows]: [usize; 2],
    height: usize,
) -> Vec<(usize, std::ops::Range<usize>)> {
    let of_plane = |plane| (0..rows).step_by(height).map(move |row| (plane, row..(row + height).min(rows)));
    (0..planes).flat_map(of_plane).collect()
}
