//! [`Renames`]: from the names in a file to those of a model, or back.

use crate::error::{Error, ErrorKind, Result};
use std::{fmt, sync::Arc};

/// A name in which each `*` stands for any text, dots included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(String);

impl Pattern {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(pattern.to_string())
    }

    /// What each `*` stands for, the first ones as little as possible; `None` where the name does not match.
    fn captures<'n>(&self, name: &'n str) -> Option<Vec<&'n str>> {
        let Some((first, rest)) = self.0.split_once('*') else { return (self.0 == name).then(Vec::new) };
        let mut left = name.strip_prefix(first)?;
        let mut captures = Vec::new();
        let mut parts = rest.split('*').peekable();
        while let Some(part) = parts.next() {
            let (capture, after) = match parts.peek() {
                None => (left.strip_suffix(part)?, ""),
                Some(_) => {
                    left.split_once(part).filter(|_| !part.is_empty()).or(part.is_empty().then_some(("", left)))?
                }
            };
            captures.push(capture);
            left = after;
        }
        Some(captures)
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        self.captures(name).is_some()
    }
}

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
            Rule::Pattern(from, to) => format!("{:?} to {to:?}", from.0),
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
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("a.b", "a.b", Some(vec![])),
            ("a.b", "a.bc", None),
            ("*", "", Some(vec![""])),
            ("a*", "abc", Some(vec!["bc"])),
            ("*c", "abc", Some(vec!["ab"])),
            ("*.weight", "x.weight.weight", Some(vec!["x.weight"])),
            ("l.*.q.*", "l.10.q.weight", Some(vec!["10", "weight"])),
            ("l.*.q.*", "l.10.k.weight", None),
            ("**b", "ab", Some(vec!["", "a"])),
            ("a*a", "a", None),
            ("*a*a", "aXa", Some(vec!["", "X"])),
            ("*ä*", "xäy", Some(vec!["x", "y"])),
        ] {
            assert_eq!(Pattern::new(pattern).captures(name), expected, "{pattern} {name}");
        }
    }

    /// Whether a pattern matches, by trying everything.
    fn naive(pattern: &[char], name: &[char]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (['*', rest @ ..], _) => (0..=name.len()).any(|n| naive(rest, &name[n..])),
            ([p, rest @ ..], [n, more @ ..]) => p == n && naive(rest, more),
            _ => false,
        }
    }

    #[test]
    fn matching_is_that_of_trying_everything() {
        let words = |letters: &[char], most: u32| -> Vec<Vec<char>> {
            let count = letters.len();
            (0..=most)
                .flat_map(|n| {
                    (0..count.pow(n)).map(move |i| (0..n).map(|d| i / count.pow(d) % count).collect::<Vec<_>>())
                })
                .map(|word| word.into_iter().map(|i| letters[i]).collect())
                .collect()
        };
        for pattern in words(&['a', 'b', '*'], 5) {
            for name in words(&['a', 'b'], 5) {
                let (p, n): (String, String) = (pattern.iter().collect(), name.iter().collect());
                assert_eq!(Pattern::new(&p).matches(&n), naive(&pattern, &name), "{p} {n}");
            }
        }
    }

    #[test]
    fn stars_need_partners() {
        let error = Renames::new().pattern("*.a", "b").unwrap_err();
        assert_eq!(error.message(), "\"*.a\" has 1 stars and \"b\" has 0; each needs its partner");
    }
}
