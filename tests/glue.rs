//! The example program `glue`, run as a user runs it: its numbers, its files, and every way to get the input wrong.

#[path = "support/program.rs"]
mod program;

use program::{failed, program, succeeded};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;
use tenfold::{
    models::TextArchitecture,
    text::{Part, Task, Texts, Tokenizer, TooLong},
};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/glue")
}

/// A folder in which the program runs.
struct Case {
    folder: TempDir,
}

impl Case {
    fn new() -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir()? })
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `glue ..` with words separated by spaces; `DATA` is the fixture's folder.
    fn run(&self, words: &str) -> Result<Output> {
        let program = program("glue", &["glue", "support"]);
        let words = words.replace("DATA", &fixture().to_string_lossy());
        Ok(Command::new(program).args(words.split_whitespace()).current_dir(self.folder.path()).output()?)
    }

    /// Runs to success; the last line of standard output as JSON.
    fn json(&self, words: &str) -> Result<Value> {
        succeeded(words, self.run(&format!("{words} --json"))?)
    }

    /// Runs to an error, whose message holds all `parts`.
    fn fails(&self, words: &str, parts: &[&str]) -> Result {
        failed(words, self.run(words)?, parts)
    }
}

const FINETUNE: &str = "finetune --task sst2 --data DATA --model DATA/model --batch 8";

#[test]
fn counts_are_the_papers() -> Result {
    let case = Case::new()?;
    for (words, trainable) in [
        ("--method flora --rank 2", 332_064),
        ("--method flora --rank 8", 1_331_712),
        ("--method lora --rank 2", 331_776),
        ("--method lora --rank 8", 1_327_104),
        ("--method dora --rank 8", 1_410_048),
        ("--method hadapter --rank 32", 1_198_848),
        ("--method padapter --rank 64", 1_189_632),
        ("--method adalora --rank 8", 1_327_680 / 2 * 3),
        ("--method adalora --rank 8 --initial-rank 8", 1_327_680),
        ("--method bitfit", 102_912),
        ("--method probe", 0),
        ("--method full", 183_831_552),
    ] {
        let line = case.json(&format!("count --size base {words}"))?;
        assert_eq!((&line["trainable"], &line["total"]), (&trainable.into(), &183_831_552.into()), "{words}");
    }
    case.fails("count --size giant", &["there is no \"deberta-v3-giant\"", "deberta-v3-base"])?;
    case.fails("count --size base --method lora --clip", &["\"lora\" has no clip"])?;
    case.fails("count --size base --method lora --adalora-every 2", &["\"lora\" has no every"])?;
    case.fails("count --size base --method adalora --adalora-settle half", &["\"half\" is neither a part of all steps"])
}

#[test]
fn a_run_leaves_an_adapter_a_model_and_predictions() -> Result {
    let case = Case::new()?;
    let words = format!("{FINETUNE} --out run --method flora --rank 4 --lr 0.01 --epochs 30 --predict DATA/test.tsv");
    let line = case.json(&words)?;
    assert_eq!((line["task"].as_str(), line["method"].as_str()), (Some("sst2"), Some("flora")));
    // Two blocks of six linear layers, pooler, classifier.
    let adapters = 2 * (6 * 16 + 4 * (4 * 32 + 2 * 48));
    assert_eq!(line["trainable"], adapters + 16 * 16 + 16 + 2 * 16 + 2);
    let accuracy = line["accuracy"].as_f64().ok_or("no accuracy")?;
    assert!(accuracy > 0.8, "{line}");
    assert!(line["seconds"].as_f64() > Some(0.0) && line["examples_per_second"].as_f64() > Some(0.0));
    for file in ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "log.jsonl", "settings.json"] {
        assert!(case.path("run").join(file).is_file(), "{file}");
    }
    let predictions = fs::read_to_string(case.path("run/SST-2.tsv"))?;
    assert!(predictions.starts_with("index\tprediction\n0\t") && predictions.lines().count() == 9, "{predictions}");

    // The model on the disk has the updates in it, and scores the same.
    let tokenizer = Tokenizer::open(fixture().join("model"))?;
    let dev = Texts::new(&Task::Sst2.read(fixture(), Part::Dev)?, &tokenizer, 32, TooLong::Refuse)?;
    let model = TextArchitecture::open::<f32>(case.path("run/model"))?;
    assert_eq!((model.labels(), model.label_names()), (2, &Task::Sst2.label_names()[..]));
    assert_eq!(Task::Sst2.scores(&dev.logits(&*model, 4)?, &dev)?.get("accuracy"), Some(accuracy));

    // Norms of updates are recorded where that is asked for, with every method that has updates.
    for method in ["dora", "lora"] {
        let line =
            case.json(&format!("{FINETUNE} --out {method} --method {method} --epochs 1 --first 16 --updates"))?;
        assert!(
            line["update_norm"].as_f64() > Some(0.0) && line["amplification"].is_number() == (method == "lora"),
            "{line}"
        );
    }
    case.fails(
        &format!("{FINETUNE} --out full --method full --epochs 1 --first 16 --updates"),
        &["\"full\" has no updates of weights to record"],
    )?;

    // What a run began with, it goes on with.
    case.fails(&format!("{words} --resume --max-length 9"), &["max_length was 32 and is 9"])?;
    case.fails(&format!("{words} --max-length 9"), &["there is a run in this folder"])?;
    case.fails(&format!("{words} --resume --max-length 9"), &["max_length was 32 and is 9"])?;
    case.json(&format!("{words} --resume")).map(drop)
}

#[test]
fn every_method_and_start_runs() -> Result {
    let case = Case::new()?;
    for (i, method) in [
        "full",
        "probe",
        "bitfit",
        "hadapter",
        "padapter",
        "lora",
        "dora",
        "adalora",
        "adalora --initial-rank 9 --adalora-warmup 0 --adalora-settle 0.25 --adalora-every 2",
        "flora",
        "flora --init gradient-hosvd --scale 1",
    ]
    .iter()
    .enumerate()
    {
        let line = case.json(&format!("{FINETUNE} --out run{i} --method {method} --epochs 1 --first 16"))?;
        assert!(line["score"].is_number(), "{method}: {line}");
        // A bottleneck is no part of a published model.
        let whole = case.path(format!("run{i}/model/model.safetensors")).is_file();
        assert_eq!(whole, !method.ends_with("adapter"), "{method}");
        assert!(case.path(format!("run{i}/adapter/adapter_model.safetensors")).is_file(), "{method}");
    }
    Ok(())
}

#[test]
fn what_is_wrong_is_said() -> Result {
    let case = Case::new()?;
    fs::create_dir_all(case.path("empty"))?;
    fs::create_dir_all(case.path("bad"))?;
    fs::write(case.path("bad/train.tsv"), "sentence\tlabel\na good film\t1\na bad film\tbad\n")?;
    let with =
        |task: &str, data: &str, model: &str| format!("finetune --task {task} --data {data} --model {model} --out out");
    case.fails(&with("wnli", "DATA", "DATA/model"), &["there is no \"wnli\"", "cola, sst2"])?;
    case.fails(&with("sst2", "empty", "DATA/model"), &["empty/train.tsv", "SST-2"])?;
    case.fails(
        &with("sst2", "bad", "DATA/model"),
        &["bad/train.tsv: line 3: the label \"bad\" is none of \"0\", \"1\""],
    )?;
    case.fails(&with("mrpc", "DATA", "DATA/model"), &["line 1: there is no column \"#1 String\"", "\"sentence\""])?;
    case.fails(&with("sst2", "DATA", "empty"), &["empty", "tokenizer.json, spm.model or vocab.txt"])?;
    case.fails(&with("sst2", "DATA", "no/such/folder"), &["no/such/folder: there is no such file or folder"])?;
    case.fails(&format!("{FINETUNE} --out out --max-length 64"), &["--max-length 64", "32 tokens"])?;
    case.fails(
        &format!("{FINETUNE} --out out --max-length 5 --refuse-long"),
        &["train.tsv: line", "more than 5 tokens"],
    )?;
    case.fails(&format!("{FINETUNE} --out out --method full --rank 3"), &["\"full\" has no rank"])?;
    let most = u64::MAX;
    case.fails(&format!("{FINETUNE} --out out --rank {most}"), &["take a smaller rank"])?;
    case.fails(&format!("{FINETUNE} --out out --scale nan"), &["a scale of NaN", "it has to be finite"])?;
    case.fails(&format!("{FINETUNE} --out out --epochs {most} --clip-norm 0"), &["clipped to a norm of 0"])?;
    // Another model's words.
    fs::create_dir_all(case.path("other"))?;
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture().join("model").join(file), case.path("other").join(file))?;
    }
    fs::write(case.path("other/vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\ngood\n")?;
    case.fails(&with("sst2", "DATA", "other"), &["5 tokens", "another model's tokenizer"])
}

#[test]
fn a_step_is_timed() -> Result {
    let line = Case::new()?.json("bench --size xsmall --batch 1 --tokens 4 --steps 1 --method flora --rank 2")?;
    assert!(line["seconds"].as_f64() > Some(0.0) && line["trainable"].as_u64() > Some(0), "{line}");
    Ok(())
}
