//! Example programs, to be run as a user runs them.

use std::{
    env::consts::EXE_SUFFIX,
    fs,
    path::{Path, PathBuf},
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
