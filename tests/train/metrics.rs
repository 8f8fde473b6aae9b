//! Metrics against scikit-learn's and scipy's values (`tests/fixtures/generate_metrics.py`).

use super::support::fixture::arrays;
use ndarray::{ArrayD, arr1};
use std::collections::BTreeSet;
use tenfold::{
    Tensor,
    train::metrics::{Confusion, Correlation},
};

/// The cases of a kind, each with a function that gives its arrays by name.
fn cases(kind: &str, mut check: impl FnMut(&str, &dyn Fn(&str) -> ArrayD<f64>)) -> usize {
    let all = arrays("metrics");
    let names: BTreeSet<&str> =
        all.keys().filter_map(|name| Some(name.strip_prefix(kind)?.strip_prefix('.')?.split_once('.')?.0)).collect();
    names.iter().for_each(|case| check(case, &|what| all[&format!("{kind}.{case}.{what}")].clone()));
    names.len()
}

#[track_caller]
fn assert_same(what: &str, ours: f64, theirs: &ArrayD<f64>) {
    let theirs = theirs[[0]];
    let close = (ours - theirs).abs() <= 1e-12 || ours.is_nan() && theirs.is_nan();
    assert!(close, "{what}: {ours}, and theirs is {theirs}");
}

fn numbers<T: tenfold::Element>(x: &ArrayD<f64>) -> Tensor<T, ndarray::Ix1> {
    let flat: Vec<f64> = x.iter().copied().collect();
    Tensor::from(arr1(&flat)).cast().unwrap()
}

#[test]
fn classes() {
    let count = cases("classes", |case, read| {
        let mut confusion = Confusion::new(read("classes")[[0]] as usize).unwrap();
        let (labels, predicted) = (numbers::<i64>(&read("labels")), numbers::<u32>(&read("predicted")));
        // In two batches.
        for range in [0..labels.len() / 2, labels.len() / 2..labels.len()] {
            let part = (predicted.narrow(0, range.clone()).unwrap(), labels.narrow(0, range).unwrap());
            confusion.update(&part.0, &part.1).unwrap();
        }
        let values = [
            ("accuracy", confusion.accuracy()),
            ("f1", confusion.f1(1)),
            ("f1_macro", confusion.f1_macro()),
            ("matthews", confusion.matthews()),
            ("mean_iou", confusion.mean_iou()),
        ];
        values.iter().for_each(|(name, ours)| assert_same(&format!("{case}: {name}"), *ours, &read(name)));
    });
    assert_eq!(count, 10);
}

#[test]
fn pairs() {
    let count = cases("pairs", |case, read| {
        let mut correlation = Correlation::new();
        correlation.update(&numbers::<f64>(&read("predicted")), &numbers::<f64>(&read("targets"))).unwrap();
        assert_same(&format!("{case}: pearson"), correlation.pearson(), &read("pearson"));
        assert_same(&format!("{case}: spearman"), correlation.spearman(), &read("spearman"));
    });
    assert_eq!(count, 8);
}
