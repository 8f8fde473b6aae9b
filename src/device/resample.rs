//! Linear resampling of channels-last images: every result entry of a mode is a weighted sum of source entries, mode by mode.
//!
//! Average pools, resizing and padding are tables of such weights, and the gradient of each is the transposed table.

use super::{Device, Kind, conv::Operand, cpu, storage::Storage};
use crate::{error::Result, scalar::Scalar};

/// One spatial mode: for each result entry, the source entries it sums and their weights.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mix<T> {
    pub(crate) source: usize,
    /// Where the terms of each result entry begin, and the end.
    starts: Vec<usize>,
    terms: Vec<(usize, T)>,
}

impl<T: Scalar> Mix<T> {
    pub(crate) fn new<I: IntoIterator<Item = (usize, T)>>(source: usize, rows: impl IntoIterator<Item = I>) -> Self {
        let (mut starts, mut terms) = (vec![0], Vec::new());
        for row in rows {
            terms.extend(row);
            starts.push(terms.len());
        }
        debug_assert!(terms.iter().all(|&(i, _)| i < source));
        Self { source, starts, terms }
    }

    /// Every entry is itself.
    pub(crate) fn identity(n: usize) -> Self {
        Self::new(n, (0..n).map(|i| [(i, T::one())]))
    }

    pub(crate) fn result(&self) -> usize {
        self.starts.len() - 1
    }

    pub(crate) fn terms(&self, i: usize) -> &[(usize, T)] {
        &self.terms[self.starts[i]..self.starts[i + 1]]
    }

    /// What takes a gradient of the result to one of the source.
    pub(crate) fn transposed(&self) -> Self {
        let mut rows = vec![Vec::new(); self.source];
        for i in 0..self.result() {
            for &(j, weight) in self.terms(i) {
                rows[j].push((i, weight));
            }
        }
        Self::new(self.result(), rows)
    }
}

/// `y[b, i, c] = sum_j m0[i0, j0] m1[i1, j1] m2[i2, j2] x[b, j, c]`, row-major.
pub(crate) fn resample<T: Scalar>(
    device: &Device,
    batch: usize,
    channels: usize,
    mixes: &[Mix<T>; 3],
    x: Operand<T>,
) -> Result<Storage<T>> {
    let size = |of: fn(&Mix<T>) -> usize| batch * channels * mixes.iter().map(of).product::<usize>();
    let mut out = Storage::uninit(device, size(Mix::result))?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let x = &x.0.host("resample")?[x.1..x.1 + size(|mix| mix.source)];
            cpu::resample::resample(cpu, channels, mixes, x, out.host_mut("resample")?);
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::resample::resample(gpu, (batch, channels), mixes, x, &mut out)?,
    }
    Ok(out)
}
