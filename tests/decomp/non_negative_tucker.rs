//! Non-negative Tucker: errors that never rise, nothing below zero, and an end where no step helps.

use crate::problems::{
    PROBLEMS, assert_falling, assert_reported, assert_unit_columns, in_both_precisions, normal, residual, rng,
};
use ndarray::{Ix2, Ix3, IxDyn};
use std::ops::ControlFlow;
use tenfold::{
    Device, ErrorKind, Result, Scalar, Tensor,
    algebra::{MultiMode, contract},
    decomp::{Fit, NonNegativeStart, NonNegativeTucker, Stop, Tucker},
};

/// Uniform on [0, 1), with that share of zeros.
fn sparse(shape: &[usize], zeros: f64, seed: u64) -> Tensor<f64> {
    let x = Tensor::<f64, _>::uniform(IxDyn(shape), &mut rng(seed)).unwrap();
    x.map(|v| if v < zeros { 0.0 } else { v }).unwrap()
}

/// Core and factors without negative entries.
pub fn planted(shape: &[usize], ranks: &[usize], seed: u64) -> Tucker<f64> {
    let sizes = shape.iter().zip(ranks).zip(seed + 1..);
    let factors = sizes.map(|((&n, &r), seed)| sparse(&[n, r], 0.4, seed).into_order().unwrap()).collect();
    Tucker::new(sparse(ranks, 0.3, seed), factors).unwrap()
}

/// The tensor that such a decomposition stands for, with noise of that share of its norm.
fn noisy<T: Scalar>(shape: &[usize], ranks: &[usize], noise: f64, seed: u64) -> Tensor<T> {
    let (x, e) = (planted(shape, ranks, seed).reconstruct().unwrap(), normal::<f64>(shape, seed + 200));
    let share = noise * x.norm().unwrap() / e.norm().unwrap();
    x.add(&e.scale(share).unwrap()).unwrap().cast().unwrap()
}

fn given<T: Scalar>(tucker: &Tucker<f64>) -> NonNegativeStart<T> {
    let factors = tucker.factors().iter().map(|f| f.cast().unwrap()).collect();
    NonNegativeStart::Given(Tucker::new(tucker.core().cast().unwrap(), factors).unwrap())
}

fn starts<T: Scalar>(shape: &[usize], ranks: &[usize]) -> [NonNegativeStart<T>; 3] {
    [NonNegativeStart::Random, NonNegativeStart::Hosvd, given(&planted(shape, ranks, 99))]
}

/// What every result looks like.
#[track_caller]
pub fn assert_result<T: Scalar>(fit: &Fit<Tucker<T>>, shape: &[usize], ranks: &[usize]) {
    assert_eq!((fit.shape(), fit.ranks()), (shape, ranks));
    assert_unit_columns(fit.factors());
    assert!(fit.core().min().unwrap() >= 0.0, "{}", fit.core());
    fit.factors().iter().for_each(|f| assert!(f.min().unwrap() >= 0.0, "{f}"));
    assert!(fit.core().check_finite("core").is_ok());
}

fn errors_never_rise<T: Scalar>() {
    for (seed, (shape, ranks)) in (0..).zip(PROBLEMS) {
        for x in [normal::<T>(shape, seed), noisy(shape, ranks, 0.2, seed + 50), noisy(shape, ranks, 0.0, seed + 90)] {
            for start in starts(shape, ranks) {
                let solver = NonNegativeTucker::ranks(ranks).start(start).seed(seed);
                let before = solver.clone().sweeps(0).fit(&x).unwrap();
                assert_eq!((before.sweeps(), before.stopped), (0, Stop::Sweeps));
                assert_result(&before, shape, ranks);
                let fit = solver.exactly(12).fit(&x).unwrap();
                assert_falling::<T>(&[&[before.relative_error], &fit.history[..]].concat());
                assert_eq!((fit.sweeps(), fit.stopped), (12, Stop::Sweeps));
                assert_result(&fit, shape, ranks);
                assert_reported(&x, &fit.reconstruct().unwrap(), fit.relative_error);
                let last = fit.history[11];
                assert!((fit.relative_error.powi(2) - last.powi(2)).abs() < 256.0 * T::epsilon().f64(), "{shape:?}");
            }
        }
    }
}

/// From beside it, and from somewhere: of several starts one gets there, as with all methods of this kind.
fn a_planted_decomposition_is_found<T: Scalar>() {
    let problems: [(&[usize], &[usize]); 3] =
        [(&[12, 11], &[2, 2]), (&[12, 11, 10], &[3, 2, 3]), (&[6, 7, 5, 6], &[2, 2, 2, 2])];
    let slack = T::epsilon().f64().powf(0.6);
    for (seed, (shape, ranks)) in (0..).zip(problems) {
        let truth = planted(shape, ranks, seed);
        let x = truth.reconstruct().unwrap().cast::<T>().unwrap();
        let (core, factors) = truth.into_parts();
        let beside = |x: &Tensor<f64, Ix2>, seed| {
            let e = sparse(x.shape(), 0.0, seed).into_order::<Ix2>().unwrap().scale(0.05).unwrap();
            x.add(&e).unwrap()
        };
        let factors = factors.iter().zip(70..).map(|(f, seed)| beside(f, seed)).collect();
        let start = given(&Tucker::new(core, factors).unwrap());
        let solver = NonNegativeTucker::ranks(ranks).exactly(1500);
        let fit = solver.clone().start(start).fit(&x).unwrap();
        assert!(fit.relative_error < slack, "{shape:?}: {fit}");
        assert_reported(&x, &fit.reconstruct().unwrap(), fit.relative_error);
        // From afar one of a few starts gets there.
        let found = (0..6).find(|&seed| solver.clone().seed(seed).fit(&x).unwrap().relative_error < slack);
        assert!(found.is_some(), "{shape:?}");
    }
}

/// A vector or a matrix of rank one has an exact decomposition, and it is found at once.
fn vectors_and_outer_products<T: Scalar>() {
    for shape in [&[7][..], &[8, 6], &[2, 1, 9]] {
        let ones = vec![1; shape.len()];
        let factors =
            shape.iter().zip(3..).map(|(&n, seed)| sparse(&[n, 1], 0.3, seed).into_order().unwrap()).collect();
        let x = Tucker::new(Tensor::ones(IxDyn(&ones)).unwrap(), factors).unwrap().reconstruct().unwrap();
        let x = x.cast::<T>().unwrap();
        for start in [NonNegativeStart::Random, NonNegativeStart::Hosvd] {
            let fit = NonNegativeTucker::ranks(ones.clone()).start(start).exactly(3).fit(&x).unwrap();
            assert!(fit.relative_error < 32.0 * T::epsilon().f64(), "{shape:?}: {fit}");
        }
    }
    // Ranks above 1 of a vector.
    let x = sparse(&[9], 0.2, 1).cast::<T>().unwrap();
    let fit = NonNegativeTucker::ranks([3]).exactly(5).fit(&x).unwrap();
    assert!(fit.relative_error < 1e2 * T::epsilon().f64(), "{fit}");
}

/// The best that is not negative for entries below zero is zero.
fn what_is_negative_is_met_by_zero<T: Scalar>() {
    let x = noisy::<T>(&[6, 5, 4], &[2, 2, 2], 0.0, 3).shift(T::of(0.1)).unwrap().scale(T::of(-1.0)).unwrap();
    for start in starts(&[6, 5, 4], &[2, 2, 2]) {
        let fit = NonNegativeTucker::ranks([2, 2, 2]).start(start).exactly(4).fit(&x).unwrap();
        assert_eq!(fit.relative_error, 1.0);
        assert_eq!(fit.reconstruct().unwrap().max_abs().unwrap(), 0.0);
        assert_result(&fit, &[6, 5, 4], &[2, 2, 2]);
    }
    let zero = Tensor::<T, _>::zeros(IxDyn(&[4, 5, 3])).unwrap();
    for start in starts(&[4, 5, 3], &[2, 2, 2]) {
        let fit = NonNegativeTucker::ranks([2, 2, 2]).start(start).exactly(4).fit(&zero).unwrap();
        assert_eq!((fit.relative_error, fit.reconstruct().unwrap().max_abs().unwrap()), (0.0, 0.0));
        assert_result(&fit, &[4, 5, 3], &[2, 2, 2]);
    }
}

/// A column that starts as zero, and a slice of the core: both come back where they are of use.
fn what_is_dead_comes_back<T: Scalar>() {
    let (shape, ranks) = ([12, 11, 10], [3, 2, 3]);
    let truth = planted(&shape, &ranks, 1);
    let x = truth.reconstruct().unwrap().cast::<T>().unwrap();
    let (core, mut factors) = truth.into_parts();
    let without = |i: &[usize], mode: usize, x: &Tensor<f64, IxDyn>| if i[mode] == 1 { 0.0 } else { x.get(i).unwrap() };
    let no_slice = Tensor::from_fn(IxDyn(&ranks), |i| without(i, 2, &core)).unwrap();
    let start = given(&Tucker::new(no_slice, factors.clone()).unwrap());
    let fit = NonNegativeTucker::ranks(ranks).start(start).exactly(300).fit(&x).unwrap();
    assert!(fit.relative_error < 1e-3, "{fit}");
    let column = factors[0].clone().into_dyn();
    factors[0] = Tensor::from_fn([12, 3], |i| without(i, 1, &column)).unwrap();
    let start = given(&Tucker::new(core, factors).unwrap());
    let fit = NonNegativeTucker::ranks(ranks).start(start.clone()).exactly(300).fit(&x).unwrap();
    assert!(fit.relative_error < 1e-3, "{fit}");
    // As it is given: its part of the core is zero in the result.
    let fit = NonNegativeTucker::ranks(ranks).start(start).sweeps(0).fit(&x).unwrap();
    assert_result(&fit, &shape, &ranks);
    assert_eq!(fit.core().narrow(0, 1..2).unwrap().max_abs().unwrap(), 0.0);
}

/// Numbers whose squares leave the range: the same result, scaled.
fn extreme_scales<T: Scalar>() {
    let exponents = if T::epsilon().f64() < 1e-10 { [660, -660, -1000] } else { [66, -66, -100] };
    let x = noisy::<T>(&[6, 7, 5], &[2, 2, 2], 0.1, 3);
    for start in starts::<T>(&[6, 7, 5], &[2, 2, 2]) {
        let fit = |x: &Tensor<T>, start| NonNegativeTucker::ranks([2, 2, 2]).start(start).exactly(20).fit(x).unwrap();
        let plain = fit(&x, start.clone());
        for exponent in exponents {
            let by = |x: &Tensor<T>, e: i32| {
                let halves = [e / 2, e - e / 2].map(|e| T::of(2f64.powi(e)));
                x.scale(halves[0]).unwrap().scale(halves[1]).unwrap()
            };
            let start = match &start {
                NonNegativeStart::Given(start) => {
                    let core = by(start.core(), exponent);
                    NonNegativeStart::Given(Tucker::new(core, start.factors().to_vec()).unwrap())
                }
                start => start.clone(),
            };
            let scaled = fit(&by(&x, exponent), start);
            assert!((scaled.relative_error - plain.relative_error).abs() < 1e-3 * plain.relative_error, "{exponent}");
            let back = by(&scaled.reconstruct().unwrap(), -exponent);
            assert!(residual(&plain.reconstruct().unwrap(), &back) < 2e-2, "{exponent}");
        }
    }
}

in_both_precisions! {
    errors_never_rise
    a_planted_decomposition_is_found
    vectors_and_outer_products
    what_is_negative_is_met_by_zero
    what_is_dead_comes_back
    extreme_scales
}

/// At the end no step helps: the gradient is zero where an entry is positive, and not negative where it is zero.
#[test]
fn the_end_meets_the_conditions_of_karush_kuhn_and_tucker() {
    let (shape, ranks) = ([7, 6, 5], [2, 2, 2]);
    let x = noisy::<f64>(&shape, &ranks, 0.3, 4);
    for seed in 0..3 {
        let fit = NonNegativeTucker::ranks(ranks).seed(seed).exactly(2500).fit(&x).unwrap();
        let rest = fit.reconstruct().unwrap().sub(&x).unwrap();
        let size = x.norm().unwrap();
        let check = |name: &str, at: Vec<f64>, gradient: Vec<f64>, size: f64| {
            for (a, g) in at.iter().zip(gradient) {
                assert!(g > -1e-5 * size && a * g < 1e-5 * size * size.max(1.0), "{name}, seed {seed}: {a}, {g}");
            }
        };
        let zeros = fit.factors().iter().flat_map(|f| f.to_vec().unwrap()).filter(|&a| a == 0.0).count();
        assert!(zeros > 0, "no bound is met: the problem is too easy");
        let core = rest.multi_mode_product(fit.factors(), MultiMode { skip: None, transpose: true }).unwrap();
        check("core", fit.core().to_vec().unwrap(), core.to_vec().unwrap(), size);
        for mode in 0..3 {
            let others: Vec<usize> = (0..3).filter(|&m| m != mode).collect();
            let seen = fit.core().multi_mode_product(fit.factors(), MultiMode { skip: Some(mode), transpose: false });
            let gradient = contract(&rest, &others, &seen.unwrap(), &others).unwrap();
            check("a factor", fit.factors()[mode].to_vec().unwrap(), gradient.to_vec().unwrap(), size * size);
        }
    }
}

#[test]
fn a_seed_fixes_the_result_and_threads_do_not_matter() {
    let x = noisy::<f64>(&[30, 28, 26], &[4, 3, 5], 0.1, 2);
    let fit = |x: &Tensor<f64>, seed| NonNegativeTucker::ranks([4, 3, 5]).seed(seed).exactly(6).fit(x).unwrap();
    let one = fit(&x, 5);
    let again = fit(&x, 5);
    assert_eq!((&one.decomposition, &one.history), (&again.decomposition, &again.history));
    assert_ne!(one.history, fit(&x, 6).history);
    for threads in 1..=3 {
        let there = fit(&x.to_device(&Device::cpu().threads(threads)).unwrap(), 5);
        assert!(residual(&one.reconstruct().unwrap(), &there.reconstruct().unwrap()) < 1e-10, "{threads} threads");
    }
    // Laid out otherwise in memory.
    let back = x.permute(&[2, 0, 1]).unwrap().to_contiguous().unwrap().permute(&[1, 2, 0]).unwrap();
    assert!(!back.is_contiguous());
    assert!(residual(&one.reconstruct().unwrap(), &fit(&back, 5).reconstruct().unwrap()) < 1e-10);
}

/// Interrupted after k sweeps, the result is that of exactly k sweeps.
#[test]
fn every_sweep_is_reported_and_the_last_one_kept() {
    let x = noisy::<f64>(&[8, 7, 6], &[2, 2, 2], 0.2, 1);
    let solver = NonNegativeTucker::ranks([2, 2, 2]).seed(3);
    for sweeps in [1, 2, 5] {
        let mut seen = Vec::new();
        let watch = |p: &tenfold::decomp::Progress| {
            seen.push(*p);
            if p.done == sweeps { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let fit = solver.clone().exactly(9).fit_with(&x, watch).unwrap();
        let want = solver.clone().exactly(sweeps).fit(&x).unwrap();
        assert_eq!((fit.stopped, want.stopped), (Stop::Interrupted, Stop::Sweeps));
        assert_eq!((&fit.history, fit.relative_error), (&want.history, want.relative_error));
        assert_eq!(fit.decomposition, want.decomposition);
        assert!(seen.iter().zip(1..).all(|(p, k)| (p.done, p.total) == (k, 9)));
        assert_eq!(seen.iter().map(|p| p.relative_error.unwrap()).collect::<Vec<_>>(), fit.history);
    }
    let fit = solver.sweeps(5000).until_change(1e-4).fit(&x).unwrap();
    assert_eq!(fit.stopped, Stop::Converged);
    let changes: Vec<f64> = fit.history.windows(2).map(|w| (w[0] - w[1]).abs()).collect();
    let (last, before) = changes.split_last().unwrap();
    assert!(*last < 1e-4 && before.iter().all(|c| *c >= 1e-4), "{changes:?}");
    assert!(fit.to_string().ends_with("sweeps (converged)"), "{fit}");
}

/// A tensor of fixed order, and its own result as a start: nothing is lost on the way.
#[test]
fn a_result_is_a_start() {
    let x: Tensor<f64, Ix3> = noisy::<f64>(&[8, 7, 6], &[2, 2, 2], 0.2, 1).into_order().unwrap();
    let solver = NonNegativeTucker::ranks([2, 2, 2]);
    let first = solver.clone().exactly(10).fit(&x).unwrap();
    let start = NonNegativeStart::Given(first.decomposition.clone().into_dyn());
    let there = solver.clone().start(start.clone()).sweeps(0).fit(&x).unwrap();
    assert!((there.relative_error - first.relative_error).abs() < 1e-12);
    let more = solver.clone().start(start).exactly(10).fit(&x).unwrap();
    let whole = solver.exactly(20).fit(&x).unwrap();
    more.history.iter().zip(&whole.history[10..]).for_each(|(a, b)| assert!((a - b).abs() < 1e-8, "{a} {b}"));
}

#[track_caller]
fn assert_error<M>(result: Result<M>, kind: ErrorKind, text: &str) {
    let Err(error) = result else { panic!("should be an error: {text}") };
    assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
}

#[test]
fn what_makes_no_sense_is_an_error() {
    const FIT: &str = "NonNegativeTucker::fit";
    let x = noisy::<f64>(&[5, 4, 3], &[2, 2, 2], 0.0, 1);
    for (ranks, text) in [
        (vec![0, 2, 2], "rank 0 of mode 0: a mode of size 5 takes ranks from 1 to 5"),
        (vec![2, 5, 2], "rank 5 of mode 1: a mode of size 4 takes ranks from 1 to 4"),
        (vec![2, 2], "2 ranks [2, 2] for the 3 modes of shape [5, 4, 3]"),
    ] {
        assert_error(NonNegativeTucker::ranks(ranks).fit(&x), ErrorKind::Rank, &format!("{FIT}: {text}"));
    }
    let empty = Tensor::<f64, IxDyn>::zeros(IxDyn(&[3, 0])).unwrap();
    let text = format!("{FIT}: a tensor of shape [3, 0] has nothing to decompose");
    assert_error(NonNegativeTucker::ranks([1, 1]).fit(&empty), ErrorKind::Shape, &text);
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let bad = Tensor::from_fn([5, 4, 3], |i| if i == [3, 2, 1] { value } else { 1.0 }).unwrap();
        let text = format!("{FIT}: entry [3, 2, 1] is {value}; every entry has to be finite");
        assert_error(NonNegativeTucker::ranks([2, 2, 2]).fit(&bad), ErrorKind::Value, &text);
    }
    let huge = Tensor::<f64, Ix3>::full([5, 4, 3], 1e308).unwrap();
    let text = format!("{FIT}: the norm of the tensor is beyond what f64 holds; scale it down first");
    assert_error(NonNegativeTucker::ranks([2, 2, 2]).fit(&huge), ErrorKind::Value, &text);
}

#[test]
fn a_start_that_does_not_fit_is_an_error() {
    const START: &str = "NonNegativeTucker::start";
    let x = noisy::<f64>(&[5, 4, 3], &[2, 2, 2], 0.0, 1);
    let fit = |start| NonNegativeTucker::ranks([2, 2, 2]).start(NonNegativeStart::Given(start)).fit(&x);
    let text = |shape: &str, ranks: &str| {
        format!(
            "{START}: a start of shape {shape} and ranks {ranks} for a tensor of shape [5, 4, 3] and ranks [2, 2, 2]"
        )
    };
    assert_error(fit(planted(&[5, 4, 2], &[2, 2, 2], 1)), ErrorKind::Shape, &text("[5, 4, 2]", "[2, 2, 2]"));
    assert_error(fit(planted(&[5, 4, 3], &[2, 2, 1], 1)), ErrorKind::Shape, &text("[5, 4, 3]", "[2, 2, 1]"));
    assert_error(fit(planted(&[5, 4], &[2, 2], 1)), ErrorKind::Shape, &text("[5, 4]", "[2, 2]"));
    let (core, mut factors) = planted(&[5, 4, 3], &[2, 2, 2], 1).into_parts();
    factors[1] = Tensor::from_fn([4, 2], |i| if i == [3, 1] { -0.25 } else { 1.0 }).unwrap();
    let negative = Tucker::new(core.clone(), factors.clone()).unwrap();
    assert_error(
        fit(negative),
        ErrorKind::Value,
        &format!("{START}: a start with a negative entry, -0.25; none may be"),
    );
    factors[1] = Tensor::from_fn([4, 2], |i| if i == [3, 1] { f64::NAN } else { 1.0 }).unwrap();
    let bad = Tucker::new(core, factors).unwrap();
    assert_error(fit(bad), ErrorKind::Value, &format!("{START}: entry [3, 1] is NaN; every entry has to be finite"));
}

/// Several starts: the given one first, then the following seeds; the best is kept, to the bit.
#[test]
fn the_best_of_several_starts_is_kept() {
    let x = normal::<f64>(&[6, 5, 4], 1).abs().unwrap();
    let one = |seed| NonNegativeTucker::ranks([2, 2, 2]).seed(seed).exactly(15).fit(&x).unwrap();
    let alone: Vec<_> = (10..14).map(one).collect();
    let mut seen = Vec::new();
    let several = NonNegativeTucker::ranks([2, 2, 2]).seed(10).starts(4).exactly(15);
    let several = several
        .fit_with(&x, |p| {
            seen.push((p.done, p.total));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let best = alone.iter().min_by(|a, b| a.relative_error.total_cmp(&b.relative_error)).unwrap();
    assert_eq!((&several.history, &several.decomposition), (&best.history, &best.decomposition));
    assert_eq!(seen, (1..=60).map(|done| (done, 60)).collect::<Vec<_>>());
    let errors: Vec<f64> = alone.iter().map(|f| f.relative_error).collect();
    assert!(errors.iter().any(|e| *e > best.relative_error + 1e-6), "the starts should differ: {errors:?}");
}
