//! MiniLM, a real encoder: tokens and states are those that were recorded with it. Without the files, the tests say so and pass.

use crate::skip::shared;
use ndarray::{Ix2, Ix3};
use serde_json::Value;
use std::path::PathBuf;
use tenfold::{
    TensorFile,
    models::{TextArchitecture, Tokens},
    nn::Mode,
    text::Tokenizer,
};

/// The model's folder, which `TENFOLD_MINILM` names.
fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("TENFOLD_MINILM").map(PathBuf::from);
    if folder.is_none() {
        println!(
            "skipped: TENFOLD_MINILM names no folder with MiniLM-L6: config.json, model.safetensors, tokenizer.json, vocab.txt"
        );
    }
    folder
}

#[test]
fn minilm_gives_the_recorded_tokens_and_states() {
    let (Some(folder), Some(words), Some(golden)) =
        (folder(), shared("goldens/minilm_l6.json"), shared("goldens/minilm_l6.safetensors"))
    else {
        return;
    };
    let words: Value = serde_json::from_str(&std::fs::read_to_string(words).unwrap()).unwrap();
    let sentences: Vec<&str> =
        words["sentences"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let golden = TensorFile::open(golden).unwrap();
    // From vocab.txt alone the tokens are the same.
    let plain = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("vocab.txt"), plain.path().join("vocab.txt")).unwrap();
    let numbers = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    for tokenizer in [Tokenizer::open(&folder).unwrap(), Tokenizer::open(plain.path()).unwrap()] {
        let all: Vec<_> = sentences.iter().map(|text| tokenizer.encode(text, None, 512).unwrap()).collect();
        let rows: Vec<(&[u32], &[u32])> = all.iter().map(|encoded| (&encoded.ids[..], &encoded.types[..])).collect();
        let tokens = Tokens::<f32>::padded(&rows, tokenizer.padding()).unwrap();
        let ids: Vec<u32> = words["input_ids"].as_array().unwrap().iter().flat_map(numbers).collect();
        assert_eq!(tokens.ids().to_vec().unwrap(), ids);
        let pair = tokenizer.encode(sentences[1], Some(sentences[2]), 512).unwrap();
        // The recorded pair has sentence 1 and again its end.
        let types = numbers(&words["pair_types"]);
        assert_eq!(pair.types[..], types[..pair.types.len().min(types.len())]);
    }
    let tokenizer = Tokenizer::open(&folder).unwrap();
    let model = TextArchitecture::open::<f32>(&folder).unwrap();
    tokenizer.check(&*model).unwrap();
    assert_eq!(model.labels(), 0);
    let recorded = |name: &str| golden.get::<i64, Ix2>(name).unwrap().map(|x| x as u32).unwrap();
    let mask = recorded("attention_mask");
    let tokens = Tokens::new(recorded("input_ids"), recorded("token_type_ids"), &mask).unwrap();
    let states = model.states(&tokens, Mode::Evaluation).unwrap();
    let keep = mask.cast::<f32>().unwrap().insert_mode(2).unwrap();
    let theirs = golden.get::<f32, Ix3>("last_hidden_state").unwrap();
    let away = states.value().sub(&theirs.to_dyn()).unwrap().mul(&keep.to_dyn()).unwrap().max_abs().unwrap();
    let scale = theirs.max_abs().unwrap();
    println!("states: {:.1e} of the largest away", away / scale);
    assert!(away < 1e-4 * scale, "{away} of {scale}");
}
