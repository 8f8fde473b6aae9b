//! A training step, timed.

use std::time::Instant;
use tenfold::{
    Result,
    autodiff::Var,
    nn::{Mode, Module},
    train::{AdamW, Groups, Optimizer},
};

/// Rounds that are not counted: they touch fresh memory and start threads.
const WARM_UP: u64 = 2;

/// Seconds of steps (forward, backward, AdamW) with this loss, the fastest first; at least one.
pub fn seconds_of_steps<M: Module<f32>>(
    model: &mut M,
    steps: u64,
    loss: impl Fn(&M, Mode) -> Result<Var<f32>>,
) -> Result<Vec<f64>> {
    let mut optimizer = Optimizer::new(AdamW::new(1e-3), &Groups::new(), model)?;
    let mut seconds = Vec::new();
    for round in 0..WARM_UP + steps.max(1) {
        let start = Instant::now();
        let loss = loss(model, Mode::training(0, round))?;
        // The loss is read, so that a device is waited for.
        loss.item()?;
        optimizer.step(model, loss.backward()?, 1.0, None)?;
        if round >= WARM_UP {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds)
}
