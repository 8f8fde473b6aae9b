//! Files of models: there and back under every name, and what does not fit.

use crate::reference::{Expected, fixture};
use ndarray::IxDyn;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use tenfold::{
    Error, ErrorKind, TensorFile,
    models::{
        Architecture, CifarResNet, ConvNext, ConvNextConfig, ConvNextNames, EfficientNetLite, EfficientNetLiteConfig,
        ImageClassifier,
    },
    nn::{Checkpoint, Linear, Mode, Module, Save},
};

/// What a file holds, but for counts of batches.
fn content(path: &std::path::Path) -> BTreeMap<String, tenfold::Tensor<f32>> {
    let file = TensorFile::open(path).unwrap();
    let names = file.names().filter(|name| !name.ends_with("num_batches_tracked"));
    names.map(|name| (name.to_string(), file.get::<f32, IxDyn>(name).unwrap())).collect()
}

#[test]
fn classes_keep_their_names_where_files_have_a_place_for_them() {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let names = ["daisy", "rose"].map(String::from);
    let folder = tempfile::tempdir().unwrap();
    let mut model = ConvNext::<f32>::open(fixture("convnextv2_transformers")).unwrap();
    assert!(model.label_names().is_empty());
    model.reset_classifier(2, rng).unwrap();
    assert!(model.name_labels(&[names[0].clone(), names[0].clone()]).unwrap_err().message().contains("\"daisy\""));
    model.name_labels(&names).unwrap();
    model.write(folder.path()).unwrap();
    let mut again = ConvNext::<f32>::open(folder.path()).unwrap();
    assert_eq!(again.label_names(), names);
    // An encoder alone has no classes to name, whatever its configuration says of them.
    again.reset_classifier(0, rng).unwrap();
    Save::new().write(&again, folder.path().join("model.safetensors")).unwrap();
    let config = ConvNext::<f32>::open(folder.path()).unwrap().config().clone();
    assert_eq!((config.num_labels, config.label_names.len()), (0, 0));

    let config =
        EfficientNetLiteConfig { num_labels: 2, ..EfficientNetLiteConfig::named("efficientnet-lite0").unwrap() };
    let mut other = EfficientNetLite::<f32>::new(config, rng).unwrap();
    other.name_labels(&names).unwrap();
    assert!(other.label_names().is_empty());
    assert_eq!(other.name_labels(&names[..1]).unwrap_err().kind(), ErrorKind::Value);
}

#[test]
fn what_is_written_is_what_the_library_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("again.safetensors");
    for case in
        ["convnextv2_transformers", "convnext_transformers", "convnextv2_timm", "convnext_timm", "convnext_torchvision"]
    {
        let file = fixture(case).join("model.safetensors");
        let model = ConvNext::<f32>::open(fixture(case)).unwrap();
        let names = ConvNextNames::of(&Checkpoint::open(&file).unwrap()).unwrap();
        names.save(model.config()).unwrap().write(&model, &path).unwrap();
        assert_eq!(content(&path), content(&file), "{case}");
    }
    CifarResNet::<f32>::open(fixture("resnet_cifar")).unwrap().save(&path).unwrap();
    assert_eq!(content(&path), content(&fixture("resnet_cifar").join("model.safetensors")));
}

#[test]
fn a_folder_of_ours_is_one_of_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("new");
    let expected = Expected::read("convnext_timm");
    // From timm's names to Hugging Face's.
    let model = ConvNext::<f64>::open(fixture("convnext_timm")).unwrap();
    model.save(&folder).unwrap();
    let again = ConvNext::<f64>::open(&folder).unwrap();
    assert_eq!(again.config(), model.config());
    expected.check("logits", again.forward(&expected.images(), Mode::Evaluation).unwrap().value(), 1e-9);
    let grn = ConvNext::<f32>::open(fixture("convnextv2_timm")).unwrap();
    grn.save(&folder).unwrap();
    let file = TensorFile::open(folder.join("model.safetensors")).unwrap();
    assert_eq!(file.shape("convnextv2.encoder.stages.0.layers.0.grn.weight").unwrap(), [1, 1, 1, 16]);
}

#[test]
fn weights_are_not_replaced_without_their_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, config) = (folder.path().join("model.safetensors"), folder.path().join("config.json"));
    ConvNext::<f32>::open(fixture("convnext_timm")).unwrap().save(folder.path()).unwrap();
    let before = std::fs::read(&weights).unwrap();
    std::fs::remove_file(&config).unwrap();
    std::fs::create_dir(&config).unwrap();
    let error = ConvNext::<f32>::open(fixture("convnextv2_timm")).unwrap().save(folder.path()).unwrap_err();
    assert!(error.kind() == ErrorKind::Io && error.message().contains("config.json"), "{error}");
    assert_eq!(std::fs::read(&weights).unwrap(), before);
}

#[test]
fn a_plain_encoder_is_a_model_without_a_classifier() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut whole = ConvNext::<f32>::open(fixture("convnextv2_transformers")).unwrap();
    whole.reset_classifier(0, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    // transformers leaves the first part of names out here.
    let renames = tenfold::nn::Renames::new().strip_prefix("convnextv2.");
    Save::new().renames(renames).write(&whole, &path).unwrap();
    std::fs::copy(fixture("convnextv2_transformers").join("config.json"), folder.path().join("config.json")).unwrap();
    for path in [&path, folder.path()] {
        let encoder = ConvNext::<f32>::open(path).unwrap();
        assert_eq!((encoder.labels(), encoder.count()), (0, whole.count()));
        let x = Expected::read("convnextv2_transformers").images();
        let features = encoder.embed(&x, Mode::Evaluation).unwrap();
        assert_eq!(features.value(), whole.embed(&x, Mode::Evaluation).unwrap().value());
        let error = encoder.forward(&x, Mode::Evaluation).unwrap_err();
        assert!(error.message().starts_with("the model has no classifier"), "{error}");
    }
}

#[test]
fn an_architecture_is_found_again_in_what_it_writes() {
    let folder = tempfile::tempdir().unwrap();
    let small = ConvNextConfig {
        hidden_sizes: vec![4, 8],
        depths: vec![1, 2],
        patch_size: 2,
        ..ConvNextConfig::named("convnextv2-atto").unwrap()
    };
    let resnet = Architecture::named("resnet20").unwrap();
    let lite = Architecture::named("efficientnet-lite0").unwrap();
    for (name, architecture) in [("convnext", Architecture::ConvNext(small)), ("resnet", resnet), ("lite", lite)] {
        let (folder, architecture) = (folder.path().join("new").join(name), architecture.with_labels(3));
        let mut model = architecture.build::<f32>(&mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        model.write(&folder).unwrap();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let found = Architecture::at(&folder, &checkpoint).unwrap();
        assert_eq!(found, architecture);
        let again = found.load::<f32>(&checkpoint).unwrap();
        let values = |model: &dyn ImageClassifier<f32>| -> Vec<tenfold::Tensor<f32>> {
            model.parameters().into_iter().map(|(_, parameter)| parameter.value().clone()).collect()
        };
        assert_eq!(values(&*again), values(&*model));
        // A name leaves labels and patches open.
        assert_eq!(architecture.clone().with_labels(1000).sized_for(&checkpoint), architecture);
        model.reset_classifier(0, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        model.write(&folder).unwrap();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        assert_eq!(Architecture::at(&folder, &checkpoint).unwrap(), architecture.with_labels(0));
    }
    let named = Architecture::named("convnextv2-atto").unwrap();
    let checkpoint = Checkpoint::open(folder.path().join("new/convnext")).unwrap();
    let Architecture::ConvNext(sized) = named.clone().sized_for(&checkpoint) else { panic!("another kind") };
    assert_eq!((sized.patch_size, sized.num_labels, sized.depths.len()), (2, 0, 4));
    let checkpoint = Checkpoint::open(folder.path().join("new/resnet")).unwrap();
    assert_eq!(named.clone().sized_for(&checkpoint), named);
}

fn message<T>(result: Result<T, Error>, kind: ErrorKind) -> String {
    let error = result.map(drop).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    error.message().to_string()
}

#[test]
fn what_does_not_fit_lists_both_sides() {
    let v2 = Checkpoint::open(fixture("convnextv2_transformers")).unwrap();
    let v1 = ConvNextConfig::from_json(fixture("convnext_transformers").join("config.json")).unwrap();
    let mut model = ConvNext::<f32>::zeros(v1.clone()).unwrap();
    let text = message(model.load(&v2), ErrorKind::Value);
    for part in ["model's tensors are missing: ", "\"convnext.", "file's tensors are unexpected: ", "\"convnextv2."] {
        assert!(text.contains(part), "{text}");
    }
    let shallow = ConvNextConfig { depths: vec![1, 1, 1, 1], ..v1.clone() };
    let checkpoint = Checkpoint::open(fixture("convnext_transformers")).unwrap();
    let text = message(ConvNext::<f32>::zeros(shallow).unwrap().load(&checkpoint), ErrorKind::Value);
    assert!(text.contains("unexpected: \"convnext.encoder.stages.2.layers.1."), "{text}");
    let wide = ConvNextConfig { hidden_sizes: vec![4, 6, 8, 12], ..v1.clone() };
    let text = message(ConvNext::<f32>::zeros(wide).unwrap().load(&checkpoint), ErrorKind::Shape);
    assert!(text.contains("\"classifier.weight\" has shape [5, 10] in the file and [5, 12] in the model"), "{text}");
    let text = message(Architecture::named("resnet20").unwrap().load::<f32>(&checkpoint), ErrorKind::Value);
    assert!(text.contains("missing: \"bn1.bias\"") && text.contains("unexpected: \"classifier.bias\""), "{text}");
    let text = message(Architecture::named("efficientnet-lite0").unwrap().load::<f32>(&checkpoint), ErrorKind::Value);
    assert!(text.contains("not an EfficientNet's tensors"), "{text}");
}

#[test]
fn other_files_are_refused_with_what_they_have() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    Save::new().write(&Linear::<f32>::zeros(2, 3).unwrap(), &path).unwrap();
    let text = message(ConvNext::<f32>::open(&path), ErrorKind::Value);
    assert!(
        text.contains("by the names of Hugging Face, timm or torchvision; there are \"bias\", \"weight\""),
        "{text}"
    );
    assert!(message(CifarResNet::<f32>::open(&path), ErrorKind::Value).contains("not the tensors of a ResNet"));
    assert!(message(EfficientNetLite::<f32>::open(&path), ErrorKind::Value).contains("there are \"bias\", \"weight\""));
    let text = message(Architecture::from_checkpoint(&Checkpoint::open(&path).unwrap()), ErrorKind::Value);
    assert!(
        text.contains("ConvNextNames") && text.contains("CifarResNet") && text.contains("EfficientNetNames"),
        "{text}"
    );
    // Blocks of no published size.
    let text = message(EfficientNetLite::<f32>::open(fixture("efficientnet_lite_same")), ErrorKind::Value);
    assert!(text.contains("blocks of [8, 8, 8, 16, 16, 16] channels are none of EfficientNet-Lite0 to 4"), "{text}");
}

/// The right names with shapes that make no sense are errors.
#[test]
fn shapes_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for case in
        ["convnextv2_transformers", "convnext_timm", "convnext_torchvision", "resnet_cifar", "efficientnet_lite_same"]
    {
        let theirs = TensorFile::open(fixture(case).join("model.safetensors")).unwrap();
        for shape in [vec![], vec![0], vec![1, 0, 2, 2], vec![70_000, 1, 1, 1]] {
            let tensor = tenfold::Tensor::<f32>::zeros(shape.clone()).unwrap();
            let mut file = TensorFile::new();
            // The large one only where a size is read from.
            let named =
                |name: &&str| shape.first() < Some(&1000) || name.contains("conv") || name.contains(".0.weight");
            theirs.names().filter(named).for_each(|name| file.insert(name, &tensor).unwrap());
            file.save(&path).unwrap();
            let refused = [
                ConvNext::<f32>::open(&path).map(drop).is_err(),
                CifarResNet::<f32>::open(&path).map(drop).is_err(),
                EfficientNetLite::<f32>::open(&path).map(drop).is_err(),
            ];
            assert_eq!(refused, [true; 3], "{case} {shape:?}");
        }
    }
}

#[test]
fn configurations_that_make_no_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    for (text, kind, says) in [
        ("{", ErrorKind::Format, "not such a configuration: "),
        ("{}", ErrorKind::Format, "missing field `model_type`"),
        (r#"{"model_type": "swin"}"#, ErrorKind::Unsupported, "needs \"convnext\" or \"convnextv2\""),
        (r#"{"model_type": "convnext", "hidden_act": "relu"}"#, ErrorKind::Unsupported, "hidden_act is \"relu\""),
        (r#"{"model_type": "convnext", "patch_size": [4, 2]}"#, ErrorKind::Unsupported, "only square patches"),
        (r#"{"model_type": "convnext", "depths": [1]}"#, ErrorKind::Value, "needs one of each for every stage"),
        (r#"{"model_type": "convnext", "depths": [3, 0, 9, 3]}"#, ErrorKind::Value, "are all 1 to 65536"),
        (
            r#"{"model_type": "convnext", "depths": [3, 3, 4000000000000000000, 3]}"#,
            ErrorKind::Value,
            "are all 1 to 65536",
        ),
        (r#"{"model_type": "convnext", "drop_path_rate": 2}"#, ErrorKind::Value, "drop_path_rate is 2; needs 0 to 1"),
        (r#"{"model_type": "convnext", "hidden_sizes": [-1]}"#, ErrorKind::Format, "-1"),
    ] {
        std::fs::write(&path, text).unwrap();
        let message = message(ConvNextConfig::from_json(&path), kind);
        assert!(message.contains(says) && message.contains("config.json"), "{message}");
    }
    assert_eq!(ConvNextConfig::from_json(folder.path().join("none")).unwrap_err().kind(), ErrorKind::Io);
    let tiny = ConvNextConfig::from_json({
        std::fs::write(&path, r#"{"model_type": "convnextv2"}"#).unwrap();
        &path
    });
    let tiny = tiny.unwrap();
    assert_eq!(tiny, ConvNextConfig { num_labels: 2, ..ConvNextConfig::named("convnextv2-tiny").unwrap() });

    let mut lite = EfficientNetLiteConfig::named("efficientnet-lite0").unwrap();
    lite.stages[2].kernel = 4;
    let text = message(EfficientNetLite::<f32>::zeros(lite), ErrorKind::Value);
    assert!(text.contains("kernel: 4") && text.ends_with("the kernel's is odd"), "{text}");
}
