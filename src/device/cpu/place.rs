//! Blocks put into larger ones on the host: whole runs are copied, the result is written once, from front to back.

use super::{Cpu, elementwise::rows};
use crate::{
    device::{layout::Modes, place::Stride},
    scalar::Element,
};

pub(crate) fn place<T: Element>(
    cpu: &Cpu,
    source: &[T],
    small: &[usize],
    shape: &[usize],
    at: &[Stride],
    out: &mut [T],
) {
    if out.is_empty() {
        return;
    }
    if small.contains(&0) {
        return rows(cpu, out, 1, &|_, out| out.fill(T::default()));
    }
    // The last mode that is not whole: what lies behind it moves in one piece. A mode walked with a step is an outer one.
    let whole = |m: usize| at[m] == Stride { first: 0, step: 1 } && small[m] == shape[m];
    let split = (0..shape.len()).rev().find(|&m| !whole(m)).map_or(0, |m| if at[m].step == 1 { m } else { m + 1 });
    let row: usize = shape[split..].iter().product();
    let run: usize = small[split..].iter().product();
    let left = match shape.get(split) {
        Some(_) => at[split].first as usize * shape[split + 1..].iter().product::<usize>(),
        None => 0,
    };
    if split == 0 {
        // One row: each of its three pieces may be cut anywhere.
        let (before, rest) = out.split_at_mut(left);
        let (middle, after) = rest.split_at_mut(run);
        rows(cpu, before, 1, &|_, out| out.fill(T::default()));
        rows(cpu, middle, 1, &|range, out| out.copy_from_slice(&source[range]));
        return rows(cpu, after, 1, &|_, out| out.fill(T::default()));
    }
    rows(cpu, out, row, &|range, out| {
        let mut index: Modes<usize> = Modes::from_elem(0, split);
        let mut rest = range.start;
        for m in (0..split).rev() {
            index[m] = rest % shape[m];
            rest /= shape[m];
        }
        for out in out.chunks_exact_mut(row) {
            let from = index.iter().enumerate().try_fold(0, |from, (m, &i)| {
                let moved = i as isize - at[m].first;
                let (i, off) = (moved.div_euclid(at[m].step), moved.rem_euclid(at[m].step));
                (off == 0 && (0..small[m] as isize).contains(&i)).then(|| from * small[m] + i as usize)
            });
            match from {
                Some(from) => {
                    out[..left].fill(T::default());
                    out[left..left + run].copy_from_slice(&source[from * run..(from + 1) * run]);
                    out[left + run..].fill(T::default());
                }
                None => out.fill(T::default()),
            }
            for m in (0..split).rev() {
                index[m] += 1;
                if index[m] < shape[m] {
                    break;
                }
                index[m] = 0;
            }
        }
    });
}

pub(crate) fn join<T: Element>(cpu: &Cpu, parts: &[(&[T], usize)], out: &mut [T]) {
    let row: usize = parts.iter().map(|part| part.1).sum();
    if out.is_empty() || row == 0 {
        return;
    }
    if out.len() == row {
        let mut out = out;
        for &(source, width) in parts {
            let (to, rest) = out.split_at_mut(width);
            rows(cpu, to, 1, &|range, to| to.copy_from_slice(&source[range]));
            out = rest;
        }
        return;
    }
    rows(cpu, out, row, &|range, out| {
        for (i, mut out) in range.zip(out.chunks_exact_mut(row)) {
            for &(source, width) in parts {
                let (to, rest) = out.split_at_mut(width);
                to.copy_from_slice(&source[i * width..(i + 1) * width]);
                out = rest;
            }
        }
    });
}
