//! Random zeros on a GPU: the same as on the host.
#![allow(unsafe_code)]

use super::{
    compile::Source,
    context::Cuda,
    elementwise::number,
    launch::{self, Arg, int},
};
use crate::{
    device::{
        dropout::Drop,
        storage::{Flat, Storage},
    },
    error::Result,
    scalar::Scalar,
};

/// Every entry times its factor; the factors themselves where there are no entries.
pub(crate) fn apply<T: Scalar>(gpu: &Cuda, drop: &Drop, x: Option<Flat<'_, T>>, out: &mut Storage<T>) -> Result<()> {
    const NAME: &str = "dropout";
    let out = out.cuda_mut(NAME)?;
    let len = out.len();
    let x = match x {
        Some(x) => {
            assert_eq!(x.len, len, "{NAME}: the result's length");
            x.cuda(NAME)?
        }
        None => 0,
    };
    if len == 0 {
        return Ok(());
    }
    // The threshold of probability 1 does not fit a word; the factor is 0 then.
    let least = drop.threshold().min(u32::MAX as u64);
    let args = [
        Arg::Pointer(x),
        Arg::Pointer(out.at(0)),
        int(len),
        Arg::Int(drop.seed as i64),
        Arg::Int(drop.step as i64),
        Arg::Int(least as i64),
        number(drop.factor::<T>()),
    ];
    let name = format!("dropout_{}", T::DTYPE);
    // SAFETY: operand and result hold as many entries; the result is the caller's alone.
    unsafe { gpu.launch(NAME, (Source::Dropout, &name), launch::entries(len), &args) }
}
