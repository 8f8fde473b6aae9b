//! The example program `decompose`, run as a user runs it: every method, and every way to get the input wrong.

#[path = "support/program.rs"]
mod program;

use ndarray::IxDyn;
use program::{failed, program, succeeded};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};
use tempfile::TempDir;
use tenfold::Tensor;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A folder with an input file, in which the program runs.
struct Case {
    folder: TempDir,
}

impl Case {
    fn new(x: &Tensor<f64, IxDyn>) -> Result<Self> {
        let case = Self { folder: tempfile::tempdir()? };
        x.save_npy(case.path("x.npy"))?;
        Ok(case)
    }

    fn of_bytes(bytes: &[u8]) -> Result<Self> {
        let case = Self { folder: tempfile::tempdir()? };
        fs::write(case.path("x.npy"), bytes)?;
        Ok(case)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `decompose x.npy ..` with words separated by spaces.
    fn run(&self, words: &str) -> Result<Output> {
        let words = words.split_whitespace();
        Ok(Command::new(program("decompose", &["decompose.rs"]))
            .arg("x.npy")
            .args(words)
            .current_dir(self.folder.path())
            .output()?)
    }

    /// Runs to success; the last line of standard output as JSON.
    fn json(&self, words: &str) -> Result<serde_json::Value> {
        let json = succeeded(words, self.run(&format!("{words} --json"))?)?;
        for key in ["method", "shape", "ranks", "relative_error", "compression_ratio", "sweeps", "seconds"] {
            assert!(json.get(key).is_some_and(|value| !value.is_null()), "{words}: {key} missing in {json}");
        }
        Ok(json)
    }

    /// Runs to an error, whose message holds all `parts`; nothing is left but what was there.
    fn fails(&self, words: &str, parts: &[&str]) -> Result {
        let before = self.files()?;
        failed(words, self.run(words)?, parts)?;
        assert_eq!(self.files()?, before, "{words}");
        Ok(())
    }

    /// All files below the folder, sorted.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let mut folders = vec![self.folder.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        Ok(files)
    }

    fn load(&self, name: &str) -> Result<Tensor<f64, IxDyn>> {
        Ok(Tensor::load_npy(self.path(name))?)
    }
}

/// 5 x 4 x 3, of mode ranks (2, 2, 2) and CP rank 2.
fn small() -> Result<Tensor<f64, IxDyn>> {
    Ok(Tensor::from_fn(vec![5, 4, 3], |i| {
        let (a, b, c) = (i[0] as f64, i[1] as f64, i[2] as f64);
        (1.0 + a) * (2.0 - b) * (1.0 + c * c) + (3.0 - a * a) * (1.0 + b * b) * (2.0 - c)
    })?)
}

fn filled(value: f64) -> Result<Tensor<f64, IxDyn>> {
    Ok(Tensor::full(vec![3, 4, 5], value)?)
}

/// The bytes of a small file, to be damaged.
fn bytes() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    small()?.write_npy(&mut bytes)?;
    Ok(bytes)
}

/// An array with a header of the caller's and `data` zeros.
fn npy(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let header = format!("{header}\n");
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn every_method_reports_and_writes_what_it_found() -> Result {
    let x = small()?;
    let case = Case::new(&x)?;
    for (words, method, ranks) in [
        ("--method hosvd --ranks 2,2,2", "hosvd", vec![2, 2, 2]),
        ("--method hosvd --tol 0.001", "hosvd", vec![2, 2, 2]),
        ("--method st-hosvd --ranks 2,2,2", "st-hosvd", vec![2, 2, 2]),
        ("--method st-hosvd --tol 0.001 --threads 1", "st-hosvd", vec![2, 2, 2]),
        ("--method hooi --ranks 2,2,2", "hooi", vec![2, 2, 2]),
        ("--method hooi --ranks 2,2,2 --init random --seed 3 --sweeps 20", "hooi", vec![2, 2, 2]),
        ("--method cp-als --rank 2 --sweeps 500", "cp-als", vec![2]),
        ("--method cp-als --rank 2 --init hosvd --starts 2 --dtype f64", "cp-als", vec![2]),
    ] {
        let json = case.json(&format!("{words} --out parts"))?;
        assert_eq!(json["method"], method);
        assert_eq!(json["shape"], serde_json::json!([5, 4, 3]), "{words}");
        assert_eq!(json["ranks"], serde_json::json!(ranks), "{words}");
        let reported = json["relative_error"].as_f64().ok_or("no number")?;
        assert!(reported < 1e-2, "{words}: {reported}");
        assert!(json["seconds"].as_f64().is_some_and(|s| s > 0.0));
        assert_eq!(json["sweeps"].as_u64() == Some(0), method.ends_with("hosvd"), "{words}");

        // What was written gives the tensor back, with the error that was reported.
        let factors = (0..3).map(|n| Ok(case.load(&format!("parts/factor_{n}.npy"))?.into_order()?));
        let factors: Vec<Tensor<f64, ndarray::Ix2>> = factors.collect::<Result<_>>()?;
        let (back, numbers) = match method {
            "cp-als" => {
                let cp = tenfold::decomp::Cp::new(case.load("parts/weights.npy")?.into_order()?, factors)?;
                (cp.reconstruct()?, cp.parameters())
            }
            _ => {
                let tucker = tenfold::decomp::Tucker::new(case.load("parts/core.npy")?, factors)?;
                (tucker.reconstruct()?, tucker.parameters())
            }
        };
        let error = x.sub(&back)?.norm()? / x.norm()?;
        assert!((error - reported).abs() < 1e-12, "{words}: {error} written, {reported} reported");
        let ratio = json["compression_ratio"].as_f64().ok_or("no number")?;
        assert!((ratio - 60.0 / numbers as f64).abs() < 1e-12, "{words}: {ratio}");
        fs::remove_dir_all(case.path("parts"))?;
    }
    Ok(())
}

/// Amounts, of which one in nine is not known: every way to say so gives back what was written, and what was not.
#[test]
fn amounts_and_missing_entries() -> Result {
    let truth = |i: &[usize]| (1.0 + i[0] as f64) * (2.0 + i[1] as f64) * (9.0 - i[2] as f64);
    let x = Tensor::<f64, IxDyn>::from_fn(IxDyn(&[6, 5, 4]), |i| {
        if (i[0] + 2 * i[1] + 4 * i[2]) % 9 == 0 { f64::NAN } else { truth(i) }
    })?;
    let case = Case::new(&x)?;
    for words in [
        "--method cp-als --rank 1",
        "--method cp-als --rank 1 --non-negative --starts 2",
        "--method hooi --ranks 1,1,1 --sweeps 200",
        "--method non-negative-tucker --ranks 1,1,1 --sweeps 200 --init hosvd",
    ] {
        let json = case.json(&format!("{words} --skip-nan --out parts"))?;
        assert!(json["relative_error"].as_f64().is_some_and(|error| error < 1e-6), "{words}: {json}");
        let (weight, order) = match words.contains("cp-als") {
            true => (case.load("parts/weights.npy")?.get(&[0])?, 3),
            false => (case.load("parts/core.npy")?.get(&[0, 0, 0])?, 3),
        };
        let found = (0..order).try_fold(weight, |product, n| -> Result<f64> {
            let factor = case.load(&format!("parts/factor_{n}.npy"))?;
            assert!(!words.contains("negative") || factor.min()? >= 0.0);
            Ok(product * factor.get(&[0, 0])?)
        })?;
        // The very first entry is missing.
        assert!((found / truth(&[0, 0, 0]) - 1.0).abs() < 1e-5, "{words}: {found}");
        case.fails(words, &["NaN", "finite", "--skip-nan fits the others"])?;
        fs::remove_dir_all(case.path("parts"))?;
    }
    Ok(())
}

#[test]
fn the_sweeps_asked_for_are_run() -> Result {
    let case = Case::new(&small()?)?;
    for words in ["--method hooi --ranks 2,1,2", "--method cp-als --rank 1"] {
        assert_eq!(case.json(&format!("{words} --sweeps 7"))?["sweeps"], 7, "{words}");
    }
    Ok(())
}

#[test]
fn sweeps_end_at_the_change_asked_for() -> Result {
    let case = Case::new(&small()?)?;
    for words in
        ["--method hooi --ranks 2,1,2", "--method cp-als --rank 1", "--method non-negative-tucker --ranks 2,1,2"]
    {
        let early = case.json(&format!("{words} --until-change 0.5"))?;
        assert_eq!((&early["sweeps"], &early["stopped"]), (&2.into(), &"converged".into()), "{words}");
        let all = case.json(&format!("{words} --sweeps 3 --until-change 0"))?;
        assert_eq!((&all["sweeps"], &all["stopped"]), (&3.into(), &"sweeps".into()), "{words}");
        case.fails(&format!("{words} --until-change NaN"), &["NaN is no change to stop at"])?;
    }
    Ok(())
}

#[test]
fn the_same_seed_writes_the_same_bytes() -> Result {
    let case = Case::new(&small()?)?;
    for words in ["--method cp-als --rank 3 --sweeps 9", "--method hooi --ranks 2,1,2 --init random"] {
        let run = |out: &str, seed: usize| case.json(&format!("{words} --seed {seed} --out {out}")).map(|_| ());
        run("a", 5)?;
        run("b", 5)?;
        for entry in fs::read_dir(case.path("a"))? {
            let name = entry?.file_name();
            assert_eq!(
                fs::read(case.path("a").join(&name))?,
                fs::read(case.path("b").join(&name))?,
                "{words}: {name:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn single_precision_is_written_as_such() -> Result {
    let case = Case::new(&small()?)?;
    let json = case.json("--method st-hosvd --ranks 2,2,2 --dtype f32 --out parts")?;
    assert_eq!(json["dtype"], "f32");
    assert!(case.load("parts/core.npy").is_ok());
    assert!(Tensor::<f32, IxDyn>::load_npy(case.path("parts/core.npy")).is_ok());
    let header = fs::read(case.path("parts/core.npy"))?;
    assert!(String::from_utf8_lossy(&header[..128]).contains("'<f4'"));
    Ok(())
}

#[test]
fn constant_and_zero_tensors_are_met_exactly() -> Result {
    for value in [2.5, 0.0] {
        let case = Case::new(&filled(value)?)?;
        for words in [
            "--method hosvd --tol 0.1",
            "--method st-hosvd --tol 0.1",
            "--method st-hosvd --ranks 2,2,2",
            "--method hooi --ranks 1,2,2",
            "--method cp-als --rank 1",
            "--method cp-als --rank 3 --init hosvd",
        ] {
            let json = case.json(words)?;
            let error = json["relative_error"].as_f64().ok_or("no number")?;
            assert!(error < 1e-7, "{value}, {words}: {error}");
            if words.contains("--tol") {
                assert_eq!(json["ranks"], serde_json::json!([1, 1, 1]), "{value}, {words}");
            }
        }
    }
    Ok(())
}

#[test]
fn an_entry_that_is_not_finite_is_named() -> Result {
    for (value, name) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")] {
        let mut x = small()?;
        x.as_mut_slice()?[3 * 4 * 2 + 3 + 1] = value;
        let case = Case::new(&x)?;
        for words in [
            "--method hosvd --ranks 2,2,2",
            "--method hosvd --tol 0.000001",
            "--method st-hosvd --ranks 2,2,2",
            "--method st-hosvd --tol 0.1",
            "--method st-hosvd --tol 0.000000001",
            "--method st-hosvd --ranks 2,2,2 --dtype f32",
            "--method hooi --ranks 2,2,2",
            "--method hooi --ranks 2,2,2 --init random",
            "--method cp-als --rank 2",
            "--method cp-als --rank 2 --init hosvd",
        ] {
            case.fails(
                &format!("{words} --out parts"),
                &[&format!("entry [2, 1, 1] is {name};"), "every entry has to be finite"],
            )?;
        }
    }
    Ok(())
}

#[test]
fn ranks_that_do_not_fit_are_refused_with_those_that_do() -> Result {
    let case = Case::new(&small()?)?;
    for method in ["hosvd", "st-hosvd", "hooi"] {
        let fails =
            |ranks: &str, parts: &[&str]| case.fails(&format!("--method {method} --ranks {ranks} --out parts"), parts);
        fails("2,0,2", &["rank 0 of mode 1", "from 1 to 4"])?;
        fails("2,2,4", &["rank 4 of mode 2", "from 1 to 3"])?;
        fails("2,2", &["2 ranks [2, 2]", "3 modes of shape [5, 4, 3]"])?;
        fails("2,2,2,1", &["4 ranks", "3 modes"])?;
        fails("2,x,2", &["invalid value 'x'", "--ranks"])?;
    }
    case.fails("--method cp-als --rank 0", &["rank 0", "from 1 to 12"])?;
    case.fails("--method cp-als --rank 13", &["rank 13", "from 1 to 12"])?;
    for tolerance in ["0", "1", "1.5", "-0.1", "NaN", "inf"] {
        case.fails(&format!("--method st-hosvd --tol={tolerance}"), &["tolerance", "from 1e-13 to below 1"])?;
    }
    Ok(())
}

#[test]
fn options_that_do_not_go_together_are_refused() -> Result {
    let case = Case::new(&small()?)?;
    case.fails("--method st-hosvd", &["--ranks 30,30,10", "--tol 0.05"])?;
    case.fails("--method st-hosvd --ranks 2,2,2 --tol 0.1", &["--tol", "cannot be used with", "--ranks"])?;
    case.fails("--method st-hosvd --rank 2", &["--ranks", "--rank is for cp-als"])?;
    for method in ["hooi", "non-negative-tucker"] {
        case.fails(&format!("--method {method} --tol 0.1"), &["need --ranks", "--tol is for hosvd and st-hosvd"])?;
        case.fails(&format!("--method {method} --ranks 2,2,2 --non-negative"), &["--non-negative is for cp-als"])?;
    }
    for flag in ["--skip-nan", "--sweeps 5", "--until-change 1e-4", "--init random"] {
        let says = format!("{} is for methods with sweeps", flag.split(' ').next().unwrap_or(flag));
        case.fails(&format!("--method st-hosvd --tol 0.1 {flag}"), &[says.as_str()])?;
    }
    for method in ["hosvd", "hooi"] {
        case.fails(&format!("--method {method} --ranks 2,2,2 --starts 2"), &["--starts is for methods that start"])?;
    }
    case.fails("--method cp-als", &["cp-als needs --rank"])?;
    case.fails("--method cp-als --ranks 2,2,2", &["cp-als needs --rank", "Tucker"])?;
    case.fails("--method parafac --rank 2", &["invalid value 'parafac'", "cp-als", "st-hosvd"])?;
    case.fails("--ranks 2,2,2", &["--method"])?;
    case.fails("--method cp-als --rank 2 --dtype f16", &["invalid value 'f16'", "f32, f64"])?;
    case.fails("--method cp-als --rank 2 --device tpu", &["tpu", "cuda:0"])?;
    Ok(())
}

#[test]
fn a_gpu_that_is_not_there_is_refused() -> Result {
    let case = Case::new(&small()?)?;
    case.fails("--method st-hosvd --tol 0.1 --device cuda:99 --out parts", &["Device::cuda: "])
}

#[test]
fn a_tensor_needs_two_modes_and_entries() -> Result {
    let case = Case::new(&Tensor::ones(vec![7])?)?;
    case.fails("--method st-hosvd --tol 0.1 --out parts", &["shape [7]", "order 2 or more"])?;
    let case = Case::new(&Tensor::zeros(vec![3, 0, 5])?)?;
    for words in ["--method st-hosvd --tol 0.1", "--method hooi --ranks 1,1,1", "--method cp-als --rank 1"] {
        case.fails(&format!("{words} --out parts"), &["shape [3, 0, 5]", "nothing to decompose"])?;
    }
    Ok(())
}

#[test]
fn files_that_are_not_what_they_say_are_refused() -> Result {
    let whole = bytes()?;
    let header = whole.len() - 60 * 8;
    let words = "--method st-hosvd --tol 0.1 --out parts";

    // Cut off in the data, in the header, in the first bytes; and one byte too many.
    for length in [whole.len() - 1, whole.len() - 8, header, header - 10, 9, 3, 0] {
        Case::of_bytes(&whole[..length])?.fails(words, &["x.npy"])?;
    }
    Case::of_bytes(&whole[..whole.len() - 8])?.fails(words, &["480", "472"])?;
    let longer = [&whole[..], &[0]].concat();
    Case::of_bytes(&longer)?.fails(words, &["x.npy", "480"])?;

    // A header that promises more than any machine holds, and one whose length does.
    let shape = "(1000000000000, 1000000, 4)";
    let huge = npy(&format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"), 8);
    Case::of_bytes(&huge)?.fails(words, &["x.npy"])?;
    let mut long_header = b"\x93NUMPY\x02\x00".to_vec();
    long_header.extend(u32::MAX.to_le_bytes());
    Case::of_bytes(&long_header)?.fails(words, &["x.npy", "header"])?;

    // Types that are no numbers, or none that a double holds.
    for dtype in ["<c16", "|O", "<U4", "<M8[s]"] {
        let other = npy(&format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': (2, 2), }}"), 64);
        Case::of_bytes(&other)?.fails(words, &["x.npy", dtype])?;
    }
    Case::of_bytes(b"not an array, but a text of some length that has nothing to do with one")?
        .fails(words, &["x.npy"])?;
    Ok(())
}

#[test]
fn a_missing_file_is_named() -> Result {
    let case = Case::new(&small()?)?;
    fs::remove_file(case.path("x.npy"))?;
    case.fails("--method st-hosvd --tol 0.1 --out parts", &["x.npy", "No such file"])
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_and_stays_as_it_was() -> Result {
    let case = Case::new(&small()?)?;
    let words = "--method st-hosvd --ranks 2,2,2 --out";
    // A file in the place of the folder, or of a folder above it.
    case.fails(&format!("{words} x.npy"), &["x.npy", "choose an --out"])?;
    case.fails(&format!("{words} x.npy/parts"), &["x.npy", "choose an --out"])?;
    // A folder in the place of one of the files: nothing is written beside it.
    fs::create_dir_all(case.path("parts/factor_1.npy"))?;
    fs::write(case.path("parts/core.npy"), "older")?;
    case.fails(&format!("{words} parts"), &["factor_1.npy", "is a folder"])?;
    assert_eq!(fs::read(case.path("parts/core.npy"))?, b"older");
    Ok(())
}

/// What was found is written although nobody listens.
#[cfg(target_os = "linux")]
#[test]
fn a_full_standard_output_is_an_error_after_the_files_are_there() -> Result {
    let case = Case::new(&small()?)?;
    let words = "x.npy --method st-hosvd --ranks 2,2,2 --out parts";
    let output = Command::new(program("decompose", &["decompose.rs"]))
        .args(words.split_whitespace())
        .current_dir(case.folder.path())
        .stdout(fs::OpenOptions::new().write(true).open("/dev/full")?)
        .output()?;
    failed(words, output, &["standard output", "No space left"])?;
    assert_eq!(case.load("parts/core.npy")?.shape(), &[2, 2, 2]);
    Ok(())
}

#[test]
fn numbers_out_of_the_range_of_the_type_are_refused() -> Result {
    for value in [1e300, -1e39, 1e-39, -1e-300] {
        let case = Case::new(&filled(value)?)?;
        let words = "--method cp-als --rank 1 --dtype f32";
        case.fails(words, &["the largest entry", "out of the range of f32", "--dtype f64"])?;
        assert!(case.json("--method cp-als --rank 1")?["relative_error"].as_f64().is_some_and(|error| error < 1e-9));
    }
    Ok(())
}

#[test]
fn older_files_are_replaced() -> Result {
    let case = Case::new(&small()?)?;
    fs::create_dir(case.path("parts"))?;
    fs::write(case.path("parts/core.npy"), "older")?;
    case.json("--method st-hosvd --ranks 2,2,2 --out parts")?;
    assert_eq!(case.load("parts/core.npy")?.shape(), &[2, 2, 2]);
    let files = case.files()?;
    assert_eq!(files.len(), 5, "x.npy, core and three factors, and nothing else: {files:?}");

    // Parts of another decomposition would be taken for this one's; what is no part of any stays.
    fs::write(case.path("parts/factor_7.npy"), "of order 8")?;
    for name in ["factor_.npy", "factor_x.npy", "mean.npy", "core.txt"] {
        fs::write(case.path("parts").join(name), "the user's")?;
    }
    case.json("--method cp-als --rank 2 --sweeps 3 --out parts")?;
    let names = ["core.npy", "factor_7.npy"].map(|name| case.path("parts").join(name).exists());
    assert_eq!(names, [false, false]);
    assert_eq!(case.load("parts/weights.npy")?.shape(), &[2]);
    assert_eq!(case.files()?.len(), 9, "{:?}", case.files()?);
    Ok(())
}
