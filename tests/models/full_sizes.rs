//! A model of full size that transformers wrote: run by `tests/fixtures/full_sizes.py`, which writes the files and looks at what comes
//! back.

use ndarray::{Ix1, Ix2, Ix4};
use std::path::PathBuf;
use tenfold::{
    Tensor, TensorFile,
    autodiff::{CrossEntropy, Var},
    models::{ConvNext, ImageClassifier},
    nn::{Mode, Module},
    peft::{self, Attach, Flora, Targets},
};

/// Loads `$TENFOLD_FULL_SIZES/model`, compares its logits with those in `expected.safetensors`, adapts it, takes a step, saves, merges,
/// and writes `merged/` with `merged_logits.safetensors`.
#[test]
fn loads_adapts_trains_saves_and_merges() {
    let Some(folder) = std::env::var_os("TENFOLD_FULL_SIZES").map(PathBuf::from) else {
        println!("skipped: TENFOLD_FULL_SIZES names no folder; tests/fixtures/full_sizes.py makes one");
        return;
    };
    let expected = TensorFile::open(folder.join("expected.safetensors")).unwrap();
    let mut model = ConvNext::<f32>::open(folder.join("model")).unwrap();
    println!("{:?}: {}", model.config().hidden_sizes, model.count());
    let images = Var::constant(expected.get::<f32, Ix4>("images").unwrap());
    let away = |ours: &Tensor<f32>, theirs: &Tensor<f32>| {
        ours.sub(theirs).unwrap().max_abs().unwrap() / theirs.max_abs().unwrap()
    };
    let evaluated = |model: &ConvNext<f32>| model.forward(&images, Mode::Evaluation).unwrap().value().clone();
    let theirs = expected.get::<f32, Ix2>("logits").unwrap().into_dyn();
    let first = evaluated(&model);
    println!("logits: {:.1e} of the largest away from transformers'", away(&first, &theirs));
    assert!(away(&first, &theirs) < 1e-4);

    let flora = Flora::new().rank(8).kernel_rank(2).scale(4.0);
    let head = model.head();
    let attach = Attach::new(&flora).to(Targets::all().except(head)).keep(Targets::of([head]));
    let plan = attach.apply(&mut model).unwrap();
    println!("FLoRA (8, 2): {} parameters", plan.parameters());
    assert_eq!(evaluated(&model), first);

    let labels = expected.get::<i64, Ix1>("labels").unwrap();
    let loss = |model: &ConvNext<f32>| {
        model.forward(&images, Mode::training(1, 0)).unwrap().cross_entropy(&labels, CrossEntropy::default()).unwrap()
    };
    let mut losses = Vec::new();
    for _ in 0..3 {
        let now = loss(&model);
        losses.push(now.item().unwrap());
        let gradients = now.backward().unwrap();
        model.gradient_report(&gradients).check().unwrap();
        for (_, parameter) in model.parameters_mut().into_iter().filter(|(_, parameter)| parameter.trains()) {
            let gradient = gradients.of(parameter.var()).unwrap();
            let step = (gradient * (0.02 / gradient.norm().unwrap().max(1e-12) as f32)).unwrap();
            parameter.set(parameter.value().sub(&step).unwrap()).unwrap();
        }
    }
    println!("losses: {losses:?}");
    assert!(losses[2] < losses[0]);

    let adapted = evaluated(&model);
    assert!(away(&adapted, &first) > 1e-3, "training moved nothing");
    let with_adapters = folder.join("adapted.safetensors");
    tenfold::nn::Save::new().write(&model, &with_adapters).unwrap();
    let mut again = ConvNext::<f32>::open(folder.join("model")).unwrap();
    attach.apply(&mut again).unwrap();
    tenfold::nn::Load::new().read(&mut again, &with_adapters).unwrap();
    assert_eq!(evaluated(&again), adapted);
    drop(again);

    peft::merge(&mut model).unwrap();
    let merged = evaluated(&model);
    println!("merged: {:.1e} of the largest away from adapted", away(&merged, &adapted));
    assert!(away(&merged, &adapted) < 1e-4);
    model.save(folder.join("merged")).unwrap();
    TensorFile::new().with("logits", &merged).unwrap().save(folder.join("merged_logits.safetensors")).unwrap();
}
