//! [`Attach`]: a method on a whole model.

use super::{
    method::{Method, Start},
    named::check_free,
    plan::{Plan, PlanRow},
    site::Site,
    targets::Targets,
};
use crate::{
    autodiff::Gradients,
    error::{Error, ErrorKind, Result},
    nn::{Layer, Module, Parameter, Visitor, VisitorMut, WeightAdapter},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;
use std::collections::{BTreeMap, BTreeSet};

/// Gradients of weights, by the names of their layers. Made by [`weight_gradients`].
pub type WeightGradients<T> = BTreeMap<String, Tensor<T, IxDyn>>;

/// Attaches a method's adapters to the layers that are meant, and freezes the rest of the model. [`Attach`] has more
/// settings.
///
/// The adapters are named `default`. Nothing is changed where an error is returned.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{nn::{Linear, Module}, peft::{self, Flora, Targets}};
///
/// let rng = &mut ChaCha8Rng::seed_from_u64(1);
/// let mut layers = vec![Linear::<f32>::new(16, 32, rng)?, Linear::new(32, 16, rng)?, Linear::new(16, 2, rng)?];
/// let plan = peft::attach(&mut layers, &Flora::new().rank(4), &Targets::all().except("2"))?;
/// println!("{plan}");
/// assert_eq!(layers.count().trainable, 2 * (4 * 4 + 4 * (16 + 32)));
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # Errors
/// As [`Attach::apply`].
pub fn attach<T: Scalar>(
    model: &mut (impl Module<T> + ?Sized),
    method: &dyn Method<T>,
    targets: &Targets,
) -> Result<Plan> {
    Attach::new(method).to(targets.clone()).apply(model)
}

/// A method, and where and how to attach it.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{nn::{Linear, Module}, peft::{Attach, Lora, Targets}};
///
/// let rng = &mut ChaCha8Rng::seed_from_u64(1);
/// let mut layers = vec![Linear::<f32>::new(16, 16, rng)?, Linear::new(16, 2, rng)?];
/// let lora = Lora::new(4);
/// let attach = Attach::new(&lora).to(Targets::of(["0"])).keep(Targets::of(["1"])).name("task").seed(7);
/// let plan = attach.plan(&layers)?; // changes nothing
/// assert_eq!(attach.apply(&mut layers)?, plan);
/// let training = layers.parameters().into_iter().filter(|(_, p)| p.trains()).map(|(name, _)| name);
/// assert_eq!(training.collect::<Vec<_>>(), ["0.task.lora_A", "0.task.lora_B", "1.weight", "1.bias"]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Attach<'a, T: Scalar> {
    method: &'a dyn Method<T>,
    targets: Targets,
    keep: Option<Targets>,
    name: String,
    seed: u64,
    gradients: Option<&'a WeightGradients<T>>,
}

impl<'a, T: Scalar> Attach<'a, T> {
    /// A method on every layer that it [fits](Method::fits), under the name `default`, seed 0.
    pub fn new(method: &'a dyn Method<T>) -> Self {
        Self { method, targets: Targets::all(), keep: None, name: "default".into(), seed: 0, gradients: None }
    }

    /// Only these layers, of those that the method fits. For a method that lets parameters of the model train: only these parameters.
    pub fn to(self, targets: Targets) -> Self {
        Self { targets, ..self }
    }

    /// Parts of the model that train as they are, beside the method: a new head.
    pub fn keep(self, parts: Targets) -> Self {
        Self { keep: Some(parts), ..self }
    }

    /// The adapters' name.
    pub fn name(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Fixes what is drawn at random. What a layer's adapter starts as depends on this, the layer's name and its shape
    /// alone.
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The first gradients, for methods that start from them.
    pub fn gradients(self, gradients: &'a WeightGradients<T>) -> Self {
        Self { gradients: Some(gradients), ..self }
    }

    /// What would train: a dry run.
    ///
    /// # Errors
    /// As [`apply`](Attach::apply).
    pub fn plan(&self, model: &(impl Module<T> + ?Sized)) -> Result<Plan> {
        self.prepare(model, |_, _, _| Ok(())).map(|prepared| prepared.plan)
    }

    /// Attaches the adapters and freezes all other parameters of the model, but for those that are kept or that the
    /// method selects. Adapters of other names stay as they are.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where a pattern matches nothing, where a layer has an adapter of this name already, where two layers have
    /// one name, where nothing would train, and where gradients are given that belong to no layer; [`ErrorKind::Unsupported`] where the method
    /// [fits](Method::fits) no layer of the model; and the errors of the method.
    /// Nothing is changed then.
    pub fn apply(&self, model: &mut (impl Module<T> + ?Sized)) -> Result<Plan> {
        let prepared = self.prepare(&*model, |method, site, layer| {
            let weight = layer.weight().value();
            let gradient = self.gradients.and_then(|gradients| gradients.get(site.name()));
            method.adapter(site, &Start { weight, gradient, seed: self.seed })
        })?;
        for (name, parameter) in own_parameters_mut(model) {
            if prepared.training.contains(&name) { parameter.unfreeze() } else { parameter.freeze() }
        }
        let mut adapters: BTreeMap<String, Box<dyn WeightAdapter<T>>> = prepared.attached.into_iter().collect();
        for (name, layer) in model.layers_mut() {
            if let Some(adapter) = adapters.remove(&name) {
                layer.attach_boxed(&self.name, adapter)?;
            }
        }
        Ok(prepared.plan)
    }

    /// Everything that can fail: what is meant, what it comes to, and something made for each layer.
    fn prepare<M: Module<T> + ?Sized, A>(
        &self,
        model: &M,
        make: impl Fn(&dyn Method<T>, &Site<'_>, &dyn Layer<T>) -> Result<A>,
    ) -> Result<Prepared<A>> {
        let mut prepared =
            Prepared { plan: Plan { rows: Vec::new(), model: 0 }, attached: Vec::new(), training: BTreeSet::new() };
        let mut selected = BTreeSet::new();
        if self.method.attaches() {
            self.prepare_layers(model, make, &mut prepared)?;
        } else {
            selected.extend(self.targets.parameters(model)?.into_iter().filter(|name| self.method.selects(name)));
        }
        let kept: BTreeSet<String> = match &self.keep {
            None => BTreeSet::new(),
            Some(keep) => keep.parameters(model)?.into_iter().collect(),
        };
        for (name, parameter) in own_parameters(model) {
            prepared.plan.model += parameter.len();
            if selected.contains(&name) || kept.contains(&name) {
                let method = if selected.contains(&name) { self.method.name() } else { "kept" };
                prepared.plan.rows.push(PlanRow::own(&name, parameter.shape(), method));
                prepared.training.insert(name);
            }
        }
        if prepared.plan.rows.is_empty() {
            let name = self.method.name();
            return Err(wrong(format!("{name:?} selects no parameter, and none is kept: nothing would train")));
        }
        Ok(prepared)
    }

    /// The rows of the layers that are meant, and something made for each.
    fn prepare_layers<M: Module<T> + ?Sized, A>(
        &self,
        model: &M,
        make: impl Fn(&dyn Method<T>, &Site<'_>, &dyn Layer<T>) -> Result<A>,
        prepared: &mut Prepared<A>,
    ) -> Result<()> {
        let mut layers = model.layers();
        let mut names: BTreeSet<&str> = BTreeSet::new();
        if let Some((name, _)) = layers.iter().find(|(name, _)| !names.insert(name)) {
            return Err(wrong(format!("the model has two layers of the name {name:?}; give each its own")));
        }
        let given = self.gradients.into_iter().flat_map(BTreeMap::keys);
        if let Some(unknown) = given.map(String::as_str).find(|name| !names.contains(name)) {
            return Err(wrong(format!("there is a first gradient for {unknown:?}, which is no layer of the model")));
        }
        layers.retain(|(_, layer)| self.method.fits(layer.operation()));
        if layers.is_empty() {
            let message = format!("the model has no layer of a kind that {:?} attaches to", self.method.name());
            return Err(Error::new(ErrorKind::Unsupported, "attach", message));
        }
        let fitting: Vec<String> = layers.iter().map(|(name, _)| name.clone()).collect();
        let meant: BTreeSet<String> = self.targets.owned(&fitting)?.into_iter().collect();
        layers.retain(|(name, _)| meant.contains(name));
        check_free(&self.name, &layers).map_err(wrong)?;
        let sites =
            layers.iter().map(|(name, layer)| Site::of_layer(name.clone(), *layer)).collect::<Result<Vec<_>>>()?;
        let settled = self.method.settled(&sites)?;
        let method = settled.as_deref().unwrap_or(self.method);
        for (site, (name, layer)) in sites.iter().zip(&layers) {
            prepared.plan.rows.push(PlanRow::attached(method, site)?);
            prepared.attached.push((name.clone(), make(method, site, *layer)?));
        }
        Ok(())
    }
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Value, "attach", message)
}

/// What [`Attach::apply`] is about to do.
struct Prepared<A> {
    plan: Plan,
    attached: Vec<(String, A)>,
    /// Parameters of the model itself.
    training: BTreeSet<String>,
}

/// The parameters of a model without those of adapters.
pub(super) fn own_parameters<T: Scalar, M: Module<T> + ?Sized>(model: &M) -> Vec<(String, &Parameter<T>)> {
    let mut all = Vec::new();
    let mut meet = |name: &str, parameter| all.push((name.to_string(), parameter));
    model.visit(&mut Visitor::parameters(&mut meet).without_adapters());
    all
}

pub(super) fn own_parameters_mut<T: Scalar, M: Module<T> + ?Sized>(model: &mut M) -> Vec<(String, &mut Parameter<T>)> {
    let mut all = Vec::new();
    let mut meet = |name: &str, parameter| all.push((name.to_string(), parameter));
    model.visit_mut(&mut VisitorMut::parameters(&mut meet).without_adapters());
    all
}

/// The gradients of all weights that have one, by the names of their layers: what [`Attach::gradients`] takes. Let the
/// weights train for the pass that makes them ([`Module::unfreeze_all`]); several batches are better than one.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{Tensor, autodiff::Var, nn::{Linear, Mode, Module}, peft::{Attach, Flora, FloraInit, weight_gradients}};
///
/// let rng = &mut ChaCha8Rng::seed_from_u64(1);
/// let mut layer = Linear::<f32>::new(16, 8, rng)?;
/// let x = Var::constant(Tensor::normal([32, 16], rng)?);
/// let loss = layer.forward(&x, Mode::Evaluation)?.square()?.mean()?;
/// let first = weight_gradients(&layer, &loss.backward()?);
///
/// let flora = Flora::new().rank(4).scale(1.0).init(FloraInit::GradientHosvd);
/// Attach::new(&flora).gradients(&first).apply(&mut layer)?;
/// # Ok::<(), tenfold::Error>(())
/// ```
pub fn weight_gradients<T: Scalar>(model: &(impl Module<T> + ?Sized), gradients: &Gradients<T>) -> WeightGradients<T> {
    let layers = model.layers().into_iter();
    layers.filter_map(|(name, layer)| Some((name, gradients.get(layer.weight().var())?.clone()))).collect()
}
