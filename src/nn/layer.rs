//! [`Layer`]: what all layers have in common that own a weight and may hold adapters.

use super::{
    adapter::{Adapters, WeightAdapter},
    call::Operation,
    module::Module,
    parameter::Parameter,
};
use crate::{
    autodiff::Var,
    error::{Error, Result},
    scalar::Scalar,
};

/// A layer that owns a weight and may hold adapters: [`Linear`](super::Linear), [`Embedding`](super::Embedding),
/// [`Conv`](super::Conv), [`ConvTranspose`](super::ConvTranspose), [`ResidualNorm`](super::ResidualNorm). Found in a model with [`Module::layers`] and
/// [`Module::layers_mut`].
pub trait Layer<T: Scalar>: Module<T> + Send + Sync {
    /// What it does with its weight.
    fn operation(&self) -> Operation<'_>;

    /// The weight itself, without adapters.
    fn weight(&self) -> &Parameter<T>;

    /// The weight itself, for changing it.
    fn weight_mut(&mut self) -> &mut Parameter<T>;

    /// The bias, where there is one.
    fn bias(&self) -> Option<&Parameter<T>>;

    /// The bias, for changing it.
    fn bias_mut(&mut self) -> Option<&mut Parameter<T>>;

    /// The adapters.
    fn adapters(&self) -> &Adapters<T>;

    /// The adapters, for changing them.
    fn adapters_mut(&mut self) -> &mut Adapters<T>;

    /// The weight with the changes of all enabled adapters, each of which changes the layer's own weight as if it were alone.
    ///
    /// # Errors
    /// Those of the adapters.
    fn effective_weight(&self) -> Result<Var<T>> {
        self.adapters().effective(self.weight().var())
    }

    /// Attaches an adapter from a box, as [`attach`](Layer::attach) does.
    ///
    /// # Errors
    /// As [`attach`](Layer::attach).
    fn attach_boxed(&mut self, name: &str, adapter: Box<dyn WeightAdapter<T>>) -> Result<()> {
        let (of, weight) = (adapter.weight_shape(), self.weight().shape());
        if of != weight {
            let message = format!("adapter {name:?} is for a weight of shape {of:?}; the layer's has {weight:?}");
            return Err(Error::shape("attach", message));
        }
        self.adapters_mut().attach(name, adapter)
    }

    /// Attaches an adapter; it counts from now on.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where it is for another shape of weight,
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) where the name is taken or empty.
    fn attach(&mut self, name: &str, adapter: impl WeightAdapter<T> + 'static) -> Result<()>
    where
        Self: Sized,
    {
        self.attach_boxed(name, Box::new(adapter))
    }
}

/// Implements [`Module`] and [`Layer`] for a struct with `weight`, `bias` (an `Option`) and `adapters`.
macro_rules! layer {
    ($type:ident, $this:ident => $operation:expr) => {
        impl<T: Scalar> $crate::nn::Module<T> for $type<T> {
            fn visit<'a>(&'a self, visitor: &mut $crate::nn::Visitor<'_, 'a, T>) {
                visitor.meet_layer(self);
                visitor.part("weight", &self.weight);
                visitor.part("bias", &self.bias);
                visitor.part("", &self.adapters);
            }

            fn visit_mut<'a>(&'a mut self, visitor: &mut $crate::nn::VisitorMut<'_, 'a, T>) {
                if visitor.wants_layers() {
                    return visitor.meet_layer(self);
                }
                visitor.part("weight", &mut self.weight);
                visitor.part("bias", &mut self.bias);
                visitor.part("", &mut self.adapters);
            }
        }

        impl<T: Scalar> $crate::nn::Layer<T> for $type<T> {
            fn operation(&self) -> $crate::nn::Operation<'_> {
                let $this = self;
                $operation
            }

            fn weight(&self) -> &$crate::nn::Parameter<T> {
                &self.weight
            }

            fn weight_mut(&mut self) -> &mut $crate::nn::Parameter<T> {
                &mut self.weight
            }

            fn bias(&self) -> Option<&$crate::nn::Parameter<T>> {
                self.bias.as_ref()
            }

            fn bias_mut(&mut self) -> Option<&mut $crate::nn::Parameter<T>> {
                self.bias.as_mut()
            }

            fn adapters(&self) -> &$crate::nn::Adapters<T> {
                &self.adapters
            }

            fn adapters_mut(&mut self) -> &mut $crate::nn::Adapters<T> {
                &mut self.adapters
            }
        }
    };
}
pub(super) use layer;

/// An error unless a bias has one entry for each output.
pub(super) fn check_bias(
    operation: &'static str,
    outputs: usize,
    weight: &[usize],
    bias: Option<&[usize]>,
) -> Result<()> {
    match bias {
        Some(bias) if bias != [outputs] => {
            let message = format!("a bias of shape {bias:?} for a weight of shape {weight:?}; needs [{outputs}]");
            Err(Error::shape(operation, message))
        }
        _ => Ok(()),
    }
}
