//! Compiled kernels on disk, by the hash of their source and the GPU's architecture.
//!
//! The folder is `TENFOLD_CACHE`, or `tenfold` in `XDG_CACHE_HOME` or `~/.cache`. A file is written beside its place and renamed, so
//! that no reader sees half of it; whatever cannot be read, or does not have the hash that it carries, is compiled again. The
//! cache is a convenience: nothing fails where it cannot be written.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicUsize, Ordering},
};

/// What every file begins with; the hash of the rest follows.
const MAGIC: &[u8; 8] = b"tenfold1";

/// FNV-1a, 128 bits: the same on every machine and with every compiler.
pub(crate) fn hash(parts: &[&[u8]]) -> u128 {
    let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    for part in parts {
        // The length goes in too, so that parts do not run into each other.
        for &byte in part.iter().chain(&part.len().to_le_bytes()) {
            hash = (hash ^ byte as u128).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }
    hash
}

/// The cache's folder; `None` where the environment names no place.
pub(crate) fn folder() -> Option<PathBuf> {
    let named = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("TENFOLD_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|path| path.join("tenfold")))
        .or_else(|| named("HOME").map(|path| path.join(".cache").join("tenfold")))
}

/// What was stored under a name; `None` where there is nothing, or nothing whole.
pub(crate) fn read(folder: &Path, name: &str) -> Option<Vec<u8>> {
    let file = fs::read(folder.join(name)).ok()?;
    let (magic, rest) = file.split_at_checked(MAGIC.len())?;
    let (stored, image) = rest.split_at_checked(16)?;
    (magic == MAGIC && stored == hash(&[image]).to_le_bytes() && !image.is_empty()).then(|| image.to_vec())
}

/// Stores an image under a name; failing is no error.
pub(crate) fn write(folder: &Path, name: &str, image: &[u8]) {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let beside = folder.join(format!("{name}.{}-{number}.tmp", process::id()));
    let file = [MAGIC.as_slice(), &hash(&[image]).to_le_bytes(), image].concat();
    let stored = fs::create_dir_all(folder)
        .and_then(|()| fs::write(&beside, file))
        .and_then(|()| fs::rename(&beside, folder.join(name)));
    if stored.is_err() {
        let _ = fs::remove_file(&beside);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_comes_back_and_what_is_damaged_does_not() {
        let folder = std::env::temp_dir().join(format!("tenfold-cache-test-{}", process::id()));
        assert!(read(&folder, "kernel").is_none());
        write(&folder, "kernel", b"image");
        assert_eq!(read(&folder, "kernel").as_deref(), Some(b"image".as_slice()));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no temporary file stays");
        let path = folder.join("kernel");
        let whole = fs::read(&path).unwrap();
        for damaged in [&whole[..whole.len() - 1], &whole[..10], &[], b"tenfold1 something else entirely"] {
            fs::write(&path, damaged).unwrap();
            assert!(read(&folder, "kernel").is_none());
        }
        write(&folder, "kernel", b"again");
        assert_eq!(read(&folder, "kernel").as_deref(), Some(b"again".as_slice()));
        fs::remove_dir_all(&folder).unwrap();
        write(Path::new("/dev/null/nowhere"), "kernel", b"image");
    }

    #[test]
    fn hashes_tell_parts_apart() {
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_eq!(hash(&[b"ab", b"c"]), hash(&[b"ab", b"c"]));
    }
}
