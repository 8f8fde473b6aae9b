//! Metrics: what evaluations report.
//!
//! Both accumulators are filled batch by batch with `update` and may be asked at any time:
//!
//! | | for | gives |
//! |---|---|---|
//! | [`Confusion`] | class labels: of sentences, images, pixels | accuracy, F1, Matthews' correlation, IoU |
//! | [`Correlation`] | real numbers: similarity scores | Pearson's and Spearman's correlation |
//!
//! Values are those of scikit-learn and scipy, also where a formula has no value (a class that never occurs, numbers that are all
//! the same); each method says what it gives then. They count in whole numbers and doubles, so batches may be of any size.
//!
//! ```
//! use ndarray::array;
//! use tenfold::{Tensor, train::metrics::Confusion};
//!
//! let mut confusion = Confusion::new(2)?;
//! let logits = Tensor::from(array![[2.0, 1.0], [0.0, 3.0], [1.0, 4.0], [0.5, 0.1]]);
//! confusion.update_logits(&logits, &Tensor::from(array![0u32, 1, 0, 0]))?; // predicts 0, 1, 1, 0
//! assert_eq!(confusion.accuracy(), 0.75);
//! assert_eq!(confusion.f1(1), 2.0 / 3.0); // precision 1/2, recall 1
//! # Ok::<(), tenfold::Error>(())
//! ```

mod confusion;
mod correlation;

pub use confusion::Confusion;
pub use correlation::Correlation;
