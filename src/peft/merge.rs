//! [`merge`]: adapters folded into the weights, and taken out again exactly.

use crate::{
    autodiff::without_gradients,
    error::{Error, ErrorKind, Result},
    nn::{Adapters, Module},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;
use std::{collections::BTreeMap, fmt};

/// What a merge took out of the model: the weights as they were, and all adapters. [`unmerge`](Merged::unmerge) puts
/// them back.
///
/// Printed, it says how far each weight moved.
#[derive(Debug)]
pub struct Merged<T: Scalar> {
    taken: BTreeMap<String, Taken<T>>,
}

#[derive(Debug)]
struct Taken<T: Scalar> {
    weight: Tensor<T, IxDyn>,
    adapters: Adapters<T>,
    /// How far the weight moved; none where all adapters were disabled.
    moved: Option<f64>,
}

/// Folds every enabled adapter into its layer's weight. Afterwards the model has no adapters, disabled ones neither, costs what it cost
/// without them, and its weights have the names and shapes that they came with.
///
/// The original weights are kept (a reference each, no copy), so that taking the adapters out again is exact, which
/// subtracting an update is not. Memory: the new weights beside the old ones.
///
/// ```
/// use tenfold::{Tensor, autodiff::Var, nn::{Layer, Linear, Mode, Module}, peft::{self, Lora, Targets}};
///
/// let mut layer = Linear::<f64>::from_tensors(Tensor::eye(3)?, None)?;
/// peft::attach(&mut layer, &Lora::new(1), &Targets::all())?;
/// for (_, parameter) in layer.parameters_mut().into_iter().skip(1) {
///     parameter.value_mut().as_mut_slice()?.fill(0.5);
/// }
/// let x = Var::constant(Tensor::ones([1, 3])?);
/// let before = layer.forward(&x, Mode::Evaluation)?.into_value();
///
/// let merged = peft::merge(&mut layer)?;
/// assert_eq!(merged.max_difference(), 0.25);
/// assert!(layer.adapters().is_empty());
/// assert_eq!(layer.forward(&x, Mode::Evaluation)?.value(), &before);
///
/// merged.unmerge(&mut layer)?;
/// assert_eq!(layer.weight().value(), &Tensor::eye(3)?.into_dyn());
/// assert_eq!(layer.forward(&x, Mode::Evaluation)?.value(), &before);
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Value`] where no layer has an enabled adapter, and where a merged weight is not finite, with the
/// layer's name; [`ErrorKind::Unsupported`] for adapters that are no update of a weight, as bottlenecks. Nothing is changed then.
pub fn merge<T: Scalar>(model: &mut (impl Module<T> + ?Sized)) -> Result<Merged<T>> {
    let error = |message: String| Error::new(ErrorKind::Value, "merge", message);
    let mut merged = BTreeMap::new();
    for (name, layer) in model.layers() {
        if !layer.adapters().names().any(|adapter| layer.adapters().is_enabled(adapter)) {
            continue;
        }
        let weight = without_gradients(|| layer.effective_weight()).map_err(|cause| {
            let message = format!("layer {name:?}: {}; nothing was changed", cause.message());
            Error::new(cause.kind(), "merge", message).with_source(cause)
        })?;
        let weight = weight.into_value();
        weight.check_finite("merge").map_err(|cause| {
            let message = format!(
                "the merged weight of layer {name:?} would not be finite: {}; nothing was changed",
                cause.message()
            );
            error(message).with_source(cause)
        })?;
        let moved = weight.sub(layer.weight().value())?.max_abs()?;
        merged.insert(name, (weight, moved));
    }
    if merged.is_empty() {
        return Err(error("no layer has an enabled adapter".into()));
    }
    let mut taken = BTreeMap::new();
    for (name, layer) in model.layers_mut() {
        if layer.adapters().is_empty() {
            continue;
        }
        let adapters = std::mem::take(layer.adapters_mut());
        let original = layer.weight().value().clone();
        let mut moved = None;
        if let Some((weight, by)) = merged.remove(&name) {
            layer.weight_mut().set(weight)?;
            moved = Some(by);
        }
        taken.insert(name, Taken { weight: original, adapters, moved });
    }
    Ok(Merged { taken })
}

impl<T: Scalar> Merged<T> {
    /// The largest difference between an entry of a merged weight and of the original, over all layers.
    pub fn max_difference(&self) -> f64 {
        self.differences().map(|(_, moved)| moved).fold(0.0, f64::max)
    }

    /// The same for each layer that was merged.
    pub fn differences(&self) -> impl Iterator<Item = (&str, f64)> {
        self.taken.iter().filter_map(|(name, taken)| Some((name.as_str(), taken.moved?)))
    }

    /// Puts the original weights and the adapters back. What was done to the merged weights meanwhile is lost.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where the model is not the one that was merged: a layer is missing, has another shape, or
    /// has adapters again. Nothing is changed then.
    pub fn unmerge(self, model: &mut (impl Module<T> + ?Sized)) -> Result<()> {
        let error = |message: String| Err(Error::new(ErrorKind::Value, "unmerge", message));
        let layers: BTreeMap<String, _> = model.layers().into_iter().collect();
        for (name, taken) in &self.taken {
            let Some(layer) = layers.get(name) else {
                return error(format!("the model has no layer {name:?}; it is not the one that was merged"));
            };
            if layer.weight().shape() != taken.weight.shape() {
                let (now, then) = (layer.weight().shape(), taken.weight.shape());
                return error(format!(
                    "the weight of layer {name:?} has shape {now:?} and had {then:?} when it was merged"
                ));
            }
            if !layer.adapters().is_empty() {
                return error(format!("layer {name:?} has adapters again; detach them first"));
            }
        }
        let mut taken = self.taken;
        for (name, layer) in model.layers_mut() {
            if let Some(taken) = taken.remove(&name) {
                let mut adapters = taken.adapters;
                // The model may have been brought elsewhere meanwhile.
                adapters.to_device(layer.weight().value().device())?;
                layer.weight_mut().set(taken.weight)?;
                *layer.adapters_mut() = adapters;
            }
        }
        Ok(())
    }
}

impl<T: Scalar> fmt::Display for Merged<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers = self.differences().count();
        write!(f, "{layers} layers merged, entries moved by at most {:.3e}", self.max_difference())?;
        self.differences().try_for_each(|(name, moved)| write!(f, "\n{name}: {moved:.3e}"))
    }
}
