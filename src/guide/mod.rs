//! Chapters of the tutorial after the first, and guides for those who come from another library.
//!
//! - [Structure-preserving low-rank adaptation](adaptation): fine-tuning convolutions and linear layers in their own order.
//!
//! From another library:
//!
//! - [For TensorLy users](for_tensorly_users): NumPy's order of entries, Python's names.
//! - [For Tensor Toolbox users](for_tensor_toolbox_users): MATLAB, or Python with pyttb; another order of unfoldings.
//!
//! Each of the latter has a first example in both languages, the names both ways, what differs where the names are alike, and what is
//! not here. The pieces of Rust on these pages run as tests. The tutorial itself begins on [the first page](crate).

pub mod adaptation;
pub mod for_tensor_toolbox_users;
pub mod for_tensorly_users;
