//! What the transformers here have in common: the second half of a block, heads, parts of configurations.

use super::{Tokens, labels};
use crate::{
    autodiff::{Attention, Var},
    error::{Error, ErrorKind, Result},
    module,
    nn::{
        Activation, Checkpoint, Dropout, Linear, Load, Mode, Module, Renames, ResidualNorm, Sublayer, Visitor,
        VisitorMut,
    },
    scalar::Scalar,
};
use serde::Serialize;
use serde_json::{Value, json};

/// A linear layer that goes back to the residual stream: norm(x + dropout(linear(h))).
#[derive(Debug, Clone)]
struct Output<T: Scalar> {
    dense: Linear<T>,
    norm: ResidualNorm<T>,
    dropout: Dropout,
}
module!(Output { dense, norm => "LayerNorm" });

impl<T: Scalar> Output<T> {
    fn zeros(from: usize, after: Sublayer, sizes: Sizes) -> Result<Self> {
        let Sizes { width, eps, dropout, .. } = sizes;
        let norm = ResidualNorm::new(width, eps, after)?;
        Ok(Self { dense: Linear::zeros(from, width)?, norm, dropout: Dropout::new(dropout, 0)? })
    }

    /// h `[.., from]` and x `[.., to]`, of x's shape.
    fn forward(&self, h: &Var<T>, x: &Var<T>, mode: Mode) -> Result<Var<T>> {
        let h = self.dropout.forward(&self.dense.forward(h, mode)?, mode)?;
        self.norm.forward(x, &h, mode)
    }
}

/// The half of a block that looks at each position by itself.
#[derive(Debug, Clone)]
struct FeedForward<T: Scalar> {
    intermediate: Linear<T>,
    output: Output<T>,
    activation: Activation,
}
module!(FeedForward { intermediate => "intermediate.dense", output });

impl<T: Scalar> FeedForward<T> {
    fn forward(&self, x: &Var<T>, mode: Mode) -> Result<Var<T>> {
        let h = self.activation.apply(&self.intermediate.forward(x, mode)?)?;
        self.output.forward(&h, x, mode)
    }
}

/// `[.., N, H d]` as `[.., H, N, d]`: a view.
pub(super) fn split_heads<T: Scalar>(x: &Var<T>, heads: usize) -> Result<Var<T>> {
    let order = x.order();
    let mut shape = x.shape().to_vec();
    shape[order - 1] /= heads;
    shape.insert(order - 1, heads);
    let mut modes: Vec<usize> = (0..=order).collect();
    modes.swap(order - 2, order - 1);
    x.reshape(shape)?.permute(&modes)
}

/// `[B, H, N, d]` as `[B, N, H d]`: a view where the heads of a position lie side by side, as those of an attention do.
pub(super) fn join_heads<T: Scalar>(x: &Var<T>) -> Result<Var<T>> {
    let &[b, h, n, d] = x.shape() else {
        return Err(Error::shape("join_heads", format!("a result of shape {:?}; needs [B, H, N, d]", x.shape())));
    };
    x.permute(&[0, 2, 1, 3])?.reshape([b, n, h * d])
}

/// With dropout of the probabilities while the mode trains.
pub(super) fn drop_probabilities<T: Scalar>(options: Attention<T>, probability: f64, mode: Mode) -> Attention<T> {
    match mode {
        Mode::Evaluation => options,
        Mode::Training { seed, step } => options.dropout(probability, seed, step),
    }
}

/// Reads a transformer's files: those of the classifier, and those of the encoder alone, whose names lack their first part `prefix`.
///
/// `head` are the parts beside the encoder that a classifier has and other files lack; what is left out of a file and what is left over
/// in it is ignored as the patterns say. `gamma` and `beta` are what the first files called a norm's parameters.
pub(super) fn load(
    checkpoint: &Checkpoint,
    prefix: &'static str,
    head: &'static [&'static str],
    other: &[&str],
) -> Load {
    let bare = !checkpoint.names().any(|name| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')));
    let renames = Renames::new().with(move |name| {
        let renamed = match name.rsplit_once("LayerNorm.") {
            Some((stem, "gamma")) => format!("{stem}LayerNorm.weight"),
            Some((stem, "beta")) => format!("{stem}LayerNorm.bias"),
            _ => name.to_string(),
        };
        let of_head = head.iter().any(|part| renamed.strip_prefix(part).is_some_and(|rest| rest.starts_with('.')));
        Some(if bare && !of_head { format!("{prefix}.{renamed}") } else { renamed })
    });
    other.iter().fold(Load::new().renames(renames), |load, pattern| load.ignore(pattern))
}

/// The contents of a `config.json`: what `config` says, and what transformers wants to know besides.
pub(super) fn to_json<C: Serialize>(
    config: &C,
    model_type: &str,
    class: &str,
    num_labels: usize,
    names: &[String],
) -> String {
    let mut file = json!({
        "architectures": [class],
        "model_type": model_type,
    });
    for (name, labels) in labels::write(num_labels, names) {
        file[name] = labels;
    }
    // A configuration is a struct of plain fields: its JSON is an object.
    if let (Ok(Value::Object(fields)), Some(file)) = (serde_json::to_value(config), file.as_object_mut()) {
        file.extend(fields);
    }
    format!("{file:#}\n")
}

/// An error unless all sizes are from 1 on, heads divide the width, and probabilities are from 0 to 1.
pub(super) fn check(
    operation: &'static str,
    sizes: &[(&str, usize)],
    heads: [usize; 2],
    probabilities: &[(&str, f64)],
) -> Result<()> {
    let wrong = |message: String| Err(Error::new(ErrorKind::Value, operation, message));
    if let Some((name, size)) = sizes.iter().find(|(_, size)| !(1..=MOST).contains(size)) {
        return wrong(format!("{name} is {size}; needs 1 to {MOST}"));
    }
    let [width, count] = heads;
    if width % count != 0 {
        return wrong(format!("num_attention_heads is {count}, which does not divide a hidden_size of {width}"));
    }
    match probabilities.iter().find(|(_, p)| !(0.0..=1.0).contains(p)) {
        Some((name, p)) => wrong(format!("{name} is {p}; needs 0 to 1")),
        None => Ok(()),
    }
}

/// The most of anything: vocabularies are the largest, of some 250 thousand.
const MOST: usize = 1 << 22;

/// The sizes that every block of a transformer has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) width: usize,
    pub(super) intermediate: usize,
    pub(super) activation: Activation,
    pub(super) eps: f64,
    pub(super) dropout: f64,
}

/// A block around some kind of attention: norm(x + attention), then norm(x + feed-forward).
#[derive(Debug, Clone)]
pub(super) struct Block<T: Scalar, A> {
    attention: A,
    output: Output<T>,
    feed_forward: FeedForward<T>,
}

/// [`module!`] does not know a second parameter.
impl<T: Scalar, A: Module<T>> Module<T> for Block<T, A> {
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, T>) {
        visitor.part("attention.self", &self.attention);
        visitor.part("attention.output", &self.output);
        visitor.part("", &self.feed_forward);
    }

    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, T>) {
        visitor.part("attention.self", &mut self.attention);
        visitor.part("attention.output", &mut self.output);
        visitor.part("", &mut self.feed_forward);
    }
}

impl<T: Scalar, A> Block<T, A> {
    pub(super) fn zeros(attention: A, sizes: Sizes) -> Result<Self> {
        let Sizes { width, intermediate, activation, .. } = sizes;
        Ok(Self {
            attention,
            output: Output::zeros(width, Sublayer::Attention, sizes)?,
            feed_forward: FeedForward {
                intermediate: Linear::zeros(width, intermediate)?,
                output: Output::zeros(intermediate, Sublayer::FeedForward, sizes)?,
                activation,
            },
        })
    }

    /// The states `[B, N, width]` at some positions, with what those attend to by `attend`, `[B, N, width]` too.
    pub(super) fn forward(
        &self,
        states: &Var<T>,
        mode: Mode,
        attend: impl FnOnce(&A) -> Result<Var<T>>,
    ) -> Result<Var<T>> {
        let x = self.output.forward(&attend(&self.attention)?, states, mode.fork(0))?;
        self.feed_forward.forward(&x, mode.fork(1))
    }
}

/// The logits of pooled states.
pub(super) fn classify<T: Scalar>(
    operation: &'static str,
    classifier: Option<&Linear<T>>,
    pooled: &Var<T>,
    mode: Mode,
) -> Result<Var<T>> {
    let Some(classifier) = classifier else {
        let message = "the model has no classifier; take its states, or make one with reset_classifier";
        return Err(Error::new(ErrorKind::Value, operation, message));
    };
    classifier.forward(pooled, mode)
}

/// An error unless there are tokens, and no more than there are positions.
pub(super) fn check_length<T: Scalar>(operation: &'static str, tokens: &Tokens<T>, most: Option<usize>) -> Result<()> {
    if tokens.len() == 0 {
        return Err(Error::shape(operation, "sequences without tokens; the first one is what a classifier looks at"));
    }
    match most.filter(|&most| tokens.len() > most) {
        Some(most) => {
            let message = format!("sequences of {} tokens; the model has positions for {most}", tokens.len());
            Err(Error::new(ErrorKind::Value, operation, message))
        }
        None => Ok(()),
    }
}
