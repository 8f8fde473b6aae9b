//! The example program `convnext`, run as a user runs it: its numbers, its files, and every way to get the input wrong.

#[path = "support/program.rs"]
mod program;

use program::{failed, program, succeeded};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;
use tenfold::{
    Tensor, TensorFile,
    autodiff::Var,
    models::{Architecture, CifarResNet, CifarResNetConfig, ConvNext, ConvNextConfig, ImageClassifier},
    nn::{Checkpoint, Mode},
    peft,
};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A folder with images of two classes and small models, in which the program runs.
struct Case {
    folder: TempDir,
}

impl Case {
    fn new() -> Result<Self> {
        let case = Self { folder: tempfile::tempdir()? };
        images(40, 16, 0)?.save(case.path("train.safetensors"))?;
        images(12, 16, 5)?.save(case.path("test.safetensors"))?;
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        CifarResNet::<f32>::new(CifarResNetConfig { width: 4, blocks: 1, num_labels: 10 }, rng)?
            .save(case.path("resnet.safetensors"))?;
        let config = ConvNextConfig {
            patch_size: 2,
            hidden_sizes: vec![8, 12],
            depths: vec![1, 1],
            ..ConvNextConfig::named("convnextv2-atto")?
        };
        ConvNext::<f32>::new(config, rng)?.save(case.path("convnext"))?;
        Ok(case)
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `convnext ..` with words separated by spaces.
    fn run(&self, words: &str) -> Result<Output> {
        let program = program("convnext", &["convnext", "support"]);
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

/// Dark and bright images in turn.
fn images(n: usize, side: usize, first: usize) -> Result<TensorFile> {
    let pixels = Tensor::from_fn([n, side, side, 3], |i| {
        let bright = if i[0] % 2 == 0 { 20 } else { 150 };
        (bright + (7 * (first + i[0]) + 5 * i[1] + 3 * i[2] + 11 * i[3]) % 90) as u8
    })?;
    let labels = Tensor::from_fn([n], |i| (i[0] % 2) as u8)?;
    let file = TensorFile::new().with("images_u8_nhwc", &pixels)?.with("labels_u8", &labels)?;
    Ok(file.with_metadata("classes", "dark,bright"))
}

#[test]
fn counts_are_the_known_ones() -> Result {
    let case = Case { folder: tempfile::tempdir()? };
    let large = case.json("count --size large --method flora --rank 40 --kernel-rank 3")?;
    assert_eq!(large["trainable"], 12_774_972);
    assert_eq!(large["total"], 196_416_768 + 2 * 1536);
    assert_eq!((&large["method"], &large["arch"]), (&"flora".into(), &"convnextv2-large".into()));
    let known = [
        ("--size large --method lora-k --rank 8", 12_946_080),
        ("--arch convnextv2-large --method probe", 0),
        ("--arch resnet20 --method full", 269_722 - 650),
    ];
    for (words, trainable) in known {
        assert_eq!(case.json(&format!("count {words}"))?["trainable"], trainable, "{words}");
    }
    Ok(())
}

#[test]
fn fine_tuning_by_every_method_says_what_it_came_to_and_leaves_what_it_says() -> Result {
    let case = Case::new()?;
    let head = 12 * 2 + 2;
    for (method, flags, attached) in [
        ("full", "", 0),
        ("probe", "", 0),
        ("bitfit", "", 0),
        ("lora", "--rank 2", 1),
        ("lora-k", "--rank 1", 1),
        ("dora", "--rank 2", 1),
        ("adalora", "--rank 2", 1),
        ("flora", "--rank 2 --kernel-rank 2 --scale 1 --init gradient-hosvd", 1),
    ] {
        let words = format!(
            "finetune --model convnext --train train.safetensors --test test.safetensors --out {method} --method {method} {flags} \
             --epochs 3 --batch 8 --flip --crop 1 --seed 3 --threads 1"
        );
        let json = case.json(&words)?;
        for key in ["train_loss", "valid_accuracy", "test_accuracy", "seconds", "examples_per_second"] {
            assert!(json[key].is_number(), "{method}: {key} in {json}");
        }
        assert!(json["peak_memory_bytes"].is_number() || !cfg!(target_os = "linux"));
        assert_eq!((&json["method"], &json["stopped"]), (&method.into(), &"finished".into()));
        let trainable = json["trainable"].as_u64().ok_or("no number")? as usize;
        assert_eq!(trainable == head, method == "probe", "{method}: {trainable}");
        assert_eq!(json["rank"].is_null(), attached == 0, "{json}");
        // The merged network is the base with the adapter.
        let merged = ConvNext::<f32>::open(case.path(method).join("model"))?;
        assert_eq!(merged.label_names(), ["dark", "bright"]);
        let mut adapted = ConvNext::<f32>::open(case.path("convnext"))?;
        adapted.reset_classifier(2, &mut ChaCha8Rng::seed_from_u64(0))?;
        peft::load(&mut adapted, case.path(method).join("adapter"))?;
        let x = Var::constant(Tensor::normal([2, 16, 16, 3], &mut ChaCha8Rng::seed_from_u64(4))?);
        let logits =
            |model: &ConvNext<f32>| Ok::<_, tenfold::Error>(model.forward(&x, Mode::Evaluation)?.value().clone());
        let away = logits(&merged)?.sub(&logits(&adapted)?)?.max_abs()?;
        assert!(away < 1e-4 * logits(&merged)?.max_abs()?, "{method}: {away}");
        for name in ["last.safetensors", "best.safetensors", "log.jsonl", "curves.svg", "settings.json"] {
            assert!(case.path(method).join(name).exists(), "{method}: {name}");
        }
    }
    Ok(())
}

/// A run of some dozen steps with everything that is random.
fn flora(out: &str, epochs: u64) -> String {
    format!(
        "finetune --model resnet.safetensors --train train.safetensors --test-part 0.2 --out {out} --method flora --rank 2 \
         --epochs {epochs} --batch 8 --flip --crop 2 --rand-augment 1 --mixup 0.2 --seed 3 --threads 1 --schedule constant"
    )
}

#[test]
fn what_does_not_fit_the_run_in_the_folder_is_refused() -> Result {
    let case = Case::new()?;
    let whole = case.json(&flora("out", 2))?;
    assert!(whole["test_accuracy"].is_number());
    // Resumed after its end, a run says the same again, and computes nothing.
    let again = case.json(&format!("{} --resume", flora("out", 2)))?;
    for key in ["train_loss", "valid_accuracy", "test_accuracy", "trainable", "steps"] {
        assert_eq!(again[key], whole[key], "{key}");
    }
    case.fails(&flora("out", 2), &["there is a run in this folder", "resume it"])?;
    let other = flora("out", 2).replace("--crop 2", "--crop 1");
    let says = ["settings.json", "augment was", "\"padded_crop\":2", "\"padded_crop\":1"];
    case.fails(&format!("{other} --resume"), &says)?;
    case.fails(&format!("{} --resume", flora("out", 3)), &["length", "last.safetensors"])
}

#[test]
fn a_second_run_in_the_folder_is_refused_before_it_writes() -> Result {
    let case = Case::new()?;
    fs::create_dir(case.path("out"))?;
    let first = fs::File::create(case.path("out/settings.json"))?;
    first.lock()?;
    for more in ["", " --resume"] {
        case.fails(&format!("{}{more}", flora("out", 1)), &["settings.json", "another run is writing here", "--out"])?;
    }
    assert_eq!(fs::read(case.path("out/settings.json"))?, b"");
    assert_eq!(fs::read_dir(case.path("out"))?.count(), 1);
    // A run that ended before it wrote anything leaves the folder to the next one.
    first.unlock()?;
    case.json(&flora("out", 1))?;
    let kept = fs::read(case.path("out/settings.json"))?;
    assert!(serde_json::from_slice::<Value>(&kept)?.is_object());
    case.json(&format!("{} --resume", flora("out", 1)))?;
    assert_eq!(fs::read(case.path("out/settings.json"))?, kept);
    Ok(())
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_the_run_goes_on_as_if_nothing_had_happened() -> Result {
    let case = Case::new()?;
    let words = |out: &str| format!("{} --resume", flora(out, 40));
    let whole = case.json(&words("whole"))?;
    let broken = format!("{} --json", words("broken"));
    let child = Command::new(program("convnext", &["convnext", "support"]))
        .args(broken.split_whitespace())
        .current_dir(case.folder.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    // Once some steps are taken.
    let steps = || fs::read_to_string(case.path("broken/log.jsonl")).unwrap_or_default().lines().count();
    while steps() < 10 {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status()?.success());
    let output = child.wait_with_output()?;
    let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    let json: Value = serde_json::from_str(out.lines().last().ok_or("no output")?)?;
    // It may have been quicker than the signal; then there was nothing to interrupt.
    if json["stopped"] == "interrupted" {
        assert_eq!((output.status.code(), &json["test_accuracy"]), (Some(130), &Value::Null));
        assert!(err.contains("run the same again, with resume") && !case.path("broken/model").exists(), "{err}");
        assert!(json["steps"].as_u64() < whole["steps"].as_u64());
    }
    let resumed = case.json(&words("broken"))?;
    for key in ["train_loss", "valid_accuracy", "test_accuracy", "steps"] {
        assert_eq!(resumed[key], whole[key], "{key}");
    }
    let weights = |out: &str| fs::read(case.path(out).join("model/model.safetensors"));
    assert_eq!(weights("broken")?, weights("whole")?);
    Ok(())
}

#[test]
fn pretraining_learns_and_its_model_goes_on_elsewhere() -> Result {
    let case = Case::new()?;
    let json = case.json(
        "pretrain --arch convnextv2-atto --patch 2 --train train.safetensors --valid test.safetensors --out base --epochs 2 --batch 20 \
         --lr 0.001 --drop-path 0.1 --threads 2 --workers 2",
    )?;
    assert_eq!((&json["method"], &json["steps"]), (&"full".into(), &4.into()));
    let (model, folder) = (ConvNext::<f32>::open(case.path("base/model"))?, case.path("base/model"));
    assert_eq!((model.labels(), model.config().patch_size, model.config().drop_path_rate), (2, 2, 0.1));
    let checkpoint = Checkpoint::open(&folder)?;
    assert_eq!(Architecture::at(&folder, &checkpoint)?, Architecture::ConvNext(model.config().clone()));
    let words = "finetune --model base/model --arch convnextv2-atto --train train.safetensors --out tuned --method probe --epochs 1";
    assert_eq!(case.json(words)?["trainable"], 320 * 2 + 2);
    case.fails(
        "pretrain --arch resnet20 --patch 2 --train train.safetensors --out x",
        &["resnet20 cuts no patches; leave --patch out"],
    )?;
    case.fails("pretrain --arch resnet20 --drop-path 0.1 --train train.safetensors --out x", &["leave --drop-path out"])
}

#[test]
fn a_step_is_timed() -> Result {
    let case = Case { folder: tempfile::tempdir()? };
    let json = case.json("bench --arch resnet20 --method flora --rank 2 --batch 2 --steps 2 --threads 1")?;
    assert_eq!((&json["pixels"], &json["batch"], &json["device"]), (&32.into(), &2.into(), &"cpu".into()));
    assert!(json["seconds"].as_f64() >= json["fastest"].as_f64() && json["fastest"].as_f64() > Some(0.0));
    Ok(())
}

#[test]
fn help_teaches() -> Result {
    let case = Case { folder: tempfile::tempdir()? };
    for (words, parts) in [
        ("--help", &["count", "pretrain", "finetune", "bench", "one sub-folder a class"][..]),
        ("count --help", &["convnext count --size large --method flora --rank 40 --kernel-rank 3", "--kernel-rank"]),
        ("finetune --help", &["OUT/adapter", "--resume", "gradient-hosvd", "facebook/convnextv2-tiny-22k-224"]),
        ("pretrain --help", &["--patch", "Ctrl-C"]),
        ("bench --help", &["forward, backward, AdamW"]),
    ] {
        let output = case.run(words)?;
        let text = String::from_utf8(output.stdout)?;
        assert!(output.status.success());
        for part in parts {
            assert!(text.contains(part), "{words}: {part:?} is not in: {text}");
        }
    }
    Ok(())
}

#[test]
fn bad_input_is_refused_with_file_and_reason() -> Result {
    let case = Case::new()?;
    let tune = |words: &str| format!("finetune --out out --epochs 1 {words}");
    let data = "--train train.safetensors";
    // Models.
    case.fails(&tune(&format!("--model none.safetensors {data}")), &["none.safetensors", "no such file"])?;
    #[cfg(not(feature = "hub"))]
    case.fails(
        &tune(&format!("--model facebook/convnextv2-tiny-22k-224 {data}")),
        &[
            "--features hub",
            "model.safetensors, config.json of https://huggingface.co/facebook/convnextv2-tiny-22k-224",
        ],
    )?;
    let resnet = format!("--model resnet.safetensors {data}");
    case.fails(&tune(&format!("{resnet} --arch convnextv2-atto")), &["resnet.safetensors", "ConvNext"])?;
    case.fails(&tune(&format!("{resnet} --arch efficientnet-lite0")), &["resnet.safetensors", "EfficientNet"])?;
    case.fails(
        &tune(&format!("{resnet} --arch resnet20")),
        &["resnet.safetensors", "60 of the model's tensors are missing", "layer1.1.bn1.bias"],
    )?;
    case.fails(&tune(&format!("{resnet} --arch vgg16")), &["there is no \"vgg16\"", "resnet20"])?;
    case.fails(&tune(&format!("--model train.safetensors {data}")), &["train.safetensors", "no model here"])?;
    // Methods.
    case.fails(&tune(&format!("{resnet} --method lora --kernel-rank 2")), &["\"lora\" has no kernel_rank"])?;
    case.fails(&tune(&format!("{resnet} --method adapters")), &["adapters", "flora", "bitfit"])?;
    case.fails(&tune(&format!("{resnet} --method flora --rank 0")), &["rank"])?;
    case.fails(&tune(&format!("{resnet} --scale 1 --alpha 2")), &["--scale", "cannot be used with", "--alpha"])?;
    // Images.
    let model = "--model resnet.safetensors";
    case.fails(&tune(&format!("{model} --train nowhere")), &["nowhere", "no such file or folder"])?;
    fs::write(case.path("text.safetensors"), "text")?;
    case.fails(&tune(&format!("{model} --train text.safetensors")), &["text.safetensors"])?;
    images(8, 16, 0)?.with_metadata("classes", "one").save(case.path("labels.safetensors"))?;
    case.fails(
        &tune(&format!("{model} --train labels.safetensors")),
        &["labels.safetensors", "label 1 of image 1", "(one)"],
    )?;
    images(8, 16, 0)?.with_metadata("classes", "a,b").save(case.path("other.safetensors"))?;
    case.fails(
        &tune(&format!("{model} {data} --valid other.safetensors")),
        &["other.safetensors (a, b)", "(dark, bright)"],
    )?;
    for class in ["dark", "bright"] {
        fs::create_dir_all(case.path("folder").join(class))?;
        for i in 0..10 {
            let image = image::RgbImage::from_pixel(16, 16, image::Rgb([if class == "dark" { 20 } else { 200 }; 3]));
            image.save(case.path("folder").join(class).join(format!("{i}.png")))?;
        }
    }
    fs::write(case.path("folder/dark/0.png"), "no picture")?;
    case.fails(
        &tune(&format!("{model} --train folder --blocks 1")),
        &["folder/dark/0.png", "no image that can be read"],
    )?;
    case.fails(&tune(&format!("{model} {data} --batch 100")), &["a batch of 100 examples"])?;
    case.fails(&tune(&format!("{model} {data} --valid-part 1.5")), &["shares [1.5]"])?;
    case.fails(&tune(&format!("{model} {data} --magnitude 2 --rand-augment 1")), &["magnitude 2"])?;
    case.fails(&tune(&format!("{model} {data} --device tpu")), &["tpu"])?;
    case.fails(&tune(&format!("{model} {data} --precision bf16")), &["the cpu computes in f32, not bf16"])?;
    case.fails(&tune(data), &["--model"])
}
