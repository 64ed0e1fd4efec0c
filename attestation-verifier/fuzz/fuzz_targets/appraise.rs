//! An evidence file, judged: either platform, any collateral.
#![no_main]

use attestation_verifier::appraise;
use libfuzzer_sys::fuzz_target;
use touchstone_fuzz::{AT, policy, roots};

fuzz_target!(|input: &[u8]| {
    for roots in roots() {
        let verdict = appraise(input, policy(), roots, None, AT);
        assert_ne!(verdict.exit(), 0, "the root is simulated");
        let _ = (verdict.words(), verdict.deciding());
    }
});
