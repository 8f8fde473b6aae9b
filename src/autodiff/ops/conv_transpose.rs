//! Transposed convolution with one, two or three spatial modes, channels-last: the gradient of a convolution by its input, as an operation.
//!
//! $$ y_{b,j,c} = \beta_c + \sum_{o s + k d - p = j} \sum_i x_{b,o,i}\, w_{i,c,k} $$
//!
//! Its own gradient by the input is the convolution of $dy$ with the same weight, and that by the weight is the convolution's with the roles of
//! image and gradient exchanged: $dw_{i,c,k} = \sum_{b,o} x_{b,o,i}\, dy_{b,\,o s + k d - p,\,c}$.

use super::{
    conv::{channel_sums, check_operands, operand},
    options::ConvTranspose,
    window::image_shape,
};
use crate::{
    autodiff::{Saved, Var},
    device::conv,
    error::Result,
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;

impl<T: Scalar> Var<T> {
    /// The transposed convolution, which enlarges an image by its stride.
    ///
    /// - `self`: `[batch, *spatial, c_in]` with one, two or three spatial modes;
    /// - `weight`: `[c_in, c_out / groups, *kernel]`, as PyTorch stores it;
    /// - `bias`: `[c_out]`;
    /// - the result: `[batch, *output, c_out]` with [`ConvTranspose::output_shape`]: `(n - 1) stride + dilation (kernel - 1) + 1 +
    ///   output_padding` less the padding of both sides, in each mode.
    ///
    /// Cost: 2 flops for each input entry, kernel entry and output channel of a group, the same again for each gradient.
    ///
    /// ```
    /// use tenfold::{Tensor, autodiff::{ConvTranspose, Var}};
    ///
    /// let x = Var::constant(Tensor::from_vec([1, 2, 1], vec![1.0, 2.0])?);
    /// let w = Var::parameter(Tensor::from_vec([1, 1, 3], vec![1.0, 10.0, 100.0])?);
    /// let y = x.conv_transpose(&w, None, &ConvTranspose::new().stride(2))?;
    /// assert_eq!(y.value().to_vec()?, [1.0, 10.0, 102.0, 20.0, 200.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`conv`](Var::conv); [`ErrorKind::Value`](crate::ErrorKind::Value) where `output_padding` is not less than the stride or the
    /// dilation; [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for [`Padding::Same`](super::window::Padding::Same).
    pub fn conv_transpose(&self, weight: &Self, bias: Option<&Self>, options: &ConvTranspose) -> Result<Self> {
        let g = options.plan(self.shape(), weight.shape())?;
        check_operands("conv_transpose", self, weight, bias, g.c_in)?;
        let modes = self.order() - 2;
        let device = self.device().clone();
        let x = self.value().to_contiguous()?;
        let w = weight.value().to_contiguous()?;
        let b = bias.map(|bias| bias.value().to_contiguous()).transpose()?;
        let mut operands = vec![self, weight];
        operands.extend(bias);
        let records = Self::records(&operands);
        let image = (records && weight.needs_gradient()).then(|| Saved::operand(self, &x)).transpose()?;
        let kernel = (records && self.needs_gradient()).then(|| Saved::operand(weight, &w)).transpose()?;
        let y = conv::input_gradient(&device, &g, operand(&x), operand(&w), b.as_ref().map(operand))?;
        let y: Tensor<T, IxDyn> = Tensor::row_major(y, &image_shape(modes, g.batch, g.input, g.c_in));
        let shapes = [self, weight].map(|v| v.shape().to_vec());
        Ok(Var::record("conv_transpose", y, &operands, move |dy, flow| {
            let dy = dy.to_contiguous()?;
            if flow.needs(2) {
                flow.give(2, channel_sums(&dy)?)?;
            }
            if let (true, Some(x)) = (flow.needs(1), image.map(Saved::into_tensor)) {
                let dw = conv::weight_gradient(&device, &g, operand(&dy), operand(&x))?;
                flow.give(1, Tensor::row_major(dw, &shapes[1]))?;
            }
            if let (true, Some(w)) = (flow.needs(0), kernel.map(Saved::into_tensor)) {
                let dx = conv::forward(&device, &g, operand(&dy), operand(&w), None)?;
                flow.give(0, Tensor::row_major(dx, &shapes[0]))?;
            }
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::{
        Padding, check_gradients,
        testing::{normal, reversed},
    };

    #[test]
    fn gradients_of_every_way() {
        let new = ConvTranspose::new;
        for (x, w, options) in [
            (&[2, 3, 2, 2][..], &[2, 3, 2, 3][..], new()),
            (&[1, 3, 2, 2], &[2, 3, 3, 3], new().stride(2).padding(1).output_padding(1)),
            (&[1, 2, 3, 3], &[3, 2, 2, 2], new().stride(2)),
            (&[1, 2, 3, 4], &[4, 1, 3, 2], new().stride([2, 1]).padding([(1, 0), (0, 1)]).groups(2)),
            (&[1, 3, 3, 3], &[3, 1, 3, 3], new().stride(2).groups(3)),
            (&[2, 4, 2], &[2, 1, 3], new().stride(1).dilation(3).output_padding(2)),
            (&[1, 1, 2, 2, 1], &[1, 2, 2, 1, 2], new().stride([3, 1, 2]).output_padding([2, 0, 1])),
        ] {
            let (x, w) = (normal(x, 1), normal(w, 2));
            let b = normal(&[w.shape()[1] * options.groups], 3);
            let f = |v: &[Var<f64>]| v[0].conv_transpose(&v[1], v.get(2), &options);
            check_gradients(&[reversed(&x), reversed(&w), b.clone()], 1e-6, f).unwrap();
            check_gradients(&[x, w], 1e-6, f).unwrap();
        }
    }

    #[test]
    fn errors_say_what_would_be_right() {
        let new = ConvTranspose::new;
        let v = |shape: &[usize]| Var::constant(normal(shape, 1));
        let error = |x: &[usize], w: &[usize], b: Option<&[usize]>, options: ConvTranspose| {
            v(x).conv_transpose(&v(w), b.map(v).as_ref(), &options).unwrap_err().to_string()
        };
        assert_eq!(
            error(&[1, 3, 3, 2], &[3, 2, 2, 2], None, new()),
            "conv_transpose: a weight of shape [3, 2, 2, 2] takes 3 input channels, and the image [1, 3, 3, 2] has 2; the weight's \
             first size is the number of input channels"
        );
        assert_eq!(
            error(&[1, 3, 3, 2], &[2, 2, 2, 2], None, new().stride(2).output_padding(2)),
            "conv_transpose: output_padding 2 of spatial mode 0 is not less than its stride 2 or its dilation 1"
        );
        assert_eq!(
            error(&[1, 2, 1], &[1, 1, 2], None, new().padding(2)),
            "conv_transpose: spatial mode 0 of size 2 becomes 3 entries, of which the padding (2, 2) leaves none"
        );
        assert_eq!(
            error(&[1, 2, 1], &[1, 1, 2], None, new().padding(Padding::Same)),
            "conv_transpose: padding \"same\" fits several sizes of the result; give the padding as numbers"
        );
        assert_eq!(
            error(&[1, 2, 1], &[1, 3, 2], Some(&[2]), new()),
            "conv_transpose: a bias of shape [2] for 3 output channels; it is [3]"
        );
        assert!(error(&[1, 2, 3], &[3, 1, 2], None, new().groups(2)).contains("2 groups do not divide"));
    }
}
