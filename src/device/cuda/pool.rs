//! Which of a GPU's blocks wait for reuse: bookkeeping, without a call to the driver.
//!
//! Everything on one GPU runs in the order of one stream, so a block may be handed to the next tensor as soon as its owner is dropped:
//! whatever still reads it was queued before whatever will write it.

use std::collections::BTreeMap;

/// Blocks are whole multiples of this many bytes.
const SMALLEST: usize = 512;

/// The waiting blocks, and how much memory there is in all.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// Addresses by size class.
    waiting: BTreeMap<usize, Vec<u64>>,
    /// Bytes of the waiting blocks.
    pub(crate) cached: usize,
    /// Bytes of the blocks that tensors hold.
    pub(crate) live: usize,
    /// The most that they ever held.
    pub(crate) most: usize,
}

/// The size class of `bytes`: an eighth apart, as on the host, and never 0. `None` where it would overflow.
pub(crate) fn class_of(bytes: usize) -> Option<usize> {
    if bytes <= 8 * SMALLEST {
        return Some(bytes.max(1).div_ceil(SMALLEST) * SMALLEST);
    }
    let step = 1usize << (usize::BITS - 1 - bytes.leading_zeros() - 3);
    bytes.div_ceil(step).checked_mul(step)
}

impl Pool {
    /// A waiting block of this class, now live.
    pub(crate) fn take(&mut self, class: usize) -> Option<u64> {
        let blocks = self.waiting.get_mut(&class)?;
        let block = blocks.pop();
        if blocks.is_empty() {
            self.waiting.remove(&class);
        }
        if block.is_some() {
            self.cached -= class;
            self.made(class);
        }
        block
    }

    /// Counts a block that is handed out, as one that the driver has just made.
    pub(crate) fn made(&mut self, class: usize) {
        self.live += class;
        self.most = self.most.max(self.live);
    }

    /// A live block whose owner is gone.
    pub(crate) fn give(&mut self, class: usize, block: u64) {
        self.live -= class;
        self.cached += class;
        self.waiting.entry(class).or_default().push(block);
    }

    /// Takes out all waiting blocks, to be freed, with their bytes.
    pub(crate) fn drain(&mut self) -> (Vec<u64>, usize) {
        let blocks = std::mem::take(&mut self.waiting).into_values().flatten().collect();
        (blocks, std::mem::take(&mut self.cached))
    }
}

/// Bytes for people.
pub(crate) fn human(bytes: usize) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() as usize / 10).min(UNITS.len() - 1);
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{:.1} {}", bytes as f64 / (1u64 << (10 * unit)) as f64, UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_what_is_asked_and_little_more() {
        for bytes in (0..200_000).step_by(37).chain([1 << 33, (1 << 33) + 1]) {
            let class = class_of(bytes).unwrap();
            assert!(class >= bytes && class > 0 && class.is_multiple_of(SMALLEST), "{bytes} -> {class}");
            assert!(class - bytes <= (bytes / 8).max(SMALLEST), "{bytes} -> {class}");
            assert_eq!(class_of(class), Some(class));
        }
        assert_eq!(class_of(usize::MAX), None);
    }

    #[test]
    fn blocks_come_back_by_class_and_are_counted() {
        let mut pool = Pool::default();
        assert_eq!(pool.take(1024), None);
        pool.made(1024);
        pool.made(2048);
        pool.give(1024, 7);
        assert_eq!((pool.cached, pool.live, pool.most), (1024, 2048, 3072));
        assert_eq!(pool.take(2048), None);
        assert_eq!(pool.take(1024), Some(7));
        pool.give(1024, 7);
        pool.give(2048, 8);
        assert_eq!(pool.drain(), (vec![7, 8], 3072));
        assert_eq!((pool.cached, pool.live, pool.most), (0, 0, 3072));
        assert_eq!(pool.take(1024), None);
    }

    #[test]
    fn bytes_read_well() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(85 << 30), "85.0 GiB");
    }
}
