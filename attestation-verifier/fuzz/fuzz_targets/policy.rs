//! Policy files, and what is said of them.
#![no_main]

use attestation_verifier::Policy;
use attestation_verifier::policy::{diff, lint};
use libfuzzer_sys::fuzz_target;
use touchstone_fuzz::AT;

fuzz_target!(|input: &str| {
    if let Ok(policy) = Policy::parse(input) {
        let _ = lint(&policy, AT.time);
        let _ = diff(&policy, &policy, AT.time);
    }
});
