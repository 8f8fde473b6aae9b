//! The flags that choose a method of fine-tuning, the same for all examples.

use clap::{Args, ValueEnum};
use tenfold::{
    Result, Scalar,
    autodiff::Var,
    nn::{Module, Operation},
    peft::{self, AdaLora, FloraInit, Method, Phase, Recipe, Scaling},
};

/// What trains, and what its updates look like.
#[derive(Args)]
#[command(next_help_heading = "What trains")]
pub struct MethodArguments {
    /// full: everything. probe: the head alone. bitfit: biases. hadapter, padapter: small networks between the sub-layers of a
    /// transformer. lora, dora: two thin matrices a layer, the kernel of a convolution folded into one of them (lora-k and lora-eq3 fold
    /// it otherwise). adalora: lora with singular values, which begins with a rank above the one that is said and prunes what matters
    /// least in the whole model; its loss has a penalty in it. flora: a core and one factor for each mode, so that a kernel stays a
    /// kernel. All but full train the head as well.
    #[arg(long, default_value = "flora", value_parser = clap::builder::PossibleValuesParser::new(Recipe::names()))]
    pub method: String,
    /// The rank of lora, dora, adalora (what is left on the average) and flora, the size of hadapter and padapter [default: 8].
    #[arg(long)]
    pub rank: Option<usize>,
    /// adalora: the rank that every layer begins with [default: half as much again as --rank].
    #[arg(long)]
    pub initial_rank: Option<usize>,
    /// adalora: how long every layer keeps its initial rank, as a part of all steps (0.1) or in steps (100) [default: 0.1].
    #[arg(long, value_parser = phase)]
    pub adalora_warmup: Option<Phase>,
    /// adalora: how long the final choice of ranks stays as it is at the end, as a part of all steps or in steps [default: 0.5].
    #[arg(long, value_parser = phase)]
    pub adalora_settle: Option<Phase>,
    /// adalora: choose ranks at every so many steps [default: 1].
    #[arg(long)]
    pub adalora_every: Option<u64>,
    /// flora: the rank of each of a convolution kernel's two modes [default: 2].
    #[arg(long)]
    pub kernel_rank: Option<usize>,
    /// Multiply updates by this, whatever the rank [default: 4 for flora, 1 for the others].
    #[arg(long, conflicts_with = "alpha")]
    pub scale: Option<f64>,
    /// Multiply updates by this number divided by the rank, as LoRA's authors do.
    #[arg(long)]
    pub alpha: Option<f64>,
    /// flora: what factors start as [default: kaiming-normal]. gradient-hosvd looks at the gradient of some batches first, and starts in
    /// the directions in which the loss falls fastest; take --scale 1 with it.
    #[arg(long, value_enum)]
    pub init: Option<Init>,
    /// flora: lower ranks to what their modes hold; fewer parameters that reach the same.
    #[arg(long)]
    pub clip: bool,
    /// Drop entries of an adapter's input with this probability in training.
    #[arg(long)]
    pub adapter_dropout: Option<f64>,
}

/// [`FloraInit`] at the command line.
#[derive(Clone, Copy, ValueEnum)]
pub enum Init {
    KaimingNormal,
    Normal,
    KaimingUniform,
    Orthonormal,
    WeightHosvd,
    GradientHosvd,
}

/// A part of a run: with a point in it a part of all steps, without one a number of steps.
fn phase(text: &str) -> Result<Phase, String> {
    let wrong = || format!("{text:?} is neither a part of all steps, as 0.1, nor a number of steps, as 100");
    match text.contains('.') {
        true => text.parse().map(Phase::Ratio).map_err(|_| wrong()),
        false => text.parse().map(Phase::Steps).map_err(|_| wrong()),
    }
}

/// Whether a method attaches updates of weights, which papers give to certain layers and which can be merged; bottlenecks have their own
/// places, and stay.
pub fn updates_weights<T: Scalar>(method: &dyn Method<T>) -> bool {
    method.attaches() && method.fits(Operation::Linear)
}

impl MethodArguments {
    /// The method, checked: the command line has no setting that it does not have.
    pub fn build<T: Scalar>(&self) -> Result<Box<dyn Method<T>>> {
        self.recipe().build()
    }

    /// The method and its settings.
    pub fn recipe(&self) -> Recipe {
        let constant = self.scale.map(Scaling::Constant);
        Recipe {
            method: self.method.clone(),
            rank: self.rank,
            initial_rank: self.initial_rank,
            warmup: self.adalora_warmup,
            settle: self.adalora_settle,
            every: self.adalora_every,
            kernel_rank: self.kernel_rank,
            scaling: constant.or(self.alpha.map(|alpha| Scaling::Rank { alpha })),
            init: self.init.map(|init| match init {
                Init::KaimingNormal => FloraInit::KaimingNormal,
                Init::Normal => FloraInit::Normal,
                Init::KaimingUniform => FloraInit::KaimingUniform,
                Init::Orthonormal => FloraInit::Orthonormal,
                Init::WeightHosvd => FloraInit::WeightHosvd,
                Init::GradientHosvd => FloraInit::GradientHosvd,
            }),
            clip: self.clip,
            dropout: self.adapter_dropout,
        }
    }
}

/// A loss with what the method adds to it.
pub fn with_penalty<T: Scalar>(
    loss: Var<T>,
    adalora: Option<&AdaLora>,
    model: &(impl Module<T> + ?Sized),
) -> Result<Var<T>> {
    match adalora.map(|adalora| adalora.penalty(model)).transpose()?.flatten() {
        Some(penalty) => loss.add(&penalty),
        None => Ok(loss),
    }
}

/// Says how many triplets AdaLoRA left in each layer.
pub fn print_ranks<T: Scalar>(model: &(impl Module<T> + ?Sized)) -> Result<()> {
    let ranks = peft::ranks_left(model)?;
    for (layer, rank) in &ranks {
        println!("{rank:4} left in {layer}");
    }
    let all: usize = ranks.iter().map(|(_, rank)| rank).sum();
    println!("{all:4} triplets in {} layers", ranks.len());
    Ok(())
}
