//! Convolutions over channels-last images of three spatial modes (fewer are modes of size 1): forward, by the input, by the weight.
//!
//! All three are said with one idea. In each spatial mode an [`Axis`] lists which source entries meet which kernel entry in a result entry:
//! the result entry `first + q step` sums over the taps `k` the source entry `q stride + offset_k`. The forward pass is one such
//! axis a mode. The gradient by the input (and a transposed convolution) with stride s is s of them, one for each residue
//! of the result's index: what a residue receives is an ordinary convolution of stride 1 by a part of the kernel. Nothing is scattered,
//! so nothing depends on the order of threads.
//!
//! The gradients of a pointwise convolution (every size of the kernel 1) are plain matrix products.

use super::{
    Device, Kind, cpu,
    gemm::{Gemm, Matrix, gemm},
    layout::Modes,
    storage::Storage,
};
use crate::{error::Result, scalar::Scalar};

/// The sizes of a convolution from `[batch, *input, c_in]` to `[batch, *output, c_out]` with a weight
/// `[c_out, c_in / groups, *kernel]`. The caller has checked that they fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) input: [usize; 3],
    pub(crate) output: [usize; 3],
    pub(crate) kernel: [usize; 3],
    pub(crate) stride: [usize; 3],
    pub(crate) dilation: [usize; 3],
    /// Zeros in front of each spatial mode; those behind follow from the sizes.
    pub(crate) before: [usize; 3],
    pub(crate) c_in: usize,
    pub(crate) c_out: usize,
    pub(crate) groups: usize,
}

/// A kernel entry and where the source entry that meets it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tap {
    pub(crate) offset: isize,
    pub(crate) k: usize,
}

/// One spatial mode of a pass: result entry `first + q step` (`q < count`) sums source entries `q stride + offset` over the taps.
/// Source entries outside of `0..source` are zeros. Taps are sorted by offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Axis {
    pub(crate) source: usize,
    pub(crate) result: usize,
    pub(crate) first: usize,
    pub(crate) step: usize,
    pub(crate) count: usize,
    pub(crate) stride: usize,
    pub(crate) taps: Vec<Tap>,
}

impl Axis {
    /// Without the taps that meet no source entry at all.
    fn trimmed(mut self) -> Self {
        let reach = (self.count.max(1) - 1) * self.stride;
        self.taps.retain(|tap| tap.offset < self.source as isize && tap.offset + reach as isize >= 0);
        self
    }

    /// The smallest and largest offset; zeros where there are no taps.
    pub(crate) fn reach(&self) -> (isize, isize) {
        (self.taps.first().map_or(0, |tap| tap.offset), self.taps.last().map_or(0, |tap| tap.offset))
    }
}

impl Geometry {
    pub(crate) fn input_len(&self) -> usize {
        self.batch * self.input.iter().product::<usize>() * self.c_in
    }

    pub(crate) fn output_len(&self) -> usize {
        self.batch * self.output.iter().product::<usize>() * self.c_out
    }

    pub(crate) fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    pub(crate) fn weight_len(&self) -> usize {
        self.c_out * (self.c_in / self.groups) * self.taps()
    }

    /// From the input to the output.
    pub(crate) fn forward(&self, mode: usize) -> Axis {
        let (dilation, before) = (self.dilation[mode], self.before[mode] as isize);
        let taps = (0..self.kernel[mode]).map(|k| Tap { offset: (k * dilation) as isize - before, k }).collect();
        let (source, result) = (self.input[mode], self.output[mode]);
        Axis { source, result, first: 0, step: 1, count: result, stride: self.stride[mode], taps }.trimmed()
    }

    /// From the output's gradient to the input's: an axis for each residue of the input's index by the stride.
    pub(crate) fn backward(&self, mode: usize) -> Vec<Axis> {
        let (stride, result) = (self.stride[mode], self.input[mode]);
        let residues = 0..stride.min(result);
        let axis = |first: usize| {
            let position = |k: usize| (first + self.before[mode]) as isize - (k * self.dilation[mode]) as isize;
            let taps = (0..self.kernel[mode])
                .rev()
                .filter(|&k| position(k) % stride as isize == 0)
                .map(|k| Tap { offset: position(k) / stride as isize, k })
                .collect();
            let count = (result - first).div_ceil(stride);
            Axis { source: self.output[mode], result, first, step: stride, count, stride: 1, taps }.trimmed()
        };
        residues.map(axis).collect()
    }

    /// Whether it is one matrix product, `[positions, c_in]` by `[c_in, c_out]`.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel == [1; 3] && self.stride == [1; 3] && self.input == self.output && self.groups == 1
    }

    /// Whether every output channel sees one input channel of its own.
    pub(crate) fn is_depthwise(&self) -> bool {
        self.groups == self.c_in && self.c_in == self.c_out
    }
}

/// Operands as slices of row-major tensors: a block and where the tensor starts.
pub(crate) type Operand<'a, T> = (&'a Storage<T>, usize);

/// `y[b, o, co] = bias[co] + sum_(k, ci) x[b, o stride + k dilation - before, ci] w[co, ci, k]`, row-major.
pub(crate) fn forward<T: Scalar>(
    device: &Device,
    g: &Geometry,
    x: Operand<T>,
    w: Operand<T>,
    bias: Option<Operand<T>>,
) -> Result<Storage<T>> {
    let mut out = Storage::uninit(device, g.output_len())?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let x = &x.0.host("conv")?[x.1..x.1 + g.input_len()];
            let w = &w.0.host("conv")?[w.1..w.1 + g.weight_len()];
            let bias = host_bias(bias, g.c_out)?;
            let axes = [0, 1, 2].map(|mode| vec![g.forward(mode)]);
            let out = out.host_mut("conv")?;
            if g.is_depthwise() {
                cpu::depthwise::correlate(cpu, g, &axes, x, w, bias, out);
            } else {
                cpu::conv::forward(cpu, g, &axes, x, w, bias, out);
            }
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::conv::forward(gpu, g, x, w, bias, &mut out)?,
    }
    Ok(out)
}

/// The gradient by the input, `dx[b, i, ci] = bias[ci] + sum over all (o, k, co) that met it of dy[b, o, co] w[co, ci, k]`. With a bias
/// it is a transposed convolution.
pub(crate) fn input_gradient<T: Scalar>(
    device: &Device,
    g: &Geometry,
    dy: Operand<T>,
    w: Operand<T>,
    bias: Option<Operand<T>>,
) -> Result<Storage<T>> {
    let mut out = Storage::uninit(device, g.input_len())?;
    if g.is_pointwise() && bias.is_none() {
        let (dy_at, w_at, dx_at) = (rows(dy.1, g.c_out), rows(w.1, g.c_in), rows(0, g.c_in));
        let sizes = [g.input_len() / g.c_in, g.c_in, g.c_out];
        product(device, sizes, (dy.0, dy_at), (w.0, w_at), (&mut out, dx_at))?;
        return Ok(out);
    }
    match &device.0 {
        Kind::Cpu(cpu) => {
            let dy = &dy.0.host("conv")?[dy.1..dy.1 + g.output_len()];
            let w = &w.0.host("conv")?[w.1..w.1 + g.weight_len()];
            let bias = host_bias(bias, g.c_in)?;
            let axes = [0, 1, 2].map(|mode| g.backward(mode));
            let out = out.host_mut("conv")?;
            if out.is_empty() {
                // No axis to look at.
            } else if g.is_depthwise() {
                cpu::depthwise::correlate(cpu, g, &axes, dy, w, bias, out);
            } else {
                cpu::conv::input_gradient(cpu, g, &axes, dy, w, bias, out);
            }
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::conv::input_gradient(gpu, g, dy, w, bias, &mut out)?,
    }
    Ok(out)
}

/// The gradient by the weight, `dw[co, ci, k] = sum_(b, o) dy[b, o, co] x[b, o stride + k dilation - before, ci]`, in the weight's layout.
pub(crate) fn weight_gradient<T: Scalar>(
    device: &Device,
    g: &Geometry,
    x: Operand<T>,
    dy: Operand<T>,
) -> Result<Storage<T>> {
    let mut out = Storage::uninit(device, g.weight_len())?;
    if g.is_pointwise() {
        let (x_at, dy_at, dw_at) = (rows(x.1, g.c_in), rows(dy.1, g.c_out), rows(0, g.c_in));
        let sizes = [g.c_out, g.c_in, g.input_len() / g.c_in];
        product(device, sizes, (dy.0, dy_at.t()), (x.0, x_at), (&mut out, dw_at))?;
        return Ok(out);
    }
    match &device.0 {
        Kind::Cpu(cpu) => {
            let x = &x.0.host("conv")?[x.1..x.1 + g.input_len()];
            let dy = &dy.0.host("conv")?[dy.1..dy.1 + g.output_len()];
            let axes = [0, 1, 2].map(|mode| g.forward(mode));
            let out = out.host_mut("conv")?;
            if g.is_depthwise() {
                cpu::depthwise::weight_gradient(cpu, g, &axes, x, dy, out);
            } else {
                cpu::conv::weights::weight_gradient(cpu, g, &axes, x, dy, out);
            }
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::conv::weight_gradient(gpu, g, x, dy, &mut out)?,
    }
    Ok(out)
}

/// A row-major matrix from an offset on.
fn rows(offset: usize, width: usize) -> Matrix {
    Matrix { offset, rows: width as isize, cols: 1 }
}

/// `C = A B` with sizes m, n, k.
fn product<T: Scalar>(
    device: &Device,
    [m, n, k]: [usize; 3],
    (a, a_at): (&Storage<T>, Matrix),
    (b, b_at): (&Storage<T>, Matrix),
    (c, c_at): (&mut Storage<T>, Matrix),
) -> Result<()> {
    let (batch, sum) = (Modes::new(), Modes::new());
    let problem = Gemm { m, n, k, a: a_at, b: b_at, c: c_at, batch, sum, alpha: T::one(), beta: T::zero() };
    gemm(device, &problem, a, b, c)
}

fn host_bias<'a, T: Scalar>(bias: Option<Operand<'a, T>>, len: usize) -> Result<Option<&'a [T]>> {
    bias.map(|(block, at)| Ok(&block.host("conv")?[at..at + len])).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every (output, tap, input) triple of a mode, as the definition has them.
    fn met(g: &Geometry) -> Vec<(usize, usize, usize)> {
        let mut met = Vec::new();
        for o in 0..g.output[2] {
            for k in 0..g.kernel[2] {
                let i = (o * g.stride[2] + k * g.dilation[2]).checked_sub(g.before[2]).filter(|&i| i < g.input[2]);
                met.extend(i.map(|i| (o, k, i)));
            }
        }
        met
    }

    #[test]
    fn axes_meet_what_the_definition_meets() {
        for (n, k, s, d, before, after) in [
            (9, 3, 1, 1, 1, 1),
            (9, 3, 2, 1, 0, 1),
            (10, 3, 3, 2, 2, 4),
            (4, 5, 2, 3, 5, 6),
            (1, 3, 4, 1, 1, 1),
            (7, 2, 5, 1, 0, 0),
        ] {
            let out = (n + before + after - d * (k - 1) - 1) / s + 1;
            let (one, g) = ([1, 1, 1], |i| [1, 1, i]);
            let g = Geometry {
                batch: 1,
                input: g(n),
                output: g(out),
                kernel: g(k),
                stride: g(s),
                dilation: g(d),
                before: [0, 0, before],
                c_in: 1,
                c_out: 1,
                groups: one[0],
            };
            let mut want = met(&g);
            let triples = |axis: &Axis, forward: bool| {
                let mut triples = Vec::new();
                for q in 0..axis.count {
                    for tap in &axis.taps {
                        let source = (q * axis.stride) as isize + tap.offset;
                        let result = axis.first + q * axis.step;
                        assert!(result < axis.result);
                        if (0..axis.source as isize).contains(&source) {
                            let source = source as usize;
                            triples.push(if forward { (result, tap.k, source) } else { (source, tap.k, result) });
                        }
                    }
                }
                triples
            };
            let mut forward = triples(&g.forward(2), true);
            let mut backward: Vec<_> = g.backward(2).iter().flat_map(|axis| triples(axis, false)).collect();
            [&mut want, &mut forward, &mut backward].iter_mut().for_each(|t| t.sort_unstable());
            assert_eq!(forward, want);
            assert_eq!(backward, want);
        }
    }
}
