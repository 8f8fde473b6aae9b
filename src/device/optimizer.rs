//! A step of an optimiser: every entry of every parameter, its gradient and its moments, visited once.

use super::{
    Device, Kind, cpu,
    reduce::in_range,
    storage::{Flat, FlatMut},
};
use crate::{error::Result, scalar::Scalar};
use smallvec::SmallVec;

/// What a parameter has beside its gradient: at most three tensors.
pub(crate) type Moments<M> = SmallVec<[M; 3]>;

const STEP: &str = "Optimizer::step";

/// What a step does to an entry p with gradient g. All numbers are those of this step and this parameter; in the order in which
/// PyTorch computes them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Update {
    /// No moments: `g = scale g + decay p; p -= rate g`.
    Descent { scale: f64, decay: f64, rate: f64 },
    /// One moment: `g = scale g + decay p; b = momentum b + blend g; p -= rate b`, or `p -= rate (g + momentum b)` where `nesterov`.
    Momentum { scale: f64, decay: f64, rate: f64, momentum: f64, blend: f64, nesterov: bool },
    /// Two moments, or three where the largest of the second so far takes its place.
    Adam(Adam),
}

/// `g = scale g + decay p; p = keep p; m += (1 - beta_1) (g - m); v = beta_2 v + (1 - beta_2) g g; p -= rate m / (sqrt(v) / root + eps)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Adam {
    pub(crate) scale: f64,
    pub(crate) decay: f64,
    pub(crate) keep: f64,
    pub(crate) betas: [f64; 2],
    pub(crate) rate: f64,
    pub(crate) root: f64,
    pub(crate) eps: f64,
}

/// A parameter with all that its step needs; the blocks are equally long.
pub(crate) struct Slot<'a, T: Scalar> {
    pub(crate) update: Update,
    pub(crate) parameter: FlatMut<'a, T>,
    pub(crate) gradient: Flat<'a, T>,
    pub(crate) moments: Moments<FlatMut<'a, T>>,
}

impl Update {
    /// The same for gradients that are multiplied by a factor more.
    pub(crate) fn shortened(mut self, by: f64) -> Self {
        match &mut self {
            Self::Descent { scale, .. } | Self::Momentum { scale, .. } | Self::Adam(Adam { scale, .. }) => *scale *= by,
        }
        self
    }
}

/// What decides whether, and how far, a step goes.
pub(crate) struct Limit<'a, T: Scalar> {
    /// The factor of all gradients, which their norm is taken with.
    pub(crate) scale: f64,
    /// The largest norm: longer gradients are made so short.
    pub(crate) most: Option<f64>,
    /// The losses that the gradients are of: nothing moves unless all of them are finite.
    pub(crate) losses: Option<Flat<'a, T>>,
}

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Judged {
    /// The norm of all gradients.
    pub(crate) norm: f64,
    /// By what they were made shorter.
    pub(crate) shorter: f64,
    /// The sum of the losses.
    pub(crate) losses: f64,
    /// Not where a loss is not finite, nor where the gradients' squares leave the range of doubles or vanish: who needs their norm has to find it
    /// in another way then.
    pub(crate) moved: bool,
}

/// A limit's verdict on gradients whose squares add up to `squares`.
fn judge<T: Scalar>(limit: &Limit<'_, T>, squares: f64, losses: f64) -> Judged {
    let norm = squares.sqrt() * limit.scale.abs();
    let shorter = shorter(limit.most, norm);
    let moved = in_range(squares) && norm.is_finite() && losses.is_finite();
    Judged { norm, shorter, losses, moved }
}

/// What gradients of a norm are multiplied with for a norm of `most`, as by `torch.nn.utils.clip_grad_norm_`.
pub(crate) fn shorter(most: Option<f64>, norm: f64) -> f64 {
    most.map_or(1.0, |most| (most / (norm + 1e-6)).min(1.0))
}

/// Steps all parameters at once, as far as the limit lets them; on a GPU the host waits for the verdict alone, after the step. An error leaves
/// all parameters as they were.
pub(crate) fn step_within<T: Scalar>(slots: Vec<Slot<'_, T>>, limit: &Limit<'_, T>) -> Result<Judged> {
    let of_losses = limit.losses.as_ref().map(|losses| losses.storage.device().clone());
    let device = device_of(&slots)?.or_else(|| of_losses.clone()).unwrap_or_else(Device::cpu);
    of_losses.map_or(Ok(()), |losses| device.check_same(&losses, STEP))?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let gradients = slots.iter().map(|slot| slot.gradient.host(STEP)).collect::<Result<Vec<_>>>()?;
            let losses = match &limit.losses {
                Some(losses) => losses.host(STEP)?.iter().map(|loss| loss.f64()).sum(),
                None => 0.0,
            };
            let judged = judge(limit, cpu::reduce::squares(cpu, &gradients), losses);
            if judged.moved {
                let mut slots = slots;
                slots.iter_mut().for_each(|slot| slot.update = slot.update.shortened(judged.shorter));
                step_on(&device, slots)?;
            }
            Ok(judged)
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::optimizer::step_within(gpu, STEP, slots, limit),
    }
}

/// Where the operands of a step are, all of them.
fn device_of<T: Scalar>(slots: &[Slot<'_, T>]) -> Result<Option<Device>> {
    let Some(first) = slots.first() else { return Ok(None) };
    let device = first.parameter.storage.device().clone();
    for slot in slots {
        device.check_same(slot.parameter.storage.device(), STEP)?;
        device.check_same(slot.gradient.storage.device(), STEP)?;
        slot.moments.iter().try_for_each(|moment| device.check_same(moment.storage.device(), STEP))?;
    }
    Ok(Some(device))
}

/// Steps all parameters at once. An error leaves all of them as they were.
pub(crate) fn step<T: Scalar>(slots: Vec<Slot<'_, T>>) -> Result<()> {
    match device_of(&slots)? {
        Some(device) => step_on(&device, slots),
        None => Ok(()),
    }
}

/// The same for slots that are all on this device.
fn step_on<T: Scalar>(device: &Device, slots: Vec<Slot<'_, T>>) -> Result<()> {
    match &device.0 {
        Kind::Cpu(cpu) => {
            let pieces = slots.into_iter().map(|slot| {
                Ok(cpu::optimizer::Piece {
                    update: slot.update,
                    parameter: slot.parameter.host(STEP)?,
                    gradient: slot.gradient.host(STEP)?,
                    moments: slot.moments.into_iter().map(|moment| moment.host(STEP)).collect::<Result<_>>()?,
                })
            });
            cpu::optimizer::step(cpu, pieces.collect::<Result<_>>()?);
            Ok(())
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::optimizer::step(gpu, STEP, slots),
    }
}
