//! [`Plan`]: which batches are in which step.

use super::data::Batches;
use std::ops::Range;

/// The steps of a run and their batches. Steps, batches and epochs count from 0 here.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) batches: Batches,
    pub(super) batches_per_epoch: u64,
    pub(super) steps_per_epoch: u64,
    /// Of the run.
    pub(super) steps: u64,
    pub(super) accumulate: u64,
    pub(super) examples: usize,
}

impl Plan {
    /// The epoch of a step.
    pub(super) fn epoch(&self, step: u64) -> u64 {
        step / self.steps_per_epoch
    }

    /// The batches of a step, counted through all epochs. A run without an end, of the most steps that there are, has the most batches.
    pub(super) fn batches_of(&self, step: u64) -> Range<u64> {
        let epoch = self.epoch(step).saturating_mul(self.batches_per_epoch);
        let start = (step % self.steps_per_epoch) * self.accumulate;
        let end = start.saturating_add(self.accumulate).min(self.batches_per_epoch);
        epoch.saturating_add(start)..epoch.saturating_add(end)
    }
}

#[cfg(test)]
mod tests {
    use crate::train::{Sgd, Trainer};

    #[test]
    fn steps_take_all_batches_of_an_epoch_once() {
        for (examples, size, accumulate) in [(10, 3, 1), (10, 3, 3), (10, 1, 4), (7, 7, 2), (9, 2, 100)] {
            let trainer = Trainer::new(Sgd::new(0.1)).epochs(3).batch_size(size).accumulate(accumulate);
            let plan = trainer.plan(examples, false).unwrap();
            let batches: Vec<u64> = (0..plan.steps).flat_map(|step| plan.batches_of(step)).collect();
            assert_eq!(batches, (0..3 * plan.batches_per_epoch).collect::<Vec<_>>());
            for step in 0..plan.steps {
                let range = plan.batches_of(step);
                assert!(!range.is_empty() && range.end - range.start <= accumulate);
                assert_eq!(range.start / plan.batches_per_epoch, plan.epoch(step));
                assert_eq!((range.end - 1) / plan.batches_per_epoch, plan.epoch(step));
            }
        }
    }
}
