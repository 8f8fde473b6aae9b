//! [`Identity`]: what has to be the same where a run goes on.

use super::{json, parsed, word};
use crate::{
    error::{ErrorKind, Result},
    nn::{Module, mix},
    scalar::Scalar,
    tensor::{Origin, Tensor, TensorFile, listed},
};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// The trainer's configuration, and the part of the model that does not train.
pub(in crate::train) struct Identity {
    configuration: Value,
    /// Names and shapes of frozen parameters.
    frozen: BTreeMap<String, Vec<usize>>,
    /// A checksum of their values.
    fingerprint: String,
}

impl Identity {
    /// Of a model that is to be trained in this way. A pass over its frozen weights.
    pub(in crate::train) fn of<T: Scalar, M: Module<T> + ?Sized>(model: &M, configuration: Value) -> Result<Self> {
        let (mut frozen, mut sum) = (BTreeMap::new(), 0);
        for (name, parameter) in model.parameters() {
            if !parameter.trains() {
                sum = mix(sum ^ checksum(parameter.value())?);
                frozen.insert(name, parameter.shape().to_vec());
            }
        }
        Ok(Self { configuration, frozen, fingerprint: format!("{sum:016x}") })
    }

    /// Adds it to a file's metadata.
    pub(super) fn write(&self, file: &mut TensorFile) -> Result<()> {
        let nowhere = Path::new("metadata");
        file.set_metadata("configuration", json(nowhere, &self.configuration)?);
        file.set_metadata("frozen", json(nowhere, &self.frozen)?);
        file.set_metadata("fingerprint", &self.fingerprint);
        Ok(())
    }

    /// An error unless a file's is the same, with what differs.
    pub(super) fn compare(&self, origin: &Origin<'_>, file: &TensorFile) -> Result<()> {
        let error = |message: String| Err(origin.error(ErrorKind::Value, message));
        let held: BTreeMap<String, Vec<usize>> = parsed(origin, word(origin, file, "frozen")?)?;
        let other: Vec<&str> = held
            .iter()
            .filter(|(name, shape)| self.frozen.get(*name) != Some(*shape))
            .chain(self.frozen.iter().filter(|(name, _)| !held.contains_key(*name)))
            .map(|(name, _)| name.as_str())
            .collect();
        if !other.is_empty() {
            let shape = |of: &BTreeMap<String, Vec<usize>>, name| match of.get(name) {
                Some(shape) => format!("frozen, of shape {shape:?}"),
                None => "not among the frozen ones".to_string(),
            };
            let (names, first) = (listed(other.iter().copied()), other[0]);
            let (there, here) = (shape(&held, first), shape(&self.frozen, first));
            return error(format!(
                "the checkpoint is of another model: other frozen weights are {names}; {first:?} is {there} in the \
                 checkpoint and {here} in the model"
            ));
        }
        let held: Value = parsed(origin, word(origin, file, "configuration")?)?;
        let mut differences = Vec::new();
        differ("", &held, &self.configuration, &mut differences);
        if !differences.is_empty() {
            return error(format!(
                "the run was started with another configuration: {}; a run goes on as it began, or begins anew in \
                 another folder",
                differences.join("; ")
            ));
        }
        if word(origin, file, "fingerprint")? != self.fingerprint {
            return error(
                "the frozen weights have other values than when the run began; load the same model before the run goes on"
                    .into(),
            );
        }
        Ok(())
    }
}

/// Lists the fields that differ.
fn differ(path: &str, held: &Value, wanted: &Value, found: &mut Vec<String>) {
    match (held, wanted) {
        (Value::Object(a), Value::Object(b)) => {
            let absent = Value::Null;
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                differ(&path, a.get(key).unwrap_or(&absent), b.get(key).unwrap_or(&absent), found);
            }
        }
        _ if held != wanted => found.push(format!("{path} is {held} in the checkpoint and {wanted} here")),
        _ => {}
    }
}

/// Of the values of a tensor: not against anyone's will, only against the wrong file.
fn checksum<T: Scalar>(tensor: &Tensor<T>) -> Result<u64> {
    let here = tensor.to_host()?.to_contiguous()?;
    // Lanes, so that a multiplication need not wait for the one before.
    let mut lanes = [0x9e37_79b9_7f4a_7c15_u64; 8];
    for chunk in here.as_slice().unwrap_or_default().chunks(8) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = (*lane ^ x.f64().to_bits()).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        }
    }
    Ok(lanes.into_iter().fold(tensor.len() as u64, |sum, lane| mix(sum ^ lane)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_that_differ_are_named() {
        let mut found = Vec::new();
        differ("", &json!({"a": {"b": 1, "c": [1]}, "d": 2}), &json!({"a": {"b": 3, "c": [1]}, "e": null}), &mut found);
        assert_eq!(found, ["a.b is 1 in the checkpoint and 3 here", "d is 2 in the checkpoint and null here"]);
    }

    #[test]
    fn every_bit_counts() {
        let sum = |data: Vec<f32>| checksum(&Tensor::from_vec(vec![data.len()], data).unwrap()).unwrap();
        let plain: Vec<f32> = (0..21).map(|i| i as f32).collect();
        let mut seen = std::collections::BTreeSet::from([sum(plain.clone()), sum(plain[1..].to_vec())]);
        for i in 0..21 {
            let mut other = plain.clone();
            other[i] = f32::from_bits(other[i].to_bits() ^ 1);
            seen.insert(sum(other));
        }
        seen.insert(sum(plain.iter().rev().copied().collect()));
        assert_eq!(seen.len(), 24);
        assert_eq!(sum(plain.clone()), sum(plain));
    }
}
