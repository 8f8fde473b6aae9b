//! Elementary functions as branch-free polynomials, which the compiler turns into vector code inside
//! [`vectorized`](super::vectorized) loops.
//!
//! Every function holds over the whole range (NaN stays NaN, infinities and subnormal numbers give what the mathematics says)
//! and is inlined. Errors measured by the tests below, in units in the last place of the result:
//!
//! | function | f32 | f64 | how |
//! |---|---|---|---|
//! | `exponential` | 1 | 1 | x = n ln 2 + r, polynomial of degree 6 (13), 2^n in two steps so that subnormals round once |
//! | `exponential_nonpositive` | 1 | 1 | the same for x <= 0; results below the normal numbers are 0 |
//! | `logarithm` | 1 | 1 | x = 2^e m, 2 artanh((m - 1) / (m + 1)) by its series |
//! | `hyperbolic_tangent` | 2.5 | 3 | e^(2x) - 1 without cancellation, over itself plus 2 |
//! | `logistic` | 2.5 | 2 | 1 / (1 + e^-x), or e^x / (1 + e^x) where x < 0 |
//! | `quick_error_function` | 5.5 | 2 | x p(x^2) / q(x^2), whose absolute error in f32 is 3.3e-7; in f64 the next |
//! | `error_function` | 1.5 | 2 | an odd polynomial around 0; beyond, 1 - e^p(x) with p the polynomial nearest ln erfc |
//!
//! They use fused multiplication and addition; on a processor without it (x86 before 2013) they are right and slow. The
//! polynomials of `exponential` (f32) and of `erf` are minimax fits of our own, the others series.

/// The elementary functions of a number, for use inside vectorised loops. The names differ from those of `num_traits::Float`.
pub trait Elementary: Copy {
    /// $e^x$
    fn exponential(self) -> Self;

    /// $e^x$ for x <= 0 (or NaN), 0 where that is below the normal numbers.
    fn exponential_nonpositive(self) -> Self;

    /// $\ln x$
    fn logarithm(self) -> Self;

    /// $\tanh x$
    fn hyperbolic_tangent(self) -> Self;

    /// $1 / (1 + e^{-x})$
    fn logistic(self) -> Self;

    /// $\frac{2}{\sqrt\pi} \int_0^x e^{-t^2} dt$
    fn error_function(self) -> Self;

    /// The error function for an activation, with half of the work in f32.
    fn quick_error_function(self) -> Self;
}

/// A polynomial by Horner's rule, the constant first.
macro_rules! polynomial {
    ($type:ident, $x:expr; $last:expr) => { $last };
    ($type:ident, $x:expr; $first:expr, $($rest:expr),+) => {
        $type::mul_add(polynomial!($type, $x; $($rest),+), $x, $first)
    };
}

/// What differs between the two types is numbers alone.
macro_rules! elementary {
    (
        $type:ident, $bits:ident, $int:ident,
        mantissa: $mantissa:literal, magic: $magic:literal, ln2_rest: $ln2_low:literal,
        exp: $exp_low:literal to $exp_high:literal, normal_above: $normal:literal,
        exp_tail: [$($exp:expr),*], atanh_tail: [$($atanh:expr),*],
        tanh_one: $tanh_one:literal,
        quick: $quick:expr,
        erf_split: $erf_split:literal, erf_one: $erf_one:literal, erf_near: [$($near:expr),*], erf_far: [$($far:expr),*],
    ) => {
        impl Elementary for $type {
            #[inline(always)]
            fn exponential(self) -> Self {
                // Comparisons that NaN passes unchanged.
                let x = if self > $exp_high { $exp_high } else { self };
                let x = if x < $exp_low { $exp_low } else { x };
                let (n, r) = $type::reduced(x);
                let half = n >> 1;
                $type::exp_of_rest(r) * $type::power_of_two(half) * $type::power_of_two(n.wrapping_sub(half))
            }

            #[inline(always)]
            fn exponential_nonpositive(self) -> Self {
                let (n, r) = $type::reduced(self);
                let y = $type::exp_of_rest(r) * $type::power_of_two(n);
                if self < $normal { 0.0 } else { y }
            }

            #[inline(always)]
            fn logarithm(self) -> Self {
                const SCALE: $type = (1u64 << $mantissa) as $type;
                let subnormal = self < $type::MIN_POSITIVE;
                let x = if subnormal { self * SCALE } else { self };
                let bits = x.to_bits() as $int;
                let e = bits.wrapping_sub($type::to_bits(std::$type::consts::FRAC_1_SQRT_2) as $int) >> $mantissa;
                let m = $type::from_bits(bits.wrapping_sub(e << $mantissa) as $bits);
                let e = e as $type - if subnormal { $mantissa as $type } else { 0.0 };
                let f = m - 1.0;
                let s = f / (2.0 + f);
                let z = s * s;
                // ln(1 + f) = 2 artanh(s) = 2 s + s z p(z), and 2 s = f - s f exactly.
                let p: $type = polynomial!($type, z; $($atanh),*);
                let y = e.mul_add(std::$type::consts::LN_2, f - s.mul_add((-z).mul_add(p, f), -(e * $ln2_low)));
                let y = if self == $type::INFINITY { self } else { y };
                let y = if self == 0.0 { $type::NEG_INFINITY } else { y };
                if self < 0.0 || self.is_nan() { $type::NAN } else { y }
            }

            #[inline(always)]
            fn hyperbolic_tangent(self) -> Self {
                let x = self.abs();
                let x = if x > $tanh_one { $tanh_one } else { x };
                let (n, r) = $type::reduced(2.0 * x);
                // e^2x - 1 = 2^n (e^r - 1) + (2^n - 1): x is not negative, so the two terms do not cancel.
                let tail: $type = polynomial!($type, r; $($exp),*);
                let power = $type::power_of_two(n);
                let y = power.mul_add((r * r).mul_add(tail, r), power - 1.0);
                (y / (y + 2.0)).copysign(self)
            }

            #[inline(always)]
            fn logistic(self) -> Self {
                let e = (-self.abs()).exponential();
                (if self < 0.0 { e } else { 1.0 }) / (1.0 + e)
            }

            #[inline(always)]
            fn error_function(self) -> Self {
                let z = self * self;
                let near: $type = polynomial!($type, z; $($near),*);
                let near = self.mul_add(near, self);
                let x = self.abs();
                let x = if x > $erf_one { $erf_one } else { x };
                let far: $type = polynomial!($type, x; $($far),*);
                let far = (1.0 - far.exponential_nonpositive()).copysign(self);
                if x > $erf_split { far } else { near }
            }

            #[inline(always)]
            fn quick_error_function(self) -> Self {
                $quick(self)
            }
        }

        impl Parts for $type {
            type Int = $int;

            #[inline(always)]
            fn reduced(x: $type) -> ($int, $type) {
                // Adding 1.5 * 2^mantissa rounds to an integer and leaves it in the last bits.
                let shifted = x.mul_add(std::$type::consts::LOG2_E, $magic);
                let n = shifted - $magic;
                let r = n.mul_add(-$ln2_low, n.mul_add(-std::$type::consts::LN_2, x));
                ((shifted.to_bits() as $int).wrapping_sub($type::to_bits($magic) as $int), r)
            }

            #[inline(always)]
            fn power_of_two(n: $int) -> $type {
                $type::from_bits((n.wrapping_add($type::MAX_EXP as $int - 1) << $mantissa) as $bits)
            }

            #[inline(always)]
            fn exp_of_rest(r: $type) -> $type {
                polynomial!($type, r; 1.0, 1.0, $($exp),*)
            }
        }
    };
}

/// The pieces of an exponential.
trait Parts: Sized {
    type Int;

    /// `x = n ln 2 + r` with |r| <= ln 2 / 2, for moderate x.
    fn reduced(x: Self) -> (Self::Int, Self);

    /// `2^n`, for a normal result.
    fn power_of_two(n: Self::Int) -> Self;

    /// `e^r` for |r| <= ln 2 / 2.
    fn exp_of_rest(r: Self) -> Self;
}

elementary! {
    f32, u32, i32,
    mantissa: 23, magic: 12582912.0, ln2_rest: -1.904_654_3e-9,
    exp: -104.0 to 89.0, normal_above: -87.33,
    exp_tail: [0.499_999_94, 0.166_665_2, 0.041_668_396, 0.008_368_839, 0.001_381_478_3],
    atanh_tail: [2.0 / 3.0, 2.0 / 5.0, 2.0 / 7.0, 2.0 / 9.0, 2.0 / 11.0],
    tanh_one: 10.0,
    quick: quick_single,
    erf_split: 0.93, erf_one: 3.95,
    erf_near: [0.128_379_14, -0.376_124_47, 0.112_813_21, -0.026_748_892, 0.004_967_552, -0.000_586_232],
    erf_far: [
        -0.000_195_698_86, -1.127_675_7, -0.637_182_2, -0.103_931_755, 0.022_227_034, -0.003_043_253_2, 0.000_195_941_36
    ],
}

elementary! {
    f64, u64, i64,
    mantissa: 52, magic: 6755399441055744.0, ln2_rest: 2.3190468138462996e-17,
    exp: -746.0 to 710.0, normal_above: -708.39,
    exp_tail: [
        1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0, 1.0 / 40320.0, 1.0 / 362880.0,
        1.0 / 3628800.0, 1.0 / 39916800.0, 1.0 / 479001600.0, 1.0 / 6227020800.0
    ],
    atanh_tail: [
        2.0 / 3.0, 2.0 / 5.0, 2.0 / 7.0, 2.0 / 9.0, 2.0 / 11.0, 2.0 / 13.0, 2.0 / 15.0, 2.0 / 17.0, 2.0 / 19.0, 2.0 / 21.0
    ],
    tanh_one: 20.0,
    quick: Elementary::error_function,
    erf_split: 1.0, erf_one: 5.95,
    // 2 / sqrt(pi) (-1)^k / (k! (2 k + 1)), less 1 at k = 0.
    erf_near: [
        series(0) - 1.0 + 1.533545961316588e-17, series(1), series(2), series(3), series(4), series(5), series(6), series(7),
        series(8), series(9), series(10), series(11), series(12), series(13), series(14), series(15), series(16), series(17)
    ],
    erf_far: [
        -1.006844093630662e-06, -1.1283692162224799, -0.6366655088324423, -0.10264286619471563, 0.01887441057787796,
        0.00057269553192847, -0.0020879969686000252, 0.0009120988562628183, -0.00022621910799785135, 2.6051893548106805e-05,
        4.274495983529079e-06, -2.8466909278819388e-06, 7.219749024533185e-07, -1.1312569619913688e-07, 1.1385561486940536e-08,
        -6.808722353277567e-10, 1.8512721650346548e-11
    ],
}

/// The error function as the quotient of two polynomials, the nearest in relative terms on [0, 3.93].
#[inline(always)]
#[allow(clippy::approx_constant)] // Fitted: the first coefficient is the one below 2 / sqrt(pi).
fn quick_single(x: f32) -> f32 {
    let x = if x > 3.93 { 3.93 } else { x };
    let x = if x < -3.93 { -3.93 } else { x };
    let z = x * x;
    let above: f32 = polynomial!(f32, z;
        1.128_379_1, 0.190_767_63, 0.052_787_866, 0.003_778_843_7, 0.000_284_779_64, 2.041_938_8e-6);
    let below: f32 = polynomial!(f32, z;
        1.0, 0.502_396_1, 0.114_250_58, 0.014_995_906_5, 0.001_165_005_5, 3.800_223_6e-5);
    x * above / below
}

/// The `k`-th coefficient of erf's series in x^(2k + 1).
#[inline(always)]
const fn series(k: u32) -> f64 {
    let (mut value, mut i) = (std::f64::consts::FRAC_2_SQRT_PI, 0);
    while i < k {
        i += 1;
        value /= -(i as f64);
    }
    value / (2 * k + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distance of `got` from `want` in units in the last place of an f32 (of a subnormal at least).
    fn ulps32(got: f32, want: f64) -> f64 {
        if got as f64 == want || got == want as f32 || (got.is_nan() && want.is_nan()) {
            return 0.0;
        }
        let step = 2.0f64.powi((want.abs().log2().floor() as i32).max(-126) - 23);
        let error = (got as f64 - want).abs() / step;
        if error.is_nan() { f64::INFINITY } else { error }
    }

    fn ulps64(got: f64, want: f64) -> f64 {
        if got == want || (got.is_nan() && want.is_nan()) {
            return 0.0;
        }
        let exponent = (want.abs().log2().floor() as i32).max(-1022) - 52;
        // A power of two that is subnormal takes two steps.
        let step = 2.0f64.powi(exponent + 60) * 2.0f64.powi(-60);
        let error = (got - want).abs() / step;
        if error.is_nan() { f64::INFINITY } else { error }
    }

    /// Compares over all bit patterns in a stride that meets every exponent and NaN, infinities, zeros.
    fn dense32(name: &str, most: f64, f: impl Fn(f32) -> f32, reference: impl Fn(f64) -> f64) {
        let mut worst = (0.0, 0.0f32);
        let special =
            [0.0, -0.0, 1.0, -1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN, f32::MIN_POSITIVE];
        let dense = (0..u32::MAX / 1009).map(|i| f32::from_bits(i * 1009));
        let linear = (-400_000..400_000).map(|i| i as f32 * 2.7e-4);
        for x in special.into_iter().chain(dense).chain(linear) {
            let error = ulps32(f(x), reference(x as f64));
            if error > worst.0 {
                worst = (error, x);
            }
        }
        assert!(worst.0 <= most, "{name}: {} ulp at {:e}", worst.0, worst.1);
    }

    fn dense64(name: &str, most: f64, f: impl Fn(f64) -> f64, reference: impl Fn(f64) -> f64) {
        let mut worst = (0.0, 0.0);
        let special =
            [0.0, -0.0, 1.0, -1.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, f64::MAX, f64::MIN, f64::MIN_POSITIVE];
        let dense = (0..300_000u64).map(|i| f64::from_bits(i * (u64::MAX / 300_000)));
        let linear = (-400_000..400_000).map(|i| i as f64 * 1.9e-3);
        let fine = (-200_000..200_000).map(|i| i as f64 * 3.1e-5);
        for x in special.into_iter().chain(dense).chain(linear).chain(fine) {
            let error = ulps64(f(x), reference(x));
            if error > worst.0 {
                worst = (error, x);
            }
        }
        assert!(worst.0 <= most, "{name}: {} ulp at {:e}", worst.0, worst.1);
    }

    #[test]
    fn exponentials() {
        dense32("exp", 1.01, f32::exponential, f64::exp);
        dense64("exp", 1.5, f64::exponential, f64::exp);
        let cut32 = |x: f64| if x < -87.33 { 0.0 } else { x.exp() };
        dense32("exp of x <= 0", 1.01, |x| (-x.abs()).exponential_nonpositive(), |x| cut32(-x.abs()));
        let cut64 = |x: f64| if x < -708.39 { 0.0 } else { x.exp() };
        dense64("exp of x <= 0", 1.5, |x| (-x.abs()).exponential_nonpositive(), |x| cut64(-x.abs()));
        assert_eq!(f32::NEG_INFINITY.exponential_nonpositive(), 0.0);
        assert_eq!(0.0f32.exponential_nonpositive(), 1.0);
    }

    #[test]
    fn logarithms() {
        dense32("ln", 1.01, f32::logarithm, f64::ln);
        dense64("ln", 1.5, f64::logarithm, f64::ln);
    }

    #[test]
    fn tangents_and_logistics() {
        dense32("tanh", 2.5, f32::hyperbolic_tangent, f64::tanh);
        dense64("tanh", 3.0, f64::hyperbolic_tangent, f64::tanh);
        let logistic = |x: f64| if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) };
        dense32("logistic", 2.5, f32::logistic, logistic);
        dense64("logistic", 2.0, f64::logistic, logistic);
        assert!(f32::NAN.hyperbolic_tangent().is_nan());
        assert_eq!((-0.0f32).hyperbolic_tangent().to_bits(), (-0.0f32).to_bits());
    }

    #[test]
    fn error_functions() {
        dense32("quick erf", 5.5, f32::quick_error_function, f64::error_function);
        assert_eq!([f32::INFINITY, f32::NEG_INFINITY].map(f32::quick_error_function), [1.0, -1.0]);
        assert!(f32::NAN.quick_error_function().is_nan());
        assert_eq!(1.5f64.quick_error_function(), 1.5f64.error_function());
        dense32("erf", 1.5, f32::error_function, f64::error_function);
        // From mpmath, at 40 digits.
        for (x, want) in ERF {
            assert!(ulps64(x.error_function(), want) <= 2.0, "erf {x}: {:e} is not {want:e}", x.error_function());
            assert_eq!((-x).error_function(), -x.error_function());
        }
        assert_eq!(f64::INFINITY.error_function(), 1.0);
        assert_eq!(f64::NEG_INFINITY.error_function(), -1.0);
        assert!(f64::NAN.error_function().is_nan());
        assert_eq!(5e-324f64.error_function(), 5e-324);
        // Nothing jumps between the points above: the slope is 2 / sqrt(pi) e^-x^2.
        for i in -60_000..60_000 {
            let (a, b) = (i as f64 * 1e-4, (i + 1) as f64 * 1e-4);
            let middle = std::f64::consts::FRAC_2_SQRT_PI * (-(0.25 * (a + b) * (a + b))).exp();
            let slope = (b.error_function() - a.error_function()) / (b - a);
            assert!((slope - middle).abs() < 1e-8, "{a}: {slope} is not {middle}");
        }
    }

    const ERF: [(f64, f64); 33] = [
        (1e-300, 1.1283791670955126e-300),
        (1e-20, 1.1283791670955125e-20),
        (1e-08, 1.1283791670955126e-08),
        (0.001, 0.0011283787909692365),
        (0.0625, 0.07043197772238707),
        (0.25, 0.27632639016823696),
        (0.4, 0.42839235504666845),
        (0.5, 0.5204998778130465),
        (0.6, 0.6038560908479259),
        (0.75, 0.7111556336535151),
        (0.9, 0.7969082124228322),
        (0.95, 0.8208908072732779),
        (0.99, 0.8385080695553698),
        (1.0, 0.8427007929497149),
        (1.0000000001, 0.8427007929912256),
        (1.05, 0.8624361060900967),
        (1.1, 0.8802050695740817),
        (1.25, 0.9229001282564583),
        (1.5, 0.9661051464753108),
        (1.75, 0.9866716712191824),
        (2.0, 0.9953222650189527),
        (2.25, 0.9985372834133188),
        (2.5, 0.999593047982555),
        (3.0, 0.9999779095030014),
        (3.5, 0.9999992569016276),
        (4.0, 0.9999999845827421),
        (4.5, 0.9999999998033839),
        (5.0, 0.9999999999984626),
        (5.5, 0.9999999999999927),
        (5.9, 0.9999999999999999),
        (6.0, 1.0),
        (7.0, 1.0),
        (30.0, 1.0),
    ];
}
