//! Real weights reproduce what was recorded with them. Without the files, the tests say so and pass.

use crate::skip::shared;
use ndarray::{Ix2, Ix4};
use tenfold::{
    Tensor, TensorFile,
    autodiff::Var,
    models::{Architecture, CifarResNet, EfficientNetLite, EfficientNetNames, ImageClassifier},
    nn::{Checkpoint, Mode, Module},
};

/// Every so manieth image.
fn images(file: &TensorFile, step: isize) -> Tensor<f32, Ix4> {
    let bytes = file.get::<u8, Ix4>("images_u8_nhwc").unwrap();
    bytes.slice(ndarray::s![..;step, .., .., ..]).unwrap().cast().unwrap()
}

#[track_caller]
fn close(what: &str, ours: &Var<f32>, theirs: &Tensor<f32, Ix2>) {
    let away = ours.value().sub(&theirs.to_dyn()).unwrap().max_abs().unwrap();
    let scale = theirs.max_abs().unwrap();
    println!("{what}: {:.1e} of the largest away", away / scale);
    assert!(away <= 1e-4 * scale, "{what}: {away} of {scale}");
}

#[test]
fn efficientnet_lite0_gives_the_recorded_logits_and_features() {
    let (Some(weights), Some(golden)) =
        (shared("models/efficientnet_lite0.safetensors"), shared("goldens/efficientnet_lite0.safetensors"))
    else {
        return;
    };
    let model = EfficientNetLite::<f32>::open(&weights).unwrap();
    assert_eq!((model.count().total, model.labels()), (4_652_008, 1000));
    let golden = TensorFile::open(golden).unwrap();
    let x = Var::constant(images(&golden, 1).map(|x| x / 127.5 - 1.0).unwrap());
    let features = model.embed(&x, Mode::Evaluation).unwrap();
    close("features", &features, &golden.get("pooled_features").unwrap());
    close("logits", &model.forward(&x, Mode::Evaluation).unwrap(), &golden.get("logits").unwrap());

    // Under timm's names it is the same model.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("timm.safetensors");
    model.save(&file).unwrap();
    let checkpoint = Checkpoint::open(&file).unwrap();
    assert_eq!(EfficientNetNames::of(&checkpoint).unwrap(), EfficientNetNames::Timm);
    let architecture = Architecture::from_checkpoint(&checkpoint).unwrap();
    assert_eq!(architecture, Architecture::EfficientNetLite(model.config().clone()));
    let again = architecture.load::<f32>(&checkpoint).unwrap();
    assert_eq!(again.embed(&x, Mode::Evaluation).unwrap().value(), features.value());
}

/// The names that were recorded beside the weights.
#[test]
fn efficientnet_names_are_the_recorded_ones() {
    let (Some(weights), Some(map)) = (
        shared("models/efficientnet_lite0.safetensors"),
        shared("goldens/lite0_key_to_timm_tf_efficientnet_lite0.json"),
    ) else {
        return;
    };
    let model = EfficientNetLite::<f32>::open(&weights).unwrap();
    let map: std::collections::BTreeMap<String, String> =
        serde_json::from_str(&std::fs::read_to_string(map).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [ours, back] = ["timm", "back"].map(|name| folder.path().join(name).with_extension("safetensors"));
    model.save(&ours).unwrap();
    EfficientNetNames::EfficientNetPytorch.save(model.config()).unwrap().write(&model, &back).unwrap();
    let [theirs, ours, back] = [&weights, &ours, &back].map(|path| TensorFile::open(path).unwrap());
    assert_eq!(map.len(), theirs.len());
    for (from, to) in map {
        let value = theirs.get::<f32, ndarray::IxDyn>(&from).unwrap();
        assert_eq!(ours.get::<f32, ndarray::IxDyn>(&to).unwrap(), value, "{to}");
        assert_eq!(back.get::<f32, ndarray::IxDyn>(&from).unwrap(), value, "{from}");
    }
}

/// On a lossy copy of the images the weights are known to score some 81 %.
#[test]
fn resnet20_classifies_cifar10() {
    let (Some(weights), Some(data)) =
        (shared("models/resnet20_cifar10.safetensors"), shared("vision/cifar10_32_valid2k.safetensors"))
    else {
        return;
    };
    let model = CifarResNet::<f32>::open(weights).unwrap();
    assert_eq!((model.config().blocks, model.count().total), (3, 269_722));
    let data = TensorFile::open(data).unwrap();
    let row = |numbers: [f32; 3]| Tensor::from_vec([1, 1, 1, 3], numbers.to_vec()).unwrap();
    let x = images(&data, 4).map(|x| x / 255.0).unwrap();
    let x = x.sub(&row([0.485, 0.456, 0.406])).unwrap().div(&row([0.229, 0.224, 0.225])).unwrap();
    let logits = model.forward(&Var::constant(x), Mode::Evaluation).unwrap().max_mode(1, false).unwrap().1;
    let labels = data.get::<u8, ndarray::Ix1>("labels_u8").unwrap().to_vec().unwrap();
    let right =
        logits.to_vec().unwrap().iter().zip(labels.iter().step_by(4)).filter(|(a, b)| **a == u32::from(**b)).count();
    println!("ResNet-20: {right} of {}", logits.len());
    assert!((0.79..0.84).contains(&(right as f64 / logits.len() as f64)), "{right} of {}", logits.len());
}
