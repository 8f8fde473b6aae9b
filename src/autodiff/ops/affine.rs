//! A scale and a bias for each channel: $y_{ic} = a_c\\, x_{ic} + b_c$.
//!
//! Channels are the last mode. Back, one pass for the sums and one for dx:
//!
//! $$da_c = \sum_i dy_{ic}\\, x_{ic}, \qquad db_c = \sum_i dy_{ic}, \qquad dx_{ic} = a_c\\, dy_{ic}.$$

use super::{
    super::{Saved, Var},
    layer_norm::check_vector,
};
use crate::{
    device::channels::{self, Channels},
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;

const NAME: &str = "affine";

impl<T: Scalar> Var<T> {
    /// `x a + b` with `scale` a and `bias` b `[C]` for x `[.., C]`: one pass over x, where a product and a sum are two.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let x = Var::constant(Tensor::from(array![[1.0, 2.0], [3.0, 4.0]]));
    /// let [a, b] = [[10.0, 0.0], [0.5, 1.0]].map(|v| Var::parameter(Tensor::from(array![v[0], v[1]])));
    /// let y = x.affine(&a, Some(&b))?;
    /// assert_eq!(y.value().to_vec()?, [10.5, 1.0, 30.5, 1.0]);
    /// assert_eq!(y.sum()?.backward()?.of(&a)?.to_vec()?, [4.0, 6.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the sizes do not fit,
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) where operands live in different places.
    pub fn affine(&self, scale: &Self, bias: Option<&Self>) -> Result<Self> {
        let Some((&n, lead)) = self.shape().split_last() else {
            return Err(Error::shape(NAME, "an input of order 0; needs [.., C]"));
        };
        let at = Channels { name: NAME, groups: 1, rows: lead.iter().product(), channels: n };
        check_vector(NAME, "scale", self, n, Some(scale))?;
        check_vector(NAME, "bias", self, n, bias)?;
        let (x, a) = (self.value().to_contiguous()?, scale.value().to_contiguous()?);
        let b = bias.map(|bias| bias.value().to_contiguous()).transpose()?;
        let y = channels::affine(at, x.flat(), (None, a.flat(), b.as_ref().map(Tensor::flat)))?;
        let y: Tensor<T, IxDyn> = Tensor::row_major(y, self.shape());
        let operands = [self, scale, bias.unwrap_or(self)];
        let count = if bias.is_some() { 3 } else { 2 };
        let shape = self.shape().to_vec();
        let wanted = Self::records(&operands[..count]) && scale.needs_gradient();
        let x = wanted.then(|| Saved::operand(self, &x)).transpose()?;
        Ok(Self::record(NAME, y, &operands[..count], move |dy, flow| {
            let dy = dy.to_contiguous()?;
            let wants_bias = count == 3 && flow.needs(2);
            if let (true, Some(x)) = (flow.needs(1), x.map(Saved::into_tensor)) {
                let [plain, products] = channels::sums(at, (x.flat(), dy.flat()), None)?;
                flow.give(1, Tensor::row_major(products, &[n]))?;
                if wants_bias {
                    flow.give(2, Tensor::row_major(plain, &[n]))?;
                }
            } else if wants_bias {
                let rows = dy.reshaped::<ndarray::Ix2>(&[at.rows, n])?;
                flow.give(2, rows.sum_modes(&[0])?.into_dyn())?;
            }
            if flow.needs(0) {
                let dx = channels::affine(at, dy.flat(), (None, a.flat(), None))?;
                flow.give(0, Tensor::row_major(dx, &shape))?;
            }
            Ok(())
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
        for shape in [&[3, 4][..], &[5], &[2, 3, 33], &[70, 1], &[0, 3], &[2, 0]] {
            let n = shape[shape.len() - 1];
            let (x, a, b) = (normal(shape, 1), normal(&[n], 2), normal(&[n], 3));
            for (x, a) in [(x.clone(), a.clone()), (reversed(&x), reversed(&a))] {
                let (flat, scale, bias) = (x.to_vec().unwrap(), a.to_vec().unwrap(), b.to_vec().unwrap());
                let product = |i: usize| scale[i % n] * flat[i];
                let [xv, av, bv] = [&x, &a, &b].map(|v| Var::constant(v.clone()));
                let expected: Vec<f64> = (0..flat.len()).map(|i| product(i) + bias[i % n]).collect();
                close(&xv.affine(&av, Some(&bv)).unwrap().value().to_vec().unwrap(), &expected, 1e-14);
                let expected: Vec<f64> = (0..flat.len()).map(product).collect();
                close(&xv.affine(&av, None).unwrap().value().to_vec().unwrap(), &expected, 1e-14);
                let all = [x.clone(), a.clone(), b.clone()];
                check_gradients(&all, 1e-6, |v| v[0].affine(&v[1], Some(&v[2]))).unwrap();
                check_gradients(&all[..2], 1e-6, |v| v[0].affine(&v[1], None)).unwrap();
                check_gradients(&[x, b.clone()], 1e-6, |v| v[0].affine(&av, Some(&v[1]))).unwrap();
            }
        }
    }

    #[test]
    fn errors_name_the_shapes() {
        let v = |shape: &[usize]| Var::constant(normal(shape, 1));
        assert_eq!(
            v(&[2, 3]).affine(&v(&[2]), None).unwrap_err().to_string(),
            "affine: a scale of shape [2] for an input of shape [2, 3]; needs [3]"
        );
        assert!(v(&[2, 3]).affine(&v(&[3]), Some(&v(&[1]))).is_err());
        assert!(v(&[]).affine(&v(&[1]), None).is_err());
    }
}
