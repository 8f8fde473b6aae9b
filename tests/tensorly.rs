//! The values of TensorLy (`tests/fixtures`) against ours.

mod support;

use ndarray::{Ix2, IxDyn};
use support::fixture::{Fixture, TENSORS};
use tenfold::{
    Tensor,
    algebra::{self, MultiMode},
};

#[test]
fn unfold_vectorize_and_fold() {
    let mut f = Fixture::read("unfold");
    for t in TENSORS {
        let x = f.tensor(&format!("{t}.x"));
        f.check(&format!("{t}.vec"), &x.vectorize().unwrap());
        for mode in 0..x.order() {
            f.check(&format!("{t}.unfold.{mode}"), &x.unfold(mode).unwrap());
            let matrix = f.matrix(&format!("{t}.fold_input.{mode}"));
            f.check(&format!("{t}.fold.{mode}"), &matrix.fold(mode, IxDyn(x.shape())).unwrap());
        }
    }
    f.all_taken();
}

#[test]
fn mode_products() {
    let mut f = Fixture::read("mode_dot");
    for t in TENSORS {
        let x = f.tensor(&format!("{t}.x"));
        let n = x.order();
        let matrices = f.matrices(&format!("{t}.matrix"), n);
        let transposed = f.matrices(&format!("{t}.matrix_t"), n);
        let vectors: Vec<_> = (0..n).map(|m| f.vector(&format!("{t}.vector.{m}"))).collect();
        for mode in 0..n {
            f.check(&format!("{t}.mode_dot.{mode}"), &x.mode_product(mode, &matrices[mode]).unwrap());
            f.check(&format!("{t}.mode_dot_t.{mode}"), &x.mode_product(mode, &transposed[mode].t()).unwrap());
            let product = x.mode_product_vector(mode, &vectors[mode]).unwrap();
            f.check(&format!("{t}.mode_dot_vector.{mode}"), &product);
            let skip = MultiMode { skip: Some(mode), transpose: false };
            f.check(&format!("{t}.multi_skip.{mode}"), &x.multi_mode_product(&matrices, skip).unwrap());
            let skip = MultiMode { skip: Some(mode), transpose: true };
            f.check(&format!("{t}.multi_skip_t.{mode}"), &x.multi_mode_product(&transposed, skip).unwrap());
            // All vectors but one, the last mode first so that the numbers of the others stay.
            let left = (0..n)
                .rev()
                .filter(|&m| m != mode)
                .fold(x.clone(), |x, m| x.mode_product_vector(m, &vectors[m]).unwrap());
            f.check(&format!("{t}.multi_vector_skip.{mode}"), &left);
        }
        f.check(&format!("{t}.multi"), &x.multi_mode_product(&matrices, MultiMode::default()).unwrap());
        let all_transposed = MultiMode { transpose: true, ..MultiMode::default() };
        f.check(&format!("{t}.multi_t"), &x.multi_mode_product(&transposed, all_transposed).unwrap());
        let ends = x.mode_products(&[(0, &matrices[0]), (n - 1, &matrices[n - 1])]).unwrap();
        f.check(&format!("{t}.multi_ends"), &ends);
    }
    f.all_taken();
}

#[test]
fn khatri_rao_kronecker_inner_and_outer() {
    let mut f = Fixture::read("products");
    for count in 2..=4 {
        let p = format!("p{count}");
        let a = f.matrices(&format!("{p}.kr_input"), count);
        let weights = f.vector(&format!("{p}.kr_weights")).insert_mode(0).unwrap().into_order::<Ix2>().unwrap();
        let product = |a: &[&Tensor<f64, Ix2>]| algebra::khatri_rao(a).unwrap();
        let all: Vec<_> = a.iter().collect();
        f.check(&format!("{p}.khatri_rao"), &product(&all));
        f.check(&format!("{p}.khatri_rao_weighted"), &product(&all).mul(&weights).unwrap());
        for skip in (0..count).filter(|_| count > 2) {
            let left: Vec<_> = a.iter().enumerate().filter(|&(i, _)| i != skip).map(|(_, a)| a).collect();
            f.check(&format!("{p}.khatri_rao_skip.{skip}"), &product(&left));
            f.check(&format!("{p}.khatri_rao_skip_weighted.{skip}"), &product(&left).mul(&weights).unwrap());
        }
        let b = f.matrices(&format!("{p}.kron_input"), count);
        let all: Vec<_> = b.iter().collect();
        f.check(&format!("{p}.kronecker"), &algebra::kronecker(&all).unwrap());
        let backwards: Vec<_> = b.iter().rev().collect();
        f.check(&format!("{p}.kronecker_reverse"), &algebra::kronecker(&backwards).unwrap());
        let vectors: Vec<_> = (0..count).map(|i| f.tensor(&format!("{p}.outer_input.{i}"))).collect();
        let outer = vectors[1..].iter().fold(vectors[0].clone(), |x, v| algebra::outer(&x, v).unwrap());
        f.check(&format!("{p}.outer"), &outer);
    }
    for t in TENSORS {
        let (x, y, z) = (f.tensor(&format!("{t}.x")), f.tensor(&format!("{t}.y")), f.matrix(&format!("{t}.z")));
        f.check_number(&format!("{t}.inner"), algebra::inner(&x, &y).unwrap());
        f.check_number(&format!("{t}.norm"), x.norm().unwrap());
        let contracted = algebra::contract(&x, &[x.order() - 1], &z, &[0]).unwrap();
        f.check(&format!("{t}.inner_last"), &contracted);
    }
    let (m, x) = (f.matrix("mixed.m"), f.tensor("mixed.x"));
    f.check("mixed.outer", &algebra::outer(&m, &x).unwrap());
    f.all_taken();
}

#[test]
fn mttkrp() {
    let mut f = Fixture::read("mttkrp");
    for t in TENSORS {
        let x = f.tensor(&format!("{t}.x"));
        let factors = f.matrices(&format!("{t}.factor"), x.order());
        let weights = f.vector(&format!("{t}.weights"));
        let all = x.mttkrp_all(&factors).unwrap();
        for (mode, at_once) in all.iter().enumerate() {
            let name = format!("{t}.mttkrp.{mode}");
            let ours = x.mttkrp(mode, &factors).unwrap();
            let largest = ours.max_abs().unwrap();
            assert!(approx::relative_eq!(*at_once, ours, epsilon = 1e-12 * largest), "all modes at once: {name}");
            f.check(&name, &ours);
            let name = format!("{t}.mttkrp_weighted.{mode}");
            if f.has(&name) {
                f.check(&name, &x.mttkrp_weighted(mode, &factors, &weights).unwrap());
            }
        }
    }
    f.all_taken();
}
