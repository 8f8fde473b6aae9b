//! [`Flora`]: low-rank adaptation in the weight's own order.
//!
//! `ranks.rs` says how the ranks are chosen, `init.rs` what the factors start as; `adapter.rs` holds an update and
//! computes with it, `to_lora.rs` writes one as a product of two matrices.

mod adapter;
mod init;
mod ranks;
mod to_lora;

pub use adapter::FloraAdapter;
pub use init::FloraInit;
pub use ranks::Ranks;

use super::{
    dof,
    method::{Method, Outline, Start},
    path::{Path, no_factored_path},
    scaling::Scaling,
    site::Site,
    targets::Pattern,
};
use crate::{
    error::{Error, ErrorKind, Result},
    nn::WeightAdapter,
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;
use ranks::largest;
use serde::{Deserialize, Serialize};

/// FLoRA: the update of a weight of any order is a small core seen through one factor for each of its modes.
///
/// $$ W = W_0 + s\thinspace G \times_1 A_1 \times_2 A_2 \cdots \times_N A_N, \qquad A_n : I_n \times J_n. $$
///
/// A convolution's kernel keeps its two (one, three) spatial modes; nothing is reshaped to a matrix. Modes are counted
/// in the paper's order: input, output, kernel.
///
/// For ranks $J_n$ and sizes $I_n$ a layer has $\prod J_n + \sum I_n J_n$ parameters. Only the core is zero at the
/// start, so that the model starts exactly at $W_0$, and at the first step every factor's gradient is exactly zero:
/// only cores move then.
///
/// **Ranks** are taken as they are given, as the paper does: the input mode of a depthwise convolution, of size 1,
/// keeps its rank, and a kernel of 2 x 2 may have a kernel rank of 3. Such columns reach nothing; a
/// [`Plan`](super::Plan) counts them, and [`clip`](Flora::clip) leaves them out.
///
/// **For linear layers** FLoRA reaches exactly the updates that LoRA of the same rank reaches ($A G B^T$ has rank at
/// most $r$, and every such matrix has that form); it moves through them in another way.
///
/// Y. Si et al., *FLoRA: Low-Rank Core Space for N-dimension*, arXiv:2405.14739.
///
/// ```
/// use tenfold::{autodiff::Conv, nn::Operation, peft::{Flora, Method, Site}};
///
/// let flora = Flora::new().rank(40).kernel_rank(3).scale(4.0);
/// let depthwise = Conv::new().padding(3).groups(192);
/// let site = Site::new("dwconv", Operation::Conv(&depthwise), &[192, 1, 7, 7])?;
/// assert_eq!(flora.ranks(&site)?, [40, 40, 3, 3]);
/// let outline = Method::<f32>::outline(&flora, &site)?;
/// assert_eq!(outline.parameters, 40 * 40 * 9 + 40 * (1 + 192) + 2 * 7 * 3);
/// assert_eq!(outline.wasted_columns, 39 + 31); // in truth it has ranks (1, 9, 3, 3)
/// assert_eq!(flora.clip().ranks(&site)?, [1, 9, 3, 3]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flora {
    ranks: Ranks,
    kernel_rank: usize,
    patterns: Vec<(Pattern, Ranks)>,
    clip: bool,
    scaling: Scaling,
    init: FloraInit,
    dropout: f64,
    path: Path,
}

impl Default for Flora {
    fn default() -> Self {
        Self {
            ranks: Ranks::Uniform(8),
            kernel_rank: 2,
            patterns: Vec::new(),
            clip: false,
            scaling: Scaling::Constant(4.0),
            init: FloraInit::default(),
            dropout: 0.0,
            path: Path::Auto,
        }
    }
}

impl Flora {
    /// Rank 8 with a kernel rank of 2, scale 4, factors from [`FloraInit::KaimingNormal`], no dropout.
    pub fn new() -> Self {
        Self::default()
    }

    /// This rank for input and output.
    pub fn rank(self, rank: usize) -> Self {
        self.ranks_by(Ranks::Uniform(rank))
    }

    /// How the ranks are chosen.
    pub fn ranks_by(self, ranks: Ranks) -> Self {
        Self { ranks, ..self }
    }

    /// The rank of each of a kernel's modes, where [`Ranks`] does not say it.
    pub fn kernel_rank(self, kernel_rank: usize) -> Self {
        Self { kernel_rank, ..self }
    }

    /// Other ranks for the layers that a pattern means. Of several patterns the first that matches counts.
    pub fn rank_pattern(mut self, layers: impl Into<Pattern>, ranks: Ranks) -> Self {
        self.patterns.push((layers.into(), ranks));
        self
    }

    /// Lowers ranks to what their modes hold: [`dof::clip`]. The updates that are reached stay the same.
    pub fn clip(self) -> Self {
        Self { clip: true, ..self }
    }

    /// A scale that does not depend on the rank, as in the paper.
    pub fn scale(self, scale: f64) -> Self {
        self.scaling(Scaling::Constant(scale))
    }

    /// The scale; a rank in it is that of the input mode. (The authors' code for GLUE adds 1e-5 to it, which is left
    /// out here.)
    pub fn scaling(self, scaling: Scaling) -> Self {
        Self { scaling, ..self }
    }

    /// What the factors start as.
    pub fn init(self, init: FloraInit) -> Self {
        Self { init, ..self }
    }

    /// Drops entries of the adapter's input with this probability while training.
    pub fn dropout(self, probability: f64) -> Self {
        Self { dropout: probability, ..self }
    }

    /// How the update gets into the result; the cheaper way unless it is said here.
    pub fn path(self, path: Path) -> Self {
        Self { path, ..self }
    }

    /// The ranks for a site, in the order input, output, kernel.
    ///
    /// # Errors
    /// [`ErrorKind::Rank`] for a rank of 0 and for another number of ranks than of modes; [`ErrorKind::Value`] for a
    /// fraction that is not above 0 and at most 1, and for a budget that does not even pay for rank 1;
    /// [`ErrorKind::Unsupported`] for a budget of the model, which [`Method::settled`] divides first.
    pub fn ranks(&self, site: &Site<'_>) -> Result<Vec<usize>> {
        site.check_maps("flora")?;
        let sizes = site.modes();
        let about =
            |kind, message: String| Err(Error::new(kind, "flora", format!("layer {:?}: {message}", site.name())));
        let ranks = match self.chosen(site)? {
            Ranks::Uniform(rank) => self.uniform(&sizes, *rank),
            Ranks::Modes(ranks) if ranks.len() != sizes.len() => {
                let message =
                    format!("{} ranks {ranks:?} for modes of sizes {sizes:?}; needs {}", ranks.len(), sizes.len());
                return about(ErrorKind::Rank, message);
            }
            Ranks::Modes(ranks) => self.clipped(&sizes, ranks.clone()),
            Ranks::Fraction(part) if part.is_nan() || *part <= 0.0 || *part > 1.0 => {
                return about(ErrorKind::Value, format!("a fraction of {part} of each mode; needs above 0, at most 1"));
            }
            Ranks::Fraction(part) => {
                let rank = |&size: &usize| ((size as f64 * part).round() as usize).max(1);
                self.clipped(&sizes, sizes.iter().map(rank).collect())
            }
            Ranks::LayerParameters(budget) => {
                let parameters = |rank| self.parameters(site, rank);
                let Some(rank) = largest(*budget, channels(site), parameters) else {
                    let message = format!("{budget} parameters; rank 1 takes {}", parameters(1));
                    return about(ErrorKind::Value, message);
                };
                self.uniform(&sizes, rank)
            }
            Ranks::ModelParameters(_) => {
                let message = "a budget for the whole model gives no layer its ranks; Method::settled divides it";
                return about(ErrorKind::Unsupported, message.into());
            }
        };
        if ranks.contains(&0) {
            return about(ErrorKind::Rank, format!("ranks {ranks:?}; the smallest is 1"));
        }
        Ok(ranks)
    }

    /// What says the ranks of a site.
    fn chosen(&self, site: &Site<'_>) -> Result<&Ranks> {
        for (pattern, ranks) in &self.patterns {
            if pattern.matches(site.name())? {
                return Ok(ranks);
            }
        }
        Ok(&self.ranks)
    }

    fn uniform(&self, sizes: &[usize], rank: usize) -> Vec<usize> {
        let ranks = (0..sizes.len()).map(|mode| if mode < 2 { rank } else { self.kernel_rank }).collect();
        self.clipped(sizes, ranks)
    }

    fn clipped(&self, sizes: &[usize], ranks: Vec<usize>) -> Vec<usize> {
        if self.clip { dof::clip(sizes, &ranks) } else { ranks }
    }

    /// The number of parameters of a site with this rank for input and output.
    fn parameters(&self, site: &Site<'_>, rank: usize) -> usize {
        let sizes = site.modes();
        count(&sizes, &self.uniform(&sizes, rank)).unwrap_or(usize::MAX)
    }
}

/// The number of parameters of a core and its factors; none where it is beyond what can be counted.
fn count(sizes: &[usize], ranks: &[usize]) -> Option<usize> {
    let core = ranks.iter().try_fold(1usize, |product, &rank| product.checked_mul(rank))?;
    sizes.iter().zip(ranks).try_fold(core, |sum, (&size, &rank)| sum.checked_add(size.checked_mul(rank)?))
}

/// The largest of the two channel modes: no rank above it reaches more.
fn channels(site: &Site<'_>) -> usize {
    site.modes()[..2].iter().copied().max().unwrap_or(1)
}

impl<T: Scalar> Method<T> for Flora {
    fn name(&self) -> &'static str {
        "flora"
    }

    fn outline(&self, site: &Site<'_>) -> Result<Outline> {
        if self.path == Path::Factored && site.groups() > 1 {
            return Err(no_factored_path());
        }
        let (sizes, ranks) = (site.modes(), self.ranks(site)?);
        let parameters = site.countable("flora", count(&sizes, &ranks))?;
        let reached = dof::clip(&sizes, &ranks);
        Ok(Outline {
            parameters,
            degrees_of_freedom: dof::tucker(&sizes, &ranks),
            wasted_columns: ranks.iter().zip(reached).map(|(rank, reached)| rank - reached).sum(),
            ranks,
        })
    }

    fn adapter(&self, site: &Site<'_>, start: &Start<'_, T>) -> Result<Box<dyn WeightAdapter<T>>> {
        let ranks = self.ranks(site)?;
        let core = Tensor::<T, IxDyn>::zeros(ranks.clone())?.to_device(start.weight.device())?;
        let factors = self.init.factors(site, &ranks, start)?;
        let adapter = FloraAdapter::new(site, core, factors, self.scaling.of_rank(ranks[0]))?;
        Ok(Box::new(adapter.dropout(self.dropout)?.path(self.path)?))
    }

    fn settled(&self, sites: &[Site<'_>]) -> Result<Option<Box<dyn Method<T>>>> {
        for (pattern, _) in &self.patterns {
            let names: Vec<&str> = sites.iter().map(Site::name).collect();
            super::Targets::of([pattern.clone()]).among(&names)?;
        }
        let Ranks::ModelParameters(budget) = self.ranks else { return Ok(None) };
        // Layers with ranks of their own take their part first.
        let (mut own, mut shared) = (0usize, Vec::new());
        for site in sites {
            match self.chosen(site)? {
                Ranks::ModelParameters(_) => shared.push(site),
                _ => own += site.countable("flora", count(&site.modes(), &self.ranks(site)?))?,
            }
        }
        let most = shared.iter().map(|site| channels(site)).max().unwrap_or(1);
        let parameters = |rank| shared.iter().fold(own, |sum, site| sum.saturating_add(self.parameters(site, rank)));
        let Some(rank) = largest(budget, most, parameters) else {
            let message = format!("{budget} parameters for {} layers; rank 1 takes {}", sites.len(), parameters(1));
            return Err(Error::new(ErrorKind::Value, "flora", message));
        };
        let settle = |ranks: &Ranks| match ranks {
            Ranks::ModelParameters(_) => Ranks::Uniform(rank),
            other => other.clone(),
        };
        let patterns = self.patterns.iter().map(|(pattern, ranks)| (pattern.clone(), settle(ranks))).collect();
        Ok(Some(Box::new(Self { ranks: Ranks::Uniform(rank), patterns, ..self.clone() })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{autodiff::Conv, nn::Operation};

    fn linear(name: &str) -> Site<'static> {
        Site::new(name, Operation::Linear, &[30, 20]).unwrap()
    }

    #[test]
    fn ranks_by_every_rule() {
        let options = Conv::new();
        let conv = Site::new("conv", Operation::Conv(&options), &[30, 20, 3, 5]).unwrap();
        let ranks = |flora: Flora| flora.ranks(&conv).unwrap();
        assert_eq!(ranks(Flora::new().rank(4).kernel_rank(9)), [4, 4, 9, 9]);
        assert_eq!(ranks(Flora::new().rank(4).kernel_rank(9).clip()), [4, 4, 3, 5]);
        assert_eq!(ranks(Flora::new().ranks_by(Ranks::Modes(vec![1, 2, 3, 4]))), [1, 2, 3, 4]);
        assert_eq!(ranks(Flora::new().ranks_by(Ranks::Fraction(0.2))), [4, 6, 1, 1]);
        let flora = Flora::new().kernel_rank(1).ranks_by(Ranks::LayerParameters(4 * 4 + 4 * 50 + 8));
        assert_eq!(ranks(flora), [4, 4, 1, 1]);
        let flora =
            Flora::new().rank(2).rank_pattern("con*", Ranks::Uniform(3)).rank_pattern("conv", Ranks::Uniform(5));
        assert_eq!((flora.ranks(&linear("x")).unwrap(), ranks(flora)), (vec![2, 2], vec![3, 3, 2, 2]));
    }

    #[test]
    fn a_budget_for_the_model() {
        let sites = [linear("a"), linear("b"), linear("c")];
        let flora = Flora::new().ranks_by(Ranks::ModelParameters(1000)).rank_pattern("b", Ranks::Uniform(1));
        let settled = Method::<f32>::settled(&flora, &sites).unwrap().unwrap();
        let total: usize = sites.iter().map(|site| settled.outline(site).unwrap().parameters).sum();
        // Rank 8 for two layers, 464 each; rank 9 would take 531 each.
        assert_eq!((total, settled.outline(&sites[1]).unwrap().ranks), (2 * 464 + 51, vec![1, 1]));
        let error = Method::<f32>::settled(&Flora::new().ranks_by(Ranks::ModelParameters(50)), &sites).unwrap_err();
        assert_eq!(error.message(), "50 parameters for 3 layers; rank 1 takes 153");
        assert!(Method::<f32>::settled(&flora.rank_pattern("d", Ranks::Uniform(1)), &sites).is_err());
    }

    #[test]
    fn settings_that_make_no_sense() {
        let message = |flora: Flora| Method::<f32>::outline(&flora, &linear("a")).unwrap_err().message().to_string();
        assert_eq!(message(Flora::new().rank(0)), "layer \"a\": ranks [0, 0]; the smallest is 1");
        assert!(message(Flora::new().ranks_by(Ranks::Modes(vec![1]))).ends_with("modes of sizes [20, 30]; needs 2"));
        assert!(message(Flora::new().ranks_by(Ranks::Fraction(1.5))).ends_with("needs above 0, at most 1"));
        assert!(message(Flora::new().ranks_by(Ranks::LayerParameters(50))).ends_with("50 parameters; rank 1 takes 51"));
        assert!(message(Flora::new().ranks_by(Ranks::ModelParameters(5000))).contains("Method::settled divides it"));
        let options = Conv::new().groups(2);
        let grouped = Site::new("g", Operation::Conv(&options), &[4, 2, 3, 3]).unwrap();
        let error = Method::<f32>::outline(&Flora::new().path(Path::Factored), &grouped).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
