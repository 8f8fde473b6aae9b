//! Attaching to a model: which layers, what trains, what is refused, and several adapters at once.

use super::layers::{fill, normal};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tenfold::{
    ErrorKind, Result, Scalar, Tensor,
    autodiff::Var,
    module,
    nn::{Conv, Layer, LayerNorm, Linear, Mode, Module, ResidualNorm, Sublayer},
    peft::{
        self, AdaLora, Attach, BitFit, Bottleneck, Dora, Flora, Full, Lora, LoraForm, Method, Pattern, Plan, Probe,
        Ranks, Scaling, Targets,
    },
};

struct Block<T: Scalar> {
    norm: LayerNorm<T>,
    up: Linear<T>,
    down: Linear<T>,
}
module!(Block { norm, up => "mlp.up", down => "mlp.down" });

struct Model<T: Scalar> {
    blocks: Vec<Block<T>>,
    head: Linear<T>,
}
module!(Model { blocks, head => "head.dense" });

impl Model<f64> {
    fn new() -> Self {
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        let mut block = || Block {
            norm: LayerNorm::new(6, 1e-5).unwrap(),
            up: Linear::new(6, 8, rng).unwrap(),
            down: Linear::new(8, 6, rng).unwrap(),
        };
        Self { blocks: vec![block(), block()], head: Linear::new(6, 3, &mut ChaCha8Rng::seed_from_u64(2)).unwrap() }
    }

    fn forward(&self, mode: Mode) -> Result<Var<f64>> {
        let mut x = Var::constant(normal(&[4, 6], 9));
        for block in &self.blocks {
            let h = block.up.forward(&block.norm.forward(&x)?, mode)?.gelu()?;
            x = x.add(&block.down.forward(&h, mode)?)?;
        }
        self.head.forward(&x, mode)
    }

    fn training(&self) -> Vec<String> {
        self.parameters().into_iter().filter(|(_, p)| p.trains()).map(|(name, _)| name).collect()
    }

    fn value(&self) -> Tensor<f64> {
        self.forward(Mode::Evaluation).unwrap().into_value()
    }

    fn fill(&mut self, seed: u64) {
        self.layers_mut().into_iter().for_each(|(_, layer)| fill(layer, None, seed));
    }
}

#[test]
fn adapters_and_the_head_train_and_receive_gradients() {
    let mut model = Model::new();
    let flora = Flora::new().rank(2).rank_pattern("blocks.1", Ranks::Uniform(1));
    let attach = Attach::new(&flora).to(Targets::of(["mlp"])).keep(Targets::of(["head"]));
    let plan = attach.plan(&model).unwrap();
    assert_eq!(model.count().trainable, model.count().total, "a dry run changes nothing");
    assert_eq!(attach.apply(&mut model).unwrap(), plan);
    let layers = ["blocks.0.mlp.up", "blocks.0.mlp.down", "blocks.1.mlp.up", "blocks.1.mlp.down"];
    let parts = ["core", "factors.0", "factors.1"];
    let mut expected: Vec<String> =
        layers.iter().flat_map(|layer| parts.iter().map(move |part| format!("{layer}.default.{part}"))).collect();
    expected.extend(["head.dense.weight".into(), "head.dense.bias".into()]);
    assert_eq!(model.training(), expected);
    assert_eq!(plan.parameters(), model.count().trainable);
    assert_eq!(plan.adapter_parameters(), 2 * (4 + 2 * 14) + 2 * (1 + 14));
    assert_eq!(plan.model, Model::new().count().total);
    let gradients = model.forward(Mode::training(1, 0)).unwrap().sum().unwrap().backward().unwrap();
    model.gradient_report(&gradients).check().unwrap();
    assert_eq!(gradients.len(), expected.len(), "something frozen received a gradient");
}

#[test]
fn the_plan_as_it_is_printed() {
    let flora = Flora::new().rank(4).rank_pattern(Pattern::exact("blocks.1.mlp.up"), Ranks::Modes(vec![2, 5]));
    let plan = Attach::new(&flora).keep(Targets::of(["head"])).to(Targets::of(["up"])).plan(&Model::new()).unwrap();
    let expected = "\
name               shape  method  ranks  parameters  reached  wasted     share
blocks.0.mlp.up    8 x 6  flora   4, 4           72       40       0   46.45 %
blocks.1.mlp.up    8 x 6  flora   2, 5           62       24       3   40.00 %
head.dense.weight  3 x 6  kept    -              18       18       0   11.61 %
head.dense.bias    3      kept    -               3        3       0    1.94 %
total                                           155       85       3  100.00 %
155 of 399 parameters train (38.85 %)
warning: \"blocks.0.mlp.up\": the adapter has 72 parameters, its weight 48; it reaches 40 directions
warning: \"blocks.1.mlp.up\": the adapter has 62 parameters, its weight 48; it reaches 24 directions";
    assert_eq!(plan.to_string(), expected);
    let again: Plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
    assert_eq!(again, plan);
}

#[test]
fn methods_that_select_parameters() {
    let training = |attach: Attach<'_, f64>| {
        let mut model = Model::new();
        let plan = attach.apply(&mut model).unwrap();
        assert_eq!(plan.parameters(), model.count().trainable);
        model.training()
    };
    let biases = training(Attach::new(&BitFit).to(Targets::all().except("norm").except("blocks.0")));
    assert_eq!(biases, ["blocks.1.mlp.up.bias", "blocks.1.mlp.down.bias", "head.dense.bias"]);
    assert_eq!(training(Attach::new(&BitFit)).len(), 7);
    assert_eq!(training(Attach::new(&Full)).len(), Model::new().parameters().len());
    assert_eq!(training(Attach::new(&Full).to(Targets::of(["norm"]))).len(), 4);
    assert_eq!(training(Attach::new(&Probe).keep(Targets::of(["head"]))), ["head.dense.weight", "head.dense.bias"]);
    let both = training(Attach::new(&BitFit).to(Targets::of(["up"])).keep(Targets::of([Pattern::exact("head")])));
    assert_eq!(both, ["blocks.0.mlp.up.bias", "blocks.1.mlp.up.bias", "head.dense.weight", "head.dense.bias"]);
}

#[test]
fn what_is_refused_changes_nothing() {
    let message = |attach: Attach<'_, f64>| {
        let mut model = Model::new();
        let error = attach.apply(&mut model).unwrap_err();
        assert_eq!(model.count().trainable, Model::new().count().total, "something was frozen");
        assert!(model.layers().iter().all(|(_, layer)| layer.adapters().is_empty()), "something was attached");
        error.to_string()
    };
    let flora = Flora::new().rank(2);
    assert_eq!(
        message(Attach::new(&flora).to(Targets::of(["mlp", "quary"]))),
        "Targets: \"quary\" matches nothing; there are \"blocks.0.mlp.up\", \"blocks.0.mlp.down\", \"blocks.1.mlp.up\", \
         \"blocks.1.mlp.down\", \"head.dense\""
    );
    assert!(message(Attach::new(&flora).keep(Targets::of(["classifier"]))).contains("\"classifier\" matches nothing"));
    let pattern = flora.clone().rank_pattern("mpl", Ranks::Uniform(1));
    assert!(message(Attach::new(&pattern)).contains("\"mpl\" matches nothing"));
    assert!(message(Attach::new(&Lora::new(2).rank_pattern("mpl", 1))).contains("\"mpl\" matches nothing"));
    assert_eq!(
        message(Attach::new(&Probe)),
        "attach: \"probe\" selects no parameter, and none is kept: nothing would train"
    );
    let late = flora.clone().rank_pattern("head", Ranks::Modes(vec![1]));
    assert!(message(Attach::new(&late)).contains("layer \"head.dense\": 1 ranks [1]"));
    assert!(message(Attach::new(&flora.clone().dropout(1.5))).contains("a probability of dropout of 1.5"));
    assert_eq!(message(Attach::new(&flora).name("")), "attach: adapters need a name");
    assert!(message(Attach::new(&Lora::new(0))).contains("rank 0"));
    for scale in [f64::NAN, f64::INFINITY, 1e300] {
        let methods: [&dyn Method<f32>; 4] = [
            &Flora::new().scale(scale),
            &Lora::new(2).alpha(2.0 * scale),
            &Dora::from(Lora::new(2).scaling(Scaling::Constant(scale))),
            &AdaLora::new(2).scaling(Scaling::Constant(scale)),
        ];
        for method in methods {
            let mut layer = Linear::<f32>::zeros(4, 4).unwrap();
            let error = Attach::new(method).apply(&mut layer).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Value);
            assert!(error.message().contains("it has to be finite, as f32"), "{error}");
            assert_eq!(layer.count().trainable, 20);
        }
    }

    let mut model = Model::new();
    peft::attach(&mut model, &flora, &Targets::of(["up"])).unwrap();
    let error = peft::attach(&mut model, &Lora::new(2), &Targets::all()).unwrap_err();
    assert_eq!(
        error.message(),
        "\"default\" is the name of an adapter of \"blocks.0.mlp.up\", \"blocks.1.mlp.up\"; take another, or detach it"
    );
    assert_eq!(model.layers().iter().filter(|(_, layer)| !layer.adapters().is_empty()).count(), 2);
}

/// Ranks whose parameters nobody could count are refused by plans already, and budgets without an end are none.
#[test]
fn ranks_beyond_all_memory() {
    for rank in [usize::MAX, usize::MAX / 2, 1 << 62] {
        let methods: [&dyn Method<f64>; 9] = [
            &Flora::new().rank(rank),
            &Flora::new().kernel_rank(rank),
            &Flora::new().ranks_by(Ranks::Modes(vec![rank; 4])),
            &Flora::new().ranks_by(Ranks::LayerParameters(usize::MAX)).kernel_rank(rank),
            &Lora::new(rank),
            &Lora::new(rank).form(LoraForm::Kernel),
            &Lora::new(rank).form(LoraForm::Equation3),
            &Dora::new(rank),
            &AdaLora::new(rank / 2),
        ];
        for method in methods {
            let options = tenfold::autodiff::Conv::new();
            let mut conv = Conv::<f64>::new([4, 6], &[3, 3], options, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
            let plan = Attach::new(method).plan(&conv).unwrap_err();
            let error = Attach::new(method).apply(&mut conv).unwrap_err();
            assert_eq!((error.kind(), error.message()), (ErrorKind::Rank, plan.message()), "{}", method.name());
            assert!(error.message().ends_with("numbers; take a smaller rank"), "{error}");
        }
        let mut norm = ResidualNorm::<f64>::new(4, 1e-5, Sublayer::Attention).unwrap();
        let error = Attach::new(&Bottleneck::houlsby(rank)).apply(&mut norm).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rank, "{error}");
    }
    for ranks in [Ranks::LayerParameters(usize::MAX), Ranks::ModelParameters(usize::MAX)] {
        let mut model = Model::new();
        Attach::new(&Flora::new().ranks_by(ranks)).to(Targets::of(["up"])).apply(&mut model).unwrap();
    }
}

#[test]
fn layers_of_one_name() {
    struct Twice<T: Scalar> {
        one: Linear<T>,
        other: Linear<T>,
    }
    module!(Twice { one => "dense", other => "dense" });
    let mut model = Twice::<f64> { one: Linear::zeros(3, 3).unwrap(), other: Linear::zeros(3, 3).unwrap() };
    let error = peft::attach(&mut model, &Lora::new(2), &Targets::all()).unwrap_err();
    assert_eq!(error.message(), "the model has two layers of the name \"dense\"; give each its own");
    assert!(model.count().trainable == 24 && model.one.adapters().is_empty());
}

#[test]
fn several_adapters_by_name() {
    let mut model = Model::new();
    let plain = model.value();
    Attach::new(&Flora::new().rank(2)).name("a").apply(&mut model).unwrap();
    model.fill(1);
    let a = model.value();
    peft::disable(&mut model, "a").unwrap();
    assert_eq!(model.value(), plain);
    Attach::new(&Lora::new(2)).name("b").to(Targets::of(["up"])).keep(Targets::of(["head"])).apply(&mut model).unwrap();
    model.fill(2);
    let b = model.value();
    assert_eq!(peft::switch(&mut model, "a").unwrap(), 5);
    assert!(model.training().iter().all(|name| name.contains(".a.") || name.starts_with("head.dense.")));
    assert_eq!(peft::switch(&mut model, "b").unwrap(), 2);
    assert_eq!(model.value(), b);
    peft::enable(&mut model, "a").unwrap();
    let both = model.value();
    assert!(both != a && both != b);
    let gradients = model.forward(Mode::Evaluation).unwrap().sum().unwrap().backward().unwrap();
    model.gradient_report(&gradients).check().unwrap(); // a is frozen
    assert_eq!(peft::detach(&mut model, "a").unwrap(), 5);
    assert_eq!(model.value(), b);
    for result in [peft::switch(&mut model, "c"), peft::enable(&mut model, "c"), peft::detach(&mut model, "c")] {
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind(), error.message()),
            (ErrorKind::Value, "no layer has an adapter \"c\"; there are \"b\"")
        );
    }
    assert_eq!(model.value(), b);
    peft::detach(&mut model, "b").unwrap();
    assert_eq!(model.value(), plain);
    assert_eq!(peft::disable(&mut model, "b").unwrap_err().message(), "no layer has an adapter \"b\"; there are none");
}
