//! PyTorch's values and gradients (`tests/fixtures/torch/dense.safetensors`) against ours, in doubles and in singles.

mod support;

use ndarray::{IxDyn, s};
use support::torch::{compare, several};
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

/// The same, with the index tensors of the case.
fn with_index<T: Scalar>(name: &str, v: &[Var<T>], file: &TensorFile) -> Result<Var<T>> {
    let index: Vec<Index> = several(file, name, "index").iter().map(|name| file.get(name).unwrap()).collect();
    run(name, v, &index)
}

#[test]
fn values_and_gradients_are_pytorchs() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/torch/dense.safetensors");
    let file = TensorFile::open(path).unwrap();
    assert_eq!(compare(&file, 1e-10, with_index::<f64>), 31);
    compare(&file, 1e-5, with_index::<f32>);
}
