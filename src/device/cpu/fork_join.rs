//! A loop that the calling thread begins at once, and that threads of a pool help with.
//!
//! rayon's `install` hands a loop over: the caller sleeps, the pool's threads wake, and the last of them wakes the caller. After a
//! pause of 50 microseconds that costs 90 (two cores of a virtual machine, 2026-11-27), as much as many an operation of a training
//! step. Here the caller takes the first index itself, and does not wait for a helper that has not begun when nothing is left.
#![allow(unsafe_code)]

use rayon::ThreadPool;
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, Thread},
};

/// In [`Loop::inside`]: nobody may come in any more.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// How often the caller looks whether its helpers are done before it sleeps: some ten microseconds.
const LOOKS: usize = 500;

struct Loop {
    /// Valid for those who are inside; dangling, perhaps, for those who come late.
    work: *const (dyn Fn(usize) + Sync),
    count: usize,
    /// The next index that nobody has taken.
    next: AtomicUsize,
    /// Helpers that may still be called.
    uncalled: AtomicUsize,
    /// Helpers at work, and [`CLOSED`].
    inside: AtomicUsize,
    caller: Thread,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: what `work` points to is `Sync`; the rest is `Send` and `Sync` by itself.
unsafe impl Send for Loop {}
// SAFETY: as above.
unsafe impl Sync for Loop {}

impl Loop {
    /// Takes indices until none is left. After a panic nobody takes another one.
    ///
    /// # Safety
    /// The caller's closure lives.
    unsafe fn work_off(&self) {
        // SAFETY: by the caller's word.
        let work = unsafe { &*self.work };
        let indices =
            || std::iter::from_fn(|| Some(self.next.fetch_add(1, Ordering::Relaxed)).filter(|&i| i < self.count));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| indices().for_each(work))) {
            self.next.store(self.count, Ordering::Relaxed);
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
    }

    /// Calls up to `helpers` more; each wakes two when it comes, so that nobody wakes all.
    fn call(self: &Arc<Self>, helpers: usize, spawn: impl Fn(Box<dyn FnOnce() + Send>)) {
        for _ in 0..helpers {
            let one_less = |n: usize| n.checked_sub(1);
            if self.next.load(Ordering::Relaxed) >= self.count
                || self.uncalled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err()
            {
                return;
            }
            let this = Arc::clone(self);
            spawn(Box::new(move || this.help()));
        }
    }

    fn help(self: Arc<Self>) {
        if self.inside.fetch_add(1, Ordering::Acquire) & CLOSED == 0 {
            self.call(2, rayon::spawn);
            // SAFETY: the caller stays until everybody who came in before it closed has left.
            unsafe { self.work_off() };
        }
        if self.inside.fetch_sub(1, Ordering::Release) == CLOSED | 1 {
            self.caller.unpark();
        }
    }

    /// Waits until nobody is inside, and lets nobody in.
    fn close(&self) {
        self.inside.fetch_or(CLOSED, Ordering::Relaxed);
        let empty = || self.inside.load(Ordering::Acquire) == CLOSED;
        for _ in 0..LOOKS {
            if empty() {
                return;
            }
            std::hint::spin_loop();
        }
        while !empty() {
            thread::park();
        }
    }
}

/// `work(0), .. work(count - 1)`, in any order and by several threads.
///
/// A panic of one of them goes on here once all others have ended.
pub(super) fn for_each(pool: &ThreadPool, count: usize, work: &(dyn Fn(usize) + Sync)) {
    let work = std::ptr::from_ref(work);
    // SAFETY: only the lifetime changes; those who use the pointer say why it is valid.
    let work = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const (dyn Fn(usize) + Sync)>(work) };
    let shared = Arc::new(Loop {
        work,
        count,
        next: AtomicUsize::new(0),
        uncalled: AtomicUsize::new(count.min(pool.current_num_threads()).saturating_sub(1)),
        inside: AtomicUsize::new(0),
        caller: thread::current(),
        panic: Mutex::new(None),
    });
    shared.call(1, |help| pool.spawn(help));
    // SAFETY: `work` is borrowed until this function returns, and nothing between here and `close` unwinds.
    unsafe { shared.work_off() };
    shared.close();
    let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
}

#[cfg(test)]
mod tests {
    use crate::device::cpu::Cpu;
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        time::Duration,
    };

    #[test]
    fn every_index_once_and_results_in_order() {
        for threads in [1, 2, 3, 16] {
            let cpu = Cpu::with_threads(threads);
            for count in [0, 1, 2, 3, 100, 3000] {
                let calls: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                let results = cpu.map_parts(count, &|i| {
                    calls[i].fetch_add(1, Ordering::Relaxed);
                    i.to_string()
                });
                assert_eq!(results, (0..count).map(|i| i.to_string()).collect::<Vec<_>>());
                assert!(calls.iter().all(|calls| calls.load(Ordering::Relaxed) == 1));
            }
            let words: Vec<String> = (0..50).map(|i| i.to_string()).collect();
            assert_eq!(cpu.map_pieces(words.clone(), &|word| word), words);
        }
    }

    /// Helpers that come while the caller works, and those that come when it is gone.
    #[test]
    fn helpers_help_and_late_ones_do_nothing() {
        let cpu = Cpu::with_threads(3);
        let me = thread::current().id();
        let helped = || {
            cpu.map_parts(3, &|_| {
                thread::sleep(Duration::from_millis(20));
                thread::current().id() != me
            })
        };
        // A busy machine may keep them from coming in time, but not always.
        assert!((0..100).any(|_| helped().contains(&true)));
        for round in 0..2000 {
            let sum = AtomicUsize::new(round);
            cpu.map_parts(4, &|i| sum.fetch_add(i, Ordering::Relaxed));
            assert_eq!(sum.into_inner(), round + 6);
        }
    }

    #[test]
    fn loops_in_loops_and_from_many_threads() {
        let cpu = Cpu::with_threads(2);
        let inner = |n: usize| cpu.map_parts(n, &|j| j).into_iter().sum::<usize>();
        let sum = |n: usize| cpu.map_parts(n, &inner).into_iter().sum::<usize>();
        let expected: usize = (0..30).map(|i| (0..i).sum::<usize>()).sum();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| assert_eq!(sum(30), expected)));
            }
        });
    }

    #[test]
    fn a_panic_goes_on_in_the_caller_and_frees_what_was_made() {
        let cpu = Cpu::with_threads(3);
        for at in [0, 7, 99] {
            let before = std::sync::Arc::new(());
            let panic = catch_unwind(AssertUnwindSafe(|| {
                cpu.map_parts(100, &|i| {
                    assert!(i != at, "index {i}");
                    before.clone()
                })
            }));
            let panic = panic.unwrap_err();
            assert_eq!(panic.downcast_ref::<String>().unwrap(), &format!("index {at}"));
            assert_eq!(std::sync::Arc::strong_count(&before), 1);
        }
        assert_eq!(cpu.map_parts(3, &|i| i), [0, 1, 2]);
    }
}
