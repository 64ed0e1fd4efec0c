//! TDX evidence, parsed and authenticated without a policy.
#![no_main]

use attestation_verifier::authenticate::intel::authenticate;
use attestation_verifier::parse::tdx::parse;
use attestation_verifier::{Checks, Roots};
use libfuzzer_sys::fuzz_target;
use touchstone_formats::Evidence;
use touchstone_fuzz::{AT, roots};

fuzz_target!(|input: &[u8]| {
    let Ok(evidence) = Evidence::parse(input) else {
        return;
    };
    let mut checks = Checks::new();
    if let Some(parsed) = parse(&evidence, &mut checks) {
        for roots in roots() {
            let _ = authenticate(parsed.clone(), roots, AT.time, &mut Checks::new());
        }
        assert!(authenticate(parsed, &Roots::pinned(), AT.time, &mut checks).is_none());
    }
});
