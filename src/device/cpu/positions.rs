//! Lookups by relative position on the host. Rows of scores fit the first cache; the transposed lookup goes tile by tile, since
//! neighbouring queries look at neighbouring entries of one key's scores.

use super::{Cpu, rows};
use crate::{device::positions::Sizes, scalar::Scalar};

/// The side of the tiles of the transposed lookup.
const TILE: usize = 32;

/// Scores, their index and the length of a row of scores.
type Scores<'a, T> = (&'a [T], &'a [u32], usize);

pub(crate) fn gather<T: Scalar>(
    cpu: &Cpu,
    [_, n, m]: Sizes,
    c2p: Option<Scores<'_, T>>,
    p2c: Option<Scores<'_, T>>,
    scale: T,
    out: &mut [T],
) {
    if out.is_empty() {
        return;
    }
    rows::map_rows(cpu, out.len() / m, [(out, m)], &|range, [out]| {
        let mut row = range.start;
        let mut out = out;
        while row < range.end {
            // Rows of one group, a tile at a time.
            let (group, i) = (row / n, row % n);
            let height = TILE.min(n - i).min(range.end - row);
            let (tile, rest) = std::mem::take(&mut out).split_at_mut(height * m);
            out = rest;
            match c2p {
                Some((x, index, width)) => {
                    let x = x[row * width..].chunks_exact(width).zip(index[i * m..].chunks_exact(m));
                    for ((x, index), out) in x.zip(tile.chunks_exact_mut(m)) {
                        for (out, &at) in out.iter_mut().zip(index) {
                            *out = scale * x[at as usize];
                        }
                    }
                }
                None => tile.fill(T::zero()),
            }
            if let Some((x, index, width)) = p2c {
                let x = &x[group * m * width..(group + 1) * m * width];
                for first in (0..m).step_by(TILE) {
                    let columns = first..(first + TILE).min(m);
                    for (k, out) in tile.chunks_exact_mut(m).enumerate() {
                        let keys = x[first * width..].chunks_exact(width).zip(index[first * n..].chunks_exact(n));
                        for (out, (x, index)) in out[columns.clone()].iter_mut().zip(keys) {
                            *out += scale * x[index[i + k] as usize];
                        }
                    }
                }
            }
            row += height;
        }
    });
}

pub(crate) fn scatter_rows<T: Scalar>(
    cpu: &Cpu,
    [_, n, m]: Sizes,
    dy: &[T],
    (index, width): (&[u32], usize),
    scale: T,
    out: &mut [T],
) {
    if out.is_empty() {
        return;
    }
    rows::map_rows(cpu, out.len() / width, [(out, width)], &|range, [out]| {
        out.fill(T::zero());
        for (row, out) in range.zip(out.chunks_exact_mut(width)) {
            let index = &index[row % n * m..][..m];
            for (&dy, &at) in dy[row * m..(row + 1) * m].iter().zip(index) {
                out[at as usize] += dy;
            }
            for out in out.iter_mut() {
                *out *= scale;
            }
        }
    });
}

pub(crate) fn scatter_columns<T: Scalar>(
    cpu: &Cpu,
    [_, n, m]: Sizes,
    dy: &[T],
    (index, width): (&[u32], usize),
    scale: T,
    out: &mut [T],
) {
    if out.is_empty() {
        return;
    }
    rows::map_rows(cpu, out.len() / width, [(out, width)], &|range, [out]| {
        out.fill(T::zero());
        let mut column = range.start;
        let mut out = out;
        while column < range.end {
            let (group, j) = (column / m, column % m);
            let count = TILE.min(m - j).min(range.end - column);
            let (tile, rest) = std::mem::take(&mut out).split_at_mut(count * width);
            out = rest;
            let dy = &dy[group * n * m..(group + 1) * n * m];
            for first in (0..n).step_by(TILE) {
                for (k, out) in tile.chunks_exact_mut(width).enumerate() {
                    let index = &index[(j + k) * n..(j + k + 1) * n];
                    for i in first..(first + TILE).min(n) {
                        out[index[i] as usize] += dy[i * m + j + k];
                    }
                }
            }
            for out in tile.iter_mut() {
                *out *= scale;
            }
            column += count;
        }
    });
}
