//! On every layer, with every method: both paths give the same, finite differences agree, dropout falls on the
//! adapter's input.

use super::layers::{Any, Input, all, close, fill, normal, padding_of};
use tenfold::{
    ErrorKind, Result, Tensor,
    autodiff::{Var, check_gradients},
    nn::{Linear, Mode, Module},
    peft::{AdaLora, Attach, Dora, Flora, Lora, LoraForm, Method, Path},
};

/// Every method with a path and a probability of dropout.
fn methods(path: Path, dropout: f64) -> Vec<Box<dyn Method<f64>>> {
    let lora = Lora::new(2).alpha(3.0).path(path).dropout(dropout);
    vec![
        Box::new(Flora::new().rank(3).kernel_rank(2).scale(0.7).path(path).dropout(dropout)),
        Box::new(AdaLora::new(2).alpha(3.0).path(path).dropout(dropout)),
        Box::new(lora.clone()),
        Box::new(Dora::from(lora)),
    ]
}

/// The result and all gradients of an adapted layer.
fn run(layer: &Any, input: &Input, method: &dyn Method<f64>, mode: Mode) -> Result<Vec<(String, Tensor<f64>)>> {
    let mut layer = layer.clone();
    Attach::new(method).apply(&mut layer)?;
    let padding = padding_of(layer.layer());
    fill(layer.layer_mut(), padding, 11);
    let y = layer.forward(input, mode)?;
    let gradients = y.backward_from(normal(y.shape(), 5))?;
    layer.gradient_report(&gradients).check()?;
    let mut all = vec![("y".to_string(), y.value().clone())];
    for (name, parameter) in layer.parameters() {
        if parameter.trains() {
            all.push((name, gradients.of(parameter.var())?.clone()));
        }
    }
    if let Input::Numbers(x) = input {
        all.push(("x".into(), gradients.of(x)?.clone()));
    }
    Ok(all)
}

#[test]
fn both_paths_give_the_same() {
    let mut factored_paths = 0;
    for (name, layer, input) in all() {
        let input = match input {
            Input::Numbers(x) => Input::Numbers(Var::parameter(x.into_value())),
            ids => ids,
        };
        for (dropout, mode) in [(0.0, Mode::Evaluation), (0.0, Mode::training(1, 0)), (0.4, Mode::training(1, 0))] {
            let [auto, factored, merged] =
                [Path::Auto, Path::Factored, Path::Merged].map(|path| methods(path, dropout));
            for ((auto, factored), merged) in auto.iter().zip(&factored).zip(&merged) {
                let what = format!("{name}, {}, dropout {dropout}", merged.name());
                let expected = run(&layer, &input, &**merged, mode).unwrap();
                let same = |found: Vec<(String, Tensor<f64>)>| {
                    assert_eq!(found.len(), expected.len());
                    for ((part, a), (_, b)) in found.iter().zip(&expected) {
                        close(&format!("{what}: {part}"), a, b, 1e-12);
                    }
                };
                same(run(&layer, &input, &**auto, mode).unwrap());
                match run(&layer, &input, &**factored, mode) {
                    Ok(found) => {
                        same(found);
                        factored_paths += 1;
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Unsupported, "{what}: {error}");
                        assert!(["groups", "depthwise", "up groups"].contains(&name), "{what}: {error}");
                    }
                }
            }
        }
    }
    assert_eq!(factored_paths, 7 * 3 * 4);
}

#[test]
fn finite_differences_agree() {
    for (name, layer, input) in all() {
        let padding = padding_of(layer.layer());
        for path in [Path::Factored, Path::Merged] {
            // DoRA's norm counts as a constant, so differences are not its gradient.
            for method in &methods(path, 0.3)[..3] {
                let mut adapted = layer.clone();
                match Attach::new(&**method).apply(&mut adapted) {
                    Err(error) if error.kind() == ErrorKind::Unsupported => continue,
                    attached => attached.unwrap(),
                };
                fill(adapted.layer_mut(), padding, 11);
                let training = adapted.parameters().into_iter().filter(|(_, parameter)| parameter.trains());
                let values: Vec<Tensor<f64>> = training.map(|(_, parameter)| parameter.value().clone()).collect();
                check_gradients(&values, 1e-6, |v| {
                    let mut adapted = adapted.clone();
                    let training = adapted.parameters_mut().into_iter().filter(|(_, parameter)| parameter.trains());
                    for ((_, parameter), v) in training.zip(v) {
                        // A row of padding has no gradient by definition: let it stand still in the differences too.
                        *parameter = if padding.is_some() { without_zeros(v)? } else { v.clone() }.into();
                    }
                    adapted.forward(&input, Mode::training(1, 0))
                })
                .unwrap_or_else(|error| panic!("{name}, {path:?}, {}: {error}", method.name()));
            }
        }
    }
}

/// The same, constant where it is zero (or within the step of a difference of it).
fn without_zeros(v: &Var<f64>) -> Result<Var<f64>> {
    v.mul(&Var::constant(v.value().map(|x| if x.abs() < 1e-2 { 0.0 } else { 1.0 })?))
}

#[test]
fn loras_other_forms_have_their_gradients_too() {
    for (name, layer, input) in
        all().into_iter().filter(|(name, ..)| ["linear", "plane", "groups", "depthwise"].contains(name))
    {
        for form in [LoraForm::Kernel, LoraForm::Equation3] {
            let lora = Lora::new(2).form(form);
            let mut adapted = layer.clone();
            Attach::new(&lora).apply(&mut adapted).unwrap();
            fill(adapted.layer_mut(), None, 3);
            let y = adapted.forward(&input, Mode::Evaluation).unwrap();
            let merged = adapted.layer().effective_weight().unwrap();
            let mut plain = layer.clone();
            plain.layer_mut().weight_mut().set(merged.into_value()).unwrap();
            close(name, y.value(), plain.forward(&input, Mode::Evaluation).unwrap().value(), 1e-12);
            let gradients = y.sum().unwrap().backward().unwrap();
            adapted.gradient_report(&gradients).check().unwrap();
            let error = Attach::new(&lora.clone().path(Path::Factored)).apply(&mut layer.clone());
            assert_eq!(error.is_err(), name != "linear", "{name}");
        }
    }
    let line = all().into_iter().find(|(name, ..)| *name == "line").unwrap().1;
    let error = Attach::new(&Lora::new(2).form(LoraForm::Kernel)).plan(&line).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(
        error.message(),
        "layer \"layer\": the form Kernel needs a convolution with two spatial modes, and the weight has shape [4, 3, 3]; take \
         LoraForm::Channels, or except the layer"
    );
}

#[test]
fn dropout_is_drawn_for_each_layer_and_step() {
    let rng = &mut rand::SeedableRng::seed_from_u64(1);
    let mut layers: Vec<Linear<f64>> =
        (0..2).map(|_| Linear::<f64>::new(40, 3, rng as &mut rand_chacha::ChaCha8Rng).unwrap()).collect();
    Attach::new(&Flora::new().rank(2).dropout(0.5)).apply(&mut layers).unwrap();
    let other = layers[1].parameters()[2..].iter().map(|(_, p)| p.value().clone()).collect::<Vec<_>>();
    fill(&mut layers[0], None, 5);
    let values: Vec<Tensor<f64>> = layers[0].parameters().iter().map(|(_, p)| p.value().clone()).collect();
    assert!(other.iter().zip(&values[2..]).all(|(a, b)| a != b));
    for ((_, parameter), value) in layers[1].parameters_mut().into_iter().zip(values) {
        parameter.set(value).unwrap();
    }
    let x = Var::constant(normal(&[2, 40], 6));
    let y = |layer: usize, mode: Mode| layers[layer].forward(&x, mode).unwrap().into_value();
    assert_eq!(y(0, Mode::Evaluation), y(1, Mode::Evaluation));
    assert_eq!(y(0, Mode::training(1, 0)), y(0, Mode::training(1, 0)));
    assert_ne!(y(0, Mode::training(1, 0)), y(0, Mode::training(1, 1)));
    assert_ne!(y(0, Mode::training(1, 0)), y(1, Mode::training(1, 0)));
}

#[test]
fn dora_with_dropout_does_not_share_a_layer() {
    let (_, mut layer, input) = all().swap_remove(0);
    Attach::new(&Dora::from(Lora::new(2).dropout(0.1))).name("a").apply(&mut layer).unwrap();
    assert!(layer.forward(&input, Mode::training(1, 0)).is_ok());
    Attach::new(&Lora::new(2)).name("b").apply(&mut layer).unwrap();
    assert!(layer.forward(&input, Mode::Evaluation).is_ok());
    let error = layer.forward(&input, Mode::training(1, 0)).unwrap_err();
    assert_eq!((error.operation(), error.kind()), ("dora", ErrorKind::Unsupported));
}
