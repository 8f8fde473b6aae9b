//! Which layers other programs adapt as they are adapted here.

use crate::{
    autodiff::PaddingMode,
    error::{Error, ErrorKind, Result},
    nn::Operation,
    peft::site::Site,
};

/// What to do where a file cannot say it.
pub(super) const MERGED: &str = "write merged weights instead (peft::merge, then nn::Save)";

/// An error where PEFT and kohya's programs compute something else with an update of this layer, or nothing at all: they
/// run it as a convolution of its own that knows the stride and the padding only.
pub(super) fn check_plain(operation: &'static str, site: &Site<'_>) -> Result<()> {
    let reason = match site.operation() {
        Operation::Linear | Operation::Embedding { .. } => return Ok(()),
        Operation::ConvTranspose(_) => "it is a transposed convolution",
        Operation::Residual(_) => "it is a norm with a sum before it",
        Operation::Conv(options) if options.groups > 1 => "it has several groups",
        Operation::Conv(options) if options.padding_mode != PaddingMode::Zeros => "its padding is not zeros",
        Operation::Conv(options) => {
            let dilation = options.dilation.values(operation, "dilation", site.shape().len() - 2)?;
            if dilation.iter().all(|&step| step == 1) {
                return Ok(());
            }
            "it is dilated"
        }
    };
    let message = format!("layer {:?}: {reason}, which the format does not have; {MERGED}", site.name());
    Err(Error::new(ErrorKind::Unsupported, operation, message))
}
