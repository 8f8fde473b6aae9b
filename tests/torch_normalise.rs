//! PyTorch's values and gradients of activations, softmax, normalisation and attention
//! (`tests/fixtures/torch/normalise.safetensors`) against ours, in doubles and in singles.

mod support;

use ndarray::IxDyn;
use support::torch::{assert_close, compare};
use tenfold::{
    Result, Scalar, Tensor, TensorFile,
    autodiff::{Attention, RelativePositions, Var},
};

/// What a case needs beside its leaves.
struct Extra<'a>(&'a TensorFile);

impl Extra<'_> {
    fn read<T: Scalar>(&self, name: &str) -> Tensor<T, IxDyn> {
        self.0.get::<f64, IxDyn>(name).unwrap().cast().unwrap()
    }

    fn vector<T: Scalar>(&self, name: &str) -> Tensor<T, ndarray::Ix1> {
        self.read(name).into_order().unwrap()
    }
}

/// The operation that the generator names so.
fn run<T: Scalar>(name: &str, v: &[Var<T>], file: &TensorFile) -> Result<Var<T>> {
    let extra = Extra(file);
    match name {
        "gelu" => v[0].gelu(),
        "gelu_tanh" => v[0].gelu_tanh(),
        "relu" => v[0].relu(),
        "relu6" => v[0].relu6(),
        "silu" => v[0].silu(),
        "tanh" => v[0].tanh(),
        "sigmoid" => v[0].sigmoid(),
        "exp" => v[0].exp(),
        "log" => v[0].log(),
        "softmax0" => v[0].softmax(0),
        "softmax1" => v[0].softmax(1),
        "softmax2" => v[0].softmax(2),
        "log_softmax0" => v[0].log_softmax(0),
        "log_softmax1" => v[0].log_softmax(1),
        "log_softmax2" => v[0].log_softmax(2),
        "layer_norm" => v[0].layer_norm(Some(&v[1]), Some(&v[2]), 1e-5),
        "rms_norm" => v[0].rms_norm(Some(&v[1]), 1e-5),
        "batch_norm" => {
            let (mean, variance) = (extra.vector("batch_norm.mean"), extra.vector("batch_norm.variance"));
            v[0].batch_norm(&mean, &variance, Some(&v[1]), Some(&v[2]), 1e-5)
        }
        "batch_norm_training" => {
            let of = |what: &str| extra.vector(&format!("batch_norm_training.{what}"));
            let found = v[0].batch_norm_training(&of("mean"), &of("variance"), 0.1, Some(&v[1]), Some(&v[2]), 1e-5)?;
            assert_close(
                "running mean",
                &found.running_mean.into_dyn(),
                &extra.read(&format!("{name}.running_mean")),
                1e-6,
            );
            let theirs = extra.read(&format!("{name}.running_variance"));
            assert_close("running variance", &found.running_variance.into_dyn(), &theirs, 1e-6);
            Ok(found.result)
        }
        "affine" => v[0].affine(&v[1], Some(&v[2])),
        "grn" => v[0].grn(&v[1].reshape([7])?, &v[2].reshape([7])?, 1e-6),
        "attention" => v[0].attention(&v[1], &v[2], &Attention::new()),
        "attention_bias" => v[0].attention(&v[1], &v[2], &Attention::new().bias(&v[3])),
        "disentangled" => {
            // Products of the contents with the keys and the queries of positions, shared by the samples.
            let [q, k] = [&v[0], &v[1]].map(|x| x.reshape([3, 2, 11, 4]));
            let scores = |x: Var<T>, positions: &str| {
                let positions = extra.read(&format!("disentangled.positions_{positions}")).reshape([1, 2, 8, 4])?;
                x.matmul(&Var::constant(positions.permute(&[0, 1, 3, 2])?))
            };
            let (c2p, p2c) = (scores(q?, "k")?, scores(k?, "q")?);
            let positions = RelativePositions::new(11, 11, 4, 4, 16)?;
            // transformers takes this root in single precision.
            Var::disentangled_bias(Some(&c2p), Some(&p2c), &positions, 1.0 / f64::from(12f32.sqrt()))
        }
        _ => panic!("the fixture has a case \"{name}\" that this test does not know"),
    }
}

#[test]
fn values_and_gradients_are_pytorchs() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/torch/normalise.safetensors");
    let file = TensorFile::open(path).unwrap();
    assert_eq!(compare(&file, 1e-10, run::<f64>), 24);
    compare(&file, 1e-5, run::<f32>);
}

#[test]
fn buckets_are_those_of_transformers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/torch/normalise.safetensors");
    let far = TensorFile::open(path).unwrap().get::<f64, IxDyn>("buckets.v3").unwrap().to_vec().unwrap();
    // The distance i - j, for i = 0 and i = 511; c2p is its bucket plus 256, cut to 0..512.
    let positions = RelativePositions::new(512, 512, 256, 256, 512).unwrap();
    // Scores that are the numbers of their columns, so that what is looked up is the index.
    let columns = Tensor::from_fn([1, 1, 512, 512], |i| i[3] as f64).unwrap();
    let index = Var::disentangled_bias(Some(&Var::constant(columns)), None, &positions, 1.0).unwrap();
    for (k, bucket) in far.into_iter().enumerate() {
        let distance = 2 * k as i64 - 511;
        let at = if distance < 0 { [0, 0, 0, -distance as usize] } else { [0, 0, 511, 511 - distance as usize] };
        assert_eq!(index.value().get(&at).unwrap(), (bucket + 256.0).clamp(0.0, 511.0), "distance {distance}");
    }
}
