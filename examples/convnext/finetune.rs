//! `finetune`: trained weights for images of one's own.

use crate::{
    compute::ComputeArguments,
    data::DataArguments,
    method::MethodArguments,
    model::ModelArguments,
    run::Run,
    training::{Pace, TrainingArguments},
};
use clap::Args;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::process::ExitCode;
use tenfold::{
    Result,
    autodiff::Gradients,
    models::ImageClassifier,
    nn::{Mode, Module},
    peft::{self, Attach, Method, Plan, Probe, Targets, WeightGradients, weight_gradients},
    train::{AdamW, Dataset, Stop, Trainer},
    vision::ImageBatch,
};

/// How many batches the first gradients are of, and how many epochs the head trains alone before them.
const FIRST_BATCHES: usize = 8;
const FIRST_EPOCHS: u64 = 2;

/// Adapt trained weights to other images: a new head, and a method that says what else trains.
///
/// Everything but the method's own numbers stays frozen. --out holds the run (checkpoint, log, curves; --resume goes on, Ctrl-C finishes
/// the step and saves), and at the end
///   OUT/adapter   what was trained, a small file, in the layout of Hugging Face's PEFT
///   OUT/model     the whole network with the updates folded into its weights, under the names that its library has
///
///   convnext finetune --model runs/base/model --train scenes.safetensors --test-part 0.2 --out runs/flora --method flora --rank 8
///   convnext finetune --model facebook/convnextv2-tiny-22k-224 --train photos/ --out runs/lora --method lora --rank 8 --flip
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    method: MethodArguments,
    #[command(flatten)]
    data: DataArguments,
    #[command(flatten)]
    training: TrainingArguments,
    #[command(flatten)]
    compute: ComputeArguments,
}

impl Arguments {
    pub fn run(&self) -> Result<ExitCode> {
        let device = self.compute.device()?;
        let method = self.method.build()?;
        let (mut model, architecture) = self.model.read()?;
        let data = self.data.open(architecture.input())?;
        println!("{data}");
        model.reset_classifier(data.classes.len(), &mut ChaCha8Rng::seed_from_u64(self.training.seed))?;
        model.to_device(&device)?;
        let (images, training) = (&self.data, &self.training);
        let pace = training.pace(pace_of(method.name()), data.train.len());
        let run = Run { data: &data, images, training, pace, device: &device };
        let plan = self.attach(&*method, &mut model, &run)?;
        let report = run.train(&mut model)?;
        let more = json!({
            "arch": self.model.arch,
            "method": method.name(),
            "rank": plan.rows.iter().find(|row| row.attached).map(|row| row.outline.ranks.clone()),
            "total": plan.model,
        });
        let code = run.conclude(&*model, &report, more)?;
        if report.stopped != Stop::Interrupted {
            peft::save(&model, training.out.join("adapter"))?;
            if method.attaches() {
                peft::merge(&mut model)?;
            }
            model.write(&training.out.join("model"))?;
        }
        Ok(code)
    }

    /// Attaches the method to everything but the head, which trains as it is.
    fn attach(
        &self,
        method: &dyn Method<f32>,
        model: &mut Box<dyn ImageClassifier<f32>>,
        run: &Run<'_>,
    ) -> Result<Plan> {
        let head = Targets::of([model.head()]);
        let first = match self.method.recipe().needs_gradients() {
            true => Some(self.first_gradients(model, run)?),
            false => None,
        };
        let mut attach = Attach::new(method).to(Targets::all().except(model.head())).keep(head);
        if let Some(first) = &first {
            attach = attach.gradients(first);
        }
        let plan = attach.seed(self.training.seed).apply(model)?;
        println!("{} of {} numbers train", model.count().trainable, model.count().total);
        Ok(plan)
    }

    /// The gradients of all weights but the head's, after the head alone was trained a little: before, it would only say what a random
    /// head says. A function of the seed, so that a run that is resumed begins with the same.
    fn first_gradients(
        &self,
        model: &mut Box<dyn ImageClassifier<f32>>,
        run: &Run<'_>,
    ) -> Result<WeightGradients<f32>> {
        let (head, size, train) = (model.head(), run.pace.batch, &run.data.train);
        let loss = |model: &dyn ImageClassifier<f32>, images: ImageBatch, mode| {
            let images = images.to_device(run.device)?;
            images.loss(&model.forward(&images.images.clone().into(), mode)?, self.training.label_smoothing)
        };
        Attach::new(&Probe).keep(Targets::of([head])).apply(model)?;
        let probe = Trainer::new(AdamW::new(1e-3)).epochs(FIRST_EPOCHS).batch_size(size).seed(self.training.seed);
        probe.fit(model, train, |model, images, mode| loss(&**model, images, mode))?;
        model.unfreeze_all();
        let mut sum: Option<Gradients<f32>> = None;
        let stride = (train.len() / (FIRST_BATCHES * size).max(1)).max(1);
        // Images from everywhere: neighbours are of one class.
        let spread: Vec<usize> = (0..train.len()).step_by(stride).collect();
        for indices in spread.chunks(size).take(FIRST_BATCHES) {
            let gradients = loss(&**model, train.batch(indices)?, Mode::Evaluation)?.backward()?;
            match &mut sum {
                Some(sum) => sum.accumulate(gradients)?,
                None => sum = Some(gradients),
            }
        }
        let mut first = sum.map(|sum| weight_gradients(model, &sum)).unwrap_or_default();
        first.retain(|name, _| name != head);
        Ok(first)
    }
}

/// Rates that suit: few numbers move far, many a little.
fn pace_of(method: &str) -> Pace {
    let lr = match method {
        "full" => 3e-4,
        "probe" | "bitfit" => 5e-3,
        _ => 2e-3,
    };
    Pace { lr, epochs: 12, batch: 32 }
}
