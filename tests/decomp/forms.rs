//! Canonical forms of Tucker and CP: each stands for the same tensor, and has the properties that it is named for.

use crate::{
    draws::{Drawn, check, draw_cp, draw_tucker, norm},
    problems::{
        assert_orthonormal, assert_signs, assert_unit_columns, in_both_precisions, matrix, normal, residual,
        singular_values,
    },
    support::{Operands, assert_within},
};
use ndarray::{Ix2, array};
use tenfold::{
    Scalar, Tensor,
    decomp::{Cp, Tucker},
};

fn forms_of_tucker<T: Scalar>() {
    check(64, |case| {
        let mut operands = Operands::new(case.seed, case.threads);
        let Drawn { format: t, dense, bound } = draw_tucker::<T>(&mut operands, &case.shape);
        let size = norm(&dense).max(T::epsilon().f64());

        let normalized = t.normalize().unwrap();
        assert_unit_columns(normalized.factors());
        assert_within(&normalized.reconstruct().unwrap(), &dense, 8.0 * bound);

        let loose = 40.0 * (bound + T::epsilon().f64() * size);
        let orthogonal = t.orthogonalize().unwrap();
        assert_orthonormal(orthogonal.factors());
        let ranks: Vec<usize> = t.ranks().iter().zip(&case.shape).map(|(&r, &n)| r.min(n)).collect();
        assert_eq!(orthogonal.ranks(), ranks);
        assert_within(&orthogonal.reconstruct().unwrap(), &dense, loose);

        let canonical = t.canonicalize().unwrap();
        assert_orthonormal(canonical.factors());
        assert_within(&canonical.reconstruct().unwrap(), &dense, loose);
        canonical.factors().iter().for_each(assert_signs);
        let exact = Tensor::from(dense.clone());
        for mode in 0..case.shape.len() {
            // All slices of the core are orthogonal to each other, and fall in norm.
            let gram = canonical.core().gram(mode).unwrap();
            let slack = 1e4 * T::epsilon().f64() * size * size.max(bound / T::epsilon().f64());
            let n = gram.shape()[0];
            for a in 0..n {
                for b in 0..a {
                    let product = gram.get(&[a, b]).unwrap();
                    assert!(product.abs() <= slack, "slices {a} and {b} of mode {mode}: {product:e}");
                }
                let falls = a == 0 || gram.get(&[a, a]).unwrap() <= gram.get(&[a - 1, a - 1]).unwrap() + slack;
                assert!(falls, "the norms of mode {mode} rise");
            }
            // Their norms are the singular values of the tensor.
            let want = singular_values(&exact, mode);
            let got = canonical.mode_singular_values(mode).unwrap();
            for (k, value) in got.iter().enumerate() {
                let want = want.get(k).copied().unwrap_or(0.0);
                assert!((value * value - want * want).abs() <= slack, "value {k} of mode {mode}: {value}, not {want}");
            }
        }
    });
}

fn forms_of_cp<T: Scalar>() {
    check(64, |case| {
        let mut operands = Operands::new(case.seed, case.threads);
        let Drawn { format: cp, dense, bound } = draw_cp::<T>(&mut operands, &case.shape);
        let normalized = cp.normalize().unwrap();
        assert_unit_columns(normalized.factors());
        assert_within(&normalized.reconstruct().unwrap(), &dense, 8.0 * bound);

        let sorted = cp.sort().unwrap();
        let weights = sorted.weights().to_vec().unwrap();
        assert!(weights.windows(2).all(|w| w[0].abs() >= w[1].abs()), "{weights:?}");
        assert_within(&sorted.reconstruct().unwrap(), &dense, bound);
        let mut before: Vec<f64> = cp.weights().to_vec().unwrap().iter().map(|w| w.f64()).collect();
        let mut after: Vec<f64> = weights.iter().map(|w| w.f64()).collect();
        before.sort_by(f64::total_cmp);
        after.sort_by(f64::total_cmp);
        assert_eq!(before, after);

        let signed = cp.fix_signs().unwrap();
        signed.factors().split_last().unwrap().1.iter().for_each(assert_signs);
        assert!(signed.weights().to_vec().unwrap().iter().all(|w| w.f64() >= 0.0));
        assert_within(&signed.reconstruct().unwrap(), &dense, bound);

        let canonical = cp.canonicalize().unwrap();
        assert_unit_columns(canonical.factors());
        assert!(canonical.weights().to_vec().unwrap().windows(2).all(|w| w[0] >= w[1] && w[1].f64() >= 0.0));
        canonical.factors().split_last().unwrap().1.iter().for_each(assert_signs);
        assert_within(&canonical.reconstruct().unwrap(), &dense, 8.0 * bound);
    });
}

/// A component with a zero column adds nothing: its weight is 0, and it comes last.
#[test]
fn a_component_that_is_zero_weighs_nothing() {
    let cp: Cp<f64, Ix2> = Cp::new(
        Tensor::from(array![100.0, 1.0]),
        vec![Tensor::from(array![[0.0, 3.0], [0.0, -4.0]]), Tensor::from(array![[5.0, 0.0], [0.0, 2.0]])],
    )
    .unwrap();
    let canonical = cp.canonicalize().unwrap();
    assert_eq!(canonical.weights().to_vec().unwrap(), [10.0, 0.0]);
    assert_eq!(canonical.factors()[0].to_vec().unwrap(), [-0.6, 0.0, 0.8, 0.0]);
    assert_eq!(canonical.factors()[1].to_vec().unwrap(), [0.0, 1.0, -1.0, 0.0]);
    assert_eq!(canonical.reconstruct().unwrap(), cp.reconstruct().unwrap());
}

/// The same CP tensor with its components permuted, scaled and turned in sign has the same canonical form.
#[test]
fn the_canonical_form_of_cp_is_unique() {
    let mut operands = Operands::new(5, 1);
    operands.integers = false;
    let (factors, _) = operands.factors::<f64>(&[4, 3, 5], 3);
    let cp: Cp<f64> = Cp::new(Tensor::from(array![1.0, 2.0, 4.0]), factors.clone()).unwrap();
    let turned = |f: &Tensor<f64, Ix2>, by: [f64; 3]| {
        let columns: Vec<_> =
            [2, 0, 1].iter().zip(by).map(|(&r, s)| f.narrow(1, r..r + 1).unwrap().scale(s).unwrap()).collect();
        Tensor::concat(&columns.iter().collect::<Vec<_>>(), 1).unwrap()
    };
    let other: Cp<f64> = Cp::new(
        Tensor::from(array![4.0, -0.5, 2.0]),
        vec![
            turned(&factors[0], [-2.0, 1.0, 1.0]),
            turned(&factors[1], [0.5, -2.0, -1.0]),
            turned(&factors[2], [-1.0, 1.0, -1.0]),
        ],
    )
    .unwrap();
    assert!(residual(&cp.reconstruct().unwrap(), &other.reconstruct().unwrap()) < 1e-15);
    let (a, b) = (cp.canonicalize().unwrap(), other.canonicalize().unwrap());
    assert!(approx::relative_eq!(*a.weights(), *b.weights(), epsilon = 1e-14));
    for (a, b) in a.factors().iter().zip(b.factors()) {
        assert!(approx::relative_eq!(*a, *b, epsilon = 1e-14));
    }
}

/// The same Tucker tensor seen through other bases has the same canonical form.
#[test]
fn the_canonical_form_of_tucker_is_unique() {
    let core = normal::<f64>(&[2, 3, 2], 1);
    let factors: Vec<_> = [(5, 2), (4, 3), (6, 2)].iter().map(|&(n, r)| matrix(n, r, n as u64)).collect();
    let t = Tucker::new(core, factors).unwrap();
    let mixed: Vec<Tensor<f64, Ix2>> = t.ranks().iter().map(|&r| matrix(r, r, 40 + r as u64)).collect();
    let mut core = t.core().clone();
    let mut factors = Vec::new();
    for (mode, m) in mixed.iter().enumerate() {
        core = core.mode_product(mode, m).unwrap();
        let n = m.shape()[0];
        let svd = m.svd().unwrap();
        let inverse = Tensor::from_fn([n, n], |i| if i[0] == i[1] { 1.0 / svd.s.get(&[i[0]]).unwrap() } else { 0.0 });
        let inverse = svd.v.matmul(&inverse.unwrap()).unwrap().matmul(&svd.u.t()).unwrap();
        factors.push(t.factors()[mode].matmul(&inverse).unwrap());
    }
    let other = Tucker::new(core, factors).unwrap();
    let (a, b) = (t.canonicalize().unwrap(), other.canonicalize().unwrap());
    assert!(residual(a.core(), b.core()) < 1e-11);
    for (a, b) in a.factors().iter().zip(b.factors()) {
        assert!(residual(a, b) < 1e-11);
    }
}

/// Numbers whose squares leave the range.
fn extreme_scales<T: Scalar>() {
    let tiny = T::epsilon().f64() < 1e-10;
    for scale in if tiny { [1e-200, 1e200] } else { [1e-30, 1e30] } {
        let mut operands = Operands::new(11, 1);
        operands.integers = false;
        let Drawn { format: t, dense, .. } = draw_tucker::<T>(&mut operands, &[3, 4, 2]);
        let t = Tucker::new(t.core().scale(T::of(scale)).unwrap(), t.factors().to_vec()).unwrap();
        let close = |got: f64| (got / scale / norm(&dense) - 1.0).abs() < 1e3 * T::epsilon().f64();
        assert!(close(t.norm().unwrap()), "{:e} for {:e}", t.norm().unwrap(), norm(&dense) * scale);
        let canonical = t.canonicalize().unwrap();
        let x = t.reconstruct().unwrap();
        assert!(residual(&x, &canonical.reconstruct().unwrap()) < 1e3 * T::epsilon().f64());
        let values = canonical.mode_singular_values(0).unwrap();
        assert!(close(values.iter().fold(0.0f64, |a, &b| a.hypot(b))));
        assert!(t.relative_error(&x).unwrap() < 1e-5);

        let Drawn { format: cp, dense, .. } = draw_cp::<T>(&mut operands, &[3, 4, 2]);
        let cp: Cp<T> = Cp::new(cp.weights().scale(T::of(scale)).unwrap(), cp.factors().to_vec()).unwrap();
        let got = cp.norm().unwrap();
        assert!((got / scale / norm(&dense) - 1.0).abs() < 1e4 * T::epsilon().f64(), "{got:e}");
        let x = cp.reconstruct().unwrap();
        assert!(residual(&x, &cp.canonicalize().unwrap().reconstruct().unwrap()) < 1e3 * T::epsilon().f64());
    }
}

in_both_precisions! {
    forms_of_tucker
    forms_of_cp
    extreme_scales
}
