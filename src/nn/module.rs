//! [`Module`]: anything that is made of parameters, and the visitors that walk over it.
//!
//! A module says once what it is made of, part by part and with names ([`module!`](crate::module) writes it for a struct). From
//! that follow the names of its parameters, counting, freezing, checkpoints, and finding the layers that adapters go to.

use super::{
    layer::Layer,
    parameter::{Buffer, Parameter},
    report::{Count, GradientReport},
};
use crate::{autodiff::Gradients, device::Device, error::Result, scalar::Scalar};

/// Something made of parameters: a layer, a block, a model, and a parameter itself.
///
/// To implement it for a struct, list its fields with [`module!`](crate::module), or write both methods by hand, with the same
/// parts in the same order.
///
/// ```
/// use tenfold::{Result, Scalar, autodiff::Var, module, nn::{LayerNorm, Linear, Mode, Module}};
///
/// struct Block<T: Scalar> {
///     norm: LayerNorm<T>,
///     dense: Vec<Linear<T>>,
/// }
///
/// // The field `norm` is named "LayerNorm" in files; `dense` has its own name.
/// module!(Block { norm => "LayerNorm", dense });
///
/// impl<T: Scalar> Block<T> {
///     fn forward(&self, x: &Var<T>, mode: Mode) -> Result<Var<T>> {
///         let x = self.norm.forward(x)?;
///         self.dense.iter().try_fold(x, |x, dense| dense.forward(&x, mode)?.gelu())
///     }
/// }
///
/// let block = Block::<f32> { norm: LayerNorm::new(4, 1e-5)?, dense: vec![Linear::zeros(4, 8)?, Linear::zeros(8, 2)?] };
/// let names: Vec<String> = block.parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(
///     names,
///     ["LayerNorm.weight", "LayerNorm.bias", "dense.0.weight", "dense.0.bias", "dense.1.weight", "dense.1.bias"]
/// );
/// assert_eq!(block.count().total, 4 + 4 + 8 * 4 + 8 + 2 * 8 + 2);
/// # Ok::<(), tenfold::Error>(())
/// ```
pub trait Module<T: Scalar> {
    /// Hands each part to the visitor with its name, always in the same order.
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T>);

    /// The same parts with the same names, for changing them.
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, T>);

    /// All parameters with their names, those of adapters included, in the order of the parts.
    fn parameters(&self) -> Vec<(String, &Parameter<T>)> {
        let mut all = Vec::new();
        self.visit(&mut Visitor::parameters(&mut |name, parameter| all.push((name.to_string(), parameter))));
        all
    }

    /// All parameters with their names, for changing them.
    fn parameters_mut(&mut self) -> Vec<(String, &mut Parameter<T>)> {
        let mut all = Vec::new();
        self.visit_mut(&mut VisitorMut::parameters(&mut |name, parameter| all.push((name.to_string(), parameter))));
        all
    }

    /// All buffers with their names.
    fn buffers(&self) -> Vec<(String, &Buffer<T>)> {
        let mut all = Vec::new();
        self.visit(&mut Visitor::buffers(&mut |name, buffer| all.push((name.to_string(), buffer))));
        all
    }

    /// All layers that own a weight and may hold adapters, with their names.
    fn layers(&self) -> Vec<(String, &dyn Layer<T>)> {
        let mut all = Vec::new();
        self.visit(&mut Visitor::layers(&mut |name, layer| all.push((name.to_string(), layer))));
        all
    }

    /// All layers that own a weight and may hold adapters, for changing them.
    fn layers_mut(&mut self) -> Vec<(String, &mut dyn Layer<T>)> {
        let mut all = Vec::new();
        self.visit_mut(&mut VisitorMut::layers(&mut |name, layer| all.push((name.to_string(), layer))));
        all
    }

    /// How many numbers train, and how many there are. Buffers do not count.
    fn count(&self) -> Count {
        self.parameters().into_iter().map(|(_, parameter)| parameter).collect()
    }

    /// Freezes every parameter. Adapters attached afterwards train.
    fn freeze_all(&mut self) {
        self.parameters_mut().into_iter().for_each(|(_, parameter)| parameter.freeze());
    }

    /// Lets every parameter train.
    fn unfreeze_all(&mut self) {
        self.parameters_mut().into_iter().for_each(|(_, parameter)| parameter.unfreeze());
    }

    /// Lets those parameters train whose names pass, and freezes all others.
    ///
    /// ```
    /// use tenfold::nn::{Linear, Module};
    ///
    /// let mut layer = Linear::<f32>::zeros(4, 3)?;
    /// layer.train_only(&|name| name.ends_with("bias"));
    /// assert_eq!(layer.count().trainable, 3);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    fn train_only(&mut self, trains: &dyn Fn(&str) -> bool) {
        for (name, parameter) in self.parameters_mut() {
            if trains(&name) { parameter.unfreeze() } else { parameter.freeze() }
        }
    }

    /// Which of the parameters that train received a gradient, and which did not.
    fn gradient_report(&self, gradients: &Gradients<T>) -> GradientReport {
        let training = self.parameters().into_iter().filter(|(_, parameter)| parameter.trains());
        let (with, without): (Vec<_>, Vec<_>) = training.partition(|(_, p)| gradients.get(p.var()).is_some());
        let names = |part: Vec<(String, _)>| part.into_iter().map(|(name, _)| name).collect();
        GradientReport { with: names(with), without: names(without) }
    }

    /// Brings parameters and buffers to a device, in place.
    ///
    /// # Errors
    /// Those of [`Tensor::to_device`](crate::Tensor::to_device).
    fn to_device(&mut self, device: &Device) -> Result<()> {
        self.buffers().into_iter().try_for_each(|(_, buffer)| buffer.to_device(device))?;
        self.parameters_mut().into_iter().try_for_each(|(_, parameter)| parameter.to_device(device))
    }
}

/// What a walk over shared modules is for.
enum Sink<'s, 'a, T: Scalar> {
    Parameters(&'s mut dyn FnMut(&str, &'a Parameter<T>)),
    Buffers(&'s mut dyn FnMut(&str, &'a Buffer<T>)),
    Layers(&'s mut dyn FnMut(&str, &'a dyn Layer<T>)),
}

/// A walk over the parts of a [`Module`], with the path to where it is.
pub struct Visitor<'s, 'a, T: Scalar> {
    path: Path,
    sink: Sink<'s, 'a, T>,
    adapters: bool,
}

impl<'s, 'a, T: Scalar> Visitor<'s, 'a, T> {
    fn new(sink: Sink<'s, 'a, T>) -> Self {
        Self { path: Path::default(), sink, adapters: true }
    }

    /// Meets every parameter.
    pub fn parameters(meet: &'s mut dyn FnMut(&str, &'a Parameter<T>)) -> Self {
        Self::new(Sink::Parameters(meet))
    }

    /// Meets every buffer.
    pub fn buffers(meet: &'s mut dyn FnMut(&str, &'a Buffer<T>)) -> Self {
        Self::new(Sink::Buffers(meet))
    }

    /// Meets every layer.
    pub fn layers(meet: &'s mut dyn FnMut(&str, &'a dyn Layer<T>)) -> Self {
        Self::new(Sink::Layers(meet))
    }

    /// Passes adapters by.
    pub fn without_adapters(mut self) -> Self {
        self.adapters = false;
        self
    }

    pub(super) fn visits_adapters(&self) -> bool {
        self.adapters
    }

    /// Goes into a part. Its name may have dots, and may be empty for a part that adds nothing to the path.
    pub fn part<M: Module<T> + ?Sized>(&mut self, name: &str, part: &'a M) {
        self.scope(name, |visitor| part.visit(visitor));
    }

    /// Does `inside` with `name` added to the path.
    pub fn scope(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        let back = self.path.enter(name);
        inside(self);
        self.path.leave(back);
    }

    /// Meets a layer. What it is made of is handed over by the caller.
    pub fn meet_layer(&mut self, layer: &'a dyn Layer<T>) {
        if let Sink::Layers(meet) = &mut self.sink {
            meet(&self.path.0, layer);
        }
    }

    pub(super) fn meet_parameter(&mut self, parameter: &'a Parameter<T>) {
        if let Sink::Parameters(meet) = &mut self.sink {
            meet(&self.path.0, parameter);
        }
    }

    pub(super) fn meet_buffer(&mut self, buffer: &'a Buffer<T>) {
        if let Sink::Buffers(meet) = &mut self.sink {
            meet(&self.path.0, buffer);
        }
    }
}

enum SinkMut<'s, 'a, T: Scalar> {
    Parameters(&'s mut dyn FnMut(&str, &'a mut Parameter<T>)),
    Layers(&'s mut dyn FnMut(&str, &'a mut dyn Layer<T>)),
}

/// A walk over the parts of a [`Module`] that may change them.
pub struct VisitorMut<'s, 'a, T: Scalar> {
    path: Path,
    sink: SinkMut<'s, 'a, T>,
    adapters: bool,
}

impl<'s, 'a, T: Scalar> VisitorMut<'s, 'a, T> {
    fn new(sink: SinkMut<'s, 'a, T>) -> Self {
        Self { path: Path::default(), sink, adapters: true }
    }

    /// Meets every parameter.
    pub fn parameters(meet: &'s mut dyn FnMut(&str, &'a mut Parameter<T>)) -> Self {
        Self::new(SinkMut::Parameters(meet))
    }

    /// Meets every layer.
    pub fn layers(meet: &'s mut dyn FnMut(&str, &'a mut dyn Layer<T>)) -> Self {
        Self::new(SinkMut::Layers(meet))
    }

    /// Passes adapters by.
    pub fn without_adapters(mut self) -> Self {
        self.adapters = false;
        self
    }

    pub(super) fn visits_adapters(&self) -> bool {
        self.adapters
    }

    /// Goes into a part, as [`Visitor::part`] does.
    pub fn part<M: Module<T> + ?Sized>(&mut self, name: &str, part: &'a mut M) {
        self.scope(name, |visitor| part.visit_mut(visitor));
    }

    /// Does `inside` with `name` added to the path.
    pub fn scope(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        let back = self.path.enter(name);
        inside(self);
        self.path.leave(back);
    }

    /// Whether layers are met as a whole: then a layer hands itself to [`meet_layer`](VisitorMut::meet_layer) instead of its parts.
    pub fn wants_layers(&self) -> bool {
        matches!(self.sink, SinkMut::Layers(_))
    }

    /// Meets a layer.
    pub fn meet_layer(&mut self, layer: &'a mut dyn Layer<T>) {
        if let SinkMut::Layers(meet) = &mut self.sink {
            meet(&self.path.0, layer);
        }
    }

    pub(super) fn meet_parameter(&mut self, parameter: &'a mut Parameter<T>) {
        if let SinkMut::Parameters(meet) = &mut self.sink {
            meet(&self.path.0, parameter);
        }
    }
}

/// A dotted path that grows and shrinks as a walk goes into parts and out again.
#[derive(Default)]
struct Path(String);

impl Path {
    /// Goes into a part; what it returns leads back.
    fn enter(&mut self, name: &str) -> usize {
        let back = self.0.len();
        if !name.is_empty() {
            if back > 0 {
                self.0.push('.');
            }
            self.0.push_str(name);
        }
        back
    }

    fn leave(&mut self, back: usize) {
        self.0.truncate(back);
    }
}

/// Parts are named by their index.
impl<T: Scalar, M: Module<T>> Module<T> for Vec<M> {
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T>) {
        self.iter().enumerate().for_each(|(i, part)| visitor.part(&i.to_string(), part));
    }

    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, T>) {
        self.iter_mut().enumerate().for_each(|(i, part)| visitor.part(&i.to_string(), part));
    }
}

/// A part that may be absent.
impl<T: Scalar, M: Module<T>> Module<T> for Option<M> {
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T>) {
        self.iter().for_each(|part| part.visit(visitor));
    }

    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, T>) {
        self.iter_mut().for_each(|part| part.visit_mut(visitor));
    }
}

impl<T: Scalar, M: Module<T> + ?Sized> Module<T> for Box<M> {
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T>) {
        (**self).visit(visitor);
    }

    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, T>) {
        (**self).visit_mut(visitor);
    }
}

/// Implements [`Module`](crate::nn::Module) for a struct `Name<T: Scalar>`, from the fields that are modules.
///
/// `module!(Name { field, other => "its.name.in.files" })`: a field has its own name unless another is given; the name `""` adds
/// nothing to the path. Fields that are left out are not part of the model.
///
/// ```
/// use tenfold::{Scalar, module, nn::{Linear, Module}};
///
/// struct Head<T: Scalar> {
///     dense: Linear<T>,
///     inner: Inner<T>,
///     scale: f64,
/// }
/// struct Inner<T: Scalar> {
///     projection: Option<Linear<T>>,
/// }
/// module!(Head { dense => "pooler.dense", inner => "" });
/// module!(Inner { projection });
///
/// let inner = Inner { projection: Some(Linear::<f64>::zeros(2, 2)?.without_bias()) };
/// let head = Head { dense: Linear::zeros(2, 2)?, inner, scale: 2.0 };
/// let names: Vec<String> = head.parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["pooler.dense.weight", "pooler.dense.bias", "projection.weight"]);
/// # assert_eq!(head.scale, 2.0);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[macro_export]
macro_rules! module {
    ($type:ident { $($field:ident $(=> $name:literal)?),* $(,)? }) => {
        impl<T: $crate::Scalar> $crate::nn::Module<T> for $type<T> {
            fn visit<'a>(&'a self, visitor: &mut $crate::nn::Visitor<'_, 'a, T>) {
                let _ = &visitor;
                $(visitor.part($crate::module!(@name $field $($name)?), &self.$field);)*
            }

            fn visit_mut<'a>(&'a mut self, visitor: &mut $crate::nn::VisitorMut<'_, 'a, T>) {
                let _ = &visitor;
                $(visitor.part($crate::module!(@name $field $($name)?), &mut self.$field);)*
            }
        }
    };
    (@name $field:ident $name:literal) => { $name };
    (@name $field:ident) => { stringify!($field) };
}
