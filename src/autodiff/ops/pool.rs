//! Pools: the largest entry or the average of each window of an image, channels-last.
//!
//! Largest: $y_{b,o,c} = \max_k x_{b,\,o s + k - p,\,c}$ over the window's entries inside of the image; $dy$ goes to the first of the largest.
//! Average: $y_{b,o,c} = \frac1n \sum_k x_{b,\,o s + k - p,\,c}$, where $n$ counts the window, or only its part inside of the image; the
//! gradient is $dx_{b,j,c} = \sum \frac1n dy_{b,o,c}$ over the windows that see $j$.

use super::{
    conv::operand,
    options::Pool,
    resize::resampled,
    window::{image_shape, spatial_modes},
};
use crate::{
    autodiff::Var,
    device::{max_pool, resample::Mix},
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};

impl<T: Scalar> Var<T> {
    /// The largest entry of each window, channel by channel: `[batch, *spatial, channels]` to `[batch, *output, channels]`, where each
    /// mode has `(n + 2 padding - kernel) / stride + 1` entries, rounded down. NaN where a window holds one.
    ///
    /// Cost: a comparison for each result and window entry; the backward pass makes them again and keeps only the image.
    ///
    /// ```
    /// use tenfold::{Tensor, autodiff::{Pool, Var}};
    ///
    /// let x = Var::parameter(Tensor::from_vec([1, 4, 1], vec![1.0, 5.0, 2.0, 3.0])?);
    /// let y = x.max_pool(&Pool::new(2))?;
    /// assert_eq!(y.value().to_vec()?, [5.0, 3.0]);
    /// assert_eq!(y.backward_from(Tensor::ones(vec![1, 2, 1])?)?.of(&x)?.to_vec()?, [0.0, 1.0, 0.0, 1.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where this is no image, or a window is larger than the padded image;
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) where a size is 0 or the padding is more than half a window.
    pub fn max_pool(&self, options: &Pool) -> Result<Self> {
        let g = options.plan("max_pool", self.shape())?;
        let device = self.device().clone();
        let x = self.value().to_contiguous()?;
        let y = max_pool::forward(&device, &g, operand(&x))?;
        let shape = image_shape(self.order() - 2, g.batch, g.output, g.c_out);
        let y: Tensor<T> = Tensor::row_major(y, &shape);
        // Kept as it is: the maxima are found again, and rounded entries may be equal.
        Ok(Var::record("max_pool", y, &[self], move |dy, flow| {
            let dy = dy.to_contiguous()?;
            let dx = max_pool::backward(&device, &g, operand(&x), operand(&dy))?;
            flow.give(0, Tensor::row_major(dx, x.shape()))
        }))
    }

    /// The average of each window, channel by channel; shapes as in [`max_pool`](Var::max_pool).
    ///
    /// What lies beyond the image counts as zeros, or not at all, as [`Pool::count_include_pad`] says.
    ///
    /// ```
    /// use tenfold::{Tensor, autodiff::{Pool, Var}};
    ///
    /// let x = Var::constant(Tensor::from_vec([1, 4, 1], vec![1.0, 5.0, 2.0, 3.0])?);
    /// assert_eq!(x.avg_pool(&Pool::new(2))?.value().to_vec()?, [3.0, 2.5]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`max_pool`](Var::max_pool).
    pub fn avg_pool(&self, options: &Pool) -> Result<Self> {
        let g = options.plan("avg_pool", self.shape())?;
        let mixes = [0, 1, 2].map(|mode| {
            let axis = g.forward(mode);
            let row = |q: usize| {
                let seen = |offset: isize| (q * axis.stride) as isize + offset;
                let seen =
                    axis.taps.iter().map(|tap| seen(tap.offset)).filter(|i| (0..axis.source as isize).contains(i));
                let seen: Vec<usize> = seen.map(|i| i as usize).collect();
                let n = if options.count_include_pad { g.kernel[mode] } else { seen.len() };
                let weight = T::one() / T::of(n as f64);
                seen.into_iter().map(|i| (i, weight)).collect::<Vec<_>>()
            };
            Mix::new(axis.source, (0..axis.count).map(row))
        });
        resampled("avg_pool", self, mixes)
    }

    /// The average of each channel over the whole image: `[batch, *spatial, channels]` to `[batch, channels]`.
    ///
    /// ```
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let x = Var::constant(Tensor::from_vec([1, 2, 2], vec![1.0, 10.0, 3.0, 30.0])?);
    /// assert_eq!(x.global_avg_pool()?.value().to_vec()?, [2.0, 20.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where this is no image, or one without entries.
    pub fn global_avg_pool(&self) -> Result<Self> {
        let modes = spatial_modes("global_avg_pool", self.shape())?;
        if self.shape()[1..].contains(&0) {
            let message = format!("an image of shape {:?} has no entries to average", self.shape());
            return Err(Error::shape("global_avg_pool", message));
        }
        let sizes = super::window::three(&self.shape()[1..=modes], 1);
        let mixes = sizes.map(|n| Mix::new(n, [(0..n).map(|i| (i, T::one() / T::of(n as f64))).collect::<Vec<_>>()]));
        let (batch, channels) = (self.shape()[0], self.shape()[modes + 1]);
        super::resize::resampled_to("global_avg_pool", self, mixes, vec![batch, channels])
    }
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
        for (shape, options) in [
            (&[2, 5, 4, 3][..], Pool::new(2)),
            (&[1, 5, 6, 2], Pool::new(3).stride(2).padding(1)),
            (&[1, 4, 3, 1], Pool::new([4, 2]).stride([1, 3]).padding([2, 0])),
            (&[2, 7, 2], Pool::new(3).stride(1)),
            (&[1, 3, 2, 4, 2], Pool::new([2, 1, 3]).padding([1, 0, 1]).stride(1)),
        ] {
            // Entries far enough apart that no step of the differences changes which is the largest.
            let order = normal(shape, 1);
            let values = order.to_vec().unwrap();
            let rank = |x: f64| values.iter().filter(|&&y| y < x).count() as f64 / 10.0 - 1.0;
            let x = order.map(rank).unwrap();
            for x in [x.clone(), reversed(&x)] {
                check_gradients(std::slice::from_ref(&x), 1e-6, |v| v[0].max_pool(&options)).unwrap();
                check_gradients(std::slice::from_ref(&x), 1e-6, |v| v[0].avg_pool(&options)).unwrap();
                let inside = options.clone().count_include_pad(false);
                check_gradients(std::slice::from_ref(&x), 1e-6, |v| v[0].avg_pool(&inside)).unwrap();
                check_gradients(&[x], 1e-6, |v| v[0].global_avg_pool()).unwrap();
            }
        }
    }

    #[test]
    fn nan_is_the_largest_and_the_first_of_equals_gets_the_gradient() {
        let x = Var::parameter(Tensor::from_vec([1, 4, 1], vec![2.0, 2.0, f64::NAN, 3.0]).unwrap());
        let y = x.max_pool(&Pool::new(2)).unwrap();
        let values = y.value().to_vec().unwrap();
        assert_eq!(values[0], 2.0);
        assert!(values[1].is_nan());
        let dx = y.backward_from(Tensor::ones(vec![1, 2, 1]).unwrap()).unwrap();
        assert_eq!(dx.of(&x).unwrap().to_vec().unwrap(), [1.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn errors_say_what_would_be_right() {
        let x = Var::constant(normal(&[1, 3, 4, 2], 1));
        let error = |options: Pool| x.max_pool(&options).unwrap_err().to_string();
        assert_eq!(
            error(Pool::new(3).padding(2)),
            "max_pool: padding 2 of spatial mode 0 is more than half of the window, which has 3"
        );
        assert_eq!(error(Pool::new(0)), "max_pool: kernel [0, 0] has a 0; the smallest is 1");
        assert!(error(Pool::new([4, 1])).contains("spans 4 entries of spatial mode 0, which has 3"));
        assert!(error(Pool::new([1, 1, 1])).contains("give one, or 2"));
        assert!(Var::constant(normal(&[2, 0, 3], 1)).global_avg_pool().is_err());
        assert!(Var::constant(normal(&[2, 3], 1)).global_avg_pool().is_err());
    }
}
