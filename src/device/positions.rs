//! Scores looked up by relative position, as DeBERTa's attention does, and the way back.

use super::{
    Kind, cpu,
    storage::{Flat, Storage},
};
use crate::{error::Result, scalar::Scalar};

/// Scores `[groups, rows, width]`, or their gradient, with an index below `width` for each row and each column of the result.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    pub(crate) index: Flat<'a, u32>,
    pub(crate) width: usize,
}

/// The sizes of the result `[groups, n, m]`.
pub(crate) type Sizes = [usize; 3];

/// `out[g, i, j] = scale (c2p[g, i, c2p_index[i, j]] + p2c[g, j, p2c_index[j, i]])`
pub(crate) fn gather<T: Scalar>(
    sizes: Sizes,
    c2p: Option<(Flat<'_, T>, Table<'_>)>,
    p2c: Option<(Flat<'_, T>, Table<'_>)>,
    scale: T,
) -> Result<Storage<T>> {
    const NAME: &str = "disentangled_bias";
    let Some((any, _)) = c2p.or(p2c) else { unreachable!("the operation asks for one of the two") };
    let device = any.storage.device();
    let mut out = Storage::uninit(device, sizes.iter().product())?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let c2p = c2p.map(|(x, t)| Ok((x.host(NAME)?, t.index.host(NAME)?, t.width))).transpose()?;
            let p2c = p2c.map(|(x, t)| Ok((x.host(NAME)?, t.index.host(NAME)?, t.width))).transpose()?;
            cpu::positions::gather(cpu, sizes, c2p, p2c, scale, out.host_mut(NAME)?);
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::positions::gather(gpu, sizes, c2p, p2c, scale, &mut out)?,
    }
    Ok(out)
}

/// The gradient of c2p, or (`transposed`) of p2c: the entries of `dy` added up where they were looked up.
pub(crate) fn scatter<T: Scalar>(
    sizes: Sizes,
    dy: Flat<'_, T>,
    table: Table<'_>,
    scale: T,
    transposed: bool,
) -> Result<Storage<T>> {
    const NAME: &str = "disentangled_bias";
    let [groups, n, m] = sizes;
    let rows = if transposed { m } else { n };
    let device = dy.storage.device();
    let mut out = Storage::uninit(device, groups * rows * table.width)?;
    match &device.0 {
        Kind::Cpu(cpu) => {
            let (dy, index) = (dy.host(NAME)?, table.index.host(NAME)?);
            let out = out.host_mut(NAME)?;
            if transposed {
                cpu::positions::scatter_columns(cpu, sizes, dy, (index, table.width), scale, out);
            } else {
                cpu::positions::scatter_rows(cpu, sizes, dy, (index, table.width), scale, out);
            }
        }
        #[cfg(feature = "cuda")]
        Kind::Cuda(gpu) => super::cuda::positions::scatter(gpu, sizes, dy, table, scale, transposed, &mut out)?,
    }
    Ok(out)
}
