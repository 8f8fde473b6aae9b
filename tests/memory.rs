//! How much memory a solver takes beside its input, as the system counts it: pages that were really touched.

use ndarray::{Array, Ix3};
use std::sync::{Mutex, PoisonError};
use tenfold::{
    Tensor,
    decomp::{Cp, StHosvd},
};

/// A figure of /proc/self/status in bytes.
fn resident(field: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim_matches([':', ' ', '\t']).strip_suffix(" kB")?.trim().parse::<usize>().ok().map(|kb| kb << 10)
}

/// What work gives, and how much memory it takes at its peak; `None` where the system does not tell.
fn peak_of<R>(work: impl FnOnce() -> R) -> Option<(R, usize)> {
    // The tests would count each other's.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Writing 5 there resets the peak to what is resident now.
    let reset = std::fs::write("/proc/self/clear_refs", "5").is_ok();
    let (true, Some(before)) = (reset, resident("VmRSS")) else {
        println!("skipped: this system does not tell how much memory is resident");
        return None;
    };
    let result = work();
    Some((result, resident("VmHWM").unwrap() - before))
}

/// The input moved in, ST-HOSVD needs the first projection (J/I of the input) and less than 16 MB for everything else.
#[test]
fn st_hosvd_needs_little_beside_its_input() {
    let (n, rank) = (150, 15);
    let x = Array::from_shape_fn((n, n, n), |(i, j, k)| {
        let noise = ((i * 7919 + j * 104_729 + k * 1_299_709) % 1000) as f64 / 5000.0;
        ((i + 2 * j) as f64 / 20.0).sin() * (k as f64 / 9.0).cos() + noise
    });
    let input = n * n * n * size_of::<f64>();
    let x: Tensor<f64, Ix3> = Tensor::from(x);
    for (name, solver) in [("ranks", StHosvd::ranks([rank; 3])), ("tolerance", StHosvd::tolerance(0.2))] {
        let Some((fit, peak)) = peak_of(|| solver.fit(&x).unwrap()) else { return };
        let first = fit.ranks()[0] as f64 / n as f64;
        let allowed = input as f64 * first + 16e6;
        println!(
            "{name}: {:.1} MB beside the input of {:.1}, {:.1} allowed",
            peak as f64 / 1e6,
            input as f64 / 1e6,
            allowed / 1e6
        );
        assert!(peak as f64 <= allowed, "{name}: {peak} bytes at the peak beside the input, {allowed} allowed");
    }
}

/// A short first mode does not make the products of the other factors' columns larger than the tensor.
#[test]
fn cp_reconstructs_in_little_more_than_the_result() {
    let (shape, rank) = ([3, 600, 600], 40);
    let factors = shape.map(|n| Tensor::<f64, _>::ones([n, rank]).unwrap()).to_vec();
    let cp = Cp::<f64, Ix3>::new(Tensor::ones([rank]).unwrap(), factors).unwrap();
    let Some((x, peak)) = peak_of(|| cp.reconstruct().unwrap()) else { return };
    let allowed = x.len() * size_of::<f64>() + 16_000_000;
    assert!(peak <= allowed, "{peak} bytes at the peak, {allowed} allowed");
}
