//! HOOI: never worse than where it starts, and at a point where no mode can be improved alone.

use crate::problems::{
    PROBLEMS, assert_falling, assert_orthonormal, assert_reported, in_both_precisions, low_rank, matrix, noisy, normal,
    orthonormal, residual, singular_values, tail,
};
use ndarray::{Ix2, IxDyn};
use tenfold::{
    ErrorKind, Scalar, Tensor,
    decomp::{Hooi, HooiStart, StHosvd, Stop, Tucker},
};

fn given<T: Scalar>(shape: &[usize], ranks: &[usize], seed: u64) -> HooiStart<T> {
    HooiStart::Given(orthonormal(shape, ranks, seed).iter().map(|f| f.cast().unwrap()).collect())
}

/// Each kind of start, and the error there.
fn starts<T: Scalar>(x: &Tensor<T, IxDyn>, ranks: &[usize]) -> Vec<(HooiStart<T>, f64)> {
    let starts = [HooiStart::StHosvd, HooiStart::Random { seed: 3 }, given(x.shape(), ranks, 9)];
    let error = |start: &HooiStart<T>| Hooi::ranks(ranks).start(start.clone()).sweeps(0).fit(x).unwrap().relative_error;
    starts.into_iter().map(|start| (start.clone(), error(&start))).collect()
}

fn errors_never_rise<T: Scalar>() {
    for (seed, (shape, ranks)) in (0..).zip(PROBLEMS) {
        for x in [normal::<T>(shape, seed), noisy(shape, ranks, 0.2, seed + 50)] {
            for (start, before) in starts(&x, ranks) {
                let fit = Hooi::ranks(ranks).start(start.clone()).exactly(8).fit(&x).unwrap();
                let history = [&[before], &fit.history[..]].concat();
                assert_falling::<T>(&history);
                assert_eq!((fit.sweeps(), fit.stopped), (8, Stop::Sweeps));
                assert_eq!((fit.ranks(), fit.shape()), (ranks, shape));
                assert_orthonormal(fit.factors());
                assert_reported(&x, &fit.reconstruct().unwrap(), fit.relative_error);
                let last = fit.history[7];
                assert!((fit.relative_error.powi(2) - last.powi(2)).abs() < 64.0 * T::epsilon().f64(), "{shape:?}");
                let projected = Tucker::project(&x, fit.factors().to_vec()).unwrap();
                assert!(residual(projected.core(), fit.core()) < 1e2 * T::epsilon().f64(), "{shape:?} {start:?}");
            }
        }
    }
}

/// No sweeps: the projection on the start itself.
fn no_sweep_leaves_the_start<T: Scalar>() {
    let (shape, ranks) = ([7, 6, 5], [3, 2, 2]);
    let x = noisy::<T>(&shape, &ranks, 0.3, 1);
    let direct = StHosvd::ranks(ranks).fit(&x).unwrap();
    let fit = Hooi::ranks(ranks).sweeps(0).fit(&x).unwrap();
    assert_eq!((fit.factors(), fit.history.len(), fit.stopped), (direct.factors(), 0, Stop::Sweeps));
    assert_reported(&x, &fit.reconstruct().unwrap(), fit.relative_error);
    let HooiStart::Given(factors) = given::<T>(&shape, &ranks, 4) else { unreachable!() };
    let fit = Hooi::ranks(ranks).sweeps(0).start(HooiStart::Given(factors.clone())).fit(&x).unwrap();
    for (got, want) in fit.factors().iter().zip(&factors) {
        let [a, b] = [got, want].map(|u| u.matmul(&u.t()).unwrap());
        assert!(residual(&a, &b) < 16.0 * T::epsilon().f64());
    }
}

fn low_rank_is_recovered_from_a_random_start<T: Scalar>() {
    let shapes: [(&[usize], &[usize]); 4] = [
        (&[9, 8], &[2, 2]),
        (&[9, 8, 7], &[3, 2, 2]),
        (&[1, 9, 8, 1], &[1, 2, 2, 1]),
        (&[4, 3, 5, 4, 3], &[2, 2, 2, 2, 2]),
    ];
    for (seed, (shape, ranks)) in (0..).zip(shapes) {
        let x = low_rank::<T>(shape, ranks, seed);
        let fit = Hooi::ranks(ranks).start(HooiStart::Random { seed }).exactly(30).fit(&x).unwrap();
        assert!(fit.relative_error < 40.0 * T::epsilon().f64(), "{shape:?}: {fit}");
        assert_reported(&x, &fit.reconstruct().unwrap(), fit.relative_error);
    }
}

/// Of a matrix the best approximation is known (Eckart and Young 1936); of a vector there is nothing to lose.
fn matrices_and_vectors<T: Scalar>() {
    let x = noisy::<T>(&[12, 9], &[3, 3], 0.3, 5);
    let best = tail(&singular_values(&x, 0), 3) / x.norm().unwrap();
    for (start, _) in starts(&x, &[3, 3]) {
        let fit = Hooi::ranks([3, 3]).start(start).exactly(40).fit(&x).unwrap();
        assert!((fit.relative_error - best).abs() < 1e2 * T::epsilon().f64(), "{fit}, {best}");
    }
    let x = normal::<T>(&[9], 6);
    for start in [HooiStart::StHosvd, HooiStart::Random { seed: 3 }] {
        let fit = Hooi::ranks([1]).start(start).fit(&x).unwrap();
        assert!(fit.relative_error < 16.0 * T::epsilon().f64(), "{fit}");
    }
}

/// More vectors of a mode than the others together have room for: some of them meet nothing.
fn ranks_above_the_product_of_the_others<T: Scalar>() {
    let x = normal::<T>(&[6, 5, 4], 8);
    let best = Hooi::ranks([1, 1, 1]).exactly(60).fit(&x).unwrap();
    for (start, _) in starts(&x, &[4, 1, 1]) {
        let fit = Hooi::ranks([4, 1, 1]).start(start).exactly(60).fit(&x).unwrap();
        assert_orthonormal(fit.factors());
        assert_falling::<T>(&fit.history);
        assert_reported(&x, &fit.reconstruct().unwrap(), fit.relative_error);
        assert_eq!(fit.ranks(), &[4, 1, 1]);
    }
    // From the best rank-1 approximation's neighbourhood nothing is gained by vectors that meet nothing.
    let fit = Hooi::ranks([4, 1, 1]).exactly(60).fit(&x).unwrap();
    assert!(fit.relative_error <= best.relative_error + 1e-3, "{fit}, {best}");
}

in_both_precisions! {
    errors_never_rise
    no_sweep_leaves_the_start
    low_rank_is_recovered_from_a_random_start
    matrices_and_vectors
    ranks_above_the_product_of_the_others
}

/// At the end each factor holds the leading singular vectors of X seen through all others.
#[test]
fn a_fixed_point_is_best_in_every_mode() {
    let (shape, ranks) = ([9, 8, 7, 5], [3, 2, 3, 2]);
    let x = noisy::<f64>(&shape, &ranks, 0.5, 2);
    let direct = StHosvd::ranks(ranks).fit(&x).unwrap();
    for (start, _) in starts(&x, &ranks) {
        let fit = Hooi::ranks(ranks).start(start.clone()).exactly(200).fit(&x).unwrap();
        assert!(fit.relative_error < direct.relative_error, "{start:?}: nothing gained: {fit}, {direct}");
        for (mode, &rank) in ranks.iter().enumerate() {
            let others = (0..4).filter(|&m| m != mode);
            let seen = others.fold(x.clone(), |y, m| y.mode_product(m, &fit.factors()[m].t()).unwrap());
            let best: f64 = singular_values(&seen, mode)[..rank].iter().map(|s| s * s).sum();
            let kept = fit.core().norm().unwrap().powi(2);
            assert!((best / kept - 1.0).abs() < 1e-10, "{start:?} mode {mode}: {kept} of {best}");
        }
    }
}

/// Good starts and bad ones lead to one approximation where there is a clear one.
#[test]
fn all_starts_find_the_same_approximation() {
    let ranks = [3, 2, 3];
    let x = noisy::<f64>(&[9, 8, 7], &ranks, 0.1, 3);
    let fits: Vec<Tensor<f64, IxDyn>> = starts(&x, &ranks)
        .into_iter()
        .map(|(start, _)| Hooi::ranks(ranks).start(start).exactly(60).fit(&x).unwrap().reconstruct().unwrap())
        .collect();
    fits.windows(2).for_each(|pair| assert!(residual(&pair[0], &pair[1]) < 1e-9));
}

/// Columns that are not orthonormal stand for the space they span.
#[test]
fn a_given_start_is_orthonormalised() {
    let (shape, ranks) = ([7, 6, 5], [3, 2, 2]);
    let x = noisy::<f64>(&shape, &ranks, 0.3, 1);
    let factors = orthonormal(&shape, &ranks, 5);
    let mixed: Vec<Tensor<f64, Ix2>> =
        factors.iter().zip(ranks).map(|(f, r)| f.matmul(&matrix(r, r, 70)).unwrap()).collect();
    let [a, b] = [factors, mixed].map(|f| Hooi::ranks(ranks).start(HooiStart::Given(f)).exactly(3).fit(&x).unwrap());
    a.history.iter().zip(&b.history).for_each(|(a, b)| assert!((a - b).abs() < 1e-12));
    assert!(residual(&a.reconstruct().unwrap(), &b.reconstruct().unwrap()) < 1e-12);
}

#[test]
fn a_start_that_does_not_fit_is_an_error() {
    let x = normal::<f64>(&[7, 6, 5], 1);
    let fit = |factors: Vec<Tensor<f64, Ix2>>| {
        Hooi::ranks([3, 2, 2]).start(HooiStart::Given(factors)).fit(&x).map(drop).unwrap_err()
    };
    let good = orthonormal(&[7, 6, 5], &[3, 2, 2], 5);
    let error = fit(good[..2].to_vec());
    assert_eq!(error.kind(), ErrorKind::Shape, "{error}");
    assert!(error.to_string().contains("2 factors given"), "{error}");
    let error = fit([&good[..], &good[..1]].concat());
    assert!(error.to_string().contains("4 factors given"), "{error}");
    let error = fit(vec![good[0].clone(), good[2].clone(), good[1].clone()]);
    assert!(error.to_string().contains("the one of mode 1 is [5, 2]; it has to be 6 x 2"), "{error}");
    let error = fit(orthonormal(&[7, 6, 5], &[2, 2, 2], 5));
    assert!(error.to_string().contains("the one of mode 0 is [7, 2]; it has to be 7 x 3"), "{error}");
    let mut bad = good.clone();
    bad[1] = Tensor::from_fn([6, 2], |i| if i == [3, 1] { f64::NAN } else { 1.0 }).unwrap();
    let error = fit(bad);
    assert_eq!(error.kind(), ErrorKind::Value);
    assert_eq!(error.to_string(), "Hooi::start: entry [3, 1] is NaN; every entry has to be finite");
}
