//! [`Tokenizer`]: from texts to the numbers of tokens.

use super::{
    sentencepiece::{self, Normaliser},
    wordpiece,
};
use crate::{
    error::{Error, ErrorKind, Result},
    models::TextClassifier,
    tensor::Origin,
};
use serde::Deserialize;
use std::{fs, io::Read, path::Path};
use tokenizers::{PostProcessor, TruncationParams, processors::template::TemplateProcessing, truncate_encodings};

const NAME: &str = "Tokenizer";

/// The largest file that is read: those of large vocabularies have some 20 megabytes.
const MOST: u64 = 256 << 20;

/// What makes tokens of texts, as one model was trained with them.
///
/// A text becomes `[CLS] text [SEP]`, a pair `[CLS] first [SEP] second [SEP]`, whose second part has type 1.
///
/// ```
/// use tenfold::text::Tokenizer;
///
/// let folder = std::env::temp_dir().join(format!("tenfold-tokenizer-{}", std::process::id()));
/// std::fs::create_dir_all(&folder).unwrap();
/// std::fs::write(folder.join("vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\ntensor\n##s\nare\nfun\n").unwrap();
///
/// let tokenizer = Tokenizer::open(&folder)?;
/// let pair = tokenizer.encode("Tensors", Some("are fun!"), 16)?;
/// assert_eq!(pair.ids, [2, 4, 5, 3, 6, 7, 1, 3]);
/// assert_eq!(pair.types, [0, 0, 0, 0, 1, 1, 1, 1]);
/// assert!(tokenizer.encode("Tensors", Some("are fun!"), 6)?.truncated);
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// What SentencePiece does to a text first; the others have it in `inner`.
    normaliser: Option<Normaliser>,
    size: usize,
    padding: u32,
}

/// The tokens of a text or of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Their numbers.
    pub ids: Vec<u32>,
    /// 0 for the first text, 1 for the second.
    pub types: Vec<u32>,
    /// Whether there were more of them.
    pub truncated: bool,
}

/// What is taken from `tokenizer_config.json`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct Config {
    pub(super) do_lower_case: Option<bool>,
    pub(super) strip_accents: Option<bool>,
    pub(super) tokenize_chinese_chars: Option<bool>,
}

impl Tokenizer {
    /// The tokenizer of the model in a folder: `tokenizer.json` where there is one, else `spm.model`, else `vocab.txt`; of the last two
    /// `tokenizer_config.json` says whether letters are made small.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where none of them can be read, [`ErrorKind::Format`] where one is not what its name says,
    /// [`ErrorKind::Unsupported`] for a SentencePiece model other than a unigram model.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let [json, spm, vocab] = ["tokenizer.json", "spm.model", "vocab.txt"].map(|name| folder.join(name));
        if json.is_file() {
            return Self::from_json(&json);
        }
        let config = config(&folder.join("tokenizer_config.json"))?;
        if spm.is_file() {
            let origin = Origin::file(NAME, &spm);
            let (inner, normaliser, padding) = sentencepiece::tokenizer(&origin, &read(&origin, &spm)?, config)?;
            return Self::new(&origin, inner, Some(normaliser), padding);
        }
        if vocab.is_file() {
            let origin = Origin::file(NAME, &vocab);
            let inner = wordpiece::tokenizer(&origin, &read(&origin, &vocab)?, config)?;
            let padding = inner.token_to_id("[PAD]");
            return Self::new(&origin, inner, None, padding);
        }
        let message = format!("{}: there is no tokenizer.json, spm.model or vocab.txt", folder.display());
        Err(Error::new(ErrorKind::Io, NAME, message))
    }

    /// Of Hugging Face's `tokenizer.json`.
    fn from_json(path: &Path) -> Result<Self> {
        let origin = Origin::file(NAME, path);
        let mut inner = tokenizers::Tokenizer::from_bytes(read(&origin, path)?)
            .map_err(|e| origin.format(format!("not a tokenizer of Hugging Face's: {e}")))?;
        // Both are the caller's business.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| origin.format(e))?;
        let padding = ["[PAD]", "<pad>"].into_iter().find_map(|token| inner.token_to_id(token));
        Self::new(&origin, inner, None, padding)
    }

    fn new(
        origin: &Origin<'_>,
        inner: tokenizers::Tokenizer,
        normaliser: Option<Normaliser>,
        padding: Option<u32>,
    ) -> Result<Self> {
        let size = inner.get_vocab(true).into_values().max().map_or(0, |largest| largest as usize + 1);
        match padding {
            Some(padding) => Ok(Self { inner, normaliser, size, padding }),
            None => Err(origin.format("there is no token [PAD]")),
        }
    }

    /// One more than the largest number of a token.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The token that pads.
    pub fn padding(&self) -> u32 {
        self.padding
    }

    /// An error where the model cannot have been trained with this tokenizer: its table of words is too small, or far larger, or it pads
    /// with another token.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] with what differs.
    pub fn check<T: crate::Scalar>(&self, model: &(impl TextClassifier<T> + ?Sized)) -> Result<()> {
        let (rows, size) = (model.vocabulary(), self.size);
        // Tables are rounded up a little: 128 001 tokens in 128 100 rows.
        if size > rows || size < rows - rows / 10 {
            let message =
                format!("{size} tokens, and the model has a table of {rows}: this is another model's tokenizer");
            return Err(Error::new(ErrorKind::Value, NAME, message));
        }
        if self.padding != model.padding() {
            let message = format!(
                "it pads with token {}, and the model with {}: this is another model's tokenizer",
                self.padding,
                model.padding()
            );
            return Err(Error::new(ErrorKind::Value, NAME, message));
        }
        Ok(())
    }

    /// The tokens of a text or of a pair, at most `most` of them: what is too much is taken from the end of the longer text.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] for less than 4 tokens, [`ErrorKind::Format`] for a text that has no tokens at all in this vocabulary.
    pub fn encode(&self, first: &str, second: Option<&str>, most: usize) -> Result<Encoded> {
        if most < 4 {
            let message = format!("at most {most} tokens; needs 4 or more, of which 3 are [CLS] and [SEP]");
            return Err(Error::new(ErrorKind::Value, NAME, message));
        }
        let failed = |e: tokenizers::Error| Error::new(ErrorKind::Format, NAME, e.to_string());
        // Without [CLS] and [SEP]: what is too much goes before they come.
        let pieces = |text: &str, kind: u32| {
            let normal = self.normaliser.as_ref().map(|normaliser| normaliser.apply(text));
            let mut pieces = self.inner.encode_fast(normal.as_deref().unwrap_or(text), false).map_err(failed)?;
            pieces.set_type_ids(vec![kind; pieces.len()]);
            Ok::<_, Error>(pieces)
        };
        let (first, second) = (pieces(first, 0)?, second.map(|text| pieces(text, 1)).transpose()?);
        let added = self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(second.is_some()));
        let params = TruncationParams { max_length: most.saturating_sub(added), ..TruncationParams::default() };
        let truncated = first.len() + second.as_ref().map_or(0, |second| second.len()) > params.max_length;
        let (first, second) = truncate_encodings(first, second, &params).map_err(failed)?;
        let encoding = self.inner.post_process(first, second, true).map_err(failed)?;
        Ok(Encoded { ids: encoding.get_ids().to_vec(), types: encoding.get_type_ids().to_vec(), truncated })
    }
}

/// The whole of a file.
fn read(origin: &Origin<'_>, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes)).map_err(|e| origin.io(e))?;
    if bytes.len() as u64 > MOST {
        return Err(origin.format(format!("a file of more than {MOST} bytes is not read")));
    }
    Ok(bytes)
}

/// The configuration, where there is one.
fn config(path: &Path) -> Result<Config> {
    if !path.is_file() {
        return Ok(Config::default());
    }
    let origin = Origin::file(NAME, path);
    serde_json::from_slice(&read(&origin, path)?)
        .map_err(|e| origin.format(format!("not such a configuration: {e}")).with_source(e))
}

/// `[CLS] text [SEP]` and `[CLS] first [SEP] second [SEP]`.
pub(super) fn template(origin: &Origin<'_>, id: impl Fn(&str) -> Option<u32>) -> Result<TemplateProcessing> {
    let special = |token: &str| match id(token) {
        Some(id) => Ok((token.to_string(), id)),
        None => Err(origin.format(format!("there is no token {token}"))),
    };
    let tokens = vec![special("[CLS]")?, special("[SEP]")?];
    TemplateProcessing::builder()
        .try_single("[CLS] $A [SEP]")
        .and_then(|builder| builder.try_pair("[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"))
        .map_err(|e| origin.format(e))?
        .special_tokens(tokens)
        .build()
        .map_err(|e| origin.format(e))
}
