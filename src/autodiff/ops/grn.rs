//! Global response normalisation, as in ConvNeXt-V2.
//!
//! x is `[B, spatial.., C]`. With $G_{bc} = \sqrt{\sum_s x_{bsc}^2}$ and $N_{bc} = G_{bc} / (\overline{G_b} + \varepsilon)$, where the bar is the
//! mean over channels:
//!
//! $$y = \gamma\,(x\,N) + \beta + x.$$
//!
//! Back, with $S_{bc} = \sum_s dy\,x$ and $e_b = \overline{G_b} + \varepsilon$:
//!
//! $$d\beta = \sum_{b,s} dy, \quad d\gamma = \sum_b N S, \quad
//! dG = \frac{\gamma S}{e_b} - \frac{1}{C} \sum_c \frac{\gamma S G}{e_b^2}, \quad
//! dx = (1 + \gamma N)\,dy + \frac{dG}{G}\,x,$$
//!
//! the last term 0 where G is. Each direction reads its operands twice (once for sums) and writes once.
//!
//! S. Woo et al., *ConvNeXt V2*, CVPR 2023.

use super::{
    super::{Saved, Var},
    layer_norm::{check_eps, check_vector},
};
use crate::{
    device::{
        channels::{self, Channels},
        storage::Flat,
    },
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;

const NAME: &str = "grn";

impl<T: Scalar> Var<T> {
    /// Global response normalisation of `[B, spatial.., C]` with `gamma` and `beta` `[C]`; 1e-6 is the usual `eps`.
    ///
    /// ```
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let x = Var::constant(Tensor::<f64, _>::ones([1, 2, 2, 3])?);
    /// let one = Var::constant(Tensor::ones(3)?);
    /// // All channels respond alike: N = 1.
    /// assert!(x.grn(&one, &one, 0.0)?.value().to_vec()?.iter().all(|&y| y == 3.0));
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the sizes do not fit,
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) for an `eps` that is negative or not finite,
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) where operands live in different places.
    pub fn grn(&self, gamma: &Self, beta: &Self, eps: f64) -> Result<Self> {
        let [groups, spatial @ .., n] = self.shape() else {
            let message = format!("an input of shape {:?}; needs [B, spatial.., C]", self.shape());
            return Err(Error::shape(NAME, message));
        };
        let at = Channels { name: NAME, groups: *groups, rows: spatial.iter().product(), channels: *n };
        let n = at.channels;
        check_vector(NAME, "gamma", self, n, Some(gamma))?;
        check_vector(NAME, "beta", self, n, Some(beta))?;
        check_eps(NAME, eps)?;
        let here = self.value().to_contiguous()?;
        let (gain, term) = (gamma.value().to_contiguous()?, beta.value().to_contiguous()?);
        let response = channels::respond(at, &channels::squares(at, here.flat())?, gain.flat(), T::of(eps))?;
        let count = at.groups * n;
        let vectors = (None, Flat::of(&response.scale, count), Some(term.flat()));
        let y = channels::affine(at, here.flat(), vectors)?;
        let y: Tensor<T, IxDyn> = Tensor::row_major(y, self.shape());
        let operands = [self, gamma, beta];
        let saved = Self::records(&operands).then(|| Saved::operand(self, &here)).transpose()?;
        Ok(Self::record(NAME, y, &operands, move |dy, flow| {
            let Some(here) = saved.map(Saved::into_tensor) else { return Ok(()) };
            let dy = dy.to_contiguous()?;
            let operands = (here.flat(), dy.flat());
            let sums = channels::sums(at, operands, None)?;
            let [slopes, dgamma, dbeta] = channels::respond_back(at, &sums, &response, gain.flat())?;
            flow.give(1, Tensor::row_major(dgamma, &[n]))?;
            flow.give(2, Tensor::row_major(dbeta, &[n]))?;
            if !flow.needs(0) {
                return Ok(());
            }
            let vectors = (Flat::of(&response.scale, count), Flat::of(&slopes, count), None);
            let dx = channels::combine(at, operands, None, vectors)?;
            flow.give(0, Tensor::row_major(dx, here.shape()))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::{
        check_gradients,
        testing::{close, normal, reversed},
    };

    #[test]
    fn the_formula_and_its_gradients() {
        for shape in [&[2, 3, 2, 4][..], &[1, 5, 1], &[3, 7], &[2, 70, 3], &[2, 2, 2, 2, 33], &[0, 2, 3], &[2, 3, 0]] {
            let (n, groups) = (shape[shape.len() - 1], shape[0]);
            let (gamma, beta) = (normal(&[n], 2), normal(&[n], 3));
            let x = normal(shape, 1);
            for x in [x.clone(), reversed(&x)] {
                let flat = x.to_vec().unwrap();
                let size = flat.len() / groups.max(1);
                let norm = |b: usize, c: usize| {
                    flat[b * size..(b + 1) * size].iter().skip(c).step_by(n).map(|x| x * x).sum::<f64>().sqrt()
                };
                let mean = |b: usize| (0..n).map(|c| norm(b, c)).sum::<f64>() / n as f64;
                let (g, b) = (gamma.to_vec().unwrap(), beta.to_vec().unwrap());
                let expected: Vec<f64> = (0..flat.len())
                    .map(|i| {
                        let response = norm(i / size, i % n) / (mean(i / size) + 1e-3);
                        g[i % n] * (flat[i] * response) + b[i % n] + flat[i]
                    })
                    .collect();
                let [v, gv, bv] = [&x, &gamma, &beta].map(|t| Var::constant(t.clone()));
                close(&v.grn(&gv, &bv, 1e-3).unwrap().value().to_vec().unwrap(), &expected, 1e-13);
                check_gradients(&[x, gamma.clone(), beta.clone()], 1e-6, |v| v[0].grn(&v[1], &v[2], 1e-3)).unwrap();
            }
        }
    }

    #[test]
    fn a_silent_channel_has_a_gradient_without_nan() {
        let x = Var::parameter(Tensor::<f64, _>::zeros([1, 3, 2]).unwrap());
        let one = Var::parameter(Tensor::ones(2).unwrap());
        let gradients = x.grn(&one, &one, 1e-6).unwrap().sum().unwrap().backward().unwrap();
        assert_eq!(gradients.of(&x).unwrap().to_vec().unwrap(), [1.0; 6]);
    }

    #[test]
    fn errors_name_the_shapes() {
        let v = |shape: &[usize]| Var::constant(normal(shape, 1));
        assert_eq!(
            v(&[2, 2, 3]).grn(&v(&[2]), &v(&[3]), 1e-6).unwrap_err().to_string(),
            "grn: a gamma of shape [2] for an input of shape [2, 2, 3]; needs [3]"
        );
        assert!(v(&[2, 2, 3]).grn(&v(&[3]), &v(&[3, 1]), 1e-6).is_err());
        assert!(v(&[3]).grn(&v(&[3]), &v(&[3]), 1e-6).is_err());
    }
}
