//! Activation checkpointing: memory for time.

use super::{
    backward::now,
    var::{Var, again_with_gradients, would_record},
};
use crate::{error::Result, scalar::Scalar, tensor::Tensor};

/// Computes `block(inputs)` and keeps only the inputs; what the block's operations save is computed again when its gradient is
/// wanted.
///
/// Inputs are kept as they are, also where other operations keep theirs [in bf16](crate::Precision): the block starts from the same numbers.
///
/// The result and the gradients are those of `block(inputs)` itself, bit for bit, as long as `block` gives the same result
/// when it is called again: randomness has to come from a seed, not from a generator that has moved on. Parameters that the block uses
/// receive their gradients without being passed; any other variable that was computed outside has to be among `inputs`.
/// Cost: one more forward pass of the block (Chen et al. 2016, arXiv:1604.06174).
///
/// ```
/// use ndarray::array;
/// use tenfold::{Tensor, autodiff::{Var, checkpoint}};
///
/// let w = Var::parameter(Tensor::from(array![[0.5, 1.0], [2.0, -1.0]]));
/// let x = Var::constant(Tensor::from(array![[1.0, 2.0]]));
/// let block = {
///     let w = w.clone();
///     move |x: &[Var<f64>]| x[0].linear(&w, None)?.square()?.linear(&w, None)
/// };
/// let plain = block(&[x.clone()])?.sum()?.backward()?;
/// let saved = checkpoint(&[&x], block)?.sum()?.backward()?;
/// assert_eq!(plain.of(&w)?, saved.of(&w)?);
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # Errors
/// Those of `block`; and in the backward pass [`ErrorKind::Value`](crate::ErrorKind::Value) where the block uses a variable
/// that is neither a parameter nor among `inputs`.
pub fn checkpoint<T: Scalar>(
    inputs: &[&Var<T>],
    block: impl Fn(&[Var<T>]) -> Result<Var<T>> + Send + 'static,
) -> Result<Var<T>> {
    let operands: Vec<Var<T>> = inputs.iter().map(|&v| v.clone()).collect();
    let (result, recorded) = would_record(|| block(&operands));
    let value = result?.into_value();
    // A block may depend on parameters alone, which are not among the operands: an anchor keeps its node on the way back.
    let anchor = recorded.then(|| Tensor::zeros([0]).map(Var::parameter)).transpose()?;
    let mut all: Vec<&Var<T>> = inputs.to_vec();
    all.extend(&anchor);
    let wanted: Vec<Option<bool>> = inputs.iter().map(|v| v.needs_gradient().then(|| v.is_computed())).collect();
    let saved: Vec<_> = operands.into_iter().map(Var::into_value).collect();
    Ok(Var::record("checkpoint", value, &all, move |gradient, flow| {
        let floor = now();
        let fresh: Vec<Var<T>> = saved
            .into_iter()
            .zip(&wanted)
            .map(|(value, &wanted)| match wanted {
                Some(computed) => Var::standing_for(value, computed),
                None => Var::constant(value),
            })
            .collect();
        let result = again_with_gradients(|| block(&fresh))?;
        let mut gradients = result.backward_above(gradient, floor)?;
        for (position, input) in fresh.iter().enumerate() {
            if let Some(gradient) = gradients.take(input) {
                flow.give(position, gradient)?;
            }
        }
        flow.merge(gradients)
    }))
}
