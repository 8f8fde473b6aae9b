//! `pretrain`: a network from scratch.

use crate::{
    compute::ComputeArguments,
    data::DataArguments,
    model::dropping,
    run::Run,
    training::{Pace, TrainingArguments},
};
use clap::Args;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::process::ExitCode;
use tenfold::{
    Error, ErrorKind, Result,
    models::Architecture,
    nn::Module,
    train::{Dataset, Stop},
};

/// Train a network from scratch.
///
/// The run keeps its checkpoint, log and curves in --out, and can be killed at any moment: with --resume it goes on as if nothing had
/// happened. Ctrl-C finishes the step and saves. The weights of the best epoch are in OUT/model at the end, for finetune --model OUT/model.
///
///   convnext pretrain --arch convnextv2-atto --patch 2 --train cifar/train --valid cifar/valid --flip --crop 4 --out runs/base
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// The network: convnextv2-atto, convnext-tiny, resnet20, efficientnet-lite0, ..
    #[arg(long)]
    arch: String,
    /// ConvNeXt: the side of the patches that images are cut into; 2 suits images of 32 pixels [default: 4].
    #[arg(long)]
    patch: Option<usize>,
    /// ConvNeXt and EfficientNet: the probability with which the last residual branch is dropped for an image.
    #[arg(long)]
    drop_path: Option<f64>,
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
        let architecture = self.architecture()?;
        let data = self.data.open(architecture.input())?;
        println!("{data}");
        let mut model =
            architecture.with_labels(data.classes.len()).build(&mut ChaCha8Rng::seed_from_u64(self.training.seed))?;
        model.name_labels(&data.classes)?;
        model.to_device(&device)?;
        let (images, training) = (&self.data, &self.training);
        let pace = training.pace(Pace::new(2e-3, 20, 128), data.train.len());
        let run = Run { data: &data, images, training, pace, device: &device, precision: &self.compute.precision };
        let report = run.train(&mut model, None)?;
        if report.stopped != Stop::Interrupted {
            model.write(&training.out.join("model"))?;
        }
        run.conclude(&*model, &report, json!({ "arch": self.arch, "method": "full" }))
    }

    fn architecture(&self) -> Result<Architecture> {
        let mut architecture = Architecture::named(&self.arch)?;
        match (&mut architecture, self.patch) {
            (_, None) => {}
            (Architecture::ConvNext(config), Some(patch)) => config.patch_size = patch,
            _ => {
                let message = format!("{} cuts no patches; leave --patch out", self.arch);
                return Err(Error::new(ErrorKind::Value, "convnext", message));
            }
        }
        dropping(architecture, self.drop_path)
    }
}
