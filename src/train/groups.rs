//! [`Groups`]: rates and decays for some of the parameters, by name.

use super::Rule;
use crate::{
    error::{Error, ErrorKind, Result},
    nn::pattern::Pattern,
    tensor::listed,
};
use std::{fmt, sync::Arc};

/// Which parameters get another rate, or another weight decay, than the rule of the optimiser says.
///
/// A list of rules, each for the parameters whose names match a pattern: a name in which each `*` stands for any text, dots
/// included, so `head.weight` is one parameter, `*.bias` a suffix and `encoder.*` a part of the model. For the rate the first
/// rule that matches decides, and for the decay the first that matches, so exceptions stand before what they are exceptions
/// from. [`layer_decay`](Groups::layer_decay) comes on top of the rate. Only parameters that train are asked about.
///
/// [`Optimizer::settings`](super::Optimizer::settings) shows who got what.
///
/// ```
/// use tenfold::{module, Scalar, nn::{Linear, Module}, train::{AdamW, Groups, Optimizer}};
///
/// struct Model<T: Scalar> {
///     layer: Vec<Linear<T>>,
///     head: Linear<T>,
/// }
/// module!(Model { layer, head });
///
/// let layer = vec![Linear::<f32>::zeros(4, 4)?, Linear::zeros(4, 4)?];
/// let model = Model { layer, head: Linear::zeros(4, 2)? };
/// let groups = Groups::new()
///     .no_decay_on_vectors()
///     .rate("head.*", 10.0)
///     .layer_decay(0.5, |name| if name.starts_with("layer.0.") { 0 } else if name.starts_with("layer.") { 1 } else { 2 });
/// let optimizer = Optimizer::new(AdamW::new(1e-3).weight_decay(0.05), &groups, &model)?;
/// assert_eq!(optimizer.settings().to_string(), "\
/// parameter       shape    rate      decay
/// layer.0.weight  [4, 4]   0.00025   0.05
/// layer.0.bias    [4]      0.00025   0
/// layer.1.weight  [4, 4]   0.0005    0.05
/// layer.1.bias    [4]      0.0005    0
/// head.weight     [2, 4]   0.01      0.05
/// head.bias       [2]      0.01      0");
///
/// let error = Optimizer::new(AdamW::new(1e-3), &Groups::new().rate("heads.*", 10.0), &model).unwrap_err();
/// assert!(error.to_string().starts_with("Groups: the pattern \"heads.*\" matches no parameter that trains; those are \"layer.0.weight\""));
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Groups {
    rules: Vec<(Which, Property)>,
    layers: Option<(f64, Depth)>,
}

/// How deep in the model a parameter is.
type Depth = Arc<dyn Fn(&str) -> usize + Send + Sync>;

#[derive(Debug, Clone)]
enum Which {
    Matching(Pattern),
    Vectors,
}

#[derive(Debug, Clone, Copy)]
enum Property {
    Rate(f64),
    Decay(f64),
}

impl Groups {
    /// One group: every parameter has the rate and the decay of the optimiser's rule.
    pub fn new() -> Self {
        Self::default()
    }

    fn and(mut self, which: Which, property: Property) -> Self {
        self.rules.push((which, property));
        self
    }

    /// Multiplies the rate of the parameters that match: the core of an adapter, its factors, a head that is new.
    pub fn rate(self, pattern: &str, factor: f64) -> Self {
        self.and(Which::Matching(Pattern::new(pattern)), Property::Rate(factor))
    }

    /// Sets the weight decay of the parameters that match.
    pub fn weight_decay(self, pattern: &str, decay: f64) -> Self {
        self.and(Which::Matching(Pattern::new(pattern)), Property::Decay(decay))
    }

    /// No weight decay for parameters of order 0 and 1, as is usual: biases, and scales and shifts of normalisations.
    pub fn no_decay_on_vectors(self) -> Self {
        self.and(Which::Vectors, Property::Decay(0.0))
    }

    /// Layer-wise rate decay: the deepest of the parameters that train have their full rate, and each layer towards the input `factor`
    /// of the one behind it, between 0 and 1. `depth` says how deep a parameter is: 0 for the embedding of the input,
    /// counting up from there.
    ///
    /// The rate of a parameter at depth d is multiplied by factor^(D - d), where D is the largest depth.
    ///
    /// **Reference**: Bao, Dong, Piao, Wei, *BEiT: BERT pre-training of image transformers*, ICLR 2022, appendix H.
    pub fn layer_decay(self, factor: f64, depth: impl Fn(&str) -> usize + Send + Sync + 'static) -> Self {
        Self { layers: Some((factor, Arc::new(depth))), ..self }
    }

    /// What each parameter gets, of those that train, given with their shapes.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where a number is outside its range, or a pattern matches nothing.
    pub(super) fn settings(&self, rule: &Rule, parameters: &[(&str, &[usize])]) -> Result<Settings> {
        self.check(parameters)?;
        let depths = |depth: &Depth| parameters.iter().map(|(name, _)| depth(name)).collect::<Vec<usize>>();
        let layers = self.layers.as_ref().map(|(factor, depth)| (factor, depths(depth)));
        let deepest = layers.iter().flat_map(|(_, depths)| depths.iter().copied()).max().unwrap_or(0);
        let setting = |(i, (name, shape)): (usize, &(&str, &[usize]))| {
            let mut own =
                self.rules.iter().filter(|(which, _)| which.matches(name, shape)).map(|(_, property)| property);
            let rate = own
                .clone()
                .find_map(|property| if let Property::Rate(factor) = property { Some(*factor) } else { None });
            let decay =
                own.find_map(|property| if let Property::Decay(decay) = property { Some(*decay) } else { None });
            let layer = layers.as_ref().map_or(1.0, |(factor, depths)| factor.powf((deepest - depths[i]) as f64));
            Setting {
                name: name.to_string(),
                shape: shape.to_vec(),
                rate: rule.rate() * rate.unwrap_or(1.0) * layer,
                decay: decay.unwrap_or(rule.weight_decay()),
            }
        };
        Ok(Settings { parameters: parameters.iter().enumerate().map(setting).collect() })
    }

    fn check(&self, parameters: &[(&str, &[usize])]) -> Result<()> {
        let refused = |message: String| Err(Error::new(ErrorKind::Value, "Groups", message));
        for (which, property) in &self.rules {
            let (what, number) = match property {
                Property::Rate(factor) => ("factor on the rate", factor),
                Property::Decay(decay) => ("weight decay", decay),
            };
            if !number.is_finite() || *number < 0.0 {
                return refused(format!("a {what} of {number} for {which}; it has to be finite and not below 0"));
            }
            if let Which::Matching(pattern) = which
                && !parameters.iter().any(|(name, _)| pattern.matches(name))
            {
                let names = listed(parameters.iter().map(|(name, _)| *name));
                return refused(format!("the pattern {which} matches no parameter that trains; those are {names}"));
            }
        }
        match self.layers {
            Some((factor, _)) if !(0.0..=1.0).contains(&factor) => {
                refused(format!("a layer-wise decay of {factor}; it lies between 0 and 1"))
            }
            _ => Ok(()),
        }
    }
}

impl Which {
    fn matches(&self, name: &str, shape: &[usize]) -> bool {
        match self {
            Self::Matching(pattern) => pattern.matches(name),
            Self::Vectors => shape.len() <= 1,
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Matching(pattern) => write!(f, "{:?}", pattern.as_str()),
            Self::Vectors => f.write_str("vectors"),
        }
    }
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers = self.layers.as_ref().map(|(factor, _)| factor);
        f.debug_struct("Groups").field("rules", &self.rules).field("layer_decay", &layers).finish()
    }
}

/// What a parameter got.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The name in the model.
    pub name: String,
    /// The size of each mode.
    pub shape: Vec<usize>,
    /// The rate, before schedules.
    pub rate: f64,
    /// The weight decay.
    pub decay: f64,
}

/// What every parameter got that trains. It prints as a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// In the order in which the model names them.
    pub parameters: Vec<Setting>,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["parameter", "shape", "rate", "decay"].map(str::to_string);
        let row = |s: &Setting| [s.name.clone(), format!("{:?}", s.shape), s.rate.to_string(), s.decay.to_string()];
        let rows: Vec<[String; 4]> = std::iter::once(heads).chain(self.parameters.iter().map(row)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths = [0, 1, 2].map(width);
        for (i, [name, shape, rate, decay]) in rows.iter().enumerate() {
            let line = if i > 0 { "\n" } else { "" };
            let [a, b, c] = widths;
            write!(f, "{line}{name:a$}  {shape:b$}   {rate:c$}   {decay}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{AdamW, Sgd};

    const MODEL: [(&str, &[usize]); 5] = [
        ("words.weight", &[10, 4]),
        ("layer.0.weight", &[4, 4]),
        ("layer.0.norm.bias", &[4]),
        ("head.weight", &[2, 4]),
        ("scale", &[]),
    ];

    fn settings(groups: &Groups) -> Result<Vec<(f64, f64)>> {
        let settings = groups.settings(&AdamW::new(2.0).weight_decay(0.5).into(), &MODEL)?;
        assert!(settings.parameters.iter().zip(MODEL).all(|(s, (name, shape))| s.name == name && s.shape == shape));
        Ok(settings.parameters.iter().map(|s| (s.rate, s.decay)).collect())
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let expected = |rates: [f64; 5], decays: [f64; 5]| rates.into_iter().zip(decays).collect::<Vec<_>>();
        assert_eq!(settings(&Groups::new()).unwrap(), expected([2.0; 5], [0.5; 5]));
        let groups = Groups::new()
            .weight_decay("layer.0.norm.bias", 0.25)
            .no_decay_on_vectors()
            .weight_decay("layer.*", 0.125)
            .rate("*.bias", 0.5)
            .rate("layer.*", 3.0)
            .rate("head.weight", 0.0);
        assert_eq!(settings(&groups).unwrap(), expected([2.0, 6.0, 1.0, 0.0, 2.0], [0.5, 0.125, 0.25, 0.5, 0.0]));
    }

    #[test]
    fn layers_decay_from_the_deepest_that_trains() {
        let depth = |name: &str| {
            if name.starts_with("words") {
                0
            } else if name.starts_with("layer") {
                1
            } else {
                3
            }
        };
        let rates = |groups: &Groups| settings(groups).unwrap().into_iter().map(|(rate, _)| rate).collect::<Vec<_>>();
        assert_eq!(rates(&Groups::new().layer_decay(0.5, depth)), [0.25, 0.5, 0.5, 2.0, 2.0]);
        assert_eq!(rates(&Groups::new().rate("head.*", 4.0).layer_decay(0.5, depth)), [0.25, 0.5, 0.5, 8.0, 2.0]);
        assert_eq!(rates(&Groups::new().layer_decay(0.0, depth)), [0.0, 0.0, 0.0, 2.0, 2.0]);
        let two = Groups::new().layer_decay(0.5, depth).settings(&Sgd::new(1.0).into(), &MODEL[..2]).unwrap();
        assert_eq!([two.parameters[0].rate, two.parameters[1].rate], [0.5, 1.0]);
    }

    #[test]
    fn numbers_outside_their_ranges_and_idle_patterns_are_refused() {
        let names = MODEL.map(|(name, _)| format!("{name:?}")).join(", ");
        for (groups, message) in [
            (
                Groups::new().rate("*.bias", -1.0),
                "a factor on the rate of -1 for \"*.bias\"; it has to be finite and not below 0".to_string(),
            ),
            (
                Groups::new().weight_decay("*", f64::NAN),
                "a weight decay of NaN for \"*\"; it has to be finite and not below 0".to_string(),
            ),
            (
                Groups::new().no_decay_on_vectors().weight_decay("bias", 0.0),
                format!("the pattern \"bias\" matches no parameter that trains; those are {names}"),
            ),
            (Groups::new().layer_decay(1.5, |_| 0), "a layer-wise decay of 1.5; it lies between 0 and 1".to_string()),
        ] {
            let error = settings(&groups).unwrap_err();
            assert_eq!((error.kind(), error.message()), (ErrorKind::Value, message.as_str()));
        }
        // Vectors need not be there: adapters have none.
        Groups::new().no_decay_on_vectors().settings(&Sgd::new(1.0).into(), &MODEL[..2]).unwrap();
    }
}
