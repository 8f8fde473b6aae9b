//! A linear layer: $Y = X W^T + b$.
//!
//! $X$ has rows of length `in` along any leading modes, $W$ is `[out, in]` as PyTorch stores it, $b$ is `[out]`. Back:
//!
//! $$dW = dY^T X, \qquad dX = dY\\, W, \qquad db_j = \sum_i dY_{ij}.$$
//!
//! Three matrix products of 2 rows in out flops in all, of which only those that are wanted are computed: a frozen $W$ costs no $dW$.
//! The bias is written into $Y$ first and the product added to it, which saves a pass over $Y$. [`Var::add_linear`] adds a
//! second product in the same way: what a low-rank update contributes.

use super::super::{Flow, Saved, Var};
use crate::{
    device::{
        elementwise,
        gemm::{Gemm, Matrix, gemm},
        layout::{Modes, checked_len},
        reduce,
        storage::Storage,
    },
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Ix2, IxDyn};

type Dyn<T> = Tensor<T, IxDyn>;

/// All leading modes as one: a view where one stride walks the rows, else a copy.
fn rows_of<T: Scalar>(x: &Dyn<T>, width: usize) -> Result<Tensor<T, Ix2>> {
    let count = x.shape()[..x.order() - 1].iter().product();
    x.reshaped(&[count, width])
}

/// `A B`, with the result of shape `shape`; on top of `start` where there is one.
fn product<T: Scalar>(
    a: &Tensor<T, Ix2>,
    b: &Tensor<T, Ix2>,
    shape: &[usize],
    start: Option<Storage<T>>,
) -> Result<Dyn<T>> {
    let ([m, k], n) = ([a.shape()[0], a.shape()[1]], b.shape()[1]);
    let beta = if start.is_some() { T::one() } else { T::zero() };
    let mut out = match start {
        Some(out) => out,
        None => Storage::uninit(a.device(), checked_len("linear", shape)?)?,
    };
    let problem = Gemm {
        m,
        n,
        k,
        a: Matrix::of(&a.layout),
        b: Matrix::of(&b.layout),
        c: Matrix { offset: 0, rows: n as isize, cols: 1 },
        batch: Modes::new(),
        sum: Modes::new(),
        alpha: T::one(),
        beta,
    };
    gemm(a.device(), &problem, &a.storage, &b.storage, &mut out)?;
    Ok(Tensor::row_major(out, shape))
}

/// The input as rows and the weight as a matrix, where they fit.
fn operands<T: Scalar>(
    operation: &'static str,
    input: &Var<T>,
    weight: &Var<T>,
) -> Result<(Tensor<T, Ix2>, Tensor<T, Ix2>)> {
    input.device().check_same(weight.device(), operation)?;
    let fits = weight.order() == 2 && input.order() >= 1 && input.shape().last() == weight.shape().last();
    if !fits {
        let message = format!(
            "an input of shape {:?} and a weight of shape {:?}; needs [.., in] and [out, in]",
            input.shape(),
            weight.shape()
        );
        return Err(Error::shape(operation, message));
    }
    let w: Tensor<T, Ix2> = weight.value().clone().into_order()?;
    Ok((rows_of(input.value(), w.shape()[1])?, w))
}

/// What the gradients of a product need: the input where the weight's is wanted, the weight where the input's is; and their shapes.
struct Kept<T: Scalar> {
    x: Option<Saved<T, Ix2>>,
    w: Option<Saved<T, Ix2>>,
    x_shape: Vec<usize>,
    w_shape: Vec<usize>,
}

impl<T: Scalar> Kept<T> {
    fn of(records: bool, input: &Var<T>, weight: &Var<T>, x: &Tensor<T, Ix2>, w: &Tensor<T, Ix2>) -> Result<Self> {
        Ok(Self {
            x: (records && weight.needs_gradient()).then(|| Saved::operand(input, x)).transpose()?,
            w: (records && input.needs_gradient()).then(|| Saved::operand(weight, w)).transpose()?,
            x_shape: input.shape().to_vec(),
            w_shape: weight.shape().to_vec(),
        })
    }

    /// Hands operand `at` the gradient of the input, and the next one that of the weight.
    fn give(self, dy: &Tensor<T, Ix2>, at: usize, flow: &mut Flow<'_, T>) -> Result<()> {
        if let (true, Some(x)) = (flow.needs(at + 1), self.x) {
            flow.give(at + 1, product(&dy.t(), x.get(), &self.w_shape, None)?)?;
        }
        if let (true, Some(w)) = (flow.needs(at), self.w) {
            flow.give(at, product(dy, w.get(), &self.x_shape, None)?)?;
        }
        Ok(())
    }
}

impl<T: Scalar> Var<T> {
    /// A linear layer, `x W^T + b`: x `[.., in]`, W `[out, in]`, b `[out]`, result `[.., out]`.
    ///
    /// 2 rows in out flops; x, W and their gradients are read where they lie, whatever their strides, unless no single stride walks the rows of x.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let x = Var::constant(Tensor::from(array![[1.0, 2.0]]));
    /// let w = Var::parameter(Tensor::from(array![[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]));
    /// let b = Var::parameter(Tensor::from(array![0.5, 0.0, 0.0]));
    /// let y = x.linear(&w, Some(&b))?;
    /// assert_eq!(y.value().to_vec()?, [1.5, 2.0, 3.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the sizes do not fit,
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) where the operands live in different places.
    pub fn linear(&self, weight: &Self, bias: Option<&Self>) -> Result<Self> {
        let (x, w) = operands("linear", self, weight)?;
        let mut shape = self.shape().to_vec();
        let last = shape.len() - 1;
        shape[last] = w.shape()[0];
        let start = match bias {
            None => None,
            Some(bias) => {
                self.device().check_same(bias.device(), "linear")?;
                if bias.shape() != &shape[last..] {
                    let message = format!("a bias of shape {:?} for a weight of shape {:?}", bias.shape(), w.shape());
                    return Err(Error::shape("linear", message));
                }
                checked_len("linear", &shape)?;
                let repeated = bias.value().broadcast_to(vec![x.shape()[0], w.shape()[0]])?;
                Some(elementwise::copy(&repeated.storage, &repeated.layout)?)
            }
        };
        let operands = [self, weight, bias.unwrap_or(self)];
        let count = if bias.is_some() { 3 } else { 2 };
        let kept = Kept::of(Self::records(&operands[..count]), self, weight, &x, &w)?;
        let y = product(&x, &w.t(), &shape, start)?;
        Ok(Self::record("linear", y, &operands[..count], move |dy, flow| {
            let dy = rows_of(&dy, kept.w_shape[0])?;
            if count == 3 && flow.needs(2) {
                let sums = reduce::sum_modes(dy.device(), &dy.storage, &dy.layout, &[false, true])?;
                flow.give(2, Tensor::row_major(sums, &kept.w_shape[..1]))?;
            }
            kept.give(&dy, 0, flow)
        }))
    }

    /// `self + x W^T`: x `[.., in]`, W `[out, in]`, self and the result `[.., out]`.
    ///
    /// The product is added where the sum lies: this variable's memory is taken over where nothing else holds it, and copied
    /// otherwise. That is one pass over the result, where a product of its own and an addition are three.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let x = Var::constant(Tensor::from(array![[1.0, 2.0]]));
    /// let w = Var::parameter(Tensor::from(array![[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]));
    /// let y = Var::constant(Tensor::from(array![[10.0, 20.0, 30.0]]));
    /// assert_eq!(y.add_linear(&x, &w)?.value().to_vec()?, [11.0, 22.0, 33.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the sizes do not fit,
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) where the operands live in different places.
    pub fn add_linear(self, x: &Self, weight: &Self) -> Result<Self> {
        let (rows, w) = operands("add_linear", x, weight)?;
        self.device().check_same(x.device(), "add_linear")?;
        let shape = self.shape().to_vec();
        let (lead, last) = (&x.shape()[..x.order() - 1], w.shape()[0]);
        if shape != [lead, &[last]].concat() {
            let message = format!("a sum of shape {shape:?} for a product of shape {lead:?} x {last}");
            return Err(Error::shape("add_linear", message));
        }
        let (sum, place) = self.into_parts();
        let start = match sum.layout.contiguous_range() {
            Some(range) if range.start == 0 => sum.storage,
            _ => elementwise::copy(&sum.storage, &sum.layout)?,
        };
        let kept = Kept::of(Self::records(&[x, weight]), x, weight, &rows, &w)?;
        let y = product(&rows, &w.t(), &shape, Some(start))?;
        let before = Self::from_parts(y.clone(), place);
        Ok(Self::record("add_linear", y, &[&before, x, weight], move |dy, flow| {
            let rows = rows_of(&dy, kept.w_shape[0])?;
            kept.give(&rows, 1, flow)?;
            flow.give(0, dy)
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
        for (lead, input, output) in
            [(&[3][..], 4, 5), (&[2, 3], 1, 1), (&[], 4, 3), (&[2, 1, 3], 5, 2), (&[0], 3, 2), (&[40], 3, 17)]
        {
            let x = normal(&[lead, &[input]].concat(), 1);
            let (w, b) = (normal(&[output, input], 2), normal(&[output], 3));
            for (x, w) in [(x.clone(), w.clone()), (reversed(&x), reversed(&w))] {
                let y = Var::constant(x.clone()).linear(&w.clone().into(), Some(&b.clone().into())).unwrap();
                assert_eq!(y.shape(), [lead, &[output]].concat());
                let (flat, weight) = (x.to_vec().unwrap(), w.to_vec().unwrap());
                let bias = b.to_vec().unwrap();
                let row = |r: usize, o: usize| -> f64 {
                    (0..input).map(|i| flat[r * input + i] * weight[o * input + i]).sum::<f64>() + bias[o]
                };
                let expected: Vec<f64> = (0..y.len()).map(|i| row(i / output, i % output)).collect();
                close(&y.value().to_vec().unwrap(), &expected, 1e-13);
                check_gradients(&[x.clone(), w.clone(), b.clone()], 1e-6, |v| v[0].linear(&v[1], Some(&v[2]))).unwrap();
                check_gradients(&[x, w], 1e-6, |v| v[0].linear(&v[1], None)).unwrap();
            }
        }
    }

    #[test]
    fn a_product_is_added_where_the_sum_lies() {
        for (lead, input, output) in [(&[3][..], 4, 5), (&[2, 3], 1, 1), (&[], 4, 3), (&[0], 3, 2), (&[40], 3, 17)] {
            let y = normal(&[lead, &[output]].concat(), 1);
            let (x, w) = (normal(&[lead, &[input]].concat(), 2), normal(&[output, input], 3));
            let product = Var::constant(x.clone()).linear(&w.clone().into(), None).unwrap();
            let wanted = product.value().add(&y).unwrap().to_vec().unwrap();
            let added = |y: Var<f64>| y.add_linear(&x.clone().into(), &w.clone().into()).unwrap();
            // One owner, a second one (which keeps its numbers), and a sum that is no block of its own.
            let held = y.to_contiguous().unwrap();
            close(&added(Var::constant(held.clone())).value().to_vec().unwrap(), &wanted, 1e-13);
            assert_eq!(held.to_vec().unwrap(), y.to_vec().unwrap());
            close(&added(Var::constant(held)).value().to_vec().unwrap(), &wanted, 1e-13);
            close(&added(Var::constant(reversed(&y))).value().to_vec().unwrap(), &wanted, 1e-13);
            check_gradients(&[y, x, w], 1e-6, |v| v[0].clone().add_linear(&v[1], &v[2])).unwrap();
        }
        let sum = Var::constant(Tensor::<f64, _>::ones([4, 2]).unwrap());
        let before = sum.value().storage.host("test").unwrap().as_ptr();
        let [x, w] = [[4, 3], [2, 3]].map(|shape| Var::constant(Tensor::ones(shape).unwrap()));
        let after = sum.add_linear(&x, &w).unwrap();
        assert_eq!(after.value().storage.host("test").unwrap().as_ptr(), before);
        let error = after.add_linear(&w, &x).unwrap_err().to_string();
        assert_eq!(error, "add_linear: a sum of shape [4, 2] for a product of shape [2] x 4");
    }

    #[test]
    fn rows_that_one_stride_walks_are_not_copied() {
        let x = normal(&[4, 6, 5], 1);
        let cut = x.narrow(2, 1..4).unwrap();
        assert_eq!(rows_of(&cut, 3).unwrap().strides(), &[5, 1]);
        assert_eq!(rows_of(&normal(&[3, 4], 1).permute(&[1, 0]).unwrap(), 3).unwrap().strides(), &[1, 4]);
    }

    #[test]
    fn errors_name_the_shapes() {
        let v = |shape: &[usize]| Var::constant(normal(shape, 1));
        assert_eq!(
            v(&[2, 3]).linear(&v(&[3, 2]), None).unwrap_err().to_string(),
            "linear: an input of shape [2, 3] and a weight of shape [3, 2]; needs [.., in] and [out, in]"
        );
        let error = v(&[2, 3]).linear(&v(&[4, 3]), Some(&v(&[3]))).unwrap_err();
        assert_eq!(error.to_string(), "linear: a bias of shape [3] for a weight of shape [4, 3]");
        assert!(v(&[]).linear(&v(&[4, 3]), None).is_err());
    }
}
