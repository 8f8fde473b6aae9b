//! A small model of every layer: names, gradients, freezing, the same numbers from the same seed.

use ndarray::{IxDyn, array};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tenfold::{
    Device, Result, Scalar, Tensor, TensorFile,
    autodiff::{self, Attention, CrossEntropy, Var},
    module,
    nn::{
        BatchNorm, Conv, ConvTranspose, Dropout, Embedding, Grn, Init, Layer, LayerNorm, Linear, Mode, Module,
        Operation, RmsNorm, Save,
    },
};

pub struct SelfAttention<T: Scalar> {
    query: Linear<T>,
    key: Linear<T>,
    value: Linear<T>,
    dense: Linear<T>,
    norm: LayerNorm<T>,
    heads: usize,
}
module!(SelfAttention {
    query => "self.query_proj",
    key => "self.key_proj",
    value => "self.value_proj",
    dense => "output.dense",
    norm => "output.LayerNorm",
});

impl<T: Scalar> SelfAttention<T> {
    fn new(width: usize, rng: &mut ChaCha8Rng) -> Result<Self> {
        let mut linear = || Linear::new(width, width, rng);
        let (query, key, value, dense) = (linear()?, linear()?.without_bias(), linear()?, linear()?);
        Ok(Self { query, key, value, dense, norm: LayerNorm::new(width, 1e-5)?, heads: 2 })
    }

    fn forward(&self, x: &Var<T>, mode: Mode) -> Result<Var<T>> {
        let &[batch, length, width] = x.shape() else { panic!("a batch of sequences") };
        let split = |layer: &Linear<T>| {
            let y = layer.forward(x, mode)?;
            y.reshape([batch, length, self.heads, width / self.heads])?.permute(&[0, 2, 1, 3])
        };
        let y = split(&self.query)?.attention(&split(&self.key)?, &split(&self.value)?, &Attention::new())?;
        let y = y.permute(&[0, 2, 1, 3])?.reshape([batch, length, width])?;
        self.norm.forward(&x.add(&self.dense.forward(&y, mode)?)?)
    }
}

pub struct Block<T: Scalar> {
    attention: SelfAttention<T>,
    conv: Conv<T>,
    grn: Grn<T>,
    dropout: Dropout,
}
module!(Block { attention, conv, grn, dropout });

pub struct Model<T: Scalar> {
    words: Embedding<T>,
    project: Linear<T>,
    rms: RmsNorm<T>,
    layer: Vec<Block<T>>,
    up: ConvTranspose<T>,
    batch_norm: BatchNorm<T>,
    head: Option<Linear<T>>,
}
module!(Model {
    words => "embeddings.word_embeddings",
    project => "embeddings.embed_proj",
    rms => "embeddings.norm",
    layer => "encoder.layer",
    up,
    batch_norm => "bn",
    head => "classifier",
});

impl<T: Scalar> Model<T> {
    pub fn new(seed: u64) -> Result<Self> {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let width = 6;
        let depthwise = autodiff::Conv::new().padding(1).groups(width);
        let words = Embedding::new(11, 4, rng)?.padding(0)?;
        let project = Linear::new(4, width, rng)?.without_bias();
        let mut block = || {
            let (attention, conv) =
                (SelfAttention::new(width, rng)?, Conv::new([width; 2], &[3], depthwise.clone(), rng)?);
            Ok(Block { attention, conv, grn: Grn::new(width, 1e-6)?, dropout: Dropout::new(0.2, 1)? })
        };
        let layer = (0..2).map(|_| block()).collect::<Result<_>>()?;
        Ok(Self {
            words,
            project,
            rms: RmsNorm::new(width, 1e-6)?,
            layer,
            up: ConvTranspose::new([width, 4], &[2], autodiff::ConvTranspose::new().stride(2), rng)?,
            batch_norm: BatchNorm::new(4, 1e-5)?,
            head: Some(Linear::new(4, 3, rng)?),
        })
    }

    pub fn forward(&self, ids: &Tensor<u32, ndarray::Ix2>, mode: Mode) -> Result<Var<T>> {
        let x = self.words.forward(ids, mode)?;
        let mut x = self.rms.forward(&self.project.forward(&x, mode)?)?;
        for (i, block) in self.layer.iter().enumerate() {
            let mode = mode.fork(i as u64);
            let y = block.conv.forward(&block.attention.forward(&x, mode)?, mode)?;
            x = x.add(&block.dropout.forward(&block.grn.forward(&y)?, mode)?)?;
        }
        let x = self.batch_norm.forward(&self.up.forward(&x, mode)?, mode)?.gelu()?.mean_modes(&[1], false)?;
        self.head.as_ref().map_or(Ok(x.clone()), |head| head.forward(&x, mode))
    }
}

pub fn ids() -> Tensor<u32, ndarray::Ix2> {
    Tensor::from(array![[1u32, 4, 0, 10, 3], [2, 2, 9, 0, 0], [5, 6, 7, 8, 1]])
}

fn loss<T: Scalar>(model: &Model<T>, mode: Mode) -> Var<T> {
    let labels = Tensor::from(array![0u32, 2, 1]);
    model.forward(&ids(), mode).unwrap().cross_entropy(&labels, CrossEntropy::default()).unwrap()
}

fn names<T: Scalar>(model: &Model<T>) -> Vec<String> {
    model.parameters().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn names_are_paths_and_stay() {
    let mut model = Model::<f32>::new(1).unwrap();
    let block = |i: usize| {
        [
            "attention.self.query_proj.weight",
            "attention.self.query_proj.bias",
            "attention.self.key_proj.weight",
            "attention.self.value_proj.weight",
            "attention.self.value_proj.bias",
            "attention.output.dense.weight",
            "attention.output.dense.bias",
            "attention.output.LayerNorm.weight",
            "attention.output.LayerNorm.bias",
            "conv.weight",
            "conv.bias",
            "grn.weight",
            "grn.bias",
        ]
        .map(|name| format!("encoder.layer.{i}.{name}"))
    };
    let mut expected: Vec<String> =
        ["embeddings.word_embeddings.weight", "embeddings.embed_proj.weight", "embeddings.norm.weight"]
            .map(String::from)
            .to_vec();
    expected.extend(block(0).into_iter().chain(block(1)));
    expected.extend(
        ["up.weight", "up.bias", "bn.weight", "bn.bias", "classifier.weight", "classifier.bias"].map(String::from),
    );
    assert_eq!(names(&model), expected);
    let mutable: Vec<String> = model.parameters_mut().into_iter().map(|(name, _)| name).collect();
    assert_eq!(mutable, expected);
    let buffers: Vec<String> = model.buffers().into_iter().map(|(name, _)| name).collect();
    assert_eq!(buffers, ["bn.running_mean", "bn.running_var"]);

    let layers: Vec<String> = model.layers().into_iter().map(|(name, _)| name).collect();
    let of_block = |i: usize| {
        [
            "attention.self.query_proj",
            "attention.self.key_proj",
            "attention.self.value_proj",
            "attention.output.dense",
            "conv",
        ]
        .map(|name| format!("encoder.layer.{i}.{name}"))
    };
    let mut expected = vec!["embeddings.word_embeddings".to_string(), "embeddings.embed_proj".to_string()];
    expected.extend(of_block(0).into_iter().chain(of_block(1)));
    expected.extend(["up".to_string(), "classifier".to_string()]);
    assert_eq!(layers, expected);
    let mutable: Vec<String> = model.layers_mut().into_iter().map(|(name, _)| name).collect();
    assert_eq!(mutable, expected);
    model.head = None;
    assert!(!names(&model).iter().any(|name| name.starts_with("classifier")));
}

#[test]
fn layers_say_what_they_do() {
    let mut model = Model::<f32>::new(1).unwrap();
    for (name, layer) in model.layers() {
        let order = layer.weight().shape().len();
        match layer.operation() {
            Operation::Linear => assert_eq!(order, 2, "{name}"),
            Operation::Embedding { padding } => {
                assert_eq!((order, padding, layer.bias().is_none()), (2, Some(0), true))
            }
            Operation::Conv(options) => assert_eq!((order, options.groups), (3, 6), "{name}"),
            Operation::ConvTranspose(options) => assert_eq!((order, options.groups), (3, 1), "{name}"),
            Operation::Residual(_) => assert_eq!(order, 1, "{name}"),
        }
    }
    for (_, layer) in model.layers_mut() {
        layer.weight_mut().freeze();
        if let Some(bias) = layer.bias_mut() {
            bias.freeze();
        }
    }
    let trains: Vec<String> =
        model.parameters().into_iter().filter(|(_, p)| p.trains()).map(|(name, _)| name).collect();
    assert!(trains.iter().all(|name| ["norm", "Norm", "grn", "bn"].iter().any(|n| name.contains(n))), "{trains:?}");
    assert_eq!(trains.len(), 1 + 2 * 4 + 2);
}

fn every_leaf_receives_a_gradient<T: Scalar>() {
    let mut model = Model::<T>::new(1).unwrap();
    for mode in [Mode::training(3, 0), Mode::Evaluation] {
        let gradients = loss(&model, mode).backward().unwrap();
        let report = model.gradient_report(&gradients);
        report.check().unwrap();
        assert_eq!(report.with.len(), names(&model).len());
        assert_eq!(gradients.len(), report.with.len());
        for (name, parameter) in model.parameters() {
            let gradient = gradients.of(parameter.var()).unwrap();
            assert_eq!(gradient.shape(), parameter.shape(), "{name}");
            gradient.check_finite("gradient").unwrap();
            assert!(gradient.max_abs().unwrap() > 0.0, "the gradient of {name} is zero");
        }
        let words = gradients.of(model.parameters()[0].1.var()).unwrap();
        assert_eq!(words.index_mode(0, 0).unwrap().max_abs().unwrap(), 0.0, "padding trains");
    }

    // Frozen parameters receive none, and the others still do.
    model.train_only(&|name| name.contains("layer.0.") && !name.ends_with("bias") || name == "classifier.bias");
    let gradients = loss(&model, Mode::training(3, 0)).backward().unwrap();
    model.gradient_report(&gradients).check().unwrap();
    assert_eq!(gradients.len(), 8);
    for (name, parameter) in model.parameters() {
        assert_eq!(gradients.get(parameter.var()).is_some(), parameter.trains(), "{name}");
    }
    model.freeze_all();
    assert_eq!(model.count().trainable, 0);
    assert!(loss(&model, Mode::Evaluation).backward().is_err());
    model.unfreeze_all();
    assert_eq!(model.count().trainable, model.count().total);
}

#[test]
fn every_leaf_receives_a_gradient_in_doubles() {
    every_leaf_receives_a_gradient::<f64>();
}

#[test]
fn every_leaf_receives_a_gradient_in_singles() {
    every_leaf_receives_a_gradient::<f32>();
}

#[test]
fn missing_gradients_are_named() {
    let model = Model::<f64>::new(1).unwrap();
    let x = model.words.forward(&ids(), Mode::Evaluation).unwrap();
    let gradients = model.project.forward(&x, Mode::Evaluation).unwrap().sum().unwrap().backward().unwrap();
    let report = model.gradient_report(&gradients);
    assert_eq!(report.with, ["embeddings.word_embeddings.weight", "embeddings.embed_proj.weight"]);
    let error = report.check().unwrap_err();
    assert!(error.message().starts_with(
        "2 of 35 parameters that train received a gradient; none arrived at \"embeddings.norm.weight\", \"encoder.layer.0."
    ));
    assert!(error.message().ends_with(" and 21 more"), "{error}");
}

#[test]
fn a_pass_is_a_function_of_seed_and_step() {
    let value = |mode: Mode| loss(&Model::<f64>::new(1).unwrap(), mode).item().unwrap();
    assert_eq!(value(Mode::training(3, 5)), value(Mode::training(3, 5)));
    assert_ne!(value(Mode::training(3, 5)), value(Mode::training(3, 6)));
    assert_ne!(value(Mode::training(3, 5)), value(Mode::training(4, 5)));
    assert_eq!(value(Mode::Evaluation), value(Mode::Evaluation));
}

#[test]
fn the_same_seed_starts_the_same_model() {
    let bytes = |seed: u64| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        Save::new().write(&Model::<f32>::new(seed).unwrap(), &path).unwrap();
        TensorFile::open(path).unwrap()
    };
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
    // Padding starts as zeros, all else differs from zero.
    let model = Model::<f64>::new(1).unwrap();
    assert_eq!(model.words.weight().value().index_mode(0, 0).unwrap().max_abs().unwrap(), 0.0);
    let linear = &model.layer[1].attention.query;
    let bound = 1.0 / 6f64.sqrt();
    assert!(
        linear.weight().value().max_abs().unwrap() <= bound && linear.bias().unwrap().value().max_abs().unwrap() > 0.0
    );
}

#[test]
fn running_statistics_move_in_training_only() {
    let model = Model::<f64>::new(1).unwrap();
    let mean = || model.buffers()[0].1.value().to_vec().unwrap();
    loss(&model, Mode::Evaluation);
    assert_eq!(mean(), [0.0; 4]);
    loss(&model, Mode::training(1, 0));
    let once = mean();
    assert_ne!(once, [0.0; 4]);
    loss(&model, Mode::training(1, 1));
    assert_ne!(mean(), once);
}

#[test]
fn errors_name_the_shapes() {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let x = Var::<f64>::constant(Tensor::ones([2, 3]).unwrap());
    let error = Linear::new(4, 2, rng).unwrap().forward(&x, Mode::Evaluation).unwrap_err();
    assert_eq!(error.to_string(), "Linear: an input of shape [2, 3]; needs [.., 4]");
    let bias = Some(Tensor::zeros([4]).unwrap());
    let error = Linear::<f64>::from_tensors(Tensor::zeros([2, 4]).unwrap(), bias).unwrap_err();
    assert_eq!(error.to_string(), "Linear: a bias of shape [4] for a weight of shape [2, 4]; needs [2]");
    let error = Conv::<f64>::zeros([6, 4], &[3], autodiff::Conv::new().groups(4)).unwrap_err();
    assert_eq!(error.to_string(), "Conv: 4 groups do not divide 6 input and 4 output channels");
    assert!(Conv::<f64>::zeros([6, 4], &[], autodiff::Conv::new()).is_err());
    assert!(Conv::<f64>::zeros([6, 4], &[1], autodiff::Conv::new().groups(0)).is_err());
    let weight = Tensor::<f64, IxDyn>::zeros(vec![5]).unwrap();
    assert!(Conv::from_tensors(weight.clone(), None, autodiff::Conv::new()).is_err());
    assert!(ConvTranspose::from_tensors(weight, None, autodiff::ConvTranspose::new()).is_err());
    let bias = Some(Tensor::zeros([3]).unwrap());
    let grouped = autodiff::ConvTranspose::new().groups(2);
    let weight = Tensor::<f64, IxDyn>::zeros(vec![4, 3, 2]).unwrap();
    let error = ConvTranspose::from_tensors(weight, bias, grouped).unwrap_err();
    assert_eq!(error.to_string(), "ConvTranspose: a bias of shape [3] for a weight of shape [4, 3, 2]; needs [6]");
    let error = Embedding::<f64>::zeros(3, 2).unwrap().padding(3).unwrap_err();
    assert_eq!(error.to_string(), "Embedding::padding: row 3 is outside the table, which has 3 rows");
}

#[test]
fn a_model_moves_as_a_whole() {
    let mut model = Model::<f32>::new(1).unwrap();
    let before = loss(&model, Mode::Evaluation).item().unwrap();
    model.to_device(&Device::cpu().threads(1)).unwrap();
    assert_eq!(loss(&model, Mode::Evaluation).item().unwrap(), before);
    let w = Init::Orthogonal { gain: 1.0 }.tensor(&[4, 4], &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    let mut linear = Linear::<f32>::zeros(4, 4).unwrap();
    linear.weight_mut().set(w).unwrap();
    assert!((linear.weight().value().norm().unwrap() - 2.0).abs() < 1e-6);
}
