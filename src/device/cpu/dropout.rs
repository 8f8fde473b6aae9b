//! Philox4x32-10 in vector lanes, and dropout with it.
//!
//! J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, *Parallel random numbers: as easy as 1, 2, 3*, SC 2011.

use super::{Cpu, rows, vectorized};
use crate::{device::dropout::Drop, scalar::Scalar};

/// Counters that are worked on together. Each gives four words.
const LANES: usize = 16;

/// Positions that share a call of the generator.
pub(crate) const BLOCK: usize = 4 * LANES;

/// Word `j` of counter `16 b + l` belongs to position `64 b + 16 j + l`.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // Lanes of four arrays at once.
fn words(seed: u64, step: u64, block: u64) -> [[u32; LANES]; 4] {
    let counter = |l: usize| block * LANES as u64 + l as u64;
    let mut c = [
        std::array::from_fn(|l| counter(l) as u32),
        std::array::from_fn(|l| (counter(l) >> 32) as u32),
        [step as u32; LANES],
        [(step >> 32) as u32; LANES],
    ];
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..10 {
        for l in 0..LANES {
            let [a, b, x, y] = [c[0][l], c[1][l], c[2][l], c[3][l]];
            let (first, second) = (a as u64 * 0xD251_1F53, x as u64 * 0xCD9E_8D57);
            c[0][l] = (second >> 32) as u32 ^ b ^ key[0];
            c[1][l] = second as u32;
            c[2][l] = (first >> 32) as u32 ^ y ^ key[1];
            c[3][l] = first as u32;
        }
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

/// The factors of the positions of one block.
#[inline(always)]
fn block_factors<T: Scalar>(drop: &Drop, threshold: u64, factor: T, block: u64) -> [T; BLOCK] {
    let words = words(drop.seed, drop.step, block);
    let mut out = [T::zero(); BLOCK];
    // The threshold of probability 1 does not fit a word; the factor is 0 then.
    let least = threshold.min(u32::MAX as u64) as u32;
    for (out, words) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(&words) {
        for l in 0..LANES {
            out[l] = if words[l] < least { T::zero() } else { factor };
        }
    }
    out
}

/// The factors of `start..start + out.len()`, for use inside a vectorised loop.
#[inline(always)]
pub(crate) fn factors_inline<T: Scalar>(drop: &Drop, start: u64, out: &mut [T]) {
    let (threshold, factor) = (drop.threshold(), drop.factor());
    let mut position = start;
    let mut rest = out;
    while !rest.is_empty() {
        let skip = (position % BLOCK as u64) as usize;
        let here = (BLOCK - skip).min(rest.len());
        let (now, after) = rest.split_at_mut(here);
        let block = block_factors(drop, threshold, factor, position / BLOCK as u64);
        now.copy_from_slice(&block[skip..skip + here]);
        position += here as u64;
        rest = after;
    }
}

/// The factors of `start..start + out.len()`.
pub(crate) fn factors<T: Scalar>(drop: &Drop, start: u64, out: &mut [T]) {
    vectorized(
        #[inline(always)]
        || factors_inline(drop, start, out),
    );
}

/// `out = x * factors`
pub(crate) fn apply<T: Scalar>(cpu: &Cpu, drop: &Drop, x: &[T], out: &mut [T]) {
    let (threshold, factor) = (drop.threshold(), drop.factor());
    let whole = x.len() / BLOCK * BLOCK;
    let (out, last) = out.split_at_mut(whole);
    rows::map_rows(cpu, whole / BLOCK, [(out, BLOCK)], &|range, [out]| {
        vectorized(
            #[inline(always)]
            || {
                let blocks = range.clone().zip(&x.as_chunks::<BLOCK>().0[range.clone()]);
                for ((block, x), out) in blocks.zip(out.as_chunks_mut::<BLOCK>().0) {
                    let factors: [T; BLOCK] = block_factors(drop, threshold, factor, block as u64);
                    for i in 0..BLOCK {
                        // Not a product where the entry is dropped: it may be infinite.
                        out[i] = if factors[i] == T::zero() { T::zero() } else { x[i] * factors[i] };
                    }
                }
            },
        )
    });
    factors(drop, whole as u64, last);
    for (out, &x) in last.iter_mut().zip(&x[whole..]) {
        *out = if *out == T::zero() { T::zero() } else { x * *out };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_philox() {
        // The known answers that come with Random123.
        let first = |seed, step, block| words(seed, step, block).map(|w| w[0]);
        assert_eq!(first(0, 0, 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        // Counter 243f6a88 85a308d3 13198a2e 03707344 is lane 8 of its block.
        let counter = 0x85a3_08d3_243f_6a88u64;
        let lane = (counter % LANES as u64) as usize;
        let got = words(0x299f_31d0_a409_3822, 0x0370_7344_1319_8a2e, counter / LANES as u64).map(|w| w[lane]);
        assert_eq!(got, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn factors_belong_to_positions() {
        let drop = Drop { probability: 0.3, seed: 5, step: 9 };
        let mut all = vec![0.0f32; 1000];
        factors(&drop, 0, &mut all);
        for (start, len) in [(0, 1), (1, 70), (63, 2), (64, 64), (130, 870)] {
            let mut some = vec![0.0f32; len];
            factors(&drop, start as u64, &mut some);
            assert_eq!(some, all[start..start + len]);
        }
    }
}
