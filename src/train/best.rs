//! [`Best`]: which evaluation is the best.

use super::record::Scores;
use crate::error::Result;
use serde::Serialize;

/// Which evaluation is the best: that with the highest, or the lowest, of the numbers of one name. Of equals the first; a NaN
/// never is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Best {
    pub(super) score: String,
    higher: bool,
}

impl Best {
    /// Higher is better: an accuracy.
    pub fn highest(score: &str) -> Self {
        Self { score: score.to_string(), higher: true }
    }

    /// Lower is better: a loss.
    pub fn lowest(score: &str) -> Self {
        Self { score: score.to_string(), higher: false }
    }

    /// Whether these scores are better than the best ones so far.
    pub(super) fn improves(&self, scores: &Scores, best: Option<&Scores>) -> Result<bool> {
        let new = scores.demand(&self.score)?;
        let old = best.and_then(|best| best.get(&self.score));
        Ok(!new.is_nan() && old.is_none_or(|old| if self.higher { new > old } else { new < old }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best() {
        let scores = |x| Scores::from([("a", x)]);
        let (high, low) = (Best::highest("a"), Best::lowest("a"));
        assert!(high.improves(&scores(0.0), None).unwrap() && low.improves(&scores(0.0), None).unwrap());
        assert!(high.improves(&scores(2.0), Some(&scores(1.0))).unwrap());
        assert!(!low.improves(&scores(2.0), Some(&scores(1.0))).unwrap());
        assert!(!high.improves(&scores(1.0), Some(&scores(1.0))).unwrap());
        assert!(!high.improves(&scores(f64::NAN), None).unwrap());
        let error = high.improves(&Scores::from([("b", 1.0)]), None).unwrap_err();
        assert_eq!(error.message(), "the evaluation gave no \"a\", which is to be the best; it gave b 1");
    }
}
