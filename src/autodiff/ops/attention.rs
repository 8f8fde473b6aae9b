//! Scaled dot-product attention.
//!
//! For q `[B, H, N, d]`, k `[B, H, M, d]`, v `[B, H, M, e]`, and terms that broadcast to `[B, H, N, M]`:
//!
//! $$S = s\,Q K^T + \text{mask} + \text{bias}, \qquad P = \operatorname{softmax}(S), \qquad O = P V.$$
//!
//! A thread computes a block of rows of S, turns it into P and multiplies it with V while it is in the cache; S and P are never
//! there as a whole. What is kept for the way back is $\ell = \ln \sum e^S$ for each row, from which blocks of P are computed
//! again:
//!
//! $$P = e^{S - \ell}, \quad dV = P^T dO, \quad dS = P\,(dO\,V^T - \langle dO, O\rangle_{row}), \quad
//! dQ = s\,dS\,K, \quad dK = s\,dS^T Q, \quad d\,\text{bias} = dS.$$
//!
//! Forward is 2 B H N M (d + e) flops, back 2 B H N M (3 d + 2 e). All operands are read where they lie, and results and
//! gradients lie as q, k and v do: with views of projections `[B, N, H d]` nothing is copied on either side. A row of nothing but
//! $-\infty$ (all masked) attends to nothing: zeros, with gradients of zero, where PyTorch's plain formula has NaN.
//!
//! A. Vaswani et al., *Attention Is All You Need*, NeurIPS 2017; T. Dao et al., *FlashAttention*, NeurIPS 2022.

use super::{
    super::{Saved, Var},
    dropout::checked,
};
use crate::{
    device::{
        attention::{self, Problem},
        dropout::Drop,
        layout::Layout,
    },
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Dimension, IxDyn};

/// What [`Var::attention`] can do besides: a mask, a bias, another scale, dropout.
///
/// ```
/// use ndarray::array;
/// use tenfold::{Tensor, autodiff::{Attention, Var}};
///
/// let q = Var::parameter(Tensor::<f64, _>::ones([1, 1, 2, 4])?);
/// // The first query sees the first key only.
/// let causal = Tensor::from(array![[0.0, f64::NEG_INFINITY], [0.0, 0.0]]);
/// let y = q.attention(&q, &q, &Attention::new().mask(&causal).dropout(0.1, 7, 0))?;
/// assert_eq!(y.shape(), q.shape());
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Clone)]
pub struct Attention<T: Scalar> {
    mask: Option<Tensor<T, IxDyn>>,
    bias: Option<Var<T>>,
    scale: Option<f64>,
    dropout: Option<(f64, u64, u64)>,
}

impl<T: Scalar> Default for Attention<T> {
    fn default() -> Self {
        Self { mask: None, bias: None, scale: None, dropout: None }
    }
}

impl<T: Scalar> Attention<T> {
    /// No mask, no bias, a scale of $1 / \sqrt d$, no dropout.
    pub fn new() -> Self {
        Self::default()
    }

    /// Added to the scores: $-\infty$ where a query must not see a key. Broadcasts to `[B, H, N, M]`.
    pub fn mask<D: Dimension>(mut self, mask: &Tensor<T, D>) -> Self {
        self.mask = Some(mask.to_dyn());
        self
    }

    /// Added to the scores too, with a gradient: relative positions. Broadcasts to `[B, H, N, M]`.
    pub fn bias(mut self, bias: &Var<T>) -> Self {
        self.bias = Some(bias.clone());
        self
    }

    /// What `q k^T` is multiplied with.
    pub fn scale(mut self, scale: f64) -> Self {
        self.scale = Some(scale);
        self
    }

    /// Dropout of the probabilities, by the rules of [`Var::dropout`]: positions count through `[B, H, N, M]`.
    pub fn dropout(mut self, probability: f64, seed: u64, step: u64) -> Self {
        self.dropout = Some((probability, seed, step));
        self
    }
}

/// What both directions need.
struct Operands<T: Scalar> {
    q: Tensor<T, IxDyn>,
    k: Tensor<T, IxDyn>,
    v: Tensor<T, IxDyn>,
    /// Broadcast to the scores.
    terms: Vec<Tensor<T, IxDyn>>,
    scale: T,
    drop: Option<Drop>,
}

impl<T: Scalar> Operands<T> {
    /// The same as it is kept for the way back, of these variables. Terms stay as they are: probabilities are computed again with the
    /// logarithms of the sums that the same terms are in.
    fn kept(&self, [q, k, v]: [&Var<T>; 3]) -> Result<Self> {
        let keep = |v: &Var<T>, form: &Tensor<T, IxDyn>| Ok(Saved::operand(v, form)?.into_tensor());
        let (q, k, v) = (keep(q, &self.q)?, keep(k, &self.k)?, keep(v, &self.v)?);
        Ok(Self { q, k, v, terms: self.terms.clone(), ..*self })
    }

    fn problem(&self) -> Problem<'_, T> {
        fn at<T: Scalar>(x: &Tensor<T, IxDyn>) -> attention::Operand<'_, T> {
            (&x.storage, &x.layout)
        }
        Problem {
            q: at(&self.q),
            k: at(&self.k),
            v: at(&self.v),
            terms: self.terms.iter().map(at).collect(),
            scale: self.scale,
            drop: self.drop,
        }
    }
}

fn fits(q: &[usize], k: &[usize], v: &[usize]) -> bool {
    match (q, k, v) {
        (&[b, h, _, d], &[kb, kh, m, kd], &[vb, vh, vm, _]) => (b, h, d) == (kb, kh, kd) && (b, h, m) == (vb, vh, vm),
        _ => false,
    }
}

impl<T: Scalar> Var<T> {
    /// Scaled dot-product attention of queries `[B, H, N, d]`, keys `[B, H, M, d]` and values `[B, H, M, e]`; the result is
    /// `[B, H, N, e]` and lies in memory as the queries do.
    ///
    /// ```
    /// use tenfold::{Tensor, autodiff::{Attention, Var}};
    ///
    /// // A projection [B, N, H d] seen as [B, H, N, d].
    /// let (batch, length, heads, size) = (2, 5, 3, 4);
    /// let projected = Var::parameter(Tensor::<f32, _>::ones([batch, length, heads * size])?);
    /// let split = projected.reshape([batch, length, heads, size])?.permute(&[0, 2, 1, 3])?;
    /// let y = split.attention(&split, &split, &Attention::new())?;
    /// assert_eq!(y.shape(), [batch, heads, length, size]);
    /// // And back, without a copy.
    /// let joined = y.permute(&[0, 2, 1, 3])?;
    /// assert!(joined.value().is_contiguous());
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the sizes do not fit or a term does not broadcast,
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) for a probability outside 0 to 1,
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) where operands live in different places.
    pub fn attention(&self, k: &Self, v: &Self, options: &Attention<T>) -> Result<Self> {
        const NAME: &str = "attention";
        let q = self;
        q.device().check_same(k.device(), NAME)?;
        q.device().check_same(v.device(), NAME)?;
        if !fits(q.shape(), k.shape(), v.shape()) {
            let message = format!(
                "queries {:?}, keys {:?} and values {:?}; needs [B, H, N, d], [B, H, M, d] and [B, H, M, e]",
                q.shape(),
                k.shape(),
                v.shape()
            );
            return Err(Error::shape(NAME, message));
        }
        let scores = [q.shape()[0], q.shape()[1], q.shape()[2], k.shape()[2]];
        let term = |what: &str, term: &Tensor<T, IxDyn>| -> Result<Tensor<T, IxDyn>> {
            q.device().check_same(term.device(), NAME)?;
            let layout = term.layout.broadcast(&scores).ok_or_else(|| {
                let message = format!("a {what} of shape {:?} for scores of shape {scores:?}", term.shape());
                Error::shape(NAME, message)
            })?;
            Ok(Tensor::new(term.storage.clone(), layout))
        };
        let mut terms = Vec::new();
        if let Some(bias) = &options.bias {
            terms.push(term("bias", bias.value())?);
        }
        if let Some(mask) = &options.mask {
            terms.push(term("mask", mask)?);
        }
        let scale = options.scale.unwrap_or_else(|| 1.0 / (q.shape()[3] as f64).sqrt());
        let drop = match options.dropout {
            Some((probability, seed, step)) => {
                Some(checked(NAME, probability, seed, step)?).filter(|_| probability > 0.0)
            }
            None => None,
        };
        let [q_value, k_value, v_value] = [q, k, v].map(|x| x.value().clone());
        let operands = Operands { q: q_value, k: k_value, v: v_value, terms, scale: T::of(scale), drop };
        let mut inputs = vec![q, k, v];
        inputs.extend(&options.bias);
        let kept = Var::records(&inputs).then(|| operands.kept([q, k, v])).transpose()?;
        let ((block, layout), lse) = attention::forward(&operands.problem())?;
        let y: Tensor<T, IxDyn> = Tensor::new(block, layout);
        let saved = kept.map(|kept| Ok((kept, Saved::result(&y)?.into_tensor()))).transpose()?;
        let bias_shape = options.bias.as_ref().map(|bias| bias.shape().to_vec());
        Ok(Self::record(NAME, y, &inputs, move |dy, flow| {
            let Some((operands, y)) = saved else { return Ok(()) };
            // The bias in the four modes of the scores.
            let full = bias_shape.as_ref().filter(|_| flow.needs(3)).map(|shape| {
                let mut full = vec![1; 4 - shape.len()];
                full.extend(shape);
                full
            });
            let wanted = [0, 1, 2].map(|i| flow.needs(i));
            let (out, dy) = ((&y.storage, &y.layout), (&dy.storage, &dy.layout));
            let (found, bias) = attention::backward(&operands.problem(), out, &lse, dy, wanted, full.as_deref())?;
            for (i, found) in found.into_iter().enumerate() {
                if let Some((block, layout)) = found {
                    flow.give(i, Tensor::new(block, layout))?;
                }
            }
            if let (Some(block), Some(shape)) = (bias, bias_shape) {
                flow.give(3, Tensor::new(block, Layout::contiguous(&shape)))?;
            }
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Device,
        autodiff::{
            check_gradients,
            testing::{close, normal, reversed},
        },
    };

    /// By the definition.
    fn naive(q: &Var<f64>, k: &Var<f64>, v: &Var<f64>, term: Option<&Var<f64>>, scale: f64) -> Result<Var<f64>> {
        let scores = q.matmul(&k.permute(&[0, 1, 3, 2])?)?.scale(scale)?;
        let scores = match term {
            Some(term) => scores.add(term)?,
            None => scores,
        };
        scores.softmax(3)?.matmul(v)
    }

    fn values(x: &Var<f64>) -> Vec<f64> {
        x.value().to_vec().unwrap()
    }

    #[test]
    fn the_formula_and_its_gradients() {
        for [b, h, n, m, d, e] in [
            [1, 1, 1, 1, 1, 1],
            [2, 3, 4, 5, 2, 3],
            [1, 2, 9, 33, 3, 1],
            [2, 1, 3, 1, 4, 2],
            [1, 2, 0, 3, 2, 2],
            [1, 1, 2, 3, 0, 2],
        ] {
            let all = [normal(&[b, h, n, d], 1), normal(&[b, h, m, d], 2), normal(&[b, h, m, e], 3)];
            for all in [all.clone(), all.each_ref().map(reversed)] {
                let [q, k, v] = all.each_ref().map(|x| Var::constant(x.clone()));
                let got = q.attention(&k, &v, &Attention::new().scale(0.7)).unwrap();
                close(&values(&got), &values(&naive(&q, &k, &v, None, 0.7).unwrap()), 1e-13);
                if d > 0 {
                    let options = Attention::new();
                    check_gradients(&all, 1e-6, |v| v[0].attention(&v[1], &v[2], &options)).unwrap();
                }
            }
        }
    }

    #[test]
    fn terms_of_every_shape() {
        let all = [normal(&[2, 3, 4, 2], 1), normal(&[2, 3, 5, 2], 2), normal(&[2, 3, 5, 2], 3)];
        let [q, k, v] = all.each_ref().map(|x| Var::constant(x.clone()));
        let shapes: [&[usize]; 10] = [
            &[2, 3, 4, 5],
            &[1, 3, 4, 5],
            &[2, 1, 4, 5],
            &[4, 5],
            &[2, 1, 1, 5],
            &[1, 1, 4, 1],
            &[],
            &[5],
            &[3, 1, 1],
            &[2, 3, 1, 1],
        ];
        for shape in shapes {
            let term = normal(shape, 4);
            for term in [term.clone(), reversed(&term)] {
                let bias = Var::constant(term.clone());
                let expected = values(&naive(&q, &k, &v, Some(&bias), 0.5).unwrap());
                let options = Attention::new().scale(0.5);
                close(&values(&q.attention(&k, &v, &options.clone().bias(&bias)).unwrap()), &expected, 1e-13);
                close(&values(&q.attention(&k, &v, &options.clone().mask(&term)).unwrap()), &expected, 1e-13);
                let mask = normal(&[1, 3, 1, 5], 5);
                let both = [all[0].clone(), all[1].clone(), all[2].clone(), term];
                let run = |v: &[Var<f64>]| v[0].attention(&v[1], &v[2], &Attention::new().bias(&v[3]).mask(&mask));
                check_gradients(&both, 1e-6, run).unwrap();
            }
        }
    }

    #[test]
    fn threads_and_blocks_of_rows_change_nothing() {
        // 600 keys: blocks of rows do not divide the 150 queries.
        let all = [normal(&[1, 3, 150, 8], 1), normal(&[1, 3, 600, 8], 2), normal(&[1, 3, 600, 8], 3)];
        let term = normal(&[150, 600], 4);
        let run = |threads: usize, fused: bool| {
            let device = Device::cpu().threads(threads);
            let [q, k, v, bias] =
                [&all[0], &all[1], &all[2], &term].map(|x| Var::parameter(x.to_device(&device).unwrap()));
            let y = match fused {
                true => q.attention(&k, &v, &Attention::new().scale(0.3).bias(&bias)).unwrap(),
                false => naive(&q, &k, &v, Some(&bias), 0.3).unwrap(),
            };
            let gradients = y.square().unwrap().sum().unwrap().backward().unwrap();
            let mut found = vec![values(&y)];
            found.extend([&q, &k, &v, &bias].map(|x| gradients.of(x).unwrap().to_vec().unwrap()));
            found
        };
        let expected = run(1, false);
        for threads in [1, 2, 5] {
            let got = run(threads, true);
            got.iter().zip(&expected).for_each(|(got, expected)| close(got, expected, 1e-12));
            assert_eq!(got, run(threads, true));
        }
    }

    #[test]
    fn only_what_is_wanted_has_a_gradient() {
        let all = [normal(&[1, 2, 3, 2], 1), normal(&[1, 2, 4, 2], 2), normal(&[1, 2, 4, 2], 3)];
        for wanted in 0..3 {
            let variables: Vec<Var<f64>> = (0..3)
                .map(|i| if i == wanted { Var::parameter(all[i].clone()) } else { Var::constant(all[i].clone()) })
                .collect();
            let y = variables[0].attention(&variables[1], &variables[2], &Attention::new()).unwrap();
            let gradients = y.sum().unwrap().backward().unwrap();
            assert_eq!(gradients.len(), 1);
            check_gradients(&[all[wanted].clone()], 1e-6, |v| {
                let mut variables = variables.clone();
                variables[wanted] = v[0].clone();
                variables[0].attention(&variables[1], &variables[2], &Attention::new())
            })
            .unwrap();
        }
    }

    #[test]
    fn a_query_that_sees_nothing_gets_nothing() {
        let [q, k, v] = [1, 2, 3].map(|seed| Var::parameter(normal(&[1, 1, 2, 3], seed)));
        let mask = Tensor::from(ndarray::array![[f64::NEG_INFINITY, f64::NEG_INFINITY], [0.0, f64::NEG_INFINITY]]);
        let y = q.attention(&k, &v, &Attention::new().mask(&mask)).unwrap();
        let all = values(&y);
        assert_eq!(all[..3], [0.0; 3]);
        assert_eq!(all[3..], values(&v)[..3]);
        let gradients = y.sum().unwrap().backward().unwrap();
        for x in [&q, &k, &v] {
            assert!(gradients.of(x).unwrap().to_vec().unwrap().iter().all(|g| g.is_finite()));
        }
        assert_eq!(gradients.of(&v).unwrap().to_vec().unwrap(), [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn dropout_is_that_of_the_probabilities() {
        let all = [normal(&[2, 2, 3, 2], 1), normal(&[2, 2, 70, 2], 2), normal(&[2, 2, 70, 2], 3)];
        let [q, k, v] = all.each_ref().map(|x| Var::constant(x.clone()));
        let options = Attention::new().scale(1.0).dropout(0.4, 9, 4);
        let scores = q.matmul(&k.permute(&[0, 1, 3, 2]).unwrap()).unwrap();
        let expected = scores.softmax(3).unwrap().dropout(0.4, 9, 4).unwrap().matmul(&v).unwrap();
        close(&values(&q.attention(&k, &v, &options).unwrap()), &values(&expected), 1e-13);
        check_gradients(&all, 1e-6, |v| v[0].attention(&v[1], &v[2], &options)).unwrap();
    }

    #[test]
    fn views_of_projections_are_not_copied() {
        let split = normal(&[2, 5, 12], 1).reshape([2, 5, 3, 4]).unwrap().permute(&[0, 2, 1, 3]).unwrap().into_dyn();
        let [q, k, v] = [(); 3].map(|()| Var::parameter(split.clone()));
        let y = q.attention(&k, &v, &Attention::new()).unwrap();
        assert_eq!(y.value().strides(), split.strides());
        let gradients = y.sum().unwrap().backward().unwrap();
        for x in [&q, &k, &v] {
            assert_eq!(gradients.of(x).unwrap().strides(), split.strides());
        }
    }

    #[test]
    fn errors_name_the_shapes() {
        let v = |shape: &[usize]| Var::constant(normal(shape, 1));
        let x = v(&[1, 2, 3, 4]);
        assert_eq!(
            x.attention(&v(&[1, 2, 3, 5]), &x, &Attention::new()).unwrap_err().to_string(),
            "attention: queries [1, 2, 3, 4], keys [1, 2, 3, 5] and values [1, 2, 3, 4]; needs [B, H, N, d], [B, H, M, d] and [B, H, M, e]"
        );
        assert!(x.attention(&x, &v(&[1, 2, 4, 4]), &Attention::new()).is_err());
        assert!(v(&[2, 3, 4]).attention(&x, &x, &Attention::new()).is_err());
        let error = x.attention(&x, &x, &Attention::new().bias(&v(&[4]))).unwrap_err();
        assert_eq!(error.to_string(), "attention: a bias of shape [4] for scores of shape [1, 2, 3, 3]");
        assert!(x.attention(&x, &x, &Attention::new().mask(&normal(&[1, 1, 2, 3, 3], 1))).is_err());
        assert!(x.attention(&x, &x, &Attention::new().dropout(1.5, 0, 0)).is_err());
    }
}
