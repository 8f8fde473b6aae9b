//! [`Recipe`]: a method by its name, with settings.

use super::{
    AdaLora, BitFit, Bottleneck, Dora, Flora, FloraInit, Full, Lora, LoraForm, Method, Phase, Probe, scaling::Scaling,
};
use crate::{
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
};
use serde::{Deserialize, Serialize};

const NAME: &str = "Recipe";

/// Where it is not said.
const RANK: usize = 8;

/// The names, and which of the settings each has.
const METHODS: [(&str, &[&str]); 11] = [
    ("full", &[]),
    ("probe", &[]),
    ("bitfit", &[]),
    ("hadapter", &["rank"]),
    ("padapter", &["rank"]),
    ("lora", &["rank", "scaling", "dropout"]),
    ("lora-k", &["rank", "scaling", "dropout"]),
    ("lora-eq3", &["rank", "scaling", "dropout"]),
    ("dora", &["rank", "scaling", "dropout"]),
    ("adalora", &["rank", "initial_rank", "warmup", "settle", "every", "scaling", "dropout"]),
    ("flora", &["rank", "kernel_rank", "scaling", "init", "clip", "dropout"]),
];

/// A method known only at run time: its name, and the settings that command lines and configuration files usually have of one.
/// What is left out has the method's own default.
///
/// | name | method | settings |
/// |---|---|---|
/// | `full`, `probe`, `bitfit` | [`Full`], [`Probe`], [`BitFit`] | none |
/// | `hadapter`, `padapter` | [`Bottleneck`] as Houlsby's and Pfeiffer's | `rank`, its size |
/// | `lora`, `lora-k`, `lora-eq3` | [`Lora`] in its three [forms](LoraForm) | `rank`, `scaling`, `dropout` |
/// | `dora` | [`Dora`] | `rank`, `scaling`, `dropout` |
/// | `adalora` | [`AdaLora`], which trains with [more than a loss](Recipe::adalora) | `rank` (the target), `initial_rank`, `warmup`, `settle`, `every`, `scaling`, `dropout` |
/// | `flora` | [`Flora`] | `rank`, `kernel_rank`, `scaling`, `init`, `clip`, `dropout` |
///
/// A setting that the method does not have is an error: nobody should believe to have set what has no effect.
///
/// ```
/// use tenfold::{nn::{Linear, Module}, peft::{Attach, Recipe}};
///
/// let recipe = Recipe { rank: Some(2), ..Recipe::named("flora") };
/// let method = recipe.build::<f32>()?;
/// let mut layer = Linear::zeros(8, 4)?;
/// assert_eq!(Attach::new(&*method).apply(&mut layer)?.parameters(), 2 * 2 + 2 * (8 + 4));
///
/// let error = Recipe { kernel_rank: Some(3), ..Recipe::named("lora") }.build::<f32>().unwrap_err();
/// assert_eq!(error.message(), "\"lora\" has no kernel_rank; it has rank, scaling, dropout");
/// let error = Recipe::named("floral").build::<f32>().unwrap_err();
/// assert!(error.message().starts_with("there is no \"floral\"; there are full, probe, bitfit, hadapter, "));
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// The method's [name](Method::name).
    pub method: String,
    /// The rank, of a bottleneck its size; 8 where it is not said.
    pub rank: Option<usize>,
    /// The rank to begin with, where it goes down; half as much again as `rank` where it is not said.
    pub initial_rank: Option<usize>,
    /// How long it [stays](AdaLora::warmup) at the initial rank; a tenth of all steps where it is not said.
    pub warmup: Option<Phase>,
    /// How long the final choice of ranks [stays](AdaLora::settle) at the end; half of all steps where it is not said.
    pub settle: Option<Phase>,
    /// At every how many steps ranks are [chosen](AdaLora::every); at each where it is not said.
    pub every: Option<u64>,
    /// The rank of each of a kernel's modes.
    pub kernel_rank: Option<usize>,
    /// The number that updates are multiplied by.
    pub scaling: Option<Scaling>,
    /// What factors start as.
    pub init: Option<FloraInit>,
    /// Whether ranks are lowered to what their modes hold.
    pub clip: bool,
    /// The probability with which entries of an adapter's input are dropped in training.
    pub dropout: Option<f64>,
}

impl Recipe {
    /// A method with its defaults.
    pub fn named(method: &str) -> Self {
        Self { method: method.to_string(), ..Self::default() }
    }

    /// The names that there are.
    pub fn names() -> impl ExactSizeIterator<Item = &'static str> {
        METHODS.iter().map(|(name, _)| *name)
    }

    /// Whether adapters start from the first gradients, which [`Attach::gradients`](super::Attach::gradients) has to be given then.
    pub fn needs_gradients(&self) -> bool {
        self.init == Some(FloraInit::GradientHosvd)
    }

    /// The configuration, where the method is AdaLoRA: its [allocator](AdaLora::allocator) and its [penalty](AdaLora::penalty) belong to
    /// the training.
    pub fn adalora(&self) -> Option<AdaLora> {
        (self.method == "adalora").then(|| self.ranks_from_a_budget())
    }

    /// The method.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] for a name that there is not, and a setting that the method does not have. Whether the numbers make sense
    /// is found where the method meets a layer.
    pub fn build<T: Scalar>(&self) -> Result<Box<dyn Method<T>>> {
        self.check()?;
        Ok(match self.method.as_str() {
            "full" => Box::new(Full),
            "probe" => Box::new(Probe),
            "bitfit" => Box::new(BitFit),
            "hadapter" => Box::new(Bottleneck::houlsby(self.rank.unwrap_or(RANK))),
            "padapter" => Box::new(Bottleneck::pfeiffer(self.rank.unwrap_or(RANK))),
            "lora" => Box::new(self.lora(LoraForm::Channels)),
            "lora-k" => Box::new(self.lora(LoraForm::Kernel)),
            "lora-eq3" => Box::new(self.lora(LoraForm::Equation3)),
            "dora" => Box::new(Dora::from(self.lora(LoraForm::Channels))),
            "adalora" => Box::new(self.ranks_from_a_budget()),
            _ => Box::new(self.flora()),
        })
    }

    /// A name that there is, and no setting that it does not have.
    fn check(&self) -> Result<()> {
        let Some((_, has)) = METHODS.iter().find(|(name, _)| *name == self.method) else {
            let names: Vec<&str> = Self::names().collect();
            let message = format!("there is no {:?}; there are {}", self.method, names.join(", "));
            return Err(Error::new(ErrorKind::Value, NAME, message));
        };
        let given = [
            ("rank", self.rank.is_some()),
            ("initial_rank", self.initial_rank.is_some()),
            ("warmup", self.warmup.is_some()),
            ("settle", self.settle.is_some()),
            ("every", self.every.is_some()),
            ("kernel_rank", self.kernel_rank.is_some()),
            ("scaling", self.scaling.is_some()),
            ("init", self.init.is_some()),
            ("clip", self.clip),
            ("dropout", self.dropout.is_some()),
        ];
        match given.into_iter().find(|(setting, given)| *given && !has.contains(setting)) {
            None => Ok(()),
            Some((setting, _)) => {
                let has =
                    if has.is_empty() { "it has no settings".into() } else { format!("it has {}", has.join(", ")) };
                let message = format!("{:?} has no {setting}; {has}", self.method);
                Err(Error::new(ErrorKind::Value, NAME, message))
            }
        }
    }

    fn lora(&self, form: LoraForm) -> Lora {
        let mut lora = Lora::new(self.rank.unwrap_or(RANK)).form(form);
        if let Some(scaling) = self.scaling {
            lora = lora.scaling(scaling);
        }
        lora.dropout(self.dropout.unwrap_or(0.0))
    }

    fn ranks_from_a_budget(&self) -> AdaLora {
        let mut adalora = AdaLora::new(self.rank.unwrap_or(RANK)).phases(self.warmup, self.settle);
        if let Some(rank) = self.initial_rank {
            adalora = adalora.initial_rank(rank);
        }
        if let Some(steps) = self.every {
            adalora = adalora.every(steps);
        }
        if let Some(scaling) = self.scaling {
            adalora = adalora.scaling(scaling);
        }
        adalora.dropout(self.dropout.unwrap_or(0.0))
    }

    fn flora(&self) -> Flora {
        let mut flora = Flora::new();
        if let Some(rank) = self.rank {
            flora = flora.rank(rank);
        }
        if let Some(rank) = self.kernel_rank {
            flora = flora.kernel_rank(rank);
        }
        if let Some(scaling) = self.scaling {
            flora = flora.scaling(scaling);
        }
        if let Some(init) = self.init {
            flora = flora.init(init);
        }
        if self.clip {
            flora = flora.clip();
        }
        flora.dropout(self.dropout.unwrap_or(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_that_of_its_method() {
        for name in Recipe::names() {
            assert_eq!(Recipe::named(name).build::<f64>().unwrap().name(), name);
        }
    }

    #[test]
    fn settings_arrive() {
        let written = |recipe: Recipe| format!("{:?}", recipe.build::<f32>().unwrap());
        let scaling = Some(Scaling::Rank { alpha: 16.0 });
        let flora = Flora::new().rank(3).kernel_rank(4).scaling(Scaling::Rank { alpha: 16.0 }).dropout(0.25);
        let recipe = Recipe { rank: Some(3), scaling, dropout: Some(0.25), ..Recipe::named("flora") };
        let all = Recipe { kernel_rank: Some(4), init: Some(FloraInit::Orthonormal), clip: true, ..recipe };
        assert_eq!(written(all.clone()), format!("{:?}", flora.init(FloraInit::Orthonormal).clip()));
        assert!(!all.needs_gradients() && Recipe { init: Some(FloraInit::GradientHosvd), ..all }.needs_gradients());
        let recipe = Recipe { rank: Some(3), scaling, dropout: Some(0.25), ..Recipe::named("lora-k") };
        let lora = Lora::new(3).alpha(16.0).dropout(0.25);
        assert_eq!(written(recipe.clone()), format!("{:?}", lora.clone().form(LoraForm::Kernel)));
        assert_eq!(written(Recipe { method: "dora".into(), ..recipe }), format!("{:?}", Dora::from(lora)));
        let recipe =
            Recipe { rank: Some(4), initial_rank: Some(9), scaling, dropout: Some(0.25), ..Recipe::named("adalora") };
        let adalora = AdaLora::new(4).initial_rank(9).alpha(16.0).dropout(0.25);
        assert_eq!((written(recipe.clone()), recipe.adalora()), (format!("{adalora:?}"), Some(adalora)));
        let phases = (Some(Phase::Steps(7)), Some(Phase::Ratio(0.25)));
        let recipe = Recipe { warmup: phases.0, settle: phases.1, every: Some(3), ..Recipe::named("adalora") };
        assert_eq!(recipe.adalora(), Some(AdaLora::new(8).warmup(7).settle_ratio(0.25).every(3)));
        assert_eq!(Recipe::named("lora").adalora(), None);
        assert_eq!(written(Recipe::named("flora")), format!("{:?}", Flora::new()));
    }

    #[test]
    fn a_setting_without_effect_is_refused() {
        let refused = |recipe: Recipe| recipe.build::<f32>().unwrap_err().message().to_string();
        assert_eq!(
            refused(Recipe { rank: Some(8), ..Recipe::named("full") }),
            "\"full\" has no rank; it has no settings"
        );
        assert!(refused(Recipe { clip: true, ..Recipe::named("dora") }).starts_with("\"dora\" has no clip"));
        assert!(refused(Recipe { init: Some(FloraInit::Normal), ..Recipe::named("lora") }).contains("no init"));
    }

    #[test]
    fn from_json() {
        let recipe: Recipe = serde_json::from_str(r#"{"method": "flora", "rank": 4, "init": "orthonormal"}"#).unwrap();
        assert_eq!(recipe, Recipe { rank: Some(4), init: Some(FloraInit::Orthonormal), ..Recipe::named("flora") });
        assert!(serde_json::from_str::<Recipe>(r#"{"method": "flora", "ranks": 4}"#).is_err());
    }
}
