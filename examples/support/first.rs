//! The first gradients, from which adapters may start.

use tenfold::{
    Result,
    autodiff::{Gradients, Var},
    nn::{Mode, Module},
    peft::{Attach, Probe, Targets, WeightGradients, weight_gradients},
    train::{AdamW, Dataset, Trainer},
};

/// How many batches the first gradients are of, and how many epochs the head trains alone before them.
const FIRST_BATCHES: usize = 8;
const FIRST_EPOCHS: u64 = 2;

/// The gradients of all weights but the head's, after the head alone was trained a little: before, they would only say what a random
/// head says. A function of the seed, so that a run that is resumed begins with the same.
pub fn first_gradients<M: Module<f32>, D: Dataset>(
    model: &mut M,
    data: &D,
    head: &[&str],
    (size, seed): (usize, u64),
    mut loss: impl FnMut(&M, D::Batch, Mode) -> Result<Var<f32>>,
) -> Result<WeightGradients<f32>> {
    Attach::new(&Probe).keep(Targets::of(head.iter().copied())).apply(model)?;
    let probe = Trainer::new(AdamW::new(1e-3)).epochs(FIRST_EPOCHS).batch_size(size).seed(seed);
    probe.fit(model, data, &mut loss)?;
    model.unfreeze_all();
    let mut sum: Option<Gradients<f32>> = None;
    let stride = (data.len() / (FIRST_BATCHES * size).max(1)).max(1);
    // Examples from everywhere: neighbours are often of one class.
    let spread: Vec<usize> = (0..data.len()).step_by(stride).collect();
    for indices in spread.chunks(size).take(FIRST_BATCHES) {
        let gradients = loss(model, data.batch(indices)?, Mode::Evaluation)?.backward()?;
        match &mut sum {
            Some(sum) => sum.accumulate(gradients)?,
            None => sum = Some(gradients),
        }
    }
    let mut first = sum.map(|sum| weight_gradients(model, &sum)).unwrap_or_default();
    let of_head = |name: &str| head.iter().any(|part| name == *part || name.starts_with(&format!("{part}.")));
    first.retain(|name, _| !of_head(name));
    Ok(first)
}
