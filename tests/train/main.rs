//! Training as a user of the crate sees it: whole runs, runs that are killed or interrupted, bad input, metrics.

#[path = "../support/mod.rs"]
mod support;

mod companion;
mod killed;
mod metrics;
mod model;
mod refused;
mod whole;
