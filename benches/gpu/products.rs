//! Matrix products, mode products, Gram matrices, and the solvers made of them.

use super::{
    timing::{Bench, numbers},
    work::Work,
};
use ndarray::{Ix2, Ix3};
use rand::SeedableRng;
use tenfold::{
    Precision, Result, Tensor,
    decomp::{CpAls, Hooi, NonNegativeTucker, StHosvd},
};

/// x times a weight as a linear layer stores it.
fn gemm(bench: &Bench, [m, k, n]: [usize; 3], precision: Precision) -> Result<()> {
    let name = format!("gemm-{m}x{k}x{n}-{precision}");
    if !bench.wants(&name) {
        return Ok(());
    }
    let device = bench.on(precision)?;
    let operand = |rows: usize, cols: usize| -> Result<Tensor<f32, Ix2>> {
        numbers(bench, &[rows, cols], 1)?.to_device(&device)?.into_order()
    };
    let (x, w) = (operand(m, k)?, operand(n, k)?.t());
    let [a, b, c] = [m * k, k * n, m * n].map(|len| len as f64);
    let work = Work { flops: 2.0 * a * n as f64, bytes: 4.0 * (a + b + c) };
    bench.once(&name, precision, work, || x.matmul(&w).map(drop))
}

/// Numbers without structure: solvers should find nothing that makes them stop early.
fn cube(bench: &Bench, n: usize) -> Result<Tensor<f32, Ix3>> {
    Tensor::normal([n, n, n], &mut rand_chacha::ChaCha8Rng::seed_from_u64(n as u64))?.to_device(&bench.device)
}

/// A cube by a matrix of 32 rows along one mode.
fn mode_product(bench: &Bench, x: &Tensor<f32, Ix3>, mode: usize, precision: Precision) -> Result<()> {
    const RANK: usize = 32;
    let n = x.shape()[mode];
    let name = format!("mode-product-{mode}-{n}-{precision}");
    if !bench.wants(&name) {
        return Ok(());
    }
    let device = bench.on(precision)?;
    let x = x.to_device(&device)?;
    let m: Tensor<f32, Ix2> = numbers(bench, &[RANK, n], 2)?.to_device(&device)?.into_order()?;
    let (len, rank) = (x.len() as f64, RANK as f64);
    let work = Work { flops: 2.0 * len * rank, bytes: 4.0 * len * (1.0 + rank / n as f64) };
    bench.once(&name, precision, work, || x.mode_product(mode, &m).map(drop))
}

/// All n^2 entries are counted, which is what the products compute.
fn gram(bench: &Bench, x: &Tensor<f32, Ix3>, mode: usize) -> Result<()> {
    let n = x.shape()[mode];
    let name = format!("gram-{mode}-{n}");
    if !bench.wants(&name) {
        return Ok(());
    }
    let len = x.len() as f64;
    let work = Work { flops: 2.0 * len * n as f64, bytes: 4.0 * len };
    bench.once(&name, Precision::F32, work, || x.gram(mode).map(drop))
}

/// A solver, whose floor is counted as so many passes over the tensor.
fn solver(bench: &Bench, name: &str, x: &Tensor<f32, Ix3>, passes: f64, fit: impl Fn() -> Result<()>) -> Result<()> {
    if !bench.wants(name) {
        return Ok(());
    }
    let seconds = bench.time(1, || Ok(()), |()| fit())?;
    Work::of_bytes(4.0 * x.len() as f64 * passes).report(name, Precision::F32, seconds);
    Ok(())
}

pub fn run(bench: &Bench) -> Result<()> {
    for sizes in [[4096, 768, 3072], [4096, 4096, 4096]] {
        for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
            gemm(bench, sizes, precision)?;
        }
    }
    if ["mode-product", "gram", "st-hosvd"].iter().any(|name| bench.wants_some(name)) {
        let x = cube(bench, 512)?;
        for mode in 0..3 {
            mode_product(bench, &x, mode, Precision::F32)?;
            mode_product(bench, &x, mode, Precision::Tf32)?;
            gram(bench, &x, mode)?;
        }
        solver(bench, "st-hosvd-512-32", &x, 2.0, || StHosvd::ranks([32; 3]).fit(&x).map(drop))?;
    }
    if ["hooi", "cp-als", "amounts", "cp-holes"].iter().any(|name| bench.wants_some(name)) {
        let x = cube(bench, 256)?;
        solver(bench, "hooi-10-256-16", &x, 20.0, || Hooi::ranks([16; 3]).exactly(10).fit(&x).map(drop))?;
        let cp = CpAls::rank(16).seed(7).exactly(10);
        solver(bench, "cp-als-10-256-16", &x, 20.0, || cp.fit(&x).map(drop))?;
        let amounts = x.abs()?;
        let tucker = NonNegativeTucker::ranks([16; 3]).exactly(10);
        solver(bench, "tucker-amounts-10-256-16", &amounts, 20.0, || tucker.fit(&amounts).map(drop))?;
        let non_negative = cp.clone().non_negative();
        solver(bench, "cp-amounts-10-256-16", &amounts, 20.0, || non_negative.fit(&amounts).map(drop))?;
        // Every tenth entry is missing.
        let missing = |i: &[usize]| if i.iter().sum::<usize>() % 10 == 0 { f32::NAN } else { 0.0 };
        let holes = x.add(&Tensor::from_fn([256; 3], missing)?.to_device(x.device())?)?;
        let known = cp.skip_nan();
        solver(bench, "cp-holes-10-256-16", &holes, 20.0, || known.fit(&holes).map(drop))?;
    }
    Ok(())
}
