//! Picking by index on the host. All indices have been checked to lie inside.

use super::{Cpu, HostBlock, elementwise::rows, vectorized};
use crate::{
    device::gather::Around,
    scalar::{Index, Scalar},
};

fn at<I: Index>(index: I) -> usize {
    index.to_usize().unwrap_or(usize::MAX)
}

pub(crate) fn take_rows<T: Scalar, I: Index>(cpu: &Cpu, table: &[T], width: usize, ids: &[I], out: &mut [T]) {
    // Less than this is copied before a second thread is awake.
    let cpu = if out.len() < 1 << 20 { &Cpu::with_threads(1) } else { cpu };
    rows(cpu, out, width.max(1), &|range, out| {
        for (&id, out) in ids[range].iter().zip(out.chunks_exact_mut(width)) {
            out.copy_from_slice(&table[at(id) * width..][..width]);
        }
    });
}

pub(crate) fn add_rows<T: Scalar, I: Index>(
    cpu: &Cpu,
    source: &[T],
    width: usize,
    ids: &[I],
    count: usize,
    padding: Option<usize>,
    out: &mut [T],
) {
    if out.is_empty() {
        return;
    }
    // The picks sorted by row, in order within each (a counting sort): row r was picked at `order[first[r]..first[r + 1]]`.
    let (mut first, mut order) = (HostBlock::<i64>::pooled(count + 1), HostBlock::<i64>::pooled(ids.len()));
    let (first, order) = (first.as_mut_slice(), order.as_mut_slice());
    first.fill(0);
    ids.iter().for_each(|&id| first[at(id)] += 1);
    let mut sum = 0;
    for end in first.iter_mut() {
        sum += *end;
        *end = sum;
    }
    for (pick, &id) in ids.iter().enumerate().rev() {
        let end = &mut first[at(id)];
        *end -= 1;
        order[*end as usize] = pick as i64;
    }
    let (first, order) = (&*first, &*order);
    rows(cpu, out, width, &|range, out| {
        vectorized(
            #[inline(always)]
            || {
                for (row, out) in range.clone().zip(out.chunks_exact_mut(width)) {
                    match &order[first[row] as usize..first[row + 1] as usize] {
                        [one, rest @ ..] if padding != Some(row) => {
                            out.copy_from_slice(&source[*one as usize * width..][..width]);
                            for &pick in rest {
                                let from = &source[pick as usize * width..][..width];
                                out.iter_mut().zip(from).for_each(|(y, &x)| *y += x);
                            }
                        }
                        _ => out.fill(T::zero()),
                    }
                }
            },
        )
    });
}

pub(crate) fn take_along<T: Scalar, I: Index>(
    cpu: &Cpu,
    x: &[T],
    Around { n, after, .. }: Around,
    index: &[I],
    count: usize,
    out: &mut [T],
) {
    rows(cpu, out, after.max(1), &|range, out| {
        let (mut block, mut j) = (range.start / count, range.start % count);
        let index = &index[range.start * after..];
        for (out, index) in out.chunks_exact_mut(after).zip(index.chunks_exact(after)) {
            let x = &x[block * n * after..][..n * after];
            for (a, (out, &i)) in out.iter_mut().zip(index).enumerate() {
                *out = x[at(i) * after + a];
            }
            j += 1;
            if j == count {
                (block, j) = (block + 1, 0);
            }
        }
    });
}

pub(crate) fn add_along<T: Scalar, I: Index>(
    cpu: &Cpu,
    x: &[T],
    Around { n, after, .. }: Around,
    index: &[I],
    count: usize,
    out: &mut [T],
) {
    let size = count * after;
    rows(cpu, out, (n * after).max(1), &|range, out| {
        for (block, out) in range.clone().zip(out.chunks_exact_mut(n * after)) {
            out.fill(T::zero());
            let picks = x[block * size..][..size].iter().zip(&index[block * size..][..size]);
            for (i, (&x, &j)) in picks.enumerate() {
                out[at(j) * after + i % after] += x;
            }
        }
    });
}

pub(crate) fn argmax<T: Scalar>(cpu: &Cpu, x: &[T], Around { n, after, .. }: Around, out: &mut [u32]) {
    // What beats the best so far: anything larger, and the first NaN.
    let beats = |x: T, best: T| x > best || (x.is_nan() && !best.is_nan());
    rows(cpu, out, after.max(1), &|range, out| {
        for (block, out) in range.clone().zip(out.chunks_exact_mut(after)) {
            let x = &x[block * n * after..][..n * after];
            out.fill(0);
            for j in 1..n {
                for (a, best) in out.iter_mut().enumerate() {
                    if beats(x[j * after + a], x[*best as usize * after + a]) {
                        *best = j as u32;
                    }
                }
            }
        }
    });
}
