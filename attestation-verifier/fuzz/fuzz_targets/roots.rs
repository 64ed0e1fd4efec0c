//! PEM files of roots that a caller names.
#![no_main]

use attestation_verifier::Roots;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = Roots::pinned().with_simulated_pem(input);
});
