//! `.npy` and `.safetensors` files: what is written reads back, what NumPy wrote reads, and every kind of bad file is refused
//! with a message that says what is wrong.

use half::{bf16, f16};
use ndarray::{Ix0, Ix1, Ix2, Ix3, IxDyn};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use tenfold::{DType, Element, ErrorKind, Result, Tensor, TensorFile};

type Dyn<T> = Tensor<T, IxDyn>;

fn seed(name: &str) -> PathBuf {
    let kind = Path::new(name).extension().unwrap();
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(kind).join(name)
}

/// Entry i in row-major order is i.
fn count<T: Element>(shape: &[usize]) -> Dyn<T> {
    let mut i = 0;
    Tensor::from_fn(IxDyn(shape), |_| {
        i += 1;
        T::from(i - 1).unwrap()
    })
    .unwrap()
}

fn npy_bytes<T: Element>(x: &Dyn<T>) -> Vec<u8> {
    let mut bytes = Vec::new();
    x.write_npy(&mut bytes).unwrap();
    bytes
}

/// A version 1.0 file of this header and these entries.
fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

#[track_caller]
fn refused<V>(result: Result<V>, kind: ErrorKind, message: &str) {
    match result {
        Ok(_) => panic!("not refused: {message}"),
        Err(e) => assert_eq!((e.kind(), e.to_string()), (kind, message.to_string())),
    }
}

#[track_caller]
fn refused_npy(bytes: &[u8], kind: ErrorKind, message: &str) {
    refused(Dyn::<f64>::read_npy(bytes), kind, &format!("read_npy: {message}"));
}

#[track_caller]
fn refused_safetensors(bytes: &[u8], message: &str) {
    let expected = format!("TensorFile::from_bytes: {message}");
    refused(TensorFile::from_bytes(bytes), ErrorKind::Format, &expected);
    // From a file, which is checked before it is read whole, the same.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let expected = format!("TensorFile::open: {}: {message}", path.display());
    refused(TensorFile::open(&path), ErrorKind::Format, &expected);
}

const SHAPES: [&[usize]; 10] = [
    &[5],
    &[2, 3],
    &[1, 1],
    &[2, 3, 4],
    &[2, 1, 3, 2],
    &[2, 2, 1, 2, 2],
    &[2, 1, 2, 1, 2, 3],
    &[0],
    &[3, 0, 2],
    &[1, 1, 1, 1, 1, 1],
];

fn round_trips<T: Element>() {
    let directory = tempfile::tempdir().unwrap();
    for shape in SHAPES {
        let x = count::<T>(shape);
        let path = directory.path().join("x.safetensors");
        TensorFile::new().with("x", &x).unwrap().save(&path).unwrap();
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.dtype("x").unwrap(), T::DTYPE);
        assert_eq!(file.get::<T, IxDyn>("x").unwrap(), x);
        if T::DTYPE != DType::BF16 {
            let path = directory.path().join("x.npy");
            x.save_npy(&path).unwrap();
            assert_eq!(Dyn::<T>::load_npy(&path).unwrap(), x);
            assert_eq!(Dyn::<T>::read_npy(&std::fs::read(&path).unwrap()[..]).unwrap(), x);
        }
    }
}

#[test]
fn every_type_and_order_round_trips() {
    round_trips::<f64>();
    round_trips::<f32>();
    round_trips::<f16>();
    round_trips::<bf16>();
    round_trips::<u8>();
    round_trips::<u32>();
    round_trips::<i64>();
}

#[test]
fn views_are_written_row_major() {
    let x = count::<f32>(&[2, 3, 4]).permute(&[2, 0, 1]).unwrap();
    assert!(!x.is_contiguous());
    assert_eq!(Dyn::<f32>::read_npy(&npy_bytes(&x)[..]).unwrap(), x);
    assert_eq!(TensorFile::new().with("x", &x).unwrap().get::<f32, IxDyn>("x").unwrap(), x);
}

#[test]
fn large_tensors_pass_through_in_pieces() {
    let x = count::<u32>(&[3, 50_001]);
    assert_eq!(Dyn::<u32>::read_npy(&npy_bytes(&x)[..]).unwrap(), x);
    assert_eq!(Dyn::<f64>::read_npy(&npy_bytes(&x)[..]).unwrap(), x.cast::<f64>().unwrap());
    // An offence beyond the first piece is found where it is.
    let message = "read_npy: the array holds u32, and the entry at [0, 256] is 256, which u8 does not hold exactly; \
                   load it as u32 and cast::<u8>()";
    refused(Dyn::<u8>::read_npy(&npy_bytes(&x)[..]), ErrorKind::Value, message);
    let mut values = vec![0u32; 40_000];
    values[30_001] = 300;
    let bytes = npy_bytes(&Tensor::from_vec(IxDyn(&[4, 10_000]), values).unwrap());
    let error = Dyn::<u8>::read_npy(&bytes[..]).unwrap_err();
    assert!(error.message().contains("the entry at [3, 1] is 300"), "{error}");
}

#[test]
fn the_bytes_are_those_of_numpy_and_of_the_crate() {
    for (name, bytes) in [
        ("little_f8.npy", npy_bytes(&count::<f64>(&[2, 3]))),
        ("little_f4.npy", npy_bytes(&count::<f32>(&[2, 3]))),
        ("little_f2.npy", npy_bytes(&count::<f16>(&[2, 3]))),
        ("little_u1.npy", npy_bytes(&count::<u8>(&[2, 3]))),
        ("little_u4.npy", npy_bytes(&count::<u32>(&[2, 3]))),
        ("little_i8.npy", npy_bytes(&count::<i64>(&[2, 3]))),
        ("shape_4.npy", npy_bytes(&count::<f32>(&[4]))),
        ("shape_2x1x2x1x2x2.npy", npy_bytes(&count::<f32>(&[2, 1, 2, 1, 2, 2]))),
        ("shape_3x0x2.npy", npy_bytes(&count::<f32>(&[3, 0, 2]))),
    ] {
        assert_eq!(bytes, std::fs::read(seed(name)).unwrap(), "{name}");
    }
    for name in ["one", "types", "empty", "order_0"] {
        let path = seed(&format!("{name}.safetensors"));
        let file = TensorFile::open(&path).unwrap();
        let again = file.to_bytes().unwrap();
        assert_eq!(TensorFile::from_bytes(again.clone()).unwrap(), file);
        // With several words of metadata, the crate's order is random.
        if file.metadata().len() < 2 {
            assert_eq!(again, std::fs::read(path).unwrap(), "{name}");
        }
    }
}

#[test]
fn what_numpy_wrote_reads() {
    for name in ["b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"] {
        let expected =
            if name == "b1" { vec![0.0, 1.0, 0.0, 1.0, 0.0, 1.0] } else { vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0] };
        for order in ["little", "big"] {
            let path = seed(&format!("{order}_{name}.npy"));
            if order == "big" && name.ends_with('1') {
                continue;
            }
            let x = Tensor::<f64, Ix2>::load_npy(&path).unwrap();
            assert_eq!((x.shape(), x.to_vec().unwrap()), (&[2, 3][..], expected.clone()), "{}", path.display());
            if !name.starts_with('f') {
                let whole = Tensor::<i64, Ix2>::load_npy(&path).unwrap();
                assert_eq!(whole.cast::<f64>().unwrap(), x);
            }
        }
    }
    for version in ["version_2.npy", "version_3.npy"] {
        assert_eq!(Dyn::<f64>::load_npy(seed(version)).unwrap(), count(&[2, 3]));
    }
    for odd in ["odd_no_padding.npy", "odd_order_of_keys.npy"] {
        assert_eq!(Tensor::<f64, Ix1>::load_npy(seed(odd)).unwrap().to_vec().unwrap(), [0.0, 0.0]);
    }
}

#[test]
fn column_major_files_become_strides() {
    for shape in ["4", "1x1", "2x3x4", "2x1x3x2", "2x2x1x2x2", "2x1x2x1x2x2", "0", "3x0x2"] {
        let plain = Dyn::<f32>::load_npy(seed(&format!("shape_{shape}.npy"))).unwrap();
        let x = Dyn::<f32>::load_npy(seed(&format!("fortran_{shape}.npy"))).unwrap();
        assert_eq!(x, plain, "{shape}");
        assert_eq!(x, count(plain.shape()), "{shape}");
        assert_eq!(Dyn::<f32>::read_npy(&npy_bytes(&x)[..]).unwrap(), plain, "{shape}");
    }
    let x = Tensor::<f32, Ix3>::load_npy(seed("fortran_2x3x4.npy")).unwrap();
    assert_eq!(x.strides(), [1, 2, 6]);
    // The index in a message is the array's, not the position in the file.
    let bytes = npy("{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3)}", &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    let message = "read_npy: the array holds i16, and the entry at [1, 1] is 256, which u8 does not hold exactly; \
                   load it as i64 and cast::<u8>()";
    refused(Dyn::<u8>::read_npy(&bytes[..]), ErrorKind::Value, message);
}

#[test]
fn native_and_unmarked_byte_orders_read() {
    for order in ["=", "|"] {
        let bytes =
            npy(&format!("{{'descr': '{order}i4', 'fortran_order': False, 'shape': (1,)}}"), &7i32.to_ne_bytes());
        assert_eq!(Dyn::<i64>::read_npy(&bytes[..]).unwrap().to_vec().unwrap(), [7]);
    }
}

#[test]
fn bits_of_nan_and_zero_are_kept() {
    let bits = [0x7ff0_0000_0000_0001u64, 0xfff8_1234_5678_9abc, 0x8000_0000_0000_0000, 1];
    let x = Tensor::from_vec(IxDyn(&[4]), bits.map(f64::from_bits).to_vec()).unwrap();
    let from_npy = Dyn::<f64>::read_npy(&npy_bytes(&x)[..]).unwrap();
    let from_file = TensorFile::new().with("x", &x).unwrap().get::<f64, IxDyn>("x").unwrap();
    for y in [from_npy, from_file] {
        assert_eq!(y.to_vec().unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>(), bits);
    }
}

#[test]
fn floats_widen_and_never_narrow() {
    let half = count::<f16>(&[3]);
    assert_eq!(Dyn::<f32>::read_npy(&npy_bytes(&half)[..]).unwrap(), count(&[3]));
    let f32s = npy_bytes(&count::<f32>(&[3]));
    let message = "read_npy: the array holds f32; load it as f32 and cast::<f16>()";
    refused(Dyn::<f16>::read_npy(&f32s[..]), ErrorKind::Unsupported, message);
    let message = "read_npy: the array holds f32; load it as f32 and cast::<i64>()";
    refused(Dyn::<i64>::read_npy(&f32s[..]), ErrorKind::Unsupported, message);
    let f64s = npy_bytes(&count::<f64>(&[3]));
    let message = "read_npy: the array holds f64; load it as f64 and cast::<f32>()";
    refused(Dyn::<f32>::read_npy(&f64s[..]), ErrorKind::Unsupported, message);

    let file = TensorFile::new()
        .with("h", &half)
        .and_then(|f| f.with("b", &count::<bf16>(&[3])))
        .and_then(|f| f.with("d", &count::<f64>(&[3])))
        .unwrap();
    assert_eq!(file.get::<f32, Ix1>("h").unwrap().into_dyn(), count(&[3]));
    assert_eq!(file.get::<f64, Ix1>("b").unwrap().into_dyn(), count(&[3]));
    let message = "TensorFile::get: tensor \"d\" holds f64; load it as f64 and cast::<f32>()";
    refused(file.get::<f32, Ix1>("d"), ErrorKind::Unsupported, message);
    let message = "TensorFile::get: tensor \"b\" holds bf16; load it as bf16 and cast::<f16>()";
    refused(file.get::<f16, Ix1>("b"), ErrorKind::Unsupported, message);

    let message = "write_npy: NumPy has no bf16; write cast::<f32>(), which is exact";
    refused(count::<bf16>(&[3]).write_npy(Vec::new()), ErrorKind::Unsupported, message);
    let directory = tempfile::tempdir().unwrap();
    assert!(count::<bf16>(&[3]).save_npy(directory.path().join("x.npy")).is_err());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn integers_that_do_not_fit_are_named() {
    let bytes = npy_bytes(&Tensor::from_vec(IxDyn(&[2, 2]), vec![1i64, 2, 16_777_217, -1]).unwrap());
    assert_eq!(Dyn::<f64>::read_npy(&bytes[..]).unwrap().to_vec().unwrap(), [1.0, 2.0, 16_777_217.0, -1.0]);
    let message = "read_npy: the array holds i64, and the entry at [1, 0] is 16777217, which f32 does not hold exactly; \
                   load it as i64 and cast::<f32>()";
    refused(Dyn::<f32>::read_npy(&bytes[..]), ErrorKind::Value, message);
    let bytes = npy("{'descr': '<u8', 'fortran_order': False, 'shape': (1,)}", &u64::MAX.to_le_bytes());
    let message = "read_npy: the array holds u64, and the entry at [0] is 18446744073709551615, which i64 does not hold; \
                   no element type holds every u64";
    refused(Dyn::<i64>::read_npy(&bytes[..]), ErrorKind::Value, message);
    let bytes = npy("{'descr': '|b1', 'fortran_order': False, 'shape': (2,)}", &[1, 3]);
    let message = "read_npy: the array holds bool, and the entry at [1] is the byte 3; a bool is the byte 0 or 1";
    refused(Dyn::<u8>::read_npy(&bytes[..]), ErrorKind::Format, message);
}

#[test]
fn orders_must_agree() {
    let bytes = npy_bytes(&count::<f64>(&[2, 3]));
    let message = "read_npy: the array of shape [2, 3] has order 2, not 3";
    refused(Tensor::<f64, Ix3>::read_npy(&bytes[..]), ErrorKind::Shape, message);
    let file = TensorFile::new().with("x", &count::<f64>(&[2, 3])).unwrap();
    let message = "TensorFile::get: tensor \"x\" of shape [2, 3] has order 2, not 1";
    refused(file.get::<f64, Ix1>("x"), ErrorKind::Shape, message);

    let path = seed("order_0.npy");
    let message = format!("load_npy: {}: the array of shape [] has order 0, not 1", path.display());
    refused(Tensor::<f64, Ix1>::load_npy(&path), ErrorKind::Shape, &message);
    let number = Tensor::<f64, Ix0>::load_npy(&path).unwrap();
    assert_eq!(Tensor::<f64, Ix0>::read_npy(&npy_bytes(&number.to_dyn())[..]).unwrap(), number);
    let path = seed("order_0.safetensors");
    let file = TensorFile::open(&path).unwrap();
    let message = format!("TensorFile::get: {}: tensor \"number\" of shape [] has order 0, not 1", path.display());
    refused(file.get::<f64, Ix1>("number"), ErrorKind::Shape, &message);
    let number = file.get::<f64, IxDyn>("number").unwrap();
    assert_eq!((number.shape(), number.len()), (&[][..], 1));
}

#[test]
fn types_that_tensors_do_not_have_are_refused() {
    const READ: &str = "what can be read is bool, u8, i8, u16, i16, u32, i32, u64, i64, f16, f32 and f64";
    for (name, what, advice) in [
        ("bad_complex", "complex numbers ('<c16')", "save the real and the imaginary part"),
        ("bad_records", "records (a structured dtype)", "save each field as an array of its own"),
        ("bad_objects", "Python objects ('|O')", "save an array of numbers"),
        ("bad_strings", "strings ('<U2')", "save an array of numbers"),
        ("bad_times", "times ('<M8[D]')", "save them as int64"),
    ] {
        let path = seed(&format!("{name}.npy"));
        let message = format!("load_npy: {}: the array holds {what}; {READ}: {advice}", path.display());
        refused(Dyn::<f64>::load_npy(&path), ErrorKind::Unsupported, &message);
    }
    for (descr, what) in [("<f16", "floats of another width ('<f16')"), ("|V8", "raw bytes ('|V8')"), ("f8", "'f8'")] {
        let bytes = npy(&format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (1,)}}"), &[0; 16]);
        let error = Dyn::<f64>::read_npy(&bytes[..]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().starts_with(&format!("the array holds {what}; {READ}: save")), "{error}");
    }
    let file = TensorFile::open(seed("odd_f8.safetensors")).unwrap();
    let error = file.get::<f32, IxDyn>("a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("tensor \"a\" holds F8_E4M3; what can be read is BOOL, U8"), "{error}");
    assert!(file.dtype("a").is_err());
    assert_eq!(file.shape("a").unwrap(), [4]);
}

#[test]
fn bad_npy_files_are_refused() {
    use ErrorKind::{Format, Memory};
    const GOOD: &str = "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }";
    let with = |from: &str, to: &str| npy(&GOOD.replace(from, to), &[0; 16]);
    assert!(Dyn::<f64>::read_npy(&npy(GOOD, &[0; 16])[..]).is_ok());

    // Not the format, or cut.
    refused_npy(b"", Format, "truncated: 8 bytes of magic and version are due, 0 are there");
    refused_npy(&[0; 80], Format, "not a .npy file: it does not start with \\x93NUMPY");
    refused_npy(b"\x93NUMPY\x01\x01", Format, "version 1.1 of .npy is not known; 1.0, 2.0 and 3.0 are");
    refused_npy(b"\x93NUMPY\x02\x00\x01", Format, "truncated: 4 bytes of the header's length are due, 1 are there");
    refused_npy(b"\x93NUMPY\x01\x00\x40\x00{", Format, "truncated: 64 bytes of the header are due, 1 are there");
    refused_npy(
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        Format,
        "the header claims 4294967295 bytes; at most 65536 are read",
    );
    refused_npy(&npy(GOOD, &[0; 15]), Format, "truncated: shape [2] of f64 needs 16 bytes, 15 are there");
    refused_npy(&npy(GOOD, &[0; 17]), Format, "over-long: shape [2] of f64 needs 16 bytes, more are there");
    // More than there is, more than memory has, more than there are addresses.
    refused_npy(
        &with("2,", "1000000000000,"),
        Format,
        "truncated: shape [1000000000000] of f64 needs 8000000000000 bytes, 16 are there",
    );
    refused_npy(
        &with("2,", "4294967296, 4294967296"),
        Memory,
        "a tensor of shape [4294967296, 4294967296] has more entries than the address space holds",
    );
    refused_npy(
        &with("2,", "0, 4294967296, 4294967296"),
        Memory,
        "a tensor of shape [0, 4294967296, 4294967296] has more entries than the address space holds",
    );
    refused_npy(
        &with("2,", "99999999999999999999,"),
        Format,
        "the header has the size 99999999999999999999, which overflows",
    );
    // From a file, the length is known before anything is read.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.npy");
    for (data, message) in [
        (15, "truncated: shape [2] of f64 needs 16 bytes, 15 are there"),
        (19, "over-long: shape [2] of f64 needs 16 bytes, 19 are there"),
    ] {
        std::fs::write(&path, npy(GOOD, &vec![0; data])).unwrap();
        let message = format!("load_npy: {}: {message}", path.display());
        refused(Dyn::<f64>::load_npy(&path), Format, &message);
    }
    // Headers that are no dictionary of these three keys.
    for (from, to, message) in [
        ("{", "[", "the header has \"[\" at byte 0 where '{' belongs"),
        ("}", "", "the header ends where a string belongs"),
        (", }", "", "the header ends where '}' belongs"),
        ("}", "} x", "the header goes on after its dictionary, at byte 58"),
        ("shape", "shade", "the header has the key 'shade'; the keys are descr, fortran_order and shape"),
        ("}", "'descr': '<f4'}", "the header has the key 'descr' twice"),
        ("'fortran_order': False, ", "", "the header lacks the key 'fortran_order'"),
        ("False", "0", "the header has \"0\" at byte 34 where True or False belongs"),
        ("False", "Falsehood", "the header has \"F\" at byte 34 where True or False belongs"),
        ("(2,)", "(2)", "the header has the number 2 for a shape; a tuple of one is (2,)"),
        ("(2,)", "(-2,)", "the header has a negative size in its shape"),
        ("(2,)", "(02,)", "the header has \"0\" at byte 51 where a size belongs"),
        ("(2,)", "(2.0,)", "the header has \".\" at byte 52 where ')' belongs"),
        ("(2,)", "[2]", "the header has \"[\" at byte 50 where '(' belongs"),
        ("'descr'", "descr", "the header has \"d\" at byte 1 where a string belongs"),
        ("<f8", "<f8\\n", "the header has \"\\\\\\\\\" at byte 14 where a plain character of a string belongs"),
        (": ", "; ", "the header has \";\" at byte 8 where ':' belongs"),
    ] {
        refused_npy(&with(from, to), Format, message);
    }
    refused_npy(&npy("{'descr", &[]), Format, "the header ends within a string");
}

#[test]
fn bad_safetensors_files_are_refused() {
    let one = |info: &str, data: usize| safetensors(&format!("{{\"a\":{{{info}}}}}"), &vec![0; data]);
    const GOOD: &str = "\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]";
    assert!(TensorFile::from_bytes(one(GOOD, 16)).is_ok());

    refused_safetensors(b"", "truncated: 8 bytes of the header's length are due, 0 are there");
    refused_safetensors(
        &u64::MAX.to_le_bytes(),
        "not a .safetensors file: its header claims 18446744073709551615 bytes; at most 8388608 are read",
    );
    refused_safetensors(b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "truncated: the header claims 16 bytes, 2 are there");
    refused_safetensors(&one(GOOD, 15), "truncated: the tensors need 16 bytes, 15 are there");
    refused_safetensors(&one(GOOD, 17), "over-long: the tensors need 16 bytes, 17 are there");
    refused_safetensors(&safetensors("{}", b"x"), "over-long: the tensors need 0 bytes, 1 are there");
    refused_safetensors(
        &one(&GOOD.replace("2,2", "4294967296,4294967296"), 16),
        "the shape of a tensor has more entries than the address space holds",
    );
    refused_safetensors(
        &one(&GOOD.replace("2,2", "3"), 16),
        "the data_offsets of a tensor do not span what its shape and dtype need",
    );
    refused_safetensors(
        &one(&GOOD.replace("0,16", "16,32"), 32),
        "the data_offsets of tensor \"a\" leave a gap or overlap; each starts where the one before ends",
    );
    refused_safetensors(
        &one(&GOOD.replace("2,2", "-2,2"), 16),
        "the header is not the JSON of a .safetensors file: invalid value: integer `-2`, expected usize at line 1 column 58",
    );
    let twice = format!("{{\"a\":{{{GOOD}}},\"\\u0061\":{{{GOOD}}}}}");
    refused_safetensors(&safetensors(&twice, &[0; 16]), "the header has two tensors with the name \"a\"");
    refused_safetensors(
        &safetensors("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", &[]),
        "the header has two words of metadata with the name \"k\"",
    );
    let escaped = GOOD.replace("data_offsets", "data\\u005foffsets");
    refused_safetensors(&one(&escaped, 16), "a tensor in the header lacks the plain key \"data_offsets\"");
    for bad in ["[]", "{\"a\":", "{\"a\":1}", "\"\\u00", "{\"a\\", "}{", "]]]", ":,:"] {
        let error = TensorFile::from_bytes(safetensors(bad, &[])).unwrap_err();
        assert!(error.message().starts_with("the header is not the JSON of a .safetensors file: "), "{bad}: {error}");
    }
}

#[test]
fn names_are_helped_with_and_checked() {
    let x = count::<f32>(&[2]);
    let mut file = TensorFile::new().with("core", &x).unwrap();
    for i in 0..20 {
        file.insert(&format!("factor.{i}"), &x).unwrap();
    }
    assert_eq!(file.len(), 21);
    assert!(file.contains("core") && !file.contains("cor") && !file.is_empty());
    let error = file.get::<f32, Ix1>("cors").unwrap_err();
    assert!(
        error.message().starts_with("there is no tensor \"cors\"; did you mean \"core\"? There are \"core\", "),
        "{error}"
    );
    assert!(error.message().ends_with(" and 9 more"), "{error}");
    let error = file.shape("weights").unwrap_err();
    assert!(error.message().starts_with("there is no tensor \"weights\"; There are \"core\""), "{error}");
    let message = "TensorFile::dtype: there is no tensor \"a\"; there is none at all";
    refused(TensorFile::new().dtype("a"), ErrorKind::Value, message);

    let file = TensorFile::new().with("a", &x).unwrap().with("b", &x).unwrap();
    file.expect_names(["b", "a"]).unwrap();
    let message = "TensorFile::expect_names: missing are \"c\", \"d\"; unexpected is \"b\"";
    refused(file.expect_names(["a", "c", "d"]), ErrorKind::Value, message);
    refused(file.expect_names(["a"]), ErrorKind::Value, "TensorFile::expect_names: unexpected is \"b\"");

    let message = "TensorFile::insert: there is a tensor \"a\" already; names are unique";
    refused(file.clone().with("a", &x), ErrorKind::Value, message);
    let message =
        "TensorFile::insert: \"__metadata__\" is not a tensor's name in this format; use with_metadata for words";
    refused(file.clone().with("__metadata__", &x), ErrorKind::Value, message);
    assert_eq!(file.names().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn an_opened_file_can_be_added_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.safetensors");
    TensorFile::new().with("b", &count::<f64>(&[2, 2])).unwrap().with_metadata("k", "v").save(&path).unwrap();
    let mut file = TensorFile::open(&path).unwrap().with("a", &count::<u8>(&[3])).unwrap();
    file.set_metadata("k", "w");
    file.save(&path).unwrap();
    let again = TensorFile::open(&path).unwrap();
    assert_eq!(again, file);
    assert_eq!(again.get::<f64, IxDyn>("b").unwrap(), count(&[2, 2]));
    assert_eq!(again.metadata()["k"], "w");
}

#[test]
fn headers_too_large_to_read_are_not_written() {
    let file = TensorFile::new().with_metadata("k", "x".repeat(9 << 20));
    let error = file.to_bytes().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let x = count::<u8>(&[1; 30_000]);
    assert_eq!(x.write_npy(Vec::new()).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn places_that_cannot_be_written_are_named_and_stay_as_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let x = count::<f32>(&[2]);
    let file = directory.path().join("file");
    std::fs::write(&file, b"kept").unwrap();
    for path in [directory.path().join("missing/x.npy"), file.join("x.npy")] {
        for error in [
            x.save_npy(&path).unwrap_err(),
            TensorFile::new().save(&path).unwrap_err(),
            Dyn::<f32>::load_npy(&path).unwrap_err(),
            TensorFile::open(&path).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(error.message().starts_with(&path.display().to_string()), "{error}");
            assert!(std::error::Error::source(&error).is_some());
        }
    }
    let error = x.save_npy(directory.path()).unwrap_err();
    assert!(error.message().ends_with("is there already and is not a regular file; name a file"), "{error}");
    assert_eq!(Dyn::<f32>::load_npy(directory.path()).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(std::fs::read(&file).unwrap(), b"kept");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

/// Links stay, and what they point to is written, be it there or not.
#[cfg(unix)]
#[test]
fn links_are_followed_to_where_they_lead() {
    use std::os::unix::fs::symlink;

    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    symlink("b.npy", at("a.npy")).unwrap();
    symlink("c.npy", at("b.npy")).unwrap();
    for x in [count::<f32>(&[2]), count(&[3])] {
        x.save_npy(at("a.npy")).unwrap();
        assert_eq!(Dyn::<f32>::load_npy(at("c.npy")).unwrap(), x);
        assert!(["a.npy", "b.npy"].iter().all(|link| at(link).is_symlink()) && !at("c.npy").is_symlink());
    }
    symlink("circle", at("circle")).unwrap();
    assert_eq!(count::<f32>(&[2]).save_npy(at("circle")).unwrap_err().kind(), ErrorKind::Io);
    assert!(at("circle").is_symlink());
}

#[cfg(target_os = "linux")]
#[test]
fn pipes_are_read_as_streams() {
    use std::io::Write;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    if !std::process::Command::new("mkfifo").arg(&path).status().is_ok_and(|s| s.success()) {
        return;
    }
    let written = |bytes: Vec<u8>| {
        let path = path.clone();
        std::thread::spawn(move || std::fs::File::create(path).unwrap().write_all(&bytes).unwrap())
    };
    let x = count::<f32>(&[3, 3]);
    let writer = written(npy_bytes(&x));
    assert_eq!(Dyn::<f32>::load_npy(&path).unwrap(), x);
    writer.join().unwrap();
    let bytes = TensorFile::new().with("x", &x).unwrap().to_bytes().unwrap();
    let both: [fn(&Path) -> Result<TensorFile>; 2] =
        [|path| TensorFile::open(path), |path| TensorFile::open_lazily(path)];
    for open in both {
        let writer = written(bytes.clone());
        assert_eq!(open(&path).unwrap().get::<f32, IxDyn>("x").unwrap(), x);
        writer.join().unwrap();
        for (bytes, says) in [
            ([&bytes[..], b"x"].concat(), "over-long: the tensors need 36 bytes, more are there"),
            (bytes[..bytes.len() - 1].to_vec(), "truncated: the tensors need 36 bytes, 35 are there"),
        ] {
            let writer = written(bytes);
            let error = open(&path).unwrap_err();
            assert!(error.kind() == ErrorKind::Format && error.message().ends_with(says), "{error}");
            writer.join().unwrap();
        }
        // A stream without an end is not read to it.
        assert_eq!(open(Path::new("/dev/zero")).unwrap_err().kind(), ErrorKind::Format);
    }
}

/// A reader that gives a byte at a time, is interrupted in between, and then fails.
struct Halting<'a>(&'a [u8], bool);

impl std::io::Read for Halting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        match (self.0, buffer.len()) {
            (_, 0) => Ok(0),
            ([first, rest @ ..], _) => {
                buffer[0] = *first;
                self.0 = rest;
                Ok(1)
            }
            ([], _) => Err(std::io::Error::other("the line went dead")),
        }
    }
}

#[test]
fn readers_may_be_slow_and_may_fail() {
    let x = count::<f32>(&[3, 3]);
    let bytes = npy_bytes(&x);
    let end = std::io::Read::take(Halting(&bytes, false), bytes.len() as u64);
    assert_eq!(Dyn::<f32>::read_npy(end).unwrap(), x);
    refused(Dyn::<f32>::read_npy(Halting(&bytes, false)), ErrorKind::Io, "read_npy: the line went dead");
}

fn shape() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0usize..5, 1..=6)
}

proptest! {
    #[test]
    fn any_doubles_round_trip(shape in shape(), seed in any::<u64>()) {
        let mut state = seed;
        let x = Tensor::from_fn(IxDyn(&shape), |_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            f64::from_bits(state)
        }).unwrap();
        let bits = |x: &Dyn<f64>| x.to_vec().unwrap().into_iter().map(f64::to_bits).collect::<Vec<_>>();
        let y = Dyn::<f64>::read_npy(&npy_bytes(&x)[..]).unwrap();
        prop_assert_eq!((y.shape(), bits(&y)), (x.shape(), bits(&x)));
        let bytes = TensorFile::new().with("x", &x).unwrap().to_bytes().unwrap();
        let z: Dyn<f64> = TensorFile::from_bytes(bytes).unwrap().get("x").unwrap();
        prop_assert_eq!((z.shape(), bits(&z)), (x.shape(), bits(&x)));
    }

    #[test]
    fn integers_read_exactly_or_not(values in prop::collection::vec(any::<i64>().prop_map(|v| v >> (v & 63)), 1..20)) {
        let n = values.len();
        let bytes = npy_bytes(&Tensor::from_vec(IxDyn(&[n]), values.clone()).unwrap());
        let fits = values.iter().all(|&v| (v as f32) as i128 == v as i128);
        match Dyn::<f32>::read_npy(&bytes[..]) {
            Ok(x) => {
                prop_assert!(fits);
                prop_assert_eq!(x.to_vec().unwrap(), values.iter().map(|&v| v as f32).collect::<Vec<_>>());
            }
            Err(e) => {
                prop_assert!(!fits);
                prop_assert_eq!(e.kind(), ErrorKind::Value);
            }
        }
    }

    #[test]
    fn any_names_and_words_round_trip(words in prop::collection::btree_map(any::<String>(), any::<String>(), 0..6)) {
        let mut file = TensorFile::new();
        for (i, (key, value)) in words.iter().enumerate() {
            if key != "__metadata__" {
                file.insert(key, &count::<u8>(&[i])).unwrap();
            }
            file.set_metadata(key, value);
        }
        let bytes = file.to_bytes().unwrap();
        prop_assert_eq!(&TensorFile::from_bytes(bytes.clone()).unwrap(), &file);
        // The crate agrees.
        let crates = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        prop_assert_eq!(crates.len(), file.len());
        prop_assert!(crates.names().into_iter().all(|name| file.contains(name)));
    }
}
