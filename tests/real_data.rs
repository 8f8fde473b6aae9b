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
