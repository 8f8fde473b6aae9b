//! The host: its threads, its buffers, and its kernels.
//!
//! Kernels take slices and strided layouts and are safe to call; where they write in parallel to interleaved places, the unsafe
//! block says why the places are disjoint. Loops are compiled for the processor at hand through [`pulp`]: a plain x86-64 build
//! uses AVX2 or AVX-512 where they are there.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod channels;
pub(crate) mod columns;
#[cfg(all(debug_assertions, not(test)))]
mod compiled;
pub(crate) mod conv;
pub(crate) mod depthwise;
pub(crate) mod dropout;
pub(crate) mod elementwise;
mod fork_join;
pub(crate) mod gather;
pub(crate) mod gemm;
pub(crate) mod gram;
pub(crate) mod least_squares;
pub(crate) mod linalg;
pub(crate) mod losses;
pub(crate) mod math;
pub(crate) mod max_pool;
pub(crate) mod normalise;
pub(crate) mod optimizer;
pub(crate) mod place;
pub(crate) mod pool;
pub(crate) mod positions;
pub(crate) mod reduce;
pub(crate) mod resample;
pub(crate) mod rows;
pub(crate) mod simd;
pub(crate) mod softmax;
pub(crate) mod thin;
pub(crate) mod update_norms;

use crate::scalar::Element;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

/// No machine has use for more threads, and the system takes long to give them.
const MOST_THREADS: usize = 1024;

/// The host with a number of threads.
#[derive(Clone)]
pub(crate) struct Cpu {
    /// None: one thread, the caller's.
    pool: Option<Arc<ThreadPool>>,
}

impl Cpu {
    pub(crate) fn all_cores() -> Self {
        static CORES: OnceLock<usize> = OnceLock::new();
        let cores = *CORES.get_or_init(|| {
            let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok()).filter(|&n| n > 0);
            asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
        });
        Self::with_threads(cores)
    }

    /// Pools are made once for each number of threads. Where the system refuses the threads, the caller's own does the work.
    pub(crate) fn with_threads(n: usize) -> Self {
        static POOLS: Mutex<Vec<(usize, Arc<ThreadPool>)>> = Mutex::new(Vec::new());
        if n <= 1 {
            return Self { pool: None };
        }
        let n = n.min(MOST_THREADS);
        let mut pools = lock(&POOLS);
        if let Some((_, pool)) = pools.iter().find(|(threads, _)| *threads == n) {
            return Self { pool: Some(Arc::clone(pool)) };
        }
        let pool = ThreadPoolBuilder::new().num_threads(n).thread_name(|i| format!("tenfold-{i}")).build().ok();
        let pool = pool.map(Arc::new);
        pools.extend(pool.iter().map(|pool| (n, Arc::clone(pool))));
        Self { pool }
    }

    pub(crate) fn thread_count(&self) -> usize {
        self.pool.as_ref().map_or(1, |pool| pool.current_num_threads())
    }

    /// Runs `work` inside this device's pool, so that rayon's own splitting uses its threads.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// `work(0), .. work(parts - 1)` in order, computed in parallel.
    ///
    /// This and its kin take closures by address: what they do is compiled once for each type of result, not once for each closure.
    pub(crate) fn map_parts<R: Send>(&self, parts: usize, work: &(dyn Fn(usize) -> R + Sync)) -> Vec<R> {
        match &self.pool {
            Some(pool) if parts > 1 => {
                let results: Vec<Mutex<Option<R>>> = (0..parts).map(|_| Mutex::new(None)).collect();
                fork_join::for_each(pool, parts, &|i| *lock(&results[i]) = Some(work(i)));
                let done = |result: Mutex<Option<R>>| result.into_inner().unwrap_or_else(PoisonError::into_inner);
                results.into_iter().map(|r| done(r).unwrap_or_else(|| unreachable!("a part was left out"))).collect()
            }
            _ => (0..parts).map(work).collect(),
        }
    }

    /// `work` on each piece, in parallel; results in the order of the pieces.
    pub(crate) fn map_pieces<P: Send, R: Send>(&self, pieces: Vec<P>, work: &(dyn Fn(P) -> R + Sync)) -> Vec<R> {
        if self.pool.is_none() || pieces.len() <= 1 {
            return pieces.into_iter().map(work).collect();
        }
        let pieces: Vec<Mutex<Option<P>>> = pieces.into_iter().map(|piece| Mutex::new(Some(piece))).collect();
        let take = |i: usize| lock(&pieces[i]).take().unwrap_or_else(|| unreachable!("piece {i} was taken twice"));
        self.map_parts(pieces.len(), &|i| work(take(i)))
    }

    /// How many parts `n` items are split into, at least `grain` in each: a function of `n`, `grain` and the thread count alone, so
    /// that sums repeat.
    pub(crate) fn parts(&self, n: usize, grain: usize) -> usize {
        let threads = self.thread_count();
        if threads == 1 { n.min(1) } else { n.div_ceil(grain.max(1)).min(threads * 4) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The `i`-th of `parts` nearly equal ranges of `0..n`.
pub(crate) fn part(n: usize, parts: usize, i: usize) -> Range<usize> {
    let (size, rest) = (n / parts, n % parts);
    let start = i * size + i.min(rest);
    start..start + size + usize::from(i < rest)
}

/// The vector instructions that this processor has.
#[inline]
pub(crate) fn arch() -> pulp::Arch {
    static ARCH: OnceLock<pulp::Arch> = OnceLock::new();
    *ARCH.get_or_init(pulp::Arch::new)
}

/// Runs a loop compiled for the widest vectors this processor has. The loop has to be inlined: pass a closure marked
/// `#[inline(always)]`, with plain loops where the body is large.
///
/// `FnMut` although it runs once: a closure that could run again and is called as an `FnOnce` is called through a shim, which the
/// attribute does not reach. Where the body is large, the shim stays a function of its own, compiled for any processor.
#[inline(always)]
pub(crate) fn vectorized<R>(work: impl FnMut() -> R) -> R {
    struct Loop<F>(F);
    impl<R, F: FnMut() -> R> pulp::NullaryFnOnce for Loop<F> {
        type Output = R;

        #[inline(always)]
        fn call(mut self) -> R {
            (self.0)()
        }
    }
    arch().dispatch(Loop(work))
}

/// A buffer on the host: the user's own vector, or one from the pool, to which it returns.
pub(crate) struct HostBlock<T: Element> {
    data: Vec<T>,
    pooled: bool,
}

impl<T: Element> HostBlock<T> {
    pub(crate) fn adopted(data: Vec<T>) -> Self {
        Self { data, pooled: false }
    }

    pub(crate) fn pooled(len: usize) -> Self {
        Self { data: T::pool().take(len), pooled: true }
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        &self.data
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.data
    }

    pub(crate) fn into_vec(mut self) -> Vec<T> {
        self.pooled = false;
        std::mem::take(&mut self.data)
    }
}

impl<T: Element> Drop for HostBlock<T> {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.pooled {
            // SAFETY: `pooled` says that the buffer came from `take`, and nothing here changes its length.
            unsafe { T::pool().give(std::mem::take(&mut self.data)) }
        }
    }
}

/// Frees every waiting buffer of every element type.
pub(crate) fn release_cached() -> usize {
    use crate::scalar::sealed::Pooled;
    f64::pool().clear()
        + f32::pool().clear()
        + half::f16::pool().clear()
        + half::bf16::pool().clear()
        + u8::pool().clear()
        + u32::pool().clear()
        + i64::pool().clear()
}
