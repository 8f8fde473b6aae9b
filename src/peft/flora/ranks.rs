//! [`Ranks`]: how ranks are chosen.

use serde::{Deserialize, Serialize};

/// How the ranks of a layer's update are chosen. Modes are in the order input, output, kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ranks {
    /// This rank for input and output; the kernel's modes have [`Flora::kernel_rank`](super::Flora::kernel_rank).
    Uniform(usize),
    /// One rank for each mode of the weight.
    Modes(Vec<usize>),
    /// This part of each mode's size, rounded, at least 1.
    Fraction(f64),
    /// The largest rank for input and output with which a layer's adapter has at most so many parameters.
    LayerParameters(usize),
    /// The largest rank for input and output with which all adapters together have at most so many parameters.
    ModelParameters(usize),
}

/// The largest rank from 1 to `most` with at most `budget` parameters, which grow with the rank; `None` where 1 has
/// more.
pub(super) fn largest(budget: usize, most: usize, parameters: impl Fn(usize) -> usize) -> Option<usize> {
    // Fits at `fits`, does not at `over`.
    let (mut fits, mut over) = (0, most + 1);
    while over - fits > 1 {
        let middle = fits + (over - fits) / 2;
        if parameters(middle) <= budget { fits = middle } else { over = middle }
    }
    (fits > 0).then_some(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_rank_within_a_budget() {
        for budget in 0..2000 {
            for most in [1, 7, 60] {
                let parameters = |rank: usize| rank * rank + 10 * rank;
                let expected = (1..=most).filter(|&rank| parameters(rank) <= budget).max();
                assert_eq!(largest(budget, most, parameters), expected, "{budget} of {most}");
            }
        }
    }
}
