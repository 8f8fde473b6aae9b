//! Adapters and decompositions: updates in Tucker form, truncated, made from a fine-tuned model, and looked into.
//!
//! | file | what |
//! |---|---|
//! | `compress.rs` | [`compress`]: ranks lowered to what is used |
//! | `distil.rs` | [`Distil`]: a fine-tuned model as adapters of the model that it came from |
//! | `updates.rs` | [`updates`]: how far weights moved, along how many directions |

mod compress;
mod distil;
mod updates;

pub use compress::compress;
pub use distil::{Distil, Distilled};
pub use updates::{Update, Updates, updates};

use super::{flora::Flora, plan::Plan, site::Site};
use crate::{
    decomp::{StHosvd, Target, Tucker},
    error::Result,
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Ix2, IxDyn};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How much of an update is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// In each layer all but this part of the update's norm, $\lVert \Delta - \Delta' \rVert \le \mathrm{tolerance}\thinspace \lVert \Delta \rVert$
    /// always, with ranks as small as that allows: see [`StHosvd::tolerance`].
    Tolerance(f64),
    /// In each layer the ranks that this FLoRA has there: uniform ones, patterns, a budget for the model. Of its settings only those for ranks
    /// count.
    Ranks(Flora),
}

impl Truncation {
    /// What each site's update is truncated to.
    fn targets<T: Scalar>(&self, sites: &[Site<'_>]) -> Result<Vec<Target>> {
        match self {
            Self::Tolerance(tolerance) => Ok(vec![Target::Tolerance(*tolerance); sites.len()]),
            Self::Ranks(flora) => {
                let plan = Plan::of::<T>(flora, sites)?;
                Ok(plan.rows.into_iter().map(|row| Target::Ranks(row.outline.ranks)).collect())
            }
        }
    }
}

/// A core, its orthonormal factors, and the part of a tensor's norm that they lose.
type Kept<T> = (Tensor<T>, Vec<Tensor<T, Ix2>>, f64);

/// A tensor as a smaller core. Ranks that are asked for above a mode's size come to that.
fn truncated_dense<T: Scalar>(x: &Tensor<T>, target: &Target) -> Result<Kept<T>> {
    let target = match target {
        Target::Ranks(ranks) => Target::Ranks(ranks.iter().zip(x.shape()).map(|(rank, n)| *rank.min(n)).collect()),
        tolerance => tolerance.clone(),
    };
    let fit = StHosvd::target(target).fit(x)?;
    let lost = fit.relative_error;
    let (core, factors) = fit.into_inner().into_parts();
    Ok((core, factors, lost))
}

/// A tensor in Tucker form with fewer columns.
fn truncated<T: Scalar>(tucker: &Tucker<T>, target: &Target) -> Result<Kept<T>> {
    let orthonormal = tucker.orthogonalize()?;
    let (core, rotations, lost) = truncated_dense(orthonormal.core(), target)?;
    let factors = orthonormal.factors().iter().zip(&rotations).map(|(factor, rotation)| factor.matmul(rotation));
    Ok((core, factors.collect::<Result<_>>()?, lost))
}

/// A weight, or an update of one, with its modes in the order input, output, kernel: a view.
fn in_mode_order<T: Scalar>(site: &Site<'_>, weight: &Tensor<T, IxDyn>) -> Result<Tensor<T, IxDyn>> {
    weight.permute(&site.axes())
}

/// What became of the updates of a model.
///
/// Printed, it is a table: a layer's ranks, the numbers that its update takes, and the part of its norm that was lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Truncated {
    /// In the order of the model.
    pub rows: Vec<TruncatedRow>,
}

/// A line of [`Truncated`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TruncatedRow {
    /// The layer.
    pub name: String,
    /// Its weight's shape.
    pub shape: Vec<usize>,
    /// Ranks before: of FLoRA one for each mode, of LoRA one; the sizes of the modes where the update was dense.
    pub before: Vec<usize>,
    /// Ranks now.
    pub ranks: Vec<usize>,
    /// How many numbers the adapter has now.
    pub parameters: usize,
    /// $\lVert \Delta - \Delta' \rVert / \lVert \Delta \rVert$.
    pub lost: f64,
}

impl Truncated {
    /// How many numbers all adapters have now.
    pub fn parameters(&self) -> usize {
        self.rows.iter().map(|row| row.parameters).sum()
    }

    /// The largest part of an update's norm that was lost.
    pub fn most_lost(&self) -> f64 {
        self.rows.iter().map(|row| row.lost).fold(0.0, f64::max)
    }
}

impl fmt::Display for Truncated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        for TruncatedRow { name, before, ranks, parameters, lost, .. } in &self.rows {
            writeln!(f, "{name:<width$}  ranks {before:?} to {ranks:?}: {parameters} numbers, {lost:.1e} lost")?;
        }
        let (count, all) = (self.rows.len(), self.parameters());
        write!(f, "{count} updates in {all} numbers, at most {:.1e} of one lost", self.most_lost())
    }
}
