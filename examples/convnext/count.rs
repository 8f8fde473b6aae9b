//! `count`: how many numbers would train.

use crate::{counted::report, method::MethodArguments};
use clap::Args;
use std::process::ExitCode;
use tenfold::{Result, models::Architecture, peft::Targets};

/// Count the parameters that a method would train in a backbone, layer by layer. The head is not counted.
///
/// The table shows beside each layer's parameters in how many directions its weight can really move ("reached"), and how many columns of
/// factors are of no use ("wasted"): --clip leaves those out.
///
///   convnext count --size large --method flora --rank 40 --kernel-rank 3
///   convnext count --arch resnet20 --method lora-k --rank 4 --json
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// ConvNeXt-V2: atto, femto, pico, nano, tiny, base, large or huge.
    #[arg(long, conflicts_with = "arch", required_unless_present = "arch")]
    size: Option<String>,
    /// Any architecture: convnextv2-large, convnext-tiny, resnet20, efficientnet-lite0, ..
    #[arg(long)]
    arch: Option<String>,
    #[command(flatten)]
    method: MethodArguments,
    /// Let the last line of standard output be one JSON object.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(&self) -> Result<ExitCode> {
        let arch = match (&self.arch, &self.size) {
            (Some(arch), _) => arch.clone(),
            (None, size) => format!("convnextv2-{}", size.as_deref().unwrap_or_default()),
        };
        let model = Architecture::named(&arch)?.with_labels(0).zeros::<f32>()?;
        let method = self.method.build()?;
        report((&arch, "backbone"), &model, &*method, Targets::all(), self.json)?;
        Ok(ExitCode::SUCCESS)
    }
}
