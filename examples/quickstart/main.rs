//! What this crate is about, in two minutes, with the numbers explained and drawn: Tucker and CP on a real tensor; then the same
//! idea as fine-tuning, FLoRA beside other methods on real images.
//!
//! ```sh
//! cargo run --release --example quickstart            # writes target/quickstart.svg and target/quickstart-flora.svg
//! cargo run --release --example quickstart -- my.svg  # my.svg and my-flora.svg
//! ```

mod digits;
mod drawing;
mod serology;

use std::{
    error::Error,
    path::{Path, PathBuf},
};

fn main() -> Result<(), Box<dyn Error>> {
    let picture = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("target/quickstart.svg"), PathBuf::from);
    if let Some(folder) = picture.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    serology::run(&picture)?;
    digits::run(&beside(&picture, "-flora"))?;
    println!("Your own data:   cargo run --release --example decompose -- --help");
    println!("Your own images: cargo run --release --example convnext -- --help");
    Ok(())
}

/// The same path with something at the end of the name.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_os_string();
    name.push(end);
    name.push(".svg");
    path.with_file_name(name)
}
