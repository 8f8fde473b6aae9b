//! An adapter on every kind of layer: both paths agree, gradients arrive at it and not at the frozen weight.

use ndarray::{IxDyn, array};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tenfold::{
    ErrorKind, Result, Scalar, Tensor,
    autodiff::{Conv as ConvOptions, ConvTranspose as ConvTransposeOptions, PaddingMode, Var, check_gradients},
    module,
    nn::{
        Call, Contribution, Conv, ConvTranspose, Embedding, Layer, Linear, Load, Mode, Module, Parameter, Save,
        Visitor, VisitorMut, WeightAdapter,
    },
};

fn normal(shape: &[usize], seed: u64) -> Tensor<f64, IxDyn> {
    Tensor::normal(shape.to_vec(), &mut ChaCha8Rng::seed_from_u64(seed)).unwrap().into_dyn()
}

/// delta = B A as a matrix of the weight's first size against all others.
#[derive(Debug, Clone)]
struct LowRank<T: Scalar> {
    a: Parameter<T>,
    b: Parameter<T>,
    shape: Vec<usize>,
    factored: bool,
    dropout: f64,
}
module!(LowRank { a => "lora_A", b => "lora_B" });

impl LowRank<f64> {
    fn new(shape: &[usize], rank: usize, factored: bool, seed: u64) -> Self {
        let width = shape[1..].iter().product();
        let (a, b) = (normal(&[rank, width], seed).into(), normal(&[shape[0], rank], seed + 1).into());
        Self { a, b, shape: shape.to_vec(), factored, dropout: 0.0 }
    }
}

impl<T: Scalar> WeightAdapter<T> for LowRank<T> {
    fn weight_shape(&self) -> Vec<usize> {
        self.shape.clone()
    }

    fn delta(&self) -> Result<Var<T>> {
        self.b.var().matmul(self.a.var())?.reshape(self.shape.as_slice())
    }

    fn apply(&self, call: &Call<'_, T>, mode: Mode) -> Result<Option<Contribution<T>>> {
        let call = &call.dropout(self.dropout, 77, mode)?;
        if !self.factored {
            let drops = self.dropout > 0.0 && mode.is_training() && call.input().is_some();
            return if drops { Ok(Some(call.run(&self.delta()?, None)?.into())) } else { Ok(None) };
        }
        let rank = self.a.shape()[0];
        let y = match call {
            Call::Linear { x } => {
                return Ok(Some(Contribution::product(&x.linear(self.a.var(), None)?, self.b.var())));
            }
            // rows of B A are rows of B, times A
            Call::Embedding { ids, padding } => ids.rows_of(self.b.var(), *padding)?.matmul(self.a.var())?,
            // A convolution to `rank` channels, then one over channels alone.
            Call::Conv { x, options } => {
                let mut kernel = self.shape.clone();
                kernel[0] = rank;
                let inner = x.conv(&self.a.var().reshape(kernel)?, None, options)?;
                inner.linear(self.b.var(), None)?
            }
            // Over channels first: the weight's first mode is the input's.
            Call::ConvTranspose { x, options } => {
                let mut kernel = self.shape.clone();
                kernel[0] = rank;
                let inner = x.linear(&self.b.var().permute(&[1, 0])?, None)?;
                inner.conv_transpose(&self.a.var().reshape(kernel)?, None, options)?
            }
            Call::Residual { .. } => return Ok(None),
        };
        Ok(Some(y.into()))
    }
}

fn close(a: &Tensor<f64>, b: &Tensor<f64>) {
    assert_eq!(a.shape(), b.shape());
    let scale = b.max_abs().unwrap().max(1.0);
    assert!(a.sub(b).unwrap().max_abs().unwrap() < 1e-12 * scale, "{a} against {b}");
}

/// On a layer, the factored path, the dense path, and the layer with the effective weight in place give the same results and gradients.
fn paths_agree<L: Layer<f64> + Clone>(layer: &L, forward: impl Fn(&L) -> Result<Var<f64>>) {
    let run = |factored: Option<bool>| {
        let mut layer = layer.clone();
        layer.freeze_all();
        let adapter = LowRank::new(layer.weight().shape(), 2, factored.unwrap_or(true), 5);
        layer.attach("default", adapter).unwrap();
        if factored.is_none() {
            let weight = layer.effective_weight().unwrap().into_value();
            layer.adapters_mut().detach("default").unwrap();
            layer.weight_mut().set(weight).unwrap();
            return (forward(&layer).unwrap(), None);
        }
        let names: Vec<String> = layer.parameters().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names[names.len() - 2..], ["default.lora_A", "default.lora_B"]);
        let y = forward(&layer).unwrap();
        let gradients = y.square().unwrap().sum().unwrap().backward().unwrap();
        layer.gradient_report(&gradients).check().unwrap();
        assert_eq!(gradients.len(), 2, "the frozen weight received a gradient");
        let of = |name: &str| {
            let parameters = layer.parameters();
            let (_, parameter) = parameters.iter().find(|(n, _)| n == name).unwrap();
            gradients.of(parameter.var()).unwrap().clone()
        };
        (y, Some([of("default.lora_A"), of("default.lora_B")]))
    };
    let ((factored, gradients), (dense, dense_gradients), (merged, _)) = (run(Some(true)), run(Some(false)), run(None));
    close(factored.value(), merged.value());
    close(dense.value(), merged.value());
    for (a, b) in gradients.unwrap().iter().zip(&dense_gradients.unwrap()) {
        close(a, b);
    }
    // The adapter does something, and nothing when it is disabled.
    let plain = forward(layer).unwrap();
    assert!(plain.value().sub(dense.value()).unwrap().max_abs().unwrap() > 0.1);
    let mut disabled = layer.clone();
    disabled.attach("default", LowRank::new(layer.weight().shape(), 2, true, 5)).unwrap();
    disabled.adapters_mut().disable("default").unwrap();
    assert_eq!(forward(&disabled).unwrap().value(), plain.value());
    disabled.adapters_mut().enable("default").unwrap();
    close(forward(&disabled).unwrap().value(), merged.value());
}

#[test]
fn on_a_linear_layer() {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let x = Var::constant(normal(&[2, 3, 5], 2));
    let layer = Linear::new(5, 4, rng).unwrap();
    paths_agree(&layer, |layer| layer.forward(&x, Mode::Evaluation));
    paths_agree(&layer.without_bias(), |layer| layer.forward(&x, Mode::training(1, 0)));
}

#[test]
fn on_an_embedding() {
    let layer = Embedding::new(7, 5, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    let ids = Tensor::from(array![[1i64, 6, 6], [0, 2, 1]]);
    paths_agree(&layer, |layer| layer.forward(&ids, Mode::Evaluation));
    paths_agree(&layer, |layer| layer.forward(&ids.cast::<u32>()?, Mode::Evaluation));
}

#[test]
fn on_convolutions_of_every_order() {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    for (spatial, kernel) in [(&[9][..], &[3][..]), (&[6, 7], &[3, 2]), (&[4, 5, 3], &[2, 3, 1])] {
        let x = Var::constant(normal(&[&[2], spatial, &[3]].concat(), 2));
        for options in [
            ConvOptions::new(),
            ConvOptions::new().padding(1).stride(2),
            ConvOptions::new().padding(1).padding_mode(PaddingMode::Circular),
        ] {
            let layer = Conv::new([3, 4], kernel, options, rng).unwrap();
            paths_agree(&layer, |layer| layer.forward(&x, Mode::Evaluation));
        }
        let options = ConvTransposeOptions::new().stride(2).output_padding(1);
        let layer = ConvTranspose::new([3, 4], kernel, options, rng).unwrap();
        paths_agree(&layer, |layer| layer.forward(&x, Mode::Evaluation));
    }
}

#[test]
fn groups_take_the_dense_path() {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let mut layer = Conv::new([4, 6], &[3, 3], ConvOptions::new().groups(2), rng).unwrap();
    let x = Var::constant(normal(&[1, 5, 5, 4], 2));
    layer.freeze_all();
    layer.attach("default", LowRank::new(&[6, 2, 3, 3], 2, false, 5)).unwrap();
    let y = layer.forward(&x, Mode::Evaluation).unwrap();
    layer.gradient_report(&y.sum().unwrap().backward().unwrap()).check().unwrap();
    let weight = layer.effective_weight().unwrap();
    let bias = layer.bias().unwrap().var();
    close(y.value(), x.conv(&weight, Some(bias), layer.options()).unwrap().value());
}

#[test]
fn gradients_pass_finite_differences_on_both_paths() {
    let x = normal(&[3, 5], 2);
    let (w, bias) = (normal(&[4, 5], 3), normal(&[4], 4));
    for factored in [true, false] {
        let inputs = [x.clone(), normal(&[2, 5], 5), normal(&[4, 2], 6), w.clone(), bias.clone()];
        check_gradients(&inputs, 1e-6, |v| {
            let mut layer = Linear::zeros(5, 4)?;
            *layer.weight_mut() = v[3].clone().into();
            *layer.bias_mut().unwrap() = v[4].clone().into();
            let (a, b) = (v[1].clone().into(), v[2].clone().into());
            layer.attach("default", LowRank { a, b, shape: vec![4, 5], factored, dropout: 0.3 })?;
            layer.forward(&v[0], Mode::training(1, 0))
        })
        .unwrap();
    }
}

/// W = (W0 + delta) scaled, so that it is no addition.
#[derive(Debug, Clone)]
struct Scaled {
    inner: LowRank<f64>,
    magnitude: Parameter<f64>,
}

impl Module<f64> for Scaled {
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, f64>) {
        self.inner.visit(visitor);
        visitor.part("magnitude", &self.magnitude);
    }

    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, f64>) {
        self.inner.visit_mut(visitor);
        visitor.part("magnitude", &mut self.magnitude);
    }
}

impl WeightAdapter<f64> for Scaled {
    fn weight_shape(&self) -> Vec<usize> {
        self.inner.weight_shape()
    }

    fn delta(&self) -> Result<Var<f64>> {
        self.inner.delta()
    }

    fn effective(&self, weight: &Var<f64>) -> Result<Var<f64>> {
        weight.add(&self.delta()?)?.mul(self.magnitude.var())
    }

    fn visit_named<'a>(&'a self, name: &str, visitor: &mut Visitor<'_, 'a, f64>) {
        visitor.part(&format!("magnitude.{name}"), &self.magnitude);
        visitor.part(&format!("lora_A.{name}.weight"), &self.inner.a);
    }

    fn visit_named_mut<'a>(&'a mut self, name: &str, visitor: &mut VisitorMut<'_, 'a, f64>) {
        visitor.part(&format!("magnitude.{name}"), &mut self.magnitude);
        visitor.part(&format!("lora_A.{name}.weight"), &mut self.inner.a);
    }
}

#[test]
fn several_adapters_in_order_and_names_of_their_own() {
    let mut layer = Linear::new(5, 4, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    let scaled = Scaled { inner: LowRank::new(&[4, 5], 2, false, 8), magnitude: normal(&[4, 1], 3).into() };
    let (plain, additive) = (layer.clone(), LowRank::new(&[4, 5], 3, true, 5));
    layer.attach("first", additive.clone()).unwrap();
    layer.attach("second", scaled.clone()).unwrap();
    let x = Var::constant(normal(&[3, 5], 2));
    // Each changes W0 as if it were alone, whether it contributes by itself or is folded into the weight.
    let weight = scaled.effective(plain.weight().var()).unwrap();
    let bias = plain.bias().map(Parameter::var);
    let expected = x.linear(&weight, bias).unwrap().add(&x.linear(&additive.delta().unwrap(), None).unwrap()).unwrap();
    close(layer.forward(&x, Mode::Evaluation).unwrap().value(), expected.value());
    let folded = weight.add(&additive.delta().unwrap()).unwrap();
    close(layer.effective_weight().unwrap().value(), folded.value());

    let names: Vec<String> = layer.parameters().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["weight", "bias", "first.lora_A", "first.lora_B", "magnitude.second", "lora_A.second.weight"]);
    let mutable: Vec<String> = layer.parameters_mut().into_iter().map(|(name, _)| name).collect();
    assert_eq!(mutable, names);
    assert_eq!(layer.adapters().names().collect::<Vec<_>>(), ["first", "second"]);
    layer.adapters_mut().detach("first").unwrap();
    let y = layer.forward(&x, Mode::Evaluation).unwrap();
    close(y.value(), x.linear(&weight, bias).unwrap().value());
}

#[test]
fn adapters_that_do_not_fit_are_refused() {
    let mut layer = Linear::<f64>::zeros(5, 4).unwrap();
    let error = layer.attach("a", LowRank::new(&[5, 4], 2, true, 5)).unwrap_err();
    assert_eq!(error.to_string(), "attach: adapter \"a\" is for a weight of shape [5, 4]; the layer's has [4, 5]");
    layer.attach("a", LowRank::new(&[4, 5], 2, true, 5)).unwrap();
    let error = layer.attach("a", LowRank::new(&[4, 5], 2, true, 5)).unwrap_err();
    assert_eq!(error.message(), "there is an adapter \"a\" already; detach it, or take another name");
    assert!(layer.attach("", LowRank::new(&[4, 5], 2, true, 5)).is_err());
    let error = layer.adapters_mut().enable("b").unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Value, "there is no adapter \"b\"; there are \"a\""));
    assert!(layer.adapters_mut().detach("b").is_err());
    layer.adapters_mut().detach("a").unwrap();
    assert!(layer.adapters().is_empty());
    let error = layer.adapters_mut().disable("a").unwrap_err();
    assert_eq!(error.message(), "there is no adapter \"a\"; there are none");

    // One that lies about its shape is caught when it is used.
    let mut wrong = LowRank::new(&[1, 5], 2, false, 5);
    wrong.shape = vec![4, 5];
    for factored in [true, false] {
        let mut layer = Linear::<f64>::zeros(5, 4).unwrap();
        layer.attach("a", LowRank { factored, ..wrong.clone() }).unwrap();
        let x = Var::constant(normal(&[3, 5], 2));
        let error = layer.forward(&x, Mode::Evaluation).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Shape, "{error}");
    }
}

#[test]
fn dropout_of_an_adapter_is_on_its_own_input_and_in_training_only() {
    let x = Var::constant(Tensor::<f64, _>::ones([1, 400]).unwrap());
    let run = |factored: bool, mode: Mode| {
        let mut layer = Linear::<f64>::zeros(400, 1).unwrap();
        layer.weight_mut().set(Tensor::ones([1, 400]).unwrap()).unwrap();
        let one = || Tensor::<f64, _>::ones([1, 1]).unwrap().into();
        let a = Tensor::ones([1, 400]).unwrap().into();
        let adapter = LowRank { a, b: one(), shape: vec![1, 400], factored, dropout: 0.5 };
        layer.attach("a", adapter).unwrap();
        layer.forward(&x, mode).unwrap().item().unwrap()
    };
    assert_eq!(run(true, Mode::Evaluation), 800.0);
    assert_eq!(run(false, Mode::Evaluation), 800.0);
    let (factored, dense) = (run(true, Mode::training(1, 0)), run(false, Mode::training(1, 0)));
    assert_eq!(factored, dense);
    // The layer's own 400 stay; of the adapter's, about half count twice.
    assert!(factored != 800.0 && (factored - 800.0).abs() < 120.0, "{factored}");
    assert_ne!(factored, run(true, Mode::training(1, 1)));
}

#[test]
fn adapters_of_one_layer_drop_different_entries() {
    // Each output is the input's entry, so that it says how often the entry was kept.
    let eye = Tensor::<f64, _>::from_fn([200, 200], |i| f64::from(u8::from(i[0] == i[1]))).unwrap();
    let x = Var::constant(Tensor::ones([1, 200]).unwrap());
    let mode = Mode::training(1, 0);
    let kept = |layer: &Linear<f64>, mode: Mode| -> Vec<f64> {
        layer.forward(&x, mode).unwrap().value().to_vec().unwrap().into_iter().map(|y| y / 2.0).collect()
    };
    for factored in [true, false] {
        let mut layer = Linear::<f64>::zeros(200, 200).unwrap();
        for name in ["a", "b", "c"] {
            let adapter =
                LowRank { a: eye.clone().into(), b: eye.clone().into(), shape: vec![200, 200], factored, dropout: 0.5 };
            layer.attach(name, adapter).unwrap();
        }
        let all = kept(&layer, mode);
        for times in 0..=3 {
            let count = all.iter().filter(|&&y| y == times as f64).count();
            // Of 200, an eighth each none of them and all of them.
            let expected = [25, 75, 75, 25][times];
            assert!(count.abs_diff(expected) < 25, "{count} of 200 are kept {times} times");
        }
        assert_eq!(all, kept(&layer, mode), "the same pass draws the same");
        assert_ne!(all, kept(&layer, Mode::training(1, 1)));
        // Alone, each draws as the only one does, whichever others wait.
        let alone = |layer: &mut Linear<f64>, name: &str| {
            ["a", "b", "c"]
                .into_iter()
                .filter(|other| *other != name)
                .for_each(|other| layer.adapters_mut().disable(other).unwrap());
            let kept = kept(layer, mode);
            ["a", "b", "c"].into_iter().for_each(|name| layer.adapters_mut().enable(name).unwrap());
            kept
        };
        let first = alone(&mut layer, "a");
        assert_eq!(first, alone(&mut layer, "c"));
        assert!(first.iter().zip(&all).all(|(first, all)| first <= all), "the first draws as it does alone");
    }
}

#[test]
fn files_with_and_without_adapters() {
    let folder = tempfile::tempdir().unwrap();
    let (base, all) = (folder.path().join("base.safetensors"), folder.path().join("all.safetensors"));
    let mut layer = Linear::new(5, 4, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    Save::new().write(&layer, &base).unwrap();
    layer.attach("a", LowRank::new(&[4, 5], 2, true, 5)).unwrap();
    Save::new().write(&layer, &all).unwrap();
    let error = Load::new().read(&mut layer, &base).unwrap_err();
    assert!(error.message().ends_with("2 of the model's tensors are missing: \"a.lora_A\", \"a.lora_B\""), "{error}");
    assert_eq!(Load::new().without_adapters().read(&mut layer, &base).unwrap().count, 2);
    assert_eq!(Load::new().read(&mut layer, &all).unwrap().count, 4);
    let again = folder.path().join("again.safetensors");
    Save::new().without_adapters().write(&layer, &again).unwrap();
    assert_eq!(std::fs::read(again).unwrap(), std::fs::read(base).unwrap());
}
