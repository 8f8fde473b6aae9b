//! Matrix products in singles of which one side is short: mode products, MTTKRP, range finders. cuBLAS takes up to twice the time that the
//! large operand takes to pass.
//!
//! The large operand is read once, by tiles of 256 rows (`kernels/thin.cu`). Where there are fewer tiles than it takes to fill a GPU the
//! sum is cut into pieces, whose results are added up by a second launch; how many depends on sizes alone, so that results repeat.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    call::Folded,
    compile::Source,
    context::Cuda,
    elementwise::blend,
    launch::{Arg, Geometry, Thin},
    reduce,
};
use crate::{
    device::{
        gemm::{Batch, Gemm, Matrix},
        layout::Layout,
        precision::Precision,
    },
    error::Result,
    scalar::{DType, Scalar},
};

/// Rows of a tile, and how much of the inner side is in shared memory at a time.
const TILE: usize = 256;
const DEPTH: usize = 8;

/// Columns that there are kernels for, and their threads.
const KERNELS: [(usize, u32); 4] = [(8, 128), (16, 128), (32, 128), (48, 192)];

/// Entries of the large operand from which on launches do not matter.
const LARGE: usize = 1 << 20;

/// Blocks that fill a GPU.
const ENOUGH: usize = 1056;

/// Chunks of the inner side in a piece of the sum: results of pieces are written and read again.
const LEAST_CHUNKS: usize = 128;

/// A product as the kernels see it: A is the operand with the long side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// A is the second operand of the product, transposed.
    swapped: bool,
    /// A's inner side lies along memory, rather than its rows.
    along: bool,
    m: usize,
    k: usize,
    r: usize,
    a: Matrix,
    b: Matrix,
    c: Matrix,
    products: Batch,
    terms: Batch,
    pieces: usize,
    chunks: usize,
}

impl Plan {
    /// `None` where neither side is short, or a product is too small, or lies so that other ways are better.
    pub(crate) fn new<T>(p: &Gemm<T>, folded: &Folded) -> Option<Self> {
        let &Folded { m, n, k, ref batch, ref sum } = folded;
        let one = Batch { size: 1, a: 0, b: 0, c: 0 };
        let only = |loops: &[Batch]| match loops {
            [] => Some(one),
            [l] => Some(*l),
            _ => None,
        };
        let (mut products, mut terms) = (only(batch)?, only(sum)?);
        let swapped = m < n;
        let (m, r, a, b, c) = match swapped {
            false => (m, n, p.a, p.b, p.c),
            true => (n, m, p.b.t(), p.a.t(), p.c.t()),
        };
        if swapped {
            let turned = |l: Batch| Batch { a: l.b, b: l.a, ..l };
            (products, terms) = (turned(products), turned(terms));
        }
        let along = a.cols == 1;
        let read = products.size.checked_mul(terms.size)?.checked_mul(m)?.checked_mul(k)?;
        let tiles = m.div_ceil(TILE);
        let short = r <= KERNELS[KERNELS.len() - 1].0;
        // Tiles that are mostly empty, or an operand that many products share, are better left to cuBLAS.
        let full = 3 * m >= 2 * tiles * TILE && k * terms.size >= 8 * DEPTH && (products.size == 1 || products.a != 0);
        if !short || !full || read < LARGE || !(along || a.rows == 1) {
            return None;
        }
        let all = k.div_ceil(DEPTH) * terms.size;
        let pieces = (ENOUGH / (tiles * products.size)).clamp(1, all.div_ceil(LEAST_CHUNKS));
        let chunks = all.div_ceil(pieces);
        let pieces = all.div_ceil(chunks);
        // Beyond this a grid is not possible.
        let grid = tiles.checked_mul(products.size)?.checked_mul(pieces)?;
        (grid < 1 << 31).then_some(Self { swapped, along, m, k, r, a, b, c, products, terms, pieces, chunks })
    }

    /// The kernel, and how it is launched.
    fn kernel(&self) -> (String, Geometry) {
        let (columns, threads) =
            KERNELS.into_iter().find(|&(columns, _)| self.r <= columns).unwrap_or(KERNELS[KERNELS.len() - 1]);
        let way = if self.along { "along" } else { "across" };
        let blocks = self.m.div_ceil(TILE) * self.products.size * self.pieces;
        (format!("thin_{way}_{columns}"), Geometry { blocks: blocks as u32, threads: (threads, 1) })
    }

    /// The kernel's sizes for operands that begin at addresses `a` and `to`, and results that lie as `c` does, moved by `product` and `piece`.
    fn sizes(&self, a: u64, (to, c): (u64, Matrix), product: isize, piece: usize) -> Thin {
        let lead = if self.along { self.a.rows } else { self.a.cols };
        let whole = |address: u64, steps: [isize; 3]| address.is_multiple_of(16) && steps.iter().all(|s| s % 4 == 0);
        let wide = whole(a, [lead, self.products.a, self.terms.a]);
        let packs = match whole(to, [if c.cols == 1 { c.rows } else { c.cols }, product, piece as isize]) {
            true if c.cols == 1 => 1,
            true if c.rows == 1 => 2,
            _ => 0,
        };
        let both = |x: isize, y: isize| [x as i64, y as i64];
        Thin {
            m: self.m as i64,
            k: self.k as i64,
            r: self.r as i64,
            lead: lead as i64,
            b: both(self.b.rows, self.b.cols),
            c: both(c.rows, c.cols),
            batch: [self.products.a as i64, self.products.b as i64, product as i64],
            terms: self.terms.size as i64,
            sums: both(self.terms.a, self.terms.b),
            pieces: self.pieces as i64,
            chunks: self.chunks as i64,
            piece: piece as i64,
            wide: wide.into(),
            packs,
        }
    }

    /// Where the results lie, as `[products, m, r]`.
    fn result_layout(&self) -> Layout {
        Layout::new(&[self.products.size, self.m, self.r], &[self.products.c, self.c.rows, self.c.cols], self.c.offset)
    }
}

/// The plan for a product that is computed in singles throughout.
pub(crate) fn plan<T: Scalar>(gpu: &Cuda, p: &Gemm<T>, folded: &Folded) -> Option<Plan> {
    (T::DTYPE == DType::F32 && gpu.precision() == Precision::F32).then(|| Plan::new(p, folded)).flatten()
}

/// Queues the product that the plan was made for.
///
/// # Safety
/// The operands A, B and C lie in their blocks, and C is the caller's alone.
pub(crate) unsafe fn run<T: Scalar>(
    gpu: &Cuda,
    plan: &Plan,
    p: &Gemm<T>,
    [a, b]: [&CudaBlock<T>; 2],
    c: &mut CudaBlock<T>,
) -> Result<()> {
    const NAME: &str = "gemm";
    let (a, b) = if plan.swapped { (b, a) } else { (a, b) };
    let (a, b) = (a.at(plan.a.offset), b.at(plan.b.offset));
    let (kernel, geometry) = plan.kernel();
    let launch = |c: (u64, Matrix), product: isize, piece: usize| {
        let sizes = Arg::Thin(plan.sizes(a, c, product, piece));
        let args = [Arg::Pointer(a), Arg::Pointer(b), Arg::Pointer(c.0), sizes, Arg::Float(p.alpha.f64() as f32)];
        // SAFETY: the operands lie in their blocks by the caller's word, results at `c` in theirs.
        unsafe { gpu.launch(NAME, (Source::Thin, &kernel), geometry, &args) }
    };
    if plan.pieces == 1 && p.beta == T::zero() {
        return launch((c.at(plan.c.offset), plan.c), plan.products.c, 0);
    }
    let plane = plan.m * plan.r;
    let len = plane * plan.products.size;
    let partial = gpu.allocate::<T>(len * plan.pieces)?;
    let rows = Matrix { offset: 0, rows: plan.r as isize, cols: 1 };
    launch((partial.at(0), rows), plane as isize, len)?;
    let at = plan.result_layout();
    let mut none = gpu.allocate::<T>(0)?;
    if c.len() == len && at.offset() == 0 && at.is_contiguous() && p.beta == T::zero() {
        return reduce::fold(gpu, NAME, &partial, len, (c, &mut none));
    }
    let mut sum = gpu.allocate::<T>(len)?;
    reduce::fold(gpu, NAME, &partial, len, (&mut sum, &mut none))?;
    blend(gpu, Some(&sum), c, &at, p.beta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Device, Kind, cuda::call::fold, layout::Modes};

    fn gemm([m, k, n]: [usize; 3], a: Matrix, b: Matrix) -> Gemm<f32> {
        let c = Matrix { offset: 0, rows: n as isize, cols: 1 };
        Gemm { m, n, k, a, b, c, batch: Modes::new(), sum: Modes::new(), alpha: 1.0, beta: 0.0 }
    }

    fn plan_of(p: &Gemm<f32>) -> Option<Plan> {
        Plan::new(p, &fold(p))
    }

    fn rows(cols: usize) -> Matrix {
        Matrix { offset: 0, rows: cols as isize, cols: 1 }
    }

    #[test]
    fn the_large_operand_comes_first() {
        let tall = plan_of(&gemm([4096, 512, 20], rows(512), rows(20))).unwrap();
        assert!(!tall.swapped && tall.along);
        assert_eq!((tall.m, tall.k, tall.r), (4096, 512, 20));
        let wide = plan_of(&gemm([20, 512, 4096], rows(512), rows(4096))).unwrap();
        assert!(wide.swapped && !wide.along);
        assert_eq!((wide.m, wide.k, wide.r), (4096, 512, 20));
        assert_eq!((wide.a, wide.b, wide.c), (rows(4096).t(), rows(512).t(), rows(4096).t()));
        assert_eq!(wide.kernel().0, "thin_across_32");
    }

    #[test]
    fn what_it_is_not_made_for_is_left_alone() {
        for (sizes, a) in [
            ([4096, 512, 49], rows(512)),
            ([4096, 128, 20], rows(128)),
            ([100, 100_000, 20], rows(100_000)),
            ([4096, 512, 20], Matrix { offset: 0, rows: 1024, cols: 2 }),
            ([1 << 20, 16, 8], rows(16)),
        ] {
            assert_eq!(plan_of(&gemm(sizes, a, rows(sizes[2]))), None, "{sizes:?} {a:?}");
        }
        let shared = Batch { size: 10, a: 0, b: 512 * 20, c: 4096 * 20 };
        let shared = Gemm { batch: [shared].into_iter().collect(), ..gemm([4096, 512, 20], rows(512), rows(20)) };
        assert_eq!(plan_of(&shared), None);
    }

    #[test]
    fn pieces_cover_the_sum_once_and_fill_a_gpu() {
        for (m, k, terms) in [(512, 1 << 18, 1), (256, 65_537, 1), (400, 1000, 77), (262_144, 512, 1), (512, 33, 512)] {
            let mut p = gemm([m, k, 42], rows(k), rows(42));
            if terms > 1 {
                // Rows further apart than one term is long, so that the loops do not merge.
                p.a = rows(2 * k * terms);
                p.sum = [Batch { size: terms, a: 2 * k as isize, b: 42 * k as isize, c: 0 }].into_iter().collect();
            }
            let plan = plan_of(&p).unwrap();
            let all = k.div_ceil(DEPTH) * terms;
            assert!(plan.chunks * (plan.pieces - 1) < all && all <= plan.chunks * plan.pieces, "{plan:?}");
            let blocks = plan.kernel().1.blocks as usize;
            assert!(blocks * 2 > ENOUGH || plan.chunks < 2 * LEAST_CHUNKS, "{blocks} blocks: {plan:?}");
        }
    }

    /// Sums in doubles, of a product that has scales and a result with gaps.
    #[test]
    fn scales_and_results_with_gaps_are_as_defined() {
        let device = match Device::cuda(0) {
            Ok(device) => device,
            Err(error) => return println!("skipped: no GPU here ({error})"),
        };
        let Kind::Cuda(gpu) = &device.0 else { panic!("a GPU") };
        let [m, k, n] = [1030, 1100, 11];
        let number = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 1009.0 - 0.5;
        let numbers = |len: usize| (0..len).map(number).collect::<Vec<f32>>();
        // Columns of A and rows of B are in turn along memory; results lie in every second place.
        for (a_at, b_at) in [(rows(k), rows(n)), (rows(m).t(), rows(k).t()), (rows(k), rows(k).t())] {
            let (a, b, c) = (numbers(m * k), numbers(k * n), numbers(2 * m * n + 3));
            let c_at = Matrix { offset: 3, rows: 2 * n as isize, cols: 2 };
            let p = Gemm { alpha: -1.5, beta: 0.25, c: c_at, ..gemm([m, k, n], a_at, b_at) };
            let plan = plan(gpu, &p, &fold(&p)).unwrap();
            let [x, y] = [&a, &b].map(|entries| gpu.upload(entries).unwrap());
            let mut z = gpu.upload(&c).unwrap();
            // SAFETY: the operands lie in their blocks.
            unsafe { run(gpu, &plan, &p, [&x, &y], &mut z) }.unwrap();
            let mut got = vec![0.0; c.len()];
            z.download(&mut got).unwrap();
            let at = |of: Matrix, row: usize, col: usize| of.offset + row * of.rows as usize + col * of.cols as usize;
            let mut wanted = c.clone();
            for row in 0..m {
                for col in 0..n {
                    let sum: f64 = (0..k).map(|l| a[at(a_at, row, l)] as f64 * b[at(b_at, l, col)] as f64).sum();
                    let entry = &mut wanted[at(c_at, row, col)];
                    *entry = (-1.5 * sum + 0.25 * *entry as f64) as f32;
                }
            }
            let largest = wanted.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let far = got.iter().zip(&wanted).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
            assert!(far < 1e-5 * largest, "{far} of {largest}");
        }
    }
}
