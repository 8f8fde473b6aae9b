//! [`Saved`]: what operations keep for their way back.

use super::var::Var;
use crate::{error::Result, scalar::Scalar, tensor::Tensor};
use ndarray::{Dimension, IxDyn};

/// A tensor that an operation keeps for its way back.
///
/// It is a clone, which costs nothing; but on a GPU whose handle computes products in bf16 it is a copy in bf16, half as large, which is made
/// when it is kept and turned into singles when something else than a product reads it. What is kept of one block by several operations
/// is one copy, and products read it, forward too where they are computed after it was made. Three things stay as they are:
///
/// - what is there anyhow: values of leaves and of constants, and views of them (see [`Var::is_computed`]);
/// - small tensors, and small parts of large blocks;
/// - what is not kept by way of this type, since its last bits matter: statistics of norms, logarithms of sums and the terms in them, losses and their
///   gradients, what is compared with one another (maxima), and inputs that a checkpoint starts from again.
///
/// Make it only where something is recorded ([`Var::records`]), and before the product that reads the same tensor.
#[derive(Clone)]
pub(crate) struct Saved<T: Scalar, D: Dimension = IxDyn>(Tensor<T, D>);

impl<T: Scalar, D: Dimension> Saved<T, D> {
    /// An operand, in the form in which the operation reads it: its value, a view of it, or a copy in another order.
    pub(crate) fn operand(x: &Var<T>, form: &Tensor<T, D>) -> Result<Self> {
        if !x.is_computed() && x.value().storage.is_same(&form.storage) {
            return Ok(Self(form.clone()));
        }
        Self::result(form)
    }

    /// A result, or something else that the operation made.
    pub(crate) fn result(y: &Tensor<T, D>) -> Result<Self> {
        Ok(Self(Tensor::new(y.storage.kept(y.len())?, y.layout.clone())))
    }

    /// The tensor.
    pub(crate) fn get(&self) -> &Tensor<T, D> {
        &self.0
    }

    /// The tensor itself.
    pub(crate) fn into_tensor(self) -> Tensor<T, D> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::testing::normal;

    fn block(x: &Tensor<f64>) -> *const f64 {
        x.storage.host("test").unwrap().as_ptr()
    }

    #[test]
    fn on_the_host_it_is_the_tensor_itself() {
        let x = normal(&[300, 300], 1);
        let leaf = Var::parameter(x.clone());
        let y = leaf.scale(2.0).unwrap();
        for v in [&leaf, &y, &Var::constant(x.clone())] {
            let saved = Saved::operand(v, v.value()).unwrap();
            assert_eq!(block(saved.get()), block(v.value()));
            assert_eq!(saved.get(), v.value());
            let view = v.value().permute(&[1, 0]).unwrap();
            let saved = Saved::operand(v, &view).unwrap().into_tensor();
            assert_eq!((block(&saved), saved.strides()), (block(v.value()), view.strides()));
        }
        assert_eq!(block(Saved::result(y.value()).unwrap().get()), block(y.value()));
    }

    #[test]
    fn what_is_computed_lies_in_a_block_of_its_own() {
        let (x, c) = (Var::parameter(normal(&[4, 6], 1)), Var::constant(normal(&[4, 6], 2)));
        let views = [x.permute(&[1, 0]).unwrap(), x.reshape([24]).unwrap().narrow(0, 2..5).unwrap()];
        for v in [&x, &c, &c.scale(2.0).unwrap(), &views[0], &views[1]] {
            assert!(!v.is_computed(), "{v:?}");
        }
        let y = x.scale(2.0).unwrap();
        for v in [&y, &y.permute(&[1, 0]).unwrap(), &x.add(&c).unwrap(), &c.mul(&x).unwrap().reshape([24]).unwrap()] {
            assert!(v.is_computed(), "{v:?}");
        }
        assert!(!y.detach().is_computed());
    }
}
