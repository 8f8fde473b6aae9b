//! Gradients against finite differences.

use super::var::{Var, without_gradients};
use crate::{
    algebra::inner,
    error::{Error, ErrorKind, Result},
    tensor::{Tensor, index_at},
};
use ndarray::IxDyn;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The step of the differences, for inputs of magnitude about 1: their error is about h^4 of the fifth derivative, and
/// rounding adds 1e-16 / h.
const STEP: f64 = 1e-3;

/// Compares the gradients of `f` with finite differences, for every entry of every input.
///
/// The result of `f`, of any shape, is weighted with fixed random numbers and summed; each entry of each input is moved by
/// one and two steps to both sides (the fourth-order central difference, with a step of 1e-3). `tolerance` is relative to the largest
/// entry of that input's gradient, or to 1 where that is smaller; 1e-6 is a good value. Inputs should be of magnitude about 1 and
/// away from kinks, as that of ReLU at 0. Cost: 4 calls of `f` an entry.
///
/// ```
/// use tenfold::{Tensor, autodiff::check_gradients};
/// use rand::SeedableRng;
///
/// let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
/// let x = Tensor::normal([3, 4], &mut rng)?.into_dyn();
/// let w = Tensor::normal([2, 4], &mut rng)?.into_dyn();
/// check_gradients(&[x, w], 1e-6, |v| v[0].linear(&v[1], None))?;
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Value`] naming the input, the entry and both numbers where they differ, and where an input received no
/// gradient at all; and the errors of `f`.
pub fn check_gradients(
    inputs: &[Tensor<f64, IxDyn>],
    tolerance: f64,
    f: impl Fn(&[Var<f64>]) -> Result<Var<f64>>,
) -> Result<()> {
    check(inputs, tolerance, &f)
}

type Function<'a> = dyn Fn(&[Var<f64>]) -> Result<Var<f64>> + 'a;

/// Compiled once, not for each closure.
fn check(inputs: &[Tensor<f64, IxDyn>], tolerance: f64, f: &Function) -> Result<()> {
    let variables: Vec<Var<f64>> = inputs.iter().map(|x| Var::parameter(x.clone())).collect();
    let result = f(&variables)?;
    let weights = Tensor::normal(result.shape().to_vec(), &mut ChaCha8Rng::seed_from_u64(0x5eed))?.into_dyn();
    let gradients = result.backward_from(weights.clone())?;
    let at = |moved: usize, entry: usize, step: f64| -> Result<f64> {
        let mut values = inputs.to_vec();
        values[moved].as_mut_slice()?[entry] += step;
        let variables: Vec<Var<f64>> = values.into_iter().map(Var::constant).collect();
        inner(without_gradients(|| f(&variables))?.value(), &weights)
    };
    for (i, input) in inputs.iter().enumerate() {
        let gradient = gradients.get(&variables[i]).ok_or_else(|| {
            Error::new(ErrorKind::Value, "check_gradients", format!("no gradient arrived at input {i}"))
        })?;
        let scale = gradient.max_abs()?.max(1.0);
        for (entry, &got) in gradient.to_vec()?.iter().enumerate() {
            let near = at(i, entry, STEP)? - at(i, entry, -STEP)?;
            let far = at(i, entry, 2.0 * STEP)? - at(i, entry, -2.0 * STEP)?;
            let expected = (8.0 * near - far) / (12.0 * STEP);
            // Written so that NaN fails.
            let close = (got - expected).abs() <= tolerance * scale;
            if !close {
                let message = format!(
                    "input {i}, entry {:?}: the gradient is {got:e}, finite differences give {expected:e}",
                    index_at(input.shape(), entry)
                );
                return Err(Error::new(ErrorKind::Value, "check_gradients", message));
            }
        }
    }
    Ok(())
}
