//! Adapters and decompositions: what is lost is what is said, a fine-tuned model comes back, and what is seen is that of the dense update.

use super::layers::{Any, Dyn, all, close, fill, normal, padding_of};
use proptest::prelude::*;
use tenfold::{
    ErrorKind, Scalar, Tensor,
    autodiff::Var,
    decomp::{StHosvd, Tucker},
    module,
    nn::{Layer, Linear, Mode, Module, ResidualNorm, Sublayer},
    peft::{
        self, AdaLora, Attach, Bottleneck, Distil, Dora, Flora, FloraAdapter, Lora, LoraAdapter, LoraForm, Method,
        Path, Site, Targets, Truncation,
    },
};

fn adapted(layer: &Any, method: &dyn Method<f64>, seed: u64) -> Any {
    let mut layer = layer.clone();
    Attach::new(method).apply(&mut layer).unwrap();
    let padding = padding_of(layer.layer());
    fill(layer.layer_mut(), padding, seed);
    layer
}

fn delta(layer: &Any, name: &str) -> Dyn {
    layer.layer().adapters().get(name).unwrap().delta().unwrap().into_value()
}

fn ranks_of(layer: &Any, name: &str) -> Vec<usize> {
    let adapter = layer.layer().adapters().get(name).unwrap() as &dyn std::any::Any;
    match adapter.downcast_ref::<FloraAdapter<f64>>() {
        Some(flora) => flora.ranks().to_vec(),
        None => vec![adapter.downcast_ref::<LoraAdapter<f64>>().unwrap().rank()],
    }
}

/// A method, and the layers where it is defined; all where none are named.
type Somewhere = (Box<dyn Method<f64>>, &'static [&'static str]);

/// FLoRA everywhere, LoRA in every form where it is defined.
fn methods() -> Vec<Somewhere> {
    let planes: &[&str] = &["plane", "groups", "depthwise"];
    vec![
        (Box::new(Flora::new().rank(3).kernel_rank(2).scale(0.4)), &[]),
        (Box::new(Lora::new(3).alpha(2.0)), &[]),
        (Box::new(Lora::new(3).form(LoraForm::Kernel)), planes),
        (Box::new(Lora::new(3).form(LoraForm::Equation3)), planes),
    ]
}

fn cases() -> Vec<(String, Any, Box<dyn Method<f64>>)> {
    let mut cases = Vec::new();
    for (method, only) in methods() {
        for (name, layer, _) in all() {
            if only.is_empty() || only.contains(&name) {
                let again: Box<dyn Method<f64>> =
                    methods().into_iter().find(|(m, _)| m.name() == method.name()).unwrap().0;
                cases.push((format!("{} on {name}", method.name()), layer, again));
            }
        }
    }
    cases
}

#[test]
fn what_is_not_used_goes() {
    for (what, layer, method) in cases() {
        let mut layer = adapted(&layer, &*method, 11);
        // Twice the same directions.
        peft::combine(&mut layer, "sum", &[("default", 1.5), ("default", -0.25)]).unwrap();
        let (before, wide, needed) = (delta(&layer, "sum"), ranks_of(&layer, "sum"), ranks_of(&layer, "default"));
        let report = peft::compress(&mut layer, "sum", &Truncation::Tolerance(1e-9)).unwrap();
        let row = &report.rows[0];
        assert_eq!((report.rows.len(), &row.before, row.ranks.clone()), (1, &wide, ranks_of(&layer, "sum")), "{what}");
        assert!(row.ranks.iter().zip(&needed).all(|(now, needed)| now <= needed), "{what}: {row:?} of {needed:?}");
        assert!(row.lost <= 1e-9 && report.most_lost() == row.lost);
        let parameters = layer.layer().adapters().get("sum").unwrap().count();
        assert_eq!((report.parameters(), parameters.trainable), (parameters.total, parameters.total), "{what}");
        close(&what, &delta(&layer, "sum"), &before, 1e-8);
        // The others are as they were.
        assert_eq!(ranks_of(&layer, "default"), needed);
    }
}

#[test]
fn what_is_lost_is_what_is_said() {
    let wide = Flora::new().rank(64).kernel_rank(64);
    for (what, layer, method) in cases() {
        for truncation in [
            Truncation::Tolerance(0.1),
            Truncation::Tolerance(0.5),
            Truncation::Ranks(Flora::new().rank(1).kernel_rank(1)),
            Truncation::Ranks(wide.clone()),
        ] {
            let mut layer = adapted(&layer, &*method, 5);
            let before = delta(&layer, "default");
            let report = peft::compress(&mut layer, "default", &truncation).unwrap();
            let row = &report.rows[0];
            let lost = delta(&layer, "default").sub(&before).unwrap().norm().unwrap() / before.norm().unwrap();
            assert!((lost - row.lost).abs() < 1e-9, "{what}, {truncation:?}: {lost} and {}", row.lost);
            match &truncation {
                Truncation::Tolerance(tolerance) => assert!(row.lost <= *tolerance, "{what}: {}", row.lost),
                Truncation::Ranks(flora) if *flora == wide => assert!(row.lost < 1e-12, "{what}: {row:?}"),
                // One filter a channel is of rank 1 in loralib's form: nothing is lost.
                Truncation::Ranks(_) => {
                    let loses = row.lost > 1e-6 || what == "lora-k on depthwise";
                    assert!(row.ranks[0] == 1 && loses, "{what}: {row:?}");
                }
            }
        }
    }
}

/// Of a matrix it is the best of its rank (Eckart and Young), for both methods.
#[test]
fn the_best_matrix_of_a_rank() {
    for method in [&Lora::new(4) as &dyn Method<f64>, &Flora::new().rank(4).scale(0.3)] {
        let (_, layer, _) = all().swap_remove(0);
        let mut layer = adapted(&layer, method, 2);
        let values = delta(&layer, "default").into_order::<ndarray::Ix2>().unwrap().svd().unwrap().s.to_vec().unwrap();
        let report = peft::compress(&mut layer, "default", &Truncation::Ranks(Flora::new().rank(2))).unwrap();
        let tail = values[2..].iter().map(|s| s * s).sum::<f64>().sqrt();
        let norm = values.iter().map(|s| s * s).sum::<f64>().sqrt();
        assert!((report.rows[0].lost - tail / norm).abs() < 1e-9, "{:?}", report.rows[0]);
        assert_eq!(report.rows[0].before[0], 4);
        assert_eq!(report.rows[0].ranks[0], 2);
    }
}

#[test]
fn settings_stay() {
    let (_, layer, input) = all().swap_remove(0);
    for method in [
        &Lora::new(4).alpha(2.0).dropout(0.5).path(Path::Merged) as &dyn Method<f64>,
        &Flora::new().rank(4).scale(0.3).dropout(0.5).path(Path::Merged),
    ] {
        let mut layer = adapted(&layer, method, 2);
        peft::combine(&mut layer, "other", &[("default", 1.0)]).unwrap();
        peft::disable(&mut layer, "other").unwrap();
        peft::enable(&mut layer, "default").unwrap();
        layer.layer_mut().adapters_mut().get_mut("other").unwrap().freeze_all();
        layer.layer_mut().adapters_mut().get_mut("default").unwrap().unfreeze_all();
        let training = Mode::training(3, 1);
        let before = layer.forward(&input, training).unwrap().into_value();
        for name in ["default", "other"] {
            peft::compress(&mut layer, name, &Truncation::Tolerance(1e-10)).unwrap();
        }
        close("dropped alike", &layer.forward(&input, training).unwrap().into_value(), &before, 1e-9);
        let adapters = layer.layer().adapters();
        assert_eq!(adapters.names().collect::<Vec<_>>(), ["default", "other"]);
        assert!(adapters.is_enabled("default") && !adapters.is_enabled("other"));
        let trains = |name| adapters.get(name).unwrap().parameters().into_iter().all(|(_, p)| p.trains());
        assert!(trains("default") && !trains("other"));
    }
}

#[test]
fn what_of_an_adapter_trains_stays() {
    let (_, layer, _) = all().swap_remove(0);
    for (method, frozen) in [(&Flora::new().rank(3) as &dyn Method<f64>, "factors"), (&Lora::new(3), "lora_A")] {
        let mut layer = adapted(&layer, method, 2);
        layer.parameters_mut().into_iter().filter(|(name, _)| name.contains(frozen)).for_each(|(_, p)| p.freeze());
        let trains =
            |layer: &Any| layer.parameters().into_iter().map(|(name, p)| (name, p.trains())).collect::<Vec<_>>();
        let before = trains(&layer);
        peft::compress(&mut layer, "default", &Truncation::Tolerance(0.5)).unwrap();
        assert_eq!(trains(&layer), before);
        assert!(before.iter().any(|(name, trains)| *trains && !name.contains(frozen)));
    }
}

#[test]
fn an_update_of_zero_is_of_rank_one() {
    for (what, layer, method) in cases() {
        let mut layer = layer.clone();
        Attach::new(&*method).apply(&mut layer).unwrap();
        let report = peft::compress(&mut layer, "default", &Truncation::Tolerance(0.1)).unwrap();
        assert_eq!(report.rows[0].lost, 0.0, "{what}");
        assert_eq!(delta(&layer, "default").max_abs().unwrap(), 0.0, "{what}");
        let found = peft::updates(&layer, "default").unwrap();
        assert_eq!((found.rows[0].norm, found.rows[0].amplification), (0.0, None), "{what}");
    }
}

#[test]
fn what_cannot_be_compressed_is_left_alone() {
    let (_, layer, _) = all().swap_remove(0);
    let refused = |method: &dyn Method<f64>, spoil: &dyn Fn(&mut Any), name: &str, truncation: Truncation| {
        let mut layer = adapted(&layer, method, 2);
        spoil(&mut layer);
        let before: Vec<Dyn> = layer.parameters().into_iter().map(|(_, p)| p.value().clone()).collect();
        let error = peft::compress(&mut layer, name, &truncation).unwrap_err();
        let after: Vec<Dyn> = layer.parameters().into_iter().map(|(_, p)| p.value().clone()).collect();
        assert!(before.iter().zip(&after).all(|(a, b)| a.shape() == b.shape()));
        (error.kind(), error.message().to_string())
    };
    let nothing = |_: &mut Any| {};
    let tolerance = Truncation::Tolerance;
    let (kind, message) = refused(&Dora::new(2), &nothing, "default", tolerance(0.1));
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(message.starts_with("layer \"layer\": the adapter is neither FLoRA nor LoRA"), "{message}");
    let flora = Flora::new().rank(2);
    assert_eq!(refused(&flora, &nothing, "other", tolerance(0.1)).1, "no layer has an adapter \"other\"");
    for wrong in [0.0, 1.0, -1.0, f64::NAN, f64::INFINITY] {
        let (kind, message) = refused(&flora, &nothing, "default", tolerance(wrong));
        assert!(kind == ErrorKind::Value && message.contains("tolerance"), "{message}");
    }
    assert_eq!(refused(&flora, &nothing, "default", Truncation::Ranks(Flora::new().rank(0))).0, ErrorKind::Rank);
    let nan = |layer: &mut Any| {
        let mut parameters = layer.parameters_mut();
        parameters.last_mut().unwrap().1.value_mut().as_mut_slice().unwrap()[0] = f64::NAN;
    };
    for method in [&flora as &dyn Method<f64>, &Lora::new(2)] {
        assert_eq!(refused(method, &nan, "default", tolerance(0.1)).0, ErrorKind::Value);
    }
}

/// A layer whose weight moved along few directions, from the layer itself.
fn tuned(layer: &Any, seed: u64) -> Any {
    let mut tuned = adapted(layer, &Flora::new().rank(2).kernel_rank(1).scale(0.7), seed);
    peft::merge(&mut tuned).unwrap();
    tuned
}

#[test]
fn a_fine_tuned_layer_comes_back() {
    for (what, layer, _) in all() {
        let tuned = tuned(&layer, 9);
        let mut base = layer.clone();
        let report = Distil::new(Truncation::Tolerance(1e-9)).apply(&mut base, &tuned).unwrap();
        assert_eq!((report.truncated.rows.len(), report.left.len(), report.unchanged.len()), (1, 0, 0), "{what}");
        assert!(report.truncated.rows[0].ranks.iter().all(|rank| *rank <= 2), "{what}: {report}");
        let moved = tuned.layer().weight().value().sub(layer.layer().weight().value()).unwrap();
        close(what, &delta(&base, "default"), &moved, 1e-8);
        assert_eq!(base.layer().weight().value(), layer.layer().weight().value());
        let adapters = base.layer().adapters().get("default").unwrap().count();
        assert_eq!((base.count().trainable, adapters.trainable), (adapters.total, report.truncated.parameters()));
        // Other methods too: what DoRA has come to, as FLoRA.
        let dora = adapted(&layer, &Dora::new(2), 4);
        let mut base = layer.clone();
        Distil::new(Truncation::Tolerance(1e-9)).name("from dora").apply(&mut base, &dora).unwrap();
        let (ours, theirs) = [&base, &dora].map(|model| model.layer().effective_weight().unwrap().into_value()).into();
        close(what, &ours, &theirs, 1e-7);
    }
}

#[test]
fn adapters_that_the_base_has_count_too() {
    for (what, layer, _) in all() {
        let mut base = layer.clone();
        Attach::new(&Lora::new(2)).name("old").apply(&mut base).unwrap();
        fill(base.layer_mut(), padding_of(layer.layer()), 3);
        let tuned = adapted(&base, &Flora::new().rank(2), 7);
        Distil::new(Truncation::Tolerance(1e-10)).apply(&mut base, &tuned).unwrap();
        let [ours, theirs] = [&base, &tuned].map(|model| model.layer().effective_weight().unwrap().into_value());
        close(what, &ours, &theirs, 1e-8);
    }
}

#[test]
fn adapters_that_do_not_go_over_are_said() {
    let linear = |seed| Linear::<f64>::from_tensors(normal(&[4, 4], seed).into_order().unwrap(), None).unwrap();
    let (mut base, mut tuned) = (vec![linear(1), linear(2)], vec![linear(3), linear(2)]);
    Attach::new(&Lora::new(2)).to(Targets::of(["1"])).apply(&mut tuned).unwrap();
    fill(&mut tuned[1], None, 3);
    let change = tuned[1].effective_weight().unwrap().value().sub(base[1].weight().value()).unwrap();
    let distil = Distil::new(Truncation::Tolerance(0.1)).to(Targets::of(["0"]));
    let error = distil.clone().keep(Targets::of(["1"])).apply(&mut base, &tuned).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().starts_with("\"1.weight\" is kept, and an adapter changes it"), "{error}");
    assert!(base[0].adapters().is_empty());
    let report = distil.apply(&mut base, &tuned).unwrap();
    assert_eq!(report.left, [("1.weight".to_string(), change.max_abs().unwrap())]);
}

#[test]
fn bottlenecks_are_not_distilled() {
    struct Half<T: Scalar> {
        dense: Linear<T>,
        norm: ResidualNorm<T>,
    }
    module!(Half { dense, norm => "LayerNorm" });
    let half = |seed| Half::<f64> {
        dense: Linear::from_tensors(normal(&[4, 4], seed).into_order().unwrap(), None).unwrap(),
        norm: ResidualNorm::new(4, 1e-5, Sublayer::Attention).unwrap(),
    };
    let (mut base, mut tuned) = (half(1), half(2));
    peft::attach(&mut tuned, &Bottleneck::houlsby(2), &Targets::all()).unwrap();
    let distil = Distil::new(Truncation::Tolerance(0.1));
    let error = distil.apply(&mut base, &tuned).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().starts_with("layer \"LayerNorm\" of the fine-tuned model: a bottleneck is"), "{error}");
    assert!(base.dense.adapters().is_empty());
    peft::disable(&mut tuned, "default").unwrap();
    let mut with_one = half(1);
    peft::attach(&mut with_one, &Bottleneck::houlsby(2), &Targets::all()).unwrap();
    let error = distil.clone().name("again").apply(&mut with_one, &tuned).unwrap_err();
    assert!(error.message().starts_with("layer \"LayerNorm\" of the model: a bottleneck is"), "{error}");
    distil.apply(&mut base, &tuned).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The tolerance holds for any difference, and the factors are those of the crate's ST-HOSVD.
    #[test]
    fn a_tolerance_is_a_guarantee(which in 0usize..10, seed in 0u64..1000, tolerance in 0.01f64..0.9) {
        let (what, layer, _) = all().swap_remove(which);
        let mut moved = layer.clone();
        let difference = normal(layer.layer().weight().shape(), seed);
        let weight = layer.layer().weight().value().add(&difference).unwrap();
        moved.layer_mut().weight_mut().set(weight).unwrap();
        let mut base = layer.clone();
        let report = Distil::new(Truncation::Tolerance(tolerance)).apply(&mut base, &moved).unwrap();
        let lost = delta(&base, "default").sub(&difference).unwrap().norm().unwrap() / difference.norm().unwrap();
        prop_assert!(lost <= tolerance * (1.0 + 1e-9) && (lost - report.truncated.rows[0].lost).abs() < 1e-8, "{what}: {lost}");
        let site = Site::of_layer("layer", layer.layer()).unwrap();
        let fit = StHosvd::tolerance(tolerance).fit(&difference.permute(&site.axes()).unwrap()).unwrap();
        prop_assert_eq!(fit.ranks(), &report.truncated.rows[0].ranks[..]);
    }
}

#[test]
fn what_goes_over_and_what_does_not() {
    let linear = |seed| {
        let bias = normal(&[4], seed + 10).into_order().unwrap();
        Linear::<f64>::from_tensors(normal(&[4, 4], seed).into_order().unwrap(), Some(bias)).unwrap()
    };
    let model = || vec![linear(1), linear(2), linear(3)];
    let mut tuned = model();
    let set = |layer: &mut Linear<f64>, seed| layer.weight_mut().set(normal(&[4, 4], seed)).unwrap();
    set(&mut tuned[0], 20);
    set(&mut tuned[2], 21);
    tuned[0].bias_mut().unwrap().set(normal(&[4], 22)).unwrap();
    let mut base = model();
    let distil = Distil::new(Truncation::Ranks(Flora::new().rank(2))).to(Targets::all().except("2"));
    let report = distil.clone().keep(Targets::of(["2"])).apply(&mut base, &tuned).unwrap();
    assert_eq!(report.truncated.rows[0].ranks, [2, 2]);
    assert_eq!(
        (&report.unchanged[..], &report.kept[..]),
        (&["1".to_string()][..], &["2.bias".to_string(), "2.weight".into()][..])
    );
    assert_eq!(report.left.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["0.bias"]);
    assert!(report.to_string().contains("not taken over, though it moved by"), "{report}");
    assert_eq!(base[2].weight().value(), tuned[2].weight().value());
    let training: Vec<String> =
        base.parameters().into_iter().filter(|(_, p)| p.trains()).map(|(name, _)| name).collect();
    assert!(training.iter().all(|name| name.starts_with("0.default.") || name.starts_with("2.")), "{training:?}");
    // What is taken over whole is not adapted besides, whether it is excepted or not.
    let mut same = model();
    let all = Distil::new(Truncation::Ranks(Flora::new().rank(2))).keep(Targets::of(["2"]));
    assert_eq!(all.apply(&mut same, &tuned).unwrap(), report);
    assert!(same[2].adapters().is_empty() && same[2].weight().value() == tuned[2].weight().value());
    // It is saved like any other.
    let folder = tempfile::tempdir().unwrap();
    peft::save(&base, folder.path()).unwrap();
    let mut again = model();
    peft::load(&mut again, folder.path()).unwrap();
    let x = Var::constant(normal(&[2, 4], 30));
    let pass = |model: &[Linear<f64>]| {
        model.iter().fold(x.clone(), |x, layer| layer.forward(&x, Mode::Evaluation).unwrap()).into_value()
    };
    assert_eq!(pass(&again), pass(&base));

    let refused = |distil: &Distil, base: &mut Vec<Linear<f64>>, tuned: &Vec<Linear<f64>>| {
        let before = base.count();
        let error = distil.apply(base, tuned).unwrap_err();
        assert_eq!(base.count(), before);
        error.message().to_string()
    };
    assert!(refused(&distil, &mut base, &tuned).contains("\"default\" is the name of an adapter of"));
    let mut fresh = model();
    let all = Distil::new(Truncation::Tolerance(0.1));
    assert!(refused(&all, &mut fresh, &model()).contains("no weight differs"));
    let short = vec![linear(1)];
    let message = refused(&all, &mut fresh, &short);
    assert!(message.contains("lacks \"1.weight\", \"1.bias\"") || message.contains("\"2.weight\""), "{message}");
    let wide = vec![linear(1), Linear::zeros(5, 4).unwrap(), linear(3)];
    assert_eq!(refused(&all, &mut fresh, &wide), "\"1.weight\" has shape [4, 4], and [4, 5] fine-tuned");
    let mut spoilt = tuned.clone();
    spoilt[0].weight_mut().set(Tensor::full([4, 4], f64::NAN).unwrap().into_dyn()).unwrap();
    assert!(refused(&all, &mut fresh, &spoilt).contains("the difference at layer \"0\" is not finite"));
    assert!(refused(&all.clone().to(Targets::of(["7"])), &mut fresh, &tuned).contains("\"7\" matches nothing"));
    assert!(refused(&Distil::new(Truncation::Tolerance(2.0)), &mut fresh, &tuned).contains("tolerance 2"));
}

/// By the dense update: singular values of its unfoldings, and the factor by its definition.
#[test]
fn what_is_seen_is_that_of_the_dense_update() {
    let ours = all().into_iter().map(|(name, layer, _)| -> (String, Any, Box<dyn Method<f64>>) {
        (format!("adalora on {name}"), layer, Box::new(AdaLora::new(2).alpha(5.0)))
    });
    for (what, layer, method) in cases().into_iter().chain(ours) {
        let adapted = adapted(&layer, &*method, 3);
        let site = Site::of_layer("layer", adapted.layer()).unwrap();
        let weight = adapted.layer().weight().value();
        let dense = delta(&adapted, "default");
        let found = peft::updates(&adapted, "default").unwrap();
        let row = &found.rows[0];
        let norm = dense.norm().unwrap();
        assert!((row.norm - norm).abs() < 1e-10 * norm, "{what}");
        assert!((row.relative - norm / weight.norm().unwrap()).abs() < 1e-10 * row.relative, "{what}");
        if row.singular_values.is_empty() {
            assert!(what.starts_with("lora-") && row.amplification.is_none() && row.ranks(0.1).is_empty(), "{what}");
            continue;
        }
        let dense = dense.permute(&site.axes()).unwrap();
        let mut bases = Vec::new();
        for (mode, values) in row.singular_values.iter().enumerate() {
            let svd = dense.unfold(mode).unwrap().svd().unwrap();
            let theirs = svd.s.to_vec().unwrap();
            let shared = values.len().min(theirs.len());
            let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-6 * theirs[0];
            assert!(values[..shared].iter().zip(&theirs).all(close), "{what}: {values:?} and {theirs:?}");
            assert!(theirs[shared..].iter().all(|value| *value < 1e-6 * theirs[0]), "{what}");
            let rank = theirs.iter().filter(|value| **value > 1e-6 * theirs[0]).count();
            bases.push(svd.u.narrow(1, 0..rank).unwrap());
        }
        let seen = Tucker::project(&weight.permute(&site.axes()).unwrap(), bases).unwrap().core().norm().unwrap();
        let factor = row.amplification.unwrap();
        assert!((factor - norm / seen).abs() < 1e-8 * factor, "{what}: {factor} and {}", norm / seen);
        assert_eq!((found.mean_norm(), found.mean_amplification()), (row.norm, row.amplification));
        // Ranks for a tolerance are those with which HOSVD's modes lose no more, each by itself.
        for tolerance in [0.0, 0.1, 0.5] {
            for (mode, rank) in row.ranks(tolerance).into_iter().enumerate() {
                let tail = |from: usize| row.singular_values[mode][from..].iter().map(|s| s * s).sum::<f64>().sqrt();
                assert!(tail(rank) <= tolerance * norm && (rank == 1 || tail(rank - 1) > tolerance * norm), "{what}");
            }
        }
        assert_eq!(found.to_string().lines().count(), 2);
    }
    // DoRA's has no factored form: how far it moved is all.
    let (_, layer, _) = all().swap_remove(0);
    let dora = adapted(&layer, &Dora::new(2), 3);
    let found = peft::updates(&dora, "default").unwrap();
    let moved = dora.layer().effective_weight().unwrap().value().sub(dora.layer().weight().value()).unwrap();
    assert!((found.rows[0].norm - moved.norm().unwrap()).abs() < 1e-12 && found.rows[0].singular_values.is_empty());
    assert_eq!(peft::updates(&dora, "x").unwrap_err().message(), "no layer has an adapter \"x\"");
}
