//! Bottlenecks in the folders of AdapterHub's library `adapters`: `adapter_config.json` beside `adapter.safetensors`, as
//! `model.save_adapter(folder, name, use_safetensors=True)` writes them and `model.load_adapter(folder, use_safetensors=True)` reads them.
//!
//! The bottleneck at the norm `BLOCK.output.LayerNorm` is called `BLOCK.output.adapters.NAME.adapter_down.0.weight`, and so on, there.
//!
//! Of the library's settings those are known that its configurations `double_seq_bn` (Houlsby et al.) and `seq_bn` (Pfeiffer et al.) have; others with
//! which it would compute something else are refused.

use super::{
    config::{self, FILE},
    format::{DOWN, Known, UP, bottleneck_parts, bottleneck_shapes},
    layout::{self, Layout, LoadedAdapter, Place, Required, Shapes},
};
use crate::{
    error::{Error, ErrorKind, Result},
    nn::{Activation, Checkpoint, Module, WeightAdapter},
    peft::{
        bottleneck::{BottleneckAdapter, Parts, Placement},
        site::Site,
    },
    scalar::Scalar,
    tensor::{Origin, Tensor, TensorFile},
};
use ndarray::Ix1;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path};

const TENSORS: &str = "adapter.safetensors";
const HEAD: &str = "model_head.safetensors";

/// The version of the library whose folders these are. It has to be in the file: without one `gelu` means something else.
const VERSION: &str = "adapters.1.3.0";

/// The norm that a bottleneck stands at, in the module that the library has it in.
const NORM: &str = ".LayerNorm";

/// `adapter_config.json` there.
#[derive(Debug, Deserialize)]
struct File {
    name: String,
    config: Config,
    /// The library's, which the folders of its predecessor do not have.
    version: Option<String>,
}

/// What decides about the numbers, under the library's names.
#[derive(Debug, Deserialize)]
struct Config {
    /// Whether a bottleneck sees normalised sums.
    original_ln_before: bool,
    non_linearity: String,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// Settings with the only value that is known here; what is left out has it.
const FIXED: [(&str, Value); 9] = [
    ("original_ln_after", Value::Bool(true)),
    ("residual_before_ln", Value::Bool(true)),
    ("adapter_residual_before_ln", Value::Bool(false)),
    ("ln_before", Value::Bool(false)),
    ("ln_after", Value::Bool(false)),
    ("is_parallel", Value::Bool(false)),
    ("use_gating", Value::Bool(false)),
    ("phm_layer", Value::Bool(false)),
    ("inv_adapter", Value::Null),
];

impl Config {
    fn check(&self, origin: &Origin<'_>) -> Result<()> {
        let refuse = |name: &str, value: &Value, right: &str| {
            let message = format!("{name:?} is {value}; only {right} is supported, as in double_seq_bn and seq_bn");
            Err(origin.error(ErrorKind::Unsupported, message))
        };
        for (name, right) in &FIXED {
            match self.other.get(*name) {
                Some(value) if value != right => return refuse(name, value, &right.to_string()),
                _ => {}
            }
        }
        for (name, right) in [("scaling", 1.0), ("dropout", 0.0), ("stochastic_depth", 0.0)] {
            match self.other.get(name) {
                Some(value) if value.as_f64() != Some(right) => return refuse(name, value, &right.to_string()),
                _ => {}
            }
        }
        Ok(())
    }

    fn placement(&self) -> Placement {
        if self.original_ln_before { Placement::Normalised } else { Placement::Result }
    }

    fn activation(&self, origin: &Origin<'_>, old: bool) -> Result<Activation> {
        let name = match self.non_linearity.as_str() {
            "gelu" if old => "gelu_new",
            "gelu_orig" if old => "gelu",
            other => other,
        };
        serde_json::from_value(Value::String(name.to_string())).map_err(|_| {
            let message = format!("\"non_linearity\" is {:?}, which is not here", self.non_linearity);
            origin.error(ErrorKind::Unsupported, message)
        })
    }
}

/// Writes the bottlenecks of a name into a folder for AdapterHub's library, under the same name.
///
/// What was trained beside them, a classifier say, is not in it: [`save`](crate::peft::save) keeps all of it.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{models::{Bert, BertConfig}, peft::{self, Bottleneck, Targets, adapterhub}};
///
/// let config = BertConfig { vocab_size: 50, hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2, ..BertConfig::default() };
/// let rng = &mut ChaCha8Rng::seed_from_u64(1);
/// let mut model = Bert::<f32>::new(config, rng)?;
/// let mut again = model.clone();
/// peft::attach(&mut model, &Bottleneck::pfeiffer(4), &Targets::all())?;
/// let folder = std::env::temp_dir().join("tenfold-adapterhub");
/// adapterhub::save(&model, "default", &folder)?;
/// let loaded = adapterhub::load(&mut again, "default", &folder)?;
/// assert_eq!(loaded.layers, ["bert.encoder.layer.0.output.LayerNorm"]);
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Value`] where there is no adapter of the name; [`ErrorKind::Unsupported`] for other methods, for places that are not called
/// `LayerNorm`, and for bottlenecks of different sizes, activations or placements; [`ErrorKind::Io`] where writing fails.
pub fn save<T: Scalar, M: Module<T> + ?Sized>(model: &M, name: &str, folder: impl AsRef<Path>) -> Result<()> {
    let unsupported = |message: String| Error::new(ErrorKind::Unsupported, "adapterhub::save", message);
    let (mut file, mut first) = (TensorFile::new(), None);
    let (mut after_attention, mut after_feed_forward) = (false, false);
    for (layer, found) in model.layers() {
        let Some(adapter) = found.adapters().get(name) else { continue };
        let Some(Known::Bottleneck(bottleneck)) = Known::of(adapter) else {
            return Err(unsupported(format!("the adapter of layer {layer:?} is no bottleneck")));
        };
        let Some(module) = layer.strip_suffix(NORM) else {
            return Err(unsupported(format!("the norm {layer:?} is not called LayerNorm, as the library has it")));
        };
        let same = |other: &BottleneckAdapter<T>| {
            let of = |b: &BottleneckAdapter<T>| (b.size(), b.weight_shape(), b.activation(), b.placement());
            of(other) == of(bottleneck)
        };
        if !same(first.get_or_insert(bottleneck)) {
            let message = format!("the bottleneck of layer {layer:?} differs from others; the folder describes one");
            return Err(unsupported(message));
        }
        match module.ends_with("attention.output") {
            true => after_attention = true,
            false => after_feed_forward = true,
        }
        let Parts { down, down_bias, up, up_bias } = bottleneck.parts()?;
        let bias = |bias: Option<Tensor<T, Ix1>>, n: usize| bias.map_or_else(|| Tensor::zeros([n]), Ok);
        let named = |part: &str| format!("{module}.adapters.{name}.{part}");
        file.insert(&named(DOWN[1]), &bias(down_bias, down.shape()[0])?)?;
        file.insert(&named(UP[1]), &bias(up_bias, up.shape()[0])?)?;
        file.insert(&named(DOWN[0]), &down)?;
        file.insert(&named(UP[0]), &up)?;
    }
    let Some(first) = first else {
        return Err(Error::new(ErrorKind::Value, "adapterhub::save", format!("no layer has an adapter {name:?}")));
    };
    let width: usize = first.weight_shape().iter().product();
    let mut config = json!({
        "non_linearity": first.activation(),
        "reduction_factor": reduction(width, first.size()),
        "original_ln_before": first.placement() == Placement::Normalised,
        "mh_adapter": after_attention,
        "output_adapter": after_feed_forward,
        "scaling": 1.0,
        "dropout": 0.0,
    });
    for (key, value) in FIXED {
        config[key] = value;
    }
    let config = json!({ "name": name, "hidden_size": width, "config": config, "version": VERSION });
    file.save_described("adapterhub::save", folder.as_ref(), TENSORS, (FILE, &format!("{config:#}\n")))
}

/// A number by which Python's `width // factor` is `size`.
fn reduction(width: usize, size: usize) -> Value {
    if width.is_multiple_of(size) {
        return (width / size).into();
    }
    let (n, m) = (width as f64, size as f64);
    let floored = |factor: f64| ((n - n % factor) / factor).round();
    let near = [n / m, (n / m).next_down(), n / (m + 0.5)];
    near.into_iter().find(|&factor| floored(factor) == m).unwrap_or(n / m).into()
}

/// Reads such a folder into a model, strictly, under a name. The bottlenecks train, and so does the head that lies beside them
/// (`model_head.safetensors`), if there is one; the model itself is frozen.
///
/// Adapters of an encoder alone are known by the ends of their names. The library's flexible heads, whose names begin with `heads.`, have other
/// parts than the models here and are refused: take the file away to read the adapter alone.
///
/// # Errors
/// As [`LoadAdapter::read`](crate::peft::LoadAdapter::read).
pub fn load<T: Scalar, M: Module<T> + ?Sized>(
    model: &mut M,
    name: &str,
    folder: impl AsRef<Path>,
) -> Result<LoadedAdapter> {
    let folder = folder.as_ref();
    let (described, path, head) = (folder.join(FILE), folder.join(TENSORS), folder.join(HEAD));
    let origin = Origin::file("adapterhub::load", &described);
    let File { name: theirs, config, version } = config::json(&origin)?;
    config.check(&origin)?;
    let (placement, activation) = (config.placement(), config.activation(&origin, version.is_none())?);
    let origin = Origin::file("adapterhub::load", &path);
    if !path.is_file() && folder.join("pytorch_adapter.bin").is_file() {
        let message = "is not there, and pytorch_adapter.bin is a pickle, which may run code when it is read; save the adapter again with \
                       use_safetensors=True";
        return Err(origin.error(ErrorKind::Io, message));
    }
    layout::check_free(&origin, model, name)?;
    let layers: Vec<String> = model.layers().into_iter().map(|(name, _)| name).collect();
    let layout = Theirs { within: format!(".adapters.{theirs}."), layers, activation, placement };
    let checkpoint = Checkpoint::open(&path)?;
    let mut incoming = layout::read(&origin, &checkpoint, &layout, &Required::default(), model, false)?;
    if head.is_file() {
        let (origin, checkpoint) = (Origin::file("adapterhub::load", &head), Checkpoint::open(&head)?);
        incoming.join(layout::read(&origin, &checkpoint, &Head, &Required::default(), model, false)?);
    }
    incoming.install(model, name)
}

struct Theirs {
    within: String,
    layers: Vec<String>,
    activation: Activation,
    placement: Placement,
}

impl<T: Scalar> Layout<T> for Theirs {
    fn place(&self, name: &str) -> Result<Option<Place>> {
        let Some((module, part)) = name.split_once(self.within.as_str()) else { return Ok(None) };
        if !DOWN.iter().chain(&UP).any(|name| *name == part) {
            return Ok(None);
        }
        let norm = format!("{module}{NORM}");
        // An encoder alone lacks the first part of its names.
        let mut found = self.layers.iter().filter(|layer| config::ends_with_part(layer, &norm));
        let layer = match (found.next(), found.next()) {
            (Some(layer), None) => layer.clone(),
            _ => norm,
        };
        Ok(Some(Place::Adapter { layer, part: part.to_string() }))
    }

    fn parts(&self, site: &Site<'_>, held: &Shapes) -> Result<Shapes> {
        let size = held.get(DOWN[0]).and_then(|down| down.first()).copied().unwrap_or(1);
        Ok(bottleneck_shapes(size, site.entries(), [true; 2]))
    }

    fn adapter(&self, site: &Site<'_>, mut parts: BTreeMap<String, Tensor<T>>) -> Result<Box<dyn WeightAdapter<T>>> {
        let take = |part: &str| {
            parts.remove(part).ok_or_else(|| {
                Error::new(ErrorKind::Value, "adapterhub::load", format!("layer {:?} has no {part:?}", site.name()))
            })
        };
        let parts = bottleneck_parts(take, [true; 2])?;
        Ok(Box::new(BottleneckAdapter::new(site, parts, self.activation, self.placement)?))
    }
}

/// A head under the model's own names.
struct Head;

impl<T: Scalar> Layout<T> for Head {
    fn place(&self, name: &str) -> Result<Option<Place>> {
        Ok(Some(Place::Own { name: name.to_string(), trains: true }))
    }

    fn parts(&self, _site: &Site<'_>, _held: &Shapes) -> Result<Shapes> {
        Ok(Shapes::new())
    }

    fn adapter(&self, site: &Site<'_>, _parts: BTreeMap<String, Tensor<T>>) -> Result<Box<dyn WeightAdapter<T>>> {
        let message = format!("layer {:?} has an adapter in a file of a head", site.name());
        Err(Error::new(ErrorKind::Unsupported, "adapterhub::load", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_that_gives_the_size() {
        for width in [8, 12, 100, 768, 1024] {
            for size in 1..=width {
                let factor = reduction(width, size).as_f64().unwrap();
                let n = width as f64;
                assert_eq!(((n - n % factor) / factor).round(), size as f64, "{width} // {factor}");
            }
        }
    }
}
