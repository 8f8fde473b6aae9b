//! The tensors of FLoRA's authors' programs, in one `.safetensors` file.
//!
//! | [`Names`] | core $G$ | $A_{in}$ | $A_{out}$ | kernel |
//! |---|---|---|---|---|
//! | `Layers`: their layers for images | `LAYER.flora_layer.param_G` | `.param_0` | `.param_1` | `.param_2`, .. |
//! | `Matrices`: their code for GLUE | `LAYER.lora_E` $= G^T$ | `LAYER.lora_A` $= A_{in}^T$ | `LAYER.lora_B` | |
//!
//! Modes are in the order input, output, kernel, as here. **The scale is not in the file**: writing returns it, reading
//! takes it. The rest of a model may be in the same file, under its own names or behind `.base_layer`; it is set, and
//! stays frozen.

use super::{
    format::Known,
    layout::{self, Layout, LoadedAdapter, Place, Required, Shapes, joined, layer_before},
};
use crate::{
    error::{Error, ErrorKind, Result},
    nn::{Checkpoint, Module, Operation, WeightAdapter},
    peft::{flora::FloraAdapter, site::Site},
    scalar::Scalar,
    tensor::{Origin, Tensor, TensorFile},
};
use std::{collections::BTreeMap, path::Path};

const PARAMETER: &str = "flora_layer.param_";

/// What the tensors are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Those of the layers for images: weights of any order.
    Layers,
    /// Those of the code for GLUE: linear layers only.
    Matrices,
}

/// Writes the FLoRA adapters of a name, and returns their scale, which the file does not have.
///
/// ```
/// use tenfold::{nn::Linear, peft::{self, Flora, Targets, authors::{self, Names}}};
///
/// let path = std::env::temp_dir().join("tenfold-authors.safetensors");
/// let mut model = vec![Linear::<f32>::zeros(8, 6)?];
/// peft::attach(&mut model, &Flora::new().rank(4).scale(0.4), &Targets::all())?;
/// let scale = authors::save(&model, "default", Names::Layers, &path)?;
///
/// let mut again = vec![Linear::<f32>::zeros(8, 6)?];
/// authors::load(&mut again, "default", scale, &path)?;
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Value`] where there is no adapter of the name; [`ErrorKind::Unsupported`] for other methods, where
/// layers have different scales, and for embeddings and groups, which their layers do not have; those of
/// [`TensorFile::save`].
pub fn save<T: Scalar, M: Module<T> + ?Sized>(
    model: &M,
    name: &str,
    names: Names,
    path: impl AsRef<Path>,
) -> Result<f64> {
    let unsupported = |message: String| Error::new(ErrorKind::Unsupported, "authors::save", message);
    let (mut file, mut scale) = (TensorFile::new(), None);
    for (layer, found) in model.layers() {
        let Some(adapter) = found.adapters().get(name) else { continue };
        let Some(Known::Flora(flora)) = Known::of(adapter) else {
            return Err(unsupported(format!("the adapter of layer {layer:?} is not FLoRA")));
        };
        check("authors::save", &Site::of_layer(layer.clone(), found)?, names)?;
        if *scale.get_or_insert(flora.scale()) != flora.scale() {
            let message = format!("layer {layer:?} has scale {}, others {scale:?}; the file has none", flora.scale());
            return Err(unsupported(message));
        }
        let (core, factors) = (flora.core().value(), flora.factors());
        match names {
            Names::Layers => {
                file.insert(&joined(&layer, &format!("{PARAMETER}G")), core)?;
                for (n, factor) in factors.iter().enumerate() {
                    file.insert(&joined(&layer, &format!("{PARAMETER}{n}")), factor.value())?;
                }
            }
            Names::Matrices => {
                file.insert(&joined(&layer, "lora_E"), &core.permute(&[1, 0])?)?;
                file.insert(&joined(&layer, "lora_A"), &factors[0].value().permute(&[1, 0])?)?;
                file.insert(&joined(&layer, "lora_B"), factors[1].value())?;
            }
        }
    }
    let scale = scale
        .ok_or_else(|| Error::new(ErrorKind::Value, "authors::save", format!("no layer has an adapter {name:?}")))?;
    file.save(path)?;
    Ok(scale)
}

/// Reads such a file into a model, strictly, with the scale that it was trained with, and attaches FLoRA under a name.
/// Which names the file has is seen. The adapters train, the model itself is frozen.
///
/// # Errors
/// As [`LoadAdapter::read`](crate::peft::LoadAdapter::read).
pub fn load<T: Scalar, M: Module<T> + ?Sized>(
    model: &mut M,
    name: &str,
    scale: f64,
    path: impl AsRef<Path>,
) -> Result<LoadedAdapter> {
    let path = path.as_ref();
    let origin = Origin::file("authors::load", path);
    let checkpoint = Checkpoint::open(path)?;
    layout::check_free(&origin, model, name)?;
    layout::read(&origin, &checkpoint, &Theirs { scale }, &Required::default(), model, false)?.install(model, name)
}

/// An error for layers that their programs do not have.
fn check(operation: &'static str, site: &Site<'_>, names: Names) -> Result<()> {
    let reason = match site.operation() {
        Operation::Embedding { .. } => "theirs adds one row to all, here every row has its own update",
        Operation::ConvTranspose(_) => "they have no transposed convolution",
        Operation::Residual(_) => "theirs change weights with inputs and outputs",
        Operation::Conv(_) if site.groups() > 1 => "theirs has no groups",
        Operation::Conv(_) if names == Names::Matrices => "their matrices are for linear layers",
        Operation::Linear | Operation::Conv(_) => return Ok(()),
    };
    let message = format!("layer {:?}: {reason}; {}", site.name(), super::plain::MERGED);
    Err(Error::new(ErrorKind::Unsupported, operation, message))
}

struct Theirs {
    scale: f64,
}

/// The parts with names of either kind.
fn names_of(held: &Shapes) -> Names {
    if held.keys().any(|part| part.starts_with("lora_")) { Names::Matrices } else { Names::Layers }
}

impl<T: Scalar> Layout<T> for Theirs {
    fn place(&self, name: &str) -> Result<Option<Place>> {
        let adapter =
            |layer: &str, part: &str| Some(Place::Adapter { layer: layer.to_string(), part: part.to_string() });
        if let Some((layer, part)) = name.rsplit_once(PARAMETER)
            && let Some(layer) = layer_before(layer)
        {
            return Ok(adapter(layer, &format!("{PARAMETER}{part}")));
        }
        let (layer, part) = name.rsplit_once('.').unwrap_or(("", name));
        if ["lora_E", "lora_A", "lora_B"].contains(&part) {
            return Ok(adapter(layer, part));
        }
        Ok(Some(Place::Own { name: name.replacen(".base_layer.", ".", 1), trains: false }))
    }

    fn parts(&self, site: &Site<'_>, held: &Shapes) -> Result<Shapes> {
        let names = names_of(held);
        check("authors::load", site, names)?;
        let sizes = site.modes();
        let core = match names {
            Names::Layers => held.get(&format!("{PARAMETER}G")),
            Names::Matrices => held.get("lora_E"),
        };
        // Of a core that is missing or has another order nothing follows: rank 1 is as good as any.
        let ranks = core.filter(|core| core.len() == sizes.len()).cloned().unwrap_or(vec![1; sizes.len()]);
        if names == Names::Matrices {
            let parts =
                [("lora_E", ranks.clone()), ("lora_A", vec![ranks[1], sizes[0]]), ("lora_B", vec![sizes[1], ranks[0]])];
            return Ok(parts.map(|(part, shape)| (part.to_string(), shape)).into());
        }
        let factors = sizes.iter().zip(&ranks).enumerate();
        let mut parts: Shapes =
            factors.map(|(n, (&size, &rank))| (format!("{PARAMETER}{n}"), vec![size, rank])).collect();
        parts.insert(format!("{PARAMETER}G"), ranks);
        Ok(parts)
    }

    fn adapter(&self, site: &Site<'_>, mut parts: BTreeMap<String, Tensor<T>>) -> Result<Box<dyn WeightAdapter<T>>> {
        let mut take = |part: &str| {
            parts.remove(part).ok_or_else(|| {
                Error::new(ErrorKind::Value, "authors::load", format!("layer {:?} has no {part:?}", site.name()))
            })
        };
        let (core, factors) = if let Ok(e) = take("lora_E") {
            let a: Tensor<T, ndarray::Ix2> = take("lora_A")?.into_order()?;
            (e.permute(&[1, 0])?.to_contiguous()?, vec![a.t().to_contiguous()?, take("lora_B")?.into_order()?])
        } else {
            let factors = (0..site.shape().len()).map(|n| take(&format!("{PARAMETER}{n}"))?.into_order());
            let factors = factors.collect::<Result<_>>()?;
            (take(&format!("{PARAMETER}G"))?, factors)
        };
        Ok(Box::new(FloraAdapter::new(site, core, factors, self.scale)?))
    }
}
