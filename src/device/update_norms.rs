//! The lengths of the rows of `W + B A`, which is not formed: what DoRA divides by.

use super::{
    Kind, cpu,
    storage::{Flat, Storage},
};
use crate::{error::Result, scalar::Scalar};

const NAME: &str = "update_norms";

/// `|w_o + b_o A|` for each row of W `[rows, cols]`, with B `[rows, rank]` and A `[rank, cols]`.
///
/// On the host one pass over W, 2 rows cols (rank + 1) flops.
pub(crate) fn update_norms<T: Scalar>(
    [rows, cols, rank]: [usize; 3],
    w: Flat<'_, T>,
    b: Flat<'_, T>,
    a: Flat<'_, T>,
) -> Result<Storage<T>> {
    debug_assert_eq!([w.len, b.len, a.len], [rows * cols, rows * rank, rank * cols]);
    let device = w.storage.device();
    match &device.0 {
        Kind::Cpu(cpu) => {
            let operands = [w.host(NAME)?, b.host(NAME)?, a.host(NAME)?];
            let mut out = Storage::uninit(device, rows)?;
            cpu::update_norms::update_norms(cpu, [cols, rank], operands, out.host_mut(NAME)?);
            Ok(out)
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(_) => {
            use super::{
                elementwise::{Unary, copy, unary},
                gemm::{Gemm, Matrix, gemm},
                layout::{Layout, Modes},
                reduce::dot_modes,
            };
            let mut moved = copy(w.storage, &Layout::new(&[rows, cols], &[cols as isize, 1], w.start))?;
            let problem = Gemm {
                m: rows,
                n: cols,
                k: rank,
                a: Matrix { offset: b.start, rows: rank as isize, cols: 1 },
                b: Matrix { offset: a.start, rows: cols as isize, cols: 1 },
                c: Matrix { offset: 0, rows: cols as isize, cols: 1 },
                batch: Modes::new(),
                sum: Modes::new(),
                alpha: T::one(),
                beta: T::one(),
            };
            gemm(device, &problem, b.storage, a.storage, &mut moved)?;
            let all = Layout::contiguous(&[rows, cols]);
            let squares = dot_modes((&moved, &all), (&moved, &all), &[true, false])?;
            unary(Unary::Sqrt, &squares, &Layout::contiguous(&[rows]))
        }
    }
}
