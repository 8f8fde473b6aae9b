//! CP of tensors with missing entries: least squares over those that are known, and what the others come out as.

use crate::{
    problems::{assert_falling, assert_unit_columns, in_both_precisions, matrix, noisy, normal, residual, rng},
    support::{entries, for_each_index, mttkrp},
};
use ndarray::{ArrayD, IxDyn};
use rand::RngExt;
use tenfold::{
    ErrorKind, Scalar, Tensor,
    decomp::{Cp, CpAls, CpStart, Fit},
};

const PROBLEMS: [(&[usize], usize); 7] = [
    (&[8, 6], 2),
    (&[9, 8, 7], 4),
    (&[2, 20, 3], 2),
    (&[1, 6, 1, 5], 2),
    (&[5, 4, 6, 3], 3),
    (&[4, 3, 2, 5, 3], 3),
    (&[3, 4, 2, 3, 4, 2], 2),
];

/// The tensor with a share of its entries missing, but for those whose indices are all congruent: each index of each mode keeps some.
fn with_holes<T: Scalar>(x: &Tensor<T, IxDyn>, share: f64, seed: u64) -> Tensor<T, IxDyn> {
    let rng = &mut rng(seed);
    let mut holes: ArrayD<f64> = entries(x);
    let longest = x.shape().iter().copied().max().unwrap();
    let kept = |i: &[usize]| (0..longest).any(|k| i.iter().zip(x.shape()).all(|(&i, &n)| i == k % n));
    for_each_index(x.shape(), |i| {
        if rng.random_range(0.0..1.0) < share && !kept(i) {
            holes[i] = f64::NAN;
        }
    });
    Tensor::from(holes).cast().unwrap()
}

/// X - X' where X is known, 0 elsewhere.
fn rest<T: Scalar>(x: &Tensor<T, IxDyn>, found: &Tensor<T, IxDyn>) -> ArrayD<f64> {
    (entries(x) - entries(found)).mapv(|e| if e.is_nan() { 0.0 } else { e })
}

fn norm(x: &ArrayD<f64>) -> f64 {
    x.iter().filter(|e| !e.is_nan()).map(|e| e * e).sum::<f64>().sqrt()
}

/// The error over the known entries, and what each result looks like.
#[track_caller]
fn assert_result<T: Scalar>(x: &Tensor<T, IxDyn>, fit: &Fit<Cp<T>>) {
    assert_unit_columns(fit.factors());
    let weights = fit.weights().to_vec().unwrap();
    assert!(weights.windows(2).all(|w| w[0] >= w[1]) && weights.iter().all(|w| *w >= T::zero()), "{weights:?}");
    let truth = norm(&rest(x, &fit.reconstruct().unwrap())) / norm(&entries(x));
    let eps = T::epsilon().f64();
    let size = weights[0].f64() / norm(&entries(x));
    let slack = 256.0 * eps * (1.0 + 1.0 / truth.max(1e-2)) * (1.0 + size * size);
    assert!((fit.relative_error - truth).abs() <= slack, "{:e} reported, {truth:e} true", fit.relative_error);
}

fn errors_never_rise<T: Scalar>() {
    for (seed, (shape, rank)) in (0..).zip(PROBLEMS) {
        let x = with_holes(&noisy::<T>(shape, &vec![1; shape.len()], 0.5, seed), 0.3, seed);
        let given = CpStart::Given(shape.iter().zip(seed..).map(|(&n, seed)| matrix(n, rank, seed)).collect());
        for start in [CpStart::Random, CpStart::Hosvd, given] {
            let solver = CpAls::rank(rank).skip_nan().start(start.clone()).seed(seed).exactly(12);
            let fit = solver.fit(&x).unwrap();
            assert_falling::<T>(&fit.history);
            assert_result(&x, &fit);
            if !matches!(start, CpStart::Given(_)) {
                let fit = solver.non_negative().fit(&x).unwrap();
                assert_falling::<T>(&fit.history);
                assert_result(&x, &fit);
                assert!(fit.factors().iter().all(|f| f.min().unwrap() >= 0.0));
            }
        }
    }
}

/// The missing entries of a tensor of few components are found again, much as may be missing.
fn missing_entries_are_recovered<T: Scalar>() {
    for (shape, rank, share) in
        [(&[9, 8, 7][..], 2, 0.3), (&[12, 11, 10], 3, 0.6), (&[6, 5, 7, 6], 3, 0.5), (&[20, 18], 2, 0.3)]
    {
        let factors = shape.iter().zip(5..).map(|(&n, seed)| matrix::<T>(n, rank, seed)).collect();
        let truth = Cp::<T>::new(Tensor::ones([rank]).unwrap(), factors).unwrap().reconstruct().unwrap();
        let x = with_holes(&truth, share, 7);
        let missing = entries(&x).iter().filter(|e| e.is_nan()).count();
        assert!(missing as f64 > 0.8 * share * x.len() as f64);
        let fit = CpAls::rank(rank).skip_nan().starts(4).exactly(120).fit(&x).unwrap();
        let slack = T::epsilon().f64().powf(0.7);
        assert!(fit.relative_error < slack, "{shape:?}: {fit}");
        assert!(residual(&truth, &fit.reconstruct().unwrap()) < 1e2 * slack, "{shape:?}");
    }
}

/// The factor updated last solves its least squares over the known entries: what is left meets none of the other factors.
fn every_sweep_ends_in_a_least_squares_solution<T: Scalar>() {
    for (seed, (shape, rank)) in (40..).zip(PROBLEMS) {
        let x = with_holes(&noisy::<T>(shape, &vec![1; shape.len()], 0.5, seed), 0.3, seed);
        for sweeps in [1, 2, 5] {
            let fit = CpAls::rank(rank).skip_nan().seed(seed).exactly(sweeps).fit(&x).unwrap();
            let factors: Vec<_> = fit.factors().iter().map(|f| entries(f)).collect();
            let gradient = mttkrp(&rest(&x, &fit.reconstruct().unwrap()), shape.len() - 1, &factors);
            let largest = gradient.iter().fold(0.0f64, |a, b| a.max(b.abs()));
            let slack = 1e5 * T::epsilon().f64() * norm(&entries(&x));
            assert!(largest <= slack, "{shape:?}, {sweeps} sweeps: {largest:e} is left");
        }
    }
}

in_both_precisions! {
    errors_never_rise
    missing_entries_are_recovered
    every_sweep_ends_in_a_least_squares_solution
}

/// To the bit.
#[test]
fn where_nothing_is_missing_nothing_changes() {
    let x = normal::<f64>(&[7, 6, 5], 1);
    for solver in [CpAls::rank(3).exactly(8), CpAls::rank(3).exactly(8).non_negative()] {
        let (plain, skipping) = (solver.fit(&x).unwrap(), solver.clone().skip_nan().fit(&x).unwrap());
        assert_eq!((&plain.history, &plain.decomposition), (&skipping.history, &skipping.decomposition));
    }
}

/// Scaled by any power of two, in range or out of the range of squares: the same factors.
#[test]
fn scale_does_not_matter() {
    let x = with_holes(&noisy::<f64>(&[7, 6, 5], &[2, 2, 2], 0.1, 3), 0.3, 4);
    let fit = |x: &Tensor<f64, IxDyn>| CpAls::rank(2).skip_nan().exactly(5).fit(x).unwrap();
    let plain = fit(&x);
    for scale in [2f64.powi(600), 2f64.powi(-600)] {
        let scaled = fit(&x.scale(scale).unwrap());
        assert!((scaled.relative_error - plain.relative_error).abs() < 1e-12);
        assert!(residual(&plain.factors()[0], &scaled.factors()[0]) < 1e-9);
    }
}

#[test]
fn what_is_missing_altogether_is_an_error() {
    let x = normal::<f64>(&[7, 6, 5], 1);
    let without = |gone: &dyn Fn(&[usize]) -> bool| {
        let mut holes = entries(&x);
        for_each_index(&[7, 6, 5], |i| {
            if gone(i) {
                holes[i] = f64::NAN;
            }
        });
        CpAls::rank(2).skip_nan().fit(&Tensor::from(holes)).map(drop).unwrap_err()
    };
    for (error, text) in [
        (without(&|i| i[1] == 4), "at index 4 of mode 1: nothing is known of it, leave it out"),
        (
            without(&|i| i[2] == 1 || i[2] == 3),
            "at index 1 of mode 2 and at 1 more: nothing is known of it, leave it out",
        ),
        (without(&|_| true), "at index 0 of mode 0 and at 6 more: nothing is known of it, leave it out"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Value);
        assert_eq!(error.to_string(), format!("CpAls::fit: every entry is missing {text}"));
    }
    // Infinite is not missing, and NaN is where nobody said that it might be.
    let infinite =
        Tensor::from_fn([7, 6, 5], |i| if i == [2, 3, 4] { f64::INFINITY } else { f64::from(i[0] as u8) }).unwrap();
    let error = CpAls::rank(2).skip_nan().fit(&infinite).unwrap_err();
    assert_eq!(error.to_string(), "CpAls::fit: entry [2, 3, 4] is inf; every entry has to be finite");
    let holes = Tensor::from_fn([7, 6, 5], |i| if i == [2, 3, 4] { f64::NAN } else { f64::from(i[0] as u8) }).unwrap();
    assert_eq!(CpAls::rank(2).fit(&holes).unwrap_err().kind(), ErrorKind::Value);
}
