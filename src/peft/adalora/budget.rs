//! [`Budget`]: how many triplets there may be at which step.

use crate::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// The length of a part of a run, as [`AdaLora`](super::AdaLora) divides it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// So many steps.
    Steps(u64),
    /// This part of all steps, rounded down.
    Ratio(f64),
}

impl Phase {
    pub(super) fn check(self, name: &str) -> Result<()> {
        match self {
            Self::Ratio(ratio) if !(0.0..1.0).contains(&ratio) => {
                let message = format!("the {name} takes a part of {ratio} of all steps; needs 0 to below 1");
                Err(Error::new(ErrorKind::Value, super::NAME, message))
            }
            _ => Ok(()),
        }
    }

    fn of(self, steps: u64) -> u64 {
        match self {
            Self::Steps(steps) => steps,
            Self::Ratio(ratio) => (ratio * steps as f64) as u64,
        }
    }
}

/// The budget of a run, as PEFT's `budget_schedule` has it: with all triplets b_0 and the target b_T, at step t
///
/// $$ b(t) = \lfloor (b_0 - b_T)\thinspace (1 - (t - t_i) / (n - t_f - t_i))^3 + b_T \rfloor, $$
///
/// before the warm-up ends b_0, and from step n - t_f on b_T.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    /// The last step of the warm-up.
    warmup: u64,
    /// The step of the final choice.
    last: u64,
    every: u64,
}

impl Budget {
    pub(super) fn new(warmup: Phase, settle: Phase, every: u64, steps: u64) -> Result<Self> {
        let (warmup, settle) = (warmup.of(steps), settle.of(steps));
        match steps.checked_sub(settle) {
            Some(last) if warmup < last => Ok(Self { warmup, last, every }),
            _ => {
                let message = format!(
                    "{warmup} steps of warm-up and {settle} steps after the final choice leave none of {steps} for the \
                     budget to go down; their sum has to be below the number of steps"
                );
                Err(Error::new(ErrorKind::Value, super::NAME, message))
            }
        }
    }

    /// The step of the final choice.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Whether triplets are chosen at a step.
    pub(super) fn due(&self, step: u64) -> bool {
        step == self.last || (step > self.warmup && step < self.last && step.is_multiple_of(self.every))
    }

    /// How many of `all` triplets there may be.
    pub(super) fn at(&self, step: u64, all: usize, target: usize) -> usize {
        let target = target.min(all);
        if step <= self.warmup {
            all
        } else if step >= self.last {
            target
        } else {
            // In the operations of PEFT, whose rounding decides where this is near an integer.
            let left = 1.0 - (step - self.warmup) as f64 / (self.last - self.warmup) as f64;
            ((all - target) as f64 * left.powf(3.0) + target as f64) as usize
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_goes_down_by_a_cubic_law() {
        let budget = Budget::new(Phase::Steps(2), Phase::Steps(4), 3, 16).unwrap();
        let found: Vec<usize> = (0..18).map(|step| budget.at(step, 120, 40)).collect();
        assert_eq!(found, [120, 120, 120, 98, 80, 67, 57, 50, 45, 42, 40, 40, 40, 40, 40, 40, 40, 40]);
        let due: Vec<u64> = (0..18).filter(|&step| budget.due(step)).collect();
        assert_eq!(due, [3, 6, 9, 12]);
        assert_eq!(budget.at(5, 30, 40), 30);
    }

    #[test]
    fn parts_of_all_steps() {
        let budget = Budget::new(Phase::Ratio(0.1), Phase::Ratio(0.5), 1, 100).unwrap();
        assert_eq!(budget, Budget { warmup: 10, last: 50, every: 1 });
        assert_eq!(Budget::new(Phase::Ratio(0.1), Phase::Ratio(0.5), 1, 1).unwrap().last(), 1);
        let error = Budget::new(Phase::Steps(6), Phase::Steps(4), 1, 10).unwrap_err();
        assert!(error.message().starts_with("6 steps of warm-up and 4 steps after the final choice leave none of 10"));
        assert!(Budget::new(Phase::Steps(0), Phase::Steps(11), 1, 10).is_err());
        for ratio in [-0.1, 1.0, f64::NAN] {
            assert!(Phase::Ratio(ratio).check("end").is_err());
        }
    }
}
