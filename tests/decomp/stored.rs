//! Decompositions in files and through serde: back as they were, or an error that says what is wrong.

use crate::{
    draws::{draw_cp, draw_tucker},
    problems::{in_both_precisions, matrix, noisy, normal, rng},
    support::Operands,
};
use ndarray::{Ix1, Ix2, Ix3, IxDyn, array};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tempfile::TempDir;
use tenfold::{
    ErrorKind, Scalar, Tensor, TensorFile,
    decomp::{Cp, CpAls, Fit, Method, StHosvd, Stop, Target, Tucker},
};

const TUCKER: &str = "tenfold.tucker.1";
const CP: &str = "tenfold.cp.1";

/// A folder that goes away with the test, and a path in it.
fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it.safetensors");
    (folder, path)
}

fn shapes() -> [&'static [usize]; 7] {
    [&[4], &[3, 5], &[5, 3, 4], &[2, 1, 3, 2], &[2, 3, 2, 1, 2], &[2, 2, 2, 2, 2, 2], &[1, 1]]
}

fn files_give_back_what_they_took<T: Scalar>() {
    let (_folder, path) = file();
    for (seed, shape) in (0..).zip(shapes()) {
        // The parts are strided views in most of these.
        let mut operands = Operands::new(seed, 2);
        let t = draw_tucker::<T>(&mut operands, shape).format;
        t.save(&path).unwrap();
        assert_eq!(Tucker::<T>::load(&path).unwrap(), t);
        let cp = draw_cp::<T>(&mut operands, shape).format;
        // Overwrites the file, whole.
        cp.save(&path).unwrap();
        assert_eq!(Cp::<T>::load(&path).unwrap(), cp);
    }
    // A single number, which has no factor.
    let number = Tucker::new(Tensor::<T, IxDyn>::full(IxDyn(&[]), T::of(3.0)).unwrap(), Vec::new()).unwrap();
    number.save(&path).unwrap();
    assert_eq!(Tucker::<T>::load(&path).unwrap(), number);
}

fn serde_gives_back_what_it_took<T: Scalar + Serialize + for<'a> Deserialize<'a>>() {
    for (seed, shape) in (10..).zip(shapes()) {
        let mut operands = Operands::new(seed, 1);
        let t = draw_tucker::<T>(&mut operands, shape).format;
        let back: Tucker<T> = serde_json::from_str(&serde_json::to_string(&t).unwrap()).unwrap();
        assert_eq!(back, t);
        let cp = draw_cp::<T>(&mut operands, shape).format;
        let back: Cp<T> = serde_json::from_str(&serde_json::to_string(&cp).unwrap()).unwrap();
        assert_eq!(back, cp);
    }
}

in_both_precisions! {
    files_give_back_what_they_took
    serde_gives_back_what_it_took
}

/// Two factors and a core that fit.
fn parts() -> (Tensor<f64, Ix2>, [Tensor<f64, Ix2>; 2]) {
    (matrix(2, 3, 1), [matrix(4, 2, 2), matrix(5, 3, 3)])
}

fn tucker_file(names: &[&str]) -> TensorFile {
    let (core, [a, b]) = parts();
    let mut file = TensorFile::new().with_metadata("format", TUCKER);
    for &name in names {
        let part = match name {
            "core" => &core,
            "factor_0" => &a,
            _ => &b,
        };
        file.insert(name, part).unwrap();
    }
    file
}

#[track_caller]
fn assert_refused<M>(result: tenfold::Result<M>, kind: ErrorKind, says: &str) {
    let Err(error) = result else { panic!("should be refused: {says}") };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(says), "{error} does not say: {says}");
}

#[test]
fn missing_and_unexpected_names_are_errors() {
    let (_folder, path) = file();
    let load = |names: &[&str]| {
        tucker_file(names).save(&path).unwrap();
        Tucker::<f64>::load(&path)
    };
    assert_eq!(load(&["core", "factor_0", "factor_1"]).unwrap().shape(), &[4, 5]);
    let refused = |names: &[&str], says: &str| assert_refused(load(names), ErrorKind::Value, says);
    refused(&["factor_0", "factor_1"], "missing is \"core\"");
    refused(&["core"], "missing is \"factor_0\"");
    refused(&["core", "factor_0", "factor_2"], "missing is \"factor_1\"; unexpected is \"factor_2\"");
    refused(&["core", "factor_0", "factor_01"], "missing is \"factor_1\"; unexpected is \"factor_01\"");
    refused(&["core", "factor_0", "factor_1", "bias"], "unexpected is \"bias\"");
    refused(&["core", "factor_0", "factor_1", "weights"], "unexpected is \"weights\"");
    refused(&["core", "factor_0", "factor_1", "factor_x"], "missing is \"factor_2\"; unexpected is \"factor_x\"");
    refused(&[], "missing are \"core\", \"factor_0\"");
    let (_, factors) = parts();
    let file = TensorFile::new().with_metadata("format", CP).with("factor_0", &factors[0]).unwrap();
    file.with("core", &factors[1]).unwrap().save(&path).unwrap();
    assert_refused(Cp::<f64>::load(&path), ErrorKind::Value, "missing is \"weights\"; unexpected is \"core\"");
}

#[test]
fn files_of_another_kind_are_errors() {
    let (_folder, path) = file();
    let (core, factors) = parts();
    let t = Tucker::new(core.clone(), factors.to_vec()).unwrap();
    t.save(&path).unwrap();
    let says = "the metadata names tenfold.tucker.1, not tenfold.cp.1";
    assert_refused(Cp::<f64>::load(&path), ErrorKind::Format, says);
    // Another order than the type says; a type that would round.
    assert_refused(Tucker::<f64, Ix3>::load(&path), ErrorKind::Shape, "order");
    assert_refused(Tucker::<f32>::load(&path), ErrorKind::Unsupported, "f64");
    // A wider type holds it exactly.
    t.core().cast::<f32>().unwrap();
    let single = Tucker::<f32, Ix2>::new(core.cast().unwrap(), factors.iter().map(|f| f.cast().unwrap()).collect());
    single.as_ref().unwrap().save(&path).unwrap();
    let wide = Tucker::<f64, Ix2>::load(&path).unwrap();
    assert_eq!(wide.core().cast::<f32>().unwrap(), *single.unwrap().core());

    let cp = Cp::<f64>::new(Tensor::ones([2]).unwrap(), vec![factors[0].clone(); 3]).unwrap();
    cp.save(&path).unwrap();
    assert_refused(Tucker::<f64>::load(&path), ErrorKind::Format, "the metadata names tenfold.cp.1");
    assert_refused(Cp::<f64, Ix2>::load(&path), ErrorKind::Shape, "3 factors; needs 2");

    TensorFile::new().with("core", &core).unwrap().save(&path).unwrap();
    assert_refused(Tucker::<f64>::load(&path), ErrorKind::Format, "the metadata names no format");
    core.save_npy(&path).unwrap();
    assert_refused(Tucker::<f64>::load(&path), ErrorKind::Format, "");
    std::fs::write(&path, b"").unwrap();
    assert_refused(Tucker::<f64>::load(&path), ErrorKind::Format, "");
    std::fs::remove_file(&path).unwrap();
    assert_refused(Tucker::<f64>::load(&path), ErrorKind::Io, "it.safetensors");
    assert_refused(t.save(path.join("no folder")), ErrorKind::Io, "no folder");
}

#[test]
fn parts_that_do_not_fit_each_other_are_errors() {
    let (_folder, path) = file();
    let (core, [a, b]) = parts();
    let file = |core: &Tensor<f64, IxDyn>, b: &Tensor<f64, IxDyn>| {
        let file = TensorFile::new().with_metadata("format", TUCKER).with("core", core).unwrap();
        file.with("factor_0", &a).unwrap().with("factor_1", b).unwrap().save(&path).unwrap();
        Tucker::<f64>::load(&path)
    };
    let (core, b) = (core.into_dyn(), b.into_dyn());
    assert_eq!(file(&core, &b).unwrap().shape(), &[4, 5]);
    assert_refused(file(&normal(&[2, 2], 5), &b), ErrorKind::Shape, "factor 1 is 5 x 3");
    assert_refused(file(&normal(&[2, 3, 1], 5), &b), ErrorKind::Shape, "2 factors for a core of shape [2, 3, 1]");
    assert_refused(file(&core, &normal(&[5, 3, 1], 5)), ErrorKind::Shape, "order");
    assert_refused(file(&core, &normal(&[3], 5)), ErrorKind::Shape, "order");
    let weights = Tensor::<f64, Ix1>::ones([3]).unwrap();
    let file = TensorFile::new().with_metadata("format", CP).with("weights", &weights).unwrap();
    file.with("factor_0", &a).unwrap().save(&path).unwrap();
    assert_refused(Cp::<f64>::load(&path), ErrorKind::Shape, "factor 0 has 2 columns for 3 weights");
}

/// A file cut off anywhere is an error, and one with changed bytes is an error or some decomposition, but no panic.
#[test]
fn damaged_files_are_errors() {
    let (_folder, path) = file();
    let (core, factors) = parts();
    let t = Tucker::new(core, factors.to_vec()).unwrap();
    let cp = Cp::<f64>::new(Tensor::from(array![2.0, 1.0]), vec![factors[0].clone(); 2]).unwrap();
    for tucker in [true, false] {
        if tucker { t.save(&path) } else { cp.save(&path) }.unwrap();
        let whole = std::fs::read(&path).unwrap();
        let load = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            if tucker { Tucker::<f64>::load(&path).map(drop) } else { Cp::<f64>::load(&path).map(drop) }
        };
        load(&whole).unwrap();
        for length in 0..whole.len() {
            assert_refused(load(&whole[..length]), ErrorKind::Format, "");
        }
        assert_refused(load(&[&whole[..], &[0]].concat()), ErrorKind::Format, "");
        let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        let mut rng = rng(1);
        let mut refused = 0;
        for _ in 0..2000 {
            let mut bytes = whole.clone();
            for _ in 0..rng.random_range(1..=3) {
                bytes[rng.random_range(0..header)] = rng.random_range(0..128);
            }
            refused += load(&bytes).is_err() as usize;
        }
        assert!(refused > 1900, "only {refused} of 2000 broken headers are refused");
    }
}

#[test]
fn serde_refuses_what_does_not_fit() {
    let (core, [a, b]) = parts();
    let text = |x: &dyn Fn() -> String| x();
    let [core, a, b] = [&core, &a, &b].map(|x| text(&|| serde_json::to_string(x).unwrap()));
    let tucker = |text: String| serde_json::from_str::<Tucker<f64>>(&text).map_err(|e| e.to_string());
    tucker(format!(r#"{{"core":{core},"factors":[{a},{b}]}}"#)).unwrap();
    let refused = |text: String, says: &str| {
        let error = tucker(text).unwrap_err();
        assert!(error.contains(says), "{error} does not say: {says}");
    };
    refused(format!(r#"{{"core":{core},"factors":[{a},{a}]}}"#), "factor 1 is 4 x 2, but the core");
    refused(format!(r#"{{"core":{core},"factors":[{a}]}}"#), "1 factors for a core");
    refused(format!(r#"{{"core":{core}}}"#), "missing field `factors`");
    refused(format!(r#"{{"core":{core},"factors":[{a},{b}],"bias":1}}"#), "unknown field `bias`");
    refused(format!(r#"{{"core":{{"shape":[2,3],"data":[1.0]}},"factors":[{a},{b}]}}"#), "needs 6 entries");
    refused(format!(r#"{{"core":{core},"factors":[{a},{{"shape":[3],"data":[1,2,3]}}]}}"#), "order");
    let weights = r#"{"shape":[3],"data":[1.0,2.0,3.0]}"#;
    let cp = |text: String| serde_json::from_str::<Cp<f64>>(&text).map_err(|e| e.to_string());
    cp(format!(r#"{{"weights":{weights},"factors":[{b},{b}]}}"#)).unwrap();
    let error = cp(format!(r#"{{"weights":{weights},"factors":[{b},{a}]}}"#)).unwrap_err();
    assert!(error.contains("factor 1 has 2 columns for 3 weights"), "{error}");
    let error = cp(format!(r#"{{"weights":{weights},"factors":[]}}"#)).unwrap_err();
    assert!(error.contains("0 factors"), "{error}");
}

#[test]
fn fits_and_settings_go_through_serde() {
    let x = noisy::<f64>(&[5, 4, 6], &[2, 2, 2], 0.1, 1);
    let fit = CpAls::rank(2).exactly(3).fit(&x).unwrap();
    let text = serde_json::to_string(&fit).unwrap();
    assert!(text.contains(r#""stopped":"sweeps""#), "{text}");
    let back: Fit<Cp<f64>> = serde_json::from_str(&text).unwrap();
    assert_eq!(back.decomposition, fit.decomposition);
    assert_eq!((back.relative_error, &back.history, back.stopped), (fit.relative_error, &fit.history, Stop::Sweeps));
    let fit = StHosvd::tolerance(0.2).fit(&x).unwrap();
    let back: Fit<Tucker<f64>> = serde_json::from_str(&serde_json::to_string(&fit).unwrap()).unwrap();
    assert_eq!((back.into_inner(), Stop::Direct), (fit.decomposition.clone(), fit.stopped));

    let methods = [
        (Method::Auto, r#""auto""#),
        (Method::Gram, r#""gram""#),
        (Method::Svd, r#""svd""#),
        (
            Method::Randomized { oversampling: 5, iterations: 1, seed: 7 },
            r#"{"randomized":{"oversampling":5,"iterations":1,"seed":7}}"#,
        ),
    ];
    for (method, text) in methods {
        assert_eq!(serde_json::to_string(&method).unwrap(), text);
        assert_eq!(serde_json::from_str::<Method>(text).unwrap(), method);
    }
    for (target, text) in
        [(Target::Ranks(vec![2, 3]), r#"{"ranks":[2,3]}"#), (Target::Tolerance(0.25), r#"{"tolerance":0.25}"#)]
    {
        assert_eq!(serde_json::to_string(&target).unwrap(), text);
        assert_eq!(serde_json::from_str::<Target>(text).unwrap(), target);
    }
}
