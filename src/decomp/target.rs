//! How large a Tucker decomposition is to be: by ranks, or by tolerance.

use crate::{
    error::{Error, ErrorKind, Result},
    scalar::{DType, Scalar},
};

/// What a HOSVD is asked for.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// One rank for each mode, between 1 and the mode's size.
    Ranks(Vec<usize>),
    /// ||X - X'|| <= tolerance ||X||, with ranks as small as that allows.
    Tolerance(f64),
}

impl Target {
    /// An error unless the target makes sense for a tensor of `shape`.
    pub(crate) fn check<T: Scalar>(&self, operation: &'static str, shape: &[usize]) -> Result<()> {
        check_not_empty(operation, shape)?;
        match self {
            Target::Ranks(ranks) => check_ranks(operation, ranks, shape),
            Target::Tolerance(tolerance) => {
                // Factors are rounded to T: below this no decomposition can be held to its word.
                let finest = if T::DTYPE == DType::F64 { 1e-13 } else { 1e-5 };
                if tolerance.is_finite() && (finest..1.0).contains(tolerance) {
                    return Ok(());
                }
                Err(Error::new(
                    ErrorKind::Value,
                    operation,
                    format!("tolerance {tolerance}: a relative error in {} lies from {finest:e} to below 1", T::DTYPE),
                ))
            }
        }
    }
}

/// An error unless there are modes, and entries.
pub(crate) fn check_not_empty(operation: &'static str, shape: &[usize]) -> Result<()> {
    if shape.contains(&0) || shape.is_empty() {
        return Err(Error::shape(operation, format!("a tensor of shape {shape:?} has nothing to decompose")));
    }
    Ok(())
}

/// An error unless there is one rank for each mode, from 1 to the mode's size.
pub(crate) fn check_ranks(operation: &'static str, ranks: &[usize], shape: &[usize]) -> Result<()> {
    let error = |message| Err(Error::new(ErrorKind::Rank, operation, message));
    if ranks.len() != shape.len() {
        return error(format!("{} ranks {ranks:?} for the {} modes of shape {shape:?}", ranks.len(), shape.len()));
    }
    for (mode, (&rank, &n)) in ranks.iter().zip(shape).enumerate() {
        if rank == 0 || rank > n {
            return error(format!("rank {rank} of mode {mode}: a mode of size {n} takes ranks from 1 to {n}"));
        }
    }
    Ok(())
}
