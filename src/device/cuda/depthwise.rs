//! Convolutions of every channel with a kernel of its own, on a GPU.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    compile::Source,
    context::Cuda,
    conv::{At, images, pointer},
    elementwise::pack,
    launch::{self, Arg, Depthwise, int},
};
use crate::{
    device::{conv::Geometry, layout::Layout},
    error::Result,
    scalar::Scalar,
};

/// Blocks of the passes over an image, of about equal work; and of those that leave sums, which are added up afterwards.
const BLOCKS: usize = 4096;
const SUMMING_BLOCKS: usize = 1056;

/// A pass over planes with a square kernel of neighbouring taps, which the tiled kernels do.
struct Tiled {
    size: usize,
    planes: usize,
    source: [usize; 2],
    result: [usize; 2],
    /// Where the first result's kernel begins in front of the source; negative where it lies behind.
    before: [isize; 2],
}

impl Tiled {
    /// From the input to the output; `None` where the general kernels have to serve.
    fn forward(g: &Geometry) -> Option<Self> {
        let size = g.kernel[2];
        let square = g.kernel == [1, size, size] && [3, 5, 7].contains(&size);
        let dense = g.stride == [1; 3] && g.dilation[1..] == [1, 1] && g.before[0] == 0 && g.input[0] == g.output[0];
        let countable = images("conv", g).is_ok() && g.c_in < 1 << 30;
        let [_, high, wide] = g.input;
        let before = [g.before[1] as isize, g.before[2] as isize];
        let result = [g.output[1], g.output[2]];
        let planes = g.batch * g.input[0];
        (square && dense && countable).then_some(Self { size, planes, source: [high, wide], result, before })
    }

    /// From the output's gradient to the input's: the kernel turned around.
    fn backward(self) -> Self {
        let before = self.before.map(|before| self.size as isize - 1 - before);
        Self { source: self.result, result: self.source, before, ..self }
    }

    fn sizes(&self, channels: usize) -> [Arg; 8] {
        let [rows, cols] = self.source.map(int);
        let [out_rows, out_cols] = self.result.map(int);
        let [before_rows, before_cols] = self.before.map(|before| Arg::Int(before as i64));
        [int(self.planes), rows, cols, out_rows, out_cols, before_rows, before_cols, int(channels)]
    }
}

/// The weight as the general kernels take it: `[tap][channel]`.
fn by_tap<T: Scalar>(gpu: &Cuda, g: &Geometry, w: At<T>) -> Result<CudaBlock<T>> {
    pack(gpu, w.0, &Layout::new(&[g.taps(), g.c_in], &[1, g.taps() as isize], w.1))
}

fn tiled_pass<T: Scalar>(
    gpu: &Cuda,
    tiled: &Tiled,
    channels: usize,
    [source, w]: [At<T>; 2],
    bias: Option<At<T>>,
    flipped: bool,
    out: &mut CudaBlock<T>,
) -> Result<()> {
    let plan = Depthwise::new(tiled.planes, tiled.result, channels, BLOCKS);
    let mut args = vec![pointer(Some(source)), pointer(Some(w)), pointer(bias), Arg::Pointer(out.at(0))];
    args.push(int(flipped as usize));
    args.extend(tiled.sizes(channels));
    let name = format!("depthwise_{}x{}_{}", tiled.size, plan.wide, T::DTYPE);
    // SAFETY: the operands were checked to lie in their blocks, with as many entries as the sizes say; the result is the caller's alone.
    unsafe { gpu.launch("conv", (Source::Depthwise, &name), plan.geometry(channels), &args) }
}

fn general_pass<T: Scalar>(
    gpu: &Cuda,
    g: &Geometry,
    stem: &str,
    [source, w]: [At<T>; 2],
    bias: Option<At<T>>,
    out: &mut CudaBlock<T>,
) -> Result<()> {
    let w = by_tap(gpu, g, w)?;
    let (from, taps, to) = (pointer(Some(source)), Arg::Pointer(w.at(0)), Arg::Pointer(out.at(0)));
    let args = [from, taps, pointer(bias), to, int(out.len()), int(g.c_in), Arg::Images(images("conv", g)?)];
    let name = format!("{stem}_{}", T::DTYPE);
    // SAFETY: as above.
    unsafe { gpu.launch("conv", (Source::Depthwise, &name), launch::heavy(out.len()), &args) }
}

/// The result is not empty.
pub(super) fn forward<T: Scalar>(
    gpu: &Cuda,
    g: &Geometry,
    x: At<T>,
    w: At<T>,
    bias: Option<At<T>>,
    out: &mut CudaBlock<T>,
) -> Result<()> {
    match Tiled::forward(g) {
        Some(tiled) => tiled_pass(gpu, &tiled, g.c_in, [x, w], bias, false, out),
        None => general_pass(gpu, g, "depthwise_any", [x, w], bias, out),
    }
}

/// The result is not empty.
pub(super) fn input_gradient<T: Scalar>(
    gpu: &Cuda,
    g: &Geometry,
    dy: At<T>,
    w: At<T>,
    bias: Option<At<T>>,
    out: &mut CudaBlock<T>,
) -> Result<()> {
    match Tiled::forward(g) {
        Some(tiled) => tiled_pass(gpu, &tiled.backward(), g.c_in, [dy, w], bias, true, out),
        None => general_pass(gpu, g, "depthwise_any_back", [dy, w], bias, out),
    }
}

/// In two stages, the second in doubles, without atomic additions. There are outputs.
pub(super) fn weight_gradient<T: Scalar>(
    gpu: &Cuda,
    g: &Geometry,
    x: At<T>,
    dy: At<T>,
    out: &mut CudaBlock<T>,
) -> Result<()> {
    let (channels, taps) = (g.c_in, g.taps());
    let (from, slopes) = (pointer(Some(x)), pointer(Some(dy)));
    let (stem, parts, geometry, sizes) = match Tiled::forward(g) {
        Some(tiled) => {
            let plan = Depthwise::new(tiled.planes, tiled.result, channels, SUMMING_BLOCKS);
            let stem = format!("depthwise_weights_{}x{}", tiled.size, plan.wide);
            (stem, plan.parts, plan.geometry(channels), tiled.sizes(channels).to_vec())
        }
        None => {
            let outputs = g.output_len() / channels;
            let parts = launch::parts(outputs, taps * channels);
            let sizes = vec![int(outputs), int(parts), int(channels), Arg::Images(images("conv", g)?)];
            ("depthwise_any_weights".to_string(), parts, launch::heavy(parts * taps * channels), sizes)
        }
    };
    let partial = gpu.allocate::<T>(parts * taps * channels)?;
    let mut args = vec![from, slopes, Arg::Pointer(partial.at(0))];
    args.extend(sizes);
    let finish = [Arg::Pointer(partial.at(0)), Arg::Pointer(out.at(0)), int(parts), int(taps), int(channels)];
    let (name, finish_name) = (format!("{stem}_{}", T::DTYPE), format!("depthwise_finish_{}", T::DTYPE));
    // SAFETY: the operands were checked to lie in their blocks; every part has its places in `partial`, every tap of a channel one in `out`.
    unsafe {
        gpu.launch("conv", (Source::Depthwise, &name), geometry, &args)?;
        gpu.launch("conv", (Source::Depthwise, &finish_name), launch::heavy(taps * channels), &finish)
    }
}
