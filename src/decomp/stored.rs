//! Tucker and CP decompositions in files (safetensors) and through serde.
//!
//! The file of a decomposition holds `core` (Tucker) or `weights` (CP) and `factor_0`, `factor_1`, .., and says in its metadata
//! under `format` what it is. Reading is strict: missing and unexpected names are both listed.

use super::{Cp, Tucker};
use crate::{
    error::{Error, Result},
    scalar::Scalar,
    tensor::{Tensor, TensorFile},
};
use ndarray::{Dimension, Ix1, Ix2};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::path::Path;

const TUCKER: &str = "tenfold.tucker.1";
const CP: &str = "tenfold.cp.1";

fn save<T: Scalar, D: Dimension>(
    path: &Path,
    format: &str,
    (name, first): (&str, &Tensor<T, D>),
    factors: &[Tensor<T, Ix2>],
) -> Result<()> {
    let mut file = TensorFile::new().with(name, first)?.with_metadata("format", format);
    for (mode, factor) in factors.iter().enumerate() {
        file.insert(&format!("factor_{mode}"), factor)?;
    }
    file.save(path)
}

/// Opens a file of the given format and reads its factors.
fn load<T: Scalar>(
    operation: &'static str,
    path: &Path,
    format: &str,
    first: &str,
) -> Result<(TensorFile, Vec<Tensor<T, Ix2>>)> {
    let file = TensorFile::open(path)?;
    let found = file.metadata().get("format").map_or("no format", String::as_str);
    if found != format {
        let message = format!("{}: the metadata names {found}, not {format}", path.display());
        return Err(Error::format(operation, message));
    }
    let factors = file.names().filter(|name| name.starts_with("factor_")).count();
    // Only a single number has none.
    let least = usize::from(!file.shape(first).is_ok_and(<[usize]>::is_empty));
    let names: Vec<String> = (0..factors.max(least)).map(|mode| format!("factor_{mode}")).collect();
    file.expect_names(names.iter().map(String::as_str).chain([first]))?;
    let factors = names.iter().map(|name| file.get(name)).collect::<Result<_>>()?;
    Ok((file, factors))
}

impl<T: Scalar, D: Dimension> Tucker<T, D> {
    /// Writes the decomposition as a safetensors file, whole or not at all.
    ///
    /// ```
    /// use tenfold::{Tensor, decomp::Tucker};
    ///
    /// let path = std::env::temp_dir().join("tenfold-tucker.safetensors");
    /// let t = Tucker::new(Tensor::<f64, _>::ones([1, 2])?, vec![Tensor::ones([3, 1])?, Tensor::ones([4, 2])?])?;
    /// t.save(&path)?;
    /// assert_eq!(Tucker::load(&path)?, t);
    /// # std::fs::remove_file(&path).unwrap();
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        save(path.as_ref(), TUCKER, ("core", self.core()), self.factors())
    }

    /// Reads what [`save`](Tucker::save) wrote.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where the file cannot be read, [`ErrorKind::Format`](crate::ErrorKind::Format) where it is no such file,
    /// [`ErrorKind::Value`](crate::ErrorKind::Value) where names are missing or unexpected, [`ErrorKind::Shape`](crate::ErrorKind::Shape) where its parts do not fit each other or the order is not `D`'s.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let (file, factors) = load("Tucker::load", path.as_ref(), TUCKER, "core")?;
        Self::new(file.get("core")?, factors)
    }
}

impl<T: Scalar, D: Dimension> Cp<T, D> {
    /// Writes the decomposition as a safetensors file, whole or not at all.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        save(path.as_ref(), CP, ("weights", self.weights()), self.factors())
    }

    /// Reads what [`save`](Cp::save) wrote.
    ///
    /// # Errors
    /// As [`Tucker::load`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let (file, factors) = load("Cp::load", path.as_ref(), CP, "weights")?;
        Self::new(file.get("weights")?, factors)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Tucker", deny_unknown_fields, bound = "T: Serialize + for<'a> Deserialize<'a>")]
struct TuckerParts<T: Scalar, D: Dimension> {
    core: Tensor<T, D>,
    factors: Vec<Tensor<T, Ix2>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Cp", deny_unknown_fields, bound = "T: Serialize + for<'a> Deserialize<'a>")]
struct CpParts<T: Scalar> {
    weights: Tensor<T, Ix1>,
    factors: Vec<Tensor<T, Ix2>>,
}

impl<T: Scalar + Serialize + for<'a> Deserialize<'a>, D: Dimension> Serialize for Tucker<T, D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        TuckerParts { core: self.core().clone(), factors: self.factors().to_vec() }.serialize(serializer)
    }
}

impl<'de, T: Scalar + Serialize + for<'a> Deserialize<'a>, D: Dimension> Deserialize<'de> for Tucker<T, D> {
    fn deserialize<R: Deserializer<'de>>(deserializer: R) -> Result<Self, R::Error> {
        let TuckerParts { core, factors } = TuckerParts::deserialize(deserializer)?;
        Self::new(core, factors).map_err(R::Error::custom)
    }
}

impl<T: Scalar + Serialize + for<'a> Deserialize<'a>, D: Dimension> Serialize for Cp<T, D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        CpParts { weights: self.weights().clone(), factors: self.factors().to_vec() }.serialize(serializer)
    }
}

impl<'de, T: Scalar + Serialize + for<'a> Deserialize<'a>, D: Dimension> Deserialize<'de> for Cp<T, D> {
    fn deserialize<R: Deserializer<'de>>(deserializer: R) -> Result<Self, R::Error> {
        let CpParts { weights, factors } = CpParts::deserialize(deserializer)?;
        Self::new(weights, factors).map_err(R::Error::custom)
    }
}
