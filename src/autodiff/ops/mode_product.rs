//! Mode products and the Tucker format: from the formula of a mode product to its gradient, step by step.
//!
//! # The formula
//!
//! The mode product $Y = X \times_n M$ multiplies every mode-$n$ fibre of $X$, of length $I$, by the matrix $M$ of shape $J \times I$:
//!
//! $$Y_{a j b} = \sum_i M_{j i}\\, X_{a i b},$$
//!
//! where $a$ stands for all indices before mode $n$ and $b$ for all after it. In unfoldings it is a matrix product,
//!
//! $$Y_{(n)} = M\\, X_{(n)}.$$
//!
//! # Its gradient
//!
//! Let $L$ be a number computed from $Y$, and let $dY$, of the shape of $Y$, hold its derivatives $\partial L / \partial Y_{a j b}$.
//! By the chain rule each entry of $X$ collects from all entries of $Y$ that it had a part in. $X_{a i b}$ is in $Y_{a j b}$ for every $j$,
//! with the factor $M_{j i}$:
//!
//! $$dX_{a i b} = \sum_j M_{j i}\\, dY_{a j b}, \qquad\text{that is}\qquad dX = dY \times_n M^T.$$
//!
//! So the way back through a mode product is a mode product with the transposed matrix. An entry $M_{j i}$ is in $Y_{a j b}$ for all $a$ and $b$,
//! with the factor $X_{a i b}$:
//!
//! $$dM_{j i} = \sum_{a, b} dY_{a j b}\\, X_{a i b}, \qquad\text{that is}\qquad dM = dY_{(n)}\\, X_{(n)}^T:$$
//!
//! a contraction of two tensors over all modes but $n$. Both are strided-batched matrix products over the tensors as they lie; no
//! unfolding is formed. Each costs $2 J \lvert X \rvert$ flops, as the forward pass does.
//!
//! # Several modes: Tucker
//!
//! In the Tucker format a tensor is a core $G$ of shape $J_0 \times \cdots \times J_{N-1}$ seen through one factor $A_n$ of shape $I_n \times J_n$ for each mode,
//!
//! $$X = G \times_0 A_0 \times_1 A_1 \cdots \times_{N-1} A_{N-1}.$$
//!
//! In unfoldings that is, with the Kronecker product of all factors but the $n$-th,
//!
//! $$X_{(n)} = A_n\\, G_{(n)} \left( A_0 \otimes \cdots \otimes A_{n-1} \otimes A_{n+1} \otimes \cdots \otimes A_{N-1} \right)^T,$$
//!
//! so by the two rules above, with $\bar A$ for that product, $dA_n = dX_{(n)}\\, \bar A\\, G_{(n)}^T$ and
//!
//! $$dG = dX \times_0 A_0^T \times_1 A_1^T \cdots \times_{N-1} A_{N-1}^T.$$
//!
//! $\bar A$ has as many entries as $X_{(n)}$ and $G_{(n)}$ have columns multiplied together, and is never formed. Mode products over different modes commute, so
//! they are done one after another in the order that costs least (modes that shrink most first, modes that grow most last), giving
//! intermediate tensors $G = X_0, X_1, \ldots, X_N = X$. With $n_k$ for the mode of the $k$-th step, going back from $k = N$ to 1:
//!
//! $$dA_{n_k} = (dX_k)\_{(n_k)}\\, (X_{k-1})\_{(n_k)}^T, \qquad dX_{k-1} = dX_k \times_{n_k} A_{n_k}^T,$$
//!
//! and $dX_0 = dG$. Each step meets tensors half expanded, as on the way forward: all gradients together cost twice the forward pass, and what is
//! saved are the intermediate tensors, each smaller than $X$ where ranks are below sizes.
//!
//! # The same in code
//!
//! ```
//! use rand::SeedableRng;
//! use tenfold::{Tensor, algebra::contract, autodiff::{Var, check_gradients}};
//!
//! let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
//! let x = Tensor::<f64, _>::normal([2, 3, 4], &mut rng)?;
//! let m = Tensor::<f64, _>::normal([5, 3], &mut rng)?;
//! let dy = Tensor::<f64, _>::normal([2, 5, 4], &mut rng)?;
//!
//! // The two formulas.
//! let dx = dy.mode_product(1, &m.t())?;
//! let dm = contract(&dy, &[0, 2], &x, &[0, 2])?;
//!
//! // What the operation delivers.
//! let (vx, vm) = (Var::parameter(x.clone()), Var::parameter(m.clone()));
//! let gradients = vx.mode_product(1, &vm)?.backward_from(dy.into_dyn())?;
//! assert_eq!(gradients.of(&vx)?, &dx.into_dyn());
//! assert_eq!(gradients.of(&vm)?, &dm);
//!
//! // And what finite differences say, of one mode product and of a Tucker tensor whose first rank is above its size.
//! check_gradients(&[x.into_dyn(), m.into_dyn()], 1e-6, |v| v[0].mode_product(1, &v[1]))?;
//! let core = Tensor::normal([3, 2, 2], &mut rng)?.into_dyn();
//! let factors = [[2, 3], [4, 2], [3, 2]].map(|shape| Tensor::normal(shape, &mut rng).map(Tensor::into_dyn));
//! let [a, b, c] = factors;
//! check_gradients(&[core, a?, b?, c?], 1e-6, |v| v[0].tucker(&[&v[1], &v[2], &v[3]]))?;
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! Notation: Kolda and Bader, *Tensor Decompositions and Applications*, SIAM Review 51, 2009, sections 2.5 and 4; unfoldings as in
//! [`algebra`](crate::algebra#the-order-of-an-unfolding).

use super::super::{Saved, Var};
use crate::{
    algebra::{by_cost, contract},
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::Ix2;

/// The value as a matrix, or an error that calls it `what`.
pub(super) fn matrix_of<T: Scalar>(operation: &'static str, what: &str, v: &Var<T>) -> Result<Tensor<T, Ix2>> {
    v.value()
        .clone()
        .into_order()
        .map_err(|_| Error::shape(operation, format!("{what} has shape {:?}; it has to be a matrix", v.shape())))
}

impl<T: Scalar> Var<T> {
    /// The mode product Y = X x_n M: every mode-n fibre of this tensor, of length I, times M (`J x I`).
    ///
    /// 2 J |X| flops; the gradients of X and M cost as much each. For the derivation see [the page on it](crate::autodiff::ops::mode_product).
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the mode does not exist, or M is no matrix or has another number of
    /// columns; [`ErrorKind::Device`](crate::ErrorKind::Device) where M is elsewhere.
    pub fn mode_product(&self, mode: usize, matrix: &Self) -> Result<Self> {
        let m = matrix_of("mode_product", "the operand", matrix)?;
        let records = Self::records(&[self, matrix]);
        let x = (records && matrix.needs_gradient()).then(|| Saved::operand(self, self.value())).transpose()?;
        let saved = (records && self.needs_gradient()).then(|| Saved::operand(matrix, &m)).transpose()?;
        let y = self.value().mode_product(mode, &m)?;
        Ok(Self::record("mode_product", y, &[self, matrix], move |dy, flow| {
            if let (true, Some(x)) = (flow.needs(1), x) {
                let x = x.get();
                let others: Vec<usize> = (0..x.order()).filter(|&other| other != mode).collect();
                flow.give(1, contract(&dy, &others, x, &others)?)?;
            }
            if let (true, Some(m)) = (flow.needs(0), saved) {
                flow.give(0, dy.mode_product(mode, &m.get().t())?)?;
            }
            Ok(())
        }))
    }

    /// Several mode products at once, in the order that costs least: those that shrink most go first.
    ///
    /// Products over different modes commute; a mode given twice is multiplied in the order given. Saves the intermediate
    /// tensors; the gradients of all operands together cost twice the forward pass.
    ///
    /// # Errors
    /// As [`mode_product`](Var::mode_product).
    pub fn mode_products(&self, products: &[(usize, &Self)]) -> Result<Self> {
        let sizes: Vec<(usize, [usize; 2])> = products
            .iter()
            .map(|&(mode, m)| {
                Ok((mode, matrix_of("mode_products", "an operand", m)?.shape().try_into().unwrap_or([0; 2])))
            })
            .collect::<Result<_>>()?;
        by_cost(&sizes).into_iter().try_fold(self.clone(), |x, i| x.mode_product(products[i].0, products[i].1))
    }

    /// The tensor in Tucker form that has this core: `core x_0 A_0 x_1 A_1 ..`, with one factor `I_n x J_n` for each mode.
    ///
    /// Ranks may be above sizes, as adapters have them. About 2 J_0 prod I flops where the first mode is expanded last; gradients of core and
    /// all factors cost twice that, and no Kronecker product is formed.
    ///
    /// ```
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let core = Var::parameter(Tensor::<f64, _>::ones([2, 2])?);
    /// let (a, b) = (Var::parameter(Tensor::ones([3, 2])?), Var::parameter(Tensor::ones([4, 2])?));
    /// let x = core.tucker(&[&a, &b])?;
    /// assert_eq!(x.shape(), &[3, 4]);
    /// let gradients = x.sum()?.backward()?;
    /// assert_eq!(gradients.of(&core)?.to_vec()?, [12.0; 4]);
    /// assert_eq!(gradients.of(&a)?.to_vec()?, [8.0; 6]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the number of factors is not the order, or a factor has not as many columns as
    /// the core's mode is long; [`ErrorKind::Device`](crate::ErrorKind::Device) where they live in different places.
    pub fn tucker(&self, factors: &[&Self]) -> Result<Self> {
        if factors.len() != self.order() {
            let message = format!("{} factors for a core of shape {:?}", factors.len(), self.shape());
            return Err(Error::shape("tucker", message));
        }
        for (mode, factor) in factors.iter().enumerate() {
            let columns = matrix_of("tucker", &format!("factor {mode}"), factor)?.shape()[1];
            if columns != self.shape()[mode] {
                let message = format!(
                    "factor {mode} has {columns} columns, but the core of shape {:?} needs {} there",
                    self.shape(),
                    self.shape()[mode]
                );
                return Err(Error::shape("tucker", message));
            }
        }
        self.mode_products(&factors.iter().copied().enumerate().collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        autodiff::{
            check_gradients,
            testing::{close, normal, reversed},
        },
        decomp::Tucker,
    };

    #[test]
    fn one_mode_of_every_order() {
        for shape in [&[3][..], &[1, 4], &[3, 1, 4], &[2, 3, 2, 4], &[2, 1, 3, 2, 2], &[3, 9, 10]] {
            for mode in 0..shape.len() {
                for rows in [1, 5] {
                    let (x, m) = (normal(shape, 1), normal(&[rows, shape[mode]], 2));
                    for (x, m) in [(x.clone(), m.clone()), (reversed(&x), m.clone()), (x.clone(), reversed(&m))] {
                        check_gradients(&[x.clone(), m.clone()], 1e-6, |v| v[0].mode_product(mode, &v[1])).unwrap();
                        let (cx, cm) = (Var::constant(x.clone()), Var::constant(m.clone()));
                        check_gradients(&[x], 1e-6, |v| v[0].mode_product(mode, &cm)?.square()).unwrap();
                        check_gradients(&[m], 1e-6, |v| cx.mode_product(mode, &v[0])?.square()).unwrap();
                    }
                }
            }
        }
        check_gradients(&[normal(&[0, 3], 1), normal(&[2, 3], 1)], 1e-6, |v| v[0].mode_product(1, &v[1])).unwrap();
        check_gradients(&[normal(&[2, 0], 1), normal(&[2, 0], 1)], 1e-6, |v| v[0].mode_product(1, &v[1])).unwrap();
    }

    #[test]
    fn tucker_of_order_one_to_five_with_any_ranks() {
        let cases: [(&[usize], &[usize]); 7] = [
            (&[4], &[3]),
            (&[4], &[6]),
            (&[3, 5], &[2, 2]),
            (&[3, 4, 2], &[5, 1, 2]),
            (&[3, 2, 4], &[2, 3, 5]),
            (&[2, 3, 2, 3], &[3, 2, 1, 2]),
            (&[2, 3, 1, 2, 3], &[2, 2, 2, 1, 4]),
        ];
        for (shape, ranks) in cases {
            let core = normal(ranks, 1);
            let factors: Vec<_> =
                shape.iter().zip(ranks).enumerate().map(|(n, (&i, &j))| normal(&[i, j], n as u64 + 2)).collect();
            let inputs: Vec<_> = std::iter::once(core.clone()).chain(factors.clone()).collect();
            check_gradients(&inputs, 1e-6, |v| v[0].tucker(&v[1..].iter().collect::<Vec<_>>())).unwrap();
            let variables: Vec<Var<f64>> = factors.iter().map(|f| Var::constant(f.clone())).collect();
            let x = Var::constant(core.clone()).tucker(&variables.iter().collect::<Vec<_>>()).unwrap();
            let matrices = factors.into_iter().map(|f| f.into_order().unwrap()).collect();
            let expected = Tucker::new(core, matrices).unwrap().reconstruct().unwrap();
            close(&x.value().to_vec().unwrap(), &expected.to_vec().unwrap(), 1e-14);
        }
    }

    #[test]
    fn products_in_any_order_and_a_mode_twice() {
        let inputs = [normal(&[4, 3, 2], 1), normal(&[2, 4], 2), normal(&[5, 2], 3), normal(&[3, 2], 4)];
        check_gradients(&inputs, 1e-6, |v| v[0].mode_products(&[(0, &v[1]), (2, &v[2]), (0, &v[3])])).unwrap();
        let x = Var::constant(inputs[0].clone());
        assert_eq!(x.mode_products(&[]).unwrap().value(), x.value());
    }

    #[test]
    fn errors() {
        let v = |shape: &[usize]| Var::constant(normal(shape, 1));
        let core = v(&[2, 3]);
        assert_eq!(
            core.tucker(&[&v(&[4, 2])]).unwrap_err().to_string(),
            "tucker: 1 factors for a core of shape [2, 3]"
        );
        assert_eq!(
            core.tucker(&[&v(&[4, 2]), &v(&[4, 2])]).unwrap_err().to_string(),
            "tucker: factor 1 has 2 columns, but the core of shape [2, 3] needs 3 there"
        );
        assert_eq!(
            core.tucker(&[&v(&[4, 2]), &v(&[4])]).unwrap_err().to_string(),
            "tucker: factor 1 has shape [4]; it has to be a matrix"
        );
        assert!(core.mode_product(2, &v(&[2, 2])).is_err() && core.mode_product(0, &v(&[2, 3])).is_err());
        assert!(core.mode_products(&[(0, &v(&[2]))]).is_err());
    }
}
