//! [`Dora`]: direction and length of a weight's rows apart.

use super::{
    lora::{Lora, LoraAdapter},
    method::{Method, Outline, Start},
    path::Factored,
    site::Site,
};
use crate::{
    autodiff::{Var, without_gradients},
    device::elementwise::Binary,
    error::{Error, ErrorKind, Result},
    module,
    nn::{Call, Contribution, Mode, Operation, Parameter, WeightAdapter},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;
use serde::{Deserialize, Serialize};

/// DoRA: LoRA for the direction of each output's weights, and a length that trains.
///
/// With $V = W_0 + s B A$, every output's part of the weight is brought to a length $m_o$ that trains:
///
/// $$ W_o = m_o\thinspace \frac{V_o}{\lVert V_o \rVert}, \qquad m_o = \lVert W_{0,o} \rVert \text{ at the start}, $$
///
/// where o counts output channels, those of all groups, and the norm is over everything else. As in the paper (section
/// 4.3) the norm counts as a constant on the way back, so that B and A see $dV_o = m_o / \lVert V_o \rVert \thinspace dW_o$.
///
/// Since outputs are scaled one by one, no second weight is needed: with $c_o = m_o / \lVert V_o \rVert$ the layer's
/// result is $c \odot (f(x, W_0) + f(x, s B A)) + \beta$. The weight stays frozen, and costs no gradient. The norms are
/// those of a pass's own $V$, without a gradient: one pass over the weight on the host, where the outputs are B's rows; otherwise $V$
/// is formed.
///
/// It is made of a [`Lora`], which has all settings. Defined on every layer, with groups and transposed convolutions.
/// An output whose weights are all zero has no direction, and keeps none until B and A give it one; its length
/// starts as 1.
///
/// S.-Y. Liu et al., *DoRA: Weight-decomposed low-rank adaptation*, ICML 2024.
///
/// ```
/// use tenfold::{nn::Operation, peft::{Dora, Lora, Method, Site}};
///
/// let dora = Dora::from(Lora::new(8).alpha(16.0));
/// let site = Site::new("query", Operation::Linear, &[768, 768])?;
/// assert_eq!(Method::<f32>::outline(&dora, &site)?.parameters, 8 * (768 + 768) + 768);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Dora {
    lora: Lora,
}

impl Dora {
    /// Of this rank, with the settings of [`Lora::new`].
    pub fn new(rank: usize) -> Self {
        Self { lora: Lora::new(rank) }
    }
}

impl From<Lora> for Dora {
    fn from(lora: Lora) -> Self {
        Self { lora }
    }
}

impl<T: Scalar> Method<T> for Dora {
    fn name(&self) -> &'static str {
        "dora"
    }

    fn outline(&self, site: &Site<'_>) -> Result<Outline> {
        let lora = Method::<T>::outline(&self.lora, site)?;
        let outputs = Outputs::of(site).count();
        Ok(Outline {
            parameters: lora.parameters + outputs,
            // Each length is a direction that the product does not have, until everything is reached.
            degrees_of_freedom: (lora.degrees_of_freedom + outputs).min(site.entries()),
            ..lora
        })
    }

    fn adapter(&self, site: &Site<'_>, start: &Start<'_, T>) -> Result<Box<dyn WeightAdapter<T>>> {
        let lora = self.lora.start(site, start)?;
        Ok(Box::new(DoraAdapter::new(site, lora, start.weight)?))
    }

    fn settled(&self, sites: &[Site<'_>]) -> Result<Option<Box<dyn Method<T>>>> {
        self.lora.check_patterns(sites)?;
        Ok(None)
    }
}

/// Where the outputs are in a weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outputs {
    /// The weight's shape with groups as a mode of their own, where outputs are counted within a group.
    split: Vec<usize>,
    /// Which modes of that count outputs; they are in the order of the outputs.
    modes: Vec<usize>,
}

impl Outputs {
    pub(super) fn of(site: &Site<'_>) -> Self {
        let shape = site.shape();
        match site.operation() {
            Operation::Linear | Operation::Conv(_) | Operation::Residual(_) => {
                Self { split: shape.to_vec(), modes: vec![0] }
            }
            Operation::Embedding { .. } => Self { split: shape.to_vec(), modes: vec![1] },
            // [c_in, c_out / groups, *kernel]: the inputs of a group lie side by side.
            Operation::ConvTranspose(options) => {
                let split = [&[options.groups, shape[0] / options.groups], &shape[1..]].concat();
                Self { split, modes: vec![0, 2] }
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        self.modes.iter().map(|&mode| self.split[mode]).product()
    }

    /// The split shape with size 1 wherever a mode does not count outputs.
    fn beside(&self) -> Vec<usize> {
        (0..self.split.len()).map(|mode| if self.modes.contains(&mode) { self.split[mode] } else { 1 }).collect()
    }

    /// The norm of each output's part of a weight.
    fn norms<T: Scalar>(&self, weight: &Var<T>) -> Result<Tensor<T, IxDyn>> {
        let others: Vec<usize> = (0..self.split.len()).filter(|mode| !self.modes.contains(mode)).collect();
        let squares = without_gradients(|| weight.reshape(self.split.as_slice())?.square()?.sum_modes(&others, false))?;
        squares.value().sqrt()?.reshape([self.count()].as_slice())
    }

    /// The norm of each output's part of a weight with an update; 1 in place of 0, so that what has no direction stays 0.
    fn moved_norms<T: Scalar>(&self, weight: &Var<T>, lora: &LoraAdapter<T>) -> Result<Tensor<T, IxDyn>> {
        let norms = match lora.moved_norms(weight.value())? {
            Some(norms) => norms,
            None => self.norms(&without_gradients(|| weight.add(&lora.delta()?))?)?,
        };
        let ones = norms.scale(T::zero())?.shift(T::one())?;
        norms.add(&ones.sub(&ones.binary("norms", Binary::Signed, &norms)?)?)
    }
}

/// An update of direction and length: a [`LoraAdapter`], and `lora_magnitude_vector`, one number for each output.
#[derive(Debug, Clone)]
pub struct DoraAdapter<T: Scalar> {
    lora: LoraAdapter<T>,
    magnitude: Parameter<T>,
    outputs: Outputs,
}

module!(DoraAdapter { lora => "", magnitude => "lora_magnitude_vector" });

impl<T: Scalar> DoraAdapter<T> {
    /// With the lengths that `weight` has together with the update.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where weight and update have different shapes.
    pub fn new(site: &Site<'_>, lora: LoraAdapter<T>, weight: &Tensor<T, IxDyn>) -> Result<Self> {
        let outputs = Outputs::of(site);
        if weight.shape() != lora.weight_shape() {
            let message =
                format!("an update of shape {:?} for a weight of shape {:?}", lora.weight_shape(), weight.shape());
            return Err(Error::shape("DoraAdapter::new", message));
        }
        let magnitude = outputs.moved_norms(&Var::constant(weight.clone()), &lora)?.into();
        Ok(Self { lora, magnitude, outputs })
    }

    /// With lengths that are known: one for each output.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where there are more or fewer, and where the update is for another weight than the site's.
    pub fn with_magnitude(site: &Site<'_>, lora: LoraAdapter<T>, magnitude: Tensor<T, IxDyn>) -> Result<Self> {
        let outputs = Outputs::of(site);
        let right = [outputs.count()];
        if magnitude.shape() != right || site.shape() != lora.weight_shape() {
            let message = format!(
                "lengths of shape {:?} and an update of shape {:?} for layer {:?}, whose weight has shape {:?}; needs {right:?} lengths",
                magnitude.shape(),
                lora.weight_shape(),
                site.name(),
                site.shape()
            );
            return Err(Error::shape("DoraAdapter::with_magnitude", message));
        }
        Ok(Self { lora, magnitude: magnitude.into(), outputs })
    }

    /// The update of the direction.
    pub fn lora(&self) -> &LoraAdapter<T> {
        &self.lora
    }

    /// The length of each output's weights.
    pub fn magnitude(&self) -> &Parameter<T> {
        &self.magnitude
    }

    /// Other lengths, one for each output.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where there are more or fewer.
    pub fn set_magnitude(&mut self, magnitude: Tensor<T, IxDyn>) -> Result<()> {
        self.magnitude.set(magnitude)
    }

    /// $m / \lVert V \rVert$, the norm a constant.
    fn factors(&self, weight: &Var<T>) -> Result<Var<T>> {
        self.magnitude.var().div(&Var::constant(self.outputs.moved_norms(weight, &self.lora)?))
    }
}

impl<T: Scalar> WeightAdapter<T> for DoraAdapter<T> {
    fn weight_shape(&self) -> Vec<usize> {
        self.lora.weight_shape()
    }

    /// That of the direction alone: with the lengths it is no update that could be added to any weight.
    fn delta(&self) -> Result<Var<T>> {
        self.lora.delta()
    }

    fn effective(&self, weight: &Var<T>) -> Result<Var<T>> {
        let moved = weight.add(&self.lora.delta()?)?;
        let factors = self.factors(weight)?.reshape(self.outputs.beside())?;
        moved.reshape(self.outputs.split.as_slice())?.mul(&factors)?.reshape(weight.shape())
    }

    fn apply(&self, call: &Call<'_, T>, mode: Mode) -> Result<Option<Contribution<T>>> {
        if self.lora.way().drops(call, mode) {
            let message = "dropout on the input of DoRA needs it to be the only adapter that is enabled";
            return Err(Error::new(ErrorKind::Unsupported, "dora", message));
        }
        Ok(None)
    }

    fn result(&self, call: &Call<'_, T>, weight: &Var<T>, bias: Option<&Var<T>>, mode: Mode) -> Result<Option<Var<T>>> {
        let way = self.lora.way();
        let factored = way.goes_through_factors(&self.lora, call, mode)?;
        let drops = way.drops(call, mode);
        if !factored && !drops {
            return Ok(None);
        }
        let dropped = way.dropped(call, mode)?;
        if !factored {
            // What is new in the weight sees the dropped input, as what is new in the result does below.
            let new = dropped.run(&self.effective(weight)?.sub(weight)?, None)?;
            return call.run(weight, bias)?.add(&new).map(Some);
        }
        let factors = self.factors(weight)?;
        let update = self.lora.contribution(&dropped)?;
        if !drops {
            return update.onto(call.run(weight, None)?)?.affine(&factors, bias).map(Some);
        }
        let update = update.value()?.mul(&factors)?;
        let new = dropped.run(weight, None)?.mul(&factors.shift(-T::one())?)?.add(&update)?;
        call.run(weight, bias)?.add(&new).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::{ConvTranspose, testing::normal};

    #[test]
    fn outputs_of_a_grouped_transposed_convolution() {
        let options = ConvTranspose::new().groups(2);
        let site = Site::new("up", Operation::ConvTranspose(&options), &[4, 3, 2, 2]).unwrap();
        let outputs = Outputs::of(&site);
        assert_eq!((outputs.count(), outputs.beside()), (6, vec![2, 1, 3, 1, 1]));
        let w = normal(&[4, 3, 2, 2], 1);
        let norms = outputs.norms(&Var::constant(w.clone())).unwrap().to_vec().unwrap();
        for (output, norm) in norms.iter().enumerate() {
            let (group, within) = (output / 3, output % 3);
            let part = w.narrow(0, 2 * group..2 * group + 2).unwrap().index_mode(1, within).unwrap();
            assert!((norm - part.norm().unwrap()).abs() < 1e-14);
        }
    }
}
