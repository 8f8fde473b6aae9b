//! Tokens are those of sentencepiece and of transformers (`tests/fixtures/tokens`).

use serde_json::Value;
use std::path::{Path, PathBuf};
use tenfold::{
    ErrorKind,
    models::{Bert, BertConfig},
    text::Tokenizer,
};

pub fn fixture(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokens").join(case)
}

fn expected() -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture("expected.json")).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn texts(case: &Value) -> Vec<(String, Vec<u32>)> {
    let all = case["texts"].as_array().unwrap().iter().zip(case["ids"].as_array().unwrap());
    all.map(|(text, ids)| (text.as_str().unwrap().to_string(), numbers(ids))).collect()
}

#[test]
fn pieces_are_those_of_sentencepiece() {
    let expected = expected();
    for case in ["spm", "spm_plain"] {
        let tokenizer = Tokenizer::open(fixture(case)).unwrap();
        for (text, ids) in texts(&expected[case]) {
            let ours = tokenizer.encode(&text, None, 4096).unwrap();
            // Theirs come without [CLS] and [SEP].
            assert_eq!(ours.ids[1..ours.ids.len() - 1], ids, "{case}: {text:?}");
            assert_eq!((ours.ids[0], ours.ids[ours.ids.len() - 1]), (1, 2));
        }
        assert_eq!((tokenizer.padding(), tokenizer.size()), (0, if case == "spm" { 400 } else { 500 }));
    }
}

#[test]
fn word_pieces_are_those_of_transformers() {
    let expected = &expected()["wordpiece"];
    // From a list of words, and from what transformers writes of the same.
    for case in ["wordpiece", "json"] {
        let tokenizer = Tokenizer::open(fixture(case)).unwrap();
        for (text, ids) in texts(expected) {
            assert_eq!(tokenizer.encode(&text, None, 4096).unwrap().ids, ids, "{case}: {text:?}");
        }
        let rows = expected["pairs"].as_array().unwrap().iter().enumerate();
        for (i, pair) in rows {
            let [first, second] = [0, 1].map(|side| pair[side].as_str().unwrap());
            let whole = tokenizer.encode(first, Some(second), 4096).unwrap();
            assert_eq!(whole.ids, numbers(&expected["pair_ids"][i]), "{case}: {pair}");
            assert_eq!(whole.types, numbers(&expected["pair_types"][i]), "{case}: {pair}");
            let cut = tokenizer.encode(first, Some(second), 12).unwrap();
            assert_eq!(cut.ids, numbers(&expected["cut"][i]), "{case}: {pair}");
            assert_eq!(cut.truncated, whole.ids.len() > 12, "{case}: {pair}");
        }
    }
}

#[test]
fn letters_are_made_small_where_the_configuration_says_so() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("spm").join("spm.model"), folder.path().join("spm.model")).unwrap();
    let plain = Tokenizer::open(folder.path()).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), "{\"do_lower_case\": true}").unwrap();
    let small = Tokenizer::open(folder.path()).unwrap();
    let ids = |tokenizer: &Tokenizer, text| tokenizer.encode(text, None, 64).unwrap().ids;
    assert_eq!(ids(&small, "A TENSOR"), ids(&plain, "a tensor"));
    assert_ne!(ids(&plain, "A TENSOR"), ids(&plain, "a tensor"));
}

#[test]
fn files_that_are_no_tokenizers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = Tokenizer::open(folder.path()).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert!(error.message().contains(name), "{error}");
        (error.kind(), error.message().to_string())
    };
    let error = Tokenizer::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.message().ends_with("there is no tokenizer.json, spm.model or vocab.txt"), "{error}");
    for (name, bytes, part) in [
        ("tokenizer.json", &b"{"[..], "not a tokenizer"),
        ("tokenizer.json", b"\xff", "not a tokenizer"),
        ("spm.model", b"\xff\xff\xff", "not a model of SentencePiece"),
        ("spm.model", b"", "no piece stands for what is unknown"),
        ("vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\na\n", "line 7: \"a\" stands in line 5 already"),
        ("vocab.txt", b"[PAD]\n[UNK]\n\xe4\n", "line 3: no UTF-8"),
        ("vocab.txt", b"[PAD]\n[UNK]\na\n", "there is no token [CLS]"),
        ("vocab.txt", b"[UNK]\n[CLS]\n[SEP]\n", "there is no token [PAD]"),
        ("vocab.txt", b"", "there is no token [UNK]"),
    ] {
        let (kind, message) = refused(name, bytes);
        assert_eq!(kind, ErrorKind::Format, "{message}");
        assert!(message.contains(part), "{message}");
    }
    // A model that is cut off anywhere is refused, or is a shorter one; nothing panics.
    let whole = std::fs::read(fixture("spm_plain").join("spm.model")).unwrap();
    let path = folder.path().join("spm.model");
    for length in (0..whole.len()).step_by(97) {
        std::fs::write(&path, &whole[..length]).unwrap();
        if let Ok(tokenizer) = Tokenizer::open(folder.path()) {
            tokenizer.encode("a tensor of order three", None, 16).unwrap();
        }
    }
    // Nor with damaged bytes, those of the normaliser's table among them.
    let mut damaged = std::fs::read(fixture("spm").join("spm.model")).unwrap();
    for at in (0..damaged.len()).step_by(damaged.len() / 60) {
        damaged[at] ^= 0x55;
        std::fs::write(&path, &damaged).unwrap();
        if let Ok(tokenizer) = Tokenizer::open(folder.path()) {
            let _ = tokenizer.encode("na\u{ef}ve \u{ff21} \u{3000} \u{2460} order", None, 16);
        }
    }
}

#[test]
fn another_models_tokenizer_is_refused() {
    let tokenizer = Tokenizer::open(fixture("wordpiece")).unwrap();
    let model = |vocab_size: usize, pad_token_id: u32| {
        let config = BertConfig {
            vocab_size,
            pad_token_id,
            hidden_size: 4,
            num_hidden_layers: 1,
            num_attention_heads: 1,
            ..BertConfig::default()
        };
        Bert::<f32>::zeros(config).unwrap()
    };
    let size = tokenizer.size();
    tokenizer.check(&model(size, 0)).unwrap();
    tokenizer.check(&model(size + 3, 0)).unwrap();
    for (model, part) in
        [(model(size - 1, 0), "a table of"), (model(2 * size, 0), "a table of"), (model(size, 1), "pads with token 0")]
    {
        let error = tokenizer.check(&model).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Value);
        assert!(error.message().contains(part) && error.message().contains("another model's"), "{error}");
    }
    let error = tokenizer.encode("a", None, 3).unwrap_err();
    assert!(error.message().starts_with("at most 3 tokens"), "{error}");
}
