//! A sweep of non-negative Tucker: every factor, and after each the core, with all others fixed. Nobody waits in it.

use super::{
    Tucker,
    halves::{halves, project},
    normal::rows,
    tucker::unit_columns,
};
use crate::{
    algebra::{MultiMode, contract, inner_unread},
    device::{
        elementwise::Binary,
        reduce::{self, Total},
    },
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Dimension, Ix1, Ix2};

/// Steps of the accelerated projected gradient for the core, after every factor.
const STEPS: usize = 20;

/// Where a run stands.
pub(super) struct State<T: Scalar, D: Dimension> {
    core: Tensor<f64, D>,
    /// With columns of norm 1, or zero.
    factors: Vec<Tensor<T, Ix2>>,
    /// A^T A of each.
    grams: Vec<Tensor<f64, Ix2>>,
    /// Single numbers where the tensor is, with modes of size 1.
    zero: Tensor<f64, D>,
    one: Tensor<f64, D>,
}

impl<T: Scalar, D: Dimension> State<T, D> {
    pub(super) fn new(core: Tensor<f64, D>, factors: Vec<Tensor<T, Ix2>>) -> Result<Self> {
        let number = |x: f64| Tensor::from_vec(vec![1; core.order()], vec![x])?.into_order()?.to_device(core.device());
        let (zero, one) = (number(0.0)?, number(1.0)?);
        let mut state = Self { core, grams: Vec::new(), factors: Vec::new(), zero, one };
        for (mode, factor) in factors.iter().enumerate() {
            let (factor, gram) = state.unit_factor(mode, &factor.cast()?)?;
            state.factors.push(factor);
            state.grams.push(gram);
        }
        Ok(state)
    }

    /// A factor with columns of norm 1 and its Gram matrix; the norms go to the core.
    fn unit_factor(&mut self, mode: usize, factor: &Tensor<f64, Ix2>) -> Result<(Tensor<T, Ix2>, Tensor<f64, Ix2>)> {
        let (columns, norms) = unit_columns(factor)?;
        let mut sizes = vec![1; self.core.order()];
        sizes[mode] = factor.shape()[1];
        let norms = norms.reshaped::<D>(&sizes)?;
        // A zero column leaves the core as it is, so that it can grow again: 1 in the place of its norm.
        let dead = self.one.sub(&self.one.binary("sign", Binary::Signed, &norms)?)?;
        self.core = self.core.mul(&norms.add(&dead)?)?;
        let factor = columns.cast::<T>()?;
        let gram = factor.gram(1)?;
        Ok((factor, gram))
    }

    /// One sweep over all modes. Gives ||X - X'||^2 - ||X||^2.
    pub(super) fn sweep(&mut self, x: &Tensor<T, D>) -> Result<Tensor<f64, Ix1>> {
        let (left, right) = halves(x.shape(), self.core.shape());
        let mut gained = None;
        for (half, others) in [(&left, &right), (&right, &left)] {
            let rest = project(x, &self.factors, others.clone())?;
            for mode in half.clone() {
                let y = project(&rest, &self.factors, half.clone().filter(|&m| m != mode))?;
                self.update_factor(&y, mode)?;
                let seen = y.mode_product(mode, &self.factors[mode].t())?.cast()?;
                gained = Some(self.update_core(&seen)?);
            }
        }
        gained.ok_or_else(|| Error::shape("NonNegativeTucker::fit", "a tensor without modes"))
    }

    /// The factor of a mode, given X seen through all others.
    fn update_factor(&mut self, y: &Tensor<T, D>, mode: usize) -> Result<()> {
        let others: Vec<usize> = (0..y.order()).filter(|&m| m != mode).collect();
        let seen = self.core.multi_mode_product(&self.grams, MultiMode { skip: Some(mode), transpose: false })?;
        let h = contract(&seen, &others, &self.core, &others)?;
        let m = contract(y, &others, &self.core.cast()?, &others)?.cast::<f64>()?;
        let [m, h] = [m.into_order::<Ix2>()?, h.into_order()?];
        let found = rows(&m, (&h, false), &self.factors[mode].cast()?, true)?;
        (self.factors[mode], self.grams[mode]) = self.unit_factor(mode, &found)?;
        Ok(())
    }

    /// The core, given X seen through all factors, K: minimises f(G) = <G, H G> - 2 <G, K>, where H G is
    /// G x_0 A_0^T A_0 x_1 A_1^T A_1 .. Gives f, which is what ||X - X'||^2 has beyond ||X||^2.
    fn update_core(&mut self, k: &Tensor<f64, D>) -> Result<Tensor<f64, Ix1>> {
        let curved = |g: &Tensor<f64, D>| g.multi_mode_product(&self.grams, MultiMode::default());
        let value = |g: &Tensor<f64, D>, hg: &Tensor<f64, D>| {
            let twice = inner_unread(g, k)?.scale(2.0)?;
            inner_unread(g, hg)?.sub(&twice)
        };
        let step = self.step()?;
        let (mut g, mut hg) = (self.core.clone(), curved(&self.core)?);
        let (mut ahead, mut h_ahead) = (g.clone(), hg.clone());
        let mut first = None;
        let mut momentum = 1.0f64;
        for _ in 0..STEPS {
            let next = ahead.sub(&h_ahead.sub(k)?.mul(&step)?)?.maximum(&self.zero)?;
            let h_next = curved(&next)?;
            let now = 0.5 + (0.25 + momentum * momentum).sqrt();
            let share = (momentum - 1.0) / now;
            momentum = now;
            ahead = next.add(&next.sub(&g)?.scale(share)?)?;
            h_ahead = h_next.add(&h_next.sub(&hg)?.scale(share)?)?;
            (g, hg) = (next, h_next);
            if first.is_none() {
                first = Some((g.clone(), value(&g, &hg)?));
            }
        }
        let Some((plain, f_plain)) = first else { return value(&g, &hg) };
        let f = value(&g, &hg)?;
        // 1 where the last step is below the first, else 0.
        let better = f_plain.sub(&f)?;
        let sign = self.one.binary("sign", Binary::Signed, &better.reshaped(self.one.shape())?)?;
        let kept = sign.maximum(&self.zero)?;
        self.core = g.mul(&kept)?.add(&plain.mul(&self.one.sub(&kept)?)?)?;
        let kept = kept.reshaped::<Ix1>(&[1])?;
        f_plain.sub(&better.mul(&kept)?)
    }

    /// One over a bound on the largest eigenvalue of H: the product of the largest row sums of the Gram matrices. These
    /// are at least 1 where a column has norm 1; where none has, any bound will do.
    fn step(&self) -> Result<Tensor<f64, D>> {
        let mut bound = self.one.clone();
        for gram in &self.grams {
            let sums = gram.sum_modes(&[1])?;
            let largest = reduce::scaled_total(Total::Max, 1.0, &sums.storage, &sums.layout)?;
            let largest = Tensor::<f64, D>::row_major(largest, self.one.shape());
            bound = bound.mul(&largest.maximum(&self.one)?)?;
        }
        bound.recip()
    }

    /// The result so far.
    pub(super) fn tucker(&self) -> Result<Tucker<T, D>> {
        Tucker::new(self.core.cast()?, self.factors.clone())?.normalized()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, Ix3, IxDyn};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// A problem of shape 5 x 4 x 3 and ranks 3 x 2 x 2, without a zero column or with one.
    fn problem(dead: bool) -> (Tensor<f64, Ix3>, State<f64, Ix3>) {
        let rng = &mut ChaCha8Rng::seed_from_u64(7);
        let x = Tensor::normal([5, 4, 3], rng).unwrap().shift(0.4).unwrap();
        let core = Tensor::uniform([3, 2, 2], rng).unwrap();
        let mut factors: Vec<Tensor<f64, Ix2>> =
            [(5, 3), (4, 2), (3, 2)].map(|size| Tensor::uniform(size, rng).unwrap()).to_vec();
        if dead {
            factors[1] = Tensor::from_fn([4, 2], |i| if i[1] == 0 { 0.0 } else { 1.0 + i[0] as f64 }).unwrap();
        }
        (x, State::new(core, factors).unwrap())
    }

    /// The smallest ||W a - b||^2 over a >= 0, by the solutions for all sets of entries that are not zero.
    fn least(w: &Array2<f64>, b: &[f64]) -> f64 {
        let b = Tensor::from_vec([b.len(), 1], b.to_vec()).unwrap();
        let w = Tensor::from_array(w);
        let n = w.shape()[1];
        let mut best = b.norm().unwrap().powi(2);
        for set in 1usize..1 << n {
            let columns: Vec<Tensor<f64, Ix2>> =
                (0..n).filter(|j| set >> j & 1 == 1).map(|j| w.narrow(1, j..j + 1).unwrap()).collect();
            let part = Tensor::concat(&columns.iter().collect::<Vec<_>>(), 1).unwrap();
            let Ok(l) = part.t().matmul(&part).unwrap().cholesky() else { continue };
            let a = l.cholesky_solve(&part.t().matmul(&b).unwrap()).unwrap();
            if a.min().unwrap() >= 0.0 {
                best = best.min(part.matmul(&a).unwrap().sub(&b).unwrap().norm().unwrap().powi(2));
            }
        }
        best
    }

    fn error(x: &Tensor<f64, Ix3>, state: &State<f64, Ix3>) -> f64 {
        state.tucker().unwrap().reconstruct().unwrap().sub(x).unwrap().norm().unwrap().powi(2)
    }

    /// X seen through the factors of all modes but one, or of all.
    fn seen(x: &Tensor<f64, Ix3>, state: &State<f64, Ix3>, skip: Option<usize>) -> Tensor<f64, Ix3> {
        x.multi_mode_product(&state.factors, MultiMode { skip, transpose: true }).unwrap()
    }

    /// A factor is the best one for the others and the core: each row against all sets of entries that may be positive.
    #[test]
    fn a_factor_solves_its_least_squares_problem() {
        for dead in [false, true] {
            for mode in 0..3 {
                let (x, mut state) = problem(dead);
                // X_(n) = A_n W^T.
                let others =
                    state.core.multi_mode_product(&state.factors, MultiMode { skip: Some(mode), transpose: false });
                let w = others.unwrap().unfold(mode).unwrap().t().to_ndarray().unwrap();
                let rows = x.unfold(mode).unwrap();
                let want: f64 =
                    (0..rows.shape()[0]).map(|i| least(&w, &rows.index_mode(0, i).unwrap().to_vec().unwrap())).sum();
                // Coordinate descent stops where a round gains little: again from there.
                for _ in 0..40 {
                    let y = seen(&x, &state, Some(mode));
                    let before = error(&x, &state);
                    state.update_factor(&y, mode).unwrap();
                    assert!(error(&x, &state) <= before + 1e-12);
                }
                let got = error(&x, &state);
                assert!((got - want).abs() < 1e-9 * want, "mode {mode}, {dead}: {got}, not {want}");
            }
        }
    }

    /// The core comes to the best one, never rising, and what it says of the error is true.
    #[test]
    fn the_core_comes_to_its_least_squares_solution() {
        for dead in [false, true] {
            let (x, mut state) = problem(dead);
            let matrices: Vec<&Tensor<f64, Ix2>> = state.factors.iter().collect();
            let w = crate::algebra::kronecker(&matrices).unwrap().to_ndarray().unwrap();
            let want = least(&w, &x.to_vec().unwrap());
            let k = seen(&x, &state, None);
            let mut before = f64::INFINITY;
            for _ in 0..400 {
                let said = state.update_core(&k).unwrap().to_vec().unwrap()[0] + x.norm().unwrap().powi(2);
                let now = error(&x, &state);
                assert!(now <= before + 1e-12 && (said - now).abs() < 1e-11, "{now} after {before}, said {said}");
                before = now;
            }
            assert!((before - want).abs() < 1e-8 * want, "{dead}: {before}, not {want}");
        }
    }

    /// The step is below one over the largest eigenvalue, and not by much.
    #[test]
    fn the_step_is_safe() {
        let (_, state) = problem(false);
        let step = state.step().unwrap().to_vec().unwrap()[0];
        let largest: f64 = state.grams.iter().map(|g| g.eigh().unwrap().0.to_vec().unwrap()[0]).product();
        assert!(step <= 1.0 / largest && step > 0.5 / largest, "{step} for {largest}");
    }

    /// All that is zero at once: nothing to do, and no NaN.
    #[test]
    fn zero_factors_stay() {
        let x = Tensor::<f64, _>::ones(IxDyn(&[3, 2])).unwrap();
        let zeros = [3, 2].map(|n| Tensor::zeros([n, 2]).unwrap()).to_vec();
        let mut state = State::new(Tensor::<f64, _>::ones(IxDyn(&[2, 2])).unwrap(), zeros).unwrap();
        assert_eq!(state.sweep(&x).unwrap().to_vec().unwrap(), [0.0]);
        assert_eq!(state.tucker().unwrap().reconstruct().unwrap().max_abs().unwrap(), 0.0);
    }
}
