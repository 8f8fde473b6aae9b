//! How often the host waits for a GPU: what solvers and training promise.

use crate::{
    Tensor,
    autodiff::{CrossEntropy, Var},
    decomp::{CpAls, Hooi},
    device::Device,
    nn::Parameter,
    train::{AdamW, Rows, Trainer},
};
use ndarray::{Ix1, Ix2, Ix3};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::cell::Cell;

thread_local! {
    static WAITS: Cell<usize> = const { Cell::new(0) };
}

/// The calling thread waits for a GPU.
pub(crate) fn count() {
    WAITS.set(WAITS.get() + 1);
}

fn waits<R>(work: impl FnOnce() -> R) -> usize {
    let before = WAITS.get();
    work();
    WAITS.get() - before
}

fn gpu(case: &str) -> Option<Device> {
    Device::cuda(0).inspect_err(|error| println!("skipped: {case}: no GPU here ({error})")).ok()
}

#[test]
fn a_sweep_waits_once() {
    let Some(device) = gpu("a_sweep_waits_once") else { return };
    let x = Tensor::<f32, Ix3>::normal([12, 10, 8], &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    let x = x.to_device(&device).unwrap();
    let hooi = |sweeps| waits(|| Hooi::ranks([3, 4, 2]).exactly(sweeps).fit(&x).unwrap());
    assert_eq!(hooi(5) - hooi(2), 3);
    let cp = |sweeps| waits(|| CpAls::rank(4).seed(7).exactly(sweeps).fit(&x).unwrap());
    assert_eq!(cp(5) - cp(2), 3);
}

#[test]
fn a_training_step_waits_once() {
    let Some(device) = gpu("a_training_step_waits_once") else { return };
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let inputs = Tensor::<f32, Ix2>::normal([24, 6], &mut rng).unwrap();
    let labels = Tensor::<u32, Ix1>::from_fn([24], |i| i[0] as u32 % 3).unwrap();
    let data = Rows::new(&inputs, &labels).unwrap();
    let mut weight = |shape: [usize; 2]| {
        Parameter::new(Tensor::<f32, Ix2>::normal(shape, &mut rng).unwrap().to_device(&device).unwrap())
    };
    let model = vec![weight([5, 6]), weight([3, 5])];
    let train = |epochs| {
        let trainer = Trainer::new(AdamW::new(0.01)).epochs(epochs).batch_size(4).accumulate(2).clip(1.0);
        waits(|| {
            let fit = trainer.fit(&mut model.clone(), &data, |model: &Vec<Parameter<f32>>, (x, y), _| {
                let x = Var::constant(x.to_device(&device)?);
                let logits = x.linear(model[0].var(), None)?.gelu()?.linear(model[1].var(), None)?;
                logits.cross_entropy(&y.to_device(&device)?, CrossEntropy::default())
            });
            fit.unwrap()
        })
    };
    // Three steps an epoch, of two passes each.
    assert_eq!(train(3) - train(1), 6);
}
