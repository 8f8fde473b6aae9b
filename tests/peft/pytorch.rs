//! The paper's formula in PyTorch (`tests/fixtures/torch/flora.safetensors`), and what Hugging Face's PEFT computes
//! (`lora.safetensors`, `adalora.safetensors`): results, updates, merged weights and every gradient, on both paths.

use super::{
    layers::{Any, Dyn, Input},
    support::torch::{assert_close, several},
};
use ndarray::IxDyn;
use tenfold::{
    Result, Tensor, TensorFile,
    autodiff::{Conv as ConvOptions, ConvTranspose as ConvTransposeOptions, PaddingMode, Var},
    nn::{Conv, ConvTranspose, Embedding, Linear, Mode, Module, WeightAdapter},
    peft::{self, AdaLoraAdapter, DoraAdapter, FloraAdapter, LoraAdapter, LoraForm, Path, Site},
};

struct Case<'f> {
    file: &'f TensorFile,
    name: &'f str,
}

impl Case<'_> {
    fn key(&self, part: &str) -> String {
        format!("{}.{part}", self.name)
    }

    fn get(&self, part: &str) -> Dyn {
        self.file.get(&self.key(part)).unwrap()
    }

    fn has(&self, part: &str) -> bool {
        self.file.contains(&self.key(part))
    }

    fn scale(&self) -> f64 {
        self.get("scale").to_vec().unwrap()[0]
    }

    /// The layer that the generator builds for this name, with its weight and bias.
    fn layer(&self) -> Any {
        let bias = self.has("b").then(|| self.get("b").into_order().unwrap());
        let matrix = || self.get("w").into_order().unwrap();
        let conv = |options| Any::Conv(Conv::from_tensors(self.get("w"), bias.clone(), options).unwrap());
        let up =
            |options| Any::ConvTranspose(ConvTranspose::from_tensors(self.get("w"), bias.clone(), options).unwrap());
        let (plain, transposed) = (ConvOptions::new(), ConvTransposeOptions::new());
        match self.name.strip_prefix("dora_").unwrap_or(self.name) {
            "linear" | "linear_wide" | "linear_rs" => Any::Linear(Linear::from_tensors(matrix(), bias).unwrap()),
            "embedding" => Any::Embedding(Embedding::from_tensor(matrix())),
            "line" if self.has("core") => conv(plain.stride(2).padding(1)),
            "line" => conv(plain.padding(1)),
            "plane" => conv(plain.padding(1)),
            "volume" if self.has("core") => conv(plain.stride([1, 2, 1]).padding([1, 0, 1])),
            "volume" | "pointwise" => conv(plain),
            "conv" => conv(plain.stride([2, 1]).padding([1, 0])),
            "asymmetric" => conv(plain.stride([2, 3]).padding([2, 1]).dilation([1, 2])),
            "dilated" => conv(plain.dilation(2)),
            "dilation3" => conv(plain.padding(3).dilation(3)),
            "groups2" => conv(plain.padding(1).groups(2)),
            "depthwise" => conv(plain.padding(3).groups(6)),
            "multiplier2" => conv(plain.padding(1).stride(2).groups(3)),
            "patch" => conv(plain.stride(4)),
            "small_kernel" => conv(plain.stride(2)),
            "reflect" => conv(plain.padding([3, 1]).padding_mode(PaddingMode::Reflect)),
            "replicate" => conv(plain.padding([1, 4]).padding_mode(PaddingMode::Replicate)),
            "circular" => conv(plain.padding([2, 3]).stride(2).padding_mode(PaddingMode::Circular)),
            "up_line" => up(transposed.stride(3).output_padding(1)),
            "up" => up(transposed.stride(2).padding(1).output_padding(1)),
            "up_volume" => up(transposed.stride(2)),
            "up_groups" => up(transposed.stride([3, 1]).padding([1, 0]).groups(2)),
            other => panic!("the fixture has a case {other:?} that this test does not know"),
        }
    }

    /// Compares everything that the file has with the layer that `adapter` makes, on the path that it takes.
    fn compare(
        &self,
        parts: &[&str],
        tolerance: f64,
        adapter: impl Fn(&Site<'_>) -> Result<Box<dyn WeightAdapter<f64>>>,
    ) {
        let (name, mut layer) = (self.name, self.layer());
        layer.freeze_all();
        let site = Site::of_layer("layer", layer.layer()).unwrap();
        let adapter = adapter(&site).unwrap();
        if self.has("delta") {
            assert_close(name, adapter.delta().unwrap().value(), &self.get("delta"), tolerance);
        }
        layer.layer_mut().attach_boxed("default", adapter).unwrap();
        let input = if self.has("ids") {
            Input::Ids(self.file.get(&self.key("ids")).unwrap())
        } else {
            Input::Numbers(Var::parameter(self.get("x")))
        };
        let y = layer.forward(&input, Mode::Evaluation).unwrap();
        assert_close(name, y.value(), &self.get("y"), tolerance);
        let gradients = y.backward_from(self.get("dy")).unwrap();
        if let Input::Numbers(x) = &input {
            assert_close(&self.key("dx"), gradients.of(x).unwrap(), &self.get("dx"), tolerance);
        }
        let parameters: Vec<_> = layer.parameters().into_iter().filter(|(_, p)| p.trains()).collect();
        assert_eq!(parameters.len(), parts.len(), "{name}");
        for ((_, parameter), part) in parameters.into_iter().zip(parts) {
            let theirs = self.get(&format!("d{part}"));
            let theirs = theirs.reshape(parameter.shape()).unwrap();
            assert_close(&self.key(part), gradients.of(parameter.var()).unwrap(), &theirs, tolerance);
        }
        // Merged, and the same result.
        let merged = peft::merge(&mut layer).unwrap();
        let theirs =
            if self.has("merged") { self.get("merged") } else { self.get("w").add(&self.get("delta")).unwrap() };
        assert_close(name, layer.layer().weight().value(), &theirs, tolerance);
        assert_close(name, layer.forward(&input, Mode::Evaluation).unwrap().value(), &self.get("y"), tolerance);
        merged.unmerge(&mut layer).unwrap();
        assert_eq!(layer.layer().weight().value(), &self.get("w"), "{name}");
    }
}

fn cases(file: &TensorFile) -> Vec<Case<'_>> {
    file.names().filter_map(|name| name.strip_suffix(".y")).map(|name| Case { file, name }).collect()
}

fn fixture(name: &str) -> TensorFile {
    TensorFile::open(format!("{}/tests/fixtures/torch/{name}.safetensors", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn flora_is_the_papers_formula() {
    let file = fixture("flora");
    let cases = cases(&file);
    assert_eq!(cases.len(), 21);
    for case in cases {
        let factors = several(&file, case.name, "factor");
        let parts: Vec<String> =
            std::iter::once("core".into()).chain((0..factors.len()).map(|n| format!("factor.{n}"))).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let groups = Site::of_layer("layer", case.layer().layer()).unwrap().groups();
        for path in [Path::Merged, Path::Factored, Path::Auto] {
            if path == Path::Factored && groups > 1 {
                continue;
            }
            case.compare(&parts, 1e-12, |site| {
                let factors = factors.iter().map(|name| file.get(name)).collect::<Result<_>>()?;
                Ok(Box::new(FloraAdapter::new(site, case.get("core"), factors, case.scale())?.path(path)?))
            });
        }
    }
}

#[test]
fn lora_and_dora_are_those_of_peft() {
    let file = fixture("lora");
    let cases = cases(&file);
    assert_eq!(cases.len(), 12);
    for case in cases {
        for path in [Path::Merged, Path::Factored, Path::Auto] {
            let lora = |site: &Site<'_>| {
                LoraAdapter::new(site, LoraForm::Channels, case.get("a"), case.get("b_up"), case.scale())?.path(path)
            };
            if !case.name.starts_with("dora") {
                case.compare(&["a", "b_up"], 1e-12, |site| Ok(Box::new(lora(site)?)));
                continue;
            }
            case.compare(&["a", "b_up", "m"], 1e-12, |site| {
                let mut dora = DoraAdapter::new(site, lora(site)?, &case.get("w"))?;
                let magnitude: Tensor<f64, IxDyn> = case.get("m");
                let outputs = magnitude.len();
                dora.set_magnitude(magnitude.reshape(IxDyn(&[outputs]))?)?;
                Ok(Box::new(dora))
            });
        }
    }
}

#[test]
fn adalora_is_that_of_peft() {
    let file = fixture("adalora");
    let cases = cases(&file);
    assert_eq!(cases.len(), 4);
    for case in cases {
        for path in [Path::Merged, Path::Factored, Path::Auto] {
            case.compare(&["a", "b_up", "e"], 1e-12, |site| {
                // In files the matrices of a convolution are flat.
                let (rank, ones) = (case.get("e").len(), vec![1; site.shape().len() - 2]);
                let a = case.get("a").reshape(IxDyn(&[&[rank], &site.shape()[1..]].concat()))?;
                let b = case.get("b_up").reshape(IxDyn(&[&[site.shape()[0], rank], &ones[..]].concat()))?;
                Ok(Box::new(AdaLoraAdapter::new(site, a, case.get("e"), b, case.scale())?.path(path)?))
            });
        }
    }
}
