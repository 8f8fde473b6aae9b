//! Tensors as containers: ndarray in and out, views, arithmetic, totals, casts, printing, errors.

mod support;

use approx::{AbsDiffEq, RelativeEq, assert_abs_diff_eq, assert_relative_eq};
use half::{bf16, f16};
use ndarray::{
    Array, Array1, Array2, Array3, ArrayD, Axis, Dimension, Ix0, Ix1, Ix2, Ix3, Ix6, IxDyn, NewAxis, ShapeBuilder,
    Slice, SliceInfo, SliceInfoElem, array, s,
};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use support::{Operands, assert_within};
use tenfold::{DType, Device, Element, Error, ErrorKind, Scalar, Tensor};

fn counting<D: Dimension, S: ShapeBuilder<Dim = D>>(shape: S) -> Array<f64, D> {
    let mut n = 0.0;
    Array::from_shape_simple_fn(shape, || {
        n += 1.0;
        n
    })
}

/// An operand of up to 4 modes in any layout.
fn drawn(seed: u64, order: usize, threads: usize) -> (Operands, Tensor<f64, IxDyn>, ArrayD<f64>) {
    let mut operands = Operands::new(seed, threads);
    let shape: Vec<usize> = (0..order).map(|_| operands.rng.random_range(1..=4)).collect();
    let (x, reference) = operands.tensor(&shape);
    (operands, x, reference)
}

// --- ndarray in and out ---

/// An owned array of any layout moves in without being copied, and its view is the array.
#[track_caller]
fn moves_in<T: Element, D: Dimension>(array: Array<T, D>) {
    let want = array.clone();
    let at = array.as_ptr();
    let tensor = Tensor::from(array);
    assert_eq!(tensor.shape(), want.shape());
    assert_eq!(tensor.strides(), want.strides());
    assert_eq!(tensor.view().unwrap(), want);
    if !want.is_empty() {
        assert_eq!(tensor.view().unwrap().as_ptr(), at, "moving an array in copies nothing");
        assert_eq!(tensor.clone().view().unwrap().as_ptr(), at, "nor does a clone");
    }
    assert_eq!(tensor.to_vec().unwrap(), want.iter().copied().collect::<Vec<_>>());
    assert_eq!(tensor.to_ndarray().unwrap(), want);
    let out = tensor.into_ndarray().unwrap();
    assert!(out.is_standard_layout());
    assert_eq!(out, want);
    // A view of the array is copied into row-major order.
    let copied = Tensor::from(want.view());
    assert!(copied.is_contiguous());
    assert_eq!(copied.view().unwrap(), want);
    assert_eq!(Tensor::from_array(&want).view().unwrap(), want);
}

#[test]
fn arrays_of_every_layout_move_in() {
    moves_in(counting(5));
    moves_in(counting([2, 3]));
    moves_in(counting([2, 3].f()));
    moves_in(counting([2, 3, 4]).permuted_axes([2, 0, 1]));
    moves_in(counting([2, 3, 4]).reversed_axes());
    moves_in(counting([1, 3, 1]));
    moves_in(counting([2, 0, 3]));
    moves_in(counting([1, 2, 1, 3, 2, 2]));
    moves_in(counting(IxDyn(&[2, 3, 2])));
    moves_in(counting(IxDyn(&[])));
    moves_in(Array::<f64, Ix0>::from_elem((), 3.0));
    moves_in(counting([2, 3]).mapv(|x| x as u8));
    moves_in(counting([2, 3]).mapv(|x| x as i64));
    moves_in(counting([2, 3]).mapv(f16::from_f64));
    let mut reversed = counting([3, 4]);
    reversed.invert_axis(Axis(1));
    moves_in(reversed.clone());
    reversed.invert_axis(Axis(0));
    moves_in(reversed);
    moves_in(counting([6, 7]).slice_move(s![1..5;2, ..;-3]));
    moves_in(counting([6, 7]).slice_move(s![2, ..]));
    moves_in(counting([6, 7]).slice_move(s![.., 3]));
    moves_in(counting([6, 7]).slice_move(s![4..4, ..]));
    moves_in(counting([6, 7]).slice_move(s![NewAxis, 1..3, ..;-1]));
}

#[test]
fn a_contiguous_array_comes_out_as_it_went_in() {
    let array = counting([3, 4]);
    let at = array.as_ptr();
    let tensor = Tensor::from(array);
    let other = tensor.clone();
    drop(other);
    let dynamic = tensor.into_dyn().into_order::<Ix2>().unwrap();
    assert_eq!(dynamic.as_slice().unwrap().as_ptr(), at);
    let shaped = dynamic.reshape([2, 6]).unwrap();
    drop(dynamic);
    let array: Array2<f64> = shaped.try_into().unwrap();
    assert_eq!(array.as_ptr(), at);
    // The first rows alone are contiguous too; the vector is cut, not copied.
    let whole = Tensor::from(array);
    let rows = whole.narrow(0, 0..1).unwrap();
    drop(whole);
    let rows = rows.into_ndarray().unwrap();
    assert_eq!((rows.as_ptr(), rows.shape()), (at, &[1, 6][..]));
    // Results of operations come out without a copy too, though their buffers may have been larger.
    let result = Tensor::from(counting([50, 30])).scale(2.0).unwrap();
    let at = result.as_slice().unwrap().as_ptr();
    let out = result.into_ndarray().unwrap();
    assert_eq!((out.as_ptr(), out.len()), (at, 1500));
    let vector = vec![1.0, 2.0];
    let at = vector.as_ptr();
    assert_eq!(Tensor::from_vec([2], vector).unwrap().as_slice().unwrap().as_ptr(), at);
}

#[test]
fn a_shared_or_strided_tensor_comes_out_as_a_copy() {
    let x = Tensor::from(counting([3, 4]));
    let y = x.clone();
    let mut out = x.into_ndarray().unwrap();
    out.fill(0.0);
    assert_eq!(y.view().unwrap(), counting([3, 4]));
    assert_eq!(y.t().into_ndarray().unwrap(), counting([3, 4]).reversed_axes());
    let rows = y.narrow(0, 1..3).unwrap();
    drop(y);
    assert_eq!(rows.into_ndarray().unwrap(), counting([3, 4]).slice(s![1..3, ..]));
}

#[test]
fn clones_share_until_one_is_written() {
    let mut x = Tensor::from(counting([2, 3]));
    let y = x.clone();
    let view = x.t();
    assert_eq!(x.as_slice().unwrap().as_ptr(), y.as_slice().unwrap().as_ptr());
    x.as_mut_slice().unwrap()[0] = 100.0;
    assert_eq!(x.get(&[0, 0]).unwrap(), 100.0);
    assert_eq!((y.get(&[0, 0]).unwrap(), view.get(&[0, 0]).unwrap()), (1.0, 1.0));
    // Alone now: written in place.
    let at = x.as_slice().unwrap().as_ptr();
    x.as_mut_slice().unwrap()[1] = 7.0;
    assert_eq!(x.as_slice().unwrap().as_ptr(), at);
    // A view becomes a tensor of its own, in its own order.
    let mut column = y.slice(s![..;-1, 1]).unwrap();
    column.as_mut_slice().unwrap()[0] = -1.0;
    assert_eq!(column.to_vec().unwrap(), [-1.0, 2.0]);
    assert_eq!(y.view().unwrap(), counting([2, 3]));
}

// --- views ---

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn slices_are_those_of_ndarray(seed: u64, order in 1usize..=4) {
        let (mut operands, x, reference) = drawn(seed, order, 1);
        let rng = &mut operands.rng;
        let mut parts: Vec<SliceInfoElem> = Vec::new();
        for &n in reference.shape() {
            let n = n as i64;
            if rng.random_bool(0.2) {
                parts.push(SliceInfoElem::NewAxis);
            }
            if rng.random_bool(0.25) {
                parts.push(SliceInfoElem::Index(rng.random_range(-n..n) as isize));
            } else {
                let end = rng.random_bool(0.7).then(|| rng.random_range(-n..=n) as isize);
                let step = [1, 1, 2, 3, -1, -2, -3, isize::MAX, -isize::MAX][rng.random_range(0..9)];
                parts.push(SliceInfoElem::Slice { start: rng.random_range(-n..=n) as isize, end, step });
            }
        }
        let info: SliceInfo<_, IxDyn, IxDyn> = SliceInfo::try_from(parts).unwrap();
        let want = reference.slice(&info);
        let got = x.slice(&info).unwrap();
        assert_eq!(got.shape(), want.shape());
        assert_eq!(got.view().unwrap(), want);
        assert_within(&got, &want.to_owned(), 0.0);
        if !got.is_empty() && !reference.is_empty() {
            let inside = x.view().unwrap().slice(&info).as_ptr();
            assert_eq!(got.view().unwrap().as_ptr(), inside, "a slice is a view");
        }
    }

    #[test]
    fn permute_and_broadcast_are_those_of_ndarray(seed: u64, order in 1usize..=4, front in 0usize..=2) {
        let (mut operands, x, reference) = drawn(seed, order, 1);
        let mut modes: Vec<usize> = (0..order).collect();
        modes.shuffle(&mut operands.rng);
        let permuted = x.permute(&modes).unwrap();
        let want = reference.permuted_axes(modes);
        assert_eq!(permuted.view().unwrap(), want);
        let larger = (0..front).map(|_| operands.rng.random_range(0..=3));
        let mut shape: Vec<usize> = larger.collect();
        shape.extend(want.shape().iter().map(|&n| if n == 1 { operands.rng.random_range(1..=3) } else { n }));
        let broadcast = permuted.broadcast_to(IxDyn(&shape)).unwrap();
        assert_eq!(broadcast.view().unwrap(), want.broadcast(IxDyn(&shape)).unwrap());
        assert_within(&broadcast, &want.broadcast(IxDyn(&shape)).unwrap().to_owned(), 0.0);
    }

    /// Strided tensors, whose modes can be split or merged in place or not.
    #[test]
    fn reshape_keeps_the_row_major_order(seed: u64, order in 1usize..=4) {
        let (mut operands, x, reference) = drawn(seed, order, 1);
        // Break the length into its prime factors and join them at random, with modes of size 1 between.
        let mut primes = Vec::new();
        let mut rest = x.len();
        for p in [2, 3] {
            while rest % p == 0 {
                primes.push(p);
                rest /= p;
            }
        }
        primes.shuffle(&mut operands.rng);
        let mut shape = vec![1];
        for p in primes {
            if operands.rng.random_bool(0.5) { shape.push(p) } else { *shape.last_mut().unwrap() *= p }
            if operands.rng.random_bool(0.2) { shape.push(1) }
        }
        let reshaped = x.reshape(IxDyn(&shape)).unwrap();
        let want = ArrayD::from_shape_vec(shape, reference.iter().copied().collect()).unwrap();
        assert_within(&reshaped, &want, 0.0);
        assert_eq!(reshaped.view().unwrap(), want);
    }

    #[test]
    fn narrow_index_and_insert_modes(seed: u64, order in 1usize..=4) {
        let (mut operands, x, reference) = drawn(seed, order, 1);
        let mode = operands.rng.random_range(0..order);
        let n = reference.shape()[mode];
        let start = operands.rng.random_range(0..=n);
        let range = start..operands.rng.random_range(start..=n);
        let want = reference.slice_axis(Axis(mode), Slice::from(range.clone()));
        assert_eq!(x.narrow(mode, range).unwrap().view().unwrap(), want);
        let index = operands.rng.random_range(0..n);
        assert_eq!(x.index_mode(mode, index).unwrap().view().unwrap(), reference.index_axis(Axis(mode), index));
        let at = operands.rng.random_range(0..=order);
        assert_eq!(x.insert_mode(at).unwrap().view().unwrap(), reference.clone().insert_axis(Axis(at)));
    }

    #[test]
    fn concat_is_that_of_ndarray(seed: u64, order in 1usize..=4, count in 1usize..=3) {
        let (mut operands, x, reference) = drawn(seed, order, 1);
        let mode = operands.rng.random_range(0..order);
        let mut parts = vec![(x, reference)];
        for _ in 1..count {
            let shape = support::with(parts[0].1.shape(), mode, operands.rng.random_range(0..=3));
            parts.push(operands.tensor(&shape));
        }
        let (tensors, arrays): (Vec<_>, Vec<_>) = parts.iter().map(|(x, a)| (x, a.view())).unzip();
        let want = ndarray::concatenate(Axis(mode), &arrays).unwrap();
        assert_within(&Tensor::concat(&tensors, mode).unwrap(), &want, 0.0);
    }
}

#[test]
fn reshape_is_a_view_where_the_strides_allow_it() {
    let x = Tensor::from(counting([4, 6]));
    let at = |x: &Tensor<f64, IxDyn>| x.view().unwrap().as_ptr();
    assert_eq!(at(&x.reshape(IxDyn(&[2, 12])).unwrap()), at(&x.to_dyn()));
    let columns = x.slice(s![.., ..;2]).unwrap();
    assert_eq!(at(&columns.reshape(IxDyn(&[2, 2, 3])).unwrap()), at(&x.to_dyn()), "a mode is split in place");
    assert_eq!(at(&columns.reshape(IxDyn(&[12])).unwrap()), at(&x.to_dyn()), "evenly spaced modes are merged");
    assert_ne!(at(&x.t().reshape(IxDyn(&[24])).unwrap()), at(&x.to_dyn()), "transposed ones are copied");
}

#[test]
fn empty_tensors_have_views_totals_and_values_like_any_other() {
    let x = Tensor::<f64, _>::zeros([0, 6]).unwrap();
    let cut = x.narrow(1, 3..5).unwrap();
    assert_eq!(cut.to_vec().unwrap(), Vec::<f64>::new());
    assert_eq!(cut.as_slice().unwrap().len(), 0);
    assert_eq!(cut.clone().as_mut_slice().unwrap().len(), 0);
    assert_eq!(cut.view().unwrap().shape(), &[0, 2]);
    assert_eq!(cut.into_ndarray().unwrap().shape(), &[0, 2]);
    assert_eq!(x.index_mode(1, 5).unwrap().to_vec().unwrap().len(), 0);
    assert_eq!(x.slice(s![.., ..;-1]).unwrap().to_vec().unwrap().len(), 0);
    assert_eq!(x.slice(s![.., ..;2]).unwrap().reshape([6, 0]).unwrap().shape(), &[6, 0]);
    assert_eq!(x.t().reshape([2, 0, 5]).unwrap().shape(), &[2, 0, 5]);
    assert_eq!((x.sum().unwrap(), x.norm().unwrap(), x.max_abs().unwrap()), (0.0, 0.0, 0.0));
    assert!(x.mean().unwrap().is_nan());
    assert_eq!(x.sum_modes(&[0]).unwrap().to_vec().unwrap(), [0.0; 6]);
    assert_eq!(x.sum_modes(&[1]).unwrap().shape(), &[0]);
    assert_eq!(x.sum_modes(&[0, 1]).unwrap().to_vec().unwrap(), [0.0]);
    assert_eq!(x.add(&x).unwrap().shape(), &[0, 6]);
    assert_eq!(x.add(&Tensor::ones([1, 6]).unwrap()).unwrap().shape(), &[0, 6]);
    assert_eq!(x.map(|x| x + 1.0).unwrap().shape(), &[0, 6]);
    assert_eq!(x.cast::<u8>().unwrap().shape(), &[0, 6]);
    assert_eq!(Tensor::concat(&[&x, &Tensor::ones([2, 6]).unwrap(), &x], 0).unwrap().sum().unwrap(), 12.0);
    assert!(x.check_finite("test").is_ok());
    assert_eq!(x, x.t().t());
    assert_eq!(format!("{x}"), "Tensor<f64> 0 x 6 []");
    assert_eq!(x.min().unwrap_err().to_string(), "min: a tensor of shape [0, 6] has no entries");
    assert_eq!(x.max().unwrap_err().kind(), ErrorKind::Shape);
}

// --- arithmetic ---

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Entry by entry the very operations of ndarray, so the results are equal.
    #[test]
    fn arithmetic_broadcasts(seed: u64, order in 1usize..=4, threads in 1usize..=3) {
        let (mut operands, x, a) = drawn(seed, order, threads);
        let shape: Vec<usize> = a.shape().iter().map(|&n| if operands.rng.random_bool(0.3) { 1 } else { n }).collect();
        let (y, b) = operands.tensor::<f64>(&shape);
        let same = |got: tenfold::Result<Tensor<f64, IxDyn>>, want: ArrayD<f64>| assert_within(&got.unwrap(), &want, 0.0);
        same(&x + &y, &a + &b);
        same(&x - &y, &a - &b);
        same(&x * &y, &a * &b);
        same(&x / &y, &a / &b);
        same(y.sub(&x), &b.broadcast(a.shape()).unwrap() - &a);
        same(y.div(&x), &b.broadcast(a.shape()).unwrap() / &a);
        same(&x * 2.5, &a * 2.5);
        same(-&x, -&a);
        same(x.shift(0.5), &a + 0.5);
        same(x.abs(), a.mapv(f64::abs));
        same(x.sqrt(), a.mapv(f64::sqrt));
        same(x.recip(), a.mapv(f64::recip));
        same(x.map(|x| x * x + 1.0), a.mapv(|x| x * x + 1.0));
        same(x.maximum(&y), ndarray::Zip::from(&a).and(&b.broadcast(a.shape()).unwrap()).map_collect(|a, b| a.max(*b)));
        let signs: Tensor<u8, IxDyn> = x.map(|x| u8::from(x > 0.0)).unwrap();
        assert_eq!(signs.view().unwrap(), a.mapv(|x| u8::from(x > 0.0)));
    }

    #[test]
    fn totals_are_those_of_the_definition(seed: u64, order in 1usize..=4, threads in 1usize..=3) {
        let (mut operands, x, a) = drawn(seed, order, threads);
        let n = x.len() as f64;
        let close = |got: f64, want: f64| assert!((got - want).abs() <= n * n * f64::EPSILON, "{got}, not {want}");
        close(x.sum().unwrap(), a.sum());
        close(x.mean().unwrap(), a.sum() / n);
        close(x.norm().unwrap(), a.iter().map(|x| x * x).sum::<f64>().sqrt());
        close(x.norm_l1().unwrap(), a.iter().map(|x| x.abs()).sum());
        assert_eq!(x.min().unwrap(), a.iter().copied().fold(f64::INFINITY, f64::min));
        assert_eq!(x.max().unwrap(), a.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        assert_eq!(x.max_abs().unwrap(), a.iter().fold(0.0, |m, x| x.abs().max(m)));
        let modes: Vec<usize> = (0..order).filter(|_| operands.rng.random_bool(0.5)).collect();
        let mut want = a.clone();
        for &mode in modes.iter().rev() {
            want = want.sum_axis(Axis(mode));
        }
        if want.ndim() == 0 {
            want = want.insert_axis(Axis(0));
        }
        assert_within(&x.sum_modes(&modes).unwrap(), &want, n * n * f64::EPSILON);
    }
}

/// Sizes at which the work is cut into pieces for the threads, with and without a permuted source.
#[test]
fn large_tensors_are_the_same_with_any_number_of_threads() {
    let a = Array3::from_shape_fn([41, 53, 67], |(i, j, k)| ((i * 53 + j) * 67 + k) as f64 % 1000.0);
    for threads in 1..=3 {
        let x = Tensor::from(a.clone()).to_device(&Device::cpu().threads(threads)).unwrap();
        assert_eq!(x.sum().unwrap(), a.sum());
        assert_eq!(x.norm().unwrap(), a.iter().map(|x| x * x).sum::<f64>().sqrt());
        assert_eq!((x.min().unwrap(), x.max().unwrap(), x.norm_l1().unwrap()), (0.0, 999.0, a.sum()));
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let (y, b) = (x.permute(&order).unwrap(), a.view().permuted_axes(order));
            assert_eq!(y.to_contiguous().unwrap().view().unwrap(), b);
            assert_eq!(y.sum().unwrap(), a.sum());
            assert_eq!((&y + &y).unwrap().view().unwrap(), &b + &b);
            assert_eq!(y.cast::<f32>().unwrap().view().unwrap(), b.mapv(|x| x as f32));
            assert_eq!(y.sum_modes(&[1]).unwrap().view().unwrap(), b.sum_axis(Axis(1)).into_dyn());
            assert_eq!(y.sum_modes(&[0, 2]).unwrap().view().unwrap(), b.sum_axis(Axis(2)).sum_axis(Axis(0)).into_dyn());
            let half = y.slice(s![.., ..;-2, 1..]).unwrap();
            assert_eq!(half.abs().unwrap().view().unwrap(), b.slice(s![.., ..;-2, 1..]));
        }
        let row = Tensor::from(counting([1, 1, 67])).to_device(x.device()).unwrap();
        assert_eq!((&x * &row).unwrap().view().unwrap(), &a * &counting([1, 1, 67]));
        let column = Tensor::from(counting([41, 1, 1]));
        assert_eq!(
            (&column - &x).unwrap().view().unwrap(),
            &counting([41, 1, 1]).broadcast([41, 53, 67]).unwrap() - &a
        );
    }
}

#[test]
fn norms_do_not_overflow_or_underflow() {
    let norm = |x: Vec<f64>| Tensor::from(Array1::from(x)).norm().unwrap();
    for scale in [f64::MAX / 10.0, 1e200, 1e-200, 1e-300, f64::MIN_POSITIVE * 8.0] {
        let got = norm(vec![3.0 * scale, -4.0 * scale]);
        assert!((got / (5.0 * scale) - 1.0).abs() < 1e-15, "{scale:e}: {got:e}");
    }
    assert_eq!(norm(vec![5e-324]), 5e-324);
    assert_eq!(norm(vec![0.0, -0.0]), 0.0);
    assert_eq!(norm(vec![1.0, f64::NEG_INFINITY]), f64::INFINITY);
    assert!(norm(vec![1.0, f64::NAN]).is_nan() && norm(vec![f64::INFINITY, f64::NAN]).is_nan());
    // Singles are added up in doubles.
    let x = Tensor::<f32, _>::full([1 << 20], 3e38).unwrap();
    assert_eq!(x.sum().unwrap(), 3e38f32 as f64 * (1 << 20) as f64);
    assert!((x.norm().unwrap() / (3e38f32 as f64 * 1024.0) - 1.0).abs() < 1e-10);
    let x = Tensor::<f32, _>::full([1 << 20], 1e-45).unwrap();
    assert!((x.norm().unwrap() / (1e-45f32 as f64 * 1024.0) - 1.0).abs() < 1e-10);
    // A million tenths: in singles the sum would be off in the third digit.
    let x = Tensor::<f32, _>::full([1000, 1000], 0.1).unwrap();
    assert!((x.sum().unwrap() / (0.1f32 as f64 * 1e6) - 1.0).abs() < 1e-12);
    assert_eq!(x.sum_modes(&[0, 1]).unwrap().to_vec().unwrap(), [(0.1f32 as f64 * 1e6) as f32]);
}

#[test]
fn nan_is_kept_and_infinity_too() {
    for n in [3, 100, 100_000] {
        for at in [0, n / 2, n - 1] {
            for threads in 1..=2 {
                let x = Tensor::from_fn([n], |i| if i[0] == at { f64::NAN } else { i[0] as f64 }).unwrap();
                let x = x.to_device(&Device::cpu().threads(threads)).unwrap();
                let y = x.slice(s![..;-1]).unwrap();
                for x in [&x, &y] {
                    let totals = [x.sum(), x.norm(), x.norm_l1(), x.min(), x.max(), x.max_abs(), x.mean()];
                    assert!(totals.into_iter().all(|t| t.unwrap().is_nan()), "{n} {at}");
                    let zero = Tensor::zeros([n]).unwrap();
                    assert_eq!(x.maximum(&zero).unwrap().to_vec().unwrap().iter().filter(|x| x.is_nan()).count(), 1);
                    assert_eq!(zero.maximum(x).unwrap().to_vec().unwrap().iter().filter(|x| x.is_nan()).count(), 1);
                    assert_ne!(*x, x.clone(), "a NaN is not equal to itself");
                }
            }
        }
    }
}

#[test]
fn check_finite_names_the_first_entry_in_row_major_order() {
    for threads in 1..=3 {
        let device = Device::cpu().threads(threads);
        for (n, places) in [(4, [[3, 1, 2], [1, 3, 0]]), (50, [[49, 0, 49], [20, 31, 7]])] {
            let value = |i: &[usize]| match i {
                i if i == places[0] => f64::NAN,
                i if i == places[1] => f64::NEG_INFINITY,
                _ => 1.0,
            };
            let x = Tensor::from_fn([n, n, n], value).unwrap().to_device(&device).unwrap();
            let [i, j, k] = places[1];
            let error = x.check_finite("fit").unwrap_err();
            assert_eq!(error.to_string(), format!("fit: entry [{i}, {j}, {k}] is -inf; every entry has to be finite"));
            assert_eq!((error.kind(), error.operation()), (ErrorKind::Value, "fit"));
            // Along the last mode first, and backwards.
            let backwards = x.permute(&[2, 1, 0]).unwrap().slice(s![..;-1, .., ..]).unwrap();
            let first = places.iter().map(|&[i, j, k]| [n - 1 - k, j, i]).min().unwrap();
            assert!(backwards.check_finite("fit").unwrap_err().message().starts_with(&format!("entry {first:?} is ")));
        }
        assert!(Tensor::from(array![f64::MAX, f64::MIN_POSITIVE, -0.0]).check_finite("fit").is_ok());
    }
}

// --- element types ---

#[test]
fn casts_round_saturate_and_truncate_as_rust_does() {
    fn cast<A: Element, B: Element>(x: &[A]) -> Vec<B> {
        Tensor::from_vec([x.len()], x.to_vec()).unwrap().cast().unwrap().to_vec().unwrap()
    }
    let doubles = [1.9, -1.9, 300.0, -5.0, 1e20, -1e20, f64::NAN, f64::INFINITY, 0.1];
    assert_eq!(cast::<f64, u8>(&doubles), doubles.map(|x| x as u8));
    assert_eq!(cast::<f64, u32>(&doubles), doubles.map(|x| x as u32));
    assert_eq!(cast::<f64, i64>(&doubles), doubles.map(|x| x as i64));
    assert_eq!(cast::<f64, f32>(&doubles[..6]), doubles.map(|x| x as f32)[..6]);
    assert!(cast::<f64, f32>(&[f64::NAN])[0].is_nan());
    assert_eq!(cast::<f64, f32>(&[1e300, -1e300, 1e-300]), [f32::INFINITY, f32::NEG_INFINITY, 0.0]);
    assert_eq!(cast::<f32, f64>(&[0.1]), [0.1f32 as f64]);
    let whole = [(1i64 << 53) + 1, i64::MAX, i64::MIN, -1, 255, 256, (1 << 32) + 5];
    assert_eq!(cast::<i64, i64>(&whole), whole);
    assert_eq!(cast::<i64, f64>(&whole), whole.map(|x| x as f64));
    assert_eq!(cast::<i64, f32>(&whole), whole.map(|x| x as f32));
    // Just above the middle of two singles, by less than a double can tell.
    let middle = [(1i64 << 60) + (1 << 36) + 1, -((1i64 << 60) + (1 << 36) + 1), (1 << 60) + (3 << 36) - 1];
    assert_eq!(cast::<i64, f32>(&middle), middle.map(|x| x as f32));
    // Integers saturate at the ends of what they become.
    assert_eq!(cast::<i64, u8>(&whole), [255, 255, 0, 0, 255, 255, 255]);
    assert_eq!(cast::<i64, u32>(&whole), [u32::MAX, u32::MAX, 0, 0, 255, 256, u32::MAX]);
    assert_eq!(cast::<u32, u8>(&[7, 255, 256]), [7, 255, 255]);
    assert_eq!(cast::<u32, f64>(&[u32::MAX]), [u32::MAX as f64]);
    assert_eq!(cast::<u8, i64>(&[0, 255]), [0, 255]);
    let half: Vec<f32> = cast::<f16, f32>(&[f16::from_f32(1.5), f16::MAX, f16::MIN_POSITIVE_SUBNORMAL]);
    assert_eq!(half, [1.5, 65504.0, 2f32.powi(-24)]);
    assert_eq!(cast::<f64, f16>(&[1e6, -1e6, 1.0 / 3.0]), [f16::INFINITY, f16::NEG_INFINITY, f16::from_f64(1.0 / 3.0)]);
    // Just above the middle of two halves, by less than a single can tell: up, not to even.
    let (f16_middle, bf16_middle) = (1.0 + 2f64.powi(-11), 1.0 + 2f64.powi(-8));
    let beyond = 2f64.powi(-40);
    let up_and_even = |x: f64| [x + beyond, x, x - beyond, -x - beyond];
    assert_eq!(cast::<f64, f16>(&up_and_even(f16_middle)).iter().map(|x| x.to_f64()).collect::<Vec<_>>(), {
        let up = 1.0 + 2f64.powi(-10);
        [up, 1.0, 1.0, -up]
    });
    assert_eq!(cast::<f64, bf16>(&up_and_even(bf16_middle)).iter().map(|x| x.to_f64()).collect::<Vec<_>>(), {
        let up = 1.0 + 2f64.powi(-7);
        [up, 1.0, 1.0, -up]
    });
    assert_eq!(cast::<bf16, f64>(&[bf16::from_f32(-2.5)]), [-2.5]);
    // Strided sources.
    let x = Tensor::from(counting([3, 4])).t().cast::<i64>().unwrap();
    assert_eq!(x.view().unwrap(), counting([3, 4]).reversed_axes().mapv(|x| x as i64));
    assert_eq!((x.dtype(), DType::I64.size(), DType::BF16.name()), (DType::I64, 8, "bf16"));
}

#[test]
fn serde_round_trips_shape_and_values() {
    fn round_trip<T, D>(x: &Tensor<T, D>) -> String
    where
        T: Element + serde::Serialize + serde::de::DeserializeOwned,
        D: Dimension,
    {
        let text = serde_json::to_string(x).unwrap();
        let back: Tensor<T, D> = serde_json::from_str(&text).unwrap();
        assert_eq!(back, *x);
        text
    }
    let x = Tensor::from(counting([2, 3]));
    assert_eq!(round_trip(&x), r#"{"shape":[2,3],"data":[1.0,2.0,3.0,4.0,5.0,6.0]}"#);
    assert_eq!(round_trip(&x.t()), r#"{"shape":[3,2],"data":[1.0,4.0,2.0,5.0,3.0,6.0]}"#);
    round_trip(&x.to_dyn());
    round_trip(&x.cast::<f32>().unwrap());
    round_trip(&x.cast::<f16>().unwrap());
    round_trip(&x.cast::<i64>().unwrap());
    round_trip(&Tensor::<u8, _>::zeros([0, 3]).unwrap());
    let read = |text: &str| serde_json::from_str::<Tensor<f64, Ix2>>(text).map_err(|e| e.to_string());
    let count = read(r#"{"shape":[2,2],"data":[1.0]}"#).unwrap_err();
    assert!(count.contains("shape [2, 2] needs 4 entries, the vector has 1"), "{count}");
    assert!(read(r#"{"shape":[4],"data":[1,2,3,4]}"#).unwrap_err().contains("has order 1, not 2"));
    assert!(read(r#"{"shape":[1,1],"data":[1],"extra":0}"#).unwrap_err().contains("extra"));
    assert!(read(r#"{"shape":[18446744073709551615,2],"data":[]}"#).unwrap_err().contains("address space"));
}

// --- printing and comparing ---

#[test]
fn printed_forms() {
    let x = Tensor::from(counting([2, 3]));
    assert_eq!(x.to_string(), "Tensor<f64> 2 x 3 [1, 2, 3, 4, 5, 6]");
    assert_eq!(format!("{x:.2}"), "Tensor<f64> 2 x 3 [1.00, 2.00, 3.00, 4.00, 5.00, 6.00]");
    assert_eq!(format!("{x:?}"), "Tensor<f64> [2, 3] on cpu [1, 2, 3, 4, 5, 6]");
    assert_eq!(format!("{:?}", x.t()), "Tensor<f64> [3, 2] on cpu strides [1, 3] [1, 4, 2, 5, 3, 6]");
    let long = Tensor::from(counting([4, 5, 6]));
    assert_eq!(long.to_string(), "Tensor<f64> 4 x 5 x 6 [1, 2, 3, .., 118, 119, 120]");
    assert_eq!(Tensor::<u8, _>::zeros([7]).unwrap().to_string(), "Tensor<u8> 7 [0, 0, 0, .., 0, 0, 0]");
    assert_eq!(Tensor::from(array![f32::NAN]).to_string(), "Tensor<f32> 1 [NaN]");
    assert_eq!(Device::cpu().threads(3).to_string(), "cpu");
    assert_eq!(format!("{:?}", Device::cpu().threads(3)), "cpu (3 threads)");
    let error = x.unfold(5).unwrap_err();
    let text = "mode 5 does not exist in shape [2, 3]; modes count from 0 to 1";
    assert_eq!(error.to_string(), format!("unfold: {text}"));
    assert_eq!(format!("{error:?}"), format!("Shape error in unfold: {text}"));
    assert_eq!((error.operation(), error.message()), ("unfold", text));
}

#[test]
fn equality_and_tolerances() {
    let x = Tensor::from(array![[1.0, 2.0], [3.0, 4.0]]);
    let near = Tensor::from(array![[1.0, 2.0 + 1e-9], [3.0, 4.0]]);
    assert_eq!(x, x.t().t());
    assert_ne!(x, x.t());
    assert_ne!(x, near);
    assert_ne!(x.to_dyn(), x.reshape(IxDyn(&[4])).unwrap());
    assert_abs_diff_eq!(x, near, epsilon = 1e-8);
    assert_relative_eq!(x, near, max_relative = 1e-9);
    assert!(!x.abs_diff_eq(&near, 1e-10) && !x.relative_eq(&near, 0.0, 1e-10));
    assert!(!x.relative_eq(&x.reshape([1, 4]).unwrap(), 1.0, 1.0), "shapes count");
}

// --- making tensors ---

#[test]
fn constructors() {
    assert_eq!(Tensor::<i64, _>::full([2, 2], 7).unwrap().to_vec().unwrap(), [7; 4]);
    assert_eq!(Tensor::<f32, _>::eye(2).unwrap().to_vec().unwrap(), [1.0, 0.0, 0.0, 1.0]);
    assert_eq!(Tensor::<f64, _>::ones((2, 1)).unwrap().view().unwrap(), array![[1.0], [1.0]]);
    let x = Tensor::from_fn([2, 3, 2], |i| (100 * i[0] + 10 * i[1] + i[2]) as f64).unwrap();
    assert_eq!(x.to_vec().unwrap(), [0., 1., 10., 11., 20., 21., 100., 101., 110., 111., 120., 121.]);
    assert_eq!(x.get(&[1, 2, 0]).unwrap(), 120.0);
    let six: Tensor<f64, Ix6> = Tensor::zeros([1, 2, 1, 2, 1, 2]).unwrap();
    assert_eq!((six.order(), six.len()), (6, 8));
    let number = Tensor::<f64, Ix0>::full((), 3.0).unwrap();
    assert_eq!((number.len(), number.get(&[]).unwrap(), number.sum().unwrap()), (1, 3.0, 3.0));
}

#[test]
fn random_tensors_repeat_for_a_seed_and_have_their_distribution() {
    let draw = |seed| {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let normal = Tensor::<f64, _>::normal([100, 200], rng).unwrap();
        let uniform = Tensor::<f32, _>::uniform([20_000], rng).unwrap();
        let die = Tensor::<f64, _>::random([10], &rand_distr::Poisson::new(3.0).unwrap(), rng).unwrap();
        (normal, uniform, die)
    };
    let (normal, uniform, die) = draw(1);
    assert_eq!(draw(1), (normal.clone(), uniform.clone(), die));
    assert_ne!(draw(2).0, normal);
    // Five standard errors.
    let n = normal.len() as f64;
    assert!(normal.mean().unwrap().abs() < 5.0 / n.sqrt());
    assert!((normal.norm().unwrap().powi(2) / n - 1.0).abs() < 5.0 * (2.0 / n).sqrt());
    assert!((uniform.mean().unwrap() - 0.5).abs() < 5.0 * (1.0 / 12.0 / n).sqrt());
    assert!(uniform.min().unwrap() >= 0.0 && uniform.max().unwrap() < 1.0);
    // The same numbers in both precisions.
    let single = Tensor::<f32, _>::normal([100, 200], &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    assert_eq!(single, normal.cast().unwrap());
}

// --- errors ---

#[track_caller]
fn is<T>(result: tenfold::Result<T>, kind: ErrorKind, text: &str) {
    let error: Error = result.err().expect("an error");
    assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
}

#[test]
fn wrong_input_is_an_error_that_says_what_is_wrong() {
    use ErrorKind::{Device as NoDevice, Memory, Shape};
    let x = Tensor::from(counting([2, 3, 4]));
    let matrix = Tensor::from(counting([2, 3]));
    let no_mode = "mode 3 does not exist in shape [2, 3, 4]; modes count from 0 to 2";
    is(x.index_mode(3, 0), Shape, &format!("index_mode: {no_mode}"));
    is(x.narrow(3, 0..1), Shape, &format!("narrow: {no_mode}"));
    is(x.sum_modes(&[0, 3]), Shape, &format!("sum_modes: {no_mode}"));
    is(Tensor::concat(&[&x], 3), Shape, &format!("concat: {no_mode}"));
    is(x.insert_mode(4), Shape, "insert_mode: mode 4 does not exist in shape [2, 3, 4]; modes count from 0 to 2");
    let line = Tensor::from(counting(3));
    is(line.narrow(1, 0..1), Shape, "narrow: mode 1 does not exist in shape [3]; its only mode is 0");
    is(x.index_mode(1, 3), Shape, "index_mode: index 3 lies outside mode 1 of shape [2, 3, 4]");
    is(x.narrow(1, 2..4), Shape, "narrow: range 2..4 does not lie in mode 1 of shape [2, 3, 4]");
    is(x.get(&[0, 0]), Shape, "get: index [0, 0] does not lie in shape [2, 3, 4]");
    is(x.get(&[0, 3, 0]), Shape, "get: index [0, 3, 0] does not lie in shape [2, 3, 4]");
    is(x.permute(&[0, 1]), Shape, "permute: [0, 1] does not name each mode of shape [2, 3, 4] once");
    is(x.permute(&[0, 1, 1]), Shape, "permute: [0, 1, 1] does not name each mode of shape [2, 3, 4] once");
    is(x.permute(&[0, 1, 3]), Shape, "permute: [0, 1, 3] does not name each mode of shape [2, 3, 4] once");
    is(x.reshape([5, 5]), Shape, "reshape: shape [2, 3, 4] holds 24 entries and cannot become [5, 5], which holds 25");
    is(x.broadcast_to([2, 3, 5]), Shape, "broadcast_to: shape [2, 3, 4] does not broadcast to [2, 3, 5]");
    is(x.broadcast_to([3, 4]), Shape, "broadcast_to: shape [2, 3, 4] does not broadcast to [3, 4]");
    is(Tensor::<f64, Ix2>::concat(&[], 0), Shape, "concat: nothing to join; give at least one tensor");
    let long = Tensor::<f64, Ix2>::zeros([(1 << 60) - 1, 0]).unwrap();
    assert_eq!(Tensor::concat(&[&long; 17], 0).unwrap_err().kind(), ErrorKind::Memory);
    is(Tensor::concat(&[&matrix, &matrix.t()], 0), Shape, "concat: shapes [2, 3] and [3, 2] differ beside mode 0");
    is(
        &matrix + &matrix.t(),
        Shape,
        "add: shapes [2, 3] and [3, 2] do not fit; orders must be equal, and modes too, or 1 on one side",
    );
    is(
        matrix.to_dyn().mul(&x.to_dyn()),
        Shape,
        "mul: shapes [2, 3] and [2, 3, 4] do not fit; orders must be equal, and modes too, or 1 on one side",
    );
    is(matrix.into_order::<Ix3>(), Shape, "into_order: a tensor of shape [2, 3] has order 2, not 3");
    is(Tensor::from_vec([2, 2], vec![1.0]), Shape, "from_vec: shape [2, 2] needs 4 entries, the vector has 1");
    let too_large = "a tensor of shape [18446744073709551615, 2] has more entries than the address space holds";
    is(Tensor::<f64, Ix2>::zeros([usize::MAX, 2]), Memory, &format!("full: {too_large}"));
    is(Tensor::<u8, Ix2>::from_fn([usize::MAX, 2], |_| 0), Memory, &format!("from_fn: {too_large}"));
    is(Tensor::from_vec([usize::MAX, 2], vec![1.0]), Memory, &format!("from_vec: {too_large}"));
    // Within the address space, and more than any machine has.
    let no_room = "the host has no 9007199.3 GB for a result of 1125899906842624 entries";
    is(Tensor::<f64, Ix2>::ones([1 << 25, 1 << 25]), Memory, &format!("full: {no_room}"));
    is(Tensor::<f64, Ix2>::eye(1 << 25), Memory, &format!("from_fn: {no_room}"));
    is(x.reshape([usize::MAX, 2]), Memory, &format!("reshape: {too_large}"));
    is(
        Tensor::<f64, Ix1>::ones([1]).unwrap().broadcast_to([usize::MAX, 2]),
        Memory,
        &format!("broadcast_to: {too_large}"),
    );
    is("tpu".parse::<Device>(), NoDevice, "Device::from_str: \"tpu\" names no device; write cpu, or cuda:0 and so on");
}

/// The message names the tensor's mode, whatever stands in front of it in the slice.
#[test]
fn a_wrong_slice_names_the_mode() {
    let x = Tensor::from(counting([2, 3, 4]));
    let wrong = |result: tenfold::Result<()>, text: &str| is(result, ErrorKind::Shape, text);
    let outside = |what: &str, mode: usize| format!("slice: {what} lies outside mode {mode} of shape [2, 3, 4]");
    wrong(x.slice(s![2, .., ..]).map(drop), &outside("index 2", 0));
    wrong(x.slice(s![-3, .., ..]).map(drop), &outside("index -3", 0));
    wrong(x.slice(s![0, 5, ..]).map(drop), &outside("index 5", 1));
    wrong(x.slice(s![0, 0, ..9]).map(drop), &outside("end 9", 2));
    wrong(x.slice(s![NewAxis, .., .., 7..]).map(drop), &outside("start 7", 2));
    wrong(x.slice(s![.., NewAxis, -4.., ..]).map(drop), &outside("start -4", 1));
    let too_few: SliceInfo<Vec<SliceInfoElem>, IxDyn, IxDyn> =
        SliceInfo::try_from(vec![SliceInfoElem::Index(0)]).unwrap();
    is(x.to_dyn().slice(&too_few), ErrorKind::Shape, "slice: 1 index expressions for the 3 modes of shape [2, 3, 4]");
}

#[test]
fn devices() {
    let x = Tensor::from(counting([2, 3]));
    let other = x.to_device(&Device::cpu().threads(3)).unwrap();
    assert_eq!(x.as_slice().unwrap().as_ptr(), other.as_slice().unwrap().as_ptr(), "only the thread count changes");
    assert!(x.device().same_place(other.device()) && other.device().is_cpu());
    assert_eq!((&x + &other).unwrap(), x.scale(2.0).unwrap());
    assert_eq!("cpu".parse::<Device>().unwrap().to_string(), "cpu");
    for name in ["", "cuda:", "cuda:x", "cpu:0", "CPU"] {
        assert_eq!(name.parse::<Device>().unwrap_err().kind(), ErrorKind::Device, "{name}");
    }
    assert!(Tensor::<f64, _>::zeros([1000, 1000]).unwrap().scale(1.0).is_ok());
    // One thread where the system does not give as many.
    let most = format!("{:?}", Device::cpu().threads(usize::MAX));
    assert!(["cpu (1024 threads)", "cpu (1 threads)"].contains(&most.as_str()), "{most}");
    Device::cpu().release_cached();
}

#[test]
fn scalars_convert_exactly() {
    assert_eq!((f32::of(0.1), 0.1f32.f64(), f64::of(0.1)), (0.1f32, 0.1f32 as f64, 0.1));
    assert_eq!((f32::DTYPE, f64::DTYPE), (DType::F32, DType::F64));
}
