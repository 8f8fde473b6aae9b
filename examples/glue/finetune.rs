//! `finetune`: a published model for one of GLUE's tasks.

use crate::{
    compute::{ComputeArguments, peak_memory},
    data::{Data, DataArguments},
    defaults::Defaults,
    first::first_gradients,
    method::{MethodArguments, print_ranks, updates_weights, with_penalty},
    training::{Logged, Pace, TrainingArguments},
};
use clap::Args;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::process::ExitCode;
use tenfold::{
    Device, Error, ErrorKind, Result,
    autodiff::Var,
    hub::{self, TEXT_MODEL},
    models::{TextArchitecture, TextClassifier},
    nn::{Mode, Module},
    peft::{self, AdaLora, Attach, Method, Recipe, Targets},
    text::{Part, TextBatch, Tokenizer},
    train::{Dataset, Report, Scores, Stop, Terminal},
};

/// Batches among which texts are sorted by length.
const BUCKETS: usize = 50;

/// Adapt a published text model to a task: a new head, and a method that says what else trains.
///
/// Everything but the method's own numbers and the head (pooler and classifier) stays frozen. What the command line leaves out is as FLoRA's
/// authors published it for the task: rate, epochs, warm-up, lengths, dropout, alpha. --out holds the run (checkpoint, log,
/// curves; --resume goes on, Ctrl-C finishes the step and saves), and at the end
///   OUT/adapter    what was trained, a small file, in the layout of Hugging Face's PEFT
///   OUT/model      the whole network with the updates folded into its weights, for transformers
///   OUT/MRPC.tsv   with --predict: what GLUE's server takes
///
///   glue finetune --task mrpc --data glue_data --model microsoft/deberta-v3-base --out runs/mrpc --method flora --rank 8
///   glue finetune --task cola --data glue_data/CoLA --model minilm/ --out runs/cola --method lora --rank 8 --epochs 5 --json
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// The model: a folder with config.json, model.safetensors and a tokenizer (tokenizer.json, spm.model or vocab.txt), or a name on Hugging
    /// Face's hub such as microsoft/deberta-v3-base (downloaded in a build with the feature hub).
    #[arg(long)]
    model: String,
    /// Drop entries of the pooled state with this probability [default: the paper's for the task].
    #[arg(long)]
    classifier_dropout: Option<f64>,
    /// Record at every evaluation how far updates have moved the weights, the mean norm over layers, and how strongly they amplify directions
    /// (the feature amplification factor of LoRA's paper).
    #[arg(long)]
    updates: bool,
    #[command(flatten)]
    method: MethodArguments,
    #[command(flatten)]
    data: DataArguments,
    #[command(flatten)]
    training: TrainingArguments,
    #[command(flatten)]
    compute: ComputeArguments,
}

/// A model of whichever architecture.
type Model = Box<dyn TextClassifier<f32>>;

impl Arguments {
    pub fn run(&self) -> Result<ExitCode> {
        let (device, training) = (self.compute.device()?, &self.training);
        let defaults = Defaults::of(self.data.task()?);
        let recipe = defaults.recipe(self.method.recipe());
        let method = recipe.build()?;
        if self.updates && !updates_weights(&*method) {
            let message = format!("{:?} has no updates of weights to record", method.name());
            return Err(Error::new(ErrorKind::Unsupported, "--updates", message));
        }
        let folder = hub::locate(&self.model, &TEXT_MODEL)?;
        let tokenizer = Tokenizer::open(&folder)?;
        let mut model = TextArchitecture::open(&folder)?;
        tokenizer.check(&*model)?;
        let data = self.data.open(&tokenizer, defaults.max_length, model.most_tokens())?;
        println!("{data}");
        model.reset_classifier(data.task.labels(), &mut ChaCha8Rng::seed_from_u64(training.seed))?;
        model.name_labels(&data.task.label_names())?;
        model.set_classifier_dropout(self.classifier_dropout.unwrap_or(defaults.classifier_dropout))?;
        model.to_device(&device)?;
        let own = defaults.pace(method.name(), training.epochs, training.batch, data.train.len());
        let pace = training.pace(own, data.train.len());
        self.attach(&recipe, &*method, &mut model, &data, &pace, &device)?;
        let trainable = model.count().trainable;
        let report = self.train(&mut model, recipe.adalora().as_ref(), &data, &pace, &device)?;
        if recipe.adalora().is_some() {
            print_ranks(&model)?;
        }
        let finished = report.stopped != Stop::Interrupted;
        let scores = if finished { Some(self.evaluate(&model, &data, pace.batch)?) } else { None };
        if finished {
            self.write(&mut model, &*method, &data, &pace)?;
        }
        self.conclude(&data, &*method, &report, scores, trainable, &device)?;
        // As a shell says Ctrl-C: 128 and the number of the signal.
        Ok(if finished { ExitCode::SUCCESS } else { ExitCode::from(130) })
    }

    /// The loss of a batch.
    fn loss(&self, model: &Model, batch: &TextBatch, mode: Mode, device: &Device) -> Result<Var<f32>> {
        let batch = batch.to_device(device)?;
        batch.loss(&model.forward(&batch.tokens, mode)?, self.training.label_smoothing)
    }

    /// Attaches the method to the linear layers of blocks, or to where bottlenecks stand; of the others, everything or all biases trains. The
    /// head trains as it is.
    fn attach(
        &self,
        recipe: &Recipe,
        method: &dyn Method<f32>,
        model: &mut Model,
        data: &Data,
        pace: &Pace,
        device: &Device,
    ) -> Result<()> {
        let head = model.head();
        let first = match recipe.needs_gradients() {
            true => {
                let size = (pace.batch, self.training.seed);
                let loss = |model: &Model, batch: TextBatch, mode| self.loss(model, &batch, mode, device);
                Some(first_gradients(model, &data.train, head, size, loss)?)
            }
            false => None,
        };
        let targets = if updates_weights(method) {
            Targets::of(model.linears().iter().copied())
        } else if method.attaches() {
            Targets::all()
        } else {
            head.iter().fold(Targets::all(), |targets, part| targets.except(*part))
        };
        let mut attach = Attach::new(method).to(targets).keep(Targets::of(head.iter().copied()));
        if let Some(first) = &first {
            attach = attach.gradients(first);
        }
        attach.seed(self.training.seed).apply(model)?;
        println!("{} of {} numbers train", model.count().trainable, model.count().total);
        Ok(())
    }

    /// Trains the model, with a budget of ranks where the method has one; it has the weights of the best epoch then.
    fn train(
        &self,
        model: &mut Model,
        adalora: Option<&AdaLora>,
        data: &Data,
        pace: &Pace,
        device: &Device,
    ) -> Result<Report> {
        let _locked = self.training.keep_settings(&data.settings(&self.data, &self.model))?;
        let mut terminal = Terminal::new()?;
        self.training.trainer(pace, "score").buckets(BUCKETS).fit_along(
            model,
            &data.train,
            |model, batch: TextBatch, mode| with_penalty(self.loss(model, &batch, mode, device)?, adalora, model),
            |model| self.evaluate(model, data, pace.batch),
            |event| terminal.watch(event),
            &mut adalora.map(AdaLora::allocator).transpose()?,
        )
    }

    /// The task's scores on dev, and what is recorded besides.
    fn evaluate(&self, model: &Model, data: &Data, batch: usize) -> Result<Scores> {
        let scores = evaluate(model, data, batch)?;
        if !self.updates {
            return Ok(scores);
        }
        let updates = peft::updates(model, "default")?;
        let scores = scores.with("update_norm", updates.mean_norm());
        Ok(updates.mean_amplification().map_or(scores.clone(), |factor| scores.with("amplification", factor)))
    }

    /// Adapter, predictions, and the whole model, unless it has bottlenecks, which are no part of a published architecture.
    fn write(&self, model: &mut Model, method: &dyn Method<f32>, data: &Data, pace: &Pace) -> Result<()> {
        let out = &self.training.out;
        for test in &data.test {
            let logits = test.texts.logits(&**model, pace.batch)?;
            let file = data.task.submit(&logits, &test.examples, test.part, out)?;
            println!("predictions in {}", file.display());
        }
        peft::save(model, out.join("adapter"))?;
        if updates_weights(method) {
            peft::merge(model)?;
        } else if method.attaches() {
            println!("bottlenecks cannot be merged: the adapter lies beside the model that it is for");
            return Ok(());
        }
        model.save(&out.join("model"))
    }

    /// Says what the run came to.
    fn conclude(
        &self,
        data: &Data,
        method: &dyn Method<f32>,
        report: &Report,
        scores: Option<Scores>,
        trainable: usize,
        device: &Device,
    ) -> Result<()> {
        let logged = Logged::read(&self.training.out)?;
        let found = scores.as_ref().map_or("interrupted".into(), ToString::to_string);
        println!(
            "{} with {}: {found}; train loss {:.4}, epoch {} of {}, {:.1} s, {:.1} examples a second",
            data.task,
            method.name(),
            logged.loss,
            report.best.as_ref().map_or(0, |best| best.epoch),
            report.evaluation.as_ref().map_or(0, |last| last.epoch),
            report.seconds,
            logged.examples_per_second,
        );
        if !self.training.json {
            return Ok(());
        }
        let mut line = json!({
            "task": data.task.name(),
            "method": method.name(),
            "trainable": trainable,
            "train_loss": logged.loss,
            "seconds": report.seconds,
            "examples_per_second": logged.examples_per_second,
            "peak_memory_bytes": peak_memory(),
            "steps": report.steps,
            "best_epoch": report.best.as_ref().map(|best| best.epoch),
            "stopped": report.stopped,
            "seed": self.training.seed,
            "device": device.to_string(),
            "precision": self.compute.precision,
            "out": self.training.out.display().to_string(),
        });
        if let (Some(line), Some(Ok(Value::Object(scores)))) = (line.as_object_mut(), scores.map(serde_json::to_value))
        {
            line.extend(scores);
        }
        println!("{line}");
        Ok(())
    }
}

/// The task's scores on dev; of MNLI those of the mismatched part have `_mm` in their names, and what decides is the mean of both.
fn evaluate(model: &Model, data: &Data, batch: usize) -> Result<Scores> {
    let mut all = Scores::new();
    let mut total = 0.0;
    for dev in &data.dev {
        let scores = data.task.scores(&dev.texts.logits(&**model, batch)?, &dev.texts)?;
        let end = if dev.part == Part::DevMismatched { "_mm" } else { "" };
        for (name, score) in scores.iter() {
            if name == "score" {
                total += score;
            } else {
                all = all.with(&format!("{name}{end}"), score);
            }
        }
    }
    Ok(all.with("score", total / data.dev.len() as f64))
}
