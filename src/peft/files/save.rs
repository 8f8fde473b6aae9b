//! [`SaveAdapter`]: the adapters of a model into a folder.

use super::{
    TENSORS, adalora,
    config::FILE,
    describe::{Described, biases, config_of, modules_of, own_key, targets_of, whole_modules},
    format::{Known, PREFIX},
    layout::{joined, own_buffers, own_tensors},
    plain::{MERGED, check_plain},
};
use crate::{
    error::{Error, ErrorKind, Result},
    nn::{Layer, Module, WeightAdapter},
    peft::{attach::own_parameters, lora::LoraAdapter, site::Site, targets::Targets},
    scalar::Scalar,
    tensor::{Tensor, TensorFile, listed},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Writes the adapters of one name into a folder, and with them whatever else of the model was trained: every parameter
/// of the model itself that trains, and all buffers (running means move in training even where nothing trains).
///
/// ```
/// use tenfold::{TensorFile, nn::Linear, peft::{self, Attach, Flora, SaveAdapter, Targets}};
///
/// let folder = std::env::temp_dir().join("tenfold-save-adapter");
/// let mut layers = vec![Linear::<f32>::zeros(8, 8)?, Linear::zeros(8, 2)?];
/// let flora = Flora::new().rank(2);
/// Attach::new(&flora).to(Targets::of(["0"])).keep(Targets::of(["1"])).apply(&mut layers)?;
/// SaveAdapter::new().write(&layers, &folder)?;
/// TensorFile::open(folder.join("adapter_model.safetensors"))?.expect_names([
///     "base_model.model.0.flora_A.0",
///     "base_model.model.0.flora_A.1",
///     "base_model.model.0.flora_G",
///     "base_model.model.1.bias",
///     "base_model.model.1.weight",
/// ])?;
///
/// // For those who have PEFT: a linear layer's FLoRA is LoRA too.
/// SaveAdapter::new().for_peft().write(&layers, &folder)?;
/// assert!(TensorFile::open(folder.join("adapter_model.safetensors"))?.contains("base_model.model.0.lora_A.weight"));
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct SaveAdapter {
    name: Option<String>,
    keep: Option<Targets>,
    for_peft: bool,
}

impl SaveAdapter {
    /// The model's only adapters, and what trains beside them.
    pub fn new() -> Self {
        Self::default()
    }

    /// The adapters of this name; it has to be said where there are several.
    pub fn name(self, name: &str) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// These parts of the model too, whether they train at the moment or not.
    pub fn keep(self, parts: Targets) -> Self {
        Self { keep: Some(parts), ..self }
    }

    /// Only what stock PEFT computes with as it is computed here; FLoRA is written as LoRA
    /// ([`to_lora`](crate::peft::FloraAdapter::to_lora)). What PEFT does not have is an error: several groups,
    /// dilation, padding that is not zeros, transposed convolutions, other forms of LoRA, AdaLoRA of embeddings and of convolutions
    /// of one or three spatial modes, bottlenecks. For updates of weights write
    /// [merged weights](crate::peft::merge).
    pub fn for_peft(self) -> Self {
        Self { for_peft: true, ..self }
    }

    /// Writes `adapter_model.safetensors` and `adapter_config.json` into a folder, which is made where there is none.
    ///
    /// Both are written before either takes its place: a save that fails leaves the folder as it was, and one that is killed while they
    /// take their places leaves a folder without a configuration, which does not load. New tensors beside an old configuration are
    /// never there.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where there are adapters of several names and none was said, none of the name that was said,
    /// and where nothing is there to save; [`ErrorKind::Unsupported`] for adapters of several
    /// methods or of methods that have no files, and what [`for_peft`](SaveAdapter::for_peft) says;
    /// [`ErrorKind::Io`] where writing fails.
    pub fn write<T: Scalar, M: Module<T> + ?Sized>(&self, model: &M, folder: impl AsRef<Path>) -> Result<()> {
        let layers = model.layers();
        let name = self.chosen(&layers)?;
        let mut adapters = Vec::new();
        for (path, layer) in &layers {
            if let Some(adapter) = name.as_deref().and_then(|name| layer.adapters().get(name)) {
                adapters.push(Attached::new(Site::of_layer(path.clone(), *layer)?, adapter, self.for_peft)?);
            }
        }
        let mut file = TensorFile::new().with_metadata("format", "pt");
        for attached in &adapters {
            for (part, tensor) in attached.known().parts(&attached.site)? {
                file.insert(&format!("{PREFIX}{}", joined(attached.site.name(), &part)), &tensor)?;
            }
        }
        let adapted: BTreeSet<&str> = adapters.iter().map(|attached| attached.site.name()).collect();
        let own = self.own(model)?;
        for (own_name, tensor) in &own {
            file.insert(&own_key(own_name, &adapted), tensor)?;
        }
        if file.is_empty() {
            return Err(wrong("there is no adapter, and no parameter trains: nothing to save".into()));
        }
        let described: Vec<Described<'_, T>> =
            adapters.iter().map(|attached| (&attached.site, attached.known())).collect();
        let mut config = config_of(&described)?;
        let all = own_tensors(model);
        if !adapters.is_empty() {
            config.target_modules = Some(targets_of(&adapted, &modules_of(&all)));
        }
        config.modules_to_save = Some(whole_modules(&own, &all, &adapted)).filter(|modules| !modules.is_empty());
        config.bias = Some(biases(&own, &all, &adapted, config.modules_to_save.as_deref()).to_string());

        let folder = folder.as_ref();
        file.save_described("save", folder, TENSORS, (FILE, &config.text(folder)?))
    }

    /// The adapters' name; `None` where there are none and none was asked for.
    fn chosen<T: Scalar>(&self, layers: &[(String, &dyn Layer<T>)]) -> Result<Option<String>> {
        let names: BTreeSet<&str> = layers.iter().flat_map(|(_, layer)| layer.adapters().names()).collect();
        let there = || {
            if names.is_empty() {
                "there are none".into()
            } else {
                format!("there are {}", listed(names.iter().copied()))
            }
        };
        match &self.name {
            Some(name) if names.contains(name.as_str()) => Ok(Some(name.clone())),
            Some(name) => Err(wrong(format!("no layer has an adapter {name:?}; {}", there()))),
            None if names.len() > 1 => Err(wrong(format!("which adapter? {}; say it with SaveAdapter::name", there()))),
            None => Ok(names.first().map(|name| name.to_string())),
        }
    }

    /// What is saved of the model itself.
    fn own<T: Scalar, M: Module<T> + ?Sized>(&self, model: &M) -> Result<BTreeMap<String, Tensor<T>>> {
        let kept: BTreeSet<String> = match &self.keep {
            None => BTreeSet::new(),
            Some(keep) => keep.parameters(model)?.into_iter().collect(),
        };
        let parameters = own_parameters(model).into_iter();
        let parameters = parameters.filter(|(name, parameter)| parameter.trains() || kept.contains(name));
        let parameters = parameters.map(|(name, parameter)| (name, parameter.value().clone()));
        Ok(parameters.chain(own_buffers(model).into_iter().map(|(name, buffer)| (name, buffer.value()))).collect())
    }
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Value, "save", message)
}

fn unsupported(message: String) -> Error {
    Error::new(ErrorKind::Unsupported, "save", message)
}

/// An adapter that is about to be written.
struct Attached<'a, T: Scalar> {
    site: Site<'a>,
    known: Known<'a, T>,
    /// In place of it, for PEFT.
    converted: Option<LoraAdapter<T>>,
}

impl<'a, T: Scalar> Attached<'a, T> {
    fn new(site: Site<'a>, adapter: &'a dyn WeightAdapter<T>, for_peft: bool) -> Result<Self> {
        let known = Known::of(adapter).ok_or_else(|| {
            unsupported(format!("the adapter of layer {:?} is of a kind that has no files", site.name()))
        })?;
        let mut converted = None;
        if for_peft {
            if let Known::Bottleneck(_) = known {
                let message = format!("layer {:?} has a bottleneck, which PEFT does not have", site.name());
                return Err(unsupported(message));
            }
            check_plain("save", &site)?;
            match known {
                Known::Flora(flora) => converted = Some(flora.to_lora(&site)?),
                Known::AdaLora(_) => adalora::check_there(&site)?,
                other if other.format(&site).peft_type() == "LORA" => {}
                _ => {
                    let message =
                        format!("the LoRA of layer {:?} has a form that PEFT does not have; {MERGED}", site.name());
                    return Err(unsupported(message));
                }
            }
        }
        Ok(Self { site, known, converted })
    }

    fn known(&self) -> Known<'_, T> {
        self.converted.as_ref().map_or(self.known, Known::Lora)
    }
}
