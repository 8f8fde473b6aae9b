//! For users of the Tensor Toolbox for MATLAB, or of pyttb in Python: the same names for most things, another order of
//! unfoldings.
//!
//! The notation is that of Kolda and Bader in all three, but for two things: modes count from 0 here (as in pyttb; from
//! 1 in MATLAB), and entries are row-major, which reverses the order of columns in unfoldings and of factors in
//! Khatri-Rao and Kronecker products. Names are those of the Tensor Toolbox for MATLAB 3 and of pyttb 1.8.
//!
//! # A first example
//!
//! ```python
//! import numpy as np, pyttb as ttb
//!
//! x = ttb.tensor(np.fromfunction(lambda i, j, k: np.sin(i + 2 * j) + k, (10, 12, 8)))
//! t = ttb.hosvd(x, tol=1e-6)                                     # MATLAB: T = hosvd(X, 1e-6)
//! block = t.reconstruct([np.arange(3), np.array([4])], [0, 1])   # MATLAB: reconstruct(T, {1:3, 5}, [1 2])
//! m, start, output = ttb.cp_als(x, 3, maxiters=200)              # MATLAB: M = cp_als(X, 3, 'maxiters', 200)
//! ```
//!
//! ```
//! use ndarray::s;
//! use tenfold::{Tensor, decomp::{CpAls, StHosvd}};
//!
//! let x = Tensor::from_fn([10, 12, 8], |i| ((i[0] + 2 * i[1]) as f64).sin() + i[2] as f64)?;
//! let t = StHosvd::tolerance(1e-6).fit(&x)?;
//! assert!(t.relative_error <= 1e-6);
//! let block = t.slice(s![0..3, 4..5, ..])?.reconstruct()?;
//! assert_eq!(block.shape(), &[3, 1, 8]);
//! let m = CpAls::rank(3).sweeps(200).fit(&x)?;
//! assert_eq!((m.weights().shape(), m.factors().len()), (&[3][..], 3));
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! # The order of an unfolding
//!
//! `tenmat(X, n)` puts mode n into the rows and the other modes into the columns, the **first** of them fastest,
//! because MATLAB stores tensors that way. [`unfold`](crate::Tensor::unfold) lets the **last** run fastest. The columns
//! are the same fibres; so singular values, ranks, factors, cores and errors are the same. To get the Toolbox's matrix
//! itself, list the column modes backwards:
//!
//! ```
//! use tenfold::Tensor;
//!
//! // x[i, j, k] = 100 i + 10 j + k
//! let x = Tensor::from_fn([2, 3, 2], |i| (100 * i[0] + 10 * i[1] + i[2]) as f64)?;
//!
//! // x.to_tenmat(np.array([1])); MATLAB: tenmat(X, 2)
//! let theirs = x.matricize(&[1], &[2, 0])?;
//! assert_eq!(theirs.view()?.row(0).to_vec(), [0.0, 100.0, 1.0, 101.0]);
//! // and back
//! assert_eq!(theirs.reshape([3, 2, 2])?.permute(&[2, 0, 1])?, x);
//!
//! // Ours
//! let ours = x.unfold(1)?;
//! assert_eq!(ours.view()?.row(0).to_vec(), [0.0, 1.0, 100.0, 101.0]);
//! // The order of the other modes does not touch X_(n) X_(n)^T.
//! assert_eq!(theirs.matmul(&theirs.t())?, ours.matmul(&ours.t())?);
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! | | Tensor Toolbox | here |
//! |---|---|---|
//! | `tenmat(X, rdims, cdims)`, first of each list fastest | `tenmat(X, [1 3], [2 4])` | `x.matricize(&[2, 0], &[3, 1])`: both lists backwards, counted from 0 |
//! | `tenmat(X, n)` of order N | columns 1, .., n-1, n+1, .., N, first fastest | `x.matricize(&[n], &[N-1, .., n+1, n-1, .., 0])` |
//! | vectorised | `X(:)`, first index fastest | `x.permute(&[N-1, .., 0])?.vectorize()` |
//! | Tucker in matrices | $X_{(n)} = A_n G_{(n)} (A_{N-1} \otimes \cdots \otimes A_0)^T$ | $X_{(n)} = A_n G_{(n)} (A_0 \otimes \cdots \otimes A_{N-1})^T$ |
//! | CP in matrices | $X_{(n)} = A_n (A_{N-1} \odot \cdots \odot A_0)^T$ | $X_{(n)} = A_n (A_0 \odot \cdots \odot A_{N-1})^T$ |
//!
//! (The products in the last two rows leave out the factor of mode n, and weights are multiplied in.) The products
//! themselves are the same function: `khatrirao(A, B)` and [`khatri_rao(&[&a, &b])`](crate::algebra::khatri_rao) both
//! let the rows of B run fastest. What differs is which one a formula asks for: `khatrirao(A, B, 'r')`, or
//! `reverse=True` in pyttb, is `khatri_rao(&[&b, &a])`.
//!
//! # From the Tensor Toolbox to here
//!
//! | MATLAB | pyttb | tenfold |
//! |---|---|---|
//! | **tensors** | | |
//! | `tensor(A)` | `ttb.tensor(a)` | [`Tensor::from(array)`](crate::Tensor), [`Tensor::from_array`](crate::Tensor::from_array) for a view |
//! | `double(X)` | `x.double()` | [`x.view()?`](crate::Tensor::view), [`x.into_ndarray()?`](crate::Tensor::into_ndarray) |
//! | `tenzeros`, `tenones`, `tenrand` | `ttb.tenzeros`, `ttb.tenones`, `ttb.tenrand` | [`Tensor::zeros`](crate::Tensor::zeros), [`ones`](crate::Tensor::ones), [`uniform`](crate::Tensor::uniform) |
//! | `ndims(X)`, `size(X)` | `x.ndims`, `x.shape` | [`x.order()`](crate::Tensor::order), [`x.shape()`](crate::Tensor::shape) |
//! | `X(1:3, :, 5)` | `x[0:3, :, 4]` | [`x.slice(s![0..3, .., 4])`](crate::Tensor::slice): a view |
//! | `permute(X, [3 1 2])` | `x.permute(np.array([2, 0, 1]))` | [`x.permute(&[2, 0, 1])`](crate::Tensor::permute) |
//! | `norm(X)` | `x.norm()` | [`x.norm()`](crate::Tensor::norm) |
//! | `collapse(X, 2)` | `x.collapse(1)` | [`x.sum_modes(&[1])`](crate::Tensor::sum_modes) |
//! | `scale(X, v, 2)` | `x.scale(v, 1)` | [`x.mul(&v)`](crate::Tensor::mul) with v of shape `1 x n x 1` |
//! | `tenfun(@f, X)` | `x.tenfun(f)` | [`x.map(f)`](crate::Tensor::map) |
//! | `squeeze(X)` | `x.squeeze()` | [`x.index_mode(n, 0)`](crate::Tensor::index_mode) for each mode n of size 1 |
//! | **products** | | |
//! | `ttm(X, A, 2)` | `x.ttm(a, 1)` | [`x.mode_product(1, &a)`](crate::Tensor::mode_product) |
//! | `ttm(X, A, 2, 't')` | `x.ttm(a, 1, transpose=True)` | `x.mode_product(1, &a.t())` |
//! | `ttm(X, {A, B, C})` | `x.ttm([a, b, c])` | [`x.multi_mode_product(&[a, b, c], MultiMode::default())`](crate::Tensor::multi_mode_product) |
//! | `ttm(X, {A, B, C}, -2)` | `x.ttm([a, b, c], exclude_dims=1)` | [`MultiMode { skip: Some(1), .. }`](crate::algebra::MultiMode) |
//! | `ttv(X, v, 2)` | `x.ttv(v, 1)` | [`x.mode_product_vector(1, &v)`](crate::Tensor::mode_product_vector) |
//! | `ttt(X, Y)` | `x.ttt(y)` | [`outer(&x, &y)`](crate::algebra::outer) |
//! | `ttt(X, Y, [1 2], [2 3])` | `x.ttt(y, np.array([0, 1]), np.array([1, 2]))` | [`contract(&x, &[0, 1], &y, &[1, 2])`](crate::algebra::contract) |
//! | `innerprod(X, Y)` | `x.innerprod(y)` | [`inner(&x, &y)`](crate::algebra::inner) |
//! | `khatrirao(A, B)` | `ttb.khatrirao(a, b)` | [`khatri_rao(&[&a, &b])`](crate::algebra::khatri_rao) |
//! | `kron(A, B)` | `np.kron(a, b)` | [`kronecker(&[&a, &b])`](crate::algebra::kronecker) |
//! | `mttkrp(X, U, 2)` | `x.mttkrp(u, 1)` | [`x.mttkrp(1, &u)`](crate::Tensor::mttkrp) |
//! | `mttkrps(X, U)` | `x.mttkrps(u)` | [`x.mttkrp_all(&u)`](crate::Tensor::mttkrp_all) |
//! | `tenmat(X, 2)` | `x.to_tenmat(np.array([1]))` | [`x.matricize(..)`](crate::Tensor::matricize) or [`x.unfold(1)`](crate::Tensor::unfold): see above |
//! | `nvecs(X, 2, r)` | `x.nvecs(1, r)` | the first r vectors of [`x.gram(1)?.eigh()`](crate::Tensor::gram) |
//! | **formats** | | |
//! | `ttensor(G, A, B, C)` | `ttb.ttensor(g, [a, b, c])` | [`Tucker::new(g, vec![a, b, c])`](crate::decomp::Tucker::new) |
//! | `T.core`, `T.U{2}` | `t.core`, `t.factor_matrices[1]` | [`t.core()`](crate::decomp::Tucker::core), [`t.factors()[1]`](crate::decomp::Tucker::factors) |
//! | `ktensor(lambda, A, B, C)` | `ttb.ktensor([a, b, c], weights)` | [`Cp::new(weights, vec![a, b, c])`](crate::decomp::Cp::new) |
//! | `M.lambda`, `M.U{2}` | `m.weights`, `m.factor_matrices[1]` | [`m.weights()`](crate::decomp::Cp::weights), [`m.factors()[1]`](crate::decomp::Cp::factors) |
//! | `ncomponents(M)` | `m.ncomponents` | [`m.rank()`](crate::decomp::Cp::rank) |
//! | `full(T)` | `t.full()` | [`t.reconstruct()`](crate::decomp::Tucker::reconstruct) |
//! | `reconstruct(T, {1:3, 5}, [1 2])` | `t.reconstruct(samples, modes)` | [`t.slice(s![0..3, 4..5, ..])?.reconstruct()`](crate::decomp::Tucker::slice) |
//! | `norm(T)`, `innerprod(T, S)` | `t.norm()`, `t.innerprod(s)` | [`t.norm()`](crate::decomp::Tucker::norm), [`t.inner(&s)`](crate::decomp::Tucker::inner) for two of one format |
//! | `normalize(M)` | `m.normalize()` | [`m.normalize()`](crate::decomp::Cp::normalize) |
//! | `arrange(M)` | `m.arrange()` | [`m.normalize()?.sort()`](crate::decomp::Cp::sort) |
//! | `fixsigns(M)` | `m.fixsigns()` | [`m.fix_signs()`](crate::decomp::Cp::fix_signs) (other rule: see below) |
//! | **solvers** | | |
//! | `hosvd(X, tol)` | `ttb.hosvd(x, tol)` | [`StHosvd::tolerance(tol).fit(&x)`](crate::decomp::StHosvd) |
//! | `hosvd(X, tol, 'ranks', R)` | `ttb.hosvd(x, tol, ranks=r)` | [`StHosvd::ranks(r)`](crate::decomp::StHosvd::ranks) |
//! | `hosvd(.., 'sequential', false)` | `ttb.hosvd(.., sequential=False)` | [`Hosvd`](crate::decomp::Hosvd) |
//! | `hosvd(.., 'dimorder', p)` | `ttb.hosvd(.., dimorder=p)` | [`.order(p)`](crate::decomp::StHosvd::order) |
//! | `tucker_als(X, R)` | `ttb.tucker_als(x, r)` | [`Hooi::ranks(r).fit(&x)`](crate::decomp::Hooi) |
//! | `cp_als(X, R)` | `ttb.cp_als(x, r)` | [`CpAls::rank(r).fit(&x)`](crate::decomp::CpAls) |
//! | `cp_nmu(X, R)` | - | [`CpAls::rank(r).non_negative()`](crate::decomp::CpAls::non_negative): coordinate descent, not multiplicative updates |
//! | `cp_opt(X, R, 'lower', 0)` | `ttb.gcp_opt(..)` with a lower bound | the same |
//! | `cp_wopt(X, P, R)` | - | [`CpAls::rank(r).skip_nan()`](crate::decomp::CpAls::skip_nan) with NaN where P is 0 |
//! | `score(A, B, 'lambda_penalty', false)` | `a.score(b, weight_penalty=False)` | [`a.congruence(&b)?.score()`](crate::decomp::Cp::congruence): the best pairs, where theirs are chosen greedily |
//! | `'maxiters'`, `'tol'` | `maxiters`, `stoptol` | `.sweeps(n)`, `.until_change(t)` |
//! | - | `optdims=[1, 2]` of `cp_als` | [`.fixed_modes([0])`](crate::decomp::CpAls::fixed_modes): those that stay |
//! | `'init', 'nvecs'` | `init="nvecs"` | [`CpStart::Hosvd`](crate::decomp::CpStart), [`HooiStart::StHosvd`](crate::decomp::HooiStart) |
//! | `'init', U` | `init=ktensor` | [`CpStart::Given(factors)`](crate::decomp::CpStart), [`HooiStart::Given(factors)`](crate::decomp::HooiStart) |
//!
//! # From here to the Tensor Toolbox
//!
//! | tenfold | Tensor Toolbox |
//! |---|---|
//! | [`fold`](crate::Tensor::fold) | `tensor(tenmat(data, n, [], size))` |
//! | [`mode_products`](crate::Tensor::mode_products), in the order that costs least | `ttm` with a list, in the order of modes |
//! | [`hadamard(&[&x, &y])`](crate::algebra::hadamard) | `X .* Y` |
//! | [`Tucker::orthogonalize`](crate::decomp::Tucker::orthogonalize), [`Tucker::canonicalize`](crate::decomp::Tucker::canonicalize) | no counterpart |
//! | [`Tucker::mode_singular_values`](crate::decomp::Tucker::mode_singular_values) | eigenvalues of `tenmat(T.core, n)` times its transpose |
//! | [`fit.history`](crate::decomp::Fit#structfield.history), [`fit.stopped`](crate::decomp::Fit#structfield.stopped) | printed; pyttb returns the last fit in `output` |
//! | [`fit.fit()`](crate::decomp::Fit::fit), 1 minus the relative error | the fit that `cp_als` prints |
//! | [`CpAls::starts(n)`](crate::decomp::CpAls::starts) | a loop over starts |
//! | [`Method::Randomized`](crate::decomp::Method) | no counterpart in `hosvd` |
//!
//! # What differs where the names are alike
//!
//! - **Stopping.** `cp_als` and `tucker_als` stop when the fit changes by less than 1e-4; here both go on to 1e-8
//!   (`until_change`).
//! - **HOSVD.** `hosvd` takes modes in their own order; [`StHosvd`](crate::decomp::StHosvd) takes the cheaper order
//!   where that is clearly cheaper ([`order`](crate::decomp::StHosvd::order) fixes it), gives what a mode leaves of its
//!   share of the error to the next one, and uses up the rest on the core. The ranks for a tolerance can therefore be
//!   smaller.
//! - **Start of Tucker.** `tucker_als` starts at random by default, [`Hooi`](crate::decomp::Hooi) from ST-HOSVD.
//! - **Signs.** `fixsigns` flips pairs of columns, so that a component with an odd number of negative columns keeps
//!   one. So does [`fix_signs`](crate::decomp::Cp::fix_signs), and always leaves it to the last mode.
//! - **Single precision** works throughout: `Tensor<f32, _>`.
//!
//! Not here: sparse, symmetric and Kruskal-sum tensors (`sptensor`, `symtensor`, `sumtensor`), `cp_apr`, other
//! losses than least squares (`gcp_opt`).
//!
//! # Data between the two
//!
//! From pyttb, `np.save("x.npy", x.double())` writes the entries in Fortran order;
//! [`Tensor::load_npy`](crate::Tensor::load_npy) reads either order and gives the same tensor, entry by entry. From
//! MATLAB go through a file that Python reads as well.
