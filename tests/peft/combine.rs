//! Weighted sums of adapters are the sums of their updates, whatever their ranks.

use super::layers::{all, close, fill, padding_of};
use tenfold::{
    ErrorKind,
    nn::{Layer, Linear, Module},
    peft::{self, AdaLora, Attach, Dora, Flora, Lora, LoraForm, Method, Ranks, Targets},
};

fn check(methods: &[Box<dyn Method<f64>>], only: &[&str]) {
    for (name, layer, _) in all().into_iter().filter(|(name, ..)| only.is_empty() || only.contains(name)) {
        let mut layer = layer;
        let weights = [0.75, -2.0, 0.3];
        let names = ["a", "b", "c"];
        for (method, name) in methods.iter().zip(names) {
            Attach::new(&**method).name(name).apply(&mut layer).unwrap();
        }
        let padding = padding_of(layer.layer());
        fill(layer.layer_mut(), padding, 7);
        let delta = |name: &str| layer.layer().adapters().get(name).unwrap().delta().unwrap().into_value();
        let parts: Vec<(&str, f64)> = names.into_iter().zip(weights).take(methods.len()).collect();
        let mut expected = delta("a").scale(0.0).unwrap();
        for &(part, weight) in &parts {
            expected.add_assign(&delta(part).scale(weight).unwrap()).unwrap();
        }
        assert_eq!(peft::combine(&mut layer, "sum", &parts).unwrap(), 1);
        let adapters = layer.layer().adapters();
        close(name, adapters.get("sum").unwrap().delta().unwrap().value(), &expected, 1e-12);
        let enabled: Vec<&str> = adapters.names().filter(|name| adapters.is_enabled(name)).collect();
        assert_eq!(enabled, ["sum"]);
        assert!(layer.parameters().iter().all(|(name, p)| p.trains() == name.contains("sum")));
    }
}

#[test]
fn sums_of_flora_with_different_ranks_and_scales() {
    check(
        &[
            Box::new(Flora::new().rank(2).kernel_rank(1).scale(0.5)),
            Box::new(Flora::new().rank(3).kernel_rank(2).scale(3.0)),
            Box::new(Flora::new().ranks_by(Ranks::Fraction(0.5))),
        ],
        &[],
    );
}

#[test]
fn sums_of_lora_with_different_ranks_and_scales() {
    check(&[Box::new(Lora::new(2).alpha(3.0)), Box::new(Lora::new(3)), Box::new(Lora::new(1))], &[]);
    for form in [LoraForm::Kernel, LoraForm::Equation3] {
        check(
            &[Box::new(Lora::new(2).alpha(3.0).form(form)), Box::new(Lora::new(1).form(form))],
            &["linear", "plane", "groups", "depthwise"],
        );
    }
}

#[test]
fn sums_of_adalora_are_lora() {
    check(&[Box::new(AdaLora::new(2).alpha(3.0)), Box::new(AdaLora::new(1)), Box::new(Lora::new(3))], &[]);
}

#[test]
fn what_has_no_factored_sum() {
    let (_, layer, _) = all().swap_remove(0);
    let refused = |a: &dyn Method<f64>, b: &dyn Method<f64>| {
        let mut layer = layer.clone();
        Attach::new(a).name("a").apply(&mut layer).unwrap();
        Attach::new(b).name("b").apply(&mut layer).unwrap();
        let error = peft::combine(&mut layer, "sum", &[("a", 1.0), ("b", 1.0)]).unwrap_err();
        assert_eq!(layer.layer().adapters().len(), 2);
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().ends_with("enable them together, or merge them into the weight"), "{error}");
    };
    refused(&Flora::new(), &Lora::new(2));
    refused(&Dora::new(2), &Dora::new(2));
    refused(&Dora::new(2), &AdaLora::new(2));

    let mut layer = layer.clone();
    Attach::new(&Lora::new(2)).name("a").apply(&mut layer).unwrap();
    let mut message =
        |name: &str, parts: &[(&str, f64)]| peft::combine(&mut layer, name, parts).unwrap_err().message().to_string();
    assert_eq!(message("sum", &[("a", 1.0), ("z", 1.0)]), "no layer has an adapter \"z\"");
    assert_eq!(message("a", &[("a", 1.0)]), "\"a\" is the name of an adapter of \"layer\"; take another, or detach it");
    assert_eq!(message("", &[("a", 1.0)]), "adapters need a name");
    assert_eq!(message("sum", &[]), "there are no adapters to add up");
    assert_eq!(message("sum", &[("a", f64::NAN)]), "the weight of \"a\" is NaN; it has to be finite");
}

/// The sum alone counts afterwards: an older adapter of its name, on a layer that has none of the parts, would count with it.
#[test]
fn a_name_that_is_taken_anywhere_is_not_new() {
    let mut layers = vec![Linear::<f64>::zeros(3, 3).unwrap(), Linear::zeros(3, 3).unwrap()];
    for (name, layer) in [("a", "0"), ("sum", "1")] {
        Attach::new(&Lora::new(2)).name(name).to(Targets::of([layer])).apply(&mut layers).unwrap();
    }
    let error = peft::combine(&mut layers, "sum", &[("a", 1.0)]).unwrap_err();
    assert_eq!(error.message(), "\"sum\" is the name of an adapter of \"1\"; take another, or detach it");
    assert_eq!(layers[0].adapters().len(), 1);
    assert!(layers[0].adapters().is_enabled("a"));
}
