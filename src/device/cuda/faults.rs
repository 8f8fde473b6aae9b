//! What is left after a kernel has failed: errors that say so, and nothing worse.
#![allow(unsafe_code)]

use super::{
    compile::Source,
    context::{blas, solver},
    launch::{self, int},
};
use crate::{
    Tensor,
    device::{Device, Kind},
    error::{Error, ErrorKind, Result},
};
use cudarc::{cublas::sys::cublasStatus_t, cusolver::sys::cusolverStatus_t};
use ndarray::{Ix1, Ix2};
use std::{
    env,
    io::Read,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Threads from `first` on fail.
pub(crate) const KERNEL: &str = "extern \"C\" __global__ void fail_from(i64 first) { if (FIRST >= first) __trap(); }\n";

/// Set in the process that is to be lost.
const CHILD: &str = "TENFOLD_TEST_FAILS_A_KERNEL";

/// A failed kernel takes the process's GPU away, so that a process of its own has to do it: this test, started again.
#[test]
fn after_a_kernel_has_failed_everything_is_an_error() {
    if env::var_os(CHILD).is_some() {
        return fail_and_go_on();
    }
    if let Err(error) = Device::cuda(0) {
        return println!("skipped: no GPU here ({error})");
    }
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut child = Command::new(env::current_exe().unwrap())
        .args([&format!("{module}::after_a_kernel_has_failed_everything_is_an_error"), "--exact", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > Duration::from_secs(300) {
            child.kill().unwrap();
            panic!("the process hangs");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    println!("{said}");
    assert!(status.success() && said.contains("1 passed"), "{status}\n{said}");
}

fn fail_and_go_on() {
    let device = Device::cuda(0).unwrap();
    let Kind::Cuda(gpu) = &device.0 else { panic!("a GPU") };
    let host = Tensor::<f32, Ix2>::from_fn([32, 32], |i| if i[0] == i[1] { 2.0 } else { 0.01 }).unwrap();
    let x = host.to_device(&device).unwrap();
    let lost = || x.scale(3.0).unwrap();
    // With what the operations below load already loaded, and blocks that wait for reuse.
    x.matmul(&x).unwrap().eigh().unwrap();
    let (kept, waiting) = (lost(), lost());
    drop(waiting);

    let check = |what: &str, result: Result<()>| {
        let error: Error = result.expect_err(what);
        println!("{what}: {error}");
        assert_eq!(error.kind(), ErrorKind::Device, "{what}: {error}");
        let message = error.message();
        assert!(message.contains("CUDA_ERROR_") && message.contains("start it again"), "{what}: {error}");
    };
    let fail = || {
        // SAFETY: the kernel takes an integer, and neither reads nor writes.
        unsafe { gpu.launch("fail", (Source::Faulty, "fail_from"), launch::entries(1000), &[int(200)]) }
    };
    check("the launch or the wait", fail().and_then(|()| gpu.synchronize("wait")));
    let all = || {
        check("a wait", gpu.synchronize("wait"));
        check("a launch", fail());
        check("upload", host.to_device(&device).map(drop));
        check("upload of more", Tensor::<f64, Ix1>::ones([1 << 21]).unwrap().to_device(&device).map(drop));
        check("allocation", gpu.allocate::<f64>(1 << 22).map(drop));
        check("zeros", gpu.allocate::<f32>(32 * 32).and_then(|mut block| block.clear()));
        check("download", kept.to_vec().map(drop));
        check("download, again", x.to_device(&Device::cpu()).map(drop));
        check("sum", x.sum().map(drop));
        check("search for NaN", x.check_finite("test"));
        check("a kernel", x.scale(2.0).map(drop));
        check("cast", x.cast::<f64>().map(drop));
        check("matrix product", x.matmul(&kept).map(drop));
        check("Gram matrix", x.gram(0).map(drop));
        check("eigh", x.eigh().map(drop));
        check("svd", x.svd().map(drop));
        check("qr", x.qr().map(drop));
        // Where a library is the first to meet the failure.
        check("cuBLAS", blas("test", cublasStatus_t::CUBLAS_STATUS_EXECUTION_FAILED));
        check("cuSOLVER", solver("test", cusolverStatus_t::CUSOLVER_STATUS_EXECUTION_FAILED));
    };
    all();
    std::thread::scope(|scope| scope.spawn(all).join().unwrap());
    assert_eq!(device.release_cached(), 0);
    let again = Device::cuda(0).unwrap();
    check("the device opened again", host.to_device(&again).map(drop));
    // Tensors go without a call that could fail.
    drop((x, kept, device));
    assert!(host.sum().unwrap() > 64.0);
}
