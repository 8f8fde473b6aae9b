//! Components in pairs, against cosines between the tensors that they stand for, and against all ways to pair them.

use crate::{
    draws::{check, cp_formula, draw_cp, norm},
    problems::in_both_precisions,
    support::{Operands, entries, inner},
};
use ndarray::{ArrayD, Ix2, array};
use std::mem::replace;
use tenfold::{ErrorKind, Scalar, Tensor, decomp::Cp};

/// The tensor of one component.
fn component<T: Scalar>(cp: &Cp<T>, r: usize) -> ArrayD<f64> {
    let columns: Vec<_> = cp.factors().iter().map(|factor| entries(&factor.narrow(1, r..r + 1).unwrap())).collect();
    cp_formula(&entries(&cp.weights().narrow(0, r..r + 1).unwrap()), &columns)
}

fn cosine(x: &ArrayD<f64>, y: &ArrayD<f64>) -> f64 {
    let size = norm(x) * norm(y);
    if size == 0.0 { 0.0 } else { inner(x, y) / size }
}

/// The most that rows can add up to with a column each, of those that are not taken.
fn most(gains: &[Vec<f64>], taken: &mut [bool]) -> f64 {
    let Some((row, rest)) = gains.split_first() else { return 0.0 };
    let mut best = f64::NEG_INFINITY;
    for column in 0..taken.len() {
        if !replace(&mut taken[column], true) {
            best = best.max(row[column] + most(rest, taken));
            taken[column] = false;
        }
    }
    best
}

fn pairs<T: Scalar>() {
    check(192, |case| {
        let mut operands = Operands::new(case.seed, case.threads);
        let [a, b] = [(); 2].map(|()| draw_cp::<T>(&mut operands, &case.shape).format);
        let (rows, columns) = (a.rank(), b.rank());
        let table = |a: &Cp<T>, b: &Cp<T>| -> Vec<Vec<f64>> {
            let of = |r| (0..b.rank()).map(|s| cosine(&component(a, r), &component(b, s))).collect();
            (0..a.rank()).map(of).collect()
        };
        let cosines = table(&a, &b);
        let found = a.congruence(&b).unwrap();
        assert_eq!(found.pairs.len(), rows.min(columns));
        let (mut own, mut other) = (vec![false; rows], vec![false; columns]);
        for pair in &found.pairs {
            assert!((pair.cosine - cosines[pair.own][pair.other]).abs() < 1e-12, "{pair:?}: {cosines:?}");
            assert!(!replace(&mut own[pair.own], true) && !replace(&mut other[pair.other], true), "{found:?}");
        }
        let gains = if rows <= columns { cosines } else { table(&b, &a) };
        let best = most(&gains, &mut vec![false; rows.max(columns)]) / found.pairs.len() as f64;
        assert!((found.score() - best).abs() < 1e-9, "{} instead of {best}: {gains:?}", found.score());
        assert!((b.congruence(&a).unwrap().score() - best).abs() < 1e-9);
        assert!(found.pairs.iter().all(|pair| pair.cosine >= found.least()));
    });
}

in_both_precisions! {
    pairs
}

#[test]
fn order_sizes_and_signs_make_no_difference() {
    let a = array![[1.0, 0.0, 2.0], [3.0, 1.0, -1.0]];
    let b = array![[2.0, 1.0, 0.0], [1.0, 1.0, 5.0], [0.0, -4.0, 1.0]];
    let cp = |weights: [f64; 3], a: ndarray::Array2<f64>, b: ndarray::Array2<f64>| -> Cp<f64, Ix2> {
        Cp::new(Tensor::from(ndarray::arr1(&weights)), vec![Tensor::from(a), Tensor::from(b)]).unwrap()
    };
    let one = cp([1.0, 2.0, -3.0], a.clone(), b.clone());
    // Component 0 becomes 2, 1 becomes 0, 2 becomes 1; sizes and signs move between weights and columns.
    let turned = |m: &ndarray::Array2<f64>, by: [f64; 3]| {
        ndarray::Array2::from_shape_fn(m.dim(), |(i, r)| m[[i, (r + 1) % 3]] * by[(r + 1) % 3])
    };
    let other = cp([-2e100, 3.0, 7.0], turned(&a, [-1.0, 1e-100, 5.0]), turned(&b, [-2.0, -1.0, -1e-3]));
    let found = one.congruence(&other).unwrap();
    assert_eq!(found.pairs.iter().map(|pair| (pair.own, pair.other)).collect::<Vec<_>>(), [(0, 2), (1, 0), (2, 1)]);
    assert!(found.least() > 1.0 - 1e-12 && found.score() > 1.0 - 1e-12, "{found:?}");
    // A weight of the other sign makes a component its opposite.
    let single = |weight: f64| -> Cp<f64, Ix2> {
        Cp::new(Tensor::from(array![weight]), vec![Tensor::from(array![[1.0], [2.0]]), Tensor::from(array![[3.0]])])
            .unwrap()
    };
    assert!((single(1.0).congruence(&single(-2.0)).unwrap().score() + 1.0).abs() < 1e-12);
    assert_eq!(single(1.0).congruence(&single(0.0)).unwrap().score(), 0.0);
}

#[test]
fn what_cannot_be_compared_is_an_error() {
    let cp = |n: usize, rank: usize, value: f64| -> Cp<f64, Ix2> {
        let factor = |n| Tensor::<f64, Ix2>::full([n, rank], value).unwrap();
        Cp::new(Tensor::ones([rank]).unwrap(), vec![factor(n), factor(4)]).unwrap()
    };
    let error = cp(3, 1, 1.0).congruence(&cp(2, 1, 1.0)).unwrap_err();
    assert_eq!(error.to_string(), "Cp::congruence: shapes [3, 4] and [2, 4] differ");
    let error = cp(3, 1, 1.0).congruence(&cp(3, 0, 1.0)).unwrap_err();
    assert_eq!(error.to_string(), "Cp::congruence: ranks 1 and 0; without components there is nothing to compare");
    for value in [f64::NAN, f64::INFINITY] {
        let error = cp(3, 1, 1.0).congruence(&cp(3, 1, value)).unwrap_err();
        assert_eq!((error.kind(), error.to_string().contains("not finite")), (ErrorKind::Value, true));
    }
}
