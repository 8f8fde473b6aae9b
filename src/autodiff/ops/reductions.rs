//! Sums, means and maxima, of all entries or over some modes.
//!
//! $y = \sum_i x_i$ gives every $x_i$ the gradient $dx_i = dy$, a mean over $n$ entries $dx_i = dy / n$: the gradient of the result is
//! *repeated* over the modes that were summed, as a view. $y = \max_i x_i$ gives $dy$ to the entry that was largest, the first of
//! equals, and nothing to the others.

use super::super::Var;
use crate::{
    device::{
        gather::{self, Around},
        reduce::{self, Total},
    },
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;

impl<T: Scalar> Var<T> {
    /// The sum of all entries, a single number (order 0), added up in double precision.
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn sum(&self) -> Result<Self> {
        self.total("sum", T::one())
    }

    /// The mean of all entries, a single number.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where there are none.
    pub fn mean(&self) -> Result<Self> {
        self.check_count("mean", self.len())?;
        self.total("mean", T::of(1.0 / self.len() as f64))
    }

    fn total(&self, operation: &'static str, factor: T) -> Result<Self> {
        let x = self.value();
        let y = reduce::scaled_total(Total::Sum, factor.f64(), &x.storage, &x.layout)?;
        let y: Tensor<T, IxDyn> = Tensor::row_major(y, &[]);
        let shape = self.shape().to_vec();
        Ok(Self::record(operation, y, &[self], move |dy, flow| {
            let dy = if factor == T::one() { dy } else { dy.scale(factor)? };
            flow.give(0, dy.broadcast_to(shape)?)
        }))
    }

    /// Sums over some modes, which disappear, or stay with size 1 where `keep` says so.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let x = Var::constant(Tensor::from(array![[1.0, 2.0], [3.0, 4.0]]));
    /// assert_eq!(x.sum_modes(&[0], false)?.value().to_vec()?, [4.0, 6.0]);
    /// assert_eq!(x.mean_modes(&[1], true)?.shape(), &[2, 1]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where a mode does not exist or stands twice.
    pub fn sum_modes(&self, modes: &[usize], keep: bool) -> Result<Self> {
        self.reduce_modes("sum_modes", modes, keep, None)
    }

    /// Means over some modes, which disappear, or stay with size 1 where `keep` says so.
    ///
    /// # Errors
    /// As [`sum_modes`](Var::sum_modes), and where there is nothing to take the mean of.
    pub fn mean_modes(&self, modes: &[usize], keep: bool) -> Result<Self> {
        let count = modes.iter().map(|&m| self.shape().get(m).copied().unwrap_or(1)).product();
        self.check_count("mean_modes", count)?;
        self.reduce_modes("mean_modes", modes, keep, Some(T::of(1.0 / count as f64)))
    }

    fn reduce_modes(&self, operation: &'static str, modes: &[usize], keep: bool, factor: Option<T>) -> Result<Self> {
        let mut kept = vec![true; self.order()];
        for &mode in modes {
            self.value().check_mode(operation, mode)?;
            if !std::mem::replace(&mut kept[mode], false) {
                return Err(Error::shape(operation, format!("mode {mode} stands twice in {modes:?}")));
            }
        }
        let x = self.value();
        let sums = reduce::sum_modes(self.device(), &x.storage, &x.layout, &kept)?;
        let wide = kept_shape(self.shape(), &kept, true);
        let mut y: Tensor<T, IxDyn> = Tensor::row_major(sums, &kept_shape(self.shape(), &kept, keep));
        if let Some(factor) = factor {
            y = y.scale(factor)?;
        }
        let shape = self.shape().to_vec();
        Ok(Self::record(operation, y, &[self], move |dy, flow| {
            let dy = dy.reshape(wide)?;
            let dy = factor.map_or(Ok(dy.clone()), |factor| dy.scale(factor))?;
            flow.give(0, dy.broadcast_to(shape)?)
        }))
    }

    /// The largest entries along a mode, which disappears (or stays with size 1 where `keep` says so), and where along it they
    /// stand. Of equals the first; NaN is larger than any number.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let logits = Var::constant(Tensor::from(array![[0.1, 2.0, 2.0], [3.0, 1.0, 0.0]]));
    /// let (largest, class) = logits.max_mode(1, false)?;
    /// assert_eq!(largest.value().to_vec()?, [2.0, 3.0]);
    /// assert_eq!(class.to_vec()?, [1, 0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the mode does not exist or has no entries.
    pub fn max_mode(&self, mode: usize, keep: bool) -> Result<(Self, Tensor<u32, IxDyn>)> {
        self.value().check_mode("max_mode", mode)?;
        self.check_count("max_mode", self.shape()[mode])?;
        let x = self.value().to_contiguous()?;
        let around = Around::new(self.shape(), mode);
        let (device, block) = (self.device().clone(), (&x.storage, x.layout.offset()));
        let at = gather::argmax(&device, block, around)?;
        let y = gather::take_along(&device, block, around, (&at, 0), 1)?;
        let kept: Vec<bool> = (0..self.order()).map(|m| m != mode).collect();
        let small = kept_shape(self.shape(), &kept, keep);
        let shape = self.shape().to_vec();
        let (y, at): (Tensor<T, IxDyn>, _) = (Tensor::row_major(y, &small), Tensor::row_major(at, &small));
        let saved = at.clone();
        let y = Self::record("max_mode", y, &[self], move |dy, flow| {
            let dy = dy.to_contiguous()?;
            let dy = (&dy.storage, dy.layout.offset());
            let dx = gather::add_along(&device, dy, around, (&saved.storage, 0), 1)?;
            flow.give(0, Tensor::row_major(dx, &shape))
        });
        Ok((y, at))
    }

    fn check_count(&self, operation: &'static str, count: usize) -> Result<()> {
        if count > 0 {
            return Ok(());
        }
        Err(Error::shape(operation, format!("shape {:?} has no entries to take it of", self.shape())))
    }
}

/// A shape with the modes that are not kept taken out, or of size 1.
fn kept_shape(shape: &[usize], kept: &[bool], keep: bool) -> Vec<usize> {
    let sizes = shape.iter().zip(kept);
    if keep {
        sizes.map(|(&n, &kept)| if kept { n } else { 1 }).collect()
    } else {
        sizes.filter(|s| *s.1).map(|s| *s.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::{
        check_gradients,
        testing::{close, normal, reversed},
    };

    const SHAPES: [&[usize]; 7] = [&[3, 4, 5], &[1], &[], &[7, 1, 2], &[40, 9], &[2, 33, 11], &[3, 1100]];

    #[test]
    fn sums_and_means_of_any_modes() {
        for (i, shape) in SHAPES.into_iter().enumerate() {
            let x = normal(shape, i as u64);
            for x in [x.clone(), reversed(&x)] {
                let few = x.len() < 200;
                let flat = x.to_vec().unwrap();
                for picked in 0..1usize << shape.len() {
                    let modes: Vec<usize> = (0..shape.len()).filter(|m| picked >> m & 1 == 1).collect();
                    let kept: Vec<usize> = (0..shape.len()).filter(|m| !modes.contains(m)).collect();
                    let small: Vec<usize> = kept.iter().map(|&m| shape[m]).collect();
                    let mut expected = vec![0.0; small.iter().product()];
                    for (i, x) in flat.iter().enumerate() {
                        let index = crate::tensor::index_at(shape, i);
                        expected[kept.iter().fold(0, |at, &m| at * shape[m] + index[m])] += x;
                    }
                    let sums = Var::constant(x.clone()).sum_modes(&modes, false).unwrap();
                    assert_eq!(sums.shape(), small);
                    close(&sums.value().to_vec().unwrap(), &expected, 1e-12);
                    for keep in [false, true].into_iter().filter(|_| few) {
                        let x = std::slice::from_ref(&x);
                        check_gradients(x, 1e-6, |v| v[0].sum_modes(&modes, keep)?.square()).unwrap();
                        check_gradients(x, 1e-6, |v| v[0].mean_modes(&modes, keep)).unwrap();
                    }
                }
                if few {
                    check_gradients(std::slice::from_ref(&x), 1e-6, |v| v[0].sum()?.square()).unwrap();
                    check_gradients(&[x], 1e-6, |v| v[0].square()?.mean()).unwrap();
                }
            }
        }
    }

    #[test]
    fn maxima_along_every_mode() {
        for (i, shape) in [&[3, 4, 5][..], &[1], &[7, 1, 2], &[2, 6]].into_iter().enumerate() {
            let x = normal(shape, i as u64);
            for x in [x.clone(), reversed(&x)] {
                for mode in 0..shape.len() {
                    for keep in [false, true] {
                        check_gradients(std::slice::from_ref(&x), 1e-6, |v| Ok(v[0].max_mode(mode, keep)?.0)).unwrap();
                    }
                    let (y, at) = Var::constant(x.clone()).max_mode(mode, true).unwrap();
                    for i in 0..y.len() {
                        let mut index = crate::tensor::index_at(y.shape(), i);
                        let best = y.value().get(&index).unwrap();
                        let place = at.get(&index).unwrap() as usize;
                        for j in 0..shape[mode] {
                            index[mode] = j;
                            let x = x.get(&index).unwrap();
                            assert!(if j == place { x == best } else { x < best });
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn of_equals_the_first_and_nan_before_all() {
        let x = Var::parameter(Tensor::from(ndarray::array![[2.0, 2.0, 1.0], [0.0, f64::NAN, 9.0]]));
        let (y, at) = x.max_mode(1, false).unwrap();
        assert_eq!(at.to_vec().unwrap(), [0, 1]);
        let dx = y.backward_from(Tensor::ones(vec![2]).unwrap()).unwrap();
        assert_eq!(dx.of(&x).unwrap().to_vec().unwrap(), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn errors() {
        let x = Var::constant(normal(&[2, 3], 1));
        assert!(x.sum_modes(&[2], false).is_err());
        assert_eq!(x.sum_modes(&[1, 1], false).unwrap_err().to_string(), "sum_modes: mode 1 stands twice in [1, 1]");
        let none = Var::constant(normal(&[0, 3], 1));
        assert_eq!(none.mean().unwrap_err().to_string(), "mean: shape [0, 3] has no entries to take it of");
        assert!(none.mean_modes(&[0], false).is_err() && none.max_mode(0, false).is_err());
        assert_eq!(none.sum().unwrap().item().unwrap(), 0.0);
        assert_eq!(none.sum_modes(&[0], false).unwrap().value().to_vec().unwrap(), [0.0; 3]);
    }
}
