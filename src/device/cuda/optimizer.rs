//! Steps of optimisers on a GPU: one launch over all parameters, which a table tells the kernel. And the norm of all gradients.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    compile::Source,
    context::Cuda,
    launch::{self, Arg, int},
    reduce::finished,
};
use crate::{
    device::{
        optimizer::{Adam, Judged, Limit, Slot, Update},
        storage::Flat,
    },
    error::Result,
    scalar::Scalar,
};

/// Entries that a block takes at once; the kernels' STRETCH.
const STRETCH: usize = 16_384;

/// A row of the table that the kernels read (`Slot` in optimizer.cu): 8 numbers of 8 bytes, then 8 doubles.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Row {
    first: i64,
    len: i64,
    kind: i64,
    parameter: u64,
    gradient: u64,
    moments: [u64; 3],
    numbers: [f64; 8],
}

impl Row {
    fn words(&self) -> [i64; 16] {
        let mut words = [0; 16];
        let heads = [self.first, self.len, self.kind, self.parameter as i64, self.gradient as i64];
        words[..5].copy_from_slice(&heads);
        words[5..8].copy_from_slice(&self.moments.map(|address| address as i64));
        words[8..].copy_from_slice(&self.numbers.map(|number| number.to_bits() as i64));
        words
    }
}

/// The kernel's number of an update, and its numbers in the order of `entry` in optimizer.cu.
fn code(update: Update, moments: usize) -> (i64, [f64; 8]) {
    match (update, moments) {
        (Update::Descent { scale, decay, rate }, 0) => (0, [scale, decay, rate, 0.0, 0.0, 0.0, 0.0, 0.0]),
        (Update::Momentum { scale, decay, rate, momentum, blend, nesterov }, 1) => {
            (1 + i64::from(nesterov), [scale, decay, rate, momentum, blend, 0.0, 0.0, 0.0])
        }
        (Update::Adam(adam), 2 | 3) => {
            let Adam { scale, decay, keep, betas: [first, second], rate, root, eps } = adam;
            (moments as i64 + 1, [scale, decay, keep, first, second, rate, root, eps])
        }
        (update, moments) => unreachable!("{update:?} with {moments} moments"),
    }
}

/// Gives each row its first stretch; rows without entries go. Returns the number of stretches.
fn number(rows: &mut Vec<Row>) -> usize {
    rows.retain(|row| row.len > 0);
    let mut stretches = 0;
    for row in rows {
        row.first = stretches as i64;
        stretches += (row.len as usize).div_ceil(STRETCH);
    }
    stretches
}

/// A table on the GPU, and the number of its rows and stretches.
struct Table {
    words: CudaBlock<i64>,
    rows: usize,
    stretches: usize,
}

impl Table {
    /// The table of these rows; none where they have no entries.
    fn new(gpu: &Cuda, mut rows: Vec<Row>) -> Result<Option<Self>> {
        let stretches = number(&mut rows);
        if stretches == 0 {
            return Ok(None);
        }
        let words = gpu.upload(&rows.iter().flat_map(Row::words).collect::<Vec<i64>>())?;
        Ok(Some(Self { words, rows: rows.len(), stretches }))
    }
}

/// The table of a step.
fn table_of<T: Scalar>(gpu: &Cuda, name: &'static str, slots: Vec<Slot<'_, T>>) -> Result<Option<Table>> {
    let mut rows = Vec::with_capacity(slots.len());
    for Slot { update, parameter, gradient, moments } in slots {
        let len = parameter.len;
        let (kind, numbers) = code(update, moments.len());
        assert!(gradient.len == len && moments.iter().all(|m| m.len == len), "{name}: the operands' lengths");
        let mut row = Row { len: len as i64, kind, numbers, ..Row::default() };
        row.parameter = parameter.cuda(name)?;
        row.gradient = gradient.cuda(name)?;
        for (address, moment) in row.moments.iter_mut().zip(moments) {
            *address = moment.cuda(name)?;
        }
        rows.push(row);
    }
    Table::new(gpu, rows)
}

/// Queues the step; `verdict` has the address of what [`judge`] wrote, 0 where nobody judges.
fn queue<T: Scalar>(gpu: &Cuda, name: &'static str, table: &Table, verdict: u64) -> Result<()> {
    let Table { words, rows, stretches } = table;
    let args = [Arg::Pointer(words.at(0)), int(*rows), int(*stretches), Arg::Pointer(verdict)];
    let function = format!("step_{}", T::DTYPE);
    // SAFETY: the table's addresses are those of blocks that hold as many entries as it says; what is written is the caller's alone.
    unsafe { gpu.launch(name, (Source::Optimizer, &function), launch::items(*stretches), &args) }
}

pub(crate) fn step<T: Scalar>(gpu: &Cuda, name: &'static str, slots: Vec<Slot<'_, T>>) -> Result<()> {
    match table_of(gpu, name, slots)? {
        Some(table) => queue::<T>(gpu, name, &table, 0),
        None => Ok(()),
    }
}

pub(crate) fn step_within<T: Scalar>(
    gpu: &Cuda,
    name: &'static str,
    slots: Vec<Slot<'_, T>>,
    limit: &Limit<'_, T>,
) -> Result<Judged> {
    let table = table_of(gpu, name, slots)?;
    let partial = match &table {
        Some(table) => partial_squares::<T>(gpu, name, table)?,
        None => gpu.allocate(0)?,
    };
    let (losses, count) = match &limit.losses {
        Some(losses) => (losses.cuda(name)?, losses.len),
        None => (0, 0),
    };
    let verdict = gpu.allocate::<f64>(4)?;
    let args = [
        Arg::Pointer(partial.at(0)),
        Arg::Pointer(losses),
        Arg::Pointer(verdict.at(0)),
        int(partial.len()),
        int(count),
        Arg::Double(limit.scale),
        Arg::Double(limit.most.unwrap_or(f64::INFINITY)),
    ];
    let function = format!("judge_{}", T::DTYPE);
    // SAFETY: the kernel reads as many numbers as there are, and writes four.
    unsafe { gpu.launch(name, (Source::Optimizer, &function), launch::finish(), &args)? };
    if let Some(table) = &table {
        queue::<T>(gpu, name, table, verdict.at(0))?;
    }
    let mut numbers = [0.0; 4];
    verdict.download(&mut numbers)?;
    let [norm, shorter, losses, moved] = numbers;
    Ok(Judged { norm, shorter, losses, moved: moved != 0.0 })
}

/// The sum of squares of the gradients in each stretch of a table.
fn partial_squares<T: Scalar>(gpu: &Cuda, name: &'static str, table: &Table) -> Result<CudaBlock<f64>> {
    let Table { words, rows, stretches } = table;
    let partial = gpu.allocate::<f64>(*stretches)?;
    let args = [Arg::Pointer(words.at(0)), Arg::Pointer(partial.at(0)), int(*rows), int(*stretches)];
    let function = format!("table_squares_{}", T::DTYPE);
    // SAFETY: the table's addresses are those of blocks that hold as many entries as it says; `partial` has a place a stretch.
    unsafe { gpu.launch(name, (Source::Optimizer, &function), launch::items(*stretches), &args)? };
    Ok(partial)
}

/// The sum of squares over several blocks, in doubles, in one pass.
pub(crate) fn squares<T: Scalar>(gpu: &Cuda, blocks: &[Flat<'_, T>]) -> Result<f64> {
    const NAME: &str = "norm";
    let row = |block: &Flat<'_, T>| Ok(Row { len: block.len as i64, gradient: block.cuda(NAME)?, ..Row::default() });
    match Table::new(gpu, blocks.iter().map(row).collect::<Result<_>>()?)? {
        Some(table) => finished(gpu, NAME, &partial_squares::<T>(gpu, NAME, &table)?, 0),
        None => Ok(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::reduce::LEAST_SQUARES;

    #[test]
    fn every_entry_has_a_stretch() {
        let row = |len| Row { len, ..Row::default() };
        let mut rows = vec![row(1), row(0), row(STRETCH as i64), row(STRETCH as i64 + 1), row(0)];
        assert_eq!(number(&mut rows), 4);
        assert_eq!(rows.iter().map(|row| row.first).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(number(&mut vec![row(0)]), 0);
    }

    #[test]
    fn rows_are_laid_out_as_in_c() {
        let row = Row {
            first: 1,
            len: 2,
            kind: 3,
            parameter: 4,
            gradient: 5,
            moments: [6, 7, 8],
            numbers: std::array::from_fn(|i| i as f64),
        };
        let words = row.words();
        assert_eq!(words[..8], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(f64::from_bits(words[15] as u64), 7.0);
        let kernel = include_str!("kernels/optimizer.cu");
        assert!(kernel.contains(&format!("#define STRETCH {STRETCH}")));
        assert!(kernel.contains(&format!("squares > {LEAST_SQUARES:e}")));
    }
}
