//! CP-ALS: exact least squares for one factor at a time, from every kind of start, singular problems among them.

use crate::{
    problems::{
        assert_falling, assert_reported, assert_signs, assert_unit_columns, in_both_precisions, matrix, noisy, normal,
        residual, rng, singular_values, tail,
    },
    support::{entries, mttkrp},
};
use ndarray::{Ix1, Ix2, IxDyn};
use tenfold::{
    ErrorKind, Scalar, Tensor,
    decomp::{Cp, CpAls, CpStart, Fit, Stop},
};

/// A sum of components with normal factors and weights 1, 2, ..
fn components<T: Scalar>(shape: &[usize], rank: usize, seed: u64) -> Cp<T> {
    let factors = shape.iter().zip(seed..).map(|(&n, seed)| matrix(n, rank, seed)).collect();
    let weights = Tensor::from_vec([rank], (1..=rank).map(|r| T::of(r as f64)).collect()).unwrap();
    Cp::new(weights, factors).unwrap()
}

fn uniform<T: Scalar>(shape: &[usize], rank: usize, seed: u64) -> Vec<Tensor<T, Ix2>> {
    let rng = &mut rng(seed);
    shape.iter().map(|&n| Tensor::uniform([n, rank], rng).unwrap()).collect()
}

/// Shapes of every order and ranks below and above the sizes.
pub const PROBLEMS: [(&[usize], usize); 8] = [
    (&[7], 1),
    (&[8, 6], 3),
    (&[9, 8, 7], 4),
    (&[2, 20, 3], 5),
    (&[1, 6, 1, 5], 2),
    (&[5, 4, 6, 3], 3),
    (&[4, 3, 2, 5, 3], 3),
    (&[3, 4, 2, 3, 4, 2], 2),
];

/// What every result looks like: columns of norm 1, falling weights, fixed signs, a true error.
#[track_caller]
fn assert_result<T: Scalar>(x: &Tensor<T, IxDyn>, fit: &Fit<Cp<T>>, rank: usize) {
    assert_eq!((fit.rank(), fit.shape()), (rank, x.shape()));
    assert_unit_columns(fit.factors());
    let weights = fit.weights().to_vec().unwrap();
    assert!(weights.windows(2).all(|w| w[0] >= w[1]) && weights[rank - 1] >= T::zero(), "{weights:?}");
    fit.factors().split_last().unwrap().1.iter().for_each(assert_signs);
    assert_reported(x, &fit.reconstruct().unwrap(), fit.relative_error);
}

fn errors_never_rise<T: Scalar>() {
    for (seed, (shape, rank)) in (0..).zip(PROBLEMS) {
        let x = normal::<T>(shape, seed);
        for start in [CpStart::Random, CpStart::Hosvd, CpStart::Given(uniform(shape, rank, 4))] {
            let fit = CpAls::rank(rank).start(start).seed(seed).exactly(12).fit(&x).unwrap();
            assert_falling::<T>(&fit.history);
            assert_eq!((fit.sweeps(), fit.stopped), (12, Stop::Sweeps));
            assert!((fit.relative_error.powi(2) - fit.history[11].powi(2)).abs() < 256.0 * T::epsilon().f64());
            assert_result(&x, &fit, rank);
        }
    }
}

fn one_component_is_found_at_once<T: Scalar>() {
    for (seed, (shape, _)) in (20..).zip(PROBLEMS) {
        let x = components::<T>(shape, 1, seed).reconstruct().unwrap();
        for start in [CpStart::Random, CpStart::Hosvd] {
            let fit = CpAls::rank(1).start(start).exactly(2).fit(&x).unwrap();
            assert!(fit.relative_error < 16.0 * T::epsilon().f64(), "{shape:?}: {fit}");
            assert_result(&x, &fit, 1);
        }
    }
}

/// CP components are unique, so those found are those put in.
fn components_are_recovered<T: Scalar>() {
    for (shape, rank) in [(&[9, 8, 7][..], 2), (&[9, 8, 7], 3), (&[6, 5, 7, 4], 3), (&[4, 5, 4, 3, 4], 2)] {
        let truth = components::<T>(shape, rank, 5).canonicalize().unwrap();
        let x = truth.reconstruct().unwrap();
        let fit = CpAls::rank(rank).starts(3).exactly(150).fit(&x).unwrap();
        let slack = T::epsilon().f64().powf(0.75);
        assert!(fit.relative_error < slack, "{shape:?}: {fit}");
        assert!(residual(truth.weights(), fit.weights()) < 1e2 * slack, "{shape:?}");
        for (want, got) in truth.factors().iter().zip(fit.factors()) {
            assert!(residual(want, got) < 1e2 * slack, "{shape:?}");
        }
        assert_result(&x, &fit, rank);
    }
}

/// Of a matrix the best approximation is known.
fn matrices<T: Scalar>() {
    let x = noisy::<T>(&[12, 9], &[3, 3], 0.2, 5);
    let best = tail(&singular_values(&x, 0), 3) / x.norm().unwrap();
    let fit = CpAls::rank(3).start(CpStart::Hosvd).exactly(100).fit(&x).unwrap();
    assert!((fit.relative_error - best).abs() < 1e3 * T::epsilon().f64(), "{fit}, {best}");
    assert_result(&x, &fit, 3);
}

/// The factor updated last solves its least-squares problem: X - X' meets none of the other factors.
#[track_caller]
fn assert_least_squares<T: Scalar>(x: &Tensor<T, IxDyn>, fit: &Fit<Cp<T>>, slack: f64) {
    let rest = entries(x) - entries(&fit.reconstruct().unwrap());
    let factors: Vec<_> = fit.factors().iter().map(|f| entries(f)).collect();
    let gradient = mttkrp(&rest, x.order() - 1, &factors);
    let largest = gradient.iter().fold(0.0f64, |a, b| a.max(b.abs()));
    assert!(largest <= slack * x.norm().unwrap(), "{largest:e} is left of {:e}", x.norm().unwrap());
}

fn every_sweep_ends_in_a_least_squares_solution<T: Scalar>() {
    for (seed, (shape, rank)) in (40..).zip(PROBLEMS) {
        let x = noisy::<T>(shape, &vec![1; shape.len()], 0.5, seed);
        for sweeps in [1, 2, 5] {
            let start = CpStart::Given(uniform(shape, rank, seed));
            let fit = CpAls::rank(rank).start(start).exactly(sweeps).fit(&x).unwrap();
            // Collinear columns of a sum of few terms lose some digits.
            assert_least_squares(&x, &fit, 1e5 * T::epsilon().f64());
        }
    }
}

/// Equal columns, or all but equal: the system is singular to rounding, and its stable solution is still one of least squares.
fn collinear_starts_are_solved_stably<T: Scalar>() {
    let shape = [7, 6, 5];
    let x = noisy::<T>(&shape, &[2, 2, 2], 0.2, 6);
    let two = CpAls::rank(2).start(CpStart::Given(uniform(&shape, 2, 9))).exactly(1).fit(&x).unwrap();
    for apart in [0.0, 1e-12, 1e-9, 1e-6, 1e-4] {
        let start: Vec<Tensor<T, Ix2>> = uniform::<T>(&shape, 2, 9)
            .iter()
            .map(|f| {
                let twin = f.narrow(1, 0..1).unwrap();
                let beside = normal::<T>(twin.shape(), 3).into_order::<Ix2>().unwrap().scale(T::of(apart)).unwrap();
                Tensor::concat(&[f, &twin.add(&beside).unwrap()], 1).unwrap()
            })
            .collect();
        for sweeps in [1, 3, 20] {
            let solver = CpAls::rank(3).start(CpStart::Given(start.clone())).exactly(sweeps);
            let fit = solver.fit(&x).unwrap();
            assert_falling::<T>(&fit.history);
            assert_result(&x, &fit, 3);
            assert!(fit.relative_error <= two.relative_error + 1e-3, "{apart:e}: {fit}, {two}");
            if apart == 0.0 && sweeps <= 3 {
                assert_least_squares(&x, &fit, 1e3 * T::epsilon().f64());
                // The twins share what one of them would carry.
                let weights = fit.weights().to_vec().unwrap();
                assert!(weights[0].f64() < 4.0 * x.norm().unwrap(), "{weights:?}");
            }
        }
    }
}

/// Far more components than the tensor has: most are collinear or zero, none is NaN.
fn more_components_than_there_are<T: Scalar>() {
    for shape in [&[6, 5, 4][..], &[5, 4], &[3, 4, 3, 2]] {
        let x = components::<T>(shape, 1, 3).reconstruct().unwrap();
        for start in [CpStart::Random, CpStart::Hosvd] {
            let fit = CpAls::rank(4).start(start).sweeps(60).fit(&x).unwrap();
            assert!(fit.relative_error < 1e2 * T::epsilon().f64().sqrt(), "{shape:?}: {fit}");
            assert_falling::<T>(&fit.history);
            assert_result(&x, &fit, 4);
        }
    }
}

in_both_precisions! {
    errors_never_rise
    one_component_is_found_at_once
    components_are_recovered
    matrices
    every_sweep_ends_in_a_least_squares_solution
    collinear_starts_are_solved_stably
    more_components_than_there_are
}

/// No sweeps: the start, normalised, as it was drawn, found or given.
#[test]
fn no_sweep_leaves_the_start() {
    let shape = [7, 4, 5];
    let x = noisy::<f64>(&shape, &[2, 2, 2], 0.2, 6);
    let given = uniform::<f64>(&shape, 3, 2);
    let want = Cp::<f64>::new(Tensor::ones([3]).unwrap(), given.clone()).unwrap().reconstruct().unwrap();
    let fit = CpAls::rank(3).start(CpStart::Given(given)).sweeps(0).fit(&x).unwrap();
    assert_eq!((fit.sweeps(), fit.stopped), (0, Stop::Sweeps));
    assert!(residual(&want, &fit.reconstruct().unwrap()) < 1e-14);
    assert_result(&x, &fit, 3);

    // Uniform on [0, 1), from the seed.
    let want = Cp::<f64>::new(Tensor::ones([3]).unwrap(), uniform(&shape, 3, 8)).unwrap().reconstruct().unwrap();
    let fit = CpAls::rank(3).seed(8).sweeps(0).fit(&x).unwrap();
    assert!(residual(&want, &fit.reconstruct().unwrap()) < 1e-14);

    // Leading singular vectors; the fifth component of the mode of size 4 is random.
    let fit = CpAls::rank(5).start(CpStart::Hosvd).sweeps(0).fit(&x).unwrap();
    for mode in 0..3 {
        let u = x.unfold(mode).unwrap().svd().unwrap().u;
        let cosines = u.narrow(1, 0..4).unwrap().t().matmul(&fit.factors()[mode]).unwrap();
        let found = cosines.to_vec().unwrap().iter().filter(|c| c.abs() > 1.0 - 1e-9).count();
        assert_eq!(found, 4, "mode {mode}: {cosines}");
    }
}

/// Several starts: the given one first, then the following seeds; the best is kept, to the bit.
/// The singular vectors of a long mode come from the short side of its unfolding.
#[test]
fn singular_vectors_of_a_long_mode_start_a_fit() {
    let x = components::<f64>(&[50_000, 3, 4], 2, 5).reconstruct().unwrap();
    let fit = CpAls::rank(2).start(CpStart::Hosvd).fit(&x).unwrap();
    assert!(fit.relative_error < 1e-6, "{fit}");
}

#[test]
fn the_best_of_several_starts_is_kept() {
    let x = normal::<f64>(&[6, 5, 4], 1);
    let one = |seed| CpAls::rank(3).seed(seed).exactly(15).fit(&x).unwrap();
    let alone: Vec<_> = (10..16).map(one).collect();
    let several = CpAls::rank(3).seed(10).starts(6).exactly(15).fit(&x).unwrap();
    let best = alone.iter().min_by(|a, b| a.relative_error.total_cmp(&b.relative_error)).unwrap();
    assert_eq!((several.relative_error, &several.history), (best.relative_error, &best.history));
    assert_eq!(several.decomposition, best.decomposition);
    let errors: Vec<f64> = alone.iter().map(|f| f.relative_error).collect();
    assert!(errors.iter().any(|e| *e > best.relative_error + 1e-6), "the starts should differ: {errors:?}");
    // A start that is given counts as the first.
    let exact = components::<f64>(&[6, 5, 4], 3, 7);
    let y = exact.reconstruct().unwrap();
    let start = CpStart::Given(exact.factors().to_vec());
    let fit = CpAls::rank(3).start(start).starts(3).exactly(3).fit(&y).unwrap();
    assert!(fit.relative_error < 1e-13, "{fit}");
}

#[test]
fn a_start_that_does_not_fit_is_an_error() {
    let x = normal::<f64>(&[7, 6, 5], 1);
    let fit = |factors| CpAls::rank(2).start(CpStart::Given(factors)).fit(&x).map(drop).unwrap_err();
    let good = uniform::<f64>(&[7, 6, 5], 2, 1);
    for (bad, says) in [
        (good[..2].to_vec(), "2 "),
        (vec![good[0].clone(), good[2].clone(), good[1].clone()], "factor 1 is 5 x 2"),
        (uniform(&[7, 6, 5], 3, 1), "3 columns given for rank 2"),
        (vec![good[0].clone(), matrix(6, 3, 1), good[2].clone()], "factor 1 is 6 x 3"),
    ] {
        let error = fit(bad);
        assert_eq!(error.kind(), ErrorKind::Shape, "{error}");
        assert!(error.to_string().contains(says), "{error} does not say {says}");
    }
    let mut bad = good.clone();
    bad[2] = Tensor::from_fn([5, 2], |i| if i == [4, 0] { f64::INFINITY } else { 1.0 }).unwrap();
    let error = fit(bad);
    assert_eq!(error.kind(), ErrorKind::Value);
    assert_eq!(error.to_string(), "CpAls::start: entry [4, 0] is inf; every entry has to be finite");
}

/// The fit that the literature quotes, and the text of a result.
#[test]
fn a_fit_says_what_it_is() {
    let x = noisy::<f64>(&[4, 5, 6], &[1, 1, 1], 0.1, 1);
    let fit = CpAls::rank(1).exactly(4).fit(&x).unwrap();
    assert_eq!(fit.fit(), 1.0 - fit.relative_error);
    let text = format!(
        "CP<f64> 4 x 5 x 6 of rank 1: 16 numbers for 120 entries, 7.5 times smaller; relative error {:.3e} after 4 sweeps (all sweeps run)",
        fit.relative_error
    );
    assert_eq!(fit.to_string(), text);
    let weights: &Tensor<f64, Ix1> = fit.weights();
    assert_eq!(weights.shape(), &[1]);
    let fit = CpAls::rank(1).fit(&x).unwrap();
    assert!(fit.to_string().ends_with("sweeps (converged)"), "{fit}");
    let direct = tenfold::decomp::StHosvd::ranks([1, 1, 1]).fit(&x).unwrap();
    let text = format!("{}; relative error {:.3e}", direct.decomposition, direct.relative_error);
    assert_eq!(direct.to_string(), text);
}
