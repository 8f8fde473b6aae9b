//! Degrees of freedom, measured: the rank of the Jacobian of the effective weight at a random point, beside what the
//! outlines say.

use super::layers::{fill, normal};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tenfold::{
    Tensor,
    autodiff::{Conv as ConvOptions, ConvTranspose as ConvTransposeOptions},
    nn::{Conv, ConvTranspose, Embedding, Layer, Linear},
    peft::{Attach, Dora, Flora, Lora, LoraForm, Method, Ranks},
};

/// Of the weight by everything that trains. DoRA's norm is no constant here, but that changes no rank: lengths of rows
/// are free anyway.
fn rank_of_jacobian(layer: &mut dyn Layer<f64>, method: &dyn Method<f64>) -> usize {
    let padding = None;
    Attach::new(method).apply(layer).unwrap();
    fill(layer, padding, 21);
    let parameters = layer.parameters().iter().filter(|(_, p)| p.trains()).map(|(_, p)| p.len()).sum::<usize>();
    let entries = layer.weight().len();
    let mut rows = Vec::with_capacity(entries * parameters);
    for entry in 0..entries {
        let weight = layer.effective_weight().unwrap();
        let mut unit = vec![0.0; entries];
        unit[entry] = 1.0;
        let unit = Tensor::from_vec(weight.shape().to_vec(), unit).unwrap().into_dyn();
        let gradients = weight.backward_from(unit).unwrap();
        for (_, parameter) in layer.parameters().into_iter().filter(|(_, p)| p.trains()) {
            rows.extend(gradients.of(parameter.var()).unwrap().to_vec().unwrap());
        }
    }
    let values = Tensor::from_vec([entries, parameters], rows).unwrap().svd().unwrap().s.to_vec().unwrap();
    values.iter().filter(|&&s| s > 1e-9 * values[0]).count()
}

fn check(what: &str, mut layer: impl Layer<f64> + Clone, methods: &[Box<dyn Method<f64>>]) {
    // A weight in general position.
    let shape = layer.weight().shape().to_vec();
    layer.weight_mut().set(normal(&shape, 1)).unwrap();
    for method in methods {
        let plan = Attach::new(&**method).plan(&layer).unwrap();
        let measured = rank_of_jacobian(&mut layer.clone(), &**method);
        assert_eq!(plan.degrees_of_freedom(), measured, "{what}: {method:?}");
    }
}

#[test]
fn outlines_say_what_is_reached() {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let flora = |ranks: &[usize]| Box::new(Flora::new().ranks_by(Ranks::Modes(ranks.to_vec()))) as Box<dyn Method<f64>>;
    let lora = |rank, form| Box::new(Lora::new(rank).form(form)) as Box<dyn Method<f64>>;
    let dora = |rank| Box::new(Dora::new(rank)) as Box<dyn Method<f64>>;
    let channels = LoraForm::Channels;
    let dense = [
        flora(&[2, 2]),
        flora(&[2, 4]),
        flora(&[9, 9]),
        lora(2, channels),
        lora(8, channels),
        dora(1),
        dora(3),
        dora(5),
    ];
    check("linear", Linear::new(6, 5, rng).unwrap(), &dense);
    check("embedding", Embedding::new(6, 5, rng).unwrap(), &dense);
    let plane = [
        flora(&[2, 2, 2, 2]),
        flora(&[2, 3, 1, 1]),
        flora(&[1, 5, 1, 2]),
        flora(&[3, 4, 4, 3]),
        lora(2, channels),
        lora(1, LoraForm::Kernel),
        lora(2, LoraForm::Equation3),
        dora(2),
    ];
    check("conv", Conv::new([3, 4], &[3, 3], ConvOptions::new(), rng).unwrap(), &plane);
    let depthwise = [flora(&[4, 4, 2, 2]), flora(&[2, 3, 1, 1]), lora(2, channels), lora(1, LoraForm::Kernel), dora(2)];
    check("depthwise", Conv::new([5, 5], &[3, 3], ConvOptions::new().groups(5), rng).unwrap(), &depthwise);
    check("line", Conv::new([3, 4], &[3], ConvOptions::new(), rng).unwrap(), &[flora(&[2, 2, 2]), lora(2, channels)]);
    let up = ConvTranspose::new([4, 4], &[2, 2], ConvTransposeOptions::new().groups(2), rng).unwrap();
    check("up", up, &[flora(&[2, 2, 1, 2]), lora(1, channels), dora(1)]);
}
