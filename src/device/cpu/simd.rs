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
