//! [`FloraInit`]: what the factors start as.

use crate::{
    decomp::Hosvd,
    error::{Error, ErrorKind, Result},
    nn::{Fan, Init, Nonlinearity, Operation},
    peft::{method::Start, site::Site},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::Ix2;
use rand::Rng;
use serde::{Deserialize, Serialize};

/// What the factors start as. The core starts as zero, so that the model starts exactly at its own weights whatever the
/// factors are; they decide where the first steps can lead.
///
/// | start | a factor of $I_n \times J_n$ | from |
/// |---|---|---|
/// | `KaimingNormal` | normal, deviation $1 / \sqrt{2 J_n}$ | the authors' code for images (Kaiming with $a = \sqrt 3$) |
/// | `Normal` | normal, deviation 0.02 | the authors' code for GLUE |
/// | `KaimingUniform` | uniform between $\pm 1 / \sqrt{J_n}$ | the authors' code for LLaMA (Kaiming with $a = \sqrt 5$) |
/// | `Orthonormal` | orthonormal columns, uniform among all such | |
/// | `WeightHosvd` | the leading left singular vectors of the weight's mode-n unfolding | its HOSVD |
/// | `GradientHosvd` | those of the first gradient: the subspaces in which the loss falls fastest | its HOSVD |
///
/// Where a rank is above its mode's size, what singular vectors leave over is filled with random columns of about unit
/// length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FloraInit {
    /// Normal with deviation $1 / \sqrt{2 J_n}$.
    #[default]
    KaimingNormal,
    /// Normal with deviation 0.02.
    Normal,
    /// Uniform between $\pm 1 / \sqrt{J_n}$.
    KaimingUniform,
    /// Random orthonormal columns.
    Orthonormal,
    /// Leading left singular vectors of the weight's unfoldings.
    WeightHosvd,
    /// Leading left singular vectors of the unfoldings of the first gradient, which is given to
    /// [`Attach::gradients`](crate::peft::Attach::gradients).
    GradientHosvd,
}

impl FloraInit {
    /// The factors of a site's update, in the order of its modes.
    pub(super) fn factors<T: Scalar>(
        self,
        site: &Site<'_>,
        ranks: &[usize],
        start: &Start<'_, T>,
    ) -> Result<Vec<Tensor<T, Ix2>>> {
        let rng = &mut start.generator(site);
        let sizes = site.modes();
        let shapes = || sizes.iter().zip(ranks).map(|(&size, &rank)| [size, rank]);
        let drawn = |init: Init, rng: &mut _| {
            shapes().map(|shape| init.tensor::<T, _>(&shape, rng)?.into_order::<Ix2>()).collect::<Result<Vec<_>>>()
        };
        let kaiming = |a: f64| (Fan::In, Nonlinearity::LeakyRelu(a).gain());
        let mut factors = match self {
            Self::KaimingNormal => {
                let (fan, gain) = kaiming(3f64.sqrt());
                drawn(Init::KaimingNormal { fan, gain }, rng)?
            }
            Self::KaimingUniform => {
                let (fan, gain) = kaiming(5f64.sqrt());
                drawn(Init::KaimingUniform { fan, gain }, rng)?
            }
            Self::Normal => drawn(Init::Normal { mean: 0.0, std: 0.02 }, rng)?,
            Self::Orthonormal => drawn(Init::Orthogonal { gain: 1.0 }, rng)?,
            Self::WeightHosvd => hosvd(site, ranks, start.weight, "weight", rng)?,
            Self::GradientHosvd => {
                let gradient = start.gradient.ok_or_else(|| {
                    let name = site.name();
                    let message =
                        format!("there is no first gradient for layer {name:?}; give it with Attach::gradients");
                    Error::new(ErrorKind::Value, "flora", message)
                })?;
                hosvd(site, ranks, gradient, "first gradient", rng)?
            }
        };
        if let Operation::Embedding { padding: Some(row) } = site.operation() {
            // The update of this row stays zero: it receives no gradient, and no other factor learns from it.
            let rank = ranks[0];
            factors[0] = factors[0].to_contiguous()?;
            factors[0].as_mut_slice()?[row * rank..(row + 1) * rank].fill(T::zero());
        }
        factors.into_iter().map(|factor| factor.to_device(start.weight.device())).collect()
    }
}

/// Leading left singular vectors of every unfolding of x, which has the weight's shape; `what` is its name.
fn hosvd<T: Scalar, R: Rng>(
    site: &Site<'_>,
    ranks: &[usize],
    x: &Tensor<T>,
    what: &str,
    rng: &mut R,
) -> Result<Vec<Tensor<T, Ix2>>> {
    let name = site.name();
    if x.shape() != site.shape() {
        let message =
            format!("the {what} of layer {name:?} has shape {:?}; its weight has {:?}", x.shape(), site.shape());
        return Err(Error::shape("flora", message));
    }
    x.check_finite("flora")?;
    if x.max_abs()? == 0.0 {
        let message = format!("the {what} of layer {name:?} is zero and has no singular vectors; take another start");
        return Err(Error::new(ErrorKind::Value, "flora", message));
    }
    let (axes, sizes) = (site.axes(), site.modes());
    // The axes are their own inverse: they exchange two modes or none.
    let found: Vec<usize> = axes.iter().map(|&mode| ranks[mode].min(sizes[mode])).collect();
    let (_, vectors) = Hosvd::ranks(found).fit(x)?.into_inner().into_parts();
    let widened = axes.iter().zip(sizes).zip(ranks).map(|((&axis, size), &rank)| {
        let vectors = vectors[axis].clone();
        if rank <= size {
            return Ok(vectors);
        }
        let init = Init::Normal { mean: 0.0, std: (size as f64).sqrt().recip() };
        let more = init.tensor::<T, _>(&[size, rank - size], rng)?.into_order::<Ix2>()?.to_device(vectors.device())?;
        Tensor::concat(&[&vectors, &more], 1)
    });
    widened.collect()
}
