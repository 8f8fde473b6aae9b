//! [`Report`]: what a run came to.

use super::record::{Evaluation, short};
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf};

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stop {
    /// All steps were taken.
    Finished,
    /// Evaluations had not become better for as long as the patience lasts.
    Early,
    /// The watcher asked for it. The run can be resumed.
    Interrupted,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Finished => "finished",
            Self::Early => "stopped early",
            Self::Interrupted => "interrupted",
        })
    }
}

/// What a run came to. Made by [`Trainer::fit`](super::Trainer::fit).
///
/// Times and counts include those before the run was resumed.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Steps taken.
    pub steps: u64,
    /// Why it ended.
    pub stopped: Stop,
    /// The loss of the last step.
    pub loss: f64,
    /// The last evaluation.
    pub evaluation: Option<Evaluation>,
    /// The best evaluation, where the trainer was told what is best.
    pub best: Option<Evaluation>,
    /// Whether the model has the weights of the best evaluation rather than those of the last step.
    pub restored: bool,
    /// Examples seen, repeated ones included.
    pub examples: u64,
    /// Seconds it took, evaluations and checkpoints included.
    pub seconds: f64,
    /// Seconds of these in which steps waited for data.
    pub waited: f64,
    /// The checkpoint of the last step.
    pub checkpoint: Option<PathBuf>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.examples as f64 / self.seconds.max(f64::MIN_POSITIVE);
        write!(f, "{} after {} steps in {} s ", self.stopped, self.steps, short(self.seconds))?;
        write!(f, "({} examples a second, {} s waiting for data)", short(rate), short(self.waited))?;
        write!(f, "; loss {}", short(self.loss))?;
        if let Some(Evaluation { step, scores, .. }) = &self.evaluation {
            write!(f, "; at step {step} {scores}")?;
        }
        if let Some(Evaluation { step, scores, .. }) = &self.best {
            let kept = if self.restored { ", which the model has now" } else { "" };
            write!(f, "; the best at step {step}: {scores}{kept}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Scores;

    #[test]
    fn what_it_prints() {
        let evaluation =
            |step, a| Evaluation { step, epoch: 1, scores: Scores::from([("a", a)]), best: true, seconds: 1.0 };
        let report = Report {
            steps: 60,
            stopped: Stop::Early,
            loss: 0.25,
            evaluation: Some(evaluation(60, 0.5)),
            best: Some(evaluation(20, 0.75)),
            restored: true,
            examples: 600,
            seconds: 2.0,
            waited: 0.0,
            checkpoint: None,
        };
        assert_eq!(
            report.to_string(),
            "stopped early after 60 steps in 2 s (300 examples a second, 0 s waiting for data); loss 0.25; \
             at step 60 a 0.5; the best at step 20: a 0.75, which the model has now"
        );
    }
}
