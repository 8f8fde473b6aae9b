//! serde: a tensor is its shape and its entries in row-major order.

use super::Tensor;
use crate::scalar::Element;
use ndarray::{Dimension, IxDyn};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};

#[derive(Serialize, Deserialize)]
#[serde(rename = "Tensor", deny_unknown_fields)]
struct Written<T> {
    shape: Vec<usize>,
    data: Vec<T>,
}

impl<T: Element + Serialize, D: Dimension> Serialize for Tensor<T, D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let data = self.to_vec().map_err(S::Error::custom)?;
        Written { shape: self.shape().to_vec(), data }.serialize(serializer)
    }
}

impl<'de, T: Element + Deserialize<'de>, D: Dimension> Deserialize<'de> for Tensor<T, D> {
    fn deserialize<R: Deserializer<'de>>(deserializer: R) -> Result<Self, R::Error> {
        let Written { shape, data } = Written::<T>::deserialize(deserializer)?;
        Tensor::<T, IxDyn>::from_vec(shape, data).and_then(Tensor::into_order).map_err(R::Error::custom)
    }
}
