//! [`WeightAdapter`]: a trainable change of a layer's weight, [`Contribution`]: what one adds to a result, and [`Adapters`]: those that a
//! layer holds.
//!
//! A layer with weight $W_0$ computes $f(x, W_0)$, where $f$ is linear in the weight. An adapter is asked, in this order:
//!
//! 1. [`result`](WeightAdapter::result), where no other adapter is enabled: does it compute the layer's whole result by itself? One that
//!    scales outputs does so without another weight.
//! 2. [`apply`](WeightAdapter::apply): does it give its contribution $f(x, \Delta)$ to the result by itself? A low-rank update of a
//!    linear layer does so with two small products and never forms $\Delta$.
//! 3. Otherwise [`effective`](WeightAdapter::effective): the weight $W_0 + \Delta$ to compute with instead of $W_0$, for updates that are
//!    cheaper that way, and for those that are not additive.
//!
//! Where several are enabled, each changes $W_0$ as if it were alone, and the changes add up: neither their order nor the way that one of them
//! takes decides about the result. What they drop at random is drawn for each by itself, by its place among the enabled ones.

use super::{
    call::Call,
    mode::Mode,
    module::{Module, Visitor, VisitorMut},
};
use crate::{
    autodiff::Var,
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
    tensor::listed,
};
use std::{any::Any, fmt};

/// A trainable change of a layer's weight.
///
/// Its parameters are met by visitors as `LAYER.NAME.PARAMETER`, with the name under which it is attached, unless
/// [`visit_named`](WeightAdapter::visit_named) says otherwise.
///
/// ```
/// use tenfold::{
///     Result, Scalar, Tensor, autodiff::Var, module,
///     nn::{Call, Contribution, Layer, Linear, Mode, Module, Parameter, WeightAdapter},
/// };
///
/// /// delta = B A, of any shape whose first size is B's.
/// #[derive(Debug, Clone)]
/// struct LowRank<T: Scalar> {
///     a: Parameter<T>,
///     b: Parameter<T>,
/// }
/// module!(LowRank { a, b });
///
/// impl<T: Scalar> WeightAdapter<T> for LowRank<T> {
///     fn weight_shape(&self) -> Vec<usize> {
///         vec![self.b.shape()[0], self.a.shape()[1]]
///     }
///     fn delta(&self) -> Result<Var<T>> {
///         self.b.var().matmul(self.a.var())
///     }
///     fn apply(&self, call: &Call<'_, T>, _mode: Mode) -> Result<Option<Contribution<T>>> {
///         match call {
///             // Added to the layer's result where that lies.
///             Call::Linear { x } => Ok(Some(Contribution::product(&x.linear(self.a.var(), None)?, self.b.var()))),
///             _ => Ok(None),
///         }
///     }
/// }
///
/// let mut layer = Linear::<f64>::zeros(3, 2)?;
/// layer.freeze_all();
/// layer.attach("update", LowRank { a: Tensor::ones([1, 3])?.into(), b: Tensor::ones([2, 1])?.into() })?;
/// let x = Var::constant(Tensor::ones([1, 3])?);
/// assert_eq!(layer.forward(&x, Mode::Evaluation)?.value().to_vec()?, [3.0, 3.0]);
/// assert_eq!(layer.effective_weight()?.value().to_vec()?, [1.0; 6]);
/// assert_eq!(layer.parameters()[2].0, "update.a");
///
/// layer.adapters_mut().disable("update")?;
/// assert_eq!(layer.forward(&x, Mode::Evaluation)?.value().to_vec()?, [0.0, 0.0]);
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// As an [`Any`], an adapter from a layer is one's own again: `(adapter as &dyn Any).downcast_ref::<LowRank<f64>>()`.
pub trait WeightAdapter<T: Scalar>: Module<T> + CloneAdapter<T> + Any + fmt::Debug + Send + Sync {
    /// The shape of the weights that it changes.
    fn weight_shape(&self) -> Vec<usize>;

    /// The update as a dense weight.
    ///
    /// # Errors
    /// Those of the operations that make it.
    fn delta(&self) -> Result<Var<T>>;

    /// The weight to compute with in place of `weight`: their sum, unless the method is another.
    ///
    /// # Errors
    /// Those of the operations that make it.
    fn effective(&self, weight: &Var<T>) -> Result<Var<T>> {
        weight.add(&self.delta()?)
    }

    /// What it adds to the layer's result, where it wants to compute that itself; `None` leaves it to
    /// [`effective`](WeightAdapter::effective).
    ///
    /// An adapter that drops entries of its input has to answer here while `mode` trains:
    /// `call.dropout(p, stream, mode)?.run(&self.delta()?, None)?.into()`, where it has no factored form. Of several adapters each is
    /// given a [fork](Mode::fork) of its own, so that they may have the same `stream`.
    ///
    /// # Errors
    /// Those of the operations that make it.
    fn apply(&self, _call: &Call<'_, T>, _mode: Mode) -> Result<Option<Contribution<T>>> {
        Ok(None)
    }

    /// The layer's whole result, where it is the only enabled adapter and has a cheaper way than [`effective`](WeightAdapter::effective) that
    /// is not additive; it has to be the result of that weight.
    ///
    /// # Errors
    /// Those of the operations that make it.
    fn result(
        &self,
        _call: &Call<'_, T>,
        _weight: &Var<T>,
        _bias: Option<&Var<T>>,
        _mode: Mode,
    ) -> Result<Option<Var<T>>> {
        Ok(None)
    }

    /// Visits its parameters under the path of the layer, for names other than `NAME.PARAMETER`; it goes with
    /// [`visit_named_mut`](WeightAdapter::visit_named_mut).
    fn visit_named<'a>(&'a self, name: &str, visitor: &mut Visitor<'_, 'a, T>) {
        visitor.scope(name, |visitor| self.visit(visitor));
    }

    /// As [`visit_named`](WeightAdapter::visit_named), with the same names.
    fn visit_named_mut<'a>(&'a mut self, name: &str, visitor: &mut VisitorMut<'_, 'a, T>) {
        visitor.scope(name, |visitor| self.visit_mut(visitor));
    }
}

/// What an adapter adds to a layer's result.
#[derive(Debug, Clone)]
pub enum Contribution<T: Scalar> {
    /// A variable of the result's shape.
    Sum(Var<T>),
    /// $X W^T$, as [`Var::linear`] has it, whose product is added where the result lies: the last step of a low-rank update.
    Product {
        /// `[.., rank]`
        x: Var<T>,
        /// `[out, rank]`
        weight: Var<T>,
    },
}

impl<T: Scalar> Contribution<T> {
    /// $X W^T$ with x `[.., rank]` and W `[out, rank]`.
    pub fn product(x: &Var<T>, weight: &Var<T>) -> Self {
        Self::Product { x: x.clone(), weight: weight.clone() }
    }

    /// By itself.
    ///
    /// # Errors
    /// Those of [`Var::linear`].
    pub fn value(self) -> Result<Var<T>> {
        match self {
            Self::Sum(y) => Ok(y),
            Self::Product { x, weight } => x.linear(&weight, None),
        }
    }

    /// The shape that it has by itself.
    fn shape(&self) -> Vec<usize> {
        match self {
            Self::Sum(y) => y.shape().to_vec(),
            Self::Product { x, weight } => {
                let lead = &x.shape()[..x.order().saturating_sub(1)];
                [lead, weight.shape().get(..1).unwrap_or_default()].concat()
            }
        }
    }

    /// Added to y, whose memory a product takes over where nothing else holds it.
    ///
    /// # Errors
    /// Those of [`Var::add`] or [`Var::add_linear`].
    pub fn onto(self, y: Var<T>) -> Result<Var<T>> {
        match self {
            Self::Sum(value) => y.add(&value),
            Self::Product { x, weight } => y.add_linear(&x, &weight),
        }
    }
}

impl<T: Scalar> From<Var<T>> for Contribution<T> {
    fn from(y: Var<T>) -> Self {
        Self::Sum(y)
    }
}

/// Cloning behind a box; every adapter that is [`Clone`] has it.
pub trait CloneAdapter<T: Scalar> {
    /// A clone in a box.
    fn clone_boxed(&self) -> Box<dyn WeightAdapter<T>>;
}

impl<T: Scalar, A: WeightAdapter<T> + Clone + 'static> CloneAdapter<T> for A {
    fn clone_boxed(&self) -> Box<dyn WeightAdapter<T>> {
        Box::new(self.clone())
    }
}

#[derive(Debug)]
struct Slot<T: Scalar> {
    name: String,
    enabled: bool,
    adapter: Box<dyn WeightAdapter<T>>,
}

impl<T: Scalar> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), enabled: self.enabled, adapter: self.adapter.clone_boxed() }
    }
}

/// The adapters of a layer, by name, in the order in which they were attached.
#[derive(Debug, Clone)]
pub struct Adapters<T: Scalar>(Vec<Slot<T>>);

impl<T: Scalar> Default for Adapters<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Scalar> Adapters<T> {
    /// The names, in order of attachment.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|slot| slot.name.as_str())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An adapter by its name.
    pub fn get(&self, name: &str) -> Option<&dyn WeightAdapter<T>> {
        self.0.iter().find(|slot| slot.name == name).map(|slot| &*slot.adapter)
    }

    /// An adapter by its name, for changing it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut (dyn WeightAdapter<T> + 'static)> {
        self.0.iter_mut().find(|slot| slot.name == name).map(|slot| &mut *slot.adapter)
    }

    /// Whether there is an adapter of this name that counts.
    pub fn is_enabled(&self, name: &str) -> bool {
        self.0.iter().any(|slot| slot.name == name && slot.enabled)
    }

    /// Lets an adapter count again.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where there is none of this name.
    pub fn enable(&mut self, name: &str) -> Result<()> {
        self.slot("enable", name).map(|slot| self.0[slot].enabled = true)
    }

    /// Lets the layer compute as if an adapter were not there; it keeps its parameters.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where there is none of this name.
    pub fn disable(&mut self, name: &str) -> Result<()> {
        self.slot("disable", name).map(|slot| self.0[slot].enabled = false)
    }

    /// Takes an adapter off.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where there is none of this name.
    pub fn detach(&mut self, name: &str) -> Result<Box<dyn WeightAdapter<T>>> {
        self.slot("detach", name).map(|slot| self.0.remove(slot).adapter)
    }

    pub(super) fn attach(&mut self, name: &str, adapter: Box<dyn WeightAdapter<T>>) -> Result<()> {
        if name.is_empty() || self.names().any(|other| other == name) {
            let message = match name {
                "" => "an adapter needs a name".to_string(),
                _ => format!("there is an adapter {name:?} already; detach it, or take another name"),
            };
            return Err(Error::new(ErrorKind::Value, "attach", message));
        }
        self.0.push(Slot { name: name.to_string(), enabled: true, adapter });
        Ok(())
    }

    fn slot(&self, operation: &'static str, name: &str) -> Result<usize> {
        self.0.iter().position(|slot| slot.name == name).ok_or_else(|| {
            let there =
                if self.is_empty() { "there are none".into() } else { format!("there are {}", listed(self.names())) };
            Error::new(ErrorKind::Value, operation, format!("there is no adapter {name:?}; {there}"))
        })
    }

    fn enabled(&self) -> impl Iterator<Item = &Slot<T>> {
        self.0.iter().filter(|slot| slot.enabled)
    }

    /// The weight with the changes of all enabled adapters.
    pub(super) fn effective(&self, weight: &Var<T>) -> Result<Var<T>> {
        let changed = self.enabled().try_fold(None, |changed, slot| slot.folded(weight, changed).map(Some))?;
        Ok(changed.unwrap_or_else(|| weight.clone()))
    }

    /// The layer's result, each adapter on the path that it asks for.
    pub(super) fn forward(
        &self,
        call: &Call<'_, T>,
        weight: &Var<T>,
        bias: Option<&Var<T>>,
        mode: Mode,
    ) -> Result<Var<T>> {
        let mut enabled = self.enabled();
        if let (Some(only), None) = (enabled.next(), enabled.next())
            && let Some(y) = only.adapter.result(call, weight, bias, mode)?
        {
            return Ok(y);
        }
        let (mut changed, mut contributions) = (None, Vec::new());
        for (place, slot) in self.enabled().enumerate() {
            // What several drop is independent; the first of them, and the only one, draws from the layer's own numbers.
            let mode = if place == 0 { mode } else { mode.fork(place as u64) };
            match slot.adapter.apply(call, mode)? {
                Some(contribution) => contributions.push((&slot.name, contribution)),
                None => changed = Some(slot.folded(weight, changed)?),
            }
        }
        let y = call.run(changed.as_ref().unwrap_or(weight), bias)?;
        contributions.into_iter().try_fold(y, |y, (name, contribution)| {
            let (given, needed) = (contribution.shape(), y.shape());
            // An addition would repeat a contribution that is too small.
            if given != needed {
                let message = format!("adapter {name:?} contributes shape {given:?} to a result of shape {needed:?}");
                return Err(Error::shape("adapter", message));
            }
            contribution.onto(y)
        })
    }
}

impl<T: Scalar> Slot<T> {
    /// What other adapters have `changed` the layer's own weight to, with this one's change of that weight; alone, what it makes of it.
    fn folded(&self, weight: &Var<T>, changed: Option<Var<T>>) -> Result<Var<T>> {
        let effective = self.adapter.effective(weight)?;
        if effective.shape() != weight.shape() {
            let (name, given, needed) = (&self.name, effective.shape(), weight.shape());
            let message = format!("adapter {name:?} makes a weight of shape {given:?} of one of shape {needed:?}");
            return Err(Error::shape("adapter", message));
        }
        match changed {
            None => Ok(effective),
            Some(changed) => changed.add(&effective.sub(weight)?),
        }
    }
}

impl<T: Scalar> Module<T> for Adapters<T> {
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T>) {
        if visitor.visits_adapters() {
            self.0.iter().for_each(|slot| slot.adapter.visit_named(&slot.name, visitor));
        }
    }

    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, T>) {
        if visitor.visits_adapters() {
            self.0.iter_mut().for_each(|slot| slot.adapter.visit_named_mut(&slot.name, visitor));
        }
    }
}
