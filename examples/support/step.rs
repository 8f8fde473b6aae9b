//! A training step, timed.

use crate::method::with_penalty;
use std::time::Instant;
use tenfold::{
    Result,
    autodiff::Var,
    nn::{Mode, Module},
    peft::AdaLora,
    train::{AdamW, Groups, Optimizer},
};

/// Rounds that are not counted: they touch fresh memory and start threads.
const WARM_UP: u64 = 2;

/// Seconds of steps (forward, backward, AdamW) with this loss, the fastest first; at least one. AdaLoRA's penalty and its choice of ranks belong
/// to them.
pub fn seconds_of_steps<M: Module<f32>>(
    model: &mut M,
    adalora: Option<&AdaLora>,
    steps: u64,
    loss: impl Fn(&M, Mode) -> Result<Var<f32>>,
) -> Result<Vec<f64>> {
    let mut optimizer = Optimizer::new(AdamW::new(1e-3), &Groups::new(), model)?;
    let mut allocator = adalora.map(AdaLora::allocator).transpose()?;
    let (mut seconds, rounds) = (Vec::new(), WARM_UP.saturating_add(steps.max(1)));
    for round in 0..rounds {
        let start = Instant::now();
        let loss = with_penalty(loss(model, Mode::training(0, round))?, adalora, model)?;
        // The loss is read, so that a device is waited for.
        loss.item()?;
        let gradients = loss.backward()?.into();
        if let Some(allocator) = &mut allocator {
            allocator.before_step(model, &gradients, round + 1, rounds)?;
        }
        optimizer.step(model, gradients, 1.0, None)?;
        if let Some(allocator) = &mut allocator {
            allocator.after_step(model, round + 1, rounds)?;
        }
        if round >= WARM_UP {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds)
}
