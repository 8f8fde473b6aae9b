//! What a configuration says of adapters that are about to be written, and of what goes with them.

use super::{
    adalora,
    config::{BottleneckLayer, Config, FloraLayer, Names, Patterns, Ranked, ends_with_part, escaped, pattern_of},
    format::{Format, Known, PREFIX},
};
use crate::{
    error::{Error, ErrorKind, Result},
    peft::{lora::LoraAdapter, site::Site},
    scalar::Scalar,
    tensor::Tensor,
};
use std::collections::{BTreeMap, BTreeSet};

/// An adapter and where it is.
pub(super) type Described<'a, T> = (&'a Site<'a>, Known<'a, T>);

/// The configuration of adapters, which have to be of one method.
pub(super) fn config_of<T: Scalar>(adapters: &[Described<'_, T>]) -> Result<Config> {
    let unsupported = |message: String| Err(Error::new(ErrorKind::Unsupported, "save", message));
    // Linear layers have one form: a convolution decides.
    let deciding = adapters.iter().find(|(site, _)| site.shape().len() > 2).or(adapters.first());
    let format = deciding.map_or(Format::Parameters, |(site, known)| known.format(site));
    for (site, known) in adapters {
        let fits = match (known.format(site), format) {
            (Format::Lora { dora: here, .. }, Format::Lora { dora, .. }) if site.shape().len() == 2 => here == dora,
            (here, format) => here == format,
        };
        if !fits {
            let first = deciding.map_or("", |(site, _)| site.name());
            return unsupported(format!(
                "the adapters of layers {first:?} and {:?} are of different methods, {format:?} and {:?}; a folder holds one method",
                site.name(),
                known.format(site)
            ));
        }
    }
    let loras: Vec<(&Site<'_>, &LoraAdapter<T>)> = adapters
        .iter()
        .filter_map(|(site, known)| match known {
            Known::Lora(lora) => Some((*site, *lora)),
            Known::Dora(dora) => Some((*site, dora.lora())),
            Known::Flora(_) | Known::AdaLora(_) | Known::Bottleneck(_) => None,
        })
        .collect();
    let mut config = match (format, loras.as_slice()) {
        (Format::Lora { .. }, [first, ..]) => of_loras(*first, &loras)?,
        (Format::Flora, _) => of_floras(adapters)?,
        (Format::Bottleneck, _) => of_bottlenecks(adapters)?,
        (Format::AdaLora, _) => adalora::config_of(adapters)?,
        _ => Config::default(),
    };
    config.peft_type = format.peft_type().to_string();
    if let Format::Lora { dora, .. } = format {
        config.use_dora = Some(dora);
    }
    Ok(config)
}

fn of_floras<T: Scalar>(adapters: &[Described<'_, T>]) -> Result<Config> {
    let mut layers = BTreeMap::new();
    for (site, known) in adapters {
        if let Known::Flora(flora) = known {
            let (ranks, scale, dropout) = (flora.ranks().to_vec(), flora.scale(), flora.way().dropout());
            layers.insert(site.name().to_string(), FloraLayer { ranks, scale, dropout });
        }
    }
    Ok(Config::of_flora(layers))
}

fn of_bottlenecks<T: Scalar>(adapters: &[Described<'_, T>]) -> Result<Config> {
    let mut layers = BTreeMap::new();
    for (site, known) in adapters {
        if let Known::Bottleneck(bottleneck) = known {
            let parts = bottleneck.parts()?;
            let layer = BottleneckLayer {
                size: bottleneck.size(),
                biases: [parts.down_bias.is_some(), parts.up_bias.is_some()],
                activation: bottleneck.activation(),
                placement: bottleneck.placement(),
            };
            layers.insert(site.name().to_string(), layer);
        }
    }
    Ok(Config { bottlenecks: Some(layers), ..Config::default() })
}

/// The first layer's rank and alpha are those of all, but for those that have others.
fn of_loras<T: Scalar>(
    (_, first): (&Site<'_>, &LoraAdapter<T>),
    all: &[(&Site<'_>, &LoraAdapter<T>)],
) -> Result<Config> {
    let (r, lora_alpha, dropout) = (first.rank(), alpha(first.scale(), first.rank() as f64), first.way().dropout());
    let (mut ranks, mut alphas) = (Vec::new(), Vec::new());
    for (site, lora) in all {
        if lora.way().dropout() != dropout {
            let message = format!(
                "layer {:?} drops {} of its input and others {dropout}; a configuration of LoRA has one number",
                site.name(),
                lora.way().dropout()
            );
            return Err(Error::new(ErrorKind::Unsupported, "save", message));
        }
        let (rank, alpha) = (lora.rank(), alpha(lora.scale(), lora.rank() as f64));
        if rank != r {
            ranks.push((pattern_of(site.name()), Ranked::Rank(rank)));
        }
        if alpha != lora_alpha {
            alphas.push((pattern_of(site.name()), alpha));
        }
    }
    Ok(Config {
        r: Some(r),
        lora_alpha: Some(lora_alpha),
        lora_dropout: Some(dropout),
        use_rslora: Some(false),
        rank_pattern: Some(Patterns(ranks)),
        alpha_pattern: Some(Patterns(alphas)),
        ..Config::default()
    })
}

/// The alpha that divided by the rank is the scale again: to the last bit where there is one, as for every scale that
/// was made so.
pub(super) fn alpha(scale: f64, rank: f64) -> f64 {
    let product = scale * rank;
    let near = [product, product.next_up(), product.next_down()];
    near.into_iter().find(|alpha| alpha / rank == scale).unwrap_or(product)
}

/// The parts of a model that have tensors in them, by their names.
pub(super) fn modules_of<T: Scalar>(all: &BTreeMap<String, Tensor<T>>) -> BTreeSet<String> {
    let parent = |name: &str| name.rsplit_once('.').map(|(module, _)| module.to_string());
    all.keys().flat_map(|name| std::iter::successors(parent(name), |module| parent(module))).collect()
}

/// Full names, which PEFT also takes for the ends of names: where another module ends so, an expression.
pub(super) fn targets_of(adapted: &BTreeSet<&str>, modules: &BTreeSet<String>) -> Names {
    let mut others = modules.iter().filter(|name| !adapted.contains(name.as_str()));
    if others.any(|other| adapted.iter().any(|name| ends_with_part(other, name))) {
        let names: Vec<String> = adapted.iter().map(|name| escaped(name)).collect();
        return Names::Expression(names.join("|"));
    }
    Names::List(adapted.iter().map(|name| name.to_string()).collect())
}

/// A name of the model's own as PEFT has it: a layer with an adapter is inside a wrapper.
pub(super) fn own_key(name: &str, adapted: &BTreeSet<&str>) -> String {
    match name.rsplit_once('.') {
        Some((layer, parameter)) if adapted.contains(layer) => format!("{PREFIX}{layer}.base_layer.{parameter}"),
        _ => format!("{PREFIX}{name}"),
    }
}

/// The modules that are saved whole, and that no other name of the model ends with: PEFT takes their names for ends.
pub(super) fn whole_modules<T: Scalar>(
    own: &BTreeMap<String, Tensor<T>>,
    all: &BTreeMap<String, Tensor<T>>,
    adapted: &BTreeSet<&str>,
) -> Vec<String> {
    let inside = |name: &str, module: &str| name.strip_prefix(module).is_some_and(|rest| rest.starts_with('.'));
    let modules = modules_of(all);
    let whole = |module: &String| {
        let complete = all.keys().filter(|name| inside(name, module)).all(|name| own.contains_key(name));
        let untouched = !adapted.iter().any(|layer| layer == module || inside(layer, module));
        let unique = modules.iter().all(|other| other == module || !other.ends_with(module.as_str()));
        complete && untouched && unique
    };
    let whole: BTreeSet<&String> = modules.iter().filter(|module| whole(module)).collect();
    let outermost = |module: &&&String| !whole.iter().any(|outer| inside(module, outer));
    whole.iter().filter(outermost).map(|module| module.to_string()).collect()
}

/// Which biases are saved, in PEFT's words.
pub(super) fn biases<T: Scalar>(
    own: &BTreeMap<String, Tensor<T>>,
    all: &BTreeMap<String, Tensor<T>>,
    adapted: &BTreeSet<&str>,
    whole: Option<&[String]>,
) -> &'static str {
    let is_bias = |name: &&String| name.rsplit('.').next() == Some("bias");
    let of_adapted = |name: &&String| name.rsplit_once('.').is_some_and(|(layer, _)| adapted.contains(layer));
    let in_whole = |name: &String| whole.into_iter().flatten().any(|module| name.starts_with(&format!("{module}.")));
    let saved = |name: &String| own.contains_key(name);
    let outside = || all.keys().filter(is_bias).filter(|name| !in_whole(name));
    if outside().next().is_some() && outside().all(saved) {
        "all"
    } else if outside().any(|name| of_adapted(&name)) && outside().filter(|name| of_adapted(name)).all(saved) {
        "lora_only"
    } else {
        "none"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_divided_by_the_rank_is_the_scale() {
        for rank in 1..200 {
            for made_of in [1.0, 7.0, 16.0, 0.1, rank as f64] {
                let scale = made_of / rank as f64;
                assert_eq!(alpha(scale, rank as f64) / rank as f64, scale, "{made_of} / {rank}");
            }
            let scale = 16.0 / (rank as f64).sqrt();
            assert!((alpha(scale, rank as f64) / rank as f64 / scale - 1.0).abs() <= f64::EPSILON);
        }
    }

    #[test]
    fn targets_that_no_other_layer_has() {
        let of = |adapted: &[&str], all: &[&str]| {
            targets_of(&adapted.iter().copied().collect(), &all.iter().map(|name| name.to_string()).collect())
        };
        assert_eq!(of(&["a.q", "b.q"], &["a.q", "b.q", "a.k"]), Names::List(vec!["a.q".into(), "b.q".into()]));
        assert_eq!(of(&["q"], &["q", "a.q"]), Names::Expression("q".into()));
        assert_eq!(of(&["0.q", "q"], &["q", "0.q", "1.q"]), Names::Expression(r"0\.q|q".into()));
    }
}
