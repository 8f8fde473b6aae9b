//! [`Confusion`]: how often which class was predicted for which label, and what follows from it.

use crate::{
    device::storage::check_room,
    error::{Error, ErrorKind, Result},
    scalar::{Index, Scalar},
    tensor::{Tensor, index_at},
};
use ndarray::Dimension;

/// The confusion matrix of a classification: entry (i, j) is how often class j was predicted where the label is i.
///
/// Filled batch by batch; every value follows from the counts. Below, $t_c$, $p_c$ and $h_c$ are how often class c is the label, is
/// predicted, and is both, and n is the number of examples.
///
/// Memory and the cost of each value: `classes` squared. An update costs a pass over what it is given.
///
/// ```
/// use ndarray::array;
/// use tenfold::{Tensor, train::metrics::Confusion};
///
/// // Pixels of two small images; 255 marks those that do not count.
/// let mut confusion = Confusion::new(3)?.ignore(255);
/// confusion.update(&Tensor::from(array![[0u32, 0], [1, 1]]), &Tensor::from(array![[0u32, 1], [1, 1]]))?;
/// confusion.update(&Tensor::from(array![[2u32, 2], [0, 0]]), &Tensor::from(array![[2u32, 0], [0, 255]]))?;
/// assert_eq!((confusion.total(), confusion.count(0, 2)), (7, 1));
/// assert_eq!(confusion.iou(1), Some(2.0 / 3.0)); // two pixels are in both, three in one or the other
/// assert!((confusion.mean_iou() - (0.5 + 2.0 / 3.0 + 0.5) / 3.0).abs() < 1e-15);
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// Row-major, labels by predictions.
    counts: Vec<u64>,
    ignore: Option<i64>,
}

impl Confusion {
    /// No examples yet, of so many classes.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`] where there is no room for a count of each pair of them.
    pub fn new(classes: usize) -> Result<Self> {
        let cells = classes.saturating_mul(classes);
        check_room::<u64>("Confusion::new", cells)?;
        Ok(Self { classes, counts: vec![0; cells], ignore: None })
    }

    /// Does not count examples with this label.
    pub fn ignore(self, label: i64) -> Self {
        Self { ignore: Some(label), ..self }
    }

    /// Adds examples: the predicted classes and the labels, of the same shape.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where shapes differ, [`ErrorKind::Value`] where a label or a prediction is no class. Nothing is added then.
    pub fn update<P: Index, L: Index, D: Dimension, E: Dimension>(
        &mut self,
        predicted: &Tensor<P, D>,
        labels: &Tensor<L, E>,
    ) -> Result<()> {
        if predicted.shape() != labels.shape() {
            let (p, l) = (predicted.shape(), labels.shape());
            let message = format!("predictions of shape {p:?} for labels of shape {l:?}; needs equal shapes");
            return Err(Error::shape("Confusion", message));
        }
        let predicted: Vec<i64> = predicted.to_vec()?.into_iter().map(whole).collect();
        self.add(&predicted, labels)
    }

    /// Adds examples whose predicted class is that of the largest logit (the first of equals): logits `[.., classes]` and labels `[..]`.
    ///
    /// # Errors
    /// As [`update`](Confusion::update); [`ErrorKind::Value`] where a logit is NaN.
    pub fn update_logits<T: Scalar, L: Index, D: Dimension, E: Dimension>(
        &mut self,
        logits: &Tensor<T, D>,
        labels: &Tensor<L, E>,
    ) -> Result<()> {
        let classes = self.classes;
        if logits.shape().split_last() != Some((&classes, labels.shape())) {
            let (z, l) = (logits.shape(), labels.shape());
            let message = format!(
                "logits of shape {z:?} for labels of shape {l:?} and {classes} classes; needs [.., {classes}] and [..]"
            );
            return Err(Error::shape("Confusion", message));
        }
        let flat = logits.to_vec()?;
        if let Some(i) = flat.iter().position(|z| z.is_nan()) {
            let message = format!("the logit at {:?} is NaN", index_at(logits.shape(), i));
            return Err(Error::new(ErrorKind::Value, "Confusion", message));
        }
        let largest = |row: &[T]| (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        let predicted: Vec<i64> = flat.chunks(classes.max(1)).map(|row| largest(row) as i64).collect();
        self.add(&predicted, labels)
    }

    fn add<L: Index, E: Dimension>(&mut self, predicted: &[i64], labels: &Tensor<L, E>) -> Result<()> {
        let flat: Vec<i64> = labels.to_vec()?.into_iter().map(whole).collect();
        let class = |what: &str, x: i64, i: usize| match usize::try_from(x).ok().filter(|&c| c < self.classes) {
            Some(class) => Ok(class),
            None => {
                let (at, classes) = (index_at(labels.shape(), i), self.classes);
                let message = format!("{what} {x} at {at:?} is none of the {classes} classes");
                Err(Error::new(ErrorKind::Value, "Confusion", message))
            }
        };
        let mut cells = Vec::with_capacity(flat.len());
        for (i, (&label, &predicted)) in flat.iter().zip(predicted).enumerate() {
            if self.ignore != Some(label) {
                cells.push(class("label", label, i)? * self.classes + class("prediction", predicted, i)?);
            }
        }
        cells.into_iter().for_each(|cell| self.counts[cell] += 1);
        Ok(())
    }

    /// How often `predicted` was predicted where the label is `label`; 0 for what is no class.
    pub fn count(&self, label: usize, predicted: usize) -> u64 {
        let is_class = |class: usize| class < self.classes;
        if is_class(label) && is_class(predicted) { self.counts[label * self.classes + predicted] } else { 0 }
    }

    /// The number of examples.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How often a class is the label, is predicted, and is both.
    fn of_class(&self, class: usize) -> (f64, f64, f64) {
        let sum = |count: &dyn Fn(usize) -> u64| (0..self.classes).map(count).sum::<u64>() as f64;
        (sum(&|c| self.count(class, c)), sum(&|c| self.count(c, class)), self.count(class, class) as f64)
    }

    /// The mean of `value` over the classes for which it has one; 0 where there is none.
    fn mean(&self, value: impl Fn(usize) -> Option<f64>) -> f64 {
        let values: Vec<f64> = (0..self.classes).filter_map(value).collect();
        values.iter().sum::<f64>() / values.len().max(1) as f64
    }

    /// The share of examples whose label was predicted, $\sum_c h_c / n$. NaN without examples.
    pub fn accuracy(&self) -> f64 {
        (0..self.classes).map(|c| self.count(c, c)).sum::<u64>() as f64 / self.total() as f64
    }

    /// The F1 score of a class against all others, the harmonic mean of precision and recall: $2 h_c / (t_c + p_c)$. Of class 1 it is what
    /// is called the F1 score of a problem with two classes. 0 where the class neither occurs nor is predicted, as
    /// scikit-learn has it.
    pub fn f1(&self, class: usize) -> f64 {
        self.f1_if_met(class).unwrap_or(0.0)
    }

    fn f1_if_met(&self, class: usize) -> Option<f64> {
        let (labels, predictions, hits) = self.of_class(class);
        (labels + predictions > 0.0).then(|| 2.0 * hits / (labels + predictions))
    }

    /// The mean of the F1 scores of all classes that occur or are predicted, each class with the same weight: scikit-learn's
    /// `f1_score(.., average="macro")`. 0 without examples.
    pub fn f1_macro(&self) -> f64 {
        self.mean(|class| self.f1_if_met(class))
    }

    /// Matthews' correlation coefficient, between -1 and 1, for any number of classes
    /// (J. Gorodkin, *Comparing two K-category assignments by a K-category correlation coefficient*, Computational Biology and
    /// Chemistry 28, 2004):
    ///
    /// $$ \frac{n \sum_c h_c - \sum_c t_c p_c}{\sqrt{n^2 - \sum_c p_c^2} \sqrt{n^2 - \sum_c t_c^2}} $$
    ///
    /// 0 where all labels, or all predictions, are one class, as scikit-learn has it.
    pub fn matthews(&self) -> f64 {
        let n = self.total() as f64;
        let (mut hits, mut both, mut predicted, mut labelled) = (0.0, 0.0, 0.0, 0.0);
        for class in 0..self.classes {
            let (t, p, h) = self.of_class(class);
            hits += h;
            both += t * p;
            predicted += p * p;
            labelled += t * t;
        }
        let spread = (n * n - predicted) * (n * n - labelled);
        if spread == 0.0 { 0.0 } else { (n * hits - both) / spread.sqrt() }
    }

    /// Intersection over union of a class (the Jaccard index), $h_c / (t_c + p_c - h_c)$; none where the class neither occurs nor is
    /// predicted.
    pub fn iou(&self, class: usize) -> Option<f64> {
        let (labels, predictions, hits) = self.of_class(class);
        (labels + predictions > 0.0).then(|| hits / (labels + predictions - hits))
    }

    /// The mean intersection over union of all classes that occur or are predicted, as in semantic segmentation. 0 without
    /// examples.
    pub fn mean_iou(&self) -> f64 {
        self.mean(|class| self.iou(class))
    }
}

/// An index as a whole number; one too large for that is none of the classes anyway.
fn whole<I: Index>(index: I) -> i64 {
    index.to_i64().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Ix1, arr1, array};

    fn tensor(values: &[i64]) -> Tensor<i64, Ix1> {
        Tensor::from(arr1(values))
    }

    #[test]
    fn nothing_and_one_class() {
        let mut confusion = Confusion::new(3).unwrap();
        assert!(confusion.accuracy().is_nan());
        assert_eq!((confusion.f1(0), confusion.f1_macro(), confusion.matthews()), (0.0, 0.0, 0.0));
        assert_eq!((confusion.iou(2), confusion.mean_iou()), (None, 0.0));
        confusion.update(&tensor(&[1, 1]), &tensor(&[1, 1])).unwrap();
        assert_eq!((confusion.accuracy(), confusion.f1_macro(), confusion.matthews()), (1.0, 1.0, 0.0));
        assert_eq!((confusion.f1(9), confusion.count(9, 0), confusion.count(0, 9)), (0.0, 0, 0));
        assert_eq!((confusion.count(usize::MAX, 1), confusion.count(1, usize::MAX)), (0, 0));
    }

    #[test]
    fn more_classes_than_memory_has_room_for() {
        for classes in [usize::MAX, 1 << 32, 1 << 31] {
            let error = Confusion::new(classes).unwrap_err();
            assert!(error.kind() == ErrorKind::Memory && error.message().contains(" GB for "), "{error}");
        }
    }

    #[test]
    fn batches_add_up() {
        let (labels, predicted) = ([0, 2, 1, 1, 0, 2, 2, -100], [0, 1, 1, 0, 0, 2, 1, 2]);
        let mut whole = Confusion::new(3).unwrap().ignore(-100);
        whole.update(&tensor(&predicted), &tensor(&labels)).unwrap();
        let mut parts = Confusion::new(3).unwrap().ignore(-100);
        for i in 0..8 {
            parts.update(&tensor(&predicted[i..=i]), &tensor(&labels[i..=i])).unwrap();
        }
        assert_eq!(parts, whole);
        assert_eq!(whole.total(), 7);
        let mut logits = Confusion::new(3).unwrap().ignore(-100);
        let z = Tensor::from_fn([8, 3], |i| if i[1] as i64 == predicted[i[0]] { 1.5f32 } else { 0.5 }).unwrap();
        logits.update_logits(&z, &tensor(&labels)).unwrap();
        assert_eq!(logits, whole);
    }

    #[test]
    fn errors_leave_the_counts() {
        let mut confusion = Confusion::new(2).unwrap();
        let message = |result: Result<()>| result.unwrap_err().to_string();
        assert_eq!(
            message(confusion.update(&tensor(&[0, 1]), &tensor(&[0, 2]))),
            "Confusion: label 2 at [1] is none of the 2 classes"
        );
        assert_eq!(
            message(confusion.update(&tensor(&[0, -1]), &tensor(&[0, 1]))),
            "Confusion: prediction -1 at [1] is none of the 2 classes"
        );
        assert!(message(confusion.update(&tensor(&[0]), &tensor(&[0, 1]))).ends_with("needs equal shapes"));
        let z = Tensor::from(array![[0.0, f64::NAN]]);
        assert_eq!(message(confusion.update_logits(&z, &tensor(&[0]))), "Confusion: the logit at [0, 1] is NaN");
        assert!(message(confusion.update_logits(&z, &tensor(&[0, 1]))).ends_with("needs [.., 2] and [..]"));
        assert_eq!(confusion.total(), 0);
    }
}
