//! CP with factors that must not be negative: never negative, least squares all the same, and no component is lost for good.

use crate::{
    cp_als::PROBLEMS,
    problems::{
        assert_falling, assert_reported, assert_unit_columns, in_both_precisions, matrix, noisy, normal, residual, rng,
    },
    support::{entries, mttkrp},
};
use ndarray::{ArrayD, Ix2, IxDyn};
use tenfold::{
    ErrorKind, Scalar, Tensor,
    decomp::{Cp, CpAls, CpStart, Fit},
};

/// Factors uniform on [0, 1), of which the smaller half is zero.
fn uniform<T: Scalar>(shape: &[usize], rank: usize, seed: u64) -> Vec<Tensor<T, Ix2>> {
    let rng = &mut rng(seed);
    let half = |f: Tensor<T, Ix2>| f.map(|x| if x.f64() < 0.5 { T::zero() } else { x }).unwrap();
    shape.iter().map(|&n| half(Tensor::uniform([n, rank], rng).unwrap())).collect()
}

fn ones<T: Scalar>(rank: usize) -> Tensor<T, ndarray::Ix1> {
    Tensor::ones([rank]).unwrap()
}

/// Columns of norm 1, falling weights, nothing below zero in these modes, a true error.
#[track_caller]
fn assert_result<T: Scalar>(x: &Tensor<T, IxDyn>, fit: &Fit<Cp<T>>, modes: &[usize]) {
    assert_unit_columns(fit.factors());
    let weights = fit.weights().to_vec().unwrap();
    assert!(weights.windows(2).all(|w| w[0] >= w[1]), "{weights:?}");
    assert!(weights.iter().all(|w| *w >= T::zero()), "{weights:?}");
    for &mode in modes {
        assert!(fit.factors()[mode].min().unwrap() >= 0.0, "mode {mode} of {modes:?}");
    }
    assert_reported(x, &fit.reconstruct().unwrap(), fit.relative_error);
}

fn errors_never_rise_and_nothing_is_negative<T: Scalar>() {
    for (seed, (shape, rank)) in (0..).zip(PROBLEMS) {
        let all: Vec<usize> = (0..shape.len()).collect();
        for x in [normal::<T>(shape, seed), normal::<T>(shape, seed).abs().unwrap()] {
            for start in [CpStart::Random, CpStart::Hosvd, CpStart::Given(uniform(shape, rank, 4))] {
                let fit = CpAls::rank(rank).non_negative().start(start).seed(seed).exactly(12).fit(&x).unwrap();
                assert_falling::<T>(&fit.history);
                assert_result(&x, &fit, &all);
            }
        }
    }
}

/// Only some of the modes: the others take the signs.
fn some_modes<T: Scalar>() {
    for (seed, (shape, rank)) in (20..).zip(PROBLEMS) {
        let x = noisy::<T>(shape, &vec![1; shape.len()], 0.5, seed);
        for mode in 0..shape.len() {
            let others: Vec<usize> = (0..shape.len()).filter(|&m| m != mode).collect();
            for modes in [vec![mode], others] {
                let fit = CpAls::rank(rank).non_negative_modes(modes.clone()).seed(seed).exactly(6).fit(&x).unwrap();
                assert_falling::<T>(&fit.history);
                assert_result(&x, &fit, &modes);
            }
        }
        let none = CpAls::rank(rank).non_negative_modes([]).exactly(5).fit(&x).unwrap();
        let free = CpAls::rank(rank).exactly(5).fit(&x).unwrap();
        assert_eq!((none.history.clone(), none.decomposition), (free.history.clone(), free.decomposition));
    }
}

/// Components are unique, so those found are those put in, zeros among them.
fn components_are_recovered<T: Scalar>() {
    for (shape, rank) in [(&[9, 8, 7][..], 2), (&[9, 8, 7], 3), (&[8, 7, 9, 6], 3)] {
        let truth = Cp::<T>::new(ones(rank), uniform(shape, rank, 13)).unwrap().canonicalize().unwrap();
        let x = truth.reconstruct().unwrap();
        let fit = CpAls::rank(rank).non_negative().starts(12).exactly(300).fit(&x).unwrap();
        let slack = T::epsilon().f64().powf(0.75);
        assert!(fit.relative_error < slack, "{shape:?}: {fit}");
        for (want, got) in truth.factors().iter().zip(fit.factors()) {
            assert!(residual(want, got) < 1e2 * slack, "{shape:?}");
        }
        // Zero is zero, not nearly so.
        let zeros =
            |f: &[Tensor<T, Ix2>]| f.iter().flat_map(|f| f.to_vec().unwrap()).filter(|x| *x == T::zero()).count();
        assert!(2 * zeros(fit.factors()) > zeros(truth.factors()), "{shape:?}");
    }
}

/// The least squares over a row's choices of what is zero, all of them tried.
fn by_enumeration(gram: &ArrayD<f64>, m: &[f64]) -> f64 {
    let rank = m.len();
    let mut best = 0.0f64;
    for support in 1..1usize << rank {
        let kept: Vec<usize> = (0..rank).filter(|r| support >> r & 1 == 1).collect();
        let h = Tensor::<f64, Ix2>::from_fn([kept.len(), kept.len()], |i| gram[[kept[i[0]], kept[i[1]]]]).unwrap();
        let rhs = Tensor::<f64, Ix2>::from_fn([kept.len(), 1], |i| m[kept[i[0]]]).unwrap();
        let Ok(l) = h.cholesky() else { continue };
        let a = l.cholesky_solve(&rhs).unwrap().to_vec().unwrap();
        if a.iter().all(|a| *a >= 0.0) {
            // a H a / 2 - a m at the solution.
            best = best.min(-0.5 * a.iter().zip(&kept).map(|(a, &r)| a * m[r]).sum::<f64>());
        }
    }
    best
}

/// The factor updated last is the least-squares one among those that are not negative.
fn every_sweep_ends_in_a_least_squares_solution<T: Scalar>() {
    for (seed, (shape, rank)) in (40..).zip(PROBLEMS) {
        let x = normal::<T>(shape, seed);
        for sweeps in [1, 2, 5] {
            let start = CpStart::Given(uniform(shape, rank, seed));
            let fit = CpAls::rank(rank).non_negative().start(start).exactly(sweeps).fit(&x).unwrap();
            let factors: Vec<_> = fit.factors().iter().map(|f| entries(f)).collect();
            let last = shape.len() - 1;
            let m = mttkrp(&entries(&x), last, &factors);
            let gram = ArrayD::from_shape_fn(IxDyn(&[rank, rank]), |i| {
                let dot = |f: &ArrayD<f64>| (0..f.shape()[0]).map(|k| f[[k, i[0]]] * f[[k, i[1]]]).sum::<f64>();
                factors[..last].iter().map(dot).product::<f64>()
            });
            let rows = (0..shape[last]).map(|i| (0..rank).map(|r| m[[i, r]]).collect::<Vec<f64>>());
            let best: f64 = rows.map(|m| by_enumeration(&gram, &m)).sum();
            let squares = x.norm().unwrap().powi(2);
            let (best, found) = (1.0 + 2.0 * best / squares, fit.relative_error.powi(2));
            // A round of descent that gains a millionth is the last.
            let slack = 1e-4 + 64.0 * T::epsilon().f64();
            assert!(found < best + slack && found > best - 64.0 * T::epsilon().f64(), "{shape:?}: {found}, {best}");
        }
    }
}

/// Where nothing helps, nothing is there; and where fewer components do, the others are harmless.
fn components_that_are_not_needed<T: Scalar>() {
    for shape in [&[6, 5, 4][..], &[5, 4], &[3, 4, 3, 2]] {
        let factors = shape.iter().map(|&n| matrix::<T>(n, 1, 3).abs().unwrap()).collect();
        let x = Cp::<T>::new(ones(1), factors).unwrap().reconstruct().unwrap();
        let negative = x.scale(-T::one()).unwrap();
        let fit = CpAls::rank(3).non_negative().exactly(10).fit(&negative).unwrap();
        assert_eq!((fit.relative_error, fit.weights().max_abs().unwrap()), (1.0, 0.0), "{shape:?}");
        assert_result(&negative, &fit, &[0, 1]);
        for start in [CpStart::Random, CpStart::Hosvd] {
            let fit = CpAls::rank(4).non_negative().start(start).sweeps(60).fit(&x).unwrap();
            assert!(fit.relative_error < 1e2 * T::epsilon().f64().sqrt(), "{shape:?}: {fit}");
            assert_result(&x, &fit, &[0, 1]);
        }
    }
}

/// A start in which a component is zero, or dies at once, is not the end of it.
fn a_dead_component_comes_back<T: Scalar>() {
    let x = Cp::<T>::new(ones(2), uniform(&[8, 7, 6], 2, 5)).unwrap().reconstruct().unwrap();
    let mut start = uniform::<T>(&[8, 7, 6], 2, 9);
    start[0] = Tensor::zeros([8, 2]).unwrap();
    for factor in &mut start[1..] {
        let first = factor.narrow(1, 0..1).unwrap();
        let zero = first.scale(T::zero()).unwrap();
        *factor = Tensor::concat(&[&first, &zero], 1).unwrap();
    }
    let fit = CpAls::rank(2).non_negative().start(CpStart::Given(start)).exactly(300).fit(&x).unwrap();
    assert_result(&x, &fit, &[0, 1, 2]);
    assert!(fit.relative_error < T::epsilon().f64().powf(0.75), "{fit}");
}

in_both_precisions! {
    errors_never_rise_and_nothing_is_negative
    some_modes
    components_are_recovered
    every_sweep_ends_in_a_least_squares_solution
    components_that_are_not_needed
    a_dead_component_comes_back
}

#[test]
fn it_repeats_and_the_best_start_is_kept() {
    let x = normal::<f64>(&[6, 5, 4], 1).abs().unwrap();
    let one = |seed| CpAls::rank(3).non_negative().seed(seed).exactly(15).fit(&x).unwrap();
    let alone: Vec<_> = (10..16).map(one).collect();
    let several = CpAls::rank(3).non_negative().seed(10).starts(6).exactly(15).fit(&x).unwrap();
    let best = alone.iter().min_by(|a, b| a.relative_error.total_cmp(&b.relative_error)).unwrap();
    assert_eq!((&several.history, &several.decomposition), (&best.history, &best.decomposition));
    // Less than without the rule, but no more.
    let free = CpAls::rank(3).seed(10).starts(6).sweeps(300).fit(&x).unwrap();
    assert!(free.relative_error < several.relative_error);
}

#[test]
fn what_cannot_be_is_an_error() {
    let x = normal::<f64>(&[7, 6, 5], 1);
    let error = CpAls::rank(2).non_negative_modes([1, 3]).fit(&x).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Shape);
    assert_eq!(error.to_string(), "CpAls::non_negative_modes: mode 3 does not exist in a tensor of shape [7, 6, 5]");
    let start = CpStart::Given(vec![matrix(7, 2, 1), matrix(6, 2, 1), matrix(5, 2, 1)]);
    let error = CpAls::rank(2).non_negative_modes([1]).start(start.clone()).fit(&x).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value);
    assert_eq!(error.to_string(), "CpAls::start: the given factor of mode 1 has negative entries, and must not");
    assert!(CpAls::rank(2).start(start).fit(&x).is_ok());
}
