//! [`Distil`]: a fine-tuned model as adapters.

use super::{Truncated, TruncatedRow, Truncation, in_mode_order, truncated_dense};
use crate::{
    autodiff::without_gradients,
    error::{Error, ErrorKind, Result},
    nn::{Layer, Module},
    peft::{
        attach::{own_parameters, own_parameters_mut},
        flora::FloraAdapter,
        named::check_free,
        site::Site,
        targets::Targets,
    },
    scalar::Scalar,
    tensor::{Tensor, listed},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Makes FLoRA adapters of the difference between a fine-tuned model and the one that it came from: of every weight's, the Tucker decomposition
/// that [ST-HOSVD](crate::decomp::StHosvd) finds, of any order and any number of groups.
///
/// A checkpoint of full fine-tuning becomes a small file, as exact as is asked for; adapters of other methods become FLoRA
/// (the adapters that are enabled in a model count, in either of them: DoRA's too).
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{Tensor, autodiff, nn::{Conv, Layer, Module}, peft::{Distil, Truncation}};
///
/// let rng = &mut ChaCha8Rng::seed_from_u64(1);
/// let mut base = Conv::<f64>::new([8, 16], &[3, 3], autodiff::Conv::new(), rng)?;
/// // What training did: few directions of channels.
/// let mut tuned = base.clone();
/// let core = Tensor::<f64, _>::normal([2, 2, 3, 3], rng)?;
/// let moved = core.mode_product(0, &Tensor::normal([16, 2], rng)?)?.mode_product(1, &Tensor::normal([8, 2], rng)?)?;
/// let weight = tuned.weight().value().add(&moved.to_dyn())?;
/// tuned.weight_mut().set(weight)?;
///
/// let report = Distil::new(Truncation::Tolerance(1e-8)).apply(&mut base, &tuned)?;
/// assert_eq!(report.truncated.rows[0].ranks, [2, 2, 3, 3]);
/// assert!(report.left.is_empty()); // nothing else differs
/// let away = base.effective_weight()?.value().sub(tuned.weight().value())?;
/// assert!(away.norm()? < 1e-8 * moved.norm()?);
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// **Cost** for each layer: a HOSVD of a tensor of the weight's size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Distil {
    truncation: Truncation,
    targets: Targets,
    keep: Option<Targets>,
    name: String,
}

/// What [`Distil::apply`] came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Distilled {
    /// The adapters.
    pub truncated: Truncated,
    /// Layers that were meant and did not differ; they have no adapter.
    pub unchanged: Vec<String>,
    /// Parts of the model that were taken over as they are.
    pub kept: Vec<String>,
    /// The model's own parameters that differ, weights with what adapters make of them, and are neither adapted nor kept, with the largest
    /// difference of an entry: the adapters do not have them.
    pub left: Vec<(String, f64)>,
}

impl Distil {
    /// Every layer that maps inputs to outputs, under the name `default`.
    pub fn new(truncation: Truncation) -> Self {
        Self { truncation, targets: Targets::all(), keep: None, name: "default".into() }
    }

    /// Only these layers.
    pub fn to(self, targets: Targets) -> Self {
        Self { targets, ..self }
    }

    /// Parts that are taken over whole, a head or biases; they train with the adapters, and are saved with them. Their weights get no
    /// adapters.
    pub fn keep(self, parts: Targets) -> Self {
        Self { keep: Some(parts), ..self }
    }

    /// The adapters' name.
    pub fn name(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Attaches the adapters to `base`, and freezes the rest of it but for what is kept. `tuned` has to have the same layers.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where the models' parts have other names, where a pattern matches nothing, where the name is taken, where nothing
    /// differs, and for a weight that is not finite; [`ErrorKind::Shape`] where shapes differ; [`ErrorKind::Unsupported`] where one of the
    /// models has bottlenecks, which are no update of a weight, and where adapters change a weight that is kept; those of
    /// [`Flora::ranks`](crate::peft::Flora::ranks). Nothing is changed then.
    pub fn apply<T, B, M>(&self, base: &mut B, tuned: &M) -> Result<Distilled>
    where
        T: Scalar,
        B: Module<T> + ?Sized,
        M: Module<T> + ?Sized,
    {
        let kept: BTreeSet<String> = match &self.keep {
            None => BTreeSet::new(),
            Some(keep) => keep.parameters(base)?.into_iter().collect(),
        };
        let theirs: BTreeMap<String, _> = own_parameters(tuned).into_iter().collect();
        check_same(&*base, &theirs)?;
        let layers = [mapping(&*base), mapping(tuned)];
        check_kept(&kept, &layers)?;
        let (mut differences, mut unchanged) = (Vec::new(), Vec::new());
        for (name, difference) in self.differences(&*base, tuned, &kept)? {
            match difference {
                Some(difference) => differences.push((name, difference)),
                None => unchanged.push(name),
            }
        }
        if differences.is_empty() && kept.is_empty() {
            return Err(wrong("no weight differs between the models: there is nothing to adapt".into()));
        }
        let (mut rows, mut adapters) = (Vec::new(), BTreeMap::new());
        for (row, adapter) in self.adapters(&*base, &differences)? {
            adapters.insert(row.name.clone(), adapter);
            rows.push(row);
        }

        let mut left = Vec::new();
        let weights: BTreeSet<String> = adapters.keys().map(|layer| weight_of(layer)).collect();
        for (name, parameter) in own_parameters(&*base) {
            if !weights.contains(&name) && !kept.contains(&name) {
                let difference = match (layers[0].get(&name), layers[1].get(&name)) {
                    (Some(ours), Some(theirs)) => moved(*ours, *theirs)?,
                    _ => theirs[&name].value().sub(parameter.value())?,
                };
                let moved = difference.max_abs()?;
                left.extend((moved > 0.0).then_some((name, moved)));
            }
        }
        for (name, parameter) in own_parameters_mut(base) {
            if kept.contains(&name) {
                parameter.set(theirs[&name].value().clone())?;
                parameter.unfreeze();
            } else {
                parameter.freeze();
            }
        }
        for (name, layer) in base.layers_mut() {
            if let Some(adapter) = adapters.remove(&name) {
                layer.attach_boxed(&self.name, Box::new(adapter))?;
            }
        }
        Ok(Distilled { truncated: Truncated { rows }, unchanged, kept: kept.into_iter().collect(), left })
    }

    /// The layers that are meant and whose weights are not kept, in the order of the model, with their updates; `None` where nothing differs.
    fn differences<T: Scalar, B: Module<T> + ?Sized, M: Module<T> + ?Sized>(
        &self,
        base: &B,
        tuned: &M,
        kept: &BTreeSet<String>,
    ) -> Result<Vec<(String, Option<Tensor<T>>)>> {
        let layers: Vec<_> = base.layers().into_iter().filter(|(_, layer)| layer.operation().maps()).collect();
        let names: Vec<String> = layers.iter().map(|(name, _)| name.clone()).collect();
        let meant: BTreeSet<String> = self.targets.owned(&names)?.into_iter().collect();
        let there: BTreeMap<String, _> = tuned.layers().into_iter().collect();
        let mut differences = Vec::new();
        let adapted = |name: &String| meant.contains(name) && !kept.contains(&weight_of(name));
        // Bottlenecks are no update of a weight, and say so.
        for (whose, layers) in [("the model", base.layers()), ("the fine-tuned model", tuned.layers())] {
            for (name, layer) in layers.into_iter().filter(|(_, layer)| !layer.operation().maps()) {
                without_gradients(|| layer.effective_weight()).map_err(|cause| {
                    let message = format!("layer {name:?} of {whose}: {}", cause.message());
                    Error::new(cause.kind(), "distil", message).with_source(cause)
                })?;
            }
        }
        let layers: Vec<_> = layers.into_iter().filter(|(name, _)| adapted(name)).collect();
        check_free(&self.name, &layers).map_err(wrong)?;
        for (name, layer) in layers {
            let Some(theirs) = there.get(&name) else {
                return Err(wrong(format!("the fine-tuned model has no layer {name:?}")));
            };
            let difference = moved(layer, *theirs)?;
            difference.check_finite("distil").map_err(|cause| {
                let message = format!("the difference at layer {name:?} is not finite: {}", cause.message());
                wrong(message).with_source(cause)
            })?;
            let differs = difference.max_abs()? > 0.0;
            differences.push((name, differs.then_some(difference)));
        }
        Ok(differences)
    }

    /// The adapters that stand for updates.
    fn adapters<T: Scalar, B: Module<T> + ?Sized>(
        &self,
        base: &B,
        differences: &[(String, Tensor<T>)],
    ) -> Result<Vec<(TruncatedRow, FloraAdapter<T>)>> {
        let layers: BTreeMap<String, _> = base.layers().into_iter().collect();
        let sites = differences.iter().map(|(name, _)| Site::of_layer(name.clone(), layers[name]));
        let sites = sites.collect::<Result<Vec<_>>>()?;
        let targets = self.truncation.targets::<T>(&sites)?;
        let mut adapters = Vec::new();
        for ((site, (name, difference)), target) in sites.iter().zip(differences).zip(&targets) {
            let (core, factors, lost) = truncated_dense(&in_mode_order(site, difference)?, target)?;
            let adapter = FloraAdapter::new(site, core, factors, 1.0)?;
            let row = TruncatedRow {
                name: name.clone(),
                shape: site.shape().to_vec(),
                before: site.modes(),
                ranks: adapter.ranks().to_vec(),
                parameters: adapter.count().total,
                lost,
            };
            adapters.push((row, adapter));
        }
        Ok(adapters)
    }
}

/// The name of a layer's weight among the parameters.
fn weight_of(layer: &str) -> String {
    if layer.is_empty() { "weight".to_string() } else { format!("{layer}.weight") }
}

/// The layers that map inputs to outputs, by the names of their weights.
fn mapping<T: Scalar, M: Module<T> + ?Sized>(model: &M) -> BTreeMap<String, &dyn Layer<T>> {
    let layers = model.layers().into_iter().filter(|(_, layer)| layer.operation().maps());
    layers.map(|(name, layer)| (weight_of(&name), layer)).collect()
}

/// The fine-tuned layer's weight without ours, each with its adapters.
fn moved<T: Scalar>(ours: &dyn Layer<T>, theirs: &dyn Layer<T>) -> Result<Tensor<T>> {
    let (ours, theirs) = without_gradients(|| Ok::<_, Error>((ours.effective_weight()?, theirs.effective_weight()?)))?;
    theirs.value().sub(ours.value())
}

/// An error for a kept weight with adapters that count, in one of the models: what would be taken over is not what it computes with.
fn check_kept<T: Scalar>(kept: &BTreeSet<String>, models: &[BTreeMap<String, &dyn Layer<T>>; 2]) -> Result<()> {
    let adapted = |layer: &dyn Layer<T>| layer.adapters().names().any(|name| layer.adapters().is_enabled(name));
    match models.iter().flatten().find(|(weight, layer)| kept.contains(*weight) && adapted(**layer)) {
        None => Ok(()),
        Some((weight, _)) => {
            let message =
                format!("{weight:?} is kept, and an adapter changes it; merge the adapter first (peft::merge)");
            Err(Error::new(ErrorKind::Unsupported, "distil", message))
        }
    }
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Value, "distil", message)
}

/// An error unless both models have the same parameters.
fn check_same<T: Scalar, B: Module<T> + ?Sized>(
    base: &B,
    theirs: &BTreeMap<String, &crate::nn::Parameter<T>>,
) -> Result<()> {
    let ours: BTreeMap<String, _> = own_parameters(base).into_iter().collect();
    let only = |a: &BTreeMap<String, _>, b: &BTreeMap<String, _>| -> Vec<String> {
        a.keys().filter(|name| !b.contains_key(*name)).cloned().collect()
    };
    let (missing, unexpected) = (only(&ours, theirs), only(theirs, &ours));
    if !missing.is_empty() || !unexpected.is_empty() {
        let list = |names: &[String]| match names.len() {
            0 => "nothing".to_string(),
            _ => listed(names.iter().map(String::as_str)),
        };
        let message = format!(
            "the models are not of one architecture: the fine-tuned one lacks {}, and has {} besides",
            list(&missing),
            list(&unexpected)
        );
        return Err(wrong(message));
    }
    for (name, parameter) in &ours {
        let (ours, theirs) = (parameter.shape(), theirs[name].shape());
        if ours != theirs {
            return Err(Error::shape("distil", format!("{name:?} has shape {ours:?}, and {theirs:?} fine-tuned")));
        }
    }
    Ok(())
}

impl fmt::Display for Distilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.truncated)?;
        if !self.unchanged.is_empty() {
            write!(f, "\nunchanged: {}", self.unchanged.join(", "))?;
        }
        if !self.kept.is_empty() {
            write!(f, "\ntaken over: {}", self.kept.join(", "))?;
        }
        let left =
            |(name, moved): &(String, f64)| write!(f, "\nnot taken over, though it moved by {moved:.1e}: {name}");
        self.left.iter().try_for_each(left)
    }
}
