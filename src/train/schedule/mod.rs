//! [`Schedule`]: how the rate changes in the course of a training.

mod text;

use crate::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// A factor on the rate for each step of a training: a shape, and a warm-up before it.
///
/// Steps count from 0. With w steps of warm-up from the factor s, out of n steps in all, step t has the factor
///
/// $$ \Big( s + (1 - s) \min(t / w, 1) \Big) \thinspace f(t), $$
///
/// where f is one of these, with x = (t - w) / (n - w), kept between 0 and 1, for how far the training is, and a floor c:
///
/// | shape | f | the same as |
/// |---|---|---|
/// | [`constant`](Schedule::constant) | 1 | |
/// | [`linear`](Schedule::linear) | c + (1 - c)(1 - x) | transformers' `get_linear_schedule_with_warmup` |
/// | [`polynomial`](Schedule::polynomial) | c + (1 - c)(1 - x)^p | transformers' `get_polynomial_decay_schedule_with_warmup` |
/// | [`cosine`](Schedule::cosine) | c + (1 - c)(1 + cos(2 pi k x)) / 2 with k = 1/2 | transformers' `get_cosine_schedule_with_warmup`, PyTorch's `CosineAnnealingLR` |
/// | [`cosine_cycles`](Schedule::cosine_cycles) | the same, with k whole waves | |
/// | [`multi_step`](Schedule::multi_step) | g^(number of milestones at or before t) | PyTorch's `MultiStepLR`, with `LinearLR` for the warm-up |
///
/// A warm-up starts from 0 unless [told otherwise](Schedule::warmup_from), as in transformers: the very first step then moves nothing.
///
/// On a command line a schedule is text, which [`FromStr`](std::str::FromStr) reads and [`Display`](std::fmt::Display) writes:
///
/// ```
/// use tenfold::train::Schedule;
///
/// let schedule = Schedule::cosine().warmup_steps(100).floor(0.1);
/// assert_eq!(schedule.to_string(), "cosine:warmup=100,floor=0.1");
/// assert_eq!("cosine:warmup=100,floor=0.1".parse::<Schedule>()?, schedule);
/// assert_eq!("multi-step:milestones=30/60,gamma=0.1".parse::<Schedule>()?, Schedule::multi_step([30, 60], 0.1));
/// assert_eq!("linear:warmup-ratio=0.06".parse::<Schedule>()?, Schedule::linear().warmup_ratio(0.06));
///
/// schedule.check(1000)?; // an error where the warm-up does not fit
/// assert_eq!([0, 50, 100].map(|t| schedule.factor(t, 1000)), [0.0, 0.5, 1.0]);
/// assert!((schedule.factor(550, 1000) - 0.55).abs() < 1e-12);
/// assert!((schedule.factor(1000, 1000) - 0.1).abs() < 1e-12);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    shape: Shape,
    warmup: Warmup,
    /// What the warm-up starts from.
    from: f64,
    floor: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Constant,
    Polynomial { power: f64 },
    Cosine { cycles: f64 },
    MultiStep { milestones: Vec<u64>, gamma: f64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Warmup {
    Steps(u64),
    Ratio(f64),
}

impl Default for Schedule {
    /// The rate stays as it is.
    fn default() -> Self {
        Self::constant()
    }
}

impl Schedule {
    fn new(shape: Shape) -> Self {
        Self { shape, warmup: Warmup::Steps(0), from: 0.0, floor: 0.0 }
    }

    /// The rate stays as it is.
    pub fn constant() -> Self {
        Self::new(Shape::Constant)
    }

    /// Falls evenly to 0.
    pub fn linear() -> Self {
        Self::polynomial(1.0)
    }

    /// Falls to 0 as a power of what is left of the training.
    pub fn polynomial(power: f64) -> Self {
        Self::new(Shape::Polynomial { power })
    }

    /// Falls to 0 along half a wave of the cosine.
    ///
    /// **Reference**: Loshchilov, Hutter, *SGDR: stochastic gradient descent with warm restarts*, ICLR 2017, equation 5.
    pub fn cosine() -> Self {
        Self::cosine_cycles(0.5)
    }

    /// Falls and rises along so many waves of the cosine.
    pub fn cosine_cycles(cycles: f64) -> Self {
        Self::new(Shape::Cosine { cycles })
    }

    /// Is multiplied by `gamma` at each of the milestones, which are steps counted from the beginning of the training.
    pub fn multi_step(milestones: impl Into<Vec<u64>>, gamma: f64) -> Self {
        Self::new(Shape::MultiStep { milestones: milestones.into(), gamma })
    }

    /// Rises evenly over so many steps first.
    pub fn warmup_steps(self, steps: u64) -> Self {
        Self { warmup: Warmup::Steps(steps), ..self }
    }

    /// Rises evenly over this part of all steps first, between 0 and 1; rounded up to whole steps.
    pub fn warmup_ratio(self, ratio: f64) -> Self {
        Self { warmup: Warmup::Ratio(ratio), ..self }
    }

    /// The factor that the warm-up starts from, between 0 and 1; 0 by default.
    pub fn warmup_from(self, factor: f64) -> Self {
        Self { from: factor, ..self }
    }

    /// The factor that a linear, polynomial or cosine schedule falls to, between 0 and 1; 0 by default.
    pub fn floor(self, factor: f64) -> Self {
        Self { floor: factor, ..self }
    }

    /// The factor of step number `step`, counted from 0, of a training of `total` steps; that of the end where it is beyond.
    pub fn factor(&self, step: u64, total: u64) -> f64 {
        let warmup = self.warmup_of(total);
        let warm = step >= warmup;
        let ramp = if warm { 1.0 } else { self.from + (1.0 - self.from) * (step as f64 / warmup as f64) };
        // 1 - x
        let left = total.saturating_sub(step) as f64 / total.saturating_sub(warmup).max(1) as f64;
        let fallen = |f: f64| self.floor + (1.0 - self.floor) * f;
        let shape = match &self.shape {
            Shape::MultiStep { milestones, gamma } => {
                gamma.powf(milestones.iter().filter(|&&milestone| milestone <= step).count() as f64)
            }
            Shape::Polynomial { power } if warm => fallen(left.powf(*power)),
            Shape::Cosine { cycles } if warm => fallen(0.5 * (1.0 + (2.0 * PI * cycles * (1.0 - left)).cos())),
            _ => 1.0,
        };
        ramp * shape
    }

    /// How many steps of `total` are warm-up.
    fn warmup_of(&self, total: u64) -> u64 {
        match self.warmup {
            Warmup::Steps(steps) => steps,
            Warmup::Ratio(ratio) => (total as f64 * ratio).ceil() as u64,
        }
    }

    /// An error unless all numbers are in their ranges and the warm-up fits into `total` steps.
    ///
    /// ```
    /// use tenfold::train::Schedule;
    ///
    /// let error = Schedule::linear().warmup_steps(100).check(50).unwrap_err();
    /// assert_eq!(error.to_string(), "Schedule: a warm-up of 100 steps does not fit into a training of 50");
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Value`].
    pub fn check(&self, total: u64) -> Result<()> {
        self.check_numbers()?;
        let warmup = self.warmup_of(total);
        if warmup > total {
            return Err(refused(format!("a warm-up of {warmup} steps does not fit into a training of {total}")));
        }
        Ok(())
    }

    /// What can be checked without the length of the training.
    fn check_numbers(&self) -> Result<()> {
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let message = match &self.shape {
            Shape::Polynomial { power } if !(power.is_finite() && *power > 0.0) => {
                format!("a power of {power}; it is finite and above 0")
            }
            Shape::Cosine { cycles } if !(cycles.is_finite() && *cycles >= 0.0) => {
                format!("{cycles} cycles; their number is finite and not below 0")
            }
            Shape::MultiStep { gamma, .. } if !(gamma.is_finite() && *gamma >= 0.0) => {
                format!("a gamma of {gamma}; it is finite and not below 0")
            }
            Shape::MultiStep { milestones, .. } if !milestones.is_sorted() => {
                format!("milestones {milestones:?}; they come in rising order")
            }
            Shape::Constant | Shape::MultiStep { .. } if self.floor != 0.0 => {
                format!("a floor of {} for a schedule that does not fall to one", self.floor)
            }
            _ if !share(self.floor) => format!("a floor of {}; it lies between 0 and 1", self.floor),
            _ if !share(self.from) => format!("a warm-up from {}; it starts between 0 and 1", self.from),
            _ => match self.warmup {
                Warmup::Ratio(ratio) if !share(ratio) => format!("a warm-up ratio of {ratio}; it lies between 0 and 1"),
                Warmup::Steps(0) if self.from != 0.0 => format!("a warm-up from {}, but of no steps", self.from),
                _ => return Ok(()),
            },
        };
        Err(refused(message))
    }
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Value, "Schedule", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_beyond() {
        for schedule in [Schedule::linear(), Schedule::cosine(), Schedule::polynomial(2.0)] {
            let schedule = schedule.floor(0.25);
            assert_eq!(schedule.factor(0, 10), 1.0);
            for step in [10, 11, 1000] {
                assert!((schedule.factor(step, 10) - 0.25).abs() < 1e-15);
            }
            // Nothing but warm-up.
            let warm = schedule.warmup_steps(4).warmup_from(0.5);
            warm.check(4).unwrap();
            assert_eq!([0, 1, 2, 3].map(|t| warm.factor(t, 4)), [0.5, 0.625, 0.75, 0.875]);
        }
        let waves = Schedule::cosine_cycles(2.0);
        for (step, factor) in [(0, 1.0), (2, 0.0), (4, 1.0), (6, 0.0), (8, 1.0)] {
            assert!((waves.factor(step, 8) - factor).abs() < 1e-15);
        }
    }

    #[test]
    fn ratios_round_up() {
        let schedule = Schedule::constant().warmup_ratio(0.25);
        assert_eq!([0, 1, 2, 3].map(|t| schedule.factor(t, 9)), [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0]);
        assert_eq!(Schedule::constant().warmup_ratio(0.0).factor(0, 9), 1.0);
        assert_eq!(Schedule::constant().warmup_ratio(1.0).factor(8, 9), 8.0 / 9.0);
    }

    #[test]
    fn numbers_outside_their_ranges_are_refused() {
        for (schedule, message) in [
            (Schedule::polynomial(0.0), "a power of 0; it is finite and above 0"),
            (Schedule::cosine_cycles(f64::NAN), "NaN cycles; their number is finite and not below 0"),
            (Schedule::multi_step([1], -0.5), "a gamma of -0.5; it is finite and not below 0"),
            (Schedule::multi_step([2, 1], 0.5), "milestones [2, 1]; they come in rising order"),
            (Schedule::constant().floor(0.5), "a floor of 0.5 for a schedule that does not fall to one"),
            (Schedule::linear().floor(1.5), "a floor of 1.5; it lies between 0 and 1"),
            (Schedule::linear().warmup_steps(1).warmup_from(-1.0), "a warm-up from -1; it starts between 0 and 1"),
            (Schedule::linear().warmup_from(0.5), "a warm-up from 0.5, but of no steps"),
            (Schedule::linear().warmup_ratio(1.5), "a warm-up ratio of 1.5; it lies between 0 and 1"),
        ] {
            let error = schedule.check(100).unwrap_err();
            assert_eq!((error.kind(), error.message()), (ErrorKind::Value, message));
        }
    }
}
