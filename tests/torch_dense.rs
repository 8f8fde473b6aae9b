//! PyTorch's values and gradients (`tests/fixtures/torch/dense.safetensors`) against ours, in doubles and in singles.

use ndarray::{IxDyn, s};
use tenfold::{
    Result, Scalar, Tensor, TensorFile,
    autodiff::{CrossEntropy, Var},
};

type Index = Tensor<i64, IxDyn>;

/// The operation that the generator names so.
fn run<T: Scalar>(name: &str, v: &[Var<T>], index: &[Index]) -> Result<Var<T>> {
    let cross_entropy = |smoothing| CrossEntropy { smoothing, ignore: Some(-100) };
    match name {
        "linear" => v[0].linear(&v[1], Some(&v[2])),
        "linear_no_bias" => v[0].linear(&v[1], None),
        "linear_strided" => v[0].permute(&[1, 0])?.linear(&v[1].permute(&[1, 0])?, Some(&v[2])),
        "matmul" | "matmul_broadcast" | "matmul_shared" => v[0].matmul(&v[1]),
        "matmul_transposed" => v[0].permute(&[0, 2, 1])?.matmul(&v[1].permute(&[0, 2, 1])?),
        "add" => v[0].add(&v[1]),
        "sub" => v[0].sub(&v[1]),
        "mul" => v[0].mul(&v[1]),
        "div" => v[0].div(&v[1]),
        "square" => v[0].square(),
        "sqrt" => v[0].sqrt(),
        "abs" => v[0].abs(),
        "sum_modes" => v[0].sum_modes(&[0, 2], false),
        "mean_modes" => v[0].mean_modes(&[1], true),
        "mean" => v[0].mean(),
        "max_mode" => Ok(v[0].max_mode(1, false)?.0),
        "slice" => v[0].slice(s![1.., ..;2, 3]),
        "pad" => v[0].pad(&[(0, 3), (1, 2)]),
        "concat" => Var::concat(&[&v[0], &v[1], &v[0]], 1),
        "embedding" => v[0].embedding(&index[0], Some(2)),
        "gather" => v[0].gather(1, &index[0]),
        "cross_entropy" => v[0].cross_entropy(&index[0], cross_entropy(0.0)),
        "cross_entropy_smooth" => v[0].cross_entropy(&index[0], cross_entropy(0.1)),
        "mse_loss" => v[0].mse_loss(&v[1]),
        "bce_with_logits" => v[0].bce_with_logits(&v[1]),
        "mode_product" => v[0].mode_product(1, &v[1]),
        "tucker" | "tucker4" => v[0].tucker(&v[1..].iter().collect::<Vec<_>>()),
        "cp" => Var::cp(Some(&v[0]), &v[1..].iter().collect::<Vec<_>>()),
        _ => panic!("the fixture has a case \"{name}\" that this test does not know"),
    }
}

fn assert_close<T: Scalar>(what: &str, ours: &Tensor<T, IxDyn>, theirs: &Tensor<f64, IxDyn>, tolerance: f64) {
    assert_eq!(ours.shape(), theirs.shape(), "{what}");
    let (ours, theirs) = (ours.to_vec().unwrap(), theirs.to_vec().unwrap());
    let scale = theirs.iter().fold(1.0, |scale: f64, x| scale.max(x.abs()));
    for (i, (x, y)) in ours.iter().zip(&theirs).enumerate() {
        assert!((x.f64() - y).abs() <= tolerance * scale, "{what}, entry {i}: {x} against PyTorch's {y}");
    }
}

fn compare<T: Scalar>(file: &TensorFile, tolerance: f64) -> usize {
    let cases: Vec<&str> = file.names().filter_map(|name| name.strip_suffix(".out")).collect();
    for &name in &cases {
        let several = |part: &str| {
            let names = (0..).map(|i| format!("{name}.{part}.{i}"));
            names.take_while(|name| file.contains(name)).collect::<Vec<_>>()
        };
        let read = |name: &str| file.get::<f64, IxDyn>(name).unwrap();
        let leaves: Vec<Var<T>> =
            several("in").iter().map(|name| Var::parameter(read(name).cast::<T>().unwrap())).collect();
        let index: Vec<Index> = several("index").iter().map(|name| file.get(name).unwrap()).collect();
        let y = run(name, &leaves, &index).unwrap();
        // The file knows no order 0: single numbers have shape [1] there.
        let shaped = |x: Tensor<f64, IxDyn>| if y.order() == 0 { x.reshape(vec![]).unwrap() } else { x };
        assert_close(name, y.value(), &shaped(read(&format!("{name}.out"))), tolerance);
        let dy = shaped(read(&format!("{name}.dy")));
        let gradients = y.backward_from(dy.cast().unwrap()).unwrap();
        for (leaf, grad) in leaves.iter().zip(several("grad")) {
            assert_close(&grad, gradients.of(leaf).unwrap(), &read(&grad), tolerance);
        }
    }
    cases.len()
}

#[test]
fn values_and_gradients_are_pytorchs() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/torch/dense.safetensors");
    let file = TensorFile::open(path).unwrap();
    assert_eq!(compare::<f64>(&file, 1e-10), 31);
    compare::<f32>(&file, 1e-5);
}
