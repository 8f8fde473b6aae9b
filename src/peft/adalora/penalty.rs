//! [`orthogonality`]: how far the factors of updates are from orthonormal ones.

use super::allocator::training;
use crate::{autodiff::Var, error::Result, nn::Module, peft::lora::LoraAdapter, scalar::Scalar, tensor::Tensor};
use std::collections::BTreeMap;

/// The mean distance of $P$ and $Q$ from matrices with orthonormal columns and rows, over the model's AdaLoRA adapters that train
/// and count:
///
/// $$ R = \frac 1 {2 L} \sum_{l = 1}^L \lVert P_l^T P_l - I \rVert_F + \lVert Q_l Q_l^T - I \rVert_F, $$
///
/// as Hugging Face's PEFT has it: Frobenius norms, not their squares as in the paper (Eq. 4), and pruned triplets among them.
/// One entry; `None` where there is no such adapter. Where a matrix is orthonormal exactly, so that the norm has no
/// derivative, its gradient is 0.
///
/// ```
/// use tenfold::{autodiff::Var, Tensor, nn::{Layer, Linear, Operation}, peft::{AdaLoraAdapter, Site, orthogonality}};
///
/// let mut layer = Linear::<f64>::zeros(4, 4)?;
/// assert!(orthogonality(&layer)?.is_none());
/// let site = Site::new("dense", Operation::Linear, &[4, 4])?;
/// let (a, b) = (Tensor::eye(4)?.into_dyn(), Tensor::eye(4)?.scale(2.0)?.into_dyn());
/// layer.attach("default", AdaLoraAdapter::new(&site, a, Tensor::ones([4, 1])?.into_dyn(), b, 1.0)?)?;
/// // 0 for A, and sqrt(4 (4 - 1)^2) for B.
/// assert!((orthogonality(&layer)?.map_or(Ok(0.0), |r| r.item())? - 3.0).abs() < 1e-12);
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # Errors
/// Those of the operations.
pub fn orthogonality<T: Scalar>(model: &(impl Module<T> + ?Sized)) -> Result<Option<Var<T>>> {
    let mut units: BTreeMap<usize, Var<T>> = BTreeMap::new();
    let (mut sum, mut count) = (None::<Var<T>>, 0);
    for (_, adapter) in training(model) {
        let lora = adapter.factors();
        for (matrix, mode) in [lora.a(), lora.b()].into_iter().zip(lora.rank_modes()) {
            count += 1;
            let rank = matrix.shape()[mode];
            if rank == 0 {
                continue;
            }
            let device = matrix.var().device();
            let unit = match units.get(&rank) {
                Some(unit) if unit.device().same_place(device) => unit.clone(),
                _ => {
                    let unit = Var::constant(Tensor::eye(rank)?.to_device(device)?);
                    units.insert(rank, unit.clone());
                    unit
                }
            };
            let rows = LoraAdapter::matrix(matrix.var(), mode)?;
            let squares = rows.matmul(&rows.permute(&[1, 0])?)?.sub(&unit)?.square()?.sum()?;
            // A number that is lost beside any other, and keeps the root's derivative finite at 0.
            let distance = squares.shift(T::of(f64::from(f32::MIN_POSITIVE)))?.sqrt()?;
            sum = Some(sum.map_or(Ok(distance.clone()), |sum| sum.add(&distance))?);
        }
    }
    sum.map(|sum| sum.scale(T::of(1.0 / f64::from(count)))).transpose()
}
