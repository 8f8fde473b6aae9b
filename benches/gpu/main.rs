//! Times operations on a GPU beside what the device allows: bytes that an operation has to move and flops that it has to compute at least,
//! over the time it took. `benches/peers/gpu.py` times the same in PyTorch and TensorLy.
//!
//! ```sh
//! cargo bench --bench gpu              # everything
//! cargo bench --bench gpu -- softmax   # what has this in its name
//! cargo bench --bench gpu -- --brief   # each case a single time, to count what it does rather than to time it
//! ```
//!
//! Times are medians of rounds, taken by the host's clock around many launches and one wait at the end, so that the launches' own cost
//! is in them where the host is slower than the GPU: small operations show what the host takes for them.

mod conv;
mod products;
mod rows;
mod timing;
mod work;

fn main() {
    let device = match tenfold::Device::cuda(0) {
        Ok(device) => device,
        Err(error) => return println!("nothing to time: no GPU here ({error})"),
    };
    let pattern = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let bench = timing::Bench::new(device, pattern, std::env::args().any(|argument| argument == "--brief"));
    for family in [rows::run, products::run, conv::run] {
        // One family that fails must not cost the others their time on the device.
        if let Err(error) = family(&bench) {
            println!("{error}");
        }
    }
}
