//! Products in TF32 and bf16: as close to those of singles as their operands' bits allow, and everything else as it was.

use super::*;
use tenfold::{
    Precision,
    autodiff::{Attention, Conv, checkpoint},
    nn::Parameter,
    train::{Groups, Optimizer, Sgd},
};

/// The most that rounding both operands of a product may change a result, relative to the product of the absolute values.
fn bound(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 1e-5,
        Precision::Tf32 => 2.1 / 1024.0,
        Precision::Bf16 => 2.1 / 256.0,
    }
}

/// `got` against `wanted`, entry by entry within `bound` times `size`.
fn within(what: &str, got: &Tensor<f32>, wanted: &Tensor<f32>, size: &Tensor<f32>, bound: f64) {
    let [got, wanted, size] = [got, wanted, size].map(|x| x.to_vec().unwrap());
    for (i, ((a, b), size)) in got.iter().zip(&wanted).zip(&size).enumerate() {
        assert!(((a - b).abs() as f64) <= bound * *size as f64, "{what}: entry {i} is {a}, not {b}, of {size}");
    }
}

const ALL: [Precision; 3] = [Precision::F32, Precision::Tf32, Precision::Bf16];

#[test]
fn products_are_as_close_as_their_precision_says() {
    let Some(device) = gpu("products_are_as_close_as_their_precision_says") else { return };
    // Products of many sizes: whole, of views, in batches, and with a side too short to round operands for.
    for (m, n, k) in [(64, 48, 80), (33, 200, 130), (40, 5, 100), (128, 64, 3)] {
        let (a, b) = (matrix::<f32>(m, k, 1), matrix::<f32>(n, k, 2));
        let wanted = a.matmul(&b.t()).unwrap();
        let size = a.abs().unwrap().matmul(&b.abs().unwrap().t()).unwrap();
        for precision in ALL {
            let device = device.clone().precision(precision).unwrap();
            let (x, y) = (on(&device, &a), on(&device, &b));
            let got = x.matmul(&y.t()).unwrap();
            within(&format!("{precision}"), &got.to_dyn(), &wanted.to_dyn(), &size.to_dyn(), bound(precision));
            // Part of a block that begins between two boundaries of 16 bytes.
            let part = x.slice(s![3.., 1..]).unwrap().matmul(&y.t().slice(s![1.., ..]).unwrap()).unwrap();
            let wanted = a.slice(s![3.., 1..]).unwrap().matmul(&b.t().slice(s![1.., ..]).unwrap()).unwrap();
            let size = size.slice(s![3.., ..]).unwrap();
            within(&format!("part, {precision}"), &part.to_dyn(), &wanted.to_dyn(), &size.to_dyn(), bound(precision));
        }
    }
}

#[test]
fn bf16_rounds_and_f32_does_not() {
    let Some(device) = gpu("bf16_rounds_and_f32_does_not") else { return };
    let (a, b) = (matrix::<f32>(64, 64, 1), matrix::<f32>(64, 64, 2));
    let product = |precision| {
        let device = device.clone().precision(precision).unwrap();
        on(&device, &a).matmul(&on(&device, &b)).unwrap().to_vec().unwrap()
    };
    assert_ne!(product(Precision::F32), product(Precision::Bf16));
    // Operands that bf16 holds are multiplied as they are.
    let whole = |x: &Tensor<f32, Ix2>| x.map(|x| (x * 16.0).round() / 16.0).unwrap();
    let (a, b) = (whole(&a), whole(&b));
    let there = device.clone().precision(Precision::Bf16).unwrap();
    close("whole", &on(&there, &a).matmul(&on(&there, &b)).unwrap(), &a.matmul(&b).unwrap());
    // Doubles stay doubles.
    let (c, d) = (matrix::<f64>(40, 50, 1), matrix::<f64>(50, 60, 2));
    close("doubles", &on(&there, &c).matmul(&on(&there, &d)).unwrap(), &c.matmul(&d).unwrap());
}

#[test]
fn a_weight_that_keeps_its_rounded_copy_gives_the_same_products() {
    let Some(device) = gpu("a_weight_that_keeps_its_rounded_copy") else { return };
    let device = device.precision(Precision::Bf16).unwrap();
    let (x, w) = (on(&device, &matrix::<f32>(64, 96, 1)), on(&device, &matrix::<f32>(96, 40, 2)));
    let first = x.matmul(&w).unwrap().to_vec().unwrap();
    for _ in 0..40 {
        let fresh = x.scale(1.0).unwrap();
        assert_eq!(fresh.matmul(&w).unwrap().to_vec().unwrap(), first);
    }
    let part = x.slice(s![.., 5..90]).unwrap().matmul(&w.slice(s![5..90, 3..]).unwrap()).unwrap();
    let copy = |t: &Tensor<f32, Ix2>| t.to_contiguous().unwrap();
    let fresh = copy(&x.slice(s![.., 5..90]).unwrap()).matmul(&copy(&w.slice(s![5..90, 3..]).unwrap())).unwrap();
    close("part", &part, &fresh.to_device(&Device::cpu()).unwrap());
}

#[test]
fn a_weight_that_is_written_loses_its_rounded_copy() {
    let Some(device) = gpu("a_weight_that_is_written_loses_its_rounded_copy") else { return };
    let device = device.precision(Precision::Bf16).unwrap();
    let x = on(&device, &matrix::<f32>(64, 96, 1));
    let mut model = vec![Parameter::new(on(&device, &matrix::<f32>(96, 40, 2)))];
    let mut optimizer = Optimizer::new(Sgd::new(1.0), &Groups::new(), &model).unwrap();
    let product = |w: &Tensor<f32>| {
        let w: Tensor<f32, Ix2> = w.clone().into_order().unwrap();
        x.matmul(&w).unwrap().to_vec().unwrap()
    };
    for _ in 0..20 {
        product(model[0].value());
    }
    let gradients = model[0].var().sum().unwrap().backward().unwrap();
    optimizer.step(&mut model, gradients, 1.0, None).unwrap();
    let fresh = on(&device, &model[0].value().to_device(&Device::cpu()).unwrap());
    assert_eq!(product(model[0].value()), product(&fresh));
}

#[test]
fn convolutions_and_attention_go_by_the_precision_and_gradients_too() {
    let Some(device) = gpu("convolutions_and_attention_go_by_the_precision") else { return };
    let (x, w) = (normal::<f32>(&[2, 8, 8, 40], 1), normal::<f32>(&[48, 40, 3, 3], 2));
    let heads = normal::<f32>(&[2, 3, 40, 64], 3);
    for precision in ALL {
        let device = device.clone().precision(precision).unwrap();
        let loose = |what: &str, got: &Tensor<f32>, wanted: &Tensor<f32>| {
            let error = got.to_device(&Device::cpu()).unwrap().sub(wanted).unwrap().norm().unwrap();
            let most = bound(precision) * wanted.norm().unwrap();
            assert!(error <= most, "{what} in {precision}: {error:e} of {most:e}");
        };
        compare(&device, &[x.clone(), w.clone()], |v| v[0].conv(&v[1], None, &Conv::new().padding(1)), loose);
        compare(&device, std::slice::from_ref(&heads), |v| v[0].attention(&v[0], &v[0], &Attention::new()), loose);
    }
}

#[test]
fn what_is_kept_in_bf16_gives_the_gradients() {
    let Some(device) = gpu("what_is_kept_in_bf16_gives_the_gradients") else { return };
    let bf16 = device.precision(Precision::Bf16).unwrap();
    // Relative to a whole gradient: what rounding each thing that is kept may change, and each operand of a few products in a row.
    let loose = |what: &str, got: &Tensor<f32>, wanted: &Tensor<f32>, factor: f64| {
        let error = got.to_device(&Device::cpu()).unwrap().sub(wanted).unwrap().norm().unwrap();
        let most = factor * bound(Precision::Bf16) * wanted.norm().unwrap();
        assert!(error <= most, "{what}: {error:e} of {most:e}");
    };
    type Case = (&'static str, Vec<Tensor<f32>>, fn(&[Var<f32>]) -> Result<Var<f32>>);
    // Large enough to be kept in bf16, behind an operation, since leaves are kept as they are.
    let (x, y) = (normal::<f32>(&[256, 256], 1), normal::<f32>(&[256, 256], 2));
    let (image, vector) = (normal::<f32>(&[4, 16, 16, 64], 3), normal::<f32>(&[64], 4));
    let away = |x: &Tensor<f32>| x.map(|x| x.abs() + 0.5).unwrap();
    fn own(x: &Var<f32>) -> Result<Var<f32>> {
        x.scale(1.5)
    }
    let cases: Vec<Case> = vec![
        ("gelu", vec![x.clone()], |v| own(&v[0])?.gelu()),
        ("sigmoid", vec![x.clone()], |v| own(&v[0])?.sigmoid()),
        ("exp", vec![x.clone()], |v| own(&v[0])?.exp()),
        ("log", vec![away(&x)], |v| own(&v[0])?.log()),
        ("square", vec![x.clone()], |v| own(&v[0])?.square()),
        ("sqrt", vec![away(&x)], |v| own(&v[0])?.sqrt()),
        ("recip", vec![away(&x)], |v| own(&v[0])?.recip()),
        ("abs", vec![x.clone()], |v| own(&v[0])?.abs()),
        ("mul", vec![x.clone(), y.clone()], |v| own(&v[0])?.mul(&own(&v[1])?)),
        ("div", vec![x.clone(), away(&y)], |v| own(&v[0])?.div(&own(&v[1])?)),
        ("matmul", vec![x.clone(), y.clone()], |v| own(&v[0])?.matmul(&own(&v[1])?.permute(&[1, 0])?)),
        ("mode_product", vec![x.clone(), y.clone()], |v| own(&v[0])?.mode_product(1, &own(&v[1])?)),
        ("linear", vec![x.clone(), y.clone()], |v| own(&v[0])?.linear(&own(&v[1])?, None)),
        ("thin", vec![x.clone(), normal(&[8, 256], 5)], |v| own(&v[0])?.linear(&v[1], None)),
        ("thinner", vec![x.clone(), normal(&[3, 256], 5)], |v| own(&v[0])?.linear(&v[1], None)),
        ("softmax", vec![x.clone()], |v| own(&v[0])?.softmax(1)),
        ("log_softmax", vec![x.clone()], |v| own(&v[0])?.log_softmax(1)),
        ("layer_norm", vec![image.clone(), vector.clone()], |v| own(&v[0])?.layer_norm(Some(&v[1]), None, 1e-6)),
        ("grn", vec![image.clone(), vector.clone(), vector.clone()], |v| own(&v[0])?.grn(&v[1], &v[2], 1e-6)),
        ("affine", vec![image.clone(), vector.clone()], |v| own(&v[0])?.affine(&v[1], None)),
        ("conv", vec![image.clone(), normal(&[32, 64, 3, 3], 6)], |v| own(&v[0])?.conv(&v[1], None, &Conv::new())),
        ("depthwise", vec![image.clone(), normal(&[64, 1, 3, 3], 7)], |v| {
            own(&v[0])?.conv(&v[1], None, &Conv::new().padding(1).groups(64))
        }),
        ("attention", [8, 9, 10].map(|seed| normal(&[2, 2, 256, 64], seed)).to_vec(), |v| {
            own(&v[0])?.attention(&own(&v[1])?, &own(&v[2])?, &Attention::new())
        }),
        ("biased attention", vec![normal(&[2, 2, 256, 64], 8), normal(&[2, 1, 256, 256], 9)], |v| {
            let (x, bias) = (v[0].scale(0.5)?, own(&v[1])?);
            x.attention(&x, &x, &Attention::new().bias(&bias))
        }),
    ];
    for (name, operands, f) in cases {
        compare(&bf16, &operands, f, |which, got, wanted| loose(&format!("{name}: {which}"), got, wanted, 1.0));
    }
    // A block of a network, whose gradients pass through all of it.
    let operands = [
        image,
        normal(&[64, 1, 7, 7], 10).scale(0.1).unwrap(),
        vector.clone(),
        normal(&[256, 64], 11).scale(0.1).unwrap(),
        normal(&[256], 12),
        normal(&[64, 256], 13).scale(0.1).unwrap(),
    ];
    let block = |v: &[Var<f32>]| {
        let h = v[0].conv(&v[1], None, &Conv::new().padding(3).groups(64))?.layer_norm(Some(&v[2]), None, 1e-6)?;
        let h = h.linear(&v[3], None)?.gelu()?.grn(&v[4], &v[4], 1e-6)?.linear(&v[5], None)?;
        v[0].add(&h)
    };
    let network = |v: &[Var<f32>]| {
        let once = block(v)?;
        block(&[&[once], &v[1..]].concat())
    };
    compare(&bf16, &operands, network, |which, got, wanted| loose(&format!("network: {which}"), got, wanted, 3.0));
}

#[test]
fn what_is_kept_in_bf16_is_what_was_there() {
    let Some(device) = gpu("what_is_kept_in_bf16_is_what_was_there") else { return };
    let device = device.precision(Precision::Bf16).unwrap();
    // Numbers that bf16 holds come back exactly, from every position, and of a view that begins anywhere.
    for columns in [256, 257, 301] {
        let x = normal::<f32>(&[300, columns], 1).map(|x| (x * 16.0).round() / 16.0).unwrap();
        let leaf = Var::parameter(on(&device, &x));
        let [own, other] = [(); 2].map(|()| leaf.scale(1.0).unwrap());
        let (loss, cut) = (own.square().unwrap(), other.narrow(1, 3..250).unwrap().square().unwrap());
        // What is kept does not change with the tensor that it was kept of.
        let mut value = own.into_value();
        value.add_assign(&on(&device, &x)).unwrap();
        close("written", &value, &x.scale(2.0).unwrap());
        let gradients = loss.sum().unwrap().backward().unwrap();
        assert_eq!(gradients.of(&leaf).unwrap().to_vec().unwrap(), x.scale(2.0).unwrap().to_vec().unwrap());
        let gradients = cut.sum().unwrap().backward().unwrap();
        let got = gradients.of(&leaf).unwrap().narrow(1, 3..250).unwrap();
        assert_eq!(got.to_vec().unwrap(), x.narrow(1, 3..250).unwrap().scale(2.0).unwrap().to_vec().unwrap());
    }
}

#[test]
fn a_checkpoint_in_bf16_gives_the_same_gradients_bit_for_bit() {
    let Some(device) = gpu("a_checkpoint_in_bf16") else { return };
    let device = device.precision(Precision::Bf16).unwrap();
    let (x, w) = (normal::<f32>(&[256, 256], 1), normal::<f32>(&[256, 256], 2).scale(0.1).unwrap());
    let leaves = [x, w].map(|x| Var::parameter(on(&device, &x)));
    let gradients = |checkpointed: bool| {
        let w = leaves[1].clone();
        let block = move |v: &[Var<f32>]| v[0].gelu()?.linear(&w, None)?.gelu()?.linear(&w, None);
        let start = leaves[0].scale(1.5).unwrap();
        let y = if checkpointed { checkpoint(&[&start], block) } else { block(&[start]) }.unwrap();
        let found = y.square().unwrap().sum().unwrap().backward().unwrap();
        leaves.clone().map(|leaf| found.of(&leaf).unwrap().to_vec().unwrap())
    };
    assert_eq!(gradients(true), gradients(false));
}

#[test]
fn solvers_compute_in_full_precision_on_every_handle() {
    let Some(device) = gpu("solvers_compute_in_full_precision_on_every_handle") else { return };
    let x: Tensor<f32, Ix3> = normal::<f32>(&[20, 21, 22], 9).into_order().unwrap();
    let fits = ALL.map(|precision| {
        let x = on(&device.clone().precision(precision).unwrap(), &x);
        let hooi = Hooi::ranks([3, 4, 5]).exactly(2).fit(&x).unwrap();
        let cp = CpAls::rank(3).seed(7).exactly(2).fit(&x).unwrap();
        (hooi.core().to_vec().unwrap(), cp.relative_error)
    });
    assert_eq!(fits[0], fits[1]);
    assert_eq!(fits[0], fits[2]);
}
