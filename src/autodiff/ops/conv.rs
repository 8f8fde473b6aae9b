//! Convolution with one, two or three spatial modes, channels-last.
//!
//! $$ y_{b,o,c} = \beta_c + \sum_{k, i} x_{b,\,o s + k d - p,\,i}\, w_{c,i,k} $$
//!
//! with stride $s$, dilation $d$ and padding $p$ in each spatial mode; a channel $c$ sees the inputs $i$ of its group. The gradients are
//!
//! $$ dx_{b,j,i} = \sum_{o s + k d - p = j} \sum_c dy_{b,o,c}\, w_{c,i,k}, \qquad
//!    dw_{c,i,k} = \sum_{b,o} dy_{b,o,c}\, x_{b,\,o s + k d - p,\,i}, \qquad
//!    d\beta_c = \sum_{b,o} dy_{b,o,c}. $$
//!
//! That by the input is a convolution of $dy$ too, one for each residue of $j$ by the stride. Another padding than with zeros is
//! [`pad_spatial`](Var::pad_spatial) followed by a convolution without padding.

use super::{
    options::Conv,
    window::{PaddingMode, image_shape},
};
use crate::{
    autodiff::{Saved, Var},
    device::{
        conv::{self, Geometry},
        reduce,
    },
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;

impl<T: Scalar> Var<T> {
    /// The convolution (cross-correlation, as everywhere in deep learning) of an image with a kernel.
    ///
    /// - `self`: `[batch, *spatial, c_in]` with one, two or three spatial modes ([`channels_last`](Var::channels_last) makes it of
    ///   PyTorch's order);
    /// - `weight`: `[c_out, c_in / groups, *kernel]`, as PyTorch stores it;
    /// - `bias`: `[c_out]`;
    /// - the result: `[batch, *output, c_out]` with [`Conv::output_shape`].
    ///
    /// Cost: 2 flops for each result entry, kernel entry and input channel of a group, the same again for the gradient of the image and for
    /// that of the weight. Nothing is gathered (no im2col); the backward pass keeps the image and the weight.
    ///
    /// ```
    /// use tenfold::{Tensor, autodiff::{Conv, Var}};
    ///
    /// // The mean of each 2 x 2 patch of a 4 x 4 image with one channel.
    /// let x = Var::constant(Tensor::from_fn([1, 4, 4, 1], |i| (4 * i[1] + i[2]) as f64)?);
    /// let w = Var::parameter(Tensor::full([1, 1, 2, 2], 0.25)?);
    /// let y = x.conv(&w, None, &Conv::new().stride(2))?;
    /// assert_eq!(y.shape(), [1, 2, 2, 1]);
    /// assert_eq!(y.value().to_vec()?, [2.5, 4.5, 10.5, 12.5]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where orders or channels do not fit, or the kernel is larger than the padded
    /// image; [`ErrorKind::Value`](crate::ErrorKind::Value) where a stride or dilation is 0, where groups do not divide the channels, or
    /// where a padding mode has not enough entries; [`ErrorKind::Device`](crate::ErrorKind::Device) where operands live apart.
    pub fn conv(&self, weight: &Self, bias: Option<&Self>, options: &Conv) -> Result<Self> {
        let (mut geometry, pairs) = options.plan("conv", self.shape(), weight.shape())?;
        check_operands("conv", self, weight, bias, geometry.c_out)?;
        if options.padding_mode != PaddingMode::Zeros && pairs.iter().any(|&pair| pair != (0, 0)) {
            let padded = self.pad_spatial(pairs, options.padding_mode)?;
            geometry.input = super::window::three(&padded.shape()[1..padded.order() - 1], 1);
            geometry.before = [0; 3];
            return padded.conv_of(weight, bias, geometry);
        }
        self.conv_of(weight, bias, geometry)
    }

    /// The convolution with zeros around the image, of operands that fit.
    fn conv_of(&self, weight: &Self, bias: Option<&Self>, g: Geometry) -> Result<Self> {
        let modes = self.order() - 2;
        let device = self.device().clone();
        let repeats = g.c_out / g.c_in;
        // Several outputs a channel: the same with every channel repeated.
        let repeated = g.groups == g.c_in && repeats > 1;
        let x = self.value().to_contiguous()?;
        let w = weight.value().to_contiguous()?;
        let b = bias.map(|bias| bias.value().to_contiguous()).transpose()?;
        let g = if repeated { Geometry { c_in: g.c_out, groups: g.c_out, ..g } } else { g };
        let mut operands = vec![self, weight];
        operands.extend(bias);
        let records = Self::records(&operands);
        let image = (records && weight.needs_gradient()).then(|| Saved::operand(self, &x)).transpose()?;
        let kernel = (records && self.needs_gradient()).then(|| Saved::operand(weight, &w)).transpose()?;
        let seen = if repeated { repeat(&x, repeats)? } else { x };
        let y = conv::forward(&device, &g, operand(&seen), operand(&w), b.as_ref().map(operand))?;
        let y: Tensor<T, IxDyn> = Tensor::row_major(y, &image_shape(modes, g.batch, g.output, g.c_out));
        let w_shape = weight.shape().to_vec();
        Ok(Var::record("conv", y, &operands, move |dy, flow| {
            let dy = dy.to_contiguous()?;
            if flow.needs(2) {
                flow.give(2, channel_sums(&dy)?)?;
            }
            if let (true, Some(x)) = (flow.needs(1), image.map(Saved::into_tensor)) {
                let seen = if repeated { repeat(&x, repeats)? } else { x };
                let dw = conv::weight_gradient(&device, &g, operand(&seen), operand(&dy))?;
                flow.give(1, Tensor::row_major(dw, &w_shape))?;
            }
            if let (true, Some(w)) = (flow.needs(0), kernel.map(Saved::into_tensor)) {
                let dx = conv::input_gradient(&device, &g, operand(&dy), operand(&w), None)?;
                let dx: Tensor<T, IxDyn> = Tensor::row_major(dx, &image_shape(modes, g.batch, g.input, g.c_in));
                flow.give(0, if repeated { sum_repeats(&dx, repeats)? } else { dx })?;
            }
            Ok(())
        }))
    }
}

/// A row-major tensor as kernels take it.
pub(super) fn operand<T: Scalar>(x: &Tensor<T, IxDyn>) -> conv::Operand<'_, T> {
    (&x.storage, x.layout.offset())
}

/// The sum over all positions of each channel: the gradient of a bias.
pub(super) fn channel_sums<T: Scalar>(dy: &Tensor<T, IxDyn>) -> Result<Tensor<T, IxDyn>> {
    let last = dy.order() - 1;
    let kept: Vec<bool> = (0..=last).map(|mode| mode == last).collect();
    let sums = reduce::sum_modes(dy.device(), &dy.storage, &dy.layout, &kept)?;
    Ok(Tensor::row_major(sums, &dy.shape()[last..]))
}

/// Operands in one place, and a bias of the right size.
pub(super) fn check_operands<T: Scalar>(
    operation: &'static str,
    x: &Var<T>,
    weight: &Var<T>,
    bias: Option<&Var<T>>,
    channels: usize,
) -> Result<()> {
    x.device().check_same(weight.device(), operation)?;
    if let Some(bias) = bias {
        x.device().check_same(bias.device(), operation)?;
        if bias.shape() != [channels] {
            let message =
                format!("a bias of shape {:?} for {channels} output channels; it is [{channels}]", bias.shape());
            return Err(Error::shape(operation, message));
        }
    }
    Ok(())
}

/// Every channel `times` times, side by side.
fn repeat<T: Scalar>(x: &Tensor<T, IxDyn>, times: usize) -> Result<Tensor<T, IxDyn>> {
    let (channels, rows) = split(x);
    let each: Tensor<T, IxDyn> = x.reshaped(&[rows, channels, 1])?;
    let each = each.broadcast_to(IxDyn(&[rows, channels, times]))?.to_contiguous()?;
    let mut shape = x.shape().to_vec();
    shape[x.order() - 1] = channels * times;
    each.reshaped(&shape)
}

/// The sums of `times` neighbouring channels.
fn sum_repeats<T: Scalar>(x: &Tensor<T, IxDyn>, times: usize) -> Result<Tensor<T, IxDyn>> {
    let (channels, rows) = split(x);
    let all: Tensor<T, IxDyn> = x.reshaped(&[rows, channels / times, times])?;
    let one = |i| Tensor::<T, IxDyn>::new(all.storage.clone(), all.layout.indexed(2, i));
    let mut sum = one(0).to_contiguous()?;
    (1..times).try_for_each(|i| sum.add_assign(&one(i)))?;
    let mut shape = x.shape().to_vec();
    shape[x.order() - 1] = channels / times;
    sum.reshaped(&shape)
}

fn split<T: Scalar>(x: &Tensor<T, IxDyn>) -> (usize, usize) {
    let channels = x.shape()[x.order() - 1];
    (channels, x.len() / channels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::{
        Padding, check_gradients,
        testing::{close, normal, reversed},
    };

    fn error(x: &[usize], w: &[usize], b: Option<&[usize]>, options: Conv) -> String {
        let v = |shape: &[usize]| Var::constant(normal(shape, 1));
        v(x).conv(&v(w), b.map(v).as_ref(), &options).unwrap_err().to_string()
    }

    #[test]
    fn gradients_of_every_way() {
        let new = Conv::new;
        for (x, w, options) in [
            (&[2, 3, 4, 2][..], &[3, 2, 2, 3][..], new().padding([(1, 0), (0, 2)])),
            (&[1, 2, 3, 3], &[2, 3, 1, 1], new()),
            (&[1, 4, 6, 2], &[3, 2, 2, 3], new().stride([2, 3])),
            (&[1, 5, 4, 4], &[2, 2, 3, 2], new().stride(2).dilation([2, 1]).padding([2, 1]).groups(2)),
            (&[1, 4, 3, 3], &[3, 1, 3, 3], new().padding(1).groups(3)),
            (&[1, 5, 4, 2], &[4, 1, 3, 2], new().stride(2).padding(1).groups(2)),
            (&[1, 3, 2, 1], &[1, 1, 7, 1], new().padding([(4, 3), (0, 0)])),
            (&[2, 6, 2], &[2, 2, 3], new().padding(Padding::Same)),
            (&[1, 2, 3, 2, 2], &[2, 2, 2, 2, 2], new().padding([1, 0, 1]).stride([1, 2, 2])),
            (&[1, 3, 4, 1], &[2, 1, 3, 3], new().padding(2).padding_mode(PaddingMode::Reflect)),
            (&[1, 3, 2, 1], &[1, 1, 3, 3], new().padding([(2, 0), (1, 3)]).padding_mode(PaddingMode::Replicate)),
            (&[1, 3, 2, 1], &[1, 1, 2, 2], new().padding(2).padding_mode(PaddingMode::Circular)),
        ] {
            let (x, w, b) = (normal(x, 1), normal(w, 2), normal(&w[..1], 3));
            for (x, w) in [(x.clone(), w.clone()), (reversed(&x), reversed(&w))] {
                check_gradients(&[x.clone(), w.clone(), b.clone()], 1e-6, |v| v[0].conv(&v[1], Some(&v[2]), &options))
                    .unwrap();
                check_gradients(&[x, w], 1e-6, |v| v[0].conv(&v[1], None, &options)).unwrap();
            }
        }
    }

    #[test]
    fn only_what_is_wanted_has_a_gradient() {
        let [x, w, b] = [normal(&[1, 3, 3, 2], 1), normal(&[2, 2, 2, 2], 2), normal(&[2], 3)];
        let (x, frozen, b) = (Var::parameter(x), Var::constant(w), Var::parameter(b));
        let y = x.conv(&frozen, Some(&b), &Conv::new()).unwrap();
        let gradients = y.sum().unwrap().backward().unwrap();
        assert_eq!(gradients.len(), 2);
        assert!(gradients.get(&frozen).is_none());
        close(&gradients.of(&b).unwrap().to_vec().unwrap(), &[4.0, 4.0], 1e-15);
        let y = x.detach().conv(&frozen, None, &Conv::new()).unwrap();
        assert!(!y.needs_gradient());
    }

    #[test]
    fn errors_say_what_would_be_right() {
        let new = Conv::new;
        assert_eq!(
            error(&[1, 3, 3, 4], &[6, 4, 2, 2], None, new().groups(3)),
            "conv: 3 groups do not divide 4 input channels and 6 output channels"
        );
        assert_eq!(
            error(&[1, 3, 3, 4], &[6, 4, 2, 2], None, new().groups(2)),
            "conv: a weight of shape [6, 4, 2, 2] with 2 groups takes 8 input channels, and the image [1, 3, 3, 4] has 4; with 2 \
             groups the weight's second size is 2"
        );
        assert_eq!(
            error(&[1, 3, 3, 1], &[1, 1, 3, 2], None, new().dilation(2)),
            "conv: a kernel of size 3 with dilation 2 spans 5 entries of spatial mode 0, which has 3 and 3 with its padding; pad by \
             2 more or take a smaller kernel"
        );
        assert_eq!(
            error(&[1, 3, 3, 1], &[1, 1, 3, 3], None, new().padding(3).padding_mode(PaddingMode::Reflect)),
            "conv: Reflect padding adds at most 2 entries to a side of spatial mode 0, which has 3; (3, 3) were asked for"
        );
        assert_eq!(
            error(&[1, 3, 3, 1], &[1, 1, 3, 3], None, new().stride([1, 0])),
            "conv: stride [1, 0] has a 0; the smallest is 1"
        );
        assert_eq!(
            error(&[1, 3, 3, 1], &[1, 1, 3, 3], None, new().stride([1, 2, 3])),
            "conv: stride has 3 values [1, 2, 3] for 2 spatial modes; give one, or 2"
        );
        assert_eq!(
            error(&[3, 3], &[1, 1, 3, 3], None, new()),
            "conv: an image is [batch, *spatial, channels] with one to three spatial modes, and shape [3, 3] has 2 modes"
        );
        assert_eq!(
            error(&[1, 3, 3], &[1, 1, 3, 3], None, new()),
            "conv: a weight of shape [1, 1, 3, 3] has 4 modes, and for an image of shape [1, 3, 3] it is [c_out, c_in / groups, \
             *kernel] with 3"
        );
        assert_eq!(
            error(&[1, 3, 3, 1], &[2, 1, 3, 3], Some(&[1]), new()),
            "conv: a bias of shape [1] for 2 output channels; it is [2]"
        );
        for (x, w, options) in [
            (&[1, 3, 3, 0][..], &[1, 1, 3, 3][..], new()),
            (&[1, 3, 3, 1], &[1, 1, 0, 3], new()),
            (&[1, 0, 3, 1], &[1, 1, 1, 1], new().padding(1)),
            (&[1, 3, 3, 1], &[1, 1, 3, 3], new().groups(0)),
            (&[1, 3, 3, 1], &[1, 1, 3, 3], new().dilation(0)),
            (&[1, 3, 3, 1], &[1, 1, 3, 3], new().padding([1, 2, 3])),
            (&[1, 3, 3, 1], &[1, 1, 3, 3], new().padding(4).padding_mode(PaddingMode::Circular)),
        ] {
            assert!(error(x, w, None, options).starts_with("conv: "));
        }
    }
}
