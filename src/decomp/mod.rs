//! Decompositions: formats that hold a tensor in few numbers, and the solvers that find them.
//!
//! | format | what it says | solvers |
//! |---|---|---|
//! | [`Tucker`] | $X = G \times_0 A_0 \times_1 A_1 \cdots$, a core seen through one matrix per mode | [`Hosvd`], [`StHosvd`], [`Hooi`]; without negative entries [`NonNegativeTucker`] |
//! | [`Cp`] | $X = \sum_r w_r \thinspace a_r \circ b_r \circ c_r \cdots$, a sum of outer products | [`CpAls`], without negative entries too |
//!
//! A solver is a builder: say what is wanted, then [`fit`](StHosvd::fit). The result is a [`Fit`]: the decomposition (to which it
//! dereferences) with its true relative error, the error after every sweep, and why it stopped. `fit_with` takes a callback that
//! sees every sweep and may end the work.
//!
//! # Which one
//!
//! - Compress a tensor to a known accuracy: [`StHosvd::tolerance`]. The error is guaranteed, and nothing is iterated.
//! - Compress to known ranks: [`StHosvd::ranks`]; [`Hooi::ranks`] to squeeze out the last percent of error, or
//!   less, at several times the cost.
//! - Compare singular values mode by mode, or want every factor from the whole tensor: [`Hosvd`].
//! - Parts that only add up, of data without negative entries (counts, spectra, images): [`NonNegativeTucker`].
//! - Explain a tensor as a sum of parts that mean something (chemical components, topics, sources): [`CpAls`]. CP components are
//!   unique under mild conditions; Tucker factors are only determined up to rotation. [`Cp::congruence`] says whether two fits have found the same.
//! - Amounts, spectra, counts, which no part of a sum can take away from: [`CpAls::non_negative`], or [`NonNegativeTucker`] where
//!   parts of one mode go with several of another. Factors then read as parts, and components cannot cancel.
//! - Entries are missing: NaN in their places, and `skip_nan` for [CP](CpAls::skip_nan), [Tucker](Hooi::skip_nan) and
//!   [non-negative Tucker](NonNegativeTucker::skip_nan). The decomposition says what they would be.
//!
//! ```
//! use rand::SeedableRng;
//! use rand_chacha::ChaCha8Rng;
//! use tenfold::{Tensor, decomp::{CpAls, StHosvd, Tucker}};
//!
//! let rng = &mut ChaCha8Rng::seed_from_u64(3);
//! let core = Tensor::<f64, _>::normal([2, 2, 2], rng)?;
//! let factors = vec![Tensor::normal([8, 2], rng)?, Tensor::normal([9, 2], rng)?, Tensor::normal([10, 2], rng)?];
//! let x = Tucker::new(core, factors)?.reconstruct()?;
//!
//! let fit = StHosvd::tolerance(1e-6).fit(&x)?;
//! assert_eq!(fit.ranks(), &[2, 2, 2]);
//! assert!(fit.relative_error <= 1e-6);
//! println!("{fit}");
//! # Ok::<(), tenfold::Error>(())
//! ```

mod congruence;
mod cp;
mod cp_als;
mod cp_sweep;
mod fit;
mod halves;
mod hooi;
mod hosvd;
mod leading;
mod missing;
mod non_negative_sweep;
mod non_negative_tucker;
mod normal;
mod powers;
mod scale;
mod st_hosvd;
mod stored;
mod target;
mod tucker;

pub use congruence::{Congruence, Pair};
pub use cp::Cp;
pub use cp_als::{CpAls, CpStart};
pub use fit::{Fit, Progress, Stop};
pub use hooi::{Hooi, HooiStart};
pub use hosvd::Hosvd;
pub use leading::Method;
pub use non_negative_tucker::{NonNegativeStart, NonNegativeTucker};
pub use st_hosvd::StHosvd;
pub use target::Target;
pub use tucker::Tucker;
