//! Intel's TCB info (PCS API v4), before its signature is looked at.
#![no_main]

use attestation_verifier::fields;
use attestation_verifier::parse::tdx::TcbInfo;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let parsed = TcbInfo::parse(input);
    assert_eq!(fields::tcb_info(input).is_ok(), parsed.is_ok());
});
