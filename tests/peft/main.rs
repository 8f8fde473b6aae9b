//! Adapters as a user of the crate sees them.

#[path = "../support/mod.rs"]
mod support;

mod adalora;
mod attach;
mod combine;
mod complaints;
mod counts;
mod files;
mod folders;
mod jacobian;
mod layers;
mod merge;
mod paths;
mod pytorch;
mod refused_files;
mod start;
mod tucker;
