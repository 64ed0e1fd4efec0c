//! X.509 certificates, and AMD's and Intel's extensions in them.
#![no_main]

use attestation_verifier::parse::cert::Certificate;
use attestation_verifier::parse::tdx::PckExtensions;
use attestation_verifier::parse::vek::VekExtensions;
use attestation_verifier::{describe, fields};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(certificate) = Certificate::parse(input) else {
        return;
    };
    assert_eq!(certificate.der(), input);
    assert!(describe::certificate(input).is_ok());
    let _ = fields::certificate(input);
    let _ = VekExtensions::read(&certificate);
    let _ = PckExtensions::read(&certificate);
    let _ = (
        certificate.may_sign_certificates(),
        certificate.unknown_critical(),
    );
});
