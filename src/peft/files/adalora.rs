//! AdaLoRA in PEFT's folder: three matrices a layer without the triplets that were pruned, and in the configuration which
//! those are.
//!
//! `lora_A` is `[r, n]`, `lora_B` `[m, r]` and `lora_E` `[r, 1]`, for convolutions too. `rank_pattern` has a list of booleans for
//! `LAYER.lora_E`, one for each triplet at the start; it is absent where nothing was pruned.

use super::{
    config::{Config, FILE, Patterns, Ranked},
    describe::{Described, alpha},
    format::Known,
    layout::{Shapes, joined},
};
use crate::{
    error::{Error, ErrorKind, Result},
    nn::Operation,
    peft::{
        adalora::{AdaLoraAdapter, RAISED},
        lora::{LoraForm, Shapes as LoraShapes},
        site::Site,
    },
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;
use std::collections::BTreeMap;

/// What PEFT calls A, B and E.
pub(super) const PARTS: [&str; 3] = ["lora_A", "lora_B", "lora_E"];

/// The shapes of a layer's matrices in a file: those of a convolution are flattened.
fn flat(site: &Site<'_>, rank: usize) -> Result<[Vec<usize>; 3]> {
    let shapes = LoraShapes::new(LoraForm::Channels, site, rank)?;
    let [a, b] = match site.operation() {
        Operation::Conv(_) => {
            let (out, rest) = (site.shape()[0], site.shape()[1..].iter().product());
            [vec![rank, rest], vec![out, rank]]
        }
        _ => [shapes.a, shapes.b],
    };
    Ok([a, b, vec![rank, 1]])
}

/// A layer's tensors, without what was pruned.
pub(super) fn parts<T: Scalar>(site: &Site<'_>, adapter: &AdaLoraAdapter<T>) -> Result<BTreeMap<String, Tensor<T>>> {
    let left = adapter.left()?;
    let shapes = flat(site, left.e.len())?;
    let parts = PARTS.into_iter().zip([left.a, left.b, left.e]).zip(shapes);
    parts.map(|((name, part), shape)| Ok((name.to_string(), part.reshape(IxDyn(&shape))?))).collect()
}

/// The configuration of adapters, all of which are AdaLoRA's.
pub(super) fn config_of<T: Scalar>(adapters: &[Described<'_, T>]) -> Result<Config> {
    let all: Vec<(&Site<'_>, &AdaLoraAdapter<T>)> = adapters
        .iter()
        .filter_map(|(site, known)| match known {
            Known::AdaLora(adalora) => Some((*site, *adalora)),
            _ => None,
        })
        .collect();
    let Some((first_site, first)) = all.first() else { return Ok(Config::default()) };
    let of = |adapter: &AdaLoraAdapter<T>| (adapter.initial_rank(), adapter.scale(), adapter.factors().way().dropout());
    let (mut patterns, mut left) = (Vec::new(), 0);
    for (site, adapter) in &all {
        if adapter.scale() <= 0.0 {
            let message = format!(
                "the scale of layer {:?} is {}; AdaLoRA's files have those above 0 only",
                site.name(),
                adapter.scale()
            );
            return Err(Error::new(ErrorKind::Unsupported, "save", message));
        }
        if of(adapter) != of(first) {
            let message = format!(
                "layers {:?} and {:?} have initial ranks, scales and dropouts {:?} and {:?}; a configuration of AdaLoRA has one of each",
                first_site.name(),
                site.name(),
                of(first),
                of(adapter)
            );
            return Err(Error::new(ErrorKind::Unsupported, "save", message));
        }
        let pattern = adapter.left()?.pattern;
        left += pattern.iter().filter(|&&kept| kept).count();
        patterns.push((joined(site.name(), PARTS[2]), Ranked::Kept(pattern)));
    }
    let (initial, scale, dropout) = of(first);
    let pruned = left < initial * all.len();
    Ok(Config {
        init_r: Some(initial),
        target_r: Some((left as f64 / all.len() as f64).round() as usize),
        // Of a training that is over.
        total_step: Some(1),
        lora_alpha: Some(alpha(scale, initial as f64 + RAISED)),
        lora_dropout: Some(dropout),
        rank_pattern: pruned.then_some(Patterns(patterns)),
        ..Config::default()
    })
}

/// How many triplets a layer had at the start, and which of them it has; none where it has all. By the configuration.
fn triplets<'c>(config: &'c Config, layer: &str) -> Result<(usize, Option<&'c [bool]>)> {
    let wrong = |message: String| Err(Error::format("load", format!("{FILE}: {message}")));
    let Some(initial) = config.init_r.filter(|&rank| rank > 0) else {
        return wrong("AdaLoRA needs the initial rank \"init_r\", 1 or more".into());
    };
    let Some(patterns) = config.rank_pattern.as_ref().filter(|patterns| !patterns.0.is_empty()) else {
        return Ok((initial, None));
    };
    let name = joined(layer, PARTS[2]);
    match patterns.0.iter().find(|(key, _)| *key == name) {
        Some((_, Ranked::Kept(kept))) if kept.len() == initial => Ok((initial, Some(kept))),
        _ => wrong(format!(
            "\"rank_pattern\" has no list of {initial} booleans, one for each initial rank, for {name:?}"
        )),
    }
}

/// The shapes that a layer's tensors should have.
pub(super) fn shapes(config: &Config, site: &Site<'_>) -> Result<Shapes> {
    let (initial, kept) = triplets(config, site.name())?;
    let rank = kept.map_or(initial, |kept| kept.iter().filter(|&&kept| kept).count());
    Ok(PARTS.map(str::to_string).into_iter().zip(flat(site, rank)?).collect())
}

/// The adapter with these tensors: A, B, E.
pub(super) fn adapter<T: Scalar>(
    config: &Config,
    site: &Site<'_>,
    [a, b, e]: [Tensor<T>; 3],
) -> Result<AdaLoraAdapter<T>> {
    let (initial, kept) = triplets(config, site.name())?;
    // There are as many in the file.
    let kept = kept.map_or_else(|| vec![true; initial], <[bool]>::to_vec);
    let Some(alpha) = config.lora_alpha else {
        return Err(Error::format("load", format!("{FILE}: AdaLoRA needs \"lora_alpha\"")));
    };
    // PEFT takes the rank where alpha is 0 or below.
    let alpha = if alpha > 0.0 { alpha } else { initial as f64 };
    let scale = alpha / (initial as f64 + RAISED);
    let shapes = LoraShapes::new(LoraForm::Channels, site, e.len())?;
    let (a, b) = (a.reshape(IxDyn(&shapes.a))?, b.reshape(IxDyn(&shapes.b))?);
    AdaLoraAdapter::pruned(site, a, e, b, scale, &kept)?.dropout(config.lora_dropout.unwrap_or(0.0))
}

/// An error where PEFT has no AdaLoRA for such a layer.
pub(super) fn check_there(site: &Site<'_>) -> Result<()> {
    let reason = match site.operation() {
        Operation::Embedding { .. } => "it is an embedding",
        Operation::Conv(_) if site.shape().len() != 4 => "it is a convolution without two spatial modes",
        _ => return Ok(()),
    };
    let message = format!("layer {:?}: {reason}, for which PEFT has no AdaLoRA; {}", site.name(), super::plain::MERGED);
    Err(Error::new(ErrorKind::Unsupported, "save", message))
}
