//! Adapters of other programs here, and ours there: the same file means the same model.
//!
//! What stock PEFT and LyCORIS wrote (`tests/fixtures/torch/interop`, made by `write.py`) is loaded here by every run of the tests. The other direction
//! needs Python with torch, peft and lycoris-lora, and runs where it is asked for:
//!
//! ```sh
//! TENFOLD_PYTHON=python3 cargo test --test interop -- --ignored
//! ```

mod model;

use model::{Model, expected, fixtures};
use std::{path::Path, process::Command};
use tenfold::{
    Tensor, TensorFile,
    nn::Module,
    peft::{
        self, AdaLora, Attach, Dora, Flora, Lora, Method, SaveAdapter, Scaling, Targets,
        authors::{self, Names},
        lycoris,
    },
};

#[track_caller]
fn close(what: &str, ours: &Tensor<f64>, theirs: &Tensor<f64>) {
    let away = ours.sub(theirs).unwrap().max_abs().unwrap();
    assert!(away < 1e-12 * theirs.max_abs().unwrap().max(1.0), "{what}: {away} apart");
}

/// The model computes what theirs did, and not what the base model does.
#[track_caller]
fn same(what: &str, model: &Model<f64>) {
    let file = expected();
    close(what, &model.run(), &file.get(what).unwrap());
    assert!(model.run().sub(&file.get("base").unwrap()).unwrap().max_abs().unwrap() > 1e-3, "{what} is the base model");
}

#[test]
fn the_base_model_is_the_same() {
    close("base", &Model::base().run(), &expected().get("base").unwrap());
}

#[test]
fn what_peft_wrote_loads_here() {
    for (case, layers, training) in [
        ("lora", 6, 2 * 6 + 2),
        ("rslora", 3, 2 * 3),
        ("dora", 6, 3 * 6),
        ("biases", 3, 2 * 3 + 10),
        ("lora_biases", 3, 2 * 3 + 3),
        // One layer has no triplet left, and nothing that trains.
        ("adalora", 5, 3 * 4 + 2),
    ] {
        let mut model = Model::base();
        let loaded = peft::load(&mut model, fixtures().join(case)).unwrap();
        same(case, &model);
        assert_eq!(loaded.layers.len(), layers, "{case}: {:?}", loaded.layers);
        let trains = model.parameters().into_iter().filter(|(_, parameter)| parameter.trains()).count();
        assert_eq!(trains, training, "{case}");
        // Written again, it is the same adapter still.
        let folder = tempfile::tempdir().unwrap();
        peft::save(&model, folder.path()).unwrap();
        let mut again = Model::base();
        peft::load(&mut again, folder.path()).unwrap();
        same(case, &again);
        if case == "lora" {
            peft::merge(&mut model).unwrap();
            same(case, &model);
        }
    }
}

#[test]
fn what_lycoris_wrote_loads_here() {
    let mut model = Model::base();
    let path = fixtures().join("lycoris.safetensors");
    let loaded = lycoris::load(&mut model, "default", "lycoris", &path).unwrap();
    assert_eq!(loaded.layers, ["blocks.1.up", "conv1", "conv2"]);
    same("lycoris", &model);
    // Out again: the same tensors, the order of whose numbers is theirs.
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    lycoris::save(&model, "default", "lycoris", &out).unwrap();
    let (ours, theirs) = (TensorFile::open(&out).unwrap(), TensorFile::open(&path).unwrap());
    ours.expect_names(theirs.names()).unwrap();
    for name in theirs.names() {
        close(name, &ours.get(name).unwrap(), &theirs.get(name).unwrap());
    }
}

#[test]
fn what_the_authors_programs_write_loads_here() {
    for (case, names) in [("authors", Names::Layers), ("glue", Names::Matrices)] {
        let path = fixtures().join(format!("{case}.safetensors"));
        let mut model = Model::base();
        authors::load(&mut model, "default", 0.4, &path).unwrap();
        same(case, &model);
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out.safetensors");
        assert_eq!(authors::save(&model, "default", names, &out).unwrap(), 0.4);
        assert_eq!(TensorFile::open(&out).unwrap(), TensorFile::open(&path).unwrap());
    }
}

/// A model with a method attached and other numbers in all that trains, written by `write`; its output goes into the expected file.
fn ours(
    file: &mut TensorFile,
    name: &str,
    method: &dyn Method<f64>,
    layers: Targets,
    keep: Option<Targets>,
    write: impl Fn(&Model<f64>) -> tenfold::Result<()>,
) {
    let mut model = Model::base();
    let attach = Attach::new(method).to(layers);
    keep.map_or(attach.clone(), |keep| attach.keep(keep)).apply(&mut model).unwrap();
    model.train();
    write(&model).unwrap();
    file.insert(name, &model.run()).unwrap();
}

/// Trained for so long that the target is reached, which leaves one layer without a triplet.
fn pruned_model(adalora: &AdaLora, layers: Targets) -> Model<f64> {
    let mut model = Model::base();
    peft::attach(&mut model, adalora, &layers).unwrap();
    model.train();
    for (name, parameter) in model.parameters_mut() {
        if name.starts_with("blocks.0.down.default.") {
            let small = parameter.value().scale(1e-3).unwrap();
            parameter.set(small).unwrap();
        }
    }
    let mut allocator = adalora.allocator().unwrap();
    for step in 1..=3 {
        let gradients = model.loss().unwrap().backward().unwrap().into();
        allocator.before_step(&model, &gradients, step, 3).unwrap();
        allocator.after_step(&mut model, step, 3).unwrap();
    }
    let left = peft::ranks_left(&model).unwrap();
    assert_eq!(left.iter().map(|(_, rank)| rank).sum::<usize>(), 2 * left.len());
    assert!(left.contains(&("blocks.0.down".into(), 0)), "{left:?}");
    model
}

fn write_ours(folder: &Path) {
    let mut file = expected();
    let all = || Targets::all().except("head");
    let head = || Some(Targets::of(["head"]));
    let lora = Lora::new(3).alpha(4.0).rank_pattern("blocks.0.up", 2);
    let rslora = Lora::new(3).scaling(Scaling::RootRank { alpha: 4.0 });
    let dora = Dora::from(Lora::new(2).alpha(3.0));
    let flora = Flora::new().rank(3).scale(0.7);
    let methods: [(&str, &dyn Method<f64>, Option<Targets>); 5] = [
        ("lora", &lora, head()),
        ("rslora", &rslora, None),
        ("dora", &dora, head()),
        ("flora", &flora, head()),
        ("bias", &lora, Some(Targets::of(["*.bias"]))),
    ];
    for (name, method, keep) in methods {
        let name = format!("ours_{name}");
        ours(&mut file, &name, method, all(), keep, |model| {
            SaveAdapter::new().for_peft().write(model, folder.join(&name))
        });
    }
    let adalora = AdaLora::new(2).alpha(4.0).warmup(0).settle(0);
    let spare = || Targets::of(["conv1", "conv2", "up", "down"]);
    ours(&mut file, "ours_adalora", &adalora, spare(), head(), |model| {
        SaveAdapter::new().for_peft().write(model, folder.join("ours_adalora"))
    });
    let pruned = pruned_model(&adalora, spare());
    SaveAdapter::new().for_peft().write(&pruned, folder.join("ours_adalora_pruned")).unwrap();
    file.insert("ours_adalora_pruned", &pruned.run()).unwrap();
    // "up" alone is the end of two layers' names.
    let one = Targets::of(["blocks.0.up"]);
    ours(&mut file, "ours_one", &lora, one, None, |model| peft::save(model, folder.join("ours_one")));
    let some = || Targets::all().except("head").except("words");
    let wide = Flora::new().rank_pattern("conv1", peft::Ranks::Modes(vec![2, 4, 2, 1])).rank(3).scale(0.7);
    for (name, method) in [("lycoris_flora", &wide as &dyn Method<f64>), ("lycoris_lora", &lora)] {
        let path = folder.join(format!("{name}.safetensors"));
        ours(&mut file, name, method, some(), None, |model| lycoris::save(model, "default", "lycoris", &path));
    }
    file.save(folder.join("expected.safetensors")).unwrap();
}

/// Needs Python with torch, peft and lycoris-lora; `TENFOLD_PYTHON` names it, `python3` unless it is set.
#[test]
#[ignore = "needs Python with torch, peft and lycoris-lora"]
fn what_is_written_here_loads_there() {
    let folder = tempfile::tempdir().unwrap();
    write_ours(folder.path());
    let python = std::env::var("TENFOLD_PYTHON").unwrap_or("python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/read.py");
    let output = Command::new(python).arg(script).arg(folder.path()).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    assert!(output.status.success() && text.contains("10 cases agree"), "{text}");
}

/// It needs no Python to be written, and what is written comes back.
#[test]
fn what_is_written_here_loads_here() {
    let folder = tempfile::tempdir().unwrap();
    write_ours(folder.path());
    let file = TensorFile::open(folder.path().join("expected.safetensors")).unwrap();
    for name in file.names().filter(|name| name.starts_with("ours_")) {
        let mut model = Model::base();
        peft::load(&mut model, folder.path().join(name)).unwrap();
        close(name, &model.run(), &file.get(name).unwrap());
    }
    for name in ["lycoris_flora", "lycoris_lora"] {
        let mut model = Model::base();
        lycoris::load(&mut model, "default", "lycoris", folder.path().join(format!("{name}.safetensors"))).unwrap();
        close(name, &model.run(), &file.get(name).unwrap());
    }
}
