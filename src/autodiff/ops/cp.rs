//! The CP format: a weighted sum of outer products, and its gradient, the MTTKRP.
//!
//! $$X_{i j \ldots} = \sum_r w_r\\, (A_0)\_{i r} (A_1)\_{j r} \cdots, \qquad
//! X_{(n)} = A_n\\, \mathrm{diag}(w)\\, \bar A_n^T,$$
//!
//! where $\bar A_n$ is the Khatri-Rao product of all factors but the $n$-th. $X_{(n)}$ is linear in $A_n$, so with $M_n = dX_{(n)}\\, \bar A_n$, the
//! *matricized tensor times Khatri-Rao product* of the gradient,
//!
//! $$dA_n = M_n\\, \mathrm{diag}(w), \qquad dw_r = \sum_i (A_n)\_{i r} (M_n)\_{i r} \quad\text{for any one } n.$$
//!
//! (For the weights: $dw_r = \sum dX_{i j \ldots} (A_0)\_{i r} (A_1)\_{j r} \cdots$, and $M_n$ has done all sums but that over mode $n$.)
//! All $M_n$ together cost two passes over $dX$ ([`mttkrp_all`](crate::Tensor::mttkrp_all), a dimension tree), which is what one sweep of the CP
//! solver does; where one factor alone is wanted, one pass. Saved are only the factors.

use super::{super::Var, mode_product::matrix_of};
use crate::{
    algebra::khatri_rao,
    device::reduce,
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Ix2, IxDyn};

impl<T: Scalar> Var<T> {
    /// The tensor in CP form with these factors, each `I_n x R`, and weights of length R, or 1 for each component where there are none.
    ///
    /// 2 R prod I flops; all gradients together about twice that.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let w = Var::parameter(Tensor::from(array![2.0, 1.0]));
    /// let a = Var::parameter(Tensor::from(array![[1.0, 0.0], [0.0, 1.0]]));
    /// let b = Var::parameter(Tensor::from(array![[1.0, 3.0], [1.0, 4.0]]));
    /// let x = Var::cp(Some(&w), &[&a, &b])?;
    /// assert_eq!(x.value().to_vec()?, [2.0, 2.0, 3.0, 4.0]);
    /// assert_eq!(x.sum()?.backward()?.of(&w)?.to_vec()?, [2.0, 7.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where there is no factor, or their columns and the weights are not equally many;
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) where they live in different places.
    pub fn cp(weights: Option<&Self>, factors: &[&Self]) -> Result<Self> {
        let Some(first) = factors.first() else {
            return Err(Error::shape("cp", "no factors; needs one for each mode"));
        };
        let matrices: Vec<Tensor<T, Ix2>> = factors
            .iter()
            .enumerate()
            .map(|(mode, factor)| matrix_of("cp", &format!("factor {mode}"), factor))
            .collect::<Result<_>>()?;
        let rank = matrices[0].shape()[1];
        for (mode, factor) in matrices.iter().enumerate() {
            first.device().check_same(factor.device(), "cp")?;
            if factor.shape()[1] != rank {
                let message = format!("factor {mode} has {} columns, factor 0 has {rank}", factor.shape()[1]);
                return Err(Error::shape("cp", message));
            }
        }
        // As a row, which multiplies columns.
        let row: Option<Tensor<T, Ix2>> = match weights {
            None => None,
            Some(w) => {
                first.device().check_same(w.device(), "cp")?;
                if w.shape() != [rank] {
                    let message = format!("weights of shape {:?} for factors with {rank} columns", w.shape());
                    return Err(Error::shape("cp", message));
                }
                Some(w.value().insert_mode(0)?.into_order()?)
            }
        };
        let weighted = row.as_ref().map_or_else(|| Ok(matrices[0].clone()), |row| matrices[0].mul(row))?;
        let others = match &matrices[1..] {
            [] => Tensor::ones([1, rank])?.to_device(first.device())?,
            rest => khatri_rao(&rest.iter().collect::<Vec<_>>())?,
        };
        let shape: Vec<usize> = matrices.iter().map(|factor| factor.shape()[0]).collect();
        let x: Tensor<T, IxDyn> = weighted.matmul(&others.t())?.reshaped(&shape)?;
        let operands: Vec<&Self> = factors.iter().copied().chain(weights).collect();
        Ok(Self::record("cp", x, &operands, move |dx, flow| {
            let order = matrices.len();
            let wanted: Vec<usize> = (0..order).filter(|&mode| flow.needs(mode)).collect();
            let products: Vec<(usize, Tensor<T, Ix2>)> = match wanted[..] {
                [] => vec![(0, dx.mttkrp(0, &matrices)?)],
                [mode] => vec![(mode, dx.mttkrp(mode, &matrices)?)],
                _ => dx.mttkrp_all(&matrices)?.into_iter().enumerate().collect(),
            };
            if flow.needs(order)
                && let Some((mode, m)) = products.first()
            {
                let a = &matrices[*mode];
                let sums = reduce::dot_modes((&a.storage, &a.layout), (&m.storage, &m.layout), &[false, true])?;
                flow.give(order, Tensor::row_major(sums, &[rank]))?;
            }
            for (mode, m) in products {
                let da = row.as_ref().map_or_else(|| Ok(m.clone()), |row| m.mul(row))?;
                flow.give(mode, da.into_dyn())?;
            }
            Ok(())
        }))
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
        decomp::Cp,
    };

    #[test]
    fn order_one_to_five_with_any_rank() {
        for shape in [&[4][..], &[3, 5], &[3, 1, 4], &[2, 3, 2, 3], &[2, 3, 1, 2, 2]] {
            for rank in [1, 2, 6] {
                let w = normal(&[rank], 9);
                let factors: Vec<_> =
                    shape.iter().enumerate().map(|(n, &i)| normal(&[i, rank], n as u64 + 2)).collect();
                check_gradients(&factors, 1e-6, |v| Var::cp(None, &v.iter().collect::<Vec<_>>())).unwrap();
                let mut all: Vec<_> = factors.iter().map(reversed).collect();
                all.push(w.clone());
                check_gradients(&all, 1e-6, |v| {
                    let (w, factors) = v.split_last().unwrap();
                    Var::cp(Some(w), &factors.iter().collect::<Vec<_>>())?.square()
                })
                .unwrap();
                // One operand alone.
                let constant: Vec<Var<f64>> = all.iter().cloned().map(Var::constant).collect();
                for i in 0..all.len() {
                    check_gradients(&all[i..i + 1], 1e-6, |v| {
                        let at = |j: usize| if j == i { &v[0] } else { &constant[j] };
                        Var::cp(Some(at(shape.len())), &(0..shape.len()).map(at).collect::<Vec<_>>())
                    })
                    .unwrap();
                }
                let x = Var::cp(Some(&constant[shape.len()]), &constant[..shape.len()].iter().collect::<Vec<_>>());
                let matrices = factors.into_iter().map(|f| f.into_order().unwrap()).collect();
                let expected: Cp<f64> = Cp::new(w.into_order().unwrap(), matrices).unwrap();
                let expected = expected.reconstruct().unwrap().to_vec().unwrap();
                close(&x.unwrap().value().to_vec().unwrap(), &expected, 1e-14);
            }
        }
    }

    #[test]
    fn errors() {
        let v = |shape: &[usize]| Var::constant(normal(shape, 1));
        assert!(Var::<f64>::cp(None, &[]).is_err());
        let error = Var::cp(None, &[&v(&[3, 2]), &v(&[3, 4])]).unwrap_err();
        assert_eq!(error.to_string(), "cp: factor 1 has 4 columns, factor 0 has 2");
        let error = Var::cp(Some(&v(&[3])), &[&v(&[3, 2])]).unwrap_err();
        assert_eq!(error.to_string(), "cp: weights of shape [3] for factors with 2 columns");
        assert_eq!(
            Var::cp(None, &[&v(&[3])]).unwrap_err().to_string(),
            "cp: factor 0 has shape [3]; it has to be a matrix"
        );
    }
}
