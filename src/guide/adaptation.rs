//! Structure-preserving low-rank adaptation: fine-tuning a weight in its own order.
//!
//! A model that was trained on much data is to do something else, for which there is little. Its weights stay frozen,
//! and each gets a small update of few parameters that trains. This chapter goes from the question what such an update
//! should look like to files that others can use; every piece of code on it runs.
//!
//! 1. [Why not reshape](#why-not-reshape)
//! 2. [The same order, but small](#the-same-order-but-small): Tucker, and FLoRA for convolutions
//! 3. [A training](#a-training): the same change, learnt
//! 4. [Linear layers](#linear-layers): the same as LoRA, with the proof
//! 5. [Where it starts, and its scale](#where-it-starts-and-its-scale)
//! 6. [Choosing ranks](#choosing-ranks) from the plan
//! 7. [Merging and shipping](#merging-and-shipping)
//! 8. [Fewer ranks afterwards](#fewer-ranks-afterwards)
//! 9. [What stays beside the model](#what-stays-beside-the-model)
//!
//! # Why not reshape
//!
//! LoRA's update of a matrix is a product of two thin ones. The weight of a convolution is no matrix: it has a mode for
//! output channels, one for input channels, and two for positions. To have a product all the same, it is reshaped to
//! one: in one form in use, `[out, in, k, k]` to `out k` rows and `in k` columns, entry by entry. What lay side by side
//! in the kernel does not do so in the matrix:
//!
//! ```
//! use tenfold::Tensor;
//!
//! // One output channel, four input channels, kernels of 3 x 3. Every entry spells its index: channel, row, column.
//! let weight = Tensor::from_fn([1, 4, 3, 3], |i| 100 * i[1] as i64 + 10 * i[2] as i64 + i[3] as i64)?;
//! let matrix = weight.reshape([3, 12])?;
//! let row = |r: usize| matrix.narrow(0, r..r + 1).and_then(|row| row.to_vec());
//!
//! // Row 0 of channel 1's kernel is in one row of the matrix, rows 1 and 2 are in another, beside other channels.
//! assert_eq!(row(0)?, [0, 1, 2, 10, 11, 12, 20, 21, 22, 100, 101, 102]);
//! assert_eq!(row(1)?, [110, 111, 112, 120, 121, 122, 200, 201, 202, 210, 211, 212]);
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! A convolution is local: an output depends on a small neighbourhood. An update that is simple in this sense, the same
//! small filter for all channels, is one of the lowest rank where the kernel's modes are kept, and is not where they are
//! cut up:
//!
//! ```
//! use tenfold::{Tensor, decomp::Hosvd};
//!
//! // Every channel passes on to every other, by a weight for each: the differences to the four neighbours.
//! let laplace = [[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]];
//! let update = Tensor::from_fn([8, 4, 3, 3], |i| ((i[0] + 1) as f64) / (i[1] + 2) as f64 * laplace[i[2]][i[3]])?;
//!
//! let rank = |x: &Tensor<f64>| -> tenfold::Result<Vec<usize>> {
//!     Ok(Hosvd::tolerance(1e-12).fit(x)?.ranks().to_vec())
//! };
//! assert_eq!(rank(&update.to_dyn())?, [1, 1, 2, 2]); // one direction of channels, two of rows and columns
//! assert_eq!(rank(&update.reshape([24, 12])?.into_dyn())?, [3, 3]); // as a matrix it is of rank 3
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! The product of rank 3 has $3 (24 + 12) = 108$ parameters; core and factors of ranks (1, 1, 2, 2) have
//! $4 + 8 + 4 + 6 + 6 = 28$.
//!
//! # The same order, but small
//!
//! FLoRA (Y. Si et al., [arXiv:2405.14739](https://arxiv.org/abs/2405.14739)) writes the update as a [Tucker
//! tensor](crate::decomp::Tucker): a core of the weight's own order, seen through one factor per mode,
//!
//! $$ W = W_0 + s\thinspace G \times_1 A_1 \times_2 A_2 \cdots \times_N A_N, \qquad G : J_1 \times \cdots \times J_N, \quad A_n : I_n \times J_n. $$
//!
//! For a convolution the modes are input channels, output channels, and the kernel's; the core is itself the weight of a
//! small convolution. It can be read as three layers: $A_1$ takes the input to $J_1$ channels, the core (through the
//! kernel's factors) is a convolution from $J_1$ to $J_2$ channels, $A_2$ goes on to the output's. There is nothing in
//! this that needs four modes: a line of three, a volume of five, and a matrix of two are the same code.
//!
//! ```
//! use tenfold::{autodiff::Conv, nn::Operation, peft::{Flora, Lora, LoraForm, Method, Site}};
//!
//! let options = Conv::new().padding(1);
//! let site = Site::new("conv", Operation::Conv(&options), &[64, 64, 3, 3])?;
//! let reached = |method: &dyn Method<f32>| -> tenfold::Result<(usize, usize)> {
//!     let outline = method.outline(&site)?;
//!     Ok((outline.parameters, outline.degrees_of_freedom))
//! };
//! assert_eq!(reached(&Flora::new().rank(8).kernel_rank(2))?, (1292, 1156));
//! assert_eq!(reached(&Lora::new(2))?, (1280, 1276)); // a product of 64 x 576
//! assert_eq!(reached(&Lora::new(3).form(LoraForm::Equation3))?, (1152, 1143)); // of 192 x 192
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! With about as many parameters, LoRA has two directions of output channels and FLoRA has eight, with two filters of
//! rows and columns to combine for them. Which is better is a question about the task; that these are different sets of
//! updates is not. The second number is what a plan calls *reached*: the dimension of the set of updates, which
//! [`dof`](crate::peft::dof) explains.
//!
//! # A training
//!
//! The change of the first section can be learnt as well as written down. Here is a layer as it was, and as the task wants it; a
//! [`Trainer`](crate::train::Trainer) shows pictures to an adapted layer, with what the task makes of them:
//!
//! ```
//! use rand::SeedableRng;
//! use rand_chacha::ChaCha8Rng;
//! use tenfold::{
//!     Result, Tensor,
//!     autodiff::{self, Var},
//!     nn::{Conv, Mode, Module},
//!     peft::{self, Flora, Lora, LoraForm, Method, Targets},
//!     train::{AdamW, Rows, Schedule, Trainer},
//! };
//!
//! let rng = &mut ChaCha8Rng::seed_from_u64(1);
//! let base = Conv::<f32>::new([4, 8], &[3, 3], autodiff::Conv::new().padding(1), rng)?;
//! let laplace = [[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]];
//! let change = Tensor::from_fn([8, 4, 3, 3], |i| ((i[0] + 1) as f32) / (i[1] + 2) as f32 * laplace[i[2]][i[3]])?;
//! let mut task = base.clone();
//! for (name, parameter) in task.parameters_mut() {
//!     if name == "weight" {
//!         parameter.set(parameter.value().add(&change.to_dyn())?)?;
//!     }
//! }
//!
//! let images = Tensor::normal([256, 8, 8, 4], rng)?;
//! let wanted = task.forward(&Var::constant(images.clone()), Mode::Evaluation)?.into_value();
//! let data = Rows::new(&images, &wanted)?;
//! let trainer = Trainer::new(AdamW::new(0.1)).schedule(Schedule::cosine()).epochs(10).batch_size(16).seed(7);
//!
//! // How many numbers an adapter trains, and the mean square that it leaves.
//! let train = |method: &dyn Method<f32>| -> Result<(usize, f64)> {
//!     let mut model = base.clone();
//!     let plan = peft::attach(&mut model, method, &Targets::all())?;
//!     let report = trainer.fit(&mut model, &data, |model, (x, y), mode| {
//!         model.forward(&x.into(), mode)?.mse_loss(&y.into())
//!     })?;
//!     Ok((plan.parameters(), report.loss))
//! };
//! let flora = train(&Flora::new().rank(1).kernel_rank(2))?;
//! let short = train(&Lora::new(2).form(LoraForm::Equation3))?; // rank 2 of 24 x 12, where 3 are needed
//! let long = train(&Lora::new(3).form(LoraForm::Equation3))?;
//! assert!(flora.0 == 28 && flora.1 < 0.01, "{flora:?}");
//! assert!(short.0 == 72 && short.1 > 1.0, "{short:?}");
//! assert!(long.0 == 108 && long.1 < 0.01, "{long:?}");
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! As a matrix of 24 x 12 the change takes 108 numbers, four times those of the core and its factors. LoRA's other form, a product of
//! 8 x 36 that leaves kernels whole but gives each input channel a filter of its own, takes 44 here. Changes that a task asks for are
//! not made to be of low rank in either sense, and the [figures below](#where-it-starts-and-its-scale) are from real ones.
//!
//! # Linear layers
//!
//! For a matrix the update is $s\thinspace A_{out} G^T A_{in}^T$: LoRA with a square matrix in between. **With ranks
//! (r, r) it reaches exactly the matrices that LoRA of rank r reaches.**
//!
//! *Proof.* A product with a factor of r columns has at most rank r, so the update is one that LoRA reaches. In the other
//! direction, let $D$ have at most rank r. By its singular value decomposition $D = B A$ with $B : m \times r$ and
//! $A : r \times n$; take $A_{out} = B$, $A_{in} = A^T$ and $G = I / s$. ∎
//!
//! Both sets have $r (m + n - r)$ degrees of freedom, and any difference in results is one of the way there: the
//! gradients of three factors are other than those of two, and the start is another. The first half of the proof as code
//! is [`FloraAdapter::to_lora`](crate::peft::FloraAdapter::to_lora), which is exact:
//!
//! ```
//! use rand::SeedableRng;
//! use rand_chacha::ChaCha8Rng;
//! use tenfold::{Tensor, nn::{Operation, WeightAdapter}, peft::{FloraAdapter, Site}};
//!
//! let rng = &mut ChaCha8Rng::seed_from_u64(1);
//! let site = Site::new("dense", Operation::Linear, &[20, 30])?;
//! let factors = vec![Tensor::normal([30, 4], rng)?, Tensor::normal([20, 4], rng)?];
//! let flora = FloraAdapter::<f64>::new(&site, Tensor::normal(vec![4, 4], rng)?, factors, 0.4)?;
//! let lora = flora.to_lora(&site)?;
//! assert_eq!((lora.a().shape(), lora.b().shape()), (&[4, 30][..], &[20, 4][..]));
//! let away = lora.delta()?.value().sub(flora.delta()?.value())?.max_abs()?;
//! assert!(away < 1e-12);
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! For convolutions the conversion exists too, but not back: the product has more parameters, and its training leaves the
//! set.
//!
//! # Where it starts, and its scale
//!
//! The core starts as zero and the factors as anything else, so the model starts exactly where it was. At the first step
//! the gradient of every factor is exactly zero: only cores move, within what the factors span. So what they span
//! matters. [`FloraInit`](crate::peft::FloraInit) has the three starts that the authors' programs use, random orthonormal columns, and the
//! singular vectors of the weight or **of the first gradient**, the subspaces in which the loss falls fastest.
//!
//! Small runs, for an idea of the size of the effect and not as a benchmark. Test accuracy in percent; a ResNet-20 taken
//! from CIFAR-10 to aerial scenes (12 epochs, mean of three seeds, best of three rates each) and MiniLM on MRPC (3 epochs,
//! one seed):
//!
//! | | ResNet-20 | MiniLM, r = 8 |
//! |---|---|---|
//! | LoRA | 73.8 (7890 parameters) | 81.1 |
//! | FLoRA, factors of Kaiming's distribution, scale 4 | 71.7 (6685 parameters) | 75.0 |
//! | FLoRA, random orthonormal factors | 71.8 | |
//! | FLoRA, factors from the first gradient | 73.9, at scale 1 | 80.9 |
//!
//! The start alone made up what was missing. The factors have to move: with the step of the whole update held fixed and
//! the factors slowed down, accuracy fell to 69 to 70 and 77.9; with the factors at three times the core's rate it was
//! 74.9 and 73.6 (two seeds) on ResNet-20, at ten times 71. The paper takes the scale from 0.04, 0.4 and 4 by task,
//! independent of the rank. Scale, start and rates belong together: when one changes, look at the others again.
//!
//! A start from gradients takes one pass, or better several, before anything is attached:
//!
//! ```
//! use rand::SeedableRng;
//! use rand_chacha::ChaCha8Rng;
//! use tenfold::{
//!     Tensor,
//!     autodiff::{self, Var},
//!     nn::{Conv, Layer, Mode, Module},
//!     peft::{Attach, Flora, FloraAdapter, FloraInit, weight_gradients},
//! };
//!
//! let rng = &mut ChaCha8Rng::seed_from_u64(1);
//! let mut model = vec![Conv::<f64>::new([3, 8], &[3, 3], autodiff::Conv::new().padding(1), rng)?];
//! let x = Var::constant(Tensor::normal([4, 8, 8, 3], rng)?);
//!
//! model.unfreeze_all();
//! let loss = |model: &[Conv<f64>]| model[0].forward(&x, Mode::Evaluation)?.gelu()?.square()?.mean();
//! let first = weight_gradients(&model, &loss(&model)?.backward()?);
//!
//! let flora = Flora::new().rank(2).kernel_rank(2).scale(1.0).init(FloraInit::GradientHosvd);
//! let before = loss(&model)?.into_value();
//! Attach::new(&flora).gradients(&first).apply(&mut model)?;
//! assert_eq!(loss(&model)?.value(), &before); // nothing has changed yet
//!
//! let gradients = loss(&model)?.backward()?;
//! let adapter = model[0].adapters().get("default").unwrap();
//! let adapter = (adapter as &dyn std::any::Any).downcast_ref::<FloraAdapter<f64>>().unwrap();
//! assert!(gradients.of(adapter.core().var())?.max_abs()? > 0.0);
//! assert!(adapter.factors().iter().all(|a| gradients.of(a.var()).unwrap().max_abs().unwrap() == 0.0));
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! # Choosing ranks
//!
//! A [`Plan`](crate::peft::Plan) says what every layer's update costs and what it reaches, before anything is built. It needs shapes only:
//!
//! ```
//! use tenfold::{autodiff::Conv, nn::Operation, peft::{Flora, Plan, Ranks, Site}};
//!
//! // A block of ConvNeXt: a depthwise convolution between two linear layers.
//! let depthwise = Conv::new().padding(3).groups(96);
//! let sites = [
//!     Site::new("dwconv", Operation::Conv(&depthwise), &[96, 1, 7, 7])?,
//!     Site::new("pwconv1", Operation::Linear, &[384, 96])?,
//!     Site::new("pwconv2", Operation::Linear, &[96, 384])?,
//! ];
//! let flora = Flora::new().rank(16).kernel_rank(3);
//! let plan = Plan::of::<f32>(&flora, &sites)?;
//! println!("{plan}");
//!
//! // The input mode of the depthwise kernel has size 1: of 16 x 16 x 3 x 3 entries of its core most reach nothing.
//! assert_eq!((plan.rows[0].outline.parameters, plan.rows[0].outline.degrees_of_freedom), (3898, 888));
//! let clipped = Plan::of::<f32>(&flora.clone().clip(), &sites)?;
//! assert_eq!((clipped.rows[0].outline.parameters, clipped.rows[0].outline.degrees_of_freedom), (988, 888));
//! assert_eq!(clipped.degrees_of_freedom(), plan.degrees_of_freedom());
//!
//! // A budget for all together, with the depthwise layer's ranks said by hand.
//! let budget = flora.clip().ranks_by(Ranks::ModelParameters(20_000)).rank_pattern("dwconv", Ranks::Modes(vec![1, 9, 3, 3]));
//! let plan = Plan::of::<f32>(&budget, &sites)?;
//! assert!(plan.parameters() <= 20_000 && plan.parameters() > 19_000);
//! assert_eq!(plan.wasted_columns(), 0);
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! - Compare methods by *reached* beside *parameters*. On a depthwise kernel LoRA in loralib's form takes eight times the
//!   parameters that the kernel has; budgets that count parameters alone are then about something else.
//! - The plan warns where an adapter is larger than its weight: train the weight, or except the layer.
//! - Kernels are small: a kernel rank of 2 or 3 of 3 leaves little out. Spend the budget on channels.
//!
//! Ranks may also be found while the model trains. [`AdaLora`](crate::peft::AdaLora) begins with one and a half times the rank that is asked for, and
//! takes away, step by step, what matters least in the whole model: a layer may end with none and another with all. It
//! needs a companion of the training, the [`RankAllocator`](crate::peft::RankAllocator), and a
//! [penalty](crate::peft::orthogonality) in the loss; what is pruned is left out of files.
//!
//! # Merging and shipping
//!
//! In use an adapter costs time, little for linear layers and more for convolutions. Merged it costs none:
//!
//! ```
//! use rand::SeedableRng;
//! use rand_chacha::ChaCha8Rng;
//! use tenfold::{
//!     autodiff,
//!     nn::{Conv, Load, Module, Save},
//!     peft::{self, Flora, SaveAdapter, Targets, lycoris},
//! };
//!
//! let folder = std::env::temp_dir().join("tenfold-adaptation");
//! let base = || {
//!     let rng = &mut ChaCha8Rng::seed_from_u64(1);
//!     Ok::<_, tenfold::Error>(vec![Conv::<f32>::new([3, 8], &[3, 3], autodiff::Conv::new().padding(1), rng)?])
//! };
//! let mut model = base()?;
//! peft::attach(&mut model, &Flora::new().rank(2), &Targets::all())?;
//! // .. training ..
//!
//! // The adapter alone: small, strict on the way back, and with the head where one was kept.
//! peft::save(&model, folder.join("flora"))?;
//! peft::load(&mut base()?, folder.join("flora"))?;
//!
//! // For other programs: LoRA in PEFT's folder, and the Tucker form in LyCORIS's file. Exact, or an error that says why not.
//! SaveAdapter::new().for_peft().write(&model, folder.join("lora"))?;
//! lycoris::save(&model, "default", "lycoris", folder.join("lycoris.safetensors"))?;
//!
//! // For everything else: the model itself, with the update in its weights.
//! let merged = peft::merge(&mut model)?;
//! println!("{merged}"); // how far each weight moved
//! Save::new().write(&model, folder.join("model.safetensors"))?;
//! Load::new().read(&mut base()?, folder.join("model.safetensors"))?;
//! merged.unmerge(&mut model)?; // and back: the weights as they were, bit for bit
//! assert_eq!(model[0].parameters()[0].1.value(), base()?[0].parameters()[0].1.value());
//! # std::fs::remove_dir_all(&folder).unwrap();
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! # Fewer ranks afterwards
//!
//! How many directions training needed is known when it is over. An update is a Tucker tensor, so the crate's own ST-HOSVD lowers its ranks
//! to a guaranteed error, and makes an update of a model that was fine-tuned whole:
//!
//! ```
//! use rand::SeedableRng;
//! use rand_chacha::ChaCha8Rng;
//! use tenfold::{
//!     Tensor,
//!     autodiff,
//!     nn::{Conv, Module},
//!     peft::{self, Distil, Flora, Targets, Truncation},
//! };
//!
//! let rng = &mut ChaCha8Rng::seed_from_u64(1);
//! let base = vec![Conv::<f64>::new([12, 16], &[3, 3], autodiff::Conv::new(), rng)?];
//! let mut tuned = base.clone();
//! peft::attach(&mut tuned, &Flora::new().rank(6), &Targets::all())?;
//! for (_, parameter) in tuned.parameters_mut().into_iter().filter(|(_, parameter)| parameter.trains()) {
//!     parameter.set(Tensor::normal(parameter.shape().to_vec(), rng)?)?; // in place of training
//! }
//! println!("{}", peft::updates(&tuned, "default")?); // how far it moved, and the ranks that hold 99 % of it
//!
//! let report = peft::compress(&mut tuned, "default", &Truncation::Tolerance(0.3))?;
//! assert!(report.most_lost() <= 0.3 && report.rows[0].ranks < report.rows[0].before);
//!
//! // A fine-tuned model as adapters of the model that it came from.
//! peft::merge(&mut tuned)?;
//! let mut adapted = base;
//! let report = Distil::new(Truncation::Tolerance(1e-6)).apply(&mut adapted, &tuned)?;
//! assert!(report.left.is_empty()); // nothing else differs
//! println!("{report}");
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! # What stays beside the model
//!
//! Not everything that adapts can be merged. A bottleneck ([`Bottleneck`](crate::peft::Bottleneck); HAdapter and PAdapter in the paper's tables) is
//! a small network between two sub-layers of a transformer. What it adds has an activation in it, so it is no update of any weight: the model keeps
//! it, and pays for it with every pass.
//!
//! Where to go on: [`peft`](crate::peft) has all methods and settings, [`Attach`](crate::peft::Attach) names, seeds and
//! what stays trainable, [`combine`](crate::peft::combine) adds adapters up.
