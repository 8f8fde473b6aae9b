//! Linear resampling on a GPU: a thread a result entry. The tables of weights stay on the device, so that a training step uploads none.
#![allow(unsafe_code)]

use super::{
    block::CudaBlock,
    cache,
    compile::Source,
    context::Cuda,
    conv::{at, pointer},
    launch::{self, Arg, int},
};
use crate::{
    device::{conv::Operand, resample::Mix, storage::Storage},
    error::Result,
    scalar::Scalar,
};
use std::{any::Any, collections::HashMap, sync::Arc};

/// The tables of three modes: where the terms of each result entry begin, which source entries they are, and their weights.
struct Tables<T: Scalar> {
    starts: CudaBlock<i64>,
    places: CudaBlock<i64>,
    weights: CudaBlock<T>,
}

/// Tables that were uploaded, by the hash of what they hold.
#[derive(Default)]
pub(crate) struct Uploaded(HashMap<u128, Arc<dyn Any + Send + Sync>>);

/// Tables that are kept at a time; then all are dropped.
const KEPT: usize = 256;

fn tables<T: Scalar>(gpu: &Cuda, mixes: &[Mix<T>; 3]) -> Result<Arc<Tables<T>>> {
    let (mut starts, mut places, mut weights): (Vec<i64>, Vec<i64>, Vec<T>) = (Vec::new(), Vec::new(), Vec::new());
    for mix in mixes {
        for i in 0..mix.result() {
            starts.push(places.len() as i64);
            for &(place, weight) in mix.terms(i) {
                places.push(place as i64);
                weights.push(weight);
            }
        }
        starts.push(places.len() as i64);
    }
    let bytes = |numbers: &[i64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let weight_bytes: Vec<u8> = weights.iter().flat_map(|w| w.f64().to_le_bytes()).collect();
    let key = cache::hash(&[T::DTYPE.to_string().as_bytes(), &bytes(&starts), &bytes(&places), &weight_bytes]);
    let mut uploaded = gpu.tables();
    if let Some(tables) = uploaded.0.get(&key).and_then(|tables| tables.clone().downcast::<Tables<T>>().ok()) {
        return Ok(tables);
    }
    if uploaded.0.len() >= KEPT {
        uploaded.0.clear();
    }
    let (starts, places) = (gpu.upload(&starts)?, gpu.upload(&places)?);
    let tables = Arc::new(Tables { starts, places, weights: gpu.upload(&weights)? });
    uploaded.0.insert(key, tables.clone());
    Ok(tables)
}

pub(crate) fn resample<T: Scalar>(
    gpu: &Cuda,
    (batch, channels): (usize, usize),
    mixes: &[Mix<T>; 3],
    x: Operand<T>,
    out: &mut Storage<T>,
) -> Result<()> {
    let size = |of: fn(&Mix<T>) -> usize| batch * channels * mixes.iter().map(of).product::<usize>();
    let (x, out) = (at(x, size(|mix| mix.source))?, out.cuda_mut("resample")?);
    assert_eq!(out.len(), size(Mix::result), "resample: the result's length");
    if out.len() == 0 {
        return Ok(());
    }
    let tables = tables(gpu, mixes)?;
    let mut args = vec![pointer(Some(x)), Arg::Pointer(out.at(0))];
    args.extend([tables.starts.at(0), tables.places.at(0), tables.weights.at(0)].map(Arg::Pointer));
    args.extend([int(out.len()), int(channels)]);
    args.extend(mixes.iter().map(|mix| int(mix.source)));
    args.extend(mixes.iter().map(|mix| int(mix.result())));
    let name = format!("resample_{}", T::DTYPE);
    // SAFETY: the image lies in its block; the tables name entries of it and have a row for each result entry; the result is the caller's alone.
    unsafe { gpu.launch("resample", (Source::Conv, &name), launch::heavy(out.len()), &args) }
}
