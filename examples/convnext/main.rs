//! Image classification from the command line: parameters counted, networks trained from scratch, adapted to images of one's own, timed.
//!
//! ```sh
//! cargo run --release --example convnext -- count --size large --method flora --rank 40 --kernel-rank 3
//! cargo run --release --example convnext -- pretrain --arch convnextv2-atto --patch 2 --train photos.safetensors --out runs/base
//! cargo run --release --example convnext -- finetune --model runs/base/model --train scenes/ --out runs/flora --method flora --rank 8
//! cargo run --release --example convnext -- bench --arch convnextv2-tiny --method flora --batch 4
//! ```
//!
//! | file | what |
//! |---|---|
//! | `model.rs` | which network, from a name or a file |
//! | `data.rs` | which images, and what is done to them |
//! | `count.rs`, `pretrain.rs`, `finetune.rs`, `bench.rs` | the four commands |
//! | `run.rs` | what both kinds of training have in common |
//! | `../support` | what the examples share: methods, training, devices, first gradients |

mod bench;
#[path = "../support/compute.rs"]
mod compute;
mod count;
#[path = "../support/counted.rs"]
mod counted;
mod data;
mod finetune;
#[path = "../support/first.rs"]
mod first;
#[path = "../support/method.rs"]
mod method;
mod model;
mod pretrain;
mod run;
#[path = "../support/step.rs"]
mod step;
#[path = "../support/training.rs"]
mod training;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Train, adapt and measure image classifiers: ConvNeXt in both versions, ResNet for 32 x 32 images, EfficientNet-Lite.
///
/// Images are a folder with one sub-folder a class (train/cat/1.jpg), or one safetensors file with images_u8_nhwc [n, rows, columns,
/// channels] and labels_u8 [n]. Networks are named by --arch, or read from the files of Hugging Face, timm and others.
///
/// `convnext COMMAND --help` explains a command and its flags.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Count(count::Arguments),
    Pretrain(Box<pretrain::Arguments>),
    Finetune(Box<finetune::Arguments>),
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Count(arguments) => arguments.run(),
        Command::Pretrain(arguments) => arguments.run(),
        Command::Finetune(arguments) => arguments.run(),
        Command::Bench(arguments) => arguments.run(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}
