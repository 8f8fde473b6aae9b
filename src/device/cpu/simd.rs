//! The little that kernels need of explicit vectors, for both scalar types.

use pulp::Simd;

/// Numbers that a processor's vector registers hold.
pub trait Vectors: Copy + 'static {
    /// One register full of them.
    type Vector<S: Simd>: Copy;

    /// Lanes of a register.
    #[inline(always)]
    fn lanes<S: Simd>() -> usize {
        size_of::<Self::Vector<S>>() / size_of::<Self>()
    }

    /// A register of zeros.
    fn zeros<S: Simd>(simd: S) -> Self::Vector<S>;

    /// A register with `x` in every lane.
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;

    /// `a * b + c`, lane by lane.
    fn mul_add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;

    /// The sum of the lanes.
    fn lane_sum<S: Simd>(simd: S, a: Self::Vector<S>) -> Self;

    /// A slice as whole registers; what does not fill one is left out.
    fn vectors<S: Simd>(slice: &[Self]) -> &[Self::Vector<S>];
}

macro_rules! vectors {
    ($type:ident, $vector:ident, $splat:ident, $mul_add:ident, $sum:ident, $slice:ident) => {
        impl Vectors for $type {
            type Vector<S: Simd> = S::$vector;

            #[inline(always)]
            fn zeros<S: Simd>(simd: S) -> S::$vector {
                simd.$splat(0.0)
            }

            #[inline(always)]
            fn splat<S: Simd>(simd: S, x: $type) -> S::$vector {
                simd.$splat(x)
            }

            #[inline(always)]
            fn mul_add<S: Simd>(simd: S, a: S::$vector, b: S::$vector, c: S::$vector) -> S::$vector {
                simd.$mul_add(a, b, c)
            }

            #[inline(always)]
            fn lane_sum<S: Simd>(simd: S, a: S::$vector) -> $type {
                simd.$sum(a)
            }

            #[inline(always)]
            fn vectors<S: Simd>(slice: &[$type]) -> &[S::$vector] {
                S::$slice(slice).0
            }
        }
    };
}

vectors!(f32, f32s, splat_f32s, mul_add_f32s, reduce_sum_f32s, as_simd_f32s);
vectors!(f64, f64s, splat_f64s, mul_add_f64s, reduce_sum_f64s, as_simd_f64s);

/// Asks for the cache line of an address that is read soon; any address will do.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE, and a prefetch of an invalid address does nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
