//! Activations on the host: one read and one write forward, two reads and one write back.

use super::{Cpu, elementwise::rows, vectorized};
use crate::{device::activation::Activation, scalar::Scalar};

/// Numbers that the formulas need, in the type at hand.
struct Numbers<T> {
    half: T,
    sqrt_half: T,
    /// 1 / sqrt(2 pi)
    density: T,
    /// 2 sqrt(2 / pi)
    tanh_scale: T,
    cubic: T,
    six: T,
}

impl<T: Scalar> Numbers<T> {
    fn new() -> Self {
        Self {
            half: T::of(0.5),
            sqrt_half: T::FRAC_1_SQRT_2(),
            density: T::of(0.398_942_280_401_432_7),
            tanh_scale: T::of(1.595_769_121_605_731),
            cubic: T::of(0.044_715),
            six: T::of(6.0),
        }
    }
}

/// `out[i] = f(x[i])`, with a plain loop: what is as large as these functions is inlined into nothing less.
#[inline(always)]
fn each<T: Scalar>(cpu: &Cpu, x: &[T], out: &mut [T], f: impl Fn(T) -> T + Sync) {
    rows(cpu, out, 1, &|range, out| {
        vectorized(
            #[inline(always)]
            || {
                for (out, &x) in out.iter_mut().zip(&x[range.clone()]) {
                    *out = f(x);
                }
            },
        )
    });
}

/// `out[i] = f(x[i], y[i])`
#[inline(always)]
fn each2<T: Scalar>(cpu: &Cpu, x: &[T], y: &[T], out: &mut [T], f: impl Fn(T, T) -> T + Sync) {
    rows(cpu, out, 1, &|range, out| {
        vectorized(
            #[inline(always)]
            || {
                for (out, (&x, &y)) in out.iter_mut().zip(x[range.clone()].iter().zip(&y[range.clone()])) {
                    *out = f(x, y);
                }
            },
        )
    });
}

/// `out[i] = f(x[i])`
pub(crate) fn forward<T: Scalar>(cpu: &Cpu, f: Activation, x: &[T], out: &mut [T]) {
    let Numbers { half, sqrt_half, tanh_scale, cubic, six, .. } = Numbers::<T>::new();
    let (zero, one) = (T::zero(), T::one());
    macro_rules! run {
        (|$x:ident| $y:expr) => {
            each(
                cpu,
                x,
                out,
                #[inline(always)]
                move |$x: T| $y,
            )
        };
    }
    match f {
        Activation::Gelu => run!(|x| {
            let h = half * x;
            h.mul_add((x * sqrt_half).quick_error_function(), h)
        }),
        Activation::GeluTanh => run!(|x| x * (tanh_scale * x * (cubic * x).mul_add(x, one)).logistic()),
        // Written so that NaN stays.
        Activation::Relu => run!(|x| if x < zero { zero } else { x }),
        Activation::Relu6 => run!(|x| {
            let x = if x < zero { zero } else { x };
            if x > six { six } else { x }
        }),
        Activation::Silu => run!(|x| x * x.logistic()),
        Activation::Tanh => run!(|x| x.hyperbolic_tangent()),
        Activation::Sigmoid => run!(|x| x.logistic()),
        Activation::Exp => run!(|x| x.exponential()),
        Activation::Log => run!(|x| x.logarithm()),
    }
}

/// `dx[i] = dy[i] f'`, from the argument or the result.
pub(crate) fn backward<T: Scalar>(cpu: &Cpu, f: Activation, saved: &[T], dy: &[T], dx: &mut [T]) {
    let Numbers { half, sqrt_half, density, tanh_scale, cubic, six } = Numbers::<T>::new();
    let (zero, one, three, far) = (T::zero(), T::one(), T::of(3.0), T::of(64.0));
    macro_rules! run {
        (|$x:ident, $dy:ident| $dx:expr) => {
            each2(
                cpu,
                saved,
                dy,
                dx,
                #[inline(always)]
                move |$x: T, $dy: T| $dx,
            )
        };
    }
    match f {
        // Phi(x) + x phi(x)
        Activation::Gelu => run!(|x, dy| {
            let phi = density * (-half * x * x).exponential_nonpositive();
            let cumulative = half.mul_add((x * sqrt_half).quick_error_function(), half);
            dy * x.mul_add(phi, cumulative)
        }),
        // s + x s (1 - s) 2u', s = 1 / (1 + e^(-2 u))
        Activation::GeluTanh => run!(|x, dy| {
            // Beyond, the slope is 0 or 1 to the last bit, and the cube would overflow.
            let x = if x > far { far } else { x };
            let x = if x < -far { -far } else { x };
            let square = x * x;
            let s = (tanh_scale * x * cubic.mul_add(square, one)).logistic();
            let slope = tanh_scale * (three * cubic).mul_add(square, one);
            dy * s.mul_add(x * (one - s) * slope, s)
        }),
        Activation::Relu => run!(|x, dy| if x > zero || x.is_nan() { dy } else { zero }),
        Activation::Relu6 => run!(|x, dy| if x <= zero || x >= six { zero } else { dy }),
        // s (1 + x (1 - s))
        Activation::Silu => run!(|x, dy| {
            let s = x.logistic();
            dy * s * x.mul_add(one - s, one)
        }),
        Activation::Tanh => run!(|y, dy| dy * (-y).mul_add(y, one)),
        Activation::Sigmoid => run!(|y, dy| dy * y * (one - y)),
        Activation::Exp => run!(|y, dy| dy * y),
        Activation::Log => run!(|x, dy| dy / x),
    }
}
