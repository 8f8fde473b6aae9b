//! Data: what a data set is, the order in which it is seen, and the threads that fetch batches ahead of time.
//!
//! - [`Dataset`] makes a batch of examples that are named by their index. It is all that a user writes.
//! - [`Rows`] is one that is ready: the rows of two tensors, inputs and targets.
//! - [`Batches`] says which examples are in which batch: a function of the seed and the epoch alone, so that a run goes on at any
//!   batch without repeating anything that led there.
//! - Batches are made by threads of their own while the model computes, a bounded number ahead; see `loader.rs`. What a data
//!   set returns as an error, or panics with, becomes the run's error with the example's index. [`each_batch`] does the same for
//!   evaluation.
//!
//! ```
//! use tenfold::{Result, Tensor, train::{Dataset, each_batch}};
//!
//! /// Sentences as token ids of different lengths, padded to the longest of a batch.
//! struct Sentences(Vec<Vec<u32>>);
//!
//! impl Dataset for Sentences {
//!     type Batch = Tensor<u32>;
//!
//!     fn len(&self) -> usize {
//!         self.0.len()
//!     }
//!
//!     fn batch(&self, indices: &[usize]) -> Result<Tensor<u32>> {
//!         let longest = indices.iter().map(|&i| self.0[i].len()).max().unwrap_or(0);
//!         Tensor::from_fn(vec![indices.len(), longest], |at| self.0[indices[at[0]]].get(at[1]).copied().unwrap_or(0))
//!     }
//!
//!     fn length(&self, index: usize) -> usize {
//!         self.0[index].len()
//!     }
//! }
//!
//! let data = Sentences(vec![vec![5, 6], vec![7], vec![8, 9, 10]]);
//! let mut shapes = Vec::new();
//! each_batch(&data, 2, |batch| {
//!     shapes.push(batch.shape().to_vec());
//!     Ok(())
//! })?;
//! assert_eq!(shapes, [[2, 2], [1, 3]]);
//! # Ok::<(), tenfold::Error>(())
//! ```

mod batches;
mod loader;
mod rows;

pub use batches::{Batches, Epoch};
pub use loader::each_batch;
pub(super) use loader::{Loader, Passes};
pub use rows::Rows;

use crate::error::Result;

/// Examples that are made into batches, by index.
///
/// It is shared with the threads that fetch batches. What it does should depend on its arguments alone: a run that is resumed
/// asks for the same indices again and expects the same batch.
pub trait Dataset: Sync {
    /// What the loss function takes: tensors, or a struct of them.
    type Batch: Send;

    /// The number of examples.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The batch of these examples, in this order.
    ///
    /// # Errors
    /// Its own. The run adds the index of the example at fault, which it finds by asking for each example alone.
    fn batch(&self, indices: &[usize]) -> Result<Self::Batch>;

    /// The batch of these examples for training, with changes at random: crops, mirrored images.
    ///
    /// `seed` is a function of the run's seed, the epoch and the place of the batch in it; all that is random has to follow from
    /// it. Without augmentation this is [`batch`](Dataset::batch).
    ///
    /// # Errors
    /// As [`batch`](Dataset::batch).
    fn augmented(&self, indices: &[usize], seed: u64) -> Result<Self::Batch> {
        let _ = seed;
        self.batch(indices)
    }

    /// The length of an example, by which [`Batches::buckets`] puts alike ones together. 0 where lengths do not differ.
    fn length(&self, index: usize) -> usize {
        let _ = index;
        0
    }
}
