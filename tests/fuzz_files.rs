//! Broken files, by the thousand: seeds in `tests/fuzz`, changed at random, go through both readers. Whatever comes of it, there
//! is no panic and no memory beyond a bound, and what is accepted is written and read again as it was.
//!
//! Every input depends only on its number, which a failure names. `TENFOLD_FUZZ=1000000 cargo test --release --test fuzz_files
//! -- --nocapture` runs a million for each reader.

use half::{bf16, f16};
use ndarray::IxDyn;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Mutex,
    time::Instant,
};
use tenfold::{Element, Tensor, TensorFile};

/// A reader that believed a forged length would ask for far more. Threads and their allocators reserve some 200 MiB at first.
const MEMORY_KIB: u64 = 512 << 10;

/// What the inputs may add once threads and allocators have started.
const MORE_KIB: u64 = 64 << 10;

/// Numbers that overflow something, or nearly.
const NUMBERS: [&str; 12] = [
    "0",
    "1",
    "255",
    "65536",
    "2147483648",
    "4294967295",
    "4294967296",
    "1152921504606846976",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999",
];

/// Words that headers are made of.
const NPY_WORDS: [&str; 24] = [
    "'<f8'",
    "'<f4'",
    "'<f2'",
    "'>f4'",
    "'|u1'",
    "'|b1'",
    "'<i2'",
    "'>u8'",
    "'<i8'",
    "'<c8'",
    "'descr'",
    "'shape'",
    "'",
    "fortran_order",
    "True",
    "False",
    "(",
    ")",
    ",",
    "{",
    "}",
    ":",
    "(2, 3)",
    "(0,)",
];
const JSON_WORDS: [&str; 24] = [
    "\"F64\"",
    "\"F32\"",
    "\"BF16\"",
    "\"F16\"",
    "\"U8\"",
    "\"BOOL\"",
    "\"I8\"",
    "\"F4\"",
    "\"U64\"",
    "\"C64\"",
    "\"dtype\"",
    "\"shape\"",
    "\"data_offsets\"",
    "\"__metadata__\"",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "[0,0]",
    "\\u0061",
    "\"",
    "null",
];

struct Seed {
    /// What stands before the header's length; the length's bytes; the header; the data. Broken seeds are all prefix.
    prefix: Vec<u8>,
    width: usize,
    header: Vec<u8>,
    data: Vec<u8>,
}

impl Seed {
    fn split(bytes: &[u8], prefix: usize, width: usize) -> Self {
        let whole = Self { prefix: bytes.to_vec(), width: 0, header: Vec::new(), data: Vec::new() };
        let Some(field) = bytes.get(prefix..prefix + width) else { return whole };
        let length = field.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
        let start = prefix + width;
        let Some(header) = usize::try_from(length).ok().and_then(|n| bytes.get(start..start.checked_add(n)?)) else {
            return whole;
        };
        Self {
            prefix: bytes[..prefix].to_vec(),
            width,
            header: header.to_vec(),
            data: bytes[start + header.len()..].to_vec(),
        }
    }

    fn joined(&self, length: u64) -> Vec<u8> {
        let mut bytes = self.prefix.clone();
        bytes.extend(&length.to_le_bytes()[..self.width]);
        bytes.extend(&self.header);
        bytes.extend(&self.data);
        bytes
    }
}

fn seeds(kind: &str, split: impl Fn(&[u8]) -> Seed) -> Vec<Seed> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(kind);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 15);
    paths.into_iter().map(|path| split(&std::fs::read(path).unwrap())).collect()
}

/// Some place in `bytes`, or its end.
fn at(rng: &mut ChaCha8Rng, bytes: &[u8]) -> usize {
    rng.random_range(0..=bytes.len())
}

/// One change to bytes of any kind.
fn shake(rng: &mut ChaCha8Rng, bytes: &mut Vec<u8>) {
    let (a, b) = (at(rng, bytes), at(rng, bytes));
    let (a, b) = (a.min(b), a.max(b));
    let short = b.min(a + 8);
    match rng.random_range(0..10) {
        0..3 if a < bytes.len() => bytes[a] ^= 1 << rng.random_range(0..8),
        3 if a < bytes.len() => bytes[a] = rng.random(),
        4 => bytes.insert(a, rng.random()),
        5 => drop(bytes.drain(a..short)),
        6 => bytes.truncate(b),
        7 => bytes.extend(vec![0; rng.random_range(1..20)]),
        8 => {
            let copy = bytes[a..short].to_vec();
            bytes.splice(b..b, copy);
        }
        _ => bytes[a..short].reverse(),
    }
}

/// One change to a header, such that it often still parses.
fn edit(rng: &mut ChaCha8Rng, header: &mut Vec<u8>, words: &[&str]) {
    let digits: Vec<usize> = (0..header.len()).filter(|&i| header[i].is_ascii_digit()).collect();
    match rng.random_range(0..6) {
        0 | 1 if !digits.is_empty() => {
            let i = digits[rng.random_range(0..digits.len())];
            header[i] = b'0' + rng.random_range(0..10u8);
        }
        2 if !digits.is_empty() => {
            let i = digits[rng.random_range(0..digits.len())];
            let end = i + header[i..].iter().take_while(|b| b.is_ascii_digit()).count();
            let number = NUMBERS[rng.random_range(0..NUMBERS.len())];
            header.splice(i..end, number.bytes());
        }
        3 | 4 => {
            // A word in place of the same word elsewhere, or of one of its length, or of anything.
            let word = words[rng.random_range(0..words.len())].as_bytes();
            let i = at(rng, header);
            let places: Vec<usize> = words
                .iter()
                .filter(|w| w.len() == word.len())
                .flat_map(|w| header.windows(w.len()).enumerate().filter(|(_, h)| *h == w.as_bytes()).map(|(i, _)| i))
                .collect();
            let i = if places.is_empty() { i } else { places[rng.random_range(0..places.len())] };
            let end = header.len().min(i + word.len());
            header.splice(i..end, word.iter().copied());
        }
        _ => shake(rng, header),
    }
}

/// Input `number`.
fn input(seeds: &[Seed], words: &[&str], number: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(number);
    let rng = &mut rng;
    let one = &seeds[rng.random_range(0..seeds.len())];
    let mut new =
        Seed { prefix: one.prefix.clone(), width: one.width, header: one.header.clone(), data: one.data.clone() };
    // Half of the inputs have a single change, and so get far.
    let changes = if rng.random() { 1 } else { rng.random_range(2..4) };
    for _ in 0..changes {
        match rng.random_range(0..10) {
            0..5 => edit(rng, &mut new.header, words),
            5 | 6 => shake(rng, &mut new.data),
            7 => shake(rng, &mut new.prefix),
            8 => new.data = seeds[rng.random_range(0..seeds.len())].data.clone(),
            _ => {
                let other = &seeds[rng.random_range(0..seeds.len())].header;
                let (cut, from) = (at(rng, &new.header), at(rng, other));
                new.header.truncate(cut);
                new.header.extend(&other[from..]);
            }
        }
    }
    // Mostly the length is right, or nothing behind it is ever reached.
    let length = match rng.random_range(0..16) {
        0 => 1 << rng.random_range(0..64),
        1 => (new.header.len() as u64).wrapping_add_signed(rng.random_range(-9..10)),
        _ => new.header.len() as u64,
    };
    let mut bytes = new.joined(length);
    if rng.random_range(0..16) == 0 {
        shake(rng, &mut bytes);
    }
    bytes
}

/// The most address space that this process had so far; memory that was asked for and never touched counts.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    peak.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
}

fn fuzz(kind: &str, seeds: &[Seed], words: &[&str], read: impl Fn(&[u8], Option<&Path>) -> bool) {
    let count: u64 = std::env::var("TENFOLD_FUZZ").map_or(20_000, |n| n.parse().expect("TENFOLD_FUZZ is a number"));
    // One at a time: the memory measured is the process's.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("input");
    let (before, mut warm) = (peak_kib(), 0);
    let mut accepted = 0;
    for seed in seeds {
        accepted += u64::from(read(&seed.joined(seed.header.len() as u64), None));
    }
    assert!(accepted > 0, "no seed of {kind} is valid");
    let start = Instant::now();
    for number in 0..count {
        let bytes = input(seeds, words, number);
        // Now and then from a file, whose length is known beforehand.
        let file = (number % 64 == 0).then(|| {
            std::fs::write(&path, &bytes).unwrap();
            path.as_path()
        });
        match catch_unwind(AssertUnwindSafe(|| read(&bytes, file))) {
            Ok(ok) => accepted += u64::from(ok),
            Err(_) => panic!("input {number} of {kind} failed: {}", bytes.escape_ascii()),
        }
        if number == 256 {
            warm = peak_kib();
        }
        if number % 256 == 0 {
            let peak = peak_kib();
            let (all, more) = (peak - before, if warm > 0 { peak - warm } else { 0 });
            assert!(
                all < MEMORY_KIB && more < MORE_KIB,
                "{kind} took {all} KiB, {more} of them late, up to input {number}"
            );
        }
    }
    let (seconds, more) = (start.elapsed().as_secs_f64(), peak_kib() - before);
    println!("{kind}: {count} inputs, {accepted} accepted, {seconds:.1} s, {more} KiB of address space");
    assert!(accepted * 100 > count, "of {count} inputs only {accepted} were valid: the changes are too coarse");
}

fn bits<T: Element>(x: &Tensor<T, IxDyn>) -> Vec<u8> {
    let file = TensorFile::new().with("x", x).unwrap().to_bytes().unwrap();
    file[file.len() - x.len() * T::DTYPE.size()..].to_vec()
}

/// Reads as `T`; what was read has to be written and read again with the same bits.
fn npy_as<T: Element>(bytes: &[u8], path: Option<&Path>) -> bool {
    let read = Tensor::<T, IxDyn>::read_npy(bytes);
    if let Some(path) = path {
        let loaded = Tensor::<T, IxDyn>::load_npy(path);
        assert_eq!(loaded.is_ok(), read.is_ok(), "{:?} from a file, {:?} from a stream", loaded.err(), read.err());
    }
    let Ok(x) = read else { return false };
    let mut again = Vec::new();
    match x.write_npy(&mut again) {
        Ok(()) => {
            let y = Tensor::<T, IxDyn>::read_npy(&again[..]).unwrap();
            assert_eq!((x.shape(), bits(&x)), (y.shape(), bits(&y)));
        }
        Err(e) => assert!(e.message().starts_with("NumPy has no bf16"), "{e}"),
    }
    true
}

#[test]
fn npy() {
    let seeds = seeds("npy", |bytes| Seed::split(bytes, 8, if bytes.get(6) == Some(&1) { 2 } else { 4 }));
    fuzz("npy", &seeds, &NPY_WORDS, |bytes, path| {
        npy_as::<f64>(bytes, path)
            | npy_as::<f32>(bytes, None)
            | npy_as::<f16>(bytes, None)
            | npy_as::<bf16>(bytes, None)
            | npy_as::<u8>(bytes, None)
            | npy_as::<u32>(bytes, None)
            | npy_as::<i64>(bytes, None)
    });
}

/// Takes one tensor out as `T`, if it can be; put in again, it is the same.
fn tensor_as<T: Element>(file: &TensorFile, name: &str) {
    if let Ok(x) = file.get::<T, IxDyn>(name) {
        assert_eq!(x.shape(), file.shape(name).unwrap());
        let y = TensorFile::new().with("y", &x).unwrap().get::<T, IxDyn>("y").unwrap();
        assert_eq!(bits(&x), bits(&y));
    }
}

#[test]
fn safetensors() {
    let seeds = seeds("safetensors", |bytes| Seed::split(bytes, 0, 8));
    fuzz("safetensors", &seeds, &JSON_WORDS, |bytes, path| {
        let read = TensorFile::from_bytes(bytes);
        if let Some(path) = path {
            let opened = TensorFile::open(path);
            assert_eq!(opened.is_ok(), read.is_ok(), "{:?} from a file, {:?} from memory", opened.err(), read.err());
            match (TensorFile::open_lazily(path), &read) {
                (Ok(lazy), Ok(read)) => assert_eq!(lazy, *read),
                (lazy, read) => {
                    assert!(lazy.is_err() && read.is_err(), "{:?} lazily, {:?} from memory", lazy.err(), read)
                }
            }
        }
        let crates = safetensors::SafeTensors::deserialize(bytes);
        let Ok(file) = read else { return false };
        // What we accept, the format's own crate accepts, and sees the same tensors.
        let crates = crates.unwrap();
        assert_eq!(crates.len(), file.len());
        for name in file.names() {
            assert_eq!(crates.tensor(name).unwrap().shape(), file.shape(name).unwrap());
            let _ = file.dtype(name);
            tensor_as::<f64>(&file, name);
            tensor_as::<f32>(&file, name);
            tensor_as::<f16>(&file, name);
            tensor_as::<bf16>(&file, name);
            tensor_as::<u8>(&file, name);
            tensor_as::<u32>(&file, name);
            tensor_as::<i64>(&file, name);
        }
        let _ = file.get::<f32, IxDyn>("there is no such tensor");
        let again = TensorFile::from_bytes(file.to_bytes().unwrap()).unwrap();
        assert_eq!(again, file);
        true
    });
}
