//! [`AdaLora`]: low-rank updates that share a budget of ranks, which goes to the layers where it matters.
//!
//! | file | what |
//! |---|---|
//! | `adapter.rs` | [`AdaLoraAdapter`]: an update, and what is remembered about it |
//! | `importance.rs` | how much an entry matters, smoothed over steps |
//! | `budget.rs` | how many triplets there may be at which step |
//! | `allocator.rs` | [`RankAllocator`]: which triplets those are |
//! | `penalty.rs` | [`orthogonality`]: the distance of the factors from orthonormal ones |

mod adapter;
mod allocator;
mod budget;
mod importance;
mod penalty;

pub use adapter::AdaLoraAdapter;
pub use allocator::{RankAllocator, ranks_left};
pub use budget::Phase;
pub use penalty::orthogonality;

use super::{
    lora::{Lora, LoraForm, Shapes},
    method::{Method, Outline, Start},
    path::Path,
    scaling::Scaling,
    site::Site,
};
use crate::{
    autodiff::Var,
    error::{Error, ErrorKind, Result},
    nn::{Init, Module, Operation, WeightAdapter},
    scalar::Scalar,
};
use budget::Budget;
use serde::{Deserialize, Serialize};

const NAME: &str = "adalora";

/// What the rank is raised by before a constant is divided by it, in PEFT: there a layer may have none left.
pub(super) const RAISED: f64 = 1e-5;

/// AdaLoRA: the update in the form of a singular value decomposition, whose ranks come out of a budget for the whole
/// model.
///
/// $$ W = W_0 + s\thinspace P\thinspace \operatorname{diag}(\lambda)\thinspace Q, \qquad P : m \times r, \quad Q : r \times n, $$
///
/// with $r (m + n + 1)$ parameters at the start, for a weight seen as a matrix as [`Lora`] sees it in the form
/// [`Channels`](LoraForm::Channels). $P$ is `lora_B`, $\lambda$ is `lora_E`, $Q$ is `lora_A`. $\lambda$ starts as zero, so
/// that the model starts at its own weights; $P$ and $Q$ are normal with standard deviation 0.02.
///
/// Training begins with a rank above the target, the same for all layers. A column of $P$, its entry of $\lambda$ and a
/// row of $Q$ are a *triplet*; after each step a [`RankAllocator`] looks at how much every triplet matters, and sets
/// $\lambda$ to zero for those that are beyond the budget, wherever they are. The budget goes down from all triplets to the
/// target rank times the number of layers. What the method needs besides:
///
/// 1. **the allocator**, from [`allocator`](AdaLora::allocator): a [`Companion`](crate::train::Companion) of
///    [`Trainer::fit_along`](crate::train::Trainer::fit_along), or called by hand;
/// 2. **the penalty** that keeps $P$ and $Q$ near orthonormal, from [`penalty`](AdaLora::penalty), added to the loss.
///
/// $\lambda_i$ is one number, which an optimiser such as AdamW moves by about its rate a step, however large the matrices are: short runs want a larger
/// scale than LoRA does.
///
/// Without the allocator it is a LoRA with a factor in the middle. A triplet that was pruned stays in memory; files
/// leave it out ([`save`](super::save)), and so what is [loaded](super::load) is as small as it became.
///
/// The phases of a run of `n` steps: `t_i` steps of [warm-up](AdaLora::warmup) with the whole budget, then a decrease by
/// a cubic law, and `t_f` steps at the end in which the choice [stays](AdaLora::settle) as it is. By default a tenth and a half of all steps,
/// which is about what the authors took for GLUE.
///
/// Q. Zhang et al., *Adaptive budget allocation for parameter-efficient fine-tuning*, ICLR 2023
/// ([arXiv:2303.10512](https://arxiv.org/abs/2303.10512)); in its details that of Hugging Face's PEFT.
///
/// ```
/// use ndarray::array;
/// use std::ops::ControlFlow;
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{
///     Tensor,
///     nn::Linear,
///     peft::{self, AdaLora, Targets},
///     train::{AdamW, Rows, Scores, Trainer},
/// };
///
/// let rng = &mut ChaCha8Rng::seed_from_u64(1);
/// let mut layers = vec![Linear::<f32>::new(4, 6, rng)?, Linear::new(6, 3, rng)?];
/// let adalora = AdaLora::new(1).initial_rank(3).alpha(6.0);
/// let plan = peft::attach(&mut layers, &adalora, &Targets::all())?;
/// assert_eq!(plan.parameters(), 3 * (4 + 6 + 1) + 3 * (6 + 3 + 1));
///
/// let data = Rows::new(&Tensor::normal([32, 4], rng)?, &Tensor::normal([32, 3], rng)?)?;
/// let mut allocator = adalora.allocator()?;
/// Trainer::new(AdamW::new(0.01)).epochs(5).batch_size(8).fit_along(
///     &mut layers,
///     &data,
///     |layers, (x, y), mode| {
///         let h = layers[0].forward(&x.into(), mode)?.gelu()?;
///         let loss = layers[1].forward(&h, mode)?.mse_loss(&y.into())?;
///         match adalora.penalty(layers)? {
///             Some(penalty) => loss.add(&penalty),
///             None => Ok(loss),
///         }
///     },
///     |_| Ok(Scores::new()),
///     |_| ControlFlow::Continue(()),
///     &mut allocator,
/// )?;
/// // One triplet a layer is left on the average: two, wherever they matter most.
/// let left: usize = peft::ranks_left(&layers)?.iter().map(|(_, rank)| rank).sum();
/// assert_eq!(left, 2);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdaLora {
    target: usize,
    initial: usize,
    scaling: Scaling,
    dropout: f64,
    path: Path,
    warmup: Phase,
    settle: Phase,
    every: u64,
    beta1: f64,
    beta2: f64,
    orthogonality: f64,
}

impl AdaLora {
    /// Down to this rank on the average over layers, from one and a half times as much; with scale 1 and without
    /// dropout.
    pub fn new(target_rank: usize) -> Self {
        Self {
            target: target_rank,
            initial: target_rank.saturating_mul(3).div_ceil(2),
            scaling: Scaling::Constant(1.0),
            dropout: 0.0,
            path: Path::Auto,
            warmup: Phase::Ratio(0.1),
            settle: Phase::Ratio(0.5),
            every: 1,
            beta1: 0.85,
            beta2: 0.85,
            orthogonality: 0.5,
        }
    }

    /// The rank that every layer begins with.
    pub fn initial_rank(self, rank: usize) -> Self {
        Self { initial: rank, ..self }
    }

    /// Scale $\alpha / (r + 10^{-5})$ with the initial rank $r$, as in PEFT. It stays the same when triplets are pruned.
    pub fn alpha(self, alpha: f64) -> Self {
        self.scaling(Scaling::Rank { alpha })
    }

    /// The scale. Where it depends on the rank, that is the initial one.
    pub fn scaling(self, scaling: Scaling) -> Self {
        Self { scaling, ..self }
    }

    /// Drops entries of the adapter's input with this probability while training.
    pub fn dropout(self, probability: f64) -> Self {
        Self { dropout: probability, ..self }
    }

    /// How the update gets into the result; the cheaper way unless it is said here.
    pub fn path(self, path: Path) -> Self {
        Self { path, ..self }
    }

    /// Keeps the whole budget for so many steps (PEFT's `tinit`).
    pub fn warmup(self, steps: u64) -> Self {
        Self { warmup: Phase::Steps(steps), ..self }
    }

    /// Keeps the whole budget for this part of all steps; 0.1 unless it is said.
    pub fn warmup_ratio(self, ratio: f64) -> Self {
        Self { warmup: Phase::Ratio(ratio), ..self }
    }

    /// Keeps the final choice for so many steps at the end (PEFT's `tfinal`).
    pub fn settle(self, steps: u64) -> Self {
        Self { settle: Phase::Steps(steps), ..self }
    }

    /// Keeps the final choice for this part of all steps; 0.5 unless it is said.
    pub fn settle_ratio(self, ratio: f64) -> Self {
        Self { settle: Phase::Ratio(ratio), ..self }
    }

    /// Other phases, where they are said.
    pub(super) fn phases(self, warmup: Option<Phase>, settle: Option<Phase>) -> Self {
        Self { warmup: warmup.unwrap_or(self.warmup), settle: settle.unwrap_or(self.settle), ..self }
    }

    /// Chooses triplets at every so many steps only (PEFT's `deltaT`). In between, those that were pruned move again.
    pub fn every(self, steps: u64) -> Self {
        Self { every: steps, ..self }
    }

    /// How slowly the importance of an entry follows that of the last step, from 0 to below 1.
    pub fn beta1(self, beta1: f64) -> Self {
        Self { beta1, ..self }
    }

    /// How slowly the uncertainty of an importance does.
    pub fn beta2(self, beta2: f64) -> Self {
        Self { beta2, ..self }
    }

    /// The weight of the [penalty](AdaLora::penalty).
    pub fn orthogonality(self, weight: f64) -> Self {
        Self { orthogonality: weight, ..self }
    }

    /// What prunes triplets in the course of a run.
    ///
    /// # Errors
    /// [`ErrorKind::Rank`] for a target rank of 0 or above the initial one; [`ErrorKind::Value`] for other numbers that
    /// make no sense. Whether the phases fit the run is found where its number of steps is known.
    pub fn allocator<T: Scalar>(&self) -> Result<RankAllocator<T>> {
        self.check()?;
        Ok(RankAllocator::new(self.clone()))
    }

    /// The term that is added to the loss: [`orthogonality`] of the model's adapters that train, times its weight. `None` where there are
    /// no such adapters, or the weight is 0.
    ///
    /// # Errors
    /// As [`orthogonality`], and [`ErrorKind::Value`] for a weight that is negative or not finite.
    pub fn penalty<T: Scalar>(&self, model: &(impl Module<T> + ?Sized)) -> Result<Option<Var<T>>> {
        self.check()?;
        if self.orthogonality == 0.0 {
            return Ok(None);
        }
        orthogonality(model)?.map(|distance| distance.scale(T::of(self.orthogonality))).transpose()
    }

    /// All numbers that can be judged without a layer and without a run.
    fn check(&self) -> Result<()> {
        let wrong = |kind, message: String| Err(Error::new(kind, NAME, message));
        let (target, initial) = (self.target, self.initial);
        if target == 0 || target > initial {
            let message = format!(
                "a target rank of {target} and an initial rank of {initial}; needs a target of 1 to the initial rank"
            );
            return wrong(ErrorKind::Rank, message);
        }
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return wrong(ErrorKind::Value, format!("{name} is {beta}; needs 0 to below 1"));
            }
        }
        if !(self.orthogonality >= 0.0 && self.orthogonality.is_finite()) {
            let message = format!("a penalty of weight {}; needs a finite number, 0 or more", self.orthogonality);
            return wrong(ErrorKind::Value, message);
        }
        if self.every == 0 {
            return wrong(ErrorKind::Value, "triplets chosen at every 0 steps; needs 1 or more".into());
        }
        [("warm-up", self.warmup), ("end", self.settle)].into_iter().try_for_each(|(name, phase)| phase.check(name))
    }

    /// The budget in a run of so many steps.
    fn budget(&self, steps: u64) -> Result<Budget> {
        Budget::new(self.warmup, self.settle, self.every, steps)
    }

    /// The scale of all adapters.
    fn scale(&self) -> f64 {
        match self.scaling {
            Scaling::Rank { alpha } => alpha / (self.initial as f64 + RAISED),
            other => other.of_rank(self.initial),
        }
    }

    /// The product without what is between its factors.
    fn lora(&self) -> Lora {
        Lora::new(self.initial).dropout(self.dropout).path(self.path)
    }
}

impl<T: Scalar> Method<T> for AdaLora {
    fn name(&self) -> &'static str {
        NAME
    }

    fn outline(&self, site: &Site<'_>) -> Result<Outline> {
        self.check()?;
        let lora = Method::<T>::outline(&self.lora(), site)?;
        // Between two factors that are free the values in the middle reach nothing new.
        Ok(Outline { parameters: lora.parameters + self.initial, ..lora })
    }

    fn adapter(&self, site: &Site<'_>, start: &Start<'_, T>) -> Result<Box<dyn WeightAdapter<T>>> {
        self.check()?;
        let shapes = Shapes::new(LoraForm::Channels, site, self.initial)?;
        let rng = &mut start.generator(site);
        let normal = Init::Normal { mean: 0.0, std: 0.02 };
        let mut drawn = |init: Init, shape: &[usize]| init.tensor::<T, _>(shape, rng);
        let (mut a, b) = (drawn(normal, &shapes.a)?, drawn(normal, &shapes.b)?);
        if let Operation::Embedding { padding: Some(row) } = site.operation() {
            // The update of this row stays zero: its column receives no gradient.
            let rows = shapes.a[1];
            a.as_mut_slice()?.iter_mut().skip(row).step_by(rows).for_each(|x| *x = T::zero());
        }
        let e = drawn(Init::Zeros, &[self.initial, 1])?;
        let [a, e, b] = [a, e, b].map(|part| part.to_device(start.weight.device()));
        let adapter = AdaLoraAdapter::new(site, a?, e?, b?, self.scale())?;
        Ok(Box::new(adapter.dropout(self.dropout)?.path(self.path)?))
    }
}
