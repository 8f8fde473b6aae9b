//! For TensorLy users: the same conventions, other names.
//!
//! Entries are row-major, modes count from 0, and the columns of an unfolding come in NumPy's order, the last of the
//! other modes fastest: `tl.unfold(x, n)` and [`x.unfold(n)`](crate::Tensor::unfold) are the same matrix. Names are
//! those of TensorLy 0.10.
//!
//! # A first example
//!
//! ```python
//! import numpy as np, tensorly as tl
//! from tensorly.decomposition import tucker, parafac
//!
//! x = tl.tensor(np.fromfunction(lambda i, j, k: np.sin(i + 2 * j) + k, (10, 12, 8)))
//! core, factors = tucker(x, rank=[3, 3, 2])
//! error = tl.norm(x - tl.tucker_to_tensor((core, factors))) / tl.norm(x)
//! weights, factors = parafac(x, rank=3, n_iter_max=200, random_state=1, init="random")
//! ```
//!
//! ```
//! use tenfold::{Tensor, decomp::{CpAls, Hooi}};
//!
//! let x = Tensor::from_fn([10, 12, 8], |i| ((i[0] + 2 * i[1]) as f64).sin() + i[2] as f64)?;
//! let fit = Hooi::ranks([3, 3, 2]).fit(&x)?;
//! assert!(fit.relative_error < 1e-7); // measured already
//! let (core, factors) = fit.into_inner().into_parts();
//! assert_eq!((core.shape(), factors[1].shape()), (&[3, 3, 2][..], &[12, 3][..]));
//!
//! let fit = CpAls::rank(3).sweeps(200).seed(1).fit(&x)?;
//! let (weights, factors) = fit.into_inner().into_parts();
//! assert_eq!((weights.shape(), factors[2].shape()), (&[3][..], &[8, 3][..]));
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! # From TensorLy to here
//!
//! With `use tenfold::{algebra::*, decomp::*, Tensor};` and tensors by reference.
//!
//! | TensorLy | tenfold |
//! |---|---|
//! | **tensors** | |
//! | `tl.tensor(array)` | [`Tensor::from(array)`](crate::Tensor) (moves an owned ndarray in), [`Tensor::from_vec`](crate::Tensor::from_vec) |
//! | `tl.to_numpy(x)` | [`x.view()?`](crate::Tensor::view) (borrows), [`x.into_ndarray()?`](crate::Tensor::into_ndarray) (moves out) |
//! | `tl.zeros`, `tl.ones`, `tl.eye` | [`Tensor::zeros`](crate::Tensor::zeros), [`ones`](crate::Tensor::ones), [`eye`](crate::Tensor::eye) |
//! | `random.random_tensor(shape)` | [`Tensor::uniform(shape, rng)`](crate::Tensor::uniform) |
//! | `tl.set_backend("pytorch")`, `x.to("cuda")` | [`x.to_device(&Device::cuda(0)?)`](crate::Tensor::to_device); there is one backend |
//! | `tl.transpose(x, axes)`, `tl.reshape(x, shape)` | [`x.permute(&axes)`](crate::Tensor::permute), [`x.reshape(shape)`](crate::Tensor::reshape) |
//! | `tl.norm(x)`, `tl.norm(x, 1)` | [`x.norm()`](crate::Tensor::norm), [`x.norm_l1()`](crate::Tensor::norm_l1) |
//! | `tl.sum(x, axis=n)` | [`x.sum_modes(&[n])`](crate::Tensor::sum_modes) |
//! | **unfolding** | |
//! | `tl.unfold(x, n)`, `tl.fold(m, n, shape)` | [`x.unfold(n)`](crate::Tensor::unfold), [`m.fold(n, shape)`](crate::Tensor::fold) |
//! | `tl.tensor_to_vec(x)`, `tl.vec_to_tensor(v, shape)` | [`x.vectorize()`](crate::Tensor::vectorize), [`v.reshape(shape)`](crate::Tensor::reshape) |
//! | `tl.partial_unfold(x, n, skip_begin=b, skip_end=e)` | [`x.partial_unfold(b + n, b..order - e)`](crate::Tensor::partial_unfold): the mode is counted in x |
//! | **products** (`tl.tenalg`) | |
//! | `mode_dot(x, m, n)` for a matrix | [`x.mode_product(n, &m)`](crate::Tensor::mode_product) |
//! | `mode_dot(x, v, n)` for a vector | [`x.mode_product_vector(n, &v)`](crate::Tensor::mode_product_vector) |
//! | `mode_dot(x, m, n, transpose=True)` | [`x.mode_product(n, &m.t())`](crate::Tensor::t): a view |
//! | `multi_mode_dot(x, ms, skip=s, transpose=True)` | [`x.multi_mode_product(&ms, MultiMode { skip: Some(s), transpose: true })`](crate::Tensor::multi_mode_product) |
//! | `multi_mode_dot(x, [a, b], modes=[0, 2])` | [`x.mode_products(&[(0, &a), (2, &b)])`](crate::Tensor::mode_products) |
//! | `kronecker([a, b])` | [`kronecker(&[&a, &b])`](crate::algebra::kronecker) |
//! | `khatri_rao([a, b])` | [`khatri_rao(&[&a, &b])`](crate::algebra::khatri_rao); leave a matrix out instead of `skip_matrix` |
//! | `inner(x, y)` | [`inner(&x, &y)`](crate::algebra::inner) |
//! | `inner(x, y, n_modes=1)` | [`contract(&x, &[x.order() - 1], &y, &[0])`](crate::algebra::contract) |
//! | `outer([x, y])` | [`outer(&x, &y)`](crate::algebra::outer) |
//! | `tensordot(x, y, ([1, 2], [2, 0]))` | [`contract(&x, &[1, 2], &y, &[2, 0])`](crate::algebra::contract) |
//! | `unfolding_dot_khatri_rao(x, (None, factors), n)` | [`x.mttkrp(n, &factors)`](crate::Tensor::mttkrp) |
//! | `unfolding_dot_khatri_rao(x, (weights, factors), n)` | [`x.mttkrp_weighted(n, &factors, &weights)`](crate::Tensor::mttkrp_weighted) |
//! | `tl.svd_interface`, `tl.partial_svd`, `tl.qr`, `tl.eigh` | [`m.svd()`](crate::Tensor::svd) (thin; V is not transposed), [`m.qr()`](crate::Tensor::qr), [`m.eigh()`](crate::Tensor::eigh) (values fall) |
//! | **formats** | |
//! | `TuckerTensor((core, factors))` | [`Tucker::new(core, factors)`](crate::decomp::Tucker::new) |
//! | `tl.tucker_to_tensor(t)`, `tucker_normalize(t)` | [`t.reconstruct()`](crate::decomp::Tucker::reconstruct), [`t.normalize()`](crate::decomp::Tucker::normalize) |
//! | `CPTensor((weights, factors))` | [`Cp::new(weights, factors)`](crate::decomp::Cp::new) |
//! | `tl.cp_to_tensor(cp)`, `tl.cp_norm(cp)` | [`cp.reconstruct()`](crate::decomp::Cp::reconstruct), [`cp.norm()`](crate::decomp::Cp::norm) |
//! | `tl.cp_normalize(cp)`, `cp_flip_sign(cp)` | [`cp.normalize()`](crate::decomp::Cp::normalize), [`cp.fix_signs()`](crate::decomp::Cp::fix_signs) (other rule: see below) |
//! | **solvers** (`tensorly.decomposition`) | |
//! | `tucker(x, rank, n_iter_max=0)` | [`Hosvd::ranks(rank).fit(&x)`](crate::decomp::Hosvd), or [`StHosvd::ranks`](crate::decomp::StHosvd), which is quicker |
//! | `tucker(x, rank)` | [`Hooi::ranks(rank).fit(&x)`](crate::decomp::Hooi) |
//! | `tucker(.., init="random", random_state=s)` | [`.start(HooiStart::Random { seed: s })`](crate::decomp::HooiStart) |
//! | `parafac(x, rank, init="random", random_state=s)` | [`CpAls::rank(rank).seed(s).fit(&x)`](crate::decomp::CpAls) |
//! | `parafac(x, rank, init="svd")` | [`.start(CpStart::Hosvd)`](crate::decomp::CpStart) |
//! | `parafac(.., init=(weights, factors))` | [`.start(CpStart::Given(factors))`](crate::decomp::CpStart), the weights multiplied in |
//! | `n_iter_max=k`, `tol=t` | `.sweeps(k)`, `.until_change(t)`; both with `.exactly(k)` for exactly k sweeps |
//! | `parafac(.., init=(w, fs), fixed_modes=[0])` | [`.start(CpStart::Given(fs)).fixed_modes([0])`](crate::decomp::CpAls::fixed_modes) |
//! | `parafac(x, rank, mask=m)` | [`CpAls::rank(rank).skip_nan()`](crate::decomp::CpAls::skip_nan) with NaN where the mask is 0: exact least squares, nothing is imputed |
//! | `non_negative_parafac_hals(x, rank)`, `nn_modes={0, 2}` | [`CpAls::rank(rank).non_negative()`](crate::decomp::CpAls::non_negative), [`non_negative_modes([0, 2])`](crate::decomp::CpAls::non_negative_modes) |
//! | `tucker(x, rank, mask=m)` | [`Hooi::ranks(rank).skip_nan()`](crate::decomp::Hooi::skip_nan), NaN as above |
//! | `non_negative_tucker_hals(x, rank)` | [`NonNegativeTucker::ranks(rank).fit(&x)`](crate::decomp::NonNegativeTucker) |
//! | `congruence_coefficient(a.factors, b.factors)` | [`a.congruence(&b)?.score()`](crate::decomp::Cp::congruence); signs count, where TensorLy takes absolute values |
//! | `return_errors=True` | [`fit.history`](crate::decomp::Fit#structfield.history), always there |
//! | `callback=f` | [`fit_with(&x, f)`](crate::decomp::CpAls::fit_with) |
//!
//! # From here to TensorLy
//!
//! | tenfold | TensorLy |
//! |---|---|
//! | [`matricize(&rows, &cols)`](crate::Tensor::matricize) | `tl.reshape(tl.transpose(x, rows + cols), (R, C))` |
//! | [`mttkrp_all(&factors)`](crate::Tensor::mttkrp_all), in two passes over x | a loop over `unfolding_dot_khatri_rao` |
//! | [`gram(n)`](crate::Tensor::gram) | `tl.dot(tl.unfold(x, n), tl.transpose(tl.unfold(x, n)))` |
//! | [`hadamard(&[&a, &b])`](crate::algebra::hadamard) | `a * b` |
//! | [`StHosvd`](crate::decomp::StHosvd), with [`order`](crate::decomp::StHosvd::order) and [`method`](crate::decomp::StHosvd::method) | no counterpart |
//! | [`StHosvd::tolerance`](crate::decomp::StHosvd::tolerance), [`Hosvd::tolerance`](crate::decomp::Hosvd::tolerance) | no counterpart: `rank` as a fraction fixes the number of parameters, not the error |
//! | [`Tucker::slice`](crate::decomp::Tucker::slice), [`Cp::slice`](crate::decomp::Cp::slice), `get` | index rows of the factors by hand |
//! | [`Tucker::inner`](crate::decomp::Tucker::inner), [`Tucker::norm`](crate::decomp::Tucker::norm), [`Cp::inner`](crate::decomp::Cp::inner) | only `cp_norm` |
//! | [`Tucker::canonicalize`](crate::decomp::Tucker::canonicalize), [`Tucker::orthogonalize`](crate::decomp::Tucker::orthogonalize) | no counterpart |
//! | [`Cp::canonicalize`](crate::decomp::Cp::canonicalize), [`Cp::sort`](crate::decomp::Cp::sort) | `cp_normalize`, then sort by hand; `cp_permute_factors` matches one CP to another |
//! | [`Tucker::relative_error`](crate::decomp::Tucker::relative_error) | `tl.norm(x - tl.tucker_to_tensor(t)) / tl.norm(x)`, without the dense copy |
//! | [`CpAls::starts(n)`](crate::decomp::CpAls::starts) | a loop over `random_state` |
//! | [`save_npy`](crate::Tensor::save_npy), [`load_npy`](crate::Tensor::load_npy) | `np.save`, `np.load` |
//!
//! # What differs where the names are alike
//!
//! - **Stopping.** `tucker` stops at a change of 1e-4 of the relative error; HOOI here goes on to 1e-8, at most 50
//!   sweeps. `parafac` has 1e-8 and 100 sweeps, as CP-ALS here.
//! - **Start of CP.** `parafac` starts from singular vectors by default, CP-ALS from random factors.
//! - **Weights.** `parafac` leaves all weights at 1 unless `normalize_factors=True`. Here factor columns always have
//!   norm 1, and components come in falling order of weight.
//! - **Signs.** `cp_flip_sign` makes the mean of each column positive and lets mode 0 take the rest. Here the entry of
//!   largest absolute value is positive and the last mode takes the rest.
//! - **Errors.** `return_errors` divides by the norm of x too; here
//!   [`relative_error`](crate::decomp::Fit#structfield.relative_error) is measured on the residual where differences of
//!   norms would not resolve it.
//! - **Ranks** are whole numbers, one for each mode, none above the mode's size. `rank=0.1` and `rank="same"` have no
//!   counterpart; ask for a tolerance.
//! - **Zeros** of non-negative factors are zeros; HALS there leaves the smallest number that it takes for positive.
//! - **Missing entries**: one sweep of CP costs more here, and gains as much as on whole data. Errors are over the known
//!   entries.
//! - **Element type** is part of the tensor's type; `f32` and `f64` do not mix by themselves
//!   ([`cast`](crate::Tensor::cast)).
//!
//! Not here: sparse, smooth and otherwise constrained decompositions, PARAFAC2, tensor trains and rings,
//! `partial_tucker`, regression, robust PCA, sparse tensors.
//!
//! # Data between the two
//!
//! `np.save("x.npy", x)` writes what [`Tensor::load_npy`](crate::Tensor::load_npy) reads, in either order of entries
//! and either byte order, and the other way round.
//!
//! ```
//! use ndarray::{Ix3, array};
//! use tenfold::{Tensor, algebra::{MultiMode, contract, khatri_rao}};
//!
//! let x: Tensor<f64, Ix3> = Tensor::from_fn([2, 3, 2], |i| (100 * i[0] + 10 * i[1] + i[2]) as f64)?;
//!
//! // tl.unfold(x, 1)
//! let unfolded = x.unfold(1)?;
//! assert_eq!(unfolded.view()?.row(1).to_vec(), [10.0, 11.0, 110.0, 111.0]);
//!
//! // multi_mode_dot(x, ms, skip=1, transpose=True)
//! let ms = [Tensor::from(array![[1.0], [1.0]]), Tensor::eye(3)?, Tensor::from(array![[1.0], [-1.0]])];
//! let y = x.multi_mode_product(&ms, MultiMode { skip: Some(1), transpose: true })?;
//! assert_eq!(y.shape(), &[1, 3, 1]);
//! assert_eq!(y.to_vec()?, [-2.0; 3]);
//!
//! // partial_unfold(x, 0, skip_begin=1): each x[i] unfolded along its own mode 0, which is mode 1 of x
//! assert_eq!(x.partial_unfold(1, 1..3)?.shape(), &[2, 3, 2]);
//!
//! // khatri_rao([a, b]): the rows of b run fastest
//! let (a, b) = (Tensor::from(array![[1.0, 2.0], [3.0, 4.0]]), Tensor::from(array![[1.0, 1.0], [10.0, 100.0]]));
//! assert_eq!(khatri_rao(&[&a, &b])?, Tensor::from(array![[1.0, 2.0], [10.0, 200.0], [3.0, 4.0], [30.0, 400.0]]));
//!
//! // tensordot(x, x, ([0, 2], [0, 2]))
//! assert_eq!(contract(&x, &[0, 2], &x, &[0, 2])?.shape(), &[3, 3]);
//! # Ok::<(), tenfold::Error>(())
//! ```
