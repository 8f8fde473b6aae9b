//! The CUDA device: what it says where there is none, whether its kernels compile, and that it computes what the host does.
//!
//! Where no GPU is, the cases that need one print why they were skipped, and how many have been so far (`--nocapture` shows it). Where no
//! libnvrtc is found, so does the compile check; PyPI's `nvidia-cuda-nvrtc` on the loader's path is enough for that one.

use ndarray::{Dimension, Ix1, Ix2, Ix3, IxDyn, s};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicUsize, Ordering};
use tenfold::{
    Device, Element, ErrorKind, Result, Scalar, Tensor,
    algebra::{contract, inner, khatri_rao, kronecker},
    autodiff::Var,
    decomp::{CpAls, CpStart, Hooi, Method, NonNegativeTucker, StHosvd, Tucker},
};

/// The first GPU, or nothing and a line that says why.
fn gpu(case: &str) -> Option<Device> {
    static SKIPPED: AtomicUsize = AtomicUsize::new(0);
    match Device::cuda(0) {
        Ok(device) => Some(device),
        Err(error) => {
            let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
            println!("skipped: {case}: no GPU here ({error}); {count} skipped so far");
            None
        }
    }
}

fn normal<T: Scalar>(shape: &[usize], seed: u64) -> Tensor<T> {
    Tensor::normal(IxDyn(shape), &mut ChaCha8Rng::seed_from_u64(seed)).unwrap()
}

fn matrix<T: Scalar>(rows: usize, cols: usize, seed: u64) -> Tensor<T, Ix2> {
    normal::<T>(&[rows, cols], seed).into_order().unwrap()
}

fn on<T: Element, D: Dimension>(device: &Device, x: &Tensor<T, D>) -> Tensor<T, D> {
    x.to_device(device).unwrap()
}

/// Relative to the largest entry: what sums of a few thousand entries are computed to.
fn tolerance<T: Scalar>() -> f64 {
    T::epsilon().f64() * 200.0
}

fn close<T: Scalar, D: Dimension>(what: &str, got: &Tensor<T, D>, wanted: &Tensor<T, D>) {
    let largest = wanted.to_vec().unwrap().iter().fold(1e-30, |m: f64, x| m.max(x.f64().abs()));
    within(what, got, wanted, largest);
}

/// As close as sums of numbers of this size are: for results that cancel.
fn within<T: Scalar, D: Dimension>(what: &str, got: &Tensor<T, D>, wanted: &Tensor<T, D>, size: f64) {
    assert!(!got.device().is_cpu(), "{what} ran on {}", got.device());
    assert_eq!(got.shape(), wanted.shape(), "{what}");
    let (got, wanted) = (got.to_vec().unwrap(), wanted.to_vec().unwrap());
    for (i, (a, b)) in got.iter().zip(&wanted).enumerate() {
        let same = (a.f64() - b.f64()).abs() <= tolerance::<T>() * size || (a.is_nan() && b.is_nan());
        assert!(same || a == b, "{what}: entry {i} is {a}, not {b}");
    }
}

fn near<T: Scalar>(what: &str, got: f64, wanted: f64, size: f64) {
    let same = (got - wanted).abs() <= tolerance::<T>() * size.max(wanted.abs());
    assert!(same || got == wanted || (got.is_nan() && wanted.is_nan()), "{what}: {got}, not {wanted}");
}

/// The tensor on the GPU behind another entry, so that it does not begin at a multiple of 16 bytes.
fn shifted<T: Scalar>(device: &Device, x: &Tensor<T>) -> Tensor<T> {
    let entries = [vec![T::zero()], x.to_vec().unwrap()].concat();
    let all = Tensor::<T, Ix1>::from_vec([entries.len()], entries).unwrap();
    on(device, &all).narrow(0, 1..x.len() + 1).unwrap().reshape(IxDyn(x.shape())).unwrap()
}

/// How operands come to the GPU.
type Placed<T> = fn(&Device, &Tensor<T>) -> Tensor<T>;

/// Runs an operation on the host and on the GPU, there also with operands that begin anywhere, and gives its result and the gradient of
/// every operand of the two to `check`.
fn compare<T: Scalar>(
    device: &Device,
    operands: &[Tensor<T>],
    f: impl Fn(&[Var<T>]) -> Result<Var<T>>,
    check: impl Fn(&str, &Tensor<T>, &Tensor<T>),
) {
    let run = |operands: Vec<Tensor<T>>| {
        let leaves: Vec<Var<T>> = operands.into_iter().map(Var::parameter).collect();
        let y = f(&leaves).unwrap();
        let gradients = y.backward_from(on(y.device(), &normal(y.shape(), 99))).unwrap();
        let found: Vec<Tensor<T>> = leaves.iter().map(|leaf| gradients.of(leaf).unwrap().clone()).collect();
        (y.into_value(), found)
    };
    let (wanted, wanted_gradients) = run(operands.to_vec());
    let placed: [Placed<T>; 2] = [|device, x| on(device, x), shifted];
    for place in placed {
        let (got, gradients) = run(operands.iter().map(|x| place(device, x)).collect());
        check("the result", &got, &wanted);
        for (i, (got, wanted)) in gradients.iter().zip(&wanted_gradients).enumerate() {
            check(&format!("the gradient of operand {i}"), got, wanted);
        }
    }
}

/// The same, where both agree to the bits of the type.
fn agree<T: Scalar>(what: &str, device: &Device, operands: &[Tensor<T>], f: impl Fn(&[Var<T>]) -> Result<Var<T>>) {
    compare(device, operands, f, |which, got, wanted| close(&format!("{what}: {which}"), got, wanted));
}

/// Runs a generic case for singles and for doubles.
macro_rules! both {
    ($($name:ident)*) => { both! { in cases: $($name)* } };
    (in $file:ident: $($name:ident)*) => {$(
        #[test]
        fn $name() {
            let Some(device) = gpu(stringify!($name)) else { return };
            $file::$name::<f32>(&device);
            $file::$name::<f64>(&device);
        }
    )*};
}

both! { copies entrywise totals sums_over_modes products thin_products grams factorisations solvers repeats }
both! { in images: convolutions depthwise transposed_convolutions pools resampling }
both! { in attention: attention attention_with_terms }
both! { in networks: models_and_methods training_and_merging budgets a_step_leaves_no_memory_behind }
both! { in rows: activations softmaxes norms_of_rows norms_of_channels losses dropouts picks positions steps placed networks_repeat }

#[test]
fn a_missing_library_or_device_is_an_error_that_says_what_to_install() {
    match Device::cuda(0) {
        Ok(device) => assert_eq!(device.to_string(), "cuda:0"),
        Err(error) => {
            println!("{error}");
            assert_eq!(error.kind(), ErrorKind::Device);
            assert_eq!(error.operation(), "Device::cuda");
            let named =
                ["libcuda", "libnvrtc", "libcublas", "libcusolver"].iter().any(|name| error.message().contains(name));
            assert!(named && (error.message().contains("install") || error.message().contains("driver")), "{error}");
        }
    }
    for index in [9999, usize::MAX] {
        let error = Device::cuda(index).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Device);
    }
    assert!("cuda:9999".parse::<Device>().is_err());
}

#[test]
fn kernels_compile_for_both_architectures() {
    // SAFETY: asks whether a library of NVIDIA's is there, which loads it.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        return println!("skipped: no libnvrtc; kernels were not compiled");
    }
    let common = include_str!("../src/device/cuda/kernels/common.cuh");
    let rows = include_str!("../src/device/cuda/kernels/rows.cuh");
    let windows = include_str!("../src/device/cuda/kernels/windows.cuh");
    let philox = include_str!("../src/device/cuda/kernels/philox.cuh");
    for (name, shared, source) in [
        ("elementwise", "", include_str!("../src/device/cuda/kernels/elementwise.cu")),
        ("cast", "", include_str!("../src/device/cuda/kernels/cast.cu")),
        ("reduce", "", include_str!("../src/device/cuda/kernels/reduce.cu")),
        ("contract", "", include_str!("../src/device/cuda/kernels/contract.cu")),
        ("activation", rows, include_str!("../src/device/cuda/kernels/activation.cu")),
        ("softmax", rows, include_str!("../src/device/cuda/kernels/softmax.cu")),
        ("normalise", rows, include_str!("../src/device/cuda/kernels/normalise.cu")),
        ("channels", rows, include_str!("../src/device/cuda/kernels/channels.cu")),
        ("losses", rows, include_str!("../src/device/cuda/kernels/losses.cu")),
        ("optimizer", rows, include_str!("../src/device/cuda/kernels/optimizer.cu")),
        ("gather", rows, include_str!("../src/device/cuda/kernels/gather.cu")),
        ("positions", rows, include_str!("../src/device/cuda/kernels/positions.cu")),
        ("place", rows, include_str!("../src/device/cuda/kernels/place.cu")),
        ("dropout", &[rows, philox].concat(), include_str!("../src/device/cuda/kernels/dropout.cu")),
        ("linalg", rows, include_str!("../src/device/cuda/kernels/linalg.cu")),
        ("conv", windows, include_str!("../src/device/cuda/kernels/conv.cu")),
        ("depthwise", windows, include_str!("../src/device/cuda/kernels/depthwise.cu")),
        ("attention", &[rows, philox].concat(), include_str!("../src/device/cuda/kernels/attention.cu")),
    ] {
        for arch in ["compute_80", "compute_90"] {
            let options = cudarc::nvrtc::CompileOptions { arch: Some(arch), ..Default::default() };
            let compiled = cudarc::nvrtc::compile_ptx_with_opts([common, shared, source].concat(), options);
            let ptx = compiled.unwrap_or_else(|error| panic!("{name} for {arch}: {error}"));
            println!("{name} for {arch}: {} kernels", ptx.to_src().matches(".entry").count());
        }
    }
}

/// Every element type goes to the GPU and back, through all conversions, and as views.
#[test]
fn transfers_and_casts() {
    let Some(device) = gpu("transfers_and_casts") else { return };
    let values =
        [0.0, -0.0, 1.0, -1.5, 2.5, 65504.0, 65520.0, 1e-8, 6e-5, 3e-8, 255.4, 256.0, -3.0, 1e10, -1e300, 1e300];
    let more =
        [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.00390625, 1.01171875, 1.0 + 1e-9 + 1.0 / 256.0, 9.3e18, -9.3e18];
    let x = Tensor::<f64, Ix1>::from_vec([24], [values.as_slice(), &more].concat()).unwrap();
    fn same<T: Element>(got: &Tensor<T, Ix1>, wanted: &Tensor<T, Ix1>, what: &str) {
        for (a, b) in got.to_vec().unwrap().iter().zip(wanted.to_vec().unwrap()) {
            assert!(
                *a == b || (a.to_f64().is_some_and(f64::is_nan) && b.to_f64().is_some_and(f64::is_nan)),
                "{what}: {a} for {b}"
            );
        }
    }
    macro_rules! from {
        ($($from:ty)*) => {$(
            let here: Tensor<$from, Ix1> = x.cast().unwrap();
            let there = on(&device, &here);
            same(&there, &here, stringify!($from));
            from!(@to $from, here, there, f64 f32 half::f16 half::bf16 u8 u32 i64);
        )*};
        (@to $from:ty, $here:ident, $there:ident, $($to:ty)*) => {$(
            let wanted = $here.cast::<$to>().unwrap();
            same(&$there.cast::<$to>().unwrap(), &wanted, concat!(stringify!($from), " to ", stringify!($to)));
        )*};
    }
    from!(f64 f32 half::f16 half::bf16 u8 u32 i64);
    // Beside the middle of two singles, by less than a double tells.
    let beside = (1i64 << 53) + (1 << 29) + 1;
    let here = Tensor::<i64, Ix1>::from_vec([6], vec![beside, -beside, beside - 2, i64::MAX, i64::MIN, 3]).unwrap();
    let there = on(&device, &here);
    from!(@to i64, here, there, f64 f32 half::f16 half::bf16 u8 u32 i64);
    for len in [0, 1, 1000, 1 << 20, (3 << 20) + 5] {
        let x = Tensor::<f64, Ix1>::from_fn([len], |i| i[0] as f64).unwrap();
        assert_eq!(on(&device, &x).to_vec().unwrap(), x.to_vec().unwrap());
    }
}

#[test]
fn memory_runs_out_with_an_error_and_the_device_goes_on() {
    let Some(device) = gpu("memory_runs_out") else { return };
    let (rows, cols) = (Tensor::<f64, Ix2>::ones([1 << 20, 1]).unwrap(), Tensor::ones([1, 1 << 22]).unwrap());
    let error = on(&device, &rows).add(&on(&device, &cols)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Memory);
    for word in ["32.0 TiB", "hold", "wait for reuse", "free"] {
        assert!(error.message().contains(word), "{error}");
    }
    assert_eq!(on(&device, &rows).sum().unwrap(), (1 << 20) as f64);
    assert!(device.release_cached() > 0);
    assert_eq!(on(&device, &rows).sum().unwrap(), (1 << 20) as f64);
}

#[test]
fn threads_share_a_device_and_handles_may_go() {
    let Some(device) = gpu("threads") else { return };
    let x = matrix::<f64>(64, 48, 1);
    let wanted = x.matmul(&x.t()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let there = x.to_device(&Device::cuda(0).unwrap()).unwrap();
                    close("matmul", &there.matmul(&there.t()).unwrap(), &wanted);
                }
            });
        }
    });
    let there = on(&device, &x);
    drop(device);
    close("after the handle", &there.scale(2.0).unwrap(), &x.scale(2.0).unwrap());
    let error = there.add(&x).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device);
    assert!(error.message().contains("cuda:0") && error.message().contains("cpu"), "{error}");
}

#[test]
fn two_devices() {
    let Some(first) = gpu("two devices") else { return };
    let second = match Device::cuda(1) {
        Ok(second) => second,
        Err(error) => return println!("skipped: two devices: there is one ({error})"),
    };
    let x = matrix::<f64>(64, 48, 1);
    let (here, there) = (on(&first, &x), on(&second, &x));
    let error = here.add(&there).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device);
    assert!(error.message().contains("cuda:0") && error.message().contains("cuda:1"), "{error}");
    // From one to the other, while both compute.
    std::thread::scope(|scope| {
        for (from, to) in [(&here, &second), (&there, &first)] {
            scope.spawn(|| {
                for _ in 0..20 {
                    let moved = on(to, from);
                    assert_eq!(moved.device().to_string(), to.to_string());
                    close("matmul", &moved.matmul(&moved.t()).unwrap(), &x.matmul(&x.t()).unwrap());
                }
            });
        }
    });
    drop((first, here));
    close("after the first device", &there.scale(2.0).unwrap(), &x.scale(2.0).unwrap());
}

#[path = "cuda/attention.rs"]
mod attention;
#[path = "cuda/cases.rs"]
mod cases;
#[path = "cuda/images.rs"]
mod images;
#[path = "cuda/networks.rs"]
mod networks;
#[path = "cuda/precision.rs"]
mod precision;
#[path = "cuda/rows.rs"]
mod rows;
