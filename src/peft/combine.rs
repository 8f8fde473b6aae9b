//! [`combine`]: weighted sums of adapters, exact and still in factored form.

use super::{
    adalora::AdaLoraAdapter,
    flora::FloraAdapter,
    lora::LoraAdapter,
    named::{check_free, switch},
};
use crate::{
    autodiff::{Var, without_gradients},
    error::{Error, ErrorKind, Result},
    nn::{Module, Parameter, WeightAdapter},
    scalar::Scalar,
};
use std::{any::Any, collections::BTreeMap};

/// Attaches the weighted sum of adapters under a new name, and lets it alone count ([`switch`]). Returns on how many
/// layers it is: on those that have at least one of the adapters.
///
/// A sum of updates in Tucker form is one in Tucker form: factors side by side, cores along a block diagonal,
///
/// $$ \sum_i w_i s_i\thinspace G_i \times_n A_n^{(i)} = \operatorname{diag}(w_1 s_1 G_1, w_2 s_2 G_2, \ldots) \times_n [A_n^{(1)}, A_n^{(2)}, \ldots], $$
///
/// and a sum of products $B_i A_i$ is the product of $[w_1 s_1 B_1, w_2 s_2 B_2, \ldots]$ with the $A_i$ below one
/// another; AdaLoRA's is one with the singular values multiplied into $A_i$, and its sum a LoRA. Ranks add up, and may differ. (A sum of the factors would be something else, $\sum_i B_i \sum_j A_j$, with
/// products of what does not belong together.)
///
/// ```
/// use tenfold::{nn::{Layer, Linear, Module}, peft::{self, Attach, Flora, FloraAdapter}};
///
/// let mut layer = Linear::<f64>::zeros(8, 8)?;
/// for (name, rank) in [("a", 2), ("b", 3)] {
///     Attach::new(&Flora::new().rank(rank)).name(name).apply(&mut layer)?;
/// }
/// peft::combine(&mut layer, "sum", &[("a", 0.75), ("b", 0.25)])?;
/// let sum = layer.adapters().get("sum").unwrap();
/// assert_eq!((sum as &dyn std::any::Any).downcast_ref::<FloraAdapter<f64>>().unwrap().ranks(), [5, 5]);
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Value`] where no layer has an adapter of one of the names, where the new name is taken, or where a weight is not finite;
/// [`ErrorKind::Unsupported`] where a layer's adapters are not of one kind, or of a kind whose updates do not add up,
/// as DoRA's. Nothing is changed then.
pub fn combine<T: Scalar>(model: &mut (impl Module<T> + ?Sized), name: &str, parts: &[(&str, f64)]) -> Result<usize> {
    let error = |message: String| Error::new(ErrorKind::Value, "combine", message);
    if let Some((part, weight)) = parts.iter().find(|(_, weight)| !T::of(*weight).is_finite()) {
        return Err(error(format!("the weight of {part:?} is {weight}; it has to be finite")));
    }
    let layers = model.layers();
    check_free(name, &layers).map_err(error)?;
    let mut sums: BTreeMap<String, Box<dyn WeightAdapter<T>>> = BTreeMap::new();
    let mut met = vec![false; parts.len()];
    for (layer_name, layer) in layers {
        let adapters = layer.adapters();
        let here: Vec<(f64, &dyn WeightAdapter<T>)> = parts
            .iter()
            .zip(&mut met)
            .filter_map(|(&(part, weight), met)| {
                let adapter = adapters.get(part)?;
                *met = true;
                Some((weight, adapter))
            })
            .collect();
        if here.is_empty() {
            continue;
        }
        let sum = without_gradients(|| sum_of(&here))?.ok_or_else(|| {
            let message = format!(
                "the adapters of layer {layer_name:?} are not all FLoRA, or all LoRA of one form and AdaLoRA, so that their sum has no factored form; \
                 enable them together, or merge them into the weight"
            );
            Error::new(ErrorKind::Unsupported, "combine", message)
        })?;
        sums.insert(layer_name, sum);
    }
    if let Some((part, _)) = parts.iter().zip(&met).find_map(|(part, &met)| (!met).then_some(part)) {
        return Err(error(format!("no layer has an adapter {part:?}")));
    }
    if parts.is_empty() {
        return Err(error("there are no adapters to add up".into()));
    }
    for (layer_name, layer) in model.layers_mut() {
        if let Some(sum) = sums.remove(&layer_name) {
            layer.attach_boxed(name, sum)?;
        }
    }
    switch(model, name)
}

/// The sum of a layer's adapters; `None` where it has no factored form here.
fn sum_of<T: Scalar>(parts: &[(f64, &dyn WeightAdapter<T>)]) -> Result<Option<Box<dyn WeightAdapter<T>>>> {
    if let Some(parts) = all_of::<T, FloraAdapter<T>>(parts) {
        return Ok(Some(Box::new(sum_of_tuckers(&parts)?)));
    }
    let product = |&(weight, adapter): &(f64, &dyn WeightAdapter<T>)| {
        let any = adapter as &dyn Any;
        let lora = match any.downcast_ref::<AdaLoraAdapter<T>>() {
            Some(adalora) => Some(adalora.to_lora()?),
            None => any.downcast_ref::<LoraAdapter<T>>().cloned(),
        };
        Ok(lora.map(|lora| (weight, lora)))
    };
    let products = parts.iter().map(product).collect::<Result<Vec<_>>>()?.into_iter().collect::<Option<Vec<_>>>();
    let Some(products) = products else { return Ok(None) };
    if products.iter().any(|(_, adapter)| adapter.form() != products[0].1.form()) {
        return Ok(None);
    }
    Ok(Some(Box::new(sum_of_products(&products)?)))
}

/// The adapters by their own type, if they all have it.
fn all_of<'a, T: Scalar, A: WeightAdapter<T>>(parts: &[(f64, &'a dyn WeightAdapter<T>)]) -> Option<Vec<(f64, &'a A)>> {
    parts.iter().map(|&(weight, adapter)| Some((weight, (adapter as &dyn Any).downcast_ref::<A>()?))).collect()
}

fn sum_of_tuckers<T: Scalar>(parts: &[(f64, &FloraAdapter<T>)]) -> Result<FloraAdapter<T>> {
    let first = parts[0].1;
    let modes = first.ranks().len();
    let total: Vec<usize> = (0..modes).map(|mode| parts.iter().map(|part| part.1.ranks()[mode]).sum()).collect();
    let mut before = vec![0; modes];
    let mut core: Option<Var<T>> = None;
    for (weight, part) in parts {
        let ranks = part.ranks();
        let around: Vec<(usize, usize)> = (0..modes).map(|n| (before[n], total[n] - before[n] - ranks[n])).collect();
        let block = part.core().var().scale(T::of(weight * part.scale()))?.pad(&around)?;
        core = Some(core.map_or(Ok(block.clone()), |core| core.add(&block))?);
        before.iter_mut().zip(ranks).for_each(|(before, rank)| *before += rank);
    }
    let factors = (0..modes).map(|mode| {
        let columns: Vec<&Var<T>> = parts.iter().map(|part| part.1.factors()[mode].var()).collect();
        Var::concat(&columns, 1)
    });
    let core = core.unwrap_or_else(|| first.core().var().clone());
    Ok(first.with_parts(core, factors.collect::<Result<_>>()?, 1.0))
}

fn sum_of_products<T: Scalar>(parts: &[(f64, LoraAdapter<T>)]) -> Result<LoraAdapter<T>> {
    let first = &parts[0].1;
    let [of_a, of_b] = first.rank_modes();
    let a: Vec<&Var<T>> = parts.iter().map(|part| part.1.a()).map(Parameter::var).collect();
    let b = parts.iter().map(|(weight, part)| part.b().var().scale(T::of(weight * part.scale())));
    let b = b.collect::<Result<Vec<_>>>()?;
    Ok(first.with_parts(Var::concat(&a, of_a)?, Var::concat(&b.iter().collect::<Vec<_>>(), of_b)?, 1.0))
}
