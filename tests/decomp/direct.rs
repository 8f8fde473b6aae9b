//! HOSVD and ST-HOSVD: what both promise for ranks and for tolerances, by every method.

use crate::problems::{
    PROBLEMS, assert_orthonormal, assert_reported, graded, in_both_precisions, low_rank, matrix, noisy, normal,
    residual, singular_values, tail,
};
use ndarray::{Ix3, IxDyn};
use proptest::prelude::*;
use tenfold::{
    Result, Scalar, Tensor,
    decomp::{Fit, Hosvd, Method, StHosvd, Stop, Target, Tucker},
};

const RANDOMIZED: Method = Method::Randomized { oversampling: 6, iterations: 2, seed: 5 };
const METHODS: [Method; 4] = [Method::Auto, Method::Gram, Method::Svd, RANDOMIZED];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Solver {
    Hosvd,
    StHosvd,
}
use Solver::{Hosvd as Whole, StHosvd as Sequential};

impl Solver {
    fn fit<T: Scalar>(self, target: Target, method: Method, x: &Tensor<T, IxDyn>) -> Result<Fit<Tucker<T>>> {
        match self {
            Whole => Hosvd::target(target).method(method).fit(x),
            Sequential => StHosvd::target(target).method(method).fit(x),
        }
    }

    fn ranks<T: Scalar>(self, ranks: &[usize], method: Method, x: &Tensor<T, IxDyn>) -> Fit<Tucker<T>> {
        self.fit(Target::Ranks(ranks.to_vec()), method, x).unwrap()
    }

    fn tolerance<T: Scalar>(self, tolerance: f64, method: Method, x: &Tensor<T, IxDyn>) -> Fit<Tucker<T>> {
        self.fit(Target::Tolerance(tolerance), method, x).unwrap()
    }
}

/// Each solver with each method.
fn solvers() -> impl Iterator<Item = (Solver, Method)> {
    [Whole, Sequential].into_iter().flat_map(|solver| METHODS.map(|method| (solver, method)))
}

fn given_ranks<T: Scalar>() {
    for (solver, method) in solvers() {
        for (seed, (shape, ranks)) in (0..).zip(PROBLEMS) {
            let x = normal::<T>(shape, seed);
            let fit = solver.ranks(ranks, method, &x);
            assert_eq!((fit.ranks(), fit.shape()), (ranks, shape));
            assert_orthonormal(fit.factors());
            assert_reported(&x, &fit.reconstruct().unwrap(), fit.relative_error);
            assert_eq!((fit.stopped, fit.sweeps(), fit.history.len()), (Stop::Direct, 0, 0));
            // The core is the projection of X, which is what makes the error of orthonormal factors smallest.
            let projected = Tucker::project(&x, fit.factors().to_vec()).unwrap();
            assert!(
                residual(projected.core(), fit.core()) < 1e2 * T::epsilon().f64(),
                "{solver:?} {method:?} {shape:?}"
            );
        }
    }
}

/// No Tucker tensor of these ranks is closer than the largest tail; the sum of all squared tails bounds both solvers.
fn errors_lie_between_the_tails<T: Scalar>() {
    for (solver, method) in solvers().filter(|(_, method)| *method != RANDOMIZED) {
        for (seed, (shape, ranks)) in (20..).zip(PROBLEMS) {
            let x = noisy::<T>(shape, ranks, 0.3, seed);
            let tails: Vec<f64> = (0..shape.len()).map(|m| tail(&singular_values(&x, m), ranks[m])).collect();
            let norm = x.norm().unwrap();
            let least = tails.iter().fold(0.0f64, |a, &b| a.max(b)) / norm;
            let most = tails.iter().map(|t| t * t).sum::<f64>().sqrt() / norm;
            let error = solver.ranks(ranks, method, &x).relative_error;
            let slack = 1e3 * T::epsilon().f64();
            let fits = least - slack <= error && error <= most + slack;
            assert!(fits, "{solver:?} {method:?} {shape:?}: {least:e} <= {error:e} <= {most:e}");
        }
    }
}

fn full_ranks_lose_nothing<T: Scalar>() {
    for (solver, method) in solvers() {
        for (seed, (shape, _)) in (40..).zip(PROBLEMS) {
            let x = normal::<T>(shape, seed);
            let fit = solver.ranks(shape, method, &x);
            assert!(fit.relative_error < 40.0 * T::epsilon().f64(), "{solver:?} {method:?} {shape:?}: {fit}");
            assert_orthonormal(fit.factors());
            assert_reported(&x, &fit.reconstruct().unwrap(), fit.relative_error);
        }
    }
}

fn low_rank_is_recovered<T: Scalar>() {
    let shapes: [(&[usize], &[usize]); 6] = [
        (&[12, 10], &[3, 3]),
        (&[12, 10, 9], &[3, 2, 4]),
        (&[50, 4, 5], &[3, 2, 2]),
        (&[1, 9, 8, 1], &[1, 3, 3, 1]),
        (&[5, 6, 4, 5, 6], &[2, 2, 2, 2, 2]),
        (&[4, 3, 5, 4, 3, 4], &[2, 2, 2, 2, 2, 2]),
    ];
    for (solver, method) in solvers() {
        for (seed, (shape, ranks)) in (60..).zip(shapes) {
            let x = low_rank::<T>(shape, ranks, seed);
            let fit = solver.ranks(ranks, method, &x);
            assert!(fit.relative_error < 40.0 * T::epsilon().f64(), "{solver:?} {method:?} {shape:?}: {fit}");
            assert_reported(&x, &fit.reconstruct().unwrap(), fit.relative_error);
            // The ranks are found, too.
            let fit = solver.tolerance(1e-4, method, &x);
            assert_eq!(fit.ranks(), ranks, "{solver:?} {method:?} {shape:?}");
            assert!(fit.relative_error < 40.0 * T::epsilon().f64(), "{solver:?} {method:?} {shape:?}: {fit}");
        }
    }
}

/// Tolerances over shapes, spectra, methods and orders of modes.
fn tolerances_are_met<T: Scalar>() {
    let shape = (1usize..=6).prop_flat_map(|order| {
        let most = [40usize, 24, 12, 7, 4, 3][order - 1];
        prop::collection::vec(1..=most, order)
    });
    let drawn = (any::<u32>(), shape, 0.0f64..4.0, 0.0f64..0.5, any::<prop::sample::Index>());
    let config = ProptestConfig { cases: 160, failure_persistence: None, ..Default::default() };
    proptest!(config, |((seed, shape, digits, decay, method) in drawn)| {
        // Entries that fall with the index: a spectrum between flat and steep.
        let noise = normal::<f64>(&shape, seed.into());
        let x = Tensor::<T, _>::from_fn(IxDyn(&shape), |i| {
            T::of(noise.get(i).unwrap() * (-decay * i.iter().sum::<usize>() as f64).exp())
        }).unwrap();
        let tolerance = 0.9 * 10f64.powf(-digits);
        let method = METHODS[method.index(4)];
        for fit in [Whole, Sequential].map(|solver| solver.tolerance(tolerance, method, &x)) {
            prop_assert!(fit.relative_error <= tolerance);
            let truth = residual(&x, &fit.reconstruct().unwrap());
            prop_assert!(truth <= tolerance + 32.0 * T::epsilon().f64(), "{truth:e} for {tolerance:e}");
            assert_reported(&x, &fit.reconstruct().unwrap(), fit.relative_error);
            assert_orthonormal(fit.factors());
        }
        let mut order: Vec<usize> = (0..shape.len()).collect();
        order.rotate_left(seed as usize % shape.len());
        let fit = StHosvd::tolerance(tolerance).order(order).fit(&x).unwrap();
        prop_assert!(fit.relative_error <= tolerance);
    });
}

/// A symmetric tensor in which giving up the last index of every mode loses exactly the sum of the tails: entries with one index in
/// the last place, and those orthogonal to all others.
fn losing_exactly(n: usize, seed: u64) -> (Tensor<f64, IxDyn>, f64) {
    let last = n - 1;
    let sorted = |i: &[usize]| {
        let mut i = i.to_vec();
        i.sort_unstable();
        i
    };
    let (inner, edge) = (normal::<f64>(&[n, n, n], seed), matrix::<f64>(n, n, seed + 1));
    // Slices of the inner block stand on the diagonal, the last slice off it: so they are orthogonal.
    let x = Tensor::from_fn(IxDyn(&[n, n, n]), |i| {
        let i = sorted(i);
        match (i[2] == last, i[1] == last) {
            (false, _) if i[0] == i[2] => 1.0 + 0.1 * inner.get(&i).unwrap(),
            (true, false) if i[0] != i[1] => 1e-2 * edge.get(&i[..2]).unwrap(),
            _ => 0.0,
        }
    })
    .unwrap();
    let (mut all, mut lost) = (0.0, 0.0);
    crate::support::for_each_index(&[n, n, n], |i| {
        let square = x.get(i).unwrap().powi(2);
        all += square;
        lost += if i.contains(&last) { square } else { 0.0 };
    });
    (x, f64::sqrt(lost / all))
}

/// A tolerance a hair below what the next smaller ranks would lose, which an inexact spectrum takes for met.
fn a_tolerance_is_met_however_closely_it_is_missed<T: Scalar>() {
    for seed in 0..8 {
        let (x, error) = losing_exactly(9, seed);
        let x = x.cast::<T>().unwrap();
        for (solver, method) in solvers() {
            for below in [1e-3, 1e-5, 1e-6, 1e-8, 0.0, -1e-8, -1e-6, -1e-5] {
                let tolerance = error * (1.0 - below);
                let fit = solver.tolerance(tolerance, method, &x);
                assert!(fit.relative_error <= tolerance, "{solver:?} {method:?} {below:e}");
                let truth = residual(&x, &fit.reconstruct().unwrap());
                assert!(truth <= tolerance + 16.0 * T::epsilon().f64(), "{solver:?} {method:?} {below:e}");
            }
            // With room to spare, the smaller ranks do.
            assert_eq!(solver.tolerance(error * 1.01, method, &x).ranks(), &[8, 8, 8], "{solver:?} {method:?}");
        }
    }
}

/// What the first mode does not use of the tolerance goes to the others, and what is left at the end trims the core.
fn the_whole_tolerance_is_spent<T: Scalar>() {
    let x = graded::<T>(&[8, 9, 10], &[1.0, 0.5, 0.1], 7);
    let lost = 0.1 / 1.26f64.sqrt();
    for method in METHODS {
        // One component lies in every mode: giving it up in all of them loses it once.
        assert_eq!(Sequential.tolerance(1.01 * lost, method, &x).ranks(), &[2, 2, 2]);
        assert_eq!(Sequential.tolerance(0.99 * lost, method, &x).ranks(), &[3, 3, 3]);
        // HOSVD counts it in every mode.
        assert_eq!(Whole.tolerance(1.01 * lost, method, &x).ranks(), &[3, 3, 3]);
        assert_eq!(Whole.tolerance(1.01 * lost * 3f64.sqrt(), method, &x).ranks(), &[2, 2, 2]);
    }
}

/// A rank above the number of columns of a tall unfolding: the basis is completed, at no greater cost than the columns that are found.
#[test]
fn ranks_above_what_a_long_mode_has_columns_for() {
    let x = normal::<f64>(&[50_000, 2, 2], 3);
    for fit in [StHosvd::ranks([7, 2, 2]).fit(&x).unwrap(), Hosvd::ranks([7, 2, 2]).fit(&x).unwrap()] {
        assert_orthonormal(fit.factors());
        assert!(fit.relative_error < 1e-14, "{fit}");
    }
}

in_both_precisions! {
    given_ranks
    errors_lie_between_the_tails
    full_ranks_lose_nothing
    low_rank_is_recovered
    tolerances_are_met
    a_tolerance_is_met_however_closely_it_is_missed
    the_whole_tolerance_is_spent
}

/// Singular values over ten digits: squares of the small ones drown in a Gram matrix, an SVD sees them.
#[test]
fn wide_spectra_are_resolved_in_double_precision() {
    let values = [1.0, 1e-3, 1e-6, 1e-8, 1e-10, 1e-12];
    let x = graded::<f64>(&[14, 12, 13], &values, 3);
    let norm = x.norm().unwrap();
    for solver in [Whole, Sequential] {
        for method in [Method::Auto, Method::Svd] {
            for (rank, &next) in (1..).zip(&values[1..]) {
                let error = solver.ranks(&[rank; 3], method, &x).relative_error * norm;
                assert!((error / next - 1.0).abs() < 1e-2, "{solver:?} {method:?} rank {rank}: {error:e}");
                let fit = solver.tolerance(2.0 * next, method, &x);
                assert_eq!(fit.ranks(), &[rank; 3], "{solver:?} {method:?}: {fit}");
            }
        }
    }
    // As far down as singles go: the Gram matrix is in doubles.
    let x = graded::<f32>(&[14, 12, 13], &values[..3], 3);
    for solver in [Whole, Sequential] {
        assert_eq!(solver.tolerance(1e-4, Method::Auto, &x).ranks(), &[2, 2, 2]);
        let error = solver.ranks(&[2; 3], Method::Auto, &x).relative_error;
        assert!((0.9e-6..1.2e-6).contains(&error), "{error:e}");
    }
}

/// HOSVD by its definition: leading left singular vectors of each unfolding of the whole tensor.
#[test]
fn hosvd_factors_are_the_leading_singular_vectors() {
    let (shape, ranks) = ([10, 8, 9, 4], [3, 2, 4, 2]);
    let x = noisy::<f64>(&shape, &ranks, 0.1, 1);
    for method in METHODS {
        let fit = Whole.ranks(&ranks, method, &x);
        for (mode, &rank) in ranks.iter().enumerate() {
            let u = x.unfold(mode).unwrap().svd().unwrap().u.narrow(1, 0..rank).unwrap();
            let v = &fit.factors()[mode];
            let projection = |u: &Tensor<f64, _>| u.matmul(&u.t()).unwrap();
            let slack = if method == RANDOMIZED {
                1e-4
            } else if method == Method::Auto {
                1e-5
            } else {
                1e-12
            };
            assert!(residual(&projection(&u), &projection(v)) < slack, "{method:?} mode {mode}");
            if method == Method::Svd {
                // Column by column, up to sign.
                let cosines = u.t().matmul(v).unwrap();
                (0..rank).for_each(|r| assert!((cosines.get(&[r, r]).unwrap().abs() - 1.0).abs() < 1e-12));
            }
        }
    }
}

/// At full ranks the core is all-orthogonal, and its slices' norms are the mode-n singular values (De Lathauwer et al. 2000).
#[test]
fn the_full_hosvd_has_an_all_orthogonal_core() {
    let x = normal::<f64>(&[5, 6, 4], 2);
    let fit = Hosvd::ranks([5, 6, 4]).method(Method::Svd).fit(&x).unwrap();
    for mode in 0..3 {
        let gram = fit.core().gram(mode).unwrap();
        let want = singular_values(&x, mode);
        for (i, value) in want.iter().enumerate() {
            for j in 0..want.len() {
                let expected = if i == j { value * value } else { 0.0 };
                assert!((gram.get(&[i, j]).unwrap() - expected).abs() < 1e-12 * want[0] * want[0]);
            }
        }
        let got = fit.mode_singular_values(mode).unwrap();
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-12 * want[0]), "{got:?} {want:?}");
    }
}

/// ST-HOSVD by its definition, in every order of the modes; by default it takes a cheap one.
#[test]
fn st_hosvd_truncates_mode_after_mode_in_the_order_given() {
    let ranks = [3, 2, 4];
    let x = noisy::<f64>(&[10, 8, 9], &ranks, 0.5, 4);
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let mut errors = Vec::new();
    for order in orders {
        let mut core = x.clone();
        let mut factors = vec![matrix::<f64>(1, 1, 0); 3];
        for mode in order {
            factors[mode] = core.unfold(mode).unwrap().svd().unwrap().u.narrow(1, 0..ranks[mode]).unwrap();
            core = core.mode_product(mode, &factors[mode].t()).unwrap();
        }
        let want = Tucker::new(core, factors).unwrap();
        let error = want.relative_error(&x).unwrap();
        for method in [Method::Gram, Method::Svd] {
            let fit = StHosvd::ranks(ranks).order(order).method(method).fit(&x).unwrap();
            assert!((fit.relative_error - error).abs() < 1e-12, "{order:?} {method:?}");
            let [got, want] = [&fit, &want].map(|t| t.reconstruct().unwrap());
            assert!(residual(&want, &got) < 1e-9, "{order:?} {method:?}");
        }
        errors.push(error);
    }
    errors.sort_by(f64::total_cmp);
    errors.dedup_by(|a, b| (*a - *b).abs() < 1e-9);
    assert!(errors.len() > 1, "the order should make a difference here: {errors:?}");
}

/// A mode long enough for `Method::Auto` to sample it, against the exact spectrum.
#[test]
fn a_very_long_mode_is_sampled_as_well_as_an_svd_finds_it() {
    let x: Tensor<f64, Ix3> = noisy::<f64>(&[2100, 6, 7], &[4, 3, 3], 1e-3, 6).into_order().unwrap();
    let exact = StHosvd::ranks([4, 3, 3]).method(Method::Svd).order([0, 1, 2]).fit(&x).unwrap();
    for method in [Method::Auto, RANDOMIZED] {
        let fit = StHosvd::ranks([4, 3, 3]).method(method).order([0, 1, 2]).fit(&x).unwrap();
        assert!((fit.relative_error / exact.relative_error - 1.0).abs() < 1e-4, "{method:?}: {fit}, {exact}");
    }
}
