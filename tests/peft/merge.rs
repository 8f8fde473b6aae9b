//! Merging gives the same results and comes undone exactly; broken numbers are refused.

use super::layers::{Any, all, close, fill, normal, padding_of};
use std::collections::BTreeSet;
use tenfold::{
    Device, ErrorKind,
    nn::{Mode, Module, Parameter},
    peft::{self, Attach, Dora, Flora, Lora, Method, Path, Targets},
};

fn methods() -> [Box<dyn Method<f64>>; 3] {
    [Box::new(Flora::new().rank(3).scale(0.5)), Box::new(Lora::new(2)), Box::new(Dora::new(2))]
}

#[test]
fn merged_equals_unmerged_on_every_layer() {
    for (name, layer, input) in all() {
        for method in methods() {
            let what = format!("{name}, {}", method.name());
            let mut adapted = layer.clone();
            Attach::new(&*method).apply(&mut adapted).unwrap();
            fill(adapted.layer_mut(), padding_of(layer.layer()), 3);
            let before = adapted.forward(&input, Mode::Evaluation).unwrap();
            let names: Vec<String> = adapted.parameters().into_iter().map(|(name, _)| name).collect();
            let merged = peft::merge(&mut adapted).unwrap();
            assert!(merged.max_difference() > 0.1, "{what}: {merged}");
            let moved = adapted.layer().weight().value().sub(layer.layer().weight().value()).unwrap();
            assert_eq!(merged.differences().collect::<Vec<_>>(), [("layer", moved.max_abs().unwrap())]);
            assert!(adapted.layer().adapters().is_empty());
            close(&what, adapted.forward(&input, Mode::Evaluation).unwrap().value(), before.value(), 1e-12);
            let error = peft::merge(&mut adapted).unwrap_err();
            assert_eq!(error.message(), "no layer has an enabled adapter");

            merged.unmerge(&mut adapted).unwrap();
            assert_eq!(adapted.layer().weight().value(), layer.layer().weight().value(), "{what}");
            assert_eq!(adapted.forward(&input, Mode::Evaluation).unwrap().value(), before.value(), "{what}");
            assert_eq!(adapted.parameters().into_iter().map(|(name, _)| name).collect::<Vec<_>>(), names);
        }
    }
}

#[test]
fn several_are_merged_together_and_disabled_ones_wait() {
    let (_, mut layer, input) = all().swap_remove(0);
    for (method, name) in methods().iter().zip(["a", "b", "c"]) {
        Attach::new(&**method).name(name).apply(&mut layer).unwrap();
    }
    fill(layer.layer_mut(), None, 3);
    peft::disable(&mut layer, "b").unwrap();
    let weight = layer.layer().effective_weight().unwrap();
    let merged = peft::merge(&mut layer).unwrap();
    assert_eq!(layer.layer().weight().value(), weight.value());
    merged.unmerge(&mut layer).unwrap();
    let adapters = layer.layer().adapters();
    assert_eq!(adapters.names().map(|name| adapters.is_enabled(name)).collect::<Vec<_>>(), [true, false, true]);
    assert!(layer.forward(&input, Mode::Evaluation).is_ok());
}

#[test]
fn what_several_come_to_depends_on_neither_path_nor_order_nor_merging() {
    let (_, plain, input) = all().swap_remove(0);
    let (lora, dora) = (|path| Lora::new(2).path(path), |path| Dora::from(Lora::new(3).path(path)));
    let mut results = Vec::new();
    for path in [Path::Factored, Path::Merged] {
        let methods: [(&str, Box<dyn Method<f64>>); 2] = [("a", Box::new(lora(path))), ("b", Box::new(dora(path)))];
        for order in [[0, 1], [1, 0]] {
            let mut layer = plain.clone();
            let mut before = None;
            for (name, method) in order.map(|i| &methods[i]) {
                Attach::new(&**method).name(name).apply(&mut layer).unwrap();
                // It starts where the layer was with the others.
                let start = layer.forward(&input, Mode::Evaluation).unwrap();
                if let Some(before) = before {
                    close("start", start.value(), &before, 1e-12);
                }
                for (part, parameter) in layer.parameters_mut() {
                    if part.contains(&format!(".{name}.")) {
                        let seed = 3 + u64::from(part.contains("lora_B")) + 10 * u64::from(*name == "b");
                        parameter.set(normal(parameter.shape(), seed).map(|x| x.abs() + 0.1).unwrap()).unwrap();
                    }
                }
                before = Some(layer.forward(&input, Mode::Evaluation).unwrap().into_value());
            }
            let unmerged = layer.forward(&input, Mode::Evaluation).unwrap();
            peft::merge(&mut layer).unwrap();
            close("merged", layer.forward(&input, Mode::Evaluation).unwrap().value(), unmerged.value(), 1e-12);
            results.push(unmerged.into_value());
        }
    }
    results[1..].iter().for_each(|result| close("path and order", result, &results[0], 1e-12));
}

#[test]
fn layers_whose_adapters_are_all_disabled_are_left_without_them() {
    let mut layers: Vec<_> = all().into_iter().map(|(_, layer, _)| layer).take(2).collect();
    for (name, layer) in [("a", "0.layer"), ("b", "1.layer")] {
        Attach::new(&Lora::new(2)).to(Targets::of([layer])).name(name).apply(&mut layers).unwrap();
    }
    layers.iter_mut().for_each(|layer| fill(layer.layer_mut(), None, 3));
    peft::switch(&mut layers, "a").unwrap();
    let names = |layers: &Vec<Any>| layers.parameters().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let before = names(&layers);
    let merged = peft::merge(&mut layers).unwrap();
    assert_eq!(names(&layers), ["0.layer.weight", "0.layer.bias", "1.layer.weight"]);
    assert_eq!(merged.differences().map(|(name, _)| name).collect::<Vec<_>>(), ["0.layer"]);
    assert!(merged.to_string().starts_with("1 layers merged"), "{merged}");
    merged.unmerge(&mut layers).unwrap();
    assert_eq!(names(&layers), before);
    assert!(!layers[1].layer().adapters().is_enabled("b"));
}

#[test]
fn broken_numbers_are_refused_and_nothing_changes() {
    let mut layers: Vec<_> = all().into_iter().map(|(_, layer, _)| layer).take(3).collect();
    peft::attach(&mut layers, &Flora::new().rank(2), &peft::Targets::all()).unwrap();
    layers.iter_mut().for_each(|layer| fill(layer.layer_mut(), None, 3));
    let (_, core) = layers[1].parameters_mut().into_iter().find(|(name, _)| name.ends_with("core")).unwrap();
    core.value_mut().as_mut_slice().unwrap()[1] = f64::NAN;
    let weights =
        |layers: &[super::layers::Any]| layers.iter().map(|l| l.layer().weight().value().clone()).collect::<Vec<_>>();
    let before = weights(&layers);
    let error = peft::merge(&mut layers).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value);
    assert!(error.message().starts_with("the merged weight of layer \"1.layer\" would not be finite: "), "{error}");
    assert!(error.message().ends_with("; nothing was changed"), "{error}");
    assert!(layers.iter().all(|layer| layer.layer().adapters().len() == 1));
    assert_eq!(weights(&layers), before);
}

#[test]
fn another_model_is_not_unmerged() {
    let mut layers: Vec<_> = all().into_iter().map(|(_, layer, _)| layer).take(2).collect();
    peft::attach(&mut layers, &Lora::new(2), &peft::Targets::all()).unwrap();
    let merged = |layers: &mut Vec<_>| peft::merge(layers).unwrap();
    let mut other = layers.clone();
    let taken = merged(&mut other);
    other.pop();
    assert!(taken.unmerge(&mut other).unwrap_err().message().contains("has no layer \"1.layer\""));
    let mut other = layers.clone();
    let taken = merged(&mut other);
    peft::attach(&mut other, &Lora::new(2), &peft::Targets::all()).unwrap();
    assert!(taken.unmerge(&mut other).unwrap_err().message().contains("has adapters again"));
    let mut other = layers.clone();
    let taken = merged(&mut other);
    other.swap(0, 1);
    assert!(taken.unmerge(&mut other).unwrap_err().message().contains("had [5, 7] when it was merged"));
}

/// What was taken out goes to where the model is by then.
#[test]
fn a_model_that_was_moved_meanwhile_is_in_one_place() {
    let mut layers: Vec<_> = all().into_iter().map(|(_, layer, _)| layer).take(2).collect();
    peft::attach(&mut layers, &Lora::new(2), &Targets::all()).unwrap();
    let merged = peft::merge(&mut layers).unwrap();
    layers.to_device(&Device::cpu().threads(3)).unwrap();
    merged.unmerge(&mut layers).unwrap();
    let place = |(_, parameter): (String, &Parameter<f64>)| format!("{:?}", parameter.var().device());
    let places: BTreeSet<String> = layers.parameters().into_iter().map(place).collect();
    assert_eq!(places, BTreeSet::from(["cpu (3 threads)".to_string()]));
}
