//! A step of an optimiser: every entry of every parameter, its gradient and its moments, visited once.

use super::{
    Kind, cpu,
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

/// Steps all parameters at once. An error leaves all of them as they were.
pub(crate) fn step<T: Scalar>(slots: Vec<Slot<'_, T>>) -> Result<()> {
    let Some(first) = slots.first() else { return Ok(()) };
    let device = first.parameter.storage.device().clone();
    for slot in &slots {
        device.check_same(slot.parameter.storage.device(), STEP)?;
        device.check_same(slot.gradient.storage.device(), STEP)?;
        slot.moments.iter().try_for_each(|moment| device.check_same(moment.storage.device(), STEP))?;
    }
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
