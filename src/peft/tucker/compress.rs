//! [`compress`]: adapters of smaller rank.

use super::{Truncated, TruncatedRow, Truncation, truncated};
use crate::{
    decomp::{Target, Tucker},
    error::{Error, ErrorKind, Result},
    nn::{Module, WeightAdapter},
    peft::{flora::FloraAdapter, lora::LoraAdapter, site::Site},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::Ix2;
use std::{any::Any, collections::BTreeMap};

/// Lowers the ranks of the adapters of a name, without forming an update: factors are made orthonormal, and the core that is left is truncated
/// by ST-HOSVD (of LoRA's product the small matrix between them). What is lost is known exactly, and said.
///
/// After training it drops what was not used; after [`combine`](crate::peft::combine), whose ranks add up, what the sum does not need. Factors
/// are orthonormal afterwards (of LoRA one of the two); scale, dropout, path and what of it trains stay as they were.
///
/// **Cost** for each layer: QR of the factors, $2 \sum_n I_n J_n^2$ flops, and a decomposition of the core.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{Tensor, nn::{Layer, Linear, Module, WeightAdapter}, peft::{self, Attach, Flora, Truncation}};
///
/// let rng = &mut ChaCha8Rng::seed_from_u64(1);
/// let mut layer = Linear::<f64>::zeros(30, 20)?;
/// for (name, rank) in [("a", 3), ("b", 2)] {
///     Attach::new(&Flora::new().rank(rank)).name(name).apply(&mut layer)?;
/// }
/// for (_, parameter) in layer.parameters_mut() {
///     parameter.set(Tensor::normal(parameter.shape().to_vec(), rng)?)?;
/// }
/// // The sum of an update and twice the same is of the same rank.
/// peft::combine(&mut layer, "sum", &[("a", 1.0), ("a", 2.0)])?;
/// let before = layer.adapters().get("sum").unwrap().delta()?.into_value();
/// let report = peft::compress(&mut layer, "sum", &Truncation::Tolerance(1e-10))?;
/// assert_eq!((&report.rows[0].before[..], &report.rows[0].ranks[..]), (&[6, 6][..], &[3, 3][..]));
/// let after = layer.adapters().get("sum").unwrap().delta()?.into_value();
/// assert!(after.sub(&before)?.norm()? < 1e-10 * before.norm()?);
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Value`] where no layer has an adapter of the name, where one is not finite, and for a tolerance that is none; those of
/// [`Flora::ranks`](crate::peft::Flora::ranks); [`ErrorKind::Unsupported`] where an adapter is neither FLoRA nor LoRA: DoRA's lengths and bottlenecks are no tensors of low
/// rank, and AdaLoRA has a [budget](crate::peft::AdaLora) ([`combine`](crate::peft::combine) of it alone is a LoRA). Nothing is changed then.
pub fn compress<T: Scalar>(
    model: &mut (impl Module<T> + ?Sized),
    name: &str,
    truncation: &Truncation,
) -> Result<Truncated> {
    let mut done: BTreeMap<String, Smaller<T>> = BTreeMap::new();
    let mut rows = Vec::new();
    let layers: Vec<_> = model.layers().into_iter().filter(|(_, l)| l.adapters().get(name).is_some()).collect();
    let sites =
        layers.iter().map(|(layer, found)| Site::of_layer(layer.clone(), *found)).collect::<Result<Vec<_>>>()?;
    if sites.is_empty() {
        return Err(Error::new(ErrorKind::Value, "compress", format!("no layer has an adapter {name:?}")));
    }
    let targets = truncation.targets::<T>(&sites)?;
    for ((site, (_, layer)), target) in sites.iter().zip(&layers).zip(&targets) {
        let Some(adapter) = layer.adapters().get(name) else { continue };
        let about = |error: Error| {
            let message = format!("layer {:?}: {}", site.name(), error.message());
            Error::new(error.kind(), "compress", message).with_source(error)
        };
        let (row, smaller) = Smaller::of(site, adapter, target).map_err(about)?;
        rows.push(row);
        done.insert(site.name().to_string(), smaller);
    }
    for (layer, found) in model.layers_mut() {
        if let (Some(smaller), Some(adapter)) = (done.remove(&layer), found.adapters_mut().get_mut(name)) {
            smaller.put(adapter);
        }
    }
    Ok(Truncated { rows })
}

/// An adapter of smaller rank.
enum Smaller<T: Scalar> {
    Flora(FloraAdapter<T>),
    Lora(LoraAdapter<T>),
}

impl<T: Scalar> Smaller<T> {
    fn of(site: &Site<'_>, adapter: &dyn WeightAdapter<T>, target: &Target) -> Result<(TruncatedRow, Self)> {
        let any = adapter as &dyn Any;
        let (before, ranks, smaller, lost) = if let Some(flora) = any.downcast_ref::<FloraAdapter<T>>() {
            let (smaller, lost) = smaller_flora(site, flora, target)?;
            (flora.ranks().to_vec(), smaller.ranks().to_vec(), Self::Flora(smaller), lost)
        } else if let Some(lora) = any.downcast_ref::<LoraAdapter<T>>() {
            let (smaller, lost) = smaller_lora(lora, target)?;
            (vec![lora.rank()], vec![smaller.rank()], Self::Lora(smaller), lost)
        } else {
            let message = "the adapter is neither FLoRA nor LoRA, whose ranks alone are lowered here";
            return Err(Error::new(ErrorKind::Unsupported, "compress", message));
        };
        let (name, shape) = (site.name().to_string(), site.shape().to_vec());
        let parameters = match &smaller {
            Self::Flora(flora) => flora.count().total,
            Self::Lora(lora) => lora.count().total,
        };
        Ok((TruncatedRow { name, shape, before, ranks, parameters, lost }, smaller))
    }

    /// In place of the adapter that it was made of.
    fn put(self, adapter: &mut (dyn WeightAdapter<T> + 'static)) {
        let any = adapter as &mut dyn Any;
        match self {
            Self::Flora(smaller) => any.downcast_mut().map(|flora: &mut FloraAdapter<T>| *flora = smaller),
            Self::Lora(smaller) => any.downcast_mut().map(|lora: &mut LoraAdapter<T>| *lora = smaller),
        };
    }
}

fn smaller_flora<T: Scalar>(
    site: &Site<'_>,
    flora: &FloraAdapter<T>,
    target: &Target,
) -> Result<(FloraAdapter<T>, f64)> {
    let factors = flora.factors().iter().map(|factor| factor.value().clone().into_order());
    // The scale stays outside.
    let tucker = Tucker::new(flora.core().value().clone(), factors.collect::<Result<_>>()?)?;
    let (core, factors, lost) = truncated(&tucker, target)?;
    let smaller = FloraAdapter::new(site, core, factors, flora.scale())?;
    let mut smaller = smaller.dropout(flora.way().dropout())?.path(flora.way().path)?;
    keep_frozen(flora, &mut smaller);
    Ok((smaller, lost))
}

/// The product as a matrix in Tucker form, whose core is the identity.
fn smaller_lora<T: Scalar>(lora: &LoraAdapter<T>, target: &Target) -> Result<(LoraAdapter<T>, f64)> {
    let [a, b] = lora.rank_first()?;
    let columns = |matrix: &Tensor<T>| matrix.permute(&[1, 0])?.to_contiguous()?.into_order();
    let rank = a.shape()[0];
    let tucker = Tucker::new(Tensor::eye(rank)?.to_device(a.device())?.into_dyn(), vec![columns(&a)?, columns(&b)?])?;
    // loralib's form has the kernel's side in its product's rank, and takes whole sides only.
    let side = rank / lora.rank().max(1);
    let target = match target {
        Target::Ranks(ranks) => Target::Ranks(vec![ranks.first().map_or(1, |rank| rank * side); 2]),
        tolerance => tolerance.clone(),
    };
    let (mut core, mut factors, mut lost) = truncated(&tucker, &target)?;
    let kept = core.shape().iter().copied().min().unwrap_or(1);
    if kept % side != 0 {
        (core, factors, lost) = truncated(&tucker, &Target::Ranks(vec![kept.next_multiple_of(side); 2]))?;
    }
    let core: Tensor<T, Ix2> = core.into_order()?;
    let mut smaller = if core.shape()[0] <= core.shape()[1] {
        lora.with_columns(&factors[0], &factors[1].matmul(&core.t())?)?
    } else {
        lora.with_columns(&factors[0].matmul(&core)?, &factors[1])?
    };
    keep_frozen(lora, &mut smaller);
    Ok((smaller, lost))
}

/// What was frozen stays so.
fn keep_frozen<T: Scalar>(before: &dyn WeightAdapter<T>, after: &mut dyn WeightAdapter<T>) {
    for ((_, old), (_, new)) in before.parameters().into_iter().zip(after.parameters_mut()) {
        if !old.trains() {
            new.freeze();
        }
    }
}
