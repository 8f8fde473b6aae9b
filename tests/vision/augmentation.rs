//! Augmentation is a function of the seed, and of nothing else.

use crate::sources::{PLAIN, source};
use std::{collections::BTreeSet, ops::ControlFlow};
use tenfold::{
    Tensor,
    autodiff::Var,
    nn::Linear,
    train::{Dataset, Event, Scores, Sgd, Trainer},
    vision::{Augment, ImageBatch, Images},
};

/// All at once.
fn everything() -> Augment {
    Augment::new().flip().padded_crop(2).rand_augment(2, 0.5).mixup(0.4)
}

fn images(augment: Augment) -> Images {
    Images::new(source(12, 8), PLAIN, 8).unwrap().augment(augment)
}

fn pixels(batch: &ImageBatch) -> Vec<f32> {
    batch.images.to_vec().unwrap()
}

#[test]
fn the_seed_decides() {
    for augment in [
        Augment::new().flip(),
        Augment::new().padded_crop(2),
        Augment::new().resized_crop(0.3),
        Augment::new().rand_augment(2, 0.5),
        Augment::new().mixup(0.4),
        everything(),
    ] {
        let images = images(augment.clone());
        let all: Vec<usize> = (0..12).collect();
        let with = |seed| images.augmented(&all, seed).unwrap();
        assert_eq!(pixels(&with(7)), pixels(&with(7)), "{augment:?}");
        assert_ne!(pixels(&with(7)), pixels(&with(8)), "{augment:?}");
        assert_ne!(pixels(&with(7)), pixels(&images.batch(&all).unwrap()), "{augment:?}");
        assert_eq!(with(7).labels, images.batch(&all).unwrap().labels);
        assert!(pixels(&with(7)).iter().all(|x| (0.0..=1.0).contains(x)));
    }
    let plain = images(Augment::new());
    assert_eq!(pixels(&plain.augmented(&[3, 4], 1).unwrap()), pixels(&plain.batch(&[3, 4]).unwrap()));
}

#[test]
fn images_of_a_batch_are_changed_apart() {
    // The same image twelve times.
    let images = images(Augment::new().flip().padded_crop(2));
    let batch = images.augmented(&[5; 12], 3).unwrap();
    let seen: BTreeSet<Vec<u32>> =
        pixels(&batch).chunks(8 * 8 * 3).map(|image| image.iter().map(|x| x.to_bits()).collect()).collect();
    assert!(seen.len() > 8, "{}", seen.len());
}

#[test]
fn flips_are_mirror_images_and_crops_are_moves() {
    let flipped = images(Augment::new().flip());
    let (plain, batch) = (flipped.batch(&[5; 40]).unwrap().images, flipped.augmented(&[5; 40], 1).unwrap().images);
    let mirrored = Tensor::from_fn([40, 8, 8, 3], |i| plain.get(&[i[0], i[1], 7 - i[2], i[3]]).unwrap()).unwrap();
    let [mut same, mut other] = [0, 0];
    for i in 0..40 {
        let image = |t: &Tensor<f32, ndarray::Ix4>| t.index_mode(0, i).unwrap().to_vec().unwrap();
        match image(&batch) {
            x if x == image(&plain) => same += 1,
            x if x == image(&mirrored) => other += 1,
            _ => panic!("neither the image nor its mirror image"),
        }
    }
    assert!(same > 8 && other > 8, "{same} {other}");

    let cropped = images(Augment::new().padded_crop(2)).augmented(&[5; 40], 1).unwrap().images;
    let moves: BTreeSet<(i64, i64)> = (0..40)
        .map(|i| {
            let at = |r: i64, c: i64| match (usize::try_from(r), usize::try_from(c)) {
                (Ok(r), Ok(c)) if r < 8 && c < 8 => plain.get(&[0, r, c, 1]).unwrap(),
                _ => 0.0,
            };
            let fits = |down: i64, right: i64| {
                (0..8).all(|r| {
                    (0..8).all(|c| cropped.get(&[i, r as usize, c as usize, 1]).unwrap() == at(r - down, c - right))
                })
            };
            let all = (-2..=2).flat_map(|down| (-2..=2).map(move |right| (down, right)));
            all.into_iter().find(|&(down, right)| fits(down, right)).expect("a move by at most two pixels")
        })
        .collect();
    assert!(moves.len() > 12, "{moves:?}");
}

#[test]
fn mixed_images_are_weighted_sums_and_so_is_their_loss() {
    let images = images(Augment::new().mixup(0.4));
    let (plain, batch) = (images.batch(&[0, 1, 2, 5]).unwrap(), images.augmented(&[0, 1, 2, 5], 4).unwrap());
    let (others, share) = batch.mixed.clone().unwrap();
    assert_eq!(others.to_vec().unwrap(), [1, 0, 1, 0]);
    let (x, y, size) = (pixels(&plain), pixels(&batch), 8 * 8 * 3);
    for i in 0..y.len() {
        let other = x[(i + size) % x.len()];
        assert!((y[i] - (share * x[i] + (1.0 - share) * other)).abs() < 1e-6);
    }
    let logits = Var::parameter(Tensor::from_fn([4, 2], |i| i[0] as f32 * (0.5 - i[1] as f32)).unwrap().into_dyn());
    let loss = |batch: &ImageBatch| batch.loss(&logits, 0.1).unwrap().item().unwrap();
    let of_others = ImageBatch { labels: others, mixed: None, ..batch.clone() };
    let expected = share * loss(&plain) + (1.0 - share) * loss(&of_others);
    assert!((loss(&batch) - expected).abs() < 1e-6 && loss(&plain) != loss(&of_others));
}

/// What a run sees, batch after batch.
fn seen(workers: usize) -> Vec<Vec<u32>> {
    let images = images(everything());
    let mut batches = Vec::new();
    let trainer = Trainer::new(Sgd::new(0.1)).epochs(3).batch_size(5).seed(9).workers(workers);
    let mut model = Linear::<f32>::zeros(8 * 8 * 3, 2).unwrap();
    let run = trainer.fit_with(
        &mut model,
        &images,
        |model, batch, mode| {
            batches.push(pixels(&batch).iter().map(|x| x.to_bits()).collect());
            let flat = batch.images.reshape([batch.labels.len(), 8 * 8 * 3])?;
            batch.loss(&model.forward(&flat.into(), mode)?, 0.0)
        },
        |_| Ok(Scores::new()),
        |_: &Event<'_>| ControlFlow::Continue(()),
    );
    run.unwrap();
    batches
}

#[test]
fn the_number_of_workers_does_not_matter() {
    let one = seen(1);
    assert_eq!(one.len(), 9);
    for workers in [2, 3, 8] {
        assert_eq!(seen(workers), one);
    }
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let refused = |augment: Augment| augment.check().unwrap_err().message().to_string();
    for share in [0.0, -1.0, 1.5, f64::NAN] {
        assert!(refused(Augment::new().resized_crop(share)).contains("needs above 0, at most 1"));
    }
    for magnitude in [-0.1, 1.1, f64::NAN] {
        assert!(refused(Augment::new().rand_augment(1, magnitude)).contains("needs 0 to 1"));
    }
    for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(refused(Augment::new().mixup(alpha)).contains("needs above 0"));
    }
}
