//! Strict loading: what its errors say, renaming, shards, files that are replaced.

use ndarray::{Ix1, IxDyn};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::{fs, path::PathBuf};
use tempfile::TempDir;
use tenfold::{
    Error, ErrorKind, Scalar, Tensor, TensorFile,
    autodiff::Var,
    module,
    nn::{Checkpoint, Grn, Linear, Load, Loaded, Module, Parameter, Renames, Save},
};

/// A folder that goes at the end, and a path in it.
fn place(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    (folder, path)
}

/// Layers of 4 to 3 with random numbers.
fn layers<T: Scalar>(count: usize, seed: u64) -> Vec<Linear<T>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| Linear::new(4, 3, &mut rng).unwrap()).collect()
}

fn values<T: Scalar>(module: &dyn Module<T>) -> Vec<Vec<f64>> {
    let parameters = module.parameters();
    parameters.into_iter().map(|(_, p)| p.value().to_vec().unwrap().into_iter().map(T::f64).collect()).collect()
}

/// The message behind the file's path.
fn message<V: std::fmt::Debug>(result: Result<V, Error>, kind: ErrorKind) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    let start = text.find(": ").unwrap() + 2;
    text[start..].split_once(": ").unwrap().1.to_string()
}

#[test]
fn names_that_differ_are_listed_on_both_sides() {
    let (_folder, path) = place("a.safetensors");
    Save::new().write(&layers::<f32>(2, 1), &path).unwrap();
    let mut longer = layers::<f32>(3, 2);
    let before = values(&longer);
    let error = Load::new().renames(Renames::new().exact("0.weight", "0.w")).read(&mut longer, &path);
    assert_eq!(
        message(error, ErrorKind::Value),
        "3 of the model's tensors are missing: \"0.weight\", \"2.bias\", \"2.weight\"; \
         1 of the file's tensors are unexpected: \"0.w\""
    );
    assert_eq!(values(&longer), before, "a refused file changed the model");

    // Many are counted, and the first are listed in order.
    let mut many = layers::<f32>(20, 2);
    assert_eq!(
        message(Load::new().read(&mut many, &path), ErrorKind::Value),
        "36 of the model's tensors are missing: \"10.bias\", \"10.weight\", \"11.bias\", \"11.weight\", \"12.bias\", \"12.weight\", \
         \"13.bias\", \"13.weight\", \"14.bias\", \"14.weight\", \"15.bias\", \"15.weight\" and 24 more"
    );
}

#[test]
fn what_is_said_to_be_left_over_or_missing_is_reported() {
    let (_folder, path) = place("a.safetensors");
    let file = layers::<f32>(2, 1);
    Save::new().write(&file, &path).unwrap();
    let mut model = layers::<f32>(3, 2);
    let kept = values(&model);
    let load = Load::new().ignore("0.*").allow_missing("0.*").allow_missing("2.*").allow_missing("nothing");
    let loaded = load.read(&mut model, &path).unwrap();
    let list = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let expected = Loaded {
        count: 2,
        ignored: list(&["0.bias", "0.weight"]),
        missing: list(&["0.bias", "0.weight", "2.bias", "2.weight"]),
    };
    assert_eq!(loaded, expected);
    let after = values(&model);
    assert_eq!(after[2..4], values(&file)[2..4]);
    assert_eq!((&after[..2], &after[4..]), (&kept[..2], &kept[4..]));
}

#[test]
fn shapes_and_types_are_named_with_both_sides() {
    let (_folder, path) = place("a.safetensors");
    let of = |weight: &Tensor<f32, IxDyn>| TensorFile::new().with("weight", weight).unwrap();
    let bias = Tensor::<i64, Ix1>::zeros([3]).unwrap();
    let mut model = layers::<f32>(1, 1).pop().unwrap();
    of(&Tensor::zeros(vec![3, 5]).unwrap()).with("bias", &bias).unwrap().save(&path).unwrap();
    assert_eq!(
        message(Load::new().read(&mut model, &path), ErrorKind::Shape),
        "1 tensor does not fit: \"weight\" has shape [3, 5] in the file and [3, 4] in the model"
    );
    of(&Tensor::zeros(vec![3, 4]).unwrap()).with("bias", &bias).unwrap().save(&path).unwrap();
    for load in [Load::new(), Load::new().round()] {
        assert_eq!(
            message(load.read(&mut model, &path), ErrorKind::Unsupported),
            "1 tensor does not fit: \"bias\" holds integers, i64, in the file and f32 in the model"
        );
    }
    // A transposed or flattened weight has the same numbers and is still refused.
    for shape in [vec![4, 3], vec![12], vec![3, 4, 1]] {
        of(&Tensor::zeros(shape).unwrap()).save(&path).unwrap();
        let error = Load::new().allow_missing("bias").read(&mut model, &path);
        message(error, ErrorKind::Shape);
    }
    Load::new().allow_missing("bias").squeeze("w*").read(&mut model, &path).unwrap();
    of(&Tensor::zeros(vec![4, 3]).unwrap()).save(&path).unwrap();
    message(Load::new().allow_missing("bias").squeeze("*").read(&mut model, &path), ErrorKind::Shape);
}

#[test]
fn hugging_faces_grn_is_squeezed() {
    let (_folder, path) = place("a.safetensors");
    let weight = Tensor::from_vec([1, 1, 1, 3], vec![1.0f32, 2.0, 3.0]).unwrap();
    TensorFile::new().with("weight", &weight).unwrap().with("bias", &weight).unwrap().save(&path).unwrap();
    let mut grn = Grn::<f64>::new(3, 1e-6).unwrap();
    assert!(Load::new().read(&mut grn, &path).is_err());
    Load::new().squeeze("*").read(&mut grn, &path).unwrap();
    assert_eq!(values(&grn), [[1.0, 2.0, 3.0]; 2]);
    assert_eq!(grn.parameters()[0].1.shape(), [3]);
}

#[test]
fn singles_widen_and_doubles_round_to_nearest() {
    let (_folder, path) = place("a.safetensors");
    let single = layers::<f32>(1, 1);
    Save::new().write(&single, &path).unwrap();
    let mut double = layers::<f64>(1, 2);
    Load::new().read(&mut double, &path).unwrap();
    assert_eq!(values(&single), values(&double));

    let precise = layers::<f64>(1, 3);
    Save::new().write(&precise, &path).unwrap();
    let mut rounded = layers::<f32>(1, 4);
    message(Load::new().read(&mut rounded, &path), ErrorKind::Unsupported);
    Load::new().round().read(&mut rounded, &path).unwrap();
    let nearest: Vec<Vec<f64>> =
        values(&precise).into_iter().map(|row| row.into_iter().map(|x| x as f32 as f64).collect()).collect();
    assert_eq!(values(&rounded), nearest);
    assert_ne!(values(&rounded), values(&precise));
}

#[test]
fn frozen_parameters_are_loaded_and_stay_frozen() {
    let (_folder, path) = place("a.safetensors");
    let file = layers::<f32>(1, 1);
    Save::new().write(&file, &path).unwrap();
    let mut model = layers::<f32>(1, 2);
    model.freeze_all();
    Load::new().read(&mut model, &path).unwrap();
    assert_eq!((values(&model), model.count().trainable), (values(&file), 0));
}

#[test]
fn a_parameter_that_is_one_number_comes_back() {
    let (_folder, path) = place("number.safetensors");
    let number = Var::<f32>::constant(Tensor::full([2], 1.5).unwrap()).sum().unwrap();
    let mut model = vec![Parameter::new(number.into_value())];
    assert!(model[0].shape().is_empty());
    Save::new().write(&model, &path).unwrap();
    model[0].value_mut().as_mut_slice().unwrap()[0] = 0.0;
    Load::new().read(&mut model, &path).unwrap();
    assert_eq!(model[0].value().to_vec().unwrap(), [3.0]);
}

#[test]
fn renames_go_both_ways_and_never_merge() {
    let (_folder, path) = place("a.safetensors");
    let file = layers::<f32>(2, 1);
    let out = Renames::new().pattern("*.weight", "bert.layer.*.dense.kernel").unwrap().pattern("?.bias", "x").unwrap();
    Save::new().renames(out).write(&file, &path).unwrap();
    let names = ["0.bias", "1.bias", "bert.layer.0.dense.kernel", "bert.layer.1.dense.kernel"];
    TensorFile::open(&path).unwrap().expect_names(names).unwrap();
    let back = Renames::new().strip_prefix("bert.").pattern("layer.*.dense.kernel", "*.weight").unwrap();
    let mut model = layers::<f32>(2, 2);
    Load::new().renames(back.clone()).read(&mut model, &path).unwrap();
    assert_eq!(values(&model), values(&file));

    let merged = back.pattern("*.bias", "0*").unwrap().with(|name| name.starts_with('0').then(|| "0.bias".to_string()));
    assert_eq!(
        message(Load::new().renames(merged).read(&mut model, &path), ErrorKind::Value),
        "\"0.bias\" and \"1.bias\" in the file both become \"0.bias\""
    );
    let same = Renames::new().with(|_| Some("same".to_string()));
    let error = Save::new().renames(same.clone()).write(&file, &path).unwrap_err();
    assert!(error.message().contains("there is a tensor \"same\" already"), "{error}");
    let folder = path.parent().unwrap();
    let error = Save::new().renames(same).shards_of(1).write(&file, folder).unwrap_err();
    assert!(error.message().ends_with("two tensors have the name \"same\""), "{error}");
}

/// Two parts of one name.
struct Twins<T: Scalar> {
    a: Parameter<T>,
    b: Parameter<T>,
}
module!(Twins { a => "same", b => "same" });

#[test]
fn two_parameters_of_one_name_are_refused() {
    let (_folder, path) = place("a.safetensors");
    let one = || Parameter::new(Tensor::<f32, _>::ones([1]).unwrap());
    let mut twins = Twins { a: one(), b: one() };
    assert!(Save::new().write(&twins, &path).is_err());
    assert!(!path.exists());
    TensorFile::new().with("same", &Tensor::<f32, _>::ones([1]).unwrap()).unwrap().save(&path).unwrap();
    let error = Load::new().read(&mut twins, &path);
    assert_eq!(message(error, ErrorKind::Value), "the model has two tensors of the name \"same\"");
}

#[test]
fn shards_hold_at_most_what_was_said() {
    let file = layers::<f32>(5, 1);
    // A layer has 48 + 12 bytes.
    for (most, shards) in [(1, 10), (60, 5), (119, 4), (120, 3), (299, 2), (300, 1), (u64::MAX, 1)] {
        let (_folder, path) = place("");
        Save::new().shards_of(most).write(&file, &path).unwrap();
        let mut names: Vec<String> =
            fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        if shards == 1 {
            assert_eq!(names, ["model.safetensors"]);
        } else {
            let mut expected: Vec<String> =
                (1..=shards).map(|i| format!("model-{i:05}-of-{shards:05}.safetensors")).collect();
            expected.push("model.safetensors.index.json".into());
            assert_eq!(names, expected, "{most}");
            let index: serde_json::Value =
                serde_json::from_slice(&fs::read(path.join("model.safetensors.index.json")).unwrap()).unwrap();
            assert_eq!(index["metadata"]["total_size"], 300);
            assert_eq!(index["weight_map"].as_object().unwrap().len(), 10);
        }
        let mut model = layers::<f32>(5, 2);
        assert_eq!(Load::new().read(&mut model, &path).unwrap().count, 10);
        assert_eq!(values(&model), values(&file));
    }
}

#[test]
fn shards_are_replaced_together_or_not_at_all() {
    let (_folder, path) = place("");
    let save = Save::new().shards_of(120);
    save.write(&layers::<f32>(5, 1), &path).unwrap();
    let content = || {
        let files = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        files.map(|path| (path.clone(), fs::read(path).unwrap())).collect::<std::collections::BTreeMap<_, _>>()
    };
    let before = content();
    save.write(&layers::<f32>(5, 2), &path).unwrap();
    let after = content();
    assert!(after != before && after.keys().eq(before.keys()));
    // The last shard cannot be written.
    let last = path.join("model-00003-of-00003.safetensors");
    fs::remove_file(&last).unwrap();
    fs::create_dir(&last).unwrap();
    let before = content();
    assert_eq!(save.write(&layers::<f32>(5, 3), &path).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(content(), before);
}

#[test]
fn a_file_may_be_replaced_while_it_is_open() {
    let (_folder, path) = place("a.safetensors");
    Save::new().write(&layers::<f32>(1, 1), &path).unwrap();
    let open = Checkpoint::open(&path).unwrap();
    Save::new().write(&layers::<f32>(1, 2), &path).unwrap();
    let (mut old, mut new) = (layers::<f32>(1, 3), layers::<f32>(1, 3));
    Load::new().apply(&mut old, &open).unwrap();
    Load::new().read(&mut new, &path).unwrap();
    assert_eq!((values(&old), values(&new)), (values(&layers::<f32>(1, 1)), values(&layers::<f32>(1, 2))));
}

#[test]
fn a_file_cut_short_while_it_is_open_is_an_error() {
    let (_folder, path) = place("a.safetensors");
    Save::new().write(&layers::<f32>(1, 1), &path).unwrap();
    let open = Checkpoint::open(&path).unwrap();
    let size = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(size - 1).unwrap();
    let error = Load::new().apply(&mut layers::<f32>(1, 3), &open);
    assert_eq!(message(error, ErrorKind::Format), "the file was cut short after it was opened");
}

#[test]
fn lazily_and_at_once_is_the_same() {
    let (_folder, path) = place("a.safetensors");
    // More than one piece of 1 MiB, with a value that another type does not hold far behind.
    let long = Tensor::<i64, Ix1>::from_fn([300_000], |i| i[0] as i64).unwrap();
    let file = TensorFile::new().with("long", &long).unwrap().with("empty", &Tensor::<f32, _>::zeros([0, 3]).unwrap());
    let file = file.unwrap().with_metadata("a", "b");
    file.save(&path).unwrap();
    let (lazy, whole) = (TensorFile::open_lazily(&path).unwrap(), TensorFile::open(&path).unwrap());
    assert!(lazy == whole && lazy == file);
    assert_eq!(lazy.get::<i64, Ix1>("long").unwrap(), long);
    assert_eq!(lazy.get::<f32, IxDyn>("empty").unwrap().shape(), [0, 3]);
    let wide = |file: &TensorFile| file.get::<f32, Ix1>("long").map(|x| x.len()).map_err(|e| e.message().to_string());
    assert_eq!(wide(&lazy), Ok(300_000));
    let half = |file: &TensorFile| file.get::<half::f16, Ix1>("long").unwrap_err().message().to_string();
    assert!(half(&lazy).contains("the entry at [2049] is 2049"), "{}", half(&lazy));
    assert_eq!(half(&lazy), half(&whole));
    let far = Tensor::<i64, Ix1>::from_fn([300_000], |i| if i[0] == 299_999 { -1 } else { 0 }).unwrap();
    TensorFile::new().with("far", &far).unwrap().save(&path).unwrap();
    let error = TensorFile::open_lazily(&path).unwrap().get::<u8, Ix1>("far").unwrap_err();
    assert!(error.message().contains("the entry at [299999] is -1"), "{error}");
    // An open file can be added to and written over itself.
    let more = TensorFile::open_lazily(&path).unwrap().with("more", &long).unwrap();
    more.save(&path).unwrap();
    assert!(TensorFile::open(&path).unwrap() == more);
}
