//! [`Rule`]: which of the rules an optimiser follows.

use super::{Adam, AdamW, Sgd};
use crate::{
    device::optimizer::Update,
    error::{Error, ErrorKind, Result},
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How an optimiser moves parameters. Made from one of the rules.
///
/// ```
/// use tenfold::train::{Rule, Sgd};
///
/// let rule = Rule::from(Sgd::new(0.1).momentum(0.9));
/// assert_eq!(rule.rate(), 0.1);
/// assert!(rule.to_string().starts_with(r#"{"Sgd":{"rate":0.1,"momentum":0.9"#));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Rule {
    /// Stochastic gradient descent.
    Sgd(Sgd),
    /// Adam, with decay as part of the gradient.
    Adam(Adam),
    /// Adam with decoupled decay.
    AdamW(AdamW),
}

impl From<Sgd> for Rule {
    fn from(rule: Sgd) -> Self {
        Self::Sgd(rule)
    }
}

impl From<Adam> for Rule {
    fn from(rule: Adam) -> Self {
        Self::Adam(rule)
    }
}

impl From<AdamW> for Rule {
    fn from(rule: AdamW) -> Self {
        Self::AdamW(rule)
    }
}

/// The same of whichever rule it is.
macro_rules! of {
    ($rule:expr, $inner:ident => $value:expr) => {
        match $rule {
            Rule::Sgd($inner) => $value,
            Rule::Adam($inner) => $value,
            Rule::AdamW($inner) => $value,
        }
    };
}

impl Rule {
    /// The rate, before groups and schedules.
    pub fn rate(&self) -> f64 {
        of!(self, rule => rule.rate())
    }

    /// The weight decay, unless groups say otherwise.
    pub fn weight_decay(&self) -> f64 {
        of!(self, rule => rule.decay())
    }

    /// An error unless all its numbers are in their ranges.
    pub(super) fn check(&self) -> Result<()> {
        of!(self, rule => rule.check())
    }

    /// The names, PyTorch's, of what it remembers of a parameter.
    pub(super) fn moments(&self) -> &'static [&'static str] {
        of!(self, rule => rule.moments())
    }

    /// What step number `count`, from 1 on, does to a parameter with this rate and decay; its gradient is multiplied by `scale` first.
    pub(super) fn update(&self, rate: f64, decay: f64, scale: f64, count: u64) -> Update {
        of!(self, rule => rule.update(rate, decay, scale, count))
    }
}

impl fmt::Display for Rule {
    /// As JSON, which serde reads again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// The error of a number that a rule does not take.
pub(super) fn refused(rule: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Value, rule, message)
}

/// An error unless all numbers are finite and not below 0.
pub(super) fn at_least_zero<const N: usize>(rule: &'static str, numbers: [(&str, f64); N]) -> Result<()> {
    match numbers.into_iter().find(|(_, x)| !x.is_finite() || *x < 0.0) {
        Some((name, x)) => Err(refused(rule, format!("{name} {x}; it has to be finite and not below 0"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_their_ranges_are_refused() {
        for (rule, message) in [
            (Rule::from(Sgd::new(-0.1)), "Sgd: rate -0.1; it has to be finite and not below 0"),
            (Sgd::new(f64::NAN).into(), "Sgd: rate NaN; it has to be finite and not below 0"),
            (Sgd::new(1.0).momentum(-1.0).into(), "Sgd: momentum -1; it has to be finite and not below 0"),
            (Sgd::new(1.0).weight_decay(-1.0).into(), "Sgd: weight decay -1; it has to be finite and not below 0"),
            (Sgd::new(1.0).dampening(f64::INFINITY).into(), "Sgd: a dampening of inf; it is a finite number, mostly 0"),
            (
                Sgd::new(1.0).nesterov().into(),
                "Sgd: Nesterov's momentum needs a momentum above 0 and no dampening; they are 0 and 0",
            ),
            (
                Sgd::new(1.0).momentum(0.9).dampening(0.5).nesterov().into(),
                "Sgd: Nesterov's momentum needs a momentum above 0 and no dampening; they are 0.9 and 0.5",
            ),
            (Adam::new(1.0).betas(0.9, 1.0).into(), "Adam: a beta of 1; betas are at least 0 and below 1"),
            (AdamW::new(1.0).betas(-0.1, 0.9).into(), "AdamW: a beta of -0.1; betas are at least 0 and below 1"),
            (AdamW::new(1.0).eps(-1.0).into(), "AdamW: eps -1; it has to be finite and not below 0"),
        ] {
            let error = rule.check().unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Value, message));
        }
        for rule in [Sgd::new(0.0).into(), Rule::from(Adam::new(0.0).betas(0.0, 0.0).eps(0.0))] {
            rule.check().unwrap();
        }
    }

    #[test]
    fn unknown_words_in_json_are_refused() {
        let error = serde_json::from_str::<Rule>(r#"{"Sgd":{"rate":0.1,"momentun":0.9}}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `momentun`"), "{error}");
    }
}
