//! Models of full size that transformers wrote: run by `tests/fixtures/full_sizes.py`, which writes the files and looks at what comes
//! back.

use ndarray::{Ix1, Ix2, Ix4};
use std::path::{Path, PathBuf};
use tenfold::{
    Tensor, TensorFile,
    autodiff::{CrossEntropy, Var},
    models::{ConvNext, Deberta, ImageClassifier, TextClassifier, Tokens},
    nn::{Mode, Module},
    peft::{self, Attach, Flora, Targets},
};

/// What the script wrote, where it runs this.
fn expected() -> Option<(PathBuf, TensorFile)> {
    let Some(folder) = std::env::var_os("TENFOLD_FULL_SIZES").map(PathBuf::from) else {
        println!("skipped: TENFOLD_FULL_SIZES names no folder; tests/fixtures/full_sizes.py makes one");
        return None;
    };
    let file = TensorFile::open(folder.join("expected.safetensors")).unwrap();
    Some((folder, file))
}

/// Opens the model in `folder`, compares its logits with those that are expected, adapts it, takes some steps, saves, merges, and writes
/// `merged/` with `merged_logits.safetensors`.
fn travels<M: Module<f32>>(
    (folder, expected): (&Path, &TensorFile),
    open: impl Fn(&Path) -> M,
    forward: impl Fn(&M, Mode) -> Var<f32>,
    attach: impl Fn(&mut M) -> usize,
    save: impl Fn(&M, &Path),
) {
    let mut model = open(&folder.join("model"));
    println!("{}", model.count());
    let away = |ours: &Tensor<f32>, theirs: &Tensor<f32>| {
        ours.sub(theirs).unwrap().max_abs().unwrap() / theirs.max_abs().unwrap()
    };
    let evaluated = |model: &M| forward(model, Mode::Evaluation).value().clone();
    let theirs = expected.get::<f32, Ix2>("logits").unwrap().into_dyn();
    let first = evaluated(&model);
    println!("logits: {:.1e} of the largest away from transformers'", away(&first, &theirs));
    assert!(away(&first, &theirs) < 1e-4);

    println!("FLoRA: {} parameters", attach(&mut model));
    assert_eq!(evaluated(&model), first);

    let labels = expected.get::<i64, Ix1>("labels").unwrap();
    let mut losses = Vec::new();
    for _ in 0..3 {
        // Without dropout, so that losses can be compared.
        let now = forward(&model, Mode::Evaluation).cross_entropy(&labels, CrossEntropy::default()).unwrap();
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
    let mut again = open(&folder.join("model"));
    attach(&mut again);
    tenfold::nn::Load::new().read(&mut again, &with_adapters).unwrap();
    assert_eq!(evaluated(&again), adapted);
    drop(again);

    peft::merge(&mut model).unwrap();
    let merged = evaluated(&model);
    println!("merged: {:.1e} of the largest away from adapted", away(&merged, &adapted));
    assert!(away(&merged, &adapted) < 1e-4);
    save(&model, &folder.join("merged"));
    TensorFile::new().with("logits", &merged).unwrap().save(folder.join("merged_logits.safetensors")).unwrap();
}

#[test]
fn loads_adapts_trains_saves_and_merges() {
    let Some((folder, expected)) = expected() else { return };
    if expected.names().any(|name| name == "ids") {
        let read = |name: &str| expected.get::<i64, Ix2>(name).unwrap().map(|x| x as u32).unwrap();
        let tokens = Tokens::new(read("ids"), read("types"), &read("mask")).unwrap();
        let attach = |model: &mut Deberta<f32>| {
            let flora = Flora::new().rank(8).scale(4.0);
            let linears = Targets::of(model.linears().iter().copied());
            let heads = Targets::of(model.head().iter().copied());
            Attach::new(&flora).to(linears).keep(heads).apply(model).unwrap().adapter_parameters()
        };
        return travels(
            (&folder, &expected),
            |path| Deberta::<f32>::open(path).unwrap(),
            |model, mode| model.forward(&tokens, mode).unwrap(),
            attach,
            |model, path| model.save(path).unwrap(),
        );
    }
    let images = Var::constant(expected.get::<f32, Ix4>("images").unwrap());
    let attach = |model: &mut ConvNext<f32>| {
        let flora = Flora::new().rank(8).kernel_rank(2).scale(4.0);
        let head = model.head();
        let attach = Attach::new(&flora).to(Targets::all().except(head)).keep(Targets::of([head]));
        attach.apply(model).unwrap().adapter_parameters()
    };
    travels(
        (&folder, &expected),
        |path| ConvNext::<f32>::open(path).unwrap(),
        |model, mode| model.forward(&images, mode).unwrap(),
        attach,
        |model, path| model.save(path).unwrap(),
    );
}
