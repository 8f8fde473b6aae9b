//! What pretraining and fine-tuning have in common: the run, what it came to, and its last line.

use crate::{
    compute::peak_memory,
    data::{Data, DataArguments},
    method::with_penalty,
    training::{Logged, Pace, TrainingArguments},
};
use serde_json::{Value, json};
use std::process::ExitCode;
use tenfold::{
    Device, Result,
    models::ImageClassifier,
    peft::AdaLora,
    train::{Report, Scores, Stop, Terminal},
    vision::ImageBatch,
};

/// A run that is ready to start.
pub struct Run<'a> {
    pub data: &'a Data,
    pub images: &'a DataArguments,
    pub training: &'a TrainingArguments,
    pub pace: Pace,
    pub device: &'a Device,
    pub precision: &'a str,
}

impl Run<'_> {
    /// Trains the model, with a budget of ranks where there is one; it has the weights of the best epoch then.
    pub fn train(&self, model: &mut Box<dyn ImageClassifier<f32>>, adalora: Option<&AdaLora>) -> Result<Report> {
        let Self { data, training, device, pace, .. } = self;
        let _locked = training.keep_settings(&data.settings(self.images))?;
        let mut terminal = Terminal::new()?;
        training.trainer(pace, "accuracy").fit_along(
            model,
            &data.train,
            |model, images: ImageBatch, mode| {
                let images = images.to_device(device)?;
                let loss =
                    images.loss(&model.forward(&images.images.clone().into(), mode)?, training.label_smoothing)?;
                with_penalty(loss, adalora, model)
            },
            |model| Ok(Scores::from([("accuracy", data.valid.evaluate(&**model, pace.batch)?.accuracy())])),
            |event| terminal.watch(event),
            &mut adalora.map(AdaLora::allocator).transpose()?,
        )
    }

    /// Tests the model, and says what the run came to; `more` goes into the last line.
    pub fn conclude(&self, model: &dyn ImageClassifier<f32>, report: &Report, more: Value) -> Result<ExitCode> {
        let training = self.training;
        let finished = report.stopped != Stop::Interrupted;
        let test = match &self.data.test {
            Some(test) if finished => Some(test.evaluate(model, self.pace.batch)?.accuracy()),
            _ => None,
        };
        let logged = Logged::read(&training.out)?;
        let best = report.best.as_ref().and_then(|best| best.scores.get("accuracy"));
        let percent = |share: Option<f64>| share.map_or("-".into(), |share| format!("{:.2} %", 100.0 * share));
        println!(
            "train loss {:.4}, validation accuracy {} (epoch {} of {}), test accuracy {}; {:.1} s, {:.1} images a second",
            logged.loss,
            percent(best),
            report.best.as_ref().map_or(0, |best| best.epoch),
            report.evaluation.as_ref().map_or(0, |last| last.epoch),
            percent(test),
            report.seconds,
            logged.examples_per_second,
        );
        if training.json {
            let mut line = json!({
                "trainable": model.count().trainable,
                "train_loss": logged.loss,
                "valid_accuracy": best,
                "test_accuracy": test,
                "seconds": report.seconds,
                "examples_per_second": logged.examples_per_second,
                "peak_memory_bytes": peak_memory(),
                "steps": report.steps,
                "stopped": report.stopped,
                "seed": training.seed,
                "pixels": self.data.pixels,
                "device": self.device.to_string(),
                "precision": self.precision,
                "out": training.out.display().to_string(),
            });
            if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
                line.extend(more);
            }
            println!("{line}");
        }
        // As a shell says Ctrl-C: 128 and the number of the signal.
        Ok(if finished { ExitCode::SUCCESS } else { ExitCode::from(130) })
    }
}
