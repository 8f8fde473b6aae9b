//! AdaLoRA beside PEFT over the steps of a run, pruning, files of what is left, and settings that make no sense.

use super::{
    folders::{CONFIG, TENSORS, folder},
    layers::{Dyn, all, close, fill, normal, padding_of},
    support::torch::assert_close,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::fs;
use tenfold::{
    ErrorKind, Result, Tensor, TensorFile,
    autodiff::{Conv as ConvOptions, Scaled, Var, check_gradients},
    nn::{Conv, Linear, Mode, Module},
    peft::{self, AdaLora, AdaLoraAdapter, Attach, Lora, RankAllocator, Scaling, Targets},
};

struct Several {
    conv: Conv<f64>,
    up: Linear<f64>,
    down: Linear<f64>,
}

impl Module<f64> for Several {
    fn visit<'a>(&'a self, visitor: &mut tenfold::nn::Visitor<'_, 'a, f64>) {
        visitor.part("conv", &self.conv);
        visitor.part("up", &self.up);
        visitor.part("down", &self.down);
    }

    fn visit_mut<'a>(&'a mut self, visitor: &mut tenfold::nn::VisitorMut<'_, 'a, f64>) {
        visitor.part("conv", &mut self.conv);
        visitor.part("up", &mut self.up);
        visitor.part("down", &mut self.down);
    }
}

impl Several {
    /// With other numbers than those of the fixture.
    fn new() -> Self {
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        Self {
            conv: Conv::new([3, 4], &[2, 2], ConvOptions::new(), rng).unwrap(),
            up: Linear::new(4, 6, rng).unwrap(),
            down: Linear::new(6, 2, rng).unwrap(),
        }
    }

    fn of(file: &TensorFile) -> Self {
        let mut model = Self::new();
        for (name, parameter) in model.parameters_mut() {
            let (layer, part) = name.split_once('.').unwrap();
            parameter.set(file.get::<f64, ndarray::IxDyn>(&format!("run.{}.{layer}", &part[..1])).unwrap()).unwrap();
        }
        model
    }

    fn forward(&self, x: &Var<f64>) -> Result<Var<f64>> {
        let mode = Mode::Evaluation;
        let h = self.up.forward(&self.conv.forward(x, mode)?.mean_modes(&[1, 2], false)?, mode)?.gelu()?;
        self.down.forward(&h, mode)
    }

    fn loss(&self, x: &Dyn, target: &Dyn) -> Result<Var<f64>> {
        self.forward(&Var::constant(x.clone()))?.mse_loss(&Var::constant(target.clone()))
    }

    /// The gradients for inputs that are always the same.
    fn gradients(&self) -> Scaled<f64> {
        self.loss(&normal(&[5, 4, 3, 3], 2), &normal(&[5, 2], 3)).unwrap().backward().unwrap().into()
    }

    fn outputs(&self) -> Dyn {
        self.forward(&Var::constant(normal(&[5, 4, 3, 3], 2))).unwrap().into_value()
    }

    fn left(&self) -> Vec<usize> {
        peft::ranks_left(self).unwrap().into_iter().map(|(_, rank)| rank).collect()
    }
}

fn fixture() -> TensorFile {
    TensorFile::open(format!("{}/tests/fixtures/torch/adalora.safetensors", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Puts numbers of the fixture into the parameters of the adapters.
fn put(model: &mut Several, file: &TensorFile, before: &str) {
    for (name, parameter) in model.parameters_mut() {
        if let Some((layer, part)) = name.split_once(".default.") {
            let value: Dyn = file.get(&format!("{before}.{layer}.{part}")).unwrap();
            parameter.set(value.reshape(parameter.shape()).unwrap()).unwrap();
        }
    }
}

fn buffer(model: &Several, name: &str) -> Dyn {
    model.buffers().into_iter().find(|(other, _)| other == name).unwrap().1.value()
}

#[test]
fn a_run_is_that_of_peft() {
    let file = fixture();
    let settings = file.get::<f64, ndarray::IxDyn>("run.settings").unwrap().to_vec().unwrap();
    let [target, initial, tinit, tfinal, every, total, alpha, beta1, beta2] = settings[..] else { panic!() };
    let adalora = AdaLora::new(target as usize)
        .initial_rank(initial as usize)
        .warmup(tinit as u64)
        .settle(tfinal as u64)
        .every(every as u64)
        .alpha(alpha)
        .beta1(beta1)
        .beta2(beta2);
    let mut model = Several::of(&file);
    peft::attach(&mut model, &adalora, &Targets::all()).unwrap();
    let (x, y): (Dyn, Dyn) = (file.get("run.x").unwrap(), file.get("run.target").unwrap());
    let budget = file.get::<f64, ndarray::IxDyn>("run.budget").unwrap().to_vec().unwrap();
    let mut allocator = adalora.allocator().unwrap();
    let mut choices = 0;
    for step in 0..total as u64 {
        put(&mut model, &file, &format!("run.{step}"));
        let gradients = model.loss(&x, &y).unwrap().backward().unwrap().into();
        allocator.before_step(&model, &gradients, step, total as u64).unwrap();
        allocator.after_step(&mut model, step, total as u64).unwrap();
        for layer in ["conv", "up", "down"] {
            for part in ["lora_A", "lora_B", "lora_E"] {
                for known in ["mean", "uncertainty"] {
                    let ours = buffer(&model, &format!("{layer}.default.importance.{part}.{known}"));
                    let name = format!("run.{step}.{layer}.{part}.{known}");
                    let theirs: Dyn = file.get(&name).unwrap();
                    assert_close(&name, &ours, &theirs.reshape(ours.shape()).unwrap(), 1e-12);
                }
            }
            let values =
                model.parameters().into_iter().find(|(n, _)| *n == format!("{layer}.default.lora_E")).unwrap().1;
            let name = format!("run.{step}.{layer}.values");
            assert_close(&name, values.value(), &file.get(&name).unwrap(), 0.0);
            if file.contains(&format!("run.{step}.{layer}.kept")) {
                let mask = buffer(&model, &format!("{layer}.default.mask"));
                let kept: Dyn = file.get(&format!("run.{step}.{layer}.kept")).unwrap();
                assert_eq!(mask.to_vec().unwrap(), kept.to_vec().unwrap(), "step {step}, {layer}");
                choices += 1;
            }
        }
        if file.contains(&format!("run.{step}.up.kept")) {
            assert_eq!(model.left().iter().sum::<usize>(), budget[step as usize] as usize);
        }
    }
    assert_eq!(choices, 4 * 3);
}

#[test]
fn the_penalty_is_that_of_peft() {
    let file = fixture();
    let mut model = Several::of(&file);
    let adalora = AdaLora::new(2).initial_rank(4).orthogonality(0.25);
    assert!(peft::orthogonality(&model).unwrap().is_none());
    peft::attach(&mut model, &adalora, &Targets::all()).unwrap();
    put(&mut model, &file, "run.0");
    let penalty = peft::orthogonality(&model).unwrap().unwrap();
    let theirs: Dyn = file.get("penalty.value").unwrap();
    assert!((penalty.item().unwrap() / theirs.to_vec().unwrap()[0] - 1.0).abs() < 1e-13);
    assert_eq!(adalora.penalty(&model).unwrap().unwrap().item().unwrap(), 0.25 * penalty.item().unwrap());
    assert!(adalora.clone().orthogonality(0.0).penalty(&model).unwrap().is_none());
    let gradients = penalty.backward().unwrap();
    for (name, parameter) in model.parameters() {
        let Some((layer, part)) = name.split_once(".default.") else { continue };
        let Some(gradient) = gradients.get(parameter.var()) else {
            assert_eq!(part, "lora_E");
            continue;
        };
        let theirs: Dyn = file.get(&format!("penalty.{layer}.{part}")).unwrap();
        assert_close(&name, gradient, &theirs.reshape(gradient.shape()).unwrap(), 1e-12);
    }
    // Adapters that do not train, or do not count, have no part in it.
    peft::disable(&mut model, "default").unwrap();
    assert!(peft::orthogonality(&model).unwrap().is_none());
}

#[test]
fn the_penalty_has_its_gradient_on_every_layer() {
    for (name, layer, _) in all() {
        let mut layer = layer;
        Attach::new(&AdaLora::new(2)).apply(&mut layer).unwrap();
        fill(layer.layer_mut(), None, 9);
        let training = layer.parameters().into_iter().filter(|(name, p)| p.trains() && !name.ends_with("lora_E"));
        let values: Vec<Tensor<f64>> = training.map(|(_, parameter)| parameter.value().clone()).collect();
        check_gradients(&values, 1e-6, |v| {
            let mut layer = layer.clone();
            let training =
                layer.parameters_mut().into_iter().filter(|(name, p)| p.trains() && !name.ends_with("lora_E"));
            training.zip(v).for_each(|((_, parameter), v)| *parameter = v.clone().into());
            Ok(peft::orthogonality(&layer)?.unwrap())
        })
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn the_penalty_of_orthonormal_factors_has_gradient_zero() {
    for scale in [1.0f32, 0.0] {
        let mut layer = Linear::<f32>::zeros(3, 3).unwrap();
        peft::attach(&mut layer, &AdaLora::new(3).initial_rank(3), &Targets::all()).unwrap();
        for (_, parameter) in layer.parameters_mut().into_iter().filter(|(_, p)| p.shape() == [3, 3] && p.trains()) {
            parameter.set(Tensor::eye(3).unwrap().scale(scale).unwrap()).unwrap();
        }
        let penalty = peft::orthogonality(&layer).unwrap().unwrap();
        assert!((penalty.item().unwrap() - if scale == 0.0 { 3f32.sqrt() } else { 0.0 }).abs() < 1e-6);
        let gradients = penalty.backward().unwrap();
        assert!(gradients.iter().all(|gradient| gradient.max_abs().unwrap() == 0.0));
    }
}

/// A model that was trained for so long that its budget is used up, without an optimiser: only the allocator changes it.
fn pruned(adalora: &AdaLora) -> (Several, RankAllocator<f64>) {
    let mut model = Several::new();
    peft::attach(&mut model, adalora, &Targets::all()).unwrap();
    [&mut model.conv as &mut dyn tenfold::nn::Layer<f64>, &mut model.up, &mut model.down]
        .into_iter()
        .enumerate()
        .for_each(|(i, layer)| fill(layer, None, 20 * i as u64));
    // The last layer matters least.
    for (name, parameter) in model.parameters_mut() {
        if name.starts_with("down.default") {
            let small = parameter.value().scale(1e-4).unwrap();
            parameter.set(small).unwrap();
        }
    }
    let mut allocator = adalora.allocator().unwrap();
    for step in 1..=6 {
        allocator.before_step(&model, &model.gradients(), step, 6).unwrap();
        allocator.after_step(&mut model, step, 6).unwrap();
    }
    (model, allocator)
}

#[test]
fn what_was_pruned_is_left_out_of_files_and_the_function_stays() {
    let adalora = AdaLora::new(2).initial_rank(4).alpha(6.0).warmup(1).settle(2).dropout(0.1);
    let (mut model, mut allocator) = pruned(&adalora);
    let left = model.left();
    assert_eq!((left.iter().sum::<usize>(), left[2]), (2 * 3, 0), "{left:?}");
    // The choice is final: what moves again is set back.
    for (name, parameter) in model.parameters_mut() {
        if name.ends_with("lora_E") {
            parameter.value_mut().as_mut_slice().unwrap().iter_mut().for_each(|x| *x += 0.5);
        }
    }
    allocator.before_step(&model, &model.gradients(), 6, 6).unwrap();
    allocator.after_step(&mut model, 6, 6).unwrap();
    assert_eq!(model.left(), left);

    // All parameters still count; a file has what is left.
    assert_eq!(model.count().trainable, 4 * (16 + 1) + 4 * (10 + 1) + 4 * (8 + 1));
    let (_guard, path) = folder();
    peft::save(&model, &path).unwrap();
    let file = TensorFile::open(path.join(TENSORS)).unwrap();
    for (layer, rank) in peft::ranks_left(&model).unwrap() {
        assert_eq!(file.shape(&format!("base_model.model.{layer}.lora_E")).unwrap(), [rank, 1]);
    }
    let mut again = Several::new();
    let loaded = peft::load(&mut again, &path).unwrap();
    assert_eq!((loaded.layers.len(), loaded.own.len()), (3, 0));
    assert_eq!(again.left(), left);
    close("loaded", &again.outputs(), &model.outputs(), 1e-13);
    let values: usize = left.iter().zip([16, 10, 8]).map(|(rank, size)| rank * (size + 1)).sum();
    assert_eq!(again.count().trainable, values);
    // Once more, the same files.
    let (_other, twice) = folder();
    peft::save(&again, &twice).unwrap();
    for name in [TENSORS, CONFIG] {
        assert_eq!(fs::read(path.join(name)).unwrap(), fs::read(twice.join(name)).unwrap(), "{name}");
    }

    // As LoRA, summed, merged, switched off and on: the same updates.
    let before = again.outputs();
    let adapter = |model: &Several| {
        let adapter = tenfold::nn::Layer::adapters(&model.up).get("default").unwrap();
        (adapter as &dyn std::any::Any).downcast_ref::<AdaLoraAdapter<f64>>().unwrap().clone()
    };
    assert_eq!((adapter(&again).rank(), adapter(&again).initial_rank(), adapter(&model).rank()), (left[1], 4, 4));
    assert_eq!(adapter(&model).to_lora().unwrap().rank(), left[1]);
    for mut model in [model, again] {
        peft::disable(&mut model, "default").unwrap();
        close("disabled", &model.outputs(), &Several::new().outputs(), 0.0);
        peft::enable(&mut model, "default").unwrap();
        assert_eq!(peft::combine(&mut model, "half", &[("default", 0.5), ("default", 0.5)]).unwrap(), 3);
        close("combined", &model.outputs(), &before, 1e-13);
        peft::detach(&mut model, "half").unwrap();
        peft::switch(&mut model, "default").unwrap();
        let merged = peft::merge(&mut model).unwrap();
        close("merged", &model.outputs(), &before, 1e-13);
        merged.unmerge(&mut model).unwrap();
        // It trains on, the layer without triplets among the rest.
        let gradients = model.loss(&normal(&[5, 4, 3, 3], 2), &normal(&[5, 2], 3)).unwrap().backward().unwrap();
        model.gradient_report(&gradients).check().unwrap();
    }
}

#[test]
fn pruned_triplets_come_back_between_choices() {
    let adalora = AdaLora::new(1).initial_rank(2).warmup(0).settle(0).every(3);
    let mut model = Several::new();
    peft::attach(&mut model, &adalora, &Targets::all()).unwrap();
    let mut allocator = adalora.allocator().unwrap();
    let mut left = Vec::new();
    for step in 1..=7 {
        allocator.before_step(&model, &model.gradients(), step, 7).unwrap();
        for (name, parameter) in model.parameters_mut() {
            if name.ends_with("lora_E") {
                parameter.value_mut().as_mut_slice().unwrap().iter_mut().for_each(|x| *x += 0.5);
            }
        }
        allocator.after_step(&mut model, step, 7).unwrap();
        left.push(model.left().iter().sum::<usize>());
    }
    assert_eq!(left, [6, 6, 3, 6, 6, 3, 3]);
    // What has moved again is saved, though the last choice left it out.
    let (_guard, path) = folder();
    model.parameters_mut().into_iter().filter(|(name, _)| name.ends_with("lora_E")).for_each(|(_, parameter)| {
        parameter.value_mut().as_mut_slice().unwrap().fill(0.25);
    });
    peft::save(&model, &path).unwrap();
    let mut again = Several::new();
    peft::load(&mut again, &path).unwrap();
    close("moved", &again.outputs(), &model.outputs(), 1e-13);
}

#[test]
fn a_step_that_does_not_take_place_changes_nothing() {
    let adalora = AdaLora::new(1).warmup(0).settle(0);
    let (mut model, mut allocator) = pruned(&adalora);
    let all = |model: &Several| -> Vec<Vec<f64>> {
        let values = model.parameters().into_iter().map(|(_, parameter)| parameter.value().to_vec().unwrap());
        values.chain(model.buffers().into_iter().map(|(_, buffer)| buffer.value().to_vec().unwrap())).collect()
    };
    let before = all(&model);
    allocator.before_step(&model, &model.gradients(), 3, 6).unwrap();
    assert_eq!(all(&model), before);
    let error = allocator.after_step(&mut model, 4, 6).unwrap_err();
    assert_eq!(error.message(), "step 4 of 6 has not been seen before the optimiser's move");
    // Gradients that are not finite are found where triplets are chosen.
    let nan = model.loss(&normal(&[5, 4, 3, 3], 2), &normal(&[5, 2], 3).scale(f64::NAN).unwrap()).unwrap();
    let error = allocator.before_step(&model, &nan.backward().unwrap().into(), 3, 6).unwrap_err();
    assert!(error.message().starts_with("a triplet scores NaN: a weight or a gradient"), "{error}");
    assert_eq!(all(&model), before);
}

#[test]
fn settings_that_make_no_sense() {
    let plain = || AdaLora::new(2).initial_rank(4);
    let refused = |adalora: AdaLora, kind: ErrorKind, part: &str| {
        let mut layer = Linear::<f64>::zeros(3, 3).unwrap();
        let found = [
            peft::attach(&mut layer, &adalora, &Targets::all()).unwrap_err(),
            adalora.allocator::<f64>().unwrap_err(),
            adalora.penalty(&layer).unwrap_err(),
        ];
        for error in found {
            assert!(error.kind() == kind && error.message().contains(part), "{error}");
        }
    };
    let rank = "needs a target of 1 to the initial rank";
    refused(AdaLora::new(0), ErrorKind::Rank, rank);
    refused(AdaLora::new(3).initial_rank(2), ErrorKind::Rank, rank);
    for beta in [-0.1, 1.0, f64::NAN] {
        refused(plain().beta1(beta), ErrorKind::Value, &format!("beta1 is {beta}; needs 0 to below 1"));
        refused(plain().beta2(beta), ErrorKind::Value, "beta2 is");
    }
    for weight in [-1.0, f64::INFINITY, f64::NAN] {
        refused(plain().orthogonality(weight), ErrorKind::Value, "a penalty of weight");
    }
    refused(plain().every(0), ErrorKind::Value, "every 0 steps");
    refused(plain().warmup_ratio(f64::NAN), ErrorKind::Value, "the warm-up takes a part of NaN");
    refused(plain().settle_ratio(1.0), ErrorKind::Value, "the end takes a part of 1");

    let check = |adalora: AdaLora, model: &Several, steps: u64| {
        let allocator: RankAllocator<f64> = adalora.allocator().unwrap();
        allocator.check(model, steps)
    };
    let (model, _) = pruned(&plain());
    assert!(check(plain().warmup(4).settle(5), &model, 10).is_ok());
    let error = check(plain().warmup(5).settle(5), &model, 10).unwrap_err();
    assert!(error.message().contains("leave none of 10 for the budget to go down"), "{error}");
    assert!(check(plain().warmup(0).settle(11), &model, 10).is_err());
    let error = check(plain(), &Several::new(), 10).unwrap_err();
    assert!(error.message().contains("no AdaLoRA adapter that trains"), "{error}");
    assert!(Attach::new(&plain().dropout(1.5)).apply(&mut Several::new()).is_err());
}

#[test]
fn files_that_say_it_otherwise() {
    let adalora = AdaLora::new(2).initial_rank(4).warmup(1).settle(2);
    let (model, _) = pruned(&adalora);
    let (_guard, path) = folder();
    peft::save(&model, &path).unwrap();
    let text = fs::read_to_string(path.join(CONFIG)).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let members: Vec<&str> = config.as_object().unwrap().keys().map(String::as_str).collect();
    for needed in ["peft_type", "init_r", "target_r", "total_step", "lora_alpha", "lora_dropout", "rank_pattern"] {
        assert!(members.contains(&needed), "{needed}");
    }
    assert_eq!(config["lora_alpha"], 4.0 + 1e-5);
    let message = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut changed = config.clone();
        change(&mut changed);
        fs::write(path.join(CONFIG), changed.to_string()).unwrap();
        peft::load(&mut Several::new(), &path).unwrap_err().to_string()
    };
    assert!(message(&|c| c["init_r"] = serde_json::Value::Null).contains("needs the initial rank \"init_r\""));
    assert!(message(&|c| c["lora_alpha"] = serde_json::Value::Null).contains("needs \"lora_alpha\""));
    assert!(message(&|c| c["init_r"] = 5.into()).contains("no list of 5 booleans"));
    assert!(message(&|c| c["rank_pattern"] = serde_json::json!({"up.lora_E": 3})).contains("no list of 4 booleans"));
    assert!(message(&|c| c["rank_pattern"] = serde_json::Value::Null).contains("in the file and [4, 1] in the model"));
    assert!(message(&|c| c["peft_type"] = "LORA".into()).contains("there is no rank \"r\""));
    // A rank that would need all memory is a shape that differs, not an allocation.
    for rank in [10_000_000_000_000, u64::MAX] {
        let text = message(&|c| {
            c["init_r"] = rank.into();
            c["rank_pattern"] = serde_json::Value::Null;
        });
        assert!(text.contains(&format!("in the file and [{rank}, ")), "{text}");
    }

    // What a folder cannot say, and what PEFT does not have.
    let save = |adalora: &AdaLora, layer: &str| {
        let mut layer = all().into_iter().find(|(name, ..)| *name == layer).unwrap().1;
        peft::attach(&mut layer, adalora, &Targets::all()).unwrap();
        let padding = padding_of(layer.layer());
        fill(layer.layer_mut(), padding, 1);
        let plain = peft::save(&layer, path.join("no"));
        (plain, peft::SaveAdapter::new().for_peft().write(&layer, path.join("no")))
    };
    for (layer, part) in
        [("embedding", "it is an embedding"), ("line", "without two spatial modes"), ("groups", "several groups")]
    {
        let (plain, error) = save(&adalora, layer);
        plain.unwrap();
        assert!(error.unwrap_err().message().contains(part), "{layer}");
    }
    let (error, _) = save(&adalora.clone().scaling(Scaling::Constant(-1.0)), "linear");
    assert!(error.unwrap_err().message().contains("those above 0 only"));
    let mut mixed = Several::new();
    peft::attach(&mut mixed, &adalora, &Targets::of(["up"])).unwrap();
    peft::attach(&mut mixed, &AdaLora::new(1), &Targets::of(["down"])).unwrap();
    assert!(peft::save(&mixed, path.join("no")).unwrap_err().message().contains("has one of each"));
    let mut mixed = Several::new();
    peft::attach(&mut mixed, &adalora, &Targets::of(["up"])).unwrap();
    peft::attach(&mut mixed, &Lora::new(1), &Targets::of(["down"])).unwrap();
    assert!(peft::save(&mixed, path.join("no")).unwrap_err().message().contains("of different methods"));
}
