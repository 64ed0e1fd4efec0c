//! A whole bundle, judged. Accepted is only what the machine of the seeds signed.
#![no_main]

use attestation_verifier::{Comparison, check};
use libfuzzer_sys::fuzz_target;
use touchstone_fuzz::{AT, policy, roots};

fuzz_target!(|input: &[u8]| {
    let comparison = Comparison {
        receipt_only: true,
        ..Comparison::default()
    };
    for roots in roots() {
        let verdict = check(input, policy(), roots, &comparison, AT);
        assert_eq!(verdict, check(input, policy(), roots, &comparison, AT));
        assert_ne!(verdict.exit(), 0, "the root is simulated");
        let _ = (verdict.words(), verdict.deciding());
    }
});
