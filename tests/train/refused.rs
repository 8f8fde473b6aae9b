//! What is refused, with what words, and what it leaves as it was.

use super::model::{Net, Sequences, bits, train, trainer, unfinished, until, unwatched};
use ndarray::{IxDyn, array};
use std::{fs, path::Path};
use tenfold::{
    Error, ErrorKind, Result, Tensor, TensorFile,
    autodiff::Var,
    nn::{Linear, Module, Parameter},
    train::{AdamW, Dataset, Every, Rows, Scores, Sgd, Trainer},
};

/// A run of three steps in a folder.
fn begun() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    train(&trainer().folder(folder.path()), 8, until(3)).unwrap();
    folder
}

/// Goes on with a run, which has to fail and to leave the model and the folder's checkpoint as they were.
#[track_caller]
fn refused(trainer: Trainer, folder: &Path, mut net: Net<f64>, data: usize) -> Error {
    let (last, model) = (fs::read(folder.join("last.safetensors")).unwrap(), bits(&net));
    let data = Sequences(data);
    let trainer = trainer.folder(folder).resume(true);
    let error = trainer.fit_with(&mut net, &data, Net::loss, |net| net.scores(&data), unwatched).unwrap_err();
    assert!(fs::read(folder.join("last.safetensors")).unwrap() == last && bits(&net) == model);
    assert!(error.message().contains("last.safetensors: "), "{error}");
    error
}

/// The same file with other metadata.
fn with_word(path: &Path, key: &str, value: &str) {
    let file = TensorFile::open(path).unwrap();
    let mut other = TensorFile::new();
    for name in file.names() {
        match file.dtype(name).unwrap() {
            tenfold::DType::I64 => other.insert(name, &file.get::<i64, IxDyn>(name).unwrap()).unwrap(),
            _ => other.insert(name, &file.get::<f64, IxDyn>(name).unwrap()).unwrap(),
        }
    }
    file.metadata().iter().for_each(|(key, value)| other.set_metadata(key, value));
    other.set_metadata(key, value);
    other.save(path).unwrap();
}

#[test]
fn a_checkpoint_of_another_model() {
    let folder = begun();
    let error = refused(trainer(), folder.path(), Net::new(9, 1), 47);
    assert_eq!(error.kind(), ErrorKind::Value);
    assert!(
        error.message().contains("of another model: other frozen weights are \"base.bias\", \"base.weight\""),
        "{error}"
    );
    assert!(
        error.message().contains("is frozen, of shape [8] in the checkpoint and frozen, of shape [9] in the model")
    );

    let mut thawed = Net::new(8, 1);
    thawed.unfreeze_all();
    let error = refused(trainer(), folder.path(), thawed, 47);
    assert!(error.message().contains("and not among the frozen ones in the model"), "{error}");

    let error = refused(trainer(), folder.path(), Net::new(8, 2), 47);
    assert!(error.message().contains("the frozen weights have other values than when the run began"), "{error}");

    // Nothing frozen: names and shapes of what trains.
    let folder = tempfile::tempdir().unwrap();
    let data = Rows::new(&Tensor::<f64, _>::ones([4, 2]).unwrap(), &Tensor::<f64, _>::ones([4, 2]).unwrap()).unwrap();
    let trainer = Trainer::new(Sgd::new(0.1)).batch_size(2).folder(folder.path()).resume(true);
    let run = |layers: &mut Vec<Linear<f64>>| {
        trainer.fit(layers, &data, |layers, (x, y), mode| {
            let x = Var::from(x);
            layers.iter().try_fold(x, |x, layer| layer.forward(&x, mode))?.mse_loss(&y.into())
        })
    };
    let layer = |inputs, outputs| Linear::<f64>::zeros(inputs, outputs).unwrap();
    run(&mut vec![layer(2, 2), layer(2, 2)]).unwrap();
    let message = |mut layers| run(&mut layers).unwrap_err().message().to_string();
    let text = message(vec![layer(2, 2)]);
    assert!(text.contains("2 tensors do not train in the model: \"1.bias\", \"1.weight\""), "{text}");
    let text = message(vec![layer(2, 2), layer(2, 2), layer(2, 2)]);
    assert!(text.contains("2 tensors that train in the model are missing: \"2.bias\", \"2.weight\""), "{text}");
    let text = message(vec![layer(2, 3), layer(3, 2)]);
    assert!(text.contains("shape"), "{text}");
}

#[test]
fn another_configuration() {
    let folder = begun();
    let message = |trainer| refused(trainer, folder.path(), Net::new(8, 1), 47).message().to_string();
    let text = message(trainer().batch_size(4).seed(12).clip(1.0));
    for part in [
        "batch_size is 5 in the checkpoint and 4 here",
        "seed is 11 in the checkpoint and 12 here",
        "clip is 0.5 in the",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let text = message(trainer().steps(50));
    assert!(text.contains("length.steps is 40 in the checkpoint and 50 here"), "{text}");
    let text = refused(trainer(), folder.path(), Net::new(8, 1), 46).message().to_string();
    assert!(text.contains("examples is 47 in the checkpoint and 46 here"), "{text}");
    let text = message(Trainer::new(AdamW::new(0.02)).steps(40));
    assert!(text.contains("rule.AdamW.rate is 0.01 in the checkpoint and 0.02 here"), "{text}");
    let text = message(trainer().groups(tenfold::train::Groups::new()));
    assert!(text.contains("head.weight"), "{text}");
    // What does not change where the run gets to may be another.
    train(&trainer().folder(folder.path()).resume(true).workers(3).save(Every::Steps(7)), 8, unwatched).unwrap();
}

#[test]
fn another_version_or_no_checkpoint() {
    let folder = begun();
    let last = folder.path().join("last.safetensors");
    let whole = fs::read(&last).unwrap();
    let error = || refused(trainer(), folder.path(), Net::new(8, 1), 47);

    with_word(&last, "version", "2");
    assert_eq!(error().kind(), ErrorKind::Unsupported);
    assert!(error().message().ends_with("a checkpoint of version 2; this crate reads version 1"));
    with_word(&last, "format", "pt");
    assert!(error().message().ends_with("is no checkpoint of a run; the metadata say nothing of one"));
    fs::write(&last, &whole).unwrap();
    with_word(&last, "state", "{\"step\":");
    assert!(error().message().contains("the metadata of the checkpoint are damaged"));

    for len in [0, 7, 100, 2000, whole.len() / 2, whole.len() - 1] {
        fs::write(&last, &whole[..len]).unwrap();
        assert_eq!((error().kind(), error().message().contains("truncated")), (ErrorKind::Format, true), "{len}");
    }
    fs::write(&last, &whole).unwrap();
    train(&trainer().folder(folder.path()).resume(true), 8, unwatched).unwrap();
}

/// Metadata that say of a run that is not over that its last step, or one beyond, was taken.
#[test]
fn a_step_that_the_run_does_not_have() {
    let folder = begun();
    let path = folder.path().join("last.safetensors");
    let state = TensorFile::open(&path).unwrap().metadata()["state"].clone();
    for step in [40, 41, u64::MAX] {
        let other = state.replace("\"step\":3,\"loss\"", &format!("\"step\":{step},\"loss\""));
        assert_ne!(other, state);
        with_word(&path, "state", &other);
        let error = refused(trainer(), folder.path(), Net::new(8, 1), 47);
        assert_eq!(error.kind(), ErrorKind::Format);
        assert!(error.message().ends_with(&format!("damaged: step {step} of a run of 40 that is not over")), "{error}");
    }
}

/// A run until somebody breaks it off, whose batches no number counts.
#[test]
fn a_run_without_an_end() {
    for trainer in [Trainer::new(Sgd::new(0.1)).steps(u64::MAX), Trainer::new(Sgd::new(0.1)).epochs(u64::MAX)] {
        let trainer = trainer.batch_size(1).accumulate(2);
        let data = Rows::new(&Tensor::from(array![1.0, 2.0, 3.0]), &Tensor::from(array![1.0, 2.0, 3.0])).unwrap();
        let mut w = Parameter::new(Tensor::from(array![0.0]));
        let loss = |w: &Parameter<f64>, (x, _): (Tensor<f64>, Tensor<f64>), _| w.var().sub(&x.into())?.square()?.mean();
        let report = trainer.fit_with(&mut w, &data, loss, |_| Ok(Scores::new()), until(5)).unwrap();
        assert_eq!((report.steps, report.examples), (5, 8));
    }
}

#[test]
fn folders() {
    let folder = begun();
    let message = |trainer: Trainer| train(&trainer, 8, unwatched).err().unwrap().to_string();
    let text = message(trainer().folder(folder.path()));
    assert!(
        text.ends_with("there is a run in this folder; resume it, name another folder, or remove its last.safetensors")
    );

    let file = folder.path().join("log.jsonl");
    let error = train(&trainer().folder(&file), 8, unwatched).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.message().starts_with(&file.display().to_string()), "{error}");
    // Where nobody can write, root neither.
    #[cfg(target_os = "linux")]
    assert_eq!(train(&trainer().folder("/proc/tenfold"), 8, unwatched).err().unwrap().kind(), ErrorKind::Io);

    // A folder that another run uses at the moment.
    let other = tempfile::tempdir().unwrap();
    let mut second = None;
    train(&trainer().folder(other.path()), 8, |_| {
        second.get_or_insert_with(|| message(trainer().folder(other.path()).resume(true)));
        std::ops::ControlFlow::Break(())
    })
    .unwrap();
    assert!(second.unwrap().contains("another run is writing here"));

    // The log is not there any more: it begins again.
    fs::remove_file(folder.path().join("log.jsonl")).unwrap();
    train(&trainer().folder(folder.path()).resume(true), 8, until(5)).unwrap();
    assert!(super::model::log(folder.path())[0]["step"] == 4);
}

/// (w - x)^2 for examples x.
fn squares(trainer: &Trainer, examples: &[f64], w: &mut Parameter<f64>) -> Result<()> {
    let x = Tensor::from(ndarray::arr1(examples));
    let data = Rows::new(&x, &x)?;
    trainer.fit(w, &data, |w, (x, _), _| w.var().sub(&x.into())?.square()?.mean()).map(|_| ())
}

#[test]
fn a_loss_that_is_not_finite() {
    let folder = tempfile::tempdir().unwrap();
    let trainer = Trainer::new(Sgd::new(0.1)).batch_size(1).epochs(3).folder(folder.path()).save(Every::Steps(2));
    let mut examples = [1.0; 20];
    examples[7] = f64::NAN;
    let mut w = Parameter::new(Tensor::from(array![0.0]));
    let error = squares(&trainer, &examples, &mut w).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value);
    let text = error.message();
    let step: u64 = text.strip_prefix("step ").unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(text.starts_with(&format!("step {step} (epoch 1, batch {step}): loss: the loss is NaN; ")), "{text}");
    let saved = (step - 1) / 2 * 2;
    let good = match saved {
        0 => "no checkpoint had been written".to_string(),
        _ => {
            format!("the last good checkpoint is {}, of step {saved}", folder.path().join("last.safetensors").display())
        }
    };
    assert!(text.ends_with(&good), "{text}");
    // The steps before were taken, that one was not.
    assert!(w.value().get(&[0]).unwrap().is_finite());

    let gradient = Trainer::new(Sgd::new(0.1)).batch_size(1);
    let data = Rows::new(&Tensor::from(array![1.0]), &Tensor::from(array![1.0])).unwrap();
    let error = gradient.fit(&mut w, &data, |w, _, _| w.var().scale(0.0)?.sqrt()?.sum()).unwrap_err();
    assert!(error.message().starts_with("step 1 (epoch 1, batch 1): Optimizer::step: the gradient of "), "{error}");
}

#[test]
fn data_and_losses() {
    let w = || Parameter::new(Tensor::from(array![0.0]));
    let message = |trainer: &Trainer, examples: &[f64]| squares(trainer, examples, &mut w()).unwrap_err().to_string();
    let trainer = Trainer::new(Sgd::new(0.1)).batch_size(4);
    assert_eq!(message(&trainer, &[]), "Batches: the data set is empty; it needs at least one example");
    let sizes = "Batches: a batch of 4 examples from a data set of 3; the batch size may be 1 to 3";
    assert_eq!(message(&trainer, &[1.0, 2.0, 3.0]), sizes);
    for norm in [-1.0, 0.0, f64::NAN] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let text = message(&trainer.clone().clip(norm).folder(&path), &[1.0; 4]);
        assert_eq!(text, format!("Trainer: gradients clipped to a norm of {norm}; it has to be above 0"));
        assert!(!path.exists());
    }

    // A label that is no class.
    let data = Rows::new(&Tensor::<f64, _>::ones([4, 2]).unwrap(), &Tensor::from(array![0u32, 1, 5, 1])).unwrap();
    let mut model = Linear::<f64>::zeros(2, 2).unwrap();
    let error = trainer
        .fit(&mut model, &data, |model, (x, y), mode| {
            model.forward(&x.into(), mode)?.cross_entropy(&y, Default::default())
        })
        .unwrap_err();
    assert!(error.message().starts_with("step 1 (epoch 1, batch 1): cross_entropy: label 5 at ["), "{error}");
    assert!(error.message().ends_with("is none of the 2 classes"));

    // An example that cannot be read, or on which the data set panics.
    struct Broken;
    impl Dataset for Broken {
        type Batch = (Tensor<f64>, Tensor<f64>);

        fn len(&self) -> usize {
            8
        }

        fn batch(&self, indices: &[usize]) -> Result<Self::Batch> {
            assert!(!indices.contains(&5), "no such picture");
            let x = Tensor::ones(vec![indices.len(), 1])?;
            Ok((x.clone(), x))
        }
    }
    let mut model = Linear::<f64>::zeros(1, 1).unwrap();
    let error = trainer
        .fit(&mut model, &Broken, |model, (x, y), mode| model.forward(&x.into(), mode)?.mse_loss(&y.into()))
        .unwrap_err();
    assert!(error.message().contains("load: example 5: Dataset: the data set panicked: no such picture"), "{error}");

    let nothing = |_: &Linear<f64>| Ok(Scores::from([("a", 1.0)]));
    let best = trainer.best(tenfold::train::Best::highest("b"));
    let data = Rows::new(&Tensor::<f64, _>::ones([4, 1]).unwrap(), &Tensor::<f64, _>::ones([4, 1]).unwrap()).unwrap();
    let error = best
        .fit_with(
            &mut model,
            &data,
            |model, (x, y), mode| model.forward(&x.into(), mode)?.mse_loss(&y.into()),
            nothing,
            unwatched,
        )
        .unwrap_err();
    assert!(error.message().contains("the evaluation gave no \"b\", which is to be the best; it gave a 1"), "{error}");
}

/// A failed run leaves nothing half written.
#[test]
fn nothing_is_left_half_done() {
    let folder = begun();
    fs::write(folder.path().join(".last.safetensors.1-2.tmp"), "half of it").unwrap();
    assert_eq!(unfinished(folder.path()), 1);
    train(&trainer().folder(folder.path()).resume(true), 8, until(4)).unwrap();
    assert_eq!(unfinished(folder.path()), 0);
}
