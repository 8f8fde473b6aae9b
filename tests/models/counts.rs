//! Parameter counts of published models, from real layers.

use tenfold::{
    models::{Architecture, ConvNext, ConvNextConfig, ImageClassifier},
    nn::Module,
    peft::{Attach, BitFit, Flora, Targets},
};

fn total(name: &str) -> usize {
    Architecture::named(name).unwrap().with_labels(1000).zeros::<f32>().unwrap().count().total
}

#[test]
fn sizes_are_the_published_ones() {
    // timm's counts, with 1000 classes.
    for (name, count) in [
        ("convnextv2-atto", 3_708_400),
        ("convnextv2-femto", 5_233_240),
        ("convnextv2-pico", 9_066_280),
        ("convnextv2-nano", 15_623_800),
        ("facebook/convnextv2-tiny-22k-224", 28_635_496),
        ("convnext_tiny", 28_589_128),
        ("efficientnet-lite0", 4_652_008),
        ("efficientnet-lite4", 13_006_568),
    ] {
        assert_eq!(total(name), count, "{name}");
    }
}

#[test]
fn convnext_v2_large_and_its_adapters() {
    let config = ConvNextConfig { num_labels: 0, ..ConvNextConfig::named("convnextv2-large").unwrap() };
    let mut model = ConvNext::<f32>::zeros(config).unwrap();
    let norm = 2 * 1536;
    assert_eq!(model.count().total, 196_416_768 + norm);

    let flora = Flora::new().rank(40).kernel_rank(3);
    let plan = Attach::new(&flora).plan(&model).unwrap();
    assert_eq!((plan.parameters(), plan.rows.len()), (12_774_972, 1 + 3 + 36 + 72));
    let applied = Attach::new(&flora).apply(&mut model).unwrap();
    assert_eq!((applied, model.count().trainable), (plan, 12_774_972));
    tenfold::peft::detach(&mut model, "default").unwrap();

    // Biases of convolutions, linear layers and norms within the network, those of response normalisation not counted.
    let biases = Targets::all().except("grn").except("convnextv2.layernorm");
    let plan = Attach::new(&BitFit).to(biases).apply(&mut model).unwrap();
    assert_eq!((plan.parameters(), model.count().trainable), (193_920, 193_920));
    assert_eq!(model.head(), "classifier");
}
