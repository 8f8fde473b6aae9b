//! Entry by entry: sums, products, quotients with broadcasting; square, root, absolute value.
//!
//! For $y = f(a, b)$, entry by entry, $da = \frac{\partial f}{\partial a}\\, dy$ and the same for $b$:
//!
//! | $y$ | $da$ | $db$ |
//! |---|---|---|
//! | $a + b$ | $dy$ | $dy$ |
//! | $a - b$ | $dy$ | $-dy$ |
//! | $a b$ | $b\\, dy$ | $a\\, dy$ |
//! | $a / b$ | $dy / b$ | $-y\\, dy / b$ |
//! | $a^2$ | $2 a\\, dy$ | |
//! | $\sqrt a$ | $dy / (2 y)$ | |
//! | $\lvert a \rvert$ | $\mathrm{sign}(a)\\, dy$ | |
//!
//! A mode of size 1 is repeated to the size it has in the other operand, and shapes of different orders are aligned at the last
//! mode (NumPy's rule). An entry that was used several times gets the sum of the gradients of its uses: back over a
//! repeated mode, gradients are summed. For a product that sum is taken without forming the product.

use super::super::{Saved, Var};
use crate::{
    device::{elementwise::Binary, layout::Modes, reduce},
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;

type Dyn<T> = Tensor<T, IxDyn>;

/// The shape that both operands broadcast to.
pub(super) fn common_shape(operation: &'static str, a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let order = a.len().max(b.len());
    let size = |shape: &[usize], m: usize| (m + shape.len()).checked_sub(order).map_or(1, |m| shape[m]);
    (0..order)
        .map(|m| match (size(a, m), size(b, m)) {
            (1, n) => Ok(n),
            (n, k) if k == 1 || k == n => Ok(n),
            _ => {
                let message =
                    format!("shapes {a:?} and {b:?} do not fit; modes, from the last, must be equal, or 1 on one side");
                Err(Error::shape(operation, message))
            }
        })
        .collect()
}

/// Which modes of `shape` are summed to come back to `small`, which broadcasts to it; none where none is.
fn kept_modes(small: &[usize], shape: &[usize]) -> Option<Modes<bool>> {
    let missing = shape.len() - small.len();
    let kept: Modes<bool> = (0..shape.len()).map(|m| m >= missing && small[m - missing] == shape[m]).collect();
    kept.contains(&false).then_some(kept)
}

/// The gradient of an operand of shape `small` that was broadcast to the shape of `gradient`: summed over what was repeated.
pub(super) fn unbroadcast<T: Scalar>(gradient: Dyn<T>, small: &[usize]) -> Result<Dyn<T>> {
    match kept_modes(small, gradient.shape()) {
        None => Ok(gradient),
        Some(kept) => {
            let sums = reduce::sum_modes(gradient.device(), &gradient.storage, &gradient.layout, &kept)?;
            Ok(Tensor::row_major(sums, small))
        }
    }
}

/// `a * b`, of one shape, summed over what was repeated of an operand of shape `small`.
fn product_unbroadcast<T: Scalar>(a: &Dyn<T>, b: &Dyn<T>, small: &[usize]) -> Result<Dyn<T>> {
    match kept_modes(small, a.shape()) {
        None => a.mul(b),
        Some(kept) => {
            let sums = reduce::dot_modes((&a.storage, &a.layout), (&b.storage, &b.layout), &kept)?;
            Ok(Tensor::row_major(sums, small))
        }
    }
}

impl<T: Scalar> Var<T> {
    /// `f` of both operands, broadcast; also the operands as they were seen.
    fn broadcast_binary(&self, operation: &'static str, f: Binary, other: &Self) -> Result<[Dyn<T>; 3]> {
        self.device().check_same(other.device(), operation)?;
        let shape = common_shape(operation, self.shape(), other.shape())?;
        let (a, b) = (self.value().broadcast_to(shape.clone())?, other.value().broadcast_to(shape)?);
        Ok([a.binary(operation, f, &b)?, a, b])
    }

    fn unary(
        &self,
        operation: &'static str,
        value: Dyn<T>,
        back: Binary,
        save: impl FnOnce(&Dyn<T>) -> Result<Saved<T>>,
    ) -> Result<Self> {
        let saved = Self::records(&[self]).then(|| save(&value)).transpose()?;
        Ok(Self::record(operation, value, &[self], move |dy, flow| {
            let Some(saved) = saved else { return Ok(()) };
            flow.give(0, dy.binary(operation, back, saved.get())?)
        }))
    }

    /// The entrywise sum; modes of size 1 are repeated, and shapes are aligned at the last mode.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let x = Var::parameter(Tensor::from(array![[1.0, 2.0], [3.0, 4.0]]));
    /// let b = Var::parameter(Tensor::from(array![10.0, 20.0]));
    /// let y = x.add(&b)?;
    /// assert_eq!(y.value().to_vec()?, [11.0, 22.0, 13.0, 24.0]);
    /// assert_eq!(y.sum()?.backward()?.of(&b)?.to_vec()?, [2.0, 2.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the shapes do not fit,
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) where the operands live in different places.
    pub fn add(&self, other: &Self) -> Result<Self> {
        let [y, ..] = self.broadcast_binary("add", Binary::Add, other)?;
        let shapes = [self, other].map(|v| v.shape().to_vec());
        Ok(Self::record("add", y, &[self, other], move |dy, flow| {
            for (i, shape) in shapes.iter().enumerate() {
                if flow.needs(i) {
                    flow.give(i, unbroadcast(dy.clone(), shape)?)?;
                }
            }
            Ok(())
        }))
    }

    /// The entrywise difference, broadcast as [`add`](Var::add) does.
    ///
    /// # Errors
    /// As [`add`](Var::add).
    pub fn sub(&self, other: &Self) -> Result<Self> {
        let [y, ..] = self.broadcast_binary("sub", Binary::Sub, other)?;
        let shapes = [self, other].map(|v| v.shape().to_vec());
        Ok(Self::record("sub", y, &[self, other], move |dy, flow| {
            if flow.needs(1) {
                flow.give(1, unbroadcast(dy.clone(), &shapes[1])?.scale(-T::one())?)?;
            }
            if flow.needs(0) {
                flow.give(0, unbroadcast(dy, &shapes[0])?)?;
            }
            Ok(())
        }))
    }

    /// The entrywise (Hadamard) product, broadcast as [`add`](Var::add) does.
    ///
    /// # Errors
    /// As [`add`](Var::add).
    pub fn mul(&self, other: &Self) -> Result<Self> {
        let [y, a, b] = self.broadcast_binary("mul", Binary::Mul, other)?;
        let shapes = [self, other].map(|v| v.shape().to_vec());
        let records = Self::records(&[self, other]);
        let a = (records && other.needs_gradient()).then(|| Saved::operand(self, &a)).transpose()?;
        let b = (records && self.needs_gradient()).then(|| Saved::operand(other, &b)).transpose()?;
        Ok(Self::record("mul", y, &[self, other], move |dy, flow| {
            for (i, (of_other, shape)) in [b, a].into_iter().zip(&shapes).enumerate() {
                if let (true, Some(of_other)) = (flow.needs(i), of_other) {
                    flow.give(i, product_unbroadcast(&dy, of_other.get(), shape)?)?;
                }
            }
            Ok(())
        }))
    }

    /// The entrywise quotient, broadcast as [`add`](Var::add) does. Division by zero gives infinities and NaN, as for plain numbers.
    ///
    /// # Errors
    /// As [`add`](Var::add).
    pub fn div(&self, other: &Self) -> Result<Self> {
        let [y, _, b] = self.broadcast_binary("div", Binary::Div, other)?;
        let shapes = [self, other].map(|v| v.shape().to_vec());
        let records = Self::records(&[self, other]);
        let b = records.then(|| Saved::operand(other, &b)).transpose()?;
        let result = (records && other.needs_gradient()).then(|| Saved::result(&y)).transpose()?;
        Ok(Self::record("div", y, &[self, other], move |dy, flow| {
            let Some(b) = b else { return Ok(()) };
            let da = dy.div(b.get())?;
            if let (true, Some(y)) = (flow.needs(1), result) {
                flow.give(1, product_unbroadcast(&da, y.get(), &shapes[1])?.scale(-T::one())?)?;
            }
            if flow.needs(0) {
                flow.give(0, unbroadcast(da, &shapes[0])?)?;
            }
            Ok(())
        }))
    }

    /// Every entry times a number.
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn scale(&self, factor: T) -> Result<Self> {
        let y = self.value().scale(factor)?;
        Ok(Self::record("scale", y, &[self], move |dy, flow| flow.give(0, dy.scale(factor)?)))
    }

    /// Every entry plus a number.
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn shift(&self, term: T) -> Result<Self> {
        let y = self.value().shift(term)?;
        Ok(Self::record("shift", y, &[self], |dy, flow| flow.give(0, dy)))
    }

    /// Every entry with the other sign.
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn neg(&self) -> Result<Self> {
        self.scale(-T::one())
    }

    /// The square of every entry.
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn square(&self) -> Result<Self> {
        let x = self.value();
        self.unary("square", x.mul(x)?, Binary::Twice, |_| Saved::operand(self, x))
    }

    /// The square root of every entry; NaN where it is negative, and an infinite gradient where it is 0.
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn sqrt(&self) -> Result<Self> {
        self.unary("sqrt", self.value().sqrt()?, Binary::Half, Saved::result)
    }

    /// The absolute value of every entry; the gradient at 0 is 0.
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn abs(&self) -> Result<Self> {
        let x = self.value();
        self.unary("abs", x.abs()?, Binary::Signed, |_| Saved::operand(self, x))
    }

    /// The reciprocal of every entry.
    ///
    /// # Errors
    /// Only where a device fails.
    pub fn recip(&self) -> Result<Self> {
        let y = self.value().recip()?;
        let saved = Self::records(&[self]).then(|| Saved::result(&y)).transpose()?;
        Ok(Self::record("recip", y, &[self], move |dy, flow| {
            let Some(saved) = saved.map(Saved::into_tensor) else { return Ok(()) };
            // In this order: the square of a result may overflow where the gradient does not.
            flow.give(0, dy.mul(&saved)?.mul(&saved)?.scale(-T::one())?)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::{check_gradients, testing::normal};

    /// Shapes that broadcast to each other: equal, repeated on either side or both, aligned at the end, single numbers.
    const SHAPES: [(&[usize], &[usize]); 9] = [
        (&[3, 4], &[3, 4]),
        (&[3, 4], &[4]),
        (&[1, 4], &[3, 1]),
        (&[5], &[2, 3, 5]),
        (&[2, 1, 3], &[1, 4, 1]),
        (&[], &[2, 3]),
        (&[], &[]),
        (&[70, 9], &[1, 9]),
        (&[2, 9, 3], &[9, 1]),
    ];

    #[test]
    fn gradients_are_summed_over_what_was_repeated() {
        for (i, (a, b)) in SHAPES.into_iter().enumerate() {
            let a = normal(a, i as u64);
            // Away from 0, where a quotient has its pole.
            let b = normal(b, i as u64 + 50).abs().unwrap().shift(0.5).unwrap();
            type Operation = fn(&Var<f64>, &Var<f64>) -> Result<Var<f64>>;
            for f in [Var::add as Operation, Var::sub, Var::mul, Var::div] {
                check_gradients(&[a.clone(), b.clone()], 1e-6, |v| f(&v[0], &v[1])).unwrap();
            }
            check_gradients(&[b, a], 1e-6, |v| v[1].mul(&v[0])?.sub(&v[0])).unwrap();
        }
    }

    #[test]
    fn one_operand_may_be_constant() {
        let (a, b) = (normal(&[3, 4], 1), normal(&[4], 2).abs().unwrap().shift(0.5).unwrap());
        let (ca, cb) = (Var::constant(a.clone()), Var::constant(b.clone()));
        type Operation = fn(&Var<f64>, &Var<f64>) -> Result<Var<f64>>;
        for f in [Var::add as Operation, Var::sub, Var::mul, Var::div] {
            check_gradients(std::slice::from_ref(&a), 1e-6, |v| f(&v[0], &cb)).unwrap();
            check_gradients(std::slice::from_ref(&b), 1e-6, |v| f(&ca, &v[0])).unwrap();
        }
    }

    #[test]
    fn of_one_operand() {
        for shape in [&[3, 5][..], &[1], &[], &[0, 2]] {
            // Away from the kink and the poles at 0.
            let x = normal(shape, 7).map(|x| if x < 0.0 { x - 0.5 } else { x + 0.5 }).unwrap();
            type Operation = fn(&Var<f64>) -> Result<Var<f64>>;
            for f in [Var::square as Operation, Var::abs, Var::neg, Var::recip, |x| x.scale(3.0), |x| x.shift(3.0)] {
                check_gradients(std::slice::from_ref(&x), 1e-6, |v| f(&v[0])).unwrap();
            }
            check_gradients(&[x.abs().unwrap()], 1e-6, |v| v[0].sqrt()).unwrap();
        }
        let x = normal(&[4, 3], 1).permute(&[1, 0]).unwrap();
        check_gradients(&[x], 1e-6, |v| v[0].square()?.permute(&[1, 0])).unwrap();
    }

    #[test]
    fn an_absolute_value_is_flat_at_zero() {
        let x = Var::parameter(Tensor::from(ndarray::array![-2.0, 0.0, 3.0]));
        let dx = x.abs().unwrap().sum().unwrap().backward().unwrap();
        assert_eq!(dx.of(&x).unwrap().to_vec().unwrap(), [-1.0, 0.0, 1.0]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        let (a, b) = (Var::constant(normal(&[3, 4], 1)), Var::constant(normal(&[3], 1)));
        let error = a.mul(&b).unwrap_err().to_string();
        assert_eq!(
            error,
            "mul: shapes [3, 4] and [3] do not fit; modes, from the last, must be equal, or 1 on one side"
        );
    }
}
