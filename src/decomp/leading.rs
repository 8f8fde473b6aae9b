//! The leading left singular vectors of an unfolding: the step that every Tucker solver is made of.
//!
//! For X_(n), `n x m` with m much larger, three ways:
//!
//! - **Gram**: eigenvectors of X_(n) X_(n)^T. n^2 m flops, one pass, no copy. Squaring squares the condition: singular values
//!   below sqrt(eps) of the largest drown, 1e-8 with products in `f64`, about 3e-4 with products in `f32` at twice the speed.
//! - **Svd**: an LQ factorisation of the unfolding and the SVD of L. 2 n^2 m flops and a copy of X; resolves down to eps.
//! - **Randomized**: the range of X_(n) Omega for a random Omega with a few more columns than the rank, sharpened by power iterations
//!   (Halko, Martinsson, Tropp, SIAM Review 53, 2011). 8 n m r flops: for ranks far below the mode's size. The last pass over X is the
//!   projection that the caller wants.
//!
//! [`Method::Auto`] takes the cheapest that the accuracy at hand allows: an `f32` Gram where what is cut off is above 1 % of the
//! tensor's norm, else an `f64` one where it is above 1e-7, else the SVD. It looks at the spectrum it found before it accepts it.

use super::scale::{check_norm, divided, unit};
use crate::{
    algebra::{contract, gram},
    device::gram::Precision,
    error::Result,
    scalar::{DType, Scalar},
    tensor::Tensor,
};
use ndarray::{Dimension, Ix2};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How the leading left singular vectors of an unfolding $X_{(n)}$, `n x m`, are found.
///
/// | method | how | flops | resolves, relative to the largest singular value |
/// |---|---|---|---|
/// | `Gram` | eigenvectors of $X_{(n)} X_{(n)}^T$; one pass over X, nothing is copied | $n^2 m + 9 n^3$ | 1e-8: squaring squares the condition |
/// | `Svd` | $X_{(n)} = L Q$, then the SVD of L; copies X | about $2 n^2 m$, but slower ones | rounding, 1e-16 |
/// | `Randomized` | the range of $X_{(n)} \Omega$ for a random matrix of a few columns more than the rank (a Khatri-Rao product of uniform ones), sharpened by power iterations | about $8 n m r$ | the leading values of a spectrum that falls |
///
/// `Auto` decides for each mode, by what is cut off, t, as a fraction of the tensor's norm. For a tolerance t is known;
/// for a rank the spectrum tells, and what was found too coarsely is found again:
///
/// | | |
/// |---|---|
/// | $m < n$, taller than wide | `Svd`, of a matrix smaller than the Gram matrix would be |
/// | a rank r with $n \ge 2000$ and $n \ge 16 (r + 10)$ | `Randomized` with 10 columns more, one iteration, seed 0 |
/// | on a GPU, where eigenvectors take longer than passes over X: $n \ge 256$ and $n \ge 8 c$ for $c$ columns, $r + 10$ rounded up to a multiple of 8 | the same with $c$ columns and two iterations |
/// | t above 1e-2 | `Gram` with products in `f32`, half the arithmetic |
/// | t above 1e-7, or the elements are `f32` | `Gram` with products in `f64` |
/// | else | `Svd` |
///
/// Numbers whose squares leave the range of `f64` are scaled first.
///
/// Reference for the randomised way: Halko, Martinsson, Tropp, *Finding structure with randomness*, SIAM Review 53
/// (2011); for $\Omega$ as a Khatri-Rao product Sun, Guo, Tropp, Udell, *Tensor random projection for low memory dimension
/// reduction* (2018).
///
/// ```
/// use tenfold::{Tensor, decomp::{Method, StHosvd}};
///
/// let x = Tensor::from_fn([60, 8, 9], |i| 1.0 / (1 + i[0] + i[1] + i[2]) as f64)?;
/// let exact = StHosvd::ranks([3, 3, 3]).method(Method::Svd).fit(&x)?;
/// let quick = Method::Randomized { oversampling: 5, iterations: 1, seed: 0 };
/// let fit = StHosvd::ranks([3, 3, 3]).method(quick).fit(&x)?;
/// assert!(fit.relative_error < 1.01 * exact.relative_error);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Method {
    /// The cheapest that the accuracy asked for, and the spectrum found, allow.
    #[default]
    Auto,
    /// Eigenvectors of the Gram matrix, products in `f64`.
    Gram,
    /// LQ factorisation and SVD.
    Svd,
    /// Randomised range finder. For a tolerance, which needs the whole spectrum, `Gram` is taken instead.
    Randomized {
        /// Columns beyond the rank (5 to 10 are usual).
        oversampling: usize,
        /// Power iterations (0 for a fast falling spectrum, 1 or 2 for a flat one).
        iterations: usize,
        /// Fixes the random matrix.
        seed: u64,
    },
}

/// Relative tails above this are measured well by an `f32` Gram matrix.
const SINGLE: f64 = 1e-2;

/// Relative tails above this are measured well by an `f64` Gram matrix.
const DOUBLE: f64 = 1e-7;

/// The left singular vectors of an unfolding that may be wanted, and what their values say.
pub(crate) struct Leading<T: Scalar, D: Dimension> {
    /// As columns, `n x k`, in falling order of their values.
    vectors: Tensor<f64, Ix2>,
    /// Squared singular values that belong to the vectors.
    pub(crate) energies: Vec<f64>,
    /// Whether all values beyond those listed are zero; else they are unknown.
    complete: bool,
    /// The squared norm of the tensor.
    pub(crate) total: f64,
    /// The tensor seen through a basis of more columns, and the rotation of that basis to the vectors: to project needs no pass over the
    /// tensor then.
    seen: Option<(Tensor<T, D>, Tensor<f64, Ix2>)>,
}

impl<T: Scalar, D: Dimension> Leading<T, D> {
    /// The first `rank` vectors, as by [`factor`](Leading::factor) and where the tensor is, and the tensor projected on them.
    pub(crate) fn project(&self, x: &Tensor<T, D>, mode: usize, rank: usize) -> Result<(Tensor<T, Ix2>, Tensor<T, D>)> {
        let factor = self.factor(rank)?.to_device(x.device())?;
        let projected = match &self.seen {
            Some((seen, rotation)) if rank <= rotation.shape()[1] => {
                seen.mode_product(mode, &rotation.narrow(1, 0..rank)?.cast::<T>()?.t())?
            }
            _ => x.mode_product(mode, &factor.t())?,
        };
        Ok((factor, projected))
    }

    /// The first `rank` vectors, rounded to T. Beyond those that were found the basis is completed: their values are zero.
    pub(crate) fn factor(&self, rank: usize) -> Result<Tensor<T, Ix2>> {
        let (n, found) = (self.vectors.shape()[0], self.vectors.shape()[1]);
        if rank <= found {
            return self.vectors.narrow(1, 0..rank)?.cast::<T>();
        }
        // The Q of a QR is orthonormal whatever the columns are.
        let rest = Tensor::zeros([n, rank - found])?.to_device(self.vectors.device())?;
        let basis = Tensor::concat(&[&self.vectors, &rest], 1)?.qr()?.q;
        Tensor::concat(&[&self.vectors, &basis.narrow(1, found..rank)?], 1)?.cast::<T>()
    }

    /// What is lost beyond the first `rank` vectors, as squares.
    ///
    /// Added up from the small end, so that a tiny tail is not the difference of large numbers; a randomised spectrum is not
    /// complete, and takes the difference.
    pub(crate) fn tail(&self, rank: usize) -> f64 {
        let rank = rank.min(self.energies.len());
        if self.complete {
            return self.energies[rank..].iter().rev().map(|e| e.max(0.0)).sum();
        }
        (self.total - self.energies[..rank].iter().sum::<f64>()).max(0.0)
    }

    /// The smallest rank, at least 1, that loses no more than `budget` as squares.
    pub(crate) fn rank_within(&self, budget: f64) -> usize {
        let mut lost = 0.0;
        for rank in (1..self.energies.len()).rev() {
            lost += self.energies[rank].max(0.0);
            if lost > budget {
                return rank + 1;
            }
        }
        1
    }
}

/// What the caller will do with the vectors, which decides how exact they have to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Want {
    /// Keep this many.
    Rank(usize),
    /// Cut off at most this share of the squared norm.
    Share(f64),
}

/// Left singular vectors of the mode-n unfolding of `scale` X.
pub(crate) fn leading<T: Scalar, D: Dimension>(
    x: &Tensor<T, D>,
    mode: usize,
    want: Want,
    method: Method,
    scale: f64,
) -> Result<Leading<T, D>> {
    let n = x.shape()[mode];
    match (method, want) {
        (Method::Gram, _) => by_gram(x, mode, Precision::Double, scale),
        (Method::Svd, _) => by_svd(x, mode, scale),
        (Method::Randomized { oversampling, iterations, seed }, Want::Rank(rank)) => {
            let columns = rank.saturating_add(oversampling).min(n).min(x.len() / n);
            if columns < rank { by_svd(x, mode, scale) } else { randomized(x, mode, columns, iterations, seed, scale) }
        }
        // A tolerance needs the whole spectrum.
        (Method::Randomized { .. }, Want::Share(_)) => by_gram(x, mode, Precision::Double, scale),
        (Method::Auto, want) => automatic(x, mode, want, scale),
    }
}

fn automatic<T: Scalar, D: Dimension>(x: &Tensor<T, D>, mode: usize, want: Want, scale: f64) -> Result<Leading<T, D>> {
    let n = x.shape()[mode];
    if x.len() / n < n {
        // Taller than wide: its SVD is smaller than its Gram matrix.
        return by_svd(x, mode, scale);
    }
    if let Want::Rank(rank) = want {
        // Where eigenvectors take longer than passes it is worth having for smaller modes, and then with a pass more: within a percent of
        // the error that the leading vectors leave. Kernels take columns by eights there.
        let (columns, least, share, iterations) = match x.device().is_cpu() {
            true => (rank + 10, 2000, 16, 1),
            false => ((rank + 10).next_multiple_of(8), 256, 8, 2),
        };
        if n >= least && n >= share * columns && x.len() / n >= columns {
            return randomized(x, mode, columns, iterations, 0, scale);
        }
    }
    // The relative norm of what is cut off: for a share it is known, for a rank the spectrum tells.
    let tail = |found: &Leading<T, D>| match want {
        Want::Share(share) => share.sqrt(),
        Want::Rank(rank) if rank < n && found.total > 0.0 => (found.tail(rank) / found.total).sqrt(),
        // Nothing is cut off: any orthonormal basis is exact.
        Want::Rank(_) => 1.0,
    };
    let worth_trying = match want {
        Want::Share(share) => share.sqrt() > SINGLE,
        Want::Rank(rank) => rank < n,
    };
    if worth_trying {
        let found = by_gram(x, mode, Precision::Single, scale)?;
        // Squares beyond the range of f32 show as infinite or vanished entries.
        let largest = found.energies.first().copied().unwrap_or(0.0);
        if found.total.is_finite() && largest > 1e-25 && tail(&found) > SINGLE {
            return Ok(found);
        }
    }
    let found = by_gram(x, mode, Precision::Double, scale)?;
    // Doubles hold singles so exactly that squaring them loses nothing.
    // Where squares are out of range no method will do: the caller scales, or names the entry that is not finite.
    let settled = T::DTYPE == DType::F32 || !found.total.is_finite() || tail(&found) > DOUBLE;
    if settled { Ok(found) } else { by_svd(x, mode, scale) }
}

fn by_gram<T: Scalar, D: Dimension>(
    x: &Tensor<T, D>,
    mode: usize,
    precision: Precision,
    scale: f64,
) -> Result<Leading<T, D>> {
    let (matrix, total) = gram(x, mode, precision, scale)?;
    if !total.is_finite() || matrix.check_finite("gram").is_err() {
        let n = x.shape()[mode];
        let (vectors, energies) = (Tensor::eye(n)?, vec![0.0; n]);
        return Ok(Leading { vectors, energies, complete: true, total: f64::INFINITY, seen: None });
    }
    let (values, vectors) = matrix.eigh()?;
    Ok(Leading { vectors, energies: values.to_vec()?, complete: true, total, seen: None })
}

fn by_svd<T: Scalar, D: Dimension>(x: &Tensor<T, D>, mode: usize, scale: f64) -> Result<Leading<T, D>> {
    let norm = x.norm()?;
    check_norm("fit", x, norm)?;
    let unit = unit::<f64>(norm);
    let unfolded = divided(&x.unfold(mode)?.cast::<f64>()?, unit)?;
    let (n, m) = (unfolded.shape()[0], unfolded.shape()[1]);
    // X_(n) = L Q: the left singular vectors of L are those of X_(n).
    let small = if m > n { unfolded.t().qr()?.r.t() } else { unfolded };
    let svd = small.svd()?;
    let energies: Vec<f64> = svd.s.to_vec()?.into_iter().map(|s| (s * (unit * scale)).powi(2)).collect();
    let total = energies.iter().rev().sum();
    Ok(Leading { vectors: svd.u, energies, complete: true, total, seen: None })
}

fn randomized<T: Scalar, D: Dimension>(
    x: &Tensor<T, D>,
    mode: usize,
    columns: usize,
    iterations: usize,
    seed: u64,
    scale: f64,
) -> Result<Leading<T, D>> {
    let norm = x.norm()?;
    check_norm("fit", x, norm)?;
    // The power iterations square X in its own precision.
    let unit = unit::<T>(norm);
    let (x, scale) = (&divided(x, unit)?, scale * unit);
    // Omega is a Khatri-Rao product of small random matrices: few numbers to draw, and X_(n) Omega is an MTTKRP. The matrix of the mode
    // itself is not looked at.
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let matrices = x.shape().iter().enumerate().map(|(m, &size)| match m == mode {
        true => Tensor::<T, Ix2>::zeros([size, columns])?.to_device(x.device()),
        false => Tensor::from_fn([size, columns], |_| T::of(2.0 * rng.random::<f64>() - 1.0))?.to_device(x.device()),
    });
    let mut q = x.mttkrp(mode, &matrices.collect::<Result<Vec<_>>>()?)?.orthonormal()?;
    for _ in 0..iterations {
        q = refine(x, mode, &q)?;
    }
    // X_(n) seen through Q: its small Gram matrix gives the values and the rotation to the singular vectors.
    let small = x.mode_product(mode, &q.t())?;
    let (values, rotation) = small.gram(mode)?.eigh()?;
    let vectors = q.cast::<f64>()?.matmul(&rotation)?;
    let total = (norm / unit * scale).powi(2);
    let energies = values.to_vec()?.into_iter().map(|e| e * scale.powi(2)).collect();
    let seen = (unit == 1.0).then_some((small, rotation));
    Ok(Leading { vectors, energies, complete: false, total, seen })
}

/// One step of subspace iteration: an orthonormal basis of X_(n) X_(n)^T Q. Warm starts come closer to the leading vectors at
/// each step, and never lose energy (X_(n) X_(n)^T is positive semidefinite). 4 n m r flops.
pub(crate) fn refine<T: Scalar, D: Dimension>(
    x: &Tensor<T, D>,
    mode: usize,
    q: &Tensor<T, Ix2>,
) -> Result<Tensor<T, Ix2>> {
    let others: Vec<usize> = (0..x.order()).filter(|&m| m != mode).collect();
    let projected = contract(x, &[mode], q, &[0])?;
    let paired: Vec<usize> = (0..others.len()).collect();
    contract(x, &others, &projected, &paired)?.into_order::<Ix2>()?.orthonormal()
}
