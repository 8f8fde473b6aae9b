//! Images: decoding, splitting, augmentation, batches, and what is wrong with them.

mod augmentation;
mod bad_input;
mod decoding;
mod resume;
mod sources;
