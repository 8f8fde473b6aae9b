//! The Tucker format: a core seen through one matrix per mode.

use super::scale::{times_power, unit};
use crate::{
    algebra::{MultiMode, gram, inner},
    device::{columns, gram::Precision, layout::checked_len, reduce::in_range},
    error::{Error, ErrorKind, Result},
    scalar::{DType, Scalar},
    tensor::{Part, Tensor, resolved},
};
use ndarray::{Dimension, Ix2, IxDyn, SliceArg};
use std::fmt;

/// Entries that a slab of a blockwise reconstruction holds.
const SLAB: usize = 1 << 18;

/// A tensor in Tucker form: core G `J_0 x J_1 x ..`, factors A_n `I_n x J_n`.
///
/// $$ X = G \times_0 A_0 \times_1 A_1 \cdots \times_{N-1} A_{N-1} $$
///
/// (Tucker, Psychometrika 31, 1966; Kolda and Bader 2009, section 4.) Holds prod J + sum I J numbers for prod I
/// entries. The ranks J may be above the sizes I (adapters do that); the solvers give orthonormal factors.
///
/// ```
/// use tenfold::{Tensor, decomp::Tucker};
///
/// let t = Tucker::new(Tensor::<f64, _>::ones([1, 1])?, vec![Tensor::ones([3, 1])?, Tensor::ones([4, 1])?])?;
/// assert_eq!(t.reconstruct()?, Tensor::ones([3, 4])?);
/// assert_eq!(t.get(&[2, 3])?, 1.0);
/// assert_eq!(t.to_string(), "Tucker<f64> 3 x 4 of ranks (1, 1): 8 numbers for 12 entries, 1.5 times smaller");
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Tucker<T: Scalar, D: Dimension = IxDyn> {
    core: Tensor<T, D>,
    factors: Vec<Tensor<T, Ix2>>,
    shape: Vec<usize>,
}

impl<T: Scalar, D: Dimension> Tucker<T, D> {
    /// A core and one factor for each mode.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where a factor has not as many columns as the core's mode is long, or the counts differ;
    /// [`ErrorKind::Device`] where they live in different places.
    pub fn new(core: Tensor<T, D>, factors: Vec<Tensor<T, Ix2>>) -> Result<Self> {
        if factors.len() != core.order() {
            let message = format!("{} factors for a core of shape {:?}", factors.len(), core.shape());
            return Err(Error::shape("Tucker::new", message));
        }
        for (mode, factor) in factors.iter().enumerate() {
            core.device().check_same(factor.device(), "Tucker::new")?;
            if factor.shape()[1] != core.shape()[mode] {
                let message = format!(
                    "factor {mode} is {} x {}, but the core of shape {:?} needs {} columns there",
                    factor.shape()[0],
                    factor.shape()[1],
                    core.shape(),
                    core.shape()[mode]
                );
                return Err(Error::shape("Tucker::new", message));
            }
        }
        let shape = factors.iter().map(|f| f.shape()[0]).collect();
        Ok(Self { core, factors, shape })
    }

    /// The projection of X on factors with orthonormal columns: core X x_0 A_0^T x_1 A_1^T ..
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where a factor does not fit X.
    pub fn project(x: &Tensor<T, D>, factors: Vec<Tensor<T, Ix2>>) -> Result<Self> {
        let core = x.multi_mode_product(&factors, MultiMode { skip: None, transpose: true })?;
        Self::new(core, factors)
    }

    /// The core.
    pub fn core(&self) -> &Tensor<T, D> {
        &self.core
    }

    /// The factors, one for each mode, `I_n x J_n`.
    pub fn factors(&self) -> &[Tensor<T, Ix2>] {
        &self.factors
    }

    /// Core and factors, moved out.
    pub fn into_parts(self) -> (Tensor<T, D>, Vec<Tensor<T, Ix2>>) {
        (self.core, self.factors)
    }

    /// The same decomposition with its order known at run time only.
    pub fn into_dyn(self) -> Tucker<T> {
        Tucker { core: self.core.into_dyn(), factors: self.factors, shape: self.shape }
    }

    /// The shape of the tensor that this stands for.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The core's shape.
    pub fn ranks(&self) -> &[usize] {
        self.core.shape()
    }

    /// How many numbers the format holds.
    pub fn parameters(&self) -> usize {
        self.core.len() + self.factors.iter().map(Tensor::len).sum::<usize>()
    }

    /// Entries of the whole tensor for each number held.
    pub fn compression_ratio(&self) -> f64 {
        self.shape.iter().map(|&n| n as f64).product::<f64>() / self.parameters() as f64
    }

    /// The whole tensor. About 2 J_0 prod I flops when the first mode is expanded last.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`] where the shape overflows or the device is full.
    pub fn reconstruct(&self) -> Result<Tensor<T, D>> {
        checked_len("Tucker::reconstruct", &self.shape)?;
        self.evened()?.multiplied()
    }

    /// The same of parts whose products are known to stay in range: nothing is looked at, which a GPU would have to be waited for.
    pub(super) fn multiplied(&self) -> Result<Tensor<T, D>> {
        self.core.multi_mode_product(&self.factors, MultiMode::default())
    }

    /// Part of the tensor, still in Tucker form: rows of the factors are picked, the whole is never formed.
    ///
    /// ```
    /// use ndarray::s;
    /// use tenfold::{Tensor, decomp::Tucker};
    ///
    /// let t = Tucker::new(Tensor::<f64, _>::ones([2, 2, 2])?, vec![Tensor::ones([50, 2])?; 3])?;
    /// let block = t.slice(s![.., 10..20, 3])?;
    /// assert_eq!(block.shape(), &[50, 10]);
    /// assert_eq!(block.reconstruct()?, t.reconstruct()?.slice(s![.., 10..20, 3])?);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where an index lies outside.
    pub fn slice<I: SliceArg<D>>(&self, part: I) -> Result<Tucker<T, I::OutDim>> {
        let parts = resolved(part.as_ref(), &self.shape)?;
        let mut core = self.core.to_dyn();
        for mode in (0..parts.len()).filter(|&mode| matches!(parts[mode], Part::New)) {
            core = core.insert_mode(mode)?;
        }
        let (factors, stays) = picked_rows(&self.factors, parts, &Tensor::ones([1, 1])?.to_device(core.device())?)?;
        let mut picked = Tucker::new(core, factors)?;
        if stays.contains(&false) {
            picked = picked.evened()?;
        }
        let (mut core, rows) = picked.into_parts();
        let mut factors = Vec::new();
        for (rows, stays) in rows.into_iter().zip(stays) {
            match stays {
                true => factors.push(rows),
                false => core = core.mode_product_vector(factors.len(), &rows.index_mode(0, 0)?)?,
            }
        }
        Tucker::new(core.into_order()?, factors)
    }

    /// One entry, from one row of each factor.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where the index lies outside.
    pub fn get(&self, index: &[usize]) -> Result<T> {
        check_index("Tucker::get", index, &self.shape)?;
        let rows = index.iter().zip(&self.factors).map(|(&i, factor)| factor.narrow(0, i..i + 1));
        let entry = Self::new(self.core.clone(), rows.collect::<Result<_>>()?)?;
        entry.reconstruct()?.get(&vec![0; index.len()])
    }

    /// The Frobenius norm, without forming the tensor.
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn norm(&self) -> Result<f64> {
        let (mut level, mut power) = self.levelled(false)?;
        let mut squares = level.inner_in_range(&level)?;
        if !in_range(squares) {
            (level, power) = self.levelled(true)?;
            squares = level.inner_in_range(&level)?;
        }
        if squares.is_nan() {
            return self.normalize()?.core.max_abs();
        }
        // Below zero is what rounding leaves of terms that cancel.
        Ok(times_power(squares.max(0.0).sqrt(), power))
    }

    /// The same with every entry of the core times a number.
    pub(super) fn scale_core(self, factor: f64) -> Result<Self> {
        if factor == 1.0 {
            return Ok(self);
        }
        Ok(Self { core: self.core.scale(T::of(factor))?, ..self })
    }

    /// The Gram matrix of an unfolding of the core, scaled so that squares stay in range, and the scale.
    fn core_gram(core: &Tensor<T, D>, mode: usize) -> Result<(Tensor<f64, Ix2>, f64)> {
        let scale = 1.0 / unit::<f64>(core.norm()?);
        Ok((gram(core, mode, Precision::Double, scale)?.0, scale))
    }

    /// The inner product with another tensor in Tucker form, without forming either: cores seen through A_n^T B_n.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where the shapes differ, [`ErrorKind::Device`] where they live in different places.
    pub fn inner(&self, other: &Self) -> Result<f64> {
        if self.shape != other.shape {
            let message = format!("shapes {:?} and {:?} differ", self.shape, other.shape);
            return Err(Error::shape("Tucker::inner", message));
        }
        let ((a, power), (b, other_power)) = (self.levelled(false)?, other.levelled(false)?);
        Ok(times_power(a.inner_in_range(&b)?, power + other_power))
    }

    /// The inner product of tensors that [`levelled`](Tucker::levelled) gave.
    fn inner_in_range(&self, other: &Self) -> Result<f64> {
        let mut seen = other.core.to_dyn();
        for (mode, (a, b)) in self.factors.iter().zip(&other.factors).enumerate() {
            seen = seen.mode_product(mode, &a.t().matmul(b)?)?;
        }
        inner(&self.core.to_dyn(), &seen)
    }

    /// ||X - X'|| / ||X||, measured on the residual, slab by slab along the first mode: of X' no more is in memory than an index of that
    /// mode needs, or some MiB. 0 where both are zero, infinite where only X is.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where the shapes differ, [`ErrorKind::Device`] where they live in different places; [`ErrorKind::Value`] where
    /// an entry of X is not finite (the first is named), or the decomposition's are not.
    pub fn relative_error(&self, x: &Tensor<T, D>) -> Result<f64> {
        if x.shape() != self.shape {
            let message = format!("a decomposition of shape {:?} for a tensor of shape {:?}", self.shape, x.shape());
            return Err(Error::shape("Tucker::relative_error", message));
        }
        a_number(x, self.evened()?.error(x)?)
    }

    /// The same for a shape that fits; NaN where it is no number.
    pub(super) fn error(&self, x: &Tensor<T, D>) -> Result<f64> {
        if self.factors.is_empty() {
            // A single number: there are no slabs.
            return Ok(relative(x.sub(&self.core)?.norm()?, x.norm()?));
        }
        let rest = self.core.multi_mode_product(&self.factors, MultiMode { skip: Some(0), transpose: false })?;
        relative_residual(x, |rows| rest.mode_product(0, &self.factors[0].narrow(0, rows)?))
    }

    /// The relative error of a projection of X on orthonormal factors, for X of a known norm: from the norms, since
    /// ||X - X'||^2 = ||X||^2 - ||G||^2, and from the residual where that difference would drown in rounding.
    pub(super) fn error_of_projection(&self, x: &Tensor<T, D>, norm: f64) -> Result<f64> {
        if norm == 0.0 {
            return Ok(0.0);
        }
        let share = self.core.norm()? / norm;
        let error = ((1.0 - share) * (1.0 + share)).max(0.0).sqrt();
        let resolved = if T::DTYPE == DType::F64 { 1e-5 } else { 3e-2 };
        if error > resolved { Ok(error) } else { self.error(x) }
    }

    /// The same tensor with orthonormal factors: QR of each, R moved into the core. Ranks above a mode's size shrink to it.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where a factor is not finite.
    pub fn orthogonalize(&self) -> Result<Self> {
        let Self { mut core, factors: columns, .. } = self.evened()?;
        let mut factors = Vec::with_capacity(columns.len());
        for (mode, factor) in columns.iter().enumerate() {
            let qr = factor.qr()?;
            core = core.mode_product(mode, &qr.r)?;
            factors.push(qr.q);
        }
        Self::new(core, factors)
    }

    /// The canonical form: orthonormal factors, an all-orthogonal core with slices of falling norm, and in every factor column
    /// the entry of largest absolute value positive. Two equal tensors without repeated mode singular values get the same form.
    ///
    /// # Errors
    /// As [`orthogonalize`](Tucker::orthogonalize).
    pub fn canonicalize(&self) -> Result<Self> {
        let Self { mut core, factors, .. } = self.orthogonalize()?;
        let mut rotated = Vec::with_capacity(factors.len());
        for (mode, factor) in factors.iter().enumerate() {
            let (_, vectors) = Self::core_gram(&core, mode)?.0.eigh()?;
            let rotation = vectors.cast::<T>()?;
            let factor = factor.matmul(&rotation)?;
            let signs = column_signs(&factor)?;
            let signed = rotation.mul(&signs)?;
            core = core.mode_product(mode, &signed.t())?;
            rotated.push(factor.mul(&signs)?);
        }
        Self::new(core, rotated)
    }

    /// The same tensor with every factor column of norm 1; the norms move into the core. Zero columns stay as they are, and what
    /// they meet in the core becomes zero.
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn normalize(&self) -> Result<Self> {
        self.evened()?.normalized()
    }

    /// The same of parts whose products are known to stay in range, as for `multiplied`.
    pub(super) fn normalized(&self) -> Result<Self> {
        let mut core = self.core.clone();
        let mut factors = Vec::with_capacity(self.factors.len());
        for (mode, factor) in self.factors.iter().enumerate() {
            let (columns, norms) = unit_columns(factor)?;
            let mut sizes = vec![1; core.order()];
            sizes[mode] = norms.shape()[1];
            core = core.mul(&norms.reshaped(&sizes)?)?;
            factors.push(columns);
        }
        Self::new(core, factors)
    }

    /// The mode-n singular values of the tensor, in falling order, from the core alone (factors must be orthonormal: call
    /// [`orthogonalize`](Tucker::orthogonalize) first where they are not).
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where the mode does not exist.
    pub fn mode_singular_values(&self, mode: usize) -> Result<Vec<f64>> {
        self.core.check_mode("mode_singular_values", mode)?;
        let (gram, scale) = Self::core_gram(&self.core, mode)?;
        let (values, _) = gram.eigh()?;
        Ok(values.to_vec()?.into_iter().map(|v| v.max(0.0).sqrt() / scale).collect())
    }

    /// The same decomposition on another device.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`] where it does not fit there.
    pub fn to_device(&self, device: &crate::Device) -> Result<Self> {
        let factors = self.factors.iter().map(|f| f.to_device(device)).collect::<Result<_>>()?;
        Self::new(self.core.to_device(device)?, factors)
    }
}

impl<T: Scalar, D: Dimension> fmt::Display for Tucker<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_summary(f, "Tucker", T::DTYPE, &self.shape)?;
        let ranks: Vec<String> = self.ranks().iter().map(usize::to_string).collect();
        write!(f, " of ranks ({})", ranks.join(", "))?;
        write_sizes(f, self.parameters(), self.compression_ratio(), &self.shape)
    }
}

pub(super) fn write_summary(f: &mut fmt::Formatter<'_>, name: &str, dtype: DType, shape: &[usize]) -> fmt::Result {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    write!(f, "{name}<{dtype}> {}", sizes.join(" x "))
}

pub(super) fn write_sizes(f: &mut fmt::Formatter<'_>, numbers: usize, ratio: f64, shape: &[usize]) -> fmt::Result {
    let entries: f64 = shape.iter().map(|&n| n as f64).product();
    write!(f, ": {numbers} numbers for {entries} entries, {ratio:.1} times smaller")
}

pub(super) fn check_index(operation: &'static str, index: &[usize], shape: &[usize]) -> Result<()> {
    if index.len() == shape.len() && index.iter().zip(shape).all(|(i, n)| i < n) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Shape, operation, format!("index {index:?} does not lie in shape {shape:?}")))
}

/// Rows of factors, mode by mode, and whether the mode stays.
pub(super) type Picked<T> = (Vec<Tensor<T, Ix2>>, Vec<bool>);

/// The rows of factors that the parts of a slice pick, one row for an index, whose mode goes. A mode that is put in has the rows given for it.
pub(super) fn picked_rows<T: Scalar>(
    factors: &[Tensor<T, Ix2>],
    parts: Vec<Part>,
    new: &Tensor<T, Ix2>,
) -> Result<Picked<T>> {
    let stays = parts.iter().map(|part| !matches!(part, Part::Index(_))).collect();
    let mut mode = 0;
    let rows = parts.into_iter().map(|part| {
        mode += usize::from(!matches!(part, Part::New));
        match part {
            Part::New => Ok(new.clone()),
            Part::Index(i) => factors[mode - 1].narrow(0, i..i + 1),
            Part::Range(range, step) => factors[mode - 1].stepped_rows(range, step),
        }
    });
    Ok((rows.collect::<Result<_>>()?, stays))
}

/// `1 x R`: for each column of a matrix the sign of its entry of largest absolute value (1 for a zero column).
pub(super) fn column_signs<T: Scalar>(matrix: &Tensor<T, Ix2>) -> Result<Tensor<T, Ix2>> {
    let host = matrix.to_host()?;
    let signs: Vec<T> = host
        .view()?
        .columns()
        .into_iter()
        .map(|column| {
            let largest = column.iter().fold(T::zero(), |a, &b| if b.abs() > a.abs() { b } else { a });
            if largest < T::zero() { -T::one() } else { T::one() }
        })
        .collect();
    Tensor::from_vec([1, signs.len()], signs)?.to_device(matrix.device())
}

/// The columns of a matrix divided by their norms, and the norms, `1 x R`. Zero columns stay as they are.
pub(super) fn unit_columns<T: Scalar>(matrix: &Tensor<T, Ix2>) -> Result<(Tensor<T, Ix2>, Tensor<T, Ix2>)> {
    let (columns, norms) = columns::unit(&matrix.storage, &matrix.layout)?;
    Ok((Tensor::row_major(columns, matrix.shape()), Tensor::row_major(norms, &[1, matrix.shape()[1]])))
}

/// ||X - X'|| / ||X|| for an X' that is made slab by slab, for ranges of the first mode.
pub(super) fn relative_residual<T: Scalar, D: Dimension>(
    x: &Tensor<T, D>,
    reconstruct: impl Fn(std::ops::Range<usize>) -> Result<Tensor<T, D>>,
) -> Result<f64> {
    let n = x.shape()[0];
    let rows = (SLAB / (x.len() / n.max(1)).max(1)).max(1);
    let (mut residual, mut norm) = (0.0f64, 0.0f64);
    let mut start = 0;
    while start < n {
        let range = start..(start + rows).min(n);
        let slab = x.narrow(0, range.clone())?;
        residual = residual.hypot(slab.sub(&reconstruct(range.clone())?)?.norm()?);
        norm = norm.hypot(slab.norm()?);
        start = range.end;
    }
    Ok(relative(residual, norm))
}

fn relative(residual: f64, norm: f64) -> f64 {
    if residual == 0.0 { 0.0 } else { residual / norm }
}

/// A relative error, or why it is no number.
pub(super) fn a_number<T: Scalar, D: Dimension>(x: &Tensor<T, D>, error: f64) -> Result<f64> {
    if error.is_nan() {
        x.check_finite("relative_error")?;
        let message = "the decomposition has entries that are not finite, or too large to be compared with";
        return Err(Error::new(ErrorKind::Value, "relative_error", message));
    }
    Ok(error)
}
