//! Image and text models beside the libraries whose files they read, and as a user of the crate sees them.

#[path = "../support/skip.rs"]
mod skip;

mod bottlenecks;
mod counts;
mod files;
mod full_sizes;
mod goldens;
mod reference;
mod text;
mod training;
