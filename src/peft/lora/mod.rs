//! [`Lora`]: the update is a product of two thin matrices.
//!
//! `adapter.rs` holds an update and computes with it.

mod adapter;

pub use adapter::LoraAdapter;

use super::{
    dof,
    method::{Method, Outline, Start},
    path::{Path, no_factored_path},
    scaling::Scaling,
    site::Site,
    targets::{Pattern, Targets},
};
use crate::{
    error::{Error, ErrorKind, Result},
    nn::{Fan, Init, Nonlinearity, Operation, WeightAdapter},
    scalar::Scalar,
};
use serde::{Deserialize, Serialize};

/// How a convolution's weight `[out, in / g, k, k]` is seen as a matrix. Linear layers and embeddings are the same in
/// all.
///
/// | form | rows x columns | A | B | in use by |
/// |---|---|---|---|---|
/// | `Channels` | `out` x `in / g k k` | `[r, in / g, k, k]` | `[out, r, 1, 1]` | Hugging Face PEFT, LyCORIS |
/// | `Kernel` | `out / g k` x `in k` | `[r k, in k]` | `[out / g k, r k]` | loralib |
/// | `Equation3` | `out k` x `in / g k` | `[in / g k, r]` | `[out k, r]` | the FLoRA paper's account of LoRA |
///
/// The last two take the entries in row-major order, so rows and columns of the matrix mix channels and positions of
/// the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraForm {
    /// Outputs against the rest: a convolution to r channels, then one over channels alone.
    #[default]
    Channels,
    /// Two-dimensional square kernels only. Its rank is r k in truth.
    Kernel,
    /// Two-dimensional kernels only.
    Equation3,
}

/// LoRA: the update is a product of two thin matrices.
///
/// $$ W = W_0 + s\thinspace B A, \qquad B : m \times r, \quad A : r \times n, $$
///
/// for a weight that is a matrix; [`LoraForm`] says how a convolution's weight is seen as one. $r (m + n)$ parameters,
/// of which $r (m + n - r)$ are degrees of freedom.
///
/// A of Kaiming's uniform distribution with $a = \sqrt 5$, B zero (for embeddings A zero, B normal), as in PEFT and
/// loralib: the model starts at its own weights.
///
/// E. J. Hu et al., *LoRA: Low-rank adaptation of large language models*, ICLR 2022.
///
/// ```
/// use tenfold::{autodiff::Conv, nn::Operation, peft::{Lora, LoraForm, Method, Site}};
///
/// let options = Conv::new().padding(3).groups(192);
/// let site = Site::new("dwconv", Operation::Conv(&options), &[192, 1, 7, 7])?;
/// let parameters = |lora: &Lora| Method::<f32>::outline(lora, &site).map(|outline| outline.parameters);
/// assert_eq!(parameters(&Lora::new(8))?, 8 * 49 + 8 * 192);
/// assert_eq!(parameters(&Lora::new(8).form(LoraForm::Kernel))?, 8 * 7 * 192 * 7 + 7 * 8 * 7); // for 9408 weights
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lora {
    rank: usize,
    patterns: Vec<(Pattern, usize)>,
    form: LoraForm,
    scaling: Scaling,
    dropout: f64,
    path: Path,
}

impl Lora {
    /// Of this rank, with scale 1 ($\alpha = r$), in the form of PEFT, without dropout.
    pub fn new(rank: usize) -> Self {
        Self {
            rank,
            patterns: Vec::new(),
            form: LoraForm::default(),
            scaling: Scaling::Constant(1.0),
            dropout: 0.0,
            path: Path::Auto,
        }
    }

    /// Scale $\alpha / r$.
    pub fn alpha(self, alpha: f64) -> Self {
        self.scaling(Scaling::Rank { alpha })
    }

    /// The scale.
    pub fn scaling(self, scaling: Scaling) -> Self {
        Self { scaling, ..self }
    }

    /// Another rank for the layers that a pattern means. Of several patterns the first that matches counts.
    pub fn rank_pattern(mut self, layers: impl Into<Pattern>, rank: usize) -> Self {
        self.patterns.push((layers.into(), rank));
        self
    }

    /// How a convolution's weight is seen as a matrix.
    pub fn form(self, form: LoraForm) -> Self {
        Self { form, ..self }
    }

    /// Drops entries of the adapter's input with this probability while training.
    pub fn dropout(self, probability: f64) -> Self {
        Self { dropout: probability, ..self }
    }

    /// How the update gets into the result; the cheaper way unless it is said here.
    pub fn path(self, path: Path) -> Self {
        Self { path, ..self }
    }

    fn rank_of(&self, site: &Site<'_>) -> Result<usize> {
        let mut rank = self.rank;
        for (pattern, other) in self.patterns.iter().rev() {
            if pattern.matches(site.name())? {
                rank = *other;
            }
        }
        if rank == 0 {
            let message = format!("layer {:?}: rank 0; the smallest is 1", site.name());
            return Err(Error::new(ErrorKind::Rank, "lora", message));
        }
        Ok(rank)
    }

    /// The shapes at a site, and the rank there.
    fn shapes(&self, site: &Site<'_>) -> Result<(Shapes, usize)> {
        let rank = self.rank_of(site)?;
        let shapes = Shapes::new(self.form, site, rank)?;
        if self.path == Path::Factored && !shapes.separate {
            return Err(no_factored_path());
        }
        Ok((shapes, rank))
    }

    /// The adapter for a site, at its start.
    pub(super) fn start<T: Scalar>(&self, site: &Site<'_>, start: &Start<'_, T>) -> Result<LoraAdapter<T>> {
        let (shapes, rank) = self.shapes(site)?;
        let rng = &mut start.generator(site);
        let kaiming = Init::KaimingUniform { fan: Fan::In, gain: Nonlinearity::LeakyRelu(5f64.sqrt()).gain() };
        let (a, b) = match site.operation() {
            Operation::Embedding { .. } => (Init::Zeros, Init::Normal { mean: 0.0, std: 1.0 }),
            _ => (kaiming, Init::Zeros),
        };
        let mut drawn = |init: Init, shape: &[usize]| init.tensor::<T, _>(shape, rng)?.to_device(start.weight.device());
        let (a, b) = (drawn(a, &shapes.a)?, drawn(b, &shapes.b)?);
        let adapter = LoraAdapter::new(site, self.form, a, b, self.scaling.of_rank(rank))?;
        adapter.dropout(self.dropout)?.path(self.path)
    }

    /// Patterns of ranks that no site has are an error.
    pub(super) fn check_patterns(&self, sites: &[Site<'_>]) -> Result<()> {
        let names: Vec<&str> = sites.iter().map(Site::name).collect();
        self.patterns.iter().try_for_each(|(pattern, _)| Targets::of([pattern.clone()]).among(&names).map(drop))
    }
}

impl<T: Scalar> Method<T> for Lora {
    fn name(&self) -> &'static str {
        match self.form {
            LoraForm::Channels => "lora",
            LoraForm::Kernel => "lora-k",
            LoraForm::Equation3 => "lora-eq3",
        }
    }

    fn outline(&self, site: &Site<'_>) -> Result<Outline> {
        let (shapes, rank) = self.shapes(site)?;
        let parameters = site.countable(Method::<T>::name(self), shapes.parameters())?;
        let [rows, inner, columns] = shapes.matrix;
        Ok(Outline {
            ranks: vec![rank],
            parameters,
            degrees_of_freedom: dof::matrix(rows, columns, inner),
            wasted_columns: 2 * inner.saturating_sub(rows.min(columns)),
        })
    }

    fn adapter(&self, site: &Site<'_>, start: &Start<'_, T>) -> Result<Box<dyn WeightAdapter<T>>> {
        Ok(Box::new(self.start(site, start)?))
    }

    fn settled(&self, sites: &[Site<'_>]) -> Result<Option<Box<dyn Method<T>>>> {
        self.check_patterns(sites)?;
        Ok(None)
    }
}

/// The shapes of A and B for a weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shapes {
    pub(super) a: Vec<usize>,
    pub(super) b: Vec<usize>,
    /// Rows, rank and columns of the product.
    matrix: [usize; 3],
    /// Whether an input can go through A and B one after the other.
    separate: bool,
}

impl Shapes {
    pub(super) fn new(form: LoraForm, site: &Site<'_>, rank: usize) -> Result<Self> {
        site.check_maps("lora")?;
        let shape = site.shape();
        let (first, rest) = (shape[0], shape[1..].iter().product());
        let ones = vec![1; shape.len() - 2];
        let separate = site.groups() == 1;
        let options = match site.operation() {
            Operation::Linear => {
                return Ok(Self { a: vec![rank, rest], b: vec![first, rank], matrix: [first, rank, rest], separate });
            }
            Operation::Embedding { .. } => {
                return Ok(Self { a: vec![rank, first], b: vec![rest, rank], matrix: [first, rank, rest], separate });
            }
            Operation::ConvTranspose(_) if form == LoraForm::Channels => {
                let (a, b) = ([&[rank, first], &ones[..]].concat(), [&[rank], &shape[1..]].concat());
                return Ok(Self { a, b, matrix: [first, rank, rest], separate });
            }
            Operation::Conv(_) if form == LoraForm::Channels => {
                let (a, b) = ([&[rank], &shape[1..]].concat(), [&[first, rank], &ones[..]].concat());
                return Ok(Self { a, b, matrix: [first, rank, rest], separate });
            }
            Operation::Conv(options) => Some(options),
            Operation::ConvTranspose(_) | Operation::Residual(_) => None,
        };
        let unsupported = |needed: &str| {
            let message = format!(
                "layer {:?}: the form {form:?} needs {needed}, and the weight has shape {shape:?}; take LoraForm::Channels, or except \
                 the layer",
                site.name()
            );
            Err(Error::new(ErrorKind::Unsupported, "lora", message))
        };
        let (Some(options), &[out, input, height, width]) = (options, shape) else {
            return unsupported("a convolution with two spatial modes");
        };
        let (matrix, a, b) = if form == LoraForm::Equation3 {
            let matrix = [out * height, rank, input * width];
            (matrix, vec![matrix[2], rank], vec![matrix[0], rank])
        } else if height == width {
            let (side, groups) = (height, options.groups);
            let matrix = [out / groups * side, rank.saturating_mul(side), input * groups * side];
            (matrix, vec![matrix[1], matrix[2]], vec![matrix[0], matrix[1]])
        } else {
            return unsupported("a square kernel");
        };
        Ok(Self { a, b, matrix, separate: false })
    }

    /// None where their number is beyond what can be counted.
    fn parameters(&self) -> Option<usize> {
        let entries = |shape: &[usize]| shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        entries(&self.a)?.checked_add(entries(&self.b)?)
    }
}
