//! Schedules as text: `SHAPE`, or `SHAPE:KEY=VALUE,..`.

use super::{Schedule, Shape, Warmup, refused};
use crate::error::{Error, Result};
use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    str::FromStr,
};

impl fmt::Display for Schedule {
    /// As [`FromStr`] reads it; what is as by default is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, mut words) = match &self.shape {
            Shape::Constant => ("constant", vec![]),
            Shape::Polynomial { power: 1.0 } => ("linear", vec![]),
            Shape::Polynomial { power } => ("polynomial", vec![format!("power={power}")]),
            Shape::Cosine { cycles: 0.5 } => ("cosine", vec![]),
            Shape::Cosine { cycles } => ("cosine", vec![format!("cycles={cycles}")]),
            Shape::MultiStep { milestones, gamma } => {
                let milestones: Vec<String> = milestones.iter().map(u64::to_string).collect();
                ("multi-step", vec![format!("milestones={}", milestones.join("/")), format!("gamma={gamma}")])
            }
        };
        match self.warmup {
            Warmup::Steps(0) => {}
            Warmup::Steps(steps) => words.push(format!("warmup={steps}")),
            Warmup::Ratio(ratio) => words.push(format!("warmup-ratio={ratio}")),
        }
        for (key, value) in [("from", self.from), ("floor", self.floor)] {
            if value != 0.0 {
                words.push(format!("{key}={value}"));
            }
        }
        f.write_str(name)?;
        for (i, word) in words.iter().enumerate() {
            f.write_char(if i == 0 { ':' } else { ',' })?;
            f.write_str(word)?;
        }
        Ok(())
    }
}

/// The keys of a text that are not read yet.
struct Words<'t>(BTreeMap<&'t str, &'t str>);

impl<'t> Words<'t> {
    fn of(text: &'t str) -> Result<Self> {
        let mut words = BTreeMap::new();
        for word in text.split(',').filter(|_| !text.is_empty()) {
            let Some((key, value)) = word.split_once('=') else {
                return Err(refused(format!("{word:?} is not of the form KEY=VALUE")));
            };
            if words.insert(key.trim(), value.trim()).is_some() {
                return Err(refused(format!("{:?} is given twice", key.trim())));
            }
        }
        Ok(Self(words))
    }

    /// The value of a key, where it is there; `what` says what it has to be.
    fn take<V: FromStr>(&mut self, key: &str, what: &str) -> Result<Option<V>> {
        let Some(text) = self.0.remove(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| refused(format!("{key}={text}: {text:?} is not {what}")))
    }

    /// The value of a key that the schedule `name` cannot do without.
    fn need<V: FromStr>(&mut self, name: &str, key: &str, what: &str) -> Result<V> {
        self.take(key, what)?.ok_or_else(|| refused(format!("{name:?} needs {key}=..")))
    }
}

const NUMBER: &str = "a number";

/// Steps with a slash between them.
struct Milestones(Vec<u64>);

impl FromStr for Milestones {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        text.split('/').filter(|_| !text.is_empty()).map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Schedule {
    type Err = Error;

    /// Reads `constant`, `linear`, `polynomial:power=2`, `cosine`, `cosine:cycles=2` or `multi-step:milestones=30/60,gamma=0.1`, each with
    /// `warmup=STEPS` or `warmup-ratio=RATIO`, and then `from=FACTOR`, and those that fall with `floor=FACTOR`.
    ///
    /// ```
    /// use tenfold::train::Schedule;
    ///
    /// let schedule: Schedule = "polynomial:power=2,warmup=10,from=0.5".parse()?;
    /// assert_eq!(schedule, Schedule::polynomial(2.0).warmup_steps(10).warmup_from(0.5));
    /// let error = "cosin".parse::<Schedule>().unwrap_err();
    /// assert!(error.to_string().starts_with("Schedule: there is no \"cosin\"; there are constant, linear,"));
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) with the word that is not understood, or a number outside its range.
    fn from_str(text: &str) -> Result<Self> {
        let (name, words) = text.split_once(':').unwrap_or((text, ""));
        let mut words = Words::of(words)?;
        let name = name.trim();
        let mut schedule = match name {
            "constant" => Self::constant(),
            "linear" => Self::linear(),
            "polynomial" => Self::polynomial(words.need(name, "power", NUMBER)?),
            "cosine" => words.take("cycles", NUMBER)?.map_or_else(Self::cosine, Self::cosine_cycles),
            "multi-step" => {
                let Milestones(milestones) = words.need(name, "milestones", "steps with / between them")?;
                Self::multi_step(milestones, words.need(name, "gamma", NUMBER)?)
            }
            _ => {
                let shapes = "constant, linear, polynomial:power=2, cosine, multi-step:milestones=30/60,gamma=0.1";
                return Err(refused(format!("there is no {name:?}; there are {shapes}")));
            }
        };
        match (words.take("warmup", "a count of steps")?, words.take("warmup-ratio", NUMBER)?) {
            (Some(_), Some(_)) => return Err(refused("warmup and warmup-ratio exclude one another".to_string())),
            (Some(steps), None) => schedule = schedule.warmup_steps(steps),
            (None, Some(ratio)) => schedule = schedule.warmup_ratio(ratio),
            (None, None) => {}
        }
        schedule.from = words.take("from", NUMBER)?.unwrap_or(0.0);
        schedule.floor = words.take("floor", NUMBER)?.unwrap_or(0.0);
        if let Some(key) = words.0.keys().next() {
            return Err(refused(format!("{name:?} knows no {key:?}")));
        }
        schedule.check_numbers()?;
        Ok(schedule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn schedules() -> impl Strategy<Value = Schedule> {
        let shape = prop_oneof![
            Just(Schedule::constant()),
            Just(Schedule::linear()),
            (0.001..10.0f64).prop_map(Schedule::polynomial),
            (0.0..10.0f64, 0.0..=1.0f64).prop_map(|(cycles, floor)| Schedule::cosine_cycles(cycles).floor(floor)),
            (prop::collection::vec(any::<u64>(), 0..4), 0.0..2.0f64).prop_map(|(mut milestones, gamma)| {
                milestones.sort_unstable();
                Schedule::multi_step(milestones, gamma)
            }),
        ];
        let warmup = prop_oneof![
            Just(None),
            (1..1000u64, 0.0..=1.0f64).prop_map(|(steps, from)| Some((Warmup::Steps(steps), from))),
            (0.0..=1.0f64, 0.0..=1.0f64).prop_map(|(ratio, from)| Some((Warmup::Ratio(ratio), from))),
        ];
        (shape, warmup).prop_map(|(schedule, warmup)| match warmup {
            Some((warmup, from)) => Schedule { warmup, from, ..schedule },
            None => schedule,
        })
    }

    proptest! {
        #[test]
        fn text_and_json_are_read_as_they_were_written(schedule in schedules()) {
            prop_assert_eq!(&schedule.to_string().parse::<Schedule>().unwrap(), &schedule);
            let json = serde_json::to_string(&schedule).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Schedule>(&json).unwrap(), &schedule);
        }

        #[test]
        fn factors_lie_between_0_and_1(schedule in schedules(), step in 0..3000u64, total in 0..2000u64) {
            let factor = schedule.factor(step, total);
            let most = if let Shape::MultiStep { gamma, .. } = schedule.shape { gamma.max(1.0).powi(3) } else { 1.0 };
            prop_assert!((0.0..=most + 1e-12).contains(&factor), "{} at {}", factor, schedule);
        }

        #[test]
        fn no_text_panics(text in "[a-z:=,/0-9.e-]{0,40}") {
            let _ = text.parse::<Schedule>();
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, message) in [
            ("", "there is no \"\"; there are constant"),
            ("linear:warmup", "\"warmup\" is not of the form KEY=VALUE"),
            ("linear:warmup=1,warmup=2", "\"warmup\" is given twice"),
            ("linear:warmup=0.5", "warmup=0.5: \"0.5\" is not a count of steps"),
            ("linear:floor=x", "floor=x: \"x\" is not a number"),
            ("linear:warmup=1,warmup-ratio=0.5", "warmup and warmup-ratio exclude one another"),
            ("linear:cycles=2", "\"linear\" knows no \"cycles\""),
            ("polynomial", "\"polynomial\" needs power=.."),
            ("multi-step:gamma=0.1", "\"multi-step\" needs milestones=.."),
            ("multi-step:milestones=3/x,gamma=0.1", "milestones=3/x: \"3/x\" is not steps with / between them"),
            ("cosine:floor=2", "a floor of 2; it lies between 0 and 1"),
        ] {
            let error = text.parse::<Schedule>().unwrap_err();
            assert!(error.message().starts_with(message), "{text}: {error}");
        }
    }
}
