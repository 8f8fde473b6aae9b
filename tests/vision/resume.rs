//! A run with augmentation that is broken off and goes on is the run that was never broken off.

use crate::sources::{PLAIN, source};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::{ops::ControlFlow, path::Path};
use tenfold::{
    Result, Tensor,
    models::{ConvNext, ConvNextConfig, ImageClassifier},
    nn::Module,
    peft::{Attach, Flora, Targets},
    train::{AdamW, Event, Schedule, Scores, Trainer},
    vision::{Augment, Images},
};

/// The weights, and the last loss, after at most `most` steps; adapters are trained, samples are dropped.
fn run(folder: Option<&Path>, workers: usize, most: u64) -> Result<(Vec<Tensor<f32>>, f64)> {
    let rng = &mut ChaCha8Rng::seed_from_u64(3);
    let config = ConvNextConfig {
        patch_size: 2,
        hidden_sizes: vec![6, 8],
        depths: vec![1, 1],
        num_labels: 2,
        drop_path_rate: 0.2,
        ..ConvNextConfig::named("convnextv2-atto")?
    };
    let mut model = ConvNext::<f32>::new(config, rng)?;
    let flora = Flora::new().rank(2);
    Attach::new(&flora).to(Targets::all().except("classifier")).keep(Targets::of(["classifier"])).apply(&mut model)?;
    let augment = Augment::new().flip().padded_crop(1).rand_augment(1, 0.3).mixup(0.2);
    let images = Images::new(source(20, 8), PLAIN, 8)?.augment(augment);
    let mut trainer = Trainer::new(AdamW::new(0.01)).schedule(Schedule::cosine()).epochs(3).batch_size(4).seed(5);
    trainer = trainer.workers(workers);
    if let Some(folder) = folder {
        trainer = trainer.folder(folder).resume(true);
    }
    let report = trainer.fit_with(
        &mut model,
        &images,
        |model, batch, mode| batch.loss(&model.forward(&batch.images.clone().into(), mode)?, 0.1),
        |_| Ok(Scores::new()),
        |event| match event {
            Event::Step(step) if step.step == most => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        },
    )?;
    Ok((model.parameters().into_iter().map(|(_, parameter)| parameter.value().clone()).collect(), report.loss))
}

#[test]
fn bit_for_bit_with_augmentation_on() {
    let whole = run(None, 1, 100).unwrap();
    for first in [1, 6, 14] {
        let folder = tempfile::tempdir().unwrap();
        let broken = run(Some(folder.path()), 1, first).unwrap();
        assert_ne!(broken.0, whole.0);
        // With other threads for the data than before.
        assert_eq!(run(Some(folder.path()), 3, 100).unwrap(), whole, "after step {first}");
    }
}
