//! [`Scaling`]: the number that an update is multiplied by.

use serde::{Deserialize, Serialize};

/// The number $s$ in $W = W_0 + s \Delta$.
///
/// ```
/// use tenfold::peft::Scaling;
///
/// assert_eq!(Scaling::Constant(4.0).of_rank(8), 4.0);
/// assert_eq!(Scaling::Rank { alpha: 16.0 }.of_rank(8), 2.0);
/// assert_eq!(Scaling::RootRank { alpha: 16.0 }.of_rank(16), 4.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// $s$, whatever the rank: FLoRA's paper, which takes it from 0.04, 0.4 and 4.
    Constant(f64),
    /// $\alpha / r$: LoRA, and the code of FLoRA's authors for language models.
    Rank {
        /// $\alpha$
        alpha: f64,
    },
    /// $\alpha / \sqrt r$: rsLoRA (D. Kalajdzievski, *A rank stabilization scaling factor for fine-tuning with LoRA*,
    /// arXiv:2312.03732).
    RootRank {
        /// $\alpha$
        alpha: f64,
    },
}

impl Scaling {
    /// The number for an adapter of this rank.
    pub fn of_rank(self, rank: usize) -> f64 {
        match self {
            Self::Constant(scale) => scale,
            Self::Rank { alpha } => alpha / rank as f64,
            Self::RootRank { alpha } => alpha / (rank as f64).sqrt(),
        }
    }
}
