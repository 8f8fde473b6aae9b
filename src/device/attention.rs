//! Scaled dot-product attention, without the matrix of all scores.

use super::{
    Kind, cpu,
    dropout::Drop,
    layout::{Layout, row_major},
    storage::Storage,
};
use crate::{
    error::Result,
    scalar::{Element, Scalar},
};

/// A tensor of order 4, wherever its entries lie.
pub(crate) type Operand<'a, T> = (&'a Storage<T>, &'a Layout);

/// What both directions know. q is `[B, H, N, d]`, k `[B, H, M, d]`, v `[B, H, M, e]`; terms are added to the scaled scores and
/// have been broadcast to `[B, H, N, M]`.
pub(crate) struct Problem<'a, T: Element> {
    pub(crate) q: Operand<'a, T>,
    pub(crate) k: Operand<'a, T>,
    pub(crate) v: Operand<'a, T>,
    pub(crate) terms: Vec<Operand<'a, T>>,
    pub(crate) scale: T,
    pub(crate) drop: Option<Drop>,
}

/// A block and where a tensor's entries lie in it.
pub(crate) type Placed<T> = (Storage<T>, Layout);

/// The gradients of q, k, v and of the bias, where wanted.
pub(crate) type Found<T> = ([Option<Placed<T>>; 3], Option<Storage<T>>);

impl<T: Scalar> Problem<'_, T> {
    fn on_host(&self) -> Result<cpu::attention::Problem<'_, T>> {
        Ok(cpu::attention::Problem {
            q: on_host(self.q)?,
            k: on_host(self.k)?,
            v: on_host(self.v)?,
            terms: self.terms.iter().map(|&term| on_host(term)).collect::<Result<_>>()?,
            scale: self.scale,
            drop: self.drop,
        })
    }
}

fn on_host<'a, T: Scalar>((block, layout): Operand<'a, T>) -> Result<(&'a [T], &'a Layout)> {
    Ok((block.host("attention")?, layout))
}

/// A gapless layout of `shape` whose modes lie in memory in the order in which those of `like` do, so that a view of a
/// projection `[B, N, H d]` gets a result that is one.
pub(crate) fn ordered_like(like: &Layout, shape: &[usize]) -> Layout {
    let mut order: Vec<usize> = (0..shape.len()).collect();
    order.sort_by_key(|&mode| std::cmp::Reverse(like.strides()[mode].unsigned_abs()));
    let sorted: Vec<usize> = order.iter().map(|&mode| shape[mode]).collect();
    let mut strides = vec![0; shape.len()];
    for (&mode, &stride) in order.iter().zip(&row_major(&sorted)) {
        strides[mode] = stride;
    }
    Layout::new(shape, &strides, 0)
}

/// The result `[B, H, N, e]`, laid out as q is, and the logarithm of each row's sum of exponentials `[B, H, N]`.
pub(crate) fn forward<T: Scalar>(problem: &Problem<'_, T>) -> Result<(Placed<T>, Storage<T>)> {
    let device = problem.q.0.device();
    let shape = problem.q.1.shape();
    let layout = ordered_like(problem.q.1, &[shape[0], shape[1], shape[2], problem.v.1.shape()[3]]);
    let mut out = Storage::uninit(device, layout.len())?;
    let mut lse = Storage::uninit(device, shape[..3].iter().product())?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let out = (out.host_mut("attention")?, &layout);
            cpu::attention::forward(cpu, &problem.on_host()?, out, lse.host_mut("attention")?);
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::attention::forward(gpu, problem, (&mut out, &layout), &mut lse)?,
    }
    Ok(((out, layout), lse))
}

/// The gradients of q, k, v where wanted, and of a term of shape `bias` where that is given (row-major).
pub(crate) fn backward<T: Scalar>(
    problem: &Problem<'_, T>,
    out: Operand<'_, T>,
    lse: &Storage<T>,
    dy: Operand<'_, T>,
    wanted: [bool; 3],
    bias: Option<&[usize]>,
) -> Result<Found<T>> {
    let device = problem.q.0.device();
    let mut found = [None, None, None];
    for ((found, wanted), operand) in found.iter_mut().zip(wanted).zip([problem.q, problem.k, problem.v]) {
        if wanted {
            let layout = ordered_like(operand.1, operand.1.shape());
            *found = Some((Storage::uninit(device, layout.len())?, layout));
        }
    }
    let mut bias_gradient = bias.map(|shape| Storage::uninit(device, shape.iter().product())).transpose()?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let [q, k, v] = &mut found;
            let to = cpu::attention::Gradients {
                q: writable(q)?,
                k: writable(k)?,
                v: writable(v)?,
                bias: match (&mut bias_gradient, bias) {
                    (Some(block), Some(shape)) => Some((block.host_mut("attention")?, Layout::contiguous(shape))),
                    _ => None,
                },
            };
            let saved = cpu::attention::Saved {
                out: (out.0.host("attention")?, out.1),
                lse: lse.host("attention")?,
                dy: (dy.0.host("attention")?, dy.1),
            };
            cpu::attention::backward(cpu, &problem.on_host()?, &saved, to);
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => {
            let saved = super::cuda::attention::Saved { out, lse, dy };
            let bias = bias_gradient.as_mut().zip(bias);
            super::cuda::attention::backward(gpu, problem, &saved, &mut found, bias)?;
        }
    }
    Ok((found, bias_gradient))
}

fn writable<T: Scalar>(placed: &mut Option<Placed<T>>) -> Result<Option<(&mut [T], Layout)>> {
    placed.as_mut().map(|(block, layout)| Ok((block.host_mut("attention")?, layout.clone()))).transpose()
}
