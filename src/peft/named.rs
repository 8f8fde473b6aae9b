//! What is done with the adapters of a name everywhere at once: [`detach`], [`enable`], [`disable`], [`switch`]; and whether a name is free.

use crate::{
    error::{Error, ErrorKind, Result},
    nn::{Layer, Module},
    scalar::Scalar,
    tensor::listed,
};
use std::collections::BTreeSet;

/// What is wrong with a name for new adapters of these layers, if anything is: that it is empty, or that some have an adapter of it.
pub(super) fn check_free<T: Scalar>(name: &str, layers: &[(String, &dyn Layer<T>)]) -> Result<(), String> {
    if name.is_empty() {
        return Err("adapters need a name".into());
    }
    let taken = layers.iter().filter(|(_, layer)| layer.adapters().get(name).is_some());
    let taken: Vec<&str> = taken.map(|(layer, _)| layer.as_str()).collect();
    match taken.len() {
        0 => Ok(()),
        _ => {
            let taken = listed(taken.into_iter());
            Err(format!("{name:?} is the name of an adapter of {taken}; take another, or detach it"))
        }
    }
}

/// Does something with the adapters of every layer that has one of this name, and says how many there are.
fn each<T: Scalar>(
    model: &mut (impl Module<T> + ?Sized),
    name: &str,
    operation: &'static str,
    mut act: impl FnMut(&mut dyn Layer<T>) -> Result<()>,
) -> Result<usize> {
    let mut names = BTreeSet::new();
    let mut count = 0;
    for (_, layer) in model.layers_mut() {
        names.extend(layer.adapters().names().map(str::to_string));
        if layer.adapters().get(name).is_some() {
            count += 1;
            act(layer)?;
        }
    }
    if count == 0 {
        let there = match names.len() {
            0 => "there are none".to_string(),
            _ => format!("there are {}", listed(names.iter().map(String::as_str))),
        };
        let message = format!("no layer has an adapter {name:?}; {there}");
        return Err(Error::new(ErrorKind::Value, operation, message));
    }
    Ok(count)
}

/// Takes the adapters of this name off, and returns on how many layers there was one. What was frozen stays frozen.
///
/// # Errors
/// [`ErrorKind::Value`] where there are none.
pub fn detach<T: Scalar>(model: &mut (impl Module<T> + ?Sized), name: &str) -> Result<usize> {
    each(model, name, "detach", |layer| layer.adapters_mut().detach(name).map(drop))
}

/// Lets the adapters of this name count.
///
/// # Errors
/// [`ErrorKind::Value`] where there are none.
pub fn enable<T: Scalar>(model: &mut (impl Module<T> + ?Sized), name: &str) -> Result<usize> {
    each(model, name, "enable", |layer| layer.adapters_mut().enable(name))
}

/// Lets the model compute as if the adapters of this name were not there.
///
/// # Errors
/// [`ErrorKind::Value`] where there are none.
pub fn disable<T: Scalar>(model: &mut (impl Module<T> + ?Sized), name: &str) -> Result<usize> {
    each(model, name, "disable", |layer| layer.adapters_mut().disable(name))
}

/// Lets the adapters of this name count and train, and no others: all others are disabled and frozen.
///
/// ```
/// use tenfold::{nn::{Linear, Module}, peft::{self, Attach, Lora}};
///
/// let mut layer = Linear::<f32>::zeros(8, 8)?;
/// Attach::new(&Lora::new(2)).name("a").apply(&mut layer)?;
/// Attach::new(&Lora::new(4)).name("b").apply(&mut layer)?;
/// assert_eq!(layer.count().trainable, 2 * 16 + 4 * 16); // both count, and train
/// peft::switch(&mut layer, "a")?;
/// assert_eq!(layer.count().trainable, 2 * 16);
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Value`] where there are none of this name; nothing is changed then.
pub fn switch<T: Scalar>(model: &mut (impl Module<T> + ?Sized), name: &str) -> Result<usize> {
    let count = each(model, name, "switch", |_| Ok(()))?;
    for (_, layer) in model.layers_mut() {
        let adapters = layer.adapters_mut();
        let others: Vec<String> = adapters.names().map(str::to_string).collect();
        for other in others {
            let alone = other == name;
            if alone {
                adapters.enable(&other)?
            } else {
                adapters.disable(&other)?
            }
            for (_, parameter) in adapters.get_mut(&other).into_iter().flat_map(|adapter| adapter.parameters_mut()) {
                if alone { parameter.unfreeze() } else { parameter.freeze() }
            }
        }
    }
    Ok(count)
}
