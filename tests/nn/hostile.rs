//! Broken and hostile checkpoints: an error that says what is wrong, never a panic, never a file elsewhere.

use std::{
    fs,
    path::{Path, PathBuf},
};
use tenfold::{
    Error, ErrorKind, Tensor, TensorFile,
    nn::{Checkpoint, Linear, Save},
};

const INDEX: &str = "model.safetensors.index.json";

/// A folder with two shards, of one layer each, and an index.
fn sharded() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = vec![Linear::<f32>::zeros(3, 2).unwrap(), Linear::zeros(3, 2).unwrap()];
    Save::new().shards_of(32).write(&model, folder.path()).unwrap();
    let path = folder.path().to_path_buf();
    (folder, path)
}

fn refused(path: &Path, kind: ErrorKind, part: &str) {
    let error: Error = Checkpoint::open(path).unwrap_err();
    assert!(error.kind() == kind && error.message().contains(part), "{error:?} lacks {part:?}");
}

/// The index with a text replaced.
fn with_index(replace: impl Fn(&str) -> String, kind: ErrorKind, part: &str) {
    let (_folder, path) = sharded();
    let text = fs::read_to_string(path.join(INDEX)).unwrap();
    let changed = replace(&text);
    assert_ne!(text, changed);
    fs::write(path.join(INDEX), changed).unwrap();
    refused(&path, kind, part);
}

#[test]
fn shards_outside_the_folder_are_refused() {
    let second = "model-00002-of-00002.safetensors";
    for name in [
        "../model-00002-of-00002.safetensors",
        "/etc/passwd",
        "..",
        ".",
        "",
        "sub/model-00002-of-00002.safetensors",
        "./model-00002-of-00002.safetensors",
        "a\\\\..\\\\b",
        "C:secret",
        "a\\u0000b",
    ] {
        with_index(|text| text.replace(second, name), ErrorKind::Format, "is not the plain name of a file");
    }
}

#[test]
fn shards_that_are_missing_are_named() {
    let (_folder, path) = sharded();
    fs::remove_file(path.join("model-00002-of-00002.safetensors")).unwrap();
    refused(&path, ErrorKind::Io, "1 of 2 shards are missing: \"model-00002-of-00002.safetensors\"");
    // A folder of that name is no shard.
    fs::create_dir(path.join("model-00002-of-00002.safetensors")).unwrap();
    refused(&path, ErrorKind::Io, "1 of 2 shards are missing");
}

#[test]
fn an_index_and_its_shards_have_to_agree() {
    let none = "the shard \"model-00001-of-00002.safetensors\" does not have the tensor \"0.wait\"";
    with_index(|text| text.replace("0.weight", "0.wait"), ErrorKind::Format, none);
    let moved = "does not have the tensor \"1.weight\"";
    let in_first = |text: &str| {
        text.replace(
            "\"1.weight\": \"model-00002-of-00002.safetensors\"",
            "\"1.weight\": \"model-00001-of-00002.safetensors\"",
        )
    };
    with_index(in_first, ErrorKind::Format, moved);
    let extra = "the shard \"model-00002-of-00002.safetensors\" has 1 tensors that the index does not place there: \"1.weight\"";
    let without = |text: &str| text.replace(",\n    \"1.weight\": \"model-00002-of-00002.safetensors\"", "");
    with_index(without, ErrorKind::Format, extra);
    // A tensor in two shards belongs to the one that the index says, and is one too many in the other.
    let (_folder, path) = sharded();
    let second = path.join("model-00002-of-00002.safetensors");
    let tensor = Tensor::<f32, _>::zeros([2, 3]).unwrap();
    TensorFile::open(&second).unwrap().with("0.weight", &tensor).unwrap().save(&second).unwrap();
    refused(&path, ErrorKind::Format, "has 1 tensors that the index does not place there: \"0.weight\"");
}

#[test]
fn an_index_that_is_none_is_refused() {
    for text in [
        "",
        "{",
        "[]",
        "null",
        "3",
        "{}",
        "{\"weight_map\": 3}",
        "{\"weight_map\": []}",
        "{\"weight_map\": {\"a\": 3}}",
        "{\"weight_map\": {\"a\": null}}",
        "{\"weight_map\": {\"a\": {\"b\": \"c\"}}}",
        "{\"weight_map\": {}} x",
        "{\"weight_map\": {}, \"weight_map\": {}}",
        "{\"weight_map\": {\"\\ud800\": \"a\"}}",
    ] {
        let (_folder, path) = sharded();
        fs::write(path.join(INDEX), text).unwrap();
        refused(&path, ErrorKind::Format, "not an index of .safetensors files");
    }
    let twice = |text: &str| text.replace("\"1.weight\"", "\"0.weight\"");
    with_index(twice, ErrorKind::Format, "the tensor \"0.weight\" is there twice");
    let (_folder, path) = sharded();
    fs::write(path.join(INDEX), [0xff, 0xfe]).unwrap();
    refused(&path, ErrorKind::Format, "not an index");
    // Deep nesting is refused before the stack ends.
    fs::write(path.join(INDEX), format!("{{\"metadata\": {}", "[".repeat(1_000_000))).unwrap();
    refused(&path, ErrorKind::Format, "not an index");
}

#[test]
fn broken_shards_are_named() {
    let (_folder, path) = sharded();
    let second = path.join("model-00002-of-00002.safetensors");
    let bytes = fs::read(&second).unwrap();
    for cut in [0, 5, 40, bytes.len() - 1] {
        fs::write(&second, &bytes[..cut]).unwrap();
        refused(&path, ErrorKind::Format, "model-00002-of-00002.safetensors: truncated");
    }
    fs::write(&second, [&bytes[..], b"x"].concat()).unwrap();
    refused(&path, ErrorKind::Format, "over-long");
}

#[test]
fn places_without_a_checkpoint_are_named() {
    let folder = tempfile::tempdir().unwrap();
    refused(folder.path(), ErrorKind::Io, "the folder has neither model.safetensors nor model.safetensors.index.json");
    refused(&folder.path().join("none.safetensors"), ErrorKind::Io, "none.safetensors");
    refused(&folder.path().join("none.json"), ErrorKind::Io, "none.json");
}

#[test]
fn an_index_shaken_at_random_is_read_or_refused() {
    use rand::{RngExt, SeedableRng};
    let (_folder, path) = sharded();
    let text = fs::read(path.join(INDEX)).unwrap();
    let mut accepted = 0;
    for seed in 0..2000 {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut bytes = text.clone();
        for _ in 0..rng.random_range(1..4) {
            let (at, other) = (rng.random_range(0..bytes.len()), rng.random_range(0..bytes.len()));
            match rng.random_range(0..4) {
                0 => bytes[at] = rng.random(),
                1 => bytes[at] = bytes[other],
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        fs::write(path.join(INDEX), &bytes).unwrap();
        match Checkpoint::open(&path) {
            Ok(checkpoint) => {
                accepted += 1;
                assert_eq!(checkpoint.len(), 4, "input {seed}");
            }
            Err(error) => assert!(matches!(error.kind(), ErrorKind::Format | ErrorKind::Io), "input {seed}: {error:?}"),
        }
    }
    assert!(accepted > 20, "of 2000 indices only {accepted} were read");
}
