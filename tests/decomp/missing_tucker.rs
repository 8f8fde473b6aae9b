//! Tucker of tensors of which entries are missing: the fit is to what is known, and says what is not.

use crate::{
    non_negative_tucker::{assert_result, planted},
    problems::{
        PROBLEMS, assert_falling, assert_orthonormal, in_both_precisions, low_rank, noisy, normal, orthonormal, rng,
    },
};
use ndarray::{Dimension, IxDyn};
use rand::RngExt;
use std::ops::ControlFlow;
use tenfold::{
    ErrorKind, Result, Scalar, Tensor,
    decomp::{Fit, Hooi, HooiStart, NonNegativeStart, NonNegativeTucker, Progress, Stop, Tucker},
};

/// The tensor with NaN at that share of its entries, and no index of a mode without any.
fn with_holes<T: Scalar>(x: &Tensor<T>, share: f64, seed: u64) -> Tensor<T> {
    let mut rng = rng(seed);
    let corner = |i: &[usize]| {
        x.shape().iter().enumerate().any(|(m, &n)| i.iter().enumerate().all(|(k, &i)| k == m || i == n % x.shape()[k]))
    };
    Tensor::from_fn(IxDyn(x.shape()), |i| {
        let missing = rng.random::<f64>() < share && !corner(i);
        if missing { T::nan() } else { x.get(i).unwrap() }
    })
    .unwrap()
}

/// ||X - X'|| / ||X|| over the entries that are known of `seen`, and over those that are not, both of `x`.
fn errors<T: Scalar, D: Dimension>(x: &Tensor<T, D>, seen: &Tensor<T, D>, fitted: &Tensor<T, D>) -> [f64; 2] {
    let [x, seen, fitted] = [x, seen, fitted].map(|x| x.to_vec().unwrap());
    [false, true].map(|missing| {
        let picked = || x.iter().zip(&seen).zip(&fitted).filter(|((_, s), _)| s.is_nan() == missing);
        let squares: f64 = picked().map(|((x, _), y)| (x.f64() - y.f64()).powi(2)).sum();
        (squares / picked().map(|((x, _), _)| x.f64().powi(2)).sum::<f64>()).sqrt()
    })
}

#[track_caller]
fn assert_known<T: Scalar>(x: &Tensor<T>, seen: &Tensor<T>, fit: &Fit<Tucker<T>>) {
    let [known, _] = errors(x, seen, &fit.reconstruct().unwrap());
    assert!((known - fit.relative_error).abs() < 64.0 * T::epsilon().f64(), "{} said, {known}", fit.relative_error);
    if let Some(last) = fit.history.last() {
        assert_eq!(*last, fit.relative_error);
    }
}

fn errors_never_rise<T: Scalar>() {
    for (seed, (shape, ranks)) in (0..).zip(PROBLEMS).skip(1) {
        for x in [normal::<T>(shape, seed), noisy(shape, ranks, 0.2, seed + 50)] {
            let seen = with_holes(&x, 0.3, seed);
            let given = HooiStart::Given(orthonormal(shape, ranks, 9).iter().map(|f| f.cast().unwrap()).collect());
            for start in [HooiStart::StHosvd, HooiStart::Random { seed }, given] {
                let solver = Hooi::ranks(ranks).start(start).skip_nan();
                let before = solver.clone().sweeps(0).fit(&seen).unwrap();
                assert_known(&x, &seen, &before);
                let fit = solver.exactly(10).fit(&seen).unwrap();
                assert_falling::<T>(&[&[before.relative_error], &fit.history[..]].concat());
                assert_known(&x, &seen, &fit);
                assert_orthonormal(fit.factors());
                assert_eq!((fit.sweeps(), fit.stopped), (10, Stop::Sweeps));
            }
            let (core, factors) = planted(shape, ranks, 99).into_parts();
            let factors = factors.iter().map(|f| f.cast().unwrap()).collect();
            let given = NonNegativeStart::Given(Tucker::new(core.cast().unwrap(), factors).unwrap());
            for start in [NonNegativeStart::Random, NonNegativeStart::Hosvd, given] {
                let solver = NonNegativeTucker::ranks(ranks).start(start).skip_nan();
                let fit = solver.clone().exactly(10).fit(&seen).unwrap();
                assert_falling::<T>(&fit.history);
                assert_known(&x, &seen, &fit);
                assert_result(&fit, shape, ranks);
                let before = solver.sweeps(0).fit(&seen).unwrap();
                assert_known(&x, &seen, &before);
            }
        }
    }
}

/// Three quarters of a tensor of low rank say what the others are.
fn missing_entries_are_recovered<T: Scalar>() {
    let slack = 1e2 * T::epsilon().f64().sqrt();
    let problems: [(&[usize], &[usize]); 3] =
        [(&[20, 18], &[2, 2]), (&[12, 11, 10], &[2, 2, 2]), (&[7, 6, 8, 5], &[2, 2, 2, 2])];
    for (seed, (shape, ranks)) in (3..).zip(problems) {
        let x = low_rank::<T>(shape, ranks, seed);
        let seen = with_holes(&x, 0.25, seed);
        let fit = Hooi::ranks(ranks).skip_nan().sweeps(3000).until_change(0.0).fit(&seen).unwrap();
        let [known, missing] = errors(&x, &seen, &fit.reconstruct().unwrap());
        assert!(known < slack && missing < 10.0 * slack, "{shape:?}: {known:e} {missing:e} after {}", fit.sweeps());
        assert_known(&x, &seen, &fit);
    }
}

fn missing_entries_of_a_non_negative_tensor_are_recovered<T: Scalar>() {
    let x = planted(&[12, 11, 10], &[2, 2, 2], 5).reconstruct().unwrap().cast::<T>().unwrap();
    let seen = with_holes(&x, 0.25, 5);
    let fit = |seed| NonNegativeTucker::ranks([2, 2, 2]).seed(seed).skip_nan().exactly(1500).fit(&seen).unwrap();
    let best = (0..4).map(fit).min_by(|a, b| a.relative_error.total_cmp(&b.relative_error)).unwrap();
    let [known, missing] = errors(&x, &seen, &best.reconstruct().unwrap());
    assert!(known < 1e-3 && missing < 5e-3, "{known:e} {missing:e}");
    assert_known(&x, &seen, &best);
}

/// Without NaN nothing is different, to the bit.
fn nothing_missing_is_the_ordinary_result<T: Scalar>() {
    let x = noisy::<T>(&[9, 8, 7], &[3, 2, 4], 0.2, 3);
    let solver = Hooi::ranks([3, 2, 4]).exactly(4);
    let (a, b) = (solver.fit(&x).unwrap(), solver.clone().skip_nan().fit(&x).unwrap());
    assert_eq!((a.decomposition, a.history, a.relative_error), (b.decomposition, b.history, b.relative_error));
    let solver = NonNegativeTucker::ranks([3, 2, 4]).exactly(4);
    let (a, b) = (solver.fit(&x).unwrap(), solver.clone().skip_nan().fit(&x).unwrap());
    assert_eq!((a.decomposition, a.history, a.relative_error), (b.decomposition, b.history, b.relative_error));
}

/// Numbers whose squares leave the range.
fn extreme_scales<T: Scalar>() {
    let x = planted(&[8, 7, 6], &[2, 2, 2], 5).reconstruct().unwrap().cast::<T>().unwrap();
    let seen = with_holes(&x, 0.25, 5);
    let exponents = if T::epsilon().f64() < 1e-10 { [330, -330] } else { [50, -45] };
    for exponent in exponents {
        let by = T::of(2f64.powi(exponent));
        let scaled = seen.scale(by).unwrap().scale(by).unwrap();
        let hooi = |x: &Tensor<T>| Hooi::ranks([2, 2, 2]).skip_nan().exactly(5).fit(x).unwrap().relative_error;
        let non_negative =
            |x: &Tensor<T>| NonNegativeTucker::ranks([2, 2, 2]).skip_nan().exactly(5).fit(x).unwrap().relative_error;
        assert!((hooi(&seen) - hooi(&scaled)).abs() < 1e-4, "{exponent}");
        assert!((non_negative(&seen) - non_negative(&scaled)).abs() < 1e-4, "{exponent}");
    }
}

in_both_precisions! {
    errors_never_rise
    missing_entries_are_recovered
    missing_entries_of_a_non_negative_tensor_are_recovered
    nothing_missing_is_the_ordinary_result
    extreme_scales
}

/// A start that is given is what fills the holes: a decomposition that is right stays right.
#[test]
fn a_given_start_fills_what_is_missing() {
    let truth = planted(&[9, 8, 7], &[2, 2, 2], 5);
    let x = truth.reconstruct().unwrap();
    let seen = with_holes(&x, 0.5, 1);
    let solver = NonNegativeTucker::ranks([2, 2, 2]).start(NonNegativeStart::Given(truth)).skip_nan();
    let fit = solver.exactly(3).fit(&seen).unwrap();
    let [known, missing] = errors(&x, &seen, &fit.reconstruct().unwrap());
    assert!(known < 1e-13 && missing < 1e-13, "{known:e} {missing:e}");
}

/// Zero that is known in part is zero.
#[test]
fn zeros_with_holes() {
    let seen = with_holes(&Tensor::<f64>::zeros(IxDyn(&[5, 4, 3])).unwrap(), 0.3, 2);
    let fit = Hooi::ranks([2, 2, 2]).skip_nan().fit(&seen).unwrap();
    assert_eq!((fit.relative_error, fit.reconstruct().unwrap().max_abs().unwrap()), (0.0, 0.0));
    let fit = NonNegativeTucker::ranks([2, 2, 2]).skip_nan().fit(&seen).unwrap();
    assert_eq!((fit.relative_error, fit.reconstruct().unwrap().max_abs().unwrap()), (0.0, 0.0));
}

#[test]
fn interrupted_runs_keep_the_last_sweep() {
    let seen = with_holes(&noisy::<f64>(&[8, 7, 6], &[2, 2, 2], 0.2, 1), 0.2, 1);
    let at = |p: &Progress| if p.done == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let hooi = Hooi::ranks([2, 2, 2]).skip_nan();
    let non_negative = NonNegativeTucker::ranks([2, 2, 2]).skip_nan();
    for (fit, want) in [
        (hooi.clone().exactly(9).fit_with(&seen, at).unwrap(), hooi.exactly(3).fit(&seen).unwrap()),
        (non_negative.clone().exactly(9).fit_with(&seen, at).unwrap(), non_negative.exactly(3).fit(&seen).unwrap()),
    ] {
        assert_eq!((fit.stopped, want.stopped), (Stop::Interrupted, Stop::Sweeps));
        assert_eq!((&fit.history, fit.relative_error), (&want.history, want.relative_error));
        assert_eq!(fit.decomposition, want.decomposition);
    }
    let fit = Hooi::ranks([2, 2, 2]).skip_nan().until_change(1e-4).sweeps(500).fit(&seen).unwrap();
    assert_eq!(fit.stopped, Stop::Converged);
}

#[track_caller]
fn assert_both(x: &Tensor<f64>, ranks: &[usize], message: &str) {
    let results: [Result<_>; 2] =
        [Hooi::ranks(ranks).skip_nan().fit(x), NonNegativeTucker::ranks(ranks).skip_nan().fit(x)];
    for (result, name) in results.into_iter().zip(["Hooi::fit", "NonNegativeTucker::fit"]) {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Value, format!("{name}: {message}")));
    }
}

#[test]
fn what_nothing_is_known_of_is_an_error() {
    let x = normal::<f64>(&[5, 4, 3], 1);
    let without = |missing: &dyn Fn(&[usize]) -> bool| {
        Tensor::from_fn(IxDyn(&[5, 4, 3]), |i| if missing(i) { f64::NAN } else { x.get(i).unwrap() }).unwrap()
    };
    let text = |at: &str| format!("every entry is missing at index {at}: nothing is known of it, leave it out");
    assert_both(&without(&|i| i[1] == 2), &[2, 2, 2], &text("2 of mode 1"));
    assert_both(&without(&|i| i[0] % 2 == 1), &[2, 2, 2], &text("1 of mode 0 and at 1 more"));
    assert_both(&without(&|_| true), &[2, 2, 2], &text("0 of mode 0 and at 4 more"));
    // What is infinite is not missing.
    let bad = without(&|i| i == [0, 0, 0]).map(|v| if v == x.get(&[4, 3, 2]).unwrap() { f64::INFINITY } else { v });
    assert_both(&bad.unwrap(), &[2, 2, 2], "entry [4, 3, 2] is inf; every entry has to be finite");
    // NaN is an error unless it was said what it means.
    let error = NonNegativeTucker::ranks([2, 2, 2]).fit(&without(&|i| i == [0, 1, 0])).unwrap_err();
    assert_eq!(error.message(), "entry [0, 1, 0] is NaN; every entry has to be finite");
}
