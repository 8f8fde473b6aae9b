//! [`Attach`]: a method on a whole model; and what is done with adapters of a name everywhere at once.

use super::{
    method::{Method, Start},
    plan::{Plan, PlanRow},
    site::Site,
    targets::Targets,
};
use crate::{
    autodiff::Gradients,
    error::{Error, ErrorKind, Result},
    nn::{Layer, Module, Parameter, Visitor, VisitorMut, WeightAdapter},
    scalar::Scalar,
    tensor::{Tensor, listed},
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
    /// A method on every layer, under the name `default`, seed 0.
    pub fn new(method: &'a dyn Method<T>) -> Self {
        Self { method, targets: Targets::all(), keep: None, name: "default".into(), seed: 0, gradients: None }
    }

    /// Only these layers. For a method that lets parameters of the model train: only these parameters.
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
    /// [`ErrorKind::Value`] where a pattern matches nothing, where a layer has an adapter of this name already, where
    /// nothing would train, and where gradients are given that belong to no layer; and the errors of the method.
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
        let error = |message: String| Error::new(ErrorKind::Value, "attach", message);
        let layers = model.layers();
        if let Some(unknown) =
            self.gradients.into_iter().flatten().find(|(name, _)| layers.iter().all(|l| l.0 != **name))
        {
            return Err(error(format!(
                "there is a first gradient for {:?}, which is no layer of the model",
                unknown.0
            )));
        }
        let own = own_parameters(model);
        let mut rows = Vec::new();
        let mut attached = Vec::new();
        if self.method.attaches() {
            let meant: BTreeSet<String> = self.targets.layers(model)?.into_iter().collect();
            let layers: Vec<_> = layers.into_iter().filter(|(name, _)| meant.contains(name)).collect();
            let taken: Vec<&str> =
                layers.iter().filter(|l| l.1.adapters().get(&self.name).is_some()).map(|l| l.0.as_str()).collect();
            if !taken.is_empty() || self.name.is_empty() {
                let there = format!("{:?} is the name of an adapter of {}", self.name, listed(taken.into_iter()));
                let message =
                    if self.name.is_empty() { "adapters need a name".into() } else { there + "; take another" };
                return Err(error(message));
            }
            let sites =
                layers.iter().map(|(name, layer)| Site::of_layer(name.clone(), *layer)).collect::<Result<Vec<_>>>()?;
            let settled = self.method.settled(&sites)?;
            let method = settled.as_deref().unwrap_or(self.method);
            for (site, (name, layer)) in sites.iter().zip(&layers) {
                rows.push(PlanRow::attached(method, site)?);
                attached.push((name.clone(), make(method, site, *layer)?));
            }
        }
        let selected: BTreeSet<String> = match self.method.attaches() {
            true => BTreeSet::new(),
            false => self.targets.parameters(model)?.into_iter().filter(|name| self.method.selects(name)).collect(),
        };
        let kept: BTreeSet<String> = match &self.keep {
            None => BTreeSet::new(),
            Some(keep) => keep.parameters(model)?.into_iter().collect(),
        };
        for (name, parameter) in &own {
            if selected.contains(name) || kept.contains(name) {
                let method = if selected.contains(name) { self.method.name() } else { "kept" };
                rows.push(PlanRow::own(name, parameter.shape(), method));
            }
        }
        if rows.is_empty() {
            let message =
                format!("\"{}\" selects no parameter, and none is kept: nothing would train", self.method.name());
            return Err(error(message));
        }
        let plan = Plan { rows, model: own.iter().map(|(_, parameter)| parameter.len()).sum() };
        Ok(Prepared { plan, attached, training: selected.into_iter().chain(kept).collect() })
    }
}

/// What [`Attach::apply`] is about to do.
struct Prepared<A> {
    plan: Plan,
    attached: Vec<(String, A)>,
    /// Parameters of the model itself.
    training: BTreeSet<String>,
}

/// The parameters of a model without those of adapters.
fn own_parameters<T: Scalar, M: Module<T> + ?Sized>(model: &M) -> Vec<(String, &Parameter<T>)> {
    let mut all = Vec::new();
    let mut meet = |name: &str, parameter| all.push((name.to_string(), parameter));
    model.visit(&mut Visitor::parameters(&mut meet).without_adapters());
    all
}

fn own_parameters_mut<T: Scalar, M: Module<T> + ?Sized>(model: &mut M) -> Vec<(String, &mut Parameter<T>)> {
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

/// Does something with the adapters of every layer that has one of this name, and says how many there are.
fn each<T: Scalar>(
    model: &mut (impl Module<T> + ?Sized),
    name: &str,
    operation: &'static str,
    mut act: impl FnMut(&mut dyn Layer<T>) -> Result<()>,
) -> Result<usize> {
    let mut names = BTreeSet::new();
    let mut count = 0;
    for (_, layer) in model.layers_mut() {
        names.extend(layer.adapters().names().map(str::to_string));
        if layer.adapters().get(name).is_some() {
            count += 1;
            act(layer)?;
        }
    }
    if count == 0 {
        let there = match names.len() {
            0 => "there are none".to_string(),
            _ => format!("there are {}", listed(names.iter().map(String::as_str))),
        };
        let message = format!("no layer has an adapter {name:?}; {there}");
        return Err(Error::new(ErrorKind::Value, operation, message));
    }
    Ok(count)
}

/// Takes the adapters of this name off, and returns on how many layers there was one. What was frozen stays frozen.
///
/// # Errors
/// [`ErrorKind::Value`] where there are none.
pub fn detach<T: Scalar>(model: &mut (impl Module<T> + ?Sized), name: &str) -> Result<usize> {
    each(model, name, "detach", |layer| layer.adapters_mut().detach(name).map(drop))
}

/// Lets the adapters of this name count.
///
/// # Errors
/// [`ErrorKind::Value`] where there are none.
pub fn enable<T: Scalar>(model: &mut (impl Module<T> + ?Sized), name: &str) -> Result<usize> {
    each(model, name, "enable", |layer| layer.adapters_mut().enable(name))
}

/// Lets the model compute as if the adapters of this name were not there.
///
/// # Errors
/// [`ErrorKind::Value`] where there are none.
pub fn disable<T: Scalar>(model: &mut (impl Module<T> + ?Sized), name: &str) -> Result<usize> {
    each(model, name, "disable", |layer| layer.adapters_mut().disable(name))
}

/// Lets the adapters of this name count and train, and no others: all others are disabled and frozen.
///
/// ```
/// use tenfold::{nn::{Linear, Module}, peft::{self, Attach, Lora}};
///
/// let mut layer = Linear::<f32>::zeros(8, 8)?;
/// Attach::new(&Lora::new(2)).name("a").apply(&mut layer)?;
/// Attach::new(&Lora::new(4)).name("b").apply(&mut layer)?;
/// assert_eq!(layer.count().trainable, 2 * 16 + 4 * 16); // both count, and train
/// peft::switch(&mut layer, "a")?;
/// assert_eq!(layer.count().trainable, 2 * 16);
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Value`] where there are none of this name; nothing is changed then.
pub fn switch<T: Scalar>(model: &mut (impl Module<T> + ?Sized), name: &str) -> Result<usize> {
    let count = each(model, name, "switch", |_| Ok(()))?;
    for (_, layer) in model.layers_mut() {
        let adapters = layer.adapters_mut();
        let others: Vec<String> = adapters.names().map(str::to_string).collect();
        for other in others {
            let alone = other == name;
            if alone {
                adapters.enable(&other)?
            } else {
                adapters.disable(&other)?
            }
            for (_, parameter) in adapters.get_mut(&other).into_iter().flat_map(|adapter| adapter.parameters_mut()) {
                if alone { parameter.unfreeze() } else { parameter.freeze() }
            }
        }
    }
    Ok(count)
}
