//! Lists of notices, signed and not.
#![no_main]

use attestation_verifier::regrade::{Advisories, ListContent};
use libfuzzer_sys::fuzz_target;
use touchstone_fuzz::log_key;

fuzz_target!(|input: &[u8]| {
    if let Ok(list) = ListContent::parse(input) {
        let _ = list.text();
    }
    let _ = Advisories::parse(input, log_key());
});
