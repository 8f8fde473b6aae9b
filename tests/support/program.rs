//! Example programs, to be run as a user runs them.

use serde_json::Value;
use std::{
    env::consts::EXE_SUFFIX,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::SystemTime,
};

/// The example `name`, whose source is a file or a folder below `examples`, or several.
///
/// It lies in `examples` beside the folder of this test. `cargo test` has built it, but `cargo test --test NAME` has not.
pub fn program(name: &str, sources: &[&str]) -> PathBuf {
    let here = std::env::current_exe().expect("a test knows where it lies");
    let profile = here.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps");
    let program = profile.join("examples").join(format!("{name}{EXE_SUFFIX}"));
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let written = sources.iter().filter_map(|source| last_changed(&examples.join(source))).max();
    let fresh = last_changed(&program).is_some_and(|built| written.is_none_or(|written| written <= built));
    assert!(fresh, "{} is missing or out of date: run `cargo build --examples`", program.display());
    program
}

/// When a file, or any file in a folder, was changed last.
fn last_changed(path: &Path) -> Option<SystemTime> {
    match fs::read_dir(path) {
        Ok(entries) => entries.filter_map(|entry| last_changed(&entry.ok()?.path())).max(),
        Err(_) => path.metadata().and_then(|metadata| metadata.modified()).ok(),
    }
}

/// The last line of standard output as JSON, of a run with these words that has to be a success.
pub fn succeeded(words: &str, output: Output) -> Result<Value, Box<dyn Error>> {
    let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    assert!(output.status.success(), "{words}: {err}");
    Ok(serde_json::from_str(out.lines().last().ok_or("no output")?)?)
}

/// A run with these words has to be an error whose message holds all `parts`, and neither a panic nor a signal.
pub fn failed(words: &str, output: Output, parts: &[&str]) -> Result<(), Box<dyn Error>> {
    let err = String::from_utf8(output.stderr)?;
    assert!(!output.status.success(), "{words}: no error");
    assert!(output.status.code().is_some(), "{words}: killed by a signal");
    assert!(!err.contains("panicked"), "{words}: {err}");
    for part in parts {
        assert!(err.contains(part), "{words}: \"{part}\" is not in: {err}");
    }
    Ok(())
}
