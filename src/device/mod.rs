//! Where numbers live, and the few kernels that each place must offer.
//!
//! A [`Device`] is the host's memory and cores ([`Device::cpu`]) or a GPU ([`Device::cuda`], feature `cuda`). Everything above
//! this module is written once against the functions below; each of them looks at where its operands live and calls that
//! place's kernel. A kernel is found by its name in every room:
//!
//! | file | what it does | CPU | CUDA |
//! |---|---|---|---|
//! | `gemm.rs` | strided-batched matrix products | `cpu/gemm.rs` | `cuda/gemm.rs` |
//! | `gather.rs` | entries picked by index, and added up where they came from | `cpu/gather.rs` | `cuda/gather.rs` |
//! | `gram.rs` | Y Y^T of an unfolding, without forming it | `cpu/gram.rs` | `cuda/gram.rs` |
//! | `elementwise.rs` | one or two operands, broadcast, entry by entry; copies and casts | `cpu/elementwise.rs` | `cuda/elementwise.rs` |
//! | `reduce.rs` | sums, norms, inner products, the first entry that is not finite | `cpu/reduce.rs` | `cuda/reduce.rs` |
//! | `columns.rs` | contraction of one mode column by column, MTTKRP's second half | `cpu/columns.rs` | `cuda/columns.rs` |
//! | `losses.rs` | cross-entropy of rows, binary cross-entropy, with their gradients | `cpu/losses.rs` | `cuda/losses.rs` |
//! | `place.rs` | a block put into a larger one; several joined | `cpu/place.rs` | `cuda/place.rs` |
//! | `conv.rs` | convolutions and their gradients | `cpu/conv/`, `cpu/depthwise/` | `cuda/conv.rs`, `cuda/depthwise.rs` |
//! | `max_pool.rs` | maxima over windows | `cpu/max_pool.rs` | `cuda/max_pool.rs` |
//! | `resample.rs` | sums over few neighbours: pools, resizing, padding | `cpu/resample.rs` | `cuda/resample.rs` |
//! | `activation.rs` | GELU and its kin, exp, log | `cpu/activation.rs` | `cuda/activation.rs` |
//! | `softmax.rs` | softmax along a mode | `cpu/softmax.rs` | `cuda/softmax.rs` |
//! | `normalise.rs` | layer norm, RMS norm: each row | `cpu/normalise.rs` | `cuda/normalise.rs` |
//! | `channels.rs` | sums and scales by channel: batch norm, GRN, affine | `cpu/channels.rs` | `cuda/channels.rs` |
//! | `update_norms.rs` | norms of the rows of W + B A | `cpu/update_norms.rs` | a product, then a sum |
//! | `dropout.rs` | random zeros from a seed and a position | `cpu/dropout.rs` | `cuda/dropout.rs` |
//! | `attention.rs` | scaled dot-product attention | `cpu/attention.rs` | `cuda/attention.rs` |
//! | `positions.rs` | scores looked up by relative position | `cpu/positions.rs` | `cuda/positions.rs` |
//! | `optimizer.rs` | a step of an optimiser: all parameters in one pass | `cpu/optimizer.rs` | `cuda/optimizer.rs` |
//! | `least_squares.rs` | rows of a factor from their normal equations, free or not negative | `cpu/least_squares.rs` | `cuda/least_squares.rs` |
//! | `linalg.rs` | eigenvalues, SVD, QR, Cholesky of a matrix | `cpu/linalg.rs` | `cuda/linalg.rs` |
//!
//! `layout.rs` says where the entries of a tensor lie in its block, `storage.rs` holds the block, `precision.rs` says in what a GPU computes products.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod channels;
pub(crate) mod columns;
pub(crate) mod conv;
pub(crate) mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod dropout;
pub(crate) mod elementwise;
pub(crate) mod gather;
pub(crate) mod gemm;
pub(crate) mod gram;
pub(crate) mod layout;
pub(crate) mod least_squares;
pub(crate) mod linalg;
pub(crate) mod losses;
pub(crate) mod max_pool;
pub(crate) mod normalise;
pub(crate) mod optimizer;
pub(crate) mod place;
pub(crate) mod positions;
pub(crate) mod precision;
pub(crate) mod reduce;
pub(crate) mod resample;
pub(crate) mod softmax;
pub(crate) mod storage;
pub(crate) mod update_norms;

use crate::error::{Error, ErrorKind, Result};
use std::{fmt, str::FromStr};

/// A place where tensors live and are computed with.
///
/// Cloning is cheap. Operations run where their operands live; operands on different devices are an error that names both.
///
/// ```
/// use tenfold::Device;
///
/// let one_thread = Device::cpu().threads(1);
/// assert_eq!(one_thread.to_string(), "cpu");
/// assert!(Device::cpu().same_place(&one_thread));
/// assert!("tpu".parse::<Device>().is_err());
/// ```
#[derive(Clone)]
pub struct Device(pub(crate) Kind);

#[derive(Clone)]
pub(crate) enum Kind {
    Cpu(cpu::Cpu),
    #[cfg(feature = "cuda")]
    Cuda(cuda::Cuda),
}

impl Device {
    /// The host, with as many threads as it has cores (or as `RAYON_NUM_THREADS` says).
    pub fn cpu() -> Self {
        Self(Kind::Cpu(cpu::Cpu::all_cores()))
    }

    /// The same device with `n` threads, at most 1024; 0 means as many as there are cores. A GPU is returned as it is.
    ///
    /// Results depend on the number of threads in their last bits (sums are split among them), and on nothing else.
    pub fn threads(self, n: usize) -> Self {
        match self.0 {
            Kind::Cpu(_) if n == 0 => Self::cpu(),
            Kind::Cpu(_) => Self(Kind::Cpu(cpu::Cpu::with_threads(n))),
            #[cfg(feature = "cuda")]
            gpu @ Kind::Cuda(_) => Self(gpu),
        }
    }

    /// The CUDA device `index`, with its libraries loaded.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] where the crate was built without the feature `cuda`, where libcuda, cublas, cusolver or nvrtc
    /// cannot be loaded, or where there is no such device. A GPU that was opened before is not asked again: once a kernel has failed
    /// (an error whose message says so), every use of its handles and tensors is an error until the process ends.
    pub fn cuda(index: usize) -> Result<Self> {
        #[cfg(feature = "cuda")]
        {
            cuda::Cuda::open(index).map(|gpu| Self(Kind::Cuda(gpu)))
        }
        #[cfg(not(feature = "cuda"))]
        {
            Err(Error::new(
                ErrorKind::Device,
                "Device::cuda",
                format!(
                    "cuda:{index} was asked for, but this build has no CUDA; build with `--features cuda`, or use cpu"
                ),
            ))
        }
    }

    /// Whether this is the host, whose tensors can be borrowed as ndarray views.
    pub fn is_cpu(&self) -> bool {
        matches!(self.0, Kind::Cpu(_))
    }

    /// Whether tensors of the two can be combined: the same GPU, or the host with any number of threads.
    pub fn same_place(&self, other: &Device) -> bool {
        match (&self.0, &other.0) {
            (Kind::Cpu(_), Kind::Cpu(_)) => true,
            #[cfg(feature = "cuda")]
            (Kind::Cuda(a), Kind::Cuda(b)) => a.index() == b.index(),
            #[cfg(feature = "cuda")]
            _ => false,
        }
    }

    /// Frees the buffers that wait for reuse, and says how many bytes that were.
    ///
    /// Buffers of dropped tensors are kept by size for the next tensor of that size, since touching fresh memory is slow. A
    /// program that has finished with large tensors can give the memory back here.
    pub fn release_cached(&self) -> usize {
        match &self.0 {
            Kind::Cpu(_) => cpu::release_cached(),
            #[cfg(feature = "cuda")]
            Kind::Cuda(gpu) => gpu.release_cached(),
        }
    }

    /// What the tensors of this program hold of a GPU's memory; `None` on the host, where the system counts.
    ///
    /// ```
    /// assert_eq!(tenfold::Device::cpu().memory(), None);
    /// ```
    pub fn memory(&self) -> Option<Memory> {
        match &self.0 {
            Kind::Cpu(_) => None,
            #[cfg(feature = "cuda")]
            Kind::Cuda(gpu) => Some(gpu.memory()),
        }
    }

    /// An error unless the two are the same place.
    pub(crate) fn check_same(&self, other: &Device, operation: &'static str) -> Result<()> {
        if self.same_place(other) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Device,
            operation,
            format!("one operand is on {self}, the other on {other}; move one of them with to_device"),
        ))
    }
}

/// Bytes of a GPU's memory, as [`Device::memory`] counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What tensors hold now.
    pub held: usize,
    /// What waits for the next tensor of its size; see [`Device::release_cached`].
    pub waiting: usize,
    /// The most that tensors held at once so far.
    pub most: usize,
}

impl Default for Device {
    fn default() -> Self {
        Self::cpu()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Cpu(_) => f.write_str("cpu"),
            #[cfg(feature = "cuda")]
            Kind::Cuda(gpu) => write!(f, "cuda:{}", gpu.index()),
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Cpu(cpu) => write!(f, "cpu ({} threads)", cpu.thread_count()),
            #[cfg(feature = "cuda")]
            Kind::Cuda(gpu) => write!(f, "cuda:{} ({})", gpu.index(), gpu.precision()),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    /// Reads `cpu`, `cuda` (device 0) or `cuda:1`.
    fn from_str(name: &str) -> Result<Self> {
        match name.split_once(':') {
            None if name == "cpu" => Ok(Self::cpu()),
            None if name == "cuda" => Self::cuda(0),
            Some(("cuda", index)) if index.parse::<usize>().is_ok() => Self::cuda(index.parse().unwrap_or(0)),
            _ => Err(Error::new(
                ErrorKind::Device,
                "Device::from_str",
                format!("\"{name}\" names no device; write cpu, or cuda:0 and so on"),
            )),
        }
    }
}
