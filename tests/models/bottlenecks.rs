//! Bottleneck adapters: what AdapterHub's library computes (`tests/fixtures/adapters`), its files, and everything that is done with adapters.

use crate::{
    reference::{Expected, fixture},
    text::{loss, move_away, tokens},
};
use rand::SeedableRng;
use std::path::{Path, PathBuf};
use tenfold::{
    ErrorKind, Scalar, Tensor, TensorFile,
    autodiff::Var,
    models::{TextArchitecture, TextClassifier},
    nn::{Activation, Layer, LayerNorm, Linear, Mode, Module, Parameter, ResidualNorm, Sublayer},
    peft::{self, Attach, Bottleneck, Flora, LoadAdapter, Lora, Method, Plan, SaveAdapter, Site, Targets, adapterhub},
};

const CASES: [(&str, &str); 4] =
    [("bert", "houlsby"), ("bert", "pfeiffer"), ("deberta_v3", "houlsby"), ("deberta_v3", "pfeiffer")];

type Model<T> = Box<dyn TextClassifier<T>>;

fn folder(case: &str, kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/adapters").join(format!("{case}_{kind}"))
}

fn open<T: Scalar>(case: &str) -> Model<T> {
    TextArchitecture::open::<T>(fixture(case)).unwrap()
}

fn method(kind: &str, size: usize) -> Bottleneck {
    if kind == "houlsby" { Bottleneck::houlsby(size) } else { Bottleneck::pfeiffer(size) }
}

fn logits<T: Scalar>(model: &Model<T>, case: &str) -> Tensor<T> {
    model.forward(&tokens(&Expected::read(case)), Mode::Evaluation).unwrap().into_value()
}

fn away<T: Scalar>(a: &Tensor<T>, b: &Tensor<T>) -> f64 {
    a.sub(b).unwrap().max_abs().unwrap()
}

fn compare<T: Scalar>(case: &str, kind: &str, tolerance: f64) {
    let (given, expected) = (Expected::read(case), Expected::of(&folder(case, kind)));
    let mut model = open::<T>(case);
    let before = logits(&model, case);
    let loaded = adapterhub::load(&mut *model, "mine", folder(case, kind)).unwrap();
    assert_eq!(loaded.layers.len(), if kind == "houlsby" { 4 } else { 2 });
    assert!(loaded.own.iter().any(|name| name == "classifier.weight"), "{:?}", loaded.own);
    expected.check("logits", &logits(&model, case), tolerance);
    assert!(away(&logits(&model, case), &before) > 1e-2, "{case} {kind}: the adapters do nothing");

    let loss = loss(&given, &model.forward(&tokens(&given), Mode::training(1, 0)).unwrap());
    expected.check("loss", loss.value(), tolerance);
    let gradients = loss.backward().unwrap();
    model.gradient_report(&gradients).check().unwrap();
    let theirs = expected.names("grad.");
    let trains = model.parameters().into_iter().filter(|(_, parameter)| parameter.trains()).count();
    assert_eq!(trains, theirs.len());
    for name in theirs {
        let ours = name
            .replace(".adapters.task.adapter_down.0.", ".LayerNorm.mine.down.")
            .replace(".adapters.task.adapter_up.", ".LayerNorm.mine.up.");
        let parameters = model.parameters();
        let (_, parameter) = parameters.iter().find(|(name, _)| *name == ours).unwrap_or_else(|| panic!("no {ours}"));
        expected.check(&format!("grad.{name}"), gradients.of(parameter.var()).unwrap(), tolerance);
    }
}

#[test]
fn everything_is_that_of_adapterhub() {
    for (case, kind) in CASES {
        println!("{case} {kind}");
        compare::<f64>(case, kind, 1e-9);
        compare::<f32>(case, kind, 1e-4);
    }
}

#[test]
fn what_adapterhub_wrote_is_written_again() {
    let out = tempfile::tempdir().unwrap();
    for (case, kind) in CASES {
        let mut model = open::<f32>(case);
        adapterhub::load(&mut *model, "task", folder(case, kind)).unwrap();
        adapterhub::save(&*model, "task", out.path()).unwrap();
        let read = |folder: &Path| {
            let file = TensorFile::open(folder.join("adapter.safetensors")).unwrap();
            file.names().map(|name| (name.to_string(), file.get(name).unwrap())).collect::<Vec<(String, Tensor<f32>)>>()
        };
        assert_eq!(read(out.path()), read(&folder(case, kind)));
        // What both say about them is the same.
        let config = |folder: &Path| -> serde_json::Value {
            serde_json::from_str(&std::fs::read_to_string(folder.join("adapter_config.json")).unwrap()).unwrap()
        };
        let (ours, theirs) = (config(out.path()), config(&folder(case, kind)));
        for (key, value) in ours["config"].as_object().unwrap() {
            assert_eq!(value, &theirs["config"][key], "{key}");
        }
        for key in ["name", "hidden_size", "version"] {
            assert_eq!(ours[key], theirs[key]);
        }
    }
}

#[test]
fn folders_of_ones_own() {
    let out = tempfile::tempdir().unwrap();
    let rng = &mut rand_chacha::ChaCha8Rng::from_seed([1; 32]);
    for (case, kind) in CASES {
        for bottleneck in [method(kind, 5), method(kind, 3).without_biases()] {
            let mut model = open::<f64>(case);
            let head = model.head();
            Attach::new(&bottleneck).keep(Targets::of(head.iter().copied())).apply(&mut *model).unwrap();
            model.reset_classifier(7, rng).unwrap();
            move_away(&mut *model);
            peft::save(&*model, out.path()).unwrap();
            let mut again = open::<f64>(case);
            again.reset_classifier(7, rng).unwrap();
            LoadAdapter::new().name("other").read(&mut *again, out.path()).unwrap();
            assert_eq!(logits(&again, case), logits(&model, case));
            assert_eq!(again.count(), model.count());
        }
    }
}

#[test]
fn only_where_they_belong() {
    let names = |kind, case: &str| -> Vec<String> {
        let mut model = open::<f64>(case);
        let plan = peft::attach(&mut *model, &method(kind, 2), &Targets::all()).unwrap();
        assert_eq!(plan.parameters(), model.count().trainable);
        assert!(plan.warnings().is_empty());
        plan.rows.into_iter().map(|row| row.name).collect()
    };
    let of = |layer: usize, part: &str| format!("bert.encoder.layer.{layer}.{part}.LayerNorm");
    let both = [of(0, "attention.output"), of(0, "output"), of(1, "attention.output"), of(1, "output")];
    assert_eq!(names("houlsby", "bert"), both);
    assert_eq!(names("pfeiffer", "bert"), [of(0, "output"), of(1, "output")]);
    assert_eq!(names("houlsby", "deberta_v3").len(), 4);
    // Patterns choose among these alone; an update of weights never goes to a norm.
    let mut model = open::<f64>("bert");
    let error = peft::attach(&mut *model, &method("houlsby", 2), &Targets::of(["output.dense"])).unwrap_err();
    assert!(
        error.message().starts_with("\"output.dense\" matches nothing; there are \"bert.encoder.layer.0"),
        "{error}"
    );
    let plan = Attach::new(&method("houlsby", 2)).to(Targets::of(["layer.1"])).plan(&*model).unwrap();
    assert_eq!(plan.rows.len(), 2);
    let plan = Attach::new(&Lora::new(2)).plan(&*model).unwrap();
    assert!(plan.rows.iter().all(|row| row.shape.len() == 2));
    // There is nowhere to go in a model without such places.
    let mut plain = vec![Linear::<f64>::zeros(4, 4).unwrap()];
    let error = peft::attach(&mut plain, &method("houlsby", 2), &Targets::all()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.message(), "the model has no layer of a kind that \"hadapter\" attaches to");
    // At a site of another kind each says what is wrong.
    let norm = ResidualNorm::<f64>::new(4, 1e-5, Sublayer::Attention).unwrap();
    let (norm, linear) = (Site::of_layer("n", &norm).unwrap(), Site::of_layer("l", &plain[0]).unwrap());
    let refused: [(&dyn Method<f64>, &Site<'_>); 4] = [
        (&method("pfeiffer", 2), &linear),
        (&Lora::new(2), &norm),
        (&Flora::new(), &norm),
        (&peft::Dora::new(2), &norm),
    ];
    for (method, site) in refused {
        let error = method.outline(site).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{method:?}: {error}");
    }
    let error = Plan::of::<f64>(&method("houlsby", 0), &[norm]).unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Rank, "layer \"n\": a bottleneck of size 0; the smallest is 1")
    );
}

#[test]
fn starts_and_switches() {
    for (case, kind) in CASES {
        let mut model = open::<f64>(case);
        let before = logits(&model, case);
        // Exactly, with nothing in U; nearly otherwise, and by the seed alone.
        Attach::new(&method(kind, 4).zero_start()).name("zero").apply(&mut *model).unwrap();
        assert!(away(&logits(&model, case), &before) < 1e-12);
        let started = |seed| {
            let mut model = open::<f64>(case);
            Attach::new(&method(kind, 4)).seed(seed).apply(&mut *model).unwrap();
            logits(&model, case)
        };
        assert!(away(&started(1), &before) > 1e-6 && away(&started(1), &before) < 0.1);
        assert_eq!(started(1), started(1));
        assert_ne!(started(1), started(2));
        // Of several one counts; two at a place are an error that says what to do.
        Attach::new(&method(kind, 2)).name("second").apply(&mut *model).unwrap();
        let error = model.forward(&tokens(&Expected::read(case)), Mode::Evaluation).unwrap_err();
        assert!(
            error.kind() == ErrorKind::Unsupported && error.message().contains("only one may be enabled"),
            "{error}"
        );
        peft::switch(&mut *model, "second").unwrap();
        move_away(&mut *model);
        let second = logits(&model, case);
        assert!(away(&second, &before) > 1e-3);
        peft::switch(&mut *model, "zero").unwrap();
        assert!(away(&logits(&model, case), &before) < 1e-12);
        peft::switch(&mut *model, "second").unwrap();
        assert_eq!(logits(&model, case), second);
        peft::disable(&mut *model, "second").unwrap();
        assert!(away(&logits(&model, case), &before) < 1e-12);
        peft::enable(&mut *model, "second").unwrap();
        peft::detach(&mut *model, "second").unwrap();
        peft::detach(&mut *model, "zero").unwrap();
        assert_eq!(logits(&model, case), before);
    }
}

/// Beside an update of weights, which merges while the bottleneck is off.
#[test]
fn what_cannot_be_merged_says_so() {
    let mut model = open::<f64>("bert");
    Attach::new(&method("houlsby", 2)).name("between").apply(&mut *model).unwrap();
    Attach::new(&Lora::new(2)).name("inside").apply(&mut *model).unwrap();
    move_away(&mut *model);
    let adapted = logits(&model, "bert");
    let error = peft::merge(&mut *model).unwrap_err();
    assert!(error.message().contains("layer.0.attention.output.LayerNorm\": a bottleneck is a function"), "{error}");
    assert_eq!(logits(&model, "bert"), adapted);
    let error = peft::combine(&mut *model, "sum", &[("between", 1.0)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let out = tempfile::tempdir().unwrap();
    let error = SaveAdapter::new().name("between").for_peft().write(&*model, out.path()).unwrap_err();
    assert!(error.message().ends_with("has a bottleneck, which PEFT does not have"), "{error}");
    peft::disable(&mut *model, "between").unwrap();
    let inside = logits(&model, "bert");
    peft::merge(&mut *model).unwrap();
    assert!(away(&logits(&model, "bert"), &inside) < 1e-10);
}

#[test]
fn damaged_folders_are_refused() {
    let out = tempfile::tempdir().unwrap();
    let mut model = open::<f32>("bert");
    let before = model.count();
    let copy = |file: &str| {
        std::fs::copy(folder("bert", "pfeiffer").join(file), out.path().join(file)).unwrap();
    };
    let mut refused = |kind: ErrorKind, part: &str| {
        let error = adapterhub::load(&mut *model, "a", out.path()).unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(part), "{part}: {error}");
    };
    refused(ErrorKind::Io, "adapter_config.json");
    copy("adapter_config.json");
    refused(ErrorKind::Io, "adapter.safetensors");
    std::fs::write(out.path().join("pytorch_adapter.bin"), "x").unwrap();
    refused(ErrorKind::Io, "use_safetensors=True");
    copy("adapter.safetensors");
    let config = std::fs::read_to_string(out.path().join("adapter_config.json")).unwrap();
    let mut with = |from: &str, to: &str, kind: ErrorKind, part: &str| {
        assert!(config.contains(from), "{from}");
        std::fs::write(out.path().join("adapter_config.json"), config.replace(from, to)).unwrap();
        refused(kind, part);
    };
    with("\"scaling\": 1.0", "\"scaling\": 2.0", ErrorKind::Unsupported, "\"scaling\" is 2.0; only 1 is supported");
    with("\"is_parallel\": false", "\"is_parallel\": true", ErrorKind::Unsupported, "is_parallel");
    with("\"ln_before\": false", "\"ln_before\": true", ErrorKind::Unsupported, "ln_before");
    with("\"inv_adapter\": null", "\"inv_adapter\": \"nice\"", ErrorKind::Unsupported, "inv_adapter");
    with("\"non_linearity\": \"relu\"", "\"non_linearity\": \"mish\"", ErrorKind::Unsupported, "\"mish\"");
    with("\"original_ln_before\": true", "\"original_ln_before\": 3", ErrorKind::Format, "expected a boolean");
    with("\"name\": \"task\"", "\"name\": \"other\"", ErrorKind::Value, "layer.0.output.adapters.task");
    copy("adapter_config.json");
    // A tensor less, one of another shape, and a truncated file.
    let path = out.path().join("adapter.safetensors");
    let theirs = TensorFile::open(&path).unwrap();
    let name = "bert.encoder.layer.1.output.adapters.task.adapter_up.bias";
    let rewritten = |last: Option<Tensor<f32>>| {
        let mut file = TensorFile::new();
        for other in theirs.names().filter(|other| *other != name) {
            file.insert(other, &theirs.get::<f32, ndarray::IxDyn>(other).unwrap()).unwrap();
        }
        last.into_iter().for_each(|last| file.insert(name, &last).unwrap());
        file.save(&path).unwrap();
    };
    rewritten(None);
    refused(ErrorKind::Value, "bert.encoder.layer.1.output.LayerNorm.adapter_up.bias");
    rewritten(Some(Tensor::zeros([11]).unwrap().into_dyn()));
    refused(ErrorKind::Shape, "[11] in the file and [12] in the model");
    let whole = std::fs::read(folder("bert", "pfeiffer").join("adapter.safetensors")).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    refused(ErrorKind::Format, "adapter.safetensors");
    std::fs::write(&path, &whole).unwrap();
    // A head with other names is not left out in silence.
    let head = Tensor::<f32>::zeros([3].as_slice()).unwrap();
    TensorFile::new()
        .with("heads.task.1.bias", &head)
        .unwrap()
        .save(out.path().join("model_head.safetensors"))
        .unwrap();
    refused(ErrorKind::Value, "heads.task.1.bias");
    assert_eq!(model.count(), before);
    copy("model_head.safetensors");
    adapterhub::load(&mut *model, "a", out.path()).unwrap();
}

#[test]
fn damaged_folders_of_ones_own_are_refused() {
    let out = tempfile::tempdir().unwrap();
    let mut model = open::<f32>("bert");
    let mut trained = open::<f32>("bert");
    Attach::new(&method("pfeiffer", 5)).apply(&mut *trained).unwrap();
    peft::save(&*trained, out.path()).unwrap();
    let path = out.path().join("adapter_config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    let mut refused = |from: &str, to: &str, kind: ErrorKind, part: &str| {
        assert!(config.contains(from), "{from} is not in {config}");
        std::fs::write(&path, config.replace(from, to)).unwrap();
        let error = peft::load(&mut *model, out.path()).unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(part), "{part}: {error}");
        assert!(model.layers().iter().all(|(_, layer)| layer.adapters().is_empty()));
    };
    refused("\"size\": 5", "\"size\": 6", ErrorKind::Shape, "has shape [5, 12] in the file and [6, 12] in the model");
    refused("\"size\": 5", "\"size\": 0", ErrorKind::Rank, "rank 0");
    refused("\"size\": 5", &format!("\"size\": {}", usize::MAX), ErrorKind::Shape, "in the file and");
    refused("\"size\": 5", "\"size\": -1", ErrorKind::Format, "-1");
    refused("\"normalised\"", "\"parallel\"", ErrorKind::Format, "parallel");
    refused("\"relu\"", "\"mish\"", ErrorKind::Format, "mish");
    refused("layer.1.output.LayerNorm", "layer.7.output.LayerNorm", ErrorKind::Format, "layer.1.output.LayerNorm");
    refused("\"bottlenecks\"", "\"others\"", ErrorKind::Format, "\"bottlenecks\" does not say");
    refused("\"BOTTLENECK\"", "\"FLORA\"", ErrorKind::Value, "adapter_down");
}

/// In folders without a version `gelu` is the one by a hyperbolic tangent, as the library has it.
#[test]
fn folders_of_the_librarys_predecessor() {
    let out = tempfile::tempdir().unwrap();
    let theirs = folder("bert", "houlsby");
    std::fs::copy(theirs.join("adapter.safetensors"), out.path().join("adapter.safetensors")).unwrap();
    let config = std::fs::read_to_string(theirs.join("adapter_config.json")).unwrap();
    let old = config.replace(",\n  \"version\": \"adapters.1.3.0\"", "");
    assert_ne!(old, config);
    for (name, activation) in
        [("gelu", Activation::GeluNew), ("gelu_orig", Activation::Gelu), ("relu", Activation::Relu)]
    {
        let old = old.replace("\"gelu\"", &format!("{name:?}"));
        std::fs::write(out.path().join("adapter_config.json"), old).unwrap();
        let mut model = open::<f32>("bert");
        adapterhub::load(&mut *model, "a", out.path()).unwrap();
        let layers = model.layers();
        let adapter = layers.iter().find_map(|(_, layer)| layer.adapters().get("a")).unwrap() as &dyn std::any::Any;
        assert_eq!(adapter.downcast_ref::<peft::BottleneckAdapter<f32>>().unwrap().activation(), activation);
    }
}

/// Needs a Python of its own, for the library takes an older transformers than the other tests do:
/// `TENFOLD_ADAPTERS_PYTHON=python3 cargo test --test models -- --ignored adapterhub_reads`.
#[test]
#[ignore = "needs Python with AdapterHub's library; see the documentation of the test"]
fn adapterhub_reads_what_is_written_here() {
    let python = std::env::var("TENFOLD_ADAPTERS_PYTHON").expect("TENFOLD_ADAPTERS_PYTHON names a Python");
    let out = tempfile::tempdir().unwrap();
    for (case, kind, size) in
        [("bert", "houlsby", 5), ("bert", "pfeiffer", 3), ("deberta_v3", "houlsby", 4), ("deberta_v3", "pfeiffer", 7)]
    {
        let mut model = open::<f32>(case);
        Attach::new(&method(kind, size)).name("ours").apply(&mut *model).unwrap();
        move_away_in_singles(&mut *model);
        let folder = out.path().join(format!("{case}_{kind}"));
        adapterhub::save(&*model, "ours", &folder).unwrap();
        let logits = logits(&model, case);
        TensorFile::new().with("logits", &logits).unwrap().save(folder.join("logits.safetensors")).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/read_adapters.py");
        let status = std::process::Command::new(&python).arg(script).args([&fixture(case), &folder]).status().unwrap();
        assert!(status.success(), "{case} {kind}");
    }
}

fn move_away_in_singles(model: &mut dyn TextClassifier<f32>) {
    let rng = &mut rand_chacha::ChaCha8Rng::from_seed([3; 32]);
    for (_, parameter) in model.parameters_mut().into_iter().filter(|(_, parameter)| parameter.trains()) {
        let start: Tensor<f32> = Tensor::normal(parameter.shape().to_vec(), rng).unwrap();
        parameter.set(start.scale(0.3).unwrap()).unwrap();
    }
}

/// A place of one's own: both placements by their formula, and their gradients by finite differences.
#[test]
fn the_formula_and_its_gradients() {
    let rng = &mut rand_chacha::ChaCha8Rng::from_seed([2; 32]);
    for kind in ["houlsby", "pfeiffer"] {
        let mut place = ResidualNorm::<f64>::new(5, 1e-6, Sublayer::FeedForward).unwrap();
        let mut norm = LayerNorm::<f64>::new(5, 1e-6).unwrap();
        Attach::new(&method(kind, 3)).apply(&mut place).unwrap();
        place.unfreeze_all();
        for (_, parameter) in place.parameters_mut() {
            parameter.set(Tensor::normal(parameter.shape().to_vec(), rng).unwrap()).unwrap();
        }
        for ((_, theirs), (_, ours)) in norm.parameters_mut().into_iter().zip(place.parameters()) {
            theirs.set(ours.value().clone()).unwrap();
        }
        let mut draw = || Var::parameter(Tensor::<f64, _>::normal([4, 5], rng).unwrap().into_dyn());
        let (x, h) = (draw(), draw());
        let adapter = place.adapters().get("default").unwrap();
        let adapter = (adapter as &dyn std::any::Any).downcast_ref::<peft::BottleneckAdapter<f64>>().unwrap();
        let seen = if kind == "houlsby" { h.clone() } else { norm.forward(&x.add(&h).unwrap()).unwrap() };
        let sum = x.add(&h).unwrap().add(&adapter.of(&seen).unwrap()).unwrap();
        let (ours, formula) = (place.forward(&x, &h, Mode::Evaluation).unwrap(), norm.forward(&sum).unwrap());
        assert!(away(ours.value(), formula.value()) < 1e-13, "{kind}");

        let weights = Var::constant(Tensor::<f64, _>::normal([4, 5], rng).unwrap().into_dyn());
        let value = |place: &ResidualNorm<f64>, x: &Var<f64>, h: &Var<f64>| {
            place.forward(x, h, Mode::Evaluation).unwrap().mul(&weights).unwrap().sum().unwrap()
        };
        let gradients = value(&place, &x, &h).backward().unwrap();
        let step = 1e-6;
        let check = |what: &str, ours: &Tensor<f64>, at: &mut dyn FnMut(usize, f64) -> f64| {
            for (i, ours) in ours.to_vec().unwrap().into_iter().enumerate() {
                let theirs = (at(i, step) - at(i, -step)) / (2.0 * step);
                assert!((ours - theirs).abs() < 1e-6 * (1.0 + theirs.abs()), "{kind} {what} {i}: {ours} and {theirs}");
            }
        };
        let moved = |of: &Tensor<f64>, i: usize, by: f64| {
            let mut values = of.to_vec().unwrap();
            values[i] += by;
            Tensor::from_vec(of.shape().to_vec(), values).unwrap().into_dyn()
        };
        let at = |x: &Var<f64>, h: &Var<f64>| value(&place, x, h).item().unwrap();
        check("x", gradients.of(&x).unwrap(), &mut |i, by| at(&Var::constant(moved(x.value(), i, by)), &h));
        check("h", gradients.of(&h).unwrap(), &mut |i, by| at(&x, &Var::constant(moved(h.value(), i, by))));
        let parameters: Vec<(String, Parameter<f64>)> =
            place.parameters().into_iter().map(|(name, parameter)| (name, parameter.clone())).collect();
        assert_eq!(parameters.len(), 6);
        for (n, (name, parameter)) in parameters.iter().enumerate() {
            let mut other = place.clone();
            check(name, gradients.of(parameter.var()).unwrap(), &mut |i, by| {
                other.parameters_mut()[n].1.set(moved(parameter.value(), i, by)).unwrap();
                value(&other, &x, &h).item().unwrap()
            });
        }
    }
}

#[test]
fn the_papers_counts() {
    // DeBERTaV3-base: 12 blocks, 768 wide.
    let sizes = |kind: &str, bottleneck: &Bottleneck| {
        let place = |after| ResidualNorm::<f32>::new(768, 1e-7, after).unwrap();
        let places = [place(Sublayer::Attention), place(Sublayer::FeedForward)];
        let chosen = places.iter().filter(|place| Method::<f32>::fits(bottleneck, place.operation()));
        let sites: Vec<Site<'_>> = chosen.map(|place| Site::of_layer(kind, place).unwrap()).collect();
        12 * Plan::of::<f32>(bottleneck, &sites).unwrap().parameters()
    };
    assert_eq!(sizes("HAdapter", &Bottleneck::houlsby(32)), 1_198_848);
    assert_eq!(sizes("PAdapter", &Bottleneck::pfeiffer(64).without_biases()), 1_179_648);
    assert_eq!(sizes("PAdapter", &Bottleneck::pfeiffer(64)), 1_189_632);
}
