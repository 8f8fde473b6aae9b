//! [`Path`]: how an additive adapter's update gets into a layer's result, and which way costs less.

use crate::{
    error::{Error, ErrorKind, Result},
    nn::{Call, Contribution, Mode, WeightAdapter},
    scalar::Scalar,
};
use serde::{Deserialize, Serialize};
use std::ops::{Add, Mul};

/// How an adapter's update gets into the result. Both ways give the same numbers and gradients, but for rounding, with one exception: where the
/// padding row of an embedding is not zero, looking it up gives the lengths of DoRA a gradient on the factored path, as in PEFT, and none on the other.
///
/// A layer is linear in its weight, so $f(x, W_0 + \Delta) = f(x, W_0) + f(x, \Delta)$. The left side is one operation
/// with another weight: it costs forming $\Delta$, and while training a gradient of the whole weight, as large a
/// product as the layer's own. The right side runs x through the factors of $\Delta$ one after the other: it costs thin
/// products, and passes over the result to add them.
///
/// For `Auto` both are counted, for the sizes of the call at hand: flops, and numbers read or written, of which one
/// takes as long as 40 flops. For linear layers the factors win nearly always; depthwise convolutions, which have few
/// weights and many positions, have no such way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// The cheaper of the two by counted cost, for each call.
    #[default]
    Auto,
    /// The input goes through the factors, and the result is added to the layer's own.
    Factored,
    /// The layer computes with $W_0 + s \Delta$.
    Merged,
}

/// Flops in the time that one number takes from or to memory: 100 Gflop/s beside 10 GB/s, for singles.
const BALANCE: f64 = 40.0;

/// Work: flops, and numbers read or written.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Cost {
    flops: f64,
    moved: f64,
}

impl Cost {
    /// A matrix product of these sizes, the left operand and the result in memory.
    pub(super) fn product(rows: usize, inner: usize, columns: usize) -> Self {
        let [rows, inner, columns] = [rows, inner, columns].map(|n| n as f64);
        Self { flops: 2.0 * rows * inner * columns, moved: rows * inner + rows * columns + inner * columns }
    }

    /// A convolution at these positions from one number of channels to another.
    pub(super) fn convolution(positions: Positions, channels: [usize; 2], kernel: usize) -> Self {
        let Positions { input, output } = positions;
        let product = Self::product(output, channels[0] * kernel, channels[1]);
        // The image is read in place of a row for each window.
        let moved = input * channels[0] + output * channels[1] + channels[0] * kernel * channels[1];
        Self { moved: moved as f64, ..product }
    }

    /// So many numbers read or written.
    pub(super) fn passes(numbers: usize) -> Self {
        Self { flops: 0.0, moved: numbers as f64 }
    }

    fn time(self) -> f64 {
        self.flops + BALANCE * self.moved
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { flops: self.flops + other.flops, moved: self.moved + other.moved }
    }
}

impl Mul<f64> for Cost {
    type Output = Self;

    fn mul(self, times: f64) -> Self {
        Self { flops: self.flops * times, moved: self.moved * times }
    }
}

impl std::iter::Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}

/// At how many positions a call meets its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Positions {
    /// Of the input: rows, or batch times image.
    pub(super) input: usize,
    /// Of the result.
    pub(super) output: usize,
}

impl Positions {
    fn of<T: Scalar>(call: &Call<'_, T>, weight: &[usize]) -> Result<Self> {
        let all_but_last = |shape: &[usize]| shape[..shape.len().saturating_sub(1)].iter().product();
        Ok(match call {
            Call::Linear { x } | Call::Residual { x, .. } => {
                Self { input: all_but_last(x.shape()), output: all_but_last(x.shape()) }
            }
            Call::Embedding { ids, .. } => Self { input: ids.len(), output: ids.len() },
            Call::Conv { x, options } => {
                Self { input: all_but_last(x.shape()), output: all_but_last(&options.output_shape(x.shape(), weight)?) }
            }
            Call::ConvTranspose { x, options } => {
                Self { input: all_but_last(x.shape()), output: all_but_last(&options.output_shape(x.shape(), weight)?) }
            }
        })
    }

    /// The gradient of the weight itself: a product of the layer's own size, or for a table, rows added up.
    fn weight_gradient<T: Scalar>(self, call: &Call<'_, T>, weight: &[usize]) -> Cost {
        let entries: usize = weight.iter().product();
        let meetings = match call {
            Call::Embedding { .. } => 0,
            Call::ConvTranspose { .. } => self.input,
            Call::Linear { .. } | Call::Conv { .. } | Call::Residual { .. } => self.output,
        };
        Cost { flops: 2.0 * meetings as f64 * entries as f64, moved: entries as f64 }
    }
}

/// An additive adapter with factors that an input can go through.
pub(super) trait Factored<T: Scalar>: WeightAdapter<T> {
    /// What it adds to the result, by way of its factors.
    fn contribution(&self, call: &Call<'_, T>) -> Result<Contribution<T>>;

    /// What that costs, forward; `None` where there is no such way.
    fn factored_cost(&self, call: &Call<'_, T>, positions: Positions) -> Option<Cost>;

    /// What forming the dense update costs.
    fn delta_cost(&self) -> Cost;
}

/// An adapter's path, and the dropout of its input.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) path: Path,
    dropout: f64,
    /// Tells the random numbers of one layer from those of another.
    stream: u64,
}

impl Way {
    /// # Errors
    /// [`ErrorKind::Value`] where the probability is not between 0 and 1.
    pub(super) fn new(path: Path, dropout: f64, stream: u64) -> Result<Self> {
        if !(0.0..=1.0).contains(&dropout) {
            let message = format!("a probability of dropout of {dropout}; needs 0 to 1");
            return Err(Error::new(ErrorKind::Value, "peft", message));
        }
        Ok(Self { path, dropout, stream })
    }

    /// The probability with which entries of an adapter's input are dropped.
    pub(super) fn dropout(&self) -> f64 {
        self.dropout
    }

    /// The same with this probability.
    pub(super) fn with_dropout(self, dropout: f64) -> Result<Self> {
        Self::new(self.path, dropout, self.stream)
    }

    /// Whether this call drops entries of its input.
    pub(super) fn drops<T: Scalar>(&self, call: &Call<'_, T>, mode: Mode) -> bool {
        self.dropout > 0.0 && mode.is_training() && call.input().is_some()
    }

    /// The call with entries of its input dropped.
    pub(super) fn dropped<'c, T: Scalar>(&self, call: &Call<'c, T>, mode: Mode) -> Result<Call<'c, T>> {
        call.dropout(self.dropout, self.stream, mode)
    }

    /// What [`WeightAdapter::apply`] returns.
    pub(super) fn apply<T: Scalar, A: Factored<T>>(
        &self,
        adapter: &A,
        call: &Call<'_, T>,
        mode: Mode,
    ) -> Result<Option<Contribution<T>>> {
        let factored = self.goes_through_factors(adapter, call, mode)?;
        if !factored && !self.drops(call, mode) {
            return Ok(None);
        }
        let call = self.dropped(call, mode)?;
        if factored {
            return adapter.contribution(&call).map(Some);
        }
        Ok(Some(call.run(&adapter.delta()?, None)?.into()))
    }

    pub(super) fn goes_through_factors<T: Scalar, A: Factored<T>>(
        &self,
        adapter: &A,
        call: &Call<'_, T>,
        mode: Mode,
    ) -> Result<bool> {
        if self.path == Path::Merged {
            return Ok(false);
        }
        let weight = adapter.weight_shape();
        let positions = Positions::of(call, &weight)?;
        let factored = adapter.factored_cost(call, positions);
        match (self.path, factored) {
            (Path::Factored, Some(_)) => Ok(true),
            (Path::Factored, None) => Err(no_factored_path()),
            (_, None) => Ok(false),
            (_, Some(factored)) => {
                let entries: usize = weight.iter().product();
                // Going back takes about twice as long as going forward.
                let passes = if mode.is_training() { 3.0 } else { 1.0 };
                let merged = (adapter.delta_cost() + Cost::passes(2 * entries)) * passes;
                let gradient =
                    if mode.is_training() { positions.weight_gradient(call, &weight) } else { Cost::default() };
                Ok((factored * passes).time() < (merged + gradient).time())
            }
        }
    }
}

/// The error of a path that does not exist.
pub(super) fn no_factored_path() -> Error {
    let message = "this update has no factored path here (groups, or a reshaped product, mix what the factors separate); \
                   take Path::Auto or Path::Merged";
    Error::new(ErrorKind::Unsupported, "peft", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        autodiff::{Conv, Var},
        nn::Operation,
        peft::{FloraAdapter, LoraAdapter, LoraForm, Site},
        tensor::Tensor,
    };

    fn zeros(shape: &[usize]) -> Tensor<f32> {
        Tensor::zeros(shape.to_vec()).unwrap()
    }

    fn flora(site: &Site<'_>, ranks: &[usize]) -> FloraAdapter<f32> {
        let factors = site.modes().iter().zip(ranks).map(|(&i, &j)| Tensor::zeros([i, j]).unwrap()).collect();
        FloraAdapter::new(site, zeros(ranks), factors, 1.0).unwrap()
    }

    fn chosen<A: Factored<f32>>(adapter: &A, call: &Call<'_, f32>, mode: Mode) -> bool {
        Way::new(Path::Auto, 0.0, 0).unwrap().goes_through_factors(adapter, call, mode).unwrap()
    }

    #[test]
    fn the_cheaper_way_for_typical_layers() {
        let training = Mode::training(1, 0);
        let site = Site::new("dense", Operation::Linear, &[3072, 768]).unwrap();
        let lora = LoraAdapter::new(&site, LoraForm::Channels, zeros(&[8, 768]), zeros(&[3072, 8]), 1.0).unwrap();
        for rows in [1, 512] {
            let call = Call::Linear { x: Var::constant(zeros(&[rows, 768])) };
            for mode in [training, Mode::Evaluation] {
                assert!(chosen(&flora(&site, &[8, 8]), &call, mode) && chosen(&lora, &call, mode), "{rows} rows");
            }
        }
        // A rank so high that the factors have more entries than the weight.
        let call = Call::Linear { x: Var::constant(zeros(&[4096, 96])) };
        let site = Site::new("dense", Operation::Linear, &[96, 96]).unwrap();
        assert!(!chosen(&flora(&site, &[90, 90]), &call, Mode::Evaluation));

        let (depthwise, patch) = (Conv::new().padding(3).groups(96), Conv::new().stride(4));
        let call = Call::Conv { x: Var::constant(zeros(&[4, 56, 56, 96])), options: &depthwise };
        let site = Site::new("dwconv", Operation::Conv(&depthwise), &[96, 1, 7, 7]).unwrap();
        assert!(!chosen(&flora(&site, &[8, 8, 2, 2]), &call, training));
        // The stem: 3 channels become 8 at every pixel before they are reduced.
        let call = Call::Conv { x: Var::constant(zeros(&[4, 224, 224, 3])), options: &patch };
        let site = Site::new("stem", Operation::Conv(&patch), &[96, 3, 4, 4]).unwrap();
        assert!(!chosen(&flora(&site, &[8, 8, 2, 2]), &call, training));
        // A wide convolution on a small image.
        let wide = Conv::new().padding(1);
        let call = Call::Conv { x: Var::constant(zeros(&[1, 7, 7, 512])), options: &wide };
        let site = Site::new("wide", Operation::Conv(&wide), &[512, 512, 3, 3]).unwrap();
        assert!(chosen(&flora(&site, &[8, 8, 2, 2]), &call, training));
    }

    #[test]
    fn positions_of_every_call() {
        let (conv, up) = (Conv::new().stride(2), crate::autodiff::ConvTranspose::new().stride(2));
        let x = Var::constant(zeros(&[2, 9, 7, 4]));
        let linear = Call::Linear { x: x.clone() };
        assert_eq!(Positions::of(&linear, &[5, 4]).unwrap(), Positions { input: 126, output: 126 });
        let call = Call::Conv { x: x.clone(), options: &conv };
        assert_eq!(Positions::of(&call, &[5, 4, 3, 3]).unwrap(), Positions { input: 126, output: 24 });
        let call = Call::ConvTranspose { x, options: &up };
        assert_eq!(Positions::of(&call, &[4, 5, 2, 2]).unwrap(), Positions { input: 126, output: 504 });
    }
}
