//! [`ImageBatch`]: what the loss function gets.

use crate::{
    autodiff::{CrossEntropy, Var},
    device::Device,
    error::Result,
    tensor::Tensor,
};
use ndarray::{Ix1, Ix4};

/// Normalised images with labels. Made by [`Images`](super::Images).
#[derive(Debug, Clone)]
pub struct ImageBatch {
    /// `[batch, rows, columns, channels]`
    pub images: Tensor<f32, Ix4>,
    /// `[batch]`
    pub labels: Tensor<u32, Ix1>,
    /// Where images are mixed: the labels of the images that were mixed in, and the share of the others.
    pub mixed: Option<(Tensor<u32, Ix1>, f32)>,
}

impl ImageBatch {
    /// The same on a device.
    ///
    /// # Errors
    /// Those of [`Tensor::to_device`].
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let mixed = match &self.mixed {
            Some((labels, share)) => Some((labels.to_device(device)?, *share)),
            None => None,
        };
        Ok(Self { images: self.images.to_device(device)?, labels: self.labels.to_device(device)?, mixed })
    }

    /// The mean cross-entropy of logits `[batch, classes]`, with so much of each target spread evenly over all classes. Of mixed images it is
    /// $\lambda \ell(z, y) + (1 - \lambda) \ell(z, y')$.
    ///
    /// # Errors
    /// Those of [`Var::cross_entropy`].
    pub fn loss(&self, logits: &Var<f32>, smoothing: f64) -> Result<Var<f32>> {
        let how = CrossEntropy { smoothing, ..CrossEntropy::default() };
        let own = logits.cross_entropy(&self.labels, how)?;
        match &self.mixed {
            None => Ok(own),
            Some((labels, share)) => own.scale(*share)?.add(&logits.cross_entropy(labels, how)?.scale(1.0 - share)?),
        }
    }
}
