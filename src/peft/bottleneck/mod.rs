//! [`Bottleneck`]: small networks between the sub-layers of a transformer.
//!
//! `adapter.rs` holds one and computes with it.

mod adapter;

pub use adapter::{BottleneckAdapter, Parts};

use super::{
    method::{Method, Outline, Start},
    site::Site,
};
use crate::{
    error::{Error, ErrorKind, Result},
    nn::{Activation, Init, Module, Operation, Sublayer, WeightAdapter},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Ix1, Ix2};
use serde::{Deserialize, Serialize};

/// Where a bottleneck stands. h is what a sub-layer makes of the states x, B the bottleneck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// $\mathrm{norm}(x + h + B(h))$: on the sub-layer's result. Houlsby et al.
    Result,
    /// $\mathrm{norm}(x + h + B(\mathrm{norm}(x + h)))$: behind the norm, whose result is added and normalised once more. Pfeiffer et al.
    Normalised,
}

/// Bottleneck adapters, HAdapter and PAdapter in the FLoRA paper: the weights stay as they are, and two thin matrices with an activation
/// between them change what a sub-layer says.
///
/// $$ B(h) = U\thinspace \sigma(D\thinspace h + d) + u, \qquad D : m \times n, \quad U : n \times m, $$
///
/// $m (2 n + 1) + n$ parameters at each place, with biases. What they add is a function of the states and no update of a weight: unlike LoRA's
/// or FLoRA's, it cannot be merged, and the network has more to compute for good.
///
/// They stand where a sub-layer's result joins the states ([`ResidualNorm`](crate::nn::ResidualNorm)): in
/// [`Bert`](crate::models::Bert) and [`Deberta`](crate::models::Deberta) two places a block, after attention and after the feed-forward part.
///
/// | | places | [`Placement`] | activation | |
/// |---|---|---|---|---|
/// | [`houlsby`](Bottleneck::houlsby) | both | `Result` | GELU, as in the authors' code | HAdapter |
/// | [`pfeiffer`](Bottleneck::pfeiffer) | after feed-forward parts | `Normalised` | ReLU | PAdapter |
///
/// D and U start normal with deviation 0.02, biases zero, so that the network starts near itself; with
/// [`zero_start`](Bottleneck::zero_start) U is zero and it starts exactly there.
///
/// N. Houlsby et al., *Parameter-efficient transfer learning for NLP*, ICML 2019; J. Pfeiffer et al., *AdapterFusion: non-destructive task
/// composition for transfer learning*, EACL 2021. The numbers are those of the library `adapters` (AdapterHub) with `double_seq_bn` and `seq_bn`.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::{models::{Bert, BertConfig, TextClassifier}, nn::Module, peft::{self, Bottleneck, Targets}};
///
/// let config = BertConfig { vocab_size: 50, hidden_size: 8, num_hidden_layers: 2, num_attention_heads: 2, ..BertConfig::default() };
/// let mut model = Bert::<f32>::new(config, &mut ChaCha8Rng::seed_from_u64(1))?;
/// let plan = peft::attach(&mut model, &Bottleneck::houlsby(4), &Targets::all())?;
/// assert_eq!(plan.parameters(), 4 * (4 * (2 * 8 + 1) + 8)); // two places in each of two blocks
/// assert_eq!(model.count().trainable, plan.parameters());
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bottleneck {
    size: usize,
    placement: Placement,
    after: Vec<Sublayer>,
    activation: Activation,
    biases: bool,
    zero_start: bool,
}

impl Bottleneck {
    /// HAdapter: `size` numbers wide, on the results of attention and of the feed-forward part.
    pub fn houlsby(size: usize) -> Self {
        Self {
            size,
            placement: Placement::Result,
            after: vec![Sublayer::Attention, Sublayer::FeedForward],
            activation: Activation::Gelu,
            biases: true,
            zero_start: false,
        }
    }

    /// PAdapter: `size` numbers wide, behind the norm after the feed-forward part.
    pub fn pfeiffer(size: usize) -> Self {
        Self {
            placement: Placement::Normalised,
            after: vec![Sublayer::FeedForward],
            activation: Activation::Relu,
            ..Self::houlsby(size)
        }
    }

    /// Another function between the two matrices.
    pub fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// Matrices alone.
    pub fn without_biases(self) -> Self {
        Self { biases: false, ..self }
    }

    /// U zero at the start: the network starts exactly as it was, and in the first step only U moves.
    pub fn zero_start(self) -> Self {
        Self { zero_start: true, ..self }
    }

    /// The width of the states at a site.
    fn width(&self, site: &Site<'_>) -> Result<usize> {
        let width = width_at(self.title(), site)?;
        if self.size == 0 {
            let message = format!("layer {:?}: a bottleneck of size 0; the smallest is 1", site.name());
            return Err(Error::new(ErrorKind::Rank, self.title(), message));
        }
        Ok(width)
    }

    fn title(&self) -> &'static str {
        match self.placement {
            Placement::Result => "hadapter",
            Placement::Normalised => "padapter",
        }
    }
}

/// The width of the states where bottlenecks may stand.
fn width_at(operation: &'static str, site: &Site<'_>) -> Result<usize> {
    match (site.shape(), site.operation()) {
        (&[width], Operation::Residual(_)) => Ok(width),
        _ => {
            let message = format!(
                "layer {:?} is no place where a sub-layer's result joins the states, which bottlenecks need (nn::ResidualNorm)",
                site.name()
            );
            Err(Error::new(ErrorKind::Unsupported, operation, message))
        }
    }
}

impl<T: Scalar> Method<T> for Bottleneck {
    fn name(&self) -> &'static str {
        self.title()
    }

    fn fits(&self, operation: Operation<'_>) -> bool {
        matches!(operation, Operation::Residual(sublayer) if self.after.contains(&sublayer))
    }

    /// What is reached is a set of functions. A ReLU leaves one direction a unit without effect: larger before it and smaller after it.
    fn outline(&self, site: &Site<'_>) -> Result<Outline> {
        let width = self.width(site)?;
        let matrices = self.size.checked_mul(2 * width);
        let biases = if self.biases { self.size.checked_add(width) } else { Some(0) };
        let parameters = matrices.zip(biases).and_then(|(matrices, biases)| matrices.checked_add(biases));
        let parameters = site.countable(self.title(), parameters)?;
        let idle = if self.activation == Activation::Relu { self.size } else { 0 };
        Ok(Outline { ranks: vec![self.size], parameters, degrees_of_freedom: parameters - idle, wasted_columns: 0 })
    }

    fn adapter(&self, site: &Site<'_>, start: &Start<'_, T>) -> Result<Box<dyn WeightAdapter<T>>> {
        let (width, size, rng) = (self.width(site)?, self.size, &mut start.generator(site));
        let init = Init::Normal { mean: 0.0, std: 0.02 };
        let down = init.tensor::<T, _>(&[size, width], rng)?.into_order::<Ix2>()?;
        let up = if self.zero_start { Init::Zeros } else { init }.tensor::<T, _>(&[width, size], rng)?;
        let zeros = |n: usize| if self.biases { Tensor::<T, Ix1>::zeros([n]).map(Some) } else { Ok(None) };
        let parts = Parts { down, down_bias: zeros(size)?, up: up.into_order()?, up_bias: zeros(width)? };
        let mut adapter = BottleneckAdapter::new(site, parts, self.activation, self.placement)?;
        adapter.to_device(start.weight.device())?;
        Ok(Box::new(adapter))
    }
}
