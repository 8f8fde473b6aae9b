//! From FLoRA to LoRA: every update in Tucker form is a product of two matrices.

use super::FloraAdapter;
use crate::{
    autodiff::{Var, without_gradients},
    error::{Error, Result},
    nn::{Operation, Parameter, WeightAdapter},
    peft::{
        lora::{LoraAdapter, LoraForm},
        site::Site,
    },
    scalar::Scalar,
};

impl<T: Scalar> FloraAdapter<T> {
    /// The same update as a product of two matrices, in the form [`LoraForm::Channels`].
    ///
    /// One factor is a matrix already; the core seen through all the others is the other one,
    ///
    /// $$ s\thinspace G \times_1 A_1 \cdots \times_N A_N = s\thinspace A_n \big( G \times_{m \ne n} A_m \big)_{(n)}. $$
    ///
    /// The rank is $J_n$: of the output mode for a convolution, of the input mode for a transposed one, the smaller of
    /// both for linear layers and embeddings. For linear layers nothing is lost either way; for a convolution the
    /// product has more parameters and no longer keeps the kernel's modes apart, so that training goes on in another
    /// space.
    ///
    /// ```
    /// use tenfold::{Tensor, nn::{Operation, WeightAdapter}, peft::{FloraAdapter, Site}};
    ///
    /// let site = Site::new("dense", Operation::Linear, &[4, 3])?;
    /// let (a_in, a_out) = (Tensor::ones([3, 1])?, Tensor::ones([4, 2])?);
    /// let flora = FloraAdapter::new(&site, Tensor::<f64, _>::ones([1, 2])?.into_dyn(), vec![a_in, a_out], 0.5)?;
    /// let lora = flora.to_lora(&site)?;
    /// assert_eq!((lora.a().shape(), lora.b().shape()), (&[1, 3][..], &[4, 1][..]));
    /// assert_eq!(lora.delta()?.value(), flora.delta()?.value());
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// Cost: that of the update's core seen through all factors but one.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where the site is not that of the adapter.
    pub fn to_lora(&self, site: &Site<'_>) -> Result<LoraAdapter<T>> {
        if site.shape() != self.weight_shape() {
            let (given, own) = (site.shape(), self.weight_shape());
            let message =
                format!("layer {:?} has a weight of shape {given:?}; the adapter is for {own:?}", site.name());
            return Err(Error::shape("to_lora", message));
        }
        let ranks = self.ranks();
        let kept = match site.operation() {
            Operation::Conv(_) => 1,
            Operation::ConvTranspose(_) => 0,
            // The adapter is for none of the last kind.
            Operation::Linear | Operation::Embedding { .. } | Operation::Residual(_) => {
                usize::from(ranks[1] < ranks[0])
            }
        };
        let (a, b) = without_gradients(|| self.product(site, kept))?;
        let (a, b) = (a.into_value(), b.into_value());
        let lora = LoraAdapter::new(site, LoraForm::Channels, a, b, self.scale())?;
        lora.dropout(self.way().dropout())?.path(self.way().path)
    }

    /// A and B without the scale, where the factor of mode `kept` (0: input, 1: output) is one of them.
    fn product(&self, site: &Site<'_>, kept: usize) -> Result<(Var<T>, Var<T>)> {
        let factors: Vec<&Var<T>> = self.factors().iter().map(Parameter::var).collect();
        let others: Vec<(usize, &Var<T>)> =
            (0..factors.len()).filter(|&n| n != kept).map(|n| (n, factors[n])).collect();
        let seen = self.core().var().mode_products(&others)?;
        // The rank first, then the other channels, then the kernel.
        let mut order: Vec<usize> = (0..factors.len()).collect();
        order.swap(0, kept);
        let (rest, own) = (seen.permute(&order)?, factors[kept]);
        let spatial = vec![1; factors.len() - 2];
        let with_ones = |matrix: Var<T>| {
            let shape = [matrix.shape(), &spatial[..]].concat();
            matrix.reshape(shape)
        };
        match (kept, site.operation()) {
            (0, Operation::ConvTranspose(_)) => Ok((with_ones(own.permute(&[1, 0])?)?, rest)),
            (0, _) => Ok((own.permute(&[1, 0])?, rest.permute(&[1, 0])?)),
            _ => Ok((rest, with_ones(own.clone())?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::{Conv, ConvTranspose, testing::normal};

    #[test]
    fn the_update_is_the_same_for_every_operation() {
        let (plain, groups, up) = (Conv::new(), Conv::new().groups(2), ConvTranspose::new().groups(2));
        for (operation, shape, ranks) in [
            (Operation::Linear, &[5, 4][..], &[2, 3][..]),
            (Operation::Linear, &[5, 4], &[3, 2]),
            (Operation::Embedding { padding: None }, &[7, 4], &[2, 3]),
            (Operation::Embedding { padding: None }, &[7, 4], &[3, 2]),
            (Operation::Conv(&plain), &[5, 3, 3], &[4, 2, 2]),
            (Operation::Conv(&plain), &[5, 3, 2, 3], &[2, 3, 1, 2]),
            (Operation::Conv(&groups), &[4, 2, 3, 3], &[2, 3, 2, 2]),
            (Operation::ConvTranspose(&up), &[4, 3, 3, 2], &[3, 2, 2, 2]),
        ] {
            let site = Site::new("layer", operation, shape).unwrap();
            let factors = site.modes().into_iter().zip(ranks).enumerate();
            let factors = factors.map(|(n, (size, &rank))| normal(&[size, rank], n as u64).into_order().unwrap());
            let flora = FloraAdapter::new(&site, normal(ranks, 9), factors.collect(), 0.7).unwrap();
            let lora = flora.to_lora(&site).unwrap();
            let away = lora.delta().unwrap().value().sub(flora.delta().unwrap().value()).unwrap();
            assert!(away.max_abs().unwrap() < 1e-13, "{operation:?}");
            let other = Site::new("layer", Operation::Linear, &[9, 9]).unwrap();
            assert!(flora.to_lora(&other).is_err());
        }
    }
}
