//! [`Format`]: what a folder's tensors are, by its configuration.
//!
//! | `peft_type` | a layer's tensors | |
//! |---|---|---|
//! | `LORA` | `lora_A.weight`, `lora_B.weight`; of an embedding `lora_embedding_A`, `lora_embedding_B` | as PEFT has them |
//! | | `lora_magnitude_vector`, with `use_dora` | `[out]`, for a convolution `[1, out, 1, ..]` |
//! | `LORA_K`, `LORA_EQ3` | the same, of convolutions in other forms | PEFT refuses the name |
//! | `ADALORA` | `lora_A`, `lora_B`, `lora_E` | as PEFT has them, pruned triplets left out; see `adalora.rs` |
//! | `FLORA` | `flora_G`, `flora_A.0`, `flora_A.1`, .. | core, and factors in the order input, output, kernel |
//! | `BOTTLENECK` | `adapter_down.0.weight`, `adapter_up.weight`, and biases | as AdapterHub names them, behind the norm's name |
//! | `PARAMETERS` | none | only parameters of the model itself |

use super::{
    adalora,
    config::{Config, FILE, Ranked},
    layout::{Layout, Place, Shapes, layer_before},
};
use crate::{
    error::{Error, ErrorKind, Result},
    nn::{Operation, WeightAdapter},
    peft::{
        adalora::AdaLoraAdapter,
        bottleneck::{BottleneckAdapter, Parts},
        dora::{DoraAdapter, Outputs},
        flora::FloraAdapter,
        lora::{LoraAdapter, LoraForm, Shapes as LoraShapes},
        site::Site,
    },
    scalar::Scalar,
    tensor::{Origin, Tensor},
};
use ndarray::Ix1;
use std::{any::Any, collections::BTreeMap};

/// Before every name, as PEFT wraps a model twice.
pub(super) const PREFIX: &str = "base_model.model.";

const MAGNITUDE: &str = "lora_magnitude_vector";
const CORE: &str = "flora_G";
const FACTOR: &str = "flora_A.";
/// A bottleneck's matrices and biases, as AdapterHub names them.
pub(super) const DOWN: [&str; 2] = ["adapter_down.0.weight", "adapter_down.0.bias"];
pub(super) const UP: [&str; 2] = ["adapter_up.weight", "adapter_up.bias"];

/// What kind of adapters a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Lora { form: LoraForm, dora: bool },
    AdaLora,
    Flora,
    Bottleneck,
    Parameters,
}

/// A layer's adapter by its own type.
#[derive(Debug, Clone, Copy)]
pub(super) enum Known<'a, T: Scalar> {
    Lora(&'a LoraAdapter<T>),
    Dora(&'a DoraAdapter<T>),
    AdaLora(&'a AdaLoraAdapter<T>),
    Flora(&'a FloraAdapter<T>),
    Bottleneck(&'a BottleneckAdapter<T>),
}

impl<'a, T: Scalar> Known<'a, T> {
    pub(super) fn of(adapter: &'a dyn WeightAdapter<T>) -> Option<Self> {
        let any = adapter as &dyn Any;
        any.downcast_ref()
            .map(Self::Lora)
            .or_else(|| any.downcast_ref().map(Self::Dora))
            .or_else(|| any.downcast_ref().map(Self::AdaLora))
            .or_else(|| any.downcast_ref().map(Self::Flora))
            .or_else(|| any.downcast_ref().map(Self::Bottleneck))
    }

    /// The format that holds it, for a layer of this kind: the forms of LoRA differ for convolutions only.
    pub(super) fn format(self, site: &Site<'_>) -> Format {
        let form = |lora: &LoraAdapter<T>| match site.operation() {
            Operation::Linear | Operation::Embedding { .. } | Operation::Residual(_) => LoraForm::Channels,
            Operation::Conv(_) | Operation::ConvTranspose(_) => lora.form(),
        };
        match self {
            Self::Lora(lora) => Format::Lora { form: form(lora), dora: false },
            Self::Dora(dora) => Format::Lora { form: form(dora.lora()), dora: true },
            Self::AdaLora(_) => Format::AdaLora,
            Self::Flora(_) => Format::Flora,
            Self::Bottleneck(_) => Format::Bottleneck,
        }
    }

    /// Its tensors by the names of the parts.
    pub(super) fn parts(self, site: &Site<'_>) -> Result<BTreeMap<String, Tensor<T>>> {
        let of_lora = |lora: &LoraAdapter<T>| {
            let [a, b] = lora_names(site);
            BTreeMap::from([(a.to_string(), lora.a().value().clone()), (b.to_string(), lora.b().value().clone())])
        };
        Ok(match self {
            Self::Lora(lora) => of_lora(lora),
            Self::Dora(dora) => {
                let mut parts = of_lora(dora.lora());
                let magnitude = dora.magnitude().value().reshape(magnitude_shape(site).as_slice())?;
                parts.insert(MAGNITUDE.to_string(), magnitude.into_dyn());
                parts
            }
            Self::AdaLora(adalora) => adalora::parts(site, adalora)?,
            Self::Flora(flora) => {
                let factors = flora.factors().iter().enumerate();
                let factors = factors.map(|(n, factor)| (format!("{FACTOR}{n}"), factor.value().clone()));
                factors.chain([(CORE.to_string(), flora.core().value().clone())]).collect()
            }
            Self::Bottleneck(bottleneck) => {
                let Parts { down, down_bias, up, up_bias } = bottleneck.parts()?;
                let dyn_bias = |bias: Option<Tensor<T, Ix1>>| bias.map(Tensor::into_dyn);
                let all = [Some(down.into_dyn()), dyn_bias(down_bias), Some(up.into_dyn()), dyn_bias(up_bias)];
                let named = DOWN.into_iter().chain(UP).zip(all);
                named.filter_map(|(name, tensor)| Some((name.to_string(), tensor?))).collect()
            }
        })
    }
}

/// The shapes of a bottleneck's tensors, with biases or without.
pub(super) fn bottleneck_shapes(size: usize, width: usize, biases: [bool; 2]) -> Shapes {
    let sides = [(DOWN, [size, width]), (UP, [width, size])].into_iter().zip(biases);
    let each = sides.flat_map(|(([weight, bias], shape), has_bias)| {
        let bias = has_bias.then(|| (bias.to_string(), vec![shape[0]]));
        bias.into_iter().chain([(weight.to_string(), shape.to_vec())])
    });
    each.collect()
}

/// A bottleneck's tensors, taken by their names.
pub(super) fn bottleneck_parts<T: Scalar>(
    mut take: impl FnMut(&str) -> Result<Tensor<T>>,
    biases: [bool; 2],
) -> Result<Parts<T>> {
    let [down, up] = [take(DOWN[0])?.into_order()?, take(UP[0])?.into_order()?];
    let mut bias = |name: &str, has: bool| if has { take(name)?.into_order().map(Some) } else { Ok(None) };
    Ok(Parts { down, down_bias: bias(DOWN[1], biases[0])?, up, up_bias: bias(UP[1], biases[1])? })
}

/// What PEFT calls A and B.
fn lora_names(site: &Site<'_>) -> [&'static str; 2] {
    match site.operation() {
        Operation::Embedding { .. } => ["lora_embedding_A", "lora_embedding_B"],
        _ => ["lora_A.weight", "lora_B.weight"],
    }
}

/// The lengths of DoRA in a file: PEFT keeps those of a convolution as they are multiplied with its result.
fn magnitude_shape(site: &Site<'_>) -> Vec<usize> {
    let outputs = Outputs::of(site).count();
    match site.operation() {
        Operation::Conv(_) => [&[1, outputs], &vec![1; site.shape().len() - 2][..]].concat(),
        _ => vec![outputs],
    }
}

impl Format {
    /// The name that the configuration has for it.
    pub(super) fn peft_type(self) -> &'static str {
        match self {
            Self::Lora { form: LoraForm::Channels, .. } => "LORA",
            Self::Lora { form: LoraForm::Kernel, .. } => "LORA_K",
            Self::Lora { form: LoraForm::Equation3, .. } => "LORA_EQ3",
            Self::AdaLora => "ADALORA",
            Self::Flora => "FLORA",
            Self::Bottleneck => "BOTTLENECK",
            Self::Parameters => "PARAMETERS",
        }
    }

    /// What a configuration names.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for methods that are not here.
    pub(super) fn of(config: &Config, origin: &Origin<'_>) -> Result<Self> {
        let dora = config.use_dora.unwrap_or(false);
        let lora = |form| Self::Lora { form, dora };
        let all = [
            lora(LoraForm::Channels),
            lora(LoraForm::Kernel),
            lora(LoraForm::Equation3),
            Self::AdaLora,
            Self::Flora,
            Self::Bottleneck,
            Self::Parameters,
        ];
        all.into_iter().find(|format| format.peft_type() == config.peft_type).ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|format| format.peft_type()).collect();
            let message = format!(
                "adapters of peft_type {:?} are not supported; supported are {}. Merge them where they come from, and load \
                 the merged weights",
                config.peft_type,
                names.join(", ")
            );
            origin.error(ErrorKind::Unsupported, message)
        })
    }
}

/// A folder's configuration, and the tensors that it means.
#[derive(Debug)]
pub(super) struct Folder<'a> {
    pub(super) format: Format,
    pub(super) config: &'a Config,
}

impl Folder<'_> {
    /// LoRA's rank and scale for a layer.
    fn rank_and_scale(&self, layer: &str) -> Result<(usize, f64)> {
        let wrong = |message: String| Err(Error::format("load", format!("{FILE}: {message}")));
        let regex = |e: regex_lite::Error| {
            let message = format!("{FILE}: a pattern is no regular expression: {e}");
            Error::format("load", message).with_source(e)
        };
        let pattern = match &self.config.rank_pattern {
            Some(patterns) => patterns.value(layer).map_err(regex)?,
            None => None,
        };
        let rank = match pattern {
            Some(Ranked::Rank(rank)) => Some(rank),
            Some(Ranked::Kept(_)) => {
                return wrong(format!("the rank of layer {layer:?} is a list; LoRA needs a number"));
            }
            None => self.config.r,
        };
        let alpha = match &self.config.alpha_pattern {
            Some(patterns) => patterns.value(layer).map_err(regex)?.or(self.config.lora_alpha),
            None => self.config.lora_alpha,
        };
        match (rank, alpha) {
            (None, _) => wrong(format!("there is no rank \"r\" for layer {layer:?}")),
            (Some(0), _) => wrong(format!("the rank of layer {layer:?} is 0; the smallest is 1")),
            (_, None) => wrong(format!("there is no \"lora_alpha\" for layer {layer:?}")),
            (Some(rank), Some(alpha)) => {
                let root = self.config.use_rslora.unwrap_or(false);
                Ok((rank, if root { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 }))
            }
        }
    }

    fn bottleneck(&self, layer: &str) -> Result<&super::config::BottleneckLayer> {
        self.config.bottlenecks.as_ref().and_then(|layers| layers.get(layer)).ok_or_else(|| {
            let message = format!("{FILE}: \"bottlenecks\" does not say what the one of layer {layer:?} is");
            Error::format("load", message)
        })
    }

    fn flora_layer(&self, layer: &str) -> Result<&super::config::FloraLayer> {
        self.config.layers.as_ref().and_then(|layers| layers.get(layer)).ok_or_else(|| {
            let message = format!("{FILE}: \"layers\" has no ranks and scale for layer {layer:?}");
            Error::format("load", message)
        })
    }
}

impl<T: Scalar> Layout<T> for Folder<'_> {
    fn place(&self, name: &str) -> Result<Option<Place>> {
        let Some(name) = name.strip_prefix(PREFIX) else { return Ok(None) };
        let part_of = |end: &str| name.strip_suffix(end).and_then(layer_before);
        let adapter = |layer: &str, part: &str| Place::Adapter { layer: layer.to_string(), part: part.to_string() };
        match self.format {
            Format::Lora { .. } => {
                let ends = ["lora_A.weight", "lora_B.weight", "lora_embedding_A", "lora_embedding_B", MAGNITUDE];
                if let Some((layer, end)) = ends.iter().find_map(|end| Some((part_of(end)?, end))) {
                    return Ok(Some(adapter(layer, end)));
                }
            }
            Format::AdaLora => {
                if let Some((layer, end)) = adalora::PARTS.iter().find_map(|end| Some((part_of(end)?, end))) {
                    return Ok(Some(adapter(layer, end)));
                }
            }
            Format::Flora => {
                if let Some(layer) = part_of(CORE) {
                    return Ok(Some(adapter(layer, CORE)));
                }
                if let Some((layer, n)) = name.rsplit_once(FACTOR)
                    && let Some(layer) = layer_before(layer)
                    && n.parse::<u8>().is_ok_and(|number| number.to_string() == n)
                {
                    return Ok(Some(adapter(layer, &format!("{FACTOR}{n}"))));
                }
            }
            Format::Bottleneck => {
                if let Some((layer, end)) = DOWN.iter().chain(&UP).find_map(|end| Some((part_of(end)?, end))) {
                    return Ok(Some(adapter(layer, end)));
                }
            }
            Format::Parameters => {}
        }
        // With biases PEFT writes a saved module's twice more: as it was before, and inside its wrapper.
        if name.contains(".original_module.")
            || name.contains(".modules_to_save.")
            || name.ends_with(".num_batches_tracked")
        {
            return Ok(Some(Place::Nowhere));
        }
        // A layer that is wrapped; its weight has an adapter and stays.
        let own = name.replacen(".base_layer.", ".", 1);
        Ok(Some(Place::Own { trains: !name.ends_with(".base_layer.weight"), name: own }))
    }

    fn may_be_empty(&self) -> bool {
        self.format == Format::AdaLora
    }

    fn parts(&self, site: &Site<'_>, held: &Shapes) -> Result<Shapes> {
        match self.format {
            Format::Lora { form, dora } => {
                let (rank, _) = self.rank_and_scale(site.name())?;
                let shapes = LoraShapes::new(form, site, rank)?;
                let names = lora_names(site);
                let channels = site.shape()[1] * site.groups();
                if site.groups() > 1
                    && matches!(site.operation(), Operation::Conv(_))
                    && held.get(names[0]).is_some_and(|a| a.get(1) == Some(&channels))
                {
                    let message = format!(
                        "layer {:?} has {} groups, and A in the file sees the channels of all of them, as PEFT has it: that is no update \
                         of the layer's weight. Adapt the layer anew",
                        site.name(),
                        site.groups()
                    );
                    return Err(Error::new(ErrorKind::Unsupported, "load", message));
                }
                let mut parts: Shapes = names.map(str::to_string).into_iter().zip([shapes.a, shapes.b]).collect();
                if dora {
                    parts.insert(MAGNITUDE.to_string(), magnitude_shape(site));
                }
                Ok(parts)
            }
            Format::AdaLora => adalora::shapes(self.config, site),
            Format::Flora => {
                let (ranks, sizes) = (&self.flora_layer(site.name())?.ranks, site.modes());
                if ranks.len() != sizes.len() || ranks.contains(&0) {
                    let message = format!(
                        "{FILE}: ranks {ranks:?} for layer {:?}, whose modes have sizes {sizes:?}",
                        site.name()
                    );
                    return Err(Error::format("load", message));
                }
                let factors = sizes.iter().zip(ranks).enumerate();
                let factors = factors.map(|(n, (&size, &rank))| (format!("{FACTOR}{n}"), vec![size, rank]));
                Ok(factors.chain([(CORE.to_string(), ranks.clone())]).collect())
            }
            Format::Bottleneck => {
                let layer = self.bottleneck(site.name())?;
                Ok(bottleneck_shapes(layer.size, site.entries(), layer.biases))
            }
            Format::Parameters => Ok(Shapes::new()),
        }
    }

    fn adapter(&self, site: &Site<'_>, mut parts: BTreeMap<String, Tensor<T>>) -> Result<Box<dyn WeightAdapter<T>>> {
        let mut take = |name: &str| {
            parts.remove(name).ok_or_else(|| {
                let message = format!("layer {:?} has no {name:?}", site.name());
                Error::new(ErrorKind::Value, "load", message)
            })
        };
        match self.format {
            Format::Lora { form, dora } => {
                let ([a, b], (_, scale)) = (lora_names(site), self.rank_and_scale(site.name())?);
                let dropout = self.config.lora_dropout.unwrap_or(0.0);
                let lora = LoraAdapter::new(site, form, take(a)?, take(b)?, scale)?.dropout(dropout)?;
                if !dora {
                    return Ok(Box::new(lora));
                }
                let magnitude = take(MAGNITUDE)?;
                let magnitude = magnitude.reshape([magnitude.len()].as_slice())?.into_dyn();
                Ok(Box::new(DoraAdapter::with_magnitude(site, lora, magnitude)?))
            }
            Format::AdaLora => {
                let [a, b, e] = adalora::PARTS.map(&mut take);
                Ok(Box::new(adalora::adapter(self.config, site, [a?, b?, e?])?))
            }
            Format::Flora => {
                let layer = self.flora_layer(site.name())?;
                let factors = (0..layer.ranks.len()).map(|n| take(&format!("{FACTOR}{n}"))?.into_order());
                let factors = factors.collect::<Result<_>>()?;
                let adapter = FloraAdapter::new(site, take(CORE)?, factors, layer.scale)?;
                Ok(Box::new(adapter.dropout(layer.dropout)?))
            }
            Format::Bottleneck => {
                let layer = self.bottleneck(site.name())?;
                let parts = bottleneck_parts(take, layer.biases)?;
                Ok(Box::new(BottleneckAdapter::new(site, parts, layer.activation, layer.placement)?))
            }
            Format::Parameters => {
                let message = format!("layer {:?} has an adapter in a file without adapters", site.name());
                Err(Error::new(ErrorKind::Unsupported, "load", message))
            }
        }
    }
}
