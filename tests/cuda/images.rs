//! Convolutions, pools and resizing: the same on the GPU as on the host, forward and every gradient.

use super::*;
use tenfold::autodiff::{Conv, ConvTranspose, Interpolation, Padding, PaddingMode, Pool};

/// One convolution with and without a bias; the image as it lies and with its modes reversed.
fn convolution<T: Scalar>(device: &Device, x: &[usize], w: &[usize], options: &Conv) {
    let what = format!("conv {x:?} by {w:?} with {options:?}");
    let (x, w, b) = (normal::<T>(x, 1), normal::<T>(w, 2), normal::<T>(&w[..1], 3));
    agree(&what, device, &[x.clone(), w.clone(), b], |v| v[0].conv(&v[1], Some(&v[2]), options));
    agree(&what, device, &[x, w], |v| v[0].conv(&v[1], None, options));
}

pub fn convolutions<T: Scalar>(device: &Device) {
    let new = Conv::new;
    for (x, w, options) in [
        // One to three modes, strides, dilations, groups, paddings of all kinds.
        (&[2, 3, 4, 2][..], &[3, 2, 2, 3][..], new().padding([(1, 0), (0, 2)])),
        (&[1, 4, 6, 2], &[3, 2, 2, 3], new().stride([2, 3])),
        (&[1, 5, 4, 4], &[2, 2, 3, 2], new().stride(2).dilation([2, 1]).padding([2, 1]).groups(2)),
        (&[2, 9, 11, 6], &[8, 3, 3, 3], new().padding(3).dilation(3).groups(2)),
        (&[2, 12, 2], &[2, 2, 3], new().padding(Padding::Same)),
        (&[3, 19, 4], &[6, 2, 5], new().stride(2).padding([(4, 1)]).groups(2)),
        (&[1, 2, 3, 2, 2], &[2, 2, 2, 2, 2], new().padding([1, 0, 1]).stride([1, 2, 2])),
        (&[2, 4, 5, 3, 8], &[8, 4, 3, 3, 3], new().padding(1).groups(2)),
        (&[1, 3, 4, 1], &[2, 1, 3, 3], new().padding(2).padding_mode(PaddingMode::Reflect)),
        (&[1, 3, 2, 1], &[1, 1, 3, 3], new().padding([(2, 0), (1, 3)]).padding_mode(PaddingMode::Replicate)),
        (&[1, 3, 2, 1], &[1, 1, 2, 2], new().padding(2).padding_mode(PaddingMode::Circular)),
        // Channels of all numbers.
        (&[2, 7, 6, 1], &[5, 1, 3, 3], new().padding(1)),
        (&[2, 7, 6, 3], &[40, 3, 3, 3], new().padding(1).stride(2)),
        (&[1, 5, 5, 96], &[40, 96, 3, 3], new().padding(1)),
        (&[1, 2, 3, 1000], &[3, 1000, 2, 2], new().padding(1)),
        // Pointwise, and with groups or a stride.
        (&[2, 5, 7, 40], &[24, 40, 1, 1], new()),
        (&[2, 5, 7, 40], &[24, 10, 1, 1], new().groups(4)),
        (&[2, 5, 7, 40], &[24, 40, 1, 1], new().stride(2)),
        (&[2, 5, 4, 8], &[6, 8, 1, 1], new().padding(1)),
        (&[3, 10, 12], &[5, 12, 1], new()),
        // Patches side by side.
        (&[2, 8, 12, 3], &[16, 3, 4, 4], new().stride(4)),
        (&[2, 6, 8, 40], &[24, 40, 2, 2], new().stride(2)),
        (&[2, 7, 9, 12], &[8, 12, 2, 2], new().stride(2)),
        (&[2, 12, 6], &[8, 6, 4], new().stride(4)),
        (&[2, 13, 6], &[8, 6, 4], new().stride(4)),
        (&[2, 12, 6], &[8, 3, 4], new().stride(4).groups(2)),
        // No images.
        (&[0, 5, 5, 3], &[4, 3, 3, 3], new()),
    ] {
        convolution::<T>(device, x, w, &options);
    }
    let (x, w) = (normal::<T>(&[3, 4, 6, 2], 1), normal::<T>(&[2, 5, 3, 2], 2));
    agree("conv of views", device, &[x, w], |v| {
        v[0].permute(&[3, 1, 2, 0])?.conv(&v[1].permute(&[1, 2, 3, 0])?, None, &Conv::new())
    });
}

pub fn depthwise<T: Scalar>(device: &Device) {
    for channels in [1, 3, 40, 96, 1000] {
        let (high, wide) = if channels == 1000 { (3, 4) } else { (9, 13) };
        let options = Conv::new().padding(1).groups(channels);
        convolution::<T>(device, &[2, high, wide, channels], &[channels, 1, 3, 3], &options);
    }
    for kernel in [3, 5, 7] {
        for (high, wide) in [(7, 7), (14, 14), (8, 16), (5, 11), (1, 2)] {
            let options = Conv::new().padding(kernel / 2).groups(34);
            let w = [34, 1, kernel, kernel];
            convolution::<T>(device, &[2, high, wide, 34], &w, &options);
            convolution::<T>(device, &[2, high, wide, 34], &w, &options.stride(2));
        }
        // More than the kernel reaches, and another padding on each side.
        let wide = Conv::new().padding([(kernel + 1, 0), (0, kernel + 2)]).groups(33);
        convolution::<T>(device, &[2, kernel, kernel + 3, 33], &[33, 1, kernel, kernel], &wide);
        let inside = Conv::new().groups(5);
        convolution::<T>(device, &[3, kernel + 6, kernel + 9, 5], &[5, 1, kernel, kernel], &inside);
    }
    let new = Conv::new;
    for (x, w, options) in [
        (&[2, 9, 10, 6][..], &[6, 1, 3, 3][..], new().padding(3).dilation(3).groups(6)),
        (&[2, 9, 10, 6], &[12, 1, 7, 7], new().padding(3).groups(6)),
        (&[2, 9, 10, 6], &[12, 1, 3, 3], new().padding(1).stride(2).groups(6)),
        (&[1, 3, 2, 1], &[1, 1, 7, 1], new().padding([(4, 3), (0, 0)])),
        (&[2, 6, 7, 4], &[4, 1, 2, 4], new().padding(Padding::Same).groups(4)),
        (&[2, 6, 7, 4], &[4, 1, 3, 3], new().padding(1).padding_mode(PaddingMode::Circular).groups(4)),
        (&[3, 20, 8], &[8, 1, 5], new().padding(2).groups(8)),
        (&[3, 20, 8], &[8, 1, 7], new().padding(3).stride(3).groups(8)),
        (&[2, 3, 6, 7, 4], &[4, 1, 3, 3, 3], new().padding(1).groups(4)),
        (&[2, 3, 6, 7, 4], &[4, 1, 1, 5, 5], new().padding([0, 2, 2]).groups(4)),
        (&[2, 5, 6, 7, 4], &[4, 1, 2, 3, 3], new().stride([2, 1, 2]).groups(4)),
        (&[0, 6, 6, 4], &[4, 1, 3, 3], new().padding(1).groups(4)),
    ] {
        convolution::<T>(device, x, w, &options);
    }
}

pub fn transposed_convolutions<T: Scalar>(device: &Device) {
    let new = ConvTranspose::new;
    for (x, w, options) in [
        (&[2, 4, 5, 6][..], &[6, 4, 2, 2][..], new().stride(2)),
        (&[1, 3, 4, 4], &[4, 3, 3, 3], new().stride(2).padding(1).output_padding(1)),
        (&[2, 5, 4], &[4, 2, 3], new().stride(3).groups(2)),
        (&[2, 3, 2, 4, 2], &[2, 3, 2, 3, 2], new().dilation(2).padding(1)),
        (&[2, 5, 6, 40], &[40, 1, 3, 3], new().padding(1).groups(40)),
        (&[2, 5, 6, 4], &[4, 1, 3, 3], new().stride(2).groups(4)),
        (&[2, 5, 6, 8], &[8, 5, 1, 1], new()),
    ] {
        let what = format!("conv_transpose {x:?} by {w:?} with {options:?}");
        let b = normal::<T>(&[options.output_shape(x, w).unwrap().pop().unwrap()], 3);
        let (x, w) = (normal::<T>(x, 1), normal::<T>(w, 2));
        agree(&what, device, &[x.clone(), w.clone(), b], |v| v[0].conv_transpose(&v[1], Some(&v[2]), &options));
        agree(&what, device, &[x, w], |v| v[0].conv_transpose(&v[1], None, &options));
    }
}

pub fn pools<T: Scalar>(device: &Device) {
    for (shape, options) in [
        (&[2, 5, 4, 3][..], Pool::new(2)),
        (&[1, 5, 6, 2], Pool::new(3).stride(2).padding(1)),
        (&[2, 13, 11, 40], Pool::new(3).stride(2).padding(1)),
        (&[1, 4, 3, 1], Pool::new([4, 2]).stride([1, 3]).padding([2, 0])),
        (&[2, 7, 2], Pool::new(3).stride(1)),
        (&[1, 3, 2, 4, 2], Pool::new([2, 1, 3]).padding([1, 0, 1]).stride(1)),
        (&[0, 5, 4, 3], Pool::new(2)),
    ] {
        let what = format!("pool {shape:?} with {options:?}");
        let x = [normal::<T>(shape, 1)];
        agree(&what, device, &x, |v| v[0].max_pool(&options));
        agree(&what, device, &x, |v| v[0].avg_pool(&options));
        agree(&what, device, &x, |v| v[0].avg_pool(&options.clone().count_include_pad(false)));
        agree(&what, device, &x, |v| v[0].global_avg_pool());
    }
    // Equal entries, and NaN: the first of the largest, and the last NaN, as on the host.
    let values = [2.0, 2.0, f64::NAN, 3.0, f64::NAN, f64::NAN, 1.0, 1.0].map(T::of).to_vec();
    let x = Tensor::<T, _>::from_vec(IxDyn(&[1, 8, 1]), values).unwrap();
    agree("pool of NaN", device, &[x], |v| v[0].max_pool(&Pool::new(2).stride(1)));
}

pub fn resampling<T: Scalar>(device: &Device) {
    let linear = |align_corners| Interpolation::Linear { align_corners };
    for (shape, size) in [
        (&[2, 5, 7, 3][..], &[10, 4][..]),
        (&[1, 4, 40], &[9]),
        (&[2, 3, 4, 2, 5], &[2, 6, 3]),
        (&[2, 5, 7, 3], &[5, 7]),
    ] {
        for how in [Interpolation::Nearest, linear(false), linear(true)] {
            let what = format!("resize {shape:?} to {size:?}, {how:?}");
            agree(&what, device, &[normal::<T>(shape, 1)], |v| v[0].resize(size, how));
        }
    }
    for how in [PaddingMode::Zeros, PaddingMode::Reflect, PaddingMode::Replicate, PaddingMode::Circular] {
        let x = [normal::<T>(&[2, 5, 7, 3], 2)];
        agree(&format!("padded, {how:?}"), device, &x, |v| v[0].pad_spatial([(2, 1), (0, 3)], how));
    }
}

/// Columns of several images, and of one, that are too many to be there at a time.
#[test]
fn large_convolutions_go_in_pieces() {
    let Some(device) = gpu("large_convolutions_go_in_pieces") else { return };
    let options = Conv::new().padding(1);
    convolution::<f32>(&device, &[3, 280, 290, 16], &[3, 16, 3, 3], &options);
    convolution::<f32>(&device, &[1, 600, 700, 9], &[2, 9, 3, 3], &options);
}
