//! Text models: logits, states and all gradients are those of transformers (`tests/fixtures/models`), in both precisions; files there and
//! back; every method of adaptation.

use crate::reference::{Expected, fixture};
use ndarray::{Ix1, Ix2};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::{collections::BTreeMap, path::Path};
use tenfold::{
    ErrorKind, Scalar, Tensor, TensorFile,
    autodiff::{CrossEntropy, Var},
    models::{Bert, BertConfig, Deberta, DebertaConfig, PositionTerms, TextArchitecture, TextClassifier, Tokens},
    nn::{Activation, Checkpoint, Mode, Module, Operation, Renames, Save},
    peft::{self, Attach, BitFit, Bottleneck, Dora, Flora, Full, Lora, Method, Probe, Targets},
};

const CASES: [&str; 5] = ["deberta_v3", "deberta_v2", "deberta_v2_other", "deberta_v2_plain", "bert"];

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

pub fn tokens<T: Scalar>(expected: &Expected) -> Tokens<T> {
    let read = |name: &str| expected.get::<i64, Ix2>(name).map(|x| x as u32).unwrap();
    Tokens::new(read("ids"), read("types"), &read("mask")).unwrap()
}

/// The cross-entropy, or with one label the mean square of the error.
pub fn loss<T: Scalar>(expected: &Expected, logits: &Var<T>) -> Var<T> {
    if logits.shape()[1] > 1 {
        return logits.cross_entropy(&expected.get::<i64, Ix1>("labels"), CrossEntropy::default()).unwrap();
    }
    let labels = expected.get::<f64, Ix1>("labels").cast::<T>().unwrap();
    logits.index_mode(1, 0).unwrap().sub(&Var::constant(labels)).unwrap().square().unwrap().mean().unwrap()
}

fn compare<T: Scalar>(case: &str, tolerance: f64) {
    let expected = Expected::read(case);
    let model = TextArchitecture::open::<T>(fixture(case)).unwrap();
    let tokens = tokens::<T>(&expected);
    let states = model.states(&tokens, Mode::Evaluation).unwrap();
    // What stands at padding is nobody's business.
    let kept = states.mul(&Var::constant(tokens.keep().unwrap().clone())).unwrap();
    let mask = expected.get::<i64, Ix2>("mask").cast::<f64>().unwrap();
    let theirs = expected.get::<f64, ndarray::Ix3>("states").mul(&mask.insert_mode(2).unwrap()).unwrap().into_dyn();
    let away = kept.value().cast::<f64>().unwrap().sub(&theirs).unwrap().max_abs().unwrap();
    assert!(away <= tolerance * theirs.max_abs().unwrap(), "{case}: states {away:e} away");
    // Without the other tokens of the last block the first one is what it was.
    let first = model.first_state(&tokens, Mode::Evaluation).unwrap();
    let away = first.value().sub(states.index_mode(1, 0).unwrap().value()).unwrap().max_abs().unwrap().f64();
    assert!(away <= 0.1 * tolerance, "{case}: the first state is {away:e} away");
    expected.check("logits", model.forward(&tokens, Mode::Evaluation).unwrap().value(), tolerance);

    let loss = loss(&expected, &model.forward(&tokens, Mode::training(1, 0)).unwrap());
    expected.check("loss", loss.value(), tolerance);
    let gradients = loss.backward().unwrap();
    model.gradient_report(&gradients).check().unwrap();
    let parameters: BTreeMap<_, _> = model.parameters().into_iter().collect();
    let theirs = expected.names("grad.");
    assert_eq!(parameters.len(), theirs.len());
    for name in theirs {
        expected.check(&format!("grad.{name}"), gradients.of(parameters[&name].var()).unwrap(), tolerance);
    }
}

#[test]
fn everything_is_that_of_transformers() {
    for case in CASES {
        println!("{case}");
        compare::<f64>(case, 1e-9);
        compare::<f32>(case, 1e-4);
    }
}

/// What a file holds.
fn content(path: &Path) -> BTreeMap<String, Tensor<f32>> {
    let file = TensorFile::open(path.join("model.safetensors")).unwrap();
    file.names().map(|name| (name.to_string(), file.get(name).unwrap())).collect()
}

#[test]
fn what_is_written_is_what_transformers_wrote() {
    let folder = tempfile::tempdir().unwrap();
    for case in CASES {
        TextArchitecture::open::<f32>(fixture(case)).unwrap().save(folder.path()).unwrap();
        assert_eq!(content(folder.path()), content(&fixture(case)), "{case}");
        let [ours, theirs] = [folder.path(), &fixture(case)].map(|path| path.join("config.json"));
        assert_eq!(TextArchitecture::from_json(&ours).unwrap(), TextArchitecture::from_json(&theirs).unwrap());
        // Every word that both have has the same value.
        let read = |path: &Path| -> serde_json::Map<String, serde_json::Value> {
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
        };
        let theirs = read(&theirs);
        for (key, value) in read(&ours) {
            let same = theirs.get(&key).is_none_or(|theirs| *theirs == value || theirs.is_null());
            assert!(same, "{case}: {key} is {value} and {:?}", theirs.get(&key));
        }
    }
}

#[test]
fn encoders_alone_and_files_of_pretraining_are_models_without_a_classifier() {
    let folder = tempfile::tempdir().unwrap();
    for (case, prefix, extra) in
        [("deberta_v3", "deberta.", "lm_predictions.lm_head.bias"), ("bert", "bert.", "cls.predictions.bias")]
    {
        let expected = Expected::read(case);
        let states = |model: &dyn TextClassifier<f64>| {
            model.states(&tokens(&expected), Mode::Evaluation).unwrap().value().clone()
        };
        let whole = TextArchitecture::open::<f64>(fixture(case)).unwrap();
        std::fs::copy(fixture(case).join("config.json"), folder.path().join("config.json")).unwrap();
        let tensors = content(&fixture(case));
        let write = |tensors: &mut dyn Iterator<Item = (String, &Tensor<f32>)>| {
            let file = tensors.fold(TensorFile::new(), |file, (name, tensor)| file.with(&name, tensor).unwrap());
            file.save(folder.path().join("model.safetensors")).unwrap();
        };
        let of_encoder = |name: &str| name.starts_with(prefix);
        // An encoder alone, as BertModel and DebertaV2Model are saved.
        let encoder = tensors.iter().filter(|(name, _)| of_encoder(name));
        write(&mut encoder.clone().map(|(name, tensor)| (name[prefix.len()..].to_string(), tensor)));
        let bare = TextArchitecture::open::<f64>(folder.path()).unwrap();
        assert_eq!((bare.labels(), states(&*bare)), (0, states(&*whole)));
        assert!(bare.forward(&tokens(&expected), Mode::Evaluation).unwrap_err().message().contains("no classifier"));
        // With the head of pretraining beside it, and the first names of a norm's parameters.
        let head = Tensor::ones([40]).unwrap().into_dyn();
        let old = |name: &str| {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        };
        write(&mut encoder.map(|(name, tensor)| (old(name), tensor)).chain([(extra.to_string(), &head)]));
        let mut pretrained = TextArchitecture::open::<f64>(folder.path()).unwrap();
        assert_eq!((pretrained.labels(), states(&*pretrained)), (0, states(&*whole)));
        pretrained.reset_classifier(5, &mut rng()).unwrap();
        assert_eq!(pretrained.forward(&tokens(&expected), Mode::Evaluation).unwrap().shape(), [4, 5]);
        // A file that lacks something, and one that has too much, are refused by name.
        write(
            &mut tensors
                .iter()
                .filter(|(name, _)| !name.ends_with("layer.1.output.dense.bias"))
                .map(|(n, t)| (n.clone(), t)),
        );
        let error = TextArchitecture::open::<f64>(folder.path()).map(drop).unwrap_err();
        assert!(error.message().contains("layer.1.output.dense.bias"), "{error}");
        write(&mut tensors.iter().map(|(name, tensor)| (name.clone(), tensor)).chain([("other.bias".into(), &head)]));
        let error = TextArchitecture::open::<f64>(folder.path()).map(drop).unwrap_err();
        assert!(error.message().contains("other.bias"), "{error}");
    }
}

#[test]
fn every_leaf_that_trains_has_a_gradient_with_every_method() {
    let [houlsby, pfeiffer] = [Bottleneck::houlsby(3).zero_start(), Bottleneck::pfeiffer(3).zero_start()];
    let updates: [&dyn Method<f64>; 3] = [&Flora::new().rank(2), &Lora::new(2), &Dora::new(2)];
    let others: [&dyn Method<f64>; 5] = [&Full, &Probe, &BitFit, &houlsby, &pfeiffer];
    let methods: Vec<&dyn Method<f64>> = updates.into_iter().chain(others).collect();
    let all = |case| methods.iter().map(move |&method| (case, method));
    for (case, method) in ["deberta_v3", "deberta_v2", "bert"].into_iter().flat_map(all) {
        let expected = Expected::read(case);
        let mut model = TextArchitecture::open::<f64>(fixture(case)).unwrap();
        let before = model.forward(&tokens(&expected), Mode::Evaluation).unwrap();
        let heads = Targets::of(model.head().iter().copied());
        let linears = Targets::of(model.linears().iter().copied());
        let targets = if method.attaches() && !method.fits(Operation::Linear) { Targets::all() } else { linears };
        Attach::new(method).to(targets).keep(heads).apply(&mut *model).unwrap();
        let after = model.forward(&tokens(&expected), Mode::Evaluation).unwrap();
        assert!(after.value().sub(before.value()).unwrap().max_abs().unwrap() < 1e-12, "{case}");
        let gradients =
            loss(&expected, &model.forward(&tokens(&expected), Mode::training(1, 0)).unwrap()).backward().unwrap();
        let report = model.gradient_report(&gradients);
        report.check().unwrap_or_else(|e| panic!("{case}, {method:?}: {e}"));
        let trains = model.parameters().into_iter().filter(|(_, parameter)| parameter.trains()).count();
        assert_eq!((report.with.len(), gradients.len()), (trains, trains), "{case}, {method:?}");
    }
}

/// Draws everything that trains anew: cores start at zero.
pub fn move_away(model: &mut dyn TextClassifier<f64>) {
    let mut rng = rng();
    for (_, parameter) in model.parameters_mut() {
        if parameter.trains() {
            let start = Tensor::normal(parameter.shape().to_vec(), &mut rng).unwrap();
            parameter.set(start.map(|x: f64| 0.1 * x).unwrap()).unwrap();
        }
    }
}

/// An adapter of a query or key projection changes what becomes of the relative positions too, as the merged weight does.
#[test]
fn adapters_act_on_the_relative_positions_that_share_their_layer() {
    for (method, tolerance) in
        [(&Flora::new().rank(2).scale(4.0) as &dyn Method<f64>, 1e-10), (&Lora::new(2), 1e-10), (&Dora::new(2), 1e-10)]
    {
        for case in ["deberta_v3", "bert"] {
            let expected = Expected::read(case);
            let mut model = TextArchitecture::open::<f64>(fixture(case)).unwrap();
            let linears = Targets::of(model.linears().iter().copied());
            let plan = Attach::new(method).to(linears).apply(&mut *model).unwrap();
            assert_eq!(plan.rows.len(), 12, "{case}");
            move_away(&mut *model);
            let adapted = model.forward(&tokens(&expected), Mode::Evaluation).unwrap();
            peft::merge(&mut *model).unwrap();
            let merged = model.forward(&tokens(&expected), Mode::Evaluation).unwrap();
            let away = merged.value().sub(adapted.value()).unwrap().max_abs().unwrap();
            assert!(away < tolerance * adapted.value().max_abs().unwrap().max(1.0), "{case}, {method:?}: {away:e}");
        }
    }
}

#[test]
fn entries_are_dropped_by_the_seed_and_the_step_alone() {
    for case in ["deberta_v2", "bert"] {
        let expected = Expected::read(case);
        let model: Box<dyn TextClassifier<f64>> =
            match TextArchitecture::from_json(fixture(case).join("config.json")).unwrap() {
                TextArchitecture::Bert(config) => Box::new(
                    Bert::new(
                        BertConfig { hidden_dropout_prob: 0.3, attention_probs_dropout_prob: 0.3, ..config },
                        &mut rng(),
                    )
                    .unwrap(),
                ),
                TextArchitecture::Deberta(config) => Box::new(
                    Deberta::new(
                        DebertaConfig { hidden_dropout_prob: 0.3, attention_probs_dropout_prob: 0.3, ..config },
                        &mut rng(),
                    )
                    .unwrap(),
                ),
            };
        let pass = |mode| model.forward(&tokens(&expected), mode).unwrap().value().clone();
        assert_eq!(pass(Mode::training(7, 0)), pass(Mode::training(7, 0)));
        let passes = [
            pass(Mode::Evaluation),
            pass(Mode::training(7, 0)),
            pass(Mode::training(7, 1)),
            pass(Mode::training(8, 0)),
        ];
        for (i, a) in passes.iter().enumerate() {
            assert!(passes[..i].iter().all(|b| a != b), "{case}");
        }
    }
}

/// Padding and its length change nothing for the other tokens.
#[test]
fn sequences_do_not_see_padding() {
    for case in CASES {
        let model = TextArchitecture::open::<f64>(fixture(case)).unwrap();
        let (long, short): (&[u32], &[u32]) = (&[1, 5, 7, 9, 11, 2], &[1, 17, 2]);
        let types = [0; 6];
        let together = Tokens::padded(&[(long, &types), (short, &types[..3])], model.padding()).unwrap();
        let alone = Tokens::padded(&[(short, &types[..3])], model.padding()).unwrap();
        let pass = |tokens: &Tokens<f64>| model.states(tokens, Mode::Evaluation).unwrap().value().clone();
        let (together, alone) = (pass(&together), pass(&alone));
        let part = together.narrow(0, 1..2).unwrap().narrow(1, 0..3).unwrap();
        assert!(part.sub(&alone).unwrap().max_abs().unwrap() < 1e-12, "{case}");
    }
}

#[test]
fn sizes_of_the_paper() {
    // Encoder 183,831,552; with pooler and two labels 184,423,682; one block in place of twelve keeps the test small.
    let base = DebertaConfig::named("deberta-v3-base").unwrap();
    let one = Deberta::<f32>::zeros(DebertaConfig { num_hidden_layers: 1, vocab_size: 10, ..base.clone() }).unwrap();
    let words = (base.vocab_size - 10) * base.hidden_size;
    let count = |name: &str| -> usize {
        one.parameters().iter().filter(|(other, _)| other.starts_with(name)).map(|(_, p)| p.len()).sum()
    };
    let blocks = 11 * count("deberta.encoder.layer.0.");
    assert_eq!(count("deberta.") + words + blocks, 183_831_552);
    assert_eq!(one.count().total + words + blocks, 184_423_682);
    let (norms, linears): (Vec<_>, Vec<_>) = one
        .layers()
        .into_iter()
        .filter(|(name, _)| name.contains("layer.0"))
        .partition(|(_, layer)| matches!(layer.operation(), Operation::Residual(_)));
    assert_eq!((linears.len(), norms.len()), (6, 2));
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = TextArchitecture::open::<f64>(fixture("bert")).unwrap();
    let pass = |ids: &[u32]| {
        let tokens = Tokens::padded(&[(ids, &vec![0; ids.len()])], 0).unwrap();
        model.forward(&tokens, Mode::Evaluation).map(drop)
    };
    let error = pass(&[1, 40]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value);
    assert!(error.message().contains("index 40") && error.message().contains("40 rows"), "{error}");
    assert!(pass(&[1; 24]).is_ok());
    assert_eq!(pass(&[1; 25]).unwrap_err().message(), "sequences of 25 tokens; the model has positions for 24");
    assert_eq!(pass(&[]).unwrap_err().kind(), ErrorKind::Shape);
    assert!(Tokens::<f64>::padded(&[(&[1, 2], &[0])], 0).is_err());
    let shape = |shape| Tensor::<u32, Ix2>::zeros(shape).unwrap();
    assert!(Tokens::<f64>::new(shape([1, 2]), shape([1, 2]), &shape([2, 1])).is_err());

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let read = |text: &str| {
        std::fs::write(&file, text).unwrap();
        TextArchitecture::from_json(&file).unwrap_err()
    };
    for (text, kind, message) in [
        ("{", ErrorKind::Format, "not such a configuration"),
        ("{\"model_type\": \"t5\"}", ErrorKind::Unsupported, "\"t5\"; there are \"bert\" and \"deberta-v2\""),
        ("{\"model_type\": \"bert\", \"hidden_act\": \"mish\"}", ErrorKind::Format, "unknown variant `mish`"),
        (
            "{\"model_type\": \"bert\", \"hidden_size\": 7}",
            ErrorKind::Value,
            "12, which does not divide a hidden_size of 7",
        ),
        ("{\"model_type\": \"bert\", \"vocab_size\": 0}", ErrorKind::Value, "vocab_size is 0"),
        ("{\"model_type\": \"bert\", \"hidden_dropout_prob\": 1.5}", ErrorKind::Value, "hidden_dropout_prob is 1.5"),
        (
            "{\"model_type\": \"bert\", \"position_embedding_type\": \"relative_key\"}",
            ErrorKind::Unsupported,
            "relative_key",
        ),
        ("{\"model_type\": \"deberta-v2\", \"pos_att_type\": \"p2p\"}", ErrorKind::Format, "\"p2p\""),
        ("{\"model_type\": \"deberta-v2\", \"conv_kernel_size\": 2}", ErrorKind::Value, "conv_kernel_size is 2"),
        (
            "{\"model_type\": \"deberta-v2\", \"attention_head_size\": 32}",
            ErrorKind::Unsupported,
            "attention_head_size is 32",
        ),
        (
            "{\"model_type\": \"deberta-v2\", \"relative_attention\": true, \"position_buckets\": 512, \"max_relative_positions\": 64}",
            ErrorKind::Value,
            "512 buckets",
        ),
    ] {
        let error = read(text);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(message) && error.message().contains("config.json"), "{error}");
    }
    assert!(DebertaConfig::named("deberta-v3").is_err());
}

#[test]
fn words_of_configurations() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    // Microsoft's own file of version 3.
    std::fs::write(
        &file,
        "{\"model_type\": \"deberta-v2\", \"attention_probs_dropout_prob\": 0.1, \"hidden_act\": \"gelu\", \"hidden_dropout_prob\": 0.1, \
         \"hidden_size\": 768, \"initializer_range\": 0.02, \"intermediate_size\": 3072, \"max_position_embeddings\": 512, \
         \"relative_attention\": true, \"position_buckets\": 256, \"norm_rel_ebd\": \"layer_norm\", \"share_att_key\": true, \
         \"pos_att_type\": \"p2c|c2p\", \"layer_norm_eps\": 1e-7, \"max_relative_positions\": -1, \"position_biased_input\": false, \
         \"num_attention_heads\": 12, \"num_hidden_layers\": 12, \"type_vocab_size\": 0, \"vocab_size\": 128100}",
    )
    .unwrap();
    let named = DebertaConfig::named("microsoft/deberta-v3-base").unwrap();
    assert_eq!(DebertaConfig::from_json(&file).unwrap(), DebertaConfig { conv_act: Activation::Tanh, ..named.clone() });
    assert_eq!(named.pos_att_type, PositionTerms { c2p: true, p2c: true });
    let model = BertConfig::from_json(fixture("bert").join("config.json")).unwrap();
    assert_eq!((model.num_labels, model.hidden_act), (3, Activation::Gelu));
}

#[test]
fn classes_keep_their_names() {
    for case in ["bert", "deberta_v3"] {
        let mut model = TextArchitecture::open::<f32>(fixture(case)).unwrap();
        assert!(model.label_names().is_empty());
        model.reset_classifier(2, &mut rng()).unwrap();
        let names = ["entailment", "not_entailment"].map(String::from);
        let error = model.name_labels(&names[..1]).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Value, "1 names for 2 classes; needs one for each"));
        model.name_labels(&names).unwrap();
        let folder = tempfile::tempdir().unwrap();
        model.save(folder.path()).unwrap();
        let config = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["id2label"], serde_json::json!({"0": "entailment", "1": "not_entailment"}));
        assert_eq!(config["label2id"], serde_json::json!({"entailment": 0, "not_entailment": 1}));
        let mut again = TextArchitecture::open::<f32>(folder.path()).unwrap();
        assert_eq!(again.label_names(), names);
        again.reset_classifier(2, &mut rng()).unwrap();
        assert!(again.label_names().is_empty());
    }
}

/// Another encoder's names are told from a classifier's.
#[test]
fn a_model_under_other_names_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("bert").join("config.json"), folder.path().join("config.json")).unwrap();
    let model = TextArchitecture::open::<f32>(fixture("bert")).unwrap();
    let renames = Renames::new().add_prefix("model.");
    Save::new().renames(renames).write(&*model, folder.path().join("model.safetensors")).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let error = Bert::<f32>::zeros(BertConfig::from_json(folder.path().join("config.json")).unwrap())
        .unwrap()
        .load(&checkpoint)
        .unwrap_err();
    assert!(error.message().contains("missing") && error.message().contains("model.bert"), "{error}");
}
