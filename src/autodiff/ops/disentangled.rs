//! DeBERTa's disentangled attention: scores between contents and relative positions, as a bias of the attention.
//!
//! `c2p` `[B, H, N, R]` are the products of the queries with the keys of R relative positions, `p2c` `[B, H, M, R]` those of the
//! keys with their queries. The bias looks both up by where query i and key j stand:
//!
//! $$\text{bias}_{ij} = s\,(\text{c2p}_{i,\,\pi(i,j)} + \text{p2c}_{j,\,\rho(j,i)}).$$
//!
//! It is written in one pass. Back, entries are added up where they were looked up, in an order that depends on nothing but the
//! sizes: each row of a gradient belongs to one thread.
//!
//! P. He et al., *DeBERTa*, ICLR 2021; the indices are those of `DebertaV2` in transformers.

use super::super::Var;
use crate::{
    device::{
        Device,
        positions::{self, Table},
        storage::Flat,
    },
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Array2, Ix2, IxDyn, s};
use std::ops::Range;

const NAME: &str = "disentangled_bias";

/// Where relative positions are looked up, for N queries and M keys.
#[derive(Debug, Clone)]
pub struct RelativePositions {
    /// `[N, M]`: for query i and key j, the entry of `c2p`.
    c2p: Tensor<u32, Ix2>,
    /// `[M, N]`: for key j and query i, the entry of `p2c`.
    p2c: Tensor<u32, Ix2>,
    /// The smallest and the largest entry of each, known here so that a pass need not ask the device; none where there are none.
    ends: [Option<[u32; 2]>; 2],
    /// The same of what the first query alone looks up.
    first: [Option<[u32; 2]>; 2],
}

impl RelativePositions {
    /// The indices of DeBERTa-v2 and -v3 for `queries` by `keys`: distances i - j in logarithmic buckets, shifted by `span` and cut
    /// to `0..2 span`.
    ///
    /// `buckets` and `max_position` are `position_buckets` and `max_relative_positions` of the model's configuration; with `buckets`
    /// 0, distances are taken as they are. `span` is `buckets` where there are any, else `max_position`.
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where `span` is 0 or `buckets` is 1 or not below `max_position`.
    pub fn new(queries: usize, keys: usize, span: usize, buckets: usize, max_position: usize) -> Result<Self> {
        if span == 0 || buckets == 1 || (buckets > 0 && max_position <= buckets / 2 + 1) {
            let message = format!("a span of {span} with {buckets} buckets for distances up to {max_position}");
            return Err(Error::new(ErrorKind::Value, "relative_positions", message));
        }
        // A logarithm for every distance, not for every pair.
        let far = queries.max(keys) as i64;
        let found: Vec<i64> = (-far..=far).map(|d| bucket(d, buckets as i64, max_position as i64)).collect();
        let distance = |i: usize, j: usize| found[(i as i64 - j as i64 + far) as usize];
        let cut = |position: i64| (position + span as i64).clamp(0, 2 * span as i64 - 1) as u32;
        // Where the counts differ, transformers takes the distances between keys.
        let c2p = Array2::from_shape_fn((queries, keys), |(i, j)| cut(distance(i, j)));
        let p2c = Array2::from_shape_fn((keys, queries), |(j, i)| cut(-distance(j, i)));
        Self::of(c2p.into(), p2c.into())
    }

    /// Of indices of one's own: `c2p` `[N, M]` and `p2c` `[M, N]`, on the host.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where one is not the other's shape turned over, [`ErrorKind::Device`] where they are not on the host.
    pub fn of(c2p: Tensor<u32, Ix2>, p2c: Tensor<u32, Ix2>) -> Result<Self> {
        if [c2p.shape()[1], c2p.shape()[0]] != p2c.shape() {
            let message = format!("indices of shapes {:?} and {:?}; needs [N, M] and [M, N]", c2p.shape(), p2c.shape());
            return Err(Error::shape("relative_positions", message));
        }
        let (rows, columns) = (c2p.view()?, p2c.view()?);
        let one = rows.nrows().min(1);
        let first = [ends(rows.slice(s![..one, ..]).iter()), ends(columns.slice(s![.., ..one]).iter())];
        Ok(Self { ends: [ends(rows.iter()), ends(columns.iter())], first, c2p, p2c })
    }

    /// The entries that are looked up, from the first to the last: what lies outside need not be computed.
    ///
    /// ```
    /// use tenfold::autodiff::RelativePositions;
    ///
    /// // 64 tokens look at 127 of DeBERTa-v3's 512 positions.
    /// let positions = RelativePositions::new(64, 64, 256, 256, 512)?;
    /// assert_eq!(positions.range(), 193..320);
    /// assert_eq!(positions.narrowed()?.range(), 0..127);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    pub fn range(&self) -> Range<usize> {
        let ends = self.ends.iter().flatten();
        let first = ends.clone().map(|ends| ends[0]).min();
        let last = ends.map(|ends| ends[1]).max();
        first.zip(last).map_or(0..0, |(first, last)| first as usize..last as usize + 1)
    }

    /// The same, for scores of the entries of [`range`](RelativePositions::range) alone.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] where the indices are not on the host.
    pub fn narrowed(&self) -> Result<Self> {
        let first = self.range().start as u32;
        Self::of(self.c2p.map(|at| at - first)?, self.p2c.map(|at| at - first)?)
    }

    /// The same for the first query alone: views, on whichever device the indices are.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where there is no query.
    pub fn first_query(&self) -> Result<Self> {
        let (c2p, p2c) = (self.c2p.narrow(0, 0..1)?, self.p2c.narrow(1, 0..1)?);
        Ok(Self { c2p, p2c, ends: self.first, first: self.first })
    }

    /// The same on a device.
    ///
    /// # Errors
    /// Those of [`Tensor::to_device`].
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let (c2p, p2c) = (self.c2p.to_device(device)?, self.p2c.to_device(device)?);
        Ok(Self { c2p, p2c, ends: self.ends, first: self.first })
    }
}

/// The smallest and the largest.
fn ends<'i>(index: impl Iterator<Item = &'i u32> + Clone) -> Option<[u32; 2]> {
    index.clone().min().zip(index.max()).map(|(&low, &high)| [low, high])
}

/// A distance as it is up to half of the buckets, beyond it by its logarithm (in single precision, as transformers computes it).
fn bucket(distance: i64, buckets: i64, max_position: i64) -> i64 {
    let half = buckets / 2;
    if buckets == 0 || distance.abs() <= half {
        return distance;
    }
    let share = (distance.abs() as f32 / half as f32).ln() / ((max_position - 1) as f32 / half as f32).ln();
    ((share * (half - 1) as f32).ceil() as i64 + half) * distance.signum()
}

/// One of the two terms, checked: the shape of its scores, and the index, all that the way back needs.
struct Term {
    shape: Vec<usize>,
    index: Tensor<u32, Ix2>,
}

impl Term {
    fn new<T: Scalar>(
        what: &str,
        scores: &Var<T>,
        index: &Tensor<u32, Ix2>,
        ends: Option<[u32; 2]>,
    ) -> Result<(Self, Tensor<T, IxDyn>)> {
        scores.device().check_same(index.device(), NAME)?;
        let (&[_, _, rows, width], &[index_rows, _]) = (scores.shape(), index.shape()) else {
            let message = format!("{what} of shape {:?}; needs [B, H, rows, R]", scores.shape());
            return Err(Error::shape(NAME, message));
        };
        if rows != index_rows {
            let message = format!("{what} of shape {:?} with an index of shape {:?}", scores.shape(), index.shape());
            return Err(Error::shape(NAME, message));
        }
        if let Some([_, largest]) = ends.filter(|&[_, largest]| largest as usize >= width) {
            let message =
                format!("the index of {what} holds {largest}, which does not lie in shape {:?}", scores.shape());
            return Err(Error::new(ErrorKind::Value, NAME, message));
        }
        let term = Self { shape: scores.shape().to_vec(), index: index.to_contiguous()? };
        Ok((term, scores.value().to_contiguous()?))
    }

    fn table(&self) -> Table<'_> {
        Table { index: self.index.flat(), width: self.shape[3] }
    }
}

impl<T: Scalar> Var<T> {
    /// The bias `[B, H, N, M]` of disentangled attention from `c2p` `[B, H, N, R]` and `p2c` `[B, H, M, R]`, either of which may be
    /// missing, times `scale`.
    ///
    /// In DeBERTa `scale` is $1 / \sqrt{d\,t}$, with t one more than the terms that are there, and the attention itself has the
    /// same scale.
    ///
    /// ```
    /// use tenfold::{Tensor, autodiff::{RelativePositions, Var}};
    ///
    /// let positions = RelativePositions::new(3, 3, 2, 0, 2)?;
    /// let c2p = Var::constant(Tensor::<f64, _>::ones([1, 1, 3, 4])?);
    /// let bias = Var::disentangled_bias(Some(&c2p), Some(&c2p), &positions, 0.5)?;
    /// assert_eq!(bias.shape(), [1, 1, 3, 3]);
    /// assert_eq!(bias.value().to_vec()?, [1.0; 9]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where the sizes do not fit or both are missing, [`ErrorKind::Value`] where an index lies outside.
    pub fn disentangled_bias(
        c2p: Option<&Self>,
        p2c: Option<&Self>,
        positions: &RelativePositions,
        scale: f64,
    ) -> Result<Self> {
        let operands: Vec<&Self> = c2p.into_iter().chain(p2c).collect();
        let Some(first) = operands.first() else {
            return Err(Error::shape(NAME, "neither c2p nor p2c was given"));
        };
        let (n, m) = (positions.c2p.shape()[0], positions.c2p.shape()[1]);
        let c2p = c2p.map(|x| Term::new("c2p", x, &positions.c2p, positions.ends[0])).transpose()?;
        let p2c = p2c.map(|x| Term::new("p2c", x, &positions.p2c, positions.ends[1])).transpose()?;
        if let (Some((_, a)), Some((_, b))) = (&c2p, &p2c) {
            a.device().check_same(b.device(), NAME)?;
            if a.shape()[..2] != b.shape()[..2] {
                let message = format!("c2p of shape {:?} and p2c of shape {:?}", a.shape(), b.shape());
                return Err(Error::shape(NAME, message));
            }
        }
        let (batch, heads, scale) = (first.shape()[0], first.shape()[1], T::of(scale));
        let sizes = [batch * heads, n, m];
        fn looked_up<T: Scalar>(term: &Option<(Term, Tensor<T, IxDyn>)>) -> Option<(Flat<'_, T>, Table<'_>)> {
            term.as_ref().map(|(term, scores)| (scores.flat(), term.table()))
        }
        let out = positions::gather(sizes, looked_up(&c2p), looked_up(&p2c), scale)?;
        let out: Tensor<T, IxDyn> = Tensor::row_major(out, &[batch, heads, n, m]);
        let [c2p, p2c] = [c2p, p2c].map(|term| term.map(|(term, _)| term));
        Ok(Self::record(NAME, out, &operands, move |dy, flow| {
            let dy = dy.to_contiguous()?;
            let terms = c2p.iter().map(|term| (term, false)).chain(p2c.iter().map(|term| (term, true)));
            for (i, (term, transposed)) in terms.enumerate() {
                if flow.needs(i) {
                    let found = positions::scatter(sizes, dy.flat(), term.table(), scale, transposed)?;
                    flow.give(i, Tensor::row_major(found, &term.shape))?;
                }
            }
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::{
        check_gradients,
        testing::{close, normal, reversed},
    };

    fn positions(n: usize, m: usize, width: u32) -> RelativePositions {
        RelativePositions::of(
            Array2::from_shape_fn((n, m), |(i, j)| (i * 7 + j * 5 + i * j) as u32 % width).into(),
            Array2::from_shape_fn((m, n), |(j, i)| (i * 3 + j * 2 + i * j) as u32 % width).into(),
        )
        .unwrap()
    }

    #[test]
    fn the_formula_and_its_gradients() {
        for [b, h, n, m, r] in
            [[1, 1, 1, 1, 1], [2, 3, 4, 5, 3], [1, 2, 35, 3, 2], [1, 1, 3, 70, 4], [2, 1, 0, 3, 2], [1, 1, 33, 34, 5]]
        {
            let at = positions(n, m, r as u32);
            let (c2p, p2c) = (normal(&[b, h, n, r], 1), normal(&[b, h, m, r], 2));
            for (c2p, p2c) in [(c2p.clone(), p2c.clone()), (reversed(&c2p), reversed(&p2c))] {
                let [c, p] = [&c2p, &p2c].map(|x| Var::constant(x.clone()));
                let mut expected = Vec::new();
                for (g, i, j) in (0..b * h).flat_map(|g| (0..n).flat_map(move |i| (0..m).map(move |j| (g, i, j)))) {
                    let (ci, pi) = (at.c2p.get(&[i, j]).unwrap() as usize, at.p2c.get(&[j, i]).unwrap() as usize);
                    let at = |x: &Tensor<f64, ndarray::IxDyn>, row, k| x.get(&[g / h, g % h, row, k]).unwrap();
                    expected.push([0.5 * at(&c2p, i, ci), 0.5 * at(&p2c, j, pi)]);
                }
                for (with_c, with_p) in [(true, true), (true, false), (false, true)] {
                    let got = Var::disentangled_bias(with_c.then_some(&c), with_p.then_some(&p), &at, 0.5).unwrap();
                    let sums: Vec<f64> = expected
                        .iter()
                        .map(|[c, p]| if with_c { *c } else { 0.0 } + if with_p { *p } else { 0.0 })
                        .collect();
                    close(&got.value().to_vec().unwrap(), &sums, 1e-14);
                }
                let both = [c2p, p2c];
                check_gradients(&both, 1e-6, |v| Var::disentangled_bias(Some(&v[0]), Some(&v[1]), &at, 0.5)).unwrap();
                check_gradients(&both[..1], 1e-6, |v| Var::disentangled_bias(Some(&v[0]), None, &at, 0.5)).unwrap();
                check_gradients(&both[1..], 1e-6, |v| Var::disentangled_bias(None, Some(&v[0]), &at, 0.5)).unwrap();
            }
        }
    }

    #[test]
    fn distances_in_buckets() {
        // Plain up to half of the buckets, then by logarithm; odd.
        for distance in -16..=16 {
            assert_eq!(bucket(distance, 32, 128), distance);
        }
        assert_eq!(bucket(127, 32, 128), 31);
        assert_eq!(bucket(-127, 32, 128), -31);
        assert!((0..200).all(|d| bucket(d, 32, 128) <= bucket(d + 1, 32, 128)));
        let at = RelativePositions::new(4, 4, 3, 0, 3).unwrap();
        assert_eq!(at.c2p.to_vec().unwrap()[..4], [3, 2, 1, 0]);
        assert_eq!(at.c2p.to_vec().unwrap()[12..], [5, 5, 4, 3]);
        assert!(RelativePositions::new(4, 4, 0, 0, 3).is_err());
        assert!(RelativePositions::new(4, 4, 2, 1, 3).is_err());
        assert!(RelativePositions::of(at.c2p.clone(), at.p2c.narrow(0, 0..3).unwrap()).is_err());
    }

    #[test]
    fn positions_that_nobody_looks_up_need_not_be_there() {
        for (queries, keys) in [(5, 5), (1, 6), (40, 40), (1, 1), (0, 0)] {
            let at = RelativePositions::new(queries, keys, 8, 8, 24).unwrap();
            let scores = [normal(&[2, 1, queries, 16], 1), normal(&[2, 1, keys, 16], 2)].map(Var::constant);
            let parts = scores.each_ref().map(|x| x.narrow(3, at.range()).unwrap());
            let all = Var::disentangled_bias(Some(&scores[0]), Some(&scores[1]), &at, 0.5).unwrap();
            let narrow = at.narrowed().unwrap();
            assert_eq!(narrow.range(), 0..at.range().len());
            let part = Var::disentangled_bias(Some(&parts[0]), Some(&parts[1]), &narrow, 0.5).unwrap();
            assert_eq!(part.value(), all.value(), "{queries} by {keys}");
            let Ok(first) = at.first_query() else { continue };
            let alone = RelativePositions::new(1, keys, 8, 8, 24).unwrap();
            assert_eq!((&first.c2p, &first.p2c, first.range()), (&alone.c2p, &alone.p2c, alone.range()));
            let c2p = scores[0].narrow(2, 0..1).unwrap();
            let bias = Var::disentangled_bias(Some(&c2p), Some(&scores[1]), &first, 0.5).unwrap();
            assert_eq!(bias.value(), all.narrow(2, 0..1).unwrap().value(), "the first of {queries} by {keys}");
        }
    }

    #[test]
    fn errors_name_the_shapes() {
        let at = positions(3, 4, 2);
        let v = |shape: &[usize]| Var::constant(normal(shape, 1));
        assert!(Var::<f64>::disentangled_bias(None, None, &at, 1.0).is_err());
        assert_eq!(
            Var::disentangled_bias(Some(&v(&[1, 1, 4, 2])), None, &at, 1.0).unwrap_err().to_string(),
            "disentangled_bias: c2p of shape [1, 1, 4, 2] with an index of shape [3, 4]"
        );
        assert!(Var::disentangled_bias(Some(&v(&[3, 2])), None, &at, 1.0).is_err());
        assert!(Var::disentangled_bias(Some(&v(&[1, 2, 3, 2])), Some(&v(&[1, 1, 4, 2])), &at, 1.0).is_err());
        let error = Var::disentangled_bias(Some(&v(&[1, 1, 3, 1])), None, &at, 1.0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "disentangled_bias: the index of c2p holds 1, which does not lie in shape [1, 1, 3, 1]"
        );
    }
}
