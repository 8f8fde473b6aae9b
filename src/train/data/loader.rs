//! Threads that make batches ahead of time.
//!
//! With n threads, thread k makes the batches k, k + n, k + 2n, and so on, and keeps a few of them in a queue of its own that is
//! bounded; the taker goes around the queues. So batches come in order whatever the threads do, no more of them are in memory than
//! the queues hold, and a taker waits only where making a batch takes longer than n steps. Threads make the order of each epoch by
//! themselves, so that the beginning of an epoch is ahead of time too. They end when the taker is dropped, or at the first error.

use super::{Batches, Dataset, Epoch};
use crate::{
    error::{Error, ErrorKind, Result},
    nn::mix,
};
use std::{
    any::Any,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{Builder, Scope},
    time::{Duration, Instant},
};

/// How many batches each thread's queue holds.
const AHEAD: usize = 2;

/// Which batches are to be made: a pass is the number of a batch, counted through all epochs.
pub(in crate::train) struct Passes {
    pub(in crate::train) batches: Batches,
    /// Of each epoch.
    pub(in crate::train) per_epoch: u64,
    pub(in crate::train) range: Range<u64>,
    /// The seed of augmentation; none for evaluation.
    pub(in crate::train) seed: Option<u64>,
}

/// A batch and how many examples are in it.
pub(in crate::train) struct Loaded<B> {
    pub(in crate::train) batch: B,
    pub(in crate::train) examples: usize,
}

/// The taker of batches.
pub(in crate::train) struct Loader<B> {
    queues: Vec<Receiver<Result<Loaded<B>>>>,
    next: usize,
    waited: Duration,
}

impl<B: Send> Loader<B> {
    /// Starts `threads` threads.
    pub(in crate::train) fn start<'scope, D: Dataset<Batch = B>>(
        scope: &'scope Scope<'scope, '_>,
        data: &'scope D,
        passes: &'scope Passes,
        threads: usize,
    ) -> Result<Self>
    where
        B: 'scope,
    {
        let mut queues = Vec::new();
        let threads = threads.max(1);
        for first in 0..threads {
            let (sender, queue) = sync_channel(AHEAD);
            queues.push(queue);
            let mine = passes.range.clone().skip(first).step_by(threads);
            Builder::new()
                .name(format!("tenfold-data-{first}"))
                .spawn_scoped(scope, move || Maker { data, passes, epoch: None }.run(mine, &sender))
                .map_err(|e| {
                    Error::new(ErrorKind::Io, "load", format!("no thread to load data: {e}")).with_source(e)
                })?;
        }
        Ok(Self { queues, next: 0, waited: Duration::ZERO })
    }

    /// The next batch.
    pub(in crate::train) fn next(&mut self) -> Result<Loaded<B>> {
        let start = Instant::now();
        let taken = self.queues[self.next].recv();
        self.waited += start.elapsed();
        self.next = (self.next + 1) % self.queues.len();
        taken.unwrap_or_else(|_| Err(Error::new(ErrorKind::Value, "load", "there are no more batches")))
    }

    /// How long [`next`](Loader::next) has waited since this was asked for the last time.
    pub(in crate::train) fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

/// What a thread has.
struct Maker<'d, D> {
    data: &'d D,
    passes: &'d Passes,
    /// The epoch made last, and its number.
    epoch: Option<(u64, Epoch)>,
}

impl<D: Dataset> Maker<'_, D> {
    fn run(mut self, mine: impl Iterator<Item = u64>, sender: &SyncSender<Result<Loaded<D::Batch>>>) {
        for pass in mine {
            let made = self.make(pass);
            let failed = made.is_err();
            if sender.send(made).is_err() || failed {
                return;
            }
        }
    }

    fn make(&mut self, pass: u64) -> Result<Loaded<D::Batch>> {
        let (number, batch) = (pass / self.passes.per_epoch, pass % self.passes.per_epoch);
        let (data, batches) = (self.data, &self.passes.batches);
        let epoch = match self.epoch.take().filter(|(held, _)| *held == number) {
            Some((_, epoch)) => epoch,
            None => caught(|| batches.epoch(data.len(), number, |i| data.length(i)))?,
        };
        let indices = epoch.get(batch as usize).unwrap_or_default();
        let make = |indices: &[usize]| match self.passes.seed {
            Some(seed) => caught(|| data.augmented(indices, mix(seed ^ mix(pass)))),
            None => caught(|| data.batch(indices)),
        };
        let made = make(indices).map_err(|error| match indices.iter().find_map(|&i| Some((i, make(&[i]).err()?))) {
            Some((index, error)) => at_fault(&format!("example {index}"), error),
            None => at_fault(&format!("the batch of examples {indices:?}"), error),
        });
        let loaded = made.map(|batch| Loaded { batch, examples: indices.len() });
        self.epoch = Some((number, epoch));
        loaded
    }
}

fn at_fault(what: &str, error: Error) -> Error {
    Error::new(error.kind(), "load", format!("{what}: {error}")).with_source(error)
}

/// What `work` returns, or an error where it panics.
fn caught<R>(work: impl FnOnce() -> Result<R>) -> Result<R> {
    // What a panic may leave half done is the data set's; the run ends with this error.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = format!("the data set panicked: {}", words(&*panic));
        Err(Error::new(ErrorKind::Value, "Dataset", message))
    })
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without words")
}

/// Hands every batch of a data set to `take`, in order and without augmentation, and makes the next ones meanwhile: for
/// evaluation. Batches have `size` examples, the last one perhaps fewer.
///
/// ```
/// use ndarray::array;
/// use tenfold::{Tensor, train::{Rows, each_batch}};
///
/// let data = Rows::new(&Tensor::from(array![1.0, 2.0, 3.0]), &Tensor::from(array![0u32, 1, 1]))?;
/// let mut sums = Vec::new();
/// each_batch(&data, 2, |(x, _)| {
///     sums.push(x.sum()?);
///     Ok(())
/// })?;
/// assert_eq!(sums, [3.0, 3.0]);
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Value`] for an empty data set and a size of 0; those of the data set, and of `take`.
pub fn each_batch<D: Dataset>(data: &D, size: usize, mut take: impl FnMut(D::Batch) -> Result<()>) -> Result<()> {
    let batches = Batches::new(size.min(data.len()));
    let count = batches.count(data.len())? as u64;
    let passes = Passes { batches, per_epoch: count, range: 0..count, seed: None };
    std::thread::scope(|scope| {
        let mut loader = Loader::start(scope, data, &passes, 1)?;
        (0..count).try_for_each(|_| take(loader.next()?.batch))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::atomic::AtomicUsize, sync::atomic::Ordering, thread::sleep};

    /// Example i is the number i; some take long, some fail.
    #[derive(Default)]
    struct Numbers {
        len: usize,
        slow: Duration,
        bad: Option<usize>,
        worse: Option<usize>,
        made: AtomicUsize,
    }

    impl Dataset for Numbers {
        type Batch = Vec<usize>;

        fn len(&self) -> usize {
            self.len
        }

        fn batch(&self, indices: &[usize]) -> Result<Vec<usize>> {
            sleep(self.slow);
            if self.bad.is_some_and(|bad| indices.contains(&bad)) {
                return Err(Error::new(ErrorKind::Format, "picture", "is no picture"));
            }
            assert!(!self.worse.is_some_and(|worse| indices.contains(&worse)), "cannot go on");
            self.made.fetch_add(1, Ordering::Relaxed);
            Ok(indices.to_vec())
        }

        fn augmented(&self, indices: &[usize], seed: u64) -> Result<Vec<usize>> {
            Ok(self.batch(indices)?.into_iter().chain([seed as usize]).collect())
        }
    }

    fn all(data: &Numbers, passes: &Passes, threads: usize) -> Result<Vec<Vec<usize>>> {
        std::thread::scope(|scope| {
            let mut loader = Loader::start(scope, data, passes, threads)?;
            passes.range.clone().map(|_| Ok(loader.next()?.batch)).collect()
        })
    }

    fn passes(range: Range<u64>) -> Passes {
        Passes { batches: Batches::new(3).shuffle(5), per_epoch: 4, range, seed: Some(9) }
    }

    #[test]
    fn batches_come_in_order_from_anywhere_with_any_number_of_threads() {
        let data = Numbers { len: 10, ..Default::default() };
        let whole = all(&data, &passes(0..12), 1).unwrap();
        assert_eq!(whole.len(), 12);
        for threads in [1, 2, 3, 20] {
            for first in [0, 1, 5, 11, 12] {
                assert_eq!(all(&data, &passes(first..12), threads).unwrap(), whole[first as usize..]);
            }
        }
        let seeds: std::collections::BTreeSet<usize> = whole.iter().filter_map(|batch| batch.last().copied()).collect();
        assert_eq!(seeds.len(), 12, "every batch has a seed of its own");
    }

    #[test]
    fn the_example_at_fault_is_named() {
        let data = Numbers { len: 10, bad: Some(7), ..Default::default() };
        let error = all(&data, &passes(0..4), 2).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::Format, "load: example 7: picture: is no picture")
        );
        let data = Numbers { len: 10, worse: Some(2), ..Default::default() };
        let error = all(&data, &passes(0..4), 1).unwrap_err();
        assert_eq!(error.to_string(), "load: example 2: Dataset: the data set panicked: cannot go on");
        assert!(each_batch(&data, 4, |_| Ok(())).is_err());
    }

    #[test]
    fn a_taker_that_leaves_ends_the_threads() {
        let data = Numbers { len: 1000, ..Default::default() };
        let passes = Passes { batches: Batches::new(1), per_epoch: 1000, range: 0..1000, seed: None };
        // The scope ends only once its threads have.
        std::thread::scope(|scope| {
            let mut loader = Loader::start(scope, &data, &passes, 2).unwrap();
            assert_eq!(loader.next().unwrap().batch, [0]);
        });
        // Two queues, and for each what is under way and what the taker took.
        assert!(data.made.load(Ordering::Relaxed) <= 2 * (AHEAD + 2));
        let gone = std::panic::catch_unwind(|| each_batch(&data, 1, |_| panic!("enough")));
        assert!(gone.is_err());
    }

    #[test]
    fn a_taker_that_is_slower_does_not_wait() {
        let data = Numbers { len: 12, slow: Duration::from_millis(15), ..Default::default() };
        let passes = Passes { batches: Batches::new(1), per_epoch: 12, range: 0..12, seed: None };
        std::thread::scope(|scope| {
            let mut loader = Loader::start(scope, &data, &passes, 1).unwrap();
            loader.next().unwrap();
            loader.take_waited();
            for _ in 1..12 {
                sleep(Duration::from_millis(25));
                loader.next().unwrap();
            }
            // Made when they are asked for, they would take 165 ms.
            assert!(loader.take_waited() < Duration::from_millis(80), "a step would wait");
            assert!(loader.next().is_err(), "that was all");
        });
    }

    #[test]
    fn evaluation_takes_all_in_order() {
        let data = Numbers { len: 7, ..Default::default() };
        let mut seen = Vec::new();
        each_batch(&data, 3, |batch| {
            seen.push(batch);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
        seen.clear();
        each_batch(&data, 100, |batch| {
            seen.push(batch);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [[0, 1, 2, 3, 4, 5, 6]]);
        assert!(each_batch(&data, 0, |_| Ok(())).is_err());
        assert!(
            each_batch(&Numbers::default(), 3, |_| Ok(())).unwrap_err().message().starts_with("the data set is empty")
        );
    }
}
