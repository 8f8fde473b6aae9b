//! A CUDA GPU: its memory, its libraries, and its kernels.
//!
//! The same functions as the host's room, by the same names, over [`cudarc`]'s bindings of the driver, NVRTC, cuBLAS and cuSOLVER,
//! which are loaded when the first device is opened. Only functions that CUDA 12 and CUDA 13 both have are called.
//!
//! Everything on one GPU is queued on one stream, in the order in which the host asks for it, whichever thread does. So kernels
//! run asynchronously, a dropped block may be reused at once, and results repeat. The host waits only where it needs a number:
//! downloads, totals, and the outcome of a factorisation.
//!
//! | file | what |
//! |---|---|
//! | `library.rs` | are the libraries here, and new enough |
//! | `context.rs` | an opened GPU: context, stream, modules, launches |
//! | `pool.rs`, `block.rs` | memory that is reused; blocks of elements; uploads and downloads |
//! | `cache.rs`, `compile.rs`, `kernels/` | kernels, from source to module |
//! | `launch.rs` | loops, arguments and sizes of launches; the table of kernels |
//! | `call.rs` | a matrix product as calls of cuBLAS |
//! | `gemm.rs`, `gram.rs`, `elementwise.rs`, `reduce.rs`, `columns.rs`, `linalg.rs` | the kernels' host sides |
//! | `activation.rs`, `softmax.rs`, `normalise.rs`, `channels.rs`, `losses.rs`, `dropout.rs` | those of a network's rows and channels |
//! | `optimizer.rs`, `gather.rs`, `positions.rs`, `place.rs` | steps of all parameters; picks, lookups, blocks put together |
//! | `conv.rs`, `depthwise.rs`, `max_pool.rs`, `resample.rs`, `attention.rs` | the same for images and attention |
//! | `rounded.rs` | operands of products rounded to bf16, and what operations keep |
//! | `solver.rs` | cuSOLVER for both scalar types |

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod block;
pub(crate) mod cache;
pub(crate) mod call;
pub(crate) mod channels;
pub(crate) mod columns;
pub(crate) mod compile;
pub(crate) mod context;
pub(crate) mod conv;
pub(crate) mod depthwise;
pub(crate) mod dropout;
pub(crate) mod elementwise;
#[cfg(test)]
mod faults;
pub(crate) mod gather;
pub(crate) mod gemm;
pub(crate) mod gram;
pub(crate) mod launch;
pub(crate) mod least_squares;
pub(crate) mod library;
pub(crate) mod linalg;
pub(crate) mod losses;
pub(crate) mod max_pool;
pub(crate) mod normalise;
pub(crate) mod optimizer;
pub(crate) mod place;
pub(crate) mod pool;
pub(crate) mod positions;
pub(crate) mod reduce;
pub(crate) mod resample;
pub(crate) mod rounded;
pub(crate) mod softmax;
pub(crate) mod solver;
pub(crate) mod thin;
#[cfg(test)]
pub(crate) mod waits;

pub(crate) use block::CudaBlock;
pub(crate) use context::Cuda;
