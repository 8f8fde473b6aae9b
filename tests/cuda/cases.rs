//! Cases for singles and doubles: each computes on the GPU and on the host and compares.

use super::*;

pub fn copies<T: Scalar>(device: &Device) {
    let x = normal::<T>(&[9, 34, 5, 33], 1);
    let y = on(device, &x);
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [0, 3, 2, 1], [2, 0, 1, 3], [0, 1, 3, 2]] {
        close("permute", &y.permute(&order).unwrap().to_contiguous().unwrap(), &x.permute(&order).unwrap());
    }
    let (x3, y3): (Tensor<T, Ix3>, Tensor<T, Ix3>) = (normal::<T>(&[20, 30, 40], 2).into_order().unwrap(), {
        on(device, &normal::<T>(&[20, 30, 40], 2)).into_order().unwrap()
    });
    close("slice", &y3.slice(s![..;-2, 3..29;3, 1..]).unwrap(), &x3.slice(s![..;-2, 3..29;3, 1..]).unwrap());
    close("row", &y3.slice(s![7, ..;-1, 4]).unwrap(), &x3.slice(s![7, ..;-1, 4]).unwrap());
    // More loops than a kernel takes: every second mode of ten cut, so that nothing merges.
    let x = normal::<T>(&[3; 10], 3);
    let y = on(device, &x);
    let cut = |x: &Tensor<T>| (0..10).fold(x.clone(), |x, mode| x.narrow(mode, 0..2).unwrap());
    let order = [9, 1, 7, 3, 5, 4, 6, 2, 8, 0];
    let (x, y) = (cut(&x), cut(&y));
    close("ten modes", &y.permute(&order).unwrap(), &x.permute(&order).unwrap());
    close(
        "ten modes, added",
        &y.permute(&order).unwrap().add(&y).unwrap(),
        &x.permute(&order).unwrap().add(&x).unwrap(),
    );
    close("ten modes, scaled", &y.scale(T::of(3.0)).unwrap(), &x.scale(T::of(3.0)).unwrap());
    near::<T>("ten modes, summed", y.sum().unwrap(), x.sum().unwrap(), 1e3);
    near::<T>(
        "ten modes, inner",
        inner(&y.permute(&order).unwrap(), &y).unwrap(),
        inner(&x.permute(&order).unwrap(), &x).unwrap(),
        1e3,
    );
    close("ten modes, some summed", &y.sum_modes(&[0, 2, 4]).unwrap(), &x.sum_modes(&[0, 2, 4]).unwrap());
    close(
        "concat",
        &Tensor::concat(&[&y3, &y3], 1).unwrap().to_device(device).unwrap(),
        &Tensor::concat(&[&x3, &x3], 1).unwrap(),
    );
}

pub fn entrywise<T: Scalar>(device: &Device) {
    let (a, b) = (normal::<T>(&[7, 1, 300], 1), normal::<T>(&[1, 11, 300], 2));
    let (x, y) = (on(device, &a), on(device, &b));
    close("add", &x.add(&y).unwrap(), &a.add(&b).unwrap());
    close("sub", &x.sub(&y).unwrap(), &a.sub(&b).unwrap());
    close("mul", &x.mul(&y).unwrap(), &a.mul(&b).unwrap());
    close("div", &x.div(&y).unwrap(), &a.div(&b).unwrap());
    close("max", &x.maximum(&y).unwrap(), &a.maximum(&b).unwrap());
    close("scale", &x.scale(T::of(-1.5)).unwrap(), &a.scale(T::of(-1.5)).unwrap());
    close("shift", &x.shift(T::of(2.5)).unwrap(), &a.shift(T::of(2.5)).unwrap());
    close("abs", &x.abs().unwrap(), &a.abs().unwrap());
    close("sqrt", &x.sqrt().unwrap(), &a.sqrt().unwrap());
    close("recip", &x.recip().unwrap(), &a.recip().unwrap());
    let nan = Tensor::<T, Ix1>::from_vec([3], vec![T::nan(), T::one(), T::nan()]).unwrap();
    let one = Tensor::<T, Ix1>::ones([3]).unwrap();
    close("max of NaN", &on(device, &nan).maximum(&on(device, &one)).unwrap(), &nan.maximum(&one).unwrap());
    close("max with NaN", &on(device, &one).maximum(&on(device, &nan)).unwrap(), &one.maximum(&nan).unwrap());
    let none = normal::<T>(&[3, 0, 2], 1);
    close("no entries", &on(device, &none).scale(T::one()).unwrap(), &none);
}

pub fn totals<T: Scalar>(device: &Device) {
    for shape in [[1, 1, 1], [3, 5, 7], [40, 50, 60], [1, 1, 300_001]] {
        let a = normal::<T>(&shape, 4);
        let x = on(device, &a);
        let n = a.len() as f64;
        for (x, a) in [(x.clone(), a.clone()), (x.permute(&[2, 0, 1]).unwrap(), a.permute(&[2, 0, 1]).unwrap())] {
            near::<T>("sum", x.sum().unwrap(), a.sum().unwrap(), n.sqrt());
            near::<T>("norm", x.norm().unwrap(), a.norm().unwrap(), 0.0);
            near::<T>("l1", x.norm_l1().unwrap(), a.norm_l1().unwrap(), 0.0);
            near::<T>("max_abs", x.max_abs().unwrap(), a.max_abs().unwrap(), 0.0);
            near::<T>("min", x.min().unwrap(), a.min().unwrap(), 0.0);
            near::<T>("max", x.max().unwrap(), a.max().unwrap(), 0.0);
            near::<T>("inner", inner(&x, &x).unwrap(), inner(&a, &a).unwrap(), 0.0);
            assert!(x.check_finite("test").is_ok());
        }
    }
    let mut bad = vec![T::one(); 5000];
    (bad[3456], bad[4000]) = (T::infinity(), T::nan());
    let a = Tensor::<T, Ix2>::from_vec([50, 100], bad).unwrap();
    let x = on(device, &a);
    assert!(x.max_abs().unwrap().is_nan() && x.min().unwrap().is_nan() && x.max().unwrap().is_nan());
    let message = |x: &Tensor<T, Ix2>| x.check_finite("test").unwrap_err().to_string();
    assert_eq!(message(&x), message(&a));
    assert_eq!(message(&x.t()), message(&a.t()));
    let none = on(device, &normal::<T>(&[0, 3], 1));
    assert_eq!((none.sum().unwrap(), none.max_abs().unwrap()), (0.0, 0.0));
    assert!(none.check_finite("test").is_ok());
}

pub fn sums_over_modes<T: Scalar>(device: &Device) {
    for shape in [[5, 6, 7, 8], [70, 3, 2, 90], [2, 2, 3, 3000], [3000, 2, 1, 3]] {
        let a = normal::<T>(&shape, 5);
        let x = on(device, &a);
        for subset in 1..16usize {
            let modes: Vec<usize> = (0..4).filter(|m| subset >> m & 1 == 1).collect();
            close(&format!("{shape:?} over {modes:?}"), &x.sum_modes(&modes).unwrap(), &a.sum_modes(&modes).unwrap());
        }
    }
    let none = normal::<T>(&[4, 0], 1);
    close("nothing to sum", &on(device, &none).sum_modes(&[1]).unwrap(), &none.sum_modes(&[1]).unwrap());
}

pub fn products<T: Scalar>(device: &Device) {
    let (a, b) = (matrix::<T>(33, 20, 1), matrix::<T>(20, 41, 2));
    let (x, y) = (on(device, &a), on(device, &b));
    close("matmul", &x.matmul(&y).unwrap(), &a.matmul(&b).unwrap());
    close("transposed", &y.t().matmul(&x.t()).unwrap(), &b.t().matmul(&a.t()).unwrap());
    let part = |x: &Tensor<T, Ix2>| x.slice(s![..;2, ..;-3]).unwrap();
    close("strided", &part(&x).matmul(&part(&y.t()).t().slice(s![..7, ..]).unwrap()).unwrap(), &{
        part(&a).matmul(&part(&b.t()).t().slice(s![..7, ..]).unwrap()).unwrap()
    });
    let t = normal::<T>(&[6, 7, 8, 9], 3);
    let u = on(device, &t);
    for mode in 0..4 {
        let m = matrix::<T>(5, t.shape()[mode], 4);
        let (wanted, by) = (t.mode_product(mode, &m).unwrap(), on(device, &m));
        close("mode product", &u.mode_product(mode, &by).unwrap(), &wanted);
        let order = [2, 0, 3, 1];
        let at = order.iter().position(|&o| o == mode).unwrap();
        let (t, u) = (t.permute(&order).unwrap(), u.permute(&order).unwrap());
        close("permuted mode product", &u.mode_product(at, &by).unwrap(), &t.mode_product(at, &m).unwrap());
    }
    let v = normal::<T>(&[8, 6, 5], 5);
    let w = on(device, &v);
    close("contract", &contract(&u, &[2, 0], &w, &[0, 1]).unwrap(), &contract(&t, &[2, 0], &v, &[0, 1]).unwrap());
    close("outer", &contract(&u, &[], &w, &[]).unwrap(), &contract(&t, &[], &v, &[]).unwrap());
    close("kronecker", &kronecker(&[&x, &y]).unwrap(), &kronecker(&[&a, &b]).unwrap());
    let c = matrix::<T>(13, 20, 6);
    close("khatri_rao", &khatri_rao(&[&x, &on(device, &c)]).unwrap(), &khatri_rao(&[&a, &c]).unwrap());
    let factors: Vec<_> = t.shape().iter().map(|&n| matrix::<T>(n, 4, n as u64)).collect();
    let there: Vec<_> = factors.iter().map(|f| on(device, f)).collect();
    for (mode, (got, wanted)) in u.mttkrp_all(&there).unwrap().iter().zip(t.mttkrp_all(&factors).unwrap()).enumerate() {
        close("mttkrp_all", got, &wanted);
        close("mttkrp", &u.mttkrp(mode, &there).unwrap(), &wanted);
    }
    let (e, f) = (matrix::<T>(3, 0, 1), matrix::<T>(0, 4, 1));
    close("empty inner side", &on(device, &e).matmul(&on(device, &f)).unwrap(), &Tensor::zeros([3, 4]).unwrap());
}

/// Large operands by few columns: singles go through kernels of our own, by tiles of 256 rows and by pieces of long sums.
pub fn thin_products<T: Scalar>(device: &Device) {
    let t = normal::<T>(&[66, 400, 70], 3);
    let places: [Placed<T>; 2] = [|device, x| on(device, x), shifted];
    for (place, ranks) in places.into_iter().zip([[8, 16, 30], [3, 33, 48]]) {
        let u = place(device, &t);
        for (mode, rank) in ranks.into_iter().enumerate() {
            let m = matrix::<T>(rank, t.shape()[mode], 4);
            let what = format!("mode product {mode}, rank {rank}");
            close(&what, &u.mode_product(mode, &on(device, &m)).unwrap(), &t.mode_product(mode, &m).unwrap());
            // The other mode goes first, so that another side lies along memory, or loops do not merge.
            let order = [[2, 1, 0], [1, 0, 2], [1, 2, 0]][mode];
            let at = order.iter().position(|&o| o == mode).unwrap();
            let (t, u) = (t.permute(&order).unwrap(), u.permute(&order).unwrap());
            close(
                &format!("permuted {what}"),
                &u.mode_product(at, &on(device, &m)).unwrap(),
                &t.mode_product(at, &m).unwrap(),
            );
        }
        // Sums over two modes, which one stride steps through in the first case only.
        for (shape, modes) in [([400, 66, 70], [1, 2]), ([66, 400, 70], [0, 2]), ([70, 66, 400], [1, 0])] {
            let t = t.reshape(IxDyn(&shape)).unwrap();
            let u = place(device, &t);
            let others = normal::<T>(&[shape[modes[0]], shape[modes[1]], ranks[1]], 5);
            let wanted = contract(&t, &modes, &others, &[0, 1]).unwrap();
            let got = contract(&u, &modes, &on(device, &others), &[0, 1]).unwrap();
            close(&format!("{shape:?} over {modes:?}"), &got, &wanted);
            let turned = others.permute(&[2, 1, 0]).unwrap().to_contiguous().unwrap();
            let got = contract(&on(device, &turned), &[2, 1], &u, &modes).unwrap();
            close(&format!("by {shape:?} over {modes:?}"), &got, &wanted.permute(&[1, 0]).unwrap());
        }
    }
    let u = on(device, &t);
    let mut holes = t.to_vec().unwrap();
    holes[12_345] = T::nan();
    holes[1_400_000] = T::infinity();
    let some = Tensor::<T>::from_vec(IxDyn(t.shape()), holes).unwrap();
    let m = matrix::<T>(20, 70, 6);
    let (got, wanted) =
        (on(device, &some).mode_product(2, &on(device, &m)).unwrap(), some.mode_product(2, &m).unwrap());
    let unknown = |x: &Tensor<T>| x.to_vec().unwrap().iter().map(|x| x.is_finite()).collect::<Vec<_>>();
    assert_eq!(unknown(&got), unknown(&wanted), "what is not finite stays in its fibre");
    let m = on(device, &m);
    let twice = [(); 2].map(|()| u.mode_product(2, &m).unwrap().to_vec().unwrap());
    assert_eq!(twice[0], twice[1]);
}

pub fn grams<T: Scalar>(device: &Device) {
    // The last one is computed in bands.
    for shape in [[6, 7, 8, 9], [5, 1, 5000, 1], [70, 3, 100, 2], [1, 9000, 3, 1], [40, 40, 1, 7], [2, 256, 3, 35]] {
        let a = normal::<T>(&shape, 6);
        let x = on(device, &a);
        for mode in 0..4 {
            if shape[mode] > 500 {
                continue;
            }
            let what = format!("gram of {shape:?}, mode {mode}");
            close(&what, &x.gram(mode).unwrap(), &a.gram(mode).unwrap());
            let (x, a) = (x.permute(&[3, 1, 0, 2]).unwrap(), a.permute(&[3, 1, 0, 2]).unwrap());
            if a.shape()[mode] <= 500 {
                close(&format!("permuted {what}"), &x.gram(mode).unwrap(), &a.gram(mode).unwrap());
            }
        }
    }
}

pub fn factorisations<T: Scalar>(device: &Device) {
    // Eigenvalues of up to 48 rows are found by one block.
    for (m, n) in [(1, 1), (30, 12), (12, 30), (25, 25), (48, 9), (50, 60)] {
        let a = matrix::<T>(m, n, 7);
        let x = on(device, &a);
        let svd = x.svd().unwrap();
        close("singular values", &svd.s, &a.svd().unwrap().s);
        let scaled = svd.u.mul(&svd.s.insert_mode(0).unwrap().into_order().unwrap()).unwrap();
        close("U S V^T", &scaled.matmul(&svd.v.t()).unwrap(), &a);
        let eye = Tensor::<T, Ix2>::eye(m.min(n)).unwrap();
        close("U^T U", &svd.u.t().matmul(&svd.u).unwrap(), &eye);
        close("V^T V", &svd.v.t().matmul(&svd.v).unwrap(), &eye);
        let qr = x.qr().unwrap();
        close("Q R", &qr.q.matmul(&qr.r).unwrap(), &a);
        close("Q^T Q", &qr.q.t().matmul(&qr.q).unwrap(), &eye);
        let r = qr.r.to_vec().unwrap();
        assert!((0..m.min(n)).all(|i| r[i * n..i * n + i].iter().all(|&x| x == T::zero())), "R is triangular");
        let square = a.matmul(&a.t()).unwrap().add(&Tensor::eye(m).unwrap()).unwrap();
        let there = on(device, &square);
        let (values, vectors) = there.eigh().unwrap();
        close("eigenvalues", &values, &square.eigh().unwrap().0);
        let scaled = vectors.mul(&values.insert_mode(0).unwrap().into_order().unwrap()).unwrap();
        close("V L V^T", &scaled.matmul(&vectors.t()).unwrap(), &square);
        let l = there.cholesky().unwrap();
        close("cholesky", &l, &square.cholesky().unwrap());
        let b = matrix::<T>(m, 3, 8);
        let solved = there.matmul(&l.cholesky_solve(&on(device, &b)).unwrap()).unwrap();
        close("cholesky_solve", &solved, &b);
        let error = there.scale(-T::one()).unwrap().cholesky().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Convergence);
    }
    // More columns than a block has warps; more entries than one block takes; a Cholesky factor that cuSOLVER finds.
    for (m, n) in [(70, 45), (45, 70), (1, 40), (1100, 256)] {
        let a = matrix::<T>(m, n, 7);
        let qr = on(device, &a).qr().unwrap();
        close("Q R", &qr.q.matmul(&qr.r).unwrap(), &a);
        close("Q^T Q", &qr.q.t().matmul(&qr.q).unwrap(), &Tensor::eye(m.min(n)).unwrap());
    }
    for n in [40, 257] {
        let square = matrix::<T>(n, n, 7);
        let square =
            square.matmul(&square.t()).unwrap().add(&Tensor::eye(n).unwrap().scale(T::of(9.0)).unwrap()).unwrap();
        close("cholesky", &on(device, &square).cholesky().unwrap(), &square.cholesky().unwrap());
        let error = on(device, &square.scale(-T::one()).unwrap()).cholesky().unwrap_err();
        assert!(error.message().contains("positive definite"), "{error}");
    }
    // Q is orthonormal whatever the columns are, and squares that leave the range of numbers do not matter.
    let tiny = T::of(T::min_positive_value().f64() * 16.0);
    for scale in [T::one(), T::of(1e20), T::of(T::max_value().f64() / 64.0), tiny] {
        let columns = [[1.0, 2.0, 0.0, 1.0], [-1.0, -2.0, 0.0, 3.0], [2.0, 4.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0]];
        let a = Tensor::<T, Ix2>::from_fn([4, 4], |i| T::of(columns[i[0]][i[1]]) * scale).unwrap();
        let qr = on(device, &a).qr().unwrap();
        close("Q^T Q of dependent columns", &qr.q.t().matmul(&qr.q).unwrap(), &Tensor::eye(4).unwrap());
        let [unscaled, wanted] = [qr.r.scale(T::one() / scale).unwrap(), a.scale(T::one() / scale).unwrap()];
        if scale != tiny {
            close("Q R of dependent columns", &qr.q.matmul(&unscaled).unwrap(), &wanted);
        }
        let there = Tucker::<T, Ix1>::new(on(device, &Tensor::<T, Ix1>::ones([4]).unwrap()), vec![on(device, &a)]);
        let [there, here] = [
            there.unwrap().normalize().unwrap(),
            Tucker::<T, Ix1>::new(Tensor::ones([4]).unwrap(), vec![a.clone()]).unwrap().normalize().unwrap(),
        ];
        close("columns of length one", &there.factors()[0], &here.factors()[0]);
        close("their lengths", there.core(), here.core());
    }
    eigenvalues::<T>(device);
    let bad = Tensor::<T, Ix2>::from_fn([5, 3], |i| if i == [3, 1] { T::nan() } else { T::one() }).unwrap();
    assert_eq!(on(device, &bad).qr().unwrap_err().kind(), ErrorKind::Value);
}

fn eigenvalues<T: Scalar>(device: &Device) {
    let cut = |values: &[f64]| values.iter().map(|&x| T::of(x)).collect::<Vec<T>>();
    for scale in [1.0, T::min_positive_value().f64() * 1e3, T::max_value().f64() / 1e3] {
        // Only the lower triangle counts; zeros are left alone.
        let entries = [2.0, 50.0, 9.0, 1.0, 2.0, -7.0, 0.0, 0.0, 3.0].map(|x| x * scale);
        let a = Tensor::<T, Ix2>::from_vec([3, 3], cut(&entries)).unwrap();
        let (values, vectors) = on(device, &a).eigh().unwrap();
        let wanted = Tensor::<T, Ix1>::from_vec([3], cut(&[3.0 * scale, 3.0 * scale, scale])).unwrap();
        close("eigenvalues of a lower triangle", &values, &wanted);
        close("V^T V", &vectors.t().matmul(&vectors).unwrap(), &Tensor::eye(3).unwrap());
    }
    // Clusters, zeros and values far apart: absolute accuracy, and vectors that are orthonormal all the same.
    for (n, value) in [(7, [1.0, 1.0, 1.0]), (33, [1e-9, 4.0, 4.0]), (48, [0.0, 0.0, 1.0])] {
        let q = matrix::<T>(n, n, 8).qr().unwrap().q;
        let diagonal = Tensor::<T, Ix2>::from_fn([1, n], |i| T::of(value[i[1] % 3])).unwrap();
        let a = q.mul(&diagonal).unwrap().matmul(&q.t()).unwrap();
        let (values, vectors) = on(device, &a).eigh().unwrap();
        close("clustered eigenvalues", &values, &a.eigh().unwrap().0);
        close("V^T V", &vectors.t().matmul(&vectors).unwrap(), &Tensor::eye(n).unwrap());
        let back = vectors.mul(&values.insert_mode(0).unwrap().into_order().unwrap()).unwrap();
        close("V L V^T", &back.matmul(&vectors.t()).unwrap(), &a);
    }
    let none = on(device, &Tensor::<T, Ix2>::zeros([5, 5]).unwrap()).eigh().unwrap();
    assert!(none.0.to_vec().unwrap().iter().all(|&x| x == T::zero()));
    for bad in [T::nan(), T::infinity()] {
        let a = Tensor::<T, Ix2>::from_fn([6, 6], |i| if i == [4, 2] { bad } else { T::one() }).unwrap();
        assert_eq!(on(device, &a).eigh().unwrap_err().kind(), a.eigh().unwrap_err().kind());
    }
}

pub fn solvers<T: Scalar>(device: &Device) {
    let core = normal::<T>(&[3, 4, 5], 9);
    let factors: Vec<_> = [(20, 3), (21, 4), (22, 5)].iter().map(|&(n, r)| matrix::<T>(n, r, n as u64)).collect();
    let noise = normal::<T>(&[20, 21, 22], 10).scale(T::of(0.5)).unwrap();
    let mut a = core;
    for (mode, factor) in factors.iter().enumerate() {
        a = a.mode_product(mode, factor).unwrap();
    }
    let a: Tensor<T, Ix3> = a.add(&noise).unwrap().into_order().unwrap();
    let x = on(device, &a);
    // In doubles: singles would do for this error, and differ more than what is compared here.
    let st = |x: &Tensor<T, Ix3>| StHosvd::ranks([3, 4, 5]).method(Method::Gram).fit(x).unwrap();
    close("ST-HOSVD", &st(&x).reconstruct().unwrap(), &st(&a).reconstruct().unwrap());
    near::<T>("its error", st(&x).relative_error, st(&a).relative_error, 1.0);
    let guaranteed = StHosvd::tolerance(0.2).fit(&x).unwrap();
    assert!(guaranteed.relative_error <= 0.2);
    let hooi = |x: &Tensor<T, Ix3>| Hooi::ranks([3, 4, 5]).exactly(3).fit(x).unwrap();
    near::<f32>("HOOI", hooi(&x).relative_error, hooi(&a).relative_error, 1.0);
    let non_negative = |x: &Tensor<T, Ix3>| NonNegativeTucker::ranks([3, 4, 5]).seed(7).exactly(3).fit(x).unwrap();
    let positive = [x.abs().unwrap(), a.abs().unwrap()];
    let [there, here] = [&positive[0], &positive[1]].map(non_negative);
    near::<f32>("non-negative Tucker", there.relative_error, here.relative_error, 1.0);
    assert!(there.core().min().unwrap() >= 0.0 && there.factors().iter().all(|f| f.min().unwrap() >= 0.0));
    // The same with every seventh entry missing.
    let hole = |i: &[usize]| (i[0] + 2 * i[1] + 3 * i[2]).is_multiple_of(7);
    let some = Tensor::from_fn([20, 21, 22], |i| if hole(i) { T::nan() } else { positive[1].get(i).unwrap() }).unwrap();
    let [there, here] =
        [&on(device, &some), &some].map(|x| Hooi::ranks([3, 4, 5]).skip_nan().exactly(3).fit(x).unwrap());
    near::<f32>("HOOI of known entries", there.relative_error, here.relative_error, 1.0);
    let known = |x: &Tensor<T, Ix3>| NonNegativeTucker::ranks([3, 4, 5]).seed(7).skip_nan().exactly(3).fit(x).unwrap();
    let [there, here] = [&on(device, &some), &some].map(known);
    near::<f32>("non-negative Tucker of known entries", there.relative_error, here.relative_error, 1.0);
    let cp = |x: &Tensor<T, Ix3>| CpAls::rank(3).seed(7).exactly(3).fit(x).unwrap();
    near::<f32>("CP-ALS", cp(&x).relative_error, cp(&a).relative_error, 1.0);
    // Components that are the same: V is singular, and every sweep is done again with care.
    let same: Vec<Tensor<T, Ix2>> =
        [20, 21, 22].iter().map(|&n| Tensor::from_fn([n, 2], |i| T::of(1.0 + i[0] as f64)).unwrap()).collect();
    let collinear = |x: &Tensor<T, Ix3>| {
        let start = CpStart::Given(same.iter().map(|f| f.to_device(x.device()).unwrap()).collect());
        CpAls::rank(2).start(start).exactly(2).fit(x).unwrap()
    };
    near::<f32>("CP-ALS from collinear factors", collinear(&x).relative_error, collinear(&a).relative_error, 1.0);
    // Rows of their own, of more components than a warp has lanes. (Amounts: where components die, rounding decides what comes of them.)
    let holes =
        Tensor::from_fn([20, 21, 22], |i| if (i[0] + 2 * i[1] + 3 * i[2]) % 7 == 0 { T::nan() } else { T::zero() });
    let positive = a.abs().unwrap();
    let [holes, amounts] = [&a, &positive].map(|x| x.add(holes.as_ref().unwrap()).unwrap());
    for rank in [1, 3, 40] {
        let solver = CpAls::rank(rank).seed(7).exactly(3);
        for (what, solver, x) in [
            ("CP-ALS of known entries", solver.clone().skip_nan(), &holes),
            ("non-negative CP-ALS", solver.clone().non_negative(), &positive),
            ("CP-ALS with a non-negative mode", solver.clone().non_negative_modes([1]), &a),
            ("non-negative CP-ALS of known entries", solver.clone().non_negative().skip_nan(), &amounts),
        ] {
            let (there, here) = (solver.fit(&on(device, x)).unwrap(), solver.fit(x).unwrap());
            near::<f32>(&format!("{what}, rank {rank}"), there.relative_error, here.relative_error, 1.0);
        }
    }
    let unknown = on(device, &holes.map(|_| T::nan()).unwrap());
    assert_eq!(CpAls::rank(2).skip_nan().fit(&unknown).unwrap_err().kind(), ErrorKind::Value);
}

/// The same numbers twice, to the last bit.
pub fn repeats<T: Scalar>(device: &Device) {
    let x = on(device, &normal::<T>(&[50, 60, 70], 11));
    assert_eq!(x.sum().unwrap(), x.sum().unwrap());
    assert_eq!(x.gram(1).unwrap().to_vec().unwrap(), x.gram(1).unwrap().to_vec().unwrap());
    assert_eq!(x.sum_modes(&[0, 2]).unwrap().to_vec().unwrap(), x.sum_modes(&[0, 2]).unwrap().to_vec().unwrap());
    let m = on(device, &matrix::<T>(8, 60, 12));
    let product = || x.mode_product(1, &m).unwrap().to_vec().unwrap();
    assert_eq!(product(), product());
}
