//! Modules, layers, adapters and checkpoints as a user of the crate sees them.

mod adapters;
mod checkpoints;
mod hostile;
mod model;
mod pytorch;
