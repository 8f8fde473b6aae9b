//! [`FloraAdapter`]: the update of one weight, in Tucker form.

use crate::{
    algebra::by_cost,
    autodiff::Var,
    decomp::Tucker,
    error::{Error, Result},
    module,
    nn::{Call, Contribution, Mode, Parameter, WeightAdapter},
    peft::{
        method::stream_of,
        path::{Cost, Factored, Path, Positions, Way, no_factored_path},
        site::Site,
    },
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Ix2, IxDyn};

/// An update $s\thinspace G \times_1 A_1 \cdots \times_N A_N$ of a weight of any order.
///
/// Its parameters are `core`, $J_1 \times \cdots \times J_N$, and `factors.0`, `factors.1`, .., $I_n \times J_n$, with
/// the modes in the order input, output, kernel ([`Site::axes`] says where these are in the weight).
///
/// **Merged**, the update is formed in the weight's own layout: the core is permuted, which is a view, and the mode
/// products write the rest. **Factored**, with $G_k$ for the core seen through the kernel's factors:
///
/// | layer | the input goes through |
/// |---|---|
/// | linear | $A_{in}^T$, $G^T$, $A_{out}$ |
/// | embedding | rows of $A_{rows}$, $G^T$, $A_{out}$ |
/// | convolution | $A_{in}^T$ at every position, a convolution with $G_k$ from $J_{in}$ to $J_{out}$ channels, $A_{out}$ at every position |
/// | transposed convolution | the same, with a transposed convolution |
///
/// With several groups there is no factored path: a factor is shared by all groups, and the core would have to be
/// repeated for each.
#[derive(Debug, Clone)]
pub struct FloraAdapter<T: Scalar> {
    core: Parameter<T>,
    factors: Vec<Parameter<T>>,
    /// Where each mode is in the weight; its own inverse.
    axes: Vec<usize>,
    groups: usize,
    scale: f64,
    way: Way,
}

module!(FloraAdapter { core, factors });

impl<T: Scalar> FloraAdapter<T> {
    /// The update with this core, these factors and this scale, modes in the order input, output, kernel; all of it
    /// trains.
    ///
    /// ```
    /// use tenfold::{Tensor, nn::{Operation, WeightAdapter}, peft::{FloraAdapter, Site}};
    ///
    /// let site = Site::new("dense", Operation::Linear, &[4, 3])?;
    /// let (a_in, a_out) = (Tensor::ones([3, 2])?, Tensor::ones([4, 2])?);
    /// let core = Tensor::<f64, _>::ones([2, 2])?.into_dyn();
    /// let adapter = FloraAdapter::new(&site, core, vec![a_in, a_out], 0.5)?;
    /// assert_eq!(adapter.delta()?.shape(), [4, 3]); // as the weight
    /// assert_eq!(adapter.delta()?.value().to_vec()?, [2.0; 12]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) unless there is one factor for each mode of the site, with as many
    /// rows as the mode is long and as many columns as the core's mode;
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) for a scale that is not finite;
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) at a norm.
    pub fn new(site: &Site<'_>, core: Tensor<T, IxDyn>, factors: Vec<Tensor<T, Ix2>>, scale: f64) -> Result<Self> {
        site.check_maps("flora")?;
        let sizes = site.modes();
        let shapes: Vec<&[usize]> = factors.iter().map(Tensor::shape).collect();
        let fits = core.order() == sizes.len()
            && shapes.len() == sizes.len()
            && (0..sizes.len()).all(|n| shapes[n] == [sizes[n], core.shape()[n]]);
        if !fits {
            let message = format!(
                "a core of shape {:?} and factors of shapes {shapes:?} for layer {:?}, whose modes have sizes {sizes:?}; factor n is \
                 [size n, rank n], the core has all ranks",
                core.shape(),
                site.name()
            );
            return Err(Error::shape("FloraAdapter::new", message));
        }
        site.check_scale::<T>("FloraAdapter::new", scale)?;
        Ok(Self {
            core: core.into(),
            factors: factors.into_iter().map(Parameter::new).collect(),
            axes: site.axes(),
            groups: site.groups(),
            scale,
            way: Way::new(Path::Auto, 0.0, stream_of(site.name()))?,
        })
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
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for [`Path::Factored`] with several groups.
    pub fn path(mut self, path: Path) -> Result<Self> {
        if path == Path::Factored && self.groups > 1 {
            return Err(no_factored_path());
        }
        self.way.path = path;
        Ok(self)
    }

    /// $G$
    pub fn core(&self) -> &Parameter<T> {
        &self.core
    }

    /// $A_n$, in the order input, output, kernel.
    pub fn factors(&self) -> &[Parameter<T>] {
        &self.factors
    }

    /// $s$
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// The rank of each mode, in the order input, output, kernel.
    pub fn ranks(&self) -> &[usize] {
        self.core.shape()
    }

    /// The update, scale included, as the Tucker decomposition that it is: modes in the order input, output, kernel. No copy but of the core.
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn tucker(&self) -> Result<Tucker<T>> {
        let factors = self.factors.iter().map(|factor| factor.value().clone().into_order());
        Tucker::new(self.core.value().scale(T::of(self.scale))?, factors.collect::<Result<_>>()?)
    }

    pub(in crate::peft) fn way(&self) -> &Way {
        &self.way
    }

    /// The same site and settings with another core and other factors, whose ranks may differ.
    pub(in crate::peft) fn with_parts(&self, core: Var<T>, factors: Vec<Var<T>>, scale: f64) -> Self {
        let factors = factors.into_iter().map(Parameter::from).collect();
        Self { core: core.into(), factors, scale, axes: self.axes.clone(), way: self.way.clone(), groups: self.groups }
    }

    /// $s G$ in the weight's layout.
    fn core_in_layout(&self) -> Result<Var<T>> {
        self.core.var().scale(T::of(self.scale))?.permute(&self.axes)
    }

    /// $s G_k$ in the weight's layout: the core seen through the factors of the kernel's modes.
    fn kernel(&self) -> Result<Var<T>> {
        let kernel: Vec<(usize, &Var<T>)> =
            self.factors.iter().enumerate().skip(2).map(|(n, factor)| (n, factor.var())).collect();
        self.core_in_layout()?.mode_products(&kernel)
    }
}

impl<T: Scalar> WeightAdapter<T> for FloraAdapter<T> {
    fn weight_shape(&self) -> Vec<usize> {
        self.axes.iter().map(|&mode| self.factors[mode].shape()[0]).collect()
    }

    fn delta(&self) -> Result<Var<T>> {
        let factors: Vec<&Var<T>> = self.axes.iter().map(|&mode| self.factors[mode].var()).collect();
        self.core_in_layout()?.tucker(&factors)
    }

    fn apply(&self, call: &Call<'_, T>, mode: Mode) -> Result<Option<Contribution<T>>> {
        self.way.apply(self, call, mode)
    }
}

impl<T: Scalar> Factored<T> for FloraAdapter<T> {
    fn contribution(&self, call: &Call<'_, T>) -> Result<Contribution<T>> {
        let [input, output] = [self.factors[0].var(), self.factors[1].var()];
        let reduced = |x: &Var<T>| x.linear(&input.permute(&[1, 0])?, None);
        let y = match call {
            Call::Linear { x } => reduced(x)?.linear(&self.core_in_layout()?, None)?,
            Call::Embedding { ids, padding } => {
                // A table's core has its modes the other way round than a linear layer's weight.
                ids.rows_of(input, *padding)?.linear(&self.core_in_layout()?.permute(&[1, 0])?, None)?
            }
            Call::Conv { x, options } => reduced(x)?.conv(&self.kernel()?, None, options)?,
            Call::ConvTranspose { x, options } => reduced(x)?.conv_transpose(&self.kernel()?, None, options)?,
            Call::Residual { .. } => return Ok(call.run(&self.delta()?, None)?.into()),
        };
        Ok(Contribution::product(&y, output))
    }

    fn factored_cost(&self, call: &Call<'_, T>, positions: Positions) -> Option<Cost> {
        if self.groups > 1 {
            return None;
        }
        let Positions { input, output } = positions;
        let ([size_in, rank_in], [size_out, rank_out]) = (self.factor(0), self.factor(1));
        let kernel: usize = self.factors[2..].iter().map(|factor| factor.shape()[0]).product();
        let reduce = match call {
            Call::Embedding { .. } => Cost::passes(2 * input * rank_in),
            _ => Cost::product(input, size_in, rank_in),
        };
        let between = match call {
            Call::ConvTranspose { .. } => Cost::product(input, rank_in, kernel * rank_out),
            _ => Cost::convolution(positions, [rank_in, rank_out], kernel),
        };
        // The expanded result is read again and added to the layer's own, which is read and written.
        let add = Cost::product(output, rank_out, size_out) + Cost::passes(3 * output * size_out);
        Some(reduce + between + add)
    }

    fn delta_cost(&self) -> Cost {
        let mut shape = self.ranks().to_vec();
        let sizes: Vec<(usize, [usize; 2])> = (0..shape.len()).map(|n| (n, self.factor(n))).collect();
        let steps = by_cost(&sizes).into_iter().map(|n| {
            let [size, rank] = self.factor(n);
            let around = shape.iter().product::<usize>() / rank.max(1);
            shape[n] = size;
            Cost::product(around, rank, size)
        });
        steps.sum()
    }
}

impl<T: Scalar> FloraAdapter<T> {
    /// Size and rank of a mode.
    fn factor(&self, mode: usize) -> [usize; 2] {
        [self.factors[mode].shape()[0], self.factors[mode].shape()[1]]
    }
}
