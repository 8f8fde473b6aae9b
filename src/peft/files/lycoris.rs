//! The files of LyCORIS and of kohya's scripts: one `.safetensors` file with `lora_down`, `lora_up`, and for
//! convolutions in Tucker form `lora_mid`.
//!
//! A layer's tensors are named by its path with underscores for dots behind a prefix: `lycoris_encoder_0_up.alpha`.
//!
//! | tensor | shape | FLoRA |
//! |---|---|---|
//! | `lora_down.weight` | `[r, in, 1, ..]` (without `lora_mid` `[r, in, *kernel]`) | $A_{in}^T$ |
//! | `lora_up.weight` | `[out, r, 1, ..]` | $A_{out}$ |
//! | `lora_mid.weight` | `[r, r, *kernel]`, output rank first | the core seen through the kernel's factors |
//! | `alpha` | | $s\thinspace r$; a file without any has a scale of 1, as these programs take it |
//!
//! Where the ranks of input and output differ, the smaller one is filled up with zeros. What has no `lora_mid`, linear
//! layers and kernels of size 1 among it, is [`Lora`](crate::peft::Lora); FLoRA on linear layers is written so.
//!
//! S.-Y. Yeh et al., *Navigating text-to-image customization: From LyCORIS fine-tuning to model evaluation*, ICLR 2024.

use super::{
    format::Known,
    layout::{self, Layout, LoadedAdapter, Place, Required, Shapes},
    plain::{MERGED, check_plain},
};
use crate::{
    autodiff::{Var, without_gradients},
    error::{Error, ErrorKind, Result},
    nn::{Checkpoint, Module, Operation, WeightAdapter},
    peft::{
        flora::FloraAdapter,
        lora::{LoraAdapter, LoraForm},
        site::Site,
    },
    scalar::Scalar,
    tensor::{Origin, Tensor, TensorFile},
};
use ndarray::{Ix2, IxDyn};
use std::{collections::BTreeMap, path::Path};

const DOWN: &str = "lora_down.weight";
const UP: &str = "lora_up.weight";
const MID: &str = "lora_mid.weight";
const ALPHA: &str = "alpha";

/// Writes the adapters of a name, FLoRA or LoRA, on linear layers and convolutions. `prefix` is `lycoris` for
/// LyCORIS's wrapper, `lora_unet` or the like for kohya's scripts.
///
/// ```
/// use tenfold::{TensorFile, autodiff, nn::Conv, peft::{self, Flora, Targets, lycoris}};
///
/// let path = std::env::temp_dir().join("tenfold-lycoris.safetensors");
/// let conv = || Ok::<_, tenfold::Error>(vec![Conv::<f32>::zeros([3, 5], &[3, 3], autodiff::Conv::new())?]);
/// let mut model = conv()?;
/// peft::attach(&mut model, &Flora::new().rank(4), &Targets::all())?;
/// lycoris::save(&model, "default", "lycoris", &path)?;
/// assert_eq!(TensorFile::open(&path)?.shape("lycoris_0.lora_mid.weight")?, [4, 4, 3, 3]);
///
/// let mut again = conv()?;
/// lycoris::load(&mut again, "default", "lycoris", &path)?;
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Value`] where there is no adapter of the name, and where two layers have the same name there;
/// [`ErrorKind::Unsupported`] for layers that the format does not have (embeddings, groups, dilation, padding that is
/// not zeros, transposed convolutions) and other methods; those of [`TensorFile::save`].
pub fn save<T: Scalar, M: Module<T> + ?Sized>(
    model: &M,
    name: &str,
    prefix: &str,
    path: impl AsRef<Path>,
) -> Result<()> {
    let names = Mangled::new(prefix, model.layers().into_iter().map(|(name, _)| name));
    let mut file = TensorFile::new();
    for (layer, found) in model.layers() {
        let Some(adapter) = found.adapters().get(name) else { continue };
        let site = Site::of_layer(layer.clone(), found)?;
        let mangled = names.mangled(&layer);
        names.layer(&mangled)?;
        for (part, tensor) in parts(&site, adapter)? {
            file.insert(&format!("{mangled}.{part}"), &tensor)?;
        }
    }
    if file.is_empty() {
        return Err(Error::new(ErrorKind::Value, "lycoris::save", format!("no layer has an adapter {name:?}")));
    }
    file.save(path)
}

/// Reads such a file into a model, strictly, and attaches what it holds under a name. The adapters train, the model
/// itself is frozen.
///
/// # Errors
/// As [`LoadAdapter::read`](crate::peft::LoadAdapter::read); [`ErrorKind::Value`] where a name means two layers;
/// [`ErrorKind::Unsupported`] for other methods than LoRA and its Tucker form.
pub fn load<T: Scalar, M: Module<T> + ?Sized>(
    model: &mut M,
    name: &str,
    prefix: &str,
    path: impl AsRef<Path>,
) -> Result<LoadedAdapter> {
    let path = path.as_ref();
    let origin = Origin::file("lycoris::load", path);
    let checkpoint = Checkpoint::open(path)?;
    layout::check_free(&origin, model, name)?;
    let mut names = Mangled::new(prefix, model.layers().into_iter().map(|(name, _)| name));
    names.alphas = checkpoint.names().any(|name| name.ends_with(".alpha"));
    layout::read(&origin, &checkpoint, &names, &Required::default(), model, false)?.install(model, name)
}

/// An error for layers that the format does not have.
fn check(operation: &'static str, site: &Site<'_>) -> Result<()> {
    check_plain(operation, site)?;
    if matches!(site.operation(), Operation::Embedding { .. }) {
        let message = format!("layer {:?}: it is an embedding, which the format does not have; {MERGED}", site.name());
        return Err(Error::new(ErrorKind::Unsupported, operation, message));
    }
    Ok(())
}

/// The tensors of a layer's adapter.
fn parts<T: Scalar>(site: &Site<'_>, adapter: &dyn WeightAdapter<T>) -> Result<BTreeMap<&'static str, Tensor<T>>> {
    check("lycoris::save", site)?;
    let tucker = site.shape()[2..].iter().any(|&size| size != 1);
    let (lora, converted);
    match Known::of(adapter) {
        Some(Known::Flora(flora)) if tucker => return without_gradients(|| tucker_parts(flora)),
        Some(Known::Flora(flora)) => {
            converted = flora.to_lora(site)?;
            lora = &converted;
        }
        Some(Known::Lora(other)) if !tucker || other.form() == LoraForm::Channels => lora = other,
        _ => {
            let message =
                format!("the adapter of layer {:?} is neither FLoRA nor LoRA in this form; {MERGED}", site.name());
            return Err(Error::new(ErrorKind::Unsupported, "lycoris::save", message));
        }
    }
    let alpha = Tensor::from_vec(IxDyn(&[]), vec![T::of(lora.scale() * lora.rank() as f64)])?;
    Ok(BTreeMap::from([(DOWN, lora.a().value().clone()), (UP, lora.b().value().clone()), (ALPHA, alpha)]))
}

/// Down, up and mid of a convolution's FLoRA.
fn tucker_parts<T: Scalar>(flora: &FloraAdapter<T>) -> Result<BTreeMap<&'static str, Tensor<T>>> {
    let (ranks, factors) = (flora.ranks(), flora.factors());
    let rank = ranks[0].max(ranks[1]);
    let ones = vec![1; ranks.len() - 2];
    let kernel: Vec<(usize, &Var<T>)> =
        factors.iter().enumerate().skip(2).map(|(n, factor)| (n, factor.var())).collect();
    let mut order: Vec<usize> = (0..ranks.len()).collect();
    order.swap(0, 1);
    let mut around = vec![(0, 0); ranks.len()];
    (around[0], around[1]) = ((0, rank - ranks[1]), (0, rank - ranks[0]));
    let mid = flora.core().var().mode_products(&kernel)?.permute(&order)?.pad(&around)?;
    // [rank, in, 1, ..] and [out, rank, 1, ..].
    let down = factors[0].var().permute(&[1, 0])?.pad(&[(0, rank - ranks[0]), (0, 0)])?;
    let up = factors[1].var().pad(&[(0, 0), (0, rank - ranks[1])])?;
    let with_ones = |matrix: Var<T>| {
        let shape = [matrix.shape(), &ones[..]].concat();
        matrix.reshape(shape).map(Var::into_value)
    };
    let alpha = Tensor::from_vec(IxDyn(&[]), vec![T::of(flora.scale() * rank as f64)])?;
    Ok(BTreeMap::from([(DOWN, with_ones(down)?), (UP, with_ones(up)?), (MID, mid.into_value()), (ALPHA, alpha)]))
}

/// Layers by their names with underscores for dots; two layers may share one.
struct Mangled {
    prefix: String,
    layers: BTreeMap<String, Vec<String>>,
    /// Whether every layer has an `alpha`; else none has.
    alphas: bool,
}

impl Mangled {
    fn new(prefix: &str, names: impl Iterator<Item = String>) -> Self {
        let mut mangled = Self { prefix: prefix.to_string(), layers: BTreeMap::new(), alphas: true };
        for name in names {
            mangled.layers.entry(mangled.mangled(&name)).or_default().push(name);
        }
        mangled
    }

    fn mangled(&self, name: &str) -> String {
        format!("{}_{}", self.prefix, name.replace('.', "_"))
    }

    /// The layer that a name means; itself where it means none.
    fn layer(&self, mangled: &str) -> Result<String> {
        match self.layers.get(mangled).map(Vec::as_slice) {
            None | Some([]) => Ok(mangled.to_string()),
            Some([name]) => Ok(name.clone()),
            Some(several) => {
                let message = format!("{mangled:?} means several layers: {several:?}; rename one of them");
                Err(Error::new(ErrorKind::Value, "lycoris", message))
            }
        }
    }
}

impl<T: Scalar> Layout<T> for Mangled {
    fn place(&self, name: &str) -> Result<Option<Place>> {
        let Some((layer, part)) = name.split_once('.') else { return Ok(None) };
        if [DOWN, UP, MID, ALPHA].contains(&part) {
            return Ok(Some(Place::Adapter { layer: self.layer(layer)?, part: part.to_string() }));
        }
        let others = ["hada_", "lokr_", "dora_scale", "oft_", "on_input", "a1.", "diff", "dyn_up", "dyn_down"];
        if others.iter().any(|start| part.starts_with(start)) {
            let message = format!(
                "{name:?} belongs to another method than LoRA and its Tucker form (LoHa, LoKr, DoRA, OFT, ..), which is not supported; \
                 merge it where it comes from, and load the merged weights"
            );
            return Err(Error::new(ErrorKind::Unsupported, "lycoris::load", message));
        }
        Ok(None)
    }

    fn parts(&self, site: &Site<'_>, held: &Shapes) -> Result<Shapes> {
        check("lycoris::load", site)?;
        let shape = site.shape();
        let rank = held.get(DOWN).and_then(|down| down.first()).copied().unwrap_or(1);
        let ones = vec![1; shape.len() - 2];
        let up = [&[shape[0], rank], &ones[..]].concat();
        let mut parts = Shapes::from([(UP.to_string(), up)]);
        if self.alphas {
            // PyTorch writes a number; a tensor of one is the same.
            let alpha = held.get(ALPHA).filter(|alpha| alpha.as_slice() == [1]).cloned().unwrap_or_default();
            parts.insert(ALPHA.to_string(), alpha);
        }
        if held.contains_key(MID) {
            parts.insert(DOWN.to_string(), [&[rank, shape[1]], &ones[..]].concat());
            parts.insert(MID.to_string(), [&[rank, rank], &shape[2..]].concat());
        } else {
            parts.insert(DOWN.to_string(), [&[rank], &shape[1..]].concat());
        }
        Ok(parts)
    }

    fn adapter(&self, site: &Site<'_>, mut parts: BTreeMap<String, Tensor<T>>) -> Result<Box<dyn WeightAdapter<T>>> {
        let mut take = |part: &str| {
            parts.remove(part).ok_or_else(|| {
                Error::new(ErrorKind::Value, "lycoris::load", format!("layer {:?} has no {part:?}", site.name()))
            })
        };
        let (down, up) = (take(DOWN)?, take(UP)?);
        let (rank, alpha, mid) = (down.shape()[0], take(ALPHA).ok(), take(MID).ok());
        let scale = alpha.map_or(Ok(1.0), |alpha| Ok(alpha.to_vec()?[0].f64() / rank as f64))?;
        let Some(mid) = mid else {
            return Ok(Box::new(LoraAdapter::new(site, LoraForm::Channels, down, up, scale)?));
        };
        let matrix = |tensor: &Tensor<T>| tensor.reshape([tensor.shape()[0], tensor.shape()[1]]);
        let mut order: Vec<usize> = (0..mid.order()).collect();
        order.swap(0, 1);
        let mut factors: Vec<Tensor<T, Ix2>> = vec![matrix(&down)?.t().to_contiguous()?, matrix(&up)?];
        factors.extend(site.modes()[2..].iter().map(|&size| Tensor::eye(size)).collect::<Result<Vec<_>>>()?);
        Ok(Box::new(FloraAdapter::new(site, mid.permute(&order)?.to_contiguous()?, factors, scale)?))
    }
}
