//! [`Targets`]: which parts of a model are meant, by [`Pattern`]s of names.

use crate::{
    error::{Error, ErrorKind, Result},
    nn::{Module, Visitor, pattern::Pattern as Glob},
    scalar::Scalar,
    tensor::listed,
};
use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A description of names. It means a part of a model and everything in it: `head` covers `head.dense` too.
///
/// Text becomes a pattern as PEFT's `target_modules` has it in a list, a full name or its last components; with a `*`
/// in it, a glob.
///
/// ```
/// use tenfold::peft::Pattern;
///
/// for (pattern, name, matches) in [
///     (Pattern::from("query"), "encoder.layer.0.attention.query", true),
///     (Pattern::from("query"), "encoder.layer.0.attention.my_query", false),
///     (Pattern::from("attention"), "encoder.layer.0.attention.query", true), // it is inside
///     (Pattern::exact("query"), "encoder.layer.0.attention.query", false),
///     (Pattern::from("encoder.*.query"), "encoder.layer.0.attention.query", true),
///     (Pattern::regex(r"encoder\.layer\.\d\.attention\.(query|value)"), "encoder.layer.0.attention.query", true),
/// ] {
///     assert_eq!(pattern.matches(name)?, matches, "{pattern} and {name}");
/// }
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// This name.
    Exact(String),
    /// This name, and names that end with a dot and it.
    Suffix(String),
    /// Each `*` stands for any text, dots included.
    Glob(String),
    /// A regular expression for the whole name.
    Regex(String),
}

impl Pattern {
    /// This name.
    pub fn exact(name: &str) -> Self {
        Self::Exact(name.to_string())
    }

    /// This name, and names that end with a dot and it.
    pub fn suffix(end: &str) -> Self {
        Self::Suffix(end.to_string())
    }

    /// Each `*` stands for any text, dots included.
    pub fn glob(glob: &str) -> Self {
        Self::Glob(glob.to_string())
    }

    /// A regular expression for the whole name, in the syntax of the crate [`regex_lite`](https://docs.rs/regex-lite).
    pub fn regex(expression: &str) -> Self {
        Self::Regex(expression.to_string())
    }

    /// Whether it means the part of this name, or one that the part is in.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] for a regular expression that is none.
    pub fn matches(&self, name: &str) -> Result<bool> {
        Ok(self.compiled()?.matches(name))
    }

    fn compiled(&self) -> Result<Compiled<'_>> {
        Ok(match self {
            Self::Exact(text) => Compiled::Exact(text),
            Self::Suffix(text) => Compiled::Suffix(text),
            Self::Glob(text) => Compiled::Glob(Glob::new(text)),
            Self::Regex(text) => Compiled::Regex(Regex::new(&format!("^(?:{text})$")).map_err(|e| {
                Error::new(ErrorKind::Value, "Pattern", format!("{text:?} is no regular expression: {e}"))
                    .with_source(e)
            })?),
        })
    }
}

impl From<&str> for Pattern {
    /// A glob where there is a `*`, else a suffix.
    fn from(text: &str) -> Self {
        if text.contains('*') { Self::glob(text) } else { Self::suffix(text) }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "exactly {text:?}"),
            Self::Suffix(text) => write!(f, "{text:?}"),
            Self::Glob(text) => write!(f, "glob {text:?}"),
            Self::Regex(text) => write!(f, "regex {text:?}"),
        }
    }
}

enum Compiled<'p> {
    Exact(&'p str),
    Suffix(&'p str),
    Glob(Glob),
    Regex(Regex),
}

impl Compiled<'_> {
    fn matches(&self, name: &str) -> bool {
        parts_around(name).any(|name| match self {
            Self::Exact(text) => name == *text,
            Self::Suffix(text) => name.strip_suffix(text).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
            Self::Glob(glob) => glob.matches(name),
            Self::Regex(regex) => regex.is_match(name),
        })
    }
}

/// A name, and those of all parts that it is in: `a.b.c`, `a.b`, `a`.
fn parts_around(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.rsplit_once('.').map(|(outer, _)| outer))
}

/// Parts of a model: those that one of some patterns means, or all, except those that another pattern means.
///
/// ```
/// use tenfold::{module, Scalar, nn::Linear, peft::Targets};
///
/// struct Model<T: Scalar> {
///     query: Linear<T>,
///     value: Linear<T>,
///     head: Linear<T>,
/// }
/// module!(Model { query => "attention.query", value => "attention.value", head });
/// let linear = || Linear::<f32>::zeros(4, 4);
/// let model = Model { query: linear()?, value: linear()?, head: linear()? };
///
/// // A dry run: which layers are meant?
/// assert_eq!(Targets::all().except("head").layers(&model)?, ["attention.query", "attention.value"]);
/// assert_eq!(Targets::of(["query", "head"]).layers(&model)?, ["attention.query", "head"]);
///
/// let error = Targets::of(["query", "kye"]).layers(&model).unwrap_err();
/// assert_eq!(
///     error.message(),
///     "\"kye\" matches nothing; there are \"attention.query\", \"attention.value\", \"head\""
/// );
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// Everything where there are none.
    among: Option<Vec<Pattern>>,
    except: Vec<Pattern>,
}

impl Targets {
    /// Everything.
    pub fn all() -> Self {
        Self { among: None, except: Vec::new() }
    }

    /// What one of the patterns means.
    pub fn of<P: Into<Pattern>>(patterns: impl IntoIterator<Item = P>) -> Self {
        Self { among: Some(patterns.into_iter().map(Into::into).collect()), except: Vec::new() }
    }

    /// But not what this pattern means.
    pub fn except(mut self, pattern: impl Into<Pattern>) -> Self {
        self.except.push(pattern.into());
        self
    }

    /// Which of the names are meant, in their order.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where a pattern, an exception among them, matches no name, where nothing is left, and for a
    /// regular expression that is none.
    pub fn among<'n>(&self, names: &[&'n str]) -> Result<Vec<&'n str>> {
        let none = |message: String| {
            let there = if names.is_empty() { "there are none".into() } else { format!("there are {}", quoted(names)) };
            Error::new(ErrorKind::Value, "Targets", format!("{message}; {there}"))
        };
        let compile = |patterns: &[Pattern]| -> Result<Vec<Vec<bool>>> {
            let each = patterns.iter().map(|pattern| {
                let compiled = pattern.compiled()?;
                let matches: Vec<bool> = names.iter().map(|name| compiled.matches(name)).collect();
                if matches.contains(&true) { Ok(matches) } else { Err(none(format!("{pattern} matches nothing"))) }
            });
            each.collect()
        };
        let among = self.among.as_deref().map(compile).transpose()?;
        let except = compile(&self.except)?;
        let any = |patterns: &[Vec<bool>], i: usize| patterns.iter().any(|matches| matches[i]);
        let meant = (0..names.len()).filter(|&i| among.as_ref().is_none_or(|among| any(among, i)) && !any(&except, i));
        let meant: Vec<&str> = meant.map(|i| names[i]).collect();
        if meant.is_empty() { Err(none(format!("{self} leave nothing"))) } else { Ok(meant) }
    }

    /// Which layers of a model are meant: what [`attach`](super::attach) would attach to, of all layers of the kinds that a method
    /// [fits](super::Method::fits); here are all kinds.
    ///
    /// # Errors
    /// As [`among`](Targets::among).
    pub fn layers<T: Scalar>(&self, model: &(impl Module<T> + ?Sized)) -> Result<Vec<String>> {
        let names: Vec<String> = model.layers().into_iter().map(|(name, _)| name).collect();
        self.owned(&names)
    }

    /// Which of a model's own parameters are meant; those of adapters are none of them.
    ///
    /// # Errors
    /// As [`among`](Targets::among).
    pub fn parameters<T: Scalar>(&self, model: &(impl Module<T> + ?Sized)) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let mut meet = |name: &str, _: &_| names.push(name.to_string());
        model.visit(&mut Visitor::parameters(&mut meet).without_adapters());
        self.owned(&names)
    }

    pub(super) fn owned(&self, names: &[String]) -> Result<Vec<String>> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Ok(self.among(&names)?.into_iter().map(str::to_string).collect())
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |patterns: &[Pattern]| patterns.iter().map(Pattern::to_string).collect::<Vec<_>>().join(", ");
        match &self.among {
            None => f.write_str("all")?,
            Some(among) => f.write_str(&list(among))?,
        }
        if self.except.is_empty() { Ok(()) } else { write!(f, " except {}", list(&self.except)) }
    }
}

fn quoted(names: &[&str]) -> String {
    listed(names.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = ["stem", "blocks.0.a", "blocks.0.b", "blocks.10.a", "head.dense"];

    fn meant(targets: Targets) -> Vec<&'static str> {
        targets.among(&NAMES).unwrap()
    }

    #[test]
    fn patterns_of_every_kind() {
        assert_eq!(meant(Targets::all()), NAMES);
        assert_eq!(meant(Targets::of(["a"])), ["blocks.0.a", "blocks.10.a"]);
        assert_eq!(meant(Targets::of(["0.a"])), ["blocks.0.a"]);
        assert_eq!(meant(Targets::of(["blocks.0"])), ["blocks.0.a", "blocks.0.b"]);
        assert_eq!(meant(Targets::of([Pattern::exact("blocks.0")])), ["blocks.0.a", "blocks.0.b"]);
        assert_eq!(meant(Targets::of(["blocks.*.a"])), ["blocks.0.a", "blocks.10.a"]);
        assert_eq!(meant(Targets::of([Pattern::regex(r"blocks\.\d\..")])), ["blocks.0.a", "blocks.0.b"]);
        assert_eq!(meant(Targets::all().except("head").except("*.a")), ["stem", "blocks.0.b"]);
    }

    #[test]
    fn what_matches_nothing_is_an_error() {
        let message = |targets: Targets| targets.among(&NAMES).unwrap_err().message().to_string();
        assert!(message(Targets::of(["ta", "stem"])).starts_with("\"ta\" matches nothing; there are \"stem\""));
        assert!(message(Targets::of([Pattern::exact("a")])).starts_with("exactly \"a\" matches nothing"));
        assert!(message(Targets::all().except("heads")).starts_with("\"heads\" matches nothing"));
        assert!(message(Targets::of(["stem"]).except("stem")).starts_with("\"stem\" except \"stem\" leave nothing"));
        assert!(message(Targets::of([Pattern::regex("(")])).starts_with("\"(\" is no regular expression"));
        assert!(message(Targets::of(Vec::<Pattern>::new())).contains("leave nothing"));
        assert_eq!(Targets::all().among(&[]).unwrap_err().message(), "all leave nothing; there are none");
    }
}
