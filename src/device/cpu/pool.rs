//! Host buffers that are kept for the next tensor of their size.
//!
//! A fresh large buffer costs a page fault for every 4 KB touched, several times what it takes to fill it. So a tensor's
//! buffer, once dropped, waits here by size class; classes are an eighth apart, so at most 12.5 % is left unused, and untouched
//! pages of a class are never resident.
#![allow(unsafe_code)]

use std::sync::{Mutex, PoisonError};

/// Buffers below this many bytes go straight to the allocator, which is quick for them.
const SMALLEST: usize = 4096;

/// What one element type may keep, in bytes. Beyond it, the buffers of the largest class go first.
const MOST: usize = 1 << 30;

/// The waiting buffers of one element type.
pub struct Pool<T> {
    waiting: Mutex<Waiting<T>>,
}

struct Waiting<T> {
    /// `(capacity, buffers)`, sorted by capacity. Every buffer's length is its whole capacity.
    classes: Vec<(usize, Vec<Vec<T>>)>,
    bytes: usize,
}

/// The capacity of the size class that holds `len` elements.
fn class_of(len: usize) -> usize {
    if len < 16 {
        return len;
    }
    let step = 1usize << (usize::BITS - 1 - len.leading_zeros() - 3);
    len.div_ceil(step) * step
}

impl<T: Copy + Default> Pool<T> {
    pub(crate) const fn new() -> Self {
        Self { waiting: Mutex::new(Waiting { classes: Vec::new(), bytes: 0 }) }
    }

    /// A buffer of `len` elements whose values are whatever an earlier tensor left there.
    pub(crate) fn take(&self, len: usize) -> Vec<T> {
        if len * size_of::<T>() < SMALLEST {
            return vec![T::default(); len];
        }
        let class = class_of(len);
        let found = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            match waiting.classes.binary_search_by_key(&class, |c| c.0) {
                Ok(i) => waiting.classes[i].1.pop(),
                Err(_) => None,
            }
            .inspect(|_| waiting.bytes -= class * size_of::<T>())
        };
        // `vec![zero; n]` of a plain number is calloc: its pages become resident when first written.
        let mut buffer = found.unwrap_or_else(|| vec![T::default(); class]);
        buffer.truncate(len);
        buffer
    }

    /// Gives back a buffer.
    ///
    /// # Safety
    /// The buffer comes from [`Pool::take`] of this type, and its length is as it came.
    pub(crate) unsafe fn give(&self, mut buffer: Vec<T>) {
        let class = class_of(buffer.len());
        let bytes = class * size_of::<T>();
        // Small ones did not come from a class; the largest are not worth keeping.
        if buffer.len() * size_of::<T>() < SMALLEST || buffer.capacity() != class || bytes > MOST / 2 {
            return;
        }
        // SAFETY: `take` made the buffer (the caller's word) with all `class` elements initialised and only truncated it; T is
        // Copy, so truncating dropped nothing and the elements past `len` still hold initialised values.
        unsafe { buffer.set_len(class) };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.bytes += bytes;
        match waiting.classes.binary_search_by_key(&class, |c| c.0) {
            Ok(i) => waiting.classes[i].1.push(buffer),
            Err(i) => waiting.classes.insert(i, (class, vec![buffer])),
        }
        while waiting.bytes > MOST {
            let Some((class, dropped)) = waiting.classes.iter_mut().rev().find_map(|(n, b)| b.pop().map(|b| (*n, b)))
            else {
                break;
            };
            drop(dropped);
            waiting.bytes -= class * size_of::<T>();
        }
    }

    /// Frees every waiting buffer and says how many bytes that were.
    pub(crate) fn clear(&self) -> usize {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.classes.clear();
        std::mem::take(&mut waiting.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_at_most_an_eighth() {
        for len in (16..100_000).step_by(7) {
            let class = class_of(len);
            assert!(class >= len && class - len <= len / 8, "{len} -> {class}");
            assert_eq!(class_of(class), class);
        }
    }

    #[test]
    fn a_buffer_comes_back() {
        let pool = Pool::<f32>::new();
        let buffer = pool.take(5000);
        let address = buffer.as_ptr();
        // SAFETY: the pool's own buffer, as it came.
        unsafe { pool.give(buffer) };
        let again = pool.take(4990);
        assert_eq!(again.as_ptr(), address);
        assert_eq!(again.len(), 4990);
        // SAFETY: the pool's own buffer, as it came.
        unsafe { pool.give(again) };
        assert!(pool.clear() > 0);
        assert_eq!(pool.clear(), 0);
    }
}
