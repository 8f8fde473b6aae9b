//! Models that read the files of the libraries they come from: of images ConvNeXt in both versions, ResNets for small images, and
//! EfficientNet-Lite; of texts BERT and DeBERTa-v2 and -v3.
//!
//! Each model is one struct, its forward pass written top to bottom, and each says what it is from its name, from its file, or from
//! both. Images are channels-last, `[batch, rows, columns, channels]`, texts `[batch, tokens, width]`; weights have the shapes that files have.
//!
//! ```
//! use rand::SeedableRng;
//! use rand_chacha::ChaCha8Rng;
//! use tenfold::{
//!     Tensor, autodiff::Var,
//!     models::{ConvNext, ConvNextConfig, ImageClassifier},
//!     nn::{Mode, Module},
//!     peft::{self, Attach, Flora, Targets},
//! };
//!
//! # let folder = std::env::temp_dir().join(format!("tenfold-models-{}", std::process::id()));
//! # let config = ConvNextConfig { hidden_sizes: vec![8, 16], depths: vec![1, 2], ..ConvNextConfig::named("convnextv2-atto")? };
//! # ConvNext::<f32>::new(config, &mut ChaCha8Rng::seed_from_u64(1))?.save(&folder)?;
//! // A folder with config.json and model.safetensors, as the hub has it.
//! let mut model = ConvNext::<f32>::open(&folder)?;
//!
//! // Seven classes of one's own, and FLoRA everywhere else.
//! let rng = &mut ChaCha8Rng::seed_from_u64(1);
//! model.reset_classifier(7, rng)?;
//! let flora = Flora::new().rank(4);
//! let head = Targets::of([model.head()]);
//! Attach::new(&flora).to(Targets::all().except(model.head())).keep(head).apply(&mut model)?;
//!
//! let images = Var::constant(Tensor::normal([2, 64, 64, 3], rng)?);
//! assert_eq!(model.forward(&images, Mode::training(7, 0))?.shape(), [2, 7]);
//! // .. training ..
//!
//! // Back to where it came from: transformers loads this folder.
//! peft::merge(&mut model)?;
//! model.save(&folder)?;
//! # assert_eq!(ConvNext::<f32>::open(&folder)?.labels(), 7);
//! # std::fs::remove_dir_all(&folder).unwrap();
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! | model | sizes | names in files | from |
//! |---|---|---|---|
//! | [`ConvNext`] | V2 atto, femto, pico, nano, tiny, base, large, huge; V1 tiny, small, base, large, xlarge | Hugging Face, timm, torchvision ([`ConvNextNames`]) | name, `config.json`, shapes |
//! | [`CifarResNet`] | ResNet-20, 32, 44, .. | `akamaster/pytorch_resnet_cifar10` | name, shapes |
//! | [`EfficientNetLite`] | lite0 to lite4 | timm, `efficientnet_pytorch` ([`EfficientNetNames`]) | name, shapes |
//!
//! | [`Bert`] | any, MiniLM among them | Hugging Face | `config.json` |
//! | [`Deberta`] | v3 xsmall, small, base, large, multilingual base; v2 xlarge, xxlarge | Hugging Face | name, `config.json` |
//!
//! What to know about them:
//!
//! - **A file fits or is refused.** Names and shapes that differ are listed, those of the model and those of the file; see
//!   [`checkpoint`](crate::nn::checkpoint).
//! - **Another task** takes [`ImageClassifier::reset_classifier`]; [`ImageClassifier::head`] is the new head's name.
//! - **Texts** are [`Tokens`], which the module `text` makes; [`TextClassifier`] is what their models have in common.
//! - **An architecture at run time** is an [`Architecture`], by its name or by its file, and a boxed [`ImageClassifier`]; or a
//!   [`TextArchitecture`] and a boxed [`TextClassifier`].
//! - **Training** drops samples in residual branches, or entries of states and probabilities, where the configuration says so, by the seed of
//!   [`Mode`](crate::nn::Mode).
//! - **Adapters of a layer that is called twice act twice**: DeBERTa's projections of queries and keys project relative positions too.
//!
//! | file | what |
//! |---|---|
//! | `classifier.rs`, `architecture.rs` | what all have in common; which one, at run time |
//! | `convnext/` | ConvNeXt: the network, its sizes, its names |
//! | `resnet.rs` | ResNet for images of 32 x 32 |
//! | `efficientnet_lite/` | EfficientNet-Lite: the network, its sizes, its names |
//! | `text_classifier.rs`, `text_architecture.rs`, `tokens.rs` | the same for texts; what they read |
//! | `transformer.rs` | blocks, heads and activations that text models share |
//! | `bert/`, `deberta/` | BERT; DeBERTa: the network, its attention, its sizes |
//! | `start.rs` | what weights are drawn from |
//! | `folder.rs` | a model's folder as Hugging Face lays it out |

mod architecture;
mod bert;
mod classifier;
mod convnext;
mod deberta;
mod efficientnet_lite;
mod folder;
mod labels;
mod resnet;
mod start;
mod text_architecture;
mod text_classifier;
mod tokens;
mod transformer;

pub use architecture::{Architecture, ImageInput};
pub use bert::{Bert, BertConfig};
pub use classifier::ImageClassifier;
pub use convnext::{ConvNext, ConvNextConfig, ConvNextNames, ConvNextVersion};
pub use deberta::{Deberta, DebertaConfig, PositionTerms};
pub use efficientnet_lite::{EfficientNetLite, EfficientNetLiteConfig, EfficientNetNames, EfficientNetStage};
pub use resnet::{CifarResNet, CifarResNetConfig};
pub use text_architecture::TextArchitecture;
pub use text_classifier::TextClassifier;
pub use tokens::Tokens;

/// The most of anything that a network has, channels, blocks, sides of a window: far above what is ever trained, and far below what a product
/// of a few overflows at.
const MOST: usize = 1 << 16;
