//! Measured tensors, where they are at hand: known fits, tolerances met, missing values refused. Absent, the tests say so and pass.

use ndarray::{Ix3, Ix4, IxDyn};
use std::path::PathBuf;
use tenfold::{
    ErrorKind, Scalar, Tensor,
    decomp::{CpAls, CpStart, Hooi, Hosvd, StHosvd},
};

/// The folder of the measured tensors, beside the project's.
fn folder() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/tensors");
    if !folder.is_dir() {
        println!("skipped: there is no folder ../shared/data/tensors beside the project");
        return None;
    }
    Some(folder)
}

/// One file of it.
fn file(name: &str) -> Option<PathBuf> {
    let file = folder()?.join(name);
    if !file.is_file() {
        println!("skipped: {name} is not in ../shared/data/tensors");
        return None;
    }
    Some(file)
}

/// Every array of the folder, in doubles.
fn all() -> Vec<(String, Tensor<f64, IxDyn>)> {
    let Some(folder) = folder() else { return Vec::new() };
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "npy"));
    paths.sort();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), Tensor::load_npy(path).unwrap())).collect()
}

/// ||X - X'|| / ||X|| from the entries, in doubles.
fn residual<T: Scalar>(x: &Tensor<T, IxDyn>, y: &Tensor<T, IxDyn>) -> f64 {
    let [x, y] = [x, y].map(|x| x.cast::<f64>().unwrap());
    x.sub(&y).unwrap().norm().unwrap() / x.norm().unwrap()
}

/// Amino acids in water (Bro 1997): 5 samples of three substances, 201 emission by 61 excitation wavelengths.
#[test]
fn the_fits_of_the_amino_acids_are_the_known_ones() {
    let Some(path) = file("aminoacid.npy") else { return };
    let x = Tensor::<f64, Ix3>::load_npy(path).unwrap();
    assert_eq!(x.shape(), &[5, 201, 61]);
    for (rank, known, digits) in [(1, 0.4033, 1e-4), (2, 0.6363, 1e-4), (3, 0.97495, 1e-5)] {
        let fit = CpAls::rank(rank).starts(3).sweeps(1000).fit(&x).unwrap();
        println!("rank {rank}: fit {:.5} after {} sweeps, known is {known}", fit.fit(), fit.sweeps());
        assert!((fit.fit() - known).abs() < digits, "rank {rank}: {fit}");
    }
    // A fourth component fits noise, for which there are several minima: each start reaches the known one or a better.
    for start in [CpStart::Hosvd, CpStart::Random] {
        let fit = CpAls::rank(4).start(start.clone()).sweeps(2000).fit(&x).unwrap();
        println!("rank 4, {start:?}: fit {:.5} after {} sweeps, known is 0.97643", fit.fit(), fit.sweeps());
        assert!((0.97643 - 1e-5..0.98).contains(&fit.fit()), "rank 4: {fit}");
    }
}

/// The first three samples hold one substance each, and amounts are not negative: components that know so see it.
#[test]
fn amounts_of_the_amino_acids() {
    let Some(path) = file("aminoacid.npy") else { return };
    let x = Tensor::<f64, Ix3>::load_npy(path).unwrap();
    let free = CpAls::rank(3).sweeps(1000).fit(&x).unwrap();
    let fit = CpAls::rank(3).non_negative().sweeps(1000).fit(&x).unwrap();
    println!("{fit}, of free factors {:.5}", free.relative_error);
    assert!(fit.factors().iter().all(|f| f.min().unwrap() >= 0.0));
    assert!((0.0..1e-3).contains(&(fit.relative_error - free.relative_error)));
    let amounts = fit.factors()[0].view().unwrap();
    for sample in 0..3 {
        let mut row = amounts.row(sample).to_vec();
        row.sort_by(f64::total_cmp);
        assert!(row[1] < 0.02 * row[2], "sample {sample}: {row:?}");
    }
}

/// A third of the measured entries taken away: the others give the components all the same.
#[test]
fn amino_acids_with_holes() {
    let Some(path) = file("aminoacid.npy") else { return };
    let x = Tensor::<f64, Ix3>::load_npy(path).unwrap();
    let whole = CpAls::rank(3).sweeps(1000).fit(&x).unwrap();
    let mut entries = x.clone().into_ndarray().unwrap();
    // Scattered, and what spectrometers cannot measure: emission at wavelengths below the excitation's.
    let scattered = |i: usize, j: usize, k: usize| (i * 5 + j * 3 + k * 7) % 10 < 3 || (j < 40 && k > 45);
    entries.indexed_iter_mut().filter(|((i, j, k), _)| scattered(*i, *j, *k)).for_each(|(_, x)| *x = f64::NAN);
    let holes = Tensor::from(entries);
    let missing = 1.0 - holes.view().unwrap().iter().filter(|x| !x.is_nan()).count() as f64 / holes.len() as f64;
    let fit = CpAls::rank(3).skip_nan().sweeps(1000).fit(&holes).unwrap();
    let error = fit.decomposition.relative_error(&x).unwrap();
    println!(
        "{:.1} % missing: {fit}; of all entries {error:.5}, of a fit to all {:.5}",
        1e2 * missing,
        whole.relative_error
    );
    assert!(missing > 0.3 && error < 1.1 * whole.relative_error);
}

/// Responses to interleukin 2 with a whole condition missing (Farhat et al. 2021): amounts, which cannot cancel.
#[test]
fn responses_with_missing_values() {
    let Some(path) = file("IL2_Response_Tensor.npy") else { return };
    let x = Tensor::<f64, Ix4>::load_npy(path).unwrap();
    assert_eq!(x.view().unwrap().iter().filter(|x| x.is_nan()).count(), 192);
    let norm = x.view().unwrap().iter().filter(|x| !x.is_nan()).map(|x| x * x).sum::<f64>().sqrt();
    for (rank, most) in [(1, 0.403), (2, 0.319), (3, 0.250), (4, 0.228)] {
        let fit = CpAls::rank(rank).non_negative().skip_nan().starts(3).sweeps(1000).fit(&x).unwrap();
        println!("rank {rank}: {fit}, weights {:?}", fit.weights().to_vec().unwrap());
        assert!(fit.relative_error < most, "rank {rank}: {fit}");
        assert!(fit.weights().max_abs().unwrap() < norm, "rank {rank}");
    }
}

#[test]
fn the_tucker_error_of_the_kinetic_data_is_the_known_one() {
    let Some(path) = file("Kinetic.npy") else { return };
    let x = Tensor::<f64, Ix4>::load_npy(path).unwrap();
    let direct = StHosvd::ranks([4, 4, 4, 4]).fit(&x).unwrap();
    let fit = Hooi::ranks([4, 4, 4, 4]).fit(&x).unwrap();
    println!("{direct}\n{fit}");
    assert!((fit.relative_error - 0.03694).abs() < 1e-5, "{fit}");
    // At most sqrt(4) times the best.
    assert!((fit.relative_error..2.0 * fit.relative_error).contains(&direct.relative_error), "{direct}");
}

fn tolerances_are_met<T: Scalar>(name: &str, x: &Tensor<T, IxDyn>) {
    for tolerance in [0.2, 0.1, 0.05, 0.01] {
        let fits = [StHosvd::tolerance(tolerance).fit(x).unwrap(), Hosvd::tolerance(tolerance).fit(x).unwrap()];
        for (solver, fit) in ["ST-HOSVD", "HOSVD"].into_iter().zip(&fits) {
            let truth = residual(x, &fit.reconstruct().unwrap());
            println!("{name}, {solver} to {tolerance}: {fit}");
            assert!(fit.relative_error <= tolerance, "{name} {solver}: {fit}");
            assert!(truth <= tolerance * (1.0 + 16.0 * T::epsilon().f64()), "{name} {solver}: {truth:e}");
            // A difference of squares, each a sum of up to half a million.
            let slack = if T::epsilon().f64() < 1e-10 { 1e-11 } else { 1e-4 };
            assert!(
                (truth - fit.relative_error).abs() < slack,
                "{name} {solver}: {truth:e}, {:e} reported",
                fit.relative_error
            );
        }
    }
}

#[test]
fn tolerances_are_met_on_every_finite_tensor_in_both_precisions() {
    for (name, x) in all() {
        if x.check_finite("test").is_ok() {
            tolerances_are_met(&name, &x);
            tolerances_are_met(&name, &x.cast::<f32>().unwrap());
        }
    }
}

/// Missing values are NaN in these files; the first is named, by every solver.
#[test]
fn tensors_with_missing_values_are_refused() {
    for (name, x) in all() {
        let Some(first) = x
            .view()
            .unwrap()
            .indexed_iter()
            .find(|(_, v)| v.is_nan())
            .map(|(i, _)| format!("{:?}", ndarray::Dimension::slice(&i)))
        else {
            continue;
        };
        println!("{name}: the first missing value is at {first}");
        let ranks = vec![2; x.order()];
        let errors = [
            StHosvd::tolerance(0.1).fit(&x).map(drop).unwrap_err(),
            StHosvd::ranks(ranks.clone()).fit(&x).map(drop).unwrap_err(),
            Hosvd::ranks(ranks.clone()).fit(&x).map(drop).unwrap_err(),
            Hooi::ranks(ranks).fit(&x).map(drop).unwrap_err(),
            CpAls::rank(2).fit(&x).map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Value);
            assert_eq!(error.message(), format!("entry {first} is NaN; every entry has to be finite"));
        }
    }
}
