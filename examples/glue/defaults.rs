//! What each task is trained with where the command line says nothing: the settings that FLoRA's authors published for GLUE (AdamW, a
//! linear schedule, batches of 32).

use crate::training::Pace;
use tenfold::{
    peft::{FloraInit, Recipe, Scaling},
    text::Task,
    train::Schedule,
};

/// The settings of a task.
pub struct Defaults {
    pub max_length: usize,
    lr: f64,
    epochs: u64,
    warmup: WarmUp,
    pub classifier_dropout: f64,
    weight_decay: f64,
    alpha: f64,
}

#[derive(Clone, Copy)]
enum WarmUp {
    Steps(u64),
    Part(f64),
}

/// The rate of full fine-tuning, which is no method of theirs: that of BERT's authors.
const FULL_RATE: f64 = 2e-5;

/// The longest part of a run that warms up: their warm-ups are of their many epochs.
const MOST_WARMUP: f64 = 0.1;

impl Defaults {
    pub fn of(task: Task) -> Self {
        use WarmUp::{Part, Steps};
        let row = |max_length, lr, epochs, warmup, classifier_dropout, weight_decay, alpha| Self {
            max_length,
            lr,
            epochs,
            warmup,
            classifier_dropout,
            weight_decay,
            alpha,
        };
        match task {
            Task::Mnli => row(256, 5e-4, 7, Steps(1000), 0.15, 0.0, 16.0),
            Task::Sst2 => row(128, 8e-4, 24, Steps(1000), 0.0, 0.01, 16.0),
            Task::Cola => row(64, 8e-4, 25, Steps(100), 0.10, 0.0, 32.0),
            Task::Qqp => row(320, 8e-4, 5, Steps(2000), 0.15, 0.01, 16.0),
            Task::Qnli => row(512, 5e-4, 5, Steps(500), 0.1, 0.01, 32.0),
            Task::Rte => row(320, 1.2e-3, 50, Steps(200), 0.20, 0.01, 32.0),
            Task::Mrpc => row(320, 1e-3, 30, Part(0.1), 0.0, 0.01, 32.0),
            Task::Stsb => row(128, 2.2e-3, 25, Steps(100), 0.2, 0.1, 32.0),
        }
    }

    /// Rate, epochs, batch size, schedule and decay; the warm-up fits a run of `epochs` of `examples`.
    pub fn pace(&self, method: &str, epochs: Option<u64>, batch: Option<usize>, examples: usize) -> Pace {
        let (epochs, batch) = (epochs.unwrap_or(self.epochs), batch.unwrap_or(32));
        let steps = epochs.saturating_mul(examples.div_ceil(batch.max(1)) as u64);
        let most = (MOST_WARMUP * steps as f64) as u64;
        let schedule = match self.warmup {
            WarmUp::Steps(warmup) => Schedule::linear().warmup_steps(warmup.min(most)),
            WarmUp::Part(part) => Schedule::linear().warmup_ratio(part),
        };
        let lr = if method == "full" { FULL_RATE } else { self.lr };
        Pace { schedule, weight_decay: self.weight_decay, ..Pace::new(lr, epochs, batch) }
    }

    /// The method with the authors' scale, alpha over the rank, and their start of FLoRA's factors, where it says nothing of these.
    pub fn recipe(&self, recipe: Recipe) -> Recipe {
        let adapts = !matches!(recipe.method.as_str(), "full" | "probe" | "bitfit" | "hadapter" | "padapter");
        let scaling = recipe.scaling.or(adapts.then_some(Scaling::Rank { alpha: self.alpha }));
        let init = recipe.init.or((recipe.method == "flora").then_some(FloraInit::Normal));
        Recipe { scaling, init, ..recipe }
    }
}
