//! A companion sees the gradients of each step, changes the model after it, and goes on where it was left.

use super::model::{Net, Sequences, bits, trainer, until, unwatched};
use ndarray::IxDyn;
use std::ops::ControlFlow;
use tenfold::{
    Error, ErrorKind, Result, Tensor,
    autodiff::Scaled,
    nn::{Linear, Module},
    peft::{self, AdaLora, Attach, Targets},
    train::{Best, Companion, Event, Every, Progress, Report, Rows, Scores, Sgd, Trainer},
};

/// Trains a new model with a budget of ranks.
fn train(
    trainer: &Trainer,
    adalora: &AdaLora,
    watch: impl FnMut(&Event<'_>) -> ControlFlow<()>,
) -> Result<(Net<f64>, Report)> {
    let (data, mut net) = (Sequences(47), Net::new(8, 1));
    Attach::new(adalora).to(Targets::of(["dense", "head"])).keep(Targets::of(["norm"])).apply(&mut net)?;
    let loss = |net: &Net<f64>, batch, mode| match (net.loss(batch, mode)?, adalora.penalty(net)?) {
        (loss, Some(penalty)) => loss.add(&penalty),
        (loss, None) => Ok(loss),
    };
    let mut allocator = adalora.allocator()?;
    let report = trainer.fit_along(&mut net, &data, loss, |net| net.scores(&data), watch, &mut allocator)?;
    Ok((net, report))
}

/// Breaks off in the warm-up, while the budget goes down, at the final choice, and after it.
#[test]
fn a_budget_in_two_parts_is_the_whole_budget() {
    let place = tempfile::tempdir().unwrap();
    let adalora = AdaLora::new(1).initial_rank(3).warmup(6).settle(10).every(2);
    let (net, report) = train(&trainer(), &adalora, unwatched).unwrap();
    assert_eq!(report.steps, 40);
    assert_eq!(peft::ranks_left(&net).unwrap().iter().map(|(_, rank)| rank).sum::<usize>(), 2);
    for most in [1, 6, 7, 13, 29, 30, 31, 39] {
        let folder = place.path().join(most.to_string());
        let kept = trainer().folder(&folder).resume(true);
        assert_eq!(train(&kept, &adalora, until(most)).unwrap().1.steps, most);
        let (resumed, _) = train(&kept, &adalora, unwatched).unwrap();
        assert!(bits(&resumed) == bits(&net), "{most}");
    }
    // With other settings, or without a companion, the run does not go on.
    let kept = trainer().folder(place.path().join("7")).resume(true);
    let error = train(&kept, &adalora.clone().beta1(0.9), unwatched).map(drop).unwrap_err();
    assert!(error.message().contains("companion.beta1 is 0.85 in the checkpoint and 0.9 here"), "{error}");
    let mut net = Net::new(8, 1);
    Attach::new(&adalora).to(Targets::of(["dense", "head"])).keep(Targets::of(["norm"])).apply(&mut net).unwrap();
    let data = Sequences(47);
    let error = kept.fit_with(&mut net, &data, Net::loss, |net| net.scores(&data), unwatched).unwrap_err();
    assert!(error.message().contains("companion is {") && error.message().contains("null here"), "{error}");
}

/// With more triplets a model is better: the best one is among those that have no more than the target, and patience waits for them.
#[test]
fn the_best_weights_are_within_the_budget() {
    let adalora = AdaLora::new(1).initial_rank(3).warmup(6).settle(10).every(2);
    // The first of equals is the best, and nothing is better than that.
    let best = |name: &str| trainer().evaluate(Every::Steps(1)).best(Best::lowest(name)).restore_best();
    let score = |net: &Net<f64>| {
        let left: usize = peft::ranks_left(net)?.iter().map(|(_, rank)| rank).sum();
        Ok(Scores::new().with("kept back", 6.0 - left as f64))
    };
    for trainer in [best("kept back"), best("kept back").patience(3)] {
        let (data, mut net) = (Sequences(47), Net::new(8, 1));
        Attach::new(&adalora).to(Targets::of(["dense", "head"])).keep(Targets::of(["norm"])).apply(&mut net).unwrap();
        let mut seen = Vec::new();
        let watch = |event: &Event<'_>| {
            if let Event::Evaluated(evaluation) = event {
                seen.push((evaluation.step, evaluation.best));
            }
            ControlFlow::Continue(())
        };
        let mut allocator = adalora.allocator().unwrap();
        trainer.fit_along(&mut net, &data, Net::loss, score, watch, &mut allocator).unwrap();
        let bests: Vec<u64> = seen.iter().filter(|(_, best)| *best).map(|(step, _)| *step).collect();
        assert_eq!(bests, [30], "{seen:?}");
        assert_eq!(peft::ranks_left(&net).unwrap().iter().map(|(_, rank)| rank).sum::<usize>(), 2);
        assert!(!allocator.settled(29, 40) && allocator.settled(30, 40) && !allocator.settled(30, 12));
        assert!(seen.last().unwrap().0 == 40 || seen.last().unwrap().0 == 33, "{seen:?}");
    }
}

#[test]
fn a_budget_that_does_not_fit_is_found_before_anything_happens() {
    let place = tempfile::tempdir().unwrap();
    let error = train(&trainer().folder(place.path().join("run")), &AdaLora::new(1).warmup(30).settle(10), unwatched);
    let error = error.map(drop).unwrap_err();
    assert!(error.message().contains("leave none of 40 for the budget to go down"), "{error}");
    assert!(!place.path().join("run").exists());
}

/// Writes down what it sees, and fails where it is told to.
#[derive(Default)]
struct Witness {
    seen: Vec<(u64, u64, Vec<f64>)>,
    fails_at: u64,
}

impl Companion<f64, Linear<f64>> for Witness {
    fn before_step(&mut self, model: &Linear<f64>, gradients: &Scaled<f64>, at: Progress) -> Result<()> {
        if at.step == self.fails_at {
            return Err(Error::new(ErrorKind::Value, "witness", "no"));
        }
        let gradient: Tensor<f64, IxDyn> = gradients.get(model.parameters()[0].1.var())?.unwrap();
        self.seen.push((at.step, at.steps, gradient.to_vec()?));
        Ok(())
    }
}

fn witnessed(size: usize, accumulate: u64, fails_at: u64) -> (Witness, Result<Report>, Vec<f64>) {
    let x = Tensor::from_fn([18, 2], |i| ((i[0] * 2 + i[1]) as f64).sin()).unwrap();
    let y = Tensor::from_fn([18, 1], |i| (i[0] as f64).cos()).unwrap();
    let (data, mut model) = (Rows::new(&x, &y).unwrap(), Linear::<f64>::zeros(2, 1).unwrap());
    let trainer = Trainer::new(Sgd::new(0.1)).epochs(2).batch_size(size).accumulate(accumulate).clip(1e-3);
    let mut witness = Some(Witness { fails_at, ..Witness::default() });
    let report = trainer.fit_along(
        &mut model,
        &data,
        |model, (x, y), mode| model.forward(&x.into(), mode)?.mse_loss(&y.into()),
        |_| Ok(Scores::new()),
        |_| ControlFlow::Continue(()),
        &mut witness,
    );
    (witness.unwrap(), report, model.parameters()[0].1.value().to_vec().unwrap())
}

/// Two batches of three are a batch of six, and clipping comes later.
#[test]
fn gradients_are_the_mean_over_a_step() {
    let ((one, ..), (two, ..)) = (witnessed(6, 1, 0), witnessed(3, 2, 0));
    assert_eq!(one.seen.len(), 6);
    for ((step, steps, a), (other, _, b)) in one.seen.iter().zip(&two.seen) {
        assert_eq!((step, *steps), (other, 6));
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-14) && a[0].abs() > 1e-2, "{a:?} {b:?}");
    }
}

#[test]
fn a_step_that_the_companion_refuses_moves_nothing() {
    let (witness, report, weights) = witnessed(6, 1, 4);
    assert_eq!(witness.seen.len(), 3);
    let error = report.unwrap_err();
    assert!(error.message().starts_with("step 4 (epoch 2, batch 1): witness: no"), "{error}");
    // Three steps of a length that clipping fixes.
    assert!(weights.iter().all(|w| w.abs() <= 3.0 * 0.1 * 1e-3));
}
