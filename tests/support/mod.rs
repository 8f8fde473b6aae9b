//! What the tests compare with: every operation as its formula reads, in doubles, one multi-index at a time; and operands in
//! every memory layout.
#![allow(dead_code)] // Each test file uses its own part.

pub mod fixture;
pub mod torch;

use ndarray::{ArrayD, Dimension, Ix1, Ix2, IxDyn, Slice, indices};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use tenfold::{Device, Scalar, Tensor};

/// The index `i` with `value` in place of its `n`-th entry.
pub fn with(i: &[usize], n: usize, value: usize) -> Vec<usize> {
    let mut i = i.to_vec();
    i[n] = value;
    i
}

/// The entries of `i` at `modes`.
pub fn pick(i: &[usize], modes: &[usize]) -> Vec<usize> {
    modes.iter().map(|&m| i[m]).collect()
}

/// All modes of an order but one.
pub fn others(order: usize, mode: usize) -> Vec<usize> {
    (0..order).filter(|&m| m != mode).collect()
}

/// The position of index `i` among the indices of `modes`, the last of them fastest.
pub fn position(i: &[usize], shape: &[usize], modes: &[usize]) -> usize {
    modes.iter().fold(0, |p, &m| p * shape[m] + i[m])
}

/// Calls `f` with every index of `shape`.
pub fn for_each_index(shape: &[usize], mut f: impl FnMut(&[usize])) {
    indices(IxDyn(shape)).into_iter().for_each(|i| f(i.slice()));
}

pub fn sum_over(shape: &[usize], mut term: impl FnMut(&[usize]) -> f64) -> f64 {
    let mut sum = 0.0;
    for_each_index(shape, |i| sum += term(i));
    sum
}

pub fn by_formula(shape: &[usize], f: impl Fn(&[usize]) -> f64) -> ArrayD<f64> {
    ArrayD::from_shape_fn(IxDyn(shape), |i| f(i.slice()))
}

fn product_of(shape: &[usize], modes: &[usize]) -> usize {
    modes.iter().map(|&m| shape[m]).product()
}

/// `Y[position of the row modes, position of the column modes] = X[i]`
pub fn matricize(x: &ArrayD<f64>, rows: &[usize], cols: &[usize]) -> ArrayD<f64> {
    let shape = x.shape();
    let mut y = ArrayD::zeros(vec![product_of(shape, rows), product_of(shape, cols)]);
    for_each_index(shape, |i| y[[position(i, shape, rows), position(i, shape, cols)]] = x[i]);
    y
}

pub fn unfold(x: &ArrayD<f64>, mode: usize) -> ArrayD<f64> {
    matricize(x, &[mode], &others(x.ndim(), mode))
}

/// `X[i] = M[i_n, position of the other modes]`
pub fn fold(m: &ArrayD<f64>, mode: usize, shape: &[usize]) -> ArrayD<f64> {
    let others = others(shape.len(), mode);
    by_formula(shape, |i| m[[i[mode], position(i, shape, &others)]])
}

pub fn vectorize(x: &ArrayD<f64>) -> ArrayD<f64> {
    let modes: Vec<usize> = (0..x.ndim()).collect();
    let mut y = ArrayD::zeros(vec![x.len()]);
    for_each_index(x.shape(), |i| y[[position(i, x.shape(), &modes)]] = x[i]);
    y
}

/// `Y[before.., i_n, position of the others in the range, after..] = X[i]`
pub fn partial_unfold(x: &ArrayD<f64>, mode: usize, modes: std::ops::Range<usize>) -> ArrayD<f64> {
    let shape = x.shape();
    let rest: Vec<usize> = modes.clone().filter(|&m| m != mode).collect();
    let ends = |i: &[usize], middle: [usize; 2]| [&i[..modes.start], &middle, &i[modes.end..]].concat();
    let mut y = ArrayD::zeros(ends(shape, [shape[mode], product_of(shape, &rest)]));
    for_each_index(shape, |i| y[&ends(i, [i[mode], position(i, shape, &rest)])[..]] = x[i]);
    y
}

/// `Y[.., j, ..] = sum_k M[j, k] X[.., k, ..]`
pub fn mode_product(x: &ArrayD<f64>, mode: usize, m: &ArrayD<f64>) -> ArrayD<f64> {
    by_formula(&with(x.shape(), mode, m.shape()[0]), |i| {
        sum_over(&[x.shape()[mode]], |k| m[[i[mode], k[0]]] * x[&with(i, mode, k[0])[..]])
    })
}

/// `Y[without i_n] = sum_k v[k] X[.., k, ..]`
pub fn mode_product_vector(x: &ArrayD<f64>, mode: usize, v: &ArrayD<f64>) -> ArrayD<f64> {
    let shape = pick(x.shape(), &others(x.ndim(), mode));
    by_formula(&shape, |i| sum_over(&[x.shape()[mode]], |k| v[k] * x[&[&i[..mode], k, &i[mode..]].concat()[..]]))
}

pub fn transpose(m: &ArrayD<f64>) -> ArrayD<f64> {
    by_formula(&[m.shape()[1], m.shape()[0]], |i| m[[i[1], i[0]]])
}

pub fn matmul(a: &ArrayD<f64>, b: &ArrayD<f64>) -> ArrayD<f64> {
    by_formula(&[a.shape()[0], b.shape()[1]], |i| sum_over(&[a.shape()[1]], |k| a[[i[0], k[0]]] * b[[k[0], i[1]]]))
}

/// `Z[free of x.., free of y..] = sum_s X[free.., s..] Y[free.., s..]`
pub fn contract(x: &ArrayD<f64>, x_modes: &[usize], y: &ArrayD<f64>, y_modes: &[usize]) -> ArrayD<f64> {
    let free = |order: usize, modes: &[usize]| (0..order).filter(|m| !modes.contains(m)).collect::<Vec<_>>();
    let (x_free, y_free) = (free(x.ndim(), x_modes), free(y.ndim(), y_modes));
    let at = |order: usize, free: &[usize], i: &[usize], modes: &[usize], s: &[usize]| {
        let mut at = vec![0; order];
        free.iter().zip(i).chain(modes.iter().zip(s)).for_each(|(&m, &i)| at[m] = i);
        at
    };
    let shape = [pick(x.shape(), &x_free), pick(y.shape(), &y_free)].concat();
    by_formula(&shape, |i| {
        let (of_x, of_y) = i.split_at(x_free.len());
        sum_over(&pick(x.shape(), x_modes), |s| {
            x[&at(x.ndim(), &x_free, of_x, x_modes, s)[..]] * y[&at(y.ndim(), &y_free, of_y, y_modes, s)[..]]
        })
    })
}

/// `Z[i.., j..] = X[i..] Y[j..]`
pub fn outer(x: &ArrayD<f64>, y: &ArrayD<f64>) -> ArrayD<f64> {
    by_formula(&[x.shape(), y.shape()].concat(), |i| x[&i[..x.ndim()]] * y[&i[x.ndim()..]])
}

pub fn inner(x: &ArrayD<f64>, y: &ArrayD<f64>) -> f64 {
    sum_over(x.shape(), |i| x[i] * y[i])
}

/// `K[position of i.., position of j..] = A_0[i_0, j_0] A_1[i_1, j_1] ..`
pub fn kronecker(a: &[ArrayD<f64>]) -> ArrayD<f64> {
    let modes: Vec<usize> = (0..a.len()).collect();
    let rows: Vec<usize> = a.iter().map(|a| a.shape()[0]).collect();
    let cols: Vec<usize> = a.iter().map(|a| a.shape()[1]).collect();
    let mut k = ArrayD::zeros(vec![rows.iter().product(), cols.iter().product()]);
    for_each_index(&rows, |i| {
        for_each_index(&cols, |j| {
            k[[position(i, &rows, &modes), position(j, &cols, &modes)]] =
                modes.iter().map(|&m| a[m][[i[m], j[m]]]).product();
        });
    });
    k
}

/// `K[position of i.., r] = A_0[i_0, r] A_1[i_1, r] ..`
pub fn khatri_rao(a: &[ArrayD<f64>]) -> ArrayD<f64> {
    let modes: Vec<usize> = (0..a.len()).collect();
    let rows: Vec<usize> = a.iter().map(|a| a.shape()[0]).collect();
    let rank = a[0].shape()[1];
    let mut k = ArrayD::zeros(vec![rows.iter().product(), rank]);
    for_each_index(&rows, |i| {
        for r in 0..rank {
            k[[position(i, &rows, &modes), r]] = modes.iter().map(|&m| a[m][[i[m], r]]).product();
        }
    });
    k
}

pub fn hadamard(a: &[ArrayD<f64>]) -> ArrayD<f64> {
    by_formula(a[0].shape(), |i| a.iter().map(|a| a[i]).product())
}

/// `M[i_n, r] = sum over the other indices of X[i] times the product of A_m[i_m, r], m != n`
pub fn mttkrp(x: &ArrayD<f64>, mode: usize, a: &[ArrayD<f64>]) -> ArrayD<f64> {
    let rank = a[0].shape()[1];
    let others = others(x.ndim(), mode);
    let mut m = ArrayD::zeros(vec![x.shape()[mode], rank]);
    for_each_index(x.shape(), |i| {
        for r in 0..rank {
            m[[i[mode], r]] += x[i] * others.iter().map(|&m| a[m][[i[m], r]]).product::<f64>();
        }
    });
    m
}

/// `G[a, b] = sum over the other indices of X[.., a, ..] X[.., b, ..]`
pub fn gram(x: &ArrayD<f64>, mode: usize) -> ArrayD<f64> {
    let n = x.shape()[mode];
    let rest = with(x.shape(), mode, 1);
    by_formula(&[n, n], |i| sum_over(&rest, |s| x[&with(s, mode, i[0])[..]] * x[&with(s, mode, i[1])[..]]))
}

/// A tensor's entries, read one by one through `get`.
pub fn entries<T: Scalar, D: Dimension>(x: &Tensor<T, D>) -> ArrayD<f64> {
    by_formula(x.shape(), |i| x.get(i).unwrap().f64())
}

/// Shapes are equal and every entry differs by at most `bound`; NaN stands where NaN should.
#[track_caller]
pub fn assert_within<T: Scalar, D: Dimension>(got: &Tensor<T, D>, want: &ArrayD<f64>, bound: f64) {
    assert_eq!(got.shape(), want.shape(), "shape");
    assert_eq!(got.len(), got.to_vec().unwrap().len(), "length");
    for (position, (got, (i, &want))) in got.to_vec().unwrap().iter().zip(want.indexed_iter()).enumerate() {
        let got = got.f64();
        let fits = if want.is_nan() { got.is_nan() } else { got == want || (got - want).abs() <= bound };
        assert!(fits, "entry {i:?} (position {position}) is {got}, should be {want} within {bound:e}");
    }
}

/// Operands with the values and the layouts that one seed leads to.
pub struct Operands {
    pub rng: ChaCha8Rng,
    device: Device,
    /// Integers from -3 to 3, whose sums of products are exact; else reals in [-1, 1).
    pub integers: bool,
    /// Permuted, sliced, reversed and broadcast; else row-major.
    strided: bool,
}

impl Operands {
    pub fn new(seed: u64, threads: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (integers, strided) = (rng.random_bool(0.5), rng.random_bool(0.67));
        Self { rng, device: Device::cpu().threads(threads), integers, strided }
    }

    pub fn row_major(self) -> Self {
        Self { strided: false, ..self }
    }

    /// What a sum of `terms` products of `factors` numbers each may be off by: nothing for integers.
    pub fn bound<T: Scalar>(&self, terms: usize, factors: usize) -> f64 {
        let terms = terms as f64;
        if self.integers { 0.0 } else { (terms + factors as f64) * terms.max(1.0) * T::epsilon().f64() }
    }

    pub fn size(&mut self, largest: usize) -> usize {
        self.rng.random_range(1..=largest)
    }

    fn entry<T: Scalar>(&mut self) -> T {
        T::of(if self.integers { self.rng.random_range(-3..=3) as f64 } else { self.rng.random_range(-1.0..1.0) })
    }

    /// A tensor and what it holds.
    pub fn tensor<T: Scalar>(&mut self, shape: &[usize]) -> (Tensor<T, IxDyn>, ArrayD<f64>) {
        if !self.strided {
            let array = ArrayD::from_shape_simple_fn(IxDyn(shape), || self.entry::<T>());
            let reference = array.mapv(Scalar::f64);
            return (Tensor::from(array).to_device(&self.device).unwrap(), reference);
        }
        // In memory the modes lie in another order, each with a gap in front, a step, or only one entry that repeats.
        let mut order: Vec<usize> = (0..shape.len()).collect();
        order.shuffle(&mut self.rng);
        let mut memory = Vec::new();
        let mut parts = Vec::new();
        for &mode in &order {
            let step: isize = [1, 1, 1, 2, -1, -2][self.rng.random_range(0..6)];
            let gap = self.rng.random_range(0..=1);
            let repeated = shape[mode] > 0 && self.rng.random_bool(0.1);
            let n = if repeated { 1 } else { shape[mode] };
            memory.push(gap + n * step.unsigned_abs());
            parts.push(Slice::new(gap as isize, None, step));
        }
        let mut array = ArrayD::from_shape_simple_fn(memory, || self.entry::<T>());
        array.slice_each_axis_inplace(|axis| parts[axis.axis.index()]);
        let mut back = vec![0; shape.len()];
        order.iter().enumerate().for_each(|(i, &mode)| back[mode] = i);
        let array = array.permuted_axes(back);
        let reference = array.mapv(Scalar::f64).broadcast(IxDyn(shape)).unwrap().to_owned();
        (Tensor::from(array).broadcast_to(IxDyn(shape)).unwrap().to_device(&self.device).unwrap(), reference)
    }

    pub fn matrix<T: Scalar>(&mut self, rows: usize, cols: usize) -> (Tensor<T, Ix2>, ArrayD<f64>) {
        let (x, reference) = self.tensor(&[rows, cols]);
        (x.into_order().unwrap(), reference)
    }

    pub fn vector<T: Scalar>(&mut self, n: usize) -> (Tensor<T, Ix1>, ArrayD<f64>) {
        let (x, reference) = self.tensor(&[n]);
        (x.into_order().unwrap(), reference)
    }

    /// One `I_m x columns` matrix for each mode.
    pub fn factors<T: Scalar>(&mut self, shape: &[usize], columns: usize) -> (Vec<Tensor<T, Ix2>>, Vec<ArrayD<f64>>) {
        shape.iter().map(|&n| self.matrix(n, columns)).unzip()
    }
}
