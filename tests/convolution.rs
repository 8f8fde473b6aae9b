//! Convolutions, pools and resizing against their definitions, one entry at a time in doubles, over random shapes and options.

mod support;

use ndarray::{ArrayD, IxDyn};
use proptest::prelude::*;
use support::{Operands, assert_within, by_formula, entries, for_each_index};
use tenfold::{
    Scalar, Tensor,
    autodiff::{Conv, ConvTranspose, PaddingMode, Pool, Var},
};

/// One convolution: the options of each spatial mode, and channels.
#[derive(Debug, Clone)]
struct Problem {
    batch: usize,
    groups: usize,
    /// Channels of a group.
    c_in: usize,
    c_out: usize,
    /// Size, kernel, stride, dilation, padding before and after.
    modes: Vec<[usize; 6]>,
    seed: u64,
    threads: usize,
}

fn modes() -> impl Strategy<Value = Vec<[usize; 6]>> {
    let mode = (1..=9usize, 1..=7usize, 1..=4usize, 1..=3usize, 0..=4usize, 0..=4usize);
    prop::collection::vec(mode, 1..=3).prop_map(|modes| {
        // The definition visits every pair of entries: three modes are kept small.
        let (most, widest) = if modes.len() == 3 { (4, 3) } else { (9, 7) };
        let fitted = |&(n, k, s, d, before, after): &(usize, usize, usize, usize, usize, usize)| {
            let (n, k) = (n.min(most), k.min(widest));
            // Padded until the kernel fits.
            let missing = (d * (k - 1) + 1).saturating_sub(n + before + after);
            [n, k, s, d, before + missing / 2, after + missing - missing / 2]
        };
        modes.iter().map(fitted).collect()
    })
}

fn problems() -> impl Strategy<Value = Problem> {
    // Depthwise, with multiplier, grouped, plain; more channels than registers hold now and then.
    let channels = prop_oneof![
        (1..=4usize, 1..=5usize, 1..=5usize),
        (1..=40usize).prop_map(|c| (c, 1, 1)),
        (1..=5usize, 2..=3usize).prop_map(|(c, m)| (c, 1, m)),
        (1..=70usize, 1..=70usize).prop_map(|(i, o)| (1, i, o)),
    ];
    (0..=3usize, channels, modes(), any::<u64>(), 1..=2usize).prop_map(
        |(batch, (groups, c_in, c_out), modes, seed, threads)| {
            let many = c_in * c_out * groups > 200;
            let modes = if many { modes[..1].to_vec() } else { modes };
            Problem { batch, groups, c_in, c_out, modes, seed, threads }
        },
    )
}

impl Problem {
    fn all(&self, i: usize) -> Vec<usize> {
        self.modes.iter().map(|m| m[i]).collect()
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        self.modes.iter().map(|m| (m[4], m[5])).collect()
    }

    fn output(&self) -> Vec<usize> {
        self.modes.iter().map(|&[n, k, s, d, before, after]| (n + before + after - d * (k - 1) - 1) / s + 1).collect()
    }

    /// Every product of the convolution: the indices of y, x and w that meet.
    fn for_each_product(&self, mut f: impl FnMut(&[usize], &[usize], &[usize])) {
        let (output, modes) = (self.output(), self.modes.len());
        for_each_index(&[&[self.batch], &output[..], &self.all(1)].concat(), |i| {
            let (o, k) = i[1..].split_at(modes);
            let place = |m: usize| {
                let [n, _, s, d, before, _] = self.modes[m];
                (o[m] * s + k[m] * d).checked_sub(before).filter(|&i| i < n)
            };
            let Some(place) = (0..modes).map(place).collect::<Option<Vec<usize>>>() else { return };
            let (mut at_y, mut at_x) = ([&i[..1], o, &[0]].concat(), [&i[..1], &place[..], &[0]].concat());
            let mut at_w = [&[0, 0], k].concat();
            for co in 0..self.groups * self.c_out {
                (at_y[modes + 1], at_w[0]) = (co, co);
                for ci in 0..self.c_in {
                    (at_x[modes + 1], at_w[1]) = (co / self.c_out * self.c_in + ci, ci);
                    f(&at_y, &at_x, &at_w);
                }
            }
        });
    }

    fn check<T: Scalar>(&self) {
        let output = self.output();
        let (c_in, c_out) = (self.groups * self.c_in, self.groups * self.c_out);
        let mut operands = Operands::new(self.seed, self.threads);
        let (x, x_ref) = operands.tensor::<T>(&[&[self.batch], &self.all(0)[..], &[c_in]].concat());
        let (w, w_ref) = operands.tensor::<T>(&[&[c_out, self.c_in], &self.all(1)[..]].concat());
        let (b, b_ref) = operands.tensor::<T>(&[c_out]);
        let (dy, dy_ref) = operands.tensor::<T>(&[&[self.batch], &output[..], &[c_out]].concat());
        let last = output.len() + 1;
        let mut y = by_formula(dy.shape(), |i| b_ref[[i[last]]]);
        let (mut dx, mut dw) = (ArrayD::zeros(x_ref.raw_dim()), ArrayD::zeros(w_ref.raw_dim()));
        let mut db = ArrayD::zeros(IxDyn(&[c_out]));
        for_each_index(dy.shape(), |i| db[[i[last]]] += dy_ref[i]);
        self.for_each_product(|at_y, at_x, at_w| {
            y[at_y] += x_ref[at_x] * w_ref[at_w];
            dx[at_x] += dy_ref[at_y] * w_ref[at_w];
            dw[at_w] += dy_ref[at_y] * x_ref[at_x];
        });
        let taps: usize = self.all(1).iter().product();
        let positions = self.batch * output.iter().product::<usize>();
        let options = Conv::new().stride(self.all(2)).dilation(self.all(3)).padding(self.pairs()).groups(self.groups);
        assert_eq!(options.output_shape(x.shape(), w.shape()).unwrap(), dy.shape());
        let [x, w, b] = [x, w, b].map(Var::parameter);
        let ours = x.conv(&w, Some(&b), &options).unwrap();
        assert_within(ours.value(), &y, operands.bound::<T>(taps * self.c_in + 1, 2));
        let gradients = ours.backward_from(dy).unwrap();
        assert_within(gradients.of(&x).unwrap(), &dx, operands.bound::<T>(taps * self.c_out, 2));
        assert_within(gradients.of(&w).unwrap(), &dw, operands.bound::<T>(positions, 2));
        assert_within(gradients.of(&b).unwrap(), &db, operands.bound::<T>(positions, 1));
    }

    /// The transposed convolution that takes what this convolution makes back to its input.
    fn check_transposed<T: Scalar>(&self) {
        // The padding of a transposed convolution counts on both sides; what the stride leaves over is the output padding.
        let fits = self.modes.iter().zip(self.output()).map(|(&[n, k, s, d, before, after], o)| {
            let full = (o - 1) * s + d * (k - 1) + 1;
            let extra = (n + before + after).checked_sub(full)?;
            (extra < s.max(d)).then_some(extra)
        });
        let Some(extra) = fits.collect::<Option<Vec<usize>>>() else { return };
        let output = self.output();
        let (c_in, c_out) = (self.groups * self.c_in, self.groups * self.c_out);
        let mut operands = Operands::new(self.seed, self.threads);
        let (y, y_ref) = operands.tensor::<T>(&[&[self.batch], &output[..], &[c_out]].concat());
        let (w, w_ref) = operands.tensor::<T>(&[&[c_out, self.c_in], &self.all(1)[..]].concat());
        let (b, b_ref) = operands.tensor::<T>(&[c_in]);
        let (dx, dx_ref) = operands.tensor::<T>(&[&[self.batch], &self.all(0)[..], &[c_in]].concat());
        let mut x = by_formula(dx.shape(), |i| b_ref[[i[output.len() + 1]]]);
        let (mut dy, mut dw) = (ArrayD::zeros(y_ref.raw_dim()), ArrayD::zeros(w_ref.raw_dim()));
        self.for_each_product(|at_y, at_x, at_w| {
            x[at_x] += y_ref[at_y] * w_ref[at_w];
            dy[at_y] += dx_ref[at_x] * w_ref[at_w];
            dw[at_w] += y_ref[at_y] * dx_ref[at_x];
        });
        let taps: usize = self.all(1).iter().product();
        let positions = self.batch * output.iter().product::<usize>();
        let options = ConvTranspose::new()
            .stride(self.all(2))
            .dilation(self.all(3))
            .padding(self.pairs())
            .output_padding(extra)
            .groups(self.groups);
        assert_eq!(options.output_shape(y.shape(), w.shape()).unwrap(), dx.shape());
        let [y, w, b] = [y, w, b].map(Var::parameter);
        let ours = y.conv_transpose(&w, Some(&b), &options).unwrap();
        assert_within(ours.value(), &x, operands.bound::<T>(taps * self.c_out + 1, 2));
        let gradients = ours.backward_from(dx).unwrap();
        assert_within(gradients.of(&y).unwrap(), &dy, operands.bound::<T>(taps * self.c_in, 2));
        assert_within(gradients.of(&w).unwrap(), &dw, operands.bound::<T>(positions, 2));
    }
}

/// Where a padded image's entry comes from, as the words of the mode say.
fn mirrored(how: PaddingMode, at: isize, n: isize) -> Option<usize> {
    let at = match how {
        PaddingMode::Zeros => at,
        PaddingMode::Replicate => at.max(0).min(n - 1),
        PaddingMode::Circular => (at + n) % n,
        PaddingMode::Reflect if at < 0 => -at,
        PaddingMode::Reflect if at >= n => 2 * n - 2 - at,
        PaddingMode::Reflect => at,
    };
    (0..n).contains(&at).then_some(at as usize)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn conv_is_its_definition(problem in problems()) {
        problem.check::<f64>();
        problem.check::<f32>();
    }

    #[test]
    fn conv_transpose_is_its_definition(problem in problems()) {
        problem.check_transposed::<f64>();
        problem.check_transposed::<f32>();
    }

    #[test]
    fn padding_modes_say_where_entries_come_from(
        sizes in prop::collection::vec((1..=6isize, 0..=6isize, 0..=6isize), 1..=3),
        how in prop::sample::select(&[PaddingMode::Zeros, PaddingMode::Reflect, PaddingMode::Replicate, PaddingMode::Circular][..]),
        seed: u64,
    ) {
        let most = |n: isize| match how { PaddingMode::Reflect => n - 1, PaddingMode::Circular => n, _ => 9 };
        let pads: Vec<(usize, usize)> =
            sizes.iter().map(|&(n, a, b)| (a.min(most(n)) as usize, b.min(most(n)) as usize)).collect();
        let spatial: Vec<usize> = sizes.iter().map(|s| s.0 as usize).collect();
        let mut operands = Operands::new(seed, 1);
        let (x, x_ref) = operands.tensor::<f64>(&[&[2], &spatial[..], &[3]].concat());
        let x = Var::parameter(x);
        let y = x.pad_spatial(pads.clone(), how).unwrap();
        let source = |i: &[usize]| -> Option<Vec<usize>> {
            let place = |m: usize| mirrored(how, i[m + 1] as isize - pads[m].0 as isize, sizes[m].0);
            let spatial = (0..sizes.len()).map(place).collect::<Option<Vec<usize>>>()?;
            Some([&i[..1], &spatial, &i[i.len() - 1..]].concat())
        };
        assert_within(y.value(), &by_formula(y.shape(), |i| source(i).map_or(0.0, |at| x_ref[&at[..]])), 0.0);
        let (dy, dy_ref) = operands.tensor::<f64>(y.shape());
        let mut dx = ArrayD::zeros(x_ref.raw_dim());
        for_each_index(y.shape(), |i| if let Some(at) = source(i) { dx[&at[..]] += dy_ref[i] });
        assert_within(y.backward_from(dy).unwrap().of(&x).unwrap(), &dx, 1e-12);
    }

    #[test]
    fn pools_are_their_definitions(modes in modes(), seed: u64, channels in 1..20usize, include: bool, threads in 1..=2usize) {
        let modes: Vec<[usize; 4]> = modes.iter().map(|&[n, k, s, _, p, _]| [n.max(k), k, s, p.min(k / 2)]).collect();
        let values = |i: usize| modes.iter().map(|m| m[i]).collect::<Vec<usize>>();
        let mut operands = Operands::new(seed, threads);
        let (x, x_ref) = operands.tensor::<f32>(&[&[2], &values(0)[..], &[channels]].concat());
        let options = Pool::new(values(1)).stride(values(2)).padding(values(3)).count_include_pad(include);
        let x = Var::parameter(x);
        let (largest, average) = (x.max_pool(&options).unwrap(), x.avg_pool(&options).unwrap());
        let output: Vec<usize> = modes.iter().map(|&[n, k, s, p]| (n + 2 * p - k) / s + 1).collect();
        assert_eq!(largest.shape(), [&[2], &output[..], &[channels]].concat());
        let (dy, dy_ref) = operands.tensor::<f32>(largest.shape());
        let mut d_max = ArrayD::zeros(x_ref.raw_dim());
        let mut d_avg = ArrayD::zeros(x_ref.raw_dim());
        let mut want = [ArrayD::zeros(largest.shape()), ArrayD::zeros(largest.shape())];
        for_each_index(largest.shape(), |o| {
            let mut seen = Vec::new();
            for_each_index(&values(1), |k| {
                let place = |m: usize| (o[m + 1] * modes[m][2] + k[m]).checked_sub(modes[m][3]).filter(|&i| i < modes[m][0]);
                if let Some(place) = (0..modes.len()).map(place).collect::<Option<Vec<usize>>>() {
                    seen.push([&o[..1], &place[..], &o[o.len() - 1..]].concat());
                }
            });
            let n = if include { values(1).iter().product() } else { seen.len() } as f64;
            let best = seen.iter().rev().max_by(|a, b| x_ref[&a[..]].total_cmp(&x_ref[&b[..]])).unwrap();
            want[0][o] = x_ref[&best[..]];
            want[1][o] = seen.iter().map(|i| x_ref[&i[..]]).sum::<f64>() / n;
            d_max[&best[..]] += dy_ref[o];
            seen.iter().for_each(|i| d_avg[&i[..]] += dy_ref[o] / n);
        });
        assert_within(largest.value(), &want[0], 0.0);
        assert_within(average.value(), &want[1], 1e-5);
        assert_within(largest.backward_from(dy.clone()).unwrap().of(&x).unwrap(), &d_max, 1e-4);
        assert_within(average.backward_from(dy).unwrap().of(&x).unwrap(), &d_avg, 1e-4);
    }
}

proptest! {
    // Many channels, one by one: the definition takes its time.
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// The kernel that takes fewer multiplications, with odd and even sizes, and windows that lie wholly in the padding.
    #[test]
    fn three_by_three_between_many_channels_is_its_definition(
        high in (1..=7usize, 0..=4usize, 0..=4usize),
        wide in (1..=9usize, 0..=4usize, 0..=4usize),
        channels in (32..=36usize, 32..=70usize),
        batch in 1..=2usize,
        seed: u64,
        threads in 1..=2usize,
    ) {
        let mode = |(n, before, after): (usize, usize, usize)| [n.max(3 - before.min(2)), 3, 1, 1, before, after];
        let (modes, (c_in, c_out)) = (vec![mode(high), mode(wide)], channels);
        let problem = Problem { batch, groups: 1, c_in, c_out, modes, seed, threads };
        problem.check::<f64>();
        problem.check::<f32>();
        problem.check_transposed::<f64>();
    }
}

#[test]
fn large_layers_are_the_same_on_any_number_of_threads_as_by_definition() {
    for (groups, c_in, c_out, modes) in [
        (1, 64, 96, vec![[20, 3, 1, 1, 1, 1], [23, 3, 1, 1, 1, 1]]),
        (1, 150, 70, vec![[9, 3, 2, 1, 1, 1], [10, 3, 2, 1, 0, 1]]),
        (1, 3, 100, vec![[32, 4, 4, 1, 0, 0], [32, 4, 4, 1, 0, 0]]),
        (1, 70, 33, vec![[12, 1, 1, 1, 0, 0], [13, 1, 1, 1, 0, 0]]),
        (70, 1, 1, vec![[30, 7, 1, 1, 3, 3], [29, 7, 1, 1, 3, 3]]),
        (33, 1, 1, vec![[17, 5, 2, 2, 4, 4], [18, 3, 2, 1, 1, 1]]),
    ] {
        for threads in [1, 2] {
            Problem { batch: 2, groups, c_in, c_out, modes: modes.clone(), seed: 7, threads }.check::<f64>();
        }
    }
}

/// Results that see a missing value are missing, and no others.
#[test]
fn a_missing_value_spreads_as_far_as_its_windows() {
    let mut x = Tensor::<f32, _>::ones([1, 8, 9, 32]).unwrap();
    x.as_mut_slice().unwrap()[(3 * 9 + 4) * 32 + 5] = f32::NAN;
    let w = Var::constant(Tensor::<f32, _>::ones([32, 32, 3, 3]).unwrap());
    let y = Var::constant(x).conv(&w, None, &Conv::new().padding(1)).unwrap();
    let (y, near) = (entries(y.value()), |i: usize, at: usize| i.abs_diff(at) <= 1);
    for_each_index(&[1, 8, 9, 32], |i| assert_eq!(y[i].is_nan(), near(i[1], 3) && near(i[2], 4), "{i:?}"));
}

#[test]
fn nothing_meets_in_an_empty_batch() {
    let v = |shape: &[usize]| Var::parameter(Tensor::<f32, IxDyn>::ones(IxDyn(shape)).unwrap());
    let (x, w, b) = (v(&[0, 5, 6, 4]), v(&[2, 4, 3, 3]), v(&[2]));
    let y = x.conv(&w, Some(&b), &Conv::new()).unwrap();
    assert_eq!(y.shape(), [0, 3, 4, 2]);
    let gradients = y.backward_from(Tensor::zeros(IxDyn(&[0, 3, 4, 2])).unwrap()).unwrap();
    assert_eq!(gradients.of(&x).unwrap().shape(), [0, 5, 6, 4]);
    assert_eq!(entries(gradients.of(&w).unwrap()).sum(), 0.0);
    assert_eq!(entries(gradients.of(&b).unwrap()).sum(), 0.0);
    assert_eq!(x.max_pool(&Pool::new(2)).unwrap().shape(), [0, 2, 3, 4]);
    assert_eq!(x.global_avg_pool().unwrap().shape(), [0, 4]);
}
