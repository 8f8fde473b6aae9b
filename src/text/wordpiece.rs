//! BERT's WordPiece, from `vocab.txt`: one token a line, its number that of the line.

use super::tokenizer::{Config, template};
use crate::{error::Result, tensor::Origin};
use std::collections::HashMap;
use tokenizers::{
    models::wordpiece::WordPiece, normalizers::bert::BertNormalizer, pre_tokenizers::bert::BertPreTokenizer,
};

/// Tokens that stand for no text.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// The tokenizer of a list of words.
pub(super) fn tokenizer(origin: &Origin<'_>, bytes: &[u8], config: Config) -> Result<tokenizers::Tokenizer> {
    let mut words: HashMap<String, u32> = HashMap::new();
    let lines = bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|&byte| byte == b'\n');
    for (i, line) in lines.enumerate() {
        let text = std::str::from_utf8(line).map_err(|e| origin.format(format!("line {}: no UTF-8: {e}", i + 1)))?;
        let word = text.trim_end();
        if let Some(first) = words.insert(word.to_string(), i as u32) {
            return Err(origin.format(format!("line {}: {word:?} stands in line {} already", i + 1, first + 1)));
        }
    }
    if !words.contains_key("[UNK]") {
        return Err(origin.format("there is no token [UNK]"));
    }
    let template = template(origin, |token| words.get(token).copied())?;
    let special: Vec<tokenizers::AddedToken> = SPECIAL
        .into_iter()
        .filter(|token| words.contains_key(*token))
        .map(|token| tokenizers::AddedToken::from(token, true))
        .collect();
    let vocabulary = WordPiece::read_bytes(bytes).map_err(|e| origin.format(e))?;
    let model = WordPiece::builder().vocab(vocabulary).build().map_err(|e| origin.format(e))?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let small = config.do_lower_case.unwrap_or(true);
    let chinese = config.tokenize_chinese_chars.unwrap_or(true);
    tokenizer
        .with_normalizer(Some(BertNormalizer::new(true, chinese, config.strip_accents, small)))
        .map_err(|e| origin.format(e))?
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_post_processor(Some(template));
    tokenizer.add_special_tokens(special).map_err(|e| origin.format(e))?;
    Ok(tokenizer)
}
