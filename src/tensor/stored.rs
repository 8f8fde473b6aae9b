//! Numbers as files store them, and their exact conversion to and from element types.
//!
//! A file may hold types that no tensor has (`bool`, `i8`, `u16`, `i16`, `i32`, `u64`). Reading converts, and keeps every value:
//!
//! | from | to | |
//! |---|---|---|
//! | a float | the same or a wider float | always |
//! | a float | another float, an integer | never: it would round; load what is there and `cast` |
//! | an integer | an integer, a float | where every value in the file is held exactly |

use super::{files::Origin, index_at};
use crate::{
    error::{ErrorKind, Result},
    scalar::{DType, Element},
};
use half::{bf16, f16};
use num_traits::ToPrimitive;
use std::{any::Any, fmt::Display};

/// A type of numbers in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    BF16,
    F32,
    F64,
}

impl Stored {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Stored::Bool => "bool",
            Stored::I8 => "i8",
            Stored::U16 => "u16",
            Stored::I16 => "i16",
            Stored::I32 => "i32",
            Stored::U64 => "u64",
            Stored::U8 | Stored::U32 | Stored::I64 | Stored::F16 | Stored::BF16 | Stored::F32 | Stored::F64 => {
                self.element().name()
            }
        }
    }

    /// Bytes that one number takes.
    pub(crate) const fn size(self) -> usize {
        match self {
            Stored::Bool | Stored::U8 | Stored::I8 => 1,
            Stored::U16 | Stored::I16 | Stored::F16 | Stored::BF16 => 2,
            Stored::U32 | Stored::I32 | Stored::F32 => 4,
            Stored::U64 | Stored::I64 | Stored::F64 => 8,
        }
    }

    /// The element type to load it as: the same, or the narrowest that holds it (`u64` only as far as `i64` goes).
    pub(crate) const fn element(self) -> DType {
        match self {
            Stored::Bool | Stored::U8 => DType::U8,
            Stored::U16 | Stored::U32 => DType::U32,
            Stored::I8 | Stored::I16 | Stored::I32 | Stored::U64 | Stored::I64 => DType::I64,
            Stored::F16 => DType::F16,
            Stored::BF16 => DType::BF16,
            Stored::F32 => DType::F32,
            Stored::F64 => DType::F64,
        }
    }

    /// An error unless numbers of this type can become `T` without rounding, as far as the types alone tell.
    pub(crate) fn check<T: Element>(self, origin: &Origin<'_>, what: impl Display) -> Result<()> {
        let (from, to) = (self.element(), T::DTYPE);
        let integer = matches!(from, DType::U8 | DType::U32 | DType::I64);
        let widened = match from {
            DType::F16 | DType::BF16 => matches!(to, DType::F32 | DType::F64),
            DType::F32 => to == DType::F64,
            _ => false,
        };
        if integer || from == to || widened {
            return Ok(());
        }
        let message = format!("{what} holds {from}; load it as {from} and cast::<{to}>()");
        Err(origin.error(ErrorKind::Unsupported, message))
    }

    /// Appends the numbers in `bytes` to `out`; `check` has passed. `Err` has the position, among these numbers, and the value of
    /// the first that `T` does not hold.
    pub(crate) fn decode<T: Element>(self, bytes: &[u8], big_endian: bool, out: &mut Vec<T>) -> Result<(), Offence> {
        match self {
            Stored::Bool => match bytes.iter().position(|&b| b > 1) {
                Some(position) => Err(Offence { position, value: format!("the byte {}", bytes[position]) }),
                None => append::<u8, 1, T>(bytes, big_endian, out),
            },
            Stored::U8 => append::<u8, 1, T>(bytes, big_endian, out),
            Stored::I8 => append::<i8, 1, T>(bytes, big_endian, out),
            Stored::U16 => append::<u16, 2, T>(bytes, big_endian, out),
            Stored::I16 => append::<i16, 2, T>(bytes, big_endian, out),
            Stored::U32 => append::<u32, 4, T>(bytes, big_endian, out),
            Stored::I32 => append::<i32, 4, T>(bytes, big_endian, out),
            Stored::U64 => append::<u64, 8, T>(bytes, big_endian, out),
            Stored::I64 => append::<i64, 8, T>(bytes, big_endian, out),
            Stored::F16 => append::<f16, 2, T>(bytes, big_endian, out),
            Stored::BF16 => append::<bf16, 2, T>(bytes, big_endian, out),
            Stored::F32 => append::<f32, 4, T>(bytes, big_endian, out),
            Stored::F64 => append::<f64, 8, T>(bytes, big_endian, out),
        }
    }
}

/// A number in a file that the element type asked for does not hold.
#[derive(Debug)]
pub(crate) struct Offence {
    pub(crate) position: usize,
    value: String,
}

impl Offence {
    /// The error that names the type in the file, the index in `shape` (in the file's order of modes) and the value.
    pub(crate) fn error<T: Element>(
        &self,
        origin: &Origin<'_>,
        what: impl Display,
        stored: Stored,
        shape: &[usize],
        column_major: bool,
    ) -> crate::Error {
        let index = if column_major {
            let reversed: Vec<usize> = shape.iter().rev().copied().collect();
            index_at(&reversed, self.position).into_iter().rev().collect()
        } else {
            index_at(shape, self.position)
        };
        let (from, value, to) = (stored.name(), &self.value, T::DTYPE);
        let found = format!("{what} holds {from}, and the entry at {index:?} is {value}");
        if stored == Stored::Bool {
            return origin.format(format!("{found}; a bool is the byte 0 or 1"));
        }
        let wide = stored.element();
        let message = if to == wide || (stored == Stored::U64 && value.parse::<i64>().is_err()) {
            format!("{found}, which {to} does not hold; no element type holds every {from}")
        } else {
            format!("{found}, which {to} does not hold exactly; load it as {wide} and cast::<{to}>()")
        };
        origin.error(ErrorKind::Value, message)
    }
}

trait Number<const N: usize>: Copy + ToPrimitive + Display + 'static {
    const FLOAT: bool;
    fn little(bytes: [u8; N]) -> Self;
    fn big(bytes: [u8; N]) -> Self;
}

macro_rules! number {
    ($($type:ty: $n:literal, $float:literal;)*) => {$(
        impl Number<$n> for $type {
            const FLOAT: bool = $float;

            fn little(bytes: [u8; $n]) -> Self {
                Self::from_le_bytes(bytes)
            }

            fn big(bytes: [u8; $n]) -> Self {
                Self::from_be_bytes(bytes)
            }
        }
    )*};
}

number! {
    u8: 1, false;
    i8: 1, false;
    u16: 2, false;
    i16: 2, false;
    u32: 4, false;
    i32: 4, false;
    u64: 8, false;
    i64: 8, false;
    f16: 2, true;
    bf16: 2, true;
    f32: 4, true;
    f64: 8, true;
}

fn append<S: Number<N>, const N: usize, T: Element>(
    bytes: &[u8],
    big_endian: bool,
    out: &mut Vec<T>,
) -> Result<(), Offence> {
    let numbers = bytes.as_chunks::<N>().0.iter().map(|&b| if big_endian { S::big(b) } else { S::little(b) });
    // The same type needs no conversion, and keeps the bits of a NaN.
    if let Some(out) = (out as &mut dyn Any).downcast_mut::<Vec<S>>() {
        out.extend(numbers);
        return Ok(());
    }
    for (position, number) in numbers.enumerate() {
        match exact(number) {
            Some(value) => out.push(value),
            None => return Err(Offence { position, value: number.to_string() }),
        }
    }
    Ok(())
}

/// An integer, or a narrower float, as `T`, where `T` holds it.
fn exact<S: Number<N>, const N: usize, T: Element>(number: S) -> Option<T> {
    let value = <T as num_traits::NumCast>::from(number)?;
    let kept = match T::DTYPE {
        // `from` refuses what does not fit an integer.
        DType::U8 | DType::U32 | DType::I64 => true,
        _ => S::FLOAT || value.to_f64()? as i128 == number.to_i128()?,
    };
    kept.then_some(value)
}

/// Appends the bytes of `values` to `out`, least significant first.
pub(crate) fn encode<T: Element>(values: &[T], out: &mut Vec<u8>) {
    macro_rules! each {
        ($type:ty) => {
            for value in values {
                // `T` is this type, which only its name tells the compiler.
                if let Some(value) = (value as &dyn Any).downcast_ref::<$type>() {
                    out.extend_from_slice(&value.to_le_bytes());
                }
            }
        };
    }
    match T::DTYPE {
        DType::F64 => each!(f64),
        DType::F32 => each!(f32),
        DType::F16 => each!(f16),
        DType::BF16 => each!(bf16),
        DType::U8 => each!(u8),
        DType::U32 => each!(u32),
        DType::I64 => each!(i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded<T: Element>(stored: Stored, bytes: &[u8]) -> Option<Vec<T>> {
        let mut out = Vec::new();
        stored.check::<T>(&Origin::stream("test"), "it").ok()?;
        stored.decode(bytes, false, &mut out).ok()?;
        Some(out)
    }

    #[test]
    fn integers_become_floats_exactly_or_not_at_all() {
        assert_eq!(decoded::<f32>(Stored::I64, &(1i64 << 24).to_le_bytes()), Some(vec![16777216.0]));
        assert_eq!(decoded::<f32>(Stored::I64, &((1i64 << 24) + 1).to_le_bytes()), None);
        assert_eq!(decoded::<f64>(Stored::I64, &i64::MAX.to_le_bytes()), None);
        assert_eq!(decoded::<f64>(Stored::I64, &i64::MIN.to_le_bytes()), Some(vec![i64::MIN as f64]));
        assert_eq!(
            decoded::<bf16>(Stored::U64, &(1u64 << 63).to_le_bytes()),
            Some(vec![bf16::from_f32(2f32.powi(63))])
        );
        assert_eq!(decoded::<f16>(Stored::I32, &2048i32.to_le_bytes()), Some(vec![f16::from_f32(2048.0)]));
        assert_eq!(decoded::<f16>(Stored::I32, &2049i32.to_le_bytes()), None);
        assert_eq!(decoded::<f16>(Stored::I32, &70000i32.to_le_bytes()), None);
        assert_eq!(decoded::<u8>(Stored::I16, &(-1i16).to_le_bytes()), None);
        assert_eq!(decoded::<i64>(Stored::U64, &u64::MAX.to_le_bytes()), None);
        assert_eq!(decoded::<u8>(Stored::Bool, &[0, 1, 2]), None);
    }

    #[test]
    fn every_half_widens_exactly() {
        for bits in 0..=u16::MAX {
            let bytes = bits.to_le_bytes();
            let (half, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            assert_eq!(decoded::<f16>(Stored::F16, &bytes).unwrap()[0].to_bits(), bits);
            assert_eq!(decoded::<bf16>(Stored::BF16, &bytes).unwrap()[0].to_bits(), bits);
            let (wide, wider) =
                (decoded::<f32>(Stored::F16, &bytes).unwrap()[0], decoded::<f64>(Stored::BF16, &bytes).unwrap()[0]);
            assert!(wide == half.to_f32() || half.is_nan() && wide.is_nan());
            assert!(wider == brain.to_f64() || brain.is_nan() && wider.is_nan());
        }
    }
}
