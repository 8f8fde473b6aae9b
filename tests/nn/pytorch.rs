//! Files that PyTorch wrote (`tests/fixtures/torch/nn`), and what its layers compute with them.

use ndarray::{Ix1, Ix2, Ix4, IxDyn};
use std::path::{Path, PathBuf};
use tenfold::{
    Error, ErrorKind, Result, Scalar, Tensor, TensorFile,
    autodiff::{self, PaddingMode, Var},
    module,
    nn::{
        BatchNorm, Checkpoint, Conv, ConvTranspose, Embedding, LayerNorm, Linear, Load, Mode, Module, Nonlinearity,
        Renames, RmsNorm, Save, fans,
    },
};

struct Model<T: Scalar> {
    conv: Conv<T>,
    bn: BatchNorm<T>,
    up: ConvTranspose<T>,
    norm: LayerNorm<T>,
    rms: RmsNorm<T>,
    encoder: Vec<Linear<T>>,
    words: Embedding<T>,
}
module!(Model { conv, bn, up, norm, rms, encoder, words });

impl<T: Scalar> Model<T> {
    fn zeros() -> Result<Self> {
        let conv = autodiff::Conv::new().stride([2, 1]).padding(1).dilation([1, 2]).groups(2);
        let conv = conv.padding_mode(PaddingMode::Circular);
        Ok(Self {
            conv: Conv::zeros([4, 6], &[3, 2], conv)?,
            bn: BatchNorm::new(6, 1e-5)?,
            up: ConvTranspose::zeros([6, 4], &[2, 2], autodiff::ConvTranspose::new().stride(2).groups(2))?,
            norm: LayerNorm::new(4, 1e-5)?,
            rms: RmsNorm::new(4, 1e-6)?,
            encoder: vec![Linear::zeros(4, 4)?, Linear::zeros(4, 4)?.without_bias()],
            words: Embedding::zeros(5, 4)?.padding(0)?,
        })
    }

    fn load(name: &str) -> Result<Self> {
        let mut model = Self::zeros()?;
        let loaded = Load::new().ignore("*.num_batches_tracked").read(&mut model, fixture(name))?;
        assert_eq!(loaded.ignored, ["bn.num_batches_tracked"]);
        assert_eq!(loaded.count, 15);
        Ok(model)
    }

    fn forward(&self, x: &Var<T>, ids: &Tensor<i64, Ix2>, mode: Mode) -> Result<Var<T>> {
        let x = self.bn.forward(&self.conv.forward(x, mode)?, mode)?;
        let mut x = self.norm.forward(&self.up.forward(&x, mode)?)?;
        for layer in &self.encoder {
            x = x.add(&layer.forward(&x, mode)?.gelu()?)?;
        }
        let pooled = self.rms.forward(&x)?.mean_modes(&[1, 2], false)?;
        pooled.add(&self.words.forward(ids, mode)?.sum_modes(&[1], false)?)
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch/nn").join(name)
}

fn expected() -> TensorFile {
    TensorFile::open(fixture("expected.safetensors")).unwrap()
}

fn inputs<T: Scalar>(file: &TensorFile) -> (Var<T>, Tensor<i64, Ix2>) {
    let x = file.get::<f64, Ix4>("input").unwrap().permute(&[0, 2, 3, 1]).unwrap().cast().unwrap();
    (Var::constant(x), file.get("ids").unwrap())
}

fn close<T: Scalar>(what: &str, ours: &Tensor<T>, theirs: &Tensor<f64>, tolerance: f64) {
    assert_eq!(ours.shape(), theirs.shape(), "{what}");
    let (ours, scale) = (ours.cast::<f64>().unwrap(), theirs.max_abs().unwrap().max(1.0));
    let away = ours.sub(theirs).unwrap().max_abs().unwrap();
    assert!(away <= tolerance * scale, "{what}: {away} away from PyTorch's");
}

fn evaluates<T: Scalar>(name: &str, tolerance: f64) {
    let file = expected();
    let (x, ids) = inputs(&file);
    let model = Model::<T>::load(&format!("{name}.safetensors")).unwrap();
    let y = model.forward(&x, &ids, Mode::Evaluation).unwrap();
    close(name, y.value(), &file.get::<f64, IxDyn>(&format!("evaluation.{name}")).unwrap(), tolerance);
}

#[test]
fn every_float_type_loads_and_computes_what_pytorch_does() {
    for name in ["f64", "f32", "f16", "bf16"] {
        evaluates::<f64>(name, 1e-12);
    }
    for name in ["f32", "f16", "bf16"] {
        evaluates::<f32>(name, 1e-5);
    }
}

#[test]
fn doubles_are_rounded_only_when_asked() {
    let mut model = Model::<f32>::zeros().unwrap();
    let load = Load::new().ignore("*.num_batches_tracked");
    let error = load.read(&mut model, fixture("f64.safetensors")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let start = "15 tensors do not fit: \"bn.bias\" is f64 in the file and f32 in the model; Load::round rounds; \"bn.running_mean\"";
    assert!(error.message().contains(start), "{error}");
    assert!(error.message().ends_with("; and 3 more"), "{error}");
    load.round().read(&mut model, fixture("f64.safetensors")).unwrap();
    let single = Model::<f32>::load("f32.safetensors").unwrap();
    for ((name, a), (_, b)) in model.parameters().into_iter().zip(single.parameters()) {
        assert_eq!(a.value(), b.value(), "{name}");
    }
}

#[test]
fn a_training_pass_is_pytorchs() {
    let file = expected();
    let (x, ids) = inputs::<f64>(&file);
    let read = |name: &str| file.get::<f64, IxDyn>(name).unwrap();
    let model = Model::<f64>::load("f64.safetensors").unwrap();
    let y = model.forward(&x, &ids, Mode::training(1, 0)).unwrap();
    close("training", y.value(), &read("training"), 1e-12);
    let gradients = y.square().unwrap().sum().unwrap().backward().unwrap();
    model.gradient_report(&gradients).check().unwrap();
    let parameters = model.parameters();
    assert_eq!(parameters.len(), 13);
    for (name, parameter) in parameters {
        close(&name, gradients.of(parameter.var()).unwrap(), &read(&format!("grad.{name}")), 1e-10);
    }
    for (name, buffer) in model.buffers() {
        close(&name, &buffer.value(), &read(name.strip_prefix("bn.").unwrap()), 1e-12);
    }
}

#[test]
fn shards_are_one_model() {
    let (whole, sharded) = (Model::<f32>::load("f32.safetensors").unwrap(), Model::<f32>::load("sharded").unwrap());
    let by_index = Model::<f32>::load("sharded/model.safetensors.index.json").unwrap();
    let parameters = whole.parameters().into_iter().zip(sharded.parameters()).zip(by_index.parameters());
    for (((name, a), (_, b)), (_, c)) in parameters {
        assert!(a.value() == b.value() && b.value() == c.value(), "{name}");
    }
    let checkpoint = Checkpoint::open(fixture("sharded")).unwrap();
    assert_eq!((checkpoint.len(), checkpoint.names().next()), (16, Some("bn.bias")));
    assert_eq!(checkpoint.get::<f32, Ix1>("bn.bias").unwrap().len(), 6);
    let error = checkpoint.shape("bn.bia").unwrap_err();
    assert!(error.message().contains("there is no tensor \"bn.bia\"; there are \"bn.bias\", "), "{error}");
}

#[test]
fn what_is_not_said_is_refused() {
    let mut model = Model::<f32>::zeros().unwrap();
    let message = |result: Result<_, Error>| {
        let error: Error = result.unwrap_err();
        error.message().rsplit_once(".safetensors: ").unwrap().1.to_string()
    };
    let error = Load::new().read(&mut model, fixture("f32.safetensors")).map(drop);
    assert_eq!(message(error), "1 of the file's tensors are unexpected: \"bn.num_batches_tracked\"");
    // An integer is no parameter, whatever its value.
    let renames = Renames::new().exact("bn.num_batches_tracked", "bn.bias").exact("bn.bias", "bn.num_batches_tracked");
    let error = Load::new().renames(renames).read(&mut model, fixture("f32.safetensors")).map(drop);
    assert!(message(error).starts_with("\"bn.bias\" and \"bn.num_batches_tracked\" in the file both become"));
}

#[test]
fn what_we_write_is_what_pytorch_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("again.safetensors");
    Save::new().write(&Model::<f32>::load("f32.safetensors").unwrap(), &path).unwrap();
    let (ours, theirs) = (TensorFile::open(&path).unwrap(), TensorFile::open(fixture("f32.safetensors")).unwrap());
    assert_eq!(ours.metadata(), theirs.metadata());
    let names: Vec<&str> = theirs.names().filter(|name| !name.ends_with("tracked")).collect();
    ours.expect_names(&names).unwrap();
    for name in names {
        assert_eq!(ours.get::<f32, IxDyn>(name).unwrap(), theirs.get::<f32, IxDyn>(name).unwrap(), "{name}");
    }
}

#[test]
fn fans_and_gains_are_pytorchs() {
    let file = expected();
    let sizes = |name: String| -> Vec<usize> {
        file.get::<i64, Ix1>(&name).unwrap().to_vec().unwrap().into_iter().map(|n| n as usize).collect()
    };
    for i in 0..4 {
        let (inputs, outputs) = fans(&sizes(format!("shape.{i}"))).unwrap();
        assert_eq!([inputs, outputs], *sizes(format!("fans.{i}")));
    }
    let gains = file.get::<f64, Ix1>("gains").unwrap().to_vec().unwrap();
    use Nonlinearity as N;
    for (kind, gain) in [N::Linear, N::Tanh, N::Relu, N::Selu, N::LeakyRelu(0.3)].into_iter().zip(gains) {
        assert!((kind.gain() - gain).abs() < 1e-15, "{kind:?}");
    }
}
