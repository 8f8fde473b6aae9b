//! The options of convolutions and pools, and the sizes that follow from them.

use super::window::{
    Padding, PaddingMode, PerAxis, check_groups, check_padding_mode, check_weight, image_shape, positive,
    spatial_modes, three, windows,
};
use crate::{
    device::conv::Geometry,
    error::{Error, ErrorKind, Result},
};
use serde::{Deserialize, Serialize};

/// The options of [`Var::conv`](crate::autodiff::Var::conv), with the defaults of `torch.nn.Conv2d`.
///
/// ```
/// use tenfold::autodiff::{Conv, Padding, PaddingMode};
///
/// let strided = Conv::new().stride(2).padding(1);
/// assert_eq!(strided.output_shape(&[8, 224, 224, 3], &[64, 3, 3, 3])?, [8, 112, 112, 64]);
///
/// // Another padding on each side of each mode, a mirrored image, every channel by itself.
/// let depthwise = Conv::new().padding([(3, 3), (2, 4)]).padding_mode(PaddingMode::Reflect).groups(96);
/// assert_eq!(depthwise.output_shape(&[1, 14, 14, 96], &[96, 1, 7, 7])?, [1, 14, 14, 96]);
///
/// let same = Conv::new().stride([1, 2]).padding(Padding::Same);
/// assert_eq!(same.output_shape(&[1, 7, 7, 4], &[5, 4, 3, 2])?, [1, 7, 4, 5]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conv {
    /// How far neighbouring windows are apart.
    pub stride: PerAxis,
    /// How far windows reach beyond the image.
    pub padding: Padding,
    /// How far neighbouring kernel entries are apart in the image.
    pub dilation: PerAxis,
    /// Input and output channels are cut into this many groups that do not see each other.
    pub groups: usize,
    /// What a window sees beyond the image.
    pub padding_mode: PaddingMode,
}

impl Default for Conv {
    fn default() -> Self {
        Self { stride: 1.into(), padding: 0.into(), dilation: 1.into(), groups: 1, padding_mode: PaddingMode::Zeros }
    }
}

impl Conv {
    /// Stride 1, no padding, dilation 1, one group.
    pub fn new() -> Self {
        Self::default()
    }

    /// How far neighbouring windows are apart.
    pub fn stride(self, stride: impl Into<PerAxis>) -> Self {
        Self { stride: stride.into(), ..self }
    }

    /// How far windows reach beyond the image.
    pub fn padding(self, padding: impl Into<Padding>) -> Self {
        Self { padding: padding.into(), ..self }
    }

    /// How far neighbouring kernel entries are apart in the image.
    pub fn dilation(self, dilation: impl Into<PerAxis>) -> Self {
        Self { dilation: dilation.into(), ..self }
    }

    /// The number of groups.
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// What a window sees beyond the image.
    pub fn padding_mode(self, padding_mode: PaddingMode) -> Self {
        Self { padding_mode, ..self }
    }

    /// The shape of the convolution of an image `[batch, *spatial, c_in]` with a weight `[c_out, c_in / groups, *kernel]`.
    ///
    /// # Errors
    /// As [`Var::conv`](crate::autodiff::Var::conv).
    pub fn output_shape(&self, input: &[usize], weight: &[usize]) -> Result<Vec<usize>> {
        let (geometry, _) = self.plan("conv", input, weight)?;
        Ok(image_shape(input.len() - 2, geometry.batch, geometry.output, geometry.c_out))
    }

    /// The sizes with the padding counted, and the padding of each spatial mode.
    pub(crate) fn plan(
        &self,
        operation: &'static str,
        input: &[usize],
        weight: &[usize],
    ) -> Result<(Geometry, Vec<(usize, usize)>)> {
        let modes = spatial_modes(operation, input)?;
        check_weight(operation, input, weight, "[c_out, c_in / groups, *kernel]")?;
        let (c_in, c_out) = (input[modes + 1], weight[0]);
        check_groups(operation, self.groups, c_in, c_out)?;
        if weight[1] * self.groups != c_in {
            let message = format!(
                "a weight of shape {weight:?} with {} groups takes {} input channels, and the image {input:?} has {c_in}; with \
                 {} groups the weight's second size is {}",
                self.groups,
                weight[1] * self.groups,
                self.groups,
                c_in / self.groups
            );
            return Err(Error::shape(operation, message));
        }
        let (spatial, kernel) = (&input[1..=modes], &weight[2..]);
        let stride = positive(operation, "stride", self.stride.values(operation, "stride", modes)?)?;
        let dilation = positive(operation, "dilation", self.dilation.values(operation, "dilation", modes)?)?;
        let pairs = self.padding.pairs(operation, spatial, kernel, &stride, &dilation)?;
        let output = (0..modes)
            .map(|m| {
                check_padding_mode(operation, self.padding_mode, m, spatial[m], pairs[m])?;
                windows(operation, m, spatial[m], kernel[m], stride[m], dilation[m], pairs[m])
            })
            .collect::<Result<Vec<usize>>>()?;
        let before: Vec<usize> = pairs.iter().map(|pair| pair.0).collect();
        let geometry = Geometry {
            batch: input[0],
            input: three(spatial, 1),
            output: three(&output, 1),
            kernel: three(kernel, 1),
            stride: three(&stride, 1),
            dilation: three(&dilation, 1),
            before: three(&before, 0),
            c_in,
            c_out,
            groups: self.groups,
        };
        Ok((geometry, pairs))
    }
}

/// The options of [`Var::conv_transpose`](crate::autodiff::Var::conv_transpose), with the defaults of `torch.nn.ConvTranspose2d`.
///
/// ```
/// use tenfold::autodiff::ConvTranspose;
///
/// let up = ConvTranspose::new().stride(2).padding(1).output_padding(1);
/// assert_eq!(up.output_shape(&[8, 28, 28, 64], &[64, 32, 3, 3])?, [8, 56, 56, 32]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvTranspose {
    /// How far the windows of neighbouring input entries are apart in the result.
    pub stride: PerAxis,
    /// Entries cut off the result on each side. [`Padding::Same`] is refused: it does not say which size is meant.
    pub padding: Padding,
    /// Entries added to the result behind each mode, less than the stride or the dilation.
    pub output_padding: PerAxis,
    /// How far neighbouring kernel entries are apart in the result.
    pub dilation: PerAxis,
    /// Input and output channels are cut into this many groups that do not see each other.
    pub groups: usize,
}

impl Default for ConvTranspose {
    fn default() -> Self {
        Self { stride: 1.into(), padding: 0.into(), output_padding: 0.into(), dilation: 1.into(), groups: 1 }
    }
}

impl ConvTranspose {
    /// Stride 1, no padding, dilation 1, one group.
    pub fn new() -> Self {
        Self::default()
    }

    /// How far the windows of neighbouring input entries are apart in the result.
    pub fn stride(self, stride: impl Into<PerAxis>) -> Self {
        Self { stride: stride.into(), ..self }
    }

    /// Entries cut off the result on each side.
    pub fn padding(self, padding: impl Into<Padding>) -> Self {
        Self { padding: padding.into(), ..self }
    }

    /// Entries added to the result behind each mode.
    pub fn output_padding(self, output_padding: impl Into<PerAxis>) -> Self {
        Self { output_padding: output_padding.into(), ..self }
    }

    /// How far neighbouring kernel entries are apart in the result.
    pub fn dilation(self, dilation: impl Into<PerAxis>) -> Self {
        Self { dilation: dilation.into(), ..self }
    }

    /// The number of groups.
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// The shape of the transposed convolution of `[batch, *spatial, c_in]` with a weight `[c_in, c_out / groups, *kernel]`.
    ///
    /// # Errors
    /// As [`Var::conv_transpose`](crate::autodiff::Var::conv_transpose).
    pub fn output_shape(&self, input: &[usize], weight: &[usize]) -> Result<Vec<usize>> {
        let geometry = self.plan(input, weight)?;
        Ok(image_shape(input.len() - 2, geometry.batch, geometry.input, geometry.c_in))
    }

    /// The sizes of the convolution whose gradient by the input this is.
    pub(crate) fn plan(&self, input: &[usize], weight: &[usize]) -> Result<Geometry> {
        let operation = "conv_transpose";
        let modes = spatial_modes(operation, input)?;
        check_weight(operation, input, weight, "[c_in, c_out / groups, *kernel]")?;
        let (c_in, c_out) = (input[modes + 1], weight[1] * self.groups);
        check_groups(operation, self.groups, c_in, c_out)?;
        if weight[0] != c_in {
            let message = format!(
                "a weight of shape {weight:?} takes {} input channels, and the image {input:?} has {c_in}; the weight's first size \
                 is the number of input channels",
                weight[0]
            );
            return Err(Error::shape(operation, message));
        }
        let (spatial, kernel) = (&input[1..=modes], &weight[2..]);
        let stride = positive(operation, "stride", self.stride.values(operation, "stride", modes)?)?;
        let dilation = positive(operation, "dilation", self.dilation.values(operation, "dilation", modes)?)?;
        let extra = self.output_padding.values(operation, "output_padding", modes)?;
        if self.padding == Padding::Same {
            let message = "padding \"same\" fits several sizes of the result; give the padding as numbers";
            return Err(Error::new(ErrorKind::Unsupported, operation, message));
        }
        let pairs = self.padding.pairs(operation, spatial, kernel, &stride, &dilation)?;
        let result = (0..modes)
            .map(|m| {
                if extra[m] >= stride[m].max(dilation[m]) {
                    let message = format!(
                        "output_padding {} of spatial mode {m} is not less than its stride {} or its dilation {}",
                        extra[m], stride[m], dilation[m]
                    );
                    return Err(Error::new(ErrorKind::Value, operation, message));
                }
                let full = (spatial[m].max(1) - 1) * stride[m] + dilation[m] * (kernel[m] - 1) + 1 + extra[m];
                match full.checked_sub(pairs[m].0 + pairs[m].1) {
                    Some(size) if size > 0 && spatial[m] > 0 => Ok(size),
                    _ => Err(Error::shape(
                        operation,
                        format!(
                            "spatial mode {m} of size {} becomes {full} entries, of which the padding {:?} leaves none",
                            spatial[m], pairs[m]
                        ),
                    )),
                }
            })
            .collect::<Result<Vec<usize>>>()?;
        let before: Vec<usize> = pairs.iter().map(|pair| pair.0).collect();
        Ok(Geometry {
            batch: input[0],
            input: three(&result, 1),
            output: three(spatial, 1),
            kernel: three(kernel, 1),
            stride: three(&stride, 1),
            dilation: three(&dilation, 1),
            before: three(&before, 0),
            c_in: c_out,
            c_out: c_in,
            groups: self.groups,
        })
    }
}

/// The options of [`Var::max_pool`](crate::autodiff::Var::max_pool) and [`Var::avg_pool`](crate::autodiff::Var::avg_pool), with the
/// defaults of `torch.nn.MaxPool2d` and `torch.nn.AvgPool2d`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The size of a window.
    pub kernel: PerAxis,
    /// How far neighbouring windows are apart; `None` is the size of a window.
    pub stride: Option<PerAxis>,
    /// How far windows reach beyond the image on both sides, at most half a window.
    pub padding: PerAxis,
    /// Whether an average counts the padding as zeros (`avg_pool` alone).
    pub count_include_pad: bool,
}

impl Pool {
    /// Windows of a size, side by side.
    pub fn new(kernel: impl Into<PerAxis>) -> Self {
        Self { kernel: kernel.into(), stride: None, padding: 0.into(), count_include_pad: true }
    }

    /// How far neighbouring windows are apart.
    pub fn stride(self, stride: impl Into<PerAxis>) -> Self {
        Self { stride: Some(stride.into()), ..self }
    }

    /// How far windows reach beyond the image on both sides.
    pub fn padding(self, padding: impl Into<PerAxis>) -> Self {
        Self { padding: padding.into(), ..self }
    }

    /// Whether an average counts the padding as zeros.
    pub fn count_include_pad(self, count_include_pad: bool) -> Self {
        Self { count_include_pad, ..self }
    }

    /// The sizes, with `groups` meaning nothing.
    pub(crate) fn plan(&self, operation: &'static str, input: &[usize]) -> Result<Geometry> {
        let modes = spatial_modes(operation, input)?;
        let kernel = positive(operation, "kernel", self.kernel.values(operation, "kernel", modes)?)?;
        let stride = match &self.stride {
            Some(stride) => positive(operation, "stride", stride.values(operation, "stride", modes)?)?,
            None => kernel.clone(),
        };
        let padding = self.padding.values(operation, "padding", modes)?;
        let spatial = &input[1..=modes];
        let output = (0..modes)
            .map(|m| {
                if padding[m] > kernel[m] / 2 {
                    let message = format!(
                        "padding {} of spatial mode {m} is more than half of the window, which has {}",
                        padding[m], kernel[m]
                    );
                    return Err(Error::new(ErrorKind::Value, operation, message));
                }
                windows(operation, m, spatial[m], kernel[m], stride[m], 1, (padding[m], padding[m]))
            })
            .collect::<Result<Vec<usize>>>()?;
        let channels = input[modes + 1];
        Ok(Geometry {
            batch: input[0],
            input: three(spatial, 1),
            output: three(&output, 1),
            kernel: three(&kernel, 1),
            stride: three(&stride, 1),
            dilation: [1; 3],
            before: three(&padding, 0),
            c_in: channels,
            c_out: channels,
            groups: 1,
        })
    }
}
