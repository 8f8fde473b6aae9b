//! [`RankAllocator`]: which triplets of a model are worth their place.

use super::{
    AdaLora, NAME,
    adapter::{AdaLoraAdapter, Seen},
};
use crate::{
    autodiff::Scaled,
    error::{Error, ErrorKind, Result},
    nn::Module,
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;
use std::{any::Any, collections::BTreeMap};

/// Prunes the triplets of a model's AdaLoRA adapters in the course of a run, so that those are left that matter most. Made by
/// [`AdaLora::allocator`].
///
/// It sees every step twice. [Before](RankAllocator::before_step) the optimiser moves anything it follows how much each entry
/// of $P$, $\lambda$ and $Q$ matters, $|w\thinspace \partial L / \partial w|$ at the weight where the gradient was taken, smoothed over steps; a triplet
/// scores $s(\lambda_i) + \operatorname{mean}_j s(P_{ji}) + \operatorname{mean}_j s(Q_{ij})$, with $s$ the smoothed importance times its
/// uncertainty. [Afterwards](RankAllocator::after_step), at steps where it is due, $\lambda$ is set to zero for all triplets but the best of the
/// whole model, as many as the budget has. They may come back at the next choice. At step $n - t_f$ the choice is final; from then on
/// $\lambda$ is set to zero there at every step.
///
/// It works on all adapters that train, by operations on tensors where they are; a choice reads one number a triplet
/// back, no other step reads anything. All that is remembered is in the adapters' buffers, so that a run that is
/// resumed from a checkpoint goes on bit for bit. **Memory**: two numbers for each parameter of the adapters.
///
/// It is a [`Companion`](crate::train::Companion) of a [`Trainer`](crate::train::Trainer)'s runs, and in a loop of one's own it is called
/// by hand:
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{
///     Tensor, autodiff::Var,
///     nn::{Linear, Mode},
///     peft::{self, AdaLora, Targets},
///     train::{AdamW, Groups, Optimizer},
/// };
///
/// let rng = &mut ChaCha8Rng::seed_from_u64(1);
/// let mut layers = vec![Linear::<f32>::new(4, 4, rng)?, Linear::new(4, 4, rng)?];
/// let adalora = AdaLora::new(2).warmup(2).settle(4);
/// peft::attach(&mut layers, &adalora, &Targets::all())?;
/// let x = Var::constant(Tensor::normal([16, 4], rng)?);
///
/// let mut allocator = adalora.allocator()?;
/// let mut optimizer = Optimizer::new(AdamW::new(0.01), &Groups::new(), &layers)?;
/// for step in 1..=12 {
///     let loss = layers[1].forward(&layers[0].forward(&x, Mode::training(0, step))?, Mode::training(0, step))?.square()?.mean()?;
///     let gradients = loss.backward()?.into();
///     allocator.before_step(&layers, &gradients, step, 12)?;
///     optimizer.step(&mut layers, gradients, 1.0, None)?;
///     allocator.after_step(&mut layers, step, 12)?;
/// }
/// let left: usize = peft::ranks_left(&layers)?.iter().map(|(_, rank)| rank).sum();
/// assert_eq!(left, 2 * 2);
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # What differs from PEFT
///
/// PEFT's example takes importance after the optimiser's step, of the moved weight with the gradient of the one before; here both are of the
/// same weight, as in the paper. And exactly as many triplets are left as the budget has: of equal scores the lower number in its layer
/// counts more, then the earlier layer. PEFT prunes all that are equal to the best pruned one, and with importances of zero,
/// as at the very first step, everything.
#[derive(Debug, Clone)]
pub struct RankAllocator<T: Scalar> {
    settings: AdaLora,
    pending: Option<Pending<T>>,
}

/// A layer and the name of its adapter.
type Key = (String, String);

/// What is put into the model after the step.
#[derive(Debug, Clone)]
struct Pending<T: Scalar> {
    step: u64,
    steps: u64,
    changes: BTreeMap<Key, Change<T>>,
}

/// What is put into an adapter.
#[derive(Debug, Clone)]
struct Change<T: Scalar> {
    /// What is known of its parameters; not after the final choice.
    seen: Option<Seen<T>>,
    /// Which triplets stay, where they are chosen at this step.
    chosen: Option<Vec<bool>>,
}

impl<T: Scalar> RankAllocator<T> {
    pub(super) fn new(settings: AdaLora) -> Self {
        Self { settings, pending: None }
    }

    /// What is known of each adapter after this step.
    fn seen(&self, adapter: &AdaLoraAdapter<T>, gradients: &Scaled<T>, learns: bool) -> Result<Seen<T>> {
        adapter.seen(|parameter, known| match gradients.get(parameter.var())? {
            Some(gradient) if learns => known.next(parameter.value(), &gradient, &self.settings).map(Some),
            _ => Ok(None),
        })
    }

    /// Its settings as JSON.
    pub fn identity(&self) -> String {
        serde_json::to_string(&self.settings).unwrap_or_else(|_| format!("{:?}", self.settings))
    }

    /// Whether a run of so many steps makes sense for a model.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where the phases leave no step for the budget to go down, and where no AdaLoRA adapter trains.
    pub fn check(&self, model: &(impl Module<T> + ?Sized), steps: u64) -> Result<()> {
        self.settings.budget(steps)?;
        trained(model).map(drop)
    }

    /// Looks at the gradients of step `step` of `steps`, counted from 1, before anything moves. Nothing is changed.
    ///
    /// # Errors
    /// As [`check`](RankAllocator::check), and [`ErrorKind::Value`] where triplets are chosen and a score is not finite.
    pub fn before_step(
        &mut self,
        model: &(impl Module<T> + ?Sized),
        gradients: &Scaled<T>,
        step: u64,
        steps: u64,
    ) -> Result<()> {
        self.pending = None;
        let budget = self.settings.budget(steps)?;
        let adapters = trained(model)?;
        let mut changes: Vec<Change<T>> = Vec::with_capacity(adapters.len());
        for (_, adapter) in &adapters {
            // The final choice is made by what was known before.
            let learns = step < budget.last();
            let seen = (step <= budget.last()).then(|| self.seen(adapter, gradients, learns)).transpose()?;
            changes.push(Change { seen, chosen: None });
        }
        if budget.due(step) {
            let ranks: Vec<usize> = adapters.iter().map(|(_, adapter)| adapter.rank()).collect();
            let most = budget.at(step, ranks.iter().sum(), self.settings.target.saturating_mul(ranks.len()));
            let seen = adapters.iter().zip(&changes);
            let scores = seen.filter_map(|((_, adapter), change)| Some(adapter.scores(change.seen.as_ref()?)));
            let best = best(&read(scores.collect::<Result<Vec<_>>>()?)?, &ranks, most)?;
            changes.iter_mut().zip(best).for_each(|(change, best)| change.chosen = Some(best));
        }
        let changes = adapters.into_iter().map(|(key, _)| key).zip(changes).collect();
        self.pending = Some(Pending { step, steps, changes });
        Ok(())
    }

    /// Whether the choice of triplets is final after step `step` of `steps`: before that a model has more of them than the target. Where the
    /// phases do not fit, it never is.
    pub fn settled(&self, step: u64, steps: u64) -> bool {
        self.settings.budget(steps).is_ok_and(|budget| step >= budget.last())
    }

    /// Keeps what was seen, and prunes, after the optimiser has moved the model.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where [`before_step`](RankAllocator::before_step) did not see this step; those of transfers.
    pub fn after_step(&mut self, model: &mut (impl Module<T> + ?Sized), step: u64, steps: u64) -> Result<()> {
        let seen = |pending: &Pending<T>| (pending.step, pending.steps) == (step, steps);
        let Some(mut pending) = self.pending.take().filter(seen) else {
            let message = format!("step {step} of {steps} has not been seen before the optimiser's move");
            return Err(Error::new(ErrorKind::Value, NAME, message));
        };
        let settled = step > self.settings.budget(steps)?.last();
        for (layer, holder) in model.layers_mut() {
            let names: Vec<String> = holder.adapters().names().map(str::to_string).collect();
            for name in names {
                let adapter = holder.adapters_mut().get_mut(&name).map(|adapter| adapter as &mut dyn Any);
                let Some(adapter) = adapter.and_then(|adapter| adapter.downcast_mut::<AdaLoraAdapter<T>>()) else {
                    continue;
                };
                let Some(Change { seen, chosen }) = pending.changes.remove(&(layer.clone(), name)) else { continue };
                if let Some(seen) = seen {
                    adapter.learn(seen)?;
                }
                if let Some(mask) = &chosen {
                    adapter.choose(mask)?;
                }
                if chosen.is_some() || settled {
                    adapter.prune()?;
                }
            }
        }
        Ok(())
    }
}

/// The adapters of a model that are AdaLoRA's and count, in the order of the model.
fn counting<T: Scalar, M: Module<T> + ?Sized>(model: &M) -> Vec<(Key, &AdaLoraAdapter<T>)> {
    let mut all = Vec::new();
    for (layer, holder) in model.layers() {
        let adapters = holder.adapters();
        for name in adapters.names().filter(|name| adapters.is_enabled(name)) {
            let adapter = adapters.get(name).and_then(|adapter| (adapter as &dyn Any).downcast_ref());
            all.extend(adapter.map(|adapter| ((layer.clone(), name.to_string()), adapter)));
        }
    }
    all
}

/// Those that train besides.
pub(super) fn training<T: Scalar, M: Module<T> + ?Sized>(model: &M) -> Vec<(Key, &AdaLoraAdapter<T>)> {
    let mut all = counting(model);
    all.retain(|(_, adapter)| adapter.e().trains());
    all
}

/// The same, of which there has to be one.
fn trained<T: Scalar, M: Module<T> + ?Sized>(model: &M) -> Result<Vec<(Key, &AdaLoraAdapter<T>)>> {
    let all = training(model);
    if all.is_empty() {
        let message = "the model has no AdaLoRA adapter that trains, among which a budget could be shared";
        return Err(Error::new(ErrorKind::Value, NAME, message));
    }
    Ok(all)
}

/// Scores of several adapters on the host, by one transfer.
fn read<T: Scalar>(scores: Vec<Tensor<T, IxDyn>>) -> Result<Vec<f64>> {
    let scores = Tensor::concat(&scores.iter().collect::<Vec<_>>(), 0)?.to_vec()?;
    Ok(scores.into_iter().map(T::f64).collect())
}

/// The `most` triplets with the highest scores, for adapters of these ranks. Of equal ones the lower number in its layer counts more,
/// then the earlier layer.
fn best(scores: &[f64], ranks: &[usize], most: usize) -> Result<Vec<Vec<bool>>> {
    if let Some(score) = scores.iter().find(|score| !score.is_finite()) {
        let message = format!(
            "a triplet scores {score}: a weight or a gradient of an adapter is not finite, or its importance is beyond what the element \
             type holds"
        );
        return Err(Error::new(ErrorKind::Value, NAME, message));
    }
    let places = ranks.iter().enumerate().flat_map(|(layer, &rank)| (0..rank).map(move |number| (number, layer)));
    let mut order: Vec<(f64, (usize, usize))> = scores.iter().copied().zip(places).collect();
    order.sort_by(|(a, here), (b, there)| b.total_cmp(a).then(here.cmp(there)));
    let mut kept: Vec<Vec<bool>> = ranks.iter().map(|&rank| vec![false; rank]).collect();
    order.iter().take(most).for_each(|&(_, (number, layer))| kept[layer][number] = true);
    Ok(kept)
}

/// How many triplets are left in each layer with AdaLoRA adapters that count, in the order of the model: those that were neither
/// [pruned](AdaLoraAdapter::kept) nor left out of the file that the adapter came from. Read from where the model lives.
///
/// # Errors
/// Those of a transfer.
pub fn ranks_left<T: Scalar>(model: &(impl Module<T> + ?Sized)) -> Result<Vec<(String, usize)>> {
    let mut ranks: Vec<(String, usize)> = Vec::new();
    for ((layer, _), adapter) in counting(model) {
        let left = adapter.kept()?.into_iter().filter(|&kept| kept).count();
        match ranks.last_mut().filter(|(before, _)| *before == layer) {
            Some((_, sum)) => *sum += left,
            None => ranks.push((layer, left)),
        }
    }
    Ok(ranks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{nn::Operation, peft::Site};
    use proptest::prelude::*;

    #[test]
    fn equal_scores_are_shared_out_among_layers() {
        let kept = best(&[0.0; 9], &[4, 2, 3], 5).unwrap();
        assert_eq!(kept, [vec![true, true, false, false], vec![true, true], vec![true, false, false]]);
        let kept = best(&[0.0, 1.0, 2.0, 2.0], &[2, 2], 1).unwrap();
        assert_eq!(kept, [[false, false], [true, false]]);
        assert!(best(&[0.0, f64::NAN], &[2], 1).unwrap_err().message().contains("a triplet scores NaN"));
    }

    /// DeBERTaV3-base: from rank 12 down to 8 in every one of 72 layers.
    #[test]
    fn the_target_of_deberta_is_the_papers_number_of_parameters() {
        let shapes = [[768, 768], [768, 768], [768, 768], [768, 768], [3072, 768], [768, 3072]];
        let sites: Vec<Site<'_>> =
            shapes.iter().cycle().take(72).map(|shape| Site::new("x", Operation::Linear, shape).unwrap()).collect();
        let kept = best(&[1.0; 72 * 12], &[12; 72], 72 * 8).unwrap();
        let parameters = |site: &Site<'_>, kept: &[bool]| {
            kept.iter().filter(|&&kept| kept).count() * (site.shape().iter().sum::<usize>() + 1)
        };
        assert_eq!(sites.iter().zip(&kept).map(|(site, kept)| parameters(site, kept)).sum::<usize>(), 1_327_680);
    }

    proptest! {
        #[test]
        fn as_many_are_kept_as_the_budget_has(
            layers in prop::collection::vec(prop::collection::vec(0u8..6, 0..7), 1..6),
            most in 0usize..40,
        ) {
            let ranks: Vec<usize> = layers.iter().map(Vec::len).collect();
            let scores: Vec<f64> = layers.concat().into_iter().map(f64::from).collect();
            let kept = best(&scores, &ranks, most).unwrap();
            let all = kept.concat();
            prop_assert_eq!(all.iter().filter(|&&kept| kept).count(), most.min(scores.len()));
            // No pruned one scores more than one that is kept.
            let lowest = scores.iter().zip(&all).filter(|(_, kept)| **kept).map(|(score, _)| *score).fold(9.0, f64::min);
            prop_assert!(scores.iter().zip(&all).all(|(score, kept)| *kept || *score <= lowest));
        }
    }
}
