//! The walk back: nodes, newest first, until every gradient has arrived at a parameter.

use super::{gradients::Gradients, var::Var};
use crate::{
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;
use std::{
    collections::{BTreeMap, BinaryHeap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

type Backward<T> = Box<dyn FnOnce(Tensor<T, IxDyn>, &mut Flow<'_, T>) -> Result<()> + Send>;

/// An operand of a recorded operation that needs a gradient: its node, and the shape of that gradient.
type Input<T> = (Arc<Node<T>>, Box<[usize]>);

/// A gradient and the node it belongs to.
pub(super) type Arrived<T> = (Arc<Node<T>>, Tensor<T, IxDyn>);

/// A place in the computation that gradients flow into: a parameter, or a recorded operation.
pub(super) struct Node<T: Scalar> {
    /// Counts up as nodes are made, so an operation's number is above those of its operands.
    pub(super) number: u64,
    /// None for a parameter.
    operation: Option<&'static str>,
    /// Whether the value lies in a block that an operation made, not in a parameter's or a constant's.
    own: bool,
    /// What the walk consumes. None for a parameter, and once consumed.
    record: Mutex<Option<Record<T>>>,
}

struct Record<T: Scalar> {
    inputs: Box<[Option<Input<T>>]>,
    backward: Backward<T>,
}

fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl<T: Scalar> Node<T> {
    pub(super) fn leaf(own: bool) -> Self {
        Self { number: next_number(), operation: None, own, record: Mutex::new(None) }
    }

    pub(super) fn recorded(
        operation: &'static str,
        own: bool,
        inputs: Box<[Option<Input<T>>]>,
        backward: Backward<T>,
    ) -> Self {
        let record = Mutex::new(Some(Record { inputs, backward }));
        Self { number: next_number(), operation: Some(operation), own, record }
    }

    pub(super) fn has_own_block(&self) -> bool {
        self.own
    }

    pub(super) fn operation(&self) -> Option<&'static str> {
        self.operation
    }

    fn take_record(&self) -> Option<Record<T>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<T: Scalar> Drop for Node<T> {
    /// Takes a chain of nodes apart one by one: dropped into one another, a long computation would overflow the stack.
    fn drop(&mut self) {
        let mut waiting: Vec<Input<T>> = self.take_record().into_iter().flat_map(|r| r.inputs).flatten().collect();
        while let Some((node, _)) = waiting.pop() {
            if let Some(node) = Arc::into_inner(node) {
                waiting.extend(node.take_record().into_iter().flat_map(|r| r.inputs).flatten());
            }
        }
    }
}

/// Where an operation's backward pass delivers the gradients of its operands.
pub struct Flow<'a, T: Scalar> {
    operation: &'static str,
    inputs: &'a [Option<Input<T>>],
    walk: &'a mut Walk<T>,
}

impl<T: Scalar> Flow<'_, T> {
    /// Whether the operand at `position` wants a gradient.
    pub fn needs(&self, position: usize) -> bool {
        self.inputs.get(position).is_some_and(Option::is_some)
    }

    /// Adds to the gradient of the operand at `position`; without effect where it wants none.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where the gradient has another shape than the operand.
    pub fn give(&mut self, position: usize, gradient: Tensor<T, IxDyn>) -> Result<()> {
        let Some(Some((node, shape))) = self.inputs.get(position) else { return Ok(()) };
        if **shape != *gradient.shape() {
            let message = format!(
                "the backward pass of \"{}\" gave operand {position} a gradient of shape {:?}; it has shape {shape:?}",
                self.operation,
                gradient.shape()
            );
            return Err(Error::shape("backward", message));
        }
        self.walk.add(node, gradient)
    }

    /// Adds the gradients of parameters that a nested computation found by itself.
    pub(super) fn merge(&mut self, nested: Gradients<T>) -> Result<()> {
        nested.of.into_values().try_for_each(|(node, gradient)| self.walk.add(&node, gradient))
    }
}

/// The gradients that have arrived at nodes not yet passed.
struct Walk<T: Scalar> {
    /// By number, the newest node first.
    order: BinaryHeap<u64>,
    arrived: HashMap<u64, Arrived<T>>,
}

impl<T: Scalar> Walk<T> {
    fn add(&mut self, node: &Arc<Node<T>>, gradient: Tensor<T, IxDyn>) -> Result<()> {
        match self.arrived.get_mut(&node.number) {
            Some((_, sum)) => sum.add_assign(&gradient),
            None => {
                self.order.push(node.number);
                self.arrived.insert(node.number, (Arc::clone(node), gradient));
                Ok(())
            }
        }
    }

    /// Passes all nodes, the newest first. Recorded nodes older than `floor` are not this walk's to consume.
    fn run(mut self, floor: u64) -> Result<Gradients<T>> {
        let mut gradients = Gradients { of: BTreeMap::new() };
        while let Some(number) = self.order.pop() {
            let Some((node, gradient)) = self.arrived.remove(&number) else { continue };
            let Some(operation) = node.operation else {
                gradients.of.insert(number, (node, gradient));
                continue;
            };
            if number < floor {
                let message = format!(
                    "the block uses the result of \"{operation}\" from outside; pass it among the block's inputs"
                );
                return Err(Error::new(ErrorKind::Value, "checkpoint", message));
            }
            let Some(Record { inputs, backward }) = node.take_record() else {
                let message = format!(
                    "\"{operation}\" was passed by an earlier backward, which freed what it had saved; \
                     compute the result again, or add up the losses before one backward"
                );
                return Err(Error::new(ErrorKind::Value, "backward", message));
            };
            backward(gradient, &mut Flow { operation, inputs: &inputs, walk: &mut self })?;
        }
        Ok(gradients)
    }
}

impl<T: Scalar> Var<T> {
    /// The gradients of a single number with respect to every parameter it was computed from.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where this is not a single entry (see [`backward_from`](Var::backward_from));
    /// [`ErrorKind::Value`] where it depends on no parameter, or where an earlier `backward` has consumed what it needs.
    pub fn backward(&self) -> Result<Gradients<T>> {
        if self.len() != 1 {
            let message = format!(
                "a gradient belongs to a single number, and shape {:?} has {}; reduce it first, or give a gradient with backward_from",
                self.shape(),
                self.len()
            );
            return Err(Error::shape("backward", message));
        }
        let one = Tensor::full(self.value().shape().to_vec(), T::one())?.to_device(self.device())?;
        self.backward_from(one.into_dyn())
    }

    /// The gradients of `sum(gradient * self)`: the walk back from a gradient that is known.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where `gradient` has another shape; as [`backward`](Var::backward) otherwise.
    pub fn backward_from(&self, gradient: Tensor<T, IxDyn>) -> Result<Gradients<T>> {
        self.backward_above(gradient, 0)
    }

    /// As [`backward_from`](Var::backward_from), where recorded nodes older than `floor` belong to somebody else.
    pub(super) fn backward_above(&self, gradient: Tensor<T, IxDyn>, floor: u64) -> Result<Gradients<T>> {
        if gradient.shape() != self.shape() {
            let message = format!("a gradient of shape {:?} for a value of shape {:?}", gradient.shape(), self.shape());
            return Err(Error::shape("backward", message));
        }
        let Some(node) = self.node() else {
            let message =
                "the value depends on no parameter, so it has no gradients; make what trains with Var::parameter";
            return Err(Error::new(ErrorKind::Value, "backward", message));
        };
        let mut walk = Walk { order: BinaryHeap::new(), arrived: HashMap::new() };
        walk.add(node, gradient)?;
        walk.run(floor)
    }
}

/// The number that the next node will have.
pub(super) fn now() -> u64 {
    next_number()
}
