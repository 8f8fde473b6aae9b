//! [`Draw`]: random numbers from a seed and a place.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Beta, Distribution};

/// The random numbers of one image, or of what a batch has in common. Written out where that is short: what a seed gives should not
/// change with the version of a library.
pub(in crate::vision) struct Draw(ChaCha8Rng);

impl Draw {
    /// Those of the place in a batch; `None` for the batch itself.
    pub(in crate::vision) fn new(seed: u64, place: Option<usize>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(place.map_or(u64::MAX, |place| place as u64));
        Self(rng)
    }

    /// Uniform in 0 to 1, 1 excluded.
    pub(super) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (-53f64).exp2()
    }

    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A whole number below `n`.
    pub(super) fn whole(&mut self, n: u32) -> u32 {
        ((u64::from(self.0.next_u32()) * u64::from(n)) >> 32) as u32
    }

    /// From the beta distribution of (alpha, alpha).
    pub(super) fn beta(&mut self, alpha: f64) -> f64 {
        // Settings that are none are refused before.
        Beta::new(alpha, alpha).map_or(1.0, |beta| beta.sample(&mut self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lie_where_they_should() {
        let mut draw = Draw::new(1, Some(0));
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let units: Vec<f64> = (0..4000).map(|_| draw.between(-1.0, 3.0)).collect();
        assert!(units.iter().all(|x| (-1.0..3.0).contains(x)) && (mean(&units) - 1.0).abs() < 0.06);
        let mut counts = [0; 5];
        (0..5000).for_each(|_| counts[draw.whole(5) as usize] += 1);
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
        let shares: Vec<f64> = (0..4000).map(|_| draw.beta(0.2)).collect();
        assert!((mean(&shares) - 0.5).abs() < 0.03);
        assert!(shares.iter().filter(|x| (0.1..0.9).contains(*x)).count() < 1800, "most lie near the ends");
    }

    #[test]
    fn places_have_numbers_of_their_own() {
        let first = |seed, place| Draw::new(seed, place).unit();
        assert_eq!(first(1, Some(3)), first(1, Some(3)));
        let all = [first(1, Some(3)), first(1, Some(4)), first(2, Some(3)), first(1, None)];
        assert!((0..4).all(|i| !all[..i].contains(&all[i])));
    }
}
