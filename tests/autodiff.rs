//! The walk back as a whole: what is recorded, what is computed, what is freed, and what is refused.

use ndarray::{Ix1, IxDyn, array};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tenfold::{
    Device, ErrorKind, Result, Scalar, Tensor,
    autodiff::{CrossEntropy, Var, check_gradients, checkpoint, without_gradients},
};

fn normal<T: Scalar>(shape: &[usize], seed: u64) -> Tensor<T, IxDyn> {
    Tensor::normal(shape.to_vec(), &mut ChaCha8Rng::seed_from_u64(seed)).unwrap()
}

/// The same value, counting how often its backward pass runs.
fn counted(x: &Var<f64>, calls: &Arc<AtomicUsize>) -> Var<f64> {
    let calls = Arc::clone(calls);
    Var::record("counted", x.value().clone(), &[x], move |dy, flow| {
        calls.fetch_add(1, Ordering::Relaxed);
        flow.give(0, dy)
    })
}

#[test]
fn a_constant_records_nothing() {
    let held = Arc::new(());
    let inside = Arc::clone(&held);
    let x = Var::constant(normal::<f64>(&[3], 1));
    let y = Var::record("holds", x.value().clone(), &[&x], move |dy, flow| {
        let _ = &inside;
        flow.give(0, dy)
    });
    assert_eq!(Arc::strong_count(&held), 1, "the backward pass of a constant is dropped at once");
    assert!(!y.needs_gradient());
    let z = x.square().unwrap().linear(&Var::constant(normal(&[2, 3], 2)), None).unwrap().sum().unwrap();
    assert!(!z.needs_gradient());
    assert_eq!(z.backward().unwrap_err().kind(), ErrorKind::Value);
}

#[test]
fn what_the_result_does_not_depend_on_is_not_computed() {
    let (used, unused, frozen) = (Arc::default(), Arc::default(), Arc::default());
    let x = Var::parameter(normal(&[3], 1));
    let c = Var::constant(normal(&[3], 2));
    let _branch = counted(&x, &unused).square().unwrap().sum().unwrap();
    let constant = counted(&c, &frozen);
    let loss = counted(&x, &used).mul(&constant).unwrap().sum().unwrap();
    loss.backward().unwrap();
    let counts = [used, unused, frozen].map(|n: Arc<AtomicUsize>| n.load(Ordering::Relaxed));
    assert_eq!(counts, [1, 0, 0]);
}

#[test]
fn a_shared_node_is_passed_once_with_the_sum() {
    let calls = Arc::default();
    let x = Var::parameter(Tensor::from(array![1.0, 2.0]));
    let y = counted(&x, &calls);
    // y used four times, twice in one operation.
    let loss = y.mul(&y).unwrap().add(&y.scale(3.0).unwrap()).unwrap().add(&y).unwrap().sum().unwrap();
    let gradients = loss.backward().unwrap();
    assert_eq!(gradients.of(&x).unwrap().to_vec().unwrap(), [2.0 + 4.0, 4.0 + 4.0]);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!((gradients.len(), gradients.norm().unwrap()), (1, 10.0));
}

#[test]
fn a_second_backward_names_the_operation() {
    let x = Var::parameter(normal::<f64>(&[3], 1));
    let y = x.square().unwrap();
    let loss = y.sum().unwrap();
    loss.backward().unwrap();
    let error = loss.backward().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value);
    assert!(error.to_string().contains("\"sum\" was passed by an earlier backward"), "{error}");
    // A new result on top of old nodes reaches them too.
    let error = y.scale(2.0).unwrap().sum().unwrap().backward().unwrap_err();
    assert!(error.to_string().contains("\"square\""), "{error}");
}

#[test]
fn deep_chains_overflow_no_stack() {
    let chain = |length: usize| {
        let x = Var::parameter(Tensor::from(array![1.0f64]));
        let mut y = x.clone();
        for _ in 0..length {
            y = y.scale(1.0).unwrap();
        }
        (x, y)
    };
    let work = move || {
        let (x, y) = chain(100_000);
        assert_eq!(y.backward().unwrap().of(&x).unwrap().to_vec().unwrap(), [1.0]);
        drop(chain(100_000));
        let (x, y) = chain(100_000);
        drop((y, x));
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap().join().unwrap();
}

#[test]
fn what_was_saved_is_freed_on_the_way() {
    let x = Var::parameter(normal::<f64>(&[3], 1));
    let saved = Arc::new(());
    let (later, weak) = (Arc::clone(&saved), Arc::downgrade(&saved));
    drop(saved);
    let first = Var::record("first", x.value().clone(), &[&x], move |dy, flow| {
        assert!(weak.upgrade().is_none(), "what the later operation saved is still there");
        flow.give(0, dy)
    });
    let second = Var::record("second", first.value().clone(), &[&first], move |dy, flow| {
        let _ = &later;
        flow.give(0, dy)
    });
    second.sum().unwrap().backward().unwrap();
}

#[test]
fn a_gradient_of_a_wrong_shape_is_refused() {
    let x = Var::parameter(normal::<f64>(&[2, 3], 1));
    let y = Var::record("flawed", x.value().clone(), &[&x], |dy, flow| flow.give(0, dy.permute(&[1, 0])?));
    let error = y.sum().unwrap().backward().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Shape);
    let message = error.to_string();
    assert!(message.contains("\"flawed\" gave operand 0 a gradient of shape [3, 2]; it has shape [2, 3]"), "{message}");
    assert!(x.backward().unwrap_err().to_string().contains("a gradient belongs to a single number"));
    assert!(x.square().unwrap().backward_from(normal(&[3, 2], 1)).is_err());
}

#[test]
fn norms_refuse_an_eps_without_a_square_root() {
    let x = Var::constant(normal::<f64>(&[4, 3], 1));
    let (running, weight) = (Tensor::<f64, Ix1>::ones(3).unwrap(), Var::constant(normal(&[3], 2)));
    for eps in [-1.0, f64::NAN, f64::INFINITY] {
        let refused = [
            x.layer_norm(None, None, eps).unwrap_err(),
            x.rms_norm(None, eps).unwrap_err(),
            x.grn(&weight, &weight, eps).unwrap_err(),
            x.batch_norm(&running, &running, None, None, eps).unwrap_err(),
            x.batch_norm_training(&running, &running, 0.1, None, None, eps).map(|_| ()).unwrap_err(),
        ];
        for error in refused {
            assert_eq!(error.kind(), ErrorKind::Value);
            assert!(error.to_string().ends_with(&format!("an eps of {eps}; it has to be finite and not below 0")));
        }
    }
}

#[test]
fn check_gradients_finds_a_wrong_one() {
    let x = normal(&[3], 1);
    let flawed = |v: &[Var<f64>]| {
        let y = v[0].value().map(|x| x * x)?;
        Ok(Var::record("flawed", y, &[&v[0]], |dy, flow| flow.give(0, dy)))
    };
    let error = check_gradients(std::slice::from_ref(&x), 1e-6, flawed).unwrap_err();
    assert!(error.to_string().contains("input 0, entry [0]: the gradient is"), "{error}");
    let forgetful = |v: &[Var<f64>]| v[0].detach().add(&v[1]);
    assert!(check_gradients(&[x.clone(), x], 1e-6, forgetful).is_err());
}

#[test]
fn nothing_is_recorded_without_gradients() {
    let w = Var::parameter(normal::<f64>(&[3], 1));
    let calls = Arc::default();
    let y = without_gradients(|| counted(&w, &calls).square()).unwrap();
    assert!(!y.needs_gradient());
    assert_eq!(Arc::strong_count(&calls), 1);
    assert!(w.square().unwrap().needs_gradient(), "recording is on again");
}

#[test]
fn a_missing_gradient_is_an_error() {
    let (w, unused) = (Var::parameter(normal::<f64>(&[3], 1)), Var::parameter(normal::<f64>(&[2], 1)));
    let gradients = w.sum().unwrap().backward().unwrap();
    assert!(gradients.get(&unused).is_none());
    assert_eq!(gradients.of(&unused).unwrap_err().kind(), ErrorKind::Value);
}

/// Embedding, linear, mode products and a loss, with every operand trainable.
struct Model<T: Scalar> {
    table: Var<T>,
    weight: Var<T>,
    bias: Var<T>,
    gain: Var<T>,
    core: Var<T>,
    factors: [Var<T>; 3],
    components: [Var<T>; 2],
    head: Var<T>,
}

impl<T: Scalar> Model<T> {
    fn new(device: &Device) -> Self {
        let mut seed = 0;
        let mut make = |shape: &[usize]| {
            seed += 1;
            Var::parameter(normal::<T>(shape, seed).to_device(device).unwrap().scale(T::of(0.4)).unwrap())
        };
        Self {
            table: make(&[11, 6]),
            weight: make(&[8, 6]),
            bias: make(&[8]),
            gain: make(&[8]),
            core: make(&[2, 3, 5]),
            factors: [make(&[4, 2]), make(&[2, 3]), make(&[5, 5])],
            components: [make(&[5, 3]), make(&[8, 3])],
            head: make(&[5, 5]),
        }
    }

    fn parameters(&self) -> Vec<&Var<T>> {
        let Self { table, weight, bias, gain, core, factors, components, head } = self;
        [table, weight, bias, gain, core, head].into_iter().chain(factors).chain(components).collect()
    }

    fn loss(&self, ids: &Tensor<u32, IxDyn>, labels: &Tensor<i64, IxDyn>) -> Result<Var<T>> {
        let x = self.table.embedding(ids, Some(0))?.linear(&self.weight, Some(&self.bias))?;
        let x = x.square()?.shift(T::one())?.sqrt()?.mul(&self.gain)?;
        // A weight in Tucker form, reshaped as an adapter's is, plus one in CP form.
        let [a, b, c] = &self.factors;
        let tucker = self.core.tucker(&[a, b, c])?.permute(&[2, 0, 1])?.reshape([5, 8])?;
        let [p, q] = &self.components;
        let y = x.linear(&tucker.add(&Var::cp(None, &[p, q])?)?, None)?;
        let y = y.mode_product(2, &self.head)?;
        y.cross_entropy(labels, CrossEntropy { smoothing: 0.1, ignore: Some(-100) })
    }
}

fn data() -> (Tensor<u32, IxDyn>, Tensor<i64, IxDyn>) {
    let ids = Tensor::from_fn(vec![3, 7], |i| ((i[0] * 5 + i[1] * 3) % 11) as u32).unwrap();
    let label = |i: &[usize]| if i[1] == 2 { -100 } else { ((i[0] + i[1]) % 5) as i64 };
    (ids, Tensor::from_fn(vec![3, 7], label).unwrap())
}

fn step<T: Scalar>(threads: usize) -> (T, Vec<Vec<T>>) {
    let model = Model::<T>::new(&Device::cpu().threads(threads));
    let (ids, labels) = data();
    let loss = model.loss(&ids, &labels).unwrap();
    let gradients = loss.backward().unwrap();
    assert_eq!(gradients.len(), model.parameters().len());
    let all = model.parameters().into_iter().map(|p| gradients.of(p).unwrap().to_vec().unwrap()).collect();
    (loss.item().unwrap(), all)
}

#[test]
fn every_trainable_leaf_receives_a_gradient() {
    let (loss, gradients) = step::<f64>(1);
    assert!(loss.is_finite());
    for (i, gradient) in gradients.iter().enumerate() {
        assert!(gradient.iter().all(|x| x.is_finite()) && gradient.iter().any(|&x| x.abs() > 1e-6), "parameter {i}");
    }
    let (single, singles) = step::<f32>(1);
    assert!((single as f64 - loss).abs() < 1e-5);
    for (x, y) in gradients.iter().flatten().zip(singles.iter().flatten()) {
        assert!((x - *y as f64).abs() < 1e-5, "{x} {y}");
    }
}

#[test]
fn the_model_against_finite_differences() {
    let model = Model::<f64>::new(&Device::cpu());
    let inputs: Vec<_> = model.parameters().into_iter().map(|p| p.value().clone()).collect();
    let (ids, labels) = data();
    check_gradients(&inputs, 1e-6, |v| {
        let [table, weight, bias, gain, core, head, a, b, c, p, q] = v.to_vec().try_into().unwrap();
        let factors = [a, b, c];
        let components = [p, q];
        // The padding row has no gradient, but a value that is read: keep it out of the differences.
        let table = Var::concat(&[&table.narrow(0, 0..1)?.scale(0.0)?, &table.narrow(0, 1..11)?], 0)?;
        Model { table, weight, bias, gain, core, factors, components, head }.loss(&ids, &labels)
    })
    .unwrap();
}

#[test]
fn a_run_repeats_bit_for_bit() {
    for threads in [1, 2] {
        assert_eq!(step::<f32>(threads), step::<f32>(threads));
        assert_eq!(step::<f64>(threads), step::<f64>(threads));
    }
    // Large enough that threads share the work.
    let run = |threads: usize| {
        let device = Device::cpu().threads(threads);
        let make = |shape: &[usize], seed| Var::parameter(normal::<f32>(shape, seed).to_device(&device).unwrap());
        let (x, w, b) = (make(&[300, 200], 1), make(&[400, 200], 2), make(&[400], 3));
        let y = x.linear(&w, Some(&b)).unwrap().square().unwrap();
        let gradients = y.mul(&b).unwrap().mean().unwrap().backward().unwrap();
        [x, w, b].map(|v| gradients.of(&v).unwrap().to_vec().unwrap())
    };
    for threads in [1, 2] {
        assert_eq!(run(threads), run(threads));
    }
}

#[test]
fn a_checkpoint_is_the_same_bit_for_bit() {
    let make = |shape: &[usize], seed| Var::parameter(normal::<f32>(shape, seed));
    let (x, w, v) = (make(&[5, 4], 1), make(&[4, 4], 2), make(&[4, 4], 3));
    let block = {
        let (w, v) = (w.clone(), v.clone());
        move |x: &[Var<f32>]| x[0].linear(&w, None)?.square()?.linear(&v, None)?.add(&x[1])
    };
    let skip = x.scale(0.5).unwrap();
    let plain = block(&[x.clone(), skip.clone()]).unwrap();
    let skip = x.scale(0.5).unwrap();
    let saved = checkpoint(&[&x, &skip], block).unwrap();
    assert_eq!(plain.value(), saved.value());
    let (plain, saved) = (plain.sum().unwrap().backward().unwrap(), saved.sum().unwrap().backward().unwrap());
    assert_eq!((plain.len(), saved.len()), (3, 3));
    for parameter in [&x, &w, &v] {
        assert_eq!(plain.of(parameter).unwrap(), saved.of(parameter).unwrap());
    }
}

#[test]
fn checkpoints_nest_and_hold_only_inputs() {
    let w = Var::parameter(normal::<f64>(&[4, 4], 2));
    let x = Var::constant(normal::<f64>(&[5, 4], 1));
    let calls = Arc::<AtomicUsize>::default();
    let inner = {
        let (w, calls) = (w.clone(), Arc::clone(&calls));
        move |x: &[Var<f64>]| {
            calls.fetch_add(1, Ordering::Relaxed);
            x[0].linear(&w, None)?.square()
        }
    };
    let plain = inner(&[inner(std::slice::from_ref(&x)).unwrap()]).unwrap().sum().unwrap().backward().unwrap();
    calls.store(0, Ordering::Relaxed);
    let outer = {
        let inner = inner.clone();
        move |x: &[Var<f64>]| checkpoint(&[&checkpoint(&[&x[0]], inner.clone())?], inner.clone())
    };
    let loss = checkpoint(&[&x], outer).unwrap().sum().unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    let nested = loss.backward().unwrap();
    assert_eq!(
        calls.load(Ordering::Relaxed),
        6,
        "twice when the outer block is computed again, twice for the inner ones"
    );
    assert_eq!(plain.of(&w).unwrap(), nested.of(&w).unwrap());
}

#[test]
fn a_checkpoint_refuses_variables_from_outside() {
    let w = Var::parameter(normal::<f64>(&[3], 1));
    let outside = w.square().unwrap();
    let x = Var::parameter(normal::<f64>(&[3], 2));
    let y = checkpoint(&[&x], move |x| x[0].mul(&outside)).unwrap();
    let error = y.sum().unwrap().backward().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value);
    assert!(error.to_string().contains("the block uses the result of \"square\" from outside"), "{error}");
    let y = checkpoint(&[&Var::constant(normal::<f64>(&[3], 2))], |x| x[0].square()).unwrap();
    assert!(!y.needs_gradient());
}

#[test]
fn a_step_changes_values_and_not_what_was_recorded() {
    let mut w = Var::parameter(Tensor::from(array![3.0f64]));
    let loss = w.square().unwrap().sum().unwrap();
    w.value_mut().as_mut_slice().unwrap()[0] = 100.0;
    let gradients = loss.backward().unwrap();
    assert_eq!(gradients.of(&w).unwrap().to_vec().unwrap(), [6.0]);
    assert_eq!(w.square().unwrap().sum().unwrap().item().unwrap(), 10_000.0);
}
