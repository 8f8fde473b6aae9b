//! [`Adam`] and [`AdamW`]: a rate for each number, from the moments of its gradient.

use super::rule::{at_least_zero, refused};
use crate::{
    device::optimizer::{self, Update},
    error::Result,
};
use serde::{Deserialize, Serialize};

/// The two differ in what weight decay is.
macro_rules! adam {
    ($(#[$page:meta])* $name:ident, $decay:literal, decoupled: $decoupled:literal, $(#[$decay_page:meta])*) => {
        $(#[$page])*
        #[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            rate: f64,
            betas: [f64; 2],
            eps: f64,
            weight_decay: f64,
            amsgrad: bool,
        }

        impl $name {
            /// The rule at a rate, with PyTorch's defaults.
            pub fn new(rate: f64) -> Self {
                Self { rate, betas: [0.9, 0.999], eps: 1e-8, weight_decay: $decay, amsgrad: false }
            }

            /// How much of the first and of the second moment stays at each step, from 0 up to but not 1; 0.9 and 0.999 by default.
            pub fn betas(self, first: f64, second: f64) -> Self {
                Self { betas: [first, second], ..self }
            }

            /// What is added to the root of the second moment, so that none is too small to divide by; 1e-8 by default.
            pub fn eps(self, eps: f64) -> Self {
                Self { eps, ..self }
            }

            $(#[$decay_page])*
            /// [`Groups`](crate::train::Groups) may say otherwise.
            pub fn weight_decay(self, weight_decay: f64) -> Self {
                Self { weight_decay, ..self }
            }

            /// Divides by the root of the largest second moment so far (Reddi, Kale, Kumar, *On the convergence of Adam and beyond*,
            /// ICLR 2018). One more number for each that trains.
            pub fn amsgrad(self) -> Self {
                Self { amsgrad: true, ..self }
            }

            pub(super) fn rate(&self) -> f64 {
                self.rate
            }

            pub(super) fn decay(&self) -> f64 {
                self.weight_decay
            }

            pub(super) fn check(&self) -> Result<()> {
                let name = stringify!($name);
                at_least_zero(name, [("rate", self.rate), ("eps", self.eps), ("weight decay", self.weight_decay)])?;
                match self.betas.iter().find(|beta| !(0.0..1.0).contains(*beta)) {
                    Some(beta) => Err(refused(name, format!("a beta of {beta}; betas are at least 0 and below 1"))),
                    None => Ok(()),
                }
            }

            pub(super) fn moments(&self) -> &'static [&'static str] {
                let names = &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];
                if self.amsgrad { names } else { &names[..2] }
            }

            /// What step number `count`, from 1 on, does to a parameter.
            pub(super) fn update(&self, rate: f64, decay: f64, scale: f64, count: u64) -> Update {
                let [first, second] = self.betas.map(|beta| 1.0 - beta.powf(count as f64));
                let (decay, keep) = if $decoupled { (0.0, 1.0 - rate * decay) } else { (decay, 1.0) };
                let (rate, root) = (rate / first, second.sqrt());
                Update::Adam(optimizer::Adam { scale, decay, keep, betas: self.betas, rate, root, eps: self.eps })
            }
        }
    };
}

adam!(
    /// Adam, as `torch.optim.Adam`: decay is part of the gradient.
    ///
    /// With rate $\eta$, decay $\lambda$, and the gradient $g_t$ at $p_{t-1}$,
    ///
    /// $$ g_t \leftarrow g_t + \lambda p_{t-1}, \qquad m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad
    /// v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, $$
    ///
    /// $$ p_t = p_{t-1} - \frac{\eta}{1 - \beta_1^t} \frac{m_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}. $$
    ///
    /// **Memory**: two numbers for each that trains.
    ///
    /// **Reference**: Kingma, Ba, *Adam: a method for stochastic optimization*, ICLR 2015.
    ///
    /// ```
    /// use tenfold::train::Adam;
    ///
    /// let rule = Adam::new(1e-3).betas(0.9, 0.98).eps(1e-6).weight_decay(1e-4).amsgrad();
    /// assert_eq!(serde_json::from_str::<Adam>(&serde_json::to_string(&rule).unwrap()).unwrap(), rule);
    /// ```
    Adam, 0.0, decoupled: false,
    /// What is added to the gradient of a parameter, times the parameter; 0 by default.
);

adam!(
    /// Adam with decoupled weight decay, as `torch.optim.AdamW`.
    ///
    /// [`Adam`] without decay, but for parameters that shrink by themselves first: with rate $\eta$ and decay $\lambda$,
    ///
    /// $$ p_t = (1 - \eta \lambda) p_{t-1} - \frac{\eta}{1 - \beta_1^t} \frac{m_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}. $$
    ///
    /// **Memory**: two numbers for each that trains.
    ///
    /// **Reference**: Loshchilov, Hutter, *Decoupled weight decay regularization*, ICLR 2019.
    ///
    /// ```
    /// use tenfold::train::AdamW;
    ///
    /// let rule = AdamW::new(1e-3).betas(0.9, 0.999).eps(1e-8).weight_decay(0.05);
    /// assert_eq!(serde_json::from_str::<AdamW>(&serde_json::to_string(&rule).unwrap()).unwrap(), rule);
    /// ```
    AdamW, 0.01, decoupled: true,
    /// What a parameter loses of itself at each step, times the rate; 0.01 by default.
);
