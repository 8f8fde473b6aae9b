//! [`Parameter`]: a tensor that trains or is frozen; [`Buffer`]: one that is kept but never trained.

use super::module::{Module, Visitor, VisitorMut};
use crate::{
    autodiff::Var,
    device::Device,
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Dimension, IxDyn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A tensor of a model that an optimiser may change.
///
/// It owns a [`Var`]: a leaf that receives a gradient while it trains, a constant, which costs no gradient, while it is frozen.
/// It has no name of its own; its name is the dotted path under which a [`Module`] is met with it.
///
/// A clone is the same leaf: gradients that arrive through a clone are this parameter's. A value that is set afterwards is not shared.
///
/// ```
/// use tenfold::{Tensor, nn::Parameter};
///
/// let mut w = Parameter::new(Tensor::<f32, _>::ones([2, 3])?);
/// assert!(w.trains());
/// w.freeze();
/// assert!(!w.var().needs_gradient());
///
/// w.set(Tensor::zeros([2, 3])?)?;
/// let error = w.set(Tensor::zeros([3, 2])?).unwrap_err();
/// assert_eq!(error.to_string(), "Parameter::set: a value of shape [3, 2] for a parameter of shape [2, 3]");
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Parameter<T: Scalar> {
    var: Var<T>,
}

impl<T: Scalar> Parameter<T> {
    /// A parameter that trains.
    pub fn new<D: Dimension>(value: Tensor<T, D>) -> Self {
        Self { var: Var::parameter(value) }
    }

    /// A parameter that does not train.
    pub fn frozen<D: Dimension>(value: Tensor<T, D>) -> Self {
        Self { var: Var::constant(value) }
    }

    /// The variable to compute with.
    pub fn var(&self) -> &Var<T> {
        &self.var
    }

    /// The tensor.
    pub fn value(&self) -> &Tensor<T, IxDyn> {
        self.var.value()
    }

    /// The tensor, for changing its entries in place between two passes: an optimiser's step. To put another tensor in its
    /// place, [`set`](Parameter::set) it, which checks its shape.
    pub fn value_mut(&mut self) -> &mut Tensor<T, IxDyn> {
        self.var.value_mut()
    }

    /// Another value, of the same shape; it is brought to where the parameter lives.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where it has another shape, and the errors of a transfer.
    pub fn set<D: Dimension>(&mut self, value: Tensor<T, D>) -> Result<()> {
        if value.shape() != self.shape() {
            let message = format!("a value of shape {:?} for a parameter of shape {:?}", value.shape(), self.shape());
            return Err(Error::shape("Parameter::set", message));
        }
        *self.var.value_mut() = value.into_dyn().to_device(self.var.device())?;
        Ok(())
    }

    /// The size of each mode.
    pub fn shape(&self) -> &[usize] {
        self.var.shape()
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.var.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.var.is_empty()
    }

    /// Whether it receives a gradient.
    pub fn trains(&self) -> bool {
        self.var.needs_gradient()
    }

    /// Makes it a constant. Gradients of passes before are no longer found with it.
    pub fn freeze(&mut self) {
        self.var = self.var.detach();
    }

    /// Makes it a leaf, a new one unless it is one already.
    pub fn unfreeze(&mut self) {
        if !self.trains() {
            self.var = Var::parameter(self.value().clone());
        }
    }

    /// Brings it to a device, in place.
    ///
    /// # Errors
    /// Those of [`Tensor::to_device`].
    pub fn to_device(&mut self, device: &Device) -> Result<()> {
        *self.var.value_mut() = self.value().to_device(device)?;
        Ok(())
    }
}

impl<T: Scalar, D: Dimension> From<Tensor<T, D>> for Parameter<T> {
    /// A parameter that trains.
    fn from(value: Tensor<T, D>) -> Self {
        Self::new(value)
    }
}

impl<T: Scalar> From<Var<T>> for Parameter<T> {
    /// A parameter that is this variable: it trains where that needs a gradient.
    fn from(var: Var<T>) -> Self {
        Self { var }
    }
}

impl<T: Scalar> Module<T> for Parameter<T> {
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T>) {
        visitor.meet_parameter(self);
    }

    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, T>) {
        visitor.meet_parameter(self);
    }
}

/// A tensor of a model that is saved with it and never trained: a running mean.
///
/// It changes in a forward pass, which has only shared access. A clone is the same buffer.
///
/// ```
/// use tenfold::{Tensor, nn::Buffer};
///
/// let mean = Buffer::new(Tensor::<f32, _>::zeros([3])?);
/// mean.set(Tensor::ones([3])?)?;
/// assert_eq!(mean.value().to_vec()?, [1.0; 3]);
/// assert!(mean.set(Tensor::ones([2])?).is_err());
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Buffer<T: Scalar>(Arc<Mutex<Tensor<T, IxDyn>>>);

impl<T: Scalar> Buffer<T> {
    /// A buffer that holds `value`.
    pub fn new<D: Dimension>(value: Tensor<T, D>) -> Self {
        Self(Arc::new(Mutex::new(value.into_dyn())))
    }

    fn lock(&self) -> MutexGuard<'_, Tensor<T, IxDyn>> {
        // A tensor is replaced as a whole: whoever panicked left the old one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tensor, a cheap clone.
    pub fn value(&self) -> Tensor<T, IxDyn> {
        self.lock().clone()
    }

    /// Another value, of the same shape; it is brought to where the buffer lives.
    ///
    /// # Errors
    /// As [`Parameter::set`].
    pub fn set<D: Dimension>(&self, value: Tensor<T, D>) -> Result<()> {
        let mut held = self.lock();
        if value.shape() != held.shape() {
            let message = format!("a value of shape {:?} for a buffer of shape {:?}", value.shape(), held.shape());
            return Err(Error::shape("Buffer::set", message));
        }
        *held = value.into_dyn().to_device(held.device())?;
        Ok(())
    }

    /// Brings it to a device, in place.
    ///
    /// # Errors
    /// Those of [`Tensor::to_device`].
    pub fn to_device(&self, device: &Device) -> Result<()> {
        let mut held = self.lock();
        *held = held.to_device(device)?;
        Ok(())
    }
}

impl<T: Scalar> Module<T> for Buffer<T> {
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T>) {
        visitor.meet_buffer(self);
    }

    fn visit_mut<'a>(&'a mut self, _: &mut VisitorMut<'_, 'a, T>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freezing_makes_a_new_leaf() {
        let mut p = Parameter::new(Tensor::<f64, _>::ones([2]).unwrap());
        let gradients = p.var().sum().unwrap().backward().unwrap();
        assert!(gradients.get(p.clone().var()).is_some());
        p.unfreeze();
        assert!(gradients.get(p.var()).is_some(), "it trained already and stays the same leaf");
        p.freeze();
        assert!(!p.trains() && gradients.get(p.var()).is_none());
        p.unfreeze();
        assert!(p.trains() && gradients.get(p.var()).is_none());
    }

    #[test]
    fn what_was_recorded_keeps_its_values() {
        let mut p = Parameter::new(Tensor::<f64, _>::ones([2]).unwrap());
        let y = p.var().square().unwrap().sum().unwrap();
        p.value_mut().as_mut_slice().unwrap().fill(5.0);
        assert_eq!(y.backward().unwrap().of(p.var()).unwrap().to_vec().unwrap(), [2.0, 2.0]);
        assert_eq!(p.value().to_vec().unwrap(), [5.0, 5.0]);
    }
}
