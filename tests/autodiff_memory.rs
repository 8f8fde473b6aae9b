//! After the first training steps, no buffer of the size of data is allocated: all come from the pool.

use ndarray::IxDyn;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};
use tenfold::{
    Device, Result, Tensor,
    autodiff::{CrossEntropy, Var},
};

/// What counts as a buffer of the size of data, in bytes; every activation and every gradient below is larger.
const LARGE: usize = 32 << 10;

/// Steps whose allocations are counted.
const STEPS: usize = 30;

static COUNTING: AtomicBool = AtomicBool::new(false);
static LARGE_ONES: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counting large vectors. (Packing space of matrix products is aligned to cache lines or more; its size is
/// that of the processor's caches, not of data. A vector of numbers is aligned to a number.)
struct Counting;

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout);
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout);
        // SAFETY: passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

fn count(layout: Layout) {
    if COUNTING.load(Ordering::Relaxed) && layout.align() <= 16 && layout.size() >= LARGE {
        LARGE_ONES.fetch_add(1, Ordering::Relaxed);
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn step(parameters: &mut [Var<f32>], ids: &Tensor<u32, IxDyn>, labels: &Tensor<u32, IxDyn>) -> Result<f32> {
    let [table, w, b, core, p, q, r, head] = &*parameters else { unreachable!("eight parameters") };
    let x = table.embedding(ids, None)?.linear(w, Some(b))?;
    let x = x.square()?.shift(1.0)?.sqrt()?.mul(b)?.add(b)?;
    let delta = core.tucker(&[p, q, r])?.reshape([128, 96])?;
    let x = Var::concat(&[&x.linear(&delta, None)?, &x.narrow(1, 0..64)?], 1)?;
    let loss = x.linear(head, None)?.cross_entropy(labels, CrossEntropy { smoothing: 0.1, ignore: None })?;
    let mut gradients = loss.backward()?;
    for parameter in parameters {
        let Some(gradient) = gradients.take(parameter) else { unreachable!("all of them train") };
        *parameter.value_mut() = parameter.value().add(&gradient.scale(-0.01)?)?;
    }
    loss.item()
}

#[test]
fn later_steps_allocate_no_buffer_of_data_size() {
    for threads in [1, 2] {
        let device = Device::cpu().threads(threads);
        let make = |shape: &[usize]| {
            let x = Tensor::from_fn(shape.to_vec(), |i| {
                let mixed = i.iter().fold(7usize, |h, &i| h.wrapping_mul(31).wrapping_add(i + 1));
                (mixed % 1009) as f32 / 5000.0 - 0.1
            });
            Var::parameter(x.unwrap().to_device(&device).unwrap())
        };
        let mut parameters = [
            make(&[700, 128]),
            make(&[96, 128]),
            make(&[96]),
            make(&[16, 24, 24]),
            make(&[128, 16]),
            make(&[8, 24]),
            make(&[12, 24]),
            make(&[300, 192]),
        ];
        let ids = Tensor::from_fn(vec![256], |i| (i[0] * 37 % 700) as u32).unwrap();
        let labels = Tensor::from_fn(vec![256], |i| (i[0] * 13 % 300) as u32).unwrap();
        let first = step(&mut parameters, &ids, &labels).unwrap();
        for _ in 0..10 {
            step(&mut parameters, &ids, &labels).unwrap();
        }
        LARGE_ONES.store(0, Ordering::Relaxed);
        COUNTING.store(true, Ordering::Relaxed);
        let mut last = first;
        for _ in 0..STEPS {
            last = step(&mut parameters, &ids, &labels).unwrap();
        }
        COUNTING.store(false, Ordering::Relaxed);
        let large = LARGE_ONES.load(Ordering::Relaxed);
        // How threads happen to overlap decides how many private sums and packed panels are wanted at once: now and then there is
        // one more than ever before, and the pool grows by it. What each step allocates would count at least once a step.
        let most = if threads == 1 { 0 } else { STEPS / 3 };
        assert!(large <= most, "{large} large allocations in {STEPS} steps on {threads} threads");
        assert!(last < first, "{last} {first}");
        // The counter counts.
        LARGE_ONES.store(0, Ordering::Relaxed);
        COUNTING.store(true, Ordering::Relaxed);
        drop(std::hint::black_box(vec![1u8; LARGE]));
        COUNTING.store(false, Ordering::Relaxed);
        assert_eq!(LARGE_ONES.load(Ordering::Relaxed), 1);
    }
}
