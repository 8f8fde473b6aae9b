//! The source entries that a block of the result needs, in one piece of memory.

use crate::{
    device::{conv::Axis, cpu::HostBlock},
    scalar::Scalar,
};
use std::ops::Range;

/// Source rows as an array `[plane, row, column, channel]`: a part of the source itself, or a copy with zeros around the image.
pub(super) struct Tile<'a, T: Scalar> {
    data: Data<'a, T>,
    /// How far neighbouring rows are apart.
    pub(super) row: usize,
    /// For each tap of the outermost spatial mode that meets a source plane: its position among the taps, and where its plane starts.
    pub(super) planes: Vec<(usize, usize)>,
}

enum Data<'a, T: Scalar> {
    Whole(&'a [T]),
    Copy(HostBlock<T>),
}

/// What a tile is cut from, and for which results.
pub(super) struct Cut<'a, T> {
    /// The images, `[images, planes, rows, columns, channels]`.
    pub(super) source: &'a [T],
    pub(super) axes: [&'a Axis; 3],
    pub(super) channels: usize,
    pub(super) image: usize,
    /// The index along the outermost axis, and the range along the middle one.
    pub(super) plane: usize,
    pub(super) rows: Range<usize>,
}

impl<T: Scalar> Tile<'_, T> {
    pub(super) fn data(&self) -> &[T] {
        match &self.data {
            Data::Whole(source) => source,
            Data::Copy(block) => block.as_slice(),
        }
    }
}

impl<'a, T: Scalar> Cut<'a, T> {
    /// The tile. Position (row q, column p) of the result starts at `(q - rows.start) stride row + p stride channels` from each
    /// plane's start; a tap adds its offset less the smallest offset of its axis, in rows or columns.
    pub(super) fn tile(self) -> Tile<'a, T> {
        let [deep, high, wide] = self.axes;
        let size = [deep.source, high.source, wide.source];
        let span = |axis: &Axis, from: usize, to: usize| {
            let (low, top) = axis.reach();
            (from * axis.stride) as isize + low..((to.max(from + 1) - 1) * axis.stride) as isize + top + 1
        };
        let rows = span(high, self.rows.start, self.rows.end);
        let cols = span(wide, 0, wide.count);
        let at = (self.plane * deep.stride) as isize;
        let met = deep.taps.iter().enumerate().filter_map(|(i, tap)| {
            let plane = at + tap.offset;
            (0..size[0] as isize).contains(&plane).then_some((i, plane as usize))
        });
        let met: Vec<(usize, usize)> = met.collect();
        let inside = |range: &Range<isize>, n: usize| range.start >= 0 && range.end <= n as isize;
        let row = size[2] * self.channels;
        let start = |plane: usize, r: isize| (((self.image * size[0] + plane) * size[1]) as isize + r) as usize * row;
        if inside(&rows, size[1]) && inside(&cols, size[2]) {
            let first = |plane: usize| start(plane, rows.start) + cols.start as usize * self.channels;
            let planes = met.iter().map(|&(i, plane)| (i, first(plane))).collect();
            return Tile { data: Data::Whole(self.source), row, planes };
        }
        let (height, width) = (rows.len_of(), cols.len_of() * self.channels);
        let mut block = HostBlock::pooled(met.len() * height * width);
        let to = block.as_mut_slice();
        let clip = |i: isize, n: usize| i.clamp(0, n as isize) as usize;
        // The columns of the image that the tile sees, and the zeros in front of them.
        let seen = clip(cols.start, size[2])..clip(cols.end, size[2]);
        let before = (seen.start as isize - cols.start).clamp(0, cols.len_of() as isize) as usize * self.channels;
        for (j, &(_, plane)) in met.iter().enumerate() {
            for (i, r) in rows.clone().enumerate() {
                let to = &mut to[(j * height + i) * width..][..width];
                if !(0..size[1] as isize).contains(&r) || seen.is_empty() {
                    to.fill(T::zero());
                    continue;
                }
                let from = start(plane, r) + seen.start * self.channels;
                let from = &self.source[from..from + seen.len() * self.channels];
                to[..before].fill(T::zero());
                to[before..before + from.len()].copy_from_slice(from);
                to[before + from.len()..].fill(T::zero());
            }
        }
        let planes = met.iter().enumerate().map(|(j, &(i, _))| (i, j * height * width)).collect();
        Tile { data: Data::Copy(block), row: width, planes }
    }
}

trait Length {
    fn len_of(&self) -> usize;
}

impl Length for Range<isize> {
    fn len_of(&self) -> usize {
        (self.end - self.start).max(0) as usize
    }
}
