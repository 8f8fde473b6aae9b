//! The cross-entropy of logits with class labels.
//!
//! For logits $z$ of one row, its label $y$ and smoothing $\epsilon$ over $C$ classes, with the target $q = (1 - \epsilon)\\, e_y + \epsilon / C$,
//!
//! $$\ell = -\sum_c q_c \log p_c = \log \sum_c e^{z_c} - (1 - \epsilon)\\, z_y - \frac{\epsilon}{C} \sum_c z_c,
//! \qquad p = \mathrm{softmax}(z),$$
//!
//! and the loss is the mean over the rows that count. Its gradient is $(p - q)$ over their number. The largest logit is taken off first, so
//! nothing overflows, and where the logits need a gradient it is computed on the way forward, while a row lies in the cache: the way back is
//! then nothing at all, or a scaling where the loss itself was scaled.
//!
//! Smoothing: Szegedy et al. 2016 (arXiv:1512.00567), section 7.

use super::super::Var;
use crate::{
    device::{
        losses::{self, Targets},
        storage::Storage,
    },
    error::{Error, ErrorKind, Result},
    scalar::{Index, Scalar},
    tensor::{Tensor, index_at},
};
use ndarray::{Dimension, IxDyn};

/// How [`Var::cross_entropy`] treats labels. The default is neither smoothing nor ignored labels.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CrossEntropy {
    /// How much of each target, between 0 and 1, is spread evenly over all classes.
    pub smoothing: f64,
    /// A label whose rows do not count: padding, or what is not to be predicted. PyTorch's is -100.
    pub ignore: Option<i64>,
}

impl<T: Scalar> Var<T> {
    /// The mean cross-entropy of logits `[.., classes]` with labels `[..]`, over the rows that are not ignored; a single number.
    ///
    /// Two passes over a row in the cache: one read of the logits from memory, and one write of the gradient where it is wanted.
    ///
    /// ```
    /// use ndarray::array;
    /// use tenfold::{Tensor, autodiff::{CrossEntropy, Var}};
    ///
    /// let logits = Var::parameter(Tensor::from(array![[0.0, 0.0], [5.0, -5.0]]));
    /// let labels = Tensor::from(array![1i64, -100]);
    /// let loss = logits.cross_entropy(&labels, CrossEntropy { ignore: Some(-100), ..Default::default() })?;
    /// assert!((loss.item()? - 2f64.ln()).abs() < 1e-15);
    /// assert_eq!(loss.backward()?.of(&logits)?.to_vec()?, [0.5, -0.5, 0.0, 0.0]);
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where the shapes do not fit; [`ErrorKind::Value`] where a label is no class, where *all* labels are ignored (a
    /// mean over nothing; PyTorch returns NaN), or for smoothing outside 0 to 1; [`ErrorKind::Device`] where the labels are elsewhere.
    pub fn cross_entropy<I: Index, D: Dimension>(&self, labels: &Tensor<I, D>, how: CrossEntropy) -> Result<Self> {
        let name = "cross_entropy";
        self.device().check_same(labels.device(), name)?;
        let Some((&classes, lead)) = self.shape().split_last().filter(|s| s.1 == labels.shape()) else {
            let message = format!(
                "logits of shape {:?} for labels of shape {:?}; needs [.., classes] and [..]",
                self.shape(),
                labels.shape()
            );
            return Err(Error::shape(name, message));
        };
        if !(0.0..=1.0).contains(&how.smoothing) {
            let message = format!("smoothing {} does not lie between 0 and 1", how.smoothing);
            return Err(Error::new(ErrorKind::Value, name, message));
        }
        let (z, labels) = (self.value().to_contiguous()?, labels.to_contiguous()?);
        let rows = lead.iter().product();
        let mut targets = Targets { rows, classes, smoothing: how.smoothing, ignore: how.ignore, counted: 0 };
        for (i, &label) in labels.to_host()?.as_slice().unwrap_or_default().iter().enumerate() {
            if !targets.counts(label) {
                continue;
            }
            targets.counted += 1;
            if label.to_usize().is_none_or(|label| label >= classes) {
                let message =
                    format!("label {label} at {:?} is none of the {classes} classes", index_at(labels.shape(), i));
                return Err(Error::new(ErrorKind::Value, name, message));
            }
        }
        if targets.counted == 0 {
            let message = match how.ignore {
                Some(ignore) if rows > 0 => {
                    format!("all {rows} labels are {ignore}, which is ignored: there is no mean")
                }
                _ => format!("logits of shape {:?} have no rows: there is no mean", self.shape()),
            };
            return Err(Error::new(ErrorKind::Value, name, message));
        }
        let (block, picks) = ((&z.storage, z.layout.offset()), (&labels.storage, labels.layout.offset()));
        let (loss, gradient) = losses::cross_entropy(block, picks, targets, Self::records(&[self]))?;
        Ok(self.loss(name, loss, gradient))
    }

    /// A single number whose gradient by this variable is known already.
    fn loss(&self, operation: &'static str, loss: Storage<T>, gradient: Option<Storage<T>>) -> Self {
        let shape = self.shape().to_vec();
        let value: Tensor<T, IxDyn> = Tensor::row_major(loss, &[]);
        Self::record(operation, value, &[self], move |dy, flow| {
            let Some(gradient) = gradient else { return Ok(()) };
            let gradient = losses::scaled(gradient, shape.iter().product(), dy.flat())?;
            flow.give(0, Tensor::row_major(gradient, &shape))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::{
        check_gradients,
        testing::{normal, reversed},
    };
    use ndarray::array;

    /// As the formula reads.
    fn naive(z: &Tensor<f64, IxDyn>, labels: &[i64], how: CrossEntropy) -> f64 {
        let classes = *z.shape().last().unwrap();
        let flat = z.to_vec().unwrap();
        let rows = flat.chunks(classes).zip(labels).filter(|r| Some(*r.1) != how.ignore);
        let losses: Vec<f64> = rows
            .map(|(z, &label)| {
                let sum: f64 = z.iter().map(|z| z.exp()).sum();
                let q = |c: usize| {
                    how.smoothing / classes as f64 + if c as i64 == label { 1.0 - how.smoothing } else { 0.0 }
                };
                z.iter().enumerate().map(|(c, z)| -q(c) * (z.exp() / sum).ln()).sum()
            })
            .collect();
        losses.iter().sum::<f64>() / losses.len() as f64
    }

    #[test]
    fn the_formula_and_its_gradient() {
        for (lead, classes) in [(&[5][..], 4), (&[2, 3], 33), (&[1], 1), (&[7], 70)] {
            let z = normal(&[lead, &[classes]].concat(), 1);
            let pick = |i: &[usize]| ((i.iter().sum::<usize>() * 5 + 1) % classes) as i64;
            let labels = Tensor::<i64, IxDyn>::from_fn(lead.to_vec(), pick).unwrap();
            let ignored = classes as i64 - 1;
            for ignore in [None, Some(-100), Some(ignored).filter(|_| classes > 1)] {
                for smoothing in [0.0, 0.1, 1.0] {
                    let how = CrossEntropy { smoothing, ignore };
                    for z in [z.clone(), reversed(&z)] {
                        let loss = Var::constant(z.clone()).cross_entropy(&labels, how).unwrap().item().unwrap();
                        let expected = naive(&z, &labels.to_vec().unwrap(), how);
                        assert!((loss - expected).abs() < 1e-13 * expected.abs().max(1.0), "{loss} {expected}");
                        check_gradients(&[z], 1e-6, |v| v[0].cross_entropy(&labels, how)?.scale(3.0)).unwrap();
                    }
                }
            }
        }
    }

    #[test]
    fn large_logits_are_safe() {
        let z = Var::parameter(Tensor::from(array![[1e30f32, -1e30, f32::NEG_INFINITY], [-3e38, -3e38, -3e38]]));
        let loss = z.cross_entropy(&Tensor::from(array![0u32, 1]), CrossEntropy::default()).unwrap();
        assert!((loss.item().unwrap() - 3f32.ln() / 2.0).abs() < 1e-6);
        let dz = loss.backward().unwrap().take(&z).unwrap().to_vec().unwrap();
        assert_eq!(dz[..3], [0.0; 3]);
        let nan = Var::constant(Tensor::from(array![[1.0, f64::NAN]]));
        assert!(
            nan.cross_entropy(&Tensor::from(array![0u32]), CrossEntropy::default()).unwrap().item().unwrap().is_nan()
        );
    }

    #[test]
    fn threads_agree() {
        let z = normal(&[300, 257], 3).cast::<f32>().unwrap();
        let labels = Tensor::from_fn([300], |i| (i[0] % 257) as u32).unwrap();
        let run = |threads| {
            let z = Var::parameter(z.to_device(&crate::Device::cpu().threads(threads)).unwrap());
            let loss = z.cross_entropy(&labels, CrossEntropy::default()).unwrap();
            (loss.item().unwrap(), loss.backward().unwrap().take(&z).unwrap().to_vec().unwrap())
        };
        let (one, two) = (run(1), run(2));
        assert_eq!(one.1, two.1);
        assert!((one.0 - two.0).abs() < 1e-6);
        let sums: f64 = one.1.iter().map(|&x| x as f64).sum();
        assert!(sums.abs() < 1e-6);
    }

    #[test]
    fn errors() {
        let z = Var::constant(normal(&[2, 3], 1));
        let run = |labels: [i64; 2], how| z.cross_entropy(&Tensor::from(ndarray::arr1(&labels)), how);
        let plain = CrossEntropy::default();
        let ignore = CrossEntropy { ignore: Some(-100), ..plain };
        assert_eq!(
            run([0, 3], plain).unwrap_err().to_string(),
            "cross_entropy: label 3 at [1] is none of the 3 classes"
        );
        assert_eq!(
            run([-1, 0], ignore).unwrap_err().to_string(),
            "cross_entropy: label -1 at [0] is none of the 3 classes"
        );
        assert_eq!(
            run([-100, -100], ignore).unwrap_err().to_string(),
            "cross_entropy: all 2 labels are -100, which is ignored: there is no mean"
        );
        assert!(run([0, 0], CrossEntropy { smoothing: 1.5, ..plain }).is_err());
        assert!(run([0, 0], CrossEntropy { smoothing: f64::NAN, ..plain }).is_err());
        assert!(z.cross_entropy(&Tensor::from(array![0u32]), plain).is_err());
        assert!(
            Var::constant(normal(&[0, 3], 1)).cross_entropy(&Tensor::<u32, _>::zeros([0]).unwrap(), plain).is_err()
        );
    }
}
