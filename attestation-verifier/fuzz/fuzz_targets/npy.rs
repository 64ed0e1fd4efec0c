//! NumPy files, as the command line reads them.
#![no_main]

use attestation_verifier::exchange::tensors;
use libfuzzer_sys::fuzz_target;

#[path = "../../cli/src/npy.rs"]
mod npy;

fuzz_target!(|input: &[u8]| {
    if let Ok(tensor) = npy::parse("x", input) {
        let _ = tensors(&[tensor]);
    }
});
