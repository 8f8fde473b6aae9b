//! Every leaf that trains has a gradient, with every method; samples are dropped by the seed.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tenfold::{
    Tensor,
    autodiff::{CrossEntropy, Var},
    models::{CifarResNet, CifarResNetConfig, ConvNext, ConvNextConfig, EfficientNetLite, ImageClassifier},
    nn::{Mode, Module},
    peft::{self, Attach, BitFit, Dora, Flora, Full, Lora, Method, Probe, Targets},
};

use crate::reference::narrow;

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

fn small(version: &str) -> ConvNextConfig {
    let named = ConvNextConfig::named(&format!("{version}-tiny")).unwrap();
    ConvNextConfig { hidden_sizes: vec![8, 12, 16], depths: vec![1, 2, 1], num_labels: 3, ..named }
}

fn models() -> Vec<(&'static str, Box<dyn ImageClassifier<f64>>)> {
    let rng = &mut rng();
    vec![
        ("ConvNeXt", Box::new(ConvNext::new(small("convnext"), rng).unwrap())),
        ("ConvNeXt-V2", Box::new(ConvNext::new(small("convnextv2"), rng).unwrap())),
        ("EfficientNet-Lite", Box::new(EfficientNetLite::new(narrow(true), rng).unwrap())),
        ("ResNet", Box::new(CifarResNet::new(CifarResNetConfig { width: 4, blocks: 2, num_labels: 3 }, rng).unwrap())),
    ]
}

fn images() -> Var<f64> {
    Var::constant(Tensor::normal([3, 32, 36, 3], &mut rng()).unwrap())
}

fn labels() -> Tensor<u32, ndarray::Ix1> {
    Tensor::from(ndarray::array![0u32, 2, 1])
}

#[test]
fn every_leaf_that_trains_has_a_gradient_with_every_method() {
    let methods: [&dyn Method<f64>; 6] = [&Full, &Probe, &BitFit, &Flora::new().rank(2), &Lora::new(2), &Dora::new(2)];
    for method in methods {
        for (name, mut model) in models() {
            model.reset_classifier(3, &mut rng()).unwrap();
            let before = model.forward(&images(), Mode::Evaluation).unwrap();
            let head = model.head();
            let targets = Targets::all().except(head);
            Attach::new(method).to(targets).keep(Targets::of([head])).apply(&mut *model).unwrap();
            let after = model.forward(&images(), Mode::Evaluation).unwrap();
            assert!(after.value().sub(before.value()).unwrap().max_abs().unwrap() < 1e-12, "{name}");

            let logits = model.forward(&images(), Mode::training(1, 0)).unwrap();
            let gradients = logits.cross_entropy(&labels(), CrossEntropy::default()).unwrap().backward().unwrap();
            let report = model.gradient_report(&gradients);
            report.check().unwrap_or_else(|e| panic!("{name}, {method:?}: {e}"));
            let trains = model.parameters().into_iter().filter(|(_, parameter)| parameter.trains()).count();
            assert_eq!((report.with.len(), gradients.len()), (trains, trains), "{name}, {method:?}");
        }
    }
}

#[test]
fn adapters_merge_and_the_merged_model_is_the_same() {
    for (name, mut model) in models() {
        let flora = Flora::new().rank(2).scale(4.0);
        let attach = Attach::new(&flora).to(Targets::all().except(model.head()));
        attach.apply(&mut *model).unwrap();
        // Cores start at zero.
        let mut rng = rng();
        for (_, parameter) in model.parameters_mut() {
            if parameter.trains() {
                let start = Tensor::normal(parameter.shape().to_vec(), &mut rng).unwrap();
                parameter.set(start.map(|x: f64| 0.1 * x).unwrap()).unwrap();
            }
        }
        let adapted = model.forward(&images(), Mode::Evaluation).unwrap();
        peft::merge(&mut *model).unwrap();
        let merged = model.forward(&images(), Mode::Evaluation).unwrap();
        let away = merged.value().sub(adapted.value()).unwrap().max_abs().unwrap();
        assert!(away < 1e-10 * adapted.value().max_abs().unwrap().max(1.0), "{name}: {away:e}");
    }
}

#[test]
fn samples_are_dropped_by_the_seed_and_the_step_alone() {
    let config = ConvNextConfig { drop_path_rate: 0.5, ..small("convnextv2") };
    let mut model = ConvNext::<f64>::new(config, &mut rng()).unwrap();
    // Away from the start, where blocks do next to nothing.
    for (_, layer) in model.layers_mut() {
        let weight = layer.weight().value().map(|x| 10.0 * x).unwrap();
        layer.weight_mut().set(weight).unwrap();
    }
    let pass = |mode| model.forward(&images(), mode).unwrap().value().clone();
    assert_eq!(pass(Mode::training(7, 0)), pass(Mode::training(7, 0)));
    let passes = [pass(Mode::training(7, 0)), pass(Mode::training(7, 1)), pass(Mode::training(8, 0))];
    let evaluation = pass(Mode::Evaluation);
    assert_eq!(evaluation, pass(Mode::Evaluation));
    for (i, a) in passes.iter().enumerate() {
        assert_ne!(a, &evaluation);
        assert!(passes[..i].iter().all(|b| a != b));
    }
}

#[test]
fn any_size_of_image_that_is_large_enough() {
    let model = ConvNext::<f32>::new(small("convnextv2"), &mut rng()).unwrap();
    for (rows, columns) in [(16, 16), (17, 31), (40, 64)] {
        let x = Var::constant(Tensor::ones([1, rows, columns, 3]).unwrap());
        assert_eq!(model.forward(&x, Mode::Evaluation).unwrap().shape(), [1, 3]);
        let shapes: Vec<Vec<usize>> =
            model.features(&x, Mode::Evaluation).unwrap().iter().map(|x| x.shape().to_vec()).collect();
        let (r, c) = (rows / 4, columns / 4);
        assert_eq!(shapes, [[1, r, c, 8], [1, r / 2, c / 2, 12], [1, r / 4, c / 4, 16]]);
    }
    for shape in [[1, 15, 16, 3], [1, 16, 16, 4]] {
        let error = model.forward(&Var::constant(Tensor::ones(shape).unwrap()), Mode::Evaluation).unwrap_err();
        assert_eq!(error.kind(), tenfold::ErrorKind::Shape, "{error}");
    }
}
