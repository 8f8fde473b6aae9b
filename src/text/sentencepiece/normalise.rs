//! What SentencePiece does to a text before it looks for pieces.
//!
//! Stretches of it are replaced by others, the longest that a table has first (the table is Unicode's NFKC with some of the authors' own
//! rules, mostly); spaces at the ends go, several become one; the others become `▁`, and one is put before the text. These are the
//! steps of `normalizer.cc`.
//!
//! The table is a double array trie (S. Yata's darts-clone): a word for each node, which holds the character that leads to it, whether a
//! stretch ends there, and how far off its children are.

use super::proto::{Kind, Model};
use crate::{error::Result, tensor::Origin};

/// What stands for a space.
const SPACE: &str = "\u{2581}";

/// A text's normal form.
#[derive(Debug, Clone)]
pub(crate) struct Normaliser {
    /// Empty for none.
    trie: Vec<u32>,
    /// What stretches are replaced by, each with a zero at its end.
    replacements: Vec<u8>,
    /// Pieces that are taken as they stand, longer ones first.
    kept: Vec<String>,
    small: bool,
    prefix: bool,
    suffix: bool,
    squeeze: bool,
    escape: bool,
}

impl Normaliser {
    pub(super) fn new(origin: &Origin<'_>, model: &Model, small: bool) -> Result<Self> {
        let spec = model.normalizer.clone().unwrap_or_default();
        let (trie, replacements) = match spec.precompiled_charsmap() {
            [] => (Vec::new(), Vec::new()),
            table => split(table).ok_or_else(|| origin.format("the table of its normaliser is cut short"))?,
        };
        let defined = model.pieces.iter().filter(|piece| piece.kind() == Kind::UserDefined);
        let mut kept: Vec<String> = defined.map(|piece| piece.piece().to_string()).collect();
        kept.retain(|piece| !piece.is_empty());
        kept.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
        let trainer = model.trainer.clone().unwrap_or_default();
        let behind = trainer.treat_whitespace_as_suffix();
        Ok(Self {
            trie,
            replacements,
            kept,
            small,
            prefix: spec.add_dummy_prefix() && !behind,
            suffix: spec.add_dummy_prefix() && behind,
            squeeze: spec.remove_extra_whitespaces(),
            escape: spec.escape_whitespaces(),
        })
    }

    /// The normal form of a text.
    pub(crate) fn apply(&self, text: &str) -> String {
        let lower;
        let mut rest = if self.small {
            lower = text.to_lowercase();
            lower.as_str()
        } else {
            text
        };
        let space = if self.escape { SPACE } else { " " };
        if self.squeeze {
            while let Some((length, " ")) = (!rest.is_empty()).then(|| self.first(rest)) {
                rest = &rest[length..];
            }
        }
        if rest.is_empty() {
            return String::new();
        }
        let mut normal = String::with_capacity(rest.len() + 16);
        if self.prefix {
            normal.push_str(space);
        }
        let mut after_space = self.squeeze;
        while !rest.is_empty() {
            let (length, mut found) = self.first(rest);
            if after_space {
                found = found.trim_start_matches(' ');
            }
            if !found.is_empty() {
                found.split_inclusive(' ').for_each(|part| match part.strip_suffix(' ') {
                    Some(word) => normal.extend([word, space]),
                    None => normal.push_str(part),
                });
                after_space = found.ends_with(' ');
            }
            after_space &= self.squeeze;
            rest = &rest[length..];
        }
        if self.squeeze {
            normal.truncate(normal.trim_end_matches(space).len());
        }
        if self.suffix {
            normal.push_str(space);
        }
        normal
    }

    /// How much of a text that is not empty is replaced first, and by what.
    fn first<'a>(&'a self, text: &'a str) -> (usize, &'a str) {
        if let Some(kept) = self.kept.iter().find(|kept| text.starts_with(kept.as_str())) {
            return (kept.len(), &text[..kept.len()]);
        }
        if let Some((length, replacement)) = self.replaced(text) {
            return (length, replacement);
        }
        let length = text.chars().next().map_or(0, char::len_utf8);
        (length, &text[..length])
    }

    /// The longest stretch at the beginning that the table has, and its replacement.
    fn replaced<'a>(&'a self, text: &str) -> Option<(usize, &'a str)> {
        let offset = |unit: u32| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
        let mut at = offset(*self.trie.first()?);
        let mut longest = None;
        for (i, byte) in text.bytes().enumerate() {
            at ^= usize::from(byte);
            let Some(&unit) = self.trie.get(at) else { break };
            if unit & (1 << 31 | 0xff) != u32::from(byte) {
                break;
            }
            at ^= offset(unit);
            if unit >> 8 & 1 == 1 {
                longest = self.trie.get(at).map(|leaf| (i + 1, (leaf & !(1 << 31)) as usize));
            }
        }
        // A stretch or a replacement that ends within a character is none.
        let (length, start) = longest.filter(|(length, _)| text.is_char_boundary(*length))?;
        let replacement = self.replacements.get(start..)?.split(|&byte| byte == 0).next()?;
        Some((length, std::str::from_utf8(replacement).ok()?))
    }
}

/// The trie and the replacements of a table: the trie's length in bytes comes first.
fn split(table: &[u8]) -> Option<(Vec<u32>, Vec<u8>)> {
    let (length, rest) = table.split_first_chunk::<4>()?;
    let (trie, replacements) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let (units, []) = trie.as_chunks::<4>() else { return None };
    Some((units.iter().map(|unit| u32::from_le_bytes(*unit)).collect(), replacements.to_vec()))
}
