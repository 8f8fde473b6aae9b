//! GLUE from the command line: parameters counted, published text models adapted to its eight tasks, steps timed.
//!
//! ```sh
//! cargo run --release --example glue -- count --size base --method flora --rank 2
//! cargo run --release --example glue -- finetune --task mrpc --data glue_data --model microsoft/deberta-v3-base --out runs/mrpc --method flora
//! cargo run --release --example glue -- bench --size base --batch 8 --tokens 64 --method flora
//! ```
//!
//! | file | what |
//! |---|---|
//! | `defaults.rs` | what each task is trained with where the command line says nothing |
//! | `data.rs` | which texts, and how they are tokenised |
//! | `count.rs`, `finetune.rs`, `bench.rs` | the three commands |
//! | `../support` | what the examples share: methods, training, devices, first gradients |

mod bench;
#[path = "../support/compute.rs"]
mod compute;
mod count;
#[path = "../support/counted.rs"]
mod counted;
mod data;
mod defaults;
mod finetune;
#[path = "../support/first.rs"]
mod first;
#[path = "../support/method.rs"]
mod method;
#[path = "../support/step.rs"]
mod step;
#[path = "../support/training.rs"]
mod training;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Adapt BERT and DeBERTa to GLUE's tasks: CoLA, SST-2, MRPC, STS-B, QQP, MNLI, QNLI, RTE.
///
/// Data are the official TSV files (glue_data/MRPC/train.tsv, dev.tsv). Models are folders as Hugging Face's hub has them: config.json,
/// model.safetensors, and a tokenizer (tokenizer.json, spm.model or vocab.txt).
///
/// `glue COMMAND --help` explains a command and its flags.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Count(count::Arguments),
    Finetune(Box<finetune::Arguments>),
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Count(arguments) => arguments.run(),
        Command::Finetune(arguments) => arguments.run(),
        Command::Bench(arguments) => arguments.run(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}
