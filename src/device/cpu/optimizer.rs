//! Steps of optimisers on the host: one loop for each parameter that reads and writes each of its numbers once, at the speed of memory.
//!
//! All parameters together are one long range, which is cut into as many parts as the threads need, through the middle of a parameter
//! where it falls so. A model has hundreds of parameters, most of them small: none of them costs a start of the threads. An entry's
//! new value depends on nothing but that entry, so the result is the same however it is cut.

use super::{Cpu, part, vectorized};
use crate::{
    device::optimizer::{self, Moments, Update},
    scalar::Scalar,
};

/// Entries that are worth a second thread.
const GRAIN: usize = 1 << 15;

/// A parameter, or a part of one, with what belongs to it; all slices are equally long.
pub(crate) struct Piece<'a, T> {
    pub(crate) update: Update,
    pub(crate) parameter: &'a mut [T],
    pub(crate) gradient: &'a [T],
    pub(crate) moments: Moments<&'a mut [T]>,
}

impl<'a, T: Scalar> Piece<'a, T> {
    fn split_at(self, at: usize) -> (Self, Self) {
        let (parameter, parameter_rest) = self.parameter.split_at_mut(at);
        let (gradient, gradient_rest) = self.gradient.split_at(at);
        let (moments, moments_rest) = self.moments.into_iter().map(|moment| moment.split_at_mut(at)).unzip();
        let update = self.update;
        (
            Self { update, parameter, gradient, moments },
            Self { update, parameter: parameter_rest, gradient: gradient_rest, moments: moments_rest },
        )
    }

    fn step(mut self) {
        let (p, g) = (self.parameter, self.gradient);
        vectorized(
            #[inline(always)]
            || match (self.update, self.moments.as_mut_slice()) {
                (Update::Descent { scale, decay, rate }, []) => descend([scale, decay, rate].map(T::of), p, g),
                (Update::Momentum { scale, decay, rate, momentum, blend, nesterov }, [b]) => {
                    roll([scale, decay, rate, momentum, blend].map(T::of), nesterov, p, g, b);
                }
                (Update::Adam(adam), [m, v]) => Adam::of(adam).step(p, g, m, v),
                (Update::Adam(adam), [m, v, most]) => Adam::of(adam).step_with_most(p, g, m, v, most),
                (update, moments) => unreachable!("{update:?} with {} moments", moments.len()),
            },
        );
    }
}

/// Steps all parameters, shared among the threads.
pub(crate) fn step<T: Scalar>(cpu: &Cpu, pieces: Vec<Piece<'_, T>>) {
    let total = pieces.iter().map(|piece| piece.parameter.len()).sum();
    let parts = cpu.parts(total, GRAIN);
    if parts <= 1 {
        return pieces.into_iter().for_each(Piece::step);
    }
    let shares = shares(pieces, total, parts);
    cpu.map_pieces(shares, &|share| share.into_iter().for_each(Piece::step));
}

/// The pieces, of `total` entries together, as equal parts of one range. A piece that lies on a border is cut.
fn shares<T: Scalar>(pieces: Vec<Piece<'_, T>>, total: usize, parts: usize) -> Vec<Vec<Piece<'_, T>>> {
    let (mut pieces, mut rest) = (pieces.into_iter(), None);
    let share = |i| {
        let (mut share, mut room) = (Vec::new(), part(total, parts, i).len());
        while room > 0
            && let Some(piece) = rest.take().or_else(|| pieces.next())
        {
            let fits = room.min(piece.parameter.len());
            let (mine, after) = piece.split_at(fits);
            room -= fits;
            share.push(mine);
            rest = Some(after).filter(|after| !after.parameter.is_empty());
        }
        share
    };
    (0..parts).map(share).collect()
}

// Slices are plain arguments, which the compiler then knows to be apart.

#[inline(always)]
fn descend<T: Scalar>([scale, decay, rate]: [T; 3], p: &mut [T], g: &[T]) {
    for (p, &g) in p.iter_mut().zip(g) {
        *p -= rate * (g * scale + decay * *p);
    }
}

#[inline(always)]
fn roll<T: Scalar>([scale, decay, rate, momentum, blend]: [T; 5], nesterov: bool, p: &mut [T], g: &[T], b: &mut [T]) {
    for ((p, &g), b) in p.iter_mut().zip(g).zip(b) {
        let g = g * scale + decay * *p;
        *b = *b * momentum + blend * g;
        *p -= rate * if nesterov { g + momentum * *b } else { *b };
    }
}

/// The numbers of [`device::optimizer::Adam`](crate::device::optimizer::Adam) in the type at hand, and one minus each beta.
struct Adam<T> {
    scale: T,
    decay: T,
    keep: T,
    betas: [T; 2],
    blends: [T; 2],
    rate: T,
    root: T,
    eps: T,
}

impl<T: Scalar> Adam<T> {
    fn of(adam: optimizer::Adam) -> Self {
        let optimizer::Adam { scale, decay, keep, betas, rate, root, eps } = adam;
        let [scale, decay, keep, rate, root, eps] = [scale, decay, keep, rate, root, eps].map(T::of);
        // The difference is taken before it is rounded.
        Self {
            scale,
            decay,
            keep,
            betas: betas.map(T::of),
            blends: betas.map(|beta| T::of(1.0 - beta)),
            rate,
            root,
            eps,
        }
    }

    /// The new moments of an entry, and the entry after decay.
    #[inline(always)]
    fn moments(&self, p: T, g: T, m: T, v: T) -> (T, T, T) {
        let g = g * self.scale + self.decay * p;
        // From the nearer end, so that a beta of 0 gives exactly g.
        let half = self.blends[0] < T::of(0.5);
        let m = if half { m + self.blends[0] * (g - m) } else { g - self.betas[0] * (g - m) };
        (p * self.keep, m, v * self.betas[1] + self.blends[1] * g * g)
    }

    #[inline(always)]
    fn moved(&self, p: T, m: T, v: T) -> T {
        p - self.rate * m / (v.sqrt() / self.root + self.eps)
    }

    #[inline(always)]
    fn step(&self, p: &mut [T], g: &[T], m: &mut [T], v: &mut [T]) {
        for ((p, &g), (m, v)) in p.iter_mut().zip(g).zip(m.iter_mut().zip(v)) {
            let kept;
            (kept, *m, *v) = self.moments(*p, g, *m, *v);
            *p = self.moved(kept, *m, *v);
        }
    }

    #[inline(always)]
    fn step_with_most(&self, p: &mut [T], g: &[T], m: &mut [T], v: &mut [T], most: &mut [T]) {
        for (((p, &g), (m, v)), most) in p.iter_mut().zip(g).zip(m.iter_mut().zip(v)).zip(most) {
            let kept;
            (kept, *m, *v) = self.moments(*p, g, *m, *v);
            *most = if *v > *most { *v } else { *most };
            *p = self.moved(kept, *m, *most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::optimizer::Adam as Numbers;

    /// Numbers between -1 and 1, the same for the same salt.
    fn numbers(n: usize, salt: u64) -> Vec<f64> {
        (0..n as u64)
            .map(|i| ((i.wrapping_add(salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64) / 8_388_608.0 - 1.0)
            .collect()
    }

    /// One entry by the formulas as they stand in the papers.
    fn naive(update: Update, p: &mut f64, g: f64, moments: &mut [f64]) {
        match update {
            Update::Descent { scale, decay, rate } => *p -= rate * (scale * g + decay * *p),
            Update::Momentum { scale, decay, rate, momentum, blend, nesterov } => {
                let g = scale * g + decay * *p;
                moments[0] = momentum * moments[0] + blend * g;
                *p -= rate * if nesterov { g + momentum * moments[0] } else { moments[0] };
            }
            Update::Adam(Numbers { scale, decay, keep, betas: [first, second], rate, root, eps }) => {
                let g = scale * g + decay * *p;
                moments[0] = first * moments[0] + (1.0 - first) * g;
                moments[1] = second * moments[1] + (1.0 - second) * g * g;
                if moments.len() == 3 {
                    moments[2] = moments[2].max(moments[1]);
                }
                let v = moments[moments.len() - 1];
                *p = keep * *p - rate * moments[0] / (v.sqrt() / root + eps);
            }
        }
    }

    fn updates() -> Vec<(Update, usize)> {
        let momentum =
            |nesterov| Update::Momentum { scale: 0.5, decay: 0.1, rate: 0.2, momentum: 0.9, blend: 0.8, nesterov };
        let adam = |first| {
            let (scale, decay, keep, rate, root, eps) = (0.25, 0.01, 0.99, 0.1, 0.5, 1e-3);
            Update::Adam(Numbers { scale, decay, keep, betas: [first, 0.99], rate, root, eps })
        };
        vec![
            (Update::Descent { scale: 2.0, decay: 0.1, rate: 0.3 }, 0),
            (momentum(false), 1),
            (momentum(true), 1),
            (adam(0.9), 2),
            (adam(0.1), 2),
            (adam(0.9), 3),
        ]
    }

    /// Parameters of these lengths, stepped twice by threads; parameters and moments, one after the other.
    fn stepped<T: Scalar>(threads: usize, sizes: &[usize], update: Update, moments: usize) -> Vec<Vec<T>> {
        let cast = |x: Vec<f64>| -> Vec<T> { x.into_iter().map(T::of).collect() };
        let mut blocks: Vec<Vec<T>> = Vec::new();
        for (i, &n) in sizes.iter().enumerate() {
            blocks.push(cast(numbers(n, i as u64)));
            // Second moments are squares.
            blocks.extend(
                (0..moments as u64).map(|j| cast(numbers(n, 100 + i as u64 + j).iter().map(|x| x * x).collect())),
            );
        }
        for round in 0..2 {
            let gradients: Vec<Vec<T>> = sizes.iter().map(|&n| cast(numbers(n, 1000 + round + n as u64))).collect();
            let mut left = blocks.iter_mut();
            let mut pieces = Vec::new();
            for gradient in &gradients {
                let parameter = left.next().unwrap().as_mut_slice();
                let moments = left.by_ref().take(moments).map(Vec::as_mut_slice).collect();
                pieces.push(Piece { update, parameter, gradient, moments });
            }
            step(&Cpu::with_threads(threads), pieces);
        }
        blocks
    }

    fn by_definition(sizes: &[usize], update: Update, moments: usize) -> Vec<Vec<f64>> {
        let mut blocks = stepped::<f64>(1, sizes, Update::Descent { scale: 0.0, decay: 0.0, rate: 0.0 }, 0);
        let mut all = Vec::new();
        for (i, (&n, block)) in sizes.iter().zip(&mut blocks).enumerate() {
            let mut own: Vec<Vec<f64>> =
                (0..moments as u64).map(|j| numbers(n, 100 + i as u64 + j).iter().map(|x| x * x).collect()).collect();
            for round in 0..2 {
                for (e, &g) in numbers(n, 1000 + round + n as u64).iter().enumerate() {
                    let mut entry: Vec<f64> = own.iter().map(|moment| moment[e]).collect();
                    naive(update, &mut block[e], g, &mut entry);
                    own.iter_mut().zip(entry).for_each(|(moment, x)| moment[e] = x);
                }
            }
            all.push(std::mem::take(block));
            all.extend(own);
        }
        all
    }

    #[test]
    fn steps_are_the_formulas() {
        let sizes = [1, 0, 7, 33, 64, 1001];
        for (update, moments) in updates() {
            let expected = by_definition(&sizes, update, moments);
            let double = stepped::<f64>(1, &sizes, update, moments);
            let single = stepped::<f32>(1, &sizes, update, moments);
            for ((expected, double), single) in expected.iter().zip(&double).zip(&single) {
                for ((e, d), s) in expected.iter().zip(double).zip(single) {
                    assert!((e - d).abs() < 1e-14, "{update:?}: {d} in doubles, {e} by definition");
                    assert!((e - f64::from(*s)).abs() < 1e-5, "{update:?}: {s} in singles, {e} by definition");
                }
            }
        }
    }

    #[test]
    fn threads_change_nothing() {
        // Cut in the middle of parameters, and where many small ones are.
        let mut sizes = vec![100_003, 5, 0, 40_000];
        sizes.extend(1..300);
        for (update, moments) in updates() {
            let one = stepped::<f32>(1, &sizes, update, moments);
            for threads in [2, 5] {
                assert!(one == stepped::<f32>(threads, &sizes, update, moments), "{update:?} on {threads} threads");
            }
        }
    }
}
