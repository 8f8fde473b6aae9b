//! Tokenizers beside the libraries that they are from, GLUE's files, and texts as a model sees them.

#[path = "../support/skip.rs"]
mod skip;

mod files;
mod minilm;
mod tokenizers;
mod training;
