//! [`AdaLoraAdapter`]: the update of one weight, as a product with a diagonal in the middle.

use super::importance::{Next, Smoothed};
use crate::{
    autodiff::{Var, without_gradients},
    error::{Error, Result},
    module,
    nn::{Buffer, Call, Contribution, Mode, Parameter, WeightAdapter},
    peft::{
        lora::{LoraAdapter, LoraForm, Shapes},
        path::Path,
        site::Site,
    },
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;

/// An update $s\thinspace P \operatorname{diag}(\lambda) Q$ of a weight seen as a matrix. Its parameters are `lora_A` ($Q$), `lora_B` ($P$), in the
/// shapes of [`LoraAdapter`], and `lora_E` ($\lambda$), `[r, 1]`.
///
/// It holds besides, in buffers, how much every entry matters, and `mask`, which says what the last choice of a
/// [`RankAllocator`](super::RankAllocator) left: 1 or 0 for each triplet.
///
/// $\lambda$ is multiplied into $Q$, and then it is a LoRA on either path.
#[derive(Debug, Clone)]
pub struct AdaLoraAdapter<T: Scalar> {
    /// A and B, and how they are put together.
    lora: LoraAdapter<T>,
    e: Parameter<T>,
    importance: Importance<T>,
    mask: Buffer<T>,
    /// Which of the triplets that there were at the start are here.
    numbers: Vec<usize>,
    /// How many there were.
    initial: usize,
}

module!(AdaLoraAdapter { lora => "", e => "lora_E", importance => "importance", mask => "mask" });

#[derive(Debug, Clone)]
struct Importance<T: Scalar> {
    a: Smoothed<T>,
    b: Smoothed<T>,
    e: Smoothed<T>,
}

module!(Importance { a => "lora_A", b => "lora_B", e => "lora_E" });

/// What is known of the three parameters after a step that has not taken place yet: A, B, E.
pub(super) type Seen<T> = [Next<T>; 3];

/// What files hold: the triplets that are left, and which those are of all that there were at the start.
#[derive(Debug)]
pub(in crate::peft) struct Left<T: Scalar> {
    pub(in crate::peft) a: Tensor<T, IxDyn>,
    pub(in crate::peft) b: Tensor<T, IxDyn>,
    pub(in crate::peft) e: Tensor<T, IxDyn>,
    pub(in crate::peft) pattern: Vec<bool>,
}

impl<T: Scalar> AdaLoraAdapter<T> {
    /// The update with these matrices and this scale; all train. $\lambda$ is `e`, of shape `[r, 1]`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where they do not have the shapes of the same rank at this site;
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) for a scale that is not finite.
    pub fn new(
        site: &Site<'_>,
        a: Tensor<T, IxDyn>,
        e: Tensor<T, IxDyn>,
        b: Tensor<T, IxDyn>,
        scale: f64,
    ) -> Result<Self> {
        let all = vec![true; e.len()];
        Self::pruned(site, a, e, b, scale, &all)
    }

    /// The update with what is left of triplets: `kept` says for each that there was at the start whether it is here. None may be left.
    ///
    /// # Errors
    /// As [`new`](AdaLoraAdapter::new), and [`ErrorKind::Shape`](crate::ErrorKind::Shape) where `kept` has another number of triplets.
    pub fn pruned(
        site: &Site<'_>,
        a: Tensor<T, IxDyn>,
        e: Tensor<T, IxDyn>,
        b: Tensor<T, IxDyn>,
        scale: f64,
        kept: &[bool],
    ) -> Result<Self> {
        let numbers: Vec<usize> = (0..kept.len()).filter(|&number| kept[number]).collect();
        let rank = numbers.len();
        let shapes = Shapes::new(LoraForm::Channels, site, rank)?;
        if a.shape() != shapes.a || b.shape() != shapes.b || e.shape() != [rank, 1] || kept.is_empty() {
            let message = format!(
                "A of shape {:?}, E of shape {:?} and B of shape {:?} for {rank} of {} triplets at layer {:?}, whose weight has \
                 shape {:?}; needs {:?}, [{rank}, 1] and {:?}",
                a.shape(),
                e.shape(),
                b.shape(),
                kept.len(),
                site.name(),
                site.shape(),
                shapes.a,
                shapes.b
            );
            return Err(Error::shape("AdaLoraAdapter::new", message));
        }
        let importance = Importance { a: Smoothed::like(&a)?, b: Smoothed::like(&b)?, e: Smoothed::like(&e)? };
        let mask = Buffer::new(Tensor::<T, _>::ones([rank, 1])?.to_device(e.device())?);
        // Nothing is there to train where no triplet is left.
        let leaf = |value| if rank == 0 { Var::constant(value) } else { Var::parameter(value) };
        // LoRA has no rank 0 by itself.
        let zeros = Shapes::new(LoraForm::Channels, site, rank.max(1))?;
        let zeros = [&zeros.a, &zeros.b].map(|shape| Tensor::zeros(shape.as_slice()));
        let [zero_a, zero_b] = zeros;
        let lora = LoraAdapter::new(site, LoraForm::Channels, zero_a?, zero_b?, scale)?;
        let lora = lora.with_parts(leaf(a), leaf(b), scale);
        Ok(Self { lora, e: leaf(e).into(), importance, mask, numbers, initial: kept.len() })
    }

    /// Drops entries of the adapter's input with this probability while training, as [`LoraAdapter::dropout`] does.
    ///
    /// # Errors
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) where the probability is not between 0 and 1.
    pub fn dropout(self, probability: f64) -> Result<Self> {
        Ok(Self { lora: self.lora.dropout(probability)?, ..self })
    }

    /// Takes this path.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for [`Path::Factored`] where there is none.
    pub fn path(self, path: Path) -> Result<Self> {
        Ok(Self { lora: self.lora.path(path)?, ..self })
    }

    /// A, whose rows are right singular vectors as far as the penalty makes them so.
    pub fn a(&self) -> &Parameter<T> {
        self.lora.a()
    }

    /// B, of left singular vectors.
    pub fn b(&self) -> &Parameter<T> {
        self.lora.b()
    }

    /// E, the singular values.
    pub fn e(&self) -> &Parameter<T> {
        &self.e
    }

    /// s
    pub fn scale(&self) -> f64 {
        self.lora.scale()
    }

    /// How many triplets there were at the start; what is loaded may have fewer.
    pub fn initial_rank(&self) -> usize {
        self.initial
    }

    /// How many triplets are here, pruned ones included.
    pub fn rank(&self) -> usize {
        self.numbers.len()
    }

    /// For each triplet that is here, whether it is left: neither was it beyond the budget at the last choice, nor has it moved since. Read from
    /// where the adapter lives.
    ///
    /// # Errors
    /// Those of a transfer.
    pub fn kept(&self) -> Result<Vec<bool>> {
        let (mask, values) = (self.mask.value().to_vec()?, self.e.value().to_vec()?);
        Ok(mask.into_iter().zip(values).map(|(mask, value)| mask != T::zero() || value != T::zero()).collect())
    }

    /// The same update as a LoRA, $s\thinspace P\thinspace (\operatorname{diag}(\lambda) Q)$, without the triplets that were pruned. LoRA has no
    /// rank 0: where none is left, it is one of zeros.
    ///
    /// # Errors
    /// Those of the operations that make it.
    pub fn to_lora(&self) -> Result<LoraAdapter<T>> {
        without_gradients(|| {
            let kept = self.kept()?;
            let lora = self.folded()?;
            let modes = self.lora.rank_modes();
            let chosen = |parameter: &Parameter<T>, mode| chosen(parameter.value(), mode, &kept);
            let (a, b) = (chosen(lora.a(), modes[0])?, chosen(lora.b(), modes[1])?);
            if a.is_empty() {
                let zeros = |value: &Tensor<T, IxDyn>, mode: usize| {
                    let shape: Vec<usize> =
                        value.shape().iter().enumerate().map(|(n, &size)| if n == mode { 1 } else { size }).collect();
                    Tensor::zeros(shape.as_slice())?.to_device(value.device())
                };
                let (a, b) = (zeros(&a, modes[0])?, zeros(&b, modes[1])?);
                return Ok(self.lora.with_parts(Var::parameter(a), Var::parameter(b), self.scale()));
            }
            Ok(self.lora.with_parts(Var::parameter(a), Var::parameter(b), self.scale()))
        })
    }

    /// The triplets that are left.
    pub(in crate::peft) fn left(&self) -> Result<Left<T>> {
        let kept = self.kept()?;
        let [of_a, of_b] = self.lora.rank_modes();
        let mut pattern = vec![false; self.initial];
        self.numbers.iter().zip(&kept).for_each(|(&number, &kept)| pattern[number] = kept);
        let (a, b) = (chosen(self.a().value(), of_a, &kept)?, chosen(self.b().value(), of_b, &kept)?);
        Ok(Left { a, b, e: chosen(self.e.value(), 0, &kept)?, pattern })
    }

    pub(in crate::peft) fn factors(&self) -> &LoraAdapter<T> {
        &self.lora
    }

    /// With the singular values multiplied into A.
    fn folded(&self) -> Result<LoraAdapter<T>> {
        let a = self.a().var();
        let mut beside = vec![1; a.order()];
        beside[self.lora.rank_modes()[0]] = self.rank();
        let a = a.mul(&self.e.var().reshape(beside)?)?;
        Ok(self.lora.with_parts(a, self.b().var().clone(), self.scale()))
    }

    /// The parameters and what is known of each: A, B, E.
    fn known(&self) -> [(&Parameter<T>, &Smoothed<T>); 3] {
        let Importance { a, b, e } = &self.importance;
        [(self.a(), a), (self.b(), b), (&self.e, e)]
    }

    /// What is known after the steps so far, and after one more for those parameters for which `next` says it.
    pub(super) fn seen(
        &self,
        next: impl Fn(&Parameter<T>, &Smoothed<T>) -> Result<Option<Next<T>>>,
    ) -> Result<Seen<T>> {
        let [a, b, e] = self
            .known()
            .map(|(parameter, known)| next(parameter, known).map(|next| next.unwrap_or_else(|| known.held())));
        Ok([a?, b?, e?])
    }

    /// How much each triplet matters, `[r]`: $s(\lambda_i) + \operatorname{mean}_j s(P_{ji}) + \operatorname{mean}_j s(Q_{ij})$.
    pub(super) fn scores(&self, [a, b, e]: &Seen<T>) -> Result<Tensor<T, IxDyn>> {
        let [of_a, of_b] = self.lora.rank_modes();
        e.scores(0)?.add(&a.scores(of_a)?.add(&b.scores(of_b)?)?)
    }

    /// Keeps what is known after a step.
    pub(super) fn learn(&self, seen: Seen<T>) -> Result<()> {
        self.known().into_iter().zip(seen).try_for_each(|((_, known), next)| known.set(next))
    }

    /// Another choice of triplets, 1 or 0 for each.
    pub(super) fn choose(&self, mask: &[bool]) -> Result<()> {
        let mask = mask.iter().map(|&kept| if kept { T::one() } else { T::zero() }).collect();
        self.mask.set(Tensor::from_vec([self.rank(), 1], mask)?)
    }

    /// Sets the singular values of triplets to zero that are not chosen.
    pub(super) fn prune(&mut self) -> Result<()> {
        let masked = self.e.value().mul(&self.mask.value())?;
        self.e.set(masked)
    }
}

/// The parts of a tensor along a mode that are kept, in order.
fn chosen<T: Scalar>(value: &Tensor<T, IxDyn>, mode: usize, kept: &[bool]) -> Result<Tensor<T, IxDyn>> {
    if kept.iter().all(|&kept| kept) {
        return Ok(value.clone());
    }
    let parts = (0..kept.len()).filter(|&number| kept[number]).map(|number| value.narrow(mode, number..number + 1));
    let parts = parts.collect::<Result<Vec<_>>>()?;
    if parts.is_empty() {
        return value.narrow(mode, 0..0)?.to_contiguous();
    }
    Tensor::concat(&parts.iter().collect::<Vec<_>>(), mode)
}

impl<T: Scalar> WeightAdapter<T> for AdaLoraAdapter<T> {
    fn weight_shape(&self) -> Vec<usize> {
        self.lora.weight_shape()
    }

    fn delta(&self) -> Result<Var<T>> {
        self.folded()?.delta()
    }

    fn effective(&self, weight: &Var<T>) -> Result<Var<T>> {
        // Nothing is left, and nothing waits for a gradient.
        if self.rank() == 0 && !self.e.trains() {
            return Ok(weight.clone());
        }
        weight.add(&self.delta()?)
    }

    fn apply(&self, call: &Call<'_, T>, mode: Mode) -> Result<Option<Contribution<T>>> {
        if self.rank() == 0 { Ok(None) } else { self.folded()?.apply(call, mode) }
    }
}
