//! Decompositions: the formats against their formulas, the solvers against what they promise.

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod congruence;
mod cp_als;
mod cp_fixed;
mod cp_missing;
mod cp_non_negative;
mod direct;
mod draws;
mod formats;
mod forms;
mod hooi;
mod missing_tucker;
mod non_negative_tucker;
mod problems;
mod repeat;
mod stored;
