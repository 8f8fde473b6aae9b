//! Folders of adapters: what comes back, and what the files look like.

use super::{
    folders::{CONFIG, Model, TENSORS, folder, state, train},
    layers::{all, close, fill, padding_of},
};
use ndarray::IxDyn;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::fs;
use tenfold::{
    Error, ErrorKind, TensorFile, autodiff,
    nn::{Conv, Layer, Linear, Load, Mode, Module, Save},
    peft::{
        self, AdaLora, Attach, BitFit, Dora, Flora, Full, LoadAdapter, Lora, LoraForm, Method, Probe, Ranks,
        SaveAdapter, Scaling, Targets,
    },
};

fn config(path: &std::path::Path) -> serde_json::Value {
    serde_json::from_str(&fs::read_to_string(path.join(CONFIG)).unwrap()).unwrap()
}

#[test]
fn every_method_comes_back_bit_for_bit() {
    let ranks = |flora: Flora| flora.rank_pattern("up.inner.1", Ranks::Modes(vec![3, 2]));
    let methods: [(&dyn Method<f64>, &str); 12] = [
        (&ranks(Flora::new().rank(2).scale(0.3)), "FLORA"),
        (&Flora::new().rank(2).dropout(0.1).scaling(Scaling::Rank { alpha: 7.0 }), "FLORA"),
        (&Lora::new(3).alpha(7.0), "LORA"),
        (&Lora::new(3).scaling(Scaling::RootRank { alpha: 7.0 }).rank_pattern("up", 2).dropout(0.2), "LORA"),
        (&Dora::from(Lora::new(3).alpha(5.0)), "LORA"),
        (&Lora::new(2).form(LoraForm::Kernel), "LORA_K"),
        (&Lora::new(2).form(LoraForm::Equation3), "LORA_EQ3"),
        (&Dora::from(Lora::new(2).form(LoraForm::Kernel)), "LORA_K"),
        (&AdaLora::new(2).alpha(5.0).dropout(0.1), "ADALORA"),
        (&BitFit, "PARAMETERS"),
        (&Full, "PARAMETERS"),
        (&Probe, "PARAMETERS"),
    ];
    for (method, peft_type) in methods {
        let (_guard, path) = folder();
        let mut model = Model::<f64>::new(1);
        let targets = if method.attaches() { Targets::all().except("head") } else { Targets::all() };
        Attach::new(method).to(targets).keep(Targets::of(["head"])).apply(&mut model).unwrap();
        train(&mut model);
        peft::save(&model, &path).unwrap();
        let mut again = Model::<f64>::new(1);
        let loaded = peft::load(&mut again, &path).unwrap();
        assert_eq!(state(&again), state(&model), "{method:?}");
        assert_eq!(loaded.layers.len(), if method.attaches() { 4 } else { 0 });
        assert_eq!(config(&path)["peft_type"], peft_type);
        // Saved once more it is the same file.
        let (_other, twice) = folder();
        peft::save(&again, &twice).unwrap();
        for file in [TENSORS, CONFIG] {
            assert_eq!(fs::read(path.join(file)).unwrap(), fs::read(twice.join(file)).unwrap(), "{method:?}");
        }
    }
}

#[test]
fn a_save_that_fails_leaves_the_folder_as_it_was() {
    let (_guard, path) = folder();
    let mut model = Model::<f64>::new(1);
    peft::attach(&mut model, &Lora::new(2), &Targets::all()).unwrap();
    peft::save(&model, &path).unwrap();
    let tensors = fs::read(path.join(TENSORS)).unwrap();
    train(&mut model);
    // The configuration cannot be written.
    fs::remove_file(path.join(CONFIG)).unwrap();
    fs::create_dir(path.join(CONFIG)).unwrap();
    let error = peft::save(&model, &path).unwrap_err();
    assert!(error.kind() == ErrorKind::Io && error.message().contains(CONFIG), "{error}");
    assert_eq!(fs::read(path.join(TENSORS)).unwrap(), tensors);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 2, "no temporary file stays");
    fs::remove_dir(path.join(CONFIG)).unwrap();
    // As a save leaves it that is killed in the last moment.
    let error = peft::load(&mut Model::<f64>::new(1), &path).unwrap_err();
    assert!(error.kind() == ErrorKind::Io && error.message().contains(CONFIG), "{error}");
    peft::save(&model, &path).unwrap();
    let mut again = Model::<f64>::new(1);
    peft::load(&mut again, &path).unwrap();
    assert_eq!(state(&again), state(&model));
}

#[test]
fn every_layer_comes_back() {
    let (dora, lora, flora) = (Dora::new(2), Lora::new(2).alpha(3.0), Flora::new().rank(2));
    let adalora = AdaLora::new(2).alpha(3.0);
    for (name, layer, input) in all() {
        for method in [&dora as &dyn Method<f64>, &lora, &flora, &adalora] {
            let (_guard, path) = folder();
            let mut trained = layer.clone();
            peft::attach(&mut trained, method, &Targets::all()).unwrap();
            let padding = padding_of(trained.layer());
            fill(trained.layer_mut(), padding, 3);
            peft::save(&trained, &path).unwrap();
            let mut again = layer.clone();
            peft::load(&mut again, &path).unwrap();
            let run = |layer: &super::layers::Any| layer.forward(&input, Mode::Evaluation).unwrap().into_value();
            assert_eq!(run(&again), run(&trained), "{name} {method:?}");
        }
    }
}

#[test]
fn a_layer_that_is_the_model() {
    let (_guard, path) = folder();
    let mut model = Linear::<f32>::zeros(4, 3).unwrap();
    for method in [&Lora::new(2) as &dyn Method<f32>, &Flora::new().rank(2)] {
        Attach::new(method).name("a").apply(&mut model).unwrap();
        peft::save(&model, &path).unwrap();
        let mut again = Linear::<f32>::zeros(4, 3).unwrap();
        peft::load(&mut again, &path).unwrap();
        assert_eq!(again.adapters().len(), 1);
        peft::detach(&mut model, "a").unwrap();
    }
}

#[test]
fn types_and_rounding() {
    let (_guard, path) = folder();
    let mut model = Model::<f64>::new(1);
    peft::attach(&mut model, &Lora::new(2), &Targets::of(["up"])).unwrap();
    train(&mut model);
    peft::save(&model, &path).unwrap();
    let mut single = Model::<f32>::new(1);
    let error = peft::load(&mut single, &path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    LoadAdapter::new().round().read(&mut single, &path).unwrap();
    // Halves, as they are shipped.
    let file = TensorFile::open(path.join(TENSORS)).unwrap();
    let mut halves = TensorFile::new();
    for name in file.names() {
        halves.insert(name, &file.get::<f64, IxDyn>(name).unwrap().cast::<half::bf16>().unwrap()).unwrap();
    }
    halves.save(path.join(TENSORS)).unwrap();
    peft::load(&mut Model::<f32>::new(1), &path).unwrap();
    peft::load(&mut Model::<f64>::new(1), &path).unwrap();
}

#[test]
fn what_peft_reads_in_the_configuration() {
    let (_guard, path) = folder();
    let mut model = Model::<f32>::new(1);
    let lora = Lora::new(4).alpha(8.0).rank_pattern("stem", 2);
    let attach = Attach::new(&lora).to(Targets::of(["stem", "up.inner.0"])).keep(Targets::of(["head", "bn"]));
    attach.apply(&mut model).unwrap();
    peft::save(&model, &path).unwrap();
    let found = config(&path);
    let expected = serde_json::json!({
        "peft_type": "LORA", "r": 2, "lora_alpha": 8.0, "lora_dropout": 0.0, "use_rslora": false, "use_dora": false,
        "rank_pattern": { r"^up\.inner\.0": 4 }, "alpha_pattern": {},
        "target_modules": ["stem", "up.inner.0"], "modules_to_save": ["bn", "head"], "bias": "none",
    });
    assert_eq!(found, expected);
    let names = [
        "bn.bias",
        "bn.running_mean",
        "bn.running_var",
        "bn.weight",
        "head.bias",
        "head.weight",
        "stem.lora_A.weight",
        "stem.lora_B.weight",
        "up.inner.0.lora_A.weight",
        "up.inner.0.lora_B.weight",
    ];
    TensorFile::open(path.join(TENSORS))
        .unwrap()
        .expect_names(names.map(|name| format!("base_model.model.{name}")))
        .unwrap();

    // Biases, of everything and of adapted layers; those of adapted layers are inside a wrapper.
    for (biases, says) in [("*", "all"), ("stem", "lora_only")] {
        let mut model = Model::<f32>::new(1);
        peft::attach(&mut model, &lora, &Targets::of(["stem"])).unwrap();
        for (name, parameter) in model.parameters_mut() {
            if name.ends_with(".bias") && (biases == "*" || name.starts_with(biases)) {
                parameter.unfreeze();
            }
        }
        peft::save(&model, &path).unwrap();
        assert_eq!(config(&path)["bias"], says);
        assert!(TensorFile::open(path.join(TENSORS)).unwrap().contains("base_model.model.stem.base_layer.bias"));
        let mut again = Model::<f32>::new(1);
        peft::load(&mut again, &path).unwrap();
        assert_eq!(state(&again), state(&model));
    }
    // "up" is also the end of a part of the model.
    let mut nested = vec![Model::<f32>::new(1), Model::new(2)];
    peft::attach(&mut nested, &lora, &Targets::of(["0.stem"])).unwrap();
    peft::save(&nested, &path).unwrap();
    assert_eq!(config(&path)["target_modules"], serde_json::json!(["0.stem"]));
}

#[test]
fn several_names() {
    let (_guard, path) = folder();
    let mut model = Model::<f64>::new(1);
    Attach::new(&Lora::new(2)).to(Targets::of(["stem"])).name("a").apply(&mut model).unwrap();
    Attach::new(&Flora::new()).to(Targets::of(["up.inner"])).name("b").apply(&mut model).unwrap();
    let message = |result: Result<(), Error>| result.unwrap_err().to_string();
    assert_eq!(
        message(peft::save(&model, &path)),
        "save: which adapter? there are \"a\", \"b\"; say it with SaveAdapter::name"
    );
    assert_eq!(
        message(SaveAdapter::new().name("c").write(&model, &path)),
        "save: no layer has an adapter \"c\"; there are \"a\", \"b\""
    );
    assert!(!path.exists());
    for (name, layers) in [("a", 1), ("b", 2)] {
        SaveAdapter::new().name(name).write(&model, path.join(name)).unwrap();
        let mut again = Model::<f64>::new(1);
        let loaded = LoadAdapter::new().name(name).read(&mut again, path.join(name)).unwrap();
        assert_eq!(loaded.layers.len(), layers);
        // Beside one of another name, not over one of the same.
        LoadAdapter::new().name("other").read(&mut again, path.join(name)).unwrap();
        let error = LoadAdapter::new().name(name).read(&mut again, path.join(name)).unwrap_err();
        assert!(error.message().contains("is the name of an adapter of"), "{error}");
    }
}

#[test]
fn nothing_to_save() {
    let (_guard, path) = folder();
    let mut model = vec![Linear::<f64>::zeros(2, 2).unwrap()];
    model.freeze_all();
    let error = peft::save(&model, &path).unwrap_err();
    assert_eq!(error.message(), "there is no adapter, and no parameter trains: nothing to save");
    Attach::new(&Lora::new(1)).name("x").apply(&mut model).unwrap();
    let wide = LoadAdapter::new().name("").read(&mut model, &path).unwrap_err();
    assert_eq!(wide.kind(), ErrorKind::Io);
}

#[test]
fn a_frozen_head_is_saved_where_it_is_said() {
    let (_guard, path) = folder();
    let mut model = Model::<f64>::new(1);
    Attach::new(&Lora::new(2)).to(Targets::of(["stem"])).keep(Targets::of(["head"])).apply(&mut model).unwrap();
    train(&mut model);
    model.freeze_all();
    SaveAdapter::new().keep(Targets::of(["head"])).write(&model, &path).unwrap();
    let mut again = Model::<f64>::new(9);
    peft::load(&mut again, &path).unwrap();
    assert_eq!(again.head.weight().value(), model.head.weight().value());
}

#[test]
fn flora_configurations() {
    let (_guard, path) = folder();
    let mut model = Model::<f64>::new(1);
    peft::attach(&mut model, &Flora::new().rank(2), &Targets::of(["stem"])).unwrap();
    peft::save(&model, &path).unwrap();
    let text = fs::read_to_string(path.join(CONFIG)).unwrap();
    let expected = serde_json::json!({
        "peft_type": "FLORA", "mode_order": ["input", "output", "kernel"], "target_modules": ["stem"], "bias": "none",
        "layers": { "stem": { "ranks": [2, 2, 2, 2], "scale": 4.0, "dropout": 0.0 } },
    });
    assert_eq!(config(&path), expected);
    let message = |from: &str, to: &str| {
        fs::write(path.join(CONFIG), text.replace(from, to)).unwrap();
        peft::load(&mut Model::<f64>::new(1), &path).unwrap_err().to_string()
    };
    assert!(message("\"stem\": {", "\"stern\": {").contains("\"layers\" has no ranks and scale for layer \"stem\""));
    assert!(message("\"output\",\n    \"kernel\"", "\"kernel\",\n    \"output\"").contains("modes come in the order"));
    assert!(message("\"scale\": 4.0,", "").contains("missing field `scale`"));
    let compact = |ranks: &str| {
        let mut value = expected.clone();
        value["layers"]["stem"]["ranks"] = serde_json::from_str(ranks).unwrap();
        fs::write(path.join(CONFIG), value.to_string()).unwrap();
        peft::load(&mut Model::<f64>::new(1), &path).unwrap_err().to_string()
    };
    assert!(compact("[2, 2]").contains("ranks [2, 2] for layer \"stem\", whose modes have sizes [3, 4, 3, 3]"));
    assert!(compact("[2, 2, 0, 2]").contains("ranks [2, 2, 0, 2]"));
    assert!(compact("[3, 2, 2, 2]").contains("has shape [2, 2, 2, 2] in the file and [3, 2, 2, 2] in the model"));
}

#[test]
fn for_peft_is_exact_or_an_error() {
    let (_guard, path) = folder();
    let mut model = Model::<f64>::new(1);
    peft::attach(&mut model, &Flora::new().rank(2).scale(0.3), &Targets::all()).unwrap();
    train(&mut model);
    SaveAdapter::new().for_peft().write(&model, &path).unwrap();
    assert_eq!(config(&path)["peft_type"], "LORA");
    let mut again = Model::<f64>::new(1);
    peft::load(&mut again, &path).unwrap();
    for ((name, ours), (_, theirs)) in model.layers().into_iter().zip(again.layers()) {
        let weight = |layer: &dyn Layer<f64>| layer.effective_weight().unwrap().into_value();
        close(&name, &weight(theirs), &weight(ours), 1e-13);
    }
    let plain = autodiff::Conv::new;
    for (options, reason) in [
        (plain().groups(2), "it has several groups"),
        (plain().dilation(2), "it is dilated"),
        (plain().padding(1).padding_mode(autodiff::PaddingMode::Reflect), "its padding is not zeros"),
    ] {
        for method in [&Flora::new().rank(2) as &dyn Method<f64>, &Lora::new(2)] {
            let rng = &mut ChaCha8Rng::seed_from_u64(1);
            let mut conv = vec![Conv::new([4, 4], &[3, 3], options.clone(), rng).unwrap()];
            peft::attach(&mut conv, method, &Targets::all()).unwrap();
            let error = SaveAdapter::new().for_peft().write(&conv, path.join("no")).unwrap_err();
            let expected = format!(
                "layer \"0\": {reason}, which the format does not have; write merged weights instead (peft::merge, then nn::Save)"
            );
            assert_eq!((error.kind(), error.message()), (ErrorKind::Unsupported, expected.as_str()));
            assert!(!path.join("no").exists());
        }
    }
    let mut form = Model::<f64>::new(1);
    peft::attach(&mut form, &Lora::new(2).form(LoraForm::Kernel), &Targets::all()).unwrap();
    assert!(
        SaveAdapter::new()
            .for_peft()
            .write(&form, &path)
            .unwrap_err()
            .message()
            .contains("a form that PEFT does not have")
    );
}

#[test]
fn adapters_of_two_methods_under_one_name() {
    let (_guard, path) = folder();
    let mut model = Model::<f64>::new(1);
    peft::attach(&mut model, &Lora::new(2), &Targets::of(["stem"])).unwrap();
    peft::attach(&mut model, &Flora::new(), &Targets::of(["head"])).unwrap();
    let error = peft::save(&model, &path).unwrap_err();
    assert!(error.kind() == ErrorKind::Unsupported && error.message().contains("of different methods"), "{error}");
}

#[test]
fn merged_weights_are_the_models_own_file() {
    let (_guard, path) = folder();
    fs::create_dir_all(&path).unwrap();
    let mut model = Model::<f64>::new(1);
    peft::attach(&mut model, &Flora::new().rank(2), &Targets::all().except("head")).unwrap();
    train(&mut model);
    let effective: Vec<_> =
        model.layers().iter().map(|(_, layer)| layer.effective_weight().unwrap().into_value()).collect();
    peft::merge(&mut model).unwrap();
    let file = path.join("model.safetensors");
    Save::new().write(&model, &file).unwrap();
    let names = |model: &Model<f64>| state(model).into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
    TensorFile::open(&file).unwrap().expect_names(names(&Model::new(3))).unwrap();
    let mut plain = Model::<f64>::new(3);
    Load::new().read(&mut plain, &file).unwrap();
    for ((name, layer), expected) in plain.layers().into_iter().zip(effective) {
        assert_eq!(layer.weight().value(), &expected, "{name}");
    }
}
