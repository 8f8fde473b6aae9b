//! What adapters start as: the model's own weights exactly, whatever the start of the factors.

use super::layers::{Any, all, close, normal, padding_of};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tenfold::{
    ErrorKind, Tensor,
    autodiff::{Conv as ConvOptions, Var},
    decomp::Hosvd,
    nn::{Conv, Layer, Linear, Mode, Module},
    peft::{
        AdaLora, Attach, Dora, Flora, FloraInit, Lora, Method, Path, Ranks, Targets, WeightGradients, weight_gradients,
    },
};

const INITS: [FloraInit; 5] = [
    FloraInit::KaimingNormal,
    FloraInit::Normal,
    FloraInit::KaimingUniform,
    FloraInit::Orthonormal,
    FloraInit::WeightHosvd,
];

#[test]
fn every_start_is_exactly_the_model() {
    for (name, layer, input) in all() {
        for path in [Path::Auto, Path::Merged, Path::Factored] {
            let mut methods: Vec<Box<dyn Method<f64>>> =
                INITS.map(|init| Box::new(Flora::new().rank(4).init(init).path(path)) as Box<dyn Method<f64>>).into();
            methods.push(Box::new(Lora::new(2).path(path)));
            methods.push(Box::new(AdaLora::new(2).path(path)));
            methods.push(Box::new(Dora::from(Lora::new(2).path(path))));
            for method in methods {
                let mut adapted = layer.clone();
                match Attach::new(&*method).apply(&mut adapted) {
                    Err(error) if error.kind() == ErrorKind::Unsupported => continue,
                    attached => attached.unwrap(),
                };
                let y = adapted.forward(&input, Mode::training(1, 0)).unwrap();
                let plain = layer.forward(&input, Mode::training(1, 0)).unwrap();
                // DoRA adds the bias after it has scaled, which may round in another way.
                close(
                    &format!("{name}, {method:?}"),
                    y.value(),
                    plain.value(),
                    if method.name() == "dora" { 1e-15 } else { 0.0 },
                );
                assert_eq!(adapted.layer().effective_weight().unwrap().value(), layer.layer().weight().value());
                if method.name() != "flora" {
                    continue;
                }
                // At the first step only cores move.
                let gradients = y.backward_from(normal(y.shape(), 1)).unwrap();
                for (parameter, p) in adapted.parameters().into_iter().filter(|(_, p)| p.trains()) {
                    let largest = gradients.of(p.var()).unwrap().max_abs().unwrap();
                    assert_eq!(largest == 0.0, !parameter.ends_with("core"), "{name}: {parameter} has {largest}");
                }
            }
        }
    }
}

fn factor(layer: &dyn Layer<f64>, mode: usize) -> Tensor<f64> {
    let name = format!("default.factors.{mode}");
    layer.parameters().into_iter().find(|(n, _)| n.ends_with(&name)).unwrap().1.value().clone()
}

#[test]
fn factors_have_the_deviations_of_the_authors_code() {
    for (init, deviation, bound) in [
        (FloraInit::KaimingNormal, 1.0 / 20f64.sqrt(), f64::INFINITY),
        (FloraInit::Normal, 0.02, f64::INFINITY),
        (FloraInit::KaimingUniform, 1.0 / 30f64.sqrt(), 1.0 / 10f64.sqrt()),
    ] {
        let mut layer = Linear::<f64>::zeros(4000, 10).unwrap();
        Attach::new(&Flora::new().rank(10).init(init)).apply(&mut layer).unwrap();
        let factor = factor(&layer, 0);
        assert_eq!(factor.shape(), [4000, 10]);
        let found = factor.norm().unwrap() / 200.0;
        assert!((found / deviation - 1.0).abs() < 0.02, "{init:?}: {found}, not {deviation}");
        assert!(factor.max_abs().unwrap() <= bound);
    }
}

#[test]
fn a_layers_start_does_not_depend_on_its_neighbours() {
    let layers = || vec![Linear::<f64>::zeros(6, 5).unwrap(), Linear::zeros(6, 5).unwrap()];
    for init in [FloraInit::KaimingNormal, FloraInit::Orthonormal] {
        let flora = Flora::new().rank(2).init(init);
        let (mut both, mut one) = (layers(), layers());
        Attach::new(&flora).seed(3).apply(&mut both).unwrap();
        Attach::new(&flora).seed(3).to(Targets::of(["1"])).apply(&mut one).unwrap();
        assert_eq!(factor(&both[1], 0), factor(&one[1], 0));
        assert_ne!(factor(&both[0], 0), factor(&both[1], 0));
        let mut other = layers();
        Attach::new(&flora).seed(4).apply(&mut other).unwrap();
        assert_ne!(factor(&both[0], 0), factor(&other[0], 0));
    }
}

/// The projection on the columns.
fn projection(factor: &Tensor<f64>) -> Tensor<f64> {
    let factor = factor.clone().into_order::<ndarray::Ix2>().unwrap();
    factor.matmul(&factor.t()).unwrap().into_dyn()
}

#[test]
fn the_gradients_hosvd_gives_the_factors() {
    let rng = &mut ChaCha8Rng::seed_from_u64(2);
    let mut layer = Conv::<f64>::new([4, 6], &[3, 3], ConvOptions::new(), rng).unwrap();
    let x = Var::constant(normal(&[2, 6, 6, 4], 3));
    let loss = layer.forward(&x, Mode::Evaluation).unwrap().square().unwrap().sum().unwrap();
    let first = weight_gradients(&layer, &loss.backward().unwrap());
    assert_eq!(first.keys().collect::<Vec<_>>(), [""]);
    let flora = Flora::new().ranks_by(Ranks::Modes(vec![2, 3, 2, 5])).init(FloraInit::GradientHosvd);
    Attach::new(&flora).gradients(&first).apply(&mut layer).unwrap();
    let fit = Hosvd::ranks([3, 2, 2, 3]).fit(&first[""]).unwrap();
    for (mode, axis) in [(0, 1), (1, 0), (2, 2)] {
        let theirs = projection(&fit.factors()[axis].clone().into_dyn());
        close("projection", &projection(&factor(&layer, mode)), &theirs, 1e-9);
    }
    // A rank of 5 in a mode of size 3: three singular vectors, two more columns.
    let last = factor(&layer, 3);
    assert_eq!(last.shape(), [3, 5]);
    close("basis", &projection(&last.narrow(1, 0..3).unwrap()), &Tensor::eye(3).unwrap().into_dyn(), 1e-12);
    assert!(last.narrow(1, 3..5).unwrap().norm().unwrap() > 0.1);
}

#[test]
fn gradients_that_are_missing_or_wrong() {
    let flora = Flora::new().rank(2).init(FloraInit::GradientHosvd);
    let message = |gradients: &WeightGradients<f64>| {
        let mut layers = vec![Linear::<f64>::zeros(4, 3).unwrap()];
        let error = Attach::new(&flora).gradients(gradients).apply(&mut layers).unwrap_err();
        assert!(layers[0].adapters().is_empty() && layers.count().trainable == 15, "something was changed");
        error.message().to_string()
    };
    let none = WeightGradients::new();
    assert_eq!(message(&none), "there is no first gradient for layer \"0\"; give it with Attach::gradients");
    let of = |name: &str, value: Tensor<f64>| WeightGradients::from([(name.to_string(), value)]);
    assert!(message(&of("1", normal(&[3, 4], 1))).contains("\"1\", which is no layer of the model"));
    assert!(message(&of("0", normal(&[4, 3], 1))).contains("has shape [4, 3]; its weight has [3, 4]"));
    assert!(message(&of("0", Tensor::zeros(vec![3, 4]).unwrap())).contains("is zero and has no singular vectors"));
    let nan = normal(&[3, 4], 1).map(|x| if x < 0.0 { f64::NAN } else { x }).unwrap();
    assert!(message(&of("0", nan)).contains("NaN"));
}

#[test]
fn a_row_of_padding_stays_what_it_is() {
    let (_, layer, input) = all().into_iter().find(|(name, ..)| *name == "padded embedding").unwrap();
    let row = padding_of(layer.layer()).unwrap();
    for init in INITS {
        for path in [Path::Factored, Path::Merged] {
            let mut adapted = layer.clone();
            Attach::new(&Flora::new().rank(3).init(init).path(path)).apply(&mut adapted).unwrap();
            // A core that has moved, and steps along the gradient from there.
            let core = adapted.parameters_mut().into_iter().find(|(name, _)| name.ends_with("core")).unwrap().1;
            core.set(normal(&[3, 3], 1)).unwrap();
            for step in 0..3 {
                let y = adapted.forward(&input, Mode::training(1, step)).unwrap();
                let gradients = y.square().unwrap().sum().unwrap().backward().unwrap();
                for (_, parameter) in adapted.parameters_mut().into_iter().filter(|(_, p)| p.trains()) {
                    let moved = gradients.of(parameter.var()).unwrap().scale(-0.01).unwrap();
                    parameter.value_mut().add_assign(&moved).unwrap();
                }
            }
            let Any::Embedding(table) = &adapted else { unreachable!() };
            let weight = table.effective_weight().unwrap().into_value();
            assert_eq!(weight.index_mode(0, row).unwrap().max_abs().unwrap(), 0.0);
            assert_ne!(&weight, table.weight().value());
        }
    }
    // AdaLoRA's factors are not zero at the start either.
    let mut adapted = layer.clone();
    Attach::new(&AdaLora::new(2)).apply(&mut adapted).unwrap();
    for (name, parameter) in adapted.parameters_mut() {
        if name.ends_with("lora_E") {
            parameter.set(normal(&[3, 1], 1)).unwrap();
        }
    }
    let weight = adapted.layer().effective_weight().unwrap().into_value();
    assert_eq!(weight.index_mode(0, row).unwrap().max_abs().unwrap(), 0.0);
    assert_ne!(&weight, layer.layer().weight().value());
}
