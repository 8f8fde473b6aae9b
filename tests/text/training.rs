//! Texts in training: what the trainer makes of them, resumed runs, both kinds of labels.

use crate::tokenizers::fixture;
use ndarray::Ix2;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tenfold::{
    Tensor,
    models::{Bert, BertConfig, Deberta, DebertaConfig, TextClassifier},
    nn::{Mode, Module},
    peft::{Attach, Flora, Targets},
    text::{Part, Task, Texts, Tokenizer, TooLong},
    train::{AdamW, Dataset, Every, Trainer},
};

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

/// Sentences that are good where they have an even number of words.
fn sentences() -> Texts {
    let words = ["a", "tensor", "of", "order", "array", "core", "fine", "text"];
    let lines: String = (0..48)
        .map(|i| {
            let text: Vec<&str> = (0..2 + i % 7).map(|j| words[(i + 3 * j) % 8]).collect();
            format!("{}\t{}\n", text.join(" "), i % 2)
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("train.tsv"), format!("sentence\tlabel\n{lines}")).unwrap();
    let tokenizer = Tokenizer::open(fixture("wordpiece")).unwrap();
    Texts::new(&Task::Sst2.read(folder.path(), Part::Train).unwrap(), &tokenizer, 16, TooLong::Truncate).unwrap()
}

fn model() -> Deberta<f32> {
    let named = DebertaConfig::named("deberta-v3-base").unwrap();
    let config = DebertaConfig {
        vocab_size: 60,
        hidden_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 16,
        ..named
    };
    let mut model = Deberta::new(config, &mut rng()).unwrap();
    let flora = Flora::new().rank(2);
    let linears = Targets::of(model.linears().iter().copied());
    let heads = Targets::of(model.head().iter().copied());
    Attach::new(&flora).to(linears).keep(heads).apply(&mut model).unwrap();
    model
}

/// Everything that a model has.
fn values(model: &Deberta<f32>) -> Vec<f32> {
    model.parameters().into_iter().flat_map(|(_, parameter)| parameter.value().to_vec().unwrap()).collect()
}

fn trainer() -> Trainer {
    Trainer::new(AdamW::new(0.01)).epochs(3).batch_size(5).buckets(4).seed(3).workers(2)
}

fn fit(trainer: &Trainer, model: &mut Deberta<f32>, data: &Texts) {
    trainer.fit(model, data, |model, batch, mode| batch.loss(&model.forward(&batch.tokens, mode)?, 0.1)).unwrap();
}

#[test]
fn a_run_that_is_resumed_is_the_same_run() {
    let data = sentences();
    let mut whole = model();
    fit(&trainer(), &mut whole, &data);
    let folder = tempfile::tempdir().unwrap();
    let kept = trainer().folder(folder.path()).save(Every::Steps(7));
    let mut part = model();
    let mut steps = 0;
    kept.fit_with(
        &mut part,
        &data,
        |model, batch, mode| batch.loss(&model.forward(&batch.tokens, mode)?, 0.1),
        |_| Ok(tenfold::train::Scores::new()),
        |event| {
            steps += u32::from(matches!(event, tenfold::train::Event::Step(_)));
            if steps == 16 { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) }
        },
    )
    .unwrap();
    let mut again = model();
    let resumed = kept.resume(true);
    resumed
        .fit_with(
            &mut again,
            &data,
            |model, batch, mode| batch.loss(&model.forward(&batch.tokens, mode)?, 0.1),
            |_| Ok(tenfold::train::Scores::new()),
            |_| std::ops::ControlFlow::Continue(()),
        )
        .unwrap();
    assert_eq!(values(&again), values(&whole));
}

#[test]
fn logits_are_in_the_order_of_the_texts() {
    let (data, model) = (sentences(), model());
    let all: Tensor<f32, Ix2> = data.logits(&model, 7).unwrap();
    for i in [0, 1, 6, 20, 47] {
        let tokens = data.batch(&[i]).unwrap().tokens;
        let one = model.forward(&tokens, Mode::Evaluation).unwrap();
        let row = all.narrow(0, i..i + 1).unwrap().into_dyn();
        assert!(one.value().sub(&row).unwrap().max_abs().unwrap() < 1e-5, "text {i}");
    }
}

#[test]
fn numbers_are_learnt_too() {
    let header = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n";
    let lines: String = (0..24)
        .map(|i| {
            format!(
                "{i}\tm\tf\t2012\t1\tn\tn\ta tensor\t{}\t{}\n",
                if i % 2 == 0 { "of order" } else { "array" },
                4 * (i % 2)
            )
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("train.tsv"), format!("{header}{lines}")).unwrap();
    let tokenizer = Tokenizer::open(fixture("wordpiece")).unwrap();
    let data =
        Texts::new(&Task::Stsb.read(folder.path(), Part::Train).unwrap(), &tokenizer, 16, TooLong::Truncate).unwrap();
    let config = BertConfig {
        vocab_size: tokenizer.size(),
        hidden_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 16,
        num_labels: Task::Stsb.labels(),
        ..BertConfig::default()
    };
    let mut model = Bert::<f32>::new(config, &mut rng()).unwrap();
    model.set_classifier_dropout(0.0).unwrap();
    assert!(model.set_classifier_dropout(2.0).is_err());
    let trainer = Trainer::new(AdamW::new(0.02)).epochs(40).batch_size(8).seed(1);
    trainer.fit(&mut model, &data, |model, batch, mode| batch.loss(&model.forward(&batch.tokens, mode)?, 0.0)).unwrap();
    let scores = Task::Stsb.scores(&data.logits(&model, 8).unwrap(), &data).unwrap();
    assert!(scores.get("pearson").unwrap() > 0.95, "{scores}");
    let batch = data.batch(&[0, 1]).unwrap();
    let logits = model.forward(&batch.tokens, Mode::Evaluation).unwrap();
    assert!(batch.loss(&logits, 0.1).unwrap_err().message().contains("cannot be smoothed"));
}
