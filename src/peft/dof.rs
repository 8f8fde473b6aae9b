//! Reachable degrees of freedom: how many directions a weight can really move in.
//!
//! An adapter with $P$ parameters reaches a set of updates whose dimension is at most $P$, and mostly below: factors
//! can be multiplied by an invertible matrix and its inverse without changing the update, and ranks above what a mode
//! holds add nothing. The dimension is the rank of the Jacobian of the update, as a function of the parameters, at a
//! generic point; here are its closed forms.
//!
//! Tensors of multilinear ranks $J_1, \ldots, J_N$ exist only where no $J_n$ is above its mode's size or above the
//! product of the others; so ranks are clipped to that first, again and again until nothing changes. They then form a
//! manifold of dimension
//!
//! $$ \prod_n J_n + \sum_n J_n (I_n - J_n), $$
//!
//! which for a matrix is $r (m + n - r)$: a core in place of a product of two factors reaches no more and no less. (A.
//! Uschmajew and B. Vandereycken, *The geometry of algorithms using hierarchical tensors*, Linear Algebra and its
//! Applications 439, 2013.)

/// The ranks that an update of these sizes can really have: each at most its mode's size and the product of all others.
///
/// ```
/// // A depthwise kernel: the input mode has size 1, so ranks (40, 40, 3, 3) are (1, 9, 3, 3) in effect.
/// assert_eq!(tenfold::peft::dof::clip(&[1, 192, 7, 7], &[40, 40, 3, 3]), [1, 9, 3, 3]);
/// ```
pub fn clip(sizes: &[usize], ranks: &[usize]) -> Vec<usize> {
    let mut ranks: Vec<usize> = ranks.iter().zip(sizes).map(|(&rank, &size)| rank.min(size)).collect();
    loop {
        let before = ranks.clone();
        for mode in 0..ranks.len() {
            let others = ranks.iter().enumerate().filter(|&(other, _)| other != mode);
            let most = others.fold(1usize, |product, (_, &rank)| product.saturating_mul(rank));
            ranks[mode] = ranks[mode].min(most);
        }
        if ranks == before {
            return ranks;
        }
    }
}

/// Of $G \times_1 A_1 \cdots \times_N A_N$ with free core and factors.
///
/// ```
/// use tenfold::peft::dof;
///
/// assert_eq!(dof::tucker(&[768, 3072], &[8, 8]), dof::matrix(768, 3072, 8));
/// ```
pub fn tucker(sizes: &[usize], ranks: &[usize]) -> usize {
    let ranks = clip(sizes, ranks);
    ranks.iter().product::<usize>() + ranks.iter().zip(sizes).map(|(&rank, &size)| rank * (size - rank)).sum::<usize>()
}

/// Of a product of `rows x rank` and `rank x columns`, both free.
pub fn matrix(rows: usize, columns: usize, rank: usize) -> usize {
    let rank = rank.min(rows).min(columns);
    rank * (rows + columns - rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_clipped_until_nothing_changes() {
        assert_eq!(clip(&[768, 3072], &[40, 80]), [40, 40]);
        assert_eq!(clip(&[3, 192, 4, 4], &[40, 40, 3, 3]), [3, 27, 3, 3]);
        assert_eq!(clip(&[1, 5, 1, 1], &[4, 4, 4, 4]), [1, 1, 1, 1]);
        assert_eq!(clip(&[1, 2, 10], &[5, 5, 5]), [1, 2, 2]);
        assert_eq!(clip(&[7], &[3]), [1]);
    }

    #[test]
    fn whole_weights_have_as_many_as_entries() {
        assert_eq!(tucker(&[3, 4, 5], &[3, 4, 5]), 60);
        assert_eq!(tucker(&[3, 4], &[9, 9]), 12);
        assert_eq!(matrix(3, 4, 9), 12);
    }
}
