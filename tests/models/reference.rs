//! Logits, features, all gradients and all running statistics are those of transformers, timm and torchvision
//! (`tests/fixtures/models`), in both precisions.

use ndarray::{Dimension, Ix1, Ix4, IxDyn};
use std::path::{Path, PathBuf};
use tenfold::{
    Element, Scalar, Tensor, TensorFile,
    autodiff::{CrossEntropy, Var},
    models::{
        Architecture, CifarResNet, ConvNext, ConvNextConfig, ConvNextNames, EfficientNetLite, EfficientNetLiteConfig,
        EfficientNetStage, ImageClassifier,
    },
    nn::{Checkpoint, Mode, Renames},
};

pub fn fixture(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(case)
}

/// The values of one case, under the library's names.
pub struct Expected(TensorFile);

impl Expected {
    pub fn read(case: &str) -> Self {
        Self::of(&fixture(case))
    }

    /// Those that lie in a folder.
    pub fn of(folder: &Path) -> Self {
        Self(TensorFile::open(folder.join("expected.safetensors")).unwrap())
    }

    pub fn images<T: Scalar>(&self) -> Var<T> {
        Var::constant(self.0.get::<f32, Ix4>("images").unwrap().cast().unwrap())
    }

    pub fn labels(&self) -> Tensor<i64, Ix1> {
        self.0.get("labels").unwrap()
    }

    /// Every entry is theirs, relative to the largest.
    #[track_caller]
    pub fn check<T: Scalar>(&self, name: &str, ours: &Tensor<T>, tolerance: f64) {
        let theirs = self.0.get::<f64, IxDyn>(name).unwrap();
        // Libraries differ in modes of size 1.
        let (ours, theirs) = (ours.cast::<f64>().unwrap(), theirs.reshape(ours.shape()).unwrap().into_dyn());
        // A bias in front of a norm has no gradient: all that is there is rounding.
        let scale = Some(theirs.max_abs().unwrap()).filter(|&scale| scale > 1e-12).unwrap_or(1e-2);
        let away = ours.sub(&theirs).unwrap().max_abs().unwrap();
        assert!(away <= tolerance * scale, "{name}: {away:e} away from {scale:e}");
    }

    /// A tensor as it lies in the file.
    pub fn get<U: Element, D: Dimension>(&self, name: &str) -> Tensor<U, D> {
        self.0.get(name).unwrap()
    }

    pub fn names(&self, kind: &str) -> Vec<String> {
        self.0.names().filter_map(|name| name.strip_prefix(kind)).map(str::to_string).collect()
    }
}

/// All that a case has of logits, features, gradients and running statistics. Stages are the caller's.
#[track_caller]
fn compare<T: Scalar>(expected: &Expected, model: &dyn ImageClassifier<T>, from: &Renames, tolerance: f64) {
    let images = expected.images::<T>();
    let logits = model.forward(&images, Mode::Evaluation).unwrap();
    expected.check("logits", logits.value(), tolerance);
    if !expected.names("features").is_empty() {
        expected.check("features", model.embed(&images, Mode::Evaluation).unwrap().value(), tolerance);
    }
    let logits = model.forward(&images, Mode::training(1, 0)).unwrap();
    let loss = logits.cross_entropy(&expected.labels(), CrossEntropy::default()).unwrap();
    expected.check("loss", loss.value(), tolerance);
    let gradients = loss.backward().unwrap();
    model.gradient_report(&gradients).check().unwrap();
    let parameters = model.parameters();
    let theirs = expected.names("grad.");
    assert_eq!(parameters.len(), theirs.len());
    for name in theirs {
        let ours = from.apply(&name);
        let (_, parameter) = parameters.iter().find(|(name, _)| *name == ours).unwrap_or_else(|| panic!("no {ours}"));
        expected.check(&format!("grad.{name}"), gradients.of(parameter.var()).unwrap(), tolerance);
    }
    let buffers = model.buffers();
    let theirs = expected.names("after.");
    assert_eq!(buffers.len(), theirs.len());
    for name in theirs {
        let ours = from.apply(&name);
        let (_, buffer) = buffers.iter().find(|(name, _)| *name == ours).unwrap_or_else(|| panic!("no {ours}"));
        expected.check(&format!("after.{name}"), &buffer.value(), tolerance);
    }
}

fn convnext<T: Scalar>(case: &str, names: ConvNextNames, tolerance: f64) {
    let expected = Expected::read(case);
    let model = ConvNext::<T>::open(fixture(case)).unwrap();
    assert_eq!((&model.config().hidden_sizes[..], &model.config().depths[..]), (&[4, 6, 8, 10][..], &[1, 1, 2, 1][..]));
    let file = fixture(case).join("model.safetensors");
    assert_eq!(ConvNextNames::of(&Checkpoint::open(&file).unwrap()).unwrap(), names);
    let stages = model.features(&expected.images(), Mode::Evaluation).unwrap();
    assert_eq!(stages.len(), 4);
    if names == ConvNextNames::HuggingFace {
        for (i, stage) in stages.iter().enumerate() {
            expected.check(&format!("stage.{i}"), stage.value(), tolerance);
        }
    }
    compare(&expected, &model, &names.renames_from(model.config().version, 4).unwrap(), tolerance);
    // Without config.json, from shapes.
    let of_shapes = ConvNext::<T>::open(&file).unwrap();
    assert_eq!(of_shapes.config(), model.config());
}

#[test]
fn convnext_is_that_of_transformers_timm_and_torchvision() {
    for (case, names) in [
        ("convnextv2_transformers", ConvNextNames::HuggingFace),
        ("convnext_transformers", ConvNextNames::HuggingFace),
        ("convnextv2_timm", ConvNextNames::Timm { conv_mlp: true }),
        ("convnext_timm", ConvNextNames::Timm { conv_mlp: false }),
        ("convnext_torchvision", ConvNextNames::Torchvision),
    ] {
        println!("{case}");
        convnext::<f64>(case, names, 1e-9);
        convnext::<f32>(case, names, 1e-4);
    }
}

/// The stages of the fixture.
pub fn narrow(same_padding: bool) -> EfficientNetLiteConfig {
    let stage =
        |blocks, kernel, stride, expansion, channels| EfficientNetStage { blocks, kernel, stride, expansion, channels };
    EfficientNetLiteConfig {
        stem: 8,
        stages: vec![stage(1, 3, 1, 1, 8), stage(2, 3, 2, 6, 8), stage(1, 5, 2, 2, 16), stage(2, 5, 1, 2, 16)],
        features: 24,
        num_labels: 5,
        same_padding,
        batch_norm_eps: if same_padding { 1e-3 } else { 1e-5 },
        drop_rate: 0.0,
        drop_path_rate: 0.0,
    }
}

fn efficientnet<T: Scalar>(case: &str, same_padding: bool, tolerance: f64) {
    let mut model = EfficientNetLite::<T>::zeros(narrow(same_padding)).unwrap();
    let loaded = model.load(&Checkpoint::open(fixture(case)).unwrap()).unwrap();
    assert!(loaded.ignored.iter().all(|name| name.ends_with("num_batches_tracked")) && !loaded.ignored.is_empty());
    compare(&Expected::read(case), &model, &Renames::new(), tolerance);
}

#[test]
fn efficientnet_lite_is_timms() {
    for (case, same_padding) in [("efficientnet_lite_same", true), ("efficientnet_lite_even", false)] {
        efficientnet::<f64>(case, same_padding, 1e-9);
        efficientnet::<f32>(case, same_padding, 1e-4);
    }
}

#[test]
fn resnet_is_that_of_timms_blocks() {
    let model = CifarResNet::<f64>::open(fixture("resnet_cifar")).unwrap();
    compare(&Expected::read("resnet_cifar"), &model, &Renames::new(), 1e-9);
    let model = CifarResNet::<f32>::open(fixture("resnet_cifar")).unwrap();
    compare(&Expected::read("resnet_cifar"), &model, &Renames::new(), 1e-4);
}

#[test]
fn a_file_says_which_model_it_is() {
    for (case, expected) in [("convnext_timm", "ConvNext("), ("resnet_cifar", "CifarResNet(")] {
        let checkpoint = Checkpoint::open(fixture(case)).unwrap();
        let architecture = Architecture::from_checkpoint(&checkpoint).unwrap();
        assert!(format!("{architecture:?}").starts_with(expected));
        let model = architecture.load::<f64>(&checkpoint).unwrap();
        let values = Expected::read(case);
        let logits = model.forward(&values.images(), Mode::Evaluation).unwrap();
        values.check("logits", logits.value(), 1e-9);
    }
}

#[test]
fn transformers_configuration_is_read_and_written() {
    for case in ["convnextv2_transformers", "convnext_transformers"] {
        let config = ConvNextConfig::from_json(fixture(case).join("config.json")).unwrap();
        assert_eq!((config.num_labels, config.patch_size, config.layer_norm_eps), (5, 2, 1e-12));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        std::fs::write(&file, config.to_json()).unwrap();
        assert_eq!(ConvNextConfig::from_json(&file).unwrap(), config);
        // Every word of ours is one of theirs, with the same value.
        let read = |path: &Path| -> serde_json::Map<String, serde_json::Value> {
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
        };
        let theirs = read(&fixture(case).join("config.json"));
        for (key, value) in read(&file) {
            assert_eq!(Some(&value), theirs.get(&key), "{case}: {key}");
        }
    }
}
