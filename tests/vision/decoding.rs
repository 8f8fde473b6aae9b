//! Pixels of files of every kind, and parts of sources.

use crate::sources::{PLAIN, gradient, packed, source, write};
use image::{DynamicImage, GrayImage, Luma, LumaA, Rgba, RgbaImage};
use ndarray::{Ix1, Ix4, s};
use std::{fs, sync::Arc};
use tenfold::{
    Tensor, TensorFile,
    models::{Architecture, ImageInput},
    train::Dataset,
    vision::{self, ImageFolder, ImageSource, Images, PackedImages, Split, split},
};

#[test]
fn every_format_and_every_kind_of_pixel_becomes_the_same_rgb() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join("only").join(name);
    let rgb = gradient(6, 4);
    for name in ["a.png", "b.bmp", "c.tiff", "d.webp", "e.PNG"] {
        write(path(name), rgb.clone());
    }
    // A file is what it holds, not what it is called.
    fs::copy(path("b.bmp"), path("f.jpg")).unwrap();
    let transparent = RgbaImage::from_fn(6, 4, |x, y| {
        let image::Rgb([r, g, b]) = *rgb.get_pixel(x, y);
        Rgba([r, g, b, (40 * x) as u8])
    });
    write(path("g.png"), transparent);
    let deep: DynamicImage = DynamicImage::from(rgb.clone()).into_rgb16().into();
    write(path("h.png"), deep);
    let images = ImageFolder::open(folder.path()).unwrap();
    assert_eq!((images.len(), images.classes()), (8, &["only".to_string()][..]));
    for i in 0..images.len() {
        assert_eq!(images.image(i).unwrap(), rgb, "{}", images.file(i).display());
    }
}

#[test]
fn grey_becomes_three_equal_channels_and_lossy_files_come_near() {
    let folder = tempfile::tempdir().unwrap();
    let grey = GrayImage::from_fn(5, 3, |x, y| Luma([(50 * x + y) as u8]));
    let with_alpha = image::ImageBuffer::from_fn(5, 3, |x, y| LumaA([(50 * x + y) as u8, 7u8]));
    write(folder.path().join("grey/a.png"), grey.clone());
    write(folder.path().join("grey/b.png"), with_alpha);
    write(folder.path().join("photo/a.jpg"), gradient(8, 8));
    let images = ImageFolder::open(folder.path()).unwrap();
    assert_eq!([0, 1, 2].map(|i| images.label(i)), [0, 0, 1]);
    for i in 0..2 {
        let rgb = images.image(i).unwrap();
        assert!(rgb.enumerate_pixels().all(|(x, y, pixel)| pixel.0 == [grey.get_pixel(x, y).0[0]; 3]));
    }
    let (photo, exact) = (images.image(2).unwrap(), gradient(8, 8));
    let away = photo.iter().zip(exact.iter()).map(|(a, b)| u32::from(a.abs_diff(*b))).sum::<u32>() / (8 * 8 * 3);
    assert!(away < 12, "{away}");
}

#[test]
fn folders_list_what_is_visible_in_the_order_of_names() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["cat/2.png", "cat/10.png", "ant/x.png", "cat/.hidden.png", ".git/a.png"] {
        write(folder.path().join(name), gradient(2, 2));
    }
    fs::write(folder.path().join("cat/notes.txt"), "no image").unwrap();
    fs::write(folder.path().join("top.png"), "in no class").unwrap();
    fs::create_dir(folder.path().join("bee")).unwrap();
    let images = ImageFolder::open(folder.path()).unwrap();
    assert_eq!(images.classes(), ["ant", "bee", "cat"]);
    let files: Vec<(String, u32)> = (0..images.len())
        .map(|i| (images.file(i).file_name().unwrap().to_string_lossy().into_owned(), images.label(i)))
        .collect();
    assert_eq!(files, [("x.png".into(), 0), ("10.png".into(), 2), ("2.png".into(), 2)]);
}

#[test]
fn packed_pixels_are_those_of_the_file() {
    let file = packed(5, 4);
    let pixels = file.get::<u8, Ix4>("images_u8_nhwc").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    file.save(&path).unwrap();
    let images = vision::open(&path).unwrap();
    assert_eq!((images.len(), images.side(), images.label(3)), (5, Some(4), 1));
    assert_eq!(images.classes(), ["dark", "bright"]);
    for i in 0..5 {
        let image = images.image(i).unwrap();
        assert_eq!(image.as_raw(), &pixels.slice(s![i, .., .., ..]).unwrap().to_vec().unwrap());
    }
    // The same with a fourth channel, which is dropped.
    let rgba = Tensor::from_fn([5, 4, 4, 4], |i| if i[3] < 3 { pixels.get(i).unwrap() } else { 9 }).unwrap();
    let labels = file.get::<u8, Ix1>("labels_u8").unwrap();
    let four = TensorFile::new().with("images_u8_nhwc", &rgba).unwrap().with("labels_u8", &labels).unwrap();
    let four = PackedImages::from_bytes(four.to_bytes().unwrap()).unwrap();
    assert_eq!(four.image(4).unwrap(), images.image(4).unwrap());
    assert_eq!(four.classes(), ["0", "1"]);
}

#[test]
fn batches_are_normalised_as_the_model_expects_and_brought_to_size() {
    let source = source(3, 4);
    let input = Architecture::named("resnet20").unwrap().input();
    let batch = Images::new(source.clone(), input, 4).unwrap().batch(&[2, 0]).unwrap();
    assert_eq!((batch.images.shape(), batch.labels.to_vec().unwrap()), (&[2, 4, 4, 3][..], vec![0, 0]));
    let image = source.image(2).unwrap();
    for (x, y, pixel) in image.enumerate_pixels() {
        for c in 0..3 {
            let expected = (f64::from(pixel.0[c]) / 255.0 - input.mean[c]) / input.deviation[c];
            let found = batch.images.get(&[0, y as usize, x as usize, c]).unwrap();
            assert!((f64::from(found) - expected).abs() < 1e-6);
        }
    }
    let grown = Images::new(source, PLAIN, 8).unwrap().batch(&[1]).unwrap();
    assert_eq!(grown.images.shape(), [1, 8, 8, 3]);
    // Of values between 0 and 1: the mean stays about what it was.
    let mean = |t: &Tensor<f32, Ix4>| t.mean().unwrap();
    let small = Images::new(crate::sources::source(3, 4), PLAIN, 4).unwrap().batch(&[1]).unwrap();
    assert!((mean(&grown.images) - mean(&small.images)).abs() < 0.02);
    assert!(Images::new(crate::sources::source(3, 4), PLAIN, 0).is_err());
    let ImageInput { mean, deviation, .. } = Architecture::named("convnextv2-tiny").unwrap().input();
    assert_eq!((mean, deviation), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]));
}

#[test]
fn splits_are_blocks_of_every_class_and_share_nothing() {
    // Classes in turn: rows 0, 2, .., of class 0.
    let source = source(40, 2);
    let parts = split(source.clone(), &Split { blocks: 2, shares: vec![0.2, 0.1] }).unwrap();
    let images = |part: &dyn ImageSource| -> Vec<Vec<u8>> {
        (0..part.len()).map(|i| part.image(i).unwrap().into_raw()).collect()
    };
    let whole = images(&*source);
    let rows = |part: usize| -> Vec<usize> {
        images(&parts[part]).iter().map(|x| whole.iter().position(|y| x == y).unwrap()).collect()
    };
    assert_eq!(rows(1), [14, 15, 16, 17, 34, 35, 36, 37]);
    assert_eq!(rows(2), [18, 19, 38, 39]);
    let mut all: Vec<usize> = (0..3).flat_map(rows).collect();
    all.sort_unstable();
    assert_eq!(all, (0..40).collect::<Vec<_>>());
    assert_eq!(parts[1].classes(), source.classes());
    assert_eq!((0..8).map(|i| parts[1].label(i)).collect::<Vec<_>>(), [0, 1, 0, 1, 0, 1, 0, 1]);
    // Without shares all is one part.
    let one = split(source.clone(), &Split::default()).unwrap();
    assert_eq!(images(&one[0]), whole);
    let one: Arc<dyn ImageSource> = Arc::new(one[0].clone());
    assert_eq!(one.name(), source.name());
}
