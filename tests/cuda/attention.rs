//! Attention: the same on the GPU as on the host, forward and every gradient.

use super::*;
use tenfold::autodiff::Attention;

/// Queries, keys and values with heads of the given sizes.
fn operands<T: Scalar>([b, h, n, m, d, e]: [usize; 6]) -> [Tensor<T>; 3] {
    [normal(&[b, h, n, d], 1), normal(&[b, h, m, d], 2), normal(&[b, h, m, e], 3)]
}

pub fn attention<T: Scalar>(device: &Device) {
    for sizes in [
        [1, 1, 1, 1, 1, 1],
        [2, 3, 5, 7, 4, 6],
        [1, 2, 33, 65, 32, 32],
        [2, 2, 12, 130, 64, 64],
        [1, 2, 9, 33, 3, 1],
        [1, 1, 3, 600, 7, 5],
        [1, 2, 0, 3, 2, 2],
        [1, 2, 3, 0, 2, 2],
    ] {
        agree(&format!("attention {sizes:?}"), device, &operands::<T>(sizes), |v| {
            v[0].attention(&v[1], &v[2], &Attention::new())
        });
    }
    // Views of projections [B, N, H d], with a scale of their own.
    let x = normal::<T>(&[2, 10, 3 * 4 * 8], 4);
    agree("views", device, &[x], |v| {
        let split = v[0].reshape([2, 10, 3, 4, 8])?.permute(&[2, 0, 3, 1, 4])?;
        let part = |i: usize| split.narrow(0, i..i + 1)?.reshape([2, 4, 10, 8]);
        part(0)?.attention(&part(1)?, &part(2)?, &Attention::new().scale(0.3))
    });
    let x = normal::<T>(&[2, 6, 12], 5);
    agree("one projection", device, &[x], |v| {
        let heads = v[0].reshape([2, 6, 3, 4])?.permute(&[0, 2, 1, 3])?;
        heads.attention(&heads, &heads, &Attention::new())
    });
}

pub fn attention_with_terms<T: Scalar>(device: &Device) {
    let [b, h, n, m] = [2, 3, 6, 40];
    let [q, k, v] = operands::<T>([b, h, n, m, 8, 5]);
    let never = T::neg_infinity();
    let causal = Tensor::<T, _>::from_fn([n, m], |i| if i[1] > i[0] { never } else { T::zero() }).unwrap();
    // One row of the second entry sees nothing at all.
    let padding =
        Tensor::<T, _>::from_fn(
            [b, 1, n, m],
            |i| if i[0] == 1 && (i[2] == 2 || i[3] > 30) { never } else { T::zero() },
        );
    let padding = padding.unwrap();
    for shape in [vec![1, h, n, m], vec![b, h, n, m], vec![b, 1, 1, m], vec![n, 1], vec![1, 1, 1, 1], vec![h, 1, 1]] {
        let all = [q.clone(), k.clone(), v.clone(), normal::<T>(&shape, 6)];
        for mask in [None, Some(causal.to_dyn()), Some(padding.to_dyn())] {
            // A bias that is the same for a whole row has a gradient that cancels.
            let size = if shape.last() == Some(&1) { Some(1.0) } else { None };
            let check = |which: &str, got: &Tensor<T>, wanted: &Tensor<T>| {
                let what = format!("a bias of {shape:?}: {which}");
                size.map_or_else(|| close(&what, got, wanted), |size| within(&what, got, wanted, size));
            };
            let attend = |v: &[Var<T>]| {
                let options = Attention::new().bias(&v[3]);
                let options = match &mask {
                    Some(mask) => options.mask(&on(v[0].device(), mask)),
                    None => options,
                };
                v[0].attention(&v[1], &v[2], &options.dropout(0.3, 7, 11))
            };
            compare(device, &all, attend, check);
        }
    }
    for probability in [0.1, 1.0] {
        agree("dropout", device, &[q.clone(), k.clone(), v.clone()], |v| {
            v[0].attention(&v[1], &v[2], &Attention::new().dropout(probability, u64::MAX - 5, 1 << 40))
        });
    }
}

/// Scores of several entries, of several heads, and of one, that are too many to be there at a time.
#[test]
fn long_attention_goes_in_parts() {
    let Some(device) = gpu("long_attention_goes_in_parts") else { return };
    for [b, h, n] in [[3, 1, 3400], [1, 3, 3400], [1, 1, 5900]] {
        let [q, k, v] = operands::<f32>([b, h, n, n, 4, 3]);
        let all = [q, k, v, normal::<f32>(&[n], 5)];
        agree(&format!("attention of {n}"), &device, &all, |v| {
            v[0].attention(&v[1], &v[2], &Attention::new().bias(&v[3]))
        });
    }
}
