//! Tucker and CP: reconstruction, parts, norms and errors against the formulas.

use crate::{
    draws::{Drawn, check, draw_cp, draw_tucker, norm},
    problems::in_both_precisions,
    support::{Operands, assert_within, for_each_index, inner},
};
use ndarray::{ArrayD, Ix1, Ix2, Ix3, IxDyn, SliceInfo, SliceInfoElem, array, s};
use rand::RngExt;
use tenfold::{
    ErrorKind, Scalar, Tensor,
    decomp::{Cp, Tucker},
};

/// Indices, ranges with steps of either sign, and new axes, mixed; with at least one mode left.
fn draw_part(operands: &mut Operands, shape: &[usize]) -> SliceInfo<Vec<SliceInfoElem>, IxDyn, IxDyn> {
    let mut parts = Vec::new();
    let mut kept = 0;
    for (mode, &n) in shape.iter().enumerate() {
        if operands.rng.random_bool(0.2) {
            parts.push(SliceInfoElem::NewAxis);
            kept += 1;
        }
        let negative = |i: usize, negative: bool| if negative { i as isize - n as isize } else { i as isize };
        if operands.rng.random_bool(0.4) && (kept > 0 || mode + 1 < shape.len()) {
            let i = operands.rng.random_range(0..n);
            parts.push(SliceInfoElem::Index(negative(i, operands.rng.random_bool(0.5))));
            continue;
        }
        let start = operands.rng.random_range(0..n);
        let end = operands.rng.random_range(start..=n);
        let start = negative(start, operands.rng.random_bool(0.3));
        let end = (end < n || operands.rng.random_bool(0.5)).then_some(end as isize);
        let step = [1, 2, 3, -1, -2][operands.rng.random_range(0..5)];
        parts.push(SliceInfoElem::Slice { start, end, step });
        kept += 1;
    }
    SliceInfo::try_from(parts).unwrap()
}

fn tucker_and_its_parts<T: Scalar>() {
    check(96, |case| {
        let mut operands = Operands::new(case.seed, case.threads);
        let Drawn { format: t, dense, bound } = draw_tucker::<T>(&mut operands, &case.shape);
        assert_eq!(t.shape(), case.shape);
        assert_within(&t.reconstruct().unwrap(), &dense, bound);
        for_each_index(&case.shape, |i| {
            let entry = t.get(i).unwrap().f64();
            assert!((entry - dense[i]).abs() <= bound, "entry {i:?} is {entry}, should be {}", dense[i]);
        });
        let part = draw_part(&mut operands, &case.shape);
        let sliced = t.slice(&part).unwrap();
        let want = dense.slice(&part).to_owned();
        assert_eq!(sliced.shape(), want.shape(), "{part:?}");
        assert_within(&sliced.reconstruct().unwrap(), &want, bound);
    });
}

fn cp_and_its_parts<T: Scalar>() {
    check(96, |case| {
        let mut operands = Operands::new(case.seed, case.threads);
        let Drawn { format: cp, dense, bound } = draw_cp::<T>(&mut operands, &case.shape);
        assert_eq!(cp.shape(), case.shape);
        assert_within(&cp.reconstruct().unwrap(), &dense, bound);
        for_each_index(&case.shape, |i| {
            let entry = cp.get(i).unwrap().f64();
            assert!((entry - dense[i]).abs() <= bound, "entry {i:?} is {entry}, should be {}", dense[i]);
        });
        let part = draw_part(&mut operands, &case.shape);
        let sliced = cp.slice(&part).unwrap();
        let want = dense.slice(&part).to_owned();
        assert_eq!(sliced.shape(), want.shape(), "{part:?}");
        assert_within(&sliced.reconstruct().unwrap(), &want, bound);
    });
}

/// Squares of norms and inner products, each off by at most what rounding does to the entries.
#[track_caller]
fn assert_inner(got: f64, (x, x_bound): (&ArrayD<f64>, f64), (y, y_bound): (&ArrayD<f64>, f64)) {
    let bound = 4.0 * (x.len() as f64).sqrt() * (x_bound * norm(y) + y_bound * norm(x) + x_bound * y_bound);
    let want = inner(x, y);
    assert!((got - want).abs() <= bound, "{got}, should be {want} within {bound:e}");
}

fn norms_and_inner_products<T: Scalar>() {
    check(64, |case| {
        let mut operands = Operands::new(case.seed, case.threads);
        let (a, b) = (draw_tucker::<T>(&mut operands, &case.shape), draw_tucker::<T>(&mut operands, &case.shape));
        assert_inner(a.format.inner(&b.format).unwrap(), (&a.dense, a.bound), (&b.dense, b.bound));
        assert_inner(a.format.norm().unwrap().powi(2), (&a.dense, a.bound), (&a.dense, a.bound));
        let (a, b) = (draw_cp::<T>(&mut operands, &case.shape), draw_cp::<T>(&mut operands, &case.shape));
        assert_inner(a.format.inner(&b.format).unwrap(), (&a.dense, a.bound), (&b.dense, b.bound));
        assert_inner(a.format.norm().unwrap().powi(2), (&a.dense, a.bound), (&a.dense, a.bound));
    });
}

fn relative_errors<T: Scalar>() {
    check(64, |case| {
        let mut operands = Operands::new(case.seed, case.threads);
        let (x, entries) = operands.tensor::<T>(&case.shape);
        let want = |dense: &ArrayD<f64>, bound: f64| {
            let size = norm(&entries);
            (norm(&(&entries - dense)) / size, 4.0 * ((x.len() as f64).sqrt() * bound / size + T::epsilon().f64()))
        };
        if norm(&entries) == 0.0 {
            return;
        }
        let t = draw_tucker::<T>(&mut operands, &case.shape);
        let (error, slack) = want(&t.dense, t.bound);
        assert!((t.format.relative_error(&x).unwrap() - error).abs() <= slack * (1.0 + error));
        let cp = draw_cp::<T>(&mut operands, &case.shape);
        let (error, slack) = want(&cp.dense, cp.bound);
        assert!((cp.format.relative_error(&x).unwrap() - error).abs() <= slack * (1.0 + error));
    });
}

/// Relative errors are summed over slabs of the first mode: here there are several, the last one shorter.
#[test]
fn the_relative_error_of_a_tensor_of_many_slabs() {
    let x = Tensor::<f32, Ix2>::ones([5, 200_000]).unwrap();
    let cp = Cp::<f32, Ix2>::new(
        Tensor::from(array![1.0f32]),
        vec![Tensor::from(array![[1.0f32], [1.0], [1.0], [1.0], [3.0]]), Tensor::ones([200_000, 1]).unwrap()],
    )
    .unwrap();
    let want = (4.0f64 / 5.0).sqrt();
    assert!((cp.relative_error(&x).unwrap() - want).abs() < 1e-6);
    let core = Tensor::from(array![[1.0f32]]);
    let tucker = Tucker::new(core, cp.factors().to_vec()).unwrap();
    assert!((tucker.relative_error(&x).unwrap() - want).abs() < 1e-6);
    let reversed = x.slice(s![..;-1, ..;-1]).unwrap();
    assert!((tucker.relative_error(&reversed).unwrap() - want).abs() < 1e-6);
}

#[test]
fn the_relative_error_of_nothing() {
    let zero = Tensor::<f64, Ix2>::zeros([2, 3]).unwrap();
    let tucker = |value: f64| {
        let factors = vec![Tensor::ones([2, 1]).unwrap(), Tensor::ones([3, 1]).unwrap()];
        Tucker::new(Tensor::full([1, 1], value).unwrap(), factors).unwrap()
    };
    assert_eq!(tucker(0.0).relative_error(&zero).unwrap(), 0.0);
    assert_eq!(tucker(1.0).relative_error(&zero).unwrap(), f64::INFINITY);
    assert_eq!(tucker(0.0).relative_error(&Tensor::ones([2, 3]).unwrap()).unwrap(), 1.0);
    assert_eq!(tucker(0.0).norm().unwrap(), 0.0);
}

#[test]
fn sizes_and_display() {
    let ones = |n, r| Tensor::<f32, Ix2>::ones([n, r]).unwrap();
    let t = Tucker::new(Tensor::<f32, Ix3>::ones([2, 1, 3]).unwrap(), vec![ones(20, 2), ones(30, 1), ones(40, 3)]);
    let t = t.unwrap();
    assert_eq!(t.parameters(), 6 + 40 + 30 + 120);
    assert_eq!(t.compression_ratio(), 24_000.0 / 196.0);
    let text = "Tucker<f32> 20 x 30 x 40 of ranks (2, 1, 3): 196 numbers for 24000 entries, 122.4 times smaller";
    assert_eq!(t.to_string(), text);
    let cp = Cp::<f32, Ix3>::new(Tensor::ones([2]).unwrap(), vec![ones(20, 2), ones(30, 2), ones(40, 2)]).unwrap();
    assert_eq!((cp.parameters(), cp.rank()), (182, 2));
    assert_eq!(cp.compression_ratio(), 24_000.0 / 182.0);
    let text = "CP<f32> 20 x 30 x 40 of rank 2: 182 numbers for 24000 entries, 131.9 times smaller";
    assert_eq!(cp.to_string(), text);
    // More entries than a usize counts.
    let large = Cp::<f32>::new(Tensor::ones([1]).unwrap(), vec![ones(1_000_000, 1); 4]).unwrap();
    assert_eq!(large.compression_ratio(), 1e24 / 4_000_001.0);
    assert_eq!(large.reconstruct().unwrap_err().kind(), ErrorKind::Memory);
    let large = Tucker::<f32>::new(Tensor::ones(IxDyn(&[1; 4])).unwrap(), large.factors().to_vec()).unwrap();
    assert_eq!(large.reconstruct().unwrap_err().kind(), ErrorKind::Memory);
    assert!((large.norm().unwrap() / 1e12 - 1.0).abs() < 1e-6);
}

/// Parts that are far from each other, and come to ordinary numbers together.
#[test]
fn parts_of_sizes_that_make_up_for_each_other() {
    fn balanced<T: Scalar>(size: f64) {
        let close = |got: f64, wanted: f64| {
            assert!((got / wanted - 1.0).abs() < 1e2 * T::epsilon().f64(), "{got} for {wanted}")
        };
        let mut operands = Operands::new(5, 1);
        operands.integers = false;
        let plain = draw_cp::<T>(&mut operands, &[3, 4, 5]);
        let (norm, dense) = (norm(&plain.dense), plain.format.reconstruct().unwrap());
        let (up, down) = (size, 1.0 / size);
        for sizes in
            [[1.0, up, up, down * down], [down, up, down, up], [down * down, up, up, 1.0], [up, down, down, up]]
        {
            // What the type does not hold goes elsewhere.
            let Some(sizes) = sizes.map(|x| T::of(x).f64()).iter().all(|&x| x.is_normal()).then_some(sizes) else {
                continue;
            };
            let scaled = |x: &Tensor<T, Ix2>, size: f64| x.scale(T::of(size)).unwrap();
            let factors = plain.format.factors().iter().zip(&sizes[1..]).map(|(x, &size)| scaled(x, size)).collect();
            let cp: Cp<T> = Cp::new(plain.format.weights().scale(T::of(sizes[0])).unwrap(), factors).unwrap();
            close(cp.norm().unwrap(), norm);
            close(cp.inner(&cp).unwrap(), norm * norm);
            close(cp.inner(&plain.format).unwrap(), norm * norm);
            assert_within(&cp.reconstruct().unwrap(), &plain.dense, 8.0 * plain.bound);
            assert_within(&cp.normalize().unwrap().reconstruct().unwrap(), &plain.dense, 32.0 * plain.bound);
            assert!(cp.relative_error(&dense).unwrap() < 1e2 * T::epsilon().f64());
            let entry = cp.get(&[1, 2, 3]).unwrap().f64();
            assert!((entry - plain.dense[[1, 2, 3]]).abs() <= plain.bound, "{entry}");
            let tucker = draw_tucker::<T>(&mut operands, &[3, 4, 5]);
            let factors = tucker.format.factors().iter().zip(&sizes[1..]).map(|(x, &size)| scaled(x, size)).collect();
            let t = Tucker::new(tucker.format.core().scale(T::of(sizes[0])).unwrap(), factors).unwrap();
            let norm = crate::draws::norm(&tucker.dense);
            close(t.norm().unwrap(), norm);
            close(t.inner(&tucker.format).unwrap(), norm * norm);
        }
    }
    balanced::<f64>(1e200);
    balanced::<f64>(1e150);
    balanced::<f32>(1e30);
    balanced::<f32>(1e17);
    // Two components, each with a size of its own, and one that is zero.
    let column = |sizes: [f64; 3]| Tensor::from(array![sizes, [0.0; 3]]);
    let factors = vec![column([1e200, 1e-200, 1e300]), column([1e200, 1e200, 1e300]), column([1e-200, 1e200, 0.0])];
    let cp = Cp::<f64, Ix3>::new(Tensor::from(array![1e-200, 1e-200, 1e300]), factors).unwrap();
    assert!((cp.norm().unwrap() - 2.0).abs() < 1e-12, "{}", cp.norm().unwrap());
    assert!((cp.reconstruct().unwrap().get(&[0, 0, 0]).unwrap() - 2.0).abs() < 1e-12);
    // What is out of range in all stays so.
    let huge = |size: f64| {
        Cp::<f64, Ix2>::new(Tensor::ones([1]).unwrap(), vec![Tensor::full([2, 1], size).unwrap(); 2]).unwrap()
    };
    assert_eq!((huge(1e200).norm().unwrap(), huge(1e-200).norm().unwrap()), (f64::INFINITY, 0.0));
    assert!(huge(f64::NAN).norm().unwrap().is_nan());
    assert_eq!(huge(f64::INFINITY).norm().unwrap(), f64::INFINITY);
}

/// Every column has a size of its own, which the core or the weights make up for.
#[test]
fn columns_of_sizes_that_make_up_for_each_other() {
    fn columns<T: Scalar>(size: f64) {
        let mut operands = Operands::new(11, 1);
        operands.integers = false;
        let shape = [3, 4, 5];
        let t = draw_tucker::<T>(&mut operands, &shape);
        let cp = draw_cp::<T>(&mut operands, &shape);
        // Powers of two: nothing is rounded.
        let size = 2f64.powi(size.log2() as i32);
        let sizes = |columns: usize, up: usize| -> Tensor<T, Ix2> {
            Tensor::from_fn([1, columns], |i| T::of(if (i[1] + up).is_multiple_of(2) { size } else { 1.0 / size }))
                .unwrap()
        };
        let spread = |factors: &[Tensor<T, Ix2>]| {
            let sizes: Vec<_> = factors.iter().enumerate().map(|(n, f)| sizes(f.shape()[1], n)).collect();
            (factors.iter().zip(&sizes).map(|(f, s)| f.mul(s).unwrap()).collect::<Vec<_>>(), sizes)
        };
        let (factors, by) = spread(t.format.factors());
        // Entries that meet columns of which one is large and one is small stay; the core does not hold what the others would need.
        let made_up =
            |i: &[usize]| i.iter().zip(&by).map(|(&j, by)| by.get(&[0, j]).unwrap().f64().log2()).sum::<f64>();
        let held = |i: &[usize]| made_up(i).abs() < 1.5 * size.log2();
        let core = Tensor::from_fn(IxDyn(t.format.ranks()), |i| match held(i) {
            true => T::of(t.format.core().get(i).unwrap().f64() * 2f64.powf(-made_up(i))),
            false => T::zero(),
        });
        let kept = Tensor::from_fn(IxDyn(t.format.ranks()), |i| match held(i) {
            true => t.format.core().get(i).unwrap(),
            false => T::zero(),
        });
        let plain = Tucker::new(kept.unwrap(), t.format.factors().to_vec()).unwrap();
        let t = Tucker::new(core.unwrap(), factors).unwrap();
        let (dense, norm) = (plain.reconstruct().unwrap(), plain.norm().unwrap());
        let close = |got: &Tensor<T, IxDyn>, want: &Tensor<T, IxDyn>| {
            let off = got.sub(want).unwrap().max_abs().unwrap();
            assert!(off <= 1e2 * T::epsilon().f64() * norm, "{got:?}, should be {want:?}");
        };
        close(&t.reconstruct().unwrap(), &dense);
        close(&t.normalize().unwrap().reconstruct().unwrap(), &dense);
        close(&t.canonicalize().unwrap().reconstruct().unwrap(), &dense);
        assert!(t.relative_error(&dense).unwrap() < 1e2 * T::epsilon().f64());
        assert!((t.norm().unwrap() / norm - 1.0).abs() < 1e2 * T::epsilon().f64(), "{}", t.norm().unwrap());
        assert!((t.inner(&plain).unwrap() / (norm * norm) - 1.0).abs() < 1e2 * T::epsilon().f64());
        let part = |i: &[usize]| -> SliceInfo<Vec<SliceInfoElem>, IxDyn, IxDyn> {
            let whole = SliceInfoElem::Slice { start: 0, end: None, step: 1 };
            let at = |mode| if mode == 2 { whole } else { SliceInfoElem::Index(i[mode] as isize) };
            SliceInfo::try_from((0..3).map(at).collect::<Vec<_>>()).unwrap()
        };
        let (factors, by) = spread(cp.format.factors());
        let weights = by.iter().fold(cp.format.weights().insert_mode(0).unwrap(), |w, by| w.div(by).unwrap());
        let other: Cp<T> = Cp::new(weights.index_mode(0, 0).unwrap(), factors).unwrap();
        for_each_index(&shape, |i| {
            let entry = t.get(i).unwrap().f64();
            assert!((entry - dense.get(i).unwrap().f64()).abs() <= 1e2 * T::epsilon().f64() * norm, "{i:?}: {entry}");
            close(&t.slice(part(i)).unwrap().reconstruct().unwrap(), &dense.slice(part(i)).unwrap());
            let sliced = other.slice(part(i)).unwrap().reconstruct().unwrap();
            let want = cp.dense.slice(part(i)).to_owned();
            assert_within(&sliced, &want, 8.0 * cp.bound);
        });
    }
    columns::<f64>(1e200);
    columns::<f64>(1e140);
    columns::<f32>(1e25);
    columns::<f32>(1e18);
    // A small entry of the core is all there is where the largest meets a column that is zero.
    let core = Tensor::from(array![[1.0, 0.0], [0.0, 1e-200]]);
    let factors = vec![Tensor::from(array![[0.0, 1.0]]), Tensor::<f64, Ix2>::ones([4, 2]).unwrap()];
    let t = Tucker::new(core, factors).unwrap();
    assert!((t.norm().unwrap() / 2e-200 - 1.0).abs() < 1e-15);
    // What is out of range in all stays so.
    let huge = |size: f64| {
        Tucker::new(Tensor::<f64, Ix2>::ones([1, 1]).unwrap(), vec![Tensor::full([2, 1], size).unwrap(); 2]).unwrap()
    };
    assert_eq!((huge(1e200).norm().unwrap(), huge(1e-200).norm().unwrap()), (f64::INFINITY, 0.0));
    assert!(huge(f64::NAN).norm().unwrap().is_nan());
    assert_eq!(huge(f64::INFINITY).norm().unwrap(), f64::INFINITY);
}

/// Products of small factors are subnormal singles long before the norm is.
#[test]
fn norms_of_small_and_large_single_factors() {
    for size in [1e-25f32, 1e-23, 3e-23, 1e-22, 1e-20, 1e20, 1e25] {
        let factors = vec![Tensor::full([1, 1], size).unwrap(), Tensor::ones([4, 1]).unwrap()];
        let t = Tucker::new(Tensor::<f32, Ix2>::ones([1, 1]).unwrap(), factors).unwrap();
        assert!((t.norm().unwrap() / (2.0 * size as f64) - 1.0).abs() < 1e-6, "{size}: {}", t.norm().unwrap());
        assert!((t.inner(&t).unwrap() / (2.0 * size as f64).powi(2) - 1.0).abs() < 1e-6, "{size}");
    }
}

#[test]
fn parts_that_leave_nothing() {
    let mut operands = Operands::new(7, 1);
    let t = draw_tucker::<f64>(&mut operands, &[3, 4, 5]);
    // Every mode indexed: an order-0 core is left, which is the entry.
    let entry = t
        .format
        .slice(
            SliceInfo::<_, IxDyn, IxDyn>::try_from(vec![
                SliceInfoElem::Index(-1),
                SliceInfoElem::Index(2),
                SliceInfoElem::Index(0),
            ])
            .unwrap(),
        )
        .unwrap();
    assert!(entry.shape().is_empty());
    let number = t.dense[[2, 2, 0]];
    assert!((entry.core().get(&[]).unwrap() - number).abs() <= t.bound);
    assert!((entry.get(&[]).unwrap() - number).abs() <= t.bound);
    assert!((entry.norm().unwrap() - number.abs()).abs() <= t.bound);
    assert_eq!(entry.reconstruct().unwrap(), *entry.core());
    assert_eq!(entry.canonicalize().unwrap().core(), entry.core());
    // CP has nowhere to put it.
    let cp = Cp::<f64, Ix2>::new(Tensor::ones([1]).unwrap(), vec![Tensor::ones([3, 1]).unwrap(); 2]).unwrap();
    let error = cp.slice(s![1, 2]).unwrap_err();
    assert_eq!(error.to_string(), "Cp::slice: every mode is indexed, which leaves a number; use get");
    let error = entry.relative_error(&entry.core().scale(2.0).unwrap()).unwrap();
    assert!((error - 0.5).abs() < 1e-15, "{error}");
    let cp = draw_cp::<f64>(&mut operands, &[3, 4, 5]);
    let all = SliceInfo::<_, IxDyn, IxDyn>::try_from(vec![SliceInfoElem::Index(0); 3]).unwrap();
    assert_eq!(cp.format.slice(all).unwrap_err().kind(), ErrorKind::Shape);
    // Empty ranges.
    let empty = t
        .format
        .clone()
        .slice(
            SliceInfo::<_, IxDyn, IxDyn>::try_from(vec![
                SliceInfoElem::Slice { start: 2, end: Some(2), step: 1 },
                SliceInfoElem::Index(0),
                SliceInfoElem::Slice { start: 0, end: None, step: -1 },
            ])
            .unwrap(),
        )
        .unwrap();
    assert_eq!(empty.reconstruct().unwrap().shape(), &[0, 5]);
}

#[test]
fn parts_outside_are_errors() {
    let ones = |n| Tensor::<f64, Ix2>::ones([n, 2]).unwrap();
    let t = Tucker::new(Tensor::<f64, Ix2>::ones([2, 2]).unwrap(), vec![ones(3), ones(4)]).unwrap();
    let cp = Cp::<f64, Ix2>::new(Tensor::ones([2]).unwrap(), vec![ones(3), ones(4)]).unwrap();
    let outside = [
        t.slice(s![3, ..]).unwrap_err(),
        t.slice(s![.., -5]).unwrap_err(),
        t.slice(s![.., 2..5]).unwrap_err(),
        cp.slice(s![3, ..]).unwrap_err(),
        cp.slice(s![.., -5]).unwrap_err(),
        cp.slice(s![.., 2..5]).unwrap_err(),
        t.get(&[3, 0]).unwrap_err(),
        t.get(&[0]).unwrap_err(),
        cp.get(&[0, 4]).unwrap_err(),
        cp.get(&[0, 0, 0]).unwrap_err(),
        t.mode_singular_values(2).unwrap_err(),
    ];
    for error in outside {
        assert_eq!(error.kind(), ErrorKind::Shape, "{error}");
    }
    assert_eq!(t.get(&[3, 0]).unwrap_err().to_string(), "Tucker::get: index [3, 0] does not lie in shape [3, 4]");
    assert_eq!(cp.get(&[0]).unwrap_err().to_string(), "Cp::get: index [0] does not lie in shape [3, 4]");
    // The mode named is the tensor's, not the factor's.
    let error = t.slice(s![.., 4]).unwrap_err();
    assert!(error.to_string().contains("mode 1 of shape [3, 4]"), "{error}");
    let error = cp.slice(s![.., 4]).unwrap_err();
    assert!(error.to_string().contains("mode 1 of shape [3, 4]"), "{error}");
}

#[test]
fn formats_that_do_not_fit_are_errors() {
    let ones = |n, r| Tensor::<f64, Ix2>::ones([n, r]).unwrap();
    let core = Tensor::<f64, Ix2>::ones([2, 3]).unwrap();
    let error = Tucker::new(core.clone(), vec![ones(4, 2)]).unwrap_err();
    assert_eq!(error.to_string(), "Tucker::new: 1 factors for a core of shape [2, 3]");
    let error = Tucker::new(core, vec![ones(4, 2), ones(4, 2)]).unwrap_err();
    assert_eq!(error.to_string(), "Tucker::new: factor 1 is 4 x 2, but the core of shape [2, 3] needs 3 columns there");
    let weights = Tensor::<f64, Ix1>::ones([2]).unwrap();
    let error = Cp::<f64, Ix3>::new(weights.clone(), vec![ones(4, 2), ones(4, 2)]).unwrap_err();
    assert_eq!(error.to_string(), "Cp::new: 2 factors; needs 3");
    let error = Cp::<f64>::new(weights.clone(), vec![]).unwrap_err();
    assert_eq!(error.to_string(), "Cp::new: 0 factors; needs at least 1");
    let error = Cp::<f64>::new(weights.clone(), vec![ones(4, 2), ones(4, 3)]).unwrap_err();
    assert_eq!(error.to_string(), "Cp::new: factor 1 has 3 columns for 2 weights");
    let cp = |n| Cp::<f64>::new(weights.clone(), vec![ones(n, 2), ones(4, 2)]).unwrap();
    let error = cp(3).inner(&cp(2)).unwrap_err();
    assert_eq!(error.to_string(), "Cp::inner: shapes [3, 4] and [2, 4] differ");
    let x = Tensor::<f64, IxDyn>::ones(IxDyn(&[2, 4])).unwrap();
    let error = cp(3).relative_error(&x).unwrap_err();
    assert_eq!(error.to_string(), "Cp::relative_error: a decomposition of shape [3, 4] for a tensor of shape [2, 4]");
    assert_eq!(error.kind(), ErrorKind::Shape);
}

in_both_precisions! {
    tucker_and_its_parts
    cp_and_its_parts
    norms_and_inner_products
    relative_errors
}
