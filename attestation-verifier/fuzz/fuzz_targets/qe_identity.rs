//! Intel's QE identity (PCS API v4), before its signature is looked at.
#![no_main]

use attestation_verifier::fields;
use attestation_verifier::parse::tdx::QeIdentity;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let parsed = QeIdentity::parse(input);
    assert_eq!(fields::qe_identity(input).is_ok(), parsed.is_ok());
});
