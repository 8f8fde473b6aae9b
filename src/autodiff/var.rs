//! [`Var`]: a tensor that may remember how it was computed.

use super::backward::{Flow, Node};
use crate::{
    device::Device,
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Dimension, IxDyn};
use std::{cell::Cell, fmt, sync::Arc, thread::LocalKey};

/// A tensor in a computation that can be differentiated.
///
/// Its order is known at run time; [`value`](Var::value) gives the tensor. Clones are cheap and are the same variable: a gradient is
/// asked for with any of them.
#[derive(Clone)]
pub struct Var<T: Scalar> {
    value: Tensor<T, IxDyn>,
    node: Option<Arc<Node<T>>>,
}

impl<T: Scalar> Var<T> {
    /// A variable whose gradient is wanted: a weight that trains.
    pub fn parameter<D: Dimension>(value: Tensor<T, D>) -> Self {
        Self { value: value.into_dyn(), node: Some(Arc::new(Node::leaf(false))) }
    }

    /// A variable without a gradient: data, or a frozen weight.
    pub fn constant<D: Dimension>(value: Tensor<T, D>) -> Self {
        Self { value: value.into_dyn(), node: None }
    }

    /// A variable whose gradient is wanted in place of another, computed or not.
    pub(super) fn standing_for(value: Tensor<T, IxDyn>, computed: bool) -> Self {
        Self { value, node: Some(Arc::new(Node::leaf(computed))) }
    }

    /// The tensor.
    pub fn value(&self) -> &Tensor<T, IxDyn> {
        &self.value
    }

    /// The tensor, for changing it between two runs: an optimiser's step. What was recorded before keeps the old values.
    pub fn value_mut(&mut self) -> &mut Tensor<T, IxDyn> {
        &mut self.value
    }

    /// The tensor itself.
    pub fn into_value(self) -> Tensor<T, IxDyn> {
        self.value
    }

    /// The tensor, and the place that its gradient flows into.
    pub(super) fn into_parts(self) -> (Tensor<T, IxDyn>, Option<Arc<Node<T>>>) {
        (self.value, self.node)
    }

    /// A variable of this value whose gradient flows into this place.
    pub(super) fn from_parts(value: Tensor<T, IxDyn>, node: Option<Arc<Node<T>>>) -> Self {
        Self { value, node }
    }

    /// The size of each mode.
    pub fn shape(&self) -> &[usize] {
        self.value.shape()
    }

    /// The number of modes.
    pub fn order(&self) -> usize {
        self.value.order()
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.value.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    /// Where it lives.
    pub fn device(&self) -> &Device {
        self.value.device()
    }

    /// Whether gradients flow into this variable.
    pub fn needs_gradient(&self) -> bool {
        self.node.is_some()
    }

    /// The same value as a constant: gradients stop here.
    pub fn detach(&self) -> Self {
        Self { value: self.value.clone(), node: None }
    }

    /// The only entry of a variable with one entry: a loss.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where it has more entries or none.
    pub fn item(&self) -> Result<T> {
        if self.len() != 1 {
            return Err(Error::shape("item", format!("shape {:?} has {} entries, not one", self.shape(), self.len())));
        }
        self.value.get(&vec![0; self.order()])
    }

    /// The number of the place that its gradient flows into; none for a constant. Clones have the same.
    pub(crate) fn number(&self) -> Option<u64> {
        self.node().map(|node| node.number)
    }

    pub(super) fn node(&self) -> Option<&Arc<Node<T>>> {
        self.node.as_ref()
    }

    /// Whether the value was computed by a recorded operation and lies in a block of its own: nobody but the operations that keep it needs it
    /// after the forward pass. Values of leaves and constants, and views of them, are there as long as their owners.
    pub(crate) fn is_computed(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.has_own_block())
    }

    /// Whether an operation on these operands has to record how to go back.
    ///
    /// [`record`](Var::record) asks it too; ask before computing something that only the backward pass needs.
    pub fn records(operands: &[&Self]) -> bool {
        let wanted = operands.iter().any(|v| v.needs_gradient());
        if wanted && OFF.get() {
            MISSED.set(true);
        }
        wanted && !OFF.get()
    }

    /// The result of an operation, with the way back: how operations are made, inside this crate and outside.
    ///
    /// `backward` receives the gradient of the result, in its shape, and a [`Flow`]: it asks [`Flow::needs`] which operands
    /// want a gradient and hands each its own with [`Flow::give`]. It should keep only tensors (cheap clones) of what it needs. Where
    /// no operand needs a gradient, it is dropped at once.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Result, Tensor, autodiff::Var};
    ///
    /// /// y = x^3, so dx = 3 x^2 dy.
    /// fn cube(x: &Var<f64>) -> Result<Var<f64>> {
    ///     let saved = x.value().clone();
    ///     let y = saved.map(|x| x * x * x)?;
    ///     Ok(Var::record("cube", y, &[x], move |dy, flow| {
    ///         flow.give(0, saved.map(|x| 3.0 * x * x)?.mul(&dy)?)
    ///     }))
    /// }
    ///
    /// let x = Var::parameter(Tensor::from(array![2.0, 3.0]));
    /// let gradients = cube(&x)?.sum()?.backward()?;
    /// assert_eq!(gradients.of(&x)?.to_vec()?, [12.0, 27.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    pub fn record<D: Dimension>(
        operation: &'static str,
        value: Tensor<T, D>,
        operands: &[&Self],
        backward: impl FnOnce(Tensor<T, IxDyn>, &mut Flow<'_, T>) -> Result<()> + Send + 'static,
    ) -> Self {
        let value = value.into_dyn();
        if !Self::records(operands) {
            return Self { value, node: None };
        }
        let inputs = operands.iter().map(|v| v.node.clone().map(|node| (node, v.shape().into()))).collect();
        let own = !operands.iter().any(|v| !v.is_computed() && v.value.storage.is_same(&value.storage));
        let node = Node::recorded(operation, own, inputs, Box::new(backward));
        Self { value, node: Some(Arc::new(node)) }
    }
}

impl<T: Scalar, D: Dimension> From<Tensor<T, D>> for Var<T> {
    /// A constant.
    fn from(value: Tensor<T, D>) -> Self {
        Self::constant(value)
    }
}

impl<T: Scalar> fmt::Debug for Var<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match &self.node {
            None => "constant",
            Some(node) => node.operation().unwrap_or("parameter"),
        };
        write!(f, "Var ({role}) {:?}", self.value)
    }
}

thread_local! {
    /// Whether operations of this thread record nothing.
    static OFF: Cell<bool> = const { Cell::new(false) };
    /// Whether an operation would have recorded something while they record nothing.
    static MISSED: Cell<bool> = const { Cell::new(false) };
    /// Whether a block of a checkpoint is computed again.
    static AGAIN: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` with nothing recorded on this thread, as for evaluation: results are constants and no value is kept.
///
/// ```
/// use ndarray::array;
/// use tenfold::{Tensor, autodiff::{Var, without_gradients}};
///
/// let w = Var::parameter(Tensor::from(array![1.0, 2.0]));
/// let y = without_gradients(|| w.square())?;
/// assert!(!y.needs_gradient());
/// # Ok::<(), tenfold::Error>(())
/// ```
pub fn without_gradients<R>(work: impl FnOnce() -> R) -> R {
    switched(&OFF, true, work)
}

/// Runs `work`, which was run before, with recording on, inside of [`without_gradients`] or not.
pub(super) fn again_with_gradients<R>(work: impl FnOnce() -> R) -> R {
    switched(&OFF, false, || switched(&AGAIN, true, work))
}

/// Whether this runs inside a block that [`checkpoint`](super::checkpoint) computes again in the walk back.
///
/// For what a pass does besides computing, such as moving running statistics: it was done when the block ran first.
pub fn is_recomputing() -> bool {
    AGAIN.get()
}

/// Runs `work` with nothing recorded, and says whether something would have been.
pub(super) fn would_record<R>(work: impl FnOnce() -> R) -> (R, bool) {
    let outer = MISSED.replace(false);
    let result = without_gradients(work);
    let missed = MISSED.replace(outer);
    // What an outer block asks about contains this one.
    MISSED.set(outer || missed);
    (result, missed)
}

fn switched<R>(switch: &'static LocalKey<Cell<bool>>, on: bool, work: impl FnOnce() -> R) -> R {
    /// Switches back when `work` returns or panics.
    struct Back(&'static LocalKey<Cell<bool>>, bool);
    impl Drop for Back {
        fn drop(&mut self) {
            self.0.set(self.1);
        }
    }
    let _back = Back(switch, switch.replace(on));
    work()
}
