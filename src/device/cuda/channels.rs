//! Sums and scales by channel on a GPU: blocks work on pieces of the rows, and what they summed is added up in a second launch.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    compile::Source,
    context::Cuda,
    elementwise::number,
    launch::{self, Arg, Pieces, int},
    reduce::fold,
};
use crate::{
    device::{
        channels::Channels,
        storage::{Flat, Storage},
    },
    error::Result,
    scalar::Scalar,
};

/// Blocks for sums, each of which leaves a row of partial ones; and for what has no sums.
const SUMMING: usize = 2048;
const STREAMING: usize = 4096;

/// Sizes and addresses of a launch, by which the work is shared out.
struct Plan {
    at: Channels,
    plan: Pieces,
    /// Groups, rows, channels, pieces and lanes, as the kernels take them.
    sizes: [Arg; 5],
}

impl Plan {
    fn new<T: Scalar>(at: Channels, addresses: &[u64], wanted: usize) -> Self {
        let pack = 16 / size_of::<T>();
        // In packs where rows and vectors begin at multiples of 16 bytes (an address of 0 stands for no vector).
        let whole = at.channels.is_multiple_of(pack) && addresses.iter().all(|address| address.is_multiple_of(16));
        let plan = launch::pieces([at.groups, at.rows, at.channels], if whole { pack } else { 1 }, wanted);
        let sizes = [at.groups, at.rows, at.channels, plan.pieces, plan.lanes].map(int);
        Self { at, plan, sizes }
    }

    /// # Safety
    /// As for [`Cuda::launch`]; the arguments before the sizes are `addresses`.
    unsafe fn launch<T: Scalar>(&self, gpu: &Cuda, stem: &str, addresses: &[u64], sizes: &[Arg]) -> Result<()> {
        let pointers: Vec<Arg> = addresses.iter().map(|&address| Arg::Pointer(address)).collect();
        let name = format!("{stem}_{}_{}", self.plan.suffix, T::DTYPE);
        // SAFETY: the caller's word.
        unsafe { gpu.launch(self.at.name, (Source::Channels, &name), self.plan.geometry, &[&pointers, sizes].concat()) }
    }
}

/// An operand of `[groups, rows, channels]`.
fn whole<T: Scalar>(at: Channels, x: Flat<'_, T>) -> Result<u64> {
    assert_eq!(x.len, at.groups * at.rows * at.channels, "{}: an operand's length", at.name);
    x.cuda(at.name)
}

/// A vector of `len` entries; 0 where there is none.
fn vector<T: Scalar>(at: Channels, vector: Option<Flat<'_, T>>, len: usize) -> Result<u64> {
    let Some(vector) = vector else { return Ok(0) };
    assert_eq!(vector.len, len, "{}: a vector's length", at.name);
    vector.cuda(at.name)
}

/// Mean and mean square deviation of each channel.
pub(crate) fn moments<T: Scalar>(
    gpu: &Cuda,
    at: Channels,
    x: Flat<'_, T>,
    (mean, square): (&mut Storage<T>, &mut Storage<T>),
) -> Result<()> {
    let (mean, square) = (mean.cuda_mut(at.name)?, square.cuda_mut(at.name)?);
    assert!(mean.len() == at.channels && square.len() == at.channels, "{}: the results' lengths", at.name);
    let x = whole(at, x)?;
    let at = Channels { groups: 1, rows: at.groups * at.rows, ..at };
    if at.channels == 0 {
        return Ok(());
    }
    let plan = Plan::new::<T>(at, &[x], SUMMING);
    let partial: CudaBlock<T> = gpu.allocate(plan.plan.pieces * 2 * at.channels)?;
    let pieces = plan.sizes[3];
    let finish = [partial.at(0), mean.at(0), square.at(0)].map(Arg::Pointer);
    let finish = [finish.as_slice(), &[int(at.rows), int(at.channels), pieces]].concat();
    let name = format!("moments_finish_{}", T::DTYPE);
    // SAFETY: x has the sizes' entries, `partial` two rows a piece, the results an entry a channel; they are the caller's alone.
    unsafe {
        plan.launch::<T>(gpu, "moments", &[x, partial.at(0)], &plan.sizes[1..])?;
        gpu.launch(at.name, (Source::Channels, &name), launch::columns(at.channels), &finish)
    }
}

/// The sum of squares for each group and channel.
pub(crate) fn squares<T: Scalar>(gpu: &Cuda, at: Channels, x: Flat<'_, T>, out: &mut Storage<T>) -> Result<()> {
    let out = out.cuda_mut(at.name)?;
    let count = at.groups * at.channels;
    assert_eq!(out.len(), count, "{}: the result's length", at.name);
    let x = whole(at, x)?;
    if count == 0 {
        return Ok(());
    }
    let plan = Plan::new::<T>(at, &[x], SUMMING);
    if plan.plan.pieces == 1 {
        // SAFETY: x has the sizes' entries, and the result, the caller's alone, is the one row of sums.
        return unsafe { plan.launch::<T>(gpu, "squares", &[x, out.at(0)], &plan.sizes) };
    }
    let partial: CudaBlock<T> = gpu.allocate(plan.plan.pieces * count)?;
    // SAFETY: x has the sizes' entries, `partial` a row a piece, and is this function's alone.
    unsafe { plan.launch::<T>(gpu, "squares", &[x, partial.at(0)], &plan.sizes)? };
    fold(gpu, at.name, &partial, count, (out, &mut gpu.allocate(0)?))
}

/// The sums of dy and of `dy (x - shift)` for each group and channel.
pub(crate) fn sums<T: Scalar>(
    gpu: &Cuda,
    at: Channels,
    (x, dy): (Flat<'_, T>, Flat<'_, T>),
    shift: Option<Flat<'_, T>>,
    (plain, weighted): (&mut Storage<T>, &mut Storage<T>),
) -> Result<()> {
    let (plain, weighted) = (plain.cuda_mut(at.name)?, weighted.cuda_mut(at.name)?);
    let count = at.groups * at.channels;
    assert!(plain.len() == count && weighted.len() == count, "{}: the results' lengths", at.name);
    let (x, shift, dy) = (whole(at, x)?, vector(at, shift, at.channels)?, whole(at, dy)?);
    if count == 0 {
        return Ok(());
    }
    let plan = Plan::new::<T>(at, &[x, shift, dy], SUMMING);
    let sizes = [&[int(2 * count)], plan.sizes.as_slice()].concat();
    if plan.plan.pieces == 1 {
        // SAFETY: x and dy have the sizes' entries, the shift one a channel; the results, the caller's alone, are the one row of sums each.
        return unsafe { plan.launch::<T>(gpu, "sums", &[x, shift, dy, plain.at(0), weighted.at(0)], &sizes) };
    }
    let partial: CudaBlock<T> = gpu.allocate(plan.plan.pieces * 2 * count)?;
    // SAFETY: as above, with two rows of `partial` a piece, which is this function's alone.
    unsafe { plan.launch::<T>(gpu, "sums", &[x, shift, dy, partial.at(0), partial.at(count)], &sizes)? };
    fold(gpu, at.name, &partial, 2 * count, (plain, weighted))
}

/// `(x - shift) scale + bias`
pub(crate) fn affine<T: Scalar>(
    gpu: &Cuda,
    at: Channels,
    x: Flat<'_, T>,
    (shift, scale, bias): (Option<Flat<'_, T>>, Flat<'_, T>, Option<Flat<'_, T>>),
    y: &mut Storage<T>,
) -> Result<()> {
    let y = y.cuda_mut(at.name)?;
    assert_eq!(y.len(), x.len, "{}: the result's length", at.name);
    let (x, shift, bias) = (whole(at, x)?, vector(at, shift, at.channels)?, vector(at, bias, at.channels)?);
    let scale = vector(at, Some(scale), at.groups * at.channels)?;
    if y.len() == 0 {
        return Ok(());
    }
    let addresses = [x, shift, scale, bias, y.at(0)];
    let plan = Plan::new::<T>(at, &addresses, STREAMING);
    // SAFETY: x and y have the sizes' entries, the vectors theirs; y is the caller's alone.
    unsafe { plan.launch::<T>(gpu, "affine", &addresses, &plan.sizes) }
}

/// `dy a + (x - shift) b + c`
pub(crate) fn combine<T: Scalar>(
    gpu: &Cuda,
    at: Channels,
    (x, dy): (Flat<'_, T>, Flat<'_, T>),
    shift: Option<Flat<'_, T>>,
    (a, b, c): (Flat<'_, T>, Flat<'_, T>, Option<Flat<'_, T>>),
    dx: &mut Storage<T>,
) -> Result<()> {
    let dx = dx.cuda_mut(at.name)?;
    assert_eq!(dx.len(), x.len, "{}: the result's length", at.name);
    let (x, dy) = (whole(at, x)?, whole(at, dy)?);
    let (shift, c) = (vector(at, shift, at.channels)?, vector(at, c, at.channels)?);
    let [a, b] = [vector(at, Some(a), at.groups * at.channels)?, vector(at, Some(b), at.groups * at.channels)?];
    if dx.len() == 0 {
        return Ok(());
    }
    let addresses = [x, dy, shift, a, b, c, dx.at(0)];
    let plan = Plan::new::<T>(at, &addresses, STREAMING);
    // SAFETY: x, dy and dx have the sizes' entries, the vectors theirs; dx is the caller's alone.
    unsafe { plan.launch::<T>(gpu, "combine", &addresses, &plan.sizes) }
}

/// GRN's norms, means and scales from the sums of squares.
pub(crate) fn respond<T: Scalar>(
    gpu: &Cuda,
    at: Channels,
    (squares, gamma): (&Storage<T>, Flat<'_, T>),
    eps: T,
    [norms, means, scale]: [&mut Storage<T>; 3],
) -> Result<()> {
    let squares = squares.cuda(at.name)?;
    let [norms, means, scale] = [norms.cuda_mut(at.name)?, means.cuda_mut(at.name)?, scale.cuda_mut(at.name)?];
    let count = at.groups * at.channels;
    let lengths = [squares.len(), norms.len(), scale.len()];
    assert!(lengths == [count; 3] && means.len() == at.groups, "{}: the results' lengths", at.name);
    let gamma = vector(at, Some(gamma), at.channels)?;
    if count == 0 {
        return Ok(());
    }
    let pointers = [squares.at(0), gamma, norms.at(0), means.at(0), scale.at(0)].map(Arg::Pointer);
    let args = [pointers.as_slice(), &[int(at.groups), int(at.channels), number(eps)]].concat();
    let name = format!("respond_{}", T::DTYPE);
    // SAFETY: gamma has an entry a channel, the means one a group, the others one for each of both; results are the caller's alone.
    unsafe { gpu.launch(at.name, (Source::Channels, &name), launch::crews(at.groups), &args) }
}

/// GRN's gradients of gamma and beta, and the slopes by which x enters its own.
pub(crate) fn respond_back<T: Scalar>(
    gpu: &Cuda,
    at: Channels,
    (plain, products): (&Storage<T>, &Storage<T>),
    (norms, means, gamma): (&Storage<T>, &Storage<T>, Flat<'_, T>),
    [slopes, dgamma, dbeta]: [&mut Storage<T>; 3],
) -> Result<()> {
    let [plain, products] = [plain.cuda(at.name)?, products.cuda(at.name)?];
    let [norms, means] = [norms.cuda(at.name)?, means.cuda(at.name)?];
    let [slopes, dgamma, dbeta] = [slopes.cuda_mut(at.name)?, dgamma.cuda_mut(at.name)?, dbeta.cuda_mut(at.name)?];
    let count = at.groups * at.channels;
    let lengths = [plain.len(), products.len(), norms.len(), slopes.len()];
    assert!(lengths == [count; 4] && means.len() == at.groups, "{}: the operands' lengths", at.name);
    assert!(dgamma.len() == at.channels && dbeta.len() == at.channels, "{}: the results' lengths", at.name);
    let gamma = vector(at, Some(gamma), at.channels)?;
    if at.channels == 0 {
        return Ok(());
    }
    let sizes = [int(at.groups), int(at.channels)];
    let back = [products.at(0), norms.at(0), means.at(0), gamma, slopes.at(0)].map(Arg::Pointer);
    let back = [back.as_slice(), &sizes].concat();
    let gains = [plain.at(0), products.at(0), norms.at(0), means.at(0), dgamma.at(0), dbeta.at(0)].map(Arg::Pointer);
    let gains = [gains.as_slice(), &sizes].concat();
    let (name, gains_name) = (format!("respond_back_{}", T::DTYPE), format!("respond_gains_{}", T::DTYPE));
    // SAFETY: gamma and its gradients have an entry a channel, the means one a group, the others one for each of both; results are
    // the caller's alone.
    unsafe {
        gpu.launch(at.name, (Source::Channels, &name), launch::crews(at.groups), &back)?;
        gpu.launch(at.name, (Source::Channels, &gains_name), launch::heavy(at.channels), &gains)
    }
}
