//! The same problem again: from the same seed, by other numbers of threads, laid out otherwise in memory, watched, interrupted.

use crate::problems::{in_both_precisions, noisy, normal, residual};
use ndarray::{IxDyn, Slice, SliceInfo, SliceInfoElem};
use std::ops::ControlFlow;
use tenfold::{
    Device, ErrorKind, Result, Scalar, Tensor,
    decomp::{Cp, CpAls, CpStart, Fit, Hooi, HooiStart, Hosvd, Method, Progress, StHosvd, Stop, Tucker},
};

/// The numbers of a result: every factor, then core or weights.
fn numbers<T: Scalar, D: ndarray::Dimension>(first: &Tensor<T, D>, factors: &[Tensor<T, ndarray::Ix2>]) -> Vec<u64> {
    let bits = |x: Vec<T>| x.into_iter().map(|v| v.f64().to_bits()).collect::<Vec<_>>();
    factors.iter().flat_map(|f| bits(f.to_vec().unwrap())).chain(bits(first.to_vec().unwrap())).collect()
}

/// What a solver made of a tensor.
struct Outcome<T: Scalar> {
    bits: Vec<u64>,
    reconstruction: Tensor<T, IxDyn>,
    relative_error: f64,
    history: Vec<f64>,
}

fn tucker<T: Scalar>(fit: Result<Fit<Tucker<T>>>) -> Outcome<T> {
    let fit = fit.unwrap();
    Outcome {
        bits: numbers(fit.core(), fit.factors()),
        reconstruction: fit.reconstruct().unwrap(),
        relative_error: fit.relative_error,
        history: fit.history,
    }
}

fn cp<T: Scalar>(fit: Result<Fit<Cp<T>>>) -> Outcome<T> {
    let fit = fit.unwrap();
    Outcome {
        bits: numbers(fit.weights(), fit.factors()),
        reconstruction: fit.reconstruct().unwrap(),
        relative_error: fit.relative_error,
        history: fit.history,
    }
}

type Solve<T> = fn(&Tensor<T, IxDyn>) -> Outcome<T>;

const RANDOMIZED: Method = Method::Randomized { oversampling: 4, iterations: 1, seed: 2 };

/// How far two results may be apart where singular vectors come from a Gram matrix of singles, which `Method::Auto` takes for large
/// tails; and where everything is in the tensor's precision.
const AUTO: f64 = 1e-5;
const EXACT: f64 = 0.0;

/// Every solver on a tensor of order 3 with sizes of at least 5, each way that it can go.
fn solvers<T: Scalar>() -> [(&'static str, f64, Solve<T>); 11] {
    [
        ("hosvd", AUTO, |x| tucker(Hosvd::ranks([4, 3, 5]).fit(x))),
        ("hosvd by svd", EXACT, |x| tucker(Hosvd::ranks([4, 3, 5]).method(Method::Svd).fit(x))),
        ("hosvd to a tolerance", AUTO, |x| tucker(Hosvd::tolerance(0.3).fit(x))),
        ("st-hosvd", AUTO, |x| tucker(StHosvd::ranks([4, 3, 5]).fit(x))),
        ("st-hosvd by gram", EXACT, |x| tucker(StHosvd::ranks([4, 3, 5]).method(Method::Gram).order([2, 0, 1]).fit(x))),
        ("st-hosvd, randomised", EXACT, |x| tucker(StHosvd::ranks([4, 3, 5]).method(RANDOMIZED).fit(x))),
        ("st-hosvd to a tolerance", AUTO, |x| tucker(StHosvd::tolerance(0.15).fit(x))),
        ("hooi", AUTO, |x| tucker(Hooi::ranks([4, 3, 5]).exactly(5).fit(x))),
        ("hooi from random", EXACT, |x| {
            tucker(Hooi::ranks([4, 3, 5]).start(HooiStart::Random { seed: 1 }).exactly(5).fit(x))
        }),
        ("cp from random", EXACT, |x| cp(CpAls::rank(3).seed(4).exactly(6).fit(x))),
        ("cp from hosvd", EXACT, |x| cp(CpAls::rank(3).start(CpStart::Hosvd).exactly(6).fit(x))),
    ]
}

/// Large enough to be shared out between threads, with ranks that are clear.
fn large<T: Scalar>() -> Tensor<T, IxDyn> {
    noisy(&[70, 60, 50], &[4, 3, 5], 0.1, 1)
}

fn on_threads<T: Scalar>(x: &Tensor<T, IxDyn>, threads: usize) -> Tensor<T, IxDyn> {
    x.to_device(&Device::cpu().threads(threads)).unwrap()
}

#[track_caller]
fn assert_alike<T: Scalar>(name: &str, turned: f64, a: &Outcome<T>, b: &Outcome<T>) {
    let slack = 2e3 * T::epsilon().f64();
    let apart = residual(&a.reconstruction, &b.reconstruction);
    assert!(apart < slack.max(turned), "{name}: the reconstructions are {apart:e} apart");
    // Turned factors change the error by far less.
    let slack = slack.max(1e-3 * turned);
    assert!((a.relative_error - b.relative_error).abs() < slack, "{name}");
    assert_eq!(a.history.len(), b.history.len(), "{name}");
    a.history.iter().zip(&b.history).for_each(|(a, b)| assert!((a - b).abs() < slack, "{name}: {a} {b}"));
}

fn the_same_seed_gives_the_same_bits<T: Scalar>() {
    for threads in 1..=3 {
        let x = on_threads(&large::<T>(), threads);
        for (name, _, solve) in solvers::<T>() {
            let (a, b) = (solve(&x), solve(&x));
            assert_eq!(a.bits, b.bits, "{name} on {threads} threads");
            assert_eq!((a.relative_error, a.history), (b.relative_error, b.history), "{name} on {threads} threads");
        }
    }
}

fn numbers_of_threads_agree_to_rounding<T: Scalar>() {
    let x = large::<T>();
    for (name, turned, solve) in solvers::<T>() {
        let one = solve(&on_threads(&x, 1));
        for threads in [2, 3] {
            assert_alike(name, turned, &one, &solve(&on_threads(&x, threads)));
        }
    }
}

/// The same entries as views of larger or otherwise ordered blocks.
fn strided<T: Scalar>(x: &Tensor<T, IxDyn>) -> Vec<(&'static str, Tensor<T, IxDyn>)> {
    let permuted = |order: &[usize]| {
        let mut back = vec![0; order.len()];
        order.iter().enumerate().for_each(|(i, &m)| back[m] = i);
        x.permute(order).unwrap().to_contiguous().unwrap().permute(&back).unwrap()
    };
    let slice = |x: &Tensor<T, IxDyn>, parts: Vec<Slice>| {
        let parts: Vec<SliceInfoElem> = parts.into_iter().map(SliceInfoElem::from).collect();
        x.slice(SliceInfo::<_, IxDyn, IxDyn>::try_from(parts).unwrap()).unwrap()
    };
    let reversed = vec![Slice::new(0, None, -1); 3];
    let shape: Vec<usize> = x.shape().iter().map(|n| 2 * n + 1).collect();
    let wide = Tensor::from_fn(IxDyn(&shape), |i| {
        let inside = i.iter().all(|i| i % 2 == 1);
        if inside { x.get(&i.iter().map(|i| i / 2).collect::<Vec<_>>()).unwrap() } else { T::nan() }
    });
    vec![
        ("last mode first", permuted(&[2, 0, 1])),
        ("column-major", permuted(&[2, 1, 0])),
        ("backwards", slice(&slice(x, reversed.clone()).to_contiguous().unwrap(), reversed)),
        ("every second entry between NaN", slice(&wide.unwrap(), vec![Slice::new(1, None, 2); 3])),
    ]
}

fn strided_tensors_give_what_contiguous_ones_do<T: Scalar>() {
    let x = noisy::<T>(&[14, 12, 11], &[4, 3, 5], 0.1, 2);
    for (layout, y) in strided(&x) {
        assert!(y == x && !y.is_contiguous());
        for (name, turned, solve) in solvers::<T>() {
            assert_alike(&format!("{name}, {layout}"), turned, &solve(&x), &solve(&y));
        }
    }
    // A mode that repeats one slice.
    let x = noisy::<T>(&[14, 1, 11], &[3, 1, 3], 0.1, 2).broadcast_to(IxDyn(&[14, 6, 11])).unwrap();
    let copy = x.to_contiguous().unwrap();
    let fit = |x| tucker(StHosvd::ranks([3, 1, 3]).fit(x));
    assert_alike("repeated", AUTO, &fit(&x), &fit(&copy));
    let fit = |x| cp(CpAls::rank(2).exactly(4).fit(x));
    assert_alike("repeated", EXACT, &fit(&x), &fit(&copy));
}

in_both_precisions! {
    the_same_seed_gives_the_same_bits
    numbers_of_threads_agree_to_rounding
    strided_tensors_give_what_contiguous_ones_do
}

#[test]
fn other_seeds_give_other_results() {
    let x = normal::<f64>(&[8, 7, 6], 1);
    let random = |seed| numbers_of(&CpAls::rank(3).seed(seed).exactly(2).fit(&x).unwrap());
    assert_ne!(random(0), random(1));
    let hooi = |seed| {
        let fit = Hooi::ranks([2, 2, 2]).start(HooiStart::Random { seed }).exactly(2).fit(&x).unwrap();
        numbers(fit.core(), fit.factors())
    };
    assert_ne!(hooi(0), hooi(1));
    let sampled = |seed| {
        let method = Method::Randomized { oversampling: 0, iterations: 0, seed };
        let fit = StHosvd::ranks([2, 2, 2]).method(method).fit(&x).unwrap();
        numbers(fit.core(), fit.factors())
    };
    assert_ne!(sampled(0), sampled(1));
}

fn numbers_of(fit: &Fit<Cp<f64>>) -> Vec<u64> {
    numbers(fit.weights(), fit.factors())
}

/// Notes all that a callback sees, and breaks off at a step.
fn until(step: usize, seen: &mut Vec<Progress>) -> impl FnMut(&Progress) -> ControlFlow<()> + '_ {
    move |p| {
        seen.push(*p);
        if p.done == step { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[test]
fn direct_solvers_report_every_mode_and_stop_without_a_result() {
    let x = noisy::<f64>(&[8, 7, 6, 5], &[2, 2, 2, 2], 0.1, 1);
    for (whole, sequential) in
        [(Hosvd::ranks([2; 4]), StHosvd::ranks([2; 4])), (Hosvd::tolerance(0.3), StHosvd::tolerance(0.3))]
    {
        let mut seen = [Vec::new(), Vec::new()];
        whole.fit_with(&x, until(9, &mut seen[0])).unwrap();
        sequential.fit_with(&x, until(9, &mut seen[1])).unwrap();
        for seen in &seen {
            let steps: Vec<_> = seen.iter().map(|p| (p.done, p.total, p.relative_error)).collect();
            assert_eq!(steps, [(1, 4, None), (2, 4, None), (3, 4, None), (4, 4, None)]);
        }
        for step in 1..=4 {
            let mut seen = [Vec::new(), Vec::new()];
            let errors = [
                whole.fit_with(&x, until(step, &mut seen[0])).map(drop).unwrap_err(),
                sequential.fit_with(&x, until(step, &mut seen[1])).map(drop).unwrap_err(),
            ];
            assert!(errors.iter().all(|e| e.kind() == ErrorKind::Interrupted), "{errors:?}");
            assert_eq!(errors.map(|e| e.operation()), ["Hosvd::fit", "StHosvd::fit"]);
            assert!(seen.iter().all(|seen| seen.len() == step), "called again after it broke off");
        }
    }
}

/// Interrupted after k sweeps, the result is that of exactly k sweeps.
#[test]
fn iterative_solvers_report_every_sweep_and_keep_the_last() {
    let x = normal::<f64>(&[8, 7, 6], 1);
    let hooi = Hooi::ranks([3, 3, 3]);
    let als = CpAls::rank(3);
    for sweeps in [1, 2, 5] {
        let mut seen = Vec::new();
        let fit = hooi.clone().exactly(9).fit_with(&x, until(sweeps, &mut seen)).unwrap();
        let want = hooi.clone().exactly(sweeps).fit(&x).unwrap();
        assert_eq!((fit.stopped, want.stopped), (Stop::Interrupted, Stop::Sweeps));
        assert_eq!((&fit.history, fit.relative_error), (&want.history, want.relative_error));
        assert_eq!(fit.decomposition, want.decomposition);
        assert!(seen.iter().zip(1..).all(|(p, k)| (p.done, p.total) == (k, 9)));
        assert_eq!(seen.iter().map(|p| p.relative_error.unwrap()).collect::<Vec<_>>(), fit.history);

        let mut seen = Vec::new();
        let fit = als.clone().exactly(9).fit_with(&x, until(sweeps, &mut seen)).unwrap();
        let want = als.clone().exactly(sweeps).fit(&x).unwrap();
        assert_eq!((fit.stopped, want.stopped), (Stop::Interrupted, Stop::Sweeps));
        assert_eq!((&fit.history, fit.relative_error), (&want.history, want.relative_error));
        assert_eq!(fit.decomposition, want.decomposition);
        assert!(seen.iter().zip(1..).all(|(p, k)| (p.done, p.total) == (k, 9)));
        assert_eq!(seen.iter().map(|p| p.relative_error.unwrap()).collect::<Vec<_>>(), fit.history);
    }
}

/// Steps are counted over all starts; what was best so far is kept.
#[test]
fn interrupting_a_later_start_keeps_the_best_so_far() {
    let x = normal::<f64>(&[6, 5, 4], 1);
    let solver = CpAls::rank(3).seed(10).exactly(5);
    let first = solver.fit(&x).unwrap();
    let mut seen = Vec::new();
    let fit = solver.clone().starts(3).fit_with(&x, until(6, &mut seen)).unwrap();
    assert!(seen.iter().zip(1..).all(|(p, k)| (p.done, p.total) == (k, 15)));
    assert_eq!(seen.len(), 6);
    assert_eq!(fit.stopped, Stop::Interrupted);
    // One sweep of the second start is worse than five of the first.
    assert_eq!((numbers_of(&fit), &fit.history), (numbers_of(&first), &first.history));
}

/// Converged: the last sweep changed the error by less than was asked for, and no sweep before it did.
#[test]
fn solvers_stop_where_a_sweep_changes_little() {
    let x = normal::<f64>(&[8, 7, 6], 1);
    for change in [1e-2, 1e-4, 1e-6] {
        let fits = [
            (Hooi::ranks([3, 3, 3]).sweeps(5000).until_change(change).fit(&x).unwrap().history, "hooi"),
            (CpAls::rank(3).sweeps(5000).until_change(change).fit(&x).unwrap().history, "cp"),
        ];
        for (history, name) in fits {
            let changes: Vec<f64> = history.windows(2).map(|w| (w[0] - w[1]).abs()).collect();
            let (last, before) = changes.split_last().unwrap();
            assert!(*last < change && before.iter().all(|c| *c >= change), "{name}: {changes:?}");
        }
    }
    let fit = Hooi::ranks([3, 3, 3]).sweeps(5000).until_change(1e-4).fit(&x).unwrap();
    assert_eq!((fit.stopped, fit.sweeps()), (Stop::Converged, fit.history.len()));
    assert_eq!(CpAls::rank(3).sweeps(5000).until_change(1e-4).fit(&x).unwrap().stopped, Stop::Converged);
    // Few sweeps, nothing to converge in.
    assert_eq!(CpAls::rank(3).sweeps(1).fit(&x).unwrap().stopped, Stop::Sweeps);
    let fit = Hooi::ranks([3, 3, 3]).until_change(0.0).sweeps(7).fit(&x).unwrap();
    assert!(fit.sweeps() == 7 || fit.history.windows(2).any(|w| w[0] == w[1]));
}
