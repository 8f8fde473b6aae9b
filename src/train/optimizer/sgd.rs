//! [`Sgd`]: stochastic gradient descent, with momentum.

use super::rule::{at_least_zero, refused};
use crate::{device::optimizer::Update, error::Result};
use serde::{Deserialize, Serialize};

/// Stochastic gradient descent, as `torch.optim.SGD`.
///
/// With rate $\eta$, decay $\lambda$, momentum $\mu$ and dampening $\tau$, the step from $p_{t-1}$ with the gradient $g_t$ is
///
/// $$ g_t \leftarrow g_t + \lambda p_{t-1}, \qquad b_t = \mu b_{t-1} + (1 - \tau) g_t, \qquad p_t = p_{t-1} - \eta b_t, $$
///
/// where $b_1 = g_1$ without dampening. Without momentum $b_t = g_t$; Nesterov's way goes along $g_t + \mu b_t$ instead of $b_t$.
///
/// **Memory**: one number for each that trains; none without momentum.
///
/// **Reference**: Sutskever, Martens, Dahl, Hinton, *On the importance of initialization and momentum in deep learning*, ICML 2013.
///
/// ```
/// use tenfold::train::Sgd;
///
/// let rule = Sgd::new(0.1).momentum(0.9).nesterov().weight_decay(5e-4);
/// assert_eq!(serde_json::from_str::<Sgd>(&serde_json::to_string(&rule).unwrap()).unwrap(), rule);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sgd {
    rate: f64,
    momentum: f64,
    dampening: f64,
    nesterov: bool,
    weight_decay: f64,
}

impl Sgd {
    /// Plain descent at a rate.
    pub fn new(rate: f64) -> Self {
        Self { rate, momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 }
    }

    /// How much of the last direction stays, at least 0; 0 by default.
    pub fn momentum(self, momentum: f64) -> Self {
        Self { momentum, ..self }
    }

    /// How much of a gradient is left out of the momentum, from the second step on; 0 by default.
    pub fn dampening(self, dampening: f64) -> Self {
        Self { dampening, ..self }
    }

    /// Nesterov's momentum. It needs a momentum, and no dampening.
    pub fn nesterov(self) -> Self {
        Self { nesterov: true, ..self }
    }

    /// What is added to the gradient of a parameter, times the parameter; 0 by default. [`Groups`](crate::train::Groups) may say otherwise.
    pub fn weight_decay(self, weight_decay: f64) -> Self {
        Self { weight_decay, ..self }
    }

    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    pub(super) fn decay(&self) -> f64 {
        self.weight_decay
    }

    pub(super) fn check(&self) -> Result<()> {
        at_least_zero("Sgd", [("rate", self.rate), ("momentum", self.momentum), ("weight decay", self.weight_decay)])?;
        if !self.dampening.is_finite() {
            return Err(refused("Sgd", format!("a dampening of {}; it is a finite number, mostly 0", self.dampening)));
        }
        if self.nesterov && (self.momentum == 0.0 || self.dampening != 0.0) {
            let (momentum, dampening) = (self.momentum, self.dampening);
            let message = format!(
                "Nesterov's momentum needs a momentum above 0 and no dampening; they are {momentum} and {dampening}"
            );
            return Err(refused("Sgd", message));
        }
        Ok(())
    }

    pub(super) fn moments(&self) -> &'static [&'static str] {
        if self.momentum == 0.0 { &[] } else { &["momentum_buffer"] }
    }

    /// What step number `count`, from 1 on, does to a parameter.
    pub(super) fn update(&self, rate: f64, decay: f64, scale: f64, count: u64) -> Update {
        let &Self { momentum, dampening, nesterov, .. } = self;
        match momentum {
            0.0 => Update::Descent { scale, decay, rate },
            _ => {
                let blend = if count == 1 { 1.0 } else { 1.0 - dampening };
                Update::Momentum { scale, decay, rate, momentum, blend, nesterov }
            }
        }
    }
}
