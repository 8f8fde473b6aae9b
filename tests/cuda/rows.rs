//! Cases of what networks do with rows and channels, losses, picks and steps: forward and every gradient, beside the host's.

use super::*;
use tenfold::{
    Result,
    autodiff::{CrossEntropy, RelativePositions, Var},
    nn::Parameter,
    train::{Adam, AdamW, Groups, Optimizer, Rows, Rule, Sgd, Trainer},
};

/// Entries one by one: NaN for NaN, the same infinity, else nearly the same number.
fn alike<T: Scalar>(what: &str, got: &Tensor<T>, wanted: &Tensor<T>) {
    assert_eq!(got.shape(), wanted.shape(), "{what}");
    for (i, (a, b)) in got.to_vec().unwrap().into_iter().zip(wanted.to_vec().unwrap()).enumerate() {
        let near = (a.f64() - b.f64()).abs() <= tolerance::<T>() * b.f64().abs().max(1.0);
        assert!(a == b || (a.is_nan() && b.is_nan()) || near, "{what}: entry {i} is {a}, not {b}");
    }
}

/// As `agree`, for entries that are no numbers.
fn compare_special<T: Scalar>(what: &str, device: &Device, x: &Tensor<T>, f: impl Fn(&Var<T>) -> Result<Var<T>>) {
    let run = |x: Tensor<T>| {
        let x = Var::parameter(x);
        let y = f(&x).unwrap();
        let dy = normal::<T>(y.shape(), 99).to_device(y.device()).unwrap();
        (y.value().clone(), y.backward_from(dy).unwrap().of(&x).unwrap().clone())
    };
    let ((got, found), (wanted, slope)) = (run(on(device, x)), run(x.clone()));
    alike(what, &got, &wanted);
    alike(&format!("{what}, gradient"), &found, &slope);
}

/// Rows that no number is left out of, and rows of every special kind.
fn special<T: Scalar>(n: usize) -> Tensor<T> {
    let mut x = normal::<T>(&[6, n], 5).to_vec().unwrap();
    x[n / 2] = T::nan();
    x[n + n / 3] = T::infinity();
    x[2 * n + n / 2] = T::neg_infinity();
    x[3 * n..4 * n].fill(T::neg_infinity());
    x[4 * n..5 * n].fill(T::of(-3e38));
    Tensor::from_vec(IxDyn(&[6, n]), x).unwrap()
}

type Activation<T> = fn(&Var<T>) -> Result<Var<T>>;

pub fn activations<T: Scalar>(device: &Device) {
    let functions: [(&str, Activation<T>); 8] = [
        ("gelu", Var::gelu),
        ("gelu_tanh", Var::gelu_tanh),
        ("relu", Var::relu),
        ("relu6", Var::relu6),
        ("silu", Var::silu),
        ("tanh", Var::tanh),
        ("sigmoid", Var::sigmoid),
        ("exp", Var::exp),
    ];
    for n in [0, 1, 2, 3, 5, 1000, 1025, 70_000] {
        let x = normal::<T>(&[n], 1).scale(T::of(3.0)).unwrap();
        for (name, f) in functions {
            agree(&format!("{name} of {n}"), device, std::slice::from_ref(&x), |v| f(&v[0]));
        }
        let positive = x.abs().unwrap().shift(T::of(1e-3)).unwrap();
        agree(&format!("log of {n}"), device, &[positive], |v| v[0].log());
    }
    let far = [0.0, -0.0, 1e-30, 8.0, -8.0, 60.0, -60.0, 1e30, -1e30, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    let far = Tensor::<T>::from_vec(IxDyn(&[12]), far.map(T::of).to_vec()).unwrap();
    for (name, f) in functions {
        compare_special(&format!("{name} far out"), device, &far, f);
    }
    compare_special("log far out", device, &far, Var::log);
}

const WIDTHS: [usize; 15] = [1, 2, 3, 31, 32, 33, 127, 128, 768, 1000, 1025, 2052, 5000, 20_001, 70_000];

/// Numbers of rows that are worth trying with rows of `n`.
fn counts(n: usize) -> impl Iterator<Item = usize> {
    [1, 3, 70, 2500].into_iter().filter(move |rows| rows * n <= 400_000 || *rows == 1)
}

pub fn softmaxes<T: Scalar>(device: &Device) {
    for n in WIDTHS {
        for rows in counts(n) {
            let x = normal::<T>(&[rows, n], 1).scale(T::of(2.0)).unwrap();
            let one = std::slice::from_ref(&x);
            agree(&format!("softmax of {rows} x {n}"), device, one, |v| v[0].softmax(1));
            agree(&format!("log_softmax of {rows} x {n}"), device, one, |v| v[0].log_softmax(1));
        }
    }
    // So many long rows that each has a single block.
    let x = normal::<T>(&[133, 8200], 1);
    agree("softmax of many long rows", device, std::slice::from_ref(&x), |v| v[0].softmax(1));
    // A mask along rows that several blocks share, the last of them with a part of a pack.
    let both = [normal::<T>(&[2, 3, 9001], 2), normal::<T>(&[3, 9001], 3)];
    agree("softmax of long rows with a mask", device, &both, |v| v[0].masked_softmax(&v[1]));
    for shape in [&[3, 4, 5][..], &[2, 33, 70], &[1, 300, 2], &[40, 2], &[0, 3]] {
        let x = normal::<T>(shape, 2);
        for mode in 0..shape.len() {
            let one = std::slice::from_ref(&x);
            agree(&format!("softmax of {shape:?} along {mode}"), device, one, |v| v[0].softmax(mode));
            agree(&format!("log_softmax of {shape:?} along {mode}"), device, one, |v| v[0].log_softmax(mode));
        }
    }
    let x = normal::<T>(&[2, 3, 4, 36], 3);
    for shape in [&[36][..], &[2, 1, 1, 36], &[3, 4, 36], &[1, 3, 1, 36], &[2, 3, 4, 36]] {
        let both = [x.clone(), normal::<T>(shape, 4)];
        agree(&format!("softmax with a mask of {shape:?}"), device, &both, |v| v[0].masked_softmax(&v[1]));
    }
    // A mask that is the same for a whole row changes nothing: its gradient is what is left of sums of numbers around 1.
    for shape in [&[4, 1][..], &[]] {
        let both = [x.clone(), normal::<T>(shape, 4)];
        let check = |which: &str, got: &Tensor<T>, wanted: &Tensor<T>| {
            within(&format!("softmax with a mask of {shape:?}: {which}"), got, wanted, 1.0);
        };
        compare(device, &both, |v| v[0].masked_softmax(&v[1]), check);
    }
    for n in [5, 40, 300, 1500, 9000, 40_000] {
        let (x, along) = (special::<T>(n), special::<T>(n).permute(&[1, 0]).unwrap().to_contiguous().unwrap());
        compare_special("softmax", device, &x, |v| v.softmax(1));
        compare_special("log_softmax", device, &x, |v| v.log_softmax(1));
        compare_special("softmax of columns", device, &along, |v| v.softmax(0));
        compare_special("log_softmax of columns", device, &along, |v| v.log_softmax(0));
        let mask = Tensor::<T>::full(IxDyn(&[6, 1]), T::neg_infinity()).unwrap();
        let masked = |v: &Var<T>| v.masked_softmax(&Var::constant(mask.to_device(v.device())?));
        compare_special("softmax of masked rows", device, &normal::<T>(&[6, n], 6), masked);
    }
}

pub fn norms_of_rows<T: Scalar>(device: &Device) {
    for n in WIDTHS {
        for rows in counts(n) {
            let all = [normal::<T>(&[rows, n], 1), normal::<T>(&[n], 2), normal::<T>(&[n], 3)];
            let what = format!("of {rows} x {n}");
            // With an eps that is no rounding error, also for rows of a single entry.
            agree(&format!("layer_norm {what}"), device, &all, |v| v[0].layer_norm(Some(&v[1]), Some(&v[2]), 0.1));
            agree(&format!("rms_norm {what}"), device, &all[..2], |v| v[0].rms_norm(Some(&v[1]), 0.1));
            agree(&format!("plain layer_norm {what}"), device, &all[..1], |v| v[0].layer_norm(None, None, 0.1));
        }
    }
    let without = [normal::<T>(&[7, 40], 1), normal::<T>(&[40], 2)];
    agree("layer_norm without weight", device, &without, |v| v[0].layer_norm(None, Some(&v[1]), 0.1));
    agree("no rows", device, &[normal::<T>(&[0, 40], 1), without[1].clone()], |v| v[0].rms_norm(Some(&v[1]), 0.1));
    // A mean far from 0 costs no digits: rows are centred before they are squared.
    let far = normal::<T>(&[20, 768], 1).shift(T::of(100.0)).unwrap();
    let y = Var::constant(on(device, &far)).layer_norm(None, None, 1e-6).unwrap();
    let wanted = far.cast::<f64>().unwrap();
    let wanted = Var::constant(wanted).layer_norm(None, None, 1e-6).unwrap().value().cast::<T>().unwrap();
    for (a, b) in y.value().to_vec().unwrap().into_iter().zip(wanted.to_vec().unwrap()) {
        assert!((a.f64() - b.f64()).abs() < 1e4 * T::epsilon().f64(), "{a} is not {b}");
    }
    for n in [5, 300, 9000] {
        // A row of equal numbers is left out: the mean's rounding error decides what comes of it.
        let uneven = special::<T>(n).narrow(0, 0..4).unwrap().to_contiguous().unwrap();
        compare_special("layer_norm", device, &uneven, |v| v.layer_norm(None, None, 1e-5));
    }
}

pub fn norms_of_channels<T: Scalar>(device: &Device) {
    for shape in
        [[2, 3, 4, 1], [3, 5, 7, 3], [2, 9, 9, 16], [16, 7, 7, 96], [1, 60, 60, 33], [2, 3, 1, 770], [2, 40, 40, 128]]
    {
        let n = shape[3];
        let all = [normal::<T>(&shape, 1), normal::<T>(&[n], 2), normal::<T>(&[n], 3)];
        let vector = |seed| -> Tensor<T, Ix1> {
            normal::<T>(&[n], seed).abs().unwrap().shift(T::of(0.5)).unwrap().into_order().unwrap()
        };
        let (mean, variance) = (vector(4), vector(5));
        let there = |v: &Var<T>| (on(v.device(), &mean), on(v.device(), &variance));
        let what = format!("of {shape:?}");
        agree(&format!("grn {what}"), device, &all, |v| v[0].grn(&v[1], &v[2], 1e-6));
        agree(&format!("affine {what}"), device, &all, |v| v[0].affine(&v[1], Some(&v[2])));
        agree(&format!("affine without bias {what}"), device, &all[..2], |v| v[0].affine(&v[1], None));
        agree(&format!("batch_norm {what}"), device, &all, |v| {
            let (mean, variance) = there(&v[0]);
            v[0].batch_norm(&mean, &variance, Some(&v[1]), Some(&v[2]), 0.1)
        });
        let training = |v: &[Var<T>]| {
            let (mean, variance) = there(&v[0]);
            v[0].batch_norm_training(&mean, &variance, 0.1, v.get(1), v.get(2), 0.1)
        };
        agree(&format!("batch_norm of the batch {what}"), device, &all, |v| Ok(training(v)?.result));
        agree(&format!("plain batch_norm {what}"), device, &all[..1], |v| Ok(training(v)?.result));
        let run = |x: Tensor<T>| training(&[Var::constant(x)]).unwrap();
        let (got, wanted) = (run(on(device, &all[0])), run(all[0].clone()));
        close("running mean", &got.running_mean, &wanted.running_mean);
        close("running variance", &got.running_variance, &wanted.running_variance);
    }
    // Long columns, with a mean far from 0.
    let far = normal::<T>(&[40_000, 4], 6).shift(T::of(100.0)).unwrap();
    let zero = Tensor::<T, Ix1>::zeros([4]).unwrap();
    let run = |x: Tensor<T>| {
        let zero = on(x.device(), &zero);
        Var::constant(x).batch_norm_training(&zero, &zero, 1.0, None, None, 1e-5).unwrap().running_variance
    };
    close("variance far from 0", &run(on(device, &far)), &run(far.clone()));
    // A channel of zeros has no direction.
    let every_second = Tensor::from_fn(IxDyn(&[1, 1, 1, 8]), |i| T::of((i[3] % 2) as f64)).unwrap();
    let dead = normal::<T>(&[2, 3, 3, 8], 7).mul(&every_second).unwrap();
    let gains = [dead, normal::<T>(&[8], 8), normal::<T>(&[8], 9)];
    agree("grn of silent channels", device, &gains, |v| v[0].grn(&v[1], &v[2], 1e-6));
    agree("grn of no samples", device, &[normal::<T>(&[0, 3, 8], 1), gains[1].clone(), gains[2].clone()], |v| {
        v[0].grn(&v[1], &v[2], 1e-6)
    });
}

pub fn losses<T: Scalar>(device: &Device) {
    for classes in [1, 2, 3, 33, 127, 1000, 1025, 5000, 20_001, 70_000] {
        for rows in counts(classes) {
            let z = normal::<T>(&[rows, classes], 1).scale(T::of(2.0)).unwrap();
            let labels = Tensor::<i64, Ix1>::from_fn([rows], |i| ((i[0] * 5 + 1) % classes) as i64).unwrap();
            let short: Tensor<u32, Ix1> = labels.cast().unwrap();
            for (smoothing, ignore) in [(0.0, None), (0.1, None), (0.1, Some(2)), (1.0, Some(-100))] {
                let how = CrossEntropy { smoothing, ignore };
                if labels.to_vec().unwrap().iter().all(|&label| Some(label) == ignore) {
                    continue;
                }
                let what = format!("cross_entropy of {rows} x {classes}, {how:?}");
                let loss = |v: &[Var<T>]| {
                    let loss = v[0].cross_entropy(&on(v[0].device(), &labels), how)?;
                    loss.add(&v[0].cross_entropy(&on(v[0].device(), &short), how)?.scale(T::of(2.0))?)
                };
                let one = std::slice::from_ref(&z);
                match classes {
                    // The only class has probability 1, and a gradient that cancels.
                    1 => compare(device, one, loss, |which, got, wanted| {
                        within(&format!("{what}: {which}"), got, wanted, 1.0)
                    }),
                    _ => agree(&what, device, one, loss),
                }
            }
        }
    }
    let z = Var::constant(on(device, &normal::<T>(&[2, 3], 1)));
    let error = |labels: [i64; 2]| {
        let labels = Tensor::<i64, Ix1>::from_vec([2], labels.to_vec()).unwrap();
        z.cross_entropy(&on(device, &labels), CrossEntropy { ignore: Some(-100), ..CrossEntropy::default() })
            .unwrap_err()
    };
    assert_eq!(error([0, 3]).to_string(), "cross_entropy: label 3 at [1] is none of the 3 classes");
    assert_eq!(error([-1, 0]).to_string(), "cross_entropy: label -1 at [0] is none of the 3 classes");
    assert!(error([-100, -100]).message().contains("no mean"));
    for shape in [&[][..], &[1], &[2, 33], &[70_001]] {
        let (x, t) = (normal::<T>(shape, 1).scale(T::of(4.0)).unwrap(), normal::<T>(shape, 2).abs().unwrap());
        let both = [x, t];
        agree(&format!("mse_loss of {shape:?}"), device, &both, |v| v[0].mse_loss(&v[1]));
        agree(&format!("bce_with_logits of {shape:?}"), device, &both, |v| v[0].bce_with_logits(&v[1]));
        agree(&format!("sum of {shape:?}"), device, &both[..1], |v| v[0].sum());
        agree(&format!("mean of {shape:?}"), device, &both[..1], |v| v[0].mean());
    }
    // The gradient of a loss itself, with no factor.
    let z = normal::<T>(&[5, 40], 1);
    let labels = Tensor::<u32, Ix1>::from_fn([5], |i| i[0] as u32).unwrap();
    let run = |z: Tensor<T>| {
        let z = Var::parameter(z);
        let loss = z.cross_entropy(&on(z.device(), &labels), CrossEntropy::default()).unwrap();
        loss.backward().unwrap().take(&z).unwrap()
    };
    close("the gradient of a loss", &run(on(device, &z)), &run(z.clone()));
}

pub fn dropouts<T: Scalar>(device: &Device) {
    for n in [1, 63, 64, 65, 1000, 70_003] {
        for (probability, seed, step) in [(0.1, 7, 0), (0.5, u64::MAX, 1 << 40), (1.0, 3, 2)] {
            let x = normal::<T>(&[n], 1);
            let run = |x: Tensor<T>| Var::constant(x).dropout(probability, seed, step).unwrap().into_value();
            let wanted = run(x.clone()).to_vec().unwrap();
            assert_eq!(run(on(device, &x)).to_vec().unwrap(), wanted, "{n} with {probability}");
            assert_eq!(run(shifted(device, &x)).to_vec().unwrap(), wanted, "{n} with {probability}, anywhere");
        }
    }
    let x = [normal::<T>(&[50, 3, 4], 1)];
    agree("dropout", device, &x, |v| v[0].dropout(0.3, 5, 6));
    agree("stochastic_depth", device, &x, |v| v[0].stochastic_depth(0.3, 5, 6));
    let infinite = Tensor::<T>::full(IxDyn(&[100]), T::infinity()).unwrap();
    let y = Var::constant(on(device, &infinite)).dropout(0.5, 1, 1).unwrap();
    assert!(y.value().to_vec().unwrap().iter().all(|&y| y == T::zero() || y == T::infinity()));
}

pub fn picks<T: Scalar>(device: &Device) {
    for (rows, width, count) in [(1, 1, 1), (5, 3, 7), (40, 128, 33), (1000, 12, 3000), (7, 300, 5000), (3, 2, 70_000)]
    {
        let table = [normal::<T>(&[rows, width], 1)];
        let ids = Tensor::<i64, Ix1>::from_fn([count], |i| ((i[0] * i[0] / 3 + i[0]) % rows) as i64).unwrap();
        let short: Tensor<u32, Ix1> = ids.cast().unwrap();
        let what = format!("embedding of {count} in {rows} x {width}");
        agree(&what, device, &table, |v| v[0].embedding(&on(v[0].device(), &ids), None));
        agree(&what, device, &table, |v| v[0].embedding(&on(v[0].device(), &short), Some(0)));
        // One row for all: the longest run.
        let same = Tensor::<u32, Ix1>::full([count], rows as u32 / 2).unwrap();
        agree("embedding of one row", device, &table, |v| v[0].embedding(&on(v[0].device(), &same), None));
    }
    for shape in [&[1][..], &[3, 4, 5], &[40, 9], &[2, 33, 11], &[5000], &[3, 700], &[700, 3]] {
        let x = [normal::<T>(shape, 2)];
        for mode in 0..shape.len() {
            for count in [1, 4, 900] {
                let mut wanted = shape.to_vec();
                wanted[mode] = count;
                let n = shape[mode];
                let index =
                    Tensor::<i64>::from_fn(IxDyn(&wanted), |i| ((i.iter().sum::<usize>() * 7 + 3) % n) as i64).unwrap();
                agree(&format!("gather {wanted:?} of {shape:?} along {mode}"), device, &x, |v| {
                    v[0].gather(mode, &on(v[0].device(), &index))
                });
            }
            agree(&format!("max of {shape:?} along {mode}"), device, &x, |v| Ok(v[0].max_mode(mode, false)?.0));
            let place = |x: Tensor<T>| Var::constant(x).max_mode(mode, false).unwrap().1.to_vec().unwrap();
            assert_eq!(place(on(device, &x[0])), place(x[0].clone()), "places of maxima");
        }
    }
    let ties = [[2.0, 2.0, 1.0], [0.0, f64::NAN, 9.0], [f64::NEG_INFINITY; 3], [-0.0, 0.0, -1.0]];
    let ties = Tensor::<T>::from_vec(IxDyn(&[4, 3]), ties.concat().into_iter().map(T::of).collect()).unwrap();
    for (x, mode) in [(ties.clone(), 1), (ties.permute(&[1, 0]).unwrap(), 0)] {
        let (_, at) = Var::constant(on(device, &x)).max_mode(mode, false).unwrap();
        assert_eq!(at.to_vec().unwrap(), [0, 1, 0, 0]);
    }
    // Indices that the host knows, and those that only the GPU does.
    let table = Var::constant(on(device, &normal::<T>(&[5, 2], 1)));
    let ids = Tensor::<i64, Ix1>::from_vec([4], vec![0, 4, 5, -1]).unwrap();
    let known = on(device, &ids);
    let unknown = on(device, &ids.cast::<f64>().unwrap()).cast::<i64>().unwrap();
    for ids in [&known, &unknown] {
        let error = table.embedding(ids, None).unwrap_err();
        assert_eq!(error.to_string(), "embedding: index 5 at [2] is outside the table, which has 5 rows");
        let error = table.embedding(&ids.narrow(0, 3..4).unwrap(), None).unwrap_err();
        assert_eq!(error.to_string(), "embedding: index -1 at [0] is outside the table, which has 5 rows");
        assert!(table.embedding(&ids.narrow(0, 0..2).unwrap(), None).is_ok());
    }
    assert_eq!(known.to_vec().unwrap(), unknown.to_vec().unwrap());
}

pub fn positions<T: Scalar>(device: &Device) {
    for [b, h, n, m, r] in
        [[1, 1, 1, 1, 1], [2, 3, 4, 5, 3], [1, 2, 35, 3, 2], [1, 1, 3, 70, 4], [2, 2, 33, 34, 50], [2, 4, 128, 128, 64]]
    {
        let index = |rows: usize, columns: usize, k: usize| {
            Tensor::from_fn([rows, columns], |i| ((i[0] * 7 + i[1] * k + i[0] * i[1]) % r) as u32).unwrap()
        };
        let at = RelativePositions::of(index(n, m, 5), index(m, n, 3)).unwrap();
        let there = at.to_device(device).unwrap();
        let here = |v: &Var<T>| if v.device().is_cpu() { at.clone() } else { there.clone() };
        let both = [normal::<T>(&[b, h, n, r], 1), normal::<T>(&[b, h, m, r], 2)];
        let what = format!("{b} x {h}, {n} by {m}, {r} apart");
        agree(&format!("positions of {what}"), device, &both, |v| {
            Var::disentangled_bias(Some(&v[0]), Some(&v[1]), &here(&v[0]), 0.25)
        });
        agree(&format!("c2p of {what}"), device, &both[..1], |v| {
            Var::disentangled_bias(Some(&v[0]), None, &here(&v[0]), 0.25)
        });
        agree(&format!("p2c of {what}"), device, &both[1..], |v| {
            Var::disentangled_bias(None, Some(&v[0]), &here(&v[0]), 0.25)
        });
    }
}

pub fn steps<T: Scalar>(device: &Device) {
    let rules: [Rule; 6] = [
        Sgd::new(0.1).weight_decay(0.01).into(),
        Sgd::new(0.1).momentum(0.9).dampening(0.1).into(),
        Sgd::new(0.1).momentum(0.9).nesterov().into(),
        Adam::new(0.01).weight_decay(0.1).into(),
        AdamW::new(0.01).betas(0.0, 0.9).into(),
        AdamW::new(0.01).amsgrad().into(),
    ];
    let sizes = [1, 0, 7, 100, 16_384, 16_385, 70_000];
    for rule in rules {
        let run = |device: &Device| {
            let at = |n: usize, seed| normal::<T>(&[n], seed).to_device(device).unwrap();
            let mut model: Vec<_> =
                sizes.iter().map(|&n| Parameter::new(at(n, n as u64).into_order::<Ix1>().unwrap())).collect();
            let mut optimizer = Optimizer::new(rule, &Groups::new(), &model).unwrap();
            let mut norms = Vec::new();
            for step in 0..4 {
                let mut sum: Option<Var<T>> = None;
                for (parameter, n) in model.iter().zip(sizes) {
                    let term = parameter.var().mul(&Var::constant(at(n, 100 + step + n as u64))).unwrap();
                    let term = term.add(&parameter.var().square().unwrap()).unwrap().sum().unwrap();
                    sum = Some(sum.map_or_else(|| term.clone(), |sum| sum.add(&term).unwrap()));
                }
                let gradients = sum.unwrap().backward().unwrap();
                let clip = (step > 1).then_some(3.0);
                norms.push(optimizer.step(&mut model, gradients, 0.5, clip).unwrap().gradient_norm);
            }
            (norms, model.iter().map(|parameter| parameter.value().clone()).collect::<Vec<_>>())
        };
        let ((norms, got), (wanted_norms, wanted)) = (run(device), run(&Device::cpu()));
        for (a, b) in norms.into_iter().zip(wanted_norms) {
            near::<T>("norm of gradients", a, b, 0.0);
        }
        for (got, wanted) in got.iter().zip(&wanted) {
            close(&format!("{rule:?}"), got, wanted);
        }
    }
    // A gradient that is not finite is named, and nothing moves.
    let start = normal::<T>(&[300], 1);
    let mut model = vec![Parameter::new(on(device, &start).into_order::<Ix1>().unwrap())];
    let mut optimizer = Optimizer::new(Sgd::new(0.1), &Groups::new(), &model).unwrap();
    let bad = model[0].var().scale(T::infinity()).unwrap().sum().unwrap().backward().unwrap();
    let error = optimizer.step(&mut model, bad, 1.0, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value);
    assert_eq!(model[0].value().to_vec().unwrap(), start.to_vec().unwrap());
    // Squares that vanish, or leave the range of doubles, are no reason to stand still.
    for scale in [0.0, 1e-30, 1e-200, 1e30, 1e200] {
        let run = |device: &Device| {
            let mut model = vec![Parameter::new(on(device, &start).into_order::<Ix1>().unwrap())];
            let mut optimizer = Optimizer::new(Sgd::new(0.1).weight_decay(0.5), &Groups::new(), &model).unwrap();
            let gradients = model[0].var().scale(T::of(scale)).unwrap().sum().unwrap().backward().unwrap();
            let step = optimizer.step(&mut model, gradients, 1.0, Some(1.0));
            (step.map(|step| step.clipped).map_err(|error| error.kind()), model[0].value().clone().into_dyn())
        };
        let ((step, got), (wanted_step, wanted)) = (run(device), run(&Device::cpu()));
        assert_eq!(step, wanted_step, "gradients of {scale}");
        close(&format!("gradients of {scale}"), &got, &wanted);
    }
    // A loss that is not finite, of gradients that are: the trainer says so, and the step before it was the last one.
    let examples = Tensor::<T, Ix1>::from_vec([4], vec![T::one(), T::one(), T::nan(), T::one()]).unwrap();
    let data = Rows::new(&examples, &examples).unwrap();
    let mut w = Parameter::new(on(device, &Tensor::<T, Ix1>::zeros([1]).unwrap()));
    let trainer = Trainer::new(Sgd::new(0.5)).batch_size(1);
    let fit = trainer.fit(&mut w, &data, |w: &Parameter<T>, (x, _), _| {
        w.var().sum()?.add(&Var::constant(x.to_device(w.var().device())?).sum()?)
    });
    let error = fit.unwrap_err();
    assert!(error.message().contains("the loss is NaN"), "{error}");
    let step: f64 = error.message().split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(w.value().to_vec().unwrap(), [T::of(-0.5 * (step - 1.0))]);
}

pub fn placed<T: Scalar>(device: &Device) {
    let x = [normal::<T>(&[3, 4, 8], 1), normal::<T>(&[3, 5, 8], 2)];
    for widths in
        [[(0, 0), (0, 0), (0, 0)], [(1, 2), (0, 3), (4, 4)], [(0, 0), (2, 0), (0, 0)], [(0, 1), (0, 0), (1, 0)]]
    {
        agree(&format!("pad by {widths:?}"), device, &x[..1], |v| v[0].pad(&widths));
    }
    agree("slice with steps", device, &x[..1], |v| v[0].slice(s![1.., ..;-2, 1..;3]));
    agree("narrow", device, &x[..1], |v| v[0].narrow(2, 4..8));
    agree("index", device, &x[..1], |v| v[0].index_mode(1, 2));
    agree("concat", device, &x, |v| Var::concat(&[&v[0], &v[1], &v[0]], 1));
    agree("concat of one mode", device, &[normal::<T>(&[5], 1), normal::<T>(&[7], 2)], |v| {
        Var::concat(&[&v[0], &v[1]], 0)
    });
    let ten = normal::<T>(&[2; 10], 3);
    agree("pad of ten modes", device, &[ten], |v| v[0].pad(&[(1, 0); 10]));
    let bytes = Tensor::<u8, Ix1>::from_fn([100], |i| i[0] as u8).unwrap();
    let halves: Tensor<half::f16, Ix1> = bytes.cast().unwrap();
    let (there, there_halves) = (on(device, &bytes), on(device, &halves));
    let joined = Tensor::concat(&[&there, &there], 0).unwrap();
    assert_eq!(joined.to_vec().unwrap(), Tensor::concat(&[&bytes, &bytes], 0).unwrap().to_vec().unwrap());
    let joined = Tensor::concat(&[&there_halves, &there_halves], 0).unwrap();
    assert_eq!(joined.to_vec().unwrap(), Tensor::concat(&[&halves, &halves], 0).unwrap().to_vec().unwrap());
}

/// The same bits every time, where sums are split.
pub fn networks_repeat<T: Scalar>(device: &Device) {
    let run = || {
        let x = Var::parameter(on(device, &normal::<T>(&[500, 6, 48], 1)));
        let w = Var::parameter(on(device, &normal::<T>(&[48], 2)));
        let b = Var::parameter(on(device, &normal::<T>(&[48], 3)));
        let table = Var::parameter(on(device, &normal::<T>(&[9, 48], 4)));
        let ids = on(device, &Tensor::<u32, Ix2>::from_fn([500, 6], |i| (i[0] * i[1] % 9) as u32).unwrap());
        let y = table.embedding(&ids, None).unwrap().add(&x).unwrap();
        let y = y.layer_norm(Some(&w), Some(&b), 1e-6).unwrap().gelu().unwrap().grn(&w, &b, 1e-6).unwrap();
        let loss = y.square().unwrap().mean().unwrap();
        let gradients = loss.backward().unwrap();
        [&x, &w, &b, &table].map(|v| gradients.of(v).unwrap().to_vec().unwrap())
    };
    assert_eq!(run(), run());
}
