//! Parameter counts and degrees of freedom of published models, from the shapes of their layers.

use tenfold::{
    autodiff::Conv,
    nn::Operation,
    peft::{AdaLora, BitFit, Dora, Flora, Lora, LoraForm, Method, Plan, Ranks, Site},
};

/// The convolutions of ConvNeXt-V2.
struct Options {
    patch: Conv,
    halve: Conv,
    depthwise: Vec<Conv>,
}

const DIMS: [usize; 4] = [192, 384, 768, 1536];
const DEPTHS: [usize; 4] = [3, 3, 27, 3];

impl Options {
    fn new() -> Self {
        let depthwise = DIMS.iter().map(|&dim| Conv::new().padding(3).groups(dim)).collect();
        Self { patch: Conv::new().stride(4), halve: Conv::new().stride(2), depthwise }
    }
}

/// Every convolution and linear layer of ConvNeXt-V2-L without its head.
fn convnext(options: &Options) -> Vec<Site<'_>> {
    let mut sites = Vec::new();
    let mut site = |name: String, operation, shape: &[usize]| sites.push(Site::new(name, operation, shape).unwrap());
    site("stem".into(), Operation::Conv(&options.patch), &[DIMS[0], 3, 4, 4]);
    for (stage, (&dim, depth)) in DIMS.iter().zip(DEPTHS).enumerate() {
        if stage > 0 {
            site(format!("downsample.{stage}"), Operation::Conv(&options.halve), &[dim, DIMS[stage - 1], 2, 2]);
        }
        for block in 0..depth {
            let name = format!("stages.{stage}.{block}");
            site(format!("{name}.dwconv"), Operation::Conv(&options.depthwise[stage]), &[dim, 1, 7, 7]);
            site(format!("{name}.pwconv1"), Operation::Linear, &[4 * dim, dim]);
            site(format!("{name}.pwconv2"), Operation::Linear, &[dim, 4 * dim]);
        }
    }
    sites
}

/// Query, key, value, attention output, intermediate and output of DeBERTaV3-base.
fn deberta() -> Vec<Site<'static>> {
    let mut sites = Vec::new();
    for layer in 0..12 {
        for name in ["query", "key", "value", "attention.output"] {
            sites.push(Site::new(format!("{layer}.{name}"), Operation::Linear, &[768, 768]).unwrap());
        }
        sites.push(Site::new(format!("{layer}.intermediate"), Operation::Linear, &[3072, 768]).unwrap());
        sites.push(Site::new(format!("{layer}.output"), Operation::Linear, &[768, 3072]).unwrap());
    }
    sites
}

fn plan(method: &dyn Method<f32>, sites: &[Site<'_>]) -> Plan {
    Plan::of(method, sites).unwrap()
}

fn flora(rank: usize, kernel: usize) -> Flora {
    Flora::new().rank(rank).kernel_rank(kernel)
}

#[test]
fn convnext_v2_large() {
    let options = Options::new();
    let sites = convnext(&options);
    assert_eq!(sites.len(), 1 + 3 + 36 + 72);
    for (rank, kernel, parameters) in
        [(40, 3, 12_774_972), (41, 2, 12_775_295), (80, 2, 25_650_248), (128, 1, 40_498_572), (160, 1, 51_196_524)]
    {
        assert_eq!(plan(&flora(rank, kernel), &sites).parameters(), parameters, "({rank}, {kernel})");
    }
    for (rank, parameters) in [(8, 12_946_080), (16, 25_892_160), (32, 51_784_320)] {
        assert_eq!(plan(&Lora::new(rank).form(LoraForm::Kernel), &sites).parameters(), parameters, "rank {rank}");
    }
    let dora = Dora::from(Lora::new(32).form(LoraForm::Kernel));
    assert_eq!(plan(&dora, &sites).parameters(), 51_949_632);
}

#[test]
fn convnext_v2_large_in_degrees_of_freedom() {
    let options = Options::new();
    let sites = convnext(&options);
    let depthwise: Vec<Site<'_>> = sites.iter().filter(|site| site.name().ends_with("dwconv")).cloned().collect();
    for (rank, kernel, reached) in [(40, 3, 11_134_182), (80, 2, 21_669_080), (128, 1, 33_967_548)] {
        let plan = plan(&flora(rank, kernel), &sites);
        assert_eq!(plan.degrees_of_freedom(), reached, "({rank}, {kernel})");
        // Columns that are left out reach nothing.
        let clipped = self::plan(&flora(rank, kernel).clip(), &sites);
        assert_eq!((clipped.degrees_of_freedom(), clipped.wasted_columns()), (reached, 0));
        assert!(clipped.parameters() < plan.parameters() && plan.wasted_columns() > 0);
    }
    assert_eq!(plan(&flora(40, 3), &depthwise).degrees_of_freedom(), 244_512);
    assert_eq!(plan(&flora(128, 1), &depthwise).degrees_of_freedom(), 27_504);
    for (rank, about) in [(8, 3.63), (16, 5.90), (32, 10.43)] {
        let reached = plan(&Lora::new(rank).form(LoraForm::Kernel), &sites).degrees_of_freedom();
        assert!((reached as f64 / 1e6 - about).abs() < 0.005, "rank {rank}: {reached}");
    }
}

#[test]
fn adapters_larger_than_their_weight_are_listed() {
    let options = Options::new();
    let sites = convnext(&options);
    let warnings = plan(&Lora::new(8).form(LoraForm::Kernel), &sites).warnings();
    // All depthwise kernels, and the stem.
    assert_eq!(warnings.len(), 37, "{warnings:#?}");
    assert!(warnings.iter().all(|warning| warning.contains("dwconv") || warning.contains("stem")));
}

#[test]
fn deberta_v3_base() {
    let sites = deberta();
    for (rank, lora, flora, dora) in [(2, 331_776, 332_064, 414_720), (8, 1_327_104, 1_331_712, 1_410_048)] {
        assert_eq!(plan(&Lora::new(rank), &sites).parameters(), lora);
        assert_eq!(plan(&Flora::new().rank(rank), &sites).parameters(), flora);
        assert_eq!(plan(&Dora::new(rank), &sites).parameters(), dora);
        // Of the same rank they reach the same matrices.
        let reached = plan(&Lora::new(rank), &sites).degrees_of_freedom();
        assert_eq!(plan(&Flora::new().rank(rank), &sites).degrees_of_freedom(), reached);
    }
}

/// The number that FLoRA's paper gives for AdaLoRA: all layers at the average rank.
#[test]
fn adalora_on_deberta_v3_base() {
    let sites = deberta();
    let adalora = AdaLora::new(8).initial_rank(8);
    let at_target = plan(&adalora, &sites);
    assert_eq!(at_target.parameters(), 1_327_680);
    assert_eq!(at_target.degrees_of_freedom(), plan(&Lora::new(8), &sites).degrees_of_freedom());
    // It starts with half as much again.
    let start = plan(&AdaLora::new(8), &sites);
    assert_eq!((start.parameters(), &start.rows[0].outline.ranks[..]), (1_327_680 / 2 * 3, &[12][..]));
}

/// The parameters that BitFit lets train, by their names.
fn bitfit(parameters: &[(String, usize)]) -> usize {
    let chosen = parameters.iter().filter(|(name, _)| Method::<f32>::selects(&BitFit, name));
    chosen.map(|(_, entries)| entries).sum()
}

/// The vectors of ConvNeXt-V2-L as its authors' code names them: GRN has `gamma` and `beta`, which is no bias by its name.
#[test]
fn bitfit_on_convnext_v2_large() {
    let mut vectors = vec![("downsample_layers.0.0.bias".to_string(), DIMS[0])];
    let norm = |name: String, size: usize, all: &mut Vec<(String, usize)>| {
        all.extend([(format!("{name}.weight"), size), (format!("{name}.bias"), size)]);
    };
    norm("downsample_layers.0.1".into(), DIMS[0], &mut vectors);
    for (stage, (&dim, depth)) in DIMS.iter().zip(DEPTHS).enumerate() {
        if stage > 0 {
            norm(format!("downsample_layers.{stage}.0"), DIMS[stage - 1], &mut vectors);
            vectors.push((format!("downsample_layers.{stage}.1.bias"), dim));
        }
        for block in 0..depth {
            let name = format!("stages.{stage}.{block}");
            norm(format!("{name}.norm"), dim, &mut vectors);
            vectors.extend([
                (format!("{name}.dwconv.bias"), dim),
                (format!("{name}.pwconv1.bias"), 4 * dim),
                (format!("{name}.grn.gamma"), 4 * dim),
                (format!("{name}.grn.beta"), 4 * dim),
                (format!("{name}.pwconv2.bias"), dim),
            ]);
        }
    }
    assert_eq!(bitfit(&vectors), 193_920);
}

/// The vectors of DeBERTaV3-base's encoder.
#[test]
fn bitfit_on_deberta_v3_base() {
    let mut vectors = vec![("embeddings.LayerNorm.weight".to_string(), 768), ("embeddings.LayerNorm.bias".into(), 768)];
    for layer in 0..12 {
        let name = format!("encoder.layer.{layer}");
        let linear =
            [("attention.self.query_proj", 768), ("attention.self.key_proj", 768), ("attention.self.value_proj", 768)];
        let more = [("attention.output.dense", 768), ("intermediate.dense", 3072), ("output.dense", 768)];
        vectors.extend(linear.into_iter().chain(more).map(|(part, size)| (format!("{name}.{part}.bias"), size)));
        for norm in ["attention.output.LayerNorm", "output.LayerNorm"] {
            vectors.extend(["weight", "bias"].map(|part| (format!("{name}.{norm}.{part}"), 768)));
        }
    }
    // Of the relative positions' embeddings.
    vectors.extend(["weight", "bias"].map(|part| (format!("encoder.LayerNorm.{part}"), 768)));
    assert_eq!(bitfit(&vectors), 102_912);
}

#[test]
fn intern_vit_6b() {
    let mut sites = Vec::new();
    for layer in 0..48 {
        for (name, shape) in
            [("qkv", [9600, 3200]), ("proj", [3200, 3200]), ("fc1", [12800, 3200]), ("fc2", [3200, 12800])]
        {
            sites.push(Site::new(format!("{layer}.{name}"), Operation::Linear, &shape).unwrap());
        }
    }
    assert_eq!(plan(&Lora::new(8), &sites).parameters(), 19_660_800);
    assert_eq!(plan(&Lora::new(16), &sites).parameters(), 39_321_600);
}

#[test]
fn a_budget_for_a_model_is_used_up() {
    let options = Options::new();
    let sites = convnext(&options);
    let flora = Flora::new().kernel_rank(3).ranks_by(Ranks::ModelParameters(12_774_972));
    let plan = plan(&flora, &sites);
    assert_eq!((plan.parameters(), &plan.rows[5].outline.ranks[..]), (12_774_972, &[40, 40][..]));
}
