//! NumPy's `.npy` files, read and written.
//!
//! A file is `\x93NUMPY`, two bytes of version, the header's length (two bytes, least significant first, in version 1; four in
//! 2 and 3), the header, and the entries. The header is a Python dictionary in text,
//!
//! ```text
//! {'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }
//! ```
//!
//! padded with spaces to a multiple of 64 bytes and a final newline. The format is
//! [NEP 1](https://numpy.org/neps/nep-0001-npy-format.html).
//!
//! No number that a file claims is believed before it is checked: a length is compared with what is there, and entries are read
//! in small pieces.

use super::{
    Tensor,
    files::{Origin, write_atomically},
    stored::{Stored, encode},
};
use crate::{
    device::{
        Device,
        layout::{Layout, checked_len},
        storage::Storage,
    },
    error::{Error, ErrorKind, Result},
    scalar::{DType, Element},
};
use ndarray::Dimension;
use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    path::Path,
};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// NumPy refuses headers above 10 000 bytes unless told otherwise; a real one has under a hundred.
const MAX_HEADER: usize = 1 << 16;

/// Bytes of entries held at once on the way in and out; a multiple of every element's size.
const PIECE: usize = 1 << 16;

impl<T: Element, D: Dimension> Tensor<T, D> {
    /// Reads a `.npy` file.
    ///
    /// It may hold `bool`, `u8`, `i8`, `u16`, `i16`, `u32`, `i32`, `u64`, `i64`, `f16`, `f32` or `f64`, in either byte order, with
    /// the last index fastest (C order) or the first (Fortran order; the tensor then has column-major strides, and nothing is
    /// moved). Every value is kept: a narrower float widens to `T`, integers become any `T` that holds each of them exactly,
    /// and all else is an error that says what to load instead, and then [`cast`](Tensor::cast).
    ///
    /// Takes O(file) time; beside the tensor, memory is a few pieces of 64 KiB.
    ///
    /// ```
    /// use ndarray::Ix2;
    /// use tenfold::Tensor;
    ///
    /// let path = std::env::temp_dir().join("tenfold-load.npy");
    /// let x = Tensor::from_vec([2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    /// x.save_npy(&path)?;
    /// assert_eq!(Tensor::<f32, Ix2>::load_npy(&path)?, x);
    /// assert_eq!(Tensor::<f64, Ix2>::load_npy(&path)?, x.cast::<f64>()?);
    ///
    /// let error = Tensor::<u8, Ix2>::load_npy(&path).unwrap_err();
    /// assert!(error.to_string().ends_with("the array holds f32; load it as f32 and cast::<u8>()"));
    /// # std::fs::remove_file(&path).unwrap();
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`ErrorKind::Io`] where the file cannot be read;
    /// - [`ErrorKind::Format`] where it is no `.npy` file, too short, or too long;
    /// - [`ErrorKind::Unsupported`] where it holds complex numbers, strings, records or objects, or a float that `T` would round;
    /// - [`ErrorKind::Value`] where it holds an integer that `T` does not, with its index;
    /// - [`ErrorKind::Shape`] where the array has another order than `D`;
    /// - [`ErrorKind::Memory`] where its length overflows or does not fit.
    pub fn load_npy(path: impl AsRef<Path>) -> Result<Self> {
        let origin = Origin::file("load_npy", path.as_ref());
        let file = File::open(path.as_ref()).map_err(|e| origin.io(e))?;
        let metadata = file.metadata().map_err(|e| origin.io(e))?;
        // A pipe has no length; it is read as a stream.
        let length = metadata.is_file().then_some(metadata.len());
        read(&origin, BufReader::new(file), length)
    }

    /// Reads a `.npy` file from any reader, to its end.
    ///
    /// A `&mut` reader will do. Where more than one array follow each other, hand in the bytes of one
    /// ([`Read::take`]). Small reads are frequent, so wrap a slow reader in a [`BufReader`].
    ///
    /// ```
    /// use ndarray::Ix1;
    /// use tenfold::Tensor;
    ///
    /// let mut bytes = Vec::new();
    /// Tensor::from_vec([3], vec![1u8, 2, 3])?.write_npy(&mut bytes)?;
    /// assert_eq!(Tensor::<u8, Ix1>::read_npy(&bytes[..])?.to_vec()?, [1, 2, 3]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`load_npy`](Tensor::load_npy).
    pub fn read_npy(reader: impl Read) -> Result<Self> {
        read(&Origin::stream("read_npy"), reader, None)
    }

    /// Writes a `.npy` file, in row-major order, least significant byte first.
    ///
    /// The file appears whole or not at all: it is written beside `path`, synchronised to the disk and renamed. A file that was
    /// there is replaced.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the file cannot be written; [`ErrorKind::Unsupported`] for `bf16`, which NumPy does not have:
    /// `cast::<f32>()` first, which is exact.
    pub fn save_npy(&self, path: impl AsRef<Path>) -> Result<()> {
        let origin = Origin::file("save_npy", path.as_ref());
        // Before the file is created, so that its refusal costs nothing.
        let header = header(&origin, T::DTYPE, self.shape())?;
        write_atomically("save_npy", path.as_ref(), |writer| self.write(&origin, &header, writer))
    }

    /// Writes a `.npy` file to any writer, in row-major order, least significant byte first.
    ///
    /// # Errors
    /// As [`save_npy`](Tensor::save_npy).
    pub fn write_npy(&self, mut writer: impl Write) -> Result<()> {
        let origin = Origin::stream("write_npy");
        let header = header(&origin, T::DTYPE, self.shape())?;
        self.write(&origin, &header, &mut writer)?;
        writer.flush().map_err(|e| origin.io(e))
    }

    fn write(&self, origin: &Origin<'_>, header: &[u8], writer: &mut impl Write) -> Result<()> {
        writer.write_all(header).map_err(|e| origin.io(e))?;
        let here = self.to_host()?.to_contiguous()?;
        let mut bytes = Vec::with_capacity(PIECE);
        for piece in here.as_slice().unwrap_or_default().chunks(PIECE / T::DTYPE.size()) {
            bytes.clear();
            encode(piece, &mut bytes);
            writer.write_all(&bytes).map_err(|e| origin.io(e))?;
        }
        Ok(())
    }
}

/// Everything before the entries.
fn header(origin: &Origin<'_>, dtype: DType, shape: &[usize]) -> Result<Vec<u8>> {
    let descr = match dtype {
        DType::F64 => "<f8",
        DType::F32 => "<f4",
        DType::F16 => "<f2",
        DType::U8 => "|u1",
        DType::U32 => "<u4",
        DType::I64 => "<i8",
        DType::BF16 => {
            let message = "NumPy has no bf16; write cast::<f32>(), which is exact";
            return Err(origin.error(ErrorKind::Unsupported, message));
        }
    };
    let sizes: String = shape.iter().map(|n| format!("{n}, ")).collect();
    // Python writes a comma after the only size of a tuple, and none after the last of several.
    let sizes = if shape.len() == 1 { sizes.trim_end() } else { sizes.trim_end_matches(", ") };
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}");
    let before = MAGIC.len() + 4;
    let total = (before + text.len() + 1).next_multiple_of(64);
    let Ok(length) = u16::try_from(total - before) else {
        let message = format!("a tensor of order {} does not fit the header of a .npy file", shape.len());
        return Err(origin.error(ErrorKind::Unsupported, message));
    };
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend(length.to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.resize(total - 1, b' ');
    bytes.push(b'\n');
    Ok(bytes)
}

fn read<T: Element, D: Dimension>(
    origin: &Origin<'_>,
    mut reader: impl Read,
    file_length: Option<u64>,
) -> Result<Tensor<T, D>> {
    let (text, start) = read_header(origin, &mut reader)?;
    let Header { stored, big_endian, column_major, shape } = parse(origin, &text)?;
    stored.check::<T>(origin, "the array")?;
    if let Some(n) = D::NDIM.filter(|&n| n != shape.len()) {
        let message = format!("the array of shape {shape:?} has order {}, not {n}", shape.len());
        return Err(origin.error(ErrorKind::Shape, message));
    }
    let len = checked_len(origin.operation, &shape).map_err(|e| origin.error(e.kind(), e.message()))?;
    let needed = len as u64 * stored.size() as u64;
    let name = stored.name();
    let mismatch = |what: &str, held: &str| {
        origin.format(format!("{what}: shape {shape:?} of {name} needs {needed} bytes, {held} are there"))
    };

    let mut data: Vec<T> = Vec::new();
    if let Some(length) = file_length {
        let held = length.saturating_sub(start);
        if held != needed {
            return Err(mismatch(if held < needed { "truncated" } else { "over-long" }, &held.to_string()));
        }
        origin.reserve(&mut data, len)?;
    }
    let mut piece = vec![0; PIECE];
    let mut done = 0u64;
    while done < needed {
        let want = (needed - done).min(PIECE as u64) as usize;
        let got = fill(&mut reader, &mut piece[..want]).map_err(|e| origin.io(e))?;
        if got < want {
            return Err(mismatch("truncated", &(done + got as u64).to_string()));
        }
        // A stream is believed a piece at a time: the vector grows with what came.
        origin.reserve(&mut data, want / stored.size())?;
        stored.decode(&piece[..want], big_endian, &mut data).map_err(|mut offence| {
            offence.position += done as usize / stored.size();
            offence.error::<T>(origin, "the array", stored, &shape, column_major)
        })?;
        done += want as u64;
    }
    if fill(&mut reader, &mut piece[..1]).map_err(|e| origin.io(e))? > 0 {
        return Err(mismatch("over-long", "more"));
    }
    let layout = if column_major { first_fastest(&shape) } else { Layout::contiguous(&shape) };
    Ok(Tensor::new(Storage::from_vec(Device::cpu(), data), layout))
}

/// Column-major strides over a block without gaps.
fn first_fastest(shape: &[usize]) -> Layout {
    let mut step = 1isize;
    let strides: Vec<isize> = shape
        .iter()
        .map(|&n| {
            let stride = step;
            step *= n.max(1) as isize;
            stride
        })
        .collect();
    Layout::new(shape, &strides, 0)
}

/// Reads until the buffer is full or the reader at its end, and says how much there was.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// The header's text, and where the entries start.
fn read_header(origin: &Origin<'_>, reader: &mut impl Read) -> Result<(Vec<u8>, u64)> {
    let mut exactly = |buffer: &mut [u8], what: &str| match fill(reader, buffer) {
        Ok(n) if n == buffer.len() => Ok(()),
        Ok(n) => Err(origin.format(format!("truncated: {} bytes of {what} are due, {n} are there", buffer.len()))),
        Err(e) => Err(origin.io(e)),
    };
    let mut start = [0; 8];
    exactly(&mut start, "magic and version")?;
    let [magic @ .., major, minor] = &start;
    if magic != MAGIC {
        return Err(origin.format("not a .npy file: it does not start with \\x93NUMPY"));
    }
    let (length, size) = match (major, minor) {
        (1, 0) => {
            let mut bytes = [0; 2];
            exactly(&mut bytes, "the header's length")?;
            (u32::from(u16::from_le_bytes(bytes)), 2)
        }
        (2 | 3, 0) => {
            let mut bytes = [0; 4];
            exactly(&mut bytes, "the header's length")?;
            (u32::from_le_bytes(bytes), 4)
        }
        _ => {
            return Err(origin.format(format!("version {major}.{minor} of .npy is not known; 1.0, 2.0 and 3.0 are")));
        }
    };
    if length as usize > MAX_HEADER {
        return Err(origin.format(format!("the header claims {length} bytes; at most {MAX_HEADER} are read")));
    }
    let mut text = vec![0; length as usize];
    exactly(&mut text, "the header")?;
    Ok((text, 8 + size + u64::from(length)))
}

struct Header {
    stored: Stored,
    big_endian: bool,
    column_major: bool,
    shape: Vec<usize>,
}

/// Reads the header's dictionary: three keys, once each, in any order.
fn parse(origin: &Origin<'_>, text: &[u8]) -> Result<Header> {
    let mut p = Parser { origin, text, at: 0 };
    let (mut descr, mut column_major, mut shape) = (None, None, None);
    p.expect(b'{')?;
    while !p.accept(b'}') {
        let key = p.string()?;
        p.expect(b':')?;
        let twice = match key {
            b"descr" => descr.replace(p.descr()?).is_some(),
            b"fortran_order" => column_major.replace(p.boolean()?).is_some(),
            b"shape" => shape.replace(p.shape()?).is_some(),
            _ => {
                let key = key.escape_ascii();
                return Err(p.wrong(format!("has the key '{key}'; the keys are descr, fortran_order and shape")));
            }
        };
        if twice {
            return Err(p.wrong(format!("has the key '{}' twice", key.escape_ascii())));
        }
        if !p.accept(b',') {
            p.expect(b'}')?;
            break;
        }
    }
    if p.peek().is_some() {
        return Err(p.wrong(format!("goes on after its dictionary, at byte {}", p.at)));
    }
    let missing = |key: &str| p.wrong(format!("lacks the key '{key}'"));
    let (stored, big_endian) = descr.ok_or_else(|| missing("descr"))?;
    Ok(Header {
        stored,
        big_endian,
        column_major: column_major.ok_or_else(|| missing("fortran_order"))?,
        shape: shape.ok_or_else(|| missing("shape"))?,
    })
}

/// The few of Python's literals that headers are made of, with white space anywhere between.
struct Parser<'a> {
    origin: &'a Origin<'a>,
    text: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    fn wrong(&self, message: impl std::fmt::Display) -> Error {
        self.origin.format(format!("the header {message}"))
    }

    fn unexpected(&self, wanted: &str) -> Error {
        match self.text.get(self.at) {
            Some(&byte) => self.wrong(format!(
                "has {:?} at byte {} where {wanted} belongs",
                byte.escape_ascii().to_string(),
                self.at
            )),
            None => self.wrong(format!("ends where {wanted} belongs")),
        }
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn accept(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.accept(byte) { Ok(()) } else { Err(self.unexpected(&format!("'{}'", byte.escape_ascii()))) }
    }

    /// A string in either kind of quotes, without escapes: no key or type of number has one.
    fn string(&mut self) -> Result<&'a [u8]> {
        let Some(quote @ (b'\'' | b'"')) = self.peek() else {
            return Err(self.unexpected("a string"));
        };
        let start = self.at + 1;
        let rest = &self.text[start..];
        let Some(length) = rest.iter().position(|&b| b == quote || b == b'\\' || b == b'\n') else {
            return Err(self.wrong("ends within a string"));
        };
        self.at = start + length;
        if rest[length] != quote {
            return Err(self.unexpected("a plain character of a string"));
        }
        self.at += 1;
        Ok(&rest[..length])
    }

    fn boolean(&mut self) -> Result<bool> {
        self.peek();
        let word = self.text[self.at..].split(|b| !b.is_ascii_alphanumeric()).next().unwrap_or_default();
        let value = match word {
            b"True" => true,
            b"False" => false,
            _ => return Err(self.unexpected("True or False")),
        };
        self.at += word.len();
        Ok(value)
    }

    fn shape(&mut self) -> Result<Vec<usize>> {
        let mut shape = Vec::new();
        self.expect(b'(')?;
        while !self.accept(b')') {
            shape.push(self.size()?);
            if !self.accept(b',') {
                self.expect(b')')?;
                if shape.len() == 1 {
                    return Err(
                        self.wrong(format!("has the number {} for a shape; a tuple of one is ({0},)", shape[0]))
                    );
                }
                break;
            }
        }
        Ok(shape)
    }

    fn size(&mut self) -> Result<usize> {
        if self.peek() == Some(b'-') {
            return Err(self.wrong("has a negative size in its shape"));
        }
        let digits = self.text[self.at..].iter().take_while(|b| b.is_ascii_digit()).count();
        let number = &self.text[self.at..self.at + digits];
        if number.is_empty() || number.len() > 1 && number[0] == b'0' {
            return Err(self.unexpected("a size"));
        }
        self.at += digits;
        // Python 2 wrote long integers with an L.
        if self.text.get(self.at) == Some(&b'L') {
            self.at += 1;
        }
        let value = number.iter().try_fold(0usize, |n, d| n.checked_mul(10)?.checked_add(usize::from(d - b'0')));
        value.ok_or_else(|| self.wrong(format!("has the size {}, which overflows", number.escape_ascii())))
    }

    /// The type of numbers and whether the most significant byte comes first.
    fn descr(&mut self) -> Result<(Stored, bool)> {
        if self.peek() == Some(b'[') {
            return Err(self.unreadable("records (a structured dtype)", "save each field as an array of its own"));
        }
        let descr = self.string()?;
        let shown = descr.escape_ascii();
        let (order, name) = match descr {
            [order @ (b'<' | b'>' | b'=' | b'|'), name @ ..] => (*order, name),
            _ => return Err(self.unreadable(&format!("'{shown}'"), "save it as one of these")),
        };
        let stored = match name {
            b"b1" => Stored::Bool,
            b"u1" => Stored::U8,
            b"i1" => Stored::I8,
            b"u2" => Stored::U16,
            b"i2" => Stored::I16,
            b"u4" => Stored::U32,
            b"i4" => Stored::I32,
            b"u8" => Stored::U64,
            b"i8" => Stored::I64,
            b"f2" => Stored::F16,
            b"f4" => Stored::F32,
            b"f8" => Stored::F64,
            _ => {
                let (what, advice) = match name.first() {
                    Some(b'c') => ("complex numbers", "save the real and the imaginary part"),
                    Some(b'O') => ("Python objects", "save an array of numbers"),
                    Some(b'S' | b'U' | b'a') => ("strings", "save an array of numbers"),
                    Some(b'M' | b'm') => ("times", "save them as int64"),
                    Some(b'f') => ("floats of another width", "save them as float64"),
                    Some(b'V') => ("raw bytes", "save them as uint8"),
                    _ => ("another type", "save it as one of these"),
                };
                return Err(self.unreadable(&format!("{what} ('{shown}')"), advice));
            }
        };
        let big_endian = match order {
            b'<' => false,
            b'>' => true,
            _ => cfg!(target_endian = "big"),
        };
        Ok((stored, big_endian))
    }

    fn unreadable(&self, what: &str, advice: &str) -> Error {
        const READABLE: &str = "bool, u8, i8, u16, i16, u32, i32, u64, i64, f16, f32 and f64";
        let message = format!("the array holds {what}; what can be read is {READABLE}: {advice}");
        self.origin.error(ErrorKind::Unsupported, message)
    }
}
