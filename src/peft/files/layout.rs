//! [`Layout`]: how a kind of file names the tensors of adapters, and reading any of them into a model.
//!
//! Everything that can be wrong is found before the model is touched: [`read`] compares all names, shapes and types and
//! makes the adapters, [`Incoming::install`] puts them in.

use crate::{
    error::{Error, ErrorKind, Result},
    nn::{
        Buffer, Module, Visitor, WeightAdapter,
        checkpoint::{Checkpoint, Differences},
    },
    peft::{
        attach::{own_parameters, own_parameters_mut},
        named,
        site::Site,
    },
    scalar::Scalar,
    tensor::{Origin, Tensor},
};
use std::collections::{BTreeMap, BTreeSet};

/// Where a tensor of a file belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A part of the adapter of a layer.
    Adapter { layer: String, part: String },
    /// A tensor of the model itself.
    Own { name: String, trains: bool },
    /// It says what another tensor of the file says.
    Nowhere,
}

/// Tensors' shapes by the parts that they are.
pub(super) type Shapes = BTreeMap<String, Vec<usize>>;

/// How a kind of file holds adapters.
pub(super) trait Layout<T: Scalar> {
    /// Where a tensor belongs, by its name; `None` where it is none of this kind.
    fn place(&self, name: &str) -> Result<Option<Place>>;

    /// Whether an adapter may have rank 0.
    fn may_be_empty(&self) -> bool {
        false
    }

    /// The parts of a layer's adapter and the shapes that they should have, from those that they have.
    fn parts(&self, site: &Site<'_>, held: &Shapes) -> Result<Shapes>;

    /// The adapter with these parts.
    fn adapter(&self, site: &Site<'_>, parts: BTreeMap<String, Tensor<T>>) -> Result<Box<dyn WeightAdapter<T>>>;
}

/// The name of a layer's part; a model that is a layer itself has no name.
pub(super) fn joined(layer: &str, part: &str) -> String {
    if layer.is_empty() { part.to_string() } else { format!("{layer}.{part}") }
}

/// The layer that a name begins with, from what is before the part.
pub(super) fn layer_before(before: &str) -> Option<&str> {
    if before.is_empty() { Some("") } else { before.strip_suffix('.') }
}

/// What has to be in a file, whatever else is.
#[derive(Debug, Default)]
pub(super) struct Required {
    /// Layers with an adapter.
    pub(super) layers: BTreeSet<String>,
    /// The model's own tensors.
    pub(super) own: BTreeSet<String>,
}

/// What a file holds for a model, read and checked.
#[derive(Debug)]
pub(super) struct Incoming<T: Scalar> {
    adapters: BTreeMap<String, Box<dyn WeightAdapter<T>>>,
    own: BTreeMap<String, Tensor<T>>,
    /// Those of the model's own tensors that train from now on.
    training: BTreeSet<String>,
}

/// The parameters and buffers of a model, without those of adapters.
pub(super) fn own_tensors<T: Scalar, M: Module<T> + ?Sized>(model: &M) -> BTreeMap<String, Tensor<T>> {
    let mut all: BTreeMap<String, Tensor<T>> =
        own_parameters(model).into_iter().map(|(name, parameter)| (name, parameter.value().clone())).collect();
    all.extend(own_buffers(model).into_iter().map(|(name, buffer)| (name, buffer.value())));
    all
}

/// The buffers of a model, without those of adapters.
pub(super) fn own_buffers<T: Scalar, M: Module<T> + ?Sized>(model: &M) -> Vec<(String, &Buffer<T>)> {
    let mut all = Vec::new();
    let mut meet = |name: &str, buffer| all.push((name.to_string(), buffer));
    model.visit(&mut Visitor::buffers(&mut meet).without_adapters());
    all
}

/// Reads a file for a model: all that is in it, and at least what is required.
///
/// # Errors
/// [`ErrorKind::Value`] listing what is missing and what is unexpected, [`ErrorKind::Shape`] listing shapes that differ,
/// [`ErrorKind::Unsupported`] listing types that would be rounded where `round` does not say so, and the errors of the
/// layout.
pub(super) fn read<T: Scalar, M: Module<T> + ?Sized>(
    origin: &Origin<'_>,
    checkpoint: &Checkpoint,
    layout: &dyn Layout<T>,
    required: &Required,
    model: &M,
    round: bool,
) -> Result<Incoming<T>> {
    let mut differences = Differences::default();
    let mut layers: BTreeMap<String, BTreeMap<String, &str>> =
        required.layers.iter().map(|layer| (layer.clone(), BTreeMap::new())).collect();
    let (mut own, mut training) = (BTreeMap::new(), BTreeSet::new());
    for name in checkpoint.names() {
        let before = match layout.place(name)? {
            None => {
                differences.unexpected(name);
                continue;
            }
            Some(Place::Nowhere) => continue,
            Some(Place::Adapter { layer, part }) => layers.entry(layer).or_default().insert(part, name),
            Some(Place::Own { name: own_name, trains }) => {
                if trains {
                    training.insert(own_name.clone());
                }
                own.insert(own_name, name)
            }
        };
        if let Some(before) = before {
            let message = format!("{before:?} and {name:?} in the file are the same tensor of the model");
            return Err(origin.error(ErrorKind::Value, message));
        }
    }
    let compare = |differences: &mut Differences, name: &str, wanted: &[usize]| {
        differences.shape(name, checkpoint.shape(name)?, wanted);
        differences.dtype::<T>(name, checkpoint.dtype(name)?, round);
        Ok::<_, Error>(())
    };

    let there: BTreeMap<String, _> = model.layers().into_iter().collect();
    let mut sites = BTreeMap::new();
    for (layer, names) in &layers {
        let Some(found) = there.get(layer) else {
            names.values().for_each(|name| differences.unexpected(*name));
            continue;
        };
        let site = Site::of_layer(layer.clone(), *found)?;
        let held = names.iter().map(|(part, name)| Ok((part.clone(), checkpoint.shape(name)?.to_vec())));
        let parts = layout.parts(&site, &held.collect::<Result<_>>()?)?;
        if let Some((part, shape)) = parts.iter().find(|(_, shape)| shape.contains(&0) && !layout.may_be_empty()) {
            let message = format!("{:?} has rank 0, shape {shape:?}; the smallest is 1", joined(layer, part));
            return Err(origin.error(ErrorKind::Rank, message));
        }
        for (part, wanted) in &parts {
            match names.get(part) {
                None => differences.missing(joined(layer, part)),
                Some(name) => compare(&mut differences, name, wanted)?,
            }
        }
        let strange = names.iter().filter(|(part, _)| !parts.contains_key(*part));
        strange.for_each(|(_, name)| differences.unexpected(*name));
        sites.insert(layer, site);
    }
    let tensors = own_tensors(model);
    for (own_name, name) in &own {
        match tensors.get(own_name) {
            None => differences.unexpected(*name),
            Some(tensor) => compare(&mut differences, name, tensor.shape())?,
        }
    }
    required.own.iter().filter(|name| !own.contains_key(*name)).for_each(|name| differences.missing(name));
    differences.check(origin)?;

    let mut incoming = Incoming { adapters: BTreeMap::new(), own: BTreeMap::new(), training };
    for (layer, names) in &layers {
        let parts = names.iter().map(|(part, name)| Ok((part.clone(), checkpoint.rounded(name)?)));
        let adapter = layout.adapter(&sites[layer], parts.collect::<Result<_>>()?)?;
        incoming.adapters.insert(layer.clone(), adapter);
    }
    for (own_name, name) in own {
        incoming.own.insert(own_name, checkpoint.rounded(name)?);
    }
    Ok(incoming)
}

/// An error where a layer of the model has an adapter of this name.
pub(super) fn check_free<T: Scalar, M: Module<T> + ?Sized>(origin: &Origin<'_>, model: &M, name: &str) -> Result<()> {
    named::check_free(name, &model.layers()).map_err(|message| origin.error(ErrorKind::Value, message))
}

/// What was put into a model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadedAdapter {
    /// The layers that have an adapter now.
    pub layers: Vec<String>,
    /// The model's own parameters and buffers that were set: a head, biases, running means.
    pub own: Vec<String>,
}

impl<T: Scalar> Incoming<T> {
    /// With what another file holds.
    pub(super) fn join(&mut self, other: Self) {
        self.adapters.extend(other.adapters);
        self.own.extend(other.own);
        self.training.extend(other.training);
    }

    /// Attaches the adapters under a name and sets the model's own tensors. Of these those train that are said to, and
    /// nothing else of the model itself.
    pub(super) fn install<M: Module<T> + ?Sized>(mut self, model: &mut M, name: &str) -> Result<LoadedAdapter> {
        let loaded =
            LoadedAdapter { layers: self.adapters.keys().cloned().collect(), own: self.own.keys().cloned().collect() };
        for (layer_name, layer) in model.layers_mut() {
            if let Some(mut adapter) = self.adapters.remove(&layer_name) {
                adapter.to_device(layer.weight().value().device())?;
                layer.attach_boxed(name, adapter)?;
            }
        }
        for (own_name, buffer) in own_buffers(model) {
            self.own.remove(&own_name).map_or(Ok(()), |value| buffer.set(value))?;
        }
        for (own_name, parameter) in own_parameters_mut(model) {
            self.own.remove(&own_name).map_or(Ok(()), |value| parameter.set(value))?;
            if self.training.contains(&own_name) { parameter.unfreeze() } else { parameter.freeze() }
        }
        Ok(loaded)
    }
}
