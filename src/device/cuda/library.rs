//! Whether the libraries of CUDA are here: asked before the first call, because cudarc panics where one is missing.
#![allow(unsafe_code)]

use crate::error::{Error, ErrorKind, Result};
use cudarc::{cublas, cusolver, driver, nvrtc};
use std::ffi::c_void;

/// One of the libraries that the backend loads at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Library {
    Driver,
    Nvrtc,
    Cublas,
    Cusolver,
}

impl Library {
    pub(crate) const ALL: [Library; 4] = [Library::Driver, Library::Nvrtc, Library::Cublas, Library::Cusolver];

    fn name(self) -> &'static str {
        match self {
            Library::Driver => "libcuda",
            Library::Nvrtc => "libnvrtc",
            Library::Cublas => "libcublas",
            Library::Cusolver => "libcusolver",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Library::Driver => "install the NVIDIA driver (version 525 or later)",
            Library::Nvrtc => {
                "install the CUDA toolkit 12 or 13, or PyPI's nvidia-cuda-nvrtc, and put its folder on LD_LIBRARY_PATH"
            }
            Library::Cublas => {
                "install the CUDA toolkit 12 or 13, or PyPI's nvidia-cublas, and put its folder on LD_LIBRARY_PATH"
            }
            Library::Cusolver => {
                "install the CUDA toolkit 12 or 13, or PyPI's nvidia-cusolver, and put its folder on LD_LIBRARY_PATH"
            }
        }
    }

    /// The functions that the backend calls; all of them are in CUDA 12 and in CUDA 13.
    fn symbols(self) -> &'static [&'static str] {
        match self {
            Library::Driver => &[
                "cuInit",
                "cuDeviceGetCount",
                "cuDeviceGet",
                "cuDeviceGetAttribute",
                "cuDevicePrimaryCtxRetain",
                "cuCtxSetCurrent",
                "cuStreamCreate",
                "cuStreamSynchronize",
                "cuMemAlloc_v2",
                "cuMemFree_v2",
                "cuMemGetInfo_v2",
                "cuMemAllocHost_v2",
                "cuMemcpyHtoDAsync_v2",
                "cuMemcpyDtoHAsync_v2",
                "cuMemcpyDtoDAsync_v2",
                "cuMemsetD8Async",
                "cuModuleLoadData",
                "cuModuleGetFunction",
                "cuLaunchKernel",
                "cuEventCreate",
                "cuEventRecord",
                "cuEventSynchronize",
                "cuGetErrorName",
                "cuGetErrorString",
            ],
            Library::Nvrtc => &[
                "nvrtcVersion",
                "nvrtcCreateProgram",
                "nvrtcCompileProgram",
                "nvrtcDestroyProgram",
                "nvrtcGetPTXSize",
                "nvrtcGetPTX",
                "nvrtcGetCUBINSize",
                "nvrtcGetCUBIN",
                "nvrtcGetProgramLogSize",
                "nvrtcGetProgramLog",
                "nvrtcGetNumSupportedArchs",
                "nvrtcGetSupportedArchs",
            ],
            Library::Cublas => {
                &["cublasCreate_v2", "cublasSetStream_v2", "cublasGemmStridedBatchedEx_64", "cublasGemmBatchedEx_64"]
            }
            Library::Cusolver => &[
                "cusolverDnCreate",
                "cusolverDnSetStream",
                "cusolverDnSsyevd_bufferSize",
                "cusolverDnDsyevd_bufferSize",
                "cusolverDnSsyevd",
                "cusolverDnDsyevd",
                "cusolverDnSgesvd_bufferSize",
                "cusolverDnDgesvd_bufferSize",
                "cusolverDnSgesvd",
                "cusolverDnDgesvd",
                "cusolverDnSgeqrf_bufferSize",
                "cusolverDnDgeqrf_bufferSize",
                "cusolverDnSgeqrf",
                "cusolverDnDgeqrf",
                "cusolverDnSorgqr_bufferSize",
                "cusolverDnDorgqr_bufferSize",
                "cusolverDnSorgqr",
                "cusolverDnDorgqr",
                "cusolverDnSpotrf_bufferSize",
                "cusolverDnDpotrf_bufferSize",
                "cusolverDnSpotrf",
                "cusolverDnDpotrf",
                "cusolverDnSpotrs",
                "cusolverDnDpotrs",
            ],
        }
    }

    /// An error that names the library, and what to install, unless it is here with every function that is called.
    pub(crate) fn check(self) -> Result<()> {
        // SAFETY: loading a library runs its initialisers; these are NVIDIA's own, asked for by name.
        let present = unsafe {
            match self {
                Library::Driver => driver::sys::is_culib_present(),
                Library::Nvrtc => nvrtc::sys::is_culib_present(),
                Library::Cublas => cublas::sys::is_culib_present(),
                Library::Cusolver => cusolver::sys::is_culib_present(),
            }
        };
        let (name, remedy) = (self.name(), self.remedy());
        if !present {
            return Err(device_error(format!("{name} cannot be loaded; {remedy}, or use cpu")));
        }
        match self.symbols().iter().find(|&&symbol| !self.has(symbol)) {
            None => Ok(()),
            Some(symbol) => Err(device_error(format!("{name} is too old: it has no {symbol}; {remedy}, or use cpu"))),
        }
    }

    /// Whether the library, which is present, exports a function.
    fn has(self, symbol: &str) -> bool {
        let symbol = symbol.as_bytes();
        // SAFETY: the library is present, so loading it again does not panic; the address is only compared, never called.
        unsafe {
            match self {
                Library::Driver => driver::sys::culib().get::<*mut c_void>(symbol).is_ok(),
                Library::Nvrtc => nvrtc::sys::culib().get::<*mut c_void>(symbol).is_ok(),
                Library::Cublas => cublas::sys::culib().get::<*mut c_void>(symbol).is_ok(),
                Library::Cusolver => cusolver::sys::culib().get::<*mut c_void>(symbol).is_ok(),
            }
        }
    }
}

/// An error about opening a device.
pub(crate) fn device_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Device, "Device::cuda", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_names_the_library_and_the_remedy_or_passes() {
        for library in Library::ALL {
            match library.check() {
                Ok(()) => println!("{} is here", library.name()),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Device);
                    assert!(error.message().starts_with(library.name()), "{error}");
                    assert!(error.message().contains("install"), "{error}");
                }
            }
        }
    }
}
