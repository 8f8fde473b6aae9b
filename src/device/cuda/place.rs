//! Blocks put into larger ones on a GPU: copies along strides.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    compile::Source,
    context::Cuda,
    elementwise::check,
    launch::{self, Arg, Nest, int},
};
use crate::{
    device::{
        layout::{Layout, Loop, Modes, loops, row_major},
        place::Stride,
        storage::Storage,
    },
    error::Result,
    scalar::Element,
};

/// Zeros, with the row-major block of `small` at `offset` put at the places `at` of `shape`.
pub(crate) fn place<T: Element>(
    gpu: &Cuda,
    (source, offset): (&Storage<T>, usize),
    small: &[usize],
    shape: &[usize],
    at: &[Stride],
    out: &mut Storage<T>,
) -> Result<()> {
    let out = out.cuda_mut("place")?;
    out.clear()?;
    let steps = row_major(shape);
    let strides: Modes<isize> = steps.iter().zip(at).map(|(step, at)| step * at.step).collect();
    let start: isize = steps.iter().zip(at).map(|(step, at)| step * at.first).sum();
    let from = Layout::new(small, &row_major(small), offset);
    put(gpu, "place", (source.cuda("place")?, &from), (out, &Layout::new(small, &strides, start.max(0) as usize)))
}

/// Rows laid side by side, of blocks, where their first row begins, and the length of their rows.
pub(crate) fn join<T: Element>(gpu: &Cuda, parts: &[(&Storage<T>, usize, usize)], out: &mut Storage<T>) -> Result<()> {
    let out = out.cuda_mut("concat")?;
    let row: usize = parts.iter().map(|part| part.2).sum();
    let rows = out.len().checked_div(row).unwrap_or(0);
    let mut left = 0;
    for &(source, offset, width) in parts {
        let from = Layout::new(&[rows, width], &[width as isize, 1], offset);
        let to = Layout::new(&[rows, width], &[row as isize, 1], left);
        put(gpu, "concat", (source.cuda("concat")?, &from), (out, &to))?;
        left += width;
    }
    Ok(())
}

/// Copies entries from one layout to another of the same shape.
fn put<T: Element>(
    gpu: &Cuda,
    name: &'static str,
    (source, from): (&CudaBlock<T>, &Layout),
    (out, to): (&mut CudaBlock<T>, &Layout),
) -> Result<()> {
    check(name, source.len(), from);
    check(name, out.len(), to);
    if from.len() == 0 {
        return Ok(());
    }
    let (nest, bytes) = units(&loops([from, to]), size_of::<T>(), [source.at(from.offset()), out.at(to.offset())]);
    let (outer, inner) = launch::split(&nest);
    let Some(loops) = Nest::new(inner) else { unreachable!("split leaves what fits") };
    let (steps, len): (usize, usize) = (outer.iter().map(|l| l.size).product(), inner.iter().map(|l| l.size).product());
    let function = format!("put_{bytes}");
    for step in 0..steps {
        let (mut moved, mut rest) = ([0isize; 2], step);
        for l in outer.iter().rev() {
            moved = [0, 1].map(|i| moved[i] + (rest % l.size) as isize * l.strides[i]);
            rest /= l.size;
        }
        let address =
            |start: u64, moved: isize| Arg::Pointer(start.wrapping_add_signed((moved * bytes as isize) as i64));
        let (source, out) = (address(source.at(from.offset()), moved[0]), address(out.at(to.offset()), moved[1]));
        // SAFETY: both layouts were checked to lie in their blocks; what is written is the caller's alone, each entry once.
        unsafe {
            let args = [source, out, int(len), Arg::Nest(loops)];
            gpu.launch(name, (Source::Place, &function), launch::entries(len), &args)?;
        }
    }
    Ok(())
}

/// The same loops over larger units, where both sides have whole ones: their last loop runs along memory, and everything else steps by
/// multiples of 16 bytes.
fn units(nest: &[Loop<2>], bytes: usize, starts: [u64; 2]) -> (Modes<Loop<2>>, usize) {
    let many = 16 / bytes;
    let Some((last, outer)) = nest.split_last() else { return (Modes::new(), bytes) };
    let whole = last.strides == [1, 1]
        && last.size.is_multiple_of(many)
        && starts.iter().all(|start| start.is_multiple_of(16))
        && outer.iter().all(|l| l.strides.iter().all(|stride| stride % many as isize == 0));
    if !whole {
        return (nest.iter().copied().collect(), bytes);
    }
    let wide = |l: &Loop<2>| Loop { size: l.size, strides: l.strides.map(|stride| stride / many as isize) };
    let last = Loop { size: last.size / many, strides: [1, 1] };
    (outer.iter().map(wide).chain([last]).collect(), 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_whole() {
        let nest = |strides, size| [Loop { size: 3, strides }, Loop { size, strides: [1, 1] }];
        let (wide, bytes) = units(&nest([8, 16], 8), 4, [32, 64]);
        assert_eq!(bytes, 16);
        assert_eq!(wide.as_slice(), &[Loop { size: 3, strides: [2, 4] }, Loop { size: 2, strides: [1, 1] }]);
        for (nest, starts) in [(nest([8, 16], 8), [36, 64]), (nest([7, 16], 8), [32, 64]), (nest([8, 16], 6), [32, 64])]
        {
            let (same, bytes) = units(&nest, 4, starts);
            assert_eq!((same.as_slice(), bytes), (&nest[..], 4));
        }
        assert_eq!(units(&[Loop { size: 16, strides: [1, -1] }], 4, [0, 0]).1, 4);
    }
}
