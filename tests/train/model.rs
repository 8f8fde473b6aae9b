//! A small model with everything that a run has to keep: weights that train and that do not, running statistics, dropout, two adapters on
//! one layer that drop parts of its input each for itself; a data set
//! with sequences of different lengths and augmentation; and the run that the tests repeat, break off, and kill.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::{ops::ControlFlow, path::Path};
use tenfold::{
    Result, Scalar, Tensor,
    autodiff::{CrossEntropy, Var},
    module,
    nn::{BatchNorm, Dropout, Linear, Mode, Module},
    peft::{Attach, Lora, Targets},
    train::{
        AdamW, Best, Dataset, Event, Every, Groups, Report, Schedule, Scores, Trainer, each_batch, metrics::Confusion,
    },
};

pub const CLASSES: usize = 3;
const FEATURES: usize = 4;

pub struct Net<T: Scalar> {
    base: Linear<T>,
    dense: Linear<T>,
    norm: BatchNorm<T>,
    head: Linear<T>,
    dropout: Dropout,
}
module!(Net { base, dense, norm, head });

impl<T: Scalar> Net<T> {
    /// `seed` is that of the frozen weights; the others always start alike.
    pub fn new(width: usize, seed: u64) -> Self {
        let rng = &mut ChaCha8Rng::seed_from_u64(3);
        let mut net = Self {
            base: Linear::new(FEATURES, width, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap(),
            dense: Linear::new(width, width, rng).unwrap(),
            norm: BatchNorm::new(width, 1e-5).unwrap(),
            head: Linear::new(width, CLASSES, rng).unwrap(),
            dropout: Dropout::new(0.2, 0).unwrap(),
        };
        for (name, rank) in [("one", 2), ("two", 1)] {
            let lora = Lora::new(rank).dropout(0.3);
            Attach::new(&lora).to(Targets::of(["base"])).name(name).apply(&mut net).unwrap();
        }
        net.train_only(&|name| !["base.weight", "base.bias"].contains(&name));
        net
    }

    /// Logits `[batch, classes]` of x `[batch, length, features]`.
    pub fn forward(&self, x: &Var<T>, mode: Mode) -> Result<Var<T>> {
        let x = self.base.forward(x, mode)?.gelu()?.mean_modes(&[1], false)?;
        let x = self.norm.forward(&self.dense.forward(&x, mode)?, mode)?.relu()?;
        self.head.forward(&self.dropout.forward(&x, mode)?, mode)
    }
}

impl Net<f64> {
    pub fn loss(&self, (x, y): (Tensor<f64>, Tensor<u32>), mode: Mode) -> Result<Var<f64>> {
        self.forward(&x.into(), mode)?.cross_entropy(&y, CrossEntropy::default())
    }

    pub fn scores(&self, data: &Sequences) -> Result<Scores> {
        let mut confusion = Confusion::new(CLASSES)?;
        each_batch(data, 16, |(x, y)| confusion.update_logits(self.forward(&x.into(), Mode::Evaluation)?.value(), &y))?;
        Ok(Scores::new().with("accuracy", confusion.accuracy()).with("f1", confusion.f1_macro()))
    }
}

/// So many sequences, padded with zeros to the longest of a batch.
pub struct Sequences(pub usize);

impl Dataset for Sequences {
    type Batch = (Tensor<f64>, Tensor<u32>);

    fn len(&self) -> usize {
        self.0
    }

    fn batch(&self, indices: &[usize]) -> Result<Self::Batch> {
        let longest = indices.iter().map(|&i| self.length(i)).max().unwrap_or(1);
        let x = Tensor::from_fn(vec![indices.len(), longest, FEATURES], |at| {
            let example = indices[at[0]];
            if at[1] >= self.length(example) {
                return 0.0;
            }
            ((example * 31 + at[1] * 7 + at[2] * 3) as f64).sin()
                + ((example % CLASSES) as f64 - 1.0) / (1.0 + at[2] as f64)
        })?;
        Ok((x, Tensor::from_fn(vec![indices.len()], |at| (indices[at[0]] % CLASSES) as u32)?))
    }

    fn augmented(&self, indices: &[usize], seed: u64) -> Result<Self::Batch> {
        let (x, y) = self.batch(indices)?;
        let noise = Tensor::<f64, _>::normal(x.shape(), &mut ChaCha8Rng::seed_from_u64(seed))?;
        Ok((x.add(&noise.scale(0.1)?)?, y))
    }

    fn length(&self, index: usize) -> usize {
        2 + index * 7 % 9
    }
}

/// The run: everything that may go wrong where a run goes on is in it.
pub fn trainer() -> Trainer {
    Trainer::new(AdamW::new(0.01))
        .groups(Groups::new().no_decay_on_vectors().rate("head.*", 2.0))
        .schedule(Schedule::cosine().warmup_steps(5))
        .steps(40)
        .batch_size(5)
        .buckets(3)
        .accumulate(2)
        .clip(0.5)
        .seed(11)
        .evaluate(Every::Steps(3))
        .best(Best::highest("accuracy"))
        .save(Every::Steps(1))
        .workers(2)
}

/// Trains a new model, and gives it back; `watch` may break off.
pub fn train(
    trainer: &Trainer,
    width: usize,
    watch: impl FnMut(&Event<'_>) -> ControlFlow<()>,
) -> Result<(Net<f64>, Report)> {
    let (data, mut net) = (Sequences(47), Net::new(width, 1));
    let report = trainer.fit_with(&mut net, &data, Net::loss, |net| net.scores(&data), watch)?;
    Ok((net, report))
}

/// Goes on to the end.
pub fn unwatched(_: &Event<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Breaks off once so many steps are taken.
pub fn until(most: u64) -> impl FnMut(&Event<'_>) -> ControlFlow<()> {
    move |event| match event {
        Event::Step(step) if step.step >= most => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    }
}

/// All numbers of a model, as bits.
pub fn bits(net: &Net<f64>) -> Vec<u64> {
    let parameters = net.parameters().into_iter().map(|(_, parameter)| parameter.value().to_vec().unwrap());
    let buffers = net.buffers().into_iter().map(|(_, buffer)| buffer.value().to_vec().unwrap());
    parameters.chain(buffers).flatten().map(f64::to_bits).collect()
}

/// The log of a run without what depends on the clock.
pub fn log(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("log.jsonl")).unwrap();
    let line = |line: &str| {
        let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
        for clock in ["seconds", "waited", "examples_per_second"] {
            value.as_object_mut().unwrap().remove(clock);
        }
        value
    };
    text.lines().map(line).collect()
}

/// Checkpoints that are being written, or were when a process was killed.
pub fn unfinished(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let begun = |name: &str| (name.starts_with(".last.") || name.starts_with(".best.")) && name.ends_with(".tmp");
    entries.filter(|entry| begun(&entry.as_ref().unwrap().file_name().to_string_lossy())).count()
}
