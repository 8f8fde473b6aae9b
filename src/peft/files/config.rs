//! [`Config`]: `adapter_config.json`, what a folder of adapters says about itself.
//!
//! Of PEFT's many settings for LoRA those are read that decide what an adapter computes; those that would make it
//! compute something else than A and B say are refused, and the rest, how it was initialised or placed, is passed over.

use crate::{
    error::{ErrorKind, Result},
    nn::Activation,
    peft::bottleneck::Placement,
    tensor::Origin,
};
use regex_lite::Regex;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error as _, MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::Value;
use std::{collections::BTreeMap, fmt, fs::File, io::Read, marker::PhantomData, path::Path};

/// The file's name, by PEFT's custom.
pub(super) const FILE: &str = "adapter_config.json";

/// A configuration with patterns for every layer of a large model has some 100 KiB.
const MAX: u64 = 8 << 20;

/// The order of modes in what FLoRA writes.
const MODE_ORDER: [&str; 3] = ["input", "output", "kernel"];

/// What is in the file. Members that are absent or null have their default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Config {
    /// Which method: `LORA`, `FLORA`, ..; see [`Format`](super::Format).
    pub(super) peft_type: String,
    /// LoRA: the rank of layers that no pattern means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) r: Option<usize>,
    /// LoRA: $\alpha$ of layers that no pattern means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lora_alpha: Option<f64>,
    /// LoRA: dropout of the adapter's input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lora_dropout: Option<f64>,
    /// LoRA: whether the scale is $\alpha / \sqrt r$.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) use_rslora: Option<bool>,
    /// LoRA: whether it is DoRA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) use_dora: Option<bool>,
    /// LoRA: other ranks. AdaLoRA: which triplets are left, by the names of their singular values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rank_pattern: Option<Patterns<Ranked>>,
    /// LoRA: other $\alpha$.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) alpha_pattern: Option<Patterns<f64>>,
    /// AdaLoRA: the rank at the start, by which $\alpha$ is divided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) init_r: Option<usize>,
    /// AdaLoRA: the rank that is left on the average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target_r: Option<usize>,
    /// AdaLoRA: the length of the training, without which PEFT reads nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) total_step: Option<u64>,
    /// FLoRA: the order of modes, always the same, for readers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mode_order: Option<Vec<String>>,
    /// FLoRA: ranks, scale and dropout of each layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) layers: Option<BTreeMap<String, FloraLayer>>,
    /// Bottlenecks: what each is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bottlenecks: Option<BTreeMap<String, BottleneckLayer>>,
    /// The layers with adapters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target_modules: Option<Names>,
    /// Layers without adapters though `target_modules` means them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exclude_modules: Option<Names>,
    /// Numbers of the blocks that have adapters, as PEFT counts them.
    #[serde(skip_serializing)]
    pub(super) layers_to_transform: Option<Value>,
    /// Parts of the model that are saved whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) modules_to_save: Option<Vec<String>>,
    /// Which biases are there: `none`, `all`, `lora_only` (those of layers with adapters).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bias: Option<String>,
    #[serde(flatten, skip_serializing)]
    pub(super) other: BTreeMap<String, Value>,
}

/// What a pattern of ranks says of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Ranked {
    Rank(usize),
    /// For each triplet that there was at the start, whether it is left.
    Kept(Vec<bool>),
}

/// What FLoRA needs to be rebuilt, for one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FloraLayer {
    pub(super) ranks: Vec<usize>,
    pub(super) scale: f64,
    #[serde(default)]
    pub(super) dropout: f64,
}

/// What a bottleneck needs to be rebuilt, beside its matrices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BottleneckLayer {
    pub(super) size: usize,
    pub(super) biases: [bool; 2],
    pub(super) activation: Activation,
    pub(super) placement: Placement,
}

/// A regular expression for the whole name, or names of which one is the name's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Names {
    Expression(String),
    List(Vec<String>),
}

impl Names {
    /// Whether a name is meant; `None` where the expression is one that only Python reads.
    pub(super) fn mean(&self, name: &str) -> Option<bool> {
        match self {
            Self::Expression(text) => Regex::new(&format!("^(?:{text})$")).ok().map(|regex| regex.is_match(name)),
            Self::List(names) => Some(names.iter().any(|end| ends_with_part(name, end))),
        }
    }
}

/// Whether `end` is a name or its last components.
pub(super) fn ends_with_part(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Values for layers by patterns, of which the first that matches counts: the order in the file matters.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Patterns<V>(pub(super) Vec<(String, V)>);

impl<V: Clone> Patterns<V> {
    /// The value for a name: PEFT matches `(.*\.)?(PATTERN)$` at its start.
    pub(super) fn value(&self, name: &str) -> Result<Option<V>, regex_lite::Error> {
        for (pattern, value) in &self.0 {
            if Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$"))?.is_match(name) {
                return Ok(Some(value.clone()));
            }
        }
        Ok(None)
    }
}

impl<V: Serialize> Serialize for Patterns<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(pattern, value)| map.serialize_entry(pattern, value))?;
        map.end()
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Patterns<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Members<V> {
            type Value = Patterns<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of patterns and their values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Patterns<V>, A::Error> {
                let mut patterns: Vec<(String, V)> = Vec::new();
                while let Some((pattern, value)) = members.next_entry::<String, V>()? {
                    if patterns.iter().any(|(other, _)| *other == pattern) {
                        return Err(A::Error::custom(format!("the pattern {pattern:?} is there twice")));
                    }
                    patterns.push((pattern, value));
                }
                Ok(Patterns(patterns))
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// A pattern for this name alone: PEFT takes it for a regular expression, `^` keeps it from being a suffix.
pub(super) fn pattern_of(name: &str) -> String {
    format!("^{}", escaped(name))
}

/// A regular expression, for Python too, that only this name matches.
pub(super) fn escaped(name: &str) -> String {
    let escape = |c: char| if c.is_alphanumeric() || c == '_' { c.to_string() } else { format!("\\{c}") };
    name.chars().map(escape).collect()
}

impl Config {
    /// That of FLoRA: the layers and the order of their modes.
    pub(super) fn of_flora(layers: BTreeMap<String, FloraLayer>) -> Self {
        let mode_order = Some(MODE_ORDER.map(str::to_string).to_vec());
        Self { layers: Some(layers), mode_order, ..Self::default() }
    }

    /// Reads a folder's.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where it cannot be read, [`ErrorKind::Format`] where it is not of this kind,
    /// [`ErrorKind::Unsupported`] for settings that change what LoRA computes.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let origin = Origin::file("load", &path);
        let config: Self = json(&origin)?;
        config.check(&origin)?;
        Ok(config)
    }

    /// What the file of a folder says.
    pub(super) fn text(&self, folder: &Path) -> Result<String> {
        let text = serde_json::to_string_pretty(self);
        let text = text.map_err(|e| Origin::file("save", &folder.join(FILE)).format(e.to_string()).with_source(e))?;
        Ok(text + "\n")
    }

    fn check(&self, origin: &Origin<'_>) -> Result<()> {
        // Members of PEFT's LoraConfig with which A and B are not the whole update of one weight.
        const OTHERWISE: [&str; 11] = [
            "lora_bias",
            "layer_replication",
            "trainable_token_indices",
            "target_parameters",
            "use_qalora",
            "use_bdlora",
            "alora_invocation_tokens",
            "arrow_config",
            "kasa_config",
            "monteclora_config",
            "velora_config",
        ];
        let set = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Array(items) => !items.is_empty(),
            Value::Object(items) => !items.is_empty(),
            _ => true,
        };
        if let Some(name) = OTHERWISE.into_iter().find(|name| self.other.get(*name).is_some_and(set)) {
            let message =
                format!("{name:?} is set, with which LoRA is more than A and B; not supported: merge it there");
            return Err(origin.error(ErrorKind::Unsupported, message));
        }
        // PiSSA, OLoRA, LoftQ and their like move the model's own weights before they train.
        if let Some(Value::String(init)) = self.other.get("init_lora_weights")
            && !["gaussian", "eva", "orthogonal"].contains(&init.as_str())
        {
            let message = format!(
                "the start {init:?} (init_lora_weights) changes the model's own weights, which the file does not have; \
                 convert it to plain LoRA with PEFT's path_initial_model_for_weight_conversion, or merge it there"
            );
            return Err(origin.error(ErrorKind::Unsupported, message));
        }
        if let Some(order) = &self.mode_order
            && order != &MODE_ORDER
        {
            return Err(origin.format(format!("modes come in the order {order:?}; needs {MODE_ORDER:?}")));
        }
        match self.bias.as_deref() {
            None | Some("none" | "all" | "lora_only") => Ok(()),
            Some(other) => {
                Err(origin.format(format!("\"bias\" is {other:?}; needs \"none\", \"all\" or \"lora_only\"")))
            }
        }
    }

    /// Whether a layer is among the targets by its name; `None` where that cannot be told from the name.
    pub(super) fn targets(&self, name: &str) -> Option<bool> {
        let inside = |module: &String| format!(".{name}.").contains(&format!(".{module}."));
        if self.layers_to_transform.is_some()
            || matches!(&self.target_modules, Some(Names::Expression(all)) if all == "all-linear")
        {
            return None;
        }
        if self.modules_to_save.iter().flatten().any(inside) {
            return Some(false);
        }
        let excluded = self.exclude_modules.as_ref().map_or(Some(false), |names| names.mean(name))?;
        Some(self.target_modules.as_ref()?.mean(name)? && !excluded)
    }
}

/// A small JSON file as a value.
pub(super) fn json<V: DeserializeOwned>(origin: &Origin<'_>) -> Result<V> {
    let path = origin.path.unwrap_or(Path::new(""));
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(MAX + 1).read_to_end(&mut text)).map_err(|e| origin.io(e))?;
    if text.len() as u64 > MAX {
        return Err(origin.format(format!("a configuration of more than {MAX} bytes is not read")));
    }
    serde_json::from_slice(&text)
        .map_err(|e| origin.format(format!("not a configuration of adapters: {e}")).with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_peft() {
        let patterns = Patterns(vec![("^up".to_string(), 1), ("up".to_string(), 2), (r"layer\.\d+\.down".into(), 3)]);
        let value = |name| patterns.value(name).unwrap();
        assert_eq!((value("up"), value("block.up"), value("block.sup")), (Some(1), Some(2), None));
        assert_eq!((value("layer.10.down"), value("x.layer.1.down"), value("layer.1.downs")), (Some(3), Some(3), None));
        assert_eq!(pattern_of("a.b-c_1"), r"^a\.b\-c_1");
        let own = Patterns(vec![(pattern_of("a.b"), 1)]);
        assert_eq!(
            (own.value("a.b").unwrap(), own.value("c.a.b").unwrap(), own.value("axb").unwrap()),
            (Some(1), None, None)
        );
        assert!(Patterns(vec![("(".to_string(), 1)]).value("a").is_err());
    }

    #[test]
    fn targets_are_those_of_peft() {
        let config = |text: &str| serde_json::from_str::<Config>(text).unwrap();
        let list = config(
            r#"{"peft_type": "LORA", "target_modules": ["up", "a.b"], "modules_to_save": ["head"], "exclude_modules": ["0.up"]}"#,
        );
        let targets = |name: &str| list.targets(name).unwrap();
        assert_eq!(
            ["up", "1.up", "0.up", "x.a.b", "sup", "head.up"].map(targets),
            [true, true, false, true, false, false]
        );
        let regex = config(r#"{"peft_type": "LORA", "target_modules": ".*\\.(q|v)", "r": null}"#);
        assert_eq!(["a.q", "q", "a.v.x"].map(|name| regex.targets(name).unwrap()), [true, false, false]);
        for unknown in [r#""(?=a)b""#, r#""all-linear""#, r#"["up"], "layers_to_transform": [1]"#] {
            assert_eq!(config(&format!(r#"{{"peft_type": "LORA", "target_modules": {unknown}}}"#)).targets("up"), None);
        }
    }
}
