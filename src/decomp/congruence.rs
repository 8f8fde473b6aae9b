//! [`Cp::congruence`]: whether two CP decompositions have the same components.

use super::{cp::Cp, tucker::unit_columns};
use crate::{
    algebra::hadamard,
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::{Dimension, Ix2};

const NAME: &str = "Cp::congruence";

/// The components of two CP decompositions in pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct Congruence {
    /// As many as the smaller rank, by the number of the first decomposition's component.
    pub pairs: Vec<Pair>,
}

/// A component of each of two decompositions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Of the first.
    pub own: usize,
    /// Of the second.
    pub other: usize,
    /// The cosine of the angle between them: 1 where they differ in size alone, 0 where one is zero.
    pub cosine: f64,
}

impl Congruence {
    /// The mean cosine of the pairs: 1 where every component of the smaller decomposition is one of the other's, but for sizes. The factor match
    /// score without weights.
    pub fn score(&self) -> f64 {
        self.pairs.iter().map(|pair| pair.cosine).sum::<f64>() / self.pairs.len() as f64
    }

    /// The smallest cosine of a pair.
    pub fn least(&self) -> f64 {
        self.pairs.iter().map(|pair| pair.cosine).fold(1.0, f64::min)
    }
}

impl<T: Scalar, D: Dimension> Cp<T, D> {
    /// Pairs the components with those of another decomposition, each with one at most, such that the cosines of the pairs add up to the most
    /// possible. Component r is the tensor $w_r \thinspace a_r \circ b_r \circ \cdots$, and the cosine between two of them is the product of those
    /// between their columns,
    ///
    /// $$ \operatorname{sign}(w_r v_s) \prod_n \frac{\langle a_r^{(n)}, b_s^{(n)} \rangle}{\lVert a_r^{(n)} \rVert \lVert b_s^{(n)} \rVert}, $$
    ///
    /// which does not depend on the order of components, nor on how sizes and signs are spread over modes. Tucker's congruence coefficient;
    /// above 0.95 components are commonly called equal, below 0.85 different (Lorenzo-Seva and ten Berge 2006). Ranks may differ. 2 R S sum I flops,
    /// and $O(\min(R, S)^2 \max(R, S))$ for the pairs (Kuhn 1955, Munkres 1957).
    ///
    /// Components that are there come back from other starts:
    ///
    /// ```
    /// use tenfold::{Tensor, decomp::CpAls};
    ///
    /// let x = Tensor::from(ndarray::Array3::from_shape_fn((6, 7, 8), |(i, j, k)| {
    ///     (i as f64).sin() * (j as f64).cos() * (1 + k) as f64 + 3.0 / (1 + i + 2 * j) as f64
    /// }));
    /// let [a, b] = [1, 2].map(|seed| CpAls::rank(2).seed(seed).sweeps(20).fit(&x));
    /// let congruence = a?.congruence(&*b?)?;
    /// assert_eq!(congruence.pairs.len(), 2);
    /// println!("{:.3} on average, {:.3} at least", congruence.score(), congruence.least());
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where the shapes differ, [`ErrorKind::Value`] where one has no components or entries that are not finite,
    /// [`ErrorKind::Device`] where they live in different places.
    pub fn congruence(&self, other: &Self) -> Result<Congruence> {
        if self.shape() != other.shape() {
            return Err(Error::shape(NAME, format!("shapes {:?} and {:?} differ", self.shape(), other.shape())));
        }
        let (rows, columns) = (self.rank(), other.rank());
        if rows == 0 || columns == 0 {
            let message = format!("ranks {rows} and {columns}; without components there is nothing to compare");
            return Err(Error::new(ErrorKind::Value, NAME, message));
        }
        let cosines = self.cosines(other)?;
        if cosines.iter().any(|cosine| cosine.is_nan()) {
            return Err(Error::new(ErrorKind::Value, NAME, "a factor or a weight has an entry that is not finite"));
        }
        // Partners are found from the side that has fewer.
        let pair = |i: usize, j: usize| {
            let (own, other) = if rows <= columns { (i, j) } else { (j, i) };
            Pair { own, other, cosine: cosines[own * columns + other].clamp(-1.0, 1.0) }
        };
        let partners = best_partners(rows.min(columns), rows.max(columns), |i, j| pair(i, j).cosine);
        let mut pairs: Vec<Pair> = partners.into_iter().enumerate().map(|(i, j)| pair(i, j)).collect();
        pairs.sort_by_key(|pair| pair.own);
        Ok(Congruence { pairs })
    }

    /// Of every component with every one of the other's, row by row.
    fn cosines(&self, other: &Self) -> Result<Vec<f64>> {
        let directions = |cp: &Self| -> Result<Vec<Tensor<f64, Ix2>>> {
            cp.factors().iter().map(|factor| Ok(unit_columns(&factor.cast::<f64>()?)?.0)).collect()
        };
        let signs = |cp: &Self| -> Result<Vec<f64>> {
            let sign = |w: T| if w.is_zero() { 0.0 } else { w.f64().signum() };
            Ok(cp.weights().to_vec()?.into_iter().map(sign).collect())
        };
        let products = directions(self)?
            .iter()
            .zip(&directions(other)?)
            .map(|(a, b)| a.t().matmul(b))
            .collect::<Result<Vec<_>>>()?;
        let mut cosines = hadamard(&products.iter().collect::<Vec<_>>())?.to_vec()?;
        let (own, theirs) = (signs(self)?, signs(other)?);
        for (row, own) in cosines.chunks_mut(theirs.len()).zip(own) {
            row.iter_mut().zip(&theirs).for_each(|(cosine, theirs)| *cosine *= own * theirs);
        }
        Ok(cosines)
    }
}

/// A column for each row, no column twice, so that the gains add up to the most possible. There are at least as many columns as rows. Rows are
/// brought in one after another, each along the path of exchanges that costs least (the Hungarian method, with prices of rows and columns).
fn best_partners(rows: usize, columns: usize, gain: impl Fn(usize, usize) -> f64) -> Vec<usize> {
    let (mut row_price, mut column_price) = (vec![0.0; rows], vec![0.0; columns]);
    let mut holder: Vec<Option<usize>> = vec![None; columns];
    for new in 0..rows {
        // How much it costs to free each column, and from which column its row came; none where that is the new row's own wish.
        let (mut cost, mut before) = (vec![f64::INFINITY; columns], vec![None; columns]);
        let mut settled = vec![false; columns];
        let (mut row, mut at) = (new, None);
        let free = loop {
            let mut next: Option<usize> = None;
            for column in (0..columns).filter(|&column| !settled[column]) {
                let reduced = -gain(row, column) - row_price[row] - column_price[column];
                if reduced < cost[column] {
                    (cost[column], before[column]) = (reduced, at);
                }
                if next.is_none_or(|next| cost[column] < cost[next]) {
                    next = Some(column);
                }
            }
            let Some(next) = next else { unreachable!("there are as many columns as rows") };
            let step = cost[next];
            row_price[new] += step;
            for column in 0..columns {
                match (settled[column], holder[column]) {
                    (true, Some(row)) => {
                        row_price[row] += step;
                        column_price[column] -= step;
                    }
                    _ => cost[column] -= step,
                }
            }
            settled[next] = true;
            match holder[next] {
                Some(other) => (row, at) = (other, Some(next)),
                None => break next,
            }
        };
        // Everybody along the path moves on by one.
        let mut column = free;
        while let Some(previous) = before[column] {
            holder[column] = holder[previous];
            column = previous;
        }
        holder[column] = Some(new);
    }
    let mut partners = vec![0; rows];
    for (column, holder) in holder.into_iter().enumerate() {
        if let Some(row) = holder {
            partners[row] = column;
        }
    }
    partners
}
