//! # tenfold: N-way tensors, their decompositions, and networks adapted by them
//!
//! A table of numbers has rows and columns; much data has more directions than two. Fluorescence is measured by sample,
//! emission and excitation wavelength; a hyperspectral image by row, column and band; the weight of a convolution by
//! output channel, input channel and two positions. This crate holds such tensors, multiplies them mode by mode, and
//! writes them as a small *core* seen through one matrix per mode ([`Tucker`](decomp::Tucker)), or as a sum of a few
//! outer products ([`Cp`](decomp::Cp)). A network that is to do something new learns its change in the same form
//! ([`peft`]): few numbers, and each weight's change has the modes that the weight has.
//!
//! This page is the first chapter of a tutorial: it goes through everything once, and every piece of code on it runs.
//! If you come from another library, read on in [the guide for TensorLy users](guide::for_tensorly_users) or [the guide
//! for Tensor Toolbox users](guide::for_tensor_toolbox_users).
//!
//! 1. [Words](#words): mode, fibre, unfolding
//! 2. [Tensors](#tensors), from and to ndarray
//! 3. [Mode products](#mode-products)
//! 4. [Tucker](#tucker): compression to a known error
//! 5. [CP](#cp): parts that mean something
//! 6. [Amounts, and holes](#amounts-and-holes): nothing below zero, entries that are missing
//! 7. [Which solver when](#which-solver-when)
//! 8. [Adapting a network](#adapting-a-network): FLoRA
//! 9. [Files](#files)
//! 10. [Errors](#errors)
//! 11. [Devices and threads](#devices-and-threads)
//! 12. [Reproducibility](#reproducibility)
//! 13. [Feature flags](#feature-flags)
//! 14. [Where to go on](#where-to-go-on)
//!
//! # Words
//!
//! A tensor of *order* N is an array with N indices. Each index position is a *mode*; modes count from 0. Fix all
//! indices but that of mode n, and what is left is a vector, a *mode-n fibre*: in a matrix, mode-0 fibres are the
//! columns and mode-1 fibres the rows. Put all mode-n fibres side by side as columns and you have the *mode-n
//! unfolding* $X_{(n)}$, a matrix with $I_n$ rows:
//!
//! ```
//! use tenfold::Tensor;
//!
//! // x[i, j, k] = 100 i + 10 j + k: every entry spells its own index.
//! let x = Tensor::from_fn([2, 3, 2], |i| (100 * i[0] + 10 * i[1] + i[2]) as f64)?;
//! assert_eq!(x.order(), 3);
//!
//! let unfolded = x.unfold(1)?;
//! assert_eq!(unfolded.shape(), &[3, 4]);
//! assert_eq!(unfolded.to_vec()?, [
//!     0.0, 1.0, 100.0, 101.0, //    j = 0
//!     10.0, 11.0, 110.0, 111.0, //  j = 1
//!     20.0, 21.0, 120.0, 121.0, //  j = 2
//! ]);
//! assert_eq!(unfolded.fold(1, [2, 3, 2])?, x);
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! The columns come in row-major order of the other modes, the last one fastest, as in NumPy and TensorLy. The page of
//! [`algebra`](algebra#the-order-of-an-unfolding) has the other convention and the way from one to the other.
//!
//! The *mode-n rank* is the rank of $X_{(n)}$. In a matrix, row and column rank are equal; in a tensor of higher order
//! each mode has a rank of its own.
//!
//! # Tensors
//!
//! [`Tensor<T, D>`](Tensor) has an element type `T` and an order `D`, written as ndarray writes it: `Ix1` to `Ix6`, or
//! `IxDyn` where the order is known only at run time. An owned ndarray moves in and out without being copied:
//!
//! ```
//! use ndarray::{Array3, Ix3, s};
//! use tenfold::Tensor;
//!
//! let array = Array3::<f64>::from_shape_fn((4, 5, 6), |(i, j, k)| (i + j * k) as f64);
//! let x: Tensor<f64, Ix3> = Tensor::from(array);
//!
//! // Views: nothing is copied.
//! let permuted = x.permute(&[2, 0, 1])?;
//! assert_eq!(permuted.shape(), &[6, 4, 5]);
//! let part = x.slice(s![.., 1..3, 0])?;
//! assert_eq!(part.shape(), &[4, 2]);
//!
//! // Arithmetic gives a Result, since shapes may not fit; modes of size 1 are repeated.
//! let centred = x.shift(-x.mean()?)?;
//! let double = (&x + &x)?;
//! assert_eq!(double, (&x * 2.0)?);
//! assert!(centred.mean()?.abs() < 1e-12);
//!
//! // ndarray again: borrowed, or moved out.
//! assert_eq!(double.view()?[[1, 2, 3]], 14.0);
//! let array: Array3<f64> = x.into_ndarray()?;
//! assert_eq!(array.dim(), (4, 5, 6));
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! A tensor is a shape and strides over a shared block of memory: [`Clone`] is O(1), and a write to a shared block
//! copies it first. The module [`tensor`] has the rest. [`Element`] types can be stored (`f32`, `f64`, `bf16`, `f16`,
//! `u8`, `u32`, `i64`); [`Scalar`] types, `f32` and `f64`, can be computed with. [`cast`](Tensor::cast) goes between
//! them.
//!
//! # Mode products
//!
//! The *mode product* $Y = X \times_n M$ multiplies every mode-n fibre by a matrix: $Y_{(n)} = M X_{(n)}$. A mode of
//! length I becomes as long as M has rows. Averages, differences, changes of basis and projections along a mode are all
//! mode products.
//!
//! ```
//! use ndarray::array;
//! use tenfold::Tensor;
//!
//! let x = Tensor::from_fn([2, 3, 4], |i| (i[0] + 10 * i[1] + 100 * i[2]) as f64)?;
//!
//! // Differences of neighbours along mode 1: 3 entries become 2.
//! let difference = Tensor::from(array![[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0]]);
//! let y = x.mode_product(1, &difference)?;
//! assert_eq!(y.shape(), &[2, 2, 4]);
//! assert!(y.to_vec()?.iter().all(|&d| d == 10.0));
//!
//! // A vector takes the mode away: the mean over mode 2.
//! let mean = Tensor::full([4], 0.25)?;
//! let z = x.mode_product_vector(2, &mean)?;
//! assert_eq!(z.shape(), &[2, 3]);
//! assert_eq!(z.get(&[1, 2])?, 171.0);
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! [`mode_products`](Tensor::mode_products) applies several matrices in the order that costs least, and
//! [`multi_mode_product`](Tensor::multi_mode_product) one for each mode. Contractions, Kronecker and Khatri-Rao
//! products, MTTKRP and the factorisations of matrices are in [`algebra`].
//!
//! # Tucker
//!
//! A tensor in *Tucker form* is a core G seen through one matrix per mode,
//!
//! $$ X \approx G \times_0 A_0 \times_1 A_1 \cdots \times_{N-1} A_{N-1}, $$
//!
//! where $A_n$ is $I_n \times J_n$. Where the ranks J are smaller than the sizes I, that is far fewer numbers than X
//! has. [`StHosvd`](decomp::StHosvd) finds one that is as exact as you ask for:
//!
//! ```
//! use ndarray::s;
//! use tenfold::{Tensor, decomp::StHosvd};
//!
//! // Two substances in five samples: each has an emission and an excitation spectrum, and a concentration in each sample.
//! let peak = |i: usize, centre: f64, width: f64| (-((i as f64 - centre) / width).powi(2)).exp();
//! let x = Tensor::from_fn([5, 40, 30], |i| {
//!     let first = (1 + i[0]) as f64 * peak(i[1], 10.0, 5.0) * peak(i[2], 7.0, 4.0);
//!     let second = (5 - i[0]) as f64 * peak(i[1], 24.0, 6.0) * peak(i[2], 18.0, 5.0);
//!     first + second
//! })?;
//!
//! let fit = StHosvd::tolerance(1e-3).fit(&x)?;
//! assert!(fit.relative_error <= 1e-3); // ||X - X'|| / ||X||, guaranteed
//! assert_eq!(fit.ranks(), &[2, 2, 2]); // as small as the tolerance allows
//! assert_eq!(fit.core().shape(), &[2, 2, 2]);
//! assert_eq!(fit.factors()[1].shape(), &[40, 2]);
//! println!("{fit}"); // Tucker<f64> 5 x 40 x 30 of ranks (2, 2, 2): 158 numbers for 6000 entries, 38.0 times smaller; ..
//!
//! // Parts of the tensor are computed from parts of the factors; the whole is never formed.
//! let block = fit.slice(s![3, 10..20, ..])?.reconstruct()?;
//! assert_eq!(block.shape(), &[10, 30]);
//! assert!((fit.get(&[3, 12, 7])? - x.get(&[3, 12, 7])?).abs() < 1e-3);
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! A solver is a builder with a method `fit`. What it returns, a [`Fit`](decomp::Fit), dereferences to the
//! decomposition and also has its [`relative_error`](decomp::Fit#structfield.relative_error), the error after every
//! sweep and the reason why it stopped.
//!
//! # CP
//!
//! A tensor in *CP form* is a sum of R outer products of vectors,
//!
//! $$ X \approx \sum_{r=1}^{R} w_r \thinspace a_r \circ b_r \circ c_r \circ \cdots $$
//!
//! Tucker factors are determined only up to a rotation within their span. CP components are unique under mild
//! conditions (Kruskal 1977), so that each may be read as something real: here, a substance.
//!
//! ```
//! use tenfold::{Tensor, decomp::CpAls};
//!
//! # let peak = |i: usize, centre: f64, width: f64| (-((i as f64 - centre) / width).powi(2)).exp();
//! # let x = Tensor::from_fn([5, 40, 30], |i| {
//! #     let first = (1 + i[0]) as f64 * peak(i[1], 10.0, 5.0) * peak(i[2], 7.0, 4.0);
//! #     let second = (5 - i[0]) as f64 * peak(i[1], 24.0, 6.0) * peak(i[2], 18.0, 5.0);
//! #     first + second
//! # })?;
//! // The samples of the section before.
//! let fit = CpAls::rank(2).seed(1).fit(&x)?;
//! assert!(fit.relative_error < 1e-3);
//!
//! // Columns of the factors have norm 1, components come in falling order of weight.
//! let [samples, emission, excitation] = fit.factors() else { unreachable!() };
//! assert_eq!((samples.shape(), emission.shape(), excitation.shape()), (&[5, 2][..], &[40, 2][..], &[30, 2][..]));
//!
//! // The emission spectrum of one component has its largest entry at 10, the other at 24: the substances that were mixed.
//! let spectra = emission.to_ndarray()?;
//! let mut peaks: Vec<usize> = spectra
//!     .columns()
//!     .into_iter()
//!     .map(|c| (0..40).max_by(|&a, &b| c[a].abs().total_cmp(&c[b].abs())).unwrap_or(0))
//!     .collect();
//! peaks.sort();
//! assert_eq!(peaks, [10, 24]);
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! # Amounts, and holes
//!
//! Concentrations and spectra are not negative, and a fluorometer measures no light of a shorter wavelength than what it
//! shines with. Say so: factors can be held at or above zero, and NaN stands for what nobody has measured. The others
//! decide, and the decomposition says what the missing ones would have been.
//!
//! ```
//! use tenfold::{Tensor, decomp::CpAls};
//!
//! # let peak = |i: usize, centre: f64, width: f64| (-((i as f64 - centre) / width).powi(2)).exp();
//! # let x = Tensor::from_fn([5, 40, 30], |i| {
//! #     let first = (1 + i[0]) as f64 * peak(i[1], 10.0, 5.0) * peak(i[2], 7.0, 4.0);
//! #     let second = (5 - i[0]) as f64 * peak(i[1], 24.0, 6.0) * peak(i[2], 18.0, 5.0);
//! #     first + second
//! # })?;
//! // The samples again, where emission (mode 1) comes before excitation (mode 2) not measured: a quarter of the entries.
//! let measured = Tensor::from_fn([5, 40, 30], |i| if i[1] < i[2] { f64::NAN } else { x.get(i).unwrap_or(f64::NAN) })?;
//!
//! let fit = CpAls::rank(2).non_negative().skip_nan().seed(1).sweeps(500).fit(&measured)?;
//! assert!(fit.relative_error < 1e-3); // over what was measured
//! assert!(fit.factors().iter().all(|f| f.min().is_ok_and(|least| least >= 0.0)));
//! assert!(fit.decomposition.relative_error(&x)? < 1e-2); // and over all there is
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! # Which solver when
//!
//! | you want | take | cost |
//! |---|---|---|
//! | a given accuracy in few numbers | [`StHosvd::tolerance`](decomp::StHosvd::tolerance) | about one pass over X with $I_0$ flops an entry, and one more to project |
//! | given ranks, quickly | [`StHosvd::ranks`](decomp::StHosvd::ranks) | the same |
//! | given ranks, the smallest error | [`Hooi::ranks`](decomp::Hooi::ranks) | a start as above, then two passes over X a sweep |
//! | singular values of every unfolding of X itself | [`Hosvd`](decomp::Hosvd) | about N times ST-HOSVD |
//! | components with a meaning | [`CpAls::rank`](decomp::CpAls::rank) | two passes over X a sweep |
//! | .. that are amounts: nothing below zero | [`CpAls::non_negative`](decomp::CpAls::non_negative), [`NonNegativeTucker`](decomp::NonNegativeTucker) | the same |
//! | .. though entries are missing | NaN for them, and [`CpAls::skip_nan`](decomp::CpAls::skip_nan), [`Hooi::skip_nan`](decomp::Hooi::skip_nan) | two passes over a mask with $R^2 / 2$ columns; a reconstruction a sweep |
//!
//! ST-HOSVD mostly comes within a percent of the best error for its ranks, so start with it. CP finds a local minimum
//! that depends on where it starts: let it try [several starts](decomp::CpAls::starts), and look at the components as
//! well as at the error. [`decomp`] says more, and each solver's page has its algorithm, its cost and its reference.
//!
//! # Adapting a network
//!
//! A Tucker tensor need not be found in data, it can be learnt. A network that was trained on much is to do something
//! else, for which there is little: its weights stay as they are, and each gets a change of few numbers. The weight of a
//! convolution has modes for output channels, input channels, rows and columns, and FLoRA's change of it has them too,
//!
//! $$ W = W_0 + s\thinspace G \times_1 A_1 \times_2 A_2 \times_3 A_3 \times_4 A_4, $$
//!
//! where LoRA would reshape the weight to a matrix first, and cut its kernels up.
//!
//! ```
//! use rand::SeedableRng;
//! use rand_chacha::ChaCha8Rng;
//! use tenfold::{autodiff, nn::{Conv, Module}, peft::{self, Flora, Targets}};
//!
//! let rng = &mut ChaCha8Rng::seed_from_u64(1);
//! let mut model = vec![Conv::<f32>::new([16, 32], &[3, 3], autodiff::Conv::new().padding(1), rng)?];
//!
//! // Four directions of channels on either side, two of rows and two of columns: 268 numbers beside a weight of 4608.
//! let plan = peft::attach(&mut model, &Flora::new().rank(4).kernel_rank(2), &Targets::all())?;
//! assert_eq!(plan.parameters(), 4 * 4 * 2 * 2 + 32 * 4 + 16 * 4 + 3 * 2 + 3 * 2);
//! assert_eq!(model.count().trainable, plan.parameters());
//!
//! // .. training ..
//!
//! peft::merge(&mut model)?; // a convolution's change is a convolution: the layer is an ordinary one again
//! assert_eq!(model[0].parameters().len(), 2);
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! [The second chapter](guide::adaptation) goes from here to files for others: what such a change can reach and what a
//! matrix cannot, a training, ranks, starts, merging. [`peft`] has LoRA, AdaLoRA, DoRA and bottlenecks beside it, [`nn`]
//! the layers, [`train`] the training, [`models`] networks that read published weights.
//!
//! # Files
//!
//! NumPy's `.npy` holds one tensor, safetensors ([`TensorFile`]) several with names. Reading never rounds: a type that
//! does not hold what the file has is an error that says which one does. A file is written whole or not at all.
//!
//! ```
//! use ndarray::IxDyn;
//! use tenfold::{Tensor, TensorFile};
//!
//! let folder = std::env::temp_dir();
//! let x = Tensor::from_fn([3, 4], |i| (i[0] * i[1]) as f32)?;
//! x.save_npy(folder.join("tenfold-doc.npy"))?;
//! let again = Tensor::<f64, IxDyn>::load_npy(folder.join("tenfold-doc.npy"))?;
//! assert_eq!(again.shape(), &[3, 4]);
//!
//! TensorFile::new().with("x", &x)?.with_metadata("source", "tutorial").save(folder.join("tenfold-doc.safetensors"))?;
//! assert_eq!(TensorFile::open(folder.join("tenfold-doc.safetensors"))?.shape("x")?, [3, 4]);
//! # std::fs::remove_file(folder.join("tenfold-doc.npy")).unwrap();
//! # std::fs::remove_file(folder.join("tenfold-doc.safetensors")).unwrap();
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! # Errors
//!
//! Everything that depends on data, shapes, files, devices or convergence returns a [`Result`] with the crate's one
//! [`Error`]. Its message names the operation, the shapes, and what would be right; its [`kind`](Error::kind) is there
//! to match on.
//!
//! ```
//! use ndarray::array;
//! use tenfold::{ErrorKind, Tensor, decomp::StHosvd};
//!
//! let mut x = Tensor::from_fn([3, 4, 5], |i| (i[0] + i[1] * i[2]) as f64)?;
//!
//! let error = x.mode_product(1, &Tensor::from(array![[1.0, 2.0, 3.0]])).unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Shape);
//! assert_eq!(
//!     error.to_string(),
//!     "mode_product: a 1 x 3 matrix cannot multiply mode 1 of shape [3, 4, 5]; it needs 4 columns"
//! );
//!
//! let error = StHosvd::ranks([2, 2, 9]).fit(&x).unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Rank);
//!
//! x.as_mut_slice()?[7] = f64::NAN;
//! let error = StHosvd::ranks([2, 2, 2]).fit(&x).unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Value);
//! assert!(error.to_string().contains("entry [0, 1, 2] is NaN"));
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! # Devices and threads
//!
//! A tensor lives on a [`Device`], and operations run where their operands live. Tensors are made on the host with all
//! its cores; [`to_device`](Tensor::to_device) moves them, and on the host it only sets the number of threads:
//!
//! ```
//! use tenfold::{Device, Tensor, decomp::StHosvd};
//!
//! let x = Tensor::from_fn([20, 30, 40], |i| ((i[0] * i[1] + i[2]) as f64).sin())?;
//! let one = x.to_device(&Device::cpu().threads(1))?; // O(1)
//! let fit = StHosvd::ranks([5, 5, 5]).fit(&one)?; // on one thread
//!
//! match Device::cuda(0) {
//!     Ok(gpu) => {
//!         let there = StHosvd::ranks([5, 5, 5]).fit(&x.to_device(&gpu)?)?;
//!         assert!((there.relative_error - fit.relative_error).abs() < 1e-9);
//!     }
//!     Err(error) => println!("{error}"), // says what is missing: the feature, a library, a driver, a device
//! }
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! Two operands on different devices are an error that names both; nothing moves behind your back. Buffers of dropped
//! tensors are kept for the next ones, because touching fresh memory is slow; [`Device::release_cached`] gives them
//! back.
//!
//! # Reproducibility
//!
//! Randomness comes from a seed (`CpAls::seed`, `NonNegativeTucker::seed`, `HooiStart::Random`, `Method::Randomized`) or from a generator that you
//! pass (`Tensor::normal`, `Tensor::uniform`). The same input, seed, machine and thread count give the same result, bit
//! by bit. Another thread count changes last digits, because sums are split among threads.
//!
//! # Feature flags
//!
//! | flag | default | what |
//! |---|---|---|
//! | `cuda` | no | the CUDA device. Compiles without CUDA; driver and libraries are loaded when a device is first opened, and their absence is an [`Error`] |
//! | `hub` | no | models by their names on Hugging Face's hub are downloaded ([`hub`]). Needs a C compiler, for TLS |
//! | `text` | no | texts for training: tokenizers, GLUE's tasks (`text`). All Rust |
//! | `terminal` | no | training at a terminal: progress bar, curves as SVG, Ctrl-C that saves ([`train`]) |
//! | `vision` | no | images: folders, packed files, augmentation (`vision`) |
//!
//! # Where to go on
//!
//! - [`decomp`]: the formats and the solvers.
//! - [`algebra`]: the operations, and the order of unfoldings.
//! - [`tensor`]: views, arithmetic, files.
//! - [`autodiff`]: gradients; from a mode product's formula to its gradient.
//! - [`nn`]: parameters, layers and their files.
//! - [`peft`]: fine-tuning a model with few parameters; [its chapter of the tutorial](guide::adaptation).
//! - [`train`]: optimisers, schedules, and runs that can be killed at any moment.
//! - [`models`]: ConvNeXt, ResNet, EfficientNet-Lite, BERT and DeBERTa, from the files of other libraries.
//! - `vision`, with the feature of that name: images to train on.
//! - [`guide`]: coming from TensorLy, or from the Tensor Toolbox for MATLAB or Python.
//! - The program `convnext` trains and adapts image classifiers from the command line.
//! - The program `decompose` in the repository's folder `examples` decomposes an `.npy` file from the command line.
//!
//! The notation is that of Kolda and Bader, *Tensor decompositions and applications*, SIAM Review 51 (2009), but for
//! the order of columns in unfoldings and modes that count from 0.

#![deny(unsafe_code, missing_docs, rustdoc::broken_intra_doc_links)]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::dbg_macro, clippy::print_stdout, clippy::todo)
)]

pub mod algebra;
pub mod autodiff;
pub mod decomp;
pub mod device;
mod error;
#[cfg(any(doc, doctest))]
pub mod guide;
pub mod hub;
pub mod models;
pub mod nn;
pub mod peft;
mod scalar;
pub mod tensor;
#[cfg(feature = "text")]
pub mod text;
pub mod train;
#[cfg(feature = "vision")]
pub mod vision;

pub use device::{Device, Memory, precision::Precision};
pub use error::{Error, ErrorKind, Result};
pub use scalar::{DType, Element, Index, Scalar};
pub use tensor::{Tensor, TensorFile};

/// The README's example runs as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
