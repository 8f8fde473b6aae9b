//! [`Init`]: what parameters start as, by PyTorch's formulas, from a generator that the caller seeds.

use crate::{
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Ix2, IxDyn};
use rand::{Rng, RngExt};
use rand_distr::{Distribution, Exp1, StandardNormal};

/// Which side of a weight a Kaiming start keeps the variance of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fan {
    /// That of the forward pass: the number of inputs of an output.
    In,
    /// That of the backward pass: the number of outputs of an input.
    Out,
}

/// What follows a layer, for the factor that keeps the variance: `torch.nn.init.calculate_gain`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Nonlinearity {
    /// Nothing, or a sigmoid: 1.
    Linear,
    /// 5/3.
    Tanh,
    /// The square root of 2.
    Relu,
    /// With this slope below 0: the square root of 2 / (1 + slope squared).
    LeakyRelu(f64),
    /// 3/4.
    Selu,
}

impl Nonlinearity {
    /// The factor.
    ///
    /// ```
    /// assert_eq!(tenfold::nn::Nonlinearity::LeakyRelu(1.0).gain(), 1.0);
    /// ```
    pub fn gain(self) -> f64 {
        match self {
            Self::Linear => 1.0,
            Self::Tanh => 5.0 / 3.0,
            Self::Relu => 2f64.sqrt(),
            Self::LeakyRelu(slope) => (2.0 / (1.0 + slope * slope)).sqrt(),
            Self::Selu => 0.75,
        }
    }
}

/// How the entries of a parameter start.
///
/// Entries are drawn in row-major order and in double precision, then rounded: the same generator gives the same numbers in `f32`
/// as in `f64` up to rounding.
///
/// | PyTorch | here |
/// |---|---|
/// | `xavier_uniform_(w, gain)` | `Init::XavierUniform { gain }` |
/// | `kaiming_normal_(w, nonlinearity="relu")` | `Init::KaimingNormal { fan: Fan::In, gain: Nonlinearity::Relu.gain() }` |
/// | `kaiming_uniform_(w, a=s)` | `Init::KaimingUniform { fan: Fan::In, gain: Nonlinearity::LeakyRelu(s).gain() }` |
/// | `trunc_normal_(w, std=s)` | `Init::TruncatedNormal { mean: 0.0, std: s, low: -2.0, high: 2.0 }` |
///
/// X. Glorot and Y. Bengio, *Understanding the difficulty of training deep feedforward neural networks*, AISTATS 2010; K. He et al.,
/// *Delving deep into rectifiers*, ICCV 2015; A. M. Saxe et al., *Exact solutions to the nonlinear dynamics of learning in deep
/// linear neural networks*, ICLR 2014.
///
/// ```
/// use rand::SeedableRng;
/// use rand_chacha::ChaCha8Rng;
/// use tenfold::nn::Init;
///
/// let init = Init::XavierUniform { gain: 1.0 };
/// let w = init.tensor::<f32, _>(&[64, 32], &mut ChaCha8Rng::seed_from_u64(1))?;
/// assert!(w.max_abs()? <= (6.0f64 / 96.0).sqrt());
/// assert_eq!(w, init.tensor(&[64, 32], &mut ChaCha8Rng::seed_from_u64(1))?);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// 0.
    Zeros,
    /// 1.
    Ones,
    /// A number.
    Constant(f64),
    /// Uniform between two numbers.
    Uniform {
        /// The smallest.
        low: f64,
        /// The largest.
        high: f64,
    },
    /// Normal.
    Normal {
        /// The mean.
        mean: f64,
        /// The standard deviation.
        std: f64,
    },
    /// Normal, drawn again outside of an interval. The interval is one of values, not of standard deviations, as PyTorch's is.
    TruncatedNormal {
        /// The mean before anything is cut off.
        mean: f64,
        /// The standard deviation before anything is cut off.
        std: f64,
        /// The smallest.
        low: f64,
        /// The largest.
        high: f64,
    },
    /// Uniform with variance $2 g^2 / (\text{fan in} + \text{fan out})$.
    XavierUniform {
        /// $g$
        gain: f64,
    },
    /// Normal with variance $2 g^2 / (\text{fan in} + \text{fan out})$.
    XavierNormal {
        /// $g$
        gain: f64,
    },
    /// Uniform with variance $g^2 / \text{fan}$.
    KaimingUniform {
        /// Which fan.
        fan: Fan,
        /// $g$
        gain: f64,
    },
    /// Normal with variance $g^2 / \text{fan}$.
    KaimingNormal {
        /// Which fan.
        fan: Fan,
        /// $g$
        gain: f64,
    },
    /// The first mode against all others as a matrix: $g$ times orthonormal rows or columns, whichever are fewer, uniform among all such.
    Orthogonal {
        /// $g$
        gain: f64,
    },
}

/// The fan in and fan out of a weight `[out, in, *kernel]`: `in` and `out` times the kernel's size. (Of a transposed convolution's weight
/// `[in, out, *kernel]` they are the other way round, in PyTorch too.)
///
/// ```
/// assert_eq!(tenfold::nn::fans(&[8, 3, 5, 5])?, (75, 200));
/// # Ok::<(), tenfold::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`] for fewer than two modes.
pub fn fans(shape: &[usize]) -> Result<(usize, usize)> {
    match shape {
        [outputs, inputs, kernel @ ..] => {
            let size: usize = kernel.iter().product();
            Ok((inputs * size, outputs * size))
        }
        _ => Err(Error::shape(
            "init",
            format!("shape {shape:?} has no fans; it needs two modes or more, [out, in, *kernel]"),
        )),
    }
}

impl Init {
    /// Uniform between plus and minus `bound`.
    pub fn around_zero(bound: f64) -> Self {
        Self::Uniform { low: -bound, high: bound }
    }

    /// A tensor of this start.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where an interval is empty or a number is not finite, or a deviation is negative;
    /// [`ErrorKind::Shape`] where fans need more modes than the shape has, and for order 0; [`ErrorKind::Memory`].
    pub fn tensor<T: Scalar, R: Rng + ?Sized>(&self, shape: &[usize], rng: &mut R) -> Result<Tensor<T, IxDyn>> {
        if let Some(wrong) = self.wrong() {
            return Err(Error::new(ErrorKind::Value, "init", format!("{self:?}: {wrong}")));
        }
        let drawn = |draw: &mut dyn FnMut() -> f64| Ok(Tensor::from_fn(shape, |_| T::of(draw()))?.into_dyn());
        let normal =
            |mean: f64, std: f64, rng: &mut R| drawn(&mut || std.mul_add(rng.sample::<f64, _>(StandardNormal), mean));
        match *self {
            Self::Zeros => Ok(Tensor::zeros(shape)?.into_dyn()),
            Self::Ones => Ok(Tensor::ones(shape)?.into_dyn()),
            Self::Constant(value) => Ok(Tensor::full(shape, T::of(value))?.into_dyn()),
            Self::Uniform { low, high } => drawn(&mut || low + (high - low) * rng.random::<f64>()),
            Self::Normal { mean, std } => normal(mean, std, rng),
            Self::TruncatedNormal { mean, std: 0.0, low, high } => {
                Self::Constant(mean.clamp(low, high)).tensor(shape, rng)
            }
            Self::TruncatedNormal { mean, std, low, high } => {
                let (a, b) = ((low - mean) / std, (high - mean) / std);
                drawn(&mut || std.mul_add(truncated(a, b, rng), mean).clamp(low, high))
            }
            Self::XavierUniform { gain } | Self::XavierNormal { gain } => {
                let (inputs, outputs) = fans(shape)?;
                self.of_deviation(gain * (2.0 / (inputs + outputs).max(1) as f64).sqrt()).tensor(shape, rng)
            }
            Self::KaimingUniform { fan, gain } | Self::KaimingNormal { fan, gain } => {
                let (inputs, outputs) = fans(shape)?;
                let fan = if fan == Fan::In { inputs } else { outputs };
                self.of_deviation(gain / (fan.max(1) as f64).sqrt()).tensor(shape, rng)
            }
            Self::Orthogonal { gain } => {
                fans(shape)?;
                let q = orthogonal(shape[0], shape[1..].iter().product(), rng)?;
                Ok(q.scale(gain)?.cast::<T>()?.to_contiguous()?.reshape(shape)?.into_dyn())
            }
        }
    }

    /// The same kind of distribution around 0 with this standard deviation.
    fn of_deviation(&self, std: f64) -> Self {
        match self {
            Self::XavierUniform { .. } | Self::KaimingUniform { .. } => Self::around_zero(3f64.sqrt() * std.abs()),
            _ => Self::Normal { mean: 0.0, std: std.abs() },
        }
    }

    /// What is wrong with the numbers, if anything.
    fn wrong(&self) -> Option<&'static str> {
        let (numbers, std, [low, high]) = match *self {
            Self::Zeros | Self::Ones => return None,
            Self::Constant(value) => ([value, 0.0], 0.0, [0.0; 2]),
            Self::Uniform { low, high } => ([low, high], 0.0, [low, high]),
            Self::Normal { mean, std } => ([mean, std], std, [0.0; 2]),
            Self::TruncatedNormal { mean, std, low, high } => ([mean, std], std, [low, high]),
            Self::XavierUniform { gain }
            | Self::XavierNormal { gain }
            | Self::KaimingUniform { gain, .. }
            | Self::KaimingNormal { gain, .. }
            | Self::Orthogonal { gain } => ([gain, 0.0], 0.0, [0.0; 2]),
        };
        if numbers.iter().any(|x| !x.is_finite()) || low.is_nan() || high.is_nan() {
            return Some("its numbers have to be finite");
        }
        if std < 0.0 {
            return Some("a standard deviation is not negative");
        }
        // An interval between two infinities of one sign holds nothing.
        let empty = low > high || (low == high && low.is_infinite());
        empty.then_some("the interval is empty")
    }
}

/// A standard normal number between a and b, by rejection from whatever lies closest (C. P. Robert, *Simulation of truncated
/// normal variables*, Statistics and Computing 5, 1995).
fn truncated<R: Rng + ?Sized>(a: f64, b: f64, rng: &mut R) -> f64 {
    if a <= 0.0 && b >= 0.0 && b - a > 2.0 {
        return accepted(|| {
            let x: f64 = StandardNormal.sample(rng);
            (a <= x && x <= b).then_some(x)
        });
    }
    if b < 0.0 {
        return -truncated(-b, -a, rng);
    }
    // What the density is largest at.
    let top = a.max(0.0);
    if a > 0.0 && (b - a) * a > 1.0 {
        // A tail: an exponential that touches the density at a.
        return accepted(|| {
            let beyond: f64 = rng.sample::<f64, _>(Exp1) / a;
            let (x, chance) = (a + beyond, rng.random::<f64>());
            (x <= b && chance <= (-0.5 * beyond * beyond).exp()).then_some(x)
        });
    }
    accepted(|| {
        let (x, chance) = (a + (b - a) * rng.random::<f64>(), rng.random::<f64>());
        (chance <= (0.5 * (top - x) * (top + x)).exp()).then_some(x)
    })
}

/// The first proposal that is accepted.
fn accepted(mut propose: impl FnMut() -> Option<f64>) -> f64 {
    loop {
        if let Some(x) = propose() {
            return x;
        }
    }
}

/// Orthonormal rows or columns, whichever are fewer, uniform (Haar): the Q of a normal matrix, with the signs that make R's diagonal
/// positive (F. Mezzadri, *How to generate random matrices from the classical compact groups*, Notices of the AMS 54, 2007).
fn orthogonal<R: Rng + ?Sized>(rows: usize, cols: usize, rng: &mut R) -> Result<Tensor<f64, Ix2>> {
    let normal = Tensor::<f64, Ix2>::normal([rows, cols], rng)?;
    if normal.is_empty() {
        return Ok(normal);
    }
    let wide = rows < cols;
    let qr = if wide { normal.t() } else { normal }.qr()?;
    let k = rows.min(cols);
    let signs = (0..k).map(|i| Ok(qr.r.get(&[i, i])?.signum())).collect::<Result<Vec<f64>>>()?;
    let q = qr.q.mul(&Tensor::from_vec([1, k], signs)?)?.into_order::<Ix2>()?;
    Ok(if wide { q.t() } else { q })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn rng() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(11)
    }

    fn drawn(init: Init, shape: &[usize]) -> Vec<f64> {
        init.tensor::<f64, _>(shape, &mut rng()).unwrap().to_vec().unwrap()
    }

    /// Mean and standard deviation.
    fn moments(x: &[f64]) -> (f64, f64) {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        (mean, (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64).sqrt())
    }

    #[test]
    fn moments_and_bounds_are_those_of_the_formulas() {
        let shape = [64, 20, 5, 5];
        let (fan_in, fan_out) = (500.0, 1600.0);
        let relu = Nonlinearity::Relu.gain();
        for (init, std, bound) in [
            (Init::Normal { mean: 0.0, std: 0.02 }, 0.02, f64::INFINITY),
            (Init::around_zero(0.5), 0.5 / 3f64.sqrt(), 0.5),
            (Init::XavierUniform { gain: 2.0 }, 2.0 * (2.0f64 / 2100.0).sqrt(), 2.0 * (6.0f64 / 2100.0).sqrt()),
            (Init::XavierNormal { gain: 2.0 }, 2.0 * (2.0f64 / 2100.0).sqrt(), f64::INFINITY),
            (Init::KaimingUniform { fan: Fan::In, gain: relu }, (2.0f64 / fan_in).sqrt(), (6.0f64 / fan_in).sqrt()),
            (Init::KaimingUniform { fan: Fan::Out, gain: 1.0 }, (1.0f64 / fan_out).sqrt(), (3.0f64 / fan_out).sqrt()),
            (Init::KaimingNormal { fan: Fan::In, gain: relu }, (2.0f64 / fan_in).sqrt(), f64::INFINITY),
            (Init::KaimingNormal { fan: Fan::Out, gain: relu }, (2.0f64 / fan_out).sqrt(), f64::INFINITY),
            // Cut off at one deviation: the variance of what is left is 1 - 2 phi(1) / (2 Phi(1) - 1).
            (Init::TruncatedNormal { mean: 0.0, std: 3.0, low: -3.0, high: 3.0 }, 3.0 * 0.539_560_4, 3.0),
        ] {
            let x = drawn(init, &shape);
            let (mean, deviation) = moments(&x);
            // Five standard errors of 32 000 draws.
            assert!(mean.abs() < 0.03 * std, "{init:?}: mean {mean}");
            assert!((deviation / std - 1.0).abs() < 0.02, "{init:?}: deviation {deviation}, not {std}");
            let largest = x.iter().fold(0.0f64, |most, x| most.max(x.abs()));
            assert!(largest <= bound && (bound.is_infinite() || largest > 0.99 * bound), "{init:?}: {largest}");
        }
        assert_eq!(drawn(Init::Constant(0.25), &[3]), [0.25; 3]);
        assert_eq!([drawn(Init::Zeros, &[2]), drawn(Init::Ones, &[2])], [[0.0; 2], [1.0; 2]]);
    }

    #[test]
    fn truncated_normals_have_the_right_mean_wherever_the_interval_lies() {
        // Means of the truncated standard normal, (phi(a) - phi(b)) / (Phi(b) - Phi(a)), to seven digits.
        for (low, high, expected) in [
            (-1.0, 3.0, 0.282_786_1),
            (0.5, 1.0, 0.734_540_5),
            (2.0, f64::INFINITY, 2.373_215_5),
            (4.0, 4.1, 4.046_635_3),
            (-9.0, -5.0, -5.186_504_0),
            (-0.5, 0.25, -0.119_250_6),
            (30.0, 40.0, 30.033_259_7),
        ] {
            let x = drawn(Init::TruncatedNormal { mean: 0.0, std: 1.0, low, high }, &[40_000]);
            let (mean, deviation) = moments(&x);
            assert!(x.iter().all(|&x| low <= x && x <= high), "[{low}, {high}]");
            assert!((mean - expected).abs() < 0.025 * deviation, "[{low}, {high}]: mean {mean}, not {expected}");
        }
        let shifted = drawn(Init::TruncatedNormal { mean: 5.0, std: 0.5, low: 5.0, high: 100.0 }, &[40_000]);
        assert!((moments(&shifted).0 - 5.0 - 0.5 * (2.0 / std::f64::consts::PI).sqrt()).abs() < 0.01);
        assert_eq!(drawn(Init::TruncatedNormal { mean: 5.0, std: 0.0, low: 0.0, high: 1.0 }, &[2]), [1.0; 2]);
    }

    #[test]
    fn orthogonal_rows_or_columns() {
        for shape in [&[6, 4][..], &[4, 6], &[5, 5], &[1, 3], &[4, 2, 3, 3], &[8, 1, 2]] {
            let w = Init::Orthogonal { gain: 3.0 }.tensor::<f64, _>(shape, &mut rng()).unwrap();
            let matrix: Tensor<f64, Ix2> = w.reshape([shape[0], w.len() / shape[0]]).unwrap();
            let wide = matrix.shape()[0] < matrix.shape()[1];
            let gram = if wide { matrix.matmul(&matrix.t()) } else { matrix.t().matmul(&matrix) }.unwrap();
            let k = gram.shape()[0];
            let eye = Tensor::<f64, Ix2>::eye(k).unwrap().scale(9.0).unwrap();
            assert!(gram.sub(&eye).unwrap().max_abs().unwrap() < 1e-12, "{shape:?}");
        }
        // The sign fix: without it Householder's Q of a column would always have one sign.
        let mut rng = rng();
        let first: Vec<bool> =
            (0..200).map(|_| orthogonal(3, 1, &mut rng).unwrap().get(&[0, 0]).unwrap() > 0.0).collect();
        let positive = first.iter().filter(|&&p| p).count();
        assert!((60..140).contains(&positive), "{positive} of 200 are positive");
    }

    #[test]
    fn the_same_numbers_in_either_precision() {
        for init in [
            Init::Normal { mean: 1.0, std: 2.0 },
            Init::XavierUniform { gain: 1.0 },
            Init::Orthogonal { gain: 1.0 },
            Init::TruncatedNormal { mean: 0.0, std: 1.0, low: -2.0, high: 2.0 },
        ] {
            let single = init.tensor::<f32, _>(&[7, 5], &mut rng()).unwrap().to_vec().unwrap();
            let double = drawn(init, &[7, 5]);
            assert!(single.iter().zip(&double).all(|(&s, &d)| s == d as f32), "{init:?}");
        }
    }

    #[test]
    fn fans_are_pytorchs() {
        assert_eq!(fans(&[7, 3]).unwrap(), (3, 7));
        assert_eq!(fans(&[8, 4, 3]).unwrap(), (12, 24));
        assert_eq!(fans(&[8, 1, 7, 7]).unwrap(), (49, 392));
        let error = Init::XavierUniform { gain: 1.0 }.tensor::<f64, _>(&[3], &mut rng()).unwrap_err();
        assert_eq!(error.to_string(), "init: shape [3] has no fans; it needs two modes or more, [out, in, *kernel]");
    }

    #[test]
    fn impossible_numbers_are_refused() {
        for init in [
            Init::Uniform { low: 1.0, high: 0.0 },
            Init::Normal { mean: 0.0, std: -1.0 },
            Init::Normal { mean: f64::NAN, std: 1.0 },
            Init::TruncatedNormal { mean: 0.0, std: 1.0, low: 2.0, high: 1.0 },
            Init::TruncatedNormal { mean: 0.0, std: 1.0, low: f64::NAN, high: 1.0 },
            Init::TruncatedNormal { mean: 0.0, std: 1.0, low: f64::INFINITY, high: f64::INFINITY },
            Init::KaimingNormal { fan: Fan::In, gain: f64::INFINITY },
        ] {
            let error = init.tensor::<f64, _>(&[2, 2], &mut rng()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Value, "{error}");
        }
        for shape in [&[0, 3][..], &[3, 0]] {
            for init in [Init::XavierNormal { gain: 1.0 }, Init::Orthogonal { gain: 1.0 }] {
                assert_eq!(init.tensor::<f64, _>(shape, &mut rng()).unwrap().shape(), shape);
            }
        }
    }
}
