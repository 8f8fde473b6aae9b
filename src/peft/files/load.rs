//! [`LoadAdapter`]: a folder of adapters into a model.

use super::{
    TENSORS,
    config::{Config, FILE, ends_with_part},
    format::{Folder, Format},
    layout::{self, LoadedAdapter, Required},
};
use crate::{
    error::{ErrorKind, Result},
    nn::{Checkpoint, Module},
    peft::attach::own_parameters,
    scalar::Scalar,
    tensor::Origin,
};
use std::path::Path;

/// Reads a folder of adapters into a model that has none of that name, strictly: every tensor of the file has its place,
/// and nothing that the configuration speaks of is missing.
///
/// The adapters train, and of the model's own parameters those that were saved with them (a head, biases), but for the weights that have
/// an adapter. All others are frozen. [`freeze_all`](Module::freeze_all) afterwards gives a model for use only.
///
/// ```
/// use tenfold::{nn::Linear, peft::{self, Attach, LoadAdapter, Lora}};
///
/// let folder = std::env::temp_dir().join("tenfold-load-adapter");
/// let mut layers = vec![Linear::<f32>::zeros(8, 8)?, Linear::zeros(8, 2)?];
/// peft::attach(&mut layers, &Lora::new(2), &peft::Targets::of(["0"]))?;
/// peft::save(&layers, &folder)?;
///
/// let mut again = vec![Linear::<f32>::zeros(8, 8)?, Linear::zeros(8, 2)?];
/// LoadAdapter::new().name("first").read(&mut again, &folder)?;
/// LoadAdapter::new().name("second").read(&mut again, &folder)?;
/// peft::switch(&mut again, "first")?;
///
/// let mut narrow = vec![Linear::<f32>::zeros(4, 8)?, Linear::zeros(8, 2)?];
/// let error = peft::load(&mut narrow, &folder).unwrap_err();
/// assert!(error.message().ends_with(
///     "1 tensor does not fit: \"base_model.model.0.lora_A.weight\" has shape [2, 8] in the file and [2, 4] in the model"
/// ));
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LoadAdapter {
    name: String,
    round: bool,
}

impl Default for LoadAdapter {
    fn default() -> Self {
        Self { name: "default".into(), round: false }
    }
}

impl LoadAdapter {
    /// Under the name `default`, nothing rounded.
    pub fn new() -> Self {
        Self::default()
    }

    /// The adapters' name in the model; files do not have one.
    pub fn name(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Rounds `f64` in the file to an `f32` model. (Narrower floats widen exactly, and need not be asked for.)
    pub fn round(self) -> Self {
        Self { round: true, ..self }
    }

    /// Reads a folder with `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// What is required is what the configuration says: adapters on every layer that `target_modules` means (where it is
    /// a regular expression that only Python reads, or chooses blocks by number, the file decides), all of
    /// `modules_to_save`, and the biases that `bias` speaks of.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], [`ErrorKind::Format`] as [`TensorFile::open`](crate::TensorFile::open), and for a configuration
    /// that is none; [`ErrorKind::Value`] listing names that are missing and that are unexpected, or where the name is
    /// taken; [`ErrorKind::Shape`] listing shapes that differ; [`ErrorKind::Unsupported`] for methods and settings that
    /// are not here, and for types that would be rounded. Nothing is changed then.
    pub fn read<T: Scalar, M: Module<T> + ?Sized>(
        &self,
        model: &mut M,
        folder: impl AsRef<Path>,
    ) -> Result<LoadedAdapter> {
        let folder = folder.as_ref();
        let path = folder.join(TENSORS);
        let origin = Origin::file("load", &path);
        let config = Config::read(folder)?;
        let format = Format::of(&config, &Origin::file("load", &folder.join(FILE)))?;
        if !path.is_file() && folder.join("adapter_model.bin").is_file() {
            let message =
                "is not there, and adapter_model.bin is a pickle, which may run code when it is read; convert it";
            return Err(origin.error(ErrorKind::Io, message));
        }
        let checkpoint = Checkpoint::open(&path)?;
        layout::check_free(&origin, model, &self.name)?;
        let required = required(&config, format, model);
        let layout = Folder { format, config: &config };
        layout::read(&origin, &checkpoint, &layout, &required, model, self.round)?.install(model, &self.name)
    }
}

/// What a configuration speaks of.
fn required<T: Scalar, M: Module<T> + ?Sized>(config: &Config, format: Format, model: &M) -> Required {
    let mut required = Required::default();
    match format {
        Format::Lora { .. } | Format::AdaLora => {
            let names = model.layers().into_iter().map(|(name, _)| name);
            required.layers.extend(names.filter(|name| config.targets(name) == Some(true)));
        }
        Format::Flora => required.layers.extend(config.layers.iter().flatten().map(|(name, _)| name.clone())),
        Format::Bottleneck => required.layers.extend(config.bottlenecks.iter().flatten().map(|(name, _)| name.clone())),
        Format::Parameters => {}
    }
    let (all, only) = (config.bias.as_deref() == Some("all"), config.bias.as_deref() == Some("lora_only"));
    for (name, _) in own_parameters(model) {
        let bias = name.rsplit('.').next() == Some("bias");
        let layer = name.rsplit_once('.').map_or("", |(layer, _)| layer);
        let modules = std::iter::successors(name.rsplit_once('.'), |(module, _)| module.rsplit_once('.'));
        let saved = config.modules_to_save.iter().flatten();
        let whole =
            modules.map(|(module, _)| module).any(|module| saved.clone().any(|end| ends_with_part(module, end)));
        if whole || (bias && (all || only && required.layers.contains(layer))) {
            required.own.insert(name);
        }
    }
    required
}
