//! What a run says of itself: [`TrainingStep`], [`Evaluation`], and [`Event`], which brings them to whoever watches.

use super::report::Report;
use crate::error::{Error, ErrorKind, Result};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Named numbers that an evaluation found, in the order in which they were named.
///
/// ```
/// use tenfold::train::Scores;
///
/// let scores = Scores::new().with("accuracy", 0.75).with("loss", 0.5);
/// assert_eq!(scores.get("accuracy"), Some(0.75));
/// assert_eq!(scores.to_string(), "accuracy 0.75, loss 0.5");
/// assert_eq!(scores, Scores::from([("accuracy", 0.75), ("loss", 0.5)]));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Scores(Vec<(String, f64)>);

impl Scores {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a number; one of the same name is replaced.
    pub fn with(mut self, name: &str, value: f64) -> Self {
        match self.0.iter_mut().find(|(held, _)| held == name) {
            Some((_, held)) => *held = value,
            None => self.0.push((name.to_string(), value)),
        }
        self
    }

    /// The number of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.iter().find(|(held, _)| *held == name).map(|(_, value)| value)
    }

    /// Names and numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of this name, for a decision that depends on it.
    pub(super) fn demand(&self, name: &str) -> Result<f64> {
        self.get(name).ok_or_else(|| {
            let message = match self.is_empty() {
                true => format!("the evaluation gave no numbers, and {name:?} is to be the best"),
                false => format!("the evaluation gave no {name:?}, which is to be the best; it gave {self}"),
            };
            Error::new(ErrorKind::Value, "Trainer", message)
        })
    }
}

impl<const N: usize> From<[(&str, f64); N]> for Scores {
    fn from(scores: [(&str, f64); N]) -> Self {
        scores.into_iter().fold(Self::new(), |all, (name, value)| all.with(name, value))
    }
}

impl PartialEq for Scores {
    /// The same names and numbers in the same order; a NaN equals itself.
    fn eq(&self, other: &Self) -> bool {
        let same =
            |(a, b): (&(String, f64), &(String, f64))| a.0 == b.0 && (a.1 == b.1 || a.1.is_nan() && b.1.is_nan());
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(same)
    }
}

/// An object in JSON, with `null` for a number that is not finite, which JSON does not have.
impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Scores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Scores;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scores, A::Error> {
                let mut scores = Scores::new();
                while let Some((name, value)) = map.next_entry::<String, Option<f64>>()? {
                    scores = scores.with(&name, value.unwrap_or(f64::NAN));
                }
                Ok(scores)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.iter().map(|(name, value)| format!("{name} {}", short(value))).collect();
        f.write_str(&words.join(", "))
    }
}

/// A number in four digits, for people.
pub(super) fn short(x: f64) -> String {
    if x != 0.0 && x.is_finite() && !(1e-3..1e5).contains(&x.abs()) {
        return format!("{x:.2e}");
    }
    let digits = (3 - x.abs().max(1e-3).log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{x:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

/// A step that was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingStep {
    /// Its number, from 1.
    pub step: u64,
    /// The epoch that it belongs to, from 1.
    pub epoch: u64,
    /// The mean of the losses of its batches.
    pub loss: f64,
    /// The learning rate that the schedule gave it, without the multipliers of groups.
    pub rate: f64,
    /// The norm of all gradients together, before clipping.
    pub gradient_norm: f64,
    /// The number of examples in its batches.
    pub examples: u64,
    /// Seconds that the run has taken up to here, those before it was resumed included.
    pub seconds: f64,
    /// Seconds of this step in which it waited for data.
    pub waited: f64,
    /// Examples a second, of this step.
    pub examples_per_second: f64,
}

/// An evaluation that was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The step after which it was made.
    pub step: u64,
    /// The epoch that this step belongs to, from 1.
    pub epoch: u64,
    /// What it found.
    pub scores: Scores,
    /// Whether it is the best one up to here, where the trainer was told what is best.
    pub best: bool,
    /// Seconds that the run has taken up to here.
    pub seconds: f64,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Record {
    /// `"event": "step"`
    Step(TrainingStep),
    /// `"event": "evaluation"`
    Evaluation(Evaluation),
}

/// What a run is about to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    /// All steps, those taken before it was resumed included.
    pub steps: u64,
    /// The steps of an epoch.
    pub steps_per_epoch: u64,
    /// The number of examples.
    pub examples: usize,
    /// The step that was taken last: not 0 where the run is resumed.
    pub resumed: u64,
    /// How many numbers train, and how many there are.
    pub parameters: crate::nn::Count,
    /// Where log and checkpoints go.
    pub folder: Option<PathBuf>,
}

/// What happens in a run, for whoever watches it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run begins, or goes on.
    Started(&'a Outline),
    /// A step was taken.
    Step(&'a TrainingStep),
    /// An evaluation was made.
    Evaluated(&'a Evaluation),
    /// A checkpoint was written.
    Saved {
        /// The step that it is of.
        step: u64,
        /// Where it is.
        path: &'a Path,
    },
    /// The run is over.
    Ended(&'a Report),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        let shown: Vec<String> =
            [0.0, 1.0, 0.5, 0.123456, 12.3456, 1234.56, 98765.4, 1e5, 1e-4, -0.25, f64::NAN].map(short).into();
        let expected = ["0", "1", "0.5", "0.1235", "12.35", "1235", "98765", "1.00e5", "1.00e-4", "-0.25", "NaN"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn records_go_through_json_exactly() {
        let scores = Scores::from([("a", 0.1 + 0.2), ("b", f64::NAN), ("c", 1e-300)]);
        let evaluation = Evaluation { step: 3, epoch: 1, scores, best: true, seconds: 1.0 / 3.0 };
        let record = Record::Evaluation(evaluation);
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.starts_with(r#"{"event":"evaluation","step":3,"#) && text.contains(r#""b":null"#), "{text}");
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }
}
