//! The gradient by the weight: products of the output's gradient with runs of the source, summed over positions.
//!
//! A tile of sums, six result channels by up to four registers of a run (taps and source channels side by side), stays in
//! registers over a stretch of positions. Each thread has sums of its own for the whole weight; they are added up in order.
#![allow(clippy::needless_range_loop, clippy::manual_memcpy)] // Loops over registers by number are unrolled, and their arrays stay in registers.

use super::{
    blocks_of,
    correlate::{load, store},
    tile::Cut,
};
use crate::{
    device::{
        conv::Geometry,
        cpu::{Cpu, HostBlock, part, simd::Vectors},
    },
    scalar::Scalar,
};
use pulp::Simd;

/// Result channels that are computed together.
const CHANNELS: usize = 6;

/// Registers of a run that are computed together, at most.
const REGISTERS: usize = 4;

/// Positions that a tile of sums stays in registers for. Their entries, one tile's share, come from the second-level cache, which costs less than
/// breaking sums off more often.
const STRETCH: usize = 256;

/// Lanes of the widest register, of the smallest number.
const LANES: usize = 16;

/// Memory of one thread's stretch: the gradient as `[six channels][position]`, and the registers of a run as `[position]`.
struct Scratch<T: Scalar> {
    dy: HostBlock<T>,
    x: HostBlock<T>,
}

/// A run of source channels that one kernel row meets, and its place in the sums.
#[derive(Debug, Clone, Copy)]
struct Run {
    offset: usize,
    len: usize,
    at: usize,
}

pub(crate) fn weight_gradient<T: Scalar>(
    cpu: &Cpu,
    g: &Geometry,
    axes: &[crate::device::conv::Axis; 3],
    x: &[T],
    dy: &[T],
    out: &mut [T],
) {
    let [deep, high, wide] = axes;
    let (ci, co, taps) = (g.c_in / g.groups, g.c_out / g.groups, g.taps());
    let met = [deep, high, wide].map(|axis| axis.taps.len());
    let depth = met.iter().product::<usize>() * ci;
    out.fill(T::zero());
    if out.is_empty() || dy.is_empty() || depth == 0 {
        return;
    }
    let row = g.output[2] * g.c_out;
    let read = (g.input[2] * g.c_in * met[0] * g.input[1]).div_ceil(g.output[1]);
    let height = super::block_rows(cpu, g.batch * g.output[0], g.output[1], (row + read) * size_of::<T>());
    let blocks = blocks_of([g.batch * g.output[0], g.output[1]], height);
    let parts = cpu.thread_count().min(blocks.len());
    let sums = cpu.map_parts(parts, &|i| {
        let mut sums = HostBlock::pooled(g.c_out * depth);
        sums.as_mut_slice().fill(T::zero());
        let mut bases = Vec::new();
        let mut scratch = Scratch {
            dy: HostBlock::pooled(co.next_multiple_of(CHANNELS) * STRETCH),
            x: HostBlock::pooled(REGISTERS * LANES * STRETCH + LANES),
        };
        for (plane, rows) in &blocks[part(blocks.len(), parts, i)] {
            let cut = Cut {
                source: x,
                axes: [deep, high, wide],
                channels: g.c_in,
                image: plane / g.output[0],
                plane: plane % g.output[0],
                rows: rows.clone(),
            };
            let tile = cut.tile();
            bases.clear();
            for q in 0..rows.len() {
                bases.extend((0..wide.count).map(|p| q * high.stride * tile.row + p * wide.stride * g.c_in));
            }
            let dy = &dy[(plane * g.output[1] + rows.start) * row..(plane * g.output[1] + rows.end) * row];
            for group in 0..g.groups {
                let mut runs: Vec<Run> = Vec::new();
                for &(i, start) in &tile.planes {
                    for (j, h) in high.taps.iter().enumerate() {
                        for (k, w) in wide.taps.iter().enumerate() {
                            let (down, right) = (h.offset - high.reach().0, w.offset - wide.reach().0);
                            let offset = start + down as usize * tile.row + right as usize * g.c_in + group * ci;
                            let at = ((i * met[1] + j) * met[2] + k) * ci;
                            match runs.last_mut() {
                                Some(run) if run.offset + run.len == offset && run.at + run.len == at => run.len += ci,
                                _ => runs.push(Run { offset, len: ci, at }),
                            }
                        }
                    }
                }
                let sums = &mut sums.as_mut_slice()[group * co * depth..(group + 1) * co * depth];
                let dy = Gradient { data: dy, channels: g.c_out, first: group * co, count: co };
                crate::device::cpu::arch().dispatch(Accumulate {
                    source: tile.data(),
                    bases: &bases,
                    runs: &runs,
                    dy,
                    depth,
                    sums,
                    scratch: &mut scratch,
                });
            }
        }
        sums
    });
    // From [channel][tap][source channel] to the weight's [channel][source channel][tap].
    let tap = |i: usize| {
        let (d, rest) = (i / (met[1] * met[2]), i % (met[1] * met[2]));
        let k = [deep.taps[d].k, high.taps[rest / met[2]].k, wide.taps[rest % met[2]].k];
        (k[0] * g.kernel[1] + k[1]) * g.kernel[2] + k[2]
    };
    let places: Vec<usize> = (0..depth / ci).map(tap).collect();
    super::super::elementwise::rows(cpu, out, ci * taps, &|channels, out| {
        for (channel, out) in channels.zip(out.chunks_exact_mut(ci * taps)) {
            for sums in &sums {
                let sums = &sums.as_slice()[channel * depth..(channel + 1) * depth];
                for (sums, &place) in sums.chunks_exact(ci).zip(&places) {
                    for (c, &sum) in sums.iter().enumerate() {
                        out[c * taps + place] += sum;
                    }
                }
            }
        }
    });
}

/// The output's gradient at the block's positions, and the channels of one group.
#[derive(Clone, Copy)]
struct Gradient<'a, T> {
    data: &'a [T],
    channels: usize,
    first: usize,
    count: usize,
}

struct Accumulate<'a, T: Scalar> {
    source: &'a [T],
    bases: &'a [usize],
    runs: &'a [Run],
    dy: Gradient<'a, T>,
    depth: usize,
    sums: &'a mut [T],
    scratch: &'a mut Scratch<T>,
}

impl<T: Scalar> pulp::WithSimd for Accumulate<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let lanes = T::lanes::<S>();
        let most = if S::REGISTER_COUNT >= 32 { REGISTERS } else { 2 };
        let runs = self.runs;
        for stretch in (0..self.bases.len()).step_by(STRETCH) {
            let positions = stretch..(stretch + STRETCH).min(self.bases.len());
            self.gather_gradient(positions.clone());
            for run in runs {
                let registers = run.len.div_ceil(lanes);
                let count = registers.div_ceil(most);
                for i in 0..count {
                    let mine = part(registers, count, i);
                    let (from, to) = (mine.start * lanes, (mine.end * lanes).min(run.len));
                    let run = Run { offset: run.offset + from, len: to - from, at: run.at + from };
                    match mine.len() {
                        1 => self.tile::<S, 1>(simd, positions.clone(), run),
                        2 => self.tile::<S, 2>(simd, positions.clone(), run),
                        3 => self.tile::<S, 3>(simd, positions.clone(), run),
                        _ => self.tile::<S, 4>(simd, positions.clone(), run),
                    }
                }
            }
        }
    }
}

impl<T: Scalar> Accumulate<'_, T> {
    /// Puts the gradient of some positions side by side, six channels at a time.
    #[inline(always)]
    fn gather_gradient(&mut self, positions: std::ops::Range<usize>) {
        let dy = self.dy;
        let count = positions.len();
        let to = self.scratch.dy.as_mut_slice().as_chunks_mut::<CHANNELS>().0;
        for (i, row) in dy.data[positions.start * dy.channels..].chunks_exact(dy.channels).take(count).enumerate() {
            let (whole, rest) = row[dy.first..dy.first + dy.count].as_chunks::<CHANNELS>();
            for (j, whole) in whole.iter().enumerate() {
                to[j * count + i] = *whole;
            }
            if !rest.is_empty() {
                let to = &mut to[whole.len() * count + i];
                *to = [T::zero(); CHANNELS];
                to[..rest.len()].copy_from_slice(rest);
            }
        }
    }

    /// Adds the products of some positions with `N` registers of a run to the sums of all channels.
    #[inline(always)]
    fn tile<S: Simd, const N: usize>(&mut self, simd: S, positions: std::ops::Range<usize>, run: Run) {
        let width = N * T::lanes::<S>();
        let bases = &self.bases[positions];
        let scratch = &mut *self.scratch;
        let aligned = scratch.x.as_slice().as_ptr().align_offset(64).min(LANES);
        let x = &mut scratch.x.as_mut_slice()[aligned..aligned + bases.len() * width];
        for (to, base) in x.chunks_exact_mut(width).zip(bases) {
            let from = load::<S, T, N>(simd, &self.source[base + run.offset..][..run.len]);
            let to: &mut [T::Vector<S>] = T::vectors_mut::<S>(to);
            for v in 0..N {
                to[v] = from[v];
            }
        }
        let x = T::vectors::<S>(x).as_chunks::<N>().0;
        let dy = scratch.dy.as_slice().as_chunks::<CHANNELS>().0;
        for (i, first) in (0..self.dy.count).step_by(CHANNELS).enumerate() {
            let count = (self.dy.count - first).min(CHANNELS);
            let place = |c: usize| (first + c) * self.depth + run.at..(first + c) * self.depth + run.at + run.len;
            // Channels that are missing repeat the last one, and their sums are dropped.
            let mut sums = [[T::zeros(simd); N]; CHANNELS];
            for c in 0..CHANNELS {
                sums[c] = load::<S, T, N>(simd, &self.sums[place(c.min(count - 1))]);
            }
            for (x, dy) in x.iter().zip(&dy[i * bases.len()..]) {
                for c in 0..CHANNELS {
                    let y = T::splat(simd, dy[c]);
                    for v in 0..N {
                        sums[c][v] = <T as Vectors>::mul_add(simd, y, x[v], sums[c][v]);
                    }
                }
            }
            for c in 0..CHANNELS {
                if c < count {
                    store::<S, T, N>(simd, &mut self.sums[place(c)], &sums[c]);
                }
            }
        }
    }
}
