//! The decompositions of TensorLy (`tests/fixtures`) against ours: the same tensors, ranks and starts.

mod support;

use ndarray::{ArrayD, Dimension, Ix2, IxDyn};
use support::{
    assert_within,
    fixture::{Fixture, TENSORS},
};
use tenfold::{
    Tensor,
    decomp::{Cp, CpAls, CpStart, Fit, Hooi, HooiStart, Hosvd, Method, NonNegativeStart, NonNegativeTucker, Tucker},
};

/// Entries differ by at most `bound` of the norm.
#[track_caller]
fn assert_near<D: Dimension>(ours: &Tensor<f64, D>, theirs: &ArrayD<f64>, bound: f64) {
    let norm = theirs.iter().map(|v| v * v).sum::<f64>().sqrt();
    assert_within(ours, theirs, bound * norm);
}

#[track_caller]
fn assert_number(ours: f64, theirs: f64, bound: f64) {
    assert!((ours - theirs).abs() <= bound, "{ours}, TensorLy has {theirs}");
}

/// What TensorLy's Tucker decomposition of one tensor came to.
struct Theirs {
    reconstruction: ArrayD<f64>,
    core_norm: f64,
    relative_error: f64,
    projections: Vec<ArrayD<f64>>,
}

impl Theirs {
    fn take(f: &mut Fixture, name: &str, order: usize) -> Self {
        Self {
            reconstruction: f.take(&format!("{name}.reconstruction")),
            core_norm: f.take(&format!("{name}.core_norm"))[[0]],
            relative_error: f.take(&format!("{name}.relative_error"))[[0]],
            projections: (0..order).map(|mode| f.take(&format!("{name}.projection.{mode}"))).collect(),
        }
    }

    /// Subspaces and reconstruction are theirs within `turned`, norm and error within `bound`.
    #[track_caller]
    fn check(&self, fit: &Fit<Tucker<f64>>, norm: f64, turned: f64, bound: f64) {
        for (u, theirs) in fit.factors().iter().zip(&self.projections) {
            assert_near(&u.matmul(&u.t()).unwrap(), theirs, turned);
        }
        assert_near(&fit.reconstruct().unwrap(), &self.reconstruction, turned);
        assert_number(fit.relative_error, self.relative_error, bound);
        assert_number(fit.core().norm().unwrap(), self.core_norm, norm * bound);
    }
}

#[test]
fn tucker() {
    let mut f = Fixture::read("tucker");
    for t in TENSORS {
        let core = f.tensor(&format!("{t}.given_core"));
        let n = core.order();
        let given = Tucker::new(core, f.matrices(&format!("{t}.given_factor"), n)).unwrap();
        f.check(&format!("{t}.tucker_to_tensor"), &given.reconstruct().unwrap());

        let x = f.tensor(&format!("{t}.x"));
        let norm = x.norm().unwrap();
        let ranks: Vec<usize> = f.take(&format!("{t}.ranks")).iter().map(|&r| r as usize).collect();
        let full = Hosvd::ranks(x.shape()).method(Method::Svd).fit(&x).unwrap();
        for mode in 0..n {
            let theirs = f.take(&format!("{t}.singular_values.{mode}"));
            for (k, ours) in full.mode_singular_values(mode).unwrap().into_iter().enumerate() {
                // Beyond the smaller side of the unfolding there are zeros.
                assert_number(ours, theirs.get([k]).copied().unwrap_or(0.0), 1e-7 * theirs[[0]]);
            }
        }
        let hosvd = Theirs::take(&mut f, &format!("{t}.hosvd"), n);
        // `Auto` takes a Gram matrix of singles here, which turns the factors by about 1e-7.
        for (method, turned, bound) in
            [(Method::Gram, 1e-11, 1e-12), (Method::Svd, 1e-11, 1e-12), (Method::Auto, 1e-5, 1e-7)]
        {
            hosvd.check(&Hosvd::ranks(ranks.clone()).method(method).fit(&x).unwrap(), norm, turned, bound);
        }
        // Their sweeps solve each mode by an SVD, ours refine a subspace: close after as many sweeps, one point in the end.
        let hooi = Theirs::take(&mut f, &format!("{t}.hooi5"), n);
        let start = Hosvd::ranks(ranks.clone()).method(Method::Svd).fit(&x).unwrap();
        let solver = Hooi::ranks(ranks).start(HooiStart::Given(start.factors().to_vec()));
        let fit = solver.clone().exactly(5).fit(&x).unwrap();
        assert_number(fit.relative_error, hooi.relative_error, 1e-5);
        hooi.check(&solver.exactly(50).fit(&x).unwrap(), norm, 1e-5, 1e-11);
    }
    f.all_taken();
}

/// Where alternating least squares ends, and where HALS and imputation do from the same start.
#[test]
fn cp_of_amounts_and_of_holes() {
    let mut f = Fixture::read("cp_constrained");
    for t in ["o3", "o4"] {
        let x = f.tensor(&format!("{t}.x"));
        let start = f.matrices(&format!("{t}.start"), x.order());
        let solver = CpAls::rank(start[0].shape()[1]).start(CpStart::Given(start));
        // NaN where the mask is zero.
        let mask = f.tensor(&format!("{t}.mask"));
        let holes = x.mul(&mask).unwrap().div(&mask).unwrap();
        assert!(holes.to_vec().unwrap().iter().any(|h| h.is_nan()));
        for (name, fit) in [
            ("non_negative", solver.clone().non_negative().exactly(2000).fit(&x).unwrap()),
            ("holes", solver.skip_nan().exactly(5000).fit(&holes).unwrap()),
        ] {
            println!("{t}, {name}: {fit}");
            assert_number(fit.relative_error, f.take(&format!("{t}.{name}.relative_error"))[[0]], 1e-8);
            assert_near(&fit.reconstruct().unwrap(), &f.take(&format!("{t}.{name}.reconstruction")), 1e-5);
        }
    }
    f.all_taken();
}

#[test]
fn cp() {
    let mut f = Fixture::read("cp");
    for t in TENSORS {
        let weights = f.vector(&format!("{t}.given_weights"));
        let x = f.tensor(&format!("{t}.x"));
        let (n, rank) = (x.order(), weights.shape()[0]);
        let factors = f.matrices(&format!("{t}.given_factor"), n);
        let ones = || Tensor::ones([rank]).unwrap();
        for (name, weights) in [("", ones()), ("_weighted", weights)] {
            let given = Cp::<f64>::new(weights, factors.clone()).unwrap();
            f.check(&format!("{t}.cp_to_tensor{name}"), &given.reconstruct().unwrap());
            f.check_number(&format!("{t}.cp_norm{name}"), given.norm().unwrap());
        }
        let start = CpStart::Given(f.matrices(&format!("{t}.start"), n));
        for sweeps in [1, 2, 5] {
            let name = format!("{t}.als{sweeps}");
            let fit = CpAls::rank(rank).start(start.clone()).exactly(sweeps).fit(&x).unwrap();
            assert_near(&fit.reconstruct().unwrap(), &f.take(&format!("{name}.reconstruction")), 1e-10);
            let error = f.take(&format!("{name}.relative_error"))[[0]];
            assert_number(fit.relative_error, error, 1e-10);
            assert_number(*fit.history.last().unwrap(), error, 1e-10);
            // Theirs are not normalised: the canonical forms are the same.
            let theirs: Vec<Tensor<f64, Ix2>> = f.matrices(&format!("{name}.factor"), n);
            assert_eq!(f.vector(&format!("{name}.weights")), ones());
            let theirs = Cp::<f64, IxDyn>::new(ones(), theirs).unwrap().canonicalize().unwrap();
            let close = |a: &[f64], b: &[f64]| {
                let largest = a.iter().fold(0.0f64, |a, b| a.max(b.abs()));
                a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-8 * largest)
            };
            let numbers = |x: &Tensor<f64, Ix2>| x.to_vec().unwrap();
            assert!(close(&theirs.weights().to_vec().unwrap(), &fit.weights().to_vec().unwrap()), "{name}");
            for (mode, (theirs, ours)) in theirs.factors().iter().zip(fit.factors()).enumerate() {
                assert!(
                    close(&numbers(theirs), &numbers(ours)),
                    "{name}, factor {mode}: {ours}, TensorLy has {theirs}"
                );
            }
        }
    }
    f.all_taken();
}

/// Both take coordinate descent for the factors and FISTA for the core, in other numbers of steps: from one start, beside
/// a solution, the errors in the end agree as far as theirs has converged, which for `o4` is less far.
#[test]
fn non_negative_tucker() {
    let mut f = Fixture::read("non_negative_tucker");
    for t in TENSORS {
        let x = f.tensor(&format!("{t}.x"));
        let ranks: Vec<usize> = f.take(&format!("{t}.ranks")).iter().map(|&r| r as usize).collect();
        let core = f.tensor(&format!("{t}.start_core"));
        let start = Tucker::new(core, f.matrices(&format!("{t}.start_factor"), x.order())).unwrap();
        let solver = NonNegativeTucker::ranks(ranks).start(NonNegativeStart::Given(start));
        let theirs = f.take(&format!("{t}.relative_error"))[[0]];
        let fit = solver.exactly(1000).fit(&x).unwrap();
        assert_number(fit.relative_error, theirs, if t == "o4" { 3e-5 } else { 2e-7 });
        assert!(fit.relative_error < theirs + 1e-7, "{t}: {}, TensorLy has {theirs}", fit.relative_error);
    }
    f.all_taken();
}
