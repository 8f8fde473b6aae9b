//! Decomposes a `.npy` tensor of any order and writes core, weights and factors as `.npy` files.
//!
//! ```sh
//! cargo run --release --example decompose -- cube.npy --method st-hosvd --tol 0.05 --out parts
//! cargo run --release --example decompose -- cube.npy --method cp-als --rank 10 --sweeps 50 --seed 7 --json
//! cargo run --release --example decompose -- spectra.npy --method cp-als --rank 3 --non-negative --skip-nan --starts 5
//! ```
//!
//! Back in NumPy, with the parts of a Tucker decomposition of order 3:
//!
//! ```python
//! core, *factors = [np.load(f"parts/{n}.npy") for n in ("core", "factor_0", "factor_1", "factor_2")]
//! x = np.einsum("abc,ia,jb,kc->ijk", core, *factors)
//! ```

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use ndarray::IxDyn;
use serde_json::json;
use std::{
    fmt::Display,
    io::{IsTerminal, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};
use tenfold::{
    DType, Device, Error, ErrorKind, Result, Scalar, Tensor,
    decomp::{
        CpAls, CpStart, Fit, Hooi, HooiStart, Hosvd, NonNegativeStart, NonNegativeTucker, Progress, StHosvd, Stop,
        Target,
    },
};

/// Decompose a tensor into a Tucker core with factors, or into a sum of CP components.
///
/// Tucker methods (hosvd, st-hosvd, hooi, non-negative-tucker) take one rank for each mode, or, for the first two, a tolerance: the
/// relative error that the result is guaranteed to meet, with ranks as small as that allows. CP takes one rank, the number of components.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The tensor: a .npy file of numbers, of order 2 or more.
    input: PathBuf,
    /// st-hosvd is the quickest; hooi the best Tucker fit for given ranks; non-negative-tucker has no negative entry in core or
    /// factors; cp-als finds components.
    #[arg(long, value_enum)]
    method: MethodName,
    /// Tucker ranks, one for each mode: 30,30,10
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["tol", "rank"])]
    ranks: Option<Vec<usize>>,
    /// The relative error to stay below, between 0 and 1.
    #[arg(long, conflicts_with = "rank")]
    tol: Option<f64>,
    /// The number of CP components.
    #[arg(long)]
    rank: Option<usize>,
    /// Run exactly this many sweeps (all but hosvd and st-hosvd), or with --until-change at most so many; without it, until a sweep
    /// changes the error by less than 1e-8.
    #[arg(long)]
    sweeps: Option<usize>,
    /// Stop when a sweep changes the relative error by less than this (all but hosvd and st-hosvd); 0 for never.
    #[arg(long)]
    until_change: Option<f64>,
    /// Where sweeps start from: hosvd is the default of hooi, random of the others.
    #[arg(long, value_enum)]
    init: Option<Init>,
    /// Starts to try (cp-als, non-negative-tucker), of which the best is kept.
    #[arg(long, default_value_t = 1)]
    starts: usize,
    /// Components without negative entries (cp-als).
    #[arg(long)]
    non_negative: bool,
    /// Entries that are NaN are missing: fit the others (all but hosvd and st-hosvd).
    #[arg(long)]
    skip_nan: bool,
    /// Compute in this type.
    #[arg(long, value_enum, default_value = "f64")]
    dtype: Dtype,
    /// Fixes every random number.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads on the CPU; 0 for one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// cpu, or a GPU: cuda:0, cuda:1, ..
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Write core.npy or weights.npy, and factor_0.npy, factor_1.npy .. into this folder, in the place of those of another decomposition.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Let the last line of standard output be one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum MethodName {
    Hosvd,
    StHosvd,
    Hooi,
    NonNegativeTucker,
    CpAls,
}

impl MethodName {
    fn has_sweeps(self) -> bool {
        !matches!(self, MethodName::Hosvd | MethodName::StHosvd)
    }

    fn has_starts(self) -> bool {
        matches!(self, MethodName::NonNegativeTucker | MethodName::CpAls)
    }
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Init {
    Random,
    Hosvd,
}

#[derive(Clone, Copy, ValueEnum)]
enum Dtype {
    F32,
    F64,
}

/// A decomposition found, ready to be reported and written.
struct Found<T: Scalar> {
    summary: String,
    ranks: serde_json::Value,
    relative_error: f64,
    ratio: f64,
    sweeps: usize,
    stopped: Stop,
    seconds: f64,
    /// File names and contents.
    parts: Vec<(String, Tensor<T, IxDyn>)>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            if error.message().contains(" is NaN;") && arguments.method.has_sweeps() {
                eprintln!("If NaN means that an entry is missing, --skip-nan fits the others.");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    match arguments.dtype {
        Dtype::F32 => decompose::<f32>(arguments),
        Dtype::F64 => decompose::<f64>(arguments),
    }
}

fn decompose<T: Scalar>(arguments: &Arguments) -> Result<()> {
    let device = arguments.device.parse::<Device>()?.threads(arguments.threads);
    let x = Tensor::<f64, IxDyn>::load_npy(&arguments.input)?;
    if x.order() < 2 {
        let message =
            format!("{}: shape {:?}; a tensor of order 2 or more is needed", arguments.input.display(), x.shape());
        return Err(Error::new(ErrorKind::Shape, "decompose", message));
    }
    let shape = x.shape().to_vec();
    let heard = say(format_args!("{}: {}", arguments.input.display(), describe(&shape)));
    check_range::<T>(&x)?;
    let x = x.cast::<T>()?.to_device(&device)?;
    let of_sweeps = [
        ("--skip-nan", arguments.skip_nan),
        ("--sweeps", arguments.sweeps.is_some()),
        ("--until-change", arguments.until_change.is_some()),
        ("--init", arguments.init.is_some()),
    ];
    if let Some((flag, _)) = of_sweeps.iter().find(|(_, said)| *said && !arguments.method.has_sweeps()) {
        return Err(usage(format!("{flag} is for methods with sweeps: hooi, non-negative-tucker and cp-als")));
    }
    if arguments.starts > 1 && !arguments.method.has_starts() {
        return Err(usage("--starts is for methods that start from random numbers: non-negative-tucker and cp-als"));
    }
    if arguments.non_negative && arguments.method != MethodName::CpAls {
        return Err(usage(
            "--non-negative is for cp-als; Tucker without negative entries is --method non-negative-tucker",
        ));
    }
    let found = match arguments.method {
        MethodName::CpAls => components(arguments, &x)?,
        _ => tucker(arguments, &x)?,
    };
    // Before anything more is said: nobody may be listening.
    let written = arguments.out.as_deref().map(|folder| write(folder, &found.parts).map(|()| folder));
    heard.and_then(|()| say(&found.summary))?;
    let sweeps = match found.stopped {
        Stop::Direct => "computed directly".to_string(),
        stopped => format!("{} sweeps, {stopped}", found.sweeps),
    };
    let over = if arguments.skip_nan { " over the known entries" } else { "" };
    say(format_args!(
        "relative error ||X - X'|| / ||X|| = {:.6e}{over} ({sweeps}), {:.3} s",
        found.relative_error, found.seconds
    ))?;
    if let Some(folder) = written.transpose()? {
        let names: Vec<&str> = found.parts.iter().map(|(name, _)| name.as_str()).collect();
        say(format_args!("wrote {} into {}", names.join(", "), folder.display()))?;
    }
    if arguments.json {
        say(json!({
            "method": arguments.method.to_possible_value().map(|v| v.get_name().to_string()),
            "shape": shape,
            "ranks": found.ranks,
            "relative_error": found.relative_error,
            "compression_ratio": found.ratio,
            "sweeps": found.sweeps,
            "stopped": found.stopped,
            "seconds": found.seconds,
            "dtype": T::DTYPE,
            "device": device.to_string(),
            "seed": arguments.seed,
        }))?;
    }
    Ok(())
}

/// A line on standard output, which may be closed or full.
fn say(line: impl Display) -> Result<()> {
    writeln!(std::io::stdout(), "{line}")
        .map_err(|e| Error::new(ErrorKind::Io, "decompose", format!("standard output: {e}")).with_source(e))
}

/// An error where the numbers of a file would be infinite, subnormal or zero in the type to compute in.
fn check_range<T: Scalar>(x: &Tensor<f64, IxDyn>) -> Result<()> {
    let largest = x.max_abs()?;
    let range = T::min_positive_value().f64()..=T::max_value().f64();
    if T::DTYPE == DType::F64 || largest == 0.0 || !largest.is_finite() || range.contains(&largest) {
        return Ok(());
    }
    let message = format!("the largest entry, {largest:e}, is out of the range of {}; use --dtype f64", T::DTYPE);
    Err(Error::new(ErrorKind::Value, "decompose", message))
}

fn describe(shape: &[usize]) -> String {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("{}, {} entries", sizes.join(" x "), shape.iter().product::<usize>())
}

fn tucker<T: Scalar>(arguments: &Arguments, x: &Tensor<T, IxDyn>) -> Result<Found<T>> {
    let target = match (&arguments.ranks, arguments.tol) {
        (Some(ranks), _) => Target::Ranks(ranks.clone()),
        (None, Some(tolerance)) if !arguments.method.has_sweeps() => Target::Tolerance(tolerance),
        (None, Some(_)) => return Err(usage("methods with sweeps need --ranks; --tol is for hosvd and st-hosvd")),
        (None, None) => {
            return Err(usage(
                "Tucker methods need --ranks 30,30,10 or, for hosvd and st-hosvd, --tol 0.05; --rank is for cp-als",
            ));
        }
    };
    let bar = Bar::new(arguments);
    let start = Instant::now();
    let fit = match (arguments.method, target) {
        (MethodName::Hosvd, target) => Hosvd::target(target).fit_with(x, |p| bar.show(p))?,
        (MethodName::Hooi, Target::Ranks(ranks)) => {
            let mut solver = Hooi::ranks(ranks);
            if let Some(sweeps) = arguments.sweeps {
                solver = solver.exactly(sweeps);
            }
            if let Some(change) = arguments.until_change {
                solver = solver.until_change(change);
            }
            if arguments.init == Some(Init::Random) {
                solver = solver.start(HooiStart::Random { seed: arguments.seed });
            }
            if arguments.skip_nan {
                solver = solver.skip_nan();
            }
            solver.fit_with(x, |p| bar.show(p))?
        }
        (MethodName::NonNegativeTucker, Target::Ranks(ranks)) => {
            let mut solver = NonNegativeTucker::ranks(ranks).seed(arguments.seed).starts(arguments.starts);
            if let Some(sweeps) = arguments.sweeps {
                solver = solver.exactly(sweeps);
            }
            if let Some(change) = arguments.until_change {
                solver = solver.until_change(change);
            }
            if arguments.init == Some(Init::Hosvd) {
                solver = solver.start(NonNegativeStart::Hosvd);
            }
            if arguments.skip_nan {
                solver = solver.skip_nan();
            }
            solver.fit_with(x, |p| bar.show(p))?
        }
        (_, target) => StHosvd::target(target).fit_with(x, |p| bar.show(p))?,
    };
    let seconds = start.elapsed().as_secs_f64();
    bar.done();
    // On the residual itself, and outside of the time; with missing entries the solver has measured it so.
    let error = if arguments.skip_nan { fit.relative_error } else { fit.decomposition.relative_error(x)? };
    let (ranks, ratio) = (json!(fit.ranks()), fit.compression_ratio());
    let found = Found::new(&fit, ranks, ratio, error, seconds);
    let (core, factors) = fit.into_inner().into_parts();
    Ok(found.with(std::iter::once(("core.npy".to_string(), core)).chain(named(factors))))
}

fn components<T: Scalar>(arguments: &Arguments, x: &Tensor<T, IxDyn>) -> Result<Found<T>> {
    let Some(rank) = arguments.rank else {
        return Err(usage("cp-als needs --rank, the number of components; --ranks and --tol are for Tucker methods"));
    };
    let mut solver = CpAls::rank(rank).seed(arguments.seed).starts(arguments.starts);
    if let Some(sweeps) = arguments.sweeps {
        solver = solver.exactly(sweeps);
    }
    if let Some(change) = arguments.until_change {
        solver = solver.until_change(change);
    }
    if arguments.init == Some(Init::Hosvd) {
        solver = solver.start(CpStart::Hosvd);
    }
    if arguments.non_negative {
        solver = solver.non_negative();
    }
    if arguments.skip_nan {
        solver = solver.skip_nan();
    }
    let bar = Bar::new(arguments);
    let start = Instant::now();
    let fit = solver.fit_with(x, |p| bar.show(p))?;
    let seconds = start.elapsed().as_secs_f64();
    bar.done();
    let error = if arguments.skip_nan { fit.relative_error } else { fit.decomposition.relative_error(x)? };
    let found = Found::new(&fit, json!([rank]), fit.compression_ratio(), error, seconds);
    let (weights, factors) = fit.into_inner().into_parts();
    Ok(found.with(std::iter::once(("weights.npy".to_string(), weights.into_dyn())).chain(named(factors))))
}

fn named<T: Scalar>(factors: Vec<Tensor<T, ndarray::Ix2>>) -> impl Iterator<Item = (String, Tensor<T, IxDyn>)> {
    factors.into_iter().enumerate().map(|(mode, factor)| (format!("factor_{mode}.npy"), factor.into_dyn()))
}

impl<T: Scalar> Found<T> {
    fn new<M: Display>(fit: &Fit<M>, ranks: serde_json::Value, ratio: f64, relative_error: f64, seconds: f64) -> Self {
        let summary = fit.decomposition.to_string();
        let (sweeps, stopped) = (fit.sweeps(), fit.stopped);
        Self { summary, ranks, relative_error, ratio, sweeps, stopped, seconds, parts: Vec::new() }
    }

    fn with(mut self, parts: impl Iterator<Item = (String, Tensor<T, IxDyn>)>) -> Self {
        self.parts = parts.collect();
        self
    }
}

fn usage(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Rank, "decompose", message)
}

/// Writes all parts or none: into a new folder inside the one wanted, from which the files then move.
fn write<T: Scalar>(folder: &Path, parts: &[(String, Tensor<T, IxDyn>)]) -> Result<()> {
    let io = |path: &Path, e: std::io::Error| {
        Error::new(ErrorKind::Io, "decompose", format!("{}: {e}; choose an --out that can be written", path.display()))
    };
    std::fs::create_dir_all(folder).map_err(|e| io(folder, e))?;
    // What a rename would refuse is found before the first one.
    if let Some(taken) = parts.iter().map(|(name, _)| folder.join(name)).find(|path| path.is_dir()) {
        let message = format!("{} is a folder, and a file of that name is to be written", taken.display());
        return Err(Error::new(ErrorKind::Io, "decompose", message));
    }
    let staged = folder.join(format!(".part-{}", std::process::id()));
    std::fs::create_dir(&staged).map_err(|e| io(&staged, e))?;
    let written = parts.iter().try_for_each(|(name, part)| part.to_device(&Device::cpu())?.save_npy(staged.join(name)));
    let moved = written.and_then(|()| {
        parts.iter().try_for_each(|(name, _)| {
            let to = folder.join(name);
            std::fs::rename(staged.join(name), &to).map_err(|e| io(&to, e))
        })?;
        remove_others(folder, parts).map_err(|e| io(folder, e))
    });
    // What is left of the staging folder is of no use to anybody, and its removal no reason to fail.
    std::fs::remove_dir_all(&staged).ok();
    moved
}

/// Removes the parts of another decomposition, which would be read as parts of this one.
fn remove_others<T: Scalar>(folder: &Path, parts: &[(String, Tensor<T, IxDyn>)]) -> std::io::Result<()> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let is_factor = |stem: &str| stem.strip_prefix("factor_").is_some_and(is_number);
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".npy"));
        let is_part = stem.is_some_and(|stem| stem == "core" || stem == "weights" || is_factor(stem));
        if is_part && parts.iter().all(|(part, _)| name != part.as_str()) && entry.file_type()?.is_file() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A progress bar on standard error, when somebody is looking.
struct Bar(ProgressBar);

impl Bar {
    fn new(arguments: &Arguments) -> Self {
        let bar = match std::io::stderr().is_terminal() {
            true => ProgressBar::new(0),
            false => ProgressBar::hidden(),
        };
        let unit = if arguments.method.has_sweeps() { "sweeps" } else { "modes" };
        if let Ok(style) =
            ProgressStyle::with_template(&format!("{{bar:40}} {{pos}}/{{len}} {unit}  {{msg}}  {{eta}} left"))
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    fn show(&self, progress: &Progress) -> ControlFlow<()> {
        self.0.set_length(progress.total as u64);
        self.0.set_position(progress.done as u64);
        if let Some(error) = progress.relative_error {
            self.0.set_message(format!("relative error {error:.6}"));
        }
        ControlFlow::Continue(())
    }

    fn done(&self) {
        self.0.finish_and_clear();
    }
}
