//! Convolutions, pools and resizing beside the values of PyTorch (`tests/fixtures/generate_torch_convolution.py`).

mod support;

use ndarray::ArrayD;
use std::collections::BTreeMap;
use support::{assert_within, fixture};
use tenfold::{
    Result, Scalar, Tensor,
    autodiff::{Conv, ConvTranspose, Interpolation, Padding, PaddingMode, Pool, Var},
};

type Arrays = BTreeMap<String, ArrayD<f64>>;

/// Computes a case and compares the result and every gradient; `tolerance` is relative to numbers of magnitude 10.
#[track_caller]
fn compare<T: Scalar>(arrays: &Arrays, name: &str, tolerance: f64, f: &impl Fn(&[Var<T>]) -> Result<Var<T>>) {
    let tensor = |key: &str| {
        let array = arrays.get(&format!("{name}.{key}"))?;
        Some(Tensor::from(array.mapv(T::of)))
    };
    let operands: Vec<(&str, Var<T>)> =
        ["x", "w", "b"].into_iter().filter_map(|key| Some((key, Var::parameter(tensor(key)?)))).collect();
    let variables: Vec<Var<T>> = operands.iter().map(|(_, v)| v.clone()).collect();
    let y = f(&variables).unwrap();
    assert_within(y.value(), &arrays[&format!("{name}.y")], 10.0 * tolerance);
    let gradients = y.backward_from(tensor("dy").unwrap()).unwrap();
    for (key, variable) in &operands {
        assert_within(gradients.of(variable).unwrap(), &arrays[&format!("{name}.d{key}")], 10.0 * tolerance);
    }
}

/// Every case by its name.
macro_rules! cases {
    ($($name:ident: |$v:ident| $body:expr;)*) => {
        #[test]
        fn every_case_is_pytorchs() {
            let arrays = fixture::arrays("torch/convolution");
            let mut names: Vec<&str> = arrays.keys().filter_map(|key| key.strip_suffix(".y")).collect();
            $(
                println!(stringify!($name));
                compare::<f64>(&arrays, stringify!($name), 1e-11, &|$v: &[Var<f64>]| $body);
                compare::<f32>(&arrays, stringify!($name), 1e-6, &|$v: &[Var<f32>]| $body);
                names.retain(|&name| name != stringify!($name));
            )*
            assert!(names.is_empty(), "not compared: {names:?}");
        }
    };
}

fn conv<T: Scalar>(v: &[Var<T>], options: Conv) -> Result<Var<T>> {
    v[0].conv(&v[1], v.get(2), &options)
}

fn up<T: Scalar>(v: &[Var<T>], options: ConvTranspose) -> Result<Var<T>> {
    v[0].conv_transpose(&v[1], v.get(2), &options)
}

fn linear(align_corners: bool) -> Interpolation {
    Interpolation::Linear { align_corners }
}

cases! {
    plain: |v| conv(v, Conv::new());
    pointwise: |v| conv(v, Conv::new());
    patchify: |v| conv(v, Conv::new().stride(4));
    asymmetric: |v| conv(v, Conv::new().stride([2, 3]).padding([2, 1]).dilation([1, 2]));
    dilation3: |v| conv(v, Conv::new().padding(3).dilation(3));
    groups2: |v| conv(v, Conv::new().padding(1).groups(2));
    depthwise: |v| conv(v, Conv::new().padding(3).groups(6));
    multiplier2: |v| conv(v, Conv::new().padding(1).stride(2).groups(3));
    kernel_larger: |v| conv(v, Conv::new().padding(2));
    size1: |v| conv(v, Conv::new().padding([0, 1]));
    line: |v| conv(v, Conv::new().padding(3).stride(2));
    volume: |v| conv(v, Conv::new().stride([1, 2, 1]).padding([1, 1, 0]));
    same: |v| conv(v, Conv::new().padding(Padding::Same));
    reflect: |v| conv(v, Conv::new().padding([3, 1]).padding_mode(PaddingMode::Reflect));
    replicate: |v| conv(v, Conv::new().padding([1, 4]).padding_mode(PaddingMode::Replicate));
    circular: |v| conv(v, Conv::new().padding([2, 3]).stride(2).padding_mode(PaddingMode::Circular));
    up: |v| up(v, ConvTranspose::new().stride(2).padding(1).output_padding(1));
    up_plain: |v| up(v, ConvTranspose::new().stride(2));
    up_groups: |v| up(v, ConvTranspose::new().stride([3, 1]).padding([1, 0]).output_padding([2, 0]).groups(2));
    up_dilated: |v| up(v, ConvTranspose::new().stride(2).dilation(3).padding(1).output_padding(2));
    up_line: |v| up(v, ConvTranspose::new().stride(3).output_padding(1));
    up_volume: |v| up(v, ConvTranspose::new().stride(2).padding([0, 1, 0]).output_padding([1, 0, 1]));
    max: |v| v[0].max_pool(&Pool::new(3).stride(2).padding(1));
    max_line: |v| v[0].max_pool(&Pool::new(2));
    avg: |v| v[0].avg_pool(&Pool::new([3, 2]).stride([2, 1]).padding([1, 0]));
    avg_inside: |v| v[0].avg_pool(&Pool::new(3).stride(2).padding(1).count_include_pad(false));
    avg_volume: |v| v[0].avg_pool(&Pool::new(2).padding(1));
    global: |v| v[0].global_avg_pool();
    bilinear: |v| v[0].resize(&[7, 3], linear(false));
    bilinear_corners: |v| v[0].resize(&[7, 3], linear(true));
    linear: |v| v[0].resize(&[9], linear(false));
    trilinear: |v| v[0].resize(&[3, 5, 1], linear(true));
    nearest: |v| v[0].resize(&[8, 3], Interpolation::Nearest);
}
