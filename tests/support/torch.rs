//! PyTorch's values and gradients (`tests/fixtures/torch`), case by case.

use ndarray::IxDyn;
use tenfold::{Result, Scalar, Tensor, TensorFile, autodiff::Var};

/// Ours is PyTorch's, relative to its largest entry, or to 1 where that is smaller.
#[track_caller]
pub fn assert_close<T: Scalar>(what: &str, ours: &Tensor<T, IxDyn>, theirs: &Tensor<f64, IxDyn>, tolerance: f64) {
    assert_eq!(ours.shape(), theirs.shape(), "{what}");
    let (ours, theirs) = (ours.to_vec().unwrap(), theirs.to_vec().unwrap());
    let scale = theirs.iter().fold(1.0, |scale: f64, x| scale.max(x.abs()));
    for (i, (x, y)) in ours.iter().zip(&theirs).enumerate() {
        assert!((x.f64() - y).abs() <= tolerance * scale, "{what}, entry {i}: {x} against PyTorch's {y}");
    }
}

/// The names `CASE.PART.0`, `CASE.PART.1` and so on, as many as the file has.
pub fn several(file: &TensorFile, case: &str, part: &str) -> Vec<String> {
    (0..).map(|i| format!("{case}.{part}.{i}")).take_while(|name| file.contains(name)).collect()
}

/// Computes every case of a file (`CASE.in.I`, `CASE.out`, `CASE.dy`, `CASE.grad.I`) with the operation that `run` has for its name,
/// compares the result and all gradients, and returns the number of cases.
pub fn compare<T: Scalar>(
    file: &TensorFile,
    tolerance: f64,
    run: impl Fn(&str, &[Var<T>], &TensorFile) -> Result<Var<T>>,
) -> usize {
    let cases: Vec<&str> = file.names().filter_map(|name| name.strip_suffix(".out")).collect();
    for &case in &cases {
        let read = |name: &str| file.get::<f64, IxDyn>(name).unwrap();
        let leaves: Vec<Var<T>> =
            several(file, case, "in").iter().map(|name| Var::parameter(read(name).cast().unwrap())).collect();
        let y = run(case, &leaves, file).unwrap();
        // The file knows no order 0: single numbers have shape [1] there.
        let shaped = |x: Tensor<f64, IxDyn>| if y.order() == 0 { x.reshape(vec![]).unwrap() } else { x };
        assert_close(case, y.value(), &shaped(read(&format!("{case}.out"))), tolerance);
        let dy = shaped(read(&format!("{case}.dy")));
        let gradients = y.backward_from(dy.cast().unwrap()).unwrap();
        let theirs = several(file, case, "grad");
        assert_eq!(leaves.len(), theirs.len(), "{case}");
        for (leaf, grad) in leaves.iter().zip(theirs) {
            assert_close(&grad, gradients.of(leaf).unwrap(), &read(&grad), tolerance);
        }
    }
    cases.len()
}
