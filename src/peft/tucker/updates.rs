//! [`updates`]: what adapters have come to.

use super::in_mode_order;
use crate::{
    autodiff::without_gradients,
    decomp::Tucker,
    error::{Error, ErrorKind, Result},
    nn::{Module, Operation, WeightAdapter},
    peft::{
        adalora::AdaLoraAdapter,
        flora::FloraAdapter,
        lora::{LoraAdapter, LoraForm},
        site::Site,
    },
    scalar::Scalar,
    tensor::Tensor,
};
use serde::{Deserialize, Serialize};
use std::{any::Any, fmt};

/// Singular values below this part of a mode's largest are rounding.
const NOTHING: f64 = 1e-6;

/// How far the adapters of a model have moved its weights, and along how many directions. Made by [`updates`].
///
/// Printed, it is a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Updates {
    /// In the order of the model.
    pub rows: Vec<Update>,
}

/// A line of [`Updates`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// The layer.
    pub name: String,
    /// Its weight's shape.
    pub shape: Vec<usize>,
    /// $\lVert \Delta \rVert_F$, scale included.
    pub norm: f64,
    /// $\lVert \Delta \rVert_F / \lVert W_0 \rVert_F$.
    pub relative: f64,
    /// The singular values of the update's unfoldings, falling, for each mode in the order input, output, kernel. Empty for methods whose
    /// updates have no factored form here (DoRA, LoRA in loralib's form and in that of Equation 3).
    pub singular_values: Vec<Vec<f64>>,
    /// The feature amplification factor of LoRA's paper (section 7.3) for any order: $\lVert \Delta \rVert_F / \lVert W_0 \times_n
    /// U_n^T \rVert_F$ with $U_n$ an orthonormal basis of the mode-n range of the update. For a matrix, $\lVert \Delta \rVert / \lVert U^T W_0 V
    /// \rVert$. Large where the update strengthens what the weight has little of. `None` where there are no singular values, or no update.
    pub amplification: Option<f64>,
}

/// Looks at the adapters of a name, without forming an update that is factored.
///
/// ```
/// use tenfold::{Tensor, nn::{Layer, Linear, Module}, peft::{self, Attach, Flora}};
///
/// let mut layer = Linear::<f64>::from_tensors(Tensor::eye(6)?, None)?;
/// Attach::new(&Flora::new().rank(2).scale(0.5)).apply(&mut layer)?;
/// let adapter = layer.parameters_mut().into_iter().skip(1);
/// for ((_, parameter), value) in adapter.zip([
///     Tensor::from(ndarray::array![[4.0, 0.0], [0.0, 2.0]]).into_dyn(),
///     Tensor::eye(6)?.narrow(1, 0..2)?.into_dyn(),
///     Tensor::eye(6)?.narrow(1, 0..2)?.into_dyn(),
/// ]) {
///     parameter.set(value)?;
/// }
/// let found = peft::updates(&layer, "default")?;
/// let update = &found.rows[0];
/// assert_eq!(update.singular_values, [[2.0, 1.0], [2.0, 1.0]]);
/// assert_eq!(update.ranks(0.5), [1, 1]); // half of its norm is more than the second direction has
/// assert!((update.amplification.unwrap() - (5f64 / 2.0).sqrt()).abs() < 1e-12); // two directions of the identity
/// println!("{found}");
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// **Cost** for each factored layer: QR of the factors, a product of the weight with them.
///
/// # Errors
/// [`ErrorKind::Value`] where no layer has an adapter of the name, and where one is not finite; [`ErrorKind::Unsupported`] for bottlenecks, which
/// update no weight.
pub fn updates<T: Scalar>(model: &(impl Module<T> + ?Sized), name: &str) -> Result<Updates> {
    let mut rows = Vec::new();
    for (layer, found) in model.layers() {
        let Some(adapter) = found.adapters().get(name) else { continue };
        let site = Site::of_layer(layer, found)?;
        rows.push(Update::of(&site, adapter, found.weight().value()).map_err(|cause| {
            let message = format!("layer {:?}: {}", site.name(), cause.message());
            Error::new(cause.kind(), "updates", message).with_source(cause)
        })?);
    }
    if rows.is_empty() {
        return Err(Error::new(ErrorKind::Value, "updates", format!("no layer has an adapter {name:?}")));
    }
    Ok(Updates { rows })
}

impl Update {
    fn of<T: Scalar>(site: &Site<'_>, adapter: &dyn WeightAdapter<T>, weight: &Tensor<T>) -> Result<Self> {
        let (name, shape, of_weight) = (site.name().to_string(), site.shape().to_vec(), weight.norm()?);
        let part = |norm: f64| if norm == 0.0 { 0.0 } else { norm / of_weight };
        let Some(tucker) = tucker_of(site, adapter)? else {
            let effective = without_gradients(|| adapter.effective(&crate::autodiff::Var::constant(weight.clone())))?;
            let difference = effective.value().sub(weight)?;
            difference.check_finite("updates")?;
            let norm = difference.norm()?;
            let relative = part(norm);
            return Ok(Self { name, shape, norm, relative, singular_values: Vec::new(), amplification: None });
        };
        // Factors that are orthonormal, their columns in the order of the singular values.
        let canonical = tucker.canonicalize()?;
        let norm = canonical.core().norm()?;
        let modes = 0..canonical.ranks().len();
        let singular_values = modes.map(|mode| canonical.mode_singular_values(mode)).collect::<Result<Vec<_>>>()?;
        let mut amplification = None;
        if norm > 0.0 {
            let bases = canonical.factors().iter().zip(&singular_values).map(|(factor, values)| {
                let largest = values.first().copied().unwrap_or(0.0);
                factor.narrow(1, 0..values.iter().filter(|value| **value > NOTHING * largest).count())
            });
            let seen = Tucker::project(&in_mode_order(site, weight)?, bases.collect::<Result<_>>()?)?;
            amplification = Some(norm / seen.core().norm()?);
        }
        Ok(Self { name, shape, norm, relative: part(norm), singular_values, amplification })
    }

    /// The rank that each mode needs by itself for all but this part of the update's norm.
    pub fn ranks(&self, tolerance: f64) -> Vec<usize> {
        let allowed = (tolerance * self.norm).powi(2);
        let needed = |values: &Vec<f64>| {
            let (mut rank, mut tail) = (values.len(), 0.0);
            while rank > 1 {
                tail += values[rank - 1].powi(2);
                if tail > allowed {
                    break;
                }
                rank -= 1;
            }
            rank
        };
        self.singular_values.iter().map(needed).collect()
    }
}

/// An update in Tucker form, modes in the order input, output, kernel, where its method has one.
fn tucker_of<T: Scalar>(site: &Site<'_>, adapter: &dyn WeightAdapter<T>) -> Result<Option<Tucker<T>>> {
    let any = adapter as &dyn Any;
    if let Some(flora) = any.downcast_ref::<FloraAdapter<T>>() {
        return flora.tucker().map(Some);
    }
    let folded = any.downcast_ref::<AdaLoraAdapter<T>>().map(AdaLoraAdapter::to_lora).transpose()?;
    let Some(lora) = folded.as_ref().or(any.downcast_ref::<LoraAdapter<T>>()) else { return Ok(None) };
    let matrix = site.shape().len() == 2;
    if !matrix && lora.form() != LoraForm::Channels {
        return Ok(None);
    }
    let scaled = |part: &Tensor<T>| part.scale(T::of(lora.scale()));
    let (a, b) = (lora.a().value(), lora.b().value());
    let device = a.device();
    let eye = |n: usize| Tensor::eye(n)?.to_device(device);
    if matrix {
        // A [r, in] and B [out, r]; of a table [r, rows] and [width, r].
        let core = scaled(&eye(lora.rank())?.into_dyn())?;
        let [a, b] = [a.permute(&[1, 0])?, b.clone()].map(|part| part.to_contiguous()?.into_order());
        return Tucker::new(core, vec![a?, b?]).map(Some);
    }
    // One of the two has the kernel and is a core with identities around it.
    let order = site.shape().len();
    let swapped: Vec<usize> = [1, 0].into_iter().chain(2..order).collect();
    let flat = |part: &Tensor<T>, rows: usize, columns: usize| part.to_contiguous()?.reshape([rows, columns]);
    let (core, own) = match site.operation() {
        // A [r, in, *k], B [out, r, 1..]: the core [in, r, *k].
        Operation::Conv(_) => (a.permute(&swapped)?, (1, flat(b, b.shape()[0], lora.rank())?)),
        // A [r, in, 1..], B [r, out, *k]: the core [r, out, *k].
        _ => (b.clone(), (0, flat(a, lora.rank(), a.shape()[1])?.t().to_contiguous()?)),
    };
    let factors = (0..order).map(|mode| if mode == own.0 { Ok(own.1.clone()) } else { eye(core.shape()[mode]) });
    Tucker::new(scaled(&core)?, factors.collect::<Result<_>>()?).map(Some)
}

impl Updates {
    /// The mean of $\lVert \Delta \rVert_F$ over layers.
    pub fn mean_norm(&self) -> f64 {
        self.rows.iter().map(|row| row.norm).sum::<f64>() / self.rows.len().max(1) as f64
    }

    /// The mean of the amplification factors over the layers that have one; `None` where none has.
    pub fn mean_amplification(&self) -> Option<f64> {
        let factors: Vec<f64> = self.rows.iter().filter_map(|row| row.amplification).collect();
        (!factors.is_empty()).then(|| factors.iter().sum::<f64>() / factors.len() as f64)
    }
}

impl fmt::Display for Updates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).max(5);
        write!(f, "{:<width$}  {:>9}  {:>9}  {:>9}  ranks for 99 %", "layer", "norm", "relative", "amplified")?;
        for row in &self.rows {
            let amplified = row.amplification.map_or("-".into(), |factor| format!("{factor:.2}"));
            // 0.99 of the norm's square.
            let ranks: Vec<String> = row.ranks(0.1).iter().map(usize::to_string).collect();
            let ranks = if ranks.is_empty() { "-".into() } else { ranks.join(", ") };
            write!(f, "\n{:<width$}  {:>9.2e}  {:>9.2e}  {amplified:>9}  {ranks}", row.name, row.norm, row.relative)?;
        }
        Ok(())
    }
}
