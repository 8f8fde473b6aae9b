//! Forward passes and gradients by the input: sums over runs of channels, six result positions by up to four registers of result
//! channels at a time.
//!
//! The weight is repacked into panels, one register-aligned row of result channels for each (tap, source channel). The inner loop
//! broadcasts one source entry of each position and multiplies it with a row: no operand is gathered, and a stretch of the panel
//! that stays in the second-level cache serves all positions of a block before the next.
#![allow(clippy::needless_range_loop, clippy::manual_memcpy)] // Loops over registers by number are unrolled, and their arrays stay in registers.

use super::{Axes, Block, block_rows, blocks, for_each_block, tile::Cut, winograd};
use crate::{
    device::{
        conv::Axis,
        cpu::{Cpu, HostBlock, simd::Vectors},
    },
    scalar::Scalar,
};
use pulp::Simd;

/// Result positions that are computed together.
const POSITIONS: usize = 6;

/// Rows of a panel that are used before the next positions: 160 KB where they have 4 registers of 64 bytes. Reading them from the second-level
/// cache costs less than breaking sums off more often.
const STRETCH: usize = 640;

/// Batch, groups, and channels of each group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) batch: usize,
    pub(super) groups: usize,
    pub(super) source: usize,
    pub(super) result: usize,
}

/// Where the weight of (group, tap, source channel, result channel) lies.
pub(super) struct Filter<'a, T> {
    pub(super) data: &'a [T],
    pub(super) taps: [usize; 3],
    /// From one source channel to the next.
    pub(super) row: usize,
    /// The result channels of a group.
    pub(super) cols: Vec<usize>,
    pub(super) group: usize,
    pub(super) bias: Option<&'a [T]>,
    /// Result channels of a group count modulo this in the bias.
    pub(super) bias_period: usize,
}

/// How many lanes and registers vectors have here.
struct Machine;

impl Machine {
    fn of<T: Scalar>() -> (usize, usize) {
        struct Ask<T>(std::marker::PhantomData<T>);
        impl<T: Scalar> pulp::WithSimd for Ask<T> {
            type Output = (usize, usize);
            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) -> (usize, usize) {
                (T::lanes::<S>(), S::REGISTER_COUNT)
            }
        }
        crate::device::cpu::arch().dispatch(Ask(std::marker::PhantomData::<T>))
    }
}

/// The lanes of a register, and the registers of each panel of `result` channels.
pub(super) fn panels<T: Scalar>(result: usize) -> (usize, Vec<usize>) {
    let (lanes, registers) = Machine::of::<T>();
    let most = if registers >= 32 { 4 } else { 2 };
    let vectors = result.div_ceil(lanes);
    let count = vectors.div_ceil(most).max(1);
    (lanes, (0..count).map(|i| super::part(vectors, count, i).len()).collect())
}

/// A group's panels for all passes, side by side.
struct Packed<T: Scalar> {
    block: HostBlock<T>,
    /// The first entry that begins a cache line.
    start: usize,
    /// For each pass its first entry; a group further on, `group` entries.
    passes: Vec<(usize, usize)>,
    /// Registers of result channels of each panel.
    panels: Vec<usize>,
    lanes: usize,
}

/// One product of axes, and the taps it has.
type Pass<'a> = [&'a Axis; 3];

fn passes(axes: &Axes) -> Vec<Pass<'_>> {
    let mut passes = Vec::new();
    for deep in &axes[0] {
        for high in &axes[1] {
            passes.extend(axes[2].iter().map(|wide| [deep, high, wide]));
        }
    }
    passes
}

fn rows_of(pass: &Pass, shape: Shape) -> usize {
    pass.iter().map(|axis| axis.taps.len()).product::<usize>() * shape.source
}

fn pack<T: Scalar>(cpu: &Cpu, shape: Shape, passes: &[Pass], filter: &Filter<T>) -> Packed<T> {
    let (lanes, panels) = panels::<T>(shape.result);
    let vectors: usize = panels.iter().sum();
    let mut places = Vec::new();
    let mut len = 0;
    for pass in passes {
        let group = rows_of(pass, shape) * vectors * lanes;
        places.push((len, group));
        len += group * shape.groups;
    }
    let line = 64 / size_of::<T>();
    let mut block = HostBlock::<T>::pooled(len + line);
    let start = block.as_slice().as_ptr().align_offset(64).min(line);
    // Every (pass, group, panel) is a piece of its own.
    let mut pieces = Vec::new();
    let mut rest = &mut block.as_mut_slice()[start..start + len];
    for pass in passes {
        for group in 0..shape.groups {
            let mut first = 0;
            for &registers in &panels {
                let (piece, others) = rest.split_at_mut(rows_of(pass, shape) * registers * lanes);
                rest = others;
                pieces.push((pass, group, first, registers * lanes, piece));
                first += registers * lanes;
            }
        }
    }
    let fill = |(pass, group, first, width, piece): (&Pass, usize, usize, usize, &mut [T])| {
        let cols = &filter.cols[first..(first + width).min(shape.result)];
        let taps: Vec<usize> = pass[0]
            .taps
            .iter()
            .flat_map(|d| pass[1].taps.iter().flat_map(move |h| pass[2].taps.iter().map(move |w| [d.k, h.k, w.k])))
            .map(|k| k.iter().zip(filter.taps).map(|(k, s)| k * s).sum())
            .collect();
        // Channel by channel: the taps of a channel lie side by side in the weight.
        for channel in 0..shape.source {
            let data = &filter.data[group * filter.group + channel * filter.row..];
            for (i, &tap) in taps.iter().enumerate() {
                let row = &mut piece[(i * shape.source + channel) * width..][..width];
                row.iter_mut().zip(cols).for_each(|(w, &col)| *w = data[tap + col]);
                row[cols.len()..].fill(T::zero());
            }
        }
    };
    if len < 1 << 14 {
        pieces.into_iter().for_each(fill);
    } else {
        cpu.map_pieces(pieces, &fill);
    }
    Packed { block, start, passes: places, panels, lanes }
}

/// Each result position's sum over taps and source channels, plus the bias.
pub(super) fn correlate<T: Scalar>(
    cpu: &Cpu,
    shape: Shape,
    axes: &Axes,
    source: &[T],
    filter: &Filter<T>,
    out: &mut [T],
) {
    if out.is_empty() {
        return;
    }
    if let Some(axes) = winograd::serves(shape, axes) {
        return winograd::correlate(cpu, shape, axes, source, filter, out);
    }
    let result = axes.each_ref().map(|axes| axes[0].result);
    let passes = passes(axes);
    let packed = pack(cpu, shape, &passes, filter);
    let bias = padded_bias(shape, filter, &packed);
    let channels = shape.groups * shape.result;
    let row = result[2] * channels;
    let read = axes[2][0].source * shape.groups * shape.source * axes[0][0].taps.len().max(1);
    let read = (read * axes[1][0].source).div_ceil(result[1]);
    let height = block_rows(cpu, shape.batch * result[0], result[1], (row + read) * size_of::<T>());
    let work = |block: Block<T>| {
        let mut job =
            Job { shape, result, source, packed: &packed, bias: bias.as_slice(), block, positions: Vec::new() };
        passes.iter().enumerate().for_each(|(i, pass)| job.pass(i, pass));
    };
    let blocks = blocks(out, [result[0], result[1], row], height);
    for_each_block(cpu, blocks, &work);
}

/// The bias of each group in whole registers; zeros where there is none.
fn padded_bias<T: Scalar>(shape: Shape, filter: &Filter<T>, packed: &Packed<T>) -> HostBlock<T> {
    let width = packed.panels.iter().sum::<usize>() * packed.lanes;
    let mut block = HostBlock::pooled(shape.groups * width);
    let to = block.as_mut_slice();
    to.fill(T::zero());
    if let Some(bias) = filter.bias {
        for group in 0..shape.groups {
            for n in 0..shape.result {
                to[group * width + n] = bias[group * filter.bias_period + n % filter.bias_period];
            }
        }
    }
    block
}

/// One block of the result.
struct Job<'a, T: Scalar> {
    shape: Shape,
    result: [usize; 3],
    source: &'a [T],
    packed: &'a Packed<T>,
    bias: &'a [T],
    block: Block<'a, T>,
    /// Where each position starts in the source's tile and in the block of the result.
    positions: Vec<(usize, usize)>,
}

/// Source entries side by side that meet panel rows side by side.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) offset: usize,
    pub(super) len: usize,
    pub(super) row: usize,
}

impl<T: Scalar> Job<'_, T> {
    fn pass(&mut self, index: usize, pass: &Pass) {
        let [deep, high, wide] = *pass;
        let channels = self.shape.groups * self.shape.result;
        let row = self.result[2] * channels;
        let plane = self.block.plane;
        if plane % deep.step != deep.first {
            return;
        }
        // The pass's rows within the block.
        let end = self.block.row + self.block.out.len() / row;
        let upto = |row: usize| (row.max(high.first) - high.first).div_ceil(high.step).min(high.count);
        let rows = upto(self.block.row)..upto(end);
        if rows.is_empty() || wide.count == 0 {
            return;
        }
        let from = self.shape.groups * self.shape.source;
        let cut = Cut {
            source: self.source,
            axes: *pass,
            channels: from,
            image: self.block.image,
            plane: plane / deep.step,
            rows: rows.clone(),
        };
        let tile = cut.tile();
        self.positions.clear();
        for (i, q) in rows.enumerate() {
            let (at, to) = (i * high.stride * tile.row, (high.first + q * high.step - self.block.row) * row);
            let position = |p| (at + p * wide.stride * from, to + (wide.first + p * wide.step) * channels);
            self.positions.extend((0..wide.count).map(position));
        }
        let (first, group_len) = self.packed.passes[index];
        let width = self.packed.panels.iter().sum::<usize>() * self.packed.lanes;
        let panel_rows = rows_of(pass, self.shape);
        for group in 0..self.shape.groups {
            let runs = runs(pass, &tile.planes, tile.row, self.shape, group);
            let start = self.packed.start + first + group * group_len;
            let weights = &self.packed.block.as_slice()[start..start + group_len];
            crate::device::cpu::arch().dispatch(Multiply {
                source: tile.data(),
                positions: &self.positions,
                stretches: &stretches(&runs),
                weights,
                rows: panel_rows,
                panels: &self.packed.panels,
                bias: &self.bias[group * width..(group + 1) * width],
                channels: group * self.shape.result..(group + 1) * self.shape.result,
                out: &mut *self.block.out,
            });
        }
    }
}

fn runs(pass: &Pass, planes: &[(usize, usize)], row: usize, shape: Shape, group: usize) -> Vec<Run> {
    let [_, high, wide] = *pass;
    let from = shape.groups * shape.source;
    let mut runs: Vec<Run> = Vec::new();
    for &(i, plane) in planes {
        for (j, h) in high.taps.iter().enumerate() {
            for (k, w) in wide.taps.iter().enumerate() {
                let (down, right) = (h.offset - high.reach().0, w.offset - wide.reach().0);
                let offset = plane + down as usize * row + right as usize * from + group * shape.source;
                let at = ((i * high.taps.len() + j) * wide.taps.len() + k) * shape.source;
                match runs.last_mut() {
                    Some(run) if run.offset + run.len == offset && run.row + run.len == at => run.len += shape.source,
                    _ => runs.push(Run { offset, len: shape.source, row: at }),
                }
            }
        }
    }
    runs
}

/// The runs cut and grouped so that each group has about [`STRETCH`] rows. Never empty: the bias is to be written in any case.
pub(super) fn stretches(runs: &[Run]) -> Vec<Vec<Run>> {
    let total: usize = runs.iter().map(|run| run.len).sum();
    let count = (total + STRETCH / 2) / STRETCH;
    let most = total.div_ceil(count.max(1));
    let mut stretches = vec![Vec::new()];
    let mut room = most;
    for &run in runs {
        let mut run = run;
        while run.len > 0 {
            if room == 0 {
                stretches.push(Vec::new());
                room = most;
            }
            let len = run.len.min(room);
            stretches.last_mut().into_iter().for_each(|stretch| stretch.push(Run { len, ..run }));
            run = Run { offset: run.offset + len, len: run.len - len, row: run.row + len };
            room -= len;
        }
    }
    stretches
}

/// The product of one group in one block.
pub(super) struct Multiply<'a, T> {
    pub(super) source: &'a [T],
    pub(super) positions: &'a [(usize, usize)],
    pub(super) stretches: &'a [Vec<Run>],
    pub(super) weights: &'a [T],
    pub(super) rows: usize,
    pub(super) panels: &'a [usize],
    pub(super) bias: &'a [T],
    pub(super) channels: std::ops::Range<usize>,
    pub(super) out: &'a mut [T],
}

impl<T: Scalar> pulp::WithSimd for Multiply<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut first = 0;
        let panels = self.panels;
        for &registers in panels {
            match registers {
                1 => self.panel::<S, 1>(simd, first),
                2 => self.panel::<S, 2>(simd, first),
                3 => self.panel::<S, 3>(simd, first),
                _ => self.panel::<S, 4>(simd, first),
            }
            first += registers;
        }
    }
}

impl<T: Scalar> Multiply<'_, T> {
    /// The result channels of the `N` registers from `first` on.
    #[inline(always)]
    fn panel<S: Simd, const N: usize>(&mut self, simd: S, first: usize) {
        let lanes = T::lanes::<S>();
        let weights = T::vectors::<S>(&self.weights[first * lanes * self.rows..][..N * lanes * self.rows]);
        let bias = T::vectors::<S>(&self.bias[first * lanes..][..N * lanes]);
        let at = self.channels.start + first * lanes;
        let width = (N * lanes).min(self.channels.end - at);
        for (i, stretch) in self.stretches.iter().enumerate() {
            for chunk in self.positions.chunks(POSITIONS) {
                // Positions that are missing repeat the last one, and their sums are dropped.
                let place: [(usize, usize); POSITIONS] = std::array::from_fn(|p| chunk[p.min(chunk.len() - 1)]);
                let mut sums: [[T::Vector<S>; N]; POSITIONS] = [std::array::from_fn(|v| bias[v]); POSITIONS];
                if i > 0 {
                    for p in 0..POSITIONS {
                        let to = place[p].1 + at;
                        sums[p] = load::<S, T, N>(simd, &self.out[to..to + width]);
                    }
                }
                for run in stretch {
                    let rows = weights[run.row * N..(run.row + run.len) * N].as_chunks::<N>().0;
                    let from: [&[T]; POSITIONS] =
                        std::array::from_fn(|p| &self.source[place[p].0 + run.offset..][..rows.len()]);
                    for l in 0..rows.len() {
                        for p in 0..POSITIONS {
                            let x = T::splat(simd, from[p][l]);
                            for v in 0..N {
                                sums[p][v] = <T as Vectors>::mul_add(simd, x, rows[l][v], sums[p][v]);
                            }
                        }
                    }
                }
                for p in 0..POSITIONS {
                    if p < chunk.len() {
                        let to = place[p].1 + at;
                        store::<S, T, N>(simd, &mut self.out[to..to + width], &sums[p]);
                    }
                }
            }
        }
    }
}

/// Registers of a slice that may end before the last.
#[inline(always)]
pub(super) fn load<S: Simd, T: Scalar, const N: usize>(simd: S, from: &[T]) -> [T::Vector<S>; N] {
    let lanes = T::lanes::<S>();
    let whole: &[T::Vector<S>] = T::vectors::<S>(from);
    let mut all = [T::zeros(simd); N];
    if from.len() == N * lanes {
        for v in 0..N {
            all[v] = whole[v];
        }
    } else {
        for v in 0..N {
            all[v] = T::load_part(simd, &from[(v * lanes).min(from.len())..((v + 1) * lanes).min(from.len())]);
        }
    }
    all
}

/// Writes registers to a slice that may end before the last.
#[inline(always)]
pub(super) fn store<S: Simd, T: Scalar, const N: usize>(simd: S, to: &mut [T], sums: &[T::Vector<S>; N]) {
    let lanes = T::lanes::<S>();
    if to.len() == N * lanes {
        let to: &mut [T::Vector<S>] = T::vectors_mut::<S>(to);
        for v in 0..N {
            to[v] = sums[v];
        }
        return;
    }
    for (to, &sum) in to.chunks_mut(lanes).zip(sums) {
        T::store_part(simd, to, sum);
    }
}
