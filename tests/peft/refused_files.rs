//! Folders and files that do not fit, are broken or hostile: an error that says all of it, and a model that stays as it was.

use super::{
    folders::{CONFIG, Model, TENSORS, folder, state, train},
    layers::normal,
};
use ndarray::IxDyn;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::{fs, path::Path};
use tenfold::{
    Error, ErrorKind, Scalar, Tensor, TensorFile, autodiff, module,
    nn::{Conv, Embedding, Linear, Module},
    peft::{
        self, Attach, Dora, Flora, Lora, Method, Targets,
        authors::{self, Names},
        lycoris,
    },
};

/// A saved LoRA with a head, changed by `change`, and what loading it says.
fn refused(change: impl Fn(&Path), kind: ErrorKind, part: &str) {
    let (_guard, path) = folder();
    let mut model = Model::<f64>::new(1);
    let lora = Lora::new(2);
    Attach::new(&lora).to(Targets::of(["stem", "up.inner"])).keep(Targets::of(["head"])).apply(&mut model).unwrap();
    peft::save(&model, &path).unwrap();
    change(&path);
    let mut again = Model::<f64>::new(1);
    let before = state(&again);
    let error = peft::load(&mut again, &path).unwrap_err();
    assert!(error.kind() == kind && error.message().contains(part), "{error:?} lacks {part:?}");
    assert_eq!(state(&again), before, "an error changed the model");
}

fn with_tensors(change: impl Fn(&TensorFile, &mut TensorFile), kind: ErrorKind, part: &str) {
    let rewrite = |path: &Path| {
        let old = TensorFile::open(path.join(TENSORS)).unwrap();
        let mut new = TensorFile::new();
        change(&old, &mut new);
        new.save(path.join(TENSORS)).unwrap();
    };
    refused(rewrite, kind, part);
}

fn copy(old: &TensorFile, new: &mut TensorFile, rename: impl Fn(&str) -> Option<String>) {
    for name in old.names() {
        if let Some(renamed) = rename(name) {
            new.insert(&renamed, &old.get::<f64, IxDyn>(name).unwrap()).unwrap();
        }
    }
}

fn with_config(from: &str, to: &str, kind: ErrorKind, part: &str) {
    let rewrite = |path: &Path| {
        let text = fs::read_to_string(path.join(CONFIG)).unwrap();
        let changed = text.replace(from, to);
        assert_ne!(text, changed);
        fs::write(path.join(CONFIG), changed).unwrap();
    };
    refused(rewrite, kind, part);
}

#[test]
fn names_that_do_not_fit_are_all_listed() {
    let change = |old: &TensorFile, new: &mut TensorFile| {
        copy(old, new, |name| match name.strip_prefix("base_model.model.").unwrap() {
            "stem.lora_B.weight" | "head.bias" => None,
            "up.inner.1.lora_A.weight" => Some("base_model.model.up.outer.1.lora_A.weight".into()),
            "head.weight" => Some("model.head.weight".into()),
            _ => Some(name.into()),
        });
    };
    let part = "4 of the model's tensors are missing: \"head.bias\", \"head.weight\", \"stem.lora_B.weight\", \"up.inner.1.lora_A.weight\"; \
                2 of the file's tensors are unexpected: \"base_model.model.up.outer.1.lora_A.weight\", \"model.head.weight\"";
    with_tensors(change, ErrorKind::Value, part);
    // A whole layer that the configuration speaks of.
    let without = |old: &TensorFile, new: &mut TensorFile| {
        copy(old, new, |name| (!name.contains("inner.0")).then(|| name.into()))
    };
    with_tensors(without, ErrorKind::Value, "2 of the model's tensors are missing: \"up.inner.0.lora_A.weight\"");
    let more = |old: &TensorFile, new: &mut TensorFile| {
        copy(old, new, |name| Some(name.into()));
        new.insert("base_model.model.stem.lora_B.bias", &normal(&[4], 1)).unwrap();
    };
    with_tensors(
        more,
        ErrorKind::Value,
        "1 of the file's tensors are unexpected: \"base_model.model.stem.lora_B.bias\"",
    );
}

#[test]
fn shapes_that_differ_are_listed_with_both() {
    let change = |old: &TensorFile, new: &mut TensorFile| {
        copy(old, new, |name| (!name.contains("stem.lora_A") && !name.contains("head.bias")).then(|| name.into()));
        new.insert("base_model.model.stem.lora_A.weight", &normal(&[3, 3, 3, 3], 1)).unwrap();
        new.insert("base_model.model.head.bias", &normal(&[1, 2], 1)).unwrap();
    };
    let part = "2 tensors do not fit: \"base_model.model.stem.lora_A.weight\" has shape [3, 3, 3, 3] in the file and [2, 3, 3, 3] in the \
                model; \"base_model.model.head.bias\" has shape [1, 2] in the file and [2] in the model";
    with_tensors(change, ErrorKind::Shape, part);
    with_config(
        "\"r\": 2",
        "\"r\": 3",
        ErrorKind::Shape,
        "has shape [2, 3, 3, 3] in the file and [3, 3, 3, 3] in the model",
    );
    let integers = |old: &TensorFile, new: &mut TensorFile| {
        copy(old, new, |name| (!name.contains("head.bias")).then(|| name.into()));
        new.insert("base_model.model.head.bias", &Tensor::from_vec([2], vec![1i64, 2]).unwrap()).unwrap();
    };
    with_tensors(integers, ErrorKind::Unsupported, "\"base_model.model.head.bias\" holds integers, i64");
}

#[test]
fn configurations_that_mean_something_else() {
    let unsupported = ErrorKind::Unsupported;
    for other in ["LOHA", "LOKR", "IA3", "lora", ""] {
        let part = format!(
            "adapters of peft_type {other:?} are not supported; supported are LORA, LORA_K, LORA_EQ3, ADALORA, FLORA, BOTTLENECK, PARAMETERS"
        );
        with_config("\"LORA\"", &format!("{other:?}"), unsupported, &part);
    }
    let (from, to) = ("\"rank_pattern\": {}", "\"rank_pattern\": {\"stem\": [true]}");
    with_config(from, to, ErrorKind::Format, "the rank of layer \"stem\" is a list; LoRA needs a number");
    for (member, part) in [
        ("\"lora_bias\": true", "\"lora_bias\" is set"),
        ("\"layer_replication\": [[0, 4]]", "\"layer_replication\" is set"),
        ("\"init_lora_weights\": \"pissa_niter_4\"", "the start \"pissa_niter_4\""),
    ] {
        with_config("\"peft_type\"", &format!("{member}, \"peft_type\""), unsupported, part);
    }
    let format = ErrorKind::Format;
    with_config("\"r\": 2,", "", format, "there is no rank \"r\" for layer \"stem\"");
    with_config("\"r\": 2", "\"r\": 0", format, "the rank of layer \"stem\" is 0");
    with_config("\"r\": 2", "\"r\": -1", format, "not a configuration of adapters");
    with_config("\"lora_alpha\": 2.0", "\"lora_alpha\": null", format, "there is no \"lora_alpha\"");
    with_config("\"rank_pattern\": {}", "\"rank_pattern\": {\"(\": 2}", format, "a pattern is no regular expression");
    with_config(
        "\"rank_pattern\": {}",
        "\"rank_pattern\": {\"a\": 2, \"a\": 3}",
        format,
        "the pattern \"a\" is there twice",
    );
    with_config("\"bias\": \"none\"", "\"bias\": \"some\"", format, "\"bias\" is \"some\"");
    with_config("\"lora_dropout\": 0.0", "\"lora_dropout\": 2.0", ErrorKind::Value, "dropout");
    with_config("\"bias\": \"none\"", "\"bias\": \"all\"", ErrorKind::Value, "tensors are missing: \"bn.bias\"");
    // A rank that would need all memory is a shape that differs, not an allocation.
    with_config("\"r\": 2", "\"r\": 99999999999", ErrorKind::Shape, "in the model");
    for kind in ["LORA", "LORA_K", "LORA_EQ3"] {
        let both = |path: &Path| {
            let text = fs::read_to_string(path.join(CONFIG)).unwrap();
            let changed =
                text.replace("\"LORA\"", &format!("{kind:?}")).replace("\"r\": 2", &format!("\"r\": {}", u64::MAX));
            fs::write(path.join(CONFIG), changed).unwrap();
        };
        refused(both, ErrorKind::Shape, "in the model");
    }
}

#[test]
fn files_that_are_none() {
    let write =
        |file: &'static str, bytes: &'static [u8]| move |path: &Path| fs::write(path.join(file), bytes).unwrap();
    refused(write(CONFIG, b""), ErrorKind::Format, "not a configuration of adapters");
    refused(write(CONFIG, b"[1, 2]"), ErrorKind::Format, "not a configuration of adapters");
    refused(write(CONFIG, b"{}"), ErrorKind::Format, "peft_type");
    refused(write(CONFIG, &[0xff; 100]), ErrorKind::Format, "not a configuration of adapters");
    refused(write(TENSORS, b"no"), ErrorKind::Format, TENSORS);
    refused(|path| fs::remove_file(path.join(CONFIG)).unwrap(), ErrorKind::Io, CONFIG);
    refused(|path| fs::remove_file(path.join(TENSORS)).unwrap(), ErrorKind::Io, TENSORS);
    let pickle = |path: &Path| fs::rename(path.join(TENSORS), path.join("adapter_model.bin")).unwrap();
    refused(pickle, ErrorKind::Io, "adapter_model.bin is a pickle");
    for keep in [0, 7, 100, 900] {
        let cut = move |path: &Path| {
            let bytes = fs::read(path.join(TENSORS)).unwrap();
            fs::write(path.join(TENSORS), &bytes[..keep]).unwrap();
        };
        refused(cut, ErrorKind::Format, TENSORS);
    }
}

/// Two layers whose names are the same with underscores for dots.
struct Twins<T: Scalar> {
    one: Linear<T>,
    other: Linear<T>,
}
module!(Twins { one => "up.a", other => "up_a" });

#[test]
fn layers_that_share_a_name_in_lycoris() {
    let linear = || Linear::<f64>::zeros(3, 3).unwrap();
    let (_guard, path) = folder();
    fs::create_dir_all(&path).unwrap();
    let file = path.join("a.safetensors");
    let mut twins = Twins { one: linear(), other: linear() };
    peft::attach(&mut twins, &Lora::new(1), &Targets::all()).unwrap();
    let part = "\"x_up_a\" means several layers: [\"up.a\", \"up_a\"]";
    let error = lycoris::save(&twins, "default", "x", &file).unwrap_err();
    assert!(error.message().contains(part) && !file.exists(), "{error}");
    let mut single = vec![linear()];
    peft::attach(&mut single, &Lora::new(1), &Targets::all()).unwrap();
    lycoris::save(&single, "default", "x", &file).unwrap();
    let renamed = rewritten(&file, |name| Some(name.replace("x_0", "x_up_a")));
    renamed.save(&file).unwrap();
    let mut twins = Twins { one: linear(), other: linear() };
    assert!(lycoris::load(&mut twins, "default", "x", &file).unwrap_err().message().contains(part));
}

/// A file's tensors under other names, or left out.
fn rewritten(path: &Path, rename: impl Fn(&str) -> Option<String>) -> TensorFile {
    let (old, mut new) = (TensorFile::open(path).unwrap(), TensorFile::new());
    copy(&old, &mut new, rename);
    new
}

#[test]
fn files_of_lycoris_that_do_not_fit() {
    let (_guard, path) = folder();
    fs::create_dir_all(&path).unwrap();
    let file = path.join("a.safetensors");
    let mut model = Model::<f64>::new(1);
    peft::attach(&mut model, &Flora::new().rank(2), &Targets::of(["stem", "up"])).unwrap();
    train(&mut model);
    lycoris::save(&model, "default", "x", &file).unwrap();
    let original = TensorFile::open(&file).unwrap();
    let refused = |new: &TensorFile, kind: ErrorKind, part: &str| {
        new.save(&file).unwrap();
        let mut again = Model::<f64>::new(1);
        let before = state(&again);
        let error = lycoris::load(&mut again, "default", "x", &file).unwrap_err();
        assert!(error.kind() == kind && error.message().contains(part), "{error:?} lacks {part:?}");
        assert_eq!(state(&again), before);
        original.save(&file).unwrap();
    };
    let without = |end: &'static str| rewritten(&file, move |name| (!name.ends_with(end)).then(|| name.into()));
    refused(&without("stem.alpha"), ErrorKind::Value, "1 of the model's tensors are missing: \"stem.alpha\"");
    // Where no layer has one, the scale is 1.
    let merged = |alpha: Option<f64>| {
        let mut new = without("alpha");
        for name in original.names().filter(|name| name.ends_with("alpha")) {
            if let Some(alpha) = alpha {
                new.insert(name, &Tensor::from_vec(IxDyn(&[]), vec![alpha]).unwrap()).unwrap();
            }
        }
        new.save(&file).unwrap();
        let mut model = Model::<f64>::new(1);
        lycoris::load(&mut model, "default", "x", &file).unwrap();
        peft::merge(&mut model).unwrap();
        original.save(&file).unwrap();
        state(&model)
    };
    assert_eq!(merged(None), merged(Some(2.0)));
    assert_ne!(merged(None), merged(Some(4.0)));
    // Without it, it is LoRA, and A is another.
    refused(
        &without("stem.lora_mid.weight"),
        ErrorKind::Shape,
        "has shape [2, 3, 1, 1] in the file and [2, 3, 3, 3] in the model",
    );
    let elsewhere = rewritten(&file, |name| Some(name.replace("x_stem", "y_stem")));
    refused(&elsewhere, ErrorKind::Value, "4 of the file's tensors are unexpected: \"y_stem.alpha\"");
    for part in ["hada_w1_a", "lokr_w1", "dora_scale"] {
        let mut other = original.clone();
        other.insert(&format!("x_stem.{part}"), &normal(&[2], 1)).unwrap();
        refused(&other, ErrorKind::Unsupported, "belongs to another method");
    }
    let mut empty = rewritten(&file, |name| (!name.contains("stem.lora")).then(|| name.into()));
    for (part, shape) in [("down", [0, 3, 1, 1]), ("up", [4, 0, 1, 1]), ("mid", [0, 0, 3, 3])] {
        empty.insert(&format!("x_stem.lora_{part}.weight"), &Tensor::<f64>::zeros(shape.to_vec()).unwrap()).unwrap();
    }
    refused(&empty, ErrorKind::Rank, "has rank 0");
    let mut nan = rewritten(&file, |name| (name != "x_stem.alpha").then(|| name.into()));
    nan.insert("x_stem.alpha", &Tensor::from_vec(IxDyn(&[]), vec![f64::NAN]).unwrap()).unwrap();
    refused(&nan, ErrorKind::Value, "a scale of NaN for layer \"stem\"; it has to be finite");
    let error = lycoris::save(&model, "task", "x", &file).unwrap_err();
    assert_eq!(error.message(), "no layer has an adapter \"task\"");
    lycoris::load(&mut model, "default", "x", &file).unwrap_err();
    lycoris::load(&mut model, "other", "x", &file).unwrap();

    // An embedding of as many rows as columns, whose matrices would have the shapes of a linear layer's.
    let mut linear = vec![Linear::<f64>::zeros(4, 4).unwrap()];
    peft::attach(&mut linear, &Lora::new(2), &Targets::all()).unwrap();
    lycoris::save(&linear, "default", "x", &file).unwrap();
    let error = lycoris::load(&mut vec![Embedding::<f64>::zeros(4, 4).unwrap()], "default", "x", &file).unwrap_err();
    assert!(error.kind() == ErrorKind::Unsupported && error.message().contains("it is an embedding"), "{error}");
}

#[test]
fn what_other_programs_do_not_have_is_not_written() {
    let (_guard, path) = folder();
    fs::create_dir_all(&path).unwrap();
    let file = path.join("a.safetensors");
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let mut table = vec![Embedding::<f64>::new(5, 4, rng).unwrap()];
    peft::attach(&mut table, &Flora::new().rank(2), &Targets::all()).unwrap();
    let mut groups = vec![Conv::<f64>::new([4, 4], &[3, 3], autodiff::Conv::new().groups(4), rng).unwrap()];
    peft::attach(&mut groups, &Flora::new().rank(2), &Targets::all()).unwrap();
    let mut dora = vec![Linear::<f64>::zeros(4, 4).unwrap()];
    peft::attach(&mut dora, &Dora::new(2), &Targets::all()).unwrap();
    let mut scales = vec![Linear::<f64>::zeros(4, 4).unwrap(), Linear::zeros(4, 4).unwrap()];
    for (layer, scale) in [("0", 1.0), ("1", 2.0)] {
        peft::attach(&mut scales, &Flora::new().rank(2).scale(scale), &Targets::of([layer])).unwrap();
    }
    let authors = |model: &dyn Module<f64>, names| authors::save(model, "default", names, &file).map(drop);
    let lycoris = |model: &dyn Module<f64>| lycoris::save(model, "default", "x", &file);
    let results: [(Result<(), Error>, &str); 8] = [
        (lycoris(&table), "it is an embedding, which the format does not have"),
        (lycoris(&groups), "it has several groups, which the format does not have"),
        (lycoris(&dora), "is neither FLoRA nor LoRA in this form"),
        (authors(&table, Names::Layers), "every row has its own update"),
        (authors(&groups, Names::Layers), "theirs has no groups"),
        (authors(&groups, Names::Matrices), "theirs has no groups"),
        (authors(&dora, Names::Layers), "is not FLoRA"),
        (authors(&scales, Names::Layers), "layer \"1\" has scale 2, others Some(1.0)"),
    ];
    for (result, part) in results {
        let error = result.unwrap_err();
        assert!(error.kind() == ErrorKind::Unsupported && error.message().contains(part), "{error:?} lacks {part:?}");
    }
    assert!(!file.exists());
}

#[test]
fn files_of_the_authors_that_do_not_fit() {
    let (_guard, path) = folder();
    fs::create_dir_all(&path).unwrap();
    let file = path.join("a.safetensors");
    let mut model = Model::<f64>::new(1);
    let flora = Flora::new().rank(2);
    peft::attach(&mut model, &flora as &dyn Method<f64>, &Targets::of(["stem"])).unwrap();
    authors::save(&model, "default", Names::Layers, &file).unwrap();
    let mut whole = TensorFile::open(&file).unwrap();
    // The rest of the model in the same file.
    let other = Model::<f64>::new(5);
    whole.insert("stem.base_layer.weight", other.layers()[0].1.weight().value()).unwrap();
    whole.insert("head.weight", other.head.parameters()[0].1.value()).unwrap();
    whole.save(&file).unwrap();
    let mut again = Model::<f64>::new(1);
    let loaded = authors::load(&mut again, "default", 4.0, &file).unwrap();
    assert_eq!(loaded.own, ["head.weight", "stem.weight"]);
    assert_eq!(again.layers()[0].1.weight().value(), other.layers()[0].1.weight().value());
    assert!(again.parameters().iter().all(|(name, parameter)| parameter.trains() == name.contains(".default.")));

    let refused = |new: &TensorFile, kind: ErrorKind, part: &str| {
        new.save(&file).unwrap();
        let error = authors::load(&mut Model::<f64>::new(1), "default", 4.0, &file).unwrap_err();
        assert!(error.kind() == kind && error.message().contains(part), "{error:?} lacks {part:?}");
        whole.save(&file).unwrap();
    };
    let short = rewritten(&file, |name| (!name.ends_with("param_3")).then(|| name.into()));
    refused(&short, ErrorKind::Value, "1 of the model's tensors are missing: \"stem.flora_layer.param_3\"");
    let other = rewritten(&file, |name| Some(name.replace("head", "neck")));
    refused(&other, ErrorKind::Value, "1 of the file's tensors are unexpected: \"neck.weight\"");
    let mut flat = rewritten(&file, |name| (!name.ends_with("param_G")).then(|| name.into()));
    flat.insert("stem.flora_layer.param_G", &normal(&[2, 2], 1)).unwrap();
    refused(&flat, ErrorKind::Shape, "\"stem.flora_layer.param_G\" has shape [2, 2] in the file");
    let error = authors::load(&mut Model::<f64>::new(1), "default", f64::NAN, &file).unwrap_err();
    assert!(error.kind() == ErrorKind::Value && error.message().contains("a scale of NaN"), "{error}");
}
