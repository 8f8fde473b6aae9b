//! [`Gradients`]: what a walk back found, added up over several passes; [`Scaled`]: a factor that comes with them.

use super::{backward::Arrived, var::Var};
use crate::{
    device::reduce,
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;
use std::collections::{BTreeMap, btree_map::Entry};

/// What [`Var::backward`] found: one gradient for each parameter that the result depends on.
pub struct Gradients<T: Scalar> {
    /// By the number of the parameter's node.
    pub(super) of: BTreeMap<u64, Arrived<T>>,
}

impl<T: Scalar> Gradients<T> {
    /// The gradient of a parameter; `None` for a constant and for a parameter that the result does not depend on.
    pub fn get(&self, parameter: &Var<T>) -> Option<&Tensor<T, IxDyn>> {
        self.of.get(&parameter.number()?).map(|(_, gradient)| gradient)
    }

    /// The gradient of a parameter.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where there is none.
    pub fn of(&self, parameter: &Var<T>) -> Result<&Tensor<T, IxDyn>> {
        self.get(parameter).ok_or_else(|| {
            let message = format!("no gradient arrived at {parameter:?}: the result does not depend on it");
            Error::new(ErrorKind::Value, "gradient", message)
        })
    }

    /// Takes a parameter's gradient out.
    pub fn take(&mut self, parameter: &Var<T>) -> Option<Tensor<T, IxDyn>> {
        self.of.remove(&parameter.number()?).map(|(_, gradient)| gradient)
    }

    /// The number of gradients.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// The gradients in the order in which their parameters were made.
    pub fn iter(&self) -> impl Iterator<Item = &Tensor<T, IxDyn>> + Clone {
        self.of.values().map(|(_, gradient)| gradient)
    }

    /// Adds the gradients of another pass, in place: those of a batch that goes through in several parts. A parameter that only one of
    /// the passes reached keeps that one's.
    ///
    /// Cost: one pass over the gradients, `self` read and written, `other` read. For the mean of n passes
    /// [scale](Gradients::scaled) the sum by 1 / n, which costs nothing.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Result, Tensor, autodiff::Var};
    ///
    /// let w = Var::parameter(Tensor::from(array![2.0, 3.0]));
    /// let pass = |x: f64| w.scale(x)?.square()?.sum()?.backward();
    /// let mut gradients = pass(1.0)?;
    /// gradients.accumulate(pass(2.0)?)?;
    /// assert_eq!(gradients.of(&w)?.to_vec()?, [4.0 + 16.0, 6.0 + 24.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Device`] and [`ErrorKind::Shape`] where a parameter was moved, or given another shape, between the passes.
    pub fn accumulate(&mut self, other: Self) -> Result<()> {
        other.of.into_iter().try_for_each(|(number, arrived)| match self.of.entry(number) {
            Entry::Occupied(mut sum) => sum.get_mut().1.add_assign(&arrived.1),
            Entry::Vacant(place) => {
                place.insert(arrived);
                Ok(())
            }
        })
    }

    /// These gradients with a factor for all of them, which whoever uses them multiplies in: 1 / n for the mean of n passes. O(1).
    pub fn scaled(self, factor: f64) -> Scaled<T> {
        Scaled { gradients: self, factor }
    }

    /// The Euclidean norm of all gradients together, without overflow or underflow on the way.
    ///
    /// One pass over all of them, added up in double precision and in an order that does not depend on the number of threads.
    pub fn norm(&self) -> Result<f64> {
        norm(self.iter())
    }
}

/// The Euclidean norm of several tensors together, as [`Gradients::norm`].
pub(crate) fn norm<'a, T: Scalar>(mut tensors: impl Iterator<Item = &'a Tensor<T, IxDyn>> + Clone) -> Result<f64> {
    let rows = tensors.clone().map(Tensor::to_contiguous).collect::<Result<Vec<_>>>()?;
    let squares = reduce::squares(&rows.iter().map(Tensor::flat).collect::<Vec<_>>())?;
    if reduce::in_range(squares) {
        return Ok(squares.sqrt());
    }
    tensors.try_fold(0.0f64, |norm, tensor| Ok(norm.hypot(tensor.norm()?)))
}

impl<T: Scalar> std::fmt::Debug for Gradients<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shapes: Vec<&[usize]> = self.iter().map(Tensor::shape).collect();
        write!(f, "Gradients of shapes {shapes:?}")
    }
}

/// Gradients and a factor for all of them, not yet multiplied in. Made by [`Gradients::scaled`]; gradients themselves have the
/// factor 1.
#[derive(Debug)]
pub struct Scaled<T: Scalar> {
    pub(crate) gradients: Gradients<T>,
    pub(crate) factor: f64,
}

impl<T: Scalar> Scaled<T> {
    /// The gradient of a parameter with the factor multiplied in; `None` where none arrived. A clone where the factor is 1, otherwise
    /// one pass over it.
    ///
    /// ```
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let w = Var::parameter(Tensor::<f64, _>::ones([2])?);
    /// let gradients = w.square()?.sum()?.backward()?.scaled(0.5);
    /// assert_eq!(gradients.get(&w)?.map(|gradient| gradient.to_vec()).transpose()?, Some(vec![1.0, 1.0]));
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Tensor::scale`].
    pub fn get(&self, parameter: &Var<T>) -> Result<Option<Tensor<T, IxDyn>>> {
        match self.gradients.get(parameter) {
            Some(gradient) if self.factor == 1.0 => Ok(Some(gradient.clone())),
            Some(gradient) => gradient.scale(T::of(self.factor)).map(Some),
            None => Ok(None),
        }
    }
}

impl<T: Scalar> From<Gradients<T>> for Scaled<T> {
    fn from(gradients: Gradients<T>) -> Self {
        gradients.scaled(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        autodiff::testing::{normal, reversed},
        device::Device,
    };

    /// Gradients that are these tensors, each of a parameter of its own.
    fn of(tensors: &[Tensor<f64, IxDyn>]) -> (Vec<Var<f64>>, Gradients<f64>) {
        let leaves: Vec<Var<f64>> = tensors.iter().map(|x| Var::parameter(x.clone())).collect();
        let mut all = Gradients { of: BTreeMap::new() };
        for (leaf, x) in leaves.iter().zip(tensors) {
            all.accumulate(leaf.backward_from(x.clone()).unwrap()).unwrap();
        }
        (leaves, all)
    }

    #[test]
    fn sums_over_passes_are_the_gradients_of_sums() {
        let (p, q) = (Var::parameter(normal(&[3, 4], 1)), Var::parameter(normal(&[4], 2)));
        let only = Var::parameter(normal(&[3, 1], 3));
        let first = || p.mul(&q).unwrap().square().unwrap().sum().unwrap();
        // A gradient that is a view, of strides 0.
        let second = || p.add(&only).unwrap().sum().unwrap();
        let whole = first().add(&second()).unwrap().backward().unwrap();
        for (mut parts, rest) in [
            (first().backward().unwrap(), second().backward().unwrap()),
            (second().backward().unwrap(), first().backward().unwrap()),
        ] {
            parts.accumulate(rest).unwrap();
            assert_eq!(parts.len(), 3);
            for leaf in [&p, &q, &only] {
                let away = parts.of(leaf).unwrap().sub(whole.of(leaf).unwrap()).unwrap();
                assert!(away.max_abs().unwrap() < 1e-13);
            }
        }
    }

    #[test]
    fn accumulating_leaves_what_others_hold_alone() {
        let p = Var::parameter(normal(&[5], 4));
        let mut gradients = p.square().unwrap().sum().unwrap().backward().unwrap();
        let before = gradients.of(&p).unwrap().clone();
        let values = before.to_vec().unwrap();
        gradients.accumulate(p.sum().unwrap().backward().unwrap()).unwrap();
        assert_eq!(before.to_vec().unwrap(), values);
        assert_eq!(gradients.of(&p).unwrap().to_vec().unwrap(), values.iter().map(|x| x + 1.0).collect::<Vec<_>>());
    }

    #[test]
    fn the_norm_is_that_of_all_entries() {
        let tensors = [normal(&[70, 1000], 5), reversed(&normal(&[13, 7], 6)), normal(&[0, 3], 7), normal(&[1], 8)];
        let naive = tensors.iter().flat_map(|x| x.to_vec().unwrap()).map(|x| x * x).sum::<f64>().sqrt();
        let norm = |threads: usize| {
            let device = Device::cpu().threads(threads);
            let there: Vec<_> = tensors.iter().map(|x| x.to_device(&device).unwrap()).collect();
            of(&there).1.norm().unwrap()
        };
        assert!((norm(1) / naive - 1.0).abs() < 1e-14);
        assert_eq!(norm(1).to_bits(), norm(2).to_bits());
        assert_eq!(norm(1).to_bits(), norm(5).to_bits());
    }

    #[test]
    fn norms_beyond_squares_and_of_nothing() {
        let far = |x: f64| of(&[Tensor::full(vec![2], 3.0 * x).unwrap(), Tensor::full(vec![2], 4.0 * x).unwrap()]).1;
        for x in [1e200, 1e-200] {
            assert!((far(x).norm().unwrap() / (50.0f64.sqrt() * x) - 1.0).abs() < 1e-14);
        }
        assert_eq!(far(0.0).norm().unwrap(), 0.0);
        assert_eq!(of(&[]).1.norm().unwrap(), 0.0);
        assert_eq!(far(f64::INFINITY).norm().unwrap(), f64::INFINITY);
        assert!(far(f64::NAN).norm().unwrap().is_nan());
    }
}
