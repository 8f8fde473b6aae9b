//! What makes no sense is an error that says so; what is odd but has an answer gets it.

use crate::problems::{assert_orthonormal, in_both_precisions, low_rank, noisy, normal, residual};
use ndarray::{Ix0, Ix1, Ix3, IxDyn};
use tenfold::{
    Error, ErrorKind, Result, Scalar, Tensor,
    decomp::{
        Cp, CpAls, CpStart, Fit, Hooi, HooiStart, Hosvd, Method, NonNegativeStart, NonNegativeTucker, Progress,
        StHosvd, Stop, Tucker,
    },
};

const RANDOMIZED: Method = Method::Randomized { oversampling: 2, iterations: 1, seed: 5 };

#[track_caller]
fn assert_error<M>(result: Result<M>, kind: ErrorKind, text: &str) {
    let Err(error) = result else { panic!("should be an error: {text}") };
    assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
}

#[test]
fn ranks_that_do_not_fit_are_errors() {
    let x = normal::<f64>(&[5, 4, 3], 1);
    for (ranks, text) in [
        (vec![0, 2, 2], "rank 0 of mode 0: a mode of size 5 takes ranks from 1 to 5"),
        (vec![2, 5, 2], "rank 5 of mode 1: a mode of size 4 takes ranks from 1 to 4"),
        (vec![2, 2, usize::MAX], "rank 18446744073709551615 of mode 2: a mode of size 3 takes ranks from 1 to 3"),
        (vec![2, 2], "2 ranks [2, 2] for the 3 modes of shape [5, 4, 3]"),
        (vec![2, 2, 2, 1], "4 ranks [2, 2, 2, 1] for the 3 modes of shape [5, 4, 3]"),
        (vec![], "0 ranks [] for the 3 modes of shape [5, 4, 3]"),
    ] {
        assert_error(Hosvd::ranks(ranks.clone()).fit(&x), ErrorKind::Rank, &format!("Hosvd::fit: {text}"));
        assert_error(StHosvd::ranks(ranks.clone()).fit(&x), ErrorKind::Rank, &format!("StHosvd::fit: {text}"));
        for start in [HooiStart::StHosvd, HooiStart::Random { seed: 0 }, HooiStart::Given(vec![])] {
            let fit = Hooi::ranks(ranks.clone()).start(start).fit(&x);
            assert_error(fit, ErrorKind::Rank, &format!("Hooi::fit: {text}"));
        }
    }
    for rank in [0, 13, usize::MAX] {
        let text = format!("CpAls::fit: rank {rank}: a tensor of shape [5, 4, 3] takes ranks from 1 to 12");
        assert_error(CpAls::rank(rank).fit(&x), ErrorKind::Rank, &text);
    }
    // The most that is allowed: rank 12 is exact for every tensor of this shape.
    let fit = CpAls::rank(12).sweeps(400).fit(&x).unwrap();
    assert!(fit.relative_error < 1e-2, "{fit}");
    assert_error(
        CpAls::rank(2).fit(&normal::<f64>(&[9], 1)),
        ErrorKind::Rank,
        "CpAls::fit: rank 2: a tensor of shape [9] takes ranks from 1 to 1",
    );
}

#[test]
fn tolerances_outside_their_range_are_errors() {
    let x = normal::<f64>(&[5, 4, 3], 1);
    let single = x.cast::<f32>().unwrap();
    for tolerance in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.1, -0.0, 0.0, 1.0, 2.0, 1e-14] {
        let text = format!("tolerance {tolerance}: a relative error in f64 lies from 1e-13 to below 1");
        assert_error(Hosvd::tolerance(tolerance).fit(&x), ErrorKind::Value, &format!("Hosvd::fit: {text}"));
        assert_error(StHosvd::tolerance(tolerance).fit(&x), ErrorKind::Value, &format!("StHosvd::fit: {text}"));
    }
    let text = "StHosvd::fit: tolerance 0.000001: a relative error in f32 lies from 1e-5 to below 1";
    assert_error(StHosvd::tolerance(1e-6).fit(&single), ErrorKind::Value, text);
    // The ends of the range.
    for tolerance in [1e-13, 1.0 - 1e-16] {
        assert!(StHosvd::tolerance(tolerance).fit(&x).unwrap().relative_error <= tolerance);
        assert!(Hosvd::tolerance(tolerance).fit(&x).unwrap().relative_error <= tolerance);
    }
    assert!(StHosvd::tolerance(1e-5).fit(&single).unwrap().relative_error <= 1e-5);
    assert!(Hosvd::tolerance(1e-5).fit(&single).unwrap().relative_error <= 1e-5);
    let low = low_rank::<f32>(&[9, 8, 7], &[2, 2, 2], 1);
    assert_eq!(StHosvd::tolerance(1e-5).fit(&low).unwrap().ranks(), &[2, 2, 2]);
}

#[test]
fn an_order_that_is_no_permutation_is_an_error() {
    let x = normal::<f64>(&[5, 4, 3], 1);
    for order in [vec![0, 1], vec![0, 1, 1], vec![1, 2, 3], vec![0, 1, 2, 3], vec![]] {
        let text = format!("StHosvd::order: {order:?} does not name each mode of shape [5, 4, 3] once");
        assert_error(StHosvd::ranks([2, 2, 2]).order(order.clone()).fit(&x), ErrorKind::Shape, &text);
        assert_error(StHosvd::tolerance(0.1).order(order).fit(&x), ErrorKind::Shape, &text);
    }
}

/// Every solver by every method, on a tensor with one entry that is no number.
fn entries_that_are_not_finite_are_named<T: Scalar>() {
    // A mode longer than the others together, to go by its SVD.
    for shape in [[4, 5, 6], [40, 3, 4]] {
        for (index, value) in [([2, 1, 3], T::nan()), ([0, 0, 0], T::infinity()), ([3, 2, 1], T::neg_infinity())] {
            let x = Tensor::<T, Ix3>::from_fn(shape, |i| if i == index { value } else { T::of(i[0] as f64) }).unwrap();
            let methods = [Method::Auto, Method::Gram, Method::Svd, RANDOMIZED];
            let mut errors: Vec<Error> = Vec::new();
            for method in methods {
                errors.extend(Hosvd::ranks([2, 2, 2]).method(method).fit(&x).err());
                errors.extend(Hosvd::tolerance(0.1).method(method).fit(&x).err());
                errors.extend(StHosvd::ranks([2, 2, 2]).method(method).fit(&x).err());
                errors.extend(StHosvd::tolerance(0.1).method(method).fit(&x).err());
                errors.extend(StHosvd::ranks([2, 2, 2]).method(method).order([2, 1, 0]).fit(&x).err());
            }
            for start in [HooiStart::StHosvd, HooiStart::Random { seed: 1 }] {
                errors.extend(Hooi::ranks([2, 2, 2]).start(start).fit(&x).err());
            }
            for start in [CpStart::Random, CpStart::Hosvd] {
                errors.extend(CpAls::rank(2).start(start).fit(&x).err());
            }
            assert_eq!(errors.len(), 24, "some solver took it");
            for error in errors {
                assert_eq!(error.kind(), ErrorKind::Value, "{error}");
                let text = format!("entry {index:?} is {value}; every entry has to be finite");
                assert_eq!(error.message(), text, "{error}");
            }
            // The index is the tensor's, not that of the block it is a view of.
            let error = StHosvd::ranks([1, 2, 2]).fit(&x.permute(&[1, 2, 0]).unwrap()).unwrap_err();
            assert!(error.message().starts_with(&format!("entry {:?} is", [index[1], index[2], index[0]])), "{error}");
        }
    }
}

#[test]
fn empty_tensors_are_errors() {
    for shape in [&[0][..], &[3, 0], &[0, 4, 5], &[4, 5, 0]] {
        let x = Tensor::<f64, IxDyn>::zeros(IxDyn(shape)).unwrap();
        let ranks = vec![1; shape.len()];
        let text = |operation: &str| format!("{operation}: a tensor of shape {shape:?} has nothing to decompose");
        assert_error(Hosvd::ranks(ranks.clone()).fit(&x), ErrorKind::Shape, &text("Hosvd::fit"));
        assert_error(Hosvd::tolerance(0.1).fit(&x), ErrorKind::Shape, &text("Hosvd::fit"));
        assert_error(StHosvd::ranks(ranks.clone()).fit(&x), ErrorKind::Shape, &text("StHosvd::fit"));
        assert_error(StHosvd::tolerance(0.1).fit(&x), ErrorKind::Shape, &text("StHosvd::fit"));
        assert_error(Hooi::ranks(ranks).fit(&x), ErrorKind::Shape, &text("Hooi::fit"));
        assert_error(CpAls::rank(1).fit(&x), ErrorKind::Shape, &text("CpAls::fit"));
    }
    // A single number has no modes.
    let number: Tensor<f64, Ix0> = Tensor::<f64, Ix1>::ones([1]).unwrap().index_mode(0, 0).unwrap();
    let text = |operation: &str| format!("{operation}: a tensor of shape [] has nothing to decompose");
    assert_error(Hosvd::ranks([]).fit(&number), ErrorKind::Shape, &text("Hosvd::fit"));
    assert_error(StHosvd::tolerance(0.1).fit(&number), ErrorKind::Shape, &text("StHosvd::fit"));
    let random = Hooi::ranks([]).start(HooiStart::Random { seed: 1 });
    assert_error(random.fit(&number), ErrorKind::Shape, &text("Hooi::fit"));
    assert_error(CpAls::rank(1).fit(&number), ErrorKind::Shape, &text("CpAls::fit"));
}

/// Each way to decompose a tensor of order 3 to ranks of 2, and whether the result meets it.
fn every_result<T: Scalar>(x: &Tensor<T, Ix3>, mut check: impl FnMut(&str, Tensor<T, Ix3>, f64, &[f64])) {
    let mut tucker = |name: &str, fit: Result<Fit<Tucker<T, Ix3>>>| {
        let fit = fit.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_orthonormal(fit.factors());
        check(name, fit.reconstruct().unwrap(), fit.relative_error, &fit.history);
    };
    for method in [Method::Auto, Method::Gram, Method::Svd, RANDOMIZED] {
        let name = format!("{method:?}");
        tucker(&name, Hosvd::ranks([2, 2, 2]).method(method).fit(x));
        tucker(&name, Hosvd::tolerance(0.3).method(method).fit(x));
        tucker(&name, StHosvd::ranks([2, 2, 2]).method(method).fit(x));
        tucker(&name, StHosvd::tolerance(0.3).method(method).fit(x));
    }
    for start in [HooiStart::StHosvd, HooiStart::Random { seed: 1 }] {
        tucker(&format!("{start:?}"), Hooi::ranks([2, 2, 2]).start(start).fit(x));
    }
    for start in [CpStart::Random, CpStart::Hosvd] {
        let fit = CpAls::rank(2).start(start.clone()).fit(x).unwrap();
        assert!(fit.factors().iter().all(|f| f.check_finite("factor").is_ok()));
        check(&format!("CP, {start:?}"), fit.reconstruct().unwrap(), fit.relative_error, &fit.history);
    }
}

fn zero_is_met_exactly<T: Scalar>() {
    let x = Tensor::<T, Ix3>::zeros([4, 5, 3]).unwrap();
    every_result(&x, |name, y, error, history| {
        assert_eq!((y.max_abs().unwrap(), error), (0.0, 0.0), "{name}");
        assert!(history.iter().all(|e| *e == 0.0), "{name}: {history:?}");
    });
    for fit in [Hosvd::tolerance(0.1).fit(&x).unwrap(), StHosvd::tolerance(0.1).fit(&x).unwrap()] {
        assert_eq!(fit.ranks(), &[1, 1, 1]);
        assert!(fit.compression_ratio() > 1.0);
    }
    let fit = CpAls::rank(2).fit(&x).unwrap();
    assert_eq!(fit.weights().to_vec().unwrap(), [T::zero(); 2]);
}

fn constant_tensors_have_rank_one<T: Scalar>() {
    for value in [1.0, -3.0, 1e-3] {
        let x = Tensor::<T, Ix3>::full([4, 5, 3], T::of(value)).unwrap();
        every_result(&x, |name, y, error, _| {
            assert!(residual(&x, &y) < 1e2 * T::epsilon().f64(), "{name}: {:e}", residual(&x, &y));
            assert!(error < 1e2 * T::epsilon().f64(), "{name}: {error:e}");
        });
        for fit in [Hosvd::tolerance(1e-4).fit(&x).unwrap(), StHosvd::tolerance(1e-4).fit(&x).unwrap()] {
            assert_eq!(fit.ranks(), &[1, 1, 1]);
        }
    }
}

/// One entry, and tensors of one entry.
fn single_entries<T: Scalar>() {
    for shape in [&[1][..], &[1, 1], &[1, 1, 1, 1]] {
        let x = Tensor::<T, _>::full(IxDyn(shape), T::of(-2.5)).unwrap();
        let ranks = vec![1; shape.len()];
        assert!(residual(&x, &Hosvd::ranks(ranks.clone()).fit(&x).unwrap().reconstruct().unwrap()) < 1e-6);
        assert!(residual(&x, &StHosvd::tolerance(0.1).fit(&x).unwrap().reconstruct().unwrap()) < 1e-6);
        assert!(residual(&x, &Hooi::ranks(ranks).fit(&x).unwrap().reconstruct().unwrap()) < 1e-6);
        let fit = CpAls::rank(1).fit(&x).unwrap();
        assert!((fit.weights().get(&[0]).unwrap().f64() - 2.5).abs() < 1e-6);
        assert!(residual(&x, &fit.reconstruct().unwrap()) < 1e-6);
    }
    let x = Tensor::<T, Ix3>::from_fn([4, 5, 3], |i| T::of(if i == [2, 3, 1] { 7.0 } else { 0.0 })).unwrap();
    every_result(&x, |name, y, _, _| assert!(residual(&x, &y) < 1e2 * T::epsilon().f64(), "{name}"));
}

/// Numbers whose squares leave the range: the same results, scaled.
fn extreme_scales<T: Scalar>() {
    let double = T::epsilon().f64() < 1e-10;
    // Powers of two, by which scaling is exact; the smallest ones are subnormal.
    let exponents: &[i32] = if double { &[660, 1000, -660, -1010, -1040] } else { &[66, 100, 124, -66, -100, -130] };
    let x: Tensor<T, Ix3> = noisy::<T>(&[6, 7, 5], &[2, 2, 2], 0.1, 3).into_order().unwrap();
    let mut plain = Vec::new();
    every_result(&x, |_, y, error, history| plain.push((y, error, history.to_vec())));
    for &exponent in exponents {
        let halves = [exponent / 2, exponent - exponent / 2].map(|e| T::of(2f64.powi(e)));
        let scaled = x.scale(halves[0]).unwrap().scale(halves[1]).unwrap();
        let subnormal = exponent < if double { -1020 } else { -124 };
        // `Method::Auto` may take singles for the Gram matrix here: that turns the factors by 1e-7, and changes the error by less.
        let (slack, turned) = if subnormal { (1e-2, 1e-2) } else { (1e4 * T::epsilon().f64(), 1e-5f64) };
        let turned = turned.max(slack);
        let mut expected = plain.iter();
        every_result(&scaled, |name, y, error, history| {
            let (want, want_error, want_history) = expected.next().unwrap();
            let back = y.cast::<f64>().unwrap().scale(2f64.powi(-(exponent / 2))).unwrap();
            let back = back.scale(2f64.powi(exponent / 2 - exponent)).unwrap();
            let apart = residual(&want.cast::<f64>().unwrap(), &back);
            assert!(apart < turned, "{name} at 2^{exponent}: {apart:e} apart");
            assert!(
                (error - want_error).abs() < slack.max(1e-3 * turned),
                "{name} at 2^{exponent}: {error}, not {want_error}"
            );
            assert!(
                history.first().is_none_or(|e| (e - want_history[0]).abs() < slack.max(1e-3 * turned)),
                "{name} at 2^{exponent}"
            );
        });
        assert!(expected.next().is_none());
    }
}

/// A norm that the type does not hold could not stand in the core.
fn a_norm_beyond_the_range_is_an_error<T: Scalar>() {
    let x = Tensor::<T, Ix3>::full([4, 5, 3], T::max_value() / T::of(2.0)).unwrap();
    let message = format!("the norm of the tensor is beyond what {} holds; scale it down first", T::DTYPE);
    let errors = [
        Hosvd::ranks([1, 1, 1]).fit(&x).map(drop).unwrap_err(),
        StHosvd::tolerance(0.1).fit(&x).map(drop).unwrap_err(),
        StHosvd::ranks([1, 1, 1]).method(Method::Svd).fit(&x).map(drop).unwrap_err(),
        StHosvd::ranks([1, 1, 1]).method(RANDOMIZED).fit(&x).map(drop).unwrap_err(),
        Hooi::ranks([1, 1, 1]).fit(&x).map(drop).unwrap_err(),
        CpAls::rank(1).fit(&x).map(drop).unwrap_err(),
    ];
    for error in errors {
        assert_eq!((error.kind(), error.message()), (ErrorKind::Value, message.as_str()), "{error}");
    }
}

in_both_precisions! {
    entries_that_are_not_finite_are_named
    zero_is_met_exactly
    constant_tensors_have_rank_one
    single_entries
    extreme_scales
    a_norm_beyond_the_range_is_an_error
}

/// Any number of sweeps and starts is a bound: what is reached before counts.
#[test]
fn sweeps_without_a_bound() {
    let x = noisy::<f64>(&[5, 4, 3], &[1, 1, 1], 0.1, 3);
    let mut totals = Vec::new();
    let mut watch = |p: &Progress| {
        totals.push(p.total);
        std::ops::ControlFlow::Continue(())
    };
    let cp = CpAls::rank(1).sweeps(usize::MAX).starts(2).fit_with(&x, &mut watch).unwrap();
    let tucker = NonNegativeTucker::ranks([1, 1, 1]).sweeps(usize::MAX).starts(2).fit_with(&x, &mut watch).unwrap();
    assert_eq!((cp.stopped, tucker.stopped), (Stop::Converged, Stop::Converged));
    assert!(totals.iter().all(|&total| total == usize::MAX));
}

#[test]
fn a_change_that_is_no_number_is_an_error() {
    let x = normal::<f64>(&[5, 4, 3], 1);
    let text = "until_change: NaN is no change to stop at; a number from 0 up is";
    assert_error(CpAls::rank(1).until_change(f64::NAN).fit(&x), ErrorKind::Value, text);
    assert_error(Hooi::ranks([1, 1, 1]).until_change(f64::NAN).fit(&x), ErrorKind::Value, text);
    assert_error(NonNegativeTucker::ranks([1, 1, 1]).until_change(f64::NAN).fit(&x), ErrorKind::Value, text);
}

#[test]
fn starts_too_large_to_compute_with_are_errors() {
    let x = Tensor::<f64, _>::ones(IxDyn(&[2, 2])).unwrap();
    let factors = vec![Tensor::full([2, 1], 1e300).unwrap(); 2];
    let text = "CpAls::start: the norms of the given factors but that of mode 0 multiply to 1.4142135623730952e300, whose square f64 does not hold; scale them down";
    for solver in [CpAls::rank(1), CpAls::rank(1).non_negative()] {
        assert_error(solver.start(CpStart::Given(factors.clone())).fit(&x), ErrorKind::Value, text);
    }
    let start = NonNegativeStart::Given(Tucker::new(Tensor::ones(IxDyn(&[1, 1])).unwrap(), factors).unwrap());
    let text = "fit: the relative error is NaN: numbers left the range of their type; start from smaller ones";
    assert_error(NonNegativeTucker::ranks([1, 1]).start(start).fit(&x), ErrorKind::Convergence, text);
}

/// Any oversampling is a wish, not an allocation.
#[test]
fn oversampling_beyond_the_mode_is_cut_to_it() {
    let x = noisy::<f64>(&[9, 8, 7], &[2, 2, 2], 0.1, 3);
    let method = Method::Randomized { oversampling: usize::MAX, iterations: 0, seed: 1 };
    let exact = StHosvd::ranks([2, 2, 2]).method(Method::Svd).fit(&x).unwrap();
    let fit = StHosvd::ranks([2, 2, 2]).method(method).fit(&x).unwrap();
    assert!((fit.relative_error - exact.relative_error).abs() < 1e-10, "{fit}, {exact}");
}

/// A format may have no components at all: it stands for zero.
#[test]
fn no_components_stand_for_zero() {
    let none = |n| Tensor::<f64, ndarray::Ix2>::zeros([n, 0]).unwrap();
    let cp: Cp<f64> = Cp::new(Tensor::zeros([0]).unwrap(), vec![none(3), none(4)]).unwrap();
    let tucker = Tucker::new(Tensor::<f64, _>::zeros(IxDyn(&[0, 0])).unwrap(), vec![none(3), none(4)]).unwrap();
    let zero = Tensor::<f64, _>::zeros(IxDyn(&[3, 4])).unwrap();
    assert_eq!(cp.reconstruct().unwrap(), zero);
    assert_eq!(tucker.reconstruct().unwrap(), zero);
    assert_eq!((cp.norm().unwrap(), tucker.norm().unwrap()), (0.0, 0.0));
    assert_eq!((cp.get(&[2, 3]).unwrap(), tucker.get(&[2, 3]).unwrap()), (0.0, 0.0));
    assert_eq!(cp.canonicalize().unwrap().reconstruct().unwrap(), zero);
    assert_eq!(tucker.canonicalize().unwrap().reconstruct().unwrap(), zero);
    assert_eq!(cp.relative_error(&zero).unwrap(), 0.0);
    assert_eq!(tucker.relative_error(&Tensor::ones(IxDyn(&[3, 4])).unwrap()).unwrap(), 1.0);
}

#[test]
fn an_error_that_is_no_number_says_why() {
    let x = normal::<f64>(&[4, 3, 2], 1);
    let tucker = StHosvd::ranks([2, 2, 2]).fit(&x).unwrap().into_inner();
    let cp = CpAls::rank(2).exactly(2).fit(&x).unwrap().into_inner();
    let hole = Tensor::from_fn(vec![4, 3, 2], |i| if i == [2, 1, 0] { f64::NAN } else { 1.0 }).unwrap();
    let text = "relative_error: entry [2, 1, 0] is NaN; every entry has to be finite";
    assert_eq!(tucker.relative_error(&hole).unwrap_err().to_string(), text);
    assert_eq!(cp.relative_error(&hole).unwrap_err().to_string(), text);
    let (core, mut factors) = tucker.into_parts();
    factors[1] = factors[1].scale(f64::NAN).unwrap();
    let broken = Tucker::new(core, factors).unwrap();
    assert_eq!(broken.relative_error(&x).unwrap_err().kind(), ErrorKind::Value);
    let number = Tucker::<f64, Ix0>::new(Tensor::from_vec([], vec![1.0]).unwrap(), vec![]).unwrap();
    let nan = Tensor::<f64, Ix0>::from_vec([], vec![f64::NAN]).unwrap();
    assert_eq!(number.relative_error(&nan).unwrap_err().kind(), ErrorKind::Value);
}
