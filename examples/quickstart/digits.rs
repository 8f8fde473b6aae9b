//! FLoRA beside other ways to fine-tune: a small ConvNeXt-V2 that reads handwritten digits moves to digits that look otherwise.

use crate::drawing;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{error::Error, ops::ControlFlow, path::Path, sync::Arc, time::Instant};
use tenfold::{
    Result,
    models::{ConvNext, ConvNextConfig, ImageClassifier, ImageInput},
    nn::{Mode, Module},
    peft::{
        Attach, BitFit, Flora, FloraInit, Full, Lora, Method, Probe, Ranks, Targets, WeightGradients, weight_gradients,
    },
    train::{AdamW, Best, Dataset, Groups, Schedule, Scores, Trainer},
    vision::{Augment, ImageSource, Images, PackedImages, RgbImage, Split, split},
};

const DATA: &[u8] = include_bytes!("../data/digits.safetensors");

const SIDE: usize = 8;
const INPUT: ImageInput = ImageInput { side: SIDE, mean: [0.3; 3], deviation: [0.35; 3] };

/// The most numbers that adapters may have.
const BUDGET: usize = 2000;
const EPOCHS: u64 = 40;
const BATCH: usize = 16;
const RATES: [f64; 4] = [2e-3, 8e-3, 3.2e-2, 0.128];

/// What a method came to.
pub struct Row {
    pub name: String,
    /// The numbers that train beside the head's.
    pub trainable: usize,
    pub accuracy: f64,
}

/// The parts of the data.
struct Parts {
    train: Images,
    valid: Images,
    test: Images,
}

/// Trains, adapts, compares, and draws it to a file.
pub fn run(picture: &Path) -> Result<(), Box<dyn Error>> {
    println!(
        "3. Adaptation: the update of a weight as a Tucker tensor. FLoRA trains a small core and one factor for each"
    );
    println!(
        "   mode; a convolution's kernel stays a kernel. A small ConvNeXt-V2 learns handwritten digits (1797 images of"
    );
    println!(
        "   8 x 8 pixels; examples/data/README.md). Then the world changes: turned by 90 degrees, white on black become"
    );
    println!("   black on white, with noise; and of the new kind there are few examples.\n");
    let digits: Arc<dyn ImageSource> = Arc::new(PackedImages::from_bytes(DATA)?);
    let [home, abroad] = halves(digits)?;
    let start = Instant::now();
    let (base, known) = learn(&home)?;
    let lost = abroad.test.evaluate(&base, 64)?.accuracy();
    println!(
        "   Trained from scratch on {} digits: {:.1} % of {} others are read right. ({} numbers, {:.0} s)",
        home.train.len(),
        100.0 * known,
        home.test.len(),
        base.count().total,
        start.elapsed().as_secs_f64()
    );
    println!("   The changed digits, as it is: {:.1} %.\n", 100.0 * lost);
    println!(
        "   Now {} changed digits to learn from, {EPOCHS} epochs for every method, adapters of at most {BUDGET} numbers,",
        abroad.train.len()
    );
    println!(
        "   each at the best of {} rates (by {} digits kept for that); the head, {} numbers, trains with all:\n",
        RATES.len(),
        abroad.valid.len(),
        head(&base)
    );
    let rows = compare(&base, &abroad)?;
    drawing::adaptation(picture, &samples(&home)?, &samples(&abroad)?, &rows, lost)?;
    println!("\n   The picture: {}\n", picture.display());
    Ok(())
}

/// Half of the digits as they are, and half of them changed, each to train on, to choose by and to test on. In blocks: neighbouring
/// digits are of the same hand.
fn halves(digits: Arc<dyn ImageSource>) -> Result<[Parts; 2]> {
    let halves = split(digits, &Split { blocks: 1, shares: vec![0.5] })?;
    let mut halves = halves.into_iter().map(|half| Arc::new(half) as Arc<dyn ImageSource>);
    let (Some(home), Some(abroad)) = (halves.next(), halves.next()) else { unreachable!("there are two") };
    Ok([parts(home, [0.1, 0.2])?, parts(Arc::new(Changed(abroad)), [0.2, 0.6])?])
}

fn parts(source: Arc<dyn ImageSource>, shares: [f64; 2]) -> Result<Parts> {
    let mut parts = split(source, &Split { blocks: 1, shares: shares.to_vec() })?
        .into_iter()
        .map(|part| Images::new(Arc::new(part), INPUT, SIDE));
    let (Some(train), Some(valid), Some(test)) = (parts.next(), parts.next(), parts.next()) else {
        unreachable!("there are three")
    };
    Ok(Parts { train: train?.augment(Augment::new().padded_crop(1)), valid: valid?, test: test? })
}

/// Images turned, inverted, and with noise on them: what a new camera might do.
struct Changed(Arc<dyn ImageSource>);

impl ImageSource for Changed {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn classes(&self) -> &[String] {
        self.0.classes()
    }

    fn label(&self, index: usize) -> u32 {
        self.0.label(index)
    }

    fn image(&self, index: usize) -> Result<RgbImage> {
        let image = self.0.image(index)?;
        let (columns, rows) = image.dimensions();
        // A function of the index: the same noise whenever an image is looked at.
        let mut rng = ChaCha8Rng::seed_from_u64(index as u64);
        Ok(RgbImage::from_fn(rows, columns, |x, y| {
            let noise = (rng.next_u32() % 81) as i16 - 40;
            let turned = image.get_pixel(y, rows - 1 - x).0[0];
            let value = (255 - i16::from(turned) + noise).clamp(0, 255) as u8;
            [value; 3].into()
        }))
    }

    fn name(&self) -> String {
        format!("{}, changed", self.0.name())
    }
}

/// A network from scratch, and its accuracy on digits that it has not seen.
fn learn(parts: &Parts) -> Result<(ConvNext<f32>, f64)> {
    let config = ConvNextConfig {
        patch_size: 1,
        hidden_sizes: vec![24, 48],
        depths: vec![2, 2],
        num_labels: 10,
        ..ConvNextConfig::named("convnextv2-atto")?
    };
    let mut model = ConvNext::new(config, &mut ChaCha8Rng::seed_from_u64(1))?;
    train(&mut model, parts, 4e-3)?;
    let accuracy = parts.test.evaluate(&model, 64)?.accuracy();
    Ok((model, accuracy))
}

/// Trains what trains, keeps the best epoch's weights, and says what it scored.
fn train(model: &mut ConvNext<f32>, parts: &Parts, rate: f64) -> Result<f64> {
    let trainer = Trainer::new(AdamW::new(rate).weight_decay(0.01))
        .groups(Groups::new().no_decay_on_vectors())
        .schedule(Schedule::cosine().warmup_ratio(0.1))
        .epochs(EPOCHS)
        .batch_size(BATCH)
        .seed(1)
        .clip(1.0)
        .best(Best::highest("accuracy"))
        .restore_best();
    let report = trainer.fit_with(
        model,
        &parts.train,
        |model, batch, mode| batch.loss(&model.forward(&batch.images.clone().into(), mode)?, 0.1),
        |model| Ok(Scores::from([("accuracy", parts.valid.evaluate(model, 64)?.accuracy())])),
        |_| ControlFlow::Continue(()),
    )?;
    Ok(report.best.and_then(|best| best.scores.get("accuracy")).unwrap_or(0.0))
}

/// Every method from the same weights.
fn compare(base: &ConvNext<f32>, parts: &Parts) -> Result<Vec<Row>> {
    let flora = Flora::new().ranks_by(Ranks::ModelParameters(BUDGET)).kernel_rank(3).clip();
    let informed = flora.clone().init(FloraInit::GradientHosvd).scale(1.0);
    let (lora, first) = (within_budget(base)?, first_gradients(base, parts)?);
    let methods: [(&str, &dyn Method<f32>); 6] = [
        ("FLoRA", &flora),
        ("FLoRA *", &informed),
        ("LoRA", &lora),
        ("BitFit", &BitFit),
        ("probe", &Probe),
        ("full", &Full),
    ];
    println!("   {:<8} {:>10} {:>10} {:>10} {:>9}", "method", "trainable", "accuracy", "rate", "seconds");
    let mut rows = Vec::new();
    for (name, method) in methods {
        let start = Instant::now();
        let mut best: Option<(f64, f64, ConvNext<f32>)> = None;
        for rate in RATES {
            let mut model = base.clone();
            let head = Targets::of([model.head()]);
            let attach = Attach::new(method).to(Targets::all().except(model.head())).keep(head);
            attach.gradients(&first).apply(&mut model)?;
            let score = train(&mut model, parts, rate)?;
            if best.as_ref().is_none_or(|(highest, ..)| score > *highest) {
                best = Some((score, rate, model));
            }
        }
        let Some((_, rate, model)) = best else { unreachable!("there are rates") };
        let trainable = model.count().trainable - head(base);
        let accuracy = parts.test.evaluate(&model, 64)?.accuracy();
        let seconds = start.elapsed().as_secs_f64() / RATES.len() as f64;
        println!("   {name:<8} {trainable:>10} {:>8.1} % {rate:>10} {seconds:>9.1}", 100.0 * accuracy);
        rows.push(Row { name: name.into(), trainable, accuracy });
    }
    println!(
        "\n   * Its factors start in the directions in which the loss falls fastest: the HOSVD of the first gradient."
    );
    Ok(rows)
}

/// The gradients of all weights over the digits to learn from, once the head has found its way.
fn first_gradients(base: &ConvNext<f32>, parts: &Parts) -> Result<WeightGradients<f32>> {
    let mut model = base.clone();
    Attach::new(&Probe).keep(Targets::of([model.head()])).apply(&mut model)?;
    train(&mut model, parts, RATES[1])?;
    model.unfreeze_all();
    let all: Vec<usize> = (0..parts.train.len()).collect();
    let batch = parts.train.batch(&all)?;
    let loss = batch.loss(&model.forward(&batch.images.clone().into(), Mode::Evaluation)?, 0.0)?;
    let mut first = weight_gradients(&model, &loss.backward()?);
    first.remove(model.head());
    Ok(first)
}

/// LoRA of the largest rank that the budget pays for.
fn within_budget(model: &ConvNext<f32>) -> Result<Lora> {
    let mut rank = 1;
    let parameters = |rank: usize| {
        let lora = Lora::new(rank);
        Attach::new(&lora).to(Targets::all().except("classifier")).plan(model).map(|plan| plan.parameters())
    };
    while parameters(rank + 1)? <= BUDGET {
        rank += 1;
    }
    Ok(Lora::new(rank))
}

/// The head's parameters, which train with every method.
fn head(model: &ConvNext<f32>) -> usize {
    let own = model.parameters().into_iter().filter(|(name, _)| name.starts_with(model.head()));
    own.map(|(_, parameter)| parameter.len()).sum()
}

/// One image of each class.
fn samples(parts: &Parts) -> Result<Vec<RgbImage>> {
    let source = parts.test.source();
    let first = |class: u32| (0..source.len()).find(|&i| source.label(i) == class);
    (0..10).filter_map(first).map(|i| source.image(i)).collect()
}
