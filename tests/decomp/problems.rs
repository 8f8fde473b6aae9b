//! Tensors to decompose, and yardsticks for what comes out.

use ndarray::{Dimension, Ix2, IxDyn};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tenfold::{Scalar, Tensor, decomp::Tucker};

/// Runs each test in both precisions.
macro_rules! in_both_precisions {
    ($($name:ident)*) => {
        mod double {
            $(#[test] fn $name() { super::$name::<f64>(); })*
        }
        mod single {
            $(#[test] fn $name() { super::$name::<f32>(); })*
        }
    };
}
pub(crate) use in_both_precisions;

/// Shapes of every order, with modes of size 1 and modes longer than all others together, and ranks for them.
pub const PROBLEMS: [(&[usize], &[usize]); 9] = [
    (&[7], &[1]),
    (&[8, 6], &[3, 3]),
    (&[2, 30], &[2, 2]),
    (&[9, 8, 7], &[3, 2, 4]),
    (&[40, 3, 4], &[5, 2, 3]),
    (&[1, 6, 1, 5], &[1, 3, 1, 2]),
    (&[5, 4, 6, 3], &[2, 3, 2, 2]),
    (&[4, 3, 2, 5, 3], &[2, 2, 2, 2, 2]),
    (&[3, 4, 2, 3, 4, 2], &[2, 2, 1, 2, 3, 2]),
];

pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

pub fn normal<T: Scalar>(shape: &[usize], seed: u64) -> Tensor<T, IxDyn> {
    Tensor::normal(IxDyn(shape), &mut rng(seed)).unwrap()
}

pub fn matrix<T: Scalar>(rows: usize, cols: usize, seed: u64) -> Tensor<T, Ix2> {
    Tensor::normal([rows, cols], &mut rng(seed)).unwrap()
}

/// One matrix with orthonormal columns for each mode.
pub fn orthonormal(shape: &[usize], ranks: &[usize], seed: u64) -> Vec<Tensor<f64, Ix2>> {
    let sizes = shape.iter().zip(ranks).zip(seed..);
    sizes.map(|((&n, &r), seed)| matrix::<f64>(n, r, seed).qr().unwrap().q).collect()
}

/// A normal core seen through orthonormal factors, rounded to T.
pub fn low_rank<T: Scalar>(shape: &[usize], ranks: &[usize], seed: u64) -> Tensor<T, IxDyn> {
    let tucker = Tucker::new(normal::<f64>(ranks, seed), orthonormal(shape, ranks, seed + 100)).unwrap();
    tucker.reconstruct().unwrap().cast().unwrap()
}

/// The same with noise of that share of its norm.
pub fn noisy<T: Scalar>(shape: &[usize], ranks: &[usize], noise: f64, seed: u64) -> Tensor<T, IxDyn> {
    let (x, e) = (low_rank::<f64>(shape, ranks, seed), normal::<f64>(shape, seed + 200));
    let share = noise * x.norm().unwrap() / e.norm().unwrap();
    x.add(&e.scale(share).unwrap()).unwrap().cast().unwrap()
}

/// A tensor whose singular values are these in every mode.
pub fn graded<T: Scalar>(shape: &[usize], values: &[f64], seed: u64) -> Tensor<T, IxDyn> {
    let ranks = vec![values.len(); shape.len()];
    let core = Tensor::from_fn(IxDyn(&ranks), |i| if i.iter().all(|&k| k == i[0]) { values[i[0]] } else { 0.0 });
    let tucker = Tucker::new(core.unwrap(), orthonormal(shape, &ranks, seed)).unwrap();
    tucker.reconstruct().unwrap().cast().unwrap()
}

/// Numbers in doubles, divided by the largest; and the largest.
fn scaled<T: Scalar, D: Dimension>(x: &Tensor<T, D>, largest: f64) -> Vec<f64> {
    x.to_vec().unwrap().into_iter().map(|v| v.f64() / largest).collect()
}

/// ||x - y|| / ||x|| from the entries, in doubles, whatever their scale; 0 where both are zero.
#[track_caller]
pub fn residual<T: Scalar, D: Dimension>(x: &Tensor<T, D>, y: &Tensor<T, D>) -> f64 {
    assert_eq!(x.shape(), y.shape());
    let largest = x.to_vec().unwrap().into_iter().fold(0.0f64, |a, b| a.max(b.f64().abs()));
    if largest == 0.0 {
        return y.max_abs().unwrap();
    }
    let (x, y) = (scaled(x, largest), scaled(y, largest));
    let squares: f64 = x.iter().zip(&y).map(|(a, b)| (a - b).powi(2)).sum();
    squares.sqrt() / x.iter().map(|a| a * a).sum::<f64>().sqrt()
}

/// The error reported is that of the reconstruction Y: to rounding where it is measured on the residual, and as far as a difference
/// of squares resolves it where it is large.
#[track_caller]
pub fn assert_reported<T: Scalar, D: Dimension>(x: &Tensor<T, D>, y: &Tensor<T, D>, reported: f64) {
    let truth = residual(x, y);
    let eps = T::epsilon().f64();
    let measured = if eps < 1e-10 { 0.5e-5 } else { 1e-2 };
    let slack = 64.0 * eps + if truth > measured { 256.0 * eps / truth } else { 0.0 };
    assert!((reported - truth).abs() <= slack, "{reported:e} reported, {truth:e} true");
}

/// U^T U is the identity for every factor, to rounding.
#[track_caller]
pub fn assert_orthonormal<T: Scalar>(factors: &[Tensor<T, Ix2>]) {
    for (mode, factor) in factors.iter().enumerate() {
        let u = factor.cast::<f64>().unwrap();
        let [rows, cols] = [u.shape()[0], u.shape()[1]];
        let off = u.t().matmul(&u).unwrap().sub(&Tensor::eye(cols).unwrap()).unwrap().max_abs().unwrap();
        let bound = 8.0 * (rows as f64 + 2.0) * T::epsilon().f64();
        assert!(off <= bound, "factor {mode} is {off:e} from orthonormal, more than {bound:e}");
    }
}

/// Norm 1, or exactly zero.
#[track_caller]
pub fn assert_unit_columns<T: Scalar>(factors: &[Tensor<T, Ix2>]) {
    for factor in factors {
        for r in 0..factor.shape()[1] {
            let norm = factor.index_mode(1, r).unwrap().norm().unwrap();
            assert!(norm == 0.0 || (norm - 1.0).abs() <= 8.0 * T::epsilon().f64(), "a column of norm {norm}");
        }
    }
}

/// The entry of largest absolute value, but where another of the other sign is just as large.
#[track_caller]
pub fn assert_signs<T: Scalar>(factor: &Tensor<T, Ix2>) {
    for column in factor.view().unwrap().columns() {
        let (low, high) = column.iter().fold((0.0f64, 0.0f64), |(l, h), v| (l.min(v.f64()), h.max(v.f64())));
        assert!(high >= -low * (1.0 - 1e-5), "the largest entry is negative: {low}, {high}");
    }
}

/// The singular values of an unfolding, by an SVD of it in doubles.
pub fn singular_values<T: Scalar, D: Dimension>(x: &Tensor<T, D>, mode: usize) -> Vec<f64> {
    x.unfold(mode).unwrap().cast::<f64>().unwrap().svd().unwrap().s.to_vec().unwrap()
}

/// The norm of what is left of a falling sequence beyond the first `rank`.
pub fn tail(values: &[f64], rank: usize) -> f64 {
    values.iter().skip(rank).map(|v| v * v).sum::<f64>().sqrt()
}

/// Errors never rise, but for the rounding of how they are measured (differences of squares).
#[track_caller]
pub fn assert_falling<T: Scalar>(history: &[f64]) {
    let slack = 64.0 * T::epsilon().f64();
    for (sweep, pair) in history.windows(2).enumerate() {
        let rise = pair[1].powi(2) - pair[0].powi(2);
        assert!(rise <= slack, "sweep {}: from {:e} to {:e}", sweep + 1, pair[0], pair[1]);
    }
}
