//! Named tensors in one file: Hugging Face's `.safetensors`, read and written.
//!
//! A file is the header's length (eight bytes, least significant first), the header, and the entries of all tensors, row-major,
//! one tensor after the other. The header is a JSON object,
//!
//! ```text
//! {"__metadata__":{"step":"12"},"core":{"dtype":"F64","shape":[2,3],"data_offsets":[0,48]}}
//! ```
//!
//! padded with spaces to a multiple of 8 bytes. The `safetensors` crate parses it and checks that the tensors fill the file
//! without gap or overlap. What it leaves open is settled here: a header's size is bounded, a file's length is compared with what
//! its header needs before it is read, two tensors of one name are refused, and the same tensors always make the same bytes.

use super::{
    Tensor,
    data::Data,
    files::{Origin, Staged, listed, place_described},
    stored::Stored,
};
use crate::{
    device::{Device, layout::checked_len, storage::Storage},
    error::{Error, ErrorKind, Result},
    scalar::{DType, Element},
};
use ndarray::Dimension;
use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::Metadata};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// Parsing takes some twenty times a header's size at worst; 8 MiB hold the names of some 80 000 tensors.
const MAX_HEADER: u64 = 8 << 20;

/// The key of the metadata, which is no tensor.
const METADATA: &str = "__metadata__";

/// Named tensors, of any shapes and element types, with a few words of metadata: what a `.safetensors` file holds.
///
/// Made empty and filled, or opened; either can be read, added to and saved. Names and metadata are kept in alphabetical order, and
/// the same content always gives the same bytes.
///
/// Memory: [`open`](TensorFile::open) reads the whole file, and each tensor that is taken out costs its own memory besides;
/// [`open_lazily`](TensorFile::open_lazily) reads the header, and each tensor when it is taken out, so a model costs itself and no
/// more. A tensor that is put in is shared, and encoded piece by piece when the file is written.
///
/// ```
/// use ndarray::{Ix2, Ix3};
/// use tenfold::{DType, Tensor, TensorFile};
///
/// let path = std::env::temp_dir().join("tenfold-example.safetensors");
/// let core = Tensor::<f64, Ix3>::ones([2, 2, 2])?;
/// let factor = Tensor::<f32, Ix2>::eye(2)?;
/// TensorFile::new().with("core", &core)?.with("factor.0", &factor)?.with_metadata("step", "12").save(&path)?;
///
/// let file = TensorFile::open(&path)?;
/// file.expect_names(["core", "factor.0"])?;
/// assert_eq!(file.shape("core")?, [2, 2, 2]);
/// assert_eq!(file.dtype("factor.0")?, DType::F32);
/// assert_eq!(file.metadata()["step"], "12");
/// assert_eq!(file.get::<f64, Ix3>("core")?, core);
///
/// let error = file.get::<f64, Ix3>("cores").unwrap_err();
/// assert!(error.to_string().ends_with("there is no tensor \"cores\"; did you mean \"core\"? There are \"core\", \"factor.0\""));
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct TensorFile {
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
    /// Where it was opened, for messages.
    path: Option<PathBuf>,
}

#[derive(Clone)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Data,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.dtype, self.shape)
    }
}

impl PartialEq for TensorFile {
    /// Whether both hold the same names, types, shapes, bytes (a NaN equals itself) and metadata. What cannot be read equals nothing.
    fn eq(&self, other: &Self) -> bool {
        let bytes = |of: &Self, entry: &Entry| entry.data.to_vec(&of.origin("TensorFile::eq")).ok();
        let same = |a: &Entry, b: &Entry| {
            let alike = a.dtype == b.dtype && a.shape == b.shape;
            alike && bytes(self, a).is_some_and(|a| bytes(other, b).is_some_and(|b| a == b))
        };
        self.metadata == other.metadata
            && self.entries.len() == other.entries.len()
            && self.entries.iter().zip(&other.entries).all(|((n, a), (m, b))| n == m && same(a, b))
    }
}

/// Reading.
impl TensorFile {
    /// Reads a `.safetensors` file into memory.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the file cannot be read, [`ErrorKind::Memory`] where it does not fit, [`ErrorKind::Format`] where
    /// it is no `.safetensors` file: its header is larger than 8 MiB or malformed, names a tensor twice, or does not describe
    /// all of the rest of the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let origin = Origin::file("TensorFile::open", path.as_ref());
        let mut file = File::open(path.as_ref()).map_err(|e| origin.io(e))?;
        let metadata = file.metadata().map_err(|e| origin.io(e))?;
        let bytes = if metadata.is_file() {
            // The header has to be right before its data are given memory.
            let (mut bytes, length) = read_header(&origin, &file, metadata.len())?;
            check_header(&origin, &bytes, metadata.len())?;
            origin.reserve(&mut bytes, (metadata.len() as usize).saturating_sub(8 + length))?;
            file.read_to_end(&mut bytes).map_err(|e| origin.io(e))?;
            bytes
        } else {
            read_stream(&origin, &file)?
        };
        let mut read = Self::parse(&origin, bytes)?;
        read.path = Some(path.as_ref().to_path_buf());
        Ok(read)
    }

    /// Opens a `.safetensors` file and reads its header only; a tensor is read when it is taken out, in pieces of 1 MiB.
    ///
    /// The file is read rather than mapped into memory: what another process cuts off it is then an error and not a signal that ends
    /// the program, and since every tensor is converted into memory of its own, a mapping would save nothing. The file stays open.
    /// A pipe is read at once.
    ///
    /// ```
    /// use ndarray::Ix1;
    /// use tenfold::{Tensor, TensorFile};
    ///
    /// let path = std::env::temp_dir().join("tenfold-lazy.safetensors");
    /// TensorFile::new().with("a", &Tensor::from_vec([2], vec![1.0, 2.0])?)?.save(&path)?;
    /// let file = TensorFile::open_lazily(&path)?;
    /// assert_eq!(file.shape("a")?, [2]);
    /// assert_eq!(file.get::<f64, Ix1>("a")?.to_vec()?, [1.0, 2.0]);
    /// # std::fs::remove_file(&path).unwrap();
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`open`](TensorFile::open).
    pub fn open_lazily(path: impl AsRef<Path>) -> Result<Self> {
        let origin = Origin::file("TensorFile::open_lazily", path.as_ref());
        let file = File::open(path.as_ref()).map_err(|e| origin.io(e))?;
        let size = file.metadata().map_err(|e| origin.io(e))?;
        if !size.is_file() {
            let read = Self::parse(&origin, read_stream(&origin, &file)?)?;
            return Ok(Self { path: Some(path.as_ref().to_path_buf()), ..read });
        }
        let (bytes, length) = read_header(&origin, &file, size.len())?;
        check_header(&origin, &bytes, size.len())?;
        let header: Metadata = serde_json::from_slice(&bytes[8..]).map_err(|e| {
            origin.format(format!("the header is not the JSON of a .safetensors file: {e}")).with_source(e)
        })?;
        let file = Arc::new(Mutex::new(file));
        let at = |offset: usize| (8 + length + offset) as u64;
        let mut read = Self::described(&header, |(start, end)| Data::File(file.clone(), at(start)..at(end)));
        read.path = Some(path.as_ref().to_path_buf());
        Ok(read)
    }

    /// Reads the bytes of a `.safetensors` file. They are moved in, not copied.
    ///
    /// # Errors
    /// [`ErrorKind::Format`], as [`open`](TensorFile::open).
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        Self::parse(&Origin::stream("TensorFile::from_bytes"), bytes.into())
    }

    fn parse(origin: &Origin<'_>, bytes: Vec<u8>) -> Result<Self> {
        let length = header_length(origin, &bytes, bytes.len() as u64)?;
        check_header(origin, &bytes[..8 + length], bytes.len() as u64)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| malformed(origin, e))?;
        let block = Arc::new(bytes);
        let at = |offset: usize| 8 + length + offset;
        Ok(Self::described(&header, |(start, end)| Data::Block(block.clone(), at(start)..at(end))))
    }

    /// What a header describes, with the data that lie at the offsets in it.
    fn described(header: &Metadata, data: impl Fn((usize, usize)) -> Data) -> Self {
        let entry = |info: &safetensors::tensor::TensorInfo| Entry {
            dtype: info.dtype,
            shape: info.shape.clone(),
            data: data(info.data_offsets),
        };
        let entries = header.tensors().into_iter().map(|(name, info)| (name, entry(info))).collect();
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Self { entries, metadata, path: None }
    }

    fn origin(&self, operation: &'static str) -> Origin<'_> {
        Origin { operation, path: self.path.as_deref() }
    }

    /// The names of the tensors, in alphabetical order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The words kept beside the tensors.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The sizes of a tensor's modes; none for a single number.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where there is no tensor of this name; the message has the closest one.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.entry("TensorFile::shape", name)?.shape)
    }

    /// The element type that holds a tensor as it is in the file: its own; for types that tensors do not have, the narrowest
    /// that holds every value (`u8` for `bool`, `i64` for `i32`; `i64` for `u64` too, which may hold more).
    ///
    /// # Errors
    /// As [`shape`](TensorFile::shape), and [`ErrorKind::Unsupported`] for types of less than 16 bits per float and for complex
    /// numbers.
    pub fn dtype(&self, name: &str) -> Result<DType> {
        let operation = "TensorFile::dtype";
        Ok(stored(&self.origin(operation), name, self.entry(operation, name)?.dtype)?.element())
    }

    /// A tensor, on the host.
    ///
    /// Every value is kept: a narrower float widens to `T`, integers become any `T` that holds each of them exactly, and all else
    /// is an error that says what to load instead, and then [`cast`](Tensor::cast). A single number of order 0, which models
    /// have as a parameter now and then, comes as a tensor of that order.
    ///
    /// # Errors
    /// As [`dtype`](TensorFile::dtype); [`ErrorKind::Unsupported`] where it holds a float that `T` would round,
    /// [`ErrorKind::Value`] an integer that `T` does not hold, [`ErrorKind::Shape`] another order than `D`.
    pub fn get<T: Element, D: Dimension>(&self, name: &str) -> Result<Tensor<T, D>> {
        let origin = self.origin("TensorFile::get");
        let entry = self.entry(origin.operation, name)?;
        let (shape, what) = (&entry.shape, format!("tensor {name:?}"));
        let stored = stored(&origin, name, entry.dtype)?;
        stored.check::<T>(&origin, &what)?;
        if let Some(n) = D::NDIM.filter(|&n| n != shape.len()) {
            let message = format!("{what} of shape {shape:?} has order {}, not {n}", shape.len());
            return Err(origin.error(ErrorKind::Shape, message));
        }
        let len = checked_len(origin.operation, shape).map_err(|e| origin.error(e.kind(), e.message()))?;
        let mut data = Vec::new();
        origin.reserve(&mut data, len)?;
        entry.data.pieces(&origin, &mut |bytes| {
            let before = data.len();
            stored.decode(bytes, false, &mut data).map_err(|mut offence| {
                offence.position += before;
                offence.error::<T>(&origin, &what, stored, shape, false)
            })
        })?;
        Ok(Tensor::row_major(Storage::from_vec(Device::cpu(), data), shape))
    }

    /// An error unless the tensors are exactly those named; it lists what is missing and what is unexpected.
    ///
    /// ```
    /// use tenfold::{Tensor, TensorFile};
    ///
    /// let file = TensorFile::new().with("a", &Tensor::from_vec([1], vec![1.0])?)?;
    /// let error = file.expect_names(["b", "c"]).unwrap_err();
    /// assert_eq!(error.message(), "missing are \"b\", \"c\"; unexpected is \"a\"");
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Value`].
    pub fn expect_names<S: AsRef<str>>(&self, names: impl IntoIterator<Item = S>) -> Result<()> {
        // False until the file turns out to have it.
        let mut expected: BTreeMap<String, bool> =
            names.into_iter().map(|name| (name.as_ref().to_string(), false)).collect();
        let unexpected: Vec<&str> = self
            .names()
            .filter(|&name| match expected.get_mut(name) {
                Some(found) => {
                    *found = true;
                    false
                }
                None => true,
            })
            .collect();
        let missing: Vec<&str> = expected.iter().filter(|(_, found)| !**found).map(|(name, _)| name.as_str()).collect();
        let is = |names: &[&str]| if names.len() == 1 { "is" } else { "are" };
        let parts: Vec<String> = [("missing", missing), ("unexpected", unexpected)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what} {} {}", is(&names), listed(names.iter().copied())))
            .collect();
        if parts.is_empty() {
            return Ok(());
        }
        Err(self.origin("TensorFile::expect_names").error(ErrorKind::Value, parts.join("; ")))
    }

    fn entry(&self, operation: &'static str, name: &str) -> Result<&Entry> {
        self.entries.get(name).ok_or_else(|| {
            let mut message = format!("there is no tensor {name:?}");
            let near = self.names().map(|other| (distance(name, other), other)).min();
            if let Some((_, other)) = near.filter(|(d, _)| *d <= 1 + name.len() / 4) {
                let _ = write!(message, "; did you mean {other:?}?");
            } else {
                message.push(';');
            }
            let _ = match self.len() {
                0 => write!(message, " there is none at all"),
                _ => write!(message, " There are {}", listed(self.names())),
            };
            self.origin(operation).error(ErrorKind::Value, message)
        })
    }
}

/// Writing.
impl TensorFile {
    /// No tensors and no metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor, from any device and of any strides.
    ///
    /// # Errors
    /// As [`insert`](TensorFile::insert).
    pub fn with<T: Element, D: Dimension>(mut self, name: &str, tensor: &Tensor<T, D>) -> Result<Self> {
        self.insert(name, tensor)?;
        Ok(self)
    }

    /// Adds a tensor in place, as [`with`](TensorFile::with) does. It is shared, not copied; what it holds now is what is saved.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where the name is taken, or is `__metadata__`.
    pub fn insert<T: Element, D: Dimension>(&mut self, name: &str, tensor: &Tensor<T, D>) -> Result<()> {
        let origin = self.origin("TensorFile::insert");
        if name == METADATA {
            let message = format!("{METADATA:?} is not a tensor's name in this format; use with_metadata for words");
            return Err(origin.error(ErrorKind::Value, message));
        }
        if self.contains(name) {
            let message = format!("there is a tensor {name:?} already; names are unique");
            return Err(origin.error(ErrorKind::Value, message));
        }
        let dtype = match T::DTYPE {
            DType::F64 => Dtype::F64,
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            DType::U8 => Dtype::U8,
            DType::U32 => Dtype::U32,
            DType::I64 => Dtype::I64,
        };
        let data = Data::Tensor(Arc::new(tensor.to_dyn()));
        let entry = Entry { dtype, shape: tensor.shape().to_vec(), data };
        self.entries.insert(name.to_string(), entry);
        Ok(())
    }

    /// Adds a word of metadata; a word of the same key is replaced.
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.set_metadata(key, value);
        self
    }

    /// Adds a word of metadata in place, as [`with_metadata`](TensorFile::with_metadata) does.
    pub fn set_metadata(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.metadata.insert(key.into(), value.into());
    }

    /// Writes a `.safetensors` file.
    ///
    /// The file appears whole or not at all: it is written beside `path`, synchronised to the disk and renamed. A file that was
    /// there is replaced.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the file cannot be written; [`ErrorKind::Unsupported`] where names and metadata need a header above
    /// the 8 MiB that [`open`](TensorFile::open) reads.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.stage(path.as_ref())?.place()
    }

    /// Writes a file that [`save`](TensorFile::save) would write, all but the last step.
    pub(crate) fn stage<'a>(&self, path: &'a Path) -> Result<Staged<'a>> {
        let origin = Origin::file("TensorFile::save", path);
        let (header, order) = self.header(&origin)?;
        Staged::write(origin.operation, path, |writer| {
            writer.write_all(&header).map_err(|e| origin.io(e))?;
            let own = self.origin(origin.operation);
            order.iter().try_for_each(|entry| {
                entry.data.pieces(&own, &mut |bytes| writer.write_all(bytes).map_err(|e| origin.io(e)))
            })
        })
    }

    /// Writes a folder of two files, which is made where there is none: the tensors, and a text that says what they are.
    ///
    /// Both are written before either takes its place: where writing fails, the folder stays as it was. Killed in the moment in which they
    /// take their places, this leaves a folder without the text; new tensors with an old text it never leaves.
    pub(crate) fn save_described(
        &self,
        operation: &'static str,
        folder: &Path,
        tensors: &str,
        (name, text): (&str, &str),
    ) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| Origin::file(operation, folder).io(e))?;
        let (tensors, description) = (folder.join(tensors), folder.join(name));
        let description = Staged::write(operation, &description, |writer| {
            writer.write_all(text.as_bytes()).map_err(|e| Error::io(operation, &description, e))
        })?;
        place_described(vec![self.stage(&tensors)?], description)
    }

    /// The bytes of a `.safetensors` file.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`], as [`save`](TensorFile::save); [`ErrorKind::Memory`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let origin = Origin::stream("TensorFile::to_bytes");
        let (mut bytes, order) = self.header(&origin)?;
        origin.reserve(&mut bytes, order.iter().map(|entry| entry.data.len() as usize).sum())?;
        let own = self.origin(origin.operation);
        for entry in order {
            entry.data.pieces(&own, &mut |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            })?;
        }
        Ok(bytes)
    }

    /// The header with its length in front, and the tensors in the order of the file: widest first, so that each lies aligned,
    /// then by name. The crate would write the metadata in the random order of a hash map.
    fn header(&self, origin: &Origin<'_>) -> Result<(Vec<u8>, Vec<&Entry>)> {
        let mut order: Vec<(&String, &Entry)> = self.entries.iter().collect();
        order.sort_by(|(a, x), (b, y)| y.dtype.cmp(&x.dtype).then(a.cmp(b)));
        let mut members = Vec::new();
        if !self.metadata.is_empty() {
            let words: Vec<String> = self.metadata.iter().map(|(k, v)| format!("{}:{}", json(k), json(v))).collect();
            members.push(format!("{METADATA:?}:{{{}}}", words.join(",")));
        }
        let mut start = 0;
        for (name, entry) in &order {
            let end = start + entry.data.len();
            let sizes: Vec<String> = entry.shape.iter().map(usize::to_string).collect();
            let (name, dtype, sizes) = (json(name), entry.dtype, sizes.join(","));
            members
                .push(format!("{name}:{{\"dtype\":\"{dtype}\",\"shape\":[{sizes}],\"data_offsets\":[{start},{end}]}}"));
            start = end;
        }
        let mut text = format!("{{{}}}", members.join(",")).into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        if text.len() as u64 > MAX_HEADER {
            let message =
                format!("names and metadata need a header of {} bytes; at most {MAX_HEADER} are read", text.len());
            return Err(origin.error(ErrorKind::Unsupported, message));
        }
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.append(&mut text);
        Ok((bytes, order.into_iter().map(|(_, entry)| entry).collect()))
    }
}

/// A string as JSON.
fn json(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The header's length, compared with the length of the file.
fn header_length(origin: &Origin<'_>, bytes: &[u8], file: u64) -> Result<usize> {
    let Some(&length) = bytes.first_chunk() else {
        let message = format!("truncated: 8 bytes of the header's length are due, {} are there", bytes.len());
        return Err(origin.format(message));
    };
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        let message =
            format!("not a .safetensors file: its header claims {length} bytes; at most {MAX_HEADER} are read");
        return Err(origin.format(message));
    }
    if length > file.saturating_sub(8) {
        let message = format!("truncated: the header claims {length} bytes, {} are there", file.saturating_sub(8));
        return Err(origin.format(message));
    }
    Ok(length as usize)
}

/// Reads the header with its length in front, and gives the length too. `size` is that of the whole file.
fn read_header(origin: &Origin<'_>, file: &File, size: u64) -> Result<(Vec<u8>, usize)> {
    let mut bytes = Vec::new();
    file.take(8).read_to_end(&mut bytes).map_err(|e| origin.io(e))?;
    let length = header_length(origin, &bytes, size)?;
    file.take(length as u64).read_to_end(&mut bytes).map_err(|e| origin.io(e))?;
    if bytes.len() < 8 + length {
        let message = format!("truncated: the header claims {length} bytes, {} are there", bytes.len() - 8);
        return Err(origin.format(message));
    }
    Ok((bytes, length))
}

/// Reads what has no size, a pipe: to where its header says that it ends, and one byte more to see that it does.
fn read_stream(origin: &Origin<'_>, file: &File) -> Result<Vec<u8>> {
    let (mut bytes, _) = read_header(origin, file, u64::MAX)?;
    let needed = data_length(origin, &bytes)?;
    let data = file.take(needed.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| origin.io(e))?;
    if data as u64 > needed {
        return Err(origin.format(format!("over-long: the tensors need {needed} bytes, more are there")));
    }
    Ok(bytes)
}

/// Checks all that can be checked without the data. `bytes` is the header with its length in front.
fn check_header(origin: &Origin<'_>, bytes: &[u8], file: u64) -> Result<()> {
    let needed = data_length(origin, bytes)?;
    let held = file - bytes.len() as u64;
    if held != needed {
        let what = if held < needed { "truncated" } else { "over-long" };
        return Err(origin.format(format!("{what}: the tensors need {needed} bytes, {held} are there")));
    }
    Ok(())
}

/// How many bytes of data a header asks for; an error where the header is wrong.
fn data_length(origin: &Origin<'_>, bytes: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(&bytes[8..]).map_err(|e| origin.format(format!("the header is not text: {e}")))?;
    let tensors = members(text);
    check_unique(origin, &tensors, "tensors")?;
    for (key, value) in &tensors {
        if *key == METADATA {
            check_unique(origin, &members(value), "words of metadata")?;
        }
    }
    let header = match SafeTensors::read_metadata(bytes) {
        // The crate found nothing wrong up to the data, which are not here.
        Err(SafeTensorError::MetadataIncompleteBuffer) => None,
        Err(e) => return Err(malformed(origin, e)),
        Ok((_, header)) => Some(header),
    };
    // What is left is how many data there have to be.
    let ends = tensors.iter().filter(|(key, _)| *key != METADATA).map(|(_, info)| {
        let offsets = members(info).into_iter().find(|(key, _)| *key == "data_offsets")?.1;
        offsets
            .trim_end_matches(|c: char| !c.is_ascii_digit())
            .rsplit(|c: char| !c.is_ascii_digit())
            .next()?
            .parse::<u64>()
            .ok()
    });
    let needed = match header {
        Some(_) => Some(0),
        None => ends.map(|end| end.ok_or(())).try_fold(0, |most, end| end.map(|end| most.max(end))).ok(),
    };
    needed.ok_or_else(|| origin.format("a tensor in the header lacks the plain key \"data_offsets\""))
}

/// The keys and values of a JSON object, as they are spelt. Of text that is no JSON it gives something or nothing; the crate
/// refuses that later.
fn members(text: &str) -> Vec<(&str, &str)> {
    let mut members = Vec::new();
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    let (mut start, mut key) = (0, None);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => {
                depth += 1;
                if depth == 1 {
                    start = at + 1;
                }
            }
            b':' if depth == 1 && key.is_none() => {
                let spelt = text[start..at].trim();
                key = Some(spelt.strip_prefix('"').and_then(|s| s.strip_suffix('"')).unwrap_or(spelt));
                start = at + 1;
            }
            b',' | b'}' | b']' => {
                if depth == 1 {
                    members.extend(key.take().map(|key| (key, text[start..at].trim())));
                    start = at + 1;
                }
                if byte != b',' {
                    depth = depth.saturating_sub(1);
                }
            }
            _ => {}
        }
    }
    members
}

/// Two members of one name: JSON leaves open which one counts.
fn check_unique(origin: &Origin<'_>, members: &[(&str, &str)], what: &str) -> Result<()> {
    let mut keys: Vec<std::borrow::Cow<'_, str>> = members.iter().map(|(key, _)| unescaped(key)).collect();
    keys.sort_unstable();
    match keys.windows(2).find(|w| w[0] == w[1]) {
        Some(twice) => Err(origin.format(format!("the header has two {what} with the name {:?}", twice[0]))),
        None => Ok(()),
    }
}

/// A JSON string's text without its escapes: equal for two keys that the crate takes for one.
fn unescaped(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains('\\') {
        return text.into();
    }
    let mut units: Vec<u16> = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => match chars.next() {
                Some('u') => {
                    let digits = chars.as_str().get(..4).unwrap_or_default();
                    if let Ok(unit) = u16::from_str_radix(digits, 16) {
                        units.push(unit);
                        chars = chars.as_str()[4..].chars();
                    }
                    continue;
                }
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some(c) => c,
                None => break,
            },
            c => c,
        };
        units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16_lossy(&units).into()
}

/// The crate's errors, in words that say what would be right.
fn malformed(origin: &Origin<'_>, error: SafeTensorError) -> Error {
    use SafeTensorError as E;
    let message = match &error {
        E::InvalidHeaderDeserialization(e) => format!("the header is not the JSON of a .safetensors file: {e}"),
        E::InvalidOffset(name) => {
            format!("the data_offsets of tensor {name:?} leave a gap or overlap; each starts where the one before ends")
        }
        E::TensorInvalidInfo => "the data_offsets of a tensor do not span what its shape and dtype need".to_string(),
        E::ValidationOverflow => "the shape of a tensor has more entries than the address space holds".to_string(),
        E::MisalignedSlice => "a tensor of less than 8 bits per entry does not fill its last byte".to_string(),
        e => format!("not a .safetensors file: {e}"),
    };
    origin.format(message).with_source(error)
}

fn stored(origin: &Origin<'_>, name: &str, dtype: Dtype) -> Result<Stored> {
    Ok(match dtype {
        Dtype::BOOL => Stored::Bool,
        Dtype::U8 => Stored::U8,
        Dtype::I8 => Stored::I8,
        Dtype::U16 => Stored::U16,
        Dtype::I16 => Stored::I16,
        Dtype::U32 => Stored::U32,
        Dtype::I32 => Stored::I32,
        Dtype::U64 => Stored::U64,
        Dtype::I64 => Stored::I64,
        Dtype::F16 => Stored::F16,
        Dtype::BF16 => Stored::BF16,
        Dtype::F32 => Stored::F32,
        Dtype::F64 => Stored::F64,
        other => {
            const READABLE: &str = "BOOL, U8, I8, U16, I16, U32, I32, U64, I64, F16, BF16, F32 and F64";
            let message =
                format!("tensor {name:?} holds {other}; what can be read is {READABLE}: save it as one of these");
            return Err(origin.error(ErrorKind::Unsupported, message));
        }
    })
}

/// How many letters have to change, come or go to make `b` of `a` (Levenshtein); of names too long for this to be quick, a lot.
fn distance(a: &str, b: &str) -> usize {
    if a.len().max(b.len()) > 100 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}
