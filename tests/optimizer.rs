//! Optimisers as a user of the crate sees them: what is saved, what is refused, what does not change the result.

use ndarray::IxDyn;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tenfold::{
    Device, ErrorKind, Result, Scalar, Tensor, TensorFile,
    autodiff::{Gradients, Var},
    module,
    nn::{Linear, Mode, Module, Parameter},
    train::{Adam, AdamW, Groups, Optimizer, Rule, Sgd},
};

struct Model<T: Scalar> {
    layers: Vec<Linear<T>>,
    scale: Parameter<T>,
}
module!(Model { layers, scale });

impl<T: Scalar> Model<T> {
    fn new(seed: u64) -> Self {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let layers = [(5, 300), (300, 3), (3, 1)].map(|(from, to)| Linear::new(from, to, rng).unwrap());
        // A single number: a tensor of order 0.
        let scale = Parameter::new(Tensor::<T, IxDyn>::ones(vec![]).unwrap());
        Self { layers: layers.into(), scale }
    }

    /// The gradients of a loss that is another in each step.
    fn gradients(&self, step: u64) -> Gradients<T> {
        let x = Tensor::normal([7, 5], &mut ChaCha8Rng::seed_from_u64(1000 + step)).unwrap();
        let loss = || {
            let mut x = Var::constant(x.to_device(self.scale.var().device())?);
            for layer in &self.layers {
                x = layer.forward(&x, Mode::Evaluation)?.tanh()?;
            }
            x.mul(self.scale.var())?.shift(T::of(-0.3))?.square()?.sum()?.backward()
        };
        loss().unwrap()
    }

    fn train(&mut self, optimizer: &mut Optimizer<T>, steps: std::ops::Range<u64>) {
        for step in steps {
            let gradients = self.gradients(step);
            optimizer.step(self, gradients, 1.0 / (1.0 + step as f64), Some(0.5)).unwrap();
        }
    }

    fn values(&self) -> Vec<(String, Vec<T>)> {
        self.parameters().into_iter().map(|(name, p)| (name, p.value().to_vec().unwrap())).collect()
    }
}

fn rules() -> Vec<Rule> {
    vec![
        Sgd::new(0.1).weight_decay(0.01).into(),
        Sgd::new(0.1).momentum(0.9).dampening(0.2).into(),
        Adam::new(0.01).weight_decay(0.1).into(),
        AdamW::new(0.01).into(),
        AdamW::new(0.01).amsgrad().into(),
    ]
}

fn groups() -> Groups {
    Groups::new().no_decay_on_vectors().rate("layers.0.*", 0.1).weight_decay("layers.1.weight", 0.2)
}

fn resumes<T: Scalar>() {
    for rule in rules() {
        let (mut through, mut stopped) = (Model::<T>::new(1), Model::<T>::new(1));
        let mut optimizer = Optimizer::new(rule, &groups(), &through).unwrap();
        through.train(&mut optimizer, 0..8);

        let mut optimizer = Optimizer::new(rule, &groups(), &stopped).unwrap();
        stopped.train(&mut optimizer, 0..5);
        let mut file = TensorFile::new();
        optimizer.save_into(&mut file, "optimizer.").unwrap();
        // What is in the file is not moved by steps that follow.
        let snapshot = stopped.values();
        stopped.train(&mut optimizer, 5..6);
        let file = TensorFile::from_bytes(file.to_bytes().unwrap()).unwrap();

        let mut resumed = Model::<T>::new(2);
        for ((_, parameter), (_, values)) in resumed.parameters_mut().into_iter().zip(snapshot) {
            parameter.value_mut().as_mut_slice().unwrap().copy_from_slice(&values);
        }
        let mut optimizer = Optimizer::new(rule, &groups(), &resumed).unwrap();
        optimizer.load_from(&file, "optimizer.").unwrap();
        resumed.train(&mut optimizer, 5..8);
        assert!(resumed.values() == through.values(), "{rule}");
    }
}

#[test]
fn what_was_saved_goes_on_bit_for_bit() {
    resumes::<f32>();
    resumes::<f64>();
}

#[test]
fn a_file_of_another_optimiser_is_refused() {
    let model = Model::<f32>::new(1);
    let make = |rule: Rule, groups: &Groups| Optimizer::new(rule, groups, &model).unwrap();
    let rule = Rule::from(AdamW::new(0.01));
    let saved = |optimizer: &Optimizer<f32>| {
        let mut file = TensorFile::new();
        optimizer.save_into(&mut file, "o.").unwrap();
        file
    };
    let file = saved(&make(rule, &groups()));
    let refused = |mut optimizer: Optimizer<f32>, file: &TensorFile, kind: ErrorKind, words: &[&str]| {
        let before = saved(&optimizer);
        let error = optimizer.load_from(file, "o.").unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        for word in words {
            assert!(error.message().contains(word), "{word} in {error}");
        }
        assert_eq!(saved(&optimizer), before, "it stays as it was");
    };
    let (value, format) = (ErrorKind::Value, ErrorKind::Format);
    refused(make(AdamW::new(0.02).into(), &groups()), &file, value, &["\"rate\":0.02", "\"rate\":0.01"]);
    refused(make(Adam::new(0.01).into(), &groups()), &file, value, &["the file's is {\"AdamW\""]);
    let message = "other groups: \"layers.1.weight\" has rate 0.01 and decay 0.01 here, 0.01 and 0.2 in the file";
    let other = Groups::new().no_decay_on_vectors().rate("layers.0.*", 0.1);
    refused(make(rule, &other), &file, value, &[message]);
    refused(make(rule, &groups()), &TensorFile::new(), format, &["no metadata \"o.rule\""]);

    let mut frozen = Model::<f32>::new(1);
    frozen.train_only(&|name| name != "scale");
    let fewer = Optimizer::new(rule, &groups(), &frozen).unwrap();
    refused(fewer.clone(), &file, value, &["other parameters; unexpected in it: \"scale\""]);
    refused(make(rule, &groups()), &saved(&fewer), value, &["other parameters; missing in the file: \"scale\""]);

    // One thing changed in the file, and the same rules.
    let changed = |skip: &str, add: &dyn Fn(&mut TensorFile)| {
        let mut copy = TensorFile::new();
        for name in file.names().filter(|name| *name != skip) {
            match file.dtype(name).unwrap() {
                tenfold::DType::F32 => copy.insert(name, &file.get::<f32, IxDyn>(name).unwrap()),
                tenfold::DType::F64 => copy.insert(name, &file.get::<f64, IxDyn>(name).unwrap()),
                _ => copy.insert(name, &file.get::<i64, IxDyn>(name).unwrap()),
            }
            .unwrap();
        }
        file.metadata().iter().for_each(|(key, word)| copy.set_metadata(key, word));
        add(&mut copy);
        copy
    };
    let moment = "o.state.layers.0.bias.exp_avg";
    let f32s = |n: usize| Tensor::<f32, IxDyn>::zeros(vec![n]).unwrap();
    let i64s = |x: i64, n: usize| Tensor::<i64, IxDyn>::full(vec![n], x).unwrap();
    for (file, kind, word) in [
        (changed(moment, &|_| {}), value, "\"o.state.layers.0.bias.exp_avg\" is missing"),
        (changed("", &|f| f.insert("o.state.x", &f32s(1)).unwrap()), value, "\"o.state.x\" is unexpected"),
        (
            changed(moment, &|f| f.insert(moment, &f32s(299)).unwrap()),
            ErrorKind::Shape,
            "\"o.state.layers.0.bias.exp_avg\" has shape [299] in the file and [300] here",
        ),
        (
            changed(moment, &|f| f.insert(moment, &f32s(300).cast::<f64>().unwrap()).unwrap()),
            ErrorKind::Unsupported,
            "\"o.state.layers.0.bias.exp_avg\" is f64 in the file and f32 here",
        ),
        (changed("o.steps", &|_| {}), format, "there is no tensor \"o.steps\""),
        (changed("o.steps", &|f| f.insert("o.steps", &i64s(-1, 7)).unwrap()), format, "has a count below 0"),
        (changed("o.steps", &|f| f.insert("o.steps", &i64s(1, 6)).unwrap()), format, "has 6 counts for 7 parameters"),
        (
            changed("o.settings", &|f| f.insert("o.settings", &f32s(7)).unwrap()),
            format,
            "tensor \"o.settings\" of shape [7] has order 1",
        ),
        (changed("", &|f| f.set_metadata("o.parameters", "[1]")), format, "is no list of names"),
        (
            changed("", &|f| f.set_metadata("o.parameters", f.metadata()["o.parameters"].replace("[", "[\"scale\","))),
            format,
            "has a name twice",
        ),
    ] {
        refused(make(rule, &groups()), &file, kind, &[word]);
    }
    make(rule, &groups()).load_from(&changed("", &|_| {}), "o.").unwrap();
}

#[test]
fn threads_and_memory_order_change_nothing() {
    for rule in rules() {
        let gradient = |p: &Parameter<f32>, c: &Tensor<f32, IxDyn>| {
            p.var().mul(&Var::constant(c.to_device(p.var().device())?))?.sum()?.backward()
        };
        let values =
            |n: u64, shape: Vec<usize>| Tensor::<f32, IxDyn>::normal(shape, &mut ChaCha8Rng::seed_from_u64(n)).unwrap();
        // Large enough for several threads, and a matrix that lies in memory the other way round.
        let run = |threads: usize, reversed: bool| -> Result<Vec<f32>> {
            let device = Device::cpu().threads(threads);
            let lay = |x: Tensor<f32, IxDyn>| match reversed {
                true => x.permute(&[1, 0])?.to_contiguous()?.permute(&[1, 0]),
                false => Ok(x),
            };
            let start = lay(values(0, vec![301, 403]).to_device(&device)?)?;
            let mut p = Parameter::new(start);
            let mut optimizer = Optimizer::new(rule, &Groups::new(), &p)?;
            for step in 1..4 {
                let gradients = gradient(&p, &lay(values(step, vec![301, 403]))?)?;
                optimizer.step(&mut p, gradients, 1.0, Some(1.0))?;
            }
            p.value().to_vec()
        };
        let once = run(1, false).unwrap();
        for (threads, reversed) in [(2, false), (5, false), (1, true), (3, true)] {
            assert!(run(threads, reversed).unwrap() == once, "{rule}, {threads} threads, reversed: {reversed}");
        }
    }
}

#[test]
fn a_step_writes_where_the_parameters_lie() {
    let mut model = Model::<f32>::new(3);
    let mut optimizer = Optimizer::new(AdamW::new(0.01), &Groups::new(), &model).unwrap();
    let addresses = |model: &Model<f32>| -> Vec<*const f32> {
        model.parameters().iter().map(|(_, p)| p.value().as_slice().unwrap().as_ptr()).collect()
    };
    let before = addresses(&model);
    model.train(&mut optimizer, 0..3);
    assert_eq!(addresses(&model), before);

    // Whoever holds a tensor keeps what it was.
    let held = model.scale.value().clone();
    let old = held.to_vec().unwrap();
    model.train(&mut optimizer, 3..4);
    assert_eq!(held.to_vec().unwrap(), old);
    assert_ne!(model.scale.value().to_vec().unwrap(), old);
}

#[test]
fn nothing_moves_where_a_gradient_is_missing_or_not_finite() {
    let mut model = Model::<f64>::new(4);
    let mut optimizer = Optimizer::new(AdamW::new(0.01), &Groups::new(), &model).unwrap();
    let refused = |model: &mut Model<f64>, optimizer: &mut Optimizer<f64>, gradients, message: &str| {
        let before = (model.values(), optimizer.clone());
        let error = optimizer.step(model, gradients, 1.0, None).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Value, message));
        assert!(model.values() == before.0);
        let files = [&before.1, optimizer].map(|o| {
            let mut file = TensorFile::new();
            o.save_into(&mut file, "").unwrap();
            file
        });
        assert_eq!(files[0], files[1]);
    };

    let gradients = model.scale.var().square().unwrap().sum().unwrap().backward().unwrap();
    let message = "1 of 7 parameters that train received a gradient; none arrived at \"layers.0.weight\", \
                   \"layers.0.bias\", \"layers.1.weight\", \"layers.1.bias\", \"layers.2.weight\", \"layers.2.bias\"";
    refused(&mut model, &mut optimizer, gradients, message);

    for (bad, name) in [(f64::NAN, "NaN"), (f64::NEG_INFINITY, "-inf")] {
        let mut gradients = model.gradients(0);
        let mut c = Tensor::<f64, IxDyn>::zeros(vec![3, 300]).unwrap();
        c.as_mut_slice().unwrap()[602] = bad;
        let (_, weight) = &model.parameters()[2];
        gradients.accumulate(weight.var().backward_from(c).unwrap()).unwrap();
        let message =
            format!("the gradient of \"layers.1.weight\": entry [2, 2] is {name}; every entry has to be finite");
        refused(&mut model, &mut optimizer, gradients, &message);
    }

    // Parameters that were frozen when the optimiser was made.
    let mut other = Model::<f64>::new(4);
    other.train_only(&|name| name == "scale");
    let mut few = Optimizer::new(Sgd::new(0.1), &Groups::new(), &other).unwrap();
    other.unfreeze_all();
    let gradients = other.gradients(0);
    let message = "\"layers.0.weight\" trains and did not when the optimiser was made; make another";
    refused(&mut other, &mut few, gradients, message);

    for (scale, factor, clip, message) in [
        (f64::NAN, 1.0, None, "gradients scaled by NaN; the factor has to be finite"),
        (1.0, -1.0, None, "a factor of -1 on the rates; it has to be finite and not below 0"),
        (1.0, 1.0, Some(0.0), "gradients clipped to a norm of 0; it has to be above 0"),
    ] {
        let gradients = model.gradients(0).scaled(scale);
        let error = optimizer.step(&mut model, gradients, factor, clip).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Value, message));
    }
}

#[test]
fn missing_gradients_are_passed_by_where_they_may_be() {
    let mut model = Model::<f64>::new(5);
    let mut optimizer = Optimizer::new(AdamW::new(0.01), &Groups::new(), &model).unwrap().allow_missing();
    let before = model.values();
    let gradients = model.scale.var().square().unwrap().sum().unwrap().backward().unwrap();
    optimizer.step(&mut model, gradients, 1.0, None).unwrap();
    for ((name, old), (_, new)) in before.iter().zip(model.values()) {
        assert_eq!(*old != new, name == "scale", "{name}: decay moves nothing either");
    }
    // Frozen parameters stay, too.
    model.train_only(&|name| name != "scale");
    let before = model.values();
    model.train(&mut optimizer, 0..1);
    for ((name, old), (_, new)) in before.iter().zip(model.values()) {
        assert_eq!(*old == new, name == "scale", "{name}");
    }
}

#[test]
fn models_that_cannot_be_stepped_are_refused() {
    let new = |model: &Model<f32>| Optimizer::new(Sgd::new(0.1), &Groups::new(), model).unwrap_err();
    let mut model = Model::<f32>::new(6);
    model.freeze_all();
    assert_eq!(new(&model).message(), "no parameter of the model trains; unfreeze some, or attach an adapter");

    struct Twice<T: Scalar> {
        a: Parameter<T>,
        b: Parameter<T>,
    }
    module!(Twice { a => "w", b => "w" });
    let ones = || Parameter::new(Tensor::<f32, _>::ones([2]).unwrap());
    let error = Optimizer::new(Sgd::new(0.1), &Groups::new(), &Twice { a: ones(), b: ones() }).unwrap_err();
    assert_eq!(error.message(), "the model has two parameters of the name \"w\"");
    let a = ones();
    let pair = vec![a.clone(), a];
    let error = Optimizer::new(Sgd::new(0.1), &Groups::new(), &pair).unwrap_err();
    assert!(error.message().starts_with("\"0\" and \"1\" are clones of one parameter"), "{error}");
    let error = Optimizer::new(Sgd::new(-0.1), &Groups::new(), &pair).unwrap_err();
    assert_eq!(error.to_string(), "Sgd: rate -0.1; it has to be finite and not below 0");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Clipping leaves the direction, and a norm of at most what was asked for.
    #[test]
    fn clipped_gradients_are_as_long_as_they_may_be(
        values in prop::collection::vec(-1e3..1e3f64, 1..40), most in 1e-3..1e3f64, scale in 0.01..2.0f64,
    ) {
        let mut p = Parameter::new(Tensor::<f64, _>::zeros([values.len()]).unwrap());
        let mut optimizer = Optimizer::new(Sgd::new(1.0), &Groups::new(), &p).unwrap();
        let c = Tensor::from_vec([values.len()], values.clone()).unwrap().into_dyn();
        let gradients = p.var().backward_from(c).unwrap().scaled(scale);
        let step = optimizer.step(&mut p, gradients, 1.0, Some(most)).unwrap();
        let norm = scale * values.iter().map(|x| x * x).sum::<f64>().sqrt();
        prop_assert!((step.gradient_norm - norm).abs() <= 1e-12 * norm);
        prop_assert_eq!(step.clipped, most < norm + 1e-6);
        let shorter = (most / (norm + 1e-6)).min(1.0) * scale;
        for (moved, x) in p.value().to_vec().unwrap().into_iter().zip(values) {
            prop_assert!((moved + shorter * x).abs() <= 1e-12 * (1.0 + x.abs()));
        }
    }
}
