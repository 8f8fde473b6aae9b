//! Loading takes the memory of the model, and saving hardly any: files are read and written in pieces.

use ndarray::IxDyn;
use tenfold::{
    Tensor, TensorFile,
    nn::{Layer, Linear, Load, Save},
};

/// A figure of /proc/self/status in bytes.
fn resident(field: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim_matches([':', ' ', '\t']).strip_suffix(" kB")?.trim().parse::<usize>().ok().map(|kb| kb << 10)
}

/// The most memory that was resident during `work`, beside what was before; `None` where the system does not tell.
fn peak<R>(work: impl FnOnce() -> R) -> (R, Option<usize>) {
    // Writing 5 there resets the peak to what is resident now.
    let reset = std::fs::write("/proc/self/clear_refs", "5").is_ok();
    let before = resident("VmRSS");
    let result = work();
    let most = resident("VmHWM").zip(before).filter(|_| reset).map(|(peak, before)| peak.saturating_sub(before));
    (result, most)
}

#[test]
fn a_model_is_loaded_and_saved_in_its_own_memory() {
    let (n, count) = (2000, 5);
    let bytes = count * n * (n + 1) * size_of::<f32>();
    let model = || -> Vec<Linear<f32>> { (0..count).map(|_| Linear::zeros(n, n).unwrap()).collect() };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f32.safetensors");
    let half = folder.path().join("f16.safetensors");
    let mut filled = model();
    for layer in &mut filled {
        layer.weight_mut().value_mut().as_mut_slice().unwrap().fill(0.5);
    }

    let (saved, most) = peak(|| Save::new().write(&filled, &path));
    saved.unwrap();
    let Some(most) = most else { return println!("skipped: this system does not tell how much memory is resident") };
    println!("saving {bytes} bytes took {most} more at the peak");
    assert!(most < 12 << 20, "saving {bytes} bytes took {most} more at the peak");

    let mut narrow = TensorFile::new();
    for (i, layer) in filled.iter().enumerate() {
        let parts = [("weight", layer.weight()), ("bias", layer.bias().unwrap())];
        for (name, part) in parts {
            let cast: Tensor<half::f16, IxDyn> = part.value().cast().unwrap();
            narrow.insert(&format!("{i}.{name}"), &cast).unwrap();
        }
    }
    narrow.save(&half).unwrap();
    drop((narrow, filled));

    for path in [&path, &half] {
        // Zeros that nobody has touched are not resident.
        let mut empty = model();
        let (loaded, most) = peak(|| Load::new().read(&mut empty, path));
        assert_eq!(loaded.unwrap().count, 2 * count);
        let most = most.unwrap();
        println!("loading {bytes} bytes took {most} at the peak");
        assert!(most < bytes + bytes / 20 + (12 << 20), "loading {bytes} bytes took {most} at the peak");
        assert_eq!(empty[count - 1].weight().value().get(&[n - 1, n - 1]).unwrap(), 0.5);
    }
}
