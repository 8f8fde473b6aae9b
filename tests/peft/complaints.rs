//! What users of such libraries complain of, one test each.

use super::layers::{all, close, fill, normal, padding_of};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::ops::ControlFlow;
use tenfold::{
    ErrorKind, TensorFile,
    autodiff::{self, Var},
    nn::{Call, Conv, Layer, Linear, Mode, Module},
    peft::{self, Attach, Dora, Flora, Lora, Method, Ranks, SaveAdapter, Targets},
    train::{AdamW, Event, Every, Rows, Schedule, Scores, Trainer},
};

fn layers(seed: u64) -> Vec<Linear<f64>> {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    vec![Linear::new(6, 8, rng).unwrap(), Linear::new(8, 6, rng).unwrap(), Linear::new(6, 3, rng).unwrap()]
}

fn run(layers: &[Linear<f64>]) -> tenfold::Tensor<f64> {
    let x = Var::constant(normal(&[5, 6], 2));
    layers.iter().fold(x, |x, layer| layer.forward(&x, Mode::Evaluation).unwrap().gelu().unwrap()).into_value()
}

fn fill_all(layers: &mut [Linear<f64>]) {
    layers.iter_mut().enumerate().for_each(|(i, layer)| fill(layer, None, i as u64));
}

#[test]
fn grouped_and_depthwise_convolutions_are_unsupported_or_cannot_be_merged() {
    let (flora, lora, dora) = (Flora::new().rank(2), Lora::new(2), Dora::new(2));
    for groups in [1, 2, 6] {
        for method in [&flora as &dyn Method<f64>, &lora, &dora] {
            let options = autodiff::Conv::new().padding(1).groups(groups);
            let rng = &mut ChaCha8Rng::seed_from_u64(1);
            let mut conv = Conv::<f64>::new([6, 6], &[3, 3], options, rng).unwrap();
            peft::attach(&mut conv, method, &Targets::all()).unwrap();
            fill(&mut conv, None, 3);
            let x = Var::constant(normal(&[1, 5, 4, 6], 4));
            let adapted = conv.forward(&x, Mode::Evaluation).unwrap().into_value();
            let merged = peft::merge(&mut conv).unwrap();
            close("merged", conv.forward(&x, Mode::Evaluation).unwrap().value(), &adapted, 1e-12);
            assert!(merged.max_difference() > 0.1);
        }
    }
}

#[test]
fn merging_changes_outputs() {
    let (flora, lora, dora) = (Flora::new().rank(2), Lora::new(2), Dora::new(2));
    for (name, layer, input) in all() {
        for method in [&flora as &dyn Method<f64>, &lora, &dora] {
            let mut layer = layer.clone();
            let original = layer.layer().weight().value().clone();
            peft::attach(&mut layer, method, &Targets::all()).unwrap();
            let padding = padding_of(layer.layer());
            fill(layer.layer_mut(), padding, 1);
            let adapted = layer.forward(&input, Mode::Evaluation).unwrap().into_value();
            let merged = peft::merge(&mut layer).unwrap();
            close(name, layer.forward(&input, Mode::Evaluation).unwrap().value(), &adapted, 1e-12);
            merged.unmerge(&mut layer).unwrap();
            assert_eq!(layer.layer().weight().value(), &original, "{name}: not what it was");
            assert_eq!(layer.forward(&input, Mode::Evaluation).unwrap().value(), &adapted, "{name}");
        }
    }
}

#[test]
fn the_trained_head_is_lost_on_reload() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = layers(1);
    let lora = Lora::new(2);
    Attach::new(&lora).to(Targets::all().except("2")).keep(Targets::of(["2"])).apply(&mut model).unwrap();
    fill_all(&mut model);
    model[2].weight_mut().set(normal(&[3, 6], 5)).unwrap();
    peft::save(&model, folder.path()).unwrap();
    let mut again = layers(1);
    peft::load(&mut again, folder.path()).unwrap();
    assert_eq!(run(&again), run(&model));
    assert!(again[2].weight().trains(), "it would not go on training");
}

#[test]
fn missing_adapter_keys_only_warn() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = layers(1);
    peft::attach(&mut model, &Flora::new().rank(2), &Targets::all()).unwrap();
    peft::save(&model, folder.path()).unwrap();
    let path = folder.path().join("adapter_model.safetensors");
    let file = TensorFile::open(&path).unwrap();
    let mut short = TensorFile::new();
    for name in file.names().filter(|name| !name.ends_with("1.flora_G")) {
        short.insert(name, &file.get::<f64, ndarray::IxDyn>(name).unwrap()).unwrap();
    }
    short.save(&path).unwrap();
    let mut again = layers(1);
    let error = peft::load(&mut again, folder.path()).unwrap_err();
    assert!(error.message().ends_with("1 of the model's tensors are missing: \"1.flora_G\""), "{error}");
    assert!(again.iter().all(|layer| layer.adapters().is_empty()));
}

#[test]
fn target_patterns_silently_match_nothing() {
    let error = peft::attach(&mut layers(1), &Lora::new(2), &Targets::of(["0", "query"])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value);
    assert_eq!(error.message(), "\"query\" matches nothing; there are \"0\", \"1\", \"2\"");
}

#[test]
fn resuming_restarts_the_optimiser_or_the_schedule() {
    let (x, y) = (normal(&[24, 6], 1), normal(&[24, 3], 2));
    let data = Rows::new(&x, &y).unwrap();
    let trainer = Trainer::new(AdamW::new(0.02)).schedule(Schedule::cosine()).steps(12).batch_size(4).seed(3);
    let train = |trainer: &Trainer, most: u64| {
        let mut model = layers(1);
        let flora = Flora::new().rank(2).dropout(0.1);
        Attach::new(&flora).to(Targets::all().except("2")).keep(Targets::of(["2"])).apply(&mut model).unwrap();
        let report = trainer.fit_with(
            &mut model,
            &data,
            |model, (x, y), mode| {
                let x = model.iter().try_fold(Var::constant(x), |x, layer| layer.forward(&x, mode)?.gelu())?;
                x.mse_loss(&y.into())
            },
            |_| Ok(Scores::new()),
            |event| match event {
                Event::Step(step) if step.step >= most => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            },
        );
        (model, report.unwrap())
    };
    let (whole, report) = train(&trainer, 100);
    let folder = tempfile::tempdir().unwrap();
    let kept = trainer.folder(folder.path()).save(Every::Steps(1)).resume(true);
    assert_eq!(train(&kept, 5).1.steps, 5);
    let (resumed, second) = train(&kept, 100);
    assert_eq!((second.steps, second.loss), (report.steps, report.loss));
    for ((name, a), (_, b)) in whole.parameters().into_iter().zip(resumed.parameters()) {
        assert_eq!(a.value(), b.value(), "{name}");
    }
    // And the adapter that comes of it is a folder like any other.
    let adapter = folder.path().join("adapter");
    peft::save(&resumed, &adapter).unwrap();
    let mut again = layers(1);
    peft::load(&mut again, &adapter).unwrap();
    assert_eq!(run(&again), run(&whole));
}

#[test]
fn a_weighted_combination_is_wrong_with_mixed_ranks() {
    let mut model = layers(1);
    for (name, rank) in [("a", 1), ("b", 3)] {
        Attach::new(&Lora::new(rank).alpha(2.0)).name(name).apply(&mut model).unwrap();
    }
    fill_all(&mut model);
    let delta = |layer: &Linear<f64>, name: &str| layer.adapters().get(name).unwrap().delta().unwrap().into_value();
    peft::combine(&mut model, "sum", &[("a", 0.75), ("b", -0.5)]).unwrap();
    for layer in &model {
        let (a, b) = (delta(layer, "a").scale(0.75).unwrap(), delta(layer, "b").scale(-0.5).unwrap());
        close("sum", &delta(layer, "sum"), &a.add(&b).unwrap(), 1e-13);
    }
}

/// Counted rather than timed, so that it holds on every machine; `benches/adapters.rs` times them.
#[test]
fn dora_is_twice_as_slow_and_peft_no_faster_than_full_fine_tuning() {
    let x = Var::parameter(normal(&[64, 96], 1));
    let mut frozen = Linear::<f64>::new(96, 96, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    let weight = frozen.weight().value().clone();
    for method in [&Lora::new(4) as &dyn Method<f64>, &Flora::new().rank(4), &Dora::new(4)] {
        let mut layer = frozen.clone();
        peft::attach(&mut layer, method, &Targets::all()).unwrap();
        let gradients = layer.forward(&x, Mode::training(1, 0)).unwrap().sum().unwrap().backward().unwrap();
        // The dense weight's gradient is the product that adapters are to save.
        assert!(gradients.get(layer.weight().var()).is_none());
        assert_eq!(layer.weight().value(), &weight);
        let call = Call::Linear { x: x.clone() };
        let adapter = layer.adapters().get("default").unwrap();
        let (mode, frozen) = (Mode::training(1, 0), layer.weight().var());
        let alone = adapter.apply(&call, mode).unwrap();
        let whole = adapter.result(&call, frozen, None, mode).unwrap();
        assert!(alone.is_some() || whole.is_some(), "{method:?} forms a second weight");
    }
    frozen.freeze_all();
}

#[test]
fn methods_have_gaps_for_convolutions() {
    let methods: [&dyn Method<f64>; 3] = [&Flora::new().rank(2), &Lora::new(2), &Dora::new(2)];
    for (name, layer, input) in all() {
        for method in methods {
            let mut layer = layer.clone();
            let before = layer.forward(&input, Mode::Evaluation).unwrap().into_value();
            peft::attach(&mut layer, method, &Targets::all()).unwrap();
            close(name, layer.forward(&input, Mode::Evaluation).unwrap().value(), &before, 1e-14);
            let y = layer.forward(&input, Mode::training(1, 0)).unwrap();
            let gradients = y.square().unwrap().sum().unwrap().backward().unwrap();
            layer.gradient_report(&gradients).check().unwrap();
        }
    }
}

#[test]
fn keys_do_not_name_layers_stably() {
    let keys = |name: &str, targets: Targets, seed: u64| {
        let folder = tempfile::tempdir().unwrap();
        let mut model = layers(seed);
        let flora = Flora::new().rank(2).rank_pattern("0", Ranks::Uniform(3));
        Attach::new(&flora).to(targets).name(name).seed(seed).apply(&mut model).unwrap();
        SaveAdapter::new().name(name).write(&model, folder.path()).unwrap();
        let file = TensorFile::open(folder.path().join("adapter_model.safetensors")).unwrap();
        file.names().map(str::to_string).collect::<Vec<_>>()
    };
    let expected = ["0", "2"]
        .map(|layer| ["flora_A.0", "flora_A.1", "flora_G"].map(|part| format!("base_model.model.{layer}.{part}")));
    // Neither the adapter's name nor what else is adapted, nor the order of the patterns is in them.
    for (name, targets) in
        [("a", Targets::of(["0", "2"])), ("b.c", Targets::of(["2", "0"])), ("default", Targets::all().except("1"))]
    {
        assert_eq!(keys(name, targets, 3), expected.concat());
    }
}
