//! `model.safetensors.index.json`: which shard has which tensor.
//!
//! ```text
//! {"metadata": {"total_size": 96}, "weight_map": {"a.weight": "model-00001-of-00002.safetensors", ..}}
//! ```

use super::Checkpoint;
use crate::{
    error::Result,
    tensor::{Origin, TensorFile, listed},
};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::File,
    io::Read,
    path::{Component, Path},
};

/// An index of the largest models has some 10 MiB.
const MAX_INDEX: u64 = 64 << 20;

#[derive(Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// Tensors and the shards they are in. JSON leaves open which of two members of one name counts: two are an error.
struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors' names and their shards' names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<WeightMap, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((tensor, shard)) = members.next_entry::<String, String>()? {
                    if map.contains_key(&tensor) {
                        return Err(A::Error::custom(format!("the tensor {tensor:?} is there twice")));
                    }
                    map.insert(tensor, shard);
                }
                Ok(WeightMap(map))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Whether a name is that of a file in the folder itself, on every system.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let one = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
    one && !name.contains(['/', '\\', ':', '\0'])
}

/// Opens the shards that an index names.
pub(super) fn open(path: &Path) -> Result<Checkpoint> {
    let origin = Origin::file("Checkpoint::open", path);
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_INDEX + 1).read_to_end(&mut text)).map_err(|e| origin.io(e))?;
    if text.len() as u64 > MAX_INDEX {
        return Err(origin.format(format!("an index of more than {MAX_INDEX} bytes is not read")));
    }
    let WeightMap(map) = serde_json::from_slice::<Index>(&text)
        .map_err(|e| origin.format(format!("not an index of .safetensors files: {e}")).with_source(e))?
        .weight_map;
    let names: BTreeSet<&str> = map.values().map(String::as_str).collect();
    if let Some(name) = names.iter().find(|name| !is_plain(name)) {
        let message =
            format!("the shard {name:?} is not the plain name of a file; shards lie in the index's own folder");
        return Err(origin.format(message));
    }
    let missing: Vec<&str> = names.iter().copied().filter(|name| !path.with_file_name(name).is_file()).collect();
    if !missing.is_empty() {
        let message =
            format!("{} of {} shards are missing: {}", missing.len(), names.len(), listed(missing.into_iter()));
        return Err(origin.error(crate::ErrorKind::Io, message));
    }
    let shards: Vec<TensorFile> =
        names.iter().map(|name| TensorFile::open_lazily(path.with_file_name(name))).collect::<Result<_>>()?;
    let number: BTreeMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (*name, i)).collect();
    let place: BTreeMap<String, usize> =
        map.iter().map(|(tensor, shard)| (tensor.clone(), number[shard.as_str()])).collect();
    for (tensor, &shard) in &place {
        if !shards[shard].contains(tensor) {
            return Err(origin.format(format!("the shard {:?} does not have the tensor {tensor:?}", map[tensor])));
        }
    }
    for (name, &shard) in &number {
        let strange = |tensor: &&str| place.get(*tensor) != Some(&shard);
        let strange: Vec<&str> = shards[shard].names().filter(strange).collect();
        if !strange.is_empty() {
            let message = format!(
                "the shard {name:?} has {} tensors that the index does not place there: {}",
                strange.len(),
                listed(strange.into_iter())
            );
            return Err(origin.format(message));
        }
    }
    Ok(Checkpoint { path: path.to_path_buf(), shards, place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_plain() {
        for name in ["model-00001-of-00002.safetensors", "a", "..a", "a b"] {
            assert!(is_plain(name), "{name:?}");
        }
        for name in ["", ".", "..", "/etc/passwd", "../a", "a/b", "a/", "./a", "a\\b", "C:a", "a\0b", "//a"] {
            assert!(!is_plain(name), "{name:?}");
        }
    }
}
