//! Matrix products.

use super::Case;

pub const CASES: &[Case] = &[];
