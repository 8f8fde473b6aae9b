//! CP-ALS with factors that stay: the others solve what is left, and what stays comes back as it was given.

use crate::{
    problems::{assert_falling, in_both_precisions, matrix, normal, residual},
    support::{entries, mttkrp},
};
use ndarray::IxDyn;
use tenfold::{
    ErrorKind, Scalar, Tensor,
    decomp::{Cp, CpAls, CpStart, Fit},
};

const PROBLEMS: [(&[usize], usize); 5] =
    [(&[8, 6], 3), (&[9, 8, 7], 4), (&[1, 6, 2, 5], 2), (&[5, 4, 6, 3], 3), (&[4, 3, 2, 5, 3], 2)];

fn start<T: Scalar>(shape: &[usize], rank: usize, seed: u64) -> Vec<Tensor<T, ndarray::Ix2>> {
    shape.iter().zip(seed..).map(|(&n, seed)| matrix::<T>(n, rank, seed).scale(T::of(3.0)).unwrap()).collect()
}

/// Factors that stay are those given, to the bit; the columns of the others have norm 1.
#[track_caller]
fn assert_kept<T: Scalar>(fit: &Fit<Cp<T>>, given: &[Tensor<T, ndarray::Ix2>], fixed: &[usize]) {
    for (mode, factor) in fit.factors().iter().enumerate() {
        if fixed.contains(&mode) {
            assert_eq!(factor.to_vec().unwrap(), given[mode].to_vec().unwrap());
        } else {
            crate::problems::assert_unit_columns(std::slice::from_ref(factor));
        }
    }
}

/// With one mode left, the residual is orthogonal to everything that its factor could add: one sweep is the solution, another changes nothing.
fn one_mode_is_solved_at_once<T: Scalar>() {
    for (seed, (shape, rank)) in (0..).step_by(20).zip(PROBLEMS) {
        let (x, given) = (normal::<T>(shape, seed), start::<T>(shape, rank, seed + 1));
        for free in 0..shape.len() {
            let fixed: Vec<usize> = (0..shape.len()).filter(|&m| m != free).collect();
            let solver = CpAls::rank(rank).start(CpStart::Given(given.clone())).fixed_modes(fixed.clone());
            let fit = solver.clone().exactly(1).fit(&x).unwrap();
            assert_kept(&fit, &given, &fixed);
            let found = fit.reconstruct().unwrap();
            let rest = entries(&x) - entries(&found);
            let factors: Vec<_> = given.iter().map(entries).collect();
            let slope = mttkrp(&rest, free, &factors).iter().fold(0.0f64, |a, b| a.max(b.abs()));
            let size = mttkrp(&entries(&x), free, &factors).iter().fold(0.0f64, |a, b| a.max(b.abs()));
            assert!(slope <= 1e4 * T::epsilon().f64() * size, "{shape:?}, mode {free}: {slope:e} of {size:e}");
            let error = residual(&x, &found);
            assert!((fit.relative_error - error).abs() <= 1e3 * T::epsilon().f64(), "{fit}");
            let again = solver.exactly(3).fit(&x).unwrap();
            assert!((again.relative_error - error).abs() <= 1e3 * T::epsilon().f64());
        }
    }
}

fn errors_fall_whichever_modes_stay<T: Scalar>() {
    for (seed, (shape, rank)) in (0..).step_by(20).zip(PROBLEMS) {
        let (x, given) = (normal::<T>(shape, seed), start::<T>(shape, rank, seed + 1));
        for fixed in [vec![0], vec![shape.len() - 1], vec![shape.len() - 1, 0]] {
            if fixed.len() == shape.len() {
                continue;
            }
            // Not negative where it is found; where it stays it may be what it likes.
            let found: Vec<usize> = (0..shape.len()).filter(|mode| !fixed.contains(mode)).collect();
            let solver = CpAls::rank(rank).fixed_modes(fixed.clone()).exactly(6);
            let fit = solver.clone().start(CpStart::Given(given.clone())).fit(&x).unwrap();
            assert_falling::<T>(&fit.history);
            assert_kept(&fit, &given, &fixed);
            let error = residual(&x, &fit.reconstruct().unwrap());
            assert!((fit.relative_error - error).abs() <= 1e3 * T::epsilon().f64() / error, "{fit}");
            let positive = given.iter().map(|factor| factor.abs().unwrap()).collect::<Vec<_>>();
            let solver = solver.non_negative_modes(found.clone()).start(CpStart::Given(positive.clone())).starts(2);
            let fit = solver.fit(&x).unwrap();
            assert_kept(&fit, &positive, &fixed);
            assert!(found.iter().all(|&mode| fit.factors()[mode].min().unwrap() >= 0.0));
            assert!(fit.weights().min().unwrap() >= 0.0);
        }
    }
}

/// New samples in terms of parts that are known, holes and all: components keep the order of the parts.
fn amounts_of_known_parts<T: Scalar>() {
    let parts = [matrix::<T>(8, 3, 1).abs().unwrap(), matrix::<T>(7, 3, 2).abs().unwrap()];
    let amounts = matrix::<T>(5, 3, 3).abs().unwrap();
    let weights = Tensor::from_vec([3], [0.1, 10.0, 1.0].map(T::of).to_vec()).unwrap();
    let factors = vec![amounts.clone(), parts[0].clone(), parts[1].clone()];
    let whole: Cp<T> = Cp::new(weights.clone(), factors).unwrap();
    let x = whole.reconstruct().unwrap();
    let holes = Tensor::from_fn(IxDyn(&[5, 8, 7]), |i| {
        if (i[0] + 2 * i[1] + 3 * i[2]) % 4 == 0 { T::of(f64::NAN) } else { x.get(i).unwrap() }
    });
    let given = CpStart::Given(vec![Tensor::ones([5, 3]).unwrap(), parts[0].clone(), parts[1].clone()]);
    let solver = CpAls::rank(3).start(given).fixed_modes([2, 1]).exactly(2);
    let wanted = amounts.mul(&weights.insert_mode(0).unwrap().into_order().unwrap()).unwrap();
    for fit in [solver.clone().fit(&x), solver.clone().skip_nan().fit(&holes.unwrap())] {
        let fit = fit.unwrap();
        let found = fit.weights().insert_mode(0).unwrap().into_order().unwrap().mul(&fit.factors()[0]).unwrap();
        let away = found.sub(&wanted).unwrap().max_abs().unwrap();
        assert!(away <= 1e3 * T::epsilon().f64() * wanted.max_abs().unwrap(), "{away:e}");
    }
    let tiny = solver.fit(&x.scale(T::of(1e-30)).unwrap()).unwrap();
    assert!(residual(&x, &tiny.reconstruct().unwrap().scale(T::of(1e30)).unwrap()) < 1e3 * T::epsilon().f64());
    assert_eq!(tiny.factors()[1].to_vec().unwrap(), parts[0].to_vec().unwrap());
}

in_both_precisions! { one_mode_is_solved_at_once errors_fall_whichever_modes_stay amounts_of_known_parts }

#[test]
fn no_sweep_is_the_start() {
    let (x, given) = (normal::<f64>(&[4, 5, 6], 1), start::<f64>(&[4, 5, 6], 2, 2));
    let fit = CpAls::rank(2).start(CpStart::Given(given.clone())).fixed_modes([1]).exactly(0).fit(&x).unwrap();
    let wanted: Cp<f64> = Cp::new(Tensor::ones([2]).unwrap(), given.clone()).unwrap();
    assert!(residual(&wanted.reconstruct().unwrap(), &fit.reconstruct().unwrap()) < 1e-14);
    assert_kept(&fit, &given, &[1]);
}

#[test]
fn what_cannot_stay() {
    let x = normal::<f64>(&[4, 5, 6], 1);
    let refused = |solver: CpAls, kind: ErrorKind, text: &str| {
        let error = solver.fit(&x).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
    };
    let mut given = start::<f64>(&[4, 5, 6], 2, 2);
    let solver = || CpAls::rank(2).fixed_modes([0, 2]);
    refused(
        solver(),
        ErrorKind::Value,
        "CpAls::fixed_modes: factors are to stay as they are, and none are given; give them with CpStart::Given",
    );
    let start = CpStart::Given(given.clone());
    refused(
        solver().start(start.clone()).fixed_modes([0, 1, 2]),
        ErrorKind::Value,
        "CpAls::fixed_modes: the factors of all modes are to stay as they are: none is left to find",
    );
    refused(
        solver().start(start).fixed_modes([3]),
        ErrorKind::Shape,
        "CpAls::fixed_modes: mode 3 does not exist in a tensor of shape [4, 5, 6]",
    );
    given[2] = Tensor::from_fn([6, 2], |i| i[1] as f64).unwrap();
    refused(
        solver().start(CpStart::Given(given)),
        ErrorKind::Value,
        "CpAls::fixed_modes: column 0 of the factor of mode 2 is zero, and is to stay so",
    );
}
