//! Picking by index on a GPU. Sums go by sorting the picks, each with its number, so that they repeat to the last bit.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    compile::Source,
    context::Cuda,
    elementwise::{check, pack},
    launch::{self, Arg, Nest, int},
};
use crate::{
    device::{
        gather::{Around, Block},
        layout::{Layout, loops},
        storage::Storage,
    },
    error::{Error, ErrorKind, Result},
    scalar::{Element, Index, Scalar},
};

/// Keys that a block sorts in its own memory; the kernels' TILE.
const TILE: usize = 2048;

/// Picks that a block adds up; the kernels' RUN.
const RUN: usize = 32;

/// The address of `len` entries from `start` on.
fn part<T: Element>(name: &str, (block, start): (&CudaBlock<T>, usize), len: usize) -> Arg {
    check(name, block.len(), &Layout::new(&[len], &[1], start));
    Arg::Pointer(block.at(start))
}

/// The row-major position of the first index outside `0..limit`. The host waits for it, unless it has the indices itself.
pub(crate) fn first_outside<I: Index>(
    gpu: &Cuda,
    ids: &CudaBlock<I>,
    layout: &Layout,
    limit: usize,
) -> Result<Option<usize>> {
    const NAME: &str = "gather";
    check(NAME, ids.len(), layout);
    let len = layout.len();
    if len == 0 {
        return Ok(None);
    }
    let Some(nest) = Nest::new(&loops([layout])) else {
        return first_outside(gpu, &pack(gpu, ids, layout)?, &Layout::contiguous(&[len]), limit);
    };
    let geometry = launch::total(len);
    let blocks = geometry.blocks as usize;
    // Positions are unsigned to the kernels: all ones, read here as -1, for none.
    let (partial, out) = (gpu.allocate::<i64>(blocks)?, gpu.allocate::<i64>(1)?);
    let (from, found) = (Arg::Pointer(ids.at(layout.offset())), Arg::Pointer(partial.at(0)));
    let args = [from, int(size_of::<I>()), found, int(len), Arg::Nest(nest), int(limit)];
    let finish = [found, Arg::Pointer(out.at(0)), int(blocks)];
    // SAFETY: the layout lies in the block; each block of threads writes its own one of `partial`, of which the second kernel
    // reads all and writes one.
    unsafe {
        gpu.launch(NAME, (Source::Gather, "outside"), geometry, &args)?;
        gpu.launch(NAME, (Source::Reduce, "nonfinite_finish"), launch::finish(), &finish)?;
    }
    Ok(usize::try_from(out.first()?).ok())
}

pub(crate) fn take_rows<T: Scalar, I: Index>(
    gpu: &Cuda,
    (table, start): Block<T>,
    width: usize,
    (ids, first): Block<I>,
    out: &mut Storage<T>,
) -> Result<()> {
    const NAME: &str = "embedding";
    let (table, out) = (table.cuda(NAME)?, out.cuda_mut(NAME)?);
    if out.len() == 0 {
        return Ok(());
    }
    let count = out.len() / width;
    let ids = part(NAME, (ids.cuda(NAME)?, first), count);
    let from = table.at(start);
    // In units of 16 bytes where rows begin at multiples of them.
    let bytes = width * size_of::<T>();
    let unit = if bytes.is_multiple_of(16) && from.is_multiple_of(16) { 16 } else { size_of::<T>() };
    let units = bytes / unit;
    let args = [Arg::Pointer(from), ids, int(size_of::<I>()), Arg::Pointer(out.at(0)), int(count), int(units)];
    // SAFETY: every id is a row of the table (checked); ids and result hold `count` of them; the result is the caller's alone.
    unsafe { gpu.launch(NAME, (Source::Gather, &format!("take_rows_{unit}")), launch::entries(count * units), &args) }
}

pub(crate) fn add_rows<T: Scalar, I: Index>(
    gpu: &Cuda,
    (source, start): Block<T>,
    width: usize,
    ((ids, first), count): (Block<I>, usize),
    padding: Option<usize>,
    out: &mut Storage<T>,
) -> Result<()> {
    const NAME: &str = "embedding";
    let out = out.cuda_mut(NAME)?;
    out.clear()?;
    if out.len() == 0 || count == 0 {
        return Ok(());
    }
    check_keys(NAME, out.len() / width, count)?;
    let keys = gpu.allocate::<i64>(count.next_power_of_two())?;
    let ids = part(NAME, (ids.cuda(NAME)?, first), count);
    let args = [ids, int(size_of::<I>()), Arg::Pointer(keys.at(0)), int(count), int(keys.len())];
    // SAFETY: there are `count` ids; the keys are this function's alone.
    unsafe { gpu.launch(NAME, (Source::Gather, "keys_rows"), launch::entries(keys.len()), &args)? };
    sort(gpu, NAME, &keys)?;
    let source = part(NAME, (source.cuda(NAME)?, start), count * width);
    add_sorted(gpu, NAME, (&keys, count), source, width, padding, out)
}

/// An error where places or picks do not fit the 32 bits that a key has for each.
fn check_keys(name: &'static str, places: usize, picks: usize) -> Result<()> {
    // The last number is that of keys which only fill up.
    if places < u32::MAX as usize && picks < u32::MAX as usize {
        return Ok(());
    }
    let message =
        format!("{picks} picks from {places} places are more than are added up on a GPU (4294967294 of each)");
    Err(Error::new(ErrorKind::Unsupported, name, message))
}

/// Sorts a power of two of keys.
fn sort(gpu: &Cuda, name: &'static str, keys: &CudaBlock<i64>) -> Result<()> {
    let count = keys.len();
    let geometry = launch::items(count.div_ceil(TILE));
    let address = Arg::Pointer(keys.at(0));
    // SAFETY: the kernels stay within the `count` keys, a power of two, which are the caller's alone.
    unsafe {
        gpu.launch(name, (Source::Gather, "sort_tiles"), geometry, &[address, int(count), int(0)])?;
        let mut size = 2 * TILE;
        while size <= count {
            let mut half = size / 2;
            while half >= TILE {
                let args = [address, int(count), int(size), int(half)];
                gpu.launch(name, (Source::Gather, "sort_step"), launch::entries(count), &args)?;
                half /= 2;
            }
            gpu.launch(name, (Source::Gather, "sort_tiles"), geometry, &[address, int(count), int(size)])?;
            size *= 2;
        }
    }
    Ok(())
}

/// Adds up rows of `source` at the places that their sorted keys name; `out` is zeros.
fn add_sorted<T: Scalar>(
    gpu: &Cuda,
    name: &'static str,
    (keys, count): (&CudaBlock<i64>, usize),
    source: Arg,
    width: usize,
    skip: Option<usize>,
    out: &mut CudaBlock<T>,
) -> Result<()> {
    let tiles = count.div_ceil(RUN);
    let partial = gpu.allocate::<T>(tiles * 2 * width)?;
    let (keys, partial, out) = (Arg::Pointer(keys.at(0)), Arg::Pointer(partial.at(0)), Arg::Pointer(out.at(0)));
    let skip = Arg::Int(skip.map_or(-1, |skip| skip as i64));
    let sizes = [int(count), int(width), int(tiles), skip];
    let (runs, joins) = (format!("add_runs_{}", T::DTYPE), format!("join_runs_{}", T::DTYPE));
    let geometry = launch::items(tiles * width.div_ceil(launch::THREADS as usize));
    // SAFETY: every key names a row of `out` and one of `source`; `partial` has two rows for each tile of the keys. `out` is the
    // caller's alone.
    unsafe {
        gpu.launch(
            name,
            (Source::Gather, &runs),
            geometry,
            &[[keys, source, out, partial].as_slice(), &sizes].concat(),
        )?;
        if tiles > 1 {
            let args = [[keys, partial, out].as_slice(), &sizes].concat();
            gpu.launch(name, (Source::Gather, &joins), geometry, &args)?;
        }
    }
    Ok(())
}

pub(crate) fn take_along<T: Scalar, I: Index>(
    gpu: &Cuda,
    (x, start): Block<T>,
    Around { before, n, after }: Around,
    (index, first): Block<I>,
    count: usize,
    out: &mut Storage<T>,
) -> Result<()> {
    const NAME: &str = "gather";
    let out = out.cuda_mut(NAME)?;
    let len = before * count * after;
    assert_eq!(out.len(), len, "{NAME}: the result's length");
    if len == 0 {
        return Ok(());
    }
    let x = part(NAME, (x.cuda(NAME)?, start), before * n * after);
    let index = part(NAME, (index.cuda(NAME)?, first), len);
    let args = [x, index, int(size_of::<I>()), Arg::Pointer(out.at(0)), int(len), int(n), int(after), int(count)];
    let name = format!("take_along_{}", T::DTYPE);
    // SAFETY: every index is below n (checked); index and result hold `len` entries; the result is the caller's alone.
    unsafe { gpu.launch(NAME, (Source::Gather, &name), launch::entries(len), &args) }
}

pub(crate) fn add_along<T: Scalar, I: Index>(
    gpu: &Cuda,
    (x, start): Block<T>,
    Around { before, n, after }: Around,
    (index, first): Block<I>,
    count: usize,
    out: &mut Storage<T>,
) -> Result<()> {
    const NAME: &str = "gather";
    let out = out.cuda_mut(NAME)?;
    out.clear()?;
    let (len, columns) = (before * count * after, before * after);
    assert_eq!(out.len(), columns * n, "{NAME}: the result's length");
    if len == 0 || out.len() == 0 {
        return Ok(());
    }
    let x = part(NAME, (x.cuda(NAME)?, start), len);
    let index = part(NAME, (index.cuda(NAME)?, first), len);
    let width = int(size_of::<I>());
    // A thread for each column, unless there are few of them and they are long.
    if count <= 64 || columns >= 4096 {
        let out = Arg::Pointer(out.at(0));
        let args = [x, index, width, out, int(columns), int(n), int(after), int(count)];
        let name = format!("add_along_{}", T::DTYPE);
        // SAFETY: every index is below n (checked); x and index hold `len` entries; the result is the caller's alone.
        return unsafe { gpu.launch(NAME, (Source::Gather, &name), launch::heavy(columns), &args) };
    }
    check_keys(NAME, out.len(), len)?;
    let keys = gpu.allocate::<i64>(len.next_power_of_two())?;
    let sizes = [int(len), int(keys.len()), int(n), int(after), int(count)];
    let args = [[index, width, Arg::Pointer(keys.at(0))].as_slice(), &sizes].concat();
    // SAFETY: index holds `len` entries; the keys are this function's alone.
    unsafe { gpu.launch(NAME, (Source::Gather, "keys_along"), launch::entries(keys.len()), &args)? };
    sort(gpu, NAME, &keys)?;
    add_sorted(gpu, NAME, (&keys, len), x, 1, None, out)
}

pub(crate) fn argmax<T: Scalar>(
    gpu: &Cuda,
    (x, start): Block<T>,
    Around { before, n, after }: Around,
    out: &mut Storage<u32>,
) -> Result<()> {
    const NAME: &str = "max";
    let out = out.cuda_mut(NAME)?;
    let columns = before * after;
    assert_eq!(out.len(), columns, "{NAME}: the result's length");
    if columns == 0 {
        return Ok(());
    }
    let x = part(NAME, (x.cuda(NAME)?, start), columns * n);
    let out = Arg::Pointer(out.at(0));
    // SAFETY: x holds `columns` times n entries, the result one a column, and is the caller's alone.
    unsafe {
        if after == 1 {
            let name = format!("argmax_rows_{}", T::DTYPE);
            gpu.launch(
                NAME,
                (Source::Gather, &name),
                launch::items(columns.div_ceil(8)),
                &[x, out, int(columns), int(n)],
            )
        } else {
            let name = format!("argmax_columns_{}", T::DTYPE);
            let args = [x, out, int(columns), int(n), int(after)];
            gpu.launch(NAME, (Source::Gather, &name), launch::heavy(columns), &args)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_have_the_same_numbers() {
        let kernels = include_str!("kernels/gather.cu");
        assert!(
            kernels.contains(&format!("#define TILE {TILE}\n")) && kernels.contains(&format!("#define RUN {RUN}\n"))
        );
        assert!(check_keys("test", 1 << 20, 1 << 20).is_ok());
        assert!(check_keys("test", 1 << 32, 1).is_err() && check_keys("test", 1, 1 << 32).is_err());
    }
}
