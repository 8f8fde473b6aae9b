//! What a GPU's memory holds between a forward pass and the way back. A program of its own: memory is counted for the whole process.

use ndarray::IxDyn;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tenfold::{
    Device, Precision, Result, Tensor,
    autodiff::{Var, without_gradients},
};

/// The first GPU, for one case at a time; nothing, and a line that says why, where there is none.
fn gpu(case: &str) -> Option<(Device, MutexGuard<'static, ()>)> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    match Device::cuda(0) {
        Ok(device) => Some((device, alone)),
        Err(error) => {
            println!("skipped: {case}: no GPU here ({error})");
            None
        }
    }
}

fn normal(device: &Device, shape: &[usize], seed: u64) -> Tensor<f32> {
    let x = Tensor::normal(IxDyn(shape), &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
    x.to_device(device).unwrap()
}

fn held(device: &Device) -> usize {
    device.memory().unwrap().held
}

/// Bytes that `work` leaves behind while what it gives is alive, and that.
fn left<R>(device: &Device, work: impl FnOnce() -> Result<R>) -> (usize, R) {
    let before = held(device);
    let result = work().unwrap();
    (held(device) - before, result)
}

const MIB: usize = 1 << 20;

/// Room for vectors and single numbers.
const LITTLE: usize = 64 << 10;

#[test]
fn what_is_kept_takes_half_in_bf16() {
    let Some((device, _alone)) = gpu("what_is_kept_takes_half_in_bf16") else { return };
    let kept = [Precision::Tf32, Precision::Bf16].map(|precision| {
        let device = device.clone().precision(precision).unwrap();
        let leaf = |shape: &[usize], seed| Var::parameter(normal(&device, shape, seed));
        let x = leaf(&[2, 256, 256], 1);
        let (w, gamma, beta, v) = (leaf(&[1024, 256], 2), leaf(&[1024], 3), leaf(&[1024], 4), leaf(&[256, 1024], 5));
        let start = held(&device);
        let forward = || x.linear(&w, None)?.gelu()?.grn(&gamma, &beta, 1e-6)?.linear(&v, None)?.sum();
        let (kept, loss) = left(&device, forward);
        // Nothing is kept where nothing is recorded.
        let (nothing, _) = left(&device, || without_gradients(forward));
        assert!(nothing <= LITTLE, "{nothing} in {precision}");
        let gradients = loss.backward().unwrap();
        drop(loss);
        assert_eq!(gradients.of(&x).unwrap().shape(), x.shape());
        drop(gradients);
        assert_eq!(held(&device), start, "{precision}");
        kept
    });
    // What GELU, GRN and the last product keep, 2 MiB of singles each; x and the weights are there anyhow.
    for (kept, each) in kept.into_iter().zip([2 * MIB, MIB]) {
        assert!((3 * each..=3 * each + LITTLE).contains(&kept), "{kept} for three of {each}");
    }
}

#[test]
fn what_several_operations_keep_is_one_copy() {
    let Some((device, _alone)) = gpu("what_several_operations_keep_is_one_copy") else { return };
    for (precision, copy) in [(Precision::Tf32, 2 * MIB), (Precision::Bf16, MIB)] {
        let device = device.clone().precision(precision).unwrap();
        let (leaf, w) =
            (Var::parameter(normal(&device, &[512, 1024], 1)), Var::parameter(normal(&device, &[40, 1024], 2)));
        let (kept, losses) = left(&device, || {
            let x = leaf.scale(2.0)?;
            // Of a view too.
            let turned = x.permute(&[1, 0])?.permute(&[1, 0])?;
            Ok([x.gelu()?.sum()?, x.square()?.sum()?, x.linear(&w, None)?.sum()?, turned.square()?.sum()?])
        });
        assert!((copy..=copy + LITTLE).contains(&kept), "{kept} in {precision}");
        // And it is kept until the last of them has gone back.
        let [first, rest @ ..] = losses;
        first.backward().unwrap();
        drop(first);
        assert!(held(&device) >= copy);
        let (freed, ()) = (held(&device), drop(rest));
        let freed = freed - held(&device);
        assert!((copy..=copy + LITTLE).contains(&freed), "{freed} in {precision}");
    }
}

#[test]
fn leaves_and_small_tensors_have_no_copy() {
    let Some((device, _alone)) = gpu("leaves_and_small_tensors_have_no_copy") else { return };
    let device = device.precision(Precision::Bf16).unwrap();
    let (x, data) = (Var::parameter(normal(&device, &[512, 1024], 1)), Var::constant(normal(&device, &[512, 1024], 2)));
    let (kept, _losses) = left(&device, || {
        Ok([
            x.gelu()?.sum()?,
            x.mul(&data)?.sum()?,
            x.permute(&[1, 0])?.square()?.sum()?,
            x.reshape([1 << 19])?.abs()?.sum()?,
        ])
    });
    assert!(kept <= LITTLE, "{kept}");
    let small = Var::parameter(normal(&device, &[100, 600], 3));
    let singles = 100 * 600 * 4;
    let (kept, _loss) = left(&device, || small.scale(2.0)?.square()?.sum());
    assert!((singles..=singles + LITTLE).contains(&kept), "{kept}");
}
