//! Element types: what a tensor may hold ([`Element`]) and what algebra needs ([`Scalar`]).

use crate::device::cpu::pool::Pool;
use half::{bf16, f16};
use num_traits::{Float, FloatConst, NumAssign, NumCast};
use std::fmt::{Debug, Display};

/// The name of an element type, as it stands in messages and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 double precision.
    F64,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper 16 bits of an `f32`.
    BF16,
    /// Unsigned byte: images, masks.
    U8,
    /// Unsigned 32-bit integer: token and row numbers.
    U32,
    /// Signed 64-bit integer.
    I64,
}

impl DType {
    /// The name in lower case, `"f64"`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::U8 => "u8",
            DType::U32 => "u32",
            DType::I64 => "i64",
        }
    }

    /// Bytes that one element takes.
    pub const fn size(self) -> usize {
        match self {
            DType::F64 | DType::I64 => 8,
            DType::F32 | DType::U32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::U8 => 1,
        }
    }
}

impl Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A number that a [`Tensor`](crate::Tensor) may store, on any device.
///
/// Implemented for `f32`, `f64`, [`half::f16`], [`half::bf16`], `u8`, `u32` and `i64`; sealed, because every device has to
/// know how to hold it.
pub trait Element:
    Copy + Default + Debug + Display + PartialEq + PartialOrd + NumCast + Send + Sync + sealed::Pooled
{
    /// The type's name at run time.
    const DTYPE: DType;
}

/// A whole number that picks an entry: `u32` or `i64`.
pub trait Index: Element {}

impl Index for u32 {}
impl Index for i64 {}

/// A real number that the algebra computes with: `f32` or `f64`.
///
/// The elementary functions come from [`num_traits::Float`]. Sealed, like [`Element`].
pub trait Scalar: Element + Float + FloatConst + NumAssign + std::iter::Sum + sealed::HostLinalg {
    /// `x` rounded to this type.
    fn of(x: f64) -> Self;

    /// This number as a double, exactly.
    fn f64(self) -> f64;
}

/// The exponent of the power of two below a size, by which every `T` can be multiplied and divided; 0 for zero and NaN. Near the ends of
/// the range it is that of a power further in.
pub(crate) fn exponent<T: Scalar>(size: f64) -> i32 {
    let most = if T::DTYPE == DType::F64 { 1000.0 } else { 120.0 };
    if size == 0.0 { 0 } else { size.log2().floor().clamp(-most, most) as i32 }
}

pub(crate) mod sealed {
    use super::*;

    /// Element types have a pool of host buffers each.
    pub trait Pooled: Sized + 'static {
        #[doc(hidden)]
        fn pool() -> &'static Pool<Self>;

        /// `x as Self`: rounded for floats; truncated, saturated and NaN to zero for integers.
        #[doc(hidden)]
        fn from_double(x: f64) -> Self;
    }

    /// Scalars are what the host's factorisations are generic over.
    pub trait HostLinalg:
        faer::traits::RealField + crate::device::cpu::math::Elementary + crate::device::cpu::simd::Vectors
    {
    }
}

macro_rules! element {
    ($($type:ty: $dtype:ident, $from:expr;)*) => {$(
        impl sealed::Pooled for $type {
            fn pool() -> &'static Pool<Self> {
                static POOL: Pool<$type> = Pool::new();
                &POOL
            }

            fn from_double(x: f64) -> Self {
                $from(x)
            }
        }

        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
        }
    )*};
}

element! {
    f64: F64, |x| x;
    f32: F32, |x| x as f32;
    f16: F16, |x| f16::from_f32(to_odd_single(x));
    bf16: BF16, |x| bf16::from_f32(to_odd_single(x));
    u8: U8, |x| x as u8;
    u32: U32, |x| x as u32;
    i64: I64, |x| x as i64;
}

/// A single next to `x`, its last bit set where `x` lies between two singles: what rounds again to fewer bits then rounds once,
/// to the nearest. (`half` itself drops the last bits of a double on the way.)
fn to_odd_single(x: f64) -> f32 {
    let near = x as f32;
    if near as f64 == x || near.is_nan() || near.to_bits() & 1 == 1 {
        return near;
    }
    // The neighbour on the other side of x. Its magnitude is one step down where `near` lies beyond x, else one up.
    let step = if (near as f64).abs() > x.abs() { u32::MAX } else { 1 };
    f32::from_bits(near.to_bits().wrapping_add(step))
}

impl sealed::HostLinalg for f32 {}
impl sealed::HostLinalg for f64 {}

impl Scalar for f32 {
    fn of(x: f64) -> Self {
        x as f32
    }

    fn f64(self) -> f64 {
        self as f64
    }
}

impl Scalar for f64 {
    fn of(x: f64) -> Self {
        x
    }

    fn f64(self) -> f64 {
        self
    }
}
