//! The little that kernels need of explicit vectors, for both scalar types.

use pulp::Simd;

/// Numbers that a processor's vector registers hold.
pub trait Vectors: Copy + 'static {
    /// One register full of them.
    type Vector<S: Simd>: Copy;

    /// A register of zeros.
    fn zeros<S: Simd>(simd: S) -> Self::Vector<S>;

    /// `a * b + c`, lane by lane.
    fn mul_add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;

    /// The sum of the lanes.
    fn lane_sum<S: Simd>(simd: S, a: Self::Vector<S>) -> Self;

    /// A slice as whole registers; what does not fill one is left out.
    fn vectors<S: Simd>(slice: &[Self]) -> &[Self::Vector<S>];

    /// How many numbers a register holds.
    fn lanes<S: Simd>() -> usize;

    /// The same number in every lane.
    fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S>;

    /// Whole registers to write to; what does not fill one is left out.
    fn vectors_mut<S: Simd>(slice: &mut [Self]) -> &mut [Self::Vector<S>];

    /// A register of a slice that may be shorter; zeros beyond it.
    fn load_part<S: Simd>(simd: S, slice: &[Self]) -> Self::Vector<S>;

    /// Writes as many lanes as the slice has places for.
    fn store_part<S: Simd>(simd: S, slice: &mut [Self], a: Self::Vector<S>);
}

macro_rules! vectors {
    ($type:ident, $vector:ident, $splat:ident, $mul_add:ident, $sum:ident, $slice:ident,
     $lanes:ident, $slice_mut:ident, $load:ident, $store:ident) => {
        impl Vectors for $type {
            type Vector<S: Simd> = S::$vector;

            #[inline(always)]
            fn zeros<S: Simd>(simd: S) -> S::$vector {
                simd.$splat(0.0)
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

            #[inline(always)]
            fn lanes<S: Simd>() -> usize {
                S::$lanes
            }

            #[inline(always)]
            fn splat<S: Simd>(simd: S, value: $type) -> S::$vector {
                simd.$splat(value)
            }

            #[inline(always)]
            fn vectors_mut<S: Simd>(slice: &mut [$type]) -> &mut [S::$vector] {
                S::$slice_mut(slice).0
            }

            #[inline(always)]
            fn load_part<S: Simd>(simd: S, slice: &[$type]) -> S::$vector {
                simd.$load(slice)
            }

            #[inline(always)]
            fn store_part<S: Simd>(simd: S, slice: &mut [$type], a: S::$vector) {
                simd.$store(slice, a)
            }
        }
    };
}

vectors!(
    f32,
    f32s,
    splat_f32s,
    mul_add_f32s,
    reduce_sum_f32s,
    as_simd_f32s,
    F32_LANES,
    as_mut_simd_f32s,
    partial_load_f32s,
    partial_store_f32s
);
vectors!(
    f64,
    f64s,
    splat_f64s,
    mul_add_f64s,
    reduce_sum_f64s,
    as_simd_f64s,
    F64_LANES,
    as_mut_simd_f64s,
    partial_load_f64s,
    partial_store_f64s
);

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
