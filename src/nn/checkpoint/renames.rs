//! [`Renames`]: from the names in a file to those of a model, or back.

use crate::{
    error::{Error, ErrorKind, Result},
    nn::pattern::Pattern,
};
use std::{fmt, sync::Arc};

/// A rule of the caller's own.
type Function = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

#[derive(Clone)]
enum Rule {
    StripPrefix(String),
    AddPrefix(String),
    Exact(String, String),
    Pattern(Pattern, String),
    With(Function),
}

/// Rules that rename tensors, applied one after the other, each to what those before it made of a name.
///
/// ```
/// use tenfold::nn::Renames;
///
/// let renames = Renames::new()
///     .strip_prefix("bert.")
///     .exact("head.w", "classifier.weight")
///     .pattern("*.LayerNorm.gamma", "*.norm.weight")?
///     .with(|name| name.strip_suffix(".g").map(|stem| format!("{stem}.gain")));
/// assert_eq!(renames.apply("bert.encoder.0.LayerNorm.gamma"), "encoder.0.norm.weight");
/// assert_eq!(renames.apply("head.w"), "classifier.weight");
/// assert_eq!(renames.apply("scale.g"), "scale.gain");
/// assert_eq!(renames.apply("else"), "else");
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Renames(Vec<Rule>);

impl Renames {
    /// No rules: names stay.
    pub fn new() -> Self {
        Self::default()
    }

    fn rule(mut self, rule: Rule) -> Self {
        self.0.push(rule);
        self
    }

    /// Takes a prefix off the names that have it.
    pub fn strip_prefix(self, prefix: &str) -> Self {
        self.rule(Rule::StripPrefix(prefix.to_string()))
    }

    /// Puts a prefix before every name.
    pub fn add_prefix(self, prefix: &str) -> Self {
        self.rule(Rule::AddPrefix(prefix.to_string()))
    }

    /// Renames one name.
    pub fn exact(self, from: &str, to: &str) -> Self {
        self.rule(Rule::Exact(from.to_string(), to.to_string()))
    }

    /// Renames what matches: each `*` in `from` stands for any text, and the `*`s in `to` for the same texts in the same order.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] unless both have the same number of `*`.
    pub fn pattern(self, from: &str, to: &str) -> Result<Self> {
        let count = |text: &str| text.matches('*').count();
        if count(from) != count(to) {
            let message =
                format!("{from:?} has {} stars and {to:?} has {}; each needs its partner", count(from), count(to));
            return Err(Error::new(ErrorKind::Value, "Renames::pattern", message));
        }
        Ok(self.rule(Rule::Pattern(Pattern::new(from), to.to_string())))
    }

    /// Renames by a function, which returns `None` for names that stay.
    pub fn with(self, rename: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        self.rule(Rule::With(Arc::new(rename)))
    }

    /// What a name becomes.
    pub fn apply(&self, name: &str) -> String {
        self.0.iter().fold(name.to_string(), |name, rule| rule.apply(&name).unwrap_or(name))
    }
}

impl Rule {
    fn apply(&self, name: &str) -> Option<String> {
        match self {
            Self::StripPrefix(prefix) => name.strip_prefix(prefix.as_str()).map(str::to_string),
            Self::AddPrefix(prefix) => Some(format!("{prefix}{name}")),
            Self::Exact(from, to) => (name == from).then(|| to.clone()),
            Self::Pattern(from, to) => from.captures(name).map(|captures| {
                let mut texts = captures.into_iter();
                let pieces = to.split('*').enumerate();
                pieces.fold(String::new(), |made, (i, piece)| {
                    let text = if i == 0 { "" } else { texts.next().unwrap_or_default() };
                    made + text + piece
                })
            }),
            Self::With(rename) => rename(name),
        }
    }
}

impl fmt::Debug for Renames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.0.iter().map(|rule| match rule {
            Rule::StripPrefix(prefix) => format!("strip {prefix:?}"),
            Rule::AddPrefix(prefix) => format!("add {prefix:?}"),
            Rule::Exact(from, to) => format!("{from:?} to {to:?}"),
            Rule::Pattern(from, to) => format!("{:?} to {to:?}", from.as_str()),
            Rule::With(_) => "a function".to_string(),
        });
        f.write_str("Renames ")?;
        f.debug_list().entries(rules).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_need_partners() {
        let error = Renames::new().pattern("*.a", "b").unwrap_err();
        assert_eq!(error.message(), "\"*.a\" has 1 stars and \"b\" has 0; each needs its partner");
    }
}
