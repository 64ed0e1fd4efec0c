//! Certificate revocation lists.
#![no_main]

use attestation_verifier::parse::crl::Crl;
use attestation_verifier::{describe, fields};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(crl) = Crl::parse(input) {
        assert_eq!(crl.der(), input);
        assert!(describe::crl(input).is_ok());
        let _ = fields::crl(input);
    }
});
