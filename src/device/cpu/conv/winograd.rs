//! 3 x 3 windows of stride 1 with 16 multiplications for four results instead of 36: F(2 x 2, 3 x 3) of A. Lavin and S. Gray, *Fast
//! algorithms for convolutional neural networks*, CVPR 2016, after S. Winograd.
//!
//! Two neighbouring results of a window of three, y0 = d0 g0 + d1 g1 + d2 g2 and y1 = d1 g0 + d2 g1 + d3 g2, are
//!
//! ```text
//! y0 = m0 + m1 + m2    m0 = (d0 - d2) g0    m1 = (d1 + d2) (g0 + g1 + g2) / 2
//! y1 = m1 - m2 - m3    m3 = (d1 - d3) g2    m2 = (d2 - d1) (g0 - g1 + g2) / 2
//! ```
//!
//! and in two modes the same is done in one after the other: a tile of 4 x 4 source entries gives 2 x 2 results. With many channels each
//! of the 16 products is a matrix product over tiles. A result depends on exactly the source entries that it does by definition, so NaN
//! spreads no further; the factors of 1/2 and 1 cost about one bit of the rounding error.
//!
//! Cost: 2 B O C_in C_out 16 / 4 flops, and 4 (C_in + C_out) entries written and read for each position, in the second-level cache.

use super::{
    Axes, BLOCK, Block, blocks,
    correlate::{Filter, Multiply, Run, Shape, panels, stretches},
    for_each_block,
};
use crate::{
    device::{
        conv::Axis,
        cpu::{Cpu, HostBlock, vectorized},
    },
    scalar::Scalar,
};

/// Channels below which the transforms cost what the products save.
const CHANNELS: usize = 32;

/// Source channels of the weight that are transformed together.
const CHUNK: usize = 16;

/// Tiles of a block, at least: each reads the whole weight.
const TILES: usize = 48;

/// The axes of rows and columns, where a pass is two-dimensional with 3 x 3 neighbouring taps, stride 1 and enough channels.
pub(super) fn serves(shape: Shape, axes: &Axes) -> Option<[&Axis; 2]> {
    let [[deep], [high], [wide]] = axes.each_ref().map(Vec::as_slice) else { return None };
    let flat = deep.source == 1 && deep.result == 1 && deep.taps.len() == 1;
    let threes = |axis: &Axis| {
        let neighbours = axis.taps.windows(2).all(|taps| taps[1].offset == taps[0].offset + 1);
        axis.taps.len() == 3 && neighbours && axis.stride == 1 && axis.step == 1 && axis.first == 0
    };
    let many = shape.groups == 1 && shape.source >= CHANNELS && shape.result >= CHANNELS;
    (flat && many && threes(high) && threes(wide)).then_some([high, wide])
}

/// As [`correlate`](super::correlate::correlate).
pub(super) fn correlate<T: Scalar>(
    cpu: &Cpu,
    shape: Shape,
    [high, wide]: [&Axis; 2],
    source: &[T],
    filter: &Filter<T>,
    out: &mut [T],
) {
    let (lanes, panels) = panels::<T>(shape.result);
    let width = panels.iter().sum::<usize>() * lanes;
    let weights = transformed_weight(cpu, shape, [high, wide], filter, &panels, lanes);
    let zeros = vec![T::zero(); width];
    let across = wide.count.div_ceil(2);
    let fit = BLOCK / (16 * (shape.source + shape.result) * size_of::<T>());
    let share = (shape.batch * high.count.div_ceil(2) * across).div_ceil(4 * cpu.thread_count());
    let tile_rows = fit.min(share).max(TILES.min(share)).div_ceil(across).max(1);
    let stretches = stretches(&[Run { offset: 0, len: shape.source, row: 0 }]);
    let work = |block: Block<T>| {
        let rows = block.out.len() / (wide.count * shape.result);
        let tiles = rows.div_ceil(2) * across;
        let image = &source[block.image * high.source * wide.source * shape.source..];
        let mut d = HostBlock::pooled(16 * tiles * shape.source);
        transform_source(image, shape.source, [high, wide], block.row..block.row + rows, d.as_mut_slice());
        let mut m = HostBlock::pooled(16 * tiles * shape.result);
        let positions: Vec<_> = (0..tiles).map(|i| (i * shape.source, i * shape.result)).collect();
        let part_of = |i: usize, len: usize| i * len..(i + 1) * len;
        for i in 0..16 {
            crate::device::cpu::arch().dispatch(Multiply {
                source: &d.as_slice()[part_of(i, tiles * shape.source)],
                positions: &positions,
                stretches: &stretches,
                weights: &weights.as_slice()[part_of(i, shape.source * width)],
                rows: shape.source,
                panels: &panels,
                bias: &zeros,
                channels: 0..shape.result,
                out: &mut m.as_mut_slice()[part_of(i, tiles * shape.result)],
            });
        }
        let results = Results { m: m.as_slice(), tiles, across, channels: shape.result };
        results.write(filter.bias, filter.bias_period, wide.count, block.out);
    };
    let blocks = blocks(out, [1, high.count, wide.count * shape.result], 2 * tile_rows);
    for_each_block(cpu, blocks, &work);
}

/// The weight seen through the transform, as 16 times the panels of a pass with one tap.
fn transformed_weight<T: Scalar>(
    cpu: &Cpu,
    shape: Shape,
    [high, wide]: [&Axis; 2],
    filter: &Filter<T>,
    panels: &[usize],
    lanes: usize,
) -> HostBlock<T> {
    let matrix = shape.source * panels.iter().sum::<usize>() * lanes;
    let mut weights = HostBlock::pooled(16 * matrix);
    // A piece is some source channels of a panel: a slice of each of the 16 matrices.
    let mut pieces: Vec<Piece<'_, T>> = Vec::new();
    for matrix in weights.as_mut_slice().chunks_exact_mut(matrix) {
        let (mut rest, mut first, mut number) = (matrix, 0, 0);
        for &registers in panels {
            let width = registers * lanes;
            let (panel, others) = rest.split_at_mut(shape.source * width);
            rest = others;
            for (i, slice) in panel.chunks_mut(CHUNK * width).enumerate() {
                if number == pieces.len() {
                    pieces.push(Piece { channel: i * CHUNK, first, width, matrices: Vec::with_capacity(16) });
                }
                pieces[number].matrices.push(slice);
                number += 1;
            }
            first += width;
        }
    }
    let down = [0, 1, 2].map(|t| high.taps[t].k * filter.taps[1]);
    let right = [0, 1, 2].map(|t| wide.taps[t].k * filter.taps[2]);
    cpu.map_pieces(pieces, &|piece| piece.fill(filter, down, right));
    weights
}

/// Source channels from `channel` on and `width` result channels from `first` on.
struct Piece<'a, T> {
    channel: usize,
    first: usize,
    width: usize,
    matrices: Vec<&'a mut [T]>,
}

impl<T: Scalar> Piece<'_, T> {
    fn fill(mut self, filter: &Filter<T>, down: [usize; 3], right: [usize; 3]) {
        let width = self.width;
        let cols = &filter.cols[self.first.min(filter.cols.len())..(self.first + width).min(filter.cols.len())];
        // The nine entries of each kernel, side by side over result channels; zeros where there are none.
        let mut kernels = vec![T::zero(); 9 * width];
        for i in 0..self.matrices[0].len() / width {
            let data = &filter.data[(self.channel + i) * filter.row..];
            for (lane, &col) in cols.iter().enumerate() {
                for a in 0..3 {
                    for b in 0..3 {
                        kernels[(3 * a + b) * width + lane] = data[col + down[a] + right[b]];
                    }
                }
            }
            for k in 0..4 {
                let [u0, u1, u2, u3] = &mut self.matrices[4 * k..4 * k + 4] else { return };
                let range = i * width..(i + 1) * width;
                vectorized(
                    #[inline(always)]
                    || {
                        let to = [&mut *u0, &mut *u1, &mut *u2, &mut *u3].map(|u| &mut u[range.clone()]);
                        match k {
                            0 => row::<T, 0>(&kernels, to),
                            1 => row::<T, 1>(&kernels, to),
                            2 => row::<T, 2>(&kernels, to),
                            _ => row::<T, 3>(&kernels, to),
                        }
                    },
                );
            }
        }
    }
}

/// Row `K` of the transform of kernels.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // As in `Results::write`.
fn row<T: Scalar, const K: usize>(kernels: &[T], [u0, u1, u2, u3]: [&mut [T]; 4]) {
    let width = u0.len();
    let g: [&[T]; 9] = std::array::from_fn(|i| &kernels[i * width..(i + 1) * width]);
    let (u1, u2, u3) = (&mut u1[..width], &mut u2[..width], &mut u3[..width]);
    for lane in 0..width {
        let a = combined::<T, K>(g[0][lane], g[3][lane], g[6][lane]);
        let b = combined::<T, K>(g[1][lane], g[4][lane], g[7][lane]);
        let c = combined::<T, K>(g[2][lane], g[5][lane], g[8][lane]);
        u0[lane] = combined::<T, 0>(a, b, c);
        u1[lane] = combined::<T, 1>(a, b, c);
        u2[lane] = combined::<T, 2>(a, b, c);
        u3[lane] = combined::<T, 3>(a, b, c);
    }
}

/// Entry `K` of the transform of three.
#[inline(always)]
fn combined<T: Scalar, const K: usize>(a: T, b: T, c: T) -> T {
    let half = T::of(0.5);
    match K {
        0 => a,
        1 => half * (a + b + c),
        2 => half * (a - b + c),
        _ => c,
    }
}

/// Writes the transformed tiles of some result rows, `[16][tile][channel]`.
fn transform_source<T: Scalar>(
    image: &[T],
    channels: usize,
    [high, wide]: [&Axis; 2],
    rows: std::ops::Range<usize>,
    out: &mut [T],
) {
    let (above, left) = (high.taps[0].offset, wide.taps[0].offset);
    let across = wide.count.div_ceil(2);
    // Four rows after the transform down, with the columns that all tiles see: those of the image, and zeros around them.
    let columns = 2 * across + 2;
    let mut band = HostBlock::pooled(4 * columns * channels);
    let band = band.as_mut_slice();
    band.fill(T::zero());
    let seen = (left.max(0) as usize).min(wide.source)..((columns as isize + left).max(0) as usize).min(wide.source);
    let at = (seen.start as isize - left) as usize * channels;
    let (line, run) = (wide.source * channels, seen.len() * channels);
    let nothing = vec![T::zero(); run];
    let matrix = out.len() / 16;
    for (i, row) in rows.step_by(2).enumerate() {
        let source: [&[T]; 4] = std::array::from_fn(|r| {
            let r = (row + r) as isize + above;
            match (0..high.source as isize).contains(&r) {
                true => &image[r as usize * line + seen.start * channels..][..run],
                false => nothing.as_slice(),
            }
        });
        vectorized(
            #[inline(always)]
            || {
                let mut lines = band.chunks_exact_mut(columns * channels).map(|line| &mut line[at..at + run]);
                let [d0, d1, d2, d3] = source;
                let mut line = |f: fn(T, T) -> T, a: &[T], b: &[T]| {
                    if let Some(to) = lines.next() {
                        to.iter_mut().zip(a.iter().zip(b)).for_each(|(to, (&a, &b))| *to = f(a, b));
                    }
                };
                line(|a, b| a - b, d0, d2);
                line(|a, b| a + b, d1, d2);
                line(|a, b| a - b, d2, d1);
                line(|a, b| a - b, d1, d3);
                for (k, band) in band.chunks_exact(columns * channels).enumerate() {
                    for j in 0..across {
                        let d = &band[2 * j * channels..(2 * j + 4) * channels];
                        let (d0, d) = d.split_at(channels);
                        let (d1, d) = d.split_at(channels);
                        let (d2, d3) = d.split_at(channels);
                        let tile = (i * across + j) * channels;
                        let mut put = |l: usize, f: fn(T, T) -> T, a: &[T], b: &[T]| {
                            let to = &mut out[(4 * k + l) * matrix + tile..][..channels];
                            to.iter_mut().zip(a.iter().zip(b)).for_each(|(to, (&a, &b))| *to = f(a, b));
                        };
                        put(0, |a, b| a - b, d0, d2);
                        put(1, |a, b| a + b, d1, d2);
                        put(2, |a, b| a - b, d2, d1);
                        put(3, |a, b| a - b, d1, d3);
                    }
                }
            },
        );
    }
}

/// The products of a block, `[16][tile][channel]`.
struct Results<'a, T> {
    m: &'a [T],
    tiles: usize,
    across: usize,
    channels: usize,
}

impl<T: Scalar> Results<'_, T> {
    /// Writes 2 x 2 results for each tile, as far as they lie within the `columns` and the rows of `out`.
    #[allow(clippy::needless_range_loop)] // Over several slices at once, as the compiler vectorises it.
    fn write(&self, bias: Option<&[T]>, period: usize, columns: usize, out: &mut [T]) {
        let n = self.channels;
        let line = columns * n;
        let mut offsets = vec![T::zero(); n];
        if let Some(bias) = bias {
            offsets.iter_mut().enumerate().for_each(|(i, b)| *b = bias[i % period]);
        }
        vectorized(
            #[inline(always)]
            || {
                for tile in 0..self.tiles {
                    let (i, j) = (tile / self.across, tile % self.across);
                    let mut m = [&self.m[..0]; 16];
                    for (k, m) in m.iter_mut().enumerate() {
                        *m = &self.m[(k * self.tiles + tile) * n..][..n];
                    }
                    for a in 0..2 {
                        let Some(to) = out.get_mut((2 * i + a) * line..(2 * i + a + 1) * line) else { break };
                        let to = &mut to[2 * j * n..];
                        // Row a of the transform down is a sum or a difference of three.
                        let m = &m[4 * a..];
                        let down = |l: usize| (m[l], m[4 + l], m[8 + l]);
                        let (s0, s1, s2, s3) = (down(0), down(1), down(2), down(3));
                        if to.len() == n {
                            // The last column of an odd number.
                            for c in 0..n {
                                to[c] = offsets[c] + (three(a, s0, c) + three(a, s1, c) + three(a, s2, c));
                            }
                            continue;
                        }
                        let (left, right) = to[..2 * n].split_at_mut(n);
                        for c in 0..n {
                            let (s0, s1, s2, s3) = (three(a, s0, c), three(a, s1, c), three(a, s2, c), three(a, s3, c));
                            left[c] = offsets[c] + (s0 + s1 + s2);
                            right[c] = offsets[c] + (s1 - s2 - s3);
                        }
                    }
                }
            },
        );
    }
}

/// Row `row` of the transform of results, for one entry of three products.
#[inline(always)]
fn three<T: Scalar>(row: usize, (x, y, z): (&[T], &[T], &[T]), c: usize) -> T {
    if row == 0 { x[c] + y[c] + z[c] } else { x[c] - y[c] - z[c] }
}
