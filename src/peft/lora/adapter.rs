//! [`LoraAdapter`]: the update of one weight, as a product of two matrices.

use super::{LoraForm, Shapes};
use crate::{
    autodiff::Var,
    device::update_norms::update_norms,
    error::{Error, Result},
    module,
    nn::{Call, Contribution, Mode, Operation, Parameter, WeightAdapter},
    peft::{
        method::stream_of,
        path::{Cost, Factored, Path, Positions, Way, no_factored_path},
        site::Site,
    },
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Ix2, IxDyn};

/// An update $s\thinspace B A$ of a weight seen as a matrix. Its parameters are `lora_A` and `lora_B`, in the shapes of PEFT's
/// files.
///
/// For an embedding `[rows, width]` A is `[r, rows]` and B `[width, r]`; for a transposed convolution
/// `[in, out / g, *kernel]` A is `[r, in, 1, ..]` and B `[r, out / g, *kernel]`.
#[derive(Debug, Clone)]
pub struct LoraAdapter<T: Scalar> {
    a: Parameter<T>,
    b: Parameter<T>,
    shape: Vec<usize>,
    form: LoraForm,
    kind: Kind,
    separate: bool,
    scale: f64,
    way: Way,
}

module!(LoraAdapter { a => "lora_A", b => "lora_B" });

/// What A and B are, as two matrices whose product has the weight's entries in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// B times A.
    Plain,
    /// A transposed times B transposed: an embedding.
    Table,
    /// A transposed times B: a transposed convolution.
    Transposed,
    /// B times A transposed: Equation 3.
    Reshaped,
}

impl<T: Scalar> LoraAdapter<T> {
    /// The update with these matrices and this scale; both train.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where they do not have the shapes of this form at this site;
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) for a scale that is not finite; [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where it does not apply.
    pub fn new(site: &Site<'_>, form: LoraForm, a: Tensor<T, IxDyn>, b: Tensor<T, IxDyn>, scale: f64) -> Result<Self> {
        let kind = match site.operation() {
            Operation::Embedding { .. } => Kind::Table,
            Operation::ConvTranspose(_) => Kind::Transposed,
            Operation::Conv(_) if form == LoraForm::Equation3 => Kind::Reshaped,
            Operation::Linear | Operation::Conv(_) | Operation::Residual(_) => Kind::Plain,
        };
        // Where A says the rank; loralib's form has it times the kernel's size there.
        let given = if kind == Kind::Reshaped { a.shape().get(1) } else { a.shape().first() };
        let side = match site.operation() {
            Operation::Conv(_) if form == LoraForm::Kernel => site.shape()[site.shape().len() - 1],
            _ => 1,
        };
        let shapes = Shapes::new(form, site, given.copied().unwrap_or(0) / side)?;
        if shapes.a != a.shape() || shapes.b != b.shape() || a.is_empty() {
            let message = format!(
                "A of shape {:?} and B of shape {:?} for layer {:?}, whose weight has shape {:?}; with this A needs {:?} and {:?}",
                a.shape(),
                b.shape(),
                site.name(),
                site.shape(),
                shapes.a,
                shapes.b
            );
            return Err(Error::shape("LoraAdapter::new", message));
        }
        site.check_scale::<T>("LoraAdapter::new", scale)?;
        let way = Way::new(Path::Auto, 0.0, stream_of(site.name()))?;
        let shape = site.shape().to_vec();
        Ok(Self { a: a.into(), b: b.into(), shape, form, kind, separate: shapes.separate, scale, way })
    }

    /// Drops entries of the adapter's input with this probability while training. The layer's own input stays as it is;
    /// ids are not dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) where the probability is not between 0 and 1.
    pub fn dropout(mut self, probability: f64) -> Result<Self> {
        self.way = self.way.with_dropout(probability)?;
        Ok(self)
    }

    /// Takes this path.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for [`Path::Factored`] where there is none.
    pub fn path(mut self, path: Path) -> Result<Self> {
        if path == Path::Factored && !self.separate {
            return Err(no_factored_path());
        }
        self.way.path = path;
        Ok(self)
    }

    /// A
    pub fn a(&self) -> &Parameter<T> {
        &self.a
    }

    /// B
    pub fn b(&self) -> &Parameter<T> {
        &self.b
    }

    /// s
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// How a convolution's weight is seen as a matrix.
    pub fn form(&self) -> LoraForm {
        self.form
    }

    pub(in crate::peft) fn way(&self) -> &Way {
        &self.way
    }

    /// The same with other matrices, whose rank may differ.
    pub(in crate::peft) fn with_parts(&self, a: Var<T>, b: Var<T>, scale: f64) -> Self {
        Self { a: a.into(), b: b.into(), scale, ..self.clone() }
    }

    /// r. (In the form [`LoraForm::Kernel`] the product of a convolution has rank r k.)
    pub fn rank(&self) -> usize {
        let [of_a, _] = self.rank_modes();
        let side = if self.form == LoraForm::Kernel && self.shape.len() > 2 { self.shape[2] } else { 1 };
        self.a.shape()[of_a] / side
    }

    /// Along which modes of A and B the rank runs.
    pub(in crate::peft) fn rank_modes(&self) -> [usize; 2] {
        match self.kind {
            Kind::Plain | Kind::Table => [0, 1],
            Kind::Transposed => [0, 0],
            Kind::Reshaped => [1, 1],
        }
    }

    /// A and B without the scale as matrices with the rank first: the update is a product of one transposed with the other.
    pub(in crate::peft) fn rank_first(&self) -> Result<[Tensor<T, IxDyn>; 2]> {
        let [of_a, of_b] = self.rank_modes();
        let [a, b] = [(&self.a, of_a), (&self.b, of_b)].map(|(part, mode)| Self::matrix(&part.var().detach(), mode));
        Ok([a?.into_value(), b?.into_value()])
    }

    /// The same settings with other matrices, whose rank comes last, as [`rank_first`](Self::rank_first) has it first. They train.
    pub(in crate::peft) fn with_columns(&self, a: &Tensor<T, Ix2>, b: &Tensor<T, Ix2>) -> Result<Self> {
        let [of_a, of_b] = self.rank_modes();
        let shaped = |columns: &Tensor<T, Ix2>, like: &[usize], mode: usize| {
            let mut shape = like.to_vec();
            shape[mode] = columns.shape()[1];
            let matrix = if mode == 0 { columns.t() } else { columns.clone() };
            matrix.to_contiguous()?.reshape(shape.as_slice())
        };
        let (a, b) = (shaped(a, self.a.shape(), of_a)?, shaped(b, self.b.shape(), of_b)?);
        Ok(Self { a: a.into(), b: b.into(), ..self.clone() })
    }

    /// $s B$
    fn scaled(&self) -> Result<Var<T>> {
        self.b.var().scale(T::of(self.scale))
    }

    /// The lengths of the rows of `weight` plus the update, without forming it, where its rows are those of B.
    pub(in crate::peft) fn moved_norms(&self, weight: &Tensor<T, IxDyn>) -> Result<Option<Tensor<T, IxDyn>>> {
        let by_rows = self.kind == Kind::Plain && (self.shape.len() == 2 || self.form == LoraForm::Channels);
        if !by_rows || weight.shape() != self.shape {
            return Ok(None);
        }
        let (weight, b) = (weight.to_contiguous()?, self.b.value().scale(T::of(self.scale))?);
        let (a, rows, rank) = (self.a.value().to_contiguous()?, self.shape[0], self.a.shape()[0]);
        let sizes = [rows, weight.len() / rows.max(1), rank];
        let norms = update_norms(sizes, weight.flat(), b.flat(), a.flat())?;
        Ok(Some(Tensor::row_major(norms, &[rows])))
    }

    /// A parameter as a matrix of one mode against all others, that mode first.
    pub(in crate::peft) fn matrix(v: &Var<T>, mode: usize) -> Result<Var<T>> {
        let size = v.shape()[mode];
        let others = v.shape().iter().enumerate().filter(|&(other, _)| other != mode).map(|(_, &size)| size).product();
        if mode == 0 { v.reshape([size, others]) } else { v.reshape([others, size])?.permute(&[1, 0]) }
    }
}

impl<T: Scalar> WeightAdapter<T> for LoraAdapter<T> {
    fn weight_shape(&self) -> Vec<usize> {
        self.shape.clone()
    }

    fn delta(&self) -> Result<Var<T>> {
        // Both with the rank first.
        let [of_a, of_b] = self.rank_modes();
        let (a, b) = (Self::matrix(self.a.var(), of_a)?, Self::matrix(&self.scaled()?, of_b)?);
        let (left, right) = match self.kind {
            Kind::Plain | Kind::Reshaped => (b, a),
            Kind::Table | Kind::Transposed => (a, b),
        };
        left.permute(&[1, 0])?.matmul(&right)?.reshape(self.shape.as_slice())
    }

    fn apply(&self, call: &Call<'_, T>, mode: Mode) -> Result<Option<Contribution<T>>> {
        self.way.apply(self, call, mode)
    }
}

impl<T: Scalar> Factored<T> for LoraAdapter<T> {
    fn contribution(&self, call: &Call<'_, T>) -> Result<Contribution<T>> {
        let (a, b) = (self.a.var(), self.scaled()?);
        let (reduced, b) = match call {
            Call::Linear { x } => (x.linear(a, None)?, b),
            Call::Embedding { ids, padding } => (ids.rows_of(&a.permute(&[1, 0])?, *padding)?, b),
            Call::Conv { x, options } => (x.conv(a, None, options)?, Self::matrix(&b, 1)?.permute(&[1, 0])?),
            Call::ConvTranspose { x, options } => {
                return Ok(x.linear(&Self::matrix(a, 0)?, None)?.conv_transpose(&b, None, options)?.into());
            }
            Call::Residual { .. } => return Ok(call.run(&self.delta()?, None)?.into()),
        };
        Ok(Contribution::product(&reduced, &b))
    }

    fn factored_cost(&self, call: &Call<'_, T>, positions: Positions) -> Option<Cost> {
        if !self.separate {
            return None;
        }
        let Positions { input, output } = positions;
        let (first, rest) = (self.shape[0], self.shape[1..].iter().product::<usize>());
        let rank = self.a.shape()[0];
        let (reduce, expand, width) = match call {
            Call::Linear { .. } | Call::Conv { .. } => {
                let kernel = self.shape[2..].iter().product();
                let reduce = Cost::convolution(positions, [self.shape[1], rank], kernel);
                (reduce, Cost::product(output, rank, first), first)
            }
            Call::Embedding { .. } => (Cost::passes(2 * input * rank), Cost::product(output, rank, rest), rest),
            Call::ConvTranspose { .. } => {
                (Cost::product(input, first, rank), Cost::product(input, rank, rest), self.shape[1])
            }
            Call::Residual { .. } => return None,
        };
        Some(reduce + expand + Cost::passes(3 * output * width))
    }

    fn delta_cost(&self) -> Cost {
        let entries: usize = self.shape.iter().product();
        let [of_a, _] = self.rank_modes();
        let rank = self.a.shape()[of_a];
        let rows = if self.kind == Kind::Plain { self.b.len() } else { self.a.len() } / rank.max(1);
        Cost::product(rows, rank, entries / rows.max(1))
    }
}
