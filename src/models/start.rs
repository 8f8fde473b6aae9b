//! What the weights of a new model are drawn from.

use crate::{
    error::Result,
    nn::{Init, Layer, Module},
    scalar::Scalar,
};
use rand::Rng;

/// Draws every layer's weight anew, in the order of the model's parts; those of norms and all other parameters stay.
pub(super) fn draw<T: Scalar, R: Rng + ?Sized>(
    model: &mut (impl Module<T> + ?Sized),
    start: impl Fn(&dyn Layer<T>) -> Init,
    rng: &mut R,
) -> Result<()> {
    for (_, layer) in model.layers_mut() {
        if !layer.operation().maps() {
            continue;
        }
        let weight = start(layer).tensor(layer.weight().shape(), rng)?;
        layer.weight_mut().set(weight)?;
    }
    Ok(())
}
