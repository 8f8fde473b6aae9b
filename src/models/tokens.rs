//! [`Tokens`]: what a text model reads.

use crate::{
    device::Device,
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Ix2, IxDyn};

/// A batch of B sequences of tokens, all N long: shorter ones are padded at their end, and what is padding is masked.
///
/// ```
/// use tenfold::models::Tokens;
///
/// // Two sequences; the second of a pair of texts has type 1.
/// let batch = Tokens::<f32>::padded(&[(&[1, 17, 2, 23, 2], &[0, 0, 0, 1, 1]), (&[1, 9, 2], &[0, 0, 0])], 0)?;
/// assert_eq!((batch.batch(), batch.len()), (2, 5));
/// assert_eq!(batch.ids().to_vec()?, [1, 17, 2, 23, 2, 1, 9, 2, 0, 0]);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Tokens<T: Scalar> {
    ids: Tensor<u32, Ix2>,
    types: Tensor<u32, Ix2>,
    /// None where nothing is padding.
    masks: Option<Masks<T>>,
}

/// One mask in the two forms that models need.
#[derive(Debug, Clone)]
struct Masks<T: Scalar> {
    /// `[B, 1, 1, N]`: 0 for tokens, minus infinity for padding.
    attention: Tensor<T, IxDyn>,
    /// `[B, N, 1]`: 1 for tokens, 0 for padding.
    keep: Tensor<T, IxDyn>,
}

impl<T: Scalar> Tokens<T> {
    /// Of ids `[B, N]`, types `[B, N]` and a mask `[B, N]`, 1 for tokens and 0 for padding, all on the host.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where shapes differ, [`ErrorKind::Memory`](crate::ErrorKind::Memory).
    pub fn new(ids: Tensor<u32, Ix2>, types: Tensor<u32, Ix2>, mask: &Tensor<u32, Ix2>) -> Result<Self> {
        if ids.shape() != types.shape() || ids.shape() != mask.shape() {
            let shapes = [ids.shape(), types.shape(), mask.shape()];
            return Err(Error::shape(
                "Tokens",
                format!("ids, types and mask of shapes {shapes:?}; needs [B, N] thrice"),
            ));
        }
        let [batch, n] = [ids.shape()[0], ids.shape()[1]];
        let all = mask.to_vec()?.into_iter().all(|kept| kept != 0);
        let masks = if all { None } else { Some(Masks::new(mask, batch, n)?) };
        Ok(Self { ids, types, masks })
    }

    /// Of the ids and types of each sequence. Shorter ones get the id `pad`, of type 0, up to the longest.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where a sequence has not one type for each id,
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory).
    pub fn padded(sequences: &[(&[u32], &[u32])], pad: u32) -> Result<Self> {
        let n = sequences.iter().map(|(ids, _)| ids.len()).max().unwrap_or(0);
        let shape = [sequences.len(), n];
        if let Some((ids, types)) = sequences.iter().find(|(ids, types)| ids.len() != types.len()) {
            let message = format!("a sequence of {} ids with {} types; needs as many", ids.len(), types.len());
            return Err(Error::shape("Tokens", message));
        }
        let filled = |at: &[u32], j: usize, padding: u32| at.get(j).copied().unwrap_or(padding);
        let ids = Tensor::from_fn(shape, |i| filled(sequences[i[0]].0, i[1], pad))?;
        let types = Tensor::from_fn(shape, |i| filled(sequences[i[0]].1, i[1], 0))?;
        let mask = Tensor::from_fn(shape, |i| u32::from(i[1] < sequences[i[0]].0.len()))?;
        Self::new(ids, types, &mask)
    }

    /// The number of sequences.
    pub fn batch(&self) -> usize {
        self.ids.shape()[0]
    }

    /// The length of the longest sequence.
    #[expect(clippy::len_without_is_empty, reason = "a batch is empty where it has no sequences, which batch() says")]
    pub fn len(&self) -> usize {
        self.ids.shape()[1]
    }

    /// The numbers of the tokens, `[B, N]`.
    pub fn ids(&self) -> &Tensor<u32, Ix2> {
        &self.ids
    }

    /// Which text of a pair a token is of, `[B, N]`.
    pub fn types(&self) -> &Tensor<u32, Ix2> {
        &self.types
    }

    /// What is added to attention scores, `[B, 1, 1, N]`: minus infinity for padding; none where there is none.
    pub fn attention_mask(&self) -> Option<&Tensor<T, IxDyn>> {
        self.masks.as_ref().map(|masks| &masks.attention)
    }

    /// What makes padding zero, `[B, N, 1]`; none where there is none.
    pub fn keep(&self) -> Option<&Tensor<T, IxDyn>> {
        self.masks.as_ref().map(|masks| &masks.keep)
    }

    /// The same on a device.
    ///
    /// # Errors
    /// Those of [`Tensor::to_device`].
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let masks = self.masks.as_ref().map(|masks| masks.to_device(device)).transpose()?;
        Ok(Self { ids: self.ids.to_device(device)?, types: self.types.to_device(device)?, masks })
    }
}

impl<T: Scalar> Masks<T> {
    fn new(mask: &Tensor<u32, Ix2>, batch: usize, n: usize) -> Result<Self> {
        let attention = mask.map(|kept| if kept == 0 { T::neg_infinity() } else { T::zero() })?;
        let keep = mask.map(|kept| if kept == 0 { T::zero() } else { T::one() })?;
        Ok(Self {
            attention: attention.reshape([batch, 1, 1, n])?.into_dyn(),
            keep: keep.reshape([batch, n, 1])?.into_dyn(),
        })
    }

    fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Self { attention: self.attention.to_device(device)?, keep: self.keep.to_device(device)? })
    }
}
