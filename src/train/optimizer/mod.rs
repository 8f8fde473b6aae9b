//! [`Optimizer`]: from gradients to new parameters.
//!
//! | file | what |
//! |---|---|
//! | `rule.rs` | [`Rule`]: which rule it follows |
//! | `sgd.rs`, `adam.rs` | [`Sgd`]; [`Adam`] and [`AdamW`] |
//! | `state.rs` | what it remembers, into a file and back |

mod adam;
mod rule;
mod sgd;
mod state;

pub use adam::{Adam, AdamW};
pub use rule::Rule;
pub use sgd::Sgd;

use super::{Groups, Setting, Settings};
use crate::{
    autodiff::{Scaled, gradients::norm},
    device::optimizer::{self, Limit, Slot, shorter},
    error::{Error, ErrorKind, Result},
    nn::{Module, Parameter},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Ix1, IxDyn};
use std::collections::{HashMap, HashSet};

const NEW: &str = "Optimizer::new";
const STEP: &str = "Optimizer::step";

/// Moves the parameters of a model along their gradients, by a [`Rule`].
///
/// What the rule remembers of a parameter belongs to the parameter's name, so it can be saved and read again
/// ([`save_into`](Optimizer::save_into), [`load_from`](Optimizer::load_from)).
///
/// **Cost** of a step: the gradients are read once for their norm, and then parameters, gradients and moments are visited once, at the
/// speed of memory: with AdamW, per number, eight reads and writes. **Memory**: the moments, as the rule says.
///
/// ```
/// use tenfold::{Tensor, nn::{Module, Parameter}, train::{Groups, Optimizer, Sgd}};
///
/// // The least of (w - 3)^2.
/// let mut w = Parameter::new(Tensor::<f64, _>::zeros([1])?);
/// let mut optimizer = Optimizer::new(Sgd::new(0.1).momentum(0.5), &Groups::new(), &w)?;
/// for _ in 0..100 {
///     let loss = w.var().shift(-3.0)?.square()?.sum()?;
///     optimizer.step(&mut w, loss.backward()?, 1.0, None)?;
/// }
/// assert!((w.value().get(&[0])? - 3.0).abs() < 1e-9);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Optimizer<T: Scalar> {
    rule: Rule,
    /// In the order in which the model names them.
    states: Vec<State<T>>,
    allow_missing: bool,
}

/// What an optimiser knows of a parameter.
#[derive(Debug, Clone)]
struct State<T: Scalar> {
    setting: Setting,
    /// How many steps it has moved.
    count: u64,
    /// As [`Rule::moments`] names them.
    moments: Vec<Tensor<T, IxDyn>>,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// The Euclidean norm of all gradients together, after the factor that they came with, before clipping.
    pub gradient_norm: f64,
    /// Whether they were made shorter.
    pub clipped: bool,
}

/// A parameter that moves, with the gradient that it moves along.
struct Moving<'m, T: Scalar> {
    name: String,
    parameter: &'m mut Parameter<T>,
    gradient: Tensor<T, IxDyn>,
}

impl<T: Scalar> Optimizer<T> {
    /// An optimiser of the parameters of `model` that train. Its moments are zeros where the parameters are.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where no parameter trains, where two have the same name or are clones of one another (a step would part
    /// them: share the module instead), where a number of the rule is outside its range, and those of [`Groups`].
    pub fn new<M: Module<T> + ?Sized>(rule: impl Into<Rule>, groups: &Groups, model: &M) -> Result<Self> {
        let rule = rule.into();
        rule.check()?;
        let parameters: Vec<_> = model.parameters().into_iter().filter(|(_, parameter)| parameter.trains()).collect();
        if parameters.is_empty() {
            let message = "no parameter of the model trains; unfreeze some, or attach an adapter";
            return Err(Error::new(ErrorKind::Value, NEW, message));
        }
        check_distinct(&parameters)?;
        let shapes: Vec<_> = parameters.iter().map(|(name, parameter)| (name.as_str(), parameter.shape())).collect();
        let settings = groups.settings(&rule, &shapes)?.parameters;
        let state = |(setting, (_, parameter)): (Setting, &(String, &Parameter<T>))| {
            let zeros = |_: &&str| Tensor::zeros(parameter.shape())?.to_device(parameter.var().device());
            let moments = rule.moments().iter().map(zeros).collect::<Result<_>>()?;
            Ok(State { setting, count: 0, moments })
        };
        let states = settings.into_iter().zip(&parameters).map(state).collect::<Result<_>>()?;
        Ok(Self { rule, states, allow_missing: false })
    }

    /// Lets parameters train that receive no gradient; a step passes them by, decay included.
    pub fn allow_missing(self) -> Self {
        Self { allow_missing: true, ..self }
    }

    /// The rule.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// Which parameter has which rate and decay.
    pub fn settings(&self) -> Settings {
        Settings { parameters: self.states.iter().map(|state| state.setting.clone()).collect() }
    }

    /// Moves every parameter that trains one step along its gradient.
    ///
    /// - `gradients`: of one pass, or of several ([`accumulate`](crate::autodiff::Gradients::accumulate)), with a factor
    ///   ([`scaled`](crate::autodiff::Gradients::scaled)) for their mean.
    /// - `factor`: multiplies every rate in this step; what a [`Schedule`](super::Schedule) says.
    /// - `clip`: the largest norm that all gradients together may have; longer ones are made so short, as by
    ///   `torch.nn.utils.clip_grad_norm_`, which multiplies by clip / (norm + 1e-6).
    ///
    /// Parameters are changed where they lie, unless something else holds their tensor: then they get memory of their own first.
    /// One that has been frozen since the optimiser was made stays as it is.
    ///
    /// ```
    /// use tenfold::{Tensor, nn::Parameter, train::{Groups, Optimizer, Sgd}};
    ///
    /// let mut w = Parameter::new(Tensor::<f64, _>::zeros([2])?);
    /// let mut optimizer = Optimizer::new(Sgd::new(1.0), &Groups::new(), &w)?;
    /// let pass = |w: &Parameter<f64>, x: f64| w.var().shift(x)?.square()?.sum()?.backward();
    ///
    /// // The mean of two passes, of norm 10 sqrt(2), clipped to 1.
    /// let mut gradients = pass(&w, -2.0)?;
    /// gradients.accumulate(pass(&w, -8.0)?)?;
    /// let step = optimizer.step(&mut w, gradients.scaled(0.5), 1.0, Some(1.0))?;
    /// assert!((step.gradient_norm - 200.0f64.sqrt()).abs() < 1e-12 && step.clipped);
    /// assert!((w.value().norm()? - 1.0).abs() < 1e-6);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Value`] naming the parameters that train but received no gradient, unless they [may](Optimizer::allow_missing); naming
    /// one whose gradient is not finite, or that trains and did not when the optimiser was made; where `factor` or `clip` is no
    /// number that makes sense; [`ErrorKind::Shape`] where a parameter has another shape than it had. No parameter has moved then.
    pub fn step<M: Module<T> + ?Sized>(
        &mut self,
        model: &mut M,
        gradients: impl Into<Scaled<T>>,
        factor: f64,
        clip: Option<f64>,
    ) -> Result<Step> {
        self.step_with(model, gradients.into(), factor, clip, &[]).map(|(step, _)| step)
    }

    /// The same for gradients of these losses, of one entry each, and the sum of the losses. Where one of them is not finite no parameter has
    /// moved; where all are on a GPU the host waits once, when the step is queued.
    pub(in crate::train) fn step_with<M: Module<T> + ?Sized>(
        &mut self,
        model: &mut M,
        gradients: Scaled<T>,
        factor: f64,
        clip: Option<f64>,
        losses: &[Tensor<T, IxDyn>],
    ) -> Result<(Step, f64)> {
        check_numbers(gradients.factor, factor, clip)?;
        let (rule, scale) = (self.rule, gradients.factor);
        let losses = match losses {
            [] => None,
            losses => {
                let each = losses.iter().map(|loss| loss.reshaped::<Ix1>(&[1])).collect::<Result<Vec<_>>>()?;
                Some(Tensor::concat(&each.iter().collect::<Vec<_>>(), 0)?)
            }
        };
        let mut moving = self.moving(model, gradients)?;
        let limit = Limit { scale, most: clip, losses: losses.as_ref().map(Tensor::flat) };
        let rates = (rule, factor);
        let mut judged = optimizer::step_within(slots(rates, scale, &mut self.states, &mut moving)?, &limit)?;
        if !judged.moved && judged.losses.is_finite() {
            // All zeros, or squares out of range.
            judged.norm = norm(moving.iter().map(|moving| &moving.gradient))? * scale.abs();
            if !judged.norm.is_finite() {
                return Err(not_finite(&moving, judged.norm));
            }
            judged.shorter = shorter(clip, judged.norm);
            optimizer::step(slots(rates, scale * judged.shorter, &mut self.states, &mut moving)?)?;
        }
        if judged.losses.is_finite() {
            let moved: HashSet<&str> = moving.iter().map(|moving| moving.name.as_str()).collect();
            let states = self.states.iter_mut().filter(|state| moved.contains(state.setting.name.as_str()));
            states.for_each(|state| state.count += 1);
        }
        Ok((Step { gradient_norm: judged.norm, clipped: judged.shorter < 1.0 }, judged.losses))
    }

    /// The parameters that train and have a gradient, each with its own.
    fn moving<'m, M: Module<T> + ?Sized>(&self, model: &'m mut M, gradients: Scaled<T>) -> Result<Vec<Moving<'m, T>>> {
        let mut gradients = gradients.gradients;
        if !self.allow_missing {
            model.gradient_report(&gradients).check()?;
        }
        let shapes: HashMap<&str, &[usize]> =
            self.states.iter().map(|state| (state.setting.name.as_str(), state.setting.shape.as_slice())).collect();
        let mut moving = Vec::new();
        for (name, parameter) in model.parameters_mut() {
            let Some(gradient) = gradients.take(parameter.var()) else { continue };
            match shapes.get(name.as_str()) {
                None => {
                    let message = format!("{name:?} trains and did not when the optimiser was made; make another");
                    return Err(Error::new(ErrorKind::Value, STEP, message));
                }
                Some(&shape) if shape != parameter.shape() => {
                    let now = parameter.shape();
                    let message = format!("{name:?} has shape {now:?}, and had {shape:?} when the optimiser was made");
                    return Err(Error::shape(STEP, message));
                }
                Some(_) => moving.push(Moving { gradient: gradient.to_contiguous()?, name, parameter }),
            }
        }
        Ok(moving)
    }
}

/// What the rule, with a factor on its rates, does to these parameters along their gradients times `scale`. Paired here, so that parameters,
/// gradients and moments are borrowed all at once.
fn slots<'s, T: Scalar>(
    (rule, factor): (Rule, f64),
    scale: f64,
    states: &'s mut [State<T>],
    moving: &'s mut [Moving<'_, T>],
) -> Result<Vec<Slot<'s, T>>> {
    let states = states.iter_mut().map(|State { setting, count, moments }| {
        let setting: &Setting = setting;
        (setting.name.as_str(), (setting, *count, moments))
    });
    let mut states: HashMap<&str, _> = states.collect();
    let mut slots = Vec::with_capacity(moving.len());
    for moving in moving {
        let Some((setting, count, moments)) = states.remove(moving.name.as_str()) else { continue };
        slots.push(Slot {
            update: rule.update(setting.rate * factor, setting.decay, scale, count + 1),
            parameter: moving.parameter.value_mut().flat_mut()?,
            gradient: moving.gradient.flat(),
            moments: moments.iter_mut().map(Tensor::flat_mut).collect::<Result<_>>()?,
        });
    }
    Ok(slots)
}

/// An error where two parameters cannot be told apart.
fn check_distinct<T: Scalar>(parameters: &[(String, &Parameter<T>)]) -> Result<()> {
    let (mut names, mut leaves) = (HashSet::new(), HashMap::new());
    for (name, parameter) in parameters {
        if !names.insert(name) {
            return Err(Error::new(
                ErrorKind::Value,
                NEW,
                format!("the model has two parameters of the name {name:?}"),
            ));
        }
        if let Some(other) = leaves.insert(parameter.var().number(), name) {
            let message = format!(
                "{other:?} and {name:?} are clones of one parameter, and a step would part them; \
                 let the model name it once and use it twice"
            );
            return Err(Error::new(ErrorKind::Value, NEW, message));
        }
    }
    Ok(())
}

fn check_numbers(scale: f64, factor: f64, clip: Option<f64>) -> Result<()> {
    let message = match clip {
        _ if !scale.is_finite() => format!("gradients scaled by {scale}; the factor has to be finite"),
        _ if !factor.is_finite() || factor < 0.0 => {
            format!("a factor of {factor} on the rates; it has to be finite and not below 0")
        }
        Some(most) if most.is_nan() || most <= 0.0 => {
            format!("gradients clipped to a norm of {most}; it has to be above 0")
        }
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Value, STEP, message))
}

/// The error of gradients with a norm that is not finite.
fn not_finite<T: Scalar>(moving: &[Moving<'_, T>], norm: f64) -> Error {
    let offence = moving.iter().find_map(|moving| Some((&moving.name, moving.gradient.check_finite(STEP).err()?)));
    let message = match offence {
        Some((name, error)) => format!("the gradient of {name:?}: {}", error.message()),
        None => format!("the norm of all gradients is {norm}, beyond what a double holds"),
    };
    Error::new(ErrorKind::Value, STEP, message)
}
