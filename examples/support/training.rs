//! The flags that say how a run goes, the same for all examples, and what a run came to.

use clap::Args;
use serde_json::Value;
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};
use tenfold::{
    Error, ErrorKind, Result,
    train::{AdamW, Best, Groups, Record, Schedule, Trainer, read_log},
};

/// How the run goes.
#[derive(Args)]
#[command(next_help_heading = "Training")]
pub struct TrainingArguments {
    /// The folder of the run: checkpoint, best weights, log, curves, and what comes out.
    #[arg(long)]
    pub out: PathBuf,
    /// Go on with the run in --out from its last checkpoint; the result is that of a run that was never interrupted.
    #[arg(long)]
    pub resume: bool,
    /// AdamW's learning rate at its highest.
    #[arg(long)]
    pub lr: Option<f64>,
    /// How often the training data are gone through.
    #[arg(long)]
    pub epochs: Option<u64>,
    /// Examples in a batch.
    #[arg(long)]
    pub batch: Option<usize>,
    /// How the rate goes up and down: constant, linear, cosine, .., with warmup-ratio=0.1 or warmup=100 steps, floor=0.01
    /// [default: cosine:warmup-ratio=0.1; for GLUE, linear with the paper's warm-up].
    #[arg(long)]
    pub schedule: Option<Schedule>,
    /// AdamW's decay of weights; vectors (biases, norms) have none [default: 0.01; for GLUE, the paper's].
    #[arg(long)]
    pub weight_decay: Option<f64>,
    /// Shorten gradients to this norm.
    #[arg(long, default_value_t = 1.0)]
    pub clip_norm: f64,
    /// Spread this much of each target evenly over all classes.
    #[arg(long, default_value_t = 0.0)]
    pub label_smoothing: f64,
    /// Fixes everything random.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Threads that prepare batches while the model computes.
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
    /// Let the last line of standard output be one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Rate, epochs, batch size, and what goes with them.
pub struct Pace {
    pub lr: f64,
    pub epochs: u64,
    pub batch: usize,
    pub schedule: Schedule,
    pub weight_decay: f64,
}

impl Pace {
    /// With a cosine after a warm-up of a tenth, and a decay of 0.01.
    pub fn new(lr: f64, epochs: u64, batch: usize) -> Self {
        Self { lr, epochs, batch, schedule: Schedule::cosine().warmup_ratio(0.1), weight_decay: 0.01 }
    }
}

impl TrainingArguments {
    /// What the command line says of the pace, and what holds where it says nothing; a batch is then no larger than the `examples`.
    pub fn pace(&self, default: Pace, examples: usize) -> Pace {
        Pace {
            lr: self.lr.unwrap_or(default.lr),
            epochs: self.epochs.unwrap_or(default.epochs),
            batch: self.batch.unwrap_or(default.batch.min(examples)),
            schedule: self.schedule.clone().unwrap_or(default.schedule),
            weight_decay: self.weight_decay.unwrap_or(default.weight_decay),
        }
    }

    /// The trainer, which keeps the weights that are best by `score`.
    pub fn trainer(&self, pace: &Pace, score: &str) -> Trainer {
        Trainer::new(AdamW::new(pace.lr).weight_decay(pace.weight_decay))
            .groups(Groups::new().no_decay_on_vectors())
            .schedule(pace.schedule.clone())
            .epochs(pace.epochs)
            .batch_size(pace.batch)
            .clip(self.clip_norm)
            .seed(self.seed)
            .workers(self.workers)
            .best(Best::highest(score))
            .restore_best()
            .folder(&self.out)
            .resume(self.resume)
    }

    /// Keeps what decides about the data in the run's folder, and refuses to go on with other settings than those that are there.
    ///
    /// The trainer compares everything that it knows of; how images or sentences are prepared it cannot know. The file that comes back is
    /// locked as long as it is open: another run in the folder is refused before it writes here. It is to be held until the run ends.
    pub fn keep_settings(&self, settings: &Value) -> Result<File> {
        let path = self.out.join("settings.json");
        let io = |e: std::io::Error| Error::new(ErrorKind::Io, "settings", format!("{}: {e}", path.display()));
        std::fs::create_dir_all(&self.out).map_err(io)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(io)?;
        // Some file systems have no locks; the run goes on without one.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            let message =
                format!("{}: another run is writing here; wait for its end, or name another --out", path.display());
            return Err(Error::new(ErrorKind::Io, "settings", message));
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(io)?;
        if self.resume && !text.is_empty() {
            let kept: Value = serde_json::from_str(&text)
                .map_err(|e| Error::new(ErrorKind::Format, "settings", format!("{}: {e}", path.display())))?;
            same(&path, &kept, settings)?;
        // The trainer refuses to begin where a run is, whose settings these are.
        } else if self.resume || !self.out.join("last.safetensors").exists() {
            let text = format!("{settings:#}\n");
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes())).map_err(io)?;
        }
        Ok(file)
    }
}

/// An error that names the settings which differ.
fn same(path: &Path, kept: &Value, now: &Value) -> Result<()> {
    let names = now.as_object().into_iter().flatten().map(|(name, _)| name);
    let differ = |name: &&String| kept.get(name.as_str()) != now.get(name.as_str());
    let changes: Vec<String> = names
        .filter(differ)
        .map(|name| format!("{name} was {} and is {}", kept.get(name).unwrap_or(&Value::Null), now[name.as_str()]))
        .collect();
    if changes.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{}: the run began with other settings: {}; resume it with those, or name another --out",
        path.display(),
        changes.join("; ")
    );
    Err(Error::new(ErrorKind::Value, "settings", message))
}

/// What the log of a run says about its training, all of it or what came last.
pub struct Logged {
    /// The mean loss of the last epoch's steps.
    pub loss: f64,
    /// Of all steps, without evaluations and checkpoints.
    pub examples_per_second: f64,
}

impl Logged {
    /// Reads the log of the run in a folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let records = read_log(folder.join("log.jsonl"))?;
        let steps: Vec<_> = records
            .iter()
            .filter_map(|record| match record {
                Record::Step(step) => Some(step),
                Record::Evaluation(_) => None,
            })
            .collect();
        let last = steps.last().map_or(0, |step| step.epoch);
        let losses: Vec<f64> = steps.iter().filter(|step| step.epoch == last).map(|step| step.loss).collect();
        let examples: f64 = steps.iter().map(|step| step.examples as f64).sum();
        let seconds: f64 = steps.iter().map(|step| step.examples as f64 / step.examples_per_second).sum();
        Ok(Self { loss: losses.iter().sum::<f64>() / losses.len() as f64, examples_per_second: examples / seconds })
    }
}
