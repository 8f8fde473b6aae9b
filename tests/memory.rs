//! How much memory a solver takes beside its input, counted at the allocator.

use ndarray::{Array, Ix3};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};
use tenfold::{Tensor, decomp::StHosvd};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator; only counters are kept beside.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The input moved in, ST-HOSVD needs the first projection (J/I of the input) and less than 16 MB for everything else.
#[test]
fn st_hosvd_needs_little_beside_its_input() {
    let (n, rank) = (150, 15);
    let x = Array::from_shape_fn((n, n, n), |(i, j, k)| {
        let noise = ((i * 7919 + j * 104_729 + k * 1_299_709) % 1000) as f64 / 5000.0;
        ((i + 2 * j) as f64 / 20.0).sin() * (k as f64 / 9.0).cos() + noise
    });
    let input = n * n * n * size_of::<f64>();
    let before = LIVE.load(Relaxed) - input;
    let x: Tensor<f64, Ix3> = Tensor::from(x);
    for (name, solver) in [("ranks", StHosvd::ranks([rank; 3])), ("tolerance", StHosvd::tolerance(0.2))] {
        PEAK.store(LIVE.load(Relaxed), Relaxed);
        let fit = solver.fit(&x).unwrap();
        let peak = PEAK.load(Relaxed) - before;
        let first = fit.ranks()[0] as f64 / n as f64;
        let allowed = input as f64 * (1.0 + first) + 16e6;
        println!("{name}: peak {:.1} MB, allowed {:.1} MB", peak as f64 / 1e6, allowed / 1e6);
        assert!(peak as f64 <= allowed, "{name}: {peak} bytes at the peak, {allowed} allowed");
    }
}
