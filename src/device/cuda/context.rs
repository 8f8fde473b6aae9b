//! An opened GPU: its context, its stream, its loaded kernels, and launches.
#![allow(unsafe_code)]

use super::{
    block::Staging,
    compile::{self, Source},
    launch::{self, Arg, Geometry},
    library::{Library, device_error},
    pool::{Pool, class_of, human},
    resample::Uploaded,
};
use crate::{
    device::{Memory, precision::Precision},
    error::{Error, ErrorKind, Result},
};
use cudarc::{
    cublas::sys::{self as cublas, cublasStatus_t},
    cusolver::sys::{self as cusolver, cusolverStatus_t},
    driver::sys::{self, CUdevice_attribute, CUresult},
};
use std::{
    collections::HashMap,
    ffi::{CStr, CString, c_int},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A handle on an opened GPU, whose clones share it, and how products asked for by this handle are computed.
#[derive(Clone)]
pub(crate) struct Cuda {
    gpu: Arc<Gpu>,
    precision: Precision,
}

struct Gpu {
    index: usize,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// 90 for compute capability 9.0.
    architecture: u32,
    pool: Mutex<Pool>,
    staging: Mutex<Staging>,
    tables: Mutex<Uploaded>,
    modules: Mutex<Modules>,
    blas: Mutex<cublas::cublasHandle_t>,
    /// Made when it is first needed: it takes memory.
    solver: Mutex<Option<cusolver::cusolverDnHandle_t>>,
}

#[derive(Default)]
struct Modules {
    loaded: HashMap<Source, sys::CUmodule>,
    functions: HashMap<String, sys::CUfunction>,
}

// SAFETY: contexts, streams, modules and functions of the driver may be used from any thread; the handles of cuBLAS and cuSOLVER
// are used by one thread at a time, behind their mutexes.
unsafe impl Send for Gpu {}
// SAFETY: as above.
unsafe impl Sync for Gpu {}

/// A lock that a panic elsewhere does not take away: what it guards is consistent between calls.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Errors of a kernel that every later call repeats, for as long as the process lives.
fn fatal(result: CUresult) -> bool {
    matches!(
        result,
        CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
            | CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
            | CUresult::CUDA_ERROR_ASSERT
            | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
            | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUresult::CUDA_ERROR_INVALID_PC
            | CUresult::CUDA_ERROR_LAUNCH_FAILED
    )
}

/// The error of a driver's call, in words. The library is present.
pub(crate) fn driver(operation: &'static str, result: CUresult) -> Result<()> {
    if result == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let mut text = std::ptr::null();
    // SAFETY: the call writes the address of a string that lives as long as the library.
    let named = unsafe { sys::cuGetErrorString(result, &mut text) } == CUresult::CUDA_SUCCESS && !text.is_null();
    // SAFETY: a NUL-terminated string, as above.
    let text = if named { unsafe { CStr::from_ptr(text) }.to_string_lossy() } else { "unknown".into() };
    let kind = match result {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => ErrorKind::Memory,
        _ => ErrorKind::Device,
    };
    let advice = match result {
        CUresult::CUDA_ERROR_STUB_LIBRARY => {
            "; the libcuda that the loader found is the toolkit's stub, to link against: take its folder off LD_LIBRARY_PATH, or \
             install NVIDIA's driver"
        }
        result if fatal(result) => {
            "; a kernel failed, in this call or an earlier one, and the process cannot use the GPU any more: start it again"
        }
        _ => "",
    };
    Err(Error::new(kind, operation, format!("the CUDA driver reports {result:?} ({text}){advice}")))
}

pub(crate) fn blas(operation: &'static str, status: cublasStatus_t) -> Result<()> {
    match status {
        cublasStatus_t::CUBLAS_STATUS_SUCCESS => Ok(()),
        cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED => {
            Err(Error::new(ErrorKind::Memory, operation, "cuBLAS found no memory for its workspace"))
        }
        _ => Err(of_a_library(operation, format!("cuBLAS reports {status:?}"))),
    }
}

pub(crate) fn solver(operation: &'static str, status: cusolverStatus_t) -> Result<()> {
    match status {
        cusolverStatus_t::CUSOLVER_STATUS_SUCCESS => Ok(()),
        cusolverStatus_t::CUSOLVER_STATUS_ALLOC_FAILED => {
            Err(Error::new(ErrorKind::Memory, operation, "cuSOLVER found no memory for its workspace"))
        }
        _ => Err(of_a_library(operation, format!("cuSOLVER reports {status:?}"))),
    }
}

/// The error of a library's call: the driver's where a kernel has failed, of which libraries say less.
fn of_a_library(operation: &'static str, message: String) -> Error {
    let (mut free, mut all) = (0, 0);
    // SAFETY: the call writes two sizes; it is one of those that repeat the error of an earlier kernel.
    let result = unsafe { sys::cuMemGetInfo_v2(&mut free, &mut all) };
    match driver(operation, result) {
        Err(error) if fatal(result) => error,
        _ => Error::new(ErrorKind::Device, operation, message),
    }
}

impl Cuda {
    /// Opens a GPU, or finds it opened.
    pub(crate) fn open(index: usize) -> Result<Self> {
        static OPENED: Mutex<Vec<Cuda>> = Mutex::new(Vec::new());
        let mut opened = lock(&OPENED);
        if let Some(gpu) = opened.iter().find(|gpu| gpu.index() == index) {
            return Ok(gpu.clone());
        }
        Library::ALL.into_iter().try_for_each(Library::check)?;
        let gpu = Self { gpu: Arc::new(Gpu::open(index)?), precision: Precision::F32 };
        opened.push(gpu.clone());
        Ok(gpu)
    }

    pub(crate) fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    pub(crate) fn index(&self) -> usize {
        self.gpu.index
    }

    pub(crate) fn stream(&self) -> sys::CUstream {
        self.gpu.stream
    }

    pub(crate) fn staging(&self) -> MutexGuard<'_, Staging> {
        lock(&self.gpu.staging)
    }

    /// Tables for resampling that are on the device.
    pub(crate) fn tables(&self) -> MutexGuard<'_, Uploaded> {
        lock(&self.gpu.tables)
    }

    /// Makes this GPU the one that the calling thread's next calls are about.
    pub(crate) fn enter(&self, operation: &'static str) -> Result<()> {
        // SAFETY: the context was retained at opening and is never released.
        driver(operation, unsafe { sys::cuCtxSetCurrent(self.gpu.context) })
    }

    /// Waits for everything that was queued.
    pub(crate) fn synchronize(&self, operation: &'static str) -> Result<()> {
        #[cfg(test)]
        super::waits::count();
        self.enter(operation)?;
        // SAFETY: the stream lives as long as the process.
        driver(operation, unsafe { sys::cuStreamSynchronize(self.gpu.stream) })
    }

    /// The address of a block of at least `bytes`, and its size class.
    pub(crate) fn take(&self, bytes: usize) -> Result<(u64, usize)> {
        const NAME: &str = "allocate";
        let too_much =
            || Error::new(ErrorKind::Memory, NAME, format!("{bytes} bytes are more than an address space holds"));
        let class = class_of(bytes).ok_or_else(too_much)?;
        if let Some(block) = lock(&self.gpu.pool).take(class) {
            return Ok((block, class));
        }
        self.enter(NAME)?;
        let mut address = 0;
        // SAFETY: the call writes one address.
        let mut result = unsafe { sys::cuMemAlloc_v2(&mut address, class) };
        if result == CUresult::CUDA_ERROR_OUT_OF_MEMORY && self.release_cached() > 0 {
            // SAFETY: as above.
            result = unsafe { sys::cuMemAlloc_v2(&mut address, class) };
        }
        if result == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return Err(self.out_of_memory(NAME, bytes));
        }
        driver(NAME, result)?;
        lock(&self.gpu.pool).made(class);
        Ok((address, class))
    }

    /// Takes back a block from [`Cuda::take`].
    pub(crate) fn give(&self, address: u64, class: usize) {
        lock(&self.gpu.pool).give(class, address);
    }

    /// What tensors hold of the memory.
    pub(crate) fn memory(&self) -> Memory {
        let pool = lock(&self.gpu.pool);
        Memory { held: pool.live, waiting: pool.cached, most: pool.most }
    }

    fn out_of_memory(&self, operation: &'static str, bytes: usize) -> Error {
        let (mut free, mut all) = (0, 0);
        // SAFETY: the call writes two sizes; where it fails they stay 0.
        let _ = unsafe { sys::cuMemGetInfo_v2(&mut free, &mut all) };
        let pool = lock(&self.gpu.pool);
        Error::new(
            ErrorKind::Memory,
            operation,
            format!(
                "cuda:{} has no room for {}: tensors hold {}, {} wait for reuse, and {} of the device's {} are free",
                self.index(),
                human(bytes),
                human(pool.live),
                human(pool.cached),
                human(free),
                human(all)
            ),
        )
    }

    /// Frees the blocks that wait for reuse; says how many bytes that were.
    pub(crate) fn release_cached(&self) -> usize {
        // Queued work may still use these blocks.
        if self.synchronize("release_cached").is_err() {
            return 0;
        }
        let (blocks, bytes) = lock(&self.gpu.pool).drain();
        for block in blocks {
            // SAFETY: made by `cuMemAlloc` for this pool, owned by nobody, and nothing queued uses it.
            let _ = unsafe { sys::cuMemFree_v2(block) };
        }
        bytes
    }

    /// The kernel of this name, its file compiled and loaded if it was not.
    fn function(&self, operation: &'static str, source: Source, name: &str) -> Result<sys::CUfunction> {
        let mut modules = lock(&self.gpu.modules);
        if let Some(&function) = modules.functions.get(name) {
            return Ok(function);
        }
        let module = match modules.loaded.get(&source) {
            Some(&module) => module,
            None => {
                let module = compile::image(source, self.gpu.architecture, |image| {
                    let mut module = std::ptr::null_mut();
                    // SAFETY: an image as NVRTC made it (machine code, or PTX with its NUL); the call writes one handle.
                    driver("load kernels", unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) })?;
                    Ok(module)
                })?;
                modules.loaded.insert(source, module);
                module
            }
        };
        let symbol = CString::new(name).map_err(|_| device_error("a kernel's name contains a NUL"))?;
        let mut function = std::ptr::null_mut();
        // SAFETY: the module is loaded and never unloaded; the call writes one handle.
        driver(operation, unsafe { sys::cuModuleGetFunction(&mut function, module, symbol.as_ptr()) })?;
        modules.functions.insert(name.to_string(), function);
        Ok(function)
    }

    /// Queues a kernel.
    ///
    /// # Safety
    /// The arguments are what the kernel takes, and with them it stays inside blocks of this GPU that live until it is queued, and
    /// writes to none that the caller does not own alone.
    pub(crate) unsafe fn launch(
        &self,
        operation: &'static str,
        (source, name): (Source, &str),
        geometry: Geometry,
        args: &[Arg],
    ) -> Result<()> {
        debug_assert!(launch::fits(source, name, args), "{name} does not take {args:?}");
        self.enter(operation)?;
        let function = self.function(operation, source, name)?;
        let mut addresses: Vec<_> = args.iter().map(Arg::address).collect();
        let (x, y) = geometry.threads;
        // SAFETY: the driver copies the arguments before it returns; the rest is the caller's word.
        driver(operation, unsafe {
            let params = addresses.as_mut_ptr();
            sys::cuLaunchKernel(
                function,
                geometry.blocks,
                1,
                1,
                x,
                y,
                1,
                0,
                self.gpu.stream,
                params,
                std::ptr::null_mut(),
            )
        })
    }

    /// cuBLAS, for this thread alone while the guard lives.
    pub(crate) fn blas(&self, operation: &'static str) -> Result<MutexGuard<'_, cublas::cublasHandle_t>> {
        self.enter(operation)?;
        Ok(lock(&self.gpu.blas))
    }

    /// Runs `work` with cuSOLVER, which no other thread uses meanwhile.
    pub(crate) fn solver<R>(
        &self,
        operation: &'static str,
        work: impl FnOnce(cusolver::cusolverDnHandle_t) -> Result<R>,
    ) -> Result<R> {
        self.enter(operation)?;
        let mut handle = lock(&self.gpu.solver);
        let handle = match *handle {
            Some(handle) => handle,
            None => {
                let mut made = std::ptr::null_mut();
                // SAFETY: the call writes one handle; the context is current.
                solver(operation, unsafe { cusolver::cusolverDnCreate(&mut made) })?;
                // SAFETY: a new handle, and this GPU's stream.
                solver(operation, unsafe { cusolver::cusolverDnSetStream(made, self.gpu.stream.cast()) })?;
                *handle.insert(made)
            }
        };
        work(handle)
    }
}

impl Gpu {
    /// All libraries are present.
    fn open(index: usize) -> Result<Self> {
        const NAME: &str = "Device::cuda";
        // SAFETY: the driver's calls below get valid places to write to, in the order that the driver asks for: initialise, device,
        // context, stream.
        unsafe {
            let ready = sys::cuInit(0);
            if matches!(ready, CUresult::CUDA_ERROR_NO_DEVICE | CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH) {
                let message = format!("libcuda finds no usable GPU ({ready:?}); check the NVIDIA driver, or use cpu");
                return Err(device_error(message));
            }
            driver(NAME, ready)?;
            let mut count: c_int = 0;
            driver(NAME, sys::cuDeviceGetCount(&mut count))?;
            if index >= count.max(0) as usize {
                let there = match count {
                    ..=0 => "libcuda finds no GPU; check the NVIDIA driver and CUDA_VISIBLE_DEVICES".to_string(),
                    1 => "the only one is cuda:0".to_string(),
                    n => format!("there are cuda:0 to cuda:{}", n - 1),
                };
                return Err(device_error(format!("cuda:{index} does not exist; {there}, or use cpu")));
            }
            let mut device = 0;
            driver(NAME, sys::cuDeviceGet(&mut device, index as c_int))?;
            let attribute = |which| {
                let mut value: c_int = 0;
                driver(NAME, sys::cuDeviceGetAttribute(&mut value, which, device)).map(|()| value as u32)
            };
            let major = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
            let minor = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
            let mut context = std::ptr::null_mut();
            driver(NAME, sys::cuDevicePrimaryCtxRetain(&mut context, device))?;
            driver(NAME, sys::cuCtxSetCurrent(context))?;
            let mut stream = std::ptr::null_mut();
            driver(NAME, sys::cuStreamCreate(&mut stream, sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32))?;
            let mut handle = std::ptr::null_mut();
            blas(NAME, cublas::cublasCreate_v2(&mut handle))?;
            blas(NAME, cublas::cublasSetStream_v2(handle, stream.cast()))?;
            Ok(Self {
                index,
                context,
                stream,
                architecture: major * 10 + minor,
                pool: Mutex::default(),
                staging: Mutex::default(),
                tables: Mutex::default(),
                modules: Mutex::default(),
                blas: Mutex::new(handle),
                solver: Mutex::new(None),
            })
        }
    }
}
