//! `finetune`: trained weights for images of one's own.

use crate::{
    compute::ComputeArguments,
    data::DataArguments,
    first::first_gradients,
    method::{MethodArguments, print_ranks, updates_weights},
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
    models::ImageClassifier,
    nn::Module,
    peft::{self, Attach, Method, Plan, Targets},
    train::{Dataset, Stop},
    vision::ImageBatch,
};

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
        model.name_labels(&data.classes)?;
        model.to_device(&device)?;
        let (images, training) = (&self.data, &self.training);
        let pace = training.pace(pace_of(method.name()), data.train.len());
        let run = Run { data: &data, images, training, pace, device: &device, precision: &self.compute.precision };
        let plan = self.attach(&*method, &mut model, &run)?;
        let adalora = self.method.recipe().adalora();
        let report = run.train(&mut model, adalora.as_ref())?;
        if adalora.is_some() {
            print_ranks(&model)?;
        }
        let more = json!({
            "arch": self.model.arch,
            "method": method.name(),
            "rank": plan.rows.iter().find(|row| row.attached).map(|row| row.outline.ranks.clone()),
            "total": plan.model,
        });
        let code = run.conclude(&*model, &report, more)?;
        if report.stopped != Stop::Interrupted {
            peft::save(&model, training.out.join("adapter"))?;
            if updates_weights(&*method) {
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
            true => {
                let (head, size) = (model.head(), (run.pace.batch, self.training.seed));
                Some(first_gradients(model, &run.data.train, &[head], size, |model, images: ImageBatch, mode| {
                    let images = images.to_device(run.device)?;
                    images.loss(&model.forward(&images.images.clone().into(), mode)?, self.training.label_smoothing)
                })?)
            }
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
}

/// Rates that suit: few numbers move far, many a little.
fn pace_of(method: &str) -> Pace {
    let lr = match method {
        "full" => 3e-4,
        "probe" | "bitfit" => 5e-3,
        _ => 2e-3,
    };
    Pace::new(lr, 12, 32)
}
