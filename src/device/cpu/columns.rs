//! The columnwise contraction on the host: one pass over Y.

use super::{Cpu, elementwise::rows, vectorized};
use crate::{
    device::{columns::Columns, gemm::Matrix},
    scalar::Scalar,
};

pub(crate) fn contract<T: Scalar>(cpu: &Cpu, s: Columns, y: &[T], (b, b_at): (&[T], Matrix), out: &mut [T]) {
    let Columns { before, n, after, rank } = s;
    debug_assert_eq!(out.len(), before * after * rank);
    if out.is_empty() {
        return;
    }
    // The factor's rows, side by side: it is small and met once for every row of the result.
    let factor: Vec<T> = (0..n * rank)
        .map(|i| {
            let (j, r) = ((i / rank) as isize, (i % rank) as isize);
            b[b_at.offset.wrapping_add_signed(j * b_at.rows + r * b_at.cols)]
        })
        .collect();
    rows(cpu, out, rank, |range, out| {
        vectorized(
            #[inline(always)]
            || {
                for (row, out) in range.clone().zip(out.chunks_exact_mut(rank)) {
                    let (i, k) = (row / after, row % after);
                    out.fill(T::default());
                    let start = (i * n * after + k) * rank;
                    for (j, factor) in factor.chunks_exact(rank).enumerate() {
                        let at = start + j * after * rank;
                        let y = &y[at..at + rank];
                        for ((z, &y), &b) in out.iter_mut().zip(y).zip(factor) {
                            *z += y * b;
                        }
                    }
                }
            },
        )
    });
}
