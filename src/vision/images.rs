//! [`Images`]: a source as a data set.

use super::{Augment, ImageBatch, ImageSource, augment::Draw, resize::fitted, source::check_index};
use crate::{
    autodiff::without_gradients,
    device::Device,
    error::{Error, ErrorKind, Result},
    models::{ImageClassifier, ImageInput},
    nn::Mode,
    tensor::Tensor,
    train::{Dataset, each_batch, metrics::Confusion},
};
use image::RgbImage;
use std::sync::Arc;

/// Batches of a source's images for a model: brought to its size, changed at random for training, normalised.
///
/// [The module's page](super) has an example.
#[derive(Clone)]
pub struct Images {
    source: Arc<dyn ImageSource>,
    /// What a value of 0 becomes, and by how much it grows with each of 255 steps, for each channel.
    normalise: [(f32, f32); 3],
    side: u32,
    augment: Augment,
}

impl Images {
    /// The images of a source as a model expects them, `side` x `side` pixels; without changes at random.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] for a side of 0 or above 65 536.
    pub fn new(source: Arc<dyn ImageSource>, input: ImageInput, side: usize) -> Result<Self> {
        let Some(side) = u32::try_from(side).ok().filter(|side| (1..=1 << 16).contains(side)) else {
            let message = format!("images of {side} x {side} pixels; needs 1 to 65536");
            return Err(Error::new(ErrorKind::Value, "Images", message));
        };
        let normalise = std::array::from_fn(|c| {
            let (mean, deviation) = (input.mean[c], input.deviation[c]);
            ((-mean / deviation) as f32, (1.0 / (255.0 * deviation)) as f32)
        });
        Ok(Self { source, normalise, side, augment: Augment::new() })
    }

    /// Changes at random, for training. [`batch`](Dataset::batch) and with it evaluation stay without.
    pub fn augment(self, augment: Augment) -> Self {
        Self { augment, ..self }
    }

    /// Where the images come from.
    pub fn source(&self) -> &dyn ImageSource {
        &*self.source
    }

    /// How a model classifies the images, in batches of `size`, on the device that its parameters are on.
    ///
    /// # Errors
    /// Those of the source and of the model; [`ErrorKind::Value`] where the model has fewer classes than the source.
    pub fn evaluate(&self, model: &dyn ImageClassifier<f32>, size: usize) -> Result<Confusion> {
        let device =
            model.parameters().first().map_or_else(Device::cpu, |(_, parameter)| parameter.var().device().clone());
        let mut confusion = Confusion::new(model.labels())?;
        each_batch(self, size, |batch: ImageBatch| {
            let images = batch.images.to_device(&device)?.into();
            let logits = without_gradients(|| model.forward(&images, Mode::Evaluation))?;
            confusion.update_logits(&logits.value().to_device(&Device::cpu())?, &batch.labels)
        })?;
        Ok(confusion)
    }

    /// The batch of these images, each made by `make` of its place and what the source has.
    fn collected(&self, indices: &[usize], make: impl Fn(usize, RgbImage) -> RgbImage) -> Result<ImageBatch> {
        let (side, count) = (self.side as usize, self.len());
        indices.iter().try_for_each(|&index| check_index("Images", index, count))?;
        let mut values = Vec::with_capacity(indices.len() * side * side * 3);
        for (place, &index) in indices.iter().enumerate() {
            let image = make(place, self.source.image(index)?);
            let normalised = |(i, &value): (usize, &u8)| {
                let (zero, step) = self.normalise[i % 3];
                zero + step * f32::from(value)
            };
            values.extend(image.as_raw().iter().enumerate().map(normalised));
        }
        let labels = indices.iter().map(|&index| self.source.label(index)).collect();
        Ok(ImageBatch {
            images: Tensor::from_vec([indices.len(), side, side, 3], values)?,
            labels: Tensor::from_vec([indices.len()], labels)?,
            mixed: None,
        })
    }
}

impl Dataset for Images {
    type Batch = ImageBatch;

    fn len(&self) -> usize {
        self.source.len()
    }

    fn batch(&self, indices: &[usize]) -> Result<ImageBatch> {
        self.collected(indices, |_, image| fitted(image, self.side))
    }

    fn augmented(&self, indices: &[usize], seed: u64) -> Result<ImageBatch> {
        self.augment.check()?;
        let batch = self.collected(indices, |place, image| {
            self.augment.apply(image, self.side, &mut Draw::new(seed, Some(place)))
        })?;
        match self.augment.mixing(&mut Draw::new(seed, None)) {
            Some(share) => mixed(batch, share),
            None => Ok(batch),
        }
    }
}

/// Every image with the next one, the last with the first.
fn mixed(batch: ImageBatch, share: f32) -> Result<ImageBatch> {
    let count = batch.labels.len();
    let next = |i: usize| (i + 1) % count.max(1);
    let (own, size) = (batch.images.to_vec()?, batch.images.len() / count.max(1));
    let mut values = Vec::with_capacity(own.len());
    for i in 0..count {
        let (a, b) = (&own[i * size..(i + 1) * size], &own[next(i) * size..(next(i) + 1) * size]);
        values.extend(a.iter().zip(b).map(|(a, b)| share * a + (1.0 - share) * b));
    }
    let labels = batch.labels.to_vec()?;
    let others = Tensor::from_vec([count], (0..count).map(|i| labels[next(i)]).collect())?;
    let shape = batch.images.view()?.raw_dim();
    Ok(ImageBatch { images: Tensor::from_vec(shape, values)?, mixed: Some((others, share)), ..batch })
}
