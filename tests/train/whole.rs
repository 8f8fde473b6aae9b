//! Runs from beginning to end, and in parts.

use super::model::{Net, Sequences, bits, log, train, trainer, until, unwatched};
use ndarray::array;
use std::{ops::ControlFlow, thread::sleep, time::Duration};
use tenfold::{
    Result, Tensor,
    nn::{Linear, Load, Mode, Module},
    train::{Best, Dataset, Event, Every, Record, Rows, Schedule, Scores, Sgd, Stop, Trainer, read_log},
};

/// Breaks off after each possible number of steps: in an epoch, at its end, between evaluations.
#[test]
fn a_run_in_two_parts_is_the_whole_run() {
    let place = tempfile::tempdir().unwrap();
    let whole = place.path().join("whole");
    let (net, report) = train(&trainer().folder(&whole), 8, unwatched).unwrap();
    for most in [1, 2, 3, 4, 5, 6, 9, 13, 39] {
        let folder = place.path().join(most.to_string());
        let kept = trainer().folder(&folder).resume(true);
        let (_, first) = train(&kept, 8, until(most)).unwrap();
        assert_eq!((first.steps, first.stopped), (most, Stop::Interrupted));
        let (resumed, second) = train(&kept, 8, unwatched).unwrap();
        assert!(bits(&resumed) == bits(&net), "{most}");
        assert_eq!(log(&folder), log(&whole));
        assert_eq!((second.loss, second.examples, second.stopped), (report.loss, report.examples, report.stopped));
        assert_eq!(second.best.as_ref().map(|best| &best.scores), report.best.as_ref().map(|best| &best.scores));
        // Once more: nothing is left to do, and the end is the same.
        let mut steps = 0;
        let (again, third) = train(&kept, 8, |event| {
            steps += usize::from(matches!(event, Event::Step(_)));
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(steps == 0 && bits(&again) == bits(&net));
        assert!(third.seconds > 0.0 && third.seconds <= second.seconds);
    }
}

#[test]
fn threads_that_load_change_nothing() {
    let (one, _) = train(&trainer().workers(1), 8, unwatched).unwrap();
    let (five, _) = train(&trainer().workers(5), 8, unwatched).unwrap();
    let (other, _) = train(&trainer().seed(12), 8, unwatched).unwrap();
    assert!(bits(&one) == bits(&five) && bits(&one) != bits(&other));
}

/// Without dropout, batch norm and clipping, two batches of three are a batch of six.
#[test]
fn accumulated_gradients_are_those_of_a_larger_batch() {
    let x = Tensor::from_fn([18, 2], |i| ((i[0] * 2 + i[1]) as f64).sin()).unwrap();
    let y = Tensor::from_fn([18, 1], |i| (i[0] as f64).cos()).unwrap();
    let data = Rows::new(&x, &y).unwrap();
    let run = |size: usize, accumulate: u64| {
        let mut model = Linear::<f64>::zeros(2, 1).unwrap();
        let trainer = Trainer::new(Sgd::new(0.1)).epochs(4).batch_size(size).accumulate(accumulate);
        let report = trainer
            .fit(&mut model, &data, |model, (x, y), mode| model.forward(&x.into(), mode)?.mse_loss(&y.into()))
            .unwrap();
        assert_eq!((report.steps, report.examples), (12, 72));
        (model.parameters()[0].1.value().to_vec().unwrap(), report.loss)
    };
    let ((a, loss_a), (b, loss_b)) = (run(6, 1), run(3, 2));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-14), "{a:?} {b:?}");
    assert!((loss_a - loss_b).abs() < 1e-14 && a[0] != 0.0);
}

/// The least of (w - 1)^2 from 0 at a rate that the schedule makes 0.5, then 0.25: one step and its rate are known.
#[test]
fn the_log_says_what_happened() {
    let folder = tempfile::tempdir().unwrap();
    let data = Rows::new(&Tensor::<f64, _>::ones([6, 1]).unwrap(), &Tensor::<f64, _>::ones([6, 1]).unwrap()).unwrap();
    let mut model = Linear::<f64>::zeros(1, 1).unwrap().without_bias();
    let trainer =
        Trainer::new(Sgd::new(0.5)).schedule(Schedule::linear()).epochs(2).batch_size(6).folder(folder.path());
    let mut events = Vec::new();
    let report = trainer
        .fit_with(
            &mut model,
            &data,
            |model, (x, y), mode| model.forward(&x.into(), mode)?.mse_loss(&y.into()),
            |_| Ok(Scores::from([("nothing", f64::NAN)])),
            |event| {
                events.push(match event {
                    Event::Started(outline) => format!("started {} {}", outline.steps, outline.steps_per_epoch),
                    Event::Step(step) => format!("step {}", step.step),
                    Event::Evaluated(evaluation) => format!("evaluated {}", evaluation.step),
                    Event::Saved { step, .. } => format!("saved {step}"),
                    Event::Ended(report) => format!("ended {}", report.steps),
                    _ => unreachable!(),
                });
                ControlFlow::Continue(())
            },
        )
        .unwrap();
    let expected = ["started 2 1", "step 1", "evaluated 1", "saved 1", "step 2", "evaluated 2", "saved 2", "ended 2"];
    assert_eq!(events, expected);
    let records = read_log(folder.path().join("log.jsonl")).unwrap();
    let [Record::Step(one), Record::Evaluation(first), Record::Step(two), Record::Evaluation(_)] = &records[..] else {
        panic!("{records:?}")
    };
    // d/dw = 2 (w - 1): from 0 to 1 in one step of 0.5.
    assert_eq!((one.step, one.epoch, one.loss, one.rate, one.gradient_norm, one.examples), (1, 1, 1.0, 0.5, 2.0, 6));
    assert_eq!((two.step, two.epoch, two.loss, two.rate), (2, 2, 0.0, 0.25));
    assert!(first.scores.get("nothing").unwrap().is_nan() && !first.best);
    assert!(one.seconds > 0.0 && two.seconds > one.seconds && report.seconds > two.seconds);
    assert!(one.examples_per_second > 0.0 && report.waited >= one.waited);
}

/// Scores that rise to the fourth evaluation, and fall: the weights of that one come back.
#[test]
fn the_best_weights_come_back_and_patience_ends_the_run() {
    let run = |trainer: &Trainer| {
        let (data, mut net) = (Sequences(30), Net::new(8, 1));
        let (mut count, mut fourth) = (0, Vec::new());
        let report = trainer
            .fit_with(
                &mut net,
                &data,
                Net::loss,
                |net| {
                    count += 1;
                    if count == 4 {
                        fourth = bits(net);
                    }
                    Ok(Scores::from([("error", [0.9, 0.5, 0.7, 0.2, 0.2, f64::NAN, 0.3, 0.1][count - 1])]))
                },
                unwatched,
            )
            .unwrap();
        (net, report, fourth)
    };
    let folder = tempfile::tempdir().unwrap();
    let plain = trainer().evaluate(Every::Steps(2)).best(Best::lowest("error")).patience(3);
    for trainer in [plain.clone().restore_best(), plain.clone().restore_best().folder(folder.path())] {
        let (net, report, fourth) = run(&trainer);
        assert_eq!((report.steps, report.stopped, report.restored), (14, Stop::Early, true));
        assert_eq!(report.best.unwrap().step, 8);
        assert!(bits(&net) == fourth);
    }
    let (net, report, fourth) = run(&plain);
    assert!(!report.restored && bits(&net) != fourth);

    // The best weights lie in the folder with the names of the model, and a run that is over restores them again.
    let mut net = Net::new(8, 1);
    Load::new().allow_missing("base.*").read(&mut net, folder.path().join("best.safetensors")).unwrap();
    assert!(bits(&net) == fourth);
    let (net, report, _) = run(&plain.clone().restore_best().folder(folder.path()).resume(true));
    assert!(bits(&net) == fourth && report.stopped == Stop::Early && report.steps == 14);
    let (net, _, _) = run(&plain.folder(folder.path()).resume(true));
    assert!(bits(&net) != fourth, "the checkpoint is that of the last step");
}

/// Batches take a while, and steps a little longer.
struct Slow;

impl Dataset for Slow {
    type Batch = Tensor<f64>;

    fn len(&self) -> usize {
        25
    }

    fn batch(&self, indices: &[usize]) -> Result<Tensor<f64>> {
        sleep(Duration::from_millis(10));
        Tensor::ones(vec![indices.len(), 1])
    }
}

#[test]
fn steps_do_not_wait_for_data() {
    let mut waits = Vec::new();
    let report = Trainer::new(Sgd::new(0.01))
        .batch_size(1)
        .fit_with(
            &mut Linear::<f64>::zeros(1, 1).unwrap(),
            &Slow,
            |model, x, mode| {
                sleep(Duration::from_millis(15));
                model.forward(&x.into(), mode)?.square()?.mean()
            },
            |_| Ok(Scores::new()),
            |event| {
                if let Event::Step(step) = event {
                    waits.push(step.waited);
                }
                ControlFlow::Continue(())
            },
        )
        .unwrap();
    // Made when a step asks for them, they would make it wait for 240 ms.
    let waited: f64 = waits[1..].iter().sum();
    assert!(waits.len() == 25 && waited < 0.12, "24 steps waited {waited} s");
    assert!((report.waited - waits.iter().sum::<f64>()).abs() < 1e-9);
}

#[test]
fn a_loss_is_given_the_pass() {
    let data = Rows::new(&Tensor::from(array![[1.0], [2.0], [3.0]]), &Tensor::<f64, _>::ones([3, 1]).unwrap()).unwrap();
    let mut modes = Vec::new();
    Trainer::new(Sgd::new(0.01))
        .epochs(2)
        .batch_size(1)
        .accumulate(2)
        .seed(5)
        .fit(&mut Linear::<f64>::zeros(1, 1).unwrap(), &data, |model, (x, y), mode| {
            modes.push(mode);
            model.forward(&x.into(), mode)?.mse_loss(&y.into())
        })
        .unwrap();
    assert_eq!(modes, (0..6).map(|pass| Mode::training(5, pass)).collect::<Vec<_>>());
}
