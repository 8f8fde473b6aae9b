//! Whole models, every method of adaptation, and training, beside the host: logits, every gradient, the weights after some steps.

use super::*;
use tenfold::{
    autodiff::CrossEntropy,
    models::{
        BertConfig, CifarResNet, CifarResNetConfig, ConvNext, ConvNextConfig, Deberta, DebertaConfig, EfficientNetLite,
        EfficientNetLiteConfig, ImageClassifier, TextClassifier, Tokens,
    },
    nn::{Mode, Module, Operation},
    peft::{self, AdaLora, Attach, BitFit, Bottleneck, Dora, Flora, Full, Lora, Method, Path, Probe, Targets},
    train::{AdamW, Groups, Optimizer},
};

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

/// An image model or a text model with its input, on any device.
trait Case<T: Scalar>: Module<T> {
    fn logits(&self, device: &Device, mode: Mode) -> Result<Var<T>>;
    fn heads(&self) -> Vec<&'static str>;
}

struct Images<M>(M);
struct Texts<M>(M);

impl<T: Scalar, M: Module<T>> Module<T> for Images<M> {
    fn visit<'a>(&'a self, visitor: &mut tenfold::nn::Visitor<'_, 'a, T>) {
        self.0.visit(visitor);
    }
    fn visit_mut<'a>(&'a mut self, visitor: &mut tenfold::nn::VisitorMut<'_, 'a, T>) {
        self.0.visit_mut(visitor);
    }
}

impl<T: Scalar, M: Module<T>> Module<T> for Texts<M> {
    fn visit<'a>(&'a self, visitor: &mut tenfold::nn::Visitor<'_, 'a, T>) {
        self.0.visit(visitor);
    }
    fn visit_mut<'a>(&'a mut self, visitor: &mut tenfold::nn::VisitorMut<'_, 'a, T>) {
        self.0.visit_mut(visitor);
    }
}

impl<T: Scalar, M: ImageClassifier<T>> Case<T> for Images<M> {
    fn logits(&self, device: &Device, mode: Mode) -> Result<Var<T>> {
        self.0.forward(&Var::constant(on(device, &normal::<T>(&[3, 32, 36, 3], 5))), mode)
    }
    fn heads(&self) -> Vec<&'static str> {
        vec![self.0.head()]
    }
}

impl<T: Scalar, M: TextClassifier<T>> Case<T> for Texts<M> {
    fn logits(&self, device: &Device, mode: Mode) -> Result<Var<T>> {
        let ids: [&[u32]; 3] = [&[1, 17, 8, 30, 2], &[1, 5, 9, 2], &[1, 40, 41, 42, 43, 44, 45, 46, 2]];
        let types: Vec<Vec<u32>> = ids.iter().map(|ids| (0..ids.len()).map(|i| u32::from(i > 2)).collect()).collect();
        let sequences: Vec<(&[u32], &[u32])> =
            ids.iter().zip(&types).map(|(ids, types)| (*ids, types.as_slice())).collect();
        self.0.forward(&Tokens::padded(&sequences, self.0.padding())?.to_device(device)?, mode)
    }
    fn heads(&self) -> Vec<&'static str> {
        self.0.head().to_vec()
    }
}

type Made<T> = (&'static str, Box<dyn Fn() -> Box<dyn Case<T>>>);

/// Models of every kind, small.
fn models<T: Scalar>() -> Vec<Made<T>> {
    fn convnext<T: Scalar>(version: &'static str) -> Made<T> {
        let make = move || {
            let named = ConvNextConfig::named(&format!("{version}-tiny")).unwrap();
            let config =
                ConvNextConfig { hidden_sizes: vec![8, 12, 16], depths: vec![1, 2, 1], num_labels: 3, ..named };
            Box::new(Images(ConvNext::<T>::new(config, &mut rng()).unwrap())) as Box<dyn Case<T>>
        };
        (version, Box::new(make))
    }
    let resnet = || {
        let config = CifarResNetConfig { width: 4, blocks: 2, num_labels: 3 };
        Box::new(Images(CifarResNet::<T>::new(config, &mut rng()).unwrap())) as Box<dyn Case<T>>
    };
    let efficientnet = || {
        let named = EfficientNetLiteConfig::named("efficientnet-lite0").unwrap();
        // Not so deep that batch norms see a single pixel an image: their gradients would be sums that cancel.
        let config =
            EfficientNetLiteConfig { num_labels: 3, stages: named.stages[..3].to_vec(), features: 40, ..named };
        Box::new(Images(EfficientNetLite::<T>::new(config, &mut rng()).unwrap())) as Box<dyn Case<T>>
    };
    let deberta = || {
        let named = DebertaConfig::named("deberta-v3-small").unwrap();
        let config = DebertaConfig {
            vocab_size: 60,
            hidden_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 3,
            intermediate_size: 40,
            ..named
        };
        Box::new(Texts(Deberta::<T>::new(config, &mut rng()).unwrap())) as Box<dyn Case<T>>
    };
    let bert = || {
        let config = BertConfig {
            vocab_size: 60,
            hidden_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 3,
            intermediate_size: 40,
            ..BertConfig::default()
        };
        Box::new(Texts(tenfold::models::Bert::<T>::new(config, &mut rng()).unwrap())) as Box<dyn Case<T>>
    };
    vec![
        convnext("convnextv2"),
        convnext("convnext"),
        ("resnet", Box::new(resnet)),
        ("efficientnet-lite", Box::new(efficientnet)),
        ("deberta", Box::new(deberta)),
        ("bert", Box::new(bert)),
    ]
}

fn methods<T: Scalar>() -> Vec<(&'static str, Box<dyn Method<T>>)> {
    vec![
        ("full", Box::new(Full)),
        ("probe", Box::new(Probe)),
        ("bitfit", Box::new(BitFit)),
        ("flora, factored where it can be", Box::new(Flora::new().rank(3).scale(2.0).dropout(0.2))),
        ("flora, merged", Box::new(Flora::new().rank(3).path(Path::Merged))),
        ("lora", Box::new(Lora::new(3).dropout(0.2))),
        ("dora", Box::new(Dora::new(3))),
        ("hadapter", Box::new(Bottleneck::houlsby(3))),
        ("padapter", Box::new(Bottleneck::pfeiffer(3))),
        ("adalora", Box::new(AdaLora::new(2).dropout(0.2))),
    ]
}

/// The model with the method, all that trains filled with numbers that are not zero.
fn adapted<T: Scalar>(make: &dyn Fn() -> Box<dyn Case<T>>, method: &dyn Method<T>) -> Box<dyn Case<T>> {
    let mut model = make();
    let heads = model.heads();
    let updates = method.fits(Operation::Linear);
    let targets = heads.iter().filter(|_| updates).fold(Targets::all(), |targets, &head| targets.except(head));
    Attach::new(method).to(targets).keep(Targets::of(heads)).apply(&mut *model).unwrap();
    for (i, (_, parameter)) in model.parameters_mut().into_iter().enumerate() {
        if parameter.trains() {
            let shift = normal::<T>(parameter.shape(), i as u64).scale(T::of(0.05)).unwrap();
            let value = parameter.value().add(&shift).unwrap();
            parameter.set(value).unwrap();
        }
    }
    model
}

/// Logits in training and in evaluation, the loss, and the gradients by name.
fn pass<T: Scalar>(model: &dyn Case<T>, device: &Device) -> Vec<(String, Tensor<T>)> {
    let labels = on(device, &Tensor::from(ndarray::array![0u32, 2, 1].mapv(|label| label % 2)));
    let evaluated = model.logits(device, Mode::Evaluation).unwrap();
    let logits = model.logits(device, Mode::training(3, 5)).unwrap();
    let loss = logits.cross_entropy(&labels, CrossEntropy::default()).unwrap();
    let gradients = loss.backward().unwrap();
    model.gradient_report(&gradients).check().unwrap();
    let mut all = vec![
        ("logits in evaluation".to_string(), evaluated.into_value()),
        ("logits".to_string(), logits.into_value()),
        ("loss".to_string(), loss.into_value()),
    ];
    for (name, parameter) in model.parameters() {
        if parameter.trains() {
            all.push((name, gradients.of(parameter.var()).unwrap().clone()));
        }
    }
    all
}

/// All of `got` beside all of `wanted`: numbers as sums of many layers are, relative to the largest of all gradients or to the result's own.
fn same<T: Scalar>(what: &str, got: &[(String, Tensor<T>)], wanted: &[(String, Tensor<T>)]) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    let largest = wanted.iter().map(|(_, x)| x.max_abs().unwrap().f64()).fold(0.0, f64::max);
    for ((name, got), (other, wanted)) in got.iter().zip(wanted) {
        assert_eq!(name, other, "{what}");
        within(&format!("{what}: {name}"), got, wanted, 10.0 * largest);
    }
}

pub fn models_and_methods<T: Scalar>(device: &Device) {
    for (name, make) in models::<T>() {
        for (how, method) in methods::<T>() {
            // Bottlenecks have a place in transformers only.
            if !make().layers().iter().any(|(_, layer)| method.fits(layer.operation())) {
                continue;
            }
            // One each: batch norms move their statistics.
            let wanted = pass(&*adapted(&*make, &*method), &Device::cpu());
            let mut model = adapted(&*make, &*method);
            model.to_device(device).unwrap();
            same(&format!("{name}, {how}"), &pass(&*model, device), &wanted);
        }
    }
}

pub fn training_and_merging<T: Scalar>(device: &Device) {
    let flora = Flora::new().rank(3).dropout(0.1);
    for (name, make) in models::<T>() {
        let trained = |device: &Device| {
            let mut model = adapted(&*make, &flora);
            model.to_device(device).unwrap();
            let labels = on(device, &Tensor::from(ndarray::array![0u32, 1, 1]));
            let mut optimizer = Optimizer::new(AdamW::new(1e-3).weight_decay(0.1), &Groups::new(), &*model).unwrap();
            let norms: Vec<f64> = (0..4)
                .map(|step| {
                    let logits = model.logits(device, Mode::training(3, step)).unwrap();
                    let gradients = logits.cross_entropy(&labels, CrossEntropy::default()).unwrap().backward().unwrap();
                    optimizer.step(&mut *model, gradients, 0.5, Some(1.0)).unwrap().gradient_norm
                })
                .collect();
            let adapted = model.logits(device, Mode::Evaluation).unwrap().into_value();
            peft::merge(&mut *model).unwrap();
            let merged = model.logits(device, Mode::Evaluation).unwrap().into_value();
            let parameters = model.parameters().into_iter().map(|(name, p)| (name, p.value().clone()));
            (
                norms,
                vec![("adapted".to_string(), adapted), ("merged".to_string(), merged)],
                parameters.collect::<Vec<_>>(),
            )
        };
        let ((norms, got, weights), (wanted_norms, wanted, wanted_weights)) =
            (trained(device), trained(&Device::cpu()));
        for (norm, wanted) in norms.iter().zip(&wanted_norms) {
            near::<T>(&format!("{name}: the norm of the gradients"), *norm, *wanted, 10.0 * wanted);
        }
        same(&format!("{name}, trained"), &got, &wanted);
        // Adam's first steps divide small gradients by themselves: what rounding does to those moves a weight by part of a step.
        for ((parameter, got), (_, wanted)) in weights.iter().zip(&wanted_weights) {
            let away = got.to_device(&Device::cpu()).unwrap().sub(wanted).unwrap().max_abs().unwrap().f64();
            assert!(away < 4e-3, "{name}: {parameter} is {away} away");
        }
    }
}

/// AdaLoRA's penalty, what its allocator remembers, and how much it leaves.
pub fn budgets<T: Scalar>(device: &Device) {
    let adalora = AdaLora::new(1).initial_rank(3).warmup(1).settle(1);
    for (name, make) in models::<T>() {
        let run = |device: &Device| {
            let mut model = adapted(&*make, &adalora);
            model.to_device(device).unwrap();
            let labels = on(device, &Tensor::from(ndarray::array![0u32, 1, 1]));
            let mut allocator = adalora.allocator().unwrap();
            let mut seen = Vec::new();
            for step in 1..=4 {
                let logits = model.logits(device, Mode::training(3, step)).unwrap();
                let loss = logits.cross_entropy(&labels, CrossEntropy::default()).unwrap();
                let loss = loss.add(&adalora.penalty(&*model).unwrap().unwrap()).unwrap();
                allocator.before_step(&*model, &loss.backward().unwrap().into(), step, 4).unwrap();
                allocator.after_step(&mut *model, step, 4).unwrap();
                if step == 1 {
                    // Before anything is chosen: rounding may decide between triplets that matter alike.
                    seen.push(("loss".to_string(), loss.into_value()));
                    let buffers = model.buffers().into_iter().filter(|(name, _)| name.contains(".importance."));
                    seen.extend(buffers.map(|(name, buffer)| (name, buffer.value())));
                }
            }
            let left = peft::ranks_left(&*model).unwrap();
            assert_eq!(left.iter().map(|(_, rank)| rank).sum::<usize>(), left.len(), "{name}");
            seen
        };
        same(&format!("{name}, a budget"), &run(device), &run(&Device::cpu()));
    }
}

/// Everything that a step allocates is given back.
pub fn a_step_leaves_no_memory_behind<T: Scalar>(device: &Device) {
    let (_, make) = &models::<T>()[0];
    let mut model = adapted(&**make, &Flora::new().rank(3));
    model.to_device(device).unwrap();
    let mut optimizer = Optimizer::new(AdamW::new(1e-3), &Groups::new(), &*model).unwrap();
    let mut step = |n: u64| {
        let labels = on(device, &Tensor::from(ndarray::array![0u32, 1, 1]));
        let logits = model.logits(device, Mode::training(3, n)).unwrap();
        let gradients = logits.cross_entropy(&labels, CrossEntropy::default()).unwrap().backward().unwrap();
        drop(logits);
        optimizer.step(&mut *model, gradients, 1.0, None).unwrap();
    };
    // Other cases hold memory of the same device at the same time, so what is asked is that it stops growing.
    (0..3).for_each(&mut step);
    let most = device.memory().unwrap().most;
    (3..12).for_each(&mut step);
    let grown = device.memory().unwrap().most - most;
    assert!(grown < 1 << 30, "{grown} bytes more after nine steps");
}
