//! Matrix products, batched.
//!
//! $C = A B$ for $A$ of shape `[.., m, k]` and $B$ of shape `[.., k, n]`; the leading modes broadcast. Back:
//!
//! $$dA = dC\\, B^T, \qquad dB = A^T dC,$$
//!
//! each summed over the leading modes in which that operand was repeated. All three are one strided-batched product: transposes
//! are strides, modes that only rows or columns run through become part of these, and a sum over repeated modes becomes part of the inner
//! dimension where the strides allow it, else a loop that adds up in place. Nothing is copied, repeated or transposed in memory.

use super::{
    super::{Saved, Var},
    arithmetic::common_shape,
};
use crate::{
    device::{
        gemm::{Batch, Gemm, Matrix, gemm},
        layout::{Layout, Loop, Modes, checked_len, loops},
        storage::Storage,
    },
    error::{Error, Result},
    scalar::Scalar,
    tensor::Tensor,
};
use ndarray::IxDyn;

type Dyn<T> = Tensor<T, IxDyn>;

/// The last two modes exchanged.
pub(super) fn transposed<T: Scalar>(x: &Dyn<T>) -> Dyn<T> {
    let mut order: Modes<usize> = (0..x.order()).collect();
    let n = order.len();
    order.swap(n - 2, n - 1);
    Tensor::new(x.storage.clone(), x.layout.permuted(&order))
}

/// The last two sizes.
fn sides(shape: &[usize]) -> [usize; 2] {
    [shape[shape.len() - 2], shape[shape.len() - 1]]
}

/// `[.., m, k]` times `[.., k, n]`, summed over the leading modes that `lead` has not, or of which it has only 1.
///
/// `lead` has at most as many modes as the broadcast leading modes of the operands, which fit.
pub(super) fn multiply<T: Scalar>(a: &Dyn<T>, b: &Dyn<T>, lead: &[usize]) -> Result<Dyn<T>> {
    let ([m, k], [_, n]) = (sides(a.shape()), sides(b.shape()));
    let batch = common_shape("matmul", &a.shape()[..a.order() - 2], &b.shape()[..b.order() - 2])?;
    let shape = [lead, &[m, n]].concat();
    let mut out = Storage::uninit(a.device(), checked_len("matmul", &shape)?)?;
    let to = Layout::contiguous(&shape);
    let problem = plan(&a.layout, &b.layout, &to, &batch, [m, n, k]);
    gemm(a.device(), &problem, &a.storage, &b.storage, &mut out)?;
    Ok(Tensor::new(out, to))
}

/// The strides of a layout's leading modes when it is repeated to `batch`.
fn lead_strides(l: &Layout, batch: &[usize]) -> Modes<isize> {
    let own = l.order() - 2;
    let missing = batch.len() - own;
    (0..batch.len())
        .map(|m| if m < missing || l.shape()[m - missing] == 1 { 0 } else { l.strides()[m - missing] })
        .collect()
}

fn plan<T: Scalar>(a: &Layout, b: &Layout, c: &Layout, batch: &[usize], [m, n, k]: [usize; 3]) -> Gemm<T> {
    let lead = [a, b, c].map(|l| lead_strides(l, batch));
    let side = |l: &Layout, i: usize| l.strides()[l.order() - 2 + i];
    // Loops over chosen modes of the batch, and one more, merged where all three operands allow it.
    let nest = |chosen: &dyn Fn(usize) -> bool, last: Option<(usize, [isize; 3])>| -> Modes<Loop<3>> {
        let modes: Modes<usize> = (0..batch.len()).filter(|&m| chosen(m)).collect();
        let shape: Modes<usize> = modes.iter().map(|&m| batch[m]).chain(last.map(|l| l.0)).collect();
        let layouts: [Layout; 3] = std::array::from_fn(|i| {
            let strides: Modes<isize> = modes.iter().map(|&m| lead[i][m]).chain(last.map(|l| l.1[i])).collect();
            Layout::new(&shape, &strides, 0)
        });
        loops([&layouts[0], &layouts[1], &layouts[2]])
    };
    // A batch mode in which C does not move is summed over. One in which one operand does not move extends the other's side.
    let summed = |m: usize| lead[2][m] == 0 && batch[m] != 1;
    let rows_first = |m: usize| !summed(m) && lead[1][m] == 0;
    let cols_first = |m: usize| !summed(m) && lead[1][m] != 0 && lead[0][m] == 0;
    let rest = |m: usize| !summed(m) && !rows_first(m) && !cols_first(m);
    let mut rows = nest(&rows_first, Some((m, [side(a, 0), 0, side(c, 0)])));
    let mut cols = nest(&cols_first, Some((n, [0, side(b, 1), side(c, 1)])));
    let mut inner = nest(&summed, Some((k, [side(a, 1), side(b, 0), 0])));
    let mut around = nest(&rest, None);
    let longest = |nest: &mut Modes<Loop<3>>| {
        let at = (0..nest.len()).max_by_key(|&i| nest[i].size).unwrap_or(0);
        nest.remove(at)
    };
    let (row, col, step) = (longest(&mut rows), longest(&mut cols), longest(&mut inner));
    around.extend(rows.into_iter().chain(cols));
    let batched = |l: Loop<3>| Batch { size: l.size, a: l.strides[0], b: l.strides[1], c: l.strides[2] };
    Gemm {
        m: row.size,
        n: col.size,
        k: step.size,
        a: Matrix { offset: a.offset(), rows: row.strides[0], cols: step.strides[0] },
        b: Matrix { offset: b.offset(), rows: step.strides[1], cols: col.strides[1] },
        c: Matrix { offset: 0, rows: row.strides[2], cols: col.strides[2] },
        batch: around.into_iter().filter(|l| l.size != 1).map(batched).collect(),
        sum: inner.into_iter().map(batched).collect(),
        alpha: T::one(),
        beta: T::zero(),
    }
}

impl<T: Scalar> Var<T> {
    /// The matrix products of the last two modes, `[.., m, k]` times `[.., k, n]`; leading modes broadcast as in [`add`](Var::add).
    ///
    /// 2 m n k flops for each matrix of the batch. Transposed, sliced and broadcast operands are read where they lie.
    ///
    /// ```
    /// use tenfold::{Tensor, autodiff::Var};
    ///
    /// let a = Var::<f64>::parameter(Tensor::<f64, _>::ones([5, 1, 2, 3])?);
    /// let b = Var::parameter(Tensor::ones([4, 3, 6])?);
    /// let c = a.matmul(&b)?;
    /// assert_eq!(c.shape(), &[5, 4, 2, 6]);
    /// let gradients = c.sum()?.backward()?;
    /// assert_eq!(gradients.of(&b)?.to_vec()?[0], 10.0); // 5 matrices of 2 rows met it
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) where an operand has fewer than two modes, the inner sizes differ or the leading
    /// modes do not fit; [`ErrorKind::Device`](crate::ErrorKind::Device) where the operands live in different places.
    pub fn matmul(&self, other: &Self) -> Result<Self> {
        self.device().check_same(other.device(), "matmul")?;
        let (a, b) = (self.shape(), other.shape());
        if a.len() < 2 || b.len() < 2 || sides(a)[1] != sides(b)[0] {
            let message = format!("{a:?} times {b:?}; needs [.., m, k] times [.., k, n]");
            return Err(Error::shape("matmul", message));
        }
        let lead = common_shape("matmul", &a[..a.len() - 2], &b[..b.len() - 2])?;
        let records = Self::records(&[self, other]);
        let a = (records && other.needs_gradient()).then(|| Saved::operand(self, self.value())).transpose()?;
        let b = (records && self.needs_gradient()).then(|| Saved::operand(other, other.value())).transpose()?;
        let c = multiply(self.value(), other.value(), &lead)?;
        let leads = [self, other].map(|v| v.shape()[..v.order() - 2].to_vec());
        Ok(Self::record("matmul", c, &[self, other], move |dc, flow| {
            if let (true, Some(b)) = (flow.needs(0), b) {
                flow.give(0, multiply(&dc, &transposed(b.get()), &leads[0])?)?;
            }
            if let (true, Some(a)) = (flow.needs(1), a) {
                flow.give(1, multiply(&transposed(a.get()), &dc, &leads[1])?)?;
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

    const SHAPES: [(&[usize], &[usize]); 12] = [
        (&[3, 4], &[4, 5]),
        (&[1, 1], &[1, 1]),
        (&[2, 3, 4], &[4, 5]),
        (&[3, 4], &[2, 4, 5]),
        (&[2, 3, 4], &[2, 4, 1]),
        (&[2, 1, 3, 4], &[5, 4, 2]),
        (&[2, 1, 1, 4], &[1, 3, 4, 2]),
        (&[2, 3, 1, 4], &[3, 4, 2]),
        (&[1, 3, 4], &[2, 4, 5]),
        (&[0, 4], &[4, 5]),
        (&[3, 0], &[0, 5]),
        (&[2, 2, 2, 3], &[2, 1, 3, 2]),
    ];

    fn naive(a: &Dyn<f64>, b: &Dyn<f64>) -> Vec<f64> {
        let lead = common_shape("test", &a.shape()[..a.order() - 2], &b.shape()[..b.order() - 2]).unwrap();
        let wide = |x: &Dyn<f64>| x.broadcast_to([&lead[..], &sides(x.shape())].concat()).unwrap();
        let ([m, k], [_, n], count) = (sides(a.shape()), sides(b.shape()), lead.iter().product::<usize>());
        let (a, b) = (wide(a).to_vec().unwrap(), wide(b).to_vec().unwrap());
        let entry = |i: usize| {
            let (at, row, col) = (i / (m * n), i / n % m, i % n);
            (0..k).map(|s| a[(at * m + row) * k + s] * b[(at * k + s) * n + col]).sum()
        };
        (0..count * m * n).map(entry).collect()
    }

    #[test]
    fn products_and_gradients_of_every_broadcast() {
        for (i, (a, b)) in SHAPES.into_iter().enumerate() {
            let (a, b) = (normal(a, i as u64), normal(b, i as u64 + 50));
            for (a, b) in [(a.clone(), b.clone()), (reversed(&a), b.clone()), (a.clone(), reversed(&b))] {
                let c = Var::constant(a.clone()).matmul(&Var::constant(b.clone())).unwrap();
                close(&c.value().to_vec().unwrap(), &naive(&a, &b), 1e-13);
                check_gradients(&[a, b], 1e-6, |v| v[0].matmul(&v[1])).unwrap();
            }
        }
    }

    #[test]
    fn a_shared_matrix_makes_one_product() {
        let p: Gemm<f64> = plan(
            &Layout::contiguous(&[8, 50, 30]),
            &Layout::contiguous(&[30, 20]),
            &Layout::contiguous(&[8, 50, 20]),
            &[8],
            [50, 20, 30],
        );
        assert_eq!((p.m, p.n, p.k, p.batch.len(), p.sum.len()), (400, 20, 30, 0, 0));
        // And so does its gradient.
        let (a, dc) = (Layout::contiguous(&[8, 50, 30]).permuted(&[0, 2, 1]), Layout::contiguous(&[8, 50, 20]));
        let p: Gemm<f64> = plan(&a, &dc, &Layout::contiguous(&[30, 20]), &[8], [30, 20, 50]);
        assert_eq!((p.m, p.n, p.k, p.batch.len(), p.sum.len()), (30, 20, 400, 0, 0));
    }

    #[test]
    fn errors_name_both_shapes() {
        let v = |shape: &[usize]| Var::constant(normal(shape, 1));
        assert_eq!(
            v(&[2, 3]).matmul(&v(&[2, 3])).unwrap_err().to_string(),
            "matmul: [2, 3] times [2, 3]; needs [.., m, k] times [.., k, n]"
        );
        assert!(v(&[3]).matmul(&v(&[3, 1])).is_err());
        assert!(v(&[2, 3, 4]).matmul(&v(&[3, 4, 2])).is_err());
    }
}
