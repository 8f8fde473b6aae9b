//! SentencePiece's unigram models, from `spm.model`.
//!
//! `proto.rs` is the file's format, `normalise.rs` what is done to a text first. The most probable pieces of a text are found by the crate
//! `tokenizers`.
//!
//! T. Kudo, *Subword regularization*, ACL 2018; T. Kudo and J. Richardson, *SentencePiece*, EMNLP 2018.

mod normalise;
mod proto;

pub(super) use normalise::Normaliser;

use super::tokenizer::{Config, template};
use crate::{
    error::{ErrorKind, Result},
    tensor::Origin,
};
use prost::Message;
use proto::{Kind, Model, ModelKind, Piece};
use tokenizers::models::unigram::Unigram;

/// What pieces are called that no text may match. Unicode promises that this is no character.
const NOWHERE: char = '\u{10ffff}';

/// The tokenizer of a model, what it expects to be done to a text first, and the number of the token that pads.
pub(super) fn tokenizer(
    origin: &Origin<'_>,
    bytes: &[u8],
    config: Config,
) -> Result<(tokenizers::Tokenizer, Normaliser, Option<u32>)> {
    let model = Model::decode(bytes).map_err(|e| origin.format(format!("not a model of SentencePiece: {e}")))?;
    let trainer = model.trainer.clone().unwrap_or_default();
    if trainer.model_type() != ModelKind::Unigram {
        let message = format!("a model of kind {:?}; only unigram models are here", trainer.model_type());
        return Err(origin.error(ErrorKind::Unsupported, message));
    }
    let Some(unknown) = model.pieces.iter().position(|piece| piece.kind() == Kind::Unknown) else {
        return Err(origin.format("no piece stands for what is unknown"));
    };
    let normaliser = Normaliser::new(origin, &model, config.do_lower_case.unwrap_or(false))?;
    let id = |token: &str| model.pieces.iter().position(|piece| piece.piece() == token).map(|id| id as u32);
    let (template, padding) = (template(origin, id)?, id("[PAD]"));
    let highest = scores(&model.pieces, Kind::Normal).fold(f64::NEG_INFINITY, f64::max);
    let vocabulary = model.pieces.iter().enumerate().map(|(i, piece)| entry(i, piece, highest)).collect();
    let unigram = Unigram::from(vocabulary, Some(unknown), trainer.byte_fallback()).map_err(|e| origin.format(e))?;
    let mut tokenizer = tokenizers::Tokenizer::new(unigram);
    tokenizer.with_post_processor(Some(template));
    Ok((tokenizer, normaliser, padding))
}

fn scores(pieces: &[Piece], kind: Kind) -> impl Iterator<Item = f64> {
    pieces.iter().filter(move |piece| piece.kind() == kind).map(|piece| f64::from(piece.score()))
}

/// A piece as it is found in texts, and its score.
fn entry(i: usize, piece: &Piece, highest: f64) -> (String, f64) {
    match piece.kind() {
        Kind::Normal | Kind::Byte => (piece.piece().to_string(), piece.score().into()),
        // As SentencePiece has it: better than any way to spell it.
        Kind::UserDefined => (piece.piece().to_string(), piece.piece().len() as f64 * highest - 0.1),
        Kind::Unknown | Kind::Control | Kind::Unused => (format!("{NOWHERE}{i}"), 0.0),
    }
}
