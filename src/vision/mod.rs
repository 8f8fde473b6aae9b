//! Images for training: where they come from, what is done to them at random, and batches of them. Feature `vision`.
//!
//! An [`ImageSource`] has images with labels: a folder with one sub-folder a class ([`ImageFolder`]), or one safetensors file with all pixels
//! ([`PackedImages`]); [`open`] takes whichever a path is. [`split`] keeps blocks of it for validation. [`Images`] makes batches of a
//! source, as a [`Dataset`](crate::train::Dataset), so that a [`Trainer`](crate::train::Trainer) has them decoded, changed by an [`Augment`] and
//! normalised in the background:
//!
//! ```
//! use rand::SeedableRng;
//! use rand_chacha::ChaCha8Rng;
//! use std::sync::Arc;
//! use tenfold::{
//!     Tensor, TensorFile,
//!     models::{Architecture, ConvNext, ConvNextConfig, ImageClassifier},
//!     train::{AdamW, Dataset, Trainer},
//!     vision::{Augment, Images, PackedImages, Split, split},
//! };
//!
//! // 40 images of 8 x 8 pixels: the even ones are dark, the odd ones bright.
//! let pixels = Tensor::from_fn([40, 8, 8, 3], |i| (if i[0] % 2 == 0 { 40 } else { 200 }) + (i[1] * 5 + i[2]) as u8)?;
//! let labels = Tensor::from_fn([40], |i| (i[0] % 2) as u8)?;
//! let file = TensorFile::new().with("images_u8_nhwc", &pixels)?.with("labels_u8", &labels)?.with_metadata("classes", "dark,bright");
//! let source = PackedImages::from_bytes(file.to_bytes()?)?;
//!
//! let [train, valid] = split(Arc::new(source), &Split::default().keep([0.2]))?.try_into().unwrap();
//! let input = Architecture::named("convnextv2-atto")?.input();
//! let train = Images::new(Arc::new(train), input, 8)?.augment(Augment::new().flip().padded_crop(1));
//! let valid = Images::new(Arc::new(valid), input, 8)?;
//! assert_eq!((train.len(), valid.len()), (32, 8));
//!
//! let config = ConvNextConfig { patch_size: 2, hidden_sizes: vec![8, 8], depths: vec![1, 1], num_labels: 2, ..ConvNextConfig::named("convnextv2-atto")? };
//! let mut model = ConvNext::<f32>::new(config, &mut ChaCha8Rng::seed_from_u64(1))?;
//! let trainer = Trainer::new(AdamW::new(0.01)).epochs(8).batch_size(8).seed(1);
//! trainer.fit(&mut model, &train, |model, batch, mode| {
//!     batch.loss(&model.forward(&batch.images.clone().into(), mode)?, 0.0)
//! })?;
//! assert_eq!(valid.evaluate(&model, 8)?.accuracy(), 1.0);
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! What to know about it:
//!
//! - **Everything becomes RGB of 8 bits.** Grey images get three equal channels, transparency is dropped as PIL's `convert("RGB")` drops it, 16
//!   bits are rounded to 8, and of an animation the first picture counts.
//! - **Sizes.** The shorter side is brought to the model's size and the middle is kept; smaller images grow, larger ones are averaged
//!   (a triangle filter as wide as the reduction, as in PIL), so nothing aliases.
//! - **Randomness is a function of the run's seed and the place in the run**: the number of threads that decode does not matter, and a run
//!   that is resumed sees the pixels that it would have seen.
//! - **Bad images are errors**, never gaps: with the file, or the row, and the reason. What can be seen without decoding is seen when a
//!   source is opened.
//!
//! | file | what |
//! |---|---|
//! | `source.rs` | [`ImageSource`], [`open`] |
//! | `folder.rs`, `packed.rs` | image files in folders; all pixels in one safetensors file |
//! | `split.rs` | [`split`] by blocks |
//! | `resize.rs` | to a model's size |
//! | `augment/` | [`Augment`]: which changes; crops, the operations of RandAugment, mixup |
//! | `images.rs`, `batch.rs` | [`Images`], the data set; [`ImageBatch`] |

mod augment;
mod batch;
mod folder;
mod images;
mod packed;
mod resize;
mod source;
mod split;

pub use augment::Augment;
pub use batch::ImageBatch;
pub use folder::ImageFolder;
pub use image::RgbImage;
pub use images::Images;
pub use packed::PackedImages;
pub use source::{ImageSource, check_same_classes, open};
pub use split::{Split, Subset, split};
