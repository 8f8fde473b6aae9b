//! Twenty steps of PyTorch's optimisers and schedules (`tests/fixtures/torch/optim.safetensors`) against ours, in doubles and in singles.

mod support;

use ndarray::{IxDyn, s};
use support::torch::assert_close;
use tenfold::{
    Result, Scalar, Tensor, TensorFile,
    autodiff::{Gradients, Scaled, Var},
    module,
    nn::Parameter,
    train::{Adam, AdamW, Groups, Optimizer, Rule, Schedule, Sgd},
};

const STEPS: usize = 20;
const NAMES: [&str; 3] = ["a", "b", "c"];

struct Three<T: Scalar> {
    a: Parameter<T>,
    b: Parameter<T>,
    c: Parameter<T>,
}
module!(Three { a, b, c });

/// What the generator's call of a case says.
struct Case {
    rule: Rule,
    groups: Groups,
    clip: Option<f64>,
    schedule: Schedule,
    mean: usize,
    skip: &'static [usize],
}

impl Case {
    fn of(rule: impl Into<Rule>) -> Self {
        let (groups, schedule) = (Groups::new(), Schedule::constant());
        Self { rule: rule.into(), groups, clip: None, schedule, mean: 1, skip: &[] }
    }
}

fn case(name: &str) -> Case {
    let (sgd, momentum, adam, adamw) =
        (Sgd::new(0.1), Sgd::new(0.1).momentum(0.9), Adam::new(0.01), AdamW::new(0.01).weight_decay(0.1));
    match name {
        "sgd" => Case::of(sgd),
        "sgd_decay" => Case::of(sgd.weight_decay(0.1)),
        "sgd_momentum" => Case::of(momentum),
        "sgd_dampening" => Case::of(momentum.dampening(0.3).weight_decay(0.05)),
        "sgd_nesterov" => Case::of(sgd.momentum(0.8).nesterov().weight_decay(0.05)),
        "adam" => Case::of(adam),
        "adam_decay" => Case::of(adam.weight_decay(0.1).betas(0.8, 0.95).eps(1e-4)),
        "adam_amsgrad" => Case::of(adam.weight_decay(0.1).amsgrad().betas(0.9, 0.5)),
        "adam_no_first" => Case::of(adam.betas(0.0, 0.99)),
        "adamw" => Case::of(AdamW::new(0.01)),
        "adamw_amsgrad" => Case::of(adamw.amsgrad().betas(0.9, 0.5)),
        "adamw_clip" => Case { clip: Some(4.5), ..Case::of(adamw) },
        "sgd_clip_mean" => Case { clip: Some(2.5), mean: 3, ..Case::of(momentum) },
        "adamw_skip" => Case { skip: &[0, 3, 4, 11], ..Case::of(adamw) },
        "adamw_groups" => {
            let groups = Groups::new().rate("a", 0.5).no_decay_on_vectors().rate("c", 3.0).weight_decay("c", 0.02);
            Case { groups, ..Case::of(adamw) }
        }
        "sgd_multi_step" => {
            let schedule = Schedule::multi_step([7, 12], 0.3).warmup_steps(5).warmup_from(1.0 / 3.0);
            Case { schedule, ..Case::of(momentum) }
        }
        "adamw_cosine" => Case { schedule: Schedule::cosine().warmup_steps(4), ..Case::of(AdamW::new(0.01)) },
        "adamw_linear" => Case { schedule: Schedule::linear().warmup_steps(4), ..Case::of(AdamW::new(0.01)) },
        _ => panic!("the fixture has a case \"{name}\" that this test does not know"),
    }
}

fn file() -> TensorFile {
    TensorFile::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/torch/optim.safetensors")).unwrap()
}

fn model<T: Scalar>(file: &TensorFile) -> Three<T> {
    let start = |name: &str| {
        let value: Tensor<f64, IxDyn> = file.get(&format!("start.{name}")).unwrap();
        Parameter::new(value.cast::<T>().unwrap())
    };
    Three { a: start("a"), b: start("b"), c: start("c") }
}

/// The gradients of a step: those of the sum of all entries times the file's gradients.
fn gradients<T: Scalar>(file: &TensorFile, model: &Three<T>, step: usize, skip: bool) -> Result<Gradients<T>> {
    let mut loss = Var::constant(Tensor::<T, IxDyn>::zeros(vec![1])?);
    for (name, parameter) in NAMES.into_iter().zip([&model.a, &model.b, &model.c]) {
        if !(skip && name == "b") {
            let all: Tensor<f64, IxDyn> = file.get(&format!("grad.{name}"))?;
            let gradient = all.slice_mode(step)?.cast::<T>()?;
            loss = loss.add(&parameter.var().mul(&Var::constant(gradient))?.sum()?)?;
        }
    }
    loss.sum()?.backward()
}

trait Row {
    fn slice_mode(&self, index: usize) -> Result<Tensor<f64, IxDyn>>;
}

impl Row for Tensor<f64, IxDyn> {
    /// The part at an index of the first mode.
    fn slice_mode(&self, index: usize) -> Result<Tensor<f64, IxDyn>> {
        let rest = self.shape()[1..].to_vec();
        self.reshape(vec![self.shape()[0], self.len() / self.shape()[0]])?
            .slice(s![index, ..])?
            .into_dyn()
            .reshape(rest)
    }
}

/// Runs a case and compares the way with PyTorch's.
fn compare<T: Scalar>(file: &TensorFile, name: &str, tolerance: f64) {
    let Case { rule, groups, clip, schedule, mean, skip } = case(name);
    let mut model = model::<T>(file);
    let mut optimizer = Optimizer::new(rule, &groups, &model).unwrap().allow_missing();
    schedule.check(STEPS as u64).unwrap();
    let path: Tensor<f64, IxDyn> = file.get(&format!("{name}.path")).unwrap();
    let mut clipped = 0;
    for step in 0..STEPS {
        let mut sum = gradients(file, &model, step, skip.contains(&step)).unwrap();
        for i in 1..mean {
            sum.accumulate(gradients(file, &model, (step + i) % STEPS, false).unwrap()).unwrap();
        }
        let sum: Scaled<T> = sum.scaled(1.0 / mean as f64);
        let done = optimizer.step(&mut model, sum, schedule.factor(step as u64, STEPS as u64), clip).unwrap();
        if clip.is_some() {
            let norm = file.get::<f64, IxDyn>(&format!("{name}.norm")).unwrap().get(&[step]).unwrap();
            assert!((done.gradient_norm - norm).abs() <= tolerance * norm, "{name}: the norm of step {step}");
            clipped += usize::from(done.clipped);
        }
        let ours: Vec<T> =
            [&model.a, &model.b, &model.c].into_iter().flat_map(|p| p.value().to_vec().unwrap()).collect();
        let ours = Tensor::from_vec(vec![ours.len()], ours).unwrap();
        assert_close(&format!("{name}, step {step}"), &ours, &path.slice_mode(step).unwrap(), tolerance);
    }
    assert!(clip.is_none() || (0 < clipped && clipped < STEPS), "{name} clips {clipped} steps");
}

#[test]
fn steps_are_pytorchs() {
    let file = file();
    let cases: Vec<&str> = file.names().filter_map(|name| name.strip_suffix(".path")).collect();
    assert_eq!(cases.len(), 18);
    for case in cases {
        compare::<f64>(&file, case, 1e-12);
        compare::<f32>(&file, case, 2e-5);
    }
}

#[test]
fn schedules_are_pytorchs() {
    let file = file();
    let warmup = |schedule: Schedule| schedule.warmup_steps(7);
    let cases: Vec<&str> = file.names().filter_map(|name| name.strip_prefix("schedule.")).collect();
    assert_eq!(cases.len(), 11);
    for case in cases {
        let schedule = match case {
            "linear" => Schedule::linear(),
            "linear_warmup" => warmup(Schedule::linear()),
            "polynomial" => warmup(Schedule::polynomial(2.5).floor(0.1)),
            "polynomial_torch" => Schedule::polynomial(2.0),
            "cosine" => warmup(Schedule::cosine()),
            "cosine_cycles" => warmup(Schedule::cosine_cycles(2.0)),
            "cosine_floor" => warmup(Schedule::cosine().floor(0.2)),
            "cosine_torch" => Schedule::cosine().floor(0.2),
            "multi_step" => Schedule::multi_step([5, 5, 11, 25], 0.3),
            "multi_step_warmup" => Schedule::multi_step([4, 20], 0.5).warmup_ratio(0.2).warmup_from(0.25),
            "constant_warmup" => Schedule::constant().warmup_ratio(0.18),
            _ => panic!("the fixture has a schedule \"{case}\" that this test does not know"),
        };
        schedule.check(30).unwrap();
        let theirs: Tensor<f64, IxDyn> = file.get(&format!("schedule.{case}")).unwrap();
        let ours = (0..30).map(|step| schedule.factor(step, 30)).collect();
        assert_close(case, &Tensor::from_vec(vec![30], ours).unwrap(), &theirs, 1e-12);
    }
}
