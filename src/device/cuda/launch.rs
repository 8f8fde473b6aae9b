//! How kernels are launched: the loops that they walk, their arguments, and how many threads.
//!
//! Nothing here touches a GPU; all of it is tested on the host. The table [`KERNELS`] is the one place that says which kernels there are
//! and what they take: a launch is checked against it in debug builds, and a test compares it with what NVRTC compiles.

use super::compile::Source;
use crate::device::{
    conv,
    layout::{Loop, Modes},
};
use std::ffi::c_void;

/// Loops that a kernel can walk.
pub(crate) const MOST_LOOPS: usize = 8;

/// Threads in a block of the kernels that run over entries, and of the reductions (which rely on the number).
pub(crate) const THREADS: u32 = 256;

/// The loops over one or two operands, as `common.cuh` has them.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nest {
    order: i64,
    size: [i64; MOST_LOOPS],
    stride: [[i64; MOST_LOOPS]; 2],
}

impl Nest {
    /// The loops for a kernel; `None` where there are too many.
    pub(crate) fn new<const N: usize>(loops: &[Loop<N>]) -> Option<Self> {
        const { assert!(N == 1 || N == 2) };
        if loops.is_empty() || loops.len() > MOST_LOOPS {
            return None;
        }
        let mut nest = Self { order: loops.len() as i64, size: [1; MOST_LOOPS], stride: [[0; MOST_LOOPS]; 2] };
        for (i, l) in loops.iter().enumerate() {
            nest.size[i] = l.size as i64;
            for operand in 0..N {
                nest.stride[operand][i] = l.strides[operand] as i64;
            }
        }
        Some(nest)
    }
}

/// The sizes of a convolution or a pool, as `windows.cuh` has them.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Images {
    input: [i32; 3],
    output: [i32; 3],
    kernel: [i32; 3],
    stride: [i32; 3],
    dilation: [i32; 3],
    before: [i32; 3],
}

impl Images {
    /// `None` where a kernel could not count to the end of a mode in 32 bits.
    pub(crate) fn new(g: &conv::Geometry) -> Option<Self> {
        let span = |m: usize| {
            let reach = (g.kernel[m] as u128) * (g.dilation[m] as u128) + (g.output[m] as u128) * (g.stride[m] as u128);
            reach + g.input[m] as u128 + g.before[m] as u128
        };
        let fits = (0..3).all(|m| span(m) < 1 << 30) && g.kernel.iter().map(|&k| k as u128).product::<u128>() < 1 << 30;
        let ints = |sizes: [usize; 3]| sizes.map(|n| n as i32);
        fits.then(|| Self {
            input: ints(g.input),
            output: ints(g.output),
            kernel: ints(g.kernel),
            stride: ints(g.stride),
            dilation: ints(g.dilation),
            before: ints(g.before),
        })
    }
}

/// The sizes of a product with a short side, as `thin.cu` has them.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thin {
    pub(crate) m: i64,
    pub(crate) k: i64,
    pub(crate) r: i64,
    pub(crate) lead: i64,
    pub(crate) b: [i64; 2],
    pub(crate) c: [i64; 2],
    pub(crate) batch: [i64; 3],
    pub(crate) terms: i64,
    pub(crate) sums: [i64; 2],
    pub(crate) pieces: i64,
    pub(crate) chunks: i64,
    pub(crate) piece: i64,
    pub(crate) wide: i64,
    pub(crate) packs: i64,
}

/// Loops that are too many for a kernel: the first of them run on the host, one launch a step.
pub(crate) fn split<const N: usize>(loops: &[Loop<N>]) -> (&[Loop<N>], &[Loop<N>]) {
    loops.split_at(loops.len().saturating_sub(MOST_LOOPS))
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arg {
    /// An address on the device.
    Pointer(u64),
    Int(i64),
    Double(f64),
    Float(f32),
    Nest(Nest),
    Images(Images),
    Thin(Thin),
}

impl Arg {
    /// The address of the value, for the driver to copy it from.
    pub(crate) fn address(&self) -> *mut c_void {
        match self {
            Arg::Pointer(x) => std::ptr::from_ref(x).cast_mut().cast(),
            Arg::Int(x) => std::ptr::from_ref(x).cast_mut().cast(),
            Arg::Double(x) => std::ptr::from_ref(x).cast_mut().cast(),
            Arg::Float(x) => std::ptr::from_ref(x).cast_mut().cast(),
            Arg::Nest(x) => std::ptr::from_ref(x).cast_mut().cast(),
            Arg::Images(x) => std::ptr::from_ref(x).cast_mut().cast(),
            Arg::Thin(x) => std::ptr::from_ref(x).cast_mut().cast(),
        }
    }

    fn letter(&self) -> char {
        match self {
            Arg::Pointer(_) => 'p',
            Arg::Int(_) => 'i',
            Arg::Double(_) => 'd',
            Arg::Float(_) => 'f',
            Arg::Nest(_) => 'n',
            Arg::Images(_) => 'g',
            Arg::Thin(_) => 'm',
        }
    }
}

/// Lengths and counts as arguments.
pub(crate) fn int(n: usize) -> Arg {
    Arg::Int(n as i64)
}

/// Blocks and threads of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) blocks: u32,
    pub(crate) threads: (u32, u32),
}

/// Threads for `len` entries of about equal cost: four entries a thread, blocks as many as it takes (at most a million, then more
/// entries a thread).
pub(crate) fn entries(len: usize) -> Geometry {
    let blocks = len.div_ceil(4 * THREADS as usize).clamp(1, 1 << 20);
    Geometry { blocks: blocks as u32, threads: (THREADS, 1) }
}

/// One thread for each of `len` entries that each take a loop, at most a million blocks.
pub(crate) fn heavy(len: usize) -> Geometry {
    Geometry { blocks: len.div_ceil(THREADS as usize).clamp(1, 1 << 20) as u32, threads: (THREADS, 1) }
}

/// Blocks of the first stage of a total: a function of the length alone, so that sums repeat on any GPU.
pub(crate) fn total(len: usize) -> Geometry {
    Geometry { blocks: len.div_ceil(8 * THREADS as usize).clamp(1, 1024) as u32, threads: (THREADS, 1) }
}

/// The one block that finishes a total.
pub(crate) fn finish() -> Geometry {
    Geometry { blocks: 1, threads: (THREADS, 1) }
}

/// Blocks for work items that a block does together.
pub(crate) fn items(count: usize) -> Geometry {
    Geometry { blocks: count.clamp(1, 1 << 20) as u32, threads: (THREADS, 1) }
}

/// Tiles of 32 x 32 for a transpose of `batch` matrices.
pub(crate) fn tiles(rows: usize, cols: usize, batch: usize) -> Geometry {
    let count = rows.div_ceil(32).saturating_mul(cols.div_ceil(32)).saturating_mul(batch);
    Geometry { blocks: count.clamp(1, 1 << 20) as u32, threads: (32, 8) }
}

/// Channels and tiles that a block of the depthwise kernels works on.
const LANES: usize = 32;
const TILES: usize = 8;

/// Rows of a tile.
const TALL: usize = 4;

/// Tiles of a depthwise convolution: how wide they are, and how many blocks share those of the same channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Depthwise {
    pub(crate) wide: usize,
    pub(crate) parts: usize,
}

impl Depthwise {
    /// For `planes` results of `rows x cols` entries with `channels` each, and at most about `most` blocks: a function of the sizes alone, so
    /// that sums over tiles repeat on any GPU.
    pub(crate) fn new(planes: usize, [rows, cols]: [usize; 2], channels: usize, most: usize) -> Self {
        // The width that wastes less at the end of a row.
        let wide = if cols.next_multiple_of(7) <= cols.next_multiple_of(4) { 7 } else { 4 };
        let tiles = planes * rows.div_ceil(TALL) * cols.div_ceil(wide);
        let turns = tiles.div_ceil(TILES).max(1);
        // Whole turns for every block.
        let each = (turns * channels.div_ceil(LANES)).div_ceil(most).max(1);
        Self { wide, parts: turns.div_ceil(each) }
    }

    pub(crate) fn geometry(self, channels: usize) -> Geometry {
        let blocks = self.parts * channels.div_ceil(LANES).max(1);
        Geometry { blocks: blocks as u32, threads: (LANES as u32, TILES as u32) }
    }
}

/// Parts of the sum over `outputs` for each of `sums` results: for some hundred thousand threads, each with at least 64 outputs.
pub(crate) fn parts(outputs: usize, sums: usize) -> usize {
    ((1 << 18) / sums.max(1)).clamp(1, outputs.div_ceil(64).max(1))
}

/// A warp for each of `count` rows.
pub(crate) fn warps(count: usize) -> Geometry {
    Geometry { blocks: count.div_ceil(THREADS as usize / 32).clamp(1, 1 << 20) as u32, threads: (THREADS, 1) }
}

/// How the sums of rows are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rows {
    /// A block works along a row, rather than a thread.
    pub(crate) by_block: bool,
    /// Pieces of a row that are summed apart, for enough to do at once.
    pub(crate) splits: usize,
}

/// Chooses by what lies close together in memory, and splits few long rows.
pub(crate) fn rows(rows: usize, inner: usize, row_stride: isize, inner_stride: isize) -> Rows {
    let along = inner >= 64 && inner_stride.unsigned_abs() <= row_stride.unsigned_abs();
    let by_block = along || (inner >= 64 && rows < 32);
    // Enough work items for some thousand blocks, each with at least 2048 entries (a block) or 64 (a thread).
    let (wanted, grain) = if by_block { (1024, 2048) } else { (1 << 17, 64) };
    let splits = (wanted / rows.max(1)).clamp(1, inner.div_ceil(grain).max(1));
    Rows { by_block, splits }
}

/// A way to hold a row in registers (`FOR_ROWS` in rows.cuh).
struct Held {
    suffix: &'static str,
    /// The longest row, in packs of 16 bytes.
    packs: usize,
    /// Rows that a block has at a time.
    rows: usize,
    /// Of a block.
    threads: u32,
    /// Blocks of the kernel with most registers, the way back of norms, that an H100 has room for at a time; two a multiprocessor at most where
    /// a block has one row, since each leaves sums as long as that.
    summing: u32,
}

const fn held(suffix: &'static str, packs: usize, rows: usize, summing: u32) -> Held {
    Held { suffix, packs, rows, threads: THREADS, summing }
}

const ROWS: [Held; 10] = [
    held("warp1", 32, 8, 792),
    held("warp2", 64, 8, 528),
    held("warp3", 96, 8, 396),
    held("warp4", 128, 8, 264),
    held("warp6", 192, 8, 264),
    held("warp8", 256, 8, 132),
    held("block2", 512, 1, 264),
    held("block3", 768, 1, 264),
    held("block4", 1024, 1, 264),
    held("block8", 2048, 1, 132),
];

/// Rows that nothing holds: they are read again.
const LONG: Held = Held { threads: 1024, ..held("long", usize::MAX, 1, 132) };

/// Which of the kernels of a family (`FOR_ROWS` in rows.cuh) takes rows, and with how many blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowKernel {
    pub(crate) suffix: &'static str,
    pub(crate) geometry: Geometry,
}

impl RowKernel {
    /// Whether rows are longer than what a block holds.
    pub(crate) fn is_long(&self) -> bool {
        self.suffix == LONG.suffix
    }
}

impl Held {
    /// The way for rows of `n` entries of `bytes` each.
    fn of(bytes: usize, n: usize) -> &'static Self {
        let packs = n.div_ceil(16 / bytes);
        ROWS.iter().find(|held| packs <= held.packs).unwrap_or(&LONG)
    }

    /// Blocks that have so many rows once each.
    fn blocks(&self, rows: usize) -> u32 {
        rows.div_ceil(self.rows).clamp(1, 1 << 20) as u32
    }

    fn kernel(&self, blocks: u32) -> RowKernel {
        RowKernel { suffix: self.suffix, geometry: Geometry { blocks, threads: (self.threads, 1) } }
    }
}

/// The kernel for rows of `n` entries of `bytes` each: a warp or a block holds a row in its registers, in packs of 16 bytes; longer rows are
/// read again by a block of 1024 threads.
pub(crate) fn row_kernel(bytes: usize, rows: usize, n: usize) -> RowKernel {
    let held = Held::of(bytes, n);
    held.kernel(held.blocks(rows))
}

/// Blocks that share each of a few long rows, of at least 1024 packs for each: as many as an H100 has room for at a time, on any GPU.
pub(crate) fn stretches(bytes: usize, rows: usize, n: usize) -> usize {
    (264 / rows.max(1)).min(n.div_ceil(16 / bytes) / 1024).max(1)
}

/// [`row_kernel`] for kernels of which each block leaves sums of its rows: fewer blocks, a function of the sizes alone, so that sums repeat on
/// any GPU.
pub(crate) fn summing_row_kernel(bytes: usize, rows: usize, n: usize) -> RowKernel {
    let held = Held::of(bytes, n);
    // Two rows a team at least, or the sums are as much work as the rows.
    held.kernel(held.blocks(rows).div_ceil(2).min(held.summing))
}

/// The one block that factors a small matrix.
pub(crate) fn alone() -> Geometry {
    Geometry { blocks: 1, threads: (1024, 1) }
}

/// A block of 1024 threads for each of `count` work items of some thousand entries.
pub(crate) fn crews(count: usize) -> Geometry {
    Geometry { threads: (1024, 1), ..items(count) }
}

/// Blocks of 32 x 32 threads for as many columns, 32 each.
pub(crate) fn columns(count: usize) -> Geometry {
    Geometry { blocks: count.div_ceil(32).clamp(1, 1 << 20) as u32, threads: (32, 32) }
}

/// How the kernels over `[groups, rows, channels]` share the work (channels.cu).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pieces {
    /// `packs` or `single`: how many channels a thread takes.
    pub(crate) suffix: &'static str,
    pub(crate) lanes: usize,
    pub(crate) pieces: usize,
    pub(crate) geometry: Geometry,
}

/// Lanes along the channels, and pieces of the rows so that there are about `wanted` blocks. `pack` is 1 where channels cannot be
/// taken pack by pack.
pub(crate) fn pieces([groups, rows, channels]: [usize; 3], pack: usize, wanted: usize) -> Pieces {
    let lanes = channels.div_ceil(pack).next_power_of_two().clamp(1, 32);
    let tiles = channels.div_ceil(lanes * pack);
    let at_once = THREADS as usize / lanes;
    let fixed = groups.saturating_mul(tiles).max(1);
    let pieces = wanted.div_ceil(fixed).clamp(1, rows.div_ceil(8 * at_once).max(1));
    let suffix = if pack > 1 { "packs" } else { "single" };
    Pieces { suffix, lanes, pieces, geometry: items(fixed.saturating_mul(pieces)) }
}

/// The transpose hidden in a copy: which loop the source runs along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transpose {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) source_step: isize,
    pub(crate) out_step: isize,
    /// The other loops, with the strides of the source and of the result.
    pub(crate) rest: Modes<Loop<2>>,
}

/// Finds the two loops of a copy in which source and result run along different ones; `None` where plain loops serve as well.
pub(crate) fn transpose(nest: &[Loop<1>]) -> Option<Transpose> {
    let inner = nest.last()?;
    if inner.strides[0].unsigned_abs() <= 1 || inner.size < 8 {
        return None;
    }
    let unit = nest.iter().position(|l| l.strides[0] == 1 && l.size >= 8)?;
    let mut rest: Modes<Loop<2>> = Modes::new();
    let (mut step, mut out_step) = (1isize, 0);
    for (i, l) in nest.iter().enumerate().rev() {
        if i == unit {
            out_step = step;
        } else if i + 1 < nest.len() {
            rest.insert(0, Loop { size: l.size, strides: [l.strides[0], step] });
        }
        step *= l.size as isize;
    }
    if rest.len() > MOST_LOOPS {
        return None;
    }
    if rest.is_empty() {
        rest.push(Loop { size: 1, strides: [0, 0] });
    }
    Some(Transpose { rows: nest[unit].size, cols: inner.size, source_step: inner.strides[0], out_step, rest })
}

/// A kernel (or, where the name ends in `*`, one for `f32` and one for `f64`; with an `@`, one for each way to hold a row) and its arguments:
/// `p` an address, `i` an integer, `d` a double, `f` a single, `t` a number of the kernel's type, `n` loops, `g` the sizes of images, `m` those
/// of a product with a short side.
pub(crate) const KERNELS: &[(Source, &str, &str)] = &[
    (Source::Elementwise, "copy_1", "ppin"),
    (Source::Elementwise, "copy_2", "ppin"),
    (Source::Elementwise, "copy_4", "ppin"),
    (Source::Elementwise, "copy_8", "ppin"),
    (Source::Elementwise, "transpose_1", "ppiiiiin"),
    (Source::Elementwise, "transpose_2", "ppiiiiin"),
    (Source::Elementwise, "transpose_4", "ppiiiiin"),
    (Source::Elementwise, "transpose_8", "ppiiiiin"),
    (Source::Elementwise, "unary_*", "ppinit"),
    (Source::Elementwise, "binary_*", "pppini"),
    (Source::Elementwise, "blend_*", "ppint"),
    (Source::Reduce, "total_*", "ppinid"),
    (Source::Reduce, "total_finish", "ppii"),
    (Source::Reduce, "dot_*", "pppin"),
    (Source::Reduce, "nonfinite_*", "ppin"),
    (Source::Reduce, "nonfinite_finish", "ppi"),
    (Source::Reduce, "rows_block_*", "ppiiinn"),
    (Source::Reduce, "rows_thread_*", "ppiiinn"),
    (Source::Reduce, "rows_finish_*", "ppii"),
    (Source::Contract, "columns_*", "pppiiiiii"),
    (Source::Contract, "gather_sum_*", "ppiii"),
    (Source::Contract, "gather_f32_f32", "ppiiiiiind"),
    (Source::Contract, "gather_f32_f64", "ppiiiiiind"),
    (Source::Contract, "gather_f64_f32", "ppiiiiiind"),
    (Source::Contract, "gather_f64_f64", "ppiiiiiind"),
    (Source::Reduce, "total_scaled_*", "ppiid"),
    (Source::Reduce, "fold_*", "pppiii"),
    (Source::Activation, "activate_0_*", "ppi"),
    (Source::Activation, "activate_back_0_*", "pppi"),
    (Source::Activation, "activate_1_*", "ppi"),
    (Source::Activation, "activate_back_1_*", "pppi"),
    (Source::Activation, "activate_2_*", "ppi"),
    (Source::Activation, "activate_back_2_*", "pppi"),
    (Source::Activation, "activate_3_*", "ppi"),
    (Source::Activation, "activate_back_3_*", "pppi"),
    (Source::Activation, "activate_4_*", "ppi"),
    (Source::Activation, "activate_back_4_*", "pppi"),
    (Source::Activation, "activate_5_*", "ppi"),
    (Source::Activation, "activate_back_5_*", "pppi"),
    (Source::Activation, "activate_6_*", "ppi"),
    (Source::Activation, "activate_back_6_*", "pppi"),
    (Source::Activation, "activate_7_*", "ppi"),
    (Source::Activation, "activate_back_7_*", "pppi"),
    (Source::Activation, "activate_8_*", "ppi"),
    (Source::Activation, "activate_back_8_*", "pppi"),
    (Source::Softmax, "softmax_@_*", "ppiiipni"),
    (Source::Softmax, "softmax_back_@_*", "pppiii"),
    (Source::Softmax, "softmax_parts_*", "piipnipi"),
    (Source::Softmax, "softmax_long_*", "ppiiipnipi"),
    (Source::Softmax, "softmax_back_parts_*", "ppiiipi"),
    (Source::Softmax, "softmax_back_long_*", "pppiiipi"),
    (Source::Softmax, "softmax_columns_*", "ppiiii"),
    (Source::Softmax, "softmax_columns_back_*", "pppiiii"),
    (Source::Normalise, "normalise_@_*", "pppppiiit"),
    (Source::Normalise, "normalise_back_@_*", "ppppppiii"),
    (Source::Normalise, "normalise_long_*", "pppppiiit"),
    (Source::Normalise, "normalise_back_long_*", "pppppiii"),
    (Source::Normalise, "normalise_columns_*", "ppppiii"),
    (Source::Channels, "squares_packs_*", "ppiiiii"),
    (Source::Channels, "sums_packs_*", "pppppiiiiii"),
    (Source::Channels, "moments_packs_*", "ppiiii"),
    (Source::Channels, "affine_packs_*", "pppppiiiii"),
    (Source::Channels, "combine_packs_*", "pppppppiiiii"),
    (Source::Channels, "squares_single_*", "ppiiiii"),
    (Source::Channels, "sums_single_*", "pppppiiiiii"),
    (Source::Channels, "moments_single_*", "ppiiii"),
    (Source::Channels, "affine_single_*", "pppppiiiii"),
    (Source::Channels, "combine_single_*", "pppppppiiiii"),
    (Source::Channels, "moments_finish_*", "pppiii"),
    (Source::Channels, "respond_*", "pppppiit"),
    (Source::Channels, "respond_back_*", "pppppii"),
    (Source::Channels, "respond_gains_*", "ppppppii"),
    (Source::Losses, "cross_entropy_@_*", "ppippiiiidd"),
    (Source::Losses, "cross_entropy_long_*", "ppippiiiidd"),
    (Source::Losses, "binary_cross_entropy_*", "ppppit"),
    (Source::Losses, "scale_by_*", "ppi"),
    (Source::Dropout, "dropout_*", "ppiiiit"),
    (Source::Optimizer, "step_*", "piip"),
    (Source::Optimizer, "judge_*", "pppiidd"),
    (Source::Optimizer, "table_squares_*", "ppii"),
    (Source::Gather, "outside", "pipini"),
    (Source::Gather, "take_rows_4", "ppipii"),
    (Source::Gather, "take_rows_8", "ppipii"),
    (Source::Gather, "take_rows_16", "ppipii"),
    (Source::Gather, "take_along_*", "ppipiiii"),
    (Source::Gather, "add_along_*", "ppipiiii"),
    (Source::Gather, "argmax_rows_*", "ppii"),
    (Source::Gather, "argmax_columns_*", "ppiii"),
    (Source::Gather, "keys_rows", "pipii"),
    (Source::Gather, "keys_along", "pipiiiii"),
    (Source::Gather, "sort_tiles", "pii"),
    (Source::Gather, "sort_step", "piii"),
    (Source::Gather, "add_runs_*", "ppppiiii"),
    (Source::Gather, "join_runs_*", "pppiiii"),
    (Source::Positions, "look_up_*", "ppippipiiit"),
    (Source::Positions, "invert_index", "pppiii"),
    (Source::Positions, "add_up_*", "ppppiiiiiit"),
    (Source::Place, "put_1", "ppin"),
    (Source::Place, "put_2", "ppin"),
    (Source::Place, "put_4", "ppin"),
    (Source::Place, "put_8", "ppin"),
    (Source::Place, "put_16", "ppin"),
    (Source::Contract, "addresses", "ppppinn"),
    (Source::Cast, "round_bf16", "ppi"),
    (Source::Cast, "widen_bf16", "ppi"),
    (Source::Conv, "columns_of_*", "ppiiiig"),
    (Source::Conv, "wide_columns_of_*", "ppiiiig"),
    (Source::Conv, "gather_columns_*", "pppiiiiiiig"),
    (Source::Conv, "wide_gather_columns_*", "pppiiiiiiig"),
    (Source::Conv, "max_pool_*", "ppiig"),
    (Source::Conv, "max_pool_back_*", "pppiig"),
    (Source::Conv, "resample_*", "pppppiiiiiiii"),
    (Source::Depthwise, "depthwise_3x4_*", "ppppiiiiiiiii"),
    (Source::Depthwise, "depthwise_3x7_*", "ppppiiiiiiiii"),
    (Source::Depthwise, "depthwise_5x4_*", "ppppiiiiiiiii"),
    (Source::Depthwise, "depthwise_5x7_*", "ppppiiiiiiiii"),
    (Source::Depthwise, "depthwise_7x4_*", "ppppiiiiiiiii"),
    (Source::Depthwise, "depthwise_7x7_*", "ppppiiiiiiiii"),
    (Source::Depthwise, "depthwise_weights_3x4_*", "pppiiiiiiii"),
    (Source::Depthwise, "depthwise_weights_3x7_*", "pppiiiiiiii"),
    (Source::Depthwise, "depthwise_weights_5x4_*", "pppiiiiiiii"),
    (Source::Depthwise, "depthwise_weights_5x7_*", "pppiiiiiiii"),
    (Source::Depthwise, "depthwise_weights_7x4_*", "pppiiiiiiii"),
    (Source::Depthwise, "depthwise_weights_7x7_*", "pppiiiiiiii"),
    (Source::Depthwise, "depthwise_any_*", "ppppiig"),
    (Source::Depthwise, "depthwise_any_back_*", "ppppiig"),
    (Source::Depthwise, "depthwise_any_weights_*", "pppiiig"),
    (Source::Depthwise, "depthwise_finish_*", "ppiii"),
    (Source::Attention, "soften_*", "ppppiiitiiiiiin"),
    (Source::Attention, "soften_back_*", "pppppppiiitiiiiiinn"),
    (Source::Thin, "thin_along_8", "pppmf"),
    (Source::Thin, "thin_across_8", "pppmf"),
    (Source::Thin, "thin_along_16", "pppmf"),
    (Source::Thin, "thin_across_16", "pppmf"),
    (Source::Thin, "thin_along_32", "pppmf"),
    (Source::Thin, "thin_across_32", "pppmf"),
    (Source::Thin, "thin_along_48", "pppmf"),
    (Source::Thin, "thin_across_48", "pppmf"),
    (Source::Linalg, "householder_*", "pppii"),
    (Source::Linalg, "cholesky_*", "ppi"),
    (Source::Linalg, "jacobi_*", "ppppiii"),
    (Source::Linalg, "unit_columns_*", "pppiiii"),
    (Source::Linalg, "triangle_*", "piii"),
    (Source::LeastSquares, "non_negative_rows", "pppppiiiid"),
    (Source::LeastSquares, "free_rows", "ppppppiiid"),
    #[cfg(test)]
    (Source::Faulty, "fail_from", "i"),
];

/// Every kernel by its full name, with its arguments by letter.
pub(crate) fn kernels() -> Vec<(Source, String, String)> {
    const TYPES: [&str; 7] = ["f64", "f32", "f16", "bf16", "u8", "u32", "i64"];
    let mut all = Vec::new();
    let mut add = |source, name: &str, letters: &str| match name.strip_suffix('*') {
        None => all.push((source, name.to_string(), letters.to_string())),
        Some(stem) => {
            all.push((source, format!("{stem}f32"), letters.replace('t', "f")));
            all.push((source, format!("{stem}f64"), letters.replace('t', "d")));
        }
    };
    for &(source, name, letters) in KERNELS {
        match name.contains('@') {
            true => ROWS.iter().for_each(|held| add(source, &name.replace('@', held.suffix), letters)),
            false => add(source, name, letters),
        }
    }
    for from in TYPES {
        all.extend(TYPES.map(|to| (Source::Cast, format!("cast_{from}_{to}"), "ppin".to_string())));
    }
    all
}

/// Whether these arguments are what the table says that the kernel takes.
pub(crate) fn fits(source: Source, name: &str, args: &[Arg]) -> bool {
    let letters: String = args.iter().map(Arg::letter).collect();
    kernels().iter().any(|(s, n, l)| *s == source && n == name && *l == letters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::layout::{Layout, loops};

    #[test]
    fn the_loops_are_laid_out_as_in_c() {
        assert_eq!(size_of::<Nest>(), 8 * (1 + 8 + 16));
        let nest = Nest::new(&[Loop { size: 6, strides: [4, 0] }, Loop { size: 4, strides: [1, -1] }]).unwrap();
        assert_eq!((nest.order, &nest.size[..2]), (2, &[6, 4][..]));
        assert_eq!((&nest.stride[0][..2], &nest.stride[1][..2]), (&[4, 1][..], &[0, -1][..]));
        assert!(Nest::new(&[Loop { size: 2, strides: [1] }; 9]).is_none());
        assert_eq!(split(&[Loop { size: 2, strides: [1] }; 9]).0.len(), 1);
    }

    #[test]
    fn launches_are_never_empty_and_never_too_large() {
        for len in [0, 1, 255, 256, 257, 1 << 20, 1 << 40] {
            for g in [entries(len), heavy(len), total(len), items(len), tiles(len, 3, 2), warps(len)] {
                assert!(g.blocks >= 1 && g.blocks <= 1 << 20, "{len}: {g:?}");
                assert!(g.threads.0 * g.threads.1 == THREADS);
            }
        }
        assert_eq!(entries(1025).blocks, 2);
        assert_eq!(total(1 << 40).blocks, 1024);
        assert_eq!(tiles(33, 32, 5).blocks, 10);
    }

    #[test]
    fn depthwise_blocks_take_every_tile_and_equal_turns() {
        // (planes, rows, cols, channels, most)
        for (planes, rows, cols, channels, most) in [
            (16, 56, 56, 192, 4096),
            (16, 14, 14, 768, 1056),
            (1, 1, 1, 1, 1),
            (0, 5, 5, 3, 8),
            (1000, 224, 224, 40, 1056),
        ] {
            let d = Depthwise::new(planes, [rows, cols], channels, most);
            let tiles = planes * rows.div_ceil(TALL) * cols.div_ceil(d.wide);
            let turns = tiles.div_ceil(TILES * d.parts);
            assert!(turns * d.parts * TILES >= tiles);
            let groups = channels.div_ceil(LANES);
            let geometry = d.geometry(channels);
            assert_eq!(geometry.blocks as usize, d.parts * groups);
            assert_eq!(geometry.threads.0 * geometry.threads.1, THREADS);
            assert!(d.parts == 1 || d.parts * groups <= most.max(groups));
        }
        assert_eq!(Depthwise::new(1, [8, 14], 1, 9).wide, 7);
        assert_eq!(Depthwise::new(1, [8, 16], 1, 9).wide, 4);
        assert_eq!(parts(50_000, 49 * 192), 27);
        assert_eq!((parts(0, 5), parts(3, 0)), (1, 1));
        assert_eq!((warps(0).blocks, warps(9).blocks), (1, 2));
    }

    #[test]
    fn images_are_laid_out_as_in_c() {
        assert_eq!(size_of::<Images>(), 4 * 18);
        let g = conv::Geometry {
            batch: 2,
            input: [1, 5, 6],
            output: [1, 3, 4],
            kernel: [1, 3, 3],
            stride: [1, 2, 2],
            dilation: [1, 1, 1],
            before: [0, 1, 2],
            c_in: 3,
            c_out: 4,
            groups: 1,
        };
        let images = Images::new(&g).unwrap();
        assert_eq!((images.output, images.before), ([1, 3, 4], [0, 1, 2]));
        assert!(Images::new(&conv::Geometry { input: [1, 1, 1 << 31], ..g }).is_none());
    }

    #[test]
    fn row_sums_use_the_whole_gpu() {
        assert_eq!(rows(1, 1 << 26, 1 << 26, 1), Rows { by_block: true, splits: 1024 });
        assert_eq!(rows(100_000, 512, 512, 1), Rows { by_block: true, splits: 1 });
        assert_eq!(rows(4096, 1 << 16, 1, 4096), Rows { by_block: false, splits: 32 });
        assert_eq!(rows(0, 5, 0, 1).splits, 1);
        assert_eq!(rows(7, 0, 1, 1).splits, 1);
    }

    #[test]
    fn rows_go_to_the_kernel_that_holds_them() {
        for bytes in [4, 8] {
            for n in [1, 2, 31, 32, 33, 127, 128, 129, 768, 1000, 1024, 1025, 5000, 8192, 8193, 70_000] {
                for count in [0, 1, 7, 8, 9, 100_000, 1 << 40] {
                    let RowKernel { suffix, geometry } = row_kernel(bytes, count, n);
                    let packs = n.div_ceil(16 / bytes);
                    // The name says how many packs a thread has.
                    let (threads, of_thread) = match suffix.strip_prefix("warp") {
                        Some(count) => (32, count),
                        None => (THREADS as usize, suffix.strip_prefix("block").unwrap_or("1000000")),
                    };
                    let holds = threads * of_thread.parse::<usize>().unwrap();
                    assert!(packs <= holds, "{n} entries of {bytes} bytes in {suffix}");
                    assert_eq!(geometry.threads.0, if suffix == "long" { 1024 } else { THREADS });
                    assert!((1..=1 << 20).contains(&geometry.blocks));
                    let pieces = stretches(bytes, count, n);
                    assert!(pieces == 1 || (packs >= 1024 * pieces && count * pieces <= 264));
                    let summing = summing_row_kernel(bytes, count, n);
                    assert_eq!(summing.suffix, suffix);
                    assert!((1..=1056).contains(&summing.geometry.blocks));
                }
            }
        }
        assert_eq!(row_kernel(4, 4096, 768).suffix, "warp6");
        assert_eq!(row_kernel(4, 4096, 768).geometry.blocks, 512);
        assert_eq!(row_kernel(4, 49_152, 128).suffix, "warp1");
        assert!(row_kernel(4, 64, 50_000).is_long());
        assert_eq!(
            (stretches(4, 64, 50_000), stretches(4, 1, 1 << 30), stretches(8, 1, 4097), stretches(4, 133, 1 << 20)),
            (4, 264, 2, 1)
        );
    }

    #[test]
    fn every_channel_of_every_row_is_one_blocks() {
        for (pack, channels) in [(4, 4), (4, 96), (4, 192), (4, 1000), (1, 1), (1, 3), (1, 33), (2, 6), (2, 770)] {
            for (groups, rows) in [(1, 1), (1, 50_000), (16, 49), (3, 700), (0, 5), (5, 0)] {
                let plan = pieces([groups, rows, channels], pack, 2048);
                assert!(plan.lanes.is_power_of_two() && plan.lanes <= 32);
                let tiles = channels.div_ceil(plan.lanes * pack);
                assert!(tiles == 1 || plan.lanes == 32);
                let stretch = rows.div_ceil(plan.pieces);
                assert!(stretch * plan.pieces >= rows);
                assert_eq!(plan.geometry.blocks as usize, (groups * tiles).max(1) * plan.pieces);
            }
        }
        let plan = pieces([16, 3136, 768], 4, 2048);
        assert_eq!((plan.lanes, plan.pieces, plan.geometry.blocks), (32, 22, 2112));
    }

    #[test]
    fn a_transpose_visits_every_entry_once() {
        let x = Layout::contiguous(&[9, 10, 11, 12]);
        for axes in [[1, 2, 3, 0], [3, 1, 0, 2], [2, 3, 1, 0], [0, 3, 2, 1], [0, 2, 3, 1]] {
            let y = x.permuted(&axes);
            let nest = loops([&y]);
            let Some(t) = transpose(&nest) else { panic!("{axes:?} has a transpose") };
            let mut out = vec![usize::MAX; x.len()];
            let batch: usize = t.rest.iter().map(|l| l.size).product();
            for b in 0..batch {
                let (mut from, mut to, mut rest) = (0isize, 0isize, b);
                for l in t.rest.iter().rev() {
                    from += (rest % l.size) as isize * l.strides[0];
                    to += (rest % l.size) as isize * l.strides[1];
                    rest /= l.size;
                }
                for row in 0..t.rows as isize {
                    for col in 0..t.cols as isize {
                        out[(to + row * t.out_step + col) as usize] = (from + row + col * t.source_step) as usize;
                    }
                }
            }
            for (position, &source) in out.iter().enumerate() {
                let index = crate::tensor::index_at(y.shape(), position);
                let wanted: isize = index.iter().zip(y.strides()).map(|(&i, &stride)| i as isize * stride).sum();
                assert_eq!(source, wanted as usize, "{axes:?} at {index:?}");
            }
        }
        assert!(transpose(&loops([&x])).is_none());
    }

    #[test]
    fn arguments_are_compared_with_the_table() {
        assert!(fits(
            Source::Elementwise,
            "copy_4",
            &[
                Arg::Pointer(0),
                Arg::Pointer(0),
                int(3),
                Arg::Nest(Nest::new(&[Loop { size: 3, strides: [1] }]).unwrap())
            ]
        ));
        assert!(!fits(Source::Elementwise, "copy_4", &[Arg::Pointer(0), int(3)]));
        assert!(fits(Source::Linalg, "triangle_f64", &[Arg::Pointer(0), int(1), int(1), int(0)]));
    }
}
