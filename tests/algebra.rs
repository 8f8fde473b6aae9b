//! Every algebra routine against its definition, in both precisions, all layouts, orders 1 to 6, one to three threads.

mod support;

use ndarray::{ArrayD, Ix0, IxDyn};
use proptest::prelude::*;
use rand::{RngExt, seq::SliceRandom};
use support::{Operands, assert_within, by_formula, entries, pick, transpose};
use tenfold::{
    Device, Scalar, Tensor,
    algebra::{self, MultiMode},
};

/// One drawn problem; modes and further sizes follow from the seed.
#[derive(Debug, Clone)]
struct Case {
    seed: u64,
    shape: Vec<usize>,
    threads: usize,
}

impl Case {
    fn operands(&self) -> Operands {
        Operands::new(self.seed, self.threads)
    }

    /// The largest size drawn beside the shape: a tall matrix for a tall tensor.
    fn largest(&self) -> usize {
        self.shape.iter().copied().max().unwrap_or(1).clamp(5, 24)
    }
}

fn case() -> impl Strategy<Value = Case> {
    let shape = (1usize..=6).prop_flat_map(|order| {
        let most = if order < 5 { 5usize } else { 3 };
        prop::collection::vec(prop_oneof![16 => 1..=most, 1 => Just(0)], order)
    });
    (any::<u64>(), shape, 1usize..=3).prop_map(|(seed, shape, threads)| Case { seed, shape, threads })
}

/// Shapes that reach the thresholds for threads, tiles and ways to split a product.
fn larger(seed: u64) -> Vec<Case> {
    let shapes: [&[usize]; 7] = [
        &[40, 50, 60],
        &[30, 60, 50],
        &[3, 70_000],
        &[70_000, 3],
        &[2, 9, 40, 50, 2],
        &[300, 1, 300],
        &[9, 8, 7, 6, 5, 4],
    ];
    let case =
        |(i, shape): (usize, &&[usize])| Case { seed: seed + i as u64, shape: shape.to_vec(), threads: 1 + i % 3 };
    shapes.iter().enumerate().map(case).collect()
}

macro_rules! against_definition {
    ($($name:ident)*) => {
        mod double {
            use super::*;
            proptest! {
                #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
                $(#[test] fn $name(case in case()) { super::$name::<f64>(&case) })*
            }
        }
        mod single {
            use super::*;
            proptest! {
                #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
                $(#[test] fn $name(case in case()) { super::$name::<f32>(&case) })*
            }
        }
        mod large {
            use super::*;
            $(#[test] fn $name() { larger(20).iter().for_each(super::$name::<f64>) })*
        }
        mod large_single {
            use super::*;
            $(#[test] fn $name() { larger(10).iter().for_each(super::$name::<f32>) })*
        }
    };
}

against_definition! {
    unfold_and_fold matricize_and_vectorize partial_unfold mode_product mode_product_vector mode_products
    multi_mode_product contract inner_outer_hadamard mttkrp gram kronecker_and_khatri_rao matmul
}

fn unfold_and_fold<T: Scalar>(case: &Case) {
    let mut operands = case.operands();
    let (x, reference) = operands.tensor::<T>(&case.shape);
    for mode in 0..x.order() {
        let unfolded = x.unfold(mode).unwrap();
        assert_within(&unfolded, &support::unfold(&reference, mode), 0.0);
        assert_within(&unfolded.fold(mode, IxDyn(&case.shape)).unwrap(), &reference, 0.0);
        // A matrix of its own, in its own layout: folding is not only the way back.
        let columns = pick(&case.shape, &support::others(x.order(), mode)).iter().product();
        let (matrix, entries) = operands.matrix::<T>(case.shape[mode], columns);
        let folded = matrix.fold(mode, IxDyn(&case.shape)).unwrap();
        assert_within(&folded, &support::fold(&entries, mode, &case.shape), 0.0);
    }
}

fn matricize_and_vectorize<T: Scalar>(case: &Case) {
    let mut operands = case.operands();
    let (x, reference) = operands.tensor::<T>(&case.shape);
    assert_within(&x.vectorize().unwrap(), &support::vectorize(&reference), 0.0);
    let mut modes: Vec<usize> = (0..x.order()).collect();
    modes.shuffle(&mut operands.rng);
    let (rows, cols) = modes.split_at(operands.rng.random_range(0..=x.order()));
    assert_within(&x.matricize(rows, cols).unwrap(), &support::matricize(&reference, rows, cols), 0.0);
}

fn partial_unfold<T: Scalar>(case: &Case) {
    let mut operands = case.operands();
    let (x, reference) = operands.tensor::<T>(&case.shape);
    for mode in 0..x.order() {
        let modes = operands.rng.random_range(0..=mode)..operands.rng.random_range(mode + 1..=x.order());
        let unfolded = x.partial_unfold(mode, modes.clone()).unwrap();
        assert_within(&unfolded, &support::partial_unfold(&reference, mode, modes), 0.0);
    }
}

fn mode_product<T: Scalar>(case: &Case) {
    let mut operands = case.operands();
    let (x, reference) = operands.tensor::<T>(&case.shape);
    let mode = operands.rng.random_range(0..x.order());
    // Few rows for a large tensor, so that the definition does not take too long.
    let rows = operands.size(if x.len() > 10_000 { 8 } else { case.largest() });
    let bound = operands.bound::<T>(case.shape[mode], 2);
    let (m, entries) = operands.matrix(rows, case.shape[mode]);
    let product = x.mode_product(mode, &m).unwrap();
    assert!(product.is_contiguous());
    assert_within(&product, &support::mode_product(&reference, mode, &entries), bound);
    let (m, entries) = operands.matrix(case.shape[mode], rows);
    let product = x.mode_product(mode, &m.t()).unwrap();
    assert_within(&product, &support::mode_product(&reference, mode, &transpose(&entries)), bound);
}

fn mode_product_vector<T: Scalar>(case: &Case) {
    let mut operands = case.operands();
    let (x, reference) = operands.tensor::<T>(&case.shape);
    for mode in 0..x.order() {
        let bound = operands.bound::<T>(case.shape[mode], 2);
        let (v, entries) = operands.vector(case.shape[mode]);
        let product = x.mode_product_vector(mode, &v).unwrap();
        assert_within(&product, &support::mode_product_vector(&reference, mode, &entries), bound);
    }
}

/// The definition of several mode products, and a bound for their rounding: sums of at most as many terms as X has entries.
fn mode_products<T: Scalar>(case: &Case) {
    let mut operands = case.operands();
    let (x, reference) = operands.tensor::<T>(&case.shape);
    let mut modes: Vec<usize> = (0..x.order()).collect();
    modes.shuffle(&mut operands.rng);
    modes.truncate(operands.rng.random_range(0..=x.order().min(3)));
    // Once in a while a mode twice, where the order counts.
    if !modes.is_empty() && operands.rng.random_bool(0.3) {
        modes.push(modes[0]);
    }
    let (mut sizes, mut want, mut matrices, mut terms) = (case.shape.clone(), reference, Vec::new(), 1);
    for &mode in &modes {
        let rows = operands.size(4);
        let (m, entries) = operands.matrix::<T>(rows, sizes[mode]);
        terms *= sizes[mode];
        sizes[mode] = rows;
        want = support::mode_product(&want, mode, &entries);
        matrices.push(m);
    }
    let products: Vec<(usize, &Tensor<T, _>)> = modes.iter().copied().zip(&matrices).collect();
    let bound = operands.bound::<T>(terms, modes.len() + 1);
    assert_within(&x.mode_products(&products).unwrap(), &want, bound);
}

fn multi_mode_product<T: Scalar>(case: &Case) {
    let mut operands = case.operands();
    let (x, reference) = operands.tensor::<T>(&case.shape);
    let skip = operands.rng.random_bool(0.5).then(|| operands.rng.random_range(0..x.order()));
    let transposed = operands.rng.random_bool(0.5);
    let (mut want, mut matrices, mut terms) = (reference, Vec::new(), 1);
    for (mode, &n) in case.shape.iter().enumerate() {
        let rows = operands.size(3);
        if Some(mode) == skip {
            // Fits nothing, since nothing looks at it.
            matrices.push(operands.matrix::<T>(n % 7 + 9, n % 5 + 8).0);
            continue;
        }
        let (m, entries) = if transposed { operands.matrix::<T>(n, rows) } else { operands.matrix::<T>(rows, n) };
        let entries = if transposed { transpose(&entries) } else { entries };
        terms *= n;
        want = support::mode_product(&want, mode, &entries);
        matrices.push(m);
    }
    let bound = operands.bound::<T>(terms, x.order() + 1);
    let product = x.multi_mode_product(&matrices, MultiMode { skip, transpose: transposed }).unwrap();
    // Integer results stay exact in single precision only up to 2^24.
    if terms < 10_000 || T::epsilon().f64() < 1e-10 {
        assert_within(&product, &want, bound);
    } else {
        let largest = want.iter().fold(1.0f64, |a, b| a.max(b.abs()));
        assert_within(&product, &want, bound.max(largest * 1e-4));
    }
}

fn contract<T: Scalar>(case: &Case) {
    let mut operands = case.operands();
    let (x, reference) = operands.tensor::<T>(&case.shape);
    // Some modes of X in any order, paired with modes of Y that lie between free ones.
    let mut x_modes: Vec<usize> = (0..x.order()).collect();
    x_modes.shuffle(&mut operands.rng);
    let large = x.len() > 20_000;
    x_modes.truncate(operands.rng.random_range(usize::from(large)..=x.order()));
    let free = operands.rng.random_range(0..=2);
    let mut places: Vec<usize> = (0..x_modes.len() + free).collect();
    places.shuffle(&mut operands.rng);
    let y_modes = &places[..x_modes.len()];
    let mut shape = vec![0; places.len()];
    y_modes.iter().zip(&x_modes).for_each(|(&n, &m)| shape[n] = case.shape[m]);
    places[x_modes.len()..].iter().for_each(|&n| shape[n] = operands.size(3));
    let (y, y_reference) = operands.tensor::<T>(&shape);
    let bound = operands.bound::<T>(pick(&case.shape, &x_modes).iter().product(), 2);
    let z = algebra::contract(&x, &x_modes, &y, y_modes).unwrap();
    assert!(z.is_contiguous());
    assert_within(&z, &support::contract(&reference, &x_modes, &y_reference, y_modes), bound);
}

fn inner_outer_hadamard<T: Scalar>(case: &Case) {
    let mut operands = case.operands();
    let (x, a) = operands.tensor::<T>(&case.shape);
    let (y, b) = operands.tensor::<T>(&case.shape);
    let (z, c) = operands.tensor::<T>(&case.shape);
    let got = algebra::inner(&x, &y).unwrap();
    // Summed in doubles, whatever the operands are.
    let bound = operands.bound::<f64>(x.len(), 2);
    assert!((got - support::inner(&a, &b)).abs() <= bound, "{got}");
    let bound = operands.bound::<T>(1, 3);
    assert_within(&algebra::hadamard(&[&x, &y, &z]).unwrap(), &support::hadamard(&[a.clone(), b, c]), bound);
    let order = operands.rng.random_range(0..3);
    let shape: Vec<usize> = (0..order).map(|_| operands.size(3)).collect();
    let (w, d) = operands.tensor::<T>(&shape);
    let bound = operands.bound::<T>(1, 2);
    assert_within(&algebra::outer(&x, &w).unwrap(), &support::outer(&a, &d), bound);
    assert_within(&algebra::outer(&w, &x).unwrap(), &support::outer(&d, &a), bound);
}

fn mttkrp<T: Scalar>(case: &Case) {
    let mut operands = case.operands();
    let (x, reference) = operands.tensor::<T>(&case.shape);
    let rank = operands.size(5);
    let (factors, of_factors) = operands.factors::<T>(&case.shape, rank);
    let (weights, w) = operands.vector::<T>(rank);
    let all = x.mttkrp_all(&factors).unwrap();
    assert_eq!(all.len(), x.order());
    for (mode, at_once) in all.iter().enumerate() {
        let terms: usize = pick(&case.shape, &support::others(x.order(), mode)).iter().product();
        let bound = operands.bound::<T>(terms, x.order() + 1);
        let want = support::mttkrp(&reference, mode, &of_factors);
        assert_within(&x.mttkrp(mode, &factors).unwrap(), &want, bound);
        assert_within(at_once, &want, bound);
        let want = by_formula(want.shape(), |i| want[i] * w[i[1]]);
        assert_within(&x.mttkrp_weighted(mode, &factors, &weights).unwrap(), &want, 2.0 * bound);
    }
}

fn gram<T: Scalar>(case: &Case) {
    let mut operands = case.operands();
    let (x, reference) = operands.tensor::<T>(&case.shape);
    for mode in (0..x.order()).filter(|&m| case.shape[m] * x.len() < 4_000_000) {
        let got = x.gram(mode).unwrap();
        let terms: usize = pick(&case.shape, &support::others(x.order(), mode)).iter().product();
        // In doubles, whatever X is.
        assert_within(&got, &support::gram(&reference, mode), operands.bound::<f64>(terms, 2));
        assert_eq!(got, got.t(), "symmetric to the last bit");
    }
}

fn kronecker_and_khatri_rao<T: Scalar>(case: &Case) {
    let mut operands = case.operands();
    let count = operands.size(4);
    let (largest, rank) = (if count < 3 { case.largest() } else { 4 }, operands.size(5));
    let rows: Vec<usize> = (0..count).map(|_| operands.rng.random_range(0..=largest)).collect();
    let (a, of_a) = operands.factors::<T>(&rows, rank);
    let bound = operands.bound::<T>(1, count);
    let views: Vec<&Tensor<T, _>> = a.iter().collect();
    assert_within(&algebra::khatri_rao(&views).unwrap(), &support::khatri_rao(&of_a), bound);
    let (b, of_b): (Vec<_>, Vec<_>) = rows
        .iter()
        .map(|&n| {
            let columns = operands.size(4);
            operands.matrix::<T>(n, columns)
        })
        .unzip();
    let views: Vec<&Tensor<T, _>> = b.iter().collect();
    assert_within(&algebra::kronecker(&views).unwrap(), &support::kronecker(&of_b), bound);
}

fn matmul<T: Scalar>(case: &Case) {
    let mut operands = case.operands();
    let (m, n) = (operands.size(case.largest()), operands.size(case.largest()));
    let k = case.shape[0].min(9_000);
    let (a, of_a) = operands.matrix::<T>(m, k);
    let (b, of_b) = operands.matrix::<T>(k, n);
    let bound = operands.bound::<T>(k, 2);
    assert_within(&a.matmul(&b).unwrap(), &support::matmul(&of_a, &of_b), bound);
    assert_within(&b.t().matmul(&a.t()).unwrap(), &transpose(&support::matmul(&of_a, &of_b)), bound);
}

/// Products large enough to be split among threads, each way there is.
#[test]
fn products_split_by_rows_columns_inner_sums_and_batches() {
    fn check<T: Scalar>(seed: u64) {
        let mut operands = Operands::new(seed, 1).row_major();
        let mut product = |x: &[usize], x_modes: &[usize], y: &[usize], y_modes: &[usize]| {
            let ((x, a), (y, b)) = (operands.tensor::<T>(x), operands.tensor::<T>(y));
            let bound = operands.bound::<T>(pick(x.shape(), x_modes).iter().product(), 2);
            let want = support::contract(&a, x_modes, &b, y_modes);
            for threads in 1..=3 {
                let x = x.to_device(&Device::cpu().threads(threads)).unwrap();
                assert_within(&algebra::contract(&x, x_modes, &y, y_modes).unwrap(), &want, bound);
            }
        };
        let shapes = [
            [130, 60, 50],
            [50, 60, 130],
            [7, 12_345, 6],
            [1, 300_001, 1],
            [1, 600, 600],
            [600, 600, 1],
            [600, 1, 600],
        ];
        for [m, k, n] in shapes {
            product(&[m, k], &[1], &[k, n], &[0]);
        }
        // Two paired modes that no single stride steps through: a sum around the products.
        product(&[16, 200, 30], &[1, 2], &[30, 200, 16], &[1, 0]);
        // Free modes that do not merge: a batch around the products.
        product(&[9, 40, 30], &[1], &[3, 40, 31], &[1]);
    }
    let seeds = [true, false].map(|integers| (0..).find(|&s| Operands::new(s, 1).integers == integers).unwrap());
    for seed in seeds {
        check::<f64>(seed);
        check::<f32>(seed);
    }
}

/// A Gram matrix with more rows than each thread gets a sum of its own for.
#[test]
fn gram_of_a_long_mode() {
    let mut operands = Operands::new(8, 1);
    for shape in [[514, 3, 2], [3, 514, 2], [2, 3, 514]] {
        let (x, reference) = operands.tensor::<f32>(&shape);
        let mode = shape.iter().position(|&n| n == 514).unwrap();
        let want = support::gram(&reference, mode);
        for threads in 1..=3 {
            let got = x.to_device(&Device::cpu().threads(threads)).unwrap().gram(mode).unwrap();
            assert_within(&got, &want, operands.bound::<f64>(6, 2));
        }
    }
}

#[test]
fn a_mode_of_size_zero_gives_empty_results_and_zero_sums() {
    for threads in 1..=2 {
        let mut operands = Operands::new(2, threads);
        let (x, _) = operands.tensor::<f64>(&[3, 0, 2]);
        let zeros = |shape: &[usize]| ArrayD::<f64>::zeros(shape);
        let (wide, tall) = (operands.matrix(4, 0).0, operands.matrix(5, 3).0);
        assert_within(&x.mode_product(1, &wide).unwrap(), &zeros(&[3, 4, 2]), 0.0);
        assert_within(&x.mode_product(0, &tall).unwrap(), &zeros(&[5, 0, 2]), 0.0);
        assert_within(&x.mode_product_vector(1, &operands.vector(0).0).unwrap(), &zeros(&[3, 2]), 0.0);
        assert_within(&x.gram(0).unwrap(), &zeros(&[3, 3]), 0.0);
        assert_within(&x.gram(1).unwrap(), &zeros(&[0, 0]), 0.0);
        let (factors, _) = operands.factors(&[3, 0, 2], 4);
        assert_within(&x.mttkrp(0, &factors).unwrap(), &zeros(&[3, 4]), 0.0);
        assert_within(&x.mttkrp(1, &factors).unwrap(), &zeros(&[0, 4]), 0.0);
        assert_eq!(x.mttkrp_all(&factors).unwrap().len(), 3);
        // A number has no modes at all.
        assert!(Tensor::<f64, Ix0>::full((), 2.0).unwrap().mttkrp_all(&[]).unwrap().is_empty());
        let (no_columns, _) = operands.factors::<f64>(&[3, 0, 2], 0);
        assert_eq!(x.mttkrp(2, &no_columns).unwrap().shape(), &[2, 0]);
        assert_eq!(algebra::inner(&x, &x).unwrap(), 0.0);
        assert_within(&algebra::contract(&x, &[1], &x, &[1]).unwrap(), &zeros(&[3, 2, 3, 2]), 0.0);
        assert_within(&algebra::contract(&x, &[0, 1, 2], &x, &[0, 1, 2]).unwrap(), &zeros(&[]), 0.0);
        assert_within(&algebra::outer(&x, &x).unwrap(), &zeros(&[3, 0, 2, 3, 0, 2]), 0.0);
        assert_within(&wide.matmul(&operands.matrix(0, 3).0).unwrap(), &zeros(&[4, 3]), 0.0);
        assert_within(&algebra::kronecker(&[&wide, &tall]).unwrap(), &zeros(&[20, 0]), 0.0);
    }
}

/// A zero on the other side does not hide a NaN or an infinity.
#[test]
fn nan_and_infinity_propagate() {
    for (bad, threads) in [(f64::NAN, 1), (f64::INFINITY, 1), (f64::NAN, 3)] {
        for n in [3usize, 60] {
            let device = Device::cpu().threads(threads);
            let shape = [n, n, n];
            let x = Tensor::from_fn(shape, |i| if i == [1, 2, 0] { bad } else { 1.0 }).unwrap();
            let x = x.to_device(&device).unwrap();
            let zeros = Tensor::<f64, _>::zeros([n, n]).unwrap().to_device(&device).unwrap();
            for mode in 0..3 {
                let y = x.mode_product(mode, &zeros).unwrap();
                for row in 0..n {
                    assert!(y.get(&support::with(&[1, 2, 0], mode, row)).unwrap().is_nan());
                }
                assert_eq!(y.to_vec().unwrap().iter().filter(|y| y.is_nan()).count(), n);
                let g = x.gram(mode).unwrap();
                assert!(!g.get(&[[1, 2, 0][mode]; 2]).unwrap().is_finite());
                let factors = [zeros.clone(), zeros.clone(), zeros.clone()];
                let m = x.mttkrp(mode, &factors).unwrap();
                assert!((0..n).all(|r| m.get(&[[1, 2, 0][mode], r]).unwrap().is_nan()));
                assert_eq!(m.to_vec().unwrap().iter().filter(|m| m.is_nan()).count(), n);
            }
            let zero = Tensor::zeros(shape).unwrap();
            assert!(algebra::inner(&x, &zero).unwrap().is_nan());
            assert!(algebra::hadamard(&[&x, &zero]).unwrap().get(&[1, 2, 0]).unwrap().is_nan());
            assert!(algebra::contract(&x, &[0, 1, 2], &zero, &[0, 1, 2]).unwrap().get(&[]).unwrap().is_nan());
            let matrix = x.index_mode(2, 0).unwrap();
            assert!(algebra::kronecker(&[&matrix, &zeros]).unwrap().sum().unwrap().is_nan());
            assert!(algebra::khatri_rao(&[&matrix, &zeros]).unwrap().sum().unwrap().is_nan());
            assert!(matrix.matmul(&zeros).unwrap().get(&[1, 0]).unwrap().is_nan());
        }
    }
}

/// Columns are orthonormal to rounding.
fn assert_orthonormal<T: Scalar>(q: &ArrayD<f64>) {
    let (rows, columns) = (q.shape()[0], q.shape()[1]);
    let bound = 10.0 * (rows.max(1) as f64) * T::epsilon().f64();
    let product = support::matmul(&transpose(q), q);
    for i in 0..columns {
        for j in 0..columns {
            let want = if i == j { 1.0 } else { 0.0 };
            assert!((product[[i, j]] - want).abs() <= bound, "{i}, {j}: {}", product[[i, j]]);
        }
    }
}

fn assert_same<T: Scalar>(got: &ArrayD<f64>, want: &ArrayD<f64>) {
    assert_eq!(got.shape(), want.shape());
    let size = |x: &ArrayD<f64>| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let n = want.shape().iter().copied().max().unwrap_or(1).max(1) as f64;
    let (error, bound) = (size(&(got - want)), 10.0 * n * T::epsilon().f64() * size(want));
    assert!(error <= bound, "off by {error:e}, more than {bound:e}");
}

/// `A diag(s)`
fn scaled(a: &ArrayD<f64>, s: &ArrayD<f64>) -> ArrayD<f64> {
    by_formula(a.shape(), |i| a[i] * s[[i[1]]])
}

fn falling(s: &ArrayD<f64>) -> bool {
    s.iter().zip(s.iter().skip(1)).all(|(a, b)| a >= b)
}

fn check_svd_and_qr<T: Scalar>(operands: &mut Operands, m: usize, n: usize) {
    let (a, reference) = operands.matrix::<T>(m, n);
    let k = m.min(n);
    let svd = a.svd().unwrap();
    let (u, s, v) = (entries(&svd.u), entries(&svd.s), entries(&svd.v));
    assert_eq!((u.shape(), s.shape(), v.shape()), (&[m, k][..], &[k][..], &[n, k][..]));
    assert_orthonormal::<T>(&u);
    assert_orthonormal::<T>(&v);
    assert!(falling(&s) && s.iter().all(|&s| s >= 0.0), "{s}");
    assert_same::<T>(&support::matmul(&scaled(&u, &s), &transpose(&v)), &reference);
    let qr = a.qr().unwrap();
    let (q, r) = (entries(&qr.q), entries(&qr.r));
    assert_eq!((q.shape(), r.shape()), (&[m, k][..], &[k, n][..]));
    assert_orthonormal::<T>(&q);
    assert!(r.indexed_iter().all(|(i, &r)| i[0] <= i[1] || r == 0.0), "upper triangular");
    assert_same::<T>(&support::matmul(&q, &r), &reference);
}

fn check_symmetric<T: Scalar>(operands: &mut Operands, n: usize) {
    // Only the lower triangle counts: the upper one holds something else.
    let (a, entries_of_a) = operands.matrix::<T>(n, n);
    let lower = |a: &ArrayD<f64>| by_formula(&[n, n], |i| a[[i[0].max(i[1]), i[0].min(i[1])]]);
    let want = lower(&entries_of_a);
    let (values, vectors) = a.eigh().unwrap();
    let (values, vectors) = (entries(&values), entries(&vectors));
    assert_orthonormal::<T>(&vectors);
    assert!(falling(&values), "{values}");
    assert_same::<T>(&support::matmul(&scaled(&vectors, &values), &transpose(&vectors)), &want);

    // B B^T + I is positive definite.
    let (b, _) = operands.matrix::<T>(n, n + 2);
    let a = b.matmul(&b.t()).unwrap().add(&Tensor::eye(n).unwrap()).unwrap();
    let upper_broken = Tensor::from_fn([n, n], |i| if i[0] >= i[1] { a.get(i).unwrap() } else { T::of(99.0) }).unwrap();
    let l = upper_broken.cholesky().unwrap();
    let of_l = entries(&l);
    assert!(of_l.indexed_iter().all(|(i, &l)| i[0] >= i[1] || l == 0.0), "lower triangular");
    assert_same::<T>(&support::matmul(&of_l, &transpose(&of_l)), &entries(&a));
    let columns = operands.size(4);
    let (b, of_b) = operands.matrix::<T>(n, columns);
    let x = entries(&l.cholesky_solve(&b).unwrap());
    assert_eq!(x.shape(), of_b.shape());
    // The residual against |A| |X|, as a stable solver keeps it small.
    let size = |x: &ArrayD<f64>| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let residual = size(&(support::matmul(&entries(&a), &x) - &of_b));
    assert!(residual <= 10.0 * n.max(1) as f64 * T::epsilon().f64() * size(&entries(&a)) * size(&x), "{residual:e}");
    // In place of L any layout of it.
    let again = l.t().to_contiguous().unwrap().t().cholesky_solve(&b).unwrap();
    assert_same::<T>(&entries(&again), &x);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn svd_and_qr(seed: u64, m in 0usize..12, n in 0usize..12, threads in 1usize..=3) {
        check_svd_and_qr::<f64>(&mut Operands::new(seed, threads), m, n);
        check_svd_and_qr::<f32>(&mut Operands::new(seed, threads), m, n);
    }

    #[test]
    fn eigh_and_cholesky(seed: u64, n in 0usize..12, threads in 1usize..=3) {
        check_symmetric::<f64>(&mut Operands::new(seed, threads), n);
        check_symmetric::<f32>(&mut Operands::new(seed, threads), n);
    }
}

#[test]
fn factorisations_of_larger_matrices() {
    for threads in 1..=2 {
        let mut operands = Operands::new(13, threads);
        for (m, n) in [(90, 40), (40, 90), (70, 70), (300, 3), (2, 400)] {
            check_svd_and_qr::<f64>(&mut operands, m, n);
            check_svd_and_qr::<f32>(&mut operands, m, n);
        }
        check_symmetric::<f64>(&mut operands, 80);
        check_symmetric::<f32>(&mut operands, 80);
    }
}

#[test]
fn factorisations_of_singular_and_extreme_matrices() {
    let zero = Tensor::<f64, _>::zeros([4, 3]).unwrap();
    let svd = zero.svd().unwrap();
    assert_eq!(svd.s.to_vec().unwrap(), [0.0; 3]);
    assert_orthonormal::<f64>(&entries(&svd.u));
    assert_orthonormal::<f64>(&entries(&zero.qr().unwrap().q));
    // Rank one: one singular value counts.
    let one = Tensor::from_fn([5, 4], |i| ((i[0] + 1) * (i[1] + 2)) as f64).unwrap();
    let s = one.svd().unwrap().s.to_vec().unwrap();
    assert!((s[0] / one.norm().unwrap() - 1.0).abs() < 1e-14 && s[1] < 1e-13 * s[0], "{s:?}");
    // Entries whose squares leave the range of the numbers: the results are those of the same matrix of common size, scaled.
    fn check<T: Scalar>(scales: &[f64]) {
        let entry = |i: &[usize]| T::of((i[0] as f64 - 1.3 * i[1] as f64 + 0.1).sin());
        let a = Tensor::<T, _>::from_fn([5, 4], entry).unwrap();
        let symmetric = Tensor::<T, _>::from_fn([5, 5], |i| entry(&[i[0] + i[1], i[0] * i[1]])).unwrap();
        let (s, r, (w, v)) = (a.svd().unwrap().s, a.qr().unwrap().r, symmetric.eigh().unwrap());
        for &scale in scales {
            let scaled = |x: ArrayD<f64>| x * scale;
            let a = a.scale(T::of(scale)).unwrap();
            let svd = a.svd().unwrap();
            assert_same::<T>(&entries(&svd.s), &scaled(entries(&s)));
            assert_orthonormal::<T>(&entries(&svd.u));
            assert_orthonormal::<T>(&entries(&svd.v));
            let qr = a.qr().unwrap();
            assert_same::<T>(&entries(&qr.r), &scaled(entries(&r)));
            assert_orthonormal::<T>(&entries(&qr.q));
            let (values, vectors) = symmetric.scale(T::of(scale)).unwrap().eigh().unwrap();
            assert_same::<T>(&entries(&values), &scaled(entries(&w)));
            assert_same::<T>(&entries(&vectors).mapv(f64::abs), &entries(&v).mapv(f64::abs));
        }
    }
    let power = |n: i32| 2f64.powi(n);
    check::<f64>(&[power(-900), power(-500), power(-200), power(200), power(500), power(900)]);
    check::<f32>(&[power(-90), power(-60), power(-30), power(30), power(60), power(90)]);
}

/// Subnormal entries have fewer digits, and what comes of them is as exact as they are.
#[test]
fn factorisations_of_subnormal_matrices() {
    fn check<T: Scalar>(exponent: i32) {
        // By two powers: one alone is none of f64.
        let scaled = |x: f64| x * 2f64.powi(exponent / 2) * 2f64.powi(exponent - exponent / 2);
        let back = |x: &ArrayD<f64>| x * 2f64.powi(-(exponent / 2)) * 2f64.powi(exponent / 2 - exponent);
        let near = |got: &ArrayD<f64>, want: &ArrayD<f64>| {
            let apart = (&back(got) - want).iter().fold(0.0f64, |most, x| most.max(x.abs()));
            assert!(apart < 1e-2, "{} 2^{exponent}: {:?}, not {want:?}", T::DTYPE, back(got));
        };
        let entry = |i: &[usize]| (5 * i[0] * i[0] + 3 * i[1] * i[0] + 7 * i[1]) as f64 % 11.0 - 5.0;
        let common = Tensor::<T, _>::from_fn([5, 4], |i| T::of(entry(i))).unwrap();
        let a = Tensor::<T, _>::from_fn([5, 4], |i| T::of(scaled(entry(i)))).unwrap();
        near(&entries(&a.svd().unwrap().s), &entries(&common.svd().unwrap().s));
        let qr = a.qr().unwrap();
        near(&entries(&qr.r), &entries(&common.qr().unwrap().r));
        assert_orthonormal::<T>(&entries(&qr.q));
        let symmetric = |x: &Tensor<T, _>| x.narrow(0, 0..4).unwrap().add(&x.narrow(0, 0..4).unwrap().t()).unwrap();
        near(&entries(&symmetric(&a).eigh().unwrap().0), &entries(&symmetric(&common).eigh().unwrap().0));
    }
    check::<f64>(-1025);
    check::<f64>(-1062);
    check::<f32>(-137);
}

#[test]
fn wrong_matrices_are_errors() {
    use tenfold::ErrorKind;
    let wide = Tensor::<f64, _>::ones([2, 3]).unwrap();
    assert_eq!(wide.eigh().unwrap_err().to_string(), "eigh: a [2, 3] matrix is not square");
    assert_eq!(wide.cholesky().unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(wide.cholesky_solve(&wide).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(wide.matmul(&wide).unwrap_err().to_string(), "matmul: [2, 3] times [2, 3]: the inner sizes differ");
    let eye = Tensor::<f64, _>::eye(2).unwrap();
    let error = eye.cholesky_solve(&wide.t()).unwrap_err();
    assert_eq!(error.to_string(), "cholesky_solve: [2, 2] does not solve for [3, 2]: the rows differ");
    for bad in [f64::NAN, f64::INFINITY] {
        let x = Tensor::from_fn([3, 3], |i| if i == [1, 1] { bad } else { 1.0 }).unwrap();
        for error in [x.eigh().err(), x.svd().err(), x.qr().err()] {
            assert_eq!(error.unwrap().kind(), ErrorKind::Value);
        }
        assert_eq!(x.cholesky().unwrap_err().kind(), ErrorKind::Convergence);
    }
    let indefinite = Tensor::from(ndarray::array![[1.0, 2.0], [2.0, 1.0]]);
    let error = indefinite.cholesky().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Convergence);
    assert_eq!(error.to_string(), "cholesky: the 2 x 2 matrix is not positive definite to working precision");
}

#[test]
fn wrong_operands_are_errors_that_say_what_would_fit() {
    let x = Tensor::<f64, _>::ones([2, 3, 4]).unwrap();
    let m = Tensor::<f64, _>::ones([5, 2]).unwrap();
    let three = [m.clone(), m.clone(), m.clone()];
    let message = |e: tenfold::Error| {
        assert_eq!(e.kind(), tenfold::ErrorKind::Shape);
        e.to_string()
    };
    let no_mode = "mode 3 does not exist in shape [2, 3, 4]; modes count from 0 to 2";
    assert_eq!(message(x.unfold(3).unwrap_err()), format!("unfold: {no_mode}"));
    assert_eq!(message(x.mode_product(3, &m).unwrap_err()), format!("mode_product: {no_mode}"));
    assert_eq!(message(x.gram(3).unwrap_err()), format!("gram: {no_mode}"));
    assert_eq!(message(x.mttkrp(3, &three).unwrap_err()), format!("mttkrp: {no_mode}"));
    assert_eq!(message(x.partial_unfold(3, 0..3).unwrap_err()), format!("partial_unfold: {no_mode}"));
    assert_eq!(
        message(x.partial_unfold(0, 1..3).unwrap_err()),
        "partial_unfold: modes 1..3 of shape [2, 3, 4] do not hold mode 0"
    );
    assert_eq!(
        message(x.matricize(&[0, 1], &[1]).unwrap_err()),
        "matricize: [0, 1, 1] does not name each mode of shape [2, 3, 4] once"
    );
    assert_eq!(
        message(m.fold(1, [2, 3]).unwrap_err()),
        "fold: a [5, 2] matrix is not the mode-1 unfolding of shape [2, 3]"
    );
    assert_eq!(
        message(m.fold(2, [5, 2]).unwrap_err()),
        "fold: mode 2 does not exist in shape [5, 2]; modes count from 0 to 1"
    );
    assert_eq!(
        message(x.mode_product(1, &m).unwrap_err()),
        "mode_product: a 5 x 2 matrix cannot multiply mode 1 of shape [2, 3, 4]; it needs 3 columns"
    );
    assert!(
        message(x.mode_product_vector(1, &Tensor::ones([2]).unwrap()).unwrap_err())
            .starts_with("mode_product_vector: ")
    );
    assert_eq!(
        message(x.multi_mode_product(&three[..2], MultiMode::default()).unwrap_err()),
        "multi_mode_product: 2 matrices for shape [2, 3, 4], which needs 3, one for each mode"
    );
    assert_eq!(
        message(x.multi_mode_product(&three, MultiMode { skip: Some(3), transpose: false }).unwrap_err()),
        format!("multi_mode_product: {no_mode}")
    );
    assert_eq!(
        message(x.mttkrp(0, &three).unwrap_err()),
        "mttkrp: factor 0 is 5 x 2, but mode 0 of shape [2, 3, 4] needs 2 x 2"
    );
    let fitting = [2, 3, 4].map(|n| Tensor::<f64, _>::ones([n, 2]).unwrap());
    let two_ranks = [fitting[0].clone(), fitting[1].clone(), Tensor::ones([4, 3]).unwrap()];
    assert_eq!(
        message(x.mttkrp_all(&two_ranks).unwrap_err()),
        "mttkrp_all: factor 2 is 4 x 3, but mode 2 of shape [2, 3, 4] needs 4 x 2"
    );
    assert_eq!(
        message(x.mttkrp_weighted(0, &fitting, &Tensor::ones([3]).unwrap()).unwrap_err()),
        "mttkrp_weighted: 3 weights for 2 columns"
    );
    let contract = |a: &[usize], b: &[usize]| message(algebra::contract(&x, a, &m, b).unwrap_err());
    assert_eq!(contract(&[3], &[0]), format!("contract: {no_mode}"));
    assert_eq!(contract(&[0, 0], &[1, 0]), "contract: mode 0 stands twice in [0, 0]");
    assert_eq!(contract(&[0, 1], &[1]), "contract: 2 modes of one operand for 1 of the other");
    assert_eq!(
        contract(&[0], &[0]),
        "contract: mode 0 of shape [2, 3, 4] and mode 0 of shape [5, 2] have different sizes"
    );
    assert_eq!(message(algebra::inner(&m, &m.t()).unwrap_err()), "inner: shapes [5, 2] and [2, 5] differ");
    assert_eq!(message(algebra::hadamard(&[&m, &m.t()]).unwrap_err()), "hadamard: shapes [5, 2] and [2, 5] differ");
    assert_eq!(
        message(algebra::khatri_rao(&[&m, &m.t()]).unwrap_err()),
        "khatri_rao: matrices with 2 and 5 columns; all need the same number"
    );
    assert_eq!(
        message(algebra::kronecker::<f64>(&[]).unwrap_err()),
        "kronecker: nothing to multiply; give at least one operand"
    );
    // A result beyond the address space is refused before anything is allocated.
    let huge = Tensor::<f64, _>::ones([1, 1]).unwrap().broadcast_to([1 << 31, 1 << 28]).unwrap();
    let long = Tensor::<f64, _>::ones([1, 1]).unwrap().broadcast_to([1 << 40, 1]).unwrap();
    for error in [
        algebra::outer(&huge, &huge).unwrap_err(),
        algebra::kronecker(&[&huge, &huge]).unwrap_err(),
        algebra::kronecker(&[&long, &long]).unwrap_err(),
        algebra::khatri_rao(&[&long, &long]).unwrap_err(),
        long.gram(0).unwrap_err(),
    ] {
        assert_eq!(error.kind(), tenfold::ErrorKind::Memory, "{error}");
    }
}

mod repeated_runs {
    use super::*;

    /// The bits of everything that is split among threads.
    fn bits<T: Scalar>(threads: usize) -> Vec<u64> {
        let mut operands = Operands::new(1, threads);
        let (x, _) = operands.tensor::<T>(&[40, 50, 60]);
        let (factors, _) = operands.factors::<T>(&[40, 50, 60], 7);
        let (long, _) = operands.matrix::<T>(5, 40_000);
        let mut all = vec![x.sum().unwrap(), x.norm().unwrap(), algebra::inner(&x, &x).unwrap()];
        let mut take = |x: Vec<T>| all.extend(x.into_iter().map(Scalar::f64));
        take(x.mttkrp(1, &factors).unwrap().to_vec().unwrap());
        x.mttkrp_all(&factors).unwrap().iter().for_each(|m| take(m.to_vec().unwrap()));
        take(x.mode_product(1, &factors[1].t()).unwrap().to_vec().unwrap());
        take(long.matmul(&long.t()).unwrap().to_vec().unwrap());
        take(x.sum_modes(&[0, 2]).unwrap().to_vec().unwrap());
        take(algebra::contract(&x, &[0, 2], &x, &[0, 2]).unwrap().to_vec().unwrap());
        all.extend(x.gram(0).unwrap().to_vec().unwrap());
        all.into_iter().map(f64::to_bits).collect()
    }

    #[test]
    fn give_the_same_bits() {
        for threads in 1..=3 {
            assert!(bits::<f64>(threads) == bits::<f64>(threads), "{threads} threads, double");
            assert!(bits::<f32>(threads) == bits::<f32>(threads), "{threads} threads, single");
        }
    }
}
