//! [`Batches`]: which examples are in which batch.

use crate::error::{Error, ErrorKind, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::Range;

/// How examples are put into batches, epoch after epoch.
///
/// What is in a batch is a function of the seed, the epoch and the options: no generator runs on from one epoch to the next, so the
/// order of any epoch is made without those before it, in time and memory proportional to the number of examples. It is
///
/// ```text
/// shuffle all examples                              (ChaCha8 of the seed, one stream an epoch; Fisher-Yates)
/// drop those that would leave the last batch short  (drop_last)
/// cut into windows of so many batches, sort each by length, cut into batches, shuffle the batches    (buckets)
/// ```
///
/// ```
/// use tenfold::train::Batches;
///
/// let batches = Batches::new(2).shuffle(7);
/// let epoch = batches.epoch(5, 0, |_| 0)?;
/// assert_eq!(epoch.len(), 3); // two of two, one of one
/// let mut seen: Vec<usize> = epoch.iter().flatten().copied().collect();
/// seen.sort();
/// assert_eq!(seen, [0, 1, 2, 3, 4]);
/// assert_eq!(batches.epoch(5, 0, |_| 0)?, epoch);
/// assert_ne!(batches.epoch(5, 1, |_| 0)?, epoch);
///
/// let error = Batches::new(8).epoch(5, 0, |_| 0).unwrap_err();
/// assert_eq!(error.message(), "a batch of 8 examples from a data set of 5; the batch size may be 1 to 5");
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batches {
    size: usize,
    seed: Option<u64>,
    drop_last: bool,
    window: Option<usize>,
}

impl Batches {
    /// Batches of `size` examples in the order of the data set, the last one shorter where they do not come out even.
    pub fn new(size: usize) -> Self {
        Self { size, seed: None, drop_last: false, window: None }
    }

    /// Every epoch in an order of its own, from a seed.
    pub fn shuffle(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// Leaves out, in each epoch others, the examples that would make a short batch.
    pub fn drop_last(self) -> Self {
        Self { drop_last: true, ..self }
    }

    /// Puts examples of about the same length together, so that little is padded: they are sorted by length within windows of so
    /// many batches. A wider window pads less and mixes less; 50 to 100 is usual.
    pub fn buckets(self, window: usize) -> Self {
        Self { window: Some(window), ..self }
    }

    /// The number of batches in an epoch of `examples` examples.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where there are no examples, the batch size is 0 or above their number, or buckets have a window of 0.
    pub fn count(&self, examples: usize) -> Result<usize> {
        let error = |message: String| Err(Error::new(ErrorKind::Value, "Batches", message));
        match (self.size, examples) {
            (_, 0) => error("the data set is empty; it needs at least one example".into()),
            (size, _) if size == 0 || size > examples => error(format!(
                "a batch of {size} examples from a data set of {examples}; the batch size may be 1 to {examples}"
            )),
            _ if self.window == Some(0) => error("buckets in windows of 0 batches; needs 1 or more".into()),
            (size, _) if self.drop_last => Ok(examples / size),
            (size, _) => Ok(examples.div_ceil(size)),
        }
    }

    /// The batches of an epoch, which counts from 0, of `examples` examples of these lengths. Lengths are asked for only with
    /// [`buckets`](Batches::buckets).
    ///
    /// # Errors
    /// As [`count`](Batches::count).
    pub fn epoch(&self, examples: usize, epoch: u64, length: impl Fn(usize) -> usize) -> Result<Epoch> {
        let count = self.count(examples)?;
        let mut rng = self.seed.map(|seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(epoch);
            rng
        });
        let mut indices: Vec<usize> = (0..examples).collect();
        if let Some(rng) = &mut rng {
            shuffle(&mut indices, rng);
        }
        // Before sorting: which ones are left out must not depend on their length.
        indices.truncate(count.saturating_mul(self.size));
        let mut batches: Vec<Range<usize>> =
            (0..count).map(|i| i * self.size..indices.len().min((i + 1) * self.size)).collect();
        if let Some(window) = self.window {
            indices.chunks_mut(window.saturating_mul(self.size)).for_each(|part| part.sort_by_key(|&i| length(i)));
            if let Some(rng) = &mut rng {
                shuffle(&mut batches, rng);
            }
        }
        Ok(Epoch { indices, batches })
    }
}

/// The Fisher-Yates shuffle (R. Durstenfeld, *Algorithm 235: Random permutation*, CACM 7, 1964), written out because what a seed
/// gives must not change with the version of a library.
fn shuffle<X>(items: &mut [X], rng: &mut ChaCha8Rng) {
    for i in (1..items.len()).rev() {
        // The upper half of a product of 64 bits is uniform on 0..=i but for i / 2^64.
        let j = (u128::from(rng.next_u64()) * (i as u128 + 1)) >> 64;
        items.swap(i, j as usize);
    }
}

/// The batches of one epoch. Made by [`Batches::epoch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    indices: Vec<usize>,
    batches: Vec<Range<usize>>,
}

impl Epoch {
    /// The number of batches.
    pub fn len(&self) -> usize {
        self.batches.len()
    }

    /// Whether there are none; an epoch has at least one.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The examples of a batch. O(1).
    pub fn get(&self, batch: usize) -> Option<&[usize]> {
        self.indices.get(self.batches.get(batch)?.clone())
    }

    /// The batches in order.
    pub fn iter(&self) -> impl Iterator<Item = &[usize]> {
        self.batches.iter().map(|range| &self.indices[range.clone()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_epoch_has_every_example_once(
            examples in 1usize..200, size in 1usize..40, seed: Option<u64>, epoch in 0u64..5, drop: bool, window in 0usize..6
        ) {
            let size = size.min(examples);
            let batches = Batches { size, seed, drop_last: drop, window: Some(window).filter(|&w| w > 0) };
            let length = |i: usize| i * 37 % 11;
            let made = batches.epoch(examples, epoch, length).unwrap();
            prop_assert_eq!(made.len(), batches.count(examples).unwrap());
            let mut seen: Vec<usize> = made.iter().flatten().copied().collect();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), if drop { examples / size * size } else { examples });
            let short = made.iter().filter(|batch| batch.len() != size).count();
            prop_assert_eq!(short, usize::from(!drop && examples % size > 0));
            if window > 0 {
                prop_assert!(made.iter().all(|batch| batch.is_sorted_by_key(|&i| length(i))));
            }
            for i in 0..made.len() {
                prop_assert_eq!(made.get(i), made.iter().nth(i));
            }
            prop_assert_eq!(batches.epoch(examples, epoch, length).unwrap(), made);
        }
    }

    /// What a seed gives is part of the format of checkpoints.
    #[test]
    fn the_order_of_a_seed_stays() {
        let flat = |epoch| -> Vec<usize> {
            let made = Batches::new(4).shuffle(7).epoch(8, epoch, |_| 0).unwrap();
            made.iter().flatten().copied().collect()
        };
        assert_eq!([flat(0), flat(1)], [[5, 0, 6, 2, 3, 4, 7, 1], [3, 5, 1, 6, 2, 4, 0, 7]]);
    }

    #[test]
    fn shuffles_are_uniform() {
        // Each of 6 orders of 3 items should come up 1000 times in 6000, with a standard deviation of 29.
        let mut counts = std::collections::BTreeMap::new();
        for epoch in 0..6000 {
            let made = Batches::new(3).shuffle(1).epoch(3, epoch, |_| 0).unwrap();
            *counts.entry(made.get(0).unwrap().to_vec()).or_insert(0) += 1;
        }
        assert!(counts.len() == 6 && counts.values().all(|n| (850..1150).contains(n)), "{counts:?}");
    }

    #[test]
    fn buckets_pad_less() {
        let lengths: Vec<usize> = (0..1000).map(|i| 5 + i * 7919 % 120).collect();
        let padded = |batches: Batches| -> usize {
            let made = batches.epoch(1000, 0, |i| lengths[i]).unwrap();
            made.iter().map(|batch| batch.len() * batch.iter().map(|&i| lengths[i]).max().unwrap()).sum()
        };
        let (all, plain, bucketed): (usize, usize, usize) = (
            lengths.iter().sum(),
            padded(Batches::new(16).shuffle(3)),
            padded(Batches::new(16).shuffle(3).buckets(20)),
        );
        assert!(plain > all * 17 / 10 && bucketed < all * 11 / 10, "{all} {plain} {bucketed}");
    }

    #[test]
    fn errors() {
        let message = |batches: Batches, examples| batches.count(examples).unwrap_err().to_string();
        assert_eq!(message(Batches::new(4), 0), "Batches: the data set is empty; it needs at least one example");
        let zero = "Batches: a batch of 0 examples from a data set of 3; the batch size may be 1 to 3";
        assert_eq!(message(Batches::new(0), 3), zero);
        assert!(message(Batches::new(1).buckets(0), 3).ends_with("windows of 0 batches; needs 1 or more"));
    }
}
