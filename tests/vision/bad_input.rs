//! What is wrong with images, said with the file and the reason.

use crate::sources::{PLAIN, gradient, packed, source, write};
use ndarray::Ix4;
use std::{fs, path::Path};
use tenfold::{
    Error, ErrorKind, Tensor, TensorFile,
    nn::Linear,
    train::{Dataset, Sgd, Trainer},
    vision::{self, Augment, ImageFolder, ImageSource, Images, PackedImages, Split, check_same_classes, split},
};

fn refused<T>(result: Result<T, Error>, kind: ErrorKind, says: &[&str]) {
    let error = result.map(drop).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for part in says {
        assert!(error.to_string().contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn files_that_are_no_images() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join("class").join(name);
    write(path("whole.png"), gradient(9, 9));
    let whole = fs::read(path("whole.png")).unwrap();
    fs::write(path("a_cut.png"), &whole[..whole.len() / 2]).unwrap();
    fs::write(path("b_empty.png"), "").unwrap();
    fs::write(path("c_text.jpg"), "this is a text").unwrap();
    // A header that says 0 x 9 pixels, and one that says a million by a million; both with their checksums.
    fs::write(path("d_zero.png"), png_of(0, 9)).unwrap();
    fs::write(path("e_huge.png"), png_of(1_000_000, 1_000_000)).unwrap();
    let images = ImageFolder::open(folder.path()).unwrap();
    assert_eq!(images.len(), 6);
    for (i, name, kinds) in [
        (0, "a_cut.png", &[ErrorKind::Format][..]),
        (1, "b_empty.png", &[ErrorKind::Format]),
        (2, "c_text.jpg", &[ErrorKind::Format]),
        (3, "d_zero.png", &[ErrorKind::Format]),
        (4, "e_huge.png", &[ErrorKind::Memory, ErrorKind::Format]),
    ] {
        let error = images.image(i).unwrap_err();
        assert!(kinds.contains(&error.kind()) && error.message().contains(name), "{error:?}");
    }
    assert!(images.image(5).is_ok());
    // A folder that says it is a file.
    fs::remove_file(path("whole.png")).unwrap();
    refused(images.image(5), ErrorKind::Io, &["whole.png"]);
}

/// A PNG of which only the header is there.
fn png_of(columns: u32, rows: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(columns.to_be_bytes());
    chunk.extend(rows.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    let crc = chunk.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    });
    let mut png = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d".to_vec();
    png.extend(chunk);
    png.extend((!crc).to_be_bytes());
    png
}

#[test]
fn a_run_stops_at_a_bad_image_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..6 {
        write(folder.path().join(format!("{}/{i}.png", i % 2)), gradient(8, 8));
    }
    fs::write(folder.path().join("1/3.png"), "no more").unwrap();
    let images = Images::new(vision::open(folder.path()).unwrap(), PLAIN, 8).unwrap();
    let mut model = Linear::<f32>::zeros(8 * 8 * 3, 2).unwrap();
    let run = Trainer::new(Sgd::new(0.1)).batch_size(2).fit(&mut model, &images, |model, batch, mode| {
        let flat = batch.images.reshape([batch.labels.len(), 8 * 8 * 3])?;
        batch.loss(&model.forward(&flat.into(), mode)?, 0.0)
    });
    refused(run, ErrorKind::Format, &["example 4", "3.png", "no image that can be read"]);
}

#[test]
fn folders_without_images() {
    let folder = tempfile::tempdir().unwrap();
    let says = ["there are 0 sub-folders", "one sub-folder a class", "jpg"];
    refused(ImageFolder::open(folder.path()), ErrorKind::Value, &says);
    fs::write(folder.path().join("a.png"), "").unwrap();
    fs::create_dir(folder.path().join("cat")).unwrap();
    refused(vision::open(folder.path()), ErrorKind::Value, &["there are 1 sub-folders and no images"]);
    refused(vision::open(folder.path().join("none")), ErrorKind::Io, &["none", "no such file or folder"]);
}

fn opened(file: &TensorFile, path: &Path) -> Result<PackedImages, Error> {
    file.save(path).unwrap();
    PackedImages::open(path)
}

#[test]
fn packed_files_that_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scenes.safetensors");
    let (pixels, labels) = (packed(3, 2).get::<u8, Ix4>("images_u8_nhwc").unwrap(), |labels: Vec<u8>| {
        Tensor::from_vec([labels.len()], labels).unwrap()
    });
    let file = |pixels: &Tensor<u8>, marks: Vec<u8>| {
        TensorFile::new().with("images_u8_nhwc", pixels).unwrap().with("labels_u8", &labels(marks)).unwrap()
    };
    let pixels = pixels.into_dyn();
    let named = file(&pixels, vec![0, 1, 2]).with_metadata("classes", "a,b");
    refused(opened(&named, &path), ErrorKind::Value, &["scenes.safetensors", "label 2 of image 2", "2 classes (a, b)"]);
    refused(opened(&file(&pixels, vec![0, 1]), &path), ErrorKind::Shape, &["[3, 2, 2, 3]", "[2]"]);
    for shape in [vec![3, 0, 2, 3], vec![3, 2, 0, 3], vec![3, 2, 2, 5], vec![3, 2, 2, 0], vec![3, 2, 2]] {
        let odd = Tensor::<u8>::zeros(shape.clone()).unwrap();
        refused(
            opened(&file(&odd, vec![0, 1, 1]), &path),
            ErrorKind::Shape,
            &["scenes.safetensors", &format!("{shape:?}")],
        );
    }
    let other = TensorFile::new().with("images", &pixels).unwrap();
    refused(opened(&other, &path), ErrorKind::Value, &["no tensor \"images_u8_nhwc\"", "there are images"]);
    let floats = Tensor::<f32>::full(vec![3, 2, 2, 3], 0.5).unwrap();
    let floats =
        TensorFile::new().with("images_u8_nhwc", &floats).unwrap().with("labels_u8", &labels(vec![0; 3])).unwrap();
    assert!(opened(&floats, &path).is_err());
    let three = opened(&file(&pixels, vec![0, 1, 1]), &path).unwrap();
    refused(three.image(3), ErrorKind::Shape, &["image 3 of 3"]);
    fs::write(&path, "no tensors").unwrap();
    refused(vision::open(&path), ErrorKind::Format, &["scenes.safetensors"]);
}

#[test]
fn changes_at_random_that_make_no_sense() {
    for (augment, says) in [
        (Augment::new().rand_augment(2, 3.0), "rand_augment of magnitude 3; needs 0 to 1"),
        (Augment::new().rand_augment(2, f64::NAN), "rand_augment of magnitude NaN"),
        (Augment::new().padded_crop(u32::MAX), "padded_crop by 4294967295 pixels; needs at most 65536"),
        (Augment::new().resized_crop(f64::NAN), "resized_crop to NaN of the area"),
        (Augment::new().mixup(f64::NAN), "mixup of alpha NaN"),
    ] {
        refused(augment.check(), ErrorKind::Value, &[says]);
        let images = Images::new(source(4, 8), PLAIN, 8).unwrap().augment(augment);
        refused(images.augmented(&[0, 1], 7), ErrorKind::Value, &[says]);
        images.batch(&[0, 1]).unwrap();
    }
    Images::new(source(4, 8), PLAIN, 8)
        .unwrap()
        .augment(Augment::new().padded_crop(1 << 16))
        .augmented(&[0], 7)
        .unwrap();
}

#[test]
fn images_that_are_not_there() {
    let images = Images::new(source(4, 8), PLAIN, 8).unwrap();
    refused(images.batch(&[0, 4]), ErrorKind::Shape, &["image 4 of 4"]);
}

#[test]
fn classes_that_differ() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["dark/a.png", "light/a.png"] {
        write(folder.path().join(name), gradient(2, 2));
    }
    let other = vision::open(folder.path()).unwrap();
    let says = ["(dark, light)", "(dark, bright)", "the same names in the same order"];
    refused(check_same_classes(&*source(4, 2), &*other), ErrorKind::Value, &says);
}

#[test]
fn splits_that_leave_nothing() {
    let source = source(8, 2);
    for (blocks, shares) in
        [(0, vec![0.2]), (1, vec![0.0]), (1, vec![1.0]), (1, vec![0.5, 0.5]), (1, vec![-0.2]), (1, vec![f64::NAN])]
    {
        refused(split(source.clone(), &Split { blocks, shares }), ErrorKind::Value, &["needs shares above 0"]);
    }
    let few = split(source, &Split { blocks: 4, shares: vec![0.2] });
    refused(few, ErrorKind::Value, &["class dark has 4 images, too few for 2 parts in 4 blocks"]);
}

#[test]
fn a_label_that_the_model_does_not_have() {
    use rand::SeedableRng;
    use tenfold::models::{CifarResNet, CifarResNetConfig};
    let config = CifarResNetConfig { width: 2, blocks: 1, num_labels: 1 };
    let model = CifarResNet::<f32>::new(config, &mut rand_chacha::ChaCha8Rng::seed_from_u64(1)).unwrap();
    let images = Images::new(source(4, 8), PLAIN, 8).unwrap();
    refused(images.evaluate(&model, 2), ErrorKind::Value, &["label 1"]);
    assert!(images.batch(&[0]).is_ok());
}
