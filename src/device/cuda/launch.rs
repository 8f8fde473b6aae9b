//! How kernels are launched: the loops that they walk, their arguments, and how many threads.
//!
//! Nothing here touches a GPU; all of it is tested on the host. The table [`KERNELS`] is the one place that says which kernels there are
//! and what they take: a launch is checked against it in debug builds, and a test compares it with what NVRTC compiles.

use super::compile::Source;
use crate::device::layout::{Loop, Modes};
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
        }
    }

    fn letter(&self) -> char {
        match self {
            Arg::Pointer(_) => 'p',
            Arg::Int(_) => 'i',
            Arg::Double(_) => 'd',
            Arg::Float(_) => 'f',
            Arg::Nest(_) => 'n',
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

/// A kernel (or, where the name ends in `*`, one for `f32` and one for `f64`) and its arguments: `p` an address, `i` an integer, `d` a
/// double, `t` a number of the kernel's type, `n` loops.
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
    (Source::Contract, "triangle_*", "piii"),
];

/// Every kernel by its full name, with its arguments by letter.
pub(crate) fn kernels() -> Vec<(Source, String, String)> {
    const TYPES: [&str; 7] = ["f64", "f32", "f16", "bf16", "u8", "u32", "i64"];
    let mut all = Vec::new();
    for &(source, name, letters) in KERNELS {
        match name.strip_suffix('*') {
            None => all.push((source, name.to_string(), letters.to_string())),
            Some(stem) => {
                all.push((source, format!("{stem}f32"), letters.replace('t', "f")));
                all.push((source, format!("{stem}f64"), letters.replace('t', "d")));
            }
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
            for g in [entries(len), heavy(len), total(len), items(len), tiles(len, 3, 2)] {
                assert!(g.blocks >= 1 && g.blocks <= 1 << 20, "{len}: {g:?}");
                assert!(g.threads.0 * g.threads.1 == THREADS);
            }
        }
        assert_eq!(entries(1025).blocks, 2);
        assert_eq!(total(1 << 40).blocks, 1024);
        assert_eq!(tiles(33, 32, 5).blocks, 10);
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
        assert!(fits(Source::Contract, "triangle_f64", &[Arg::Pointer(0), int(1), int(1), int(0)]));
    }
}
