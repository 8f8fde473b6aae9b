//! Images of another size: interpolated, or padded with what they hold themselves; channels-last.
//!
//! All are linear in the image, one mode at a time: $y_{b,i,c} = \sum_j m_{i_1 j_1} m_{i_2 j_2} \dots x_{b,j,c}$ with a table $m$ of a few weights for each
//! spatial mode. The gradient is the same with the tables transposed.

use super::{
    conv::operand,
    window::{Padding, PaddingMode, check_padding_mode, image_shape, spatial_modes, three},
};
use crate::{
    autodiff::Var,
    device::resample::{Mix, resample},
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use serde::{Deserialize, Serialize};

/// How a resized image's entries follow from the original's, as `torch.nn.functional.interpolate` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// The entry that the position, rounded down, falls on.
    Nearest,
    /// The weighted mean of the two neighbours in each mode: linear, bilinear or trilinear.
    Linear {
        /// Whether the first and last entries of both sizes coincide; otherwise their outer edges do.
        align_corners: bool,
    },
}

impl<T: Scalar> Var<T> {
    /// An image of another size: `[batch, *spatial, channels]` to `[batch, *size, channels]`.
    ///
    /// Cost: 2 flops for each result entry and neighbour (2, 4 or 8 of them).
    ///
    /// ```
    /// use tenfold::{Tensor, autodiff::{Interpolation, Var}};
    ///
    /// let x = Var::constant(Tensor::from_vec([1, 2, 1], vec![0.0, 4.0])?);
    /// let edges = x.resize(&[4], Interpolation::Linear { align_corners: false })?;
    /// assert_eq!(edges.value().to_vec()?, [0.0, 1.0, 3.0, 4.0]);
    /// let corners = x.resize(&[5], Interpolation::Linear { align_corners: true })?;
    /// assert_eq!(corners.value().to_vec()?, [0.0, 1.0, 2.0, 3.0, 4.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where this is no image or has no entries, or `size` has another number of modes or a 0.
    pub fn resize(&self, size: &[usize], how: Interpolation) -> Result<Self> {
        let modes = spatial_modes("resize", self.shape())?;
        let spatial = &self.shape()[1..=modes];
        if size.len() != modes || size.contains(&0) || spatial.contains(&0) {
            let message = format!(
                "an image of shape {:?} cannot become of size {size:?}; give {modes} sizes, none of them 0",
                self.shape()
            );
            return Err(Error::shape("resize", message));
        }
        let (from, to) = (three(spatial, 1), three(size, 1));
        resampled("resize", self, [0, 1, 2].map(|mode| interpolation(how, from[mode], to[mode])))
    }

    /// The image with a border: `[batch, *spatial, channels]` with each spatial mode longer by its padding.
    ///
    /// ```
    /// use tenfold::{Tensor, autodiff::{PaddingMode, Var}};
    ///
    /// let x = Var::constant(Tensor::from_vec([1, 3, 1], vec![1.0, 2.0, 3.0])?);
    /// let y = x.pad_spatial([(2, 1)], PaddingMode::Reflect)?;
    /// assert_eq!(y.value().to_vec()?, [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where this is no image or the paddings are not one, or one for each
    /// spatial mode; [`ErrorKind::Value`] where the image has not enough entries for the mode;
    /// [`ErrorKind::Unsupported`] for [`Padding::Same`], which belongs to a kernel.
    pub fn pad_spatial(&self, padding: impl Into<Padding>, how: PaddingMode) -> Result<Self> {
        let modes = spatial_modes("pad_spatial", self.shape())?;
        let pairs = match padding.into() {
            Padding::Same => {
                let message = "padding \"same\" follows from a kernel; give the padding as numbers";
                return Err(Error::new(ErrorKind::Unsupported, "pad_spatial", message));
            }
            Padding::Explicit(pairs) if pairs.len() == 1 => vec![pairs[0]; modes],
            Padding::Explicit(pairs) if pairs.len() == modes => pairs,
            Padding::Explicit(pairs) => {
                let message = format!("{} paddings {pairs:?} for {modes} spatial modes", pairs.len());
                return Err(Error::shape("pad_spatial", message));
            }
        };
        let spatial = &self.shape()[1..=modes];
        for (m, (&n, &pair)) in spatial.iter().zip(&pairs).enumerate() {
            check_padding_mode("pad_spatial", how, m, n, pair)?;
        }
        let (before, after): (Vec<usize>, Vec<usize>) = pairs.into_iter().unzip();
        let (sizes, before, after) = (three(spatial, 1), three(&before, 0), three(&after, 0));
        resampled("pad_spatial", self, [0, 1, 2].map(|m| padded(how, sizes[m], before[m], after[m])))
    }

    /// An image in PyTorch's order, `[batch, channels, *spatial]`, as `[batch, *spatial, channels]`. A view: the first operation that needs
    /// the entries side by side copies them.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where this has fewer than 2 modes.
    pub fn channels_last(&self) -> Result<Self> {
        let n = check_order("channels_last", self.order())?;
        let order: Vec<usize> = std::iter::once(0).chain(2..n).chain([1]).collect();
        moved("channels_last", self, order)
    }

    /// An image `[batch, *spatial, channels]` in PyTorch's order, `[batch, channels, *spatial]`. A view.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where this has fewer than 2 modes.
    pub fn channels_first(&self) -> Result<Self> {
        let n = check_order("channels_first", self.order())?;
        let order: Vec<usize> = [0, n - 1].into_iter().chain(1..n - 1).collect();
        moved("channels_first", self, order)
    }
}

fn check_order(operation: &'static str, order: usize) -> Result<usize> {
    if order < 2 {
        return Err(Error::shape(
            operation,
            format!("an image has a batch and channels, and {order} modes are too few"),
        ));
    }
    Ok(order)
}

fn moved<T: Scalar>(operation: &'static str, x: &Var<T>, order: Vec<usize>) -> Result<Var<T>> {
    let y = x.value().permute(&order)?;
    let mut back = vec![0; order.len()];
    order.iter().enumerate().for_each(|(i, &mode)| back[mode] = i);
    Ok(Var::record(operation, y, &[x], move |dy, flow| flow.give(0, dy.permute(&back)?)))
}

/// The weights of one mode of a resized image.
fn interpolation<T: Scalar>(how: Interpolation, from: usize, to: usize) -> Mix<T> {
    let scale = match how {
        Interpolation::Linear { align_corners: true } if to > 1 => (from - 1) as f64 / (to - 1) as f64,
        Interpolation::Linear { align_corners: true } => 0.0,
        _ => from as f64 / to as f64,
    };
    let row = |i: usize| {
        let position = match how {
            Interpolation::Nearest => return vec![(i * from / to, T::one())],
            Interpolation::Linear { align_corners: true } => i as f64 * scale,
            Interpolation::Linear { align_corners: false } => ((i as f64 + 0.5) * scale - 0.5).max(0.0),
        };
        let low = (position as usize).min(from - 1);
        let part = position - low as f64;
        match low + 1 < from && part > 0.0 {
            true => vec![(low, T::of(1.0 - part)), (low + 1, T::of(part))],
            false => vec![(low, T::one())],
        }
    };
    Mix::new(from, (0..to).map(row))
}

/// The entries of one mode of a padded image.
fn padded<T: Scalar>(how: PaddingMode, size: usize, before: usize, after: usize) -> Mix<T> {
    let n = size as isize;
    let row = |i: usize| {
        let at = i as isize - before as isize;
        let from = match how {
            _ if (0..n).contains(&at) => Some(at),
            PaddingMode::Zeros => None,
            PaddingMode::Replicate => Some(at.clamp(0, n - 1)),
            PaddingMode::Circular => Some(at.rem_euclid(n)),
            PaddingMode::Reflect => Some(if at < 0 { -at } else { 2 * (n - 1) - at }),
        };
        from.map(|i| (i as usize, T::one()))
    };
    if before + after == 0 {
        return Mix::identity(size);
    }
    Mix::new(size, (0..before + size + after).map(row))
}

/// A linear operation given by a table for each of three spatial modes.
pub(super) fn resampled<T: Scalar>(operation: &'static str, x: &Var<T>, mixes: [Mix<T>; 3]) -> Result<Var<T>> {
    let (batch, channels) = (x.shape()[0], x.shape()[x.order() - 1]);
    let shape = image_shape(x.order() - 2, batch, mixes.each_ref().map(Mix::result), channels);
    resampled_to(operation, x, mixes, shape)
}

/// As [`resampled`], for a result whose modes are put together otherwise.
pub(super) fn resampled_to<T: Scalar>(
    operation: &'static str,
    x: &Var<T>,
    mixes: [Mix<T>; 3],
    shape: Vec<usize>,
) -> Result<Var<T>> {
    let (batch, channels) = (x.shape()[0], x.shape()[x.order() - 1]);
    let (device, from) = (x.device().clone(), x.shape().to_vec());
    let y = resample(&device, batch, channels, &mixes, operand(&x.value().to_contiguous()?))?;
    let y: Tensor<T> = Tensor::row_major(y, &shape);
    Ok(Var::record(operation, y, &[x], move |dy, flow| {
        let back = mixes.map(|mix| mix.transposed());
        let dx = resample(&device, batch, channels, &back, operand(&dy.to_contiguous()?))?;
        flow.give(0, Tensor::row_major(dx, &from))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::{
        check_gradients,
        testing::{normal, reversed},
    };

    #[test]
    fn gradients() {
        let linear = |align_corners| Interpolation::Linear { align_corners };
        for (shape, size) in [
            (&[2, 3, 4, 2][..], &[5, 3][..]),
            (&[1, 1, 5, 1], &[4, 1]),
            (&[2, 4, 3], &[9]),
            (&[1, 2, 3, 2, 2], &[3, 1, 5]),
        ] {
            for x in [normal(shape, 1), reversed(&normal(shape, 1))] {
                for how in [Interpolation::Nearest, linear(false), linear(true)] {
                    check_gradients(std::slice::from_ref(&x), 1e-6, |v| v[0].resize(size, how)).unwrap();
                }
                check_gradients(std::slice::from_ref(&x), 1e-6, |v| v[0].pad_spatial([(2, 1)], PaddingMode::Replicate))
                    .unwrap();
                check_gradients(std::slice::from_ref(&x), 1e-6, |v| v[0].channels_first()?.square()).unwrap();
                check_gradients(&[x], 1e-6, |v| v[0].channels_last()?.square()).unwrap();
            }
        }
    }

    #[test]
    fn a_size_of_its_own_changes_nothing() {
        let x = Var::constant(normal(&[2, 3, 4, 5], 1));
        for how in [Interpolation::Nearest, Interpolation::Linear { align_corners: true }] {
            assert_eq!(x.resize(&[3, 4], how).unwrap().value(), x.value());
        }
        let there = x.channels_first().unwrap();
        assert_eq!(there.shape(), [2, 5, 3, 4]);
        assert_eq!(there.channels_last().unwrap().value(), x.value());
    }

    #[test]
    fn errors_say_what_would_be_right() {
        let x = Var::constant(normal(&[1, 3, 4, 2], 1));
        assert_eq!(
            x.resize(&[3], Interpolation::Nearest).unwrap_err().to_string(),
            "resize: an image of shape [1, 3, 4, 2] cannot become of size [3]; give 2 sizes, none of them 0"
        );
        assert!(x.resize(&[3, 0], Interpolation::Nearest).is_err());
        let padded = |pairs: Padding, how| x.pad_spatial(pairs, how).unwrap_err().to_string();
        assert_eq!(
            padded([(0, 0), (4, 0)].into(), PaddingMode::Reflect),
            "pad_spatial: Reflect padding adds at most 3 entries to a side of spatial mode 1, which has 4; (4, 0) were asked for"
        );
        assert!(padded(Padding::Same, PaddingMode::Zeros).contains("follows from a kernel"));
        assert!(padded([1, 2, 3].into(), PaddingMode::Zeros).contains("for 2 spatial modes"));
        assert!(Var::constant(normal(&[3], 1)).channels_last().is_err());
    }
}
