//! Rows by least squares on the host: every row on its own, some rows a thread.
// Indices count rows and columns of small matrices.
#![allow(clippy::needless_range_loop)]

use super::{Cpu, vectorized};
use crate::device::least_squares::{LEAST, Normal, ROUNDS, Rule, triangle};

/// Multiplications that are worth a second thread.
const GRAIN: usize = 1 << 16;

pub(crate) fn solve(cpu: &Cpu, normal: Normal, rule: Rule, [m, h, start]: [&[f64]; 3], out: &mut [f64]) {
    let Normal { rows, rank, own } = normal;
    if out.is_empty() {
        return;
    }
    let parts = cpu.parts(rows * rank * rank * (rank + 8), GRAIN).max(1);
    let per_part = rows.div_ceil(parts);
    cpu.map_pieces(out.chunks_mut(per_part * rank).enumerate().collect(), &|(piece, out)| {
        let mut row = Row { h: vec![0.0; rank * rank], rest: vec![0.0; rank], diagonal: vec![0.0; rank] };
        for (i, out) in out.chunks_exact_mut(rank).enumerate() {
            let r = piece * per_part + i;
            if own {
                let packed = triangle(rank);
                row.unpack(&h[r * packed..(r + 1) * packed]);
            } else if i == 0 || matches!(rule, Rule::Free { .. }) {
                // The factorisation has overwritten the last one.
                row.h.copy_from_slice(&h[..rank * rank]);
            }
            out.copy_from_slice(&start[r * rank..(r + 1) * rank]);
            let m = &m[r * rank..(r + 1) * rank];
            vectorized(
                #[inline(always)]
                || {
                    row.begin(m, out);
                    match rule {
                        Rule::Free { cut } => row.factor(cut, out),
                        Rule::NonNegative => row.descend(out),
                    }
                },
            );
        }
    });
}

/// What is held for the row at hand.
struct Row {
    /// `R x R`, both triangles.
    h: Vec<f64>,
    /// m - a H.
    rest: Vec<f64>,
    diagonal: Vec<f64>,
}

impl Row {
    fn unpack(&mut self, packed: &[f64]) {
        let rank = self.rest.len();
        let mut from = packed.iter();
        for i in 0..rank {
            for (j, &x) in (0..=i).zip(&mut from) {
                self.h[i * rank + j] = x;
                self.h[j * rank + i] = x;
            }
        }
    }

    #[inline(always)]
    fn begin(&mut self, m: &[f64], a: &[f64]) {
        self.rest.copy_from_slice(m);
        for (h, &a) in self.h.chunks_exact(a.len()).zip(a) {
            subtract(&mut self.rest, a, h);
        }
    }

    /// Each entry in turn goes where the sum of squares is least.
    #[inline(always)]
    fn descend(&mut self, a: &mut [f64]) {
        let rank = a.len();
        let mut first = 0.0;
        for round in 0..ROUNDS {
            let mut gained = 0.0;
            for j in 0..rank {
                let h = &self.h[j * rank..(j + 1) * rank];
                if h[j] > 0.0 {
                    let best = a[j] + self.rest[j] / h[j];
                    // NaN stays what it is.
                    let best = if best <= 0.0 { 0.0 } else { best };
                    let step = best - a[j];
                    if step != 0.0 {
                        a[j] = best;
                        subtract(&mut self.rest, step, h);
                        gained += h[j] * step * step;
                    }
                }
            }
            if round == 0 {
                first = gained;
            }
            if gained <= LEAST * first {
                break;
            }
        }
    }

    /// Adds the solution for what is left, by Cholesky, column by column; components without a pivot of their own are passed over.
    #[inline(always)]
    fn factor(&mut self, cut: f64, a: &mut [f64]) {
        let rank = a.len();
        let Self { h, rest, diagonal } = self;
        for j in 0..rank {
            diagonal[j] = h[j * rank + j];
        }
        // Row j of the upper triangle, which is column j of the lower factor.
        for j in 0..rank {
            let pivot = h[j * rank + j];
            let (above, below) = h.split_at_mut((j + 1) * rank);
            let row = &mut above[j * rank + j..];
            let kept = pivot > cut * diagonal[j];
            if !kept {
                row.fill(0.0);
                continue;
            }
            let root = pivot.sqrt();
            row[0] = root;
            row[1..].iter_mut().for_each(|x| *x /= root);
            for (i, under) in below.chunks_exact_mut(rank).enumerate() {
                let i = j + 1 + i;
                subtract(&mut under[i..], row[i - j], &row[i - j..]);
            }
        }
        for j in 0..rank {
            let row = &h[j * rank..(j + 1) * rank];
            let found = if row[j] > 0.0 { rest[j] / row[j] } else { 0.0 };
            rest[j] = found;
            subtract(&mut rest[j + 1..], found, &row[j + 1..]);
        }
        for j in (0..rank).rev() {
            let row = &h[j * rank..(j + 1) * rank];
            let sum: f64 = row[j + 1..].iter().zip(&rest[j + 1..]).map(|(l, x)| l * x).sum();
            rest[j] = if row[j] > 0.0 { (rest[j] - sum) / row[j] } else { 0.0 };
            a[j] += rest[j];
        }
    }
}

/// `to -= by from`.
#[inline(always)]
fn subtract(to: &mut [f64], by: f64, from: &[f64]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to -= by * from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Numbers between -1 and 1.
    fn numbers(n: usize, seed: usize) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed as u64);
        (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    /// A problem: H = B^T B for a B of `deep` rows, one for all rows or one each, and what its squares are.
    struct Problem {
        normal: Normal,
        squares: Vec<Vec<f64>>,
        h: Vec<f64>,
        m: Vec<f64>,
        start: Vec<f64>,
    }

    impl Problem {
        fn new(rows: usize, rank: usize, own: bool, deep: usize, seed: usize) -> Self {
            let square = |b: &[f64]| -> Vec<f64> {
                let entry = |i: usize, j: usize| (0..deep).map(|k| b[k * rank + i] * b[k * rank + j]).sum();
                (0..rank * rank).map(|at| entry(at / rank, at % rank)).collect()
            };
            let base: Vec<Vec<f64>> =
                (0..rows).map(|r| numbers(deep * rank, if own { seed + r } else { seed })).collect();
            let squares: Vec<Vec<f64>> = base.iter().map(|b| square(b)).collect();
            let lower =
                |h: &Vec<f64>| (0..rank).flat_map(|i| h[i * rank..i * rank + i + 1].to_vec()).collect::<Vec<f64>>();
            let h = if own {
                squares.iter().flat_map(lower).collect()
            } else {
                squares.first().cloned().unwrap_or_default()
            };
            // Right sides that a row can have: M = Y B.
            let m = base.iter().zip(0..).flat_map(|(b, r)| {
                let y = numbers(deep, seed + 50 + r);
                (0..rank).map(move |j| (0..deep).map(|k| y[k] * b[k * rank + j]).sum())
            });
            let start = numbers(rows * rank, seed + 99).iter().map(|x: &f64| x.abs()).collect();
            Self { normal: Normal { rows, rank, own }, m: m.collect(), squares, h, start }
        }

        fn solve(&self, rule: Rule, threads: usize) -> Vec<f64> {
            let mut out = vec![f64::NAN; self.start.len()];
            solve(&Cpu::with_threads(threads), self.normal, rule, [&self.m, &self.h, &self.start], &mut out);
            out
        }

        /// m - a H of a row.
        fn rest(&self, row: usize, a: &[f64]) -> Vec<f64> {
            let rank = self.normal.rank;
            let (a, m, h) = (&a[row * rank..][..rank], &self.m[row * rank..], &self.squares[row]);
            (0..rank).map(|j| m[j] - (0..rank).map(|i| a[i] * h[i * rank + j]).sum::<f64>()).collect()
        }
    }

    const SIZES: [(usize, usize); 6] = [(1, 1), (3, 2), (17, 5), (2, 40), (200, 9), (0, 3)];

    #[test]
    fn free_rows_leave_no_gradient() {
        for (seed, (rows, rank)) in SIZES.into_iter().enumerate() {
            // As many rows as it takes, and too few: a singular matrix.
            for (own, deep) in [(false, rank + 3), (true, rank + 3), (false, rank / 2), (true, rank.div_ceil(2))] {
                let problem = Problem::new(rows, rank, own, deep, seed);
                let found = problem.solve(Rule::Free { cut: 1e-9 }, 1);
                for row in 0..rows {
                    let rest = problem.rest(row, &found);
                    assert!(rest.iter().all(|x| x.abs() < 1e-8), "{rows} x {rank}, {own}, {deep}: {rest:?}");
                }
                assert_eq!(found, problem.solve(Rule::Free { cut: 1e-9 }, 3));
                // Components that have no pivot of their own have not moved.
                let kept = found.iter().zip(&problem.start).filter(|(a, b)| a == b).count();
                assert_eq!(kept, rows * rank.saturating_sub(deep), "{rows} x {rank}, {own}, {deep}");
            }
        }
    }

    #[test]
    fn non_negative_rows_are_where_no_step_helps() {
        for (seed, (rows, rank)) in SIZES.into_iter().enumerate() {
            for (own, deep) in [(false, 3 * rank), (true, 3 * rank)] {
                let mut problem = Problem::new(rows, rank, own, deep, seed);
                let first = problem.solve(Rule::NonNegative, 1);
                assert_eq!(first, problem.solve(Rule::NonNegative, 3));
                assert!(first.iter().all(|&a| a >= 0.0));
                // From where it stopped again and again, it arrives.
                for _ in 0..400 {
                    problem.start = problem.solve(Rule::NonNegative, 1);
                }
                let found = &problem.start;
                for row in 0..rows {
                    for (a, rest) in found[row * rank..].iter().zip(problem.rest(row, found)) {
                        assert!(rest < 1e-6 && (*a == 0.0 || rest.abs() < 1e-6), "{rows} x {rank}, {own}: {a}, {rest}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_determined_stays_and_nan_is_seen() {
        let normal = Normal { rows: 1, rank: 2, own: false };
        for rule in [Rule::Free { cut: 1e-9 }, Rule::NonNegative] {
            let mut out = [f64::NAN; 2];
            solve(&Cpu::with_threads(1), normal, rule, [&[3.0, 0.0], &[4.0, 0.0, 0.0, 0.0], &[5.0, 7.0]], &mut out);
            assert_eq!(out, [0.75, 7.0]);
            solve(
                &Cpu::with_threads(1),
                normal,
                rule,
                [&[f64::NAN, 0.0], &[4.0, 0.0, 0.0, 0.0], &[5.0, 7.0]],
                &mut out,
            );
            assert!(out[0].is_nan());
        }
    }
}
