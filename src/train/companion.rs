//! [`Companion`]: what happens around each step besides the optimiser's move.

use crate::{autodiff::Scaled, error::Result, nn::Module, peft::RankAllocator, scalar::Scalar};

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The number of the step, counted from 1.
    pub step: u64,
    /// The number of steps of the whole run.
    pub steps: u64,
}

impl Progress {
    /// Step `step` of `steps`, counted from 1.
    pub fn new(step: u64, steps: u64) -> Self {
        Self { step, steps }
    }
}

/// Something that looks at every step of a run and may change the model after it: a budget of ranks that goes down
/// ([`RankAllocator`]), a moving average of weights, parameters that are kept in a range.
/// [`Trainer::fit_along`](super::Trainer::fit_along) takes one.
///
/// Two rules keep what a [`Trainer`](super::Trainer) promises. What has to outlive a step is in the model, in
/// [buffers](crate::nn::Buffer): then it is in checkpoints, and a run that is resumed goes on bit for bit. And the model
/// is changed in [`after_step`](Companion::after_step) alone: a step that fails before changes nothing.
///
/// `()` does nothing, and so does `None`.
///
/// ```
/// use tenfold::{
///     Result, Tensor,
///     nn::{Linear, Module},
///     train::{Companion, Progress, Rows, Scores, Sgd, Trainer},
/// };
/// use std::ops::ControlFlow;
///
/// /// Keeps every weight at or above 0.
/// struct NotNegative;
///
/// impl<M: Module<f64>> Companion<f64, M> for NotNegative {
///     fn identity(&self) -> String {
///         "not negative".into()
///     }
///
///     fn after_step(&mut self, model: &mut M, _at: Progress) -> Result<()> {
///         for (_, parameter) in model.parameters_mut() {
///             let value = parameter.value().map(|x| x.max(0.0))?;
///             parameter.set(value)?;
///         }
///         Ok(())
///     }
/// }
///
/// let data = Rows::new(&Tensor::<f64, _>::ones([4, 2])?, &Tensor::from_vec([4, 1], vec![-1.0; 4])?)?;
/// let mut model = Linear::<f64>::zeros(2, 1)?;
/// Trainer::new(Sgd::new(0.1)).epochs(3).batch_size(2).fit_along(
///     &mut model,
///     &data,
///     |model, (x, y), mode| model.forward(&x.into(), mode)?.mse_loss(&y.into()),
///     |_| Ok(Scores::new()),
///     |_| ControlFlow::Continue(()),
///     &mut NotNegative,
/// )?;
/// assert_eq!(model.parameters()[0].1.value().to_vec()?, [0.0, 0.0]);
/// # Ok::<(), tenfold::Error>(())
/// ```
pub trait Companion<T: Scalar, M: Module<T>> {
    /// Its settings, as JSON or as any other text; empty where there are none. A run is resumed only with the same.
    fn identity(&self) -> String {
        String::new()
    }

    /// Looks at the model and the number of steps before a run begins.
    ///
    /// # Errors
    /// Whatever makes the run impossible; it ends then before anything happens.
    fn check(&self, _model: &M, _steps: u64) -> Result<()> {
        Ok(())
    }

    /// Sees the gradients of a step, at the weights where they were taken: the mean over the step's batches, before they
    /// are clipped.
    ///
    /// # Errors
    /// The step does not take place then.
    fn before_step(&mut self, _model: &M, _gradients: &Scaled<T>, _at: Progress) -> Result<()> {
        Ok(())
    }

    /// Changes the model after the optimiser has moved it.
    ///
    /// # Errors
    /// The run ends then. Whatever can be known to fail before the step belongs into
    /// [`before_step`](Companion::before_step).
    fn after_step(&mut self, _model: &mut M, _at: Progress) -> Result<()> {
        Ok(())
    }

    /// Whether the model after this step is one that the run may be about: until then no evaluation is the
    /// [best](super::Trainer::best), and none counts for [patience](super::Trainer::patience). A budget that is still
    /// going down says no.
    fn settled(&self, _at: Progress) -> bool {
        true
    }
}

impl<T: Scalar, M: Module<T>> Companion<T, M> for () {}

impl<T: Scalar, M: Module<T>, C: Companion<T, M>> Companion<T, M> for Option<C> {
    fn identity(&self) -> String {
        self.as_ref().map_or(String::new(), Companion::identity)
    }

    fn check(&self, model: &M, steps: u64) -> Result<()> {
        self.as_ref().map_or(Ok(()), |companion| companion.check(model, steps))
    }

    fn before_step(&mut self, model: &M, gradients: &Scaled<T>, at: Progress) -> Result<()> {
        self.as_mut().map_or(Ok(()), |companion| companion.before_step(model, gradients, at))
    }

    fn after_step(&mut self, model: &mut M, at: Progress) -> Result<()> {
        self.as_mut().map_or(Ok(()), |companion| companion.after_step(model, at))
    }

    fn settled(&self, at: Progress) -> bool {
        self.as_ref().is_none_or(|companion| companion.settled(at))
    }
}

impl<T: Scalar, M: Module<T>> Companion<T, M> for RankAllocator<T> {
    fn identity(&self) -> String {
        RankAllocator::identity(self)
    }

    fn check(&self, model: &M, steps: u64) -> Result<()> {
        RankAllocator::check(self, model, steps)
    }

    fn before_step(&mut self, model: &M, gradients: &Scaled<T>, at: Progress) -> Result<()> {
        RankAllocator::before_step(self, model, gradients, at.step, at.steps)
    }

    fn after_step(&mut self, model: &mut M, at: Progress) -> Result<()> {
        RankAllocator::after_step(self, model, at.step, at.steps)
    }

    fn settled(&self, at: Progress) -> bool {
        RankAllocator::settled(self, at.step, at.steps)
    }
}
