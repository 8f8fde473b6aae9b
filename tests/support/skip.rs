//! Data that lies beside the project, where it is at hand. Absent, tests say so and pass.

use std::path::PathBuf;

/// A file of `../shared/data`.
pub fn shared(name: &str) -> Option<PathBuf> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if !file.is_file() {
        println!("skipped: there is no file ../shared/data/{name} beside the project");
        return None;
    }
    Some(file)
}
