//! Sums and scales by channel on the host. Channels lie side by side, so every loop runs along them.

use super::{Cpu, part, rows, vectorized};
use crate::{device::channels::Channels, scalar::Scalar};
use std::ops::Range;

/// Entries that are worth a second thread.
const GRAIN: usize = 1 << 15;

/// Rows that are summed before they are added to a longer sum: short sums round less, and a block stays in the cache.
const BLOCK: usize = 64;

/// Rows of one group, as many as a thread takes at a time: a function of the sizes and the thread count.
fn segments(cpu: &Cpu, at: Channels) -> Vec<(usize, Range<usize>)> {
    let parts = cpu.parts(at.groups * at.rows * at.channels, GRAIN).max(1);
    let cut = parts.div_ceil(at.groups.max(1)).min(at.rows.div_ceil(BLOCK)).max(1);
    (0..at.groups).flat_map(|group| (0..cut).map(move |i| (group, part(at.rows, cut, i)))).collect()
}

/// The entries of some rows of a group.
fn entries<T>(x: &[T], at: Channels, (group, rows): &(usize, Range<usize>)) -> Range<usize> {
    debug_assert_eq!(x.len(), at.groups * at.rows * at.channels);
    let first = group * at.rows;
    (first + rows.start) * at.channels..(first + rows.end) * at.channels
}

/// Runs `work` on every segment and adds up what it returns, in order, for each group.
fn by_group<T: Scalar>(
    cpu: &Cpu,
    at: Channels,
    width: usize,
    work: impl Fn(&(usize, Range<usize>), &mut [T]) + Sync,
) -> Vec<T> {
    let segments = segments(cpu, at);
    let found = cpu.map_parts(segments.len(), &|i| {
        let mut sums = vec![T::zero(); width];
        work(&segments[i], &mut sums);
        sums
    });
    let mut out = vec![T::zero(); at.groups * width];
    for ((group, _), found) in segments.iter().zip(found) {
        let out = &mut out[group * width..(group + 1) * width];
        for (out, found) in out.iter_mut().zip(found) {
            *out += found;
        }
    }
    out
}

#[inline(always)]
fn add_up<T: Scalar>(sums: &mut [T], terms: &mut [T]) {
    for (sum, term) in sums.iter_mut().zip(terms) {
        *sum += std::mem::take(term);
    }
}

pub(crate) fn squares<T: Scalar>(cpu: &Cpu, at: Channels, x: &[T]) -> Vec<T> {
    by_group(cpu, at, at.channels, |segment, sums| {
        let mut short = vec![T::zero(); at.channels];
        vectorized(
            #[inline(always)]
            || {
                for block in x[entries(x, at, segment)].chunks(BLOCK * at.width()) {
                    for x in block.chunks_exact(at.width()) {
                        for (sum, &x) in short.iter_mut().zip(x) {
                            *sum = x.mul_add(x, *sum);
                        }
                    }
                    add_up(sums, &mut short);
                }
            },
        )
    })
}

pub(crate) fn sums<T: Scalar>(cpu: &Cpu, at: Channels, x: &[T], shift: &[T], dy: &[T]) -> (Vec<T>, Vec<T>) {
    let n = at.channels;
    let both = by_group(cpu, at, 2 * n, |segment, sums| {
        let mut short = vec![T::zero(); 2 * n];
        let range = entries(x, at, segment);
        vectorized(
            #[inline(always)]
            || {
                for (x, dy) in
                    x[range.clone()].chunks(BLOCK * at.width()).zip(dy[range.clone()].chunks(BLOCK * at.width()))
                {
                    let (plain, weighted) = short.split_at_mut(n);
                    for (x, dy) in x.chunks_exact(at.width()).zip(dy.chunks_exact(at.width())) {
                        add_products(x, dy, shift, plain, weighted);
                    }
                    add_up(sums, &mut short);
                }
            },
        )
    });
    let halves = both.chunks_exact(2 * at.width());
    (halves.clone().flat_map(|h| h[..n].to_vec()).collect(), halves.flat_map(|h| h[n..].to_vec()).collect())
}

/// Slices as plain arguments, which the compiler then knows to be apart.
#[inline(always)]
fn add_products<T: Scalar>(x: &[T], dy: &[T], shift: &[T], plain: &mut [T], weighted: &mut [T]) {
    let sums = plain.iter_mut().zip(weighted.iter_mut());
    for ((plain, weighted), ((&x, &dy), &shift)) in sums.zip(x.iter().zip(dy).zip(shift)) {
        *plain += dy;
        *weighted = dy.mul_add(x - shift, *weighted);
    }
}

/// Mean and mean square deviation. Each block of rows is centred at its own mean while it is in the cache, and blocks are joined
/// by Chan's formula, so that nothing cancels and memory is read once.
///
/// T. F. Chan, G. H. Golub, R. J. LeVeque, *Algorithms for computing the sample variance*, The American Statistician 37, 1983.
pub(crate) fn moments<T: Scalar>(cpu: &Cpu, at: Channels, x: &[T]) -> (Vec<T>, Vec<T>) {
    let n = at.channels;
    let at = Channels { groups: 1, rows: at.groups * at.rows, ..at };
    let segments = segments(cpu, at);
    let found = cpu.map_parts(segments.len(), &|i| {
        let (mut mean, mut square) = (vec![T::zero(); n], vec![T::zero(); n]);
        let (mut own_mean, mut own_square) = (vec![T::zero(); n], vec![T::zero(); n]);
        let mut count = 0;
        vectorized(
            #[inline(always)]
            || {
                for block in x[entries(x, at, &segments[i])].chunks(BLOCK * at.width()) {
                    let here = block.len() / n;
                    for x in block.chunks_exact(at.width()) {
                        for (sum, &x) in own_mean.iter_mut().zip(x) {
                            *sum += x;
                        }
                    }
                    let share = T::of(here as f64).recip();
                    for mean in own_mean.iter_mut() {
                        *mean *= share;
                    }
                    for x in block.chunks_exact(at.width()) {
                        deviations(x, &own_mean, &mut own_square);
                    }
                    join(&mut mean, &mut square, count, &own_mean, &own_square, here);
                    own_mean.fill(T::zero());
                    own_square.fill(T::zero());
                    count += here;
                }
            },
        );
        (mean, square, count)
    });
    let (mut mean, mut square, mut count) = (vec![T::zero(); n], vec![T::zero(); n], 0);
    for (own_mean, own_square, own_count) in found {
        join(&mut mean, &mut square, count, &own_mean, &own_square, own_count);
        count += own_count;
    }
    for s in square.iter_mut() {
        *s /= T::of(count as f64);
    }
    (mean, square)
}

#[inline(always)]
fn deviations<T: Scalar>(x: &[T], mean: &[T], squares: &mut [T]) {
    for ((square, &x), &mean) in squares.iter_mut().zip(x).zip(mean) {
        *square = (x - mean).mul_add(x - mean, *square);
    }
}

/// Joins the moments of `b` more rows to those of `a` rows.
#[inline(always)]
fn join<T: Scalar>(mean: &mut [T], square: &mut [T], a: usize, b_mean: &[T], b_square: &[T], b: usize) {
    if b == 0 {
        return;
    }
    let all = (a + b) as f64;
    let (share, weight) = (T::of(b as f64 / all), T::of(a as f64 * b as f64 / all));
    for ((mean, square), (&b_mean, &b_square)) in mean.iter_mut().zip(square).zip(b_mean.iter().zip(b_square)) {
        let apart = b_mean - *mean;
        *mean += apart * share;
        *square += b_square + apart * apart * weight;
    }
}

pub(crate) fn affine<T: Scalar>(
    cpu: &Cpu,
    at: Channels,
    x: &[T],
    (shift, scale, bias): (&[T], &[T], &[T]),
    y: &mut [T],
) {
    let n = at.channels;
    rows::map_rows(cpu, at.groups * at.rows, [(y, n)], &|range, [y]| {
        vectorized(
            #[inline(always)]
            || {
                for (row, y) in range.clone().zip(y.chunks_exact_mut(at.width())) {
                    let scale = &scale[row / at.rows * n..][..n];
                    affine_row(&x[row * n..(row + 1) * n], shift, scale, bias, y);
                }
            },
        )
    });
}

#[inline(always)]
fn affine_row<T: Scalar>(x: &[T], shift: &[T], scale: &[T], bias: &[T], y: &mut [T]) {
    for ((y, (&x, &shift)), (&scale, &bias)) in y.iter_mut().zip(x.iter().zip(shift)).zip(scale.iter().zip(bias)) {
        *y = (x - shift).mul_add(scale, bias);
    }
}

pub(crate) fn combine<T: Scalar>(
    cpu: &Cpu,
    at: Channels,
    (x, dy): (&[T], &[T]),
    shift: &[T],
    (a, b, c): (&[T], &[T], &[T]),
    dx: &mut [T],
) {
    let n = at.channels;
    rows::map_rows(cpu, at.groups * at.rows, [(dx, n)], &|range, [dx]| {
        vectorized(
            #[inline(always)]
            || {
                for (row, dx) in range.clone().zip(dx.chunks_exact_mut(at.width())) {
                    let (here, group) = (row * n..(row + 1) * n, row / at.rows * n);
                    combine_row(
                        [&x[here.clone()], &dy[here], shift, &a[group..group + n], &b[group..group + n], c],
                        dx,
                    );
                }
            },
        )
    });
}

#[inline(always)]
fn combine_row<T: Scalar>([x, dy, shift, a, b, c]: [&[T]; 6], dx: &mut [T]) {
    let n = dx.len();
    let (x, dy, shift, a, b, c) = (&x[..n], &dy[..n], &shift[..n], &a[..n], &b[..n], &c[..n]);
    for j in 0..n {
        dx[j] = dy[j].mul_add(a[j], (x[j] - shift[j]).mul_add(b[j], c[j]));
    }
}

/// GRN's norms, means (with eps) and scales from sums of squares.
pub(crate) fn respond<T: Scalar>(at: Channels, squares: &[T], gamma: &[T], eps: T) -> [Vec<T>; 3] {
    let n = at.channels;
    let norms: Vec<T> = squares.iter().map(|&square| square.sqrt()).collect();
    let means: Vec<T> =
        norms.chunks(n.max(1)).map(|norms| norms.iter().copied().sum::<T>() / T::of(n as f64) + eps).collect();
    let scale = (0..norms.len()).map(|i| gamma[i % n].mul_add(norms[i] / means[i / n], T::one())).collect();
    [norms, means, scale]
}

/// GRN's slopes and the gradients of gamma and beta, from the sums of dy and of dy x.
pub(crate) fn respond_back<T: Scalar>(
    at: Channels,
    (plain, products): (&[T], &[T]),
    (norms, means, gamma): (&[T], &[T], &[T]),
) -> [Vec<T>; 3] {
    let n = at.channels;
    let (mut dgamma, mut dbeta) = (vec![T::zero(); n], vec![T::zero(); n]);
    for i in 0..norms.len() {
        dgamma[i % n] += norms[i] / means[i / n] * products[i];
        dbeta[i % n] += plain[i];
    }
    let mut slopes = vec![T::zero(); norms.len()];
    for (b, &mean) in means.iter().enumerate() {
        let group = b * n..(b + 1) * n;
        let through_mean =
            group.clone().map(|i| gamma[i % n] * products[i] * norms[i]).sum::<T>() / (T::of(n as f64) * mean * mean);
        for i in group {
            if norms[i] > T::zero() {
                slopes[i] = (gamma[i % n] * products[i] / mean - through_mean) / norms[i];
            }
        }
    }
    [slopes, dgamma, dbeta]
}
