//! Times one case of a solver or a mode product, and prints one line of JSON: what `benches/peers/compare.py` puts beside the
//! same case in other libraries.
//!
//! ```sh
//! cargo bench --bench solvers -- --data DIR --case st-hosvd-200 --dtype f64 --threads 2 --reps 9 --json
//! ```
//!
//! DIR is what `benches/peers/generate.py` wrote. The error is measured after the clock has stopped, on the residual.

use clap::Parser;
use ndarray::{Dimension, Ix2, Ix3, Ix4, IxDyn};
use std::{path::PathBuf, time::Instant};
use tenfold::{
    Device, Result, Scalar, Tensor,
    decomp::{CpAls, CpStart, Hooi, Hosvd, NonNegativeTucker, StHosvd},
};

/// Times one case and prints its median.
#[derive(Parser)]
struct Arguments {
    /// The folder that benches/peers/generate.py wrote.
    #[arg(long)]
    data: PathBuf,
    /// mode-product-0 .. -2, hosvd-200, st-hosvd-200, hooi-200, cp-als-200, tucker-amounts-200, cp-amounts-200, cp-holes-200, hosvd-64x4, .., hosvd-pines, ..
    #[arg(long)]
    case: String,
    #[arg(long, default_value = "f64")]
    dtype: String,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 9)]
    reps: usize,
    /// JSON alone.
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

struct Timed {
    seconds: Vec<f64>,
    error: f64,
}

struct Bench<'a> {
    arguments: &'a Arguments,
    device: Device,
}

impl Bench<'_> {
    fn load<T: Scalar, D: Dimension>(&self, name: &str) -> Result<Tensor<T, D>> {
        let path = self.arguments.data.join(format!("{name}_{}.npy", self.arguments.dtype));
        Tensor::load_npy(path)?.to_device(&self.device)
    }

    /// Runs `work` once to warm up and then `reps` times; `error` looks at the last result.
    fn time<R>(&self, work: impl Fn() -> Result<R>, error: impl FnOnce(&R) -> Result<f64>) -> Result<Timed> {
        let mut result = work()?;
        let mut seconds = Vec::new();
        for _ in 0..self.arguments.reps {
            let start = Instant::now();
            let now = work()?;
            seconds.push(start.elapsed().as_secs_f64());
            result = now;
        }
        seconds.sort_by(f64::total_cmp);
        Ok(Timed { seconds, error: error(&result)? })
    }

    fn run<T: Scalar>(&self) -> Result<Option<Timed>> {
        let case = self.arguments.case.as_str();
        if let Some(mode) = case.strip_prefix("mode-product-") {
            let Ok(mode) = mode.parse::<usize>() else { return Ok(None) };
            let (x, m): (Tensor<T, Ix3>, Tensor<T, Ix2>) = (self.load("tk3")?, self.load("modemat")?);
            return self.time(|| x.mode_product(mode, &m), |y| against_definition(&x, mode, &m, y)).map(Some);
        }
        match case.rsplit_once('-') {
            Some((solver, "200")) => self.solve::<T, Ix3>(solver, ["tk3", "cp3"], vec![20; 3], 20),
            Some((solver, "64x4")) => self.solve::<T, Ix4>(solver, ["tk4", "cp4"], vec![8; 4], 16),
            Some((solver, "pines")) => {
                self.solve::<T, Ix3>(solver, ["indian_pines", "indian_pines"], vec![30, 30, 10], 10)
            }
            _ => Ok(None),
        }
    }

    fn solve<T: Scalar, D: Dimension>(
        &self,
        name: &str,
        [tucker, cp]: [&str; 2],
        ranks: Vec<usize>,
        rank: usize,
    ) -> Result<Option<Timed>> {
        let x: Tensor<T, D> = self.load(if name.starts_with("cp-") { cp } else { tucker })?;
        let timed = match name {
            "hosvd" => self.time(|| Hosvd::ranks(ranks.clone()).fit(&x), |fit| fit.relative_error(&x))?,
            "st-hosvd" => self.time(|| StHosvd::ranks(ranks.clone()).fit(&x), |fit| fit.relative_error(&x))?,
            "hooi" => self.time(|| Hooi::ranks(ranks.clone()).exactly(10).fit(&x), |fit| fit.relative_error(&x))?,
            "tucker-amounts" => {
                let (x, solver) = (x.abs()?, NonNegativeTucker::ranks(ranks).exactly(10));
                self.time(|| solver.fit(&x), |fit| fit.decomposition.relative_error(&x))?
            }
            "cp-als" | "cp-amounts" | "cp-holes" => {
                let start: Vec<Tensor<T, Ix2>> =
                    (0..x.order()).map(|mode| self.load(&format!("{cp}_init{mode}"))).collect::<Result<_>>()?;
                let solver = CpAls::rank(rank).start(CpStart::Given(start)).exactly(10);
                match name {
                    "cp-amounts" => {
                        let (x, solver) = (x.abs()?, solver.non_negative());
                        self.time(|| solver.fit(&x), |fit| fit.decomposition.relative_error(&x))?
                    }
                    "cp-holes" => {
                        // Every tenth entry is missing; the error is over all of them.
                        let missing =
                            |i: &[usize]| if i.iter().sum::<usize>() % 10 == 0 { T::nan() } else { T::zero() };
                        let missing = Tensor::<T, IxDyn>::from_fn(IxDyn(x.shape()), missing)?;
                        let (holes, solver) =
                            (x.add(&missing.into_order()?.to_device(&self.device)?)?, solver.skip_nan());
                        self.time(|| solver.fit(&holes), |fit| fit.decomposition.relative_error(&x))?
                    }
                    _ => self.time(|| solver.fit(&x), |fit| fit.decomposition.relative_error(&x))?,
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(timed))
    }
}

/// The relative difference of a mode product to M X_(n), multiplied out in doubles.
fn against_definition<T: Scalar>(
    x: &Tensor<T, Ix3>,
    mode: usize,
    m: &Tensor<T, Ix2>,
    y: &Tensor<T, Ix3>,
) -> Result<f64> {
    let exact = m.cast::<f64>()?.matmul(&x.unfold(mode)?.cast()?)?;
    let difference = y.unfold(mode)?.cast::<f64>()?.sub(&exact)?;
    Ok(difference.norm()? / exact.norm()?)
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let _ = (arguments.json, arguments.bench);
    let bench = Bench { arguments: &arguments, device: Device::cpu().threads(arguments.threads) };
    let timed = match arguments.dtype.as_str() {
        "f32" => bench.run::<f32>()?,
        _ => bench.run::<f64>()?,
    };
    let line = match timed {
        None => serde_json::json!({ "unsupported": true }),
        Some(timed) => serde_json::json!({
            "library": "tenfold",
            "case": arguments.case,
            "dtype": arguments.dtype,
            "median_s": timed.seconds[timed.seconds.len() / 2],
            "min_s": timed.seconds[0],
            "relative_error": timed.error,
            "reps": timed.seconds.len(),
            "version": concat!("tenfold ", env!("CARGO_PKG_VERSION")),
        }),
    };
    println!("{line}");
    Ok(())
}
