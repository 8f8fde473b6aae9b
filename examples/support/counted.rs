//! How many numbers a method would train.

use serde_json::json;
use tenfold::{
    Result,
    nn::Module,
    peft::{Attach, Method, Targets},
};

/// Prints what `method` would train of `targets` in a model without a head, layer by layer and in all; `part` is what the model is.
pub fn report<M: Module<f32>>(
    (arch, part): (&str, &str),
    model: &M,
    method: &dyn Method<f32>,
    targets: Targets,
    json: bool,
) -> Result<()> {
    let total = model.count().total;
    // A probe trains nothing but a head, and there is none here.
    let trainable = match method.name() {
        "probe" => 0,
        _ => {
            let plan = Attach::new(method).to(targets).plan(model)?;
            println!("{plan}");
            plan.parameters()
        }
    };
    println!("{arch} with {}: {trainable} numbers train; the {part} has {total}", method.name());
    if json {
        println!("{}", json!({ "arch": arch, "method": method.name(), "trainable": trainable, "total": total }));
    }
    Ok(())
}
