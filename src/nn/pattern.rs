//! [`Pattern`]: which names are meant.

/// A name in which each `*` stands for any text, dots included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(String);

impl Pattern {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(pattern.to_string())
    }

    /// As it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// What each `*` stands for, the first ones as little as possible; `None` where the name does not match.
    pub(crate) fn captures<'n>(&self, name: &'n str) -> Option<Vec<&'n str>> {
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
}
