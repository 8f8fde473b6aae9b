//! `count`: how many numbers would train.

use crate::{
    counted::report,
    method::{MethodArguments, updates_weights},
};
use clap::Args;
use std::process::ExitCode;
use tenfold::{
    Result,
    models::{Deberta, DebertaConfig, TextClassifier},
    peft::Targets,
};

/// Count the parameters that a method would train in DeBERTa's encoder, layer by layer. The head is not counted.
///
/// lora, dora and flora adapt the six linear layers of every block: query, key, value, attention output, and both of the feed-forward part.
/// bitfit trains all biases, full everything. The table shows beside each layer's parameters in how many directions its weight can
/// really move ("reached"): with both ranks equal, flora and lora reach the same matrices.
///
///   glue count --size base --method flora --rank 2
///   glue count --arch deberta-v2-xlarge --method lora --rank 8 --json
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// DeBERTa-v3: xsmall, small, base or large.
    #[arg(long, conflicts_with = "arch", required_unless_present = "arch")]
    size: Option<String>,
    /// Any published size: deberta-v3-base, mdeberta-v3-base, deberta-v2-xlarge, ..
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
            (None, size) => format!("deberta-v3-{}", size.as_deref().unwrap_or_default()),
        };
        let config = DebertaConfig { num_labels: 0, ..DebertaConfig::named(&arch)? };
        let model = Deberta::<f32>::zeros(config)?;
        let method = self.method.build()?;
        let targets =
            if updates_weights(&*method) { Targets::of(model.linears().iter().copied()) } else { Targets::all() };
        report((&arch, "encoder"), &model, &*method, targets, self.json)?;
        Ok(ExitCode::SUCCESS)
    }
}
